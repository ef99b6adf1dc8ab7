/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importing a pool without its database: it is rebuilt from the newest checkpoint that can be read
 * and the commit ledger behind it, then the pool is opened as ever.
 *
 * What is rebuilt is the state of the last commit that the ledger has, which is the last one that
 * was ever acknowledged: nothing that was flushed is lost, and volatile journals of this boot, if
 * they are still there, are replayed on it. Anything less is restored only with `force`, and then
 * under a new database identity, so that no journal is replayed on a state that it does not belong
 * to.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "metadata/checkpoint.h"
#include "volmgr/pool_open_impl.h"

#define POOL_IMPORT_PHASES(X)                                                                      \
    X(OPEN_DISKS)                                                                                  \
    X(READ_LABELS)                                                                                 \
    X(CHOOSE)                                                                                      \
    X(DROP_OLD)                                                                                    \
    X(CREATE_STORE)                                                                                \
    X(READ_CHECKPOINT)                                                                             \
    X(CHECKPOINT_READ)                                                                             \
    X(SCAN_LEDGER)                                                                                 \
    X(JUDGE_LEDGER)                                                                                \
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

struct pool_importing {
    struct machine machine;
    struct pool_import *import;
    struct disk_probe *probes;
    uint32_t disk_count;
    const struct label *newest; /* of the highest incarnation */
    struct machine_job job;
    struct error job_error;
    struct backends_close close;
    bool remove_store; /* in the next store job: close it, and remove it */
    struct store *store;
    struct store_commit store_commit;
    struct store_scan scan;
    struct checkpoint_read read;
    uint64_t checkpoint_commit; /* that is being tried; 0: none, begin with nothing */
    struct ledger *ledger;
    struct ledger_scan ledger_scan;
    struct ledger_gap gap;
    struct byte_buffer batch;
    uint64_t commit;  /* of the rebuilt state */
    bool is_complete; /* it is the last one that was acknowledged */
    struct pool *pool;
};

MACHINE_DONE(read_done, struct pool_importing, read.op)
MACHINE_DONE(scan_done, struct pool_importing, ledger_scan.op)
MACHINE_DONE(system_scanned, struct pool_importing, scan.op)
MACHINE_DONE(commit_done, struct pool_importing, store_commit.op)

/* ---- which pool ---- */

static int
check_labels(const struct pool_importing *importing, struct error *error)
{
    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct disk_probe *probe = &importing->probes[i];
        const struct label *label = &probe->label;
        if (probe->backend == NULL) {
            return error_set(error, probe->status, "%s", probe->error.message);
        }
        if (probe->status < 0) {
            return error_set(error, probe->status, "disk %.200s has no readable label: %s",
                             probe->backend->spec, error_name(probe->status));
        }
        if (memcmp(label->pool_guid, importing->probes[0].label.pool_guid,
                   GUID_BYTES) != 0) {
            return error_set(error, -EINVAL, "disk %.200s belongs to another pool, `%s`",
                             probe->backend->spec, label->pool_name);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (memcmp(label->disk_guid, importing->probes[j].label.disk_guid,
                       GUID_BYTES) == 0) {
                return error_set(error, -EINVAL, "disk %.200s was named twice",
                                 probe->backend->spec);
            }
        }
    }
    return 0;
}

static void
find_newest(struct pool_importing *importing)
{
    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        if (importing->newest == NULL || label->incarnation > importing->newest->incarnation) {
            importing->newest = label;
        }
    }
}

static enum machine_step
choose(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    struct manager *manager = machine->manager;
    bool force = importing->import->force;

    if (check_labels(importing, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    find_newest(importing);
    const struct label *label = importing->newest;
    if (!schema_name_is_valid(label->pool_name)) {
        return machine_fail(machine, -EUCLEAN, "the labels name no valid pool");
    }
    if (label->open && !force &&
        memcmp(label->host_guid, manager->options.host_guid, GUID_BYTES) != 0) {
        return machine_fail(machine, -EBUSY,
                            "pool `%s` was opened by another host and not closed: make sure that "
                            "it does not use it any more, then import with --force",
                            label->pool_name);
    }
    struct pool *existing = manager_find_pool(manager, label->pool_name);
    if (existing != NULL && (existing->state != POOL_STATE_OFFLINE || existing->stopping)) {
        return machine_fail(machine, -EEXIST, "pool `%s` is here already", label->pool_name);
    }
    if (existing != NULL && !force) {
        return machine_fail(machine, -EEXIST,
                            "pool `%s` has a database here (the pool is offline); --force removes "
                            "that and rebuilds it from the disks",
                            label->pool_name);
    }
    snprintf(importing->import->ret_name, sizeof(importing->import->ret_name), "%s",
             label->pool_name);
    importing->checkpoint_commit = UINT64_MAX;
    return MACHINE_NEXT;
}

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
    struct pool *existing = manager_find_pool(machine->manager, importing->import->ret_name);

    if (existing == NULL) {
        return MACHINE_NEXT;
    }
    importing->remove_store = true;
    machine->pending++;
    pool_close(existing, old_pool_closed, importing);
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

/* ---- the checkpoint ---- */

static int
resolve_place(struct checkpoint_read *read, struct extent_place place,
              struct backend **ret_backend, uint64_t *ret_offset_bytes)
{
    struct pool_importing *importing = container_of(read, struct pool_importing, read);

    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        if (label->disk_index == place.disk && place.slot < label->slot_count) {
            *ret_backend = importing->probes[i].backend;
            *ret_offset_bytes =
                label->data_start_bytes + (uint64_t)place.slot * label->extent_bytes;
            return 0;
        }
    }
    return -ENODEV;
}

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
    importing->store_commit.batch = batch;
    importing->store_commit.sync = false;
    store_commit(importing->store, &importing->store_commit);
}

/* The newest checkpoint that a label names and that has not been tried; all places of its start. */
static bool
next_checkpoint(struct pool_importing *importing)
{
    struct checkpoint_read *read = &importing->read;
    uint64_t best = 0;

    *read = (struct checkpoint_read){ 0 };
    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        for (uint32_t j = 0; j < ARRAY_SIZE(label->checkpoints); j++) {
            const struct label_checkpoint *checkpoint = &label->checkpoints[j];
            if (checkpoint->commit >= importing->checkpoint_commit || checkpoint->commit < best ||
                checkpoint->commit == 0) {
                continue;
            }
            if (checkpoint->commit > best) {
                best = checkpoint->commit;
                read->first_count = 0;
            }
            if (read->first_count < EXTENT_COPIES_MAX) {
                read->first[read->first_count++] = checkpoint->first;
            }
        }
    }
    importing->checkpoint_commit = best;
    return best > 0;
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
    if (!next_checkpoint(importing)) {
        return machine_goto(machine, IMPORT_SCAN_LEDGER); /* the ledger must have everything */
    }
    memcpy(importing->read.pool_guid, importing->newest->pool_guid, GUID_BYTES);
    importing->read.commit = importing->checkpoint_commit;
    importing->read.part_bytes = importing->newest->extent_bytes;
    importing->read.resolve = resolve_place;
    importing->read.batch = checkpoint_batch;
    machine_arm(machine, &importing->read.op, read_done);
    checkpoint_read(&importing->read);
    return machine_wait(machine);
}

static enum machine_step
checkpoint_was_read(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    if (machine->status == -ENOENT || machine->status == -EUCLEAN) {
        event_raise(machine->manager, EVENT_WARNING, importing->import->ret_name, NULL,
                    "checkpoint-damaged", "the checkpoint of commit %llu cannot be read: %s",
                    (unsigned long long)importing->checkpoint_commit,
                    error_name(machine->status));
        importing->remove_store = true; /* with a new one, try the next */
        return machine_goto(machine, IMPORT_CREATE_STORE);
    }
    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the database cannot be rebuilt: %s",
                            error_name(machine->status));
    }
    return MACHINE_NEXT;
}

/* ---- the ledger ---- */

static int
ledger_record(struct ledger_scan *scan, uint64_t commit, const void *batch, size_t batch_bytes)
{
    struct pool_importing *importing = container_of(scan, struct pool_importing, ledger_scan);

    ledger_gap_add(&importing->gap, commit, batch, batch_bytes);
    return 0;
}

static enum machine_step
scan_ledger(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    struct ledger_options options = { .incarnation = importing->newest->incarnation };

    memcpy(options.pool_guid, importing->newest->pool_guid, GUID_BYTES);
    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        if (label->ledger_length_bytes > 0 && options.copy_count < LEDGER_COPIES_MAX) {
            options.copies[options.copy_count++] = (struct ledger_copy_options){
                .backend = importing->probes[i].backend,
                .disk_index = label->disk_index,
                .start_bytes = label->ledger_start_bytes,
                .length_bytes = label->ledger_length_bytes,
            };
        }
    }
    if (options.copy_count == 0) {
        return MACHINE_NEXT;
    }
    int result = ledger_create(&options, &importing->ledger);
    if (result < 0) {
        return machine_fail(machine, result, "cannot read the commit ledger: %s",
                            error_name(result));
    }
    importing->ledger_scan.ledger = importing->ledger;
    importing->ledger_scan.after_commit = importing->checkpoint_commit;
    importing->ledger_scan.record = ledger_record;
    machine_arm(machine, &importing->ledger_scan.op, scan_done);
    ledger_scan(&importing->ledger_scan);
    return machine_wait(machine);
}

/* Whether the ledger continues the checkpoint without a gap, and is all that there is. */
static bool
ledger_continues(const struct pool_importing *importing, int status)
{
    const struct ledger_scan *scan = &importing->ledger_scan;
    uint64_t behind = importing->checkpoint_commit;

    if (importing->ledger == NULL || scan->ret_current_copies == 0 ||
        scan->ret_absent_copies != 0) {
        return false;
    }
    if (status == -ENOENT) {
        return scan->ret_last_commit == behind;
    }
    return status == 0 && (scan->ret_last_commit == behind ||
                           (scan->ret_last_commit > behind &&
                            importing->gap.next_commit == behind + 1));
}

static enum machine_step
judge_ledger(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    importing->commit = importing->checkpoint_commit;
    importing->is_complete = ledger_continues(importing, machine->status);
    if (importing->is_complete) {
        return MACHINE_NEXT;
    }
    if (!importing->import->force) {
        return machine_fail(machine, -ENODATA,
                            "the commit ledger on these disks does not prove that everything is "
                            "here: name all disks of the pool; --force restores the state of "
                            "commit %llu or a little later",
                            (unsigned long long)importing->checkpoint_commit);
    }
    if (importing->gap.next_commit != importing->checkpoint_commit + 1) {
        ledger_gap_clear(&importing->gap); /* what is behind a gap cannot be used */
    }
    if (importing->checkpoint_commit == 0 && ledger_gap_is_done(&importing->gap)) {
        return machine_fail(machine, -ENODATA,
                            "there is neither a checkpoint nor a commit ledger on these disks");
    }
    return MACHINE_NEXT;
}

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
    importing->store_commit.batch = &importing->gap.batch;
    importing->store_commit.sync = false;
    machine_goto(machine, IMPORT_APPLY_LEDGER);
    machine_arm(machine, &importing->store_commit.op, commit_done);
    store_commit(importing->store, &importing->store_commit);
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
adjust_identity(struct pool_importing *importing, const struct store_batch_item *item)
{
    struct pool_record pool;
    struct run_record run;

    if (item->key[0] == SCHEMA_POOL &&
        schema_get_pool(item->value, item->value_bytes, &pool) == 0) {
        manager_make_guid(importing->machine.manager, pool.database_guid);
        schema_put_pool(&importing->batch, &pool);
    } else if (item->key[0] == SCHEMA_RUN &&
               schema_get_run(item->value, item->value_bytes, &run) == 0) {
        run.state = RUN_STATE_OPEN; /* disks count as dirty */
        snprintf(run.boot_id, sizeof(run.boot_id), "-"); /* no boot's */
        schema_put_run(&importing->batch, &run);
    }
}

static enum machine_step
adjust(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    const struct byte_buffer *items = &importing->scan.items;
    struct store_batch_item item;
    size_t position = 0;
    int next = machine->status < 0 ? machine->status : 1;

    while (next > 0) {
        next = store_batch_next(items->data, items->length_bytes, &position, &item);
        if (next > 0 && item.key_bytes > 0 && item.key[0] == SCHEMA_DISK) {
            adjust_disk(importing, &item);
        } else if (next > 0 && item.key_bytes > 0 && !importing->is_complete) {
            adjust_identity(importing, &item);
        }
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
    importing->pool = pool_new(machine->manager, importing->import->ret_name);
    importing->pool->take_over = importing->import->force;
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
        if (disk_probes_check_opened(importing->probes, importing->disk_count,
                                     &machine->control->error) < 0) {
            return machine_fail_noted(machine);
        }
        disk_probes_read(machine, importing->probes, importing->disk_count);
        return machine_wait(machine);
    case IMPORT_CHOOSE:
        return choose(importing);
    case IMPORT_DROP_OLD:
        return drop_old(importing);
    case IMPORT_CREATE_STORE:
        machine_offload(machine, &importing->job, store_create_work);
        return machine_wait(machine);
    case IMPORT_READ_CHECKPOINT:
        return read_checkpoint(importing);
    case IMPORT_CHECKPOINT_READ:
        return checkpoint_was_read(importing);
    case IMPORT_SCAN_LEDGER:
        return scan_ledger(importing);
    case IMPORT_JUDGE_LEDGER:
        return judge_ledger(importing);
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
