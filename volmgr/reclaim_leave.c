/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When all versions that nobody sees are gone: counters of theirs, the records of the snapshots
 * that were deleted, and branches that nobody needs. In the pool's line.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/reclaim_worker_impl.h"
#include "volmgr/space_survey_impl.h"

MACHINE_DONE(survey_done, struct reclaim, survey.op)
MACHINE_DONE(commit_done, struct reclaim, commit.op)

/* ---- who can leave ---- */

/* One whose volume is being erased goes with it. */
static bool
branch_can_leave(const struct pool *pool, const struct pool_branch *branch)
{
    const struct lineage_branch *lineage = branch->lineage;

    return lineage->ended && lineage->tails == 0 && lineage->children == 0 &&
           branch->extents == 0 && pool_find_volume_by_branch(pool, branch->record.id) == NULL;
}

bool
reclaim_has_leavers(const struct pool *pool)
{
    list_for_each(&pool->snapshot_list, link) {
        if (list_entry(link, struct snapshot, link)->record.state == SNAPSHOT_DELETING) {
            return true;
        }
    }
    list_for_each(&pool->branch_list, link) {
        if (branch_can_leave(pool, list_entry(link, struct pool_branch, link))) {
            return true;
        }
    }
    return false;
}

/* ---- before entering the line ---- */

/* Extents of volumes that are no more, and which nothing is in, go back to the pool. */
static enum machine_step
shed_visit(struct round_stop *stop)
{
    struct reclaim *reclaim = container_of(stop->round, struct reclaim, round);

    list_for_each(&reclaim->pool->shards[stop->index]->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        if (!volume->serving) {
            grain_source_shed(&volume->source);
        }
    }
    return MACHINE_NEXT;
}

/* All that was dropped has been removed, and what was counted on the way is in the store. */
static enum machine_step
survey(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;

    round_all(machine, &reclaim->round, shed_visit);
    reclaim->survey.exact = false;
    machine_arm(machine, &reclaim->survey.op, survey_done);
    space_survey_start(&reclaim->survey, reclaim->pool);
    return machine_wait(machine);
}

static enum machine_step
surveyed(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the counters of space cannot be read: %s",
                            error_name(machine->status));
    }
    if (reclaim_must_stop(reclaim)) {
        space_survey_free(&reclaim->survey);
        return machine_fail(machine, -ECANCELED, "goes on at the next start");
    }
    /* Not behind others: who deletes the pool waits in the line for this worker to end. */
    if (!list_empty(&reclaim->pool->controls)) {
        return reclaim_later(reclaim, RECLAIM_SURVEYED, CONTROL_POLL_NS);
    }
    return machine_step_in(machine);
}

/* ---- counters ---- */

static int64_t
count_of(const struct space_cells *cells, const struct space_cell *wanted)
{
    for (uint32_t i = 0; i < cells->count; i++) {
        if (cells->cells[i].birth == wanted->birth && cells->cells[i].death == wanted->death) {
            return cells->cells[i].count;
        }
    }
    return 0;
}

static void
put_counter_removal(struct byte_buffer *batch, const struct history_counter *counter)
{
    uint8_t key[HISTORY_COUNTER_KEY_BYTES];

    history_counter_key_encode(key, counter);
    store_batch_delete(batch, STORE_FAMILY_HISTORY, key, sizeof(key));
}

/*
 * What has changed in the cells of a branch. The owner may add to what was born above `settled`
 * meanwhile, so it is added to; nobody adds to the others when they are 0.
 */
static void
put_differences(struct byte_buffer *batch, uint64_t branch, uint32_t settled,
                const struct space_cells *before, const struct space_cells *after)
{
    for (uint32_t i = 0; i < before->count; i++) {
        const struct space_cell *cell = &before->cells[i];
        struct history_counter counter = { branch, cell->death, cell->birth };
        int64_t left = count_of(after, cell);
        if (left == cell->count) {
            continue;
        }
        if (left == 0 && (cell->death != SPACE_ALIVE || cell->birth <= settled)) {
            put_counter_removal(batch, &counter);
        } else {
            schema_add_counter(batch, &counter, left - cell->count);
        }
    }
    /* A cell that was not there: grains were dropped whose birth was never counted. */
    for (uint32_t i = 0; i < after->count; i++) {
        const struct space_cell *cell = &after->cells[i];
        struct history_counter counter = { branch, cell->death, cell->birth };
        if (count_of(before, cell) == 0) {
            schema_add_counter(batch, &counter, cell->count);
        }
    }
}

/* The part of a branch without a head that nothing above sees any more. */
static void
prune_tail(struct space_table *table, const struct pool_branch *branch)
{
    const struct lineage_branch *lineage = branch->lineage;
    struct space_cells *cells = space_table_cells(table, branch->record.id);
    uint32_t above = lineage->fork;

    if (lineage->has_head || lineage->tails > 0 || cells == NULL) {
        return;
    }
    if (lineage->continued_by != NULL) {
        above = lineage->continued_by->fork;
    } else if (lineage->view_count > 0) {
        above = lineage->views[lineage->view_count - 1].generation;
    }
    space_tail_prune(cells, above);
}

/* Cells of the branch that were born up to it are not added to by anybody. */
static uint32_t
settled_for(const struct pool *pool, uint64_t id)
{
    const struct pool_branch *branch = pool_find_branch(pool, id);

    if (branch == NULL || branch->lineage->ended || !lineage_top(branch->lineage)->has_head) {
        return LINEAGE_FOREVER;
    }
    return reclaim_settled_generation(lineage_top(branch->lineage));
}

/* Counters that came to 0 by themselves. */
static void
put_empties(struct reclaim *reclaim, const struct space_table *table)
{
    const struct history_counter *empties =
        (const struct history_counter *)(const void *)table->empties.data;
    size_t count = table->empties.length_bytes / sizeof(*empties);

    for (size_t i = 0; i < count; i++) {
        uint32_t settled = settled_for(reclaim->pool, empties[i].branch);
        uint32_t newest =
            empties[i].death != SPACE_ALIVE ? empties[i].death : empties[i].birth;
        if (newest <= settled) {
            put_counter_removal(&reclaim->batch, &empties[i]);
        }
    }
}

static void
put_counters(struct reclaim *reclaim)
{
    struct pool *pool = reclaim->pool;
    struct space_table *table = space_survey_table(&reclaim->survey);
    struct space_source source = space_survey_source(&reclaim->survey);
    struct space_cells *before = calloc(MAX(table->count, (size_t)1), sizeof(*before));

    ASSERT(before != NULL);
    for (size_t i = 0; i < table->count; i++) {
        space_cells_copy(&table->rows[i].cells, &before[i]);
    }
    list_for_each(&pool->branch_list, link) {
        prune_tail(table, list_entry(link, struct pool_branch, link));
    }
    list_for_each(&pool->branch_list, link) {
        struct lineage_branch *branch = list_entry(link, struct pool_branch, link)->lineage;
        if (branch->continued_by == NULL && !branch->ended) {
            space_line_prune(&source, branch);
        }
    }
    for (size_t i = 0; i < table->count; i++) {
        put_differences(&reclaim->batch, table->rows[i].branch,
                        settled_for(pool, table->rows[i].branch), &before[i],
                        &table->rows[i].cells);
        space_cells_free(&before[i]);
    }
    free(before);
    put_empties(reclaim, table);
}

/* ---- the commit ---- */

static void
put_removal(struct byte_buffer *batch, const struct snapshot *snapshot)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes =
        schema_key_snapshot(key, snapshot->branch->record.id, snapshot->generation);

    store_batch_delete(batch, STORE_FAMILY_SYSTEM, key, key_bytes);
}

void
reclaim_forget_snapshots(struct pool *pool, uint64_t branch, struct byte_buffer *batch)
{
    list_for_each_safe(&pool->snapshot_list, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        if (snapshot->branch->record.id == branch) {
            ASSERT_OP(snapshot->record.state, ==, SNAPSHOT_DELETING);
            put_removal(batch, snapshot);
            snapshot_remove(snapshot);
        }
    }
}

static void
put_snapshots(struct reclaim *reclaim)
{
    list_for_each(&reclaim->pool->snapshot_list, link) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        if (snapshot->record.state == SNAPSHOT_DELETING) {
            put_removal(&reclaim->batch, snapshot);
        }
    }
}

static void
put_branches(struct reclaim *reclaim)
{
    struct pool *pool = reclaim->pool;

    list_for_each(&pool->branch_list, link) {
        struct pool_branch *branch = list_entry(link, struct pool_branch, link);
        if (branch_can_leave(pool, branch)) {
            schema_delete_id(&reclaim->batch, SCHEMA_BRANCH, branch->record.id);
            schema_delete_id(&reclaim->batch, SCHEMA_POSITION, branch->record.id);
            byte_buffer_append(&reclaim->gone, &branch, sizeof(struct pool_branch *));
        }
    }
}

static enum machine_step
leave(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;

    byte_buffer_clear(&reclaim->batch);
    byte_buffer_clear(&reclaim->gone);
    if (!reclaim_must_stop(reclaim) && reclaim->pool->reclaim_jobs.length_bytes == 0 &&
        reclaim->skipped == 0 && !reclaim->pool->reclaim_skipped) {
        put_counters(reclaim);
        put_snapshots(reclaim);
        put_branches(reclaim);
    }
    space_survey_free(&reclaim->survey);
    if (reclaim->batch.length_bytes == 0) {
        return MACHINE_NEXT;
    }
    reclaim->leaves = true;
    reclaim->commit.batch = &reclaim->batch;
    machine_arm(machine, &reclaim->commit.op, commit_done);
    committer_submit(reclaim->pool, &reclaim->commit);
    return machine_wait(machine);
}

static void
forget_leavers(struct reclaim *reclaim)
{
    struct pool *pool = reclaim->pool;
    struct pool_branch **gone = (struct pool_branch **)(void *)reclaim->gone.data;
    size_t count = reclaim->gone.length_bytes / sizeof(struct pool_branch *);

    /* Those that were deleted while this one waited for its commit stood behind it in line. */
    list_for_each_safe(&pool->snapshot_list, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        if (snapshot->record.state == SNAPSHOT_DELETING) {
            snapshot_remove(snapshot);
        }
    }
    for (size_t i = 0; i < count; i++) {
        pool_branch_remove(pool, gone[i]);
    }
}

static enum machine_step
left(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;
    int status = machine->status;
    bool leaves = reclaim->leaves && status == 0;

    if (leaves) {
        forget_leavers(reclaim);
    }
    reclaim->leaves = false;
    machine_step_out(machine);
    byte_buffer_clear(&reclaim->batch);
    if (status < 0) {
        return machine_fail(machine, status, "%s", error_name(status));
    }
    if (reclaim->skipped > 0) {
        return machine_fail(machine, -EUCLEAN,
                            "%llu page versions or their neighbours cannot be read",
                            (unsigned long long)reclaim->skipped);
    }
    bool more = reclaim->pool->reclaim_jobs.length_bytes > 0 ||
                (leaves && reclaim_has_leavers(reclaim->pool));
    return machine_goto(machine, more ? RECLAIM_NEXT_JOB : RECLAIM_END);
}

enum machine_step
reclaim_leave_phase(struct reclaim *reclaim, enum reclaim_phase phase)
{
    switch (phase) {
    case RECLAIM_SURVEY:
        return survey(reclaim);
    case RECLAIM_SURVEYED:
        return surveyed(reclaim);
    case RECLAIM_LEAVE:
        return leave(reclaim);
    default:
        ASSERT_OP(phase, ==, (uint32_t)RECLAIM_LEFT);
        return left(reclaim);
    }
}
