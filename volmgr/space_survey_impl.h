/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of reclaim know of a survey of counters, beside reclaim_impl.h. */
#ifndef VOLMGR_SPACE_SURVEY_IMPL_H
#define VOLMGR_SPACE_SURVEY_IMPL_H

#include "volmgr/reclaim_impl.h"

struct space_table_row {
    uint64_t branch;
    struct space_cells cells;
};

/* The cells of each branch that the pool had when the survey began, by ascending id. */
struct space_table {
    struct space_table_row *rows;
    size_t count;
    struct byte_buffer empties; /* struct history_counter[]: records of 0 */
    struct space_cells none; /* of a branch that is newer than the survey: always empty */
    /* What was asked last: a line, and what each of its views, and then the head, holds alone. */
    const struct lineage_branch *top;
    uint32_t *views;
    uint64_t *grains;
    uint32_t view_count;
};

struct space_table *space_survey_table(const struct space_survey *survey);
struct space_source space_survey_source(const struct space_survey *survey);
/* NULL: the branch is newer than the survey. */
struct space_cells *space_table_cells(struct space_table *table, uint64_t branch);

#endif
