/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, time, dropping and stopping: what happens when clients or volumes misbehave. */
#include <errno.h>

#include "io/buffer_pool.h"
#include "tests/unit/nbd/rig.h"

static uint64_t
free_memory(const struct rig *rig)
{
    return buffer_pool_free_bytes(reactor_buffer_pool(rig->reactors[1]));
}

static void
slots_stop_the_reader(void **state)
{
    struct rig rig;
    struct rig_options options = rig_options_default();
    uint8_t zeroes[512] = { 0 };
    (void)state;
    options.limits.slots_max = 5;
    rig_start(&rig, &options);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    for (uint64_t i = 0; i < 50; i++) {
        rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, i, i * 512, 512);
    }
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->in_flight, 5);
    assert_int_equal(rig_statistics(&rig).stalls_slots, 1);
    fake_volume_hold(rig.disk, false);
    for (uint64_t i = 0; i < 50; i++) {
        rig_expect_data(&rig, client, RIG_SIMPLE, i, i * 512, zeroes, 512, NULL);
    }
    assert_int_equal(fake_volume_counters(rig.disk)->in_flight_max, 5);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
bytes_stop_the_reader(void **state)
{
    struct rig rig;
    enum { LENGTH = 10 << 20 };
    uint8_t *zeroes = calloc(1, LENGTH);
    (void)state;
    assert_non_null(zeroes);
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    for (uint64_t i = 0; i < 10; i++) {
        rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, i, i * LENGTH, LENGTH);
    }
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->in_flight, 3); /* of 32 MiB */
    assert_int_equal(rig_statistics(&rig).stalls_bytes, 1);
    fake_volume_hold(rig.disk, false);
    for (uint64_t i = 0; i < 10; i++) {
        rig_expect_data(&rig, client, RIG_SIMPLE, i, i * LENGTH, zeroes, LENGTH, NULL);
    }
    assert_int_equal(fake_volume_counters(rig.disk)->in_flight_max, 3);
    free(zeroes);
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* Several connections want more memory than there is: all get their turn. */
static void
memory_is_shared(void **state)
{
    struct rig rig;
    enum { CLIENTS = 8, LENGTH = 32 << 20 };
    struct rig_options options = rig_options_default();
    struct sim_client *clients[CLIENTS];
    uint8_t *data = malloc(LENGTH);
    (void)state;
    assert_non_null(data);
    options.pool_bytes = 64 << 20;
    rig_start(&rig, &options);
    uint64_t all = free_memory(&rig);
    rig_pattern(data, 0, LENGTH);
    memcpy(fake_volume_memory(rig.disk), data, LENGTH);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = rig_go(&rig, RIG_STRUCTURED, "pool/disk", NULL);
    }
    fake_volume_hold(rig.disk, true);
    for (int i = 0; i < CLIENTS; i++) {
        rig_request(clients[i], RIG_STRUCTURED, i % 2 == 0 ? NBD_CMD_READ : NBD_CMD_WRITE, 0, 1, 0,
                    LENGTH);
        if (i % 2 == 1) {
            rig_send(clients[i], data, LENGTH);
        }
    }
    rig_settle(&rig);
    assert_true(rig_statistics(&rig).stalls_memory >= CLIENTS - 2);
    fake_volume_hold(rig.disk, false);
    /* All of them take their replies as they come; a reader's has 28 bytes in front. */
    struct byte_buffer answers[CLIENTS] = { 0 };
    for (bool more = true; more;) {
        rig_settle(&rig);
        more = false;
        for (int i = 0; i < CLIENTS; i++) {
            const uint8_t *arrived;
            size_t length = sim_client_received(clients[i], &arrived);
            byte_buffer_append(&answers[i], arrived, length);
            sim_client_consume(clients[i], length);
            more = more || length > 0;
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(answers[i].length_bytes, i % 2 == 0 ? 28 + LENGTH : 16);
        if (i % 2 == 0) {
            assert_memory_equal(answers[i].data + 28, data, LENGTH);
        }
        byte_buffer_free(&answers[i]);
        sim_client_close(clients[i], false);
    }
    rig_settle(&rig);
    assert_int_equal(free_memory(&rig), all);
    free(data);
    rig_finish(&rig);
}

/* In line for memory and gone: whoever comes next is not held up. */
static void
leaving_the_line_for_memory(void **state)
{
    struct rig rig;
    enum { LENGTH = 32 << 20 };
    struct rig_options options = rig_options_default();
    (void)state;
    options.pool_bytes = 64 << 20;
    rig_start(&rig, &options);
    uint64_t all = free_memory(&rig);
    struct sim_client *clients[5];
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    }
    fake_volume_hold(rig.disk, true);
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        rig_request(clients[i], RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, LENGTH);
        rig_settle(&rig);
    }
    fake_volume_send_event(rig.disk, VOLUME_SESSION_DROP);
    rig_settle(&rig);
    uint32_t served = fake_volume_counters(rig.disk)->in_flight;
    assert_in_range(served, 1, 2);
    for (size_t i = served; i < ARRAY_SIZE(clients); i++) {
        rig_expect_end(&rig, clients[i]); /* had nothing in flight yet */
    }
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, served);
    fake_volume_hold(rig.disk, false);
    for (size_t i = 0; i < served; i++) {
        sim_client_close(clients[i], true);
    }
    rig_settle(&rig);
    assert_int_equal(free_memory(&rig), all);
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
    rig_finish(&rig);
}

/* Who announces payload and does not send it holds memory only as long as nobody wants it. */
static void
stuck_writer_is_cut_when_memory_is_short(void **state)
{
    struct rig rig;
    enum { LENGTH = 32 << 20 };
    struct rig_options options = rig_options_default();
    uint8_t *zeroes = calloc(1, LENGTH);
    (void)state;
    assert_non_null(zeroes);
    options.pool_bytes = 64 << 20;
    rig_start(&rig, &options);
    struct sim_client *stuck = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(stuck, RIG_SIMPLE, NBD_CMD_WRITE, 0, 1, 0, LENGTH);
    rig_send(stuck, "part", 4);
    rig_run_for(&rig, 300 * NS_PER_S);
    assert_int_equal(rig_statistics(&rig).stuck_closed, 0);
    struct sim_client *honest = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(honest, RIG_SIMPLE, NBD_CMD_READ, 0, 2, 0, LENGTH);
    rig_expect_data(&rig, honest, RIG_SIMPLE, 2, 0, zeroes, LENGTH, NULL);
    assert_true(rig_statistics(&rig).stuck_closed >= 1);
    assert_int_equal(fake_volume_counters(rig.disk)->requests[VOLUME_WRITE], 0);
    sim_client_close(stuck, false);
    sim_client_close(honest, false);
    free(zeroes);
    rig_finish(&rig);
}

static void
slow_reader_is_cut_when_memory_is_short(void **state)
{
    struct rig rig;
    enum { LENGTH = 32 << 20 };
    struct rig_options options = rig_options_default();
    uint8_t *zeroes = calloc(1, LENGTH);
    (void)state;
    assert_non_null(zeroes);
    options.pool_bytes = 64 << 20;
    rig_start(&rig, &options);
    struct sim_client *slow = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(slow, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, LENGTH);
    rig_run_for(&rig, 300 * NS_PER_S);
    assert_int_equal(rig_statistics(&rig).stuck_closed, 0);
    struct sim_client *honest = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(honest, RIG_SIMPLE, NBD_CMD_READ, 0, 2, 0, LENGTH);
    rig_expect_data(&rig, honest, RIG_SIMPLE, 2, 0, zeroes, LENGTH, NULL);
    assert_true(rig_statistics(&rig).stuck_closed >= 1);
    sim_client_close(slow, true);
    sim_client_close(honest, false);
    free(zeroes);
    rig_finish(&rig);
}

/* A reader that takes nothing is held up by its slots, others are not. */
static void
slow_reader_stops_itself(void **state)
{
    struct rig rig;
    static uint8_t zeroes[65536];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *slow = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    for (uint64_t i = 0; i < 1000; i++) {
        rig_request(slow, RIG_SIMPLE, NBD_CMD_READ, 0, i, 0, 65536);
    }
    rig_settle(&rig);
    assert_true(fake_volume_counters(rig.disk)->requests[VOLUME_READ] <= 128 + 8);
    struct sim_client *other = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(other, RIG_SIMPLE, NBD_CMD_READ, 0, 7, 0, 65536);
    rig_expect_data(&rig, other, RIG_SIMPLE, 7, 0, zeroes, 65536, NULL);
    for (uint64_t i = 0; i < 1000; i++) {
        rig_expect_data(&rig, slow, RIG_SIMPLE, i, 0, zeroes, 65536, NULL);
    }
    sim_client_close(slow, false);
    sim_client_close(other, false);
    rig_finish(&rig);
}

/* A request whose client vanished still holds its slot until the volume lets go (P9). */
static void
client_vanishes_with_requests_in_flight(void **state)
{
    struct rig rig;
    static uint8_t payload[100000];
    (void)state;
    rig_start_default(&rig);
    uint64_t all = free_memory(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, 1 << 20);
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 2, 0, sizeof(payload));
    rig_send(client, payload, sizeof(payload));
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 3, 0, sizeof(payload));
    rig_send(client, payload, 5000); /* never complete */
    rig_settle(&rig);
    sim_client_close(client, true);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).connections_open, 1);
    assert_int_equal(fake_volume_session(rig.disk)->in_flight, 2);
    assert_true(free_memory(&rig) < all);
    rig_run_for(&rig, 100 * NS_PER_S);
    assert_int_equal(fake_volume_counters(rig.disk)->in_flight, 2);
    fake_volume_hold(rig.disk, false);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).connections_open, 0);
    assert_int_equal(free_memory(&rig), all);
    assert_int_equal(fake_volume_counters(rig.disk)->requests[VOLUME_WRITE], 1);
    rig_finish(&rig);
}

/* The deadline answers the client; buffer and slot stay taken until release(). */
static void
volume_deadline(void **state)
{
    struct rig rig;
    uint8_t zeroes[4096] = { 0 };
    (void)state;
    rig_start_default(&rig);
    uint64_t all = free_memory(&rig);
    struct sim_client *client = rig_go(&rig, RIG_STRUCTURED, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_READ, 0, 1, 0, 4096);
    rig_settle(&rig);
    fake_volume_expire(rig.disk);
    rig_expect_error(&rig, client, RIG_STRUCTURED, 1, 0, NBD_EIO);
    assert_int_equal(free_memory(&rig), all - 4096);
    assert_int_equal(fake_volume_session(rig.disk)->in_flight, 1);
    fake_volume_hold(rig.disk, false);
    rig_settle(&rig);
    assert_int_equal(free_memory(&rig), all);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_READ, NBD_CMD_FLAG_DF, 2, 0, 4096);
    rig_expect_data(&rig, client, RIG_STRUCTURED, 2, 0, zeroes, 4096, NULL);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
drop_waits_for_release(void **state)
{
    struct rig rig;
    static uint8_t payload[4096];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    struct sim_client *idle = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 1, 0, sizeof(payload));
    rig_send(client, payload, sizeof(payload));
    rig_settle(&rig);
    fake_volume_send_event(rig.disk, VOLUME_SESSION_DROP);
    rig_expect_end(&rig, idle);
    rig_request(client, RIG_SIMPLE, NBD_CMD_TRIM, 0, 2, 0, 4096);
    rig_run_for(&rig, 60 * NS_PER_S);
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 1);
    fake_volume_hold(rig.disk, false);
    rig_expect_ok(&rig, client, RIG_SIMPLE, 1, 0);
    rig_expect_end(&rig, client);
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
    assert_int_equal(fake_volume_counters(rig.disk)->requests[VOLUME_DISCARD], 0);
    rig_finish(&rig);
}

/* Dropped while its GO is being answered, and while it does not read. */
static void
drop_at_odd_times(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, 32 << 20);
    rig_settle(&rig); /* replies fill the window */
    fake_volume_send_event(rig.disk, VOLUME_SESSION_DROP);
    rig_run_for(&rig, 5 * NS_PER_S);
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 1);
    rig_run_for(&rig, 10 * NS_PER_S); /* drain_timeout_ns */
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
    sim_client_close(client, false);
    client = rig_greet(&rig, RIG_ADDRESS);
    rig_settle(&rig);
    sim_hold_network(rig.sim, false);
    rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
    while (fake_volume_counters(rig.disk)->sessions == 0) {
        assert_true(sim_step(rig.sim));
    }
    fake_volume_send_event(rig.disk, VOLUME_SESSION_DROP);
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* What a burst needed goes back, in time. */
static void
spare_memory_goes_back(void **state)
{
    struct rig rig;
    struct sim_client *clients[8];
    uint8_t zeroes[512] = { 0 };
    (void)state;
    rig_start_default(&rig);
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    }
    for (int round = 0; round < 3; round++) {
        fake_volume_hold(rig.disk, true);
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            for (uint64_t k = 0; k < 100; k++) {
                rig_request(clients[i], RIG_SIMPLE, NBD_CMD_READ, 0, k, 0, 512);
            }
        }
        rig_settle(&rig);
        assert_int_equal(fake_volume_counters(rig.disk)->in_flight, 800);
        rig_run_for(&rig, 5 * NS_PER_S); /* nothing is trimmed that is in use */
        fake_volume_hold(rig.disk, false);
        for (uint64_t k = 0; k < 100; k++) {
            for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
                rig_expect_data(&rig, clients[i], RIG_SIMPLE, k, 0, zeroes, 512, NULL);
            }
        }
        rig_run_for(&rig, 5 * NS_PER_S);
    }
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        sim_client_close(clients[i], false);
    }
    rig_finish(&rig);
}

/* Closed for its own mistake or by force while it waits for memory. */
static void
cut_while_waiting_for_memory(void **state)
{
    struct rig rig;
    enum { LENGTH = 32 << 20 };
    struct rig_options options = rig_options_default();
    (void)state;
    options.pool_bytes = 64 << 20;
    rig_start(&rig, &options);
    uint64_t all = free_memory(&rig);
    struct sim_client *holder = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    struct sim_client *waiter = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    rig_request(holder, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, LENGTH);
    rig_settle(&rig);
    rig_request(waiter, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, LENGTH);
    rig_request(waiter, RIG_SIMPLE, NBD_CMD_READ, 0, 2, 0, LENGTH);
    rig_settle(&rig);
    rig_begin_stop(&rig, NS_PER_S);
    rig_run_for(&rig, 3 * NS_PER_S);
    assert_int_equal(rig.stop_result, -ETIMEDOUT); /* the holder's request hangs */
    rig_expect_end(&rig, waiter);
    fake_volume_hold(rig.disk, false);
    rig_settle(&rig);
    assert_int_equal(free_memory(&rig), all);
    sim_client_close(holder, false);
    rig.stop_result = 0;
    rig_finish(&rig);
}

/* A flood of mistakes is told of in a few lines. */
static void
log_lines_are_limited(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 60; i++) {
            struct sim_client *client = rig_connect(&rig);
            rig_send(client, "garbage!", 8);
            rig_settle(&rig);
            sim_client_close(client, false);
        }
        rig_run_for(&rig, 11 * NS_PER_S);
    }
    assert_int_equal(rig_statistics(&rig).protocol_errors, 120);
    rig_finish(&rig);
}

static void
limits_are_checked(void **state)
{
    struct rig rig;
    struct nbd_server_options options;
    struct nbd_server *server;
    const struct nbd_listen listens[] = { { "unix:/one", 0, NBD_TLS_OFF },
                                          { RIG_ADDRESS, 0, NBD_TLS_OFF } };
    (void)state;
    rig_start_default(&rig);
    for (int wrong = 0; wrong < 6; wrong++) {
        struct error error = { 0 };
        nbd_server_options_default(&options);
        options.reactors = rig.reactors;
        options.reactor_count = RIG_REACTORS;
        options.manager = rig.manager;
        options.listens = listens;
        options.listen_count = wrong == 0 ? 0 : wrong == 5 ? 2 : 1; /* 5: the second is taken */
        options.limits.connections_max *= wrong != 1;
        options.limits.slots_max *= wrong != 2;
        options.limits.bytes_in_flight_max -= wrong == 3;
        options.limits.handshake_timeout_ns *= wrong != 4;
        assert_true(nbd_server_create(&options, &server, &error) < 0);
        assert_true(error.message[0] != '\0');
    }
    struct error error = { 0 };
    options.listen_count = 1; /* the first was given back */
    assert_int_equal(nbd_server_create(&options, &server, &error), 0);
    assert_string_equal(nbd_server_bound_address(server, 0), "unix:/one");
    nbd_server_destroy(server); /* never started */
    rig_finish(&rig);
}

static void
idle_connections_are_closed_on_request(void **state)
{
    struct rig rig;
    struct rig_options options = rig_options_default();
    (void)state;
    options.limits.idle_timeout_ns = 30 * NS_PER_S;
    rig_start(&rig, &options);
    struct sim_client *idle = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    struct sim_client *busy = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    for (int i = 0; i < 4; i++) {
        rig_run_for(&rig, 10 * NS_PER_S);
        rig_request(busy, RIG_SIMPLE, NBD_CMD_FLUSH, 0, 1, 0, 0);
        rig_expect_ok(&rig, busy, RIG_SIMPLE, 1, 0);
    }
    rig_expect_end(&rig, idle);
    rig_request(busy, RIG_SIMPLE, NBD_CMD_FLUSH, 0, 1, 0, 0);
    rig_expect_ok(&rig, busy, RIG_SIMPLE, 1, 0);
    sim_client_close(busy, false);
    rig_finish(&rig);
}

/* An idle connection wakes up again with its memory trimmed. */
static void
idle_memory_comes_back(void **state)
{
    struct rig rig;
    static uint8_t data[200000];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    for (int i = 0; i < 5; i++) {
        rig_pattern(data, (uint64_t)i, sizeof(data));
        for (uint64_t k = 0; k < 40; k++) {
            rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, k, k * 4096, 4096);
            rig_send(client, data + k * 4096, 4096);
        }
        for (uint64_t k = 0; k < 40; k++) {
            rig_expect_ok(&rig, client, RIG_SIMPLE, k, 0);
        }
        assert_memory_equal(fake_volume_memory(rig.disk), data, 40 * 4096);
        rig_run_for(&rig, 20 * NS_PER_S);
    }
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* A deep client makes the server gather; drop and stop find it waiting. */
static void
deep_queue_is_gathered(void **state)
{
    uint8_t zeroes[512] = { 0 };
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct rig rig;
        rig_start_default(&rig);
        sim_set_network(rig.sim, &(struct sim_network){ .whole = true, .delay_ns_min = 500,
                                                        .delay_ns_max = 2000 });
        struct sim_client *client = rig_go(&rig, RIG_STRUCTURED, "pool/disk", NULL);
        uint64_t sent = 0;
        for (; sent < 64; sent++) {
            rig_request(client, RIG_STRUCTURED, NBD_CMD_READ, NBD_CMD_FLAG_DF, sent, 0, 512);
        }
        for (uint64_t i = 0; i < 5000; i++) {
            rig_run_for(&rig, 4 * NS_PER_US); /* it takes the client this long to do one */
            rig_expect_data(&rig, client, RIG_STRUCTURED, i, 0, zeroes, 512, NULL);
            rig_request(client, RIG_STRUCTURED, NBD_CMD_READ, NBD_CMD_FLAG_DF, sent++, 0, 512);
        }
        struct nbd_server_statistics statistics = rig_statistics(&rig);
        assert_true(statistics.gathers > 100);
        assert_true(statistics.requests > 3 * statistics.receives);
        if (way == 1) {
            fake_volume_send_event(rig.disk, VOLUME_SESSION_DROP);
        } else if (way == 2) {
            rig_begin_stop(&rig, 5 * NS_PER_S);
        }
        if (way != 0) {
            rig_run_for(&rig, 10 * NS_PER_US);
        }
        sim_client_close(client, way == 1);
        rig_settle(&rig);
        rig_finish(&rig);
    }
}

static void
stop_lets_requests_end(void **state)
{
    struct rig rig;
    static uint8_t payload[4096];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    struct sim_client *idle = rig_go(&rig, RIG_EXTENDED, "pool/ro", NULL);
    struct sim_client *greeted = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *asking = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *listing = rig_greet(&rig, RIG_ADDRESS);
    fake_manager_hold_lookups(rig.manager, true);
    rig_info_or_go(asking, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_option(listing, NBD_OPT_LIST, NULL, 0);
    fake_volume_hold(rig.disk, true);
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 1, 0, sizeof(payload));
    rig_send(client, payload, sizeof(payload));
    rig_settle(&rig);
    rig_begin_stop(&rig, 30 * NS_PER_S);
    rig_settle(&rig);
    rig_expect_end(&rig, idle);
    rig_expect_end(&rig, greeted);
    struct sim_client *late;
    assert_int_equal(sim_connect(rig.sim, RIG_ADDRESS, &late), -ECONNREFUSED);
    assert_false(rig.stopped);
    fake_manager_hold_lookups(rig.manager, false);
    rig_expect_option_error(&rig, asking, NBD_OPT_GO, NBD_REP_ERR_SHUTDOWN);
    rig_expect_end(&rig, asking);
    rig_expect_option_error(&rig, listing, NBD_OPT_LIST, NBD_REP_ERR_SHUTDOWN);
    rig_expect_end(&rig, listing);
    assert_false(rig.stopped);
    fake_volume_hold(rig.disk, false);
    rig_expect_ok(&rig, client, RIG_SIMPLE, 1, 0);
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

/* Wherever connections are on their way between reactors, all of them notice. */
static void
stop_at_any_moment(void **state)
{
    (void)state;
    for (int moment = 0; moment < 150; moment++) {
        struct rig rig;
        struct rig_options options = rig_options_default();
        struct sim_client *clients[6];
        options.seed = 1 + (uint64_t)moment;
        rig_start(&rig, &options);
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            clients[i] = rig_connect(&rig);
            rig_send(clients[i], "\0\0\0\3", 4);
            rig_info_or_go(clients[i], NBD_OPT_GO, i % 3 == 0 ? "pool/disk" : "pool/ro", NULL, 0);
        }
        for (int step = 0; step < moment; step++) {
            (void)sim_step(rig.sim);
        }
        rig_begin_stop(&rig, 100 * NS_PER_S);
        rig_run_for(&rig, 5 * NS_PER_S);
        assert_true(rig.stopped);
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            sim_client_close(clients[i], false);
        }
        rig_finish(&rig);
    }
}

static void
stop_cuts_after_grace(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *slow = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    for (uint64_t i = 0; i < 4; i++) { /* the later replies are still queued when it is cut */
        rig_request(slow, RIG_SIMPLE, NBD_CMD_READ, 0, i, 0, 8 << 20);
    }
    rig_settle(&rig);
    rig_begin_stop(&rig, 3 * NS_PER_S);
    rig_run_for(&rig, 2 * NS_PER_S);
    assert_false(rig.stopped);
    rig_run_for(&rig, 2 * NS_PER_S);
    assert_true(rig.stopped);
    sim_client_close(slow, false);
    rig_finish(&rig);
}

static void
stop_tells_of_hung_requests(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    fake_volume_hold(rig.disk, true);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 0, 4096);
    rig_settle(&rig);
    rig_begin_stop(&rig, 3 * NS_PER_S);
    rig_run_for(&rig, 5 * NS_PER_S);
    assert_true(rig.stopped);
    assert_int_equal(rig.stop_result, -ETIMEDOUT);
    rig_expect_end(&rig, client);
    /* When they come home after all, it goes the usual way. */
    fake_volume_hold(rig.disk, false);
    rig_run_for(&rig, NS_PER_S);
    rig.stop_result = 0;
    rig_finish(&rig);
}

/* Random pieces, several clients, random requests, two reactors; everything is checked. */
static void
storm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct rig rig;
        enum { CLIENTS = 6, ROUNDS = 60, SPAN = 4 << 20 };
        struct rig_options options = rig_options_default();
        struct sim_client *clients[CLIENTS];
        uint8_t *expected = calloc(1, SPAN * CLIENTS);
        uint8_t *data = malloc(SPAN);
        assert_true(expected != NULL && data != NULL);
        options.seed = seed;
        options.fragments = true;
        options.limits.slots_max = 1 + (uint32_t)seed % 7;
        options.pool_bytes = 64 << 20;
        rig_start(&rig, &options);
        fake_volume_reverse(rig.disk, seed % 2 == 0);
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = rig_go(&rig, (enum rig_style)(i % 3), "pool/disk", NULL);
        }
        for (int round = 0; round < ROUNDS; round++) {
            for (uint32_t i = 0; i < CLIENTS; i++) {
                enum rig_style style = (enum rig_style)(i % 3);
                uint32_t length = 1 + (uint32_t)sim_random_below(rig.sim, round % 4 == 0
                                                                              ? 300000 : 9000);
                uint64_t at = sim_random_below(rig.sim, SPAN - length);
                uint64_t offset = i * (uint64_t)SPAN + at;
                if (sim_random_below(rig.sim, 2) == 0) {
                    rig_pattern(data, sim_random(rig.sim) >> 8, length);
                    memcpy(expected + offset, data, length);
                    rig_request(clients[i], style, NBD_CMD_WRITE,
                                style == RIG_EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN : 0, 1, offset,
                                length);
                    rig_send(clients[i], data, length);
                    rig_expect_ok(&rig, clients[i], style, 1, offset);
                } else {
                    rig_request(clients[i], style, NBD_CMD_READ, 0, 2, offset, length);
                    rig_expect_data(&rig, clients[i], style, 2, offset, expected + offset, length,
                                    NULL);
                }
            }
        }
        assert_memory_equal(fake_volume_memory(rig.disk), expected, SPAN * CLIENTS);
        for (int i = 0; i < CLIENTS; i++) {
            sim_client_close(clients[i], i % 2 == 0);
        }
        free(expected);
        free(data);
        rig_finish(&rig);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_stop_the_reader),
        cmocka_unit_test(bytes_stop_the_reader),
        cmocka_unit_test(memory_is_shared),
        cmocka_unit_test(leaving_the_line_for_memory),
        cmocka_unit_test(stuck_writer_is_cut_when_memory_is_short),
        cmocka_unit_test(slow_reader_is_cut_when_memory_is_short),
        cmocka_unit_test(slow_reader_stops_itself),
        cmocka_unit_test(client_vanishes_with_requests_in_flight),
        cmocka_unit_test(volume_deadline),
        cmocka_unit_test(drop_waits_for_release),
        cmocka_unit_test(drop_at_odd_times),
        cmocka_unit_test(spare_memory_goes_back),
        cmocka_unit_test(cut_while_waiting_for_memory),
        cmocka_unit_test(log_lines_are_limited),
        cmocka_unit_test(limits_are_checked),
        cmocka_unit_test(idle_connections_are_closed_on_request),
        cmocka_unit_test(idle_memory_comes_back),
        cmocka_unit_test(deep_queue_is_gathered),
        cmocka_unit_test(stop_lets_requests_end),
        cmocka_unit_test(stop_at_any_moment),
        cmocka_unit_test(stop_cuts_after_grace),
        cmocka_unit_test(stop_tells_of_hung_requests),
        cmocka_unit_test(storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
