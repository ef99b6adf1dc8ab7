/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of volume map pages of one shard.
 *
 * A page is found by (branch, view, page number) and holds what the volume sees: the newest version
 * of its head, or of the generation that it shows. It is fetched from the store on a miss, where
 * the volume's chain of places leads (map_lookup_impl.h); requests wait on the page.
 * Memory is bounded: pages that are clean and unused are evicted, least recently used first (V3). A
 * page whose entries are all empty has no array, so reading a large sparse volume costs little.
 */
#ifndef VOLMGR_MAP_CACHE_IMPL_H
#define VOLMGR_MAP_CACHE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash_table.h"
#include "base/list.h"
#include "base/log.h"
#include "metadata/schema.h"
#include "metadata/store.h"
#include "volmgr/map_version_impl.h"

struct shard;
struct volume;
struct volume_request;

enum {
    MAP_PAGE_WORDS = MAP_PAGE_ENTRIES / 64
};

enum map_page_state {
    MAP_PAGE_LOADING,
    MAP_PAGE_READY,
    MAP_PAGE_FAILED, /* could not be read; requests on it fail; tried again on the next use */
};

struct map_page {
    struct hash_node node;
    struct list lru_link;   /* cache->lru, newest last; also while pinned */
    struct list dirty_link; /* volume->dirty_pages */
    struct list seal_link;  /* volume->seal.pages */
    struct list waiters;    /* requests, by wait_link, while loading */
    struct volume *volume;
    struct map_cache *cache;
    uint64_t number;
    struct map_version version; /* in the store (or on its way there), and to be stored next */
    struct map_version version_before_seal; /* until it is known that the batch is committed */
    uint32_t pins;
    uint32_t fresh_count; /* entries that are fresh */
    enum map_page_state state;
    bool is_dirty;  /* on volume->dirty_pages */
    bool is_sealed; /* on volume->seal.pages */
    struct map_entry *entries; /* NULL: all empty */
    uint64_t dirty[MAP_PAGE_WORDS];  /* changed since the last sealing */
    uint64_t sealed[MAP_PAGE_WORDS]; /* in the batch that is on its way */
    /* seal.c: where the page is encoded in the sealed batch, and whether it went on from that. */
    size_t sealed_at;
    size_t sealed_bytes;
    bool went_on;
    uint64_t copying[MAP_PAGE_WORDS]; /* entries that get a new home by a copy (pipeline_copy.c) */
    struct list copy_waiters;         /* requests, by wait_link */
};

struct map_cache {
    struct shard *shard;
    struct hash_table table;
    struct list lru;
    uint64_t bytes;
    uint64_t bytes_max;
    uint64_t dirty_pages; /* dirty or sealed */
    uint64_t hits, misses, evictions;
    struct log_limit read_errors;
};

void map_cache_init(struct map_cache *cache, struct shard *shard, uint64_t bytes_max);
/*
 * The pool is closing and its metadata cannot be written any more: what is dirty is in the volatile
 * journal, and nowhere else.
 */
void map_cache_abandon(struct map_cache *cache);
/* Nothing pinned, dirty or loading. */
void map_cache_free(struct map_cache *cache);

/*
 * The page, pinned; the caller unpins. It may be LOADING (wait on page->waiters) or FAILED. Never
 * NULL.
 */
struct map_page *map_cache_get(struct map_cache *cache, struct volume *volume, uint64_t number);
/* The page of a head if it is here, not pinned, not moved in the order of use; NULL. */
struct map_page *map_cache_find(const struct map_cache *cache, uint64_t branch, uint64_t number);
void map_page_unpin(struct map_page *page);
/*
 * Undo the attachment of a fresh home: nothing was written there that anybody was told of. The last
 * unpin does so for all that are left over from requests that failed.
 */
void map_page_detach_fresh(struct map_page *page, uint32_t index);
/* Make the array of entries exist. */
void map_page_materialise(struct map_page *page);
/* Drop every page of a volume (deleted, or leaving the shard); none is pinned or dirty. */
void map_cache_forget(struct map_cache *cache, struct volume *volume);

#endif
