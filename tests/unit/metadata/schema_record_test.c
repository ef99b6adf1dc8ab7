/* SPDX-License-Identifier: Apache-2.0 */
/* Records of the SYSTEM family: round trips, unknown and missing fields, and foreign bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "metadata/schema.h"

/* Records have padding: start from zeroed memory, so that memcmp() tells equality. */
static struct pool_record
example_pool(void)
{
    struct pool_record pool;
    memset(&pool, 0, sizeof(pool));
    pool.schema_version = SCHEMA_VERSION;
    memset(pool.pool_guid, 0xaa, GUID_BYTES);
    memset(pool.database_guid, 0xbb, GUID_BYTES);
    snprintf(pool.name, sizeof(pool.name), "%s", "tank");
    pool.extent_bytes = 4 << 20;
    pool.incarnation = 7;
    pool.next_branch = 1;
    pool.next_volume = 2;
    pool.next_extent = 3;
    pool.next_export = 4;
    pool.created_realtime_ns = UINT64_MAX;
    pool.warning_percent = 80;
    pool.critical_percent = 95;
    return pool;
}

/* The single item of a batch. */
static struct store_batch_item
only_item(const struct byte_buffer *batch)
{
    size_t position = 0;
    struct store_batch_item item;
    assert_int_equal(store_batch_next(batch->data, batch->length_bytes, &position, &item), 1);
    assert_int_equal(position, batch->length_bytes);
    assert_int_equal(item.family, STORE_FAMILY_SYSTEM);
    return item;
}

typedef int get_fn(const void *value, size_t value_bytes, void *ret_record);

/*
 * Decodes to the same bytes; every truncation is refused; an unknown field is skipped, unless its
 * tag says that it must be known; a field that comes twice is refused.
 */
static void
check_codec(struct byte_buffer *batch, get_fn *get, const void *record, size_t record_bytes,
            const char *key, size_t key_bytes)
{
    static uint8_t decoded[4096];
    struct store_batch_item item = only_item(batch);
    assert_int_equal(item.key_bytes, key_bytes);
    assert_memory_equal(item.key, key, key_bytes);
    assert_int_equal(get(item.value, item.value_bytes, decoded), 0);
    assert_memory_equal(decoded, record, record_bytes);

    struct byte_buffer value = BYTE_BUFFER_INIT;
    byte_buffer_append(&value, item.value, item.value_bytes);
    memset(decoded, 0x5a, sizeof(decoded));
    for (size_t length = 0; length < value.length_bytes; length++) {
        assert_int_equal(get(value.data, length, decoded), -EUCLEAN);
    }
    assert_int_equal(decoded[0], 0x5a);
    byte_buffer_append(&value, item.value, 4 + get_le16(item.value + 2));
    assert_int_equal(get(value.data, value.length_bytes, decoded), -EUCLEAN); /* twice */
    value.length_bytes = item.value_bytes;
    byte_buffer_append_le16(&value, 0x7000);
    byte_buffer_append_le16(&value, 3);
    byte_buffer_append(&value, "new", 3);
    assert_int_equal(get(value.data, value.length_bytes, decoded), 0);
    assert_memory_equal(decoded, record, record_bytes);
    put_le16(value.data + item.value_bytes, 0xf000);
    assert_int_equal(get(value.data, value.length_bytes, decoded), -EUCLEAN);

    /* Each byte changed at random: never a crash, and what is accepted is a legal record. */
    struct random random;
    random_seed(&random, record_bytes);
    for (uint32_t round = 0; round < 4000; round++) {
        value.length_bytes = item.value_bytes;
        memcpy(value.data, item.value, item.value_bytes);
        for (uint32_t n = 0; n <= round % 3; n++) {
            value.data[random_below(&random, value.length_bytes)] = (uint8_t)random_u64(&random);
        }
        int result = get(value.data, value.length_bytes, decoded);
        assert_true(result == 0 || result == -EUCLEAN);
    }
    byte_buffer_free(&value);
    byte_buffer_free(batch);
}

#define GET(type, name)                                                                            \
    static int get_##name(const void *value, size_t value_bytes, void *ret_record)                 \
    {                                                                                              \
        return schema_get_##name(value, value_bytes, (struct type *)ret_record);                   \
    }
GET(pool_record, pool)
GET(disk_record, disk)
GET(volume_record, volume)
GET(branch_record, branch)
GET(branch_position, position)
GET(export_record, export)
GET(run_record, run)
GET(checkpoint_record, checkpoint)

static void
every_record_survives(void **state)
{
    (void)state;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct pool_record pool = example_pool();
    schema_put_pool(&batch, &pool);
    check_codec(&batch, get_pool, &pool, sizeof(pool), "P", 1);

    struct disk_record disk;
    memset(&disk, 0, sizeof(disk));
    disk.index = 0x0102;
    disk.state = DISK_STATE_MISSING;
    disk.tier = 3;
    disk.guid[15] = 1;
    memset(disk.spec, 'x', DISK_SPEC_BYTES_MAX);
    disk.size_bytes = 10 * GIB;
    disk.data_start_bytes = 300 * MIB;
    disk.slot_count = 2000;
    disk.ledger_start_bytes = MIB;
    disk.ledger_length_bytes = 256 * MIB;
    schema_put_disk(&batch, &disk);
    check_codec(&batch, get_disk, &disk, sizeof(disk), "D\x01\x02", 3);

    struct volume_record volume;
    memset(&volume, 0, sizeof(volume));
    volume.id = 5;
    volume.branch = 6;
    volume.guid[3] = 3;
    memset(volume.name, 'n', NAME_BYTES_MAX);
    volume.size_bytes = 10 * GIB;
    volume.reserve_bytes = GIB;
    volume.sector_bytes = 4096;
    volume.copies = 2;
    volume.tier = VOLUME_TIER_AUTO;
    volume.deleting = true;
    volume.fenced = true;
    volume.created_realtime_ns = 1;
    schema_put_volume(&batch, &volume);
    check_codec(&batch, get_volume, &volume, sizeof(volume), "V\0\0\0\0\0\0\0\5", 9);

    struct branch_record branch = { 6, 2, 2, 10, 11 };
    schema_put_branch(&batch, &branch);
    check_codec(&batch, get_branch, &branch, sizeof(branch), "B\0\0\0\0\0\0\0\6", 9);

    struct branch_position position = { UINT64_MAX, 77 };
    schema_put_position(&batch, 6, &position);
    check_codec(&batch, get_position, &position, sizeof(position), "J\0\0\0\0\0\0\0\6", 9);
}

static void
the_other_records_survive(void **state)
{
    (void)state;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct export_record export;
    memset(&export, 0, sizeof(export));
    export.id = 9;
    export.volume = 5;
    snprintf(export.name, sizeof(export.name), "%s", "tank/vol");
    snprintf(export.protocol, sizeof(export.protocol), "%s", "nbd");
    export.exclusive = true;
    snprintf(export.options, sizeof(export.options), "%s", "{\"chap\":\"user\"}");
    schema_put_export(&batch, &export);
    check_codec(&batch, get_export, &export, sizeof(export), "X\0\0\0\0\0\0\0\t", 9);

    struct run_record run;
    memset(&run, 0, sizeof(run));
    run.state = RUN_STATE_OPEN;
    snprintf(run.boot_id, sizeof(run.boot_id), "%s", "01234567-89ab-cdef-0123-456789abcdef");
    run.incarnation = 3;
    run.ring_guid[0] = 1;
    run.ring_count = 2;
    run.ring_bytes = 16 * MIB;
    schema_put_run(&batch, &run);
    check_codec(&batch, get_run, &run, sizeof(run), "N", 1);
    run.ring_count = 0;
    run.ring_bytes = 0;
    schema_put_run(&batch, &run);
    check_codec(&batch, get_run, &run, sizeof(run), "N", 1);

    struct checkpoint_record checkpoint;
    memset(&checkpoint, 0, sizeof(checkpoint));
    checkpoint.commit = 1000;
    checkpoint.length_bytes = 12345;
    checkpoint.extent_count = 2;
    checkpoint.first_extent = 4;
    schema_put_checkpoint(&batch, 1, &checkpoint);
    check_codec(&batch, get_checkpoint, &checkpoint, sizeof(checkpoint), "K\1", 2);

    uint64_t commit;
    schema_put_commit(&batch, 0x1122334455667788);
    struct store_batch_item item = only_item(&batch);
    assert_int_equal(item.key_bytes, 1);
    assert_int_equal(item.key[0], 'C');
    assert_int_equal(schema_get_commit(item.value, item.value_bytes, &commit), 0);
    assert_int_equal(commit, 0x1122334455667788);
    assert_int_equal(schema_get_commit(item.value, 7, &commit), -EUCLEAN);
    byte_buffer_free(&batch);
}

/* Change one number of the encoded pool (tags are 1, 2, ...) and see it refused. */
static void
expect_pool_refused(uint16_t tag, uint64_t number)
{
    struct pool_record pool = example_pool();
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_pool(&batch, &pool);
    struct store_batch_item item = only_item(&batch);
    uint8_t *field = batch.data + (item.value - batch.data);
    while (get_le16(field) != tag) {
        field += 4 + get_le16(field + 2);
    }
    uint8_t bytes[8];
    put_le64(bytes, number);
    memcpy(field + 4, bytes, MIN((size_t)get_le16(field + 2), sizeof(bytes)));
    assert_int_equal(schema_get_pool(item.value, item.value_bytes, &pool), -EUCLEAN);
    byte_buffer_free(&batch);
}

static void
impossible_pools_are_refused(void **state)
{
    (void)state;
    expect_pool_refused(1, SCHEMA_VERSION + 1);
    expect_pool_refused(4, '/');          /* a name with a slash */
    expect_pool_refused(4, 0x0a);         /* with a control character */
    expect_pool_refused(5, 3 << 20);      /* extents of 3 MiB */
    expect_pool_refused(5, 128 << 20);
    expect_pool_refused(12, 101);
}

static void
names(void **state)
{
    (void)state;
    char longest[NAME_BYTES_MAX + 2];
    memset(longest, 'a', sizeof(longest));
    longest[NAME_BYTES_MAX + 1] = '\0';
    assert_false(schema_name_is_valid(longest));
    longest[NAME_BYTES_MAX] = '\0';
    assert_true(schema_name_is_valid(longest));
    assert_true(schema_name_is_valid("vm-1.disk_0"));
    static const char *const bad[] = { "", "-a", ".a", "a/b", "a b", "a@b", "\xc3\xa4", "a\n" };
    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        assert_false(schema_name_is_valid(bad[n]));
    }
}

/* The start maps so many bytes for each, and has a bit for each. */
static void
rings_are_bounded(void **state)
{
    (void)state;
    static const struct {
        uint32_t count;
        uint64_t bytes;
        int result;
    } cases[] = {
        { RUN_RINGS_MAX, RUN_RING_BYTES_MAX, 0 },
        { 1, RUN_RING_BYTES_MIN, 0 },
        { RUN_RINGS_MAX + 1, MIB, -EUCLEAN },
        { UINT32_MAX, MIB, -EUCLEAN },
        { 1, RUN_RING_BYTES_MAX + UINT64_C(1), -EUCLEAN },
        { 1, RUN_RING_BYTES_MIN - 1, -EUCLEAN },
        { 1, 0, -EUCLEAN },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        struct run_record run = {
            .state = RUN_STATE_OPEN, .ring_count = 1, .ring_bytes = RUN_RING_BYTES_MIN
        };
        struct run_record decoded;
        uint8_t value[256];
        schema_put_run(&batch, &run);
        struct store_batch_item item = only_item(&batch);
        assert_in_range(item.value_bytes, 24, sizeof(value));
        memcpy(value, item.value, item.value_bytes);
        /* The last two fields, behind a tag and a length each. */
        uint8_t *count = value + item.value_bytes - 8 - 4 - 4;
        uint8_t *bytes = value + item.value_bytes - 8;
        assert_int_equal(get_le32(count), 1);
        assert_int_equal(get_le64(bytes), RUN_RING_BYTES_MIN);
        put_le32(count, cases[i].count);
        put_le64(bytes, cases[i].bytes);
        assert_int_equal(schema_get_run(value, item.value_bytes, &decoded), cases[i].result);
        byte_buffer_free(&batch);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_survives),
        cmocka_unit_test(the_other_records_survive),
        cmocka_unit_test(impossible_pools_are_refused),
        cmocka_unit_test(names),
        cmocka_unit_test(rings_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
