/* SPDX-License-Identifier: Apache-2.0 */
/* Versions of map pages: which one is changed, which ones are dead, and what dies with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "volmgr/dead_versions_impl.h"
#include "volmgr/map_version_impl.h"

static void
changes_go_to_the_generation_of_now(void **state)
{
    struct map_version version;

    (void)state;
    map_version_loaded(&version, 4, 2);
    map_version_change(&version, 3, 6); /* nobody but the head sees 4: it is replaced */
    assert_int_equal(version.working, 6);
    assert_int_equal(version.previous, 2);
    assert_true(map_version_is_new(&version));
    assert_int_equal(map_version_replaced(&version), 4);
    assert_true(map_version_frees(&version, 3));
    assert_false(map_version_frees(&version, 2));
    map_version_encoded(&version);
    map_version_change(&version, 3, 6);
    assert_false(map_version_is_new(&version)); /* a small delta from now on */
    assert_int_equal(map_version_replaced(&version), 0);
}

static void
a_view_makes_the_next_change_a_new_version(void **state)
{
    struct map_version version;

    (void)state;
    map_version_loaded(&version, 4, 2);
    map_version_change(&version, 0, 4);
    assert_false(map_version_must_freeze(&version, 3));
    assert_true(map_version_must_freeze(&version, 4)); /* W2 */
    map_version_encoded(&version);
    map_version_change(&version, 4, 5);
    assert_int_equal(version.working, 5);
    assert_int_equal(version.previous, 4);
    assert_int_equal(map_version_replaced(&version), 0);
    map_version_died(&version, 4, 2);
    assert_int_equal(version.previous, 2);
}

static void
the_decision_stays_when_the_view_goes(void **state)
{
    struct map_version version;

    (void)state;
    map_version_loaded(&version, 4, 2);
    map_version_change(&version, 4, 5);
    map_version_change(&version, 2, 7); /* the view at 4 has been deleted, and two bumps */
    assert_int_equal(version.working, 5);
    assert_int_equal(version.previous, 4);
}

/* ---- links ---- */

enum { LINKS = 200 };

static int
compare_links(const void *left, const void *right)
{
    return version_link_compare(left, right);
}

static uint32_t
find_from(const struct version_link *links, const struct version_link *cursor)
{
    uint32_t index = 0;

    while (index < LINKS && version_link_compare(&links[index], cursor) < 0) {
        index++;
    }
    return index;
}

static bool
belongs(const struct version_link *link, const struct dead_gap *gap)
{
    return link->version > gap->above && link->version <= gap->below &&
           (link->previous > gap->above || (link->previous == 0 && gap->through));
}

static void
a_walk_finds_all_dead_and_nothing_else(void **state)
{
    struct version_link links[LINKS];
    struct random random;

    (void)state;
    random_seed(&random, 3);
    for (uint32_t round = 0; round < 2000; round++) {
        for (uint32_t i = 0; i < LINKS; i++) {
            links[i].version = 1 + (uint32_t)random_below(&random, 30);
            links[i].previous = (uint32_t)random_below(&random, links[i].version);
            links[i].page = i; /* each has a page of its own */
        }
        qsort(links, LINKS, sizeof(links[0]), compare_links);
        struct dead_gap gap = { .above = (uint32_t)random_below(&random, 28) };
        gap.below = gap.above + 1 + (uint32_t)random_below(&random, 10);
        gap.through = random_below(&random, 2) == 0;
        uint32_t expected = 0;
        for (uint32_t i = 0; i < LINKS; i++) {
            expected += belongs(&links[i], &gap);
        }
        struct version_link cursor;
        uint32_t found = 0;
        uint32_t looked_at = 0;
        dead_gap_begin(&gap, &cursor);
        for (;;) {
            uint32_t index = find_from(links, &cursor);
            if (index == LINKS) {
                break;
            }
            looked_at++;
            enum dead_step step = dead_gap_step(&gap, &links[index], &cursor);
            if (step == DEAD_END) {
                break;
            }
            if (step != DEAD_SEEK) {
                assert_true(belongs(&links[index], &gap));
                assert_int_equal(step == DEAD_LOOK, links[index].previous == 0);
                found++;
            }
        }
        assert_int_equal(found, expected);
        /* Beside what is dead, at most one look for each version number in the gap, and the end. */
        assert_true(looked_at <= found + (gap.below - gap.above) + 1);
    }
}

/* ---- grains ---- */

static void
what_a_neighbour_names_lives(void **state)
{
    const struct map_entry dying[2] = {
        { .home = 10, .home_generation = 5, .base = 9, .base_generation = 3, .valid = 1 },
        { .home = 20, .home_generation = 2, .valid = 1 },
    };
    const struct map_entry older[2] = { { .home = 9, .home_generation = 3, .valid = 1 } };
    const struct map_entry newer[2] = { { .home = 11, .home_generation = 6, .base = 10,
                                          .base_generation = 5, .valid = 2 } };
    struct dead_grain grains[4];

    (void)state;
    assert_int_equal(dead_version_grains(dying, older, newer, 2, 2, grains), 0); /* 20: inherited */
    assert_int_equal(dead_version_grains(dying, older, newer, 2, 1, grains), 1);
    assert_int_equal(grains[0].grain, 20);
    assert_int_equal(dead_version_grains(dying, NULL, newer, 2, 2, grains), 1);
    assert_int_equal(grains[0].grain, 9);
    assert_int_equal(dead_version_grains(dying, older, NULL, 2, 2, grains), 1);
    assert_int_equal(grains[0].grain, 10);
    assert_int_equal(grains[0].generation, 5);
    assert_int_equal(dead_version_grains(dying, NULL, NULL, 2, 0, grains), 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_go_to_the_generation_of_now),
        cmocka_unit_test(a_view_makes_the_next_change_a_new_version),
        cmocka_unit_test(the_decision_stays_when_the_view_goes),
        cmocka_unit_test(a_walk_finds_all_dead_and_nothing_else),
        cmocka_unit_test(what_a_neighbour_names_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
