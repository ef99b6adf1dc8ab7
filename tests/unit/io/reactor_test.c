/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: messages, completions, hooks, spinning, threads, statistics. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "io/reactor_impl.h"
#include "tests/unit/io/io_test.h"

/* ---- the loop on the fake platform ---- */

static struct {
    struct fake_platform fake;
    struct reactor *reactor;
    char trace[64]; /* one letter for each thing that ran */
    struct message messages[4];
    struct io_op op;
    struct io_op nested_op;
    struct timer timer;
    struct pass_hook hooks[3];
    bool in_done;
    uint64_t work_every_ns; /* for the spin tests */
    uint64_t next_work_ns;
} test;

static void
trace(char letter)
{
    size_t length = strlen(test.trace);
    assert_true(length + 1 < sizeof(test.trace));
    test.trace[length] = letter;
}

static int
setup_with(uint32_t spin_us_max)
{
    struct error error = { 0 };
    memset(&test, 0, sizeof(test));
    fake_platform_init(&test.fake);
    const struct reactor_options options = { .id = 5, .spin_us_max = spin_us_max, .cpu = -1 };
    return reactor_create(&test.fake.platform, &options, &test.reactor, &error);
}

static int
setup(void **state)
{
    (void)state;
    return setup_with(0);
}

static int
setup_spinning(void **state)
{
    (void)state;
    return setup_with(50);
}

static int
teardown(void **state)
{
    (void)state;
    reactor_destroy(test.reactor);
    return 0;
}

static void
deliver_a(struct message *message)
{
    (void)message;
    assert_ptr_equal(reactor_self(), test.reactor);
    trace('a');
}

static void
deliver_b(struct message *message)
{
    (void)message;
    trace('b');
}

static void
deliver_c(struct message *message)
{
    (void)message;
    trace('c');
}

static void
test_messages_arrive_in_order(void **state)
{
    (void)state;
    assert_null(reactor_self());
    reactor_send(test.reactor, &test.messages[0], deliver_a);
    reactor_send(test.reactor, &test.messages[1], deliver_b);
    reactor_send(test.reactor, &test.messages[2], deliver_c);
    assert_string_equal(test.trace, "");
    assert_int_equal(test.fake.wakes, 1); /* the first wakes; the others need not */
    assert_true(reactor_pass(test.reactor, false, 0));
    assert_string_equal(test.trace, "abc");
    assert_false(reactor_pass(test.reactor, false, 0));
    assert_null(reactor_self());
    reactor_send(test.reactor, &test.messages[1], deliver_b); /* may be used again */
    reactor_pass(test.reactor, false, 0);
    assert_string_equal(test.trace, "abcb");
    assert_int_equal(reactor_statistics(test.reactor)->messages, 4);
}

static void
deliver_to_self(struct message *message)
{
    trace('s');
    reactor_send(test.reactor, message, deliver_a); /* from its own function: idle again */
    assert_string_equal(test.trace, "s");
}

static void
test_message_to_oneself(void **state)
{
    (void)state;
    reactor_send(test.reactor, &test.messages[0], deliver_to_self);
    test.fake.wakes = 0;
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_string_equal(test.trace, "s");  /* not in the same step */
    assert_int_equal(test.fake.sleeps, 0); /* and not slept over */
    assert_int_equal(test.fake.wakes, 0);  /* nobody wakes himself */
    reactor_pass(test.reactor, false, 0);
    assert_string_equal(test.trace, "sa");
}

static void
nested_done(struct io_op *op)
{
    assert_int_equal(op->result, 2);
    assert_false(test.in_done); /* R1 */
    trace('n');
}

static void
op_done(struct io_op *op)
{
    assert_int_equal(op->result, 1);
    assert_null(op->done); /* a second completion would be noticed */
    test.in_done = true;
    test.nested_op = (struct io_op){ .done = nested_done, .reactor_id = 5 };
    reactor_complete(&test.nested_op, 2);
    trace('d');
    test.in_done = false;
}

static void
hook_run(struct pass_hook *hook)
{
    trace((char)('0' + (hook - test.hooks)));
}

static void
timer_expired(struct timer *timer)
{
    (void)timer;
    trace('t');
}

static void
deliver_everything(struct message *message)
{
    (void)message;
    trace('m');
    reactor_end_of_pass(test.reactor, &test.hooks[1], hook_run);
    reactor_end_of_pass(test.reactor, &test.hooks[0], hook_run);
    reactor_end_of_pass(test.reactor, &test.hooks[1], hook_run); /* once is enough */
    timer_arm(test.reactor, &test.timer, 0, timer_expired);
    test.op = (struct io_op){ .done = op_done, .reactor_id = 5 };
    reactor_complete(&test.op, 1);
    trace('e');
}

static void
test_order_of_a_pass(void **state)
{
    (void)state;
    reactor_send(test.reactor, &test.messages[0], deliver_everything);
    reactor_pass(test.reactor, false, 0);
    assert_string_equal(test.trace, "medn" /* completions, after the submission */
                                    "t"
                                    "10");
    assert_int_equal(reactor_statistics(test.reactor)->completions, 2);
    assert_false(reactor_pass(test.reactor, false, 0)); /* hooks are forgotten */
}

static void
hook_again(struct pass_hook *hook)
{
    trace('h');
    if (strlen(test.trace) < 3) {
        reactor_end_of_pass(test.reactor, hook, hook_again);
    }
}

static void
deliver_hook(struct message *message)
{
    (void)message;
    reactor_end_of_pass(test.reactor, &test.hooks[0], hook_again);
}

static void
test_hook_queued_by_a_hook_runs_in_the_next_pass(void **state)
{
    (void)state;
    reactor_send(test.reactor, &test.messages[0], deliver_hook);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_string_equal(test.trace, "h");
    assert_int_equal(test.fake.sleeps, 0);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_string_equal(test.trace, "hh");
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_string_equal(test.trace, "hhh");
    assert_int_equal(test.fake.sleeps, 0); /* whoever drives the loop looks first */
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_int_equal(test.fake.sleeps, 1);
}

static void
endless_done(struct io_op *op)
{
    op->done = endless_done;
    reactor_complete(op, 0);
}

static void
deliver_endless(struct message *message)
{
    (void)message;
    test.op = (struct io_op){ .done = endless_done, .reactor_id = 5 };
    reactor_complete(&test.op, 0);
}

static void
test_completions_do_not_starve_messages(void **state)
{
    (void)state;
    reactor_send(test.reactor, &test.messages[0], deliver_endless);
    reactor_pass(test.reactor, false, 0); /* returns although there is always more */
    reactor_send(test.reactor, &test.messages[1], deliver_a);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_string_equal(test.trace, "a");
    assert_int_equal(test.fake.sleeps, 0);
}

/* ---- spinning ---- */

static void
spin_op_done(struct io_op *op)
{
    (void)op;
}

/* Work turns up at fixed times after the last; a sleep is ended by it. */
static uint32_t
poll_with_work(struct fake_platform *fake, uint64_t wait_ns)
{
    if (wait_ns > 0 && fake->now_ns < test.next_work_ns) {
        fake->now_ns += MIN(wait_ns, test.next_work_ns - fake->now_ns);
    }
    if (fake->now_ns < test.next_work_ns) {
        return 0;
    }
    test.op = (struct io_op){ .done = spin_op_done, .reactor_id = 5 };
    reactor_complete(&test.op, 0);
    test.next_work_ns = fake->now_ns + test.work_every_ns;
    return 1;
}

/* A gap takes two passes: one finds nothing and waits, the next runs what came. */
static void
run_gaps(uint64_t gap_ns, uint32_t gaps)
{
    test.work_every_ns = gap_ns;
    test.next_work_ns = test.fake.now_ns + gap_ns;
    test.fake.on_poll = poll_with_work;
    test.fake.clock_step_ns = 500;
    test.fake.sleeps = 0;
    for (uint32_t i = 0; i < 2 * gaps; i++) {
        reactor_pass(test.reactor, true, UINT64_MAX);
    }
}

static void
test_short_gaps_are_spun_through(void **state)
{
    (void)state;
    run_gaps(20 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps <= 2);
}

static void
test_long_gaps_are_slept_through(void **state)
{
    (void)state;
    run_gaps(10 * NS_PER_MS, 1000);
    const struct reactor_statistics *statistics = reactor_statistics(test.reactor);
    assert_true(test.fake.sleeps >= 995);
    /* A few first tries; the rest is the price of reading the clock. */
    assert_true(statistics->spin_ns < 10 * 60 * NS_PER_US + 1000 * 4 * 500);
    assert_true(statistics->sleep_ns > 1000 * 9 * NS_PER_MS);
}

static void
test_gaps_just_too_long_cost_little(void **state)
{
    (void)state;
    run_gaps(100 * NS_PER_US, 20000); /* twice the longest spin: each try is a miss */
    assert_true(test.fake.sleeps >= 19990);
    assert_true(reactor_statistics(test.reactor)->spin_ns < 20000 * 3 * NS_PER_US);
}

static uint32_t
poll_alternating(struct fake_platform *fake, uint64_t wait_ns)
{
    uint32_t reaped = poll_with_work(fake, wait_ns);
    if (reaped > 0) {
        /* A request, the disk, a request, the disk ... */
        test.work_every_ns =
            test.work_every_ns == 20 * NS_PER_US ? 150 * NS_PER_US : 20 * NS_PER_US;
        test.next_work_ns = fake->now_ns + test.work_every_ns;
    }
    return reaped;
}

static void
test_alternation_is_learnt(void **state)
{
    (void)state;
    test.work_every_ns = 20 * NS_PER_US;
    test.next_work_ns = test.fake.now_ns + test.work_every_ns;
    test.fake.on_poll = poll_alternating;
    test.fake.clock_step_ns = 500;
    for (uint32_t i = 0; i < 2 * 4000; i++) {
        reactor_pass(test.reactor, true, UINT64_MAX);
    }
    /* Half the gaps are slept through, the other half spun. */
    assert_in_range(test.fake.sleeps, 1950, 2100);
    assert_in_range(reactor_statistics(test.reactor)->spin_ns, 2000 * 15 * NS_PER_US,
                    2000 * 30 * NS_PER_US);
}

static void
test_spin_comes_back_when_the_load_changes(void **state)
{
    (void)state;
    run_gaps(100 * NS_PER_US, 5000);
    run_gaps(20 * NS_PER_US, 10000);
    test.fake.sleeps = 0;
    run_gaps(20 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps <= 2);
}

/* ---- polling: spinning while transfers are under way ---- */

static void
setup_polling(uint32_t poll_percent_max)
{
    struct error error = { 0 };
    memset(&test, 0, sizeof(test));
    fake_platform_init(&test.fake);
    const struct reactor_options options = {
        .id = 5,
        .spin_us_max = 50,
        .poll_us_max = 200,
        .poll_percent_max = poll_percent_max,
        .cpu = -1,
    };
    assert_int_equal(reactor_create(&test.fake.platform, &options, &test.reactor, &error), 0);
}

static void
test_disks_are_polled_longer(void **state)
{
    (void)state;
    setup_polling(100);
    run_gaps(120 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps >= 990); /* nothing is under way */
    assert_int_equal(reactor_statistics(test.reactor)->polls, 0);
    reactor_transfer_begun(test.reactor);
    run_gaps(120 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps <= 2);
    const struct reactor_statistics *statistics = reactor_statistics(test.reactor);
    assert_true(statistics->poll_hits >= 995);
    assert_in_range(statistics->poll_ns, 1000 * 100 * NS_PER_US, statistics->spin_ns);
    /* And no longer when the last one has ended. */
    reactor_transfer_ended(test.reactor);
    uint64_t polls = statistics->polls;
    run_gaps(120 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps >= 990);
    assert_int_equal(statistics->polls, polls);
}

static void
test_slow_disks_are_not_polled(void **state)
{
    (void)state;
    setup_polling(100);
    reactor_transfer_begun(test.reactor);
    run_gaps(5 * NS_PER_MS, 1000); /* a disk of the kind that turns, or one that hangs */
    const struct reactor_statistics *statistics = reactor_statistics(test.reactor);
    assert_true(test.fake.sleeps >= 995);
    assert_true(statistics->polls <= 10);
    assert_true(statistics->spin_ns < 10 * 210 * NS_PER_US + 1000 * 4 * 500);
    run_gaps(400 * NS_PER_US, 20000); /* just too slow */
    assert_true(statistics->polls <= 200);
}

static void
test_polls_keep_to_their_share(void **state)
{
    (void)state;
    setup_polling(20);
    reactor_transfer_begun(test.reactor);
    uint64_t start_ns = test.fake.now_ns;
    run_gaps(100 * NS_PER_US, 10000);
    const struct reactor_statistics *statistics = reactor_statistics(test.reactor);
    uint64_t took_ns = test.fake.now_ns - start_ns;
    assert_in_range(statistics->poll_ns, took_ns * 15 / 100, took_ns * 22 / 100);
    assert_true(test.fake.sleeps > 7000);
}

static void
test_polling_can_be_turned_off(void **state)
{
    (void)state;
    assert_int_equal(setup_with(50), 0);
    reactor_transfer_begun(test.reactor);
    run_gaps(120 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps >= 990);
    assert_int_equal(reactor_statistics(test.reactor)->polls, 0);
    run_gaps(20 * NS_PER_US, 3000); /* what spins do is as before */
    run_gaps(20 * NS_PER_US, 1000);
    assert_true(test.fake.sleeps <= 2);
}

/* ---- the real platform and threads ---- */

enum {
    SENDERS = 4,
    MESSAGES_PER_SENDER = 50000,
    WINDOW = 64,
};

struct numbered_message {
    struct message message;
    uint32_t sender;
    uint32_t number;
    _Atomic bool in_flight;
};

static struct {
    struct reactor *reactor;
    uint32_t next_number[SENDERS]; /* receiver's */
    _Atomic uint32_t received;
} storm;

static void
storm_deliver(struct message *message)
{
    struct numbered_message *numbered = container_of(message, struct numbered_message, message);
    assert_int_equal(numbered->number, storm.next_number[numbered->sender]); /* R2 */
    storm.next_number[numbered->sender]++;
    atomic_fetch_add(&storm.received, 1);
    atomic_store(&numbered->in_flight, false);
}

static void *
storm_sender(void *argument)
{
    uint32_t sender = (uint32_t)(uintptr_t)argument;
    struct numbered_message *messages = calloc(WINDOW, sizeof(*messages));
    for (uint32_t number = 0; number < MESSAGES_PER_SENDER; number++) {
        struct numbered_message *numbered = &messages[number % WINDOW];
        while (atomic_load(&numbered->in_flight)) {
            sched_yield();
        }
        numbered->sender = sender;
        numbered->number = number;
        atomic_store(&numbered->in_flight, true);
        reactor_send(storm.reactor, &numbered->message, storm_deliver);
        if (number % 1000 == 0) {
            usleep(100); /* let the receiver fall asleep now and then */
        }
    }
    for (uint32_t i = 0; i < WINDOW; i++) {
        while (atomic_load(&messages[i].in_flight)) {
            sched_yield();
        }
    }
    free(messages);
    return NULL;
}

static void
storm_run(uint32_t spin_us_max)
{
    struct test_world world;
    struct error error = { 0 };
    pthread_t threads[SENDERS];

    memset(&storm, 0, sizeof(storm));
    assert_int_equal(platform_uring_create(NULL, &world.platform, &error), 0);
    const struct reactor_options options = { .id = 0, .spin_us_max = spin_us_max, .cpu = 0 };
    assert_int_equal(reactor_create(world.platform, &options, &storm.reactor, &error), 0);
    assert_int_equal(reactor_start(storm.reactor, &error), 0);
    for (uintptr_t i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, storm_sender, (void *)i), 0);
    }
    for (uint32_t i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(storm.received, SENDERS * MESSAGES_PER_SENDER);
    reactor_stop(storm.reactor);
    reactor_join(storm.reactor);
    assert_int_equal(reactor_statistics(storm.reactor)->messages, SENDERS * MESSAGES_PER_SENDER);
    reactor_destroy(storm.reactor);
    platform_uring_destroy(world.platform);
}

static void
test_many_senders(void **state)
{
    (void)state;
    storm_run(0);
    storm_run(30);
}

/* Two reactors throw one message to and fro; each sleeps while the other has it. */
static struct {
    struct reactor *reactors[2];
    struct message message;
    uint32_t left;
    _Atomic bool over;
} ping;

static void
ping_deliver(struct message *message)
{
    uint32_t here = reactor_self() == ping.reactors[0] ? 0 : 1;
    assert_ptr_equal(reactor_self(), ping.reactors[here]);
    if (--ping.left == 0) {
        atomic_store(&ping.over, true);
        return;
    }
    reactor_send(ping.reactors[1 - here], message, ping_deliver);
}

static void
test_sleeping_reactors_are_woken(void **state)
{
    (void)state;
    struct platform *platform;
    struct error error = { 0 };
    assert_int_equal(platform_uring_create(NULL, &platform, &error), 0);
    for (uint32_t i = 0; i < 2; i++) {
        const struct reactor_options options = { .id = i, .cpu = -1 };
        assert_int_equal(reactor_create(platform, &options, &ping.reactors[i], &error), 0);
        assert_int_equal(reactor_start(ping.reactors[i], &error), 0);
    }
    ping.left = 20000;
    atomic_store(&ping.over, false);
    reactor_send(ping.reactors[0], &ping.message, ping_deliver);
    for (uint32_t i = 0; i < 10000 && !atomic_load(&ping.over); i++) {
        usleep(1000);
    }
    assert_true(atomic_load(&ping.over));
    for (uint32_t i = 0; i < 2; i++) {
        reactor_stop(ping.reactors[i]);
        reactor_join(ping.reactors[i]);
        assert_true(reactor_statistics(ping.reactors[i])->sleeps > 100);
        reactor_destroy(ping.reactors[i]);
    }
    platform_uring_destroy(platform);
}

static _Atomic uint32_t visits;

static void
do_nothing(void *argument)
{
    (void)argument;
}

static void
visit_deliver(struct message *message)
{
    (void)message;
    atomic_fetch_add(&visits, 1);
}

/* Start the thread, let it fall asleep, wake it, end it. */
static void
visit_thread(struct reactor *reactor)
{
    struct error error = { 0 };
    struct message message = { 0 };
    uint32_t before = atomic_load(&visits);
    assert_int_equal(reactor_start(reactor, &error), 0);
    usleep(3000);
    reactor_send(reactor, &message, visit_deliver);
    for (int i = 0; i < 5000 && atomic_load(&visits) == before; i++) {
        usleep(1000);
    }
    assert_int_equal(atomic_load(&visits), before + 1);
    usleep(3000);
    reactor_stop(reactor);
    reactor_join(reactor);
}

static void
test_reactor_may_move_to_another_thread(void **state)
{
    (void)state;
    struct test_world world;
    world_open(&world, 64 * MIB);
    run_on(world.reactor, do_nothing, NULL);      /* here first */
    reactor_pass(world.reactor, true, NS_PER_MS); /* with its eventfd armed */
    for (int i = 0; i < 3; i++) {
        visit_thread(world.reactor); /* the handle of a thread that has ended may come again */
    }
    run_on(world.reactor, do_nothing, NULL); /* and back */
    world_close(&world);
}

/* An idle reactor with a slow timer must not use a CPU, whatever the spin. */
static struct timer tick;

static void
tick_expired(struct timer *timer)
{
    timer_arm(reactor_self(), timer, reactor_now_ns(reactor_self()) + 100 * NS_PER_MS,
              tick_expired);
}

static void
tick_start(struct message *message)
{
    (void)message;
    tick_expired(&tick);
}

static double
process_cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
tick_start_beside_a_transfer(struct message *message)
{
    reactor_transfer_begun(reactor_self()); /* and it never ends */
    tick_start(message);
}

static void
check_idle_reactor_sleeps(message_fn *start)
{
    struct platform *platform;
    struct reactor *reactor;
    struct message message = { 0 };
    struct error error = { 0 };
    assert_int_equal(platform_uring_create(NULL, &platform, &error), 0);
    const struct reactor_options options = {
        .id = 0,
        .spin_us_max = 30,
        .poll_us_max = 200,
        .poll_percent_max = 100,
        .cpu = -1,
    };
    assert_int_equal(reactor_create(platform, &options, &reactor, &error), 0);
    memset(&tick, 0, sizeof(tick));
    reactor_send(reactor, &message, start);
    assert_int_equal(reactor_start(reactor, &error), 0);
    usleep(100000);
    double before = process_cpu_seconds();
    usleep(1000000);
    double used = process_cpu_seconds() - before;
    reactor_stop(reactor);
    reactor_join(reactor);
    const struct reactor_statistics *statistics = reactor_statistics(reactor);
    assert_in_range(statistics->timers, 5, 15);
    assert_true(statistics->sleep_ns > 9 * NS_PER_S / 10);
    /* About 0.05 % measured; sanitizers and busy machines get their share. */
    assert_true(used < 0.02);
    reactor_destroy(reactor);
    platform_uring_destroy(platform);
}

static void
test_idle_reactor_sleeps(void **state)
{
    (void)state;
    check_idle_reactor_sleeps(tick_start);
}

static void
test_idle_reactor_sleeps_beside_a_hung_disk(void **state)
{
    (void)state;
    check_idle_reactor_sleeps(tick_start_beside_a_transfer);
}

static void
test_statistics_add_up(void **state)
{
    (void)state;
    struct test_world world;
    world_open(&world, 0);
    uint64_t start_ns = world_ops(&world)->monotonic_ns(world.platform);
    run_on(world.reactor, do_nothing, NULL);
    turn_for(world.reactor, 50 * NS_PER_MS);
    uint64_t took_ns = world_ops(&world)->monotonic_ns(world.platform) - start_ns;
    const struct reactor_statistics *statistics = reactor_statistics(world.reactor);
    uint64_t sum_ns = statistics->busy_ns + statistics->spin_ns + statistics->sleep_ns;
    assert_true(sum_ns <= took_ns + NS_PER_MS);
    assert_true(sum_ns >= took_ns * 9 / 10);
    assert_true(statistics->sleeps > 0 && statistics->passes > statistics->sleeps);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_messages_arrive_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_message_to_oneself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_of_a_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hook_queued_by_a_hook_runs_in_the_next_pass, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_completions_do_not_starve_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short_gaps_are_spun_through, setup_spinning, teardown),
        cmocka_unit_test_setup_teardown(test_long_gaps_are_slept_through, setup_spinning, teardown),
        cmocka_unit_test_setup_teardown(test_gaps_just_too_long_cost_little, setup_spinning,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_alternation_is_learnt, setup_spinning, teardown),
        cmocka_unit_test_setup_teardown(test_spin_comes_back_when_the_load_changes, setup_spinning,
                                        teardown),
        cmocka_unit_test_teardown(test_disks_are_polled_longer, teardown),
        cmocka_unit_test_teardown(test_slow_disks_are_not_polled, teardown),
        cmocka_unit_test_teardown(test_polls_keep_to_their_share, teardown),
        cmocka_unit_test_teardown(test_polling_can_be_turned_off, teardown),
        cmocka_unit_test(test_many_senders),
        cmocka_unit_test(test_sleeping_reactors_are_woken),
        cmocka_unit_test(test_reactor_may_move_to_another_thread),
        cmocka_unit_test(test_idle_reactor_sleeps),
        cmocka_unit_test(test_idle_reactor_sleeps_beside_a_hung_disk),
        cmocka_unit_test(test_statistics_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
