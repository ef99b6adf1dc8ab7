/* SPDX-License-Identifier: Apache-2.0 */
/* The checker on extent records. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/check_impl.h"

/* True when no other extent has been seen in this slot. */
static bool
take_slot(struct check_state *state, const struct disk_record *disk, uint32_t slot)
{
    uint64_t **bitmap = &state->slots[disk->index];
    if (*bitmap == NULL) {
        *bitmap = calloc(div_round_up(disk->slot_count, 64), sizeof(uint64_t));
        ASSERT(*bitmap != NULL);
    }
    uint64_t bit = UINT64_C(1) << slot % 64;
    bool is_free = ((*bitmap)[slot / 64] & bit) == 0;
    (*bitmap)[slot / 64] |= bit;
    return is_free;
}

static void
check_places(struct check_state *state, const struct store_batch_item *item, uint64_t id,
             const struct extent_record *record)
{
    for (uint32_t copy = 0; copy < record->copy_count; copy++) {
        struct extent_place place = record->places[copy];
        const struct disk_record *disk = state->disks[place.disk];
        if (disk == NULL) {
            check_report(state, CHECK_ERROR, CHECK_EXTENT_DISK_MISSING, false,
                         check_item_key(item),
                         "extent %" PRIu64 " lies on disk %u, which is not in the pool", id,
                         place.disk);
            continue;
        }
        if (place.slot >= disk->slot_count) {
            check_report(state, CHECK_ERROR, CHECK_EXTENT_SLOT_OUTSIDE, false,
                         check_item_key(item),
                         "extent %" PRIu64 " lies in slot %u of disk %u, which has %u", id,
                         place.slot, place.disk, disk->slot_count);
            continue;
        }
        if (!take_slot(state, disk, place.slot)) {
            check_report(state, CHECK_ERROR, CHECK_EXTENT_SLOT_TWICE, false, check_item_key(item),
                         "extent %" PRIu64 " lies in slot %u of disk %u, as another one does", id,
                         place.slot, place.disk);
        }
        for (uint32_t other = 0; other < copy; other++) {
            if (record->places[other].disk == place.disk) {
                check_report(state, CHECK_WARNING, CHECK_EXTENT_COPIES_TOGETHER, false,
                             check_item_key(item),
                             "two copies of extent %" PRIu64 " are on one disk: %u", id,
                             place.disk);
            }
        }
    }
}

static void
keep_extent(struct check_state *state, uint64_t id, const struct extent_record *record)
{
    size_t words = 3 * (size_t)state->bitmap_words;
    for (size_t n = 0; n < words; n++) {
        state->bits = check_grow(state->bits, state->bits_count, sizeof(uint64_t));
        state->bits[state->bits_count++] = n < state->bitmap_words ? record->used[n] : 0;
    }
    state->extents = check_grow(state->extents, state->extent_count, sizeof(struct check_extent));
    state->extents[state->extent_count++] = (struct check_extent){
        .id = id,
        .owner_branch = record->owner_branch,
        .state = record->state,
        .bits = state->bits_count - words,
    };
    state->check->ret_extents++;
}

void
check_extent_item(struct check_state *state, const struct store_batch_item *item)
{
    uint64_t id;
    struct extent_record record;
    if (!state->has_pool) {
        state->extents_are_incomplete = true; /* nothing says how large they are */
        return;
    }
    if (extent_key_decode(item->key, item->key_bytes, &id) != 0
        || extent_record_decode(item->value, item->value_bytes, state->grains_per_extent, &record)
            != 0) {
        state->extents_are_incomplete = true;
        check_report(state, CHECK_ERROR, CHECK_EXTENT_DAMAGED, false, check_item_key(item),
                     "an extent record is damaged");
        return;
    }
    if (id >= state->pool.next_extent) {
        check_report(state, CHECK_ERROR, CHECK_COUNTER_BEHIND, false, check_item_key(item),
                     "the pool would give this id out again; its next one is %" PRIu64,
                     state->pool.next_extent);
    }
    if (record.owner_branch != 0 && check_find_branch(state, record.owner_branch) == NULL) {
        check_report(state, CHECK_WARNING, CHECK_EXTENT_OWNER_MISSING, false, check_item_key(item),
                     "extent %" PRIu64 " belongs to branch %" PRIu64 ", which is not there", id,
                     record.owner_branch);
    }
    check_places(state, item, id, &record);
    keep_extent(state, id, &record);
}

void
check_extent_end(struct check_state *state)
{
    for (uint32_t slot = 0; slot < ARRAY_SIZE(state->checkpoints); slot++) {
        const struct checkpoint_record *record = &state->checkpoints[slot];
        if (!state->has_checkpoint[slot] || record->commit == 0 || state->extents_are_incomplete) {
            continue;
        }
        const struct check_extent *extent = check_find_extent(state, record->first_extent);
        if (extent == NULL || extent->state != EXTENT_STATE_CHECKPOINT) {
            uint8_t key[2] = { SCHEMA_CHECKPOINT, (uint8_t)slot };
            check_report(state, CHECK_ERROR, CHECK_CHECKPOINT_WRONG, false,
                         (struct check_key){ STORE_FAMILY_SYSTEM, key, sizeof(key) },
                         "the checkpoint of commit %" PRIu64 " begins in extent %" PRIu64
                         ", which holds none",
                         record->commit, record->first_extent);
        }
    }
}
