/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by label*.c and foreign_content.c only. */
#ifndef METADATA_LABEL_IMPL_H
#define METADATA_LABEL_IMPL_H

#include "metadata/label.h"

/* A piece of a disk that is in memory. */
struct disk_window {
    const uint8_t *data;
    uint64_t start_bytes;
    uint64_t length_bytes;
    uint64_t disk_bytes; /* size of the whole disk */
};

enum {
    /* What the known signatures need: VMFS is found at 2 MiB, MD 0.90 within 128 KiB of the end. */
    LABEL_HEAD_WINDOW_BYTES = (2 << 20) + 4096,
    LABEL_TAIL_WINDOW_BYTES = 128 << 10,
};

/* Look for what others leave on disks. Untouched when nothing is found. Trusts nothing (P12). */
void foreign_content_find(const struct disk_window *window, struct foreign_content *ret_content);

/* Where the second place begins on a disk of this size. */
static inline uint64_t
label_second_place_bytes(uint64_t disk_bytes)
{
    return (disk_bytes & ~(uint64_t)(LABEL_BYTES - 1)) - LABEL_PLACE_BYTES;
}

#endif
