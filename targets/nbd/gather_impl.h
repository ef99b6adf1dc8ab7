/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to let requests gather before they are received.
 *
 * A client with many requests in flight sends them one by one, and a server that is faster than its
 * client receives and answers them one by one: two system calls each, on either side. To look away
 * for some tens of microseconds and then receive all of them at once costs such a client nothing
 * (it has more to send and to read meanwhile) and saves a third of the server's CPU time. A client
 * that waits for each reply, however, would be slowed down. How many requests a client has in
 * flight is not visible when they are answered at once, so it is tried out and measured.
 *
 * This is a policy: no clock, no I/O. It is told of every receive, and answers whether the next one
 * should wait. Per connection:
 *
 *   PLAIN    receive at once; the time per request of an epoch is measured
 *   TRY      wait for one epoch; keeps on only if batches grow and the time per request does not
 *   GATHER   wait; left when the batches shrink, and now and then to measure PLAIN again
 *
 * A failed try doubles the number of plain epochs before the next.
 */
#ifndef TARGETS_NBD_GATHER_IMPL_H
#define TARGETS_NBD_GATHER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

enum nbd_gather_mode {
    NBD_GATHER_PLAIN,
    NBD_GATHER_TRY,
    NBD_GATHER_ON,
};

#define NBD_GATHER_WAIT_NS UINT64_C(40000)

/* Zeroed: at the beginning. */
struct nbd_gather {
    uint8_t mode;          /* enum nbd_gather_mode */
    uint32_t requests;     /* of this epoch */
    uint32_t receives;
    uint64_t epoch_ns;     /* when it began */
    uint64_t last_ns;      /* of the last receive */
    uint64_t plain_ns;     /* time per request without waiting */
    uint32_t epochs_left;  /* until the mode is looked at again */
    uint32_t backoff;      /* plain epochs after the next failed try */
};

/* A receive brought `requests` requests. True: wait NBD_GATHER_WAIT_NS before the next. */
bool nbd_gather_note(struct nbd_gather *gather, uint32_t requests, uint64_t now_ns);

#endif
