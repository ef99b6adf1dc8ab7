/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: two pipes each, the product at one end, a client of the test at the other. One event
 * per connection moves bytes; it is scheduled whenever something could move.
 */
#include "tests/sim/sim_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"

enum {
    WINDOW_BYTES_DEFAULT = 64 << 10,
    PORT_FIRST = 20000,
};

/* First in, first out. */
struct byte_queue {
    uint8_t *data;
    size_t begin;
    size_t end;
    size_t capacity;
};

/* Ops of the product that wait, by ready_next. */
struct op_queue {
    struct io_op *first;
    struct io_op *last;
};

struct sim_connection {
    struct sim_event event;
    struct list link; /* sim.connections */
    struct sim *sim;
    uint64_t number;
    struct platform_socket *server;   /* NULL: not accepted yet, or closed */
    struct platform_socket *listener; /* while in its backlog */
    struct sim_client *client;        /* NULL: closed */
    struct byte_queue to_server;
    struct byte_queue to_client;
    bool client_done; /* sends no more once its outgoing queue is empty */
    bool server_done;
    bool reset;
};

struct sim_client {
    struct sim_connection *connection;
    struct byte_queue outgoing;
};

struct platform_socket {
    struct list link; /* sim.sockets */
    struct sim *sim;
    bool is_listener;
    bool shut_down;
    char address[SOCKET_ADDRESS_SIZE];
    struct io_engine *engine; /* of what waits here */
    struct op_queue accepts;  /* listener */
    struct sim_connection *connection;
    struct op_queue receives;
    struct op_queue sends;
    size_t sent_bytes; /* of the first of sends */
};

/* ---- queues ---- */

static size_t
queue_length(const struct byte_queue *queue)
{
    return queue->end - queue->begin;
}

static void
queue_append(struct byte_queue *queue, const void *data, size_t length_bytes)
{
    if (length_bytes == 0) {
        return;
    }
    if (queue->end + length_bytes > queue->capacity) {
        size_t length = queue_length(queue);
        if (length > 0) {
            memmove(queue->data, queue->data + queue->begin, length);
        }
        queue->begin = 0;
        queue->end = length;
        if (length + length_bytes > queue->capacity) {
            queue->capacity = 2 * (length + length_bytes);
            queue->data = sim_resize(queue->data, queue->capacity);
        }
    }
    memcpy(queue->data + queue->end, data, length_bytes);
    queue->end += length_bytes;
}

static void
queue_consume(struct byte_queue *queue, size_t length_bytes)
{
    ASSERT_OP(length_bytes, <=, queue_length(queue));
    queue->begin += length_bytes;
}

static void
queue_free(struct byte_queue *queue)
{
    sim_release(queue->data);
    *queue = (struct byte_queue){ 0 };
}

static void
ops_push(struct op_queue *queue, struct io_op *op)
{
    op->ready_next = NULL;
    if (queue->last != NULL) {
        queue->last->ready_next = op;
    } else {
        queue->first = op;
    }
    queue->last = op;
}

static struct io_op *
ops_pop(struct op_queue *queue)
{
    struct io_op *op = queue->first;
    if (op != NULL) {
        queue->first = op->ready_next;
        if (queue->first == NULL) {
            queue->last = NULL;
        }
    }
    return op;
}

static void
ops_fail(struct platform_socket *socket, struct op_queue *queue, int32_t result)
{
    struct io_op *op;
    while ((op = ops_pop(queue)) != NULL) {
        sim_engine_complete(socket->engine, op, result);
    }
}

/* ---- moving bytes ---- */

static void connection_fire(struct sim *sim, struct sim_event *event);

static void
connection_kick(struct sim_connection *connection)
{
    struct sim *sim = connection->sim;
    if (connection->event.slot == 0 && !sim->network_held) {
        uint64_t delay_ns = sim_between(sim, SIM_STREAM_SOCKET, sim->network.delay_ns_min,
                                        sim->network.delay_ns_max);
        sim_schedule(sim, &connection->event, sim->now_ns + delay_ns, connection_fire);
    }
}

static void
connection_free_if_left(struct sim_connection *connection)
{
    if (connection->server != NULL || connection->client != NULL || connection->listener != NULL) {
        return;
    }
    sim_unschedule(connection->sim, &connection->event);
    list_remove(&connection->link);
    queue_free(&connection->to_server);
    queue_free(&connection->to_client);
    sim_release(connection);
}

static void
connection_reset(struct sim_connection *connection)
{
    connection->reset = true;
    queue_consume(&connection->to_server, queue_length(&connection->to_server));
    queue_consume(&connection->to_client, queue_length(&connection->to_client));
    connection_kick(connection);
}

/* How many of up to `limit` bytes go at once; 0 only for 0. */
static size_t
piece(struct sim *sim, size_t limit)
{
    if (limit == 0 || sim->network.whole ||
        random_chance(sim_stream(sim, SIM_STREAM_SOCKET), 1, 2)) {
        return limit;
    }
    return 1 + random_below(sim_stream(sim, SIM_STREAM_SOCKET), limit);
}

static size_t
window_left(const struct sim *sim, const struct byte_queue *queue)
{
    size_t length = queue_length(queue);
    return length >= sim->network.window_bytes ? 0 : sim->network.window_bytes - length;
}

static bool
client_to_wire(struct sim_connection *connection)
{
    struct sim *sim = connection->sim;
    struct sim_client *client = connection->client;
    if (client == NULL) {
        return false;
    }
    if (connection->server == NULL && connection->listener == NULL) {
        if (queue_length(&client->outgoing) > 0) {
            connection_reset(connection); /* bytes for a socket that is closed */
        }
        return false;
    }
    size_t length =
        piece(sim, MIN(queue_length(&client->outgoing), window_left(sim, &connection->to_server)));
    if (connection->server != NULL && connection->server->shut_down) {
        length = queue_length(&client->outgoing);
        queue_consume(&client->outgoing, length); /* nobody will read it */
        return false;
    }
    if (length > 0) {
        queue_append(&connection->to_server, client->outgoing.data + client->outgoing.begin,
                     length);
        queue_consume(&client->outgoing, length);
    }
    return length > 0;
}

static bool
wire_to_product(struct sim_connection *connection)
{
    struct platform_socket *socket = connection->server;
    if (socket == NULL || socket->receives.first == NULL) {
        return false;
    }
    struct socket_io *io = container_of(socket->receives.first, struct socket_io, op);
    size_t room = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        room += io->iov[i].iov_len;
    }
    size_t available = queue_length(&connection->to_server);
    bool at_end = available == 0 && connection->client_done &&
                  (connection->client == NULL || queue_length(&connection->client->outgoing) == 0);
    if (available == 0 && !at_end) {
        return false;
    }
    size_t length = piece(connection->sim, MIN(room, available));
    size_t done = 0;
    for (uint32_t i = 0; i < io->iov_count && done < length; i++) {
        size_t part = MIN(io->iov[i].iov_len, length - done);
        memcpy(io->iov[i].iov_base, connection->to_server.data + connection->to_server.begin + done,
               part);
        done += part;
    }
    queue_consume(&connection->to_server, length);
    (void)ops_pop(&socket->receives);
    sim_trace(connection->sim, SIM_TRACE_SOCKET, connection->number, 1, length, 0);
    sim_engine_complete(socket->engine, &io->op, (int32_t)length);
    return true;
}

static bool
product_to_wire(struct sim_connection *connection)
{
    struct platform_socket *socket = connection->server;
    if (socket == NULL || socket->sends.first == NULL) {
        return false;
    }
    struct socket_io *io = container_of(socket->sends.first, struct socket_io, op);
    if (connection->client == NULL) {
        ops_fail(socket, &socket->sends, -EPIPE);
        socket->sent_bytes = 0;
        return true;
    }
    size_t total = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        total += io->iov[i].iov_len;
    }
    size_t length =
        piece(connection->sim, MIN(total - socket->sent_bytes,
                                   window_left(connection->sim, &connection->to_client)));
    size_t skip = socket->sent_bytes;
    size_t left = length;
    for (uint32_t i = 0; i < io->iov_count && left > 0; i++) {
        size_t behind = MIN(skip, io->iov[i].iov_len);
        size_t part = MIN(io->iov[i].iov_len - behind, left);
        queue_append(&connection->to_client, (const uint8_t *)io->iov[i].iov_base + behind, part);
        skip -= behind;
        left -= part;
    }
    socket->sent_bytes += length;
    sim_trace(connection->sim, SIM_TRACE_SOCKET, connection->number, 2, length, 0);
    if (socket->sent_bytes == total) {
        (void)ops_pop(&socket->sends);
        socket->sent_bytes = 0;
        sim_engine_complete(socket->engine, &io->op, (int32_t)total);
        return true;
    }
    return length > 0;
}

static void
connection_fire(struct sim *sim, struct sim_event *event)
{
    struct sim_connection *connection = container_of(event, struct sim_connection, event);
    struct platform_socket *socket = connection->server;

    if (sim->network_held) {
        return; /* kicked again afterwards */
    }
    if (!connection->reset && sim->network.reset_chance_per_million > 0 &&
        random_chance(sim_stream(sim, SIM_STREAM_SOCKET), sim->network.reset_chance_per_million,
                      1000000)) {
        sim_trace(sim, SIM_TRACE_SOCKET, connection->number, 3, 0, 0);
        connection_reset(connection);
    }
    if (connection->reset) {
        if (socket != NULL) {
            ops_fail(socket, &socket->receives, -ECONNRESET);
            ops_fail(socket, &socket->sends, -ECONNRESET);
        }
        return;
    }
    bool moved = product_to_wire(connection);
    moved |= client_to_wire(connection);
    moved |= wire_to_product(connection);
    if (moved) {
        connection_kick(connection);
    }
}

void
sim_set_network(struct sim *sim, const struct sim_network *network)
{
    sim->network = *network;
    if (network->delay_ns_max == 0) {
        sim->network.delay_ns_min = NS_PER_US;
        sim->network.delay_ns_max = 50 * NS_PER_US;
    }
    if (network->window_bytes == 0) {
        sim->network.window_bytes = WINDOW_BYTES_DEFAULT;
    }
}

void
sim_hold_network(struct sim *sim, bool held)
{
    sim->network_held = held;
    if (!held) {
        list_for_each(&sim->connections, node) {
            connection_kick(list_entry(node, struct sim_connection, link));
        }
    }
}

/* ---- the product's side ---- */

static struct platform_socket *
socket_make(struct sim *sim)
{
    struct platform_socket *socket = sim_allocate(sizeof(*socket));
    socket->sim = sim;
    list_push_back(&sim->sockets, &socket->link);
    return socket;
}

static struct platform_socket *
find_listener(struct sim *sim, const char *address)
{
    list_for_each(&sim->sockets, node) {
        struct platform_socket *socket = list_entry(node, struct platform_socket, link);
        if (socket->is_listener && !socket->shut_down && strcmp(socket->address, address) == 0) {
            return socket;
        }
    }
    return NULL;
}

int
sim_socket_listen(struct platform *platform, const char *address, uint32_t mode,
                  struct platform_socket **ret_listener, char ret_bound[static SOCKET_ADDRESS_SIZE],
                  struct error *error)
{
    struct sim *sim = sim_of(platform);
    char bound[SOCKET_ADDRESS_SIZE];
    (void)mode;

    size_t length = strlen(address);
    bool is_tcp = strncmp(address, "tcp:", 4) == 0;
    if ((!is_tcp && strncmp(address, "unix:/", 6) != 0) || length >= sizeof(bound) - 8) {
        return error_set(error, -EINVAL, "%s is no address to listen on", address);
    }
    memcpy(bound, address, length + 1);
    if (is_tcp && length >= 6 && strcmp(address + length - 2, ":0") == 0) {
        snprintf(bound + length - 1, sizeof(bound) - length + 1, "%u",
                 PORT_FIRST + sim->next_port++);
    }
    if (find_listener(sim, bound) != NULL) {
        return error_set(error, -EADDRINUSE, "%s is in use", bound);
    }
    struct platform_socket *socket = socket_make(sim);
    socket->is_listener = true;
    memcpy(socket->address, bound, sizeof(bound));
    memcpy(ret_bound, bound, sizeof(bound));
    *ret_listener = socket;
    return 0;
}

/* Connections that wait in the backlog meet accepts that wait. */
static void
match_accepts(struct platform_socket *listener)
{
    struct sim *sim = listener->sim;
    list_for_each(&sim->connections, node) {
        struct sim_connection *connection = list_entry(node, struct sim_connection, link);
        if (connection->listener != listener) {
            continue;
        }
        struct io_op *op = ops_pop(&listener->accepts);
        if (op == NULL) {
            return;
        }
        struct socket_accept *accept = container_of(op, struct socket_accept, op);
        struct platform_socket *socket = socket_make(sim);
        socket->connection = connection;
        connection->server = socket;
        connection->listener = NULL;
        accept->ret_socket = socket;
        snprintf(accept->ret_peer, sizeof(accept->ret_peer), "simulated client %llu",
                 (unsigned long long)connection->number);
        sim_engine_complete(listener->engine, op, 0);
    }
}

void
sim_socket_accept(struct io_engine *engine, struct socket_accept *accept)
{
    struct platform_socket *listener = accept->listener;
    ASSERT(listener->is_listener);
    sim_engine_take(engine, &accept->op);
    listener->engine = engine;
    if (listener->shut_down || listener->sim->stopped) {
        sim_engine_complete(engine, &accept->op, -ECANCELED);
        return;
    }
    ops_push(&listener->accepts, &accept->op);
    match_accepts(listener);
}

static void
start_io(struct io_engine *engine, struct socket_io *io, struct op_queue *queue)
{
    struct platform_socket *socket = io->socket;
    ASSERT(!socket->is_listener);
    sim_engine_take(engine, &io->op);
    socket->engine = engine;
    if (socket->shut_down || socket->sim->stopped) {
        int32_t result = io->is_send ? -EPIPE : 0;
        sim_engine_complete(engine, &io->op, result);
        return;
    }
    ops_push(queue, &io->op);
    connection_kick(socket->connection);
}

void
sim_socket_receive(struct io_engine *engine, struct socket_io *io)
{
    start_io(engine, io, &io->socket->receives);
}

void
sim_socket_send(struct io_engine *engine, struct socket_io *io)
{
    io->is_send = true;
    start_io(engine, io, &io->socket->sends);
}

void
sim_socket_shutdown(struct io_engine *engine, struct platform_socket *socket)
{
    (void)engine;
    socket->shut_down = true;
    ops_fail(socket, &socket->accepts, -ECANCELED);
    ops_fail(socket, &socket->sends, -EPIPE);
    socket->sent_bytes = 0;
    bool quiet = random_chance(sim_stream(socket->sim, SIM_STREAM_SOCKET), 1, 2);
    ops_fail(socket, &socket->receives, quiet ? 0 : -ECANCELED);
    if (socket->connection != NULL) {
        socket->connection->server_done = true;
    }
}

static void
backlog_reset(struct platform_socket *listener)
{
    list_for_each_safe(&listener->sim->connections, node) {
        struct sim_connection *connection = list_entry(node, struct sim_connection, link);
        if (connection->listener == listener) {
            connection_reset(connection);
            connection->listener = NULL;
            connection_free_if_left(connection);
        }
    }
}

static void
socket_free(struct platform_socket *socket)
{
    list_remove(&socket->link);
    sim_release(socket);
}

void
sim_socket_close(struct platform_socket *socket)
{
    struct sim_connection *connection = socket->connection;

    ASSERT(socket->accepts.first == NULL && socket->receives.first == NULL);
    ASSERT(socket->sends.first == NULL);
    if (socket->is_listener) {
        backlog_reset(socket);
    } else {
        connection->server = NULL;
        connection->server_done = true;
        if (queue_length(&connection->to_server) > 0) {
            connection_reset(connection); /* as TCP does when bytes were not read */
        }
        connection_free_if_left(connection);
    }
    socket_free(socket);
}

void
sim_socket_kill_all(struct sim *sim, bool reset)
{
    list_for_each_safe(&sim->sockets, node) {
        struct platform_socket *socket = list_entry(node, struct platform_socket, link);
        socket->accepts = (struct op_queue){ 0 };
        socket->receives = (struct op_queue){ 0 };
        socket->sends = (struct op_queue){ 0 };
        if (socket->connection != NULL && reset) {
            connection_reset(socket->connection);
        }
        sim_socket_close(socket);
    }
}

/* ---- the test's side ---- */

int
sim_connect(struct sim *sim, const char *address, struct sim_client **ret_client)
{
    struct platform_socket *listener = sim->stopped ? NULL : find_listener(sim, address);
    if (listener == NULL) {
        return -ECONNREFUSED;
    }
    struct sim_connection *connection = sim_allocate(sizeof(*connection));
    struct sim_client *client = sim_allocate(sizeof(*client));
    client->connection = connection;
    connection->client = client;
    connection->sim = sim;
    connection->number = ++sim->next_connection;
    connection->listener = listener;
    list_push_back(&sim->connections, &connection->link);
    match_accepts(listener);
    *ret_client = client;
    return 0;
}

void
sim_client_send(struct sim_client *client, const void *data, size_t length_bytes)
{
    ASSERT(!client->connection->client_done);
    queue_append(&client->outgoing, data, length_bytes);
    connection_kick(client->connection);
}

size_t
sim_client_unsent(const struct sim_client *client)
{
    return queue_length(&client->outgoing);
}

size_t
sim_client_received(const struct sim_client *client, const uint8_t **ret_data)
{
    const struct byte_queue *queue = &client->connection->to_client;
    *ret_data = queue->data == NULL ? NULL : queue->data + queue->begin;
    return queue_length(queue);
}

void
sim_client_consume(struct sim_client *client, size_t length_bytes)
{
    queue_consume(&client->connection->to_client, length_bytes);
    connection_kick(client->connection);
}

bool
sim_client_at_end(const struct sim_client *client)
{
    const struct sim_connection *connection = client->connection;
    return connection->reset ||
           (connection->server_done && queue_length(&connection->to_client) == 0);
}

bool
sim_client_was_reset(const struct sim_client *client)
{
    return client->connection->reset;
}

void
sim_client_shutdown(struct sim_client *client)
{
    client->connection->client_done = true;
    connection_kick(client->connection);
}

void
sim_client_close(struct sim_client *client, bool reset)
{
    struct sim_connection *connection = client->connection;
    /* What was sent before a close arrives; after a reset, nothing. */
    if (queue_length(&client->outgoing) > 0) {
        queue_append(&connection->to_server, client->outgoing.data + client->outgoing.begin,
                     queue_length(&client->outgoing));
    }
    connection->client_done = true;
    connection->client = NULL;
    queue_free(&client->outgoing);
    sim_release(client);
    if (reset) {
        connection_reset(connection);
    }
    connection_kick(connection);
    connection_free_if_left(connection);
}

void
sim_socket_free_all(struct sim *sim)
{
    list_for_each_safe(&sim->connections, node) {
        struct sim_connection *connection = list_entry(node, struct sim_connection, link);
        if (connection->client != NULL) {
            sim_client_close(connection->client, false);
        }
    }
}
