/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manager in memory: the symbols of volmgr/manager.h without disks, so that the API, volctl and
 * the daemon's life can be tested alone. Operations complete on a later pass, as the contract says.
 *
 * Names that misbehave on purpose: a volume called "slow" takes 300 ms to create; one called
 * "stuck" never completes; "full" fails with -ENOSPC.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "io/platform.h"
#include "volmgr/manager.h"

enum {
    FAKE_MAX = 64,
};

struct fake_volume {
    bool used;
    struct volume_report report;
};

struct fake_snapshot {
    bool used;
    struct snapshot_report report;
};

struct fake_export {
    bool used;
    struct export_report report;
};

struct manager {
    struct reactor *reactor;
    struct platform *platform;
    uint32_t pool_count;
    struct pool_report pools[FAKE_MAX];
    struct fake_volume volumes[FAKE_MAX];
    struct fake_snapshot snapshots[FAKE_MAX];
    struct policy_report policies[FAKE_MAX];
    uint32_t policy_count;
    struct fake_export exports[FAKE_MAX];
    struct session_report sessions[FAKE_MAX];
    uint32_t session_count;
    struct event events[FAKE_MAX];
    uint32_t event_count;
    struct check_report checks[FAKE_MAX]; /* of the pool of this number; job 0: none */
    struct job_report jobs[FAKE_MAX];
    uint32_t job_count;
    uint64_t next_id;
    struct volume_create *slow;
    struct timer slow_timer;
    struct event_query *waiting;
};

static void
end(struct manager *manager, struct control *control, int result)
{
    ASSERT_ON_REACTOR(manager->reactor);
    ASSERT_OP(control->error.code, ==, result);
    control->op.reactor_id = reactor_id(manager->reactor);
    reactor_complete(&control->op, result);
}

static int
fail(struct control *control, int code, const char *what)
{
    return error_set(&control->error, code, "%s", what);
}

static struct pool_report *
find_pool(struct manager *manager, const char *name)
{
    for (uint32_t i = 0; i < manager->pool_count; i++) {
        if (strcmp(manager->pools[i].name, name) == 0) {
            return &manager->pools[i];
        }
    }
    return NULL;
}

static struct fake_volume *
find_volume(struct manager *manager, const struct volume_name *name)
{
    for (size_t i = 0; i < FAKE_MAX; i++) {
        struct fake_volume *volume = &manager->volumes[i];
        if (volume->used && strcmp(volume->report.info.pool_name, name->pool) == 0 &&
            strcmp(volume->report.info.name, name->volume) == 0) {
            return volume;
        }
    }
    return NULL;
}

static void
event_add(struct manager *manager, enum event_severity severity, const char *name,
          const char *pool, const char *subject)
{
    ASSERT_OP(manager->event_count, <, (uint32_t)FAKE_MAX);
    struct event *event = &manager->events[manager->event_count++];
    event->sequence = manager->event_count;
    event->realtime_ns = UINT64_C(1700000000) * NS_PER_S;
    event->severity = severity;
    snprintf(event->name, sizeof(event->name), "%s", name);
    snprintf(event->pool, sizeof(event->pool), "%s", pool);
    snprintf(event->subject, sizeof(event->subject), "%s", subject);
    snprintf(event->text, sizeof(event->text), "%s happened to %s", name, subject);
    if (manager->waiting != NULL) {
        struct event_query *query = manager->waiting;
        manager->waiting = NULL;
        timer_disarm(manager->reactor, &query->timer);
        query->ret_count = 1;
        query->ret_events = malloc(sizeof(*event));
        ASSERT(query->ret_events != NULL);
        query->ret_events[0] = *event;
        end(manager, &query->control, 0);
    }
}

/* ---- life ---- */

void
manager_options_default(struct manager_options *options)
{
    *options = (struct manager_options){ .map_cache_bytes = 128 * MIB };
}

void
manager_disk_search(void *context, const char *missing_spec, struct byte_buffer *ret_specs)
{
    (void)context, (void)missing_spec, (void)ret_specs;
}

int
manager_create(const struct manager_options *options, struct manager **ret_manager,
               struct error *error)
{
    (void)error;
    ASSERT(options->store_open != NULL);
    struct manager *manager = calloc(1, sizeof(*manager));
    ASSERT(manager != NULL);
    manager->reactor = options->reactors[0];
    manager->platform = options->platform;
    *ret_manager = manager;
    return 0;
}

void
manager_destroy(struct manager *manager)
{
    for (uint32_t i = 0; i < manager->pool_count; i++) {
        free(manager->pools[i].disks);
    }
    free(manager);
}

void
manager_start(struct manager *manager, struct manager_start *start)
{
    const char *failing = getenv("FAKE_START_FAILS");
    int result = failing != NULL ? fail(&start->control, -EIO, "the fake was told to fail") : 0;
    if (getenv("FAKE_START_HANGS") != NULL) {
        return;
    }
    end(manager, &start->control, result);
}

void
manager_shutdown(struct manager *manager, struct manager_shutdown *shutdown)
{
    if (getenv("FAKE_SHUTDOWN_HANGS") == NULL) {
        end(manager, &shutdown->control, 0);
    }
}

/* ---- pools ---- */

static void
add_disks(struct pool_report *pool, uint32_t count, const struct disk_argument *disks)
{
    pool->disks = reallocarray(pool->disks, pool->disk_count + count, sizeof(*pool->disks));
    ASSERT(pool->disks != NULL);
    for (uint32_t i = 0; i < count; i++) {
        struct disk_report *disk = &pool->disks[pool->disk_count];
        memset(disk, 0, sizeof(*disk));
        disk->index = (uint16_t)pool->disk_count++;
        disk->tier = disks[i].tier;
        disk->state = DISK_STATE_ACTIVE;
        disk->guid[0] = (uint8_t)disk->index;
        memcpy(disk->spec, disks[i].spec, sizeof(disk->spec));
        snprintf(disk->type, sizeof(disk->type), "memory");
        disk->size_bytes = 10 * GIB;
        disk->data_bytes = 10 * GIB - 8 * MIB;
        disk->block_bytes = 4096;
        pool->size_bytes += disk->data_bytes;
    }
}

static int
pool_create(struct manager *manager, struct pool_create *create)
{
    if (find_pool(manager, create->name) != NULL) {
        return fail(&create->control, -EEXIST, "there is a pool of that name already");
    }
    if (strcmp(create->disks[0].spec, "/held") == 0 && !create->force) {
        return fail(&create->control, -EBUSY, "/held holds a file system");
    }
    struct pool_report *pool = &manager->pools[manager->pool_count++];
    memcpy(pool->name, create->name, sizeof(pool->name));
    pool->extent_bytes = create->extent_bytes != 0 ? create->extent_bytes : 4 * MIB;
    pool->commit = 1;
    pool->incarnation = 1;
    if (strcmp(pool->name, "broken") == 0) {
        pool->state = POOL_STATE_DEGRADED;
        snprintf(pool->reason, sizeof(pool->reason), "disk 0 is missing");
    }
    add_disks(pool, create->disk_count, create->disks);
    event_add(manager, EVENT_INFO, "pool-created", pool->name, pool->name);
    return 0;
}

void
manager_pool_create(struct manager *manager, struct pool_create *create)
{
    end(manager, &create->control, pool_create(manager, create));
}

void
manager_pool_add(struct manager *manager, struct pool_add *add)
{
    struct pool_report *pool = find_pool(manager, add->name);
    if (pool != NULL) {
        add_disks(pool, add->disk_count, add->disks);
    }
    end(manager, &add->control,
        pool != NULL ? 0 : fail(&add->control, -ENOENT, "there is no such pool"));
}

void
manager_pool_delete(struct manager *manager, struct pool_delete *delete)
{
    struct pool_report *pool = find_pool(manager, delete->name);
    if (pool == NULL) {
        end(manager, &delete->control, fail(&delete->control, -ENOENT, "there is no such pool"));
    } else if (pool->volume_count > 0) {
        end(manager, &delete->control, fail(&delete->control, -EBUSY, "it has volumes"));
    } else {
        free(pool->disks);
        *pool = manager->pools[--manager->pool_count];
        memset(&manager->pools[manager->pool_count], 0, sizeof(*pool));
        end(manager, &delete->control, 0);
    }
}

void
manager_pool_import(struct manager *manager, struct pool_import *import)
{
    struct pool_report *pool = &manager->pools[manager->pool_count++];
    snprintf(pool->name, sizeof(pool->name), "imported");
    snprintf(import->ret_name, sizeof(import->ret_name), "imported");
    import->ret_commit = 7;
    add_disks(pool, import->disk_count, import->disks);
    end(manager, &import->control, 0);
}

const char *
pool_state_name(enum pool_state state)
{
    static const char *const names[] = { "online", "degraded", "read-only", "opening", "offline" };
    return names[state];
}

static struct pool_report
copy_pool(const struct pool_report *pool)
{
    struct pool_report copy = *pool;
    copy.disks = malloc(pool->disk_count * sizeof(*copy.disks));
    ASSERT(copy.disks != NULL);
    memcpy(copy.disks, pool->disks, pool->disk_count * sizeof(*copy.disks));
    return copy;
}

void
manager_pool_query(struct manager *manager, struct pool_query *query)
{
    query->ret_pools = calloc(FAKE_MAX, sizeof(*query->ret_pools));
    ASSERT(query->ret_pools != NULL);
    for (uint32_t i = 0; i < manager->pool_count; i++) {
        if (query->name[0] == '\0' || strcmp(query->name, manager->pools[i].name) == 0) {
            query->ret_pools[query->ret_count++] = copy_pool(&manager->pools[i]);
        }
    }
    if (query->name[0] != '\0' && query->ret_count == 0) {
        free(query->ret_pools);
        query->ret_pools = NULL;
        end(manager, &query->control, fail(&query->control, -ENOENT, "there is no such pool"));
        return;
    }
    end(manager, &query->control, 0);
}

/* ---- volumes ---- */

static int
volume_create(struct manager *manager, struct volume_create *create)
{
    struct pool_report *pool = find_pool(manager, create->name.pool);
    if (pool == NULL) {
        return fail(&create->control, -ENOENT, "there is no such pool");
    }
    if (strcmp(create->name.volume, "full") == 0) {
        return fail(&create->control, -ENOSPC, "the pool cannot keep the reserve");
    }
    if (find_volume(manager, &create->name) != NULL) {
        return fail(&create->control, -EEXIST, "there is a volume of that name already");
    }
    for (size_t i = 0; i < FAKE_MAX; i++) {
        struct fake_volume *volume = &manager->volumes[i];
        if (volume->used) {
            continue;
        }
        memset(volume, 0, sizeof(*volume));
        volume->used = true;
        struct volume_report *report = &volume->report;
        memcpy(report->info.pool_name, create->name.pool, sizeof(report->info.pool_name));
        memcpy(report->info.name, create->name.volume, sizeof(report->info.name));
        report->info.size_bytes = create->size_bytes;
        report->info.sector_bytes = create->sector_bytes != 0 ? create->sector_bytes : 512;
        report->reserve_bytes = create->reserve_bytes;
        report->tier = create->tier;
        report->fenced = strcmp(create->name.volume, "fenced") == 0;
        report->id = ++manager->next_id;
        report->created_realtime_ns = UINT64_C(1700000000) * NS_PER_S;
        pool->volume_count++;
        pool->provisioned_bytes += create->size_bytes;
        event_add(manager, EVENT_INFO, "volume-created", create->name.pool, create->name.volume);
        return 0;
    }
    return fail(&create->control, -ENOSPC, "the fake has no room");
}

void
manager_control_describe(const struct control *control, char *text, size_t text_bytes)
{
    ASSERT(control->op.done != NULL);
    snprintf(text, text_bytes, "the fake manager sleeps");
}

static void
slow_expired(struct timer *timer)
{
    struct manager *manager = container_of(timer, struct manager, slow_timer);
    struct volume_create *create = manager->slow;
    manager->slow = NULL;
    end(manager, &create->control, volume_create(manager, create));
}

void
manager_volume_create(struct manager *manager, struct volume_create *create)
{
    if (strcmp(create->name.volume, "stuck") == 0) {
        return;
    }
    if (strcmp(create->name.volume, "slow") == 0) {
        manager->slow = create;
        timer_arm(manager->reactor, &manager->slow_timer,
                  reactor_now_ns(manager->reactor) + 300 * NS_PER_MS, slow_expired);
        return;
    }
    end(manager, &create->control, volume_create(manager, create));
}

/* Of a snapshot the whole pool's job. */
static void
job_add(struct manager *manager, const struct volume_name *name)
{
    struct job_report *job = &manager->jobs[manager->job_count++];
    bool of_pool = name->snapshot[0] != '\0';
    job->id = manager->job_count;
    snprintf(job->kind, sizeof(job->kind), of_pool ? "reclaim" : "delete");
    snprintf(job->subject, sizeof(job->subject), "%.120s%s%.120s", name->pool, of_pool ? "" : "/",
             of_pool ? "" : name->volume);
    snprintf(job->text, sizeof(job->text), "freeing space");
    job->started_realtime_ns = UINT64_C(1700000000) * NS_PER_S;
}

void
manager_volume_delete(struct manager *manager, struct volume_delete *delete)
{
    struct fake_volume *volume = find_volume(manager, &delete->name);
    if (volume == NULL) {
        end(manager, &delete->control,
            fail(&delete->control, -ENOENT, "there is no such volume"));
        return;
    }
    if (volume->report.export_count > 0) {
        end(manager, &delete->control, fail(&delete->control, -EBUSY, "the volume is exported"));
        return;
    }
    if (volume->report.snapshot_count > 0 && !delete->snapshots) {
        end(manager, &delete->control, fail(&delete->control, -ENOTEMPTY, "it has snapshots"));
        return;
    }
    delete->ret_freed_bytes = 5 * MIB;
    if (delete->dry_run) {
        end(manager, &delete->control, 0);
        return;
    }
    volume->used = false;
    find_pool(manager, delete->name.pool)->volume_count--;
    job_add(manager, &delete->name);
    end(manager, &delete->control, 0);
}

void
manager_volume_resize(struct manager *manager, struct volume_resize *resize)
{
    struct fake_volume *volume = find_volume(manager, &resize->name);
    int result = 0;
    if (volume == NULL) {
        result = fail(&resize->control, -ENOENT, "there is no such volume");
    } else if (resize->size_bytes < volume->report.info.size_bytes) {
        result = fail(&resize->control, -ENOTEMPTY, "the tail holds data");
    } else {
        volume->report.info.size_bytes = resize->size_bytes;
    }
    end(manager, &resize->control, result);
}

void
manager_volume_rename(struct manager *manager, struct volume_rename *rename)
{
    struct fake_volume *volume = find_volume(manager, &rename->name);
    if (volume != NULL) {
        memcpy(volume->report.info.name, rename->new_name, sizeof(volume->report.info.name));
    }
    end(manager, &rename->control,
        volume != NULL ? 0 : fail(&rename->control, -ENOENT, "there is no such volume"));
}

void
manager_volume_set_reserve(struct manager *manager, struct volume_set_reserve *set)
{
    struct fake_volume *volume = find_volume(manager, &set->name);
    if (volume != NULL) {
        volume->report.reserve_bytes = set->reserve_bytes;
    }
    end(manager, &set->control,
        volume != NULL ? 0 : fail(&set->control, -ENOENT, "there is no such volume"));
}

void
manager_volume_query(struct manager *manager, struct volume_query *query)
{
    query->ret_volumes = calloc(FAKE_MAX, sizeof(*query->ret_volumes));
    ASSERT(query->ret_volumes != NULL);
    for (size_t i = 0; i < FAKE_MAX; i++) {
        struct fake_volume *volume = &manager->volumes[i];
        const struct volume_info *info = &volume->report.info;
        if (volume->used &&
            (query->name.pool[0] == '\0' || strcmp(query->name.pool, info->pool_name) == 0) &&
            (query->name.volume[0] == '\0' || strcmp(query->name.volume, info->name) == 0)) {
            volume->report.operations[VOLUME_WRITE] += 100;
            volume->report.bytes[VOLUME_WRITE] += 409600;
            query->ret_volumes[query->ret_count++] = volume->report;
        }
    }
    end(manager, &query->control, 0);
}

/* ---- snapshots ---- */

void
volume_name_format(const struct volume_name *name, char text[static SNAPSHOT_PATH_SIZE])
{
    snprintf(text, SNAPSHOT_PATH_SIZE, "%s/%s%s%s", name->pool, name->volume,
             name->snapshot[0] != '\0' ? "@" : "", name->snapshot);
}

static bool
is_of(const struct volume_name *name, const struct volume_name *wanted)
{
    return (wanted->pool[0] == '\0' || strcmp(wanted->pool, name->pool) == 0) &&
           (wanted->volume[0] == '\0' || strcmp(wanted->volume, name->volume) == 0) &&
           (wanted->snapshot[0] == '\0' || strcmp(wanted->snapshot, name->snapshot) == 0);
}

static struct fake_snapshot *
find_snapshot(struct manager *manager, const struct volume_name *name)
{
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (manager->snapshots[i].used && is_of(&manager->snapshots[i].report.name, name)) {
            return &manager->snapshots[i];
        }
    }
    return NULL;
}

static void
add_snapshot(struct manager *manager, struct volume_name *name, bool in_group,
             uint64_t expires_realtime_ns)
{
    struct fake_snapshot *snapshot = manager->snapshots;
    struct fake_volume *volume = find_volume(manager, name);
    while (snapshot->used) {
        snapshot++;
        ASSERT(snapshot < manager->snapshots + FAKE_MAX);
    }
    if (name->snapshot[0] == '\0') {
        snprintf(name->snapshot, sizeof(name->snapshot), "20231114T221320Z");
    }
    *snapshot = (struct fake_snapshot){ .used = true };
    struct snapshot_report *report = &snapshot->report;
    report->name = *name;
    report->id = ++manager->next_id;
    report->group_guid[0] = in_group ? 7 : 0;
    report->size_bytes = volume->report.info.size_bytes;
    report->mapped_bytes = 3 * MIB;
    report->exclusive_bytes = MIB;
    report->shared_bytes = 2 * MIB;
    report->created_realtime_ns = UINT64_C(1700000000) * NS_PER_S;
    report->expires_realtime_ns = expires_realtime_ns;
    report->rules = strcmp(name->snapshot, "scheduled") == 0 ? 5 : 0;
    volume->report.snapshot_count++;
}

void
manager_snapshot_create(struct manager *manager, struct snapshot_create *create)
{
    for (uint32_t i = 0; i < create->count; i++) {
        const struct volume_name *name = &create->names[i];
        if (find_volume(manager, name) == NULL) {
            end(manager, &create->control,
                fail(&create->control, -ENOENT, "there is no such volume"));
            return;
        }
        if (name->snapshot[0] != '\0' && find_snapshot(manager, name) != NULL) {
            end(manager, &create->control,
                fail(&create->control, -EEXIST, "there is a snapshot of that name already"));
            return;
        }
    }
    for (uint32_t i = 0; i < create->count; i++) {
        add_snapshot(manager, &create->names[i], create->count > 1, create->expires_realtime_ns);
    }
    end(manager, &create->control, 0);
}

void
manager_snapshot_query(struct manager *manager, struct snapshot_query *query)
{
    query->ret_snapshots = calloc(FAKE_MAX, sizeof(*query->ret_snapshots));
    ASSERT(query->ret_snapshots != NULL);
    for (size_t i = 0; i < FAKE_MAX; i++) {
        const struct fake_snapshot *snapshot = &manager->snapshots[i];
        if (snapshot->used && is_of(&snapshot->report.name, &query->name)) {
            query->ret_snapshots[query->ret_count++] = snapshot->report;
        }
    }
    if (query->hidden && query->ret_count > 0) {
        struct snapshot_report *hidden = &query->ret_snapshots[query->ret_count++];
        *hidden = query->ret_snapshots[0];
        hidden->name.snapshot[0] = '\0';
        hidden->clone_count = 1;
        hidden->id = 99;
    }
    end(manager, &query->control, 0);
}

void
manager_snapshot_set_expiry(struct manager *manager, struct snapshot_set_expiry *set)
{
    struct fake_snapshot *snapshot = find_snapshot(manager, &set->name);
    int result = 0;
    if (snapshot == NULL) {
        result = fail(&set->control, -ENOENT, "there is no such snapshot");
    } else if (set->expires_realtime_ns < snapshot->report.expires_realtime_ns) {
        result = fail(&set->control, -EPERM, "it is immutable for longer than that");
    } else {
        snapshot->report.expires_realtime_ns = set->expires_realtime_ns;
    }
    end(manager, &set->control, result);
}

void
manager_snapshot_delete(struct manager *manager, struct snapshot_delete *delete)
{
    for (uint32_t i = 0; i < delete->count; i++) {
        const struct fake_snapshot *snapshot = find_snapshot(manager, &delete->names[i]);
        if (snapshot == NULL) {
            end(manager, &delete->control,
                fail(&delete->control, -ENOENT, "there is no such snapshot"));
            return;
        }
        if (snapshot->report.expires_realtime_ns != 0) {
            end(manager, &delete->control, fail(&delete->control, -EPERM, "it is immutable"));
            return;
        }
    }
    for (uint32_t i = 0; i < delete->count; i++) {
        delete->ret_freed_bytes += MIB;
        delete->ret_hidden += strcmp(delete->names[i].snapshot, "origin") == 0;
        if (!delete->dry_run) {
            find_snapshot(manager, &delete->names[i])->used = false;
            find_volume(manager, &delete->names[i])->report.snapshot_count--;
            job_add(manager, &delete->names[i]);
        }
    }
    end(manager, &delete->control, 0);
}

static void
make_clone(struct manager *manager, const struct volume_clone *clone)
{
    struct fake_volume *volume = manager->volumes;
    while (volume->used) {
        volume++;
        ASSERT(volume < manager->volumes + FAKE_MAX);
    }
    *volume = *find_volume(manager, &clone->from);
    memcpy(volume->report.info.name, clone->name.volume, sizeof(volume->report.info.name));
    volume->report.has_parent = true;
    volume->report.parent = clone->from;
    volume->report.reserve_bytes = clone->reserve_bytes;
    volume->report.tier = clone->tier;
    volume->report.snapshot_count = 0;
    volume->report.export_count = 0;
    volume->report.id = ++manager->next_id;
}

void
manager_volume_clone(struct manager *manager, struct volume_clone *clone)
{
    bool known = find_volume(manager, &clone->from) != NULL &&
                 (clone->from.snapshot[0] == '\0' || find_snapshot(manager, &clone->from) != NULL);
    int result = 0;
    if (!known) {
        result = fail(&clone->control, -ENOENT, "there is no such snapshot");
    } else if (find_volume(manager, &clone->name) != NULL) {
        result = fail(&clone->control, -EEXIST, "there is a volume of that name already");
    } else {
        make_clone(manager, clone);
    }
    end(manager, &clone->control, result);
}

void
manager_volume_rollback(struct manager *manager, struct volume_rollback *rollback)
{
    const struct fake_snapshot *snapshot = find_snapshot(manager, &rollback->name);
    int result = 0;
    if (snapshot == NULL) {
        result = fail(&rollback->control, -ENOENT, "there is no such snapshot");
    } else {
        find_volume(manager, &rollback->name)->report.info.size_bytes =
            snapshot->report.size_bytes;
    }
    end(manager, &rollback->control, result);
}

/* Every other block, of the first 64 MiB, three runs at a time. */
void
manager_volume_diff(struct manager *manager, struct volume_diff *diff)
{
    const struct fake_snapshot *from = find_snapshot(manager, &diff->from);
    if (from == NULL) {
        end(manager, &diff->control, fail(&diff->control, -ENOENT, "there is no such snapshot"));
        return;
    }
    diff->ret_from_bytes = diff->ret_to_bytes = from->report.size_bytes;
    diff->ret_end_bytes = diff->length_bytes == 0
                              ? diff->ret_to_bytes
                              : MIN(diff->offset_bytes + diff->length_bytes, diff->ret_to_bytes);
    diff->ret_runs = calloc(3, sizeof(*diff->ret_runs));
    ASSERT(diff->ret_runs != NULL);
    uint64_t at = (diff->offset_bytes + 8191) & ~UINT64_C(8191);
    for (; diff->ret_count < 3 && at < MIN(64 * KIB, diff->ret_end_bytes); at += 8192) {
        diff->ret_runs[diff->ret_count++] = (struct volume_diff_run){ at, 4096 };
    }
    diff->ret_next_bytes = diff->ret_count == 3 ? at : diff->ret_end_bytes;
    end(manager, &diff->control, 0);
}

static struct policy_report *
find_policy(struct manager *manager, const struct volume_name *name)
{
    for (uint32_t i = 0; i < manager->policy_count; i++) {
        if (is_of(&manager->policies[i].name, name)) {
            return &manager->policies[i];
        }
    }
    return NULL;
}

void
manager_policy_set(struct manager *manager, struct policy_set *set)
{
    struct policy_report *report = find_policy(manager, &set->name);
    struct fake_volume *volume = find_volume(manager, &set->name);
    if (volume == NULL) {
        end(manager, &set->control, fail(&set->control, -ENOENT, "there is no such volume"));
        return;
    }
    volume->report.has_policy = set->policy.rules[0].every_ns != 0;
    if (report == NULL) {
        report = &manager->policies[manager->policy_count++];
    }
    *report = (struct policy_report){ .name = set->name, .policy = set->policy };
    report->next_realtime_ns = UINT64_C(1700000100) * NS_PER_S;
    end(manager, &set->control, 0);
}

void
manager_policy_query(struct manager *manager, struct policy_query *query)
{
    query->ret_policies = calloc(FAKE_MAX, sizeof(*query->ret_policies));
    ASSERT(query->ret_policies != NULL);
    for (uint32_t i = 0; i < manager->policy_count; i++) {
        const struct policy_report *report = &manager->policies[i];
        if (is_of(&report->name, &query->name) && report->policy.rules[0].every_ns != 0) {
            query->ret_policies[query->ret_count++] = *report;
        }
    }
    end(manager, &query->control, 0);
}

/* ---- exports ---- */

void
manager_export_create(struct manager *manager, struct export_create *create)
{
    struct fake_volume *volume = find_volume(manager, &create->name);
    if (volume == NULL) {
        end(manager, &create->control,
            fail(&create->control, -ENOENT, "there is no such volume"));
        return;
    }
    if (create->record.name[0] == '\0') {
        char path[SNAPSHOT_PATH_SIZE];
        volume_name_format(&create->name, path);
        size_t length = strlen(path);
        ASSERT_OP(length, <, sizeof(create->record.name));
        memcpy(create->record.name, path, length + 1);
    }
    create->record.read_only |= create->name.snapshot[0] != '\0';
    for (size_t i = 0; i < FAKE_MAX; i++) {
        struct fake_export *export = &manager->exports[i];
        if (!export->used) {
            export->used = true;
            export->report.record = create->record;
            export->report.volume = create->name;
            export->report.size_bytes = volume->report.info.size_bytes;
            volume->report.export_count++;
            break;
        }
    }
    struct session_report *session = &manager->sessions[manager->session_count++];
    session->id = manager->session_count;
    session->volume = create->name;
    snprintf(session->protocol, sizeof(session->protocol), "nbd");
    snprintf(session->peer, sizeof(session->peer), "tcp:192.0.2.7:40000");
    session->attached_realtime_ns = UINT64_C(1700000000) * NS_PER_S;
    end(manager, &create->control, 0);
}

void
manager_export_delete(struct manager *manager, struct export_delete *delete)
{
    struct fake_volume *volume = find_volume(manager, &delete->name);
    if (volume == NULL || volume->report.export_count == 0) {
        end(manager, &delete->control,
            fail(&delete->control, -ENOENT, "the volume is not exported"));
        return;
    }
    if (!delete->drop_sessions && manager->session_count > 0) {
        end(manager, &delete->control, fail(&delete->control, -EBUSY, "hosts are attached"));
        return;
    }
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (strcmp(manager->exports[i].report.volume.volume, delete->name.volume) == 0) {
            manager->exports[i].used = false;
        }
    }
    volume->report.export_count = 0;
    manager->session_count = 0;
    end(manager, &delete->control, 0);
}

void
manager_export_query(struct manager *manager, struct export_query *query)
{
    query->ret_exports = calloc(FAKE_MAX, sizeof(*query->ret_exports));
    ASSERT(query->ret_exports != NULL);
    for (size_t i = 0; i < FAKE_MAX; i++) {
        const struct fake_export *export = &manager->exports[i];
        if (export->used && (query->protocol[0] == '\0' ||
                             strcmp(query->protocol, export->report.record.protocol) == 0)) {
            query->ret_exports[query->ret_count++] = export->report;
        }
    }
    end(manager, &query->control, 0);
}

/* ---- sessions, events, jobs ---- */

void
manager_session_query(struct manager *manager, struct session_query *query)
{
    query->ret_count = manager->session_count;
    query->ret_sessions = malloc(sizeof(manager->sessions));
    ASSERT(query->ret_sessions != NULL);
    memcpy(query->ret_sessions, manager->sessions, sizeof(manager->sessions));
    end(manager, &query->control, 0);
}

void
manager_session_drop(struct manager *manager, struct session_drop *drop)
{
    bool known = drop->id != 0 ? drop->id <= manager->session_count
                               : strcmp(drop->match, "192.0.2.7") == 0;
    if (!known) {
        end(manager, &drop->control, fail(&drop->control, -ENOENT, "there is no such session"));
        return;
    }
    drop->ret_dropped = drop->unblock ? 0 : 1;
    end(manager, &drop->control, 0);
}

static void
wait_expired(struct timer *timer)
{
    struct event_query *query = container_of(timer, struct event_query, timer);
    struct manager *manager = query->control.manager;
    manager->waiting = NULL;
    end(manager, &query->control, 0);
}

void
manager_event_query(struct manager *manager, struct event_query *query)
{
    query->ret_events = calloc(FAKE_MAX, sizeof(*query->ret_events));
    ASSERT(query->ret_events != NULL);
    for (uint32_t i = 0; i < manager->event_count; i++) {
        if (manager->events[i].sequence > query->after_sequence) {
            query->ret_events[query->ret_count++] = manager->events[i];
        }
    }
    if (query->ret_count > 0 || !query->wait) {
        end(manager, &query->control, 0);
        return;
    }
    free(query->ret_events);
    query->ret_events = NULL;
    query->control.manager = manager;
    manager->waiting = query;
    timer_arm(manager->reactor, &query->timer, reactor_now_ns(manager->reactor) + query->wait_ns,
              wait_expired);
}

void
manager_job_query(struct manager *manager, struct job_query *query)
{
    query->ret_jobs = calloc(FAKE_MAX, sizeof(*query->ret_jobs));
    ASSERT(query->ret_jobs != NULL);
    for (uint32_t i = 0; i < manager->job_count; i++) {
        struct job_report *job = &manager->jobs[i];
        if (query->id == 0 || query->id == job->id) {
            query->ret_jobs[query->ret_count++] = *job;
        }
        job->percent = (uint8_t)MIN(job->percent + 40, 100); /* each look finds it further on */
        job->finished = job->percent == 100;
    }
    end(manager, &query->control, 0);
}

/* ---- checks: each look finds them further on; a pool called "broken" is ---- */

void
manager_pool_check(struct manager *manager, struct pool_check *check)
{
    struct pool_report *pool = find_pool(manager, check->name);
    if (pool == NULL) {
        end(manager, &check->control, fail(&check->control, -ENOENT, "there is no such pool"));
        return;
    }
    struct check_report *report = &manager->checks[pool - manager->pools];
    *report = (struct check_report){ .job = ++manager->next_id, .commit = 7, .records = 11 };
    snprintf(report->pool, sizeof(report->pool), "%s", check->name);
    report->started_realtime_ns = UINT64_C(1700000000) * NS_PER_S;
    check->ret_job = report->job;
    end(manager, &check->control, 0);
}

static void
fill_check(struct check_report *report)
{
    report->percent = (uint8_t)MIN(report->percent + 40, 100);
    report->finished = report->percent == 100;
    if (report->finished && strcmp(report->pool, "broken") == 0) {
        report->errors = 201;
        report->warnings = 1;
    }
}

void
manager_check_query(struct manager *manager, struct check_query *query)
{
    query->ret_checks = calloc(FAKE_MAX, sizeof(*query->ret_checks));
    ASSERT(query->ret_checks != NULL);
    for (uint32_t i = 0; i < manager->pool_count; i++) {
        struct check_report *report = &manager->checks[i];
        if (report->job == 0 ||
            (query->name[0] != '\0' && strcmp(query->name, report->pool) != 0)) {
            continue;
        }
        fill_check(report);
        struct check_report *copy = &query->ret_checks[query->ret_count++];
        *copy = *report;
        if (report->errors > 0) {
            copy->notes = calloc(2, sizeof(*copy->notes));
            ASSERT(copy->notes != NULL);
            copy->note_count = 2;
            copy->notes[0] = (struct check_note){ true, "grain-twice", "two volumes have it" };
            copy->notes[1] = (struct check_note){ false, "grain-leaked", "nobody has it" };
        }
    }
    end(manager, &query->control, 0);
}

void
manager_block_query(struct manager *manager, struct block_query *query)
{
    query->ret_blocks = calloc(1, sizeof(*query->ret_blocks));
    ASSERT(query->ret_blocks != NULL);
    query->ret_count = 1;
    snprintf(query->ret_blocks->match, sizeof(query->ret_blocks->match), "192.0.2.7");
    snprintf(query->ret_blocks->origin, sizeof(query->ret_blocks->origin), "web1");
    end(manager, &query->control, 0);
}

/* A volume called "fenced" is. */
void
manager_volume_accept_loss(struct manager *manager, struct volume_accept_loss *accept)
{
    struct fake_volume *volume = find_volume(manager, &accept->name);
    if (volume == NULL || !volume->report.fenced) {
        int code = volume == NULL ? -ENOENT : -EALREADY;
        end(manager, &accept->control, fail(&accept->control, code, "there is no such loss"));
        return;
    }
    volume->report.fenced = false;
    end(manager, &accept->control, 0);
}
