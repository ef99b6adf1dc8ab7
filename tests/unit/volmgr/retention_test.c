/* SPDX-License-Identifier: Apache-2.0 */
/* Schedules: when a snapshot is due, which ones go, and that nothing shortens an expiry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "volmgr/retention_impl.h"

#define MINUTE (60 * NS_PER_S)
#define DAY    (24 * 60 * MINUTE)

static const struct retention_policy USUAL = {
    .rules = { { .every_ns = 15 * MINUTE, .keep = 8 }, { .every_ns = DAY, .keep = 14 } },
};

/* Run a policy for a time; returns how many snapshots there are at the end. */
static uint32_t
run_for(const struct retention_policy *policy, uint64_t duration_ns,
        struct retention_snapshot *snapshots, uint32_t max)
{
    bool chosen[256];
    uint32_t count = 0;

    assert_true(max <= ARRAY_SIZE(chosen));
    for (uint64_t now_ns = 100 * DAY; now_ns < 100 * DAY + duration_ns; now_ns += MINUTE) {
        uint8_t due = retention_due(policy, snapshots, count, now_ns);
        if (due != 0) {
            assert_true(count < max);
            snapshots[count++] = (struct retention_snapshot){
                .created_ns = now_ns,
                .expires_ns = retention_expiry_ns(policy, due, now_ns),
                .rules = due,
            };
        }
        retention_choose(policy, snapshots, count, now_ns, chosen);
        uint32_t kept = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (!chosen[i]) {
                snapshots[kept++] = snapshots[i];
            }
        }
        count = kept;
    }
    return count;
}

static void
each_rule_keeps_its_own(void **state)
{
    struct retention_snapshot snapshots[64];

    (void)state;
    uint32_t count = run_for(&USUAL, 40 * DAY, snapshots, ARRAY_SIZE(snapshots));
    uint32_t often = 0;
    uint32_t daily = 0;
    for (uint32_t i = 0; i < count; i++) {
        often += snapshots[i].rules & 1;
        daily += snapshots[i].rules >> 1 & 1;
    }
    assert_int_equal(daily, 14);
    assert_true(often >= 8); /* a daily one was made for both rules */
    assert_int_equal(count, 8 + 14); /* and none of the last 8 was made at midnight */
    assert_int_equal(snapshots[count - 1].created_ns, 140 * DAY - 15 * MINUTE);
}

static void
due_once_a_period(void **state)
{
    struct retention_snapshot one = { .created_ns = 100 * DAY + MINUTE, .rules = 3 };

    (void)state;
    assert_int_equal(retention_due(&USUAL, NULL, 0, 100 * DAY), 3);
    assert_int_equal(retention_next_due_ns(&USUAL, NULL, 0, 100 * DAY), 100 * DAY);
    assert_int_equal(retention_due(&USUAL, &one, 1, 100 * DAY + 14 * MINUTE), 0);
    assert_int_equal(retention_next_due_ns(&USUAL, &one, 1, 100 * DAY + 2 * MINUTE),
                     100 * DAY + 15 * MINUTE);
    assert_int_equal(retention_due(&USUAL, &one, 1, 100 * DAY + 15 * MINUTE), 1);
    assert_int_equal(retention_due(&USUAL, &one, 1, 101 * DAY), 3);
}

static void
immutable_ones_stay_whatever_the_rules_say(void **state)
{
    struct retention_policy policy = {
        .rules = { { .every_ns = MINUTE, .keep = 2, .immutable_ns = 30 * MINUTE } },
    };
    struct retention_snapshot snapshots[64];

    (void)state;
    uint32_t count = run_for(&policy, 5 * 60 * MINUTE, snapshots, ARRAY_SIZE(snapshots));
    assert_int_equal(count, 30); /* a new one each minute, none goes before its 30 minutes */
    assert_false(retention_may_delete(&snapshots[count - 1], snapshots[count - 1].created_ns));
    assert_int_equal(retention_extend(&snapshots[0], snapshots[0].expires_ns - 1), -EPERM);
    assert_int_equal(retention_extend(&snapshots[0], snapshots[0].expires_ns + 1), 0);
}

static void
what_no_rule_made_is_left_alone(void **state)
{
    struct retention_snapshot snapshots[] = {
        { .created_ns = 1 },              /* by hand */
        { .created_ns = 2, .rules = 4 },  /* for a rule that is no longer in use */
        { .created_ns = 3, .rules = 1 },  /* the newest of rule 0 */
    };
    bool chosen[3];

    (void)state;
    assert_int_equal(retention_choose(&USUAL, snapshots, 3, 100 * DAY, chosen), 0);
}

static void
random_choices_agree_with_counting(void **state)
{
    struct retention_snapshot snapshots[40];
    bool chosen[40];
    struct random random;

    (void)state;
    random_seed(&random, 5);
    for (uint32_t round = 0; round < 5000; round++) {
        struct retention_policy policy = { 0 };
        for (uint32_t i = 0; i < 3; i++) {
            policy.rules[i].every_ns = random_below(&random, 3) == 0 ? 0 : MINUTE;
            policy.rules[i].keep = 1 + (uint32_t)random_below(&random, 5);
        }
        uint32_t count = (uint32_t)random_below(&random, 40);
        for (uint32_t i = 0; i < count; i++) {
            snapshots[i] = (struct retention_snapshot){
                .created_ns = random_below(&random, 30),
                .expires_ns = random_below(&random, 4) == 0 ? 1000 : 0,
                .rules = (uint8_t)random_below(&random, 8),
            };
        }
        retention_choose(&policy, snapshots, count, 500, chosen);
        for (uint32_t i = 0; i < count; i++) {
            bool wanted = snapshots[i].expires_ns > 500;
            bool judged = false;
            for (uint32_t rule = 0; rule < 3; rule++) {
                uint32_t newer = 0;
                if (policy.rules[rule].every_ns == 0 || (snapshots[i].rules >> rule & 1) == 0) {
                    continue;
                }
                judged = true;
                for (uint32_t k = 0; k < count; k++) {
                    newer += (snapshots[k].rules >> rule & 1) != 0 &&
                             (snapshots[k].created_ns > snapshots[i].created_ns ||
                              (snapshots[k].created_ns == snapshots[i].created_ns && k > i));
                }
                wanted |= newer < policy.rules[rule].keep;
            }
            assert_int_equal(chosen[i], judged && !wanted);
        }
    }
}

static void
bad_policies_are_refused(void **state)
{
    struct retention_policy policy = USUAL;

    (void)state;
    assert_int_equal(retention_policy_check(&policy), 0);
    policy.rules[0].keep = 0;
    assert_int_equal(retention_policy_check(&policy), -EINVAL);
    policy = USUAL;
    policy.rules[1].every_ns = 1;
    assert_int_equal(retention_policy_check(&policy), -EINVAL);
}

static void
the_clock_is_not_to_be_moved(void **state)
{
    struct retention_clock clock;

    (void)state;
    retention_clock_start(&clock, 50 * DAY, 49 * DAY, 1000);
    assert_int_equal(clock.now_ns, 50 * DAY); /* real time was set back */
    retention_clock_advance(&clock, 1000 + MINUTE);
    assert_int_equal(clock.now_ns, 50 * DAY + MINUTE); /* whatever real time says now */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_keeps_its_own),
        cmocka_unit_test(due_once_a_period),
        cmocka_unit_test(immutable_ones_stay_whatever_the_rules_say),
        cmocka_unit_test(what_no_rule_made_is_left_alone),
        cmocka_unit_test(random_choices_agree_with_counting),
        cmocka_unit_test(bad_policies_are_refused),
        cmocka_unit_test(the_clock_is_not_to_be_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
