/* SPDX-License-Identifier: Apache-2.0 */
#include "io/reactor.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "io/buffer_pool.h"
#include "io/platform.h"
#include "io/reactor_impl.h"

enum {
    COMPLETIONS_PER_PASS_MAX = 1024, /* then timers, hooks and submissions get their turn */
    SPIN_CHECKS_PER_CLOCK = 8,
};

static _Thread_local struct reactor *current_reactor;

/* ---- life ---- */

int
reactor_create(struct platform *platform, const struct reactor_options *options,
               struct reactor **ret_reactor, struct error *error)
{
    ASSERT(platform != NULL && ret_reactor != NULL);
    ASSERT_OP(options->id, <, (uint32_t)REACTOR_COUNT_MAX);

    struct reactor *reactor = aligned_alloc(_Alignof(struct reactor), sizeof(struct reactor));
    if (reactor == NULL) {
        return error_set(error, -ENOMEM, "no memory for reactor %u", options->id);
    }
    *reactor = (struct reactor){
        .platform = platform,
        .id = options->id,
        .cpu = options->cpu,
        .spin = { .spin_ns_max = options->spin_us_max * NS_PER_US },
        .poll = { .spin_ns_max = options->poll_us_max * NS_PER_US },
        .poll_percent = options->poll_percent_max,
    };
    int result = platform->ops->engine_open(platform, reactor, &reactor->engine, error);
    if (result < 0) {
        free(reactor);
        return result;
    }
    if (options->buffer_pool_bytes > 0) {
        result = buffer_pool_create(reactor, options->buffer_pool_bytes, &reactor->buffer_pool);
        if (result < 0) {
            platform->ops->engine_close(reactor->engine);
            free(reactor);
            return error_set(error, result, "cannot map %llu bytes of payload memory: %s",
                             (unsigned long long)options->buffer_pool_bytes, error_name(result));
        }
    }
    reactor->now_ns = platform->ops->monotonic_ns(platform);
    reactor->accounted_ns = reactor->now_ns;
    *ret_reactor = reactor;
    return 0;
}

void
reactor_destroy(struct reactor *reactor)
{
    ASSERT(!reactor->thread_started);
    ASSERT(current_reactor != reactor);

    /* The ring goes first: it may still hold the payload memory. */
    reactor->platform->ops->engine_close(reactor->engine);
    if (reactor->buffer_pool != NULL) {
        buffer_pool_destroy(reactor->buffer_pool);
    }
    timer_heap_free(&reactor->timers);
    free(reactor);
}

/* ---- the steps of a pass ---- */

static bool
deliver_messages(struct reactor *reactor)
{
    struct message *message = mailbox_take(&reactor->mailbox);
    uint64_t count = 0;

    while (message != MAILBOX_END) {
        struct message *next = message->next;
        ASSERT(next != NULL && message->deliver != NULL);
        message->next = NULL; /* from here on it may be sent again, or freed */
        message->deliver(message);
        message = next;
        count++;
    }
    reactor->statistics.messages += count;
    return count > 0;
}

static bool
run_completions(struct reactor *reactor)
{
    uint32_t count = 0;

    while (reactor->ready_first != NULL && count < COMPLETIONS_PER_PASS_MAX) {
        struct io_op *op = reactor->ready_first;
        reactor->ready_first = op->ready_next;
        if (reactor->ready_first == NULL) {
            reactor->ready_last = NULL;
        }
        io_op_done_fn *done = op->done;
        ASSERT(done != NULL);
        op->ready_next = NULL;
        op->done = NULL; /* a second completion of the same submission is noticed */
        done(op);
        count++;
    }
    reactor->statistics.completions += count;
    return count > 0;
}

static bool
run_hooks(struct reactor *reactor)
{
    struct pass_hook *hook = reactor->hook_first;
    bool worked = hook != NULL;

    /* What is queued meanwhile belongs to the next pass. */
    reactor->hook_first = NULL;
    reactor->hook_last = NULL;
    while (hook != NULL) {
        struct pass_hook *next = hook->next;
        ASSERT(hook->queued);
        hook->next = NULL;
        hook->queued = false;
        hook->run(hook);
        hook = next;
    }
    return worked;
}

/* Read the clock and put the time since the last reading into `bucket`. */
static uint64_t
account(struct reactor *reactor, uint64_t *bucket)
{
    uint64_t now_ns = reactor->platform->ops->monotonic_ns(reactor->platform);
    if (now_ns > reactor->accounted_ns) {
        *bucket += now_ns - reactor->accounted_ns;
        reactor->accounted_ns = now_ns;
    }
    return now_ns;
}

/* ---- waiting ---- */

static bool
has_work(struct reactor *reactor)
{
    return reactor->ready_first != NULL || reactor->hook_first != NULL || reactor->more ||
           !mailbox_empty(&reactor->mailbox) ||
           atomic_load_explicit(&reactor->stop, memory_order_acquire);
}

/* Look for work until `until_ns`. Returns whether there is some. */
static bool
spin_for_work(struct reactor *reactor, uint64_t until_ns)
{
    const struct platform_ops *ops = reactor->platform->ops;

    for (;;) {
        for (uint32_t i = 0; i < SPIN_CHECKS_PER_CLOCK; i++) {
            if (ops->engine_poll(reactor->engine, 0) > 0 || has_work(reactor)) {
                return true;
            }
            __builtin_ia32_pause();
        }
        if (ops->monotonic_ns(reactor->platform) >= until_ns) {
            return false;
        }
    }
}

/* How long may be polled at `now_ns` without more than the configured share of the time. */
static uint64_t
poll_left(struct reactor *reactor, uint64_t now_ns)
{
    uint64_t share_ns = POLL_WINDOW_NS / 100 * reactor->poll_percent;

    if (now_ns - reactor->poll_window_ns >= POLL_WINDOW_NS) {
        reactor->poll_window_ns = now_ns;
        reactor->poll_spent_ns = 0;
    }
    return share_ns > reactor->poll_spent_ns ? share_ns - reactor->poll_spent_ns : 0;
}

/* Spin for up to `spin_ns`. Returns whether work was found; the time is accounted for. */
static bool
spin_or_poll(struct reactor *reactor, bool polling, uint64_t start_ns, uint64_t spin_ns,
             uint64_t *ret_now_ns)
{
    struct reactor_statistics *statistics = &reactor->statistics;
    bool hit = spin_for_work(reactor, start_ns + spin_ns);
    uint64_t now_ns = account(reactor, &statistics->spin_ns);

    if (polling) {
        reactor->poll_spent_ns += now_ns - start_ns;
        statistics->poll_ns += now_ns - start_ns;
        statistics->polls++;
        statistics->poll_hits += hit ? 1 : 0;
    }
    *ret_now_ns = now_ns;
    return hit;
}

/* Nothing is ready: hand over what was submitted, spin if that has paid lately, then sleep. */
static bool
wait_for_work(struct reactor *reactor, uint64_t wait_ns)
{
    const struct platform_ops *ops = reactor->platform->ops;
    bool polling = reactor->transfers > 0 && reactor->poll.spin_ns_max > 0;
    struct spin_state *spin = polling ? &reactor->poll : &reactor->spin;
    struct reactor_statistics *statistics = &reactor->statistics;
    uint64_t start_ns =
        account(reactor, reactor->worked ? &statistics->busy_ns : &statistics->spin_ns);
    struct timer *first = timer_heap_first(&reactor->timers);
    if (first != NULL) {
        wait_ns = MIN(wait_ns, first->due_ns > start_ns ? first->due_ns - start_ns : 0);
    }
    uint64_t spin_ns = MIN(wait_ns, spin->spin_ns_max);
    if (polling) {
        spin_ns = MIN(spin_ns, poll_left(reactor, start_ns));
    }
    bool try_spin = spin_wanted(spin) && spin_ns > 0;
    bool hit = false;
    uint64_t now_ns = start_ns;
    if (try_spin) {
        hit = spin_or_poll(reactor, polling, start_ns, spin_ns, &now_ns);
        uint64_t spun_ns = now_ns - start_ns;
        /* To have spun up to the next timer is as good as a hit. */
        hit = hit || spun_ns >= wait_ns;
        wait_ns = wait_ns > spun_ns ? wait_ns - spun_ns : 0;
    }
    bool reaped = hit;
    if (!hit) {
        if (wait_ns > 0 && !has_work(reactor)) {
            statistics->sleeps++;
            reaped = ops->engine_poll(reactor->engine, wait_ns) > 0;
            now_ns = account(reactor, &statistics->sleep_ns);
        } else {
            reaped = ops->engine_poll(reactor->engine, 0) > 0;
        }
    }
    if (spin->spin_ns_max > 0) {
        spin_learn(spin, try_spin, hit, now_ns - start_ns);
    }
    return reaped;
}

/* What a pass does when it has run everything. */
enum idle_mode {
    IDLE_RETURN,        /* never sleep */
    IDLE_SLEEP,         /* sleep if the pass found nothing to do */
    IDLE_SLEEP_AT_ONCE, /* sleep even after work: one call hands over and waits */
};

static bool
run_pass(struct reactor *reactor, enum idle_mode idle, uint64_t wait_ns)
{
    /* A pass of another reactor may be on this thread (the simulator's offload jobs). */
    struct reactor *outer = current_reactor;
    ASSERT(outer != reactor);
    current_reactor = reactor;

    struct reactor_statistics *statistics = &reactor->statistics;
    reactor->now_ns =
        account(reactor, reactor->worked ? &statistics->busy_ns : &statistics->spin_ns);
    statistics->passes++;
    bool worked = deliver_messages(reactor);
    worked |= run_completions(reactor);
    uint32_t expired = timer_heap_run(&reactor->timers, reactor->now_ns);
    statistics->timers += expired;
    worked |= expired > 0;
    worked |= run_hooks(reactor);
    reactor->worked = worked;

    bool reaped;
    bool may_sleep = idle == IDLE_SLEEP_AT_ONCE || (idle == IDLE_SLEEP && !worked);
    if (may_sleep && wait_ns > 0 && !has_work(reactor)) {
        reaped = wait_for_work(reactor, wait_ns);
    } else {
        reaped = reactor->platform->ops->engine_poll(reactor->engine, 0) > 0;
    }
    current_reactor = outer;
    return worked || reaped;
}

bool
reactor_pass(struct reactor *reactor, bool wait, uint64_t wait_ns)
{
    /* Who turns the loop until something has happened must see that it has. */
    return run_pass(reactor, wait ? IDLE_SLEEP : IDLE_RETURN, wait_ns);
}

/* ---- threads ---- */

static void *
reactor_thread(void *argument)
{
    struct reactor *reactor = argument;

    if (reactor->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)reactor->cpu, &set);
        int result = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
        if (result != 0) {
            log_warning("io", "reactor %u: cannot pin to CPU %d: %s", reactor->id, reactor->cpu,
                        error_name(result));
        }
    }
    while (!atomic_load_explicit(&reactor->stop, memory_order_acquire)) {
        run_pass(reactor, IDLE_SLEEP_AT_ONCE, UINT64_MAX);
    }
    return NULL;
}

int
reactor_start(struct reactor *reactor, struct error *error)
{
    ASSERT(!reactor->thread_started);
    sigset_t all, old;
    char name[16];

    atomic_store(&reactor->stop, false);
    /* Signals are for the main thread: reactors must not be interrupted in the middle of a call. */
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* raised by an instruction, not sent: see platform_uring_memory.c */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int result = pthread_create(&reactor->thread, NULL, reactor_thread, reactor);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (result != 0) {
        return error_set(error, -result, "cannot start the thread of reactor %u: %s", reactor->id,
                         error_name(result));
    }
    snprintf(name, sizeof(name), "reactor-%u", reactor->id);
    pthread_setname_np(reactor->thread, name);
    reactor->thread_started = true;
    return 0;
}

void
reactor_stop(struct reactor *reactor)
{
    atomic_store_explicit(&reactor->stop, true, memory_order_release);
    reactor->platform->ops->engine_wake(reactor->engine);
}

void
reactor_join(struct reactor *reactor)
{
    ASSERT(current_reactor == NULL);
    if (reactor->thread_started) {
        int result = pthread_join(reactor->thread, NULL);
        ASSERT_OP(result, ==, 0);
        reactor->thread_started = false;
        atomic_store(&reactor->stop, false); /* the caller may run last passes itself */
    }
}

/* ---- for who drives passes himself ---- */

uint64_t
reactor_next_timer_ns(const struct reactor *reactor)
{
    const struct timer *first = timer_heap_first(&reactor->timers);
    return first == NULL ? UINT64_MAX : first->due_ns;
}

bool
reactor_has_work(const struct reactor *reactor)
{
    return reactor->ready_first != NULL || reactor->hook_first != NULL || reactor->more ||
           !mailbox_empty(&reactor->mailbox) ||
           reactor_next_timer_ns(reactor) <=
               reactor->platform->ops->monotonic_ns(reactor->platform);
}

/* ---- use ---- */

struct reactor *
reactor_self(void)
{
    return current_reactor;
}

uint32_t
reactor_id(const struct reactor *reactor)
{
    return reactor->id;
}

struct platform *
reactor_platform(const struct reactor *reactor)
{
    return reactor->platform;
}

struct io_engine *
reactor_engine(const struct reactor *reactor)
{
    return reactor->engine;
}

struct buffer_pool *
reactor_buffer_pool(const struct reactor *reactor)
{
    return reactor->buffer_pool;
}

const struct reactor_statistics *
reactor_statistics(const struct reactor *reactor)
{
    return &reactor->statistics;
}

uint64_t
reactor_now_ns(const struct reactor *reactor)
{
    return reactor->now_ns;
}

void
reactor_complete(struct io_op *op, int32_t result)
{
    struct reactor *reactor = current_reactor;
    ASSERT(reactor != NULL);
    ASSERT_OP(op->reactor_id, ==, reactor->id);
    ASSERT(op->done != NULL);

    op->result = result;
    op->ready_next = NULL;
    if (reactor->ready_last != NULL) {
        reactor->ready_last->ready_next = op;
    } else {
        reactor->ready_first = op;
    }
    reactor->ready_last = op;
}

void
reactor_send(struct reactor *to, struct message *message, message_fn *deliver)
{
    ASSERT(to != NULL && deliver != NULL);
    message->deliver = deliver;
    bool was_empty = mailbox_push(&to->mailbox, message);
    /* If it was not empty, whoever made it so is waking the receiver. We ourselves are awake. */
    if (was_empty && to != current_reactor) {
        to->platform->ops->engine_wake(to->engine);
    }
}

void
reactor_end_of_pass(struct reactor *reactor, struct pass_hook *hook, pass_hook_fn *run)
{
    ASSERT_ON_REACTOR(reactor);
    ASSERT(run != NULL);
    hook->run = run;
    if (hook->queued) {
        return;
    }
    hook->queued = true;
    hook->next = NULL;
    if (reactor->hook_last != NULL) {
        reactor->hook_last->next = hook;
    } else {
        reactor->hook_first = hook;
    }
    reactor->hook_last = hook;
}
