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

/* The slot of this grain, or the free one where it would be. */
static struct unflushed_slot *
find(const struct unflushed *set, uint64_t grain)
{
    uint32_t at = (uint32_t)hash_u64(grain) & (set->capacity - 1);

    ASSERT_OP(set->count, <, set->capacity); /* so the walk ends */
    while (set->slots[at].grain_plus_one != 0 && set->slots[at].grain_plus_one != grain + 1) {
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
    unflushed_move(set, &old);
    unflushed_free(&old);
}

void
unflushed_free(struct unflushed *set)
{
    free(set->slots);
    *set = (struct unflushed){ 0 };
}

void
unflushed_add(struct unflushed *set, uint64_t grain, uint16_t blocks)
{
    ASSERT(blocks != 0);
    if (2 * (set->count + 1) > set->capacity) {
        grow(set);
    }
    struct unflushed_slot *slot = find(set, grain);
    if (slot->grain_plus_one == 0) {
        slot->grain_plus_one = grain + 1;
        set->count++;
    }
    slot->blocks |= blocks;
}

void
unflushed_remove(struct unflushed *set, uint64_t grain, uint16_t blocks)
{
    if (set->count > 0) {
        find(set, grain)->blocks &= (uint16_t)~blocks; /* a free slot has none */
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
unflushed_move(struct unflushed *to, struct unflushed *from)
{
    uint64_t grain = 0;
    uint16_t blocks = 0;

    for (uint32_t cursor = 0; unflushed_next(from, &cursor, &grain, &blocks);) {
        unflushed_add(to, grain, blocks);
    }
    unflushed_clear(from);
}

bool
unflushed_next(const struct unflushed *set, uint32_t *cursor, uint64_t *ret_grain,
               uint16_t *ret_blocks)
{
    for (uint32_t at = *cursor; at < set->capacity; at++) {
        if (set->slots[at].blocks != 0) {
            *cursor = at + 1;
            *ret_grain = set->slots[at].grain_plus_one - 1;
            *ret_blocks = set->slots[at].blocks;
            return true;
        }
    }
    *cursor = set->capacity;
    return false;
}
