/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flushing a disk, for every volume of every shard that has written to it.
 *
 * THEORY OF OPERATION
 *
 * What a shard's volumes want in one pass is one wish of the shard; the wishes of all shards meet
 * on the control reactor, which has one flush of a disk under way at a time. A wish that arrives
 * while one is under way is served by the next, since a flush covers only what had been written
 * when it was submitted.
 *
 * One at a time is not only cheaper. The kernel reports a loss of cached writes to one of several
 * flushes, and a later one succeeds although the data are gone. With one at a time, the failure is
 * known (backend->loss_generation) before any later flush is submitted, so no shard takes a good
 * answer for data that are not there.
 *
 * Invariants
 *  F1  A waiter is answered by a flush that was submitted after it began to wait.
 *  F2  After a failure, or when the backend may have lost writes, every volume of a shard that had
 *      written to the disk and not flushed it is told of the loss (loss.c) before the shard
 *      believes any later flush.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

static void control_flush_next(struct disk *disk);
static void shard_flush_want(struct shard_disk *mine);

/* ---- the shard's half ---- */

static void
waiters_answer(struct list *waiters, int status)
{
    for (struct list *link = list_pop_front(waiters); link != NULL;
         link = list_pop_front(waiters)) {
        struct disk_flush_waiter *waiter = list_entry(link, struct disk_flush_waiter, link);
        waiter->flushed(waiter, status);
    }
}

/* F2: those whose flush this was, and those that wrote and have not asked yet. */
static void
tell_writers(struct shard_disk *mine)
{
    uint32_t index = mine->disk->record.index;

    list_for_each(&mine->shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        uint64_t words = volume->dirty_disks[index / 64] | volume->seal.disks[index / 64];
        if ((words >> (index % 64) & 1) != 0) {
            volume_loss_begin(volume, mine->disk);
        }
    }
}

void
disk_flush_look(struct shard *shard)
{
    ASSERT_ON_REACTOR(shard->reactor);
    for (uint32_t i = 0; i < shard->disk_count; i++) {
        struct shard_disk *mine = shard->disks[i];
        if (mine == NULL || mine->disk->backend == NULL) {
            continue;
        }
        uint64_t generation = backend_loss_generation(mine->disk->backend);
        if (generation != mine->loss_generation_seen) {
            mine->loss_generation_seen = generation;
            tell_writers(mine);
        }
    }
}

static void
shard_flush_ended(struct message *message)
{
    struct shard_disk *mine = container_of(message, struct shard_disk, message);
    struct list waiters;
    int status = mine->flush_status;

    ASSERT_ON_REACTOR(mine->shard->reactor);
    ASSERT(mine->flush_running);
    mine->flush_running = false;
    bool told = mine->flush_generation <= mine->loss_generation_seen &&
                mine->loss_generation_seen > mine->flush_generation_before;
    if (!told && (status < 0 || mine->flush_generation > mine->loss_generation_seen)) {
        mine->loss_generation_seen = MAX(mine->loss_generation_seen, mine->flush_generation);
        status = status < 0 ? status : -EIO;
        tell_writers(mine);
    }
    list_init(&waiters);
    list_splice_back(&waiters, &mine->waiters);
    waiters_answer(&waiters, status);
    if (!list_empty(&mine->waiters_next)) {
        shard_flush_want(mine);
    }
}

static void
control_flush_arrived(struct message *message)
{
    struct shard_disk *mine = container_of(message, struct shard_disk, message);

    ASSERT_ON_REACTOR(mine->shard->pool->manager->control);
    list_push_back(&mine->disk->flush_waiting, &mine->flush_link);
    control_flush_next(mine->disk);
}

static void
shard_flush_submit(struct shard_disk *mine)
{
    mine->flush_wanted = false;
    if (mine->flush_running || list_empty(&mine->waiters_next)) {
        return;
    }
    list_splice_back(&mine->waiters, &mine->waiters_next);
    mine->flush_running = true;
    mine->flush_began_ns = reactor_now_ns(mine->shard->reactor);
    mine->flush_generation_before = mine->loss_generation_seen;
    mine->flushes++;
    struct reactor *control = mine->shard->pool->manager->control;
    if (mine->shard->reactor == control) {
        control_flush_arrived(&mine->message);
    } else {
        reactor_send(control, &mine->message, control_flush_arrived);
    }
}

static void
flush_hook_run(struct pass_hook *hook)
{
    struct shard *shard = container_of(hook, struct shard, flush_hook);

    for (uint32_t i = 0; i < shard->disk_count; i++) {
        if (shard->disks[i] != NULL && shard->disks[i]->flush_wanted) {
            shard_flush_submit(shard->disks[i]);
        }
    }
}

static void
shard_flush_want(struct shard_disk *mine)
{
    mine->flush_wanted = true;
    reactor_end_of_pass(mine->shard->reactor, &mine->shard->flush_hook, flush_hook_run);
}

void
disk_flush_want(struct shard_disk *mine, struct disk_flush_waiter *waiter)
{
    ASSERT_ON_REACTOR(mine->shard->reactor);
    list_push_back(&mine->waiters_next, &waiter->link);
    shard_flush_want(mine);
}

/* ---- the control reactor's half ---- */

struct loss_notice {
    struct message message;
    struct shard *shard;
    uint32_t disk_index;
    uint64_t generation;
};

static void
loss_noticed(struct message *message)
{
    struct loss_notice *notice = container_of(message, struct loss_notice, message);
    struct shard_disk *mine = notice->shard->disks[notice->disk_index];

    if (mine != NULL && notice->generation > mine->loss_generation_seen) {
        mine->loss_generation_seen = notice->generation;
        tell_writers(mine);
    }
    free(notice);
}

/* Every shard must know, not only those that were waiting for this flush: they serve reads. */
static void
tell_all_shards(struct disk *disk, uint64_t generation)
{
    struct pool *pool = disk->pool;

    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        struct loss_notice *notice = calloc(1, sizeof(*notice));
        ASSERT(notice != NULL);
        notice->shard = pool->shards[i];
        notice->disk_index = disk->record.index;
        notice->generation = generation;
        reactor_send(notice->shard->reactor, &notice->message, loss_noticed);
    }
}

void
disk_flush_notice_losses(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (pool->state != POOL_STATE_ONLINE && pool->state != POOL_STATE_DEGRADED &&
        pool->state != POOL_STATE_READ_ONLY) {
        return; /* its shards are not there yet, or not any more */
    }
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL) {
            continue;
        }
        uint64_t generation = backend_loss_generation(disk->backend);
        if (generation != disk->loss_generation_told) {
            disk->loss_generation_told = generation;
            tell_all_shards(disk, generation);
        }
    }
}

static void
answer_shard(struct shard_disk *mine, int status, uint64_t generation)
{
    mine->flush_status = status;
    mine->flush_generation = generation;
    if (mine->shard->reactor == reactor_self()) {
        shard_flush_ended(&mine->message);
    } else {
        reactor_send(mine->shard->reactor, &mine->message, shard_flush_ended);
    }
}

static void
control_flush_done(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct disk *disk = container_of(io, struct disk, flush_io);
    uint64_t generation = __atomic_load_n(&disk->backend->loss_generation, __ATOMIC_ACQUIRE);
    struct list covered;

    disk->flush_running = false;
    if (generation != disk->loss_generation_told) {
        disk->loss_generation_told = generation;
        tell_all_shards(disk, generation);
    }
    list_init(&covered);
    list_splice_back(&covered, &disk->flush_covered);
    for (struct list *link = list_pop_front(&covered); link != NULL;
         link = list_pop_front(&covered)) {
        answer_shard(list_entry(link, struct shard_disk, flush_link), op->result, generation);
    }
    control_flush_next(disk);
}

static void
control_flush_next(struct disk *disk)
{
    if (disk->flush_running || list_empty(&disk->flush_waiting)) {
        return;
    }
    if (disk->backend == NULL) {
        for (struct list *link = list_pop_front(&disk->flush_waiting); link != NULL;
             link = list_pop_front(&disk->flush_waiting)) {
            struct shard_disk *mine = list_entry(link, struct shard_disk, flush_link);
            answer_shard(mine, -ENODEV, mine->loss_generation_seen);
        }
        return;
    }
    ASSERT(list_empty(&disk->flush_covered));
    list_splice_back(&disk->flush_covered, &disk->flush_waiting);
    disk->flush_running = true;
    disk->flush_io.op.done = control_flush_done;
    disk->flush_io.kind = BACKEND_FLUSH;
    disk->flush_io.offset_bytes = 0;
    disk->flush_io.length_bytes = 0;
    disk->flush_io.timeout_ns = disk->pool->manager->options.disk_timeout_ns;
    backend_submit(disk->backend, &disk->flush_io);
}
