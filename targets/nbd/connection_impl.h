/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One NBD connection: what all phases share.
 *
 * THEORY OF OPERATION
 *
 * A connection is a machine of named states and events; connection.c holds the table state x event
 * and everything about life and death, handshake.c and options.c the option phase, transmission.c
 * the requests, reply.c the answers, stream.c the bytes (plain or TLS, tls.c).
 *
 * Bytes arrive in `input`, a linear buffer; each phase consumes what is complete and leaves the
 * rest, so that a partial message costs nothing but its bytes. At most one receive and one send are
 * in flight.
 *
 * Invariants
 *  C1  A connection belongs to one shard (reactor) at a time; while it moves, only the message that
 *      carries it refers to it, and no socket operation is in flight.
 *  C2  A slot is taken before a request is consumed from `input`, and goes back when neither the
 *      volume (HOLD_VOLUME) nor the reply (HOLD_REPLY) needs it.
 *  C3  Replies leave in the order in which they became ready; a reply is never split between two
 *      others.
 *  C4  A connection ends in one place, nbd_connection_pass_end(), and only when no operation of
 *      socket, look-up or volume refers to it any more.
 *  C5  Payload that the client announced is consumed before its reply is sent, whatever the
 *      outcome, so that the stream never loses its place; where that is not sensible it is closed.
 */
#ifndef TARGETS_NBD_CONNECTION_IMPL_H
#define TARGETS_NBD_CONNECTION_IMPL_H

#include "base/byte_buffer.h"
#include "base/list.h"
#include "io/buffer_pool.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "targets/nbd/gather_impl.h"
#include "targets/nbd/metacontext_impl.h"
#include "targets/nbd/protocol.h"
#include "targets/nbd/server_impl.h"
#include "volmgr/manager.h"
#include "volmgr/request.h"
#include "volmgr/volume.h"

struct nbd_tls;

/* ---- states and events ---- */

#define NBD_STATES(X)                                                                              \
    X(CLIENT_FLAGS, "client flags")   /* greeting sent, flags awaited */                           \
    X(OPTION_HEADER, "option header") /* between options */                                        \
    X(OPTION_DATA, "option data")     /* the header is in handshake->option */                     \
    X(OPTION_SKIP, "option skip")     /* data of a refused option is thrown away */                \
    X(OPTION_REPLY, "option reply")   /* a reply is being sent; handshake->next tells what then */ \
    X(LOOKUP, "look-up")              /* the manager is asked */                                   \
    X(MOVE, "move")                   /* on the way to another reactor */                          \
    X(TLS_HANDSHAKE, "TLS handshake")                                                              \
    X(TRANSMISSION, "transmission")                                                                \
    X(DRAIN, "drain")     /* no more requests are read; those in flight end, replies leave */      \
    X(GOODBYE, "goodbye") /* the TLS close notification is being sent */                           \
    X(CLOSING, "closing") /* shut down; what is in flight comes home */

enum nbd_state {
#define NBD_STATE_NUMBER(name, text) NBD_STATE_##name,
    NBD_STATES(NBD_STATE_NUMBER)
#undef NBD_STATE_NUMBER
    NBD_STATE_COUNT
};

#define NBD_EVENTS(X)                                                                              \
    X(RECEIVED, "bytes arrived")                                                                   \
    X(SENT, "everything sent")                                                                     \
    X(PEER_CLOSED, "end of the client's bytes")                                                    \
    X(LOOKED_UP, "the manager answered")                                                           \
    X(ARRIVED, "moved to this reactor")                                                            \
    X(EXPIRED, "a deadline passed")                                                                \
    X(DROP, "the volume drops the session")                                                        \
    X(STOP, "the server stops")

enum nbd_event {
#define NBD_EVENT_NUMBER(name, text) NBD_EVENT_##name,
    NBD_EVENTS(NBD_EVENT_NUMBER)
#undef NBD_EVENT_NUMBER
    NBD_EVENT_COUNT
};

/* How requests and replies are framed; each includes what the former can do. */
enum nbd_style {
    NBD_STYLE_SIMPLE,
    NBD_STYLE_STRUCTURED,
    NBD_STYLE_EXTENDED,
};

/* Why the socket is not read although requests would be welcome. */
enum nbd_stall {
    NBD_STALL_NONE,
    NBD_STALL_SLOTS,  /* slots_max in flight */
    NBD_STALL_BYTES,  /* bytes_in_flight_max in flight */
    NBD_STALL_MEMORY, /* in line at the reactor's buffer pool */
};

enum {
    NBD_INPUT_BYTES = 256 << 10,     /* of the linear buffer */
    NBD_LOOK_AHEAD_BYTES = 4 << 10,  /* received behind large payload, to be copied later */
    NBD_LARGE_PAYLOAD_BYTES = 16 << 10, /* from here on payload is received into place */
    NBD_RECEIVE_SEGMENTS = BUFFER_SEGMENTS_MAX + 2,
    NBD_OPTION_BYTES_MAX = 64 << 10,      /* data of an option that is looked at */
    NBD_OPTION_SKIP_BYTES_MAX = 1 << 20,  /* data of an option that is skipped */
    NBD_OPENING_WAIT_S = 30, /* so long, in all, a handshake waits for pools to be opened */
    NBD_LIST_WAIT_S = 5,     /* and for a whole list of exports: then it gets what is known */
};

/* ---- slots: one request each ---- */

enum nbd_slot_hold {
    NBD_HOLD_VOLUME = 1u << 0, /* submitted, not yet released */
    NBD_HOLD_REPLY = 1u << 1,  /* the reply waits to be sent or is being sent */
};

enum {
    NBD_SLOT_HEADER_BYTES = 128, /* header of a reply, or a whole reply without payload */
};

struct nbd_slot {
    struct nbd_connection *connection; /* NULL while free */
    struct nbd_slot *next;             /* in the free list or in a queue of replies */
    struct nbd_slab *slab;
    uint8_t holds; /* enum nbd_slot_hold */
    bool dont_fragment;
    bool one_extent;
    bool may_not_support; /* FAST_ZERO: NBD_ENOTSUP is a proper answer */
    uint16_t command;     /* enum nbd_command, or a number that we do not know */
    uint8_t row;          /* BLOCK_STATUS: that is being answered, or was last */
    uint32_t contexts;    /* BLOCK_STATUS: metadata contexts that were asked for, as rows */
    uint16_t extents_counts[NBD_METACONTEXT_MAX]; /* by row */
    uint64_t cookie;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint32_t budget_bytes; /* counted in connection->bytes_in_flight */
    uint32_t shift_bytes;  /* the first segment was moved up by, to keep blocks aligned */

    /* The reply: `header`, then `payload` (segments of `buffer` or `pieces`). */
    uint32_t header_length_bytes;
    uint32_t payload_count;
    uint64_t payload_bytes;
    const struct iovec *payload;
    uint32_t error; /* of a request that was refused before it reached the volume */
    const char *error_text;
    uint64_t error_offset_bytes; /* UINT64_MAX: not known */
    struct iovec pieces[NBD_METACONTEXT_MAX];

    struct volume_request request;
    struct changes_query query;
    uint8_t header[NBD_SLOT_HEADER_BYTES];
    struct buffer buffer;
};

/* ---- batches: one send of many replies ---- */

enum {
    NBD_BATCH_SEGMENTS = 384,
    NBD_BATCH_HEADER_BYTES = 8 << 10,
    NBD_BATCH_BYTES = 2 << 20, /* a batch is not extended beyond this */
};

struct nbd_batch {
    struct nbd_batch *next;     /* in the shard's free list */
    struct nbd_slot *slots;     /* whose payload is being sent */
    uint32_t segment_count;
    uint32_t header_length_bytes;
    uint64_t length_bytes;
    struct iovec segments[NBD_BATCH_SEGMENTS];
    uint8_t headers[NBD_BATCH_HEADER_BYTES];
};

/* ---- the option phase ---- */

/* What the manager is being asked for. */
enum nbd_meta_step {
    NBD_META_EXPORT,
    NBD_META_NAMES, /* of snapshots */
    NBD_META_SINCE, /* one snapshot */
};

struct nbd_handshake {
    struct nbd_connection *connection;
    enum nbd_state next;        /* after OPTION_REPLY */
    bool fixed_newstyle;        /* the client said so */
    bool no_zeroes;
    bool shutting_down;         /* the server stops, or does not serve yet: refuse and close */
    bool waits;                 /* LOOKUP: for a pool that is being opened; asks every second */
    uint64_t wait_until_ns;     /* for that; 0: it has not waited yet */
    uint64_t list_until_ns;     /* the same, for LIST */
    uint32_t option;            /* enum nbd_option */
    uint32_t option_bytes;      /* of its data that are still to come */
    uint32_t skip_error;        /* reply after OPTION_SKIP; 0: none */
    const char *skip_text;
    uint32_t info_requests;     /* INFO, GO: bit n: the client asked for NBD_INFO n */
    char context_export[sizeof(((struct export_lookup *)NULL)->name)]; /* of SET_META_CONTEXT */
    struct byte_buffer out;     /* replies being sent */
    struct export_lookup lookup;
    struct export_names names;
    /* LIST_META_CONTEXT and SET_META_CONTEXT (meta_option.c) */
    enum nbd_meta_step meta_step;
    uint32_t since_index; /* of queries.named: that the manager is asked for */
    struct nbd_queries queries;
    struct changes_names since_names;
    struct changes_open since_open;
};

/* ---- the connection ---- */

struct nbd_connection {
    struct list link; /* the shard's connections */
    struct nbd_shard *shard;
    struct platform_socket *socket;

    uint8_t state; /* enum nbd_state */
    uint8_t style; /* enum nbd_style */
    uint8_t stall; /* enum nbd_stall */
    uint8_t tls_mode;
    bool receiving;
    bool sending;
    bool looking_up;
    bool attached;
    bool block_sizes;   /* the client promised to keep to the advertised block sizes */
    bool large_payload; /* the last write was large: receive headers in small pieces */
    bool trimmed;       /* idle: the input's memory was given back */
    bool failed_early;  /* closed in the handshake for a reason of ours */

    /* input */
    uint8_t *input;
    uint32_t input_begin;
    uint32_t input_end;
    struct socket_io receive;
    struct iovec receive_segments[NBD_RECEIVE_SEGMENTS];
    struct nbd_slot *incoming;  /* WRITE whose payload is not complete, or waits for memory */
    uint32_t incoming_bytes;    /* of its payload that are in place */
    struct nbd_slot *skipping;  /* refused request whose payload is thrown away */
    uint64_t skip_bytes;
    struct buffer_waiter waiter;
    struct nbd_gather gather;
    struct timer gather_timer; /* armed: the next receive waits for requests to gather */
    uint32_t taken;            /* requests since the last receive */

    /* output */
    struct socket_io send;
    struct iovec send_segment;
    struct nbd_batch *batch;
    struct nbd_slot *ready_first; /* replies in order */
    struct nbd_slot *ready_last;
    uint64_t ready_offset_bytes;  /* TLS: of the first reply that are encrypted already */
    struct pass_hook pass_hook;

    /* limits */
    uint32_t slots_in_use;
    uint64_t bytes_in_flight;
    uint32_t contexts; /* selected metadata contexts: bit n is row n */
    struct changes *changes[NBD_METACONTEXT_MAX]; /* by row; they hold their snapshots */
    uint64_t deadline_ns;  /* of the handshake, or of DRAIN and GOODBYE */
    uint64_t progress_ns;  /* when the client last took or gave something */
    uint64_t progress_bytes; /* since then, less than what counts as progress */

    /* the volume */
    struct volume *volume; /* held by a look-up */
    struct volume_info info;
    struct volume_session session;

    struct nbd_tls *tls;
    struct nbd_tls_credentials *credentials; /* counted by the acceptor */
    struct nbd_handshake *handshake;         /* NULL in transmission */
    struct message message; /* adoption, moving, going home */
    char peer[SOCKET_ADDRESS_SIZE];
};

static inline uint32_t
nbd_input_available(const struct nbd_connection *conn)
{
    return conn->input_end - conn->input_begin;
}

static inline const uint8_t *
nbd_input_bytes(const struct nbd_connection *conn)
{
    return conn->input + conn->input_begin;
}

static inline void
nbd_input_consume(struct nbd_connection *conn, uint32_t length_bytes)
{
    ASSERT_OP(length_bytes, <=, nbd_input_available(conn));
    conn->input_begin += length_bytes;
}

static inline struct nbd_server *
nbd_connection_server(const struct nbd_connection *conn)
{
    return conn->shard->server;
}

/* ---- connection.c ---- */

const char *nbd_state_name(enum nbd_state state);
const char *nbd_event_name(enum nbd_event event);

/* On the acceptor. NULL: out of memory; `socket` is the connection's otherwise. */
struct nbd_connection *nbd_connection_create(struct nbd_server *server,
                                             struct platform_socket *socket, const char *peer,
                                             enum nbd_tls_mode tls_mode);
/* Nothing refers to it; the socket is closed. On the acceptor. */
void nbd_connection_destroy(struct nbd_connection *conn);
/* Hand it to `shard`, which may be the current one; on arrival the event ARRIVED is raised. */
void nbd_connection_send_to(struct nbd_connection *conn, struct nbd_shard *shard);

void nbd_connection_event(struct nbd_connection *conn, enum nbd_event event);
/* Leave for another state; only from handlers. */
void nbd_connection_enter(struct nbd_connection *conn, enum nbd_state state);
/* Something is to be done at the end of this pass: replies, resuming, moving, ending. */
void nbd_connection_wake(struct nbd_connection *conn);
/* Close at once: `reason` is logged when `loud`. Requests in flight are waited for. */
void nbd_connection_close(struct nbd_connection *conn, bool loud, const char *reason);
/* The client broke the protocol. */
void nbd_connection_protocol_error(struct nbd_connection *conn, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Read no more requests; end politely when those in flight are answered. */
void nbd_connection_drain(struct nbd_connection *conn);
/* In DRAIN: go on when nothing is left to do. */
void nbd_connection_check_drained(struct nbd_connection *conn);
/* Everything is answered: end TLS where it runs, then close. */
void nbd_connection_goodbye(struct nbd_connection *conn);
/* Once per second. */
void nbd_connection_tick(struct nbd_connection *conn, uint64_t now_ns);

/* ---- handshake.c, options.c ---- */

void nbd_handshake_begin(struct nbd_connection *conn);
void nbd_handshake_run(struct nbd_connection *conn);
void nbd_handshake_reply_sent(struct nbd_connection *conn);
void nbd_handshake_looked_up(struct nbd_connection *conn);
/* Once per second while handshake->waits. */
void nbd_handshake_look_again(struct nbd_connection *conn);
void nbd_handshake_arrived(struct nbd_connection *conn);
void nbd_handshake_tls(struct nbd_connection *conn);
void nbd_handshake_stop(struct nbd_connection *conn);
void nbd_handshake_free(struct nbd_connection *conn);

/* Append one reply of the current option. */
void nbd_option_reply(struct nbd_connection *conn, uint32_t type, const void *data,
                      uint32_t length_bytes);
/* Append an error with a text for people. */
void nbd_option_error(struct nbd_connection *conn, uint32_t type, const char *text);
void nbd_option_refuse(struct nbd_connection *conn, uint32_t type, const char *text);
void nbd_option_acknowledge(struct nbd_connection *conn, enum nbd_state next);
/* Send what was appended, then go to `next`. */
void nbd_option_finish(struct nbd_connection *conn, enum nbd_state next);
/* The data of the current option is at `data`; ends in another state. */
void nbd_option_execute(struct nbd_connection *conn, const uint8_t *data, uint32_t length_bytes);
/* Before its data is read: whether an option is refused. Fills in what to reply. */
bool nbd_option_is_refused(struct nbd_connection *conn, uint32_t option, uint32_t length_bytes,
                           uint32_t *ret_error, const char **ret_text);
void nbd_option_looked_up(struct nbd_connection *conn);
/* Ask the manager for an export; a name that cannot be one is answered at once. */
void nbd_option_look_up(struct nbd_connection *conn, const uint8_t *name, uint32_t name_bytes);
void nbd_option_release_volume(struct nbd_connection *conn);
/* Ask the manager for the export that handshake->lookup names. */
void nbd_option_ask(struct nbd_connection *conn);
void nbd_option_attached(struct nbd_connection *conn, int status);

/* ---- meta_option.c ---- */

void nbd_option_meta_context(struct nbd_connection *conn, const uint8_t *data,
                             uint32_t length_bytes);
/* The manager has answered what the option waits for. */
void nbd_option_meta_looked_up(struct nbd_connection *conn);
/* Are the selected contexts of the volume that the connection has? It may have got its name. */
bool nbd_option_contexts_fit(const struct nbd_connection *conn);
/* Nothing is selected any more; snapshots are given back. No query is under way. */
void nbd_connection_drop_contexts(struct nbd_connection *conn);

/* ---- transmission.c ---- */

void nbd_transmission_begin(struct nbd_connection *conn);
/* Take requests from the input, receive more. */
void nbd_transmission_run(struct nbd_connection *conn);

/* ---- slot.c ---- */

/* Give up payload that is still being received; nothing is being received. */
void nbd_transmission_abandon(struct nbd_connection *conn);
/* NULL: out of memory. */
struct nbd_slot *nbd_slot_take(struct nbd_connection *conn);
void nbd_slot_drop_hold(struct nbd_slot *slot, enum nbd_slot_hold hold);
/* An empty batch, or NULL: out of memory. */
struct nbd_batch *nbd_batch_take(struct nbd_shard *shard);
/* Its slots have been taken off. */
void nbd_batch_give(struct nbd_shard *shard, struct nbd_batch *batch);
/* Spare slots and batches go back to the system. */
void nbd_shard_trim(struct nbd_shard *shard);
void nbd_shard_free_memory(struct nbd_shard *shard);

/* ---- reply.c ---- */

enum {
    NBD_STATUS_HEADER_BYTES = 64, /* in front of the extents: room for the chunk's header */
};
/* BLOCK_STATUS: where the extents of a context go, and are encoded in place. */
struct volume_status_extent *nbd_status_extents(const struct nbd_slot *slot, uint32_t row);
/* The NBD error of an -errno of the volume. */
uint32_t nbd_error_from_status(int status, bool may_not_support);
/* Encode the reply for slot->request.status and queue it. */
void nbd_reply_complete(struct nbd_slot *slot);
/* Queue slot->error. */
void nbd_reply_refuse(struct nbd_slot *slot);
/* Send queued replies if no send is in flight. */
void nbd_reply_flush(struct nbd_connection *conn);
/* The send has ended: slots go back. */
void nbd_reply_sent(struct nbd_connection *conn);
/* Throw away queued replies; nothing is being sent. */
void nbd_reply_discard(struct nbd_connection *conn);

/* ---- stream.c ---- */

/* -ENOMEM. */
int nbd_stream_open(struct nbd_connection *conn);
void nbd_stream_close(struct nbd_connection *conn);
/* Start to receive, unless a receive is in flight. */
void nbd_stream_receive(struct nbd_connection *conn);
/*
 * TLS: decrypt what is there into the incoming payload and the input. 1: there is more to consume;
 * 0: receive first; -errno: the connection is closed already.
 */
int nbd_stream_pull(struct nbd_connection *conn);
/* Send `length_bytes` from memory that stays valid until SENT, encrypted where TLS is on. */
void nbd_stream_send(struct nbd_connection *conn, const void *data, size_t length_bytes);
/* Send conn->batch. */
void nbd_stream_send_batch(struct nbd_connection *conn);
/* TLS: send ciphertext that is pending, unless a send is in flight. */
void nbd_stream_send_pending(struct nbd_connection *conn);
/* Idle: give memory back to the system. */
void nbd_stream_trim(struct nbd_connection *conn);

#endif
