/* SPDX-License-Identifier: Apache-2.0 */
/* The clock, the loop, messages and timers, volatile memory. */
#include <errno.h>

#include "base/error.h"
#include "tests/unit/sim/rig.h"

struct ticker {
    struct timer timer;
    struct reactor *reactor;
    uint32_t ticks;
    uint64_t last_ns;
};

static void
tick(struct timer *timer)
{
    struct ticker *ticker = container_of(timer, struct ticker, timer);
    ticker->ticks++;
    ticker->last_ns = reactor_now_ns(ticker->reactor);
    timer_arm(ticker->reactor, timer, ticker->last_ns + NS_PER_S, tick);
}

struct starter {
    struct message message;
    struct ticker *ticker;
};

static void
start_ticker(struct message *message)
{
    struct ticker *ticker = container_of(message, struct starter, message)->ticker;
    timer_arm(ticker->reactor, &ticker->timer, reactor_now_ns(ticker->reactor) + NS_PER_S, tick);
}

static bool
never(void *context)
{
    (void)context;
    return false;
}

static void
clock_jumps_from_timer_to_timer(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 1, &(struct sim_disk_properties){ 0 });
    struct ticker ticker = { .reactor = rig.reactor };
    struct starter starter = { .ticker = &ticker };

    assert_int_equal(sim_run_until(rig.sim, never, NULL, NS_PER_S), -EDEADLK);
    uint64_t start_ns = sim_now_ns(rig.sim);
    reactor_send(rig.reactor, &starter.message, start_ticker);
    assert_int_equal(sim_run_for(rig.sim, 3600 * NS_PER_S), 0);
    assert_int_equal(ticker.ticks, 3599);
    assert_in_range(sim_now_ns(rig.sim), start_ns + 3600 * NS_PER_S, start_ns + 3601 * NS_PER_S);
    assert_int_equal(sim_run_until(rig.sim, never, NULL, NS_PER_MS), -ETIMEDOUT);
    /* Timers do not count as unrest. */
    assert_int_equal(sim_quiesce(rig.sim, NS_PER_S), 0);
    rig_destroy(&rig);
}

struct player {
    struct message message;
    struct reactor *reactor;
    struct player *next;
    uint32_t *turns_left;
    uint64_t *order_hash;
};

static void
play(struct message *message)
{
    struct player *player = container_of(message, struct player, message);
    *player->order_hash = hash_u64(*player->order_hash + reactor_id(player->reactor));
    if (*player->turns_left > 0) {
        (*player->turns_left)--;
        reactor_send(player->next->reactor, &player->next->message, play);
    }
}

/* Several rings of messages over the reactors: the order is the seed's. */
static uint64_t
order_of_run(uint64_t seed)
{
    enum {
        REACTORS = 4
    };
    struct sim *sim = sim_create(&(struct sim_options){ .seed = seed });
    struct reactor *reactors[REACTORS];
    struct player players[REACTORS][REACTORS];
    uint32_t turns_left = 1000;
    uint64_t order_hash = 0;

    for (uint32_t i = 0; i < REACTORS; i++) {
        reactors[i] = rig_start_reactor(sim, i);
    }
    for (uint32_t i = 0; i < REACTORS; i++) {
        for (uint32_t j = 0; j < REACTORS; j++) {
            players[i][j] = (struct player){
                .reactor = reactors[j],
                .next = &players[i][(j + i + 1) % REACTORS],
                .turns_left = &turns_left,
                .order_hash = &order_hash,
            };
        }
        reactor_send(reactors[0], &players[i][0].message, play);
    }
    assert_int_equal(sim_quiesce(sim, NS_PER_S), 0);
    assert_int_equal(turns_left, 0);
    sim_process_enter(sim);
    for (uint32_t i = 0; i < REACTORS; i++) {
        reactor_destroy(reactors[i]);
    }
    sim_process_leave(sim);
    sim_destroy(sim);
    return order_hash;
}

static void
order_of_passes_is_the_seeds(void **state)
{
    (void)state;
    assert_int_equal(order_of_run(1), order_of_run(1));
    assert_int_not_equal(order_of_run(1), order_of_run(2));
}

static void
pass_that_waits_moves_the_clock(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io io;
    rig_create(
        &rig, 3,
        &(struct sim_disk_properties){ .latency_ns_min = NS_PER_S, .latency_ns_max = NS_PER_S });
    uint8_t *data = rig_buffer(4096, 7);
    uint64_t start_ns = sim_now_ns(rig.sim);
    rig_submit(&rig, &io, FILE_IO_WRITE, 0, data, 4096, false);
    while (!io.finished) { /* as the blocking transfers of the control path do */
        (void)reactor_pass(rig.reactor, true, NS_PER_MS);
    }
    assert_int_equal(io.result, 4096);
    assert_in_range(sim_now_ns(rig.sim), start_ns + NS_PER_S, start_ns + 12 * NS_PER_S);
    free(data);
    rig_destroy(&rig);
}

static void
clocks_and_identities(void **state)
{
    (void)state;
    struct rig rig;
    char first[37], second[37];
    rig_create(&rig, 4, &(struct sim_disk_properties){ 0 });
    const struct platform_ops *ops = rig.platform->ops;

    ops->boot_id(rig.platform, first);
    assert_int_equal(strlen(first), 36);
    assert_int_not_equal(ops->random_u64(rig.platform), ops->random_u64(rig.platform));
    assert_int_equal(sim_run_for(rig.sim, 100 * NS_PER_S), 0);
    assert_true(ops->monotonic_ns(rig.platform) >= 100 * NS_PER_S);
    uint64_t real_ns = ops->realtime_ns(rig.platform);
    sim_set_realtime_ns(rig.sim, real_ns - NS_PER_S);
    assert_int_equal(ops->realtime_ns(rig.platform), real_ns - NS_PER_S);

    sim_kill(rig.sim);
    ops->boot_id(rig.platform, second);
    assert_string_equal(first, second);
    assert_true(ops->monotonic_ns(rig.platform) >= 100 * NS_PER_S);
    rig_cut(&rig, SIM_CUT_BY_SEED, 1);
    ops->boot_id(rig.platform, second);
    assert_string_not_equal(first, second);
    assert_true(ops->monotonic_ns(rig.platform) < NS_PER_S);
    assert_int_equal(ops->realtime_ns(rig.platform), real_ns - NS_PER_S);
    sim_destroy(rig.sim);
}

static void
volatile_memory_outlives_the_process_only(void **state)
{
    (void)state;
    struct rig rig;
    void *memory;
    bool existed;
    rig_create(&rig, 5, &(struct sim_disk_properties){ 0 });
    const struct platform_ops *ops = rig.platform->ops;
    struct error error = { 0 };

    assert_int_equal(ops->volatile_map(rig.platform, "a/b", 4096, &memory, &existed, &error),
                     -EINVAL);
    assert_int_equal(ops->volatile_map(rig.platform, "ring", 8192, &memory, &existed, NULL), 0);
    assert_false(existed);
    memset(memory, 0x55, 8192);
    assert_int_equal(ops->volatile_remove(rig.platform, "ring"), -EBUSY);
    sim_kill(rig.sim);

    assert_int_equal(ops->volatile_map(rig.platform, "ring", 8192, &memory, &existed, NULL), 0);
    assert_true(existed);
    assert_int_equal(((uint8_t *)memory)[8191], 0x55);
    ops->volatile_unmap(rig.platform, memory, 8192);
    assert_int_equal(ops->volatile_map(rig.platform, "ring", 4096, &memory, &existed, NULL), 0);
    assert_false(existed); /* another size */
    assert_int_equal(((uint8_t *)memory)[0], 0);
    rig_cut(&rig, SIM_CUT_KEEP_ALL, 1);

    assert_int_equal(ops->volatile_map(rig.platform, "ring", 4096, &memory, &existed, NULL), 0);
    assert_false(existed);
    ops->volatile_unmap(rig.platform, memory, 4096);
    assert_int_equal(ops->volatile_remove(rig.platform, "ring"), 0);
    assert_int_equal(ops->volatile_remove(rig.platform, "ring"), -ENOENT);
    sim_destroy(rig.sim);
}

static void
poll_done(struct io_op *op)
{
    *(int32_t *)((char *)op + sizeof(struct fd_poll)) = op->result;
}

static void
foreign_descriptors_are_refused(void **state)
{
    (void)state;
    struct rig rig;
    struct {
        struct fd_poll poll;
        int32_t result;
    } poll = { .poll = { .op = { .done = poll_done }, .fd = 0, .events = 1 } };
    rig_create(&rig, 6, &(struct sim_disk_properties){ 0 });
    rig.platform->ops->fd_poll(reactor_engine(rig.reactor), &poll.poll);
    assert_int_equal(sim_quiesce(rig.sim, NS_PER_S), 0);
    assert_int_equal(poll.result, -EOPNOTSUPP);
    rig_destroy(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_jumps_from_timer_to_timer),
        cmocka_unit_test(order_of_passes_is_the_seeds),
        cmocka_unit_test(pass_that_waits_moves_the_clock),
        cmocka_unit_test(clocks_and_identities),
        cmocka_unit_test(volatile_memory_outlives_the_process_only),
        cmocka_unit_test(foreign_descriptors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
