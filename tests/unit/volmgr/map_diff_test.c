/* SPDX-License-Identifier: Apache-2.0 */
/* Changed blocks between two entries, and their runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "volmgr/map_diff_impl.h"
#include "volmgr/map_entry_impl.h"

static const struct map_diff_views SAME_LINE = { .same_line = true, .older = 3 };
static const struct map_entry OLDER = { .home = 10, .home_generation = 3, .valid = 0x00ff };

static void
what_is_in_the_same_grain_is_the_same(void **state)
{
    struct map_entry newer = OLDER;
    struct map_entry_dropped dropped = { 0 };

    (void)state;
    assert_int_equal(map_entry_diff(&OLDER, &newer, &SAME_LINE).changed, 0);
    map_entry_attach_home(&newer, 20, 4);
    map_entry_written(&newer, 0x0102, &dropped);
    struct map_diff diff = map_entry_diff(&OLDER, &newer, &SAME_LINE);
    assert_int_equal(diff.changed, 0x0102);
    assert_int_equal(diff.compare, 0);
    map_entry_zeroed(&newer, 0x0001, &dropped);
    assert_int_equal(map_entry_diff(&OLDER, &newer, &SAME_LINE).changed, 0x0103);
}

static void
what_was_moved_is_not_changed(void **state)
{
    struct map_entry newer = OLDER;
    struct map_entry_dropped dropped = { 0 };
    struct map_diff_views views = SAME_LINE;

    (void)state;
    map_entry_attach_home(&newer, 20, 4);
    map_entry_written(&newer, 0x0001, &dropped);
    map_entry_merged(&newer, &dropped); /* all others move to 20 */
    assert_int_equal(newer.base, GRAIN_NONE);
    struct map_diff diff = map_entry_diff(&OLDER, &newer, &views);
    assert_int_equal(diff.changed, 0x0001);
    assert_int_equal(diff.compare, 0);
    /* Moved later than right behind the older view: only the bytes tell. */
    views.older = 2;
    diff = map_entry_diff(&OLDER, &newer, &views);
    assert_int_equal(diff.changed, 0x0001);
    assert_int_equal(diff.compare, 0x00fe);
    /* Nor is it trusted after an unclean end, or across branches. */
    views = (struct map_diff_views){ .same_line = true, .older = 3, .unclean = 4 };
    assert_int_equal(map_entry_diff(&OLDER, &newer, &views).compare, 0x00fe);
    views = (struct map_diff_views){ .older = 3 };
    assert_int_equal(map_entry_diff(&OLDER, &newer, &views).compare, 0x00fe);
    assert_int_equal(map_entry_diff(&newer, &OLDER, &views).compare, 0x00fe);
}

static void
an_overwrite_of_what_was_moved_is_a_change(void **state)
{
    struct map_entry newer = OLDER;
    struct map_entry_dropped dropped = { 0 };

    (void)state;
    map_entry_attach_home(&newer, 20, 4);
    map_entry_written(&newer, 0x0001, &dropped);
    map_entry_merged(&newer, &dropped);
    assert_true(map_entry_write_changes(&newer, 0x0002));
    assert_true(map_entry_overwritten(&newer, 0x0002));
    assert_false(map_entry_overwritten(&newer, 0x0002));
    assert_int_equal(map_entry_diff(&OLDER, &newer, &SAME_LINE).changed, 0x0003);
}

static void
what_cannot_be_read_counts_as_changed(void **state)
{
    struct map_entry newer = OLDER;
    struct map_diff_views across = { 0 };

    (void)state;
    map_entry_lost(&newer, 0x0004);
    assert_int_equal(map_entry_diff(&OLDER, &newer, &SAME_LINE).changed, 0x0004);
    struct map_entry moved = newer;
    moved.home = 30;
    moved.copied = 0x00ff;
    struct map_diff diff = map_entry_diff(&newer, &moved, &across);
    assert_int_equal(diff.changed, 0x0004);
    assert_int_equal(diff.compare, 0x00fb);
}

static void
runs_are_as_long_as_possible(void **state)
{
    struct map_diff_run list[2];
    struct map_diff_runs runs = { .runs = list, .max = ARRAY_SIZE(list) };

    (void)state;
    assert_true(map_diff_add(&runs, 5, 0xf000));
    assert_true(map_diff_add(&runs, 6, 0x0003));
    assert_int_equal(runs.count, 1);
    assert_int_equal(list[0].first_block, 5 * 16 + 12);
    assert_int_equal(list[0].block_count, 6);
    assert_true(map_diff_add(&runs, 7, 0x0000));
    /* No room for two more: nothing of that grain is added. */
    assert_false(map_diff_add(&runs, 8, 0x0005));
    assert_int_equal(runs.count, 1);
    assert_true(map_diff_add(&runs, 8, 0x8000));
    assert_false(map_diff_add(&runs, 9, 0x0101));
    assert_int_equal(list[1].block_count, 1); /* not lengthened either */
    assert_true(map_diff_add(&runs, 9, 0x0001));
    assert_int_equal(list[1].block_count, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_in_the_same_grain_is_the_same),
        cmocka_unit_test(what_was_moved_is_not_changed),
        cmocka_unit_test(an_overwrite_of_what_was_moved_is_a_change),
        cmocka_unit_test(what_cannot_be_read_counts_as_changed),
        cmocka_unit_test(runs_are_as_long_as_possible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
