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
    pool.last_snapshot = 17;
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
 * Decodes to the same bytes; every truncation is refused, but those before the `optional` last
 * fields; an unknown field is skipped, unless its tag says that it must be known; a field that
 * comes twice is refused.
 */
static void
check_codec_optional(struct byte_buffer *batch, get_fn *get, const void *record,
                     size_t record_bytes, const char *key, size_t key_bytes, uint32_t optional)
{
    size_t ends[32]; /* of the fields */
    uint32_t field_count = 0;
    static uint8_t decoded[4096];
    struct store_batch_item item = only_item(batch);
    assert_int_equal(item.key_bytes, key_bytes);
    assert_memory_equal(item.key, key, key_bytes);
    assert_int_equal(get(item.value, item.value_bytes, decoded), 0);
    assert_memory_equal(decoded, record, record_bytes);

    struct byte_buffer value = BYTE_BUFFER_INIT;
    byte_buffer_append(&value, item.value, item.value_bytes);
    for (size_t at = 0; at < value.length_bytes; at += 4 + get_le16(value.data + at + 2)) {
        ends[field_count++] = at + 4 + get_le16(value.data + at + 2);
    }
    memset(decoded, 0x5a, sizeof(decoded));
    for (size_t length = 0; length < value.length_bytes; length++) {
        bool is_legal = false;
        for (uint32_t n = 0; n < optional; n++) {
            is_legal |= length == ends[field_count - 2 - n];
        }
        if (!is_legal) {
            assert_int_equal(get(value.data, length, decoded), -EUCLEAN);
        }
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

static void
check_codec(struct byte_buffer *batch, get_fn *get, const void *record, size_t record_bytes,
            const char *key, size_t key_bytes)
{
    check_codec_optional(batch, get, record, record_bytes, key, key_bytes, 0);
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
GET(snapshot_record, snapshot)
GET(policy_record, policy)

static void
every_record_survives(void **state)
{
    (void)state;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct pool_record pool = example_pool();
    schema_put_pool(&batch, &pool);
    check_codec_optional(&batch, get_pool, &pool, sizeof(pool), "P", 1, 1);

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
    check_codec_optional(&batch, get_volume, &volume, sizeof(volume), "V\0\0\0\0\0\0\0\5", 9, 2);
    volume.kind = VOLUME_KIND_PRIVATE;
    memset(volume.overlay_key, 'k', OVERLAY_KEY_BYTES_MAX);
    struct volume_record decoded;
    schema_put_volume(&batch, &volume);
    struct store_batch_item item = only_item(&batch);
    assert_int_equal(schema_get_volume(item.value, item.value_bytes, &decoded), 0);
    assert_memory_equal(&decoded, &volume, sizeof(volume));
    byte_buffer_free(&batch);

    struct branch_record branch;
    memset(&branch, 0, sizeof(branch));
    branch.id = 6;
    branch.family = 2;
    branch.parent = 2;
    branch.fork_generation = 10;
    branch.current_generation = 12;
    branch.volume = 5;
    branch.unclean_generation = 12;
    branch.flags = BRANCH_COMPLETE | BRANCH_CONTINUES;
    schema_put_branch(&batch, &branch);
    check_codec_optional(&batch, get_branch, &branch, sizeof(branch), "B\0\0\0\0\0\0\0\6", 9, 3);

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
    check_codec_optional(&batch, get_export, &export, sizeof(export), "X\0\0\0\0\0\0\0\t", 9, 1);

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

static void
snapshots_and_policies_survive(void **state)
{
    (void)state;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct snapshot_record snapshot;
    memset(&snapshot, 0, sizeof(snapshot));
    snapshot.id = 3;
    snapshot.volume = 5;
    snapshot.guid[0] = 9;
    memset(snapshot.name, 's', NAME_BYTES_MAX);
    snapshot.state = SNAPSHOT_KEPT;
    snapshot.size_bytes = 10 * GIB;
    snapshot.mapped_grains = 1000;
    snapshot.created_realtime_ns = 4;
    snapshot.expires_ns = UINT64_MAX;
    snapshot.rules = 5;
    snapshot.group_guid[15] = 1;
    schema_put_snapshot(&batch, 6, 0x01020304, &snapshot);
    check_codec(&batch, get_snapshot, &snapshot, sizeof(snapshot),
                "S\0\0\0\0\0\0\0\6\0\0\0\0\1\2\3\4", 17);
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint64_t branch;
    uint64_t generation;
    assert_int_equal(schema_key_snapshot(key, 6, 7), 17);
    assert_int_equal(schema_snapshot_key_decode(key, 17, &branch, &generation), 0);
    assert_int_equal(branch, 6);
    assert_int_equal(generation, 7);
    assert_int_equal(schema_snapshot_key_decode(key, 16, &branch, &generation), -EUCLEAN);
    key[12] = 1; /* generations have 32 bits */
    assert_int_equal(schema_snapshot_key_decode(key, 17, &branch, &generation), -EUCLEAN);

    struct policy_record policy;
    memset(&policy, 0, sizeof(policy));
    policy.rules[0] = (struct policy_rule){ .every_ns = UINT64_MAX, .keep = 8 };
    policy.rules[7].every_ns = 1;
    policy.rules[7].keep = UINT32_MAX;
    policy.rules[7].immutable_ns = 77;
    schema_put_policy(&batch, 5, &policy);
    check_codec(&batch, get_policy, &policy, sizeof(policy), "T\0\0\0\0\0\0\0\5", 9);
}

/* Change one number of an encoded record and see it refused. Frees the batch. */
static void
expect_refused(struct byte_buffer *batch, get_fn *get, uint16_t tag, uint64_t number)
{
    static uint8_t decoded[4096];
    struct store_batch_item item = only_item(batch);
    uint8_t *field = batch->data + (item.value - batch->data);
    while (get_le16(field) != tag) {
        field += 4 + get_le16(field + 2);
    }
    uint8_t bytes[8];
    put_le64(bytes, number);
    memcpy(field + 4, bytes, MIN((size_t)get_le16(field + 2), sizeof(bytes)));
    assert_int_equal(get(item.value, item.value_bytes, decoded), -EUCLEAN);
    byte_buffer_free(batch);
}

static void
expect_pool_refused(uint16_t tag, uint64_t number)
{
    struct pool_record pool = example_pool();
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_pool(&batch, &pool);
    expect_refused(&batch, get_pool, tag, number);
}

static void
expect_branch_refused(uint16_t tag, uint64_t number)
{
    struct branch_record branch = {
        .id = 6, .family = 2, .parent = 2, .fork_generation = 10, .current_generation = 12,
        .flags = BRANCH_CONTINUES,
    };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_branch(&batch, &branch);
    expect_refused(&batch, get_branch, tag, number);
}

static void
expect_snapshot_refused(uint16_t tag, uint64_t number)
{
    struct snapshot_record snapshot = { .id = 1, .name = "s", .state = SNAPSHOT_KEPT };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_snapshot(&batch, 1, 1, &snapshot);
    expect_refused(&batch, get_snapshot, tag, number);
}

static void
expect_policy_refused(uint16_t tag, uint64_t number)
{
    struct policy_record policy = { .rules = { { .every_ns = 5, .keep = 1 } } };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_policy(&batch, 1, &policy);
    expect_refused(&batch, get_policy, tag, number);
}

static void
impossible_history_is_refused(void **state)
{
    (void)state;
    expect_branch_refused(3, 0);   /* continues nobody */
    expect_branch_refused(3, 6);   /* its own parent */
    expect_branch_refused(5, 11);  /* the first generation is kept free */
    expect_branch_refused(5, 3);
    expect_branch_refused(6, 8);   /* a flag of tomorrow */
    expect_branch_refused(8, 13);  /* beyond now */
    expect_snapshot_refused(1, 0); /* no id */
    expect_snapshot_refused(4, '/');
    expect_snapshot_refused(5, 0);
    expect_snapshot_refused(5, SNAPSHOT_HIDDEN); /* with a name */
    expect_snapshot_refused(5, SNAPSHOT_DELETING + 1);
    expect_snapshot_refused(6, UINT64_MAX);
    expect_policy_refused(1, 0); /* keeps, but makes none */
    expect_policy_refused(2, 0); /* makes, but keeps none */
    expect_policy_refused(6, 1);
    struct volume_record volume = {
        .id = 1, .branch = 1, .name = "v", .sector_bytes = 512, .copies = 1,
        .kind = VOLUME_KIND_EPHEMERAL,
    };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_volume(&batch, &volume);
    expect_refused(&batch, get_volume, 13, VOLUME_KIND_PRIVATE); /* of nobody */
    schema_put_volume(&batch, &volume);
    expect_refused(&batch, get_volume, 13, VOLUME_KIND_PRIVATE + 1);
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
        cmocka_unit_test(snapshots_and_policies_survive),
        cmocka_unit_test(impossible_pools_are_refused),
        cmocka_unit_test(impossible_history_is_refused),
        cmocka_unit_test(names),
        cmocka_unit_test(rings_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
