/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a connection.
 *
 * Without TLS a receive goes straight to where the bytes belong: the missing payload of a write
 * first, then the input buffer (the next headers come with the same call). With TLS it goes to the
 * session's ciphertext buffer, and nbd_stream_pull() decrypts to the same places.
 */
#include "targets/nbd/connection_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "targets/nbd/tls_impl.h"

enum {
    INPUT_ALIGNMENT_BYTES = 4096,
    PROGRESS_BYTES = 64 << 10, /* fewer bytes of a payload do not count as progress */
};

int
nbd_stream_open(struct nbd_connection *conn)
{
    conn->input = aligned_alloc(INPUT_ALIGNMENT_BYTES, NBD_INPUT_BYTES);
    return conn->input == NULL ? -ENOMEM : 0;
}

void
nbd_stream_close(struct nbd_connection *conn)
{
    free(conn->input);
    conn->input = NULL;
}

void
nbd_stream_trim(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(nbd_input_available(conn), ==, 0u);
    /*
     * A receive may be pending on this memory: it is the content that is given up, not the
     * addresses. Locked memory must be unlocked first.
     */
    (void)munlock(conn->input, NBD_INPUT_BYTES);
    (void)madvise(conn->input, NBD_INPUT_BYTES, MADV_DONTNEED);
    if (conn->tls != NULL) {
        nbd_tls_trim(conn->tls);
    }
    conn->trimmed = true;
}

/* ---- receiving ---- */

/* Segments of the payload that is still missing; the memory is there. */
static uint32_t
incoming_segments(const struct nbd_connection *conn, struct iovec *segments, uint32_t max)
{
    const struct buffer *buffer = &conn->incoming->buffer;
    size_t skip_bytes = conn->incoming_bytes;
    uint32_t count = 0;

    for (uint32_t i = 0; i < buffer->segment_count; i++) {
        const struct iovec *segment = &buffer->segments[i];
        if (skip_bytes >= segment->iov_len) {
            skip_bytes -= segment->iov_len;
            continue;
        }
        ASSERT_OP(count, <, max);
        segments[count].iov_base = (uint8_t *)segment->iov_base + skip_bytes;
        segments[count].iov_len = segment->iov_len - skip_bytes;
        skip_bytes = 0;
        count++;
    }
    return count;
}

static bool
payload_is_wanted(const struct nbd_connection *conn)
{
    return conn->incoming != NULL && conn->stall == NBD_STALL_NONE;
}

/* Move what is left to the front; it is short: a partial header, or a payload's tail. */
static void
compact_input(struct nbd_connection *conn)
{
    uint32_t available = nbd_input_available(conn);

    if (conn->input_begin == 0) {
        return;
    }
    memmove(conn->input, nbd_input_bytes(conn), available);
    conn->input_begin = 0;
    conn->input_end = available;
}

/* How much may be received behind what is in the input. */
static uint32_t
input_window(const struct nbd_connection *conn)
{
    uint32_t space_bytes = NBD_INPUT_BYTES - conn->input_end;

    return conn->large_payload ? MIN(space_bytes, (uint32_t)NBD_LOOK_AHEAD_BYTES) : space_bytes;
}

static void
note_progress(struct nbd_connection *conn, uint64_t length_bytes)
{
    conn->progress_bytes += length_bytes;
    if (conn->progress_bytes >= PROGRESS_BYTES) {
        conn->progress_bytes = 0;
        conn->progress_ns = reactor_now_ns(conn->shard->reactor);
    }
}

/* Account for `length_bytes` that are in place: payload first, then input. */
static void
account_received(struct nbd_connection *conn, uint32_t length_bytes)
{
    if (payload_is_wanted(conn)) {
        uint32_t missing_bytes = (uint32_t)conn->incoming->length_bytes - conn->incoming_bytes;
        uint32_t payload_bytes = MIN(length_bytes, missing_bytes);
        conn->incoming_bytes += payload_bytes;
        length_bytes -= payload_bytes;
    }
    conn->input_end += length_bytes;
    ASSERT_OP(conn->input_end, <=, (uint32_t)NBD_INPUT_BYTES);
}

static void
receive_done(struct io_op *op)
{
    struct nbd_connection *conn = container_of(op, struct nbd_connection, receive.op);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(conn->receiving);
    conn->receiving = false;
    if (conn->state == NBD_STATE_CLOSING) {
        nbd_connection_wake(conn);
        return;
    }
    NBD_COUNT(conn->shard, receives, 1);
    if (op->result < 0) {
        nbd_connection_close(conn, false, "receiving failed");
        return;
    }
    if (op->result == 0) {
        nbd_connection_event(conn, NBD_EVENT_PEER_CLOSED);
        return;
    }
    conn->trimmed = false;
    NBD_COUNT(conn->shard, received_bytes, (uint64_t)op->result);
    note_progress(conn, (uint64_t)op->result);
    if (conn->tls != NULL) {
        nbd_tls_input_filled(conn->tls, (size_t)op->result);
    } else if (conn->state == NBD_STATE_DRAIN) {
        return; /* nothing more is taken; the payload that it may belong to is given up */
    } else {
        account_received(conn, (uint32_t)op->result);
    }
    nbd_connection_event(conn, NBD_EVENT_RECEIVED);
}

void
nbd_stream_receive(struct nbd_connection *conn)
{
    uint32_t count = 0;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->receiving) {
        return;
    }
    if (conn->tls != NULL) {
        size_t space_bytes;
        conn->receive_segments[0].iov_base = nbd_tls_input_space(conn->tls, &space_bytes);
        conn->receive_segments[0].iov_len = space_bytes;
        count = 1;
    } else {
        compact_input(conn);
        if (payload_is_wanted(conn)) {
            ASSERT_OP(nbd_input_available(conn), ==, 0u);
            count = incoming_segments(conn, conn->receive_segments, NBD_RECEIVE_SEGMENTS - 1);
        }
        conn->receive_segments[count].iov_base = conn->input + conn->input_end;
        conn->receive_segments[count].iov_len = input_window(conn);
        ASSERT_OP(conn->receive_segments[count].iov_len, >, 0u);
        count++;
    }
    conn->receiving = true;
    conn->receive.op.done = receive_done;
    conn->receive.socket = conn->socket;
    conn->receive.iov = conn->receive_segments;
    conn->receive.iov_count = count;
    conn->receive.is_send = false;
    struct io_engine *engine = reactor_engine(conn->shard->reactor);
    reactor_platform(conn->shard->reactor)->ops->socket_receive(engine, &conn->receive);
}

int
nbd_stream_pull(struct nbd_connection *conn)
{
    struct iovec target;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->tls == NULL) {
        return 0;
    }
    compact_input(conn);
    if (payload_is_wanted(conn)) {
        struct iovec segments[BUFFER_SEGMENTS_MAX];
        (void)incoming_segments(conn, segments, BUFFER_SEGMENTS_MAX);
        target = segments[0];
    } else {
        target.iov_base = conn->input + conn->input_end;
        target.iov_len = NBD_INPUT_BYTES - conn->input_end;
    }
    ASSERT_OP(target.iov_len, >, 0u);
    int got = nbd_tls_read(conn->tls, target.iov_base, target.iov_len);
    nbd_stream_send_pending(conn); /* an answer to a key update, an alert */
    if (got > 0) {
        account_received(conn, (uint32_t)got);
        return 1;
    }
    if (got == -EAGAIN) {
        return 0;
    }
    if (got == 0) {
        nbd_connection_event(conn, NBD_EVENT_PEER_CLOSED);
    } else {
        nbd_connection_protocol_error(conn, "TLS: %s", nbd_tls_failure(conn->tls));
    }
    return -EPROTO;
}

/* ---- sending ---- */

static void
send_done(struct io_op *op)
{
    struct nbd_connection *conn = container_of(op, struct nbd_connection, send.op);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(conn->sending);
    conn->sending = false;
    if (op->result < 0) {
        nbd_connection_close(conn, false, "sending failed");
    } else {
        NBD_COUNT(conn->shard, sends, 1);
        conn->progress_bytes = 0;
        conn->progress_ns = reactor_now_ns(conn->shard->reactor);
    }
    if (conn->tls != NULL) {
        nbd_tls_sent(conn->tls);
        if (conn->state != NBD_STATE_CLOSING) {
            nbd_stream_send_pending(conn);
        }
        if (conn->sending) {
            return;
        }
    }
    nbd_reply_sent(conn); /* memory of the batch goes back in every state */
    if (conn->state == NBD_STATE_CLOSING) {
        nbd_connection_wake(conn);
        return;
    }
    nbd_connection_event(conn, NBD_EVENT_SENT);
}

static void
start_send(struct nbd_connection *conn, const struct iovec *segments, uint32_t count,
           uint64_t length_bytes)
{
    struct io_engine *engine = reactor_engine(conn->shard->reactor);

    ASSERT(!conn->sending);
    ASSERT_OP(conn->state, !=, NBD_STATE_CLOSING);
    conn->sending = true;
    conn->progress_bytes = 0;
    conn->progress_ns = reactor_now_ns(conn->shard->reactor);
    conn->send.op.done = send_done;
    conn->send.socket = conn->socket;
    conn->send.iov = segments;
    conn->send.iov_count = count;
    conn->send.is_send = true;
    conn->send.more_follows = false;
    NBD_COUNT(conn->shard, sent_bytes, length_bytes);
    reactor_platform(conn->shard->reactor)->ops->socket_send(engine, &conn->send);
}

void
nbd_stream_send_pending(struct nbd_connection *conn)
{
    size_t length_bytes;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->sending || conn->state == NBD_STATE_CLOSING) {
        return;
    }
    const uint8_t *data = nbd_tls_begin_send(conn->tls, &length_bytes);
    if (data != NULL) {
        conn->send_segment.iov_base = (void *)(uintptr_t)data;
        conn->send_segment.iov_len = length_bytes;
        start_send(conn, &conn->send_segment, 1, length_bytes);
    }
}

void
nbd_stream_send(struct nbd_connection *conn, const void *data, size_t length_bytes)
{
    const uint8_t *bytes = data;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(length_bytes, >, 0u);
    if (conn->tls == NULL) {
        conn->send_segment.iov_base = (void *)(uintptr_t)bytes;
        conn->send_segment.iov_len = length_bytes;
        start_send(conn, &conn->send_segment, 1, length_bytes);
        return;
    }
    while (length_bytes > 0) {
        size_t record_bytes = MIN(length_bytes, (size_t)NBD_TLS_RECORD_BYTES);
        if (nbd_tls_write(conn->tls, bytes, record_bytes) < 0) {
            nbd_connection_protocol_error(conn, "TLS: %s", nbd_tls_failure(conn->tls));
            return;
        }
        bytes += record_bytes;
        length_bytes -= record_bytes;
    }
    nbd_stream_send_pending(conn);
}

void
nbd_stream_send_batch(struct nbd_connection *conn)
{
    const struct nbd_batch *batch = conn->batch;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(batch->segment_count, >, 0u);
    start_send(conn, batch->segments, batch->segment_count, batch->length_bytes);
}
