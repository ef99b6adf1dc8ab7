/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool address map and the allocator.
 *
 * THEORY OF OPERATION
 *
 * Extents are numbered 1, 2, 3 ... and keep their number for life; a grain's address is extent id
 * times grains per extent plus index. The table is a directory of chunks that are never moved, so
 * every reactor may resolve an address without a lock: it has learnt the address by a message or
 * from the map, after the extent had been published. The number of one that has gone back to the
 * pool is given again, so that the table does not grow with all that was ever written.
 *
 * Each extent has one shard that hands out and takes back its grains (the use bits): the shard of
 * the branch that owns it, or the shard that a shared extent (owner 0) was given to. A grain_source
 * is where a volume (or, for volumes below SOURCE_SMALL_GRAINS, the shard) takes its grains from: a
 * list of extents with room, filled by grants of the pool. Grants are asked for ahead of need and
 * grow with the rate of use; they are given back under pressure.
 *
 * Invariants
 *  X1  A grant is durable (extent records committed, file space allocated) before its first grain
 *      is handed out.
 *  X2  A grain is handed out again only after the commit that freed it is durable (P4).
 *  X3  A slot is given to a new extent only after the commit that deleted the old one is durable
 *      and the slot's discard has ended; the same goes for its number.
 *  X4  The last METADATA_RESERVE extents are for metadata; unreserved volumes leave untouched what
 *      other volumes have reserved (P7).
 */
#ifndef VOLMGR_EXTENT_IMPL_H
#define VOLMGR_EXTENT_IMPL_H

#include "base/byte_buffer.h"
#include "base/list.h"
#include "io/reactor.h"
#include "metadata/schema.h"

struct pool;
struct shard;
struct slot_preparer;
struct volume;
struct disk;

enum {
    EXTENT_CHUNK_SHIFT = 10,
    EXTENT_CHUNK_COUNT = 1 << EXTENT_CHUNK_SHIFT,
    EXTENT_DIRECTORY_COUNT = 1 << 20,
    SOURCE_SMALL_GRAINS = 1024, /* 64 MiB */
    SOURCE_GRANT_EXTENTS_MAX = 64,
    PREPARED_SLOTS_MAX = 128,
};

struct extent {
    uint64_t id;
    uint64_t owner_branch;
    struct extent_place places[EXTENT_COPIES_MAX];
    uint16_t shard;
    uint8_t state; /* enum extent_state; 0: no extent has this number */
    uint8_t copy_count;
    uint8_t tier;
    bool releasing;      /* wholly free and on its way back to the pool */
    uint32_t free_count; /* grains that may be handed out; the shard's */
    struct list link;    /* source->partial while it has free grains; the shard's */
    uint64_t *used;      /* bit per grain; the shard's */
    struct grain_source *source; /* that hands out its grains; the shard's */
};

struct extent_table {
    /* EXTENT_DIRECTORY_COUNT pointers, lazily touched; published by release stores. */
    struct extent **directory;
    uint32_t grains_per_extent;
    uint32_t grains_shift;
    uint64_t count_end; /* one more than the highest id; control reactor */
};

int extent_table_init(struct extent_table *table, uint32_t grains_per_extent);
void extent_table_free(struct extent_table *table);
/*
 * control. Room for this id; the entry has state 0 and is filled in by the caller, state last. NULL
 * when the id is taken or cannot be.
 */
struct extent *extent_table_add(struct extent_table *table, uint64_t id);
/* Any reactor; NULL when there is none. */
struct extent *extent_table_find(const struct extent_table *table, uint64_t id);

static inline uint64_t
grain_extent(const struct extent_table *table, grain_address grain)
{
    return grain >> table->grains_shift;
}

static inline uint32_t
grain_index(const struct extent_table *table, grain_address grain)
{
    return (uint32_t)(grain & (table->grains_per_extent - 1));
}

/* ---- sources: where a volume or a shard takes grains from; the shard's reactor ---- */

struct grain_source {
    struct shard *shard;
    struct volume *volume; /* NULL: shared by the small volumes of the shard */
    struct list partial; /* extents with free grains */
    uint64_t free_grains;
    uint64_t used_grains; /* of its extents, in use or taken to be used */
    uint32_t grant_extents;  /* how many to ask for next time */
    uint32_t granted_extents; /* what the last grant brought */
    uint64_t takes;          /* grains since the last grant was asked for */
    uint64_t small_takes;    /* of them, by writes of less than a grain */
    uint64_t asked_ns;       /* when the last grant was asked for */
    bool asking;             /* a grant request is under way */
    struct list waiters;     /* requests that wait for grains, by wait_link */
    int refusal;             /* what the waiters of the last answer are told: 0 or -ENOSPC, ... */
};

void grain_source_init(struct grain_source *source, struct shard *shard, struct volume *volume);
/* An extent with free grains (or none) becomes the source's: at open, and by grants. */
void grain_source_adopt(struct grain_source *source, struct extent *extent);
/*
 * Take one grain, preferably the one behind `after` so that neighbours stay together (GRAIN_NONE:
 * no preference). Returns GRAIN_NONE when there is none now: call grain_source_ask() and wait.
 */
grain_address grain_source_take(struct grain_source *source, grain_address after);
/* Give back one that was taken and never committed. */
void grain_source_untake(struct grain_source *source, grain_address grain);
/*
 * Ask the pool for extents unless that is under way. `waiters` are resumed by the answer; `refusal`
 * tells them whether to try again (0) or fail.
 */
void grain_source_ask(struct grain_source *source);
/* Grains whose freeing is durable; on any shard of the pool: they go to their extents' own. */
void grains_free_committed(struct shard *shard, const grain_address *grains, uint32_t count);
/* Give wholly free extents back to the pool, all of them. */
void grain_source_shed(struct grain_source *source);

/* ---- the allocator (allocator.c); control reactor ---- */

/* A source's wish for extents, and its answer; allocated by the asking shard. */
struct extent_grant {
    struct message message;
    struct list link;
    struct pool *pool;
    struct grain_source *source;
    struct shard *shard;
    struct volume *volume; /* NULL: for the shared source */
    uint32_t wanted;
    bool small_writes; /* most grains of the last one were taken by writes of less than a grain */
    uint32_t count;
    uint64_t extents[SOURCE_GRANT_EXTENTS_MAX];
    int status;
};

struct allocator {
    struct pool *pool;
    uint64_t slots_total;
    uint64_t slots_free;
    uint64_t metadata_extents; /* allocated for checkpoints */
    bool has_reserves;         /* some volume has a reserve: promises must be counted */
    /* A promise whose commit is under way: so many more extents for that volume. */
    uint64_t promise_pending;
    const struct volume *promise_volume;
    struct list grants;        /* struct extent_grant in line; the first one is being worked on */
    struct allocator_machine *machine;
    struct list releases;      /* struct extent_release in line */
    struct byte_buffer free_ids; /* uint64_t: below pool->record.next_extent, the last one first */
    struct slot_preparer *preparer;
    uint32_t side_operations;  /* disk operations that the machine does not wait for */
};

void allocator_init(struct allocator *allocator, struct pool *pool);
void allocator_free(struct allocator *allocator);
/* Pool opened or grown: count the slots anew. */
void allocator_refresh(struct allocator *allocator);
/* Pool opened: the numbers that no extent has. */
void allocator_find_free_ids(struct allocator *allocator);
/* Extents that metadata must always find room for, beyond what it has. */
uint64_t allocator_metadata_reserve(const struct allocator *allocator);
/* Extents that `volume` (NULL: a volume without reserve) may still get. */
uint64_t allocator_available(const struct allocator *allocator, const struct volume *volume);
/* A slot on a disk of the tier or, if that is full, any other; spread by free space. */
bool allocator_take_slot(struct allocator *allocator, uint8_t tier,
                         struct extent_place *ret_place);
void allocator_free_slot(struct allocator *allocator, struct extent_place place);
/* Mark a slot taken while the extent table is loaded; -EUCLEAN if it is taken or out of range. */
int allocator_claim_slot(struct allocator *allocator, struct extent_place place);
/* A shard asks for extents; the answer goes back by message. Control reactor. */
void allocator_grant(struct extent_grant *grant);
/* The answer: back to the shard that asked (extent.c). */
void extent_grant_answer(struct extent_grant *grant);
/* From a shard: this wholly free extent goes back to the pool. Any reactor. */
void allocator_release(struct pool *pool, uint64_t extent);
bool allocator_is_idle(const struct allocator *allocator);
/* For the preparer: take a free slot on this disk that is not ready yet; false: there is none. */
bool allocator_find_slot(struct allocator *allocator, struct disk *disk,
                         struct extent_place *ret_place);
/* For the preparer: a slot that it took is free again; ready (W2), or as any other. */
void allocator_return_slot(struct allocator *allocator, struct extent_place place, bool ready);
/* From the preparer: the slot that it was asked to yield is free. */
void allocator_slot_returned(struct allocator *allocator);

/* ---- slots that are written ahead of need (slot_prepare.c); control reactor ---- */

struct slot_preparer *slot_preparer_create(struct allocator *allocator);
/* None of its disk operations is under way: the allocator is idle. */
void slot_preparer_destroy(struct slot_preparer *preparer);
/* A ready slot of this disk leaves the list; its use bit is set, and it still counts as free. */
bool slot_preparer_take(struct slot_preparer *preparer, uint16_t disk,
                        struct extent_place *ret_place);
/*
 * A taker has found no slot. True: the one that was being written is free now. False: there is
 * none, or slot_preparer_is_yielding(): it comes with allocator_slot_returned() when the disk has
 * answered.
 */
bool slot_preparer_yield(struct slot_preparer *preparer);
bool slot_preparer_is_yielding(const struct slot_preparer *preparer);
/* How many are ready now. */
uint32_t slot_preparer_ready(const struct slot_preparer *preparer);
/* So many extents were granted: to a source of writes of less than a grain, or of others. */
void slot_preparer_granted(struct slot_preparer *preparer, uint32_t count, bool small_writes);

#endif
