/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clones: a new volume whose branch begins at a snapshot. A few records are written, whatever the
 * size; both sides keep reading the same grains until one of them writes.
 *
 * A clone of a volume as it is now begins at a snapshot of its own, which has no name. It is made
 * first, outside the pool's line; when the rest fails it is deleted again, and when the process
 * dies in between, the open does that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define VOLUME_CLONE_PHASES(X)                                                                     \
    X(CHECK)                                                                                       \
    X(IN_LINE_AGAIN)                                                                               \
    X(COMMIT)                                                                                      \
    X(APPEAR)                                                                                      \
    X(DONE)                                                                                        \
    X(ABANDON)                                                                                     \
    X(END)

enum volume_clone_phase {
#define PHASE_ENUM(name) CLONE_##name,
    VOLUME_CLONE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CLONE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    VOLUME_CLONE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == CLONE_PHASE_COUNT, "a name for each phase");

struct volume_cloning {
    struct machine machine;
    struct volume_clone *clone;
    struct snapshot *snapshot; /* it begins there */
    struct snapshot *hidden;   /* the same, if it was made for this clone */
    struct snapshot_create create;
    struct volume_name create_name;
    struct volume_record record;
    struct volume *volume;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
    struct reclaim_plan plan;
    bool plan_begun;
    bool is_recorded;
};

MACHINE_DONE(commit_done, struct volume_cloning, commit.op)
MACHINE_DONE(create_done, struct volume_cloning, create.control.op)

/* ---- checks ---- */

static int
check_target(struct volume_cloning *cloning, struct error *error)
{
    const struct volume_clone *clone = cloning->clone;
    const struct pool *pool = cloning->machine.pool;

    if (pool_check_writable(pool, error) < 0) {
        return error->code;
    }
    if (strcmp(clone->name.pool, clone->from.pool) != 0) {
        return error_set(error, -EXDEV,
                         "a clone is in the pool of what it is made from, `%s`, and shares its "
                         "data",
                         clone->from.pool);
    }
    if (!schema_name_is_valid(clone->name.volume)) {
        return error_set(error, -EINVAL, "`%.128s` is no volume name", clone->name.volume);
    }
    if (pool_find_volume(pool, clone->name.volume) != NULL) {
        return error_set(error, -EEXIST, "volume `%s/%s` exists already", pool->name,
                         clone->name.volume);
    }
    return pool_check_reserve(pool, NULL, clone->reserve_bytes, error);
}

static enum machine_step
check(struct volume_cloning *cloning)
{
    struct machine *machine = &cloning->machine;
    struct error *error = &machine->control->error;
    const struct volume_clone *clone = cloning->clone;

    if (check_target(cloning, error) < 0) {
        return machine_fail_noted(machine);
    }
    struct volume *volume = pool_find_volume(machine->pool, clone->from.volume);
    if (volume == NULL || volume->pending) {
        return machine_fail(machine, -ENOENT, "there is no volume `%s/%s`", clone->from.pool,
                            clone->from.volume);
    }
    if (clone->from.snapshot[0] != '\0') {
        cloning->snapshot = volume_find_snapshot(volume, clone->from.snapshot, error);
        return cloning->snapshot == NULL ? machine_fail_noted(machine)
                                         : machine_goto(machine, CLONE_COMMIT);
    }
    cloning->create_name = clone->from;
    cloning->create.names = &cloning->create_name;
    cloning->create.count = 1;
    cloning->create.timeout_ns = clone->timeout_ns;
    machine_step_out(machine);
    machine_arm(machine, &cloning->create.control.op, create_done);
    snapshot_create_hidden(machine->manager, &cloning->create, &cloning->hidden);
    return machine_wait(machine);
}

static enum machine_step
in_line_again(struct volume_cloning *cloning)
{
    struct machine *machine = &cloning->machine;

    if (cloning->create.control.op.result < 0) {
        machine->control->error = cloning->create.control.error;
        return machine_fail_noted(machine);
    }
    cloning->snapshot = cloning->hidden;
    if (machine->pool->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    return machine_step_in(machine);
}

/* ---- the clone ---- */

static void
fill_record(struct volume_cloning *cloning)
{
    const struct volume_clone *clone = cloning->clone;
    const struct snapshot *snapshot = cloning->snapshot;
    struct pool *pool = cloning->machine.pool;
    struct volume_record *record = &cloning->record;

    *record = (struct volume_record){
        .id = pool->record.next_volume++,
        .branch = pool->record.next_branch++,
        .size_bytes = snapshot->record.size_bytes,
        .reserve_bytes = clone->reserve_bytes,
        .sector_bytes = snapshot->volume->durable.sector_bytes,
        .copies = snapshot->volume->durable.copies,
        .tier = clone->tier,
        .created_realtime_ns = manager_realtime_ns(pool->manager),
    };
    manager_make_guid(pool->manager, record->guid);
    snprintf(record->name, sizeof(record->name), "%s", clone->name.volume);
}

/* Its branch is in the lineage and in the tables from now on, and the snapshot is held by it. */
static struct pool_branch *
add_branch(struct volume_cloning *cloning)
{
    struct pool *pool = cloning->machine.pool;
    const struct snapshot *snapshot = cloning->snapshot;
    struct pool_branch *parent = snapshot->branch;
    const struct volume_record *record = &cloning->record;

    struct lineage_branch *lineage =
        lineage_fork(&pool->lineage, parent->lineage, snapshot->generation, record->branch);
    struct branch_record branch = {
        .id = record->branch,
        .family = parent->record.family,
        .parent = parent->record.id,
        .fork_generation = lineage->fork,
        .current_generation = lineage->current,
        .volume = record->id,
    };
    if (cloning->hidden != NULL) {
        lineage_drop_view(parent->lineage, snapshot->generation, &(struct lineage_jobs){ 0 });
        ASSERT(lineage_find_view(parent->lineage, snapshot->generation)->state == LINEAGE_HIDDEN);
    }
    return pool_branch_add(pool, &branch, lineage);
}

static enum machine_step
commit(struct volume_cloning *cloning)
{
    struct machine *machine = &cloning->machine;
    struct pool *pool = machine->pool;
    struct error *error = &machine->control->error;
    const struct volume_clone *clone = cloning->clone;

    if (cloning->hidden != NULL && check_target(cloning, error) < 0) {
        return machine_fail_noted(machine);
    }
    if (clone->reserve_bytes > cloning->snapshot->record.size_bytes) {
        return machine_fail(machine, -EINVAL, "a volume cannot reserve more than its size");
    }
    fill_record(cloning);
    struct pool_branch *branch = add_branch(cloning);
    struct branch_position position = {
        .mapped_grains = cloning->snapshot->record.mapped_grains,
    };
    schema_put_volume(&cloning->batch, &cloning->record);
    pool_branch_put(branch, &cloning->batch);
    schema_put_position(&cloning->batch, branch->record.id, &position);
    cloning->commit.has_numbers = true;
    cloning->commit.batch = &cloning->batch;
    machine_arm(machine, &cloning->commit.op, commit_done);
    committer_submit(pool, &cloning->commit);

    struct volume *volume = volume_new(pool, &cloning->record, &branch->record, &position);
    volume->durable = cloning->record;
    volume->pending = true;
    volume->altering = true; /* others that name it are refused, and the pool is not freed */
    volume_publish_info(volume);
    pool_add_volume(pool, volume);
    cloning->volume = volume;
    machine_step_out(machine);
    return machine_wait(machine);
}

static enum machine_step
appear_visit(struct round_stop *stop)
{
    struct volume_cloning *cloning = container_of(stop->round, struct volume_cloning, round);
    struct volume *volume = cloning->volume;

    list_push_back(&volume->shard->volumes, &volume->shard_link);
    volume->serving = true;
    return MACHINE_NEXT;
}

static enum machine_step
appear(struct volume_cloning *cloning)
{
    struct machine *machine = &cloning->machine;

    cloning->is_recorded = machine->status == 0;
    if (machine->status < 0) {
        /* The pool is read-only now. The volume stays as it is: nobody finds it. */
        cloning->volume->altering = false;
        return machine_fail(machine, machine->status,
                            "the clone could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    if (!machine->pool->stopping) { /* else: recorded; it serves from the next start on */
        round_one(machine, &cloning->round, cloning->volume->shard->index, appear_visit);
    }
    return machine_wait(machine);
}

/* ---- undoing ---- */

/* The snapshot that was made for it goes, unless the clone has been submitted. */
static enum machine_step
abandon(struct volume_cloning *cloning)
{
    struct machine *machine = &cloning->machine;

    if (cloning->hidden == NULL || cloning->volume != NULL || !machine->in_line) {
        return MACHINE_NEXT; /* outside the line the pool is being closed: the next open does it */
    }
    if (pool_check_writable(machine->pool, &(struct error){ 0 }) < 0) {
        return MACHINE_NEXT;
    }
    ASSERT_OP(cloning->hidden->holds, >, 0u);
    cloning->hidden->holds--;
    reclaim_plan_begin(&cloning->plan, machine->pool);
    cloning->plan_begun = true;
    reclaim_plan_drop_view(&cloning->plan, cloning->hidden);
    cloning->hidden = NULL;
    reclaim_plan_put(&cloning->plan, &cloning->batch);
    cloning->commit.batch = &cloning->batch;
    machine_arm(machine, &cloning->commit.op, commit_done);
    committer_submit(machine->pool, &cloning->commit);
    return machine_wait(machine);
}

static enum machine_step
end(struct volume_cloning *cloning)
{
    struct machine *machine = &cloning->machine;

    if (cloning->plan_begun) {
        reclaim_plan_end(&cloning->plan, machine->status == 0);
    }
    if (cloning->hidden != NULL) {
        ASSERT_OP(cloning->hidden->holds, >, 0u);
        cloning->hidden->holds--;
    }
    if (cloning->is_recorded) {
        cloning->volume->pending = false;
        cloning->volume->altering = false;
    }
    return MACHINE_NEXT;
}

/* ---- the machine ---- */

static enum machine_step
clone_phase(struct machine *machine, uint32_t phase)
{
    struct volume_cloning *cloning = container_of(machine, struct volume_cloning, machine);

    switch ((enum volume_clone_phase)phase) {
    case CLONE_CHECK:
        return check(cloning);
    case CLONE_IN_LINE_AGAIN:
        return in_line_again(cloning);
    case CLONE_COMMIT:
        return commit(cloning);
    case CLONE_APPEAR:
        return appear(cloning);
    case CLONE_DONE:
        return machine_goto(machine, CLONE_END);
    case CLONE_ABANDON:
        return abandon(cloning);
    case CLONE_END:
        return end(cloning);
    case CLONE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
clone_release(struct machine *machine)
{
    struct volume_cloning *cloning = container_of(machine, struct volume_cloning, machine);

    round_free(&cloning->round);
    byte_buffer_free(&cloning->batch);
    free(cloning);
}

static const struct machine_ops VOLUME_CLONE_OPS = {
    .name = "volume clone",
    .phase_names = PHASE_NAMES,
    .phase_count = CLONE_PHASE_COUNT,
    .failed_phase = CLONE_ABANDON,
    .phase = clone_phase,
    .release = clone_release,
};

void
manager_volume_clone(struct manager *manager, struct volume_clone *clone)
{
    struct volume_cloning *cloning = calloc(1, sizeof(*cloning));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(cloning != NULL);
    machine_init(&cloning->machine, &VOLUME_CLONE_OPS, manager, &clone->control);
    cloning->clone = clone;
    machine_start_for_volume(&cloning->machine, &clone->from);
}
