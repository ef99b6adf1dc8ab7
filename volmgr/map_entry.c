/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/map_entry_impl.h"

#include "base/assert.h"

static uint16_t
live_in_base(const struct map_entry *entry)
{
    return entry->base != GRAIN_NONE ? (uint16_t)~(entry->valid | entry->zero) : 0;
}

uint16_t
map_entry_live(const struct map_entry *entry)
{
    return entry->valid | live_in_base(entry);
}

static void
set_copied(struct map_entry *entry, uint16_t copied)
{
    ASSERT_OP(copied & ~map_entry_live(entry), ==, 0);
    entry->copied = copied;
}

bool
map_entry_is_sound(const struct map_entry *entry)
{
    bool home = entry->home != GRAIN_NONE;
    bool base = entry->base != GRAIN_NONE;

    return (entry->valid & entry->zero) == 0 && (home || entry->valid == 0) &&
           (base || entry->zero == 0) && (!home || !base || entry->home != entry->base) &&
           (!home || !base || entry->base_generation < entry->home_generation) &&
           ((entry->damaged | entry->copied) & ~map_entry_live(entry)) == 0;
}

struct map_entry_sources
map_entry_resolve(const struct map_entry *entry, uint16_t mask)
{
    struct map_entry_sources sources = { 0 };

    sources.home = entry->valid & mask;
    uint16_t rest = mask & (uint16_t)~entry->valid;
    if (entry->base != GRAIN_NONE) {
        sources.base = rest & (uint16_t)~entry->zero;
        sources.zero = rest & entry->zero;
    } else {
        sources.zero = rest;
    }
    ASSERT_OP(sources.home | sources.base | sources.zero, ==, mask);
    return sources;
}

enum map_entry_write_kind
map_entry_write_kind(const struct map_entry *entry, uint32_t writable_from)
{
    if (entry->home == GRAIN_NONE) {
        return entry->base == GRAIN_NONE ? MAP_WRITE_FRESH : MAP_WRITE_KEEP_BASE;
    }
    ASSERT(entry->base == GRAIN_NONE || entry->base_generation < entry->home_generation);
    if (entry->home_generation >= writable_from) {
        return MAP_WRITE_IN_PLACE;
    }
    return entry->base == GRAIN_NONE ? MAP_WRITE_FROZEN : MAP_WRITE_COPY;
}

static void
drop(struct map_entry_dropped *dropped, grain_address grain, uint32_t generation)
{
    ASSERT_OP(dropped->count, <, 2u);
    dropped->grains[dropped->count] = grain;
    dropped->generations[dropped->count] = generation;
    dropped->count++;
}

void
map_entry_attach_home(struct map_entry *entry, grain_address home, uint32_t generation)
{
    ASSERT(home != GRAIN_NONE);
    switch (map_entry_write_kind(entry, generation)) {
    case MAP_WRITE_FRESH:
    case MAP_WRITE_KEEP_BASE:
        break;
    case MAP_WRITE_FROZEN:
        /* Rule 1: what was not valid read as zeroes, and goes on to. */
        entry->base = entry->home;
        entry->base_generation = entry->home_generation;
        entry->zero = (uint16_t)~entry->valid;
        entry->valid = 0;
        break;
    case MAP_WRITE_IN_PLACE:
    case MAP_WRITE_COPY:
        UNREACHABLE();
    }
    entry->home = home;
    entry->home_generation = generation;
    ASSERT(map_entry_is_sound(entry));
}

/* A base that supplies no block any more is dropped, and the zero bits lose their meaning. */
static void
drop_useless_base(struct map_entry *entry, struct map_entry_dropped *dropped)
{
    if (entry->base != GRAIN_NONE && (uint16_t)(entry->valid | entry->zero) == UINT16_MAX) {
        drop(dropped, entry->base, entry->base_generation);
        entry->base = GRAIN_NONE;
        entry->base_generation = 0;
        entry->zero = 0;
    }
}

bool
map_entry_write_changes(const struct map_entry *entry, uint16_t mask)
{
    return (entry->valid & mask) != mask || ((entry->copied | entry->damaged) & mask) != 0;
}

bool
map_entry_overwritten(struct map_entry *entry, uint16_t mask)
{
    uint16_t rest = map_entry_copied(entry) & (uint16_t)~(mask & entry->valid);

    if (rest == map_entry_copied(entry)) {
        return false;
    }
    set_copied(entry, rest);
    return true;
}

bool
map_entry_written(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped)
{
    ASSERT(entry->home != GRAIN_NONE);
    if (!map_entry_write_changes(entry, mask)) {
        return false;
    }
    entry->damaged &= (uint16_t)~mask;
    entry->valid |= mask;
    entry->zero &= (uint16_t)~mask;
    set_copied(entry, map_entry_copied(entry) & (uint16_t)~mask);
    drop_useless_base(entry, dropped);
    ASSERT(map_entry_is_sound(entry));
    return true;
}

bool
map_entry_zeroed(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped)
{
    struct map_entry_sources sources = map_entry_resolve(entry, mask);

    if (sources.home == 0 && sources.base == 0) {
        return false;
    }
    set_copied(entry, map_entry_copied(entry) & (uint16_t)~mask);
    entry->valid &= (uint16_t)~mask;
    entry->damaged &= (uint16_t)~mask;
    if (entry->base != GRAIN_NONE) {
        entry->zero |= mask;
    }
    if (entry->home != GRAIN_NONE && entry->valid == 0) {
        drop(dropped, entry->home, entry->home_generation);
        entry->home = GRAIN_NONE;
        entry->home_generation = 0;
    }
    drop_useless_base(entry, dropped);
    ASSERT(map_entry_is_sound(entry));
    return true;
}

bool
map_entry_lost(struct map_entry *entry, uint16_t mask)
{
    uint16_t lost = mask & map_entry_live(entry) & (uint16_t)~entry->damaged;

    entry->damaged |= lost;
    ASSERT(map_entry_is_sound(entry));
    return lost != 0;
}

/* ---- rule 3: a frozen home over a base ---- */

struct map_entry_copy
map_entry_copy_plan(const struct map_entry *entry, uint16_t mask)
{
    ASSERT(entry->home != GRAIN_NONE && entry->base != GRAIN_NONE);
    ASSERT(mask != 0);
    uint16_t home = entry->valid & (uint16_t)~mask;
    uint16_t base = live_in_base(entry) & (uint16_t)~mask;
    struct map_entry_copy plan = { .home_stays = true };

    if (__builtin_popcount(base) > __builtin_popcount(home)) {
        plan.home_stays = false;
    }
    plan.copy = plan.home_stays ? base : home;
    plan.read = plan.copy & (uint16_t)~entry->damaged;
    if (plan.read != 0) {
        plan.from = plan.home_stays ? entry->base : entry->home;
    }
    ASSERT_OP(__builtin_popcount(plan.copy), <, BLOCKS_PER_GRAIN / 2);
    return plan;
}

void
map_entry_copied_home(struct map_entry *entry, uint16_t mask, grain_address home,
                      uint32_t generation, struct map_entry_dropped *dropped)
{
    struct map_entry_copy plan = map_entry_copy_plan(entry, mask);
    uint16_t live = map_entry_live(entry);
    uint16_t copied = (map_entry_copied(entry) | plan.copy) & (uint16_t)~mask;

    ASSERT(home != GRAIN_NONE && !map_entry_names(entry, home));
    ASSERT_OP(entry->home_generation, <, generation);
    if (plan.home_stays) {
        drop(dropped, entry->base, entry->base_generation);
        entry->base = entry->home;
        entry->base_generation = entry->home_generation;
    } else {
        drop(dropped, entry->home, entry->home_generation);
    }
    entry->home = home;
    entry->home_generation = generation;
    entry->valid = mask | plan.copy;
    entry->zero = (uint16_t)~(live | mask);
    entry->damaged &= (uint16_t)~mask;
    set_copied(entry, copied);
    drop_useless_base(entry, dropped);
    ASSERT(map_entry_is_sound(entry));
}

/* ---- rule 5: merging ---- */

uint16_t
map_entry_merge_plan(const struct map_entry *entry)
{
    return entry->home != GRAIN_NONE ? live_in_base(entry) : 0;
}

void
map_entry_merged(struct map_entry *entry, struct map_entry_dropped *dropped)
{
    uint16_t moved = map_entry_merge_plan(entry);

    ASSERT(moved != 0);
    entry->valid |= moved;
    set_copied(entry, map_entry_copied(entry) | moved);
    drop(dropped, entry->base, entry->base_generation);
    entry->base = GRAIN_NONE;
    entry->base_generation = 0;
    entry->zero = 0;
    ASSERT(map_entry_is_sound(entry));
}

/* ---- promotion ---- */

bool
map_entry_adopt(struct map_entry *entry, uint32_t inherited, grain_address grain,
                uint32_t generation)
{
    bool home = entry->home != GRAIN_NONE && entry->home_generation <= inherited;
    bool base = entry->base != GRAIN_NONE && entry->base_generation <= inherited;

    ASSERT(grain != GRAIN_NONE);
    ASSERT_OP(generation, >, inherited);
    ASSERT(!home || entry->base == GRAIN_NONE || base); /* a base is older than its home */
    if (home) {
        /* Both sources lie in the one grain. */
        entry->valid = map_entry_live(entry);
        entry->home = entry->valid != 0 ? grain : GRAIN_NONE;
        entry->home_generation = entry->valid != 0 ? generation : 0;
        entry->base = GRAIN_NONE;
        entry->base_generation = 0;
        entry->zero = 0;
        set_copied(entry, entry->valid);
    } else if (base) {
        set_copied(entry, map_entry_copied(entry) | live_in_base(entry));
        entry->base = grain;
        entry->base_generation = generation;
    }
    ASSERT(map_entry_is_sound(entry));
    return home || base;
}
