/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: the only caller of backend_ops.submit.
 *
 * THEORY OF OPERATION
 *
 * backend_submit() checks the caller's half of the contract, puts the operation on the watch list
 * of the calling reactor, and hands it to the implementation. Most operations go straight through:
 * no allocation, no lock, one list insertion. The others take the slow path: a context from the
 * heap with an inner backend_io, which is submitted for one piece after the other (a part of a long
 * transfer, the rest of a short one, a buffer of zeroes, the flush behind an emulated FUA).
 *
 * A backend that lives on one reactor gets each piece by message, and its completion comes back by
 * message; the guard's state of an operation is always touched on the submitting reactor only.
 *
 * Deadlines. Each (backend, reactor) keeps one list for each distinct timeout, in order of
 * submission and therefore of deadline, so that arming is O(1); a timeout that finds no free list
 * is inserted in order into the last one. One timer stands at or before the earliest deadline. It
 * is armed only while something is watched: an idle backend has no timer and may be closed by any
 * thread.
 *
 * Invariants
 *  G1  io->backend is NULL exactly while the operation is idle.
 *  G2  An operation is on a watch list from submission to the earlier of completion and overdue().
 *  G3  The timer is armed whenever something is watched, for no later than the earliest deadline.
 *  G4  The caller's fields of a backend_io are never changed.
 */
#include "backends/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "io/reactor.h"

enum {
    WATCH_LISTS = 8,
    ZERO_BUFFER_BYTES = 64 << 10,
    ZERO_IOV_COUNT = 16, /* pieces of emulated zeroes are this many buffers long */
};

/* Operations of one timeout, by deadline. */
struct watch_list {
    uint64_t timeout_ns;
    struct list ios;
};

/* What one reactor knows of one backend. */
struct guard_reactor {
    struct backend *backend;
    struct reactor *reactor;
    struct timer timer;
    uint32_t watched;
    uint32_t list_count;
    struct watch_list lists[WATCH_LISTS]; /* the last one is in order of insertion by deadline */
    struct backend_statistics statistics; /* relaxed atomics; written by the reactor only */
} __attribute__((aligned(64)));

struct backend_guard {
    struct guard_reactor reactors[REACTOR_COUNT_MAX];
    void *zeroes;        /* ZERO_BUFFER_BYTES that nobody writes */
    uint32_t emulations; /* atomic; enum guard_emulation */
};

/* How far the guard is with an operation; backend_io.stage. */
enum guard_stage {
    STAGE_IDLE,
    STAGE_DIRECT,  /* submitted as the caller wrote it */
    STAGE_NOTHING, /* completes without the implementation */
    STAGE_SLOW,    /* on the slow path; see struct slow_path */
    STAGE_PIECE,   /* the inner one of the slow path: a part */
    STAGE_FLUSH,   /* the inner one: the flush of an emulated FUA */
};

/* An operation that takes more than one submission: backend_io.scratch of both. */
struct slow_path {
    struct backend_io *outer; /* the caller's; not changed */
    struct backend_io inner;  /* what the implementation gets, once for each piece */
    bool zeroes_by_writing;
    bool flush_after;
    uint64_t loss_generation; /* at submission */
    uint64_t done_bytes;
    uint32_t iov_index; /* where done_bytes is in the caller's iov */
    uint64_t iov_skip_bytes;
    struct iovec piece[];
};

static void guard_done(struct io_op *op);

/* ---- life ---- */

int
guard_create(struct backend *backend)
{
    ASSERT(backend->guard == NULL);
    struct backend_guard *guard =
        aligned_alloc(_Alignof(struct backend_guard), sizeof(struct backend_guard));
    if (guard == NULL) {
        return -ENOMEM;
    }
    memset(guard, 0, sizeof(*guard));
    guard->zeroes = mmap(NULL, ZERO_BUFFER_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guard->zeroes == MAP_FAILED) {
        free(guard);
        return -ENOMEM;
    }
    for (uint32_t id = 0; id < REACTOR_COUNT_MAX; id++) {
        struct guard_reactor *local = &guard->reactors[id];
        local->backend = backend;
        for (uint32_t i = 0; i < WATCH_LISTS; i++) {
            list_init(&local->lists[i].ios);
        }
    }
    backend->guard = guard;
    return 0;
}

void
guard_destroy(struct backend *backend)
{
    struct backend_guard *guard = backend->guard;
    ASSERT(guard != NULL);
    for (uint32_t id = 0; id < REACTOR_COUNT_MAX; id++) {
        ASSERT_OP(guard->reactors[id].statistics.in_flight, ==, 0u);
        ASSERT_OP(guard->reactors[id].watched, ==, 0u);
        ASSERT(!timer_is_armed(&guard->reactors[id].timer));
    }
    munmap(guard->zeroes, ZERO_BUFFER_BYTES);
    free(guard);
    backend->guard = NULL;
}

void
guard_emulate(struct backend *backend, uint32_t emulations)
{
    __atomic_fetch_or(&backend->guard->emulations, emulations, __ATOMIC_RELAXED);
}

static inline bool
emulates(const struct backend *backend, enum guard_emulation emulation)
{
    return (__atomic_load_n(&backend->guard->emulations, __ATOMIC_RELAXED) & emulation) != 0;
}

void
backend_refuse_changes(struct backend *backend)
{
    ASSERT(backend->guard != NULL);
    guard_emulate(backend, GUARD_READ_ONLY);
}

void
guard_raise_loss(struct backend *backend)
{
    __atomic_fetch_add(&backend->loss_generation, 1, __ATOMIC_ACQ_REL);
}

int
guard_refresh_fixed(struct backend *backend, struct error *error)
{
    ASSERT(backend->guard != NULL);
    (void)error;
    return 0;
}

/* ---- statistics ---- */

static inline void
counter_add(uint64_t *counter, uint64_t amount)
{
    /* One writer: a plain add, made of atomic halves for those who read. */
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

void
backend_get_statistics(struct backend *backend, struct backend_statistics *ret_statistics)
{
    ASSERT(backend->guard != NULL);
    struct backend_statistics sum = { 0 };
    for (uint32_t id = 0; id < REACTOR_COUNT_MAX; id++) {
        const struct backend_statistics *part = &backend->guard->reactors[id].statistics;
        for (uint32_t kind = 0; kind < BACKEND_IO_KIND_COUNT; kind++) {
            sum.operations[kind] += __atomic_load_n(&part->operations[kind], __ATOMIC_RELAXED);
            sum.bytes[kind] += __atomic_load_n(&part->bytes[kind], __ATOMIC_RELAXED);
            sum.errors[kind] += __atomic_load_n(&part->errors[kind], __ATOMIC_RELAXED);
            sum.total_ns[kind] += __atomic_load_n(&part->total_ns[kind], __ATOMIC_RELAXED);
        }
        sum.overdue += __atomic_load_n(&part->overdue, __ATOMIC_RELAXED);
        sum.in_flight += __atomic_load_n(&part->in_flight, __ATOMIC_RELAXED);
    }
    *ret_statistics = sum;
}

/* ---- the watch on deadlines ---- */

/* The watched operation with the earliest deadline; NULL when there is none. */
static struct backend_io *
watch_first(struct guard_reactor *local)
{
    struct backend_io *first = NULL;
    for (uint32_t i = 0; i < local->list_count; i++) {
        struct backend_io *io = list_first(&local->lists[i].ios, struct backend_io, deadline_link);
        if (io != NULL && (first == NULL || io->deadline_ns < first->deadline_ns)) {
            first = io;
        }
    }
    return first;
}

static void
watch_expired(struct timer *timer)
{
    struct guard_reactor *local = container_of(timer, struct guard_reactor, timer);
    ASSERT_ON_REACTOR(local->reactor);
    uint64_t now_ns = reactor_now_ns(local->reactor);

    for (;;) {
        struct backend_io *io = watch_first(local);
        if (io == NULL) {
            ASSERT_OP(local->watched, ==, 0u);
            return;
        }
        if (io->deadline_ns > now_ns) {
            timer_arm(local->reactor, timer, io->deadline_ns, watch_expired);
            return;
        }
        ASSERT(!io->is_overdue);
        list_remove(&io->deadline_link);
        local->watched--;
        io->is_overdue = true;
        counter_add(&local->statistics.overdue, 1);
        if (io->overdue != NULL) {
            io->overdue(io); /* may submit; the lists are looked at afresh */
        }
    }
}

/* Where operations of this timeout go. Sets *ret_ordered when plain appending keeps the order. */
static struct list *
watch_list_for(struct guard_reactor *local, uint64_t timeout_ns, bool *ret_ordered)
{
    *ret_ordered = true;
    for (uint32_t i = 0; i < local->list_count; i++) {
        if (local->lists[i].timeout_ns == timeout_ns && i + 1 < WATCH_LISTS) {
            return &local->lists[i].ios;
        }
    }
    for (uint32_t i = 0; i + 1 < WATCH_LISTS; i++) {
        if (i >= local->list_count || list_empty(&local->lists[i].ios)) {
            local->lists[i].timeout_ns = timeout_ns;
            local->list_count = MAX(local->list_count, i + 1);
            return &local->lists[i].ios;
        }
    }
    local->list_count = WATCH_LISTS;
    *ret_ordered = false;
    return &local->lists[WATCH_LISTS - 1].ios;
}

static void
watch_add(struct guard_reactor *local, struct backend_io *io, uint64_t timeout_ns)
{
    bool ordered;
    struct list *list = watch_list_for(local, timeout_ns, &ordered);
    struct list *position = list;

    if (UNLIKELY(!ordered)) {
        while (position->prev != list &&
               list_entry(position->prev, struct backend_io, deadline_link)->deadline_ns >
                   io->deadline_ns) {
            position = position->prev;
        }
    }
    list_insert_before(position, &io->deadline_link);
    local->watched++;
    if (!timer_is_armed(&local->timer) || local->timer.due_ns > io->deadline_ns) {
        timer_arm(local->reactor, &local->timer, io->deadline_ns, watch_expired);
    }
}

static inline void
watch_remove(struct guard_reactor *local, struct backend_io *io)
{
    if (LIKELY(!io->is_overdue)) {
        list_remove(&io->deadline_link);
        ASSERT(local->watched > 0);
        if (--local->watched == 0) {
            timer_disarm(local->reactor, &local->timer); /* G3; and an idle backend can be closed */
        }
    }
}

/* ---- to the implementation and back ---- */

/* On the owner: the implementation is done with a piece that came from another reactor. */
static void guard_returned(struct message *message);

static void
guard_owner_done(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    ASSERT_ON_REACTOR(io->backend->owner);
    reactor_send(io->reactor, &io->message, guard_returned);
}

static void
guard_returned(struct message *message)
{
    struct backend_io *io = container_of(message, struct backend_io, message);
    ASSERT_ON_REACTOR(io->reactor);
    io->op.reactor_id = reactor_id(io->reactor);
    guard_done(&io->op);
}

static void
guard_arrived(struct message *message)
{
    struct backend_io *io = container_of(message, struct backend_io, message);
    struct backend *backend = io->backend;
    ASSERT_ON_REACTOR(backend->owner);
    io->op.reactor_id = reactor_id(backend->owner);
    io->op.done = guard_owner_done;
    backend->ops->submit(backend, io);
}

static inline void
guard_dispatch(struct backend *backend, struct backend_io *io)
{
    if (UNLIKELY(backend->ops->owner_reactor_only && io->reactor != backend->owner)) {
        reactor_send(backend->owner, &io->message, guard_arrived);
        return;
    }
    io->op.done = guard_done;
    backend->ops->submit(backend, io);
}

/* ---- the end of an operation ---- */

static void
guard_finish(struct backend_io *io, int32_t result)
{
    struct backend *backend = io->backend;
    struct guard_reactor *local = &backend->guard->reactors[reactor_id(io->reactor)];
    struct backend_statistics *statistics = &local->statistics;
    ASSERT_ON_REACTOR(io->reactor);
    ASSERT_OP(result, <=, 0);

    watch_remove(local, io);
    uint64_t now_ns = reactor_now_ns(io->reactor);
    counter_add(&statistics->operations[io->kind], 1);
    counter_add(&statistics->total_ns[io->kind], now_ns - io->submitted_ns);
    if (LIKELY(result == 0)) {
        if (io->kind != BACKEND_FLUSH) {
            counter_add(&statistics->bytes[io->kind], io->length_bytes);
        }
    } else {
        counter_add(&statistics->errors[io->kind], 1);
    }
    counter_add(&statistics->in_flight, UINT64_MAX);

    io_op_done_fn *done = io->saved_done;
    io->stage = STAGE_IDLE;
    io->backend = NULL;
    io->op.done = NULL;
    io->op.result = result;
    done(&io->op);
}

/* The outcome of a flush that was submitted at `loss_generation`; B5. */
static int32_t
flush_outcome(struct backend *backend, int32_t result, uint64_t loss_generation)
{
    if (result < 0) {
        guard_raise_loss(backend);
        return result;
    }
    return backend_loss_generation(backend) == loss_generation ? 0 : -EIO;
}

/* ---- the slow path ---- */

static int
slow_begin(struct backend_io *io, bool zeroes_by_writing, bool flush_after,
           struct slow_path **ret_slow)
{
    uint32_t iov_count = MAX(io->iov_count, (uint32_t)ZERO_IOV_COUNT);
    struct slow_path *slow = malloc(sizeof(*slow) + iov_count * sizeof(struct iovec));
    ASSERT(io->scratch == NULL);
    if (slow == NULL) {
        return -ENOMEM;
    }
    *slow = (struct slow_path){
        .outer = io,
        .inner = { .backend = io->backend, .reactor = io->reactor, .scratch = slow },
        .zeroes_by_writing = zeroes_by_writing,
        .flush_after = flush_after,
        .loss_generation = backend_loss_generation(io->backend),
    };
    slow->inner.op.reactor_id = io->op.reactor_id;
    io->scratch = slow;
    io->stage = STAGE_SLOW;
    *ret_slow = slow;
    return 0;
}

static void
slow_finish(struct slow_path *slow, int32_t result)
{
    struct backend_io *io = slow->outer;
    ASSERT(io->stage == STAGE_SLOW);
    io->scratch = NULL;
    free(slow);
    guard_finish(io, result);
}

/* The next `bytes` of the caller's memory. */
static void
slow_cut_iov(struct slow_path *slow, uint64_t bytes)
{
    uint32_t count = 0;
    uint32_t index = slow->iov_index;
    uint64_t skip_bytes = slow->iov_skip_bytes;
    const struct backend_io *outer = slow->outer;

    while (bytes > 0) {
        ASSERT_OP(index, <, outer->iov_count);
        uint64_t here_bytes = MIN(outer->iov[index].iov_len - skip_bytes, bytes);
        if (here_bytes > 0) {
            slow->piece[count++] = (struct iovec){
                .iov_base = (char *)outer->iov[index].iov_base + skip_bytes,
                .iov_len = here_bytes,
            };
        }
        bytes -= here_bytes;
        index++;
        skip_bytes = 0;
    }
    slow->inner.iov = slow->piece;
    slow->inner.iov_count = count;
}

static void
slow_cut_zeroes(struct slow_path *slow, uint64_t bytes)
{
    uint32_t count = 0;
    ASSERT_OP(bytes, <=, (uint64_t)ZERO_BUFFER_BYTES * ZERO_IOV_COUNT);
    while (bytes > 0) {
        uint64_t here_bytes = MIN(bytes, (uint64_t)ZERO_BUFFER_BYTES);
        slow->piece[count++] = (struct iovec){
            .iov_base = slow->outer->backend->guard->zeroes,
            .iov_len = here_bytes,
        };
        bytes -= here_bytes;
    }
    slow->inner.iov = slow->piece;
    slow->inner.iov_count = count;
}

/* `bytes` more have been transferred. */
static void
slow_advance(struct slow_path *slow, uint64_t bytes)
{
    const struct backend_io *outer = slow->outer;
    slow->done_bytes += bytes;
    ASSERT_OP(slow->done_bytes, <=, outer->length_bytes);
    slow->iov_skip_bytes += bytes;
    while (slow->iov_index < outer->iov_count &&
           slow->iov_skip_bytes >= outer->iov[slow->iov_index].iov_len) {
        slow->iov_skip_bytes -= outer->iov[slow->iov_index].iov_len;
        slow->iov_index++;
    }
}

static uint64_t
piece_bytes_max(const struct backend *backend, enum backend_io_kind kind)
{
    const struct backend_properties *properties = &backend->properties;
    if (kind == BACKEND_READ || kind == BACKEND_WRITE) {
        return properties->transfer_bytes_max;
    }
    return properties->range_bytes_max != 0 ? properties->range_bytes_max : UINT64_MAX;
}

/* Submit the next piece, or the flush behind the last, or finish. */
static void
slow_next(struct slow_path *slow)
{
    const struct backend_io *outer = slow->outer;
    struct backend_io *inner = &slow->inner;
    struct backend *backend = outer->backend;
    uint64_t left_bytes = outer->length_bytes - slow->done_bytes;

    inner->iov = NULL;
    inner->iov_count = 0;
    if (left_bytes == 0) {
        if (!slow->flush_after) {
            slow_finish(slow, 0);
            return;
        }
        inner->kind = BACKEND_FLUSH;
        inner->fua = false;
        inner->offset_bytes = 0;
        inner->length_bytes = 0;
        inner->stage = STAGE_FLUSH;
        guard_dispatch(backend, inner);
        return;
    }
    inner->kind = slow->zeroes_by_writing ? BACKEND_WRITE : outer->kind;
    inner->fua = outer->fua && !slow->flush_after;
    uint64_t bytes = MIN(left_bytes, piece_bytes_max(backend, inner->kind));
    if (slow->zeroes_by_writing) {
        bytes = MIN(bytes, (uint64_t)ZERO_BUFFER_BYTES * ZERO_IOV_COUNT);
        slow_cut_zeroes(slow, bytes);
    } else if (outer->iov_count > 0) {
        slow_cut_iov(slow, bytes);
    }
    inner->offset_bytes = outer->offset_bytes + slow->done_bytes;
    inner->length_bytes = bytes;
    inner->stage = STAGE_PIECE;
    guard_dispatch(backend, inner);
}

/*
 * The implementation cannot do this kind: switch to the emulation, for this operation and for
 * those that follow. False: there is none.
 */
static bool
slow_emulate(struct slow_path *slow)
{
    const struct backend_io *outer = slow->outer;
    if (outer->kind == BACKEND_WRITE_ZEROES && !slow->zeroes_by_writing) {
        guard_emulate(outer->backend, GUARD_EMULATE_ZEROES);
        slow->zeroes_by_writing = true;
        return true;
    }
    if (outer->fua && !slow->flush_after) {
        guard_emulate(outer->backend, GUARD_EMULATE_FUA);
        slow->flush_after = true;
        return true;
    }
    return false;
}

/* A piece of `piece_bytes`, or the flush behind the last, has ended with `result`. */
static void
slow_done(struct slow_path *slow, enum guard_stage stage, uint64_t piece_bytes, int32_t result)
{
    struct backend *backend = slow->outer->backend;

    if (stage == STAGE_FLUSH) {
        slow_finish(slow, flush_outcome(backend, result, slow->loss_generation));
        return;
    }
    if (result == -EOPNOTSUPP && slow_emulate(slow)) {
        slow_next(slow);
        return;
    }
    if (result < 0) {
        slow_finish(slow, result);
        return;
    }
    uint64_t bytes = result == 0 ? piece_bytes : (uint64_t)result;
    ASSERT_OP(bytes, <=, piece_bytes);
    bytes -= bytes % backend->properties.block_bytes;
    if (bytes == 0) {
        slow_finish(slow, -EIO); /* no progress: the device ends before its size says so */
        return;
    }
    slow_advance(slow, bytes);
    slow_next(slow);
}

/* ---- completions ---- */

/* The rare ends of an operation that was submitted as it was. True: it goes on. */
static bool
direct_continues(struct backend_io *io, int32_t *result)
{
    struct slow_path *slow;
    bool was_short = *result > 0;
    bool unsupported = *result == -EOPNOTSUPP &&
                       (io->kind == BACKEND_WRITE_ZEROES || (io->kind == BACKEND_WRITE && io->fua));
    if (*result == -EOPNOTSUPP && io->kind == BACKEND_DISCARD) {
        guard_emulate(io->backend, GUARD_NO_DISCARD);
        *result = 0; /* it was a hint */
        return false;
    }
    if (!was_short && !unsupported) {
        return false;
    }
    int error = slow_begin(io, false, false, &slow);
    if (error < 0) {
        *result = error;
        return false;
    }
    slow_done(slow, STAGE_PIECE, io->length_bytes, *result);
    return true;
}

/* On the submitting reactor: the implementation, or nobody, is done with a submission. */
static void
guard_done(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    int32_t result = op->result;
    ASSERT(io->backend != NULL);

    if (LIKELY(io->stage == STAGE_DIRECT)) {
        if (io->kind == BACKEND_FLUSH) {
            ASSERT_OP(result, <=, 0);
            result = flush_outcome(io->backend, result, io->loss_generation);
        } else if (UNLIKELY(result != 0)) {
            ASSERT(result < 0 || io->kind == BACKEND_READ || io->kind == BACKEND_WRITE);
            if ((uint64_t)MAX(result, 0) == io->length_bytes) {
                result = 0;
            } else if (direct_continues(io, &result)) {
                return;
            }
        }
        guard_finish(io, result);
    } else if (io->stage == STAGE_NOTHING) {
        guard_finish(io, result);
    } else {
        slow_done(io->scratch, io->stage, io->length_bytes, result);
    }
}

/* ---- submission ---- */

static inline void
check_memory(const struct backend *backend, const struct backend_io *io)
{
    uint64_t sum_bytes = 0;
    uintptr_t bits = 0;

    ASSERT(io->iov != NULL);
    ASSERT(io->iov_count > 0 && io->iov_count <= BACKEND_IOV_COUNT_MAX);
    for (uint32_t i = 0; i < io->iov_count; i++) {
        sum_bytes += io->iov[i].iov_len;
        bits |= (uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len;
    }
    ASSERT_OP(sum_bytes, ==, io->length_bytes);
    ASSERT_OP(bits & (backend->properties.memory_alignment_bytes - 1), ==, 0u);
}

static inline void
check_contract(const struct backend *backend, const struct backend_io *io)
{
    const uint64_t block_mask = backend->properties.block_bytes - 1;
    uint64_t size_bytes = backend_size_bytes(backend);

    ASSERT(io->backend == NULL && io->scratch == NULL); /* G1 */
    ASSERT(io->op.done != NULL);
    ASSERT_OP((uint32_t)io->kind, <, (uint32_t)BACKEND_IO_KIND_COUNT);
    if (io->kind == BACKEND_FLUSH) {
        return;
    }
    ASSERT_OP((io->offset_bytes | io->length_bytes) & block_mask, ==, 0u);
    ASSERT(io->length_bytes > 0);
    ASSERT_OP(io->length_bytes, <=, size_bytes);
    ASSERT_OP(io->offset_bytes, <=, size_bytes - io->length_bytes);
    if (io->kind == BACKEND_READ || io->kind == BACKEND_WRITE) {
        check_memory(backend, io);
    }
}

/* True: there is nothing to do; *ret_result says how it ends. */
static bool
nothing_to_do(const struct backend *backend, const struct backend_io *io, int32_t *ret_result)
{
    *ret_result = 0;
    if (emulates(backend, GUARD_READ_ONLY)) {
        *ret_result = io->kind == BACKEND_FLUSH ? 0 : -EROFS;
        return io->kind != BACKEND_READ;
    }
    if (io->kind == BACKEND_DISCARD) {
        return backend->properties.discard_granularity_bytes == 0 ||
               emulates(backend, GUARD_NO_DISCARD);
    }
    return io->kind == BACKEND_ALLOCATE && !backend->properties.thin;
}

/* Submissions that are not passed on as they are. */
static void
submit_slow(struct backend *backend, struct backend_io *io)
{
    int32_t result;
    if (nothing_to_do(backend, io, &result)) {
        io->stage = STAGE_NOTHING;
        io->op.done = guard_done;
        reactor_complete(&io->op, result);
        return;
    }
    bool zeroes = io->kind == BACKEND_WRITE_ZEROES && emulates(backend, GUARD_EMULATE_ZEROES);
    bool fua = io->fua && (io->kind == BACKEND_WRITE || io->kind == BACKEND_WRITE_ZEROES);
    bool flush = fua && (emulates(backend, GUARD_EMULATE_FUA) ||
                         (io->kind == BACKEND_WRITE_ZEROES && !zeroes &&
                          emulates(backend, GUARD_EMULATE_ZEROES_FUA)));
    bool split = io->length_bytes > piece_bytes_max(backend, io->kind);
    if (zeroes || flush || (split && io->kind != BACKEND_FLUSH)) {
        struct slow_path *slow;
        int error = slow_begin(io, zeroes, flush, &slow);
        if (error < 0) {
            io->stage = STAGE_NOTHING;
            io->op.done = guard_done;
            reactor_complete(&io->op, error);
            return;
        }
        slow_next(slow);
        return;
    }
    io->stage = STAGE_DIRECT;
    guard_dispatch(backend, io);
}

void
backend_submit(struct backend *backend, struct backend_io *io)
{
    struct reactor *reactor = reactor_self();
    ASSERT(reactor != NULL);
    check_contract(backend, io);
    uint32_t id = reactor_id(reactor);
    struct guard_reactor *local = &backend->guard->reactors[id];
    uint64_t now_ns = reactor_now_ns(reactor);
    uint64_t timeout_ns = io->timeout_ns != 0 ? io->timeout_ns : backend->default_timeout_ns;

    ASSERT(local->reactor == reactor || local->watched == 0);
    local->reactor = reactor;
    io->backend = backend;
    io->reactor = reactor;
    io->saved_done = io->op.done;
    io->op.reactor_id = id;
    io->is_overdue = false;
    io->submitted_ns = now_ns;
    io->deadline_ns = timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX;
    io->loss_generation = io->kind == BACKEND_FLUSH ? backend_loss_generation(backend) : 0;
    counter_add(&local->statistics.in_flight, 1);
    watch_add(local, io, timeout_ns);

    bool plain = io->kind == BACKEND_READ ||
                 (io->kind == BACKEND_WRITE && !io->fua && !emulates(backend, GUARD_READ_ONLY));
    if (LIKELY(plain && io->length_bytes <= backend->properties.transfer_bytes_max)) {
        io->stage = STAGE_DIRECT;
        guard_dispatch(backend, io);
    } else {
        submit_slow(backend, io);
    }
}
