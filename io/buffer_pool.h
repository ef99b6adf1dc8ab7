/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payload memory of one reactor: one region, aligned and registered with the ring, handed out in
 * power-of-two blocks from 4 KiB to 1 MiB (a buddy allocator). Longer payloads get blocks of 1 MiB
 * and one for the rest.
 *
 * A request takes all that it needs at once or waits in line (first come, first served among the
 * large; small ones up to BUFFER_SMALL_BYTES may pass while a large one waits, from a reserve
 * that only they may use), and no holder ever waits for more: there is no deadlock. Owner only.
 */
#ifndef IO_BUFFER_POOL_H
#define IO_BUFFER_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/list.h"

struct buffer_pool;
struct reactor;

enum {
    BUFFER_BLOCK_BYTES_MIN = 4096,
    BUFFER_BLOCK_BYTES_MAX = 1 << 20,
    BUFFER_SMALL_BYTES = 128 << 10,
    BUFFER_PAYLOAD_BYTES_MAX = 32 << 20,
    BUFFER_SEGMENTS_MAX = BUFFER_PAYLOAD_BYTES_MAX / BUFFER_BLOCK_BYTES_MAX,
};

/*
 * Memory for one payload. Zeroed = holds nothing. The holder may shorten iov_len, but must not
 * change iov_base or the counts. The content is whatever was there before.
 */
struct buffer {
    struct iovec segments[BUFFER_SEGMENTS_MAX]; /* iov_len sums to length_bytes */
    uint32_t segment_count;
    uint32_t length_bytes;
};

struct buffer_waiter;
typedef void buffer_granted_fn(struct buffer_waiter *waiter);
struct buffer_waiter {
    struct list link;
    struct buffer *buffer;
    uint32_t length_bytes;
    buffer_granted_fn *granted; /* called from the loop, with the buffer filled in */
};

/* `size_bytes` >= 2 * BUFFER_PAYLOAD_BYTES_MAX. 0 or -ENOMEM. */
int buffer_pool_create(struct reactor *reactor, uint64_t size_bytes,
                       struct buffer_pool **ret_pool);
void buffer_pool_destroy(struct buffer_pool *pool); /* nothing handed out */

/* 0 < length_bytes <= BUFFER_PAYLOAD_BYTES_MAX. False: not now, nothing taken. O(1) to 1 MiB. */
bool buffer_pool_get(struct buffer_pool *pool, uint32_t length_bytes, struct buffer *ret_buffer);
/* Get line: granted() is called later. Only after buffer_pool_get() said false. */
void buffer_pool_wait(struct buffer_pool *pool, struct buffer_waiter *waiter);
/* Leave the line; no effect if not waiting. */
void buffer_pool_cancel(struct buffer_pool *pool, struct buffer_waiter *waiter);
/* Give back; `buffer` is empty afterwards. Grants to those in line are queued to the loop. */
void buffer_pool_put(struct buffer_pool *pool, struct buffer *buffer);

/* What is not handed out, the reserve included; a value of the moment. */
uint64_t buffer_pool_free_bytes(const struct buffer_pool *pool);

#endif
