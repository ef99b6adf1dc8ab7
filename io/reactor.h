/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reactors: one thread, one ring, one core each; what a reactor owns only it touches.
 *
 * THEORY OF OPERATION
 *
 * A pass of the loop: (1) take messages from the mailbox, (2) run completions from the ready list,
 * (3) run timers that are due, (4) run the end-of-pass hooks (connections flush the replies that
 * the pass produced, batches of submissions are built), (5) hand everything that was submitted to
 * the platform in one call and reap. When nothing is ready, the reactor spins for a short,
 * adaptive time, then sleeps in the platform until a completion, a message or a timer. While disks
 * work for it, it spins longer ("polls"): they answer soon, and to sleep and be woken takes longer
 * than many of them do, for the processor that takes the interrupt as well.
 *
 * Invariants
 *  R1  done(), message and timer functions run on the reactor's own thread, from the loop, never
 *      nested in a submission. They run to completion and must not block.
 *  R2  Messages of one sender to one receiver arrive in the order in which they were sent.
 *  R3  Between reactors there are messages only; no other thread touches a reactor's data.
 *  R4  In simulation all reactors run on one thread, in an order that the seed decides; product
 *      code cannot tell.
 */
#ifndef IO_REACTOR_H
#define IO_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "io/op.h"

struct platform;
struct io_engine;
struct buffer_pool;
struct reactor;

enum {
    REACTOR_COUNT_MAX = 64
};

/* ---- messages ---- */

struct message;
typedef void message_fn(struct message *message);

/*
 * Embedded in what it is about. Zeroed = idle. May be sent again, or freed, from the moment when
 * its function is called.
 */
struct message {
    message_fn *deliver;
    struct message *next;
};

/* ---- timers ---- */

struct timer;
typedef void timer_fn(struct timer *timer);

/* One-shot. A zeroed timer is idle. Belongs to one reactor from arm to expiry or disarm. */
struct timer {
    timer_fn *expired;
    uint64_t due_ns; /* reactor_now_ns() scale */
    uint32_t slot;   /* position in the reactor's heap, plus one; 0 while idle */
};

/* ---- end-of-pass hooks ---- */

struct pass_hook;
typedef void pass_hook_fn(struct pass_hook *hook);

/* Called once at the end of the current pass, then forgotten. Zeroed = idle. */
struct pass_hook {
    pass_hook_fn *run;
    struct pass_hook *next;
    bool queued;
};

/* ---- statistics (written by the reactor only; read anywhere, torn reads are tolerated) ---- */

struct reactor_statistics {
    uint64_t passes;
    uint64_t completions;
    uint64_t messages;
    uint64_t timers;
    uint64_t sleeps;
    uint64_t busy_ns;  /* passes that found work */
    uint64_t spin_ns;  /* looking for work without sleeping, polls included */
    uint64_t sleep_ns; /* blocked in the platform */
    uint64_t poll_ns;  /* looking for work while transfers are under way */
    uint64_t polls;
    uint64_t poll_hits; /* that found work in time */
};

/* ---- life ---- */

struct reactor_options {
    uint32_t id;                /* 0 .. REACTOR_COUNT_MAX - 1 */
    uint64_t buffer_pool_bytes; /* payload memory; 0: no pool */
    uint32_t spin_us_max;       /* longest spin before sleeping, 30 is good; 0: never spin */
    uint32_t poll_us_max;       /* the same while transfers are under way; 0: no difference */
    uint32_t poll_percent_max;  /* of the time that such polls may take, 0 to 100 */
    int cpu;                    /* pin to this CPU; -1: do not pin */
};

/*
 * Create a reactor on `platform`; starts no thread. Context: any. Returns 0 or -errno with `error`
 * set (for example too little locked memory for the ring).
 */
int reactor_create(struct platform *platform, const struct reactor_options *options,
                   struct reactor **ret_reactor, struct error *error);
/* The loop must have ended. Frees everything. */
void reactor_destroy(struct reactor *reactor);
/* Start a thread that loops until reactor_stop(). Not used in simulation. */
int reactor_start(struct reactor *reactor, struct error *error);
/* Ask the loop to end after the current pass; any thread. */
void reactor_stop(struct reactor *reactor);
/* Wait for the thread of reactor_start(). Not from a reactor. */
void reactor_join(struct reactor *reactor);

/*
 * One pass of the loop. With `wait`, sleeps up to `wait_ns` when it found nothing to do. Returns
 * whether it did any work. Called by the thread of reactor_start(), by the simulator, and by tests,
 * which may call it on their own thread; sets reactor_self() while it runs. A reactor may move to
 * another thread between passes only while nothing is in flight.
 */
bool reactor_pass(struct reactor *reactor, bool wait, uint64_t wait_ns);

/*
 * For who drives passes himself (the simulator, tests): whether a pass would find something to do
 * now without the platform completing anything more: a message in the mailbox, a completion on the
 * ready list, an end-of-pass hook, or a timer due at platform_ops.monotonic_ns(). Only from the
 * thread that runs the loop, or while no loop runs. Does not change the reactor.
 */
bool reactor_has_work(const struct reactor *reactor);
/* When its earliest timer is due; UINT64_MAX: no timer is armed. Context as reactor_has_work(). */
uint64_t reactor_next_timer_ns(const struct reactor *reactor);

/* ---- use ---- */

/* The reactor whose loop is running on this thread; NULL on other threads. */
struct reactor *reactor_self(void);
uint32_t reactor_id(const struct reactor *reactor);
struct platform *reactor_platform(const struct reactor *reactor);
struct io_engine *reactor_engine(const struct reactor *reactor);
struct buffer_pool *reactor_buffer_pool(const struct reactor *reactor);
const struct reactor_statistics *reactor_statistics(const struct reactor *reactor);

/* Time at the start of the pass (monotonic; virtual in simulation). Cheap; owner only. */
uint64_t reactor_now_ns(const struct reactor *reactor);

/*
 * Queue the completion of `op` on the calling reactor; done() runs later in this pass or the next.
 * `op->reactor_id` must be the caller's.
 */
void reactor_complete(struct io_op *op, int32_t result);

/*
 * Send a message; any thread, lock-free. The receiver wakes if it sleeps. The message must not be
 * in flight already. Sending to oneself is allowed: delivered in a later step of the loop.
 */
void reactor_send(struct reactor *to, struct message *message, message_fn *deliver);

/* Arm (or re-arm) for an absolute time; owner only. O(log n). */
void timer_arm(struct reactor *reactor, struct timer *timer, uint64_t due_ns, timer_fn *expired);
/* Disarm if armed; expired() will not be called any more. Owner only. */
void timer_disarm(struct reactor *reactor, struct timer *timer);
static inline bool
timer_is_armed(const struct timer *timer)
{
    return timer->slot != 0;
}

/* Run `hook` once at the end of this pass, before submissions go out. Idempotent. Owner only. */
void reactor_end_of_pass(struct reactor *reactor, struct pass_hook *hook, pass_hook_fn *run);

/* First line of every function that touches what a reactor owns. */
#define ASSERT_ON_REACTOR(reactor) ASSERT((reactor) == reactor_self())

#endif
