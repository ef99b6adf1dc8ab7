/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ALLOC, MAP and LOG: the stages that change a volume's map.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

enum {
    SPACE_WAITS_MAX = 8
};
/* A commit that takes longer is not waited for. */
#define SPACE_WAIT_NS (1 * NS_PER_S)

/* Blocks of the entry at `index` that the window touches. */
static uint16_t
window_mask(const struct volume_request *request, uint32_t index)
{
    uint64_t page_start = align_down(request->cursor_bytes, UINT64_C(1) << MAP_PAGE_SHIFT);
    return block_mask(page_start + (uint64_t)index * GRAIN_BYTES, request->cursor_bytes,
                      request->window_end_bytes);
}

static uint32_t
window_first(const struct volume_request *request)
{
    return entry_index(request->cursor_bytes);
}

static uint32_t
window_last(const struct volume_request *request)
{
    return entry_index(request->window_end_bytes - 1);
}

/* ---- ALLOC ---- */

/* Small volumes share extents; a reserve or a wish for a tier is kept by extents of one's own. */
static struct grain_source *
source_of(struct volume *volume)
{
    if (volume->mapped_grains < SOURCE_SMALL_GRAINS && volume->record.reserve_bytes == 0 &&
        volume->record.tier == VOLUME_TIER_AUTO) {
        return &volume->shard->shared_source;
    }
    return &volume->source;
}

static void
attach_fresh(struct volume_request *request, uint32_t index, grain_address grain)
{
    struct map_entry *entry = &request->page->entries[index];

    ASSERT(!map_entry_is_fresh(entry));
    map_entry_attach_home(entry, grain, request->generation);
    request->page->fresh_count++;
}

/*
 * The blocks that are overwritten where they are may have been moved there by a copy: from now on
 * they have changed, even if the write then fails half-way. This is not logged: after the death of
 * the daemon no such bit is believed.
 */
static void
overwrite_begins(struct volume_request *request, uint32_t index)
{
    struct volume *volume = request->volume;

    if (map_entry_overwritten(&request->page->entries[index], window_mask(request, index))) {
        seal_entry_changed(volume, request->page, index);
    }
}

static void
space_wait_expired(struct timer *timer)
{
    pipeline_resume_all(&container_of(timer, struct shard, space_timer)->seal_waiters);
}

/* Something that the volume has dropped will be free soon. Begins what makes it so. */
static bool
frees_soon(struct volume *volume, uint64_t now_ns)
{
    const struct volume_seal *seal = &volume->seal;

    if (seal->phase != SEAL_IDLE && now_ns - seal->began_ns > SPACE_WAIT_NS) {
        return false; /* a disk is late: that must not delay others (P9) */
    }
    if (volume->dropped.length_bytes > 0) {
        seal_kick(volume);
    }
    return volume->dropped.length_bytes > 0 ||
           (seal->phase != SEAL_IDLE && seal->dropped.length_bytes > 0);
}

/*
 * The pool is full, but grains that were discarded on this shard come back with the next commits:
 * wait for them before saying so (P7). Bounded, so that a volume that fills up as fast as others
 * discard gets its answer.
 */
static bool
wait_for_frees(struct volume_request *request)
{
    struct shard *shard = request->volume->shard;
    uint64_t now_ns = reactor_now_ns(shard->reactor);
    bool pending = false;

    list_for_each(&shard->volumes, link) {
        pending |= frees_soon(list_entry(link, struct volume, shard_link), now_ns);
    }
    if (!pending || request->space_waits >= SPACE_WAITS_MAX) {
        return false;
    }
    if (!timer_is_armed(&shard->space_timer) && !shard->stopping) {
        timer_arm(shard->reactor, &shard->space_timer, now_ns + SPACE_WAIT_NS,
                  space_wait_expired);
    }
    request->space_waits++;
    request->asked_for_space = false;
    list_push_back(&shard->seal_waiters, &request->wait_link);
    return true;
}

enum step
stage_alloc(struct volume_request *request)
{
    struct volume *volume = request->volume;
    struct map_page *page = request->page;

    if (request->window_kind == WINDOW_ZERO || request->window_kind == WINDOW_SKIP) {
        return STEP_NEXT;
    }
    map_page_materialise(page);
    request->generation = (uint32_t)volume->branch.current_generation;
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        switch (map_entry_write_kind(&page->entries[index], volume->frozen + 1)) {
        case MAP_WRITE_IN_PLACE:
            overwrite_begins(request, index);
            continue;
        case MAP_WRITE_FRESH:
        case MAP_WRITE_FROZEN:
        case MAP_WRITE_KEEP_BASE:
            break;
        case MAP_WRITE_COPY:
            UNREACHABLE(); /* a frozen home needs a kept generation */
        }
        if (UNLIKELY(volume->shard->refuses_entries)) {
            request_fail(request, -ENOSPC);
            return STEP_NEXT;
        }
        struct grain_source *source = source_of(volume);
        grain_address neighbour = index > 0 ? page->entries[index - 1].home : GRAIN_NONE;
        grain_address grain = grain_source_take(source, neighbour);
        if (grain == GRAIN_NONE && request->asked_for_space && source->refusal == -ENOSPC) {
            /* What it discarded may have come back to those who share: it was small once. */
            grain = grain_source_take(&volume->shard->shared_source, GRAIN_NONE);
        }
        if (grain == GRAIN_NONE) {
            if (request->asked_for_space && source->refusal < 0) {
                if (source->refusal == -ENOSPC && wait_for_frees(request)) {
                    return STEP_AGAIN;
                }
                request_fail(request, source->refusal);
                return STEP_NEXT;
            }
            request->asked_for_space = true;
            source->refusal = 0;
            list_push_back(&source->waiters, &request->wait_link);
            grain_source_ask(source);
            return STEP_AGAIN;
        }
        source->small_takes += window_mask(request, index) != UINT16_MAX ? 1 : 0;
        attach_fresh(request, index, grain);
    }
    request->asked_for_space = false;
    return STEP_NEXT;
}

void
map_detach_unused(struct volume_request *request)
{
    struct volume *volume = request->volume;
    struct map_page *page = request->page;
    uint64_t page_start = align_down(request->cursor_bytes, UINT64_C(1) << MAP_PAGE_SHIFT);

    if (page->fresh_count == 0 || request->window_end_bytes <= request->cursor_bytes ||
        (request->operation != VOLUME_WRITE && request->operation != VOLUME_WRITE_ZEROES)) {
        return;
    }
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        uint64_t first_block = (page_start + (uint64_t)index * GRAIN_BYTES) >> BLOCK_SHIFT;
        if (map_entry_is_fresh(&page->entries[index]) &&
            !range_lock_others(&volume->lock, request, first_block,
                               first_block + BLOCKS_PER_GRAIN - 1)) {
            map_page_detach_fresh(page, index);
        }
    }
}

/* ---- MAP ---- */

static bool
entry_will_change(const struct volume_request *request, uint32_t index)
{
    const struct map_entry *entry = &request->page->entries[index];
    uint16_t mask = window_mask(request, index);

    if (request->window_kind == WINDOW_ZERO) {
        struct map_entry_sources sources = map_entry_resolve(entry, mask);
        return sources.home != 0 || sources.base != 0;
    }
    return map_entry_write_changes(entry, mask);
}

static void
note_grain(struct byte_buffer *list, grain_address grain)
{
    byte_buffer_append(list, &grain, sizeof(grain));
}

/* The head names them no more. What an older version of the page names, too, dies with that. */
static void
note_dropped(struct volume *volume, const struct map_page *page,
             const struct map_entry_dropped *dropped)
{
    for (uint32_t i = 0; i < dropped->count; i++) {
        ASSERT_OP(dropped->generations[i], <=, page->version.working);
        ASSERT_OP(volume->mapped_grains, >, 0u);
        volume->mapped_grains--;
        if (map_version_frees(&page->version, dropped->generations[i])) {
            note_grain(&volume->dropped, dropped->grains[i]);
        }
    }
}

static void
change_entry(struct volume_request *request, uint32_t index)
{
    struct volume *volume = request->volume;
    struct map_page *page = request->page;
    struct map_entry *entry = &page->entries[index];
    struct map_entry_dropped dropped = { 0 };
    uint16_t mask = window_mask(request, index);

    seal_page_will_change(volume, page);
    if (request->window_kind == WINDOW_ZERO) {
        request->generation = (uint32_t)volume->branch.current_generation;
        if (map_entry_is_fresh(entry)) {
            map_page_detach_fresh(page, index);
        }
        map_entry_zeroed(entry, mask, &dropped);
    } else {
        if (map_entry_is_fresh(entry)) {
            ASSERT_OP(page->fresh_count, >, 0u);
            page->fresh_count--;
            volume->mapped_grains++;
            entry->home_generation = page->version.working; /* no version names a younger grain */
            note_grain(&volume->allocated, entry->home);
        }
        map_entry_written(entry, mask, &dropped);
    }
    note_dropped(volume, page, &dropped);
    request->changed[index / 64] |= UINT64_C(1) << (index % 64);
    seal_entry_changed(volume, page, index);
}

enum step
stage_map(struct volume_request *request)
{
    struct volume *volume = request->volume;
    uint32_t count = 0;

    if (request->window_kind == WINDOW_SKIP || request->page->entries == NULL) {
        return STEP_NEXT;
    }
    if (window_is_outdated(request)) {
        request->stage = STAGE_LOOKUP;
        return STEP_NEXT;
    }
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        count += entry_will_change(request, index);
    }
    if (count == 0) {
        return STEP_NEXT;
    }
    if (volume->fenced || volume->commit_failed) {
        request_fail(request, -EIO);
        return STEP_NEXT;
    }
    if (!seal_journal_has_room(volume, count)) {
        list_push_back(&volume->shard->seal_waiters, &request->wait_link);
        return STEP_AGAIN;
    }
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        if (entry_will_change(request, index)) {
            change_entry(request, index);
        }
    }
    return STEP_NEXT;
}

/* ---- LOG ---- */

enum step
stage_log(struct volume_request *request)
{
    struct volume *volume = request->volume;
    struct map_page *page = request->page;

    if (request->window_kind == WINDOW_SKIP && request->operation == VOLUME_DISCARD) {
        return STEP_NEXT;
    }
    for (uint32_t word = window_first(request) / 64; word <= window_last(request) / 64; word++) {
        for (uint64_t bits = request->changed[word]; bits != 0; bits &= bits - 1) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(bits);
            uint32_t segment = journal_append(&volume->shard->journal, volume->branch.id,
                                              volume->open_batch,
                                              page->number * MAP_PAGE_ENTRIES + index,
                                              &page->entries[index]);
            volume->journal_open[segment]++;
            volume->journal_records++;
        }
        request->changed[word] = 0;
    }
    if ((request->flags & VOLUME_FUA) != 0) {
        for (uint32_t index = window_first(request); index <= window_last(request); index++) {
            uint64_t pending = page->dirty[index / 64] | page->sealed[index / 64];
            request->needs_commit |= (pending >> (index % 64) & 1) != 0;
        }
    }
    return STEP_NEXT;
}

/* ---- STATUS ---- */

/* Lengthen the last run or begin a new one. False when there is no room. */
static bool
status_add(struct volume_request *request, uint64_t length_bytes, bool hole)
{
    if (request->extents_count > 0) {
        struct volume_status_extent *last = &request->extents[request->extents_count - 1];
        if (last->hole == hole) {
            last->length_bytes += length_bytes;
            return true;
        }
    }
    if (request->extents_count == request->extents_max) {
        return false;
    }
    request->extents[request->extents_count++] = (struct volume_status_extent){
        .length_bytes = length_bytes,
        .hole = hole,
        .zero = hole,
    };
    return true;
}

static bool
status_add_entry(struct volume_request *request, uint32_t index)
{
    uint64_t page_start = align_down(request->cursor_bytes, UINT64_C(1) << MAP_PAGE_SHIFT);
    uint64_t grain_start = page_start + (uint64_t)index * GRAIN_BYTES;
    uint64_t at = MAX(request->cursor_bytes, grain_start);
    uint64_t end = MIN(request->window_end_bytes, grain_start + GRAIN_BYTES);
    struct map_entry_sources sources =
        map_entry_resolve(&request->page->entries[index], UINT16_MAX);

    while (at < end) {
        uint32_t block = (uint32_t)((at - grain_start) >> BLOCK_SHIFT);
        bool hole = (sources.zero >> block & 1) != 0;
        uint64_t next = MIN(end, grain_start + ((uint64_t)block + 1) * BLOCK_BYTES);
        if (!status_add(request, next - at, hole)) {
            return false;
        }
        at = next;
    }
    return true;
}

bool
map_collect_status(struct volume_request *request)
{
    if (request->page->entries == NULL) {
        return !status_add(request, request->window_end_bytes - request->cursor_bytes, true);
    }
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        if (!status_add_entry(request, index)) {
            return true;
        }
    }
    return false;
}
