/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which page versions have lost their last reader, and which grains die with them. Pure.
 *
 * THEORY OF OPERATION
 *
 * A stored version of a page has a link, a record that is sorted by the version's number and then
 * by that of the version of the same branch that it superseded. So links are a list of deaths: the
 * superseded version is seen by the views from its own number up to, not including, the number that
 * superseded it. When no view is left between two neighbouring views, what was born and superseded
 * between them is dead, and a walk over the links finds it without passing what lives. Only the
 * first version of a page in a branch does not say what it superseded further down: where the line
 * goes on below the branch, that is looked up.
 *
 * A grain belongs to one entry of one page for life and is named by consecutive versions of it. So
 * what dies with a version is what neither of its neighbours in the line names.
 *
 * Invariants
 *  D1  Each stored version has exactly one link; its `previous` is the next older stored version
 *      of the page in the same branch, or 0. So links of a branch tell nothing of other branches.
 *  D2  Only grains of generations above the line's owned_above are freed.
 */
#ifndef VOLMGR_DEAD_VERSIONS_IMPL_H
#define VOLMGR_DEAD_VERSIONS_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "metadata/schema.h"

struct version_link {
    uint32_t version;
    uint32_t previous; /* what it superseded in its branch; 0: nothing */
    uint64_t page;
};

/* Order of the links: by version, previous, page. As memcmp(). */
int version_link_compare(const struct version_link *left, const struct version_link *right);

/* No view lies in (above, below): versions born there and superseded up to `below` are dead. */
struct dead_gap {
    uint32_t above;
    uint32_t below; /* the next view, or what the head wrote when the gap came about */
    bool through;   /* the line, and the gap, go on below the branch whose links these are */
};

enum dead_step {
    DEAD_TAKE, /* link->previous of link->page is dead */
    DEAD_LOOK, /* so is what the page shows further down the line, if that is above `above` */
    DEAD_SEEK, /* not this one; look for the next from the cursor on */
    DEAD_END,  /* nothing more */
};

/* Where a walk begins: the first link of interest is not below the cursor. */
void dead_gap_begin(const struct dead_gap *gap, struct version_link *ret_cursor);
/* The first link not below the cursor is `link`: what of it, and from where to look on. */
enum dead_step dead_gap_step(const struct dead_gap *gap, const struct version_link *link,
                             struct version_link *ret_cursor);

struct dead_grain {
    grain_address grain;
    uint32_t generation;
};

/*
 * The own grains that entries of a dying version name, and neither those of the `older` nor of the
 * `newer` version (NULL: there is none in the line). Room for two an entry. Returns how many.
 */
uint32_t dead_version_grains(const struct map_entry *dying, const struct map_entry *older,
                             const struct map_entry *newer, uint32_t entry_count,
                             uint32_t owned_above, struct dead_grain *ret_grains);

#endif
