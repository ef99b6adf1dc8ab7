/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Until when snapshots cannot be deleted, and the clock that this is held against
 * (retention_impl.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/assert.h"
#include "volmgr/retention_impl.h"
#include "volmgr/snapshot_control_impl.h"

/* ---- the pool's clock ---- */

/* Nothing that the pool has was made later than its clock says. */
static uint64_t
newest_creation_ns(const struct pool *pool)
{
    uint64_t newest_ns = pool->record.created_realtime_ns;

    list_for_each(&pool->snapshot_list, link) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        newest_ns = MAX(newest_ns, snapshot->record.created_realtime_ns);
    }
    return newest_ns;
}

uint64_t
pool_clock_ns(struct pool *pool)
{
    struct manager *manager = pool->manager;
    uint64_t now_ns = reactor_now_ns(manager->control);

    ASSERT_ON_REACTOR(manager->control);
    if (pool->clock.now_ns == 0) {
        retention_clock_start(&pool->clock, newest_creation_ns(pool), manager_realtime_ns(manager),
                              now_ns);
    } else {
        retention_clock_advance(&pool->clock, now_ns);
    }
    return pool->clock.now_ns;
}

/* `at_ns` by a clock that says `from_ns` when another one says `to_ns`. */
static uint64_t
convert(uint64_t at_ns, uint64_t from_ns, uint64_t to_ns)
{
    if (at_ns >= from_ns) {
        uint64_t ahead_ns = at_ns - from_ns;
        return ahead_ns < UINT64_MAX - to_ns ? to_ns + ahead_ns : UINT64_MAX;
    }
    uint64_t behind_ns = from_ns - at_ns;
    return behind_ns < to_ns ? to_ns - behind_ns : 1;
}

uint64_t
pool_clock_from_realtime(struct pool *pool, uint64_t realtime_ns)
{
    return realtime_ns == 0 ? 0
                            : convert(realtime_ns, manager_realtime_ns(pool->manager),
                                      pool_clock_ns(pool));
}

uint64_t
pool_clock_to_realtime(struct pool *pool, uint64_t clock_ns)
{
    return clock_ns == 0 ? 0
                         : convert(clock_ns, pool_clock_ns(pool),
                                   manager_realtime_ns(pool->manager));
}

void
time_format(uint64_t realtime_ns, char text[static TIME_TEXT_SIZE])
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    struct tm fields = { 0 };

    gmtime_r(&seconds, &fields);
    strftime(text, TIME_TEXT_SIZE, "%Y-%m-%d %H:%M:%S UTC", &fields);
}

/* ---- putting it off ---- */

enum snapshot_expiry_phase {
    EXPIRY_COMMIT,
    EXPIRY_PUBLISH,
    EXPIRY_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = { "COMMIT", "PUBLISH" };
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == EXPIRY_PHASE_COUNT, "a name for each phase");

struct snapshot_expiry {
    struct machine machine;
    struct snapshot_set_expiry *set;
    struct snapshot *snapshot;
    uint64_t expires_ns;
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(commit_done, struct snapshot_expiry, commit.op)

static enum machine_step
commit(struct snapshot_expiry *expiry)
{
    struct machine *machine = &expiry->machine;
    struct pool *pool = machine->pool;
    const struct volume_name *name = &expiry->set->name;
    char until[TIME_TEXT_SIZE];

    const struct volume *volume = machine_find_volume(machine, pool, name->volume);
    if (volume == NULL) {
        return MACHINE_NEXT;
    }
    struct snapshot *snapshot =
        volume_find_snapshot(volume, name->snapshot, &machine->control->error);
    if (snapshot == NULL) {
        return machine_fail_noted(machine);
    }
    struct retention_snapshot rule = { .expires_ns = snapshot->record.expires_ns };
    expiry->expires_ns = pool_clock_from_realtime(pool, expiry->set->expires_realtime_ns);
    bool is_over = retention_may_delete(&rule, pool_clock_ns(pool));
    if (!is_over && retention_extend(&rule, expiry->expires_ns) < 0) {
        time_format(pool_clock_to_realtime(pool, snapshot->record.expires_ns), until);
        return machine_fail(machine, -EPERM,
                            "snapshot `%s/%s@%s` is immutable until %s: that can be put off, and "
                            "not be brought forward",
                            name->pool, name->volume, name->snapshot, until);
    }
    struct snapshot_record record = snapshot->record;
    record.expires_ns = expiry->expires_ns;
    schema_put_snapshot(&expiry->batch, snapshot->branch->record.id, snapshot->generation,
                        &record);
    expiry->snapshot = snapshot;
    expiry->commit.batch = &expiry->batch;
    machine_arm(machine, &expiry->commit.op, commit_done);
    committer_submit(pool, &expiry->commit);
    return machine_wait(machine);
}

static enum machine_step
expiry_phase(struct machine *machine, uint32_t phase)
{
    struct snapshot_expiry *expiry = container_of(machine, struct snapshot_expiry, machine);

    switch ((enum snapshot_expiry_phase)phase) {
    case EXPIRY_COMMIT:
        return commit(expiry);
    case EXPIRY_PUBLISH:
        if (machine->status < 0) {
            return machine_fail(machine, machine->status,
                                "the time could not be recorded (%s): see `volctl events`",
                                error_name(machine->status));
        }
        expiry->snapshot->record.expires_ns = expiry->expires_ns;
        return MACHINE_NEXT;
    case EXPIRY_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
expiry_release(struct machine *machine)
{
    struct snapshot_expiry *expiry = container_of(machine, struct snapshot_expiry, machine);

    byte_buffer_free(&expiry->batch);
    free(expiry);
}

static const struct machine_ops SNAPSHOT_EXPIRY_OPS = {
    .name = "snapshot expiry",
    .phase_names = PHASE_NAMES,
    .phase_count = EXPIRY_PHASE_COUNT,
    .failed_phase = EXPIRY_PHASE_COUNT,
    .phase = expiry_phase,
    .release = expiry_release,
};

void
manager_snapshot_set_expiry(struct manager *manager, struct snapshot_set_expiry *set)
{
    struct snapshot_expiry *expiry = calloc(1, sizeof(*expiry));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(expiry != NULL);
    machine_init(&expiry->machine, &SNAPSHOT_EXPIRY_OPS, manager, &set->control);
    expiry->set = set;
    machine_start_for_volume(&expiry->machine, &set->name);
}
