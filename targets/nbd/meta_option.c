/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LIST_META_CONTEXT and SET_META_CONTEXT. The manager is asked, one thing after the other, while
 * the connection stays in its state LOOKUP: for the export; for the names of snapshots, if the
 * client wants to see them; and for each snapshot that a query names, which SET then keeps.
 */
#include "targets/nbd/connection_impl.h"

#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/util.h"

static bool
is_set(const struct nbd_connection *conn)
{
    return conn->handshake->option == NBD_OPT_SET_META_CONTEXT;
}

void
nbd_connection_drop_contexts(struct nbd_connection *conn)
{
    ASSERT_ON_REACTOR(conn->shard->reactor);
    for (uint32_t row = 0; row < NBD_METACONTEXT_MAX; row++) {
        if (conn->changes[row] != NULL) {
            manager_changes_close(conn->changes[row]);
            conn->changes[row] = NULL;
        }
    }
    conn->contexts = 0;
}

bool
nbd_option_contexts_fit(const struct nbd_connection *conn)
{
    for (uint32_t row = 0; row < NBD_METACONTEXT_MAX; row++) {
        if (conn->changes[row] != NULL && !changes_are_of(conn->changes[row], conn->volume)) {
            return false;
        }
    }
    return true;
}

void
nbd_option_meta_context(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes)
{
    struct nbd_handshake *handshake = conn->handshake;
    uint32_t name_bytes = length_bytes < 8 ? 0 : get_be32(data);

    if (is_set(conn)) {
        nbd_connection_drop_contexts(conn); /* replaced even when the option fails */
        handshake->context_export[0] = '\0';
    }
    if (conn->style == NBD_STYLE_SIMPLE) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID,
                          "structured replies must be negotiated first");
        return;
    }
    handshake->meta_step = NBD_META_EXPORT;
    handshake->since_index = 0;
    handshake->since_names.ret_more = false;
    int rc = -EINVAL;
    if (length_bytes >= 8 && name_bytes <= length_bytes - 8 &&
        name_bytes <= NBD_STRING_BYTES_MAX && memchr(data + 4, '\0', name_bytes) == NULL) {
        rc = nbd_queries_parse(data + 4 + name_bytes, length_bytes - 4 - name_bytes,
                               !is_set(conn), &handshake->queries);
    }
    if (rc == -E2BIG) {
        nbd_option_refuse(conn, NBD_REP_ERR_TOO_BIG, "too many metadata contexts");
    } else if (rc < 0) {
        nbd_option_refuse(conn, NBD_REP_ERR_INVALID, "not a list of metadata contexts");
    } else {
        nbd_option_look_up(conn, data + 4, name_bytes);
    }
}

/* ---- replies ---- */

static void
reply_context(struct nbd_connection *conn, uint32_t row, const char *name)
{
    uint8_t reply[4 + NBD_METACONTEXT_NAME_SIZE];
    size_t name_bytes = strlen(name);

    ASSERT_OP(name_bytes, <=, sizeof(reply) - 4);
    put_be32(reply, is_set(conn) ? row + 1 : 0);
    memcpy(reply + 4, name, name_bytes);
    nbd_option_reply(conn, NBD_REP_META_CONTEXT, reply, (uint32_t)(4 + name_bytes));
}

static void
reply_since(struct nbd_connection *conn, uint32_t row, enum nbd_since_form form, const char *since)
{
    char name[NBD_METACONTEXT_NAME_SIZE];

    nbd_since_name(form, since, name);
    reply_context(conn, row, name);
}

/* ---- names of snapshots, for LIST ---- */

static void
names_found(struct io_op *op)
{
    struct nbd_handshake *handshake = container_of(op, struct nbd_handshake, since_names.op);
    struct nbd_connection *conn = handshake->connection;

    ASSERT(conn->looking_up);
    conn->looking_up = false;
    nbd_connection_event(conn, NBD_EVENT_LOOKED_UP);
}

static void
ask_names(struct nbd_connection *conn)
{
    struct changes_names *names = &conn->handshake->since_names;

    memset(names, 0, sizeof(*names));
    names->op.done = names_found;
    names->volume = conn->volume;
    conn->looking_up = true;
    manager_changes_names(nbd_connection_server(conn)->manager, names);
}

static void
list_names(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    struct changes_names *names = &handshake->since_names;
    const char *text = (const char *)names->ret_names.data;

    for (uint32_t form = 0; form < NBD_SINCE_FORM_COUNT; form++) {
        size_t at = 0;
        while (handshake->queries.every[form] && at < names->ret_names.length_bytes) {
            reply_since(conn, 0, form, text + at);
            at += strlen(text + at) + 1;
        }
        if (handshake->queries.every[form] && names->ret_more) {
            reply_since(conn, 0, form, ""); /* whoever knows older names can ask for them */
        }
    }
    byte_buffer_free(&names->ret_names);
}

/* ---- one snapshot after the other ---- */

static const struct nbd_since *
current_since(const struct nbd_handshake *handshake)
{
    ASSERT_OP(handshake->since_index, <, handshake->queries.count);
    return &handshake->queries.named[handshake->since_index];
}

static void
since_opened(struct io_op *op)
{
    struct nbd_handshake *handshake = container_of(op, struct nbd_handshake, since_open.op);
    struct nbd_connection *conn = handshake->connection;

    ASSERT(conn->looking_up);
    conn->looking_up = false;
    if (op->result == 0 && is_set(conn)) {
        /* Where the end of the connection finds it. */
        conn->changes[handshake->since_index + 1] = handshake->since_open.ret_changes;
    } else if (op->result == 0) {
        manager_changes_close(handshake->since_open.ret_changes);
    }
    nbd_connection_event(conn, NBD_EVENT_LOOKED_UP);
}

static void
ask_since(struct nbd_connection *conn)
{
    struct changes_open *open = &conn->handshake->since_open;

    memset(open, 0, sizeof(*open));
    open->op.done = since_opened;
    open->volume = conn->volume;
    memcpy(open->since, current_since(conn->handshake)->since, sizeof(open->since));
    conn->looking_up = true;
    manager_changes_open(nbd_connection_server(conn)->manager, open);
}

/* The manager has answered for one of them: a name that it does not know is no error. */
static void
take_since(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    const struct nbd_since *since = current_since(handshake);
    uint32_t row = handshake->since_index + 1;

    if (handshake->since_open.op.result < 0) {
        return;
    }
    reply_since(conn, row, since->form, since->since);
    if (is_set(conn)) {
        conn->contexts |= 1u << row;
    }
}

/* LIST has told of it already, if it exists: together with all the others. */
static bool
is_listed(const struct nbd_handshake *handshake)
{
    const struct nbd_since *since = current_since(handshake);
    return handshake->queries.every[since->form] && strchr(since->since, '@') == NULL &&
           !handshake->since_names.ret_more;
}

/* ---- all in turn ---- */

static void
reply_allocation(struct nbd_connection *conn)
{
    if (conn->handshake->queries.allocation) {
        reply_context(conn, NBD_METACONTEXT_ALLOCATION, NBD_BASE_ALLOCATION);
        if (is_set(conn)) {
            conn->contexts |= 1u << NBD_METACONTEXT_ALLOCATION;
        }
    }
}

static void
ask_next(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;

    handshake->meta_step = NBD_META_SINCE;
    while (handshake->since_index < handshake->queries.count) {
        if (!is_listed(handshake)) {
            ask_since(conn);
            return;
        }
        handshake->since_index++;
    }
    nbd_option_release_volume(conn);
    if (is_set(conn)) {
        memcpy(handshake->context_export, handshake->lookup.name, sizeof(handshake->lookup.name));
    }
    nbd_option_acknowledge(conn, NBD_STATE_OPTION_HEADER);
}

void
nbd_option_meta_looked_up(struct nbd_connection *conn)
{
    struct nbd_handshake *handshake = conn->handshake;
    const struct nbd_queries *queries = &handshake->queries;

    ASSERT_OP(conn->state, ==, NBD_STATE_LOOKUP);
    switch (handshake->meta_step) {
    case NBD_META_EXPORT:
        reply_allocation(conn);
        if (queries->every[NBD_SINCE_QEMU] || queries->every[NBD_SINCE_OWN]) {
            handshake->meta_step = NBD_META_NAMES;
            ask_names(conn);
            return;
        }
        break;
    case NBD_META_NAMES:
        list_names(conn);
        break;
    case NBD_META_SINCE:
        take_since(conn);
        handshake->since_index++;
        break;
    }
    ask_next(conn);
}
