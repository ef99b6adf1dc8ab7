/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeing the space of a deleted volume, in the background.
 *
 * THEORY OF OPERATION
 *
 * The stored pages of its map are read in pieces; one commit removes a piece and clears the use
 * bits of its grains, and only then may the grains be used again (P4). So the work can stop
 * anywhere and is continued at the next open. When no page is left, its history goes in the same
 * way, then the extents that it owned go back to the pool, and at last its records are deleted.
 *
 * The versions of a page come one after the other, oldest first, and each frees what the next one
 * does not name, so a grain that several of them name is freed once. This is for volumes of which
 * there is no snapshot any more, and that were made from none; reclaim.c works for the others.
 *
 * The work leaves hosts their share: some volumes of a pool are erased at a time and the others
 * wait in line, a step on the control reactor looks at a bounded number of pages, and between two
 * pieces it rests as long as the piece took, unless the pool is nearly full.
 *
 * An extent that keeps a use bit although no page is left would never go back: a page that could
 * not be decoded, or a mistake of the past. Then every map of the pool is looked through; when none
 * names a grain of these extents, they go back all the same, and an event says so.
 *
 * Invariants
 *  E1  A grain is freed only after the commit that removed the page that names it (P4).
 *  E2  The volume's records are removed only when it owns no extent and has no page and no history.
 *  E3  Wherever it stops, the next open begins it again, and it ends the same.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "volmgr/control_impl.h"
#include "volmgr/dead_versions_impl.h"
#include "volmgr/reclaim_impl.h"

#define VOLUME_ERASE_PHASES(X)                                                                     \
    X(AWAIT_RECLAIM)                                                                               \
    X(AWAIT_TURN)                                                                                  \
    X(FORGET_CACHED)                                                                               \
    X(SCAN)                                                                                        \
    X(COLLECT)                                                                                     \
    X(REMOVE_PAGES)                                                                                \
    X(FREE_GRAINS)                                                                                 \
    X(NEXT_PIECE)                                                                                  \
    X(SHED_EXTENTS)                                                                                \
    X(AWAIT_EXTENTS)                                                                               \
    X(FIND_STRAYS)                                                                                 \
    X(FILTER_STRAYS)                                                                               \
    X(SCAN_MAPS)                                                                                   \
    X(LOOK_AT_MAPS)                                                                                \
    X(FREE_STRAYS)                                                                                 \
    X(REMOVE_RECORDS)                                                                              \
    X(UNLINK)                                                                                      \
    X(RELEASE)                                                                                     \
    X(END)

enum volume_erase_phase {
#define PHASE_ENUM(name) ERASE_##name,
    VOLUME_ERASE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    ERASE_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    VOLUME_ERASE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == ERASE_PHASE_COUNT, "a name for each phase");

enum {
    PIECE_BYTES = 64 << 10,   /* of stored pages: at most some thousand grains a commit */
    PAGES_AT_ONCE = 32,       /* in one step on the control reactor */
    EXTENTS_AT_ONCE = 4096,   /* likewise */
    ERASURES_AT_ONCE = 2,     /* volumes of a pool */
    STEP_PAUSE_NS = 20000,    /* between two steps: others on the reactor have their turn */
    SCAN_MAPS_BYTES = 256 << 10,
};
#define REST_NS_MIN       (1 * NS_PER_MS)   /* between two pieces */
#define REST_NS_MAX       (100 * NS_PER_MS)
#define EXTENTS_PATIENCE_NS (3 * NS_PER_S) /* none goes back for so long: strays are sought */

/* What is stored of a branch, in the order in which it goes. */
static const struct {
    enum store_family family;
    uint8_t type; /* of HISTORY: first byte of the keys */
} STORED[] = {
    { STORE_FAMILY_MAP, 0 },
    { STORE_FAMILY_HISTORY, HISTORY_LINK },
    { STORE_FAMILY_HISTORY, HISTORY_COUNTER },
};

struct volume_erasure {
    struct machine machine;
    struct list link; /* pool->erasures */
    struct pool *pool;
    struct volume *volume;
    struct job *job;
    uint64_t mapped_at_start;
    uint64_t mapped_grains; /* still; rewritten by each commit */
    uint32_t stored_next; /* of STORED: what is being removed now */
    struct store_scan scan;
    size_t scan_position;      /* pages before it have been collected */
    struct map_entry *entries;       /* of one page version */
    struct map_entry *newer_entries; /* of the next one of that page */
    bool newer_is_decoded;           /* and it is the next item */
    struct dead_grain *dead;   /* of one version */
    struct byte_buffer grains; /* grain_address[]: of this piece */
    struct byte_buffer batch;
    struct commit_request commit;
    struct round round;
    struct machine_pause pause;
    struct message wake; /* its turn has come */
    bool has_turn;
    bool waits_for_turn;
    uint64_t piece_began_ns;
    /* Extents that do not go back. */
    uint64_t extents_left;        /* when last looked at */
    uint64_t extents_changed_ns;  /* when that number was last another */
    uint64_t next_extent;         /* where the search goes on */
    struct byte_buffer strays;    /* uint64_t[]: extents, ascending */
    bool searched;                /* once is enough: what is freed then does go back */
};

MACHINE_DONE(scan_done, struct volume_erasure, scan.op)
MACHINE_DONE(commit_done, struct volume_erasure, commit.op)

/* ---- use bits ---- */

static int
compare_grains(const void *left, const void *right)
{
    grain_address a = *(const grain_address *)left;
    grain_address b = *(const grain_address *)right;
    return a < b ? -1 : a > b;
}

void
batch_append_use_bits(struct byte_buffer *batch, const struct extent_table *table,
                      grain_address *grains, size_t count, bool used)
{
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    size_t at = 0;

    if (count > 0) {
        qsort(grains, count, sizeof(*grains), compare_grains);
    }
    while (at < count) {
        uint64_t extent = grain_extent(table, grains[at]);
        uint8_t key[EXTENT_KEY_BYTES];
        byte_buffer_clear(&operand);
        while (at < count && grain_extent(table, grains[at]) == extent) {
            size_t end = at + 1;
            while (end < count && grains[end] == grains[end - 1] + 1 &&
                   grain_extent(table, grains[end]) == extent) {
                end++;
            }
            extent_use_append(&operand, used, grain_index(table, grains[at]),
                              (uint32_t)(end - at));
            at = end;
        }
        extent_key_encode(key, extent);
        store_batch_merge(batch, STORE_FAMILY_EXTENT, key, sizeof(key), operand.data,
                          operand.length_bytes);
    }
    byte_buffer_free(&operand);
}

/* ---- on the volume's reactor ---- */

static enum machine_step
forget_visit(struct round_stop *stop)
{
    struct volume_erasure *erasure = container_of(stop->round, struct volume_erasure, round);
    struct volume *volume = erasure->volume;

    ASSERT(!volume->serving && list_empty(&volume->sessions));
    map_cache_forget(&volume->shard->cache, volume);
    erasure->mapped_grains = volume->mapped_grains;
    return MACHINE_NEXT;
}

static enum machine_step
free_visit(struct round_stop *stop)
{
    struct volume_erasure *erasure = container_of(stop->round, struct volume_erasure, round);
    struct volume *volume = erasure->volume;

    volume->mapped_grains = erasure->mapped_grains;
    grains_free_committed(volume->shard,
                          (const grain_address *)(const void *)erasure->grains.data,
                          (uint32_t)(erasure->grains.length_bytes / sizeof(grain_address)));
    return MACHINE_NEXT;
}

static enum machine_step
shed_visit(struct round_stop *stop)
{
    struct volume_erasure *erasure = container_of(stop->round, struct volume_erasure, round);

    grain_source_shed(&erasure->volume->source);
    return MACHINE_NEXT;
}

static enum machine_step
unlink_visit(struct round_stop *stop)
{
    struct volume_erasure *erasure = container_of(stop->round, struct volume_erasure, round);
    struct volume *volume = erasure->volume;

    if (volume->shard->index == stop->index) {
        list_remove(&volume->shard_link);
    }
    return MACHINE_NEXT; /* on the others: a grace period (V2) */
}

/* ---- taking turns ---- */

static void
turn_has_come(struct message *message)
{
    struct volume_erasure *erasure = container_of(message, struct volume_erasure, wake);
    machine_completed(&erasure->machine, 0);
}

/* By message: thousands that are cancelled one after the other must not nest. */
static void
pass_turn_on(struct pool *pool)
{
    uint32_t running = 0;

    list_for_each(&pool->erasures, link) {
        running += list_entry(link, struct volume_erasure, link)->has_turn ? 1 : 0;
    }
    list_for_each(&pool->erasures, link) {
        struct volume_erasure *next = list_entry(link, struct volume_erasure, link);
        if (running >= ERASURES_AT_ONCE) {
            return;
        }
        if (next->waits_for_turn) {
            next->waits_for_turn = false;
            next->has_turn = true;
            running++;
            reactor_send(pool->manager->control, &next->wake, turn_has_come);
        }
    }
}

static enum machine_step
await_turn(struct volume_erasure *erasure)
{
    erasure->waits_for_turn = true;
    erasure->machine.pending++;
    pass_turn_on(erasure->pool);
    return MACHINE_WAIT;
}

/* Go on with `phase`, after the others on this reactor. */
static enum machine_step
step_later(struct volume_erasure *erasure, enum volume_erase_phase phase, uint64_t delay_ns)
{
    machine_goto(&erasure->machine, phase);
    machine_pause(&erasure->machine, &erasure->pause, delay_ns);
    return machine_wait(&erasure->machine);
}

static bool
must_stop(const struct volume_erasure *erasure)
{
    return erasure->pool->stopping || erasure->pool->committer.broken;
}

static enum machine_step
stop_for_now(struct volume_erasure *erasure)
{
    return machine_fail(&erasure->machine, -ECANCELED, "goes on at the next start");
}

/* Somebody may be freeing what its last snapshots have left. */
static enum machine_step
await_reclaim(struct volume_erasure *erasure)
{
    const struct pool *pool = erasure->pool;
    const struct pool_branch *branch = pool_find_branch(pool, erasure->volume->branch.id);

    if (must_stop(erasure)) {
        return stop_for_now(erasure);
    }
    /* Children have ended as well, and leave when their extents have gone back. */
    if (branch->lineage->children > 0 || reclaim_needs_branch(pool, branch)) {
        return step_later(erasure, ERASE_AWAIT_RECLAIM, CONTROL_POLL_NS);
    }
    return MACHINE_NEXT;
}

/* ---- pieces of the map ---- */

static enum machine_step
scan(struct volume_erasure *erasure)
{
    struct store_scan *scan = &erasure->scan;
    struct manager *manager = erasure->machine.manager;

    if (must_stop(erasure)) {
        return stop_for_now(erasure);
    }
    if (erasure->mapped_at_start == 0) {
        erasure->mapped_at_start = erasure->mapped_grains;
    }
    erasure->piece_began_ns = reactor_now_ns(manager->control);
    erasure->scan_position = 0;
    scan->family = STORED[erasure->stored_next].family;
    scan->prefix_bytes = 0;
    if (scan->family == STORE_FAMILY_HISTORY) {
        scan->prefix[scan->prefix_bytes++] = STORED[erasure->stored_next].type;
    }
    put_be64(scan->prefix + scan->prefix_bytes, erasure->volume->branch.id);
    scan->prefix_bytes += (uint32_t)sizeof(uint64_t);
    scan->bytes_max = PIECE_BYTES;
    byte_buffer_clear(&scan->items);
    byte_buffer_clear(&erasure->grains);
    byte_buffer_clear(&erasure->batch);
    machine_arm(&erasure->machine, &scan->op, scan_done);
    store_scan(erasure->pool->store, scan);
    return machine_wait(&erasure->machine);
}

/* A grain of this branch's own (not inherited): does the address map know it? */
static void
collect_grain(struct volume_erasure *erasure, grain_address grain)
{
    const struct extent_table *table = &erasure->pool->extents;
    const struct extent *extent = extent_table_find(table, grain_extent(table, grain));

    if (extent == NULL || extent->state != EXTENT_STATE_DATA) {
        log_error("control", "%s: the map of a deleted volume names grain %llu, which is nowhere",
                  erasure->pool->name, (unsigned long long)grain);
        return;
    }
    byte_buffer_append(&erasure->grains, &grain, sizeof(grain));
}

/* A page that cannot be decoded goes, too; what it named is found as stray extents. */
static bool
decode_version(const struct volume_erasure *erasure, const struct store_batch_item *item,
               struct map_entry *entries)
{
    uint32_t used = 0;

    if (map_page_decode(item->value, item->value_bytes, entries, &used) == 0) {
        return true;
    }
    log_error("control", "%s: a page of the map of deleted volume `%s` cannot be decoded",
              erasure->pool->name, erasure->volume->durable.name);
    return false;
}

/* What the version names, and the next one of the page (NULL: there is none) does not. */
static void
collect_version(struct volume_erasure *erasure, const struct store_batch_item *item,
                const struct store_batch_item *newer)
{
    bool was_decoded = erasure->newer_is_decoded;

    erasure->newer_is_decoded = false;
    if (was_decoded) {
        struct map_entry *entries = erasure->entries;
        erasure->entries = erasure->newer_entries;
        erasure->newer_entries = entries;
    }
    bool is_good = was_decoded || decode_version(erasure, item, erasure->entries);
    if (newer != NULL) {
        erasure->newer_is_decoded = decode_version(erasure, newer, erasure->newer_entries);
    }
    if (!is_good) {
        return;
    }
    uint32_t count = dead_version_grains(
        erasure->entries, NULL, erasure->newer_is_decoded ? erasure->newer_entries : NULL,
        MAP_PAGE_ENTRIES, (uint32_t)erasure->volume->branch.fork_generation, erasure->dead);
    for (uint32_t i = 0; i < count; i++) {
        collect_grain(erasure, erasure->dead[i].grain);
    }
}

enum {
    PAGE_PREFIX_BYTES = 16 /* branch and page number: what all versions of a page begin with */
};

static bool
is_of_page(const struct store_batch_item *item, const uint8_t *key, uint32_t key_bytes)
{
    return key_bytes >= PAGE_PREFIX_BYTES && item->key_bytes >= PAGE_PREFIX_BYTES &&
           memcmp(item->key, key, PAGE_PREFIX_BYTES) == 0;
}

/* False: the next version of the page has not been read, so this one belongs to the next piece. */
static bool
collect_page(struct volume_erasure *erasure, const struct store_batch_item *item)
{
    struct store_scan *scan = &erasure->scan;
    struct store_batch_item newer;
    size_t position = erasure->scan_position;

    if (store_batch_next(scan->items.data, scan->items.length_bytes, &position, &newer) == 1) {
        bool same = is_of_page(item, newer.key, newer.key_bytes);
        collect_version(erasure, item, same ? &newer : NULL);
        return true;
    }
    if (scan->ret_more && is_of_page(item, scan->ret_next, scan->ret_next_bytes) &&
        erasure->batch.length_bytes > 0) {
        memcpy(scan->ret_next, item->key, item->key_bytes);
        scan->ret_next_bytes = item->key_bytes;
        erasure->newer_is_decoded = false;
        return false;
    }
    collect_version(erasure, item, NULL);
    return true;
}

static enum machine_step
collect(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;
    const struct store_scan *scan = &erasure->scan;
    int next = machine->status;

    if (next < 0) {
        return machine_fail(machine, next, "its map cannot be read: %s", error_name(next));
    }
    for (uint32_t i = 0; i < PAGES_AT_ONCE; i++) {
        struct store_batch_item item;
        next = store_batch_next(scan->items.data, scan->items.length_bytes,
                                &erasure->scan_position, &item);
        if (next < 0) {
            return machine_fail(machine, next, "its map cannot be read: %s", error_name(next));
        }
        if (next == 0 || (item.family == STORE_FAMILY_MAP && !collect_page(erasure, &item))) {
            return MACHINE_NEXT;
        }
        store_batch_delete(&erasure->batch, item.family, item.key, item.key_bytes);
    }
    return step_later(erasure, ERASE_COLLECT, STEP_PAUSE_NS);
}

/* Nothing of this kind is left. */
static enum machine_step
next_kind(struct volume_erasure *erasure)
{
    erasure->scan.start_bytes = 0;
    if (++erasure->stored_next == ARRAY_SIZE(STORED)) {
        return machine_goto(&erasure->machine, ERASE_SHED_EXTENTS);
    }
    return machine_goto(&erasure->machine, ERASE_SCAN);
}

static enum machine_step
remove_pages(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;

    if (erasure->batch.length_bytes == 0) {
        return next_kind(erasure);
    }
    size_t count = erasure->grains.length_bytes / sizeof(grain_address);
    batch_append_use_bits(&erasure->batch, &erasure->pool->extents,
                          (grain_address *)(void *)erasure->grains.data, count, false);
    erasure->mapped_grains -= MIN((uint64_t)count, erasure->mapped_grains);
    struct branch_position at = {
        .batch = erasure->volume->committed_batch,
        .mapped_grains = erasure->mapped_grains,
    };
    schema_put_position(&erasure->batch, erasure->volume->branch.id, &at);
    erasure->commit.batch = &erasure->batch;
    machine_arm(machine, &erasure->commit.op, commit_done);
    committer_submit(erasure->pool, &erasure->commit);
    return machine_wait(machine);
}

static enum machine_step
free_grains(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "%s", error_name(machine->status));
    }
    round_one(machine, &erasure->round, erasure->volume->shard->index, free_visit);
    return machine_wait(machine);
}

static bool
space_is_short(const struct pool *pool)
{
    return pool->threshold_raised >= pool->record.critical_percent;
}

static enum machine_step
next_piece(struct volume_erasure *erasure)
{
    struct store_scan *scan = &erasure->scan;
    uint64_t now_ns = reactor_now_ns(erasure->machine.manager->control);
    uint64_t total = MAX(erasure->mapped_at_start, UINT64_C(1));
    uint64_t done = total - MIN(erasure->mapped_grains, total);
    uint64_t rest_ns = now_ns - erasure->piece_began_ns;

    job_progress(erasure->job, (uint8_t)(done * 99 / total));
    if (!scan->ret_more) {
        return next_kind(erasure);
    }
    /* Not from the front: the store would have to step over all that was removed. */
    memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
    scan->start_bytes = scan->ret_next_bytes;
    rest_ns = MIN(MAX(rest_ns, REST_NS_MIN), REST_NS_MAX);
    return step_later(erasure, ERASE_SCAN, space_is_short(erasure->pool) ? STEP_PAUSE_NS : rest_ns);
}

/* ---- the extents ---- */

static enum machine_step
await_extents(struct volume_erasure *erasure)
{
    uint64_t now_ns = reactor_now_ns(erasure->machine.manager->control);
    uint64_t left = erasure->volume->extents_owned;

    if (left == 0) {
        return machine_goto(&erasure->machine, ERASE_REMOVE_RECORDS);
    }
    if (must_stop(erasure)) {
        return stop_for_now(erasure);
    }
    if (left != erasure->extents_left) {
        erasure->extents_left = left;
        erasure->extents_changed_ns = now_ns;
    } else if (!erasure->searched && now_ns - erasure->extents_changed_ns > EXTENTS_PATIENCE_NS) {
        erasure->next_extent = 1;
        return MACHINE_NEXT;
    }
    return step_later(erasure, ERASE_AWAIT_EXTENTS, CONTROL_POLL_NS);
}

static enum machine_step
find_strays(struct volume_erasure *erasure)
{
    const struct extent_table *table = &erasure->pool->extents;
    uint64_t end = MIN(erasure->next_extent + EXTENTS_AT_ONCE, table->count_end);

    for (uint64_t id = erasure->next_extent; id < end; id++) {
        const struct extent *extent = extent_table_find(table, id);
        if (extent != NULL && extent->state == EXTENT_STATE_DATA &&
            extent->owner_branch == erasure->volume->branch.id) {
            byte_buffer_append(&erasure->strays, &id, sizeof(id));
        }
    }
    erasure->next_extent = end;
    if (end < table->count_end) {
        return step_later(erasure, ERASE_FIND_STRAYS, STEP_PAUSE_NS);
    }
    return MACHINE_NEXT;
}

/* Those that are on their way back are none; on the volume's reactor. */
static enum machine_step
filter_visit(struct round_stop *stop)
{
    struct volume_erasure *erasure = container_of(stop->round, struct volume_erasure, round);
    uint64_t *ids = (uint64_t *)(void *)erasure->strays.data;
    size_t count = erasure->strays.length_bytes / sizeof(*ids);
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        const struct extent *extent = extent_table_find(&erasure->pool->extents, ids[i]);
        if (extent != NULL && !extent->releasing) {
            ids[kept++] = ids[i];
        }
    }
    erasure->strays.length_bytes = kept * sizeof(*ids);
    return MACHINE_NEXT;
}

static enum machine_step
scan_maps(struct volume_erasure *erasure)
{
    struct store_scan *scan = &erasure->scan;

    if (erasure->strays.length_bytes == 0) { /* only slow */
        erasure->extents_left = 0;
        return machine_goto(&erasure->machine, ERASE_AWAIT_EXTENTS);
    }
    if (must_stop(erasure)) {
        return stop_for_now(erasure);
    }
    erasure->scan_position = 0;
    scan->family = STORE_FAMILY_MAP;
    scan->prefix_bytes = 0; /* of every branch */
    scan->bytes_max = SCAN_MAPS_BYTES;
    byte_buffer_clear(&scan->items);
    machine_arm(&erasure->machine, &scan->op, scan_done);
    store_scan(erasure->pool->store, scan);
    return machine_wait(&erasure->machine);
}

static bool
is_stray(const struct volume_erasure *erasure, grain_address grain)
{
    const uint64_t *ids = (const uint64_t *)(const void *)erasure->strays.data;
    size_t low = 0;
    size_t high = erasure->strays.length_bytes / sizeof(*ids);
    uint64_t id = grain_extent(&erasure->pool->extents, grain);

    while (grain != GRAIN_NONE && low < high) {
        size_t middle = low + (high - low) / 2;
        if (ids[middle] == id) {
            return true;
        }
        if (ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

/* 0, or -EUCLEAN: it names a stray extent, or what it names is not known. */
static int
look_at_page(struct volume_erasure *erasure, const struct store_batch_item *item)
{
    uint32_t used = 0;
    int result =
        map_page_decode(item->value, item->value_bytes, erasure->entries, &used);

    for (uint32_t i = 0; result == 0 && i < MAP_PAGE_ENTRIES; i++) {
        if (is_stray(erasure, erasure->entries[i].home) ||
            is_stray(erasure, erasure->entries[i].base)) {
            result = -EUCLEAN;
        }
    }
    return result;
}

static enum machine_step
look_at_maps(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;
    struct store_scan *scan = &erasure->scan;
    int next = machine->status;

    for (uint32_t i = 0; next >= 0 && i < PAGES_AT_ONCE; i++) {
        struct store_batch_item item;
        next = store_batch_next(scan->items.data, scan->items.length_bytes,
                                &erasure->scan_position, &item);
        if (next > 0) {
            int result = look_at_page(erasure, &item);
            next = result < 0 ? result : next;
        } else if (next == 0 && !scan->ret_more) {
            return MACHINE_NEXT;
        } else if (next == 0) {
            memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
            scan->start_bytes = scan->ret_next_bytes;
            return step_later(erasure, ERASE_SCAN_MAPS, STEP_PAUSE_NS);
        }
    }
    if (next < 0) {
        return machine_fail(machine, next,
                            "%zu extents of it hold grains that are marked as in use, and other "
                            "volumes' maps name them or cannot be read; `volctl check` tells more",
                            erasure->strays.length_bytes / sizeof(uint64_t));
    }
    return step_later(erasure, ERASE_LOOK_AT_MAPS, STEP_PAUSE_NS);
}

/* No map names a grain of them. On the volume's reactor, which owns their use bits. */
static enum machine_step
free_strays_visit(struct round_stop *stop)
{
    struct volume_erasure *erasure = container_of(stop->round, struct volume_erasure, round);
    struct pool *pool = erasure->pool;
    const uint64_t *ids = (const uint64_t *)(const void *)erasure->strays.data;
    size_t count = erasure->strays.length_bytes / sizeof(*ids);

    for (size_t i = 0; i < count; i++) {
        struct extent *extent = extent_table_find(&pool->extents, ids[i]);
        ASSERT(extent != NULL && !extent->releasing);
        ASSERT_OP(extent->owner_branch, ==, erasure->volume->branch.id);
        if (list_linked(&extent->link)) {
            list_remove(&extent->link);
            extent->source->free_grains -= extent->free_count;
        }
        if (extent->source != NULL) {
            extent->source->used_grains -= pool->grains_per_extent - extent->free_count;
        }
        memset(extent->used, 0, (pool->grains_per_extent + 63) / 64 * sizeof(uint64_t));
        extent->free_count = pool->grains_per_extent;
        extent->releasing = true;
        extent->source = NULL;
        allocator_release(pool, ids[i]);
    }
    return MACHINE_NEXT;
}

static enum machine_step
free_strays(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;

    event_raise(machine->manager, EVENT_WARNING, erasure->pool->name,
                erasure->volume->durable.name, "stray-extents-freed",
                "%zu extents of this deleted volume held grains that were marked as in use but "
                "that no map names; their space has come back",
                erasure->strays.length_bytes / sizeof(uint64_t));
    erasure->searched = true;
    erasure->extents_left = 0;
    round_one(machine, &erasure->round, erasure->volume->shard->index, free_strays_visit);
    machine_goto(machine, ERASE_AWAIT_EXTENTS);
    return machine_wait(machine);
}

/* ---- the end ---- */

static enum machine_step
remove_records(struct volume_erasure *erasure)
{
    struct volume *volume = erasure->volume;

    byte_buffer_clear(&erasure->batch);
    schema_delete_id(&erasure->batch, SCHEMA_VOLUME, volume->durable.id);
    schema_delete_id(&erasure->batch, SCHEMA_BRANCH, volume->branch.id);
    schema_delete_id(&erasure->batch, SCHEMA_POSITION, volume->branch.id);
    reclaim_forget_snapshots(erasure->pool, volume->branch.id, &erasure->batch);
    erasure->commit.batch = &erasure->batch;
    machine_arm(&erasure->machine, &erasure->commit.op, commit_done);
    committer_submit(erasure->pool, &erasure->commit);
    return machine_wait(&erasure->machine);
}

static enum machine_step
unlink_volume(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "%s", error_name(machine->status));
    }
    /* Look-ups may still come by its branch, from the allocator: out of the tables first. */
    pool_remove_volume(erasure->pool, erasure->volume);
    round_all(machine, &erasure->round, unlink_visit);
    return machine_wait(machine);
}

static enum machine_step
end_phase(struct volume_erasure *erasure, enum volume_erase_phase phase)
{
    struct machine *machine = &erasure->machine;

    switch (phase) {
    case ERASE_REMOVE_RECORDS:
        return remove_records(erasure);
    case ERASE_UNLINK:
        return unlink_volume(erasure);
    case ERASE_RELEASE:
        event_raise(machine->manager, EVENT_INFO, erasure->pool->name,
                    erasure->volume->durable.name, "volume-erased",
                    "the space of this deleted volume has come back");
        exports_forget(erasure->volume);
        volume_release(erasure->volume);
        erasure->volume = NULL;
        return MACHINE_NEXT;
    default:
        ASSERT_OP(phase, ==, (uint32_t)ERASE_END);
        return MACHINE_NEXT;
    }
}

static enum machine_step
erase_phase(struct machine *machine, uint32_t phase)
{
    struct volume_erasure *erasure = container_of(machine, struct volume_erasure, machine);
    uint32_t owner = erasure->volume != NULL ? erasure->volume->shard->index : 0;

    switch ((enum volume_erase_phase)phase) {
    case ERASE_AWAIT_RECLAIM:
        return await_reclaim(erasure);
    case ERASE_AWAIT_TURN:
        return await_turn(erasure);
    case ERASE_FORGET_CACHED:
        round_one(machine, &erasure->round, owner, forget_visit);
        return machine_wait(machine);
    case ERASE_SCAN:
        return scan(erasure);
    case ERASE_COLLECT:
        return collect(erasure);
    case ERASE_REMOVE_PAGES:
        return remove_pages(erasure);
    case ERASE_FREE_GRAINS:
        return free_grains(erasure);
    case ERASE_NEXT_PIECE:
        return next_piece(erasure);
    case ERASE_SHED_EXTENTS:
        round_one(machine, &erasure->round, owner, shed_visit);
        return machine_wait(machine);
    case ERASE_AWAIT_EXTENTS:
        return await_extents(erasure);
    case ERASE_FIND_STRAYS:
        return find_strays(erasure);
    case ERASE_FILTER_STRAYS:
        round_one(machine, &erasure->round, owner, filter_visit);
        erasure->scan.start_bytes = 0;
        return machine_wait(machine);
    case ERASE_SCAN_MAPS:
        return scan_maps(erasure);
    case ERASE_LOOK_AT_MAPS:
        return look_at_maps(erasure);
    case ERASE_FREE_STRAYS:
        return free_strays(erasure);
    case ERASE_REMOVE_RECORDS:
    case ERASE_UNLINK:
    case ERASE_RELEASE:
    case ERASE_END:
        return end_phase(erasure, (enum volume_erase_phase)phase);
    case ERASE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
erase_release(struct machine *machine)
{
    struct volume_erasure *erasure = container_of(machine, struct volume_erasure, machine);
    int code = machine->control->error.code;

    if (code < 0 && code != -ECANCELED) {
        event_raise(machine->manager, EVENT_WARNING, erasure->pool->name,
                    erasure->volume->durable.name, "delete-stopped",
                    "its space could not be freed: %.180s; it is tried again at the next start",
                    machine->control->error.message);
    }
    job_end(erasure->job, code, code < 0 ? machine->control->error.message : "");
    list_remove(&erasure->link);
    pass_turn_on(erasure->pool);
    round_free(&erasure->round);
    byte_buffer_free(&erasure->scan.items);
    byte_buffer_free(&erasure->grains);
    byte_buffer_free(&erasure->batch);
    byte_buffer_free(&erasure->strays);
    free(erasure->entries);
    free(erasure->newer_entries);
    free(erasure->dead);
    free(erasure);
}

static const struct machine_ops VOLUME_ERASE_OPS = {
    .name = "volume erase",
    .phase_names = PHASE_NAMES,
    .phase_count = ERASE_PHASE_COUNT,
    .failed_phase = ERASE_END,
    .phase = erase_phase,
    .release = erase_release,
};

/* Its own pages go here, as a whole. */
static void
note_job(void *context, const struct lineage_job *job)
{
    struct volume *volume = context;

    if (job->kind == LINEAGE_TAIL && job->branch->id == volume->branch.id) {
        ASSERT_OP(job->branch->tails, >, 0u);
        job->branch->tails--;
    } else {
        reclaim_add(volume->pool, job);
    }
}

static void
drop_head(struct volume *volume)
{
    struct lineage_jobs jobs = { note_job, volume };
    struct pool_branch *branch = pool_find_branch(volume->pool, volume->branch.id);

    ASSERT(branch != NULL && branch->lineage->view_count == 0);
    if (branch->lineage->has_head) {
        lineage_drop_head(branch->lineage, &jobs);
    }
    branch->record.flags |= BRANCH_HEADLESS; /* as it is: nobody is to write it again */
}

void
volume_erase(struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    struct volume_erasure *erasure = calloc(1, sizeof(*erasure));
    struct pool *pool = volume->pool;
    char path[VOLUME_PATH_SIZE];

    ASSERT(erasure != NULL);
    ASSERT(volume->durable.deleting);
    erasure->entries = calloc(MAP_PAGE_ENTRIES, sizeof(*erasure->entries));
    erasure->newer_entries = calloc(MAP_PAGE_ENTRIES, sizeof(*erasure->newer_entries));
    erasure->dead = calloc(2 * MAP_PAGE_ENTRIES, sizeof(*erasure->dead));
    ASSERT(erasure->entries != NULL && erasure->newer_entries != NULL && erasure->dead != NULL);
    machine_init(&erasure->machine, &VOLUME_ERASE_OPS, pool->manager, NULL);
    erasure->pool = pool;
    erasure->volume = volume;
    volume_path(volume, path);
    erasure->job = job_start(pool->manager, "delete", path);
    list_push_back(&pool->erasures, &erasure->link);
    drop_head(volume);
    machine_start(&erasure->machine);
}
