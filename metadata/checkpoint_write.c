/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a checkpoint. One thing happens at a time:
 *
 *   SNAPSHOT -> COMMIT (its number) -> SCAN <-> WRITE (a full buffer, or a part's header)
 *                                        -> FLUSH (every disk) -> RELEASE -> done
 *
 * After a failure the rest is skipped, up to RELEASE.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "io/platform.h"
#include "metadata/checkpoint_impl.h"

/* What follows the transfer in progress. */
enum after_transfer {
    AFTER_BUFFER, /* place the frame that did not fit, or end the part */
    AFTER_HEADER, /* the next part, or the flushes */
};

struct writer_transfer {
    struct backend_io io;
    struct iovec iov;
    struct writer *writer;
    uint32_t copy;
};

struct writer {
    struct checkpoint_write *write;
    struct reactor *reactor;
    int32_t result; /* the first failure */
    struct store_snapshot snapshot;
    struct store_scan scan;
    bool scan_ended;
    struct timer timer;

    struct checkpoint_header header; /* of the current part */
    uint64_t next_frame;
    uint8_t *good; /* per part: bit per copy */

    uint8_t *buffer; /* CHECKPOINT_BUFFER_BYTES, aligned */
    uint64_t buffer_bytes;
    uint8_t *header_block;

    enum after_transfer after;
    struct writer_transfer transfers[EXTENT_COPIES_MAX];
    const uint8_t *transfer_data;
    uint64_t transfer_bytes;
    uint64_t transfer_offset; /* in the part */
    uint32_t waiting;
    uint32_t flush_part; /* next place to flush, or the one that is being flushed */
    uint32_t flush_copy;
    bool flushing;
};

static void writer_scan(struct writer *writer);
static void writer_place_frame(struct writer *writer);
static void writer_flush_next(struct writer *writer);

static const struct checkpoint_part *
current_part(const struct writer *writer)
{
    ASSERT_OP(writer->header.part, <, writer->write->part_count);
    return &writer->write->parts[writer->header.part];
}

/* ---- the end ---- */

static void
writer_free(struct writer *writer)
{
    byte_buffer_free(&writer->scan.items);
    free(writer->good);
    free(writer->buffer);
    free(writer->header_block);
    free(writer);
}

static void
writer_end(struct writer *writer)
{
    struct checkpoint_write *write = writer->write;
    int32_t result = writer->result;
    write->driver = NULL;
    writer_free(writer);
    reactor_complete(&write->op, result);
}

static void
writer_released(struct io_op *op)
{
    struct writer *writer =
        container_of(container_of(op, struct store_snapshot, op), struct writer, snapshot);
    if (writer->result == 0 && op->result < 0) {
        writer->result = op->result;
    }
    writer_end(writer);
}

static void
writer_finish(struct writer *writer, int32_t result)
{
    if (writer->result == 0) {
        writer->result = result;
    }
    if (writer->snapshot.handle == NULL) {
        writer_end(writer);
        return;
    }
    writer->snapshot.op.done = writer_released;
    store_snapshot_release(writer->write->store, &writer->snapshot);
}

/* ---- flush ---- */

static void
writer_complete(struct writer *writer)
{
    struct checkpoint_write *write = writer->write;
    write->ret_commit = writer->header.commit;
    write->ret_item_count = writer->header.item_count;
    write->ret_part_count = writer->header.part + 1;
    write->ret_copies_min = EXTENT_COPIES_MAX;
    for (uint32_t part = 0; part < write->ret_part_count; part++) {
        uint32_t copies = (uint32_t)__builtin_popcount(writer->good[part]);
        write->ret_copies_min = MIN(write->ret_copies_min, copies);
    }
    for (uint32_t copy = 0; copy < write->parts[0].copy_count; copy++) {
        if ((writer->good[0] & 1u << copy) != 0) {
            write->ret_first[write->ret_first_count++] = write->parts[0].copies[copy].place;
        }
    }
    writer_finish(writer, write->ret_copies_min == 0 ? -EIO : 0);
}

static void
writer_flush_done(struct io_op *op)
{
    struct writer_transfer *transfer =
        container_of(container_of(op, struct backend_io, op), struct writer_transfer, io);
    struct writer *writer = transfer->writer;
    const struct checkpoint_write *write = writer->write;
    const struct backend *backend =
        write->parts[writer->flush_part].copies[writer->flush_copy].backend;
    writer->flushing = false;
    for (uint32_t part = 0; part <= writer->header.part && op->result < 0; part++) {
        for (uint32_t copy = 0; copy < write->parts[part].copy_count; copy++) {
            if (write->parts[part].copies[copy].backend == backend) {
                writer->good[part] &= (uint8_t)~(1u << copy);
            }
        }
    }
    writer->flush_copy++;
    writer_flush_next(writer);
}

/* Whether an earlier place of the list is on the same backend, so that it has been flushed. */
static bool
writer_has_flushed(const struct writer *writer, const struct backend *backend)
{
    const struct checkpoint_write *write = writer->write;
    for (uint32_t part = 0; part <= writer->flush_part; part++) {
        for (uint32_t copy = 0; copy < write->parts[part].copy_count; copy++) {
            if (part == writer->flush_part && copy == writer->flush_copy) {
                return false;
            }
            if (write->parts[part].copies[copy].backend == backend) {
                return true;
            }
        }
    }
    return false;
}

static void
writer_flush_next(struct writer *writer)
{
    const struct checkpoint_write *write = writer->write;
    for (; writer->flush_part <= writer->header.part;
         writer->flush_part++, writer->flush_copy = 0) {
        const struct checkpoint_part *part = &write->parts[writer->flush_part];
        for (; writer->flush_copy < part->copy_count; writer->flush_copy++) {
            struct backend *backend = part->copies[writer->flush_copy].backend;
            if (writer_has_flushed(writer, backend)) {
                continue;
            }
            struct writer_transfer *transfer = &writer->transfers[0];
            memset(&transfer->io, 0, sizeof(transfer->io));
            transfer->io.op.done = writer_flush_done;
            transfer->io.kind = BACKEND_FLUSH;
            writer->flushing = true;
            backend_submit(backend, &transfer->io);
            return;
        }
    }
    writer_complete(writer);
}

/* ---- transfers to all good copies of the part ---- */

static void
writer_after_transfer(struct writer *writer)
{
    if (writer->good[writer->header.part] == 0) {
        writer_finish(writer, -EIO);
        return;
    }
    if (writer->after == AFTER_BUFFER) {
        writer->buffer_bytes = 0;
        writer_place_frame(writer);
        return;
    }
    if (writer->scan_ended) {
        writer_flush_next(writer);
        return;
    }
    writer->header.part++;
    writer->header.first_frame = writer->next_frame;
    writer->header.frame_count = 0;
    writer->header.used_bytes = CHECKPOINT_BLOCK_BYTES;
    writer_place_frame(writer);
}

static void
writer_transfer_done(struct io_op *op)
{
    struct writer_transfer *transfer =
        container_of(container_of(op, struct backend_io, op), struct writer_transfer, io);
    struct writer *writer = transfer->writer;
    ASSERT((writer->waiting & 1u << transfer->copy) != 0);
    if (op->result < 0) {
        writer->good[writer->header.part] &= (uint8_t)~(1u << transfer->copy);
    }
    writer->waiting &= ~(1u << transfer->copy);
    if (writer->waiting == 0) {
        writer_after_transfer(writer);
    }
}

static void
writer_transfer_submit(struct writer *writer)
{
    const struct checkpoint_part *part = current_part(writer);
    uint32_t good = writer->good[writer->header.part];
    ASSERT(good != 0);
    writer->waiting = good;
    for (uint32_t copy = 0; copy < part->copy_count; copy++) {
        if ((good & 1u << copy) == 0) {
            continue;
        }
        struct writer_transfer *transfer = &writer->transfers[copy];
        memset(&transfer->io, 0, sizeof(transfer->io));
        transfer->iov = (struct iovec){
            .iov_base = (void *)(uintptr_t)writer->transfer_data,
            .iov_len = writer->transfer_bytes,
        };
        transfer->io.op.done = writer_transfer_done;
        transfer->io.kind = BACKEND_WRITE;
        transfer->io.offset_bytes = part->copies[copy].offset_bytes + writer->transfer_offset;
        transfer->io.length_bytes = writer->transfer_bytes;
        transfer->io.iov = &transfer->iov;
        transfer->io.iov_count = 1;
        backend_submit(part->copies[copy].backend, &transfer->io);
    }
}

static void
writer_throttled(struct timer *timer)
{
    writer_transfer_submit(container_of(timer, struct writer, timer));
}

static void
writer_transfer(struct writer *writer, const uint8_t *data, uint64_t length_bytes,
                uint64_t offset_bytes, enum after_transfer after)
{
    struct checkpoint_write *write = writer->write;
    writer->transfer_data = data;
    writer->transfer_bytes = length_bytes;
    writer->transfer_offset = offset_bytes;
    writer->after = after;
    write->ret_length_bytes += length_bytes;
    uint64_t delay_ns = write->throttle != NULL ? write->throttle(write, length_bytes) : 0;
    if (delay_ns > 0) {
        timer_arm(writer->reactor, &writer->timer, reactor_now_ns(writer->reactor) + delay_ns,
                  writer_throttled);
    } else {
        writer_transfer_submit(writer);
    }
}

/* ---- frames and parts ---- */

static void
places_fill(const struct checkpoint_part *part, struct checkpoint_places *ret_places)
{
    *ret_places = (struct checkpoint_places){ .count = part->copy_count };
    for (uint32_t copy = 0; copy < part->copy_count; copy++) {
        ret_places->places[copy] = part->copies[copy].place;
    }
}

static void
writer_write_buffer(struct writer *writer)
{
    ASSERT(writer->buffer_bytes > 0);
    writer_transfer(writer, writer->buffer, writer->buffer_bytes,
                    writer->header.used_bytes - writer->buffer_bytes, AFTER_BUFFER);
}

/* The part's frames are written; its header makes them a part. */
static void
writer_write_header(struct writer *writer)
{
    const struct checkpoint_write *write = writer->write;
    writer->header.is_last = writer->scan_ended;
    writer->header.next = (struct checkpoint_places){ 0 };
    places_fill(current_part(writer), &writer->header.own);
    if (!writer->scan_ended) {
        if (writer->header.part + 1 == write->part_count) {
            writer->write->ret_part_count = write->part_count;
            writer_finish(writer, -ENOSPC);
            return;
        }
        places_fill(&write->parts[writer->header.part + 1], &writer->header.next);
    }
    checkpoint_header_encode(&writer->header, writer->header_block);
    writer_transfer(writer, writer->header_block, CHECKPOINT_BLOCK_BYTES, 0, AFTER_HEADER);
}

static uint32_t
count_items(const struct byte_buffer *batch)
{
    size_t position = 0;
    struct store_batch_item item;
    uint32_t count = 0;
    while (store_batch_next(batch->data, batch->length_bytes, &position, &item) == 1) {
        count++;
    }
    return count;
}

static void
writer_add_frame(struct writer *writer)
{
    struct byte_buffer *items = &writer->scan.items;
    uint64_t frame_bytes = checkpoint_frame_bytes(items->length_bytes);
    uint8_t *to = writer->buffer + writer->buffer_bytes;
    struct checkpoint_frame frame = {
        .number = writer->next_frame++,
        .item_count = count_items(items),
        .batch_bytes = (uint32_t)items->length_bytes,
    };
    memset(to, 0, frame_bytes);
    memcpy(frame.checkpoint_guid, writer->header.checkpoint_guid, GUID_BYTES);
    memcpy(to + CHECKPOINT_FRAME_HEADER_BYTES, items->data, items->length_bytes);
    checkpoint_frame_encode(&frame, to);
    uint8_t crc[sizeof(frame.crc)];
    put_le32(crc, frame.crc);
    writer->header.stream_crc = crc32c(writer->header.stream_crc, crc, sizeof(crc));
    writer->header.item_count += frame.item_count;
    writer->header.frame_count++;
    writer->header.used_bytes += frame_bytes;
    writer->buffer_bytes += frame_bytes;
    byte_buffer_clear(items);
}

/* Put the scanned items, if there are any, behind the others; write what has no more room. */
static void
writer_place_frame(struct writer *writer)
{
    const struct checkpoint_write *write = writer->write;
    uint64_t frame_bytes = checkpoint_frame_bytes(writer->scan.items.length_bytes);
    bool has_frame = writer->scan.items.length_bytes > 0;
    if (write->cancel) {
        writer_finish(writer, -ECANCELED);
        return;
    }
    if (has_frame && (frame_bytes > CHECKPOINT_BUFFER_BYTES
                      || frame_bytes > write->part_bytes - CHECKPOINT_BLOCK_BYTES)) {
        writer_finish(writer, -EFBIG);
        return;
    }
    bool fits = writer->header.used_bytes + frame_bytes <= write->part_bytes
        && writer->buffer_bytes + frame_bytes <= CHECKPOINT_BUFFER_BYTES;
    if (!has_frame && !writer->scan_ended) {
        writer_scan(writer);
    } else if (has_frame && fits) {
        writer_add_frame(writer);
        writer_scan(writer);
    } else if (writer->buffer_bytes > 0) {
        writer_write_buffer(writer);
    } else {
        writer_write_header(writer); /* the part is full, or the last one complete */
    }
}

/* ---- the store ---- */

static void
writer_scan_done(struct io_op *op)
{
    struct writer *writer =
        container_of(container_of(op, struct store_scan, op), struct writer, scan);
    struct store_scan *scan = &writer->scan;
    if (op->result < 0) {
        writer_finish(writer, op->result);
        return;
    }
    scan->start_bytes = 0;
    if (scan->ret_more) {
        memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
        scan->start_bytes = scan->ret_next_bytes;
    } else if (scan->family + 1 < STORE_FAMILY_COUNT) {
        scan->family++;
    } else {
        scan->prefix_bytes = UINT32_MAX; /* the mark of the end */
    }
    writer_place_frame(writer);
}

static void
writer_scan(struct writer *writer)
{
    struct store_scan *scan = &writer->scan;
    if (scan->prefix_bytes == UINT32_MAX) {
        writer->scan_ended = true;
        writer_place_frame(writer);
        return;
    }
    scan->op.done = writer_scan_done;
    scan->bytes_max = CHECKPOINT_FRAME_BYTES;
    scan->snapshot = &writer->snapshot;
    store_scan(writer->write->store, scan);
}

static void
writer_commit_found(struct io_op *op)
{
    struct writer *writer =
        container_of(container_of(op, struct store_scan, op), struct writer, scan);
    struct store_scan *scan = &writer->scan;
    int32_t result = op->result;
    if (result == 0) {
        size_t position = 0;
        struct store_batch_item item;
        int found = store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item);
        result = found == 1
            ? schema_get_commit(item.value, item.value_bytes, &writer->header.commit)
            : -EUCLEAN;
    }
    if (result != 0) {
        writer_finish(writer, result);
        return;
    }
    byte_buffer_clear(&scan->items);
    scan->prefix_bytes = 0;
    writer_scan(writer);
}

static void
writer_snapshot_done(struct io_op *op)
{
    struct writer *writer =
        container_of(container_of(op, struct store_snapshot, op), struct writer, snapshot);
    struct store_scan *scan = &writer->scan;
    if (op->result < 0) {
        writer_finish(writer, op->result);
        return;
    }
    scan->op.done = writer_commit_found;
    scan->family = STORE_FAMILY_SYSTEM;
    scan->prefix_bytes = schema_key(scan->prefix, SCHEMA_COMMIT);
    scan->bytes_max = 1;
    scan->snapshot = &writer->snapshot;
    store_scan(writer->write->store, scan);
}

/* ---- the beginning ---- */

static struct writer *
writer_create(struct checkpoint_write *write)
{
    struct writer *writer = calloc(1, sizeof(*writer));
    void *buffer = NULL;
    void *block = NULL;
    if (writer == NULL || (writer->good = calloc(write->part_count, 1)) == NULL
        || posix_memalign(&buffer, CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BUFFER_BYTES) != 0
        || posix_memalign(&block, CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BLOCK_BYTES) != 0) {
        free(buffer);
        free(writer != NULL ? writer->good : NULL);
        free(writer);
        return NULL;
    }
    writer->buffer = buffer;
    writer->header_block = block;
    writer->write = write;
    writer->reactor = reactor_self();
    for (uint32_t part = 0; part < write->part_count; part++) {
        writer->good[part] = (uint8_t)((1u << write->parts[part].copy_count) - 1);
    }
    for (uint32_t copy = 0; copy < EXTENT_COPIES_MAX; copy++) {
        writer->transfers[copy].writer = writer;
        writer->transfers[copy].copy = copy;
    }
    struct platform *platform = reactor_platform(writer->reactor);
    memcpy(writer->header.pool_guid, write->pool_guid, GUID_BYTES);
    put_le64(writer->header.checkpoint_guid, platform->ops->random_u64(platform));
    put_le64(writer->header.checkpoint_guid + 8, platform->ops->random_u64(platform));
    writer->header.used_bytes = CHECKPOINT_BLOCK_BYTES;
    return writer;
}

void
checkpoint_write(struct checkpoint_write *write)
{
    struct reactor *reactor = reactor_self();
    ASSERT(reactor != NULL && write->op.done != NULL);
    ASSERT(write->part_count > 0 && is_aligned(write->part_bytes, CHECKPOINT_BLOCK_BYTES));
    ASSERT(write->part_bytes >= EXTENT_BYTES_MIN && write->part_bytes <= EXTENT_BYTES_MAX);
    write->op.reactor_id = reactor_id(reactor);
    write->ret_commit = 0;
    write->ret_length_bytes = 0;
    write->ret_item_count = 0;
    write->ret_part_count = 0;
    write->ret_copies_min = 0;
    write->ret_first_count = 0;
    for (uint32_t part = 0; part < write->part_count; part++) {
        ASSERT(write->parts[part].copy_count >= 1);
        ASSERT(write->parts[part].copy_count <= EXTENT_COPIES_MAX);
    }
    struct writer *writer = writer_create(write);
    if (writer == NULL) {
        reactor_complete(&write->op, -ENOMEM);
        return;
    }
    write->driver = writer;
    writer->snapshot.op.done = writer_snapshot_done;
    store_snapshot_create(write->store, &writer->snapshot);
}

bool
checkpoint_write_awaits(const struct checkpoint_write *write, uint16_t disk)
{
    const struct writer *writer = write->driver;

    if (writer == NULL) {
        return false;
    }
    ASSERT_ON_REACTOR(writer->reactor);
    if (writer->flushing) {
        return write->parts[writer->flush_part].copies[writer->flush_copy].place.disk == disk;
    }
    const struct checkpoint_part *part = current_part(writer);
    for (uint32_t copy = 0; copy < part->copy_count; copy++) {
        if ((writer->waiting & 1u << copy) != 0 && part->copies[copy].place.disk == disk) {
            return true;
        }
    }
    return false;
}

uint32_t
checkpoint_part_count(uint64_t store_bytes, uint64_t part_bytes)
{
    ASSERT_OP(part_bytes, >, (uint64_t)CHECKPOINT_BUFFER_BYTES / 2);
    /* Tables are compressed and hold deltas; frames are neither. Frames may leave a part's end. */
    uint64_t stream_bytes = store_bytes * 4 + CHECKPOINT_BUFFER_BYTES;
    uint64_t usable_bytes = part_bytes - CHECKPOINT_BLOCK_BYTES - 2 * CHECKPOINT_FRAME_BYTES;
    return (uint32_t)MIN(div_round_up(stream_bytes, usable_bytes), (uint64_t)UINT32_MAX);
}
