/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/map_cache_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/core_impl.h"
#include "volmgr/map_entry_impl.h"
#include "volmgr/map_lookup_impl.h"

enum {
    ENTRIES_BYTES = MAP_PAGE_ENTRIES * sizeof(struct map_entry),
};

/* A fetch of one page, along the places that were the volume's when it began. */
struct page_fetch {
    struct map_lookup lookup;
    struct view_chain *chain;
    struct map_page *page;
};

/* A head's pages, and those of a view of the same branch, are different ones. */
static uint64_t
page_hash(uint64_t branch, uint32_t view, uint64_t number)
{
    return hash_u64(hash_u64(hash_u64(branch) + view) + number);
}

void
map_cache_init(struct map_cache *cache, struct shard *shard, uint64_t bytes_max)
{
    *cache = (struct map_cache){ .shard = shard, .bytes_max = bytes_max };
    hash_table_init(&cache->table, 1024);
    list_init(&cache->lru);
}

static void
page_destroy(struct map_page *page)
{
    struct map_cache *cache = page->cache;

    ASSERT_OP(page->pins, ==, 0u);
    ASSERT_OP(page->fresh_count, ==, 0u);
    ASSERT(!page->is_dirty && !page->is_sealed);
    ASSERT(page->state != MAP_PAGE_LOADING);
    ASSERT(list_empty(&page->waiters));
    hash_table_remove(&cache->table, &page->node);
    list_remove(&page->lru_link);
    cache->bytes -= sizeof(*page);
    if (page->entries != NULL) {
        cache->bytes -= ENTRIES_BYTES;
        free(page->entries);
    }
    free(page);
}

void
map_cache_free(struct map_cache *cache)
{
    list_for_each_safe(&cache->lru, link) {
        page_destroy(list_entry(link, struct map_page, lru_link));
    }
    ASSERT_OP(cache->table.count, ==, 0u);
    hash_table_free(&cache->table);
}

void
map_cache_abandon(struct map_cache *cache)
{
    ASSERT_ON_REACTOR(cache->shard->reactor);
    list_for_each(&cache->lru, link) {
        struct map_page *page = list_entry(link, struct map_page, lru_link);
        page->is_dirty = false;
        page->is_sealed = false;
        page->fresh_count = 0;
    }
    cache->dirty_pages = 0;
}

static bool
page_is_evictable(const struct map_page *page)
{
    return page->pins == 0 && page->fresh_count == 0 && !page->is_dirty && !page->is_sealed &&
           page->state != MAP_PAGE_LOADING;
}

/*
 * Make room. Looks at a bounded number of the oldest pages, so that a cache full of dirty pages
 * costs each miss little; the sealing that makes them clean is kicked by seal.c.
 */
static void
cache_evict(struct map_cache *cache)
{
    uint32_t looked_at = 0;

    list_for_each_safe(&cache->lru, link) {
        if (cache->bytes <= cache->bytes_max || looked_at++ >= 32) {
            return;
        }
        struct map_page *page = list_entry(link, struct map_page, lru_link);
        if (page_is_evictable(page)) {
            page_destroy(page);
            cache->evictions++;
        } else {
            /* Out of the way, or the same few would be looked at for ever. */
            list_remove(link);
            list_push_back(&cache->lru, link);
        }
    }
}

void
map_page_materialise(struct map_page *page)
{
    if (page->entries == NULL) {
        page->entries = aligned_alloc(64, ENTRIES_BYTES);
        ASSERT(page->entries != NULL);
        memset(page->entries, 0, ENTRIES_BYTES);
        page->cache->bytes += ENTRIES_BYTES;
    }
}

static bool
grain_is_known(const struct pool *pool, grain_address grain)
{
    const struct extent *extent =
        extent_table_find(&pool->extents, grain_extent(&pool->extents, grain));
    return extent != NULL && extent->state == EXTENT_STATE_DATA;
}

/* Of a version no grain is younger than the version itself, and a base is older than its home. */
static bool
generations_are_sound(const struct map_entry *entry, uint32_t version)
{
    bool has_home = entry->home != GRAIN_NONE;
    bool has_base = entry->base != GRAIN_NONE;

    if ((has_home && (entry->home_generation == 0 || entry->home_generation > version)) ||
        (has_base && (entry->base_generation == 0 || entry->base_generation > version))) {
        return false;
    }
    return !has_home || !has_base || entry->base_generation < entry->home_generation;
}

/* The database is foreign bytes (P12): what does not fit this pool must not reach assertions. */
static bool
entries_are_sound(const struct map_page *page)
{
    const struct pool *pool = page->volume->pool;

    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
        const struct map_entry *entry = &page->entries[index];
        if (map_entry_is_empty(entry)) {
            continue;
        }
        if (!map_entry_is_sound(entry) || !generations_are_sound(entry, page->version.stored) ||
            (entry->home != GRAIN_NONE && !grain_is_known(pool, entry->home)) ||
            (entry->base != GRAIN_NONE && !grain_is_known(pool, entry->base))) {
            return false;
        }
    }
    return true;
}

static int
page_decode(struct map_page *page, const struct byte_buffer *value)
{
    uint32_t used = 0;

    if (value->length_bytes == 0) {
        return 0;
    }
    map_page_materialise(page);
    int result = map_page_decode(value->data, value->length_bytes, page->entries, &used);
    if (result == 0 && !entries_are_sound(page)) {
        result = -EUCLEAN;
    }
    if (result < 0 || used == 0) {
        free(page->entries);
        page->entries = NULL;
        page->cache->bytes -= ENTRIES_BYTES;
    }
    return result;
}

static void
fetch_done(struct io_op *op)
{
    struct map_lookup *lookup = container_of(op, struct map_lookup, op);
    struct page_fetch *fetch = container_of(lookup, struct page_fetch, lookup);
    struct map_page *page = fetch->page;
    int result = op->result;

    ASSERT_ON_REACTOR(page->cache->shard->reactor);
    ASSERT(page->state == MAP_PAGE_LOADING);
    if (result == 0) {
        map_version_loaded(&page->version, lookup->ret_version, lookup->ret_previous);
        result = page_decode(page, &lookup->value);
    }
    if (result < 0) {
        log_error_limited(&page->cache->read_errors, "map",
                          "volume %s: map page %llu cannot be read: %s",
                          page->volume->record.name, (unsigned long long)page->number,
                          error_name(result));
    }
    page->state = result == 0 ? MAP_PAGE_READY : MAP_PAGE_FAILED;
    byte_buffer_free(&lookup->value);
    view_chain_put(fetch->chain);
    free(fetch);
    pipeline_resume_all(&page->waiters);
    map_page_unpin(page);
}

static void
page_fetch(struct map_page *page)
{
    struct volume *volume = page->volume;
    struct page_fetch *fetch = calloc(1, sizeof(*fetch));
    bool is_head = volume->view == LINEAGE_FOREVER;

    ASSERT(fetch != NULL);
    page->state = MAP_PAGE_LOADING;
    page->pins++; /* until fetch_done() */
    fetch->page = page;
    fetch->chain = view_chain_get(volume->chain);
    fetch->lookup.op.done = fetch_done;
    fetch->lookup.store = volume->pool->store;
    fetch->lookup.chain = fetch->chain;
    fetch->lookup.newest = is_head ? (uint32_t)volume->branch.current_generation : volume->view;
    fetch->lookup.wants_previous = is_head;
    fetch->lookup.page = page->number;
    map_lookup(&fetch->lookup);
}

static struct map_page *
page_create(struct map_cache *cache, struct volume *volume, uint64_t number, uint64_t hash)
{
    struct map_page *page = calloc(1, sizeof(*page));

    ASSERT(page != NULL);
    page->cache = cache;
    page->volume = volume;
    page->number = number;
    list_init(&page->dirty_link);
    list_init(&page->seal_link);
    list_init(&page->waiters);
    list_init(&page->copy_waiters);
    list_push_back(&cache->lru, &page->lru_link);
    hash_table_insert(&cache->table, &page->node, hash);
    cache->bytes += sizeof(*page);
    return page;
}

struct map_page *
map_cache_get(struct map_cache *cache, struct volume *volume, uint64_t number)
{
    uint64_t hash = page_hash(volume->branch.id, volume->view, number);

    ASSERT_ON_REACTOR(cache->shard->reactor);
    for (struct hash_node *node = hash_table_chain(&cache->table, hash); node != NULL;
         node = node->next) {
        struct map_page *page = container_of(node, struct map_page, node);
        if (node->hash == hash && page->volume == volume && page->number == number) {
            cache->hits++;
            page->pins++;
            if (cache->lru.prev != &page->lru_link) {
                list_remove(&page->lru_link);
                list_push_back(&cache->lru, &page->lru_link);
            }
            if (page->state == MAP_PAGE_FAILED) {
                page_fetch(page);
            }
            return page;
        }
    }
    cache->misses++;
    if (cache->bytes > cache->bytes_max) {
        cache_evict(cache);
    }
    struct map_page *page = page_create(cache, volume, number, hash);
    page->pins++;
    page_fetch(page);
    return page;
}

struct map_page *
map_cache_find(const struct map_cache *cache, uint64_t branch, uint64_t number)
{
    uint64_t hash = page_hash(branch, LINEAGE_FOREVER, number);

    ASSERT_ON_REACTOR(cache->shard->reactor);
    for (struct hash_node *node = hash_table_chain(&cache->table, hash); node != NULL;
         node = node->next) {
        struct map_page *page = container_of(node, struct map_page, node);
        if (node->hash == hash && page->volume->branch.id == branch &&
            page->volume->view == LINEAGE_FOREVER && page->number == number) {
            return page;
        }
    }
    return NULL;
}

void
map_page_detach_fresh(struct map_page *page, uint32_t index)
{
    struct map_entry *entry = &page->entries[index];
    grain_address grain = entry->home;

    ASSERT(map_entry_is_fresh(entry));
    ASSERT_OP(page->fresh_count, >, 0u);
    *entry = seal_stored_view(entry);
    page->fresh_count--;
    grain_source_untake(&page->volume->source, grain);
}

/* A request keeps its page while it has homes in it, so what is fresh now is nobody's. */
static void
drop_orphans(struct map_page *page)
{
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES && page->fresh_count > 0; index++) {
        if (map_entry_is_fresh(&page->entries[index])) {
            map_page_detach_fresh(page, index);
        }
    }
    ASSERT_OP(page->fresh_count, ==, 0u);
}

void
map_page_unpin(struct map_page *page)
{
    ASSERT_OP(page->pins, >, 0u);
    if (--page->pins == 0 && page->fresh_count > 0) {
        drop_orphans(page);
    }
}

void
map_cache_forget(struct map_cache *cache, struct volume *volume)
{
    ASSERT_ON_REACTOR(cache->shard->reactor);
    list_for_each_safe(&cache->lru, link) {
        struct map_page *page = list_entry(link, struct map_page, lru_link);
        if (page->volume == volume) {
            page_destroy(page);
        }
    }
}
