/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/record_walk_impl.h"

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
        walk_scan(walk);
        return;
    }
    scan->start_bytes = 0;
    walk->last_key_bytes = 0;
    if (scan->family + 1 < STORE_FAMILY_COUNT) {
        scan->family++;
        walk_scan(walk);
        return;
    }
    byte_buffer_free(&scan->items);
    reactor_complete(&walk->op, 0);
}

static void
walk_scan(struct record_walk *walk)
{
    walk->scan.op.done = walk_scanned;
    walk->scan.bytes_max = WALK_SCAN_BYTES;
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
    walk->last_key_bytes = 0;
    walk_scan(walk);
}
