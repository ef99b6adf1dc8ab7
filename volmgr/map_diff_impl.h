/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changed blocks between two views of one grain of a volume, exact to 4 KiB. Pure.
 *
 * THEORY OF OPERATION
 *
 * What is in a frozen grain never changes, so a block that both views have in the same grain is the
 * same. A block in another grain was written after the older view, unless it has only been moved
 * there by a copy or merge (`copied`): then the entries alone may not tell, and both places have to
 * be read and compared. That is possible, since both views are readable, and it is always exact.
 *
 * Where the two views are of one line, a block that was moved in the first generation behind the
 * older view was moved from what that view shows, and need not be compared; unless the daemon ended
 * uncleanly in that generation, when a bit that says `copied` may have outlived an overwrite.
 */
#ifndef VOLMGR_MAP_DIFF_IMPL_H
#define VOLMGR_MAP_DIFF_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "metadata/schema.h"

struct map_diff_views {
    bool same_line;     /* `older` is below `newer` on one line */
    uint32_t older;     /* generation of the older view; of interest with same_line */
    uint32_t unclean;   /* `copied` is not trusted in grains of generations up to it; 0: none */
};

struct map_diff {
    uint16_t changed; /* these blocks have been written or zeroed in between */
    uint16_t compare; /* these may have: compare the bytes */
};

struct map_diff map_entry_diff(const struct map_entry *older, const struct map_entry *newer,
                               const struct map_diff_views *views);

/* ---- runs of changed blocks ---- */

struct map_diff_run {
    uint64_t first_block; /* of the volume; 4 KiB each */
    uint64_t block_count;
};

/* Collects masks, in order of the volume, into runs as long as possible. */
struct map_diff_runs {
    struct map_diff_run *runs;
    uint32_t count;
    uint32_t max;
};
/* False: there is no room for another run; nothing of this grain has been added. */
bool map_diff_add(struct map_diff_runs *runs, uint64_t volume_grain, uint16_t changed);

#endif
