/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lost writes: what happens to a volume when a disk has lost what it had not flushed.
 *
 * THEORY OF OPERATION
 *
 * A flush fails, or a LUN was reset behind our back: what was written there since the last good
 * flush may be gone, in-place overwrites included, whatever a read shows at the moment. For each
 * volume that had written there, the blocks concerned are known (unflushed_impl.h). They are marked
 * `damaged` in the volume's map: a medium error until they are rewritten. Everything else of the
 * volume is as good as before, so it goes on, once its marks are set; its next FLUSH fails, so that
 * the host knows (a file system will want to).
 *
 * Setting the marks needs the map pages of these blocks, which may have to be read. Meanwhile
 * requests wait at LOOKUP. The batch that was on its way is not committed: what it held joins the
 * open batch again, which is committed with the marks.
 *
 * Until that commit the death of the daemon would take the marks along. Therefore the volume is
 * fenced in the header of the volatile journal first, and the fence is lifted by the first commit
 * of a batch that was sealed with all marks set. A start that finds a fence knows that something is
 * lost and not what: the volume answers no I/O until an administrator accepts that. A power cut
 * takes the fence along with all that was not flushed, as it may.
 *
 * Invariants
 *  Z1  No request of the volume passes LOOKUP between the notice of a loss and the last mark, and
 *      one that had passed it before works on its window again (plan_epoch).
 *  Z2  What a disk operation did is believed only if the disk's loss_generation is the same after
 *      it as the shard knew before it; otherwise the window is worked on again (SETTLE).
 *  Z3  The fence of the ring's header is set before the first mark, and lifted only after a commit
 *      that holds all of them.
 *  Z4  A block is marked only if it was written since the last good flush of the disk that it is
 *      on: what a FLUSH or FUA has acknowledged is never given up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/map_entry_impl.h"
#include "volmgr/pipeline_impl.h"

struct lost_grain {
    uint64_t grain; /* of the volume */
    uint16_t blocks;
    uint16_t disk; /* that they were written to */
};

struct volume_loss {
    struct volume *volume;
    struct io_op step; /* go on, from the loop */
    uint64_t disks[POOL_DISKS_MAX / 64];
    bool again;  /* another disk, or more blocks: from the beginning */
    struct lost_grain *grains; /* in order */
    size_t count;
    size_t next;
    uint64_t blocks_marked;
    char disk_spec[DISK_SPEC_BYTES_MAX + 1]; /* the first one */
    struct volume_request load;
};

static void loss_run(struct io_op *op);

/* ---- holding everything back ---- */

/* Replay would leave out the records of a fenced volume: they need not hold the ring's tail. */
static void
give_up_records(struct volume *volume)
{
    struct shard *shard = volume->shard;

    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        uint32_t count = volume->journal_open[i] + volume->journal_sealed[i];
        volume->journal_open[i] = 0;
        volume->journal_sealed[i] = 0;
        if (count > 0) {
            journal_committed(&shard->journal, i, count);
        }
    }
    volume->journal_records = 0;
    pipeline_resume_all(&shard->seal_waiters);
}

static void
hold_back(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    if (!volume->journal_fenced) {
        volume->journal_fenced = true;
        journal_fence(&volume->shard->journal, volume->branch.id);
    }
    seal->lifts_fence = false;
    if (seal->phase == SEAL_FLUSHING && seal->status == 0) {
        seal->status = -EIO; /* a good flush after a bad one proves nothing (S5) */
    }
    give_up_records(volume);
}

/* ---- which blocks ---- */

static int
compare_grains(const void *left, const void *right)
{
    const struct lost_grain *a = left;
    const struct lost_grain *b = right;
    return a->grain < b->grain ? -1 : a->grain > b->grain;
}

static bool
has_disk(const uint64_t *disks, uint32_t index)
{
    return (disks[index / 64] >> (index % 64) & 1) != 0;
}

/* Z4: what the lost disks have of `set`, if it is not among what was flushed there. */
static void
collect_from(struct volume_loss *loss, const struct unflushed *set, const uint64_t *unflushed)
{
    const struct unflushed_slot *slot;

    for (uint32_t at = 0; (slot = unflushed_next(set, &at)) != NULL;) {
        if (has_disk(loss->disks, slot->disk) &&
            (unflushed == NULL || has_disk(unflushed, slot->disk))) {
            loss->grains[loss->count++] = (struct lost_grain){
                .grain = slot->grain_plus_one - 1, .blocks = slot->blocks, .disk = slot->disk
            };
        }
    }
}

static void
collect(struct volume_loss *loss)
{
    const struct volume *volume = loss->volume;
    size_t room = (size_t)volume->written.count + volume->seal.written.count;

    free(loss->grains);
    loss->grains = calloc(MAX(room, (size_t)1), sizeof(*loss->grains));
    ASSERT(loss->grains != NULL);
    loss->count = 0;
    loss->next = 0;
    collect_from(loss, &volume->written, NULL);
    collect_from(loss, &volume->seal.written, volume->seal.disks);
    ASSERT_OP(loss->count, <=, room);
    qsort(loss->grains, loss->count, sizeof(*loss->grains), compare_grains);
}

static bool
is_on_disk(const struct volume *volume, grain_address grain, uint16_t disk)
{
    const struct extent_table *table = &volume->pool->extents;

    if (grain == GRAIN_NONE) {
        return false;
    }
    const struct extent *extent = extent_table_find(table, grain_extent(table, grain));
    return extent != NULL && extent->places[0].disk == disk;
}

/* Z4. What has been written to another place since does not lie on that disk any more. */
static void
mark(struct volume_loss *loss, struct map_page *page, const struct lost_grain *lost)
{
    uint32_t index = (uint32_t)(lost->grain % MAP_PAGE_ENTRIES);
    struct map_entry *entry = &page->entries[index];
    struct map_entry_sources sources = map_entry_resolve(entry, lost->blocks);
    uint16_t before = entry->damaged;
    uint16_t blocks = 0;

    blocks |= is_on_disk(loss->volume, entry->home, lost->disk) ? sources.home : 0;
    blocks |= is_on_disk(loss->volume, entry->base, lost->disk) ? sources.base : 0;
    if (map_entry_lost(entry, blocks)) {
        loss->blocks_marked += (uint32_t)__builtin_popcount(entry->damaged ^ before);
        seal_entry_changed(loss->volume, page, index);
    }
}

/* ---- the end ---- */

static void
loss_free(struct volume_loss *loss)
{
    struct volume *volume = loss->volume;

    volume->loss = NULL;
    free(loss->grains);
    free(loss);
    pipeline_resume_all(&volume->loss_waiters);
    /* Not at once: a disk that goes on failing its flushes must not keep us busy. */
    seal_note_dirty(volume);
    if (seal_is_awaited(volume)) {
        seal_kick(volume);
    }
}

static void
loss_end(struct volume_loss *loss)
{
    struct volume *volume = loss->volume;

    if (loss->blocks_marked > 0) {
        volume->loss_to_report = !volume->loss_told;
        event_post(volume->pool->manager, EVENT_CRITICAL, volume->pool->name, volume->record.name,
                   "unflushed-writes-lost",
                   "disk %s lost what it had not flushed: %llu KiB that this volume wrote since "
                   "its last good flush read as errors until they are rewritten; all else of it "
                   "is as it was",
                   loss->disk_spec, (unsigned long long)loss->blocks_marked * BLOCK_BYTES / 1024);
    }
    loss_free(loss);
}

/* The map cannot be read, so the marks cannot be set: the fence stays. */
static void
loss_give_up(struct volume_loss *loss)
{
    struct volume *volume = loss->volume;

    volume->fenced = true;
    event_post(volume->pool->manager, EVENT_CRITICAL, volume->pool->name, volume->record.name,
               "volume-fenced",
               "disk %s lost what it had not flushed, and the map that tells which blocks these "
               "are cannot be read: the volume answers no I/O; see `volctl accept-loss`",
               loss->disk_spec);
    loss_free(loss);
}

/* ---- going through the pages ---- */

static void
load_replied(struct volume_request *request)
{
    (void)request;
}

static void
load_released(struct volume_request *request)
{
    struct volume_loss *loss = container_of(request, struct volume_loss, load);

    if (request->status < 0) {
        loss_give_up(loss);
        return;
    }
    loss_run(&loss->step);
}

static void
load_page(struct volume_loss *loss, uint64_t number)
{
    struct volume *volume = loss->volume;
    struct volume_request *request = &loss->load;

    volume_request_init(request);
    request->operation = VOLUME_PREFETCH;
    request->offset_bytes = number << MAP_PAGE_SHIFT;
    request->length_bytes = MIN(volume->record.size_bytes - request->offset_bytes,
                                (uint64_t)GRAIN_BYTES);
    request->timeout_ns = UINT64_MAX; /* a store that is slow is no reason to give up */
    request->reply = load_replied;
    request->release = load_released;
    volume_submit(volume, request);
}

/* True when its blocks are marked; false: it is being loaded. */
static bool
mark_page(struct volume_loss *loss)
{
    struct volume *volume = loss->volume;
    uint64_t number = loss->grains[loss->next].grain / MAP_PAGE_ENTRIES;
    struct map_page *page = map_cache_get(&volume->shard->cache, volume, number);
    bool ready = page->state == MAP_PAGE_READY;

    for (; ready && loss->next < loss->count &&
           loss->grains[loss->next].grain / MAP_PAGE_ENTRIES == number;
         loss->next++) {
        if (page->entries != NULL) {
            mark(loss, page, &loss->grains[loss->next]);
        }
    }
    map_page_unpin(page);
    if (!ready) {
        load_page(loss, number);
    }
    return ready;
}

static void
loss_run(struct io_op *op)
{
    struct volume_loss *loss = container_of(op, struct volume_loss, step);

    ASSERT_ON_REACTOR(loss->volume->shard->reactor);
    if (loss->again) {
        loss->again = false;
        collect(loss);
    }
    while (loss->next < loss->count) {
        if (!mark_page(loss)) {
            return;
        }
    }
    loss_end(loss);
}

/* ---- entry ---- */

void
volume_loss_begin(struct volume *volume, const struct disk *disk)
{
    struct volume_loss *loss = volume->loss;
    uint32_t index = disk->record.index;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (volume->fenced) {
        return;
    }
    volume->losses++;
    volume->plan_epoch++;
    volume->loss_told = false;
    hold_back(volume);
    if (loss == NULL) {
        loss = calloc(1, sizeof(*loss));
        ASSERT(loss != NULL);
        loss->volume = volume;
        snprintf(loss->disk_spec, sizeof(loss->disk_spec), "%s",
                 disk->backend != NULL ? disk->backend->spec : "that is missing");
        loss->step.done = loss_run;
        loss->step.reactor_id = reactor_id(volume->shard->reactor);
        volume->loss = loss;
        reactor_complete(&loss->step, 0);
    }
    loss->disks[index / 64] |= UINT64_C(1) << (index % 64);
    loss->again = true;
}

bool
volume_loss_concerns(const struct volume *volume, uint32_t disk_index)
{
    return volume->loss != NULL && has_disk(volume->loss->disks, disk_index);
}

void
volume_loss_note_written(struct volume *volume, uint32_t disk_index, uint64_t start_bytes,
                         uint64_t end_bytes, bool durable)
{
    uint16_t disk = (uint16_t)disk_index;

    ASSERT_OP(start_bytes, <, end_bytes);
    for (uint64_t at = start_bytes; at < end_bytes;) {
        uint64_t grain_start = align_down(at, GRAIN_BYTES);
        uint64_t end = MIN(end_bytes, grain_start + GRAIN_BYTES);
        uint64_t whole_start = align_up(at, BLOCK_BYTES);
        uint64_t whole_end = align_down(end, BLOCK_BYTES);
        uint64_t grain = at >> GRAIN_SHIFT;
        if (!durable) {
            unflushed_add(&volume->written, grain, disk, block_mask(grain_start, at, end));
        } else if (whole_start < whole_end) {
            uint16_t blocks = block_mask(grain_start, whole_start, whole_end);
            unflushed_remove(&volume->written, grain, disk, blocks);
            unflushed_remove(&volume->seal.written, grain, disk, blocks);
        }
        at = end;
    }
    if (UNLIKELY(volume->written.count > UNFLUSHED_GRAINS_MAX)) {
        seal_kick(volume);
    }
}
