/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Branches, snapshots and views of a pool: the tables, and what the files about snapshots share.
 *
 * The rules are in lineage_impl.h (which views exist, what ends when one goes), map_version_impl.h
 * (which version the head's changes go to) and dead_versions_impl.h. Here they get names, records
 * and volumes. Unless stated, everything is the control reactor's.
 *
 * Invariants
 *  T1  Every branch record that the store has is in pool->branches, and every snapshot record in
 *      pool->snapshots; pool->lineage has the same branches, and a view for each snapshot that is
 *      PENDING, KEPT or HIDDEN. Tables, lineage and records change together, in the phase behind
 *      the commit (a new branch or pending view: before it).
 *  T2  A branch has a head iff some volume in pool->volumes_by_branch has it as its branch.
 *  T3  Who lets go of extents and of grains in them is branch->volume: the head's volume; of a
 *      branch without head the volume whose head it was, as long as that exists, else a keeper.
 *      All branches with the same record.volume live on the same shard.
 *  T4  The owner reactor's numbers of a volume (branch.current_generation, frozen, owned_above,
 *      chain) change on the owner only, by volume_bump(), volume_unbump() and volume_relink().
 *  T5  A view volume exists while it has holds; the generation is not deleted while it has.
 */
#ifndef VOLMGR_SNAPSHOT_IMPL_H
#define VOLMGR_SNAPSHOT_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash_table.h"
#include "base/list.h"
#include "io/reactor.h"
#include "metadata/schema.h"
#include "volmgr/lineage_impl.h"

struct error;
struct pool;
struct snapshot;
struct snapshot_view;
struct volume;

/* ---- where look-ups of a volume's pages go; its owner reactor ---- */

/* The newest version of `branch` that is not above `generation`. */
struct view_place {
    uint64_t branch;
    uint32_t generation; /* LINEAGE_FOREVER: the head, that is, its current generation */
};

/*
 * Places in the order in which they are looked at, with falling generations: place n holds the
 * versions above the generation of place n + 1. Immutable; volume_relink() replaces it.
 */
struct view_chain {
    uint32_t refs;  /* of the reactor on which it is used */
    uint32_t count; /* where a reader looks; nothing in any of them: the page is empty */
    uint32_t all;   /* and where only what a version supersedes is looked for (complete branches) */
    struct view_place places[];
};

/* With one reference. `generation` LINEAGE_FOREVER: of the head. */
struct view_chain *view_chain_make(struct lineage_branch *branch, uint32_t generation);
/* Of a branch that has no parent, and is not in the lineage yet. */
struct view_chain *view_chain_make_root(uint64_t branch);
static inline struct view_chain *
view_chain_get(struct view_chain *chain)
{
    chain->refs++;
    return chain;
}
/* NULL is nothing. */
void view_chain_put(struct view_chain *chain);
/* The branch whose key space holds this version of a page, if the chain sees it. */
uint64_t view_chain_branch(const struct view_chain *chain, uint32_t version);

/* ---- branches ---- */

struct pool_branch {
    struct hash_node by_id;  /* pool->branches */
    struct list link;        /* pool->branch_list, by ascending id */
    struct branch_record record;     /* as the store has it; current_generation may be behind */
    struct lineage_branch *lineage;
    struct volume *volume;   /* T3; NULL only before pool_add_volume() */
    uint64_t extents;        /* that have it as their owner */
};

/* NULL: there is none. */
struct pool_branch *pool_find_branch(const struct pool *pool, uint64_t id);
/*
 * A branch that is in the lineage already (lineage_add_root(), lineage_fork()) gets its entry.
 * Its volume is set by pool_add_volume() or volume_switch_branch().
 */
struct pool_branch *pool_branch_add(struct pool *pool, const struct branch_record *record,
                                    struct lineage_branch *lineage);
/*
 * Its record has been deleted: out of the table and of the lineage (lineage_forget(), so it has
 * ended, and has no children). No extent has it as owner. Frees its keeper when that keeps nothing
 * else and is on no shard.
 */
void pool_branch_remove(struct pool *pool, struct pool_branch *branch);
/* Put the record as the lineage is now: parent, fork, flags. Changes branch->record. */
void pool_branch_put(struct pool_branch *branch, struct byte_buffer *batch);
/* Which volume lets go of the extents of this branch (T3); NULL: there is no such branch. */
struct volume *pool_find_keeper(const struct pool *pool, uint64_t branch);

/* ---- snapshots ---- */

/* One for each snapshot record: PENDING, KEPT, HIDDEN or DELETING. */
struct snapshot {
    struct hash_node by_view; /* pool->snapshots, by (branch, generation) */
    struct hash_node by_name; /* pool->snapshots_by_name, while it has a name and a volume */
    bool is_named;
    struct list link;         /* pool->snapshot_list */
    struct list volume_link;  /* volume->snapshots, by ascending id; unless its volume is gone */
    struct pool *pool;
    struct pool_branch *branch;
    uint32_t generation;
    struct snapshot_record record;
    struct volume *volume; /* record.volume; NULL: it is gone */
    struct volume *view;   /* read-only, while somebody reads it; NULL */
    uint32_t holds;        /* readers: exports, differences, contexts. Not 0: not to be deleted */
    struct list openings;  /* struct snapshot_opening, in line */
    struct snapshot_view *view_driver;
    bool view_busy;        /* its message is under way */
};

/* NULL: there is none. */
struct snapshot *pool_find_snapshot(const struct pool *pool, uint64_t branch, uint32_t generation);
/* A KEPT one by its name; NULL. */
struct snapshot *pool_find_snapshot_by_name(const struct pool *pool, const struct volume *volume,
                                            const char *name);
/* A KEPT or PENDING one by its name: is the name taken? */
bool pool_snapshot_name_is_taken(const struct pool *pool, const struct volume *volume,
                                 const char *name);
/* Into the tables; the lineage is not touched (lineage_bump() has made the view). */
struct snapshot *snapshot_add(struct pool *pool, struct pool_branch *branch, uint32_t generation,
                              const struct snapshot_record *record);
/* Out of the tables, and freed; nobody holds it. The lineage is not touched. */
void snapshot_remove(struct snapshot *snapshot);
/* The state and the name of its record follow from what has been committed. */
void snapshot_set_state(struct snapshot *snapshot, enum snapshot_state state);

/* ---- volumes and branches ---- */

/*
 * On the owner: its place in the lineage has changed (continued, spliced, promoted, complete). The
 * volume takes the chain over, and lets go of the old one. No cached page becomes wrong by that:
 * what is found stays, by another way. Page loads under way go on along the old one, whose versions
 * are still there; so an ended branch is removed from the store only behind a round.
 */
void volume_relink(struct volume *volume, struct view_chain *chain, uint32_t owned_above);
/*
 * On the owner, for rollback: the volume is quiet (volume_make_quiet()) and its head goes on in
 * another branch of the same shard. Forgets the cached pages. `frozen`: lineage_frozen() of it.
 * Control has to change pool_branch.volume and pool->volumes_by_branch: pool_volume_rebranch().
 */
void volume_switch_branch(struct volume *volume, const struct branch_record *branch,
                          struct view_chain *chain, uint32_t frozen, uint32_t owned_above,
                          uint64_t mapped_grains);
/* Control's side, behind the commit; `branch` is in the tables. Extents stay with the volume. */
void pool_volume_rebranch(struct pool *pool, struct volume *volume, struct pool_branch *branch);
/*
 * Control: the volume's record has been deleted, but its branches go on without a head: it leaves
 * the tables of ids and names, and keeps their extents without a name (volume->keeper). It stays in
 * pool->volumes and on its shard. Nobody is attached, and it does not serve (volume_quiet).
 */
void pool_volume_becomes_keeper(struct pool *pool, struct volume *volume);

/* ---- reading a view ---- */

/*
 * A read-only struct volume that shows a KEPT snapshot: reads, STATUS and PREFETCH are served, as
 * with any volume, on the reactor volume_reactor(); changes fail with -EROFS. Sessions attach to it
 * as to any volume. It is not in pool->volumes, but in pool->views by pool_link.
 *
 * Opening counts a hold and calls done() later, on control, with a volume that serves. Closing
 * gives one hold back; with the last one the view goes: sessions of it have ended (the caller has
 * seen to that), what is under way is waited for.
 */
struct snapshot_opening {
    struct list link;
    void (*done)(struct snapshot_opening *opening, struct volume *view);
};
void snapshot_view_open(struct snapshot *snapshot, struct snapshot_opening *opening);
void snapshot_view_close(struct snapshot *snapshot);
/*
 * The pool is being closed, and its hosts have gone: exports of views are forgotten, and all holds
 * given back, whoever has them (jobs have ended before). False: not yet, ask again.
 */
bool pool_views_end(struct pool *pool);

/* ---- for pool.c, pool_open.c, pool_close.c, pool_load.c ---- */

/* The first mention of a branch's volume, which keeps its extents from then on (T3). */
void pool_branch_set_volume(struct pool_branch *branch, struct volume *volume);
/* Parts of pool_add_volume() and pool_remove_volume(). */
void pool_lineage_add_volume(struct pool *pool, struct volume *volume);
void pool_lineage_remove_volume(struct pool *pool, struct volume *volume);
/* All snapshots and branches, before the volumes of a pool that is closed. No view is open. */
void pool_lineage_clear(struct pool *pool);

/* ---- at open (snapshot_load.c) ---- */

/*
 * What the records found at open leave to be freed: DELETING snapshots, branches that have ended or
 * were given up. struct lineage_job[] in pool->reclaim_jobs, counted in `tails`, in the order in
 * which they are to be worked on. reclaim_start() takes them over; nobody else touches them.
 */

#endif
