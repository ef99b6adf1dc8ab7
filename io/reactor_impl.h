/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a reactor, shared by reactor.c and timer.c. */
#ifndef IO_REACTOR_IMPL_H
#define IO_REACTOR_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/util.h"
#include "io/mailbox_impl.h"
#include "io/reactor.h"

/* Binary heap by due time. entries[i]->slot == i + 1. */
struct timer_heap {
    struct timer **entries;
    uint32_t count;
    uint32_t capacity;
};

void timer_heap_free(struct timer_heap *heap);
/* The earliest timer; NULL when none is armed. */
struct timer *timer_heap_first(const struct timer_heap *heap);
/* Call what is due at `now_ns`, at most as many as there are now. Returns how many. */
uint32_t timer_heap_run(struct timer_heap *heap, uint64_t now_ns);

/*
 * Adaptive spin. Whether the next gap without work will be short is guessed as processors guess
 * branches: by what followed the last few gaps when they looked the same (a request from a host
 * comes at once, the disk takes its time, and so on in turn). For each such history, a spin that
 * finds no work makes the reactor skip a growing number of tries, so that a load which never
 * answers in time costs next to nothing; and an idle reactor, whose gaps are long, does not try.
 */
enum {
    SPIN_HISTORY_GAPS = 3,
    SPIN_CONTEXTS = 1 << SPIN_HISTORY_GAPS,
    SPIN_PENALTY_MAX = 1023,
};

struct spin_state {
    uint64_t spin_ns_max;
    uint32_t history; /* one bit for each of the last gaps: it was short */
    struct {
        uint16_t penalty; /* tries to skip after the next miss */
        uint16_t skip;    /* tries still to be skipped */
    } contexts[SPIN_CONTEXTS];
};

/* Whether to spin in the gap that begins now. */
static inline bool
spin_wanted(const struct spin_state *spin)
{
    return spin->spin_ns_max > 0 && spin->contexts[spin->history].skip == 0;
}

/*
 * A gap has ended. `tried`: the reactor spun, and `hit`: found work in time. A gap that was slept
 * through looks longer than it was, by the time that waking takes.
 */
static inline void
spin_learn(struct spin_state *spin, bool tried, bool hit, uint64_t gap_ns)
{
    uint16_t *penalty = &spin->contexts[spin->history].penalty;
    uint16_t *skip = &spin->contexts[spin->history].skip;

    if (tried && hit) {
        *penalty /= 2;
    } else if (tried) {
        *penalty = (uint16_t)MIN(2 * *penalty + 1, SPIN_PENALTY_MAX);
        *skip = *penalty;
    } else if (*skip > 0 && gap_ns < 4 * spin->spin_ns_max) {
        --*skip;
    }
    bool was_short = tried ? hit : gap_ns < spin->spin_ns_max + spin->spin_ns_max / 2;
    spin->history = (spin->history << 1 | was_short) & (SPIN_CONTEXTS - 1);
}

/* Polls take at most their share of each such window. */
#define POLL_WINDOW_NS (10 * NS_PER_MS)

struct reactor {
    struct platform *platform;
    struct io_engine *engine;
    struct buffer_pool *buffer_pool;
    uint32_t id;
    int cpu;

    /* Owner only. */
    uint64_t now_ns;
    uint64_t accounted_ns; /* up to here time has been put into the statistics */
    bool worked;           /* whether the last pass found work */
    bool more;             /* set by the platform: it has more to give when it is polled again */
    struct io_op *ready_first;
    struct io_op *ready_last;
    struct pass_hook *hook_first;
    struct pass_hook *hook_last;
    struct timer_heap timers;
    uint32_t transfers;     /* between disks and memory, that the platform has begun */
    struct spin_state spin; /* while there are none */
    struct spin_state poll; /* while there are some */
    uint32_t poll_percent;
    uint64_t poll_window_ns; /* when the window began */
    uint64_t poll_spent_ns;  /* on polls in it */
    struct reactor_statistics statistics;

    pthread_t thread;
    bool thread_started;

    /* Written by other threads. */
    _Alignas(64) struct mailbox mailbox;
    _Atomic bool stop;
};

/* For the platform: a transfer begins. */
static inline void
reactor_transfer_begun(struct reactor *reactor)
{
    reactor->transfers++;
}

static inline void
reactor_transfer_ended(struct reactor *reactor)
{
    ASSERT_OP(reactor->transfers, >, 0u);
    reactor->transfers--;
}

#endif
