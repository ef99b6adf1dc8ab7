/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the metadata of a large pool takes to open, after a clean end and after a kill, and how
 * much memory the store takes meanwhile. With VOLMGR_TEST_LONG the size is that of the promise:
 * 10,000 volumes with 10 million mapped grains, which a restart serves within a second; otherwise a
 * sixteenth of it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/schema.h"

enum {
    VOLUMES = 10000,
    GRAINS = 10000000,
    GRAINS_PER_PAGE = 8, /* random I/O: most of a page is empty */
    GRAINS_PER_EXTENT = 64,
    SMALL_PART = 16,
    BATCH_BYTES = 1 << 20,
    LIMIT_MS = 1000,
    LIMIT_MIB = 512, /* for everything: the documented bound of the daemon */
};

struct scale {
    struct harness *harness;
    struct store *store;
    struct byte_buffer batch;
    uint64_t commit;
    uint32_t volumes;
    uint32_t extents;
    uint32_t pages;
    bool is_small;
};

static double
now_ms(const struct scale *scale)
{
    struct platform *platform = scale->harness->platform;
    return (double)platform->ops->monotonic_ns(platform) / NS_PER_MS;
}

/* Of all threads: what the same takes on a machine that has nothing else to do. */
static double
cpu_ms(void)
{
    struct timespec time;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time), 0);
    return (double)time.tv_sec * 1000 + (double)time.tv_nsec / NS_PER_MS;
}

static uint64_t
resident_mib(void)
{
    unsigned long long size = 0;
    unsigned long long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu %llu", &size, &resident), 2);
    fclose(file);
    return resident * 4096 / MIB;
}

static void
commit_when(struct scale *scale, size_t limit_bytes, bool sync)
{
    if (scale->batch.length_bytes > limit_bytes) {
        struct byte_buffer batch = scale->batch;
        scale->batch = (struct byte_buffer)BYTE_BUFFER_INIT;
        schema_put_commit(&batch, ++scale->commit);
        assert_int_equal(harness_commit(scale->harness, scale->store, &batch, sync), 0);
    }
}

static void
put_volume(struct scale *scale, uint64_t id)
{
    struct volume_record volume = {
        .id = id, .branch = id, .size_bytes = UINT64_C(1) << 40, .sector_bytes = 512, .copies = 1,
        .tier = VOLUME_TIER_AUTO,
    };
    struct branch_record branch = { .id = id, .family = id, .current_generation = 1 };
    struct branch_position position = { .batch = 5, .mapped_grains = GRAINS / VOLUMES };
    struct export_record export = { .id = id, .volume = id, .protocol = "nbd" };
    snprintf(volume.name, sizeof(volume.name), "volume-%llu", (unsigned long long)id);
    snprintf(export.name, sizeof(export.name), "pool/%s", volume.name);
    schema_put_volume(&scale->batch, &volume);
    schema_put_branch(&scale->batch, &branch);
    schema_put_position(&scale->batch, id, &position);
    schema_put_export(&scale->batch, &export);
}

static void
put_extent(struct scale *scale, uint64_t id)
{
    struct extent_record extent = {
        .owner_branch = 1 + id % scale->volumes, .state = EXTENT_STATE_DATA, .copy_count = 1,
        .places = { { 0, (uint32_t)id } }, .used = { UINT64_MAX },
    };
    schema_put_extent(&scale->batch, id, &extent, GRAINS_PER_EXTENT);
}

/* A page comes about as in life: by deltas. */
static void
merge_page(struct scale *scale, uint32_t number, struct random *random)
{
    uint8_t key[MAP_KEY_BYTES];
    struct byte_buffer deltas = BYTE_BUFFER_INIT;
    uint64_t grain = GRAINS_PER_EXTENT + (uint64_t)number * GRAINS_PER_PAGE;
    for (uint32_t n = 0; n < GRAINS_PER_PAGE; n++) {
        struct map_entry entry = {
            .home = grain + n, .home_generation = 1, .valid = (uint16_t)(random_u64(random) | 1),
        };
        map_delta_append(&deltas, n * 60 + (uint32_t)random_below(random, 60), &entry);
    }
    map_key_encode(key, 1 + number % scale->volumes, random_below(random, 32768), 1);
    store_batch_merge(&scale->batch, STORE_FAMILY_MAP, key, sizeof(key), deltas.data,
                      deltas.length_bytes);
    byte_buffer_free(&deltas);
}

static void
generate(struct scale *scale)
{
    struct random random;
    random_seed(&random, 77);
    for (uint64_t id = 1; id <= scale->volumes; id++) {
        put_volume(scale, id);
        commit_when(scale, BATCH_BYTES, false);
    }
    for (uint64_t id = 1; id <= scale->extents; id++) {
        put_extent(scale, id);
        commit_when(scale, BATCH_BYTES, false);
    }
    for (uint32_t n = 0; n < scale->pages; n++) {
        merge_page(scale, n, &random);
        commit_when(scale, BATCH_BYTES, false);
    }
    commit_when(scale, 0, true);
}

/* What a start takes. */
struct start_cost {
    double wall_ms;
    double cpu_ms;
};

/* Open and read what a pool reads at its start. */
static struct start_cost
start_over(struct scale *scale, const char *name, const char *what)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    double begin = now_ms(scale);
    double cpu = cpu_ms();
    assert_int_equal(harness_store_open(scale->harness, name, false, false, &scale->store), 0);
    double opened = now_ms(scale);
    double opened_cpu = cpu_ms();
    assert_int_equal(harness_scan(scale->harness, scale->store, STORE_FAMILY_SYSTEM, NULL, MIB,
                                  &items), 0);
    double system_read = now_ms(scale);
    assert_int_equal(harness_scan(scale->harness, scale->store, STORE_FAMILY_EXTENT, NULL, MIB,
                                  &items), 0);
    double extents_read = now_ms(scale);
    struct extent_record record;
    struct store_batch_item item;
    size_t position = 0;
    uint32_t count = 0;
    while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        assert_int_equal(extent_record_decode(item.value, item.value_bytes, GRAINS_PER_EXTENT,
                                              &record), 0);
        count++;
    }
    assert_int_equal(count, scale->extents);
    double end = now_ms(scale);
    byte_buffer_free(&items);
    print_message("after %-12s open %4.0f ms, system %3.0f, extents %3.0f + %3.0f, all %4.0f ms "
                  "(CPU %.0f + %.0f); resident %llu MiB, database %llu MiB\n",
                  what, opened - begin, system_read - opened, extents_read - system_read,
                  end - extents_read, end - begin, opened_cpu - cpu, cpu_ms() - opened_cpu,
                  (unsigned long long)resident_mib(),
                  (unsigned long long)(scale->store->ops->size_bytes(scale->store) / MIB));
    return (struct start_cost){ .wall_ms = end - begin, .cpu_ms = cpu_ms() - cpu };
}

/* On a shared machine it is the CPU time that must be small; the other in the long form only. */
static void
check_cost(const struct scale *scale, struct start_cost cost)
{
    assert_true(cost.cpu_ms < 4 * LIMIT_MS);
    assert_true(scale->is_small || cost.wall_ms < 4 * LIMIT_MS);
}

/* The files as a kill leaves them: as they are, while the database is open. */
static void
copy_as_killed(struct scale *scale)
{
    char command[1024];
    snprintf(command, sizeof(command), "rm -rf %s && cp -r %s %s",
             harness_path(scale->harness, "killed"), harness_path(scale->harness, "work"),
             harness_path(scale->harness, "killed"));
    assert_int_equal(system(command), 0);
}

static void
a_large_pool_opens_at_once(void **state)
{
    struct scale scale = { .harness = *state, .is_small = getenv("VOLMGR_TEST_LONG") == NULL };
    uint32_t part = scale.is_small ? SMALL_PART : 1;
    scale.volumes = VOLUMES / part;
    scale.extents = GRAINS / GRAINS_PER_EXTENT / part;
    scale.pages = GRAINS / GRAINS_PER_PAGE / part;
    assert_int_equal(harness_store_open(scale.harness, "work", true, false, &scale.store), 0);
    double begin = now_ms(&scale);
    generate(&scale);
    print_message("%u volumes, %u extents, %u pages made in %.0f ms; resident %llu MiB\n",
                  scale.volumes, scale.extents, scale.pages, now_ms(&scale) - begin,
                  (unsigned long long)resident_mib());
    copy_as_killed(&scale);
    begin = now_ms(&scale);
    scale.store->ops->close(scale.store);
    print_message("closed in %.0f ms\n", now_ms(&scale) - begin);

    check_cost(&scale, start_over(&scale, "work", "a clean end"));
    scale.store->ops->close(scale.store);
    check_cost(&scale, start_over(&scale, "killed", "a kill"));
    assert_true(resident_mib() < LIMIT_MIB);
    scale.store->ops->close(scale.store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_pool_opens_at_once),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
