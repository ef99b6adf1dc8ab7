/* SPDX-License-Identifier: Apache-2.0 */
/* An NBD server that listens to nobody. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "io/reactor.h"
#include "targets/nbd/server.h"

struct nbd_server {
    struct reactor *reactor;
    uint32_t count;
    char addresses[32][256];
    bool started;
};

void
nbd_server_options_default(struct nbd_server_options *options)
{
    *options = (struct nbd_server_options){ 0 };
}

int
nbd_server_create(const struct nbd_server_options *options, struct nbd_server **ret_server,
                  struct error *error)
{
    ASSERT_OP(options->listen_count, <=, 32u);
    struct nbd_server *server = calloc(1, sizeof(*server));
    ASSERT(server != NULL);
    server->reactor = options->reactors[0];
    server->count = options->listen_count;
    for (uint32_t i = 0; i < server->count; i++) {
        snprintf(server->addresses[i], sizeof(server->addresses[i]), "%s",
                 options->listens[i].address);
        if (strcmp(server->addresses[i], "tcp:taken:1") == 0) {
            free(server);
            return error_set(error, -EADDRINUSE, "cannot listen at tcp:taken:1");
        }
    }
    *ret_server = server;
    return 0;
}

const char *
nbd_server_bound_address(const struct nbd_server *server, uint32_t index)
{
    ASSERT_OP(index, <, server->count);
    return server->addresses[index];
}

void
nbd_server_start(struct nbd_server *server)
{
    ASSERT(!server->started);
    server->started = true;
}

int
nbd_server_reload_tls(struct nbd_server *server, struct error *error)
{
    ASSERT_ON_REACTOR(server->reactor);
    return error_set(error, -ENOENT, "the fake has no TLS files");
}

void
nbd_server_stop(struct nbd_server *server, struct nbd_server_stop *stop)
{
    ASSERT_ON_REACTOR(server->reactor);
    ASSERT(server->started);
    stop->op.reactor_id = reactor_id(server->reactor);
    reactor_complete(&stop->op, 0);
}

void
nbd_server_destroy(struct nbd_server *server)
{
    free(server);
}

void
nbd_server_statistics(const struct nbd_server *server,
                      struct nbd_server_statistics *ret_statistics)
{
    ASSERT(server->count > 0);
    *ret_statistics = (struct nbd_server_statistics){ .requests = 42 };
}
