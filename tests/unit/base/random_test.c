/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"

/* Simulations are named by their seed: the sequence must never change. */
static void
test_known_sequence(void **state)
{
    (void)state;
    struct random random = { .state = { 1, 2, 3, 4 } };
    /* The first outputs that the authors' reference program gives for this state. */
    static const uint64_t expected[] = {
        UINT64_C(11520),
        UINT64_C(0),
        UINT64_C(1509978240),
        UINT64_C(1215971899390074240),
        UINT64_C(1216172134540287360),
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_true(random_u64(&random) == expected[i]);
    }
}

static void
test_seeds_differ_and_repeat(void **state)
{
    (void)state;
    struct random a;
    struct random b;
    struct random c;
    random_seed(&a, 0);
    random_seed(&b, 0);
    random_seed(&c, 1);
    int same = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = random_u64(&a);
        assert_true(value == random_u64(&b));
        same += value == random_u64(&c);
    }
    assert_int_equal(same, 0);
}

static void
test_below_is_uniform_and_in_range(void **state)
{
    (void)state;
    struct random random;
    uint32_t hits[10] = { 0 };
    random_seed(&random, 99);
    for (int i = 0; i < 100000; i++) {
        uint64_t value = random_below(&random, 10);
        assert_true(value < 10);
        hits[value]++;
    }
    for (int i = 0; i < 10; i++) {
        assert_in_range(hits[i], 9500, 10500);
    }
    assert_int_equal(random_below(&random, 1), 0);
}

static void
test_chance(void **state)
{
    (void)state;
    struct random random;
    uint32_t hits = 0;
    random_seed(&random, 7);
    for (int i = 0; i < 100000; i++) {
        assert_false(random_chance(&random, 0, 5));
        assert_true(random_chance(&random, 5, 5));
        hits += random_chance(&random, 1, 4);
    }
    assert_in_range(hits, 24000, 26000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_sequence),
        cmocka_unit_test(test_seeds_differ_and_repeat),
        cmocka_unit_test(test_below_is_uniform_and_in_range),
        cmocka_unit_test(test_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
