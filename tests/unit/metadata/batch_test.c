/* SPDX-License-Identifier: Apache-2.0 */
/* The encoding of batches: round trip, concatenation, and that the decoder refuses every damage. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/random.h"
#include "metadata/store.h"

static void
fill(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_SYSTEM, "key", 3, "value", 5);
    store_batch_delete(batch, STORE_FAMILY_EXTENT, "gone", 4);
    store_batch_merge(batch, STORE_FAMILY_MAP, "m", 1, "delta", 5);
    store_batch_put(batch, STORE_FAMILY_MAP, "empty", 5, NULL, 0);
}

static void
expect_item(const struct byte_buffer *batch, size_t *position, enum store_operation operation,
            enum store_family family, const char *key, const char *value)
{
    struct store_batch_item item;
    assert_int_equal(store_batch_next(batch->data, batch->length_bytes, position, &item), 1);
    assert_int_equal(item.operation, operation);
    assert_int_equal(item.family, family);
    assert_int_equal(item.key_bytes, strlen(key));
    assert_memory_equal(item.key, key, item.key_bytes);
    assert_int_equal(item.value_bytes, strlen(value));
    assert_memory_equal(item.value, value, item.value_bytes);
}

static void
batches_are_read_back_in_order(void **state)
{
    (void)state;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    fill(&batch);
    store_batch_put(&batch, STORE_FAMILY_SYSTEM, "second", 6, "batch", 5);
    size_t position = 0;
    expect_item(&batch, &position, STORE_PUT, STORE_FAMILY_SYSTEM, "key", "value");
    expect_item(&batch, &position, STORE_DELETE, STORE_FAMILY_EXTENT, "gone", "");
    expect_item(&batch, &position, STORE_MERGE, STORE_FAMILY_MAP, "m", "delta");
    expect_item(&batch, &position, STORE_PUT, STORE_FAMILY_MAP, "empty", "");
    expect_item(&batch, &position, STORE_PUT, STORE_FAMILY_SYSTEM, "second", "batch");
    struct store_batch_item item;
    assert_int_equal(store_batch_next(batch.data, batch.length_bytes, &position, &item), 0);
    byte_buffer_free(&batch);
}

static void
the_bytes_are_those_of_the_format(void **state)
{
    (void)state;
    static const uint8_t expected[] = {
        1, 0, 3, 0, 5, 0, 0, 0, 'k', 'e', 'y', 'v', 'a', 'l', 'u', 'e',
        2, 1, 4, 0, 0, 0, 0, 0, 'g', 'o', 'n', 'e',
        3, 2, 1, 0, 5, 0, 0, 0, 'm', 'd', 'e', 'l', 't', 'a',
        1, 2, 5, 0, 0, 0, 0, 0, 'e', 'm', 'p', 't', 'y',
    };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    fill(&batch);
    assert_int_equal(batch.length_bytes, sizeof(expected));
    assert_memory_equal(batch.data, expected, sizeof(expected));
    byte_buffer_free(&batch);
}

static void
every_truncation_is_refused(void **state)
{
    (void)state;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    fill(&batch);
    size_t whole_items = 0;
    for (size_t length = 0; length <= batch.length_bytes; length++) {
        size_t position = 0;
        struct store_batch_item item;
        int result;
        do {
            result = store_batch_next(batch.data, length, &position, &item);
        } while (result == 1);
        whole_items += result == 0;
        assert_true(result == 0 || result == -EBADMSG);
        assert_true(result != 0 || position == length);
    }
    assert_int_equal(whole_items, 5); /* the empty batch, and after each of four items */
    byte_buffer_free(&batch);
}

static void
expect_refused(const uint8_t *bytes, size_t length)
{
    size_t position = 0;
    struct store_batch_item item;
    assert_int_equal(store_batch_next(bytes, length, &position, &item), -EBADMSG);
    assert_int_equal(position, 0);
}

static void
impossible_items_are_refused(void **state)
{
    (void)state;
    static const uint8_t good[] = { 1, 0, 1, 0, 0, 0, 0, 0, 'k', 0, 0, 0 };
    uint8_t bytes[sizeof(good)];
    struct {
        uint32_t offset;
        uint8_t value;
    } damages[] = { { 0, 0 }, { 0, 4 }, { 1, STORE_FAMILY_COUNT }, { 2, 0 }, { 2, 65 }, { 3, 1 },
                    { 6, 0x11 }, { 7, 0xff }, { 0, STORE_MERGE } };
    for (size_t n = 0; n < sizeof(damages) / sizeof(damages[0]); n++) {
        memcpy(bytes, good, sizeof(good));
        bytes[damages[n].offset] = damages[n].value;
        expect_refused(bytes, 9);
    }
    memcpy(bytes, good, sizeof(good));
    bytes[0] = STORE_DELETE;
    bytes[4] = 1;
    expect_refused(bytes, 10);
}

static void
random_bytes_never_lead_outside(void **state)
{
    (void)state;
    struct random random;
    random_seed(&random, 1);
    for (uint32_t round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        size_t length = random_below(&random, sizeof(bytes) + 1);
        for (size_t n = 0; n < length; n++) {
            bytes[n] = (uint8_t)random_below(&random, n % 8 < 4 ? 5 : 256);
        }
        uint8_t *exact = length > 0 ? test_malloc(length) : NULL; /* sanitizers watch its end */
        if (length > 0) {
            memcpy(exact, bytes, length);
        }
        size_t position = 0;
        uint32_t sum = 0;
        struct store_batch_item item;
        while (store_batch_next(exact, length, &position, &item) == 1) {
            for (uint32_t n = 0; n < item.key_bytes + item.value_bytes; n++) {
                sum += item.key[n];
            }
        }
        assert_true(position <= length && sum < 64 * 256);
        test_free(exact);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_read_back_in_order),
        cmocka_unit_test(the_bytes_are_those_of_the_format),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(impossible_items_are_refused),
        cmocka_unit_test(random_bytes_never_lead_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
