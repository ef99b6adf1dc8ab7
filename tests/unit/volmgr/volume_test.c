/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes: deletion and its space, size, name, reserve. */
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
    struct bench *bench = bench_create(11, reactor_count);

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    return bench;
}

static struct volume *
make_and_hold(struct bench *bench, const char *name, uint64_t size_bytes)
{
    struct export_lookup lookup;

    assert_int_equal(bench_make_volume(bench, name, size_bytes), 0);
    assert_int_equal(bench_make_export(bench, name), 0);
    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

static void
unexport(struct bench *bench, const char *volume)
{
    struct export_delete delete = { .name = { .pool = "p" } };
    snprintf(delete.name.volume, sizeof(delete.name.volume), "%s", volume);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
}

static void
deleting_gives_all_space_back(void **state)
{
    struct bench *bench = bench_with_pool(3);
    struct volume_report report;

    (void)state;
    struct volume *small = make_and_hold(bench, "p/small", 32 * MIB);
    struct volume *large = make_and_hold(bench, "p/large", 1 * GIB);
    assert_int_equal(bench_fill(bench, small, 0, 4 * MIB, 1), 0);
    assert_int_equal(bench_fill(bench, large, 0, 90 * MIB, 2), 0);
    assert_int_equal(bench_fill(bench, large, 500 * MIB, 3 * MIB, 2), 0);
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, 97 * MIB);

    assert_int_equal(bench_delete_volume(bench, "p/large"), -EBUSY); /* exported */
    unexport(bench, "large");
    assert_int_equal(bench_delete_volume(bench, "p/large"), -EBUSY); /* held */
    bench_release(bench, large);
    assert_int_equal(bench_delete_volume(bench, "p/large"), 0);
    assert_false(bench_volume_report(bench, "p/large", &report));
    /* The name is free at once. */
    assert_int_equal(bench_make_volume(bench, "p/large", 1 * MIB), 0);
    bench_wait_for_jobs(bench);
    struct pool_report pool = bench_pool_report(bench, "p");
    assert_int_equal(pool.used_bytes, 4 * MIB);
    assert_int_equal(pool.allocated_bytes - pool.trapped_bytes, 4 * MIB);
    assert_true(pool.allocated_bytes <= 40 * MIB); /* what was granted ahead to small volumes */
    assert_true(bench_check(bench, small, 0, 4 * MIB, 1));
    assert_int_equal(bench_delete_volume(bench, "p/large"), 0);
    unexport(bench, "small");
    bench_release(bench, small);
    assert_int_equal(bench_delete_volume(bench, "p/small"), 0);
    assert_int_equal(bench_delete_volume(bench, "p/small"), -ENOENT);
    bench_wait_for_jobs(bench);
    pool = bench_pool_report(bench, "p");
    assert_int_equal(pool.used_bytes, 0);
    assert_int_equal(pool.trapped_bytes, pool.allocated_bytes);
    assert_int_equal(bench_shutdown(bench), 0);
    /* What is durable says the same: nothing is used. */
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 1); /* extents that hold nothing go back to the pool */
    pool = bench_pool_report(bench, "p");
    assert_int_equal(pool.used_bytes, 0);
    assert_int_equal(pool.allocated_bytes, 0);
    assert_int_equal(pool.volume_count, 0);
    assert_int_equal(bench_events(bench, "orphan-extents"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* However far the job has come when the power goes, the next start finishes it. */
static void
a_deletion_goes_on_after_a_crash(void **state)
{
    (void)state;
    for (uint32_t pause_ms = 0; pause_ms < 24; pause_ms += 3) {
        struct bench *bench = bench_with_pool(2);
        struct volume *large = make_and_hold(bench, "p/large", 1 * GIB);
        struct volume *other = make_and_hold(bench, "p/other", 1 * GIB);
        assert_int_equal(bench_fill(bench, other, 0, 8 * MIB, 4), 0);
        assert_int_equal(bench_fill(bench, large, 0, 100 * MIB, 2), 0);
        assert_int_equal(bench_io(bench, other, VOLUME_FLUSH, 0, NULL, 0), 0);
        unexport(bench, "large");
        bench_release(bench, large);
        assert_int_equal(bench_delete_volume(bench, "p/large"), 0);
        sim_run_for(bench->sim, pause_ms * NS_PER_MS / 4);
        if (pause_ms % 2 == 0) {
            bench_kill(bench);
        } else {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        bench_wait_for_jobs(bench);
        struct pool_report pool = bench_pool_report(bench, "p");
        assert_int_equal(pool.used_bytes, 8 * MIB);
        assert_true(pool.allocated_bytes < 50 * MIB);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

static void
a_clean_shutdown_interrupts_a_deletion(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *large = make_and_hold(bench, "p/large", 1 * GIB);

    (void)state;
    assert_int_equal(bench_fill(bench, large, 0, 100 * MIB, 2), 0);
    unexport(bench, "large");
    bench_release(bench, large);
    assert_int_equal(bench_delete_volume(bench, "p/large"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    bench_wait_for_jobs(bench);
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, 0);
    bench_pass_time(bench, 1); /* the last extents on their way back */
    struct pool_report pool = bench_pool_report(bench, "p");
    assert_true(pool.allocated_bytes <= 2 * MIB); /* what small volumes keep for the next one */
    assert_int_equal(pool.trapped_bytes, pool.allocated_bytes);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

struct resize_session {
    struct volume_session session;
    uint32_t resized;
};

static void
session_event(struct volume_session *session, enum volume_session_event event)
{
    if (event == VOLUME_SESSION_RESIZED) {
        container_of(session, struct resize_session, session)->resized++;
    }
}

static void
growing_tells_the_hosts(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 10 * MIB);
    struct volume_info info;
    struct resize_session host = {
        .session = { .protocol = "nbd", .peer = "tcp:10.0.0.1:5", .event = session_event },
    };
    uint8_t block[4096] = { 1 };

    (void)state;
    assert_int_equal(bench_attach(bench, volume, &host.session), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 10 * MIB, block, 4096), -ENXIO);
    assert_int_equal(bench_resize(bench, "p/v", 20 * MIB + 1), -EINVAL);
    assert_int_equal(host.resized, 0);
    assert_int_equal(bench_resize(bench, "p/v", 20 * MIB), 0);
    assert_int_equal(host.resized, 1);
    volume_get_info(volume, &info);
    assert_int_equal(info.size_bytes, 20 * MIB);
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 10 * MIB, block, 4096), 0);
    assert_int_equal(bench_resize(bench, "p/v", 10 * MIB), -EBUSY); /* attached */
    bench_detach(bench, &host.session);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    struct volume_report report;
    assert_true(bench_volume_report(bench, "p/v", &report));
    assert_int_equal(report.info.size_bytes, 20 * MIB);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
shrinking_needs_an_empty_tail(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 300 * MIB);
    uint8_t block[4096] = { [4095] = 1 };
    struct volume_info info;

    (void)state;
    assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 1), 0);
    /* Not flushed: it must be found all the same. */
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 200 * MIB, block, 4096), 0);
    assert_int_equal(bench_resize(bench, "p/v", 100 * MIB), -ENOTEMPTY);
    assert_int_equal(bench_resize(bench, "p/v", 200 * MIB), -ENOTEMPTY);
    assert_int_equal(bench_resize(bench, "p/v", 200 * MIB + 512), -ENOTEMPTY);
    assert_int_equal(bench_resize(bench, "p/v", 200 * MIB + 4096), 0);
    /* It is usable afterwards, refused or not. */
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 200 * MIB, block, 4096), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 200 * MIB + 4096, block, 4096),
                     -ENXIO);
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 200 * MIB, NULL, 4096), 0);
    assert_int_equal(bench_resize(bench, "p/v", 1 * MIB - 512), -ENOTEMPTY);
    assert_int_equal(bench_resize(bench, "p/v", 1 * MIB), 0);
    volume_get_info(volume, &info);
    assert_int_equal(info.size_bytes, 1 * MIB);
    assert_int_equal(bench_resize(bench, "p/v", 2 * MIB), 0);
    uint8_t read[4096];
    memset(read, 7, sizeof(read));
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, 1 * MIB, read, 4096), 0);
    for (uint32_t i = 0; i < sizeof(read); i++) {
        assert_int_equal(read[i], 0);
    }
    assert_true(bench_check(bench, volume, 0, 1 * MIB, 1));
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/*
 * The block that the end cuts in two stays: what lies behind the end must read as zeroes, or be
 * made to (it was refused for ever), for growing shows it again.
 */
static void
shrinking_may_cut_a_block_in_two(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 10 * MIB);
    uint8_t sector[512];
    uint8_t block[4096];

    (void)state;
    memset(sector, 0x5a, sizeof(sector));
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 1 * MIB, sector, 512), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 1 * MIB + 1024, sector, 512), 0);
    assert_int_equal(bench_resize(bench, "p/v", 1 * MIB + 512), -ENOTEMPTY);
    assert_non_null(strstr(bench->error.message, "zero"));
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE_ZEROES, 1 * MIB + 512, NULL, 1024), 0);
    assert_int_equal(bench_resize(bench, "p/v", 1 * MIB + 512), 0);
    /* Its last block is a part of one now; the hosts' requests end with it. */
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 1 * MIB + 512, sector, 512), -ENXIO);
    assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 1 * MIB, sector, 512), 0);
    assert_int_equal(bench_resize(bench, "p/v", 1 * MIB), -ENOTEMPTY);
    assert_int_equal(bench_resize(bench, "p/v", 2 * MIB), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, 1 * MIB, block, 4096), 0);
    assert_memory_equal(block, sector, 512);
    for (uint32_t i = 512; i < sizeof(block); i++) {
        assert_int_equal(block[i], 0);
    }
    /* Discarding the tail is enough for whole blocks. */
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 1 * MIB, NULL, 1 * MIB), 0);
    assert_int_equal(bench_resize(bench, "p/v", 1 * MIB - 512), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* A disk that does not answer keeps the volume from becoming quiet: said in time, all undone. */
static void
a_hung_disk_does_not_hold_the_command(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v", 1 * GIB);
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH };
    struct sim_disk *disks[2] = { sim_disk_find(bench->sim, "/d/0"),
                                  sim_disk_find(bench->sim, "/d/1") };

    (void)state;
    assert_int_equal(bench_fill(bench, volume, 0, 4 * MIB, 1), 0);
    for (uint32_t i = 0; i < 2; i++) {
        sim_disk_add_fault(disks[i], &hang);
    }
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_resize(bench, "p/v", 512 * MIB), -ETIMEDOUT);
    assert_true(sim_now_ns(bench->sim) - start_ns < 70 * NS_PER_S);
    assert_non_null(strstr(bench->error.message, "does not answer"));
    assert_true(bench_check(bench, volume, 0, 4 * MIB, 1)); /* open as before */
    for (uint32_t i = 0; i < 2; i++) {
        sim_disk_clear_faults(disks[i]);
        sim_disk_release(disks[i]);
    }
    assert_int_equal(bench_resize(bench, "p/v", 512 * MIB), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_volume_can_be_renamed(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/old", 10 * MIB);
    struct volume_rename rename = { .name = { "p", "old" }, .new_name = "new" };
    struct volume_info info;
    struct volume_report report;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/taken", 1 * MIB), 0);
    snprintf(rename.new_name, sizeof(rename.new_name), "taken");
    assert_int_equal(bench_volume_rename(bench, &rename), -EEXIST);
    snprintf(rename.new_name, sizeof(rename.new_name), "not/valid");
    assert_int_equal(bench_volume_rename(bench, &rename), -EINVAL);
    snprintf(rename.new_name, sizeof(rename.new_name), "new");
    assert_int_equal(bench_volume_rename(bench, &rename), 0);
    assert_false(bench_volume_report(bench, "p/old", &report));
    assert_true(bench_volume_report(bench, "p/new", &report));
    volume_get_info(volume, &info);
    assert_string_equal(info.name, "new");
    assert_int_equal(bench_volume_rename(bench, &rename), -ENOENT);
    /* The export that had its name has the new one; the old one is free. */
    struct export_lookup lookup;
    assert_int_equal(bench_lookup(bench, 1, "p/old", &lookup), -ENOENT);
    assert_int_equal(bench_lookup(bench, 1, "p/new", &lookup), 0);
    assert_ptr_equal(lookup.ret_volume, volume);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_make_volume(bench, "p/old", 1 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/old"), 0);
    /* A name that an export would get and another has: nothing is changed. */
    struct export_create named = { .name = { "p", "taken" },
                                   .record = { .protocol = "nbd", .name = "p/later" } };
    assert_int_equal(bench_export_create(bench, &named), 0);
    struct volume_rename later = { .name = { "p", "old" }, .new_name = "later" };
    assert_int_equal(bench_volume_rename(bench, &later), -EEXIST);
    assert_true(bench_volume_report(bench, "p/old", &report));
    assert_int_equal(bench_lookup(bench, 1, "p/old", &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    /* An export of a name of its own keeps it. */
    struct volume_rename taken = { .name = { "p", "taken" }, .new_name = "given" };
    assert_int_equal(bench_volume_rename(bench, &taken), 0);
    assert_int_equal(bench_lookup(bench, 1, "p/later", &lookup), 0);
    assert_string_equal(lookup.ret_info.name, "given");
    bench_release(bench, lookup.ret_volume);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_true(bench_volume_report(bench, "p/new", &report));
    assert_int_equal(report.export_count, 1);
    assert_int_equal(bench_lookup(bench, 0, "p/new", &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_reserve_is_a_promise(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume_create create = {
        .name = { "p", "sure" }, .size_bytes = 10 * GIB, .reserve_bytes = 10 * GIB,
        .tier = VOLUME_TIER_AUTO,
    };
    struct volume_set_reserve set = { .name = { "p", "sure" } };

    (void)state;
    assert_int_equal(bench_volume_create(bench, &create), -ENOSPC);
    create.reserve_bytes = 11 * GIB;
    assert_int_equal(bench_volume_create(bench, &create), -EINVAL);
    create.reserve_bytes = 300 * MIB;
    assert_int_equal(bench_volume_create(bench, &create), 0);
    assert_int_equal(bench_pool_report(bench, "p").reserved_bytes, 300 * MIB);
    /* What is promised to one is not promised again. */
    snprintf(create.name.volume, sizeof(create.name.volume), "late");
    create.reserve_bytes = 200 * MIB;
    assert_int_equal(bench_volume_create(bench, &create), -ENOSPC);
    set.reserve_bytes = 100 * MIB;
    assert_int_equal(bench_volume_set_reserve(bench, &set), 0);
    assert_int_equal(bench_volume_create(bench, &create), 0);
    set.reserve_bytes = 400 * MIB;
    assert_int_equal(bench_volume_set_reserve(bench, &set), -ENOSPC);
    set.reserve_bytes = 11 * GIB;
    assert_int_equal(bench_volume_set_reserve(bench, &set), -EINVAL);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_report(bench, "p").reserved_bytes, 300 * MIB);
    /* A neighbour without reserve is stopped before it eats into the promise (P7). */
    struct volume *greedy = make_and_hold(bench, "p/greedy", 10 * GIB);
    assert_int_equal(bench_fill(bench, greedy, 0, 400 * MIB, 1), -ENOSPC);
    struct export_create export = { .name = { "p", "sure" }, .record = { .protocol = "nbd" } };
    struct export_lookup lookup;
    assert_int_equal(bench_export_create(bench, &export), 0);
    assert_int_equal(bench_lookup(bench, 1, "p/sure", &lookup), 0);
    assert_int_equal(bench_fill(bench, lookup.ret_volume, 0, 100 * MIB, 2), 0);
    assert_true(bench_events(bench, "pool-full") > 0);
    bench_release(bench, lookup.ret_volume);
    bench_release(bench, greedy);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
added_disks_are_used(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct disk_argument disk = { .spec = "/d/2" };
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };
    struct volume *volume = make_and_hold(bench, "p/v", 10 * GIB);

    (void)state;
    assert_int_equal(bench_pool_add(bench, &add), -ENOENT);
    bench_disk(bench, "/d/2", DISK_BYTES);
    uint64_t written = 0;
    while (bench_fill(bench, volume, written, 4 * MIB, 1) == 0) {
        written += 4 * MIB;
    }
    assert_true(bench_events(bench, "pool-space-warning") == 1);
    assert_true(bench_events(bench, "pool-space-critical") == 1);
    struct pool_report before = bench_pool_report(bench, "p");
    assert_int_equal(bench_pool_add(bench, &add), 0);
    struct pool_report after = bench_pool_report(bench, "p");
    assert_true(after.size_bytes > before.size_bytes + 200 * MIB);
    assert_int_equal(after.disk_count, 3);
    assert_int_equal(bench_fill(bench, volume, written, 100 * MIB, 1), 0);
    assert_int_equal(bench_pool_add(bench, &add), -EBUSY);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_report(bench, "p").disk_count, 3);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Each stood in the pool's line until its own commit had ended. */
static void
volumes_that_are_made_at_one_time_share_commits(void **state)
{
    enum { COUNT = 12 };
    struct bench *bench = bench_with_pool(3);
    struct volume_create creates[COUNT] = { 0 };
    struct export_create exports[COUNT] = { 0 };
    bool done[COUNT];
    struct volume_create again = { .name = { "p", "v3" }, .size_bytes = 1 * MIB,
                                   .tier = VOLUME_TIER_AUTO };
    bool again_done = false;

    (void)state;
    uint64_t before = bench_pool_report(bench, "p").commit;
    for (uint32_t i = 0; i < COUNT; i++) {
        creates[i] = (struct volume_create){ .name = { .pool = "p" }, .size_bytes = 1 * MIB,
                                             .tier = VOLUME_TIER_AUTO };
        snprintf(creates[i].name.volume, sizeof(creates[i].name.volume), "v%u", i);
        bench_volume_create_start(bench, &creates[i], &done[i]);
    }
    bench_volume_create_start(bench, &again, &again_done);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(bench_wait(bench, &done[i]), 0);
        assert_int_equal(creates[i].control.op.result, 0);
    }
    assert_int_equal(bench_wait(bench, &again_done), 0);
    assert_int_equal(again.control.op.result, -EEXIST);
    assert_true(bench_pool_report(bench, "p").commit - before < COUNT / 2);
    before = bench_pool_report(bench, "p").commit;
    for (uint32_t i = 0; i < COUNT; i++) {
        exports[i] = (struct export_create){ .name = { .pool = "p" },
                                             .record = { .protocol = "nbd" } };
        snprintf(exports[i].name.volume, sizeof(exports[i].name.volume), "v%u", i);
        bench_export_create_start(bench, &exports[i], &done[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(bench_wait(bench, &done[i]), 0);
        assert_int_equal(exports[i].control.op.result, 0);
    }
    assert_true(bench_pool_report(bench, "p").commit - before < COUNT / 2);
    assert_int_equal(bench_pool_report(bench, "p").volume_count, COUNT);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

struct filler {
    struct message message;
    struct pool *pool;
    struct commit_request commit;
    struct byte_buffer batch;
    bool done;
};

static void
filler_done(struct io_op *op)
{
    struct commit_request *commit = container_of(op, struct commit_request, op);
    container_of(commit, struct filler, commit)->done = true;
}

static void
filler_deliver(struct message *message)
{
    struct filler *filler = container_of(message, struct filler, message);

    filler->commit.op.done = filler_done;
    filler->commit.batch = &filler->batch;
    committer_submit(filler->pool, &filler->commit);
}

/* A commit of about this size, which removes what is not there. */
static void
commit_filler(struct bench *bench, struct filler *filler, size_t bytes)
{
    uint8_t key[MAP_KEY_BYTES];

    filler->pool = list_first(&bench->manager->pools, struct pool, link);
    for (uint64_t page = 0; filler->batch.length_bytes + 40 < bytes; page++) {
        map_key_encode(key, UINT32_MAX, page, 1);
        store_batch_delete(&filler->batch, STORE_FAMILY_MAP, key, sizeof(key));
    }
    sim_process_enter(bench->sim);
    reactor_send(bench->reactors[0], &filler->message, filler_deliver);
    sim_process_leave(bench->sim);
}

/*
 * A commit that did not fit a group was overtaken by one behind it, and then took the numbers in
 * the pool's record back: the next export got the number of one that is there, and replaced it.
 */
static void
numbers_are_not_taken_back(void **state)
{
    (void)state;
    for (size_t slack = 300; slack < 1200; slack += 30) {
        struct bench *bench = bench_with_pool(2);
        struct filler first = { 0 };
        struct filler large = { 0 };
        struct volume_create create = { .name = { "p", "w" }, .size_bytes = 1 * MIB,
                                        .tier = VOLUME_TIER_AUTO };
        struct export_create export = { .name = { "p", "a" }, .record = { .protocol = "nbd" } };
        bool done[2] = { false, false };
        assert_int_equal(bench_make_volume(bench, "p/a", 1 * MIB), 0);
        assert_int_equal(bench_make_volume(bench, "p/b", 1 * MIB), 0);
        const struct pool *pool = list_first(&bench->manager->pools, struct pool, link);
        commit_filler(bench, &first, 100);
        sim_step(bench->sim);
        commit_filler(bench, &large, ledger_size_bytes(pool->ledger) / 8 - slack);
        bench_volume_create_start(bench, &create, &done[0]);
        bench_export_create_start(bench, &export, &done[1]);
        assert_int_equal(bench_wait(bench, &done[0]), 0);
        assert_int_equal(bench_wait(bench, &done[1]), 0);
        assert_int_equal(bench_wait(bench, &large.done), 0);
        assert_true(first.done);
        assert_int_equal(create.control.op.result, 0);
        assert_int_equal(export.control.op.result, 0);
        bench_power_cut(bench, SIM_CUT_LOSE_ALL);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_int_equal(bench_make_export(bench, "p/b"), 0);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        struct export_query query = { 0 };
        assert_int_equal(bench_export_query(bench, &query), 0);
        assert_int_equal(query.ret_count, 2);
        free(query.ret_exports);
        assert_int_equal(bench_shutdown(bench), 0);
        byte_buffer_free(&first.batch);
        byte_buffer_free(&large.batch);
        bench_free(bench);
    }
}

/* The end of the daemon comes while volumes are being made: what was answered is there. */
static void
making_volumes_ends_with_the_daemon(void **state)
{
    (void)state;
    for (uint32_t head_start = 0; head_start < 60; head_start++) {
        struct bench *bench = bench_with_pool(2);
        struct volume_create creates[3] = { 0 };
        struct export_create export = { .name = { "p", "w" }, .record = { .protocol = "nbd" } };
        struct volume_report report;
        bool done[4];
        assert_int_equal(bench_make_volume(bench, "p/w", 1 * MIB), 0);
        for (uint32_t i = 0; i < 3; i++) {
            creates[i] = (struct volume_create){ .name = { .pool = "p" }, .size_bytes = 1 * MIB,
                                                 .tier = VOLUME_TIER_AUTO };
            snprintf(creates[i].name.volume, sizeof(creates[i].name.volume), "v%u", i);
            bench_volume_create_start(bench, &creates[i], &done[i]);
        }
        bench_export_create_start(bench, &export, &done[3]);
        for (uint32_t i = 0; i < head_start; i++) {
            sim_step(bench->sim);
        }
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        for (uint32_t i = 0; i < 3; i++) {
            char path[16];
            snprintf(path, sizeof(path), "p/v%u", i);
            assert_true(done[i]);
            assert_int_equal(bench_volume_report(bench, path, &report),
                             creates[i].control.op.result == 0);
        }
        assert_true(done[3]);
        assert_true(bench_volume_report(bench, "p/w", &report));
        assert_int_equal(report.export_count, export.control.op.result == 0 ? 1 : 0);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deleting_gives_all_space_back),
        cmocka_unit_test(a_deletion_goes_on_after_a_crash),
        cmocka_unit_test(a_clean_shutdown_interrupts_a_deletion),
        cmocka_unit_test(growing_tells_the_hosts),
        cmocka_unit_test(shrinking_needs_an_empty_tail),
        cmocka_unit_test(shrinking_may_cut_a_block_in_two),
        cmocka_unit_test(a_hung_disk_does_not_hold_the_command),
        cmocka_unit_test(a_volume_can_be_renamed),
        cmocka_unit_test(a_reserve_is_a_promise),
        cmocka_unit_test(added_disks_are_used),
        cmocka_unit_test(volumes_that_are_made_at_one_time_share_commits),
        cmocka_unit_test(numbers_are_not_taken_back),
        cmocka_unit_test(making_volumes_ends_with_the_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
