/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream sockets of the simulated machine, and the clients that tests play.
 *
 * A connection has a buffer of limited size in each direction. Bytes move in pieces whose sizes and
 * delays the seed decides. The product listens and accepts through the platform; the test connects,
 * sends, looks at what has arrived, and misbehaves.
 */
#ifndef TESTS_SIM_SIM_SOCKET_H
#define TESTS_SIM_SIM_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/sim.h"

struct sim_client;

/* Zero means the default that is named. */
struct sim_network {
    uint64_t delay_ns_min;             /* 1 us: between two pieces */
    uint64_t delay_ns_max;             /* 50 us */
    uint32_t window_bytes;             /* 64 KiB: buffer per direction */
    uint32_t reset_chance_per_million; /* of each piece */
    bool whole;                        /* pieces as large as possible, instead of by seed */
};

void sim_set_network(struct sim *sim, const struct sim_network *network);
/* While held, nothing moves on any connection (a partition); it goes on afterwards. */
void sim_hold_network(struct sim *sim, bool held);

/* Connect to what the product listens on. 0, or -ECONNREFUSED. Also inside a pass. */
int sim_connect(struct sim *sim, const char *address, struct sim_client **ret_client);
/* Queue bytes for sending; they are copied, there is no limit. Also inside a pass. */
void sim_client_send(struct sim_client *client, const void *data, size_t length_bytes);
/* Bytes that sim_client_send() took and that have not left yet. */
size_t sim_client_unsent(const struct sim_client *client);
/*
 * What has arrived and was not consumed: sets *ret_data (valid until the next step or call for this
 * client) and returns how much. Also inside a pass.
 */
size_t sim_client_received(const struct sim_client *client, const uint8_t **ret_data);
/* Forget the first bytes of what has arrived: makes room in the window. Also inside a pass. */
void sim_client_consume(struct sim_client *client, size_t length_bytes);
/* The product has closed or shut down, and everything it sent has been consumed. */
bool sim_client_at_end(const struct sim_client *client);
/* The connection was reset by the product or its death. */
bool sim_client_was_reset(const struct sim_client *client);
/* Half-close: no more bytes after those that are queued. */
void sim_client_shutdown(struct sim_client *client);
/* Leave; frees the client. With `reset`, what is under way is lost; the product sees an error. */
void sim_client_close(struct sim_client *client, bool reset);

#endif
