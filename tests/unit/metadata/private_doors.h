/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to decoders whose headers are private to their folders, for the fuzz targets: those do not
 * see private headers, unit tests do.
 */
#ifndef TESTS_UNIT_METADATA_PRIVATE_DOORS_H
#define TESTS_UNIT_METADATA_PRIVATE_DOORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "metadata/schema.h"

struct platform;

/* ---- the volatile journal (volmgr/journal_impl.h) ---- */

enum {
    DOOR_RING_HEADER_BYTES = 4096,
    DOOR_RING_RECORD_BYTES = 80,
    DOOR_RING_RECORDS = 128,
    DOOR_RING_BYTES = DOOR_RING_HEADER_BYTES + DOOR_RING_RECORDS * DOOR_RING_RECORD_BYTES,
    /* In the header: what its CRC covers ends, and the number of the oldest record is, here. */
    DOOR_RING_TAIL_AT = 128,
};

struct door_ring_record {
    uint64_t sequence;
    uint64_t branch;
    uint64_t batch;
    uint64_t volume_grain;
    struct map_entry entry;
};

/* The name under which the platform maps it. */
void door_ring_name(char ret_name[static 96]);
/* What the product makes after `appended` records of which `committed` are not needed any more. */
void door_ring_build(struct platform *platform, uint64_t appended, uint64_t committed,
                     uint8_t ret_bytes[static DOOR_RING_BYTES]);
/* The record that door_ring_build() appends under this number. */
void door_ring_record(uint64_t sequence, struct door_ring_record *ret_record);

typedef int door_ring_fn(void *context, const struct door_ring_record *record);
/* journal_replay(); `*ret_fences` is the number of fences. */
int door_ring_replay(struct platform *platform, door_ring_fn *each, void *context,
                     size_t *ret_fences, struct error *error);

/* ---- texts of iSCSI disks (backends/iscsi_impl.h) ---- */

struct door_lun {
    char host[512];
    char user[512];
    char password[512];
    char target_password[512];
};

int door_iscsi_parse(const char *url, struct door_lun *ret_lun, struct error *error);

#endif
