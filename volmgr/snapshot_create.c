/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking snapshots, of one volume or of several at one instant.
 *
 * THEORY OF OPERATION
 *
 * First the records are committed as PENDING: an open that finds one lets go of it. Then what may
 * change the maps of the volumes is held back for a moment (a gate, snapshot_owner_impl.h), and on
 * each the generation ends. Of one volume that is one step on its reactor. Of several, each gate is
 * closed for all writes, and opened when all generations have ended: so no write that another one
 * may depend on is in a later generation than that one. Then each volume waits for what was under
 * way, and makes everything up to its instant durable. At last one commit makes all records KEPT;
 * it is the one point at which the snapshots begin to exist.
 *
 * The pool's line is held for the checks only: a volume that waits for a disk does not hold up
 * others. When the time is over, or something fails, what was kept is deleted as any snapshot is.
 *
 * Invariants
 *  SC1  All records of a group become KEPT by one commit, or none does.
 *  SC2  No gate of a group is opened by us between the first end of a generation and the last one.
 *  SC3  One that makes a snapshot of a volume is `creating` it: there is no other one, and its head
 *       stays (delete, rollback).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/retention_impl.h"
#include "volmgr/snapshot_control_impl.h"
#include "volmgr/snapshot_owner_impl.h"

#define SNAPSHOT_CREATE_PHASES(X)                                                                  \
    X(CHECK)                                                                                       \
    X(TURN)                                                                                        \
    X(GATE)                                                                                        \
    X(BUMP)                                                                                        \
    X(OPEN)                                                                                        \
    X(SEAL)                                                                                        \
    X(KEEP)                                                                                        \
    X(PUBLISH)                                                                                     \
    X(ABANDON)                                                                                     \
    X(ABANDON_IN_LINE)                                                                             \
    X(ABANDONED)                                                                                   \
    X(END)

enum snapshot_create_phase {
#define PHASE_ENUM(name) CREATE_##name,
    SNAPSHOT_CREATE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CREATE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    SNAPSHOT_CREATE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == CREATE_PHASE_COUNT, "a name for each phase");

enum {
    GENERATIONS_LEFT_MIN = 16, /* of a branch: no snapshot is made of the last ones */
};

/* One volume of the group. */
struct participant {
    struct snapshot_creation *creation;
    struct volume *volume;
    struct snapshot *snapshot;
    /* The owner's, and read by control between rounds. */
    struct volume_gate gate;
    struct volume_settle settle;
    struct volume_seal_wait seal;
    struct round_stop *stop;
    uint32_t kept; /* generation; 0: not yet */
    uint64_t mapped_grains;
    uint64_t size_bytes;
    int status;
};

struct snapshot_creation {
    struct machine machine;
    struct snapshot_create *create;
    struct snapshot **ret_hidden; /* NULL: it is one with a name */
    struct participant *participants;
    uint32_t count;      /* of those that are in the tables */
    uint64_t deadline_ns;
    uint64_t gate_began_ns;
    uint64_t created_realtime_ns;
    uint32_t *pending;   /* by reactor: of its volumes, the reactor's */
    struct round round;
    struct machine_pause pause;
    struct commit_request commit;
    struct byte_buffer batch;
    struct reclaim_plan plan;
    bool plan_begun;
};

MACHINE_DONE(create_commit_done, struct snapshot_creation, commit.op)

int
volume_check_not_creating(const struct volume *volume, struct error *error)
{
    if (volume->creating != NULL) {
        return error_set(error, -EBUSY, "a snapshot of volume `%s/%s` is being made: try again",
                         volume->pool->name, volume->durable.name);
    }
    return 0;
}

/* ---- reserves ---- */

int
volume_pin(struct volume *volume, struct error *error)
{
    struct pool *pool = volume->pool;
    uint64_t extent_bytes = pool->record.extent_bytes;
    uint64_t wanted = div_round_up(volume->durable.reserve_bytes, extent_bytes);
    uint64_t has = MIN(volume_extents_writable(volume), wanted);
    uint64_t available = allocator_available(&pool->allocator, volume);
    char reserve_text[SIZE_TEXT_SIZE];
    char needed_text[SIZE_TEXT_SIZE];
    char available_text[SIZE_TEXT_SIZE];

    ASSERT_ON_REACTOR(pool->manager->control);
    if (wanted > 0 && wanted > available) {
        return error_set(error, -ENOSPC,
                         "volume `%s/%s` has a reserve of %s: a snapshot needs up to %s more, and "
                         "pool `%s` can promise it %s; lower the reserve, or add disks",
                         pool->name, volume->durable.name,
                         size_format(volume->durable.reserve_bytes, reserve_text),
                         size_format(has * extent_bytes, needed_text), pool->name,
                         size_format(available * extent_bytes, available_text));
    }
    volume->extents_pinned = volume->extents_owned;
    return 0;
}

/* Views that are needed, or are about to be. */
static bool
needs_pins(const struct volume *volume)
{
    list_for_each(&volume->snapshots, link) {
        if (list_entry(link, struct snapshot, volume_link)->record.state != SNAPSHOT_DELETING) {
            return true;
        }
    }
    return false;
}

void
volumes_pin(struct pool *pool)
{
    list_for_each(&pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        volume->extents_pinned = needs_pins(volume) ? volume->extents_owned : 0;
    }
}

void
volume_unpin(struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    if (!needs_pins(volume)) {
        volume->extents_pinned = 0;
    }
}

/* ---- checks ---- */

/* A name that tells the time, and is not taken. */
static void
make_name(const struct volume *volume, uint64_t realtime_ns, char name[static NAME_BYTES_MAX + 1])
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    struct tm fields = { 0 };
    char text[NAME_BYTES_MAX + 1 - 16];

    gmtime_r(&seconds, &fields);
    strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &fields);
    snprintf(name, NAME_BYTES_MAX + 1, "%s", text);
    for (uint32_t n = 2; pool_snapshot_name_is_taken(volume->pool, volume, name); n++) {
        snprintf(name, NAME_BYTES_MAX + 1, "%s-%u", text, n);
    }
}

static int
check_name(struct snapshot_creation *creation, const struct volume *volume,
           struct volume_name *name, struct error *error)
{
    if (name->snapshot[0] == '\0') {
        make_name(volume, creation->created_realtime_ns, name->snapshot);
    }
    if (!schema_name_is_valid(name->snapshot)) {
        return error_set(error, -EINVAL, "`%.128s` is no snapshot name", name->snapshot);
    }
    if (pool_snapshot_name_is_taken(volume->pool, volume, name->snapshot)) {
        return error_set(error, -EEXIST, "snapshot `%s/%s@%s` exists already", volume->pool->name,
                         volume->durable.name, name->snapshot);
    }
    return 0;
}

/* 0; -EAGAIN: another one is making a snapshot of it; or -errno with `error` set. */
static int
check_volume(struct snapshot_creation *creation, uint32_t index, struct error *error)
{
    struct pool *pool = creation->machine.pool;
    struct volume_name *name = &creation->create->names[index];
    struct volume *volume = pool_find_volume(pool, name->volume);

    if (strcmp(name->pool, pool->name) != 0) {
        return error_set(error, -EXDEV,
                         "snapshots at one instant are of volumes of one pool: `%s` is another one",
                         name->pool);
    }
    if (volume == NULL) {
        return error_set(error, -ENOENT, "there is no volume `%s/%s`", pool->name, name->volume);
    }
    if (volume->altering) {
        return error_set(error, -EBUSY, "another operation on volume `%s/%s` is under way",
                         pool->name, name->volume);
    }
    for (uint32_t i = 0; i < index; i++) {
        if (creation->participants[i].volume == volume) {
            return error_set(error, -EINVAL, "volume `%s/%s` is named twice", pool->name,
                             name->volume);
        }
    }
    if (volume->creating != NULL) {
        return -EAGAIN;
    }
    const struct pool_branch *branch = pool_find_branch(pool, volume->durable.branch);
    ASSERT(branch != NULL && branch->lineage->has_head);
    if (branch->lineage->current > LINEAGE_FOREVER - GENERATIONS_LEFT_MIN) {
        return error_set(error, -EOVERFLOW, "volume `%s/%s` has had 4 billion snapshots",
                         pool->name, name->volume);
    }
    creation->participants[index].volume = volume;
    if (creation->ret_hidden == NULL && check_name(creation, volume, name, error) < 0) {
        return error->code;
    }
    return volume_pin(volume, error);
}

static int
check_all(struct snapshot_creation *creation, struct error *error)
{
    const struct snapshot_create *create = creation->create;
    struct pool *pool = creation->machine.pool;

    if (pool_check_writable(pool, error) < 0) {
        return error->code;
    }
    for (uint32_t i = 0; i < create->count; i++) {
        int result = check_volume(creation, i, error);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

/* Into the tables as PENDING, and into the batch. */
static void
add_participant(struct snapshot_creation *creation, uint32_t index, const uint8_t *group_guid)
{
    const struct snapshot_create *create = creation->create;
    struct participant *participant = &creation->participants[index];
    struct volume *volume = participant->volume;
    struct pool *pool = volume->pool;
    struct pool_branch *branch = pool_find_branch(pool, volume->durable.branch);
    struct snapshot_record record = {
        .id = ++pool->record.last_snapshot,
        .volume = volume->durable.id,
        .state = SNAPSHOT_PENDING,
        .size_bytes = volume->durable.size_bytes,
        .created_realtime_ns = creation->created_realtime_ns,
        .expires_ns = pool_clock_from_realtime(pool, create->expires_realtime_ns),
        .rules = create->rules,
    };

    manager_make_guid(pool->manager, record.guid);
    memcpy(record.group_guid, group_guid, GUID_BYTES);
    if (creation->ret_hidden != NULL) {
        snprintf(record.name, sizeof(record.name), "clone.%llu", (unsigned long long)record.id);
    } else {
        snprintf(record.name, sizeof(record.name), "%s", create->names[index].snapshot);
    }
    uint32_t generation = lineage_bump(branch->lineage);
    participant->creation = creation;
    participant->snapshot = snapshot_add(pool, branch, generation, &record);
    schema_put_snapshot(&creation->batch, branch->record.id, generation, &record);
    volume->creating = creation;
    volume->holds++; /* the pool is not freed while this is out of the line */
    creation->count++;
}

static enum machine_step
check(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;
    const struct snapshot_create *create = creation->create;
    uint64_t now_ns = reactor_now_ns(machine->manager->control);
    uint8_t group_guid[GUID_BYTES] = { 0 };

    if (creation->deadline_ns == 0) {
        creation->deadline_ns =
            now_ns + (create->timeout_ns != 0 ? create->timeout_ns : SNAPSHOT_TIMEOUT_NS);
    }
    creation->created_realtime_ns = manager_realtime_ns(machine->manager);
    int result = check_all(creation, &machine->control->error);
    for (uint32_t i = 0; result < 0 && i < create->count; i++) {
        if (creation->participants[i].volume != NULL) {
            volume_unpin(creation->participants[i].volume);
            creation->participants[i].volume = NULL;
        }
    }
    if (result == -EAGAIN && now_ns < creation->deadline_ns) {
        machine_step_out(machine);
        machine_pause(machine, &creation->pause, CONTROL_POLL_NS);
        return machine_wait(machine); /* CREATE_TURN brings it back here */
    }
    if (result == -EAGAIN) {
        return machine_fail(machine, -EBUSY, "other snapshots of the volume are being made");
    }
    if (result < 0) {
        return machine_fail_noted(machine);
    }
    if (create->count > 1) {
        manager_make_guid(machine->manager, group_guid);
    }
    for (uint32_t i = 0; i < create->count; i++) {
        add_participant(creation, i, group_guid);
    }
    creation->commit.has_numbers = true;
    creation->commit.batch = &creation->batch;
    machine_arm(machine, &creation->commit.op, create_commit_done);
    committer_submit(machine->pool, &creation->commit);
    machine_step_out(machine);
    machine_goto(machine, CREATE_GATE);
    return machine_wait(machine);
}

/* Another one was making a snapshot of one of the volumes: look again. */
static enum machine_step
take_turn(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->pool->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    machine_goto(machine, CREATE_CHECK);
    return machine_step_in(machine);
}

/* ---- on the owners ---- */

static bool
is_mine(const struct participant *participant, const struct round_stop *stop)
{
    return participant->volume->shard->index == stop->index;
}

/* One of the waits of this reactor has ended. */
static void
reactor_part_done(struct participant *participant)
{
    struct round_stop *stop = participant->stop;
    uint32_t *pending = &participant->creation->pending[stop->index];

    ASSERT_OP(*pending, >, 0u);
    if (--*pending == 0) {
        round_stop_done(stop);
    }
}

/* Begin something for each volume of this reactor; every begin() ends in reactor_part_done(). */
static enum machine_step
visit_volumes(struct round_stop *stop, void (*begin)(struct participant *participant))
{
    struct snapshot_creation *creation = container_of(stop->round, struct snapshot_creation, round);
    uint32_t count = 0;

    for (uint32_t i = 0; i < creation->count; i++) {
        count += is_mine(&creation->participants[i], stop);
    }
    if (count == 0) {
        return MACHINE_NEXT;
    }
    creation->pending[stop->index] = count; /* nothing completes before this returns */
    for (uint32_t i = 0; i < creation->count; i++) {
        struct participant *participant = &creation->participants[i];
        if (is_mine(participant, stop)) {
            participant->stop = stop;
            participant->status = 0;
            begin(participant);
        }
    }
    return MACHINE_WAIT;
}

static void
op_prepare(struct participant *participant, struct io_op *op, io_op_done_fn *done)
{
    *op = (struct io_op){
        .done = done,
        .reactor_id = reactor_id(participant->volume->shard->reactor),
    };
}

/* The generation ends. */
static void
bump(struct participant *participant)
{
    struct volume *volume = participant->volume;

    participant->mapped_grains = volume->mapped_grains;
    participant->size_bytes = volume->record.size_bytes;
    participant->kept = volume_bump(volume);
    if (participant->kept != 0) {
        ASSERT_OP(participant->kept, ==, participant->snapshot->generation);
    }
}

static void
gate_done(struct io_op *op)
{
    struct volume_gate *gate = container_of(op, struct volume_gate, op);
    struct participant *participant = container_of(gate, struct participant, gate);

    participant->status = op->result;
    if (op->result == 0 && participant->creation->count == 1) {
        bump(participant);
        volume_gate_open(participant->volume, gate);
    }
    reactor_part_done(participant);
}

static void
gate_begin(struct participant *participant)
{
    participant->gate = (struct volume_gate){ .all = participant->creation->count > 1 };
    op_prepare(participant, &participant->gate.op, gate_done);
    volume_gate_close(participant->volume, &participant->gate);
}

static enum machine_step
gate_visit(struct round_stop *stop)
{
    return visit_volumes(stop, gate_begin);
}

static enum machine_step
bump_visit(struct round_stop *stop)
{
    struct snapshot_creation *creation = container_of(stop->round, struct snapshot_creation, round);

    for (uint32_t i = 0; i < creation->count; i++) {
        struct participant *participant = &creation->participants[i];
        if (is_mine(participant, stop)) {
            bump(participant);
        }
    }
    return MACHINE_NEXT;
}

static enum machine_step
open_visit(struct round_stop *stop)
{
    struct snapshot_creation *creation = container_of(stop->round, struct snapshot_creation, round);

    for (uint32_t i = 0; i < creation->count; i++) {
        struct participant *participant = &creation->participants[i];
        if (is_mine(participant, stop) && participant->status == 0) {
            volume_gate_open(participant->volume, &participant->gate);
        }
    }
    return MACHINE_NEXT;
}

static uint64_t
time_left_ns(const struct participant *participant)
{
    uint64_t now_ns = reactor_now_ns(participant->volume->shard->reactor);
    uint64_t deadline_ns = participant->creation->deadline_ns;

    return deadline_ns > now_ns ? deadline_ns - now_ns : 1;
}

static void
seal_done(struct io_op *op)
{
    struct volume_seal_wait *seal = container_of(op, struct volume_seal_wait, op);
    struct participant *participant = container_of(seal, struct participant, seal);

    participant->status = op->result;
    reactor_part_done(participant);
}

static void
settle_done(struct io_op *op)
{
    struct volume_settle *settle = container_of(op, struct volume_settle, op);
    struct participant *participant = container_of(settle, struct participant, settle);

    if (op->result < 0) {
        participant->status = op->result;
        reactor_part_done(participant);
        return;
    }
    participant->seal = (struct volume_seal_wait){ .timeout_ns = time_left_ns(participant) };
    op_prepare(participant, &participant->seal.op, seal_done);
    volume_seal_now(participant->volume, &participant->seal);
}

static void
settle_begin(struct participant *participant)
{
    participant->settle = (struct volume_settle){ .timeout_ns = time_left_ns(participant) };
    op_prepare(participant, &participant->settle.op, settle_done);
    volume_settle(participant->volume, &participant->settle);
}

static enum machine_step
seal_visit(struct round_stop *stop)
{
    return visit_volumes(stop, settle_begin);
}

/* ---- the instant ---- */

/* The first one that is not well; NULL: all are. */
static struct participant *
first_failed(struct snapshot_creation *creation)
{
    struct participant *late = NULL;

    for (uint32_t i = 0; i < creation->count; i++) {
        struct participant *participant = &creation->participants[i];
        if (participant->status < 0 && participant->status != -EAGAIN &&
            participant->status != -EBUSY) {
            return participant;
        }
        if (participant->status < 0 && late == NULL) {
            late = participant;
        }
    }
    return late;
}

static enum machine_step
fail_participant(struct snapshot_creation *creation, const struct participant *participant)
{
    struct machine *machine = &creation->machine;
    const struct volume *volume = participant->volume;
    const struct disk *silent = pool_silent_disk(machine->pool);
    char which[128] = "a disk";

    if (participant->gate.ret_disk[0] != '\0') {
        snprintf(which, sizeof(which), "disk %s", participant->gate.ret_disk);
    } else if (silent != NULL) {
        snprintf(which, sizeof(which), "disk %u (%.100s)", (unsigned)silent->record.index,
                 silent->backend != NULL ? silent->backend->spec : "missing");
    }
    switch (participant->status) {
    case -EAGAIN:
    case -EBUSY:
    case -ETIMEDOUT:
        return machine_fail(machine, -ETIMEDOUT,
                            "no snapshot of volume `%s/%s` was made: what hosts have written could "
                            "not be made durable in time, %s does not answer (`volctl events`)",
                            volume->pool->name, volume->durable.name, which);
    default:
        return machine_fail(machine, participant->status,
                            "no snapshot of volume `%s/%s` was made: what hosts have written "
                            "cannot be made durable (%s): see `volctl events` for the disk that "
                            "failed",
                            volume->pool->name, volume->durable.name,
                            error_name(participant->status));
    }
}

static enum machine_step
close_gates(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the snapshot could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    if (machine->pool->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
    }
    creation->gate_began_ns = reactor_now_ns(machine->manager->control);
    creation->created_realtime_ns = manager_realtime_ns(machine->manager);
    round_all(machine, &creation->round, gate_visit);
    return machine_wait(machine);
}

/* The gates of a group are all closed, and none opens by itself before we are done. */
static enum machine_step
end_generations(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;
    uint64_t now_ns = reactor_now_ns(machine->manager->control);
    bool in_time = now_ns - creation->gate_began_ns <= GATE_MAX_NS / 2;

    if (creation->count == 1 || !in_time || first_failed(creation) != NULL) {
        return MACHINE_NEXT;
    }
    round_all(machine, &creation->round, bump_visit);
    return machine_wait(machine);
}

static uint32_t
kept_count(const struct snapshot_creation *creation)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < creation->count; i++) {
        count += creation->participants[i].kept != 0;
    }
    return count;
}

static enum machine_step
open_gates(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (creation->count > 1) {
        round_all(machine, &creation->round, open_visit);
    }
    return machine_wait(machine);
}

/* The owners have gone on; their branches' records, too, with their next batches. */
static void
note_generations(struct snapshot_creation *creation)
{
    for (uint32_t i = 0; i < creation->count; i++) {
        const struct participant *participant = &creation->participants[i];
        if (participant->kept != 0) {
            participant->snapshot->branch->record.current_generation = participant->kept + 1;
        }
    }
}

/* All generations have ended, or none, but for mishaps. */
static enum machine_step
make_durable(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;
    struct manager *manager = machine->manager;
    struct participant *failed = first_failed(creation);
    uint32_t kept = kept_count(creation);

    note_generations(creation);
    if (kept == creation->count) {
        round_all(machine, &creation->round, seal_visit);
        return machine_wait(machine);
    }
    if (failed != NULL && failed->status != -EAGAIN && failed->status != -EBUSY) {
        return fail_participant(creation, failed);
    }
    if (kept > 0) {
        return machine_fail(machine, -EAGAIN,
                            "the snapshots were not made: the machine was too busy to keep the "
                            "volumes at one instant; try again");
    }
    if (reactor_now_ns(manager->control) + GATE_MAX_NS > creation->deadline_ns) {
        struct participant unknown = creation->participants[0];
        unknown.status = -ETIMEDOUT;
        return fail_participant(creation, failed != NULL ? failed : &unknown);
    }
    /* Hosts write for as long as they had to wait. */
    machine_goto(machine, CREATE_GATE);
    machine_pause(machine, &creation->pause, GATE_MAX_NS);
    return machine_wait(machine);
}

/* ---- they exist ---- */

static enum machine_step
keep(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;
    struct participant *failed = first_failed(creation);

    if (failed != NULL) {
        return fail_participant(creation, failed);
    }
    byte_buffer_clear(&creation->batch);
    for (uint32_t i = 0; i < creation->count; i++) {
        const struct participant *participant = &creation->participants[i];
        struct snapshot *snapshot = participant->snapshot;
        struct snapshot_record record = snapshot->record;
        record.state = SNAPSHOT_KEPT;
        if (creation->ret_hidden != NULL) {
            record.state = SNAPSHOT_HIDDEN;
            record.name[0] = '\0';
        }
        record.mapped_grains = participant->mapped_grains;
        record.size_bytes = participant->size_bytes;
        record.created_realtime_ns = creation->created_realtime_ns;
        schema_put_snapshot(&creation->batch, snapshot->branch->record.id, snapshot->generation,
                            &record);
        snapshot->record.mapped_grains = record.mapped_grains;
        snapshot->record.size_bytes = record.size_bytes;
        snapshot->record.created_realtime_ns = record.created_realtime_ns;
    }
    creation->commit.has_numbers = false;
    machine_arm(machine, &creation->commit.op, create_commit_done);
    committer_submit(machine->pool, &creation->commit);
    return machine_wait(machine);
}

static enum machine_step
publish(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->status < 0) {
        /* Whether they exist is seen at the next start. Until then nobody finds them. */
        machine_fail(machine, machine->status,
                     "it is not known whether the snapshot was recorded (%s): see `volctl events`",
                     error_name(machine->status));
        return machine_goto(machine, CREATE_END);
    }
    for (uint32_t i = 0; i < creation->count; i++) {
        struct snapshot *snapshot = creation->participants[i].snapshot;
        lineage_keep(snapshot->branch->lineage, snapshot->generation);
        snapshot_set_state(snapshot,
                           creation->ret_hidden != NULL ? SNAPSHOT_HIDDEN : SNAPSHOT_KEPT);
    }
    if (creation->ret_hidden != NULL) {
        *creation->ret_hidden = creation->participants[0].snapshot;
        creation->participants[0].snapshot->holds++; /* the caller's */
    }
    creation->create->ret_created_realtime_ns = creation->created_realtime_ns;
    return machine_goto(machine, CREATE_END);
}

/* ---- they do not ---- */

static enum machine_step
abandon(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (creation->count == 0) {
        return machine_goto(machine, CREATE_END);
    }
    if (kept_count(creation) == 0 || machine->pool->stopping) {
        return MACHINE_NEXT;
    }
    return machine_step_in(machine);
}

/* What was kept is deleted as any other; of what was not there is nothing but the record. */
static enum machine_step
abandon_in_line(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    byte_buffer_clear(&creation->batch);
    for (uint32_t i = 0; i < creation->count; i++) {
        const struct participant *participant = &creation->participants[i];
        struct snapshot *snapshot = participant->snapshot;
        uint8_t key[STORE_KEY_BYTES_MAX];
        if (participant->kept == 0) {
            uint32_t key_bytes =
                schema_key_snapshot(key, snapshot->branch->record.id, snapshot->generation);
            store_batch_delete(&creation->batch, STORE_FAMILY_SYSTEM, key, key_bytes);
            lineage_unbump(snapshot->branch->lineage);
        } else if (!machine->in_line) {
            /* The pool is being closed: the next open goes on from here. */
            struct snapshot_record record = snapshot->record;
            record.state = SNAPSHOT_DELETING;
            record.name[0] = '\0';
            schema_put_snapshot(&creation->batch, snapshot->branch->record.id,
                                snapshot->generation, &record);
        } else {
            if (!creation->plan_begun) {
                reclaim_plan_begin(&creation->plan, machine->pool);
                creation->plan_begun = true;
            }
            reclaim_plan_drop_view(&creation->plan, snapshot);
        }
    }
    if (creation->plan_begun) {
        reclaim_plan_put(&creation->plan, &creation->batch);
    }
    machine_arm(machine, &creation->commit.op, create_commit_done);
    committer_submit(machine->pool, &creation->commit);
    return machine_wait(machine);
}

static enum machine_step
abandoned(struct snapshot_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (creation->plan_begun) {
        reclaim_plan_end(&creation->plan, machine->status == 0);
    }
    if (machine->status < 0) {
        return MACHINE_NEXT; /* the pool is read-only; the next open lets go of them */
    }
    for (uint32_t i = 0; i < creation->count; i++) {
        const struct participant *participant = &creation->participants[i];
        if (participant->kept == 0) {
            snapshot_remove(participant->snapshot);
        }
    }
    return MACHINE_NEXT;
}

/* ---- the machine ---- */

static enum machine_step
create_phase(struct machine *machine, uint32_t phase)
{
    struct snapshot_creation *creation = container_of(machine, struct snapshot_creation, machine);

    switch ((enum snapshot_create_phase)phase) {
    case CREATE_CHECK:
        return check(creation);
    case CREATE_TURN:
        return take_turn(creation);
    case CREATE_GATE:
        return close_gates(creation);
    case CREATE_BUMP:
        return end_generations(creation);
    case CREATE_OPEN:
        return open_gates(creation);
    case CREATE_SEAL:
        return make_durable(creation);
    case CREATE_KEEP:
        return keep(creation);
    case CREATE_PUBLISH:
        return publish(creation);
    case CREATE_ABANDON:
        return abandon(creation);
    case CREATE_ABANDON_IN_LINE:
        return abandon_in_line(creation);
    case CREATE_ABANDONED:
        return abandoned(creation);
    case CREATE_END:
        for (uint32_t i = 0; i < creation->count; i++) {
            struct volume *volume = creation->participants[i].volume;
            volume->creating = NULL;
            volume_unpin(volume); /* if it was not made after all */
            ASSERT_OP(volume->holds, >, 0u);
            volume->holds--;
        }
        return MACHINE_NEXT;
    case CREATE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
create_release(struct machine *machine)
{
    struct snapshot_creation *creation = container_of(machine, struct snapshot_creation, machine);

    round_free(&creation->round);
    byte_buffer_free(&creation->batch);
    free(creation->participants);
    free(creation->pending);
    free(creation);
}

static const struct machine_ops SNAPSHOT_CREATE_OPS = {
    .name = "snapshot create",
    .phase_names = PHASE_NAMES,
    .phase_count = CREATE_PHASE_COUNT,
    .failed_phase = CREATE_ABANDON,
    .phase = create_phase,
    .release = create_release,
};

static void
creation_start(struct manager *manager, struct snapshot_create *create,
               struct snapshot **ret_hidden)
{
    ASSERT_ON_REACTOR(manager->control);
    if (create->count == 0 || create->count > SNAPSHOT_GROUP_MAX) {
        control_refuse(manager, &create->control, -EINVAL,
                       "snapshots at one instant are of 1 to %d volumes", SNAPSHOT_GROUP_MAX);
        return;
    }
    struct snapshot_creation *creation = calloc(1, sizeof(*creation));
    ASSERT(creation != NULL);
    machine_init(&creation->machine, &SNAPSHOT_CREATE_OPS, manager, &create->control);
    creation->create = create;
    creation->ret_hidden = ret_hidden;
    creation->participants = calloc(create->count, sizeof(*creation->participants));
    creation->pending = calloc(manager->options.reactor_count, sizeof(*creation->pending));
    ASSERT(creation->participants != NULL && creation->pending != NULL);
    machine_start_for_volume(&creation->machine, &create->names[0]);
}

void
manager_snapshot_create(struct manager *manager, struct snapshot_create *create)
{
    creation_start(manager, create, NULL);
}

void
snapshot_create_hidden(struct manager *manager, struct snapshot_create *create,
                       struct snapshot **ret_snapshot)
{
    ASSERT_OP(create->count, ==, 1u);
    ASSERT(create->names[0].snapshot[0] == '\0');
    creation_start(manager, create, ret_snapshot);
}
