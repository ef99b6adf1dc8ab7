/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/map_diff_impl.h"

#include "base/assert.h"
#include "volmgr/map_entry_impl.h"

/* Where one block is. */
struct source {
    grain_address grain; /* GRAIN_NONE: it reads as zeroes */
    uint32_t generation;
    bool copied;
    bool damaged; /* what it held cannot be read */
};

static struct source
source_of(const struct map_entry *entry, uint32_t block)
{
    uint16_t bit = (uint16_t)(1u << block);
    struct map_entry_sources sources = map_entry_resolve(entry, bit);
    struct source source = {
        .copied = (map_entry_copied(entry) & bit) != 0,
        .damaged = (entry->damaged & bit) != 0,
    };

    if (sources.home != 0) {
        source.grain = entry->home;
        source.generation = entry->home_generation;
    } else if (sources.base != 0) {
        source.grain = entry->base;
        source.generation = entry->base_generation;
    }
    return source;
}

enum verdict {
    BLOCK_SAME,
    BLOCK_CHANGED,
    BLOCK_COMPARE,
};

static enum verdict
compare_sources(const struct source *older, const struct source *newer,
                const struct map_diff_views *views)
{
    if (older->grain == newer->grain) {
        return BLOCK_SAME;
    }
    if (newer->grain == GRAIN_NONE) {
        return BLOCK_CHANGED;
    }
    if (newer->copied) {
        bool is_what_older_shows = views->same_line && newer->generation == views->older + 1 &&
                                   newer->generation > views->unclean;
        return is_what_older_shows ? BLOCK_SAME : BLOCK_COMPARE;
    }
    if (older->copied && !views->same_line) {
        return BLOCK_COMPARE; /* it may have been moved from where the newer view has it */
    }
    /* Never seen within one line: a block does not move back. Bytes tell in any case. */
    if (views->same_line && newer->generation <= views->older && older->grain != GRAIN_NONE) {
        return BLOCK_COMPARE;
    }
    return BLOCK_CHANGED;
}

struct map_diff
map_entry_diff(const struct map_entry *older, const struct map_entry *newer,
               const struct map_diff_views *views)
{
    struct map_diff diff = { 0 };

    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        struct source from = source_of(older, block);
        struct source to = source_of(newer, block);
        uint16_t bit = (uint16_t)(1u << block);

        enum verdict verdict = compare_sources(&from, &to, views);
        if (from.damaged != to.damaged || (to.damaged && verdict == BLOCK_COMPARE)) {
            verdict = BLOCK_CHANGED; /* there are no bytes to compare */
        }
        switch (verdict) {
        case BLOCK_SAME:
            break;
        case BLOCK_CHANGED:
            diff.changed |= bit;
            break;
        case BLOCK_COMPARE:
            diff.compare |= bit;
            break;
        }
    }
    ASSERT_OP(diff.changed & diff.compare, ==, 0);
    return diff;
}

bool
map_diff_add(struct map_diff_runs *runs, uint64_t volume_grain, uint16_t changed)
{
    uint32_t before = runs->count;
    struct map_diff_run last = before > 0 ? runs->runs[before - 1] : (struct map_diff_run){ 0 };

    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        uint64_t at = volume_grain * BLOCKS_PER_GRAIN + block;
        if ((changed >> block & 1) == 0) {
            continue;
        }
        struct map_diff_run *run = runs->count > 0 ? &runs->runs[runs->count - 1] : NULL;
        if (run != NULL && run->first_block + run->block_count == at) {
            run->block_count++;
            continue;
        }
        if (runs->count == runs->max) {
            runs->count = before;
            if (before > 0) {
                runs->runs[before - 1] = last;
            }
            return false;
        }
        ASSERT(run == NULL || run->first_block + run->block_count < at);
        runs->runs[runs->count++] = (struct map_diff_run){ at, 1 };
    }
    return true;
}
