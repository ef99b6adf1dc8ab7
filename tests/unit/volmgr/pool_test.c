/* SPDX-License-Identifier: Apache-2.0 */
/* Pools: creation and its refusals, opening, what is missing or in the wrong place. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "volmgr/control_impl.h"

#define DISK_BYTES (128 * MIB)

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct bench *
bench_with_disks(uint32_t reactor_count, uint32_t disk_count)
{
    struct bench *bench = bench_create(7, reactor_count);

    for (uint32_t i = 0; i < disk_count; i++) {
        char path[16];
        snprintf(path, sizeof(path), "/d/%u", i);
        bench_disk(bench, path, DISK_BYTES);
    }
    assert_int_equal(bench_boot(bench), 0);
    return bench;
}

static struct volume *
hold(struct bench *bench, const char *name)
{
    struct export_lookup lookup;
    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

static void
a_pool_survives_a_clean_restart(void **state)
{
    struct bench *bench = bench_with_disks(2, 2);

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_make_volume(bench, "p/v", 64 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    struct volume *volume = hold(bench, "p/v");
    assert_int_equal(bench_fill(bench, volume, 0, 3 * MIB, 1), 0);
    bench_release(bench, volume);
    struct pool_report before = bench_pool_report(bench, "p");
    assert_int_equal(before.used_bytes, 3 * MIB);
    assert_int_equal(before.provisioned_bytes, 64 * MIB);
    assert_int_equal(before.volume_count, 1);
    assert_int_equal(bench_shutdown(bench), 0);

    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(bench_boot(bench), 0);
        struct pool_report after = bench_pool_report(bench, "p");
        assert_int_equal(after.state, POOL_STATE_ONLINE);
        assert_int_equal(after.incarnation, before.incarnation + 1 + round);
        assert_int_equal(after.used_bytes, before.used_bytes);
        assert_memory_equal(after.guid, before.guid, sizeof(after.guid));
        assert_int_equal(bench_events(bench, "replayed"), 0);
        volume = hold(bench, "p/v");
        assert_true(bench_check(bench, volume, 0, 3 * MIB, 1));
        bench_release(bench, volume);
        assert_int_equal(bench_shutdown(bench), 0);
    }
    bench_free(bench);
}

static void
names_and_arguments_are_checked(void **state)
{
    struct bench *bench = bench_with_disks(1, 2);
    static const char *const none[] = { NULL };
    static const char *const twice[] = { "/d/0", "/d/0", NULL };
    static const char *const absent[] = { "/d/9", NULL };
    struct disk_argument disk = { .spec = "/d/0" };
    struct pool_create create = {
        .name = "q", .disk_count = 1, .disks = &disk, .extent_bytes = 3 * MIB,
    };

    (void)state;
    assert_int_equal(bench_make_pool(bench, "-p", TWO, false), -EINVAL);
    assert_int_equal(bench_make_pool(bench, "a b", TWO, false), -EINVAL);
    assert_int_equal(bench_make_pool(bench, "", TWO, false), -EINVAL);
    assert_int_equal(bench_make_pool(bench, "p", none, false), -EINVAL);
    assert_int_equal(bench_make_pool(bench, "p", twice, false), -EINVAL);
    assert_int_equal(bench_make_pool(bench, "p", absent, false), -ENOENT);
    assert_int_equal(bench_pool_create(bench, &create), -EINVAL);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), -EEXIST);
    assert_int_equal(bench_make_volume(bench, "x/v", MIB), -ENOENT);
    assert_int_equal(bench_make_volume(bench, "p/.v", MIB), -EINVAL);
    assert_int_equal(bench_make_volume(bench, "p/v", 0), -EINVAL);
    assert_int_equal(bench_make_volume(bench, "p/v", 511), -EINVAL);
    assert_int_equal(bench_make_volume(bench, "p/v", UINT64_C(1) << 63), -EINVAL);
    assert_int_equal(bench_make_volume(bench, "p/v", (UINT64_C(1) << 63) - 64 * KIB), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", MIB), -EEXIST);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
what_is_on_a_disk_is_not_taken_without_force(void **state)
{
    struct bench *bench = bench_with_disks(1, 3);
    static const char *const second[] = { "/d/1", "/d/2", NULL };
    uint8_t ext4_magic[2] = { 0x53, 0xef };
    struct sim_disk *disk = sim_disk_find(bench->sim, "/d/2");

    (void)state;
    bench->pool_names[1] = "q";
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    /* In use: the lock says so, force or not. */
    assert_int_equal(bench_make_pool(bench, "q", second, true), -EBUSY);
    assert_int_equal(bench_shutdown(bench), 0);
    /* Not in use, but of a pool. */
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    uint64_t before = sim_disk_content_hash(sim_disk_find(bench->sim, "/d/1"));
    assert_int_equal(bench_make_pool(bench, "q", second, false), -EEXIST);
    assert_non_null(strstr(bench->error.message, "`p`"));
    assert_int_equal(sim_disk_content_hash(sim_disk_find(bench->sim, "/d/1")), before);
    assert_false(sim_store_exists(bench->sim, "q"));
    /* A file system on one of them. */
    sim_disk_poke(disk, 1024 + 56, ext4_magic, sizeof(ext4_magic));
    static const char *const third[] = { "/d/2", NULL };
    before = sim_disk_content_hash(disk);
    assert_int_equal(bench_make_pool(bench, "q", third, false), -EEXIST);
    assert_non_null(strstr(bench->error.message, "--force"));
    assert_int_equal(sim_disk_content_hash(disk), before);
    assert_int_equal(bench_make_pool(bench, "q", second, true), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "q"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Nobody here can tell what is on it. */
static void
a_disk_of_a_newer_version_is_not_taken_by_force(void **state)
{
    struct bench *bench = bench_with_disks(1, 3);
    static const char *const newer[] = { "/d/2", NULL };
    struct sim_disk *disk = sim_disk_find(bench->sim, "/d/2");
    struct label label = { .pool_name = "far", .generation = 1, .size_bytes = DISK_BYTES };
    uint8_t block[LABEL_BYTES];

    (void)state;
    assert_int_equal(label_layout(DISK_BYTES, 4 * MIB, true, &label), 0);
    label_encode(&label, block);
    put_le32(block + 12, LABEL_VERSION + 1);
    put_le32(block + 8, 0);
    put_le32(block + 8, crc32c(0, block, LABEL_BYTES));
    sim_disk_poke(disk, LABEL_BYTES, block, sizeof(block));
    uint64_t before = sim_disk_content_hash(disk);
    for (int force = 0; force < 2; force++) {
        assert_int_equal(bench_make_pool(bench, "p", newer, force != 0), -EPROTO);
        assert_non_null(strstr(bench->error.message, "newer version"));
        assert_int_equal(sim_disk_content_hash(disk), before);
    }
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    struct disk_argument argument = { .spec = "/d/2" };
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &argument, .force = true };
    assert_int_equal(bench_pool_add(bench, &add), -EPROTO);
    assert_int_equal(sim_disk_content_hash(disk), before);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Whatever fails on the way, the disks and the name can be used again without force. */
static void
a_failed_creation_is_undone(void **state)
{
    (void)state;
    for (uint64_t nth = 0; nth < 40; nth++) {
        struct bench *bench = bench_with_disks(1, 2);
        struct sim_fault fault = {
            .action = SIM_FAULT_ERROR,
            .kinds = 1u << FILE_IO_WRITE | 1u << FILE_IO_FLUSH | 1u << FILE_IO_READ,
            .skip = nth,
            .count = 1,
        };
        sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &fault);
        int result = bench_make_pool(bench, "p", TWO, false);
        bool struck =
            sim_disk_statistics(sim_disk_find(bench->sim, "/d/1"))->faults > 0;
        sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/1"));
        if (result < 0) {
            assert_false(sim_store_exists(bench->sim, "p"));
            struct pool_query query = { 0 };
            assert_int_equal(bench_pool_query(bench, &query), 0);
            assert_int_equal(query.ret_count, 0);
            pool_query_free(&query);
            assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
        }
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
        if (!struck) {
            assert_true(nth > 5);
            return;
        }
    }
}

/* As many failures of the store. */
static void
a_creation_without_database_is_undone(void **state)
{
    struct bench *bench = bench_with_disks(1, 2);

    (void)state;
    /* The store of that name is in the way. */
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench->pool_names[0] = NULL; /* not opened at the next start */
    assert_int_equal(bench_boot(bench), 0);
    bench_disk(bench, "/d/5", DISK_BYTES);
    static const char *const other[] = { "/d/5", NULL };
    uint64_t before = sim_disk_content_hash(sim_disk_find(bench->sim, "/d/5"));
    assert_int_equal(bench_make_pool(bench, "p", other, false), -EEXIST);
    assert_int_equal(sim_disk_content_hash(sim_disk_find(bench->sim, "/d/5")), before);
    assert_true(sim_store_exists(bench->sim, "p"));
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Fills until both disks have data, then tells which volume has some on which disk. */
static void
a_missing_disk_degrades_the_pool(void **state)
{
    struct bench *bench = bench_with_disks(2, 2);
    struct volume_report report;

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/big", 1 * GIB), 0);
    assert_int_equal(bench_make_export(bench, "p/big"), 0);
    assert_int_equal(bench_make_volume(bench, "p/empty", 1 * GIB), 0);
    struct volume *volume = hold(bench, "p/big");
    assert_int_equal(bench_fill(bench, volume, 0, 80 * MIB, 3), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);

    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/1"), true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
    assert_non_null(strstr(bench->error.message, "/d/1"));
    assert_int_equal(bench_events(bench, "disk-missing"), 1);
    assert_int_equal(bench_events(bench, "volumes-affected"), 1);
    assert_true(bench_volume_report(bench, "p/big", &report));
    assert_true(report.affected);
    assert_true(bench_volume_report(bench, "p/empty", &report));
    assert_false(report.affected);
    /* It goes on taking changes. */
    assert_int_equal(bench_make_volume(bench, "p/new", 1 * GIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);

    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/1"), false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    volume = hold(bench, "p/big");
    assert_true(bench_check(bench, volume, 0, 80 * MIB, 3));
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);

    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/0"), true);
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/1"), true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(bench_make_volume(bench, "p/more", 1 * GIB), -ENODEV);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
copy_disk(struct bench *bench, const char *from, const char *to)
{
    struct sim_disk *source = sim_disk_find(bench->sim, from);
    struct sim_disk *target = bench_disk(bench, to, DISK_BYTES);
    uint8_t *data = malloc(MIB);

    assert_non_null(data);
    for (uint64_t at = 0; at < DISK_BYTES; at += MIB) {
        sim_disk_peek(source, at, data, MIB);
        sim_disk_poke(target, at, data, MIB);
    }
    free(data);
}

static void
a_disk_that_moved_is_found(void **state)
{
    struct bench *bench = bench_with_disks(2, 2);

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    struct volume *volume = hold(bench, "p/v");
    assert_int_equal(bench_fill(bench, volume, 0, 80 * MIB, 3), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);

    copy_disk(bench, "/d/1", "/e/moved");
    bench_disk(bench, "/e/blank", DISK_BYTES);
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/1"), true);
    bench->candidates[0] = "/e/absent";
    bench->candidates[1] = "/e/blank";
    bench->candidates[2] = "/d/0";
    bench->candidates[3] = "/e/moved";
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_events(bench, "disk-moved"), 1);
    volume = hold(bench, "p/v");
    assert_true(bench_check(bench, volume, 0, 80 * MIB, 3));
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    /* The new place has been noted. */
    memset(bench->candidates, 0, sizeof(bench->candidates));
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_events(bench, "disk-moved"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
another_pools_disk_is_not_taken(void **state)
{
    struct bench *bench = bench_with_disks(1, 3);
    static const char *const third[] = { "/d/2", NULL };

    (void)state;
    bench->pool_names[1] = "q";
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_pool(bench, "q", third, false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    /* Somebody exchanged the cables: q's disk is where p's second was. */
    struct sim_disk *one = sim_disk_find(bench->sim, "/d/1");
    struct sim_disk *two = sim_disk_find(bench->sim, "/d/2");
    uint8_t *left = malloc(DISK_BYTES);
    uint8_t *right = malloc(DISK_BYTES);
    sim_disk_peek(one, 0, left, DISK_BYTES);
    sim_disk_peek(two, 0, right, DISK_BYTES);
    sim_disk_poke(one, 0, right, DISK_BYTES);
    sim_disk_poke(two, 0, left, DISK_BYTES);
    free(left);
    free(right);
    uint64_t content = sim_disk_content_hash(one);
    bench->pool_names[1] = NULL;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
    assert_non_null(strstr(bench->error.message, "`q`"));
    assert_int_equal(sim_disk_content_hash(one), content);
    assert_int_equal(bench_shutdown(bench), 0);
    /* With the search, both find their own: p lets go of what it had opened by mistake. */
    bench->pool_names[1] = "q";
    bench->candidates[0] = "/d/1";
    bench->candidates[1] = "/d/2";
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "q"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
hang(struct bench *bench, const char *path, uint32_t kinds)
{
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = kinds };
    sim_disk_add_fault(sim_disk_find(bench->sim, path), &fault);
}

static void
let_go(struct bench *bench, const char *path)
{
    sim_disk_clear_faults(sim_disk_find(bench->sim, path));
    sim_disk_release(sim_disk_find(bench->sim, path));
    bench_pass_time(bench, 1);
}

/* P9: the pool with the disk comes up without it, another pool does not wait. */
static void
a_disk_that_hangs_at_the_start_stops_nobody(void **state)
{
    struct bench *bench = bench_with_disks(2, 3);
    static const char *const third[] = { "/d/2", NULL };

    (void)state;
    bench->pool_names[1] = "q";
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_pool(bench, "q", third, false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    hang(bench, "/d/1", 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "q"), POOL_STATE_ONLINE);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OPENING);
    assert_int_equal(bench_make_volume(bench, "q/v", 1 * MIB), 0);
    bench_pass_time(bench, 60);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * MIB), 0);
    let_go(bench, "/d/1");
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* P9: a ledger disk that does not answer is left out; labels are not waited for. */
static void
a_disk_that_hangs_stops_no_control_operation(void **state)
{
    struct bench *bench = bench_with_disks(2, 3);
    struct disk_argument disk = { .spec = "/d/2" };
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * MIB), 0);
    hang(bench, "/d/1", 0);
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_make_volume(bench, "p/w", 1 * MIB), 0);
    assert_true(sim_now_ns(bench->sim) - start_ns < 5 * NS_PER_S);
    assert_int_equal(bench_events(bench, "ledger-copy-dropped"), 1);
    start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_make_volume(bench, "p/x", 1 * MIB), 0);
    assert_true(sim_now_ns(bench->sim) - start_ns < 1 * NS_PER_S);
    /* Adding a disk rewrites all labels: that of the disk that hangs is given up. */
    assert_int_equal(bench_pool_add(bench, &add), 0);
    assert_int_equal(bench_delete_volume(bench, "p/x"), 0);
    bench_wait_for_jobs(bench);
    let_go(bench, "/d/1");
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_events(bench, "ledger-copy-rejoined"), 1);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* A disk to be added that hangs fails the command, and the pool goes on. */
static void
a_disk_that_hangs_is_not_added(void **state)
{
    static const uint32_t kinds[] = { 1u << FILE_IO_READ, 1u << FILE_IO_WRITE,
                                      1u << FILE_IO_FLUSH };
    static const char *const volumes[] = { "p/a", "p/b", "p/c" };
    struct bench *bench = bench_with_disks(1, 5);
    struct disk_argument disk;
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    for (uint32_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        disk = (struct disk_argument){ 0 };
        snprintf(disk.spec, sizeof(disk.spec), "/d/%u", 2 + i);
        hang(bench, disk.spec, kinds[i]);
        assert_int_equal(bench_pool_add(bench, &add), -ETIMEDOUT);
        assert_int_equal(bench_make_volume(bench, volumes[i], 1 * MIB), 0);
        assert_int_equal(bench_pool_report(bench, "p").disk_count, 2);
        let_go(bench, disk.spec);
        add.force = true; /* its label may have been written late */
        assert_int_equal(bench_pool_add(bench, &add), 0);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_report(bench, "p").disk_count, 3);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
        bench = bench_with_disks(1, 5);
        assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
        add.force = false;
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* What the ledger of one disk proves after the other one has been away must be proved by both. */
static void
a_ledger_disk_that_was_away_takes_part_again(void **state)
{
    struct bench *bench = bench_with_disks(2, 2);

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/1"), true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_volume(bench, "p/a", 1 * MIB), 0);
    assert_int_equal(bench_make_volume(bench, "p/b", 1 * MIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/1"), false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_events(bench, "ledger-copy-rejoined"), 1);
    assert_int_equal(bench_make_volume(bench, "p/c", 1 * MIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_disk_set_missing(sim_disk_find(bench->sim, "/d/0"), true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
    assert_int_equal(bench_pool_report(bench, "p").volume_count, 3);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Labels say who has the pool open. */
static void
another_hosts_pool_is_not_opened(void **state)
{
    struct bench *bench = bench_with_disks(1, 2);
    struct disk_argument disks[] = { { .spec = "/d/0" }, { .spec = "/d/1" } };
    struct pool_import import = { .disk_count = 2, .disks = disks, .force = true };

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    bench_kill(bench);
    bench->host = 1;
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 15); /* it looks whether the other one is alive */
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_non_null(strstr(bench->error.message, "another host"));
    assert_int_equal(bench_pool_import(bench, &import), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    /* Closed in order: anybody may open it. */
    bench->host = 2;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* One that cannot even begin must not answer whoever wants it from within their call. */
struct wish {
    struct message message;
    struct pool *pool;
    bool ended;
    int status;
};

static void
wish_ended(void *context, int status)
{
    struct wish *wish = context;
    wish->ended = true;
    wish->status = status;
}

static void
wish_for_a_checkpoint(struct message *message)
{
    struct wish *wish = container_of(message, struct wish, message);
    pool_checkpoint_now(wish->pool, wish_ended, wish);
    assert_false(wish->ended);
}

static void
a_checkpoint_without_room_answers_later(void **state)
{
    struct bench *bench = bench_with_disks(1, 2);
    struct wish wish = { 0 };

    (void)state;
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    bench_wait_for_jobs(bench);
    wish.pool = list_first(&bench->manager->pools, struct pool, link);
    for (uint32_t i = 0; i < 2; i++) {
        wish.pool->disks[i]->record.state = DISK_STATE_FAILED; /* no slot can be taken */
    }
    reactor_send(bench->reactors[0], &wish.message, wish_for_a_checkpoint);
    assert_int_equal(bench_wait(bench, &wish.ended), 0);
    assert_int_equal(wish.status, -ENOSPC);
    for (uint32_t i = 0; i < 2; i++) {
        wish.pool->disks[i]->record.state = DISK_STATE_ACTIVE;
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_survives_a_clean_restart),
        cmocka_unit_test(names_and_arguments_are_checked),
        cmocka_unit_test(what_is_on_a_disk_is_not_taken_without_force),
        cmocka_unit_test(a_disk_of_a_newer_version_is_not_taken_by_force),
        cmocka_unit_test(a_failed_creation_is_undone),
        cmocka_unit_test(a_creation_without_database_is_undone),
        cmocka_unit_test(a_missing_disk_degrades_the_pool),
        cmocka_unit_test(a_disk_that_moved_is_found),
        cmocka_unit_test(another_pools_disk_is_not_taken),
        cmocka_unit_test(a_disk_that_hangs_at_the_start_stops_nobody),
        cmocka_unit_test(a_disk_that_hangs_stops_no_control_operation),
        cmocka_unit_test(a_disk_that_hangs_is_not_added),
        cmocka_unit_test(a_ledger_disk_that_was_away_takes_part_again),
        cmocka_unit_test(another_hosts_pool_is_not_opened),
        cmocka_unit_test(a_checkpoint_without_room_answers_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
