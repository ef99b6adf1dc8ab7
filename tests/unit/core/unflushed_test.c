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
    GRAINS = 1500,
    DISKS = 3,
};

/* By disk and grain. */
struct expected {
    uint16_t blocks[DISKS][GRAINS];
};

static const uint16_t DISK_NUMBERS[DISKS] = { 0, 63, 65 };

static uint32_t
disk_of(uint16_t number)
{
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        if (DISK_NUMBERS[disk] == number) {
            return disk;
        }
    }
    fail_msg("disk %u", number);
    return 0;
}

static void
compare(const struct unflushed *set, const struct expected *expected)
{
    struct expected seen = { 0 };
    const struct unflushed_slot *slot;

    for (uint32_t at = 0; (slot = unflushed_next(set, &at)) != NULL;) {
        assert_in_range(slot->grain_plus_one, 1, GRAINS);
        uint16_t *blocks = &seen.blocks[disk_of(slot->disk)][slot->grain_plus_one - 1];
        assert_int_equal(*blocks, 0); /* each once */
        assert_true(slot->blocks != 0);
        *blocks = slot->blocks;
    }
    assert_memory_equal(&seen, expected, sizeof(seen));
}

static void
move(struct unflushed *sets, struct expected *expected, uint32_t to, struct random *random)
{
    uint64_t disks[2] = { 0 };
    bool all = random_chance(random, 1, 3);

    for (uint32_t disk = 0; disk < DISKS; disk++) {
        bool moves = all || random_chance(random, 1, 2);
        disks[DISK_NUMBERS[disk] / 64] |= (uint64_t)moves << (DISK_NUMBERS[disk] % 64);
        for (uint32_t n = 0; n < GRAINS; n++) {
            if (moves) {
                expected[to].blocks[disk][n] |= expected[1 - to].blocks[disk][n];
            }
            expected[1 - to].blocks[disk][n] = 0;
        }
    }
    unflushed_move(&sets[to], &sets[1 - to], all ? NULL : disks);
    compare(&sets[1 - to], &expected[1 - to]);
}

static void
it_agrees_with_an_array(void **state)
{
    (void)state;
    struct unflushed sets[2] = { 0 };
    struct expected expected[2] = { 0 };
    struct random random;

    random_seed(&random, 11);
    for (int i = 0; i < 60000; i++) {
        uint32_t which = (uint32_t)random_below(&random, 2);
        uint32_t disk = (uint32_t)random_below(&random, DISKS);
        uint64_t grain = random_below(&random, random_chance(&random, 1, 2) ? 50 : GRAINS);
        uint16_t blocks = (uint16_t)(1 + random_below(&random, UINT16_MAX));
        if (random_chance(&random, 1, 4)) {
            unflushed_remove(&sets[which], grain, DISK_NUMBERS[disk], blocks);
            expected[which].blocks[disk][grain] &= (uint16_t)~blocks;
        } else {
            unflushed_add(&sets[which], grain, DISK_NUMBERS[disk], blocks);
            expected[which].blocks[disk][grain] |= blocks;
        }
        if (random_chance(&random, 1, 2000)) {
            move(sets, expected, which, &random);
        }
        if (random_chance(&random, 1, 9000)) {
            unflushed_clear(&sets[which]);
            memset(&expected[which], 0, sizeof(expected[which]));
        }
        if (random_chance(&random, 1, 200)) {
            compare(&sets[which], &expected[which]);
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

    unflushed_remove(&set, 5, 0, 1);
    assert_null(unflushed_next(&set, &at));
    unflushed_clear(&set);
    assert_null(set.slots);
    unflushed_add(&set, UINT64_C(1) << 40, 7, 0x8001);
    at = 0;
    const struct unflushed_slot *slot = unflushed_next(&set, &at);
    assert_non_null(slot);
    assert_int_equal(slot->grain_plus_one - 1, UINT64_C(1) << 40);
    assert_int_equal(slot->disk, 7);
    assert_int_equal(slot->blocks, 0x8001);
    assert_null(unflushed_next(&set, &at));
    /* Much memory is given back. */
    for (uint64_t n = 0; n < 100000; n++) {
        unflushed_add(&set, n, 0, 1);
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
