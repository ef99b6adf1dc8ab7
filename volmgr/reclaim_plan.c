/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping views and heads: the lineage, the tables and the records. See reclaim_impl.h. */
#include "base/assert.h"
#include "base/util.h"
#include "volmgr/reclaim_impl.h"

static void
note_job(void *context, const struct lineage_job *job)
{
    struct reclaim_plan *plan = context;

    byte_buffer_append(&plan->jobs, job, sizeof(*job));
}

void
reclaim_plan_begin(struct reclaim_plan *plan, struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    *plan = (struct reclaim_plan){ .pool = pool };
}

void
reclaim_plan_drop_view(struct reclaim_plan *plan, struct snapshot *snapshot)
{
    struct lineage_jobs jobs = { note_job, plan };

    ASSERT(plan->pool == snapshot->pool);
    ASSERT_OP(snapshot->holds, ==, 0u);
    lineage_drop_view(snapshot->branch->lineage, snapshot->generation, &jobs);
}

void
reclaim_plan_drop_head(struct reclaim_plan *plan, struct pool_branch *branch)
{
    struct lineage_jobs jobs = { note_job, plan };

    ASSERT(plan->pool != NULL);
    lineage_drop_head(branch->lineage, &jobs);
}

/* What follows from the lineage, for a snapshot that is not being deleted already. */
static enum snapshot_state
state_by_lineage(const struct snapshot *snapshot)
{
    const struct lineage_view *view =
        lineage_find_view(snapshot->branch->lineage, snapshot->generation);

    if (view == NULL) {
        return SNAPSHOT_DELETING;
    }
    return view->state == LINEAGE_HIDDEN ? SNAPSHOT_HIDDEN
                                         : (enum snapshot_state)snapshot->record.state;
}

static uint8_t
flags_by_lineage(const struct lineage_branch *branch)
{
    return (uint8_t)((branch->has_head ? 0 : BRANCH_HEADLESS) |
                     (branch->complete ? BRANCH_COMPLETE : 0) |
                     (branch->continues ? BRANCH_CONTINUES : 0));
}

void
reclaim_plan_put(struct reclaim_plan *plan, struct byte_buffer *batch)
{
    struct pool *pool = plan->pool;

    list_for_each(&pool->snapshot_list, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        if (snapshot->record.state == SNAPSHOT_DELETING) {
            continue;
        }
        enum snapshot_state state = state_by_lineage(snapshot);
        if (state != (enum snapshot_state)snapshot->record.state) {
            snapshot_set_state(snapshot, state);
            schema_put_snapshot(batch, snapshot->branch->record.id, snapshot->generation,
                                &snapshot->record);
        }
    }
    list_for_each(&pool->branch_list, link) {
        struct pool_branch *branch = list_entry(link, struct pool_branch, link);
        if (branch->record.flags != flags_by_lineage(branch->lineage)) {
            pool_branch_put(branch, batch);
        }
    }
}

void
reclaim_plan_end(struct reclaim_plan *plan, bool done)
{
    struct pool *pool = plan->pool;
    const struct lineage_job *jobs =
        (const struct lineage_job *)(const void *)plan->jobs.data;
    size_t count = plan->jobs.length_bytes / sizeof(*jobs);

    for (size_t i = 0; done && i < count; i++) {
        reclaim_add(pool, &jobs[i]);
    }
    if (done) {
        reclaim_kick(pool); /* what was deleted may have left no job, but its record */
    }
    byte_buffer_free(&plan->jobs);
    plan->pool = NULL;
}
