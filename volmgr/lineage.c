/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/lineage_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

static void line_settle(struct lineage_branch *branch, const struct lineage_jobs *jobs);

/* ---- the whole ---- */

void
lineage_init(struct lineage *lineage)
{
    list_init(&lineage->branches);
}

static void
branch_free(struct lineage_branch *branch)
{
    list_remove(&branch->link);
    free(branch->views);
    free(branch);
}

void
lineage_free(struct lineage *lineage)
{
    list_for_each_safe(&lineage->branches, link) {
        branch_free(list_entry(link, struct lineage_branch, link));
    }
}

static struct lineage_branch *
branch_new(struct lineage *lineage, uint64_t id)
{
    struct lineage_branch *branch = calloc(1, sizeof(*branch));

    ASSERT(branch != NULL);
    branch->id = id;
    branch->lineage = lineage;
    list_push_back(&lineage->branches, &branch->link);
    return branch;
}

void
lineage_copy(struct lineage *lineage, struct lineage *ret_copy)
{
    lineage_init(ret_copy);
    list_for_each(&lineage->branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        branch->twin = branch_new(ret_copy, branch->id);
    }
    list_for_each(&lineage->branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        struct lineage_branch *twin = branch->twin;
        struct list own = twin->link;
        *twin = *branch;
        twin->link = own;
        twin->lineage = ret_copy;
        twin->twin = NULL;
        twin->parent = branch->parent != NULL ? branch->parent->twin : NULL;
        twin->continued_by = branch->continued_by != NULL ? branch->continued_by->twin : NULL;
        twin->view_capacity = branch->view_count;
        twin->views = NULL;
        if (branch->view_count > 0) {
            twin->views = calloc(branch->view_count, sizeof(*twin->views));
            ASSERT(twin->views != NULL);
            memcpy(twin->views, branch->views, branch->view_count * sizeof(*twin->views));
        }
    }
}

struct lineage_branch *
lineage_add_root(struct lineage *lineage, uint64_t id)
{
    struct lineage_branch *branch = branch_new(lineage, id);

    branch->current = 1;
    branch->has_head = true;
    return branch;
}

struct lineage_branch *
lineage_fork(struct lineage *lineage, struct lineage_branch *parent, uint32_t view, uint64_t id)
{
    struct lineage_view *from = lineage_find_view(parent, view);

    ASSERT(from != NULL && from->state == LINEAGE_KEPT);
    ASSERT_OP(view, <, LINEAGE_FOREVER - 2);
    struct lineage_branch *branch = branch_new(lineage, id);
    branch->parent = parent;
    branch->fork = view;
    branch->current = view + 2;
    branch->has_head = true;
    parent->children++;
    from->dependents++;
    line_settle(parent, &(struct lineage_jobs){ 0 }); /* nothing is deleted by that */
    return branch;
}

void
lineage_forget(struct lineage_branch *branch)
{
    ASSERT(branch->ended);
    ASSERT_OP(branch->children, ==, 0u);
    if (branch->parent != NULL) {
        ASSERT_OP(branch->parent->children, >, 0u);
        branch->parent->children--;
    }
    branch_free(branch);
}

bool
lineage_can_splice(const struct lineage_branch *branch)
{
    return branch->continued_by != NULL && branch->view_count == 0 && branch->children == 1;
}

void
lineage_splice(struct lineage_branch *branch)
{
    struct lineage_branch *above = branch->continued_by;

    ASSERT(lineage_can_splice(branch));
    above->parent = branch->parent;
    above->fork = branch->fork;
    above->continues = branch->continues;
    if (branch->continues) {
        branch->parent->continued_by = above;
    }
    /* The number of the parent's children stays: one for the other. */
    branch->continued_by = NULL;
    branch->parent = NULL;
    branch->continues = false;
    branch->children = 0;
    branch->ended = true;
}

/* ---- lines ---- */

struct lineage_branch *
lineage_top(struct lineage_branch *branch)
{
    while (branch->continued_by != NULL) {
        branch = branch->continued_by;
    }
    return branch;
}

struct lineage_branch *
lineage_bottom(struct lineage_branch *branch)
{
    while (branch->continues) {
        branch = branch->parent;
    }
    return branch;
}

uint32_t
lineage_owned_above(struct lineage_branch *branch)
{
    return lineage_bottom(branch)->fork;
}

struct lineage_branch *
lineage_segment(struct lineage_branch *branch, uint32_t generation)
{
    while (branch->continues && generation <= branch->fork) {
        branch = branch->parent;
    }
    return branch;
}

uint32_t
lineage_bound(const struct lineage_branch *branch)
{
    return branch->continued_by != NULL ? branch->continued_by->fork : LINEAGE_FOREVER;
}

/* Index of the first view of the branch whose generation is not below `generation`. */
static uint32_t
view_lower_bound(const struct lineage_branch *branch, uint32_t generation)
{
    uint32_t low = 0;
    uint32_t high = branch->view_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (branch->views[middle].generation < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

uint32_t
lineage_view_below(struct lineage_branch *branch, uint32_t generation)
{
    for (branch = lineage_top(branch);; branch = branch->parent) {
        uint32_t index = view_lower_bound(branch, generation);
        if (index > 0) {
            return branch->views[index - 1].generation;
        }
        if (!branch->continues) {
            return branch->fork;
        }
    }
}

uint32_t
lineage_frozen(struct lineage_branch *branch, uint32_t generation)
{
    uint32_t newest = lineage_view_below(branch, generation);

    for (branch = lineage_top(branch); branch->continues && branch->fork > newest;
         branch = branch->parent) {
        if (branch->parent->tails > 0) {
            return branch->fork;
        }
    }
    return newest;
}

uint32_t
lineage_view_above(struct lineage_branch *branch, uint32_t generation)
{
    uint32_t found = LINEAGE_FOREVER;

    for (branch = lineage_top(branch);; branch = branch->parent) {
        uint32_t index = generation == LINEAGE_FOREVER ? branch->view_count
                                                       : view_lower_bound(branch, generation + 1);
        if (index < branch->view_count) {
            found = branch->views[index].generation;
        }
        if (!branch->continues || branch->fork <= generation) {
            return found;
        }
    }
}

static uint32_t
gap_end(struct lineage_branch *branch, uint32_t generation)
{
    uint32_t above = lineage_view_above(branch, generation);

    return above != LINEAGE_FOREVER ? above : lineage_top(branch)->current;
}

bool
lineage_sees(struct lineage_branch *branch, uint32_t from, uint32_t to)
{
    ASSERT_OP(from, <, to);
    if (to == LINEAGE_FOREVER && lineage_top(branch)->has_head) {
        return true;
    }
    uint32_t newest = lineage_view_below(branch, to);
    return newest >= from && newest > lineage_owned_above(branch);
}

uint32_t
lineage_views(struct lineage_branch *branch, uint32_t *generations, uint32_t max)
{
    struct lineage_branch *top = lineage_top(branch);
    uint32_t count = 0;

    for (branch = lineage_bottom(branch);; branch = branch->continued_by) {
        for (uint32_t i = 0; i < branch->view_count; i++, count++) {
            if (count < max) {
                generations[count] = branch->views[i].generation;
            }
        }
        if (branch == top) {
            return count;
        }
    }
}

/* ---- views ---- */

struct lineage_view *
lineage_find_view(const struct lineage_branch *branch, uint32_t generation)
{
    uint32_t index = view_lower_bound(branch, generation);

    return index < branch->view_count && branch->views[index].generation == generation
               ? &branch->views[index]
               : NULL;
}

static void
view_append(struct lineage_branch *branch, uint32_t generation, enum lineage_view_state state)
{
    ASSERT(branch->view_count == 0 ||
           branch->views[branch->view_count - 1].generation < generation);
    if (branch->view_count == branch->view_capacity) {
        branch->view_capacity = MAX(4u, 2 * branch->view_capacity);
        branch->views = realloc(branch->views, branch->view_capacity * sizeof(*branch->views));
        ASSERT(branch->views != NULL);
    }
    branch->views[branch->view_count++] = (struct lineage_view){
        .generation = generation,
        .state = state,
    };
}

uint32_t
lineage_bump(struct lineage_branch *branch)
{
    uint32_t generation = branch->current;

    ASSERT(branch->has_head && branch->continued_by == NULL);
    ASSERT_OP(generation, <, LINEAGE_FOREVER - 2);
    view_append(branch, generation, LINEAGE_PENDING);
    branch->current++;
    return generation;
}

void
lineage_unbump(struct lineage_branch *branch)
{
    ASSERT(branch->has_head && branch->view_count > 0);
    const struct lineage_view *view = &branch->views[branch->view_count - 1];
    ASSERT(view->state == LINEAGE_PENDING && view->dependents == 0);
    ASSERT_OP(view->generation + 1, ==, branch->current);
    branch->view_count--;
    branch->current--;
}

void
lineage_keep(struct lineage_branch *branch, uint32_t generation)
{
    struct lineage_view *view = lineage_find_view(branch, generation);

    ASSERT(view != NULL && view->state == LINEAGE_PENDING);
    view->state = LINEAGE_KEPT;
}

static void
add_job(const struct lineage_jobs *jobs, enum lineage_death kind, struct lineage_branch *branch,
        uint32_t above, uint32_t below)
{
    struct lineage_job job = { .kind = kind, .branch = branch, .above = above, .below = below };

    if (jobs->add != NULL) {
        branch->tails += kind == LINEAGE_TAIL;
        jobs->add(jobs->context, &job);
    }
}

/* A view without dependents goes. */
static void
view_remove(struct lineage_branch *branch, struct lineage_view *view,
            const struct lineage_jobs *jobs)
{
    uint32_t generation = view->generation;
    size_t behind = (size_t)(&branch->views[branch->view_count] - (view + 1));

    ASSERT_OP(view->dependents, ==, 0u);
    memmove(view, view + 1, behind * sizeof(*view));
    branch->view_count--;
    if (lineage_top(branch)->has_head ||
        lineage_view_above(branch, generation) != LINEAGE_FOREVER) {
        lineage_add_gap(branch, generation, jobs);
    } else {
        /* It was the topmost of a line without a head; what it alone saw is a tail now. */
        uint32_t above = lineage_view_below(branch, generation);
        add_job(jobs, LINEAGE_TAIL, branch, MAX(above, branch->fork), LINEAGE_FOREVER);
    }
}

void
lineage_add_gap(struct lineage_branch *branch, uint32_t generation,
                const struct lineage_jobs *jobs)
{
    uint32_t above = lineage_view_below(branch, generation);
    uint32_t below = gap_end(branch, generation);

    /*
     * From the lowest up: when the head replaces a version meanwhile, what that had superseded
     * hangs on a link of a higher branch from then on, never of a lower one.
     */
    branch = lineage_segment(lineage_top(branch), above + 1);
    for (; branch != NULL && branch->fork < below; branch = branch->continued_by) {
        add_job(jobs, LINEAGE_GAP, branch, above, below);
    }
}

void
lineage_tail_done(struct lineage_branch *branch, const struct lineage_jobs *jobs)
{
    const struct lineage_branch *above = branch->continued_by;

    ASSERT_OP(branch->tails, >, 0u);
    if (--branch->tails == 0 && above != NULL && lineage_find_view(branch, above->fork) == NULL) {
        /* Until now the head has superseded what it else would have replaced. */
        lineage_add_gap(branch, above->fork, jobs);
    }
}

/* The one branch that was forked at this view and does not continue. */
static struct lineage_branch *
only_dependent(const struct lineage_branch *parent, uint32_t generation)
{
    list_for_each(&parent->lineage->branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (branch->parent == parent && branch->fork == generation && !branch->continues &&
            !branch->ended) {
            return branch;
        }
    }
    UNREACHABLE(); /* N5 */
}

/* A dependent of the view has gone. */
static void
view_release(struct lineage_branch *branch, uint32_t generation, const struct lineage_jobs *jobs)
{
    struct lineage_view *view = lineage_find_view(branch, generation);

    ASSERT(view != NULL);
    ASSERT_OP(view->dependents, >, 0u);
    view->dependents--;
    if (view->dependents == 0 && view->state == LINEAGE_HIDDEN) {
        view_remove(branch, view, jobs);
    }
    line_settle(branch, jobs);
}

/*
 * The topmost branch of a line has neither head nor views: nothing sees it any more. Returns what
 * is the topmost one then; NULL: the line has ended.
 */
static struct lineage_branch *
top_end(struct lineage_branch *branch, const struct lineage_jobs *jobs)
{
    struct lineage_branch *parent = branch->parent;

    ASSERT(!branch->ended && !branch->has_head && branch->continued_by == NULL);
    branch->ended = true;
    add_job(jobs, LINEAGE_TAIL, branch, branch->fork, LINEAGE_FOREVER);
    if (!branch->continues) {
        if (parent != NULL) {
            view_release(parent, branch->fork, jobs);
        }
        return NULL;
    }
    parent->continued_by = NULL;
    uint32_t newest = parent->view_count > 0 ? parent->views[parent->view_count - 1].generation
                                             : parent->fork;
    add_job(jobs, LINEAGE_TAIL, parent, newest, LINEAGE_FOREVER);
    return parent;
}

/* Of a line without a head: what of N2 to N4 does not hold is made so. */
static void
line_settle(struct lineage_branch *branch, const struct lineage_jobs *jobs)
{
    struct lineage_branch *top = lineage_top(branch);

    while (top != NULL && !top->has_head && top->view_count == 0 && !top->ended) {
        top = top_end(top, jobs);
    }
    if (top == NULL || top->has_head || top->ended) {
        return;
    }
    struct lineage_view *view = &top->views[top->view_count - 1];
    if (view->dependents != 1) {
        return;
    }
    struct lineage_branch *dependent = only_dependent(top, view->generation);
    dependent->continues = true;
    top->continued_by = dependent;
    view->dependents = 0;
    if (view->state == LINEAGE_HIDDEN) {
        view_remove(top, view, jobs);
    }
}

void
lineage_drop_view(struct lineage_branch *branch, uint32_t generation,
                  const struct lineage_jobs *jobs)
{
    struct lineage_view *view = lineage_find_view(branch, generation);

    ASSERT(view != NULL && view->state != LINEAGE_HIDDEN);
    if (view->dependents > 0) {
        view->state = LINEAGE_HIDDEN;
        return;
    }
    view_remove(branch, view, jobs);
    line_settle(branch, jobs);
}

void
lineage_drop_head(struct lineage_branch *branch, const struct lineage_jobs *jobs)
{
    ASSERT(branch->has_head && branch->continued_by == NULL);
    branch->has_head = false;
    uint32_t newest = branch->view_count > 0 ? branch->views[branch->view_count - 1].generation
                                             : branch->fork;
    add_job(jobs, LINEAGE_TAIL, branch, newest, LINEAGE_FOREVER);
    line_settle(branch, jobs);
}

void
lineage_promote(struct lineage_branch *branch, const struct lineage_jobs *jobs)
{
    struct lineage_branch *bottom = lineage_bottom(branch);
    struct lineage_branch *parent = bottom->parent;

    ASSERT(parent != NULL);
    bottom->parent = NULL;
    ASSERT_OP(parent->children, >, 0u);
    parent->children--;
    view_release(parent, bottom->fork, jobs);
}

/* ---- look-ups ---- */

struct lineage_step
lineage_first(struct lineage_branch *branch, uint32_t generation)
{
    ASSERT(generation > lineage_owned_above(branch));
    return (struct lineage_step){ lineage_segment(branch, generation), generation };
}

bool
lineage_below(struct lineage_step *step)
{
    const struct lineage_branch *branch = step->branch;

    if (branch->parent == NULL) {
        return false;
    }
    step->generation = MIN(step->generation, branch->fork);
    step->branch = branch->parent;
    return true;
}

bool
lineage_next(struct lineage_step *step)
{
    return !step->branch->complete && lineage_below(step);
}

uint32_t
lineage_depth(struct lineage_branch *branch)
{
    struct lineage_step step = lineage_first(branch, LINEAGE_FOREVER);
    uint32_t depth = 1;

    while (lineage_next(&step)) {
        depth++;
    }
    return depth;
}

/* ---- from records ---- */

struct lineage_branch *
lineage_load_branch(struct lineage *lineage, const struct lineage_load *load)
{
    struct lineage_branch *branch = branch_new(lineage, load->id);

    ASSERT_OP(load->fork, <, load->current);
    branch->parent = load->parent;
    branch->fork = load->fork;
    branch->current = load->current;
    branch->has_head = load->has_head;
    branch->complete = load->complete;
    branch->continues = load->continues;
    if (branch->parent != NULL) {
        branch->parent->children++;
    }
    return branch;
}

void
lineage_load_view(struct lineage_branch *branch, uint32_t generation,
                  enum lineage_view_state state)
{
    ASSERT(generation > branch->fork && generation < branch->current);
    view_append(branch, generation, state);
}

void
lineage_load_tails(struct lineage *lineage, const struct lineage_jobs *jobs)
{
    for (struct list *link = lineage->branches.prev; link != &lineage->branches;
         link = link->prev) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        uint32_t above = branch->fork;
        if (branch->has_head) {
            continue;
        }
        if (branch->continued_by != NULL) {
            above = branch->continued_by->fork;
        } else if (branch->view_count > 0) {
            above = branch->views[branch->view_count - 1].generation;
        }
        add_job(jobs, LINEAGE_TAIL, branch, above, LINEAGE_FOREVER);
    }
}

void
lineage_load_gap(struct lineage_branch *branch, uint32_t generation,
                 const struct lineage_jobs *jobs)
{
    if (branch->ended || generation > lineage_bound(branch)) {
        return; /* in a tail */
    }
    if (lineage_top(branch)->has_head ||
        lineage_view_above(branch, generation) != LINEAGE_FOREVER) {
        lineage_add_gap(branch, generation, jobs);
    }
}

/* ---- soundness ---- */

/* N5, at the cost of a look at all branches. */
static bool
dependents_are_sound(const struct lineage_branch *branch)
{
    for (uint32_t i = 0; i < branch->view_count; i++) {
        const struct lineage_view *view = &branch->views[i];
        uint32_t dependents = 0;
        list_for_each(&branch->lineage->branches, link) {
            const struct lineage_branch *child = list_entry(link, struct lineage_branch, link);
            dependents += child->parent == branch && child->fork == view->generation &&
                          !child->continues && !child->ended;
        }
        if (dependents != view->dependents) {
            return false;
        }
    }
    return true;
}

static bool
views_are_sound(const struct lineage_branch *branch)
{
    for (uint32_t i = 0; i < branch->view_count; i++) {
        const struct lineage_view *view = &branch->views[i];
        bool topmost = i + 1 == branch->view_count && !branch->has_head &&
                       branch->continued_by == NULL;

        if (view->generation <= branch->fork || view->generation >= branch->current ||
            view->generation > lineage_bound(branch) ||
            (i > 0 && branch->views[i - 1].generation >= view->generation)) {
            return false;
        }
        if ((topmost && view->dependents == 1) ||
            (view->state == LINEAGE_HIDDEN && view->dependents == 0)) {
            return false;
        }
    }
    return true;
}

static bool
branch_is_sound(const struct lineage_branch *branch)
{
    const struct lineage_branch *parent = branch->parent;
    const struct lineage_branch *above = branch->continued_by;

    if (branch->current <= branch->fork || (branch->continues && parent == NULL)) {
        return false;
    }
    if (branch->ended) {
        return !branch->has_head && branch->view_count == 0 && above == NULL;
    }
    if (above != NULL) {
        if (branch->has_head || above->parent != branch || !above->continues || above->ended) {
            return false;
        }
    } else if (!branch->has_head && branch->view_count == 0) {
        return false;
    }
    if (parent != NULL) {
        bool is_view = lineage_find_view(parent, branch->fork) != NULL;
        if (parent->ended || (branch->continues ? parent->continued_by != branch : !is_view)) {
            return false;
        }
    }
    return views_are_sound(branch);
}

const struct lineage_branch *
lineage_load_end(struct lineage *lineage)
{
    /* Children before their parents: what continues a branch decides whether that has ended. */
    for (struct list *link = lineage->branches.prev; link != &lineage->branches;
         link = link->prev) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        struct lineage_branch *parent = branch->parent;
        branch->ended = !branch->has_head && branch->view_count == 0 &&
                        branch->continued_by == NULL;
        if (parent == NULL || branch->ended) {
            continue;
        }
        if (branch->continues) {
            if (parent->continued_by != NULL || parent->has_head) {
                return branch;
            }
            parent->continued_by = branch;
            continue;
        }
        struct lineage_view *view = lineage_find_view(parent, branch->fork);
        if (view == NULL || view->state == LINEAGE_PENDING) {
            return branch;
        }
        view->dependents++;
    }
    list_for_each(&lineage->branches, link) {
        const struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (!branch_is_sound(branch)) {
            return branch;
        }
    }
    return NULL;
}

bool
lineage_is_sound(const struct lineage *lineage)
{
    list_for_each(&lineage->branches, link) {
        const struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (!branch_is_sound(branch) || !dependents_are_sound(branch)) {
            return false;
        }
    }
    return true;
}
