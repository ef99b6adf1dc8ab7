/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transitions of one map entry: pure functions, no I/O.
 *
 * THEORY OF OPERATION
 *
 * An entry tells for the 16 blocks of one grain of a volume where each is: in `home` (bit in
 * valid), nowhere (reads as zeroes), or, when there is a base, in `base` unless valid or zero says
 * otherwise. The generation in which a home or base was allocated tells who may write it: only a
 * branch whose current generation is the same. Everything older is frozen: a snapshot may need it.
 *
 * Invariants
 *  E1  valid and zero are disjoint.
 *  E2  zero is 0 without a base; valid is 0 without a home.
 *  E3  base_generation < home_generation when both are there.
 *  E4  A block outside valid and zero is live in base if there is one; it reads as zeroes if not.
 *  E5  A grain is written, merged into or freed by a branch only if its generation is the branch's
 *      current one; others go to the dead-list of the snapshot before (here: `dropped`).
 */
#ifndef VOLMGR_MAP_ENTRY_IMPL_H
#define VOLMGR_MAP_ENTRY_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "metadata/schema.h"

/* Which of the blocks in `mask` come from where. */
struct map_entry_sources {
    uint16_t home;
    uint16_t base;
    uint16_t zero;
};

struct map_entry_sources map_entry_resolve(const struct map_entry *entry, uint16_t mask);

/* What a write of the blocks in `mask` needs before it can be issued. */
enum map_entry_write_kind {
    MAP_WRITE_IN_PLACE,    /* home is current: write there */
    MAP_WRITE_FRESH,       /* no home: take a grain; nothing to copy */
    MAP_WRITE_FROZEN,      /* home is frozen, no base: home becomes base, take a grain (rule 1) */
    MAP_WRITE_KEEP_BASE,   /* only a base: take a grain, keep it (rule 2) */
    MAP_WRITE_COPY,        /* frozen home and base: take a grain, copy every other live block (3) */
};
enum map_entry_write_kind map_entry_write_kind(const struct map_entry *entry, uint32_t generation);

/* Grains that an entry no longer refers to: at most two. */
struct map_entry_dropped {
    uint32_t count;
    grain_address grains[2];
    uint32_t generations[2];
};

/*
 * Attach a fresh home before the write is issued (kinds FRESH, KEEP_BASE; for FROZEN the old home
 * becomes the base). The blocks written become valid only by map_entry_written().
 */
void map_entry_attach_home(struct map_entry *entry, grain_address home, uint32_t generation);

/* The data of `mask` are in home (which is current): they become valid. True if that changed it. */
bool map_entry_written(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped);

/*
 * The blocks of `mask` read as zeroes from now on. A home that has no valid block left is dropped,
 * as is a base with nothing left to supply. True if the entry changed.
 */
bool map_entry_zeroed(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped);

/* E1 to E4. */
bool map_entry_is_sound(const struct map_entry *entry);

#endif
