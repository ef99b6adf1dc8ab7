/* SPDX-License-Identifier: Apache-2.0 */
/* From loaded records to serving: shards, extents in their sources, volumes on their reactors. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "volmgr/control_impl.h"

/* ---- shards ---- */

/*
 * The rings of a run have names that follow from its incarnation, so that those of a start that
 * ended before it could note them are found again, and do not stay in memory for ever.
 */
static void
ring_guid(const struct pool *pool, uint64_t incarnation, uint8_t ret_guid[static GUID_BYTES])
{
    const uint8_t *database = pool->record.database_guid;

    put_le64(ret_guid, hash_u64(get_le64(database) + incarnation));
    put_le64(ret_guid + 8, hash_u64(get_le64(database + 8) ^ ~incarnation));
}

static void
remove_left_rings(const struct shards_create *create)
{
    const struct pool *pool = create->pool;

    for (uint64_t run = create->rings_from; run < pool->record.incarnation; run++) {
        struct run_record record = { .incarnation = run };
        if (create->rings_from == 0 || run == create->rings_kept) {
            continue;
        }
        ring_guid(pool, run, record.ring_guid);
        for (uint32_t i = 0; i < REACTOR_COUNT_MAX; i++) {
            struct journal_identity identity;
            pool_journal_identity(pool, &record, i, &identity);
            journal_remove(pool->manager->options.platform, &identity);
        }
    }
}

static int32_t
shards_create_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct shards_create *create = container_of(own, struct shards_create, job);
    struct pool *pool = create->pool;

    remove_left_rings(create);
    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        int result = shard_create(pool, i, &pool->shards[i], &create->error);
        if (result < 0) {
            error_set(&create->error, result, "cannot set up the volatile journal: %s",
                      error_name(result));
            return result;
        }
    }
    return 0;
}

void
pool_shards_create(struct machine *machine, struct shards_create *create, struct pool *pool)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    struct manager *manager = pool->manager;
    struct platform *platform = manager->options.platform;

    ASSERT(pool->shards == NULL);
    pool->shards = calloc(manager->options.reactor_count, sizeof(*pool->shards));
    ASSERT(pool->shards != NULL);
    pool->run = (struct run_record){
        .state = RUN_STATE_OPEN,
        .incarnation = pool->record.incarnation,
        .ring_count = manager->options.reactor_count,
        .ring_bytes = manager->options.journal_bytes,
    };
    platform->ops->boot_id(platform, pool->run.boot_id);
    ring_guid(pool, pool->run.incarnation, pool->run.ring_guid);
    create->pool = pool;
    machine_offload(machine, &create->job, shards_create_work);
}

void
pool_shards_destroy(struct pool *pool, bool remove_journals)
{
    ASSERT(pool->shards != NULL);
    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        struct shard *shard = pool->shards[i];
        if (shard != NULL) {
            shard->remove_journal = remove_journals;
            shard_destroy(shard);
        }
    }
    free(pool->shards);
    pool->shards = NULL;
}

/* ---- extents ---- */

/*
 * Extents that hold nothing go back to the pool: who needs some asks for them again. Those are
 * noted that allocator_release() shall be called for, once the pool serves.
 */
static void
place_extent(struct pool *pool, struct extent *extent, uint64_t *orphans,
             struct byte_buffer *ret_unused)
{
    struct grain_source *source = NULL;

    if (extent->state != EXTENT_STATE_DATA) {
        return;
    }
    if (extent->owner_branch == 0) {
        extent->shard = (uint16_t)(extent->id % pool->manager->options.reactor_count);
        source = &pool->shards[extent->shard]->shared_source;
    } else {
        struct volume *volume = pool_find_keeper(pool, extent->owner_branch);
        if (volume == NULL) {
            (*orphans)++;
            return;
        }
        extent->shard = (uint16_t)volume->shard->index;
        pool_branch_got_extent(pool, extent->owner_branch);
        source = &volume->source;
    }
    if (extent->free_count == pool->grains_per_extent) {
        extent->releasing = true;
        byte_buffer_append(ret_unused, &extent->id, sizeof(extent->id));
        return;
    }
    grain_source_adopt(source, extent);
}

void
pool_place_extents(struct pool *pool, struct byte_buffer *ret_unused)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    const struct extent_table *table = &pool->extents;
    uint64_t orphans = 0;

    for (uint64_t id = 1; id < table->count_end; id++) {
        if (table->directory[id >> EXTENT_CHUNK_SHIFT] == NULL) {
            id |= EXTENT_CHUNK_COUNT - 1; /* nothing in this chunk */
            continue;
        }
        struct extent *extent = extent_table_find(table, id);
        if (extent != NULL) {
            place_extent(pool, extent, &orphans, ret_unused);
        }
    }
    if (orphans > 0) {
        event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "orphan-extents",
                    "%llu extents belong to no volume; their space is not used",
                    (unsigned long long)orphans);
    }
}

/* ---- serving ---- */

static enum machine_step
serve_visit(struct round_stop *stop)
{
    struct pool *pool = stop->round->context;
    struct shard *shard = pool->shards[stop->index];

    shard_start(shard);
    /* The list is the control reactor's, which waits for this round and leaves it alone. */
    list_for_each(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->shard == shard) {
            list_push_back(&shard->volumes, &volume->shard_link);
            volume->serving = !volume->record.deleting;
        }
    }
    return MACHINE_NEXT;
}

void
pool_serve(struct machine *machine, struct round *round, struct pool *pool)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT(pool->shards != NULL);
    round->context = pool;
    round_all(machine, round, serve_visit);
}

/* ---- what targets see of a volume ---- */

struct volume_info *
volume_publish_info(struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    const struct volume_record *record = &volume->durable;
    struct volume_info *info = calloc(1, sizeof(*info));

    ASSERT(info != NULL);
    snprintf(info->pool_name, sizeof(info->pool_name), "%s", volume->pool->name);
    snprintf(info->name, sizeof(info->name), "%s", record->name);
    if (volume->snapshot != NULL) {
        snprintf(info->snapshot, sizeof(info->snapshot), "%s", volume->snapshot->record.name);
    }
    memcpy(info->guid, record->guid, GUID_BYTES);
    info->size_bytes = record->size_bytes;
    info->sector_bytes = record->sector_bytes;
    info->block_bytes = BLOCK_BYTES;
    info->grain_bytes = GRAIN_BYTES;
    return __atomic_exchange_n(&volume->info, info, __ATOMIC_ACQ_REL);
}

void
volume_get_info(struct volume *volume, struct volume_info *ret_info)
{
    const struct volume_info *info = __atomic_load_n(&volume->info, __ATOMIC_ACQUIRE);

    ASSERT(info != NULL);
    *ret_info = *info;
}

struct reactor *
volume_reactor(struct volume *volume)
{
    return volume->shard->reactor;
}
