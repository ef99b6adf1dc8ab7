/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/extent_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

/* ---- the table ---- */

static uint32_t
used_words(const struct extent_table *table)
{
    return (table->grains_per_extent + 63) / 64;
}

int
extent_table_init(struct extent_table *table, uint32_t grains_per_extent)
{
    ASSERT(is_power_of_two(grains_per_extent));
    ASSERT_OP(grains_per_extent, <=, (uint32_t)EXTENT_GRAINS_MAX);
    *table = (struct extent_table){
        .grains_per_extent = grains_per_extent,
        .grains_shift = log2_u64(grains_per_extent),
    };
    /* Address space only: a page of it becomes memory when a chunk below it does. */
    void *directory = mmap(NULL, EXTENT_DIRECTORY_COUNT * sizeof(struct extent *),
                           PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0);
    if (directory == MAP_FAILED) {
        return -errno;
    }
    table->directory = directory;
    return 0;
}

void
extent_table_free(struct extent_table *table)
{
    if (table->directory == NULL) {
        return;
    }
    uint64_t chunks = (table->count_end + EXTENT_CHUNK_COUNT - 1) >> EXTENT_CHUNK_SHIFT;
    for (uint64_t i = 0; i < chunks; i++) {
        if (table->directory[i] != NULL) {
            free(table->directory[i][0].used);
            free(table->directory[i]);
        }
    }
    munmap(table->directory, EXTENT_DIRECTORY_COUNT * sizeof(struct extent *));
    table->directory = NULL;
}

static struct extent *
chunk_create(const struct extent_table *table)
{
    uint32_t words = used_words(table);
    struct extent *chunk = calloc(EXTENT_CHUNK_COUNT, sizeof(*chunk));
    uint64_t *used = calloc(EXTENT_CHUNK_COUNT, words * sizeof(uint64_t));

    ASSERT(chunk != NULL && used != NULL);
    for (uint32_t i = 0; i < EXTENT_CHUNK_COUNT; i++) {
        chunk[i].used = used + (size_t)i * words;
        list_init(&chunk[i].link);
    }
    return chunk;
}

struct extent *
extent_table_add(struct extent_table *table, uint64_t id)
{
    uint64_t index = id >> EXTENT_CHUNK_SHIFT;

    if (id == 0 || index >= EXTENT_DIRECTORY_COUNT) {
        return NULL;
    }
    if (table->directory[index] == NULL) {
        __atomic_store_n(&table->directory[index], chunk_create(table), __ATOMIC_RELEASE);
    }
    struct extent *extent = &table->directory[index][id & (EXTENT_CHUNK_COUNT - 1)];
    if (extent->state != 0) {
        return NULL;
    }
    extent->id = id;
    if (id >= table->count_end) {
        table->count_end = id + 1;
    }
    return extent;
}

struct extent *
extent_table_find(const struct extent_table *table, uint64_t id)
{
    uint64_t index = id >> EXTENT_CHUNK_SHIFT;

    if (UNLIKELY(index >= EXTENT_DIRECTORY_COUNT)) {
        return NULL;
    }
    struct extent *chunk = __atomic_load_n(&table->directory[index], __ATOMIC_ACQUIRE);
    if (UNLIKELY(chunk == NULL)) {
        return NULL;
    }
    struct extent *extent = &chunk[id & (EXTENT_CHUNK_COUNT - 1)];
    return LIKELY(extent->state != 0) ? extent : NULL;
}

/* ---- use bits ---- */

static bool
bit_is_set(const struct extent *extent, uint32_t index)
{
    return (extent->used[index / 64] >> (index % 64)) & 1;
}

static void
bit_flip(struct extent *extent, uint32_t index)
{
    extent->used[index / 64] ^= UINT64_C(1) << (index % 64);
}

/* The lowest free grain; there is one. */
static uint32_t
first_free(const struct extent *extent, uint32_t grains_per_extent)
{
    for (uint32_t word = 0;; word++) {
        ASSERT_OP(word * 64, <, grains_per_extent);
        if (extent->used[word] != UINT64_MAX) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(~extent->used[word]);
            ASSERT_OP(index, <, grains_per_extent);
            return index;
        }
    }
}

/* ---- sources ---- */

void
grain_source_init(struct grain_source *source, struct shard *shard, struct volume *volume)
{
    *source = (struct grain_source){ .shard = shard, .volume = volume, .grant_extents = 1 };
    list_init(&source->partial);
    list_init(&source->waiters);
}

void
grain_source_adopt(struct grain_source *source, struct extent *extent)
{
    ASSERT(!list_linked(&extent->link));
    extent->source = source;
    source->used_grains += source->shard->pool->grains_per_extent - extent->free_count;
    if (extent->free_count > 0) {
        list_push_back(&source->partial, &extent->link);
        source->free_grains += extent->free_count;
    }
}

/* Ask before it is urgent: when less than half of what the last grant brought is left. */
static void
ask_ahead(struct grain_source *source)
{
    uint64_t per_extent = source->shard->pool->grains_per_extent;
    if (source->free_grains >= source->granted_extents * per_extent / 2) {
        return;
    }
    /* A pool that has just said no is asked again in a while, or when a request must wait. */
    if (source->refusal != 0 &&
        reactor_now_ns(source->shard->reactor) - source->asked_ns < 100 * NS_PER_MS) {
        return;
    }
    grain_source_ask(source);
}

static grain_address
take_from(struct grain_source *source, struct extent *extent, uint64_t id, uint32_t index)
{
    ASSERT(!bit_is_set(extent, index));
    ASSERT_OP(extent->free_count, >, 0u);
    ASSERT_OP(source->free_grains, >, 0u);
    bit_flip(extent, index);
    extent->free_count--;
    source->free_grains--;
    source->used_grains++;
    source->takes++;
    if (extent->free_count == 0) {
        list_remove(&extent->link);
    }
    ask_ahead(source);
    return (id << source->shard->pool->grains_shift) | index;
}

grain_address
grain_source_take(struct grain_source *source, grain_address after)
{
    struct pool *pool = source->shard->pool;
    const struct extent_table *table = &pool->extents;

    ASSERT_ON_REACTOR(source->shard->reactor);
    if (after != GRAIN_NONE && grain_index(table, after) + 1 < table->grains_per_extent) {
        uint64_t id = grain_extent(table, after);
        struct extent *extent = extent_table_find(table, id);
        if (extent != NULL && extent->source == source && !extent->releasing &&
            !bit_is_set(extent, grain_index(table, after) + 1)) {
            return take_from(source, extent, id, grain_index(table, after) + 1);
        }
    }
    struct extent *extent = list_first(&source->partial, struct extent, link);
    if (extent == NULL) {
        return GRAIN_NONE;
    }
    return take_from(source, extent, extent->id, first_free(extent, table->grains_per_extent));
}

static void
release_extent(struct grain_source *source, struct extent *extent)
{
    ASSERT_OP(extent->free_count, ==, source->shard->pool->grains_per_extent);
    list_remove(&extent->link);
    source->free_grains -= extent->free_count;
    extent->releasing = true;
    extent->source = NULL;
    allocator_release(source->shard->pool, extent->id);
}

static void
free_grain(struct shard *shard, grain_address grain)
{
    struct pool *pool = shard->pool;
    struct extent *extent = extent_table_find(&pool->extents, grain_extent(&pool->extents, grain));

    uint32_t index = grain_index(&pool->extents, grain);
    if (extent == NULL || extent->source == NULL || !bit_is_set(extent, index)) {
        /* Only the database can have said so (P12): `check` names it; here nothing is freed. */
        log_error("extent", "pool %s: grain %llu is freed but not in use", pool->name,
                  (unsigned long long)grain);
        return;
    }
    ASSERT_OP(extent->shard, ==, shard->index);
    struct grain_source *source = extent->source;
    bit_flip(extent, index);
    if (extent->free_count++ == 0) {
        list_push_back(&source->partial, &extent->link);
    }
    source->free_grains++;
    ASSERT_OP(source->used_grains, >, 0u);
    source->used_grains--;
    /* Keep one extent's worth so that a volume that frees and writes does not flap. */
    if (extent->free_count == pool->grains_per_extent &&
        (source->free_grains >= 2 * (uint64_t)pool->grains_per_extent ||
         (source->volume != NULL && !source->volume->serving))) {
        release_extent(source, extent);
    }
}

void
grain_source_untake(struct grain_source *source, grain_address grain)
{
    ASSERT_ON_REACTOR(source->shard->reactor);
    free_grain(source->shard, grain);
}

void
grain_source_shed(struct grain_source *source)
{
    ASSERT_ON_REACTOR(source->shard->reactor);
    list_for_each_safe(&source->partial, link) {
        struct extent *extent = list_entry(link, struct extent, link);
        if (extent->free_count == source->shard->pool->grains_per_extent) {
            release_extent(source, extent);
        }
    }
}

/* ---- freeing on the right shard ---- */

struct remote_free {
    struct message message;
    struct shard *shard;
    uint32_t count;
    grain_address grains[];
};

static void
remote_free_deliver(struct message *message)
{
    struct remote_free *batch = container_of(message, struct remote_free, message);

    for (uint32_t i = 0; i < batch->count; i++) {
        free_grain(batch->shard, batch->grains[i]);
    }
    free(batch);
}

static void
send_to_shard(struct pool *pool, uint32_t shard_index, const grain_address *grains, uint32_t count)
{
    struct remote_free *batch = malloc(sizeof(*batch) + count * sizeof(grain_address));

    ASSERT(batch != NULL);
    batch->message = (struct message){ 0 };
    batch->shard = pool->shards[shard_index];
    batch->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct extent *extent =
            extent_table_find(&pool->extents, grain_extent(&pool->extents, grains[i]));
        if (extent != NULL && extent->shard == shard_index) {
            batch->grains[batch->count++] = grains[i];
        }
    }
    if (batch->count == 0) {
        free(batch);
        return;
    }
    reactor_send(batch->shard->reactor, &batch->message, remote_free_deliver);
}

void
grains_free_committed(struct shard *shard, const grain_address *grains, uint32_t count)
{
    struct pool *pool = shard->pool;
    bool elsewhere = false;

    ASSERT_ON_REACTOR(shard->reactor);
    for (uint32_t i = 0; i < count; i++) {
        struct extent *extent =
            extent_table_find(&pool->extents, grain_extent(&pool->extents, grains[i]));
        if (extent == NULL || extent->shard == shard->index) {
            free_grain(shard, grains[i]);
        } else {
            elsewhere = true;
        }
    }
    if (elsewhere) {
        for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
            if (i != shard->index) {
                send_to_shard(pool, i, grains, count);
            }
        }
    }
}

/* ---- asking for more ---- */

static void
grant_arrived(struct message *message)
{
    struct extent_grant *grant = container_of(message, struct extent_grant, message);
    struct grain_source *source = grant->source;
    struct pool *pool = grant->pool;

    ASSERT_ON_REACTOR(grant->shard->reactor);
    source->asking = false;
    source->refusal = grant->status;
    source->granted_extents = grant->count;
    for (uint32_t i = 0; i < grant->count; i++) {
        struct extent *extent = extent_table_find(&pool->extents, grant->extents[i]);
        ASSERT(extent != NULL);
        ASSERT_OP(extent->shard, ==, grant->shard->index);
        grain_source_adopt(source, extent);
    }
    free(grant);
    pipeline_resume_all(&source->waiters);
}

static void
grant_deliver(struct message *message)
{
    allocator_grant(container_of(message, struct extent_grant, message));
}

void
grain_source_ask(struct grain_source *source)
{
    struct shard *shard = source->shard;
    uint64_t now_ns = reactor_now_ns(shard->reactor);

    ASSERT_ON_REACTOR(shard->reactor);
    if (source->asking) {
        return;
    }
    /* The faster the last grant was used up, the larger the next. */
    if (now_ns - source->asked_ns < 200 * NS_PER_MS) {
        source->grant_extents = MIN(source->grant_extents * 2, (uint32_t)SOURCE_GRANT_EXTENTS_MAX);
    } else if (now_ns - source->asked_ns > 5 * NS_PER_S) {
        source->grant_extents = MAX(source->grant_extents / 2, 1u);
    }
    struct extent_grant *grant = calloc(1, sizeof(*grant));
    ASSERT(grant != NULL);
    grant->pool = shard->pool;
    grant->source = source;
    grant->shard = shard;
    grant->volume = source->volume;
    grant->wanted = source->grant_extents;
    grant->small_writes = source->takes > 0 && 2 * source->small_takes >= source->takes;
    source->takes = 0;
    source->small_takes = 0;
    source->asking = true;
    source->asked_ns = now_ns;
    reactor_send(shard->pool->manager->control, &grant->message, grant_deliver);
}

void
extent_grant_answer(struct extent_grant *grant)
{
    reactor_send(grant->shard->reactor, &grant->message, grant_arrived);
}
