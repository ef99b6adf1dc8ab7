/* SPDX-License-Identifier: Apache-2.0 */
/* Life of a connection: the table of states and events, moving, draining, closing. */
#include "targets/nbd/connection_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "targets/nbd/tls_impl.h"

typedef void handler_fn(struct nbd_connection *conn);

enum {
    IDLE_TRIM_SECONDS = 5, /* without requests for so long: memory goes back */
};

const char *
nbd_state_name(enum nbd_state state)
{
    static const char *const names[NBD_STATE_COUNT] = {
#define NBD_STATE_TEXT(name, text) [NBD_STATE_##name] = text,
        NBD_STATES(NBD_STATE_TEXT)
#undef NBD_STATE_TEXT
    };
    ASSERT_OP(state, <, (uint32_t)NBD_STATE_COUNT);
    return names[state];
}

const char *
nbd_event_name(enum nbd_event event)
{
    static const char *const names[NBD_EVENT_COUNT] = {
#define NBD_EVENT_TEXT(name, text) [NBD_EVENT_##name] = text,
        NBD_EVENTS(NBD_EVENT_TEXT)
#undef NBD_EVENT_TEXT
    };
    ASSERT_OP(event, <, (uint32_t)NBD_EVENT_COUNT);
    return names[event];
}

/* ---- handlers ---- */

/* The event means nothing in this state. */
static void
ignore(struct nbd_connection *conn)
{
    (void)conn;
}

static void
close_quietly(struct nbd_connection *conn)
{
    nbd_connection_close(conn, false, "closed by the client");
}

static void
close_stopping(struct nbd_connection *conn)
{
    nbd_connection_close(conn, false, "the server stops");
}

static void
close_expired(struct nbd_connection *conn)
{
    char reason[64];

    snprintf(reason, sizeof(reason), "time is up (%s)", nbd_state_name(conn->state));
    conn->failed_early = conn->handshake != NULL;
    nbd_connection_close(conn, true, reason);
}

static void
close_stuck(struct nbd_connection *conn)
{
    NBD_COUNT(conn->shard, stuck_closed, 1);
    nbd_connection_close(conn, true, "the client neither takes replies nor sends payload");
}

#define INPUT_STATE_HANDLERS                                                                       \
    [NBD_EVENT_RECEIVED] = nbd_handshake_run, [NBD_EVENT_SENT] = ignore,                           \
    [NBD_EVENT_PEER_CLOSED] = close_quietly, [NBD_EVENT_EXPIRED] = close_expired,                  \
    [NBD_EVENT_STOP] = close_stopping

/* NULL: cannot happen. */
static handler_fn *const handlers[NBD_STATE_COUNT][NBD_EVENT_COUNT] = {
    [NBD_STATE_CLIENT_FLAGS] = { INPUT_STATE_HANDLERS },
    [NBD_STATE_OPTION_HEADER] = { INPUT_STATE_HANDLERS },
    [NBD_STATE_OPTION_DATA] = { INPUT_STATE_HANDLERS },
    [NBD_STATE_OPTION_SKIP] = { INPUT_STATE_HANDLERS },
    [NBD_STATE_OPTION_REPLY] = {
        [NBD_EVENT_RECEIVED] = ignore, /* posted before a TLS session's last option */
        [NBD_EVENT_SENT] = nbd_handshake_reply_sent,
        [NBD_EVENT_PEER_CLOSED] = close_quietly,
        [NBD_EVENT_EXPIRED] = close_expired,
        [NBD_EVENT_STOP] = close_stopping,
        [NBD_EVENT_DROP] = close_quietly,
    },
    [NBD_STATE_LOOKUP] = {
        [NBD_EVENT_LOOKED_UP] = nbd_handshake_looked_up,
        [NBD_EVENT_SENT] = ignore,
        [NBD_EVENT_EXPIRED] = close_expired,
        [NBD_EVENT_STOP] = nbd_handshake_stop,
    },
    [NBD_STATE_MOVE] = {
        [NBD_EVENT_ARRIVED] = nbd_handshake_arrived,
        [NBD_EVENT_SENT] = nbd_connection_wake, /* a TLS ticket; now it can leave */
        [NBD_EVENT_EXPIRED] = ignore,           /* the next state notices */
        [NBD_EVENT_STOP] = ignore,              /* noticed on arrival */
    },
    [NBD_STATE_TLS_HANDSHAKE] = {
        [NBD_EVENT_RECEIVED] = nbd_handshake_tls,
        [NBD_EVENT_SENT] = ignore,
        [NBD_EVENT_PEER_CLOSED] = close_quietly,
        [NBD_EVENT_EXPIRED] = close_expired,
        [NBD_EVENT_STOP] = close_stopping,
    },
    [NBD_STATE_TRANSMISSION] = {
        [NBD_EVENT_RECEIVED] = nbd_transmission_run,
        [NBD_EVENT_SENT] = nbd_connection_wake,
        [NBD_EVENT_PEER_CLOSED] = nbd_connection_drain,
        [NBD_EVENT_EXPIRED] = close_stuck,
        [NBD_EVENT_DROP] = nbd_connection_drain,
        [NBD_EVENT_STOP] = nbd_connection_drain,
    },
    [NBD_STATE_DRAIN] = {
        [NBD_EVENT_RECEIVED] = ignore,
        [NBD_EVENT_SENT] = nbd_connection_wake,
        [NBD_EVENT_PEER_CLOSED] = nbd_connection_wake,
        [NBD_EVENT_EXPIRED] = close_stuck,
        [NBD_EVENT_DROP] = ignore,
        [NBD_EVENT_STOP] = ignore,
    },
    [NBD_STATE_GOODBYE] = {
        [NBD_EVENT_RECEIVED] = ignore,
        [NBD_EVENT_SENT] = close_quietly,
        [NBD_EVENT_PEER_CLOSED] = close_quietly,
        [NBD_EVENT_EXPIRED] = close_quietly,
        [NBD_EVENT_DROP] = close_quietly,
        [NBD_EVENT_STOP] = ignore,
    },
    [NBD_STATE_CLOSING] = {
        [NBD_EVENT_LOOKED_UP] = nbd_connection_wake,
        [NBD_EVENT_EXPIRED] = ignore,
        [NBD_EVENT_DROP] = ignore,
        [NBD_EVENT_STOP] = ignore,
    },
};

void
nbd_connection_event(struct nbd_connection *conn, enum nbd_event event)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, <, NBD_STATE_COUNT);
    handler_fn *handler = handlers[conn->state][event];
    if (handler == NULL) {
        log_error("nbd", "event \"%s\" in state \"%s\"", nbd_event_name(event),
                  nbd_state_name(conn->state));
    }
    ASSERT(handler != NULL);
    handler(conn);
}

void
nbd_connection_enter(struct nbd_connection *conn, enum nbd_state state)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, !=, NBD_STATE_CLOSING); /* final */
    conn->state = (uint8_t)state;
}

/* ---- birth and moving ---- */

struct nbd_connection *
nbd_connection_create(struct nbd_server *server, struct platform_socket *socket, const char *peer,
                      enum nbd_tls_mode tls_mode)
{
    struct nbd_connection *conn = calloc(1, sizeof(*conn));

    ASSERT_ON_REACTOR(server->acceptor);
    if (conn == NULL) {
        return NULL;
    }
    conn->handshake = calloc(1, sizeof(*conn->handshake));
    if (conn->handshake == NULL || nbd_stream_open(conn) < 0) {
        free(conn->handshake);
        free(conn);
        return NULL;
    }
    conn->handshake->connection = conn;
    list_init(&conn->link);
    conn->socket = socket;
    conn->state = NBD_STATE_MOVE;
    conn->tls_mode = (uint8_t)tls_mode;
    snprintf(conn->peer, sizeof(conn->peer), "%s", peer);
    if (tls_mode != NBD_TLS_OFF) {
        conn->credentials = server->credentials;
        nbd_tls_credentials_hold(conn->credentials);
    }
    return conn;
}

void
nbd_connection_destroy(struct nbd_connection *conn)
{
    ASSERT(!conn->receiving && !conn->sending && !conn->looking_up);
    ASSERT_OP(conn->slots_in_use, ==, 0u);
    if (conn->credentials != NULL) {
        nbd_tls_credentials_release(conn->credentials);
    }
    nbd_handshake_free(conn);
    nbd_stream_close(conn);
    free(conn);
}

static void
arrived(struct message *message)
{
    struct nbd_connection *conn = container_of(message, struct nbd_connection, message);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_MOVE);
    list_push_back(&conn->shard->connections, &conn->link);
    nbd_shard_arm_tick(conn->shard);
    nbd_connection_event(conn, NBD_EVENT_ARRIVED);
}

void
nbd_connection_send_to(struct nbd_connection *conn, struct nbd_shard *shard)
{
    ASSERT_OP(conn->state, ==, NBD_STATE_MOVE);
    ASSERT(!conn->receiving && !conn->sending && !conn->looking_up);
    if (list_linked(&conn->link)) {
        list_remove(&conn->link);
    }
    conn->shard = shard;
    reactor_send(shard->reactor, &conn->message, arrived);
}

/* ---- end of life ---- */

static void
went_home(struct message *message)
{
    struct nbd_connection *conn = container_of(message, struct nbd_connection, message);
    struct nbd_server *server = nbd_connection_server(conn);

    ASSERT_ON_REACTOR(server->acceptor);
    nbd_connection_destroy(conn);
    nbd_server_connection_gone(server);
}

/* CLOSING: whether the last operation has come home; then everything goes. */
static void
finish_if_quiet(struct nbd_connection *conn)
{
    if (conn->receiving || conn->sending || conn->looking_up) {
        return;
    }
    nbd_transmission_abandon(conn);
    nbd_reply_discard(conn);
    if (conn->slots_in_use > 0 || conn->pass_hook.queued) {
        return; /* release() wakes us; or slots that were given back just now have done so */
    }
    ASSERT_OP(conn->bytes_in_flight, ==, 0u);
    nbd_connection_drop_contexts(conn);
    if (conn->attached) {
        ASSERT_OP(conn->session.in_flight, ==, 0u);
        volume_detach(&conn->session);
        conn->attached = false;
    }
    if (conn->volume != NULL) {
        manager_export_release(nbd_connection_server(conn)->manager, conn->volume);
        conn->volume = NULL;
    }
    if (conn->tls != NULL) {
        nbd_tls_close(conn->tls);
        conn->tls = NULL;
    }
    reactor_platform(conn->shard->reactor)->ops->socket_close(conn->socket);
    list_remove(&conn->link);
    reactor_send(nbd_connection_server(conn)->acceptor, &conn->message, went_home);
}

static void
pass_end(struct pass_hook *hook)
{
    struct nbd_connection *conn = container_of(hook, struct nbd_connection, pass_hook);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->state == NBD_STATE_TRANSMISSION) {
        if (conn->stall == NBD_STALL_SLOTS || conn->stall == NBD_STALL_BYTES) {
            conn->stall = NBD_STALL_NONE;
            nbd_transmission_run(conn);
        }
    }
    if (conn->state == NBD_STATE_TRANSMISSION || conn->state == NBD_STATE_DRAIN) {
        nbd_reply_flush(conn);
    }
    if (conn->state == NBD_STATE_DRAIN) {
        nbd_connection_check_drained(conn);
    }
    if (hook->queued) {
        return; /* the next pass decides: nobody may refer to a connection that leaves */
    }
    if (conn->state == NBD_STATE_MOVE && !conn->sending && !conn->receiving) {
        struct reactor *owner = volume_reactor(conn->volume);
        struct nbd_shard *shard = nbd_server_shard_of(nbd_connection_server(conn), owner);
        ASSERT(shard != NULL);
        nbd_connection_send_to(conn, shard);
    } else if (conn->state == NBD_STATE_CLOSING) {
        finish_if_quiet(conn);
    }
}

void
nbd_connection_wake(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    reactor_end_of_pass(conn->shard->reactor, &conn->pass_hook, pass_end);
}

static void
log_reason(struct nbd_connection *conn, const char *reason)
{
    if (!nbd_log_allowed(conn->shard)) {
        return;
    }
    if (conn->attached) {
        log_notice("nbd", "closed the connection of %s to %s/%s: %s", conn->peer,
                   conn->info.pool_name, conn->info.name, reason);
    } else {
        log_notice("nbd", "closed the connection of %s: %s", conn->peer, reason);
    }
}

void
nbd_connection_close(struct nbd_connection *conn, bool loud, const char *reason)
{
    struct nbd_shard *shard = conn->shard;

    ASSERT_ON_REACTOR(shard->reactor);
    if (conn->state == NBD_STATE_CLOSING) {
        return;
    }
    if (loud) {
        log_reason(conn, reason);
    }
    log_debug("nbd", "connection of %s ends in state \"%s\": %s", conn->peer,
              nbd_state_name(conn->state), reason);
    if (conn->handshake != NULL && conn->failed_early) {
        NBD_COUNT(shard, handshakes_failed, 1);
    }
    if (conn->stall == NBD_STALL_MEMORY) {
        buffer_pool_cancel(reactor_buffer_pool(shard->reactor), &conn->waiter);
        shard->memory_waiters--;
    }
    conn->stall = NBD_STALL_NONE;
    timer_disarm(shard->reactor, &conn->gather_timer);
    conn->state = NBD_STATE_CLOSING;
    reactor_platform(shard->reactor)->ops->socket_shutdown(reactor_engine(shard->reactor),
                                                           conn->socket);
    nbd_connection_wake(conn);
}

void
nbd_connection_protocol_error(struct nbd_connection *conn, const char *format, ...)
{
    char reason[192];
    va_list arguments;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    va_start(arguments, format);
    vsnprintf(reason, sizeof(reason), format, arguments);
    va_end(arguments);
    if (conn->state == NBD_STATE_CLOSING) {
        return;
    }
    NBD_COUNT(conn->shard, protocol_errors, 1);
    conn->failed_early = conn->handshake != NULL;
    if (conn->state == NBD_STATE_TLS_HANDSHAKE && conn->sending) {
        /* The alert that tells the client why must leave first. */
        log_reason(conn, reason);
        nbd_connection_enter(conn, NBD_STATE_GOODBYE);
    } else {
        nbd_connection_close(conn, true, reason);
    }
}

void
nbd_connection_drain(struct nbd_connection *conn)
{
    struct nbd_shard *shard = conn->shard;

    ASSERT_ON_REACTOR(shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_TRANSMISSION);
    if (conn->stall == NBD_STALL_MEMORY) {
        buffer_pool_cancel(reactor_buffer_pool(shard->reactor), &conn->waiter);
        shard->memory_waiters--;
    }
    conn->stall = NBD_STALL_NONE;
    timer_disarm(shard->reactor, &conn->gather_timer);
    nbd_connection_enter(conn, NBD_STATE_DRAIN);
    nbd_connection_wake(conn);
}

void
nbd_connection_check_drained(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_DRAIN);
    if (!conn->receiving) {
        nbd_transmission_abandon(conn);
    }
    uint32_t unfinished = (conn->incoming != NULL) + (conn->skipping != NULL);
    ASSERT_OP(conn->slots_in_use, >=, unfinished);
    if (conn->slots_in_use > unfinished || conn->ready_first != NULL || conn->sending) {
        return;
    }
    nbd_connection_goodbye(conn);
}

void
nbd_connection_goodbye(struct nbd_connection *conn)
{
    struct nbd_shard *shard = conn->shard;

    ASSERT_ON_REACTOR(shard->reactor);
    if (conn->tls != NULL) {
        conn->deadline_ns = reactor_now_ns(shard->reactor) + shard->server->limits.drain_timeout_ns;
        nbd_connection_enter(conn, NBD_STATE_GOODBYE);
        nbd_tls_goodbye(conn->tls);
        nbd_stream_send_pending(conn);
    }
    if (!conn->sending) {
        nbd_connection_close(conn, false, "done");
    }
}

/* ---- the clock ---- */

/* The client holds memory that others wait for, and has not moved for long. */
static bool
is_stuck(const struct nbd_connection *conn, uint64_t now_ns)
{
    bool waits_itself = conn->stall == NBD_STALL_MEMORY;
    bool holds = conn->sending || conn->skipping != NULL ||
                 (conn->incoming != NULL && !waits_itself);
    uint32_t others = conn->shard->memory_waiters - (waits_itself ? 1 : 0);

    return holds && others > 0 &&
           now_ns - conn->progress_ns > nbd_connection_server(conn)->limits.stuck_timeout_ns;
}

void
nbd_connection_tick(struct nbd_connection *conn, uint64_t now_ns)
{
    const struct nbd_server_limits *limits = &nbd_connection_server(conn)->limits;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->state == NBD_STATE_CLOSING) {
        return;
    }
    if (conn->state == NBD_STATE_DRAIN) {
        /* Requests end in the volume's time; only the client is not waited for. */
        if (conn->sending && now_ns - conn->progress_ns >= limits->drain_timeout_ns) {
            nbd_connection_event(conn, NBD_EVENT_EXPIRED);
        }
        return;
    }
    if (conn->state != NBD_STATE_TRANSMISSION) {
        if (now_ns >= conn->deadline_ns) {
            nbd_connection_event(conn, NBD_EVENT_EXPIRED);
        } else if (conn->state == NBD_STATE_LOOKUP && conn->handshake->waits) {
            nbd_handshake_look_again(conn);
        }
        return;
    }
    if (is_stuck(conn, now_ns)) {
        nbd_connection_event(conn, NBD_EVENT_EXPIRED);
        return;
    }
    uint64_t idle_ns = now_ns - conn->progress_ns;
    if (conn->slots_in_use > 0 || nbd_input_available(conn) > 0 || conn->sending) {
        return;
    }
    if (limits->idle_timeout_ns != 0 && idle_ns >= limits->idle_timeout_ns) {
        nbd_connection_drain(conn);
    } else if (!conn->trimmed && idle_ns >= IDLE_TRIM_SECONDS * NS_PER_S) {
        nbd_stream_trim(conn);
    }
}
