/* SPDX-License-Identifier: Apache-2.0 */
/* Listening, shards, starting and stopping, statistics. */
#include "targets/nbd/server_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "targets/nbd/connection_impl.h"
#include "targets/nbd/tls_impl.h"

enum {
    LOG_LINES_MAX = 10, /* per interval and shard */
    LOG_INTERVAL_SECONDS = 10,
    ACCEPT_RETRY_MS = 100, /* after an error such as too many open files */
    STOP_EXTRA_SECONDS = 1,
    SOCKET_MODE_DEFAULT = 0600,
};

/* ---- shards ---- */

struct nbd_shard *
nbd_server_shard_of(struct nbd_server *server, const struct reactor *reactor)
{
    for (uint32_t i = 0; i < server->shard_count; i++) {
        if (server->shards[i].reactor == reactor) {
            return &server->shards[i];
        }
    }
    return NULL;
}

bool
nbd_log_allowed(struct nbd_shard *shard)
{
    struct nbd_log_limit *limit = &shard->log_limit;
    uint64_t now_ns = reactor_now_ns(shard->reactor);

    ASSERT_ON_REACTOR(shard->reactor);
    if (now_ns - limit->interval_start_ns >= LOG_INTERVAL_SECONDS * NS_PER_S) {
        if (limit->suppressed > 0) {
            log_notice("nbd", "%u more connections were closed with a reason", limit->suppressed);
        }
        limit->interval_start_ns = now_ns;
        limit->count = 0;
        limit->suppressed = 0;
    }
    if (limit->count >= LOG_LINES_MAX) {
        limit->suppressed++;
        return false;
    }
    limit->count++;
    return true;
}

static void
tick(struct timer *timer)
{
    struct nbd_shard *shard = container_of(timer, struct nbd_shard, tick);
    uint64_t now_ns = reactor_now_ns(shard->reactor);

    list_for_each_safe(&shard->connections, node) {
        nbd_connection_tick(list_entry(node, struct nbd_connection, link), now_ns);
    }
    nbd_shard_trim(shard);
    if (!list_empty(&shard->connections)) {
        nbd_shard_arm_tick(shard);
    }
}

void
nbd_shard_arm_tick(struct nbd_shard *shard)
{
    ASSERT_ON_REACTOR(shard->reactor);
    if (!timer_is_armed(&shard->tick)) {
        timer_arm(shard->reactor, &shard->tick, reactor_now_ns(shard->reactor) + NS_PER_S, tick);
    }
}

/* ---- accepting ---- */

static void accept_next(struct nbd_listener *listener);
static void check_stopped(struct nbd_server *server);

static void
retry_accept(struct timer *timer)
{
    struct nbd_listener *listener = container_of(timer, struct nbd_listener, retry);

    if (!listener->server->stopping) {
        accept_next(listener);
    }
}

static void
take_socket(struct nbd_listener *listener)
{
    struct nbd_server *server = listener->server;
    struct nbd_shard *acceptor = &server->shards[0];
    struct platform_socket *socket = listener->accept.ret_socket;
    const struct platform_ops *ops = reactor_platform(server->acceptor)->ops;
    struct nbd_connection *conn = NULL;

    NBD_COUNT(acceptor, connections_accepted, 1);
    if (!server->stopping && server->connections_open < server->limits.connections_max) {
        conn = nbd_connection_create(server, socket, listener->accept.ret_peer, listener->tls);
    }
    if (conn == NULL) {
        NBD_COUNT(acceptor, connections_refused, 1);
        if (!server->stopping && nbd_log_allowed(acceptor)) {
            log_warning("nbd", "refused a connection of %s: %u are open", listener->accept.ret_peer,
                        server->connections_open);
        }
        ops->socket_close(socket);
        return;
    }
    server->connections_open++;
    NBD_COUNT(acceptor, connections_open, 1);
    nbd_connection_send_to(conn, &server->shards[server->next_shard]);
    server->next_shard = (server->next_shard + 1) % server->shard_count;
}

static void
close_listener(struct nbd_listener *listener)
{
    reactor_platform(listener->server->acceptor)->ops->socket_close(listener->socket);
    listener->socket = NULL;
}

static void
accepted(struct io_op *op)
{
    struct nbd_listener *listener = container_of(op, struct nbd_listener, accept.op);
    struct nbd_server *server = listener->server;

    ASSERT_ON_REACTOR(server->acceptor);
    listener->accepting = false;
    if (op->result == 0) {
        take_socket(listener);
    }
    if (server->stopping) {
        close_listener(listener);
        check_stopped(server);
        return;
    }
    if (op->result == 0 || op->result == -ECONNABORTED) {
        accept_next(listener);
        return;
    }
    if (nbd_log_allowed(&server->shards[0])) {
        log_warning("nbd", "accepting on %s: %s", listener->bound, error_name(op->result));
    }
    timer_arm(server->acceptor, &listener->retry,
              reactor_now_ns(server->acceptor) + ACCEPT_RETRY_MS * NS_PER_MS, retry_accept);
}

static void
accept_next(struct nbd_listener *listener)
{
    struct reactor *acceptor = listener->server->acceptor;

    ASSERT(!listener->accepting);
    listener->accepting = true;
    listener->accept.op.done = accepted;
    listener->accept.listener = listener->socket;
    listener->accept.ret_socket = NULL;
    reactor_platform(acceptor)->ops->socket_accept(reactor_engine(acceptor), &listener->accept);
}

static void
start_accepting(struct message *message)
{
    struct nbd_server *server = container_of(message, struct nbd_server, start_message);

    ASSERT_ON_REACTOR(server->acceptor);
    for (uint32_t i = 0; i < server->listener_count && !server->stopping; i++) {
        accept_next(&server->listeners[i]);
    }
}

void
nbd_server_start(struct nbd_server *server)
{
    ASSERT(!server->started);
    server->started = true;
    reactor_send(server->acceptor, &server->start_message, start_accepting);
}

/* ---- stopping ----
 *
 * Round 1: every shard drains its connections. Round 2, when all have come home: every shard gives
 * up its timer and memory. Each round ends when all shards have answered.
 */

static void
shard_answered(struct message *message)
{
    struct nbd_shard *shard = container_of(message, struct nbd_shard, message);

    ASSERT_ON_REACTOR(shard->server->acceptor);
    ASSERT_OP(shard->server->shards_pending, >, 0u);
    shard->server->shards_pending--;
    check_stopped(shard->server);
}

static void
drain_shard(struct message *message)
{
    struct nbd_shard *shard = container_of(message, struct nbd_shard, message);

    shard->stopping = true;
    list_for_each_safe(&shard->connections, node) {
        nbd_connection_event(list_entry(node, struct nbd_connection, link), NBD_EVENT_STOP);
    }
    reactor_send(shard->server->acceptor, &shard->message, shard_answered);
}

static void
retire_shard(struct message *message)
{
    struct nbd_shard *shard = container_of(message, struct nbd_shard, message);

    ASSERT(list_empty(&shard->connections));
    timer_disarm(shard->reactor, &shard->tick);
    nbd_shard_free_memory(shard);
    reactor_send(shard->server->acceptor, &shard->message, shard_answered);
}

static void
cut_shard(struct message *message)
{
    struct nbd_shard *shard = container_of(message, struct nbd_shard, cut_message);

    list_for_each_safe(&shard->connections, node) {
        struct nbd_connection *conn = list_entry(node, struct nbd_connection, link);
        if (conn->state != NBD_STATE_MOVE) {
            nbd_connection_close(conn, false, "the server stops");
        }
    }
}

static void
send_round(struct nbd_server *server, message_fn *deliver)
{
    ASSERT_OP(server->shards_pending, ==, 0u);
    server->shards_pending = server->shard_count;
    for (uint32_t i = 0; i < server->shard_count; i++) {
        reactor_send(server->shards[i].reactor, &server->shards[i].message, deliver);
    }
}

static void
complete_stop(struct nbd_server *server, int result)
{
    struct nbd_server_stop *stop = server->stop;

    server->stop = NULL;
    if (stop != NULL) {
        reactor_complete(&stop->op, result);
    }
}

static void
check_stopped(struct nbd_server *server)
{
    if (!server->stopping || server->connections_open > 0 || server->shards_pending > 0) {
        return;
    }
    for (uint32_t i = 0; i < server->listener_count; i++) {
        if (server->listeners[i].socket != NULL) {
            return;
        }
    }
    if (!server->retiring) {
        server->retiring = true;
        send_round(server, retire_shard);
        return;
    }
    timer_disarm(server->acceptor, &server->stop_timer);
    server->stopped = true;
    complete_stop(server, 0);
}

static void
stop_timer_expired(struct timer *timer)
{
    struct nbd_server *server = container_of(timer, struct nbd_server, stop_timer);
    uint64_t now_ns = reactor_now_ns(server->acceptor);

    ASSERT_ON_REACTOR(server->acceptor);
    if (server->cut) {
        complete_stop(server, -ETIMEDOUT);
        return;
    }
    server->cut = true;
    for (uint32_t i = 0; i < server->shard_count; i++) {
        reactor_send(server->shards[i].reactor, &server->shards[i].cut_message, cut_shard);
    }
    timer_arm(server->acceptor, timer, now_ns + STOP_EXTRA_SECONDS * NS_PER_S, stop_timer_expired);
}

void
nbd_server_stop(struct nbd_server *server, struct nbd_server_stop *stop)
{
    const struct platform_ops *ops = reactor_platform(server->acceptor)->ops;

    ASSERT_ON_REACTOR(server->acceptor);
    ASSERT(server->started && !server->stopping);
    server->stopping = true;
    server->stop = stop;
    stop->op.reactor_id = reactor_id(server->acceptor);
    for (uint32_t i = 0; i < server->listener_count; i++) {
        struct nbd_listener *listener = &server->listeners[i];
        timer_disarm(server->acceptor, &listener->retry);
        if (listener->accepting) {
            ops->socket_shutdown(reactor_engine(server->acceptor), listener->socket);
        } else {
            close_listener(listener);
        }
    }
    timer_arm(server->acceptor, &server->stop_timer,
              reactor_now_ns(server->acceptor) + stop->grace_ns, stop_timer_expired);
    send_round(server, drain_shard);
}

void
nbd_server_connection_gone(struct nbd_server *server)
{
    ASSERT_ON_REACTOR(server->acceptor);
    ASSERT_OP(server->connections_open, >, 0u);
    server->connections_open--;
    NBD_COUNT(&server->shards[0], connections_open, UINT64_MAX);
    check_stopped(server);
}

/* ---- creating ---- */

void
nbd_server_options_default(struct nbd_server_options *options)
{
    memset(options, 0, sizeof(*options));
    options->limits = (struct nbd_server_limits){
        .connections_max = 4096,
        .slots_max = 128,
        .bytes_in_flight_max = NBD_PAYLOAD_BYTES_MAX,
        .handshake_timeout_ns = 10 * NS_PER_S,
        .stuck_timeout_ns = 60 * NS_PER_S,
        .drain_timeout_ns = 10 * NS_PER_S,
    };
}

static int
check_options(const struct nbd_server_options *options, struct error *error)
{
    const struct nbd_server_limits *limits = &options->limits;

    ASSERT(options->reactor_count > 0 && options->manager != NULL);
    if (options->listen_count == 0) {
        return error_set(error, -EINVAL, "The NBD server has no address to listen on");
    }
    if (limits->connections_max == 0 || limits->slots_max == 0 ||
        limits->bytes_in_flight_max < NBD_PAYLOAD_BYTES_MAX || limits->handshake_timeout_ns == 0) {
        return error_set(error, -EINVAL,
                         "NBD limits: at least one connection and one slot, at least %d MiB in "
                         "flight, and some time for the handshake are needed",
                         NBD_PAYLOAD_BYTES_MAX >> 20);
    }
    return 0;
}

static char *
copy_text(const char *text)
{
    char *copy = text == NULL ? NULL : strdup(text);

    ASSERT(text == NULL || copy != NULL);
    return copy;
}

static void
copy_tls_options(struct nbd_tls_options *to, const struct nbd_tls_options *from)
{
    to->ca_file = copy_text(from->ca_file);
    to->crl_file = copy_text(from->crl_file);
    to->certificate_file = copy_text(from->certificate_file);
    to->key_file = copy_text(from->key_file);
    to->psk_file = copy_text(from->psk_file);
    to->priority = copy_text(from->priority);
    to->verify_client = from->verify_client;
}

static void
free_tls_options(struct nbd_tls_options *options)
{
    free((void *)(uintptr_t)options->ca_file);
    free((void *)(uintptr_t)options->crl_file);
    free((void *)(uintptr_t)options->certificate_file);
    free((void *)(uintptr_t)options->key_file);
    free((void *)(uintptr_t)options->psk_file);
    free((void *)(uintptr_t)options->priority);
}

static int
open_listeners(struct nbd_server *server, const struct nbd_server_options *options,
               struct error *error)
{
    struct platform *platform = reactor_platform(server->acceptor);

    for (uint32_t i = 0; i < options->listen_count; i++) {
        const struct nbd_listen *listen = &options->listens[i];
        struct nbd_listener *listener = &server->listeners[i];
        listener->server = server;
        listener->tls = listen->tls;
        int rc = platform->ops->socket_listen(platform, listen->address,
                                              listen->mode != 0 ? listen->mode
                                                                : SOCKET_MODE_DEFAULT,
                                              &listener->socket, listener->bound, error);
        if (rc < 0) {
            return rc;
        }
        server->listener_count++;
    }
    return 0;
}

static int
open_shards(struct nbd_server *server, const struct nbd_server_options *options, bool tls,
            struct error *error)
{
    for (uint32_t i = 0; i < options->reactor_count; i++) {
        struct nbd_shard *shard = &server->shards[i];
        shard->server = server;
        shard->reactor = options->reactors[i];
        list_init(&shard->connections);
        list_init(&shard->slabs);
        server->shard_count++;
        ASSERT(reactor_buffer_pool(shard->reactor) != NULL);
        if (tls && (shard->scratch = malloc(NBD_TLS_RECORD_BYTES)) == NULL) {
            return error_set(error, -ENOMEM, "Out of memory");
        }
    }
    return 0;
}

static bool
any_tls(const struct nbd_server_options *options)
{
    for (uint32_t i = 0; i < options->listen_count; i++) {
        if (options->listens[i].tls != NBD_TLS_OFF) {
            return true;
        }
    }
    return false;
}

int
nbd_server_create(const struct nbd_server_options *options, struct nbd_server **ret_server,
                  struct error *error)
{
    bool tls = any_tls(options);
    int rc = check_options(options, error);

    if (rc < 0) {
        return rc;
    }
    struct nbd_server *server = calloc(1, sizeof(*server));
    ASSERT(server != NULL);
    server->manager = options->manager;
    server->acceptor = options->reactors[0];
    server->limits = options->limits;
    server->shards = calloc(options->reactor_count, sizeof(*server->shards));
    server->listeners = calloc(options->listen_count, sizeof(*server->listeners));
    ASSERT(server->shards != NULL && server->listeners != NULL);
    copy_tls_options(&server->tls_options, &options->tls);
    rc = open_shards(server, options, tls, error);
    if (rc == 0 && tls) {
        rc = nbd_tls_credentials_load(&server->tls_options, &server->credentials, error);
    }
    if (rc == 0) {
        rc = open_listeners(server, options, error);
    }
    if (rc < 0) {
        nbd_server_destroy(server);
        return rc;
    }
    *ret_server = server;
    return 0;
}

void
nbd_server_destroy(struct nbd_server *server)
{
    ASSERT(!server->started || server->stopped);
    for (uint32_t i = 0; i < server->listener_count; i++) {
        if (server->listeners[i].socket != NULL) {
            close_listener(&server->listeners[i]);
        }
    }
    for (uint32_t i = 0; i < server->shard_count; i++) {
        free(server->shards[i].scratch);
    }
    if (server->credentials != NULL) {
        nbd_tls_credentials_release(server->credentials);
    }
    free_tls_options(&server->tls_options);
    free(server->listeners);
    free(server->shards);
    free(server);
}

int
nbd_server_reload_tls(struct nbd_server *server, struct error *error)
{
    struct nbd_tls_credentials *fresh;

    ASSERT_ON_REACTOR(server->acceptor);
    if (server->credentials == NULL) {
        return error_set(error, -EINVAL, "No address of the NBD server offers TLS");
    }
    int rc = nbd_tls_credentials_load(&server->tls_options, &fresh, error);
    if (rc == 0) {
        nbd_tls_credentials_release(server->credentials);
        server->credentials = fresh;
    }
    return rc;
}

/* ---- reports ---- */

const char *
nbd_server_bound_address(const struct nbd_server *server, uint32_t index)
{
    ASSERT_OP(index, <, server->listener_count);
    return server->listeners[index].bound;
}

void
nbd_server_statistics(const struct nbd_server *server,
                      struct nbd_server_statistics *ret_statistics)
{
    uint64_t *sums = (uint64_t *)ret_statistics;
    _Static_assert(sizeof(*ret_statistics) % sizeof(uint64_t) == 0, "counters only");

    memset(ret_statistics, 0, sizeof(*ret_statistics));
    for (uint32_t i = 0; i < server->shard_count; i++) {
        const uint64_t *counters = (const uint64_t *)&server->shards[i].statistics;
        for (size_t k = 0; k < sizeof(*ret_statistics) / sizeof(uint64_t); k++) {
            sums[k] += __atomic_load_n(&counters[k], __ATOMIC_RELAXED);
        }
    }
}
