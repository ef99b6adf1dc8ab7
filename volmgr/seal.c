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
 *  S5  When a flush fails, what the volume wrote since the last good one may be lost: the volume is
 *      fenced (no I/O is answered with data) rather than showing bytes that may be wrong.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

static void seal_start(struct volume *volume);
static void seal_finish(struct volume *volume, int status);

struct map_entry
seal_stored_view(const struct map_entry *entry)
{
    struct map_entry view = *entry;

    if ((view.flags & MAP_ENTRY_FRESH) != 0) {
        ASSERT_OP(view.valid, ==, 0u);
        view.home = GRAIN_NONE;
        view.home_generation = 0;
        view.flags &= (uint16_t)~MAP_ENTRY_FRESH;
    }
    return view;
}

bool
seal_is_clean(const struct volume *volume)
{
    if (volume->seal.phase != SEAL_IDLE || !list_empty(&volume->dirty_pages)) {
        return false;
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(volume->dirty_disks); i++) {
        if (volume->dirty_disks[i] != 0) {
            return false;
        }
    }
    return true;
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

    if (list_linked(&volume->shard_dirty_link)) {
        return;
    }
    list_push_back(&shard->dirty_volumes, &volume->shard_dirty_link);
    if (!timer_is_armed(&shard->commit_timer) && !shard->stopping) {
        timer_arm(shard->reactor, &shard->commit_timer,
                  reactor_now_ns(shard->reactor) +
                      shard->pool->manager->options.commit_interval_ns,
                  commit_timer_expired);
    }
}

void
seal_entry_changed(struct volume *volume, struct map_page *page, uint32_t index)
{
    struct map_cache *cache = &volume->shard->cache;

    page->dirty[index / 64] |= UINT64_C(1) << (index % 64);
    if (page->is_dirty) {
        return;
    }
    page->is_dirty = true;
    if (!page->is_sealed) {
        cache->dirty_pages++;
    }
    list_push_back(&volume->dirty_pages, &page->dirty_link);
    seal_note_dirty(volume);
    /* Dirty pages cannot be evicted: keep them a minor part of the cache. */
    uint64_t page_bytes = sizeof(*page) + MAP_PAGE_ENTRIES * sizeof(struct map_entry);
    if (cache->dirty_pages % 16 == 0 && cache->dirty_pages * page_bytes > cache->bytes_max / 3) {
        seal_kick_all(volume->shard);
    }
}

/* ---- encoding the batch ---- */

static void
encode_page(struct volume *volume, struct map_page *page, struct byte_buffer *operand)
{
    struct volume_seal *seal = &volume->seal;
    uint8_t key[MAP_KEY_BYTES];

    byte_buffer_clear(operand);
    map_key_encode(key, volume->branch.id, page->number, volume->branch.current_generation);
    if (page->stored_generation == volume->branch.current_generation) {
        for (uint32_t word = 0; word < MAP_PAGE_WORDS; word++) {
            for (uint64_t bits = page->dirty[word]; bits != 0; bits &= bits - 1) {
                uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(bits);
                struct map_entry view = seal_stored_view(&page->entries[index]);
                map_delta_append(operand, index, &view);
            }
        }
        store_batch_merge(&seal->bytes, STORE_FAMILY_MAP, key, sizeof(key), operand->data,
                          operand->length_bytes);
        return;
    }
    /* The first change in this generation: the whole page, under the new generation. */
    struct map_entry *views = malloc(MAP_PAGE_ENTRIES * sizeof(*views));
    ASSERT(views != NULL);
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
        views[index] = seal_stored_view(&page->entries[index]);
    }
    map_page_encode(views, operand);
    free(views);
    store_batch_put(&seal->bytes, STORE_FAMILY_MAP, key, sizeof(key), operand->data,
                    operand->length_bytes);
    page->stored_generation = volume->branch.current_generation;
}

static void
encode_pages(struct volume *volume)
{
    struct byte_buffer operand = BYTE_BUFFER_INIT;

    for (struct list *link = list_pop_front(&volume->dirty_pages); link != NULL;
         link = list_pop_front(&volume->dirty_pages)) {
        struct map_page *page = list_entry(link, struct map_page, dirty_link);
        ASSERT(page->is_dirty && !page->is_sealed);
        encode_page(volume, page, &operand);
        memcpy(page->sealed, page->dirty, sizeof(page->sealed));
        memset(page->dirty, 0, sizeof(page->dirty));
        page->is_dirty = false;
        page->is_sealed = true;
        list_push_back(&volume->seal.pages, &page->seal_link);
    }
    byte_buffer_free(&operand);
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
encode_batch(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    if (list_empty(&volume->dirty_pages)) {
        return;
    }
    seal->batch = volume->open_batch++;
    encode_pages(volume);
    encode_use_bits(volume, &volume->allocated, true);
    encode_use_bits(volume, &volume->dropped, false);
    byte_buffer_clear(&volume->allocated);
    struct byte_buffer emptied = seal->dropped;
    seal->dropped = volume->dropped;
    volume->dropped = emptied;
    byte_buffer_clear(&volume->dropped);
    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        volume->journal_sealed[i] += volume->journal_open[i];
    }
    memset(volume->journal_open, 0, sizeof(volume->journal_open));
    struct branch_position position = {
        .batch = seal->batch,
        .mapped_grains = volume->mapped_grains,
    };
    schema_put_position(&seal->bytes, volume->branch.id, &position);
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
    grains_free_committed(shard, (const grain_address *)(const void *)seal->dropped.data,
                          (uint32_t)(seal->dropped.length_bytes / sizeof(grain_address)));
    byte_buffer_clear(&seal->dropped);
    seal_finish(volume, 0);
}

static void
seal_flushed(struct volume *volume)
{
    struct volume_seal *seal = &volume->seal;

    list_remove(&volume->sealing_link);
    /* A good flush after a bad one proves nothing for data that the bad one lost (S5). */
    if (seal->status < 0 || volume->fenced) {
        seal_finish(volume, -EIO);
        return;
    }
    if (seal->bytes.length_bytes == 0) {
        seal_finish(volume, 0);
        return;
    }
    seal->phase = SEAL_COMMITTING;
    seal->commit.op.done = batch_committed;
    seal->commit.batch = &seal->bytes;
    committer_submit(volume->pool, &seal->commit);
}

static void
seal_finish(struct volume *volume, int status)
{
    struct volume_seal *seal = &volume->seal;
    struct list requests;

    seal->phase = SEAL_IDLE;
    list_init(&requests);
    list_splice_back(&requests, &seal->requests);
    list_for_each(&requests, link) {
        struct volume_request *request = list_entry(link, struct volume_request, wait_link);
        if (status < 0 && request->status == 0) {
            request->status = status;
            request->has_failed = true;
        }
    }
    pipeline_resume_all(&requests);
    pipeline_resume_all(&volume->shard->seal_waiters);
    /* A failed seal is not tried again by itself: its cause does not go away. */
    if (!list_empty(&volume->flush_requests) ||
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
    if (status < 0 && seal->status == 0) {
        seal->status = status;
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
    seal->status = volume->fenced || volume->commit_failed ? -EIO : 0;
    seal->disks_pending = 0;
    list_splice_back(&seal->requests, &volume->flush_requests);
    byte_buffer_clear(&seal->bytes);
    list_push_back(&volume->shard->sealing_volumes, &volume->sealing_link);
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
 * A volume whose disk is late holds the journal's tail back. Log its entries again at the head, as
 * they are now, so that the old records are not needed and the ring moves on for its neighbours.
 */
static void
log_again(struct volume *volume)
{
    struct journal *journal = &volume->shard->journal;
    uint32_t old[JOURNAL_SEGMENTS];

    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        old[i] = volume->journal_open[i] + volume->journal_sealed[i];
    }
    memset(volume->journal_open, 0, sizeof(volume->journal_open));
    memset(volume->journal_sealed, 0, sizeof(volume->journal_sealed));
    volume->journal_records = 0;
    list_for_each(&volume->seal.pages, link) {
        struct map_page *page = list_entry(link, struct map_page, seal_link);
        for (uint32_t word = 0; word < MAP_PAGE_WORDS; word++) {
            for (uint64_t bits = page->sealed[word]; bits != 0; bits &= bits - 1) {
                seal_entry_changed(volume, page, word * 64 + (uint32_t)__builtin_ctzll(bits));
            }
        }
    }
    list_for_each(&volume->dirty_pages, link) {
        struct map_page *page = list_entry(link, struct map_page, dirty_link);
        for (uint32_t word = 0; word < MAP_PAGE_WORDS; word++) {
            for (uint64_t bits = page->dirty[word]; bits != 0; bits &= bits - 1) {
                uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(bits);
                struct map_entry view = seal_stored_view(&page->entries[index]);
                uint32_t segment =
                    journal_append(journal, volume->branch.id, volume->open_batch,
                                   page->number * MAP_PAGE_ENTRIES + index, &view);
                volume->journal_open[segment]++;
                volume->journal_records++;
            }
        }
    }
    for (uint32_t i = 0; i < JOURNAL_SEGMENTS; i++) {
        if (old[i] > 0) {
            journal_committed(journal, i, old[i]);
        }
    }
}

/* Move on the volumes that hold the tail, if their records fit behind the head. */
static void
relieve_journal(struct shard *shard)
{
    const struct journal *journal = &shard->journal;
    uint64_t tail_segment = journal->tail % journal->capacity / journal->segment_records;

    list_for_each_safe(&shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        if (volume->seal.phase == SEAL_FLUSHING &&
            volume->journal_open[tail_segment] + volume->journal_sealed[tail_segment] > 0 &&
            volume->journal_records <= journal_free_records(journal)) {
            log_again(volume);
        }
    }
}

/*
 * Volumes that wait for a disk may hold half of the ring together; then they wait for themselves.
 */
static bool
waiting_volumes_hold_half(const struct shard *shard)
{
    uint64_t records = 0;

    list_for_each(&shard->sealing_volumes, link) {
        records += list_entry(link, struct volume, sealing_link)->journal_records;
    }
    return records > shard->journal.capacity / 2;
}

bool
seal_journal_has_room(struct volume *volume, uint32_t records)
{
    struct shard *shard = volume->shard;
    struct journal *journal = &shard->journal;

    if (volume->journal_records + records > journal->capacity / 4) {
        seal_kick(volume);
        return false;
    }
    uint64_t free_records = journal_free_records(journal);
    if (LIKELY(free_records > journal->capacity / 2)) {
        return true;
    }
    seal_kick_all(shard);
    if (volume->seal.phase == SEAL_FLUSHING && waiting_volumes_hold_half(shard)) {
        return false;
    }
    if (free_records <= journal->capacity / 4) {
        relieve_journal(shard);
    }
    return journal_free_records(journal) >= records;
}
