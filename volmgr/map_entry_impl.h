/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transitions of one map entry: pure functions, no I/O.
 *
 * THEORY OF OPERATION
 *
 * An entry tells for the 16 blocks of one grain of a volume where each is: in `home` (bit in
 * valid), nowhere (reads as zeroes), or, when there is a base, in `base` unless valid or zero says
 * otherwise. The generation in which a home or base was allocated tells who may write it: nobody
 * when a snapshot may need it (it is frozen), else the head of its line. `writable_from` is the
 * lowest generation that is not frozen.
 *
 * A first write over a frozen home makes it the base and copies nothing. Over a frozen home with a
 * base there would be three sources; so the one of the two that supplies fewer blocks, at most
 * seven, is copied into the new home and dropped. Blocks that were moved in this way have not
 * changed for the host: their `copied` bits say so to changed-block tracking.
 *
 * Invariants
 *  E1  valid and zero are disjoint.
 *  E2  zero is 0 without a base; valid is 0 without a home.
 *  E3  base_generation < home_generation when both are there.
 *  E4  A block outside valid and zero is live in base if there is one; it reads as zeroes if not.
 *  E5  A grain is written or merged into only if its generation is writable; what happens to the
 *      grains that an entry no longer names (`dropped`) is the caller's to decide.
 *  E6  damaged has only blocks that home or base supplies: what they held is lost, and a read of
 *      them fails. A block leaves it by being rewritten or zeroed as a whole; a frozen entry's
 *      successor inherits it, and so does the grain that it is moved to by a copy or merge.
 *  E7  copied is within the blocks that home or base supplies, too.
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

/* Blocks that have bytes somewhere. */
uint16_t map_entry_live(const struct map_entry *entry);

static inline bool
map_entry_names(const struct map_entry *entry, grain_address grain)
{
    return grain != GRAIN_NONE && (entry->home == grain || entry->base == grain);
}

/* Bit n: block n was moved into the grain that it is in, unchanged, by a copy or merge. */
static inline uint16_t
map_entry_copied(const struct map_entry *entry)
{
    return entry->copied;
}

/* What a write of the blocks in `mask` needs before it can be issued. */
enum map_entry_write_kind {
    MAP_WRITE_IN_PLACE,    /* home is writable: write there */
    MAP_WRITE_FRESH,       /* no home: take a grain; nothing to copy */
    MAP_WRITE_FROZEN,      /* home is frozen, no base: home becomes base, take a grain (rule 1) */
    MAP_WRITE_KEEP_BASE,   /* only a base: take a grain, keep it (rule 2) */
    MAP_WRITE_COPY,        /* frozen home over a base: take a grain, copy the less (rule 3) */
};
enum map_entry_write_kind map_entry_write_kind(const struct map_entry *entry,
                                               uint32_t writable_from);

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

/* The data of `mask` are in home, which is writable: they become valid. True if it changed. */
bool map_entry_written(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped);
/* Whether map_entry_written() would change it: a block that is new, or was copied, or damaged. */
bool map_entry_write_changes(const struct map_entry *entry, uint16_t mask);
/*
 * The blocks of `mask` are about to be overwritten in place: what the host sees of them changes,
 * even if the write then fails half-way. True if the entry changed.
 */
bool map_entry_overwritten(struct map_entry *entry, uint16_t mask);

/* Rule 3, for a write of the blocks in `mask` (not 0) over a frozen home with a base. */
struct map_entry_copy {
    uint16_t copy;      /* blocks that move to the new home: at most 7 */
    uint16_t read;      /* those of them that can be read, to be copied; the others stay damaged */
    grain_address from; /* where they are; GRAIN_NONE: there is nothing to read */
    bool home_stays;    /* the old home becomes the base; otherwise the old base stays it */
};
struct map_entry_copy map_entry_copy_plan(const struct map_entry *entry, uint16_t mask);
/*
 * The blocks of `mask` and those that map_entry_copy_plan() named are in the grain `home`. In one
 * step, so that until then the entry is good for everybody else. Drops one grain, or two.
 */
void map_entry_copied_home(struct map_entry *entry, uint16_t mask, grain_address home,
                           uint32_t generation, struct map_entry_dropped *dropped);

/*
 * Merging, rule 5: the blocks of base that home, if it is writable, can take over; 0: none. Damaged
 * ones are not read, and stay damaged.
 */
uint16_t map_entry_merge_plan(const struct map_entry *entry);
/* All of them have been copied to home: the base is dropped. */
void map_entry_merged(struct map_entry *entry, struct map_entry_dropped *dropped);

/*
 * Promotion: all that the entry has in inherited grains (of generations up to `inherited`) is, at
 * the same blocks, in `grain` too, of `generation`, the lowest that is not inherited. True if the
 * entry changed. Inherited grains are dropped without being told of.
 */
bool map_entry_adopt(struct map_entry *entry, uint32_t inherited, grain_address grain,
                     uint32_t generation);

/*
 * The blocks of `mask` read as zeroes from now on. A home that has no valid block left is dropped,
 * as is a base with nothing left to supply. True if the entry changed.
 */
bool map_entry_zeroed(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped);

/*
 * What these blocks hold is lost; those that read as zeroes are left alone. True if the entry
 * changed.
 */
bool map_entry_lost(struct map_entry *entry, uint16_t mask);

/* E1 to E4, E6 and E7. */
bool map_entry_is_sound(const struct map_entry *entry);

#endif
