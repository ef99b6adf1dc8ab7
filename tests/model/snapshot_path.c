/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of a volume: first writes, writes that are late when a view begins, pages that freeze
 * when they are next changed, and what becomes of the grains that are dropped.
 */
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/model/snapshot_world.h"

uint32_t
volume_frozen(const struct world_volume *volume)
{
    return lineage_frozen(volume->branch, LINEAGE_FOREVER);
}

/* For writes that belong to the pending view; views may be deleted while it is pending. */
static uint32_t
pending_frozen(const struct world_volume *volume)
{
    return lineage_frozen(volume->branch, volume->pending);
}

/* ---- pages ---- */

struct head_page *
volume_page(struct world *world, struct world_volume *volume, uint32_t page)
{
    struct head_page *head = &volume->pages[page];

    if (head->loaded) {
        return head;
    }
    struct lineage_step step = lineage_first(volume->branch, LINEAGE_FOREVER);
    struct world_version *found = world_look_up(world, &step, page);
    *head = (struct head_page){ .loaded = true };
    if (found == NULL) {
        map_version_loaded(&head->version, 0, 0);
        return head;
    }
    memcpy(head->entries, found->entries, sizeof(head->entries));
    /* Own or inherited: what is inherited is not above `frozen`, and so never changed. */
    map_version_loaded(&head->version, found->number,
                       world_previous(world, step.branch, found->number, page, NULL));
    return head;
}

static void
stored_view(const struct head_page *head, struct map_entry entries[static WORLD_ENTRIES])
{
    memcpy(entries, head->entries, sizeof(head->entries));
    for (uint32_t i = 0; i < WORLD_ENTRIES; i++) {
        if (head->fresh[i]) {
            ASSERT_OP(entries[i].valid, ==, 0);
            entries[i].home = GRAIN_NONE;
            entries[i].home_generation = 0;
        }
    }
}

static void
page_encode(struct world *world, struct world_volume *volume, uint32_t page)
{
    struct head_page *head = &volume->pages[page];
    struct map_version *version = &head->version;
    struct lineage_branch *branch = lineage_segment(volume->branch, version->working);
    struct map_entry entries[WORLD_ENTRIES];

    stored_view(head, entries);
    uint32_t replaced = map_version_replaced(version);
    if (replaced != 0) {
        world_remove_version(world, lineage_segment(volume->branch, replaced), page, replaced);
    }
    if (map_version_is_new(version)) {
        uint32_t local = version->previous > branch->fork ? version->previous : 0;
        world_put_version(world, branch, page, version->working, local, entries);
    } else {
        /* A MERGE must find what it is merged into. */
        struct world_version *stored =
            world_find_version(world, branch, page, version->working);
        ASSERT(stored != NULL);
        memcpy(stored->entries, entries, sizeof(entries));
    }
    map_version_encoded(version);
}

/*
 * Begin or go on with changes of a page. Its working version has to be above the generations that
 * an entry is going to have below its home.
 */
static void
version_change(struct world *world, struct world_volume *volume, uint32_t page, uint32_t frozen,
               uint32_t current, uint32_t above)
{
    struct map_version *version = &volume->pages[page].version;

    map_version_change(version, frozen, current);
    if (version->working <= above) {
        page_encode(world, volume, page);
        map_version_change(version, frozen, current);
    }
    ASSERT_OP(version->working, >, above);
}

/* Late writes will want a version of the pending view of their own. */
static void
page_freeze(struct world *world, struct world_volume *volume, uint32_t page)
{
    struct head_page *head = &volume->pages[page];

    version_change(world, volume, page, pending_frozen(volume), volume->pending,
                   volume->pending - 1);
    page_encode(world, volume, page);
    ASSERT_OP(head->version.stored, ==, volume->pending);
    head->frozen_version = head->version.stored;
    head->frozen_previous = head->version.previous;
}

/* Before a change that belongs to the generation of now. */
static void
page_change(struct world *world, struct world_volume *volume, uint32_t page, uint32_t above)
{
    struct head_page *head = volume_page(world, volume, page);
    uint32_t frozen = volume_frozen(volume);

    if (head->late > 0 && head->frozen_version == 0) {
        page_freeze(world, volume, page);
    } else if (map_version_must_freeze(&head->version, frozen)) {
        page_encode(world, volume, page);
    }
    version_change(world, volume, page, frozen, volume->branch->current, above);
}

void
volume_seal(struct world *world, struct world_volume *volume)
{
    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        if (volume->pages[page].loaded && volume->pages[page].version.working != 0) {
            page_encode(world, volume, page);
        }
    }
}

void
volume_evict(struct world *world, struct world_volume *volume)
{
    uint32_t page = (uint32_t)random_below(&world->random, WORLD_PAGES);
    struct head_page *head = &volume->pages[page];

    if (head->loaded && head->windows == 0 && head->version.working == 0) {
        head->loaded = false;
    }
}

/* ---- grains that come and go ---- */

static void
grain_born(struct world *world, struct world_volume *volume, uint32_t generation)
{
    struct lineage_branch *branch = lineage_segment(volume->branch, generation);

    space_cells_add(&world_stored(world, branch)->cells, generation, SPACE_ALIVE, 1);
}

/* The head, and what shares its version, names these no more; `previous` is the version below. */
static void
drop_grains(struct world *world, struct world_volume *volume,
            const struct map_entry_dropped *dropped, uint32_t previous, uint32_t death)
{
    const struct map_version below = { .previous = previous };

    for (uint32_t i = 0; i < dropped->count; i++) {
        uint32_t birth = dropped->generations[i];
        struct lineage_branch *born_in = lineage_segment(volume->branch, birth);
        if (birth > lineage_owned_above(volume->branch) && map_version_frees(&below, birth)) {
            world_free_grain(world, dropped->grains[i]);
            space_cells_add(&world_stored(world, born_in)->cells, birth, SPACE_ALIVE, -1);
        } else {
            space_cells_add(&world_stored(world, volume->branch)->cells, birth, death, 1);
        }
    }
}

/* ---- writes ---- */

static bool
window_is_on(const struct world_window *window, const struct world_volume *volume, uint32_t page,
             uint32_t entry)
{
    return window->volume == volume && window->page == page && window->entry == entry;
}

/* Finish what a write (or, with `all`, a zeroing) of these blocks would have to wait for. */
static void
finish_before(struct world *world, struct world_volume *volume, uint32_t page, uint32_t entry,
              uint16_t mask, bool all)
{
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        struct world_window *window = &world->windows[i];
        if (window_is_on(window, volume, page, entry) &&
            (all || window->late || window->copies || (window->mask & mask) != 0)) {
            window_finish(world, window, true);
        }
    }
}

void
volume_finish_windows(struct world *world, struct world_volume *volume)
{
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        if (world->windows[i].volume == volume) {
            window_finish(world, &world->windows[i], true);
        }
    }
}

bool
volume_has_late(const struct world *world, const struct world_volume *volume)
{
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        if (world->windows[i].volume == volume && world->windows[i].late) {
            return true;
        }
    }
    return false;
}

static struct world_window *
free_window(struct world *world)
{
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        if (world->windows[i].volume == NULL) {
            return &world->windows[i];
        }
    }
    return NULL;
}

bool
volume_write_begin(struct world *world, struct world_volume *volume, uint32_t page,
                   uint32_t entry_index, uint16_t mask)
{
    ASSERT(mask != 0);
    finish_before(world, volume, page, entry_index, mask, false);
    struct world_window *window = free_window(world);
    if (window == NULL) {
        return false;
    }
    struct head_page *head = volume_page(world, volume, page);
    struct map_entry *entry = &head->entries[entry_index];
    *window = (struct world_window){
        .volume = volume, .page = page, .entry = entry_index, .mask = mask,
        .generation = volume->branch->current,
    };
    switch (map_entry_write_kind(entry, volume_frozen(volume) + 1)) {
    case MAP_WRITE_IN_PLACE:
        if ((map_entry_copied(entry) & mask & entry->valid) != 0) {
            page_change(world, volume, page, 0);
            map_entry_overwritten(entry, mask);
        }
        window->home = entry->home;
        break;
    case MAP_WRITE_FRESH:
    case MAP_WRITE_FROZEN:
    case MAP_WRITE_KEEP_BASE:
        window->home = world_take_grain(world);
        ASSERT(!head->fresh[entry_index]);
        map_entry_attach_home(entry, window->home, volume->branch->current);
        head->fresh[entry_index] = true;
        break;
    case MAP_WRITE_COPY:
        window->home = world_take_grain(world);
        window->copies = true;
        break;
    }
    head->windows++;
    return true;
}

/* The blocks of the mask get new content, in the grain and for who looks at them. */
static void
put_content(struct world *world, const struct world_window *window, uint16_t mask)
{
    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        if ((mask >> block & 1) == 0) {
            continue;
        }
        uint32_t stamp = world->next_stamp++;
        world->grains[window->home].stamps[block] = stamp;
        world->content(world->content_context, window->volume,
                       (window->page * WORLD_ENTRIES + window->entry) * BLOCKS_PER_GRAIN + block,
                       stamp, window->late);
    }
}

static void
copy_blocks(struct world *world, grain_address from, grain_address to, uint16_t mask)
{
    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        if ((mask >> block & 1) != 0) {
            ASSERT(world->grains[from].used && world->grains[to].used);
            world->grains[to].stamps[block] = world->grains[from].stamps[block];
            world->copied_blocks++;
        }
    }
}

/* MAP: the entry of the head, and for a late write that of the pending view. */
static void
window_map(struct world *world, const struct world_window *window)
{
    struct world_volume *volume = window->volume;
    struct head_page *head = &volume->pages[window->page];
    struct map_entry *entry = &head->entries[window->entry];
    struct map_entry_dropped dropped = { 0 };
    bool in_both = window->late && head->frozen_version != 0;
    uint32_t above = window->copies ? entry->home_generation : entry->base_generation;

    if (!window->copies && !head->fresh[window->entry] &&
        !map_entry_write_changes(entry, window->mask)) {
        return;
    }
    if (window->late && !in_both) {
        /* The head has not gone on from the pending view yet: one change is for both. */
        version_change(world, volume, window->page, pending_frozen(volume), volume->pending,
                       above);
    } else {
        page_change(world, volume, window->page, in_both ? 0 : above);
    }
    /* A grain bears the number of the version that names it first. */
    uint32_t generation = in_both ? head->frozen_version : head->version.working;
    if (window->copies) {
        map_entry_copied_home(entry, window->mask, window->home, generation, &dropped);
        grain_born(world, volume, generation);
    } else {
        if (head->fresh[window->entry]) {
            head->fresh[window->entry] = false;
            entry->home_generation = generation;
            grain_born(world, volume, generation);
        }
        map_entry_written(entry, window->mask, &dropped);
    }
    if (in_both) {
        struct lineage_branch *branch = lineage_segment(volume->branch, head->frozen_version);
        struct world_version *frozen =
            world_find_version(world, branch, window->page, head->frozen_version);
        ASSERT(frozen != NULL);
        frozen->entries[window->entry] = *entry;
    }
    drop_grains(world, volume, &dropped,
                in_both ? head->frozen_previous : head->version.previous, generation);
}

/* The write has failed: what was taken for it alone goes back. */
static void
window_undo(struct world *world, const struct world_window *window)
{
    struct head_page *head = &window->volume->pages[window->page];
    struct map_entry *entry = &head->entries[window->entry];

    if (window->copies) {
        world_free_grain(world, window->home);
        return;
    }
    /* In place, some of it may have reached the disk. */
    put_content(world, window, window->mask & entry->valid);
    if (!head->fresh[window->entry]) {
        return;
    }
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        const struct world_window *other = &world->windows[i];
        if (other != window &&
            window_is_on(other, window->volume, window->page, window->entry)) {
            return; /* it is writing to the same fresh grain */
        }
    }
    world_free_grain(world, entry->home);
    entry->home = GRAIN_NONE;
    entry->home_generation = 0;
    head->fresh[window->entry] = false;
}

void
window_finish(struct world *world, struct world_window *window, bool success)
{
    struct head_page *head = &window->volume->pages[window->page];

    ASSERT(head->loaded);
    ASSERT_OP(head->windows, >, 0u);
    if (!success) {
        window_undo(world, window);
    } else {
        if (window->copies) {
            struct map_entry_copy plan =
                map_entry_copy_plan(&head->entries[window->entry], window->mask);
            copy_blocks(world, plan.from, window->home, plan.read);
        }
        put_content(world, window, window->mask);
        window_map(world, window);
    }
    head->windows--;
    if (window->late) {
        head->late--;
        world->late_finished++;
    }
    window->volume = NULL;
    window->late = false;
}

/* ---- zeroing and merging ---- */

void
volume_zero(struct world *world, struct world_volume *volume, uint32_t page, uint32_t entry_index,
            uint16_t mask)
{
    struct map_entry_dropped dropped = { 0 };

    finish_before(world, volume, page, entry_index, mask, true);
    struct head_page *head = volume_page(world, volume, page);
    struct map_entry *entry = &head->entries[entry_index];
    if ((map_entry_live(entry) & mask) == 0) {
        return;
    }
    ASSERT(!head->fresh[entry_index]);
    page_change(world, volume, page, 0);
    map_entry_zeroed(entry, mask, &dropped);
    drop_grains(world, volume, &dropped, head->version.previous, head->version.working);
    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        if ((mask >> block & 1) != 0) {
            world->content(world->content_context, volume,
                           (page * WORLD_ENTRIES + entry_index) * BLOCKS_PER_GRAIN + block, 0,
                           false);
        }
    }
}

void
volume_merge(struct world *world, struct world_volume *volume, uint32_t page,
             uint32_t entry_index)
{
    struct map_entry_dropped dropped = { 0 };

    finish_before(world, volume, page, entry_index, UINT16_MAX, true);
    struct head_page *head = volume_page(world, volume, page);
    struct map_entry *entry = &head->entries[entry_index];
    if (map_entry_merge_plan(entry) == 0 || entry->home_generation <= volume_frozen(volume)) {
        return;
    }
    page_change(world, volume, page, 0);
    copy_blocks(world, entry->base, entry->home, map_entry_merge_plan(entry));
    map_entry_merged(entry, &dropped);
    drop_grains(world, volume, &dropped, head->version.previous, head->version.working);
}

/* ---- the instant of a view ---- */

void
volume_bump(struct world *world, struct world_volume *volume)
{
    ASSERT_OP(volume->pending, ==, 0u);
    volume->pending = lineage_bump(volume->branch);
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        struct world_window *window = &world->windows[i];
        if (window->volume == volume) {
            window->late = true;
            volume->pages[window->page].late++;
        }
    }
}

static void
pending_end(struct world *world, struct world_volume *volume)
{
    for (uint32_t i = 0; i < WORLD_WINDOWS; i++) {
        if (world->windows[i].volume == volume) {
            world->windows[i].late = false;
        }
    }
    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        volume->pages[page].late = 0;
        volume->pages[page].frozen_version = 0;
        volume->pages[page].frozen_previous = 0;
    }
    volume->pending = 0;
}

bool
volume_keep(struct world *world, struct world_volume *volume)
{
    ASSERT_OP(volume->pending, !=, 0u);
    if (volume_has_late(world, volume)) {
        return false;
    }
    volume_seal(world, volume);
    lineage_keep(volume->branch, volume->pending);
    pending_end(world, volume);
    return true;
}

void
volume_abandon(struct world *world, struct world_volume *volume)
{
    struct lineage_jobs jobs = world_jobs(world);
    uint32_t generation = volume->pending;

    ASSERT_OP(generation, !=, 0u);
    pending_end(world, volume);
    lineage_drop_view(volume->branch, generation, &jobs);
}
