/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/unflushed_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    CAPACITY_MIN = 64,
    CAPACITY_KEPT = 4096, /* over a clear */
};

/* The slot of this grain on this disk, or the free one where it would be. */
static struct unflushed_slot *
find(const struct unflushed *set, uint64_t grain, uint16_t disk)
{
    uint32_t at = (uint32_t)hash_u64(grain) & (set->capacity - 1);

    ASSERT_OP(set->count, <, set->capacity); /* so the walk ends */
    while (set->slots[at].grain_plus_one != 0 &&
           (set->slots[at].grain_plus_one != grain + 1 || set->slots[at].disk != disk)) {
        at = (at + 1) & (set->capacity - 1);
    }
    return &set->slots[at];
}

static void
grow(struct unflushed *set)
{
    struct unflushed old = *set;

    set->capacity = MAX(old.capacity * 2, (uint32_t)CAPACITY_MIN);
    set->slots = calloc(set->capacity, sizeof(*set->slots));
    ASSERT(set->slots != NULL);
    set->count = 0;
    unflushed_move(set, &old, NULL);
    unflushed_free(&old);
}

void
unflushed_free(struct unflushed *set)
{
    free(set->slots);
    *set = (struct unflushed){ 0 };
}

void
unflushed_add(struct unflushed *set, uint64_t grain, uint16_t disk, uint16_t blocks)
{
    ASSERT(blocks != 0);
    if (2 * (set->count + 1) > set->capacity) {
        grow(set);
    }
    struct unflushed_slot *slot = find(set, grain, disk);
    if (slot->grain_plus_one == 0) {
        slot->grain_plus_one = grain + 1;
        slot->disk = disk;
        set->count++;
    }
    slot->blocks |= blocks;
}

void
unflushed_remove(struct unflushed *set, uint64_t grain, uint16_t disk, uint16_t blocks)
{
    if (set->count > 0) {
        find(set, grain, disk)->blocks &= (uint16_t)~blocks; /* a free slot has none */
    }
}

void
unflushed_clear(struct unflushed *set)
{
    if (set->capacity > CAPACITY_KEPT) {
        unflushed_free(set);
    } else if (set->count > 0) {
        memset(set->slots, 0, set->capacity * sizeof(*set->slots));
        set->count = 0;
    }
}

void
unflushed_move(struct unflushed *to, struct unflushed *from, const uint64_t *disks)
{
    const struct unflushed_slot *slot;

    for (uint32_t cursor = 0; (slot = unflushed_next(from, &cursor)) != NULL;) {
        if (disks == NULL || (disks[slot->disk / 64] >> (slot->disk % 64) & 1) != 0) {
            unflushed_add(to, slot->grain_plus_one - 1, slot->disk, slot->blocks);
        }
    }
    unflushed_clear(from);
}

const struct unflushed_slot *
unflushed_next(const struct unflushed *set, uint32_t *cursor)
{
    for (uint32_t at = *cursor; at < set->capacity; at++) {
        if (set->slots[at].blocks != 0) {
            *cursor = at + 1;
            return &set->slots[at];
        }
    }
    *cursor = set->capacity;
    return NULL;
}
