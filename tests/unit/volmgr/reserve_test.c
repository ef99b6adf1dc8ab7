/* SPDX-License-Identifier: Apache-2.0 */
/* What is promised to volumes is there, and the sums of space never drift. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "base/util.h"
#include "volmgr/control_impl.h"

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct bench *
bench_with_pool(uint64_t seed, uint32_t reactor_count)
{
    struct bench *bench = bench_create(seed, reactor_count);

    log_set_level(LOG_LEVEL_ERROR - 1);
    bench_disk(bench, "/d/0", 64 * MIB);
    bench_disk(bench, "/d/1", 96 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    return bench;
}

static struct pool *
pool_of(struct bench *bench)
{
    return list_first(&bench->manager->pools, struct pool, link);
}

/*
 * Nothing is under way: recount everything from what is finest. Also that the promises are covered:
 * what is free is enough for what volumes have been promised and do not have.
 */
static void
recount(struct bench *bench)
{
    const struct pool *pool = pool_of(bench);
    const struct allocator *allocator = &pool->allocator;
    uint64_t slots_free = 0;
    uint64_t used_slots = 0;
    uint64_t used_grains = 0;
    uint64_t mapped_grains = 0;
    uint64_t owned = 0;
    uint64_t promised = 0;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        uint32_t used = 0;
        for (uint32_t slot = 0; slot < disk->record.slot_count; slot++) {
            used += (uint32_t)(disk->slots_used[slot / 64] >> (slot % 64) & 1);
        }
        assert_int_equal(disk->slots_free, disk->record.slot_count - used);
        slots_free += disk->slots_free;
        used_slots += used;
    }
    assert_int_equal(allocator->slots_free, slots_free);
    for (uint64_t id = 1; id < pool->extents.count_end; id++) {
        const struct extent *extent = extent_table_find(&pool->extents, id);
        if (extent == NULL) {
            continue;
        }
        used_slots -= extent->copy_count;
        uint32_t used = 0;
        for (uint32_t grain = 0; grain < pool->grains_per_extent; grain++) {
            used += (uint32_t)(extent->used[grain / 64] >> (grain % 64) & 1);
        }
        if (extent->state == EXTENT_STATE_DATA) {
            assert_int_equal(extent->free_count, pool->grains_per_extent - used);
            used_grains += used;
            owned += extent->owner_branch != 0 ? 1 : 0;
        }
    }
    assert_int_equal(used_slots, 0);
    list_for_each(&pool->volumes, link) {
        const struct volume *volume = list_entry(link, struct volume, pool_link);
        uint64_t wanted =
            div_round_up(volume->durable.reserve_bytes, pool->record.extent_bytes);
        mapped_grains += volume->mapped_grains;
        assert_true(owned >= volume->extents_owned);
        owned -= volume->extents_owned;
        promised += wanted > volume->extents_owned ? wanted - volume->extents_owned : 0;
    }
    assert_int_equal(owned, 0);
    assert_int_equal(mapped_grains, used_grains);
    assert_true(slots_free >= promised + allocator_metadata_reserve(allocator));
}

struct volume_kept {
    char path[32];
    struct volume *volume; /* held */
    uint64_t size_bytes;
    uint64_t reserve_bytes;
};

static void
hold(struct bench *bench, struct volume_kept *kept)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, kept->path, &lookup), 0);
    kept->volume = lookup.ret_volume;
}

static int
make(struct bench *bench, struct volume_kept *kept, const char *path, uint64_t size_bytes,
     uint64_t reserve_bytes)
{
    struct volume_create create = { .name = { .pool = "p" }, .size_bytes = size_bytes,
                                    .reserve_bytes = reserve_bytes, .tier = VOLUME_TIER_AUTO };

    snprintf(create.name.volume, sizeof(create.name.volume), "%s", path + 2);
    int result = bench_volume_create(bench, &create);
    if (result == 0) {
        *kept = (struct volume_kept){ .size_bytes = size_bytes, .reserve_bytes = reserve_bytes };
        snprintf(kept->path, sizeof(kept->path), "%s", path);
        assert_int_equal(bench_make_export(bench, path), 0);
        hold(bench, kept);
    }
    return result;
}

static void
drop(struct bench *bench, struct volume_kept *kept)
{
    struct export_delete delete = { .name = { .pool = "p" } };

    bench_release(bench, kept->volume);
    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", kept->path + 2);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    assert_int_equal(bench_delete_volume(bench, kept->path), 0);
    kept->volume = NULL;
}

static int
set_reserve(struct bench *bench, struct volume_kept *kept, uint64_t reserve_bytes)
{
    struct volume_set_reserve set = { .name = { .pool = "p" }, .reserve_bytes = reserve_bytes };

    snprintf(set.name.volume, sizeof(set.name.volume), "%s", kept->path + 2);
    int result = bench_volume_set_reserve(bench, &set);
    if (result == 0) {
        kept->reserve_bytes = reserve_bytes;
    }
    return result;
}

static void
settle(struct bench *bench)
{
    bench_wait_for_jobs(bench);
    bench_pass_time(bench, 3); /* commits, grants ahead, extents on their way back */
}

/* Write as many grains as fit until there is no space. */
static void
fill_up(struct bench *bench, struct volume_kept *kept)
{
    uint64_t at = 0;

    while (at < kept->size_bytes &&
           bench_fill(bench, kept->volume, at, 64 * KIB, 1) == 0) {
        at += 64 * KIB;
    }
    assert_true(at < kept->size_bytes);
}

/* The promise was counted only when its commit had ended; others got the space until then. */
static void
a_promise_counts_from_the_beginning(void **state)
{
    (void)state;
    for (uint32_t pause = 0; pause < 16; pause++) {
        struct bench *bench = bench_with_pool(40 + pause, 2);
        struct volume_kept greedy;
        struct volume_create create = { .name = { "p", "sure" }, .size_bytes = 10 * GIB,
                                        .tier = VOLUME_TIER_AUTO };
        struct volume_set_reserve set = { .name = { "p", "old" } };
        bool done = false;
        assert_int_equal(make(bench, &greedy, "p/greedy", 10 * GIB, 0), 0);
        assert_int_equal(bench_make_volume(bench, "p/old", 10 * GIB), 0);
        assert_int_equal(bench_fill(bench, greedy.volume, 0, (70 + pause / 2) * MIB, 1), 0);
        uint64_t available = allocator_available(&pool_of(bench)->allocator, NULL) * MIB;
        if (pause % 2 == 0) {
            create.reserve_bytes = available;
            bench_volume_create_start(bench, &create, &done);
        } else {
            set.reserve_bytes = available;
            bench_volume_set_reserve_start(bench, &set, &done);
        }
        int status = 0;
        for (uint64_t at = 100 * MIB; !done && status == 0; at += 256 * KIB) {
            status = bench_fill(bench, greedy.volume, at, 256 * KIB, 1);
        }
        assert_int_equal(bench_wait(bench, &done), 0);
        settle(bench);
        int result = pause % 2 == 0 ? create.control.op.result : set.control.op.result;
        assert_true(result == 0 || result == -ENOSPC);
        recount(bench);
        bench_release(bench, greedy.volume);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* With the pool full, a reserved volume takes every write up to its reserve, in any order. */
static void
a_reserve_can_be_written_and_written_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct bench *bench = bench_with_pool(seed, 1 + (uint32_t)seed % 3);
        struct volume_kept sure;
        struct volume_kept small;
        struct volume_kept greedy;
        assert_int_equal(make(bench, &sure, "p/sure", 20 * MIB, 20 * MIB), 0);
        assert_int_equal(make(bench, &small, "p/small", 3 * MIB, 3 * MIB), 0);
        assert_int_equal(make(bench, &greedy, "p/greedy", 10 * GIB, 0), 0);
        fill_up(bench, &greedy);
        for (uint32_t i = 0; i < 400; i++) {
            struct volume_kept *kept = i % 4 == 0 ? &small : &sure;
            uint64_t grain = sim_random_below(bench->sim, kept->size_bytes / (64 * KIB));
            uint64_t count = 1 + sim_random_below(bench->sim, 4);
            uint64_t length = MIN(count * 64 * KIB, kept->size_bytes - grain * 64 * KIB);
            if (sim_random_below(bench->sim, 3) == 0) {
                assert_int_equal(bench_io(bench, kept->volume, VOLUME_DISCARD, grain * 64 * KIB,
                                          NULL, length),
                                 0);
            } else {
                assert_int_equal(bench_fill(bench, kept->volume, grain * 64 * KIB, length, 2), 0);
            }
        }
        for (uint32_t round = 0; round < 2; round++) {
            assert_int_equal(bench_fill(bench, sure.volume, 0, 20 * MIB, 3), 0);
            assert_int_equal(bench_fill(bench, small.volume, 0, 3 * MIB, 4), 0);
        }
        assert_true(bench_check(bench, sure.volume, 0, 20 * MIB, 3));
        settle(bench);
        recount(bench);
        bench_release(bench, sure.volume);
        bench_release(bench, small.volume);
        bench_release(bench, greedy.volume);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* Each level once, however often the pool is at it; again only after it was left by a margin. */
static void
levels_are_told_once(void **state)
{
    struct bench *bench = bench_with_pool(7, 2);
    struct volume_kept volume;

    (void)state;
    assert_int_equal(make(bench, &volume, "p/v", 10 * GIB, 0), 0);
    for (uint32_t round = 1; round <= 3; round++) {
        fill_up(bench, &volume);
        for (uint32_t i = 0; i < 20; i++) { /* to and fro at the top */
            assert_int_equal(bench_io(bench, volume.volume, VOLUME_DISCARD, i * MIB, NULL, MIB),
                             0);
            settle(bench);
            bench_fill(bench, volume.volume, i * MIB, MIB, 1);
        }
        settle(bench);
        assert_int_equal(bench_events(bench, "pool-space-warning"), round);
        assert_int_equal(bench_events(bench, "pool-space-low"), round);
        assert_int_equal(bench_events(bench, "pool-space-critical"), round);
        assert_int_equal(bench_io(bench, volume.volume, VOLUME_DISCARD, 0, NULL, 200 * MIB), 0);
        settle(bench);
        assert_true(pool_taken_percent(pool_of(bench)) < 50);
    }
    bench_release(bench, volume.volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_reserve_that_is_used_up_is_told_once(void **state)
{
    struct bench *bench = bench_with_pool(8, 2);
    struct volume_kept more;
    struct volume_kept all;

    (void)state;
    assert_int_equal(make(bench, &more, "p/more", 1 * GIB, 10 * MIB), 0);
    assert_int_equal(make(bench, &all, "p/all", 10 * MIB, 10 * MIB), 0);
    assert_int_equal(bench_fill(bench, all.volume, 0, 10 * MIB, 1), 0);
    assert_int_equal(bench_fill(bench, more.volume, 0, 5 * MIB, 1), 0);
    settle(bench);
    assert_int_equal(bench_events(bench, "reserve-used-up"), 0);
    assert_int_equal(bench_fill(bench, more.volume, 0, 15 * MIB, 1), 0);
    assert_int_equal(bench_fill(bench, more.volume, 15 * MIB, 15 * MIB, 1), 0);
    settle(bench);
    assert_int_equal(bench_events(bench, "reserve-used-up"), 1);
    assert_int_equal(bench_io(bench, more.volume, VOLUME_DISCARD, 0, NULL, 30 * MIB), 0);
    settle(bench);
    assert_int_equal(bench_fill(bench, more.volume, 0, 15 * MIB, 1), 0);
    settle(bench);
    assert_int_equal(bench_events(bench, "reserve-used-up"), 2);
    bench_release(bench, more.volume);
    bench_release(bench, all.volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

enum {
    KEPT_MAX = 6
};

static uint64_t
random_size(struct bench *bench, uint64_t mib_max)
{
    return (1 + sim_random_below(bench->sim, mib_max)) * MIB;
}

/* One random step; refusals are part of it, but never of a write within a reserve. */
static void
step(struct bench *bench, struct volume_kept *all, uint32_t number)
{
    struct volume_kept *kept = &all[sim_random_below(bench->sim, KEPT_MAX)];
    char path[32];

    if (kept->volume == NULL) {
        snprintf(path, sizeof(path), "p/v%u", number);
        uint64_t size = random_size(bench, 60);
        uint64_t reserve =
            sim_random_below(bench->sim, 2) == 0 ? 0 : MIN(size, random_size(bench, 40));
        make(bench, kept, path, size, reserve);
        return;
    }
    uint64_t at = sim_random_below(bench->sim, kept->size_bytes / (64 * KIB)) * 64 * KIB;
    uint64_t length = MIN(random_size(bench, 4), kept->size_bytes - at);
    switch (sim_random_below(bench->sim, 10)) {
    case 0:
        drop(bench, kept);
        break;
    case 1:
        set_reserve(bench, kept, MIN(kept->size_bytes, random_size(bench, 40)));
        break;
    case 2:
        set_reserve(bench, kept, 0);
        break;
    case 3: {
        uint64_t size = random_size(bench, 60);
        if (bench_resize(bench, kept->path, size) == 0) {
            kept->size_bytes = size;
        }
        break;
    }
    case 4:
    case 5:
        assert_int_equal(bench_io(bench, kept->volume, VOLUME_DISCARD, at, NULL, length), 0);
        break;
    default: {
        int status = bench_fill(bench, kept->volume, at, length, 1);
        assert_true(status == 0 ||
                    (status == -ENOSPC && kept->reserve_bytes < kept->size_bytes));
    }
    }
}

static void
sums_do_not_drift(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct bench *bench = bench_with_pool(seed, 1 + (uint32_t)seed % 3);
        struct volume_kept all[KEPT_MAX] = { 0 };
        for (uint32_t number = 0; number < 150; number++) {
            step(bench, all, number);
            if (number % 10 != 9) {
                continue;
            }
            settle(bench);
            recount(bench);
            if (number % 30 == 29) {
                /* The sums after a restart are made from the records, and are the same. */
                uint64_t used = bench_pool_report(bench, "p").used_bytes;
                uint64_t reserved = bench_pool_report(bench, "p").reserved_bytes;
                if (number % 60 == 59) {
                    bench_kill(bench);
                } else {
                    for (uint32_t i = 0; i < KEPT_MAX; i++) {
                        if (all[i].volume != NULL) {
                            bench_release(bench, all[i].volume);
                        }
                    }
                    assert_int_equal(bench_shutdown(bench), 0);
                }
                assert_int_equal(bench_boot(bench), 0);
                for (uint32_t i = 0; i < KEPT_MAX; i++) {
                    if (all[i].volume != NULL) {
                        hold(bench, &all[i]);
                    }
                }
                settle(bench);
                recount(bench);
                assert_int_equal(bench_pool_report(bench, "p").used_bytes, used);
                assert_int_equal(bench_pool_report(bench, "p").reserved_bytes, reserved);
            }
        }
        for (uint32_t i = 0; i < KEPT_MAX; i++) {
            if (all[i].volume != NULL) {
                drop(bench, &all[i]);
            }
        }
        settle(bench);
        recount(bench);
        assert_int_equal(bench_pool_report(bench, "p").used_bytes, 0);
        assert_int_equal(bench_pool_report(bench, "p").reserved_bytes, 0);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_promise_counts_from_the_beginning),
        cmocka_unit_test(a_reserve_can_be_written_and_written_again),
        cmocka_unit_test(levels_are_told_once),
        cmocka_unit_test(a_reserve_that_is_used_up_is_told_once),
        cmocka_unit_test(sums_do_not_drift),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
