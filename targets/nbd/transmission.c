/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transmission phase: requests are taken from the input in batches, checked once, here, against
 * the text of the protocol, and submitted to the volume. Behind this file nothing is checked again.
 *
 * One request at a time can be incomplete: `incoming` is a read that waits for memory, or a write
 * that waits for memory or payload; `skipping` is a refused request whose payload is thrown away.
 */
#include "targets/nbd/connection_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"

struct header {
    uint16_t flags;
    uint16_t command;
    uint64_t cookie;
    uint64_t offset_bytes;
    uint64_t length_bytes;
};

/* What the protocol says of each command. */
static const struct command_rule {
    bool known;
    bool modifies;          /* NBD_EPERM on read-only exports */
    bool carries_payload;   /* the reply or the request does: NBD_PAYLOAD_BYTES_MAX */
    uint16_t flags;         /* besides FUA, which any command may have */
    uint16_t out_of_bounds; /* the error for it */
    enum volume_operation operation;
} rules[NBD_CMD_COUNT] = {
    [NBD_CMD_READ] = { true, false, true, NBD_CMD_FLAG_DF, NBD_EINVAL, VOLUME_READ },
    [NBD_CMD_WRITE] = { true, true, true, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_ENOSPC, VOLUME_WRITE },
    [NBD_CMD_FLUSH] = { true, false, false, 0, NBD_EINVAL, VOLUME_FLUSH },
    [NBD_CMD_TRIM] = { true, true, false, 0, NBD_EINVAL, VOLUME_DISCARD },
    [NBD_CMD_CACHE] = { true, false, false, 0, NBD_EINVAL, VOLUME_PREFETCH },
    [NBD_CMD_WRITE_ZEROES] = { true, true, false, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
                               NBD_ENOSPC, VOLUME_WRITE_ZEROES },
    [NBD_CMD_BLOCK_STATUS] = { true, false, false,
                               NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_PAYLOAD_LEN, NBD_EINVAL,
                               VOLUME_STATUS },
};

enum {
    STATUS_BUFFER_BYTES_SMALL = 4 << 10, /* of a BLOCK_STATUS answer, per context */
    STATUS_BUFFER_BYTES_LARGE = 16 << 10,
    STATUS_LARGE_RANGE_BYTES = 16 << 20,
    STATUS_RANGE_BYTES_SHIFT = 36, /* 64 GiB: what is looked up for one answer at most */
    ALIGNMENT_BYTES = 4096, /* payload of whole blocks is kept aligned to */
};

/* ---- starting ---- */

static void
request_reply(struct volume_request *request)
{
    struct nbd_slot *slot = container_of(request, struct nbd_slot, request);
    struct nbd_connection *conn = slot->connection;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT((slot->holds & NBD_HOLD_VOLUME) != 0);
    if (conn->state != NBD_STATE_CLOSING) {
        nbd_reply_complete(slot);
    }
}

static void
request_release(struct volume_request *request)
{
    struct nbd_slot *slot = container_of(request, struct nbd_slot, request);

    ASSERT_OP(slot->connection->session.in_flight, >, 0u);
    slot->connection->session.in_flight--;
    nbd_slot_drop_hold(slot, NBD_HOLD_VOLUME);
}

/* The slot is the volume's from now on. */
static void
prepare(struct nbd_slot *slot)
{
    struct volume_request *request = &slot->request;

    request->offset_bytes = slot->offset_bytes;
    request->length_bytes = slot->length_bytes;
    request->iov = slot->buffer.segments;
    request->iov_count = slot->buffer.segment_count;
    request->timeout_ns = 0;
    request->reply = request_reply;
    request->release = request_release;
    slot->holds = NBD_HOLD_VOLUME;
    slot->connection->session.in_flight++;
}

static void
submit(struct nbd_slot *slot)
{
    prepare(slot);
    volume_submit(slot->connection->volume, &slot->request);
}

/* Nothing to do: zero bytes. The volume is not asked. */
static void
complete_at_once(struct nbd_slot *slot)
{
    slot->request.status = 0;
    nbd_reply_complete(slot);
}

static uint32_t
status_region_bytes(const struct nbd_slot *slot)
{
    return slot->length_bytes > STATUS_LARGE_RANGE_BYTES && !slot->one_extent
               ? STATUS_BUFFER_BYTES_LARGE
               : STATUS_BUFFER_BYTES_SMALL;
}

/* ---- BLOCK_STATUS: the contexts one after the other, each with its part of the memory ---- */

static uint32_t
status_extents_max(const struct nbd_slot *slot)
{
    return slot->one_extent ? 1
                            : (status_region_bytes(slot) - NBD_STATUS_HEADER_BYTES) /
                                  (uint32_t)sizeof(struct volume_status_extent);
}

static void status_next(struct nbd_slot *slot);

static void
changes_told(struct io_op *op)
{
    struct changes_query *query = container_of(op, struct changes_query, op);
    struct nbd_slot *slot = container_of(query, struct nbd_slot, query);

    ASSERT_ON_REACTOR(slot->connection->shard->reactor);
    slot->extents_counts[slot->row] = (uint16_t)query->ret_count;
    slot->request.status = op->result;
    if (op->result < 0 || slot->connection->state == NBD_STATE_CLOSING) {
        request_reply(&slot->request);
        request_release(&slot->request);
        return;
    }
    slot->row++;
    status_next(slot);
}

/* Ask for the row at slot->row or behind it; the volume's own answer is the last. */
static void
status_next(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;

    while (slot->row < NBD_METACONTEXT_MAX && (slot->contexts >> slot->row & 1) == 0) {
        slot->row++;
    }
    if (slot->row < NBD_METACONTEXT_MAX) {
        slot->query = (struct changes_query){
            .op.done = changes_told,
            .offset_bytes = slot->offset_bytes,
            .length_bytes = slot->length_bytes,
            .extents = nbd_status_extents(slot, slot->row),
            .extents_max = status_extents_max(slot),
        };
        changes_query(conn->changes[slot->row], &slot->query);
    } else if ((slot->contexts & 1u << NBD_METACONTEXT_ALLOCATION) != 0) {
        slot->request.extents = nbd_status_extents(slot, NBD_METACONTEXT_ALLOCATION);
        slot->request.extents_max = status_extents_max(slot);
        slot->request.extents_count = 0;
        volume_submit(conn->volume, &slot->request);
    } else {
        request_reply(&slot->request);
        request_release(&slot->request);
    }
}

static void
start_status(struct nbd_slot *slot)
{
    ASSERT_OP(slot->buffer.segment_count, ==, 1u);
    slot->length_bytes = MIN(slot->length_bytes, UINT64_C(1) << STATUS_RANGE_BYTES_SHIFT);
    slot->request.status = 0;
    slot->row = NBD_METACONTEXT_ALLOCATION + 1;
    prepare(slot);
    status_next(slot);
}

/* Memory that the request needs from the pool. */
static uint32_t
buffer_bytes_wanted(struct nbd_slot *slot)
{
    if (slot->command == NBD_CMD_BLOCK_STATUS) {
        return status_region_bytes(slot) * (uint32_t)__builtin_popcount(slot->contexts);
    }
    uint32_t shift_bytes = (uint32_t)(slot->offset_bytes % ALIGNMENT_BYTES);
    if (slot->length_bytes < ALIGNMENT_BYTES ||
        slot->length_bytes + shift_bytes > BUFFER_PAYLOAD_BYTES_MAX) {
        shift_bytes = 0;
    }
    slot->shift_bytes = shift_bytes;
    return (uint32_t)slot->length_bytes + shift_bytes;
}

/* The memory is there. */
static void
buffer_ready(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;
    struct iovec *first = &slot->buffer.segments[0];

    if (slot->command == NBD_CMD_BLOCK_STATUS) {
        start_status(slot);
        return;
    }
    first->iov_base = (uint8_t *)first->iov_base + slot->shift_bytes;
    first->iov_len -= slot->shift_bytes;
    if (slot->command == NBD_CMD_READ) {
        submit(slot);
    } else {
        conn->incoming = slot;
        conn->incoming_bytes = 0;
    }
}

static void
buffer_granted(struct buffer_waiter *waiter)
{
    struct nbd_connection *conn = container_of(waiter, struct nbd_connection, waiter);
    struct nbd_slot *slot = conn->incoming;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->stall, ==, NBD_STALL_MEMORY);
    conn->shard->memory_waiters--;
    conn->stall = NBD_STALL_NONE;
    conn->incoming = NULL;
    conn->progress_ns = reactor_now_ns(conn->shard->reactor);
    buffer_ready(slot);
    nbd_transmission_run(conn);
}

static void
start_with_buffer(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;
    struct buffer_pool *pool = reactor_buffer_pool(conn->shard->reactor);
    uint32_t wanted_bytes = buffer_bytes_wanted(slot);

    if (buffer_pool_get(pool, wanted_bytes, &slot->buffer)) {
        buffer_ready(slot);
        return;
    }
    conn->incoming = slot;
    conn->incoming_bytes = 0;
    conn->stall = NBD_STALL_MEMORY;
    conn->shard->memory_waiters++;
    NBD_COUNT(conn->shard, stalls_memory, 1);
    conn->waiter.buffer = &slot->buffer;
    conn->waiter.length_bytes = wanted_bytes;
    conn->waiter.granted = buffer_granted;
    buffer_pool_wait(pool, &conn->waiter);
}

/* ---- checking ---- */

static uint32_t
refuse(struct nbd_slot *slot, uint32_t error, const char *text)
{
    slot->error_text = text;
    return error;
}

/* NBD_SUCCESS, or why the request is refused ("Error values"). */
static uint32_t
check_request(const struct nbd_connection *conn, struct nbd_slot *slot, const struct header *header)
{
    uint16_t allowed = NBD_CMD_FLAG_FUA;
    uint64_t size_bytes = conn->info.size_bytes;

    if (header->command >= NBD_CMD_COUNT || !rules[header->command].known) {
        return refuse(slot, NBD_EINVAL, "unknown command");
    }
    const struct command_rule *rule = &rules[header->command];
    allowed |= rule->flags;
    if (conn->style == NBD_STYLE_SIMPLE) {
        allowed &= (uint16_t)~NBD_CMD_FLAG_DF;
    }
    if (conn->style != NBD_STYLE_EXTENDED) {
        allowed &= (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
    }
    if ((header->flags & ~allowed) != 0) {
        return refuse(slot, NBD_EINVAL, "unknown flags");
    }
    if (rule->modifies && conn->session.read_only) {
        return refuse(slot, NBD_EPERM, "the export is read-only");
    }
    if (header->command == NBD_CMD_FLUSH) {
        return slot->offset_bytes == 0 && slot->length_bytes == 0
                   ? NBD_SUCCESS
                   : refuse(slot, NBD_EINVAL, "a flush has no range");
    }
    if (slot->offset_bytes > size_bytes || slot->length_bytes > size_bytes - slot->offset_bytes) {
        if (slot->offset_bytes < size_bytes) {
            slot->error_offset_bytes = size_bytes;
        }
        return refuse(slot, rule->out_of_bounds, "beyond the end of the export");
    }
    if (rule->carries_payload && slot->length_bytes > NBD_PAYLOAD_BYTES_MAX) {
        return refuse(slot, NBD_EINVAL, "longer than the maximum");
    }
    if (conn->block_sizes &&
        ((slot->offset_bytes | slot->length_bytes) & (conn->info.sector_bytes - 1)) != 0) {
        return refuse(slot, NBD_EINVAL, "not aligned to the minimum block size");
    }
    if (header->command == NBD_CMD_BLOCK_STATUS &&
        (slot->contexts == 0 || slot->length_bytes == 0)) {
        return refuse(slot, NBD_EINVAL, "no metadata context was selected, or an empty range");
    }
    return NBD_SUCCESS;
}

/* Bytes behind the header; false when the connection had to be closed. */
static bool
payload_length(struct nbd_connection *conn, const struct header *header, uint64_t *ret_bytes)
{
    bool flagged = (header->flags & NBD_CMD_FLAG_PAYLOAD_LEN) != 0;
    bool write = header->command == NBD_CMD_WRITE;

    *ret_bytes = 0;
    if (conn->style != NBD_STYLE_EXTENDED) {
        if (write && header->length_bytes > NBD_PAYLOAD_BYTES_SKIP_MAX) {
            nbd_connection_protocol_error(conn, "a write of %llu bytes",
                                          (unsigned long long)header->length_bytes);
            return false;
        }
        *ret_bytes = write ? header->length_bytes : 0;
        return true;
    }
    if (write && !flagged && header->length_bytes > 0) {
        /* The text says that no payload follows, but whoever forgets the flag sends it; to take
         * it for requests would let the writer of the data choose them. */
        nbd_connection_protocol_error(conn, "a write without NBD_CMD_FLAG_PAYLOAD_LEN");
        return false;
    }
    if (flagged && header->length_bytes > NBD_PAYLOAD_BYTES_MAX) {
        nbd_connection_protocol_error(conn, "a payload of %llu bytes",
                                      (unsigned long long)header->length_bytes);
        return false;
    }
    *ret_bytes = flagged ? header->length_bytes : 0;
    return true;
}

static bool
decode_header(struct nbd_connection *conn, struct header *ret_header, uint32_t *ret_header_bytes)
{
    bool extended = conn->style == NBD_STYLE_EXTENDED;
    const uint8_t *from = nbd_input_bytes(conn);
    uint32_t magic = get_be32(from);

    *ret_header_bytes = extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    if (magic != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)) {
        nbd_connection_protocol_error(conn, "no request magic: %#x", magic);
        return false;
    }
    ret_header->flags = get_be16(from + 4);
    ret_header->command = get_be16(from + 6);
    ret_header->cookie = get_be64(from + 8);
    ret_header->offset_bytes = get_be64(from + 16);
    ret_header->length_bytes = extended ? get_be64(from + 24) : get_be32(from + 24);
    return true;
}

/* ---- taking requests ---- */

static void
stall(struct nbd_connection *conn, enum nbd_stall why)
{
    conn->stall = (uint8_t)why;
    if (why == NBD_STALL_SLOTS) {
        NBD_COUNT(conn->shard, stalls_slots, 1);
    } else {
        NBD_COUNT(conn->shard, stalls_bytes, 1);
    }
}

/* A slot for the request whose header is first in the input, or NULL: stalled or closed. */
static struct nbd_slot *
slot_for(struct nbd_connection *conn, const struct header *header)
{
    const struct nbd_server_limits *limits = &nbd_connection_server(conn)->limits;
    bool payload = header->command == NBD_CMD_READ || header->command == NBD_CMD_WRITE;
    uint64_t budget_bytes = payload ? MIN(header->length_bytes, (uint64_t)NBD_PAYLOAD_BYTES_MAX)
                                    : 0;

    if (header->command == NBD_CMD_BLOCK_STATUS) {
        budget_bytes = STATUS_BUFFER_BYTES_LARGE * NBD_METACONTEXT_MAX;
    }
    if (conn->slots_in_use >= limits->slots_max) {
        stall(conn, NBD_STALL_SLOTS);
        return NULL;
    }
    if (conn->bytes_in_flight > 0 &&
        conn->bytes_in_flight + budget_bytes > limits->bytes_in_flight_max) {
        stall(conn, NBD_STALL_BYTES);
        return NULL;
    }
    struct nbd_slot *slot = nbd_slot_take(conn);
    if (slot == NULL) {
        if (conn->slots_in_use > 0) {
            stall(conn, NBD_STALL_SLOTS); /* as soon as one of ours is free again */
        } else {
            nbd_connection_close(conn, true, "out of memory");
        }
        return NULL;
    }
    slot->budget_bytes = (uint32_t)budget_bytes;
    conn->bytes_in_flight += budget_bytes;
    return slot;
}

static void
fill_slot(struct nbd_slot *slot, const struct nbd_connection *conn, const struct header *header)
{
    slot->command = header->command;
    slot->cookie = header->cookie;
    slot->offset_bytes = header->offset_bytes;
    slot->length_bytes = header->length_bytes;
    slot->dont_fragment = (header->flags & NBD_CMD_FLAG_DF) != 0;
    slot->one_extent = (header->flags & NBD_CMD_FLAG_REQ_ONE) != 0;
    slot->may_not_support = (header->flags & NBD_CMD_FLAG_FAST_ZERO) != 0;
    slot->contexts = conn->contexts;
    slot->shift_bytes = 0;
    slot->payload_count = 0;
    slot->payload_bytes = 0;
    slot->error_offset_bytes = UINT64_MAX;
    slot->error_text = "";
    slot->request.flags = 0;
    if (header->command < NBD_CMD_COUNT) {
        slot->request.operation = rules[header->command].operation;
        /* Existing clients set FUA on other commands, too; there it means nothing. */
        if (rules[header->command].modifies && (header->flags & NBD_CMD_FLAG_FUA) != 0) {
            slot->request.flags |= VOLUME_FUA;
        }
    }
    if ((header->flags & NBD_CMD_FLAG_NO_HOLE) != 0) {
        slot->request.flags |= VOLUME_NO_HOLE;
    }
    if (slot->may_not_support) {
        slot->request.flags |= VOLUME_FAST_ZERO;
    }
}

static void
start(struct nbd_slot *slot)
{
    switch (slot->command) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
        if (slot->length_bytes == 0) {
            complete_at_once(slot);
        } else {
            start_with_buffer(slot);
        }
        break;
    case NBD_CMD_BLOCK_STATUS:
        start_with_buffer(slot);
        break;
    case NBD_CMD_FLUSH:
        submit(slot);
        break;
    default:
        if (slot->length_bytes == 0) {
            complete_at_once(slot);
        } else {
            submit(slot);
        }
        break;
    }
}

/* BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: range and contexts are in the payload. */
static bool
take_status_payload(struct nbd_connection *conn, struct nbd_slot *slot, uint64_t payload_bytes)
{
    ASSERT_OP(payload_bytes, <=, nbd_input_available(conn));
    const uint8_t *data = nbd_input_bytes(conn);
    nbd_input_consume(conn, (uint32_t)payload_bytes);
    return nbd_metacontext_parse_payload(data, (size_t)payload_bytes, conn->contexts,
                                         &slot->length_bytes, &slot->contexts) == 0;
}

/* Take the request that is first in the input. False: not now. */
static bool
take_request(struct nbd_connection *conn)
{
    struct header header;
    uint32_t header_bytes =
        conn->style == NBD_STYLE_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    uint64_t payload_bytes;

    if (nbd_input_available(conn) < header_bytes ||
        !decode_header(conn, &header, &header_bytes) ||
        !payload_length(conn, &header, &payload_bytes)) {
        return false;
    }
    if (header.command == NBD_CMD_DISC) {
        nbd_connection_drain(conn);
        return false;
    }
    bool status_payload = header.command == NBD_CMD_BLOCK_STATUS && payload_bytes > 0 &&
                          payload_bytes <= 8 + 4 * NBD_METACONTEXT_MAX;
    if (status_payload && nbd_input_available(conn) < header_bytes + payload_bytes) {
        return false;
    }
    struct nbd_slot *slot = slot_for(conn, &header);
    if (slot == NULL) {
        return false;
    }
    nbd_input_consume(conn, header_bytes);
    fill_slot(slot, conn, &header);
    conn->large_payload = header.command == NBD_CMD_WRITE &&
                          header.length_bytes >= NBD_LARGE_PAYLOAD_BYTES;
    conn->taken++;
    NBD_COUNT(conn->shard, requests, 1);
    if (status_payload) {
        if (!take_status_payload(conn, slot, payload_bytes)) {
            slot->contexts = 0; /* refused below */
        }
        payload_bytes = 0;
    }
    slot->error = check_request(conn, slot, &header);
    if (slot->error == NBD_SUCCESS && payload_bytes > 0 && header.command != NBD_CMD_WRITE) {
        slot->error = refuse(slot, NBD_EINVAL, "the payload is not one of this command");
    }
    if (slot->error == NBD_SUCCESS) {
        start(slot);
    } else if (payload_bytes > 0) {
        conn->skipping = slot;
        conn->skip_bytes = payload_bytes;
    } else {
        nbd_reply_refuse(slot);
    }
    return true;
}

/* Payload that came with the header; the rest is received into place. */
static void
copy_incoming(struct nbd_connection *conn)
{
    const struct buffer *buffer = &conn->incoming->buffer;
    uint32_t skip_bytes = conn->incoming_bytes;

    for (uint32_t i = 0; i < buffer->segment_count && nbd_input_available(conn) > 0; i++) {
        const struct iovec *segment = &buffer->segments[i];
        if (skip_bytes >= segment->iov_len) {
            skip_bytes -= (uint32_t)segment->iov_len;
            continue;
        }
        uint32_t copy_bytes = MIN((uint32_t)segment->iov_len - skip_bytes,
                                  nbd_input_available(conn));
        memcpy((uint8_t *)segment->iov_base + skip_bytes, nbd_input_bytes(conn), copy_bytes);
        nbd_input_consume(conn, copy_bytes);
        conn->incoming_bytes += copy_bytes;
        skip_bytes = 0;
    }
}

static bool
step(struct nbd_connection *conn)
{
    if (conn->incoming != NULL) {
        copy_incoming(conn);
        if (conn->incoming_bytes < conn->incoming->length_bytes) {
            return false;
        }
        struct nbd_slot *slot = conn->incoming;
        conn->incoming = NULL;
        submit(slot);
        return true;
    }
    if (conn->skipping != NULL) {
        uint32_t take_bytes = (uint32_t)MIN((uint64_t)nbd_input_available(conn), conn->skip_bytes);
        nbd_input_consume(conn, take_bytes);
        conn->skip_bytes -= take_bytes;
        if (conn->skip_bytes > 0) {
            return false;
        }
        struct nbd_slot *slot = conn->skipping;
        conn->skipping = NULL;
        nbd_reply_refuse(slot);
        return true;
    }
    return take_request(conn);
}

static void
gathered(struct timer *timer)
{
    struct nbd_connection *conn = container_of(timer, struct nbd_connection, gather_timer);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (conn->state == NBD_STATE_TRANSMISSION && conn->stall == NBD_STALL_NONE) {
        nbd_stream_receive(conn);
    }
}

/* Everything is taken: receive more, now or after a while. */
static void
receive_more(struct nbd_connection *conn)
{
    struct reactor *reactor = conn->shard->reactor;
    uint32_t taken = conn->taken;

    if (conn->receiving || timer_is_armed(&conn->gather_timer)) {
        return;
    }
    conn->taken = 0;
    /* Large payload is not kept waiting: the socket holds little of it. */
    if (taken > 0 && nbd_gather_note(&conn->gather, taken, reactor_now_ns(reactor)) &&
        !conn->large_payload && conn->skipping == NULL) {
        NBD_COUNT(conn->shard, gathers, 1);
        timer_arm(reactor, &conn->gather_timer, reactor_now_ns(reactor) + NBD_GATHER_WAIT_NS,
                  gathered);
    } else {
        nbd_stream_receive(conn);
    }
}

void
nbd_transmission_run(struct nbd_connection *conn)
{
    int pulled;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (nbd_input_available(conn) > 0) {
        conn->progress_ns = reactor_now_ns(conn->shard->reactor);
        conn->progress_bytes = 0;
    }
    do {
        while (conn->state == NBD_STATE_TRANSMISSION && conn->stall == NBD_STALL_NONE &&
               step(conn)) {
        }
        if (conn->state != NBD_STATE_TRANSMISSION || conn->stall != NBD_STALL_NONE) {
            return;
        }
        pulled = nbd_stream_pull(conn);
    } while (pulled > 0);
    if (pulled == 0) {
        receive_more(conn);
    }
}

void
nbd_transmission_begin(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->slots_in_use, ==, 0u);
    NBD_COUNT(conn->shard, handshakes_done, 1);
    conn->progress_ns = reactor_now_ns(conn->shard->reactor);
    nbd_connection_enter(conn, NBD_STATE_TRANSMISSION);
    log_debug("nbd", "%s uses volume %s", conn->peer, conn->info.name);
    nbd_transmission_run(conn);
}
