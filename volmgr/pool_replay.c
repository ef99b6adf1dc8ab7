/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay: what the daemon had acknowledged and not committed when it died (P3).
 *
 * THEORY OF OPERATION
 *
 * The volatile journals of the last run hold every change of a map entry since the last commit of
 * its branch, whole new entries, in order. For each entry the last one counts. The stored page is
 * fetched, the entry replaced, and what follows for the use bits and the number of mapped grains is
 * worked out from the difference between the two. All disks have been flushed before, so that no
 * entry is committed whose data are not durable (P4).
 *
 * It is committed in pieces of whole pages. A piece holds the entries, the use bits and the number
 * of mapped grains, so that after a crash in the middle the rest can be done again; the branch's
 * position, which says that its records are done with, moves in the piece that has its last page.
 *
 * On a disk that may have lost what it had not flushed (a LUN that was reset, a disk that is
 * missing) the blocks that a record brought are not to be trusted: they are marked `damaged`, and
 * read as errors until they are rewritten. What was overwritten in place there is not known; it is
 * as it was or as it was to be, as after a power cut.
 *
 * When a flush before the replay fails it is not known which writes are lost: what was overwritten
 * in place has no record. The volumes concerned are fenced (pool_open_flush.c).
 *
 * Invariants
 *  Y1  Only records behind the branch's committed position are applied.
 *  Y2  Applying a piece twice gives the same.
 *  Y3  No page version is committed before the branch record whose generation covers it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "volmgr/map_cache_impl.h"
#include "volmgr/map_entry_impl.h"
#include "volmgr/map_lookup_impl.h"
#include "volmgr/pool_open_impl.h"

enum {
    PAGES_AT_ONCE = 64,
};
_Static_assert((int)RUN_RINGS_MAX == (int)REACTOR_COUNT_MAX, "one of each reactor");
_Static_assert(RUN_RINGS_MAX <= 64, "one bit of fenced_rings each");
_Static_assert((int)RUN_RING_BYTES_MIN >=
                   JOURNAL_HEADER_BYTES + JOURNAL_SEGMENTS * JOURNAL_RECORD_BYTES,
               "a record in each segment");

struct replay_page {
    struct pool_opening *opening;
    struct map_lookup lookup;
    size_t first_record; /* into replay->records */
    size_t record_count;
    int status;
};

struct pool_replay {
    struct pool_opening *opening;
    struct byte_buffer records; /* struct journal_record[] */
    struct byte_buffer fences;  /* le64[]: branches of which something was lost in the last run */
    uint64_t fenced_rings;      /* bit n: every branch of ring n */
    size_t next;                /* first record whose page has not been fetched */
    struct replay_page pages[PAGES_AT_ONCE];
    uint32_t page_count;
    struct map_entry entries[MAP_PAGE_ENTRIES];
    struct byte_buffer operand;
    struct byte_buffer used;    /* grain_address[]: of the piece */
    struct byte_buffer dropped;
    struct byte_buffer counts;  /* struct replay_count[]: of the piece */
    uint64_t applied;
    uint32_t fenced_volumes;
    uint64_t lost;  /* blocks on disks that may have lost them */
    bool ring_lost; /* a ring was not there, and that was accepted */
};

/* So many grains more, or less, are counted there. */
struct replay_count {
    struct history_counter counter;
    int64_t added;
};

MACHINE_DONE(replay_committed, struct pool_opening, commit.op)

struct pool_replay *
pool_replay_new(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool_replay *replay = calloc(1, sizeof(*replay));

    ASSERT(replay != NULL);
    replay->opening = opening;
    return replay;
}

void
pool_replay_free(struct pool_replay *replay)
{
    if (replay == NULL) {
        return;
    }
    for (uint32_t i = 0; i < PAGES_AT_ONCE; i++) {
        byte_buffer_free(&replay->pages[i].lookup.value);
    }
    byte_buffer_free(&replay->records);
    byte_buffer_free(&replay->fences);
    byte_buffer_free(&replay->operand);
    byte_buffer_free(&replay->used);
    byte_buffer_free(&replay->dropped);
    byte_buffer_free(&replay->counts);
    free(replay);
}

/* ---- reading the rings; on an offload thread ---- */

static int
ring_record(void *context, const struct journal_record *record)
{
    struct pool_replay *replay = context;

    byte_buffer_append(&replay->records, record, sizeof(*record));
    return 0;
}

/* This start has fenced every branch; those that it means, and those of before, are known. */
static void
fences_of_start(const struct pool_opening *opening, uint32_t ring, struct byte_buffer *ret_fences)
{
    byte_buffer_clear(ret_fences);
    if ((opening->rings_fenced_before >> ring & 1) != 0) {
        byte_buffer_append_le64(ret_fences, JOURNAL_FENCE_ALL);
    } else {
        byte_buffer_append(ret_fences, opening->fences.data, opening->fences.length_bytes);
    }
}

/* Keep what must be known on the control reactor. */
static void
note_fences(struct pool_replay *replay, uint32_t ring, const struct byte_buffer *fences)
{
    if (journal_is_fenced(fences, JOURNAL_FENCE_ALL)) {
        replay->fenced_rings |= UINT64_C(1) << ring;
    } else {
        byte_buffer_append(&replay->fences, fences->data, fences->length_bytes);
    }
}

/*
 * A disk lost writes in the last run, and it ended before it was durable which ones: what these
 * branches had not committed cannot be trusted.
 */
static void
drop_fenced(struct pool_replay *replay, size_t from_bytes, const struct byte_buffer *fences)
{
    struct journal_record *records = (struct journal_record *)(void *)replay->records.data;
    size_t count = replay->records.length_bytes / sizeof(*records);
    size_t kept = from_bytes / sizeof(*records);

    for (size_t i = kept; i < count; i++) {
        if (!journal_is_fenced(fences, records[i].branch)) {
            records[kept++] = records[i];
        }
    }
    replay->records.length_bytes = kept * sizeof(*records);
}

int32_t
pool_replay_read_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_opening *opening = container_of(own, struct pool_opening, job);
    const struct manager_options *options = &opening->machine.manager->options;
    struct pool_replay *replay = opening->replay;
    struct byte_buffer fences = BYTE_BUFFER_INIT;
    int result = 0;

    for (uint32_t i = 0; i < opening->last_run.ring_count && result == 0; i++) {
        struct journal_identity identity;
        size_t before = replay->records.length_bytes;
        struct error error = { 0 };
        pool_journal_identity(opening->pool, &opening->last_run, i, &identity);
        byte_buffer_clear(&fences);
        result = journal_replay(options->platform, &identity, opening->last_run.ring_bytes,
                                ring_record, replay, &fences, &error);
        if (result < 0 && options->accept_loss) {
            /* Nothing of a ring that cannot be trusted. */
            replay->records.length_bytes = before;
            replay->ring_lost = true;
            result = 0;
        } else if (result < 0) {
            opening->job_error = error;
        } else {
            if (opening->fenced_rings) {
                fences_of_start(opening, i, &fences);
            }
            drop_fenced(replay, before, &fences);
            note_fences(replay, i, &fences);
        }
    }
    byte_buffer_free(&fences);
    return result;
}

int32_t
pool_replay_remove_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_opening *opening = container_of(own, struct pool_opening, job);

    for (uint32_t i = 0; i < opening->last_run.ring_count; i++) {
        struct journal_identity identity;
        pool_journal_identity(opening->pool, &opening->last_run, i, &identity);
        journal_remove(opening->machine.manager->options.platform, &identity);
    }
    return 0;
}

/* ---- order ---- */

static int
compare_records(const void *left, const void *right)
{
    const struct journal_record *a = left;
    const struct journal_record *b = right;

    if (a->branch != b->branch) {
        return a->branch < b->branch ? -1 : 1;
    }
    if (a->volume_grain != b->volume_grain) {
        return a->volume_grain < b->volume_grain ? -1 : 1;
    }
    /* A branch writes to one ring, so its records are in order of their numbers. */
    return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}

/* They answer no I/O until an administrator accepts that something of them is lost. */
static void
fence_volumes(struct pool_replay *replay)
{
    const struct pool_opening *opening = replay->opening;

    if (opening->machine.manager->options.accept_loss ||
        (replay->fenced_rings == 0 && replay->fences.length_bytes == 0)) {
        return;
    }
    list_for_each(&opening->pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        uint64_t ring = pool_shard_index(&volume->branch, opening->last_run.ring_count);
        if (!volume->durable.deleting &&
            ((replay->fenced_rings >> ring & 1) != 0 ||
             journal_is_fenced(&replay->fences, volume->branch.id))) {
            volume->fenced = true;
            volume->durable.fenced = true; /* committed with the start, before the rings go */
            replay->fenced_volumes++;
        }
    }
}

void
pool_replay_sort(struct pool_replay *replay)
{
    ASSERT_ON_REACTOR(replay->opening->machine.manager->control);
    fence_volumes(replay);
    struct pool *pool = replay->opening->pool;
    struct journal_record *records = (struct journal_record *)(void *)replay->records.data;
    size_t count = replay->records.length_bytes / sizeof(*records);
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        struct volume *volume = pool_find_volume_by_branch(pool, records[i].branch);
        if (volume == NULL || volume->durable.deleting ||
            records[i].batch <= volume->committed_batch) {
            continue; /* Y1; what was given up by a rollback has no head */
        }
        const struct map_entry *entry = &records[i].entry;
        pool_load_raise(replay->opening, volume,
                        MAX(entry->home_generation, entry->base_generation));
        records[kept++] = records[i];
    }
    if (kept > 0) {
        qsort(records, kept, sizeof(*records), compare_records);
    }
    replay->records.length_bytes = kept * sizeof(*records);
    replay->next = 0;
}

bool
pool_replay_has_more(const struct pool_replay *replay)
{
    return replay->next * sizeof(struct journal_record) < replay->records.length_bytes;
}

/* ---- fetching pages ---- */

static const struct journal_record *
record_at(const struct pool_replay *replay, size_t index)
{
    ASSERT_OP(index * sizeof(struct journal_record), <, replay->records.length_bytes);
    return (const struct journal_record *)(const void *)replay->records.data + index;
}

static void
page_fetched(struct io_op *op)
{
    struct map_lookup *lookup = container_of(op, struct map_lookup, op);
    struct replay_page *page = container_of(lookup, struct replay_page, lookup);

    page->status = op->result;
    machine_completed(&page->opening->machine, 0);
}

static void
fetch_page(struct pool_replay *replay, struct replay_page *page)
{
    struct pool_opening *opening = replay->opening;
    const struct journal_record *first = record_at(replay, page->first_record);
    const struct volume *volume = pool_find_volume_by_branch(opening->pool, first->branch);

    ASSERT(volume != NULL);
    page->opening = opening;
    page->lookup.store = opening->pool->store;
    page->lookup.chain = volume->chain;
    page->lookup.newest = (uint32_t)volume->branch.current_generation;
    page->lookup.wants_previous = true;
    page->lookup.page = first->volume_grain / MAP_PAGE_ENTRIES;
    machine_arm(&opening->machine, &page->lookup.op, page_fetched);
    map_lookup(&page->lookup);
}

enum machine_step
pool_replay_fetch(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool_replay *replay = opening->replay;
    size_t count = replay->records.length_bytes / sizeof(struct journal_record);

    replay->page_count = 0;
    while (replay->next < count && replay->page_count < PAGES_AT_ONCE) {
        struct replay_page *page = &replay->pages[replay->page_count++];
        const struct journal_record *first = record_at(replay, replay->next);
        page->first_record = replay->next;
        while (replay->next < count) {
            const struct journal_record *record = record_at(replay, replay->next);
            if (record->branch != first->branch || record->volume_grain / MAP_PAGE_ENTRIES !=
                                                       first->volume_grain / MAP_PAGE_ENTRIES) {
                break;
            }
            replay->next++;
        }
        page->record_count = replay->next - page->first_record;
        fetch_page(replay, page);
    }
    return machine_wait(&opening->machine);
}

/* ---- one entry ---- */

static bool
names(const struct map_entry *entry, grain_address grain)
{
    return entry->home == grain || entry->base == grain;
}

static struct extent *
extent_of(const struct pool *pool, grain_address grain)
{
    struct extent *extent =
        extent_table_find(&pool->extents, grain_extent(&pool->extents, grain));
    return extent != NULL && extent->state == EXTENT_STATE_DATA ? extent : NULL;
}

/* May the disk of this grain have lost what it had not flushed? */
static bool
may_be_lost(const struct pool *pool, const struct extent *extent)
{
    const struct disk *disk = pool_disk(pool, extent->places[0].disk);
    return disk->backend == NULL || !disk->backend->properties.kept_unflushed;
}

/* As volume_count_grains() does for the head: see branch_is_counted(). */
static void
count_grain(struct pool_replay *replay, const struct volume *volume, uint64_t branch,
            uint32_t birth, uint32_t death, int64_t added)
{
    struct replay_count *counts = (struct replay_count *)(void *)replay->counts.data;
    size_t count = replay->counts.length_bytes / sizeof(*counts);

    if (!branch_is_counted(&volume->branch)) {
        return;
    }
    for (size_t i = count; i > 0; i--) {
        struct replay_count *known = &counts[i - 1];
        if (known->counter.branch == branch && known->counter.birth == birth &&
            known->counter.death == death) {
            known->added += added;
            return;
        }
    }
    struct replay_count added_count = {
        .counter = { .branch = branch, .death = death, .birth = birth },
        .added = added,
    };
    byte_buffer_append(&replay->counts, &added_count, sizeof(added_count));
}

/* 0, or -EUCLEAN when the grain is used by something else already. */
static int
take_grain(struct pool_replay *replay, struct volume *volume, grain_address grain,
           uint32_t generation)
{
    const struct extent_table *table = &replay->opening->pool->extents;
    struct extent *extent = extent_of(replay->opening->pool, grain);
    uint32_t index = grain_index(table, grain);
    uint64_t bit = UINT64_C(1) << (index % 64);

    if ((extent->used[index / 64] & bit) != 0) {
        return -EUCLEAN;
    }
    extent->used[index / 64] |= bit;
    extent->free_count--;
    volume->mapped_grains++;
    count_grain(replay, volume, volume->branch.id, generation, HISTORY_FOREVER, 1);
    byte_buffer_append(&replay->used, &grain, sizeof(grain));
    return 0;
}

static void
drop_grain(struct pool_replay *replay, struct volume *volume, grain_address grain,
           uint32_t generation, const struct map_version *version)
{
    const struct extent_table *table = &replay->opening->pool->extents;
    struct extent *extent = extent_of(replay->opening->pool, grain);
    uint32_t index = grain_index(table, grain);
    uint64_t bit = UINT64_C(1) << (index % 64);

    if (extent == NULL || (extent->used[index / 64] & bit) == 0) {
        return;
    }
    volume->mapped_grains -= MIN(volume->mapped_grains, UINT64_C(1));
    if (generation <= volume->owned_above || !map_version_frees(version, generation)) {
        /* An older version of the page names it, too, and it dies with that; or it is inherited. */
        count_grain(replay, volume, volume->branch.id, generation, version->working, 1);
        return;
    }
    count_grain(replay, volume, view_chain_branch(volume->chain, generation), generation,
                HISTORY_FOREVER, -1);
    extent->used[index / 64] &= ~bit;
    extent->free_count++;
    byte_buffer_append(&replay->dropped, &grain, sizeof(grain));
}

/* Blocks of the new entry where the old one had none, on a disk that may have lost them. */
static uint16_t
lost_blocks(const struct pool *pool, const struct map_entry *old, const struct map_entry *replayed)
{
    struct map_entry_sources now = map_entry_resolve(replayed, UINT16_MAX);
    struct map_entry_sources before = map_entry_resolve(old, UINT16_MAX);
    uint16_t whole = (uint16_t)~old->damaged; /* what was rewritten since may be lost again */
    uint16_t lost = 0;

    if (replayed->home != GRAIN_NONE && may_be_lost(pool, extent_of(pool, replayed->home))) {
        lost |= now.home & (uint16_t)~(old->home == replayed->home ? before.home & whole : 0);
    }
    if (replayed->base != GRAIN_NONE && may_be_lost(pool, extent_of(pool, replayed->base))) {
        uint16_t same = 0;
        same |= old->base == replayed->base ? before.base & whole : 0;
        same |= old->home == replayed->base ? before.home & whole : 0;
        lost |= now.base & (uint16_t)~same;
    }
    return lost;
}

/* 1: changed; 0: nothing to do; -EUCLEAN. */
static int
apply_entry(struct pool_replay *replay, struct volume *volume, struct map_entry *entry,
            const struct map_entry *replayed, const struct map_version *version)
{
    const struct pool *pool = replay->opening->pool;
    const grain_address fresh[2] = { replayed->home, replayed->base };
    const uint32_t births[2] = { replayed->home_generation, replayed->base_generation };
    struct map_entry old = *entry;

    if (memcmp(&old, replayed, sizeof(old)) == 0) {
        return 0;
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (fresh[i] == GRAIN_NONE) {
            continue;
        }
        if (extent_of(pool, fresh[i]) == NULL) {
            return -EUCLEAN;
        }
    }
    uint16_t lost = lost_blocks(pool, &old, replayed);
    for (uint32_t i = 0; i < 2; i++) {
        if (fresh[i] != GRAIN_NONE && !names(&old, fresh[i]) &&
            take_grain(replay, volume, fresh[i], births[i]) < 0) {
            return -EUCLEAN;
        }
    }
    if (old.home != GRAIN_NONE && !names(replayed, old.home)) {
        drop_grain(replay, volume, old.home, old.home_generation, version);
    }
    if (old.base != GRAIN_NONE && !names(replayed, old.base)) {
        drop_grain(replay, volume, old.base, old.base_generation, version);
    }
    *entry = *replayed;
    if (map_entry_lost(entry, lost)) {
        replay->lost += (uint32_t)__builtin_popcount(lost);
    }
    replay->applied++;
    return 1;
}

/* ---- one page ---- */

static int
page_decode(struct pool_replay *replay, const struct replay_page *page,
            struct map_version *ret_version)
{
    uint32_t used = 0;

    memset(replay->entries, 0, sizeof(replay->entries));
    map_version_loaded(ret_version, 0, 0);
    if (page->status < 0) {
        return page->status;
    }
    map_version_loaded(ret_version, page->lookup.ret_version, page->lookup.ret_previous);
    if (page->lookup.value.length_bytes == 0) {
        return 0;
    }
    return map_page_decode(page->lookup.value.data, page->lookup.value.length_bytes,
                           replay->entries, &used);
}

static int
apply_page(struct pool_replay *replay, const struct replay_page *page)
{
    struct pool_opening *opening = replay->opening;
    const struct journal_record *first = record_at(replay, page->first_record);
    struct volume *volume = pool_find_volume_by_branch(opening->pool, first->branch);
    uint64_t number = first->volume_grain / MAP_PAGE_ENTRIES;
    uint8_t key[MAP_KEY_BYTES];
    struct map_version version;
    bool changed = false;

    int result = page_decode(replay, page, &version);
    byte_buffer_clear(&replay->operand);
    if (result == 0) {
        map_version_change(&version, volume->frozen, (uint32_t)volume->branch.current_generation);
    }
    for (size_t i = 0; result == 0 && i < page->record_count; i++) {
        const struct journal_record *record = record_at(replay, page->first_record + i);
        if (i + 1 < page->record_count &&
            record_at(replay, page->first_record + i + 1)->volume_grain == record->volume_grain) {
            continue; /* a later one counts */
        }
        uint32_t index = (uint32_t)(record->volume_grain % MAP_PAGE_ENTRIES);
        int applied =
            apply_entry(replay, volume, &replay->entries[index], &record->entry, &version);
        if (applied < 0) {
            return applied;
        }
        if (applied > 0) {
            map_delta_append(&replay->operand, index, &replay->entries[index]);
            changed = true;
        }
    }
    if (result < 0 || !changed) {
        return result;
    }
    if (!map_version_is_new(&version)) {
        map_key_encode(key, first->branch, number, version.working);
        store_batch_merge(&opening->batch, STORE_FAMILY_MAP, key, sizeof(key),
                          replay->operand.data, replay->operand.length_bytes);
        return 0;
    }
    byte_buffer_clear(&replay->operand);
    map_page_encode(replay->entries, &replay->operand);
    seal_put_version(&opening->batch, volume, number, &version, &replay->operand);
    return 0;
}

/* ---- one piece ---- */

/* The branch of page `at` of the piece: its position, moved if this was its last page. */
static void
put_position(struct pool_replay *replay, uint32_t at)
{
    struct pool_opening *opening = replay->opening;
    const struct replay_page *page = &replay->pages[at];
    uint64_t branch = record_at(replay, page->first_record)->branch;
    size_t count = replay->records.length_bytes / sizeof(struct journal_record);
    size_t next = page->first_record + page->record_count;

    if (at + 1 < replay->page_count &&
        record_at(replay, replay->pages[at + 1].first_record)->branch == branch) {
        return; /* with its last page of the piece */
    }
    struct volume *volume = pool_find_volume_by_branch(opening->pool, branch);
    if (next == count || record_at(replay, next)->branch != branch) {
        size_t i = next;
        uint64_t batch = volume->committed_batch;
        while (i > 0 && record_at(replay, i - 1)->branch == branch) {
            i--;
            batch = MAX(batch, record_at(replay, i)->batch);
        }
        volume->committed_batch = batch;
        volume->open_batch = batch + 1;
    }
    struct branch_position position = {
        .batch = volume->committed_batch,
        .mapped_grains = volume->mapped_grains,
    };
    schema_put_position(&opening->batch, branch, &position);
}

enum machine_step
pool_replay_commit(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct machine *machine = &opening->machine;
    struct pool_replay *replay = opening->replay;
    const struct extent_table *table = &opening->pool->extents;

    byte_buffer_clear(&opening->batch);
    pool_load_put_first(opening);
    byte_buffer_clear(&replay->counts);
    byte_buffer_clear(&replay->used);
    byte_buffer_clear(&replay->dropped);
    for (uint32_t i = 0; i < replay->page_count; i++) {
        int result = apply_page(replay, &replay->pages[i]);
        if (result < 0) {
            return machine_fail(machine, result,
                                "the volatile journal and the database contradict each other");
        }
        put_position(replay, i);
    }
    const struct replay_count *counts =
        (const struct replay_count *)(const void *)replay->counts.data;
    for (size_t i = 0; i < replay->counts.length_bytes / sizeof(*counts); i++) {
        if (counts[i].added != 0) {
            schema_add_counter(&opening->batch, &counts[i].counter, counts[i].added);
        }
    }
    batch_append_use_bits(&opening->batch, table,
                          (grain_address *)(void *)replay->dropped.data,
                          replay->dropped.length_bytes / sizeof(grain_address), false);
    batch_append_use_bits(&opening->batch, table, (grain_address *)(void *)replay->used.data,
                          replay->used.length_bytes / sizeof(grain_address), true);
    opening->commit.batch = &opening->batch;
    opening->commit.urgent = true; /* checkpoints make room once the pool serves */
    machine_arm(machine, &opening->commit.op, replay_committed);
    committer_submit(opening->pool, &opening->commit);
    return machine_wait(machine);
}

void
pool_replay_report(const struct pool_replay *replay)
{
    ASSERT_ON_REACTOR(replay->opening->machine.manager->control);
    struct pool *pool = replay->opening->pool;

    if (replay->ring_lost) {
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "unflushed-writes-lost",
                    "the volatile journal was gone or damaged: writes that were not flushed are "
                    "lost, as after a power cut (--accept-loss)");
    }
    if (replay->lost > 0) {
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "unflushed-writes-lost",
                    "%llu KiB that volumes had written and not flushed lie on disks that are "
                    "missing or may have been reset: they read as errors until they are rewritten",
                    (unsigned long long)replay->lost * BLOCK_BYTES / 1024);
    }
    if (replay->fenced_volumes > 0) {
        event_raise(pool->manager, EVENT_CRITICAL, pool->name, NULL, "volumes-fenced",
                    "%u volumes answer no I/O: a disk lost writes of theirs in the last run, which "
                    "ended before it was recorded which ones; `volctl list` shows them, `volctl "
                    "accept-loss` makes one serve what the disks kept, as after a power cut",
                    replay->fenced_volumes);
    }
    if (replay->applied > 0) {
        event_raise(pool->manager, EVENT_INFO, pool->name, NULL, "replayed",
                    "%llu map entries were brought back from the volatile journal",
                    (unsigned long long)replay->applied);
    }
}
