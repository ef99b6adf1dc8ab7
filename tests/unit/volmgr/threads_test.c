/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manager on real threads, files and RocksDB: hosts that attach, write and leave on every
 * reactor, while volumes are made, resized, renamed, looked at and deleted. For the thread
 * sanitizer above all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "io/platform.h"
#include "volmgr/manager.h"

enum {
    REACTORS = 3,
    VOLUMES = 6,
    ROUNDS = 12,
    BLOCK = 4096,
};

/* RocksDB comes without instrumentation: the sanitizer sees its memory, and not its locks. */
const char *__tsan_default_suppressions(void);
const char *
__tsan_default_suppressions(void)
{
    return "called_from_lib:librocksdb.so\n";
}

struct rig {
    char directory[64];
    char volatile_directory[64];
    struct platform *platform;
    struct reactor *reactors[REACTORS];
    struct manager *manager;
};

/* ---- the daemon's part ---- */

static void
store_path(const struct rig *rig, const char *name, char path[static 256])
{
    snprintf(path, 256, "%s/pools/%s", rig->directory, name);
}

static int
open_store(void *context, const char *pool_name, bool create, struct store **ret_store,
           struct error *error)
{
    char path[256];
    struct store_rocksdb_options options = {
        .directory = path, .create = create, .cache_bytes = 8 * MIB, .merge = schema_merge,
    };
    store_path(context, pool_name, path);
    return store_rocksdb_open(&options, ret_store, error);
}

static int
remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int
remove_store(void *context, const char *pool_name, struct error *error)
{
    char path[256];
    (void)error;
    store_path(context, pool_name, path);
    return nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static int
list_pools(void *context, struct byte_buffer *ret_names, struct error *error)
{
    const struct rig *rig = context;
    char path[256];

    snprintf(path, sizeof(path), "%s/pools", rig->directory);
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return error_set(error, -errno, "cannot list %s", path);
    }
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] != '.') {
            byte_buffer_append(ret_names, entry->d_name, strlen(entry->d_name) + 1);
        }
    }
    closedir(directory);
    return 0;
}

/* ---- calling reactors from the test's thread ---- */

struct call {
    struct message message;
    void (*function)(struct call *call);
    struct rig *rig;
    void *argument;
    bool done; /* atomic */
};

static void
call_deliver(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    call->function(call);
}

static void
call_end(struct call *call)
{
    __atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
}

static void
call_run(struct call *call, struct reactor *reactor)
{
    reactor_send(reactor, &call->message, call_deliver);
    while (!__atomic_load_n(&call->done, __ATOMIC_ACQUIRE)) {
        usleep(50);
    }
}

/* Any control operation, found from its control by a link in front. */
#define OPERATION(name)                                                                            \
    struct name##_run {                                                                            \
        struct call call;                                                                          \
        struct name operation;                                                                     \
    };                                                                                             \
    static void name##_done(struct io_op *op)                                                      \
    {                                                                                              \
        struct control *control = container_of(op, struct control, op);                            \
        struct name *operation = container_of(control, struct name, control);                      \
        call_end(&container_of(operation, struct name##_run, operation)->call);                    \
    }                                                                                              \
    static void name##_start(struct call *call)                                                    \
    {                                                                                              \
        struct name##_run *run = container_of(call, struct name##_run, call);                      \
        run->operation.control.op.done = name##_done;                                              \
        manager_##name(call->rig->manager, &run->operation);                                       \
    }                                                                                              \
    static int do_##name(struct rig *rig, struct name##_run *run)                                  \
    {                                                                                              \
        run->call = (struct call){ .function = name##_start, .rig = rig };                         \
        call_run(&run->call, rig->reactors[0]);                                                    \
        if (run->operation.control.op.result < 0) {                                                \
            print_message("%s: %s\n", #name, run->operation.control.error.message);                \
        }                                                                                          \
        return run->operation.control.op.result;                                                   \
    }

OPERATION(pool_create)
OPERATION(pool_add)
OPERATION(pool_query)
OPERATION(volume_create)
OPERATION(volume_delete)
OPERATION(volume_resize)
OPERATION(volume_rename)
OPERATION(volume_query)
OPERATION(export_create)
OPERATION(export_delete)
OPERATION(session_query)
OPERATION(session_drop)
#define manager_manager_start    manager_start
#define manager_manager_shutdown manager_shutdown
OPERATION(manager_start)
OPERATION(manager_shutdown)

/* ---- life ---- */

static void
rig_start(struct rig *rig)
{
    struct manager_options options;
    struct error error = { 0 };

    assert_int_equal(platform_uring_create(rig->volatile_directory, &rig->platform, &error), 0);
    for (uint32_t i = 0; i < REACTORS; i++) {
        struct reactor_options reactor_options = { .id = i, .cpu = -1 };
        assert_int_equal(
            reactor_create(rig->platform, &reactor_options, &rig->reactors[i], &error), 0);
    }
    manager_options_default(&options);
    options.platform = rig->platform;
    options.reactors = rig->reactors;
    options.reactor_count = REACTORS;
    options.store_open = open_store;
    options.store_remove = remove_store;
    options.pool_list = list_pools;
    options.store_context = rig;
    options.journal_bytes = 1 * MIB;
    assert_int_equal(manager_create(&options, &rig->manager, &error), 0);
    for (uint32_t i = 0; i < REACTORS; i++) {
        assert_int_equal(reactor_start(rig->reactors[i], &error), 0);
    }
    struct manager_start_run start = { 0 };
    assert_int_equal(do_manager_start(rig, &start), 0);
}

static void
rig_stop(struct rig *rig)
{
    struct manager_shutdown_run shutdown = { 0 };

    assert_int_equal(do_manager_shutdown(rig, &shutdown), 0);
    for (uint32_t i = 0; i < REACTORS; i++) {
        reactor_stop(rig->reactors[i]);
        reactor_join(rig->reactors[i]);
    }
    manager_destroy(rig->manager);
    for (uint32_t i = 0; i < REACTORS; i++) {
        reactor_destroy(rig->reactors[i]);
    }
    platform_uring_destroy(rig->platform);
}

/* ---- a host: look up, attach, write, read, flush, detach; then again ---- */

struct host {
    struct message message;
    struct rig *rig;
    uint32_t number;
    uint32_t rounds_left;
    struct export_lookup lookup;
    struct volume *volume;
    struct volume_session session;
    struct volume_request request;
    struct iovec iov;
    uint8_t *memory;
    uint32_t step;
    bool dropped;
    bool ended; /* atomic */
};

static void
host_event(struct volume_session *session, enum volume_session_event event)
{
    if (event == VOLUME_SESSION_DROP) {
        container_of(session, struct host, session)->dropped = true;
    }
}

static void host_begin(struct message *message);
static void host_next(struct host *host);

static void
host_replied(struct volume_request *request)
{
    ASSERT(request->status == 0);
}

static void
host_released(struct volume_request *request)
{
    struct host *host = container_of(request, struct host, request);
    host->session.in_flight--;
    host_next(host);
}

static void
host_leave(struct host *host)
{
    volume_detach(&host->session);
    manager_export_release(host->rig->manager, host->volume);
    if (--host->rounds_left == 0) {
        __atomic_store_n(&host->ended, true, __ATOMIC_RELEASE);
        return;
    }
    /* The next look-up comes from another reactor. */
    reactor_send(host->rig->reactors[host->rounds_left % REACTORS], &host->message, host_begin);
}

static void
host_next(struct host *host)
{
    static const enum volume_operation operations[] = {
        VOLUME_WRITE, VOLUME_READ, VOLUME_FLUSH, VOLUME_DISCARD, VOLUME_WRITE,
    };
    struct volume_info info;

    volume_get_info(host->volume, &info);
    ASSERT(info.size_bytes >= 64 * MIB);
    if (host->step == ARRAY_SIZE(operations) || host->dropped) {
        host_leave(host);
        return;
    }
    enum volume_operation operation = operations[host->step++];
    volume_request_init(&host->request);
    host->request.operation = operation;
    host->request.offset_bytes = operation == VOLUME_FLUSH ? 0 : host->rounds_left * 64 * KIB;
    host->request.length_bytes = operation == VOLUME_FLUSH ? 0 : BLOCK;
    host->iov = (struct iovec){ .iov_base = host->memory, .iov_len = BLOCK };
    host->request.iov = &host->iov;
    host->request.iov_count = operation <= VOLUME_WRITE ? 1 : 0;
    host->request.reply = host_replied;
    host->request.release = host_released;
    host->session.in_flight++;
    volume_submit(host->volume, &host->request);
}

static void
host_attach(struct message *message)
{
    struct host *host = container_of(message, struct host, message);

    host->session = (struct volume_session){ .protocol = "nbd", .event = host_event };
    snprintf(host->session.peer, sizeof(host->session.peer), "tcp:10.0.0.%u:1", host->number);
    host->step = 0;
    host->dropped = false;
    int result = volume_attach(host->volume, &host->session);
    ASSERT(result == 0);
    host_next(host);
}

static void
host_looked_up(struct io_op *op)
{
    struct export_lookup *lookup = container_of(op, struct export_lookup, op);
    struct host *host = container_of(lookup, struct host, lookup);

    ASSERT(op->result == 0);
    host->volume = lookup->ret_volume;
    reactor_send(volume_reactor(host->volume), &host->message, host_attach);
}

static void
host_begin(struct message *message)
{
    struct host *host = container_of(message, struct host, message);

    memset(&host->lookup, 0, sizeof(host->lookup));
    snprintf(host->lookup.protocol, sizeof(host->lookup.protocol), "nbd");
    snprintf(host->lookup.name, sizeof(host->lookup.name), "p/v%u", host->number);
    host->lookup.op.done = host_looked_up;
    manager_export_lookup(host->rig->manager, &host->lookup);
}

/* ---- the test ---- */

static void
set_name(struct volume_name *name, const char *format, uint32_t number)
{
    snprintf(name->pool, sizeof(name->pool), "p");
    _Static_assert(sizeof(name->volume) > 16, "room");
    snprintf(name->volume, sizeof(name->volume), "%s%u", format, number);
}

static void
make_volume(struct rig *rig, const char *prefix, uint32_t number, bool exported)
{
    struct volume_create_run create = {
        .operation = { .size_bytes = 64 * MIB, .tier = VOLUME_TIER_AUTO },
    };
    set_name(&create.operation.name, prefix, number);
    assert_int_equal(do_volume_create(rig, &create), 0);
    if (exported) {
        struct export_create_run export = { .operation = { .record = { .protocol = "nbd" } } };
        set_name(&export.operation.name, prefix, number);
        assert_int_equal(do_export_create(rig, &export), 0);
    }
}

static void
look_at_everything(struct rig *rig)
{
    struct pool_query_run pools = { 0 };
    struct volume_query_run volumes = { 0 };
    struct session_query_run sessions = { 0 };

    assert_int_equal(do_pool_query(rig, &pools), 0);
    assert_int_equal(pools.operation.ret_count, 1);
    pool_query_free(&pools.operation);
    assert_int_equal(do_volume_query(rig, &volumes), 0);
    assert_true(volumes.operation.ret_count >= VOLUMES);
    free(volumes.operation.ret_volumes);
    assert_int_equal(do_session_query(rig, &sessions), 0);
    free(sessions.operation.ret_sessions);
}

static void
change_something(struct rig *rig, uint32_t round)
{
    struct volume_resize_run resize = { .operation = { .size_bytes = (65 + round) * MIB } };
    struct volume_rename_run rename = { 0 };
    struct volume_delete_run delete = { 0 };
    struct session_drop_run drop = { 0 };

    set_name(&resize.operation.name, "v", round % VOLUMES);
    assert_int_equal(do_volume_resize(rig, &resize), 0);
    make_volume(rig, "t", round, false);
    set_name(&rename.operation.name, "t", round);
    snprintf(rename.operation.new_name, sizeof(rename.operation.new_name), "r%u", round);
    assert_int_equal(do_volume_rename(rig, &rename), 0);
    set_name(&delete.operation.name, "r", round);
    assert_int_equal(do_volume_delete(rig, &delete), 0);
    snprintf(drop.operation.match, sizeof(drop.operation.match), "10.0.0.%u", round % VOLUMES);
    assert_int_equal(do_session_drop(rig, &drop), 0);
}

static void
run_hosts(struct rig *rig)
{
    struct host hosts[VOLUMES];

    memset(hosts, 0, sizeof(hosts));
    for (uint32_t i = 0; i < VOLUMES; i++) {
        hosts[i].rig = rig;
        hosts[i].number = i;
        hosts[i].rounds_left = 200;
        hosts[i].memory = aligned_alloc(BLOCK, BLOCK);
        memset(hosts[i].memory, (int)i, BLOCK);
        reactor_send(rig->reactors[i % REACTORS], &hosts[i].message, host_begin);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        look_at_everything(rig);
        change_something(rig, round);
    }
    for (uint32_t i = 0; i < VOLUMES; i++) {
        while (!__atomic_load_n(&hosts[i].ended, __ATOMIC_ACQUIRE)) {
            usleep(1000);
        }
        free(hosts[i].memory);
    }
}

static void
hosts_and_commands_at_the_same_time(void **state)
{
    struct rig *rig = *state;
    struct disk_argument disks[2] = { 0 };
    struct pool_create_run create = {
        .operation = { .name = "p", .disk_count = 2, .disks = disks, .extent_bytes = 1 * MIB },
    };
    struct disk_argument third = { 0 };
    struct pool_add_run add = { .operation = { .name = "p", .disk_count = 1, .disks = &third } };

    rig_start(rig);
    for (uint32_t i = 0; i < 2; i++) {
        snprintf(disks[i].spec, sizeof(disks[i].spec), "file:%s/d%u?size=128M", rig->directory, i);
    }
    assert_int_equal(do_pool_create(rig, &create), 0);
    for (uint32_t i = 0; i < VOLUMES; i++) {
        make_volume(rig, "v", i, true);
    }
    run_hosts(rig);
    snprintf(third.spec, sizeof(third.spec), "file:%s/d2?size=128M", rig->directory);
    assert_int_equal(do_pool_add(rig, &add), 0);
    rig_stop(rig);

    rig_start(rig);
    look_at_everything(rig);
    struct export_delete_run delete = { .operation = { .protocol = "nbd" } };
    set_name(&delete.operation.name, "v", 0);
    assert_int_equal(do_export_delete(rig, &delete), 0);
    rig_stop(rig);
}

static int
setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    char path[128];

    assert_non_null(rig);
    snprintf(rig->directory, sizeof(rig->directory), "/tmp/volmgr-threads-XXXXXX");
    snprintf(rig->volatile_directory, sizeof(rig->volatile_directory),
             "/dev/shm/volmgr-threads-XXXXXX");
    assert_non_null(mkdtemp(rig->directory));
    assert_non_null(mkdtemp(rig->volatile_directory));
    snprintf(path, sizeof(path), "%s/pools", rig->directory);
    assert_int_equal(mkdir(path, 0700), 0);
    *state = rig;
    return 0;
}

static int
teardown(void **state)
{
    struct rig *rig = *state;

    nftw(rig->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    nftw(rig->volatile_directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(rig);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hosts_and_commands_at_the_same_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
