/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of a pool's database on its own disks, so that the commit ledger can go round.
 *
 * THEORY OF OPERATION
 *
 * When enough of the ledger has been used since the last checkpoint, slots are taken from the
 * metadata reserve, the database is written to them from a snapshot while commits go on, they are
 * recorded durably as extents, the labels of all disks are made to name it in place of the older of
 * the two that they name, and then that is recorded, the extents of the one that was replaced go
 * back to the pool, and the ledger is released up to the older of the two that remain. So whatever
 * is lost, two checkpoints with the ledger behind the older one bring everything back.
 *
 * Until it is whole its slots are free ones to whoever opens the pool next, and a checkpoint that
 * cannot be written has committed nothing: the share of the ledger that is kept for checkpoints
 * lasts however often they fail.
 *
 * Invariants
 *  KP1  A checkpoint that a label may name is complete, and its extents are recorded, and not used
 *       otherwise.
 *  KP2  The ledger is released only up to the older one of two complete checkpoints.
 *  KP3  After a crash every extent of state CHECKPOINT is one of a recorded checkpoint, or is given
 *       back at open.
 *  KP4  A disk that hangs or fails holds up neither the pool nor its next checkpoint: one that
 *       makes no progress is left to itself, and the next one avoids disks that have not answered.
 *  KP5  It waits for no operation in the pool's line: that may wait for a commit, and a commit for
 *       the room that this makes in the ledger.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/size_text.h"
#include "metadata/checkpoint.h"
#include "volmgr/control_impl.h"

#define POOL_CHECKPOINT_PHASES(X)                                                                  \
    X(TAKE_SLOTS)                                                                                  \
    X(MAKE_ROOM)                                                                                   \
    X(WRITE)                                                                                       \
    X(WRITTEN)                                                                                     \
    X(RECORD_EXTENTS)                                                                              \
    X(WRITE_LABELS)                                                                                \
    X(RECORD)                                                                                      \
    X(RELEASE)                                                                                     \
    X(UNDO)                                                                                        \
    X(END)

enum pool_checkpoint_phase {
#define PHASE_ENUM(name) CHECKPOINT_##name,
    POOL_CHECKPOINT_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CHECKPOINT_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_CHECKPOINT_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == CHECKPOINT_PHASE_COUNT, "a name for each phase");

enum {
    COPIES = 2,
    PARTS_MAX = 1 << 16,
    RETRY_S = 10,      /* after one that could not be written */
    PROGRESS_S = 2,    /* in which it must go on */
    GIVEN_UP_MAX = 4,  /* that have not ended: then none is begun */
    AVOID_S = 60,      /* a disk that could not be written to */
    INTERVAL_S = 1800, /* at least so often, if anything was committed */
};

struct pool_checkpointing {
    struct machine machine;
    struct io_op begin; /* when somebody waits for it, who must not be answered from their call */
    struct pool *pool;
    struct job *job;
    pool_checkpoint_done_fn *done; /* who waits for it; NULL: nobody */
    void *context;
    uint32_t part_count;
    struct checkpoint_part *parts;
    uint64_t first_extent; /* of part_count consecutive ones */
    bool recorded;         /* the slots are extents, to be given back if this fails */
    bool is_named;         /* unless a label may name it */
    struct backend_io *ios;
    struct checkpoint_write write;
    struct commit_request commit;
    struct byte_buffer batch;
    struct timer watchdog; /* while it waits for disks */
    uint64_t watched_bytes; /* that had been written when the watchdog was armed */
    uint64_t progress_ns;   /* when it was seen last that it went on */
    bool given_up;          /* it has made no progress; it ends when its disks let it */
    uint32_t slot; /* of pool->checkpoints that it takes */
    struct pool_checkpoint before; /* what was there */
};

MACHINE_DONE(write_done, struct pool_checkpointing, write.op)
MACHINE_DONE(commit_done, struct pool_checkpointing, commit.op)

/* ---- extents ---- */

static void
give_back_range(struct pool *pool, uint64_t first_extent, uint64_t count)
{
    for (uint64_t id = first_extent; id < first_extent + count; id++) {
        struct extent *extent = extent_table_find(&pool->extents, id);
        if (extent == NULL || extent->state != EXTENT_STATE_CHECKPOINT || extent->releasing) {
            continue;
        }
        extent->releasing = true;
        ASSERT_OP(pool->allocator.metadata_extents, >, 0u);
        pool->allocator.metadata_extents--;
        allocator_release(pool, id);
    }
}

void
pool_checkpoint_give_back_orphans(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    const struct extent_table *table = &pool->extents;

    if (pool->allocator.metadata_extents == 0) {
        return;
    }
    for (uint64_t id = 1; id < table->count_end; id++) {
        bool known = false;
        if (table->directory[id >> EXTENT_CHUNK_SHIFT] == NULL) {
            id |= EXTENT_CHUNK_COUNT - 1; /* nothing in this chunk */
            continue;
        }
        for (uint32_t i = 0; i < ARRAY_SIZE(pool->checkpoints); i++) {
            const struct pool_checkpoint *checkpoint = &pool->checkpoints[i];
            known = known || (id >= checkpoint->first_extent &&
                              id - checkpoint->first_extent < checkpoint->extent_count);
        }
        if (!known) {
            give_back_range(pool, id, 1);
        }
    }
}

static void
place_of(const struct pool *pool, struct extent_place place, struct checkpoint_place *ret_place)
{
    const struct disk *disk = pool_disk(pool, place.disk);

    ret_place->backend = disk->backend;
    ret_place->place = place;
    ret_place->offset_bytes =
        disk->record.data_start_bytes + (uint64_t)place.slot * pool->record.extent_bytes;
}

/* A second copy on another disk than the first, of whatever tier, if there is one with room. */
static bool
take_second(struct pool *pool, struct extent_place first, struct extent_place *ret_place)
{
    struct disk *disk = pool_disk(pool, first.disk);
    uint8_t state = disk->record.state;

    disk->record.state = DISK_STATE_FAILED; /* the allocator takes from active disks only */
    bool found = allocator_take_slot(&pool->allocator, VOLUME_TIER_AUTO, ret_place);
    disk->record.state = state;
    ASSERT(!found || ret_place->disk != first.disk);
    return found;
}

/* Those of all parts but the first `kept`, which are not recorded. */
static void
free_slots(struct pool_checkpointing *checkpointing, uint32_t kept)
{
    struct allocator *allocator = &checkpointing->pool->allocator;

    ASSERT(!checkpointing->recorded);
    for (uint32_t i = kept; i < checkpointing->part_count; i++) {
        struct checkpoint_part *part = &checkpointing->parts[i];
        for (uint32_t copy = 0; copy < part->copy_count; copy++) {
            allocator_free_slot(allocator, part->copies[copy].place);
        }
        ASSERT_OP(allocator->metadata_extents, >, 0u);
        allocator->metadata_extents--;
    }
    checkpointing->part_count = kept;
}

static bool
is_avoided(const struct disk *disk)
{
    return disk_is_silent(disk) ||
           disk->avoid_until_ns > reactor_now_ns(disk->manager->control);
}

/*
 * Places on disks that answer; on any, when there is no room on those. False: the pool has no room
 * for so many parts.
 */
static bool take_parts(struct pool_checkpointing *checkpointing);

static bool
take_good_parts(struct pool_checkpointing *checkpointing)
{
    struct pool *pool = checkpointing->pool;
    uint64_t avoided[POOL_DISKS_MAX / 64] = { 0 };
    uint32_t wanted = checkpointing->part_count;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->record.state == DISK_STATE_ACTIVE && is_avoided(disk)) {
            disk->record.state = DISK_STATE_FAILED;
            avoided[i / 64] |= UINT64_C(1) << (i % 64);
        }
    }
    bool taken = take_parts(checkpointing);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        if ((avoided[i / 64] & UINT64_C(1) << (i % 64)) != 0) {
            pool->disks[i]->record.state = DISK_STATE_ACTIVE;
        }
    }
    if (!taken) {
        free_slots(checkpointing, 0);
        checkpointing->part_count = wanted;
        taken = take_parts(checkpointing);
    }
    return taken;
}

static bool
take_parts(struct pool_checkpointing *checkpointing)
{
    struct pool *pool = checkpointing->pool;

    for (uint32_t i = 0; i < checkpointing->part_count; i++) {
        struct checkpoint_part *part = &checkpointing->parts[i];
        struct extent_place place;
        if (!allocator_take_slot(&pool->allocator, VOLUME_TIER_AUTO, &place)) {
            checkpointing->part_count = i;
            return false;
        }
        place_of(pool, place, &part->copies[0]);
        part->copy_count = 1;
        pool->allocator.metadata_extents++;
        if (take_second(pool, part->copies[0].place, &place)) {
            place_of(pool, place, &part->copies[1]);
            part->copy_count = COPIES;
        }
    }
    return true;
}

/*
 * Parts for a first try. The size of the database on its device counts logs and slack; what the
 * pool holds bounds it, too: a record for each extent, an entry for each grain, some for each
 * volume.
 */
static uint32_t
estimate_parts(const struct pool *pool)
{
    const struct allocator *allocator = &pool->allocator;
    uint64_t extents = allocator->slots_total - allocator->slots_free;
    uint64_t content_bytes = 256 * KIB + extents * (160 + pool->grains_per_extent * UINT64_C(40)) +
                             pool->volume_count * 2 * KIB;
    uint64_t store_bytes = pool->store->ops->size_bytes(pool->store);

    /* checkpoint_part_count() allows for a stream four times as long as the store. */
    return checkpoint_part_count(MIN(store_bytes, content_bytes / 4), pool->record.extent_bytes);
}

static enum machine_step
take_slots(struct pool_checkpointing *checkpointing)
{
    struct machine *machine = &checkpointing->machine;
    struct pool *pool = checkpointing->pool;

    if (checkpointing->part_count == 0) {
        checkpointing->part_count = estimate_parts(pool);
    }
    if (checkpointing->part_count > PARTS_MAX) {
        return machine_fail(machine, -EFBIG, "the database is too large for a checkpoint");
    }
    free(checkpointing->parts);
    checkpointing->parts = calloc(checkpointing->part_count, sizeof(*checkpointing->parts));
    ASSERT(checkpointing->parts != NULL);
    if (!take_good_parts(checkpointing)) {
        free_slots(checkpointing, 0);
        return machine_fail(machine, -ENOSPC, "the pool has no room for it");
    }
    return MACHINE_NEXT;
}

/* ---- disks that hang (KP4) ---- */

static void watchdog_expired(struct timer *timer);

static void
watchdog_arm(struct pool_checkpointing *checkpointing)
{
    const struct manager *manager = checkpointing->pool->manager;

    checkpointing->watched_bytes = checkpointing->write.ret_length_bytes;
    timer_arm(manager->control, &checkpointing->watchdog,
              reactor_now_ns(manager->control) + PROGRESS_S * NS_PER_S / 4, watchdog_expired);
}

static void
watchdog_begin(struct pool_checkpointing *checkpointing)
{
    checkpointing->progress_ns = reactor_now_ns(checkpointing->pool->manager->control);
    watchdog_arm(checkpointing);
}

/* It has not said yet whether it makes room. */
static bool
is_making_room(const struct backend_io *io)
{
    return io->owner != NULL && io->op.result == -EINPROGRESS;
}

/* Whether this place, and no other work on its disk, is what the checkpoint waits for. */
static bool
is_waited_for(const struct pool_checkpointing *checkpointing, uint32_t part, uint32_t copy)
{
    uint16_t disk = checkpointing->parts[part].copies[copy].place.disk;

    return disk_is_silent(pool_disk(checkpointing->pool, disk)) ||
           (checkpointing->ios != NULL &&
            is_making_room(&checkpointing->ios[part * COPIES + copy])) ||
           checkpoint_write_awaits(&checkpointing->write, disk);
}

/* Those of its disks that have not ended what they were asked for. */
static void
avoid_disks(struct pool_checkpointing *checkpointing, uint64_t until_ns)
{
    const struct pool *pool = checkpointing->pool;

    for (uint32_t i = 0; i < checkpointing->part_count; i++) {
        const struct checkpoint_part *part = &checkpointing->parts[i];
        for (uint32_t copy = 0; copy < part->copy_count; copy++) {
            struct disk *disk = pool_disk(pool, part->copies[copy].place.disk);
            if (disk->silent_until_ns < until_ns && is_waited_for(checkpointing, i, copy)) {
                disk->silent_until_ns = until_ns;
            }
        }
    }
}

/* Whether some disk is left that one more checkpoint could be written to. */
static bool
has_other_disk(const struct pool *pool)
{
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->backend != NULL && disk->record.state == DISK_STATE_ACTIVE &&
            !is_avoided(disk) && disk->slots_free > 0) {
            return true;
        }
    }
    return false;
}

static void
watchdog_expired(struct timer *timer)
{
    struct pool_checkpointing *checkpointing =
        container_of(timer, struct pool_checkpointing, watchdog);
    struct pool *pool = checkpointing->pool;

    pool_checkpoint_done_fn *done = checkpointing->done;

    uint64_t now_ns = reactor_now_ns(pool->manager->control);

    if (checkpointing->write.ret_length_bytes != checkpointing->watched_bytes) {
        checkpointing->progress_ns = now_ns;
        watchdog_arm(checkpointing);
        return;
    }
    if (now_ns - checkpointing->progress_ns < PROGRESS_S * NS_PER_S) {
        watchdog_arm(checkpointing);
        return;
    }
    avoid_disks(checkpointing, now_ns + AVOID_S * NS_PER_S);
    /* It may be slow only: without another disk it gets more time. */
    if (!has_other_disk(pool) &&
        now_ns - checkpointing->progress_ns < pool->manager->options.disk_timeout_ns) {
        watchdog_arm(checkpointing);
        return;
    }
    event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "checkpoint-failed",
                "a disk does not answer; it will be tried again without that one");
    checkpointing->given_up = true;
    checkpointing->write.cancel = true;
    pool->checkpointing = NULL;
    pool->checkpoints_given_up++;
    pool->checkpoint_retry_ns = 0;
    checkpointing->done = NULL;
    if (done != NULL) {
        done(checkpointing->context, -ETIMEDOUT);
    } else {
        pool_committed(pool);
    }
}

/* ---- room on disks that make it on demand ---- */

static void
room_made(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct pool_checkpointing *checkpointing = io->owner;

    machine_completed(&checkpointing->machine, 0); /* its result is looked at for each copy */
}

/* A copy without room is left out; a part has to keep one. 0 or -errno. */
static int
leave_out_copies(struct pool_checkpointing *checkpointing)
{
    struct pool *pool = checkpointing->pool;
    int result = 0;

    for (uint32_t i = 0; i < checkpointing->part_count; i++) {
        struct checkpoint_part *part = &checkpointing->parts[i];
        for (uint32_t copy = part->copy_count; copy > 0; copy--) {
            const struct backend_io *io = &checkpointing->ios[i * COPIES + copy - 1];
            struct extent_place place = part->copies[copy - 1].place;
            if (io->owner == NULL || io->op.result >= 0) {
                continue;
            }
            result = io->op.result;
            pool_disk(pool, place.disk)->avoid_until_ns =
                reactor_now_ns(pool->manager->control) + AVOID_S * NS_PER_S;
            allocator_free_slot(&pool->allocator, place);
            part->copies[copy - 1] = part->copies[--part->copy_count];
        }
    }
    for (uint32_t i = 0; i < checkpointing->part_count; i++) {
        if (checkpointing->parts[i].copy_count == 0) {
            return result;
        }
    }
    return 0;
}

static enum machine_step
make_room(struct pool_checkpointing *checkpointing)
{
    struct pool *pool = checkpointing->pool;

    free(checkpointing->ios);
    checkpointing->ios =
        calloc((size_t)checkpointing->part_count * COPIES, sizeof(*checkpointing->ios));
    ASSERT(checkpointing->ios != NULL);
    for (uint32_t i = 0; i < checkpointing->part_count; i++) {
        const struct checkpoint_part *part = &checkpointing->parts[i];
        for (uint32_t copy = 0; copy < part->copy_count; copy++) {
            struct backend_io *io = &checkpointing->ios[i * COPIES + copy];
            struct backend *backend = part->copies[copy].backend;
            if (!backend->properties.thin) {
                continue;
            }
            io->owner = checkpointing;
            io->kind = BACKEND_ALLOCATE;
            io->offset_bytes = part->copies[copy].offset_bytes;
            io->length_bytes = pool->record.extent_bytes;
            io->op.result = -EINPROGRESS; /* until it ends */
            machine_arm(&checkpointing->machine, &io->op, room_made);
            backend_submit(backend, io);
        }
    }
    watchdog_begin(checkpointing);
    return machine_wait(&checkpointing->machine);
}

static void
add_extent(struct pool_checkpointing *checkpointing, const struct checkpoint_part *part)
{
    struct pool *pool = checkpointing->pool;
    uint64_t id = pool->record.next_extent++;
    struct extent *extent = extent_table_add(&pool->extents, id);
    struct extent_record record = {
        .state = EXTENT_STATE_CHECKPOINT,
        .copy_count = (uint8_t)part->copy_count,
        .tier = pool_disk(pool, part->copies[0].place.disk)->record.tier,
    };

    ASSERT(extent != NULL);
    for (uint32_t copy = 0; copy < part->copy_count; copy++) {
        record.places[copy] = part->copies[copy].place;
    }
    memset(extent->used, 0, (pool->grains_per_extent + 63) / 64 * sizeof(uint64_t));
    memcpy(extent->places, record.places, sizeof(extent->places));
    extent->owner_branch = 0;
    extent->copy_count = record.copy_count;
    extent->tier = record.tier;
    extent->free_count = pool->grains_per_extent;
    extent->releasing = false;
    extent->source = NULL;
    extent->state = EXTENT_STATE_CHECKPOINT;
    schema_put_extent(&checkpointing->batch, id, &record, pool->grains_per_extent);
}

/* ---- the checkpoint itself ---- */

/* A pool that is being closed does without, unless its last commits wait for it. */
static bool
is_unwanted(const struct pool *pool)
{
    return pool->stopping && !pool->committer.stalled;
}

static enum machine_step
write_out(struct pool_checkpointing *checkpointing)
{
    struct machine *machine = &checkpointing->machine;
    struct pool *pool = checkpointing->pool;

    timer_disarm(pool->manager->control, &checkpointing->watchdog);
    int result = checkpointing->given_up ? -ECANCELED : leave_out_copies(checkpointing);
    if (result < 0) {
        return machine_fail(machine, result, "its disks have no room for it: %s",
                            error_name(result));
    }
    checkpointing->write = (struct checkpoint_write){
        .store = pool->store,
        .part_bytes = pool->record.extent_bytes,
        .parts = checkpointing->parts,
        .part_count = checkpointing->part_count,
        .cancel = is_unwanted(pool),
    };
    memcpy(checkpointing->write.pool_guid, pool->record.pool_guid, GUID_BYTES);
    machine_arm(machine, &checkpointing->write.op, write_done);
    watchdog_begin(checkpointing);
    checkpoint_write(&checkpointing->write);
    return machine_wait(machine);
}

static enum machine_step
written(struct pool_checkpointing *checkpointing)
{
    struct machine *machine = &checkpointing->machine;
    struct pool *pool = checkpointing->pool;

    timer_disarm(pool->manager->control, &checkpointing->watchdog);
    disk_flush_notice_losses(pool);
    if (checkpointing->given_up) {
        return machine_fail(machine, -ECANCELED, "it was given up");
    }
    if (machine->status == -ENOSPC && !is_unwanted(pool)) {
        /* The estimate was too small: with twice as many. */
        uint32_t wanted = checkpointing->part_count * 2;
        free_slots(checkpointing, 0);
        checkpointing->part_count = wanted;
        return machine_goto(machine, CHECKPOINT_TAKE_SLOTS);
    }
    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "it cannot be written: %s",
                            error_name(machine->status));
    }
    if (is_unwanted(pool)) {
        return machine_fail(machine, -ECANCELED, "the pool is closing");
    }
    job_progress(checkpointing->job, 90);
    return MACHINE_NEXT;
}

static enum machine_step
record_extents(struct pool_checkpointing *checkpointing)
{
    struct pool *pool = checkpointing->pool;

    free_slots(checkpointing, checkpointing->write.ret_part_count); /* the estimate was too large */
    byte_buffer_clear(&checkpointing->batch);
    checkpointing->first_extent = pool->record.next_extent;
    for (uint32_t i = 0; i < checkpointing->part_count; i++) {
        add_extent(checkpointing, &checkpointing->parts[i]);
    }
    checkpointing->recorded = true;
    checkpointing->commit.has_numbers = true;
    checkpointing->commit.batch = &checkpointing->batch;
    checkpointing->commit.urgent = true;
    machine_arm(&checkpointing->machine, &checkpointing->commit.op, commit_done);
    committer_submit(pool, &checkpointing->commit);
    return machine_wait(&checkpointing->machine);
}

/* The slot of the older one; of an empty one first. */
static uint32_t
older_slot(const struct pool *pool)
{
    return pool->checkpoints[0].commit <= pool->checkpoints[1].commit ? 0 : 1;
}

static enum machine_step
write_labels(struct pool_checkpointing *checkpointing)
{
    struct machine *machine = &checkpointing->machine;
    struct pool *pool = checkpointing->pool;
    const struct checkpoint_write *write = &checkpointing->write;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "its extents cannot be recorded: %s",
                            error_name(machine->status));
    }
    ASSERT_OP(write->ret_part_count, ==, checkpointing->part_count);
    checkpointing->slot = older_slot(pool);
    struct pool_checkpoint *checkpoint = &pool->checkpoints[checkpointing->slot];
    checkpointing->before = *checkpoint;
    *checkpoint = (struct pool_checkpoint){
        .commit = write->ret_commit,
        .length_bytes = write->ret_length_bytes,
        .first_extent = checkpointing->first_extent,
        .extent_count = write->ret_part_count,
        .first_count = write->ret_first_count,
    };
    memcpy(checkpoint->first, write->ret_first, sizeof(checkpoint->first));
    pool_labels_write_members(machine, pool);
    return machine_wait(machine);
}

static enum machine_step
record(struct pool_checkpointing *checkpointing)
{
    struct machine *machine = &checkpointing->machine;
    struct pool *pool = checkpointing->pool;
    const struct pool_checkpoint *checkpoint = &pool->checkpoints[checkpointing->slot];
    struct checkpoint_record checkpoint_record = {
        .commit = checkpoint->commit,
        .length_bytes = checkpoint->length_bytes,
        .extent_count = checkpoint->extent_count,
        .first_extent = checkpoint->first_extent,
    };

    /* A label that was not written names an older one, which an import finds gone or outdated. */
    if (pool_labels_good(pool) == 0) {
        checkpointing->is_named = true; /* some label may do so all the same */
        int status = machine->status < 0 ? machine->status : -ETIMEDOUT; /* none answers */
        return machine_fail(machine, status, "no label can be written: %s", error_name(status));
    }
    byte_buffer_clear(&checkpointing->batch);
    schema_put_checkpoint(&checkpointing->batch, (uint8_t)checkpointing->slot,
                          &checkpoint_record);
    checkpointing->commit.batch = &checkpointing->batch;
    checkpointing->commit.urgent = true;
    machine_arm(machine, &checkpointing->commit.op, commit_done);
    committer_submit(pool, &checkpointing->commit);
    return machine_wait(machine);
}

static enum machine_step
release(struct pool_checkpointing *checkpointing)
{
    struct machine *machine = &checkpointing->machine;
    struct pool *pool = checkpointing->pool;

    if (machine->status < 0) {
        checkpointing->is_named = true;
        return machine_fail(machine, machine->status, "it cannot be recorded: %s",
                            error_name(machine->status));
    }
    give_back_range(pool, checkpointing->before.first_extent,
                    checkpointing->before.extent_count);
    uint64_t older = pool->checkpoints[older_slot(pool)].commit;
    if (older > 0) {
        ledger_release(pool->ledger, older); /* KP2 */
        committer_ledger_released(&pool->committer);
    }
    if (pool->checkpoints_due > 0) {
        pool->checkpoints_due--;
    }
    return machine_end(machine);
}

static enum machine_step
undo(struct pool_checkpointing *checkpointing)
{
    if (checkpointing->is_named) {
        return MACHINE_NEXT; /* KP1: they stay what they are until the pool is opened again */
    }
    if (checkpointing->recorded) {
        give_back_range(checkpointing->pool, checkpointing->first_extent,
                        checkpointing->part_count);
    } else {
        free_slots(checkpointing, 0);
    }
    return MACHINE_NEXT;
}

static enum machine_step
checkpoint_phase(struct machine *machine, uint32_t phase)
{
    struct pool_checkpointing *checkpointing =
        container_of(machine, struct pool_checkpointing, machine);

    switch ((enum pool_checkpoint_phase)phase) {
    case CHECKPOINT_TAKE_SLOTS:
        return take_slots(checkpointing);
    case CHECKPOINT_MAKE_ROOM:
        return make_room(checkpointing);
    case CHECKPOINT_WRITE:
        return write_out(checkpointing);
    case CHECKPOINT_WRITTEN:
        return written(checkpointing);
    case CHECKPOINT_RECORD_EXTENTS:
        return record_extents(checkpointing);
    case CHECKPOINT_WRITE_LABELS:
        return write_labels(checkpointing);
    case CHECKPOINT_RECORD:
        return record(checkpointing);
    case CHECKPOINT_RELEASE:
        return release(checkpointing);
    case CHECKPOINT_UNDO:
        return undo(checkpointing);
    case CHECKPOINT_END:
        return MACHINE_NEXT;
    case CHECKPOINT_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
checkpoint_release(struct machine *machine)
{
    struct pool_checkpointing *checkpointing =
        container_of(machine, struct pool_checkpointing, machine);
    struct pool *pool = checkpointing->pool;
    int code = machine->control->error.code;

    if (code < 0 && code != -ECANCELED) {
        event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "checkpoint-failed",
                    "%.200s; it will be tried again", machine->control->error.message);
        pool->checkpoint_retry_ns = reactor_now_ns(pool->manager->control) + RETRY_S * NS_PER_S;
    }
    job_end(checkpointing->job, code, code < 0 ? machine->control->error.message : "");
    if (checkpointing->given_up) {
        ASSERT_OP(pool->checkpoints_given_up, >, 0u);
        pool->checkpoints_given_up--;
    } else {
        pool->checkpoint_ended_ns = reactor_now_ns(pool->manager->control);
        pool->checkpoint_ended_commit = pool->committer.commit;
        pool->checkpointing = NULL;
    }
    pool_checkpoint_done_fn *done = checkpointing->done;
    void *context = checkpointing->context;
    byte_buffer_free(&checkpointing->batch);
    free(checkpointing->ios);
    free(checkpointing->parts);
    free(checkpointing);
    if (done != NULL) {
        done(context, code);
    }
}

static const struct machine_ops POOL_CHECKPOINT_OPS = {
    .name = "checkpoint",
    .phase_names = PHASE_NAMES,
    .phase_count = CHECKPOINT_PHASE_COUNT,
    .failed_phase = CHECKPOINT_UNDO,
    .phase = checkpoint_phase,
    .release = checkpoint_release,
};

/* ---- when ---- */

static void
checkpoint_begin(struct io_op *op)
{
    machine_start(&container_of(op, struct pool_checkpointing, begin)->machine);
}

static void
checkpoint_start(struct pool *pool, pool_checkpoint_done_fn *done, void *context)
{
    struct pool_checkpointing *checkpointing = calloc(1, sizeof(*checkpointing));

    ASSERT(checkpointing != NULL);
    ASSERT(pool->checkpointing == NULL);
    machine_init(&checkpointing->machine, &POOL_CHECKPOINT_OPS, pool->manager, NULL);
    checkpointing->machine.pool = pool;
    checkpointing->pool = pool;
    checkpointing->done = done;
    checkpointing->context = context;
    checkpointing->job = job_start(pool->manager, "checkpoint", pool->name);
    pool->checkpointing = checkpointing;
    checkpointing->begin.done = checkpoint_begin;
    checkpointing->begin.reactor_id = reactor_id(pool->manager->control);
    reactor_complete(&checkpointing->begin, 0);
}

/* Half a ring with two checkpoints leaves a quarter or more for the time that one takes. */
static bool
checkpoint_is_due(const struct pool *pool)
{
    uint64_t used = ledger_used_bytes(pool->ledger);
    uint64_t size = ledger_size_bytes(pool->ledger);
    bool has_one = pool->checkpoints[0].commit > 0 || pool->checkpoints[1].commit > 0;
    uint64_t now_ns = reactor_now_ns(pool->manager->control);

    if (pool->checkpoint_retry_ns > now_ns) {
        return false;
    }
    return pool->checkpoints_due > 0 || used >= (has_one ? size / 2 : size / 4) ||
           (now_ns - pool->checkpoint_ended_ns > INTERVAL_S * NS_PER_S &&
            pool->committer.commit > pool->checkpoint_ended_commit + 4);
}

void
pool_committed(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (pool->ledger == NULL || pool->checkpointing != NULL || pool->lost ||
        pool->checkpoints_given_up >= GIVEN_UP_MAX || is_unwanted(pool) ||
        !(pool_is_serving(pool) || pool->stopping) || !checkpoint_is_due(pool)) {
        return;
    }
    checkpoint_start(pool, NULL, NULL);
}

void
pool_checkpoint_now(struct pool *pool, pool_checkpoint_done_fn *done, void *context)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(done != NULL && pool->ledger != NULL);
    checkpoint_start(pool, done, context);
}

bool
pool_checkpoint_cancel(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (pool->checkpointing != NULL && is_unwanted(pool)) {
        pool->checkpointing->write.cancel = true;
    }
    return pool->checkpointing != NULL || pool->checkpoints_given_up > 0;
}
