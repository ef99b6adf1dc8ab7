/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

enum {
    DEADLINE_CHECK_MS = 200,
    PREFETCH_PAGES_MAX = 8,
};

#define BIT(stage) (UINT32_C(1) << STAGE_##stage)

static const uint32_t OPERATION_STAGES[VOLUME_OPERATION_COUNT] = {
    [VOLUME_READ] = BIT(ADMIT) | BIT(LOCK) | BIT(LOOKUP) | BIT(ISSUE) | BIT(SETTLE) | BIT(UNLOCK) |
                    BIT(REPLY),
    [VOLUME_WRITE] = BIT(ADMIT) | BIT(LOCK) | BIT(LOOKUP) | BIT(ALLOC) | BIT(ISSUE) | BIT(SETTLE) |
                     BIT(MAP) | BIT(LOG) | BIT(UNLOCK) | BIT(COMMIT) | BIT(REPLY),
    [VOLUME_WRITE_ZEROES] = BIT(ADMIT) | BIT(LOCK) | BIT(LOOKUP) | BIT(ALLOC) | BIT(ISSUE) |
                            BIT(SETTLE) | BIT(MAP) | BIT(LOG) | BIT(UNLOCK) | BIT(COMMIT) |
                            BIT(REPLY),
    [VOLUME_DISCARD] = BIT(ADMIT) | BIT(LOCK) | BIT(LOOKUP) | BIT(MAP) | BIT(LOG) | BIT(UNLOCK) |
                       BIT(COMMIT) | BIT(REPLY),
    [VOLUME_FLUSH] = BIT(ADMIT) | BIT(COMMIT) | BIT(REPLY),
    [VOLUME_STATUS] = BIT(ADMIT) | BIT(LOCK) | BIT(LOOKUP) | BIT(UNLOCK) | BIT(REPLY),
    [VOLUME_PREFETCH] = BIT(ADMIT) | BIT(LOOKUP) | BIT(UNLOCK) | BIT(REPLY),
};

/* What still runs after a failure. */
static const uint32_t CLEANUP_STAGES = BIT(UNLOCK) | BIT(REPLY);

void
request_fail(struct volume_request *request, int status)
{
    ASSERT_OP(status, <, 0);
    if (request->status == 0) {
        request->status = status;
    }
    request->has_failed = true;
}

void
window_plan_again(struct volume_request *request)
{
    if (request->copy_home != GRAIN_NONE) {
        copy_give_up(request);
    }
    request->stage = STAGE_LOOKUP;
}

/* ---- deadlines ---- */

static void
deadlines_check(struct timer *timer)
{
    struct shard *shard = container_of(timer, struct shard, deadline_timer);
    uint64_t now_ns = reactor_now_ns(shard->reactor);
    uint64_t default_ns = shard->pool->manager->options.request_timeout_ns;

    list_for_each_safe(&shard->active, link) {
        struct volume_request *request = list_entry(link, struct volume_request, shard_active_link);
        uint64_t timeout_ns = request->timeout_ns != 0 ? request->timeout_ns : default_ns;
        if (!request->replied && now_ns - request->started_ns > timeout_ns) {
            pipeline_overdue(request);
        }
    }
    if (!list_empty(&shard->active)) {
        timer_arm(shard->reactor, timer, now_ns + DEADLINE_CHECK_MS * NS_PER_MS, deadlines_check);
    }
}

void
pipeline_overdue(struct volume_request *request)
{
    struct volume *volume = request->volume;

    ASSERT(!request->replied);
    request_fail(request, -ETIMEDOUT);
    volume->errors[request->operation]++;
    request->replied = true;
    request->reply(request);
    /* In line for the range it holds nothing and need not wait for its turn (P9). */
    if ((request->mask & BIT(LOCK)) != 0 && list_linked(&request->lock_link) &&
        !request->lock_held) {
        range_lock_leave(&volume->lock, request);
        pipeline_resume(request);
    }
}

/* ---- stages ---- */

static bool
payload_is_aligned(const struct volume_request *request, const struct shard *shard)
{
    uint64_t mask = (MAX(shard->memory_alignment_max, shard->sector_bytes_max)) - 1;

    for (uint32_t i = 0; i < request->iov_count; i++) {
        if (((uintptr_t)request->iov[i].iov_base & (shard->memory_alignment_max - 1)) != 0 ||
            (i + 1 < request->iov_count && (request->iov[i].iov_len & mask) != 0)) {
            return false;
        }
    }
    return true;
}

static enum step
stage_admit(struct volume_request *request)
{
    struct volume *volume = request->volume;
    struct shard *shard = volume->shard;

    request->started_ns = reactor_now_ns(shard->reactor);
    list_push_back(&volume->active, &request->active_link);
    list_push_back(&shard->active, &request->shard_active_link);
    if (!timer_is_armed(&shard->deadline_timer)) {
        timer_arm(shard->reactor, &shard->deadline_timer,
                  request->started_ns + DEADLINE_CHECK_MS * NS_PER_MS, deadlines_check);
    }
    volume->operations[request->operation]++;
    volume->bytes[request->operation] += request->length_bytes;
    if (!volume->serving && request->operation != VOLUME_PREFETCH) {
        request_fail(request, -ESHUTDOWN); /* loss.c may still need to load a page */
    } else if (volume->fenced) {
        request_fail(request, -EIO);
    } else if (volume->commit_failed && request->operation != VOLUME_READ &&
               request->operation != VOLUME_STATUS && request->operation != VOLUME_PREFETCH) {
        request_fail(request, -EROFS);
    } else if (UNLIKELY(volume->view != LINEAGE_FOREVER) &&
               (request->mask & BIT(MAP)) != 0) {
        request_fail(request, -EROFS); /* what it shows has been kept as it is */
    } else if ((request->flags & (VOLUME_FAST_ZERO | VOLUME_NO_HOLE)) ==
               (VOLUME_FAST_ZERO | VOLUME_NO_HOLE)) {
        request_fail(request, -EOPNOTSUPP); /* space is allocated by writing it */
    } else if (request->length_bytes > 0 &&
               (request->length_bytes > volume->record.size_bytes ||
                request->offset_bytes > volume->record.size_bytes - request->length_bytes)) {
        request_fail(request, -ENXIO); /* shrunk since the target looked */
    }
    request->geometry_epoch = shard->geometry_epoch;
    request->payload_aligned = payload_is_aligned(request, shard);
    return STEP_NEXT;
}

static enum step
stage_lock(struct volume_request *request)
{
    uint64_t first = request->offset_bytes;
    uint64_t last = request_end_bytes(request) - 1;

    if (request->operation == VOLUME_WRITE_ZEROES || request->operation == VOLUME_DISCARD) {
        /* They may drop whole grains, into which a write beside them might be under way. */
        first = align_down(first, GRAIN_BYTES);
        last = align_down(last, GRAIN_BYTES) + GRAIN_BYTES - 1;
    }
    request->lock_first_block = first >> BLOCK_SHIFT;
    request->lock_last_block = last >> BLOCK_SHIFT;
    request->lock_exclusive =
        request->operation != VOLUME_READ && request->operation != VOLUME_STATUS;
    return range_lock_enter(&request->volume->lock, request) ? STEP_NEXT : STEP_WAIT;
}

static void
page_release(struct volume_request *request)
{
    if (request->page != NULL) {
        map_page_unpin(request->page);
        request->page = NULL;
    }
}

static enum step
stage_lookup(struct volume_request *request)
{
    struct volume *volume = request->volume;

    if (UNLIKELY(volume->loss != NULL) && request->operation != VOLUME_PREFETCH) {
        list_push_back(&volume->loss_waiters, &request->wait_link);
        return STEP_AGAIN;
    }
    if (UNLIKELY(volume->fenced)) {
        request_fail(request, -EIO);
        return STEP_NEXT;
    }
    if (request->page == NULL) {
        request->page = map_cache_get(&volume->shard->cache, volume,
                                      request->cursor_bytes >> MAP_PAGE_SHIFT);
    }
    if (request->page->state == MAP_PAGE_LOADING) {
        list_push_back(&request->page->waiters, &request->wait_link);
        return STEP_AGAIN;
    }
    if (request->page->state == MAP_PAGE_FAILED) {
        request_fail(request, -EIO);
        return STEP_NEXT;
    }
    if (UNLIKELY(request->geometry_epoch != volume->shard->geometry_epoch)) {
        request->geometry_epoch = volume->shard->geometry_epoch;
        request->payload_aligned = payload_is_aligned(request, volume->shard);
    }
    request->plan_epoch = volume->plan_epoch;
    request->stale = false;
    window_plan(request);
    return STEP_NEXT;
}

/* Is there another window to work on? */
static bool
next_window(struct volume_request *request)
{
    if (request->has_failed) {
        return false;
    }
    if (request->operation == VOLUME_STATUS && map_collect_status(request)) {
        return false;
    }
    uint64_t pages = (request->window_end_bytes >> MAP_PAGE_SHIFT) -
                     (request->offset_bytes >> MAP_PAGE_SHIFT);
    if (request->operation == VOLUME_PREFETCH && pages >= PREFETCH_PAGES_MAX) {
        return false;
    }
    return request->window_end_bytes < request_end_bytes(request);
}

static enum step
stage_unlock(struct volume_request *request)
{
    bool more = next_window(request);

    ASSERT_OP(request->children_pending, ==, 0u);
    if (UNLIKELY(request->stale)) {
        disk_flush_look(request->volume->shard); /* it failed with a loss, so SETTLE did not look */
        request->stale = false;
    }
    if (request->has_failed && request->page != NULL &&
        request->page->state == MAP_PAGE_READY) {
        if (request->copy_home != GRAIN_NONE) {
            copy_give_up(request);
        }
        map_detach_unused(request);
        if (UNLIKELY((request->watched & WATCH_LATE) != 0)) {
            map_late_write_failed(request);
        }
    }
    ASSERT(request->copy_home == GRAIN_NONE);
    if (UNLIKELY(request->watched != 0)) {
        volume_watched_window_ended(request);
    }
    if (!more || request->window_end_bytes >> MAP_PAGE_SHIFT !=
                     request->cursor_bytes >> MAP_PAGE_SHIFT) {
        page_release(request);
    }
    if (more) {
        request->cursor_bytes = request->window_end_bytes;
        request->stage = STAGE_LOOKUP;
        return STEP_NEXT;
    }
    issue_release(request);
    if (list_linked(&request->lock_link)) {
        range_lock_leave(&request->volume->lock, request);
    }
    return STEP_NEXT;
}

static enum step
stage_commit(struct volume_request *request)
{
    if (request->operation == VOLUME_FLUSH || request->needs_commit) {
        seal_wait(request->volume, request);
        return STEP_WAIT;
    }
    return STEP_NEXT;
}

/* The last stage; the request belongs to its caller again afterwards. */
static void
finish(struct volume_request *request)
{
    struct volume *volume = request->volume;

    ASSERT(request->page == NULL);
    ASSERT(request->fan == NULL && request->bounce == NULL);
    ASSERT(!request->lock_held);
    list_remove(&request->active_link);
    list_remove(&request->shard_active_link);
    if (!request->replied) {
        request->replied = true;
        if (volume->fenced && request->status == 0) {
            request->status = -EIO; /* the disk may have lost it while it was read */
        }
        if (request->status < 0) {
            volume->errors[request->operation]++;
        }
        uint64_t took_ns = reactor_now_ns(volume->shard->reactor) - request->started_ns;
        volume->latency_total_ns[request->operation] += took_ns;
        latency_add(&volume->shard->latency[request->operation], took_ns);
        request->reply(request);
    }
    if (list_empty(&volume->active)) {
        volume_drained(volume);
    }
    request->release(request);
}

/* ---- the executor ---- */

typedef enum step stage_fn(struct volume_request *request);

static stage_fn *const STAGES[STAGE_COUNT] = {
    [STAGE_ADMIT] = stage_admit,   [STAGE_LOCK] = stage_lock,     [STAGE_LOOKUP] = stage_lookup,
    [STAGE_ALLOC] = stage_alloc,   [STAGE_ISSUE] = stage_issue,   [STAGE_SETTLE] = stage_settle,
    [STAGE_MAP] = stage_map,       [STAGE_LOG] = stage_log,       [STAGE_UNLOCK] = stage_unlock,
    [STAGE_COMMIT] = stage_commit,
};

void
pipeline_run(struct volume_request *request)
{
    ASSERT_ON_REACTOR(request->volume->shard->reactor);
    ASSERT(!request->running); /* completions are queued: never entered twice */
    request->running = true;
    request->waiting = false;
    while (request->stage < STAGE_REPLY) {
        uint32_t stage = request->stage++;
        uint32_t wanted = request->has_failed ? CLEANUP_STAGES : request->mask;
        if ((wanted >> stage & 1) == 0) {
            continue;
        }
        enum step step = STAGES[stage](request);
        if (step != STEP_NEXT) {
            if (step == STEP_AGAIN) {
                request->stage = (uint8_t)stage;
            }
            request->running = false;
            request->waiting = true;
            return;
        }
    }
    request->running = false;
    if (request->submitting) {
        pipeline_resume(request); /* reply() never comes from inside volume_submit() */
        return;
    }
    finish(request);
}

static void
woken(struct io_op *op)
{
    struct volume_request *request = container_of(op, struct volume_request, wake);
    request->waking = false;
    pipeline_run(request);
}

void
pipeline_resume(struct volume_request *request)
{
    ASSERT(!request->waking);
    request->waking = true;
    request->wake.done = woken;
    request->wake.reactor_id = reactor_id(request->volume->shard->reactor);
    reactor_complete(&request->wake, 0);
}

void
pipeline_resume_all(struct list *waiters)
{
    for (struct list *link = list_pop_front(waiters); link != NULL;
         link = list_pop_front(waiters)) {
        pipeline_resume(list_entry(link, struct volume_request, wait_link));
    }
}

/* ---- entry ---- */

void
volume_request_init(struct volume_request *request)
{
    memset(request, 0, sizeof(*request));
    list_init(&request->active_link);
    list_init(&request->shard_active_link);
    list_init(&request->lock_link);
    list_init(&request->lock_wait_link);
    list_init(&request->lock_waiters);
    list_init(&request->wait_link);
}

void
volume_submit(struct volume *volume, struct volume_request *request)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT_OP(request->operation, <, (unsigned)VOLUME_OPERATION_COUNT);
    ASSERT(request->length_bytes > 0 || request->operation == VOLUME_FLUSH);
    ASSERT(request->reply != NULL && request->release != NULL);
    ASSERT(!list_linked(&request->active_link));

    request->volume = volume;
    request->mask = OPERATION_STAGES[request->operation];
    request->stage = STAGE_ADMIT;
    request->status = 0;
    request->extents_count = 0;
    request->replied = false;
    request->has_failed = false;
    request->needs_commit = false;
    request->asked_for_space = false;
    request->space_waits = 0;
    request->cursor_bytes = request->offset_bytes;
    request->window_end_bytes = request->offset_bytes;
    request->bounce_phase = BOUNCE_NONE;
    ASSERT_OP(request->children_pending, ==, 0u);
    request->submitting = true;
    pipeline_run(request);
    request->submitting = false;
}
