/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the store_rocksdb*.c files only. */
#ifndef METADATA_STORE_ROCKSDB_IMPL_H
#define METADATA_STORE_ROCKSDB_IMPL_H

#include <rocksdb/c.h>

#include "io/offload.h"
#include "metadata/store.h"

struct store_rocksdb {
    struct store store;
    char *directory;
    bool read_only;
    uint64_t ballast_bytes; /* as configured */

    rocksdb_t *database;
    rocksdb_column_family_handle_t *families[STORE_FAMILY_COUNT];
    rocksdb_options_t *options[STORE_FAMILY_COUNT];
    rocksdb_readoptions_t *read_point;  /* exact keys */
    rocksdb_readoptions_t *read_prefix; /* iterators that stay within one page (MAP only) */
    rocksdb_readoptions_t *read_total;  /* iterators over any range */

    struct offload *committer; /* one thread: M3 */
    struct offload *readers;
    bool is_broken; /* M4; touched by the committer's thread only, and by close() after its end */
};

enum {
    STORE_MAP_PREFIX_BYTES = 16, /* branch and page: what floor look-ups stay within */
};

extern const struct store_ops store_rocksdb_ops;

/* store_ops.close; frees `base`. */
void store_rocksdb_close(struct store *base);

/* -errno for RocksDB's error text. */
int store_rocksdb_error(const char *text);

/* ---- the ballast file (store_rocksdb_ballast.c); any thread, blocking ---- */

/* Take or give back; `*ret_held_bytes` also after a failure. 0, -ENOSPC or -errno. */
int store_ballast_set(const char *directory, uint64_t wanted_bytes, uint64_t *ret_held_bytes);

#endif
