/* SPDX-License-Identifier: Apache-2.0 */
/* Links and counters: their order, their bounds, foreign bytes, and how counters are folded. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "metadata/schema.h"

static void
links_survive(void **state)
{
    (void)state;
    static const uint8_t expected[HISTORY_LINK_KEY_BYTES] = {
        'L', 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2,
    };
    struct history_link link = { 0x0102030405060708, 9, 7, 0x0102 };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_link(&batch, &link);
    schema_delete_link(&batch, &link);
    size_t position = 0;
    struct store_batch_item item;
    assert_int_equal(store_batch_next(batch.data, batch.length_bytes, &position, &item), 1);
    assert_int_equal(item.operation, STORE_PUT);
    assert_int_equal(item.family, STORE_FAMILY_HISTORY);
    assert_int_equal(item.key_bytes, sizeof(expected));
    assert_memory_equal(item.key, expected, sizeof(expected));
    assert_int_equal(item.value_bytes, 0);
    struct history_link decoded;
    assert_int_equal(history_link_key_decode(item.key, item.key_bytes, &decoded), 0);
    assert_memory_equal(&decoded, &link, sizeof(link));
    assert_int_equal(store_batch_next(batch.data, batch.length_bytes, &position, &item), 1);
    assert_int_equal(item.operation, STORE_DELETE);
    assert_memory_equal(item.key, expected, sizeof(expected));
    assert_int_equal(store_batch_next(batch.data, batch.length_bytes, &position, &item), 0);
    byte_buffer_free(&batch);
}

/* By branch, then by when the older version was superseded, then by that version. */
static void
links_are_in_order_of_death(void **state)
{
    (void)state;
    static const struct history_link links[] = {
        { 1, 2, 0, 900 }, { 1, 3, 0, 5 }, { 1, 3, 1, 4 }, { 1, 3, 2, 3 }, { 1, 3, 2, 256 },
        { 1, 256, 1, 0 }, { 2, 1, 0, 0 },
    };
    uint8_t before[HISTORY_LINK_KEY_BYTES] = { 0 };
    for (size_t n = 0; n < ARRAY_SIZE(links); n++) {
        uint8_t key[HISTORY_LINK_KEY_BYTES];
        history_link_key_encode(key, &links[n]);
        assert_true(memcmp(before, key, sizeof(key)) < 0);
        memcpy(before, key, sizeof(key));
    }
}

static void
foreign_keys_are_refused(void **state)
{
    (void)state;
    struct history_link link = { 1, 9, 7, 2 };
    struct history_counter counter = { 1, 9, 7 };
    uint8_t key[HISTORY_LINK_KEY_BYTES + 1] = { 0 };
    history_link_key_encode(key, &link);
    for (size_t length = 0; length <= sizeof(key); length++) {
        assert_int_equal(history_link_key_decode(key, length, &link),
                         length == HISTORY_LINK_KEY_BYTES ? 0 : -EUCLEAN);
    }
    put_be32(key + 13, 9); /* supersedes itself */
    assert_int_equal(history_link_key_decode(key, HISTORY_LINK_KEY_BYTES, &link), -EUCLEAN);
    put_be32(key + 13, 7);
    key[17] = 0xff; /* beyond any volume */
    assert_int_equal(history_link_key_decode(key, HISTORY_LINK_KEY_BYTES, &link), -EUCLEAN);
    history_link_key_encode(key, &link);
    key[0] = HISTORY_COUNTER;
    assert_int_equal(history_link_key_decode(key, HISTORY_LINK_KEY_BYTES, &link), -EUCLEAN);

    history_counter_key_encode(key, &counter);
    for (size_t length = 0; length <= sizeof(key); length++) {
        assert_int_equal(history_counter_key_decode(key, length, &counter),
                         length == HISTORY_COUNTER_KEY_BYTES ? 0 : -EUCLEAN);
    }
    assert_int_equal(counter.branch, 1);
    assert_int_equal(counter.death, 9);
    assert_int_equal(counter.birth, 7);
    put_be32(key + 13, 9); /* gone before it came */
    assert_int_equal(history_counter_key_decode(key, HISTORY_COUNTER_KEY_BYTES, &counter),
                     -EUCLEAN);
    key[0] = HISTORY_LINK;
    put_be32(key + 13, 7);
    assert_int_equal(history_counter_key_decode(key, HISTORY_COUNTER_KEY_BYTES, &counter),
                     -EUCLEAN);
}

/* Operand of one MERGE of the batch, which is freed. */
static void
fold(struct byte_buffer *value, const struct history_counter *counter, int64_t added)
{
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;
    schema_add_counter(&batch, counter, added);
    assert_int_equal(store_batch_next(batch.data, batch.length_bytes, &position, &item), 1);
    assert_int_equal(item.operation, STORE_MERGE);
    assert_int_equal(
        schema_merge(item.family, item.key, item.key_bytes, value, item.value, item.value_bytes),
        0);
    byte_buffer_free(&batch);
}

static void
counters_add_up(void **state)
{
    (void)state;
    struct history_counter counter = { 3, HISTORY_FOREVER, 2 };
    uint8_t key[HISTORY_COUNTER_KEY_BYTES];
    struct byte_buffer one_by_one = BYTE_BUFFER_INIT;
    struct byte_buffer at_once = BYTE_BUFFER_INIT;
    struct byte_buffer operands = BYTE_BUFFER_INIT;
    struct random random;
    int64_t sum = 0;
    int64_t count;
    random_seed(&random, 5);
    history_counter_key_encode(key, &counter);
    for (uint32_t n = 0; n < 1000; n++) {
        int64_t added = (int64_t)random_below(&random, 7) - 3;
        fold(&one_by_one, &counter, added);
        byte_buffer_append_le64(&operands, (uint64_t)added);
        sum += added;
        assert_int_equal(schema_get_counter(one_by_one.data, one_by_one.length_bytes, &count), 0);
        assert_int_equal(count, sum);
        assert_int_equal(one_by_one.length_bytes, sum == 0 ? 0 : 8);
    }
    assert_int_equal(schema_merge(STORE_FAMILY_HISTORY, key, sizeof(key), &at_once, operands.data,
                                  operands.length_bytes),
                     0);
    assert_int_equal(at_once.length_bytes, one_by_one.length_bytes);
    fold(&at_once, &counter, -sum);
    assert_int_equal(at_once.length_bytes, 0); /* the same as none */
    fold(&at_once, &counter, INT64_MIN);
    fold(&at_once, &counter, -1); /* wraps, and does not end the process */
    byte_buffer_free(&one_by_one);
    byte_buffer_free(&at_once);
    byte_buffer_free(&operands);
}

static void
foreign_counters_are_refused(void **state)
{
    (void)state;
    uint8_t key[HISTORY_COUNTER_KEY_BYTES];
    uint8_t bytes[24] = { 1 };
    struct history_counter counter = { 3, HISTORY_FOREVER, 2 };
    int64_t count;
    history_counter_key_encode(key, &counter);
    for (size_t length = 0; length <= sizeof(bytes); length++) {
        struct byte_buffer value = BYTE_BUFFER_INIT;
        int result =
            schema_merge(STORE_FAMILY_HISTORY, key, sizeof(key), &value, bytes, length);
        assert_int_equal(result, length > 0 && length % 8 == 0 ? 0 : -EUCLEAN);
        byte_buffer_clear(&value);
        byte_buffer_append(&value, bytes, length);
        assert_int_equal(schema_merge(STORE_FAMILY_HISTORY, key, sizeof(key), &value, bytes, 8),
                         length == 0 || length == 8 ? 0 : -EUCLEAN);
        assert_int_equal(schema_get_counter(bytes, length, &count),
                         length == 0 || length == 8 ? 0 : -EUCLEAN);
        byte_buffer_free(&value);
    }
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(schema_get_counter(bytes, 8, &count), -EUCLEAN); /* it has no bytes */
    struct byte_buffer value = BYTE_BUFFER_INIT;
    key[0] = HISTORY_LINK; /* nothing is added to links */
    assert_int_equal(schema_merge(STORE_FAMILY_HISTORY, key, sizeof(key), &value, bytes, 8),
                     -EUCLEAN);
    assert_int_equal(schema_merge(STORE_FAMILY_HISTORY, key, 0, &value, bytes, 8), -EUCLEAN);
    byte_buffer_free(&value);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_survive),
        cmocka_unit_test(links_are_in_order_of_death),
        cmocka_unit_test(foreign_keys_are_refused),
        cmocka_unit_test(counters_add_up),
        cmocka_unit_test(foreign_counters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
