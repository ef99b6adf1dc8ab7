/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a pool: writing their labels, closing them.
 *
 * A disk that does not answer must not hold up the pool (P9): writing of labels has a deadline,
 * after which the disk counts as failed for this time. The write is still in flight then; until it
 * has ended, the disk is passed over, and its memory and backend are kept.
 *
 * A label is always written from the records as they are when its writing begins. Two machines may
 * wait for labels at one time: who holds the pool's line, and the checkpoint. The checkpoint must
 * not stand in that line: who holds it may wait for a commit, and that for the checkpoint (KP5).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "volmgr/control_impl.h"

enum {
    LOOK_BYTES = LABEL_SLOTS * LABEL_BYTES, /* of the first place, at the start of the disk */
};

void
pool_backends_close(struct machine *machine, struct backends_close *close, struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    backends_close_begin(close, 2 * pool->disk_count);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->left_out != NULL) {
            close->backends[close->count++] = disk->left_out;
            disk->left_out = NULL;
        }
        if (disk == NULL || disk->backend == NULL) {
            continue;
        }
        if (disk->busy > 0) {
            /* Something is in flight on it, perhaps for ever: see disk_release(). */
            log_warning("control", "%s: disk %s does not answer and cannot be closed now",
                        pool->name, disk->backend->spec);
            disk->late_backend = disk->backend;
        } else {
            close->backends[close->count++] = disk->backend;
        }
        disk->backend = NULL;
    }
    backends_close_run(machine, close);
}

/* ---- labels ---- */

/*
 * Name the disks that an import needs first: those with a ledger. One that is being added is named
 * by itself alone until it is a disk of the pool.
 */
static void
label_name_disks(const struct pool *pool, struct label *label)
{
    label->disk_count = 0;
    for (int with_ledger = 1; with_ledger >= 0; with_ledger--) {
        for (uint32_t i = 0; i < pool->disk_count; i++) {
            const struct disk *disk = pool->disks[i];
            if (disk == NULL || label->disk_count == LABEL_DISKS_MAX ||
                (disk->record.ledger_length_bytes > 0) != (with_ledger == 1) ||
                (disk->joining && label != &disk->label)) {
                continue;
            }
            struct label_disk *named = &label->disks[label->disk_count++];
            named->index = disk->record.index;
            memcpy(named->guid, disk->record.guid, GUID_BYTES);
        }
    }
}

void
pool_label_fill(struct pool *pool, struct disk *disk, bool is_open)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct label *label = &disk->label;
    const struct disk_record *record = &disk->record;

    ASSERT(record->data_start_bytes > 0);
    memcpy(label->pool_guid, pool->record.pool_guid, GUID_BYTES);
    memcpy(label->disk_guid, record->guid, GUID_BYTES);
    snprintf(label->pool_name, sizeof(label->pool_name), "%s", pool->name);
    label->disk_index = record->index;
    label->tier = record->tier;
    label->incarnation = pool->record.incarnation;
    label->extent_bytes = pool->record.extent_bytes;
    label->size_bytes = record->size_bytes;
    label->data_start_bytes = record->data_start_bytes;
    label->slot_count = record->slot_count;
    label->ledger_start_bytes = record->ledger_start_bytes;
    label->ledger_length_bytes = record->ledger_length_bytes;
    memcpy(label->host_guid, pool->manager->options.host_guid, GUID_BYTES);
    label->heartbeat = manager_realtime_ns(pool->manager);
    label->open = is_open;
    for (uint32_t i = 0; i < ARRAY_SIZE(pool->checkpoints); i++) {
        const struct pool_checkpoint *checkpoint = &pool->checkpoints[i];
        label->checkpoints[i] = (struct label_checkpoint){ 0 };
        if (checkpoint->commit > 0 && checkpoint->first_count > 0) {
            /* Different labels name different copies of the first part. */
            label->checkpoints[i] = (struct label_checkpoint){
                .commit = checkpoint->commit,
                .length_bytes = checkpoint->length_bytes,
                .first = checkpoint->first[record->index % checkpoint->first_count],
            };
        }
    }
    label_name_disks(pool, label);
}

static void label_start(struct disk *disk, bool is_open, bool wipe);
static void label_look_start(struct disk *disk, bool is_open, bool wipe);

static bool
label_is_awaited(const struct disk *disk)
{
    for (uint32_t i = 0; i < LABEL_WAITERS_MAX; i++) {
        if (disk->label_waiters[i].machine != NULL) {
            return true;
        }
    }
    return false;
}

static void
label_ended(struct disk *disk, int status)
{
    struct machine *waited[LABEL_WAITERS_MAX];

    disk->label_busy = false;
    disk->label_late = false;
    disk->busy--;
    if (!disk->orphaned) {
        disk_flush_notice_losses(disk->pool);
    }
    if (disk->label_queued) {
        disk->label_queued = false;
        if (label_is_awaited(disk)) { /* who waits, waits for the next one */
            label_start(disk, disk->label_queued_open, disk->label_queued_wipe);
            return;
        }
    }
    if (!label_is_awaited(disk)) {
        disk_release(disk); /* nobody waits, or not any more */
        return;
    }
    disk->label_status = status;
    for (uint32_t i = 0; i < LABEL_WAITERS_MAX; i++) {
        waited[i] = disk->label_waiters[i].machine;
        disk->label_waiters[i].machine = NULL;
    }
    for (uint32_t i = 0; i < LABEL_WAITERS_MAX; i++) {
        if (waited[i] != NULL) {
            machine_completed(waited[i], status);
        }
    }
}

static void
label_written(struct io_op *op)
{
    struct label_write *write = container_of(op, struct label_write, op);
    struct disk *disk = container_of(write, struct disk, label_write);

    disk->labelled = disk->labelled || op->result == 0;
    label_ended(disk, op->result);
}

static void
label_write_start(struct disk *disk, bool is_open, bool wipe)
{
    struct reactor *control = disk->manager->control;

    ASSERT(disk->label_busy && disk->backend != NULL);
    pool_label_fill(disk->pool, disk, is_open);
    memset(&disk->label_write, 0, sizeof(disk->label_write));
    disk->label_write.op.done = label_written;
    disk->label_write.op.reactor_id = reactor_id(control);
    disk->label_write.backend = disk->backend;
    disk->label_write.label = &disk->label;
    disk->label_write.wipe = wipe;
    label_write(&disk->label_write);
}

static void
label_begin_work(struct disk *disk)
{
    ASSERT(!disk->label_busy && disk->backend != NULL);
    disk->label_busy = true;
    disk->label_started_ns = reactor_now_ns(disk->manager->control);
    disk->busy++;
}

/*
 * Of an open pool the label is read first, whoever wants it written: a daemon that was stopped and
 * goes on must not end a checkpoint, or remove its labels, on what is another host's by now.
 */
static void
label_start(struct disk *disk, bool is_open, bool wipe)
{
    if (disk->pool->heartbeat_begun && disk->labelled) {
        label_look_start(disk, is_open, wipe);
        return;
    }
    label_begin_work(disk);
    label_write_start(disk, is_open, wipe);
}

/* Of the place that was read, which is the first to be written: is it ours, as far as it tells? */
static bool
look_is_others(const struct disk *disk, struct label *ret_newest)
{
    bool newer_version = false;

    *ret_newest = (struct label){ 0 };
    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        struct label label;
        int result = label_decode(disk->look_memory + slot * LABEL_BYTES, &label);
        newer_version = newer_version || result == -EPROTO;
        if (result == 0 && label.generation > ret_newest->generation) {
            *ret_newest = label;
        }
    }
    return newer_version ||
           (ret_newest->generation > 0 && pool_label_is_others(disk, ret_newest));
}

/* Whoever reads the label next must not find it written over by us, if it is his. */
static void
label_looked(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct disk *disk = container_of(io, struct disk, look_io);
    struct label newest;

    if (disk->orphaned || disk->backend == NULL) {
        label_ended(disk, -ECANCELED); /* the pool is closed by now */
        return;
    }
    if (op->result == 0 && look_is_others(disk, &newest)) {
        pool_lose(disk->pool, disk, &newest);
    }
    if (disk->pool->lost) {
        label_ended(disk, -ESTALE);
    } else {
        label_write_start(disk, disk->look_open, disk->look_wipe);
    }
}

static void
label_look_start(struct disk *disk, bool is_open, bool wipe)
{
    label_begin_work(disk);
    disk->look_open = is_open;
    disk->look_wipe = wipe;
    if (disk->look_memory == NULL) {
        size_t alignment = MAX(disk->backend->properties.memory_alignment_bytes,
                               (uint32_t)LABEL_BYTES);
        disk->look_memory = aligned_alloc(alignment, align_up(LOOK_BYTES, alignment));
        ASSERT(disk->look_memory != NULL);
    }
    disk->look_iov = (struct iovec){ disk->look_memory, LOOK_BYTES };
    disk->look_io = (struct backend_io){
        .op.done = label_looked,
        .kind = BACKEND_READ,
        .length_bytes = LOOK_BYTES,
        .iov = &disk->look_iov,
        .iov_count = 1,
    };
    backend_submit(disk->backend, &disk->look_io);
}

/* A machine, and how many labels it has waited for in vain. */
struct late_machine {
    struct machine *machine;
    uint32_t count;
};

static void
late_add(struct late_machine late[static LABEL_WAITERS_MAX], struct machine *machine)
{
    uint32_t at = 0;

    while (late[at].machine != NULL && late[at].machine != machine) {
        at++;
        ASSERT_OP(at, <, (uint32_t)LABEL_WAITERS_MAX);
    }
    late[at].machine = machine;
    late[at].count++;
}

static void labels_arm(struct pool *pool);

static void
labels_late(struct timer *timer)
{
    struct pool *pool = container_of(timer, struct pool, label_timer);
    uint64_t now_ns = reactor_now_ns(pool->manager->control);
    struct late_machine late[LABEL_WAITERS_MAX] = { 0 };

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        for (uint32_t n = 0; disk != NULL && n < LABEL_WAITERS_MAX; n++) {
            struct label_waiter *waiter = &disk->label_waiters[n];
            if (waiter->machine != NULL && waiter->due_ns <= now_ns) {
                late_add(late, waiter->machine);
                waiter->machine = NULL;
                disk->label_status = -ETIMEDOUT;
                disk->label_late = true;
            }
        }
    }
    labels_arm(pool);
    /* The last of its completions makes a machine go on. */
    for (uint32_t n = 0; n < LABEL_WAITERS_MAX; n++) {
        while (late[n].count-- > 0) {
            machine_completed(late[n].machine, -ETIMEDOUT);
        }
    }
}

/* For whoever waits for a label and is the first to give it up. */
static void
labels_arm(struct pool *pool)
{
    uint64_t due_ns = UINT64_MAX;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        for (uint32_t n = 0; disk != NULL && n < LABEL_WAITERS_MAX; n++) {
            if (disk->label_waiters[n].machine != NULL) {
                due_ns = MIN(due_ns, disk->label_waiters[n].due_ns);
            }
        }
    }
    if (due_ns != UINT64_MAX) {
        timer_arm(pool->manager->control, &pool->label_timer, due_ns, labels_late);
    }
}

/* A disk that takes longer for a label is left out: others wait for this (P9). */
static uint64_t
label_wait_ns(const struct pool *pool)
{
    return MIN(pool->manager->options.disk_timeout_ns / 4, 5 * NS_PER_S);
}

bool
disk_is_silent(const struct disk *disk)
{
    uint64_t now_ns = reactor_now_ns(disk->manager->control);

    if (disk->backend == NULL) {
        return false;
    }
    return disk->silent_until_ns > now_ns ||
           (disk->label_busy &&
            (disk->label_late || now_ns - disk->label_started_ns > label_wait_ns(disk->pool)));
}

/* False: it is busy with a label, and may be for long. */
static bool
label_begin(struct machine *machine, struct disk *disk, bool is_open, bool wipe)
{
    uint32_t at = 0;

    if (disk_is_silent(disk)) {
        return false;
    }
    while (disk->label_waiters[at].machine != NULL) {
        ASSERT(disk->label_waiters[at].machine != machine);
        at++;
        ASSERT_OP(at, <, (uint32_t)LABEL_WAITERS_MAX);
    }
    disk->label_waiters[at] = (struct label_waiter){
        .machine = machine,
        .due_ns = reactor_now_ns(disk->manager->control) + label_wait_ns(disk->pool),
    };
    machine->pending++;
    if (disk->label_busy) {
        disk->label_queued = true;
        disk->label_queued_open = is_open;
        disk->label_queued_wipe = wipe;
    } else {
        label_start(disk, is_open, wipe);
    }
    return true;
}

void
pool_labels_write(struct machine *machine, struct pool *pool, struct disk *only, bool is_open,
                  bool wipe)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL || (only != NULL && disk != only)) {
            continue;
        }
        if (!label_begin(machine, disk, is_open, wipe)) {
            disk->label_status = -ETIMEDOUT;
        }
    }
    labels_arm(pool);
}

void
pool_labels_write_members(struct machine *machine, struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL || disk->joining) {
            continue;
        }
        if (!label_begin(machine, disk, true, false)) {
            disk->label_status = -ETIMEDOUT;
        }
    }
    labels_arm(pool);
}

void
pool_labels_beat(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->backend != NULL && !disk->label_busy && !disk->joining) {
            label_look_start(disk, true, false);
        }
    }
}

const struct disk *
pool_silent_disk(const struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk != NULL &&
            (disk_is_silent(disk) || (disk->late_backend != NULL && disk->busy > 0))) {
            return disk;
        }
    }
    return NULL;
}

uint32_t
pool_labels_good(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint32_t good = 0;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL || disk->joining) {
            continue;
        }
        if (disk->label_status == 0) {
            good++;
            continue;
        }
        event_raise(pool->manager, EVENT_WARNING, pool->name, disk->backend->spec,
                    "label-not-written", "the label of this disk could not be written: %s",
                    error_name(disk->label_status));
    }
    return good;
}
