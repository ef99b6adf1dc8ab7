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
#include <stdio.h>
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

/* The disks that are not here and may have a copy, for people. */
static void
name_absent_disks(const struct pool *pool, char *to, size_t to_bytes)
{
    size_t at = 0;

    to[0] = '\0';
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        char spec[128];
        if (disk == NULL || disk->backend != NULL || disk->record.ledger_length_bytes == 0 ||
            at + 4 >= to_bytes) {
            continue;
        }
        disk_spec_without_secrets(disk->record.spec, spec, sizeof(spec));
        int more = snprintf(to + at, to_bytes - at, "%s%s", at > 0 ? ", " : "", spec);
        at = MIN(at + (size_t)MAX(more, 0), to_bytes - 1);
    }
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

int
ledger_gap_check(const struct ledger_gap *gap, uint64_t *ret_commit)
{
    size_t at = 0;

    ASSERT(gap->position == 0);
    while (at < gap->batches.length_bytes) {
        const uint8_t *header = gap->batches.data + at;
        size_t bytes = get_le64(header + 8);
        if (!batch_is_sound(header + GAP_HEADER_BYTES, bytes)) {
            *ret_commit = get_le64(header);
            return -EUCLEAN;
        }
        at += GAP_HEADER_BYTES + bytes;
    }
    return 0;
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

static void
checkpointed(void *context, int status)
{
    struct pool_opening *opening = context;
    machine_completed(&opening->machine, status);
}

/* ---- at open ---- */

/* What was imported with --force is not what the ledger on the disks goes on from. */
static bool
begins_new_history(const struct pool_opening *opening)
{
    return strcmp(opening->load.run.boot_id, RUN_OF_NO_BOOT) == 0;
}

enum machine_step
pool_ledger_scan(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    ledger_gap_clear(&opening->gap);
    int result = pool_ledger_create(pool, LEDGER_COPIES_MAX);
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
    if (begins_new_history(opening)) {
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

/* The ledger does not prove the database; `why`. */
static enum machine_step
refuse_ledger(struct pool_opening *opening, int status, const char *why)
{
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    if (!machine->manager->options.accept_loss) {
        return machine_fail(machine, status,
                            "%s, so that nothing proves that the database is not an old one; "
                            "`volctl pool import` rebuilds what can be proved, --accept-loss goes "
                            "on with the database as it is",
                            why);
    }
    event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "ledger-ignored",
                "%s; it has been started anew (--accept-loss)", why);
    /* Whatever a copy that comes back has, it is of another history. */
    opening->load.commit += NEW_HISTORY_COMMITS;
    opening->format_ledger = true;
    return machine_goto(machine, OPEN_FORMAT_LEDGER);
}

/* The highest incarnation that a label of a disk that is here tells of. */
static uint64_t
newest_incarnation(const struct pool *pool)
{
    uint64_t newest = 0;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->backend != NULL) {
            newest = MAX(newest, disk->label.incarnation);
        }
    }
    return newest;
}

/*
 * Some copy that took part to the end of this one is not here. If the pool went on with that one
 * alone, it has what is neither here nor in a database that is an old one, too. A database that is
 * up to date agrees with the copy that is here, but for the commit that was under way in both; and
 * no label tells of a run that it does not know.
 */
static bool
may_be_old(const struct pool_opening *opening)
{
    const struct ledger_scan *scan = &opening->ledger_scan;

    return scan->ret_last_commit > opening->load.commit + 1 ||
           newest_incarnation(opening->pool) > opening->load.run.incarnation;
}

/* Whether a label says of one of the current copies that it was not dropped. */
static bool
is_believed(const struct pool_opening *opening)
{
    const struct pool *pool = opening->pool;
    uint32_t current = opening->ledger_scan.ret_current_copies;

    for (uint32_t n = 0; n < pool->ledger_disk_count; n++) {
        if ((current & 1u << n) != 0 && pool->disks[pool->ledger_disks[n]]->label.ledger_current) {
            return true;
        }
    }
    return false;
}

static enum machine_step
refuse_old(struct pool_opening *opening)
{
    char absent[200];
    char why[400];

    name_absent_disks(opening->pool, absent, sizeof(absent));
    snprintf(why, sizeof(why),
             "the newest copy of the commit ledger may be on a disk that is missing (%s: bring it "
             "back), and the database does not agree with the one that is here", absent);
    return refuse_ledger(opening, -ESTALE, why);
}

/* The ledger has more than the database. */
static enum machine_step
judge_gap(struct pool_opening *opening)
{
    struct machine *machine = &opening->machine;
    const struct ledger_scan *scan = &opening->ledger_scan;
    uint64_t commit = opening->load.commit;

    if (machine->status == -ENOENT && scan->ret_last_commit == commit + NEW_HISTORY_COMMITS) {
        /* --accept-loss started the ring anew, and then the daemon died. */
        opening->load.commit = scan->ret_last_commit;
        opening->format_ledger = true;
        return machine_goto(machine, OPEN_FORMAT_LEDGER);
    }
    if (machine->status == -ENOENT || opening->gap.next_commit != commit + 1) {
        return machine_fail(machine, -ESTALE,
                            "the database is older than what was committed: it ends at commit "
                            "%llu, the ledger at %llu and begins only at %llu; rebuild it by "
                            "`volctl pool import --force`",
                            (unsigned long long)commit,
                            (unsigned long long)scan->ret_last_commit,
                            (unsigned long long)scan->ret_first_commit);
    }
    event_raise(machine->manager, EVENT_WARNING, opening->pool->name, NULL, "database-behind",
                "the database ends at commit %llu; the ledger brings it up to %llu",
                (unsigned long long)commit, (unsigned long long)scan->ret_last_commit);
    return machine_goto(machine, OPEN_APPLY_LEDGER);
}

/* The copies that are wanted and could be there. */
static uint32_t
wanted_copies(const struct pool *pool)
{
    return MIN(pool_ledger_copies(pool), (uint32_t)POOL_LEDGER_COPIES);
}

/*
 * Whether an import could put the ledger's records on a checkpoint. Not when a ring was started
 * anew, and then the daemon died.
 */
static bool
is_anchored(const struct pool_opening *opening)
{
    uint64_t first = opening->ledger_scan.ret_first_commit;
    uint64_t newest = MAX(opening->load.checkpoints[0].commit, opening->load.checkpoints[1].commit);

    return first <= 1 || newest + 1 >= first;
}

enum machine_step
pool_ledger_judge(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    const struct ledger_scan *scan = &opening->ledger_scan;
    uint64_t commit = opening->load.commit;

    opening->format_ledger = false;
    if (opening->pool->ledger == NULL) {
        return machine_goto(machine, OPEN_FORMAT_LEDGER);
    }
    if (begins_new_history(opening)) {
        opening->format_ledger = true;
        return machine_goto(machine, OPEN_FORMAT_LEDGER);
    }
    if (machine->status == -ENOENT && scan->ret_current_copies == 0 &&
        scan->ret_absent_copies == 0) {
        char absent[200];
        char why[400];
        name_absent_disks(opening->pool, absent, sizeof(absent));
        snprintf(why, sizeof(why), "no disk with the commit ledger is here%s%s%s",
                 absent[0] != '\0' ? " (missing: " : "", absent, absent[0] != '\0' ? ")" : "");
        return refuse_ledger(opening, -EUCLEAN, why);
    }
    /* It was there when the pool was made, and a ring is started anew one header at a time. */
    if ((machine->status < 0 && machine->status != -ENOENT) || scan->ret_current_copies == 0) {
        return refuse_ledger(opening, machine->status < 0 && machine->status != -ENOENT
                                          ? machine->status
                                          : -EUCLEAN,
                             "the commit ledger is damaged");
    }
    if (scan->ret_absent_copies > 0 && (may_be_old(opening) || !is_believed(opening))) {
        return refuse_old(opening);
    }
    if (scan->ret_last_commit + 1 < commit) {
        char why[128];
        snprintf(why, sizeof(why),
                 "the commit ledger ends at commit %llu, long before the database (%llu)",
                 (unsigned long long)scan->ret_last_commit, (unsigned long long)commit);
        return refuse_ledger(opening, -ESTALE, why);
    }
    if (scan->ret_last_commit > commit) {
        return judge_gap(opening);
    }
    if (scan->ret_last_commit < commit) {
        /* The last commit was under way in both, and was never acknowledged. */
        opening->format_ledger = true;
        return machine_goto(machine, OPEN_FORMAT_LEDGER);
    }
    uint32_t current = (uint32_t)__builtin_popcount(scan->ret_current_copies);
    opening->rejoin_ledger = current < wanted_copies(opening->pool);
    opening->ring_is_new = !is_anchored(opening);
    pool_ledger_note_current(opening->pool, scan->ret_current_copies);
    return machine_goto(machine, OPEN_FORMAT_LEDGER);
}

enum machine_step
pool_ledger_apply(struct pool_opening *opening)
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
    machine_goto(machine, OPEN_APPLY_LEDGER);
    machine_arm(machine, &opening->store_commit.op, apply_done);
    store_commit(opening->pool->store, &opening->store_commit);
    return machine_wait(machine);
}

/* ---- room for the commits of the start ---- */

enum {
    START_PART = 4,       /* a quarter of the ring is more than a piece of replay takes */
    CHECKPOINT_PART = 32, /* so much is enough for the commits of a checkpoint */
    CHECKPOINTS_TO_RELEASE = 2, /* the ring is released behind the older of two */
};

bool
pool_ledger_wants_room(const struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    const struct pool *pool = opening->pool;

    return pool->ledger != NULL && opening->room_checkpoints < CHECKPOINTS_TO_RELEASE &&
           committer_room_bytes(&pool->committer, false) <
               ledger_size_bytes(pool->ledger) / START_PART;
}

/*
 * The last run could not write checkpoints, and died: commits of the start would wait for one that
 * is written only while the pool serves. When not even a checkpoint gets its commits in any more,
 * the ring is started anew, as after a commit that was under way in both: the database is whole,
 * and the start writes a checkpoint behind it.
 */
enum machine_step
pool_ledger_make_room(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    const struct pool *pool = opening->pool;
    uint64_t room_bytes = committer_room_bytes(&pool->committer, true);

    if (machine->status < 0) {
        if (room_bytes < ledger_size_bytes(pool->ledger) / CHECKPOINT_PART) {
            return machine_fail(machine, machine->status,
                                "the commit ledger is full, and no checkpoint can be written that "
                                "would make room: %s",
                                error_name(machine->status));
        }
        opening->room_checkpoints = CHECKPOINTS_TO_RELEASE; /* with what there is */
    }
    if (!pool_ledger_wants_room(opening)) {
        return machine_goto(machine, opening->room_phase);
    }
    if (room_bytes < ledger_size_bytes(pool->ledger) / CHECKPOINT_PART) {
        return machine_goto(machine, OPEN_ROOM_SETTLE);
    }
    opening->room_checkpoints++;
    machine_goto(machine, OPEN_MAKE_ROOM);
    machine->pending++;
    pool_checkpoint_now(opening->pool, checkpointed, opening);
    return machine_wait(machine);
}

enum machine_step
pool_ledger_room_format(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    if (!pool_open_is_settled(opening, OPEN_ROOM_SETTLE)) {
        return machine_wait(&opening->machine);
    }
    event_raise(opening->machine.manager, EVENT_WARNING, opening->pool->name, NULL,
                "ledger-started-anew",
                "the commit ledger was full to the last block; it starts anew behind commit %llu",
                (unsigned long long)opening->pool->committer.commit);
    opening->format_ledger = true;
    opening->load.commit = opening->pool->committer.commit;
    return pool_ledger_format(opening);
}

enum machine_step
pool_ledger_room_made(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    if (pool_ledger_formatted(opening) == MACHINE_NEXT && opening->machine.failed) {
        return MACHINE_NEXT;
    }
    return machine_goto(&opening->machine, opening->room_phase);
}

/* ---- a new ring ---- */

enum machine_step
pool_ledger_format(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct pool *pool = opening->pool;

    if (!opening->format_ledger) {
        return MACHINE_NEXT;
    }
    /* Only those that are to hold it. */
    ledger_destroy(pool->ledger);
    pool->ledger = NULL;
    int result = pool_ledger_create(pool, POOL_LEDGER_COPIES);
    if (result < 0) {
        return machine_fail(machine, result, "the commit ledger cannot be started anew: %s",
                            error_name(result));
    }
    opening->ledger_format.ledger = pool->ledger;
    opening->ledger_format.commit = opening->load.commit;
    machine_arm(machine, &opening->ledger_format.op, format_done);
    ledger_format(&opening->ledger_format);
    return machine_wait(machine);
}

enum machine_step
pool_ledger_formatted(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;

    if (!opening->format_ledger) {
        return MACHINE_NEXT;
    }
    opening->format_ledger = false;
    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the commit ledger cannot be started anew: %s",
                            error_name(machine->status));
    }
    pool_ledger_note_current(opening->pool, opening->ledger_format.ret_current_copies);
    opening->ring_is_new = true;
    return MACHINE_NEXT;
}

static enum machine_step
take_checkpoint(struct pool_opening *opening)
{
    opening->machine.pending++;
    pool_checkpoint_now(opening->pool, checkpointed, opening);
    return machine_wait(&opening->machine);
}

/*
 * A ledger disk that was dropped or missing is back, or another takes its place: all copies are
 * started anew together, behind two checkpoints that contain everything (L3). When these cannot be
 * written it stays out.
 */
enum machine_step
pool_ledger_rejoin(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    if (pool_ledger_wants_room(opening)) {
        opening->room_phase = OPEN_REJOIN_LEDGER;
        return machine_goto(&opening->machine, OPEN_MAKE_ROOM);
    }
    if (!opening->rejoin_ledger || opening->machine.status < 0) {
        return machine_goto(&opening->machine, OPEN_WRITE_LABELS);
    }
    return take_checkpoint(opening);
}

enum machine_step
pool_ledger_rejoin_format(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;

    if (machine->status < 0) {
        return machine_goto(machine, OPEN_WRITE_LABELS);
    }
    if (!pool_open_is_settled(opening, OPEN_REJOIN_SETTLE)) {
        return machine_wait(machine);
    }
    opening->format_ledger = true;
    opening->load.commit = opening->pool->committer.commit;
    return pool_ledger_format(opening);
}

enum machine_step
pool_ledger_rejoined(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);

    pool_ledger_formatted(opening);
    if (!opening->machine.failed) {
        event_raise(opening->machine.manager, EVENT_INFO, opening->pool->name, NULL,
                    "ledger-copy-rejoined", "all copies of the commit ledger are current again");
    }
    return MACHINE_NEXT;
}

/*
 * The records of a new ring begin behind a commit that no checkpoint of before contains: without a
 * checkpoint behind it an import could not use them. Nothing is served before it is there; when it
 * cannot be written now, it is tried again while the pool serves.
 */
enum machine_step
pool_ledger_anchor(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    if (!opening->ring_is_new || opening->pool->ledger == NULL) {
        return machine_goto(&opening->machine, OPEN_SERVE);
    }
    return take_checkpoint(opening);
}
