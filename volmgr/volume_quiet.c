/* SPDX-License-Identifier: Apache-2.0 */
/* Making a volume quiet for deletion or shrinking: closed to hosts, drained, and durable. */
#include <errno.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

static enum machine_step quiet_visit(struct round_stop *stop);

static void
quiet_again(struct timer *timer)
{
    struct round_stop *stop = container_of(timer, struct round_stop, timer);

    if (quiet_visit(stop) == MACHINE_NEXT) {
        round_stop_done(stop);
    }
}

static enum machine_step
quiet_visit(struct round_stop *stop)
{
    struct volume_quiet *quiet = container_of(stop->round, struct volume_quiet, round);
    struct volume *volume = quiet->volume;
    struct reactor *reactor = volume->shard->reactor;

    ASSERT_ON_REACTOR(reactor);
    if (!list_empty(&volume->sessions)) {
        quiet->status = -EBUSY;
        return MACHINE_NEXT;
    }
    if (volume->fenced || volume->commit_failed) {
        volume->closed = false;
        quiet->closed = false;
        quiet->fenced = volume->fenced;
        quiet->status = -EIO;
        return MACHINE_NEXT;
    }
    if (!quiet->closed) {
        volume->closed = true;
        quiet->closed = true;
        quiet->began_ns = reactor_now_ns(reactor);
    }
    if (list_empty(&volume->active) && !volume->source.asking && seal_is_clean(volume)) {
        if (quiet->stop_serving) {
            volume->serving = false;
        }
        return MACHINE_NEXT;
    }
    if (reactor_now_ns(reactor) - quiet->began_ns >
        volume->pool->manager->options.request_timeout_ns) {
        volume->closed = false;
        quiet->closed = false;
        quiet->status = -ETIMEDOUT;
        return MACHINE_NEXT;
    }
    if (volume->seal.phase == SEAL_IDLE) {
        seal_kick(volume);
    }
    timer_arm(reactor, &stop->timer, reactor_now_ns(reactor) + CONTROL_POLL_NS, quiet_again);
    return MACHINE_WAIT;
}

void
volume_make_quiet(struct machine *machine, struct volume_quiet *quiet, struct volume *volume,
                  bool stop_serving)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT(!quiet->begun && !volume->altering);
    quiet->begun = true;
    quiet->volume = volume;
    quiet->status = 0;
    quiet->stop_serving = stop_serving;
    volume->altering = true;
    machine_step_out(machine);
    round_one(machine, &quiet->round, volume->shard->index, quiet_visit);
}

enum machine_step
volume_quiet_step_in(struct machine *machine, struct volume_quiet *quiet)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    if (machine->pool->stopping) {
        /* The pool is closing and waits for us: out of its way, the volume is closed anyhow. */
        quiet->closed = false;
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    return machine_step_in(machine);
}

enum machine_step
volume_quiet_refuse(struct machine *machine, const struct volume_quiet *quiet)
{
    ASSERT_OP(quiet->status, <, 0);
    const struct volume *volume = quiet->volume;

    switch (quiet->status) {
    case -EBUSY:
        return machine_fail(machine, -EBUSY, "a host is attached to volume `%s/%s`: detach it",
                            volume->pool->name, volume->durable.name);
    case -ETIMEDOUT:
        return machine_fail(machine, -ETIMEDOUT,
                            "what hosts have written to volume `%s/%s` could not be made durable "
                            "in time: a disk does not answer (`volctl events`); nothing was "
                            "changed",
                            volume->pool->name, volume->durable.name);
    default:
        if (quiet->fenced) {
            return machine_fail(machine, quiet->status,
                                "a disk has lost writes of volume `%s/%s`: accept the loss first "
                                "(`volctl accept-loss`), then try again",
                                volume->pool->name, volume->durable.name);
        }
        return machine_fail(machine, quiet->status,
                            "what hosts have written to volume `%s/%s` cannot be made durable: see "
                            "`volctl events` for the disk that failed; after it has been seen to, "
                            "restart the daemon and try again",
                            volume->pool->name, volume->durable.name);
    }
}

void
volume_quiet_end(struct volume_quiet *quiet)
{
    if (quiet->begun) {
        ASSERT(quiet->volume->altering);
        quiet->volume->altering = false;
        quiet->begun = false;
    }
}

static enum machine_step
reopen_visit(struct round_stop *stop)
{
    struct volume_quiet *quiet = container_of(stop->round, struct volume_quiet, round);

    quiet->volume->closed = false;
    quiet->volume->serving = true;
    quiet->closed = false;
    return MACHINE_NEXT;
}

void
volume_reopen(struct machine *machine, struct volume_quiet *quiet)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    if (quiet->closed) {
        round_one(machine, &quiet->round, quiet->volume->shard->index, reopen_visit);
    }
}
