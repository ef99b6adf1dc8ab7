/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_tree.h"

#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_memory.h"

struct sim_tree {
    uint32_t references;
    uint64_t priority;
    uint64_t bytes; /* of the whole subtree */
    struct sim_tree_entry *entry;
    struct sim_tree *left;
    struct sim_tree *right;
};

/* ---- entries and nodes ---- */

static int
key_compare(const struct sim_tree_entry *entry, const void *key, uint32_t key_bytes)
{
    int order = memcmp(entry->key, key, MIN(entry->key_bytes, key_bytes));
    if (order != 0) {
        return order;
    }
    return entry->key_bytes < key_bytes ? -1 : entry->key_bytes > key_bytes;
}

static uint64_t
bytes_hash(uint64_t seed, const uint8_t *data, uint32_t length_bytes)
{
    uint64_t hash = hash_u64(seed + length_bytes);
    uint32_t at = 0;
    for (; at + 8 <= length_bytes; at += 8) {
        uint64_t word;
        memcpy(&word, data + at, sizeof(word));
        hash = hash_u64(hash ^ word);
    }
    uint64_t tail = 0;
    if (at < length_bytes) {
        memcpy(&tail, data + at, length_bytes - at);
    }
    return hash_u64(hash ^ tail);
}

static void
entry_put(struct sim_tree_entry *entry)
{
    if (--entry->references == 0) {
        sim_release(entry);
    }
}

struct sim_tree *
sim_tree_get(struct sim_tree *root)
{
    if (root != NULL) {
        root->references++;
    }
    return root;
}

void
sim_tree_put(struct sim_tree *root)
{
    if (root == NULL || --root->references > 0) {
        return;
    }
    sim_tree_put(root->left);
    sim_tree_put(root->right);
    entry_put(root->entry);
    sim_release(root);
}

/* Takes over `left` and `right`; shares `entry`. */
static struct sim_tree *
node_make(struct sim_tree_entry *entry, uint64_t priority, struct sim_tree *left,
          struct sim_tree *right)
{
    struct sim_tree *node = sim_allocate_raw(sizeof(*node));
    entry->references++;
    *node = (struct sim_tree){
        .references = 1,
        .priority = priority,
        .bytes =
            sim_tree_bytes(left) + sim_tree_bytes(right) + entry->key_bytes + entry->value_bytes,
        .entry = entry,
        .left = left,
        .right = right,
    };
    return node;
}

/* Which of two nodes stands above: a total order, so that equal hashes do no harm. */
static bool
stands_above(uint64_t priority, const struct sim_tree_entry *entry, const struct sim_tree *node)
{
    if (priority != node->priority) {
        return priority > node->priority;
    }
    return key_compare(node->entry, entry->key, entry->key_bytes) > 0;
}

/* ---- updates ---- */

/* The entries below and above the key of `at`, which is not in the tree. */
static void
tree_split(struct sim_tree *node, const struct sim_tree_entry *at, struct sim_tree **ret_below,
           struct sim_tree **ret_above)
{
    if (node == NULL) {
        *ret_below = NULL;
        *ret_above = NULL;
        return;
    }
    struct sim_tree *below;
    struct sim_tree *above;
    if (key_compare(node->entry, at->key, at->key_bytes) < 0) {
        tree_split(node->right, at, &below, &above);
        *ret_below = node_make(node->entry, node->priority, sim_tree_get(node->left), below);
        *ret_above = above;
    } else {
        tree_split(node->left, at, &below, &above);
        *ret_below = below;
        *ret_above = node_make(node->entry, node->priority, above, sim_tree_get(node->right));
    }
}

static struct sim_tree *
tree_insert(struct sim_tree *node, struct sim_tree_entry *entry, uint64_t priority)
{
    if (node == NULL) {
        return node_make(entry, priority, NULL, NULL);
    }
    int order = key_compare(node->entry, entry->key, entry->key_bytes);
    if (order == 0) {
        return node_make(entry, priority, sim_tree_get(node->left), sim_tree_get(node->right));
    }
    if (stands_above(priority, entry, node)) {
        struct sim_tree *below;
        struct sim_tree *above;
        tree_split(node, entry, &below, &above);
        return node_make(entry, priority, below, above);
    }
    struct sim_tree *left = node->left;
    struct sim_tree *right = node->right;
    if (order > 0) {
        left = tree_insert(left, entry, priority);
        right = sim_tree_get(right);
    } else {
        right = tree_insert(right, entry, priority);
        left = sim_tree_get(left);
    }
    return node_make(node->entry, node->priority, left, right);
}

struct sim_tree *
sim_tree_insert(struct sim_tree *root, const void *key, uint32_t key_bytes, const void *value,
                uint32_t value_bytes, bool damaged)
{
    ASSERT(key_bytes > 0 && key_bytes <= SIM_TREE_KEY_BYTES_MAX);
    struct sim_tree_entry *entry = sim_allocate_raw(sizeof(*entry) + value_bytes);
    entry->references = 1;
    entry->damaged = damaged;
    entry->key_bytes = key_bytes;
    entry->value_bytes = value_bytes;
    memcpy(entry->key, key, key_bytes);
    if (value_bytes > 0) {
        memcpy(entry->value, value, value_bytes);
    }
    struct sim_tree *result = tree_insert(root, entry, bytes_hash(0, entry->key, entry->key_bytes));
    entry_put(entry);
    return result;
}

/* Everything in `below` is less than everything in `above`; takes over both. */
static struct sim_tree *
tree_join(struct sim_tree *below, struct sim_tree *above)
{
    if (below == NULL || above == NULL) {
        return below == NULL ? above : below;
    }
    struct sim_tree *joined;
    if (stands_above(below->priority, below->entry, above)) {
        joined = node_make(below->entry, below->priority, sim_tree_get(below->left),
                           tree_join(sim_tree_get(below->right), above));
        sim_tree_put(below);
    } else {
        joined = node_make(above->entry, above->priority,
                           tree_join(below, sim_tree_get(above->left)), sim_tree_get(above->right));
        sim_tree_put(above);
    }
    return joined;
}

/* The key is in the tree. */
static struct sim_tree *
tree_remove(struct sim_tree *node, const void *key, uint32_t key_bytes)
{
    ASSERT(node != NULL);
    int order = key_compare(node->entry, key, key_bytes);
    if (order == 0) {
        return tree_join(sim_tree_get(node->left), sim_tree_get(node->right));
    }
    if (order > 0) {
        return node_make(node->entry, node->priority, tree_remove(node->left, key, key_bytes),
                         sim_tree_get(node->right));
    }
    return node_make(node->entry, node->priority, sim_tree_get(node->left),
                     tree_remove(node->right, key, key_bytes));
}

struct sim_tree *
sim_tree_remove(struct sim_tree *root, const void *key, uint32_t key_bytes)
{
    if (sim_tree_find(root, key, key_bytes) == NULL) {
        return sim_tree_get(root);
    }
    return tree_remove(root, key, key_bytes);
}

/* ---- look-ups ---- */

const struct sim_tree_entry *
sim_tree_find(const struct sim_tree *root, const void *key, uint32_t key_bytes)
{
    const struct sim_tree_entry *entry = sim_tree_floor(root, key, key_bytes, false);
    return entry != NULL && key_compare(entry, key, key_bytes) == 0 ? entry : NULL;
}

const struct sim_tree_entry *
sim_tree_floor(const struct sim_tree *root, const void *key, uint32_t key_bytes, bool below)
{
    const struct sim_tree_entry *best = NULL;
    while (root != NULL) {
        int order = key_compare(root->entry, key, key_bytes);
        if (order < 0 || (order == 0 && !below)) {
            best = root->entry;
            root = root->right;
        } else {
            root = root->left;
        }
    }
    return best;
}

const struct sim_tree_entry *
sim_tree_ceiling(const struct sim_tree *root, const void *key, uint32_t key_bytes, bool above)
{
    const struct sim_tree_entry *best = NULL;
    while (root != NULL) {
        int order = key_compare(root->entry, key, key_bytes);
        if (order > 0 || (order == 0 && !above)) {
            best = root->entry;
            root = root->left;
        } else {
            root = root->right;
        }
    }
    return best;
}

uint64_t
sim_tree_bytes(const struct sim_tree *root)
{
    return root == NULL ? 0 : root->bytes;
}

uint64_t
sim_tree_hash(const struct sim_tree *root)
{
    if (root == NULL) {
        return 0;
    }
    const struct sim_tree_entry *entry = root->entry;
    uint64_t hash = bytes_hash(entry->damaged, entry->key, entry->key_bytes);
    hash = bytes_hash(hash, entry->value, entry->value_bytes);
    return hash + sim_tree_hash(root->left) + sim_tree_hash(root->right);
}
