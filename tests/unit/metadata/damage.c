/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/metadata/damage_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"

/* ---- the example ---- */

struct pool_record
example_pool(void)
{
    struct pool_record pool = {
        .schema_version = SCHEMA_VERSION, .name = "tank", .extent_bytes = EXAMPLE_EXTENT_BYTES,
        .incarnation = 5, .next_branch = 4, .next_volume = 4, .next_extent = 6, .next_export = 3,
        .last_snapshot = 1,
    };
    memset(pool.pool_guid, 0x77, GUID_BYTES);
    return pool;
}

static struct disk_record
example_disk(uint16_t index)
{
    struct disk_record disk = {
        .index = index, .state = DISK_STATE_ACTIVE, .spec = "mem:64M", .size_bytes = 64 * MIB,
        .data_start_bytes = 8 * MIB, .slot_count = 13, .ledger_start_bytes = MIB,
        .ledger_length_bytes = 4 * MIB,
    };
    memset(disk.guid, 0x80 + index, GUID_BYTES);
    return disk;
}

static struct volume_record
example_volume(uint64_t id)
{
    struct volume_record volume = {
        .id = id, .branch = id, .size_bytes = 64 * MIB, .sector_bytes = 512, .copies = 2,
        .tier = VOLUME_TIER_AUTO,
    };
    static const char *const names[] = { "", "vol", "clone", "small" };
    snprintf(volume.name, sizeof(volume.name), "%s", names[id]);
    return volume;
}

static struct branch_record
example_branch(uint64_t id)
{
    struct branch_record branch = {
        .id = id, .family = id, .current_generation = 4, .volume = id,
    };
    if (id == EXAMPLE_CLONE) {
        branch.family = EXAMPLE_BRANCH;
        branch.parent = EXAMPLE_BRANCH;
        branch.fork_generation = EXAMPLE_FORK_GENERATION;
    }
    return branch;
}

/* What the clone was made of. */
struct snapshot_record
example_snapshot(void)
{
    return (struct snapshot_record){
        .id = 1, .volume = 1, .name = "before", .state = SNAPSHOT_KEPT, .size_bytes = 64 * MIB,
        .mapped_grains = 4,
    };
}

static struct export_record
example_export(uint64_t id)
{
    struct export_record export = { .id = id, .volume = 1, .name = "tank/vol", .options = "{}" };
    snprintf(export.protocol, sizeof(export.protocol), "%s", id == 1 ? "nbd" : "iscsi");
    return export;
}

static struct extent_record
example_extent(uint64_t id)
{
    static const uint64_t owners[] = { 0, EXAMPLE_BRANCH, EXAMPLE_BRANCH, EXAMPLE_CLONE, 0, 0 };
    struct extent_record extent = {
        .owner_branch = owners[id], .state = EXTENT_STATE_DATA, .copy_count = 2,
        .places = { { 0, (uint32_t)id }, { 1, (uint32_t)(id + 3) } },
    };
    if (id == EXAMPLE_EXTENT_CHECKPOINT) {
        extent.state = EXTENT_STATE_CHECKPOINT;
    }
    return extent;
}

/* The versions of the maps, as a table of entries. */
struct example_entry {
    uint64_t branch;
    uint64_t page;
    uint64_t generation;
    uint32_t index;
    struct map_entry entry;
};

#define HOME(extent, number, generation_)                                                          \
    .home = (extent)*EXAMPLE_GRAINS + (number), .home_generation = (generation_), .valid = 0x00ff
#define BASE(extent, number, generation_)                                                          \
    .base = (extent)*EXAMPLE_GRAINS + (number), .base_generation = (generation_), .zero = 0x0f00

/* In order of branch, page and generation. */
static const struct example_entry example_entries[] = {
    /* The branch, page 0: generation 2 is kept (a fork), 4 shares what it did not write. */
    { EXAMPLE_BRANCH, 0, 2, 0, { HOME(EXAMPLE_EXTENT_A, 0, 1) } },
    { EXAMPLE_BRANCH, 0, 2, 1, { HOME(EXAMPLE_EXTENT_A, 1, 2) } },
    { EXAMPLE_BRANCH, 0, 2, 511, { HOME(EXAMPLE_EXTENT_A, 63, 2) } },
    { EXAMPLE_BRANCH, 0, 4, 0, { HOME(EXAMPLE_EXTENT_A, 0, 1) } },
    { EXAMPLE_BRANCH, 0, 4, 1, { HOME(EXAMPLE_EXTENT_B, 7, 3), BASE(EXAMPLE_EXTENT_A, 1, 2) } },
    { EXAMPLE_BRANCH, 0, 4, 2, { HOME(EXAMPLE_EXTENT_B, 8, 4) } },
    { EXAMPLE_BRANCH, 1, 2, 5, { HOME(EXAMPLE_EXTENT_A, 2, 2) } },
    /* The clone: inherits, and has its own over it. */
    { EXAMPLE_CLONE, 0, 4, 0, { HOME(EXAMPLE_EXTENT_A, 0, 1) } },
    { EXAMPLE_CLONE, 0, 4, 1, { HOME(EXAMPLE_EXTENT_CLONE, 9, 3), BASE(EXAMPLE_EXTENT_A, 1, 2) } },
    { EXAMPLE_SMALL, 1, 4, 511, { HOME(EXAMPLE_EXTENT_SHARED, 20, 4) } },
};

static void
put_page(struct byte_buffer *batch, uint64_t branch, uint64_t page, uint64_t generation,
         const struct map_entry *entries)
{
    uint8_t key[MAP_KEY_BYTES];
    struct byte_buffer value = BYTE_BUFFER_INIT;
    map_key_encode(key, branch, page, generation);
    map_page_encode(entries, &value);
    store_batch_put(batch, STORE_FAMILY_MAP, key, sizeof(key), value.data, value.length_bytes);
    byte_buffer_free(&value);
}

static void
put_delta(struct byte_buffer *batch, uint64_t branch, uint64_t page, uint64_t generation,
          uint32_t index, struct map_entry entry)
{
    uint8_t key[MAP_KEY_BYTES];
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    map_key_encode(key, branch, page, generation);
    map_delta_append(&operand, index, &entry);
    store_batch_merge(batch, STORE_FAMILY_MAP, key, sizeof(key), operand.data,
                      operand.length_bytes);
    byte_buffer_free(&operand);
}

static void
put_extent(struct byte_buffer *batch, uint64_t id, const struct extent_record *record)
{
    schema_put_extent(batch, id, record, EXAMPLE_GRAINS);
}

static void
set_use(struct byte_buffer *batch, uint64_t extent, bool used, uint32_t number)
{
    uint8_t key[EXTENT_KEY_BYTES];
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    extent_key_encode(key, extent);
    extent_use_append(&operand, used, number, 1);
    store_batch_merge(batch, STORE_FAMILY_EXTENT, key, sizeof(key), operand.data,
                      operand.length_bytes);
    byte_buffer_free(&operand);
}

void
example_put_link(struct byte_buffer *batch, uint64_t branch, uint32_t version, uint32_t previous,
         uint64_t page)
{
    struct history_link link = { branch, version, previous, page };
    schema_put_link(batch, &link);
}

void
example_delete_link(struct byte_buffer *batch, uint64_t branch, uint32_t version, uint32_t previous,
            uint64_t page)
{
    struct history_link link = { branch, version, previous, page };
    schema_delete_link(batch, &link);
}

void
example_add_counter(struct byte_buffer *batch, uint64_t branch, uint32_t death, uint32_t birth,
            int64_t added)
{
    struct history_counter counter = { branch, death, birth };
    schema_add_counter(batch, &counter, added);
}

static void
build_history(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = example_snapshot();
    schema_put_snapshot(batch, EXAMPLE_BRANCH, EXAMPLE_FORK_GENERATION, &snapshot);
    struct policy_record policy = { .rules = { { .every_ns = UINT64_C(1) << 40, .keep = 8 } } };
    schema_put_policy(batch, 1, &policy);
    example_put_link(batch, EXAMPLE_BRANCH, 2, 0, 0);
    example_put_link(batch, EXAMPLE_BRANCH, 4, 2, 0);
    example_put_link(batch, EXAMPLE_BRANCH, 2, 0, 1);
    example_put_link(batch, EXAMPLE_CLONE, 4, 0, 0);
    example_put_link(batch, EXAMPLE_SMALL, 4, 0, 1);
    example_add_counter(batch, EXAMPLE_BRANCH, HISTORY_FOREVER, 1, 1);
    example_add_counter(batch, EXAMPLE_BRANCH, HISTORY_FOREVER, 2, 3);
    example_add_counter(batch, EXAMPLE_BRANCH, HISTORY_FOREVER, 3, 1);
    example_add_counter(batch, EXAMPLE_BRANCH, HISTORY_FOREVER, 4, 1);
    example_add_counter(batch, EXAMPLE_CLONE, HISTORY_FOREVER, 3, 1);
    example_add_counter(batch, EXAMPLE_SMALL, HISTORY_FOREVER, 4, 1);
    example_add_counter(batch, EXAMPLE_BRANCH, 4, 2, 1);
    example_add_counter(batch, EXAMPLE_BRANCH, 4, 1, 2);
    example_add_counter(batch, EXAMPLE_BRANCH, 4, 1, -2); /* the same as none */
}

static void
build_maps(struct byte_buffer *batch)
{
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    struct extent_record extents[6];
    for (uint64_t id = 1; id < ARRAY_SIZE(extents); id++) {
        extents[id] = example_extent(id);
    }
    memset(entries, 0, sizeof(entries));
    for (size_t n = 0; n < ARRAY_SIZE(example_entries); n++) {
        const struct example_entry *at = &example_entries[n];
        entries[at->index] = at->entry;
        const grain_address named[] = { at->entry.home, at->entry.base };
        for (uint32_t which = 0; which < 2; which++) {
            if (named[which] != GRAIN_NONE) {
                extents[named[which] / EXAMPLE_GRAINS].used[0] |=
                    UINT64_C(1) << named[which] % EXAMPLE_GRAINS;
            }
        }
        bool is_last = n + 1 == ARRAY_SIZE(example_entries);
        if (is_last || at[1].branch != at->branch || at[1].page != at->page
            || at[1].generation != at->generation) {
            put_page(batch, at->branch, at->page, at->generation, entries);
            memset(entries, 0, sizeof(entries));
        }
    }
    for (uint64_t id = 1; id < ARRAY_SIZE(extents); id++) {
        put_extent(batch, id, &extents[id]);
    }
}

void
example_build(struct byte_buffer *batch)
{
    struct pool_record pool = example_pool();
    schema_put_pool(batch, &pool);
    schema_put_commit(batch, 1234);
    struct run_record run = { .state = RUN_STATE_CLEAN };
    schema_put_run(batch, &run);
    for (uint16_t index = 0; index < 2; index++) {
        struct disk_record disk = example_disk(index);
        schema_put_disk(batch, &disk);
    }
    static const uint64_t mapped[] = { 0, 5, 4, 1 };
    for (uint64_t id = 1; id <= 3; id++) {
        struct volume_record volume = example_volume(id);
        struct branch_record branch = example_branch(id);
        struct branch_position position = { .batch = 10 * id, .mapped_grains = mapped[id] };
        schema_put_volume(batch, &volume);
        schema_put_branch(batch, &branch);
        schema_put_position(batch, id, &position);
    }
    for (uint64_t id = 1; id <= 2; id++) {
        struct export_record export = example_export(id);
        schema_put_export(batch, &export);
    }
    struct checkpoint_record checkpoint = {
        .commit = 1000, .length_bytes = MIB, .extent_count = 1,
        .first_extent = EXAMPLE_EXTENT_CHECKPOINT,
    };
    schema_put_checkpoint(batch, 0, &checkpoint);
    struct checkpoint_record no_checkpoint = { 0 };
    schema_put_checkpoint(batch, 1, &no_checkpoint);
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_id(key, SCHEMA_EVENT, 1);
    store_batch_put(batch, STORE_FAMILY_SYSTEM, key, key_bytes, "created", 7);
    build_maps(batch);
    build_history(batch);
}

void
example_label(uint16_t index, struct label *ret_label)
{
    struct disk_record disk = example_disk(index);
    struct pool_record pool = example_pool();
    memset(ret_label, 0, sizeof(*ret_label));
    memcpy(ret_label->pool_guid, pool.pool_guid, GUID_BYTES);
    memcpy(ret_label->disk_guid, disk.guid, GUID_BYTES);
    snprintf(ret_label->pool_name, sizeof(ret_label->pool_name), "%s", pool.name);
    ret_label->disk_index = index;
    ret_label->incarnation = pool.incarnation;
    ret_label->extent_bytes = pool.extent_bytes;
    ret_label->size_bytes = disk.size_bytes;
    ret_label->data_start_bytes = disk.data_start_bytes;
    ret_label->slot_count = disk.slot_count;
    ret_label->ledger_start_bytes = disk.ledger_start_bytes;
    ret_label->ledger_length_bytes = disk.ledger_length_bytes;
}

/* ---- damages of SYSTEM records ---- */

static void
put_raw(struct byte_buffer *batch, const void *key, size_t key_bytes, const char *value)
{
    store_batch_put(batch, STORE_FAMILY_SYSTEM, key, key_bytes, value, strlen(value));
}

static void
unfoldable_record(struct byte_buffer *batch)
{
    store_batch_merge(batch, STORE_FAMILY_SYSTEM, "N", 1, "no deltas here", 14);
}

static void
unknown_record(struct byte_buffer *batch)
{
    put_raw(batch, "Qnew", 4, "of a later version");
}

static void
record_that_must_be_known(struct byte_buffer *batch)
{
    put_raw(batch, "qnew", 4, "of a later version");
}

static void
damaged_volume(struct byte_buffer *batch)
{
    put_raw(batch, "V\0\0\0\0\0\0\0\2", 9, "noise");
}

static void
volume_under_another_id(struct byte_buffer *batch)
{
    struct byte_buffer other = BYTE_BUFFER_INIT;
    struct volume_record volume = example_volume(1);
    schema_put_volume(&other, &volume);
    size_t position = 0;
    struct store_batch_item item;
    int found = store_batch_next(other.data, other.length_bytes, &position, &item);
    ASSERT(found == 1);
    store_batch_put(batch, STORE_FAMILY_SYSTEM, "V\0\0\0\0\0\0\0\2", 9, item.value,
                    item.value_bytes);
    byte_buffer_free(&other);
}

static void
no_pool(struct byte_buffer *batch)
{
    store_batch_delete(batch, STORE_FAMILY_SYSTEM, "P", 1);
}

static void
damaged_pool(struct byte_buffer *batch)
{
    put_raw(batch, "P", 1, "pool");
}

static void
no_commit(struct byte_buffer *batch)
{
    store_batch_delete(batch, STORE_FAMILY_SYSTEM, "C", 1);
}

static void
volume_counter(struct byte_buffer *batch)
{
    struct pool_record pool = example_pool();
    pool.next_volume = 3;
    schema_put_pool(batch, &pool);
}

static void
branch_counter(struct byte_buffer *batch)
{
    struct pool_record pool = example_pool();
    pool.next_branch = 3;
    schema_put_pool(batch, &pool);
}

static void
extent_counter(struct byte_buffer *batch)
{
    struct pool_record pool = example_pool();
    pool.next_extent = 5;
    schema_put_pool(batch, &pool);
}

static void
snapshot_counter(struct byte_buffer *batch)
{
    struct pool_record pool = example_pool();
    pool.last_snapshot = 0;
    schema_put_pool(batch, &pool);
}

static void
export_counter(struct byte_buffer *batch)
{
    struct pool_record pool = example_pool();
    pool.next_export = 2;
    schema_put_pool(batch, &pool);
}

static void
volume_name_twice(struct byte_buffer *batch)
{
    struct volume_record volume = example_volume(3);
    snprintf(volume.name, sizeof(volume.name), "%s", "vol");
    schema_put_volume(batch, &volume);
}

static void
volume_without_branch(struct byte_buffer *batch)
{
    struct volume_record volume = example_volume(2);
    volume.branch = 99;
    schema_put_volume(batch, &volume);
}

static void
branch_of_two_volumes(struct byte_buffer *batch)
{
    struct volume_record volume = example_volume(2);
    volume.branch = EXAMPLE_BRANCH;
    schema_put_volume(batch, &volume);
}

static void
volume_of_a_headless_branch(struct byte_buffer *batch)
{
    struct branch_record branch = example_branch(EXAMPLE_SMALL);
    branch.flags = BRANCH_HEADLESS;
    schema_put_branch(batch, &branch);
}

static void
branch_without_parent(struct byte_buffer *batch)
{
    struct branch_record branch = example_branch(EXAMPLE_CLONE);
    branch.parent = 77;
    schema_put_branch(batch, &branch);
}

static void
branch_forks_in_the_future(struct byte_buffer *batch)
{
    struct branch_record branch = example_branch(EXAMPLE_CLONE);
    branch.fork_generation = 4;
    branch.current_generation = 6;
    schema_put_branch(batch, &branch);
}

static void
branches_in_a_loop(struct byte_buffer *batch)
{
    struct branch_record branch = example_branch(EXAMPLE_BRANCH);
    branch.parent = EXAMPLE_CLONE;
    branch.fork_generation = 1;
    schema_put_branch(batch, &branch);
}

static void
branch_of_another_family(struct byte_buffer *batch)
{
    struct branch_record branch = example_branch(EXAMPLE_CLONE);
    branch.family = EXAMPLE_SMALL;
    schema_put_branch(batch, &branch);
}

static void
root_of_another_family(struct byte_buffer *batch)
{
    struct branch_record branch = example_branch(EXAMPLE_SMALL);
    branch.family = EXAMPLE_BRANCH;
    schema_put_branch(batch, &branch);
}

static void
branch_of_no_volume(struct byte_buffer *batch)
{
    schema_delete_id(batch, SCHEMA_VOLUME, 3);
}

static void
position_of_no_branch(struct byte_buffer *batch)
{
    struct branch_position position = { .batch = 1 };
    schema_put_position(batch, 50, &position);
}

static void
wrong_mapped_count(struct byte_buffer *batch)
{
    struct branch_position position = { .batch = 10, .mapped_grains = 7 };
    schema_put_position(batch, EXAMPLE_BRANCH, &position);
}

static void
export_of_no_volume(struct byte_buffer *batch)
{
    struct export_record export = example_export(2);
    export.volume = 40;
    schema_put_export(batch, &export);
}

static void
export_name_twice(struct byte_buffer *batch)
{
    struct export_record export = example_export(2);
    snprintf(export.protocol, sizeof(export.protocol), "%s", "nbd");
    schema_put_export(batch, &export);
}

static void
checkpoint_in_a_data_extent(struct byte_buffer *batch)
{
    struct checkpoint_record checkpoint = {
        .commit = 1000, .extent_count = 1, .first_extent = EXAMPLE_EXTENT_A,
    };
    schema_put_checkpoint(batch, 0, &checkpoint);
}

/* ---- of extents ---- */

static struct extent_record
used_extent(uint64_t id)
{
    static const uint64_t used[] = {
        0, UINT64_C(1) << 63 | 7, 3 << 7, 1 << 9, 1 << 20, 0,
    };
    struct extent_record extent = example_extent(id);
    extent.used[0] = used[id];
    return extent;
}

static void
damaged_extent(struct byte_buffer *batch)
{
    uint8_t key[EXTENT_KEY_BYTES];
    struct extent_record extent = used_extent(EXAMPLE_EXTENT_B);
    struct byte_buffer value = BYTE_BUFFER_INIT;
    extent_key_encode(key, EXAMPLE_EXTENT_B);
    extent_record_encode(&extent, EXAMPLE_GRAINS, &value);
    value.data[value.length_bytes - 1] ^= 1;
    store_batch_put(batch, STORE_FAMILY_EXTENT, key, sizeof(key), value.data, value.length_bytes);
    byte_buffer_free(&value);
}

static void
unfoldable_extent(struct byte_buffer *batch)
{
    uint8_t key[EXTENT_KEY_BYTES];
    extent_key_encode(key, EXAMPLE_EXTENT_CLONE);
    store_batch_merge(batch, STORE_FAMILY_EXTENT, key, sizeof(key), "abc", 3);
}

static void
use_of_a_removed_extent(struct byte_buffer *batch)
{
    set_use(batch, 40, true, 3);
}

static void
extent_of_no_branch(struct byte_buffer *batch)
{
    struct extent_record extent = example_extent(EXAMPLE_EXTENT_A);
    extent.owner_branch = 70;
    extent.places[0].slot = 11;
    extent.places[1].slot = 12;
    struct pool_record pool = example_pool();
    pool.next_extent = 7;
    schema_put_pool(batch, &pool);
    put_extent(batch, 6, &extent);
}

static void
extent_on_no_disk(struct byte_buffer *batch)
{
    struct extent_record extent = used_extent(EXAMPLE_EXTENT_A);
    extent.places[1].disk = 9;
    put_extent(batch, EXAMPLE_EXTENT_A, &extent);
}

static void
extent_beyond_the_disk(struct byte_buffer *batch)
{
    struct extent_record extent = used_extent(EXAMPLE_EXTENT_A);
    extent.places[1].slot = 13;
    put_extent(batch, EXAMPLE_EXTENT_A, &extent);
}

static void
extents_in_one_slot(struct byte_buffer *batch)
{
    struct extent_record extent = used_extent(EXAMPLE_EXTENT_A);
    extent.places[0].slot = EXAMPLE_EXTENT_SHARED;
    put_extent(batch, EXAMPLE_EXTENT_A, &extent);
}

static void
copies_on_one_disk(struct byte_buffer *batch)
{
    struct extent_record extent = used_extent(EXAMPLE_EXTENT_A);
    extent.places[1] = (struct extent_place){ 0, 12 };
    put_extent(batch, EXAMPLE_EXTENT_A, &extent);
}

static void
leaked_grain(struct byte_buffer *batch)
{
    set_use(batch, EXAMPLE_EXTENT_A, true, 30);
}

static void
mapped_grain_counts_as_free(struct byte_buffer *batch)
{
    set_use(batch, EXAMPLE_EXTENT_SHARED, false, 20);
}

static void
inherited_grain_counts_as_free(struct byte_buffer *batch)
{
    set_use(batch, EXAMPLE_EXTENT_A, false, 0);
}

/* ---- of maps ---- */

static void
damaged_page(struct byte_buffer *batch)
{
    uint8_t key[MAP_KEY_BYTES];
    map_key_encode(key, EXAMPLE_SMALL, 1, 4);
    store_batch_put(batch, STORE_FAMILY_MAP, key, sizeof(key), "a page of noise", 15);
}

static void
unfoldable_page(struct byte_buffer *batch)
{
    uint8_t key[MAP_KEY_BYTES];
    map_key_encode(key, EXAMPLE_CLONE, 0, 4);
    store_batch_merge(batch, STORE_FAMILY_MAP, key, sizeof(key), "noise", 5);
}

static void
damaged_page_key(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_MAP, "short key", 9, NULL, 0);
}

static void
page_of_no_branch(struct byte_buffer *batch)
{
    put_delta(batch, 90, 0, 1, 0, (struct map_entry){ HOME(EXAMPLE_EXTENT_B, 50, 1) });
}

static void
page_of_the_future(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_SMALL, 0, 9, 0,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_SHARED, 21, 4) });
    set_use(batch, EXAMPLE_EXTENT_SHARED, true, 21);
}

static void
page_below_the_fork(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_CLONE, 1, 2, 0,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_A, 2, 2) });
}

static void
grain_of_the_future(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 1, 2, 5,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_A, 2, 3) });
}

static void
base_as_young_as_its_home(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 0, 4, 1,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_B, 7, 2), BASE(EXAMPLE_EXTENT_A, 1, 2) });
}

static void
base_younger_than_home(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 0, 4, 1,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_B, 7, 2), BASE(EXAMPLE_EXTENT_A, 1, 4) });
}

static void
entry_beyond_the_end(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_SMALL, 2, 4, 0,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_SHARED, 21, 4) });
    set_use(batch, EXAMPLE_EXTENT_SHARED, true, 21);
}

static void
grain_of_no_extent(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 0, 4, 2, (struct map_entry){ HOME(500, 8, 4) });
}

static void
grain_of_another_branch(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_SMALL, 0, 4, 0, (struct map_entry){ HOME(EXAMPLE_EXTENT_B, 40, 4) });
    set_use(batch, EXAMPLE_EXTENT_B, true, 40);
}

static void
grain_of_a_checkpoint(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_SMALL, 0, 4, 0,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_CHECKPOINT, 40, 4) });
}

static void
parent_uses_the_clones_extent(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 0, 4, 30,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_CLONE, 41, 4) });
    set_use(batch, EXAMPLE_EXTENT_CLONE, true, 41);
}

static void
grain_at_two_entries(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 0, 4, 3, (struct map_entry){ HOME(EXAMPLE_EXTENT_B, 8, 4) });
}

static void
grain_in_two_pages(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_BRANCH, 1, 4, 2, (struct map_entry){ HOME(EXAMPLE_EXTENT_B, 8, 4) });
}

static void
grain_of_two_branches(struct byte_buffer *batch)
{
    struct extent_record extent = used_extent(EXAMPLE_EXTENT_CLONE);
    extent.owner_branch = 0;
    put_extent(batch, EXAMPLE_EXTENT_CLONE, &extent);
    put_delta(batch, EXAMPLE_SMALL, 0, 4, 0,
              (struct map_entry){ HOME(EXAMPLE_EXTENT_CLONE, 9, 3) });
}

static void
grain_inherited_from_nobody(struct byte_buffer *batch)
{
    put_delta(batch, EXAMPLE_CLONE, 0, 4, 7, (struct map_entry){ HOME(EXAMPLE_EXTENT_A, 33, 2) });
    set_use(batch, EXAMPLE_EXTENT_A, true, 33);
}

/* Nobody sees the first of these two, and no snapshot is being deleted. */
static void
version_that_nothing_sees(struct byte_buffer *batch)
{
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    entries[5] = (struct map_entry){ HOME(EXAMPLE_EXTENT_A, 2, 2) };
    put_page(batch, EXAMPLE_BRANCH, 1, 3, entries);
    put_page(batch, EXAMPLE_BRANCH, 1, 4, entries);
    example_put_link(batch, EXAMPLE_BRANCH, 3, 2, 1);
    example_put_link(batch, EXAMPLE_BRANCH, 4, 3, 1);
}

static void
lost_page(struct byte_buffer *batch)
{
    uint8_t key[MAP_KEY_BYTES];
    map_key_encode(key, EXAMPLE_BRANCH, 1, 2);
    store_batch_delete(batch, STORE_FAMILY_MAP, key, sizeof(key));
    /* So that use bits are all that is left. */
    example_delete_link(batch, EXAMPLE_BRANCH, 2, 0, 1);
    example_add_counter(batch, EXAMPLE_BRANCH, HISTORY_FOREVER, 2, -1);
}

static void
lost_extent(struct byte_buffer *batch)
{
    uint8_t key[EXTENT_KEY_BYTES];
    extent_key_encode(key, EXAMPLE_EXTENT_B);
    store_batch_delete(batch, STORE_FAMILY_EXTENT, key, sizeof(key));
}

#define WARN(function, code_)                                                                      \
    { #function, CHECK_##code_, CHECK_WARNING, false, function }
#define MEND(function, code_, severity_)                                                           \
    { #function, CHECK_##code_, CHECK_##severity_, true, function }
#define FAIL(function, code_)                                                                      \
    { #function, CHECK_##code_, CHECK_ERROR, false, function }

const struct damage damages[] = {
    FAIL(unfoldable_record, RECORD_DAMAGED),
    WARN(unknown_record, RECORD_UNKNOWN),
    FAIL(record_that_must_be_known, RECORD_UNKNOWN),
    FAIL(damaged_volume, RECORD_DAMAGED),
    FAIL(volume_under_another_id, RECORD_DAMAGED),
    FAIL(no_pool, POOL_MISSING),
    FAIL(damaged_pool, POOL_MISSING),
    FAIL(no_commit, COMMIT_MISSING),
    FAIL(volume_counter, COUNTER_BEHIND),
    FAIL(branch_counter, COUNTER_BEHIND),
    FAIL(extent_counter, COUNTER_BEHIND),
    FAIL(export_counter, COUNTER_BEHIND),
    FAIL(snapshot_counter, COUNTER_BEHIND),
    FAIL(volume_name_twice, VOLUME_NAME_TWICE),
    FAIL(volume_without_branch, VOLUME_BRANCH_WRONG),
    FAIL(branch_of_two_volumes, VOLUME_BRANCH_WRONG),
    FAIL(volume_of_a_headless_branch, VOLUME_BRANCH_WRONG),
    FAIL(branch_without_parent, BRANCH_PARENT_WRONG),
    FAIL(branch_forks_in_the_future, BRANCH_PARENT_WRONG),
    FAIL(branches_in_a_loop, BRANCH_PARENT_WRONG),
    FAIL(branch_of_another_family, BRANCH_FAMILY_WRONG),
    FAIL(root_of_another_family, BRANCH_FAMILY_WRONG),
    WARN(branch_of_no_volume, BRANCH_ORPHAN),
    FAIL(damaged_snapshot, RECORD_DAMAGED),
    FAIL(fork_of_no_snapshot, FORK_NOT_KEPT),
    FAIL(fork_of_a_deleted_snapshot, FORK_NOT_KEPT),
    FAIL(snapshot_of_no_volume, SNAPSHOT_ORPHAN),
    FAIL(snapshot_of_no_branch, SNAPSHOT_ORPHAN),
    FAIL(snapshot_of_now, SNAPSHOT_GENERATION_WRONG),
    FAIL(snapshot_below_the_fork, SNAPSHOT_GENERATION_WRONG),
    FAIL(snapshot_name_twice, SNAPSHOT_TWICE),
    FAIL(snapshot_id_twice, SNAPSHOT_TWICE),
    WARN(snapshot_hidden_for_nobody, SNAPSHOT_STRAY),
    WARN(snapshot_pending_in_a_closed_pool, SNAPSHOT_STRAY),
    FAIL(damaged_policy, RECORD_DAMAGED),
    MEND(policy_of_no_volume, POLICY_ORPHAN, WARNING),
    FAIL(link_with_a_value, RECORD_DAMAGED),
    FAIL(link_to_itself, RECORD_DAMAGED),
    FAIL(link_that_was_added_to, RECORD_DAMAGED),
    FAIL(counter_of_half_a_number, RECORD_DAMAGED),
    WARN(unknown_history, RECORD_UNKNOWN),
    MEND(link_of_no_branch, HISTORY_ORPHAN, WARNING),
    MEND(counter_of_no_branch, HISTORY_ORPHAN, WARNING),
    FAIL(link_of_the_future, LINK_WRONG),
    FAIL(link_below_the_fork, LINK_WRONG),
    FAIL(lost_link, LINKS_WRONG),
    FAIL(link_to_another_version, LINKS_WRONG),
    FAIL(link_of_another_page, LINKS_WRONG),
    WARN(negative_counter, COUNTER_WRONG),
    WARN(counter_of_the_future, COUNTER_WRONG),
    WARN(counters_of_more_than_there_is, COUNTER_WRONG),
    WARN(version_that_nothing_sees, VERSION_UNSEEN),
    MEND(position_of_no_branch, POSITION_ORPHAN, WARNING),
    MEND(wrong_mapped_count, MAPPED_COUNT_WRONG, WARNING),
    MEND(export_of_no_volume, EXPORT_VOLUME_MISSING, WARNING),
    FAIL(export_name_twice, EXPORT_NAME_TWICE),
    FAIL(checkpoint_in_a_data_extent, CHECKPOINT_WRONG),
    FAIL(damaged_extent, EXTENT_DAMAGED),
    FAIL(unfoldable_extent, EXTENT_DAMAGED),
    FAIL(use_of_a_removed_extent, EXTENT_DAMAGED),
    WARN(extent_of_no_branch, EXTENT_OWNER_MISSING),
    FAIL(extent_on_no_disk, EXTENT_DISK_MISSING),
    FAIL(extent_beyond_the_disk, EXTENT_SLOT_OUTSIDE),
    FAIL(extents_in_one_slot, EXTENT_SLOT_TWICE),
    WARN(copies_on_one_disk, EXTENT_COPIES_TOGETHER),
    MEND(leaked_grain, GRAIN_LEAKED, WARNING),
    MEND(mapped_grain_counts_as_free, GRAIN_USE_MISSING, ERROR),
    MEND(inherited_grain_counts_as_free, GRAIN_USE_MISSING, ERROR),
    FAIL(damaged_page, PAGE_DAMAGED),
    FAIL(unfoldable_page, PAGE_DAMAGED),
    FAIL(damaged_page_key, PAGE_DAMAGED),
    FAIL(page_of_no_branch, PAGE_ORPHAN),
    FAIL(page_of_the_future, PAGE_GENERATION_WRONG),
    FAIL(page_below_the_fork, PAGE_GENERATION_WRONG),
    FAIL(grain_of_the_future, ENTRY_GENERATION_WRONG),
    FAIL(base_younger_than_home, ENTRY_GENERATION_WRONG),
    FAIL(base_as_young_as_its_home, ENTRY_GENERATION_WRONG),
    WARN(entry_beyond_the_end, ENTRY_BEYOND_END),
    FAIL(grain_of_no_extent, GRAIN_EXTENT_MISSING),
    FAIL(grain_of_another_branch, GRAIN_EXTENT_WRONG),
    FAIL(grain_of_a_checkpoint, GRAIN_EXTENT_WRONG),
    FAIL(parent_uses_the_clones_extent, GRAIN_EXTENT_WRONG),
    FAIL(grain_at_two_entries, GRAIN_TWICE),
    FAIL(grain_in_two_pages, GRAIN_TWICE),
    FAIL(grain_of_two_branches, GRAIN_TWICE),
    FAIL(grain_inherited_from_nobody, GRAIN_OWNER_MISSING),
    MEND(lost_page, GRAIN_LEAKED, WARNING),
    FAIL(lost_extent, GRAIN_EXTENT_MISSING),
};
const size_t damage_count = ARRAY_SIZE(damages);
