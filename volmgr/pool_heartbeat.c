/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No two daemons have one pool open.
 *
 * On one machine, locks see to that. Between machines the labels do: a daemon that has a pool open
 * writes them again every HEARTBEAT_NS, each time with a higher generation. Who finds a label that
 * says "open", written by another machine, looks for HEARTBEAT_WATCH_NS whether it changes: then
 * the pool is in use, and is let alone, whatever is forced. If it does not change, its daemon is
 * dead or cannot reach the disk; whether it is made sure of that is for the administrator to say.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

/* ---- being seen ---- */

static void
heartbeat_due(struct timer *timer)
{
    struct pool *pool = container_of(timer, struct pool, heartbeat_timer);

    pool_labels_beat(pool);
    pool_heartbeat_start(pool);
}

void
pool_heartbeat_start(struct pool *pool)
{
    struct reactor *control = pool->manager->control;

    ASSERT_ON_REACTOR(control);
    timer_arm(control, &pool->heartbeat_timer, reactor_now_ns(control) + HEARTBEAT_NS,
              heartbeat_due);
}

void
pool_heartbeat_stop(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    timer_disarm(pool->manager->control, &pool->heartbeat_timer);
}

/* ---- looking ---- */

bool
heartbeat_watch_begin(struct machine *machine, struct heartbeat_watch *watch,
                      const struct disk_probe *probes, uint32_t count)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    const uint8_t *own_host = machine->manager->options.host_guid;
    ASSERT(watch->count == 0 && count > 0);
    uint64_t *generations = calloc(count, sizeof(*generations));
    uint32_t watched = 0;

    ASSERT(generations != NULL);
    for (uint32_t i = 0; i < count; i++) {
        const struct label *label = &probes[i].label;
        if (probes[i].backend == NULL || probes[i].status != 0 || !label->open ||
            memcmp(label->host_guid, own_host, GUID_BYTES) == 0) {
            continue;
        }
        generations[i] = label->generation;
        watched++;
    }
    if (watched == 0) {
        free(generations);
        return false;
    }
    watch->generations = generations;
    watch->count = count;
    machine_pause(machine, &watch->pause, HEARTBEAT_WATCH_NS);
    return true;
}

int
heartbeat_watch_judge(struct heartbeat_watch *watch, const struct disk_probe *probes,
                      struct error *error)
{
    int result = 0;

    for (uint32_t i = 0; i < watch->count && result == 0; i++) {
        const struct disk_probe *probe = &probes[i];
        if (watch->generations[i] == 0 || probe->backend == NULL || probe->status != 0 ||
            probe->label.generation == watch->generations[i]) {
            continue;
        }
        result = error_set(error, -EBUSY,
                           "disk %.200s of pool `%s` is in use: another daemon has just written "
                           "to its label; close the pool there first",
                           probe->backend->spec, probe->label.pool_name);
    }
    free(watch->generations);
    *watch = (struct heartbeat_watch){ 0 };
    return result;
}
