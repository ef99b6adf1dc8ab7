/* SPDX-License-Identifier: Apache-2.0 */
/* Lists, hash tables, byte buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/byte_buffer.h"
#include "base/hash_table.h"
#include "base/list.h"
#include "base/random.h"
#include "base/util.h"

/* ---- list ---- */

struct item {
    int value;
    struct list link;
};

static void
expect_list(struct list *head, const int *values, size_t count)
{
    size_t at = 0;
    list_for_each(head, node) {
        assert_true(at < count);
        assert_int_equal(list_entry(node, struct item, link)->value, values[at]);
        assert_ptr_equal(node->next->prev, node);
        at++;
    }
    assert_int_equal(at, count);
}

static void
test_list_order(void **state)
{
    (void)state;
    struct list head;
    struct item items[5] = { { .value = 0 },
                             { .value = 1 },
                             { .value = 2 },
                             { .value = 3 },
                             { .value = 4 } };
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_first(&head, struct item, link));
    assert_null(list_pop_front(&head));
    assert_false(list_linked(&items[0].link)); /* zeroed */

    list_push_back(&head, &items[1].link);
    list_push_back(&head, &items[2].link);
    list_push_front(&head, &items[0].link);
    list_insert_before(&items[2].link, &items[4].link);
    expect_list(&head, (const int[]){ 0, 1, 4, 2 }, 4);
    assert_true(list_linked(&items[4].link));

    list_remove(&items[4].link);
    assert_false(list_linked(&items[4].link));
    list_remove(&items[4].link); /* of an initialised node that is on no list: no effect */
    expect_list(&head, (const int[]){ 0, 1, 2 }, 3);
    assert_ptr_equal(list_first(&head, struct item, link), &items[0]);
    assert_ptr_equal(list_pop_front(&head), &items[0].link);
    expect_list(&head, (const int[]){ 1, 2 }, 2);
}

static void
test_list_splice_and_safe_walk(void **state)
{
    (void)state;
    struct list a;
    struct list b;
    struct item items[4] = { { .value = 0 }, { .value = 1 }, { .value = 2 }, { .value = 3 } };
    list_init(&a);
    list_init(&b);
    list_splice_back(&a, &b);
    assert_true(list_empty(&a) && list_empty(&b));
    list_push_back(&b, &items[0].link);
    list_push_back(&b, &items[1].link);
    list_splice_back(&a, &b);
    assert_true(list_empty(&b));
    list_push_back(&b, &items[2].link);
    list_push_back(&b, &items[3].link);
    list_splice_back(&a, &b);
    expect_list(&a, (const int[]){ 0, 1, 2, 3 }, 4);

    list_for_each_safe(&a, node) {
        if (list_entry(node, struct item, link)->value % 2 == 0) {
            list_remove(node);
        }
    }
    expect_list(&a, (const int[]){ 1, 3 }, 2);
}

/* ---- hash table ---- */

struct entry {
    struct hash_node node;
    uint64_t key;
    bool present;
};

static struct entry *
find(const struct hash_table *table, uint64_t key)
{
    uint64_t hash = hash_u64(key);
    for (struct hash_node *node = hash_table_chain(table, hash); node != NULL; node = node->next) {
        struct entry *entry = container_of(node, struct entry, node);
        if (node->hash == hash && entry->key == key) {
            return entry;
        }
    }
    return NULL;
}

static void
test_hash_table_against_flags(void **state)
{
    (void)state;
    enum {
        KEYS = 3000,
        STEPS = 20000
    };
    struct entry *entries = calloc(KEYS, sizeof(*entries));
    struct hash_table table;
    struct random random;
    size_t count = 0;

    hash_table_init(&table, 0); /* grows many times */
    random_seed(&random, 5);
    for (size_t i = 0; i < KEYS; i++) {
        entries[i].key = i * 4096; /* multiples, as block numbers are */
    }
    for (int step = 0; step < STEPS; step++) {
        struct entry *entry = &entries[random_below(&random, KEYS)];
        if (entry->present) {
            hash_table_remove(&table, &entry->node);
            count--;
        } else {
            hash_table_insert(&table, &entry->node, hash_u64(entry->key));
            count++;
        }
        entry->present = !entry->present;
        assert_int_equal(table.count, count);
        struct entry *probe = &entries[random_below(&random, KEYS)];
        assert_ptr_equal(find(&table, probe->key), probe->present ? probe : NULL);
    }
    assert_true(table.count <= table.bucket_count);
    assert_true(is_power_of_two(table.bucket_count));
    hash_table_free(&table);
    free(entries);
}

static void
test_hash_table_equal_hashes(void **state)
{
    (void)state;
    struct hash_table table;
    struct hash_node nodes[3];
    hash_table_init(&table, 100);
    assert_true(table.bucket_count >= 100);
    for (int i = 0; i < 3; i++) {
        hash_table_insert(&table, &nodes[i], 42);
    }
    hash_table_remove(&table, &nodes[1]); /* from the middle of a chain */
    size_t seen = 0;
    for (struct hash_node *node = hash_table_chain(&table, 42); node != NULL; node = node->next) {
        assert_ptr_not_equal(node, &nodes[1]);
        seen++;
    }
    assert_int_equal(seen, 2);
    hash_table_free(&table);
}

/* ---- byte buffer ---- */

static void
test_byte_buffer(void **state)
{
    (void)state;
    struct byte_buffer buffer = BYTE_BUFFER_INIT;
    byte_buffer_append(&buffer, "ab", 2);
    byte_buffer_append(&buffer, NULL, 0);
    byte_buffer_append_u8(&buffer, 'c');
    byte_buffer_append_le16(&buffer, 0x0201);
    byte_buffer_append_le32(&buffer, 0x06050403);
    byte_buffer_append_le64(&buffer, UINT64_C(0x0e0d0c0b0a090807));
    byte_buffer_append_format(&buffer, "-%d-%s", 42, "x");
    static const char expected[] = "abc\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"
                                   "-42-x";
    assert_int_equal(buffer.length_bytes, sizeof(expected) - 1);
    assert_memory_equal(buffer.data, expected, sizeof(expected) - 1);

    uint8_t *data = buffer.data;
    byte_buffer_clear(&buffer);
    assert_int_equal(buffer.length_bytes, 0);
    byte_buffer_append(&buffer, "z", 1);
    assert_ptr_equal(buffer.data, data); /* the memory was kept */
    byte_buffer_free(&buffer);
    assert_null(buffer.data);
    byte_buffer_append(&buffer, "again", 5); /* usable after free */
    assert_memory_equal(buffer.data, "again", 5);
    byte_buffer_free(&buffer);
}

static void
test_byte_buffer_growth(void **state)
{
    (void)state;
    struct byte_buffer buffer = BYTE_BUFFER_INIT;
    for (uint32_t i = 0; i < 100000; i++) {
        byte_buffer_append_le32(&buffer, i);
    }
    for (uint32_t i = 0; i < 100000; i++) {
        uint32_t value;
        memcpy(&value, buffer.data + 4 * (size_t)i, 4);
        assert_int_equal(value, i);
    }
    size_t length = buffer.length_bytes;
    uint8_t *room = byte_buffer_reserve(&buffer, 1000000);
    memset(room, 1, 1000000);
    assert_int_equal(buffer.length_bytes, length);
    assert_ptr_equal(byte_buffer_extend(&buffer, 10), room);
    assert_int_equal(buffer.length_bytes, length + 10);
    byte_buffer_free(&buffer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_order),
        cmocka_unit_test(test_list_splice_and_safe_walk),
        cmocka_unit_test(test_hash_table_against_flags),
        cmocka_unit_test(test_hash_table_equal_hashes),
        cmocka_unit_test(test_byte_buffer),
        cmocka_unit_test(test_byte_buffer_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
