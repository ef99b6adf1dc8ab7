/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The management API's HTTP server (api/schema.h says what it understands): on a unix socket, and
 * on TCP with TLS where the configuration says so (daemon/api_tls.h: who may do what there).
 */
#ifndef DAEMON_API_SERVER_H
#define DAEMON_API_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct api_server;
struct node;

/* Bind the sockets (a stale unix socket is replaced); nothing is accepted yet. Main thread. */
int api_server_create(struct node *node, struct api_server **ret_server, struct error *error);
/* Start the threads that serve, one for each address. Reactor 0 runs. */
int api_server_start(struct api_server *server, struct error *error);

/*
 * Take no new calls and wait for those that run. False: some still run after the time; the server
 * must not be destroyed then. Called after the node's state has become NODE_STOPPING.
 */
bool api_server_stop(struct api_server *server, uint64_t timeout_ns);
/* Never started, or stopped. Removes the socket. */
void api_server_destroy(struct api_server *server);

/*
 * Read the TLS files again; connections that exist keep what they have. On failure the old
 * credentials stay in use. Main thread; may block.
 */
int api_server_reload_tls(struct api_server *server, struct error *error);

/* Address number `index` with TLS, such as "tcp:192.0.2.1:10808"; NULL behind the last. */
const char *api_server_tcp_address(const struct api_server *server, uint32_t index);

struct api_server_statistics {
    uint64_t calls;
    uint64_t errors; /* answered with status 400 or above */
    uint64_t running;
};
/* Any thread. */
void api_server_get_statistics(const struct api_server *server,
                               struct api_server_statistics *ret_statistics);

#endif
