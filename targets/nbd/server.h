/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD target: serves the exports of a manager to NBD clients over unix and TCP sockets, with
 * TLS where wanted (NBD protocol: NetworkBlockDevice/nbd doc/proto.md).
 *
 * THEORY OF OPERATION
 *
 * A server spans all reactors of a daemon. Sockets are accepted on reactors[0]; the handshake of a
 * connection runs on one reactor, taken in turn; when the client has chosen its export, the
 * connection moves to the reactor that owns the volume and stays there. Every structure belongs to
 * one reactor at a time, and reactors talk by messages only.
 *
 * A client is let in by the manager, which knows the rules of the export (its network, its name,
 * TLS or not), and by the volume: volume_attach() refuses blocked peers, and a second client where
 * one has the volume for itself.
 *
 * Back-pressure is memory: a request needs a slot and, for payload, buffers of its reactor's pool.
 * Without them the socket is not read. A slot is held until the volume has released the request
 * *and* its reply has left, so that a client that does not take its replies stops itself.
 */
#ifndef TARGETS_NBD_SERVER_H
#define TARGETS_NBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "io/op.h"

struct manager;
struct nbd_server;
struct reactor;

/* proto.md "TLS support", "Server-side requirements". */
enum nbd_tls_mode {
    NBD_TLS_OFF,      /* NOTLS: STARTTLS is refused */
    NBD_TLS_OPTIONAL, /* the client may ask for TLS; no export insists on it */
    NBD_TLS_REQUIRED, /* FORCEDTLS: nothing but STARTTLS and ABORT works before TLS */
};

struct nbd_listen {
    const char *address; /* "unix:/path" or "tcp:HOST:PORT" (io/platform.h) */
    uint32_t mode;       /* permission bits of a unix socket; 0: 0600 */
    enum nbd_tls_mode tls;
};

/*
 * Credentials, needed when any address offers TLS. X.509 and PSK may be given together. Files are
 * read by nbd_server_create() and nbd_server_reload_tls() only.
 */
struct nbd_tls_options {
    const char *ca_file;          /* PEM; checks clients; NULL: clients are not verified */
    const char *crl_file;         /* PEM; revoked client certificates; NULL: none */
    const char *certificate_file; /* PEM, with the chain; together with key_file */
    const char *key_file;         /* PEM */
    bool verify_client;           /* refuse clients without a certificate that ca_file signed */
    const char *psk_file;         /* lines "user:hexkey" (psktool) */
    const char *priority;         /* GnuTLS priority string; NULL: NORMAL plus PSK where wanted */
};

struct nbd_server_limits {
    uint32_t connections_max;        /* more are closed at once; default 4096 */
    uint32_t slots_max;              /* requests in flight of one connection; default 128 */
    uint32_t bytes_in_flight_max;    /* payload of one connection; default (and minimum) 32 MiB */
    uint64_t handshake_timeout_ns;   /* from accept to transmission; default 10 s */
    /*
     * A client that neither takes its replies nor sends the payload that it announced for this
     * long is closed when another connection of the same reactor waits for memory, and in any
     * case when the connection is being drained; default 60 s.
     */
    uint64_t stuck_timeout_ns;
    uint64_t drain_timeout_ns;       /* for replies to leave before a close that we want; 10 s */
    uint64_t idle_timeout_ns;        /* close a connection without requests; 0 (default): never */
};

struct nbd_server_options {
    struct reactor **reactors; /* [0] accepts; kept until destroy */
    uint32_t reactor_count;
    struct manager *manager;
    const struct nbd_listen *listens; /* copied */
    uint32_t listen_count;
    struct nbd_tls_options tls;
    struct nbd_server_limits limits;
};

struct nbd_server_statistics {
    uint64_t connections_accepted;
    uint64_t connections_open;
    uint64_t connections_refused; /* over the limit */
    uint64_t handshakes_done;     /* transmission was entered */
    uint64_t handshakes_failed;   /* closed before, not by the client's own ABORT or close */
    uint64_t tls_sessions;
    uint64_t protocol_errors; /* connections closed for what the client sent */
    uint64_t stuck_closed;    /* closed by stuck_timeout_ns */
    uint64_t requests;
    uint64_t request_errors;
    uint64_t received_bytes;
    uint64_t sent_bytes;
    uint64_t receives; /* completed receive operations */
    uint64_t sends;
    uint64_t gathers; /* times that a receive was put off so that requests gather */
    uint64_t stalls_slots; /* times that a socket was not read for want of a slot */
    uint64_t stalls_bytes;
    uint64_t stalls_memory;
};

/* Everything zero but the limits, which get their defaults. */
void nbd_server_options_default(struct nbd_server_options *options);

/*
 * Bind all addresses and load the credentials; nothing is accepted yet. Context: any thread, before
 * the reactors serve or from reactors[0]; may block on files. 0 or -errno with `error` set.
 */
int nbd_server_create(const struct nbd_server_options *options, struct nbd_server **ret_server,
                      struct error *error);

/* What address number `index` is really bound to ("tcp:127.0.0.1:35791"); any thread. */
const char *nbd_server_bound_address(const struct nbd_server *server, uint32_t index);

/* Begin to accept. Any thread; once. */
void nbd_server_start(struct nbd_server *server);

/*
 * Load the credential files again; connections that exist keep their old ones. On reactors[0]; may
 * block on files. On failure the old credentials stay in use. 0 or -errno with `error` set.
 */
int nbd_server_reload_tls(struct nbd_server *server, struct error *error);

/*
 * Stop: close the listening sockets, read no further request, let requests in flight end, send
 * their replies, close the connections. After `grace_ns` connections are cut; their requests are
 * still waited for, because their memory is in use (volmgr/request.h: release()). `op` completes on
 * reactors[0] with 0 when the last connection is gone, or with -ETIMEDOUT one second after
 * `grace_ns` when requests have still not been released: the server must not be destroyed then.
 * Requests that were not read get no reply: a client that reconnects sends them again.
 */
struct nbd_server_stop {
    struct io_op op;
    uint64_t grace_ns;
};
/* On reactors[0]; once, after nbd_server_start(). */
void nbd_server_stop(struct nbd_server *server, struct nbd_server_stop *stop);

/* Never started, or stopped with 0; reactors no longer run or this is reactors[0]. */
void nbd_server_destroy(struct nbd_server *server);

/* Sums over the reactors; any thread; values of one instant are not promised. */
void nbd_server_statistics(const struct nbd_server *server,
                           struct nbd_server_statistics *ret_statistics);

#endif
