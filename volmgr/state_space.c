/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room on the file system of the state directory, where the pools' databases live.
 *
 * When it is full, the next commit fails, and a pool whose commit has failed is read-only until it
 * is opened again. So it is looked at every second while a pool is open, and before it comes to
 * that, writes that need new map entries are refused as if the pool were full (P7): overwrites,
 * discards, deletion and new disks go on, for which the database gives back the ballast that it has
 * kept. When there is room again, the ballast is taken back and the refusal ends.
 *
 *   below 2 ballasts                 the administrator is told
 *   below half a ballast             refuse, and give back the ballast
 *   2 ballasts, one given back       take it again, and lift the refusal
 *
 * Everything here runs on the control reactor but for the look itself (offload) and shard_told().
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

#define LOOK_NS (1 * NS_PER_S)

struct state_space {
    struct pool *pool;
    struct timer timer;
    struct offload_job job;
    struct store_ballast ballast;
    uint64_t free_bytes;
    bool busy;     /* a look or a change of the ballast is under way */
    bool low;      /* the administrator was told */
    bool refusing; /* new map entries; the ballast was given back */
};

static void look_due(struct timer *timer);

static uint64_t
ballast_bytes(const struct state_space *space)
{
    uint64_t bytes = space->pool->manager->options.ballast_bytes;
    return bytes > 0 ? bytes : STORE_BALLAST_BYTES_DEFAULT;
}

static void
look_again(struct state_space *space)
{
    struct pool *pool = space->pool;
    struct reactor *control = pool->manager->control;

    ASSERT_ON_REACTOR(control);
    space->busy = false;
    if (!pool->stopping) {
        timer_arm(control, &space->timer, reactor_now_ns(control) + LOOK_NS, look_due);
    }
}

/* ---- refusing ---- */

struct refusal_notice {
    struct message message;
    struct shard *shard;
    bool refuses;
};

static void
shard_told(struct message *message)
{
    struct refusal_notice *notice = container_of(message, struct refusal_notice, message);

    notice->shard->refuses_entries = notice->refuses;
    free(notice);
}

static void
set_refusing(struct state_space *space, bool refusing)
{
    struct pool *pool = space->pool;

    space->refusing = refusing;
    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        struct refusal_notice *notice = calloc(1, sizeof(*notice));
        ASSERT(notice != NULL);
        notice->shard = pool->shards[i];
        notice->refuses = refusing;
        reactor_send(notice->shard->reactor, &notice->message, shard_told);
    }
}

static void
ballast_given_back(struct io_op *op)
{
    struct store_ballast *ballast = container_of(op, struct store_ballast, op);
    struct state_space *space = container_of(ballast, struct state_space, ballast);

    if (op->result < 0) {
        log_warning("store", "%s: the ballast cannot be given back: %s", space->pool->name,
                    error_name(op->result));
    }
    look_again(space);
}

static void
ballast_taken(struct io_op *op)
{
    struct store_ballast *ballast = container_of(op, struct store_ballast, op);
    struct state_space *space = container_of(ballast, struct state_space, ballast);
    struct pool *pool = space->pool;

    if (op->result == 0) {
        set_refusing(space, false);
        event_raise(pool->manager, EVENT_INFO, pool->name, NULL, "state-space-back",
                    "the file system of the state directory has room again: new space can be "
                    "written to");
    }
    look_again(space); /* without it: when it does not fit, this is tried again */
}

static void
change_ballast(struct state_space *space, bool hold)
{
    space->ballast.op.done = hold ? ballast_taken : ballast_given_back;
    space->ballast.op.reactor_id = reactor_id(space->pool->manager->control);
    space->ballast.hold = hold;
    store_ballast(space->pool->store, &space->ballast);
}

/* ---- looking ---- */

static int32_t
look_work(struct offload_job *job)
{
    struct state_space *space = container_of(job, struct state_space, job);
    const struct manager_options *options = &space->pool->manager->options;

    return options->state_free(options->store_context, &space->free_bytes);
}

static void
tell_low(struct state_space *space, uint64_t unit_bytes)
{
    struct pool *pool = space->pool;
    char text[SIZE_TEXT_SIZE];

    if (space->free_bytes >= 3 * unit_bytes) {
        space->low = false;
    } else if (space->free_bytes < 2 * unit_bytes && !space->low) {
        space->low = true;
        event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "state-space-low",
                    "the file system of the state directory has %s left: below %llu MiB, writes "
                    "that need new space are refused",
                    size_format(space->free_bytes, text),
                    (unsigned long long)(unit_bytes / 2 / MIB));
    }
}

static void
looked(struct io_op *op)
{
    struct offload_job *job = container_of(op, struct offload_job, op);
    struct state_space *space = container_of(job, struct state_space, job);
    struct pool *pool = space->pool;
    uint64_t unit_bytes = ballast_bytes(space);
    char text[SIZE_TEXT_SIZE];

    ASSERT(space->busy);
    if (op->result < 0 || pool->stopping) {
        look_again(space);
        return;
    }
    tell_low(space, unit_bytes);
    if (!space->refusing && space->free_bytes < unit_bytes / 2) {
        set_refusing(space, true);
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "state-space-full",
                    "the file system of the state directory has only %s left: writes that need new "
                    "space fail until there is more; reads, overwrites, discards and deletion go "
                    "on",
                    size_format(space->free_bytes, text));
        change_ballast(space, false);
    } else if (space->refusing && space->free_bytes >= 2 * unit_bytes) {
        change_ballast(space, true);
    } else {
        look_again(space);
    }
}

static void
look_due(struct timer *timer)
{
    struct state_space *space = container_of(timer, struct state_space, timer);

    ASSERT(!space->busy);
    space->busy = true;
    space->job.op.done = looked;
    offload_submit(space->pool->manager->offload, &space->job, look_work);
}

/* ---- life ---- */

void
state_space_watch(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(pool->state_space == NULL);
    if (pool->manager->options.state_free == NULL) {
        return;
    }
    pool->state_space = calloc(1, sizeof(*pool->state_space));
    ASSERT(pool->state_space != NULL);
    pool->state_space->pool = pool;
    look_again(pool->state_space);
}

bool
state_space_end(struct pool *pool)
{
    struct state_space *space = pool->state_space;

    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(pool->stopping);
    if (space == NULL) {
        return true;
    }
    if (space->busy) {
        return false;
    }
    timer_disarm(pool->manager->control, &space->timer);
    free(space);
    pool->state_space = NULL;
    return true;
}
