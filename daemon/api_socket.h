/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets at which the management API listens. Main thread, before others start; they may block. */
#ifndef DAEMON_API_SOCKET_H
#define DAEMON_API_SOCKET_H

#include "base/error.h"

enum {
    API_ADDRESS_SIZE = 300
};

/*
 * Listen at a unix socket that `group` (empty: the daemon's own) may use; a stale one is replaced.
 * 0, -EADDRINUSE: another process listens there; or -errno. Afterwards the caller owns the
 * descriptor and the file.
 */
int api_socket_unix(const char *path, const char *group, int *ret_fd, struct error *error);

/* Listen at "HOST:PORT"; `ret_address` is what that has become, "tcp:192.0.2.1:10808". */
int api_socket_tcp(const char *text, int *ret_fd, char ret_address[static API_ADDRESS_SIZE],
                   struct error *error);

#endif
