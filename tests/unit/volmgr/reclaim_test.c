/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What deleting snapshots, clones and volumes gives back: random operations, with kills between
 * them. Then the grains in use are those that some page version names, versions and links belong
 * together, and everything reads as it should.
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

enum {
    GRAINS = 12, /* of each volume that are written: around a border of two map pages */
    BLOCKS = GRAINS * BLOCKS_PER_GRAIN,
    VOLUMES_MAX = 6,
    SNAPSHOTS_MAX = 10, /* of a volume */
};
#define REGION_START ((UINT64_C(1) << MAP_PAGE_SHIFT) - UINT64_C(6) * GRAIN_BYTES)
#define VOLUME_BYTES (UINT64_C(2) << MAP_PAGE_SHIFT)
#define SMALL_PATH   48

struct content {
    uint8_t seed[BLOCKS]; /* 0: zeroes */
};

struct kept {
    bool exists;
    uint32_t number;
    struct content content;
};

struct known_volume {
    bool exists;
    uint32_t number;
    struct content content;
    struct kept snapshots[SNAPSHOTS_MAX];
};

struct model {
    struct bench *bench;
    struct random random;
    struct known_volume volumes[VOLUMES_MAX];
    uint32_t last_number;
    uint32_t last_seed;
    uint32_t kills;
    uint32_t deletions;
};

static const char *const ONE[] = { "/d/0", NULL };

static uint32_t
below(struct model *model, uint32_t limit)
{
    return (uint32_t)random_below(&model->random, limit);
}

static void
volume_name(const struct known_volume *volume, char text[static SMALL_PATH])
{
    snprintf(text, SMALL_PATH, "p/v%u", volume->number);
}

static void
snapshot_name(const struct known_volume *volume, const struct kept *kept,
              char text[static SMALL_PATH])
{
    snprintf(text, SMALL_PATH, "p/v%u@s%u", volume->number, kept->number);
}

static struct known_volume *
any_volume(struct model *model)
{
    uint32_t start = below(model, VOLUMES_MAX);

    for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
        struct known_volume *volume = &model->volumes[(start + i) % VOLUMES_MAX];
        if (volume->exists) {
            return volume;
        }
    }
    return NULL;
}

static struct kept *
any_snapshot(struct model *model, struct known_volume *volume)
{
    uint32_t start = below(model, SNAPSHOTS_MAX);

    for (uint32_t i = 0; i < SNAPSHOTS_MAX; i++) {
        struct kept *kept = &volume->snapshots[(start + i) % SNAPSHOTS_MAX];
        if (kept->exists) {
            return kept;
        }
    }
    return NULL;
}

static struct known_volume *
free_volume(struct model *model)
{
    for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
        if (!model->volumes[i].exists) {
            memset(&model->volumes[i], 0, sizeof(model->volumes[i]));
            return &model->volumes[i];
        }
    }
    return NULL;
}

static struct volume *
hold(struct model *model, const struct known_volume *volume)
{
    struct export_lookup lookup;
    char path[SMALL_PATH];

    volume_name(volume, path);
    int result = bench_make_export(model->bench, path);
    assert_true(result == 0 || result == -EEXIST);
    assert_int_equal(bench_lookup(model->bench, 0, path, &lookup), 0);
    return lookup.ret_volume;
}

static void
unexport(struct model *model, const struct known_volume *volume, const struct kept *kept)
{
    struct export_delete delete = { .name = { .pool = "p" } };

    snprintf(delete.name.volume, sizeof(delete.name.volume), "v%u", volume->number);
    if (kept != NULL) {
        snprintf(delete.name.snapshot, sizeof(delete.name.snapshot), "s%u", kept->number);
    }
    int result = bench_export_delete(model->bench, &delete);
    assert_true(result == 0 || result == -ENOENT);
}

/* ---- what hosts do ---- */

static void
write_blocks(struct model *model, struct known_volume *known, uint32_t first, uint32_t count,
             bool zero)
{
    struct volume *volume = hold(model, known);
    uint8_t seed = (uint8_t)(1 + model->last_seed++ % 250);
    uint8_t *data = malloc((size_t)count * BLOCK_BYTES);

    assert_non_null(data);
    memset(data, seed, (size_t)count * BLOCK_BYTES);
    assert_int_equal(bench_io(model->bench, volume,
                              zero ? VOLUME_WRITE_ZEROES : VOLUME_WRITE,
                              REGION_START + (uint64_t)first * BLOCK_BYTES, zero ? NULL : data,
                              (uint64_t)count * BLOCK_BYTES),
                     0);
    free(data);
    memset(known->content.seed + first, zero ? 0 : seed, count);
    bench_release(model->bench, volume);
}

static void
write_somewhere(struct model *model)
{
    struct known_volume *volume = any_volume(model);

    if (volume == NULL) {
        return;
    }
    for (uint32_t i = 0; i < 1 + below(model, 6); i++) {
        uint32_t first = below(model, BLOCKS);
        uint32_t length = below(model, 3) == 0 ? 1 + below(model, 3 * BLOCKS_PER_GRAIN) : 1;
        write_blocks(model, volume, first, MIN(length, BLOCKS - first), below(model, 5) == 0);
    }
}

static void
flush_all(struct model *model)
{
    for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
        if (model->volumes[i].exists) {
            struct volume *volume = hold(model, &model->volumes[i]);
            assert_int_equal(bench_io(model->bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
            bench_release(model->bench, volume);
        }
    }
}

static void
compare(struct model *model, struct volume *volume, const struct content *content)
{
    uint8_t *data = malloc((size_t)BLOCKS * BLOCK_BYTES);

    assert_non_null(data);
    assert_int_equal(bench_io(model->bench, volume, VOLUME_READ, REGION_START, data,
                              (uint64_t)BLOCKS * BLOCK_BYTES),
                     0);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        for (uint32_t at = 0; at < BLOCK_BYTES; at += 512) {
            assert_int_equal(data[block * BLOCK_BYTES + at], content->seed[block]);
        }
    }
    free(data);
}

static void
compare_all(struct model *model)
{
    for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
        struct known_volume *known = &model->volumes[i];
        for (uint32_t n = 0; known->exists && n < SNAPSHOTS_MAX; n++) {
            char path[SMALL_PATH];
            if (!known->snapshots[n].exists) {
                continue;
            }
            snapshot_name(known, &known->snapshots[n], path);
            struct volume *view = bench_hold_snapshot(model->bench, path);
            assert_non_null(view);
            compare(model, view, &known->snapshots[n].content);
            bench_release(model->bench, view);
            unexport(model, known, &known->snapshots[n]);
        }
        if (known->exists) {
            struct volume *volume = hold(model, known);
            compare(model, volume, &known->content);
            bench_release(model->bench, volume);
        }
    }
}

/* ---- what administrators do ---- */

static void
create(struct model *model)
{
    struct known_volume *volume = free_volume(model);
    char path[SMALL_PATH];

    if (volume != NULL) {
        volume->number = ++model->last_number;
        volume_name(volume, path);
        assert_int_equal(bench_make_volume(model->bench, path, VOLUME_BYTES), 0);
        volume->exists = true;
    }
}

static void
take(struct model *model)
{
    struct known_volume *volume = any_volume(model);
    char path[SMALL_PATH];

    for (uint32_t i = 0; volume != NULL && i < SNAPSHOTS_MAX; i++) {
        struct kept *kept = &volume->snapshots[i];
        if (!kept->exists) {
            kept->number = ++model->last_number;
            snapshot_name(volume, kept, path);
            assert_int_equal(bench_make_snapshot(model->bench, path), 0);
            kept->exists = true;
            kept->content = volume->content;
            return;
        }
    }
}

static void
drop(struct model *model)
{
    struct known_volume *volume = any_volume(model);
    struct kept *kept = volume != NULL ? any_snapshot(model, volume) : NULL;
    char path[SMALL_PATH];

    if (kept != NULL) {
        snapshot_name(volume, kept, path);
        assert_int_equal(bench_drop_snapshot(model->bench, path), 0);
        kept->exists = false;
        model->deletions++;
    }
}

static void
clone(struct model *model)
{
    struct known_volume *from = any_volume(model);
    struct kept *kept = from != NULL ? any_snapshot(model, from) : NULL;
    struct known_volume *volume = free_volume(model);
    char from_path[SMALL_PATH];
    char path[SMALL_PATH];

    if (kept != NULL && volume != NULL) {
        volume->number = ++model->last_number;
        volume_name(volume, path);
        snapshot_name(from, kept, from_path);
        assert_int_equal(bench_make_clone(model->bench, from_path, path), 0);
        volume->exists = true;
        volume->content = kept->content;
    }
}

static void
roll_back(struct model *model)
{
    struct known_volume *volume = any_volume(model);
    struct kept *kept = volume != NULL ? any_snapshot(model, volume) : NULL;
    char path[SMALL_PATH];

    if (kept != NULL) {
        unexport(model, volume, NULL);
        snapshot_name(volume, kept, path);
        assert_int_equal(bench_roll_back(model->bench, path), 0);
        volume->content = kept->content;
    }
}

static void
delete(struct model *model)
{
    struct known_volume *volume = any_volume(model);
    struct volume_delete delete = { .name = { .pool = "p" }, .snapshots = true };

    if (volume != NULL) {
        unexport(model, volume, NULL);
        snprintf(delete.name.volume, sizeof(delete.name.volume), "v%u", volume->number);
        assert_int_equal(bench_volume_delete(model->bench, &delete), 0);
        volume->exists = false;
    }
}

/* ---- what must hold ---- */

static struct pool *
only_pool(struct model *model)
{
    return list_first(&model->bench->manager->pools, struct pool, link);
}

static uint64_t
grains_in_use(struct model *model)
{
    const struct pool *pool = only_pool(model);
    uint64_t count = 0;

    for (uint64_t id = 1; id < pool->extents.count_end; id++) {
        const struct extent *extent = extent_table_find(&pool->extents, id);
        if (extent != NULL && extent->state == EXTENT_STATE_DATA && !extent->releasing) {
            count += pool->grains_per_extent - extent->free_count;
        }
    }
    return count;
}

/* The use bits in the database, and which grains its maps name. */
struct named {
    uint64_t used;
    uint64_t named;
    uint64_t versions;
    uint64_t links;
    uint8_t *marks; /* by grain */
};

enum {
    GRAINS_END = 1 << 16,
    GRAINS_PER_EXTENT = MIB / GRAIN_BYTES,
};

static void
mark(struct named *named, grain_address grain)
{
    if (grain != GRAIN_NONE) {
        assert_true(grain < GRAINS_END);
        named->named += named->marks[grain] == 0;
        named->marks[grain] = 1;
    }
}

static void
mark_maps(struct model *model, struct named *named)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct map_entry *entries = calloc(MAP_PAGE_ENTRIES, sizeof(*entries));
    struct store_batch_item item;
    size_t position = 0;
    uint32_t used = 0;

    bench_scan_database(model->bench, STORE_FAMILY_MAP, &items);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        assert_int_equal(map_page_decode(item.value, item.value_bytes, entries, &used), 0);
        named->versions++;
        for (uint32_t i = 0; i < MAP_PAGE_ENTRIES; i++) {
            mark(named, entries[i].home);
            mark(named, entries[i].base);
        }
    }
    free(entries);
    byte_buffer_free(&items);
}

static void
count_used(struct model *model, struct named *named)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;

    bench_scan_database(model->bench, STORE_FAMILY_EXTENT, &items);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        struct extent_record record;
        uint64_t id = 0;
        assert_int_equal(extent_key_decode(item.key, item.key_bytes, &id), 0);
        assert_int_equal(extent_record_decode(item.value, item.value_bytes, GRAINS_PER_EXTENT,
                                              &record),
                         0);
        for (uint32_t i = 0; record.state == EXTENT_STATE_DATA && i < GRAINS_PER_EXTENT; i++) {
            bool is_used = (record.used[i / 64] >> i % 64 & 1) != 0;
            named->used += is_used;
            assert_int_equal(named->marks[id * GRAINS_PER_EXTENT + i], is_used);
        }
    }
    byte_buffer_free(&items);
}

static void
count_links(struct model *model, struct named *named)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;

    bench_scan_database(model->bench, STORE_FAMILY_HISTORY, &items);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        named->links += item.key[0] == HISTORY_LINK;
    }
    byte_buffer_free(&items);
}

/* No process. Returns how many grains are used. */
static uint64_t
check_database(struct model *model)
{
    struct named named = { .marks = calloc(GRAINS_END, 1) };

    assert_non_null(named.marks);
    mark_maps(model, &named);
    count_used(model, &named);
    count_links(model, &named);
    assert_int_equal(named.used, named.named);
    assert_int_equal(named.links, named.versions);
    free(named.marks);
    return named.used;
}

static uint32_t
records_of(struct model *model, uint8_t type)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;
    uint32_t count = 0;

    bench_scan_database(model->bench, STORE_FAMILY_SYSTEM, &items);
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        count += item.key[0] == type;
    }
    byte_buffer_free(&items);
    return count;
}

/* Everything in the background ends; then all is looked at, on both sides of a restart. */
static void
settle(struct model *model)
{
    flush_all(model);
    bench_wait_for_jobs(model->bench);
    flush_all(model);
    assert_int_equal(bench_shutdown(model->bench), 0);
    check_database(model);
    assert_int_equal(bench_boot(model->bench), 0);
    bench_wait_for_jobs(model->bench);
    compare_all(model);
}

/* A dry run tells exactly what comes back. */
static void
drop_as_foretold(struct model *model)
{
    struct known_volume *volume = any_volume(model);
    struct kept *kept = volume != NULL ? any_snapshot(model, volume) : NULL;
    struct volume_name name = { .pool = "p" };
    struct snapshot_delete dry = { .count = 1, .names = &name, .dry_run = true };

    if (kept == NULL) {
        return;
    }
    bench_wait_for_jobs(model->bench);
    snprintf(name.volume, sizeof(name.volume), "v%u", volume->number);
    snprintf(name.snapshot, sizeof(name.snapshot), "s%u", kept->number);
    assert_int_equal(bench_snapshot_delete(model->bench, &dry), 0);
    flush_all(model);
    uint64_t before = grains_in_use(model);
    struct snapshot_delete wet = { .count = 1, .names = &name };
    assert_int_equal(bench_snapshot_delete(model->bench, &wet), 0);
    kept->exists = false;
    bench_wait_for_jobs(model->bench);
    flush_all(model);
    assert_int_equal((before - grains_in_use(model)) * GRAIN_BYTES, dry.ret_freed_bytes);
    assert_int_equal(wet.ret_hidden, dry.ret_hidden);
    model->deletions++;
}

/* At any time, also while space is being freed. */
static void
kill(struct model *model)
{
    assert_int_equal(sim_run_for(model->bench->sim, below(model, 3000) * NS_PER_US), 0);
    bench_kill(model->bench);
    assert_int_equal(bench_boot(model->bench), 0);
    model->kills++;
}

/* In the middle of whatever is being freed. */
static void
restart(struct model *model)
{
    assert_int_equal(bench_shutdown(model->bench), 0);
    assert_int_equal(bench_boot(model->bench), 0);
}

static void
step(struct model *model)
{
    uint32_t what = below(model, 100);

    if (what < 45) {
        write_somewhere(model);
    } else if (what < 62) {
        take(model);
    } else if (what < 76) {
        drop(model);
    } else if (what < 80) {
        drop_as_foretold(model);
    } else if (what < 84) {
        clone(model);
    } else if (what < 88) {
        roll_back(model);
    } else if (what < 91) {
        delete(model);
    } else if (what < 95) {
        create(model);
    } else if (what < 98) {
        kill(model);
    } else {
        restart(model);
    }
}

static void
model_begin(struct model *model, uint64_t seed)
{
    memset(model, 0, sizeof(*model));
    random_seed(&model->random, seed);
    model->bench = bench_create(seed, 2);
    bench_disk(model->bench, "/d/0", 256 * MIB);
    assert_int_equal(bench_boot(model->bench), 0);
    assert_int_equal(bench_make_pool(model->bench, "p", ONE, false), 0);
    create(model);
}

/* Everything is deleted: nothing is left of it. */
static void
model_end(struct model *model)
{
    while (any_volume(model) != NULL) {
        delete(model);
    }
    bench_wait_for_jobs(model->bench);
    bench_pass_time(model->bench, 2);
    bench_wait_for_jobs(model->bench);
    assert_int_equal(bench_shutdown(model->bench), 0);
    assert_int_equal(check_database(model), 0);
    assert_int_equal(records_of(model, SCHEMA_SNAPSHOT), 0);
    assert_int_equal(records_of(model, SCHEMA_BRANCH), 0);
    bench_free(model->bench);
}

static void
run_seed(struct model *model, uint64_t seed)
{
    model_begin(model, seed);
    for (uint32_t i = 0; i < 150; i++) {
        step(model);
        if (i % 25 == 24) {
            settle(model);
        }
    }
    model_end(model);
}

/* RECLAIM_SEEDS: another one alone. The last ones have failed once. */
static void
random_operations(void **state)
{
    static const uint64_t seeds[] = { 1, 2, 3, 4, 5, 6, 7, 8, 11, 20, 48, 98, 206 };
    const char *asked = getenv("RECLAIM_SEEDS");
    struct model *model = calloc(1, sizeof(*model));
    uint32_t deletions = 0;

    (void)state;
    assert_non_null(model);
    if (asked != NULL) {
        run_seed(model, strtoull(asked, NULL, 10));
        free(model);
        return;
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(seeds); i++) {
        run_seed(model, seeds[i]);
        deletions += model->deletions;
    }
    assert_true(deletions > 0);
    free(model);
}

/* ---- one deletion, killed at each of its commits ---- */

/* Two volumes, one of them a clone; three snapshots, with versions that all and few of them see. */
static void
build(struct model *model)
{
    struct known_volume *volume = &model->volumes[0];
    char path[SMALL_PATH];

    for (uint32_t i = 0; i < 3; i++) {
        struct kept *kept = &volume->snapshots[i];
        write_blocks(model, volume, 0, BLOCKS, false);
        write_blocks(model, volume, i * BLOCKS_PER_GRAIN, 2 * BLOCKS_PER_GRAIN, true);
        kept->number = i;
        snapshot_name(volume, kept, path);
        assert_int_equal(bench_make_snapshot(model->bench, path), 0);
        kept->exists = true;
        kept->content = volume->content;
        write_blocks(model, volume, BLOCKS / 2, 3, false); /* and copies of parts of grains */
        write_blocks(model, volume, BLOCKS / 2 + 5, 3, false);
    }
    struct known_volume *copy = &model->volumes[1];
    copy->number = ++model->last_number;
    volume_name(copy, path);
    assert_int_equal(bench_make_clone(model->bench, "p/v1@s0", path), 0);
    copy->exists = true;
    copy->content = volume->snapshots[0].content;
    write_blocks(model, copy, 3, 20, false);
    flush_all(model);
}

enum deletion {
    OLDEST,      /* which the clone needs */
    MIDDLE,
    NEWEST,      /* then the head's version supersedes what dies */
    ALL_BUT_ONE, /* and the volume: the clone goes on from the one */
    EVERYTHING,
    DELETIONS,
};

static void
delete_some(struct model *model, enum deletion which)
{
    struct known_volume *volume = &model->volumes[0];
    struct volume_delete delete = { .name = { .pool = "p", .volume = "v1" }, .snapshots = true };
    char path[SMALL_PATH];

    if (which <= NEWEST) {
        snapshot_name(volume, &volume->snapshots[which], path);
        assert_int_equal(bench_drop_snapshot(model->bench, path), 0);
        volume->snapshots[which].exists = false;
        return;
    }
    if (which == EVERYTHING) {
        struct volume_delete other = { .name = { .pool = "p" } };
        unexport(model, &model->volumes[1], NULL);
        snprintf(other.name.volume, sizeof(other.name.volume), "v%u", model->volumes[1].number);
        assert_int_equal(bench_volume_delete(model->bench, &other), 0);
        model->volumes[1].exists = false;
    }
    unexport(model, volume, NULL);
    assert_int_equal(bench_volume_delete(model->bench, &delete), 0);
    volume->exists = false;
}

static uint32_t
running_jobs(struct model *model)
{
    struct job_query query = { 0 };
    uint32_t running = 0;

    assert_int_equal(bench_job_query(model->bench, &query), 0);
    for (uint32_t i = 0; i < query.ret_count; i++) {
        running += !query.ret_jobs[i].finished;
    }
    free(query.ret_jobs);
    return running;
}

/* False: it had ended before. */
static bool
kill_at_commit(struct model *model, uint64_t commit)
{
    struct sim *sim = model->bench->sim;
    uint64_t end = sim_store_calls(sim, "p", SIM_STORE_COMMIT) + commit;
    bool ended = false;

    while (!ended && sim_store_calls(sim, "p", SIM_STORE_COMMIT) < end) {
        assert_int_equal(sim_run_for(sim, 20 * NS_PER_US), 0);
        ended = running_jobs(model) == 0;
    }
    bench_kill(model->bench);
    return !ended;
}

static void
a_deletion_is_resumed(void **state)
{
    struct model *model = calloc(1, sizeof(*model));

    (void)state;
    assert_non_null(model);
    for (uint32_t which = 0; which < DELETIONS; which++) {
        uint64_t commit = 0;
        for (bool more = true; more; commit++) {
            model_begin(model, 1 + commit);
            build(model);
            delete_some(model, (enum deletion)which);
            more = kill_at_commit(model, commit);
            assert_int_equal(bench_boot(model->bench), 0);
            settle(model);
            model_end(model);
        }
        assert_true(commit > 1);
    }
    free(model);
}

/*
 * The head has a page in its cache, and the version below the page's own dies. What the head drops
 * afterwards it must free by itself, for nobody else will.
 */
static void
cached_pages_know_what_has_died(void **state)
{
    struct model *model = calloc(1, sizeof(*model));
    struct known_volume *volume = &model->volumes[0];

    (void)state;
    assert_non_null(model);
    model_begin(model, 1);
    for (uint32_t i = 0; i < 3; i++) {
        char path[SMALL_PATH];
        struct kept *kept = &volume->snapshots[i];
        write_blocks(model, volume, i * BLOCKS_PER_GRAIN, BLOCKS_PER_GRAIN, false);
        kept->number = i;
        snapshot_name(volume, kept, path);
        assert_int_equal(bench_make_snapshot(model->bench, path), 0);
        kept->exists = true;
        kept->content = volume->content;
    }
    flush_all(model);
    delete_some(model, MIDDLE);
    bench_wait_for_jobs(model->bench);
    delete_some(model, NEWEST);
    bench_wait_for_jobs(model->bench);
    write_blocks(model, volume, BLOCKS_PER_GRAIN, BLOCKS_PER_GRAIN, true);
    settle(model);
    model_end(model);
    free(model);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cached_pages_know_what_has_died),
        cmocka_unit_test(a_deletion_is_resumed),
        cmocka_unit_test(random_operations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
