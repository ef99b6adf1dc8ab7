/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives every volume of a pool that is not open mapped grains, as if hosts had written them:
 *
 *     make_grains DATABASE GRAINS GRAINS_PER_PAGE
 *
 * Ten million grains written by a client would need 40 GB of disk and an hour; what is asked about
 * them is only how the daemon starts and how much memory it takes, so the records are written as
 * the committer would have written them. The grains lie in slots that were never written and read
 * as zeroes. The checker finds nothing wrong with the result, except that no checkpoint has it.
 *
 * Every volume gets GRAINS / volumes of them. Grain k of a volume of P pages (32 MiB each) that
 * uses U of its pages is in page (k / GRAINS_PER_PAGE) * (P / U), at entry
 * (k % GRAINS_PER_PAGE) * (512 / GRAINS_PER_PAGE): tests/system/scale.py knows this, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/schema.h"
#include "metadata/store.h"
#include "tests/unit/metadata/harness.h"

#define BATCH_BYTES (4 * MIB)
#define SETTLE_NS (5 * NS_PER_S)

enum {
    VOLUMES_MAX = 1 << 20,
};

struct maker {
    struct harness *harness;
    struct store *store;
    struct byte_buffer batch;
    struct pool_record pool;
    struct disk_record disks[POOL_DISKS_MAX];
    uint32_t disk_count;
    uint32_t slots_left[POOL_DISKS_MAX]; /* taken from the top, where nothing else is */
    struct volume_record *volumes;
    uint64_t volume_count;
    uint64_t grains_each;
    uint64_t grains_per_page;
    uint64_t grains_made;

    /* the extent that is being filled */
    uint64_t extent;
    struct extent_record extent_record;
    uint32_t extent_used;
};

static void
fail(const char *what, int result)
{
    fprintf(stderr, "make_grains: %s: %s\n", what, strerror(result < 0 ? -result : result));
    exit(1);
}

/* ---- what is there ---- */

static void
take_record(struct maker *maker, const struct store_batch_item *item)
{
    int result = 0;

    switch (item->key[0]) {
    case SCHEMA_POOL:
        result = schema_get_pool(item->value, item->value_bytes, &maker->pool);
        break;
    case SCHEMA_DISK:
        if (maker->disk_count == POOL_DISKS_MAX) {
            fail("disks", E2BIG);
        }
        result = schema_get_disk(item->value, item->value_bytes,
                                 &maker->disks[maker->disk_count]);
        maker->slots_left[maker->disk_count] = maker->disks[maker->disk_count].slot_count;
        maker->disk_count++;
        break;
    case SCHEMA_VOLUME:
        if (maker->volume_count == VOLUMES_MAX) {
            fail("volumes", E2BIG);
        }
        result = schema_get_volume(item->value, item->value_bytes,
                                   &maker->volumes[maker->volume_count++]);
        break;
    default:
        break;
    }
    if (result < 0) {
        fail("a record", result);
    }
}

static void
read_system(struct maker *maker)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;
    int result = harness_scan(maker->harness, maker->store, STORE_FAMILY_SYSTEM, NULL, MIB, &items);

    if (result < 0) {
        fail("the records", result);
    }
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        take_record(maker, &item);
    }
    byte_buffer_free(&items);
    if (maker->disk_count == 0 || maker->volume_count == 0 || maker->pool.extent_bytes == 0) {
        fail("a pool with disks and volumes", ENOENT);
    }
}

/* Slots above all that are taken are ours. */
static void
check_extents(struct maker *maker, uint64_t slots_needed)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;
    uint32_t grains = (uint32_t)(maker->pool.extent_bytes / GRAIN_BYTES);
    uint32_t lowest[POOL_DISKS_MAX] = { 0 };
    uint64_t left = 0;

    if (harness_scan(maker->harness, maker->store, STORE_FAMILY_EXTENT, NULL, MIB, &items) < 0) {
        fail("the extents", EIO);
    }
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        struct extent_record record;
        if (extent_record_decode(item.value, item.value_bytes, grains, &record) < 0) {
            fail("an extent", EUCLEAN);
        }
        for (uint8_t copy = 0; copy < record.copy_count; copy++) {
            uint32_t *low = &lowest[record.places[copy].disk];
            *low = MAX(*low, record.places[copy].slot + 1);
        }
    }
    byte_buffer_free(&items);
    for (uint32_t i = 0; i < maker->disk_count; i++) {
        /* slots_left counts down to the highest slot that somebody else has. */
        left += maker->disks[i].slot_count - lowest[maker->disks[i].index];
        maker->slots_left[i] -= lowest[maker->disks[i].index];
    }
    if (left < slots_needed) {
        fail("free slots", ENOSPC);
    }
}

/* ---- what is made ---- */

static void
commit(struct maker *maker, bool sync)
{
    int result = harness_commit(maker->harness, maker->store, &maker->batch, sync);

    if (result < 0) {
        fail("commit", result);
    }
}

static void
extent_end(struct maker *maker)
{
    if (maker->extent_used > 0) {
        schema_put_extent(&maker->batch, maker->extent, &maker->extent_record,
                          (uint32_t)(maker->pool.extent_bytes / GRAIN_BYTES));
        maker->extent_used = 0;
    }
    if (maker->batch.length_bytes > BATCH_BYTES) {
        commit(maker, false);
    }
}

static void
extent_begin(struct maker *maker, uint64_t branch)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < maker->disk_count; i++) {
        best = maker->slots_left[i] > maker->slots_left[best] ? i : best;
    }
    struct disk_record *disk = &maker->disks[best];
    ASSERT_OP(maker->slots_left[best], >, 0u);
    maker->slots_left[best]--;
    maker->extent = maker->pool.next_extent++;
    maker->extent_record = (struct extent_record){
        .owner_branch = branch,
        .state = EXTENT_STATE_DATA,
        .tier = disk->tier,
        .copy_count = 1,
        .places = { { .disk = disk->index, .slot = --disk->slot_count } },
    };
}

static grain_address
next_grain(struct maker *maker, uint64_t branch)
{
    uint64_t per_extent = maker->pool.extent_bytes / GRAIN_BYTES;

    if (maker->extent_used == per_extent) {
        extent_end(maker);
    }
    if (maker->extent_used == 0) {
        extent_begin(maker, branch);
    }
    uint32_t index = maker->extent_used++;
    maker->extent_record.used[index / 64] |= UINT64_C(1) << (index % 64);
    maker->grains_made++;
    return maker->extent * per_extent + index;
}

static void
make_page(struct maker *maker, const struct branch_record *branch, uint64_t page, uint64_t count)
{
    struct map_entry entries[MAP_PAGE_ENTRIES] = { 0 };
    struct byte_buffer value = BYTE_BUFFER_INIT;
    uint8_t key[MAP_KEY_BYTES];

    for (uint64_t i = 0; i < count; i++) {
        entries[i * (MAP_PAGE_ENTRIES / maker->grains_per_page)] = (struct map_entry){
            .home = next_grain(maker, branch->id),
            .home_generation = (uint32_t)branch->current_generation,
            .valid = 1,
        };
    }
    map_page_encode(entries, &value);
    map_key_encode(key, branch->id, page, branch->current_generation);
    store_batch_put(&maker->batch, STORE_FAMILY_MAP, key, sizeof(key), value.data,
                    value.length_bytes);
    struct history_link link = {
        .branch = branch->id, .version = (uint32_t)branch->current_generation, .page = page,
    };
    schema_put_link(&maker->batch, &link);
    byte_buffer_free(&value);
}

static void
get_record(struct maker *maker, enum schema_record record, uint64_t id, struct byte_buffer *to)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_id(key, record, id);
    int result = harness_get(maker->harness, maker->store, STORE_FAMILY_SYSTEM, key, key_bytes, to);

    if (result == -ENOENT && record == SCHEMA_POSITION) {
        byte_buffer_clear(to);
    } else if (result < 0) {
        fail("a branch", result);
    }
}

static void
fill_volume(struct maker *maker, const struct volume_record *volume)
{
    struct byte_buffer value = BYTE_BUFFER_INIT;
    struct branch_record branch;
    struct branch_position position = { 0 };
    uint64_t pages = volume->size_bytes >> MAP_PAGE_SHIFT;
    uint64_t pages_used = div_round_up(maker->grains_each, maker->grains_per_page);

    get_record(maker, SCHEMA_BRANCH, volume->branch, &value);
    if (schema_get_branch(value.data, value.length_bytes, &branch) < 0 || pages < pages_used) {
        fail(volume->name, EINVAL);
    }
    get_record(maker, SCHEMA_POSITION, volume->branch, &value);
    if (value.length_bytes > 0 &&
        schema_get_position(value.data, value.length_bytes, &position) < 0) {
        fail(volume->name, EUCLEAN);
    }
    if (position.mapped_grains != 0) {
        fail("a volume without grains", EEXIST);
    }
    position.mapped_grains = maker->grains_each;
    for (uint64_t i = 0; i < pages_used; i++) {
        uint64_t done = i * maker->grains_per_page;
        make_page(maker, &branch, i * (pages / pages_used),
                  MIN(maker->grains_per_page, maker->grains_each - done));
    }
    extent_end(maker); /* the next volume has its own */
    schema_put_position(&maker->batch, branch.id, &position);
    byte_buffer_free(&value);
}

static void
make(struct maker *maker, const char *directory)
{
    struct error error = { 0 };
    struct store_rocksdb_options options = {
        .directory = directory, .cache_bytes = 64 * MIB, .merge = schema_merge,
    };
    int result = store_rocksdb_open(&options, &maker->store, &error);

    if (result < 0) {
        fail(error.message, result);
    }
    read_system(maker);
    maker->grains_each /= maker->volume_count;
    uint64_t extents_each =
        div_round_up(maker->grains_each, maker->pool.extent_bytes / GRAIN_BYTES);
    check_extents(maker, extents_each * maker->volume_count);
    for (uint64_t i = 0; i < maker->volume_count; i++) {
        fill_volume(maker, &maker->volumes[i]);
    }
    schema_put_pool(&maker->batch, &maker->pool);
    commit(maker, true);
    harness_idle(maker->harness, SETTLE_NS); /* until the store has written its tables */
    printf("%" PRIu64 " grains in %" PRIu64 " volumes, %" PRIu64 " each\n", maker->grains_made,
           maker->volume_count, maker->grains_each);
    maker->store->ops->close(maker->store);
}

int
main(int argument_count, char **arguments)
{
    void *harness = NULL;
    struct maker *maker = calloc(1, sizeof(*maker));
    struct volume_record *volumes = calloc(VOLUMES_MAX, sizeof(*volumes));

    if (argument_count != 4) {
        fprintf(stderr, "usage: make_grains DATABASE GRAINS GRAINS_PER_PAGE\n");
        return 2;
    }
    if (maker == NULL || volumes == NULL || harness_start(&harness) != 0) {
        fail("start", ENOMEM);
    }
    maker->harness = harness;
    maker->volumes = volumes;
    maker->grains_each = strtoull(arguments[2], NULL, 10);
    maker->grains_per_page = strtoull(arguments[3], NULL, 10);
    if (maker->grains_per_page == 0 || maker->grains_per_page > MAP_PAGE_ENTRIES) {
        fail("GRAINS_PER_PAGE", EINVAL);
    }
    make(maker, arguments[1]);
    free(volumes);
    free(maker);
    return harness_stop(&harness);
}
