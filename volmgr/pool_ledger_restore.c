/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool that serves gets back the second copy of its commit ledger.
 *
 * When a copy was dropped and another disk has room for one, or a disk with room was added to a
 * pool with one copy, the ring is started anew on both. Commits are held for the time that the new
 * headers take; checkpoints follow at once, since a ring alone rebuilds nothing.
 *
 * A daemon that dies in the middle leaves a ring that begins where the database ends, on one copy
 * or on both: the next start takes it for equal, and brings in the other one.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

#define POOL_LEDGER_RESTORE_PHASES(X)                                                              \
    X(HOLD)                                                                                        \
    X(FORMATTED)                                                                                   \
    X(LABELS_WRITTEN)                                                                              \
    X(END)

enum pool_ledger_restore_phase {
#define PHASE_ENUM(name) RESTORE_##name,
    POOL_LEDGER_RESTORE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    RESTORE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_LEDGER_RESTORE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == RESTORE_PHASE_COUNT, "a name for each phase");

struct pool_ledger_restoring {
    struct machine machine;
    struct machine_pause pause;
    struct ledger_format format;
};

MACHINE_DONE(format_done, struct pool_ledger_restoring, format.op)

/* Copies that take every commit now. */
static uint32_t
current_copies(const struct pool *pool)
{
    uint32_t count = 0;

    for (uint32_t n = 0; n < pool->ledger_disk_count; n++) {
        count += pool->disks[pool->ledger_disks[n]]->label.ledger_current;
    }
    return count;
}

static bool
is_wanted(const struct pool *pool)
{
    return pool->ledger != NULL && !pool->stopping && !pool->committer.broken &&
           pool_is_serving(pool) &&
           current_copies(pool) < MIN(pool_ledger_copies(pool), (uint32_t)POOL_LEDGER_COPIES);
}

/* Between two commits; the next one waits until committer->running is taken back. */
static enum machine_step
hold(struct pool_ledger_restoring *restoring)
{
    struct machine *machine = &restoring->machine;
    struct pool *pool = machine->pool;

    if (!is_wanted(pool)) {
        return machine_goto(machine, RESTORE_END);
    }
    if (pool->committer.running) {
        machine_goto(machine, RESTORE_HOLD);
        machine_pause(machine, &restoring->pause, CONTROL_POLL_NS);
        return machine_wait(machine);
    }
    pool->committer.running = true;
    ledger_destroy(pool->ledger);
    pool->ledger = NULL;
    int result = pool_ledger_create(pool, POOL_LEDGER_COPIES);
    ASSERT(result == 0 && pool->ledger != NULL);
    restoring->format.ledger = pool->ledger;
    restoring->format.commit = pool->committer.commit;
    machine_arm(machine, &restoring->format.op, format_done);
    ledger_format(&restoring->format);
    return machine_wait(machine);
}

/* When it has failed, the next commit finds a ledger without copies, and fails as it must. */
static enum machine_step
formatted(struct pool_ledger_restoring *restoring)
{
    struct machine *machine = &restoring->machine;
    struct pool *pool = machine->pool;

    pool->committer.running = false;
    committer_ledger_released(&pool->committer);
    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "%s", error_name(machine->status));
    }
    pool_ledger_note_current(pool, restoring->format.ret_current_copies);
    pool->checkpoints_due = 2;
    pool->checkpoint_retry_ns = 0;
    event_raise(machine->manager, EVENT_INFO, pool->name, NULL, "ledger-copy-added",
                "%u copies of the commit ledger are current", current_copies(pool));
    pool_labels_write(machine, pool, NULL, true, false);
    return machine_wait(machine);
}

static enum machine_step
restore_phase(struct machine *machine, uint32_t phase)
{
    struct pool_ledger_restoring *restoring =
        container_of(machine, struct pool_ledger_restoring, machine);

    switch ((enum pool_ledger_restore_phase)phase) {
    case RESTORE_HOLD:
        return hold(restoring);
    case RESTORE_FORMATTED:
        return formatted(restoring);
    case RESTORE_LABELS_WRITTEN:
        pool_committed(machine->pool);
        return MACHINE_NEXT;
    case RESTORE_END:
        return MACHINE_NEXT;
    case RESTORE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
restore_release(struct machine *machine)
{
    free(container_of(machine, struct pool_ledger_restoring, machine));
}

static const struct machine_ops POOL_LEDGER_RESTORE_OPS = {
    .name = "ledger restore",
    .phase_names = PHASE_NAMES,
    .phase_count = RESTORE_PHASE_COUNT,
    .failed_phase = RESTORE_PHASE_COUNT,
    .phase = restore_phase,
    .release = restore_release,
};

void
pool_ledger_restore(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (!is_wanted(pool)) {
        return;
    }
    struct pool_ledger_restoring *restoring = calloc(1, sizeof(*restoring));
    ASSERT(restoring != NULL);
    machine_init(&restoring->machine, &POOL_LEDGER_RESTORE_OPS, pool->manager, NULL);
    machine_start_in_line(&restoring->machine, pool);
}
