/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots through the manager: what they hold, who may delete them, crashes, groups. */
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
    struct bench *bench = bench_create(21, reactor_count);

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

static struct volume *
make_and_hold(struct bench *bench, const char *name, uint64_t size_bytes)
{
    assert_int_equal(bench_make_volume(bench, name, size_bytes), 0);
    return hold(bench, name);
}

static void
unexport(struct bench *bench, const char *volume, const char *snapshot)
{
    struct export_delete delete = { .name = { .pool = "p" } };

    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", volume);
    snprintf(delete.name.snapshot, sizeof(delete.name.snapshot), "%s", snapshot);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
}

static void
finish(struct bench *bench)
{
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_snapshot_keeps_what_was_written(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    struct snapshot_report report;
    struct volume_info info;
    uint8_t block[4096] = { 0 };

    (void)state;
    assert_int_equal(bench_fill(bench, volume, 0, 2 * MIB, 1), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@one"), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@one"), -EEXIST);
    assert_int_equal(bench_make_snapshot(bench, "p/v@-one"), -EINVAL);
    assert_int_equal(bench_make_snapshot(bench, "p/w@one"), -ENOENT);
    /* Whole grains, parts of grains, and parts of blocks. */
    assert_int_equal(bench_fill(bench, volume, 64 * KIB, 128 * KIB, 2), 0);
    assert_int_equal(bench_fill(bench, volume, 512 * KIB, 8 * KIB, 2), 0);
    assert_int_equal(bench_fill(bench, volume, 1 * MIB + 512, 1024, 2), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 1536 * KIB, NULL, 256 * KIB), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@two"), 0);
    assert_int_equal(bench_fill(bench, volume, 0, 2 * MIB, 3), 0);

    struct volume *one = bench_hold_snapshot(bench, "p/v@one");
    struct volume *two = bench_hold_snapshot(bench, "p/v@two");
    assert_non_null(one);
    assert_non_null(two);
    assert_true(bench_check(bench, one, 0, 2 * MIB, 1));
    assert_true(bench_check(bench, two, 0, 64 * KIB, 1));
    assert_true(bench_check(bench, two, 64 * KIB, 128 * KIB, 2));
    assert_true(bench_check(bench, two, 512 * KIB, 8 * KIB, 2));
    assert_true(bench_check(bench, two, 520 * KIB, 504 * KIB, 1));
    assert_true(bench_check(bench, two, 1 * MIB + 512, 1024, 2));
    assert_true(bench_check(bench, two, 1 * MIB + 1536, 512 * KIB - 1536, 1));
    assert_int_equal(bench_io(bench, two, VOLUME_READ, 1536 * KIB, block, sizeof(block)), 0);
    assert_int_equal(block[17], 0);
    assert_true(bench_check(bench, volume, 0, 2 * MIB, 3));
    assert_int_equal(bench_io(bench, one, VOLUME_WRITE, 0, block, sizeof(block)), -EROFS);
    volume_get_info(one, &info);
    assert_string_equal(info.snapshot, "one");
    assert_int_equal(info.size_bytes, 1 * GIB);

    assert_true(bench_snapshot_report(bench, "p/v@one", &report));
    assert_int_equal(report.mapped_bytes, 2 * MIB);
    assert_int_equal(report.hold_count, 1);
    assert_int_equal(report.export_count, 1);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@one"), -EBUSY);
    unexport(bench, "v", "one");
    assert_int_equal(bench_drop_snapshot(bench, "p/v@one"), -EBUSY); /* held */
    bench_release(bench, one);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@one"), 0);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@one"), -ENOENT);
    bench_wait_for_jobs(bench);
    assert_true(bench_check(bench, two, 0, 64 * KIB, 1));
    assert_true(bench_check(bench, two, 64 * KIB, 128 * KIB, 2));
    bench_release(bench, two);
    bench_release(bench, volume);
    finish(bench);
}

static void
snapshots_live_over_restarts(void **state)
{
    (void)state;
    for (uint32_t how = 0; how < 3; how++) {
        struct bench *bench = bench_with_pool(2);
        struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
        assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 1), 0);
        assert_int_equal(bench_make_snapshot(bench, "p/v@one"), 0);
        assert_int_equal(bench_fill(bench, volume, 256 * KIB, 512 * KIB, 2), 0);
        assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
        if (how == 0) {
            bench_release(bench, volume);
            assert_int_equal(bench_shutdown(bench), 0);
        } else if (how == 1) {
            bench_kill(bench);
        } else {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        assert_int_equal(bench_boot(bench), 0);
        volume = hold(bench, "p/v");
        struct volume *one = bench_hold_snapshot(bench, "p/v@one");
        assert_non_null(one);
        assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
        assert_true(bench_check(bench, volume, 0, 256 * KIB, 1));
        assert_true(bench_check(bench, volume, 256 * KIB, 512 * KIB, 2));
        assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 3), 0);
        assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
        bench_release(bench, one);
        bench_release(bench, volume);
        finish(bench);
    }
}

static void
all_space_comes_back(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    struct volume_name names[8] = { 0 };
    struct snapshot_delete delete = { .count = 8, .names = names, .dry_run = true };
    char path[32];

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(bench_fill(bench, volume, i * 128 * KIB, 1 * MIB, (uint8_t)(i + 1)), 0);
        snprintf(path, sizeof(path), "p/v@s%u", i);
        assert_int_equal(bench_make_snapshot(bench, path), 0);
        snprintf(names[i].pool, sizeof(names[i].pool), "p");
        snprintf(names[i].volume, sizeof(names[i].volume), "v");
        snprintf(names[i].snapshot, sizeof(names[i].snapshot), "s%u", i);
    }
    assert_int_equal(bench_fill(bench, volume, 0, 2 * MIB, 99), 0);
    uint64_t used_bytes = bench_pool_report(bench, "p").used_bytes;
    assert_int_equal(bench_snapshot_delete(bench, &delete), 0);
    assert_int_equal(delete.ret_freed_bytes, 8 * MIB); /* all but the head's 2 MiB */
    (void)used_bytes;
    delete.dry_run = false;
    assert_int_equal(bench_snapshot_delete(bench, &delete), 0);
    bench_wait_for_jobs(bench);
    assert_true(bench_check(bench, volume, 0, 2 * MIB, 99));
    unexport(bench, "v", "");
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
    bench_wait_for_jobs(bench);
    struct pool_report pool = bench_pool_report(bench, "p");
    assert_int_equal(pool.allocated_bytes - pool.trapped_bytes, 0);
    finish(bench);
}

static void
a_volume_with_snapshots_is_deleted_with_them(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    struct volume_delete delete = { .name = { .pool = "p", .volume = "v" } };
    struct snapshot_query query = { .hidden = true };

    (void)state;
    assert_int_equal(bench_fill(bench, volume, 0, 4 * MIB, 1), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@a"), 0);
    assert_int_equal(bench_fill(bench, volume, 0, 4 * MIB, 2), 0);
    bench_release(bench, volume);
    unexport(bench, "v", "");
    assert_int_equal(bench_volume_delete(bench, &delete), -ENOTEMPTY);
    delete.snapshots = true;
    delete.dry_run = true;
    assert_int_equal(bench_volume_delete(bench, &delete), 0);
    assert_int_equal(delete.ret_freed_bytes, 8 * MIB);
    delete.dry_run = false;
    assert_int_equal(bench_volume_delete(bench, &delete), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * MIB), 0); /* the name is free */
    bench_wait_for_jobs(bench);
    assert_int_equal(bench_snapshot_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 0);
    free(query.ret_snapshots);
    struct pool_report pool = bench_pool_report(bench, "p");
    assert_int_equal(pool.allocated_bytes - pool.trapped_bytes, 0);
    finish(bench);
}

static void
nobody_deletes_what_is_immutable(void **state)
{
    struct bench *bench = bench_with_pool(1);
    struct volume_name name = { .pool = "p", .volume = "v", .snapshot = "s" };
    struct snapshot_create create = { .count = 1, .names = &name };
    struct snapshot_set_expiry expiry = { .name = name };
    struct volume_delete delete = { .name = { .pool = "p", .volume = "v" }, .snapshots = true };
    struct snapshot_report report;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    uint64_t now_ns = bench_realtime_ns(bench);
    create.expires_realtime_ns = now_ns + 100 * NS_PER_S;
    assert_int_equal(bench_snapshot_create(bench, &create), 0);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@s"), -EPERM);
    assert_int_equal(bench_volume_delete(bench, &delete), -EPERM);
    expiry.expires_realtime_ns = now_ns + 50 * NS_PER_S;
    assert_int_equal(bench_snapshot_set_expiry(bench, &expiry), -EPERM);
    expiry.expires_realtime_ns = now_ns + 200 * NS_PER_S;
    assert_int_equal(bench_snapshot_set_expiry(bench, &expiry), 0);
    bench_pass_time(bench, 120);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@s"), -EPERM);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@s"), -EPERM);
    assert_true(bench_snapshot_report(bench, "p/v@s", &report));
    assert_true(report.expires_realtime_ns > now_ns + 190 * NS_PER_S &&
                report.expires_realtime_ns < now_ns + 210 * NS_PER_S);
    bench_pass_time(bench, 100);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@s"), 0);
    finish(bench);
}

static void
a_snapshot_leaves_room_for_the_reserve(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume_set_reserve reserve = { .name = { .pool = "p", .volume = "v" } };
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    struct volume *greedy = make_and_hold(bench, "p/greedy", 1 * GIB);

    (void)state;
    assert_int_equal(bench_fill(bench, volume, 0, 150 * MIB, 1), 0);
    reserve.reserve_bytes = 150 * MIB;
    assert_int_equal(bench_volume_set_reserve(bench, &reserve), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@s"), 0);
    /* Whatever others write, the reserved part can be overwritten. */
    assert_int_equal(bench_fill(bench, greedy, 0, 400 * MIB, 2), -ENOSPC);
    assert_int_equal(bench_make_snapshot(bench, "p/greedy@s"), 0);
    assert_int_equal(bench_fill(bench, volume, 0, 150 * MIB, 3), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@t"), -ENOSPC);
    reserve.reserve_bytes = 120 * MIB; /* the last extents that are freed stay with the volume */
    assert_int_equal(bench_volume_set_reserve(bench, &reserve), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@t"), -ENOSPC);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@s"), 0);
    bench_wait_for_jobs(bench);
    bench_pass_time(bench, 1);
    assert_int_equal(bench_make_snapshot(bench, "p/v@t"), 0);
    struct volume *view = bench_hold_snapshot(bench, "p/v@t");
    assert_true(bench_check(bench, view, 0, 150 * MIB, 3));
    bench_release(bench, view);
    bench_release(bench, volume);
    bench_release(bench, greedy);
    finish(bench);
}

struct host {
    struct volume_session session;
    struct bench *bench;
    bool dropped;
};

static void
host_event(struct volume_session *session, enum volume_session_event event)
{
    struct host *host = container_of(session, struct host, session);

    if (event == VOLUME_SESSION_DROP) {
        host->dropped = true;
        volume_detach(session);
    }
}

static uint32_t
export_session_count(struct bench *bench, const char *name)
{
    struct export_query query = { 0 };
    uint32_t sessions = UINT32_MAX;

    assert_int_equal(bench_export_query(bench, &query), 0);
    for (uint32_t i = 0; i < query.ret_count; i++) {
        if (strcmp(query.ret_exports[i].record.name, name) == 0) {
            sessions = query.ret_exports[i].session_count;
            assert_true(query.ret_exports[i].record.read_only);
            assert_string_equal(query.ret_exports[i].volume.snapshot, "s");
        }
    }
    free(query.ret_exports);
    return sessions;
}

static void
snapshots_are_exported_like_volumes(void **state)
{
    struct bench *bench = bench_with_pool(3);
    struct host host = {
        .session = { .protocol = "nbd", .peer = "tcp:10.0.0.1:5", .event = host_event },
        .bench = bench,
    };
    struct export_delete delete = { .name = { .pool = "p", .volume = "w", .snapshot = "s" } };
    struct volume_rename rename = { .name = { .pool = "p", .volume = "v" }, .new_name = "w" };
    struct session_query sessions = { 0 };
    struct export_lookup lookup;

    (void)state;
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 1), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@s"), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_make_export(bench, "p/v@t"), -ENOENT);
    assert_int_equal(bench_make_export(bench, "p/v@s"), 0);
    assert_int_equal(bench_make_export(bench, "p/v@s"), -EEXIST);
    assert_int_equal(bench_volume_rename(bench, &rename), 0);
    assert_int_equal(bench_lookup(bench, 1, "p/v@s", &lookup), -ENOENT);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);

    for (uint32_t from = 0; from < 3; from++) { /* gone and made again */
        assert_int_equal(bench_lookup(bench, from, "p/w@s", &lookup), 0);
        assert_true(bench_check(bench, lookup.ret_volume, 0, 1 * MIB, 1));
        bench_release(bench, lookup.ret_volume);
        sim_run_for(bench->sim, from * NS_PER_MS);
    }
    assert_int_equal(bench_lookup(bench, 1, "p/w@s", &lookup), 0);
    host.session.export_id = lookup.ret_record.id;
    assert_int_equal(bench_attach(bench, lookup.ret_volume, &host.session), 0);
    assert_int_equal(export_session_count(bench, "p/w@s"), 1);
    assert_int_equal(bench_session_query(bench, &sessions), 0);
    assert_int_equal(sessions.ret_count, 1);
    assert_string_equal(sessions.ret_sessions[0].volume.snapshot, "s");
    free(sessions.ret_sessions);
    assert_int_equal(bench_export_delete(bench, &delete), -EBUSY);
    assert_false(host.dropped);
    delete.drop_sessions = true;
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    assert_true(host.dropped);
    assert_int_equal(export_session_count(bench, "p/w@s"), UINT32_MAX);
    /* Whoever had looked it up before is too late. */
    assert_int_equal(bench_attach(bench, lookup.ret_volume, &host.session), -ENODEV);
    assert_int_equal(bench_drop_snapshot(bench, "p/w@s"), -EBUSY);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_drop_snapshot(bench, "p/w@s"), 0);
    assert_int_equal(bench_export_delete(bench, &delete), -ENOENT);
    finish(bench);
}

/* ---- crashes ---- */

/* Whatever moment the process dies at: a group exists wholly, or not at all. */
static void
a_crash_leaves_all_of_a_group_or_nothing(void **state)
{
    uint32_t with = 0;
    uint32_t without = 0;

    (void)state;
    for (uint32_t at_us = 0; at_us < 6000; at_us += 150) {
        struct bench *bench = bench_with_pool(3);
        struct volume_name names[3] = { 0 };
        struct snapshot_create create = { .count = 3, .names = names };
        struct volume *volumes[3];
        bool done = false;
        uint32_t found = 0;
        char path[32];
        for (uint32_t i = 0; i < 3; i++) {
            snprintf(path, sizeof(path), "p/v%u", i);
            volumes[i] = make_and_hold(bench, path, 1 * GIB);
            assert_int_equal(bench_fill(bench, volumes[i], 0, 256 * KIB, (uint8_t)i), 0);
            snprintf(names[i].pool, sizeof(names[i].pool), "p");
            snprintf(names[i].volume, sizeof(names[i].volume), "v%u", i);
            snprintf(names[i].snapshot, sizeof(names[i].snapshot), "s");
        }
        bench_snapshot_create_start(bench, &create, &done);
        sim_run_for(bench->sim, at_us * 1000);
        for (uint32_t i = 0; i < 3 && done; i++) {
            assert_int_equal(bench_fill(bench, volumes[i], 0, 256 * KIB, 77), 0);
        }
        bench_forget(&create.control);
        if (at_us % 300 == 0) {
            bench_kill(bench);
        } else {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        assert_int_equal(bench_boot(bench), 0);
        for (uint32_t i = 0; i < 3; i++) {
            struct snapshot_report report;
            snprintf(path, sizeof(path), "p/v%u@s", i);
            if (!bench_snapshot_report(bench, path, &report)) {
                continue;
            }
            found++;
            struct volume *view = bench_hold_snapshot(bench, path);
            assert_true(bench_check(bench, view, 0, 256 * KIB, (uint8_t)i));
            bench_release(bench, view);
        }
        assert_true(found == 0 || found == 3);
        assert_true(found == 3 || !done);
        with += found == 3;
        without += found == 0;
        bench_wait_for_jobs(bench);
        finish(bench);
    }
    assert_true(with > 0 && without > 0);
}

/*
 * A disk holds back a read; meanwhile a copy moves its block, the snapshots that name the grain go,
 * and another volume writes to all space that it can get. The read shows what it was for (R4).
 */
static void
a_late_read_shows_no_other_volume(void **state)
{
    static const char *const paths[] = { "/d/0", NULL };
    struct bench *bench = bench_create(22, 1);
    struct sim_disk *disk = bench_disk(bench, "/d/0", 64 * MIB);
    uint8_t late[4096] = { 0 };
    uint8_t data[4096];
    uint64_t filled = 0;

    (void)state;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", paths, false), 0);
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    struct volume *other = make_and_hold(bench, "p/w", 1 * GIB);
    assert_int_equal(bench_fill(bench, volume, 0, GRAIN_BYTES, 1), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@one"), 0);
    assert_int_equal(bench_fill(bench, volume, 0, GRAIN_BYTES / 2, 2), 0);
    assert_int_equal(bench_make_snapshot(bench, "p/v@two"), 0);
    /* The last block is in the older grain, of which fewer blocks are needed than of the other. */
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, 15 * 4096, data, sizeof(data)), 0);
    sim_disk_add_fault(disk, &(struct sim_fault){ .action = SIM_FAULT_HANG,
                                                  .kinds = 1u << FILE_IO_READ,
                                                  .count = 1 });
    struct bench_io_call *call =
        bench_io_begin(bench, volume, VOLUME_READ, 15 * 4096, late, sizeof(late));
    bench_pass_time(bench, 1);
    assert_int_equal(sim_disk_hanging(disk), 1);
    assert_int_equal(bench_fill(bench, volume, 9 * 4096, 4096, 3), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@one"), 0);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@two"), 0);
    bench_pass_time(bench, 3);
    while (bench_fill(bench, other, filled, GRAIN_BYTES, 4) == 0) {
        filled += GRAIN_BYTES;
        assert_true(filled < 64 * MIB);
    }
    sim_disk_release(disk);
    assert_int_equal(bench_io_end(bench, call), 0);
    assert_memory_equal(late, data, sizeof(data));
    /* And then the grain is free. */
    bench_wait_for_jobs(bench);
    assert_int_equal(bench_fill(bench, other, filled, GRAIN_BYTES, 4), 0);
    assert_true(bench_check(bench, volume, 15 * 4096, 4096, 1));
    bench_release(bench, volume);
    bench_release(bench, other);
    finish(bench);
}

/* It was let go of while its generation's end was still on the way to a disk: and then a crash. */
static void
an_abandoned_one_is_no_obstacle_to_the_next_start(void **state)
{
    (void)state;
    for (uint32_t which = 0; which < 2; which++) {
        struct bench *bench = bench_with_pool(2);
        struct sim_disk *disk = sim_disk_find(bench->sim, which == 0 ? "/d/0" : "/d/1");
        struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
        assert_int_equal(bench_fill(bench, volume, 0, 16 * MIB, 1), 0);
        assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(bench_fill(bench, volume, 0, 16 * MIB, 2), 0);
        sim_disk_add_fault(disk, &(struct sim_fault){ .action = SIM_FAULT_HANG,
                                                      .kinds = 1u << FILE_IO_FLUSH });
        int result = bench_make_snapshot(bench, "p/v@one");
        assert_true(result == -ETIMEDOUT || result == 0);
        if (result < 0) { /* each try takes a generation */
            assert_int_equal(bench_make_snapshot(bench, "p/v@one"), -ETIMEDOUT);
        }
        sim_run_for(bench->sim, 100 * NS_PER_MS);
        bench_kill(bench);
        sim_disk_clear_faults(disk);
        sim_disk_release(disk);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        bench_wait_for_jobs(bench);
        volume = hold(bench, "p/v");
        assert_true(bench_check(bench, volume, 0, 16 * MIB, 2));
        assert_int_equal(result == 0 ? -EEXIST : 0, bench_make_snapshot(bench, "p/v@one"));
        bench_release(bench, volume);
        finish(bench);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_keeps_what_was_written),
        cmocka_unit_test(snapshots_live_over_restarts),
        cmocka_unit_test(all_space_comes_back),
        cmocka_unit_test(a_late_read_shows_no_other_volume),
        cmocka_unit_test(an_abandoned_one_is_no_obstacle_to_the_next_start),
        cmocka_unit_test(a_volume_with_snapshots_is_deleted_with_them),
        cmocka_unit_test(nobody_deletes_what_is_immutable),
        cmocka_unit_test(a_snapshot_leaves_room_for_the_reserve),
        cmocka_unit_test(snapshots_are_exported_like_volumes),
        cmocka_unit_test(a_crash_leaves_all_of_a_group_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
