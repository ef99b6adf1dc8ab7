/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports on pools and volumes. One round of messages for all of them: every reactor adds up what
 * it owns. Never waits for a disk or for an operation in line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

#define QUERY_PHASES(X)                                                                            \
    X(ASK)                                                                                         \
    X(COLLECT)                                                                                     \
    X(SURVEY)                                                                                      \
    X(MEASURE)

enum query_phase {
#define PHASE_ENUM(name) QUERY_##name,
    QUERY_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    QUERY_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    QUERY_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == QUERY_PHASE_COUNT, "a name for each phase");

static bool
name_is_wanted(const char *wanted, const char *name)
{
    return wanted[0] == '\0' || strcmp(wanted, name) == 0;
}

/* ---- volumes ---- */

/* The rows are the control reactor's; the members that a reactor owns are filled in by it. */
struct volume_listing {
    struct machine machine;
    struct volume_query *query;
    struct round round;
    struct volume **volumes; /* of ret_volumes, row by row; valid during the round only (V2) */
    struct space_survey survey;
    struct pool *surveyed; /* NULL: none */
    uint32_t next;         /* row whose pool is measured next */
};

MACHINE_DONE(survey_done, struct volume_listing, survey.op)

/* What it was made from, if it still needs that. */
static void
report_parent(const struct volume *volume, struct volume_report *report)
{
    const struct pool *pool = volume->pool;
    const struct pool_branch *branch = pool_find_branch(pool, volume->durable.branch);
    struct lineage_branch *bottom = branch != NULL ? lineage_bottom(branch->lineage) : NULL;
    const struct snapshot *origin = NULL;

    for (; bottom != NULL && bottom->parent != NULL; bottom = lineage_bottom(bottom->parent)) {
        origin = pool_find_snapshot(pool, bottom->parent->id, bottom->fork);
        if (origin == NULL || origin->record.volume != volume->durable.id) {
            break; /* otherwise it was rolled back: its own past */
        }
    }
    if (bottom == NULL || bottom->parent == NULL) {
        return;
    }
    report->has_parent = true;
    snprintf(report->parent.pool, sizeof(report->parent.pool), "%s", pool->name);
    if (origin != NULL && origin->volume != NULL) {
        snprintf(report->parent.volume, sizeof(report->parent.volume), "%s",
                 origin->volume->durable.name);
        snprintf(report->parent.snapshot, sizeof(report->parent.snapshot), "%s",
                 origin->record.name);
    }
}

/* What the control reactor knows. */
static void
volume_report_fill(const struct volume *volume, struct volume_report *report)
{
    const struct volume_record *record = &volume->durable;
    const struct pool *pool = volume->pool;

    report->info = *volume->info;
    report->id = record->id;
    report->reserve_bytes = record->reserve_bytes;
    report->tier = record->tier;
    report->reactor = volume->shard->index;
    report->affected = volume->affected;
    report->export_count = volume_export_count(volume);
    report->created_realtime_ns = record->created_realtime_ns;
    report->has_policy = volume->policy != NULL;
    list_for_each(&volume->snapshots, link) {
        report->snapshot_count +=
            list_entry(link, struct snapshot, volume_link)->record.state == SNAPSHOT_KEPT;
    }
    report_parent(volume, report);
    if (volume->affected) {
        snprintf(report->problem, sizeof(report->problem),
                 "some of its space is on a disk that is missing: reads and writes there fail");
    } else if (pool->state == POOL_STATE_READ_ONLY) {
        snprintf(report->problem, sizeof(report->problem), "%.255s", pool->reason);
    }
}

/* What the volume's reactor knows. */
static void
volume_report_add(const struct volume *volume, struct volume_report *report)
{
    report->mapped_bytes = volume->mapped_grains * GRAIN_BYTES;
    list_for_each(&volume->sessions, link) {
        report->session_count++;
    }
    for (uint32_t i = 0; i < VOLUME_OPERATION_COUNT; i++) {
        report->operations[i] = volume->operations[i];
        report->bytes[i] = volume->bytes[i];
        report->errors[i] = volume->errors[i];
        report->latency_total_ns[i] = volume->latency_total_ns[i];
    }
    report->fenced = volume->fenced && !volume->lost;
    if (volume->lost) {
        snprintf(report->problem, sizeof(report->problem),
                 "another host has taken the pool over: it answers errors here");
    } else if (volume->fenced) {
        snprintf(report->problem, sizeof(report->problem),
                 "a disk lost writes of it, and which ones is not known: it answers no I/O until "
                 "`volctl accept-loss` makes it serve what the disks kept, as after a power cut");
    }
}

static enum machine_step
volume_listing_visit(struct round_stop *stop)
{
    struct volume_listing *listing = container_of(stop->round, struct volume_listing, round);

    for (uint32_t i = 0; i < listing->query->ret_count; i++) {
        const struct volume *volume = listing->volumes[i];
        if (volume->shard->index == stop->index) {
            volume_report_add(volume, &listing->query->ret_volumes[i]);
        }
    }
    return MACHINE_NEXT;
}

static enum machine_step
volume_listing_ask(struct volume_listing *listing)
{
    struct manager *manager = listing->machine.manager;
    struct volume_query *query = listing->query;
    uint32_t count = 0;
    uint32_t room = 0;

    list_for_each(&manager->pools, link) {
        room += list_entry(link, struct pool, link)->volume_count;
    }
    query->ret_volumes = calloc(MAX(room, 1u), sizeof(*query->ret_volumes));
    listing->volumes = calloc(MAX(room, 1u), sizeof(*listing->volumes));
    ASSERT(query->ret_volumes != NULL && listing->volumes != NULL);
    list_for_each(&manager->pools, pool_link) {
        const struct pool *pool = list_entry(pool_link, struct pool, link);
        if (!pool_is_serving(pool) || !name_is_wanted(query->name.pool, pool->name)) {
            continue;
        }
        list_for_each(&pool->volumes, link) {
            struct volume *volume = list_entry(link, struct volume, pool_link);
            if (volume->durable.deleting || volume->pending ||
                !name_is_wanted(query->name.volume, volume->durable.name)) {
                continue;
            }
            ASSERT_OP(count, <, room);
            volume_report_fill(volume, &query->ret_volumes[count]);
            listing->volumes[count++] = volume;
        }
    }
    query->ret_count = count;
    if (count > 0) {
        round_all(&listing->machine, &listing->round, volume_listing_visit);
    }
    return machine_wait(&listing->machine);
}

/* ---- whose space it is ---- */

/* Begin with the pool of the next row. */
static enum machine_step
volume_listing_survey(struct volume_listing *listing)
{
    struct machine *machine = &listing->machine;
    const struct volume_query *query = listing->query;

    while (query->space && listing->next < query->ret_count) {
        struct pool *pool =
            manager_find_pool(machine->manager, query->ret_volumes[listing->next].info.pool_name);
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

/* Rows of one pool stand together. */
static enum machine_step
volume_listing_measure(struct volume_listing *listing)
{
    struct machine *machine = &listing->machine;
    struct volume_query *query = listing->query;
    struct pool *pool = listing->surveyed;

    for (; listing->next < query->ret_count; listing->next++) {
        struct volume_report *report = &query->ret_volumes[listing->next];
        if (strcmp(report->info.pool_name, pool->name) != 0) {
            break;
        }
        const struct volume *volume = pool_find_volume_by_id(pool, report->id);
        if (machine->status < 0 || volume == NULL || volume->durable.deleting) {
            continue;
        }
        uint64_t grains = space_survey_exclusive(
            &listing->survey, pool_find_branch(pool, volume->durable.branch), LINEAGE_FOREVER);
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
volume_listing_collect(struct volume_listing *listing)
{
    struct machine *machine = &listing->machine;
    struct volume_query *query = listing->query;

    if (query->ret_count == 0 && query->name.volume[0] != '\0') {
        free(query->ret_volumes);
        query->ret_volumes = NULL;
        return machine_fail(machine, -ENOENT, "there is no volume `%s/%s`", query->name.pool,
                            query->name.volume);
    }
    return MACHINE_NEXT;
}

static enum machine_step
volume_listing_phase(struct machine *machine, uint32_t phase)
{
    struct volume_listing *listing = container_of(machine, struct volume_listing, machine);

    switch ((enum query_phase)phase) {
    case QUERY_ASK:
        return volume_listing_ask(listing);
    case QUERY_COLLECT:
        return volume_listing_collect(listing);
    case QUERY_SURVEY:
        return volume_listing_survey(listing);
    case QUERY_MEASURE:
        return volume_listing_measure(listing);
    case QUERY_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
volume_listing_release(struct machine *machine)
{
    struct volume_listing *listing = container_of(machine, struct volume_listing, machine);

    round_free(&listing->round);
    free(listing->volumes);
    free(listing);
}

static const struct machine_ops VOLUME_LISTING_OPS = {
    .name = "volume list",
    .phase_names = PHASE_NAMES,
    .phase_count = QUERY_PHASE_COUNT,
    .failed_phase = QUERY_PHASE_COUNT,
    .phase = volume_listing_phase,
    .release = volume_listing_release,
};

void
manager_volume_query(struct manager *manager, struct volume_query *query)
{
    ASSERT_ON_REACTOR(manager->control);
    query->ret_count = 0;
    query->ret_volumes = NULL;
    if (query->name.pool[0] != '\0' && manager_find_pool(manager, query->name.pool) == NULL) {
        control_refuse(manager, &query->control, -ENOENT, "there is no pool `%s`",
                       query->name.pool);
        return;
    }
    struct volume_listing *listing = calloc(1, sizeof(*listing));
    ASSERT(listing != NULL);
    machine_init(&listing->machine, &VOLUME_LISTING_OPS, manager, &query->control);
    listing->query = query;
    machine_start(&listing->machine);
}

/* ---- pools ---- */

/* What one reactor has of one pool. */
struct pool_part {
    uint64_t used_grains;
    uint64_t dropped_grains; /* of them: free with the next commits */
    uint64_t free_grains;
    struct latency latency[VOLUME_OPERATION_COUNT];
};

struct pool_listing {
    struct machine machine;
    struct pool_query *query;
    struct round round;
    struct pool **pools;      /* row by row; NULL: not serving */
    struct pool_part *parts;  /* [row * reactor_count + reactor] */
    uint32_t reactor_count;
};

static uint64_t
dropped_grains(const struct volume *volume)
{
    return (volume->dropped.length_bytes + volume->seal.dropped.length_bytes) /
           sizeof(grain_address);
}

static enum machine_step
pool_listing_visit(struct round_stop *stop)
{
    struct pool_listing *listing = container_of(stop->round, struct pool_listing, round);

    for (uint32_t row = 0; row < listing->query->ret_count; row++) {
        const struct pool *pool = listing->pools[row];
        struct pool_part *part = &listing->parts[row * listing->reactor_count + stop->index];
        if (pool == NULL) {
            continue;
        }
        const struct shard *shard = pool->shards[stop->index];
        part->free_grains = shard->shared_source.free_grains;
        part->used_grains = shard->shared_source.used_grains;
        memcpy(part->latency, shard->latency, sizeof(part->latency));
        list_for_each(&shard->volumes, link) {
            const struct volume *volume = list_entry(link, struct volume, shard_link);
            part->used_grains += volume->source.used_grains;
            part->dropped_grains += dropped_grains(volume);
            part->free_grains += volume->source.free_grains;
        }
    }
    return MACHINE_NEXT;
}

static void
disk_report_fill(const struct pool *pool, const struct disk *disk, struct disk_report *report)
{
    report->index = disk->record.index;
    report->tier = disk->record.tier;
    report->state = disk->backend != NULL ? disk->record.state : DISK_STATE_MISSING;
    memcpy(report->guid, disk->record.guid, GUID_BYTES);
    report->size_bytes = disk->record.size_bytes;
    report->data_bytes = disk->record.slot_count * pool->record.extent_bytes;
    report->allocated_bytes =
        (disk->record.slot_count - disk->slots_free) * pool->record.extent_bytes;
    report->ledger = disk->record.ledger_length_bytes > 0;
    if (disk->backend != NULL) {
        snprintf(report->spec, sizeof(report->spec), "%s", disk->backend->spec);
        snprintf(report->type, sizeof(report->type), "%s", disk->backend->ops->type);
        report->block_bytes = disk->backend->properties.block_bytes;
        backend_get_statistics(disk->backend, &report->statistics);
    } else {
        disk_spec_without_secrets(disk->record.spec, report->spec, sizeof(report->spec));
        snprintf(report->type, sizeof(report->type), "missing");
    }
}

static void
pool_report_fill(const struct pool *pool, struct pool_report *report)
{
    snprintf(report->name, sizeof(report->name), "%s", pool->name);
    memcpy(report->guid, pool->record.pool_guid, GUID_BYTES);
    report->state = pool->state;
    snprintf(report->reason, sizeof(report->reason), "%s", pool->reason);
    report->extent_bytes = pool->record.extent_bytes;
    report->warning_percent = pool->record.warning_percent;
    report->critical_percent = pool->record.critical_percent;
    report->commit = pool->committer.commit;
    report->incarnation = pool->record.incarnation;
    report->disks = calloc(MAX(pool->disk_count, 1u), sizeof(*report->disks));
    ASSERT(report->disks != NULL);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        if (pool->disks[i] != NULL) {
            struct disk_report *disk = &report->disks[report->disk_count++];
            disk_report_fill(pool, pool->disks[i], disk);
            report->size_bytes += disk->data_bytes;
            report->allocated_bytes += disk->allocated_bytes;
        }
    }
    if (!pool_is_serving(pool)) {
        return;
    }
    report->volume_count = pool->volume_count;
    report->taken_percent = pool_taken_percent(pool);
    report->metadata_bytes = pool->store->ops->size_bytes(pool->store);
    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (!volume->durable.deleting) {
            report->provisioned_bytes += volume->durable.size_bytes;
            report->reserved_bytes += volume->durable.reserve_bytes;
        }
    }
}

static enum machine_step
pool_listing_ask(struct pool_listing *listing)
{
    struct manager *manager = listing->machine.manager;
    struct pool_query *query = listing->query;
    uint32_t room = 0;

    list_for_each(&manager->pools, link) {
        room++;
    }
    query->ret_pools = calloc(MAX(room, 1u), sizeof(*query->ret_pools));
    listing->pools = calloc(MAX(room, 1u), sizeof(*listing->pools));
    listing->parts = calloc(MAX(room * listing->reactor_count, 1u), sizeof(*listing->parts));
    ASSERT(query->ret_pools != NULL && listing->pools != NULL && listing->parts != NULL);
    list_for_each(&manager->pools, link) {
        struct pool *pool = list_entry(link, struct pool, link);
        if (!name_is_wanted(query->name, pool->name)) {
            continue;
        }
        pool_report_fill(pool, &query->ret_pools[query->ret_count]);
        listing->pools[query->ret_count++] = pool_is_serving(pool) ? pool : NULL;
    }
    round_all(&listing->machine, &listing->round, pool_listing_visit);
    return machine_wait(&listing->machine);
}

static void
add_latency(struct latency *to, const struct latency *from)
{
    for (uint32_t operation = 0; operation < VOLUME_OPERATION_COUNT; operation++) {
        for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
            to[operation].counts[i] += from[operation].counts[i];
        }
        to[operation].total_ns += from[operation].total_ns;
    }
}

static enum machine_step
pool_listing_collect(struct pool_listing *listing)
{
    struct pool_query *query = listing->query;

    for (uint32_t row = 0; row < query->ret_count; row++) {
        struct pool_report *report = &query->ret_pools[row];
        uint64_t dropped_bytes = 0;
        for (uint32_t i = 0; i < listing->reactor_count; i++) {
            const struct pool_part *part = &listing->parts[row * listing->reactor_count + i];
            report->used_bytes += part->used_grains * GRAIN_BYTES;
            report->trapped_bytes += part->free_grains * GRAIN_BYTES;
            dropped_bytes += part->dropped_grains * GRAIN_BYTES;
            add_latency(report->latency, part->latency);
        }
        report->used_bytes -= MIN(report->used_bytes, dropped_bytes);
    }
    return MACHINE_NEXT;
}

static enum machine_step
pool_listing_phase(struct machine *machine, uint32_t phase)
{
    struct pool_listing *listing = container_of(machine, struct pool_listing, machine);

    return phase == QUERY_ASK ? pool_listing_ask(listing) : pool_listing_collect(listing);
}

static void
pool_listing_release(struct machine *machine)
{
    struct pool_listing *listing = container_of(machine, struct pool_listing, machine);

    round_free(&listing->round);
    free(listing->pools);
    free(listing->parts);
    free(listing);
}

static const struct machine_ops POOL_LISTING_OPS = {
    .name = "pool list",
    .phase_names = PHASE_NAMES,
    .phase_count = QUERY_SURVEY,
    .failed_phase = QUERY_SURVEY,
    .phase = pool_listing_phase,
    .release = pool_listing_release,
};

void
manager_pool_query(struct manager *manager, struct pool_query *query)
{
    ASSERT_ON_REACTOR(manager->control);
    query->ret_count = 0;
    query->ret_pools = NULL;
    if (query->name[0] != '\0' && manager_find_pool(manager, query->name) == NULL) {
        control_refuse(manager, &query->control, -ENOENT, "there is no pool `%s`", query->name);
        return;
    }
    struct pool_listing *listing = calloc(1, sizeof(*listing));
    ASSERT(listing != NULL);
    machine_init(&listing->machine, &POOL_LISTING_OPS, manager, &query->control);
    listing->query = query;
    listing->reactor_count = manager->options.reactor_count;
    machine_start(&listing->machine);
}

void
pool_query_free(struct pool_query *query)
{
    for (uint32_t i = 0; i < query->ret_count; i++) {
        free(query->ret_pools[i].disks);
    }
    free(query->ret_pools);
    query->ret_pools = NULL;
    query->ret_count = 0;
}
