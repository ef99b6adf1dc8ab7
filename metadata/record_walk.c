/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/record_walk_impl.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    WALK_SCAN_BYTES = 256 << 10,
};

static void walk_scan(struct record_walk *walk);

static void
walk_items(struct record_walk *walk)
{
    const struct store_scan *scan = &walk->scan;
    size_t position = 0;
    struct store_batch_item item;
    while (store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item) == 1) {
        memcpy(walk->last_key, item.key, item.key_bytes);
        walk->last_key_bytes = item.key_bytes;
        walk->item(walk, &item);
    }
}

static void
walk_end(struct record_walk *walk, int result)
{
    byte_buffer_free(&walk->scan.items);
    reactor_complete(&walk->op, result);
}

static void
walk_rested(struct timer *timer)
{
    walk_scan(container_of(timer, struct record_walk, timer));
}

/* The next scan, after a rest. */
static void
walk_on(struct record_walk *walk)
{
    struct reactor *reactor = reactor_self();

    if (walk->cancel != NULL && *walk->cancel) {
        walk_end(walk, -ECANCELED);
    } else if (walk->rest_ns > 0) {
        timer_arm(reactor, &walk->timer, reactor_now_ns(reactor) + walk->rest_ns, walk_rested);
    } else {
        walk_scan(walk);
    }
}

static void
walk_scanned(struct io_op *op)
{
    struct record_walk *walk =
        container_of(container_of(op, struct store_scan, op), struct record_walk, scan);
    struct store_scan *scan = &walk->scan;
    walk_items(walk);
    if (op->result < 0) {
        walk->failed(walk, scan->family, walk->last_key, walk->last_key_bytes, op->result);
    } else if (scan->ret_more) {
        memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
        scan->start_bytes = scan->ret_next_bytes;
        walk_on(walk);
        return;
    }
    scan->start_bytes = 0;
    walk->last_key_bytes = 0;
    if (scan->family + 1 < STORE_FAMILY_COUNT) {
        scan->family++;
        walk_on(walk);
        return;
    }
    walk_end(walk, 0);
}

static void
walk_scan(struct record_walk *walk)
{
    walk->scan.op.done = walk_scanned;
    walk->scan.bytes_max = walk->step_bytes > 0 ? walk->step_bytes : WALK_SCAN_BYTES;
    walk->scan.snapshot = walk->snapshot;
    byte_buffer_clear(&walk->scan.items);
    store_scan(walk->store, &walk->scan);
}

void
record_walk(struct record_walk *walk)
{
    ASSERT(reactor_self() != NULL && walk->op.done != NULL);
    ASSERT(walk->item != NULL && walk->failed != NULL);
    walk->op.reactor_id = reactor_id(reactor_self());
    memset(&walk->scan, 0, sizeof(walk->scan));
    memset(&walk->timer, 0, sizeof(walk->timer));
    walk->last_key_bytes = 0;
    walk_scan(walk);
}
