/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adding disks to a pool while it serves. They get their labels, then their records are committed,
 * then every shard learns of them, and only then may extents be placed on them. A crash before the
 * commit leaves disks with a label that the pool does not know.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

#define POOL_ADD_PHASES(X)                                                                         \
    X(OPEN_DISKS)                                                                                  \
    X(READ_LABELS)                                                                                 \
    X(JUDGE)                                                                                       \
    X(READ_LABELS_AGAIN)                                                                           \
    X(LAY_OUT)                                                                                     \
    X(WIPE_OLD_LABELS)                                                                             \
    X(WRITE_LABELS)                                                                                \
    X(READ_BACK)                                                                                   \
    X(VERIFY)                                                                                      \
    X(TELL_SHARDS)                                                                                 \
    X(REWRITE_LABELS)                                                                              \
    X(SUCCEED)                                                                                     \
    X(UNDO_LABELS)                                                                                 \
    X(UNDO_CLOSE)                                                                                  \
    X(END)

enum pool_add_phase {
#define PHASE_ENUM(name) ADD_##name,
    POOL_ADD_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    ADD_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_ADD_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == ADD_PHASE_COUNT, "a name for each phase");

struct pool_addition {
    struct machine machine;
    struct pool_add *add;
    struct disk_probe *probes;
    uint32_t disk_count;
    uint32_t laid_out; /* the first so many probes have become disks of the pool */
    struct heartbeat_watch watch;
    bool labels_written;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
    struct backends_close close;
};

MACHINE_DONE(commit_done, struct pool_addition, commit.op)

static struct disk *
added_disk(const struct pool_addition *addition, uint32_t at)
{
    return pool_disk(addition->machine.pool, addition->probes[at].index);
}

/* ---- phases ---- */

static enum machine_step
open_disks(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;
    struct pool *pool = machine->pool;
    uint32_t index = 0;

    if (pool_check_writable(pool, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    for (uint32_t i = 0; i < addition->disk_count; i++, index++) {
        while (index < pool->disk_count && pool->disks[index] != NULL) {
            index++;
        }
        if (index >= POOL_DISKS_MAX) {
            return machine_fail(machine, -ENOSPC, "a pool has at most %d disks", POOL_DISKS_MAX);
        }
        addition->probes[i].index = (uint16_t)index;
    }
    disk_probes_open(machine, addition->probes, addition->disk_count);
    return machine_wait(machine);
}

static enum machine_step
read_labels(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;

    if (disk_probes_check_opened(addition->probes, addition->disk_count,
                                 &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    disk_probes_read(machine, addition->probes, addition->disk_count);
    return machine_wait(machine);
}

static enum machine_step
judge(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;

    if (disk_probes_judge(machine->manager, addition->probes, addition->disk_count,
                          addition->add->force, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    if (!heartbeat_watch_begin(machine, &addition->watch, addition->probes,
                               addition->disk_count)) {
        return machine_goto(machine, ADD_LAY_OUT);
    }
    return machine_wait(machine);
}

static enum machine_step
lay_out(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;
    struct error *error = &machine->control->error;

    if (heartbeat_watch_judge(&addition->watch, addition->probes, error) < 0 ||
        disk_probes_judge(machine->manager, addition->probes, addition->disk_count,
                          addition->add->force, error) < 0) {
        return machine_fail_noted(machine);
    }
    for (uint32_t i = 0; i < addition->disk_count; i++) {
        bool with_ledger = pool_wants_room_for_copy(machine->pool, &addition->probes[i]);
        if (pool_lay_out_disk(machine->pool, &addition->probes[i], with_ledger, error) < 0) {
            return machine_fail_noted(machine);
        }
        addition->laid_out++;
        /* Nothing is placed on it before everybody knows it. */
        added_disk(addition, i)->record.state = DISK_STATE_MISSING;
        added_disk(addition, i)->joining = true;
        added_disk(addition, i)->label.ledger_current = false;
    }
    return MACHINE_NEXT;
}

static enum machine_step
write_labels(struct pool_addition *addition, bool wipe)
{
    struct machine *machine = &addition->machine;

    addition->labels_written = true;
    for (uint32_t i = 0; i < addition->laid_out; i++) {
        pool_labels_write(machine, machine->pool, added_disk(addition, i), true, wipe);
    }
    return machine_wait(machine);
}

static enum machine_step
read_back(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "cannot write the labels: %s",
                            error_name(machine->status));
    }
    disk_probes_read_back(machine, machine->pool, addition->probes, addition->disk_count);
    return machine_wait(machine);
}

static enum machine_step
verify_and_commit(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;

    if (disk_probes_verify(machine->pool, addition->probes, addition->disk_count,
                           &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    for (uint32_t i = 0; i < addition->disk_count; i++) {
        struct disk_record record = added_disk(addition, i)->record;
        record.state = DISK_STATE_ACTIVE;
        schema_put_disk(&addition->batch, &record);
    }
    addition->commit.batch = &addition->batch;
    machine_arm(machine, &addition->commit.op, commit_done);
    committer_submit(machine->pool, &addition->commit);
    return machine_wait(machine);
}

static enum machine_step
tell_visit(struct round_stop *stop)
{
    struct pool_addition *addition = container_of(stop->round, struct pool_addition, round);
    struct pool *pool = addition->machine.pool;

    for (uint32_t i = 0; i < addition->disk_count; i++) {
        shard_add_disk(pool->shards[stop->index], added_disk(addition, i));
    }
    return MACHINE_NEXT;
}

static enum machine_step
tell_shards(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;

    if (machine->status < 0) {
        /* Whether the next start finds them recorded is not known: then they must have labels. */
        addition->labels_written = false;
        return machine_fail(machine, machine->status, "the disks could not be recorded: %s",
                            error_name(machine->status));
    }
    round_all(machine, &addition->round, tell_visit);
    return machine_wait(machine);
}

static enum machine_step
succeed(struct pool_addition *addition)
{
    struct pool *pool = addition->machine.pool;
    uint64_t bytes = 0;
    char size_text[SIZE_TEXT_SIZE];

    for (uint32_t i = 0; i < addition->disk_count; i++) {
        bytes += added_disk(addition, i)->record.slot_count * pool->record.extent_bytes;
    }
    event_raise(pool->manager, EVENT_INFO, pool->name, NULL, "disks-added", "%u disks, %s",
                addition->disk_count, size_format(bytes, size_text));
    return machine_end(&addition->machine);
}

/* All shards know them: extents may be placed there. Labels of the others name them from now on. */
static enum machine_step
rewrite_labels(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;
    struct pool *pool = machine->pool;

    for (uint32_t i = 0; i < addition->disk_count; i++) {
        added_disk(addition, i)->record.state = DISK_STATE_ACTIVE;
        added_disk(addition, i)->joining = false;
    }
    allocator_refresh(&pool->allocator);
    pool_space_changed(pool);
    pool_labels_write(machine, pool, NULL, true, false);
    return machine_wait(machine);
}

static enum machine_step
undo_close(struct pool_addition *addition)
{
    struct machine *machine = &addition->machine;

    for (uint32_t i = 0; i < addition->disk_count; i++) {
        struct disk_probe *probe = &addition->probes[i];
        if (i >= addition->laid_out) {
            continue;
        }
        struct disk *disk = added_disk(addition, i);
        if (disk->busy > 0) {
            disk->late_backend = disk->backend;
        } else {
            probe->backend = disk->backend;
        }
        disk->backend = NULL;
        pool_disk_free(machine->pool, disk);
    }
    disk_probes_close(machine, &addition->close, addition->probes, addition->disk_count);
    return machine_wait(machine);
}

static enum machine_step
addition_phase(struct machine *machine, uint32_t phase)
{
    struct pool_addition *addition = container_of(machine, struct pool_addition, machine);

    switch ((enum pool_add_phase)phase) {
    case ADD_OPEN_DISKS:
        return open_disks(addition);
    case ADD_READ_LABELS:
        return read_labels(addition);
    case ADD_JUDGE:
        return judge(addition);
    case ADD_READ_LABELS_AGAIN:
        disk_probes_read(machine, addition->probes, addition->disk_count);
        return machine_wait(machine);
    case ADD_LAY_OUT:
        return lay_out(addition);
    case ADD_WIPE_OLD_LABELS:
        return addition->add->force ? write_labels(addition, true) : MACHINE_NEXT;
    case ADD_WRITE_LABELS:
        return write_labels(addition, false);
    case ADD_READ_BACK:
        return read_back(addition);
    case ADD_VERIFY:
        return verify_and_commit(addition);
    case ADD_TELL_SHARDS:
        return tell_shards(addition);
    case ADD_REWRITE_LABELS:
        return rewrite_labels(addition);
    case ADD_SUCCEED:
        return succeed(addition);
    case ADD_UNDO_LABELS:
        return addition->labels_written ? write_labels(addition, true) : MACHINE_NEXT;
    case ADD_UNDO_CLOSE:
        return undo_close(addition);
    case ADD_END:
        return MACHINE_NEXT;
    case ADD_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
addition_release(struct machine *machine)
{
    struct pool_addition *addition = container_of(machine, struct pool_addition, machine);

    round_free(&addition->round);
    backends_close_free(&addition->close);
    byte_buffer_free(&addition->batch);
    free(addition->probes);
    free(addition);
}

static const struct machine_ops POOL_ADD_OPS = {
    .name = "pool add",
    .phase_names = PHASE_NAMES,
    .phase_count = ADD_PHASE_COUNT,
    .failed_phase = ADD_UNDO_LABELS,
    .phase = addition_phase,
    .release = addition_release,
};

void
manager_pool_add(struct manager *manager, struct pool_add *add)
{
    struct error error = { 0 };
    struct pool *pool = manager_find_pool(manager, add->name);

    ASSERT_ON_REACTOR(manager->control);
    if (pool == NULL || manager->stopping) {
        control_refuse(manager, &add->control, pool == NULL ? -ENOENT : -ESHUTDOWN,
                       pool == NULL ? "there is no pool `%s`" : "pool `%s` is being closed",
                       add->name);
        return;
    }
    if (disk_arguments_check(add->disks, add->disk_count, &error) < 0) {
        control_refuse(manager, &add->control, error.code, "%s", error.message);
        return;
    }
    struct pool_addition *addition = calloc(1, sizeof(*addition));
    ASSERT(addition != NULL);
    machine_init(&addition->machine, &POOL_ADD_OPS, manager, &add->control);
    addition->add = add;
    addition->disk_count = add->disk_count;
    addition->probes = disk_probes_from_arguments(add->disks, add->disk_count, 0);
    machine_start_in_line(&addition->machine, pool);
}
