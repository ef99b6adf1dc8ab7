/* SPDX-License-Identifier: Apache-2.0 */
/* Freeing the space of deleted volumes when something is not as it should be. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/core_impl.h"

static const char *const ONE[] = { "/d/0", NULL };

static struct bench *
bench_with_pool(uint32_t reactor_count)
{
    struct bench *bench = bench_create(21, reactor_count);

    bench_disk(bench, "/d/0", 256 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    return bench;
}

/* Exported for as long as this takes. */
static void
fill(struct bench *bench, const char *path, uint64_t length_bytes)
{
    struct export_lookup lookup;
    struct export_delete delete = { .name = { .pool = "p" } };

    assert_int_equal(bench_make_export(bench, path), 0);
    assert_int_equal(bench_lookup(bench, 0, path, &lookup), 0);
    assert_int_equal(bench_fill(bench, lookup.ret_volume, 0, length_bytes, 1), 0);
    assert_int_equal(bench_io(bench, lookup.ret_volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    bench_release(bench, lookup.ret_volume);
    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", path + 2);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
}

/* ---- damage: what no run of the manager writes ---- */

/* An extent of the volume, and a grain of it that is free. */
static grain_address
free_grain_of(struct bench *bench, const char *path, uint64_t *ret_branch)
{
    struct export_lookup lookup;
    grain_address found = GRAIN_NONE;

    assert_int_equal(bench_make_export(bench, path), 0);
    assert_int_equal(bench_lookup(bench, 0, path, &lookup), 0);
    const struct pool *pool = lookup.ret_volume->pool;
    *ret_branch = lookup.ret_volume->branch.id;
    for (uint64_t id = 1; id < pool->extents.count_end; id++) {
        const struct extent *extent = extent_table_find(&pool->extents, id);
        if (extent != NULL && extent->owner_branch == *ret_branch && extent->free_count > 1 &&
            extent->free_count < pool->grains_per_extent) {
            found = (id << pool->grains_shift) | (pool->grains_per_extent - 1);
        }
    }
    bench_release(bench, lookup.ret_volume);
    struct export_delete delete = { .name = { .pool = "p" } };
    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", path + 2);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    assert_int_not_equal(found, GRAIN_NONE);
    return found;
}

static void
mark_used(struct bench *bench, grain_address grain, struct byte_buffer *batch)
{
    const uint32_t grains_per_extent = MIB / GRAIN_BYTES;
    struct byte_buffer operand = BYTE_BUFFER_INIT;
    uint8_t key[EXTENT_KEY_BYTES];

    (void)bench;
    extent_key_encode(key, grain / grains_per_extent);
    extent_use_append(&operand, true, (uint32_t)(grain % grains_per_extent), 1);
    store_batch_merge(batch, STORE_FAMILY_EXTENT, key, sizeof(key), operand.data,
                      operand.length_bytes);
    byte_buffer_free(&operand);
}

static struct job_report
last_job(struct bench *bench)
{
    struct job_query query = { 0 };

    assert_int_equal(bench_job_query(bench, &query), 0);
    assert_true(query.ret_count > 0);
    struct job_report report = query.ret_jobs[query.ret_count - 1];
    free(query.ret_jobs);
    return report;
}

/* An owned extent kept a bit that no map accounts for, and the job waited for it for ever. */
static void
a_stray_use_bit_does_not_hold_the_space(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    uint64_t branch = 0;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    assert_int_equal(bench_make_volume(bench, "p/other", 1 * GIB), 0);
    fill(bench, "p/v", 70 * MIB + 64 * KIB);
    fill(bench, "p/other", 70 * MIB + 64 * KIB);
    grain_address grain = free_grain_of(bench, "p/v", &branch);
    assert_int_equal(bench_shutdown(bench), 0);
    mark_used(bench, grain, &batch);
    bench_poke_database(bench, &batch);
    byte_buffer_free(&batch);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
    bench_wait_for_jobs(bench);
    assert_int_equal(last_job(bench).result, 0);
    assert_int_equal(bench_events(bench, "stray-extents-freed"), 1);
    assert_int_equal(bench_events(bench, "volume-erased"), 1);
    assert_int_equal(bench_shutdown(bench), 0); /* the checker finds nothing wrong */
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_delete_volume(bench, "p/other"), 0);
    bench_wait_for_jobs(bench);
    bench_pass_time(bench, 1);
    assert_true(bench_pool_report(bench, "p").allocated_bytes <= 2 * MIB); /* kept for the next */
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Another volume's map names the grain: freeing it would give that volume's data away. */
static void
what_another_map_names_is_not_freed(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct byte_buffer page = BYTE_BUFFER_INIT;
    struct map_entry *entries = calloc(MAP_PAGE_ENTRIES, sizeof(*entries));
    uint8_t key[MAP_KEY_BYTES];
    uint64_t branch = 0;
    uint64_t other = 0;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    assert_int_equal(bench_make_volume(bench, "p/other", 1 * GIB), 0);
    fill(bench, "p/v", 70 * MIB + 64 * KIB);
    fill(bench, "p/other", 70 * MIB + 64 * KIB);
    free_grain_of(bench, "p/other", &other);
    grain_address grain = free_grain_of(bench, "p/v", &branch);
    assert_int_equal(bench_shutdown(bench), 0);
    mark_used(bench, grain, &batch);
    entries[7] = (struct map_entry){ .home = grain, .home_generation = 1, .valid = 1 };
    map_page_encode(entries, &page);
    map_key_encode(key, other, 30, 1);
    store_batch_put(&batch, STORE_FAMILY_MAP, key, sizeof(key), page.data, page.length_bytes);
    schema_put_link(&batch, &(struct history_link){ .branch = other, .version = 1, .page = 30 });
    bench_poke_database(bench, &batch);
    byte_buffer_free(&batch);
    byte_buffer_free(&page);
    free(entries);
    bench->made_up = true;
    for (uint32_t run = 0; run < 2; run++) { /* the next start tries again, and tells again */
        assert_int_equal(bench_boot(bench), 0);
        if (run == 0) {
            assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
        }
        bench_wait_for_jobs(bench);
        assert_int_equal(last_job(bench).result, -EUCLEAN);
        assert_non_null(strstr(last_job(bench).text, "volctl check"));
        assert_int_equal(bench_events(bench, "delete-stopped"), 1);
        assert_int_equal(bench_events(bench, "stray-extents-freed"), 0);
        assert_int_equal(bench_pool_report(bench, "p").volume_count, 1);
        assert_int_equal(bench_shutdown(bench), 0);
    }
    bench_free(bench);
}

/* A page of the map that cannot be decoded stopped the job at every start. */
static void
a_damaged_page_does_not_hold_the_space(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    uint8_t key[MAP_KEY_BYTES];
    uint64_t branch = 0;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    fill(bench, "p/v", 130 * MIB + 64 * KIB);
    free_grain_of(bench, "p/v", &branch);
    assert_int_equal(bench_shutdown(bench), 0);
    map_key_encode(key, branch, 3, 1);
    store_batch_put(&batch, STORE_FAMILY_MAP, key, sizeof(key), "not a page", 10);
    bench_poke_database(bench, &batch);
    byte_buffer_free(&batch);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
    bench_wait_for_jobs(bench);
    assert_int_equal(last_job(bench).result, 0);
    assert_int_equal(bench_events(bench, "stray-extents-freed"), 1);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_report(bench, "p").volume_count, 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Many at once stand in line; the end of the daemon and the next start lose none. */
static void
many_deletions_take_turns(void **state)
{
    enum { VOLUMES = 24 };
    struct bench *bench = bench_with_pool(3);
    char path[32];

    (void)state;
    for (uint32_t i = 0; i < VOLUMES; i++) {
        snprintf(path, sizeof(path), "p/v%u", i);
        assert_int_equal(bench_make_volume(bench, path, 1 * GIB), 0);
        fill(bench, path, 5 * MIB);
    }
    for (uint32_t i = 0; i < VOLUMES; i++) {
        snprintf(path, sizeof(path), "p/v%u", i);
        assert_int_equal(bench_delete_volume(bench, path), 0);
    }
    struct job_query query = { 0 };
    uint32_t running = 0;
    assert_int_equal(bench_job_query(bench, &query), 0);
    for (uint32_t i = 0; i < query.ret_count; i++) {
        running += query.ret_jobs[i].finished ? 0 : 1;
    }
    free(query.ret_jobs);
    assert_true(running > 2);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    bench_wait_for_jobs(bench);
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, 0);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 1);
    assert_int_equal(bench_pool_report(bench, "p").allocated_bytes, 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stray_use_bit_does_not_hold_the_space),
        cmocka_unit_test(what_another_map_names_is_not_freed),
        cmocka_unit_test(a_damaged_page_does_not_hold_the_space),
        cmocka_unit_test(many_deletions_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
