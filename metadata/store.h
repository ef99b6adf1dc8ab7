/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata store: an ordered map from keys to values, in families, with atomic durable batches.
 *
 * Two implementations: store_rocksdb.c, and the simulator's (tests/sim/store_sim.c), which loses
 * uncommitted batches at a simulated power cut. Everything is asynchronous and answers on the
 * calling reactor; RocksDB runs on its own threads.
 *
 * Keys are big-endian so that they sort as their numbers do (schema.h builds them). A value may be
 * changed by merge operands, small deltas that are folded on read by schema_merge().
 *
 * Invariants
 *  M1  A commit is atomic: after a crash all of its operations are there, or none.
 *  M2  When a commit with `sync` completes with 0, it and all before it survive power loss.
 *  M3  Commits take effect in the order of submission. A get or scan submitted after a commit
 *      completed sees it.
 *  M4  After any failed commit the store is broken: every later commit fails with -EIO until it is
 *      reopened. A failed fsync is never retried.
 */
#ifndef METADATA_STORE_H
#define METADATA_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/error.h"
#include "io/reactor.h"

struct store;
struct store_snapshot;

enum store_family {
    STORE_FAMILY_SYSTEM, /* pool, disks, volumes, exports, counters: small, read at open */
    STORE_FAMILY_EXTENT, /* extent records: places and use bits; read at open */
    STORE_FAMILY_MAP,    /* volume map pages: fetched one by one */
    STORE_FAMILY_HISTORY, /* when page versions came, for what deletes and compares snapshots */
    STORE_FAMILY_COUNT
};

enum store_operation {
    STORE_PUT = 1,
    STORE_DELETE = 2,
    STORE_MERGE = 3,
};

enum {
    STORE_KEY_BYTES_MAX = 64,
    STORE_VALUE_BYTES_MAX = 1 << 20,
};

/* ---- batches: also the payload of ledger records, so this encoding is an on-disk format ---- */

/*
 * A sequence of {u8 operation, u8 family, le16 key length, le32 value length, key, value}. A batch
 * is a byte_buffer: concatenating two batches gives the batch that does the one and then the other.
 */
void store_batch_put(struct byte_buffer *batch, enum store_family family, const void *key,
                     size_t key_bytes, const void *value, size_t value_bytes);
void store_batch_delete(struct byte_buffer *batch, enum store_family family, const void *key,
                        size_t key_bytes);
void store_batch_merge(struct byte_buffer *batch, enum store_family family, const void *key,
                       size_t key_bytes, const void *operand, size_t operand_bytes);

struct store_batch_item {
    enum store_operation operation;
    enum store_family family;
    const uint8_t *key;
    uint32_t key_bytes;
    const uint8_t *value;
    uint32_t value_bytes;
};

/*
 * Decode the item at *position and move behind it. Returns 1 for an item, 0 at the end, -EBADMSG
 * for foreign bytes that are no batch (P12).
 */
int store_batch_next(const void *batch, size_t batch_bytes, size_t *position,
                     struct store_batch_item *ret_item);

/* ---- requests; embedded in their owners ---- */

struct store_get {
    struct io_op op; /* result: 0, -ENOENT, -EIO, -EUCLEAN (fails its checksum) */
    enum store_family family;
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes;
    struct byte_buffer value; /* filled; the owner frees it */
    /*
     * Instead of an exact key: the greatest key <= `key` that shares its first `floor_prefix_bytes`
     * bytes (page versions: newest generation not above the wanted one). ret_key tells which.
     */
    bool floor;
    uint32_t floor_prefix_bytes;
    uint8_t ret_key[STORE_KEY_BYTES_MAX];
    uint32_t ret_key_bytes;
    /* With `floor`: the next smaller key of the same prefix, too; 0 bytes: there is none. */
    bool previous;
    uint8_t ret_previous_key[STORE_KEY_BYTES_MAX];
    uint32_t ret_previous_key_bytes;
    void *driver[16];
};

struct store_scan {
    struct io_op op; /* result: 0 or -errno */
    enum store_family family;
    uint8_t prefix[STORE_KEY_BYTES_MAX]; /* all keys that begin with it, in order ... */
    uint32_t prefix_bytes;
    uint8_t start[STORE_KEY_BYTES_MAX]; /* ... from this key on (0 bytes: from the first) */
    uint32_t start_bytes;
    size_t bytes_max; /* stop when about this much has been collected; at least one item comes */
    /* As of this snapshot (created, not yet released); NULL: as of now. */
    const struct store_snapshot *snapshot;
    /* Filled: a batch of PUTs; the owner frees it. After a failure: what came before it. */
    struct byte_buffer items;
    bool ret_more; /* stopped early: go on with start = ret_next, the first key not returned */
    uint8_t ret_next[STORE_KEY_BYTES_MAX];
    uint32_t ret_next_bytes;
    void *driver[16];
};

struct store_commit {
    struct io_op op; /* result: 0 or -errno (see M4) */
    const struct byte_buffer *batch; /* stays valid until done() */
    bool sync;
    void *driver[16];
};

/*
 * A view of all families as of one commit, while commits go on. Both calls are asynchronous and
 * take their place in the order of commits: the view has every commit submitted before the creation
 * and none submitted after it. `op` serves both. Release: no scan that uses it is in flight.
 */
struct store_snapshot {
    struct io_op op; /* result: 0 or -errno */
    void *handle;    /* the store's; NULL: not created */
    void *driver[16];
};

/*
 * Space that is kept on the database's own device for the day on which it is full (DESIGN 4.3).
 * With `hold`, take it (again); without, give it back, so that commits which free space can be
 * written. Asynchronous. A store without a device of its own answers 0 and holds nothing.
 */
struct store_ballast {
    struct io_op op; /* result: 0; -ENOSPC: no room to take it again; or -errno */
    bool hold;
    uint64_t ret_held_bytes; /* afterwards */
    void *driver[16];
};

/* Fold `operand` into `value` (which may be empty: key absent). 0 or -EUCLEAN. Pure. */
typedef int store_merge_fn(enum store_family family, const uint8_t *key, size_t key_bytes,
                           struct byte_buffer *value, const uint8_t *operand,
                           size_t operand_bytes);

struct store_ops {
    const char *type; /* "rocksdb", "simulated" */
    void (*get)(struct store *store, struct store_get *get);
    void (*scan)(struct store *store, struct store_scan *scan);
    void (*commit)(struct store *store, struct store_commit *commit);
    void (*snapshot_create)(struct store *store, struct store_snapshot *snapshot);
    void (*snapshot_release)(struct store *store, struct store_snapshot *snapshot);
    void (*ballast)(struct store *store, struct store_ballast *ballast);
    /* control. Nothing in flight. Flushes and closes cleanly. */
    void (*close)(struct store *store);
    /* control. Bytes on its device, for status and reserve decisions. */
    uint64_t (*size_bytes)(struct store *store);
};

/* Implementations embed this as their first member. */
struct store {
    const struct store_ops *ops;
};

static inline void
store_get(struct store *store, struct store_get *get)
{
    store->ops->get(store, get);
}

static inline void
store_scan(struct store *store, struct store_scan *scan)
{
    store->ops->scan(store, scan);
}

static inline void
store_commit(struct store *store, struct store_commit *commit)
{
    store->ops->commit(store, commit);
}

static inline void
store_snapshot_create(struct store *store, struct store_snapshot *snapshot)
{
    store->ops->snapshot_create(store, snapshot);
}

static inline void
store_snapshot_release(struct store *store, struct store_snapshot *snapshot)
{
    store->ops->snapshot_release(store, snapshot);
}

static inline void
store_ballast(struct store *store, struct store_ballast *ballast)
{
    store->ops->ballast(store, ballast);
}

#define STORE_BALLAST_BYTES_DEFAULT (UINT64_C(64) << 20)

struct store_rocksdb_options {
    const char *directory;
    bool create;       /* must not exist; otherwise must exist */
    bool read_only;    /* for check and dump of a live or dead database; never writes */
    uint64_t cache_bytes;
    /* Taken at open when there is room, given back when opening needs it; 0: none. See
     * store_ballast(). */
    uint64_t ballast_bytes;
    store_merge_fn *merge;
};

/* control (blocks for recovery). -ENOENT, -EEXIST, -EUCLEAN (damaged; `error` says what). */
int store_rocksdb_open(const struct store_rocksdb_options *options, struct store **ret_store,
                       struct error *error);

#endif
