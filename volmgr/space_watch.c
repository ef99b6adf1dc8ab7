/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an administrator is told about space, before it is too late: how full a pool is, and which
 * volumes have used up what was reserved for them.
 *
 * Each level is told once when it is reached, and again only after it has been left by a margin. A
 * start tells the level at which it finds the pool.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

enum {
    FULL_EVENT_SECONDS = 60, /* between two events about the same full pool */
    MIDDLE_PERCENT = 90,     /* a level between the two that the pool's record has */
    MARGIN_PERCENT = 2,      /* below a level before it may be told again */
    RESERVE_MARGIN_PERCENT = 10,
};

uint8_t
pool_taken_percent(const struct pool *pool)
{
    const struct allocator *allocator = &pool->allocator;
    /*
     * Of what a volume without a reserve can get: metadata and promises to others are not for it.
     */
    uint64_t available = allocator_available(allocator, NULL);
    uint64_t usable = allocator->slots_total -
                      MIN(allocator->slots_total, allocator_metadata_reserve(allocator) +
                                                      allocator->metadata_extents);

    return (uint8_t)(usable == 0 ? 100 : 100 - MIN(available, usable) * 100 / usable);
}

/* The highest level that this much has reached; 0: none. */
static uint8_t
level_reached(const struct pool *pool, uint8_t percent)
{
    const struct pool_record *record = &pool->record;

    if (percent >= record->critical_percent) {
        return record->critical_percent;
    }
    if (percent >= MIDDLE_PERCENT && record->warning_percent < MIDDLE_PERCENT) {
        return MIDDLE_PERCENT;
    }
    return percent >= record->warning_percent ? record->warning_percent : 0;
}

static void
tell_level(struct pool *pool, uint8_t percent, uint8_t level)
{
    bool critical = level == pool->record.critical_percent;
    bool middle = !critical && level != pool->record.warning_percent;
    uint64_t free_bytes = allocator_available(&pool->allocator, NULL) * pool->record.extent_bytes;
    char free_text[SIZE_TEXT_SIZE];

    event_raise(pool->manager, critical ? EVENT_CRITICAL : EVENT_WARNING, pool->name, NULL,
                critical ? "pool-space-critical"
                : middle ? "pool-space-low"
                         : "pool-space-warning",
                "%u %% of the pool is taken, %s are free: add disks or delete volumes", percent,
                size_format(free_bytes, free_text));
}

static void
watch_reserve(struct volume *volume)
{
    const struct pool *pool = volume->pool;
    uint64_t reserve_bytes = volume->durable.reserve_bytes;
    uint64_t wanted = div_round_up(reserve_bytes, pool->record.extent_bytes);
    char text[SIZE_TEXT_SIZE];

    if (wanted == 0 || reserve_bytes >= volume->durable.size_bytes) {
        volume->reserve_told = false; /* it needs no more than it has been promised */
    } else if (volume->extents_owned >= wanted && !volume->reserve_told) {
        volume->reserve_told = true;
        event_raise(pool->manager, EVENT_WARNING, pool->name, volume->durable.name,
                    "reserve-used-up",
                    "this volume has used up its reserve of %s: what it writes beyond it is stored "
                    "only as long as the pool has room; raise the reserve, or watch the pool",
                    size_format(reserve_bytes, text));
    } else if (volume->extents_owned * 100 <= wanted * (100 - RESERVE_MARGIN_PERCENT)) {
        volume->reserve_told = false;
    }
}

void
pool_space_changed(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (pool->allocator.slots_total == 0) {
        return;
    }
    uint8_t percent = pool_taken_percent(pool);
    uint8_t reached = level_reached(pool, percent);
    if (reached > pool->threshold_raised) {
        tell_level(pool, percent, reached);
        pool->threshold_raised = reached;
    } else if (percent + MARGIN_PERCENT <= pool->threshold_raised) {
        pool->threshold_raised = reached;
    }
    if (pool->allocator.has_reserves) {
        list_for_each(&pool->volumes, link) {
            watch_reserve(list_entry(link, struct volume, pool_link));
        }
    }
}

void
pool_out_of_space(struct pool *pool, struct volume *volume)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t now_ns = reactor_now_ns(pool->manager->control);

    if (pool->full_event_ns != 0 &&
        now_ns - pool->full_event_ns < FULL_EVENT_SECONDS * NS_PER_S) {
        return;
    }
    pool->full_event_ns = MAX(now_ns, UINT64_C(1));
    event_raise(pool->manager, EVENT_CRITICAL, pool->name,
                volume != NULL ? volume->durable.name : NULL, "pool-full",
                "writes that need new space fail until disks are added or space is freed; reads, "
                "overwrites and discards go on");
}
