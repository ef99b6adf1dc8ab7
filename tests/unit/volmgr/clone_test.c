/* SPDX-License-Identifier: Apache-2.0 */
/* Clones: independent of what they were made from, whatever is deleted first. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/core_impl.h"

#define DISK_BYTES (256 * MIB)

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct bench *
bench_with_pool(uint32_t reactor_count)
{
    struct bench *bench = bench_create(31, reactor_count);

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    return bench;
}

static struct volume *
hold(struct bench *bench, const char *name)
{
    struct export_lookup lookup;
    int result = bench_make_export(bench, name);

    assert_true(result == 0 || result == -EEXIST);
    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

static void
let_go(struct bench *bench, struct volume *volume, const char *name)
{
    struct export_delete delete = { .name = { .pool = "p" } };

    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", name);
    bench_release(bench, volume);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
}

static uint64_t
used_bytes(struct bench *bench)
{
    struct pool_report pool = bench_pool_report(bench, "p");
    return pool.allocated_bytes - pool.trapped_bytes;
}

static int
delete_whole(struct bench *bench, const char *name)
{
    struct volume_delete delete = { .name = { .pool = "p" }, .snapshots = true };

    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", name);
    return bench_volume_delete(bench, &delete);
}

static void
a_clone_and_its_origin_go_separate_ways(void **state)
{
    (void)state;
    for (uint32_t reactors = 1; reactors <= 3; reactors++) {
        struct bench *bench = bench_with_pool(reactors);
        struct volume_report report;
        assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
        struct volume *volume = hold(bench, "p/v");
        assert_int_equal(bench_fill(bench, volume, 0, 4 * MIB, 1), 0);
        assert_int_equal(bench_make_snapshot(bench, "p/v@s"), 0);
        assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 2), 0);
        uint64_t before = used_bytes(bench);
        assert_int_equal(bench_make_clone(bench, "p/v@s", "p/c"), 0);
        assert_int_equal(bench_make_clone(bench, "p/v@s", "p/c"), -EEXIST);
        assert_int_equal(bench_make_clone(bench, "p/v@t", "p/d"), -ENOENT);
        assert_int_equal(bench_make_clone(bench, "p/v@s", "q/d"), -EXDEV);
        assert_int_equal(used_bytes(bench), before); /* nothing is copied */
        struct volume *clone = hold(bench, "p/c");
        assert_true(bench_check(bench, clone, 0, 4 * MIB, 1));
        assert_int_equal(bench_fill(bench, clone, 2 * MIB, 100 * KIB, 3), 0);
        assert_int_equal(bench_fill(bench, volume, 3 * MIB, 100 * KIB, 4), 0);
        assert_int_equal(bench_make_snapshot(bench, "p/c@s"), 0); /* names are a volume's own */
        assert_int_equal(bench_fill(bench, clone, 0, 64 * KIB, 5), 0);
        assert_true(bench_volume_report(bench, "p/c", &report));
        assert_true(report.has_parent);
        assert_string_equal(report.parent.volume, "v");
        assert_string_equal(report.parent.snapshot, "s");
        assert_int_equal(report.snapshot_count, 1);

        let_go(bench, volume, "v");
        let_go(bench, clone, "c");
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        volume = hold(bench, "p/v");
        clone = hold(bench, "p/c");
        struct volume *kept = bench_hold_snapshot(bench, "p/c@s");
        assert_true(bench_check(bench, kept, 0, 2 * MIB, 1));
        assert_true(bench_check(bench, kept, 2 * MIB, 100 * KIB, 3));
        assert_true(bench_check(bench, clone, 0, 64 * KIB, 5));
        assert_true(bench_check(bench, clone, 64 * KIB, 2 * MIB - 64 * KIB, 1));
        assert_true(bench_check(bench, clone, 2 * MIB, 100 * KIB, 3));
        assert_true(bench_check(bench, clone, 2 * MIB + 100 * KIB, 1 * MIB, 1));
        assert_true(bench_check(bench, volume, 0, 1 * MIB, 2));
        assert_true(bench_check(bench, volume, 1 * MIB, 2 * MIB, 1));
        assert_true(bench_check(bench, volume, 3 * MIB, 100 * KIB, 4));
        bench_release(bench, kept);
        bench_release(bench, clone);
        bench_release(bench, volume);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* Origin, snapshot and clone can be deleted in any order, and everything comes back at the end. */
static void
whatever_is_deleted_first_the_rest_stays(void **state)
{
    static const char *const orders[] = { "vsc", "svc", "csv", "scv", "cvs" };

    (void)state;
    for (uint32_t n = 0; n < ARRAY_SIZE(orders); n++) {
        struct bench *bench = bench_with_pool(2);
        bool has_origin = true;
        bool has_snapshot = true;
        bool has_clone = true;
        assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
        struct volume *volume = hold(bench, "p/v");
        assert_int_equal(bench_fill(bench, volume, 0, 4 * MIB, 1), 0);
        assert_int_equal(bench_make_snapshot(bench, "p/v@s"), 0);
        assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 2), 0);
        assert_int_equal(bench_make_clone(bench, "p/v@s", "p/c"), 0);
        struct volume *clone = hold(bench, "p/c");
        assert_int_equal(bench_fill(bench, clone, 1 * MIB, 1 * MIB, 3), 0);
        let_go(bench, clone, "c");
        let_go(bench, volume, "v");
        for (const char *what = orders[n]; *what != '\0'; what++) {
            if (*what == 's' && has_origin) {
                assert_int_equal(bench_drop_snapshot(bench, "p/v@s"), 0);
            } else if (*what == 'v') {
                assert_int_equal(delete_whole(bench, "v"), 0);
            } else if (*what == 'c') {
                assert_int_equal(delete_whole(bench, "c"), 0);
            }
            has_origin = has_origin && *what != 'v';
            has_snapshot = has_snapshot && has_origin && *what != 's';
            has_clone = has_clone && *what != 'c';
            bench_wait_for_jobs(bench);
            if (what == orders[n]) { /* once in between over a restart, too */
                assert_int_equal(bench_shutdown(bench), 0);
                assert_int_equal(bench_boot(bench), 0);
                bench_wait_for_jobs(bench);
            }
            if (has_origin) {
                volume = hold(bench, "p/v");
                assert_true(bench_check(bench, volume, 0, 1 * MIB, 2));
                assert_true(bench_check(bench, volume, 1 * MIB, 3 * MIB, 1));
                let_go(bench, volume, "v");
            }
            if (has_clone) {
                clone = hold(bench, "p/c");
                assert_true(bench_check(bench, clone, 0, 1 * MIB, 1));
                assert_true(bench_check(bench, clone, 1 * MIB, 1 * MIB, 3));
                assert_true(bench_check(bench, clone, 2 * MIB, 2 * MIB, 1));
                let_go(bench, clone, "c");
            }
            uint64_t wanted = !has_origin && !has_clone              ? 0
                              : !has_clone && !has_snapshot          ? 4 * MIB
                              : !has_clone                           ? 5 * MIB
                              : !has_origin                          ? 4 * MIB
                                                                     : 6 * MIB;
            assert_int_equal(used_bytes(bench), wanted);
        }
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

static void
a_clone_of_a_volume_is_one_of_now(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct snapshot_query query = { .hidden = true };

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    struct volume *volume = hold(bench, "p/v");
    assert_int_equal(bench_fill(bench, volume, 0, 2 * MIB, 1), 0);
    assert_int_equal(bench_make_clone(bench, "p/v", "p/v"), -EEXIST);
    assert_int_equal(bench_make_clone(bench, "p/v", "p/c"), 0);
    assert_int_equal(bench_fill(bench, volume, 0, 2 * MIB, 2), 0);
    struct volume *clone = hold(bench, "p/c");
    assert_true(bench_check(bench, clone, 0, 2 * MIB, 1));
    let_go(bench, clone, "c");
    assert_int_equal(bench_snapshot_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 1);
    assert_int_equal(query.ret_snapshots[0].clone_count, 1);
    assert_string_equal(query.ret_snapshots[0].name.snapshot, "");
    free(query.ret_snapshots);
    assert_int_equal(delete_whole(bench, "c"), 0);
    bench_wait_for_jobs(bench);
    assert_int_equal(bench_snapshot_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 0);
    free(query.ret_snapshots);
    assert_int_equal(used_bytes(bench), 2 * MIB);
    assert_true(bench_check(bench, volume, 0, 2 * MIB, 2));
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* The clone is there with all that it needs, or not at all. */
static void
a_crash_leaves_the_clone_or_nothing(void **state)
{
    uint32_t with = 0;
    uint32_t without = 0;

    (void)state;
    for (uint32_t at_us = 0; at_us < 5000; at_us += 125) {
        struct bench *bench = bench_with_pool(2);
        struct volume_clone clone = {
            .from = { .pool = "p", .volume = "v" },
            .name = { .pool = "p", .volume = "c" },
            .tier = VOLUME_TIER_AUTO,
        };
        struct snapshot_query query = { .hidden = true };
        struct volume_report report;
        bool done = false;
        assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
        struct volume *volume = hold(bench, "p/v");
        assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 1), 0);
        bench_volume_clone_start(bench, &clone, &done);
        sim_run_for(bench->sim, at_us * 1000);
        bench_forget(&clone.control);
        if (at_us % 250 == 0) {
            bench_kill(bench);
        } else {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        assert_int_equal(bench_boot(bench), 0);
        bench_wait_for_jobs(bench);
        bool found = bench_volume_report(bench, "p/c", &report);
        assert_true(found || !done);
        with += found;
        without += !found;
        if (found) {
            volume = hold(bench, "p/c");
            assert_true(bench_check(bench, volume, 0, 1 * MIB, 1));
            bench_release(bench, volume);
        }
        assert_int_equal(bench_snapshot_query(bench, &query), 0);
        assert_int_equal(query.ret_count, found ? 1 : 0);
        free(query.ret_snapshots);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
    assert_true(with > 0 && without > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clone_and_its_origin_go_separate_ways),
        cmocka_unit_test(whatever_is_deleted_first_the_rest_stays),
        cmocka_unit_test(a_clone_of_a_volume_is_one_of_now),
        cmocka_unit_test(a_crash_leaves_the_clone_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
