/* SPDX-License-Identifier: Apache-2.0 */
/* Branches, views and lines: what look-ups see, what stays when something is deleted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "volmgr/lineage_impl.h"

struct seen_jobs {
    struct lineage_job jobs[16];
    uint32_t count;
};

static void
note_job(void *context, const struct lineage_job *job)
{
    struct seen_jobs *seen = context;

    assert_true(seen->count < ARRAY_SIZE(seen->jobs));
    seen->jobs[seen->count++] = *job;
}

static void
assert_job(const struct seen_jobs *seen, uint32_t index, enum lineage_death kind, uint64_t branch,
           uint32_t above)
{
    assert_true(index < seen->count);
    assert_int_equal(seen->jobs[index].kind, kind);
    assert_int_equal(seen->jobs[index].branch->id, branch);
    assert_int_equal(seen->jobs[index].above, above);
}

/* Keep the generation of now; returns it. */
static uint32_t
keep(struct lineage_branch *branch)
{
    uint32_t generation = lineage_bump(branch);
    lineage_keep(branch, generation);
    return generation;
}

static void
a_view_freezes_what_is_older(void **state)
{
    struct lineage lineage;
    struct lineage_jobs none = { 0 };

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *root = lineage_add_root(&lineage, 1);
    assert_int_equal(lineage_frozen(root, LINEAGE_FOREVER), 0);
    assert_int_equal(keep(root), 1);
    assert_int_equal(lineage_bump(root), 2); /* pending protects, too */
    assert_int_equal(lineage_frozen(root, LINEAGE_FOREVER), 2);
    assert_int_equal(lineage_frozen(root, 2), 1);
    assert_true(lineage_sees(root, 2, 3));
    assert_false(lineage_sees(root, 3, 4));
    assert_true(lineage_sees(root, 3, LINEAGE_FOREVER)); /* the head */
    lineage_drop_view(root, 2, &none); /* abandoned */
    assert_int_equal(lineage_frozen(root, LINEAGE_FOREVER), 1);
    assert_int_equal(root->current, 3); /* the generation stays used */
    assert_true(lineage_is_sound(&lineage));
    lineage_free(&lineage);
}

static void
look_ups_go_through_the_fork(void **state)
{
    struct lineage lineage;

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *root = lineage_add_root(&lineage, 1);
    keep(root);
    uint32_t fork = keep(root);
    keep(root);
    struct lineage_branch *clone = lineage_fork(&lineage, root, fork, 2);
    assert_int_equal(clone->current, fork + 2); /* fork + 1 is left for base versions */
    assert_int_equal(lineage_frozen(clone, LINEAGE_FOREVER), fork);
    struct lineage_step step = lineage_first(clone, LINEAGE_FOREVER);
    assert_ptr_equal(step.branch, clone);
    assert_true(lineage_next(&step));
    assert_ptr_equal(step.branch, root);
    assert_int_equal(step.generation, fork); /* not what the root did later */
    assert_false(lineage_next(&step));
    assert_int_equal(lineage_depth(clone), 2);
    clone->complete = true;
    step = lineage_first(clone, LINEAGE_FOREVER);
    assert_false(lineage_next(&step));
    assert_true(lineage_below(&step));
    lineage_free(&lineage);
}

static void
a_deleted_view_with_clones_is_hidden(void **state)
{
    struct lineage lineage;
    struct seen_jobs seen = { 0 };
    struct lineage_jobs jobs = { note_job, &seen };

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *root = lineage_add_root(&lineage, 1);
    uint32_t view = keep(root);
    struct lineage_branch *clone = lineage_fork(&lineage, root, view, 2);
    lineage_drop_view(root, view, &jobs);
    assert_int_equal(lineage_find_view(root, view)->state, LINEAGE_HIDDEN);
    assert_int_equal(seen.count, 0);
    lineage_drop_head(clone, &jobs);
    assert_true(clone->ended);
    assert_null(lineage_find_view(root, view)); /* with its last clone */
    assert_job(&seen, 0, LINEAGE_TAIL, 2, view);
    assert_job(&seen, seen.count - 1, LINEAGE_GAP, 1, 0);
    assert_true(lineage_is_sound(&lineage));
    lineage_free(&lineage);
}

/* The origin of the only clone is deleted: nothing holds what the clone has overwritten. */
static void
the_only_clone_continues_its_origin(void **state)
{
    struct lineage lineage;
    struct seen_jobs seen = { 0 };
    struct lineage_jobs jobs = { note_job, &seen };

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *root = lineage_add_root(&lineage, 1);
    uint32_t older = keep(root);
    uint32_t view = keep(root);
    struct lineage_branch *clone = lineage_fork(&lineage, root, view, 2);
    lineage_drop_view(root, view, &jobs);
    lineage_drop_head(root, &jobs);
    assert_true(clone->continues);
    assert_ptr_equal(lineage_top(root), clone);
    assert_int_equal(lineage_owned_above(clone), 0);
    assert_null(lineage_find_view(root, view));
    assert_job(&seen, 0, LINEAGE_TAIL, 1, view);
    assert_job(&seen, 1, LINEAGE_GAP, 1, older); /* the lower branch first */
    assert_job(&seen, 2, LINEAGE_GAP, 2, older);
    /* Nothing that the tail may still name is changed before it is gone. */
    assert_int_equal(lineage_frozen(clone, LINEAGE_FOREVER), view);
    lineage_tail_done(root, &jobs);
    assert_int_equal(lineage_frozen(clone, LINEAGE_FOREVER), older);
    assert_int_equal(lineage_view_above(clone, 0), older);
    assert_true(lineage_is_sound(&lineage));

    lineage_drop_view(root, older, &jobs);
    assert_true(lineage_can_splice(root));
    lineage_splice(root);
    lineage_forget(root);
    assert_null(clone->parent);
    assert_int_equal(lineage_owned_above(clone), 0);
    assert_true(lineage_is_sound(&lineage));
    lineage_free(&lineage);
}

static void
rollback_keeps_later_snapshots_aside(void **state)
{
    struct lineage lineage;
    struct lineage_jobs none = { 0 };

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *old = lineage_add_root(&lineage, 1);
    uint32_t first = keep(old);
    uint32_t later = keep(old);
    struct lineage_branch *new = lineage_fork(&lineage, old, first, 2);
    lineage_drop_head(old, &none);
    assert_false(new->continues); /* the later snapshot is still above */
    assert_int_equal(lineage_owned_above(new), first);
    lineage_drop_view(old, first, &none);
    assert_int_equal(lineage_find_view(old, first)->state, LINEAGE_HIDDEN);
    lineage_drop_view(old, later, &none);
    assert_true(new->continues);
    assert_int_equal(lineage_views(new, NULL, 0), 0);
    assert_true(lineage_is_sound(&lineage));
    lineage_free(&lineage);
}

static void
promotion_lets_go_of_the_origin(void **state)
{
    struct lineage lineage;
    struct lineage_jobs none = { 0 };

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *root = lineage_add_root(&lineage, 1);
    uint32_t view = keep(root);
    struct lineage_branch *clone = lineage_fork(&lineage, root, view, 2);
    lineage_drop_view(root, view, &none);
    lineage_promote(clone, &none);
    assert_null(clone->parent);
    assert_null(lineage_find_view(root, view));
    assert_int_equal(root->children, 0);
    assert_true(lineage_is_sound(&lineage));
    lineage_free(&lineage);
}

static void
a_copy_is_independent(void **state)
{
    struct lineage lineage;
    struct lineage copy;
    struct lineage_jobs none = { 0 };

    (void)state;
    lineage_init(&lineage);
    struct lineage_branch *root = lineage_add_root(&lineage, 1);
    uint32_t view = keep(root);
    lineage_fork(&lineage, root, view, 2);
    lineage_copy(&lineage, &copy);
    lineage_drop_view(root->twin, view, &none);
    assert_int_equal(lineage_find_view(root, view)->state, LINEAGE_KEPT);
    assert_int_equal(lineage_find_view(root->twin, view)->state, LINEAGE_HIDDEN);
    assert_true(lineage_is_sound(&lineage) && lineage_is_sound(&copy));
    lineage_free(&copy);
    lineage_free(&lineage);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_freezes_what_is_older),
        cmocka_unit_test(look_ups_go_through_the_fork),
        cmocka_unit_test(a_deleted_view_with_clones_is_hidden),
        cmocka_unit_test(the_only_clone_continues_its_origin),
        cmocka_unit_test(rollback_keeps_later_snapshots_aside),
        cmocka_unit_test(promotion_lets_go_of_the_origin),
        cmocka_unit_test(a_copy_is_independent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
