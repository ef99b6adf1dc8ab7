/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flush of a start that follows a death, and what follows when it fails.
 *
 * THEORY OF OPERATION
 *
 * The volatile journals of the last run are replayed only when every disk has been flushed (P4). A
 * flush that fails may have lost what was written to the disk and not flushed, and a later flush of
 * it is good all the same: it proves nothing. So the failure is kept where the journals are, as a
 * fence in their headers, before anything else is done. Then the start goes on without that disk,
 * as if it were missing: volumes that have something on it are fenced (they answer no I/O until the
 * loss is accepted), all others serve. A disk that is left out stays open until the pool is closed,
 * since a copy of the commit ledger may be on it.
 *
 * A flush that is late proves nothing either way. The pool stays offline, and its database is not
 * opened again in this process before the flush has ended: when it has ended well, it is opened at
 * once; when it fails, the rings are fenced for all volumes, so that the next start knows of it.
 * (When the process dies before the flush has ended, nobody is told how it ended; until then the
 * kernel keeps the disk locked.)
 *
 * Invariants
 *  FL1  No record is replayed whose data a flush has lost, in this start or an earlier one, as long
 *       as the process lived to see the flush fail.
 *  FL2  A volume without anything on a disk whose flush failed serves as if nothing had happened.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "volmgr/pool_open_impl.h"

/* ---- flushing ---- */

struct flush_attempt {
    struct backend_io io;
    struct offload_job job;
    struct disk *disk;
    struct machine *machine; /* NULL: nobody waits any more */
};

/* On an offload thread; every branch of these rings. */
static void
fence_rings(const struct pool *pool, const struct run_record *run, struct pool_opening *opening)
{
    struct byte_buffer before = BYTE_BUFFER_INIT;

    for (uint32_t i = 0; i < run->ring_count; i++) {
        struct journal_identity identity;
        pool_journal_identity(pool, run, i, &identity);
        byte_buffer_clear(&before);
        journal_fence_ring(pool->manager->options.platform, &identity, run->ring_bytes, &before);
        if (opening == NULL) {
            continue;
        }
        if (journal_is_fenced(&before, JOURNAL_FENCE_ALL)) {
            opening->rings_fenced_before |= UINT64_C(1) << i;
        } else {
            byte_buffer_append(&opening->fences, before.data, before.length_bytes);
        }
    }
    byte_buffer_free(&before);
}

static int32_t
late_fence_work(struct offload_job *job)
{
    const struct flush_attempt *attempt = container_of(job, struct flush_attempt, job);
    const struct pool *pool = attempt->disk->pool;

    fence_rings(pool, &pool->late_run, NULL);
    return 0;
}

static void
opened_again(struct manager *manager, void *context)
{
    (void)manager;
    (void)context;
}

static void
closed_to_open_again(struct manager *manager, void *context, const struct error *error)
{
    char *name = context;

    (void)error;
    if (!manager->stopping && manager_find_pool(manager, name) == NULL) {
        struct pool *pool = pool_new(manager, name);
        pool->from_start = true;
        pool_open(pool, opened_again, NULL);
    }
    free(name);
}

void
pool_open_again(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    bool is_wanted = pool->from_start && pool->awaits_flush && !pool->late_flush_failed;

    if (!is_wanted || pool->flushes_late > 0 || pool->state != POOL_STATE_OFFLINE ||
        pool->stopping || pool->manager->stopping) {
        return;
    }
    char *name = strdup(pool->name);
    ASSERT(name != NULL);
    log_notice("control", "%s: its disks have ended their flushes: it is opened again", name);
    pool_close(pool, closed_to_open_again, name);
}

static void
late_attempt_end(struct flush_attempt *attempt)
{
    struct disk *disk = attempt->disk;
    struct pool *pool = disk->pool;

    ASSERT_OP(pool->flushes_late, >, 0u);
    pool->flushes_late--;
    disk->busy--;
    free(attempt);
    disk_release(disk);
    pool_open_again(pool);
}

static void
late_fenced(struct io_op *op)
{
    struct offload_job *job = container_of(op, struct offload_job, op);
    late_attempt_end(container_of(job, struct flush_attempt, job));
}

/* Nobody waits for it any more, but the next start must know that it failed (FL1). */
static void
late_flush_ended(struct flush_attempt *attempt, int status)
{
    const struct disk *disk = attempt->disk;
    struct pool *pool = disk->pool;
    const struct backend *backend = disk->backend != NULL ? disk->backend : disk->late_backend;

    ASSERT(backend != NULL);
    if (status == 0 && backend_loss_generation(backend) == 0) {
        log_notice("control", "%s: the flush of disk %s that the start gave up has ended well",
                   pool->name, backend->spec);
        late_attempt_end(attempt);
        return;
    }
    pool->late_flush_failed = true;
    event_raise(pool->manager, EVENT_CRITICAL, pool->name, backend->spec, "late-flush-failed",
                "the flush that the start gave up has failed (%s): what was written to this disk "
                "and not flushed may be lost; the volumes of the pool will answer no I/O until "
                "that is accepted",
                error_name(status < 0 ? status : -EIO));
    attempt->job.op.done = late_fenced;
    offload_submit(pool->manager->offload, &attempt->job, late_fence_work);
}

static void
disk_flushed(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct flush_attempt *attempt = container_of(io, struct flush_attempt, io);
    struct disk *disk = attempt->disk;
    struct machine *machine = attempt->machine;
    int status = op->result;

    if (machine == NULL) {
        late_flush_ended(attempt, status);
        return;
    }
    disk->busy--;
    disk->flush_status = status;
    free(attempt);
    machine_completed(machine, 0);
}

static void
flush_late(struct backend_io *io)
{
    struct flush_attempt *attempt = container_of(io, struct flush_attempt, io);
    struct machine *machine = attempt->machine;

    if (machine == NULL) {
        return;
    }
    attempt->machine = NULL;
    attempt->disk->flush_status = -ETIMEDOUT;
    attempt->disk->pool->flushes_late++;
    machine_completed(machine, 0);
}

enum machine_step
pool_flush_disks(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL) {
            continue;
        }
        struct flush_attempt *attempt = calloc(1, sizeof(*attempt));
        ASSERT(attempt != NULL);
        attempt->machine = machine;
        attempt->disk = disk;
        attempt->io.kind = BACKEND_FLUSH;
        attempt->io.overdue = flush_late;
        attempt->io.timeout_ns = pool->manager->options.disk_timeout_ns;
        disk->busy++;
        machine_arm(machine, &attempt->io.op, disk_flushed);
        backend_submit(disk->backend, &attempt->io);
    }
    return machine_wait(machine);
}

/* ---- what it says ---- */

/* Has the disk lost writes, or not answered? 0: neither. */
static int
disk_outcome(const struct disk *disk)
{
    if (disk == NULL || disk->backend == NULL) {
        return 0;
    }
    if (disk->flush_status == 0 && backend_loss_generation(disk->backend) != 0) {
        return -EIO;
    }
    return disk->flush_status;
}

static int32_t
fence_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_opening *opening = container_of(own, struct pool_opening, job);

    fence_rings(opening->pool, &opening->last_run, opening);
    return 0;
}

enum machine_step
pool_flush_judge(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;
    bool has_rings = !opening->was_clean && opening->same_boot;

    opening->flushes_failed = 0;
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        int status = disk_outcome(pool->disks[i]);
        opening->flushes_failed += status < 0 && status != -ETIMEDOUT;
    }
    if (has_rings && pool->flushes_late > 0) {
        pool->late_run = opening->last_run;
    }
    if (has_rings && opening->flushes_failed > 0) {
        opening->fenced_rings = true;
        machine_offload(machine, &opening->job, fence_work);
    }
    return machine_wait(machine);
}

/* ---- going on without them ---- */

/* What a volume has in extents of its own, and whether some of these are gone. */
struct holding {
    uint64_t branch; /* of its head */
    uint64_t grains;
    bool lost;
};

static int
compare_holdings(const void *left, const void *right)
{
    const struct holding *a = left;
    const struct holding *b = right;

    return a->branch < b->branch ? -1 : a->branch > b->branch;
}

static bool
is_left_out(const struct pool *pool, const struct extent *extent)
{
    bool left_out = false;

    for (uint8_t copy = 0; copy < extent->copy_count; copy++) {
        const struct disk *disk = pool_disk(pool, extent->places[copy].disk);
        if (disk->backend != NULL) {
            return false;
        }
        left_out = left_out || disk->left_out != NULL;
    }
    return left_out;
}

/* The head that writes to extents of this owner; 0: none does. */
static uint64_t
writer_of(const struct pool *pool, uint64_t owner_branch)
{
    const struct volume *volume = pool_find_keeper(pool, owner_branch);

    return volume != NULL && !volume->keeper ? volume->branch.id : 0;
}

/* True: some extent that several branches share is on a disk that was left out. */
static bool
count_holdings(const struct pool *pool, struct holding *holdings, size_t count)
{
    const struct extent_table *table = &pool->extents;
    bool shared_lost = false;

    for (uint64_t id = 1; id < table->count_end; id++) {
        if (table->directory[id >> EXTENT_CHUNK_SHIFT] == NULL) {
            id |= EXTENT_CHUNK_COUNT - 1; /* nothing in this chunk */
            continue;
        }
        const struct extent *extent = extent_table_find(table, id);
        if (extent == NULL || extent->state != EXTENT_STATE_DATA) {
            continue;
        }
        struct holding key = { 0 };
        if (extent->owner_branch != 0) {
            key.branch = writer_of(pool, extent->owner_branch);
        }
        struct holding *holding =
            key.branch != 0
                ? bsearch(&key, holdings, count, sizeof(*holdings), compare_holdings)
                : NULL;
        bool lost = is_left_out(pool, extent);
        if (extent->owner_branch == 0) {
            shared_lost = shared_lost || lost;
        } else if (holding != NULL) {
            holding->grains += pool->grains_per_extent - extent->free_count;
            holding->lost = holding->lost || lost;
        }
    }
    return shared_lost;
}

/* Volumes that have, or may have, something on a disk that was left out: opening->fences. */
static void
find_affected(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;
    size_t count = 0;
    size_t at = 0;

    list_for_each(&pool->volumes, link) {
        count += !list_entry(link, struct volume, pool_link)->keeper;
    }
    struct holding *holdings = calloc(MAX(count, (size_t)1), sizeof(*holdings));
    ASSERT(holdings != NULL);
    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (!volume->keeper) {
            holdings[at++].branch = volume->branch.id;
        }
    }
    qsort(holdings, count, sizeof(*holdings), compare_holdings);
    bool shared_lost = count_holdings(pool, holdings, count);
    for (at = 0; at < count; at++) {
        struct volume *volume = pool_find_volume_by_branch(pool, holdings[at].branch);
        /* What only snapshots name is in the extents, too, so with them nothing is known. */
        bool shares = volume->mapped_grains > holdings[at].grains ||
                      branch_is_counted(&volume->branch);
        if (holdings[at].lost || (shared_lost && shares)) {
            volume->affected = true;
            byte_buffer_append(&opening->fences, &holdings[at].branch, sizeof(uint64_t));
        }
    }
    free(holdings);
}

/* None may be late, and some disk must be left. */
static enum machine_step
refuse(struct pool_opening *opening, const struct disk *disk, int status)
{
    return machine_fail(&opening->machine, status,
                        status == -ETIMEDOUT
                            ? "the last run did not end in order, and disk %.200s does not end its "
                              "flush (%s): nothing is served before it is known whether writes are "
                              "lost; it is opened when the disk has ended it"
                            : "the last run did not end in order, and a disk cannot be flushed, "
                              "%.200s: %s",
                        disk->backend->spec, error_name(status));
}

enum machine_step
pool_flush_leave_out(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;
    const struct disk *failed = NULL;
    uint32_t good = 0;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        int status = disk_outcome(disk);
        if (status == -ETIMEDOUT) {
            pool->awaits_flush = true;
            return refuse(opening, disk, status);
        }
        failed = status < 0 ? disk : failed;
        good += status == 0 && disk != NULL && disk->backend != NULL;
    }
    if (failed == NULL) {
        return MACHINE_NEXT;
    }
    if (good == 0) {
        return refuse(opening, failed, disk_outcome(failed));
    }
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        int status = disk_outcome(disk);
        if (status == 0) {
            continue;
        }
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, disk->backend->spec,
                    "disk-left-out",
                    "this disk cannot be flushed (%s): the pool starts without it%s",
                    error_name(status),
                    opening->fenced_rings ? "; what was written to it and not flushed may be lost"
                                          : "");
        snprintf(disk->problem, sizeof(disk->problem), "it could not be flushed at the start: %s",
                 error_name(status));
        disk->left_out = disk->backend;
        disk->backend = NULL;
        opening->missing_count++;
    }
    allocator_refresh(&pool->allocator);
    if (opening->fenced_rings) {
        find_affected(opening);
    }
    return MACHINE_NEXT;
}
