/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A first write over a frozen home with a base: transition 3 (map_entry_impl.h).
 *
 * The window is of one grain and goes by way of a bounce, in which each block has the place that it
 * has in the grain: what is to be copied and what is written in part are read from the two old
 * grains, the payload is laid over that, and all of it is written to the new home. The entry stays
 * as it is until MAP, so that everybody else goes on by it.
 *
 * The range lock is not widened to the grain. Other writes of the grain come to ALLOC and wait for
 * the copy, whose bit is set in page->copying; zeroing locks whole grains, and so waits for the
 * blocks that are written here; and what is copied is frozen. When that changes while the copy is
 * under way, or when writes in place were under way at the bump that froze it, the windows
 * concerned are planned again (plan_epoch): the copy at MAP, before it changes anything, and the
 * late writes at theirs, so that they write to where the copy has moved their blocks.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

static struct map_entry *
copy_entry(const struct volume_request *request)
{
    return &request->page->entries[entry_index(request->cursor_bytes)];
}

static uint64_t
grain_start(const struct volume_request *request)
{
    return align_down(request->cursor_bytes, GRAIN_BYTES);
}

static uint16_t
written_mask(const struct volume_request *request)
{
    return block_mask(grain_start(request), request->cursor_bytes, request->window_end_bytes);
}

/* Of the blocks that are written, those in part: the first, the last, both or none. */
static uint16_t
partial_mask(const struct volume_request *request)
{
    uint64_t start = request->cursor_bytes;
    uint64_t end = request->window_end_bytes;
    uint16_t mask = 0;

    if (!is_aligned(start, BLOCK_BYTES)) {
        mask |= block_mask(grain_start(request), start, start + 1);
    }
    if (!is_aligned(end, BLOCK_BYTES)) {
        mask |= block_mask(grain_start(request), end - 1, end);
    }
    return mask;
}

bool
copy_is_needed(const struct volume *volume, const struct map_entry *entry)
{
    return !map_entry_is_fresh(entry) &&
           map_entry_write_kind(entry, volume->frozen + 1) == MAP_WRITE_COPY;
}

bool
copy_must_wait(struct volume_request *request)
{
    struct map_page *page = request->page;
    uint32_t index = entry_index(request->cursor_bytes);

    if ((page->copying[index / 64] >> (index % 64) & 1) == 0) {
        return false;
    }
    list_push_back(&page->copy_waiters, &request->wait_link);
    return true;
}

void
copy_begin(struct volume_request *request, grain_address grain)
{
    uint32_t index = entry_index(request->cursor_bytes);

    ASSERT(request->window_kind == WINDOW_BOUNCE);
    ASSERT_OP(request->window_end_bytes, <=, grain_start(request) + GRAIN_BYTES);
    ASSERT(request->copy_home == GRAIN_NONE);
    request->copy_home = grain;
    request->page->copying[index / 64] |= UINT64_C(1) << (index % 64);
}

static void
copy_end(struct volume_request *request)
{
    struct map_page *page = request->page;
    uint32_t index = entry_index(request->cursor_bytes);

    ASSERT((page->copying[index / 64] >> (index % 64) & 1) != 0);
    request->copy_home = GRAIN_NONE;
    page->copying[index / 64] &= ~(UINT64_C(1) << (index % 64));
    pipeline_resume_all(&page->copy_waiters);
}

void
copy_give_up(struct volume_request *request)
{
    ASSERT(request->copy_home != GRAIN_NONE);
    ASSERT_OP(request->children_pending, ==, 0u);
    grain_source_untake(&request->volume->source, request->copy_home);
    copy_end(request);
}

/* ---- transfers ---- */

/* The blocks of `mask` that are somewhere; the others are zeroes in the bounce. */
static void
plan_old_blocks(struct volume_request *request, uint16_t mask, struct segments *segments)
{
    const struct map_entry *entry = copy_entry(request);
    struct map_entry_sources sources = map_entry_resolve(entry, mask);

    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        uint64_t at = (uint64_t)block * BLOCK_BYTES;
        if (((sources.home | sources.base) >> block & 1) != 0) {
            bool in_home = (sources.home >> block & 1) != 0;
            issue_add_blocks(request, in_home ? entry->home : entry->base, at, segments);
        } else if ((mask >> block & 1) != 0) {
            memset(request->bounce->memory + at, 0, BLOCK_BYTES);
        }
    }
}

static void
copy_read(struct volume_request *request)
{
    const struct map_entry *entry = copy_entry(request);
    struct map_entry_copy plan = map_entry_copy_plan(entry, written_mask(request));
    uint16_t partial = partial_mask(request);
    struct segments segments;

    segments.count = 0;
    request->bounce_phase = BOUNCE_EDGES;
    if ((partial & entry->damaged) != 0) {
        request_fail(request, -EIO); /* what is not written of it has been lost */
        return;
    }
    plan_old_blocks(request, partial | plan.read, &segments);
    if (!request->has_failed) {
        issue_bounced(request, &segments, grain_start(request), false);
    }
}

static void
copy_write(struct volume_request *request)
{
    struct map_entry_copy plan = map_entry_copy_plan(copy_entry(request), written_mask(request));
    uint16_t mask = written_mask(request) | plan.read;
    struct segments segments;

    segments.count = 0;
    issue_fill_bounce(request, request->cursor_bytes - grain_start(request));
    request->bounce_phase = BOUNCE_BODY;
    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        if ((mask >> block & 1) != 0) {
            issue_add_blocks(request, request->copy_home, (uint64_t)block * BLOCK_BYTES,
                             &segments);
        }
    }
    if (!request->has_failed) {
        issue_bounced(request, &segments, grain_start(request), true);
    }
}

void
copy_issue(struct volume_request *request)
{
    ASSERT(copy_is_needed(request->volume, copy_entry(request)));
    if (request->bounce_phase == BOUNCE_NONE) {
        copy_read(request);
        if (request->has_failed || request->children_pending > 0) {
            return;
        }
    }
    copy_write(request);
}

/* ---- MAP ---- */

void
copy_map(struct volume_request *request, uint32_t generation, struct map_entry_dropped *dropped)
{
    struct map_entry *entry = copy_entry(request);

    ASSERT(copy_is_needed(request->volume, entry));
    map_entry_copied_home(entry, written_mask(request), request->copy_home, generation, dropped);
    copy_end(request);
}
