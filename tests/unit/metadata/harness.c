/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/metadata/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/schema.h"

int
harness_start(void **state)
{
    struct harness *harness = calloc(1, sizeof(*harness));
    struct error error = { 0 };
    ASSERT(harness != NULL);
    if (platform_uring_create("/dev/shm", &harness->platform, &error) != 0) {
        fprintf(stderr, "%s\n", error.message);
        return -1;
    }
    struct reactor_options options = { .id = 0, .spin_us_max = 20, .cpu = -1 };
    if (reactor_create(harness->platform, &options, &harness->reactor, &error) != 0) {
        fprintf(stderr, "%s\n", error.message);
        return -1;
    }
    snprintf(harness->directory, sizeof(harness->directory), "/dev/shm/volmgr-metadata-XXXXXX");
    ASSERT(mkdtemp(harness->directory) != NULL);
    *state = harness;
    return 0;
}

int
harness_stop(void **state)
{
    struct harness *harness = *state;
    reactor_pass(harness->reactor, false, 0); /* the last nudge */
    reactor_destroy(harness->reactor);
    platform_uring_destroy(harness->platform);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", harness->directory);
    int status = system(command);
    free(harness);
    return status;
}

/* ---- one operation ---- */

struct call {
    struct message message;
    harness_start_fn *start;
    void *argument;
};

static void
call_deliver(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    call->start(call->argument);
    free(call);
}

/* A message to oneself, so that the pass that saw the completion does not go to sleep after it. */
static struct message nudge;
static bool nudge_sent;

static void
nudge_deliver(struct message *message)
{
    (void)message;
    nudge_sent = false;
}

/* The mark that harness_collect() looks for. */
static void
call_done(struct io_op *op)
{
    op->reactor_id = UINT32_MAX;
    if (!nudge_sent) {
        nudge_sent = true;
        reactor_send(reactor_self(), &nudge, nudge_deliver);
    }
}

void
harness_submit(struct harness *harness, struct io_op *op, harness_start_fn *start, void *argument)
{
    struct call *call = calloc(1, sizeof(*call));
    ASSERT(call != NULL);
    op->done = call_done;
    op->reactor_id = 0;
    call->start = start;
    call->argument = argument;
    reactor_send(harness->reactor, &call->message, call_deliver);
}

int
harness_collect(struct harness *harness, struct io_op *op)
{
    while (op->reactor_id != UINT32_MAX) {
        reactor_pass(harness->reactor, true, 5 * NS_PER_MS);
    }
    return op->result;
}

int
harness_await(struct harness *harness, struct io_op *op, harness_start_fn *start, void *argument)
{
    harness_submit(harness, op, start, argument);
    return harness_collect(harness, op);
}

void
harness_idle(struct harness *harness, uint64_t duration_ns)
{
    uint64_t end_ns = harness->platform->ops->monotonic_ns(harness->platform) + duration_ns;
    while (harness->platform->ops->monotonic_ns(harness->platform) < end_ns) {
        reactor_pass(harness->reactor, true, NS_PER_MS);
    }
}

const char *
harness_path(struct harness *harness, const char *name)
{
    static char paths[4][256];
    static uint32_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", harness->directory, name);
    return path;
}

/* ---- disks ---- */

struct backend *
harness_backend(struct harness *harness, const char *spec)
{
    struct backend *backend = NULL;
    struct error error = { 0 };
    int result = backend_open(harness->platform, harness->reactor, spec, 0, &backend, &error);
    if (result != 0) {
        fprintf(stderr, "%s: %s\n", spec, error.message);
    }
    ASSERT_OP(result, ==, 0);
    return backend;
}

struct transfer {
    struct backend *backend;
    struct backend_io io;
};

static void
start_transfer(void *argument)
{
    struct transfer *transfer = argument;
    backend_submit(transfer->backend, &transfer->io);
}

int
harness_transfer(struct harness *harness, struct backend *backend, enum backend_io_kind kind,
                 uint64_t offset_bytes, void *data, uint64_t length_bytes)
{
    struct transfer *transfer = calloc(1, sizeof(*transfer));
    ASSERT(transfer != NULL);
    struct iovec iov = { .iov_base = data, .iov_len = length_bytes };
    bool has_payload = kind == BACKEND_READ || kind == BACKEND_WRITE;
    transfer->backend = backend;
    transfer->io.kind = kind;
    transfer->io.offset_bytes = offset_bytes;
    transfer->io.length_bytes = length_bytes;
    transfer->io.iov = has_payload ? &iov : NULL;
    transfer->io.iov_count = has_payload ? 1 : 0;
    int result = harness_await(harness, &transfer->io.op, start_transfer, transfer);
    free(transfer);
    return result;
}

void
harness_patch(struct harness *harness, struct backend *backend, uint64_t offset_bytes,
              const void *bytes, size_t length_bytes)
{
    uint64_t start = align_down(offset_bytes, 4096);
    uint64_t end = align_up(offset_bytes + length_bytes, 4096);
    uint8_t *memory = aligned_alloc(4096, end - start);
    ASSERT(memory != NULL);
    int result = harness_transfer(harness, backend, BACKEND_READ, start, memory, end - start);
    ASSERT_OP(result, ==, 0);
    memcpy(memory + (offset_bytes - start), bytes, length_bytes);
    result = harness_transfer(harness, backend, BACKEND_WRITE, start, memory, end - start);
    ASSERT_OP(result, ==, 0);
    free(memory);
}

/* ---- the store ---- */

int
harness_store_open(struct harness *harness, const char *name, bool create, bool read_only,
                   struct store **ret_store)
{
    struct store_rocksdb_options options = {
        .directory = harness_path(harness, name),
        .create = create,
        .read_only = read_only,
        .cache_bytes = 8 * MIB,
        .merge = schema_merge,
    };
    struct error error = { 0 };
    int result = store_rocksdb_open(&options, ret_store, &error);
    ASSERT((result == 0) == (error.message[0] == '\0'));
    ASSERT(result == 0 || result == error.code);
    return result;
}

struct request {
    struct store *store;
    void *request;
};

static void
start_get(void *argument)
{
    struct request *request = argument;
    store_get(request->store, request->request);
}

int
harness_get(struct harness *harness, struct store *store, enum store_family family,
            const void *key, size_t key_bytes, struct byte_buffer *ret_value)
{
    struct store_get *get = calloc(1, sizeof(*get));
    ASSERT(get != NULL && key_bytes <= sizeof(get->key));
    get->family = family;
    memcpy(get->key, key, key_bytes);
    get->key_bytes = (uint32_t)key_bytes;
    struct request request = { store, get };
    int result = harness_await(harness, &get->op, start_get, &request);
    byte_buffer_free(ret_value);
    *ret_value = get->value;
    free(get);
    return result;
}

static void
start_commit(void *argument)
{
    struct request *request = argument;
    store_commit(request->store, request->request);
}

int
harness_commit(struct harness *harness, struct store *store, struct byte_buffer *batch, bool sync)
{
    struct store_commit commit = { .batch = batch, .sync = sync };
    struct request request = { store, &commit };
    int result = harness_await(harness, &commit.op, start_commit, &request);
    byte_buffer_free(batch);
    return result;
}

static void
start_scan(void *argument)
{
    struct request *request = argument;
    store_scan(request->store, request->request);
}

int
harness_scan(struct harness *harness, struct store *store, enum store_family family,
             const struct store_snapshot *snapshot, size_t bytes_max,
             struct byte_buffer *ret_items)
{
    struct store_scan scan = { .family = family, .bytes_max = bytes_max, .snapshot = snapshot };
    struct request request = { store, &scan };
    int result;
    byte_buffer_clear(ret_items);
    do {
        result = harness_await(harness, &scan.op, start_scan, &request);
        byte_buffer_append(ret_items, scan.items.data, scan.items.length_bytes);
        memcpy(scan.start, scan.ret_next, scan.ret_next_bytes);
        scan.start_bytes = scan.ret_next_bytes;
    } while (result == 0 && scan.ret_more);
    byte_buffer_free(&scan.items);
    return result;
}
