/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies: encoding, queueing, sending.
 *
 * A reply is a header in its slot and, where there is payload, segments that follow it on the wire.
 * Replies that become ready in one pass leave in one send at the end of the pass. Their headers are
 * copied side by side into the batch, so that a slot without payload is free again at once, and
 * neighbouring headers become one segment.
 *
 * Runs of zeroes. A structured read reply sends whole pieces of zeroes as holes. It is found out by
 * looking at the payload: a piece that holds data betrays itself in its first bytes nearly always,
 * and one that holds zeroes costs less to look at than to send. The list of segments and the
 * further headers of such a reply are kept in the memory of its first hole, which is not sent.
 */
#include "targets/nbd/connection_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/util.h"
#include "targets/nbd/tls_impl.h"

enum {
    HOLE_BYTES_MIN = 4 << 10,    /* shorter runs are sent as data, unless they are the whole */
    READ_BYTES_MIN = 512,        /* shorter reads are not looked at */
    PIECE_BYTES = 64 << 10,      /* unit of the search, by offset in the volume */
    CHUNKS_MAX = 16,             /* of one reply */
    TLS_BATCH_BYTES = 256 << 10, /* ciphertext is not gathered beyond this */
};

uint32_t
nbd_error_from_status(int status, bool may_not_support)
{
    ASSERT_OP(status, <=, 0);
    switch (-status) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    case EOPNOTSUPP:
        /* "SHOULD NOT return NBD_ENOTSUP except" as the answer to FAST_ZERO. */
        return may_not_support ? NBD_ENOTSUP : NBD_EINVAL;
    default:
        return NBD_EIO;
    }
}

/* ---- headers ---- */

static uint32_t
put_simple(uint8_t *to, uint32_t error, uint64_t cookie)
{
    put_be32(to, NBD_SIMPLE_REPLY_MAGIC);
    put_be32(to + 4, error);
    put_be64(to + 8, cookie);
    return NBD_SIMPLE_REPLY_BYTES;
}

/* A chunk's header, structured or extended. Returns its size. */
static uint32_t
put_chunk(uint8_t *to, const struct nbd_slot *slot, uint16_t type, bool last, uint64_t length_bytes)
{
    bool extended = slot->connection->style == NBD_STYLE_EXTENDED;

    put_be32(to, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
    put_be16(to + 4, last ? NBD_REPLY_FLAG_DONE : 0);
    put_be16(to + 6, type);
    put_be64(to + 8, slot->cookie);
    if (extended) {
        put_be64(to + 16, slot->offset_bytes);
        put_be64(to + 24, length_bytes);
        return NBD_EXTENDED_REPLY_BYTES;
    }
    put_be32(to + 16, (uint32_t)length_bytes);
    return NBD_STRUCTURED_REPLY_BYTES;
}

static uint32_t
put_data_chunk(uint8_t *to, const struct nbd_slot *slot, bool last, uint64_t offset_bytes,
               uint64_t length_bytes)
{
    uint32_t at = put_chunk(to, slot, NBD_REPLY_TYPE_OFFSET_DATA, last, 8 + length_bytes);

    put_be64(to + at, offset_bytes);
    return at + 8;
}

static uint32_t
put_hole_chunk(uint8_t *to, const struct nbd_slot *slot, bool last, uint64_t offset_bytes,
               uint64_t length_bytes)
{
    uint32_t at = put_chunk(to, slot, NBD_REPLY_TYPE_OFFSET_HOLE, last, 12);

    put_be64(to + at, offset_bytes);
    put_be32(to + at + 8, (uint32_t)length_bytes);
    return at + 12;
}

/* ---- the queue ---- */

static void
queue(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;

    ASSERT_OP(conn->state, !=, NBD_STATE_CLOSING);
    ASSERT((slot->holds & NBD_HOLD_REPLY) == 0);
    slot->holds |= NBD_HOLD_REPLY;
    slot->next = NULL;
    if (conn->ready_first == NULL) {
        conn->ready_first = slot;
    } else {
        conn->ready_last->next = slot;
    }
    conn->ready_last = slot;
    nbd_connection_wake(conn);
}

static struct nbd_slot *
dequeue(struct nbd_connection *conn)
{
    struct nbd_slot *slot = conn->ready_first;

    conn->ready_first = slot->next;
    if (conn->ready_first == NULL) {
        conn->ready_last = NULL;
    }
    slot->next = NULL;
    return slot;
}

/* ---- errors ---- */

static void
encode_error(struct nbd_slot *slot, uint32_t error, const char *text)
{
    const struct nbd_connection *conn = slot->connection;
    bool with_offset = slot->error_offset_bytes != UINT64_MAX;
    uint16_t text_bytes = (uint16_t)strlen(text);
    uint8_t *to = slot->header;

    NBD_COUNT(conn->shard, request_errors, 1);
    slot->payload_count = 0;
    slot->payload_bytes = 0;
    if (conn->style == NBD_STYLE_SIMPLE) {
        slot->header_length_bytes = put_simple(to, error, slot->cookie);
        return;
    }
    ASSERT_OP(text_bytes, <=, NBD_SLOT_HEADER_BYTES - NBD_EXTENDED_REPLY_BYTES - 6 - 8);
    uint32_t at = put_chunk(to, slot,
                            with_offset ? NBD_REPLY_TYPE_ERROR_OFFSET : NBD_REPLY_TYPE_ERROR, true,
                            6u + text_bytes + (with_offset ? 8u : 0u));
    put_be32(to + at, error);
    put_be16(to + at + 4, text_bytes);
    memcpy(to + at + 6, text, text_bytes);
    at += 6u + text_bytes;
    if (with_offset) {
        put_be64(to + at, slot->error_offset_bytes);
        at += 8;
    }
    slot->header_length_bytes = at;
}

static const char *
error_text(uint32_t error)
{
    switch (error) {
    case NBD_ENOSPC:
        return "no space left in the pool";
    case NBD_EPERM:
        return "not permitted";
    case NBD_ENOTSUP:
        return "zeroing would not be fast";
    case NBD_ESHUTDOWN:
        return "the server is being shut down";
    default:
        return "the volume failed";
    }
}

void
nbd_reply_refuse(struct nbd_slot *slot)
{
    ASSERT_ON_REACTOR(slot->connection->shard->reactor);
    ASSERT_OP(slot->error, !=, (uint32_t)NBD_SUCCESS);
    encode_error(slot, slot->error, slot->error_text);
    queue(slot);
}

/* ---- reads ---- */

static bool
is_zero(const uint8_t *bytes, size_t length_bytes)
{
    uint64_t first;

    ASSERT_OP(length_bytes, >=, sizeof(first));
    memcpy(&first, bytes, sizeof(first));
    /* All bytes equal those eight further on, and the first eight are zero. */
    return first == 0 && memcmp(bytes, bytes + sizeof(first), length_bytes - sizeof(first)) == 0;
}

struct chunk {
    uint64_t length_bytes;
    bool hole;
};

/* A piece of payload in one segment, by position. */
struct cursor {
    const struct nbd_slot *slot;
    uint32_t segment;
    size_t segment_at;
    uint64_t at; /* in the payload */
};

/* The memory at the cursor; advances. */
static uint8_t *
next_piece(struct cursor *cursor, uint64_t limit_bytes, size_t *ret_length_bytes)
{
    const struct iovec *segment = &cursor->slot->buffer.segments[cursor->segment];
    uint8_t *memory = (uint8_t *)segment->iov_base + cursor->segment_at;
    size_t length_bytes = (size_t)MIN((uint64_t)(segment->iov_len - cursor->segment_at),
                                      limit_bytes);

    ASSERT_OP(cursor->segment, <, cursor->slot->buffer.segment_count);
    cursor->at += length_bytes;
    cursor->segment_at += length_bytes;
    if (cursor->segment_at == segment->iov_len) {
        cursor->segment++;
        cursor->segment_at = 0;
    }
    *ret_length_bytes = length_bytes;
    return memory;
}

/* Divide the payload into data and holes; the number of chunks, 1: all of one kind. */
static uint32_t
find_chunks(const struct nbd_slot *slot, struct chunk chunks[static CHUNKS_MAX])
{
    struct cursor cursor = { .slot = slot };
    uint32_t count = 0;

    while (cursor.at < slot->length_bytes) {
        uint64_t offset_bytes = slot->offset_bytes + cursor.at;
        uint64_t limit_bytes = PIECE_BYTES - offset_bytes % PIECE_BYTES;
        size_t length_bytes;
        const uint8_t *memory = next_piece(&cursor, limit_bytes, &length_bytes);
        bool small = length_bytes < HOLE_BYTES_MIN && length_bytes < slot->length_bytes;
        bool hole = !small && is_zero(memory, length_bytes);

        if (count > 0 && chunks[count - 1].hole == hole) {
            chunks[count - 1].length_bytes += length_bytes;
        } else if (count == CHUNKS_MAX) {
            /* Enough: the rest belongs to the last one, as data. */
            chunks[count - 1].hole = false;
            chunks[count - 1].length_bytes += slot->length_bytes - cursor.at + length_bytes;
            break;
        } else {
            chunks[count].hole = hole;
            chunks[count].length_bytes = length_bytes;
            count++;
        }
    }
    return count;
}

/* Append the memory of a data chunk; a hole's is passed over. */
static uint32_t
add_segments(struct cursor *cursor, const struct chunk *chunk, struct iovec *segments)
{
    uint64_t left_bytes = chunk->length_bytes;
    uint32_t count = 0;

    while (left_bytes > 0) {
        size_t length_bytes;
        uint8_t *memory = next_piece(cursor, left_bytes, &length_bytes);
        left_bytes -= length_bytes;
        if (!chunk->hole) {
            segments[count].iov_base = memory;
            segments[count].iov_len = length_bytes;
            count++;
        }
    }
    return count;
}

/* Memory of the first hole: at least HOLE_BYTES_MIN in one piece. */
static uint8_t *
first_hole(const struct nbd_slot *slot, const struct chunk *chunks)
{
    struct cursor cursor = { .slot = slot };
    size_t length_bytes;

    if (!chunks[0].hole) {
        (void)add_segments(&cursor, &(struct chunk){ chunks[0].length_bytes, true }, NULL);
    }
    uint8_t *memory = next_piece(&cursor, HOLE_BYTES_MIN, &length_bytes);
    ASSERT_OP(length_bytes, ==, (uint32_t)HOLE_BYTES_MIN);
    return memory;
}

struct sparse_layout {
    struct iovec segments[BUFFER_SEGMENTS_MAX + 2 * CHUNKS_MAX];
    uint8_t headers[CHUNKS_MAX][NBD_EXTENDED_REPLY_BYTES + 12];
};
_Static_assert(sizeof(struct sparse_layout) <= HOLE_BYTES_MIN, "it is kept in a hole");

/* Several chunks, at least one of them a hole. */
static void
encode_sparse(struct nbd_slot *slot, const struct chunk *chunks, uint32_t count)
{
    uint8_t *memory = first_hole(slot, chunks);
    struct cursor cursor = { .slot = slot };
    uint32_t segments = 0;
    uint64_t total_bytes = 0;

    memory += -(uintptr_t)memory % _Alignof(struct sparse_layout);
    struct sparse_layout *layout = (struct sparse_layout *)memory;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset_bytes = slot->offset_bytes + cursor.at;
        bool last = i == count - 1;
        uint8_t *header = i == 0 ? slot->header : layout->headers[i];
        uint32_t header_bytes =
            chunks[i].hole
                ? put_hole_chunk(header, slot, last, offset_bytes, chunks[i].length_bytes)
                : put_data_chunk(header, slot, last, offset_bytes, chunks[i].length_bytes);
        if (i == 0) {
            slot->header_length_bytes = header_bytes;
        } else {
            layout->segments[segments].iov_base = header;
            layout->segments[segments].iov_len = header_bytes;
            segments++;
            total_bytes += header_bytes;
        }
        segments += add_segments(&cursor, &chunks[i], &layout->segments[segments]);
        total_bytes += chunks[i].hole ? 0 : chunks[i].length_bytes;
        ASSERT_OP(segments, <=, ARRAY_SIZE(layout->segments));
    }
    slot->payload = layout->segments;
    slot->payload_count = segments;
    slot->payload_bytes = total_bytes;
}

/* How long the volume took; a request of no bytes did not come to it. */
static uint64_t
age_ns(const struct nbd_slot *slot)
{
    uint64_t started_ns = slot->request.started_ns;
    uint64_t now_ns = reactor_now_ns(slot->connection->shard->reactor);
    return slot->length_bytes > 0 && started_ns > 0 ? now_ns - started_ns : 0;
}

static void
encode_read(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;
    struct chunk chunks[CHUNKS_MAX];
    uint32_t count = 1;

    slot->payload = slot->buffer.segments;
    slot->payload_count = slot->buffer.segment_count;
    slot->payload_bytes = slot->length_bytes;
    conn->session.reads++;
    conn->session.read_bytes += slot->length_bytes;
    conn->session.read_total_ns += age_ns(slot);
    if (conn->style == NBD_STYLE_SIMPLE) {
        slot->header_length_bytes = put_simple(slot->header, NBD_SUCCESS, slot->cookie);
        return;
    }
    if (slot->length_bytes == 0) {
        slot->header_length_bytes = put_chunk(slot->header, slot, NBD_REPLY_TYPE_NONE, true, 0);
        return;
    }
    chunks[0].hole = false;
    if (slot->length_bytes >= READ_BYTES_MIN && !slot->dont_fragment) {
        count = find_chunks(slot, chunks);
    }
    if (count > 1) {
        encode_sparse(slot, chunks, count);
    } else if (chunks[0].hole) {
        slot->header_length_bytes =
            put_hole_chunk(slot->header, slot, true, slot->offset_bytes, slot->length_bytes);
        slot->payload_count = 0;
        slot->payload_bytes = 0;
    } else {
        slot->header_length_bytes =
            put_data_chunk(slot->header, slot, true, slot->offset_bytes, slot->length_bytes);
    }
}

/* ---- BLOCK_STATUS ---- */

/*
 * Encode the extents of `source` as the chunk of one context, behind `to`, where room for header
 * and descriptors was left. `to` may be where the extents are: descriptors are not longer than
 * they, and are written in order. Neighbours of one kind are joined.
 */
static uint32_t
put_descriptors(uint8_t *to, const struct nbd_slot *slot, uint32_t row,
                const struct volume_status_extent *source, uint32_t source_count)
{
    bool extended = slot->connection->style == NBD_STYLE_EXTENDED;
    uint64_t left_bytes = slot->length_bytes;
    uint64_t length_bytes = 0;
    uint32_t flags = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i <= source_count; i++) {
        struct volume_status_extent extent = { 0 };
        uint32_t extent_flags = 0;
        if (i < source_count) {
            extent = source[i];
            extent_flags = nbd_metacontext_flags(row, &extent);
            ASSERT_OP(extent.length_bytes, <=, left_bytes);
            left_bytes -= extent.length_bytes;
        }
        if (i > 0 && (i == source_count || extent_flags != flags)) {
            if (extended) {
                put_be64(to + (size_t)count * 16, length_bytes);
                put_be64(to + (size_t)count * 16 + 8, flags);
            } else {
                put_be32(to + (size_t)count * 8, (uint32_t)length_bytes);
                put_be32(to + (size_t)count * 8 + 4, flags);
            }
            count++;
            length_bytes = 0;
        }
        length_bytes += extent.length_bytes;
        flags = extent_flags;
    }
    return count;
}

struct volume_status_extent *
nbd_status_extents(const struct nbd_slot *slot, uint32_t row)
{
    uint32_t region_bytes =
        slot->buffer.length_bytes / (uint32_t)__builtin_popcount(slot->contexts);
    uint32_t region = (uint32_t)__builtin_popcount(slot->contexts & ((1u << row) - 1));

    ASSERT((slot->contexts >> row & 1) != 0);
    return (struct volume_status_extent *)((uint8_t *)slot->buffer.segments[0].iov_base +
                                           (size_t)region * region_bytes +
                                           NBD_STATUS_HEADER_BYTES);
}

/* The chunk of one context, where its extents are and in front of them. */
static void
encode_status_chunk(struct nbd_slot *slot, uint32_t row, uint32_t piece, bool last)
{
    bool extended = slot->connection->style == NBD_STYLE_EXTENDED;
    uint32_t preamble_bytes = extended ? 8 : 4;
    uint32_t header_bytes = extended ? NBD_EXTENDED_REPLY_BYTES : NBD_STRUCTURED_REPLY_BYTES;
    const struct volume_status_extent *source = nbd_status_extents(slot, row);
    uint8_t *descriptors = (uint8_t *)nbd_status_extents(slot, row);
    uint32_t count = put_descriptors(descriptors, slot, row, source, slot->extents_counts[row]);
    uint8_t *chunk = descriptors - preamble_bytes - header_bytes;
    uint64_t length_bytes = preamble_bytes + (uint64_t)count * (extended ? 16 : 8);

    ASSERT_OP(count, >, 0u);
    (void)put_chunk(chunk, slot,
                    extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS,
                    last, length_bytes);
    put_be32(chunk + header_bytes, row + 1);
    if (extended) {
        put_be32(chunk + header_bytes + 4, count);
    }
    slot->pieces[piece].iov_base = chunk;
    slot->pieces[piece].iov_len = header_bytes + length_bytes;
    slot->payload_bytes += slot->pieces[piece].iov_len;
}

static void
encode_status(struct nbd_slot *slot)
{
    uint32_t selected = (uint32_t)__builtin_popcount(slot->contexts);
    uint32_t piece = 0;

    slot->header_length_bytes = 0;
    slot->payload = slot->pieces;
    slot->payload_count = selected;
    slot->payload_bytes = 0;
    for (uint32_t row = 0; row < NBD_METACONTEXT_MAX; row++) {
        if ((slot->contexts >> row & 1) != 0) {
            encode_status_chunk(slot, row, piece, piece == selected - 1);
            piece++;
        }
    }
    ASSERT_OP(piece, ==, selected);
}

/* ---- completion ---- */

static void
encode_success(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;

    slot->payload_count = 0;
    slot->payload_bytes = 0;
    if (slot->command == NBD_CMD_WRITE) {
        conn->session.writes++;
        conn->session.written_bytes += slot->length_bytes;
        conn->session.write_total_ns += age_ns(slot);
    }
    slot->header_length_bytes =
        conn->style == NBD_STYLE_EXTENDED
            ? put_chunk(slot->header, slot, NBD_REPLY_TYPE_NONE, true, 0)
            : put_simple(slot->header, NBD_SUCCESS, slot->cookie);
}

void
nbd_reply_complete(struct nbd_slot *slot)
{
    uint32_t error = nbd_error_from_status(slot->request.status, slot->may_not_support);
    bool allocation = (slot->contexts & 1u << NBD_METACONTEXT_ALLOCATION) != 0;

    ASSERT_ON_REACTOR(slot->connection->shard->reactor);
    if (slot->command == NBD_CMD_BLOCK_STATUS && allocation && error == NBD_SUCCESS) {
        slot->extents_counts[NBD_METACONTEXT_ALLOCATION] = (uint16_t)slot->request.extents_count;
        error = slot->request.extents_count == 0 ? NBD_EIO : NBD_SUCCESS;
    }
    if (error != NBD_SUCCESS) {
        encode_error(slot, error, error_text(error));
    } else if (slot->command == NBD_CMD_READ) {
        encode_read(slot);
    } else if (slot->command == NBD_CMD_BLOCK_STATUS) {
        encode_status(slot);
    } else {
        encode_success(slot);
    }
    queue(slot);
}

/* ---- sending in the clear ---- */

static bool
batch_has_room(const struct nbd_batch *batch, const struct nbd_slot *slot)
{
    ASSERT_OP(slot->payload_count, <, (uint32_t)NBD_BATCH_SEGMENTS);
    return batch->segment_count + 1 + slot->payload_count <= NBD_BATCH_SEGMENTS &&
           batch->header_length_bytes + slot->header_length_bytes <= NBD_BATCH_HEADER_BYTES &&
           (batch->length_bytes == 0 ||
            batch->length_bytes + slot->payload_bytes <= NBD_BATCH_BYTES);
}

static void
batch_header(struct nbd_batch *batch, const struct nbd_slot *slot)
{
    uint8_t *to = batch->headers + batch->header_length_bytes;
    struct iovec *last = &batch->segments[batch->segment_count];

    if (slot->header_length_bytes == 0) {
        return;
    }
    memcpy(to, slot->header, slot->header_length_bytes);
    batch->header_length_bytes += slot->header_length_bytes;
    if (batch->segment_count > 0 && (uint8_t *)last[-1].iov_base + last[-1].iov_len == to) {
        last[-1].iov_len += slot->header_length_bytes;
        return;
    }
    last->iov_base = to;
    last->iov_len = slot->header_length_bytes;
    batch->segment_count++;
}

static void
flush_plain(struct nbd_connection *conn)
{
    struct nbd_batch *batch = nbd_batch_take(conn->shard);

    if (batch == NULL) {
        nbd_connection_close(conn, true, "out of memory");
        return;
    }
    while (conn->ready_first != NULL && batch_has_room(batch, conn->ready_first)) {
        struct nbd_slot *slot = dequeue(conn);
        batch_header(batch, slot);
        batch->length_bytes += slot->header_length_bytes + slot->payload_bytes;
        if (slot->payload_count == 0) {
            nbd_slot_drop_hold(slot, NBD_HOLD_REPLY);
            continue;
        }
        memcpy(&batch->segments[batch->segment_count], slot->payload,
               slot->payload_count * sizeof(struct iovec));
        batch->segment_count += slot->payload_count;
        slot->next = batch->slots;
        batch->slots = slot;
    }
    conn->batch = batch;
    nbd_stream_send_batch(conn);
}

/* ---- sending by TLS ---- */

/*
 * Copy bytes [from, from + room) of the reply to `to`; returns how many there were. Replies are
 * gathered into full records: a record costs more than a copy.
 */
static size_t
gather(const struct nbd_slot *slot, uint64_t from, uint8_t *to, size_t room_bytes)
{
    size_t done_bytes = 0;

    if (from < slot->header_length_bytes) {
        done_bytes = MIN((size_t)(slot->header_length_bytes - from), room_bytes);
        memcpy(to, slot->header + from, done_bytes);
        from = 0;
    } else {
        from -= slot->header_length_bytes;
    }
    for (uint32_t i = 0; i < slot->payload_count && done_bytes < room_bytes; i++) {
        const struct iovec *segment = &slot->payload[i];
        if (from >= segment->iov_len) {
            from -= segment->iov_len;
            continue;
        }
        size_t copy_bytes = MIN(segment->iov_len - (size_t)from, room_bytes - done_bytes);
        memcpy(to + done_bytes, (const uint8_t *)segment->iov_base + from, copy_bytes);
        done_bytes += copy_bytes;
        from = 0;
    }
    return done_bytes;
}

static void
flush_tls(struct nbd_connection *conn)
{
    struct nbd_shard *shard = conn->shard;

    while (conn->ready_first != NULL && nbd_tls_pending_bytes(conn->tls) < TLS_BATCH_BYTES) {
        size_t filled_bytes = 0;
        while (conn->ready_first != NULL && filled_bytes < NBD_TLS_RECORD_BYTES) {
            struct nbd_slot *slot = conn->ready_first;
            size_t got_bytes = gather(slot, conn->ready_offset_bytes, shard->scratch + filled_bytes,
                                      NBD_TLS_RECORD_BYTES - filled_bytes);
            filled_bytes += got_bytes;
            conn->ready_offset_bytes += got_bytes;
            if (conn->ready_offset_bytes == slot->header_length_bytes + slot->payload_bytes) {
                conn->ready_offset_bytes = 0;
                nbd_slot_drop_hold(dequeue(conn), NBD_HOLD_REPLY);
            }
        }
        if (nbd_tls_write(conn->tls, shard->scratch, filled_bytes) < 0) {
            nbd_connection_protocol_error(conn, "TLS: %s", nbd_tls_failure(conn->tls));
            return;
        }
    }
    nbd_stream_send_pending(conn);
}

/* ---- the end of a pass ---- */

void
nbd_reply_flush(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->sending || conn->ready_first == NULL) {
        return;
    }
    if (conn->tls != NULL) {
        flush_tls(conn);
    } else {
        flush_plain(conn);
    }
}

void
nbd_reply_sent(struct nbd_connection *conn)
{
    struct nbd_batch *batch = conn->batch;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(!conn->sending);
    if (batch == NULL) {
        return;
    }
    conn->batch = NULL;
    while (batch->slots != NULL) {
        struct nbd_slot *slot = batch->slots;
        batch->slots = slot->next;
        nbd_slot_drop_hold(slot, NBD_HOLD_REPLY);
    }
    nbd_batch_give(conn->shard, batch);
}

void
nbd_reply_discard(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(!conn->sending);
    while (conn->ready_first != NULL) {
        nbd_slot_drop_hold(dequeue(conn), NBD_HOLD_REPLY);
    }
}
