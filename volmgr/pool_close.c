/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closing a pool: no new requests, let those in flight end, make everything durable, note that it
 * was closed cleanly, let go of the disks.
 *
 * When something cannot be made durable the pool is closed all the same, but not noted as clean and
 * with its volatile journals left in place: the next open replays them.
 *
 * Deleting a pool is closing it for good: it is judged when its turn in the line has come, its
 * labels are removed instead of written, and its database goes while the name is still taken. Death
 * in between leaves an OFFLINE pool that holds nothing, and can be deleted with force.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define POOL_CLOSE_PHASES(X)                                                                       \
    X(JUDGE)                                                                                       \
    X(STOP_BACKGROUND)                                                                             \
    X(DROP_SESSIONS)                                                                               \
    X(DRAIN)                                                                                       \
    X(SETTLE)                                                                                      \
    X(MARK_CLEAN)                                                                                  \
    X(CLOSE_LABELS)                                                                                \
    X(STOP_SHARDS)                                                                                 \
    X(FREE_VOLUMES)                                                                                \
    X(AWAIT_LABELS)                                                                                \
    X(CLOSE_STORE)                                                                                 \
    X(CLOSE_DISKS)                                                                                 \
    X(REMOVE_STORE)                                                                                \
    X(END)

/* So often in a row a volume's batch could not be made durable: it will not be any more. */
enum {
    CLOSE_SEALS_FAILED = 3
};

enum pool_close_phase {
#define PHASE_ENUM(name) CLOSE_##name,
    POOL_CLOSE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CLOSE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_CLOSE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == CLOSE_PHASE_COUNT, "a name for each phase");

struct pool_closing {
    struct machine machine;
    struct pool *pool;
    pool_closed_fn *done;
    void *context;
    struct round round;
    struct machine_pause pause;
    struct commit_request commit;
    struct byte_buffer batch;
    struct machine_job job;
    struct backends_close close;
    bool for_good; /* delete it */
    bool force;    /* although it is not whole */
    bool begun;
    bool was_serving;
    bool is_clean; /* everything that was acknowledged is durable, and noted as such */
    bool undrained[REACTOR_COUNT_MAX]; /* each reactor its own: something could not be committed */
    struct error error;
};

MACHINE_DONE(commit_done, struct pool_closing, commit.op)

/* ---- draining; on each reactor ---- */

static enum machine_step
drop_visit(struct round_stop *stop)
{
    struct pool *pool = stop->round->context;

    list_for_each(&pool->shards[stop->index]->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        volume->closed = true;
        volume->seals_failed = 0; /* its disk may be good again: try */
        volume_sessions_notify(volume, VOLUME_SESSION_DROP);
    }
    return MACHINE_NEXT;
}

/* Whether nothing of the volume is under way. Starts what makes it so. */
static bool
volume_is_quiet(struct volume *volume, bool *ret_undrained)
{
    volume->serving = false;
    if (!list_empty(&volume->sessions) || !list_empty(&volume->active) ||
        volume->source.asking || volume->seal.phase != SEAL_IDLE) {
        return false;
    }
    if (seal_is_clean(volume) && !volume->journal_fenced) {
        return true;
    }
    if (volume->fenced || volume->commit_failed ||
        (volume->loss == NULL && volume->seals_failed >= CLOSE_SEALS_FAILED)) {
        *ret_undrained = true; /* it will not become clean any more */
        return true;
    }
    seal_kick(volume);
    return false;
}

static enum machine_step
drain_look(struct round_stop *stop)
{
    struct pool_closing *closing = container_of(stop->round, struct pool_closing, round);
    struct shard *shard = closing->pool->shards[stop->index];
    bool quiet = !shard->shared_source.asking;

    list_for_each(&shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        quiet = volume_is_quiet(volume, &closing->undrained[stop->index]) && quiet;
    }
    return quiet ? MACHINE_NEXT : MACHINE_WAIT;
}

static void drain_again(struct timer *timer);

static enum machine_step
drain_visit(struct round_stop *stop)
{
    struct manager *manager = stop->round->machine->manager;
    struct reactor *reactor = manager->options.reactors[stop->index];

    if (drain_look(stop) == MACHINE_NEXT) {
        return MACHINE_NEXT;
    }
    timer_arm(reactor, &stop->timer, reactor_now_ns(reactor) + CONTROL_POLL_NS, drain_again);
    return MACHINE_WAIT;
}

static void
drain_again(struct timer *timer)
{
    struct round_stop *stop = container_of(timer, struct round_stop, timer);

    if (drain_visit(stop) == MACHINE_NEXT) {
        round_stop_done(stop);
    }
}

static enum machine_step
stop_visit(struct round_stop *stop)
{
    struct pool_closing *closing = container_of(stop->round, struct pool_closing, round);
    struct shard *shard = closing->pool->shards[stop->index];

    shard_stop(shard);
    if (closing->undrained[stop->index]) {
        map_cache_abandon(&shard->cache);
    }
    for (struct list *link = list_pop_front(&shard->volumes); link != NULL;
         link = list_pop_front(&shard->volumes)) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        ASSERT(list_empty(&volume->sessions) && list_empty(&volume->active));
        ASSERT(!volume->serving);
    }
    return MACHINE_NEXT;
}

/* ---- deleting ---- */

static uint32_t
volumes_left(const struct pool *pool, const struct volume **ret_volume)
{
    uint32_t count = 0;

    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (!volume->durable.deleting) {
            *ret_volume = volume;
            count++;
        }
    }
    return count;
}

/* Whether the pool can be deleted. 0, or -EBUSY, -ENODEV with `error` set. */
static int
judge_deletion(const struct pool *pool, bool force, struct error *error)
{
    const struct volume *volume = NULL;
    uint32_t count = volumes_left(pool, &volume);

    if (count > 0 && pool_is_serving(pool)) {
        return error_set(error, -EBUSY,
                         "pool `%s` has %u volume%s, such as `%s/%s`: delete %s first", pool->name,
                         count, count == 1 ? "" : "s", pool->name, volume->durable.name,
                         count == 1 ? "it" : "them");
    }
    if (pool->state != POOL_STATE_ONLINE && !force) {
        return error_set(error, -ENODEV,
                         "pool `%s` is %s (%.300s): disks that cannot be reached would keep their "
                         "labels, and what is on them; --force forgets it all the same",
                         pool->name, pool_state_name(pool->state), pool->reason);
    }
    return 0;
}

static enum machine_step
judge(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;

    if (!closing->for_good) {
        return MACHINE_NEXT;
    }
    if (pool->stopping) {
        error_set(&closing->error, -ESHUTDOWN, "pool `%s` is being closed", pool->name);
        return machine_end(&closing->machine);
    }
    if (judge_deletion(pool, closing->force, &closing->error) < 0) {
        return machine_end(&closing->machine);
    }
    /* Operations that step out of the line are on volumes: none is under way. */
    pool->stopping = true;
    return MACHINE_NEXT;
}

static int32_t
store_remove_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_closing *closing = container_of(own, struct pool_closing, job);
    const struct manager_options *options = &closing->machine.manager->options;

    return options->store_remove(options->store_context, closing->pool->name, &closing->error);
}

static enum machine_step
remove_store(struct pool_closing *closing)
{
    if (closing->for_good) {
        closing->error = (struct error){ 0 };
        machine_offload(&closing->machine, &closing->job, store_remove_work);
    }
    return machine_wait(&closing->machine);
}

/* ---- phases ---- */

static enum machine_step
stop_background(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;

    if (!closing->begun) {
        closing->begun = true;
        closing->was_serving = pool_is_serving(pool);
        /* Reports leave its shards alone from now on. */
        pool->state = POOL_STATE_OFFLINE;
        snprintf(pool->reason, sizeof(pool->reason), "it is being closed");
    }
    bool checking = pool_check_cancel(pool);
    /* A late flush of a start says whether writes are lost: worth the patience of the end. */
    if (!list_empty(&pool->erasures) || !policies_stop(pool) || !reclaim_has_stopped(pool) ||
        pool_checkpoint_cancel(pool) || checking ||
        pool->flushes_late > 0 || !state_space_end(pool)) {
        machine_goto(&closing->machine, CLOSE_STOP_BACKGROUND);
        machine_pause(&closing->machine, &closing->pause, CONTROL_POLL_NS);
        return machine_wait(&closing->machine);
    }
    if (!closing->was_serving) {
        return machine_goto(&closing->machine, CLOSE_FREE_VOLUMES);
    }
    return MACHINE_NEXT;
}

/* Look-ups that were not given back, or operations that wait outside the line. */
static bool
pool_has_holds(const struct pool *pool)
{
    if (pool->surveys > 0) {
        return true;
    }
    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->holds > 0 || volume->altering) {
            return true;
        }
    }
    return false;
}

/* Nothing comes from the shards any more; let the allocator, the committer and look-ups end. */
static enum machine_step
settle(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;

    if (pool_checkpoint_cancel(pool) || !allocator_is_idle(&pool->allocator) ||
        !committer_is_idle(&pool->committer) || pool_has_holds(pool) || !pool_views_end(pool)) {
        machine_goto(&closing->machine, CLOSE_SETTLE);
        machine_pause(&closing->machine, &closing->pause, CONTROL_POLL_NS);
        return machine_wait(&closing->machine);
    }
    return MACHINE_NEXT;
}

static enum machine_step
mark_clean(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;
    bool drained = true;

    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        drained = drained && !closing->undrained[i];
    }
    if (!drained || pool->committer.broken) {
        error_set(&closing->error, -EIO,
                  "pool `%s` was closed, but not everything could be written; the next start "
                  "recovers it",
                  pool->name);
        return machine_goto(&closing->machine, CLOSE_STOP_SHARDS);
    }
    struct run_record run = pool->run;
    run.state = RUN_STATE_CLEAN;
    schema_put_run(&closing->batch, &run);
    closing->commit.batch = &closing->batch;
    closing->commit.urgent = true; /* no checkpoint comes after it */
    machine_arm(&closing->machine, &closing->commit.op, commit_done);
    committer_submit(pool, &closing->commit);
    return machine_wait(&closing->machine);
}

static enum machine_step
close_labels(struct pool_closing *closing)
{
    if (closing->machine.status < 0) {
        error_set(&closing->error, closing->machine.status,
                  "pool `%s` was closed, but that could not be noted; the next start recovers it",
                  closing->pool->name);
        return machine_goto(&closing->machine, CLOSE_STOP_SHARDS);
    }
    closing->is_clean = true;
    pool_heartbeat_stop(closing->pool);
    pool_labels_write(&closing->machine, closing->pool, NULL, false, closing->for_good);
    return machine_wait(&closing->machine);
}

static enum machine_step
free_volumes(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;

    pool_lineage_clear(pool);
    list_for_each_safe(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        exports_forget(volume);
        pool_remove_volume(pool, volume);
        volume_release(volume);
    }
    return MACHINE_NEXT;
}

/* A heartbeat that is under way ends; one that does not in time is left to itself. */
static enum machine_step
await_labels(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;
    uint64_t now_ns = reactor_now_ns(pool->manager->control);
    bool busy = false;

    pool_heartbeat_stop(pool);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        busy = busy || (disk != NULL && disk->backend != NULL && disk->label_busy &&
                        !disk->label_late && now_ns - disk->label_started_ns < HEARTBEAT_NS);
    }
    if (busy) {
        machine_goto(&closing->machine, CLOSE_AWAIT_LABELS);
        machine_pause(&closing->machine, &closing->pause, CONTROL_POLL_NS);
    }
    return machine_wait(&closing->machine);
}

static int32_t
store_close_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_closing *closing = container_of(own, struct pool_closing, job);
    struct pool *pool = closing->pool;

    if (pool->shards != NULL) {
        pool_shards_destroy(pool, closing->is_clean || closing->for_good);
    }
    if (pool->store != NULL) {
        pool->store->ops->close(pool->store);
        pool->store = NULL;
    }
    return 0;
}

static enum machine_step
end(struct pool_closing *closing)
{
    struct pool *pool = closing->pool;

    if (closing->for_good && closing->error.code == 0) {
        event_raise(pool->manager, EVENT_INFO, NULL, pool->name, "pool-deleted", "%s",
                    pool->lost        ? "another host has its disks" :
                    closing->is_clean ? "its disks that are here are free" :
                                        "its disks keep their labels: take them with --force");
    }
    list_remove(&pool->link); /* who waits for the end of all pools may be told by this */
    machine_leave_line(&closing->machine, -ESHUTDOWN, "pool `%s` is closed", pool->name);
    pool_free(pool);
    closing->pool = NULL;
    return MACHINE_NEXT;
}

static enum machine_step
closing_phase(struct machine *machine, uint32_t phase)
{
    struct pool_closing *closing = container_of(machine, struct pool_closing, machine);
    struct pool *pool = closing->pool;

    switch ((enum pool_close_phase)phase) {
    case CLOSE_JUDGE:
        return judge(closing);
    case CLOSE_STOP_BACKGROUND:
        return stop_background(closing);
    case CLOSE_DROP_SESSIONS:
        closing->round.context = pool;
        round_all(machine, &closing->round, drop_visit);
        return machine_wait(machine);
    case CLOSE_DRAIN:
        round_all(machine, &closing->round, drain_visit);
        return machine_wait(machine);
    case CLOSE_SETTLE:
        return settle(closing);
    case CLOSE_MARK_CLEAN:
        return mark_clean(closing);
    case CLOSE_CLOSE_LABELS:
        return close_labels(closing);
    case CLOSE_STOP_SHARDS:
        round_all(machine, &closing->round, stop_visit);
        return machine_wait(machine);
    case CLOSE_FREE_VOLUMES:
        return free_volumes(closing);
    case CLOSE_AWAIT_LABELS:
        return await_labels(closing);
    case CLOSE_CLOSE_STORE:
        if (pool->ledger != NULL) {
            ledger_destroy(pool->ledger);
            pool->ledger = NULL;
        }
        machine_offload(machine, &closing->job, store_close_work);
        return machine_wait(machine);
    case CLOSE_CLOSE_DISKS:
        pool_backends_close(machine, &closing->close, pool);
        return machine_wait(machine);
    case CLOSE_REMOVE_STORE:
        return remove_store(closing);
    case CLOSE_END:
        return end(closing);
    case CLOSE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
closing_release(struct machine *machine)
{
    struct pool_closing *closing = container_of(machine, struct pool_closing, machine);
    struct manager *manager = machine->manager;
    pool_closed_fn *done = closing->done;
    void *context = closing->context;
    struct error error = closing->error;

    if (machine->failed) {
        /* The pool ended in another way while this one was in line. */
        error = closing->for_good ? machine->own.error : (struct error){ 0 };
    }
    round_free(&closing->round);
    backends_close_free(&closing->close);
    byte_buffer_free(&closing->batch);
    free(closing);
    done(manager, context, &error);
}

static const struct machine_ops POOL_CLOSE_OPS = {
    .name = "pool close",
    .phase_names = PHASE_NAMES,
    .phase_count = CLOSE_PHASE_COUNT,
    .failed_phase = CLOSE_PHASE_COUNT,
    .phase = closing_phase,
    .release = closing_release,
};

static void
close_begin(struct pool *pool, bool for_good, bool force, pool_closed_fn *done, void *context)
{
    struct pool_closing *closing = calloc(1, sizeof(*closing));

    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(closing != NULL);
    machine_init(&closing->machine, &POOL_CLOSE_OPS, pool->manager, NULL);
    closing->pool = pool;
    closing->for_good = for_good;
    closing->force = force;
    closing->done = done;
    closing->context = context;
    if (!for_good) {
        pool->stopping = true; /* nobody gets in line behind it any more */
    }
    machine_start_in_line(&closing->machine, pool);
}

void
pool_close(struct pool *pool, pool_closed_fn *done, void *context)
{
    close_begin(pool, false, false, done, context);
}

static void
deletion_ended(struct manager *manager, void *context, const struct error *error)
{
    struct pool_delete *delete = context;

    delete->control.error = *error;
    control_complete(manager, &delete->control, error->code);
}

void
manager_pool_delete(struct manager *manager, struct pool_delete *delete)
{
    struct pool *pool = manager_find_pool(manager, delete->name);
    struct error error = { 0 };

    ASSERT_ON_REACTOR(manager->control);
    if (pool == NULL || pool->stopping || manager->stopping) {
        control_refuse(manager, &delete->control, pool == NULL ? -ENOENT : -ESHUTDOWN,
                       pool == NULL ? "there is no pool `%s`" : "pool `%s` is being closed",
                       delete->name);
        return;
    }
    if (pool->state != POOL_STATE_OPENING && judge_deletion(pool, delete->force, &error) < 0) {
        control_refuse(manager, &delete->control, error.code, "%s", error.message);
        return;
    }
    close_begin(pool, true, delete->force, deletion_ended, delete);
}
