/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NBD server on a simulated machine that lives as long as the fuzzer; each input is a client.
 * After each, nothing may be left of it: no connection, session, request or payload memory.
 */
#ifndef TESTS_FUZZ_NBD_FUZZ_H
#define TESTS_FUZZ_NBD_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/reactor.h"
#include "targets/nbd/server.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_socket.h"
#include "tests/unit/nbd/fake_volume.h"

struct nbd_fuzz {
    struct sim *sim;
    struct reactor *reactor;
    struct manager *manager;
    struct volume *disk;      /* "p/d", 4 MiB, writable; snapshots "s" and "v@t" */
    struct volume *read_only; /* "p/r" */
    struct nbd_server *server;
    uint64_t pool_bytes;
    uint64_t connections;
};

#define NBD_FUZZ_PLAIN    "unix:/plain"
#define NBD_FUZZ_OPTIONAL "unix:/optional"
#define NBD_FUZZ_REQUIRED "unix:/required"

/* `tls`: NULL where TLS is not wanted. */
void nbd_fuzz_start(struct nbd_fuzz *fuzz, const struct nbd_tls_options *tls);
/* Run until nothing happens; what the server sent is thrown away. */
void nbd_fuzz_settle(struct nbd_fuzz *fuzz, struct sim_client *client);
/* Send in pieces of `piece_bytes` (0: whole), with the server idle in between. */
void nbd_fuzz_send(struct nbd_fuzz *fuzz, struct sim_client *client, const uint8_t *data,
                   size_t size, size_t piece_bytes);
/* The client leaves; abort if anything of it stays. */
void nbd_fuzz_end(struct nbd_fuzz *fuzz, struct sim_client *client, bool reset);

#endif
