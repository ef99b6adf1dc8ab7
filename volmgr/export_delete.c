/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking exports away: no new look-ups first, then nobody attaches who had looked them up before,
 * then the hosts, then the records. When hosts are attached that may not be dropped, or do not end
 * in time, everything is as before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/snapshot_control_impl.h"

#define EXPORT_DELETE_PHASES(X)                                                                    \
    X(HIDE)                                                                                        \
    X(IN_LINE_AGAIN)                                                                               \
    X(COMMIT)                                                                                      \
    X(REMOVE)                                                                                      \
    X(SHOW_AGAIN)                                                                                  \
    X(END)

enum export_delete_phase {
#define PHASE_ENUM(name) DELETE_##name,
    EXPORT_DELETE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    DELETE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    EXPORT_DELETE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == DELETE_PHASE_COUNT, "a name for each phase");

struct export_deletion {
    struct machine machine;
    struct export_delete *delete;
    struct volume *volume;
    struct snapshot *snapshot; /* whose exports; NULL: the volume's */
    struct volume *attached;   /* what hosts attach to; NULL: a snapshot that nobody reads */
    struct round round;
    struct byte_buffer ids; /* uint64_t[] of the exports */
    uint32_t session_count; /* written by the volume's reactor */
    uint64_t deadline_ns;   /* the volume's reactor's */
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(commit_done, struct export_deletion, commit.op)

static bool
protocol_is_meant(const struct export_delete *delete, const char *protocol)
{
    return delete->protocol[0] == '\0' || strcmp(delete->protocol, protocol) == 0;
}

/* Is it one of those that this is about? Others may be made meanwhile. */
static bool
export_is_meant(const struct export_deletion *deletion, const struct export *export)
{
    const uint64_t *ids = (const uint64_t *)(const void *)deletion->ids.data;

    for (size_t i = 0; i < deletion->ids.length_bytes / sizeof(*ids); i++) {
        if (ids[i] == export->record.id) {
            return true;
        }
    }
    return false;
}

/* ---- the hosts; on the volume's reactor ---- */

static void
exports_open(struct export_deletion *deletion, bool open)
{
    const uint64_t *ids = (const uint64_t *)(const void *)deletion->ids.data;

    for (size_t i = 0; i < deletion->ids.length_bytes / sizeof(*ids); i++) {
        if (open) {
            volume_open_export(deletion->attached, ids[i]);
        } else {
            volume_shut_export(deletion->attached, ids[i]);
        }
    }
}

static enum machine_step
open_visit(struct round_stop *stop)
{
    exports_open(container_of(stop->round, struct export_deletion, round), true);
    return MACHINE_NEXT;
}

static enum machine_step sessions_visit(struct round_stop *stop);

static void
sessions_again(struct timer *timer)
{
    struct round_stop *stop = container_of(timer, struct round_stop, timer);

    if (sessions_visit(stop) == MACHINE_NEXT) {
        round_stop_done(stop);
    }
}

static enum machine_step
sessions_visit(struct round_stop *stop)
{
    struct export_deletion *deletion = container_of(stop->round, struct export_deletion, round);
    struct volume *volume = deletion->attached;
    struct reactor *reactor = volume->shard->reactor;
    bool drop = deletion->delete->drop_sessions;

    if (deletion->deadline_ns == 0) {
        deletion->deadline_ns =
            reactor_now_ns(reactor) + volume->pool->manager->options.request_timeout_ns;
        exports_open(deletion, false);
    }
    deletion->session_count = 0;
    list_for_each_safe(&volume->sessions, link) {
        struct volume_session *session = list_entry(link, struct volume_session, link);
        if (!protocol_is_meant(deletion->delete, session->protocol)) {
            continue;
        }
        deletion->session_count++;
        if (drop && !session->dropping) {
            session->dropping = true;
            session->event(session, VOLUME_SESSION_DROP);
        }
    }
    if (!drop || deletion->session_count == 0 ||
        reactor_now_ns(reactor) > deletion->deadline_ns) {
        return MACHINE_NEXT;
    }
    timer_arm(reactor, &stop->timer, reactor_now_ns(reactor) + CONTROL_POLL_NS, sessions_again);
    return MACHINE_WAIT;
}

/* ---- phases ---- */

static enum machine_step
hide(struct export_deletion *deletion)
{
    struct machine *machine = &deletion->machine;
    struct export_delete *delete = deletion->delete;
    uint32_t count = 0;

    struct volume *volume = machine_find_volume(machine, machine->pool, delete->name.volume);
    if (volume == NULL) {
        return MACHINE_NEXT;
    }
    deletion->volume = volume;
    deletion->attached = volume;
    if (delete->name.snapshot[0] != '\0') {
        deletion->snapshot =
            volume_find_snapshot(volume, delete->name.snapshot, &machine->control->error);
        if (deletion->snapshot == NULL) {
            return machine_fail_noted(machine);
        }
        deletion->attached = deletion->snapshot->view;
    }
    list_for_each(&deletion->volume->exports, link) {
        struct export *export = list_entry(link, struct export, volume_link);
        if (export->snapshot == deletion->snapshot && !export->pending &&
            protocol_is_meant(delete, export->record.protocol)) {
            export_set_hidden(export, true);
            byte_buffer_append(&deletion->ids, &export->record.id, sizeof(export->record.id));
            count++;
        }
    }
    if (count == 0) {
        char path[SNAPSHOT_PATH_SIZE];
        volume_name_format(&delete->name, path);
        return machine_fail(machine, -ENOENT, "%s `%s` has no %s%sexport",
                            deletion->snapshot != NULL ? "snapshot" : "volume", path,
                            delete->protocol, delete->protocol[0] != '\0' ? " " : "");
    }
    if (deletion->attached == NULL) {
        return machine_goto(machine, DELETE_COMMIT); /* nobody reads it, and nobody finds it now */
    }
    if (deletion->snapshot != NULL) {
        deletion->snapshot->holds++; /* the view stays */
    }
    /* Hosts may take long to go: others shall not wait for them. */
    deletion->volume->altering = true;
    machine_step_out(machine);
    round_one(machine, &deletion->round, deletion->attached->shard->index, sessions_visit);
    return machine_wait(machine);
}

static enum machine_step
in_line_again(struct export_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    deletion->volume->altering = false;
    if (machine->pool->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    deletion->volume->altering = true;
    return machine_step_in(machine);
}

static enum machine_step
commit(struct export_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    deletion->volume->altering = false;
    if (deletion->session_count > 0 && deletion->delete->drop_sessions) {
        return machine_fail(machine, -ETIMEDOUT,
                            "%u hosts were dropped from volume `%s/%s` and have not ended: what "
                            "they had sent waits for a disk that does not answer. The export is as "
                            "before; try again",
                            deletion->session_count, deletion->delete->name.pool,
                            deletion->delete->name.volume);
    }
    if (deletion->session_count > 0) {
        return machine_fail(machine, -EBUSY,
                            "%u hosts are attached to volume `%s/%s`: detach them, or drop their "
                            "sessions with --force",
                            deletion->session_count, deletion->delete->name.pool,
                            deletion->delete->name.volume);
    }
    list_for_each(&deletion->volume->exports, link) {
        const struct export *export = list_entry(link, struct export, volume_link);
        if (export_is_meant(deletion, export)) {
            schema_delete_id(&deletion->batch, SCHEMA_EXPORT, export->record.id);
        }
    }
    deletion->commit.batch = &deletion->batch;
    machine_arm(machine, &deletion->commit.op, commit_done);
    committer_submit(machine->pool, &deletion->commit);
    return machine_wait(machine);
}

static enum machine_step
remove_all(struct export_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the removal could not be recorded: %s",
                            error_name(machine->status));
    }
    list_for_each_safe(&deletion->volume->exports, link) {
        struct export *export = list_entry(link, struct export, volume_link);
        if (export_is_meant(deletion, export)) {
            export_remove(export);
        }
    }
    return machine_goto(machine, DELETE_END);
}

static enum machine_step
show_again(struct export_deletion *deletion)
{
    struct machine *machine = &deletion->machine;

    if (deletion->volume == NULL) {
        return MACHINE_NEXT;
    }
    list_for_each(&deletion->volume->exports, link) {
        struct export *export = list_entry(link, struct export, volume_link);
        if (export_is_meant(deletion, export)) {
            export_set_hidden(export, false);
        }
    }
    /* Out of the line the pool is being closed, and nobody comes any more. */
    if (machine->in_line && deletion->deadline_ns != 0) {
        round_one(machine, &deletion->round, deletion->attached->shard->index, open_visit);
    }
    return machine_wait(machine);
}

static enum machine_step
delete_phase(struct machine *machine, uint32_t phase)
{
    struct export_deletion *deletion = container_of(machine, struct export_deletion, machine);

    switch ((enum export_delete_phase)phase) {
    case DELETE_HIDE:
        return hide(deletion);
    case DELETE_IN_LINE_AGAIN:
        return in_line_again(deletion);
    case DELETE_COMMIT:
        return commit(deletion);
    case DELETE_REMOVE:
        return remove_all(deletion);
    case DELETE_SHOW_AGAIN:
        return show_again(deletion);
    case DELETE_END:
        if (deletion->snapshot != NULL && deletion->attached != NULL &&
            deletion->deadline_ns != 0) {
            snapshot_view_close(deletion->snapshot);
        }
        return MACHINE_NEXT;
    case DELETE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
delete_release(struct machine *machine)
{
    struct export_deletion *deletion = container_of(machine, struct export_deletion, machine);

    round_free(&deletion->round);
    byte_buffer_free(&deletion->ids);
    byte_buffer_free(&deletion->batch);
    free(deletion);
}

static const struct machine_ops EXPORT_DELETE_OPS = {
    .name = "unexport",
    .phase_names = PHASE_NAMES,
    .phase_count = DELETE_PHASE_COUNT,
    .failed_phase = DELETE_SHOW_AGAIN,
    .phase = delete_phase,
    .release = delete_release,
};

void
manager_export_delete(struct manager *manager, struct export_delete *delete)
{
    struct export_deletion *deletion = calloc(1, sizeof(*deletion));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(deletion != NULL);
    machine_init(&deletion->machine, &EXPORT_DELETE_OPS, manager, &delete->control);
    deletion->delete = delete;
    machine_start_for_volume(&deletion->machine, &delete->name);
}
