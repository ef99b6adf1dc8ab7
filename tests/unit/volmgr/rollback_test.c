/* SPDX-License-Identifier: Apache-2.0 */
/* Rollback: the volume is what its snapshot was, and everything else is as before. */
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
    struct bench *bench = bench_create(41, reactor_count);

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    return bench;
}

static struct volume *
look_up(struct bench *bench, const char *name)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

static void
fill(struct bench *bench, uint64_t offset_bytes, uint64_t length_bytes, uint8_t seed)
{
    struct volume *volume = look_up(bench, "p/v");

    assert_int_equal(bench_fill(bench, volume, offset_bytes, length_bytes, seed), 0);
    bench_release(bench, volume);
}

static bool
has(struct bench *bench, const char *path, uint64_t offset_bytes, uint64_t length_bytes,
    uint8_t seed)
{
    struct volume *volume =
        strchr(path, '@') != NULL ? bench_hold_snapshot(bench, path) : look_up(bench, path);
    bool same = bench_check(bench, volume, offset_bytes, length_bytes, seed);

    bench_release(bench, volume);
    return same;
}

static uint64_t
used_bytes(struct bench *bench)
{
    struct pool_report pool = bench_pool_report(bench, "p");
    return pool.allocated_bytes - pool.trapped_bytes;
}

static void
session_event(struct volume_session *session, enum volume_session_event event)
{
    (void)session;
    (void)event;
}

static void
a_volume_goes_back_and_on(void **state)
{
    struct volume_session host = {
        .protocol = "nbd", .peer = "tcp:10.0.0.1:5", .event = session_event,
    };

    (void)state;
    for (uint32_t restart = 0; restart < 2; restart++) {
        struct bench *bench = bench_with_pool(2);
        fill(bench, 0, 2 * MIB, 1);
        assert_int_equal(bench_make_snapshot(bench, "p/v@one"), 0);
        fill(bench, 0, 1 * MIB, 2);
        assert_int_equal(bench_make_snapshot(bench, "p/v@two"), 0);
        fill(bench, 512 * KIB, 1 * MIB, 3);
        struct volume *volume = look_up(bench, "p/v");
        assert_int_equal(bench_attach(bench, volume, &host), 0);
        assert_int_equal(bench_roll_back(bench, "p/v@one"), -EBUSY);
        bench_detach(bench, &host);
        bench_release(bench, volume);
        assert_int_equal(bench_roll_back(bench, "p/v@three"), -ENOENT);
        assert_int_equal(bench_roll_back(bench, "p/v@one"), 0);
        if (restart == 1) {
            bench_kill(bench);
            assert_int_equal(bench_boot(bench), 0);
        }
        assert_true(has(bench, "p/v", 0, 2 * MIB, 1));
        assert_true(has(bench, "p/v@one", 0, 2 * MIB, 1));
        assert_true(has(bench, "p/v@two", 0, 1 * MIB, 2));
        assert_true(has(bench, "p/v@two", 1 * MIB, 1 * MIB, 1));
        bench_wait_for_jobs(bench);
        assert_int_equal(used_bytes(bench), 3 * MIB);
        /* On from there, with snapshots of its own. */
        fill(bench, 1 * MIB, 1 * MIB, 4);
        assert_int_equal(bench_make_snapshot(bench, "p/v@three"), 0);
        fill(bench, 0, 64 * KIB, 5);
        assert_true(has(bench, "p/v@three", 0, 1 * MIB, 1));
        assert_true(has(bench, "p/v@three", 1 * MIB, 1 * MIB, 4));
        /* Forth to a later one of the line that was given up, and back again. */
        assert_int_equal(bench_roll_back(bench, "p/v@two"), 0);
        assert_true(has(bench, "p/v", 0, 1 * MIB, 2));
        assert_true(has(bench, "p/v", 1 * MIB, 1 * MIB, 1));
        assert_int_equal(bench_roll_back(bench, "p/v@three"), 0);
        assert_true(has(bench, "p/v", 0, 1 * MIB, 1));
        assert_true(has(bench, "p/v", 1 * MIB, 1 * MIB, 4));
        assert_true(has(bench, "p/v@two", 0, 1 * MIB, 2));
        bench_wait_for_jobs(bench);
        assert_int_equal(used_bytes(bench), 4 * MIB);
        /* Everything can go, the names first. */
        static const char *const names[] = { "one", "two", "three" };
        for (uint32_t i = 0; i < 3; i++) {
            struct export_delete delete = { .name = { .pool = "p", .volume = "v" } };
            snprintf(delete.name.snapshot, sizeof(delete.name.snapshot), "%s", names[i]);
            assert_int_equal(bench_export_delete(bench, &delete), 0);
        }
        assert_int_equal(bench_drop_snapshot(bench, "p/v@one"), 0);
        assert_int_equal(bench_drop_snapshot(bench, "p/v@two"), 0);
        assert_int_equal(bench_drop_snapshot(bench, "p/v@three"), 0);
        bench_wait_for_jobs(bench);
        assert_true(has(bench, "p/v", 0, 1 * MIB, 1));
        assert_true(has(bench, "p/v", 1 * MIB, 1 * MIB, 4));
        assert_int_equal(used_bytes(bench), 2 * MIB);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        assert_true(has(bench, "p/v", 1 * MIB, 1 * MIB, 4));
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

static void
the_size_goes_back_too(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume_report report;

    (void)state;
    fill(bench, 900 * MIB, 1 * MIB, 1);
    assert_int_equal(bench_make_snapshot(bench, "p/v@large"), 0);
    /* What the snapshot holds behind the new end does not matter: the head has nothing there. */
    assert_int_equal(bench_resize(bench, "p/v", 100 * MIB), -ENOTEMPTY);
    struct volume *volume = look_up(bench, "p/v");
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 900 * MIB, NULL, 1 * MIB), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_resize(bench, "p/v", 100 * MIB), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@small"), 0);
    assert_int_equal(bench_resize(bench, "p/v", 2 * GIB), 0);
    assert_true(has(bench, "p/v@large", 900 * MIB, 1 * MIB, 1));
    assert_int_equal(bench_roll_back(bench, "p/v@large"), 0);
    assert_true(bench_volume_report(bench, "p/v", &report));
    assert_int_equal(report.info.size_bytes, 1 * GIB);
    assert_true(has(bench, "p/v", 900 * MIB, 1 * MIB, 1));
    assert_int_equal(bench_roll_back(bench, "p/v@small"), 0);
    assert_true(bench_volume_report(bench, "p/v", &report));
    assert_int_equal(report.info.size_bytes, 100 * MIB);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* After a crash it is the old head or the snapshot, never anything between. */
static void
a_crash_leaves_it_before_or_after(void **state)
{
    uint32_t before = 0;
    uint32_t after = 0;

    (void)state;
    for (uint32_t at_us = 0; at_us < 3000; at_us += 75) {
        struct bench *bench = bench_with_pool(2);
        struct volume_rollback rollback = {
            .name = { .pool = "p", .volume = "v", .snapshot = "s" },
        };
        bool done = false;
        fill(bench, 0, 1 * MIB, 1);
        assert_int_equal(bench_make_snapshot(bench, "p/v@s"), 0);
        fill(bench, 0, 1 * MIB, 2);
        bench_volume_rollback_start(bench, &rollback, &done);
        sim_run_for(bench->sim, at_us * 1000);
        bench_forget(&rollback.control);
        if (at_us % 150 == 0) {
            bench_kill(bench);
        } else {
            struct volume *volume = look_up(bench, "p/v");
            bench_release(bench, volume);
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        assert_int_equal(bench_boot(bench), 0);
        bool is_back = has(bench, "p/v", 0, 1 * MIB, 1);
        bool power_lost = at_us % 150 != 0; /* the second writes were not flushed */
        assert_true(is_back || power_lost || has(bench, "p/v", 0, 1 * MIB, 2));
        assert_true(is_back || !done);
        assert_true(has(bench, "p/v@s", 0, 1 * MIB, 1));
        before += !is_back;
        after += is_back;
        bench_wait_for_jobs(bench);
        fill(bench, 0, 1 * MIB, 3);
        assert_true(has(bench, "p/v@s", 0, 1 * MIB, 1));
        assert_true(has(bench, "p/v", 0, 1 * MIB, 3));
        bench_wait_for_jobs(bench);
        bench_pass_time(bench, 1); /* extents that hold nothing go back to the pool */
        assert_int_equal(used_bytes(bench), 2 * MIB);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
    assert_true(before > 0 && after > 0);
}

enum {
    SPREAD_PAGES = 32,
    SPREAD_BYTES = 32 * MIB /* what a page of the map tells of */
};

static void
fill_spread(struct bench *bench, uint8_t seed)
{
    for (uint64_t i = 0; i < SPREAD_PAGES; i++) {
        fill(bench, i * SPREAD_BYTES, 64 * KIB, seed);
    }
}

/* What has been deleted comes back by way of the head: not by one that is on its way elsewhere. */
static void
space_is_coming_back_meanwhile(void **state)
{
    (void)state;
    for (uint32_t at_us = 0; at_us < 6000; at_us += 50) {
        struct bench *bench = bench_with_pool(2);
        fill_spread(bench, 1);
        assert_int_equal(bench_make_snapshot(bench, "p/v@one"), 0);
        fill_spread(bench, 2);
        assert_int_equal(bench_make_snapshot(bench, "p/v@two"), 0);
        fill_spread(bench, 3);
        bench_pass_time(bench, 10);
        struct volume_rollback rollback = { 0 };
        struct volume_name two = { 0 };
        struct snapshot_delete delete = { .count = 1, .names = &two };
        bool deleted = false;
        bool done = false;
        bench_set_name(&two, "p/v@two");
        bench_snapshot_delete_start(bench, &delete, &deleted);
        sim_run_for(bench->sim, at_us * 1000);
        bench_set_name(&rollback.name, "p/v@one");
        bench_volume_rollback_start(bench, &rollback, &done);
        assert_int_equal(bench_wait(bench, &deleted), 0);
        assert_int_equal(bench_wait(bench, &done), 0);
        assert_int_equal(delete.control.op.result, 0);
        assert_int_equal(rollback.control.op.result, 0);
        bench_wait_for_jobs(bench);
        for (uint64_t i = 0; i < SPREAD_PAGES; i++) {
            assert_true(has(bench, "p/v", i * SPREAD_BYTES, 64 * KIB, 1));
        }
        bench_pass_time(bench, 1);
        assert_int_equal(used_bytes(bench), SPREAD_PAGES * 64 * KIB);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/*
 * Behind a snapshot a page is stored as a whole when it is first changed, however little that is:
 * more pages than the smallest ledger takes at once.
 */
static void
a_batch_fits_the_ledger(void **state)
{
    static uint8_t data[64 * KIB] __attribute__((aligned(4096)));
    enum { PAGES = 130 };

    (void)state;
    struct bench *bench = bench_create(41, 1);
    bench_disk(bench, "/d/0", 60 * MIB);
    bench_disk(bench, "/d/1", 8 * GIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 8 * GIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    struct volume *volume = look_up(bench, "p/v");
    for (uint64_t at = 0; at < PAGES * 32 * MIB; at += 64 * KIB) {
        assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, at, data, 4096), 0);
    }
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@s"), 0);
    for (uint64_t page = 0; page < PAGES; page++) {
        assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, page * 32 * MIB, data, 4096), 0);
    }
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_fits_the_ledger),
        cmocka_unit_test(a_volume_goes_back_and_on),
        cmocka_unit_test(the_size_goes_back_too),
        cmocka_unit_test(a_crash_leaves_it_before_or_after),
        cmocka_unit_test(space_is_coming_back_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
