/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/check.h"
#include "metadata/schema.h"
#include "volmgr/core_impl.h"

/* ---- stores ---- */

static int
open_store(void *context, const char *pool_name, bool create, struct store **ret_store,
           struct error *error)
{
    struct world *world = context;
    return store_sim_open(world->sim, pool_name, create, schema_merge, ret_store, error);
}

static int
remove_store(void *context, const char *pool_name, struct error *error)
{
    struct world *world = context;
    (void)error;
    sim_store_set_damaged(world->sim, pool_name, false);
    sim_store_lose(world->sim, pool_name);
    return 0;
}

static int
list_pools(void *context, struct byte_buffer *ret_names, struct error *error)
{
    struct world *world = context;
    (void)error;
    if (sim_store_exists(world->sim, "p")) {
        byte_buffer_append(ret_names, "p", 2);
    }
    return 0;
}

/* ---- machine ---- */

static void
disk_path(uint32_t index, char path[static 32])
{
    snprintf(path, 32, "/sim/d%u", index);
}

static void
create_disk(struct world *world, uint32_t index, uint64_t size_bytes)
{
    char path[32];
    struct sim_disk_properties properties = {
        .size_bytes = size_bytes,
        .kind = world->options.disk_is_file[index] ? FILE_KIND_REGULAR : FILE_KIND_BLOCK_DEVICE,
        .logical_sector_bytes = world->options.disk_sector_bytes[index],
        .dirty = true,
    };

    disk_path(index, path);
    world->disks[index] = sim_disk_create(world->sim, path, &properties);
}

struct world *
world_create(const struct world_options *options, struct sim *sim)
{
    struct sim_options sim_options = { .seed = options->seed };
    struct world *world = calloc(1, sizeof(*world));

    ASSERT(world != NULL);
    world->options = *options;
    world->sim = sim != NULL ? sim : sim_create(&sim_options);
    list_init(&world->ios);
    for (uint32_t i = 0; i < WORLD_DISKS_MAX; i++) {
        char path[32];
        disk_path(i, path);
        world->disks[i] = sim_disk_find(world->sim, path);
        if (sim == NULL && i < options->disk_count) {
            create_disk(world, i, options->disk_bytes[i]);
        }
    }
    for (uint32_t i = 0; i < options->volume_count; i++) {
        world->sizes[i] = options->volume_bytes;
    }
    return world;
}

void
world_free(struct world *world)
{
    ASSERT(world->manager == NULL);
    ASSERT_OP(world->in_flight, ==, 0u);
    for (uint32_t i = 0; i < WORLD_VOLUMES_MAX; i++) {
        if (world->oracles[i] != NULL) {
            oracle_free(world->oracles[i]);
        }
    }
    sim_destroy(world->sim);
    free(world);
}

/* ---- calling the manager ---- */

/* Any control operation: each begins with its struct control. */
struct call {
    struct message message;
    struct world *world;
    void (*start)(struct call *call);
    bool done;
    union {
        struct control control;
        struct manager_start start;
        struct manager_shutdown shutdown;
        struct pool_create pool_create;
        struct pool_add pool_add;
        struct pool_import pool_import;
        struct pool_query pool_query;
        struct volume_create volume_create;
        struct volume_resize volume_resize;
        struct volume_set_reserve volume_set_reserve;
        struct volume_query volume_query;
        struct export_create export_create;
        struct export_lookup lookup;
    } u;
};

static void
control_done(struct io_op *op)
{
    struct control *control = container_of(op, struct control, op);
    container_of(control, struct call, u.control)->done = true;
}

static void
lookup_done(struct io_op *op)
{
    struct export_lookup *lookup = container_of(op, struct export_lookup, op);
    container_of(lookup, struct call, u.lookup)->done = true;
}

static void
call_deliver(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    call->start(call);
}

static bool
call_is_done(void *context)
{
    return ((struct call *)context)->done;
}

/* Start it on the control reactor and run until it is done. */
static int
call_run(struct world *world, struct call *call, void (*start)(struct call *call))
{
    call->world = world;
    call->start = start;
    call->done = false;
    call->message = (struct message){ 0 };
    call->u.control.op.done = control_done;
    sim_process_enter(world->sim);
    reactor_send(world->reactors[0], &call->message, call_deliver);
    sim_process_leave(world->sim);
    int result = sim_run_until(world->sim, call_is_done, call, WORLD_WAIT_S * NS_PER_S);
    if (result < 0) {
        return result;
    }
    result = call->u.control.op.result;
    if (result < 0) {
        memcpy(world->last_error, call->u.control.error.message, sizeof(world->last_error));
    }
    return result;
}

static void
start_manager(struct call *call)
{
    manager_start(call->world->manager, &call->u.start);
}

static void
start_shutdown(struct call *call)
{
    for (uint32_t i = 0; i < WORLD_VOLUMES_MAX; i++) {
        if (call->world->volumes[i] != NULL) {
            manager_export_release(call->world->manager, call->world->volumes[i]);
            call->world->volumes[i] = NULL;
        }
    }
    manager_shutdown(call->world->manager, &call->u.shutdown);
}

static void
start_pool_create(struct call *call)
{
    manager_pool_create(call->world->manager, &call->u.pool_create);
}

static void
start_pool_add(struct call *call)
{
    manager_pool_add(call->world->manager, &call->u.pool_add);
}

static void
start_pool_import(struct call *call)
{
    manager_pool_import(call->world->manager, &call->u.pool_import);
}

static void
start_pool_query(struct call *call)
{
    manager_pool_query(call->world->manager, &call->u.pool_query);
}

static void
start_volume_create(struct call *call)
{
    manager_volume_create(call->world->manager, &call->u.volume_create);
}

static void
start_volume_resize(struct call *call)
{
    manager_volume_resize(call->world->manager, &call->u.volume_resize);
}

static void
start_volume_set_reserve(struct call *call)
{
    manager_volume_set_reserve(call->world->manager, &call->u.volume_set_reserve);
}

static void
start_volume_query(struct call *call)
{
    manager_volume_query(call->world->manager, &call->u.volume_query);
}

static void
start_export_create(struct call *call)
{
    manager_export_create(call->world->manager, &call->u.export_create);
}

static void
start_lookup(struct call *call)
{
    call->u.lookup.op.done = lookup_done;
    manager_export_lookup(call->world->manager, &call->u.lookup);
}

/* ---- life of the process ---- */

static struct call *
call_new(void)
{
    struct call *call = calloc(1, sizeof(*call));
    ASSERT(call != NULL);
    return call;
}

static int
process_start(struct world *world)
{
    struct manager_options options;
    struct error error = { 0 };
    int result = 0;

    ASSERT(world->manager == NULL);
    for (uint32_t i = 0; i < world->options.reactor_count && result == 0; i++) {
        struct reactor_options reactor_options = { .id = i, .cpu = -1 };
        result = reactor_create(sim_platform(world->sim), &reactor_options, &world->reactors[i],
                                &error);
    }
    manager_options_default(&options);
    options.platform = sim_platform(world->sim);
    options.reactors = world->reactors;
    options.reactor_count = world->options.reactor_count;
    options.offload_threads = 0;
    options.disk_search = NULL;
    options.store_open = open_store;
    options.store_remove = remove_store;
    options.pool_list = list_pools;
    options.store_context = world;
    options.accept_loss = world->options.accept_loss;
    options.map_cache_bytes = world->options.map_cache_bytes;
    options.journal_bytes = world->options.journal_bytes;
    if (world->options.disk_timeout_ns != 0) {
        options.disk_timeout_ns = world->options.disk_timeout_ns;
    }
    if (world->options.request_timeout_ns != 0) {
        options.request_timeout_ns = world->options.request_timeout_ns;
    }
    if (result == 0) {
        result = manager_create(&options, &world->manager, &error);
    }
    if (result < 0) {
        memcpy(world->last_error, error.message, sizeof(world->last_error));
    }
    return result;
}

int
world_boot(struct world *world)
{
    sim_process_enter(world->sim);
    int result = process_start(world);
    sim_process_leave(world->sim);
    if (result < 0) {
        return result;
    }
    struct call *call = call_new();
    result = call_run(world, call, start_manager);
    free(call);
    return result;
}

static void
process_is_gone(struct world *world)
{
    world->manager = NULL;
    memset(world->reactors, 0, sizeof(world->reactors));
    memset(world->volumes, 0, sizeof(world->volumes));
}

int
world_shutdown(struct world *world)
{
    struct call *call = call_new();
    int result = call_run(world, call, start_shutdown);
    free(call);
    if (result < 0) {
        return result; /* the caller kills what is left */
    }
    sim_process_enter(world->sim);
    manager_destroy(world->manager);
    for (uint32_t i = 0; i < world->options.reactor_count; i++) {
        reactor_destroy(world->reactors[i]);
    }
    sim_process_leave(world->sim);
    process_is_gone(world);
    return result;
}

static void
tell_oracles(struct world *world, bool power_cut)
{
    for (uint32_t i = 0; i < WORLD_VOLUMES_MAX; i++) {
        if (world->oracles[i] != NULL) {
            oracle_died(world->oracles[i], power_cut);
        }
    }
}

void
world_kill(struct world *world)
{
    sim_kill(world->sim);
    sim_quiesce(world->sim, 60 * NS_PER_S); /* the dead process's last operations */
    process_is_gone(world);
    world_abandon_ios(world);
    tell_oracles(world, false);
}

void
world_power_cut(struct world *world, const struct sim_cut *cut)
{
    sim_power_cut(world->sim, cut);
    process_is_gone(world);
    world_abandon_ios(world);
    tell_oracles(world, true);
}

/* ---- objects ---- */

static int
format_pool(struct world *world)
{
    struct call *call = call_new();
    struct disk_argument disks[WORLD_DISKS_MAX] = { 0 };
    struct pool_create *create = &call->u.pool_create;

    for (uint32_t i = 0; i < world->options.disk_count; i++) {
        disk_path(i, disks[i].spec);
        disks[i].tier = world->options.disk_tier[i];
    }
    snprintf(create->name, sizeof(create->name), "p");
    create->extent_bytes = world->options.extent_bytes;
    create->disk_count = world->options.disk_count;
    create->disks = disks;
    create->force = true;
    int result = call_run(world, call, start_pool_create);
    free(call);
    return result;
}

static int
format_volume(struct world *world, uint32_t index)
{
    struct call *call = call_new();
    struct volume_create *create = &call->u.volume_create;

    snprintf(create->name.pool, sizeof(create->name.pool), "p");
    snprintf(create->name.volume, sizeof(create->name.volume), "v%u", index);
    create->size_bytes = world->options.volume_bytes;
    create->reserve_bytes = world->options.reserve_bytes[index];
    create->tier = VOLUME_TIER_AUTO;
    if (world->options.volume_by_tier) {
        create->tier = (uint8_t)index;
    } else if (world->options.volume_tier[index] != 0) {
        create->tier = world->options.volume_tier[index];
    }
    int result = call_run(world, call, start_volume_create);
    if (result == 0) {
        memset(&call->u, 0, sizeof(call->u));
        struct export_create *export = &call->u.export_create;
        snprintf(export->name.pool, sizeof(export->name.pool), "p");
        snprintf(export->name.volume, sizeof(export->name.volume), "v%u", index);
        snprintf(export->record.protocol, sizeof(export->record.protocol), "nbd");
        result = call_run(world, call, start_export_create);
    }
    free(call);
    return result;
}

int
world_format(struct world *world)
{
    int result = format_pool(world);

    for (uint32_t i = 0; i < world->options.volume_count && result == 0; i++) {
        result = format_volume(world, i);
        world->oracles[i] = oracle_create(i, MAX(world->options.volume_bytes_max,
                                                 world->options.volume_bytes));
    }
    return result;
}

int
world_attach(struct world *world)
{
    int result = 0;

    for (uint32_t i = 0; i < world->options.volume_count && result == 0; i++) {
        struct call *call = call_new();
        snprintf(call->u.lookup.protocol, sizeof(call->u.lookup.protocol), "nbd");
        snprintf(call->u.lookup.name, sizeof(call->u.lookup.name), "p/v%u", i);
        call->world = world;
        call->start = start_lookup;
        sim_process_enter(world->sim);
        reactor_send(world->reactors[0], &call->message, call_deliver);
        sim_process_leave(world->sim);
        result = sim_run_until(world->sim, call_is_done, call, WORLD_WAIT_S * NS_PER_S);
        if (result == 0) {
            result = call->u.lookup.op.result;
            world->volumes[i] = call->u.lookup.ret_volume;
        }
        free(call);
    }
    return result;
}

static void
name_volume(struct volume_name *ret_name, uint32_t volume)
{
    snprintf(ret_name->pool, sizeof(ret_name->pool), "p");
    snprintf(ret_name->volume, sizeof(ret_name->volume), "v%u", volume);
}

int
world_resize(struct world *world, uint32_t volume, uint64_t size_bytes)
{
    struct call *call = call_new();
    uint64_t before_bytes = world->sizes[volume];

    ASSERT(size_bytes >= before_bytes || world->in_flight == 0);
    name_volume(&call->u.volume_resize.name, volume);
    call->u.volume_resize.size_bytes = size_bytes;
    world->sizes_asked[volume] = size_bytes;
    world_note_resize_sent(world, volume, size_bytes);
    int result = call_run(world, call, start_volume_resize);
    free(call);
    if (result == -ECANCELED) {
        return result; /* the process is dead; nobody knows */
    }
    world_note_resize_answered(world, volume, result == 0);
    world->sizes_asked[volume] = 0;
    world->statistics.resizes_refused += result < 0;
    if (result == 0) {
        oracle_cut_off(world->oracles[volume], MIN(size_bytes, before_bytes));
        world->sizes[volume] = size_bytes;
        world->statistics.grown += size_bytes > before_bytes;
        world->statistics.shrunk += size_bytes < before_bytes;
    }
    return result;
}

int
world_set_reserve(struct world *world, uint32_t volume, uint64_t reserve_bytes)
{
    struct call *call = call_new();

    name_volume(&call->u.volume_set_reserve.name, volume);
    call->u.volume_set_reserve.reserve_bytes = reserve_bytes;
    int result = call_run(world, call, start_volume_set_reserve);
    free(call);
    return result;
}

int
world_add_disk(struct world *world, uint32_t index, uint64_t size_bytes)
{
    struct call *call = call_new();
    struct disk_argument disk = { 0 };

    create_disk(world, index, size_bytes);
    disk_path(index, disk.spec);
    snprintf(call->u.pool_add.name, sizeof(call->u.pool_add.name), "p");
    call->u.pool_add.force = true;
    call->u.pool_add.disk_count = 1;
    call->u.pool_add.disks = &disk;
    int result = call_run(world, call, start_pool_add);
    free(call);
    world->statistics.disks_added += result == 0;
    return result;
}

int
world_import(struct world *world, uint32_t disk_count, bool force)
{
    struct call *call = call_new();
    struct disk_argument disks[WORLD_DISKS_MAX] = { 0 };

    call->u.pool_import.disks = disks;
    call->u.pool_import.force = force;
    for (uint32_t i = 0; i < disk_count; i++) {
        struct disk_argument *disk = &disks[call->u.pool_import.disk_count];
        disk_path(i, disk->spec);
        call->u.pool_import.disk_count += sim_disk_find(world->sim, disk->spec) != NULL;
    }
    int result = call_run(world, call, start_pool_import);
    free(call);
    return result;
}

int
world_query_pool(struct world *world, struct pool_report *ret_report)
{
    struct call *call = call_new();

    snprintf(call->u.pool_query.name, sizeof(call->u.pool_query.name), "p");
    int result = call_run(world, call, start_pool_query);
    if (result == 0) {
        *ret_report = call->u.pool_query.ret_pools[0];
        ret_report->disks = NULL;
        sim_process_enter(world->sim);
        pool_query_free(&call->u.pool_query);
        sim_process_leave(world->sim);
    }
    free(call);
    return result;
}

bool
world_serves(struct world *world)
{
    struct pool_report report;

    return world_query_pool(world, &report) == 0 && report.state < POOL_STATE_OPENING;
}

int
world_query_volume(struct world *world, uint32_t volume, struct volume_report *ret_report)
{
    struct call *call = call_new();

    name_volume(&call->u.volume_query.name, volume);
    int result = call_run(world, call, start_volume_query);
    if (result == 0) {
        ASSERT_OP(call->u.volume_query.ret_count, ==, 1u);
        *ret_report = call->u.volume_query.ret_volumes[0];
        sim_process_enter(world->sim);
        free(call->u.volume_query.ret_volumes);
        sim_process_leave(world->sim);
    }
    free(call);
    return result;
}

/* ---- the checker ---- */

struct checking {
    struct message message;
    struct world *world;
    struct store *store;
    struct store_snapshot snapshot;
    struct metadata_check check;
    uint32_t findings;
    int result;
    bool done;
};

static void
check_finding(struct metadata_check *check, const struct check_finding *finding)
{
    struct checking *checking = container_of(check, struct checking, check);

    if (checking->findings++ < 8) {
        fprintf(stderr, "check: %s: %s\n", check_code_name(finding->code), finding->text);
    }
}

static void
check_released(struct io_op *op)
{
    struct store_snapshot *snapshot = container_of(op, struct store_snapshot, op);
    container_of(snapshot, struct checking, snapshot)->done = true;
}

static void
check_done(struct io_op *op)
{
    struct metadata_check *check = container_of(op, struct metadata_check, op);
    struct checking *checking = container_of(check, struct checking, check);

    checking->result = op->result;
    checking->snapshot.op.done = check_released;
    store_snapshot_release(checking->store, &checking->snapshot);
}

static void
check_snapshot_made(struct io_op *op)
{
    struct store_snapshot *snapshot = container_of(op, struct store_snapshot, op);
    struct checking *checking = container_of(snapshot, struct checking, snapshot);

    ASSERT_OP(op->result, ==, 0);
    checking->check.op.done = check_done;
    checking->check.store = checking->store;
    checking->check.snapshot = &checking->snapshot;
    checking->check.finding = check_finding;
    metadata_check(&checking->check);
}

static void
check_deliver(struct message *message)
{
    struct checking *checking = container_of(message, struct checking, message);

    checking->store = checking->world->volumes[0]->pool->store;
    checking->snapshot.op.done = check_snapshot_made;
    store_snapshot_create(checking->store, &checking->snapshot);
}

static bool
check_is_done(void *context)
{
    return ((struct checking *)context)->done;
}

/* What the volumes and the pool say that is used, against the maps. */
static int
check_space(struct world *world)
{
    struct pool_report pool;
    uint64_t all_grains = 0;
    int result = 0;

    for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
        struct volume_report report;
        uint64_t count = div_round_up(world->sizes[v], GRAIN_BYTES);
        uint64_t grains = 0;
        uint8_t *used = calloc(count, 1);
        ASSERT(used != NULL);
        result = world_allocated(world, v, GRAIN_BYTES, used);
        for (uint64_t i = 0; i < count; i++) {
            grains += used[i];
        }
        free(used);
        result = result < 0 ? result : world_query_volume(world, v, &report);
        if (result == 0 && report.mapped_bytes != grains * GRAIN_BYTES) {
            fprintf(stderr, "volume %u says that it uses %llu bytes, its map says %llu\n", v,
                    (unsigned long long)report.mapped_bytes,
                    (unsigned long long)(grains * GRAIN_BYTES));
            result = -EUCLEAN;
        }
        all_grains += grains;
    }
    result = result < 0 ? result : world_query_pool(world, &pool);
    if (result == 0 && pool.used_bytes != all_grains * GRAIN_BYTES) {
        fprintf(stderr, "the pool says that %llu bytes are used, its volumes say %llu\n",
                (unsigned long long)pool.used_bytes,
                (unsigned long long)(all_grains * GRAIN_BYTES));
        result = -EUCLEAN;
    }
    return result;
}

int
world_check(struct world *world)
{
    struct checking *checking = calloc(1, sizeof(*checking));

    ASSERT(checking != NULL);
    checking->world = world;
    sim_process_enter(world->sim);
    reactor_send(world->reactors[0], &checking->message, check_deliver);
    sim_process_leave(world->sim);
    int result = sim_run_until(world->sim, check_is_done, checking, WORLD_WAIT_S * NS_PER_S);
    result = result < 0 ? result : checking->result;
    if (result == 0 && checking->findings > 0) {
        result = -EUCLEAN;
    }
    free(checking);
    return result < 0 ? result : check_space(world);
}

uint64_t
world_cache_bytes(const struct world *world, uint32_t volume)
{
    return world->volumes[volume]->shard->cache.bytes;
}
