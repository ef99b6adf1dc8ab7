/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node: everything that one daemon consists of, wired together.
 *
 * THEORY OF OPERATION
 *
 * node_create() makes the parts and starts no thread. node_start() starts the reactors, the API
 * server and the manager, in this order, so that `volctl status` answers while pools are still
 * opening; targets begin to listen when the manager serves. node_stop() goes the other way: hosts
 * first, then running API calls, then the manager, then the threads. Both are called by the main
 * thread and wait there, watching a descriptor that says "stop waiting" (a signal).
 *
 * Control operations belong to reactor 0. Other threads (main, API) send it a message.
 *
 * There are no globals: several nodes can live in one process.
 *
 * Invariants
 *  N1  The state directory is locked before anything in it is touched and until the process ends or
 *      node_destroy().
 *  N2  Nothing that a reactor may still touch is freed: after a stop that did not end in time the
 *      node is not destroyed; the process exits, which counts as a crash (P3) and loses nothing.
 *  N3  state only goes up. Changing commands are taken in NODE_SERVING only.
 */
#ifndef DAEMON_NODE_H
#define DAEMON_NODE_H

#include <stdatomic.h>

#include "daemon/config.h"
#include "io/reactor.h"
#include "volmgr/manager.h"

struct api_server;
struct nbd_server;

enum node_state {
    NODE_STARTING,
    NODE_SERVING,
    NODE_STOPPING,
};

/* One reactor's proof of life. */
struct node_pulse {
    struct message message;
    _Atomic bool in_flight;
};

enum {
    NODE_NBD_LISTEN_MAX = CONFIG_LIST_MAX + 1
};

struct node {
    struct config config;
    char state_directory[CONFIG_TEXT_SIZE]; /* absolute */
    char volatile_directory[CONFIG_TEXT_SIZE];
    int state_lock_fd;
    struct platform *platform;
    struct reactor *reactors[REACTOR_COUNT_MAX];
    uint32_t reactor_count;
    uint32_t reactors_started;
    struct manager *manager;
    bool manager_started;
    struct nbd_server *nbd; /* NULL: no address to listen at */
    bool nbd_started;
    uint32_t nbd_listen_count;
    uint8_t nbd_tls[NODE_NBD_LISTEN_MAX]; /* enum nbd_tls_mode of each address */
    struct api_server *api;
    _Atomic int state; /* enum node_state */
    uint64_t started_realtime_ns;
    uint64_t started_monotonic_ns;
    bool memory_locked;
    uint64_t event_waits; /* calls that wait for events; reactor 0 only */
    struct node_pulse pulses[REACTOR_COUNT_MAX];
};

/* `config` is copied. 0 or -errno with `error` set and nothing left behind. Main thread. */
int node_create(const struct config *config, bool memory_locked, struct node **ret_node,
                struct error *error);

/*
 * Begin to serve. `interrupt_fd` (-1: none): when it becomes readable the wait ends with -EINTR.
 * After a failure: node_stop().
 */
int node_start(struct node *node, int interrupt_fd, struct error *error);

/*
 * Orderly end, at most for the configured time. 0: node_destroy() may follow. -ETIMEDOUT, -EINTR:
 * it did not end; the process must exit without destroying the node (N2).
 */
int node_stop(struct node *node, int interrupt_fd, struct error *error);
void node_destroy(struct node *node);

/*
 * Whether every reactor has answered since the last call. Called by the main thread, some seconds
 * apart, to decide whether the service manager's watchdog is fed.
 */
bool node_is_alive(struct node *node);

#endif
