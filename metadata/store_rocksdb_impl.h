/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the store_rocksdb*.c files only. */
#ifndef METADATA_STORE_ROCKSDB_IMPL_H
#define METADATA_STORE_ROCKSDB_IMPL_H

#include <rocksdb/c.h>
#include <string.h>

#include "base/log.h"
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
    struct log_limit read_errors; /* a damaged table fails each read, as often as a host asks */
    bool is_broken; /* M4; touched by the committer's thread only, and by close() after its end */
    uint64_t batches; /* written so far; the same thread's */
};

enum {
    STORE_MAP_PREFIX_BYTES = 16, /* branch and page: what floor look-ups stay within */
};

/*
 * In every family: le64 number of the last batch. Each batch merges {le64 first, le64 last}, its
 * number twice, into it, which folds only onto the number before. So a family that has lost batches
 * in the middle does not fold, and one that has lost its last ones differs from the others. The key
 * is as long as the prefix that MAP wants of any key, and no record's.
 */
#define STORE_WITNESS_KEY "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

enum {
    STORE_WITNESS_KEY_BYTES = sizeof(STORE_WITNESS_KEY), /* the NUL is part of it */
    STORE_WITNESS_RANGE_BYTES = 16,
};
_Static_assert((int)STORE_WITNESS_KEY_BYTES == (int)STORE_MAP_PREFIX_BYTES, "has a prefix");

static inline bool
store_is_witness(const char *key, size_t key_bytes)
{
    return key_bytes == STORE_WITNESS_KEY_BYTES
        && memcmp(key, STORE_WITNESS_KEY, STORE_WITNESS_KEY_BYTES) == 0;
}

extern const struct store_ops store_rocksdb_ops;

/* store_ops.close; frees `base`. */
void store_rocksdb_close(struct store *base);

/* -errno for RocksDB's error text. */
int store_rocksdb_error(const char *text);

/* ---- the ballast file (store_rocksdb_ballast.c); any thread, blocking ---- */

/* Take or give back; `*ret_held_bytes` also after a failure. 0, -ENOSPC or -errno. */
int store_ballast_set(const char *directory, uint64_t wanted_bytes, uint64_t *ret_held_bytes);

#endif
