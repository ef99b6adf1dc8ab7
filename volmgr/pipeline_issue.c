/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ISSUE and SETTLE: from a window of a volume to transfers on disks.
 *
 * A window is cut in runs of blocks that come from one place; runs that continue one another on the
 * disk and in memory become one transfer. When payload and blocks are aligned, the disks work on
 * the caller's memory. Otherwise the window (then at most one grain) goes by way of a bounce: reads
 * are copied out of it; for writes the blocks that are covered in part are read first, under the
 * lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

/* A request fills its cache lines with one address after the other. */
_Static_assert(VOLUME_WINDOW_GRAINS * GRAIN_BYTES == 1 << 20, "windows are 1 MiB at most");

static const struct map_entry EMPTY_ENTRY;

static const struct map_entry *
window_entry(const struct volume_request *request, uint64_t offset_bytes)
{
    return request->page->entries == NULL ? &EMPTY_ENTRY
                                          : &request->page->entries[entry_index(offset_bytes)];
}

/* ---- planning ---- */

static uint64_t
page_end(uint64_t offset_bytes)
{
    uint64_t page_bytes = UINT64_C(1) << MAP_PAGE_SHIFT;
    return align_down(offset_bytes, page_bytes) + page_bytes;
}

/* May this block be written in part where it is? (DESIGN: transition 6) */
static bool
block_is_writable_in_place(const struct volume_request *request, uint64_t offset_bytes)
{
    const struct map_entry *entry = window_entry(request, offset_bytes);
    uint32_t block = (uint32_t)(offset_bytes >> BLOCK_SHIFT) % BLOCKS_PER_GRAIN;

    /* FUA makes the whole block durable, or a later loss of its other parts would take it along. */
    return (request->flags & VOLUME_FUA) == 0 &&
           ((entry->valid & ~entry->damaged) >> block & 1) != 0 &&
           entry->home_generation > request->volume->frozen;
}

static bool
write_may_be_direct(const struct volume_request *request, uint64_t start, uint64_t end)
{
    const struct shard *shard = request->volume->shard;

    if (is_aligned(start | end, BLOCK_BYTES)) {
        return true;
    }
    if (!is_aligned(start | end, shard->sector_bytes_max)) {
        return false;
    }
    return (is_aligned(start, BLOCK_BYTES) || block_is_writable_in_place(request, start)) &&
           (is_aligned(end, BLOCK_BYTES) || block_is_writable_in_place(request, end - 1));
}

/* Payload is contiguous with the request, so its alignment follows the request's offset. */
static bool
window_payload_aligned(const struct volume_request *request)
{
    const struct shard *shard = request->volume->shard;
    uint64_t skipped = request->cursor_bytes - request->offset_bytes;
    uint64_t unit = shard->memory_alignment_max;

    if (request->iov_count > 1) {
        unit = MAX(unit, shard->sector_bytes_max); /* the rest of a piece is whole sectors, too */
    }
    return request->payload_aligned && is_aligned(skipped, unit);
}

/* The first grain of [start, end) whose write has to copy; `end` if there is none. */
static uint64_t
first_copy(const struct volume_request *request, uint64_t start, uint64_t end)
{
    for (uint64_t at = align_down(start, GRAIN_BYTES); at < end; at += GRAIN_BYTES) {
        if (copy_is_needed(request->volume, window_entry(request, at))) {
            return at;
        }
    }
    return end;
}

static void
plan_transfer(struct volume_request *request, uint64_t limit)
{
    uint64_t start = request->cursor_bytes;
    uint64_t end = MIN(limit, align_down(start, GRAIN_BYTES) +
                                  (uint64_t)VOLUME_WINDOW_GRAINS * GRAIN_BYTES);
    uint64_t grain_end = align_down(start, GRAIN_BYTES) + GRAIN_BYTES;
    bool direct = window_payload_aligned(request);

    if (request->operation != VOLUME_READ && request->volume->frozen > 0) {
        uint64_t copied = first_copy(request, start, end);
        if (copied <= start) {
            request->window_kind = WINDOW_BOUNCE;
            request->window_end_bytes = MIN(end, grain_end);
            return;
        }
        end = copied;
    }
    if (direct && request->operation == VOLUME_READ) {
        direct = is_aligned(start | end, request->volume->shard->sector_bytes_max);
    } else if (direct) {
        direct = write_may_be_direct(request, start, end);
        if (!direct && is_aligned(start, BLOCK_BYTES) && align_down(end, BLOCK_BYTES) > start) {
            end = align_down(end, BLOCK_BYTES); /* the partial tail is a window of its own */
            direct = true;
        }
    }
    request->window_kind = direct ? WINDOW_DIRECT : WINDOW_BOUNCE;
    if (!direct && request->payload_aligned && !is_aligned(start, BLOCK_BYTES)) {
        /* Only the partial head, so that the rest can be direct. */
        end = MIN(end, align_up(start + 1, BLOCK_BYTES));
    }
    request->window_end_bytes = direct ? end : MIN(end, grain_end);
}

/* Whole blocks are zeroed in the map; partial ones are written (zeroes) or left alone (discard). */
static void
plan_zero(struct volume_request *request, uint64_t limit)
{
    uint64_t start = request->cursor_bytes;
    uint64_t whole_end = align_down(limit, BLOCK_BYTES);

    if ((request->flags & VOLUME_NO_HOLE) != 0 && request->operation == VOLUME_WRITE_ZEROES) {
        plan_transfer(request, limit);
        return;
    }
    if (is_aligned(start, BLOCK_BYTES) && whole_end > start) {
        request->window_kind = WINDOW_ZERO;
        request->window_end_bytes = whole_end;
        return;
    }
    request->window_end_bytes = MIN(limit, align_down(start, BLOCK_BYTES) + BLOCK_BYTES);
    if (request->operation == VOLUME_DISCARD) {
        request->window_kind = WINDOW_SKIP;
        return;
    }
    const struct map_entry *entry = window_entry(request, start);
    uint16_t bit = (uint16_t)(1u << ((start >> BLOCK_SHIFT) % BLOCKS_PER_GRAIN));
    struct map_entry_sources sources = map_entry_resolve(entry, bit);
    request->window_kind = sources.zero != 0 ? WINDOW_SKIP : WINDOW_BOUNCE;
}

void
window_plan(struct volume_request *request)
{
    uint64_t limit = MIN(request_end_bytes(request), page_end(request->cursor_bytes));

    ASSERT_OP(limit, >, request->cursor_bytes);
    request->bounce_phase = BOUNCE_NONE;
    switch (request->operation) {
    case VOLUME_READ:
    case VOLUME_WRITE:
        plan_transfer(request, limit);
        break;
    case VOLUME_WRITE_ZEROES:
    case VOLUME_DISCARD:
        plan_zero(request, limit);
        break;
    case VOLUME_STATUS:
    case VOLUME_PREFETCH:
        request->window_kind = WINDOW_SKIP;
        request->window_end_bytes = limit;
        break;
    case VOLUME_FLUSH:
    case VOLUME_OPERATION_COUNT:
        UNREACHABLE();
    }
    ASSERT_OP(request->window_end_bytes, >, request->cursor_bytes);
}

/* ---- payload ---- */

/* Call `each` for the pieces of the request's payload at [offset, offset + length). */
static void
payload_copy(struct volume_request *request, uint64_t offset_bytes, uint64_t length_bytes,
             uint8_t *memory, bool to_payload)
{
    for (uint32_t i = 0; i < request->iov_count && length_bytes > 0; i++) {
        const struct iovec *iov = &request->iov[i];
        if (offset_bytes >= iov->iov_len) {
            offset_bytes -= iov->iov_len;
            continue;
        }
        uint64_t piece = MIN(length_bytes, (uint64_t)iov->iov_len - offset_bytes);
        uint8_t *payload = (uint8_t *)iov->iov_base + offset_bytes;
        if (!to_payload) {
            memcpy(memory, payload, piece);
        } else if (memory != NULL) {
            memcpy(payload, memory, piece);
        } else {
            memset(payload, 0, piece);
        }
        memory = memory != NULL ? memory + piece : NULL;
        length_bytes -= piece;
        offset_bytes = 0;
    }
    ASSERT_OP(length_bytes, ==, 0u);
}

/* ---- fans and bounces ---- */

static void
fan_take(struct volume_request *request)
{
    struct shard *shard = request->volume->shard;

    if (request->fan == NULL) {
        struct list *link = list_pop_front(&shard->free_fans);
        if (link != NULL) {
            request->fan = list_entry(link, struct volume_fan, link);
        } else {
            request->fan = calloc(1, sizeof(*request->fan));
            ASSERT(request->fan != NULL);
            list_init(&request->fan->link);
        }
    }
    request->fan->iov_used = 0;
}

static void
bounce_take(struct volume_request *request)
{
    struct shard *shard = request->volume->shard;

    if (request->bounce != NULL) {
        return;
    }
    struct list *link = list_pop_front(&shard->free_bounces);
    if (link != NULL) {
        request->bounce = list_entry(link, struct volume_bounce, link);
        return;
    }
    request->bounce = calloc(1, sizeof(*request->bounce));
    ASSERT(request->bounce != NULL);
    list_init(&request->bounce->link);
    request->bounce->memory = aligned_alloc(BLOCK_BYTES, GRAIN_BYTES);
    ASSERT(request->bounce->memory != NULL);
}

void
issue_release(struct volume_request *request)
{
    struct shard *shard = request->volume->shard;

    ASSERT_OP(request->children_pending, ==, 0u);
    if (request->fan != NULL) {
        list_push_front(&shard->free_fans, &request->fan->link);
        request->fan = NULL;
    }
    if (request->bounce != NULL) {
        list_push_front(&shard->free_bounces, &request->bounce->link);
        request->bounce = NULL;
    }
}

/* ---- segments ---- */

/* Append, or lengthen the last one; false when there is no room. */
static bool
segments_add(struct segments *segments, struct disk *disk, uint64_t disk_offset_bytes,
             uint64_t length_bytes, uint64_t payload_offset_bytes)
{
    if (segments->count > 0) {
        struct segment *last = &segments->list[segments->count - 1];
        if (last->disk == disk &&
            last->disk_offset_bytes + last->length_bytes == disk_offset_bytes &&
            last->payload_offset_bytes + last->length_bytes == payload_offset_bytes) {
            last->length_bytes += length_bytes;
            return true;
        }
    }
    if (segments->count == VOLUME_CHILDREN_MAX) {
        return false;
    }
    segments->list[segments->count++] = (struct segment){
        .disk = disk,
        .disk_offset_bytes = disk_offset_bytes,
        .length_bytes = length_bytes,
        .payload_offset_bytes = payload_offset_bytes,
    };
    return true;
}

/* Where a byte of a grain lies. -EIO: its disk is missing. */
static int
locate(const struct pool *pool, grain_address grain, uint64_t in_grain_bytes,
       struct disk **ret_disk, uint64_t *ret_offset_bytes)
{
    const struct extent *extent = extent_table_find(&pool->extents, grain_extent(&pool->extents,
                                                                                 grain));
    if (UNLIKELY(extent == NULL)) {
        return -EIO; /* the map names an extent that is not there: check tells */
    }
    struct disk *disk = pool_disk(pool, extent->places[0].disk);
    if (UNLIKELY(disk == NULL || disk->backend == NULL)) {
        return -EIO;
    }
    *ret_disk = disk;
    *ret_offset_bytes = disk->record.data_start_bytes +
                        (uint64_t)extent->places[0].slot * pool->record.extent_bytes +
                        (uint64_t)grain_index(&pool->extents, grain) * GRAIN_BYTES +
                        in_grain_bytes;
    return 0;
}

/* How many blocks from `block` on have the same source; which one. */
static uint32_t
run_length(const struct map_entry *entry, uint32_t block, uint32_t last_block,
           grain_address *ret_grain)
{
    struct map_entry_sources sources = map_entry_resolve(entry, UINT16_MAX);
    uint16_t same = (sources.home >> block & 1) != 0   ? sources.home
                    : (sources.base >> block & 1) != 0 ? sources.base
                                                       : sources.zero;
    uint32_t end = block + 1;

    *ret_grain = same == sources.home && (sources.home >> block & 1) != 0   ? entry->home
                 : same == sources.base && (sources.base >> block & 1) != 0 ? entry->base
                                                                            : GRAIN_NONE;
    while (end <= last_block && (same >> end & 1) != 0) {
        end++;
    }
    return end - block;
}

/*
 * Segments for reading [start, end) of the volume to memory at `payload_offset`; `zero` is called
 * for what reads as zeroes. Returns where it had to stop for lack of segments.
 */
static uint64_t
plan_read(struct volume_request *request, uint64_t start, uint64_t end, uint8_t *bounce,
          struct segments *segments)
{
    const struct pool *pool = request->volume->pool;
    uint64_t at = start;

    while (at < end) {
        const struct map_entry *entry = window_entry(request, at);
        uint64_t grain_start = align_down(at, GRAIN_BYTES);
        uint64_t grain_end = MIN(end, grain_start + GRAIN_BYTES);
        uint32_t block = (uint32_t)((at - grain_start) >> BLOCK_SHIFT);
        uint32_t last = (uint32_t)((grain_end - 1 - grain_start) >> BLOCK_SHIFT);
        grain_address grain = GRAIN_NONE;
        uint32_t blocks = run_length(entry, block, last, &grain);
        uint64_t run_end = MIN(end, grain_start + ((uint64_t)block + blocks) * BLOCK_BYTES);
        if (UNLIKELY(entry->damaged != 0) &&
            (entry->damaged & block_mask(grain_start, at, run_end)) != 0) {
            request_fail(request, -EIO); /* its last content was lost: a medium error */
            return at;
        }
        uint64_t payload = bounce != NULL ? at - start : at - request->offset_bytes;
        if (grain == GRAIN_NONE) {
            if (bounce != NULL) {
                memset(bounce + payload, 0, run_end - at);
            } else {
                payload_copy(request, payload, run_end - at, NULL, true);
            }
        } else {
            struct disk *disk = NULL;
            uint64_t offset = 0;
            int result = locate(pool, grain, at - grain_start, &disk, &offset);
            if (result < 0) {
                request_fail(request, result);
                return at;
            }
            if (!segments_add(segments, disk, offset, run_end - at, payload)) {
                return at;
            }
        }
        at = run_end;
    }
    return end;
}

void
issue_add_blocks(struct volume_request *request, grain_address grain, uint64_t in_grain_bytes,
                 struct segments *segments)
{
    struct disk *disk = NULL;
    uint64_t offset = 0;

    int result = locate(request->volume->pool, grain, in_grain_bytes, &disk, &offset);
    if (result < 0) {
        request_fail(request, result);
        return;
    }
    bool added = segments_add(segments, disk, offset, BLOCK_BYTES, in_grain_bytes);
    ASSERT(added); /* one grain has at most 16 runs */
}

/* Segments for writing [start, end): ALLOC has seen to it that no home is frozen. */
static uint64_t
plan_write(struct volume_request *request, uint64_t start, uint64_t end, uint64_t payload_start,
           struct segments *segments)
{
    uint64_t at = start;

    while (at < end) {
        const struct map_entry *entry = window_entry(request, at);
        uint64_t grain_start = align_down(at, GRAIN_BYTES);
        uint64_t run_end = MIN(end, grain_start + GRAIN_BYTES);
        struct disk *disk = NULL;
        uint64_t offset = 0;

        ASSERT(entry->home != GRAIN_NONE);
        ASSERT_OP(entry->home_generation, <=, request->generation);
        ASSERT_OP(entry->home_generation, >, request->volume->frozen);
        int result =
            locate(request->volume->pool, entry->home, at - grain_start, &disk, &offset);
        if (result < 0) {
            request_fail(request, result);
            return at;
        }
        if (!segments_add(segments, disk, offset, run_end - at, payload_start + (at - start))) {
            return at;
        }
        at = run_end;
    }
    return end;
}

/* ---- children ---- */

static inline struct shard_disk *
child_disk(const struct volume_child *child)
{
    return child->request->volume->shard->disks[child->disk_index];
}

/* Something may be there now, whatever the outcome: a failed write can be in the disk's cache. */
static void
child_written(const struct volume_child *child, bool durable)
{
    struct volume *volume = child->request->volume;
    uint64_t *word = &volume->dirty_disks[child->disk_index / 64];
    uint64_t bit = UINT64_C(1) << (child->disk_index % 64);

    if ((*word & bit) == 0) {
        *word |= bit;
        seal_note_dirty(volume);
    }
    volume_loss_note_written(volume, child->disk_index, child->volume_offset_bytes,
                             child->volume_offset_bytes + child->io.length_bytes, durable);
}

static void
child_done(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct volume_child *child = container_of(io, struct volume_child, io);
    struct volume_request *request = child->request;

    ASSERT_OP(request->children_pending, >, 0u);
    bool stale = backend_loss_generation(child_disk(child)->disk->backend) !=
                 child->loss_generation;
    if (UNLIKELY(stale)) {
        request->stale = true; /* Z2 */
    }
    if (io->kind == BACKEND_WRITE) {
        child_written(child, io->fua && op->result == 0 && !stale && !map_window_moves(request));
    }
    if (op->result < 0) {
        request_fail(request, op->result);
    }
    if (--request->children_pending == 0) {
        pipeline_run(request);
    }
}

/* Cut the pieces of the caller's payload that a segment covers. False: too many pieces. */
static bool
slice_payload(struct volume_request *request, const struct segment *segment,
              const struct iovec **ret_iov, uint32_t *ret_count)
{
    uint64_t offset = segment->payload_offset_bytes;
    uint64_t left = segment->length_bytes;
    struct volume_fan *fan = request->fan;
    struct iovec *out = fan != NULL ? &fan->iov[fan->iov_used] : &request->only_iov;
    uint32_t room = fan != NULL ? VOLUME_FAN_IOV_MAX - fan->iov_used : 1;
    uint32_t count = 0;

    for (uint32_t i = 0; i < request->iov_count && left > 0; i++) {
        const struct iovec *iov = &request->iov[i];
        if (offset >= iov->iov_len) {
            offset -= iov->iov_len;
            continue;
        }
        if (count == room) {
            return false;
        }
        uint64_t piece = MIN(left, (uint64_t)iov->iov_len - offset);
        out[count++] = (struct iovec){ (uint8_t *)iov->iov_base + offset, piece };
        left -= piece;
        offset = 0;
    }
    ASSERT_OP(left, ==, 0u);
    if (fan != NULL) {
        fan->iov_used += count;
    }
    *ret_iov = out;
    *ret_count = count;
    return true;
}

static void
child_start(struct volume_request *request, struct volume_child *child,
            const struct segment *segment, bool is_write, const struct iovec *iov,
            uint32_t iov_count)
{
    struct backend_io *io = &child->io;

    child->request = request;
    child->disk_index = segment->disk->record.index;
    child->loss_generation = child_disk(child)->loss_generation_seen;
    io->op.done = child_done;
    io->kind = is_write ? BACKEND_WRITE : BACKEND_READ;
    io->fua = is_write && (request->flags & VOLUME_FUA) != 0;
    io->offset_bytes = segment->disk_offset_bytes;
    io->length_bytes = segment->length_bytes;
    io->iov = iov;
    io->iov_count = iov_count;
    io->timeout_ns = request->volume->pool->manager->options.disk_timeout_ns;
    backend_submit(segment->disk->backend, io);
}

/*
 * Start the transfers of `segments` on the caller's memory. Returns how many could be described;
 * the window ends before the first that could not.
 */
static uint32_t
start_direct(struct volume_request *request, const struct segments *segments, bool is_write)
{
    const struct iovec *iovs[VOLUME_CHILDREN_MAX];
    uint32_t counts[VOLUME_CHILDREN_MAX];
    uint32_t described = 0;

    if (segments->count == 1 && segments->list[0].length_bytes == request->length_bytes) {
        request->children_pending = 1;
        request->only_child.volume_offset_bytes = request->offset_bytes;
        child_start(request, &request->only_child, &segments->list[0], is_write, request->iov,
                    request->iov_count);
        return 1;
    }
    if (segments->count > 1 || request->iov_count > 1) {
        fan_take(request);
    } else if (request->fan != NULL) {
        request->fan->iov_used = 0; /* kept from an earlier window */
    }
    while (described < segments->count &&
           slice_payload(request, &segments->list[described], &iovs[described],
                         &counts[described])) {
        described++;
    }
    request->children_pending = described; /* all counted before the first is submitted */
    for (uint32_t i = 0; i < described; i++) {
        struct volume_child *child =
            request->fan != NULL ? &request->fan->children[i] : &request->only_child;
        child->volume_offset_bytes =
            request->offset_bytes + segments->list[i].payload_offset_bytes;
        child_start(request, child, &segments->list[i], is_write, iovs[i], counts[i]);
    }
    return described;
}

void
issue_bounced(struct volume_request *request, const struct segments *segments,
              uint64_t start_bytes, bool is_write)
{
    if (segments->count == 0) {
        return;
    }
    fan_take(request);
    request->children_pending = segments->count;
    for (uint32_t i = 0; i < segments->count; i++) {
        const struct segment *segment = &segments->list[i];
        struct iovec *iov = &request->fan->iov[request->fan->iov_used++];
        request->fan->children[i].volume_offset_bytes =
            start_bytes + segment->payload_offset_bytes;
        *iov = (struct iovec){ request->bounce->memory + segment->payload_offset_bytes,
                               segment->length_bytes };
        child_start(request, &request->fan->children[i], segment, is_write, iov, 1);
    }
}

/* ---- ISSUE ---- */

static void
issue_direct(struct volume_request *request)
{
    struct segments segments;
    uint64_t start = request->cursor_bytes;
    uint64_t end = request->window_end_bytes;
    bool is_write = request->operation != VOLUME_READ;

    segments.count = 0;
    end = is_write ? plan_write(request, start, end, start - request->offset_bytes, &segments)
                   : plan_read(request, start, end, NULL, &segments);
    if (request->has_failed) {
        return;
    }
    uint32_t described = segments.count > 0 ? start_direct(request, &segments, is_write) : 0;
    if (described < segments.count) {
        end = request->offset_bytes + segments.list[described].payload_offset_bytes;
    }
    ASSERT_OP(end, >, start);
    request->window_end_bytes = end;
}

/* The blocks of the window, whole. */
static void
bounce_range(const struct volume_request *request, uint64_t *ret_start, uint64_t *ret_end)
{
    *ret_start = align_down(request->cursor_bytes, BLOCK_BYTES);
    *ret_end = align_up(request->window_end_bytes, BLOCK_BYTES);
    ASSERT_OP(*ret_end - *ret_start, <=, (uint64_t)GRAIN_BYTES);
}

static void
issue_bounce_read(struct volume_request *request)
{
    struct segments segments;
    uint64_t start = 0;
    uint64_t end = 0;

    segments.count = 0;
    bounce_take(request);
    bounce_range(request, &start, &end);
    /* One grain has at most 16 runs, so there is always room. */
    end = plan_read(request, start, end, request->bounce->memory, &segments);
    if (!request->has_failed) {
        issue_bounced(request, &segments, start, false);
    }
}

/* Read the blocks that the window covers in part: the first, the last, or the only one. */
static void
issue_bounce_edges(struct volume_request *request)
{
    struct segments segments;
    uint64_t start = 0;
    uint64_t end = 0;
    uint8_t *memory;

    segments.count = 0;
    bounce_take(request);
    memory = request->bounce->memory;
    bounce_range(request, &start, &end);
    request->bounce_phase = BOUNCE_EDGES;
    bool head = !is_aligned(request->cursor_bytes, BLOCK_BYTES);
    bool tail = !is_aligned(request->window_end_bytes, BLOCK_BYTES);
    if (head || (tail && end - start == BLOCK_BYTES)) {
        plan_read(request, start, start + BLOCK_BYTES, memory, &segments);
    }
    if (tail && end - start > BLOCK_BYTES && !request->has_failed) {
        uint32_t before = segments.count;
        plan_read(request, end - BLOCK_BYTES, end, memory + (end - BLOCK_BYTES - start),
                  &segments);
        if (segments.count > before) {
            segments.list[segments.count - 1].payload_offset_bytes += end - BLOCK_BYTES - start;
        }
    }
    if (!request->has_failed) {
        issue_bounced(request, &segments, start, false);
    }
}

void
issue_fill_bounce(struct volume_request *request, uint64_t at)
{
    uint8_t *to = request->bounce->memory + at;
    uint64_t length = request->window_end_bytes - request->cursor_bytes;

    ASSERT_OP(at + length, <=, (uint64_t)GRAIN_BYTES);
    if (request->operation == VOLUME_WRITE) {
        payload_copy(request, request->cursor_bytes - request->offset_bytes, length, to, false);
    } else {
        memset(to, 0, length);
    }
}

static void
issue_bounce_body(struct volume_request *request)
{
    struct segments segments;
    uint64_t start = 0;
    uint64_t end = 0;

    segments.count = 0;
    bounce_take(request);
    bounce_range(request, &start, &end);
    issue_fill_bounce(request, request->cursor_bytes - start);
    request->bounce_phase = BOUNCE_BODY;
    plan_write(request, start, end, 0, &segments);
    if (!request->has_failed) {
        issue_bounced(request, &segments, start, true);
    }
}

/* WRITE_ZEROES that must allocate: the payload is zeroes, a grain at a time. */
static void
issue_zero_body(struct volume_request *request)
{
    uint64_t grain_end = align_down(request->cursor_bytes, GRAIN_BYTES) + GRAIN_BYTES;

    request->window_end_bytes = MIN(request->window_end_bytes, grain_end);
    if (is_aligned(request->cursor_bytes | request->window_end_bytes, BLOCK_BYTES)) {
        issue_bounce_body(request);
    } else {
        issue_bounce_edges(request);
    }
}

enum step
stage_issue(struct volume_request *request)
{
    ASSERT_OP(request->children_pending, ==, 0u);
    if (request->window_kind == WINDOW_ZERO || request->window_kind == WINDOW_SKIP) {
        return STEP_NEXT;
    }
    if (window_is_outdated(request)) {
        window_plan_again(request);
        return STEP_NEXT;
    }
    if (UNLIKELY(request->copy_home != GRAIN_NONE)) {
        bounce_take(request);
        copy_issue(request);
    } else if (request->bounce_phase == BOUNCE_EDGES) {
        issue_bounce_body(request);
    } else if (request->operation == VOLUME_WRITE_ZEROES) {
        issue_zero_body(request);
    } else if (request->window_kind == WINDOW_DIRECT) {
        issue_direct(request);
    } else if (request->operation == VOLUME_READ) {
        issue_bounce_read(request);
    } else if (is_aligned(request->cursor_bytes | request->window_end_bytes, BLOCK_BYTES)) {
        issue_bounce_body(request);
    } else {
        issue_bounce_edges(request);
    }
    return request->children_pending > 0 ? STEP_WAIT : STEP_NEXT;
}

/* ---- SETTLE ---- */

enum step
stage_settle(struct volume_request *request)
{
    ASSERT_OP(request->children_pending, ==, 0u);
    if (request->window_kind == WINDOW_ZERO || request->window_kind == WINDOW_SKIP) {
        return STEP_NEXT;
    }
    bool edges = request->bounce_phase == BOUNCE_EDGES;
    if (UNLIKELY(request->stale)) {
        disk_flush_look(request->volume->shard);
        window_plan_again(request);
        return STEP_NEXT;
    }
    if (edges) {
        request->stage = STAGE_ISSUE; /* the edges are there: now the body */
        return STEP_NEXT;
    }
    if (request->operation == VOLUME_READ && request->window_kind == WINDOW_BOUNCE) {
        uint64_t start = align_down(request->cursor_bytes, BLOCK_BYTES);
        payload_copy(request, request->cursor_bytes - request->offset_bytes,
                     request->window_end_bytes - request->cursor_bytes,
                     request->bounce->memory + (request->cursor_bytes - start), true);
    }
    return STEP_NEXT;
}
