/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Branches, the views on them, and what ends when a view is deleted. Pure: no I/O, no clock; one
 * for each pool, in memory, built from the records of branches and snapshots. Control reactor.
 *
 * THEORY OF OPERATION
 *
 * A branch is a key space of page versions, numbered by generation. It begins above its `fork`,
 * where look-ups leave it for its parent. A view is something that must stay readable: a generation
 * of a branch that a snapshot keeps, or the head, which is written. A generation that was kept and
 * has been deleted by its owner, but from which clones (dependents) were forked, stays as a hidden
 * view.
 *
 * A branch without a head whose topmost view has one dependent and nothing else above it is only
 * the past of that dependent: the dependent *continues* it. Branches that continue one another are
 * one *line*, lowest first; a line owns the grains of all generations above the fork of its lowest
 * branch, which is `owned_above`. All lines together are a tree of views, and what the rules below
 * come to is: a deleted view stays exactly while it is a branching point of that tree.
 *
 * When views go, page versions lose their last reader. Which ones is told by two kinds of jobs: a
 * gap (no view lies between two neighbours of a line any more; one job for each branch in it), and
 * a tail (nothing above a generation of a branch is seen any more). Jobs are of one branch, since
 * lines change while they wait: a branch that ends takes its gaps along, what they are about lies
 * in a tail then. They are worked on in the order in which they come, but the tails of a line
 * before its gaps: a gap compares versions with their neighbours of the line, and a tail is none.
 *
 * Invariants
 *  N1  Generations of a branch lie above its fork; fork is a view of the parent unless the branch
 *      continues it.
 *  N2  A branch that is continued has no head, no view above that fork, and no other continuer.
 *  N3  A hidden view has a dependent, and something else above it: another dependent, or the rest
 *      of its line.
 *  N4  The topmost branch of a line has a head or a view; one that has neither ends.
 *  N5  dependents of a view = branches forked there that do not continue.
 */
#ifndef VOLMGR_LINEAGE_IMPL_H
#define VOLMGR_LINEAGE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define LINEAGE_FOREVER UINT32_MAX /* above all generations; as a view: the head */

enum lineage_view_state {
    LINEAGE_PENDING, /* generation is being kept: already protected, not yet readable */
    LINEAGE_KEPT,
    LINEAGE_HIDDEN, /* deleted, but some clone needs it */
};

struct lineage_view {
    uint32_t generation;
    uint32_t dependents;
    enum lineage_view_state state;
};

struct lineage {
    struct list branches;
};

struct lineage_branch {
    struct lineage *lineage;
    struct list link; /* lineage->branches */
    uint64_t id;
    struct lineage_branch *parent; /* NULL: none */
    struct lineage_branch *continued_by;
    uint32_t fork; /* what is above it is the branch's own */
    uint32_t current;
    uint32_t children; /* branches that have this one as parent */
    uint32_t tails;    /* jobs of that kind that are not done */
    bool continues;    /* the parent: they are one line */
    bool has_head;
    bool complete;     /* every page has a version here: look-ups do not go to the parent */
    bool ended;        /* nothing sees it; it still knows its parent, until it is forgotten */
    struct lineage_view *views; /* by generation */
    uint32_t view_count;
    uint32_t view_capacity;
    struct lineage_branch *twin; /* lineage_copy(): the copy of this one */
};

/* ---- what became unreadable ---- */

enum lineage_death {
    LINEAGE_GAP,  /* what versions of `branch` up to `below` superseded, if born above `above` */
    LINEAGE_TAIL, /* all versions of `branch` above `above` */
};

struct lineage_job {
    enum lineage_death kind;
    struct lineage_branch *branch;
    uint32_t above;
    uint32_t below; /* of a gap: the next view, or the head's generation when the gap came about */
};

/* Receives the jobs that a deletion brings, in the order in which they are to be worked on. */
typedef void lineage_job_fn(void *context, const struct lineage_job *job);
struct lineage_jobs {
    lineage_job_fn *add; /* NULL: of no interest */
    void *context;
};

/* ---- the whole ---- */

void lineage_init(struct lineage *lineage);
void lineage_free(struct lineage *lineage);
/* An independent copy to try deletions on; finds the copy of a branch by `twin`. */
void lineage_copy(struct lineage *lineage, struct lineage *ret_copy);

/* A branch without a parent, with a head at generation 1. */
struct lineage_branch *lineage_add_root(struct lineage *lineage, uint64_t id);
/*
 * A branch with a head that begins at a KEPT view: a clone, or a rollback. Generation view + 1 is
 * left free for base versions; the first is view + 2.
 */
struct lineage_branch *lineage_fork(struct lineage *lineage, struct lineage_branch *parent,
                                    uint32_t view, uint64_t id);
/* An ended branch without children, whose versions are gone: out of the table. */
void lineage_forget(struct lineage_branch *branch);
/*
 * A branch in the middle or at the bottom of a line that has neither views, nor versions, nor other
 * children: the one that continues it takes its place. Then it has ended, without a parent.
 */
bool lineage_can_splice(const struct lineage_branch *branch);
void lineage_splice(struct lineage_branch *branch);

/* ---- from records ---- */

/*
 * A branch as its record has it; parents come before their children. Then all views, those of a
 * branch in ascending order; then lineage_load_end(), once.
 */
struct lineage_load {
    uint64_t id;
    struct lineage_branch *parent;
    uint32_t fork;
    uint32_t current;
    bool has_head;
    bool complete;
    bool continues;
};
struct lineage_branch *lineage_load_branch(struct lineage *lineage,
                                           const struct lineage_load *load);
void lineage_load_view(struct lineage_branch *branch, uint32_t generation,
                       enum lineage_view_state state);
/*
 * Who continues whom, what has ended, and dependents. NULL when N1 to N5 hold; else a branch with
 * which they do not: then the lineage can only be freed.
 */
const struct lineage_branch *lineage_load_end(struct lineage *lineage);
/*
 * Behind it: the tails that may be left of branches that have ended or were given up, upper
 * branches first. Nothing tells whether they have been removed already.
 */
void lineage_load_tails(struct lineage *lineage, const struct lineage_jobs *jobs);
/* And then the gap that a view which is no more may have left at that generation. */
void lineage_load_gap(struct lineage_branch *branch, uint32_t generation,
                      const struct lineage_jobs *jobs);

/* ---- views ---- */

/* NULL: there is none at that generation. */
struct lineage_view *lineage_find_view(const struct lineage_branch *branch, uint32_t generation);
/* The generation of now becomes a pending view; the head goes on with the next one. */
uint32_t lineage_bump(struct lineage_branch *branch);
/* Take it back: the newest view, PENDING, and nothing was written in the generation after it. */
void lineage_unbump(struct lineage_branch *branch);
/* PENDING to KEPT. */
void lineage_keep(struct lineage_branch *branch, uint32_t generation);
/* Delete a pending or kept view; it may stay as a hidden one. */
void lineage_drop_view(struct lineage_branch *branch, uint32_t generation,
                       const struct lineage_jobs *jobs);
/* The head is given up: its volume is deleted, or was rolled back to elsewhere. */
void lineage_drop_head(struct lineage_branch *branch, const struct lineage_jobs *jobs);
/*
 * Look for what lost its last reader around this generation, though no view was deleted: versions
 * have been inserted there.
 */
void lineage_add_gap(struct lineage_branch *branch, uint32_t generation,
                     const struct lineage_jobs *jobs);
/* A tail of the branch has been removed: lineage_frozen() may fall. */
void lineage_tail_done(struct lineage_branch *branch, const struct lineage_jobs *jobs);
/* Nothing of the line is inherited any more: its lowest branch leaves its parent. */
void lineage_promote(struct lineage_branch *branch, const struct lineage_jobs *jobs);

/* ---- lines ---- */

struct lineage_branch *lineage_top(struct lineage_branch *branch);
struct lineage_branch *lineage_bottom(struct lineage_branch *branch);
/* The line's own generations are above it. */
uint32_t lineage_owned_above(struct lineage_branch *branch);
/* The branch of the line, seen from `branch` downwards, that versions of `generation` are in. */
struct lineage_branch *lineage_segment(struct lineage_branch *branch, uint32_t generation);
/* Highest generation of `branch` that its line sees; LINEAGE_FOREVER for the topmost. */
uint32_t lineage_bound(const struct lineage_branch *branch);

/*
 * What the head may change lies above it: the newest view of the line below `generation`, or
 * owned_above. LINEAGE_FOREVER: for what is written now; a pending view: for writes that belong to
 * it. While a tail of a branch below has not been removed, nothing that the tail may name is
 * changed or freed either.
 */
uint32_t lineage_frozen(struct lineage_branch *branch, uint32_t generation);
/* Newest view of the line below `generation`, or owned_above. */
uint32_t lineage_view_below(struct lineage_branch *branch, uint32_t generation);
/* Oldest view of the line above `generation`; LINEAGE_FOREVER: the head, or nothing. */
uint32_t lineage_view_above(struct lineage_branch *branch, uint32_t generation);
/* Does a view of the line, or its head, lie in [from, to)? */
bool lineage_sees(struct lineage_branch *branch, uint32_t from, uint32_t to);
/* All views of the line but the head, in order; returns how many; writes up to `max`. */
uint32_t lineage_views(struct lineage_branch *branch, uint32_t *generations, uint32_t max);

/* ---- look-ups ---- */

/* One place to look for a page: the newest version of `branch` up to `generation`. */
struct lineage_step {
    struct lineage_branch *branch;
    uint32_t generation;
};
/* The first place for a view of `branch`; LINEAGE_FOREVER: its head. */
struct lineage_step lineage_first(struct lineage_branch *branch, uint32_t generation);
/* Where to look when there was nothing; false: the page is empty. */
bool lineage_next(struct lineage_step *step);
/*
 * As lineage_next(), but on from a complete branch, too: a reader finds nothing there, but what a
 * version supersedes, and which grains that names, is the line's affair.
 */
bool lineage_below(struct lineage_step *step);
/* Number of places that a look-up may have to visit. */
uint32_t lineage_depth(struct lineage_branch *branch);

/* N1 to N5, for tests and after loading. */
bool lineage_is_sound(const struct lineage *lineage);

#endif
