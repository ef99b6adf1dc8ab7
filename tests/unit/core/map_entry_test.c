/* SPDX-License-Identifier: Apache-2.0 */
/* Each transition of a map entry that the design numbers, and random sequences against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "volmgr/map_entry_impl.h"

static const struct map_entry FROZEN_HOME = {
    .home = 100, .home_generation = 3, .valid = 0x00ff
};

static void
first_write_to_nothing_needs_only_a_grain(void **state)
{
    (void)state;
    struct map_entry entry = { 0 };
    struct map_entry_dropped dropped = { 0 };

    assert_int_equal(map_entry_write_kind(&entry, 5), MAP_WRITE_FRESH);
    map_entry_attach_home(&entry, 77, 5);
    assert_int_equal(entry.valid, 0);
    assert_true(map_entry_written(&entry, 0x0010, &dropped));
    assert_int_equal(entry.home, 77);
    assert_int_equal(entry.valid, 0x0010);
    assert_int_equal(entry.zero, 0);
    assert_int_equal(entry.base, GRAIN_NONE);
    assert_int_equal(dropped.count, 0);
    assert_false(map_entry_written(&entry, 0x0010, &dropped));
    assert_int_equal(map_entry_write_kind(&entry, 5), MAP_WRITE_IN_PLACE);
}

/* Transition 1: what was not valid in the frozen home goes on reading as zeroes. */
static void
write_over_a_frozen_home_copies_nothing(void **state)
{
    (void)state;
    struct map_entry entry = FROZEN_HOME;
    struct map_entry_dropped dropped = { 0 };

    assert_int_equal(map_entry_write_kind(&entry, 4), MAP_WRITE_FROZEN);
    map_entry_attach_home(&entry, 200, 4);
    map_entry_written(&entry, 0x0101, &dropped);
    assert_int_equal(entry.home, 200);
    assert_int_equal(entry.base, 100);
    assert_int_equal(entry.base_generation, 3);
    assert_int_equal(entry.valid, 0x0101);
    assert_int_equal(entry.zero, 0xfe00); /* NOT 0x00ff, minus the block written */
    assert_int_equal(dropped.count, 0);
    struct map_entry_sources sources = map_entry_resolve(&entry, 0xffff);
    assert_int_equal(sources.home, 0x0101);
    assert_int_equal(sources.base, 0x00fe);
    assert_int_equal(sources.zero, 0xfe00);
}

/* Transition 2. */
static void
write_over_a_base_alone_keeps_it(void **state)
{
    (void)state;
    struct map_entry entry = { .base = 100, .base_generation = 3, .zero = 0xff00 };
    struct map_entry_dropped dropped = { 0 };

    assert_int_equal(map_entry_write_kind(&entry, 6), MAP_WRITE_KEEP_BASE);
    map_entry_attach_home(&entry, 300, 6);
    map_entry_written(&entry, 0x8001, &dropped);
    assert_int_equal(entry.base, 100);
    assert_int_equal(entry.zero, 0x7f00);
    assert_int_equal(entry.valid, 0x8001);
}

/* Transition 3 needs a copy: the entry says so, and refuses to be changed without it. */
static void
frozen_home_over_a_base_wants_a_copy(void **state)
{
    (void)state;
    struct map_entry entry = {
        .home = 200, .home_generation = 4, .valid = 1, .base = 100, .base_generation = 3
    };

    assert_int_equal(map_entry_write_kind(&entry, 5), MAP_WRITE_COPY);
}

/* Transition 4. */
static void
zeroing_drops_what_supplies_nothing(void **state)
{
    (void)state;
    struct map_entry entry = { .home = 10, .home_generation = 2, .valid = 0x0003 };
    struct map_entry_dropped dropped = { 0 };

    assert_true(map_entry_zeroed(&entry, 0x0001, &dropped));
    assert_int_equal(entry.valid, 0x0002);
    assert_int_equal(entry.zero, 0); /* without a base there is nothing to hide */
    assert_int_equal(dropped.count, 0);
    assert_false(map_entry_zeroed(&entry, 0xfffd, &dropped));
    assert_true(map_entry_zeroed(&entry, 0x0002, &dropped));
    assert_true(map_entry_is_empty(&entry));
    assert_int_equal(dropped.count, 1);
    assert_int_equal(dropped.grains[0], 10);
    assert_int_equal(dropped.generations[0], 2);
}

static void
zeroing_everything_drops_home_and_base(void **state)
{
    (void)state;
    struct map_entry entry = {
        .home = 200, .home_generation = 4, .valid = 0x0f, .base = 100, .base_generation = 3
    };
    struct map_entry_dropped dropped = { 0 };

    assert_true(map_entry_zeroed(&entry, 0xffff, &dropped));
    assert_true(map_entry_is_empty(&entry));
    assert_int_equal(dropped.count, 2);
    assert_int_equal(dropped.grains[0], 200);
    assert_int_equal(dropped.grains[1], 100);
}

/* E6. */
static void
what_is_lost_stays_lost_until_it_is_rewritten(void **state)
{
    (void)state;
    struct map_entry entry = { .home = 10, .home_generation = 2, .valid = 0x000f };
    struct map_entry_dropped dropped = { 0 };

    assert_false(map_entry_lost(&entry, 0xfff0)); /* zeroes are not lost */
    assert_true(map_entry_lost(&entry, 0x0f07));
    assert_int_equal(entry.damaged, 0x0007);
    assert_false(map_entry_lost(&entry, 0x0007));
    assert_true(map_entry_written(&entry, 0x0001, &dropped)); /* although it is valid already */
    assert_int_equal(entry.damaged, 0x0006);
    assert_true(map_entry_zeroed(&entry, 0x0002, &dropped));
    assert_int_equal(entry.damaged, 0x0004);
    /* A snapshot's successor inherits it, and rewriting it there leaves the snapshot's alone. */
    struct map_entry frozen = entry;
    map_entry_attach_home(&entry, 20, 3);
    assert_int_equal(entry.damaged, 0x0004);
    assert_true(map_entry_written(&entry, 0x0004, &dropped));
    assert_int_equal(entry.damaged, 0);
    assert_int_equal(frozen.damaged, 0x0004);
    assert_int_equal(dropped.count, 0);
    /* What the base supplies can be lost, too. */
    assert_true(map_entry_lost(&entry, 0xffff));
    assert_int_equal(entry.damaged, 0x000d);
    assert_true(map_entry_is_sound(&entry));
}

static void
a_base_that_is_covered_is_dropped(void **state)
{
    (void)state;
    struct map_entry entry = {
        .home = 200, .home_generation = 4, .valid = 0xfff0, .base = 100, .base_generation = 3,
        .zero = 0x0003
    };
    struct map_entry_dropped dropped = { 0 };

    assert_true(map_entry_written(&entry, 0x000c, &dropped));
    assert_int_equal(entry.base, GRAIN_NONE);
    assert_int_equal(entry.zero, 0);
    assert_int_equal(entry.valid, 0xfffc);
    assert_int_equal(dropped.count, 1);
    assert_int_equal(dropped.grains[0], 100);
}

/*
 * Random writes, zeroings and new generations against an array that says which generation's grain
 * each block must come from (0: zeroes).
 */
static void
random_sequences_agree_with_a_model(void **state)
{
    (void)state;
    struct random random;

    random_seed(&random, 7);
    for (uint32_t round = 0; round < 20000; round++) {
        struct map_entry entry = { 0 };
        uint64_t model[BLOCKS_PER_GRAIN] = { 0 }; /* grain that each block is in */
        uint32_t generation = 1;
        uint64_t next_grain = 1;
        for (uint32_t step = 0; step < 12; step++) {
            uint16_t mask = (uint16_t)random_u64(&random);
            struct map_entry_dropped dropped = { 0 };
            if (mask == 0) {
                continue;
            }
            switch (random_below(&random, 4)) {
            case 0:
                generation++;
                break;
            case 1:
                map_entry_zeroed(&entry, mask, &dropped);
                for (uint32_t i = 0; i < BLOCKS_PER_GRAIN; i++) {
                    model[i] = (mask >> i & 1) != 0 ? 0 : model[i];
                }
                break;
            default:
                if (map_entry_write_kind(&entry, generation) == MAP_WRITE_COPY) {
                    continue;
                }
                if (map_entry_write_kind(&entry, generation) != MAP_WRITE_IN_PLACE) {
                    map_entry_attach_home(&entry, next_grain++, generation);
                }
                map_entry_written(&entry, mask, &dropped);
                for (uint32_t i = 0; i < BLOCKS_PER_GRAIN; i++) {
                    model[i] = (mask >> i & 1) != 0 ? entry.home : model[i];
                }
            }
            assert_true(map_entry_is_sound(&entry));
            struct map_entry_sources sources = map_entry_resolve(&entry, UINT16_MAX);
            for (uint32_t i = 0; i < BLOCKS_PER_GRAIN; i++) {
                uint64_t grain = (sources.home >> i & 1) != 0   ? entry.home
                                 : (sources.base >> i & 1) != 0 ? entry.base
                                                                : 0;
                assert_int_equal(grain, model[i]);
            }
            for (uint32_t i = 0; i < dropped.count; i++) {
                assert_true(dropped.grains[i] != entry.home && dropped.grains[i] != entry.base);
            }
        }
    }
}

/* Transition 3: at most seven blocks move, the other old grain stays as the base. */
static void
a_copy_moves_the_lesser_side(void **state)
{
    (void)state;
    struct map_entry entry = {
        .home = 200, .home_generation = 4, .valid = 0x0003, .base = 100, .base_generation = 3,
        .zero = 0x8000
    };
    struct map_entry_dropped dropped = { 0 };
    struct map_entry_copy plan = map_entry_copy_plan(&entry, 0x0010);

    assert_int_equal(plan.copy, 0x0003);
    assert_int_equal(plan.from, 200);
    map_entry_copied_home(&entry, 0x0010, 300, 5, &dropped);
    assert_int_equal(entry.home, 300);
    assert_int_equal(entry.valid, 0x0013);
    assert_int_equal(entry.base, 100);
    assert_int_equal(entry.zero, 0x8000);
    assert_int_equal(map_entry_copied(&entry), 0x0003);
    assert_int_equal(dropped.count, 1);
    assert_int_equal(dropped.grains[0], 200);
}

/* Every write over every kind of frozen home and base; damage goes along and is not read. */
static void
copies_are_right_for_all_masks(void **state)
{
    (void)state;
    struct random random;

    random_seed(&random, 11);
    for (uint32_t round = 0; round < 300000; round++) {
        uint16_t valid = (uint16_t)random_u64(&random);
        uint16_t mask = (uint16_t)random_u64(&random);
        struct map_entry entry = {
            .home = 200, .home_generation = 4, .valid = valid, .base = 100, .base_generation = 3,
            .zero = (uint16_t)((uint16_t)random_u64(&random) & ~valid),
        };
        uint16_t live = map_entry_live(&entry);
        entry.damaged = (uint16_t)random_u64(&random) & live;
        entry.copied = (uint16_t)random_u64(&random) & live;
        if (mask == 0 || valid == 0) {
            continue;
        }
        const struct map_entry old = entry;
        struct map_entry_dropped dropped = { 0 };
        struct map_entry_copy plan = map_entry_copy_plan(&entry, mask);
        assert_true(__builtin_popcount(plan.copy) <= 7);
        assert_int_equal(plan.read, plan.copy & ~old.damaged);
        map_entry_copied_home(&entry, mask, 300, 5, &dropped);
        assert_true(map_entry_is_sound(&entry));
        assert_int_equal(map_entry_live(&entry), live | mask);
        assert_int_equal(entry.damaged, old.damaged & ~mask);
        assert_int_equal(map_entry_copied(&entry), (old.copied | plan.copy) & ~mask);
        struct map_entry_sources before = map_entry_resolve(&old, UINT16_MAX);
        struct map_entry_sources after = map_entry_resolve(&entry, UINT16_MAX);
        assert_int_equal(after.home, mask | plan.copy);
        uint16_t kept = entry.base == 200   ? before.home
                        : entry.base == 100 ? before.base
                                            : 0;
        assert_int_equal(after.base & ~kept, 0); /* in its old place */
        assert_int_equal(dropped.count, entry.base == GRAIN_NONE ? 2 : 1);
    }
}

/* Transition 5. */
static void
merging_empties_the_base(void **state)
{
    (void)state;
    struct map_entry entry = {
        .home = 200, .home_generation = 4, .valid = 0x0003, .base = 100, .base_generation = 3,
        .zero = 0xff00, .damaged = 0x0010
    };
    struct map_entry_dropped dropped = { 0 };

    assert_int_equal(map_entry_merge_plan(&entry), 0x00fc);
    map_entry_merged(&entry, &dropped);
    assert_int_equal(entry.valid, 0x00ff);
    assert_int_equal(entry.zero, 0);
    assert_int_equal(entry.damaged, 0x0010);
    assert_int_equal(map_entry_copied(&entry), 0x00fc);
    assert_int_equal(dropped.count, 1);
    assert_int_equal(dropped.grains[0], 100);
    assert_true(map_entry_written(&entry, 0x0004, &dropped)); /* is a change now */
    assert_int_equal(map_entry_copied(&entry), 0x00f8);
    assert_false(map_entry_written(&entry, 0x0004, &dropped));
}

static void
adoption_replaces_what_is_inherited(void **state)
{
    (void)state;
    struct map_entry both = {
        .home = 200, .home_generation = 4, .valid = 0x0003, .base = 100, .base_generation = 3,
        .zero = 0xff00
    };
    struct map_entry own = both;

    assert_true(map_entry_adopt(&both, 4, 300, 5));
    assert_int_equal(both.home, 300);
    assert_int_equal(both.home_generation, 5);
    assert_int_equal(both.valid, 0x00ff);
    assert_int_equal(both.base, GRAIN_NONE);
    assert_int_equal(map_entry_copied(&both), 0x00ff);
    own.home_generation = 6;
    assert_true(map_entry_adopt(&own, 4, 300, 5));
    assert_int_equal(own.home, 200);
    assert_int_equal(own.base, 300);
    assert_int_equal(own.base_generation, 5);
    assert_int_equal(own.zero, 0xff00);
    assert_int_equal(map_entry_copied(&own), 0x00fc);
    assert_false(map_entry_adopt(&own, 4, 300, 5));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_write_to_nothing_needs_only_a_grain),
        cmocka_unit_test(write_over_a_frozen_home_copies_nothing),
        cmocka_unit_test(write_over_a_base_alone_keeps_it),
        cmocka_unit_test(frozen_home_over_a_base_wants_a_copy),
        cmocka_unit_test(zeroing_drops_what_supplies_nothing),
        cmocka_unit_test(zeroing_everything_drops_home_and_base),
        cmocka_unit_test(what_is_lost_stays_lost_until_it_is_rewritten),
        cmocka_unit_test(a_base_that_is_covered_is_dropped),
        cmocka_unit_test(a_copy_moves_the_lesser_side),
        cmocka_unit_test(copies_are_right_for_all_masks),
        cmocka_unit_test(merging_empties_the_base),
        cmocka_unit_test(adoption_replaces_what_is_inherited),
        cmocka_unit_test(random_sequences_agree_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
