/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What do these disks have? Everything that can refuse an import is found out here, before anything
 * is changed: which pool it is, who else may be using it, which checkpoint can be read from end to
 * end, and whether the ledger continues it without a gap.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/pool_import_impl.h"

MACHINE_DONE(read_done, struct pool_importing, read.op)
MACHINE_DONE(scan_done, struct pool_importing, ledger_scan.op)

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

/* How many labels of other disks name it. */
static uint32_t
named_by(const struct pool_importing *importing, uint32_t probe)
{
    const struct label *one = &importing->probes[probe].label;
    uint32_t count = 0;

    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        for (uint32_t j = 0; i != probe && j < label->disk_count; j++) {
            count += label->disks[j].index == one->disk_index &&
                     memcmp(label->disks[j].guid, one->disk_guid, GUID_BYTES) == 0;
        }
    }
    return count;
}

/*
 * Two disks that both say to be the n-th: the adding of one of them was interrupted, and nobody
 * else knows it.
 */
static void
find_strays(struct pool_importing *importing)
{
    for (uint32_t i = 0; i < importing->disk_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (importing->probes[i].label.disk_index != importing->probes[j].label.disk_index) {
                continue;
            }
            uint32_t stray = named_by(importing, i) < named_by(importing, j) ? i : j;
            importing->stray[stray] = true;
            event_raise(importing->machine.manager, EVENT_WARNING,
                        importing->probes[stray].label.pool_name,
                        importing->probes[stray].backend->spec, "disk-not-known",
                        "this disk was about to be added to the pool, and is none of its disks");
        }
    }
}

struct pool *
import_existing_pool(const struct pool_importing *importing)
{
    struct pool *pool =
        manager_find_pool(importing->machine.manager, importing->import->ret_name);
    return pool != importing->pool ? pool : NULL;
}

/* May a pool of this name that is here make way? */
static int
check_existing(const struct pool_importing *importing, const struct pool *existing,
               struct error *error)
{
    static const uint8_t unknown[GUID_BYTES] = { 0 };

    if (existing->state != POOL_STATE_OFFLINE || existing->stopping) {
        return error_set(error, -EEXIST, "pool `%s` is here already", existing->name);
    }
    if (memcmp(existing->record.pool_guid, unknown, GUID_BYTES) != 0 &&
        memcmp(existing->record.pool_guid, importing->newest->pool_guid, GUID_BYTES) != 0) {
        return error_set(error, -EEXIST,
                         "another pool with the name `%s` is here (it is offline): import this one "
                         "by another daemon, or move the database of the other one out of the "
                         "state directory",
                         existing->name);
    }
    if (!importing->import->force && !existing->database_unfinished) {
        return error_set(error, -EEXIST,
                         "pool `%s` has a database here (the pool is offline: %.200s); --force "
                         "replaces it by what the disks have",
                         existing->name, existing->reason);
    }
    return 0;
}

enum machine_step
import_choose(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;
    struct manager *manager = machine->manager;
    struct error *error = &machine->control->error;

    if (heartbeat_watch_judge(&importing->watch, importing->probes, error) < 0 ||
        check_labels(importing, error) < 0) {
        return machine_fail_noted(machine);
    }
    find_newest(importing);
    find_strays(importing);
    const struct label *label = importing->newest;
    if (!schema_name_is_valid(label->pool_name)) {
        return machine_fail(machine, -EUCLEAN, "the labels name no valid pool");
    }
    if (label->open && !importing->import->force &&
        memcmp(label->host_guid, manager->options.host_guid, GUID_BYTES) != 0) {
        return machine_fail(machine, -EBUSY,
                            "pool `%s` was opened by another host and not closed: make sure that "
                            "it does not use it any more, then import with --force",
                            label->pool_name);
    }
    snprintf(importing->import->ret_name, sizeof(importing->import->ret_name), "%s",
             label->pool_name);
    const struct pool *existing = import_existing_pool(importing);
    if (existing != NULL && check_existing(importing, existing, error) < 0) {
        return machine_fail_noted(machine);
    }
    importing->checkpoint_commit = UINT64_MAX;
    return MACHINE_NEXT;
}

/* ---- the checkpoint ---- */

static int
resolve_place(struct checkpoint_read *read, struct extent_place place,
              struct backend **ret_backend, uint64_t *ret_offset_bytes)
{
    struct pool_importing *importing = container_of(read, struct pool_importing, read);

    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        if (!importing->stray[i] && label->disk_index == place.disk &&
            place.slot < label->slot_count) {
            *ret_backend = importing->probes[i].backend;
            *ret_offset_bytes =
                label->data_start_bytes + (uint64_t)place.slot * label->extent_bytes;
            return 0;
        }
    }
    return -ENODEV;
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
        for (uint32_t j = 0; !importing->stray[i] && j < ARRAY_SIZE(label->checkpoints); j++) {
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

void
import_prepare_read(struct pool_importing *importing, checkpoint_batch_fn *batch)
{
    struct checkpoint_read *read = &importing->read;

    ASSERT(importing->checkpoint_commit > 0 && read->first_count > 0);
    memcpy(read->pool_guid, importing->newest->pool_guid, GUID_BYTES);
    read->commit = importing->checkpoint_commit;
    read->part_bytes = importing->newest->extent_bytes;
    read->resolve = resolve_place;
    read->batch = batch;
}

enum machine_step
import_verify_checkpoint(struct pool_importing *importing)
{
    ASSERT_ON_REACTOR(importing->machine.manager->control);
    struct machine *machine = &importing->machine;

    if (!next_checkpoint(importing)) {
        return MACHINE_NEXT; /* the ledger must have everything */
    }
    import_prepare_read(importing, NULL);
    machine_arm(machine, &importing->read.op, read_done);
    checkpoint_read(&importing->read);
    return machine_wait(machine);
}

enum machine_step
import_checkpoint_was_verified(struct pool_importing *importing, uint32_t verify_phase)
{
    ASSERT_ON_REACTOR(importing->machine.manager->control);
    struct machine *machine = &importing->machine;

    if (machine->status == -ENOENT || machine->status == -EUCLEAN) {
        event_raise(machine->manager, EVENT_WARNING, importing->import->ret_name, NULL,
                    "checkpoint-damaged", "the checkpoint of commit %llu cannot be read: %s",
                    (unsigned long long)importing->checkpoint_commit,
                    error_name(machine->status));
        return machine_goto(machine, verify_phase);
    }
    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the checkpoint cannot be read: %s",
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

/* The disks whose copies count most, if there are more than a ledger has. */
static uint32_t
choose_copies(const struct pool_importing *importing,
              const struct disk_probe *ret_chosen[static LEDGER_COPIES_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct disk_probe *probe = &importing->probes[i];
        if (importing->stray[i] || probe->label.ledger_length_bytes == 0) {
            continue;
        }
        uint32_t at = count;
        while (at > 0 && label_has_better_ledger(&probe->label, &ret_chosen[at - 1]->label)) {
            at--;
        }
        for (uint32_t n = MIN(count, (uint32_t)LEDGER_COPIES_MAX - 1); n > at; n--) {
            ret_chosen[n] = ret_chosen[n - 1];
        }
        if (at < LEDGER_COPIES_MAX) {
            ret_chosen[at] = probe;
            count = MIN(count + 1, (uint32_t)LEDGER_COPIES_MAX);
        }
    }
    return count;
}

enum machine_step
import_scan_ledger(struct pool_importing *importing)
{
    ASSERT_ON_REACTOR(importing->machine.manager->control);
    struct machine *machine = &importing->machine;
    struct ledger_options options = { .incarnation = importing->newest->incarnation };

    memcpy(options.pool_guid, importing->newest->pool_guid, GUID_BYTES);
    importing->copy_count = choose_copies(importing, importing->copies);
    for (uint32_t i = 0; i < importing->copy_count; i++) {
        const struct label *label = &importing->copies[i]->label;
        options.copies[options.copy_count++] = (struct ledger_copy_options){
            .backend = importing->copies[i]->backend,
            .disk_index = label->disk_index,
            .start_bytes = label->ledger_start_bytes,
            .length_bytes = label->ledger_length_bytes,
        };
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

/* Whether a label says of one of the current copies that it was not dropped. */
static bool
is_believed(const struct pool_importing *importing)
{
    uint32_t current = importing->ledger_scan.ret_current_copies;

    for (uint32_t n = 0; n < importing->copy_count; n++) {
        if ((current & 1u << n) != 0 && importing->copies[n]->label.ledger_current) {
            return true;
        }
    }
    return false;
}

/*
 * Whether the ledger continues the checkpoint without a gap, and is all that there is. The
 * checkpoint may have the commit that was under way in database and ledger at the end: no other
 * came after it, and it was never acknowledged.
 */
static bool
ledger_continues(const struct pool_importing *importing, int status)
{
    const struct ledger_scan *scan = &importing->ledger_scan;
    uint64_t behind = importing->checkpoint_commit;

    if (importing->ledger == NULL || scan->ret_current_copies == 0 ||
        scan->ret_absent_copies != 0 || !is_believed(importing) ||
        (status < 0 && status != -ENOENT)) {
        return false;
    }
    if (scan->ret_last_commit == behind || scan->ret_last_commit + 1 == behind) {
        return true;
    }
    return status == 0 && scan->ret_last_commit > behind &&
           importing->gap.next_commit == behind + 1;
}

/*
 * The rings are whole and agree, but labels tell of more than they have: all of them were put back
 * to an older time. A label says that the pool was closed only behind the commit that notes it, and
 * names a checkpoint that has at most one commit more than the ledger.
 */
static bool
ledger_is_old(const struct pool_importing *importing)
{
    const struct ledger_scan *scan = &importing->ledger_scan;

    for (uint32_t i = 0; i < importing->disk_count; i++) {
        const struct label *label = &importing->probes[i].label;
        if (importing->stray[i]) {
            continue;
        }
        if (!label->open && label->incarnation > scan->ret_last_incarnation) {
            return true;
        }
        for (uint32_t j = 0; j < ARRAY_SIZE(label->checkpoints); j++) {
            if (label->checkpoints[j].commit > scan->ret_last_commit + 1) {
                return true;
            }
        }
    }
    return false;
}

/* How many records can be put on the checkpoint. */
static uint64_t
gap_records(const struct pool_importing *importing)
{
    const struct ledger_scan *scan = &importing->ledger_scan;

    return ledger_gap_is_done(&importing->gap)
               ? 0
               : scan->ret_last_commit - importing->checkpoint_commit;
}

enum machine_step
import_judge_ledger(struct pool_importing *importing)
{
    struct machine *machine = &importing->machine;

    ASSERT_ON_REACTOR(machine->manager->control);
    importing->commit = importing->checkpoint_commit;
    importing->is_complete = ledger_continues(importing, machine->status);
    if (importing->is_complete && ledger_is_old(importing)) {
        importing->is_complete = false;
        if (!importing->import->force) {
            return machine_fail(machine, -ESTALE,
                                "the labels tell of commits behind %llu, where the commit ledger "
                                "on these disks ends: it was put back to an older time; name all "
                                "disks of the pool; --force restores that older state, and what "
                                "was committed later is lost",
                                (unsigned long long)importing->ledger_scan.ret_last_commit);
        }
    }
    if (!importing->is_complete && !importing->import->force) {
        return machine_fail(machine, -ENODATA,
                            "the commit ledger on these disks does not prove that everything is "
                            "here: name all disks of the pool; --force restores the state of "
                            "commit %llu or a little later",
                            (unsigned long long)importing->checkpoint_commit);
    }
    if (!importing->is_complete &&
        importing->gap.next_commit != importing->checkpoint_commit + 1) {
        ledger_gap_clear(&importing->gap); /* what is behind a gap cannot be used */
    }
    if (!importing->is_complete && importing->checkpoint_commit == 0 &&
        ledger_gap_is_done(&importing->gap)) {
        return machine_fail(machine, -ENODATA,
                            "there is neither a checkpoint nor a commit ledger on these disks");
    }
    uint64_t bad = 0;
    if (ledger_gap_check(&importing->gap, &bad) < 0) {
        return machine_fail(machine, -EUCLEAN, "record %llu of the commit ledger is no batch",
                            (unsigned long long)bad);
    }
    uint64_t last = importing->commit + gap_records(importing);
    const struct pool *existing = import_existing_pool(importing);
    if (existing != NULL && existing->database_commit > last) {
        return machine_fail(machine, -EEXIST,
                            "the database that is here is newer (commit %llu) than what these "
                            "disks have (commit %llu); if it is of no use, move it out of the "
                            "state directory first",
                            (unsigned long long)existing->database_commit,
                            (unsigned long long)last);
    }
    return MACHINE_NEXT;
}
