/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of grains by when they came and went: who holds what, what a deletion frees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "volmgr/snapshot_space_impl.h"

enum { BRANCHES = 4 };

struct rig {
    struct lineage lineage;
    struct space_cells cells[BRANCHES];
    struct space_source source;
    struct lineage_branch *root;
};

static struct space_cells *
cells_of(void *context, const struct lineage_branch *branch)
{
    struct rig *rig = context;

    assert_true(branch->id < BRANCHES);
    return &rig->cells[branch->id];
}

static void
rig_init(struct rig *rig)
{
    *rig = (struct rig){ 0 };
    lineage_init(&rig->lineage);
    rig->source = (struct space_source){ cells_of, rig };
    rig->root = lineage_add_root(&rig->lineage, 1);
}

static void
rig_free(struct rig *rig)
{
    lineage_free(&rig->lineage);
    for (uint32_t i = 0; i < BRANCHES; i++) {
        space_cells_free(&rig->cells[i]);
    }
}

static uint32_t
keep(struct lineage_branch *branch)
{
    uint32_t generation = lineage_bump(branch);
    lineage_keep(branch, generation);
    return generation;
}

/* 10 grains in generation 1, of which 4 are dropped in 2 and 3 in 3; 5 more in 2. */
static void
three_generations(struct rig *rig)
{
    keep(rig->root);
    keep(rig->root);
    space_cells_add(&rig->cells[1], 1, SPACE_ALIVE, 10);
    space_cells_add(&rig->cells[1], 1, 2, 4);
    space_cells_add(&rig->cells[1], 1, 3, 3);
    space_cells_add(&rig->cells[1], 2, SPACE_ALIVE, 5);
}

static void
each_view_holds_what_only_it_sees(void **state)
{
    struct rig rig;
    uint64_t grains[3];

    (void)state;
    rig_init(&rig);
    three_generations(&rig);
    assert_int_equal(space_line_grains(&rig.source, rig.root), 15);
    space_line_exclusive(&rig.source, rig.root, grains);
    assert_int_equal(grains[0], 4); /* seen by view 1 alone */
    assert_int_equal(grains[1], 0);
    assert_int_equal(grains[2], 0); /* the head has written nothing since */
    space_cells_add(&rig.cells[1], 3, SPACE_ALIVE, 2);
    space_line_exclusive(&rig.source, rig.root, grains);
    assert_int_equal(grains[2], 2);
    rig_free(&rig);
}

static void
a_set_frees_more_than_its_members_hold(void **state)
{
    struct rig rig;
    struct lineage_jobs none = { 0 };
    bool hidden[2];

    (void)state;
    rig_init(&rig);
    three_generations(&rig);
    const struct space_victim both[] = { { rig.root, 1 }, { rig.root, 2 } };
    assert_int_equal(space_freed_by(&rig.source, &rig.lineage, &both[0], 1, hidden), 4);
    assert_int_equal(space_freed_by(&rig.source, &rig.lineage, &both[1], 1, hidden), 0);
    assert_int_equal(space_freed_by(&rig.source, &rig.lineage, both, 2, hidden), 7);
    assert_false(hidden[0] || hidden[1]);
    /* Nothing was changed by asking. */
    assert_int_equal(lineage_views(rig.root, NULL, 0), 2);
    lineage_drop_view(rig.root, 1, &none);
    lineage_drop_view(rig.root, 2, &none);
    assert_int_equal(space_line_grains(&rig.source, rig.root), 8);
    assert_int_equal(space_line_prune(&rig.source, rig.root), 7);
    assert_int_equal(space_line_grains(&rig.source, rig.root), 8);
    assert_int_equal(rig.cells[1].count, 2);
    rig_free(&rig);
}

static void
a_clone_holds_its_view(void **state)
{
    struct rig rig;
    bool hidden[3];

    (void)state;
    rig_init(&rig);
    three_generations(&rig);
    struct lineage_branch *clone = lineage_fork(&rig.lineage, rig.root, 1, 2);
    space_cells_add(&rig.cells[2], 3, SPACE_ALIVE, 6); /* its own, over 6 of the 10 */
    space_cells_add(&rig.cells[2], 1, 3, 6);
    assert_int_equal(space_total_grains(&rig.source, &rig.lineage), 21);
    const struct space_victim victims[] = {
        { rig.root, 1 }, { rig.root, 2 }, { rig.root, LINEAGE_FOREVER },
    };
    assert_int_equal(space_freed_by(&rig.source, &rig.lineage, victims, 1, hidden), 0);
    assert_true(hidden[0]);
    /*
     * The whole origin: the clone continues it, and what it has overwritten goes as well: 5 of
     * generation 2, and 6 of the 10.
     */
    assert_int_equal(space_freed_by(&rig.source, &rig.lineage, victims, 3, hidden), 11);
    assert_false(hidden[0]);
    const struct space_victim all[] = {
        { clone, LINEAGE_FOREVER }, victims[0], victims[1], victims[2],
    };
    assert_int_equal(space_freed_by(&rig.source, &rig.lineage, all, 4, NULL), 21);
    rig_free(&rig);
}

static void
a_head_that_was_given_up_counts_for_nothing(void **state)
{
    struct rig rig;
    struct lineage_jobs none = { 0 };

    (void)state;
    rig_init(&rig);
    three_generations(&rig);
    lineage_fork(&rig.lineage, rig.root, 1, 2); /* a rollback to 1; 2 stays aside */
    lineage_drop_head(rig.root, &none);
    assert_int_equal(space_line_grains(&rig.source, rig.root), 15);
    lineage_drop_view(rig.root, 2, &none); /* now the new branch continues the old one */
    assert_int_equal(space_line_grains(&rig.source, rig.root), 10);
    space_tail_prune(&rig.cells[1], 1);
    assert_int_equal(space_line_grains(&rig.source, rig.root), 10);
    assert_int_equal(rig.cells[1].count, 1);
    rig_free(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_view_holds_what_only_it_sees),
        cmocka_unit_test(a_set_frees_more_than_its_members_hold),
        cmocka_unit_test(a_clone_holds_its_view),
        cmocka_unit_test(a_head_that_was_given_up_counts_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
