/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durability: FLUSH, FUA and the periodic commit.
 *
 * THEORY OF OPERATION
 *
 * A volume's changed map entries collect in its open batch. Sealing takes that batch as it is at
 * one instant (the encoded deltas, the use bits of the grains that came and went, the position in
 * the journal), together with the set of disks that the volume has written since it last flushed
 * them. Then the disks are flushed, then the batch is committed, then those who waited are answered
 * and the grains that the batch freed may be used again. A volume has one seal under way at most;
 * what is acknowledged after the sealing belongs to the next.
 *
 * Each volume flushes only the disks that it has written, and commits by itself: a disk that hangs
 * delays the FLUSH of the volumes that wrote to it and of no other (P9). Flushes of one disk that
 * several volumes want in one pass are one flush; commits of several volumes are one group.
 *
 * Invariants
 *  S1  An entry's delta reaches the committer only after a flush, submitted after the entry's data
 *      had been written, of every disk that the volume had written (P4).
 *  S2  A FLUSH is answered only after the seal that was begun after it arrived has ended (P2).
 *  S3  Deltas of one volume are committed in order; their journal position moves in the same
 *      commit.
 *  S4  A grain that a batch freed is handed out only after that batch is durable.
 *  S5  When a flush fails, what the volume wrote since the last good one may be lost (loss.c). The
 *      sealed batch is not committed: its changes join the open batch again, to which the marks of
 *      what was lost are added, and those who waited get an error.
 *  S6  What a disk's good flush has covered is durable, whatever becomes of the seal's other disks:
 *      it is neither marked nor flushed again. A flush that ends well while the marks of a loss of
 *      that disk are being set covers nothing: it may have been submitted after the loss.
 *  S7  A version of a page that is encoded is not encoded again once the page has gone on from it:
 *      if its batch is not committed, what was encoded goes first in the next one (G3).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/pipeline_impl.h"

static void seal_start(struct volume *volume);
static void seal_finish(struct volume *volume, int status);

struct map_entry
seal_stored_view(const struct map_entry *entry)
{
    struct map_entry view = *entry;

    if (map_entry_is_fresh(&view)) {
        view.home = GRAIN_NONE;
        view.home_generation = 0;
    }
    return view;
}

bool
seal_is_clean(const struct volume *volume)
{
    if (volume->seal.phase != SEAL_IDLE || volume->loss != NULL ||
        !list_empty(&volume->dirty_pages) ||
        !list_empty(&volume->seal.pages) || /* of a commit that failed */
        volume->history.frozen.length_bytes > 0 || volume->history.branch_changed) {
        return false;
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(volume->dirty_disks); i++) {
        if (volume->dirty_disks[i] != 0) {
            return false;
        }
    }
    return true;
}

bool
seal_is_awaited(const struct volume *volume)
{
    return !list_empty(&volume->flush_requests) || !list_empty(&volume->history.seal_waits);
}

/* ---- encoding a page ---- */

/*
 * The link of a stored version, in the branch of the line whose key space that is in. Links tell
 * nothing of other branches.
 */
static struct history_link
link_of(const struct volume *volume, uint64_t page, uint32_t version, uint32_t previous)
{
    struct history_link link = { .branch = volume->branch.id, .version = version, .page = page };
    uint64_t fork = volume->branch.fork_generation;

    if (UNLIKELY(version <= fork)) {
        link.branch = view_chain_branch(volume->chain, version);
        bool same = previous != 0 && view_chain_branch(volume->chain, previous) == link.branch;
        link.previous = same ? previous : 0;
    } else {
        link.previous = previous > fork ? previous : 0;
    }
    return link;
}

void
seal_put_version(struct byte_buffer *batch, const struct volume *volume, uint64_t page,
                 const struct map_version *version, const struct byte_buffer *value)
{
    struct history_link link = link_of(volume, page, version->working, version->previous);
    uint32_t replaced = map_version_replaced(version);
    uint8_t key[MAP_KEY_BYTES];

    ASSERT(map_version_is_new(version));
    ASSERT_OP(version->working, >, volume->branch.fork_generation);
    if (replaced != 0) {
        struct history_link old = link_of(volume, page, replaced, version->previous);
        map_key_encode(key, old.branch, page, replaced);
        store_batch_delete(batch, STORE_FAMILY_MAP, key, sizeof(key));
        schema_delete_link(batch, &old);
    }
    map_key_encode(key, volume->branch.id, page, version->working);
    store_batch_put(batch, STORE_FAMILY_MAP, key, sizeof(key), value->data, value->length_bytes);
    schema_put_link(batch, &link);
}

/* Only the entries that have changed, into the version that is stored. */
static void
encode_merge(const struct volume *volume, const struct map_page *page, struct byte_buffer *operand,
             struct byte_buffer *batch)
{
    uint8_t key[MAP_KEY_BYTES];

    for (uint32_t word = 0; word < MAP_PAGE_WORDS; word++) {
        for (uint64_t bits = page->dirty[word]; bits != 0; bits &= bits - 1) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(bits);
            struct map_entry view = seal_stored_view(&page->entries[index]);
            map_delta_append(operand, index, &view);
        }
    }
    ASSERT_OP(page->version.working, >, volume->branch.fork_generation);
    map_key_encode(key, volume->branch.id, page->number, page->version.working);
    store_batch_merge(batch, STORE_FAMILY_MAP, key, sizeof(key), operand->data,
                      operand->length_bytes);
}

static void
encode_version(const struct volume *volume, const struct map_page *page, struct byte_buffer *value,
               struct byte_buffer *batch)
{
    struct map_entry *views = malloc(MAP_PAGE_ENTRIES * sizeof(*views));

    ASSERT(views != NULL);
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
        views[index] = seal_stored_view(&page->entries[index]);
    }
    map_page_encode(views, value);
    free(views);
    seal_put_version(batch, volume, page->number, &page->version, value);
}

/* Its changes are on their way to the store afterwards, behind all that was encoded before. */
static void
encode_page(const struct volume *volume, struct map_page *page, struct byte_buffer *scratch,
            struct byte_buffer *batch)
{
    byte_buffer_clear(scratch);
    if (map_version_is_new(&page->version)) {
        encode_version(volume, page, scratch, batch);
    } else {
        encode_merge(volume, page, scratch, batch);
    }
    map_version_encoded(&page->version);
}

/* ---- collecting changes ---- */

static void
commit_timer_expired(struct timer *timer)
{
    seal_kick_all(container_of(timer, struct shard, commit_timer));
}

void
seal_note_dirty(struct volume *volume)
{
    struct shard *shard = volume->shard;

    if (!list_linked(&volume->shard_dirty_link)) {
        list_push_back(&shard->dirty_volumes, &volume->shard_dirty_link);
    }
    /* One that was passed over (its marks were being set) is still in the list, without a timer. */
    if (!timer_is_armed(&shard->commit_timer) && !shard->stopping) {
        timer_arm(shard->reactor, &shard->commit_timer,
                  reactor_now_ns(shard->reactor) +
                      shard->pool->manager->options.commit_interval_ns,
                  commit_timer_expired);
    }
}

/*
 * What was changed in the page is encoded as had been decided for it, and a new version begins.
 * The entries stay dirty: until that is committed the journal must have them.
 */
static void
freeze_page(struct volume *volume, struct map_page *page)
{
    struct byte_buffer scratch = BYTE_BUFFER_INIT;

    encode_page(volume, page, &scratch, &volume->history.frozen);
    page->went_on = true;
    byte_buffer_free(&scratch);
}

void
seal_page_will_change(struct volume *volume, struct map_page *page, uint32_t above)
{
    if (UNLIKELY(map_version_must_freeze(&page->version, volume->frozen) ||
                 (page->version.working != 0 && page->version.working <= above))) {
        freeze_page(volume, page);
    }
    map_version_change(&page->version, volume->frozen,
                       (uint32_t)volume->branch.current_generation);
    ASSERT_OP(page->version.working, >, above);
}

void
seal_entry_changed(struct volume *volume, struct map_page *page, uint32_t index)
{
    struct map_cache *cache = &volume->shard->cache;

    seal_page_will_change(volume, page, 0); /* if nobody has said so before */
    page->dirty[index / 64] |= UINT64_C(1) << (index % 64);
    if (page->is_dirty) {
        return;
    }
    page->is_dirty = true;
    if (UNLIKELY(!list_empty(&volume->changes))) {
        changes_add_page(volume, page->number);
    }
    if (!page->is_sealed) {
        cache->dirty_pages++;
    }
    list_push_back(&volume->dirty_pages, &page->dirty_link);
    volume->dirty_page_count++;
    seal_note_dirty(volume);
    /* Dirty pages cannot be evicted: keep them a minor part of the cache. */
    uint64_t page_bytes = sizeof(*page) + MAP_PAGE_ENTRIES * sizeof(struct map_entry);
    if (cache->dirty_pages % 16 == 0 && cache->dirty_pages * page_bytes > cache->bytes_max / 3) {
        seal_kick_all(volume->shard);
    }
}

/* ---- encoding the batch ---- */

static void
encode_pages(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;
    struct byte_buffer scratch = BYTE_BUFFER_INIT;

    for (struct list *link = list_pop_front(&volume->dirty_pages); link != NULL;
         link = list_pop_front(&volume->dirty_pages)) {
        struct map_page *page = list_entry(link, struct map_page, dirty_link);
        ASSERT(page->is_dirty && !page->is_sealed);
        page->version_before_seal = page->version;
        page->went_on = false;
        page->sealed_at = seal->bytes.length_bytes;
        encode_page(volume, page, &scratch, &seal->bytes);
        page->sealed_bytes = seal->bytes.length_bytes - page->sealed_at;
        memcpy(page->sealed, page->dirty, sizeof(page->sealed));
        memset(page->dirty, 0, sizeof(page->dirty));
        page->is_dirty = false;
        page->is_sealed = true;
        list_push_back(&seal->pages, &page->seal_link);
    }
    volume->dirty_page_count = 0;
    byte_buffer_free(&scratch);
}

static int
compare_grains(const void *left, const void *right)
{
    grain_address a = *(const grain_address *)left;
    grain_address b = *(const grain_address *)right;
    return a < b ? -1 : a > b;
}

/* Use bits of these grains, one merge an extent, runs of neighbours together. */
static void
encode_use_bits(struct volume *volume, struct byte_buffer *grains, bool used)
{
    const struct extent_table *table = &volume->pool->extents;
    grain_address *list = (grain_address *)(void *)grains->data;
    size_t count = grains->length_bytes / sizeof(*list);
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    size_t at = 0;

    if (count > 0) {
        qsort(list, count, sizeof(*list), compare_grains);
    }
    while (at < count) {
        uint64_t extent = grain_extent(table, list[at]);
        uint8_t key[EXTENT_KEY_BYTES];
        byte_buffer_clear(&operand);
        while (at < count && grain_extent(table, list[at]) == extent) {
            size_t end = at + 1;
            while (end < count && list[end] == list[end - 1] + 1 &&
                   grain_extent(table, list[end]) == extent) {
                end++;
            }
            extent_use_append(&operand, used, grain_index(table, list[at]), (uint32_t)(end - at));
            at = end;
        }
        extent_key_encode(key, extent);
        store_batch_merge(&volume->seal.bytes, STORE_FAMILY_EXTENT, key, sizeof(key), operand.data,
                          operand.length_bytes);
    }
    byte_buffer_free(&operand);
}

static void
swap_emptied(struct byte_buffer *to, struct byte_buffer *from)
{
    struct byte_buffer emptied = *to;

    *to = *from;
    *from = emptied;
    byte_buffer_clear(from);
}

static void
encode_batch(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    if (list_empty(&volume->dirty_pages) && volume->history.frozen.length_bytes == 0 &&
        !volume->history.branch_changed) {
        return;
    }
    seal->batch = volume->open_batch++;
    swap_emptied(&seal->bytes, &volume->history.frozen);
    seal->frozen_bytes = seal->bytes.length_bytes;
    encode_pages(volume);
    encode_use_bits(volume, &volume->allocated, true);
    encode_use_bits(volume, &volume->dropped, false);
    swap_emptied(&seal->allocated, &volume->allocated);
    swap_emptied(&seal->dropped, &volume->dropped);
    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        volume->journal_sealed[i] += volume->journal_open[i];
    }
    memset(volume->journal_open, 0, sizeof(volume->journal_open));
    struct branch_position position = {
        .batch = seal->batch,
        .mapped_grains = volume->mapped_grains,
    };
    schema_put_position(&seal->bytes, volume->branch.id, &position);
    volume_history_encode(volume, &seal->bytes);
}

/* ---- commit ---- */

static void
release_journal(struct volume *volume)
{
    for (uint32_t segment = 0; segment < JOURNAL_SEGMENTS; segment++) {
        uint32_t count = volume->journal_sealed[segment];
        if (count > 0) {
            ASSERT_OP(volume->journal_records, >=, count);
            volume->journal_records -= count;
            volume->journal_sealed[segment] = 0;
            journal_committed(&volume->shard->journal, segment, count);
        }
    }
}

static void
unseal_pages(struct volume *volume)
{
    struct map_cache *cache = &volume->shard->cache;

    for (struct list *link = list_pop_front(&volume->seal.pages); link != NULL;
         link = list_pop_front(&volume->seal.pages)) {
        struct map_page *page = list_entry(link, struct map_page, seal_link);
        ASSERT(page->is_sealed);
        page->is_sealed = false;
        memset(page->sealed, 0, sizeof(page->sealed));
        if (!page->is_dirty) {
            ASSERT_OP(cache->dirty_pages, >, 0u);
            cache->dirty_pages--;
        }
    }
}

/*
 * Has the page changed for a version above the one that was sealed, which therefore cannot be
 * encoded again? (S7)
 */
static bool
page_went_on(const struct volume *volume, const struct map_page *page)
{
    uint32_t sealed = page->version_before_seal.working;

    return page->went_on || sealed <= volume->frozen || page->version.previous >= sealed;
}

static void
unseal_page_uncommitted(struct volume *volume, struct map_page *page)
{
    uint32_t working = page->version.working; /* what was changed since may be stamped with it */

    page->is_sealed = false;
    if (!page_went_on(volume, page)) {
        page->version = page->version_before_seal;
        page->version.working = MAX(page->version.working, working);
    }
    for (uint32_t word = 0; word < MAP_PAGE_WORDS; word++) {
        page->dirty[word] |= page->sealed[word];
        page->sealed[word] = 0;
    }
    if (!page->is_dirty) {
        page->is_dirty = true;
        list_push_back(&volume->dirty_pages, &page->dirty_link);
        volume->dirty_page_count++;
    }
    seal_page_will_change(volume, page, 0);
}

/* S7: what goes first in the next batch, before what was encoded in the meantime. */
static void
unseal_bytes(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;
    struct byte_buffer *frozen = &volume->history.frozen;
    struct byte_buffer kept = BYTE_BUFFER_INIT;

    byte_buffer_append(&kept, seal->bytes.data, seal->frozen_bytes);
    list_for_each(&seal->pages, link) {
        const struct map_page *page = list_entry(link, struct map_page, seal_link);
        if (page_went_on(volume, page)) {
            byte_buffer_append(&kept, seal->bytes.data + page->sealed_at, page->sealed_bytes);
        }
    }
    if (kept.length_bytes == 0) {
        return;
    }
    byte_buffer_append(&kept, frozen->data, frozen->length_bytes);
    byte_buffer_free(frozen);
    *frozen = kept;
}

/* The batch will not be committed: what it held belongs to the open one again (S5). */
static void
unseal(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    unseal_bytes(volume);
    for (struct list *link = list_pop_front(&seal->pages); link != NULL;
         link = list_pop_front(&seal->pages)) {
        unseal_page_uncommitted(volume, list_entry(link, struct map_page, seal_link));
    }
    byte_buffer_append(&volume->allocated, seal->allocated.data, seal->allocated.length_bytes);
    byte_buffer_clear(&seal->allocated);
    byte_buffer_append(&volume->dropped, seal->dropped.data, seal->dropped.length_bytes);
    byte_buffer_clear(&seal->dropped);
    volume_history_unsealed(volume);
    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        volume->journal_open[i] += volume->journal_sealed[i];
        volume->journal_sealed[i] = 0;
    }
    unflushed_move(&volume->written, &seal->written, seal->disks);
    for (uint32_t i = 0; i < ARRAY_SIZE(seal->disks); i++) {
        volume->dirty_disks[i] |= seal->disks[i];
        seal->disks[i] = 0;
    }
    if (!volume->fenced && !volume->commit_failed) {
        seal_note_dirty(volume); /* tried again with the next commit interval */
    }
}

static void
batch_committed(struct io_op *op)
{
    struct commit_request *request = container_of(op, struct commit_request, op);
    struct volume_seal *seal = container_of(request, struct volume_seal, commit);
    struct volume *volume = container_of(seal, struct volume, seal);
    struct shard *shard = volume->shard;

    ASSERT_ON_REACTOR(shard->reactor);
    ASSERT(seal->phase == SEAL_COMMITTING);
    if (op->result < 0) {
        /* The pool is read-only now; what is in memory stays there and stays readable. */
        volume->commit_failed = true;
        seal_finish(volume, -EIO);
        return;
    }
    ASSERT_OP(seal->batch, >, volume->committed_batch);
    volume->committed_batch = seal->batch;
    release_journal(volume);
    unseal_pages(volume);
    byte_buffer_clear(&seal->allocated);
    grains_free_committed(shard, (const grain_address *)(const void *)seal->dropped.data,
                          (uint32_t)(seal->dropped.length_bytes / sizeof(grain_address)));
    byte_buffer_clear(&seal->dropped);
    seal_finish(volume, 0);
}

static void
seal_flushed(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    /* A good flush after a bad one proves nothing for data that the bad one lost (S5). */
    if (seal->status < 0 || volume->fenced) {
        unseal(volume);
        seal_finish(volume, -EIO);
        return;
    }
    unflushed_clear(&seal->written);
    memset(seal->disks, 0, sizeof(seal->disks));
    if (seal->bytes.length_bytes == 0) {
        seal_finish(volume, 0);
        return;
    }
    seal->phase = SEAL_COMMITTING;
    seal->commit.op.done = batch_committed;
    seal->commit.batch = &seal->bytes;
    committer_submit(volume->pool, &seal->commit);
}

/* A loss is reported by one FLUSH that fails. */
static void
answer_waiter(struct volume_request *request, int status)
{
    struct volume *volume = request->volume;

    if (request->operation == VOLUME_FLUSH && (status < 0 || volume->loss_to_report)) {
        volume->loss_to_report = false;
        volume->loss_told = true;
        status = status < 0 ? status : -EIO;
    }
    if (status < 0) {
        request_fail(request, status);
    }
}

static void
seal_finish(struct volume *volume, int status)
{
    struct volume_seal *seal = &volume->seal;
    struct list requests;

    seal->phase = SEAL_IDLE;
    volume->seals_failed = status < 0 ? volume->seals_failed + 1 : 0;
    if (status == 0 && seal->lifts_fence) {
        volume->journal_fenced = false;
        journal_lift_fence(&volume->shard->journal, volume->branch.id);
    }
    list_init(&requests);
    list_splice_back(&requests, &seal->requests);
    list_for_each(&requests, link) {
        answer_waiter(list_entry(link, struct volume_request, wait_link), status);
    }
    pipeline_resume_all(&requests);
    volume_history_sealed(volume, status);
    pipeline_resume_all(&volume->shard->seal_waiters);
    /* A failed seal is not tried again by itself: its cause does not go away. */
    if (seal_is_awaited(volume) ||
        (status == 0 && volume->seal_again && list_linked(&volume->shard_dirty_link))) {
        seal_kick(volume);
    }
    volume->seal_again = false;
}

/* ---- disk flushes ---- */

static void
volume_disk_flushed(struct disk_flush_waiter *waiter, int status)
{
    struct volume *volume = waiter->volume;
    struct volume_seal *seal = &volume->seal;

    ASSERT(seal->phase == SEAL_FLUSHING);
    uint32_t index = (uint32_t)(waiter - seal->disk_waiters);
    if (status < 0 && seal->status == 0) {
        seal->status = status;
    }
    if (status == 0 && !volume_loss_concerns(volume, index)) {
        seal->disks[index / 64] &= ~(UINT64_C(1) << (index % 64)); /* S6 */
    }
    ASSERT_OP(seal->disks_pending, >, 0u);
    if (--seal->disks_pending == 0) {
        seal_flushed(volume);
    }
}

static void
want_flushes(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;
    struct shard *shard = volume->shard;

    if (seal->disk_waiters_count < shard->disk_count) {
        free(seal->disk_waiters);
        seal->disk_waiters = calloc(shard->disk_count, sizeof(*seal->disk_waiters));
        ASSERT(seal->disk_waiters != NULL);
        seal->disk_waiters_count = shard->disk_count;
    }
    for (uint32_t word = 0; word * 64 < shard->disk_count; word++) {
        uint64_t bits = volume->dirty_disks[word];
        volume->dirty_disks[word] = 0;
        seal->disks[word] = bits;
        for (; bits != 0; bits &= bits - 1) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(bits);
            struct disk_flush_waiter *waiter = &seal->disk_waiters[index];
            waiter->volume = volume;
            waiter->flushed = volume_disk_flushed;
            seal->disks_pending++;
            disk_flush_want(shard->disks[index], waiter);
        }
    }
}

/* ---- starting ---- */

static void
seal_start(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    ASSERT(seal->phase == SEAL_IDLE);
    ASSERT(list_empty(&seal->requests));
    seal->phase = SEAL_FLUSHING;
    seal->began_ns = reactor_now_ns(volume->shard->reactor);
    seal->status = volume->fenced || volume->commit_failed ? -EIO : 0;
    seal->disks_pending = 0;
    seal->lifts_fence = volume->journal_fenced;
    ASSERT_OP(seal->written.count, ==, 0u);
    struct unflushed emptied = seal->written;
    seal->written = volume->written;
    volume->written = emptied;
    list_splice_back(&seal->requests, &volume->flush_requests);
    volume_history_sealing(volume);
    byte_buffer_clear(&seal->bytes);
    seal->frozen_bytes = 0;
    if (list_linked(&volume->shard_dirty_link)) {
        list_remove(&volume->shard_dirty_link);
    }
    if (seal->status == 0) {
        encode_batch(volume);
    }
    want_flushes(volume);
    if (seal->disks_pending == 0) {
        seal_flushed(volume);
    }
}

static void
seal_hook_run(struct pass_hook *hook)
{
    struct shard *shard = container_of(hook, struct shard, seal_hook);

    for (struct list *link = list_pop_front(&shard->seal_wanted); link != NULL;
         link = list_pop_front(&shard->seal_wanted)) {
        struct volume *volume = list_entry(link, struct volume, seal_wanted_link);
        if (volume->loss != NULL) {
            continue; /* with its marks: see loss_free() */
        }
        if (volume->seal.phase == SEAL_IDLE) {
            seal_start(volume);
        } else {
            volume->seal_again = true;
        }
    }
}

void
seal_kick(struct volume *volume)
{
    struct shard *shard = volume->shard;

    ASSERT_ON_REACTOR(shard->reactor);
    if (!list_linked(&volume->seal_wanted_link)) {
        list_push_back(&shard->seal_wanted, &volume->seal_wanted_link);
        reactor_end_of_pass(shard->reactor, &shard->seal_hook, seal_hook_run);
    }
}

void
seal_kick_all(struct shard *shard)
{
    list_for_each(&shard->dirty_volumes, link) {
        seal_kick(list_entry(link, struct volume, shard_dirty_link));
    }
}

void
seal_wait(struct volume *volume, struct volume_request *request)
{
    list_push_back(&volume->flush_requests, &request->wait_link);
    seal_kick(volume);
}

/* ---- journal pressure ---- */

/*
 * What is uncommitted must stay in the ring (J2), so volumes that wait for a late disk hold a part
 * of it for as long as that takes. Their part is bounded, and the rest is enough for the others:
 *
 *   a volume             a quarter
 *   all                  half; then
 *   those that wait      may not add to what they hold beyond a quarter
 *   those that do not    have a quarter for themselves in any case
 *
 * The records of those who wait lie anywhere between tail and head. The ring is cleaned as a log
 * is: what is still needed of the segment at the tail is logged again at the head, until a quarter
 * of the ring is free.
 */
enum {
    CLEAN_SEGMENTS_AT_ONCE = 8,
    LATE_FLUSH_MS = 100,
};

/* It will not commit before a disk has answered that should have by now, or is waiting anyway. */
static bool
waits_for_a_disk(const struct volume *volume)
{
    const struct shard *shard = volume->shard;
    uint64_t now_ns = reactor_now_ns(shard->reactor);

    if (volume->seal.phase == SEAL_FLUSHING) {
        return true;
    }
    for (uint32_t word = 0; word * 64 < shard->disk_count; word++) {
        for (uint64_t bits = volume->dirty_disks[word]; bits != 0; bits &= bits - 1) {
            const struct shard_disk *mine =
                shard->disks[word * 64 + (uint32_t)__builtin_ctzll(bits)];
            if (mine->flush_running &&
                now_ns - mine->flush_began_ns > LATE_FLUSH_MS * NS_PER_MS) {
                return true;
            }
        }
    }
    return false;
}

/* Records of volumes that wait for a disk. */
static uint64_t
records_waiting(const struct shard *shard)
{
    uint64_t records = 0;

    list_for_each(&shard->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, shard_link);
        if (volume->journal_records > 0 && waits_for_a_disk(volume)) {
            records += volume->journal_records;
        }
    }
    return records;
}

/* The entry that a record names, as it is now, if it is still uncommitted. */
static void
log_again(struct shard *shard, const struct journal_record *record)
{
    uint32_t index = (uint32_t)(record->volume_grain % MAP_PAGE_ENTRIES);
    struct map_page *page =
        map_cache_find(&shard->cache, record->branch, record->volume_grain / MAP_PAGE_ENTRIES);

    if (page == NULL || page->state != MAP_PAGE_READY ||
        ((page->dirty[index / 64] | page->sealed[index / 64]) >> (index % 64) & 1) == 0) {
        return;
    }
    struct volume *volume = page->volume;
    struct map_entry view = seal_stored_view(&page->entries[index]);
    /* It is a record of the open batch from now on, so the entry must be, too. */
    seal_entry_changed(volume, page, index);
    uint32_t segment = journal_append(&shard->journal, volume->branch.id, volume->open_batch,
                                      record->volume_grain, &view);
    volume->journal_open[segment]++;
    volume->journal_records++;
}

/* Nothing of this segment is needed any more. */
static void
forget_segment(struct shard *shard, uint32_t segment)
{
    uint32_t count = 0;

    list_for_each(&shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        uint32_t records = volume->journal_open[segment] + volume->journal_sealed[segment];
        volume->journal_open[segment] = 0;
        volume->journal_sealed[segment] = 0;
        ASSERT_OP(volume->journal_records, >=, records);
        volume->journal_records -= records;
        count += records;
    }
    journal_committed(&shard->journal, segment, count);
}

/* Log the needed records of the segment at the tail again; the tail moves behind it. */
static bool
clean_tail(struct shard *shard)
{
    struct journal *journal = &shard->journal;
    uint32_t segment = journal_tail_segment(journal);
    uint64_t end = journal_segment_end(journal);

    /* Not the segment that is being written, and there must be room for all of it. */
    if (end > journal->head || journal_free_records(journal) < journal->segment_records) {
        return false;
    }
    for (uint64_t sequence = journal->tail; sequence < end; sequence++) {
        struct journal_record record;
        if (journal_read(journal, sequence, &record) < 0) {
            return false; /* memory that others can write: leave it to the replay to complain */
        }
        log_again(shard, &record);
    }
    forget_segment(shard, segment);
    return true;
}

/* A little at a time, but so much that `records` fit. */
static void
clean_journal(struct shard *shard, uint32_t records)
{
    const struct journal *journal = &shard->journal;

    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        uint64_t free_records = journal_free_records(journal);
        if (free_records > journal->capacity / 4 ||
            (i >= CLEAN_SEGMENTS_AT_ONCE && free_records >= records + journal->segment_records) ||
            !clean_tail(shard)) {
            return;
        }
    }
}

/*
 * A batch that is larger than the commit ledger would never be committed. After a bump each page is
 * put as a whole when it is first changed. What a failed seal gives back comes on top.
 */
bool
seal_batch_has_room(struct volume *volume, const struct map_page *page)
{
    uint32_t max = __atomic_load_n(&volume->pool->batch_pages_max, __ATOMIC_RELAXED);

    if (page->is_dirty || max == 0 || volume->dirty_page_count < max) {
        return true;
    }
    seal_kick(volume);
    return false;
}

bool
seal_journal_has_room(struct volume *volume, uint32_t records)
{
    struct shard *shard = volume->shard;
    const struct journal *journal = &shard->journal;
    uint64_t limit = journal->capacity / 4;

    if (volume->journal_records + records > limit) {
        seal_kick(volume);
        return false;
    }
    if (LIKELY(journal->head - journal->tail + records <= journal->capacity / 2)) {
        return true;
    }
    seal_kick_all(shard);
    if (journal->uncommitted + records > journal->capacity / 2) {
        uint64_t waiting = records_waiting(shard);
        uint64_t sharers = waits_for_a_disk(volume) ? waiting : journal->uncommitted - waiting;
        if (sharers + records > limit) {
            return false;
        }
    }
    clean_journal(shard, records);
    return journal_free_records(journal) >= records;
}
