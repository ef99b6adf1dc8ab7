/* SPDX-License-Identifier: Apache-2.0 */
/* Every record of a store, family by family in order of keys. Shared by check and dump only. */
#ifndef METADATA_RECORD_WALK_IMPL_H
#define METADATA_RECORD_WALK_IMPL_H

#include "metadata/store.h"

struct record_walk;
typedef void record_walk_item_fn(struct record_walk *walk, const struct store_batch_item *item);
/* The rest of `family`, behind `last_key`, cannot be read (-errno); the next family follows. */
typedef void record_walk_failed_fn(struct record_walk *walk, enum store_family family,
                                   const uint8_t *last_key, uint32_t last_key_bytes, int error);

struct record_walk {
    struct io_op op; /* result: 0 or -ECANCELED */
    struct store *store;
    const struct store_snapshot *snapshot; /* NULL: as of now, which must not change meanwhile */
    record_walk_item_fn *item;
    record_walk_failed_fn *failed;
    size_t step_bytes; /* of one scan; 0: the default */
    uint64_t rest_ns;  /* between two scans; 0: none */
    const bool *cancel; /* NULL, or becomes true: ends behind this scan, with -ECANCELED */
    /* Its own. */
    struct timer timer;
    struct store_scan scan;
    uint8_t last_key[STORE_KEY_BYTES_MAX];
    uint32_t last_key_bytes;
};

/* Asynchronous; on a reactor. */
void record_walk(struct record_walk *walk);

#endif
