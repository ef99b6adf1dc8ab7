/* SPDX-License-Identifier: Apache-2.0 */
/* Timers against a naive reference, on a clock that the test moves. */
#include "base/random.h"
#include "tests/unit/io/io_test.h"

enum {
    TIMERS = 500
};

struct box {
    struct timer timer;
    bool armed; /* the reference */
    uint64_t due_ns;
    uint32_t expired;
};

static struct {
    struct fake_platform fake;
    struct reactor *reactor;
    struct random random;
    struct box boxes[TIMERS];
    uint64_t last_due_ns; /* of the timer that expired last in this pass */
    struct timer chained;
    uint32_t chained_count;
} test;

static int
setup(void **state)
{
    (void)state;
    struct error error = { 0 };
    memset(&test, 0, sizeof(test));
    fake_platform_init(&test.fake);
    random_seed(&test.random, 17);
    const struct reactor_options options = { .id = 1, .cpu = -1 };
    assert_int_equal(reactor_create(&test.fake.platform, &options, &test.reactor, &error), 0);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    reactor_destroy(test.reactor);
    return 0;
}

static void
box_expired(struct timer *timer)
{
    struct box *box = container_of(timer, struct box, timer);
    assert_true(box->armed);
    assert_false(timer_is_armed(timer));
    assert_true(box->due_ns == timer->due_ns);
    assert_true(box->due_ns <= reactor_now_ns(test.reactor)); /* never early */
    assert_true(box->due_ns >= test.last_due_ns);             /* in order */
    test.last_due_ns = box->due_ns;
    box->armed = false;
    box->expired++;
}

static void
change_some(void *argument)
{
    (void)argument;
    for (int i = 0; i < 40; i++) {
        struct box *box = &test.boxes[random_below(&test.random, TIMERS)];
        if (random_chance(&test.random, 1, 3)) {
            timer_disarm(test.reactor, &box->timer); /* armed or not */
            box->armed = false;
        } else {
            /* Coarse, so that many are due at the same time. */
            box->due_ns = test.fake.now_ns + 1000 * (1 + random_below(&test.random, 50));
            box->armed = true;
            timer_arm(test.reactor, &box->timer, box->due_ns, box_expired);
        }
        assert_int_equal(timer_is_armed(&box->timer), box->armed);
    }
}

static void
test_random_against_reference(void **state)
{
    (void)state;
    uint32_t expired = 0;
    for (int step = 0; step < 3000; step++) {
        run_on(test.reactor, change_some, NULL);
        test.fake.now_ns += 1000 * random_below(&test.random, 8);
        test.last_due_ns = 0;
        reactor_pass(test.reactor, false, 0);
        for (size_t i = 0; i < TIMERS; i++) {
            struct box *box = &test.boxes[i];
            assert_int_equal(timer_is_armed(&box->timer), box->armed);
            if (box->armed) {
                assert_true(box->due_ns > reactor_now_ns(test.reactor)); /* none forgotten */
            }
        }
    }
    for (size_t i = 0; i < TIMERS; i++) {
        expired += test.boxes[i].expired;
    }
    assert_true(expired > 10000);
    assert_int_equal(reactor_statistics(test.reactor)->timers, expired);
}

static void
arm_first(void *argument)
{
    struct box *box = argument;
    box->armed = true;
    timer_arm(test.reactor, &box->timer, box->due_ns, box_expired);
}

static void
test_sleep_ends_at_the_first_timer(void **state)
{
    (void)state;
    struct box *early = &test.boxes[0];
    struct box *late = &test.boxes[1];
    early->due_ns = test.fake.now_ns + 7 * NS_PER_MS;
    late->due_ns = test.fake.now_ns + 70 * NS_PER_MS;
    assert_true(reactor_next_timer_ns(test.reactor) == UINT64_MAX);
    run_on(test.reactor, arm_first, late);
    assert_true(reactor_next_timer_ns(test.reactor) == late->due_ns);
    run_on(test.reactor, arm_first, early);
    assert_true(reactor_next_timer_ns(test.reactor) == early->due_ns);
    assert_false(reactor_has_work(test.reactor));

    reactor_pass(test.reactor, true, 3 * NS_PER_MS); /* the caller's limit is nearer */
    assert_int_equal(test.fake.last_wait_ns, 3 * NS_PER_MS);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_int_equal(test.fake.last_wait_ns, 4 * NS_PER_MS);
    assert_int_equal(early->expired, 0);
    assert_true(reactor_has_work(test.reactor));  /* it is due */
    reactor_pass(test.reactor, true, UINT64_MAX); /* runs it: no sleep in such a pass */
    assert_int_equal(early->expired, 1);
    assert_int_equal(test.fake.last_wait_ns, 0);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_int_equal(test.fake.last_wait_ns, 63 * NS_PER_MS);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_int_equal(late->expired, 1);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_true(test.fake.last_wait_ns == UINT64_MAX); /* nothing left to wait for */
}

static void
chained_expired(struct timer *timer)
{
    test.chained_count++;
    timer_arm(test.reactor, timer, 0, chained_expired); /* in the past */
}

static void
arm_chained(void *argument)
{
    (void)argument;
    timer_arm(test.reactor, &test.chained, 0, chained_expired);
}

static void
test_rearming_for_the_past_does_not_hold_the_loop(void **state)
{
    (void)state;
    run_on(test.reactor, arm_chained, NULL); /* expires in the same pass, after the messages */
    assert_int_equal(test.chained_count, 1);
    reactor_pass(test.reactor, false, 0);
    assert_int_equal(test.chained_count, 2);
    reactor_pass(test.reactor, true, UINT64_MAX);
    assert_int_equal(test.chained_count, 3);
    assert_int_equal(test.fake.last_wait_ns, 0); /* due already: no sleep */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random_against_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sleep_ends_at_the_first_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rearming_for_the_past_does_not_hold_the_loop, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
