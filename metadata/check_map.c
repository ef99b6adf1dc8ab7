/* SPDX-License-Identifier: Apache-2.0 */
/* The checker on map pages, and on the grains that they name. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/check_impl.h"

enum bitmap {
    BITMAP_USED,
    BITMAP_OWNED,
    BITMAP_INHERITED,
};

static uint64_t *
bitmap_of(const struct check_state *state, const struct check_extent *extent, enum bitmap which)
{
    return state->bits + extent->bits + (size_t)which * state->bitmap_words;
}

/* ---- the versions of one page ---- */

static void
page_forget(struct check_state *state)
{
    struct check_branch *branch =
        state->has_page ? check_find_branch(state, state->page_branch) : NULL;
    if (branch != NULL) {
        branch->head_grains += state->page_grains;
    }
    state->page_grains = 0;
    state->seen_count = 0;
    memset(state->seen_first, 0, sizeof(state->seen_first));
}

/* Whether an older version of the page has named the grain at this entry; notes it. */
static bool
page_has_seen(struct check_state *state, uint32_t index, grain_address grain)
{
    for (uint32_t n = state->seen_first[index]; n != 0; n = state->seen[n - 1].next) {
        if (state->seen[n - 1].grain == grain) {
            return true;
        }
    }
    state->seen = check_grow(state->seen, state->seen_count, sizeof(state->seen[0]));
    state->seen[state->seen_count++] = (struct check_seen){
        .grain = grain,
        .next = state->seen_first[index],
    };
    state->seen_first[index] = (uint32_t)state->seen_count;
    return false;
}

/* ---- grains ---- */

/*
 * Grains of a branch are in extents of its own, or of another branch of the same volume, whose
 * extents that goes on using after a rollback; what it inherits, in those of its ancestors.
 */
static bool
is_owner(const struct check_state *state, const struct check_branch *branch, uint64_t owner,
         bool inherits)
{
    const struct check_branch *owning = check_find_branch(state, owner);
    uint64_t volume = owning != NULL ? owning->record.volume : 0;
    for (size_t steps = 0; branch != NULL && steps <= state->branch_count; steps++) {
        if (branch->record.id == owner || (volume != 0 && branch->record.volume == volume)) {
            return true;
        }
        if (!inherits || branch->record.parent == 0) {
            return false;
        }
        branch = check_find_branch(state, branch->record.parent);
    }
    return false;
}

static void
check_grain(struct check_state *state, const struct store_batch_item *item,
            struct check_branch *branch, uint32_t index, grain_address grain, uint64_t generation)
{
    uint64_t extent_id = grain / state->grains_per_extent;
    uint32_t number = (uint32_t)(grain % state->grains_per_extent);
    const struct check_extent *extent = check_find_extent(state, extent_id);
    if (extent == NULL) {
        if (!state->extents_are_incomplete) {
            check_report(state, CHECK_ERROR, CHECK_GRAIN_EXTENT_MISSING, false,
                         check_item_key(item),
                         "entry %u names a grain of extent %" PRIu64 ", which is not there", index,
                         extent_id);
        }
        return;
    }
    /* Borne by the branch itself; by one of its line that it continues; or inherited. */
    bool bore = branch->record.parent == 0 || generation > branch->record.fork_generation;
    bool owns = bore || generation > branch->owned_above;
    uint64_t owner = extent->owner_branch;
    bool is_right_extent = extent->state == EXTENT_STATE_DATA
        && (owner == 0 || is_owner(state, branch, owner, !bore));
    if (!is_right_extent) {
        check_report(state, CHECK_ERROR, CHECK_GRAIN_EXTENT_WRONG, false, check_item_key(item),
                     "entry %u names a grain of extent %" PRIu64
                     ", which belongs to branch %" PRIu64 "%s",
                     index, extent_id, owner,
                     extent->state == EXTENT_STATE_DATA ? "" : " and holds a checkpoint");
    }
    if (page_has_seen(state, index, grain)) {
        return;
    }
    uint64_t bit = UINT64_C(1) << number % 64;
    uint64_t *word = bitmap_of(state, extent, owns ? BITMAP_OWNED : BITMAP_INHERITED) + number / 64;
    if (owns) {
        if ((*word & bit) != 0 && !bore) {
            return; /* a version of a branch further down names it, too */
        }
        if ((*word & bit) != 0) {
            check_report(state, CHECK_ERROR, CHECK_GRAIN_TWICE, false, check_item_key(item),
                         "entry %u names grain %u of extent %" PRIu64 ", as another entry does",
                         index, number, extent_id);
        } else {
            branch->owned_grains++;
            state->check->ret_grains++;
        }
    }
    *word |= bit;
}

static void
check_entry(struct check_state *state, const struct store_batch_item *item,
            struct check_branch *branch, uint64_t page, uint64_t page_generation, uint32_t index)
{
    const struct map_entry *entry = &state->entries[index];
    bool has_home = entry->home != GRAIN_NONE;
    bool has_base = entry->base != GRAIN_NONE;
    state->page_grains += (has_home ? 1 : 0) + (has_base ? 1 : 0);
    if ((has_home && (entry->home_generation == 0 || entry->home_generation > page_generation))
        || (has_base && (entry->base_generation == 0 || entry->base_generation > page_generation))
        || (has_home && has_base && entry->base_generation >= entry->home_generation)) {
        check_report(state, CHECK_ERROR, CHECK_ENTRY_GENERATION_WRONG, false, check_item_key(item),
                     "entry %u of a page of generation %" PRIu64
                     " has grains of generations %u and %u",
                     index, page_generation, entry->home_generation, entry->base_generation);
    }
    uint64_t offset_bytes = (page << MAP_PAGE_SHIFT) + ((uint64_t)index << GRAIN_SHIFT);
    if (branch->volumes > 0 && page_generation == branch->record.current_generation
        && offset_bytes >= branch->volume_bytes) {
        check_report(state, CHECK_WARNING, CHECK_ENTRY_BEYOND_END, false, check_item_key(item),
                     "entry %u maps offset %" PRIu64 ", beyond the end of the volume", index,
                     offset_bytes);
    }
    if (has_home) {
        check_grain(state, item, branch, index, entry->home, entry->home_generation);
    }
    if (has_base) {
        check_grain(state, item, branch, index, entry->base, entry->base_generation);
    }
}

/* ---- pages ---- */

static void
page_is_lost(struct check_state *state, const struct store_batch_item *item, enum check_code code,
             const char *text)
{
    state->map_is_incomplete = true; /* so leaks cannot be told from what this page uses */
    check_report(state, CHECK_ERROR, code, false, check_item_key(item), "%s", text);
}

void
check_map_item(struct check_state *state, const struct store_batch_item *item)
{
    uint64_t branch_id;
    uint64_t page;
    uint64_t generation;
    uint32_t used;
    state->check->ret_pages++;
    if (map_key_decode(item->key, item->key_bytes, &branch_id, &page, &generation) != 0
        || map_page_decode(item->value, item->value_bytes, state->entries, &used) != 0) {
        page_is_lost(state, item, CHECK_PAGE_DAMAGED, "a page of a volume's map is damaged");
        return;
    }
    struct check_branch *branch = check_find_branch(state, branch_id);
    if (branch == NULL) {
        page_is_lost(state, item, CHECK_PAGE_ORPHAN, "a page of a map is of no known branch");
        return;
    }
    if (generation > branch->record.current_generation
        || (branch->record.parent != 0 && generation <= branch->record.fork_generation)) {
        check_report(state, CHECK_ERROR, CHECK_PAGE_GENERATION_WRONG, false, check_item_key(item),
                     "a page has generation %" PRIu64 ", its branch those from %" PRIu64
                     " to %" PRIu64,
                     generation, branch->record.fork_generation + 1,
                     branch->record.current_generation);
    }
    if (!state->has_page || state->page_branch != branch_id || state->page_number != page) {
        page_forget(state);
        state->has_page = true;
        state->page_branch = branch_id;
        state->page_number = page;
        state->page_generation = 0;
    }
    check_add_version(&branch->versions, page, generation, state->page_generation);
    if (state->page_generation != 0 && branch->is_alone
        && !check_is_seen(state, branch_id, state->page_generation, generation)) {
        branch->unseen_versions++;
    }
    state->page_generation = generation;
    state->page_grains = 0;
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES && state->has_pool; index++) {
        if (!map_entry_is_empty(&state->entries[index])) {
            check_entry(state, item, branch, page, generation, index);
        }
    }
}

/* ---- use bits ---- */

static uint32_t
count_bits(const uint64_t *words, uint32_t word_count)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < word_count; n++) {
        count += (uint32_t)__builtin_popcountll(words[n]);
    }
    return count;
}

/* A MERGE that sets or clears the use bits of these grains. */
static void
repair_use(struct check_state *state, uint64_t extent, const uint64_t *grains, bool used)
{
    if (check_repair(state) == NULL) {
        return;
    }
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    for (uint32_t grain = 0; grain < state->grains_per_extent; grain++) {
        if ((grains[grain / 64] & UINT64_C(1) << grain % 64) != 0) {
            extent_use_append(&operand, used, grain, 1);
        }
    }
    uint8_t key[EXTENT_KEY_BYTES];
    extent_key_encode(key, extent);
    store_batch_merge(check_repair(state), STORE_FAMILY_EXTENT, key, sizeof(key), operand.data,
                      operand.length_bytes);
    byte_buffer_free(&operand);
}

static void
report_use(struct check_state *state, const struct check_extent *extent, const uint64_t *grains,
           enum check_code code)
{
    uint32_t count = count_bits(grains, state->bitmap_words);
    if (count == 0) {
        return;
    }
    uint8_t key[EXTENT_KEY_BYTES];
    extent_key_encode(key, extent->id);
    struct check_key about = { STORE_FAMILY_EXTENT, key, sizeof(key) };
    switch (code) {
    case CHECK_GRAIN_USE_MISSING:
        check_report(state, CHECK_ERROR, code, true, about,
                     "%u grains of extent %" PRIu64 " are mapped, but count as free", count,
                     extent->id);
        repair_use(state, extent->id, grains, true);
        break;
    case CHECK_GRAIN_LEAKED:
        check_report(state, CHECK_WARNING, code, true, about,
                     "%u grains of extent %" PRIu64 " count as used, but nothing maps them", count,
                     extent->id);
        repair_use(state, extent->id, grains, false);
        break;
    default:
        check_report(state, CHECK_ERROR, code, false, about,
                     "%u grains of extent %" PRIu64 " are inherited from nobody", count,
                     extent->id);
        break;
    }
}

static void
check_use(struct check_state *state, const struct check_extent *extent)
{
    const uint64_t *used = bitmap_of(state, extent, BITMAP_USED);
    const uint64_t *owned = bitmap_of(state, extent, BITMAP_OWNED);
    const uint64_t *inherited = bitmap_of(state, extent, BITMAP_INHERITED);
    uint64_t missing[EXTENT_GRAINS_MAX / 64];
    uint64_t leaked[EXTENT_GRAINS_MAX / 64];
    uint64_t fatherless[EXTENT_GRAINS_MAX / 64];
    for (uint32_t n = 0; n < state->bitmap_words; n++) {
        missing[n] = (owned[n] | inherited[n]) & ~used[n];
        leaked[n] = used[n] & ~(owned[n] | inherited[n]);
        fatherless[n] = inherited[n] & ~owned[n];
    }
    report_use(state, extent, missing, CHECK_GRAIN_USE_MISSING);
    if (!state->map_is_incomplete) {
        report_use(state, extent, leaked, CHECK_GRAIN_LEAKED);
        report_use(state, extent, fatherless, CHECK_GRAIN_OWNER_MISSING);
    }
}

/* What a head with a parent names is not known without looking up each page there. */
static void
check_mapped_count(struct check_state *state, const struct check_branch *branch)
{
    bool is_whole_head = branch->record.parent == 0
        && (branch->record.flags & BRANCH_HEADLESS) == 0
        && !(branch->is_deleting && branch->record.current_generation > 1);
    if (!is_whole_head || branch->position.mapped_grains == branch->head_grains) {
        return;
    }
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_id(key, SCHEMA_POSITION, branch->record.id);
    check_report(state, CHECK_WARNING, CHECK_MAPPED_COUNT_WRONG, true,
                 (struct check_key){ STORE_FAMILY_SYSTEM, key, key_bytes },
                 "branch %" PRIu64 " names %" PRIu64 " grains, not %" PRIu64, branch->record.id,
                 branch->head_grains, branch->position.mapped_grains);
    if (check_repair(state) != NULL) {
        struct branch_position position = branch->position;
        position.mapped_grains = branch->head_grains;
        schema_put_position(check_repair(state), branch->record.id, &position);
    }
}

void
check_map_end(struct check_state *state)
{
    page_forget(state);
    for (size_t n = 0; n < state->extent_count; n++) {
        if (state->extents[n].state == EXTENT_STATE_DATA) {
            check_use(state, &state->extents[n]);
        }
    }
    for (size_t n = 0; n < state->branch_count; n++) {
        if (!state->map_is_incomplete && !state->extents_are_incomplete && state->has_pool) {
            check_mapped_count(state, &state->branches[n]);
        }
    }
}
