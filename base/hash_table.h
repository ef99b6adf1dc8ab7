/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive chained hash table over 64-bit hashes. The caller embeds a hash_node, computes the hash
 * of its key (base/util.h hash_u64) and compares keys itself. The bucket array doubles when there
 * are more nodes than buckets, so that the mean chain stays below one; a table that is given its
 * final size never allocates again. Not thread safe.
 */
#ifndef BASE_HASH_TABLE_H
#define BASE_HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct hash_node {
    struct hash_node *next;
    uint64_t hash;
};

struct hash_table {
    struct hash_node **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
};

void hash_table_init(struct hash_table *table, size_t expected_count);
/* Nodes are not touched: the caller empties the table first, or frees its nodes by other means. */
void hash_table_free(struct hash_table *table);
void hash_table_insert(struct hash_table *table, struct hash_node *node, uint64_t hash);
/* `node` must be in the table. */
void hash_table_remove(struct hash_table *table, struct hash_node *node);

/* First node of the chain in which a node of this hash would be; walk `next`, compare `hash`. */
static inline struct hash_node *
hash_table_chain(const struct hash_table *table, uint64_t hash)
{
    return table->buckets[hash & (table->bucket_count - 1)];
}

#endif
