/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/range_lock_impl.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

enum {
    BLOCKS_PER_GRAIN_SHIFT = GRAIN_SHIFT - BLOCK_SHIFT
};

static bool
is_narrow(const struct volume_request *request)
{
    return request->lock_first_block >> BLOCKS_PER_GRAIN_SHIFT ==
           request->lock_last_block >> BLOCKS_PER_GRAIN_SHIFT;
}

static struct list *
bucket_of(const struct range_lock *lock, uint64_t block)
{
    return &lock->buckets[(block >> BLOCKS_PER_GRAIN_SHIFT) & (RANGE_LOCK_BUCKETS - 1)];
}

void
range_lock_init(struct range_lock *lock)
{
    *lock = (struct range_lock){ 0 };
    list_init(&lock->wide);
}

void
range_lock_free(struct range_lock *lock)
{
    ASSERT_OP(lock->narrow_count, ==, 0u);
    ASSERT_OP(lock->wide_count, ==, 0u);
    free(lock->buckets);
    lock->buckets = NULL;
}

static bool
overlap(const struct volume_request *request, uint64_t first_block, uint64_t last_block)
{
    return request->lock_first_block <= last_block && first_block <= request->lock_last_block;
}

/* The newest request on `head` that came before `request` and conflicts with it. */
static struct volume_request *
conflict_on(const struct list *head, const struct volume_request *request)
{
    for (struct list *link = head->prev; link != head; link = link->prev) {
        struct volume_request *other = list_entry(link, struct volume_request, lock_link);
        if (other->lock_sequence < request->lock_sequence &&
            (other->lock_exclusive || request->lock_exclusive) &&
            overlap(other, request->lock_first_block, request->lock_last_block)) {
            return other;
        }
    }
    return NULL;
}

static struct volume_request *
find_conflict(const struct range_lock *lock, const struct volume_request *request)
{
    if (lock->wide_count > 0) {
        struct volume_request *found = conflict_on(&lock->wide, request);
        if (found != NULL) {
            return found;
        }
    }
    if (lock->narrow_count == 0) {
        return NULL;
    }
    if (is_narrow(request)) {
        return conflict_on(bucket_of(lock, request->lock_first_block), request);
    }
    for (uint32_t i = 0; i < RANGE_LOCK_BUCKETS; i++) {
        struct volume_request *found = conflict_on(&lock->buckets[i], request);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

static void
insert(struct range_lock *lock, struct volume_request *request)
{
    if (is_narrow(request)) {
        if (lock->buckets == NULL) {
            lock->buckets = malloc(RANGE_LOCK_BUCKETS * sizeof(struct list));
            ASSERT(lock->buckets != NULL);
            for (uint32_t i = 0; i < RANGE_LOCK_BUCKETS; i++) {
                list_init(&lock->buckets[i]);
            }
        }
        list_push_back(bucket_of(lock, request->lock_first_block), &request->lock_link);
        lock->narrow_count++;
    } else {
        list_push_back(&lock->wide, &request->lock_link);
        lock->wide_count++;
    }
}

static bool
grant_or_wait(struct range_lock *lock, struct volume_request *request)
{
    struct volume_request *conflict = find_conflict(lock, request);
    if (conflict == NULL) {
        request->lock_held = true;
        return true;
    }
    list_push_back(&conflict->lock_waiters, &request->lock_wait_link);
    return false;
}

bool
range_lock_enter(struct range_lock *lock, struct volume_request *request)
{
    ASSERT(!request->lock_held);
    ASSERT(list_empty(&request->lock_waiters));
    ASSERT_OP(request->lock_first_block, <=, request->lock_last_block);
    request->lock_sequence = ++lock->sequence;
    insert(lock, request);
    return grant_or_wait(lock, request);
}

void
range_lock_leave(struct range_lock *lock, struct volume_request *request)
{
    struct list waiters;

    if (is_narrow(request)) {
        ASSERT_OP(lock->narrow_count, >, 0u);
        lock->narrow_count--;
    } else {
        ASSERT_OP(lock->wide_count, >, 0u);
        lock->wide_count--;
    }
    list_remove(&request->lock_link);
    if (!request->lock_held) {
        list_remove(&request->lock_wait_link);
    }
    request->lock_held = false;
    if (list_empty(&request->lock_waiters)) {
        return;
    }
    list_init(&waiters);
    list_splice_back(&waiters, &request->lock_waiters);
    for (struct list *link = list_pop_front(&waiters); link != NULL;
         link = list_pop_front(&waiters)) {
        struct volume_request *waiter = list_entry(link, struct volume_request, lock_wait_link);
        if (grant_or_wait(lock, waiter)) {
            pipeline_resume(waiter);
        }
    }
}

static bool
others_on(const struct list *head, const struct volume_request *self, uint64_t first_block,
          uint64_t last_block)
{
    list_for_each(head, link) {
        const struct volume_request *other = list_entry(link, struct volume_request, lock_link);
        if (other != self && other->lock_held && overlap(other, first_block, last_block)) {
            return true;
        }
    }
    return false;
}

bool
range_lock_others(const struct range_lock *lock, const struct volume_request *self,
                  uint64_t first_block, uint64_t last_block)
{
    ASSERT_OP(first_block >> BLOCKS_PER_GRAIN_SHIFT, ==, last_block >> BLOCKS_PER_GRAIN_SHIFT);
    if (lock->wide_count > 0 && others_on(&lock->wide, self, first_block, last_block)) {
        return true;
    }
    return lock->narrow_count > 0 &&
           others_on(bucket_of(lock, first_block), self, first_block, last_block);
}
