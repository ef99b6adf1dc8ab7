/* SPDX-License-Identifier: Apache-2.0 */
/* The pool as an object: its tables, its state, and what the data path tells it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"
#include "volmgr/reclaim_impl.h"

/* ---- small things ---- */

void
manager_make_guid(const struct manager *manager, uint8_t guid[static GUID_BYTES])
{
    struct platform *platform = manager->options.platform;
    uint64_t words[2] = { platform->ops->random_u64(platform),
                          platform->ops->random_u64(platform) };

    _Static_assert(sizeof(words) == GUID_BYTES, "two words");
    memcpy(guid, words, GUID_BYTES);
    guid[6] = (uint8_t)((guid[6] & 0x0f) | 0x40); /* RFC 9562: version 4, variant 10 */
    guid[8] = (uint8_t)((guid[8] & 0x3f) | 0x80);
}

void
guid_format(const uint8_t guid[static GUID_BYTES], char text[static 37])
{
    size_t at = 0;

    for (int i = 0; i < GUID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            text[at++] = '-';
        }
        snprintf(text + at, 37 - at, "%02x", guid[i]);
        at += 2;
    }
    ASSERT_OP(at, ==, 36u);
}

uint64_t
manager_realtime_ns(const struct manager *manager)
{
    return manager->options.platform->ops->realtime_ns(manager->options.platform);
}

uint64_t
text_hash(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, then mixed */
    for (; *text != '\0'; text++) {
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    }
    return hash_u64(hash);
}

const char *
pool_state_name(enum pool_state state)
{
    static const char *const names[] = {
        [POOL_STATE_ONLINE] = "online",       [POOL_STATE_DEGRADED] = "degraded",
        [POOL_STATE_READ_ONLY] = "read-only", [POOL_STATE_OPENING] = "opening",
        [POOL_STATE_OFFLINE] = "offline",
    };
    ASSERT_OP(state, <, ARRAY_SIZE(names));
    return names[state];
}

/* ---- life ---- */

struct pool *
pool_new(struct manager *manager, const char *name)
{
    struct pool *pool = calloc(1, sizeof(*pool));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(pool != NULL);
    ASSERT(manager_find_pool(manager, name) == NULL);
    pool->manager = manager;
    pool->state = POOL_STATE_OPENING;
    snprintf(pool->name, sizeof(pool->name), "%s", name);
    list_init(&pool->volumes);
    list_init(&pool->controls);
    list_init(&pool->extent_grants);
    list_init(&pool->erasures);
    lineage_init(&pool->lineage);
    list_init(&pool->branch_list);
    list_init(&pool->snapshot_list);
    list_init(&pool->views);
    committer_init(&pool->committer, pool, 0);
    list_push_back(&manager->pools, &pool->link);
    return pool;
}

int
pool_prepare(struct pool *pool, const struct pool_record *record)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(pool->extents.directory == NULL);
    ASSERT(is_power_of_two(record->extent_bytes));
    pool->record = *record;
    pool->grains_per_extent = (uint32_t)(record->extent_bytes / GRAIN_BYTES);
    pool->grains_shift = log2_u64(pool->grains_per_extent);
    int result = extent_table_init(&pool->extents, pool->grains_per_extent);
    if (result == 0) {
        allocator_init(&pool->allocator, pool);
    }
    return result;
}

void
pool_prepare_volumes(struct pool *pool, size_t expected_count)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(pool->volumes_by_id.buckets == NULL);
    hash_table_init(&pool->volumes_by_id, expected_count);
    hash_table_init(&pool->volumes_by_name, expected_count);
    hash_table_init(&pool->volumes_by_branch, expected_count);
    hash_table_init(&pool->branches, expected_count);
    hash_table_init(&pool->snapshots, 64);
    hash_table_init(&pool->snapshots_by_name, 64);
}

struct disk *
pool_disk_new(struct pool *pool, const struct disk_record *record)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT_OP(record->index, <, (uint16_t)POOL_DISKS_MAX);
    if (pool->disks[record->index] != NULL) {
        return NULL;
    }
    struct disk *disk = calloc(1, sizeof(*disk));
    ASSERT(disk != NULL);
    disk->manager = pool->manager;
    disk->pool = pool;
    disk->record = *record;
    list_init(&disk->flush_waiting);
    list_init(&disk->flush_covered);
    disk->slots_used = calloc((record->slot_count + 63) / 64 + 1, sizeof(uint64_t));
    ASSERT(disk->slots_used != NULL);
    disk->slots_free = record->slot_count;
    pool->disks[record->index] = disk;
    /* Other reactors check indices against it that they have learnt after this. */
    __atomic_store_n(&pool->disk_count, MAX(pool->disk_count, record->index + 1u),
                     __ATOMIC_RELAXED);
    return disk;
}

static void
disk_free(struct disk *disk)
{
    free(disk->slots_used);
    free(disk->look_memory);
    free(disk);
}

static int32_t
late_close_work(struct offload_job *job)
{
    backend_close(container_of(job, struct disk, late_close)->late_backend);
    return 0;
}

static void
late_closed(struct io_op *op)
{
    struct offload_job *job = container_of(op, struct offload_job, op);
    struct disk *disk = container_of(job, struct disk, late_close);

    disk->late_backend = NULL;
    disk->late_closing = false;
    disk_release(disk);
}

void
disk_release(struct disk *disk)
{
    if (disk->busy > 0 || disk->late_closing) {
        return;
    }
    if (disk->late_backend != NULL) {
        disk->late_closing = true;
        disk->late_close.op.done = late_closed;
        offload_submit(disk->manager->offload, &disk->late_close, late_close_work);
    } else if (disk->orphaned) {
        disk_free(disk);
    }
}

void
pool_disk_free(struct pool *pool, struct disk *disk)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(disk->backend == NULL && disk->left_out == NULL);
    ASSERT(pool->disks[disk->record.index] == disk);
    pool->disks[disk->record.index] = NULL;
    while (pool->disk_count > 0 && pool->disks[pool->disk_count - 1] == NULL) {
        pool->disk_count--;
    }
    disk->orphaned = true;
    disk_release(disk);
}

void
pool_free(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(list_empty(&pool->controls) && list_empty(&pool->erasures));
    ASSERT(list_empty(&pool->volumes) && list_empty(&pool->views));
    ASSERT(list_empty(&pool->branch_list) && list_empty(&pool->snapshot_list));
    ASSERT(pool->store == NULL && pool->ledger == NULL && pool->shards == NULL);
    timer_disarm(pool->manager->control, &pool->label_timer);
    pool_heartbeat_stop(pool);
    for (uint32_t i = pool->disk_count; i > 0; i--) {
        if (pool->disks[i - 1] != NULL) {
            pool_disk_free(pool, pool->disks[i - 1]);
        }
    }
    if (pool->allocator.machine != NULL) {
        allocator_free(&pool->allocator);
    }
    committer_free(&pool->committer);
    extent_table_free(&pool->extents);
    hash_table_free(&pool->volumes_by_id);
    hash_table_free(&pool->volumes_by_name);
    hash_table_free(&pool->volumes_by_branch);
    hash_table_free(&pool->branches);
    hash_table_free(&pool->snapshots);
    hash_table_free(&pool->snapshots_by_name);
    list_remove(&pool->link);
    free(pool);
}

struct pool *
manager_find_pool(const struct manager *manager, const char *name)
{
    list_for_each(&manager->pools, link) {
        struct pool *pool = list_entry(link, struct pool, link);
        if (strcmp(pool->name, name) == 0) {
            return pool;
        }
    }
    return NULL;
}

/* ---- volumes of the pool ---- */

void
pool_add_volume(struct pool *pool, struct volume *volume)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    const struct volume_record *record = &volume->durable;

    hash_table_insert(&pool->volumes_by_id, &volume->by_id, hash_u64(record->id));
    hash_table_insert(&pool->volumes_by_branch, &volume->by_branch,
                      hash_u64(volume->branch.id));
    list_push_back(&pool->volumes, &volume->pool_link);
    if (!record->deleting) {
        hash_table_insert(&pool->volumes_by_name, &volume->by_name, text_hash(record->name));
        pool->volume_count++;
    }
    if (record->reserve_bytes > 0) {
        pool->allocator.has_reserves = true;
    }
    pool_lineage_add_volume(pool, volume);
}

void
pool_remove_volume(struct pool *pool, struct volume *volume)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (volume->keeper) {
        list_remove(&volume->pool_link);
        return;
    }
    pool_lineage_remove_volume(pool, volume);
    hash_table_remove(&pool->volumes_by_id, &volume->by_id);
    hash_table_remove(&pool->volumes_by_branch, &volume->by_branch);
    list_remove(&volume->pool_link);
    if (!volume->durable.deleting) {
        hash_table_remove(&pool->volumes_by_name, &volume->by_name);
        ASSERT_OP(pool->volume_count, >, 0u);
        pool->volume_count--;
    }
}

void
volume_release(struct volume *volume)
{
    ASSERT(list_empty(&volume->exports));
    ASSERT_OP(volume->holds, ==, 0u);
    free(volume->info);
    volume->info = NULL;
    volume_free(volume);
}

struct volume *
pool_find_volume(const struct pool *pool, const char *name)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t hash = text_hash(name);

    for (struct hash_node *node = hash_table_chain(&pool->volumes_by_name, hash); node != NULL;
         node = node->next) {
        struct volume *volume = container_of(node, struct volume, by_name);
        if (node->hash == hash && strcmp(volume->durable.name, name) == 0) {
            ASSERT(!volume->durable.deleting);
            return volume;
        }
    }
    return NULL;
}

struct volume *
pool_find_volume_by_id(const struct pool *pool, uint64_t id)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t hash = hash_u64(id);

    for (struct hash_node *node = hash_table_chain(&pool->volumes_by_id, hash); node != NULL;
         node = node->next) {
        struct volume *volume = container_of(node, struct volume, by_id);
        if (volume->durable.id == id) {
            return volume;
        }
    }
    return NULL;
}

struct volume *
pool_find_volume_by_branch(const struct pool *pool, uint64_t branch)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t hash = hash_u64(branch);

    for (struct hash_node *node = hash_table_chain(&pool->volumes_by_branch, hash); node != NULL;
         node = node->next) {
        struct volume *volume = container_of(node, struct volume, by_branch);
        if (volume->branch.id == branch) {
            return volume;
        }
    }
    return NULL;
}

/* ---- state ---- */

void
pool_set_state(struct pool *pool, enum pool_state state, const char *format, ...)
{
    va_list arguments;

    ASSERT_ON_REACTOR(pool->manager->control);
    va_start(arguments, format);
    vsnprintf(pool->reason, sizeof(pool->reason), format, arguments);
    va_end(arguments);
    pool->state = state;
    if (state == POOL_STATE_OFFLINE || state == POOL_STATE_READ_ONLY) {
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "pool-state", "%s: %s",
                    pool_state_name(state), pool->reason);
    } else if (state == POOL_STATE_DEGRADED) {
        event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "pool-state", "%s: %s",
                    pool_state_name(state), pool->reason);
    }
}

int
pool_check_writable(const struct pool *pool, struct error *error)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    switch (pool->state) {
    case POOL_STATE_ONLINE:
    case POOL_STATE_DEGRADED:
        return 0;
    case POOL_STATE_READ_ONLY:
        return error_set(error, -EROFS, "pool `%s` is read-only: %.300s", pool->name,
                         pool->reason);
    case POOL_STATE_OPENING:
        return error_set(error, -ENODEV, "pool `%s` is being opened; try again", pool->name);
    case POOL_STATE_OFFLINE:
        return error_set(error, -ENODEV, "pool `%s` is offline: %.300s", pool->name,
                         pool->reason);
    }
    UNREACHABLE();
}

/* ---- what the data path tells ---- */

void
pool_metadata_failed(struct pool *pool, int status)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (pool->state == POOL_STATE_READ_ONLY) {
        return;
    }
    pool_set_state(pool, POOL_STATE_READ_ONLY,
                   "its metadata could not be written (%s); what was acknowledged is safe; find "
                   "the cause, then restart the daemon",
                   error_name(status));
}

void
pool_ledger_copies_dropped(struct pool *pool, uint32_t copies)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint32_t left = 0;

    for (uint32_t n = 0; n < pool->ledger_disk_count; n++) {
        left += (copies & 1u << n) == 0 && pool->disks[pool->ledger_disks[n]]->label.ledger_current;
    }
    for (uint32_t n = 0; n < pool->ledger_disk_count; n++) {
        struct disk *disk = pool->disks[pool->ledger_disks[n]];
        if ((copies & (1u << n)) == 0) {
            continue;
        }
        /* When none is left, nothing is acknowledged any more that they do not have. */
        disk->label.ledger_current = left == 0;
        disk->ledger_dropped = true;
        const struct backend *backend = disk->backend != NULL ? disk->backend : disk->left_out;
        event_raise(pool->manager, EVENT_WARNING, pool->name, backend->spec,
                    "ledger-copy-dropped",
                    "this disk was too late or failed, so it holds no current copy of the commit "
                    "ledger until the pool is opened again");
    }
}

void
pool_branch_got_extent(struct pool *pool, uint64_t branch_id)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct pool_branch *branch = pool_find_branch(pool, branch_id);
    if (branch != NULL) {
        branch->extents++;
        branch->volume->extents_owned++;
    }
}

void
pool_branch_lost_extent(struct pool *pool, uint64_t branch_id)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct pool_branch *branch = pool_find_branch(pool, branch_id);
    if (branch != NULL) {
        ASSERT_OP(branch->extents, >, 0u);
        ASSERT_OP(branch->volume->extents_owned, >, 0u);
        branch->extents--;
        branch->volume->extents_owned--;
        if (branch->extents == 0 && branch->lineage->ended) {
            reclaim_kick(pool);
        }
    }
}

void
pool_journal_identity(const struct pool *pool, const struct run_record *run, uint32_t index,
                      struct journal_identity *ret_identity)
{
    *ret_identity = (struct journal_identity){
        .incarnation = run->incarnation,
        .index = index,
    };
    memcpy(ret_identity->pool_guid, pool->record.pool_guid, GUID_BYTES);
    memcpy(ret_identity->database_guid, pool->record.database_guid, GUID_BYTES);
    memcpy(ret_identity->ring_guid, run->ring_guid, GUID_BYTES);
    snprintf(ret_identity->boot_id, sizeof(ret_identity->boot_id), "%s", run->boot_id);
}
