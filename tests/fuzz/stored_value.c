/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of the metadata database. First byte: bits 0-3 and 5 the type of record, bit 4 make the
 * CRC right (EXTENT, MAP); then the value, or the key of what is a key only. What is decoded is
 * encoded again: packed values give the same bytes; records of fields, of which unknown ones are
 * skipped, give a value that decodes to the same record and is its own encoding.
 *
 * Types of FOLD: le16 length of a value, the value, then merge operands, each u8 length and
 * bytes. Folding must do what a naive reference does, whether the operands come one by one or all
 * at once, or be refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/schema.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"

enum {
    GRAINS = 64, /* of an extent of 4 MiB */
    USE_OPERAND_BYTES = 5,
    COUNTER_OPERAND_BYTES = 8,
    OPERANDS_MAX = 16,
};

enum type {
    TYPE_POOL,
    TYPE_DISK,
    TYPE_VOLUME,
    TYPE_BRANCH,
    TYPE_POSITION,
    TYPE_EXPORT,
    TYPE_RUN,
    TYPE_CHECKPOINT,
    TYPE_EXTENT,
    TYPE_PAGE,
    TYPE_BATCH,
    TYPE_COMMIT,
    TYPE_FOLD_PAGE,
    TYPE_FOLD_EXTENT,
    TYPE_SNAPSHOT,
    TYPE_POLICY,
    TYPE_HISTORY_KEY,
    TYPE_FOLD_COUNTER,
    TYPE_COUNT,
};

union record {
    struct pool_record pool;
    struct disk_record disk;
    struct volume_record volume;
    struct branch_record branch;
    struct branch_position position;
    struct export_record export;
    struct run_record run;
    struct checkpoint_record checkpoint;
    struct snapshot_record snapshot;
    struct policy_record policy;
};

/* ---- records of fields ---- */

static int
decode(enum type type, const void *value, size_t length, union record *record)
{
    memset(record, 0, sizeof(*record));
    switch (type) {
    case TYPE_POOL:
        return schema_get_pool(value, length, &record->pool);
    case TYPE_DISK:
        return schema_get_disk(value, length, &record->disk);
    case TYPE_VOLUME:
        return schema_get_volume(value, length, &record->volume);
    case TYPE_BRANCH:
        return schema_get_branch(value, length, &record->branch);
    case TYPE_POSITION:
        return schema_get_position(value, length, &record->position);
    case TYPE_EXPORT:
        return schema_get_export(value, length, &record->export);
    case TYPE_RUN:
        return schema_get_run(value, length, &record->run);
    case TYPE_SNAPSHOT:
        return schema_get_snapshot(value, length, &record->snapshot);
    case TYPE_POLICY:
        return schema_get_policy(value, length, &record->policy);
    default:
        return schema_get_checkpoint(value, length, &record->checkpoint);
    }
}

static void
encode(enum type type, const union record *record, struct byte_buffer *batch)
{
    switch (type) {
    case TYPE_POOL:
        schema_put_pool(batch, &record->pool);
        break;
    case TYPE_DISK:
        schema_put_disk(batch, &record->disk);
        break;
    case TYPE_VOLUME:
        schema_put_volume(batch, &record->volume);
        break;
    case TYPE_BRANCH:
        schema_put_branch(batch, &record->branch);
        break;
    case TYPE_POSITION:
        schema_put_position(batch, 1, &record->position);
        break;
    case TYPE_EXPORT:
        schema_put_export(batch, &record->export);
        break;
    case TYPE_RUN:
        schema_put_run(batch, &record->run);
        break;
    case TYPE_SNAPSHOT:
        schema_put_snapshot(batch, 1, 1, &record->snapshot);
        break;
    case TYPE_POLICY:
        schema_put_policy(batch, 1, &record->policy);
        break;
    default:
        schema_put_checkpoint(batch, 0, &record->checkpoint);
        break;
    }
}

static void
fields(enum type type, const uint8_t *value, size_t length)
{
    static union record records[2];
    struct byte_buffer batches[2] = { BYTE_BUFFER_INIT, BYTE_BUFFER_INIT };
    struct store_batch_item item;
    size_t position = 0;

    int result = decode(type, value, length, &records[0]);
    ASSERT(result == 0 || result == -EUCLEAN);
    if (result != 0) {
        return;
    }
    encode(type, &records[0], &batches[0]);
    ASSERT(store_batch_next(batches[0].data, batches[0].length_bytes, &position, &item) == 1);
    ASSERT(decode(type, item.value, item.value_bytes, &records[1]) == 0);
    ASSERT(memcmp(&records[0], &records[1], sizeof(records[0])) == 0);
    encode(type, &records[1], &batches[1]);
    ASSERT(batches[0].length_bytes == batches[1].length_bytes);
    ASSERT(memcmp(batches[0].data, batches[1].data, batches[0].length_bytes) == 0);
    byte_buffer_free(&batches[0]);
    byte_buffer_free(&batches[1]);
}

/* ---- packed values ---- */

static void
expect_same(struct byte_buffer *encoded, const uint8_t *value, size_t length)
{
    ASSERT_OP(encoded->length_bytes, ==, length);
    ASSERT(length == 0 || memcmp(encoded->data, value, length) == 0);
    byte_buffer_free(encoded);
}

static void
extent(const uint8_t *value, size_t length)
{
    static const uint32_t grains[] = { 16, GRAINS, EXTENT_GRAINS_MAX };
    for (size_t n = 0; n < ARRAY_SIZE(grains); n++) {
        struct extent_record record;
        struct byte_buffer encoded = BYTE_BUFFER_INIT;
        int result = extent_record_decode(value, length, grains[n], &record);
        ASSERT(result == 0 || result == -EUCLEAN);
        if (result == 0) {
            extent_record_encode(&record, grains[n], &encoded);
            expect_same(&encoded, value, length);
        }
    }
}

static int
page(const uint8_t *value, size_t length, struct map_entry *entries)
{
    struct byte_buffer encoded = BYTE_BUFFER_INIT;
    uint32_t used;
    int result = map_page_decode(value, length, entries, &used);
    ASSERT(result == 0 || result == -EUCLEAN);
    if (result == 0) {
        ASSERT_OP(used, <=, (uint32_t)MAP_PAGE_ENTRIES);
        map_page_encode(entries, &encoded);
        expect_same(&encoded, value, length);
    }
    return result;
}

/* What is taken for a key is the encoding of what it says. */
static void
history_key(const uint8_t *key, size_t length)
{
    struct history_link link;
    struct history_counter counter;
    uint8_t encoded[STORE_KEY_BYTES_MAX];
    uint64_t branch;
    uint64_t generation;

    int results[] = {
        history_link_key_decode(key, length, &link),
        history_counter_key_decode(key, length, &counter),
        schema_snapshot_key_decode(key, length, &branch, &generation),
    };
    for (size_t n = 0; n < ARRAY_SIZE(results); n++) {
        ASSERT(results[n] == 0 || results[n] == -EUCLEAN);
    }
    if (results[0] == 0) {
        history_link_key_encode(encoded, &link);
    } else if (results[1] == 0) {
        history_counter_key_encode(encoded, &counter);
    } else if (results[2] == 0) {
        ASSERT_OP(schema_key_snapshot(encoded, branch, generation), ==, (uint32_t)length);
    } else {
        return;
    }
    ASSERT(memcmp(key, encoded, length) == 0);
}

static void
batch(const uint8_t *value, size_t length)
{
    struct byte_buffer encoded = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;
    int more;

    while ((more = store_batch_next(value, length, &position, &item)) == 1) {
        switch (item.operation) {
        case STORE_PUT:
            store_batch_put(&encoded, item.family, item.key, item.key_bytes, item.value,
                            item.value_bytes);
            break;
        case STORE_DELETE:
            store_batch_delete(&encoded, item.family, item.key, item.key_bytes);
            break;
        case STORE_MERGE:
            store_batch_merge(&encoded, item.family, item.key, item.key_bytes, item.value,
                              item.value_bytes);
            break;
        }
    }
    ASSERT(more == 0 || more == -EBADMSG);
    expect_same(&encoded, value, position);
}

/* ---- folding ---- */

struct fold {
    struct byte_buffer base;
    struct byte_buffer operands[OPERANDS_MAX];
    uint32_t count;
};

static void
put_crc(uint8_t *value, size_t length)
{
    if (length >= sizeof(uint32_t)) {
        put_le32(value, crc32c(0, value + sizeof(uint32_t), length - sizeof(uint32_t)));
    }
}

/* Apply the operand to the array; -EUCLEAN when it is malformed. */
static int
reference_page(struct map_entry *entries, const struct byte_buffer *operand)
{
    if (operand->length_bytes % MAP_DELTA_ENCODED_BYTES != 0 || operand->length_bytes == 0) {
        return -EUCLEAN;
    }
    for (size_t at = 0; at < operand->length_bytes; at += MAP_DELTA_ENCODED_BYTES) {
        struct map_entry entry;
        uint32_t index = get_le16(operand->data + at);
        if (index >= MAP_PAGE_ENTRIES || map_entry_decode(operand->data + at + 2, &entry) != 0) {
            return -EUCLEAN;
        }
        if (map_entry_is_empty(&entry)) {
            memset(&entry, 0, sizeof(entry));
        }
        entries[index] = entry;
    }
    return 0;
}

static int
reference_extent(struct extent_record *record, const struct byte_buffer *operand)
{
    if (operand->length_bytes % USE_OPERAND_BYTES != 0 || operand->length_bytes == 0) {
        return -EUCLEAN;
    }
    for (size_t at = 0; at < operand->length_bytes; at += USE_OPERAND_BYTES) {
        uint32_t first = get_le16(operand->data + at + 1);
        uint32_t count = get_le16(operand->data + at + 3);
        if (operand->data[at] > 1 || count == 0 || first + count > GRAINS) {
            return -EUCLEAN;
        }
        for (uint32_t n = first; n < first + count; n++) {
            uint64_t bit = UINT64_C(1) << n % 64;
            uint64_t *word = &record->used[n / 64];
            *word = operand->data[at] == 1 ? *word | bit : *word & ~bit;
        }
    }
    return 0;
}

static int
reference_counter(uint64_t *count, const struct byte_buffer *operand)
{
    if (operand->length_bytes % COUNTER_OPERAND_BYTES != 0 || operand->length_bytes == 0) {
        return -EUCLEAN;
    }
    for (size_t at = 0; at < operand->length_bytes; at += COUNTER_OPERAND_BYTES) {
        *count += get_le64(operand->data + at);
    }
    return 0;
}

/* Fold all operands: one after the other, or in one. */
static int
fold(const struct fold *fold, enum store_family family, bool at_once, struct byte_buffer *value)
{
    uint8_t key[MAP_KEY_BYTES] = { family == STORE_FAMILY_HISTORY ? HISTORY_COUNTER : 0 };
    struct byte_buffer all = BYTE_BUFFER_INIT;
    int result = 0;

    byte_buffer_append(value, fold->base.data, fold->base.length_bytes);
    for (uint32_t n = 0; n < fold->count && result == 0; n++) {
        const struct byte_buffer *operand = &fold->operands[n];
        byte_buffer_append(&all, operand->data, operand->length_bytes);
        if (!at_once) {
            result = schema_merge(family, key, sizeof(key), value, operand->data,
                                  operand->length_bytes);
        }
    }
    if (at_once) {
        result = schema_merge(family, key, sizeof(key), value, all.data, all.length_bytes);
    }
    byte_buffer_free(&all);
    return result;
}

static int
reference_counters(const struct fold *fold, struct byte_buffer *value)
{
    int64_t base = 0;
    int result = schema_get_counter(fold->base.data, fold->base.length_bytes, &base);
    uint64_t count = (uint64_t)base;
    for (uint32_t n = 0; n < fold->count && result == 0; n++) {
        result = reference_counter(&count, &fold->operands[n]);
    }
    if (result == 0 && count != 0) {
        byte_buffer_append_le64(value, count);
    }
    return result;
}

static int
reference(const struct fold *fold, enum store_family family, struct byte_buffer *value)
{
    if (family == STORE_FAMILY_HISTORY) {
        return reference_counters(fold, value);
    }
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    struct extent_record record;
    bool is_page = family == STORE_FAMILY_MAP;
    bool is_absent = !is_page && fold->base.length_bytes == 0;
    uint32_t used;
    int result = 0;

    memset(&record, 0, sizeof(record));
    if (is_page) {
        result = map_page_decode(fold->base.data, fold->base.length_bytes, entries, &used);
    } else if (!is_absent) {
        result = extent_record_decode(fold->base.data, fold->base.length_bytes, GRAINS, &record);
    }
    for (uint32_t n = 0; n < fold->count && result == 0; n++) {
        result = is_page ? reference_page(entries, &fold->operands[n])
                         : is_absent ? 0 : reference_extent(&record, &fold->operands[n]);
    }
    if (result == 0 && is_page) {
        map_page_encode(entries, value);
    } else if (result == 0 && !is_absent) {
        extent_record_encode(&record, GRAINS, value);
    }
    return result;
}

static void
folding(enum store_family family, struct input *input, bool make_crc)
{
    struct fold operands = { .count = 0 };
    struct byte_buffer values[3] = { BYTE_BUFFER_INIT, BYTE_BUFFER_INIT, BYTE_BUFFER_INIT };
    bool is_whole = true; /* every operand is a sequence of changes */
    size_t unit = family == STORE_FAMILY_MAP ? (size_t)MAP_DELTA_ENCODED_BYTES
        : family == STORE_FAMILY_HISTORY     ? (size_t)COUNTER_OPERAND_BYTES
                                             : (size_t)USE_OPERAND_BYTES;
    size_t length = input_le16(input);
    const uint8_t *data = input_take(input, length, &length);

    byte_buffer_append(&operands.base, data, length);
    if (make_crc) {
        put_crc(operands.base.data, length);
    }
    while (operands.count < OPERANDS_MAX && input->left > 0) {
        length = input_u8(input);
        data = input_take(input, length, &length);
        byte_buffer_append(&operands.operands[operands.count++], data, length);
        is_whole = is_whole && length > 0 && length % unit == 0;
    }
    int one_by_one = fold(&operands, family, false, &values[0]);
    int at_once = fold(&operands, family, true, &values[1]);
    int wanted = reference(&operands, family, &values[2]);
    ASSERT(one_by_one == 0 || one_by_one == -EUCLEAN);
    if (operands.count > 0 && is_whole) { /* only whole operands can be put behind each other */
        ASSERT((one_by_one == 0) == (at_once == 0));
    }
    /* The reference looks into all of the page; folding only at the entries that change. */
    if (wanted == 0 && operands.count > 0 && is_whole) {
        ASSERT_OP(one_by_one, ==, 0);
        for (uint32_t n = 0; n < 2; n++) {
            ASSERT_OP(values[n].length_bytes, ==, values[2].length_bytes);
            ASSERT(values[n].length_bytes == 0
                   || memcmp(values[n].data, values[2].data, values[n].length_bytes) == 0);
        }
    }
    for (uint32_t n = 0; n < ARRAY_SIZE(values); n++) {
        byte_buffer_free(&values[n]);
    }
    byte_buffer_free(&operands.base);
    for (uint32_t n = 0; n < operands.count; n++) {
        byte_buffer_free(&operands.operands[n]);
    }
}

static void
value(enum type type, uint8_t *bytes, size_t length)
{
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    uint64_t commit;

    switch (type) {
    case TYPE_EXTENT:
        extent(bytes, length);
        break;
    case TYPE_PAGE:
        (void)page(bytes, length, entries);
        break;
    case TYPE_BATCH:
        batch(bytes, length);
        break;
    case TYPE_HISTORY_KEY:
        history_key(bytes, length);
        break;
    case TYPE_COMMIT:
        ASSERT((schema_get_commit(bytes, length, &commit) == 0) == (length == sizeof(commit)));
        break;
    default:
        fields(type, bytes, length);
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    uint8_t mode = input_u8(&input);
    enum type type = (enum type)(((mode & 15) | (mode & 32) >> 1) % TYPE_COUNT);
    bool make_crc = (mode & 16) != 0;

    if (type == TYPE_FOLD_PAGE || type == TYPE_FOLD_EXTENT || type == TYPE_FOLD_COUNTER) {
        folding(type == TYPE_FOLD_PAGE         ? STORE_FAMILY_MAP
                    : type == TYPE_FOLD_EXTENT ? STORE_FAMILY_EXTENT
                                               : STORE_FAMILY_HISTORY,
                &input, make_crc);
        return 0;
    }
    size_t length = input.left;
    uint8_t *copy = malloc(length + 1);
    ASSERT(copy != NULL);
    memcpy(copy, input.data, length);
    if (make_crc && (type == TYPE_EXTENT || type == TYPE_PAGE)) {
        put_crc(copy, length);
    }
    value(type, copy, length);
    free(copy);
    return 0;
}
