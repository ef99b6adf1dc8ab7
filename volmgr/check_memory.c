/* SPDX-License-Identifier: Apache-2.0 */
/* The online check's comparison of memory with the database; see check_online.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/check_online_impl.h"

enum {
    SUSPECTS_MAX = 1000,
};

/* ---- memory and database: volumes, exports, disks; in the pool's line ---- */

static bool
has_id(const struct byte_buffer *ids, uint64_t id)
{
    const uint64_t *array = (const uint64_t *)(const void *)ids->data;
    size_t low = 0;
    size_t high = ids->length_bytes / sizeof(*array);

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (array[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < ids->length_bytes / sizeof(*array) && array[low] == id;
}

static void
compare_volume(struct checking *checking, const struct store_batch_item *item)
{
    struct volume_record record;

    if (schema_get_volume(item->value, item->value_bytes, &record) < 0) {
        return; /* the walk reports what cannot be read */
    }
    byte_buffer_append(&checking->volume_ids, &record.id, sizeof(record.id));
    const struct volume *volume = pool_find_volume_by_id(checking->pool, record.id);
    if (record.deleting || (volume != NULL && volume->durable.deleting)) {
        return; /* its end is committed outside the line */
    }
    const struct volume_record *durable = volume != NULL ? &volume->durable : NULL;
    if (volume == NULL) {
        check_doubt(checking, "memory-volume-missing",
                    "the database has volume %.127s, the running daemon does not know it",
                    record.name);
    } else if (strcmp(durable->name, record.name) != 0 || durable->branch != record.branch ||
               durable->size_bytes != record.size_bytes ||
               durable->reserve_bytes != record.reserve_bytes ||
               durable->sector_bytes != record.sector_bytes || durable->tier != record.tier ||
               memcmp(durable->guid, record.guid, GUID_BYTES) != 0) {
        check_doubt(checking, "memory-volume-differs",
                    "the running daemon has volume %.80s otherwise than the database", record.name);
    }
}

static const struct export *
find_export(const struct pool *pool, uint64_t volume_id, uint64_t id)
{
    const struct volume *volume = pool_find_volume_by_id(pool, volume_id);

    if (volume != NULL) {
        list_for_each(&volume->exports, link) {
            const struct export *export = list_entry(link, struct export, volume_link);
            if (export->record.id == id) {
                return export;
            }
        }
    }
    return NULL;
}

static void
compare_export(struct checking *checking, const struct store_batch_item *item)
{
    struct export_record record;

    if (schema_get_export(item->value, item->value_bytes, &record) < 0) {
        return;
    }
    byte_buffer_append(&checking->export_ids, &record.id, sizeof(record.id));
    const struct export *export = find_export(checking->pool, record.volume, record.id);
    if (export == NULL) {
        check_doubt(checking, "memory-export-missing",
                    "the database has the export %.120s, the running daemon does not know it",
                    record.name);
    } else if (strcmp(export->record.name, record.name) != 0 ||
               strcmp(export->record.protocol, record.protocol) != 0 ||
               strcmp(export->record.options, record.options) != 0 ||
               export->record.read_only != record.read_only ||
               export->record.exclusive != record.exclusive) {
        check_doubt(checking, "memory-export-differs",
                    "the running daemon has the export %.120s otherwise than the database",
                    record.name);
    }
}

static void
compare_disk(struct checking *checking, const struct store_batch_item *item)
{
    struct disk_record record;
    const struct pool *pool = checking->pool;

    if (schema_get_disk(item->value, item->value_bytes, &record) < 0 ||
        record.index >= POOL_DISKS_MAX) {
        return;
    }
    const struct disk *disk = record.index < pool->disk_count ? pool->disks[record.index] : NULL;
    if (disk == NULL) {
        check_doubt(checking, "memory-disk-missing",
                    "the database has disk %u, the running daemon does not know it",
                    (unsigned)record.index);
    } else if (memcmp(disk->record.guid, record.guid, GUID_BYTES) != 0 ||
               disk->record.slot_count != record.slot_count ||
               disk->record.data_start_bytes != record.data_start_bytes) {
        check_doubt(checking, "memory-disk-differs",
                    "the running daemon has disk %u otherwise than the database",
                    (unsigned)record.index);
    }
}

void
check_compare_record(struct checking *checking, const struct store_batch_item *item)
{
    struct branch_position position;

    switch (item->key_bytes > 0 ? item->key[0] : 0) {
    case SCHEMA_VOLUME:
        compare_volume(checking, item);
        break;
    case SCHEMA_EXPORT:
        compare_export(checking, item);
        break;
    case SCHEMA_DISK:
        compare_disk(checking, item);
        break;
    case SCHEMA_POSITION:
        if (schema_get_position(item->value, item->value_bytes, &position) == 0) {
            checking->grains_known += position.mapped_grains;
        }
        break;
    default:
        break;
    }
}

/* What memory has must be there, now that all records have been seen. */
void
check_compare_ends(struct checking *checking)
{
    list_for_each(&checking->pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->durable.deleting || volume->durable.id >= checking->volumes_end) {
            continue;
        }
        if (!has_id(&checking->volume_ids, volume->durable.id)) {
            check_doubt(checking, "memory-volume-extra",
                        "the running daemon has volume %.80s, which the database does not have",
                        volume->durable.name);
        }
        list_for_each(&volume->exports, export_link) {
            const struct export *export = list_entry(export_link, struct export, volume_link);
            if (export->record.id < checking->exports_end &&
                !has_id(&checking->export_ids, export->record.id)) {
                check_doubt(checking, "memory-export-extra",
                            "the running daemon has the export %.120s, which the database does "
                            "not have",
                            export->record.name);
            }
        }
    }
}

/* ---- memory and database: extents ---- */

static bool
slot_is_taken(const struct pool *pool, struct extent_place place)
{
    const struct disk *disk = place.disk < pool->disk_count ? pool->disks[place.disk] : NULL;

    return disk != NULL && place.slot < disk->record.slot_count &&
           (disk->slots_used[place.slot / 64] & (UINT64_C(1) << (place.slot % 64))) != 0;
}

/* What is wrong with an extent that both sides know; NULL: nothing. */
const char *
check_extent_fault(const struct pool *pool, const struct extent *extent,
             const struct extent_record *record)
{
    if (extent->state != record->state || extent->owner_branch != record->owner_branch ||
        extent->copy_count != record->copy_count) {
        return "memory-extent-differs";
    }
    for (uint8_t copy = 0; copy < record->copy_count; copy++) {
        if (extent->places[copy].disk != record->places[copy].disk ||
            extent->places[copy].slot != record->places[copy].slot) {
            return "memory-extent-differs";
        }
        if (!slot_is_taken(pool, extent->places[copy])) {
            return "memory-slot-free";
        }
    }
    return NULL;
}

/* NULL: memory has none of this number, or it is about to go. */
const struct extent *
check_living_extent(const struct pool *pool, uint64_t id)
{
    const struct extent *extent = extent_table_find(&pool->extents, id);

    return extent != NULL && extent->state != 0 && !extent->releasing ? extent : NULL;
}

void
check_compare_extent(struct checking *checking, const struct store_batch_item *item)
{
    const struct pool *pool = checking->pool;
    struct extent_record record;
    uint64_t id = 0;

    if (extent_key_decode(item->key, item->key_bytes, &id) < 0 ||
        extent_record_decode(item->value, item->value_bytes, pool->grains_per_extent, &record) <
            0) {
        return; /* the walk reports what cannot be read */
    }
    checking->extents_known++;
    const struct extent *extent = check_living_extent(pool, id);
    if (extent != NULL && check_extent_fault(pool, extent, &record) != NULL &&
        checking->suspects.length_bytes < SUSPECTS_MAX * sizeof(id)) {
        byte_buffer_append(&checking->suspects, &id, sizeof(id));
    }
}
