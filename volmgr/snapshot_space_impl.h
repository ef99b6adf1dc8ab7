/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose space is it: counts of grains by when they came and went. Pure.
 *
 * THEORY OF OPERATION
 *
 * For each branch there are cells: (birth, SPACE_ALIVE) counts the grains that the branch allocated
 * in generation `birth` and that have not been freed; (birth, death) those of them, or of what the
 * branch inherited, that its head dropped in generation `death` while an older version named them.
 * A grain that was dropped is seen by the views from its birth up to, not including, its death; one
 * that was not by all from its birth on, the head included. So the cells of a line and its views
 * tell what each view holds alone, and what a deletion of any set of views frees.
 *
 * Inherited grains count for nobody here but the line that owns them. Deaths of inherited grains
 * are noted all the same: they count from the moment at which the branch continues its parent.
 *
 * Invariants
 *  U1  Within a line, the cells (b, d) of a birth sum up to no more than (b, SPACE_ALIVE).
 *  U2  Cells of a branch above its line's bound (of a head that was given up) count for nothing.
 */
#ifndef VOLMGR_SNAPSHOT_SPACE_IMPL_H
#define VOLMGR_SNAPSHOT_SPACE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "volmgr/lineage_impl.h"

#define SPACE_ALIVE UINT32_MAX

struct space_cell {
    uint32_t death; /* SPACE_ALIVE: not dropped by the head */
    uint32_t birth;
    int64_t count;
};

/* The cells of one branch, by death and birth. */
struct space_cells {
    struct space_cell *cells;
    uint32_t count;
    uint32_t capacity;
};

void space_cells_free(struct space_cells *cells);
void space_cells_copy(const struct space_cells *from, struct space_cells *ret_copy);
/* Add to a cell, which appears with the first and disappears when it is 0. */
void space_cells_add(struct space_cells *cells, uint32_t birth, uint32_t death, int64_t count);
/* All of them, to the branch that takes the place of one that is spliced out of its line. */
void space_cells_move(struct space_cells *from, struct space_cells *to);
/* The cells of a branch that is in the lineage. */
typedef struct space_cells *space_cells_fn(void *context, const struct lineage_branch *branch);

struct space_source {
    space_cells_fn *cells_of;
    void *context;
};

/* Of the line of a branch: grains that some view or the head sees. */
uint64_t space_line_grains(const struct space_source *source, struct lineage_branch *branch);
/*
 * Grains that exactly one view of the line sees, for each of its views in order, and then for the
 * head: room for lineage_views() + 1. Clones of a view are not looked at: what has dependents frees
 * nothing when it is deleted.
 */
void space_line_exclusive(const struct space_source *source, struct lineage_branch *branch,
                          uint64_t *ret_grains);
/* Of all lines. */
uint64_t space_total_grains(const struct space_source *source, struct lineage *lineage);

/*
 * Take what nobody sees out of the cells of a line: after its dead versions have been removed.
 * Returns the number of grains.
 */
uint64_t space_line_prune(const struct space_source *source, struct lineage_branch *branch);
/* Take out what lies above `above` in this branch: its tail has been removed. */
void space_tail_prune(struct space_cells *cells, uint32_t above);

/* ---- what deleting would free ---- */

/* One item of the set that is to be deleted. */
struct space_victim {
    struct lineage_branch *branch;
    uint32_t generation; /* of a view; LINEAGE_FOREVER: the head */
};

/*
 * Grains that deleting all of them, in one go or in any order, frees; with all that ends because of
 * it. `ret_hidden` (room for `count`, or NULL) tells which views stay because clones need them.
 * Nothing is changed.
 */
uint64_t space_freed_by(const struct space_source *source, struct lineage *lineage,
                        const struct space_victim *victims, uint32_t count, bool *ret_hidden);

#endif
