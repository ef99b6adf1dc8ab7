/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking transfers of the control path, by turning the loop of a reactor by hand.
 *
 * Each transfer lives on the heap with its own copy of the data: when the deadline passes, the
 * caller gets -ETIMEDOUT and may go on, while the operation keeps its memory until it ends (B2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/backend.h"
#include "base/assert.h"
#include "base/util.h"
#include "io/platform.h"

enum {
    SYNC_BYTES_MAX = 1 << 20,
    SYNC_PASS_NS = 1000000, /* longest sleep of a pass; completions end it at once */
    SYNC_MEMORY_ALIGNMENT_BYTES = 4096,
};

struct sync_transfer {
    struct backend_io io;
    struct backend *backend;
    struct message message;
    struct iovec iov;
    bool ended;
    bool overdue;
    bool abandoned; /* nobody waits any more: free it at its end */
};

static void
sync_free(struct sync_transfer *transfer)
{
    free(transfer->iov.iov_base);
    free(transfer);
}

static void
sync_done(struct io_op *op)
{
    struct sync_transfer *transfer = container_of(op, struct sync_transfer, io.op);
    ASSERT(!transfer->ended);
    transfer->ended = true;
    if (transfer->abandoned) {
        sync_free(transfer);
    }
}

static void
sync_overdue(struct backend_io *io)
{
    struct sync_transfer *transfer = container_of(io, struct sync_transfer, io);
    ASSERT(!transfer->ended);
    transfer->overdue = true;
}

static void
sync_submit(struct message *message)
{
    struct sync_transfer *transfer = container_of(message, struct sync_transfer, message);
    transfer->io.op.done = sync_done;
    transfer->io.overdue = sync_overdue;
    backend_submit(transfer->backend, &transfer->io);
}

static struct sync_transfer *
sync_create(struct backend *backend, enum backend_io_kind kind, uint64_t offset_bytes,
            uint64_t length_bytes, bool with_memory)
{
    struct sync_transfer *transfer = calloc(1, sizeof(*transfer));
    if (transfer == NULL) {
        return NULL;
    }
    transfer->backend = backend;
    transfer->io.kind = kind;
    transfer->io.offset_bytes = offset_bytes;
    transfer->io.length_bytes = length_bytes;
    if (with_memory) {
        size_t alignment =
            MAX(backend->properties.memory_alignment_bytes, (uint32_t)SYNC_MEMORY_ALIGNMENT_BYTES);
        transfer->iov.iov_base = aligned_alloc(alignment, align_up(length_bytes, alignment));
        if (transfer->iov.iov_base == NULL) {
            free(transfer);
            return NULL;
        }
        transfer->iov.iov_len = length_bytes;
        transfer->io.iov = &transfer->iov;
        transfer->io.iov_count = 1;
    }
    return transfer;
}

/* One submission. `data` is NULL for kinds without payload. */
static int
sync_one(struct reactor *pump, struct backend *backend, enum backend_io_kind kind,
         uint64_t offset_bytes, void *data, uint64_t length_bytes)
{
    struct sync_transfer *transfer =
        sync_create(backend, kind, offset_bytes, length_bytes, data != NULL);
    if (transfer == NULL) {
        return -ENOMEM;
    }
    if (kind == BACKEND_WRITE) {
        memcpy(transfer->iov.iov_base, data, length_bytes);
    }
    reactor_send(pump, &transfer->message, sync_submit);
    while (!transfer->ended && !transfer->overdue) {
        reactor_pass(pump, true, SYNC_PASS_NS);
    }
    if (!transfer->ended) {
        transfer->abandoned = true;
        return -ETIMEDOUT;
    }
    int result = transfer->io.op.result;
    if (result == 0 && kind == BACKEND_READ) {
        memcpy(data, transfer->iov.iov_base, length_bytes);
    }
    sync_free(transfer);
    return result;
}

int
backend_sync_io(struct reactor *pump, struct backend *backend, enum backend_io_kind kind,
                uint64_t offset_bytes, void *data, uint64_t length_bytes)
{
    bool payload = kind == BACKEND_READ || kind == BACKEND_WRITE;
    ASSERT(reactor_self() != pump);
    ASSERT(payload == (data != NULL));

    if (!payload) {
        return sync_one(pump, backend, kind, offset_bytes, NULL, length_bytes);
    }
    for (uint64_t at = 0; at < length_bytes;) {
        uint64_t bytes = MIN(length_bytes - at, (uint64_t)SYNC_BYTES_MAX);
        int result = sync_one(pump, backend, kind, offset_bytes + at, (char *)data + at, bytes);
        if (result < 0) {
            return result;
        }
        at += bytes;
    }
    return 0;
}
