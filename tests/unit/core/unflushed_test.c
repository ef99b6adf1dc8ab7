/* SPDX-License-Identifier: Apache-2.0 */
/* The set of unflushed blocks against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "volmgr/unflushed_impl.h"

enum {
    GRAINS = 3000,
};

static void
compare(const struct unflushed *set, const uint16_t *expected)
{
    uint16_t seen[GRAINS] = { 0 };
    uint64_t grain = 0;
    uint16_t blocks = 0;

    for (uint32_t at = 0; unflushed_next(set, &at, &grain, &blocks);) {
        assert_true(grain < GRAINS);
        assert_int_equal(seen[grain], 0); /* each once */
        assert_true(blocks != 0);
        seen[grain] = blocks;
    }
    assert_memory_equal(seen, expected, sizeof(seen));
}

static void
it_agrees_with_an_array(void **state)
{
    (void)state;
    struct unflushed sets[2] = { 0 };
    uint16_t expected[2][GRAINS] = { 0 };
    struct random random;

    random_seed(&random, 11);
    for (int i = 0; i < 60000; i++) {
        uint32_t which = (uint32_t)random_below(&random, 2);
        uint64_t grain = random_below(&random, random_chance(&random, 1, 2) ? 50 : GRAINS);
        uint16_t blocks = (uint16_t)(1 + random_below(&random, UINT16_MAX));
        if (random_chance(&random, 1, 4)) {
            unflushed_remove(&sets[which], grain, blocks);
            expected[which][grain] &= (uint16_t)~blocks;
        } else {
            unflushed_add(&sets[which], grain, blocks);
            expected[which][grain] |= blocks;
        }
        if (random_chance(&random, 1, 5000)) {
            unflushed_move(&sets[which], &sets[1 - which]);
            for (uint32_t n = 0; n < GRAINS; n++) {
                expected[which][n] |= expected[1 - which][n];
                expected[1 - which][n] = 0;
            }
        }
        if (random_chance(&random, 1, 9000)) {
            unflushed_clear(&sets[which]);
            memset(expected[which], 0, sizeof(expected[which]));
        }
        if (random_chance(&random, 1, 200)) {
            compare(&sets[which], expected[which]);
        }
    }
    unflushed_free(&sets[0]);
    unflushed_free(&sets[1]);
}

static void
an_empty_set_costs_nothing(void **state)
{
    (void)state;
    struct unflushed set = { 0 };
    uint32_t at = 0;
    uint64_t grain = 0;
    uint16_t blocks = 0;

    unflushed_remove(&set, 5, 1);
    assert_false(unflushed_next(&set, &at, &grain, &blocks));
    unflushed_clear(&set);
    assert_null(set.slots);
    unflushed_add(&set, UINT64_C(1) << 40, 0x8001);
    at = 0;
    assert_true(unflushed_next(&set, &at, &grain, &blocks));
    assert_int_equal(grain, UINT64_C(1) << 40);
    assert_int_equal(blocks, 0x8001);
    assert_false(unflushed_next(&set, &at, &grain, &blocks));
    /* Much memory is given back. */
    for (uint64_t n = 0; n < 100000; n++) {
        unflushed_add(&set, n, 1);
    }
    unflushed_clear(&set);
    assert_null(set.slots);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_agrees_with_an_array),
        cmocka_unit_test(an_empty_set_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
