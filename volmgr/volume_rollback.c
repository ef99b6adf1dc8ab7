/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rollback: the volume goes on in a new branch that begins at the snapshot, and the one of before
 * is given up. One commit, whatever the size. What only the old head had comes back in the
 * background; what later snapshots hold stays with them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define VOLUME_ROLLBACK_PHASES(X)                                                                  \
    X(CHECK)                                                                                       \
    X(IN_LINE_AGAIN)                                                                               \
    X(COMMIT)                                                                                      \
    X(SWITCH)                                                                                      \
    X(PUBLISH)                                                                                     \
    X(REOPEN)                                                                                      \
    X(END)

enum volume_rollback_phase {
#define PHASE_ENUM(name) ROLLBACK_##name,
    VOLUME_ROLLBACK_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    ROLLBACK_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    VOLUME_ROLLBACK_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == ROLLBACK_PHASE_COUNT, "a name for each phase");

struct volume_return {
    struct machine machine;
    struct volume_rollback *rollback;
    struct volume *volume;
    struct volume_quiet quiet;
    struct volume_record record;
    struct branch_position position;
    struct pool_branch *branch; /* the new one */
    struct view_chain *chain;
    uint32_t frozen;
    uint32_t owned_above;
    struct volume_info *old_info;
    struct reclaim_plan plan;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
};

MACHINE_DONE(commit_done, struct volume_return, commit.op)

static enum machine_step
check(struct volume_return *self)
{
    struct machine *machine = &self->machine;
    struct error *error = &machine->control->error;

    self->volume = machine_find_volume(machine, machine->pool, self->rollback->name.volume);
    if (self->volume == NULL) {
        return MACHINE_NEXT;
    }
    if (volume_check_not_creating(self->volume, error) < 0 ||
        volume_find_snapshot(self->volume, self->rollback->name.snapshot, error) == NULL) {
        return machine_fail_noted(machine);
    }
    volume_make_quiet(machine, &self->quiet, self->volume, true);
    return machine_wait(machine);
}

/* The branch from now on, in lineage and tables. */
static struct pool_branch *
add_branch(struct volume_return *self, const struct snapshot *snapshot)
{
    struct pool *pool = self->machine.pool;
    const struct pool_branch *parent = snapshot->branch;

    self->record.branch = pool->record.next_branch++;
    struct lineage_branch *lineage = lineage_fork(&pool->lineage, parent->lineage,
                                                  snapshot->generation, self->record.branch);
    struct branch_record record = {
        .id = self->record.branch,
        .family = parent->record.family,
        .parent = parent->record.id,
        .fork_generation = lineage->fork,
        .current_generation = lineage->current,
        .volume = self->record.id,
    };
    return pool_branch_add(pool, &record, lineage);
}

static enum machine_step
commit(struct volume_return *self)
{
    struct machine *machine = &self->machine;
    struct pool *pool = machine->pool;
    struct volume *volume = self->volume;

    if (self->quiet.status < 0) {
        return volume_quiet_refuse(machine, &self->quiet);
    }
    if (volume->holds > 0) {
        return machine_fail(machine, -EBUSY,
                            "volume `%s/%s` is in use, by a host or a comparison: try again when "
                            "that has ended",
                            pool->name, volume->durable.name);
    }
    const struct snapshot *snapshot = volume_find_snapshot(volume, self->rollback->name.snapshot,
                                                           &machine->control->error);
    if (snapshot == NULL) {
        return machine_fail_noted(machine); /* deleted in the meantime */
    }
    self->record = volume->durable;
    struct pool_branch *given_up = pool_find_branch(pool, volume->durable.branch);
    self->branch = add_branch(self, snapshot);
    self->record.size_bytes = snapshot->record.size_bytes;
    self->record.reserve_bytes = MIN(self->record.reserve_bytes, self->record.size_bytes);
    self->position.mapped_grains = snapshot->record.mapped_grains;
    reclaim_plan_begin(&self->plan, pool);
    reclaim_plan_drop_head(&self->plan, given_up);
    schema_put_volume(&self->batch, &self->record);
    schema_put_position(&self->batch, self->branch->record.id, &self->position);
    reclaim_plan_put(&self->plan, &self->batch);
    pool_branch_put(self->branch, &self->batch);
    self->commit.has_numbers = true;
    self->commit.batch = &self->batch;
    machine_arm(machine, &self->commit.op, commit_done);
    committer_submit(pool, &self->commit);
    return machine_wait(machine);
}

static enum machine_step
switch_visit(struct round_stop *stop)
{
    struct volume_return *self = container_of(stop->round, struct volume_return, round);
    struct volume *volume = self->volume;

    volume->record = self->record;
    volume_switch_branch(volume, &self->branch->record, self->chain, self->frozen,
                         self->owned_above, self->position.mapped_grains);
    return MACHINE_NEXT;
}

static enum machine_step
switch_branch(struct volume_return *self)
{
    struct machine *machine = &self->machine;
    struct lineage_branch *lineage = self->branch->lineage;

    if (machine->status < 0) {
        reclaim_plan_end(&self->plan, false);
        return machine_fail(machine, machine->status,
                            "the rollback could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    self->chain = view_chain_make(lineage, LINEAGE_FOREVER);
    self->frozen = lineage_frozen(lineage, LINEAGE_FOREVER);
    self->owned_above = lineage_owned_above(lineage);
    round_one(machine, &self->round, self->volume->shard->index, switch_visit);
    return machine_wait(machine);
}

static enum machine_step
grace_visit(struct round_stop *stop)
{
    (void)stop; /* nobody reads the old info any more */
    return MACHINE_NEXT;
}

static enum machine_step
publish(struct volume_return *self)
{
    struct machine *machine = &self->machine;
    struct volume *volume = self->volume;

    pool_volume_rebranch(machine->pool, volume, self->branch);
    volume->durable = self->record;
    volume->extents_pinned = volume->extents_owned; /* the snapshot shows all that it has */
    self->old_info = volume_publish_info(volume);
    reclaim_plan_end(&self->plan, true);
    round_all(machine, &self->round, grace_visit);
    return machine_wait(machine);
}

static enum machine_step
rollback_phase(struct machine *machine, uint32_t phase)
{
    struct volume_return *self = container_of(machine, struct volume_return, machine);

    switch ((enum volume_rollback_phase)phase) {
    case ROLLBACK_CHECK:
        return check(self);
    case ROLLBACK_IN_LINE_AGAIN:
        return volume_quiet_step_in(machine, &self->quiet);
    case ROLLBACK_COMMIT:
        return commit(self);
    case ROLLBACK_SWITCH:
        return switch_branch(self);
    case ROLLBACK_PUBLISH:
        return publish(self);
    case ROLLBACK_REOPEN:
        volume_reopen(machine, &self->quiet);
        return machine_wait(machine);
    case ROLLBACK_END:
        volume_quiet_end(&self->quiet);
        return MACHINE_NEXT;
    case ROLLBACK_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
rollback_release(struct machine *machine)
{
    struct volume_return *self = container_of(machine, struct volume_return, machine);

    free(self->old_info);
    round_free(&self->round);
    round_free(&self->quiet.round);
    byte_buffer_free(&self->batch);
    free(self);
}

static const struct machine_ops VOLUME_ROLLBACK_OPS = {
    .name = "volume rollback",
    .phase_names = PHASE_NAMES,
    .phase_count = ROLLBACK_PHASE_COUNT,
    .failed_phase = ROLLBACK_REOPEN,
    .phase = rollback_phase,
    .release = rollback_release,
};

void
manager_volume_rollback(struct manager *manager, struct volume_rollback *rollback)
{
    struct volume_return *self = calloc(1, sizeof(*self));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(self != NULL);
    machine_init(&self->machine, &VOLUME_ROLLBACK_OPS, manager, &rollback->control);
    self->rollback = rollback;
    machine_start_for_volume(&self->machine, &rollback->name);
}
