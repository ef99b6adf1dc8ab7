/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importing a pool without its database: it is rebuilt from the newest checkpoint that can be read
 * and the commit ledger behind it, then the pool is opened as ever.
 *
 * What is rebuilt is the state of the last commit that the ledger has, which is the last one that
 * was ever acknowledged: nothing that was flushed is lost, and volatile journals of this boot, if
 * they are still there, are replayed on it. Anything less is restored only with `force`, and then
 * it begins a history of its own: a new database identity, so that no journal is replayed on a
 * state that it does not belong to; a new ring, and commit numbers far above the old ones, so that
 * neither a database nor a ledger of the other history ever passes for a part of this one.
 *
 * Invariants
 *  I1  Nothing is changed, and no database is removed, before it is known that the disks give one.
 *  I2  The pool record is written last, with the only synced commit: a database that an interrupted
 *      import leaves behind is never taken for that of the pool.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/pool_import_impl.h"

#define POOL_IMPORT_PHASES(X)                                                                      \
    X(OPEN_DISKS)                                                                                  \
    X(READ_LABELS)                                                                                 \
    X(WATCH)                                                                                       \
    X(READ_LABELS_AGAIN)                                                                           \
    X(CHOOSE)                                                                                      \
    X(VERIFY_CHECKPOINT)                                                                           \
    X(CHECKPOINT_VERIFIED)                                                                         \
    X(SCAN_LEDGER)                                                                                 \
    X(JUDGE_LEDGER)                                                                                \
    X(DROP_OLD)                                                                                    \
    X(CREATE_STORE)                                                                                \
    X(READ_CHECKPOINT)                                                                             \
    X(CHECKPOINT_READ)                                                                             \
    X(APPLY_LEDGER)                                                                                \
    X(SCAN_SYSTEM)                                                                                 \
    X(ADJUST)                                                                                      \
    X(CLOSE_STORE)                                                                                 \
    X(CLOSE_DISKS)                                                                                 \
    X(OPEN_POOL)                                                                                   \
    X(SUCCEED)                                                                                     \
    X(UNDO_STORE)                                                                                  \
    X(UNDO_DISKS)                                                                                  \
    X(END)

enum pool_import_phase {
#define PHASE_ENUM(name) IMPORT_##name,
    POOL_IMPORT_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    IMPORT_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_IMPORT_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == IMPORT_PHASE_COUNT, "a name for each phase");

MACHINE_DONE(read_done, struct pool_importing, read.op)
MACHINE_DONE(system_scanned, struct pool_importing, scan.op)
MACHINE_DONE(commit_done, struct pool_importing, store_commit.op)

/* ---- an earlier start of it ---- */

#define LOCK_POLL_NS (50 * NS_PER_MS)

/*
 * A disk is still held by an earlier start of a pool in this process, whose flush has not ended:
 * how it ends decides whether writes are lost, so it is waited for, as long as for any disk.
 */
static bool
must_wait(struct pool_importing *importing)
{
    struct manager *manager = importing->machine.manager;
    uint64_t now_ns = reactor_now_ns(manager->control);
    struct disk_probe *held = NULL;
    struct pool *waits = NULL;

    for (uint32_t i = 0; i < importing->disk_count; i++) {
        held = importing->probes[i].status == -EBUSY ? &importing->probes[i] : held;
    }
    list_for_each(&manager->pools, link) {
        struct pool *pool = list_entry(link, struct pool, link);
        waits = pool->flushes_late > 0 ? pool : waits;
    }
    if (held == NULL || waits == NULL) {
        return false;
    }
    if (importing->wait_until_ns == 0) {
        importing->wait_until_ns = now_ns + manager->options.disk_timeout_ns;
    }
    if (now_ns < importing->wait_until_ns && !manager->stopping) {
        waits->from_start = false; /* this import is to have it, not another try of its start */
        return true;
    }
    held->error = (struct error){ 0 };
    error_set(&held->error, -EBUSY,
              "disk %.200s: the last start of pool `%s` has begun a flush of a disk that has not "
              "ended yet, and how it ends decides whether writes are lost; try again when the disk "
              "answers",
              held->spec, waits->name);
    return false;
}

static enum machine_step
read_labels(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (must_wait(importing)) {
        machine_goto(machine, IMPORT_OPEN_DISKS);
        machine_pause(machine, &importing->pause, LOCK_POLL_NS);
        return machine_wait(machine);
    }
    if (disk_probes_check_opened(importing->probes, importing->disk_count,
                                 &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    disk_probes_read(machine, importing->probes, importing->disk_count);
    return machine_wait(machine);
}

/* ---- the pool of that name that is here ---- */

static void
old_pool_closed(struct manager *manager, void *context, const struct error *error)
{
    struct pool_importing *importing = context;

    ASSERT(importing->machine.manager == manager && error->code <= 0);
    machine_completed(&importing->machine, 0);
}

/* An OFFLINE pool holds nothing; its database goes with the next store job. */
static enum machine_step
drop_old(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    struct pool *existing = import_existing_pool(importing);

    if (machine->manager->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    if (existing == NULL) {
        return MACHINE_NEXT;
    }
    if (existing->state != POOL_STATE_OFFLINE || existing->stopping) {
        return machine_fail(machine, -EEXIST, "pool `%s` is here already", existing->name);
    }
    if (existing->flushes_late > 0) {
        /* Of a disk that was not named. */
        return machine_fail(machine, -EBUSY,
                            "the last start of pool `%s` has begun a flush of a disk that has not "
                            "ended yet, and how it ends decides whether writes are lost; try again "
                            "when the disk answers, or restart the daemon without it",
                            existing->name);
    }
    importing->remove_store = true;
    machine->pending++;
    pool_close(existing, old_pool_closed, importing);
    return machine_wait(machine);
}

static int32_t store_create_work(struct offload_job *job);

/* From here on the name is taken. */
static enum machine_step
create_store(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (import_existing_pool(importing) != NULL) {
        importing->remove_store = false;
        return machine_fail(machine, -EEXIST, "pool `%s` has been created meanwhile",
                            importing->import->ret_name);
    }
    importing->pool = pool_new(machine->manager, importing->import->ret_name);
    machine_offload(machine, &importing->job, store_create_work);
    return machine_wait(machine);
}

/* ---- the database ---- */

static int32_t
store_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_importing *importing = container_of(own, struct pool_importing, job);
    const struct manager_options *options = &importing->machine.manager->options;
    const char *name = importing->import->ret_name;
    struct store *store = importing->store;
    int result = 0;

    importing->job_error = (struct error){ 0 };
    importing->store = NULL;
    if (store != NULL) {
        store->ops->close(store);
    }
    if (importing->remove_store) {
        result = options->store_remove(options->store_context, name, &importing->job_error);
    }
    importing->remove_store = false;
    return result;
}

static int32_t
store_create_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_importing *importing = container_of(own, struct pool_importing, job);
    const struct manager_options *options = &importing->machine.manager->options;

    if (importing->remove_store) {
        int result = store_work(job);
        if (result < 0) {
            return result;
        }
    }
    importing->job_error = (struct error){ 0 };
    return options->store_open(options->store_context, importing->import->ret_name, true,
                               &importing->store, &importing->job_error);
}

/*
 * I2: what is to be committed, without the pool record, which is kept instead. That is `batch`, or
 * importing->batch if there was one in it.
 */
static const struct byte_buffer *
hold_back_pool_record(struct pool_importing *importing, const struct byte_buffer *batch)
{
    struct store_batch_item item;
    size_t position = 0;
    size_t start = 0;
    bool found = false;

    byte_buffer_clear(&importing->batch);
    while (store_batch_next(batch->data, batch->length_bytes, &position, &item) > 0) {
        if (item.family == STORE_FAMILY_SYSTEM && item.key_bytes > 0 &&
            item.key[0] == SCHEMA_POOL) {
            found = true;
            byte_buffer_clear(&importing->pool_record);
            byte_buffer_append(&importing->pool_record, item.value, item.value_bytes);
        } else {
            byte_buffer_append(&importing->batch, batch->data + start, position - start);
        }
        start = position;
    }
    return found ? &importing->batch : batch;
}

static void
commit_piece(struct pool_importing *importing, const struct byte_buffer *batch)
{
    importing->store_commit.batch = hold_back_pool_record(importing, batch);
    importing->store_commit.sync = false;
    store_commit(importing->store, &importing->store_commit);
}

/* ---- the checkpoint ---- */

static void
checkpoint_batch_committed(struct io_op *op)
{
    struct store_commit *commit = container_of(op, struct store_commit, op);
    struct pool_importing *importing = container_of(commit, struct pool_importing, store_commit);

    checkpoint_read_next(&importing->read, op->result);
}

static void
checkpoint_batch(struct checkpoint_read *read, const struct byte_buffer *batch)
{
    struct pool_importing *importing = container_of(read, struct pool_importing, read);

    importing->store_commit.op.done = checkpoint_batch_committed;
    importing->store_commit.op.reactor_id =
        reactor_id(importing->machine.manager->control);
    commit_piece(importing, batch);
}

static enum machine_step
read_checkpoint(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (machine->status < 0) {
        error_set(&importing->job_error, machine->status, "%s", error_name(machine->status));
        return machine_fail(machine, machine->status, "cannot create the database: %.400s",
                            importing->job_error.message);
    }
    if (importing->checkpoint_commit == 0) {
        return machine_goto(machine, IMPORT_APPLY_LEDGER); /* the ledger has everything */
    }
    import_prepare_read(importing, checkpoint_batch);
    machine_arm(machine, &importing->read.op, read_done);
    checkpoint_read(&importing->read);
    return machine_wait(machine);
}

static enum machine_step
checkpoint_was_read(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the database cannot be rebuilt: %s",
                            error_name(machine->status));
    }
    return MACHINE_NEXT;
}

/* ---- the ledger ---- */

static enum machine_step
apply_ledger(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the database cannot be rebuilt: %s",
                            error_name(machine->status));
    }
    int next = ledger_gap_next(&importing->gap, &importing->commit);
    if (next <= 0) {
        return next == 0 ? MACHINE_NEXT
                         : machine_fail(machine, next,
                                        "record %llu of the commit ledger is no batch",
                                        (unsigned long long)importing->commit);
    }
    machine_goto(machine, IMPORT_APPLY_LEDGER);
    machine_arm(machine, &importing->store_commit.op, commit_done);
    commit_piece(importing, &importing->gap.batch);
    return machine_wait(machine);
}

/* ---- what must be different afterwards ---- */

static enum machine_step
scan_system(struct pool_importing *importing)
{
    importing->scan.family = STORE_FAMILY_SYSTEM;
    importing->scan.bytes_max = SIZE_MAX; /* small records, and each start reads them all */
    machine_arm(&importing->machine, &importing->scan.op, system_scanned);
    store_scan(importing->store, &importing->scan);
    return machine_wait(&importing->machine);
}

/* Disks are where the administrator says that they are. */
static void
adjust_disk(struct pool_importing *importing, const struct store_batch_item *item)
{
    struct disk_record record;

    if (schema_get_disk(item->value, item->value_bytes, &record) < 0) {
        return; /* the opening refuses it, and says so */
    }
    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct disk_probe *probe = &importing->probes[i];
        if (memcmp(probe->label.disk_guid, record.guid, GUID_BYTES) == 0) {
            snprintf(record.spec, sizeof(record.spec), "%s", probe->spec);
            schema_put_disk(&importing->batch, &record);
        }
    }
}

/* A state that is not the last one: no volatile journal may be replayed on it. */
static void
adjust_run(struct pool_importing *importing, const struct store_batch_item *item)
{
    struct run_record run;

    if (schema_get_run(item->value, item->value_bytes, &run) == 0) {
        run.state = RUN_STATE_OPEN; /* disks count as dirty */
        snprintf(run.boot_id, sizeof(run.boot_id), "%s", RUN_OF_NO_BOOT);
        schema_put_run(&importing->batch, &run);
    }
}

/* What makes it a pool (I2). */
static int
adjust_pool(struct pool_importing *importing)
{
    struct pool_record pool;
    int result = schema_get_pool(importing->pool_record.data,
                                 importing->pool_record.length_bytes, &pool);

    if (result < 0) {
        return result;
    }
    if (!importing->is_complete) {
        manager_make_guid(importing->machine.manager, pool.database_guid);
        schema_put_commit(&importing->batch, importing->commit + NEW_HISTORY_COMMITS);
    }
    schema_put_pool(&importing->batch, &pool);
    return 0;
}

static enum machine_step
adjust(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    const struct byte_buffer *items = &importing->scan.items;
    struct store_batch_item item;
    size_t position = 0;
    int next = machine->status < 0 ? machine->status : 1;

    byte_buffer_clear(&importing->batch);
    while (next > 0) {
        next = store_batch_next(items->data, items->length_bytes, &position, &item);
        if (next > 0 && item.key_bytes > 0 && item.key[0] == SCHEMA_DISK) {
            adjust_disk(importing, &item);
        } else if (next > 0 && item.key_bytes > 0 && item.key[0] == SCHEMA_RUN &&
                   !importing->is_complete) {
            adjust_run(importing, &item);
        }
    }
    if (next == 0) {
        next = adjust_pool(importing);
    }
    if (next < 0) {
        return machine_fail(machine, next, "the rebuilt database cannot be read: %s",
                            error_name(next));
    }
    importing->store_commit.batch = &importing->batch;
    importing->store_commit.sync = true;
    machine_arm(machine, &importing->store_commit.op, commit_done);
    store_commit(importing->store, &importing->store_commit);
    return machine_wait(machine);
}

static void
forget_ledger(struct pool_importing *importing)
{
    if (importing->ledger != NULL) {
        ledger_destroy(importing->ledger);
        importing->ledger = NULL;
    }
}

static enum machine_step
close_store(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the database cannot be rebuilt: %s",
                            error_name(machine->status));
    }
    forget_ledger(importing);
    machine_offload(machine, &importing->job, store_work);
    return machine_wait(machine);
}

/* ---- opening ---- */

static void
pool_was_opened(struct manager *manager, void *context)
{
    struct pool_importing *importing = context;

    ASSERT(importing->machine.manager == manager);
    machine_completed(&importing->machine, 0);
}

static enum machine_step
open_pool(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (machine->manager->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    importing->pool->take_over = importing->import->force;
    importing->pool_opening = true;
    machine->pending++;
    pool_open(importing->pool, pool_was_opened, importing);
    return machine_wait(machine);
}

static enum machine_step
succeed(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    const struct pool *pool = importing->pool;

    importing->import->ret_commit = importing->commit;
    if (!pool_is_serving(pool)) {
        /* The database stays: it can be opened when the reason has gone. */
        error_set(&machine->control->error, -ENODEV,
                  "the database was rebuilt, but the pool cannot be opened: %.300s", pool->reason);
        machine->failed = true;
        return machine_end(machine);
    }
    event_raise(machine->manager, importing->is_complete ? EVENT_INFO : EVENT_CRITICAL, pool->name,
                NULL, "pool-imported", "rebuilt up to commit %llu%s",
                (unsigned long long)importing->commit,
                importing->is_complete ? "" : "; what was committed later is lost (--force)");
    return machine_end(machine);
}

static enum machine_step
undo_store(struct pool_importing *importing)
{
    forget_ledger(importing);
    if (importing->pool != NULL && !importing->pool_opening) {
        pool_free(importing->pool);
        importing->pool = NULL;
    }
    if (importing->store != NULL) {
        importing->remove_store = true;
        machine_offload(&importing->machine, &importing->job, store_work);
    }
    return machine_wait(&importing->machine);
}

/* ---- the machine ---- */

static enum machine_step
importing_phase(struct machine *machine, uint32_t phase)
{
    struct pool_importing *importing = container_of(machine, struct pool_importing, machine);

    switch ((enum pool_import_phase)phase) {
    case IMPORT_OPEN_DISKS:
        disk_probes_open(machine, importing->probes, importing->disk_count);
        return machine_wait(machine);
    case IMPORT_READ_LABELS:
        return read_labels(importing);
    case IMPORT_WATCH:
        if (!heartbeat_watch_begin(machine, &importing->watch, importing->probes,
                                   importing->disk_count)) {
            return machine_goto(machine, IMPORT_CHOOSE);
        }
        return machine_wait(machine);
    case IMPORT_READ_LABELS_AGAIN:
        disk_probes_read(machine, importing->probes, importing->disk_count);
        return machine_wait(machine);
    case IMPORT_CHOOSE:
        return import_choose(importing);
    case IMPORT_VERIFY_CHECKPOINT:
        return import_verify_checkpoint(importing);
    case IMPORT_CHECKPOINT_VERIFIED:
        return import_checkpoint_was_verified(importing, IMPORT_VERIFY_CHECKPOINT);
    case IMPORT_SCAN_LEDGER:
        return import_scan_ledger(importing);
    case IMPORT_JUDGE_LEDGER:
        return import_judge_ledger(importing);
    case IMPORT_DROP_OLD:
        return drop_old(importing);
    case IMPORT_CREATE_STORE:
        return create_store(importing);
    case IMPORT_READ_CHECKPOINT:
        return read_checkpoint(importing);
    case IMPORT_CHECKPOINT_READ:
        return checkpoint_was_read(importing);
    case IMPORT_APPLY_LEDGER:
        return apply_ledger(importing);
    case IMPORT_SCAN_SYSTEM:
        return scan_system(importing);
    case IMPORT_ADJUST:
        return adjust(importing);
    case IMPORT_CLOSE_STORE:
        return close_store(importing);
    case IMPORT_CLOSE_DISKS:
    case IMPORT_UNDO_DISKS:
        disk_probes_close(machine, &importing->close, importing->probes, importing->disk_count);
        return machine_wait(machine);
    case IMPORT_OPEN_POOL:
        return open_pool(importing);
    case IMPORT_SUCCEED:
        return succeed(importing);
    case IMPORT_UNDO_STORE:
        return undo_store(importing);
    case IMPORT_END:
        return MACHINE_NEXT;
    case IMPORT_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
importing_release(struct machine *machine)
{
    struct pool_importing *importing = container_of(machine, struct pool_importing, machine);

    backends_close_free(&importing->close);
    byte_buffer_free(&importing->scan.items);
    byte_buffer_free(&importing->batch);
    byte_buffer_free(&importing->pool_record);
    ledger_gap_clear(&importing->gap);
    ASSERT_OP(machine->manager->imports, >, 0u);
    machine->manager->imports--;
    free(importing->probes);
    free(importing);
}

static const struct machine_ops POOL_IMPORT_OPS = {
    .name = "pool import",
    .phase_names = PHASE_NAMES,
    .phase_count = IMPORT_PHASE_COUNT,
    .failed_phase = IMPORT_UNDO_STORE,
    .phase = importing_phase,
    .release = importing_release,
};

void
manager_pool_import(struct manager *manager, struct pool_import *import)
{
    struct error error = { 0 };

    ASSERT_ON_REACTOR(manager->control);
    if (manager->stopping) {
        control_refuse(manager, &import->control, -ESHUTDOWN, "the daemon is ending");
        return;
    }
    if (disk_arguments_check(import->disks, import->disk_count, &error) < 0) {
        control_refuse(manager, &import->control, error.code, "%s", error.message);
        return;
    }
    struct pool_importing *importing = calloc(1, sizeof(*importing));
    ASSERT(importing != NULL);
    machine_init(&importing->machine, &POOL_IMPORT_OPS, manager, &import->control);
    manager->imports++;
    importing->import = import;
    importing->disk_count = import->disk_count;
    importing->probes = disk_probes_from_arguments(import->disks, import->disk_count, 0);
    machine_start(&importing->machine);
}
