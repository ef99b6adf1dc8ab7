/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/snapshot_space_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

/* ---- cells of a branch ---- */

void
space_cells_free(struct space_cells *cells)
{
    free(cells->cells);
    *cells = (struct space_cells){ 0 };
}

void
space_cells_copy(const struct space_cells *from, struct space_cells *ret_copy)
{
    *ret_copy = (struct space_cells){ .count = from->count, .capacity = from->count };
    if (from->count > 0) {
        ret_copy->cells = calloc(from->count, sizeof(*ret_copy->cells));
        ASSERT(ret_copy->cells != NULL);
        memcpy(ret_copy->cells, from->cells, from->count * sizeof(*from->cells));
    }
}

static bool
cell_is_before(const struct space_cell *cell, uint32_t birth, uint32_t death)
{
    return cell->death != death ? cell->death < death : cell->birth < birth;
}

/* Index of the first cell that is not before (birth, death). */
static uint32_t
cell_lower_bound(const struct space_cells *cells, uint32_t birth, uint32_t death)
{
    uint32_t low = 0;
    uint32_t high = cells->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (cell_is_before(&cells->cells[middle], birth, death)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void
cell_remove(struct space_cells *cells, uint32_t index)
{
    struct space_cell *cell = &cells->cells[index];

    memmove(cell, cell + 1, (cells->count - index - 1) * sizeof(*cell));
    cells->count--;
}

void
space_cells_add(struct space_cells *cells, uint32_t birth, uint32_t death, int64_t count)
{
    uint32_t index = cell_lower_bound(cells, birth, death);

    ASSERT_OP(birth, <, death);
    if (count == 0) {
        return;
    }
    if (index < cells->count && cells->cells[index].birth == birth &&
        cells->cells[index].death == death) {
        cells->cells[index].count += count;
        if (cells->cells[index].count == 0) {
            cell_remove(cells, index);
        }
        return;
    }
    if (cells->count == cells->capacity) {
        cells->capacity = MAX(8u, 2 * cells->capacity);
        cells->cells = realloc(cells->cells, cells->capacity * sizeof(*cells->cells));
        ASSERT(cells->cells != NULL);
    }
    struct space_cell *cell = &cells->cells[index];
    memmove(cell + 1, cell, (cells->count - index) * sizeof(*cell));
    *cell = (struct space_cell){ .death = death, .birth = birth, .count = count };
    cells->count++;
}

void
space_cells_move(struct space_cells *from, struct space_cells *to)
{
    for (uint32_t i = 0; i < from->count; i++) {
        space_cells_add(to, from->cells[i].birth, from->cells[i].death, from->cells[i].count);
    }
    space_cells_free(from);
}

/* ---- walking a line ---- */

/* A line as the cells are held against it. */
struct space_line {
    uint32_t *views;
    uint32_t view_count;
    uint32_t owned_above;
    bool has_head;
};

static void
line_begin(struct space_line *line, struct lineage_branch *branch)
{
    line->view_count = lineage_views(branch, NULL, 0);
    line->views = calloc((size_t)line->view_count + 1, sizeof(*line->views));
    ASSERT(line->views != NULL);
    lineage_views(branch, line->views, line->view_count);
    line->owned_above = lineage_owned_above(branch);
    line->has_head = lineage_top(branch)->has_head;
}

static void
line_end(struct space_line *line)
{
    free(line->views);
}

/* Index of the oldest view that is not below `generation`. */
static uint32_t
first_view(const struct space_line *line, uint32_t generation)
{
    uint32_t low = 0;
    uint32_t high = line->view_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (line->views[middle] < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/*
 * How many views see grains of (birth, death), the head counted as one behind the last; which one
 * sees them first.
 */
static uint32_t
seen_by(const struct space_line *line, uint32_t birth, uint32_t death, uint32_t *ret_first)
{
    uint32_t first = first_view(line, birth);

    *ret_first = first;
    if (death != SPACE_ALIVE) {
        return first_view(line, death) - first;
    }
    return line->view_count - first + (line->has_head ? 1 : 0);
}

/* Does this cell of a branch with this bound count in the line? (U2) */
static bool
cell_counts(const struct space_line *line, const struct space_cell *cell, uint32_t bound)
{
    return cell->birth > line->owned_above && cell->birth <= bound &&
           (cell->death == SPACE_ALIVE || cell->death <= bound);
}

/* Called for each class of grains, with how many there are; a grain is in one class only. */
typedef void class_fn(void *context, const struct space_line *line, uint32_t birth, uint32_t death,
                      int64_t count);

static void
walk_classes(const struct space_source *source, struct lineage_branch *branch,
             const struct space_line *line, class_fn *each, void *context)
{
    struct lineage_branch *top = lineage_top(branch);

    for (branch = lineage_bottom(branch);; branch = branch->continued_by) {
        const struct space_cells *cells = source->cells_of(source->context, branch);
        uint32_t bound = lineage_bound(branch);
        for (uint32_t i = 0; i < cells->count; i++) {
            const struct space_cell *cell = &cells->cells[i];
            if (!cell_counts(line, cell, bound)) {
                continue;
            }
            each(context, line, cell->birth, cell->death, cell->count);
            if (cell->death != SPACE_ALIVE) {
                each(context, line, cell->birth, SPACE_ALIVE, -cell->count);
            }
        }
        if (branch == top) {
            return;
        }
    }
}

static void
count_seen(void *context, const struct space_line *line, uint32_t birth, uint32_t death,
           int64_t count)
{
    int64_t *total = context;
    uint32_t first = 0;

    if (seen_by(line, birth, death, &first) > 0) {
        *total += count;
    }
}

uint64_t
space_line_grains(const struct space_source *source, struct lineage_branch *branch)
{
    struct space_line line;
    int64_t total = 0;

    line_begin(&line, branch);
    walk_classes(source, branch, &line, count_seen, &total);
    line_end(&line);
    return (uint64_t)MAX(total, INT64_C(0)); /* damaged counters may say anything */
}

static void
count_exclusive(void *context, const struct space_line *line, uint32_t birth, uint32_t death,
                int64_t count)
{
    int64_t *totals = context;
    uint32_t first = 0;

    if (seen_by(line, birth, death, &first) == 1) {
        totals[first] += count;
    }
}

void
space_line_exclusive(const struct space_source *source, struct lineage_branch *branch,
                     uint64_t *ret_grains)
{
    struct space_line line;

    line_begin(&line, branch);
    int64_t *totals = calloc((size_t)line.view_count + 1, sizeof(*totals));
    ASSERT(totals != NULL);
    walk_classes(source, branch, &line, count_exclusive, totals);
    for (uint32_t i = 0; i <= line.view_count; i++) {
        ret_grains[i] = (uint64_t)MAX(totals[i], INT64_C(0));
    }
    free(totals);
    line_end(&line);
}

uint64_t
space_total_grains(const struct space_source *source, struct lineage *lineage)
{
    uint64_t total = 0;

    list_for_each(&lineage->branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (branch->continued_by == NULL && !branch->ended) {
            total += space_line_grains(source, branch);
        }
    }
    return total;
}

/* ---- pruning ---- */

/* A dead cell is removed, and its grains are taken off those that were born. */
static uint64_t
prune_branch(const struct space_source *source, struct lineage_branch *branch,
             const struct space_line *line)
{
    struct space_cells *cells = source->cells_of(source->context, branch);
    uint32_t bound = lineage_bound(branch);
    uint64_t pruned = 0;
    uint32_t index = 0;

    while (index < cells->count) {
        struct space_cell cell = cells->cells[index];
        uint32_t first = 0;
        if (cell.death == SPACE_ALIVE || !cell_counts(line, &cell, bound) ||
            seen_by(line, cell.birth, cell.death, &first) > 0) {
            index++;
            continue;
        }
        cell_remove(cells, index);
        struct lineage_branch *born_in = lineage_segment(branch, cell.birth);
        space_cells_add(source->cells_of(source->context, born_in), cell.birth, SPACE_ALIVE,
                        -cell.count);
        pruned += (uint64_t)cell.count;
    }
    return pruned;
}

uint64_t
space_line_prune(const struct space_source *source, struct lineage_branch *branch)
{
    struct lineage_branch *top = lineage_top(branch);
    struct space_line line;
    uint64_t pruned = 0;

    line_begin(&line, branch);
    for (branch = lineage_bottom(branch);; branch = branch->continued_by) {
        pruned += prune_branch(source, branch, &line);
        if (branch == top) {
            break;
        }
    }
    line_end(&line);
    return pruned;
}

void
space_tail_prune(struct space_cells *cells, uint32_t above)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < cells->count; i++) {
        const struct space_cell *cell = &cells->cells[i];
        if (cell->birth <= above && (cell->death == SPACE_ALIVE || cell->death <= above)) {
            cells->cells[kept++] = *cell;
        }
    }
    cells->count = kept;
}

/* ---- what deleting would free ---- */

/* The branches of the copy have the cells of their originals; context: the original's source. */
static struct space_cells *
copied_cells_of(void *context, const struct lineage_branch *branch)
{
    const struct space_source *source = context;

    ASSERT(branch->twin != NULL);
    return source->cells_of(source->context, branch->twin);
}

uint64_t
space_freed_by(const struct space_source *source, struct lineage *lineage,
               const struct space_victim *victims, uint32_t count, bool *ret_hidden)
{
    struct lineage_jobs none = { 0 };
    struct lineage copy;
    struct space_source original = *source;
    struct space_source copy_source = { copied_cells_of, &original };
    uint64_t before = space_total_grains(source, lineage);

    lineage_copy(lineage, &copy);
    /* From each copy back to its original, for the cells. */
    list_for_each(&lineage->branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        branch->twin->twin = branch;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct lineage_branch *branch = victims[i].branch->twin;
        if (victims[i].generation == LINEAGE_FOREVER) {
            lineage_drop_head(branch, &none);
        } else {
            lineage_drop_view(branch, victims[i].generation, &none);
        }
    }
    for (uint32_t i = 0; ret_hidden != NULL && i < count; i++) {
        ret_hidden[i] = victims[i].generation != LINEAGE_FOREVER &&
                        lineage_find_view(victims[i].branch->twin, victims[i].generation) != NULL;
    }
    uint64_t after = space_total_grains(&copy_source, &copy);
    lineage_free(&copy);
    return before - MIN(after, before);
}
