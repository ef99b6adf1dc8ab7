/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A persistent ordered map: the content of a simulated metadata store.
 *
 * A treap whose priorities are hashes of the keys, so that its shape depends on its content only.
 * Nodes are never changed: an update makes new nodes on the path to the key and returns a new root
 * that shares the rest. A root is an owned reference; NULL is the empty map.
 */
#ifndef TESTS_SIM_SIM_TREE_H
#define TESTS_SIM_SIM_TREE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SIM_TREE_KEY_BYTES_MAX = 65 /* a family and a key */
};

/* The content of an entry; shared by reference. */
struct sim_tree_entry {
    uint32_t references;
    bool damaged; /* a merge failed: reads fail with -EUCLEAN */
    uint32_t key_bytes;
    uint32_t value_bytes;
    uint8_t key[SIM_TREE_KEY_BYTES_MAX];
    uint8_t value[];
};

struct sim_tree;

struct sim_tree *sim_tree_get(struct sim_tree *root);
void sim_tree_put(struct sim_tree *root);

/* The new map; `root` stays as it is and keeps its references. */
struct sim_tree *sim_tree_insert(struct sim_tree *root, const void *key, uint32_t key_bytes,
                                 const void *value, uint32_t value_bytes, bool damaged);
struct sim_tree *sim_tree_remove(struct sim_tree *root, const void *key, uint32_t key_bytes);

/* NULL when there is none. Valid as long as a root that has it. */
const struct sim_tree_entry *sim_tree_find(const struct sim_tree *root, const void *key,
                                           uint32_t key_bytes);
/* The greatest entry <= key, or < key with `below`. */
const struct sim_tree_entry *sim_tree_floor(const struct sim_tree *root, const void *key,
                                            uint32_t key_bytes, bool below);
/* The least entry >= key, or > key with `above`. */
const struct sim_tree_entry *sim_tree_ceiling(const struct sim_tree *root, const void *key,
                                              uint32_t key_bytes, bool above);

/* Keys and values. */
uint64_t sim_tree_bytes(const struct sim_tree *root);
/* Equal for equal content. */
uint64_t sim_tree_hash(const struct sim_tree *root);

#endif
