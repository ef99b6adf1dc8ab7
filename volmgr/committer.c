/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/committer_impl.h"

#include <errno.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

enum {
    LEDGER_URGENT_PART = 16, /* a sixteenth of the ring is kept for checkpoints */
    BRANCH_PUT_BYTES = 192,  /* room for the record of a branch */
};

static void committer_next(struct committer *committer);
static void group_hook(struct pass_hook *hook);

void
committer_init(struct committer *committer, struct pool *pool, uint64_t last_commit)
{
    *committer = (struct committer){ .pool = pool, .commit = last_commit };
    list_init(&committer->waiting);
    list_init(&committer->in_flight);
}

void
committer_free(struct committer *committer)
{
    ASSERT(!committer->running);
    ASSERT(list_empty(&committer->waiting));
    ASSERT(!timer_is_armed(&committer->stall_timer));
    byte_buffer_free(&committer->group);
}

bool
committer_is_idle(const struct committer *committer)
{
    return !committer->running && list_empty(&committer->waiting);
}

/* ---- answers ---- */

static void
answer_delivered(struct message *message)
{
    struct commit_request *request = container_of(message, struct commit_request, message);
    reactor_complete(&request->op, request->op.result);
}

static void
answer(struct committer *committer, struct commit_request *request, int status)
{
    request->ret_commit = committer->commit;
    request->op.result = status;
    if (request->reply_to == committer->pool->manager->control) {
        reactor_complete(&request->op, status);
    } else {
        reactor_send(request->reply_to, &request->message, answer_delivered);
    }
}

static void
answer_all(struct committer *committer, struct list *requests, int status)
{
    for (struct list *link = list_pop_front(requests); link != NULL;
         link = list_pop_front(requests)) {
        answer(committer, list_entry(link, struct commit_request, link), status);
    }
}

/* ---- one group ---- */

static void
group_part_done(struct committer *committer, int status)
{
    ASSERT_OP(committer->parts_pending, >, 0u);
    if (status < 0 && committer->status == 0) {
        committer->status = status;
    }
    if (--committer->parts_pending > 0) {
        return;
    }
    committer->running = false;
    if (committer->broken) {
        answer_all(committer, &committer->in_flight, -EIO); /* committer_break() */
        return;
    }
    if (committer->status < 0) {
        /* C2: whether the group is durable is not known, and no later one may prove it so. */
        committer->broken = true;
        committer->broken_status = -EROFS;
        log_error("commit", "pool %s: commit %llu failed: %s; read-only from now on",
                  committer->pool->name, (unsigned long long)committer->commit,
                  error_name(committer->status));
        pool_metadata_failed(committer->pool, committer->status);
        answer_all(committer, &committer->in_flight, -EIO);
        answer_all(committer, &committer->waiting, -EROFS);
        return;
    }
    answer_all(committer, &committer->in_flight, 0);
    pool_committed(committer->pool);
    committer_next(committer);
}

static void
store_part_done(struct io_op *op)
{
    struct store_commit *commit = container_of(op, struct store_commit, op);
    group_part_done(container_of(commit, struct committer, store_commit), op->result);
}

static void
ledger_part_done(struct io_op *op)
{
    struct ledger_append *append = container_of(op, struct ledger_append, op);
    struct committer *committer = container_of(append, struct committer, ledger_append);

    if (append->ret_dropped_copies != 0) {
        pool_ledger_copies_dropped(committer->pool, append->ret_dropped_copies);
    }
    disk_flush_notice_losses(committer->pool);
    group_part_done(committer, op->result);
}

void
committer_break(struct committer *committer)
{
    ASSERT_ON_REACTOR(committer->pool->manager->control);
    ASSERT(committer->pool->lost);
    committer->broken = true;
    committer->broken_status = -EROFS;
    timer_disarm(committer->pool->manager->control, &committer->stall_timer);
    answer_all(committer, &committer->waiting, -EROFS);
}

/* ---- room in the ledger (C4) ---- */

/* A record is padded to blocks, and the ring's end may be left empty. */
static uint64_t
ledger_bytes_needed(uint64_t batch_bytes)
{
    return batch_bytes + 4 * LEDGER_RECORD_ALIGNMENT;
}

static uint64_t
ledger_bytes_free(const struct pool *pool, bool urgent)
{
    uint64_t size = ledger_size_bytes(pool->ledger);
    uint64_t used = ledger_used_bytes(pool->ledger) + (urgent ? 0 : size / LEDGER_URGENT_PART);

    return used < size ? size - used : 0;
}

uint64_t
committer_room_bytes(const struct committer *committer, bool urgent)
{
    ASSERT_ON_REACTOR(committer->pool->manager->control);
    return ledger_bytes_free(committer->pool, urgent);
}

static void
stall_timer_expired(struct timer *timer)
{
    struct committer *committer = container_of(timer, struct committer, stall_timer);

    pool_committed(committer->pool); /* a checkpoint, if none is under way */
    committer_ledger_released(committer);
}

static void
stall(struct committer *committer)
{
    struct pool *pool = committer->pool;

    if (!committer->stalled) {
        committer->stalled = true;
        event_raise(pool->manager, EVENT_WARNING, pool->name, NULL, "commits-wait",
                    "the commit ledger is full until the next checkpoint is written; FLUSH waits "
                    "for it");
        pool_committed(pool);
    }
    timer_arm(pool->manager->control, &committer->stall_timer,
              reactor_now_ns(pool->manager->control) + NS_PER_S, stall_timer_expired);
}

/* Move requests from the line to the group, as many as the ledger takes. */
static void
take_group(struct committer *committer)
{
    struct pool *pool = committer->pool;
    uint64_t bytes = 0;

    list_for_each_safe(&committer->waiting, link) {
        struct commit_request *request = list_entry(link, struct commit_request, link);
        uint64_t more = bytes + request->batch->length_bytes +
                        (request->branch != 0 ? BRANCH_PUT_BYTES : 0);
        if (pool->ledger != NULL) {
            bool too_long = bytes > 0 && more > ledger_size_bytes(pool->ledger) / 8;
            if (too_long ||
                ledger_bytes_needed(more) > ledger_bytes_free(pool, request->urgent)) {
                continue;
            }
        }
        bytes = more;
        list_remove(link);
        list_push_back(&committer->in_flight, link);
    }
}

void
committer_ledger_released(struct committer *committer)
{
    ASSERT_ON_REACTOR(committer->pool->manager->control);
    reactor_end_of_pass(committer->pool->manager->control, &committer->hook, group_hook);
}

/*
 * As it is now: what control has changed in it was committed before, or is in this group. It would
 * be taken back by a record that was encoded elsewhere.
 */
static void
put_branch(struct committer *committer, const struct commit_request *request)
{
    struct pool_branch *branch = pool_find_branch(committer->pool, request->branch);

    if (branch == NULL) {
        return; /* it was deleted while this was on its way */
    }
    size_t before = committer->group.length_bytes;
    branch->record.current_generation =
        MAX(branch->record.current_generation, (uint64_t)request->branch_generation);
    schema_put_branch(&committer->group, &branch->record);
    ASSERT_OP(committer->group.length_bytes - before, <=, (size_t)BRANCH_PUT_BYTES);
}

static void
committer_next(struct committer *committer)
{
    struct pool *pool = committer->pool;

    ASSERT_ON_REACTOR(pool->manager->control);
    if (committer->running || committer->broken || list_empty(&committer->waiting)) {
        return;
    }
    ASSERT(list_empty(&committer->in_flight));
    if (pool->ledger != NULL) {
        uint64_t page_bytes = MAP_PAGE_ENTRIES * sizeof(struct map_entry) * 9 / 8;
        uint64_t pages = ledger_size_bytes(pool->ledger) / 4 / page_bytes;
        __atomic_store_n(&pool->batch_pages_max, (uint32_t)MAX(pages, UINT64_C(1)),
                         __ATOMIC_RELAXED);
    }
    take_group(committer);
    if (list_empty(&committer->in_flight)) {
        stall(committer);
        return;
    }
    committer->stalled = false;
    timer_disarm(pool->manager->control, &committer->stall_timer);
    committer->running = true;
    committer->commit++;
    committer->groups++;
    committer->status = 0;
    byte_buffer_clear(&committer->group);
    bool has_numbers = false;
    list_for_each(&committer->in_flight, link) {
        const struct commit_request *request = list_entry(link, struct commit_request, link);
        byte_buffer_append(&committer->group, request->batch->data, request->batch->length_bytes);
        has_numbers |= request->has_numbers;
        committer->requests++;
    }
    list_for_each(&committer->in_flight, link) {
        const struct commit_request *request = list_entry(link, struct commit_request, link);
        if (request->branch != 0) {
            put_branch(committer, request);
        }
    }
    /* Behind them and as it is now: a request that was overtaken must not take numbers back. */
    if (has_numbers) {
        schema_put_pool(&committer->group, &pool->record);
    }
    schema_put_commit(&committer->group, committer->commit);

    committer->parts_pending = pool->ledger != NULL ? 2 : 1;
    committer->store_commit.op.done = store_part_done;
    committer->store_commit.batch = &committer->group;
    committer->store_commit.sync = true;
    store_commit(pool->store, &committer->store_commit);
    if (pool->ledger != NULL) {
        committer->ledger_append.op.done = ledger_part_done;
        committer->ledger_append.ledger = pool->ledger;
        committer->ledger_append.commit = committer->commit;
        committer->ledger_append.batch = &committer->group;
        committer->ledger_append.ret_dropped_copies = 0;
        ledger_append(&committer->ledger_append);
    }
}

/* ---- submission ---- */

static void
group_hook(struct pass_hook *hook)
{
    committer_next(container_of(hook, struct committer, hook));
}

static void
submit_delivered(struct message *message)
{
    struct commit_request *request = container_of(message, struct commit_request, message);
    struct committer *committer = &request->pool->committer;

    ASSERT_ON_REACTOR(request->pool->manager->control);
    if (committer->broken) {
        answer(committer, request, committer->broken_status);
        return;
    }
    list_push_back(&committer->waiting, &request->link);
    /* At the end of the pass, so that what arrives in this pass shares the sync. */
    reactor_end_of_pass(request->pool->manager->control, &committer->hook, group_hook);
}

void
committer_submit(struct pool *pool, struct commit_request *request)
{
    struct reactor *self = reactor_self();

    ASSERT(self != NULL);
    ASSERT(request->batch != NULL);
    request->pool = pool;
    request->reply_to = self;
    request->op.reactor_id = reactor_id(self);
    if (self == pool->manager->control) {
        submit_delivered(&request->message);
    } else {
        reactor_send(pool->manager->control, &request->message, submit_delivered);
    }
}
