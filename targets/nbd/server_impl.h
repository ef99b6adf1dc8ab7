/* SPDX-License-Identifier: Apache-2.0 */
/* The server and its shards, one per reactor. */
#ifndef TARGETS_NBD_SERVER_IMPL_H
#define TARGETS_NBD_SERVER_IMPL_H

#include "base/list.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "targets/nbd/server.h"

struct nbd_batch;
struct nbd_slot;
struct nbd_tls_credentials;

/* Lets through a few lines per interval and says how many it held back. */
struct nbd_log_limit {
    uint64_t interval_start_ns;
    uint32_t count;
    uint32_t suppressed;
};

/* What one reactor holds. Owner only, but `statistics` is read from anywhere. */
struct nbd_shard {
    struct nbd_server *server;
    struct reactor *reactor;
    uint32_t index;
    bool stopping;
    struct list connections;
    struct timer tick;
    struct message message;     /* rounds of stopping */
    struct message cut_message;

    struct nbd_slot *free_slots;
    struct list slabs;
    uint32_t slots_free;
    uint32_t slots_total;
    struct nbd_batch *free_batches;
    uint32_t batches_free;
    uint32_t memory_waiters; /* connections in line at the buffer pool */
    uint8_t *scratch;        /* TLS: one record of plaintext being gathered */

    struct nbd_log_limit log_limit;
    struct nbd_server_statistics statistics;
};

struct nbd_listener {
    struct nbd_server *server;
    struct platform_socket *socket;
    enum nbd_tls_mode tls;
    bool accepting; /* an accept is in flight */
    struct socket_accept accept;
    struct timer retry;
    char bound[SOCKET_ADDRESS_SIZE];
};

struct nbd_server {
    struct manager *manager;
    struct reactor *acceptor; /* reactors[0]; everything below belongs to it once started */
    struct nbd_server_limits limits;
    struct nbd_tls_options tls_options; /* own copies of the strings */
    struct nbd_tls_credentials *credentials;
    struct nbd_listener *listeners;
    uint32_t listener_count;
    uint32_t next_shard;
    uint32_t connections_open;
    uint32_t shards_pending; /* have not answered the current round */
    bool started;
    bool stopping;
    bool cut;      /* the grace period is over */
    bool retiring; /* the last round is on its way */
    bool stopped;
    struct message start_message;
    struct timer stop_timer;
    struct nbd_server_stop *stop;
    uint32_t shard_count;
    struct nbd_shard *shards;
};

/* Counters are written by one thread and read by any: no torn values, no lock. */
#define NBD_COUNT(shard, field, number)                                                            \
    __atomic_store_n(&(shard)->statistics.field, (shard)->statistics.field + (number),             \
                     __ATOMIC_RELAXED)

/* Shard of a reactor, or NULL when the server was not given that reactor. */
struct nbd_shard *nbd_server_shard_of(struct nbd_server *server, const struct reactor *reactor);
/* On the acceptor: a connection came home. */
void nbd_server_connection_gone(struct nbd_server *server);
/* Whether a line may be logged now; appends nothing itself. */
bool nbd_log_allowed(struct nbd_shard *shard);
/* Have the once-per-second timer run while there are connections. */
void nbd_shard_arm_tick(struct nbd_shard *shard);

#endif
