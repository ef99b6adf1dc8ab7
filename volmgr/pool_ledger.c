/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making the commit ledger and the database equal at open.
 *
 * The database may lack what the ledger proves to have been committed (it lost its last writes, or
 * was restored from a copy): the missing records are applied in order. When they reach back far
 * enough, nothing is lost; when they do not, the pool is refused rather than opened with an old
 * state. The ledger may lack the very last commit of the database (it was written in parallel and
 * never acknowledged): then it starts anew behind the database's commit. If it lacks more, it is
 * that of a disk that was left behind, or damaged, and proves nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "volmgr/pool_open_impl.h"

enum {
    GAP_HEADER_BYTES = 16 /* le64 commit, le64 length */
};

MACHINE_DONE(scan_done, struct pool_opening, ledger_scan.op)
MACHINE_DONE(format_done, struct pool_opening, ledger_format.op)
MACHINE_DONE(apply_done, struct pool_opening, store_commit.op)

static bool
pool_has_ledger_disks(const struct pool *pool)
{
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        if (pool->disks[i] != NULL && pool->disks[i]->record.ledger_length_bytes > 0) {
            return true;
        }
    }
    return false;
}

/* ---- records that the database lacks ---- */

void
ledger_gap_add(struct ledger_gap *gap, uint64_t commit, const void *batch, size_t batch_bytes)
{
    if (gap->batches.length_bytes == 0) {
        gap->next_commit = commit;
    }
    byte_buffer_append_le64(&gap->batches, commit);
    byte_buffer_append_le64(&gap->batches, batch_bytes);
    byte_buffer_append(&gap->batches, batch, batch_bytes);
}

/* Foreign bytes until proved to be a batch (P12). */
static bool
batch_is_sound(const uint8_t *batch, size_t batch_bytes)
{
    struct store_batch_item item;
    size_t position = 0;
    int next = 1;

    while (next > 0) {
        next = store_batch_next(batch, batch_bytes, &position, &item);
    }
    return next == 0;
}

int
ledger_gap_next(struct ledger_gap *gap, uint64_t *ret_commit)
{
    if (gap->position == gap->batches.length_bytes) {
        return 0;
    }
    ASSERT_OP(gap->position + GAP_HEADER_BYTES, <=, gap->batches.length_bytes);
    const uint8_t *header = gap->batches.data + gap->position;
    size_t bytes = get_le64(header + 8);
    *ret_commit = get_le64(header);
    if (!batch_is_sound(header + GAP_HEADER_BYTES, bytes)) {
        return -EUCLEAN;
    }
    byte_buffer_clear(&gap->batch);
    byte_buffer_append(&gap->batch, header + GAP_HEADER_BYTES, bytes);
    schema_put_commit(&gap->batch, *ret_commit);
    gap->position += GAP_HEADER_BYTES + bytes;
    return 1;
}

bool
ledger_gap_is_done(const struct ledger_gap *gap)
{
    return gap->position == gap->batches.length_bytes;
}

void
ledger_gap_clear(struct ledger_gap *gap)
{
    byte_buffer_free(&gap->batches);
    byte_buffer_free(&gap->batch);
    *gap = (struct ledger_gap){ 0 };
}

static int
gap_record(struct ledger_scan *scan, uint64_t commit, const void *batch, size_t batch_bytes)
{
    struct pool_opening *opening = container_of(scan, struct pool_opening, ledger_scan);

    ledger_gap_add(&opening->gap, commit, batch, batch_bytes);
    return 0;
}

/* ---- at open ---- */

enum machine_step
pool_ledger_scan(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    ledger_gap_clear(&opening->gap);
    int result = pool_ledger_create(pool);
    if (result < 0) {
        return machine_fail(machine, result, "cannot read the commit ledger: %s",
                            error_name(result));
    }
    if (pool->ledger == NULL) {
        if (pool_has_ledger_disks(pool) && !machine->manager->options.accept_loss) {
            return machine_fail(machine, -ENODEV,
                                "all disks with the commit ledger are missing, so that nothing "
                                "proves that the database is not an old one; bring one of them "
                                "back, or start with --accept-loss");
        }
        return MACHINE_NEXT;
    }
    memset(&opening->ledger_scan, 0, sizeof(opening->ledger_scan));
    opening->ledger_scan.ledger = pool->ledger;
    opening->ledger_scan.after_commit = opening->load.commit;
    opening->ledger_scan.record = gap_record;
    machine_arm(machine, &opening->ledger_scan.op, scan_done);
    ledger_scan(&opening->ledger_scan);
    return machine_wait(machine);
}

static enum machine_step
refuse_ledger(struct pool_opening *opening, int status, uint32_t equal_phase)
{
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    if (!machine->manager->options.accept_loss) {
        return machine_fail(machine, status,
                            "the commit ledger is %s, so that nothing proves that the database "
                            "is not an old one; `volctl pool import` rebuilds what can be proved, "
                            "--accept-loss goes on with the database as it is",
                            status == -ESTALE ? "older than the database by several commits"
                                              : "damaged");
    }
    event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "ledger-ignored",
                "the commit ledger was %s and has been started anew (--accept-loss)",
                status == -ESTALE ? "old" : "damaged");
    opening->format_ledger = true;
    return machine_goto(machine, equal_phase);
}

enum machine_step
pool_ledger_judge(struct pool_opening *opening, uint32_t apply_phase, uint32_t equal_phase)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    const struct ledger_scan *scan = &opening->ledger_scan;
    uint64_t commit = opening->load.commit;

    opening->format_ledger = false;
    if (opening->pool->ledger == NULL) {
        return machine_goto(machine, equal_phase);
    }
    if (machine->status < 0 && machine->status != -ENOENT) {
        return refuse_ledger(opening, machine->status, equal_phase);
    }
    if (scan->ret_current_copies == 0) {
        /* It was there when the pool was made, and a ring is started anew one header at a time. */
        return refuse_ledger(opening, -EUCLEAN, equal_phase);
    }
    if (scan->ret_last_commit + 1 < commit) {
        return refuse_ledger(opening, -ESTALE, equal_phase);
    }
    if (scan->ret_last_commit < commit) {
        /* The last commit was under way in both, and was never acknowledged. */
        opening->format_ledger = true;
        return machine_goto(machine, equal_phase);
    }
    if (scan->ret_last_commit == commit) {
        uint32_t current = (uint32_t)__builtin_popcount(scan->ret_current_copies);
        opening->rejoin_ledger = current < pool_ledger_copies(opening->pool);
        return machine_goto(machine, equal_phase);
    }
    if (machine->status == -ENOENT || opening->gap.next_commit != commit + 1) {
        return machine_fail(machine, -ESTALE,
                            "the database is older than what was committed: it ends at commit "
                            "%llu, the ledger at %llu and begins only at %llu; rebuild it by "
                            "`volctl pool import`",
                            (unsigned long long)commit,
                            (unsigned long long)scan->ret_last_commit,
                            (unsigned long long)scan->ret_first_commit);
    }
    event_raise(machine->manager, EVENT_WARNING, opening->pool->name, NULL, "database-behind",
                "the database ends at commit %llu; the ledger brings it up to %llu",
                (unsigned long long)commit, (unsigned long long)scan->ret_last_commit);
    return machine_goto(machine, apply_phase);
}

enum machine_step
pool_ledger_apply(struct pool_opening *opening, uint32_t apply_phase)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct ledger_gap *gap = &opening->gap;
    uint64_t commit = 0;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the database cannot be brought up to date: %s",
                            error_name(machine->status));
    }
    int next = ledger_gap_next(gap, &commit);
    if (next == 0) {
        return MACHINE_NEXT;
    }
    if (next < 0) {
        return machine_fail(machine, next, "record %llu of the commit ledger is no batch",
                            (unsigned long long)commit);
    }
    opening->store_commit.batch = &gap->batch;
    opening->store_commit.sync = ledger_gap_is_done(gap);
    machine_goto(machine, apply_phase);
    machine_arm(machine, &opening->store_commit.op, apply_done);
    store_commit(opening->pool->store, &opening->store_commit);
    return machine_wait(machine);
}

enum machine_step
pool_ledger_format(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;

    if (opening->format_ledger) {
        opening->ledger_format.ledger = opening->pool->ledger;
        opening->ledger_format.commit = opening->load.commit;
        machine_arm(machine, &opening->ledger_format.op, format_done);
        ledger_format(&opening->ledger_format);
    }
    return machine_wait(machine);
}
