/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting snapshots: their names are free when this returns. What only they needed comes back in
 * the background (reclaim_impl.h); what clones need stays as a hidden view.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/retention_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define SNAPSHOT_DELETE_PHASES(X)                                                                  \
    X(CHECK)                                                                                       \
    X(TELL)                                                                                        \
    X(COMMIT)                                                                                      \
    X(END)

enum snapshot_delete_phase {
#define PHASE_ENUM(name) DELETE_##name,
    SNAPSHOT_DELETE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    DELETE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    SNAPSHOT_DELETE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == DELETE_PHASE_COUNT, "a name for each phase");

struct snapshot_deletion {
    struct machine machine;
    struct snapshot_delete *delete;
    struct snapshot **snapshots; /* delete->count */
    struct space_survey survey;
    struct reclaim_plan plan;
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(commit_done, struct snapshot_deletion, commit.op)
MACHINE_DONE(survey_done, struct snapshot_deletion, survey.op)

/* ---- what others need, too ---- */

void
snapshot_path(const struct snapshot *snapshot, char text[static SNAPSHOT_PATH_SIZE])
{
    snprintf(text, SNAPSHOT_PATH_SIZE, "%s/%s@%s", snapshot->pool->name,
             snapshot->volume != NULL ? snapshot->volume->durable.name : "",
             snapshot->record.name);
}

struct snapshot *
volume_find_snapshot(const struct volume *volume, const char *name, struct error *error)
{
    struct snapshot *snapshot =
        name[0] != '\0' ? pool_find_snapshot_by_name(volume->pool, volume, name) : NULL;

    if (snapshot == NULL) {
        error_set(error, -ENOENT, "there is no snapshot `%s/%s@%s`", volume->pool->name,
                  volume->durable.name, name);
    }
    return snapshot;
}

int
snapshot_check_deletable(struct snapshot *snapshot, struct error *error)
{
    struct pool *pool = snapshot->pool;
    struct retention_snapshot rule = { .expires_ns = snapshot->record.expires_ns };
    char path[SNAPSHOT_PATH_SIZE];
    char until[TIME_TEXT_SIZE];

    snapshot_path(snapshot, path);
    if (!retention_may_delete(&rule, pool_clock_ns(pool))) {
        time_format(pool_clock_to_realtime(pool, snapshot->record.expires_ns), until);
        return error_set(error, -EPERM, "snapshot `%s` is immutable until %s", path, until);
    }
    list_for_each(&snapshot->volume->exports, link) {
        if (list_entry(link, struct export, volume_link)->record.snapshot == snapshot->record.id) {
            return error_set(error, -EBUSY, "snapshot `%s` is exported: unexport it first", path);
        }
    }
    if (snapshot->holds > 0) {
        return error_set(error, -EBUSY,
                         "snapshot `%s` is being read, by a host or a comparison: try again when "
                         "that has ended",
                         path);
    }
    return 0;
}

/* ---- phases ---- */

static int
find(struct snapshot_deletion *deletion, uint32_t index, struct error *error)
{
    const struct pool *pool = deletion->machine.pool;
    const struct volume_name *name = &deletion->delete->names[index];

    if (strcmp(name->pool, pool->name) != 0) {
        return error_set(error, -EXDEV,
                         "snapshots that are deleted together are of one pool: `%s` is another one",
                         name->pool);
    }
    const struct volume *volume = pool_find_volume(pool, name->volume);
    if (volume == NULL) {
        return error_set(error, -ENOENT, "there is no volume `%s/%s`", pool->name, name->volume);
    }
    struct snapshot *snapshot = volume_find_snapshot(volume, name->snapshot, error);
    if (snapshot == NULL || snapshot_check_deletable(snapshot, error) < 0) {
        return error->code;
    }
    deletion->snapshots[index] = snapshot;
    return 0;
}

static int
by_address(const void *left, const void *right)
{
    const struct snapshot *const *a = left;
    const struct snapshot *const *b = right;

    return (uintptr_t)*a < (uintptr_t)*b ? -1 : (uintptr_t)*a > (uintptr_t)*b;
}

static int
find_all(struct snapshot_deletion *deletion, struct error *error)
{
    struct snapshot **snapshots = deletion->snapshots;
    uint32_t count = deletion->delete->count;
    char path[SNAPSHOT_PATH_SIZE];

    if (pool_check_writable(deletion->machine.pool, error) < 0) {
        return error->code;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (find(deletion, i, error) < 0) {
            return error->code;
        }
    }
    qsort(snapshots, count, sizeof(struct snapshot *), by_address);
    for (uint32_t i = 1; i < count; i++) {
        if (snapshots[i - 1] == snapshots[i]) {
            snapshot_path(snapshots[i], path);
            return error_set(error, -EINVAL, "snapshot `%s` is named twice", path);
        }
    }
    return 0;
}

static enum machine_step
check(struct snapshot_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    if (find_all(deletion, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    if (!deletion->delete->dry_run) {
        return machine_goto(machine, DELETE_COMMIT);
    }
    deletion->survey.exact = true;
    machine_arm(machine, &deletion->survey.op, survey_done);
    space_survey_start(&deletion->survey, machine->pool);
    return machine_wait(machine);
}

/* What deleting them would bring. */
static enum machine_step
tell(struct snapshot_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct snapshot_delete *delete = deletion->delete;
    struct space_victim *victims = calloc(delete->count, sizeof(*victims));
    bool *hidden = calloc(delete->count, sizeof(*hidden));

    ASSERT(victims != NULL && hidden != NULL);
    if (machine->status == 0) {
        for (uint32_t i = 0; i < delete->count; i++) {
            victims[i].branch = deletion->snapshots[i]->branch->lineage;
            victims[i].generation = deletion->snapshots[i]->generation;
        }
        delete->ret_freed_bytes =
            reclaim_would_free(&deletion->survey, victims, delete->count, hidden) * GRAIN_BYTES;
        for (uint32_t i = 0; i < delete->count; i++) {
            delete->ret_hidden += hidden[i];
        }
    }
    free(victims);
    free(hidden);
    space_survey_free(&deletion->survey);
    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "what that would free could not be found out: %s",
                            error_name(machine->status));
    }
    return machine_end(machine);
}

static enum machine_step
commit(struct snapshot_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct snapshot_delete *delete = deletion->delete;

    reclaim_plan_begin(&deletion->plan, machine->pool);
    for (uint32_t i = 0; i < delete->count; i++) {
        reclaim_plan_drop_view(&deletion->plan, deletion->snapshots[i]);
    }
    reclaim_plan_put(&deletion->plan, &deletion->batch);
    for (uint32_t i = 0; i < delete->count; i++) {
        delete->ret_hidden += deletion->snapshots[i]->record.state == SNAPSHOT_HIDDEN;
    }
    deletion->commit.batch = &deletion->batch;
    machine_arm(machine, &deletion->commit.op, commit_done);
    committer_submit(machine->pool, &deletion->commit);
    return machine_wait(machine);
}

static enum machine_step
end(struct snapshot_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    for (uint32_t i = 0; machine->status == 0 && i < deletion->delete->count; i++) {
        volume_unpin(deletion->snapshots[i]->volume);
    }
    reclaim_plan_end(&deletion->plan, machine->status == 0);
    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the deletion could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    return MACHINE_NEXT;
}

static enum machine_step
delete_phase(struct machine *machine, uint32_t phase)
{
    struct snapshot_deletion *deletion = container_of(machine, struct snapshot_deletion, machine);

    switch ((enum snapshot_delete_phase)phase) {
    case DELETE_CHECK:
        return check(deletion);
    case DELETE_TELL:
        return tell(deletion);
    case DELETE_COMMIT:
        return commit(deletion);
    case DELETE_END:
        return end(deletion);
    case DELETE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
delete_release(struct machine *machine)
{
    struct snapshot_deletion *deletion = container_of(machine, struct snapshot_deletion, machine);

    byte_buffer_free(&deletion->batch);
    free(deletion->snapshots);
    free(deletion);
}

static const struct machine_ops SNAPSHOT_DELETE_OPS = {
    .name = "snapshot delete",
    .phase_names = PHASE_NAMES,
    .phase_count = DELETE_PHASE_COUNT,
    .failed_phase = DELETE_PHASE_COUNT,
    .phase = delete_phase,
    .release = delete_release,
};

void
manager_snapshot_delete(struct manager *manager, struct snapshot_delete *delete)
{
    ASSERT_ON_REACTOR(manager->control);
    delete->ret_freed_bytes = 0;
    delete->ret_hidden = 0;
    if (delete->count == 0) {
        control_refuse(manager, &delete->control, -EINVAL, "no snapshot is named");
        return;
    }
    struct snapshot_deletion *deletion = calloc(1, sizeof(*deletion));
    ASSERT(deletion != NULL);
    machine_init(&deletion->machine, &SNAPSHOT_DELETE_OPS, manager, &delete->control);
    deletion->delete = delete;
    deletion->snapshots = calloc(delete->count, sizeof(struct snapshot *));
    ASSERT(deletion->snapshots != NULL);
    machine_start_for_volume(&deletion->machine, &delete->names[0]);
}
