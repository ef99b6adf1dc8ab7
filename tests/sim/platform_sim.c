/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated platform: clock, engines, files and volatile memory; platform_sim.h says more. */
#include "tests/sim/platform_sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"

enum {
    POLL_COST_NS = 50 /* so that a loop that polls without sleeping sees time go by */
};

/* ---- clock and randomness ---- */

static uint64_t
platform_sim_monotonic_ns(struct platform *platform)
{
    const struct sim *sim = sim_of(platform);
    return sim->now_ns - sim->boot_ns;
}

static uint64_t
platform_sim_realtime_ns(struct platform *platform)
{
    const struct sim *sim = sim_of(platform);
    return sim->now_ns + sim->realtime_offset_ns;
}

static uint64_t
platform_sim_random_u64(struct platform *platform)
{
    return random_u64(sim_stream(sim_of(platform), SIM_STREAM_PRODUCT));
}

static void
platform_sim_boot_id(struct platform *platform, char ret_text[static 37])
{
    const struct sim *sim = sim_of(platform);
    uint64_t high = hash_u64(sim->options.seed + sim->boot_count + 1);
    uint64_t low = hash_u64(high);
    snprintf(ret_text, 37, "%08x-%04x-4%03x-8%03x-%012llx", (uint32_t)(high >> 32),
             (uint32_t)(high >> 16) & 0xffff, (uint32_t)high & 0xfff, (uint32_t)(low >> 52),
             (unsigned long long)(low & UINT64_C(0xffffffffffff)));
}

/* ---- engines ---- */

static int
platform_sim_engine_open(struct platform *platform, struct reactor *reactor,
                         struct io_engine **ret_engine, struct error *error)
{
    (void)error;
    struct sim *sim = sim_of(platform);
    struct io_engine *engine = sim_allocate(sizeof(*engine));
    engine->sim = sim;
    engine->reactor = reactor;
    list_push_back(&sim->engines, &engine->link);
    *ret_engine = engine;
    return 0;
}

static void
platform_sim_engine_close(struct io_engine *engine)
{
    ASSERT(engine->due_first == NULL);
    list_remove(&engine->link);
    sim_release(engine);
}

void
sim_engine_take(struct io_engine *engine, struct io_op *op)
{
    ASSERT(op->done != NULL);
    op->reactor_id = reactor_id(engine->reactor);
}

void
sim_engine_complete(struct io_engine *engine, struct io_op *op, int32_t result)
{
    op->result = result;
    op->ready_next = NULL;
    if (engine->due_last != NULL) {
        engine->due_last->ready_next = op;
    } else {
        engine->due_first = op;
    }
    engine->due_last = op;
}

/*
 * A pass that waits (a blocking transfer of the control path) moves the clock itself: to the next
 * events, one after the other, until something is due here or its time is over.
 */
static void
wait_for_completion(struct io_engine *engine, uint64_t wait_ns)
{
    struct sim *sim = engine->sim;
    uint64_t until_ns = wait_ns > UINT64_MAX - sim->now_ns ? UINT64_MAX : sim->now_ns + wait_ns;

    while (engine->due_first == NULL && sim->now_ns < until_ns) {
        uint64_t next_ns = sim->stopped ? UINT64_MAX : sim_next_event_ns(sim);
        if (next_ns == UINT64_MAX && until_ns == UINT64_MAX) {
            assert_fail(__FILE__, __LINE__, __func__,
                        "a pass that waits without limit has something to wait for");
        }
        sim->now_ns = MAX(sim->now_ns, MIN(next_ns, until_ns));
        sim_fire_due(sim);
    }
}

static uint32_t
platform_sim_engine_poll(struct io_engine *engine, uint64_t wait_ns)
{
    ASSERT(engine->reactor == reactor_self());
    struct sim *sim = engine->sim;
    uint32_t count = 0;

    sim->now_ns += POLL_COST_NS;
    sim_fire_due(sim);
    if (wait_ns > 0) {
        wait_for_completion(engine, wait_ns);
    }
    while (engine->due_first != NULL) {
        struct io_op *op = engine->due_first;
        engine->due_first = op->ready_next;
        if (engine->due_first == NULL) {
            engine->due_last = NULL;
        }
        reactor_complete(op, op->result);
        count++;
    }
    return count;
}

static void
platform_sim_engine_wake(struct io_engine *engine)
{
    (void)engine; /* nobody sleeps: the simulator looks at reactor_has_work() */
}

static void
platform_sim_engine_register_memory(struct io_engine *engine, void *base, size_t length_bytes)
{
    (void)engine;
    (void)base;
    (void)length_bytes;
}

/* ---- files ---- */

static void
fill_properties(struct platform_file *file)
{
    const struct sim_disk_properties *from = &file->disk->properties;
    file->properties = (struct file_properties){
        .kind = from->kind,
        .size_bytes = from->size_bytes,
        .logical_sector_bytes = from->logical_sector_bytes,
        .physical_sector_bytes = from->physical_sector_bytes,
        .memory_alignment_bytes = from->memory_alignment_bytes,
        .discard_granularity_bytes = from->no_discard ? 0 : SIM_PAGE_BYTES,
        .direct = (file->flags & FILE_OPEN_DIRECT) != 0,
        .rotational = from->rotational,
        .write_cache = !from->write_through,
    };
}

static int
find_or_create(struct sim *sim, const char *path, uint32_t flags, uint64_t create_size_bytes,
               struct sim_disk **ret_disk, struct error *error)
{
    struct sim_disk *disk = sim_disk_find(sim, path);
    if (disk != NULL && disk->missing) {
        return error_set(error, -ENOENT, "%s is not there", path);
    }
    bool is_new = (flags & FILE_OPEN_CREATE) != 0 && (flags & FILE_OPEN_EXCLUSIVE_CREATE) != 0;
    if (disk != NULL && is_new) {
        return error_set(error, -EEXIST, "%s exists already", path);
    }
    if (disk == NULL && (flags & FILE_OPEN_CREATE) == 0) {
        return error_set(error, -ENOENT, "%s does not exist", path);
    }
    if (disk == NULL) {
        const struct sim_disk_properties properties = { .size_bytes = create_size_bytes };
        disk = sim_disk_create(sim, path, &properties);
    }
    *ret_disk = disk;
    return 0;
}

static int
platform_sim_file_open(struct platform *platform, const char *path, uint32_t flags,
                       uint64_t create_size_bytes, struct platform_file **ret_file,
                       struct error *error)
{
    struct sim *sim = sim_of(platform);
    struct sim_disk *disk = NULL;

    if (sim->stopped) {
        return error_set(error, -EIO, "the machine has stopped");
    }
    int result = find_or_create(sim, path, flags, create_size_bytes, &disk, error);
    if (result < 0) {
        return result;
    }
    if ((flags & FILE_OPEN_LOCK) != 0 && sim_disk_is_locked(disk)) {
        return error_set(error, -EBUSY, "%s is in use by %s", path,
                         disk->locked_by != NULL ? "another opener" : "a process that is ending");
    }
    struct platform_file *file = sim_allocate(sizeof(*file));
    file->disk = disk;
    file->flags = flags;
    fill_properties(file);
    if ((flags & FILE_OPEN_LOCK) != 0) {
        disk->locked_by = file;
    }
    list_push_back(&sim->files, &file->link);
    *ret_file = file;
    return 0;
}

static void
platform_sim_file_close(struct platform_file *file)
{
    ASSERT_OP(file->in_flight, ==, 0u);
    if (file->disk->locked_by == file) {
        file->disk->locked_by = NULL;
    }
    list_remove(&file->link);
    sim_release(file);
}

static const struct file_properties *
platform_sim_file_properties(struct platform_file *file)
{
    return &file->properties;
}

static int
platform_sim_file_refresh(struct platform_file *file)
{
    if (file->disk->missing) {
        return -ENOENT;
    }
    fill_properties(file);
    return 0;
}

/* ---- readiness of foreign descriptors: there are none here ---- */

static void
platform_sim_fd_poll(struct io_engine *engine, struct fd_poll *poll)
{
    sim_engine_take(engine, &poll->op);
    sim_engine_complete(engine, &poll->op, -EOPNOTSUPP);
}

static void
platform_sim_fd_poll_cancel(struct io_engine *engine, struct fd_poll *poll)
{
    (void)engine;
    (void)poll; /* its completion is under way already */
}

/* ---- volatile memory ---- */

static struct sim_volatile *
volatile_find(struct sim *sim, const char *name)
{
    list_for_each(&sim->volatiles, node) {
        struct sim_volatile *map = list_entry(node, struct sim_volatile, link);
        if (strcmp(map->name, name) == 0) {
            return map;
        }
    }
    return NULL;
}

static void
volatile_free(struct sim_volatile *map)
{
    list_remove(&map->link);
    sim_release(map->name);
    sim_release(map->memory);
    sim_release(map->frozen);
    sim_release(map);
}

static int
platform_sim_volatile_map(struct platform *platform, const char *name, size_t size_bytes,
                          void **ret_memory, bool *ret_existed, struct error *error)
{
    struct sim *sim = sim_of(platform);
    struct sim_volatile *map = volatile_find(sim, name);

    if (strchr(name, '/') != NULL || size_bytes == 0) {
        return error_set(error, -EINVAL, "%s is no name for volatile memory", name);
    }
    if (sim->stopped) {
        return error_set(error, -EIO, "the machine has stopped");
    }
    if (map != NULL && map->mapped) {
        return error_set(error, -EBUSY, "%s is mapped already", name);
    }
    if (map != NULL && map->size_bytes != size_bytes) {
        volatile_free(map);
        map = NULL;
    }
    bool existed = map != NULL;
    if (!existed) {
        map = sim_allocate(sizeof(*map));
        map->name = sim_copy_text(name);
        map->size_bytes = size_bytes;
        map->memory = sim_allocate_pages(size_bytes);
        list_push_back(&sim->volatiles, &map->link);
    }
    map->mapped = true;
    *ret_memory = map->memory;
    *ret_existed = existed;
    return 0;
}

static void
platform_sim_volatile_unmap(struct platform *platform, void *memory, size_t size_bytes)
{
    struct sim *sim = sim_of(platform);
    list_for_each(&sim->volatiles, node) {
        struct sim_volatile *map = list_entry(node, struct sim_volatile, link);
        if (map->memory == memory) {
            ASSERT(map->mapped);
            ASSERT_OP(map->size_bytes, ==, size_bytes);
            map->mapped = false;
            return;
        }
    }
    UNREACHABLE();
}

static int
platform_sim_volatile_remove(struct platform *platform, const char *name)
{
    struct sim *sim = sim_of(platform);
    struct sim_volatile *map = volatile_find(sim, name);
    if (map == NULL) {
        return -ENOENT;
    }
    if (map->mapped) {
        return -EBUSY;
    }
    if (sim->stopped) {
        return -EIO;
    }
    volatile_free(map);
    return 0;
}

const struct platform_ops platform_sim_ops = {
    .name = "simulated",
    .monotonic_ns = platform_sim_monotonic_ns,
    .realtime_ns = platform_sim_realtime_ns,
    .random_u64 = platform_sim_random_u64,
    .boot_id = platform_sim_boot_id,
    .engine_open = platform_sim_engine_open,
    .engine_close = platform_sim_engine_close,
    .engine_poll = platform_sim_engine_poll,
    .engine_wake = platform_sim_engine_wake,
    .engine_register_memory = platform_sim_engine_register_memory,
    .file_open = platform_sim_file_open,
    .file_close = platform_sim_file_close,
    .file_properties = platform_sim_file_properties,
    .file_refresh = platform_sim_file_refresh,
    .file_submit = sim_disk_submit,
    .socket_listen = sim_socket_listen,
    .socket_accept = sim_socket_accept,
    .socket_receive = sim_socket_receive,
    .socket_send = sim_socket_send,
    .socket_shutdown = sim_socket_shutdown,
    .socket_close = sim_socket_close,
    .fd_poll = platform_sim_fd_poll,
    .fd_poll_cancel = platform_sim_fd_poll_cancel,
    .volatile_map = platform_sim_volatile_map,
    .volatile_unmap = platform_sim_volatile_unmap,
    .volatile_remove = platform_sim_volatile_remove,
};
