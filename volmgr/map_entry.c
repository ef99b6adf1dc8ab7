/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/map_entry_impl.h"

#include "base/assert.h"

bool
map_entry_is_sound(const struct map_entry *entry)
{
    bool home = entry->home != GRAIN_NONE;
    bool base = entry->base != GRAIN_NONE;

    return (entry->valid & entry->zero) == 0 && (home || entry->valid == 0) &&
           (base || entry->zero == 0) && (!home || !base || entry->home != entry->base) &&
           (!home || !base || entry->base_generation < entry->home_generation);
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
map_entry_write_kind(const struct map_entry *entry, uint32_t generation)
{
    if (entry->home == GRAIN_NONE) {
        return entry->base == GRAIN_NONE ? MAP_WRITE_FRESH : MAP_WRITE_KEEP_BASE;
    }
    ASSERT_OP(entry->home_generation, <=, generation);
    if (entry->home_generation == generation) {
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
map_entry_written(struct map_entry *entry, uint16_t mask, struct map_entry_dropped *dropped)
{
    ASSERT(entry->home != GRAIN_NONE);
    if ((entry->valid & mask) == mask) {
        return false;
    }
    entry->valid |= mask;
    entry->zero &= (uint16_t)~mask;
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
    entry->valid &= (uint16_t)~mask;
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
