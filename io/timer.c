/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers: a binary heap of pointers. A timer knows its place, so that re-arming and disarming cost
 * O(log n). Order among timers of the same instant is a function of the arming sequence only.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "io/reactor_impl.h"

enum {
    HEAP_CAPACITY_MIN = 256
};

void
timer_heap_free(struct timer_heap *heap)
{
    free(heap->entries);
    *heap = (struct timer_heap){ 0 };
}

struct timer *
timer_heap_first(const struct timer_heap *heap)
{
    return heap->count > 0 ? heap->entries[0] : NULL;
}

static void
place(struct timer_heap *heap, uint32_t index, struct timer *timer)
{
    ASSERT_OP(index, <, heap->count);
    heap->entries[index] = timer;
    timer->slot = index + 1;
}

/* Put `timer` at `index` or above, moving later ancestors down. */
static void
sift_up(struct timer_heap *heap, uint32_t index, struct timer *timer)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (heap->entries[parent]->due_ns <= timer->due_ns) {
            break;
        }
        place(heap, index, heap->entries[parent]);
        index = parent;
    }
    place(heap, index, timer);
}

/* Put `timer` at `index` or below, moving earlier descendants up. */
static void
sift_down(struct timer_heap *heap, uint32_t index, struct timer *timer)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count &&
            heap->entries[child + 1]->due_ns < heap->entries[child]->due_ns) {
            child++;
        }
        if (heap->entries[child]->due_ns >= timer->due_ns) {
            break;
        }
        place(heap, index, heap->entries[child]);
        index = child;
    }
    place(heap, index, timer);
}

/* Put `timer` where it belongs, given that `index` is free. */
static void
sift(struct timer_heap *heap, uint32_t index, struct timer *timer)
{
    if (index > 0 && timer->due_ns < heap->entries[(index - 1) / 2]->due_ns) {
        sift_up(heap, index, timer);
    } else {
        sift_down(heap, index, timer);
    }
}

static void
heap_remove(struct timer_heap *heap, struct timer *timer)
{
    uint32_t index = timer->slot - 1;
    ASSERT_OP(index, <, heap->count);
    ASSERT(heap->entries[index] == timer);

    timer->slot = 0;
    heap->count--;
    if (index < heap->count) {
        sift(heap, index, heap->entries[heap->count]);
    }
}

uint32_t
timer_heap_run(struct timer_heap *heap, uint64_t now_ns)
{
    /* At most as many as there are now: one that re-arms itself for the past must not hold us. */
    uint32_t budget = heap->count;
    uint32_t ran = 0;

    while (ran < budget && heap->count > 0 && heap->entries[0]->due_ns <= now_ns) {
        struct timer *timer = heap->entries[0];
        heap_remove(heap, timer);
        ASSERT(timer->expired != NULL);
        timer->expired(timer);
        ran++;
    }
    return ran;
}

void
timer_arm(struct reactor *reactor, struct timer *timer, uint64_t due_ns, timer_fn *expired)
{
    ASSERT_ON_REACTOR(reactor);
    ASSERT(expired != NULL);
    struct timer_heap *heap = &reactor->timers;

    timer->expired = expired;
    timer->due_ns = due_ns;
    if (timer_is_armed(timer)) {
        ASSERT(heap->entries[timer->slot - 1] == timer);
        sift(heap, timer->slot - 1, timer);
        return;
    }
    if (heap->count == heap->capacity) {
        uint32_t capacity = heap->capacity > 0 ? 2 * heap->capacity : HEAP_CAPACITY_MIN;
        struct timer **entries = realloc(heap->entries, capacity * sizeof(struct timer *));
        ASSERT(entries != NULL);
        heap->entries = entries;
        heap->capacity = capacity;
    }
    heap->count++;
    sift_up(heap, heap->count - 1, timer);
}

void
timer_disarm(struct reactor *reactor, struct timer *timer)
{
    ASSERT_ON_REACTOR(reactor);
    if (timer_is_armed(timer)) {
        heap_remove(&reactor->timers, timer);
    }
    ASSERT(!timer_is_armed(timer));
}
