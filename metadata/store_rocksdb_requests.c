/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the RocksDB store. Each becomes a job in the request's own memory (`driver`):
 * commits, snapshots and the ballast on the committer's one thread, in the order of submission
 * (M3); gets and scans on the readers, so that fetching a page never waits behind an fsync.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"
#include "metadata/store_rocksdb_impl.h"

/* What `driver` of each request holds. */
struct request {
    struct offload_job job;
    struct store_rocksdb *store;
    void *owner;
};
_Static_assert(sizeof(struct request) <= sizeof(((struct store_get *)0)->driver), "fits");
_Static_assert(sizeof(struct request) <= sizeof(((struct store_scan *)0)->driver), "fits");
_Static_assert(sizeof(struct request) <= sizeof(((struct store_commit *)0)->driver), "fits");
_Static_assert(sizeof(struct request) <= sizeof(((struct store_snapshot *)0)->driver), "fits");
_Static_assert(sizeof(struct request) <= sizeof(((struct store_ballast *)0)->driver), "fits");

static struct store_rocksdb *
store_of(struct store *store)
{
    ASSERT(store->ops == &store_rocksdb_ops);
    return container_of(store, struct store_rocksdb, store);
}

static struct request *
request_of(struct offload_job *job)
{
    return container_of(job, struct request, job);
}

int
store_rocksdb_error(const char *text)
{
    ASSERT(text != NULL);
    if (strstr(text, "No space left") != NULL) {
        return -ENOSPC;
    }
    if (strncmp(text, "Corruption", strlen("Corruption")) == 0) {
        return -EUCLEAN;
    }
    return -EIO;
}

/* Log, free and translate RocksDB's error text; NULL is success. */
static int
take_error(const struct store_rocksdb *store, const char *what, char *text)
{
    if (text == NULL) {
        return 0;
    }
    int result = store_rocksdb_error(text);
    log_error("store", "%s: %s failed: %s", store->directory, what, text);
    rocksdb_free(text);
    return result;
}

/* Free and translate RocksDB's error text of a read, and log it, but not without end. */
static int
take_read_error(struct store_rocksdb *store, char *text)
{
    ASSERT(text != NULL);
    int result = store_rocksdb_error(text);
    log_error_limited(&store->read_errors, "store", "%s: read failed: %s", store->directory, text);
    rocksdb_free(text);
    return result;
}

static void
submit(struct store_rocksdb *store, struct offload *to, void *driver, void *owner,
       struct io_op *op, io_op_done_fn *done, offload_fn *work)
{
    struct reactor *reactor = reactor_self();
    ASSERT(reactor != NULL);
    ASSERT(op->done != NULL);
    op->reactor_id = reactor_id(reactor);
    struct request *request = driver;
    memset(request, 0, sizeof(*request));
    request->store = store;
    request->owner = owner;
    request->job.op.done = done;
    offload_submit(to, &request->job, work);
}

/* ---- get ---- */

static int32_t
get_exact(struct store_rocksdb *store, struct store_get *get)
{
    char *text = NULL;
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned_cf(store->database, store->read_point, store->families[get->family],
                              (const char *)get->key, get->key_bytes, &text);
    if (text != NULL) {
        return take_read_error(store, text);
    }
    if (slice == NULL) {
        return -ENOENT;
    }
    size_t value_bytes;
    const char *value = rocksdb_pinnableslice_value(slice, &value_bytes);
    byte_buffer_append(&get->value, value, value_bytes);
    rocksdb_pinnableslice_destroy(slice);
    return 0;
}

/* Copy key and value of the iterator's position, if it begins with the wanted prefix. */
static int32_t
get_floor_take(const rocksdb_iterator_t *iterator, struct store_get *get)
{
    size_t key_bytes;
    const char *key = rocksdb_iter_key(iterator, &key_bytes);
    if (store_is_witness(key, key_bytes)) {
        return -ENOENT; /* the smallest of its prefix: nothing is before it */
    }
    if (key_bytes < get->floor_prefix_bytes || key_bytes > sizeof(get->ret_key)
        || memcmp(key, get->key, get->floor_prefix_bytes) != 0) {
        return -ENOENT;
    }
    memcpy(get->ret_key, key, key_bytes);
    get->ret_key_bytes = (uint32_t)key_bytes;
    size_t value_bytes;
    const char *value = rocksdb_iter_value(iterator, &value_bytes);
    byte_buffer_append(&get->value, value, value_bytes);
    return 0;
}

/* The key in front of the iterator's position, if it has the wanted prefix, too. */
static void
get_previous_take(rocksdb_iterator_t *iterator, struct store_get *get)
{
    rocksdb_iter_prev(iterator);
    if (!rocksdb_iter_valid(iterator)) {
        return;
    }
    size_t key_bytes;
    const char *key = rocksdb_iter_key(iterator, &key_bytes);
    if (!store_is_witness(key, key_bytes) && key_bytes >= get->floor_prefix_bytes
        && key_bytes <= sizeof(get->ret_previous_key)
        && memcmp(key, get->key, get->floor_prefix_bytes) == 0) {
        memcpy(get->ret_previous_key, key, key_bytes);
        get->ret_previous_key_bytes = (uint32_t)key_bytes;
    }
}

static int32_t
get_floor(struct store_rocksdb *store, struct store_get *get)
{
    bool within_prefix = get->family == STORE_FAMILY_MAP
        && get->floor_prefix_bytes == STORE_MAP_PREFIX_BYTES
        && get->key_bytes >= STORE_MAP_PREFIX_BYTES;
    rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(
        store->database, within_prefix ? store->read_prefix : store->read_total,
        store->families[get->family]);
    rocksdb_iter_seek_for_prev(iterator, (const char *)get->key, get->key_bytes);
    int32_t result = -ENOENT;
    if (rocksdb_iter_valid(iterator)) {
        result = get_floor_take(iterator, get);
    }
    if (result == 0 && get->previous) {
        get_previous_take(iterator, get);
    }
    char *text = NULL;
    rocksdb_iter_get_error(iterator, &text);
    if (text != NULL) {
        result = take_read_error(store, text);
    }
    rocksdb_iter_destroy(iterator);
    return result;
}

static int32_t
get_work(struct offload_job *job)
{
    struct request *request = request_of(job);
    struct store_get *get = request->owner;
    byte_buffer_clear(&get->value);
    get->ret_previous_key_bytes = 0;
    return get->floor ? get_floor(request->store, get) : get_exact(request->store, get);
}

static void
get_done(struct io_op *op)
{
    struct store_get *get = request_of(container_of(op, struct offload_job, op))->owner;
    reactor_complete(&get->op, op->result);
}

static void
rocksdb_get_request(struct store *base, struct store_get *get)
{
    struct store_rocksdb *store = store_of(base);
    ASSERT_OP((uint32_t)get->family, <, (uint32_t)STORE_FAMILY_COUNT);
    ASSERT(get->key_bytes > 0 && get->key_bytes <= STORE_KEY_BYTES_MAX);
    ASSERT(!get->floor || get->floor_prefix_bytes <= get->key_bytes);
    ASSERT(!get->previous || get->floor);
    submit(store, store->readers, get->driver, get, &get->op, get_done, get_work);
}

/* ---- scan ---- */

/* The first key behind all keys that begin with the prefix. False: there is none. */
static bool
prefix_end(const uint8_t *prefix, uint32_t prefix_bytes, uint8_t *end, uint32_t *end_bytes)
{
    while (prefix_bytes > 0 && prefix[prefix_bytes - 1] == 0xff) {
        prefix_bytes--;
    }
    if (prefix_bytes == 0) {
        return false;
    }
    memcpy(end, prefix, prefix_bytes);
    end[prefix_bytes - 1]++;
    *end_bytes = prefix_bytes;
    return true;
}

static int32_t
scan_collect(rocksdb_iterator_t *iterator, struct store_scan *scan)
{
    for (; rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        size_t key_bytes;
        size_t value_bytes;
        const char *key = rocksdb_iter_key(iterator, &key_bytes);
        const char *value = rocksdb_iter_value(iterator, &value_bytes);
        if (store_is_witness(key, key_bytes)) {
            continue;
        }
        if (key_bytes == 0 || key_bytes > STORE_KEY_BYTES_MAX
            || value_bytes > STORE_VALUE_BYTES_MAX) {
            return -EUCLEAN; /* a foreign database: we write no such keys */
        }
        if (scan->items.length_bytes > 0 && scan->items.length_bytes >= scan->bytes_max) {
            scan->ret_more = true;
            memcpy(scan->ret_next, key, key_bytes);
            scan->ret_next_bytes = (uint32_t)key_bytes;
            return 0;
        }
        store_batch_put(&scan->items, scan->family, key, key_bytes, value, value_bytes);
    }
    return 0;
}

static int32_t
scan_work(struct offload_job *job)
{
    struct request *request = request_of(job);
    struct store_rocksdb *store = request->store;
    struct store_scan *scan = request->owner;
    byte_buffer_clear(&scan->items);
    scan->ret_more = false;
    scan->ret_next_bytes = 0;

    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_total_order_seek(options, 1);
    rocksdb_readoptions_set_fill_cache(options, 0); /* pages of hosts stay cached */
    if (scan->snapshot != NULL) {
        rocksdb_readoptions_set_snapshot(options, scan->snapshot->handle);
    }
    uint8_t end[STORE_KEY_BYTES_MAX];
    uint32_t end_bytes;
    if (prefix_end(scan->prefix, scan->prefix_bytes, end, &end_bytes)) {
        rocksdb_readoptions_set_iterate_upper_bound(options, (const char *)end, end_bytes);
    }
    rocksdb_iterator_t *iterator =
        rocksdb_create_iterator_cf(store->database, options, store->families[scan->family]);
    bool has_start = scan->start_bytes > 0
        && memcmp(scan->start, scan->prefix, MIN(scan->start_bytes, scan->prefix_bytes)) >= 0;
    if (has_start) {
        rocksdb_iter_seek(iterator, (const char *)scan->start, scan->start_bytes);
    } else {
        rocksdb_iter_seek(iterator, (const char *)scan->prefix, scan->prefix_bytes);
    }
    int32_t result = scan_collect(iterator, scan);
    char *text = NULL;
    rocksdb_iter_get_error(iterator, &text);
    if (text != NULL) {
        result = take_error(store, "scan", text);
    }
    rocksdb_iter_destroy(iterator);
    rocksdb_readoptions_destroy(options);
    return result;
}

static void
scan_done(struct io_op *op)
{
    struct store_scan *scan = request_of(container_of(op, struct offload_job, op))->owner;
    reactor_complete(&scan->op, op->result);
}

static void
rocksdb_scan_request(struct store *base, struct store_scan *scan)
{
    struct store_rocksdb *store = store_of(base);
    ASSERT_OP((uint32_t)scan->family, <, (uint32_t)STORE_FAMILY_COUNT);
    ASSERT(scan->prefix_bytes <= STORE_KEY_BYTES_MAX && scan->start_bytes <= STORE_KEY_BYTES_MAX);
    ASSERT(scan->snapshot == NULL || scan->snapshot->handle != NULL);
    submit(store, store->readers, scan->driver, scan, &scan->op, scan_done, scan_work);
}

/* ---- commit ---- */

static int
batch_build(const struct store_rocksdb *store, const struct byte_buffer *batch,
            rocksdb_writebatch_t *to)
{
    size_t position = 0;
    struct store_batch_item item;
    int more;
    while ((more = store_batch_next(batch->data, batch->length_bytes, &position, &item)) == 1) {
        rocksdb_column_family_handle_t *family = store->families[item.family];
        const char *key = (const char *)item.key;
        const char *value = (const char *)item.value;
        switch (item.operation) {
        case STORE_PUT:
            rocksdb_writebatch_put_cf(to, family, key, item.key_bytes, value, item.value_bytes);
            break;
        case STORE_DELETE:
            rocksdb_writebatch_delete_cf(to, family, key, item.key_bytes);
            break;
        case STORE_MERGE:
            rocksdb_writebatch_merge_cf(to, family, key, item.key_bytes, value, item.value_bytes);
            break;
        }
    }
    return more;
}

static void
batch_witness(struct store_rocksdb *store, rocksdb_writebatch_t *to)
{
    uint8_t range[STORE_WITNESS_RANGE_BYTES];
    put_le64(range, ++store->batches);
    put_le64(range + sizeof(uint64_t), store->batches);
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        rocksdb_writebatch_merge_cf(to, store->families[family], STORE_WITNESS_KEY,
                                    STORE_WITNESS_KEY_BYTES, (const char *)range, sizeof(range));
    }
}

static int32_t
commit_work(struct offload_job *job)
{
    struct request *request = request_of(job);
    struct store_rocksdb *store = request->store;
    const struct store_commit *commit = request->owner;
    if (store->read_only) {
        return -EROFS;
    }
    if (store->is_broken) {
        return -EIO;
    }
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    int result = batch_build(store, commit->batch, batch);
    if (result == 0) {
        batch_witness(store, batch);
        rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
        rocksdb_writeoptions_set_sync(options, commit->sync);
        char *text = NULL;
        rocksdb_write(store->database, options, batch, &text);
        result = take_error(store, "commit", text);
        rocksdb_writeoptions_destroy(options);
    }
    rocksdb_writebatch_destroy(batch);
    if (result != 0) {
        store->is_broken = true;
    }
    return result;
}

static void
commit_done(struct io_op *op)
{
    struct store_commit *commit = request_of(container_of(op, struct offload_job, op))->owner;
    reactor_complete(&commit->op, op->result);
}

static void
rocksdb_commit_request(struct store *base, struct store_commit *commit)
{
    struct store_rocksdb *store = store_of(base);
    ASSERT(commit->batch != NULL);
    submit(store, store->committer, commit->driver, commit, &commit->op, commit_done, commit_work);
}

/* ---- snapshots ---- */

static int32_t
snapshot_create_work(struct offload_job *job)
{
    struct request *request = request_of(job);
    struct store_snapshot *snapshot = request->owner;
    snapshot->handle = (void *)(uintptr_t)rocksdb_create_snapshot(request->store->database);
    return snapshot->handle != NULL ? 0 : -EIO;
}

static int32_t
snapshot_release_work(struct offload_job *job)
{
    struct request *request = request_of(job);
    struct store_snapshot *snapshot = request->owner;
    rocksdb_release_snapshot(request->store->database, snapshot->handle);
    snapshot->handle = NULL;
    return 0;
}

static void
snapshot_done(struct io_op *op)
{
    struct store_snapshot *snapshot = request_of(container_of(op, struct offload_job, op))->owner;
    reactor_complete(&snapshot->op, op->result);
}

static void
rocksdb_snapshot_create_request(struct store *base, struct store_snapshot *snapshot)
{
    struct store_rocksdb *store = store_of(base);
    ASSERT(snapshot->handle == NULL);
    submit(store, store->committer, snapshot->driver, snapshot, &snapshot->op, snapshot_done,
           snapshot_create_work);
}

static void
rocksdb_snapshot_release_request(struct store *base, struct store_snapshot *snapshot)
{
    struct store_rocksdb *store = store_of(base);
    ASSERT(snapshot->handle != NULL);
    submit(store, store->committer, snapshot->driver, snapshot, &snapshot->op, snapshot_done,
           snapshot_release_work);
}

/* ---- ballast ---- */

static int32_t
ballast_work(struct offload_job *job)
{
    struct request *request = request_of(job);
    const struct store_rocksdb *store = request->store;
    struct store_ballast *ballast = request->owner;
    ballast->ret_held_bytes = 0;
    if (store->read_only) {
        return -EROFS;
    }
    return store_ballast_set(store->directory, ballast->hold ? store->ballast_bytes : 0,
                             &ballast->ret_held_bytes);
}

static void
ballast_done(struct io_op *op)
{
    struct store_ballast *ballast = request_of(container_of(op, struct offload_job, op))->owner;
    reactor_complete(&ballast->op, op->result);
}

static void
rocksdb_ballast_request(struct store *base, struct store_ballast *ballast)
{
    struct store_rocksdb *store = store_of(base);
    submit(store, store->committer, ballast->driver, ballast, &ballast->op, ballast_done,
           ballast_work);
}

/* ---- control ---- */

static uint64_t
rocksdb_size_bytes(struct store *base)
{
    const struct store_rocksdb *store = store_of(base);
    DIR *directory = opendir(store->directory);
    if (directory == NULL) {
        return 0;
    }
    uint64_t total_bytes = 0;
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        struct stat st;
        if (fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0
            && S_ISREG(st.st_mode)) {
            total_bytes += (uint64_t)st.st_blocks * 512;
        }
    }
    closedir(directory);
    return total_bytes;
}

const struct store_ops store_rocksdb_ops = {
    .type = "rocksdb",
    .get = rocksdb_get_request,
    .scan = rocksdb_scan_request,
    .commit = rocksdb_commit_request,
    .snapshot_create = rocksdb_snapshot_create_request,
    .snapshot_release = rocksdb_snapshot_release_request,
    .ballast = rocksdb_ballast_request,
    .close = store_rocksdb_close,
    .size_bytes = rocksdb_size_bytes,
};
