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

void
map_late_write_failed(struct volume_request *request)
{
    request->volume->plan_epoch++;
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        overwrite_begins(request, index);
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

/* It has been put in line for something. What is frozen may be another thing by then (G2). */
static enum step
wait_and_plan_again(struct volume_request *request)
{
    request->stage = STAGE_LOOKUP;
    return STEP_WAIT;
}

/* Take a grain for the entry. GRAIN_NONE: the request waits for one, or has failed. */
static grain_address
take_grain(struct volume_request *request, uint32_t index, enum step *ret_step)
{
    struct volume *volume = request->volume;
    const struct map_page *page = request->page;

    *ret_step = STEP_NEXT;
    if (UNLIKELY(volume->shard->refuses_entries)) {
        request_fail(request, -ENOSPC);
        return GRAIN_NONE;
    }
    struct grain_source *source = source_of(volume);
    grain_address neighbour = index > 0 ? page->entries[index - 1].home : GRAIN_NONE;
    grain_address grain = grain_source_take(source, neighbour);
    if (grain == GRAIN_NONE && request->asked_for_space && source->refusal == -ENOSPC) {
        /* What it discarded may have come back to those who share: it was small once. */
        grain = grain_source_take(&volume->shard->shared_source, GRAIN_NONE);
    }
    if (grain != GRAIN_NONE) {
        source->small_takes += window_mask(request, index) != UINT16_MAX ? 1 : 0;
        return grain;
    }
    if (request->asked_for_space && source->refusal < 0) {
        if (source->refusal == -ENOSPC && wait_for_frees(request)) {
            *ret_step = wait_and_plan_again(request);
        } else {
            request_fail(request, source->refusal);
        }
        return GRAIN_NONE;
    }
    request->asked_for_space = true;
    source->refusal = 0;
    list_push_back(&source->waiters, &request->wait_link);
    grain_source_ask(source);
    *ret_step = wait_and_plan_again(request);
    return GRAIN_NONE;
}

/* The entry has no home that may be written, or one that no record names yet. */
static enum step
alloc_home(struct volume_request *request, uint32_t index, bool copies)
{
    struct map_entry *entry = &request->page->entries[index];
    enum step step;

    if (map_entry_is_fresh(entry)) {
        entry->home_generation = request->generation; /* it was attached before a bump */
        return STEP_NEXT;
    }
    if (copies && copy_must_wait(request)) {
        return wait_and_plan_again(request);
    }
    grain_address grain = take_grain(request, index, &step);
    if (grain == GRAIN_NONE) {
        return step;
    }
    if (copies) {
        copy_begin(request, grain);
    } else {
        attach_fresh(request, index, grain);
    }
    return STEP_NEXT;
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
    if (UNLIKELY(volume->history.gate != NULL) && volume_gate_holds(request)) {
        return wait_and_plan_again(request);
    }
    request->generation = (uint32_t)volume->branch.current_generation;
    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        enum map_entry_write_kind kind =
            map_entry_write_kind(&page->entries[index], volume->frozen + 1);
        if (kind == MAP_WRITE_IN_PLACE) {
            overwrite_begins(request, index);
            continue;
        }
        enum step step = alloc_home(request, index, kind == MAP_WRITE_COPY);
        if (step != STEP_NEXT || request->has_failed) {
            return step;
        }
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

bool
map_window_changes(const struct volume_request *request)
{
    const struct volume *volume = request->volume;
    const struct map_entry *entries = request->page->entries;

    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        if (entries == NULL ||
            map_entry_write_kind(&entries[index], volume->frozen + 1) != MAP_WRITE_IN_PLACE ||
            map_entry_write_changes(&entries[index], window_mask(request, index))) {
            return true;
        }
    }
    return false;
}

bool
map_window_is_in_place(const struct volume_request *request)
{
    const struct map_entry *entries = request->page->entries;

    for (uint32_t index = window_first(request);
         request->copy_home == GRAIN_NONE && index <= window_last(request); index++) {
        if (entries[index].home != GRAIN_NONE && !map_entry_is_fresh(&entries[index])) {
            return true;
        }
    }
    return false;
}

bool
map_window_moves(const struct volume_request *request)
{
    const struct volume *volume = request->volume;
    const struct map_entry *entries = request->page->entries;

    for (uint32_t index = window_first(request); index <= window_last(request); index++) {
        const struct map_entry *entry = &entries[index];
        if (map_entry_write_kind(entry, volume->frozen + 1) != MAP_WRITE_IN_PLACE ||
            (entry->base != GRAIN_NONE &&
             map_entry_write_changes(entry, window_mask(request, index)))) {
            return true;
        }
    }
    return false;
}

/* ---- MAP ---- */

static bool
entry_will_change(const struct volume_request *request, uint32_t index)
{
    const struct map_entry *entry = &request->page->entries[index];
    uint16_t mask = window_mask(request, index);

    if (request->copy_home != GRAIN_NONE) {
        return true;
    }
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

/* The page's version, which has been decided on, is the first that names this grain. */
static void
note_new(struct volume *volume, const struct map_page *page, grain_address grain)
{
    volume->mapped_grains++;
    note_grain(&volume->allocated, grain);
    if (branch_is_counted(&volume->branch)) {
        volume_count_grains(volume, page->version.working, HISTORY_FOREVER, 1);
    }
}

/*
 * The head names them no more. What an older version of the page names, too, dies with that, and
 * what was inherited is others'.
 */
static void
note_dropped(struct volume *volume, const struct map_page *page,
             const struct map_entry_dropped *dropped)
{
    bool is_counted = branch_is_counted(&volume->branch);

    for (uint32_t i = 0; i < dropped->count; i++) {
        uint32_t birth = dropped->generations[i];
        bool frees = birth > volume->owned_above && map_version_frees(&page->version, birth);
        ASSERT_OP(birth, <=, page->version.working);
        ASSERT_OP(volume->mapped_grains, >, 0u);
        volume->mapped_grains--;
        if (frees) {
            note_grain(&volume->dropped, dropped->grains[i]);
        }
        if (is_counted) {
            volume_count_grains(volume, birth, frees ? HISTORY_FOREVER : page->version.working,
                                frees ? -1 : 1);
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
    bool copies = request->copy_home != GRAIN_NONE;

    seal_page_will_change(volume, page, copies ? entry->home_generation : entry->base_generation);
    if (request->window_kind == WINDOW_ZERO) {
        request->generation = (uint32_t)volume->branch.current_generation;
        if (map_entry_is_fresh(entry)) {
            map_page_detach_fresh(page, index);
        }
        map_entry_zeroed(entry, mask, &dropped);
    } else if (copies) {
        note_new(volume, page, request->copy_home);
        copy_map(request, page->version.working, &dropped);
    } else {
        if (map_entry_is_fresh(entry)) {
            ASSERT_OP(page->fresh_count, >, 0u);
            page->fresh_count--;
            entry->home_generation = page->version.working; /* no version names a younger grain */
            note_new(volume, page, entry->home);
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
        window_plan_again(request);
        return STEP_NEXT;
    }
    if (UNLIKELY(volume->history.gate != NULL) && request->window_kind == WINDOW_ZERO &&
        volume_gate_holds(request)) {
        return STEP_AGAIN;
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
    if (!seal_batch_has_room(volume, request->page) || !seal_journal_has_room(volume, count)) {
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
