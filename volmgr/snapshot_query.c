/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports on snapshots. What the tables tell costs nothing; whose space it is takes a look at the
 * counters in the databases, of one pool after the other, and only if it is asked for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define SNAPSHOT_QUERY_PHASES(X)                                                                   \
    X(LIST)                                                                                        \
    X(SURVEY)                                                                                      \
    X(MEASURE)

enum snapshot_query_phase {
#define PHASE_ENUM(name) QUERY_##name,
    SNAPSHOT_QUERY_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    QUERY_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    SNAPSHOT_QUERY_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == QUERY_PHASE_COUNT, "a name for each phase");

/* Which snapshot a row is about. */
struct row_key {
    uint64_t branch;
    uint32_t generation;
};

struct snapshot_listing {
    struct machine machine;
    struct snapshot_query *query;
    struct byte_buffer rows; /* struct snapshot_report[] */
    struct byte_buffer keys; /* struct row_key[], row by row */
    struct space_survey survey;
    struct pool *surveyed; /* NULL: none */
    uint32_t next; /* row whose pool is measured next */
};

MACHINE_DONE(survey_done, struct snapshot_listing, survey.op)

static bool
name_is_wanted(const char *wanted, const char *name)
{
    return wanted[0] == '\0' || strcmp(wanted, name) == 0;
}

/* Branches that begin there, each of a volume that can be named. */
static uint32_t
clone_count(const struct snapshot *snapshot)
{
    const struct lineage_view *view =
        lineage_find_view(snapshot->branch->lineage, snapshot->generation);

    return view != NULL ? view->dependents : 0;
}

static void
report_fill(const struct snapshot *snapshot, struct snapshot_report *report)
{
    struct pool *pool = snapshot->pool;
    const struct snapshot_record *record = &snapshot->record;

    *report = (struct snapshot_report){
        .id = record->id,
        .size_bytes = record->size_bytes,
        .mapped_bytes = record->mapped_grains * GRAIN_BYTES,
        .created_realtime_ns = record->created_realtime_ns,
        .expires_realtime_ns = pool_clock_to_realtime(pool, record->expires_ns),
        .clone_count = clone_count(snapshot),
        .hold_count = snapshot->holds,
        .rules = record->rules,
    };
    memcpy(report->guid, record->guid, GUID_BYTES);
    memcpy(report->group_guid, record->group_guid, GUID_BYTES);
    snprintf(report->name.pool, sizeof(report->name.pool), "%s", pool->name);
    snprintf(report->name.snapshot, sizeof(report->name.snapshot), "%s", record->name);
    if (snapshot->volume != NULL) {
        snprintf(report->name.volume, sizeof(report->name.volume), "%s",
                 snapshot->volume->durable.name);
        list_for_each(&snapshot->volume->exports, link) {
            const struct export *export = list_entry(link, struct export, volume_link);
            report->export_count += export->record.snapshot == record->id;
        }
    }
}

static bool
is_wanted(const struct snapshot_query *query, const struct snapshot *snapshot)
{
    bool is_hidden = snapshot->record.state == SNAPSHOT_HIDDEN;

    return snapshot->record.state == SNAPSHOT_KEPT
               ? name_is_wanted(query->name.snapshot, snapshot->record.name)
               : is_hidden && query->hidden && query->name.snapshot[0] == '\0';
}

static void
list_snapshot(struct snapshot_listing *listing, const struct snapshot *snapshot)
{
    struct snapshot_report report;

    if (is_wanted(listing->query, snapshot)) {
        struct row_key key = { snapshot->branch->record.id, snapshot->generation };
        report_fill(snapshot, &report);
        byte_buffer_append(&listing->rows, &report, sizeof(report));
        byte_buffer_append(&listing->keys, &key, sizeof(key));
    }
}

/* Also hidden ones whose volume is gone, if no volume was named. */
static void
list_pool(struct snapshot_listing *listing, const struct pool *pool, bool *ret_found)
{
    const struct volume_name *name = &listing->query->name;

    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->durable.deleting || volume->pending ||
            !name_is_wanted(name->volume, volume->durable.name)) {
            continue;
        }
        *ret_found = true;
        list_for_each(&volume->snapshots, snapshot_link) {
            list_snapshot(listing, list_entry(snapshot_link, struct snapshot, volume_link));
        }
    }
    if (name->volume[0] != '\0') {
        return;
    }
    list_for_each(&pool->snapshot_list, link) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        if (snapshot->volume == NULL) {
            list_snapshot(listing, snapshot);
        }
    }
}

static enum machine_step
list(struct snapshot_listing *listing)
{
    struct machine *machine = &listing->machine;
    struct snapshot_query *query = listing->query;
    const struct volume_name *name = &query->name;
    bool found_volume = false;

    list_for_each(&machine->manager->pools, link) {
        const struct pool *pool = list_entry(link, struct pool, link);
        if (pool_is_serving(pool) && name_is_wanted(name->pool, pool->name)) {
            list_pool(listing, pool, &found_volume);
        }
    }
    query->ret_count = (uint32_t)(listing->rows.length_bytes / sizeof(struct snapshot_report));
    if (name->volume[0] != '\0' && !found_volume) {
        return machine_fail(machine, -ENOENT, "there is no volume `%s/%s`", name->pool,
                            name->volume);
    }
    if (name->snapshot[0] != '\0' && query->ret_count == 0) {
        return machine_fail(machine, -ENOENT, "there is no snapshot `%s/%s@%s`", name->pool,
                            name->volume, name->snapshot);
    }
    byte_buffer_reserve(&listing->rows, 1); /* so that there is memory to free */
    query->ret_snapshots = (struct snapshot_report *)(void *)listing->rows.data;
    listing->rows = BYTE_BUFFER_INIT;
    return query->space ? MACHINE_NEXT : machine_end(machine);
}

/* Begin with the pool of the next row. */
static enum machine_step
survey(struct snapshot_listing *listing)
{
    struct machine *machine = &listing->machine;
    const struct snapshot_query *query = listing->query;

    while (listing->next < query->ret_count) {
        struct pool *pool =
            manager_find_pool(machine->manager, query->ret_snapshots[listing->next].name.pool);
        if (pool != NULL && pool_is_serving(pool) && !pool->stopping) {
            listing->survey = (struct space_survey){ 0 };
            listing->surveyed = pool;
            pool->surveys++;
            machine_arm(machine, &listing->survey.op, survey_done);
            space_survey_start(&listing->survey, pool);
            return machine_wait(machine);
        }
        listing->next++;
    }
    return machine_end(machine);
}

/* Rows of one pool stand together. Those that are gone by now keep what they had. */
static enum machine_step
measure(struct snapshot_listing *listing)
{
    struct machine *machine = &listing->machine;
    struct snapshot_query *query = listing->query;
    struct pool *pool = listing->surveyed;
    const struct row_key *keys = (const struct row_key *)(const void *)listing->keys.data;

    for (; listing->next < query->ret_count; listing->next++) {
        struct snapshot_report *report = &query->ret_snapshots[listing->next];
        const struct row_key *key = &keys[listing->next];
        if (strcmp(report->name.pool, pool->name) != 0) {
            break;
        }
        const struct snapshot *snapshot = pool_find_snapshot(pool, key->branch, key->generation);
        if (machine->status < 0 || snapshot == NULL ||
            snapshot->record.state == SNAPSHOT_DELETING) {
            continue;
        }
        uint64_t grains = space_survey_exclusive(&listing->survey, snapshot->branch,
                                                 snapshot->generation);
        report->exclusive_bytes = MIN(grains * GRAIN_BYTES, report->mapped_bytes);
        report->shared_bytes = report->mapped_bytes - report->exclusive_bytes;
    }
    space_survey_free(&listing->survey);
    ASSERT_OP(pool->surveys, >, 0u);
    pool->surveys--;
    listing->surveyed = NULL;
    return machine_goto(machine, QUERY_SURVEY);
}

static enum machine_step
listing_phase(struct machine *machine, uint32_t phase)
{
    struct snapshot_listing *listing = container_of(machine, struct snapshot_listing, machine);

    switch ((enum snapshot_query_phase)phase) {
    case QUERY_LIST:
        return list(listing);
    case QUERY_SURVEY:
        return survey(listing);
    case QUERY_MEASURE:
        return measure(listing);
    case QUERY_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
listing_release(struct machine *machine)
{
    struct snapshot_listing *listing = container_of(machine, struct snapshot_listing, machine);

    ASSERT(listing->surveyed == NULL);
    byte_buffer_free(&listing->rows);
    byte_buffer_free(&listing->keys);
    free(listing);
}

static const struct machine_ops SNAPSHOT_LISTING_OPS = {
    .name = "snapshot list",
    .phase_names = PHASE_NAMES,
    .phase_count = QUERY_PHASE_COUNT,
    .failed_phase = QUERY_PHASE_COUNT,
    .phase = listing_phase,
    .release = listing_release,
};

void
manager_snapshot_query(struct manager *manager, struct snapshot_query *query)
{
    ASSERT_ON_REACTOR(manager->control);
    query->ret_count = 0;
    query->ret_snapshots = NULL;
    if (query->name.pool[0] != '\0' && manager_find_pool(manager, query->name.pool) == NULL) {
        control_refuse(manager, &query->control, -ENOENT, "there is no pool `%s`",
                       query->name.pool);
        return;
    }
    struct snapshot_listing *listing = calloc(1, sizeof(*listing));
    ASSERT(listing != NULL);
    machine_init(&listing->machine, &SNAPSHOT_LISTING_OPS, manager, &query->control);
    listing->query = query;
    machine_start(&listing->machine);
}
