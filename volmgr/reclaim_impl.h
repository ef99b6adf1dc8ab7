/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is deleted: which records change, and how the space comes back. Control reactor.
 *
 * THEORY OF OPERATION
 *
 * Views and heads are dropped in a plan: the lineage and the tables change at once, in the phase in
 * which the commit is submitted that records what follows from it (snapshots that are being deleted
 * or stay hidden, branches that lose their head or are continued). Nobody can read what was dropped
 * from then on. If the commit fails the pool is read-only, and the next open knows of nothing.
 *
 * Behind the commit its page versions and grains are removed in the background, one piece after
 * the other, by one worker of the pool. It works on jobs of one branch (lineage_impl.h), tails
 * before gaps. A piece is a commit that removes some versions, puts the links right, and clears
 * the use bits of the grains that no other version names; they can be used again behind it.
 * Between pieces it can stop: what is left to do is found again at the next open, from the records
 * alone.
 *
 * A version that the head's working version supersedes is removed by the owner of the volume, as
 * part of its open batch, against the page in memory: what the head dropped before that is left to
 * this step, what it drops later it frees by itself. All others are immutable, with those before
 * and behind them, and are removed from here. So that they are, the owner's `frozen` falls only
 * when the worker says so, between two pieces: at the beginning of a gap.
 *
 * When no job is left, the records of the deleted snapshots go, and branches that nobody needs.
 *
 * Invariants
 *  R1  A use bit is cleared by the commit that removes the last version that names the grain.
 *  R2  Until the records of what is being deleted have gone, an open finds all the jobs again.
 *  R3  What is immutable for the worker stays so while it works on a piece.
 *  R4  A grain is handed out again only when every request of the line's head has ended that was
 *      under way when it was removed: ranges that are locked are blocks, and a copy moves others.
 */
#ifndef VOLMGR_RECLAIM_IMPL_H
#define VOLMGR_RECLAIM_IMPL_H

#include "volmgr/control_impl.h"
#include "volmgr/snapshot_impl.h"
#include "volmgr/snapshot_space_impl.h"

/* ---- dropping views and heads ---- */

/*
 * All calls but the last one in one phase, in the pool's line; a new branch that goes with it is in
 * lineage and tables before. Lineage, states and names of snapshots, and flags of branches change
 * in memory with the calls.
 */
struct reclaim_plan {
    struct pool *pool;
    struct byte_buffer jobs; /* struct lineage_job[] */
};

void reclaim_plan_begin(struct reclaim_plan *plan, struct pool *pool);
/* A view that is PENDING or KEPT, and that nobody holds. */
void reclaim_plan_drop_view(struct reclaim_plan *plan, struct snapshot *snapshot);
/* The head of a branch; the volume is quiet. */
void reclaim_plan_drop_head(struct reclaim_plan *plan, struct pool_branch *branch);
/*
 * Append the records that change by the drops: those of snapshots (DELETING or HIDDEN, without a
 * name), and those of branches (flags).
 */
void reclaim_plan_put(struct reclaim_plan *plan, struct byte_buffer *batch);
/*
 * The commit has ended. `done`: well, and the space begins to come back. Otherwise the pool is
 * read-only, and what is in memory is of no consequence any more. Once for each begin.
 */
void reclaim_plan_end(struct reclaim_plan *plan, bool done);

/* ---- the work ---- */

/* At open, when the pool serves: go on with what pool->reclaim_jobs has. */
void reclaim_start(struct pool *pool);
/* For who closes the pool, which is stopping: no worker is there any more. */
bool reclaim_has_stopped(const struct pool *pool);
/* For lineage_*() calls beside plans, behind their commit: jobs go to the worker. */
struct lineage_jobs reclaim_jobs(struct pool *pool);
void reclaim_add(struct pool *pool, const struct lineage_job *job);
/* Has the worker to do with it, or with deleted snapshots of it? Then it must stay. */
bool reclaim_needs_branch(const struct pool *pool, const struct pool_branch *branch);
/* All of a branch goes: append the removal of what is left of deleted snapshots of it. */
void reclaim_forget_snapshots(struct pool *pool, uint64_t branch, struct byte_buffer *batch);
/* Look whether there is something to do: jobs, or records and branches that can go. */
void reclaim_kick(struct pool *pool);

/* ---- space_survey.c: whose space is it ---- */

/*
 * The counters of the pool as they are in the store. Embedded in its owner; behind done(), and
 * until space_survey_free(), the calls below tell about the lineage as it is then.
 */
struct space_survey {
    struct io_op op; /* control; 0 or -errno */
    bool exact;      /* all volumes are sealed before, so that the answers are as of now */
    struct pool *pool;
    void *driver;
};
void space_survey_start(struct space_survey *survey, struct pool *pool);
void space_survey_free(struct space_survey *survey);

/* Grains that deleting this view alone, or (LINEAGE_FOREVER) the head of the branch, would free. */
uint64_t space_survey_exclusive(struct space_survey *survey, const struct pool_branch *branch,
                                uint32_t generation);
/*
 * Grains that deleting all of these frees, now or when what clones need goes; `ret_hidden` (or
 * NULL) tells which views stay as hidden ones.
 */
uint64_t reclaim_would_free(struct space_survey *survey, const struct space_victim *victims,
                            uint32_t count, bool *ret_hidden);

#endif
