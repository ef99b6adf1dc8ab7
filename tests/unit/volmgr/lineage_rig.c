/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/volmgr/lineage_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"
#include "volmgr/control_impl.h"

static const char *const ONE[] = { "/d/0", NULL };

enum {
    BLOCK = 4 * KIB,
    VIEW_BYTES = LRIG_BLOCKS * BLOCK,
};
/* Around the border of two map pages. */
#define START   ((UINT64_C(1) << MAP_PAGE_SHIFT) - UINT64_C(5) * GRAIN_BYTES)
#define SIZE    (64 * MIB)

/* ---- calls on the control reactor ---- */

struct lrig_call {
    struct message message;
    struct snapshot_opening opening;
    struct lrig *rig;
    const char *name;
    const struct lrig_view *view;
    struct volume *volume;
    bool done;
};

static struct pool *
find_pool(struct lrig *rig)
{
    struct pool *pool = manager_find_pool(rig->bench->manager, "p");
    assert_non_null(pool);
    return pool;
}

static void
call_control(struct lrig *rig, struct lrig_call *call, message_fn *deliver)
{
    call->rig = rig;
    sim_process_enter(rig->bench->sim);
    reactor_send(rig->bench->reactors[0], &call->message, deliver);
    sim_process_leave(rig->bench->sim);
    assert_int_equal(bench_wait(rig->bench, &call->done), 0);
}

static void
head_deliver(struct message *message)
{
    struct lrig_call *call = container_of(message, struct lrig_call, message);
    call->volume = pool_find_volume(find_pool(call->rig), call->name);
    call->done = true;
}

struct volume *
lrig_head(struct lrig *rig, const char *name)
{
    struct lrig_call call = { .name = name };
    call_control(rig, &call, head_deliver);
    assert_non_null(call.volume);
    return call.volume;
}

static void
view_is_open(struct snapshot_opening *opening, struct volume *view)
{
    struct lrig_call *call = container_of(opening, struct lrig_call, opening);
    call->volume = view;
    call->done = true;
}

static struct snapshot *
snapshot_of(struct lrig_call *call)
{
    struct snapshot *snapshot =
        pool_find_snapshot(find_pool(call->rig), call->view->branch, call->view->generation);
    assert_non_null(snapshot);
    return snapshot;
}

static void
open_deliver(struct message *message)
{
    struct lrig_call *call = container_of(message, struct lrig_call, message);
    snapshot_view_open(snapshot_of(call), &call->opening);
}

static void
close_deliver(struct message *message)
{
    struct lrig_call *call = container_of(message, struct lrig_call, message);
    snapshot_view_close(snapshot_of(call));
    call->done = true;
}

/* ---- life ---- */

void
lrig_create(struct lrig *rig, uint64_t seed, uint32_t reactor_count)
{
    memset(rig, 0, sizeof(*rig));
    random_seed(&rig->random, seed);
    rig->bench = bench_create(seed, reactor_count);
    rig->data = aligned_alloc(BLOCK, VIEW_BYTES);
    assert_non_null(rig->data);
    bench_disk(rig->bench, ONE[0], 256 * MIB);
    assert_int_equal(bench_boot(rig->bench), 0);
    assert_int_equal(bench_make_pool(rig->bench, "p", ONE, false), 0);
    assert_int_equal(bench_make_volume(rig->bench, "p/v1", SIZE), 0);
    rig->volumes[0].id = 1;
    snprintf(rig->volumes[0].name, sizeof(rig->volumes[0].name), "v1");
}

void
lrig_free(struct lrig *rig)
{
    lrig_shutdown(rig);
    bench_free(rig->bench);
    byte_buffer_free(&rig->batch);
    free(rig->data);
}

void
lrig_boot(struct lrig *rig)
{
    assert_int_equal(bench_boot(rig->bench), 0);
    assert_int_equal(bench_pool_state(rig->bench, "p"), POOL_STATE_ONLINE);
}

void
lrig_shutdown(struct lrig *rig)
{
    assert_int_equal(bench_shutdown(rig->bench), 0);
}

/* ---- changes ---- */

static void
stamp_blocks(uint8_t *data, const uint32_t *stamps, uint32_t count)
{
    for (uint32_t n = 0; n < count; n++) {
        for (uint32_t at = 0; at < BLOCK; at += sizeof(uint32_t)) {
            memcpy(data + (size_t)n * BLOCK + at, &stamps[n], sizeof(uint32_t));
        }
    }
}

void
lrig_write(struct lrig *rig, uint32_t which, uint32_t block, uint32_t count)
{
    struct lrig_volume *volume = &rig->volumes[which];

    for (uint32_t n = 0; n < count; n++) {
        volume->content.stamps[block + n] = ++rig->last_stamp;
    }
    stamp_blocks(rig->data, &volume->content.stamps[block], count);
    assert_int_equal(bench_io(rig->bench, lrig_head(rig, volume->name), VOLUME_WRITE,
                              START + (uint64_t)block * BLOCK, rig->data,
                              (uint64_t)count * BLOCK),
                     0);
}

void
lrig_discard(struct lrig *rig, uint32_t which, uint32_t block, uint32_t count)
{
    struct lrig_volume *volume = &rig->volumes[which];

    memset(&volume->content.stamps[block], 0, count * sizeof(uint32_t));
    assert_int_equal(bench_io(rig->bench, lrig_head(rig, volume->name), VOLUME_DISCARD,
                              START + (uint64_t)block * BLOCK, NULL, (uint64_t)count * BLOCK),
                     0);
}

void
lrig_flush(struct lrig *rig, uint32_t which)
{
    struct volume *head = lrig_head(rig, rig->volumes[which].name);
    assert_int_equal(bench_io(rig->bench, head, VOLUME_FLUSH, 0, NULL, 0), 0);
}

uint32_t
lrig_random_volume(struct lrig *rig)
{
    for (;;) {
        uint32_t which = (uint32_t)random_below(&rig->random, LRIG_VOLUMES);
        if (rig->volumes[which].id != 0) {
            return which;
        }
    }
}

void
lrig_change(struct lrig *rig)
{
    uint32_t which = lrig_random_volume(rig);
    uint32_t count = 1 + (uint32_t)random_below(&rig->random,
                                                random_chance(&rig->random, 1, 3) ? 48 : 6);
    uint32_t block = (uint32_t)random_below(&rig->random, LRIG_BLOCKS - count + 1);

    switch (random_below(&rig->random, 8)) {
    case 0:
        lrig_discard(rig, which, block, count);
        return;
    case 1:
        lrig_discard(rig, which, block & ~15u, 16);
        return;
    case 2:
        lrig_flush(rig, which);
        return;
    default:
        lrig_write(rig, which, block, count);
        return;
    }
}

/* ---- comparing ---- */

static void
compare_volume(struct lrig *rig, struct volume *volume, const struct lrig_content *content,
               const char *what)
{
    uint8_t wanted[BLOCK];

    memset(rig->data, 0xee, VIEW_BYTES);
    assert_int_equal(bench_io(rig->bench, volume, VOLUME_READ, START, rig->data, VIEW_BYTES), 0);
    for (uint32_t n = 0; n < LRIG_BLOCKS; n++) {
        stamp_blocks(wanted, &content->stamps[n], 1);
        if (memcmp(wanted, rig->data + (size_t)n * BLOCK, BLOCK) != 0) {
            uint32_t got;
            memcpy(&got, rig->data + (size_t)n * BLOCK, sizeof(got));
            fail_msg("%s: block %u shows %u instead of %u", what, n, got, content->stamps[n]);
        }
    }
}

void
lrig_compare(struct lrig *rig)
{
    char what[64];

    for (uint32_t n = 0; n < LRIG_VOLUMES; n++) {
        const struct lrig_volume *volume = &rig->volumes[n];
        if (volume->id != 0) {
            compare_volume(rig, lrig_head(rig, volume->name), &volume->content, volume->name);
        }
    }
    for (uint32_t n = 0; n < LRIG_VIEWS; n++) {
        const struct lrig_view *view = &rig->views[n];
        struct lrig_call opening = { .view = view, .opening = { .done = view_is_open } };
        struct lrig_call closing = { .view = view };
        if (view->branch == 0) {
            continue;
        }
        call_control(rig, &opening, open_deliver);
        snprintf(what, sizeof(what), "branch %llu generation %u",
                 (unsigned long long)view->branch, view->generation);
        compare_volume(rig, opening.volume, &view->content, what);
        assert_int_equal(
            bench_io(rig->bench, opening.volume, VOLUME_WRITE, START, rig->data, BLOCK), -EROFS);
        assert_int_equal(
            bench_io(rig->bench, opening.volume, VOLUME_DISCARD, START, NULL, BLOCK), -EROFS);
        assert_int_equal(bench_io(rig->bench, opening.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
        call_control(rig, &closing, close_deliver);
    }
}

/* ---- records ---- */

static void
read_record(struct lrig_records *records, const struct store_batch_item *item)
{
    struct branch_position position;
    uint64_t generation = 0;
    uint32_t n;

    switch (item->key[0]) {
    case SCHEMA_POOL:
        assert_int_equal(schema_get_pool(item->value, item->value_bytes, &records->pool), 0);
        break;
    case SCHEMA_BRANCH:
        n = records->branch_count++;
        assert_in_range(n, 0, LRIG_BRANCHES - 1);
        assert_int_equal(
            schema_get_branch(item->value, item->value_bytes, &records->branches[n]), 0);
        break;
    case SCHEMA_VOLUME:
        n = records->volume_count++;
        assert_int_equal(schema_get_volume(item->value, item->value_bytes, &records->volumes[n]),
                         0);
        break;
    case SCHEMA_SNAPSHOT:
        n = records->snapshot_count++;
        assert_in_range(n, 0, LRIG_VIEWS - 1);
        assert_int_equal(
            schema_get_snapshot(item->value, item->value_bytes, &records->snapshots[n]), 0);
        assert_int_equal(schema_snapshot_key_decode(item->key, item->key_bytes,
                                                    &records->snapshot_branch[n], &generation),
                         0);
        records->snapshot_generation[n] = (uint32_t)generation;
        break;
    case SCHEMA_POSITION: /* behind all branches */
        assert_int_equal(schema_get_position(item->value, item->value_bytes, &position), 0);
        for (n = 0; n < records->branch_count; n++) {
            if (records->branches[n].id == get_be64(item->key + 1)) {
                records->mapped[n] = position.mapped_grains;
            }
        }
        break;
    default:
        break;
    }
}

uint32_t
lrig_branch_of(const struct lrig *rig, uint64_t id)
{
    for (uint32_t n = 0; n < rig->records.branch_count; n++) {
        if (rig->records.branches[n].id == id) {
            return n;
        }
    }
    fail_msg("branch %llu is not there", (unsigned long long)id);
    return 0;
}

static void
build_lineage(struct lrig *rig)
{
    struct lrig_records *records = &rig->records;

    lineage_init(&records->lineage);
    for (uint32_t n = 0; n < records->branch_count; n++) {
        const struct branch_record *record = &records->branches[n];
        struct lineage_load load = {
            .id = record->id,
            .parent = record->parent != 0
                          ? records->lineage_of[lrig_branch_of(rig, record->parent)]
                          : NULL,
            .fork = (uint32_t)record->fork_generation,
            .current = (uint32_t)record->current_generation,
            .has_head = (record->flags & BRANCH_HEADLESS) == 0,
            .continues = (record->flags & BRANCH_CONTINUES) != 0,
        };
        records->lineage_of[n] = lineage_load_branch(&records->lineage, &load);
    }
    for (uint32_t n = 0; n < records->snapshot_count; n++) {
        if (records->snapshots[n].state == SNAPSHOT_DELETING) {
            continue;
        }
        lineage_load_view(records->lineage_of[lrig_branch_of(rig, records->snapshot_branch[n])],
                          records->snapshot_generation[n],
                          records->snapshots[n].state == SNAPSHOT_KEPT ? LINEAGE_KEPT
                                                                       : LINEAGE_HIDDEN);
    }
    assert_null(lineage_load_end(&records->lineage));
    assert_true(lineage_is_sound(&records->lineage));
}

void
lrig_records_begin(struct lrig *rig)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;

    memset(&rig->records, 0, sizeof(rig->records));
    bench_scan_database(rig->bench, STORE_FAMILY_SYSTEM, &items);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        read_record(&rig->records, &item);
    }
    byte_buffer_free(&items);
    byte_buffer_clear(&rig->batch);
    build_lineage(rig);
}

void
lrig_records_end_as_they_are(struct lrig *rig)
{
    const struct lrig_records *records = &rig->records;
    struct byte_buffer first = BYTE_BUFFER_INIT;

    for (uint32_t n = 0; n < records->branch_count; n++) {
        schema_put_branch(&first, &records->branches[n]);
    }
    for (uint32_t n = 0; n < records->snapshot_count; n++) {
        schema_put_snapshot(&first, records->snapshot_branch[n], records->snapshot_generation[n],
                            &records->snapshots[n]);
    }
    schema_put_pool(&first, &records->pool);
    byte_buffer_append(&first, rig->batch.data, rig->batch.length_bytes);
    bench_poke_database(rig->bench, &first);
    byte_buffer_free(&first);
    byte_buffer_clear(&rig->batch);
    lineage_free(&rig->records.lineage);
}

/* Flags of branches and states of snapshots as the lineage has them now. */
void
lrig_records_end(struct lrig *rig)
{
    struct lrig_records *records = &rig->records;

    assert_true(lineage_is_sound(&records->lineage));
    for (uint32_t n = 0; n < records->branch_count; n++) {
        const struct lineage_branch *branch = records->lineage_of[n];
        struct branch_record *record = &records->branches[n];
        record->flags = (uint8_t)((branch->has_head ? 0 : BRANCH_HEADLESS) |
                                  (branch->continues ? BRANCH_CONTINUES : 0));
        record->current_generation = branch->current;
        schema_put_branch(&rig->batch, record);
    }
    for (uint32_t n = 0; n < records->snapshot_count; n++) {
        const struct lineage_branch *branch =
            records->lineage_of[lrig_branch_of(rig, records->snapshot_branch[n])];
        const struct lineage_view *view =
            lineage_find_view(branch, records->snapshot_generation[n]);
        struct snapshot_record *record = &records->snapshots[n];
        record->state = view == NULL                     ? SNAPSHOT_DELETING
                        : view->state == LINEAGE_HIDDEN ? SNAPSHOT_HIDDEN
                                                        : SNAPSHOT_KEPT;
        if (record->state != SNAPSHOT_KEPT) {
            record->name[0] = '\0';
        }
        schema_put_snapshot(&rig->batch, records->snapshot_branch[n],
                            records->snapshot_generation[n], record);
    }
    schema_put_pool(&rig->batch, &records->pool);
    bench_poke_database(rig->bench, &rig->batch);
    byte_buffer_clear(&rig->batch);
    lineage_free(&records->lineage);
}

static uint32_t
volume_record_of(const struct lrig *rig, uint32_t which)
{
    for (uint32_t n = 0; n < rig->records.volume_count; n++) {
        if (rig->records.volumes[n].id == rig->volumes[which].id) {
            return n;
        }
    }
    fail_msg("no volume %u", which);
    return 0;
}

uint32_t
lrig_snapshot(struct lrig *rig, uint32_t which)
{
    struct lrig_records *records = &rig->records;
    const struct volume_record *volume = &records->volumes[volume_record_of(rig, which)];
    uint32_t of = lrig_branch_of(rig, volume->branch);
    struct lineage_branch *branch = records->lineage_of[of];
    uint32_t at = 0;

    if (branch->parent == NULL && branch->current == 1) {
        struct history_counter counter = { volume->branch, HISTORY_FOREVER, 1 };
        schema_add_counter(&rig->batch, &counter, (int64_t)records->mapped[of]);
    }
    uint32_t generation = lineage_bump(branch);
    lineage_keep(branch, generation);
    while (rig->views[at].branch != 0) {
        at++;
        assert_int_not_equal(at, LRIG_VIEWS);
    }
    rig->views[at] = (struct lrig_view){ volume->branch, generation,
                                         rig->volumes[which].content };
    uint32_t n = records->snapshot_count++;
    struct snapshot_record *record = &records->snapshots[n];
    *record = (struct snapshot_record){
        .id = ++records->pool.last_snapshot,
        .volume = volume->id,
        .state = SNAPSHOT_KEPT,
        .size_bytes = volume->size_bytes,
        .mapped_grains = records->mapped[of],
    };
    snprintf(record->name, sizeof(record->name), "s%llu", (unsigned long long)record->id);
    records->snapshot_branch[n] = volume->branch;
    records->snapshot_generation[n] = generation;
    return at;
}

/* A branch that begins at the view, with a head of the volume. */
static uint64_t
fork_branch(struct lrig *rig, const struct lrig_view *view, uint64_t volume)
{
    struct lrig_records *records = &rig->records;
    uint32_t parent = lrig_branch_of(rig, view->branch);
    uint32_t n = records->branch_count++;
    struct branch_position position = { 0 };
    uint64_t id = records->pool.next_branch++;

    assert_in_range(n, 0, LRIG_BRANCHES - 1);
    records->lineage_of[n] = lineage_fork(&records->lineage, records->lineage_of[parent],
                                          view->generation, id);
    records->branches[n] = (struct branch_record){
        .id = id,
        .family = records->branches[parent].family,
        .parent = view->branch,
        .fork_generation = view->generation,
        .current_generation = view->generation + 2,
        .volume = volume,
    };
    for (uint32_t i = 0; i < records->snapshot_count; i++) {
        if (records->snapshot_branch[i] == view->branch &&
            records->snapshot_generation[i] == view->generation) {
            position.mapped_grains = records->snapshots[i].mapped_grains;
        }
    }
    records->mapped[n] = position.mapped_grains;
    schema_put_position(&rig->batch, id, &position);
    return id;
}

uint32_t
lrig_clone(struct lrig *rig, uint32_t view)
{
    struct lrig_records *records = &rig->records;
    uint32_t which = 0;

    while (rig->volumes[which].id != 0) {
        which++;
        assert_int_not_equal(which, LRIG_VOLUMES);
    }
    struct volume_record record = records->volumes[0];
    record.id = records->pool.next_volume++;
    record.branch = fork_branch(rig, &rig->views[view], record.id);
    snprintf(record.name, sizeof(record.name), "v%llu", (unsigned long long)record.id);
    records->volumes[records->volume_count++] = record;
    schema_put_volume(&rig->batch, &record);
    struct lrig_volume *volume = &rig->volumes[which];
    volume->id = record.id;
    snprintf(volume->name, sizeof(volume->name), "v%u", (uint32_t)record.id);
    volume->content = rig->views[view].content;
    return which;
}

bool
lrig_rollback(struct lrig *rig, uint32_t which, uint32_t view)
{
    struct lrig_records *records = &rig->records;
    struct volume_record *volume = &records->volumes[volume_record_of(rig, which)];
    uint32_t of = lrig_branch_of(rig, volume->branch);

    if (records->branches[lrig_branch_of(rig, rig->views[view].branch)].volume != volume->id &&
        records->branches[lrig_branch_of(rig, rig->views[view].branch)].volume != 0) {
        return false;
    }
    volume->branch = fork_branch(rig, &rig->views[view], volume->id);
    lineage_drop_head(records->lineage_of[of], &(struct lineage_jobs){ 0 });
    schema_put_volume(&rig->batch, volume);
    rig->volumes[which].content = rig->views[view].content;
    return true;
}

void
lrig_delete_view(struct lrig *rig, uint32_t at)
{
    struct lrig_view *view = &rig->views[at];
    struct lineage_branch *branch = rig->records.lineage_of[lrig_branch_of(rig, view->branch)];

    lineage_drop_view(branch, view->generation, &(struct lineage_jobs){ 0 });
    view->branch = 0;
}
