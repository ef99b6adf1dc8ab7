/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option phase: framing of options and of their replies, the look-up of exports, TLS. What
 * each option means is in options.c.
 *
 * The client must not send an option before it has the final reply to the one before, but some do;
 * what is in the input simply waits. The one exception is STARTTLS: bytes behind it were not
 * protected by TLS and must not be taken for bytes that were.
 */
#include "targets/nbd/connection_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"
#include "targets/nbd/tls_impl.h"

void
nbd_handshake_free(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;

    if (handshake != NULL) {
        byte_buffer_free(&handshake->out);
        byte_buffer_free(&handshake->names.ret_names);
        byte_buffer_free(&handshake->since_names.ret_names);
        free(handshake);
        conn->handshake = NULL;
    }
}

/* ---- replies ---- */

void
nbd_option_reply(struct nbd_connection *conn, uint32_t type, const void *data,
                 uint32_t length_bytes)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint8_t *header = byte_buffer_extend(&handshake->out, NBD_OPTION_REPLY_HEADER_BYTES);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    put_be64(header, NBD_OPTION_REPLY_MAGIC);
    put_be32(header + 8, handshake->option);
    put_be32(header + 12, type);
    put_be32(header + 16, length_bytes);
    byte_buffer_append(&handshake->out, data, length_bytes);
}

void
nbd_option_error(struct nbd_connection *conn, uint32_t type, const char *text)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT((type & UINT32_C(0x80000000)) != 0);
    log_debug("nbd", "%s: option %u refused: %s", conn->peer, conn->handshake->option, text);
    nbd_option_reply(conn, type, text, (uint32_t)strlen(text));
}

void
nbd_option_finish(struct nbd_connection *conn, enum nbd_state next)
{
    struct nbd_handshake *handshake = conn->handshake;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(handshake->out.length_bytes, >, 0u);
    handshake->next = next;
    nbd_connection_enter(conn, NBD_STATE_OPTION_REPLY);
    nbd_stream_send(conn, handshake->out.data, handshake->out.length_bytes);
}

/* ---- TLS ---- */

/* Nothing that was said before TLS counts ("NBD_OPT_STARTTLS"). */
static void
forget_negotiation(struct nbd_connection *conn)
{
    conn->style = NBD_STYLE_SIMPLE;
    nbd_connection_drop_contexts(conn);
    conn->block_sizes = false;
    conn->handshake->context_export[0] = '\0';
}

static void
begin_tls(struct nbd_connection *conn)
{
    ASSERT_OP(nbd_input_available(conn), ==, 0u);
    forget_negotiation(conn);
    if (nbd_tls_open(conn->credentials, &conn->tls) < 0) {
        nbd_connection_close(conn, true, "no memory for TLS");
        return;
    }
    nbd_connection_enter(conn, NBD_STATE_TLS_HANDSHAKE);
    nbd_stream_receive(conn);
}

void
nbd_handshake_tls(struct nbd_connection *conn)
{
    int rc = nbd_tls_handshake(conn->tls);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_TLS_HANDSHAKE);
    nbd_stream_send_pending(conn);
    if (rc == 0) {
        NBD_COUNT(conn->shard, tls_sessions, 1);
        nbd_connection_enter(conn, NBD_STATE_OPTION_HEADER);
        nbd_handshake_run(conn);
    } else if (rc == -EAGAIN) {
        nbd_stream_receive(conn);
    } else {
        nbd_connection_protocol_error(conn, "TLS handshake: %s", nbd_tls_failure(conn->tls));
    }
}

/* ---- options ---- */

void
nbd_handshake_begin(struct nbd_connection *conn)
{
    struct nbd_server *server = nbd_connection_server(conn);
    uint8_t *greeting = byte_buffer_extend(&conn->handshake->out, NBD_GREETING_BYTES);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    conn->deadline_ns =
        reactor_now_ns(conn->shard->reactor) + server->limits.handshake_timeout_ns;
    put_be64(greeting, NBD_MAGIC);
    put_be64(greeting + 8, NBD_OPTION_MAGIC);
    put_be16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    nbd_option_finish(conn, NBD_STATE_CLIENT_FLAGS);
}

static bool
take_client_flags(struct nbd_connection *conn)
{
    if (nbd_input_available(conn) < NBD_CLIENT_FLAGS_BYTES) {
        return false;
    }
    uint32_t flags = get_be32(nbd_input_bytes(conn));
    nbd_input_consume(conn, NBD_CLIENT_FLAGS_BYTES);
    if ((flags & ~(uint32_t)(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) != 0) {
        nbd_connection_protocol_error(conn, "unknown client flags %#x", flags);
        return false;
    }
    conn->handshake->fixed_newstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) != 0;
    conn->handshake->no_zeroes = (flags & NBD_FLAG_C_NO_ZEROES) != 0;
    nbd_connection_enter(conn, NBD_STATE_OPTION_HEADER);
    return true;
}

/* Reply to an option whose data has been thrown away. */
static void
finish_skipped(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;

    if (handshake->option == NBD_OPT_ABORT) {
        nbd_option_reply(conn, NBD_REP_ACK, NULL, 0);
        nbd_option_finish(conn, NBD_STATE_GOODBYE);
    } else if (handshake->option == NBD_OPT_EXPORT_NAME && handshake->shutting_down) {
        nbd_connection_close(conn, false, handshake->skip_text);
    } else if (handshake->option == NBD_OPT_EXPORT_NAME) {
        nbd_connection_protocol_error(conn, "EXPORT_NAME refused: %s", handshake->skip_text);
    } else {
        nbd_option_error(conn, handshake->skip_error, handshake->skip_text);
        nbd_option_finish(conn, handshake->shutting_down ? NBD_STATE_GOODBYE
                                                         : NBD_STATE_OPTION_HEADER);
    }
}

static bool
take_option_header(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;

    if (nbd_input_available(conn) < NBD_OPTION_HEADER_BYTES) {
        return false;
    }
    const uint8_t *header = nbd_input_bytes(conn);
    uint64_t magic = get_be64(header);
    handshake->option = get_be32(header + 8);
    handshake->option_bytes = get_be32(header + 12);
    nbd_input_consume(conn, NBD_OPTION_HEADER_BYTES);
    if (magic != NBD_OPTION_MAGIC) {
        nbd_connection_protocol_error(conn, "no option magic");
        return false;
    }
    if (!handshake->fixed_newstyle && handshake->option != NBD_OPT_EXPORT_NAME) {
        nbd_connection_protocol_error(conn, "option %u without fixed newstyle", handshake->option);
        return false;
    }
    byte_buffer_clear(&handshake->out);
    if (!nbd_option_is_refused(conn, handshake->option, handshake->option_bytes,
                               &handshake->skip_error, &handshake->skip_text)) {
        nbd_connection_enter(conn, NBD_STATE_OPTION_DATA);
        return true;
    }
    if (handshake->option_bytes > NBD_OPTION_SKIP_BYTES_MAX) {
        nbd_connection_protocol_error(conn, "option %u with %u bytes of data", handshake->option,
                                      handshake->option_bytes);
        return false;
    }
    nbd_connection_enter(conn, NBD_STATE_OPTION_SKIP);
    return true;
}

static bool
skip_option(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint32_t take_bytes = MIN(nbd_input_available(conn), handshake->option_bytes);

    nbd_input_consume(conn, take_bytes);
    handshake->option_bytes -= take_bytes;
    if (handshake->option_bytes > 0) {
        return false;
    }
    finish_skipped(conn);
    return true;
}

static bool
take_option_data(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint32_t length_bytes = handshake->option_bytes;

    ASSERT_OP(length_bytes, <=, (uint32_t)NBD_OPTION_BYTES_MAX);
    if (nbd_input_available(conn) < length_bytes) {
        return false;
    }
    const uint8_t *data = nbd_input_bytes(conn);
    nbd_input_consume(conn, length_bytes);
    nbd_option_execute(conn, data, length_bytes); /* the input does not move until it returns */
    return true;
}

/* One step. False: more bytes are needed, or the state is not one of ours any more. */
static bool
step(struct nbd_connection *conn)
{
    switch (conn->state) {
    case NBD_STATE_CLIENT_FLAGS:
        return take_client_flags(conn);
    case NBD_STATE_OPTION_HEADER:
        return take_option_header(conn);
    case NBD_STATE_OPTION_DATA:
        return take_option_data(conn);
    case NBD_STATE_OPTION_SKIP:
        return skip_option(conn);
    default:
        return false;
    }
}

static bool
wants_input(const struct nbd_connection *conn)
{
    return conn->state == NBD_STATE_CLIENT_FLAGS || conn->state == NBD_STATE_OPTION_HEADER ||
           conn->state == NBD_STATE_OPTION_DATA || conn->state == NBD_STATE_OPTION_SKIP;
}

void
nbd_handshake_run(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    do {
        while (step(conn)) {
        }
        if (!wants_input(conn)) {
            return;
        }
    } while (nbd_stream_pull(conn) > 0);
    if (wants_input(conn)) {
        nbd_stream_receive(conn);
    }
}

void
nbd_handshake_reply_sent(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_OPTION_REPLY);
    byte_buffer_free(&handshake->out);
    switch (handshake->next) {
    case NBD_STATE_CLIENT_FLAGS:
    case NBD_STATE_OPTION_HEADER:
        nbd_connection_enter(conn, handshake->next);
        nbd_handshake_run(conn);
        break;
    case NBD_STATE_TLS_HANDSHAKE:
        begin_tls(conn);
        break;
    case NBD_STATE_TRANSMISSION:
        nbd_handshake_free(conn);
        nbd_transmission_begin(conn);
        break;
    default:
        ASSERT_OP(handshake->next, ==, (uint32_t)NBD_STATE_GOODBYE);
        nbd_connection_goodbye(conn);
        break;
    }
}

/* ---- the way to the volume ---- */

/*
 * A pool that could hold the export is still being opened. A client takes "unknown" for an export
 * that is gone, so it waits instead. False: it has waited long enough.
 */
static bool
wait_for_pool(struct nbd_connection *conn, uint64_t *until_ns, uint32_t seconds)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint64_t now_ns = reactor_now_ns(conn->shard->reactor);

    if (*until_ns == 0) {
        *until_ns = now_ns + seconds * NS_PER_S;
        conn->deadline_ns += seconds * NS_PER_S; /* that time is ours */
    }
    handshake->waits = now_ns < *until_ns;
    return handshake->waits;
}

/* The one error that means "not now": clients that reconnect try again. */
static void
refuse_for_now(struct nbd_connection *conn, const char *text)
{
    conn->handshake->shutting_down = true;
    conn->handshake->skip_error = NBD_REP_ERR_SHUTDOWN;
    conn->handshake->skip_text = text;
    finish_skipped(conn);
}

void
nbd_handshake_looked_up(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    bool is_list = handshake->option == NBD_OPT_LIST;
    int status = is_list ? handshake->names.op.result : handshake->lookup.op.result;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_LOOKUP);
    ASSERT(!handshake->waits && !conn->looking_up);
    if (handshake->shutting_down) {
        refuse_for_now(conn, "the server is being shut down");
    } else if (status != -EAGAIN) {
        nbd_option_looked_up(conn);
    } else if (is_list ? wait_for_pool(conn, &handshake->list_until_ns, NBD_LIST_WAIT_S)
                       : wait_for_pool(conn, &handshake->wait_until_ns, NBD_OPENING_WAIT_S)) {
        return;
    } else if (is_list) {
        nbd_option_looked_up(conn); /* those that are known: better than none */
    } else {
        refuse_for_now(conn, "pools are still being opened; try again");
    }
}

void
nbd_handshake_look_again(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(conn->handshake->waits);
    conn->handshake->waits = false;
    nbd_option_ask(conn);
}

void
nbd_handshake_stop(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_LOOKUP);
    conn->handshake->shutting_down = true;
    if (conn->handshake->waits) {
        conn->handshake->waits = false;
        nbd_handshake_looked_up(conn);
    }
}

static void
session_event(struct volume_session *session, enum volume_session_event event)
{
    struct nbd_connection *conn = container_of(session, struct nbd_connection, session);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    if (event == VOLUME_SESSION_DROP) {
        nbd_connection_event(conn, NBD_EVENT_DROP);
    } else {
        /* The protocol has no word for it; requests are checked against the new size from now on,
         * and a client that was told by other means (QEMU's block_resize) can use it. */
        volume_get_info(conn->volume, &conn->info);
    }
}

/* On the volume's reactor. */
static int
attach(struct nbd_connection *conn)
{
    struct volume_session *session = &conn->session;
    const struct export_record *record = &conn->handshake->lookup.ret_record;

    ASSERT_ON_REACTOR(volume_reactor(conn->volume));
    session->protocol = "nbd";
    memcpy(session->peer, conn->peer, MIN(sizeof(session->peer), sizeof(conn->peer)));
    session->peer[sizeof(session->peer) - 1] = '\0';
    if (conn->tls != NULL) {
        nbd_tls_identity(conn->tls, session->identity, sizeof(session->identity));
    }
    session->export_id = record->id;
    session->read_only = record->read_only;
    session->exclusive = record->exclusive;
    session->event = session_event;
    int rc = volume_attach(conn->volume, session);
    if (rc == 0) {
        conn->attached = true;
        volume_get_info(conn->volume, &conn->info);
    }
    return rc;
}

void
nbd_handshake_arrived(struct nbd_connection *conn)
{
    struct nbd_shard *shard = conn->shard;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_MOVE);
    if (shard->stopping) {
        nbd_connection_close(conn, false, "the server stops");
    } else if (conn->volume == NULL) {
        nbd_handshake_begin(conn);
    } else {
        nbd_option_attached(conn, attach(conn));
    }
}
