/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which disks hold the commit ledger.
 *
 * More disks have room for a copy than hold one: each is written with every commit. When fewer than
 * POOL_LEDGER_COPIES are current, others take their place at the next start: all copies are started
 * anew together then, and what the ring held until now must be in checkpoints before.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

/* A ledger disk that is later than the others by this much is dropped, so that it stops nobody. */
#define LEDGER_LATE_NS (2 * NS_PER_S)

bool
label_has_better_ledger(const struct label *label, const struct label *other)
{
    if (label->ledger_current != other->ledger_current) {
        return label->ledger_current;
    }
    return label->incarnation > other->incarnation;
}

static bool
has_room_for_copy(const struct disk *disk)
{
    return disk != NULL && disk->backend != NULL && disk->record.ledger_length_bytes > 0 &&
           !disk->ledger_dropped && !disk->joining;
}

uint32_t
pool_ledger_copies(const struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint32_t count = 0;

    for (uint32_t i = 0; i < pool->disk_count && count < LEDGER_COPIES_MAX; i++) {
        count += has_room_for_copy(pool->disks[i]);
    }
    return count;
}

bool
pool_wants_room_for_copy(const struct pool *pool, const struct disk_probe *probe)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct label label = { 0 };
    uint32_t count = 0;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        count += disk != NULL && disk->backend != NULL && disk->record.ledger_length_bytes > 0;
    }
    return count < LEDGER_COPIES_MAX && strcmp(probe->backend->ops->type, "memory") != 0 &&
           label_layout(backend_size_bytes(probe->backend), pool->record.extent_bytes, true,
                        &label) == 0;
}

/* Fills pool->ledger_disks. */
static void
choose_disks(struct pool *pool, uint32_t copies_max)
{
    uint32_t count = 0;

    ASSERT(copies_max >= 1 && copies_max <= LEDGER_COPIES_MAX);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        uint32_t at = count;
        if (!has_room_for_copy(disk)) {
            continue;
        }
        while (at > 0 && label_has_better_ledger(
                             &disk->label, &pool->disks[pool->ledger_disks[at - 1]]->label)) {
            at--;
        }
        if (at >= copies_max) {
            continue;
        }
        count = MIN(count + 1, copies_max);
        for (uint32_t n = count - 1; n > at; n--) {
            pool->ledger_disks[n] = pool->ledger_disks[n - 1];
        }
        pool->ledger_disks[at] = disk->record.index;
    }
    pool->ledger_disk_count = count;
}

int
pool_ledger_create(struct pool *pool, uint32_t copies_max)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct ledger_options options = {
        .incarnation = pool->record.incarnation,
        .late_ns = MIN(pool->manager->options.disk_timeout_ns / 2, LEDGER_LATE_NS),
    };

    ASSERT(pool->ledger == NULL);
    memcpy(options.pool_guid, pool->record.pool_guid, GUID_BYTES);
    choose_disks(pool, copies_max);
    for (uint32_t i = 0; i < pool->ledger_disk_count; i++) {
        const struct disk *disk = pool->disks[pool->ledger_disks[i]];
        options.copies[options.copy_count++] = (struct ledger_copy_options){
            .backend = disk->backend,
            .disk_index = disk->record.index,
            .start_bytes = disk->record.ledger_start_bytes,
            .length_bytes = disk->record.ledger_length_bytes,
        };
    }
    return options.copy_count == 0 ? 0 : ledger_create(&options, &pool->ledger);
}

void
pool_ledger_note_current(struct pool *pool, uint32_t current)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk != NULL) {
            disk->label.ledger_current = false;
        }
    }
    for (uint32_t n = 0; n < pool->ledger_disk_count; n++) {
        if ((current & 1u << n) != 0) {
            pool->disks[pool->ledger_disks[n]]->label.ledger_current = true;
        }
    }
}
