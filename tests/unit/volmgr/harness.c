/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/check.h"
#include "metadata/label.h"
#include "tests/sim/sim_impl.h"

enum {
    WAIT_S = 600 /* of virtual time */
};

/* ---- what the manager asks the daemon for ---- */

static int
open_store(void *context, const char *pool_name, bool create, struct store **ret_store,
           struct error *error)
{
    struct bench *bench = context;
    int result =
        store_sim_open(bench->sim, pool_name, create, schema_merge, &bench->store, error);
    if (result == 0) {
        *ret_store = bench->store;
    }
    return result;
}

static int
remove_store(void *context, const char *pool_name, struct error *error)
{
    struct bench *bench = context;
    (void)error;
    sim_store_set_damaged(bench->sim, pool_name, false); /* the next one is not */
    sim_store_lose(bench->sim, pool_name);
    return 0;
}

static int
list_pools(void *context, struct byte_buffer *ret_names, struct error *error)
{
    struct bench *bench = context;

    (void)error;
    for (uint32_t i = 0; i < BENCH_POOLS_MAX; i++) {
        const char *name = bench->pool_names[i];
        if (name != NULL && sim_store_exists(bench->sim, name)) {
            byte_buffer_append(ret_names, name, strlen(name) + 1);
        }
    }
    return 0;
}

static void
search_disks(void *context, const char *missing_spec, struct byte_buffer *ret_specs)
{
    const struct bench *bench = context;

    ASSERT(missing_spec[0] != '\0');
    for (uint32_t i = 0; i < ARRAY_SIZE(bench->candidates); i++) {
        if (bench->candidates[i] != NULL) {
            byte_buffer_append(ret_specs, bench->candidates[i], strlen(bench->candidates[i]) + 1);
        }
    }
}

/* ---- running things on reactors ---- */

struct call {
    struct message message;
    void (*function)(void *argument);
    void *argument;
    bool done;
};

static void
call_deliver(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    call->function(call->argument);
    call->done = true;
}

static bool
flag_is_set(void *context)
{
    return *(const bool *)context;
}

int
bench_wait(struct bench *bench, const bool *flag)
{
    return sim_run_until(bench->sim, flag_is_set, (void *)(uintptr_t)flag, WAIT_S * NS_PER_S);
}

void
bench_run_on(struct bench *bench, struct reactor *reactor, void (*function)(void *argument),
             void *argument)
{
    struct call call = { .function = function, .argument = argument };

    sim_process_enter(bench->sim);
    reactor_send(reactor, &call.message, call_deliver);
    sim_process_leave(bench->sim);
    int result = bench_wait(bench, &call.done);
    ASSERT(result == 0 || result == -ECANCELED);
}

/* ---- control operations ---- */

/* Whom to tell that an operation has completed. */
struct pending {
    struct control *control;
    bool *done;
};
static struct pending pending_operations[16];

static void
operation_done(struct io_op *op)
{
    struct control *control = container_of(op, struct control, op);

    for (uint32_t i = 0; i < ARRAY_SIZE(pending_operations); i++) {
        if (pending_operations[i].control == control) {
            *pending_operations[i].done = true;
            pending_operations[i].control = NULL;
            return;
        }
    }
    UNREACHABLE();
}

static void
operation_prepare(struct control *control, bool *done)
{
    control->op = (struct io_op){ .done = operation_done };
    *done = false;
    for (uint32_t i = 0; i < ARRAY_SIZE(pending_operations); i++) {
        if (pending_operations[i].control == NULL) {
            pending_operations[i] = (struct pending){ control, done };
            return;
        }
    }
    UNREACHABLE();
}

/* The process is gone before it completed. */
static void
operation_forget(struct control *control)
{
    for (uint32_t i = 0; i < ARRAY_SIZE(pending_operations); i++) {
        if (pending_operations[i].control == control) {
            pending_operations[i].control = NULL;
        }
    }
}

#define BENCH_OPERATION(name)                                                                      \
    struct name##_call {                                                                           \
        struct bench *bench;                                                                       \
        struct name *operation;                                                                    \
    };                                                                                             \
    static void name##_begin(void *argument)                                                       \
    {                                                                                              \
        struct name##_call *call = argument;                                                       \
        manager_##name(call->bench->manager, call->operation);                                     \
    }                                                                                              \
    void bench_##name##_start(struct bench *bench, struct name *operation, bool *ret_done)         \
    {                                                                                              \
        struct name##_call call = { bench, operation };                                            \
        operation_prepare(&operation->control, ret_done);                                          \
        bench_run_on(bench, bench->reactors[0], name##_begin, &call);                              \
    }                                                                                              \
    int bench_##name(struct bench *bench, struct name *operation)                                  \
    {                                                                                              \
        bool done = false;                                                                         \
        bench_##name##_start(bench, operation, &done);                                             \
        int result = bench_wait(bench, &done);                                                     \
        if (result == -ECANCELED) {                                                                \
            operation_forget(&operation->control);                                                 \
            return result;                                                                         \
        }                                                                                          \
        ASSERT(result == 0);                                                                       \
        bench->error = operation->control.error;                                                   \
        return operation->control.op.result;                                                       \
    }

BENCH_OPERATIONS(BENCH_OPERATION)

struct commit_call {
    struct bench *bench;
    struct store_commit commit;
    bool done;
};

static void
commit_ended(struct io_op *op)
{
    struct commit_call *call = container_of(op, struct commit_call, commit.op);
    ASSERT_OP(op->result, ==, 0);
    call->done = true;
}

static void
commit_begin(void *argument)
{
    struct commit_call *call = argument;
    call->commit.op.done = commit_ended;
    call->commit.op.reactor_id = reactor_id(reactor_self());
    store_commit(call->bench->store, &call->commit);
}

void
bench_commit(struct bench *bench, const struct byte_buffer *batch)
{
    struct commit_call call = { .bench = bench, .commit = { .batch = batch, .sync = true } };

    bench_run_on(bench, bench->reactors[0], commit_begin, &call);
    int result = bench_wait(bench, &call.done);
    ASSERT(result == 0);
}

/* ---- life ---- */

struct bench *
bench_create(uint64_t seed, uint32_t reactor_count)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    struct sim_options options = { .seed = seed };

    ASSERT(bench != NULL);
    ASSERT_OP(reactor_count, <=, (uint32_t)BENCH_REACTORS_MAX);
    bench->sim = sim_create(&options);
    bench->reactor_count = reactor_count;
    bench->journal_bytes = 1 * MIB;
    bench->pool_names[0] = "p";
    return bench;
}

void
bench_free(struct bench *bench)
{
    ASSERT(bench->manager == NULL);
    sim_destroy(bench->sim);
    free(bench);
}

struct sim_disk *
bench_disk(struct bench *bench, const char *path, uint64_t size_bytes)
{
    struct sim_disk_properties properties = {
        .size_bytes = size_bytes,
        .kind = FILE_KIND_BLOCK_DEVICE,
    };
    return sim_disk_create(bench->sim, path, &properties);
}

struct life_call {
    struct bench *bench;
    struct manager_start start;
    struct manager_shutdown shutdown;
};

static void
start_begin(void *argument)
{
    struct life_call *call = argument;
    manager_start(call->bench->manager, &call->start);
}

static void
shutdown_begin(void *argument)
{
    struct life_call *call = argument;
    manager_shutdown(call->bench->manager, &call->shutdown);
}

static void
process_create(struct bench *bench)
{
    struct manager_options options;
    struct error error = { 0 };

    ASSERT(bench->manager == NULL);
    for (uint32_t i = 0; i < bench->reactor_count; i++) {
        struct reactor_options reactor_options = { .id = i, .cpu = -1 };
        int result = reactor_create(sim_platform(bench->sim), &reactor_options,
                                    &bench->reactors[i], &error);
        ASSERT(result == 0);
    }
    manager_options_default(&options);
    options.platform = sim_platform(bench->sim);
    options.reactors = bench->reactors;
    options.reactor_count = bench->reactor_count;
    options.offload_threads = 0;
    options.disk_search = search_disks;
    options.store_open = open_store;
    options.store_remove = remove_store;
    options.pool_list = list_pools;
    options.store_context = bench;
    options.journal_bytes = bench->journal_bytes;
    options.state_directory = bench->state_directory;
    options.accept_loss = bench->accept_loss;
    options.host_guid[0] = bench->host;
    int result = manager_create(&options, &bench->manager, &error);
    ASSERT(result == 0);
}

int
bench_boot_until_stopped(struct bench *bench)
{
    struct life_call life = { .bench = bench };
    struct call call = { .function = start_begin, .argument = &life };
    bool done = false;

    sim_process_enter(bench->sim);
    process_create(bench);
    operation_prepare(&life.start.control, &done);
    reactor_send(bench->reactors[0], &call.message, call_deliver);
    sim_process_leave(bench->sim);
    int result = bench_wait(bench, &done);
    if (result < 0) {
        ASSERT(result == -ECANCELED);
        operation_forget(&life.start.control);
        return result;
    }
    bench->error = life.start.control.error;
    return life.start.control.op.result;
}

int
bench_boot(struct bench *bench)
{
    int result = bench_boot_until_stopped(bench);
    ASSERT(result != -ECANCELED);
    return result;
}

void
bench_lose_volatile_memory(struct bench *bench)
{
    struct platform *platform = sim_platform(bench->sim);

    ASSERT(bench->manager == NULL);
    while (!list_empty(&bench->sim->volatiles)) {
        struct sim_volatile *memory =
            list_first(&bench->sim->volatiles, struct sim_volatile, link);
        ASSERT(platform->ops->volatile_remove(platform, memory->name) == 0);
    }
}

uint32_t
bench_volatile_count(const struct bench *bench)
{
    uint32_t count = 0;

    list_for_each(&bench->sim->volatiles, link) {
        count++;
    }
    return count;
}

/* ---- the checker ---- */

struct check_call {
    struct message message;
    struct metadata_check check;
    const char *pool;
    uint32_t findings;
    bool done;
};

static void
check_finding(struct metadata_check *check, const struct check_finding *finding)
{
    struct check_call *call = container_of(check, struct check_call, check);

    call->findings++;
    print_message("%s: %s: %s\n", call->pool, check_code_name(finding->code), finding->text);
}

static void
check_done(struct io_op *op)
{
    struct metadata_check *check = container_of(op, struct metadata_check, op);
    container_of(check, struct check_call, check)->done = true;
}

static void
check_begin(struct message *message)
{
    struct check_call *call = container_of(message, struct check_call, message);
    call->check.op.done = check_done;
    metadata_check(&call->check);
}

static uint32_t
check_database(struct bench *bench, const char *pool)
{
    struct check_call call = { .pool = pool, .check = { .finding = check_finding } };
    struct reactor_options options = { .id = 0, .cpu = -1 };
    struct reactor *reactor = NULL;

    sim_process_enter(bench->sim);
    int result = store_sim_open(bench->sim, pool, false, schema_merge, &call.check.store, NULL);
    if (result == 0) {
        ASSERT(reactor_create(sim_platform(bench->sim), &options, &reactor, NULL) == 0);
        reactor_send(reactor, &call.message, check_begin);
    }
    sim_process_leave(bench->sim);
    if (result < 0) {
        return 0; /* damaged or lost by the test */
    }
    ASSERT(bench_wait(bench, &call.done) == 0);
    ASSERT(call.check.op.result == 0);
    sim_process_enter(bench->sim);
    call.check.store->ops->close(call.check.store);
    reactor_destroy(reactor);
    sim_process_leave(bench->sim);
    return call.findings;
}

uint32_t
bench_check_databases(struct bench *bench)
{
    uint32_t findings = 0;

    ASSERT(bench->manager == NULL);
    for (uint32_t i = 0; i < BENCH_POOLS_MAX; i++) {
        const char *name = bench->pool_names[i];
        if (name != NULL && sim_store_exists(bench->sim, name)) {
            findings += check_database(bench, name);
        }
    }
    return findings;
}

static void
process_is_gone(struct bench *bench)
{
    bench->manager = NULL;
    memset(bench->reactors, 0, sizeof(bench->reactors));
}

/* A commit to a database, or a scan of it, without a process. */
struct poke_call {
    struct message message;
    struct store_commit commit;
    struct store_scan scan;
    struct store *store;
    bool done;
};

static void
poke_commit_done(struct io_op *op)
{
    struct store_commit *commit = container_of(op, struct store_commit, op);
    container_of(commit, struct poke_call, commit)->done = true;
}

static void
poke_scan_done(struct io_op *op)
{
    struct store_scan *scan = container_of(op, struct store_scan, op);
    container_of(scan, struct poke_call, scan)->done = true;
}

static void
poke_begin(struct message *message)
{
    struct poke_call *call = container_of(message, struct poke_call, message);
    if (call->commit.batch != NULL) {
        call->commit.op.done = poke_commit_done;
        store_commit(call->store, &call->commit);
    } else {
        call->scan.op.done = poke_scan_done;
        store_scan(call->store, &call->scan);
    }
}

static void
poke(struct bench *bench, struct poke_call *call)
{
    struct reactor *reactor = NULL;
    struct reactor_options options = { .id = 0, .cpu = -1 };

    sim_process_enter(bench->sim);
    int result = reactor_create(sim_platform(bench->sim), &options, &reactor, NULL);
    ASSERT(result == 0);
    result = store_sim_open(bench->sim, "p", false, schema_merge, &call->store, NULL);
    ASSERT(result == 0);
    reactor_send(reactor, &call->message, poke_begin);
    sim_process_leave(bench->sim);
    result = bench_wait(bench, &call->done);
    ASSERT(result == 0);
    ASSERT(call->commit.op.result == 0 && call->scan.op.result == 0);
    sim_process_enter(bench->sim);
    call->store->ops->close(call->store);
    reactor_destroy(reactor);
    sim_process_leave(bench->sim);
}

void
bench_poke_database(struct bench *bench, const struct byte_buffer *batch)
{
    struct poke_call call = { .commit = { .batch = batch, .sync = true } };
    poke(bench, &call);
}

void
bench_scan_database(struct bench *bench, enum store_family family, struct byte_buffer *ret_items)
{
    struct poke_call call = { .scan = { .family = family, .bytes_max = 1 << 20 } };
    poke(bench, &call);
    ASSERT(!call.scan.ret_more);
    byte_buffer_clear(ret_items);
    byte_buffer_append(ret_items, call.scan.items.data, call.scan.items.length_bytes);
    sim_process_enter(bench->sim);
    byte_buffer_free(&call.scan.items);
    sim_process_leave(bench->sim);
}

int
bench_shutdown(struct bench *bench)
{
    struct life_call call = { .bench = bench };
    bool done = false;

    operation_prepare(&call.shutdown.control, &done);
    bench_run_on(bench, bench->reactors[0], shutdown_begin, &call);
    int result = bench_wait(bench, &done);
    ASSERT(result == 0);
    bench->error = call.shutdown.control.error;
    sim_process_enter(bench->sim);
    manager_destroy(bench->manager);
    for (uint32_t i = 0; i < bench->reactor_count; i++) {
        reactor_destroy(bench->reactors[i]);
    }
    sim_process_leave(bench->sim);
    process_is_gone(bench);
    ASSERT_OP(sim_process_blocks(bench->sim), ==, bench->results_kept);
    ASSERT(bench->made_up || bench_check_databases(bench) == 0);
    return call.shutdown.control.op.result;
}

int
bench_shutdown_answer(struct bench *bench)
{
    struct life_call call = { .bench = bench };
    bool done = false;

    operation_prepare(&call.shutdown.control, &done);
    bench_run_on(bench, bench->reactors[0], shutdown_begin, &call);
    int result = bench_wait(bench, &done);
    if (result < 0) {
        ASSERT(result == -ECANCELED);
        operation_forget(&call.shutdown.control);
        return result;
    }
    bench->error = call.shutdown.control.error;
    return call.shutdown.control.op.result;
}

/* Nobody will complete them any more. */
static void
operations_forget(void)
{
    memset(pending_operations, 0, sizeof(pending_operations));
}

void
bench_kill(struct bench *bench)
{
    operations_forget();
    sim_kill(bench->sim);
    process_is_gone(bench);
}

void
bench_power_cut(struct bench *bench, enum sim_cut_mode mode)
{
    struct sim_cut cut = { .mode = mode };
    operations_forget();
    sim_power_cut(bench->sim, &cut);
    process_is_gone(bench);
}

void
bench_pass_time(struct bench *bench, uint32_t seconds)
{
    ASSERT(sim_run_for(bench->sim, seconds * NS_PER_S) == 0);
}

/* ---- objects ---- */

int
bench_make_pool(struct bench *bench, const char *name, const char *const *paths, bool force)
{
    struct disk_argument disks[16] = { 0 };
    struct pool_create create = { .force = force, .disks = disks };

    snprintf(create.name, sizeof(create.name), "%s", name);
    create.extent_bytes = 1 * MIB;
    for (uint32_t i = 0; paths[i] != NULL; i++) {
        snprintf(disks[i].spec, sizeof(disks[i].spec), "%s", paths[i]);
        create.disk_count++;
    }
    return bench_pool_create(bench, &create);
}

void
bench_set_name(struct volume_name *name, const char *path)
{
    const char *slash = strchr(path, '/');

    ASSERT(slash != NULL);
    snprintf(name->pool, sizeof(name->pool), "%.*s", (int)(slash - path), path);
    size_t length = strcspn(slash + 1, "@");
    snprintf(name->volume, sizeof(name->volume), "%.*s", (int)length, slash + 1);
    if (slash[1 + length] == '@') {
        snprintf(name->snapshot, sizeof(name->snapshot), "%s", slash + 1 + length + 1);
    }
}

int
bench_make_volume(struct bench *bench, const char *path, uint64_t size_bytes)
{
    struct volume_create create = { .size_bytes = size_bytes, .tier = VOLUME_TIER_AUTO };
    bench_set_name(&create.name, path);
    return bench_volume_create(bench, &create);
}

int
bench_make_export(struct bench *bench, const char *path)
{
    struct export_create create = { .record = { .protocol = "nbd" } };
    bench_set_name(&create.name, path);
    return bench_export_create(bench, &create);
}

int
bench_delete_volume(struct bench *bench, const char *path)
{
    struct volume_delete delete = { 0 };
    bench_set_name(&delete.name, path);
    return bench_volume_delete(bench, &delete);
}

int
bench_resize(struct bench *bench, const char *path, uint64_t size_bytes)
{
    struct volume_resize resize = { .size_bytes = size_bytes };
    bench_set_name(&resize.name, path);
    return bench_volume_resize(bench, &resize);
}

void
bench_forget(struct control *control)
{
    operation_forget(control);
}

/* ---- look-ups and sessions ---- */

struct lookup_call {
    struct bench *bench;
    struct export_lookup lookup;
    bool done;
};

static void
lookup_done(struct io_op *op)
{
    struct export_lookup *lookup = container_of(op, struct export_lookup, op);
    container_of(lookup, struct lookup_call, lookup)->done = true;
}

static void
lookup_begin(void *argument)
{
    struct lookup_call *call = argument;
    manager_export_lookup(call->bench->manager, &call->lookup);
}

int
bench_lookup(struct bench *bench, uint32_t from, const char *name,
             struct export_lookup *ret_lookup)
{
    struct lookup_call call = { .bench = bench, .lookup = { .protocol = "nbd" } };

    snprintf(call.lookup.name, sizeof(call.lookup.name), "%s", name);
    call.lookup.op.done = lookup_done;
    bench_run_on(bench, bench->reactors[from], lookup_begin, &call);
    int result = bench_wait(bench, &call.done);
    if (result == -ECANCELED) {
        return result;
    }
    ASSERT(result == 0);
    *ret_lookup = call.lookup;
    return ret_lookup->op.result;
}

struct volume_call {
    struct bench *bench;
    struct volume *volume;
    struct volume_session *session;
    int result;
};

static void
release_begin(void *argument)
{
    struct volume_call *call = argument;
    manager_export_release(call->bench->manager, call->volume);
}

void
bench_release(struct bench *bench, struct volume *volume)
{
    struct volume_call call = { .bench = bench, .volume = volume };
    bench_run_on(bench, bench->reactors[0], release_begin, &call);
}

static void
attach_begin(void *argument)
{
    struct volume_call *call = argument;
    call->result = volume_attach(call->volume, call->session);
}

int
bench_attach(struct bench *bench, struct volume *volume, struct volume_session *session)
{
    struct volume_call call = { .bench = bench, .volume = volume, .session = session };
    bench_run_on(bench, volume_reactor(volume), attach_begin, &call);
    return call.result;
}

static void
detach_begin(void *argument)
{
    struct volume_call *call = argument;
    volume_detach(call->session);
}

void
bench_detach(struct bench *bench, struct volume_session *session)
{
    struct volume_call call = { .bench = bench, .session = session };
    bench_run_on(bench, volume_reactor(session->volume), detach_begin, &call);
}

/* ---- requests ---- */

struct bench_io_call {
    struct volume *volume;
    struct volume_request request;
    struct iovec iov;
    bool released;
};

static void
io_replied(struct volume_request *request)
{
    (void)request;
}

static void
io_released(struct volume_request *request)
{
    container_of(request, struct bench_io_call, request)->released = true;
}

static void
io_begin(void *argument)
{
    struct bench_io_call *call = argument;
    volume_submit(call->volume, &call->request);
}

struct bench_io_call *
bench_io_begin(struct bench *bench, struct volume *volume, enum volume_operation operation,
               uint64_t offset_bytes, void *data, uint64_t length_bytes)
{
    struct bench_io_call *call = calloc(1, sizeof(*call));

    ASSERT(call != NULL);
    call->volume = volume;
    volume_request_init(&call->request);
    call->request.operation = operation;
    call->request.offset_bytes = offset_bytes;
    call->request.length_bytes = length_bytes;
    call->iov = (struct iovec){ .iov_base = data, .iov_len = length_bytes };
    call->request.iov = &call->iov;
    call->request.iov_count = data != NULL ? 1 : 0;
    call->request.reply = io_replied;
    call->request.release = io_released;
    bench_run_on(bench, volume_reactor(volume), io_begin, call);
    return call;
}

int
bench_io_end(struct bench *bench, struct bench_io_call *call)
{
    int result = bench_wait(bench, &call->released);
    ASSERT(result == 0 || result == -ECANCELED); /* stopped: nothing touches it any more */
    int status = result == 0 ? call->request.status : result;
    free(call);
    return status;
}

int
bench_io(struct bench *bench, struct volume *volume, enum volume_operation operation,
         uint64_t offset_bytes, void *data, uint64_t length_bytes)
{
    return bench_io_end(bench, bench_io_begin(bench, volume, operation, offset_bytes, data,
                                              length_bytes));
}

static void
pattern(uint8_t *data, uint64_t offset_bytes, uint64_t length_bytes, uint8_t seed)
{
    for (uint64_t i = 0; i < length_bytes; i++) {
        data[i] = (uint8_t)(hash_u64((offset_bytes + i) / 8 + seed * UINT64_C(0x10001)) >> 56);
    }
}

int
bench_fill(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
           uint64_t length_bytes, uint8_t seed)
{
    uint64_t piece_max = 256 * KIB;
    uint8_t *data = aligned_alloc(4096, piece_max);
    int status = 0;

    ASSERT(data != NULL);
    while (length_bytes > 0 && status == 0) {
        uint64_t piece = MIN(length_bytes, piece_max);
        pattern(data, offset_bytes, piece, seed);
        status = bench_io(bench, volume, VOLUME_WRITE, offset_bytes, data, piece);
        offset_bytes += piece;
        length_bytes -= piece;
    }
    free(data);
    return status;
}

bool
bench_check(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
            uint64_t length_bytes, uint8_t seed)
{
    uint8_t *data = aligned_alloc(4096, align_up(length_bytes, 4096));
    uint8_t *wanted = malloc(length_bytes);

    ASSERT(data != NULL && wanted != NULL);
    pattern(wanted, offset_bytes, length_bytes, seed);
    int status = bench_io(bench, volume, VOLUME_READ, offset_bytes, data, length_bytes);
    bool same = status == 0 && memcmp(data, wanted, length_bytes) == 0;
    free(data);
    free(wanted);
    return same;
}

/* ---- damage ---- */

/* The newest valid label of a disk, from its first place. */
static bool
peek_label(struct sim_disk *disk, struct label *ret_label)
{
    uint8_t block[LABEL_BYTES];
    bool found = false;

    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        struct label label;
        sim_disk_peek(disk, slot * LABEL_BYTES, block, sizeof(block));
        if (label_decode(block, &label) == 0 &&
            (!found || label.generation > ret_label->generation)) {
            *ret_label = label;
            found = true;
        }
    }
    return found;
}

bool
bench_damage_checkpoint(struct bench *bench, const char *const *paths, bool newest)
{
    bool damaged = false;

    for (uint32_t i = 0; paths[i] != NULL; i++) {
        struct label label;
        ASSERT(peek_label(sim_disk_find(bench->sim, paths[i]), &label));
        const struct label_checkpoint *one = &label.checkpoints[0];
        const struct label_checkpoint *two = &label.checkpoints[1];
        const struct label_checkpoint *chosen =
            (one->commit > two->commit) == newest ? one : two;
        for (uint32_t j = 0; paths[j] != NULL && chosen->commit > 0; j++) {
            struct label owner;
            struct sim_disk *disk = sim_disk_find(bench->sim, paths[j]);
            ASSERT(peek_label(disk, &owner));
            if (owner.disk_index == chosen->first.disk) {
                sim_disk_damage(disk,
                                owner.data_start_bytes +
                                    chosen->first.slot * owner.extent_bytes,
                                owner.extent_bytes, 5);
                damaged = true;
            }
        }
    }
    return damaged;
}

/* ---- reports ---- */

struct pool_report
bench_pool_report(struct bench *bench, const char *name)
{
    struct pool_query query = { 0 };
    struct pool_report report = { .state = POOL_STATE_OFFLINE };

    snprintf(query.name, sizeof(query.name), "%s", name);
    if (bench_pool_query(bench, &query) == 0) {
        ASSERT_OP(query.ret_count, ==, 1u);
        report = query.ret_pools[0];
        report.disks = NULL;
        pool_query_free(&query);
    }
    return report;
}

enum pool_state
bench_pool_state(struct bench *bench, const char *name)
{
    struct pool_report report = bench_pool_report(bench, name);
    memcpy(bench->error.message, report.reason, sizeof(bench->error.message));
    return report.state;
}

bool
bench_volume_report(struct bench *bench, const char *path, struct volume_report *ret_report)
{
    struct volume_query query = { 0 };

    bench_set_name(&query.name, path);
    if (bench_volume_query(bench, &query) < 0) {
        return false;
    }
    ASSERT_OP(query.ret_count, ==, 1u);
    *ret_report = query.ret_volumes[0];
    free(query.ret_volumes);
    return true;
}

uint32_t
bench_events(struct bench *bench, const char *name)
{
    struct event_query query = { 0 };
    uint32_t count = 0;

    ASSERT(bench_event_query(bench, &query) == 0);
    for (uint32_t i = 0; i < query.ret_count; i++) {
        if (strcmp(query.ret_events[i].name, name) == 0) {
            count++;
        }
    }
    free(query.ret_events);
    return count;
}

void
bench_wait_for_jobs(struct bench *bench)
{
    for (uint32_t tries = 0;; tries++) {
        struct job_query query = { 0 };
        bool busy = false;
        ASSERT_OP(tries, <, 10000u);
        ASSERT(bench_job_query(bench, &query) == 0);
        for (uint32_t i = 0; i < query.ret_count; i++) {
            busy = busy || !query.ret_jobs[i].finished;
        }
        free(query.ret_jobs);
        if (!busy) {
            return;
        }
        ASSERT(sim_run_for(bench->sim, 10 * NS_PER_MS) == 0);
    }
}
