/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a checkpoint. For each part: its header from any of its places, then its frames through a
 * window, each checked before it is handed over. What is damaged or unreadable at one place is
 * looked for at the part's other places, at the same offset. Foreign bytes: P12.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/checkpoint_impl.h"

struct chain_reader {
    struct checkpoint_read *read;
    struct backend_io io;
    struct iovec iov;
    uint8_t *window; /* CHECKPOINT_BUFFER_BYTES */

    struct checkpoint_places places; /* of the current part */
    uint32_t place;                  /* that is read now */
    uint32_t tried;                  /* bit per place: does not have this piece */
    bool has_header;
    uint32_t next_part;
    struct checkpoint_header header;

    uint64_t position; /* in the part: the next frame */
    uint64_t window_start;
    uint64_t window_bytes;
    uint64_t frames_left;
    uint64_t next_frame;
    uint64_t frame_bytes; /* of the one that is handed over */
    uint32_t stream_crc;
    struct byte_buffer batch; /* into the window */
    bool is_waiting; /* for checkpoint_read_next() */
    struct io_op again; /* goes on from the loop */
};

static void piece_read(struct chain_reader *reader);
static void frames_go_on(struct chain_reader *reader);

static void
reader_end(struct chain_reader *reader, int32_t result)
{
    struct checkpoint_read *read = reader->read;
    read->driver = NULL;
    free(reader->window);
    free(reader);
    reactor_complete(&read->op, result);
}

/* The piece is not at this place. */
static void
piece_failed(struct chain_reader *reader)
{
    reader->tried |= 1u << reader->place;
    reader->read->ret_damaged_pieces++;
    piece_read(reader);
}

/* ---- headers ---- */

static void
part_start(struct chain_reader *reader, const struct checkpoint_places *places)
{
    reader->places = *places;
    reader->place = 0;
    reader->tried = 0;
    reader->has_header = false;
    piece_read(reader);
}

static bool
header_fits(const struct chain_reader *reader, const struct checkpoint_header *header)
{
    const struct checkpoint_read *read = reader->read;
    bool is_first = reader->next_part == 0;
    return memcmp(header->pool_guid, read->pool_guid, GUID_BYTES) == 0
        && header->commit == read->commit && header->part == reader->next_part
        && header->used_bytes <= read->part_bytes && header->first_frame == reader->next_frame
        && header->frame_count <= header->used_bytes / CHECKPOINT_BLOCK_BYTES
        && (is_first
            || memcmp(header->checkpoint_guid, reader->header.checkpoint_guid, GUID_BYTES) == 0);
}

static void
header_take(struct chain_reader *reader)
{
    struct checkpoint_header header;
    if (checkpoint_header_decode(reader->window, &header) != 0 || !header_fits(reader, &header)) {
        piece_failed(reader);
        return;
    }
    reader->header = header;
    reader->has_header = true;
    reader->next_part++;
    /* From now on the places that the header names; begin with the one that it came from. */
    struct extent_place from = reader->places.places[reader->place];
    reader->places = header.own;
    reader->place = 0;
    for (uint32_t n = 0; n < header.own.count; n++) {
        if (header.own.places[n].disk == from.disk && header.own.places[n].slot == from.slot) {
            reader->place = n;
        }
    }
    reader->tried = 0;
    reader->position = CHECKPOINT_BLOCK_BYTES;
    reader->frames_left = header.frame_count;
    reader->window_bytes = 0;
    reader->read->ret_part_count++;
    reader->read->ret_length_bytes += header.used_bytes;
    frames_go_on(reader);
}

static void
part_end(struct chain_reader *reader)
{
    const struct checkpoint_header *header = &reader->header;
    /* Each header tells what has been in the chain so far: nothing left out, nothing twice. */
    if (header->item_count != reader->read->ret_item_count
        || header->stream_crc != reader->stream_crc || header->used_bytes != reader->position) {
        reader_end(reader, -EUCLEAN);
    } else if (header->is_last) {
        reader_end(reader, 0);
    } else {
        struct checkpoint_places next = header->next;
        part_start(reader, &next);
    }
}

/* ---- frames ---- */

/* Only PUTs of whole items, as many as the frame says. */
static bool
batch_is_legal(const uint8_t *data, uint32_t length_bytes, uint32_t item_count)
{
    size_t position = 0;
    struct store_batch_item item;
    uint32_t count = 0;
    int more;
    while ((more = store_batch_next(data, length_bytes, &position, &item)) == 1) {
        if (item.operation != STORE_PUT) {
            return false;
        }
        count++;
    }
    return more == 0 && count == item_count;
}

static void
frame_take(struct chain_reader *reader, uint8_t *at, const struct checkpoint_frame *frame)
{
    uint8_t crc[sizeof(frame->crc)];
    put_le32(crc, frame->crc);
    reader->stream_crc = crc32c(reader->stream_crc, crc, sizeof(crc));
    reader->read->ret_item_count += frame->item_count;
    reader->next_frame++;
    reader->frames_left--;
    reader->tried = 0;
    reader->frame_bytes = checkpoint_frame_bytes(frame->batch_bytes);
    reader->position += reader->frame_bytes;
    reader->batch = (struct byte_buffer){
        .data = at + CHECKPOINT_FRAME_HEADER_BYTES,
        .length_bytes = frame->batch_bytes,
        .capacity_bytes = frame->batch_bytes,
    };
}

/* Look at the frame at `position`, or get the window that it is in. */
static void
frames_go_on(struct chain_reader *reader)
{
    while (reader->frames_left > 0) {
        uint64_t window_end = reader->window_start + reader->window_bytes;
        if (reader->position < reader->window_start || reader->position >= window_end) {
            piece_read(reader);
            return;
        }
        uint8_t *at = reader->window + (reader->position - reader->window_start);
        struct checkpoint_frame frame;
        int result = checkpoint_frame_decode(at, window_end - reader->position, &frame);
        if (result == -EAGAIN && reader->position > reader->window_start) {
            piece_read(reader); /* a window that begins with it */
            return;
        }
        if (result != 0 || frame.number != reader->next_frame
            || memcmp(frame.checkpoint_guid, reader->header.checkpoint_guid, GUID_BYTES) != 0
            || !batch_is_legal(at + CHECKPOINT_FRAME_HEADER_BYTES, frame.batch_bytes,
                               frame.item_count)) {
            piece_failed(reader);
            return;
        }
        frame_take(reader, at, &frame);
        if (reader->read->batch != NULL) {
            reader->is_waiting = true;
            reader->read->batch(reader->read, &reader->batch);
            return;
        }
    }
    part_end(reader);
}

static void
frames_again(struct io_op *op)
{
    frames_go_on(container_of(op, struct chain_reader, again));
}

void
checkpoint_read_next(struct checkpoint_read *read, int result)
{
    struct chain_reader *reader = read->driver;
    ASSERT(reader != NULL && reader->is_waiting);
    reader->is_waiting = false;
    if (result < 0) {
        reader_end(reader, result);
        return;
    }
    /* From the loop: a consumer that answers at once must not make us nest. */
    reader->again.done = frames_again;
    reader->again.reactor_id = read->op.reactor_id;
    reactor_complete(&reader->again, 0);
}

/* ---- transfers ---- */

static void
piece_done(struct io_op *op)
{
    struct chain_reader *reader =
        container_of(container_of(op, struct backend_io, op), struct chain_reader, io);
    if (op->result < 0) {
        piece_failed(reader);
    } else if (reader->has_header) {
        frames_go_on(reader);
    } else {
        header_take(reader);
    }
}

/* No place has the piece. */
static void
piece_missing(struct chain_reader *reader)
{
    reader_end(reader, reader->next_part == 0 ? -ENOENT : -EUCLEAN);
}

/* Read the header, or a window of frames, from a place that has not been tried. */
static void
piece_read(struct chain_reader *reader)
{
    struct checkpoint_read *read = reader->read;
    struct backend *backend = NULL;
    uint64_t offset_bytes = 0;
    for (uint32_t n = 0; n < reader->places.count; n++) {
        uint32_t place = (reader->place + n) % reader->places.count;
        if ((reader->tried & 1u << place) != 0) {
            continue;
        }
        if (read->resolve(read, reader->places.places[place], &backend, &offset_bytes) == 0) {
            reader->place = place;
            break;
        }
        reader->tried |= 1u << place;
        backend = NULL;
    }
    if (backend == NULL) {
        piece_missing(reader);
        return;
    }
    reader->window_start = reader->has_header ? reader->position : 0;
    reader->window_bytes = CHECKPOINT_BLOCK_BYTES;
    if (reader->has_header) {
        if (reader->position >= reader->header.used_bytes) {
            reader_end(reader, -EUCLEAN); /* more frames than the part has bytes */
            return;
        }
        reader->window_bytes = MIN(reader->header.used_bytes - reader->position,
                                   (uint64_t)CHECKPOINT_BUFFER_BYTES);
    }
    reader->iov = (struct iovec){ .iov_base = reader->window, .iov_len = reader->window_bytes };
    memset(&reader->io, 0, sizeof(reader->io));
    reader->io.op.done = piece_done;
    reader->io.kind = BACKEND_READ;
    reader->io.offset_bytes = offset_bytes + reader->window_start;
    reader->io.length_bytes = reader->window_bytes;
    reader->io.iov = &reader->iov;
    reader->io.iov_count = 1;
    backend_submit(backend, &reader->io);
}

void
checkpoint_read(struct checkpoint_read *read)
{
    struct reactor *reactor = reactor_self();
    ASSERT(reactor != NULL && read->op.done != NULL && read->resolve != NULL);
    ASSERT(read->first_count >= 1 && read->first_count <= EXTENT_COPIES_MAX);
    read->op.reactor_id = reactor_id(reactor);
    read->ret_item_count = 0;
    read->ret_length_bytes = 0;
    read->ret_part_count = 0;
    read->ret_damaged_pieces = 0;
    struct chain_reader *reader = calloc(1, sizeof(*reader));
    void *window = NULL;
    if (reader == NULL
        || posix_memalign(&window, CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BUFFER_BYTES) != 0) {
        free(reader);
        reactor_complete(&read->op, -ENOMEM);
        return;
    }
    reader->read = read;
    reader->window = window;
    read->driver = reader;
    struct checkpoint_places places = { .count = read->first_count };
    memcpy(places.places, read->first, read->first_count * sizeof(places.places[0]));
    part_start(reader, &places);
}
