/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/snapshot_world.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

static const uint32_t STAMP_OF_FREE_GRAIN = 0xdeadbeef;

void
world_init(struct world *world, uint64_t seed)
{
    *world = (struct world){ .next_branch = 1, .next_stamp = 1 };
    random_seed(&world->random, seed);
    lineage_init(&world->lineage);
    world->grains = calloc(WORLD_GRAINS, sizeof(*world->grains));
    world->free_grains = calloc(WORLD_GRAINS, sizeof(*world->free_grains));
    ASSERT(world->grains != NULL && world->free_grains != NULL);
    for (uint32_t i = WORLD_GRAINS - 1; i > 0; i--) {
        world->free_grains[world->free_count++] = i;
    }
}

void
world_free(struct world *world)
{
    list_for_each_safe(&world->lineage.branches, link) {
        world_remove_stored(world, list_entry(link, struct lineage_branch, link));
    }
    lineage_free(&world->lineage);
    free(world->branches);
    free(world->grains);
    free(world->free_grains);
    free(world->jobs);
}

/* ---- branches ---- */

struct world_branch *
world_stored(const struct world *world, const struct lineage_branch *branch)
{
    ASSERT_OP(branch->id, <, world->branch_capacity);
    ASSERT(world->branches[branch->id] != NULL);
    return world->branches[branch->id];
}

struct world_branch *
world_add_stored(struct world *world, struct lineage_branch *branch)
{
    if (branch->id >= world->branch_capacity) {
        uint64_t capacity = MAX(UINT64_C(64), 2 * world->branch_capacity);
        world->branches = realloc(world->branches, capacity * sizeof(*world->branches));
        ASSERT(world->branches != NULL);
        memset(world->branches + world->branch_capacity, 0,
               (capacity - world->branch_capacity) * sizeof(*world->branches));
        world->branch_capacity = capacity;
    }
    struct world_branch *stored = calloc(1, sizeof(*stored));
    ASSERT(stored != NULL);
    stored->branch = branch;
    world->branches[branch->id] = stored;
    return stored;
}

void
world_remove_stored(struct world *world, struct lineage_branch *branch)
{
    struct world_branch *stored = world_stored(world, branch);

    for (uint32_t i = 0; i < WORLD_PAGES; i++) {
        free(stored->pages[i].versions);
    }
    free(stored->links);
    space_cells_free(&stored->cells);
    world->branches[branch->id] = NULL;
    free(stored);
}

static struct space_cells *
cells_of(void *context, const struct lineage_branch *branch)
{
    return &world_stored(context, branch)->cells;
}

struct space_source
world_space(struct world *world)
{
    return (struct space_source){ cells_of, world };
}

/* ---- grains ---- */

grain_address
world_take_grain(struct world *world)
{
    ASSERT_OP(world->free_count, >, 0u);
    /* The one that was freed last: what still refers to it is found out at once. */
    grain_address grain = world->free_grains[--world->free_count];
    ASSERT(!world->grains[grain].used);
    world->grains[grain].used = true;
    world->used_count++;
    return grain;
}

void
world_free_grain(struct world *world, grain_address grain)
{
    ASSERT(grain != GRAIN_NONE && world->grains[grain].used);
    world->grains[grain].used = false;
    for (uint32_t i = 0; i < BLOCKS_PER_GRAIN; i++) {
        world->grains[grain].stamps[i] = STAMP_OF_FREE_GRAIN;
    }
    world->free_grains[world->free_count++] = grain;
    world->used_count--;
}

uint32_t
world_read_block(const struct world *world, const struct map_entry *entry, uint32_t block)
{
    struct map_entry_sources sources = map_entry_resolve(entry, (uint16_t)(1u << block));

    if (sources.zero != 0) {
        return 0;
    }
    grain_address grain = sources.home != 0 ? entry->home : entry->base;
    ASSERT(world->grains[grain].used);
    return world->grains[grain].stamps[block];
}

/* ---- versions ---- */

/* Index of the first version whose number is not below `number`. */
static uint32_t
version_lower_bound(const struct world_page *page, uint32_t number)
{
    uint32_t index = 0;

    while (index < page->count && page->versions[index].number < number) {
        index++;
    }
    return index;
}

struct world_version *
world_find_version(const struct world *world, const struct lineage_branch *branch, uint32_t page,
                   uint32_t number)
{
    struct world_page *versions = &world_stored(world, branch)->pages[page];
    uint32_t index = version_lower_bound(versions, number);

    return index < versions->count && versions->versions[index].number == number
               ? &versions->versions[index]
               : NULL;
}

struct world_version *
world_next_version(const struct world *world, const struct lineage_branch *branch, uint32_t page,
                   uint32_t number)
{
    struct world_page *versions = &world_stored(world, branch)->pages[page];
    uint32_t index = version_lower_bound(versions, number + 1);

    return index < versions->count ? &versions->versions[index] : NULL;
}

static struct world_version *
floor_version(const struct world *world, const struct lineage_step *step, uint32_t page)
{
    struct world_page *versions = &world_stored(world, step->branch)->pages[page];
    uint32_t index = step->generation == LINEAGE_FOREVER
                         ? versions->count
                         : version_lower_bound(versions, step->generation + 1);

    return index > 0 ? &versions->versions[index - 1] : NULL;
}

struct world_version *
world_look_up(const struct world *world, struct lineage_step *step, uint32_t page)
{
    do {
        struct world_version *found = floor_version(world, step, page);
        if (found != NULL) {
            return found;
        }
    } while (lineage_next(step));
    return NULL;
}

struct world_version *
world_resolve(const struct world *world, struct lineage_branch *branch, uint32_t generation,
              uint32_t page)
{
    struct lineage_step step = lineage_first(branch, generation);

    return world_look_up(world, &step, page);
}

uint32_t
world_previous(const struct world *world, struct lineage_branch *branch, uint32_t number,
               uint32_t page, struct world_version **ret_version)
{
    struct lineage_step step = { branch, number - 1 };
    struct world_version *version = floor_version(world, &step, page);

    while (version == NULL && lineage_below(&step)) {
        version = floor_version(world, &step, page);
    }
    if (ret_version != NULL) {
        *ret_version = version;
    }
    return version != NULL ? version->number : 0;
}

void
world_put_version(struct world *world, struct lineage_branch *branch, uint32_t page,
                  uint32_t number, uint32_t previous, const struct map_entry *entries)
{
    struct world_branch *stored = world_stored(world, branch);
    struct world_page *versions = &stored->pages[page];
    uint32_t index = version_lower_bound(versions, number);
    struct version_link link = { .version = number, .previous = previous, .page = page };

    ASSERT_OP(number, >, branch->fork);
    ASSERT(index == versions->count || versions->versions[index].number > number);
    if (versions->count == versions->capacity) {
        versions->capacity = MAX(4u, 2 * versions->capacity);
        versions->versions =
            realloc(versions->versions, versions->capacity * sizeof(*versions->versions));
        ASSERT(versions->versions != NULL);
    }
    struct world_version *version = &versions->versions[index];
    memmove(version + 1, version, (versions->count - index) * sizeof(*version));
    versions->count++;
    version->number = number;
    memcpy(version->entries, entries, sizeof(version->entries));
    world_add_link(stored, &link);
}

void
world_remove_version(struct world *world, struct lineage_branch *branch, uint32_t page,
                     uint32_t number)
{
    struct world_branch *stored = world_stored(world, branch);
    struct world_page *versions = &stored->pages[page];
    uint32_t index = version_lower_bound(versions, number);
    struct version_link link = {
        .version = number,
        .previous = index > 0 ? versions->versions[index - 1].number : 0,
        .page = page,
    };

    ASSERT(index < versions->count && versions->versions[index].number == number);
    memmove(&versions->versions[index], &versions->versions[index + 1],
            (versions->count - index - 1) * sizeof(*versions->versions));
    versions->count--;
    world_remove_link(stored, &link);
}

/* ---- links ---- */

static uint32_t
link_lower_bound(const struct world_branch *stored, const struct version_link *cursor)
{
    uint32_t low = 0;
    uint32_t high = stored->link_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (version_link_compare(&stored->links[middle], cursor) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct version_link *
world_find_link(const struct world_branch *stored, const struct version_link *cursor)
{
    uint32_t index = link_lower_bound(stored, cursor);

    return index < stored->link_count ? &stored->links[index] : NULL;
}

void
world_add_link(struct world_branch *stored, const struct version_link *link)
{
    uint32_t index = link_lower_bound(stored, link);

    ASSERT(index == stored->link_count || version_link_compare(&stored->links[index], link) != 0);
    if (stored->link_count == stored->link_capacity) {
        stored->link_capacity = MAX(16u, 2 * stored->link_capacity);
        stored->links = realloc(stored->links, stored->link_capacity * sizeof(*stored->links));
        ASSERT(stored->links != NULL);
    }
    memmove(&stored->links[index + 1], &stored->links[index],
            (stored->link_count - index) * sizeof(*stored->links));
    stored->links[index] = *link;
    stored->link_count++;
}

void
world_remove_link(struct world_branch *stored, const struct version_link *link)
{
    uint32_t index = link_lower_bound(stored, link);

    ASSERT(index < stored->link_count && version_link_compare(&stored->links[index], link) == 0);
    memmove(&stored->links[index], &stored->links[index + 1],
            (stored->link_count - index - 1) * sizeof(*stored->links));
    stored->link_count--;
}
