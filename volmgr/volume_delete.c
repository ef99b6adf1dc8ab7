/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting a volume: its name is free when this returns; its space comes back by volume_erase.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

#define VOLUME_DELETE_PHASES(X)                                                                    \
    X(CHECK)                                                                                       \
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
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(commit_done, struct volume_deletion, commit.op)

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

static enum machine_step
check(struct volume_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    deletion->volume = machine_find_volume(machine, machine->pool, deletion->delete->name.volume);
    if (deletion->volume == NULL) {
        return MACHINE_NEXT;
    }
    if (check_unused(deletion->volume, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    volume_make_quiet(machine, &deletion->quiet, deletion->volume, true);
    return machine_wait(machine);
}

static enum machine_step
commit(struct volume_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct volume *volume = deletion->volume;

    if (deletion->quiet.status < 0) {
        return volume_quiet_refuse(machine, &deletion->quiet);
    }
    /* While it is being altered nobody can export it, so nobody can look it up. */
    ASSERT(list_empty(&volume->exports));
    ASSERT_OP(volume->holds, ==, 0u);
    deletion->record = volume->durable;
    deletion->record.deleting = true;
    deletion->record.reserve_bytes = 0;
    schema_put_volume(&deletion->batch, &deletion->record);
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

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the deletion could not be recorded: %s",
                            error_name(machine->status));
    }
    /* Nothing is attached, exported or held, and the line keeps others off: it stays so. */
    ASSERT(list_empty(&volume->exports));
    volume_quiet_end(&deletion->quiet);
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
    machine_init(&deletion->machine, &VOLUME_DELETE_OPS, manager, &delete->control);
    deletion->delete = delete;
    machine_start_for_volume(&deletion->machine, &delete->name);
}
