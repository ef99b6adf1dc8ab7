/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a pool: take the disks, lay them out, make the database and the ledger, serve.
 *
 * Nothing is written to a disk before everything that can be refused has been looked at, and the
 * database is there. Whatever fails after that is undone: labels are wiped, the database removed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

#define POOL_CREATE_PHASES(X)                                                                      \
    X(OPEN_DISKS)                                                                                  \
    X(READ_LABELS)                                                                                 \
    X(JUDGE_DISKS)                                                                                 \
    X(READ_LABELS_AGAIN)                                                                           \
    X(JUDGE_AGAIN)                                                                                 \
    X(LAY_OUT)                                                                                     \
    X(CREATE_STORE)                                                                                \
    X(WIPE_OLD_LABELS)                                                                             \
    X(WRITE_LABELS)                                                                                \
    X(READ_BACK)                                                                                   \
    X(VERIFY)                                                                                      \
    X(FORMAT_LEDGER)                                                                               \
    X(CREATE_SHARDS)                                                                               \
    X(FIRST_COMMIT)                                                                                \
    X(SERVE)                                                                                       \
    X(SUCCEED)                                                                                     \
    X(UNDO)                                                                                        \
    X(UNDO_LABELS)                                                                                 \
    X(UNDO_CLOSE)                                                                                  \
    X(UNDO_PROBES)                                                                                 \
    X(UNDO_STORE)                                                                                  \
    X(GIVE_UP)

enum pool_create_phase {
#define PHASE_ENUM(name) CREATE_##name,
    POOL_CREATE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CREATE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_CREATE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == CREATE_PHASE_COUNT, "a name for each phase");

struct pool_creation {
    struct machine machine;
    struct pool_create *create;
    struct pool *pool;
    struct disk_probe *probes;
    uint32_t disk_count;
    struct machine_job job;
    struct store *store;
    struct error job_error;
    struct ledger_format format;
    struct shards_create shards;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
    struct backends_close close;
    struct heartbeat_watch watch;
    bool labels_written;
    bool store_made;
    bool replaces; /* the database of a creation or import that was interrupted */
};

MACHINE_DONE(format_done, struct pool_creation, format.op)
MACHINE_DONE(commit_done, struct pool_creation, commit.op)

static struct pool_creation *
creation_of(struct machine *machine)
{
    return container_of(machine, struct pool_creation, machine);
}

/* ---- looking at the disks ---- */

static enum machine_step
read_labels(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (disk_probes_check_opened(creation->probes, creation->disk_count,
                                 &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    disk_probes_read(machine, creation->probes, creation->disk_count);
    return machine_wait(machine);
}

static enum machine_step
judge_disks(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (disk_probes_judge(machine->manager, creation->probes, creation->disk_count,
                          creation->create->force, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    if (!heartbeat_watch_begin(machine, &creation->watch, creation->probes,
                               creation->disk_count)) {
        return machine_goto(machine, CREATE_LAY_OUT);
    }
    return machine_wait(machine);
}

/* Some disk is of a pool that was not closed: is anybody using it? */
static enum machine_step
judge_again(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;
    struct error *error = &machine->control->error;

    if (heartbeat_watch_judge(&creation->watch, creation->probes, error) < 0 ||
        disk_probes_judge(machine->manager, creation->probes, creation->disk_count,
                          creation->create->force, error) < 0) {
        return machine_fail_noted(machine);
    }
    return MACHINE_NEXT;
}

/* ---- layout ---- */

/*
 * Which disks carry the ledger: durable ones, the fast ones first, then in the order given. The
 * first POOL_LEDGER_COPIES are to hold one; the last has room for one when another fails.
 */
static void
choose_ledger_disks(const struct disk_probe *probes, uint32_t count, bool *ret_with_ledger,
                    bool *ret_current)
{
    for (uint32_t copy = 0; copy < LEDGER_COPIES_MAX; copy++) {
        const struct disk_probe *best = NULL;
        for (uint32_t i = 0; i < count; i++) {
            const struct disk_probe *probe = &probes[i];
            if (!ret_with_ledger[i] && strcmp(probe->backend->ops->type, "memory") != 0 &&
                (best == NULL || probe->tier < best->tier)) {
                best = probe;
            }
        }
        if (best == NULL) {
            return;
        }
        ret_with_ledger[best - probes] = true;
        ret_current[best - probes] = copy < POOL_LEDGER_COPIES;
    }
}

static enum machine_step
lay_out(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;
    bool with_ledger[POOL_DISKS_MAX] = { false };
    bool is_current[POOL_DISKS_MAX] = { false };
    struct pool_record record = {
        .schema_version = SCHEMA_VERSION,
        .extent_bytes = creation->create->extent_bytes != 0 ? creation->create->extent_bytes
                                                             : POOL_EXTENT_BYTES_DEFAULT,
        .incarnation = 1,
        .next_branch = 1,
        .next_volume = 1,
        .next_extent = 1,
        .next_export = 1,
        .created_realtime_ns = manager_realtime_ns(pool->manager),
        .warning_percent = POOL_WARNING_PERCENT_DEFAULT,
        .critical_percent = POOL_CRITICAL_PERCENT_DEFAULT,
    };

    manager_make_guid(pool->manager, record.pool_guid);
    manager_make_guid(pool->manager, record.database_guid);
    snprintf(record.name, sizeof(record.name), "%s", pool->name);
    int result = pool_prepare(pool, &record);
    if (result < 0) {
        return machine_fail(&creation->machine, result, "no memory for the extent table");
    }
    choose_ledger_disks(creation->probes, creation->disk_count, with_ledger, is_current);
    for (uint32_t i = 0; i < creation->disk_count; i++) {
        if (pool_lay_out_disk(pool, &creation->probes[i], with_ledger[i],
                              &creation->machine.control->error) < 0) {
            return machine_fail_noted(&creation->machine);
        }
        pool->disks[i]->label.ledger_current = is_current[i];
    }
    allocator_refresh(&pool->allocator);
    if (allocator_available(&pool->allocator, NULL) == 0) {
        char size_text[SIZE_TEXT_SIZE];
        return machine_fail(&creation->machine, -ENOSPC,
                            "the disks have room for %llu extents of %s, and metadata needs them "
                            "all: choose smaller extents (--extent) or larger disks",
                            (unsigned long long)pool->allocator.slots_total,
                            size_format(record.extent_bytes, size_text));
    }
    return MACHINE_NEXT;
}

/* ---- the database ---- */

static int32_t
store_create_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_creation *creation = container_of(own, struct pool_creation, job);
    const struct manager_options *options = &creation->machine.manager->options;

    if (creation->replaces) {
        int result = options->store_remove(options->store_context, creation->pool->name,
                                           &creation->job_error);
        if (result < 0) {
            return result;
        }
    }
    return options->store_open(options->store_context, creation->pool->name, true,
                               &creation->store, &creation->job_error);
}

static int32_t
store_remove_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_creation *creation = container_of(own, struct pool_creation, job);
    const struct manager_options *options = &creation->machine.manager->options;
    struct store *store = creation->store;

    creation->store = NULL;
    store->ops->close(store);
    creation->job_error = (struct error){ 0 };
    return options->store_remove(options->store_context, creation->pool->name,
                                 &creation->job_error);
}

/* From here on the disks change. */
static enum machine_step
wipe_old_labels(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->status < 0) {
        error_set(&creation->job_error, machine->status, "%s", error_name(machine->status));
        return machine_fail(machine, machine->status, "cannot create the database: %.400s",
                            creation->job_error.message);
    }
    creation->store_made = true;
    creation->pool->store = creation->store;
    creation->labels_written = true;
    if (creation->create->force) {
        pool_labels_write(machine, creation->pool, NULL, false, true);
    }
    return machine_wait(machine);
}

static enum machine_step
write_labels(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "cannot remove the old labels: %s",
                            error_name(machine->status));
    }
    pool_labels_write(machine, creation->pool, NULL, true, false);
    return machine_wait(machine);
}

static enum machine_step
read_back(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "cannot write the labels: %s",
                            error_name(machine->status));
    }
    disk_probes_read_back(machine, creation->pool, creation->probes, creation->disk_count);
    return machine_wait(machine);
}

static enum machine_step
verify(struct pool_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (disk_probes_verify(creation->pool, creation->probes, creation->disk_count,
                           &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    return MACHINE_NEXT;
}

static enum machine_step
format_ledger(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;
    int result = pool_ledger_create(pool, POOL_LEDGER_COPIES);

    if (result < 0) {
        return machine_fail(&creation->machine, result, "cannot set up the commit ledger: %s",
                            error_name(result));
    }
    if (pool->ledger == NULL) {
        return MACHINE_NEXT;
    }
    creation->format.ledger = pool->ledger;
    creation->format.commit = 0;
    machine_arm(&creation->machine, &creation->format.op, format_done);
    ledger_format(&creation->format);
    return machine_wait(&creation->machine);
}

static enum machine_step
create_shards(struct pool_creation *creation)
{
    if (creation->machine.status < 0) {
        return machine_fail(&creation->machine, creation->machine.status,
                            "cannot write the commit ledger: %s",
                            error_name(creation->machine.status));
    }
    pool_ledger_note_current(creation->pool, creation->format.ret_current_copies);
    pool_prepare_volumes(creation->pool, 0);
    allocator_refresh(&creation->pool->allocator);
    pool_shards_create(&creation->machine, &creation->shards, creation->pool);
    return machine_wait(&creation->machine);
}

static enum machine_step
first_commit(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;

    if (creation->machine.status < 0) {
        return machine_fail(&creation->machine, creation->machine.status, "%s",
                            creation->shards.error.message);
    }
    schema_put_pool(&creation->batch, &pool->record);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        schema_put_disk(&creation->batch, &pool->disks[i]->record);
    }
    schema_put_run(&creation->batch, &pool->run);
    creation->commit.batch = &creation->batch;
    machine_arm(&creation->machine, &creation->commit.op, commit_done);
    committer_submit(pool, &creation->commit);
    return machine_wait(&creation->machine);
}

static enum machine_step
serve(struct pool_creation *creation)
{
    if (creation->machine.status < 0) {
        return machine_fail(&creation->machine, creation->machine.status,
                            "the first commit failed: %s",
                            error_name(creation->machine.status));
    }
    pool_serve(&creation->machine, &creation->round, creation->pool);
    return machine_wait(&creation->machine);
}

static enum machine_step
succeed(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;
    char size_text[SIZE_TEXT_SIZE];

    pool_set_state(pool, POOL_STATE_ONLINE, "%s", "");
    pool_heartbeat_start(pool);
    state_space_watch(pool);
    event_raise(pool->manager, EVENT_INFO, pool->name, NULL, "pool-created", "%u disks, %s",
                creation->disk_count,
                size_format(pool->allocator.slots_total * pool->record.extent_bytes, size_text));
    return machine_end(&creation->machine);
}

/* ---- undoing ---- */

static enum machine_step
undo(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;

    if (pool->shards != NULL) {
        pool_shards_destroy(pool, true);
    }
    if (pool->ledger != NULL) {
        ledger_destroy(pool->ledger);
        pool->ledger = NULL;
    }
    return MACHINE_NEXT;
}

static enum machine_step
undo_labels(struct pool_creation *creation)
{
    if (creation->labels_written) {
        pool_labels_write(&creation->machine, creation->pool, NULL, false, true);
    }
    return machine_wait(&creation->machine);
}

static enum machine_step
undo_close(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk->label_status < 0 && creation->labels_written && disk->backend != NULL) {
            event_raise(pool->manager, EVENT_WARNING, pool->name, disk->backend->spec,
                        "label-not-removed",
                        "the pool was not created, but its label on this disk could not be "
                        "removed: %s",
                        error_name(disk->label_status));
        }
    }
    /* Those that were laid out have moved from their probe to the pool. */
    pool_backends_close(&creation->machine, &creation->close, pool);
    return machine_wait(&creation->machine);
}

static enum machine_step
undo_store(struct pool_creation *creation)
{
    if (creation->store_made) {
        creation->pool->store = NULL;
        machine_offload(&creation->machine, &creation->job, store_remove_work);
    }
    return machine_wait(&creation->machine);
}

static enum machine_step
give_up(struct pool_creation *creation)
{
    struct pool *pool = creation->pool;

    if (creation->machine.status < 0) {
        event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "database-not-removed",
                    "the pool was not created, but its database could not be removed: %.200s",
                    creation->job_error.message);
    }
    list_remove(&pool->link); /* who waits for the end of all pools may be told by this */
    machine_leave_line(&creation->machine, -ENOENT, "pool `%s` could not be created", pool->name);
    pool_free(pool);
    creation->pool = NULL;
    return MACHINE_NEXT;
}

/* ---- the machine ---- */

static enum machine_step
creation_phase(struct machine *machine, uint32_t phase)
{
    struct pool_creation *creation = creation_of(machine);

    switch ((enum pool_create_phase)phase) {
    case CREATE_OPEN_DISKS:
        disk_probes_open(machine, creation->probes, creation->disk_count);
        return machine_wait(machine);
    case CREATE_READ_LABELS:
        return read_labels(creation);
    case CREATE_JUDGE_DISKS:
        return judge_disks(creation);
    case CREATE_READ_LABELS_AGAIN:
        disk_probes_read(machine, creation->probes, creation->disk_count);
        return machine_wait(machine);
    case CREATE_JUDGE_AGAIN:
        return judge_again(creation);
    case CREATE_LAY_OUT:
        return lay_out(creation);
    case CREATE_CREATE_STORE:
        machine_offload(machine, &creation->job, store_create_work);
        return machine_wait(machine);
    case CREATE_WIPE_OLD_LABELS:
        return wipe_old_labels(creation);
    case CREATE_WRITE_LABELS:
        return write_labels(creation);
    case CREATE_READ_BACK:
        return read_back(creation);
    case CREATE_VERIFY:
        return verify(creation);
    case CREATE_FORMAT_LEDGER:
        return format_ledger(creation);
    case CREATE_CREATE_SHARDS:
        return create_shards(creation);
    case CREATE_FIRST_COMMIT:
        return first_commit(creation);
    case CREATE_SERVE:
        return serve(creation);
    case CREATE_SUCCEED:
        return succeed(creation);
    case CREATE_UNDO:
        return undo(creation);
    case CREATE_UNDO_LABELS:
        return undo_labels(creation);
    case CREATE_UNDO_CLOSE:
        return undo_close(creation);
    case CREATE_UNDO_PROBES:
        disk_probes_close(machine, &creation->close, creation->probes, creation->disk_count);
        return machine_wait(machine);
    case CREATE_UNDO_STORE:
        return undo_store(creation);
    case CREATE_GIVE_UP:
        return give_up(creation);
    case CREATE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
creation_release(struct machine *machine)
{
    struct pool_creation *creation = creation_of(machine);

    round_free(&creation->round);
    backends_close_free(&creation->close);
    byte_buffer_free(&creation->batch);
    free(creation->probes);
    free(creation);
}

static const struct machine_ops POOL_CREATE_OPS = {
    .name = "pool create",
    .phase_names = PHASE_NAMES,
    .phase_count = CREATE_PHASE_COUNT,
    .failed_phase = CREATE_UNDO,
    .phase = creation_phase,
    .release = creation_release,
};

/* Its creation or import was interrupted: it has never been a pool, and makes way for one. */
static bool
is_unfinished(const struct pool *pool)
{
    return pool->state == POOL_STATE_OFFLINE && pool->database_unfinished && !pool->stopping;
}

static void
creation_begin(struct pool_creation *creation)
{
    struct manager *manager = creation->machine.manager;

    creation->pool = pool_new(manager, creation->create->name);
    machine_start_in_line(&creation->machine, creation->pool);
}

static void
unfinished_closed(struct manager *manager, void *context, const struct error *error)
{
    struct pool_creation *creation = context;

    ASSERT(creation->machine.manager == manager && error->code <= 0);
    if (!manager->stopping && manager_find_pool(manager, creation->create->name) == NULL) {
        creation_begin(creation);
        return;
    }
    error_set(&creation->create->control.error, -ESHUTDOWN,
              manager->stopping ? "the daemon is ending" : "the name has been taken meanwhile");
    creation->machine.failed = true;
    machine_abandon(&creation->machine);
}

/* What can be said without looking at any disk. 0 or -errno with `error` set. */
static int
check_arguments(const struct manager *manager, const struct pool_create *create,
                struct error *error)
{
    if (manager->stopping) {
        return error_set(error, -ESHUTDOWN, "the daemon is ending");
    }
    if (!schema_name_is_valid(create->name)) {
        return error_set(error, -EINVAL,
                         "`%.128s` is no pool name: use 1 to %d letters, digits, `.`, `_` or `-`, "
                         "not beginning with `.` or `-`",
                         create->name, NAME_BYTES_MAX);
    }
    const struct pool *existing = manager_find_pool(manager, create->name);
    if (existing != NULL && !is_unfinished(existing)) {
        return error_set(error, -EEXIST, "pool `%s` exists already%s", create->name,
                         existing->state == POOL_STATE_OFFLINE ? " (it is offline)" : "");
    }
    if (create->extent_bytes != 0 &&
        (!is_power_of_two(create->extent_bytes) || create->extent_bytes < EXTENT_BYTES_MIN ||
         create->extent_bytes > EXTENT_BYTES_MAX)) {
        return error_set(error, -EINVAL, "the extent size must be a power of two, 1M to 64M");
    }
    return disk_arguments_check(create->disks, create->disk_count, error);
}

void
manager_pool_create(struct manager *manager, struct pool_create *create)
{
    struct error error = { 0 };

    ASSERT_ON_REACTOR(manager->control);
    if (check_arguments(manager, create, &error) < 0) {
        control_refuse(manager, &create->control, error.code, "%s", error.message);
        return;
    }
    struct pool_creation *creation = calloc(1, sizeof(*creation));
    struct disk_probe *probes = disk_probes_from_arguments(create->disks, create->disk_count, 0);
    ASSERT(creation != NULL);
    machine_init(&creation->machine, &POOL_CREATE_OPS, manager, &create->control);
    creation->create = create;
    creation->probes = probes;
    creation->disk_count = create->disk_count;
    struct pool *existing = manager_find_pool(manager, create->name);
    if (existing != NULL) {
        creation->replaces = true;
        pool_close(existing, unfinished_closed, creation);
        return;
    }
    creation_begin(creation);
}
