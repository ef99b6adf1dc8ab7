/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a pool that serves.
 *
 * THEORY OF OPERATION
 *
 * The checker of metadata/check.h wants a database that stands still: it gets a snapshot of the
 * store, which is the state after one commit, complete by M1. What has been acknowledged and not
 * yet committed is in the volatile journal and in memory only; it is no part of what is checked,
 * and not needed for it, since every commit leaves the database in agreement with itself (P4).
 *
 * Memory is compared where it must agree with that snapshot:
 *  - volumes, exports and disks change in the pool's line. The check stands in that line while the
 *    snapshot is taken and those few records are read, so both sides are of one instant; where they
 *    differ all the same (a change that ends outside the line), it looks again with another
 *    snapshot a little later, and believes the last look only.
 *  - an extent keeps its number, its owner and its places for life. One that only one side knows
 *    has come or gone since the snapshot; one that both know otherwise is a suspect, for its number
 *    may have been given again meanwhile: it is compared with the database as of now until both
 *    agree or time is up. A place of an extent that is alive must be taken in the disk's slot map,
 *    or it could be handed out again.
 * Use bits and map pages belong to other reactors and are ahead of the snapshot: they are not
 * compared.
 *
 * The labels of all disks that answer within a few seconds are read before the snapshot, so that
 * the database cannot be older than they are.
 *
 * Everything runs on the control reactor in small steps with a rest behind each, so that its other
 * work (other volumes' I/O) waits for less than a millisecond.
 *
 * Invariants
 *  OC1  The snapshot is released before the pool's store is closed: pool_close() waits for the
 *       check, which it cancels.
 *  OC2  Nothing is changed, on disk or in memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "metadata/check.h"
#include "volmgr/check_online_impl.h"

#define CHECK_PHASES(X)                                                                            \
    X(READ_LABELS)                                                                                 \
    X(STEP_IN)                                                                                     \
    X(SNAPSHOT)                                                                                    \
    X(SCAN_RECORDS)                                                                                \
    X(COMPARE_RECORDS)                                                                             \
    X(SCAN_EXTENTS)                                                                                \
    X(COMPARE_EXTENTS)                                                                             \
    X(READ_SUSPECT)                                                                                \
    X(JUDGE_SUSPECT)                                                                               \
    X(WALK)                                                                                        \
    X(WALKED)                                                                                      \
    X(GIVE_BACK)                                                                                   \
    X(REST)                                                                                        \
    X(RELEASE)                                                                                     \
    X(END)

enum checking_phase {
#define PHASE_ENUM(name) CHECKING_##name,
    CHECK_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CHECKING_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    CHECK_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == CHECKING_PHASE_COUNT, "a name for each phase");

enum {
    STEP_BYTES = 64 << 10, /* decoded in one go: a few hundred microseconds at most */
    PERCENT_COMPARED = 10,
    RECORD_LOOKS = 5,
    SUSPECT_LOOKS = 40, /* at each, SUSPECT_REST_NS apart: commits under way have ended then */
    PERCENT_EXTENTS = 40, /* the walk has come so far when it has seen all extents */
};
#define REST_NS      (500 * UINT64_C(1000))
#define SUSPECT_REST_NS (250 * NS_PER_MS)
#define PROGRESS_NS  (200 * NS_PER_MS)
#define LABEL_WAIT_NS (5 * NS_PER_S)

/* Reading one disk's label; on its own, because a disk may take long to fail (P9). */
struct label_attempt {
    struct label_read read;
    struct disk *disk;
    struct checking *checking; /* NULL: nobody waits any more */
    struct list link;          /* checking->attempts */
};

MACHINE_DONE(snapshot_done, struct checking, snapshot.op)
MACHINE_DONE(scan_done, struct checking, scan.op)
MACHINE_DONE(walk_done, struct checking, check.op)
MACHINE_DONE(get_done, struct checking, get.op)

/* ---- notes ---- */

static void
keep_note(struct checking *checking, bool is_error, const char *code, const char *text)
{
    struct check_result *result = checking->result;
    struct check_note note = { .is_error = is_error };

    result->report.errors += is_error;
    result->report.warnings += !is_error;
    if (result->report.note_count == CHECK_NOTES_MAX) {
        return;
    }
    snprintf(note.code, sizeof(note.code), "%s", code);
    snprintf(note.text, sizeof(note.text), "%s", text);
    byte_buffer_append(&result->notes, &note, sizeof(note));
    result->report.note_count++;
}

static void
note_error(struct checking *checking, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void
note_error(struct checking *checking, const char *code, const char *format, ...)
{
    char text[sizeof(((struct check_note *)NULL)->text)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    keep_note(checking, true, code, text);
}

void
check_doubt(struct checking *checking, const char *code, const char *format, ...)
{
    struct check_note note = { .is_error = true };
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(note.text, sizeof(note.text), format, arguments);
    va_end(arguments);
    snprintf(note.code, sizeof(note.code), "%s", code);
    if (checking->doubts.length_bytes < CHECK_NOTES_MAX * sizeof(note)) {
        byte_buffer_append(&checking->doubts, &note, sizeof(note));
    }
}

static void
take_finding(struct metadata_check *check, const struct check_finding *finding)
{
    struct checking *checking = container_of(check, struct checking, check);

    keep_note(checking, finding->severity == CHECK_ERROR, check_code_name(finding->code),
              finding->text);
}

static bool
is_cancelled(const struct checking *checking)
{
    return checking->cancel || checking->pool->stopping || !pool_is_serving(checking->pool);
}

static enum machine_step
cancelled(struct checking *checking)
{
    return machine_fail(&checking->machine, -ECANCELED, "the pool is closing");
}

/* ---- labels ---- */

static void
label_answered(struct io_op *op)
{
    struct label_attempt *attempt = container_of(op, struct label_attempt, read.op);
    struct checking *checking = attempt->checking;
    struct disk *disk = attempt->disk;

    disk->busy--;
    if (checking != NULL) {
        list_remove(&attempt->link);
        if (op->result == 0) {
            checking->labels[checking->label_count++] = attempt->read.ret_label;
        } else if (op->result == -ENOENT || op->result == -EBADMSG) {
            note_error(checking, op->result == -ENOENT ? "label-missing" : "label-damaged",
                       "disk %u has %s", (unsigned)disk->record.index,
                       op->result == -ENOENT ? "no label of a pool" : "only damaged labels");
        }
        machine_completed(&checking->machine, 0);
    }
    free(attempt);
    disk_release(disk);
}

static void
labels_late(struct timer *timer)
{
    struct checking *checking = container_of(timer, struct checking, label_timer);
    uint32_t late = 0;

    list_for_each_safe(&checking->attempts, link) {
        struct label_attempt *attempt = list_entry(link, struct label_attempt, link);
        list_remove(link);
        attempt->checking = NULL;
        late++;
    }
    while (late-- > 0) {
        machine_completed(&checking->machine, 0); /* the last one runs the next phase */
    }
}

static enum machine_step
read_labels(struct checking *checking)
{
    struct machine *machine = &checking->machine;
    struct pool *pool = checking->pool;
    struct reactor *control = machine->manager->control;

    checking->labels = calloc(MAX(pool->disk_count, 1u), sizeof(*checking->labels));
    ASSERT(checking->labels != NULL);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL || disk->label_busy) {
            continue;
        }
        struct label_attempt *attempt = calloc(1, sizeof(*attempt));
        ASSERT(attempt != NULL);
        attempt->disk = disk;
        attempt->checking = checking;
        attempt->read.backend = disk->backend;
        list_push_back(&checking->attempts, &attempt->link);
        disk->busy++;
        machine_arm(machine, &attempt->read.op, label_answered);
        label_read(&attempt->read);
    }
    timer_arm(control, &checking->label_timer, reactor_now_ns(control) + LABEL_WAIT_NS,
              labels_late);
    return machine_wait(machine);
}

/* ---- extents that memory and database know otherwise ---- */

static enum machine_step
read_suspect(struct checking *checking)
{
    struct store_get *get = &checking->get;
    uint64_t id = 0;

    if (checking->suspect * sizeof(id) >= checking->suspects.length_bytes) {
        return machine_goto(&checking->machine, CHECKING_WALK);
    }
    if (checking->cancel || checking->pool->stopping || !pool_is_serving(checking->pool)) {
        return machine_fail(&checking->machine, -ECANCELED, "the pool is closing");
    }
    memcpy(&id, checking->suspects.data + checking->suspect * sizeof(id), sizeof(id));
    get->family = STORE_FAMILY_EXTENT;
    get->key_bytes = EXTENT_KEY_BYTES;
    extent_key_encode(get->key, id);
    byte_buffer_clear(&get->value);
    machine_arm(&checking->machine, &get->op, get_done);
    store_get(checking->pool->store, get);
    return machine_wait(&checking->machine);
}

/* Agrees or is gone: the next one. Otherwise again, and at last it is an error. */
static enum machine_step
judge_suspect(struct checking *checking)
{
    const struct pool *pool = checking->pool;
    struct machine *machine = &checking->machine;
    struct extent_record record;
    const char *fault = NULL;
    uint64_t id = 0;

    memcpy(&id, checking->suspects.data + checking->suspect * sizeof(id), sizeof(id));
    const struct extent *extent = check_living_extent(pool, id);
    if (machine->status == 0 && extent != NULL &&
        extent_record_decode(checking->get.value.data, checking->get.value.length_bytes,
                             pool->grains_per_extent, &record) == 0) {
        fault = check_extent_fault(pool, extent, &record);
    }
    machine->status = 0;
    machine_goto(machine, CHECKING_READ_SUSPECT);
    if (fault != NULL && ++checking->suspect_looks < SUSPECT_LOOKS) {
        machine_pause(machine, &checking->pause, SUSPECT_REST_NS);
        return machine_wait(machine);
    }
    if (fault != NULL) {
        note_error(checking, fault,
                   "the running daemon has extent %" PRIu64 " otherwise than the database, or "
                   "takes its place on disk %u for free",
                   id, (unsigned)extent->places[0].disk);
    }
    checking->suspect++;
    checking->suspect_looks = fault != NULL ? SUSPECT_LOOKS - 4 : 0; /* time was given already */
    return MACHINE_NEXT;
}

/* ---- phases ---- */

static enum machine_step
step_in(struct checking *checking)
{
    timer_disarm(checking->machine.manager->control, &checking->label_timer);
    if (is_cancelled(checking)) {
        return cancelled(checking);
    }
    checking->result->report.disks = checking->label_count;
    return machine_step_in(&checking->machine);
}

/* What is being made now, outside the line, or is made later need not be in the snapshot. */
static void
note_ends(struct checking *checking)
{
    const struct pool *pool = checking->pool;

    checking->volumes_end = pool->record.next_volume;
    checking->exports_end = pool->record.next_export;
    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->pending) {
            checking->volumes_end = MIN(checking->volumes_end, volume->durable.id);
        }
        list_for_each(&volume->exports, export_link) {
            const struct export *export = list_entry(export_link, struct export, volume_link);
            if (export->pending) {
                checking->exports_end = MIN(checking->exports_end, export->record.id);
            }
        }
    }
}

static enum machine_step
take_snapshot(struct checking *checking)
{
    if (is_cancelled(checking)) {
        return cancelled(checking);
    }
    note_ends(checking);
    checking->has_snapshot = true;
    machine_arm(&checking->machine, &checking->snapshot.op, snapshot_done);
    store_snapshot_create(checking->pool->store, &checking->snapshot);
    return machine_wait(&checking->machine);
}

static enum machine_step
scan(struct checking *checking, enum store_family family)
{
    struct store_scan *request = &checking->scan;

    if (checking->machine.status < 0) {
        checking->has_snapshot = checking->snapshot.handle != NULL;
        return machine_fail(&checking->machine, checking->machine.status,
                            "the database cannot be read: %s",
                            error_name(checking->machine.status));
    }
    if (is_cancelled(checking)) {
        return cancelled(checking);
    }
    request->family = family;
    request->bytes_max = STEP_BYTES;
    request->snapshot = &checking->snapshot;
    byte_buffer_clear(&request->items);
    machine_arm(&checking->machine, &request->op, scan_done);
    store_scan(checking->pool->store, request);
    return machine_wait(&checking->machine);
}

/* What the last scan brought. Goes back to `again` for more of the family. */
static enum machine_step
compare(struct checking *checking, check_compare_fn *compare_item, enum checking_phase again)
{
    struct store_scan *request = &checking->scan;
    struct store_batch_item item;
    size_t position = 0;

    while (store_batch_next(request->items.data, request->items.length_bytes, &position, &item) ==
           1) {
        compare_item(checking, &item);
    }
    if (checking->machine.status < 0) {
        /* The walk comes to the same place and reports it. */
        request->ret_more = false;
    }
    if (request->ret_more) {
        memcpy(request->start, request->ret_next, request->ret_next_bytes);
        request->start_bytes = request->ret_next_bytes;
        machine_goto(&checking->machine, again);
        machine_pause(&checking->machine, &checking->pause, REST_NS);
        return machine_wait(&checking->machine);
    }
    request->start_bytes = 0;
    checking->machine.status = 0;
    return MACHINE_NEXT;
}

static enum machine_step
compare_records(struct checking *checking)
{
    enum machine_step step = compare(checking, check_compare_record, CHECKING_SCAN_RECORDS);

    if (step != MACHINE_NEXT) {
        return step;
    }
    check_compare_ends(checking);
    machine_step_out(&checking->machine);
    if (checking->doubts.length_bytes > 0 && ++checking->record_looks < RECORD_LOOKS) {
        return machine_goto(&checking->machine, CHECKING_GIVE_BACK);
    }
    for (size_t at = 0; at < checking->doubts.length_bytes; at += sizeof(struct check_note)) {
        struct check_note note;
        memcpy(&note, checking->doubts.data + at, sizeof(note));
        keep_note(checking, true, note.code, note.text);
    }
    return MACHINE_NEXT;
}

/* Before another look at the records. */
static enum machine_step
rest(struct checking *checking)
{
    checking->snapshot = (struct store_snapshot){ 0 };
    byte_buffer_clear(&checking->doubts);
    byte_buffer_clear(&checking->volume_ids);
    byte_buffer_clear(&checking->export_ids);
    checking->grains_known = 0;
    machine_goto(&checking->machine, CHECKING_STEP_IN);
    machine_pause(&checking->machine, &checking->pause, SUSPECT_REST_NS);
    return machine_wait(&checking->machine);
}

static void
show_progress(struct timer *timer)
{
    struct checking *checking = container_of(timer, struct checking, progress_timer);
    struct reactor *control = checking->machine.manager->control;
    const struct metadata_check *check = &checking->check;
    uint64_t extents = MIN(check->ret_extents, checking->extents_known);
    uint64_t grains = MIN(check->ret_grains, checking->grains_known);
    uint64_t percent = PERCENT_COMPARED;

    percent += extents * (PERCENT_EXTENTS - PERCENT_COMPARED) / MAX(checking->extents_known, 1u);
    percent += grains * (99 - PERCENT_EXTENTS) / MAX(checking->grains_known, 1u);
    checking->result->report.percent = (uint8_t)percent;
    job_progress(checking->job, (uint8_t)percent);
    timer_arm(control, &checking->progress_timer, reactor_now_ns(control) + PROGRESS_NS,
              show_progress);
}

static enum machine_step
walk(struct checking *checking)
{
    if (is_cancelled(checking)) {
        return cancelled(checking);
    }
    checking->check = (struct metadata_check){
        .store = checking->pool->store,
        .snapshot = &checking->snapshot,
        .labels = checking->labels,
        .label_count = checking->label_count,
        .finding = take_finding,
        .step_bytes = STEP_BYTES,
        .rest_ns = REST_NS,
    };
    machine_arm(&checking->machine, &checking->check.op, walk_done);
    metadata_check(&checking->check);
    show_progress(&checking->progress_timer);
    return machine_wait(&checking->machine);
}

static enum machine_step
walked(struct checking *checking)
{
    const struct metadata_check *check = &checking->check;
    struct check_report *report = &checking->result->report;

    timer_disarm(checking->machine.manager->control, &checking->progress_timer);
    report->commit = check->ret_commit;
    report->records = check->ret_records;
    report->extents = check->ret_extents;
    report->pages = check->ret_pages;
    report->grains = check->ret_grains;
    if (checking->machine.status < 0) {
        return machine_fail(&checking->machine, checking->machine.status, "it was given up: %s",
                            error_name(checking->machine.status));
    }
    return machine_goto(&checking->machine, CHECKING_RELEASE);
}

static enum machine_step
release_snapshot(struct checking *checking)
{
    if (!checking->has_snapshot) {
        return MACHINE_NEXT;
    }
    checking->has_snapshot = false;
    machine_arm(&checking->machine, &checking->snapshot.op, snapshot_done);
    store_snapshot_release(checking->pool->store, &checking->snapshot);
    return machine_wait(&checking->machine);
}

static enum machine_step
checking_phase(struct machine *machine, uint32_t phase)
{
    struct checking *checking = container_of(machine, struct checking, machine);

    switch ((enum checking_phase)phase) {
    case CHECKING_READ_LABELS:
        return read_labels(checking);
    case CHECKING_STEP_IN:
        return step_in(checking);
    case CHECKING_SNAPSHOT:
        return take_snapshot(checking);
    case CHECKING_SCAN_RECORDS:
        return scan(checking, STORE_FAMILY_SYSTEM);
    case CHECKING_COMPARE_RECORDS:
        return compare_records(checking);
    case CHECKING_SCAN_EXTENTS:
        return scan(checking, STORE_FAMILY_EXTENT);
    case CHECKING_COMPARE_EXTENTS:
        return compare(checking, check_compare_extent, CHECKING_SCAN_EXTENTS);
    case CHECKING_READ_SUSPECT:
        return read_suspect(checking);
    case CHECKING_JUDGE_SUSPECT:
        return judge_suspect(checking);
    case CHECKING_WALK:
        return walk(checking);
    case CHECKING_WALKED:
        return walked(checking);
    case CHECKING_GIVE_BACK:
        return release_snapshot(checking);
    case CHECKING_REST:
        return rest(checking);
    case CHECKING_RELEASE:
        return release_snapshot(checking);
    case CHECKING_END:
        return MACHINE_NEXT;
    case CHECKING_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
checking_release(struct machine *machine)
{
    struct checking *checking = container_of(machine, struct checking, machine);
    struct check_report *report = &checking->result->report;
    int code = machine->control->error.code;
    char text[256];

    report->finished = true;
    report->result = code;
    report->percent = code == 0 ? 100 : report->percent;
    report->ended_realtime_ns = manager_realtime_ns(machine->manager);
    if (code < 0) {
        snprintf(text, sizeof(text), "%.250s", machine->control->error.message);
        memcpy(report->reason, text, sizeof(report->reason));
    } else {
        snprintf(text, sizeof(text), "%" PRIu64 " errors, %" PRIu64 " warnings", report->errors,
                 report->warnings);
    }
    if (code == 0 && report->errors > 0) {
        event_raise(machine->manager, EVENT_CRITICAL, report->pool, NULL, "check-found-errors",
                    "the metadata is damaged: %s; \"volctl check\" tells more", text);
    }
    job_end(checking->job, code == 0 && report->errors > 0 ? -EUCLEAN : code, text);
    checking->result->running = NULL;
    byte_buffer_free(&checking->scan.items);
    byte_buffer_free(&checking->get.value);
    byte_buffer_free(&checking->suspects);
    byte_buffer_free(&checking->doubts);
    byte_buffer_free(&checking->volume_ids);
    byte_buffer_free(&checking->export_ids);
    free(checking->labels);
    free(checking);
}

static const struct machine_ops CHECKING_OPS = {
    .name = "check",
    .phase_names = PHASE_NAMES,
    .phase_count = CHECKING_PHASE_COUNT,
    .failed_phase = CHECKING_RELEASE,
    .phase = checking_phase,
    .release = checking_release,
};

/* ---- results ---- */

void
checks_init(struct manager *manager)
{
    list_init(&manager->checks);
}

static void
result_free(struct check_result *result)
{
    ASSERT(result->running == NULL);
    list_remove(&result->link);
    byte_buffer_free(&result->notes);
    free(result);
}

void
checks_free(struct manager *manager)
{
    list_for_each_safe(&manager->checks, link) {
        struct check_result *result = list_entry(link, struct check_result, link);
        result->running = NULL; /* a simulated death */
        result_free(result);
    }
}

static struct check_result *
result_find(const struct manager *manager, const char *pool_name)
{
    list_for_each(&manager->checks, link) {
        struct check_result *result = list_entry(link, struct check_result, link);
        if (strcmp(result->report.pool, pool_name) == 0) {
            return result;
        }
    }
    return NULL;
}

bool
pool_check_cancel(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    const struct check_result *result = result_find(pool->manager, pool->name);

    if (result == NULL || result->running == NULL) {
        return false;
    }
    result->running->cancel = true;
    result->running->check.cancel = true;
    return true;
}

static void
checking_start(struct pool *pool)
{
    struct manager *manager = pool->manager;
    struct check_result *result = calloc(1, sizeof(*result));
    struct checking *checking = calloc(1, sizeof(*checking));

    ASSERT(result != NULL && checking != NULL);
    checking->pool = pool;
    checking->result = result;
    checking->job = job_start(manager, "check", pool->name);
    list_init(&checking->attempts);
    result->running = checking;
    snprintf(result->report.pool, sizeof(result->report.pool), "%s", pool->name);
    result->report.job = manager->job_sequence;
    result->report.started_realtime_ns = manager_realtime_ns(manager);
    list_push_back(&manager->checks, &result->link);
    machine_init(&checking->machine, &CHECKING_OPS, manager, NULL);
    checking->machine.pool = pool;
    machine_start(&checking->machine);
}

void
manager_pool_check(struct manager *manager, struct pool_check *check)
{
    ASSERT_ON_REACTOR(manager->control);
    struct pool *pool = manager_find_pool(manager, check->name);

    if (pool == NULL) {
        control_refuse(manager, &check->control, -ENOENT, "there is no pool `%s`", check->name);
        return;
    }
    if (manager->stopping || pool->stopping || !pool_is_serving(pool)) {
        control_refuse(manager, &check->control, -ENODEV,
                       "the pool `%s` does not serve; \"volmgrd --check\" looks at it while no "
                       "daemon runs",
                       pool->name);
        return;
    }
    struct check_result *before = result_find(manager, pool->name);
    if (before == NULL || before->running == NULL) {
        if (before != NULL) {
            result_free(before);
        }
        checking_start(pool);
    }
    check->ret_job = result_find(manager, pool->name)->report.job;
    control_complete(manager, &check->control, 0);
}

void
manager_check_query(struct manager *manager, struct check_query *query)
{
    uint32_t room = 0;

    ASSERT_ON_REACTOR(manager->control);
    list_for_each(&manager->checks, link) {
        room++;
    }
    query->ret_count = 0;
    query->ret_checks = calloc(MAX(room, 1u), sizeof(*query->ret_checks));
    ASSERT(query->ret_checks != NULL);
    list_for_each(&manager->checks, link) {
        const struct check_result *result = list_entry(link, struct check_result, link);
        if (query->name[0] != '\0' && strcmp(query->name, result->report.pool) != 0) {
            continue;
        }
        struct check_report *report = &query->ret_checks[query->ret_count++];
        *report = result->report;
        report->notes = calloc(MAX(report->note_count, 1u), sizeof(*report->notes));
        ASSERT(report->notes != NULL);
        if (report->note_count > 0) {
            memcpy(report->notes, result->notes.data, result->notes.length_bytes);
        }
    }
    control_complete(manager, &query->control, 0);
}

void
check_query_free(struct check_query *query)
{
    for (uint32_t i = 0; i < query->ret_count; i++) {
        free(query->ret_checks[i].notes);
    }
    free(query->ret_checks);
    query->ret_checks = NULL;
    query->ret_count = 0;
}
