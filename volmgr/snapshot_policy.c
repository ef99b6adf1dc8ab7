/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schedules: snapshots that are made and deleted by rules (retention_impl.h).
 *
 * THEORY OF OPERATION
 *
 * A pool has one keeper. A timer wakes it when the first snapshot is due; it goes through the
 * schedules that are due, one after the other: makes the snapshot, then deletes those that no rule
 * keeps. Both are the same operations that people ask for, so it needs no privileges. What a rule
 * wants and cannot have (a disk hangs, a snapshot is exported) is refused to it as to anybody, and
 * tried again later. What was missed while nothing ran is due at the start, once.
 *
 * Time is the machine's. Snapshots that seem to come from the future, since it was set back, count
 * as old, so that the schedule goes on; their order is that in which they were made.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/snapshot_control_impl.h"

#define KEEPER_LOOK_NS  (60 * NS_PER_S) /* at the latest: the machine's clock may have been set */
#define KEEPER_RETRY_NS (60 * NS_PER_S) /* after a failure, or at the rule's next time */

/* A clock that is corrected by less than this makes no additional snapshots. */
#define CLOCK_STEP_NS (60 * NS_PER_S)

_Static_assert((int)POLICY_RULES_MAX == (int)RETENTION_RULES_MAX, "a bit for each rule");

struct snapshot_policy {
    struct list link; /* snapshot_policies.list */
    struct volume *volume;
    struct policy_record record;
    uint64_t next_ns; /* realtime: when it is to be looked at */
    uint64_t failed_ns;
    char problem[256];
};

struct snapshot_policies {
    struct pool *pool;
    struct list list;
    struct timer timer;
    uint64_t looked_ns; /* realtime: when the keeper was at work last */
    bool started;
    struct keeper *keeper; /* NULL: it is not at work */
};

#define KEEPER_PHASES(X)                                                                           \
    X(MAKE)                                                                                        \
    X(MADE)                                                                                        \
    X(DELETED)

enum keeper_phase {
#define PHASE_ENUM(name) KEEPER_##name,
    KEEPER_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    KEEPER_PHASE_COUNT
};

static const char *const KEEPER_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    KEEPER_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(KEEPER_PHASE_NAMES) == KEEPER_PHASE_COUNT, "a name for each phase");

struct keeper {
    struct machine machine;
    struct snapshot_policies *policies;
    uint64_t volume; /* id: whose schedule is being worked on */
    struct volume_name name;
    struct snapshot_create create;
    bool creating;
    struct snapshot_delete delete;
    struct byte_buffer victims; /* struct volume_name[] */
};

MACHINE_DONE(create_done, struct keeper, create.control.op)
MACHINE_DONE(delete_done, struct keeper, delete.control.op)

static void timer_set(struct snapshot_policies *policies);

/* ---- the table ---- */

static bool
is_empty(const struct policy_record *record)
{
    for (uint32_t i = 0; i < POLICY_RULES_MAX; i++) {
        if (record->rules[i].every_ns != 0) {
            return false;
        }
    }
    return true;
}

static struct retention_policy
as_retention(const struct policy_record *record)
{
    struct retention_policy policy = { 0 };

    for (uint32_t i = 0; i < POLICY_RULES_MAX; i++) {
        policy.rules[i] = (struct retention_rule){
            .every_ns = record->rules[i].every_ns,
            .keep = record->rules[i].keep,
            .immutable_ns = record->rules[i].immutable_ns,
        };
    }
    return policy;
}

void
policy_restore(struct volume *volume, const struct policy_record *record)
{
    struct pool *pool = volume->pool;

    ASSERT_ON_REACTOR(pool->manager->control);
    if (is_empty(record)) {
        policy_forget(volume);
        return;
    }
    if (pool->policies == NULL) {
        pool->policies = calloc(1, sizeof(*pool->policies));
        ASSERT(pool->policies != NULL);
        pool->policies->pool = pool;
        list_init(&pool->policies->list);
    }
    if (volume->policy == NULL) {
        volume->policy = calloc(1, sizeof(*volume->policy));
        ASSERT(volume->policy != NULL);
        volume->policy->volume = volume;
        list_push_back(&pool->policies->list, &volume->policy->link);
    }
    volume->policy->record = *record;
    volume->policy->next_ns = 0; /* look at it at once */
    volume->policy->failed_ns = 0;
}

void
policy_forget(struct volume *volume)
{
    struct snapshot_policy *policy = volume->policy;

    if (policy != NULL) {
        volume->policy = NULL;
        list_remove(&policy->link);
        free(policy);
    }
}

/* ---- what is due ---- */

/* The snapshots of the volume, by age, as the rules see them; free() them. */
static struct retention_snapshot *
collect(const struct volume *volume, uint64_t now_ns, uint32_t *ret_count)
{
    uint32_t count = 0;
    uint64_t latest_ns = now_ns;

    list_for_each(&volume->snapshots, link) {
        count++;
    }
    struct retention_snapshot *snapshots = calloc((size_t)count + 1, sizeof(*snapshots));
    ASSERT(snapshots != NULL);
    uint32_t n = count;
    for (const struct list *link = volume->snapshots.prev; link != &volume->snapshots;
         link = link->prev) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        struct retention_snapshot *row = &snapshots[--n];
        uint64_t created_ns = snapshot->record.created_realtime_ns;
        latest_ns = MIN(latest_ns, created_ns > now_ns + CLOCK_STEP_NS ? 1 : created_ns);
        row->created_ns = latest_ns;
        row->expires_ns = snapshot->record.expires_ns;
        row->rules = snapshot->record.state == SNAPSHOT_KEPT ? snapshot->record.rules : 0;
    }
    *ret_count = count;
    return snapshots;
}

static uint64_t
next_due_ns(const struct snapshot_policy *policy, uint64_t now_ns)
{
    struct retention_policy rules = as_retention(&policy->record);
    uint32_t count = 0;
    struct retention_snapshot *snapshots = collect(policy->volume, now_ns, &count);
    uint64_t next_ns = retention_next_due_ns(&rules, snapshots, count, now_ns);

    free(snapshots);
    return next_ns;
}

/* Begin to make a snapshot, if one is due. */
static void
make_due(struct keeper *keeper, const struct snapshot_policy *policy, uint64_t now_ns)
{
    struct machine *machine = &keeper->machine;
    const struct volume *volume = policy->volume;
    struct retention_policy rules = as_retention(&policy->record);
    uint32_t count = 0;
    struct retention_snapshot *snapshots = collect(volume, now_ns, &count);
    uint8_t due = retention_due(&rules, snapshots, count, now_ns);

    free(snapshots);
    keeper->volume = volume->durable.id;
    keeper->creating = due != 0;
    if (due == 0) {
        return;
    }
    keeper->name = (struct volume_name){ 0 };
    snprintf(keeper->name.pool, sizeof(keeper->name.pool), "%s", volume->pool->name);
    snprintf(keeper->name.volume, sizeof(keeper->name.volume), "%s", volume->durable.name);
    keeper->create = (struct snapshot_create){
        .count = 1,
        .names = &keeper->name,
        .rules = due,
        .expires_realtime_ns = retention_expiry_ns(&rules, due, now_ns),
    };
    machine_arm(machine, &keeper->create.control.op, create_done);
    manager_snapshot_create(machine->manager, &keeper->create);
}

/* Begin to delete those that no rule keeps any more. */
static void
delete_unwanted(struct keeper *keeper, const struct snapshot_policy *policy, uint64_t now_ns)
{
    struct machine *machine = &keeper->machine;
    struct volume *volume = policy->volume;
    struct retention_policy rules = as_retention(&policy->record);
    uint64_t clock_ns = pool_clock_ns(volume->pool);
    uint32_t count = 0;
    struct retention_snapshot *snapshots = collect(volume, now_ns, &count);
    bool *chosen = calloc((size_t)count + 1, sizeof(*chosen));
    uint32_t n = 0;

    ASSERT(chosen != NULL);
    byte_buffer_clear(&keeper->victims);
    retention_choose(&rules, snapshots, count, clock_ns, chosen);
    list_for_each(&volume->snapshots, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        struct volume_name name = keeper->name;
        if (chosen[n++] && snapshot_check_deletable(snapshot, &(struct error){ 0 }) == 0) {
            snprintf(name.pool, sizeof(name.pool), "%s", volume->pool->name);
            snprintf(name.volume, sizeof(name.volume), "%s", volume->durable.name);
            snprintf(name.snapshot, sizeof(name.snapshot), "%s", snapshot->record.name);
            byte_buffer_append(&keeper->victims, &name, sizeof(name));
        }
    }
    free(snapshots);
    free(chosen);
    if (keeper->victims.length_bytes == 0) {
        return;
    }
    keeper->delete = (struct snapshot_delete){
        .count = (uint32_t)(keeper->victims.length_bytes / sizeof(struct volume_name)),
        .names = (struct volume_name *)(void *)keeper->victims.data,
    };
    machine_arm(machine, &keeper->delete.control.op, delete_done);
    manager_snapshot_delete(machine->manager, &keeper->delete);
}

/* ---- the keeper ---- */

static struct snapshot_policy *
policy_due(const struct snapshot_policies *policies, uint64_t now_ns)
{
    list_for_each(&policies->list, link) {
        struct snapshot_policy *policy = list_entry(link, struct snapshot_policy, link);
        if (policy->next_ns <= now_ns && !policy->volume->pending) {
            return policy;
        }
    }
    return NULL;
}

/* The schedule that is being worked on, unless it has ended in the meantime. */
static struct snapshot_policy *
policy_of_keeper(const struct keeper *keeper)
{
    const struct volume *volume =
        pool_find_volume_by_id(keeper->policies->pool, keeper->volume);

    return volume != NULL ? volume->policy : NULL;
}

static void
note_failure(struct keeper *keeper, struct snapshot_policy *policy, uint64_t now_ns)
{
    const struct error *error = &keeper->create.control.error;

    snprintf(policy->problem, sizeof(policy->problem), "%.255s", error->message);
    policy->next_ns = now_ns + KEEPER_RETRY_NS;
    if (policy->failed_ns == 0 && error->code != -ESHUTDOWN) {
        event_raise(keeper->machine.manager, EVENT_WARNING, keeper->name.pool, keeper->name.volume,
                    "snapshot-schedule-failed", "%.200s", error->message);
    }
    policy->failed_ns = now_ns;
}

static enum machine_step
keeper_make(struct keeper *keeper)
{
    struct machine *machine = &keeper->machine;
    uint64_t now_ns = manager_realtime_ns(machine->manager);
    const struct pool *pool = keeper->policies->pool;

    struct snapshot_policy *policy =
        pool->stopping || pool->state > POOL_STATE_DEGRADED ? NULL
                                                            : policy_due(keeper->policies, now_ns);
    if (policy == NULL) {
        return machine_end(machine);
    }
    policy->next_ns = now_ns + KEEPER_RETRY_NS;
    make_due(keeper, policy, now_ns);
    return machine_wait(machine);
}

static enum machine_step
keeper_made(struct keeper *keeper)
{
    struct machine *machine = &keeper->machine;
    struct snapshot_policy *policy = policy_of_keeper(keeper);
    uint64_t now_ns = manager_realtime_ns(machine->manager);

    if (policy == NULL || keeper->policies->pool->stopping) {
        return machine_goto(machine, KEEPER_MAKE);
    }
    if (keeper->creating && keeper->create.control.op.result < 0) {
        note_failure(keeper, policy, now_ns);
        return machine_goto(machine, KEEPER_MAKE);
    }
    policy->failed_ns = 0;
    policy->problem[0] = '\0';
    delete_unwanted(keeper, policy, now_ns);
    return machine_wait(machine);
}

static enum machine_step
keeper_deleted(struct keeper *keeper)
{
    struct machine *machine = &keeper->machine;
    struct snapshot_policy *policy = policy_of_keeper(keeper);
    uint64_t now_ns = manager_realtime_ns(machine->manager);

    if (policy != NULL) {
        /* What was not deleted is tried again with the next one. */
        policy->next_ns = MAX(next_due_ns(policy, now_ns), now_ns + CONTROL_POLL_NS);
    }
    return machine_goto(machine, KEEPER_MAKE);
}

static enum machine_step
keeper_phase(struct machine *machine, uint32_t phase)
{
    struct keeper *keeper = container_of(machine, struct keeper, machine);

    switch ((enum keeper_phase)phase) {
    case KEEPER_MAKE:
        return keeper_make(keeper);
    case KEEPER_MADE:
        return keeper_made(keeper);
    case KEEPER_DELETED:
        return keeper_deleted(keeper);
    case KEEPER_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
keeper_release(struct machine *machine)
{
    struct keeper *keeper = container_of(machine, struct keeper, machine);
    struct snapshot_policies *policies = keeper->policies;

    policies->keeper = NULL;
    byte_buffer_free(&keeper->victims);
    free(keeper);
    timer_set(policies);
}

static const struct machine_ops KEEPER_OPS = {
    .name = "snapshot schedule",
    .phase_names = KEEPER_PHASE_NAMES,
    .phase_count = KEEPER_PHASE_COUNT,
    .failed_phase = KEEPER_PHASE_COUNT,
    .phase = keeper_phase,
    .release = keeper_release,
};

static void
keeper_start(struct timer *timer)
{
    struct snapshot_policies *policies = container_of(timer, struct snapshot_policies, timer);
    uint64_t now_ns = manager_realtime_ns(policies->pool->manager);
    struct keeper *keeper = calloc(1, sizeof(*keeper));

    ASSERT(keeper != NULL && policies->keeper == NULL);
    if (now_ns < policies->looked_ns) { /* the clock was set back: look at all of them anew */
        list_for_each(&policies->list, link) {
            list_entry(link, struct snapshot_policy, link)->next_ns = 0;
        }
    }
    policies->looked_ns = now_ns;
    machine_init(&keeper->machine, &KEEPER_OPS, policies->pool->manager, NULL);
    keeper->policies = policies;
    policies->keeper = keeper;
    machine_start(&keeper->machine);
}

/* ---- waking it ---- */

static void
timer_set(struct snapshot_policies *policies)
{
    struct pool *pool = policies->pool;
    struct reactor *control = pool->manager->control;
    uint64_t now_ns = manager_realtime_ns(pool->manager);
    uint64_t delay_ns = KEEPER_LOOK_NS;

    if (!policies->started || policies->keeper != NULL || pool->stopping) {
        return;
    }
    timer_disarm(control, &policies->timer);
    if (list_empty(&policies->list)) {
        return;
    }
    list_for_each(&policies->list, link) {
        const struct snapshot_policy *policy = list_entry(link, struct snapshot_policy, link);
        delay_ns = MIN(delay_ns, policy->next_ns > now_ns ? policy->next_ns - now_ns : 0);
    }
    if (pool->state > POOL_STATE_DEGRADED) {
        delay_ns = KEEPER_LOOK_NS; /* nothing can be made now */
    }
    timer_arm(control, &policies->timer, reactor_now_ns(control) + delay_ns, keeper_start);
}

void
policies_start(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    pool_clock_ns(pool); /* it runs from here on */
    if (pool->policies != NULL) {
        pool->policies->started = true;
        timer_set(pool->policies);
    }
}

bool
policies_stop(struct pool *pool)
{
    struct snapshot_policies *policies = pool->policies;

    ASSERT_ON_REACTOR(pool->manager->control);
    if (policies == NULL) {
        return true;
    }
    policies->started = false;
    timer_disarm(pool->manager->control, &policies->timer);
    if (policies->keeper != NULL) {
        return false;
    }
    list_for_each_safe(&policies->list, link) {
        policy_forget(list_entry(link, struct snapshot_policy, link)->volume);
    }
    free(policies);
    pool->policies = NULL;
    return true;
}

/* ---- policy set ---- */

enum policy_set_phase {
    SET_COMMIT,
    SET_PUBLISH,
    SET_PHASE_COUNT
};

static const char *const SET_PHASE_NAMES[] = { "COMMIT", "PUBLISH" };
_Static_assert(ARRAY_SIZE(SET_PHASE_NAMES) == SET_PHASE_COUNT, "a name for each phase");

struct policy_setting {
    struct machine machine;
    struct policy_set *set;
    struct volume *volume;
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(set_commit_done, struct policy_setting, commit.op)

static enum machine_step
set_commit(struct policy_setting *setting)
{
    struct machine *machine = &setting->machine;
    struct policy_set *set = setting->set;
    struct retention_policy rules = as_retention(&set->policy);

    setting->volume = machine_find_volume(machine, machine->pool, set->name.volume);
    if (setting->volume == NULL) {
        return MACHINE_NEXT;
    }
    for (uint32_t i = 0; i < POLICY_RULES_MAX; i++) {
        if (set->policy.rules[i].every_ns == 0) {
            set->policy.rules[i] = (struct policy_rule){ 0 };
        }
    }
    if (retention_policy_check(&rules) < 0) {
        return machine_fail(machine, -EINVAL,
                            "a rule makes a snapshot every second or less often, and keeps 1 to %d "
                            "of them",
                            RETENTION_KEEP_MAX);
    }
    if (is_empty(&set->policy)) {
        schema_delete_id(&setting->batch, SCHEMA_POLICY, setting->volume->durable.id);
    } else {
        schema_put_policy(&setting->batch, setting->volume->durable.id, &set->policy);
    }
    setting->commit.batch = &setting->batch;
    machine_arm(machine, &setting->commit.op, set_commit_done);
    committer_submit(machine->pool, &setting->commit);
    return machine_wait(machine);
}

static enum machine_step
set_publish(struct policy_setting *setting)
{
    struct machine *machine = &setting->machine;
    struct pool *pool = machine->pool;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the schedule could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    policy_restore(setting->volume, &setting->set->policy);
    if (!pool->stopping) {
        policies_start(pool);
    }
    return MACHINE_NEXT;
}

static enum machine_step
set_phase(struct machine *machine, uint32_t phase)
{
    struct policy_setting *setting = container_of(machine, struct policy_setting, machine);

    return phase == SET_COMMIT ? set_commit(setting) : set_publish(setting);
}

static void
set_release(struct machine *machine)
{
    struct policy_setting *setting = container_of(machine, struct policy_setting, machine);

    byte_buffer_free(&setting->batch);
    free(setting);
}

static const struct machine_ops POLICY_SET_OPS = {
    .name = "policy set",
    .phase_names = SET_PHASE_NAMES,
    .phase_count = SET_PHASE_COUNT,
    .failed_phase = SET_PHASE_COUNT,
    .phase = set_phase,
    .release = set_release,
};

void
manager_policy_set(struct manager *manager, struct policy_set *set)
{
    struct policy_setting *setting = calloc(1, sizeof(*setting));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(setting != NULL);
    machine_init(&setting->machine, &POLICY_SET_OPS, manager, &set->control);
    setting->set = set;
    machine_start_for_volume(&setting->machine, &set->name);
}

/* ---- policy query ---- */

static void
policy_report_fill(const struct snapshot_policy *policy, struct policy_report *report)
{
    const struct volume *volume = policy->volume;

    snprintf(report->name.pool, sizeof(report->name.pool), "%s", volume->pool->name);
    snprintf(report->name.volume, sizeof(report->name.volume), "%s", volume->durable.name);
    report->policy = policy->record;
    report->next_realtime_ns =
        next_due_ns(policy, manager_realtime_ns(volume->pool->manager));
    report->failed_realtime_ns = policy->failed_ns;
    snprintf(report->problem, sizeof(report->problem), "%s", policy->problem);
}

void
manager_policy_query(struct manager *manager, struct policy_query *query)
{
    struct byte_buffer rows = BYTE_BUFFER_INIT;
    bool is_known = query->name.volume[0] == '\0';

    ASSERT_ON_REACTOR(manager->control);
    query->ret_count = 0;
    query->ret_policies = NULL;
    list_for_each(&manager->pools, pool_link) {
        const struct pool *pool = list_entry(pool_link, struct pool, link);
        if (!pool_is_serving(pool) ||
            (query->name.pool[0] != '\0' && strcmp(query->name.pool, pool->name) != 0)) {
            continue;
        }
        is_known = is_known || pool_find_volume(pool, query->name.volume) != NULL;
        if (pool->policies == NULL) {
            continue;
        }
        list_for_each(&pool->policies->list, link) {
            const struct snapshot_policy *policy = list_entry(link, struct snapshot_policy, link);
            struct policy_report report = { 0 };
            if (query->name.volume[0] == '\0' ||
                strcmp(query->name.volume, policy->volume->durable.name) == 0) {
                policy_report_fill(policy, &report);
                byte_buffer_append(&rows, &report, sizeof(report));
            }
        }
    }
    if (!is_known) {
        byte_buffer_free(&rows);
        control_refuse(manager, &query->control, -ENOENT, "there is no volume `%s/%s`",
                       query->name.pool, query->name.volume);
        return;
    }
    query->ret_count = (uint32_t)(rows.length_bytes / sizeof(struct policy_report));
    byte_buffer_reserve(&rows, 1); /* so that there is memory to free */
    query->ret_policies = (struct policy_report *)(void *)rows.data;
    query->control.manager = manager;
    query->control.machine = NULL;
    query->control.error = (struct error){ 0 };
    control_complete(manager, &query->control, 0);
}
