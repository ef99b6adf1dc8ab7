/* SPDX-License-Identifier: Apache-2.0 */
/* Map entries, map pages, extents, and the merge function against a naive model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "metadata/schema.h"

static struct map_entry
random_entry(struct random *random)
{
    struct map_entry entry = { 0 };
    if (random_chance(random, 3, 4)) {
        entry.home = 1 + random_below(random, 1000);
        entry.home_generation = 5;
        entry.valid = (uint16_t)(random_u64(random) | 1);
    }
    if (random_chance(random, 1, 2)) {
        entry.base = 2000 + random_below(random, 1000);
        entry.base_generation = 3;
        entry.zero = (uint16_t)(random_u64(random) & ~entry.valid);
    }
    if (random_chance(random, 1, 8)) {
        uint16_t supplied = entry.base != GRAIN_NONE ? (uint16_t)~entry.zero : entry.valid;
        entry.damaged = (uint16_t)(random_u64(random) & supplied);
        entry.copied = (uint16_t)(random_u64(random) & supplied);
    }
    return entry;
}

static bool
entry_equal(const struct map_entry *a, const struct map_entry *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static void
an_entry_has_the_bytes_of_the_format(void **state)
{
    (void)state;
    static const uint8_t expected[MAP_ENTRY_ENCODED_BYTES] = {
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x02, 0x01, 0, 0, 0, 0, 0, 0,
        4,    3,    2,    1,    9,    0,    0,    0,    0xff, 0x00, 0x00, 0xf0, 1, 0,
        2,    0,
    };
    struct map_entry entry = {
        .home = 0x1122334455667788, .base = 0x0102, .home_generation = 0x01020304,
        .base_generation = 9, .valid = 0x00ff, .zero = 0xf000, .damaged = 1, .copied = 2,
    };
    uint8_t bytes[MAP_ENTRY_ENCODED_BYTES];
    map_entry_encode(&entry, bytes);
    assert_memory_equal(bytes, expected, sizeof(bytes));
    struct map_entry decoded;
    assert_int_equal(map_entry_decode(bytes, &decoded), 0);
    assert_true(entry_equal(&decoded, &entry));
}

static void
an_entry_that_breaks_an_invariant_is_refused(void **state)
{
    (void)state;
    const struct map_entry good = {
        .home = 7, .base = 8, .home_generation = 2, .base_generation = 1, .valid = 3, .zero = 4,
    };
    uint8_t bytes[MAP_ENTRY_ENCODED_BYTES];
    struct map_entry decoded;
    struct {
        uint32_t offset;
        uint16_t value;
        int result;
    } changes[] = {
        { 26, 6, -EUCLEAN },  /* valid and zero overlap */
        { 0, 0, -EUCLEAN },   /* valid blocks without a home */
        { 8, 0, -EUCLEAN },   /* zero blocks without a base */
        { 8, 7, -EUCLEAN },   /* home and base are one grain */
        { 28, 4, -EUCLEAN },  /* zeroes cannot be damaged */
        { 24, 0, -EUCLEAN },  /* a home without a valid block */
        { 30, 4, -EUCLEAN },  /* nor have been moved */
        { 30, 3, 0 },
        { 28, 0x8001, 0 },
    };
    for (size_t n = 0; n < ARRAY_SIZE(changes); n++) {
        map_entry_encode(&good, bytes);
        put_le16(bytes + changes[n].offset, changes[n].value);
        memset(&decoded, 0x5a, sizeof(decoded));
        assert_int_equal(map_entry_decode(bytes, &decoded), changes[n].result);
        if (changes[n].result != 0) {
            assert_int_equal(decoded.valid, 0x5a5a); /* untouched on failure */
        }
    }
    struct map_entry no_home = { .base = 8, .base_generation = 1 };
    map_entry_encode(&no_home, bytes);
    put_le32(bytes + 16, 1); /* generation of a home that is absent */
    assert_int_equal(map_entry_decode(bytes, &decoded), -EUCLEAN);
    struct map_entry thin = { .home = 8, .home_generation = 1, .valid = 3 };
    map_entry_encode(&thin, bytes);
    put_le16(bytes + 28, 4); /* damage where nothing is */
    assert_int_equal(map_entry_decode(bytes, &decoded), -EUCLEAN);
    struct map_entry no_base = { .home = 8, .home_generation = 1, .valid = 1 };
    map_entry_encode(&no_base, bytes);
    put_le32(bytes + 20, 1);
    assert_int_equal(map_entry_decode(bytes, &decoded), -EUCLEAN);
}

static void
keys_sort_as_their_numbers(void **state)
{
    (void)state;
    uint8_t low[MAP_KEY_BYTES];
    uint8_t high[MAP_KEY_BYTES];
    map_key_encode(low, 1, 0xff, 0xffff);
    map_key_encode(high, 1, 0x100, 0);
    assert_true(memcmp(low, high, sizeof(low)) < 0);
    uint64_t branch;
    uint64_t page;
    uint64_t generation;
    assert_int_equal(map_key_decode(high, sizeof(high), &branch, &page, &generation), 0);
    assert_int_equal(branch, 1);
    assert_int_equal(page, 0x100);
    assert_int_equal(generation, 0);
    assert_int_equal(map_key_decode(high, 23, &branch, &page, &generation), -EUCLEAN);
    map_key_encode(high, 1, UINT64_MAX, 0); /* a page that no volume can have */
    assert_int_equal(map_key_decode(high, sizeof(high), &branch, &page, &generation), -EUCLEAN);
}

static void
pages_of_every_fill_are_read_back(void **state)
{
    (void)state;
    struct random random;
    random_seed(&random, 2);
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    static struct map_entry decoded[MAP_PAGE_ENTRIES];
    struct byte_buffer value = BYTE_BUFFER_INIT;
    for (uint32_t fill = 0; fill <= 64; fill++) {
        uint32_t used = 0;
        for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
            entries[index] = (struct map_entry){ 0 };
            if (random_chance(&random, fill, 64)) {
                entries[index] = random_entry(&random);
            }
            used += !map_entry_is_empty(&entries[index]);
        }
        byte_buffer_clear(&value);
        map_page_encode(entries, &value);
        assert_int_equal(value.length_bytes, used == 0 ? 0 : 6 + used * MAP_DELTA_ENCODED_BYTES);
        memset(decoded, 0xa5, sizeof(decoded));
        uint32_t decoded_used;
        assert_int_equal(
            map_page_decode(value.data, value.length_bytes, decoded, &decoded_used), 0);
        assert_int_equal(decoded_used, used);
        assert_memory_equal(decoded, entries, sizeof(entries));
    }
    byte_buffer_free(&value);
}

static void
a_damaged_page_is_refused(void **state)
{
    (void)state;
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    memset(entries, 0, sizeof(entries));
    for (uint32_t index = 3; index < 8; index++) {
        entries[index] = (struct map_entry){ .home = index, .home_generation = 1, .valid = 1 };
    }
    struct byte_buffer value = BYTE_BUFFER_INIT;
    map_page_encode(entries, &value);
    uint32_t used;
    for (size_t bit = 0; bit < value.length_bytes * 8; bit++) {
        value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(map_page_decode(value.data, value.length_bytes, entries, &used), -EUCLEAN);
        value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t length = 1; length < value.length_bytes; length++) {
        assert_int_equal(map_page_decode(value.data, length, entries, &used), -EUCLEAN);
    }
    assert_int_equal(map_page_decode(value.data, value.length_bytes, entries, &used), 0);
    byte_buffer_free(&value);
}

/* Give the page a correct CRC after tampering: what is left is the structure. */
static void
reseal(struct byte_buffer *value)
{
    put_le32(value->data, crc32c(0, value->data + 4, value->length_bytes - 4));
}

static void
a_page_out_of_order_is_refused_by_reader_and_merge(void **state)
{
    (void)state;
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    memset(entries, 0, sizeof(entries));
    entries[4] = (struct map_entry){ .home = 1, .home_generation = 1, .valid = 1 };
    entries[9] = (struct map_entry){ .home = 2, .home_generation = 1, .valid = 1 };
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    map_delta_append(&operand, 1, &entries[4]);
    const uint16_t second_index[] = { 4, 3, MAP_PAGE_ENTRIES, 0xffff };
    for (size_t n = 0; n < ARRAY_SIZE(second_index); n++) {
        struct byte_buffer value = BYTE_BUFFER_INIT;
        map_page_encode(entries, &value);
        put_le16(value.data + 6 + MAP_DELTA_ENCODED_BYTES, second_index[n]);
        reseal(&value);
        static struct map_entry decoded[MAP_PAGE_ENTRIES];
        uint32_t used;
        assert_int_equal(map_page_decode(value.data, value.length_bytes, decoded, &used), -EUCLEAN);
        assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data,
                                      operand.length_bytes),
                         -EUCLEAN);
        byte_buffer_free(&value);
    }
    byte_buffer_free(&operand);
}

/* Random operands of every length class, folded one by one and all at once, against an array. */
static void
merging_equals_a_naive_array(void **state)
{
    (void)state;
    struct random random;
    random_seed(&random, 3);
    static struct map_entry model[MAP_PAGE_ENTRIES];
    static struct map_entry decoded[MAP_PAGE_ENTRIES];
    static const uint32_t lengths[] = { 1, 2, 8, 9, 40, 700 };
    for (uint32_t run = 0; run < 60; run++) {
        memset(model, 0, sizeof(model));
        struct byte_buffer stepwise = BYTE_BUFFER_INIT;
        struct byte_buffer at_once = BYTE_BUFFER_INIT;
        struct byte_buffer all_operands = BYTE_BUFFER_INIT;
        uint32_t indexes = run % 3 == 0 ? 6 : MAP_PAGE_ENTRIES;
        for (uint32_t step = 0; step < 12; step++) {
            struct byte_buffer operand = BYTE_BUFFER_INIT;
            uint32_t length = lengths[random_below(&random, ARRAY_SIZE(lengths))];
            bool removing = random_chance(&random, 1, 3);
            for (uint32_t n = 0; n < length; n++) {
                uint32_t index = (uint32_t)random_below(&random, indexes);
                struct map_entry entry = { 0 };
                if (!removing || random_chance(&random, 1, 5)) {
                    entry = random_entry(&random);
                }
                model[index] = entry;
                map_delta_append(&operand, index, &entry);
            }
            assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &stepwise, operand.data,
                                          operand.length_bytes),
                             0);
            byte_buffer_append(&all_operands, operand.data, operand.length_bytes);
            byte_buffer_free(&operand);
            uint32_t used;
            assert_int_equal(
                map_page_decode(stepwise.data, stepwise.length_bytes, decoded, &used), 0);
            assert_memory_equal(decoded, model, sizeof(model));
        }
        assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &at_once, all_operands.data,
                                      all_operands.length_bytes),
                         0);
        assert_int_equal(at_once.length_bytes, stepwise.length_bytes);
        if (at_once.length_bytes > 0) {
            assert_memory_equal(at_once.data, stepwise.data, at_once.length_bytes);
        }
        byte_buffer_free(&all_operands);
        byte_buffer_free(&at_once);
        byte_buffer_free(&stepwise);
    }
}

static void
a_page_that_loses_its_last_entry_is_an_empty_value(void **state)
{
    (void)state;
    struct map_entry entry = { .home = 1, .home_generation = 1, .valid = 1 };
    struct map_entry none = { 0 };
    for (uint32_t deltas = 1; deltas < 20; deltas += 17) { /* both ways of folding */
        struct byte_buffer operand = BYTE_BUFFER_INIT;
        struct byte_buffer value = BYTE_BUFFER_INIT;
        for (uint32_t n = 0; n < deltas; n++) {
            map_delta_append(&operand, n, &entry);
        }
        assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data,
                                      operand.length_bytes),
                         0);
        assert_int_equal(value.length_bytes, 6 + deltas * MAP_DELTA_ENCODED_BYTES);
        byte_buffer_clear(&operand);
        for (uint32_t n = 0; n < deltas; n++) {
            map_delta_append(&operand, n, &none);
        }
        assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data,
                                      operand.length_bytes),
                         0);
        assert_int_equal(value.length_bytes, 0);
        static struct map_entry decoded[MAP_PAGE_ENTRIES];
        uint32_t used = 99;
        assert_int_equal(map_page_decode(value.data, 0, decoded, &used), 0);
        assert_int_equal(used, 0);
        static const uint8_t header[6] = { 0xd2, 0x77, 0x61, 0xf1 }; /* a CRC of two zeroes */
        assert_int_equal(map_page_decode(header, sizeof(header), decoded, &used), -EUCLEAN);
        byte_buffer_free(&value);
        byte_buffer_free(&operand);
    }
}

static void
bad_operands_are_refused(void **state)
{
    (void)state;
    struct map_entry entry = { .home = 1, .home_generation = 1, .valid = 1 };
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    struct byte_buffer value = BYTE_BUFFER_INIT;
    map_delta_append(&operand, 5, &entry);
    assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data, 31), -EUCLEAN);
    assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data, 0), -EUCLEAN);
    assert_int_equal(schema_merge(STORE_FAMILY_SYSTEM, NULL, 0, &value, operand.data, 32),
                     -EUCLEAN);
    put_le16(operand.data, MAP_PAGE_ENTRIES);
    assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data, 32), -EUCLEAN);
    put_le16(operand.data, 5);
    put_le16(operand.data + 2 + 26, 1); /* valid and zero overlap */
    byte_buffer_clear(&value);
    assert_int_equal(schema_merge(STORE_FAMILY_MAP, NULL, 0, &value, operand.data, 32), -EUCLEAN);
    byte_buffer_free(&value);
    byte_buffer_free(&operand);
}

/* ---- extents ---- */

static const struct extent_record extent_example = {
    .owner_branch = 0x0102030405060708, .state = EXTENT_STATE_DATA, .tier = 2, .copy_count = 2,
    .places = { { 3, 70000 }, { 1023, 5 } }, .heat = 99, .used = { 0x8000000000000001 },
};

static void
extents_of_every_size_are_read_back(void **state)
{
    (void)state;
    for (uint32_t grains = 16; grains <= EXTENT_GRAINS_MAX; grains *= 2) {
        struct extent_record record = extent_example;
        record.used[0] = grains == 16 ? 0x8001 : grains == 32 ? 0x80000001 : record.used[0];
        if (grains > 64) {
            record.used[grains / 64 - 1] = UINT64_C(1) << 63;
        }
        struct byte_buffer value = BYTE_BUFFER_INIT;
        extent_record_encode(&record, grains, &value);
        assert_int_equal(value.length_bytes, 20 + 2 * 6 + grains / 8);
        struct extent_record decoded;
        assert_int_equal(extent_record_decode(value.data, value.length_bytes, grains, &decoded), 0);
        assert_memory_equal(&decoded, &record, sizeof(record));
        assert_int_equal(
            extent_record_decode(value.data, value.length_bytes, grains == 16 ? 32 : 16, &decoded),
            -EUCLEAN);
        for (size_t bit = 0; bit < value.length_bytes * 8; bit++) {
            value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(extent_record_decode(value.data, value.length_bytes, grains, &decoded),
                             -EUCLEAN);
            value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        byte_buffer_free(&value);
    }
}

static void
use_bits_are_set_and_cleared(void **state)
{
    (void)state;
    struct random random;
    random_seed(&random, 4);
    struct extent_record record = extent_example;
    memset(record.used, 0, sizeof(record.used));
    uint32_t grains = 256;
    struct byte_buffer value = BYTE_BUFFER_INIT;
    extent_record_encode(&record, grains, &value);
    for (uint32_t round = 0; round < 500; round++) {
        struct byte_buffer operand = BYTE_BUFFER_INIT;
        for (uint32_t n = 0; n < 1 + round % 3; n++) {
            uint32_t first = (uint32_t)random_below(&random, grains);
            uint32_t count = 1 + (uint32_t)random_below(&random, grains - first);
            bool used = random_chance(&random, 1, 2);
            extent_use_append(&operand, used, first, count);
            for (uint32_t grain = first; grain < first + count; grain++) {
                uint64_t bit = UINT64_C(1) << grain % 64;
                record.used[grain / 64] =
                    used ? record.used[grain / 64] | bit : record.used[grain / 64] & ~bit;
            }
        }
        assert_int_equal(schema_merge(STORE_FAMILY_EXTENT, NULL, 0, &value, operand.data,
                                      operand.length_bytes),
                         0);
        struct extent_record decoded;
        assert_int_equal(extent_record_decode(value.data, value.length_bytes, grains, &decoded), 0);
        assert_memory_equal(&decoded, &record, sizeof(record));
        byte_buffer_free(&operand);
    }
    byte_buffer_free(&value);
}

static void
use_of_what_is_not_there(void **state)
{
    (void)state;
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    struct byte_buffer value = BYTE_BUFFER_INIT;
    extent_use_append(&operand, true, 60, 5);
    assert_int_equal(
        schema_merge(STORE_FAMILY_EXTENT, NULL, 0, &value, operand.data, operand.length_bytes), 0);
    assert_int_equal(value.length_bytes, 0); /* an extent that was removed stays removed */
    extent_record_encode(&extent_example, 64, &value);
    assert_int_equal(
        schema_merge(STORE_FAMILY_EXTENT, NULL, 0, &value, operand.data, operand.length_bytes),
        -EUCLEAN); /* beyond its last grain */
    assert_int_equal(schema_merge(STORE_FAMILY_EXTENT, NULL, 0, &value, operand.data, 4), -EUCLEAN);
    byte_buffer_free(&value);
    byte_buffer_free(&operand);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_has_the_bytes_of_the_format),
        cmocka_unit_test(an_entry_that_breaks_an_invariant_is_refused),
        cmocka_unit_test(keys_sort_as_their_numbers),
        cmocka_unit_test(pages_of_every_fill_are_read_back),
        cmocka_unit_test(a_damaged_page_is_refused),
        cmocka_unit_test(a_page_out_of_order_is_refused_by_reader_and_merge),
        cmocka_unit_test(merging_equals_a_naive_array),
        cmocka_unit_test(a_page_that_loses_its_last_entry_is_an_empty_value),
        cmocka_unit_test(bad_operands_are_refused),
        cmocka_unit_test(extents_of_every_size_are_read_back),
        cmocka_unit_test(use_bits_are_set_and_cleared),
        cmocka_unit_test(use_of_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
