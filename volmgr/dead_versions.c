/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/dead_versions_impl.h"

#include "base/assert.h"
#include "volmgr/map_entry_impl.h"

int
version_link_compare(const struct version_link *left, const struct version_link *right)
{
    if (left->version != right->version) {
        return left->version < right->version ? -1 : 1;
    }
    if (left->previous != right->previous) {
        return left->previous < right->previous ? -1 : 1;
    }
    return left->page < right->page ? -1 : left->page > right->page;
}

void
dead_gap_begin(const struct dead_gap *gap, struct version_link *ret_cursor)
{
    ASSERT_OP(gap->above, <, gap->below);
    /* The oldest that can be dead is above + 1, and what supersedes it is younger still. */
    *ret_cursor = (struct version_link){
        .version = gap->above + 1,
        .previous = gap->through ? 0 : gap->above + 1,
    };
}

enum dead_step
dead_gap_step(const struct dead_gap *gap, const struct version_link *link,
              struct version_link *ret_cursor)
{
    ASSERT_OP(link->previous, <, link->version);
    if (link->version > gap->below) {
        return DEAD_END;
    }
    bool look = link->previous == 0 && gap->through;
    if (!look && link->previous <= gap->above) {
        *ret_cursor = (struct version_link){
            .version = link->version,
            .previous = gap->above + 1,
        };
        return DEAD_SEEK;
    }
    *ret_cursor = *link;
    ret_cursor->page++;
    return look ? DEAD_LOOK : DEAD_TAKE;
}

static bool
is_named(const struct map_entry *entries, uint32_t index, grain_address grain)
{
    return entries != NULL && map_entry_names(&entries[index], grain);
}

uint32_t
dead_version_grains(const struct map_entry *dying, const struct map_entry *older,
                    const struct map_entry *newer, uint32_t entry_count, uint32_t owned_above,
                    struct dead_grain *ret_grains)
{
    uint32_t count = 0;

    for (uint32_t index = 0; index < entry_count; index++) {
        const struct map_entry *entry = &dying[index];
        const struct dead_grain grains[2] = {
            { entry->home, entry->home_generation },
            { entry->base, entry->base_generation },
        };
        for (uint32_t i = 0; i < 2; i++) {
            if (grains[i].grain != GRAIN_NONE && grains[i].generation > owned_above &&
                !is_named(older, index, grains[i].grain) &&
                !is_named(newer, index, grains[i].grain)) {
                ret_grains[count++] = grains[i];
            }
        }
    }
    ASSERT_OP(count, <=, 2 * entry_count);
    return count;
}
