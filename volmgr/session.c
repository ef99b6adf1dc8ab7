/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: who is attached to a volume, and getting rid of him.
 *
 * Each reactor has a table of the sessions on its volumes and its own copy of the list of blocked
 * peers, so that attaching asks nobody else. Dropping is a round over the reactors: mark, deliver
 * VOLUME_SESSION_DROP, and come back when the last one of them has detached. A peer that is blocked
 * is blocked on a reactor before its sessions there are dropped, so it cannot slip in again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

enum {
    PEER_BYTES_MAX = 128
};

struct blocked_peer {
    struct list link;
    char match[PEER_BYTES_MAX];
};

struct session_table {
    struct list sessions; /* struct volume_session by reactor_link */
    struct list blocked;  /* struct blocked_peer */
    struct list drops;    /* struct drop_stop that wait for sessions to detach */
};

int
sessions_create(struct manager *manager)
{
    uint32_t count = manager->options.reactor_count;

    manager->session_tables = calloc(count, sizeof(*manager->session_tables));
    ASSERT(manager->session_tables != NULL);
    for (uint32_t i = 0; i < count; i++) {
        list_init(&manager->session_tables[i].sessions);
        list_init(&manager->session_tables[i].blocked);
        list_init(&manager->session_tables[i].drops);
    }
    return 0;
}

void
sessions_destroy(struct manager *manager)
{
    for (uint32_t i = 0; i < manager->options.reactor_count; i++) {
        struct session_table *table = &manager->session_tables[i];
        ASSERT(list_empty(&table->sessions) && list_empty(&table->drops));
        list_for_each_safe(&table->blocked, link) {
            list_remove(link);
            free(list_entry(link, struct blocked_peer, link));
        }
    }
    free(manager->session_tables);
    manager->session_tables = NULL;
}

/* ---- who is meant ---- */

static bool
text_is(const char *text, size_t length, const char *match)
{
    return strlen(match) == length && memcmp(text, match, length) == 0;
}

/*
 * The host part of a peer: of "tcp:HOST:PORT" HOST (with or without the brackets of an IPv6
 * address, with or without "tcp:"), of "unix (pid 12, uid 0)" the whole, "pid 12" or "uid 0".
 */
static bool
peer_matches(const char *peer, const char *match)
{
    if (strcmp(peer, match) == 0) {
        return true;
    }
    if (strncmp(peer, "tcp:", 4) == 0) {
        const char *host = peer + 4;
        const char *port = strrchr(host, ':');
        size_t length = port != NULL ? (size_t)(port - host) : strlen(host);
        return text_is(host, length, match) || text_is(peer, length + 4, match) ||
               (length > 2 && host[0] == '[' && text_is(host + 1, length - 2, match));
    }
    if (strncmp(peer, "unix (", 6) == 0) {
        const char *part = peer + 6;
        while (*part != '\0') {
            size_t length = strcspn(part, ",)");
            if (text_is(part, length, match)) {
                return true;
            }
            part += length;
            part += strspn(part, ",) ");
        }
    }
    return false;
}

static bool
session_matches(const struct volume_session *session, const char *match)
{
    return peer_matches(session->peer, match) ||
           (session->identity[0] != '\0' && strcmp(session->identity, match) == 0);
}

/* ---- attaching; the volume's reactor ---- */

static struct session_table *
session_table_of(const struct volume *volume)
{
    return &volume->pool->manager->session_tables[volume->shard->index];
}

static bool
is_blocked(const struct session_table *table, const struct volume_session *session)
{
    list_for_each(&table->blocked, link) {
        if (session_matches(session, list_entry(link, struct blocked_peer, link)->match)) {
            return true;
        }
    }
    return false;
}

int
volume_attach(struct volume *volume, struct volume_session *session)
{
    struct manager *manager = volume->pool->manager;
    struct session_table *table = session_table_of(volume);

    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT(session->event != NULL && session->protocol != NULL);
    if (!volume->serving || volume->closed) {
        return -ENODEV;
    }
    if (is_blocked(table, session)) {
        return -EACCES;
    }
    if (!list_empty(&volume->sessions)) {
        const struct volume_session *first =
            list_first(&volume->sessions, struct volume_session, link);
        if (session->exclusive || first->exclusive) {
            return -EBUSY;
        }
    }
    session->volume = volume;
    session->id = __atomic_add_fetch(&manager->session_sequence, 1, __ATOMIC_RELAXED);
    session->dropping = false;
    session->attached_realtime_ns = manager_realtime_ns(manager);
    list_push_back(&volume->sessions, &session->link);
    list_push_back(&table->sessions, &session->reactor_link);
    return 0;
}

static void drops_session_gone(struct session_table *table, uint64_t id);

void
volume_detach(struct volume_session *session)
{
    struct session_table *table = session_table_of(session->volume);

    ASSERT_ON_REACTOR(session->volume->shard->reactor);
    ASSERT_OP(session->in_flight, ==, 0u);
    list_remove(&session->link);
    list_remove(&session->reactor_link);
    session->volume = NULL;
    drops_session_gone(table, session->id);
}

void
volume_sessions_notify(struct volume *volume, enum volume_session_event event)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    list_for_each_safe(&volume->sessions, link) {
        struct volume_session *session = list_entry(link, struct volume_session, link);
        if (event == VOLUME_SESSION_DROP) {
            if (session->dropping) {
                continue;
            }
            session->dropping = true;
        }
        session->event(session, event);
    }
}

/* ---- listing ---- */

#define SESSION_QUERY_PHASES(X)                                                                    \
    X(ASK)                                                                                         \
    X(COLLECT)

enum session_query_phase {
#define PHASE_ENUM(name) QUERY_##name,
    SESSION_QUERY_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    QUERY_PHASE_COUNT
};

static const char *const QUERY_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    SESSION_QUERY_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(QUERY_PHASE_NAMES) == QUERY_PHASE_COUNT, "a name for each phase");

struct session_listing {
    struct machine machine;
    struct session_query *query;
    struct round round;
    struct byte_buffer parts[REACTOR_COUNT_MAX]; /* struct session_report[]; each reactor its own */
};

static enum machine_step
listing_visit(struct round_stop *stop)
{
    struct session_listing *listing = container_of(stop->round, struct session_listing, round);
    const struct session_table *table =
        &listing->machine.manager->session_tables[stop->index];

    list_for_each(&table->sessions, link) {
        const struct volume_session *session =
            list_entry(link, struct volume_session, reactor_link);
        struct session_report report = {
            .id = session->id,
            .read_only = session->read_only,
            .exclusive = session->exclusive,
            .dropping = session->dropping,
            .attached_realtime_ns = session->attached_realtime_ns,
            .reads = session->reads,
            .writes = session->writes,
            .read_bytes = session->read_bytes,
            .written_bytes = session->written_bytes,
            .in_flight = session->in_flight,
            .reactor = stop->index,
        };
        snprintf(report.volume.pool, sizeof(report.volume.pool), "%s",
                 session->volume->pool->name);
        snprintf(report.volume.volume, sizeof(report.volume.volume), "%s",
                 session->volume->record.name);
        snprintf(report.protocol, sizeof(report.protocol), "%s", session->protocol);
        snprintf(report.peer, sizeof(report.peer), "%s", session->peer);
        snprintf(report.identity, sizeof(report.identity), "%s", session->identity);
        byte_buffer_append(&listing->parts[stop->index], &report, sizeof(report));
    }
    return MACHINE_NEXT;
}

static enum machine_step
listing_collect(struct session_listing *listing)
{
    struct byte_buffer all = BYTE_BUFFER_INIT;

    for (uint32_t i = 0; i < listing->machine.manager->options.reactor_count; i++) {
        byte_buffer_append(&all, listing->parts[i].data, listing->parts[i].length_bytes);
    }
    listing->query->ret_count = (uint32_t)(all.length_bytes / sizeof(struct session_report));
    byte_buffer_reserve(&all, 1); /* so that there is memory to free */
    listing->query->ret_sessions = (struct session_report *)(void *)all.data;
    return MACHINE_NEXT;
}

static enum machine_step
listing_phase(struct machine *machine, uint32_t phase)
{
    struct session_listing *listing = container_of(machine, struct session_listing, machine);

    switch ((enum session_query_phase)phase) {
    case QUERY_ASK:
        round_all(machine, &listing->round, listing_visit);
        return machine_wait(machine);
    case QUERY_COLLECT:
        return listing_collect(listing);
    case QUERY_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
listing_release(struct machine *machine)
{
    struct session_listing *listing = container_of(machine, struct session_listing, machine);

    for (uint32_t i = 0; i < REACTOR_COUNT_MAX; i++) {
        byte_buffer_free(&listing->parts[i]);
    }
    round_free(&listing->round);
    free(listing);
}

static const struct machine_ops LISTING_OPS = {
    .name = "session list",
    .phase_names = QUERY_PHASE_NAMES,
    .phase_count = QUERY_PHASE_COUNT,
    .failed_phase = QUERY_PHASE_COUNT,
    .phase = listing_phase,
    .release = listing_release,
};

void
manager_session_query(struct manager *manager, struct session_query *query)
{
    struct session_listing *listing = calloc(1, sizeof(*listing));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(listing != NULL);
    machine_init(&listing->machine, &LISTING_OPS, manager, &query->control);
    listing->query = query;
    machine_start(&listing->machine);
}

/* ---- dropping ---- */

#define SESSION_DROP_PHASES(X)                                                                     \
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

/* What one reactor still waits for. */
struct drop_stop {
    struct list link; /* session_table->drops */
    struct round_stop *stop;
    struct byte_buffer ids; /* uint64_t[] of sessions that have not detached */
    uint32_t dropped;
};

struct session_dropping {
    struct machine machine;
    struct session_drop *drop;
    struct round round;
    struct drop_stop stops[REACTOR_COUNT_MAX];
};

static void
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
            list_remove(link);
            round_stop_done(own->stop);
        }
    }
}

static void
table_block(struct session_table *table, const char *match)
{
    struct blocked_peer *peer = calloc(1, sizeof(*peer));

    ASSERT(peer != NULL);
    snprintf(peer->match, sizeof(peer->match), "%s", match);
    list_push_back(&table->blocked, &peer->link);
}

static void
table_unblock(struct session_table *table, const char *match)
{
    list_for_each_safe(&table->blocked, link) {
        struct blocked_peer *peer = list_entry(link, struct blocked_peer, link);
        if (strcmp(peer->match, match) == 0) {
            list_remove(link);
            free(peer);
        }
    }
}

static bool
drop_means(const struct session_drop *drop, const struct volume_session *session)
{
    return drop->id != 0 ? session->id == drop->id : session_matches(session, drop->match);
}

static enum machine_step
drop_visit(struct round_stop *stop)
{
    struct session_dropping *dropping = container_of(stop->round, struct session_dropping, round);
    const struct session_drop *drop = dropping->drop;
    struct session_table *table = &dropping->machine.manager->session_tables[stop->index];
    struct drop_stop *own = &dropping->stops[stop->index];

    if (drop->match[0] != '\0' && (drop->block || drop->unblock)) {
        table_unblock(table, drop->match); /* never twice in the list */
        if (drop->block) {
            table_block(table, drop->match);
        }
    }
    if (drop->unblock) {
        return MACHINE_NEXT;
    }
    list_for_each(&table->sessions, link) {
        const struct volume_session *session =
            list_entry(link, struct volume_session, reactor_link);
        if (drop_means(drop, session)) {
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
        if (drop_means(drop, session) && !session->dropping) {
            session->dropping = true;
            session->event(session, VOLUME_SESSION_DROP);
        }
    }
    if (own->ids.length_bytes == 0) {
        list_remove(&own->link);
        return MACHINE_NEXT;
    }
    own->stop = stop;
    return MACHINE_WAIT;
}

static enum machine_step
drop_count(struct session_dropping *dropping)
{
    struct session_drop *drop = dropping->drop;

    drop->ret_dropped = 0;
    for (uint32_t i = 0; i < dropping->machine.manager->options.reactor_count; i++) {
        drop->ret_dropped += dropping->stops[i].dropped;
    }
    if (drop->ret_dropped == 0 && drop->id != 0) {
        return machine_fail(&dropping->machine, -ENOENT, "there is no session %llu",
                            (unsigned long long)drop->id);
    }
    if (drop->ret_dropped > 0 || drop->block || drop->unblock) {
        event_raise(dropping->machine.manager, EVENT_INFO, NULL, drop->match,
                    drop->unblock ? "host-unblocked" : "sessions-dropped", "%u sessions ended%s",
                    drop->ret_dropped, drop->block ? "; the host is blocked from now on" : "");
    }
    return MACHINE_NEXT;
}

static enum machine_step
dropping_phase(struct machine *machine, uint32_t phase)
{
    struct session_dropping *dropping = container_of(machine, struct session_dropping, machine);

    switch ((enum session_drop_phase)phase) {
    case DROP_DROP:
        round_all(machine, &dropping->round, drop_visit);
        return machine_wait(machine);
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
    }
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
    if (drop->id != 0 && (drop->block || drop->unblock) && drop->match[0] == '\0') {
        control_refuse(manager, &drop->control, -EINVAL,
                       "to block a host, name it by its address or identity");
        return;
    }
    struct session_dropping *dropping = calloc(1, sizeof(*dropping));
    ASSERT(dropping != NULL);
    machine_init(&dropping->machine, &DROPPING_OPS, manager, &drop->control);
    dropping->drop = drop;
    machine_start(&dropping->machine);
}
