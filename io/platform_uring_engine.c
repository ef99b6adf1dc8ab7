/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reactor's ring.
 *
 * THEORY OF OPERATION
 *
 * Submissions are collected in the ring's queue and handed over by engine_poll(), in the same
 * system call that waits; transfers in small batches before that, so that the disk works while the
 * rest of a pass is prepared. Likewise a pass is given a small batch of the transfers that have
 * ended, and answers them while the disk works on the others: a disk whose queue is always nearly
 * full does more than one that gets a full queue at a time and then waits for the next (8 % more
 * 4 KiB reads at queue depth 32). The others are held meanwhile, since a virtual disk likes to end
 * all that it has at once, and a host's next request must not wait behind the answers to that.
 *
 * With deferred task work (Linux 6.1) completions are produced only inside the system call, and a
 * flag in shared memory tells that there is something to produce, so that a spinning reactor makes
 * no system call until it pays.
 *
 * Such a ring may be used by one thread only, which is not the one that creates reactors. It is
 * therefore created disabled and enabled by the first poll. When a reactor moves to another thread
 * (tests, tools) while nothing is in flight, a new ring takes over the entries that are queued.
 *
 * Waking. A sender calls engine_wake() after it has pushed its message. `wake_state` makes that a
 * single exchange unless the reactor sleeps:
 *
 *   reactor   AWAKE -> SLEEPING by compare-and-swap before a sleep; fails if NOTIFIED: no sleep
 *   sender    anything -> NOTIFIED; writes the eventfd only if it was SLEEPING
 *   reactor   -> AWAKE after the sleep, or instead of it
 *
 * Invariants
 *  E1  A message pushed before engine_wake() is seen by the reactor before it sleeps, or wakes it.
 *  E2  in_flight counts the submissions whose completion has not been reaped; 0 when the ring is
 *      replaced.
 *  E3  Completions are only queued here (reactor_complete); no owner's code runs.
 *  E4  What is held is given to a pass before the reactor sleeps, in the order of its completions.
 *  E5  The reactor knows of every transfer that is under way: begun when it is queued, ended when
 *      it is given to a pass.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "io/platform_uring_impl.h"
#include "io/reactor_impl.h"

#define SLEEP_NS_MAX (3600 * NS_PER_S)

/* ---- the ring ---- */

static int
ring_setup(struct io_engine *engine, struct error *error)
{
    /* The best that the kernel takes; each line is one age of kernels: 6.1, 5.19, 5.11. */
    static const uint32_t choices[] = {
        IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
            IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_R_DISABLED,
    };
    int result = -EINVAL;

    for (size_t i = 0; i < ARRAY_SIZE(choices) && result == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags = choices[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
            .cq_entries = ENGINE_CQ_ENTRIES,
        };
        result = io_uring_queue_init_params(ENGINE_SQ_ENTRIES, &engine->ring, &params);
        engine->setup_flags = choices[i];
    }
    if (result < 0) {
        return error_set(error, result,
                         "cannot set up io_uring: %s (is it disabled by the sysctl "
                         "kernel.io_uring_disabled, by seccomp, or by a container's profile?)",
                         error_name(result));
    }
    const uint32_t needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
    if ((engine->ring.features & needed) != needed) {
        io_uring_queue_exit(&engine->ring);
        return error_set(error, -ENOSYS, "this kernel's io_uring is too old: Linux 5.11 is needed");
    }
    engine->enabled = false;
    engine->wake_armed = false;
    engine->regions_registered = false;
    return 0;
}

static void
ring_register_regions(struct io_engine *engine)
{
    if (engine->region_count == 0) {
        return;
    }
    int result = io_uring_register_buffers(&engine->ring, engine->regions, engine->region_count);
    if (result < 0) {
        log_info("io", "reactor %u: payload memory is not registered with the ring: %s",
                 engine->reactor_id, error_name(result));
    }
    engine->regions_registered = result == 0;
}

/* Entries that are queued but not handed over move to a new ring of this thread (see above). */
static void
ring_replace(struct io_engine *engine)
{
    struct io_uring old = engine->ring;
    ASSERT_OP(engine->in_flight, <=, io_uring_sq_ready(&old)); /* none of them in the kernel */

    int result = ring_setup(engine, NULL);
    ASSERT_OP(result, ==, 0);
    for (unsigned at = *old.sq.khead; at != old.sq.sqe_tail; at++) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&engine->ring);
        ASSERT(entry != NULL);
        *entry = old.sq.sqes[at & old.sq.ring_mask];
    }
    io_uring_queue_exit(&old);
}

/* First use on this thread. */
static void
ring_enable(struct io_engine *engine)
{
    if (engine->enabled) {
        ring_replace(engine);
    }
    ring_register_regions(engine);
    /* liburing 2.3 forgot to export io_uring_enable_rings(). */
    int result = io_uring_register(engine->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    ASSERT_OP(result, ==, 0);
    engine->enabled = true;
    engine->thread = pthread_self();
}

static inline void
ring_ensure_enabled(struct io_engine *engine)
{
    if (UNLIKELY(!engine->enabled || !pthread_equal(engine->thread, pthread_self()))) {
        ring_enable(engine);
    }
}

/*
 * Hand over what is queued, wait up to `wait_ns` for a completion, and let the kernel produce those
 * that are due. -EEXIST: the ring belongs to a thread that has ended, whose handle this one got.
 */
static void
enter(struct io_engine *engine, uint64_t wait_ns)
{
    struct __kernel_timespec timeout = {
        .tv_sec = (int64_t)(wait_ns / NS_PER_S),
        .tv_nsec = (int64_t)(wait_ns % NS_PER_S),
    };
    struct io_uring_cqe *first;
    int result;

    do {
        if (wait_ns > 0) {
            result = io_uring_submit_and_wait_timeout(&engine->ring, &first, 1, &timeout, NULL);
        } else {
            result = io_uring_submit_and_get_events(&engine->ring);
        }
        if (UNLIKELY(result == -EEXIST)) {
            ring_enable(engine);
            wait_ns = 0; /* nothing in the new ring would end a sleep yet */
        }
    } while (result == -EEXIST);
    /* EBUSY and EAGAIN: the kernel wants completions reaped, or memory, first. We come again. */
    ASSERT(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN ||
           result == -EBUSY || result == -ENOMEM);
}

struct io_uring_sqe *
engine_get_entry(struct io_engine *engine, void *owner, enum completion_tag tag)
{
    ASSERT_ON_REACTOR(engine->reactor);
    ASSERT(((uintptr_t)owner & TAG_MASK) == 0);

    struct io_uring_sqe *entry = io_uring_get_sqe(&engine->ring);
    while (UNLIKELY(entry == NULL)) {
        ring_ensure_enabled(engine);
        enter(engine, 0);
        entry = io_uring_get_sqe(&engine->ring);
    }
    engine->in_flight++;
    entry->user_data = (uint64_t)(uintptr_t)owner | tag;
    return entry;
}

/* Without waiting and without producing completions; what is not taken now is by enter(). */
static void
hand_over(struct io_engine *engine)
{
    int result = io_uring_submit(&engine->ring);

    engine->transfers_queued = 0;
    ASSERT(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY ||
           result == -ENOMEM || result == -EEXIST);
}

void
engine_transfer_queued(struct io_engine *engine)
{
    ASSERT_ON_REACTOR(engine->reactor);
    engine->transfers_queued++;
    reactor_transfer_begun(engine->reactor);
    if (engine->transfers_queued >= ENGINE_BATCH && engine->enabled &&
        pthread_equal(engine->thread, pthread_self())) {
        hand_over(engine);
    }
}

void
engine_cancel(struct io_engine *engine, void *owner, enum completion_tag tag)
{
    struct io_uring_sqe *entry = engine_get_entry(engine, NULL, TAG_ENGINE);
    io_uring_prep_cancel64(entry, (uint64_t)(uintptr_t)owner | tag, 0);
}

/* ---- reaping ---- */

static void
transfer_ended(struct io_engine *engine, struct file_io *io, int32_t result)
{
    reactor_transfer_ended(engine->reactor);
    reactor_complete(&io->op, result);
}

static void
dispatch(struct io_engine *engine, uint64_t user_data, int32_t result, uint32_t flags)
{
    enum completion_tag tag = (enum completion_tag)(user_data & TAG_MASK);
    void *owner = (void *)(uintptr_t)(user_data & ~(uint64_t)TAG_MASK);

    if (tag == TAG_ENGINE && owner == engine) {
        engine->wake_armed = (flags & IORING_CQE_F_MORE) != 0;
        return;
    }
    ASSERT_OP(engine->in_flight, >, 0u);
    engine->in_flight--;
    switch (tag) {
    case TAG_OP:
        reactor_complete(owner, result);
        break;
    case TAG_READ:
        file_fetch_data(owner, result);
        transfer_ended(engine, owner, result);
        break;
    case TAG_WRITE:
        transfer_ended(engine, owner, result);
        break;
    case TAG_RECEIVE:
        socket_received(engine, owner, result);
        break;
    case TAG_SEND:
        socket_send_ready(engine, owner, result);
        break;
    case TAG_ACCEPT:
        socket_accepted(engine, owner, result);
        break;
    case TAG_ZEROES:
        if (!file_retry_zeroes(engine, owner, result)) {
            reactor_complete(&((struct file_io *)owner)->op, result);
        }
        break;
    case TAG_ENGINE:
        break;
    }
}

static void
hold(struct io_engine *engine, const struct io_uring_cqe *entry)
{
    uint32_t at = (engine->held_first + engine->held_count) % ENGINE_HELD_MAX;

    ASSERT_OP(engine->held_count, <, (uint32_t)ENGINE_HELD_MAX);
    engine->held[at].user_data = entry->user_data;
    engine->held[at].result = entry->res;
    engine->held_count++;
}

static bool
is_transfer(const struct io_uring_cqe *entry)
{
    enum completion_tag tag = (enum completion_tag)(entry->user_data & TAG_MASK);
    return tag == TAG_READ || tag == TAG_WRITE;
}

/* Take what is there, without having the kernel produce more. Returns how many it dispatched. */
static uint32_t
take_completions(struct io_engine *engine)
{
    struct io_uring_cqe *entry;
    uint32_t dispatched = 0;
    uint32_t taken = 0;
    unsigned head;

    io_uring_for_each_cqe(&engine->ring, head, entry)
    {
        if (!is_transfer(entry)) {
            dispatch(engine, entry->user_data, entry->res, entry->flags);
            dispatched++;
        } else if (engine->held_count < ENGINE_HELD_MAX) {
            hold(engine, entry);
        } else {
            break;
        }
        taken++;
    }
    io_uring_cq_advance(&engine->ring, taken);
    return dispatched;
}

/* Dispatch a batch of the transfers that have ended. */
static uint32_t
dispatch_transfers(struct io_engine *engine)
{
    uint32_t count = MIN(engine->held_count, (uint32_t)ENGINE_BATCH);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = engine->held_first;
        engine->held_first = (at + 1) % ENGINE_HELD_MAX;
        engine->held_count--;
        dispatch(engine, engine->held[at].user_data, engine->held[at].result, 0);
    }
    return count;
}

/* The eventfd's counter is never read: each write is an edge, and that is all we need. */
static void
arm_wake(struct io_engine *engine)
{
    struct io_uring_sqe *entry = engine_get_entry(engine, engine, TAG_ENGINE);
    engine->in_flight--;
    io_uring_prep_poll_multishot(entry, engine->wake_fd, POLLIN);
    engine->wake_armed = true;
}

uint32_t
engine_poll(struct io_engine *engine, uint64_t wait_ns)
{
    ASSERT_ON_REACTOR(engine->reactor);
    ring_ensure_enabled(engine);
    uint32_t reaped = take_completions(engine);
    bool sleeping = false;

    if (wait_ns > 0 && reaped == 0 && engine->held_count == 0) {
        if (!engine->wake_armed) {
            arm_wake(engine);
        }
        uint32_t expected = WAKE_AWAKE;
        sleeping = atomic_compare_exchange_strong(&engine->wake_state, &expected, WAKE_SLEEPING);
        ASSERT(sleeping || expected == WAKE_NOTIFIED);
        if (!sleeping) {
            atomic_store(&engine->wake_state, WAKE_AWAKE);
        }
    }
    const uint32_t pending = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
    if (sleeping || io_uring_sq_ready(&engine->ring) > 0 ||
        (__atomic_load_n(engine->ring.sq.kflags, __ATOMIC_RELAXED) & pending) != 0) {
        engine->transfers_queued = 0;
        enter(engine, sleeping ? MIN(wait_ns, SLEEP_NS_MAX) : 0);
        reaped += take_completions(engine);
    }
    reaped += dispatch_transfers(engine);
    engine->reactor->more = engine->held_count > 0;
    if (sleeping) {
        atomic_store(&engine->wake_state, WAKE_AWAKE);
    }
    return reaped;
}

void
engine_wake(struct io_engine *engine)
{
    if (atomic_exchange(&engine->wake_state, WAKE_NOTIFIED) != WAKE_SLEEPING) {
        return;
    }
    const uint64_t one = 1;
    ssize_t written;
    do {
        written = write(engine->wake_fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    ASSERT_OP(written, ==, (ssize_t)sizeof(one));
}

/* ---- life ---- */

int
engine_open(struct platform *platform, struct reactor *reactor, struct io_engine **ret_engine,
            struct error *error)
{
    struct io_engine *engine = aligned_alloc(_Alignof(struct io_engine), sizeof(*engine));
    ASSERT(engine != NULL);
    memset(engine, 0, sizeof(*engine));
    engine->platform = (struct platform_uring *)platform;
    engine->reactor = reactor;
    engine->reactor_id = reactor_id(reactor);
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->wake_fd < 0) {
        int result = -errno;
        free(engine);
        return error_set(error, result, "cannot make an eventfd: %s", error_name(result));
    }
    int result = ring_setup(engine, error);
    if (result < 0) {
        close(engine->wake_fd);
        free(engine);
        return result;
    }
    *ret_engine = engine;
    return 0;
}

void
engine_close(struct io_engine *engine)
{
    ASSERT(reactor_self() != engine->reactor);
    io_uring_queue_exit(&engine->ring);
    close(engine->wake_fd);
    free(engine);
}

void
engine_register_memory(struct io_engine *engine, void *base, size_t length_bytes)
{
    if (engine->enabled) {
        return; /* only before the first pass; later it would stop the ring */
    }
    uint8_t *start = base;
    while (length_bytes > 0 && engine->region_count < ENGINE_REGIONS_MAX) {
        size_t part = MIN(length_bytes, (size_t)ENGINE_REGION_BYTES_MAX);
        engine->regions[engine->region_count++] =
            (struct iovec){ .iov_base = start, .iov_len = part };
        start += part;
        length_bytes -= part;
    }
}

int
engine_find_region(const struct io_engine *engine, const void *base, size_t length_bytes)
{
    if (!engine->regions_registered) {
        return -1;
    }
    for (uint32_t i = 0; i < engine->region_count; i++) {
        uintptr_t offset = (uintptr_t)base - (uintptr_t)engine->regions[i].iov_base;
        if (offset < engine->regions[i].iov_len &&
            length_bytes <= engine->regions[i].iov_len - offset) {
            return (int)i;
        }
    }
    return -1;
}

/* ---- foreign descriptors ---- */

void
engine_fd_poll(struct io_engine *engine, struct fd_poll *poll)
{
    ASSERT_ON_REACTOR(engine->reactor);
    ASSERT(poll->op.done != NULL);
    poll->op.reactor_id = engine->reactor_id;
    struct io_uring_sqe *entry = engine_get_entry(engine, &poll->op, TAG_OP);
    io_uring_prep_poll_add(entry, poll->fd, poll->events);
}

void
engine_fd_poll_cancel(struct io_engine *engine, struct fd_poll *poll)
{
    ASSERT_ON_REACTOR(engine->reactor);
    engine_cancel(engine, &poll->op, TAG_OP);
}
