/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting a pool: only an empty one, all of it, and wherever the daemon dies. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/control_impl.h"

#define DISK_BYTES (128 * MIB)

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct bench *
bench_with_pool(void)
{
    struct bench *bench = bench_create(11, 2);

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    return bench;
}

static int
delete_pool(struct bench *bench, bool force)
{
    struct pool_delete delete = { .name = "p", .force = force };
    return bench_pool_delete(bench, &delete);
}

static uint32_t
pool_count(struct bench *bench)
{
    struct pool_query query = { 0 };
    assert_int_equal(bench_pool_query(bench, &query), 0);
    uint32_t count = query.ret_count;
    pool_query_free(&query);
    return count;
}

static void
an_empty_pool_leaves_nothing_behind(void **state)
{
    struct bench *bench = bench_with_pool();

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 64 * MIB), 0);
    struct export_lookup lookup;
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    assert_int_equal(bench_fill(bench, lookup.ret_volume, 0, 3 * MIB, 1), 0);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(delete_pool(bench, false), -EBUSY);
    assert_non_null(strstr(bench->error.message, "`p/v`"));
    assert_int_equal(delete_pool(bench, true), -EBUSY);

    struct export_delete unexport = { .name = { .pool = "p", .volume = "v" } };
    assert_int_equal(bench_export_delete(bench, &unexport), 0);
    assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
    /* Its space is still coming back. */
    assert_int_equal(delete_pool(bench, false), 0);
    assert_int_equal(pool_count(bench), 0);
    assert_int_equal(bench_events(bench, "pool-deleted"), 1);
    assert_false(sim_store_exists(bench->sim, "p"));
    assert_int_equal(bench_volatile_count(bench), 0);
    assert_int_equal(delete_pool(bench, false), -ENOENT);
    /* The disks are free for anybody, and the name is. */
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
operations_behind_it_fail_in_words(void **state)
{
    struct bench *bench = bench_with_pool();
    struct pool_delete delete = { .name = "p" };
    struct pool_delete again = { .name = "p" };
    struct volume_create create = { .name = { .pool = "p", .volume = "v" }, .size_bytes = MIB };
    bool done[3] = { false };

    (void)state;
    bench_pool_delete_start(bench, &delete, &done[0]);
    bench_volume_create_start(bench, &create, &done[1]);
    bench_pool_delete_start(bench, &again, &done[2]);
    for (uint32_t i = 0; i < ARRAY_SIZE(done); i++) {
        assert_int_equal(bench_wait(bench, &done[i]), 0);
    }
    assert_int_equal(delete.control.error.code, 0);
    assert_int_equal(create.control.error.code, -ESHUTDOWN);
    assert_int_equal(again.control.error.code, -ESHUTDOWN);
    assert_true(create.control.error.message[0] != '\0');
    assert_int_equal(pool_count(bench), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_volume_that_was_first_keeps_its_pool(void **state)
{
    struct bench *bench = bench_with_pool();
    struct pool_delete delete = { .name = "p" };
    struct volume_create create = { .name = { .pool = "p", .volume = "v" }, .size_bytes = MIB };
    bool done[2] = { false };

    (void)state;
    bench_volume_create_start(bench, &create, &done[0]);
    bench_pool_delete_start(bench, &delete, &done[1]);
    assert_int_equal(bench_wait(bench, &done[0]), 0);
    assert_int_equal(bench_wait(bench, &done[1]), 0);
    assert_int_equal(create.control.error.code, 0);
    assert_int_equal(delete.control.error.code, -EBUSY);
    /* And serves. */
    struct export_lookup lookup;
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    assert_int_equal(bench_fill(bench, lookup.ret_volume, 0, 64 * KIB, 1), 0);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_pool_that_is_not_whole_wants_force(void **state)
{
    struct bench *bench = bench_with_pool();
    static const char hidden[] = "/d/1";

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", MIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/0"), true);
    sim_disk_set_missing(sim_disk_find(bench->sim, hidden), true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(delete_pool(bench, false), -ENODEV);
    assert_non_null(strstr(bench->error.message, "--force"));
    assert_int_equal(delete_pool(bench, true), 0);
    assert_false(sim_store_exists(bench->sim, "p"));
    assert_int_equal(bench_shutdown(bench), 0);
    /* What the disks hold is there still: the pool comes back with its volume. */
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/0"), false);
    sim_disk_set_missing(sim_disk_find(bench->sim, hidden), false);
    assert_int_equal(bench_boot(bench), 0);
    struct disk_argument disks[2] = { { .spec = "/d/0" }, { .spec = "/d/1" } };
    struct pool_import import = { .disk_count = 2, .disks = disks };
    assert_int_equal(bench_pool_import(bench, &import), 0);
    struct volume_report report;
    assert_true(bench_volume_report(bench, "p/v", &report));
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Death at each operation: the pool is there, empty; or offline, and can be forgotten; or gone. */
static void
death_leaves_nothing_in_the_way(void **state)
{
    bool finished = false;
    uint32_t seen[2] = { 0 };

    (void)state;
    for (uint32_t n = 1; !finished; n++) {
        struct bench *bench = bench_with_pool();
        struct pool_delete delete = { .name = "p" };
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + n);
        finished = bench_pool_delete(bench, &delete) != -ECANCELED;
        if (finished) {
            sim_stop_at(bench->sim, 0);
            assert_int_equal(bench_shutdown(bench), 0);
            bench_free(bench);
            break;
        }
        bench_kill(bench);
        sim_stop_at(bench->sim, 0);
        assert_int_equal(bench_boot(bench), 0);
        bool is_here = pool_count(bench) > 0;
        seen[is_here]++;
        if (is_here) {
            assert_int_equal(delete_pool(bench, true), 0);
        }
        assert_int_equal(bench_make_pool(bench, "p", TWO, true), 0);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
    assert_true(seen[true] > 0);
}

/* The daemon is told to end while a pool is being deleted, at any point of that. */
static void
the_daemon_ends_while_a_pool_is_deleted(void **state)
{
    (void)state;
    for (uint32_t turn = 0; turn < 60; turn++) {
        struct bench *bench = bench_with_pool();
        struct pool_delete delete = { .name = "p" };
        bool done = false;

        bench_pool_delete_start(bench, &delete, &done);
        sim_run_for(bench->sim, turn * turn * 10 * NS_PER_US); /* up to 35 ms */
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_pool_leaves_nothing_behind),
        cmocka_unit_test(the_daemon_ends_while_a_pool_is_deleted),
        cmocka_unit_test(operations_behind_it_fail_in_words),
        cmocka_unit_test(a_volume_that_was_first_keeps_its_pool),
        cmocka_unit_test(a_pool_that_is_not_whole_wants_force),
        cmocka_unit_test(death_leaves_nothing_in_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
