/* SPDX-License-Identifier: Apache-2.0 */
/* Answers which blocks have changed, on the reactor of the newer side (changes_impl.h). */
#include "volmgr/changes_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/map_entry_impl.h"

enum {
    SCAN_BYTES = 64 << 10,   /* about 1,500 links */
    PAGES_PER_ANSWER = 256,  /* the rest is asked for again: nobody waits long */
    TRIES_PER_GRAIN = 4,     /* it may be moved while it is being read */
    PREFETCHES_PER_PAGE = 8, /* it may be evicted between being loaded and being looked at */
    LINK_PREFIX_BYTES = 9,   /* type and branch */
    LINK_START_BYTES = 13,   /* and version */
};

static const struct map_entry EMPTY_ENTRY;

static void advance(struct changes *changes);
static void next_page(struct changes *changes);
static void compare_page(struct changes *changes);
static void fetch_newer(struct changes *changes);

/* ---- answering ---- */

static struct changes_query *
current_query(const struct changes *changes)
{
    ASSERT(!list_empty(&changes->queries));
    return list_entry(changes->queries.next, struct changes_query, link);
}

/* What has been told already is a good answer; the next one will begin with the error. */
static void
answer_first(struct changes *changes, int status)
{
    struct changes_query *query = current_query(changes);

    list_remove(&query->link);
    reactor_complete(&query->op, query->ret_count > 0 ? 0 : status);
}

static void
let_go_of_page(struct changes *changes)
{
    if (changes->newer_page != NULL) {
        map_page_unpin(changes->newer_page);
        changes->newer_page = NULL;
    }
}

static void
free_read_memory(struct changes *changes)
{
    for (uint32_t side = 0; side < CHANGES_SIDES; side++) {
        for (uint32_t source = 0; source < CHANGES_SOURCES; source++) {
            free(changes->reads[side][source].memory);
            changes->reads[side][source].memory = NULL;
        }
    }
}

static void
release(struct changes *changes)
{
    ASSERT(list_empty(&changes->queries));
    if (list_linked(&changes->volume_link)) {
        list_remove(&changes->volume_link);
    }
    page_set_free(&changes->pages);
    free(changes->older_entries);
    changes_released(changes);
}

/* The query has been worked on as far as that goes. */
static void
finish(struct changes *changes, int status)
{
    ASSERT(changes->working && changes->reads_pending == 0);
    let_go_of_page(changes);
    if (!changes->late) {
        answer_first(changes, status);
    }
    changes->late = false;
    changes->working = false;
    if (list_empty(&changes->queries)) {
        free_read_memory(changes);
    }
    if (changes->closing) {
        release(changes);
    } else {
        advance(changes);
    }
}

/* A disk or the store does not answer: the memory stays in use, but nobody has to wait (D4). */
static void
become_late(struct changes *changes)
{
    if (changes->late) {
        return;
    }
    changes->late = true;
    while (!list_empty(&changes->queries)) {
        answer_first(changes, -ETIMEDOUT);
    }
}

/* Lengthen the last run or begin a new one. False: there is no room. */
static bool
tell(struct changes *changes, uint64_t length_bytes, bool changed)
{
    struct changes_query *query = current_query(changes);
    struct volume_status_extent *last =
        query->ret_count > 0 ? &query->extents[query->ret_count - 1] : NULL;

    ASSERT_OP(length_bytes, >, 0u);
    if (last != NULL && last->changed == changed) {
        last->length_bytes += length_bytes;
    } else if (query->ret_count == query->extents_max) {
        return false;
    } else {
        query->extents[query->ret_count++] = (struct volume_status_extent){
            .length_bytes = length_bytes,
            .changed = changed,
        };
    }
    changes->at_bytes += length_bytes;
    return true;
}

/* ---- which pages may differ: links ---- */

void
changes_add_page(struct volume *volume, uint64_t page)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    list_for_each(&volume->changes, link) {
        page_set_add(&list_entry(link, struct changes, volume_link)->pages, page);
    }
}

/* What the store may not have yet is in memory; what comes from now on is noted (D1). */
static void
collect_dirty(struct changes *changes)
{
    struct volume *volume = changes->volume;

    if (list_linked(&changes->volume_link)) {
        return; /* has been done; then the links could not be read */
    }
    list_push_back(&volume->changes, &changes->volume_link);
    list_for_each(&volume->dirty_pages, link) {
        page_set_add(&changes->pages, list_entry(link, struct map_page, dirty_link)->number);
    }
    list_for_each(&volume->seal.pages, link) {
        page_set_add(&changes->pages, list_entry(link, struct map_page, seal_link)->number);
    }
}

static void
load_released(struct io_op *op)
{
    struct changes *changes = container_of(op, struct changes, state.op);

    changes->loading = false;
    changes->state.handle = NULL;
    if (changes->status < 0) {
        finish(changes, changes->status);
        return;
    }
    changes->loaded = true;
    next_page(changes);
}

static void
load_end(struct changes *changes, int status)
{
    changes->status = status;
    byte_buffer_free(&changes->scan.items);
    changes->state.op.done = load_released;
    store_snapshot_release(changes->pool->store, &changes->state);
}

/* Links of the batch into the set. 1: the scan is over; 0: go on; or -errno. */
static int
take_links(struct changes *changes)
{
    const struct byte_buffer *items = &changes->scan.items;
    uint32_t upto = changes->scans[changes->scan_index].upto;
    struct store_batch_item item;
    size_t position = 0;
    int rc;

    while ((rc = store_batch_next(items->data, items->length_bytes, &position, &item)) > 0) {
        struct history_link link;
        rc = history_link_key_decode(item.key, item.key_bytes, &link);
        if (rc < 0) {
            return rc;
        }
        if (link.version > upto) {
            return 1;
        }
        if (link.page <= UINT64_MAX >> (MAP_PAGE_SHIFT + 1)) { /* else it is beyond any volume */
            page_set_add(&changes->pages, link.page);
        }
    }
    return rc < 0 ? rc : changes->scan.ret_more ? 0 : 1;
}

static void scan_links(struct changes *changes);

static void
links_scanned(struct io_op *op)
{
    struct changes *changes = container_of(op, struct changes, scan.op);

    int rc = op->result < 0 ? op->result : take_links(changes);
    byte_buffer_free(&changes->scan.items);
    if (rc < 0) {
        load_end(changes, rc);
    } else if (rc == 0) {
        changes->scan.start_bytes = changes->scan.ret_next_bytes;
        memcpy(changes->scan.start, changes->scan.ret_next, changes->scan.ret_next_bytes);
        changes->scan.op.done = links_scanned;
        store_scan(changes->pool->store, &changes->scan);
    } else {
        changes->scan_index++;
        scan_links(changes);
    }
}

static void
scan_links(struct changes *changes)
{
    if (changes->scan_index == changes->scan_count) {
        load_end(changes, 0);
        return;
    }
    const struct changes_scan *wanted = &changes->scans[changes->scan_index];
    struct history_link first = { .branch = wanted->branch, .version = wanted->above + 1 };
    uint8_t key[HISTORY_LINK_KEY_BYTES];
    ASSERT_OP(wanted->above, <, wanted->upto);
    history_link_key_encode(key, &first);
    changes->scan = (struct store_scan){
        .op.done = links_scanned,
        .family = STORE_FAMILY_HISTORY,
        .prefix_bytes = LINK_PREFIX_BYTES,
        .start_bytes = LINK_START_BYTES,
        .bytes_max = SCAN_BYTES,
        .snapshot = &changes->state,
    };
    memcpy(changes->scan.prefix, key, LINK_PREFIX_BYTES);
    memcpy(changes->scan.start, key, LINK_START_BYTES);
    store_scan(changes->pool->store, &changes->scan);
}

static void
load_created(struct io_op *op)
{
    struct changes *changes = container_of(op, struct changes, state.op);

    if (op->result < 0) {
        changes->loading = false;
        finish(changes, op->result);
        return;
    }
    changes->scan_index = 0;
    scan_links(changes);
}

/*
 * From one state of the store: a link that moves meanwhile, since the version that it superseded is
 * removed, could be passed over.
 */
static void
load(struct changes *changes)
{
    ASSERT(!changes->loading && !changes->loaded);
    if (changes->branch != 0) {
        collect_dirty(changes);
    }
    changes->loading = true;
    changes->state = (struct store_snapshot){ .op.done = load_created };
    store_snapshot_create(changes->pool->store, &changes->state);
}

/* ---- queries ---- */

static void
advance(struct changes *changes)
{
    if (changes->working || list_empty(&changes->queries)) {
        return;
    }
    struct changes_query *query = current_query(changes);
    changes->working = true;
    changes->at_bytes = query->offset_bytes;
    changes->end_bytes = query->offset_bytes + query->length_bytes;
    changes->pages_left = PAGES_PER_ANSWER;
    changes->compared = false;
    changes->tries = 0;
    if (changes->loaded) {
        next_page(changes);
    } else {
        load(changes);
    }
}

void
changes_query(struct changes *changes, struct changes_query *query)
{
    struct reactor *reactor = changes->volume->shard->reactor;

    ASSERT_ON_REACTOR(reactor);
    ASSERT(!changes->closing && query->extents_max > 0);
    ASSERT(query->length_bytes > 0 &&
           query->offset_bytes <= UINT64_MAX - query->length_bytes);
    query->op.reactor_id = reactor_id(reactor);
    query->ret_count = 0;
    if (changes->late) {
        reactor_complete(&query->op, -ETIMEDOUT);
        return;
    }
    list_push_back(&changes->queries, &query->link);
    advance(changes);
}

void
changes_end(struct changes *changes)
{
    ASSERT_ON_REACTOR(changes->volume->shard->reactor);
    ASSERT(!changes->closing && list_empty(&changes->queries));
    changes->closing = true;
    if (!changes->working) {
        release(changes);
    }
}

/* 0; or why there is nothing to be compared with any more. */
static int
newer_side_status(const struct changes *changes)
{
    const struct volume *volume = changes->volume;

    if (changes->branch != 0 && volume->branch.id != changes->branch) {
        return -ESTALE;
    }
    return volume->serving ? 0 : -ESHUTDOWN;
}

static void
next_page(struct changes *changes)
{
    uint64_t page;
    int status = newer_side_status(changes);

    ASSERT(!changes->late);
    if (status < 0 || changes->at_bytes == changes->end_bytes) {
        finish(changes, status);
        return;
    }
    if (!page_set_next(&changes->pages, changes->at_bytes >> MAP_PAGE_SHIFT, &page) ||
        page << MAP_PAGE_SHIFT >= changes->end_bytes) {
        (void)tell(changes, changes->end_bytes - changes->at_bytes, false);
        finish(changes, 0);
        return;
    }
    uint64_t start = page << MAP_PAGE_SHIFT;
    if ((start > changes->at_bytes && !tell(changes, start - changes->at_bytes, false)) ||
        changes->pages_left-- == 0) {
        finish(changes, 0);
        return;
    }
    changes->page = page;
    changes->prefetches = 0;
    fetch_newer(changes);
}

/* ---- the older side of a page: as the store has it ---- */

static void
older_found(struct io_op *op)
{
    struct map_lookup *lookup = container_of(op, struct map_lookup, op);
    struct changes *changes = container_of(lookup, struct changes, lookup);
    uint32_t used = 0;
    int status = op->result;

    if (status == 0 && lookup->value.length_bytes > 0) {
        status = map_page_decode(lookup->value.data, lookup->value.length_bytes,
                                 changes->older_entries, &used);
    }
    byte_buffer_free(&lookup->value);
    changes->older_empty = used == 0;
    changes->older_page = status == 0 ? changes->page : UINT64_MAX;
    if (status < 0) {
        finish(changes, status);
    } else {
        compare_page(changes);
    }
}

static void
fetch_older(struct changes *changes)
{
    if (changes->older_page == changes->page) {
        compare_page(changes);
        return;
    }
    if (changes->older_entries == NULL) {
        changes->older_entries = calloc(MAP_PAGE_ENTRIES, sizeof(struct map_entry));
        ASSERT(changes->older_entries != NULL);
    }
    changes->lookup = (struct map_lookup){
        .op.done = older_found,
        .store = changes->pool->store,
        .chain = changes->older,
        .newest = changes->views.older,
        .page = changes->page,
    };
    map_lookup(&changes->lookup);
}

/* ---- the newer side: the volume's page, in its cache ---- */

static void
prefetch_replied(struct volume_request *request)
{
    struct changes *changes = container_of(request, struct changes, prefetch);

    changes->prefetch_status = request->status;
    if (request->status == -ETIMEDOUT) {
        become_late(changes);
    }
}

static void
prefetch_released(struct volume_request *request)
{
    struct changes *changes = container_of(request, struct changes, prefetch);
    struct volume *volume = changes->volume;

    if (changes->prefetch_status < 0 || changes->late) {
        finish(changes, changes->prefetch_status);
        return;
    }
    struct map_page *page = map_cache_get(&volume->shard->cache, volume, changes->page);
    if (page->state != MAP_PAGE_READY) {
        map_page_unpin(page);
        if (++changes->prefetches == PREFETCHES_PER_PAGE) {
            finish(changes, -EIO);
        } else {
            fetch_newer(changes);
        }
        return;
    }
    changes->newer_page = page;
    fetch_older(changes);
}

static void
fetch_newer(struct changes *changes)
{
    struct volume *volume = changes->volume;
    struct volume_request *request = &changes->prefetch;
    uint64_t start = changes->page << MAP_PAGE_SHIFT;

    if (volume->record.size_bytes <= start) {
        finish(changes, -ENXIO); /* made smaller meanwhile */
        return;
    }
    volume_request_init(request);
    request->operation = VOLUME_PREFETCH;
    request->flags = 0;
    request->offset_bytes = start;
    request->length_bytes = MIN((uint64_t)BLOCK_BYTES, volume->record.size_bytes - start);
    request->timeout_ns = 0;
    request->reply = prefetch_replied;
    request->release = prefetch_released;
    volume_submit(volume, request);
}

/* ---- comparing bytes ---- */

static uint16_t
source_mask(const struct map_entry *entry, uint32_t source)
{
    struct map_entry_sources sources = map_entry_resolve(entry, UINT16_MAX);
    return source == 0 ? sources.home : sources.base;
}

/* Where a grain lies. False: its disk is not here. */
static bool
locate(const struct pool *pool, grain_address grain, struct backend **ret_backend,
       uint64_t *ret_offset_bytes)
{
    const struct extent *extent =
        extent_table_find(&pool->extents, grain_extent(&pool->extents, grain));

    if (extent == NULL || extent->state != EXTENT_STATE_DATA) {
        return false;
    }
    const struct disk *disk = pool_disk(pool, extent->places[0].disk);
    if (disk == NULL || disk->backend == NULL) {
        return false;
    }
    *ret_backend = disk->backend;
    *ret_offset_bytes = disk->record.data_start_bytes +
                        (uint64_t)extent->places[0].slot * pool->record.extent_bytes +
                        (uint64_t)grain_index(&pool->extents, grain) * GRAIN_BYTES;
    return true;
}

static void reads_ended(struct changes *changes);

static void
read_done(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct changes_read *read = container_of(io, struct changes_read, io);
    struct changes *changes = read->changes;

    read->failed = op->result < 0;
    ASSERT_OP(changes->reads_pending, >, 0u);
    if (--changes->reads_pending == 0) {
        reads_ended(changes);
        if (changes->late) {
            finish(changes, -ETIMEDOUT);
        } else {
            compare_page(changes);
        }
    }
}

static void
read_overdue(struct backend_io *io)
{
    become_late(container_of(io, struct changes_read, io)->changes);
}

/* Read the blocks of `mask`, which are in `grain`, and what lies between them. */
static void
read_blocks(struct changes *changes, struct changes_read *read, grain_address grain, uint16_t mask)
{
    struct backend *backend;
    uint64_t offset_bytes;

    *read = (struct changes_read){ .changes = changes, .memory = read->memory };
    if (mask == 0) {
        return;
    }
    uint32_t first = (uint32_t)__builtin_ctz(mask);
    uint32_t count = 32 - (uint32_t)__builtin_clz(mask) - first;
    read->grain = grain;
    read->first_block = first;
    if (!locate(changes->pool, grain, &backend, &offset_bytes)) {
        read->failed = true;
        return;
    }
    if (read->memory == NULL) {
        read->memory = aligned_alloc(BLOCK_BYTES, GRAIN_BYTES);
        ASSERT(read->memory != NULL);
    }
    read->iov.iov_base = read->memory;
    read->iov.iov_len = (size_t)count * BLOCK_BYTES;
    read->io.op.done = read_done;
    read->io.kind = BACKEND_READ;
    read->io.offset_bytes = offset_bytes + (uint64_t)first * BLOCK_BYTES;
    read->io.length_bytes = read->iov.iov_len;
    read->io.iov = &read->iov;
    read->io.iov_count = 1;
    read->io.overdue = read_overdue;
    changes->reads_pending++;
    backend_submit(backend, &read->io);
}

static void
read_sides(struct changes *changes, const struct map_entry *older, const struct map_entry *newer)
{
    const struct map_entry *entries[CHANGES_SIDES] = { older, newer };

    changes->newer_entry = *newer;
    for (uint32_t side = 0; side < CHANGES_SIDES; side++) {
        for (uint32_t source = 0; source < CHANGES_SOURCES; source++) {
            const struct map_entry *entry = entries[side];
            read_blocks(changes, &changes->reads[side][source],
                        source == 0 ? entry->home : entry->base,
                        changes->diff.compare & source_mask(entry, source));
        }
    }
}

/* The bytes of a block on one side; NULL: zeroes. False: they could not be read. */
static bool
block_bytes(const struct changes *changes, uint32_t side, const struct map_entry *entry,
            uint32_t block, const uint8_t **ret_bytes)
{
    *ret_bytes = NULL;
    for (uint32_t source = 0; source < CHANGES_SOURCES; source++) {
        const struct changes_read *read = &changes->reads[side][source];
        if ((source_mask(entry, source) >> block & 1) != 0) {
            *ret_bytes = read->failed
                             ? NULL
                             : read->memory + (size_t)(block - read->first_block) * BLOCK_BYTES;
            return !read->failed;
        }
    }
    return true;
}

static bool
blocks_are_equal(const uint8_t *one, const uint8_t *other)
{
    static const uint8_t zeroes[BLOCK_BYTES];

    return memcmp(one != NULL ? one : zeroes, other != NULL ? other : zeroes, BLOCK_BYTES) == 0;
}

static const struct map_entry *
older_entry(const struct changes *changes, uint32_t index)
{
    return changes->older_empty ? &EMPTY_ENTRY : &changes->older_entries[index];
}

static const struct map_entry *
newer_entry(const struct changes *changes, uint32_t index)
{
    const struct map_page *page = changes->newer_page;
    return page->entries == NULL ? &EMPTY_ENTRY : &page->entries[index];
}

/* Is this block where it was when the reads began? */
static bool
block_is_where_it_was(const struct map_entry *before, const struct map_entry *now, uint32_t block)
{
    for (uint32_t source = 0; source < CHANGES_SOURCES; source++) {
        if ((source_mask(before, source) >> block & 1) != 0) {
            return (source_mask(now, source) >> block & 1) != 0 &&
                   (source == 0 ? before->home == now->home : before->base == now->base);
        }
    }
    return false;
}

/* Everything is in memory that could be read: nothing remains to be compared (D2). */
static void
reads_ended(struct changes *changes)
{
    uint32_t index = (uint32_t)(changes->at_bytes >> GRAIN_SHIFT) % MAP_PAGE_ENTRIES;
    const struct map_entry *older = older_entry(changes, index);
    const struct map_entry *before = &changes->newer_entry;
    const struct map_entry *now = newer_entry(changes, index);

    ASSERT_OP(changes->reads_pending, ==, 0u);
    bool moved = false;
    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        const uint8_t *bytes[CHANGES_SIDES];
        if ((changes->diff.compare >> block & 1) == 0) {
            continue;
        }
        bool stayed = block_is_where_it_was(before, now, block);
        if (!stayed || !block_bytes(changes, 0, older, block, &bytes[0]) ||
            !block_bytes(changes, 1, before, block, &bytes[1]) ||
            !blocks_are_equal(bytes[0], bytes[1])) {
            changes->diff.changed |= (uint16_t)(1u << block);
        }
        moved |= !stayed;
    }
    changes->diff.compare = 0;
    /* It may have been moved again, as it is: once more, by the entry of now. */
    changes->compared = !moved || ++changes->tries == TRIES_PER_GRAIN;
}

/* ---- a page ---- */

/* Bits of the grain's blocks that lie in [at, end), which begins in it. */
static uint16_t
blocks_of_range(uint64_t at, uint64_t end)
{
    uint64_t grain = align_down(at, GRAIN_BYTES);
    uint32_t first = (uint32_t)((at - grain) >> BLOCK_SHIFT);
    uint32_t last = (uint32_t)((MIN(end, grain + GRAIN_BYTES) - 1 - grain) >> BLOCK_SHIFT);

    return (uint16_t)((UINT32_C(2) << last) - (UINT32_C(1) << first));
}

/* Tell of the grain at at_bytes up to `end`. False: there was no room for all of it. */
static bool
tell_grain(struct changes *changes, uint64_t end)
{
    uint64_t grain = align_down(changes->at_bytes, GRAIN_BYTES);

    end = MIN(end, grain + GRAIN_BYTES);
    if (changes->diff.changed == 0) {
        return tell(changes, end - changes->at_bytes, false);
    }
    while (changes->at_bytes < end) {
        uint32_t block = (uint32_t)((changes->at_bytes - grain) >> BLOCK_SHIFT);
        uint64_t next = MIN(end, grain + ((uint64_t)block + 1) * BLOCK_BYTES);
        if (!tell(changes, next - changes->at_bytes, (changes->diff.changed >> block & 1) != 0)) {
            return false;
        }
    }
    return true;
}

/* Compare the entries of the grain at at_bytes; true: they tell all that is wanted. */
static bool
compare_entries(struct changes *changes, uint64_t end)
{
    uint32_t index = (uint32_t)(changes->at_bytes >> GRAIN_SHIFT) % MAP_PAGE_ENTRIES;
    const struct map_entry *older = older_entry(changes, index);
    const struct map_entry *newer = newer_entry(changes, index);

    changes->diff = (struct map_diff){ 0 };
    if (memcmp(older, newer, sizeof(*older)) == 0) {
        return true;
    }
    changes->diff = map_entry_diff(older, newer, &changes->views);
    changes->diff.compare &= blocks_of_range(changes->at_bytes, end);
    if (changes->diff.compare == 0) {
        return true;
    }
    read_sides(changes, older, newer);
    return false;
}

static void
compare_page(struct changes *changes)
{
    uint64_t end = MIN(changes->end_bytes, (changes->page + 1) << MAP_PAGE_SHIFT);

    while (changes->at_bytes < end) {
        if (!changes->compared && !compare_entries(changes, end)) {
            if (changes->reads_pending > 0) {
                return;
            }
            reads_ended(changes);
            continue;
        }
        changes->compared = false;
        changes->tries = 0;
        if (!tell_grain(changes, end)) {
            finish(changes, 0);
            return;
        }
    }
    let_go_of_page(changes);
    next_page(changes);
}
