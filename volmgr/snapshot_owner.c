/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

enum {
    GENERATIONS_SPARE = 16, /* below the highest number: no snapshot is taken there */
};

void
volume_history_init(struct volume_history *history)
{
    list_init(&history->gate_waiters);
    list_init(&history->settles);
    list_init(&history->seal_waits);
    list_init(&history->seal_waits_sealed);
}

void
volume_history_free(struct volume_history *history)
{
    ASSERT(history->gate == NULL);
    ASSERT(list_empty(&history->gate_waiters) && list_empty(&history->settles));
    ASSERT(list_empty(&history->seal_waits) && list_empty(&history->seal_waits_sealed));
    byte_buffer_free(&history->frozen);
    byte_buffer_free(&history->counts);
    byte_buffer_free(&history->counts_sealed);
}

/* ---- windows under way ---- */

/* It has passed ALLOC, and is before the end of LOG. Not running now: so it waits. */
static bool
window_is_under_way(const struct volume_request *request)
{
    return (request->operation == VOLUME_WRITE || request->operation == VOLUME_WRITE_ZEROES) &&
           (request->window_kind == WINDOW_DIRECT || request->window_kind == WINDOW_BOUNCE) &&
           request->page != NULL && request->stage > STAGE_ALLOC && request->stage <= STAGE_LOG;
}

/* Whose answer it waits for, if that is one disk. */
static const struct disk *
disk_waited_for(const struct volume_request *request)
{
    const struct shard *shard = request->volume->shard;

    if (request->children_pending == 0) {
        return NULL;
    }
    const struct volume_child *child =
        request->fan != NULL ? &request->fan->children[0] : &request->only_child;
    return child->request == request ? shard->disks[child->disk_index]->disk : NULL;
}

/* ---- the gate ---- */

static void
gate_complete(struct volume_gate *gate, int32_t result)
{
    ASSERT(!gate->completed);
    gate->completed = true;
    reactor_complete(&gate->op, result);
}

static void
note_slow_disk(struct volume_gate *gate)
{
    list_for_each(&gate->volume->active, link) {
        const struct volume_request *request =
            list_entry(link, struct volume_request, active_link);
        const struct disk *disk =
            (request->watched & WATCH_DRAIN) != 0 ? disk_waited_for(request) : NULL;
        if (disk != NULL && disk->backend != NULL) {
            snprintf(gate->ret_disk, sizeof(gate->ret_disk), "%s", disk->backend->spec);
            return;
        }
    }
}

static void
gate_drop(struct volume_gate *gate)
{
    struct volume *volume = gate->volume;
    struct volume_history *history = &volume->history;

    ASSERT(history->gate == gate);
    history->gate = NULL;
    history->gate_pending = 0;
    gate->is_closed = false;
    timer_disarm(volume->shard->reactor, &gate->timer);
    list_for_each(&volume->active, link) {
        struct volume_request *request = list_entry(link, struct volume_request, active_link);
        request->watched &= (uint8_t)~WATCH_DRAIN;
    }
    pipeline_resume_all(&history->gate_waiters);
}

static void
gate_expired(struct timer *timer)
{
    struct volume_gate *gate = container_of(timer, struct volume_gate, timer);

    if (!gate->completed) {
        note_slow_disk(gate);
    }
    gate_drop(gate);
    if (!gate->completed) {
        gate_complete(gate, -EAGAIN);
    }
}

static int
gate_refusal(const struct volume *volume)
{
    if (volume->fenced || volume->commit_failed || !volume->serving ||
        volume->view != LINEAGE_FOREVER) {
        return -EIO;
    }
    if (volume->history.gate != NULL) {
        return -EBUSY;
    }
    return volume->loss != NULL ? -EAGAIN : 0;
}

void
volume_gate_close(struct volume *volume, struct volume_gate *gate)
{
    struct volume_history *history = &volume->history;
    struct reactor *reactor = volume->shard->reactor;

    ASSERT_ON_REACTOR(reactor);
    gate->volume = volume;
    gate->completed = false;
    gate->is_closed = false;
    gate->ret_disk[0] = '\0';
    int refusal = gate_refusal(volume);
    if (refusal < 0) {
        gate_complete(gate, refusal);
        return;
    }
    history->gate = gate;
    gate->is_closed = true;
    timer_arm(reactor, &gate->timer, reactor_now_ns(reactor) + GATE_MAX_NS, gate_expired);
    ASSERT_OP(history->gate_pending, ==, 0u);
    list_for_each(&volume->active, link) {
        struct volume_request *request = list_entry(link, struct volume_request, active_link);
        if (window_is_under_way(request) && !request->has_failed &&
            (gate->all || map_window_changes(request))) {
            request->watched |= WATCH_DRAIN;
            history->gate_pending++;
        }
    }
    if (history->gate_pending == 0) {
        gate_complete(gate, 0);
    }
}

void
volume_gate_open(struct volume *volume, struct volume_gate *gate)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (volume->history.gate != gate) {
        return;
    }
    gate_drop(gate);
    if (!gate->completed) {
        gate_complete(gate, -ECANCELED);
    }
}

static void
window_drained(struct volume_request *request)
{
    struct volume_history *history = &request->volume->history;

    request->watched &= (uint8_t)~WATCH_DRAIN;
    ASSERT(history->gate != NULL);
    ASSERT_OP(history->gate_pending, >, 0u);
    if (--history->gate_pending == 0) {
        gate_complete(history->gate, 0);
    }
}

bool
volume_gate_holds(struct volume_request *request)
{
    struct volume_history *history = &request->volume->history;

    ASSERT(history->gate != NULL);
    if ((request->watched & WATCH_DRAIN) != 0) {
        window_drained(request); /* it has come back, to be planned again */
    }
    if (request->window_kind != WINDOW_ZERO && !history->gate->all &&
        !map_window_changes(request)) {
        return false;
    }
    list_push_back(&history->gate_waiters, &request->wait_link);
    return true;
}

/* ---- generations ---- */

/* What is on its way to grains that have just been frozen. */
static void
note_late_windows(struct volume *volume)
{
    list_for_each(&volume->active, link) {
        struct volume_request *request = list_entry(link, struct volume_request, active_link);
        if (window_is_under_way(request) && (request->watched & WATCH_LATE) == 0 &&
            map_window_is_in_place(request)) {
            request->watched |= WATCH_LATE;
            volume->history.late_count++;
        }
    }
}

uint32_t
volume_bump(struct volume *volume)
{
    struct volume_history *history = &volume->history;
    const struct volume_gate *gate = history->gate;
    uint32_t kept = (uint32_t)volume->branch.current_generation;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (gate == NULL || history->gate_pending > 0 || volume->loss != NULL || volume->fenced ||
        volume->commit_failed || kept >= UINT32_MAX - GENERATIONS_SPARE) {
        return 0;
    }
    ASSERT_OP(volume->frozen, <, kept);
    if (!branch_is_counted(&volume->branch) && volume->mapped_grains > 0) {
        volume_count_grains(volume, kept, HISTORY_FOREVER, (int64_t)volume->mapped_grains);
    }
    volume->branch.current_generation = (uint64_t)kept + 1;
    volume->frozen = kept;
    volume->plan_epoch++;
    history->branch_changed = true;
    history->is_keeping = true;
    history->kept = kept;
    history->losses_at_bump = volume->losses;
    note_late_windows(volume);
    seal_note_dirty(volume);
    return kept;
}

void
volume_unbump(struct volume *volume, uint32_t frozen)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    struct volume_history *history = &volume->history;

    volume->frozen = MIN(frozen, (uint32_t)volume->branch.current_generation - 1);
    volume->plan_epoch++; /* a copy that is under way reads what may be written in place now */
    history->is_keeping &= volume->frozen >= history->kept;
}

/* ---- settling ---- */

static void
settle_complete(struct volume_settle *settle, int32_t result)
{
    timer_disarm(settle->volume->shard->reactor, &settle->timer);
    reactor_complete(&settle->op, result);
}

static void
settle_end(struct volume_settle *settle, int32_t result)
{
    if (list_linked(&settle->link)) {
        list_remove(&settle->link);
        settle_complete(settle, result);
    }
}

static void
settle_expired(struct timer *timer)
{
    settle_end(container_of(timer, struct volume_settle, timer), -ETIMEDOUT);
}

void
volume_settle_cancel(struct volume_settle *settle)
{
    ASSERT_ON_REACTOR(settle->volume->shard->reactor);
    settle_end(settle, -ECANCELED);
}

void
volume_settle(struct volume *volume, struct volume_settle *settle)
{
    struct reactor *reactor = volume->shard->reactor;

    ASSERT_ON_REACTOR(reactor);
    settle->volume = volume;
    list_init(&settle->link);
    if (volume->history.late_count == 0) {
        settle_complete(settle, 0);
        return;
    }
    list_push_back(&volume->history.settles, &settle->link);
    if (settle->timeout_ns > 0) {
        timer_arm(reactor, &settle->timer, reactor_now_ns(reactor) + settle->timeout_ns,
                  settle_expired);
    }
}

void
volume_watched_window_ended(struct volume_request *request)
{
    struct volume_history *history = &request->volume->history;

    if ((request->watched & WATCH_DRAIN) != 0) {
        window_drained(request);
    }
    if ((request->watched & WATCH_LATE) == 0) {
        return;
    }
    request->watched &= (uint8_t)~WATCH_LATE;
    ASSERT_OP(history->late_count, >, 0u);
    if (--history->late_count > 0) {
        return;
    }
    for (struct list *link = list_pop_front(&history->settles); link != NULL;
         link = list_pop_front(&history->settles)) {
        settle_complete(list_entry(link, struct volume_settle, link), 0);
    }
}

/* ---- sealing ---- */

static void
seal_wait_end(struct volume_seal_wait *wait, int32_t result)
{
    if (list_linked(&wait->link)) {
        list_remove(&wait->link);
        timer_disarm(wait->volume->shard->reactor, &wait->timer);
        reactor_complete(&wait->op, result);
    }
}

static void
seal_wait_expired(struct timer *timer)
{
    seal_wait_end(container_of(timer, struct volume_seal_wait, timer), -ETIMEDOUT);
}

void
volume_seal_cancel(struct volume_seal_wait *wait)
{
    ASSERT_ON_REACTOR(wait->volume->shard->reactor);
    seal_wait_end(wait, -ECANCELED);
}

void
volume_seal_now(struct volume *volume, struct volume_seal_wait *wait)
{
    struct reactor *reactor = volume->shard->reactor;

    ASSERT_ON_REACTOR(reactor);
    wait->volume = volume;
    list_init(&wait->link);
    list_push_back(&volume->history.seal_waits, &wait->link);
    if (wait->timeout_ns > 0) {
        timer_arm(reactor, &wait->timer, reactor_now_ns(reactor) + wait->timeout_ns,
                  seal_wait_expired);
    }
    seal_kick(volume);
}

/* G4 */
static int
keep_status(struct volume *volume, int status)
{
    struct volume_history *history = &volume->history;

    if (!history->is_keeping) {
        return status;
    }
    if (status < 0 || volume->losses != history->losses_at_bump) {
        return -EIO;
    }
    history->is_keeping = history->late_count > 0 || !history->covers_bump;
    return 0;
}

void
volume_history_sealing(struct volume *volume)
{
    struct volume_history *history = &volume->history;

    ASSERT(list_empty(&history->seal_waits_sealed));
    list_splice_back(&history->seal_waits_sealed, &history->seal_waits);
    byte_buffer_clear(&history->counts_sealed); /* of the last batch, which was committed */
    history->branch_sealed = false;
    history->covers_bump = history->late_count == 0;
    history->sealed_generation = (uint32_t)volume->branch.current_generation;
}

void
volume_history_sealed(struct volume *volume, int status)
{
    struct volume_history *history = &volume->history;

    if (history->sealed_generation != volume->branch.current_generation) {
        history->covers_bump = false; /* there was one while the seal was under way */
    }
    if (list_empty(&history->seal_waits_sealed)) {
        return;
    }
    int kept = keep_status(volume, status);
    for (struct list *link = list_pop_front(&history->seal_waits_sealed); link != NULL;
         link = list_pop_front(&history->seal_waits_sealed)) {
        struct volume_seal_wait *wait = list_entry(link, struct volume_seal_wait, link);
        timer_disarm(volume->shard->reactor, &wait->timer);
        reactor_complete(&wait->op, wait->any ? status : kept);
    }
}

void
seal_add(struct volume *volume, const struct byte_buffer *items)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT_OP(items->length_bytes, >, 0u);
    byte_buffer_append(&volume->history.frozen, items->data, items->length_bytes);
    seal_note_dirty(volume);
}

void
seal_version_died(struct volume *volume, struct map_page *page, uint32_t died, uint32_t previous)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT(page->volume == volume && page->state == MAP_PAGE_READY);
    map_version_died(&page->version, died, previous);
    if (page->is_sealed) {
        map_version_died(&page->version_before_seal, died, previous);
    }
}

/* ---- counters ---- */

/* Items of volume_history.counts; the same counter may be there more than once. */
struct history_count {
    struct history_counter counter;
    int64_t count;
};

void
volume_count_grains(struct volume *volume, uint32_t birth, uint32_t death, int64_t count)
{
    struct byte_buffer *counts = &volume->history.counts;
    struct history_count *last = NULL;
    struct history_count added = {
        .counter = { .branch = volume->branch.id, .death = death, .birth = birth },
        .count = count,
    };

    if (death == HISTORY_FOREVER && birth <= volume->branch.fork_generation) {
        added.counter.branch = view_chain_branch(volume->chain, birth); /* that bore it */
    }
    /* Most batches have grains of one generation only. */
    if (counts->length_bytes > 0) {
        last = (struct history_count *)(void *)(counts->data + counts->length_bytes) - 1;
    }
    if (last != NULL && last->counter.branch == added.counter.branch &&
        last->counter.birth == birth && last->counter.death == death) {
        last->count += count;
    } else {
        byte_buffer_append(counts, &added, sizeof(added));
    }
}

void
volume_history_encode(struct volume *volume, struct byte_buffer *batch)
{
    struct volume_history *history = &volume->history;
    const struct history_count *counts =
        (const struct history_count *)(const void *)history->counts.data;
    size_t count = history->counts.length_bytes / sizeof(*counts);
    struct byte_buffer emptied = history->counts_sealed;

    for (size_t i = 0; i < count; i++) {
        if (counts[i].count != 0) {
            schema_add_counter(batch, &counts[i].counter, counts[i].count);
        }
    }
    history->counts_sealed = history->counts;
    history->counts = emptied;
    byte_buffer_clear(&history->counts);
    volume->seal.commit.branch = history->branch_changed ? volume->branch.id : 0;
    volume->seal.commit.branch_generation = history->sealed_generation;
    history->branch_sealed = history->branch_changed;
    history->branch_changed = false;
}

void
volume_history_unsealed(struct volume *volume)
{
    struct volume_history *history = &volume->history;

    byte_buffer_append(&history->counts, history->counts_sealed.data,
                       history->counts_sealed.length_bytes);
    byte_buffer_clear(&history->counts_sealed);
    history->branch_changed |= history->branch_sealed;
    history->branch_sealed = false;
}
