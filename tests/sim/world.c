/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/schema.h"
#include "volmgr/core_impl.h"

enum {
    WAIT_S = 600, /* of virtual time */
    VERIFY_BYTES = 256 << 10,
};

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
        .kind = FILE_KIND_BLOCK_DEVICE,
        .logical_sector_bytes = world->options.disk_sector_bytes[index],
        .dirty = true,
    };

    disk_path(index, path);
    world->disks[index] = sim_disk_find(world->sim, path);
    if (world->disks[index] == NULL) {
        world->disks[index] = sim_disk_create(world->sim, path, &properties);
    }
}

struct world *
world_create(const struct world_options *options, struct sim *sim)
{
    struct world *world = calloc(1, sizeof(*world));

    ASSERT(world != NULL);
    world->options = *options;
    list_init(&world->ios);
    struct sim_options sim_options = { .seed = options->seed };
    world->sim = sim != NULL ? sim : sim_create(&sim_options);
    for (uint32_t i = 0; i < options->disk_count; i++) {
        create_disk(world, i, options->disk_bytes[i]);
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
        struct pool_query pool_query;
        struct volume_create volume_create;
        struct volume_resize volume_resize;
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
    int result = sim_run_until(world->sim, call_is_done, call, WAIT_S * NS_PER_S);
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

/* Requests that died with the process. */
static void
abandon_ios(struct world *world)
{
    list_for_each_safe(&world->ios, link) {
        struct world_io *io = list_entry(link, struct world_io, link);
        list_remove(link);
        world->in_flight--;
        if (io->keep) {
            io->released = true;
        } else {
            free(io->data);
            free(io);
        }
    }
    ASSERT_OP(world->in_flight, ==, 0u);
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
    abandon_ios(world);
    tell_oracles(world, false);
}

void
world_power_cut(struct world *world, const struct sim_cut *cut)
{
    sim_power_cut(world->sim, cut);
    process_is_gone(world);
    abandon_ios(world);
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
    create->tier = world->options.volume_by_tier ? (uint8_t)index : VOLUME_TIER_AUTO;
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
        world->oracles[i] = oracle_create(i, world->options.volume_bytes);
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
        result = sim_run_until(world->sim, call_is_done, call, WAIT_S * NS_PER_S);
        if (result == 0) {
            result = call->u.lookup.op.result;
            world->volumes[i] = call->u.lookup.ret_volume;
        }
        free(call);
    }
    return result;
}

int
world_resize(struct world *world, uint32_t volume, uint64_t size_bytes)
{
    struct call *call = call_new();

    snprintf(call->u.volume_resize.name.pool, sizeof(call->u.volume_resize.name.pool), "p");
    snprintf(call->u.volume_resize.name.volume, sizeof(call->u.volume_resize.name.volume), "v%u",
             volume);
    call->u.volume_resize.size_bytes = size_bytes;
    int result = call_run(world, call, start_volume_resize);
    free(call);
    if (result == 0) {
        world->sizes[volume] = size_bytes;
    }
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

uint64_t
world_cache_bytes(const struct world *world, uint32_t volume)
{
    return world->volumes[volume]->shard->cache.bytes;
}

/* ---- the record: what the oracles were told, and when ---- */

enum record_kind {
    RECORD_SUBMIT,
    RECORD_ANSWER,
    RECORD_FLUSH_SENT,
    RECORD_FLUSH_ANSWERED,
};

struct record_item {
    uint64_t event; /* of the simulator, when it was told */
    enum record_kind kind;
    uint32_t volume;
    uint64_t id; /* of the request */
    uint64_t offset_bytes;
    uint64_t length_bytes;
    bool zero;
    bool success;
    bool fua;
};

struct world_record {
    struct record_item *items;
    uint64_t count;
    uint64_t capacity;
    uint64_t first_event;
};

static void
record_add(struct world *world, const struct world_io *io, enum record_kind kind)
{
    struct world_record *record = world->record;

    if (record == NULL) {
        return;
    }
    if (record->count == record->capacity) {
        record->capacity = record->capacity == 0 ? 1024 : record->capacity * 2;
        record->items = realloc(record->items, record->capacity * sizeof(*record->items));
        ASSERT(record->items != NULL);
    }
    record->items[record->count++] = (struct record_item){
        .event = sim_event_count(world->sim) - record->first_event,
        .kind = kind,
        .volume = io->volume,
        .id = io->id,
        .offset_bytes = io->offset_bytes,
        .length_bytes = io->length_bytes,
        .zero = io->operation != VOLUME_WRITE,
        .success = io->status == 0,
        .fua = (io->flags & VOLUME_FUA) != 0,
    };
}

struct world_record *
world_record_start(struct world *world)
{
    ASSERT_OP(world->in_flight, ==, 0u);
    world->record = calloc(1, sizeof(*world->record));
    ASSERT(world->record != NULL);
    world->record->first_event = sim_event_count(world->sim);
    return world->record;
}

void
world_record_free(struct world_record *record)
{
    free(record->items);
    free(record);
}

struct world_replay {
    const struct world_record *record;
    uint64_t position;
    struct oracle *oracles[WORLD_VOLUMES_MAX];
    struct oracle_write **writes; /* by request id */
    uint64_t *tokens;
};

struct world_replay *
world_replay_start(const struct world_record *record, struct oracle *const *oracles)
{
    struct world_replay *replay = calloc(1, sizeof(*replay));
    uint64_t ids = 0;

    ASSERT(replay != NULL);
    replay->record = record;
    for (uint64_t i = 0; i < record->count; i++) {
        ids = MAX(ids, record->items[i].id + 1);
    }
    replay->writes = calloc(ids + 1, sizeof(*replay->writes));
    replay->tokens = calloc(ids + 1, sizeof(*replay->tokens));
    ASSERT(replay->writes != NULL && replay->tokens != NULL);
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        replay->oracles[v] = oracles[v] != NULL ? oracle_copy(oracles[v]) : NULL;
    }
    return replay;
}

void
world_replay_to(struct world_replay *replay, uint64_t event)
{
    static uint8_t unused[4 << 20];

    while (replay->position < replay->record->count &&
           replay->record->items[replay->position].event <= event) {
        const struct record_item *item = &replay->record->items[replay->position++];
        struct oracle *oracle = replay->oracles[item->volume];
        switch (item->kind) {
        case RECORD_SUBMIT:
            ASSERT_OP(item->length_bytes, <=, sizeof(unused));
            replay->writes[item->id] = oracle_submit(oracle, item->offset_bytes,
                                                     item->length_bytes,
                                                     item->zero ? NULL : unused);
            break;
        case RECORD_ANSWER:
            oracle_answered(oracle, replay->writes[item->id], item->success, item->fua);
            break;
        case RECORD_FLUSH_SENT:
            replay->tokens[item->id] = oracle_flush_sent(oracle);
            break;
        case RECORD_FLUSH_ANSWERED:
            oracle_flush_answered(oracle, replay->tokens[item->id]);
            break;
        }
    }
}

void
world_replay_oracles(const struct world_replay *replay, struct world *world)
{
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        if (replay->oracles[v] != NULL) {
            world->oracles[v] = oracle_copy(replay->oracles[v]);
            oracle_died(world->oracles[v], true);
        }
    }
}

void
world_replay_free(struct world_replay *replay)
{
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        if (replay->oracles[v] != NULL) {
            oracle_free(replay->oracles[v]);
        }
    }
    free(replay->writes);
    free(replay->tokens);
    free(replay);
}

/* ---- I/O ---- */

static void
io_send_deliver(struct message *message)
{
    struct world_io *io = container_of(message, struct world_io, message);
    struct oracle *oracle = io->world->oracles[io->volume];

    sim_outside_enter(io->world->sim);
    switch (io->operation) {
    case VOLUME_WRITE:
        io->write = oracle_submit(oracle, io->offset_bytes, io->length_bytes, io->data);
        break;
    case VOLUME_WRITE_ZEROES:
    case VOLUME_DISCARD:
        io->write = oracle_submit(oracle, io->offset_bytes, io->length_bytes, NULL);
        break;
    case VOLUME_FLUSH:
        io->token = oracle_flush_sent(oracle);
        break;
    default:
        io->token = oracle_now(oracle);
    }
    if (io->write != NULL || io->operation == VOLUME_FLUSH) {
        record_add(io->world, io, io->write != NULL ? RECORD_SUBMIT : RECORD_FLUSH_SENT);
    }
    sim_outside_leave(io->world->sim);
    volume_submit(io->world->volumes[io->volume], &io->request);
}

static void
io_replied(struct volume_request *request)
{
    struct world_io *io = container_of(request, struct world_io, request);
    struct oracle *oracle = io->world->oracles[io->volume];

    io->replied = true;
    io->status = request->status;
    if (sim_has_stopped(io->world->sim)) {
        return; /* the process is dead already: nobody has heard this answer */
    }
    sim_outside_enter(io->world->sim);
    if (io->write != NULL || (io->operation == VOLUME_FLUSH && io->status == 0)) {
        record_add(io->world, io, io->write != NULL ? RECORD_ANSWER : RECORD_FLUSH_ANSWERED);
    }
    if (io->write != NULL) {
        oracle_answered(oracle, io->write, io->status == 0, (io->flags & VOLUME_FUA) != 0);
        io->write = NULL;
    } else if (io->operation == VOLUME_FLUSH && io->status == 0) {
        oracle_flush_answered(oracle, io->token);
    } else if (io->operation == VOLUME_READ && io->status == 0 &&
               oracle_check_read(oracle, io->offset_bytes, io->length_bytes, io->data,
                                 io->token) < 0) {
        io->world->failed = true;
    }
    sim_outside_leave(io->world->sim);
}

/* For reads of the whole volume, which the caller checks. */
static void
io_replied_unchecked(struct volume_request *request)
{
    struct world_io *io = container_of(request, struct world_io, request);

    io->replied = true;
    io->status = request->status;
}

static void
io_released(struct volume_request *request)
{
    struct world_io *io = container_of(request, struct world_io, request);

    ASSERT(io->replied);
    list_remove(&io->link);
    io->world->in_flight--;
    io->released = true;
    if (!io->keep) {
        struct sim *sim = io->world->sim;
        sim_outside_enter(sim);
        free(io->data);
        free(io);
        sim_outside_leave(sim);
    }
}

struct world_io *
world_send(struct world *world, uint32_t volume, enum volume_operation operation,
           uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags, bool keep)
{
    struct world_io *io = calloc(1, sizeof(*io));

    ASSERT(io != NULL);
    io->world = world;
    io->id = world->next_id++;
    io->volume = volume;
    io->operation = operation;
    io->flags = flags;
    io->offset_bytes = offset_bytes;
    io->length_bytes = length_bytes;
    io->keep = keep;
    volume_request_init(&io->request);
    if (operation == VOLUME_READ || operation == VOLUME_WRITE) {
        io->data = aligned_alloc(4096, align_up(length_bytes, 4096));
        ASSERT(io->data != NULL);
        memset(io->data, 0xa5, length_bytes);
        io->iov = (struct iovec){ io->data, length_bytes };
        io->request.iov = &io->iov;
        io->request.iov_count = 1;
    }
    io->request.operation = operation;
    io->request.flags = flags;
    io->request.offset_bytes = offset_bytes;
    io->request.length_bytes = length_bytes;
    io->request.reply = io_replied;
    io->request.release = io_released;
    list_push_back(&world->ios, &io->link);
    world->in_flight++;
    sim_process_enter(world->sim);
    reactor_send(volume_reactor(world->volumes[volume]), &io->message, io_send_deliver);
    sim_process_leave(world->sim);
    return io;
}

void
world_io_free(struct world_io *io)
{
    ASSERT(io->keep && io->released);
    free(io->data);
    free(io);
}

static bool
nothing_in_flight(void *context)
{
    return ((struct world *)context)->in_flight == 0;
}

int
world_drain(struct world *world)
{
    return sim_run_until(world->sim, nothing_in_flight, world, WAIT_S * NS_PER_S);
}

static bool
io_is_released(void *context)
{
    return ((struct world_io *)context)->released;
}

int
world_do(struct world *world, uint32_t volume, enum volume_operation operation,
         uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags)
{
    struct world_io *io =
        world_send(world, volume, operation, offset_bytes, length_bytes, flags, true);
    int result = sim_run_until(world->sim, io_is_released, io, WAIT_S * NS_PER_S);
    if (result < 0) {
        return result; /* it goes with the process */
    }
    result = io->status;
    world_io_free(io);
    return result;
}

/* ---- verification ---- */

static int
verify(struct world *world, bool recovered)
{
    int result = 0;

    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        for (uint64_t at = 0; at < world->sizes[v]; at += VERIFY_BYTES) {
            uint64_t length = MIN((uint64_t)VERIFY_BYTES, world->sizes[v] - at);
            /* The oracle's own check is for running volumes; after a restart it may allow more. */
            struct oracle *oracle = world->oracles[v];
            struct world_io *io = world_send(world, v, VOLUME_READ, at, length, 0, true);
            io->token = 0;
            io->request.reply = io_replied_unchecked;
            int status = sim_run_until(world->sim, io_is_released, io, WAIT_S * NS_PER_S);
            if (status < 0) {
                return status;
            }
            status = io->status;
            if (status == 0) {
                status = recovered ? oracle_check_recovered(oracle, at, length, io->data)
                                   : oracle_check_read(oracle, at, length, io->data,
                                                       oracle_now(oracle));
            }
            result = status < 0 ? status : result;
            world_io_free(io);
        }
    }
    return result;
}

int
world_verify_recovered(struct world *world)
{
    return verify(world, true);
}

int
world_verify(struct world *world)
{
    return verify(world, false);
}
