/* SPDX-License-Identifier: Apache-2.0 */
/* The worker that removes page versions which nobody sees any more. See reclaim_impl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/reclaim_worker_impl.h"

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    RECLAIM_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == RECLAIM_PHASE_COUNT, "a name for each phase");

#define REST_NS_MIN     (1 * NS_PER_MS) /* between two pieces */
#define REST_NS_MAX     (100 * NS_PER_MS)
#define STEP_NS         (20 * NS_PER_US)
#define POSTPONED_NS    (1 * NS_PER_S)
#define SEAL_TIMEOUT_NS (30 * NS_PER_S)

enum {
    PASSES_MAX = 100, /* over the links of one job */
};

MACHINE_DONE(scan_done, struct reclaim, scan.op)
MACHINE_DONE(commit_done, struct reclaim, commit.op)

bool
reclaim_must_stop(const struct reclaim *reclaim)
{
    return reclaim->pool->stopping || reclaim->pool->committer.broken;
}

enum machine_step
reclaim_later(struct reclaim *reclaim, enum reclaim_phase phase, uint64_t delay_ns)
{
    machine_goto(&reclaim->machine, phase);
    machine_pause(&reclaim->machine, &reclaim->pause, delay_ns);
    return machine_wait(&reclaim->machine);
}

/* ---- which job ---- */

static size_t
job_count(const struct pool *pool)
{
    return pool->reclaim_jobs.length_bytes / sizeof(struct lineage_job);
}

/* Tails before gaps; otherwise as they came. */
static void
take_job(struct reclaim *reclaim)
{
    struct byte_buffer *buffer = &reclaim->pool->reclaim_jobs;
    struct lineage_job *jobs = (struct lineage_job *)(void *)buffer->data;
    size_t count = job_count(reclaim->pool);
    size_t index = 0;

    ASSERT_OP(count, >, 0u);
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].kind == LINEAGE_TAIL) {
            index = i;
            break;
        }
    }
    reclaim->job = jobs[index];
    reclaim->has_job = true;
    memmove(&jobs[index], &jobs[index + 1], (count - index - 1) * sizeof(*jobs));
    buffer->length_bytes -= sizeof(*jobs);
}

static void
show_progress(struct reclaim *reclaim)
{
    uint64_t left = job_count(reclaim->pool) + (reclaim->has_job ? 1 : 0);

    job_progress(reclaim->report,
                 (uint8_t)(reclaim->jobs_done * 99 / MAX(reclaim->jobs_done + left, 1u)));
}

uint32_t
reclaim_settled_generation(struct lineage_branch *top)
{
    uint32_t below = LINEAGE_FOREVER;

    for (uint32_t i = top->view_count; i > 0 && top->views[i - 1].state == LINEAGE_PENDING; i--) {
        below = top->views[i - 1].generation;
    }
    return lineage_frozen(top, below);
}

static void
gap_from_start(struct reclaim *reclaim)
{
    const struct lineage_branch *branch = reclaim->job.branch;

    reclaim->gap.through = branch->continues && reclaim->gap.above < branch->fork;
    dead_gap_begin(&reclaim->gap, &reclaim->cursor);
}

static enum machine_step
next_job(struct reclaim *reclaim)
{
    if (reclaim_must_stop(reclaim)) {
        return machine_fail(&reclaim->machine, -ECANCELED, "goes on at the next start");
    }
    reclaim->wants_kick = false;
    if (job_count(reclaim->pool) == 0) {
        return machine_goto(&reclaim->machine, RECLAIM_SURVEY);
    }
    take_job(reclaim);
    const struct lineage_job *job = &reclaim->job;
    reclaim->volume = NULL;
    reclaim->again = false;
    reclaim->exhausted = false;
    reclaim->passes = 0;
    show_progress(reclaim);
    if (job->kind == LINEAGE_TAIL) {
        reclaim->cursor = (struct version_link){ .version = job->above + 1 };
    } else if (job->above >= job->below) {
        return machine_goto(&reclaim->machine, RECLAIM_JOB_DONE);
    } else {
        reclaim->gap = (struct dead_gap){ .above = job->above, .below = job->below };
        gap_from_start(reclaim);
    }
    return machine_goto(&reclaim->machine, RECLAIM_SCAN);
}

/* Its volume cannot be sealed now: after the others. */
static enum machine_step
postpone_job(struct reclaim *reclaim)
{
    struct pool *pool = reclaim->pool;

    byte_buffer_append(&pool->reclaim_jobs, &reclaim->job, sizeof(reclaim->job));
    reclaim->has_job = false;
    if (++reclaim->postponed < job_count(pool)) {
        return machine_goto(&reclaim->machine, RECLAIM_NEXT_JOB);
    }
    reclaim->postponed = 0;
    return reclaim_later(reclaim, RECLAIM_NEXT_JOB, POSTPONED_NS);
}

/* ---- the owner ---- */

/* What it must know before versions of its line go, as it is now. */
static enum machine_step
tell_owner(struct reclaim *reclaim)
{
    struct lineage_branch *top = lineage_top(reclaim->job.branch);

    free(reclaim->chain); /* it has not been taken over: the volume was on its way elsewhere */
    reclaim->chain = view_chain_make(top, LINEAGE_FOREVER);
    reclaim->frozen = lineage_frozen(top, LINEAGE_FOREVER);
    reclaim->frozen_settled = reclaim_settled_generation(top);
    round_one(&reclaim->machine, &reclaim->round, reclaim->volume->shard->index,
              reclaim_tell_visit);
    return machine_wait(&reclaim->machine);
}

static enum machine_step
seal_owner(struct reclaim *reclaim)
{
    reclaim->seal_status = 0;
    reclaim->seal.timeout_ns = SEAL_TIMEOUT_NS;
    round_one(&reclaim->machine, &reclaim->round, reclaim->volume->shard->index,
              reclaim_seal_visit);
    return machine_wait(&reclaim->machine);
}

/* ---- links ---- */

/*
 * Lines change while a job waits or is worked on: where does its branch stand now? False: there is
 * something else to do first, or nothing any more.
 */
static bool
look_at_line(struct reclaim *reclaim, enum machine_step *ret_step)
{
    struct lineage_branch *branch = reclaim->job.branch;
    struct lineage_branch *top = lineage_top(branch);
    struct volume *volume = NULL;

    reclaim->owned_above = lineage_owned_above(branch);
    reclaim->bound = LINEAGE_FOREVER;
    if (reclaim->job.kind == LINEAGE_TAIL) {
        return true;
    }
    if (branch->ended) { /* its versions are in a tail */
        *ret_step = machine_goto(&reclaim->machine, RECLAIM_JOB_DONE);
        return false;
    }
    if (top->has_head) {
        volume = pool_find_volume_by_branch(reclaim->pool, top->id);
        if (volume == NULL) { /* it is being switched there */
            *ret_step = postpone_job(reclaim);
            return false;
        }
    }
    /*
     * No view lies between `above` and the next one, so what was superseded up to that is dead.
     * That may be more than when the gap came about: an open that follows no clean end raises the
     * head's generation, and a version that is replaced then takes its link along.
     */
    uint32_t next = lineage_view_above(branch, reclaim->gap.above);
    reclaim->gap.below = next != LINEAGE_FOREVER ? next : top->current;
    if (reclaim->gap.below <= reclaim->gap.above) {
        *ret_step = machine_goto(&reclaim->machine, RECLAIM_JOB_DONE);
        return false;
    }
    reclaim->bound = lineage_bound(branch);
    reclaim->gap.through = branch->continues && reclaim->gap.above < branch->fork;
    reclaim->settled = reclaim_settled_generation(top);
    if (volume != reclaim->volume) {
        reclaim->volume = volume;
        if (volume != NULL) {
            *ret_step = machine_goto(&reclaim->machine, RECLAIM_TELL_OWNER);
            return false;
        }
    }
    return true;
}

static enum machine_step
scan(struct reclaim *reclaim)
{
    struct store_scan *scan = &reclaim->scan;
    struct history_link from = {
        .branch = reclaim->job.branch->id,
        .version = reclaim->cursor.version,
        .previous = reclaim->cursor.previous,
        .page = reclaim->cursor.page,
    };
    enum machine_step step = MACHINE_NEXT;

    if (from.previous >= from.version) { /* there is no such link */
        from.version++;
        from.previous = 0;
        from.page = 0;
    }
    if (reclaim_must_stop(reclaim)) {
        return machine_fail(&reclaim->machine, -ECANCELED, "goes on at the next start");
    }
    if (reclaim->seal_status < 0) {
        reclaim->seal_status = 0;
        return postpone_job(reclaim);
    }
    if (!look_at_line(reclaim, &step)) {
        return step;
    }
    reclaim->postponed = 0;
    reclaim->piece_began_ns = reactor_now_ns(reclaim->machine.manager->control);
    scan->family = STORE_FAMILY_HISTORY;
    history_link_key_encode(scan->start, &from);
    scan->start_bytes = HISTORY_LINK_KEY_BYTES;
    scan->prefix_bytes = 1 + sizeof(uint64_t); /* the type, and the branch */
    memcpy(scan->prefix, scan->start, scan->prefix_bytes);
    scan->bytes_max = RECLAIM_SCAN_BYTES;
    byte_buffer_clear(&scan->items);
    reclaim->scan_position = 0;
    machine_arm(&reclaim->machine, &scan->op, scan_done);
    store_scan(reclaim->pool->store, scan);
    return machine_wait(&reclaim->machine);
}

static bool
piece_has_page(const struct reclaim *reclaim, uint64_t page)
{
    for (uint32_t i = 0; i < reclaim->page_count; i++) {
        if (reclaim->pages[i] == page) {
            return true;
        }
    }
    return false;
}

/* Room for another one, and of a page of which the piece has none yet. */
static bool
piece_takes(const struct reclaim *reclaim, uint64_t page)
{
    return reclaim->page_count < RECLAIM_PIECE_VERSIONS &&
           reclaim->batch.length_bytes < RECLAIM_PIECE_BYTES && !piece_has_page(reclaim, page);
}

enum machine_step
reclaim_end_piece(struct reclaim *reclaim, bool again)
{
    if (again) {
        /* The piece may change what the link says that the version superseded. */
        reclaim->cursor = (struct version_link){ .version = reclaim->find.link.version };
    }
    return machine_goto(&reclaim->machine, RECLAIM_COMMIT);
}

/* The cursor has not passed what `link` is about: is that dead? */
static enum dead_step
judge(struct reclaim *reclaim, const struct version_link *link)
{
    if (link->version > reclaim->bound) {
        return DEAD_END;
    }
    if (reclaim->job.kind == LINEAGE_GAP) {
        return dead_gap_step(&reclaim->gap, link, &reclaim->cursor);
    }
    reclaim->cursor = *link;
    reclaim->cursor.page++;
    return DEAD_TAKE;
}

static enum machine_step
found(struct reclaim *reclaim, const struct version_link *link, enum dead_step step)
{
    struct reclaim_find *find = &reclaim->find;

    find->link = *link;
    find->page = link->page;
    find->branch = reclaim->job.branch;
    if (!piece_takes(reclaim, link->page)) {
        return reclaim_end_piece(reclaim, true);
    }
    reclaim->pages[reclaim->page_count++] = link->page;
    if (step == DEAD_LOOK) {
        find->step = (struct lineage_step){ find->branch, link->version - 1 };
        return machine_goto(&reclaim->machine, RECLAIM_LOOK_BELOW);
    }
    find->number = reclaim->job.kind == LINEAGE_TAIL ? link->version : link->previous;
    return machine_goto(&reclaim->machine, RECLAIM_GET_DYING);
}

static enum machine_step
pick(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;
    struct store_scan *scan = &reclaim->scan;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "its history cannot be read: %s",
                            error_name(machine->status));
    }
    for (;;) {
        struct store_batch_item item;
        struct history_link key;
        int next = store_batch_next(scan->items.data, scan->items.length_bytes,
                                    &reclaim->scan_position, &item);
        if (next == 0 && scan->ret_more) {
            if (history_link_key_decode(scan->ret_next, scan->ret_next_bytes, &key) == 0) {
                struct version_link from = { key.version, key.previous, key.page };
                if (version_link_compare(&reclaim->cursor, &from) < 0) {
                    reclaim->cursor = from;
                }
            }
            return reclaim_later(reclaim, RECLAIM_SCAN, STEP_NS);
        }
        if (next == 0) {
            break;
        }
        if (next < 0 || history_link_key_decode(item.key, item.key_bytes, &key) < 0) {
            return machine_fail(machine, -EUCLEAN, "its history is damaged: see `volctl check`");
        }
        struct version_link link = { key.version, key.previous, key.page };
        if (version_link_compare(&link, &reclaim->cursor) < 0) {
            continue;
        }
        enum dead_step step = judge(reclaim, &link);
        if (step == DEAD_END) {
            break;
        }
        if (step != DEAD_SEEK) {
            return found(reclaim, &link, step);
        }
    }
    reclaim->exhausted = true;
    return machine_goto(machine, RECLAIM_COMMIT);
}

/* ---- pieces ---- */

static enum machine_step
commit(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;
    size_t count = reclaim->grains.length_bytes / sizeof(grain_address);

    if (reclaim->batch.length_bytes == 0) {
        return MACHINE_NEXT;
    }
    batch_append_use_bits(&reclaim->batch, &reclaim->pool->extents,
                          (grain_address *)(void *)reclaim->grains.data, count, false);
    reclaim->commit.batch = &reclaim->batch;
    machine_arm(machine, &reclaim->commit.op, commit_done);
    committer_submit(reclaim->pool, &reclaim->commit);
    return machine_wait(machine);
}

static enum machine_step
piece_seal(struct reclaim *reclaim)
{
    struct machine *machine = &reclaim->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "%s", error_name(machine->status));
    }
    return reclaim->owner_added || reclaim->wait ? seal_owner(reclaim) : MACHINE_NEXT;
}

static bool
piece_has_grains(const struct reclaim *reclaim)
{
    return reclaim->grains.length_bytes > 0 || reclaim->owner_grains.length_bytes > 0;
}

/* Committed. Nobody gets the grains before those who may still use them have ended (R4). */
static enum machine_step
piece_drain(struct reclaim *reclaim)
{
    if (reclaim->seal_status < 0) {
        byte_buffer_clear(&reclaim->owner_grains); /* free at the next start */
    }
    reclaim->is_drained = true;
    if (reclaim->volume != NULL && piece_has_grains(reclaim)) {
        round_one(&reclaim->machine, &reclaim->round, reclaim->volume->shard->index,
                  reclaim_drain_visit);
    }
    return machine_wait(&reclaim->machine);
}

static enum machine_step
piece_drained(struct reclaim *reclaim)
{
    if (!reclaim->is_drained && !reclaim_must_stop(reclaim)) {
        return reclaim_later(reclaim, RECLAIM_PIECE_DRAIN, REST_NS_MIN);
    }
    if (!reclaim->is_drained) { /* they are free from the next start on */
        byte_buffer_clear(&reclaim->grains);
        byte_buffer_clear(&reclaim->owner_grains);
    }
    reclaim->drain_since_ns = 0;
    return MACHINE_NEXT;
}

static enum machine_step
piece_tell(struct reclaim *reclaim)
{
    if (reclaim->died.length_bytes > 0 || piece_has_grains(reclaim)) {
        round_all(&reclaim->machine, &reclaim->round, reclaim_died_visit);
    }
    return machine_wait(&reclaim->machine);
}

static bool
space_is_short(const struct pool *pool)
{
    return pool->threshold_raised >= pool->record.critical_percent;
}

/* All links have been seen: once more, if some had to be passed over? */
static bool
must_begin_again(struct reclaim *reclaim)
{
    if (!reclaim->again) {
        return false;
    }
    reclaim->again = false;
    reclaim->exhausted = false;
    if (++reclaim->passes >= PASSES_MAX) {
        log_error("control", "%s: links of branch %llu are not those of its page versions: see "
                  "`volctl check`", reclaim->pool->name,
                  (unsigned long long)reclaim->job.branch->id);
        reclaim->skipped++;
        return false;
    }
    ASSERT(reclaim->job.kind == LINEAGE_GAP);
    gap_from_start(reclaim);
    return true;
}

static enum machine_step
piece_done(struct reclaim *reclaim)
{
    uint64_t now_ns = reactor_now_ns(reclaim->machine.manager->control);
    uint64_t rest_ns = MIN(MAX(now_ns - reclaim->piece_began_ns, REST_NS_MIN), REST_NS_MAX);

    byte_buffer_clear(&reclaim->batch);
    byte_buffer_clear(&reclaim->grains);
    byte_buffer_clear(&reclaim->owner_grains);
    byte_buffer_clear(&reclaim->died);
    reclaim->page_count = 0;
    reclaim->owner_added = false;
    reclaim->wait = false;
    if (reclaim_must_stop(reclaim)) {
        return machine_fail(&reclaim->machine, -ECANCELED, "goes on at the next start");
    }
    if (reclaim->exhausted && !must_begin_again(reclaim)) {
        return machine_goto(&reclaim->machine, RECLAIM_JOB_DONE);
    }
    return reclaim_later(reclaim, RECLAIM_SCAN,
                         space_is_short(reclaim->pool) ? STEP_NS : rest_ns);
}

static enum machine_step
job_done(struct reclaim *reclaim)
{
    struct pool *pool = reclaim->pool;
    struct lineage_jobs jobs = reclaim_jobs(pool);

    if (reclaim->seal_status < 0) {
        reclaim->seal_status = 0;
        return postpone_job(reclaim);
    }
    reclaim->has_job = false;
    reclaim->jobs_done++;
    if (reclaim->job.kind == LINEAGE_TAIL) {
        lineage_tail_done(reclaim->job.branch, &jobs);
    }
    show_progress(reclaim);
    return machine_goto(&reclaim->machine, RECLAIM_NEXT_JOB);
}

/* ---- the machine ---- */

static enum machine_step
reclaim_phase(struct machine *machine, uint32_t phase)
{
    struct reclaim *reclaim = container_of(machine, struct reclaim, machine);

    switch ((enum reclaim_phase)phase) {
    case RECLAIM_BEGIN:
        return reclaim_later(reclaim, RECLAIM_NEXT_JOB, STEP_NS);
    case RECLAIM_NEXT_JOB:
        return next_job(reclaim);
    case RECLAIM_TELL_OWNER:
        return tell_owner(reclaim);
    case RECLAIM_SEAL_OWNER:
        return seal_owner(reclaim);
    case RECLAIM_SCAN:
        return scan(reclaim);
    case RECLAIM_PICK:
        return pick(reclaim);
    case RECLAIM_LOOK_BELOW:
    case RECLAIM_FOUND_BELOW:
    case RECLAIM_GET_DYING:
    case RECLAIM_GOT_DYING:
    case RECLAIM_GET_OLDER:
    case RECLAIM_GOT_OLDER:
    case RECLAIM_GET_NEWER:
    case RECLAIM_GOT_NEWER:
        return reclaim_find_phase(reclaim, (enum reclaim_phase)phase);
    case RECLAIM_COMMIT:
        return commit(reclaim);
    case RECLAIM_PIECE_SEAL:
        return piece_seal(reclaim);
    case RECLAIM_PIECE_DRAIN:
        return piece_drain(reclaim);
    case RECLAIM_PIECE_DRAINED:
        return piece_drained(reclaim);
    case RECLAIM_PIECE_TELL:
        return piece_tell(reclaim);
    case RECLAIM_PIECE_DONE:
        return piece_done(reclaim);
    case RECLAIM_JOB_DONE:
        return job_done(reclaim);
    case RECLAIM_SURVEY:
    case RECLAIM_SURVEYED:
    case RECLAIM_LEAVE:
    case RECLAIM_LEFT:
        return reclaim_leave_phase(reclaim, (enum reclaim_phase)phase);
    case RECLAIM_END:
        return MACHINE_NEXT;
    case RECLAIM_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

/* What cannot be done now is found again at the next open. */
static void
reclaim_release(struct machine *machine)
{
    struct reclaim *reclaim = container_of(machine, struct reclaim, machine);
    struct pool *pool = reclaim->pool;
    const struct error *error = &machine->control->error;
    bool again = reclaim->wants_kick && error->code == 0 && !pool->stopping;

    if (error->code < 0 && error->code != -ECANCELED) {
        event_raise(machine->manager, EVENT_WARNING, pool->name, NULL, "reclaim-stopped",
                    "space of deleted snapshots could not be freed: %.180s; it is tried again at "
                    "the next start",
                    error->message);
    }
    pool->reclaim_skipped |= reclaim->skipped > 0;
    if (reclaim->has_job) {
        byte_buffer_append(&pool->reclaim_jobs, &reclaim->job, sizeof(reclaim->job));
    }
    job_end(reclaim->report, error->code, error->code < 0 ? error->message : "");
    round_free(&reclaim->round);
    byte_buffer_free(&reclaim->scan.items);
    byte_buffer_free(&reclaim->newer_scan.items);
    byte_buffer_free(&reclaim->get.value);
    reclaim_find_free(&reclaim->find);
    byte_buffer_free(&reclaim->died);
    byte_buffer_free(&reclaim->grains);
    byte_buffer_free(&reclaim->owner_grains);
    byte_buffer_free(&reclaim->batch);
    byte_buffer_free(&reclaim->gone);
    free(reclaim->chain);
    pool->reclaim = NULL;
    free(reclaim);
    if (again) {
        reclaim_kick(pool);
    }
}

static const struct machine_ops RECLAIM_OPS = {
    .name = "reclaim",
    .phase_names = PHASE_NAMES,
    .phase_count = RECLAIM_PHASE_COUNT,
    .failed_phase = RECLAIM_END,
    .phase = reclaim_phase,
    .release = reclaim_release,
};

static void
worker_start(struct pool *pool)
{
    struct reclaim *reclaim = calloc(1, sizeof(*reclaim));

    ASSERT(reclaim != NULL);
    ASSERT(pool->reclaim == NULL);
    pool->reclaim = reclaim;
    machine_init(&reclaim->machine, &RECLAIM_OPS, pool->manager, NULL);
    reclaim->machine.pool = pool; /* whose line it enters at the end */
    reclaim->pool = pool;
    reclaim_find_init(&reclaim->find);
    reclaim->report = job_start(pool->manager, "reclaim", pool->name);
    machine_start(&reclaim->machine);
}

/* ---- the outside ---- */

void
reclaim_kick(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    if (pool->stopping || pool->committer.broken) {
        return;
    }
    if (pool->reclaim != NULL) {
        pool->reclaim->wants_kick = true;
    } else if (job_count(pool) > 0 || reclaim_has_leavers(pool)) {
        worker_start(pool);
    }
}

void
reclaim_add(struct pool *pool, const struct lineage_job *job)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    byte_buffer_append(&pool->reclaim_jobs, job, sizeof(*job));
    reclaim_kick(pool);
}

static void
add_job(void *context, const struct lineage_job *job)
{
    reclaim_add(context, job);
}

struct lineage_jobs
reclaim_jobs(struct pool *pool)
{
    return (struct lineage_jobs){ add_job, pool };
}

bool
reclaim_needs_branch(const struct pool *pool, const struct pool_branch *branch)
{
    const struct reclaim *reclaim = pool->reclaim;
    const struct lineage_job *jobs =
        (const struct lineage_job *)(const void *)pool->reclaim_jobs.data;

    for (size_t i = 0; i < job_count(pool); i++) {
        if (jobs[i].branch == branch->lineage) {
            return true;
        }
    }
    if (reclaim == NULL) {
        return false; /* what it has left it could not remove */
    }
    list_for_each(&pool->snapshot_list, link) {
        if (list_entry(link, struct snapshot, link)->branch == branch) {
            return true;
        }
    }
    return reclaim->has_job && reclaim->job.branch == branch->lineage;
}

void
reclaim_start(struct pool *pool)
{
    reclaim_kick(pool);
}

bool
reclaim_has_stopped(const struct pool *pool)
{
    return pool->reclaim == NULL;
}
