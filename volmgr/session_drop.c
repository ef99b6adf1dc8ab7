/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting rid of hosts: ending their sessions, and refusing them from now on.
 *
 * THEORY OF OPERATION
 *
 * A drop goes over all reactors twice. The first round blocks the name that was given, if any, and
 * collects under which other names the sessions that are meant are known: a host that is blocked by
 * its identity shall not come back without TLS from the same address, nor one that is blocked by
 * its address over another network with the same certificate. The second round blocks all of them,
 * delivers VOLUME_SESSION_DROP to each session that is meant, and comes back from a reactor when
 * the last one of them has detached. Beside it the names are made durable in the daemon's record; a
 * state directory that does not answer keeps no host in.
 *
 * A session detaches when none of its requests can take effect any more, and that may be long after
 * they have been answered: a write that hangs on a disk is one of them. The command says so at its
 * deadline instead of telling a success that is none; the sessions stay marked, send nothing, and
 * end by themselves when the disk answers.
 *
 * Invariants
 *  SD1  A host that is blocked is blocked on a reactor before its sessions there are dropped, so it
 *       cannot slip in again.
 *  SD2  0 means: every session that was meant has detached, and what was blocked is durable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"
#include "volmgr/session_impl.h"

#define SESSION_DROP_PHASES(X)                                                                     \
    X(IDENTIFY)                                                                                    \
    X(DROP)                                                                                        \
    X(COUNT)

enum session_drop_phase {
#define PHASE_ENUM(name) DROP_##name,
    SESSION_DROP_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    DROP_PHASE_COUNT
};

static const char *const DROP_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    SESSION_DROP_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(DROP_PHASE_NAMES) == DROP_PHASE_COUNT, "a name for each phase");

struct block_name {
    char text[BLOCK_TEXT_SIZE];
};

/* One reactor's part. */
struct drop_stop {
    struct list link; /* session_table->drops */
    struct round_stop *stop;
    struct timer deadline;
    struct byte_buffer ids;   /* uint64_t[] of sessions that have not detached */
    struct byte_buffer names; /* struct block_name[]: other names of those that are meant */
    struct volume_name stuck; /* a volume to which a session that did not end is attached */
    uint32_t found;
    uint32_t dropped;
    uint32_t left; /* at the deadline */
};

struct session_dropping {
    struct machine machine;
    struct session_drop *drop;
    struct round round;
    struct daemon_save save;
    struct byte_buffer names; /* struct block_name[]: to be blocked, or not any more */
    int record_status;
    struct drop_stop stops[REACTOR_COUNT_MAX];
};

/* ---- waiting for them; each on its reactor ---- */

static void
stop_done(struct drop_stop *own)
{
    struct manager *manager = own->stop->round->machine->manager;

    timer_disarm(manager->options.reactors[own->stop->index], &own->deadline);
    list_remove(&own->link);
    round_stop_done(own->stop);
}

void
drops_session_gone(struct session_table *table, uint64_t id)
{
    list_for_each_safe(&table->drops, link) {
        struct drop_stop *own = list_entry(link, struct drop_stop, link);
        uint64_t *ids = (uint64_t *)(void *)own->ids.data;
        size_t count = own->ids.length_bytes / sizeof(*ids);
        for (size_t i = 0; i < count; i++) {
            if (ids[i] == id) {
                ids[i] = ids[count - 1];
                own->ids.length_bytes -= sizeof(*ids);
                break;
            }
        }
        if (own->ids.length_bytes == 0 && own->stop != NULL) {
            stop_done(own);
        }
    }
}

static void
deadline_passed(struct timer *timer)
{
    struct drop_stop *own = container_of(timer, struct drop_stop, deadline);
    const struct manager *manager = own->stop->round->machine->manager;
    const struct session_table *table = &manager->session_tables[own->stop->index];
    uint64_t first = *(const uint64_t *)(const void *)own->ids.data;

    own->left = (uint32_t)(own->ids.length_bytes / sizeof(uint64_t));
    ASSERT_OP(own->left, >, 0u);
    list_for_each(&table->sessions, link) {
        const struct volume_session *session =
            list_entry(link, struct volume_session, reactor_link);
        if (session->id == first) {
            snprintf(own->stuck.pool, sizeof(own->stuck.pool), "%s",
                     session->volume->pool->name);
            snprintf(own->stuck.volume, sizeof(own->stuck.volume), "%s",
                     session->volume->record.name);
        }
    }
    stop_done(own);
}

/* ---- the rounds ---- */

static bool
drop_means(const struct session_drop *drop, const struct volume_session *session)
{
    return drop->id != 0 ? session->id == drop->id : session_matches(session, drop->match);
}

static void
add_name(struct byte_buffer *names, const char *text)
{
    struct block_name name = { 0 };
    const struct block_name *list = (const struct block_name *)(const void *)names->data;
    size_t count = names->length_bytes / sizeof(*list);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].text, text) == 0) {
            return;
        }
    }
    snprintf(name.text, sizeof(name.text), "%s", text);
    byte_buffer_append(names, &name, sizeof(name));
}

static enum machine_step
identify_visit(struct round_stop *stop)
{
    struct session_dropping *dropping = container_of(stop->round, struct session_dropping, round);
    const struct session_drop *drop = dropping->drop;
    struct session_table *table = &dropping->machine.manager->session_tables[stop->index];
    struct drop_stop *own = &dropping->stops[stop->index];
    char host[BLOCK_TEXT_SIZE];

    if (drop->block && drop->match[0] != '\0') {
        table_block(table, drop->match);
    }
    list_for_each(&table->sessions, link) {
        const struct volume_session *session =
            list_entry(link, struct volume_session, reactor_link);
        if (!drop_means(drop, session)) {
            continue;
        }
        own->found++;
        if (session_address(session, host)) {
            add_name(&own->names, host);
        }
        if (session->identity[0] != '\0') {
            add_name(&own->names, session->identity);
        }
    }
    return MACHINE_NEXT;
}

/* Who is blocked loses the sessions that it has under its other names, too. */
static bool
must_end(const struct session_dropping *dropping, const struct volume_session *session)
{
    const struct block_name *names =
        (const struct block_name *)(const void *)dropping->names.data;
    size_t count = dropping->names.length_bytes / sizeof(*names);
    bool matches = drop_means(dropping->drop, session);

    for (size_t i = 0; i < count && !matches; i++) {
        matches = session_matches(session, names[i].text);
    }
    return matches;
}

static enum machine_step
drop_visit(struct round_stop *stop)
{
    struct session_dropping *dropping = container_of(stop->round, struct session_dropping, round);
    const struct session_drop *drop = dropping->drop;
    const struct manager *manager = dropping->machine.manager;
    struct session_table *table = &manager->session_tables[stop->index];
    struct drop_stop *own = &dropping->stops[stop->index];
    const struct block_name *names =
        (const struct block_name *)(const void *)dropping->names.data;
    size_t name_count = dropping->names.length_bytes / sizeof(*names);

    for (size_t i = 0; i < name_count; i++) {
        if (drop->block) {
            table_block(table, names[i].text);
        } else {
            table_unblock(table, names[i].text);
        }
    }
    if (drop->unblock) {
        return MACHINE_NEXT;
    }
    list_for_each(&table->sessions, link) {
        const struct volume_session *session =
            list_entry(link, struct volume_session, reactor_link);
        if (must_end(dropping, session)) {
            byte_buffer_append(&own->ids, &session->id, sizeof(session->id));
            own->dropped++;
        }
    }
    if (own->dropped == 0) {
        return MACHINE_NEXT;
    }
    /* own->stop stays NULL until all have been told: a session may detach while it is. */
    list_push_back(&table->drops, &own->link);
    list_for_each_safe(&table->sessions, link) {
        struct volume_session *session = list_entry(link, struct volume_session, reactor_link);
        if (must_end(dropping, session) && !session->dropping) {
            session->dropping = true;
            session->event(session, VOLUME_SESSION_DROP);
        }
    }
    if (own->ids.length_bytes == 0) {
        list_remove(&own->link);
        return MACHINE_NEXT;
    }
    struct reactor *reactor = manager->options.reactors[stop->index];
    uint64_t timeout_ns =
        drop->timeout_ns != 0 ? drop->timeout_ns : manager->options.request_timeout_ns;
    own->stop = stop;
    timer_arm(reactor, &own->deadline, reactor_now_ns(reactor) + timeout_ns, deadline_passed);
    return MACHINE_WAIT;
}

/* ---- the list of the whole daemon; control ---- */

static void
list_unblock(struct session_dropping *dropping)
{
    struct manager *manager = dropping->machine.manager;
    const char *match = dropping->drop->match;

    list_for_each_safe(&manager->blocks, link) {
        struct block_entry *entry = list_entry(link, struct block_entry, link);
        if (strcmp(entry->match, match) == 0 || strcmp(entry->origin, match) == 0) {
            add_name(&dropping->names, entry->match);
            list_remove(link);
            free(entry);
        }
    }
    add_name(&dropping->names, match);
}

static void
list_block(struct session_dropping *dropping, const char *origin)
{
    struct manager *manager = dropping->machine.manager;
    const struct block_name *names =
        (const struct block_name *)(const void *)dropping->names.data;

    for (size_t i = 0; i < dropping->names.length_bytes / sizeof(*names); i++) {
        bool known = false;
        list_for_each(&manager->blocks, link) {
            known = known || strcmp(list_entry(link, struct block_entry, link)->match,
                                    names[i].text) == 0;
        }
        if (known) {
            continue;
        }
        if (daemon_record_is_full(manager)) {
            dropping->record_status = -ENOSPC;
            return;
        }
        struct block_entry *entry = calloc(1, sizeof(*entry));
        ASSERT(entry != NULL);
        snprintf(entry->match, sizeof(entry->match), "%s", names[i].text);
        snprintf(entry->origin, sizeof(entry->origin), "%s", origin);
        list_push_back(&manager->blocks, &entry->link);
    }
}

static void
save_done(struct io_op *op)
{
    struct daemon_save *save = container_of(op, struct daemon_save, op);
    struct session_dropping *dropping = container_of(save, struct session_dropping, save);

    if (op->result < 0) {
        dropping->record_status = op->result;
    }
    machine_completed(&dropping->machine, 0);
}

static enum machine_step
block_and_drop(struct session_dropping *dropping)
{
    struct machine *machine = &dropping->machine;
    struct session_drop *drop = dropping->drop;
    uint32_t found = 0;

    for (uint32_t i = 0; i < machine->manager->options.reactor_count; i++) {
        found += dropping->stops[i].found;
    }
    if (drop->id != 0 && found == 0) {
        return machine_fail(machine, -ENOENT, "there is no session %llu: `volctl session list` "
                            "tells which there are", (unsigned long long)drop->id);
    }
    if (drop->unblock) {
        list_unblock(dropping);
    } else if (drop->block) {
        if (drop->match[0] != '\0') {
            add_name(&dropping->names, drop->match);
        }
        for (uint32_t i = 0; i < machine->manager->options.reactor_count; i++) {
            const struct byte_buffer *part = &dropping->stops[i].names;
            const struct block_name *names = (const struct block_name *)(const void *)part->data;
            for (size_t n = 0; n < part->length_bytes / sizeof(*names); n++) {
                add_name(&dropping->names, names[n].text);
            }
        }
        if (dropping->names.length_bytes == 0) {
            return machine_fail(machine, -EINVAL,
                                "session %llu has neither a network address nor an identity to "
                                "block: name what to block, such as `uid 107` or `pid 4711`",
                                (unsigned long long)drop->id);
        }
        const struct block_name *first =
            (const struct block_name *)(const void *)dropping->names.data;
        list_block(dropping, drop->match[0] != '\0' ? drop->match : first->text);
    }
    if (drop->block || drop->unblock) {
        daemon_record_save(machine, &dropping->save, save_done);
    }
    round_all(machine, &dropping->round, drop_visit);
    return machine_wait(machine);
}

/* ---- the end ---- */

/* "10.0.0.1, host-a" */
static void
names_format(const struct session_dropping *dropping, char *to, size_t to_bytes)
{
    const struct block_name *names =
        (const struct block_name *)(const void *)dropping->names.data;
    size_t count = dropping->names.length_bytes / sizeof(*names);
    int at = 0;

    to[0] = '\0';
    for (size_t i = 0; i < count && (size_t)at < to_bytes; i++) {
        at += snprintf(to + at, to_bytes - (size_t)at, "%s%s", i > 0 ? ", " : "", names[i].text);
    }
}

static void
tell(const struct session_dropping *dropping, uint32_t left)
{
    const struct session_drop *drop = dropping->drop;
    char names[160];
    char waits[64] = "";

    names_format(dropping, names, sizeof(names));
    if (left > 0) {
        snprintf(waits, sizeof(waits), ", %u have not ended yet", left);
    }
    event_raise(dropping->machine.manager, left > 0 ? EVENT_WARNING : EVENT_INFO, NULL,
                drop->match, drop->unblock ? "host-unblocked" : "sessions-dropped",
                "%u sessions ended%s%s%s", drop->ret_dropped, waits,
                drop->block     ? "; blocked from now on: "
                : drop->unblock ? "; let in again: "
                                : "",
                names);
}

static enum machine_step
drop_count(struct session_dropping *dropping)
{
    struct machine *machine = &dropping->machine;
    struct session_drop *drop = dropping->drop;
    const struct volume_name *stuck = NULL;
    uint32_t left = 0;

    drop->ret_dropped = 0;
    for (uint32_t i = 0; i < machine->manager->options.reactor_count; i++) {
        const struct drop_stop *own = &dropping->stops[i];
        drop->ret_dropped += own->dropped - own->left;
        left += own->left;
        stuck = own->left > 0 ? &own->stuck : stuck;
    }
    if (drop->ret_dropped > 0 || left > 0 || drop->block || drop->unblock) {
        tell(dropping, left);
    }
    if (left > 0) {
        return machine_fail(machine, -ETIMEDOUT,
                            "%u sessions have not ended, one of them on volume `%s/%s`: what the "
                            "host had sent may still take effect, since a disk does not answer. "
                            "They send nothing new; give the command again to wait on",
                            left, stuck->pool, stuck->volume);
    }
    if (dropping->record_status < 0) {
        return machine_fail(machine, dropping->record_status,
                            "%s, but that could not be recorded (%s): it lasts until the daemon is "
                            "restarted. Make room in the state directory%s, then try again",
                            drop->block ? "the host is blocked and has no session any more"
                                        : "the host is let in again",
                            error_name(dropping->record_status),
                            dropping->record_status == -ENOSPC ? ", or unblock other hosts" : "");
    }
    return MACHINE_NEXT;
}

static enum machine_step
dropping_phase(struct machine *machine, uint32_t phase)
{
    struct session_dropping *dropping = container_of(machine, struct session_dropping, machine);

    switch ((enum session_drop_phase)phase) {
    case DROP_IDENTIFY:
        round_all(machine, &dropping->round, identify_visit);
        return machine_wait(machine);
    case DROP_DROP:
        return block_and_drop(dropping);
    case DROP_COUNT:
        return drop_count(dropping);
    case DROP_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
dropping_release(struct machine *machine)
{
    struct session_dropping *dropping = container_of(machine, struct session_dropping, machine);

    for (uint32_t i = 0; i < REACTOR_COUNT_MAX; i++) {
        byte_buffer_free(&dropping->stops[i].ids);
        byte_buffer_free(&dropping->stops[i].names);
    }
    byte_buffer_free(&dropping->names);
    round_free(&dropping->round);
    free(dropping);
}

static const struct machine_ops DROPPING_OPS = {
    .name = "session drop",
    .phase_names = DROP_PHASE_NAMES,
    .phase_count = DROP_PHASE_COUNT,
    .failed_phase = DROP_PHASE_COUNT,
    .phase = dropping_phase,
    .release = dropping_release,
};

void
manager_session_drop(struct manager *manager, struct session_drop *drop)
{
    ASSERT_ON_REACTOR(manager->control);
    if (drop->id == 0 && drop->match[0] == '\0') {
        control_refuse(manager, &drop->control, -EINVAL,
                       "name a session by its number, or a host by its address or identity");
        return;
    }
    if (drop->unblock && drop->match[0] == '\0') {
        control_refuse(manager, &drop->control, -EINVAL,
                       "to let a host in again, name it by its address or identity");
        return;
    }
    struct session_dropping *dropping = calloc(1, sizeof(*dropping));
    ASSERT(dropping != NULL);
    machine_init(&dropping->machine, &DROPPING_OPS, manager, &drop->control);
    dropping->drop = drop;
    machine_start(&dropping->machine);
}

/* ---- who is blocked ---- */

void
sessions_restore_blocks(struct manager *manager)
{
    ASSERT_ON_REACTOR(manager->control);
    /* Nothing serves yet: the other reactors look at their tables for the first time later. */
    for (uint32_t i = 0; i < manager->options.reactor_count; i++) {
        list_for_each(&manager->blocks, link) {
            table_block(&manager->session_tables[i],
                        list_entry(link, struct block_entry, link)->match);
        }
    }
}

void
manager_block_query(struct manager *manager, struct block_query *query)
{
    uint32_t count = 0;

    ASSERT_ON_REACTOR(manager->control);
    list_for_each(&manager->blocks, link) {
        count++;
    }
    query->control.error = (struct error){ 0 };
    query->ret_count = 0;
    query->ret_blocks = calloc(MAX(count, 1u), sizeof(*query->ret_blocks));
    ASSERT(query->ret_blocks != NULL);
    list_for_each(&manager->blocks, link) {
        const struct block_entry *entry = list_entry(link, struct block_entry, link);
        struct block_report *report = &query->ret_blocks[query->ret_count++];
        snprintf(report->match, sizeof(report->match), "%s", entry->match);
        snprintf(report->origin, sizeof(report->origin), "%s", entry->origin);
    }
    control_complete(manager, &query->control, 0);
}
