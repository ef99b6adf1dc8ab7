/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash_table.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    BUCKET_COUNT_MIN = 16
};

static struct hash_node **
buckets_allocate(size_t bucket_count)
{
    struct hash_node **buckets = calloc(bucket_count, sizeof(struct hash_node *));
    ASSERT(buckets != NULL);
    return buckets;
}

void
hash_table_init(struct hash_table *table, size_t expected_count)
{
    size_t bucket_count = BUCKET_COUNT_MIN;
    while (bucket_count < expected_count) {
        bucket_count *= 2;
    }
    table->buckets = buckets_allocate(bucket_count);
    table->bucket_count = bucket_count;
    table->count = 0;
}

void
hash_table_free(struct hash_table *table)
{
    free(table->buckets);
    *table = (struct hash_table){ 0 };
}

static void
hash_table_grow(struct hash_table *table)
{
    size_t bucket_count = table->bucket_count * 2;
    struct hash_node **buckets = buckets_allocate(bucket_count);

    for (size_t i = 0; i < table->bucket_count; i++) {
        struct hash_node *node = table->buckets[i];
        while (node != NULL) {
            struct hash_node *next = node->next;
            struct hash_node **bucket = &buckets[node->hash & (bucket_count - 1)];
            node->next = *bucket;
            *bucket = node;
            node = next;
        }
    }
    free(table->buckets);
    table->buckets = buckets;
    table->bucket_count = bucket_count;
}

void
hash_table_insert(struct hash_table *table, struct hash_node *node, uint64_t hash)
{
    if (table->count >= table->bucket_count) {
        hash_table_grow(table);
    }
    struct hash_node **bucket = &table->buckets[hash & (table->bucket_count - 1)];
    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    table->count++;
}

void
hash_table_remove(struct hash_table *table, struct hash_node *node)
{
    struct hash_node **link = &table->buckets[node->hash & (table->bucket_count - 1)];
    while (*link != node) {
        ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = node->next;
    node->next = NULL;
    ASSERT_OP(table->count, >, 0u);
    table->count--;
}
