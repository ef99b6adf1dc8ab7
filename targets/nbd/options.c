/* SPDX-License-Identifier: Apache-2.0 */
/* What each option of the handshake means (proto.md, "Option types"). */
#include "targets/nbd/connection_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "base/size_text.h"
#include "base/util.h"
#include "targets/nbd/tls_impl.h"

typedef void option_fn(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes);

/* ---- small things ---- */

void
nbd_option_refuse(struct nbd_connection *conn, uint32_t type, const char *text)
{
    nbd_option_error(conn, type, text);
    nbd_option_finish(conn, NBD_STATE_OPTION_HEADER);
}

void
nbd_option_acknowledge(struct nbd_connection *conn, enum nbd_state next)
{
    nbd_option_reply(conn, NBD_REP_ACK, NULL, 0);
    nbd_option_finish(conn, next);
}

static uint16_t
transmission_flags(const struct nbd_connection *conn)
{
    const struct nbd_handshake *handshake = conn->handshake;
    const struct export_record *record = &handshake->lookup.ret_record;
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_CACHE;

    if (record->read_only) {
        flags |= NBD_FLAG_READ_ONLY;
    } else {
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    }
    if (!record->exclusive) {
        flags |= NBD_FLAG_CAN_MULTI_CONN; /* all connections share one volume: P1, P2 */
    }
    if (conn->style >= NBD_STYLE_STRUCTURED) {
        flags |= NBD_FLAG_SEND_DF;
    }
    if (conn->style == NBD_STYLE_EXTENDED &&
        (conn->contexts != 0 || handshake->option == NBD_OPT_INFO)) {
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    }
    return flags;
}

/* ---- looking up ---- */

static void
looked_up(struct io_op *op)
{
    struct nbd_handshake *handshake = container_of(op, struct nbd_handshake, lookup.op);
    struct nbd_connection *conn = handshake->connection;

    ASSERT(conn->looking_up);
    conn->looking_up = false;
    if (op->result == 0) {
        conn->volume = handshake->lookup.ret_volume; /* held; released in any case */
        conn->info = handshake->lookup.ret_info;
    }
    nbd_connection_event(conn, NBD_EVENT_LOOKED_UP);
}

static void
names_found(struct io_op *op)
{
    struct nbd_handshake *handshake = container_of(op, struct nbd_handshake, names.op);
    struct nbd_connection *conn = handshake->connection;

    ASSERT(conn->looking_up);
    conn->looking_up = false;
    nbd_connection_event(conn, NBD_EVENT_LOOKED_UP);
}

/* Who asks: the manager keeps to the rules of the export. */
static void
describe_client(const struct nbd_connection *conn, struct export_client *ret_client)
{
    memset(ret_client, 0, sizeof(*ret_client));
    memcpy(ret_client->peer, conn->peer, MIN(sizeof(ret_client->peer), sizeof(conn->peer)));
    ret_client->peer[sizeof(ret_client->peer) - 1] = '\0';
    ret_client->tls = conn->tls != NULL;
    if (conn->tls != NULL) {
        nbd_tls_identity(conn->tls, ret_client->identity, sizeof(ret_client->identity));
    }
}

static void
ask_for_names(struct nbd_connection *conn)
{
    struct export_names *names = &conn->handshake->names;

    byte_buffer_free(&names->ret_names);
    memset(names, 0, sizeof(*names));
    snprintf(names->protocol, sizeof(names->protocol), "nbd");
    describe_client(conn, &names->client);
    names->op.done = names_found;
    conn->looking_up = true;
    manager_export_names(nbd_connection_server(conn)->manager, names);
}

void
nbd_option_ask(struct nbd_connection *conn)
{
    struct export_lookup *lookup = &conn->handshake->lookup;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(conn->state == NBD_STATE_LOOKUP && !conn->looking_up);
    if (conn->handshake->option == NBD_OPT_LIST) {
        ask_for_names(conn);
        return;
    }
    lookup->op.done = looked_up;
    conn->looking_up = true;
    manager_export_lookup(nbd_connection_server(conn)->manager, lookup);
}

/* Ask the manager for an export; a name that cannot be one is answered at once. */
void
nbd_option_look_up(struct nbd_connection *conn, const uint8_t *name, uint32_t name_bytes)
{
    struct export_lookup *lookup = &conn->handshake->lookup;

    ASSERT(conn->volume == NULL);
    nbd_connection_enter(conn, NBD_STATE_LOOKUP);
    memset(lookup, 0, sizeof(*lookup));
    if (name_bytes >= sizeof(lookup->name)) {
        lookup->op.result = -ENOENT;
        nbd_option_looked_up(conn);
        return;
    }
    snprintf(lookup->protocol, sizeof(lookup->protocol), "nbd");
    memcpy(lookup->name, name, name_bytes);
    describe_client(conn, &lookup->client);
    nbd_option_ask(conn);
}

void
nbd_option_release_volume(struct nbd_connection *conn)
{
    manager_export_release(nbd_connection_server(conn)->manager, conn->volume);
    conn->volume = NULL;
}

static const char *
lookup_failure(int status)
{
    switch (status) {
    case -ENOENT:
        return "no export of this name";
    case -EACCES:
        return "this client may not use the export";
    case -ENOKEY:
        return "the export needs TLS";
    default:
        return "the export is not being served";
    }
}

/*
 * "TLS support", SELECTIVETLS: ERR_TLS_REQD belongs to INFO and GO of an export that is TLS-only,
 * and to clients that could still turn to TLS here.
 */
static uint32_t
lookup_error(const struct nbd_connection *conn, int status)
{
    uint32_t option = conn->handshake->option;

    if (status == -ENOKEY && conn->tls_mode != NBD_TLS_OFF &&
        (option == NBD_OPT_INFO || option == NBD_OPT_GO)) {
        ASSERT(conn->tls == NULL);
        return NBD_REP_ERR_TLS_REQD;
    }
    return status == -EACCES || status == -ENOKEY ? NBD_REP_ERR_POLICY : NBD_REP_ERR_UNKNOWN;
}

/* ---- options that change the way of talking ---- */

static void
option_structured_reply(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    (void)data;
    (void)length_bytes;
    if (conn->style == NBD_STYLE_EXTENDED) {
        nbd_option_refuse(conn, NBD_REP_ERR_EXT_HEADER_REQD, "extended headers are in use");
    } else if (conn->style == NBD_STYLE_STRUCTURED) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID, "structured replies are in use already");
    } else {
        conn->style = NBD_STYLE_STRUCTURED;
        nbd_option_acknowledge(conn, NBD_STATE_OPTION_HEADER);
    }
}

static void
option_extended_headers(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    (void)data;
    (void)length_bytes;
    if (conn->style == NBD_STYLE_EXTENDED) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID, "extended headers are in use already");
    } else {
        conn->style = NBD_STYLE_EXTENDED;
        nbd_option_acknowledge(conn, NBD_STATE_OPTION_HEADER);
    }
}

static void
option_starttls(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    (void)data;
    (void)length_bytes;
    if (conn->tls_mode == NBD_TLS_OFF) {
        nbd_option_refuse(conn, NBD_REP_ERR_POLICY, "TLS is not configured");
    } else if (conn->tls != NULL) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID, "TLS is in use already");
    } else if (nbd_input_available(conn) > 0) {
        /* Whoever sent this could have been in the middle: it must never be read as protected. */
        nbd_connection_protocol_error(conn, "plain bytes behind STARTTLS");
    } else {
        nbd_option_acknowledge(conn, NBD_STATE_TLS_HANDSHAKE);
    }
}

/* ---- LIST ---- */

static void
option_list(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    (void)data;
    (void)length_bytes;
    nbd_connection_enter(conn, NBD_STATE_LOOKUP);
    nbd_option_ask(conn);
}

static void
list_answered(struct nbd_connection *conn)
{
    struct export_names *names = &conn->handshake->names;
    const char *at = (const char *)names->ret_names.data;
    size_t left_bytes = names->ret_names.length_bytes;
    uint8_t reply[4 + sizeof(conn->handshake->lookup.name)];

    if (names->op.result < 0 && names->op.result != -EAGAIN) {
        nbd_option_refuse(conn, NBD_REP_ERR_POLICY, "exports cannot be listed now");
        return;
    }
    while (left_bytes > 0) {
        uint32_t name_bytes = (uint32_t)strnlen(at, left_bytes);
        ASSERT_OP(name_bytes, <, left_bytes); /* the manager ends each with a NUL */
        ASSERT_OP(name_bytes, <=, sizeof(reply) - 4);
        put_be32(reply, name_bytes);
        memcpy(reply + 4, at, name_bytes);
        nbd_option_reply(conn, NBD_REP_SERVER, reply, 4 + name_bytes);
        at += name_bytes + 1;
        left_bytes -= name_bytes + 1;
    }
    byte_buffer_free(&names->ret_names);
    nbd_option_acknowledge(conn, NBD_STATE_OPTION_HEADER);
}

/* ---- INFO and GO ---- */

static void
option_info_or_go(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint32_t name_bytes = length_bytes < 6 ? 0 : get_be32(data);

    if (length_bytes < 6 || name_bytes > length_bytes - 6 ||
        length_bytes - 6 - name_bytes != 2u * get_be16(data + 4 + name_bytes)) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID, "lengths do not fit");
        return;
    }
    if (name_bytes > NBD_STRING_BYTES_MAX || memchr(data + 4, '\0', name_bytes) != NULL) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID, "not an export name");
        return;
    }
    handshake->info_requests = 0;
    for (uint32_t at = 6 + name_bytes; at < length_bytes; at += 2) {
        uint16_t info = get_be16(data + at);
        if (info <= NBD_INFO_BLOCK_SIZE) {
            handshake->info_requests |= 1u << info;
        }
    }
    nbd_option_look_up(conn, data + 4, name_bytes);
}

static void
info_text(struct nbd_connection *conn, enum nbd_info info, const char *text)
{
    uint8_t reply[2 + 512];
    size_t text_bytes = MIN(strlen(text), sizeof(reply) - 2);

    put_be16(reply, (uint16_t)info);
    memcpy(reply + 2, text, text_bytes);
    nbd_option_reply(conn, NBD_REP_INFO, reply, (uint32_t)(2 + text_bytes));
}

static void
info_replies(struct nbd_connection *conn)
{
    const struct nbd_handshake *handshake = conn->handshake;
    bool asked_sizes = (handshake->info_requests & (1u << NBD_INFO_BLOCK_SIZE)) != 0;
    uint8_t export[12];
    uint8_t sizes[14];

    put_be16(export, NBD_INFO_EXPORT);
    put_be64(export + 2, conn->info.size_bytes);
    put_be16(export + 10, transmission_flags(conn));
    nbd_option_reply(conn, NBD_REP_INFO, export, sizeof(export));
    if ((handshake->info_requests & (1u << NBD_INFO_NAME)) != 0) {
        info_text(conn, NBD_INFO_NAME, handshake->lookup.ret_record.name);
    }
    if ((handshake->info_requests & (1u << NBD_INFO_DESCRIPTION)) != 0) {
        char size[SIZE_TEXT_SIZE];
        char text[2 * NAME_BYTES_MAX + 64];
        snprintf(text, sizeof(text), "volume %s/%s, %s", conn->info.pool_name, conn->info.name,
                 size_format(conn->info.size_bytes, size));
        info_text(conn, NBD_INFO_DESCRIPTION, text);
    }
    /* Bytes are served to who did not ask; who asked promises to keep to sectors. */
    put_be16(sizes, NBD_INFO_BLOCK_SIZE);
    put_be32(sizes + 2, asked_sizes ? conn->info.sector_bytes : 1);
    put_be32(sizes + 6, conn->info.block_bytes);
    put_be32(sizes + 10, NBD_PAYLOAD_BYTES_MAX);
    nbd_option_reply(conn, NBD_REP_INFO, sizes, sizeof(sizes));
}

/* ---- EXPORT_NAME ---- */

static void
option_export_name(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    if (conn->style == NBD_STYLE_EXTENDED) {
        nbd_connection_protocol_error(conn, "EXPORT_NAME with extended headers");
    } else if (memchr(data, '\0', length_bytes) != NULL) {
        nbd_connection_protocol_error(conn, "not an export name");
    } else {
        nbd_option_look_up(conn, data, length_bytes);
    }
}

static void
export_name_answer(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint32_t zeroes = handshake->no_zeroes ? 0 : NBD_EXPORT_NAME_ZEROES;
    uint8_t *reply = byte_buffer_extend(&handshake->out, 10 + zeroes);

    put_be64(reply, conn->info.size_bytes);
    put_be16(reply + 8, transmission_flags(conn));
    memset(reply + 10, 0, zeroes);
    nbd_option_finish(conn, NBD_STATE_TRANSMISSION);
}

/* ---- answers of the manager ---- */

/* GO and EXPORT_NAME: contexts count for the export that they were selected for only. */
static void
go_to_volume(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;

    if (strcmp(handshake->context_export, handshake->lookup.name) != 0 ||
        !nbd_option_contexts_fit(conn)) {
        nbd_connection_drop_contexts(conn);
    }
    conn->block_sizes = (handshake->info_requests & (1u << NBD_INFO_BLOCK_SIZE)) != 0 &&
                        handshake->option == NBD_OPT_GO;
    nbd_connection_enter(conn, NBD_STATE_MOVE);
    nbd_connection_wake(conn);
}

void
nbd_option_looked_up(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    int status = handshake->lookup.op.result;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_LOOKUP);
    if (handshake->option == NBD_OPT_LIST) {
        list_answered(conn);
        return;
    }
    if (status < 0 && handshake->option == NBD_OPT_EXPORT_NAME) {
        nbd_connection_protocol_error(conn, "EXPORT_NAME: %s", lookup_failure(status));
        return;
    }
    if (status < 0) {
        nbd_option_refuse(conn, lookup_error(conn, status), lookup_failure(status));
        return;
    }
    switch (handshake->option) {
    case NBD_OPT_GO:
    case NBD_OPT_EXPORT_NAME:
        go_to_volume(conn);
        return;
    case NBD_OPT_INFO:
        info_replies(conn);
        nbd_option_release_volume(conn);
        nbd_option_acknowledge(conn, NBD_STATE_OPTION_HEADER);
        return;
    default:
        nbd_option_meta_looked_up(conn);
        return;
    }
}

void
nbd_option_attached(struct nbd_connection *conn, int status)
{
    bool go = conn->handshake->option == NBD_OPT_GO;

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT_OP(conn->state, ==, NBD_STATE_MOVE);
    if (status == 0 && go) {
        info_replies(conn);
        nbd_option_acknowledge(conn, NBD_STATE_TRANSMISSION);
        return;
    }
    if (status == 0) {
        export_name_answer(conn);
        return;
    }
    nbd_option_release_volume(conn);
    if (!go) {
        conn->failed_early = true;
        nbd_connection_close(conn, true, "EXPORT_NAME: the volume cannot be attached");
    } else if (status == -EBUSY) {
        nbd_option_refuse(conn, NBD_REP_ERR_POLICY, "the volume is in use, and not to be shared");
    } else if (status == -EACCES) {
        nbd_option_refuse(conn, NBD_REP_ERR_POLICY, "this client is blocked");
    } else {
        nbd_option_refuse(conn, NBD_REP_ERR_UNKNOWN, "the export is not being served");
    }
}

/* ---- the table ---- */

static const struct option_row {
    uint32_t option;
    bool before_tls; /* allowed before TLS where TLS is required */
    bool has_data;   /* otherwise data is an error */
    option_fn *execute;
} options[] = {
    { NBD_OPT_EXPORT_NAME, false, true, option_export_name },
    { NBD_OPT_LIST, false, false, option_list },
    { NBD_OPT_STARTTLS, true, false, option_starttls },
    { NBD_OPT_INFO, false, true, option_info_or_go },
    { NBD_OPT_GO, false, true, option_info_or_go },
    { NBD_OPT_STRUCTURED_REPLY, false, false, option_structured_reply },
    { NBD_OPT_LIST_META_CONTEXT, false, true, nbd_option_meta_context },
    { NBD_OPT_SET_META_CONTEXT, false, true, nbd_option_meta_context },
    { NBD_OPT_EXTENDED_HEADERS, false, false, option_extended_headers },
};

static const struct option_row *
find_option(uint32_t option)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (options[i].option == option) {
            return &options[i];
        }
    }
    return NULL;
}

bool
nbd_option_is_refused(struct nbd_connection *conn, uint32_t option, uint32_t length_bytes,
                      uint32_t *ret_error, const char **ret_text)
{
    const struct option_row *row = find_option(option);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    *ret_text = "";
    if (option == NBD_OPT_ABORT) {
        *ret_error = 0; /* acknowledged, whatever data comes with it */
        return true;
    }
    if (conn->tls_mode == NBD_TLS_REQUIRED && conn->tls == NULL &&
        (row == NULL || !row->before_tls)) {
        *ret_error = NBD_REP_ERR_TLS_REQD;
        *ret_text = "TLS is required";
        return true;
    }
    if (row == NULL) {
        *ret_error = NBD_REP_ERR_UNSUP;
        *ret_text = "unknown option";
        return true;
    }
    if (!row->has_data && length_bytes > 0) {
        *ret_error = NBD_REP_ERR_INVALID;
        *ret_text = "the option has no data";
        return true;
    }
    if (length_bytes > NBD_OPTION_BYTES_MAX) {
        *ret_error = NBD_REP_ERR_TOO_BIG;
        *ret_text = "too much data";
        return true;
    }
    return false;
}

void
nbd_option_execute(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    const struct option_row *row = find_option(conn->handshake->option);

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(row != NULL);
    row->execute(conn, data, length_bytes);
}
