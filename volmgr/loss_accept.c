/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepting that writes of a volume are lost although it is not known which (loss.c): it serves
 * again what its disks kept, as after a power cut.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

#define LOSS_ACCEPT_PHASES(X)                                                                      \
    X(CHECK)                                                                                       \
    X(LOOK)                                                                                        \
    X(COMMIT)                                                                                      \
    X(LIFT)                                                                                        \
    X(END)

enum loss_accept_phase {
#define PHASE_ENUM(name) ACCEPT_##name,
    LOSS_ACCEPT_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    ACCEPT_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    LOSS_ACCEPT_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == ACCEPT_PHASE_COUNT, "a name for each phase");

struct loss_acceptance {
    struct machine machine;
    struct volume_accept_loss *accept;
    struct volume *volume;
    struct volume_record record;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
    bool fenced;
    bool in_this_run; /* what is in memory names data that may be lost: only a start drops it */
};

MACHINE_DONE(commit_done, struct loss_acceptance, commit.op)

static enum machine_step
look_visit(struct round_stop *stop)
{
    struct loss_acceptance *acceptance = container_of(stop->round, struct loss_acceptance, round);

    acceptance->fenced = acceptance->volume->fenced;
    acceptance->in_this_run = acceptance->volume->journal_fenced;
    return MACHINE_NEXT;
}

static enum machine_step
check(struct loss_acceptance *acceptance)
{
    struct machine *machine = &acceptance->machine;

    acceptance->volume =
        machine_find_volume(machine, machine->pool, acceptance->accept->name.volume);
    if (acceptance->volume == NULL) {
        return MACHINE_NEXT;
    }
    round_one(machine, &acceptance->round, acceptance->volume->shard->index, look_visit);
    return machine_wait(machine);
}

static enum machine_step
look(struct loss_acceptance *acceptance)
{
    struct machine *machine = &acceptance->machine;

    if (!acceptance->fenced) {
        return machine_fail(machine, -EALREADY,
                            "volume `%s/%s` serves: there is no loss to be accepted",
                            machine->pool->name, acceptance->volume->durable.name);
    }
    if (acceptance->in_this_run) {
        return machine_fail(machine, -EBUSY,
                            "the loss came about in this run of the daemon, and its map could not "
                            "be read: restart the daemon, then accept the loss");
    }
    acceptance->record = acceptance->volume->durable;
    acceptance->record.fenced = false;
    schema_put_volume(&acceptance->batch, &acceptance->record);
    acceptance->commit.batch = &acceptance->batch;
    machine_arm(machine, &acceptance->commit.op, commit_done);
    committer_submit(machine->pool, &acceptance->commit);
    return machine_wait(machine);
}

static enum machine_step
lift_visit(struct round_stop *stop)
{
    struct loss_acceptance *acceptance = container_of(stop->round, struct loss_acceptance, round);
    struct volume *volume = acceptance->volume;

    volume->record = acceptance->record;
    volume->fenced = false;
    return MACHINE_NEXT;
}

static enum machine_step
committed(struct loss_acceptance *acceptance)
{
    struct machine *machine = &acceptance->machine;
    struct volume *volume = acceptance->volume;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the change could not be recorded: %s",
                            error_name(machine->status));
    }
    volume->durable = acceptance->record;
    event_raise(machine->manager, EVENT_WARNING, machine->pool->name, volume->durable.name,
                "loss-accepted",
                "the volume serves again what its disks kept, as after a power cut: writes that "
                "were not flushed when a disk lost them may be missing");
    round_one(machine, &acceptance->round, volume->shard->index, lift_visit);
    return machine_wait(machine);
}

static enum machine_step
accept_phase(struct machine *machine, uint32_t phase)
{
    struct loss_acceptance *acceptance = container_of(machine, struct loss_acceptance, machine);

    switch ((enum loss_accept_phase)phase) {
    case ACCEPT_CHECK:
        return check(acceptance);
    case ACCEPT_LOOK:
        return look(acceptance);
    case ACCEPT_COMMIT:
        return committed(acceptance);
    case ACCEPT_LIFT:
    case ACCEPT_END:
        return MACHINE_NEXT;
    case ACCEPT_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
accept_release(struct machine *machine)
{
    struct loss_acceptance *acceptance = container_of(machine, struct loss_acceptance, machine);

    round_free(&acceptance->round);
    byte_buffer_free(&acceptance->batch);
    free(acceptance);
}

static const struct machine_ops LOSS_ACCEPT_OPS = {
    .name = "acceptance of a loss",
    .phase_names = PHASE_NAMES,
    .phase_count = ACCEPT_PHASE_COUNT,
    .failed_phase = ACCEPT_END,
    .phase = accept_phase,
    .release = accept_release,
};

void
manager_volume_accept_loss(struct manager *manager, struct volume_accept_loss *accept)
{
    struct loss_acceptance *acceptance = calloc(1, sizeof(*acceptance));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(acceptance != NULL);
    machine_init(&acceptance->machine, &LOSS_ACCEPT_OPS, manager, &accept->control);
    acceptance->accept = accept;
    machine_start_for_volume(&acceptance->machine, &accept->name);
}
