/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks of a volume that were written and not yet covered by a flush of the disk that they
 * were written to: which ones are lost when that flush fails. An open-addressing table by grain of
 * the volume and disk with a mask of blocks; it grows with what is in it and is emptied at each
 * sealing. Not thread safe.
 */
#ifndef VOLMGR_UNFLUSHED_IMPL_H
#define VOLMGR_UNFLUSHED_IMPL_H

#include <stdint.h>

struct unflushed_slot {
    uint64_t grain_plus_one; /* number of the grain in the volume; 0: a free slot */
    uint16_t blocks;         /* 0: all of them have been removed */
    uint16_t disk;           /* index in the pool */
};

struct unflushed {
    struct unflushed_slot *slots; /* NULL: empty */
    uint32_t capacity;            /* a power of two, at least twice `count` */
    uint32_t count;               /* of slots in use */
};

/* Zeroed memory is an empty set. */
void unflushed_free(struct unflushed *set);
void unflushed_add(struct unflushed *set, uint64_t grain, uint16_t disk, uint16_t blocks);
/* These have reached the disk by themselves (FUA). */
void unflushed_remove(struct unflushed *set, uint64_t grain, uint16_t disk, uint16_t blocks);
/* Empty it; much memory is given back. */
void unflushed_clear(struct unflushed *set);
/*
 * What `from` has of these disks (a bit each; NULL: of all) is in `to` afterwards, and `from` is
 * empty.
 */
void unflushed_move(struct unflushed *to, struct unflushed *from, const uint64_t *disks);
/*
 * Walk: `*cursor` is 0 at first; NULL at the end. In no order; the set must not change meanwhile.
 */
const struct unflushed_slot *unflushed_next(const struct unflushed *set, uint32_t *cursor);

#endif
