/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots that are written ahead of need.
 *
 * THEORY OF OPERATION
 *
 * Room that a file system has allocated and nobody has written is marked "unwritten" there, and the
 * first write to each piece of it changes that mark in the file system's journal. On ext4 that
 * halves the rate of small first writes, whoever makes them. So, for volumes that write in this
 * way, some free slots are filled with zeroes while nobody asks for extents; the next grants to
 * such volumes take these first. Large writes change few marks and would only be doubled: they
 * prepare nothing, and take what was prepared when nothing else is left.
 *
 * A slot is nobody's while it is written: it counts as taken. When it is ready it is free again and
 * stands in the list, with its use bit still set so that a search for free slots passes it by; all
 * takers look into the list as well. The list is not kept over a restart.
 *
 * Takers that find nothing else ask for the slot that is being written. Between two writes it is
 * let go at once; otherwise when the disk has answered.
 *
 * Invariants
 *  W1  Zeroes are written to a slot only while it is taken for that, and it is let go only when the
 *      disk has answered the last of them, however late.
 *  W2  A ready slot has its use bit set and counts as free, in the disk and in the allocator.
 *  W3  At most one slot in SHARE of a disk's free ones is ready, and at most PREPARED_SLOTS_MAX of
 *      the pool: what is written ahead is a small part of what is free.
 *  W4  No slot is missed for being written ahead, unless its disk does not answer (P7).
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

/* Nobody has asked for extents so long. */
#define QUIET_NS (200 * NS_PER_MS)
/* Between two writes, for the sake of the hosts: 250 MB/s at most. */
#define PACE_NS (4 * NS_PER_MS)
/* A disk has refused. */
#define PAUSE_NS (10 * NS_PER_S)

enum {
    SHARE = 16,
    PIECE_BYTES = 1 << 20, /* of one write */
    ZEROES_BYTES = 64 << 10,
    PIECE_SEGMENTS = PIECE_BYTES / ZEROES_BYTES,
};

struct slot_preparer {
    struct allocator *allocator;
    struct timer timer;
    struct backend_io io;
    struct iovec segments[PIECE_SEGMENTS];
    void *zeroes;              /* ZEROES_BYTES */
    bool busy;                 /* `place` is taken and being written */
    bool io_running;
    bool yielding;             /* somebody needs `place`: it is let go when the disk has answered */
    struct extent_place place;
    uint64_t written_bytes;    /* of it */
    uint32_t next_disk;        /* disks take turns */
    uint32_t wanted;           /* ready slots that small writes have shown a use for */
    uint64_t not_before_ns;
    uint32_t ready_count;
    struct extent_place ready[PREPARED_SLOTS_MAX];
};

static void prepare_next(struct timer *timer);

/* ---- life ---- */

struct slot_preparer *
slot_preparer_create(struct allocator *allocator)
{
    struct slot_preparer *preparer = calloc(1, sizeof(*preparer));

    ASSERT(preparer != NULL);
    preparer->zeroes = aligned_alloc(4096, ZEROES_BYTES);
    ASSERT(preparer->zeroes != NULL);
    memset(preparer->zeroes, 0, ZEROES_BYTES);
    for (uint32_t i = 0; i < PIECE_SEGMENTS; i++) {
        preparer->segments[i] =
            (struct iovec){ .iov_base = preparer->zeroes, .iov_len = ZEROES_BYTES };
    }
    preparer->allocator = allocator;
    return preparer;
}

void
slot_preparer_destroy(struct slot_preparer *preparer)
{
    ASSERT(!preparer->io_running);
    if (timer_is_armed(&preparer->timer)) {
        timer_disarm(preparer->allocator->pool->manager->control, &preparer->timer);
    }
    free(preparer->zeroes);
    free(preparer);
}

/* ---- the ready ones ---- */

static uint32_t
ready_on(const struct slot_preparer *preparer, uint16_t disk)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < preparer->ready_count; i++) {
        count += preparer->ready[i].disk == disk ? 1 : 0;
    }
    return count;
}

uint32_t
slot_preparer_ready(const struct slot_preparer *preparer)
{
    ASSERT_OP(preparer->ready_count, <=, (uint32_t)PREPARED_SLOTS_MAX);
    return preparer->ready_count;
}

bool
slot_preparer_take(struct slot_preparer *preparer, uint16_t disk, struct extent_place *ret_place)
{
    for (uint32_t i = 0; i < preparer->ready_count; i++) {
        if (preparer->ready[i].disk == disk) {
            *ret_place = preparer->ready[i];
            preparer->ready_count--;
            /* In the order in which they were made ready: neighbours stay neighbours. */
            memmove(&preparer->ready[i], &preparer->ready[i + 1],
                    (preparer->ready_count - i) * sizeof(preparer->ready[0]));
            return true;
        }
    }
    return false;
}

/* ---- making ready ---- */

static void
prepare_at(struct slot_preparer *preparer, uint64_t due_ns)
{
    struct reactor *control = preparer->allocator->pool->manager->control;

    if (!preparer->io_running) {
        timer_arm(control, &preparer->timer, due_ns, prepare_next);
    }
}

void
slot_preparer_granted(struct slot_preparer *preparer, uint32_t count, bool small_writes)
{
    uint64_t now_ns = reactor_now_ns(preparer->allocator->pool->manager->control);

    if (small_writes) {
        preparer->wanted = MIN(preparer->wanted + count, (uint32_t)PREPARED_SLOTS_MAX);
    }
    if (preparer->wanted > 0) {
        preparer->not_before_ns = MAX(preparer->not_before_ns, now_ns + QUIET_NS);
        prepare_at(preparer, preparer->not_before_ns);
    }
}

static bool
may_prepare_on(const struct slot_preparer *preparer, const struct disk *disk)
{
    if (disk == NULL || disk->backend == NULL || !disk->backend->properties.slow_first_write ||
        disk->record.state != DISK_STATE_ACTIVE || disk->backend_full) {
        return false;
    }
    return ready_on(preparer, disk->record.index) + 1 <= disk->slots_free / SHARE;
}

static void
let_go(struct slot_preparer *preparer)
{
    ASSERT(preparer->busy && !preparer->io_running);
    preparer->busy = false;
    preparer->yielding = false;
    allocator_return_slot(preparer->allocator, preparer->place, false);
}

bool
slot_preparer_yield(struct slot_preparer *preparer)
{
    if (!preparer->busy) {
        return false;
    }
    if (preparer->io_running) {
        preparer->yielding = true;
        return false;
    }
    let_go(preparer);
    return true;
}

bool
slot_preparer_is_yielding(const struct slot_preparer *preparer)
{
    ASSERT(!preparer->yielding || preparer->io_running);
    return preparer->yielding;
}

/* Take a slot on the next disk in turn. */
static bool
begin_slot(struct slot_preparer *preparer)
{
    struct pool *pool = preparer->allocator->pool;

    ASSERT(!preparer->busy);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        uint32_t index = (preparer->next_disk + i) % pool->disk_count;
        struct disk *disk = pool->disks[index];
        if (may_prepare_on(preparer, disk) &&
            allocator_find_slot(preparer->allocator, disk, &preparer->place)) {
            preparer->next_disk = index + 1;
            preparer->written_bytes = 0;
            preparer->busy = true;
            return true;
        }
    }
    return false;
}

/* A piece has been written, or room was made for all of them (as long as nothing is written). */
static void
piece_done(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct slot_preparer *preparer = container_of(io, struct slot_preparer, io);
    struct allocator *allocator = preparer->allocator;
    struct pool *pool = allocator->pool;
    uint64_t now_ns = reactor_now_ns(pool->manager->control);
    bool ended = false;
    bool was_yielding = preparer->yielding;

    ASSERT(preparer->busy && preparer->io_running);
    preparer->io_running = false;
    allocator->side_operations--;
    if (op->result < 0) {
        log_info("allocator", "pool %s: no space is prepared for a while: %s", pool->name,
                 error_name(op->result));
        preparer->not_before_ns = now_ns + PAUSE_NS;
        let_go(preparer);
    } else if (was_yielding) {
        preparer->not_before_ns = now_ns + QUIET_NS;
        let_go(preparer);
    } else if (io->kind == BACKEND_WRITE) {
        preparer->written_bytes += io->length_bytes;
        ended = preparer->written_bytes >= pool->record.extent_bytes;
    }
    if (ended) {
        ASSERT_OP(preparer->ready_count, <, (uint32_t)PREPARED_SLOTS_MAX);
        preparer->busy = false;
        preparer->ready[preparer->ready_count++] = preparer->place;
        allocator_return_slot(allocator, preparer->place, true);
    }
    if (was_yielding) {
        allocator_slot_returned(allocator);
    }
    prepare_at(preparer, MAX(now_ns + PACE_NS, preparer->not_before_ns));
}

static void
submit_piece(struct slot_preparer *preparer, bool make_room)
{
    struct pool *pool = preparer->allocator->pool;
    struct disk *disk = pool_disk(pool, preparer->place.disk);
    struct backend_io *io = &preparer->io;
    uint64_t extent_bytes = pool->record.extent_bytes;

    *io = (struct backend_io){ .timeout_ns = pool->manager->options.disk_timeout_ns };
    io->op.done = piece_done;
    io->offset_bytes =
        disk->record.data_start_bytes + (uint64_t)preparer->place.slot * extent_bytes;
    if (make_room) {
        io->kind = BACKEND_ALLOCATE; /* in one piece, before it is written in several */
        io->length_bytes = extent_bytes;
    } else {
        io->kind = BACKEND_WRITE;
        io->offset_bytes += preparer->written_bytes;
        io->length_bytes = MIN((uint64_t)PIECE_BYTES, extent_bytes - preparer->written_bytes);
        io->iov = preparer->segments;
        io->iov_count = (uint32_t)(io->length_bytes / ZEROES_BYTES);
        ASSERT_OP(io->iov_count * (uint64_t)ZEROES_BYTES, ==, io->length_bytes);
    }
    preparer->io_running = true;
    preparer->allocator->side_operations++;
    backend_submit(disk->backend, io);
}

static void
prepare_next(struct timer *timer)
{
    struct slot_preparer *preparer = container_of(timer, struct slot_preparer, timer);
    struct pool *pool = preparer->allocator->pool;
    uint64_t now_ns = reactor_now_ns(pool->manager->control);

    ASSERT(!preparer->io_running);
    if (pool->stopping || pool->state >= POOL_STATE_READ_ONLY) {
        slot_preparer_yield(preparer);
        return;
    }
    if (now_ns < preparer->not_before_ns) {
        prepare_at(preparer, preparer->not_before_ns);
        return;
    }
    if (preparer->busy) {
        submit_piece(preparer, false);
    } else if (preparer->ready_count < preparer->wanted && begin_slot(preparer)) {
        submit_piece(preparer, true);
    }
}
