/* SPDX-License-Identifier: Apache-2.0 */
/* An echo server of product code and clients of the test. */
#include <errno.h>

#include "base/error.h"
#include "tests/sim/sim_socket.h"
#include "tests/unit/sim/rig.h"

enum {
    ECHO_BYTES = 3000
};

struct echo {
    struct sim *sim;
    struct platform *platform;
    struct reactor *reactor;
    struct platform_socket *listener;
    struct platform_socket *socket;
    struct socket_accept accept;
    struct socket_io receive;
    struct socket_io send;
    struct iovec receive_iov[2];
    struct iovec send_iov[2];
    uint8_t buffer[ECHO_BYTES];
    bool mute; /* receives, answers nothing */
    bool deaf; /* does not receive */
    int32_t accept_result;
    int32_t last_receive;
    int32_t last_send;
    uint64_t received_bytes;
    uint32_t idle; /* ops that have ended and were not started again */
};

static void echo_receive(struct echo *echo);

static void
echo_sent(struct io_op *op)
{
    struct echo *echo = container_of(op, struct echo, send.op);
    echo->last_send = op->result;
    if (op->result < 0) {
        echo->idle++;
        return;
    }
    assert_int_equal(op->result, echo->last_receive);
    echo_receive(echo);
}

static void
echo_received(struct io_op *op)
{
    struct echo *echo = container_of(op, struct echo, receive.op);
    echo->last_receive = op->result;
    if (op->result <= 0) {
        echo->idle++;
        return;
    }
    echo->received_bytes += (uint64_t)op->result;
    if (echo->mute) {
        echo_receive(echo);
        return;
    }
    size_t first = (size_t)op->result / 3;
    echo->send_iov[0] = (struct iovec){ echo->buffer, first };
    echo->send_iov[1] = (struct iovec){ echo->buffer + first, (size_t)op->result - first };
    echo->send = (struct socket_io){ .op = { .done = echo_sent },
                                     .socket = echo->socket,
                                     .iov = echo->send_iov,
                                     .iov_count = 2 };
    echo->platform->ops->socket_send(reactor_engine(echo->reactor), &echo->send);
}

static void
echo_receive(struct echo *echo)
{
    echo->receive_iov[0] = (struct iovec){ echo->buffer, 100 };
    echo->receive_iov[1] = (struct iovec){ echo->buffer + 100, ECHO_BYTES - 100 };
    echo->receive = (struct socket_io){ .op = { .done = echo_received },
                                        .socket = echo->socket,
                                        .iov = echo->receive_iov,
                                        .iov_count = 2 };
    echo->platform->ops->socket_receive(reactor_engine(echo->reactor), &echo->receive);
}

static void
echo_accepted(struct io_op *op)
{
    struct echo *echo = container_of(op, struct echo, accept.op);
    echo->accept_result = op->result;
    if (op->result == 0) {
        echo->socket = echo->accept.ret_socket;
        assert_true(strlen(echo->accept.ret_peer) > 0);
        if (!echo->deaf) {
            echo_receive(echo);
        }
    }
}

static void
echo_start(struct echo *echo, uint64_t seed, const struct sim_network *network,
           char ret_address[static SOCKET_ADDRESS_SIZE])
{
    *echo = (struct echo){ .sim = sim_create(&(struct sim_options){ .seed = seed }),
                           .accept_result = 1 };
    sim_set_network(echo->sim, network);
    echo->platform = sim_platform(echo->sim);
    echo->reactor = rig_start_reactor(echo->sim, 0);
    const struct platform_ops *ops = echo->platform->ops;
    assert_int_equal(ops->socket_listen(echo->platform, "tcp:127.0.0.1:0", 0600, &echo->listener,
                                        ret_address, NULL),
                     0);
    echo->accept =
        (struct socket_accept){ .op = { .done = echo_accepted }, .listener = echo->listener };
    ops->socket_accept(reactor_engine(echo->reactor), &echo->accept);
}

static void
echo_stop(struct echo *echo)
{
    const struct platform_ops *ops = echo->platform->ops;
    if (echo->socket != NULL) {
        ops->socket_shutdown(reactor_engine(echo->reactor), echo->socket);
    }
    ops->socket_shutdown(reactor_engine(echo->reactor), echo->listener);
    assert_int_equal(sim_quiesce(echo->sim, NS_PER_S), 0);
    if (echo->socket != NULL) {
        ops->socket_close(echo->socket);
    }
    ops->socket_close(echo->listener);
    sim_process_enter(echo->sim);
    reactor_destroy(echo->reactor);
    sim_process_leave(echo->sim);
    assert_int_equal(sim_process_blocks(echo->sim), 0);
    sim_destroy(echo->sim);
}

static const struct sim_network usual = { 0 };

/* All bytes come back in order, however they were cut; returns the trace. */
static uint64_t
echo_run(uint64_t seed)
{
    struct echo echo;
    struct sim_client *client;
    char address[SOCKET_ADDRESS_SIZE];
    uint8_t sent[50000];
    size_t got = 0;

    echo_start(&echo, seed, &(struct sim_network){ .window_bytes = 4096 }, address);
    assert_int_equal(sim_connect(echo.sim, address, &client), 0);
    for (size_t i = 0; i < sizeof(sent); i++) {
        sent[i] = (uint8_t)(i * 31 + i / 256);
    }
    sim_client_send(client, sent, sizeof(sent));
    for (int i = 0; i < 100000 && got < sizeof(sent); i++) {
        const uint8_t *data;
        assert_true(sim_step(echo.sim));
        size_t length = sim_client_received(client, &data);
        assert_in_range(length, 0, 4096);
        if (length > 0) {
            assert_memory_equal(data, sent + got, length);
        }
        sim_client_consume(client, length);
        got += length;
    }
    assert_int_equal(got, sizeof(sent));
    assert_int_equal(sim_client_unsent(client), 0);

    /* Half-close: the server sees the end. */
    sim_client_shutdown(client);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(echo.last_receive, 0);
    assert_int_equal(echo.idle, 1);
    assert_false(sim_client_at_end(client));
    uint64_t trace = sim_trace_hash(echo.sim);
    sim_client_close(client, false);
    echo_stop(&echo);
    return trace;
}

static void
bytes_come_back_in_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 10; seed++) {
        assert_int_equal(echo_run(seed), echo_run(seed));
    }
    assert_int_not_equal(echo_run(1), echo_run(2));
}

static void
nobody_listens(void **state)
{
    (void)state;
    struct echo echo;
    struct sim_client *client;
    struct platform_socket *listener;
    char address[SOCKET_ADDRESS_SIZE];
    char second[SOCKET_ADDRESS_SIZE];
    struct error error = { 0 };
    echo_start(&echo, 1, &usual, address);
    const struct platform_ops *ops = echo.platform->ops;
    assert_int_equal(sim_connect(echo.sim, "tcp:127.0.0.1:1", &client), -ECONNREFUSED);
    assert_int_equal(ops->socket_listen(echo.platform, address, 0, &listener, second, &error),
                     -EADDRINUSE);
    assert_int_equal(error.code, -EADDRINUSE);
    assert_int_equal(ops->socket_listen(echo.platform, "nonsense", 0, &listener, second, NULL),
                     -EINVAL);
    assert_int_equal(ops->socket_listen(echo.platform, "unix:/run/x", 0, &listener, second, NULL),
                     0);
    assert_string_equal(second, "unix:/run/x");
    ops->socket_close(listener);
    assert_int_equal(sim_connect(echo.sim, "unix:/run/x", &client), -ECONNREFUSED);
    echo_stop(&echo);
}

/* A client that does not read stops the server's send, and nothing else. */
static void
window_is_limited(void **state)
{
    (void)state;
    struct echo echo;
    struct sim_client *client;
    const uint8_t *data;
    char address[SOCKET_ADDRESS_SIZE];
    uint8_t bytes[20000] = { 0 };
    echo_start(&echo, 2, &(struct sim_network){ .window_bytes = 1000 }, address);
    assert_int_equal(sim_connect(echo.sim, address, &client), 0);
    sim_client_send(client, bytes, sizeof(bytes));
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(sim_client_received(client, &data), 1000);
    assert_in_range(sim_client_unsent(client), 20000 - 1000 - 1000 - ECHO_BYTES, 20000 - 1000);
    sim_client_consume(client, 400);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(sim_client_received(client, &data), 1000);
    sim_client_close(client, false);
    echo_stop(&echo);
}

static void
resets_reach_the_other_side(void **state)
{
    (void)state;
    struct echo echo;
    struct sim_client *client;
    char address[SOCKET_ADDRESS_SIZE];
    echo_start(&echo, 3, &usual, address);
    assert_int_equal(sim_connect(echo.sim, address, &client), 0);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(echo.accept_result, 0);
    sim_client_close(client, true);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(echo.last_receive, -ECONNRESET);
    echo_stop(&echo);

    /* By chance: every run ends in a reset when each piece risks one. */
    echo_start(&echo, 4, &(struct sim_network){ .reset_chance_per_million = 1000000 }, address);
    assert_int_equal(sim_connect(echo.sim, address, &client), 0);
    sim_client_send(client, "hello", 5);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_true(sim_client_was_reset(client));
    assert_true(sim_client_at_end(client));
    assert_int_equal(echo.last_receive, -ECONNRESET);
    sim_client_close(client, false);
    echo_stop(&echo);
}

static void
partition_holds_everything(void **state)
{
    (void)state;
    struct echo echo;
    struct sim_client *client;
    const uint8_t *data;
    char address[SOCKET_ADDRESS_SIZE];
    echo_start(&echo, 5, &usual, address);
    assert_int_equal(sim_connect(echo.sim, address, &client), 0);
    sim_hold_network(echo.sim, true);
    sim_client_send(client, "hello", 5);
    assert_int_equal(sim_run_for(echo.sim, NS_PER_S), 0);
    assert_int_equal(sim_client_received(client, &data), 0);
    sim_hold_network(echo.sim, false);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(sim_client_received(client, &data), 5);
    sim_client_close(client, false);
    echo_stop(&echo);
}

static void
shutdown_ends_what_waits(void **state)
{
    (void)state;
    bool seen_quiet = false;
    bool seen_cancelled = false;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct echo echo;
        struct sim_client *client;
        char address[SOCKET_ADDRESS_SIZE];
        echo_start(&echo, seed, &usual, address);
        assert_int_equal(sim_connect(echo.sim, address, &client), 0);
        assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
        echo.platform->ops->socket_shutdown(reactor_engine(echo.reactor), echo.socket);
        assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
        assert_int_equal(echo.idle, 1);
        seen_quiet |= echo.last_receive == 0;
        seen_cancelled |= echo.last_receive == -ECANCELED;
        assert_true(sim_client_at_end(client));
        assert_false(sim_client_was_reset(client));
        sim_client_close(client, false);
        echo_stop(&echo);
    }
    assert_true(seen_quiet && seen_cancelled);
}

static void
send_to_one_who_left_fails(void **state)
{
    (void)state;
    struct echo echo;
    struct sim_client *client;
    char address[SOCKET_ADDRESS_SIZE];
    uint8_t bytes[100] = { 0 };
    echo_start(&echo, 6, &(struct sim_network){ .window_bytes = 10, .whole = true }, address);
    assert_int_equal(sim_connect(echo.sim, address, &client), 0);
    sim_client_send(client, bytes, sizeof(bytes));
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    sim_client_close(client, false);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(echo.last_send, -EPIPE);
    echo_stop(&echo);
}

static void
listener_that_ends_cancels_its_accept(void **state)
{
    (void)state;
    struct echo echo;
    struct sim_client *waiting;
    char address[SOCKET_ADDRESS_SIZE];
    echo_start(&echo, 7, &usual, address);
    echo.platform->ops->socket_shutdown(reactor_engine(echo.reactor), echo.listener);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    assert_int_equal(echo.accept_result, -ECANCELED);
    assert_int_equal(sim_connect(echo.sim, address, &waiting), -ECONNREFUSED);
    echo_stop(&echo);

    /* Who waited in the backlog is reset. */
    echo_start(&echo, 8, &usual, address);
    struct sim_client *first;
    assert_int_equal(sim_connect(echo.sim, address, &first), 0);
    assert_int_equal(sim_connect(echo.sim, address, &waiting), 0);
    assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
    echo_stop(&echo); /* frees the clients too */
}

static void
death_of_the_process_ends_connections(void **state)
{
    (void)state;
    for (int power = 0; power <= 1; power++) {
        struct echo echo;
        struct sim_client *client;
        const uint8_t *data;
        char address[SOCKET_ADDRESS_SIZE];
        echo_start(&echo, 9, &usual, address);
        assert_int_equal(sim_connect(echo.sim, address, &client), 0);
        sim_client_send(client, "hello", 5);
        assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
        assert_int_equal(sim_client_received(client, &data), 5);
        if (power) {
            sim_power_cut(echo.sim, &(struct sim_cut){ .seed = 1 });
            assert_true(sim_client_was_reset(client));
        } else {
            sim_kill(echo.sim);
            assert_int_equal(sim_client_received(client, &data), 5); /* it has arrived */
            sim_client_consume(client, 5);
            assert_false(sim_client_was_reset(client));
        }
        assert_true(sim_client_at_end(client));
        sim_client_send(client, "again", 5);
        assert_int_equal(sim_quiesce(echo.sim, NS_PER_S), 0);
        assert_true(sim_client_was_reset(client));
        sim_client_close(client, false);
        sim_destroy(echo.sim);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_in_order),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(window_is_limited),
        cmocka_unit_test(resets_reach_the_other_side),
        cmocka_unit_test(partition_holds_everything),
        cmocka_unit_test(shutdown_ends_what_waits),
        cmocka_unit_test(send_to_one_who_left_fails),
        cmocka_unit_test(listener_that_ends_cancels_its_accept),
        cmocka_unit_test(death_of_the_process_ends_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
