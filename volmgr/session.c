/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: who is attached to a volume.
 *
 * Each reactor has a table of the sessions on its volumes and its own copy of the list of blocked
 * hosts, so that attaching asks nobody else. session_drop.c changes that list and ends sessions.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"
#include "volmgr/session_impl.h"

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
    list_for_each_safe(&manager->blocks, link) {
        list_remove(link);
        free(list_entry(link, struct block_entry, link));
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

bool
session_matches(const struct volume_session *session, const char *match)
{
    return peer_matches(session->peer, match) ||
           (session->identity[0] != '\0' && strcmp(session->identity, match) == 0);
}

bool
session_address(const struct volume_session *session, char ret_host[static BLOCK_TEXT_SIZE])
{
    const char *host = session->peer + 4;
    const char *port = strncmp(session->peer, "tcp:", 4) == 0 ? strrchr(host, ':') : NULL;

    if (port == NULL || port == host) {
        return false;
    }
    size_t length = (size_t)(port - host);
    if (host[0] == '[' && length > 2) {
        host++;
        length -= 2;
    }
    snprintf(ret_host, BLOCK_TEXT_SIZE, "%.*s", (int)length, host);
    return true;
}

/* ---- the list of blocked hosts; each reactor its own ---- */

void
table_block(struct session_table *table, const char *match)
{
    struct blocked_peer *peer = calloc(1, sizeof(*peer));

    ASSERT(peer != NULL);
    table_unblock(table, match); /* never twice in the list */
    snprintf(peer->match, sizeof(peer->match), "%s", match);
    list_push_back(&table->blocked, &peer->link);
}

void
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
    /* Unexported since it was looked up. */
    if (session->export_id != 0 && !volume_export_is_open(volume, session->export_id)) {
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
            .read_total_ns = session->read_total_ns,
            .write_total_ns = session->write_total_ns,
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
        struct volume_info info;
        volume_get_info(session->volume, &info);
        snprintf(report.volume.snapshot, sizeof(report.volume.snapshot), "%s", info.snapshot);
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
