/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a pool.
 *
 * The phases below are the whole of it, in order. Nothing is served before the last one, and no
 * extent is handed out before replay is done (X2). Whatever goes wrong leaves the pool OFFLINE with
 * the reason; the disks and the database are let go of, unchanged but for what replay and the
 * ledger have made durable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/pool_open_impl.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_control_impl.h"

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    POOL_OPEN_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == OPEN_PHASE_COUNT, "a name for each phase");

enum {
    SCAN_BYTES = 4 << 20,
    RINGS_LEFT_MAX = 8, /* so many runs back volatile journals may have been left */
};
#define LOCK_POLL_NS (50 * NS_PER_MS)

MACHINE_DONE(scan_done, struct pool_opening, scan.op)
MACHINE_DONE(commit_done, struct pool_opening, commit.op)

/* ---- the database ---- */

static int32_t
store_open_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_opening *opening = container_of(own, struct pool_opening, job);
    const struct manager_options *options = &opening->machine.manager->options;

    return options->store_open(options->store_context, opening->pool->name, false,
                               &opening->store, &opening->job_error);
}

static enum machine_step
scan_family(struct pool_opening *opening, enum store_family family)
{
    opening->scan.family = family;
    opening->scan.prefix_bytes = 0;
    opening->scan.bytes_max = SCAN_BYTES;
    byte_buffer_clear(&opening->scan.items);
    machine_arm(&opening->machine, &opening->scan.op, scan_done);
    store_scan(opening->pool->store, &opening->scan);
    return machine_wait(&opening->machine);
}

/* After a piece: go back to `scan_phase` for the next one; or reset for the next family. */
static bool
scan_continues(struct pool_opening *opening, uint32_t scan_phase)
{
    struct store_scan *scan = &opening->scan;

    scan->start_bytes = 0;
    if (scan->ret_more) {
        memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
        scan->start_bytes = scan->ret_next_bytes;
        machine_goto(&opening->machine, scan_phase);
        return true;
    }
    byte_buffer_free(&scan->items);
    return false;
}

static enum machine_step
scan_system(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;

    if (machine->status < 0) {
        error_set(&opening->job_error, machine->status, "%s", error_name(machine->status));
        return machine_fail(machine, machine->status, "its database cannot be opened: %.400s",
                            opening->job_error.message);
    }
    if (opening->pool->store == NULL) {
        opening->pool->store = opening->store;
    }
    return scan_family(opening, STORE_FAMILY_SYSTEM);
}

static enum machine_step
load_system(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;
    struct pool_load *load = &opening->load;
    struct error *error = &machine->control->error;
    char boot_id[37];

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "its database cannot be read: %s",
                            error_name(machine->status));
    }
    if (pool_load_system(load, &opening->scan.items, error) < 0) {
        return machine_fail_noted(machine);
    }
    if (scan_continues(opening, OPEN_SCAN_SYSTEM)) {
        return MACHINE_NEXT;
    }
    pool->database_unfinished = !load->has_pool;
    if (pool_load_check(load, pool->name, error) < 0) {
        return machine_fail_noted(machine);
    }
    pool->database_commit = load->commit;
    opening->last_run = load->run;
    opening->was_clean = load->run.state == RUN_STATE_CLEAN;
    machine->manager->options.platform->ops->boot_id(machine->manager->options.platform, boot_id);
    opening->same_boot = strcmp(boot_id, load->run.boot_id) == 0;
    int result = pool_prepare(pool, &load->pool);
    if (result < 0) {
        return machine_fail(machine, result, "no memory for the extent table");
    }
    if (pool_find_begin(opening) < 0) {
        return machine_fail(machine, -EUCLEAN, "the database is damaged: a disk is there twice");
    }
    return MACHINE_NEXT;
}

/* ---- the disks ---- */

/*
 * A disk may still be locked by the last requests of a process that has died (the kernel keeps the
 * lock until they have ended): wait for it, going back to `open_phase`.
 */
static enum machine_step
read_labels(struct pool_opening *opening, uint32_t open_phase)
{
    struct machine *machine = &opening->machine;
    uint64_t now_ns = reactor_now_ns(machine->manager->control);
    bool locked = false;

    for (uint32_t i = 0; i < opening->probe_count; i++) {
        locked = locked || opening->probes[i].status == -EBUSY;
    }
    if (locked && opening->locked_until_ns == 0) {
        opening->locked_until_ns = now_ns + machine->manager->options.disk_timeout_ns;
    }
    if (locked && now_ns < opening->locked_until_ns) {
        machine_goto(machine, open_phase);
        machine_pause(machine, &opening->pause, LOCK_POLL_NS);
        return machine_wait(machine);
    }
    opening->locked_until_ns = 0;
    disk_probes_read(machine, opening->probes, opening->probe_count);
    return machine_wait(machine);
}

static enum machine_step
match_disks(struct pool_opening *opening)
{
    pool_find_match(opening);
    if (opening->missing_count == 0 ||
        opening->machine.manager->options.disk_search == NULL) {
        return machine_goto(&opening->machine, OPEN_RELEASE_STRANGERS);
    }
    /* What is there in the place of a missing disk is let go of first: it may be locked by us. */
    disk_probes_close(&opening->machine, &opening->close, opening->probes, opening->probe_count);
    return machine_wait(&opening->machine);
}

static enum machine_step
recognise(struct pool_opening *opening)
{
    pool_find_recognise(opening);
    disk_probes_close(&opening->machine, &opening->close, opening->found, opening->found_count);
    return machine_wait(&opening->machine);
}

/* Open again what is missing, now under the new texts. */
static enum machine_step
reopen_disks(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;

    free(opening->found);
    opening->found = NULL;
    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        if (pool->disks[probe->index]->backend == NULL) {
            disk_probes_open(&opening->machine, probe, 1);
        }
    }
    return machine_wait(&opening->machine);
}

/*
 * The incarnation of this run is above every one that was ever written, also by a start that ended
 * between the labels and the database.
 */
static enum machine_step
raise_incarnation(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;
    uint64_t highest = pool->record.incarnation;
    const uint8_t *host = machine->manager->options.host_guid;
    uint32_t present = 0;
    bool taken_over = false;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL) {
            continue;
        }
        highest = MAX(highest, disk->label.incarnation);
        present++;
        bool is_others = disk->label.open && memcmp(disk->label.host_guid, host, GUID_BYTES) != 0;
        if (is_others && !pool->take_over) {
            return machine_fail(machine, -EBUSY,
                                "disk %.200s says that another host has opened the pool and not "
                                "closed it: make sure that it does not use it any more, then "
                                "`volctl pool import --force`",
                                disk->backend->spec);
        }
        taken_over = taken_over || is_others;
    }
    if (taken_over) {
        event_raise(machine->manager, EVENT_WARNING, pool->name, NULL, "pool-taken-over",
                    "another host had opened the pool and not closed it (--force)");
    }
    if (present == 0) {
        return machine_fail(machine, -ENODEV, "none of its disks is there; disk 0: %s",
                            pool->disks[0] != NULL ? pool->disks[0]->problem : "missing");
    }
    pool->record.incarnation = highest + 1;
    return MACHINE_NEXT;
}

/* ---- is anybody else using it? ---- */

static enum machine_step
watch(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    const struct pool *pool = opening->pool;

    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        const struct disk *disk = pool->disks[probe->index];
        probe->backend = disk->backend; /* lent until the look has ended */
        probe->label = disk->label;
        probe->status = disk->backend != NULL ? 0 : -ENODEV;
    }
    if (!heartbeat_watch_begin(machine, &opening->watch, opening->probes,
                               opening->probe_count)) {
        return machine_goto(machine, OPEN_RAISE_INCARNATION);
    }
    return machine_wait(machine);
}

static enum machine_step
watched(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    const struct pool *pool = opening->pool;
    int result = heartbeat_watch_judge(&opening->watch, opening->probes,
                                       &machine->control->error);

    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        struct disk *disk = pool->disks[probe->index];
        if (disk->backend != NULL && probe->backend == NULL) {
            /* It did not answer any more; the attempt to read it closes it one day. */
            disk->backend = NULL;
            snprintf(disk->problem, sizeof(disk->problem), "%.127s", probe->error.message);
            opening->missing_count++;
        }
        probe->backend = NULL;
    }
    return result < 0 ? machine_fail_noted(machine) : raise_incarnation(opening);
}

/* ---- after the ledger has brought the database up to date: all over again ---- */

static enum machine_step
close_for_reload(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;

    ledger_destroy(pool->ledger);
    pool->ledger = NULL;
    pool_backends_close(&opening->machine, &opening->close, pool);
    return machine_wait(&opening->machine);
}

static void
forget_records(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;

    for (uint32_t i = pool->disk_count; i > 0; i--) {
        if (pool->disks[i - 1] != NULL) {
            pool_disk_free(pool, pool->disks[i - 1]);
        }
    }
    if (pool->allocator.machine != NULL) {
        allocator_free(&pool->allocator);
    }
    extent_table_free(&pool->extents);
    pool_load_free(&opening->load);
    free(opening->probes);
    opening->probes = NULL;
    opening->probe_count = 0;
}

/* ---- extents, shards, volumes ---- */

static enum machine_step
load_extents(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "its database cannot be read: %s",
                            error_name(machine->status));
    }
    if (pool_load_extents(opening, &opening->scan.items, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    if (scan_continues(opening, OPEN_SCAN_EXTENTS)) {
        return MACHINE_NEXT;
    }
    pool_load_checkpoints(opening);
    allocator_refresh(&pool->allocator);
    allocator_find_free_ids(&pool->allocator);
    committer_init(&pool->committer, pool, opening->load.commit);
    return MACHINE_NEXT;
}

static enum machine_step
make_volumes(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "%s", opening->shards.error.message);
    }
    if (pool_load_volumes(opening, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    if (opening->was_clean && !opening->returned) {
        return machine_goto(machine, OPEN_REJOIN_LEDGER);
    }
    return MACHINE_NEXT;
}

/* ---- replay ---- */

static enum machine_step
read_journals(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;

    if (opening->was_clean) {
        return machine_goto(machine, OPEN_REJOIN_LEDGER);
    }
    if (!opening->same_boot) {
        pool_load_unclean(opening);
        return machine_goto(machine, OPEN_REJOIN_LEDGER); /* the rings went with the power */
    }
    opening->replay = pool_replay_new(opening);
    machine_offload(machine, &opening->job, pool_replay_read_work);
    return machine_wait(machine);
}

static enum machine_step
sort_records(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the last run did not end in order, and what it kept in memory cannot "
                            "be read (%.200s): writes that hosts had not flushed would be lost; "
                            "start with --accept-loss to go on without them",
                            opening->job_error.message);
    }
    pool_replay_sort(opening->replay);
    pool_load_unclean(opening);
    return MACHINE_NEXT;
}

static enum machine_step
pages_committed(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "replay cannot be committed: %s",
                            error_name(machine->status));
    }
    opening->room_checkpoints = 0;
    return machine_goto(machine, pool_replay_has_more(opening->replay) ? OPEN_FETCH_PAGES
                                                                        : OPEN_REJOIN_LEDGER);
}

/* ---- waiting ---- */

bool
pool_open_is_settled(struct pool_opening *opening, uint32_t phase)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    const struct pool *pool = opening->pool;

    bool settled = phase != OPEN_UNDO_SETTLE || pool->checkpoints_given_up == 0;

    if (opening->looked && settled &&
        (pool->allocator.machine == NULL || (allocator_is_idle(&pool->allocator) &&
                                             committer_is_idle(&pool->committer)))) {
        opening->looked = false;
        return true;
    }
    opening->looked = true; /* messages to ourselves have arrived by the next time */
    machine_goto(&opening->machine, phase);
    machine_pause(&opening->machine, &opening->pause, CONTROL_POLL_NS);
    return false;
}

/* ---- this run begins ---- */

static enum machine_step
commit_run(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    if (pool_labels_good(pool) == 0) {
        int status = machine->status < 0 ? machine->status : -ETIMEDOUT; /* none answers */
        return machine_fail(machine, status, "no disk label can be written: %s",
                            error_name(status));
    }
    byte_buffer_clear(&opening->batch);
    schema_put_pool(&opening->batch, &pool->record);
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk == NULL) {
            continue;
        }
        /* Some have moved; and which labels tell of this run: see is_old_copy(). */
        struct disk_record record = disk->record;
        record.state = disk->backend != NULL && disk->label_status == 0 ? DISK_STATE_ACTIVE
                                                                        : DISK_STATE_MISSING;
        schema_put_disk(&opening->batch, &record);
    }
    list_for_each(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->durable.fenced != volume->record.fenced) {
            volume->record.fenced = volume->durable.fenced;
            schema_put_volume(&opening->batch, &volume->durable);
        }
    }
    schema_put_run(&opening->batch, &pool->run);
    pool_load_put_first(opening);
    opening->commit.batch = &opening->batch;
    opening->commit.urgent = true; /* checkpoints make room once the pool serves */
    opening->run_noted = true; /* or perhaps not, if it fails */
    machine_arm(machine, &opening->commit.op, commit_done);
    committer_submit(pool, &opening->commit);
    return machine_wait(machine);
}

static enum machine_step
remove_journals(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the start cannot be recorded: %s",
                            error_name(machine->status));
    }
    if (!opening->was_clean && opening->same_boot) {
        machine_offload(machine, &opening->job, pool_replay_remove_work);
    }
    return machine_wait(machine);
}

static enum machine_step
serve(struct pool_opening *opening)
{
    pool_place_extents(opening->pool, &opening->unused);
    volumes_pin(opening->pool);
    pool_serve(&opening->machine, &opening->round, opening->pool);
    return machine_wait(&opening->machine);
}

static enum machine_step
succeed(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;
    struct byte_buffer text = BYTE_BUFFER_INIT;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        char spec[DISK_SPEC_BYTES_MAX + 1];
        if (disk == NULL || disk->backend != NULL) {
            continue;
        }
        disk_spec_without_secrets(disk->record.spec, spec, sizeof(spec));
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, spec, "disk-missing", "%s",
                    disk->problem);
        byte_buffer_append_format(&text, "%sdisk %.200s is missing (%s)",
                                  text.length_bytes > 0 ? "; " : "", spec, disk->problem);
    }
    byte_buffer_append_u8(&text, 0);
    pool_set_state(pool, opening->missing_count > 0 ? POOL_STATE_DEGRADED : POOL_STATE_ONLINE,
                   "%.500s", (const char *)text.data);
    byte_buffer_free(&text);
    if (opening->replay != NULL) {
        pool_replay_report(opening->replay);
    }
    pool_checkpoint_give_back_orphans(pool);
    pool->take_over = false;
    pool->checkpoint_ended_ns = reactor_now_ns(pool->manager->control);
    pool->checkpoint_ended_commit = pool->committer.commit;
    /* A ring that was started anew: one checkpoint is behind it; two are better. */
    pool->checkpoints_due = opening->ring_is_new ? 1 : 0;
    pool_heartbeat_start(pool);
    state_space_watch(pool);
    for (size_t at = 0; at < opening->unused.length_bytes; at += sizeof(uint64_t)) {
        uint64_t id;
        memcpy(&id, opening->unused.data + at, sizeof(id));
        allocator_release(pool, id);
    }
    list_for_each_safe(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        if (volume->durable.deleting && !volume->keeper) {
            volume_erase(volume);
        }
    }
    reclaim_start(pool);
    policies_start(pool);
    pool_space_changed(pool);
    pool_committed(pool);
    return machine_end(&opening->machine);
}

/* ---- undoing ---- */

static enum machine_step
undo(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;

    policies_stop(pool); /* they have not begun */
    pool_lineage_clear(pool);
    list_for_each_safe(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        exports_forget(volume);
        pool_remove_volume(pool, volume);
        volume_release(volume);
    }
    if (pool->ledger != NULL) {
        ledger_destroy(pool->ledger);
        pool->ledger = NULL;
    }
    return MACHINE_NEXT;
}

static int32_t
undo_store_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_opening *opening = container_of(own, struct pool_opening, job);
    struct pool *pool = opening->pool;

    if (pool->shards != NULL) {
        /* Nothing was written to the new rings; but where they are noted, they must be there. */
        pool_shards_destroy(pool, !opening->run_noted);
    }
    if (pool->store != NULL) {
        pool->store->ops->close(pool->store);
        pool->store = NULL;
    }
    return 0;
}

static enum machine_step
offline(struct pool_opening *opening)
{
    struct pool *pool = opening->pool;

    pool_set_state(pool, POOL_STATE_OFFLINE, "%s", opening->machine.control->error.message);
    pool_open_again(pool);
    return MACHINE_NEXT;
}

/* ---- the machine ---- */

static enum machine_step
find_phase(struct pool_opening *opening, enum pool_open_phase phase)
{
    struct machine *machine = &opening->machine;

    switch (phase) {
    case OPEN_OPEN_DISKS:
        disk_probes_open(machine, opening->probes, opening->probe_count);
        return machine_wait(machine);
    case OPEN_READ_LABELS:
        return read_labels(opening, OPEN_OPEN_DISKS);
    case OPEN_REREAD_LABELS:
        return read_labels(opening, OPEN_REOPEN_DISKS);
    case OPEN_MATCH_DISKS:
        return match_disks(opening);
    case OPEN_LIST_CANDIDATES:
        machine_offload(machine, &opening->job, pool_find_candidates_work);
        return machine_wait(machine);
    case OPEN_LOOK_AT_CANDIDATES:
        pool_find_look(opening);
        return machine_wait(machine);
    case OPEN_READ_CANDIDATES:
        disk_probes_read(machine, opening->found, opening->found_count);
        return machine_wait(machine);
    case OPEN_RECOGNISE:
        return recognise(opening);
    case OPEN_REOPEN_DISKS:
        return reopen_disks(opening);
    case OPEN_MATCH_AGAIN:
        pool_find_match(opening);
        return MACHINE_NEXT;
    case OPEN_RELEASE_STRANGERS:
        disk_probes_close(machine, &opening->close, opening->probes, opening->probe_count);
        return machine_wait(machine);
    case OPEN_WATCH:
        return watch(opening);
    case OPEN_WATCH_AGAIN:
        disk_probes_read(machine, opening->probes, opening->probe_count);
        return machine_wait(machine);
    case OPEN_RAISE_INCARNATION:
        return watched(opening);
    default:
        UNREACHABLE();
    }
}

static enum machine_step
replay_phase(struct pool_opening *opening, enum pool_open_phase phase)
{
    struct machine *machine = &opening->machine;

    switch (phase) {
    case OPEN_FLUSH_DISKS:
        return pool_flush_disks(opening);
    case OPEN_FENCE_LOST_WRITES:
        return pool_flush_judge(opening);
    case OPEN_LEAVE_OUT:
        return pool_flush_leave_out(opening);
    case OPEN_READ_JOURNALS:
        return read_journals(opening);
    case OPEN_SORT_RECORDS:
        return sort_records(opening);
    case OPEN_FETCH_PAGES:
        if (!pool_replay_has_more(opening->replay)) {
            return machine_goto(machine, OPEN_REJOIN_LEDGER);
        }
        if (pool_ledger_wants_room(opening)) {
            opening->room_phase = OPEN_FETCH_PAGES;
            return machine_goto(machine, OPEN_MAKE_ROOM);
        }
        return pool_replay_fetch(opening);
    case OPEN_COMMIT_PAGES:
        return pool_replay_commit(opening);
    case OPEN_PAGES_COMMITTED:
        return pages_committed(opening);
    case OPEN_MAKE_ROOM:
        return pool_ledger_make_room(opening);
    case OPEN_ROOM_SETTLE:
        return pool_ledger_room_format(opening);
    case OPEN_ROOM_FORMATTED:
        return pool_ledger_room_made(opening);
    default:
        UNREACHABLE();
    }
}

static enum machine_step
undo_phase(struct pool_opening *opening, enum pool_open_phase phase)
{
    struct machine *machine = &opening->machine;

    switch (phase) {
    case OPEN_UNDO_SETTLE:
        return pool_open_is_settled(opening, OPEN_UNDO_SETTLE) ? MACHINE_NEXT
                                                               : machine_wait(machine);
    case OPEN_UNDO:
        return undo(opening);
    case OPEN_UNDO_STORE:
        machine_offload(machine, &opening->job, undo_store_work);
        return machine_wait(machine);
    case OPEN_UNDO_CLOSE:
        pool_backends_close(machine, &opening->close, opening->pool);
        return machine_wait(machine);
    case OPEN_UNDO_PROBES:
        disk_probes_close(machine, &opening->close, opening->probes, opening->probe_count);
        return machine_wait(machine);
    case OPEN_OFFLINE:
        return offline(opening);
    default:
        UNREACHABLE();
    }
}

static enum machine_step
ledger_phase(struct pool_opening *opening, enum pool_open_phase phase)
{
    switch (phase) {
    case OPEN_SCAN_LEDGER:
        return pool_ledger_scan(opening);
    case OPEN_JUDGE_LEDGER:
        return pool_ledger_judge(opening);
    case OPEN_APPLY_LEDGER:
        return pool_ledger_apply(opening);
    case OPEN_CLOSE_FOR_RELOAD:
        return close_for_reload(opening);
    case OPEN_RELOAD:
        forget_records(opening);
        return machine_goto(&opening->machine, OPEN_SCAN_SYSTEM);
    case OPEN_FORMAT_LEDGER:
        return pool_ledger_format(opening);
    default:
        UNREACHABLE();
    }
}

static enum machine_step
opening_phase(struct machine *machine, uint32_t phase)
{
    struct pool_opening *opening = container_of(machine, struct pool_opening, machine);

    if (phase >= OPEN_OPEN_DISKS && phase <= OPEN_RAISE_INCARNATION) {
        return find_phase(opening, phase);
    }
    if (phase >= OPEN_SCAN_LEDGER && phase <= OPEN_FORMAT_LEDGER) {
        return ledger_phase(opening, phase);
    }
    if (phase >= OPEN_FLUSH_DISKS && phase <= OPEN_ROOM_FORMATTED) {
        return replay_phase(opening, phase);
    }
    if (phase >= OPEN_UNDO_SETTLE) {
        return undo_phase(opening, phase);
    }
    switch ((enum pool_open_phase)phase) {
    case OPEN_REJOIN_LEDGER:
    case OPEN_REJOIN_AGAIN:
        return pool_ledger_rejoin(opening);
    case OPEN_REJOIN_SETTLE:
        return pool_ledger_rejoin_format(opening);
    case OPEN_REJOIN_FORMATTED:
        return pool_ledger_rejoined(opening);
    case OPEN_ANCHOR:
        return pool_ledger_anchor(opening);
    case OPEN_ANCHOR_SETTLE:
        return pool_open_is_settled(opening, OPEN_ANCHOR_SETTLE) ? MACHINE_NEXT
                                                                 : machine_wait(machine);
    case OPEN_OPEN_STORE:
        machine_offload(machine, &opening->job, store_open_work);
        return machine_wait(machine);
    case OPEN_SCAN_SYSTEM:
        return scan_system(opening);
    case OPEN_LOAD_SYSTEM:
        return load_system(opening);
    case OPEN_SCAN_EXTENTS:
        if (pool_ledger_formatted(opening) == MACHINE_NEXT && machine->failed) {
            return MACHINE_NEXT;
        }
        return scan_family(opening, STORE_FAMILY_EXTENT);
    case OPEN_LOAD_EXTENTS:
        return load_extents(opening);
    case OPEN_CREATE_SHARDS:
        /* A start may have ended between noting a new run and removing the rings of the old one. */
        opening->shards.rings_from = opening->last_run.incarnation > RINGS_LEFT_MAX
                                         ? opening->last_run.incarnation - RINGS_LEFT_MAX
                                         : 1;
        opening->shards.rings_kept = opening->was_clean ? 0 : opening->last_run.incarnation;
        pool_shards_create(machine, &opening->shards, opening->pool);
        return machine_wait(machine);
    case OPEN_MAKE_VOLUMES:
        return make_volumes(opening);
    case OPEN_WRITE_LABELS:
        pool_labels_write(machine, opening->pool, NULL, true, false);
        return machine_wait(machine);
    case OPEN_COMMIT_RUN:
        return commit_run(opening);
    case OPEN_REMOVE_JOURNALS:
        return remove_journals(opening);
    case OPEN_SERVE:
        return serve(opening);
    case OPEN_SUCCEED:
        return succeed(opening);
    default:
        UNREACHABLE();
    }
}

static void
opening_release(struct machine *machine)
{
    struct pool_opening *opening = container_of(machine, struct pool_opening, machine);
    struct manager *manager = machine->manager;
    pool_opened_fn *done = opening->done;
    void *context = opening->context;

    pool_load_free(&opening->load);
    pool_replay_free(opening->replay);
    backends_close_free(&opening->close);
    round_free(&opening->round);
    byte_buffer_free(&opening->scan.items);
    byte_buffer_free(&opening->candidates);
    byte_buffer_free(&opening->affected);
    byte_buffer_free(&opening->unused);
    byte_buffer_free(&opening->first);
    byte_buffer_free(&opening->fences);
    ledger_gap_clear(&opening->gap);
    byte_buffer_free(&opening->batch);
    free(opening->probes);
    free(opening->found);
    free(opening);
    done(manager, context);
}

static const struct machine_ops POOL_OPEN_OPS = {
    .name = "pool open",
    .phase_names = PHASE_NAMES,
    .phase_count = OPEN_PHASE_COUNT,
    .failed_phase = OPEN_UNDO_SETTLE,
    .phase = opening_phase,
    .release = opening_release,
};

void
pool_open(struct pool *pool, pool_opened_fn *done, void *context)
{
    struct pool_opening *opening = calloc(1, sizeof(*opening));

    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(opening != NULL);
    machine_init(&opening->machine, &POOL_OPEN_OPS, pool->manager, NULL);
    opening->pool = pool;
    opening->done = done;
    opening->context = context;
    machine_start_in_line(&opening->machine, pool);
}
