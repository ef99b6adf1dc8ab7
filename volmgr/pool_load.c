/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a pool's database at open. Nothing in it is trusted (P12): each record is decoded and
 * checked against the others, and the first that does not fit is named in the refusal.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "volmgr/pool_open_impl.h"
#include "volmgr/snapshot_control_impl.h"

enum {
    NAMED_MAX = 8 /* volumes that one event names */
};

void
pool_load_free(struct pool_load *load)
{
    byte_buffer_free(&load->disks);
    byte_buffer_free(&load->branches);
    byte_buffer_free(&load->positions);
    byte_buffer_free(&load->volumes);
    byte_buffer_free(&load->exports);
    byte_buffer_free(&load->snapshots);
    byte_buffer_free(&load->policies);
    *load = (struct pool_load){ 0 };
}

/* ---- the SYSTEM family ---- */

static int
refuse_key(struct error *error, const struct store_batch_item *item, const char *why)
{
    char key[2 * STORE_KEY_BYTES_MAX + 1];

    for (uint32_t i = 0; i < item->key_bytes; i++) {
        snprintf(key + (size_t)2 * i, 3, "%02x", item->key[i]);
    }
    key[2 * (size_t)item->key_bytes] = '\0';
    return error_set(error, -EUCLEAN, "the database is damaged: record %c (key %s) %s",
                     item->key_bytes > 0 && item->key[0] >= ' ' && item->key[0] < 0x7f
                         ? item->key[0]
                         : '?',
                     key, why);
}

static int
refuse_newer(struct error *error, const struct store_batch_item *item)
{
    return error_set(error, -EPROTO,
                     "the database was written by a newer volmgr: it has a record of type %c that "
                     "this one must not serve without knowing it",
                     item->key[0] > ' ' && item->key[0] < 0x7f ? item->key[0] : '?');
}

static bool
key_is_id(const struct store_batch_item *item, uint64_t id)
{
    return item->key_bytes == 1 + sizeof(uint64_t) && get_be64(item->key + 1) == id;
}

static int
load_disk(struct pool_load *load, const struct store_batch_item *item)
{
    struct disk_record record;

    if (schema_get_disk(item->value, item->value_bytes, &record) < 0 ||
        item->key_bytes != 1 + sizeof(uint16_t) || get_be16(item->key + 1) != record.index ||
        record.index >= POOL_DISKS_MAX) {
        return -EUCLEAN;
    }
    byte_buffer_append(&load->disks, &record, sizeof(record));
    return 0;
}

static int
load_volume(struct pool_load *load, const struct store_batch_item *item)
{
    struct volume_record record;

    if (schema_get_volume(item->value, item->value_bytes, &record) < 0 ||
        !key_is_id(item, record.id)) {
        return -EUCLEAN;
    }
    if ((record.sector_bytes != 512 && record.sector_bytes != 4096) || record.size_bytes == 0 ||
        record.size_bytes > VOLUME_SIZE_BYTES_MAX ||
        record.size_bytes % record.sector_bytes != 0 || !schema_name_is_valid(record.name)) {
        return -EUCLEAN;
    }
    if (record.kind != VOLUME_KIND_PLAIN) {
        return -EPROTO;
    }
    byte_buffer_append(&load->volumes, &record, sizeof(record));
    return 0;
}

static int
load_branch(struct pool_load *load, const struct store_batch_item *item)
{
    struct branch_record record;

    if (schema_get_branch(item->value, item->value_bytes, &record) < 0 ||
        !key_is_id(item, record.id) || record.current_generation <= record.fork_generation ||
        record.current_generation >= LINEAGE_FOREVER || record.parent >= record.id) {
        return -EUCLEAN;
    }
    byte_buffer_append(&load->branches, &record, sizeof(record));
    return 0;
}

static int
load_position(struct pool_load *load, const struct store_batch_item *item)
{
    struct load_position record = { 0 };

    if (item->key_bytes != 1 + sizeof(uint64_t) ||
        schema_get_position(item->value, item->value_bytes, &record.position) < 0) {
        return -EUCLEAN;
    }
    record.branch = get_be64(item->key + 1);
    byte_buffer_append(&load->positions, &record, sizeof(record));
    return 0;
}

static int
load_export(struct pool_load *load, const struct store_batch_item *item)
{
    struct export_record record;

    if (schema_get_export(item->value, item->value_bytes, &record) < 0 ||
        !key_is_id(item, record.id)) {
        return -EUCLEAN;
    }
    byte_buffer_append(&load->exports, &record, sizeof(record));
    return 0;
}

static int
load_snapshot(struct pool_load *load, const struct store_batch_item *item)
{
    struct load_snapshot snapshot = { 0 };

    if (schema_get_snapshot(item->value, item->value_bytes, &snapshot.record) < 0 ||
        schema_snapshot_key_decode(item->key, item->key_bytes, &snapshot.branch,
                                   &snapshot.generation) < 0) {
        return -EUCLEAN;
    }
    byte_buffer_append(&load->snapshots, &snapshot, sizeof(snapshot));
    return 0;
}

static int
load_policy(struct pool_load *load, const struct store_batch_item *item)
{
    struct load_policy policy = { 0 };

    if (item->key_bytes != 1 + sizeof(uint64_t) ||
        schema_get_policy(item->value, item->value_bytes, &policy.record) < 0) {
        return -EUCLEAN;
    }
    policy.volume = get_be64(item->key + 1);
    byte_buffer_append(&load->policies, &policy, sizeof(policy));
    return 0;
}

static int
load_item(struct pool_load *load, const struct store_batch_item *item)
{
    int result = 0;

    if (item->key_bytes == 0) {
        return -EUCLEAN;
    }
    switch (item->key[0]) {
    case SCHEMA_POOL:
        result = schema_get_pool(item->value, item->value_bytes, &load->pool);
        load->has_pool = true;
        return result;
    case SCHEMA_COMMIT:
        result = schema_get_commit(item->value, item->value_bytes, &load->commit);
        load->has_commit = true;
        return result;
    case SCHEMA_RUN:
        result = schema_get_run(item->value, item->value_bytes, &load->run);
        load->has_run = true;
        return result;
    case SCHEMA_CHECKPOINT:
        if (item->key_bytes != 2 || item->key[1] >= ARRAY_SIZE(load->checkpoints)) {
            return -EUCLEAN;
        }
        return schema_get_checkpoint(item->value, item->value_bytes,
                                     &load->checkpoints[item->key[1]]);
    case SCHEMA_DISK:
        return load_disk(load, item);
    case SCHEMA_VOLUME:
        return load_volume(load, item);
    case SCHEMA_BRANCH:
        return load_branch(load, item);
    case SCHEMA_POSITION:
        return load_position(load, item);
    case SCHEMA_EXPORT:
        return load_export(load, item);
    case SCHEMA_SNAPSHOT:
        return load_snapshot(load, item);
    case SCHEMA_POLICY:
        return load_policy(load, item);
    default:
        /* The rest is not needed to open the pool, or must be known. */
        return item->key[0] >= SCHEMA_MUST_BE_KNOWN ? -EPROTO : 0;
    }
}

int
pool_load_system(struct pool_load *load, const struct byte_buffer *items, struct error *error)
{
    struct store_batch_item item;
    size_t position = 0;

    for (;;) {
        int next = store_batch_next(items->data, items->length_bytes, &position, &item);
        if (next <= 0) {
            return next == 0 ? 0
                             : error_set(error, -EUCLEAN, "the database gives no valid records");
        }
        int result = load_item(load, &item);
        if (result < 0) {
            return result == -EPROTO ? refuse_newer(error, &item)
                                     : refuse_key(error, &item, "cannot be understood");
        }
    }
}

int
pool_load_check(const struct pool_load *load, const char *pool_name, struct error *error)
{
    if (!load->has_pool || !load->has_commit || !load->has_run ||
        load->disks.length_bytes == 0) {
        return error_set(error, -EUCLEAN,
                         "the database is incomplete: it has no %s; `volctl pool import` rebuilds "
                         "it from the disks",
                         !load->has_pool     ? "pool record"
                         : !load->has_commit ? "commit number"
                         : !load->has_run    ? "record of its last run"
                                             : "disks");
    }
    if (load->pool.schema_version > SCHEMA_VERSION) {
        return error_set(error, -EPROTO, "the database was written by a newer volmgr (version %u)",
                         load->pool.schema_version);
    }
    if (strcmp(load->pool.name, pool_name) != 0) {
        return error_set(error, -EUCLEAN, "the database is that of pool `%s`", load->pool.name);
    }
    if (!is_power_of_two(load->pool.extent_bytes) ||
        load->pool.extent_bytes < EXTENT_BYTES_MIN || load->pool.extent_bytes > EXTENT_BYTES_MAX) {
        return error_set(error, -EUCLEAN, "the database is damaged: an extent size of %llu",
                         (unsigned long long)load->pool.extent_bytes);
    }
    return 0;
}

/* ---- the EXTENT family ---- */

static void
note_missing(struct pool_opening *opening, const struct extent_record *record)
{
    const struct pool *pool = opening->pool;
    struct byte_buffer *affected = &opening->affected;

    for (uint8_t copy = 0; copy < record->copy_count; copy++) {
        const struct disk *disk = pool->disks[record->places[copy].disk];
        if (disk->backend != NULL) {
            return; /* a copy is there */
        }
    }
    if (record->owner_branch == 0) {
        opening->shared_affected = true;
        return;
    }
    /* Extents of a branch lie together: the last one noted is mostly the same. */
    size_t count = affected->length_bytes / sizeof(uint64_t);
    const uint64_t *branches = (const uint64_t *)(const void *)affected->data;
    if (count == 0 || branches[count - 1] != record->owner_branch) {
        byte_buffer_append(affected, &record->owner_branch, sizeof(record->owner_branch));
    }
}

static int
load_extent(struct pool_opening *opening, const struct store_batch_item *item)
{
    struct pool *pool = opening->pool;
    struct extent_record record;
    uint64_t id = 0;
    uint32_t used = 0;

    if (extent_key_decode(item->key, item->key_bytes, &id) < 0 ||
        extent_record_decode(item->value, item->value_bytes, pool->grains_per_extent, &record) <
            0 ||
        id >= pool->record.next_extent || record.copy_count == 0) {
        return -EUCLEAN;
    }
    struct extent *extent = extent_table_add(&pool->extents, id);
    if (extent == NULL) {
        return -EUCLEAN;
    }
    for (uint8_t copy = 0; copy < record.copy_count; copy++) {
        if (allocator_claim_slot(&pool->allocator, record.places[copy]) < 0) {
            return -EUCLEAN;
        }
    }
    for (uint32_t word = 0; word < (pool->grains_per_extent + 63) / 64; word++) {
        extent->used[word] = record.used[word];
        used += (uint32_t)__builtin_popcountll(record.used[word]);
    }
    if (used > pool->grains_per_extent) {
        return -EUCLEAN;
    }
    extent->owner_branch = record.owner_branch;
    memcpy(extent->places, record.places, sizeof(extent->places));
    extent->copy_count = record.copy_count;
    extent->tier = record.tier;
    extent->free_count = pool->grains_per_extent - used;
    extent->state = record.state;
    if (record.state == EXTENT_STATE_CHECKPOINT) {
        pool->allocator.metadata_extents++;
    }
    if (opening->missing_count > 0) {
        note_missing(opening, &record);
    }
    return 0;
}

int
pool_load_extents(struct pool_opening *opening, const struct byte_buffer *items,
                  struct error *error)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct store_batch_item item;
    size_t position = 0;

    for (;;) {
        int next = store_batch_next(items->data, items->length_bytes, &position, &item);
        if (next <= 0) {
            return next == 0 ? 0
                             : error_set(error, -EUCLEAN, "the database gives no valid records");
        }
        if (load_extent(opening, &item) < 0) {
            return refuse_key(error, &item, "of an extent does not fit the pool");
        }
    }
}

/* ---- volumes ---- */

/* Binary search in an array that is sorted by a leading uint64_t. */
static const void *
find_by_id(const struct byte_buffer *array, size_t item_bytes, uint64_t id)
{
    size_t low = 0;
    size_t high = array->length_bytes / item_bytes;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const uint8_t *item = array->data + middle * item_bytes;
        uint64_t item_id;
        memcpy(&item_id, item, sizeof(item_id));
        if (item_id == id) {
            return item;
        }
        if (item_id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static int
make_volume(struct pool_opening *opening, const struct volume_record *record, struct error *error)
{
    struct pool *pool = opening->pool;
    struct pool_load *load = &opening->load;
    struct branch_position none = { 0 };

    _Static_assert(offsetof(struct branch_record, id) == 0, "searched by id");
    _Static_assert(offsetof(struct load_position, branch) == 0, "searched by branch");
    const struct branch_record *branch =
        find_by_id(&load->branches, sizeof(*branch), record->branch);
    const struct load_position *position =
        find_by_id(&load->positions, sizeof(*position), record->branch);
    if (branch == NULL || record->id >= pool->record.next_volume ||
        (branch->flags & BRANCH_HEADLESS) != 0 ||
        (branch->volume != 0 && branch->volume != record->id)) {
        return error_set(error, -EUCLEAN,
                         "the database is damaged: volume `%s` has no valid branch", record->name);
    }
    if (pool_find_volume_by_branch(pool, record->branch) != NULL ||
        (!record->deleting && pool_find_volume(pool, record->name) != NULL)) {
        return error_set(error, -EUCLEAN, "the database is damaged: volume `%s` is there twice",
                         record->name);
    }
    struct volume *volume =
        volume_new(pool, record, branch, position != NULL ? &position->position : &none);
    volume->durable = *record;
    /* The difference to volume->record is committed with the start (pool_open.c). */
    volume->durable.fenced = record->fenced && !pool->manager->options.accept_loss;
    volume->fenced = volume->durable.fenced;
    volume_publish_info(volume);
    pool_add_volume(pool, volume);
    return 0;
}

/* Does it see pages of a branch whose extents are kept where some are missing? */
static bool
sees_affected(const struct pool *pool, const struct volume *volume)
{
    for (uint32_t i = 0; i < volume->chain->count; i++) {
        const struct volume *keeper = pool_find_keeper(pool, volume->chain->places[i].branch);
        if (keeper != NULL && keeper->affected) {
            return true;
        }
    }
    return false;
}

/* Mark the volumes that cannot be whole, and say which. */
static void
mark_affected(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;
    const uint64_t *branches = (const uint64_t *)(const void *)opening->affected.data;
    size_t count = opening->affected.length_bytes / sizeof(*branches);
    struct byte_buffer names = BYTE_BUFFER_INIT;
    uint32_t marked = 0;

    for (size_t i = 0; i < count; i++) {
        struct volume *keeper = pool_find_keeper(pool, branches[i]);
        if (keeper != NULL) {
            keeper->affected = true;
        }
    }
    list_for_each(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        if (count == 0 || volume->durable.deleting || !sees_affected(pool, volume)) {
            continue;
        }
        volume->affected = true;
        if (marked++ < NAMED_MAX) {
            byte_buffer_append_format(&names, "%s%s", marked > 1 ? ", " : "",
                                      volume->durable.name);
        }
    }
    if (marked > 0) {
        byte_buffer_append_u8(&names, 0);
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "volumes-affected",
                    "%u volumes have data on missing disks: %s%s", marked,
                    (const char *)names.data, marked > NAMED_MAX ? " ..." : "");
    }
    if (opening->shared_affected) {
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "small-volumes-affected",
                    "data of volumes smaller than 64 MiB are on missing disks, too");
    }
    byte_buffer_free(&names);
}

void
pool_load_checkpoints(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;

    for (uint32_t i = 0; i < ARRAY_SIZE(pool->checkpoints); i++) {
        const struct checkpoint_record *record = &opening->load.checkpoints[i];
        struct pool_checkpoint *checkpoint = &pool->checkpoints[i];
        const struct extent *first = extent_table_find(&pool->extents, record->first_extent);
        *checkpoint = (struct pool_checkpoint){ 0 };
        if (record->commit == 0 || first == NULL || first->state != EXTENT_STATE_CHECKPOINT) {
            continue;
        }
        checkpoint->commit = record->commit;
        checkpoint->length_bytes = record->length_bytes;
        checkpoint->first_extent = record->first_extent;
        checkpoint->extent_count = record->extent_count;
        checkpoint->first_count = first->copy_count;
        memcpy(checkpoint->first, first->places, sizeof(checkpoint->first));
    }
}

static void
restore_policies(struct pool_opening *opening)
{
    const struct byte_buffer *all = &opening->load.policies;
    const struct load_policy *policies = (const struct load_policy *)(const void *)all->data;

    for (size_t i = 0; i < all->length_bytes / sizeof(*policies); i++) {
        struct volume *volume = pool_find_volume_by_id(opening->pool, policies[i].volume);
        if (volume != NULL && !volume->durable.deleting) {
            policy_restore(volume, &policies[i].record);
        }
    }
}

int
pool_load_volumes(struct pool_opening *opening, struct error *error)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;
    struct pool_load *load = &opening->load;
    const struct volume_record *volumes =
        (const struct volume_record *)(const void *)load->volumes.data;
    const struct export_record *exports =
        (const struct export_record *)(const void *)load->exports.data;
    size_t volume_count = load->volumes.length_bytes / sizeof(*volumes);
    size_t export_count = load->exports.length_bytes / sizeof(*exports);

    pool_prepare_volumes(pool, volume_count);
    int result = snapshot_load_lineage(opening, error);
    for (size_t i = 0; i < volume_count && result == 0; i++) {
        result = make_volume(opening, &volumes[i], error);
    }
    if (result == 0) {
        result = snapshot_load_tables(opening, error);
    }
    if (result < 0) {
        return result;
    }
    for (size_t i = 0; i < export_count; i++) {
        struct volume *volume = pool_find_volume_by_id(pool, exports[i].volume);
        if (volume != NULL && !volume->durable.deleting) {
            export_restore(volume, &exports[i]);
        }
    }
    restore_policies(opening);
    mark_affected(opening);
    return 0;
}
