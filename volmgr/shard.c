/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a shard, one reactor's part of a pool, and of the volumes on it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

static void
note_disk(struct shard *shard, struct disk *disk)
{
    uint32_t index = disk->record.index;
    struct shard_disk *mine = shard->disks[index];

    if (mine == NULL) {
        mine = calloc(1, sizeof(*mine));
        ASSERT(mine != NULL);
        mine->shard = shard;
        mine->disk = disk;
        list_init(&mine->waiters);
        list_init(&mine->waiters_next);
        list_init(&mine->flush_link);
        shard->disks[index] = mine;
        shard->disk_count = MAX(shard->disk_count, index + 1);
    }
    if (disk->backend == NULL) {
        return;
    }
    mine->loss_generation_seen = __atomic_load_n(&disk->backend->loss_generation,
                                                 __ATOMIC_ACQUIRE);
    uint32_t sector_bytes = disk->backend->properties.block_bytes;
    uint32_t memory_alignment = disk->backend->properties.memory_alignment_bytes;
    if (sector_bytes > shard->sector_bytes_max || memory_alignment > shard->memory_alignment_max) {
        shard->sector_bytes_max = MAX(shard->sector_bytes_max, sector_bytes);
        shard->memory_alignment_max = MAX(shard->memory_alignment_max, memory_alignment);
        shard->geometry_epoch++;
    }
}

static void
forget_disks(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->disk_count; i++) {
        free(shard->disks[i]);
    }
    free(shard->disks);
}

int
shard_create(struct pool *pool, uint32_t index, struct shard **ret_shard, struct error *error)
{
    const struct manager_options *options = &pool->manager->options;
    struct shard *shard = calloc(1, sizeof(*shard));

    ASSERT(shard != NULL);
    shard->pool = pool;
    shard->index = index;
    shard->reactor = options->reactors[index];
    shard->sector_bytes_max = 512;
    shard->memory_alignment_max = 1;
    list_init(&shard->volumes);
    list_init(&shard->dirty_volumes);
    list_init(&shard->seal_waiters);
    list_init(&shard->active);
    list_init(&shard->seal_wanted);
    list_init(&shard->free_fans);
    list_init(&shard->free_bounces);
    shard->disks = calloc(POOL_DISKS_MAX, sizeof(*shard->disks));
    ASSERT(shard->disks != NULL);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        if (pool->disks[i] != NULL) {
            note_disk(shard, pool->disks[i]);
        }
    }
    struct journal_identity identity;
    pool_journal_identity(pool, &pool->run, index, &identity);
    int result = journal_create(&shard->journal, options->platform, &identity,
                                options->journal_bytes, error);
    if (result < 0) {
        forget_disks(shard);
        free(shard);
        return result;
    }
    map_cache_init(&shard->cache, shard, options->map_cache_bytes / options->reactor_count);
    grain_source_init(&shard->shared_source, shard, NULL);
    *ret_shard = shard;
    return 0;
}

void
shard_destroy(struct shard *shard)
{
    struct journal_identity identity;

    ASSERT(list_empty(&shard->active));
    ASSERT(list_empty(&shard->volumes));
    ASSERT(list_empty(&shard->seal_wanted));
    map_cache_free(&shard->cache);
    pool_journal_identity(shard->pool, &shard->pool->run, shard->index, &identity);
    journal_close(&shard->journal, &identity, shard->remove_journal);
    for (struct list *link = list_pop_front(&shard->free_fans); link != NULL;
         link = list_pop_front(&shard->free_fans)) {
        free(list_entry(link, struct volume_fan, link));
    }
    for (struct list *link = list_pop_front(&shard->free_bounces); link != NULL;
         link = list_pop_front(&shard->free_bounces)) {
        struct volume_bounce *bounce = list_entry(link, struct volume_bounce, link);
        free(bounce->memory);
        free(bounce);
    }
    forget_disks(shard);
    free(shard);
}

void
shard_stop(struct shard *shard)
{
    ASSERT_ON_REACTOR(shard->reactor);
    shard->stopping = true;
    timer_disarm(shard->reactor, &shard->commit_timer);
    timer_disarm(shard->reactor, &shard->deadline_timer);
    timer_disarm(shard->reactor, &shard->space_timer);
}

void
shard_start(struct shard *shard)
{
    ASSERT_ON_REACTOR(shard->reactor);
    shard->stopping = false;
}

void
shard_add_disk(struct shard *shard, struct disk *disk)
{
    ASSERT_ON_REACTOR(shard->reactor);
    ASSERT_OP(disk->record.index, <, (uint32_t)POOL_DISKS_MAX);
    note_disk(shard, disk);
}

/* Its place in the lineage; a branch that is not in it yet has no parent. */
static void
take_place(struct volume *volume)
{
    const struct pool_branch *branch = pool_find_branch(volume->pool, volume->branch.id);

    if (branch == NULL) {
        ASSERT_OP(volume->branch.parent, ==, 0u);
        volume->chain = view_chain_make_root(volume->branch.id);
    } else {
        volume->chain = view_chain_make(branch->lineage, LINEAGE_FOREVER);
        volume->frozen = lineage_frozen(branch->lineage, LINEAGE_FOREVER);
        volume->owned_above = lineage_owned_above(branch->lineage);
    }
}

struct volume *
volume_new(struct pool *pool, const struct volume_record *record,
           const struct branch_record *branch, const struct branch_position *position)
{
    struct volume *volume = calloc(1, sizeof(*volume));

    ASSERT(volume != NULL);
    volume->pool = pool;
    volume->record = *record;
    volume->branch = *branch;
    volume->shard =
        pool->shards[pool_shard_index(branch, pool->manager->options.reactor_count)];
    volume->view = LINEAGE_FOREVER;
    take_place(volume);
    volume->committed_batch = position->batch;
    volume->open_batch = position->batch + 1;
    volume->mapped_grains = position->mapped_grains;
    list_init(&volume->pool_link);
    list_init(&volume->exports);
    list_init(&volume->snapshots);
    list_init(&volume->sessions);
    range_lock_init(&volume->lock);
    list_init(&volume->active);
    list_init(&volume->shard_link);
    list_init(&volume->shard_dirty_link);
    list_init(&volume->seal_wanted_link);
    list_init(&volume->dirty_pages);
    list_init(&volume->flush_requests);
    list_init(&volume->seal.pages);
    list_init(&volume->seal.requests);
    list_init(&volume->drain_waiters);
    list_init(&volume->changes);
    list_init(&volume->loss_waiters);
    volume_history_init(&volume->history);
    grain_source_init(&volume->source, volume->shard, volume);
    return volume;
}

void
volume_free(struct volume *volume)
{
    ASSERT(list_empty(&volume->active));
    ASSERT(list_empty(&volume->sessions));
    ASSERT(volume->seal.phase == SEAL_IDLE);
    ASSERT(volume->loss == NULL);
    ASSERT(!list_linked(&volume->shard_link));
    range_lock_free(&volume->lock);
    byte_buffer_free(&volume->allocated);
    byte_buffer_free(&volume->dropped);
    byte_buffer_free(&volume->seal.bytes);
    byte_buffer_free(&volume->seal.dropped);
    byte_buffer_free(&volume->seal.allocated);
    byte_buffer_free(&volume->export_ids);
    volume_history_free(&volume->history);
    unflushed_free(&volume->written);
    unflushed_free(&volume->seal.written);
    free(volume->seal.disk_waiters);
    view_chain_put(volume->chain);
    free(volume);
}

void
volume_drained(struct volume *volume)
{
    for (struct list *link = list_pop_front(&volume->drain_waiters); link != NULL;
         link = list_pop_front(&volume->drain_waiters)) {
        struct volume_drain *drain = list_entry(link, struct volume_drain, link);
        reactor_complete(&drain->op, 0);
    }
}

void
volume_drain(struct volume *volume, struct volume_drain *drain)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (list_empty(&volume->active)) {
        reactor_complete(&drain->op, 0);
    } else {
        list_push_back(&volume->drain_waiters, &drain->link);
    }
}
