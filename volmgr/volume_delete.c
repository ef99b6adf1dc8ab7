/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a volume: its name is free when this returns; its space comes back in the background.
 *
 * One that has never had snapshots or a parent is erased whole (volume_erase.c). Of any other one
 * the head is dropped, and its snapshots with it: what clones need of them stays, hidden, and the
 * rest is found by reclaim_impl.h. Its record goes at once, then; a nameless keeper holds on to its
 * extents.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define VOLUME_DELETE_PHASES(X)                                                                    \
    X(CHECK)                                                                                       \
    X(TELL)                                                                                        \
    X(IN_LINE_AGAIN)                                                                               \
    X(COMMIT)                                                                                      \
    X(DISAPPEAR)                                                                                   \
    X(REOPEN)                                                                                      \
    X(END)

enum volume_delete_phase {
#define PHASE_ENUM(name) DELETE_##name,
    VOLUME_DELETE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    DELETE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    VOLUME_DELETE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == DELETE_PHASE_COUNT, "a name for each phase");

struct volume_deletion {
    struct machine machine;
    struct volume_delete *delete;
    struct volume *volume;
    struct volume_quiet quiet;
    struct volume_record record;
    struct space_survey survey;
    struct reclaim_plan plan;
    bool has_history; /* the head is dropped; otherwise it is erased whole */
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(commit_done, struct volume_deletion, commit.op)
MACHINE_DONE(survey_done, struct volume_deletion, survey.op)

/* Hosts, and look-ups on the way to becoming hosts. */
static int
check_unused(const struct volume *volume, struct error *error)
{
    if (!list_empty(&volume->exports)) {
        return error_set(error, -EBUSY, "volume `%s/%s` is exported: unexport it first",
                         volume->pool->name, volume->durable.name);
    }
    if (volume->holds > 0) {
        return error_set(error, -EBUSY, "volume `%s/%s` is in use by a host", volume->pool->name,
                         volume->durable.name);
    }
    return 0;
}

/* Snapshots that are found by name. */
static uint32_t
snapshot_count(const struct volume *volume)
{
    uint32_t count = 0;

    list_for_each(&volume->snapshots, link) {
        count += list_entry(link, struct snapshot, volume_link)->record.state == SNAPSHOT_KEPT;
    }
    return count;
}

static int
check_snapshots(const struct volume_deletion *deletion, struct error *error)
{
    const struct volume *volume = deletion->volume;
    uint32_t count = snapshot_count(volume);

    if (volume_check_not_creating(volume, error) < 0) {
        return error->code;
    }
    if (count > 0 && !deletion->delete->snapshots) {
        return error_set(error, -ENOTEMPTY,
                         "volume `%s/%s` has %u snapshot%s: delete %s first, or with the volume by "
                         "--snapshots",
                         volume->pool->name, volume->durable.name, count, count == 1 ? "" : "s",
                         count == 1 ? "it" : "them");
    }
    list_for_each(&volume->snapshots, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        if (snapshot->record.state == SNAPSHOT_KEPT &&
            snapshot_check_deletable(snapshot, error) < 0) {
            return error->code;
        }
        if (snapshot->holds > 0) { /* a clone is being made */
            return error_set(error, -EBUSY, "volume `%s/%s` is being cloned: try again",
                             volume->pool->name, volume->durable.name);
        }
    }
    return 0;
}

static enum machine_step
check(struct volume_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct error *error = &machine->control->error;

    deletion->volume = machine_find_volume(machine, machine->pool, deletion->delete->name.volume);
    if (deletion->volume == NULL) {
        return MACHINE_NEXT;
    }
    if (check_unused(deletion->volume, error) < 0 || check_snapshots(deletion, error) < 0) {
        return machine_fail_noted(machine);
    }
    if (deletion->delete->dry_run) {
        deletion->survey.exact = true;
        machine_arm(machine, &deletion->survey.op, survey_done);
        space_survey_start(&deletion->survey, machine->pool);
        return machine_wait(machine);
    }
    volume_make_quiet(machine, &deletion->quiet, deletion->volume, true);
    machine_goto(machine, DELETE_IN_LINE_AGAIN);
    return machine_wait(machine);
}

/* What deleting it would bring. */
static void
tell_victims(struct volume_deletion *deletion)
{
    const struct volume *volume = deletion->volume;
    struct volume_delete *delete = deletion->delete;
    uint32_t count = snapshot_count(volume) + 1;
    struct space_victim *victims = calloc(count, sizeof(*victims));
    bool *hidden = calloc(count, sizeof(*hidden));
    uint32_t n = 0;

    ASSERT(victims != NULL && hidden != NULL);
    list_for_each(&volume->snapshots, link) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        if (snapshot->record.state == SNAPSHOT_KEPT) {
            victims[n].branch = snapshot->branch->lineage;
            victims[n++].generation = snapshot->generation;
        }
    }
    ASSERT_OP(n, ==, count - 1);
    victims[n].branch = pool_find_branch(volume->pool, volume->durable.branch)->lineage;
    victims[n].generation = LINEAGE_FOREVER;
    delete->ret_freed_bytes =
        reclaim_would_free(&deletion->survey, victims, count, hidden) * GRAIN_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        delete->ret_hidden += hidden[i];
    }
    free(victims);
    free(hidden);
}

static enum machine_step
tell(struct volume_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    int status = machine->status;

    if (status == 0) {
        tell_victims(deletion);
    }
    space_survey_free(&deletion->survey);
    if (status < 0) {
        return machine_fail(machine, status, "what that would free could not be found out: %s",
                            error_name(status));
    }
    return machine_goto(machine, DELETE_END);
}

/* Are there versions that others need, or that lie elsewhere? */
static bool
has_history(const struct volume *volume)
{
    const struct pool_branch *branch = pool_find_branch(volume->pool, volume->durable.branch);

    return branch->lineage->parent != NULL || branch->lineage->view_count > 0 ||
           branch->lineage->children > 0 || !list_empty(&volume->snapshots);
}

static void
put_dropped(struct volume_deletion *deletion)
{
    struct volume *volume = deletion->volume;

    reclaim_plan_begin(&deletion->plan, volume->pool);
    list_for_each(&volume->snapshots, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        if (snapshot->record.state == SNAPSHOT_KEPT) {
            reclaim_plan_drop_view(&deletion->plan, snapshot);
        }
    }
    reclaim_plan_drop_head(&deletion->plan,
                           pool_find_branch(volume->pool, volume->durable.branch));
    reclaim_plan_put(&deletion->plan, &deletion->batch);
    list_for_each(&volume->snapshots, link) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        deletion->delete->ret_hidden += snapshot->record.state == SNAPSHOT_HIDDEN;
    }
    schema_delete_id(&deletion->batch, SCHEMA_VOLUME, volume->durable.id);
}

static enum machine_step
commit(struct volume_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct volume *volume = deletion->volume;

    if (deletion->quiet.status < 0) {
        return volume_quiet_refuse(machine, &deletion->quiet);
    }
    /* It was not in line, and a snapshot may have been exported or held. */
    if (check_snapshots(deletion, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    /* While it is being altered nobody can export it, so nobody can look it up. */
    ASSERT(list_empty(&volume->exports));
    ASSERT_OP(volume->holds, ==, 0u);
    deletion->has_history = has_history(volume);
    if (deletion->has_history) {
        put_dropped(deletion);
    } else {
        deletion->record = volume->durable;
        deletion->record.deleting = true;
        deletion->record.reserve_bytes = 0;
        schema_put_volume(&deletion->batch, &deletion->record);
    }
    schema_delete_id(&deletion->batch, SCHEMA_POLICY, volume->durable.id);
    deletion->commit.batch = &deletion->batch;
    machine_arm(machine, &deletion->commit.op, commit_done);
    committer_submit(machine->pool, &deletion->commit);
    return machine_wait(machine);
}

static enum machine_step
disappear(struct volume_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct pool *pool = machine->pool;
    struct volume *volume = deletion->volume;
    bool done = machine->status == 0;

    if (!done && deletion->has_history) {
        reclaim_plan_end(&deletion->plan, false);
    }
    if (!done) {
        return machine_fail(machine, machine->status, "the deletion could not be recorded: %s",
                            error_name(machine->status));
    }
    /* Nothing is attached, exported or held, and the line keeps others off: it stays so. */
    ASSERT(list_empty(&volume->exports));
    policy_forget(volume);
    volume_quiet_end(&deletion->quiet);
    if (deletion->has_history) {
        pool_volume_becomes_keeper(pool, volume);
        reclaim_plan_end(&deletion->plan, true);
        return machine_goto(machine, DELETE_END);
    }
    hash_table_remove(&pool->volumes_by_name, &volume->by_name);
    ASSERT_OP(pool->volume_count, >, 0u);
    pool->volume_count--;
    volume->durable = deletion->record;
    volume_erase(volume);
    return machine_goto(machine, DELETE_END);
}

static enum machine_step
delete_phase(struct machine *machine, uint32_t phase)
{
    struct volume_deletion *deletion = container_of(machine, struct volume_deletion, machine);

    switch ((enum volume_delete_phase)phase) {
    case DELETE_CHECK:
        return check(deletion);
    case DELETE_TELL:
        return tell(deletion);
    case DELETE_IN_LINE_AGAIN:
        return volume_quiet_step_in(machine, &deletion->quiet);
    case DELETE_COMMIT:
        return commit(deletion);
    case DELETE_DISAPPEAR:
        return disappear(deletion);
    case DELETE_REOPEN:
        volume_reopen(machine, &deletion->quiet);
        return machine_wait(machine);
    case DELETE_END:
        volume_quiet_end(&deletion->quiet);
        return MACHINE_NEXT;
    case DELETE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
delete_release(struct machine *machine)
{
    struct volume_deletion *deletion = container_of(machine, struct volume_deletion, machine);

    round_free(&deletion->quiet.round);
    byte_buffer_free(&deletion->batch);
    free(deletion);
}

static const struct machine_ops VOLUME_DELETE_OPS = {
    .name = "volume delete",
    .phase_names = PHASE_NAMES,
    .phase_count = DELETE_PHASE_COUNT,
    .failed_phase = DELETE_REOPEN,
    .phase = delete_phase,
    .release = delete_release,
};

void
manager_volume_delete(struct manager *manager, struct volume_delete *delete)
{
    struct volume_deletion *deletion = calloc(1, sizeof(*deletion));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(deletion != NULL);
    delete->ret_freed_bytes = 0;
    delete->ret_hidden = 0;
    machine_init(&deletion->machine, &VOLUME_DELETE_OPS, manager, &delete->control);
    deletion->delete = delete;
    machine_start_for_volume(&deletion->machine, &delete->name);
}
