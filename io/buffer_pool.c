/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A buddy allocator over 1 MiB chunks, in two zones.
 *
 * THEORY OF OPERATION
 *
 * The region is cut into chunks of 1 MiB; a block is a power-of-two part of a chunk, and its buddy
 * is the other half of the next larger block. What is free is linked in one list per zone and size;
 * the links are kept beside the region, so that free payload memory is never touched. The last
 * chunks form the reserve, from which only short payloads are served.
 *
 * Waiting. Long payloads stand in one line, short ones in another. While somebody stands in the
 * long line, the main zone is closed to everybody else: it drains into whole chunks until the first
 * in line fits, which must happen, since no holder waits for more memory and the longest payload is
 * smaller than the main zone. Short payloads go on from the reserve meanwhile.
 *
 * Invariants
 *  M1  A block of the smallest size is in exactly one free block or one block handed out.
 *  M2  Two free buddies never exist side by side: they have been merged.
 *  M3  The head of each line does not fit now. (Whoever changes that grants it at once.)
 *  M4  A waiter in the granted list holds its memory already; only the call is outstanding.
 */
#include "io/buffer_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/util.h"
#include "io/platform.h"
#include "io/reactor.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(base, length_bytes)   ASAN_POISON_MEMORY_REGION(base, length_bytes)
#define UNPOISON(base, length_bytes) ASAN_UNPOISON_MEMORY_REGION(base, length_bytes)
#else
#define POISON(base, length_bytes)   ((void)0)
#define UNPOISON(base, length_bytes) ((void)0)
#endif

enum {
    ORDER_MAX = 8, /* a chunk: BLOCK_BYTES_MIN << ORDER_MAX */
    ORDER_COUNT = ORDER_MAX + 1,
    CHUNK_BLOCKS = 1 << ORDER_MAX,
    RESERVE_DIVISOR = 8, /* this part of the region is for short payloads only */
    HUGE_PAGE_BYTES = 2 << 20,
};
_Static_assert((BUFFER_BLOCK_BYTES_MIN << ORDER_MAX) == BUFFER_BLOCK_BYTES_MAX, "orders");
_Static_assert(BUFFER_SMALL_BYTES <= BUFFER_BLOCK_BYTES_MAX, "a short payload is one block");

#define NO_BLOCK UINT32_MAX

enum block_state {
    BLOCK_INNER, /* not the first of its block */
    BLOCK_FREE,
    BLOCK_TAKEN,
};

/* One per BUFFER_BLOCK_BYTES_MIN of the region; meaningful in the first of a block. */
struct block {
    uint32_t next; /* while free */
    uint32_t prev;
    uint8_t order;
    uint8_t state;
};

enum zone_id {
    ZONE_MAIN,
    ZONE_RESERVE,
    ZONE_COUNT
};

struct zone {
    uint32_t first_free[ORDER_COUNT];
    uint32_t free_count[ORDER_COUNT];
};

struct buffer_pool {
    struct reactor *reactor;
    uint8_t *region;
    uint64_t region_bytes;
    void *mapping;
    size_t mapping_bytes;
    uint32_t block_count;
    uint32_t reserve_first; /* index of the first block of the reserve */
    uint64_t free_bytes;
    struct zone zones[ZONE_COUNT];
    struct list long_line;
    struct list short_line;
    struct list granted; /* waiters whose call is outstanding */
    struct io_op grant_op;
    bool grant_queued;
    struct block blocks[];
};

/* ---- free lists ---- */

static struct zone *
zone_of(struct buffer_pool *pool, uint32_t index)
{
    return &pool->zones[index >= pool->reserve_first ? ZONE_RESERVE : ZONE_MAIN];
}

static void
free_list_push(struct buffer_pool *pool, struct zone *zone, uint32_t index, uint32_t order)
{
    struct block *block = &pool->blocks[index];
    uint32_t head = zone->first_free[order];

    block->state = BLOCK_FREE;
    block->order = (uint8_t)order;
    block->prev = NO_BLOCK;
    block->next = head;
    if (head != NO_BLOCK) {
        pool->blocks[head].prev = index;
    }
    zone->first_free[order] = index;
    zone->free_count[order]++;
}

static void
free_list_remove(struct buffer_pool *pool, struct zone *zone, uint32_t index)
{
    struct block *block = &pool->blocks[index];
    ASSERT_OP(block->state, ==, BLOCK_FREE);
    ASSERT_OP(zone->free_count[block->order], >, 0u);

    if (block->prev != NO_BLOCK) {
        pool->blocks[block->prev].next = block->next;
    } else {
        zone->first_free[block->order] = block->next;
    }
    if (block->next != NO_BLOCK) {
        pool->blocks[block->next].prev = block->prev;
    }
    zone->free_count[block->order]--;
}

/* A free block of `order` or the smallest larger one, split down. False: there is none. */
static bool
block_take(struct buffer_pool *pool, struct zone *zone, uint32_t order, uint32_t *ret_index)
{
    uint32_t found = order;
    while (found <= ORDER_MAX && zone->first_free[found] == NO_BLOCK) {
        found++;
    }
    if (found > ORDER_MAX) {
        return false;
    }
    uint32_t index = zone->first_free[found];
    free_list_remove(pool, zone, index);
    while (found > order) {
        found--;
        free_list_push(pool, zone, index + (1u << found), found);
    }
    pool->blocks[index].state = BLOCK_TAKEN;
    pool->blocks[index].order = (uint8_t)order;
    pool->free_bytes -= (uint64_t)BUFFER_BLOCK_BYTES_MIN << order;
    *ret_index = index;
    return true;
}

static void
block_give(struct buffer_pool *pool, uint32_t index)
{
    struct zone *zone = zone_of(pool, index);
    struct block *block = &pool->blocks[index];
    ASSERT_OP(block->state, ==, BLOCK_TAKEN); /* given back twice, or never handed out */
    uint32_t order = block->order;

    pool->free_bytes += (uint64_t)BUFFER_BLOCK_BYTES_MIN << order;
    block->state = BLOCK_INNER;
    while (order < ORDER_MAX) {
        uint32_t buddy = index ^ (1u << order);
        if (pool->blocks[buddy].state != BLOCK_FREE || pool->blocks[buddy].order != order) {
            break;
        }
        free_list_remove(pool, zone, buddy);
        pool->blocks[buddy].state = BLOCK_INNER;
        index = MIN(index, buddy);
        order++;
    }
    free_list_push(pool, zone, index, order);
}

/* ---- payloads ---- */

static uint32_t
order_of(uint64_t length_bytes)
{
    ASSERT(length_bytes > 0 && length_bytes <= BUFFER_BLOCK_BYTES_MAX);
    uint32_t order = 0;
    while (((uint64_t)BUFFER_BLOCK_BYTES_MIN << order) < length_bytes) {
        order++;
    }
    return order;
}

/* Whether all blocks of a payload can be taken from `zone` now. */
static bool
zone_fits(const struct zone *zone, uint32_t length_bytes)
{
    uint32_t chunks = length_bytes / BUFFER_BLOCK_BYTES_MAX;
    uint32_t rest = length_bytes % BUFFER_BLOCK_BYTES_MAX;

    if (zone->free_count[ORDER_MAX] < chunks) {
        return false;
    }
    if (rest == 0 || zone->free_count[ORDER_MAX] > chunks) {
        return true;
    }
    for (uint32_t order = order_of(rest); order < ORDER_MAX; order++) {
        if (zone->free_count[order] > 0) {
            return true;
        }
    }
    return false;
}

static bool
zone_get(struct buffer_pool *pool, enum zone_id id, uint32_t length_bytes, struct buffer *buffer)
{
    struct zone *zone = &pool->zones[id];
    if (!zone_fits(zone, length_bytes)) {
        return false;
    }
    uint32_t left = length_bytes;
    uint32_t count = 0;
    while (left > 0) {
        uint32_t part = MIN(left, (uint32_t)BUFFER_BLOCK_BYTES_MAX);
        uint32_t index = NO_BLOCK;
        bool taken = block_take(pool, zone, order_of(part), &index);
        ASSERT(taken);
        ASSERT_OP(count, <, (uint32_t)BUFFER_SEGMENTS_MAX);
        uint8_t *base = pool->region + (uint64_t)index * BUFFER_BLOCK_BYTES_MIN;
        UNPOISON(base, part);
        buffer->segments[count++] = (struct iovec){ .iov_base = base, .iov_len = part };
        left -= part;
    }
    buffer->segment_count = count;
    buffer->length_bytes = length_bytes;
    return true;
}

static bool
payload_is_short(uint32_t length_bytes)
{
    return length_bytes <= BUFFER_SMALL_BYTES;
}

/* Take memory for a payload whose turn it is. */
static bool
pool_take(struct buffer_pool *pool, uint32_t length_bytes, struct buffer *buffer)
{
    if (!payload_is_short(length_bytes)) {
        return zone_get(pool, ZONE_MAIN, length_bytes, buffer);
    }
    return (list_empty(&pool->long_line) && zone_get(pool, ZONE_MAIN, length_bytes, buffer)) ||
           zone_get(pool, ZONE_RESERVE, length_bytes, buffer);
}

/* ---- waiting ---- */

static void
pool_run_grants(struct io_op *op)
{
    struct buffer_pool *pool = container_of(op, struct buffer_pool, grant_op);
    struct list due;

    pool->grant_queued = false;
    list_init(&due);
    list_splice_back(&due, &pool->granted);
    struct list *node;
    while ((node = list_pop_front(&due)) != NULL) {
        struct buffer_waiter *waiter = list_entry(node, struct buffer_waiter, link);
        ASSERT(waiter->buffer->segment_count > 0);
        waiter->granted(waiter);
    }
}

/* Restore M3: hand memory to the heads of the lines as far as it goes. */
static void
pool_grant(struct buffer_pool *pool)
{
    struct list *const lines[] = { &pool->long_line, &pool->short_line };

    for (uint32_t i = 0; i < ARRAY_SIZE(lines); i++) {
        while (!list_empty(lines[i])) {
            struct buffer_waiter *waiter = list_entry(lines[i]->next, struct buffer_waiter, link);
            if (!pool_take(pool, waiter->length_bytes, waiter->buffer)) {
                break;
            }
            list_remove(&waiter->link);
            list_push_back(&pool->granted, &waiter->link);
        }
    }
    if (!list_empty(&pool->granted) && !pool->grant_queued) {
        pool->grant_queued = true;
        pool->grant_op.done = pool_run_grants;
        pool->grant_op.reactor_id = reactor_id(pool->reactor);
        reactor_complete(&pool->grant_op, 0);
    }
}

static void
pool_release(struct buffer_pool *pool, struct buffer *buffer)
{
    ASSERT_OP(buffer->segment_count, >, 0u);
    ASSERT_OP(buffer->segment_count, <=, (uint32_t)BUFFER_SEGMENTS_MAX);
    for (uint32_t i = 0; i < buffer->segment_count; i++) {
        uint64_t offset = (uint64_t)((uint8_t *)buffer->segments[i].iov_base - pool->region);
        ASSERT_OP(offset, <, pool->region_bytes);
        ASSERT(is_aligned(offset, BUFFER_BLOCK_BYTES_MIN));
        uint32_t index = (uint32_t)(offset / BUFFER_BLOCK_BYTES_MIN);
        POISON(buffer->segments[i].iov_base,
               (size_t)BUFFER_BLOCK_BYTES_MIN << pool->blocks[index].order);
        block_give(pool, index);
    }
    buffer->segment_count = 0;
    buffer->length_bytes = 0;
}

bool
buffer_pool_get(struct buffer_pool *pool, uint32_t length_bytes, struct buffer *ret_buffer)
{
    ASSERT_ON_REACTOR(pool->reactor);
    ASSERT(length_bytes > 0 && length_bytes <= BUFFER_PAYLOAD_BYTES_MAX);
    ASSERT_OP(ret_buffer->segment_count, ==, 0u);

    /* Nobody overtakes in his own line. */
    if (!list_empty(payload_is_short(length_bytes) ? &pool->short_line : &pool->long_line)) {
        return false;
    }
    return pool_take(pool, length_bytes, ret_buffer);
}

void
buffer_pool_wait(struct buffer_pool *pool, struct buffer_waiter *waiter)
{
    ASSERT_ON_REACTOR(pool->reactor);
    ASSERT(waiter->granted != NULL && !list_linked(&waiter->link));
    ASSERT(waiter->length_bytes > 0 && waiter->length_bytes <= BUFFER_PAYLOAD_BYTES_MAX);
    ASSERT_OP(waiter->buffer->segment_count, ==, 0u);

    list_push_back(payload_is_short(waiter->length_bytes) ? &pool->short_line : &pool->long_line,
                   &waiter->link);
    pool_grant(pool); /* something may have been given back between the refusal and now */
}

void
buffer_pool_cancel(struct buffer_pool *pool, struct buffer_waiter *waiter)
{
    ASSERT_ON_REACTOR(pool->reactor);
    if (!list_linked(&waiter->link)) {
        return;
    }
    list_remove(&waiter->link);
    if (waiter->buffer->segment_count > 0) {
        pool_release(pool, waiter->buffer); /* granted, not yet told */
    }
    pool_grant(pool); /* it may have stood in the way of others */
}

void
buffer_pool_put(struct buffer_pool *pool, struct buffer *buffer)
{
    ASSERT_ON_REACTOR(pool->reactor);
    pool_release(pool, buffer);
    if (!list_empty(&pool->long_line) || !list_empty(&pool->short_line)) {
        pool_grant(pool);
    }
}

uint64_t
buffer_pool_free_bytes(const struct buffer_pool *pool)
{
    return pool->free_bytes;
}

/* ---- life ---- */

static int
pool_map(struct buffer_pool *pool)
{
    /* Aligned to huge pages, so that the kernel can use them from end to end. */
    size_t mapping_bytes = (size_t)align_up(pool->region_bytes, HUGE_PAGE_BYTES) + HUGE_PAGE_BYTES;
    void *mapping = mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        return -errno;
    }
    pool->mapping = mapping;
    pool->mapping_bytes = mapping_bytes;
    pool->region = (uint8_t *)align_up((uintptr_t)mapping, HUGE_PAGE_BYTES);
    madvise(pool->region, pool->region_bytes, MADV_HUGEPAGE); /* advice; may be refused */
    madvise(pool->region, pool->region_bytes, MADV_DONTFORK);
    return 0;
}

int
buffer_pool_create(struct reactor *reactor, uint64_t size_bytes, struct buffer_pool **ret_pool)
{
    ASSERT_OP(size_bytes, >=, (uint64_t)2 * BUFFER_PAYLOAD_BYTES_MAX);
    uint32_t chunk_count = (uint32_t)(size_bytes / BUFFER_BLOCK_BYTES_MAX);
    uint32_t block_count = chunk_count * CHUNK_BLOCKS;
    uint32_t reserve_chunks = chunk_count / RESERVE_DIVISOR;
    ASSERT_OP((uint64_t)(chunk_count - reserve_chunks) * BUFFER_BLOCK_BYTES_MAX, >=,
              (uint64_t)BUFFER_PAYLOAD_BYTES_MAX);

    struct buffer_pool *pool =
        calloc(1, sizeof(struct buffer_pool) + block_count * sizeof(struct block));
    if (pool == NULL) {
        return -ENOMEM;
    }
    pool->reactor = reactor;
    pool->block_count = block_count;
    pool->region_bytes = (uint64_t)chunk_count * BUFFER_BLOCK_BYTES_MAX;
    pool->free_bytes = pool->region_bytes;
    pool->reserve_first = (chunk_count - reserve_chunks) * CHUNK_BLOCKS;
    int result = pool_map(pool);
    if (result < 0) {
        free(pool);
        return result;
    }
    list_init(&pool->long_line);
    list_init(&pool->short_line);
    list_init(&pool->granted);
    for (uint32_t id = 0; id < ZONE_COUNT; id++) {
        for (uint32_t order = 0; order < ORDER_COUNT; order++) {
            pool->zones[id].first_free[order] = NO_BLOCK;
        }
    }
    /* From the end, so that low addresses are handed out first and stay warm. */
    for (uint32_t chunk = chunk_count; chunk-- > 0;) {
        uint32_t index = chunk * CHUNK_BLOCKS;
        free_list_push(pool, zone_of(pool, index), index, ORDER_MAX);
    }
    reactor_platform(reactor)->ops->engine_register_memory(reactor_engine(reactor), pool->region,
                                                           pool->region_bytes);
    POISON(pool->region, pool->region_bytes);
    *ret_pool = pool;
    return 0;
}

void
buffer_pool_destroy(struct buffer_pool *pool)
{
    ASSERT_OP(pool->free_bytes, ==, pool->region_bytes);
    ASSERT(list_empty(&pool->long_line) && list_empty(&pool->short_line));
    ASSERT(list_empty(&pool->granted));
    UNPOISON(pool->region, pool->region_bytes);
    munmap(pool->mapping, pool->mapping_bytes);
    free(pool);
}
