/* SPDX-License-Identifier: Apache-2.0 */
/* The management API's HTTP server on a unix socket (api/schema.h says what it understands). */
#ifndef DAEMON_API_SERVER_H
#define DAEMON_API_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct api_server;
struct node;

/* Bind the socket (a stale one is replaced); nothing is accepted yet. Main thread. */
int api_server_create(struct node *node, struct api_server **ret_server, struct error *error);
/* Start the thread that serves. Reactor 0 runs. */
int api_server_start(struct api_server *server, struct error *error);

/*
 * Take no new calls and wait for those that run. False: some still run after the time; the server
 * must not be destroyed then. Called after the node's state has become NODE_STOPPING.
 */
bool api_server_stop(struct api_server *server, uint64_t timeout_ns);
/* Never started, or stopped. Removes the socket. */
void api_server_destroy(struct api_server *server);

struct api_server_statistics {
    uint64_t calls;
    uint64_t errors; /* answered with status 400 or above */
    uint64_t running;
};
/* Any thread. */
void api_server_get_statistics(const struct api_server *server,
                               struct api_server_statistics *ret_statistics);

#endif
