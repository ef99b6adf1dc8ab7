/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeing the space of a deleted volume, in the background.
 *
 * The stored pages of its map are read in pieces; one commit removes a piece and clears the use
 * bits of its grains, and only then may the grains be used again (P4). So the work can stop
 * anywhere and is continued at the next open. When no page is left, the extents that it owned go
 * back to the pool, and at last its records are deleted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "volmgr/control_impl.h"

#define VOLUME_ERASE_PHASES(X)                                                                     \
    X(FORGET_CACHED)                                                                               \
    X(SCAN)                                                                                        \
    X(REMOVE_PAGES)                                                                                \
    X(FREE_GRAINS)                                                                                 \
    X(NEXT_PIECE)                                                                                  \
    X(SHED_EXTENTS)                                                                                \
    X(AWAIT_EXTENTS)                                                                               \
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
    PIECE_BYTES = 128 << 10 /* of stored pages: at most some thousand grains a commit */
};

struct volume_erasure {
    struct machine machine;
    struct list link; /* pool->erasures */
    struct pool *pool;
    struct volume *volume;
    struct job *job;
    uint64_t mapped_at_start;
    uint64_t mapped_grains; /* still; rewritten by each commit */
    struct store_scan scan;
    struct byte_buffer grains; /* grain_address[]: of this piece */
    struct byte_buffer batch;
    struct commit_request commit;
    struct round round;
    struct machine_pause pause;
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

/* ---- phases ---- */

static enum machine_step
scan(struct volume_erasure *erasure)
{
    struct store_scan *scan = &erasure->scan;

    if (erasure->mapped_at_start == 0) {
        erasure->mapped_at_start = erasure->mapped_grains;
    }
    scan->family = STORE_FAMILY_MAP;
    put_be64(scan->prefix, erasure->volume->branch.id);
    scan->prefix_bytes = sizeof(uint64_t);
    scan->bytes_max = PIECE_BYTES;
    byte_buffer_clear(&scan->items);
    machine_arm(&erasure->machine, &scan->op, scan_done);
    store_scan(erasure->pool->store, scan);
    return machine_wait(&erasure->machine);
}

/* A grain of this branch's own (not inherited) that the address map knows. */
static void
collect_grain(struct volume_erasure *erasure, grain_address grain, uint32_t generation)
{
    const struct extent_table *table = &erasure->pool->extents;

    if (grain == GRAIN_NONE || generation <= erasure->volume->branch.fork_generation) {
        return;
    }
    const struct extent *extent = extent_table_find(table, grain_extent(table, grain));
    if (extent == NULL || extent->state != EXTENT_STATE_DATA) {
        log_error("control", "%s: the map of a deleted volume names grain %llu, which is nowhere",
                  erasure->pool->name, (unsigned long long)grain);
        return;
    }
    byte_buffer_append(&erasure->grains, &grain, sizeof(grain));
}

static int
collect_page(struct volume_erasure *erasure, const struct store_batch_item *item)
{
    struct map_entry *entries = calloc(MAP_PAGE_ENTRIES, sizeof(*entries));
    uint32_t used = 0;

    ASSERT(entries != NULL);
    int result = map_page_decode(item->value, item->value_bytes, entries, &used);
    for (uint32_t i = 0; result == 0 && i < MAP_PAGE_ENTRIES; i++) {
        collect_grain(erasure, entries[i].home, entries[i].home_generation);
        collect_grain(erasure, entries[i].base, entries[i].base_generation);
    }
    free(entries);
    if (result == 0) {
        store_batch_delete(&erasure->batch, STORE_FAMILY_MAP, item->key, item->key_bytes);
    }
    return result;
}

static enum machine_step
remove_pages(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;
    struct store_scan *scan = &erasure->scan;
    struct store_batch_item item;
    size_t position = 0;
    int result = machine->status;

    byte_buffer_clear(&erasure->grains);
    byte_buffer_clear(&erasure->batch);
    while (result == 0) {
        int next = store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item);
        if (next <= 0) {
            result = next;
            break;
        }
        result = collect_page(erasure, &item);
    }
    if (result < 0) {
        return machine_fail(machine, result, "its map cannot be read: %s", error_name(result));
    }
    if (erasure->batch.length_bytes == 0) {
        return machine_goto(machine, ERASE_SHED_EXTENTS);
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

/* Where the work may end and be continued at the next open. */
static enum machine_step
next_piece(struct volume_erasure *erasure)
{
    uint64_t total = MAX(erasure->mapped_at_start, UINT64_C(1));
    uint64_t done = total - MIN(erasure->mapped_grains, total);

    job_progress(erasure->job, (uint8_t)(done * 99 / total));
    if (erasure->pool->stopping) {
        return machine_fail(&erasure->machine, -ECANCELED, "goes on at the next start");
    }
    /* What was found has been removed: the rest begins at the front again. */
    return machine_goto(&erasure->machine, ERASE_SCAN);
}

static enum machine_step
await_extents(struct volume_erasure *erasure)
{
    struct machine *machine = &erasure->machine;

    if (erasure->volume->extents_owned == 0) {
        return MACHINE_NEXT;
    }
    if (erasure->pool->stopping || erasure->pool->committer.broken) {
        return machine_fail(machine, -ECANCELED, "goes on at the next start");
    }
    machine_goto(machine, ERASE_AWAIT_EXTENTS);
    machine_pause(machine, &erasure->pause, CONTROL_POLL_NS);
    return machine_wait(machine);
}

static enum machine_step
remove_records(struct volume_erasure *erasure)
{
    struct volume *volume = erasure->volume;

    byte_buffer_clear(&erasure->batch);
    schema_delete_id(&erasure->batch, SCHEMA_VOLUME, volume->durable.id);
    schema_delete_id(&erasure->batch, SCHEMA_BRANCH, volume->branch.id);
    schema_delete_id(&erasure->batch, SCHEMA_POSITION, volume->branch.id);
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
erase_phase(struct machine *machine, uint32_t phase)
{
    struct volume_erasure *erasure = container_of(machine, struct volume_erasure, machine);
    uint32_t owner = erasure->volume != NULL ? erasure->volume->shard->index : 0;

    switch ((enum volume_erase_phase)phase) {
    case ERASE_FORGET_CACHED:
        round_one(machine, &erasure->round, owner, forget_visit);
        return machine_wait(machine);
    case ERASE_SCAN:
        return scan(erasure);
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
    case ERASE_REMOVE_RECORDS:
        return remove_records(erasure);
    case ERASE_UNLINK:
        return unlink_volume(erasure);
    case ERASE_RELEASE:
        volume_release(erasure->volume);
        erasure->volume = NULL;
        return MACHINE_NEXT;
    case ERASE_END:
        return MACHINE_NEXT;
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
                    "the space of this deleted volume could not be freed: %.150s",
                    machine->control->error.message);
    }
    job_end(erasure->job, code, code < 0 ? machine->control->error.message : "");
    list_remove(&erasure->link);
    round_free(&erasure->round);
    byte_buffer_free(&erasure->scan.items);
    byte_buffer_free(&erasure->grains);
    byte_buffer_free(&erasure->batch);
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

void
volume_erase(struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    struct volume_erasure *erasure = calloc(1, sizeof(*erasure));
    struct pool *pool = volume->pool;
    char path[VOLUME_PATH_SIZE];

    ASSERT(erasure != NULL);
    ASSERT(volume->durable.deleting);
    machine_init(&erasure->machine, &VOLUME_ERASE_OPS, pool->manager, NULL);
    erasure->pool = pool;
    erasure->volume = volume;
    volume_path(volume, path);
    erasure->job = job_start(pool->manager, "delete", path);
    list_push_back(&pool->erasures, &erasure->link);
    machine_start(&erasure->machine);
}
