/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two hosts and one disk: the daemon of the first is stopped (its simulator does not run), the
 * second one takes the pool over, the first goes on. They see the same disk: what one has written
 * is copied before the other runs.
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"
#include "metadata/label.h"

#define DISK_BYTES (40 * MIB)

enum {
    HEARTBEAT_S = 5,
    TURNS = 12,
};

static const char *const ONE[] = { "/d/0", NULL };

static struct sim_disk *
disk_of(struct bench *bench)
{
    return sim_disk_find(bench->sim, ONE[0]);
}

static void
copy_disk(struct bench *from, struct bench *to)
{
    uint8_t *data = malloc(MIB);

    assert_non_null(data);
    for (uint64_t at = 0; at < DISK_BYTES; at += MIB) {
        sim_disk_peek(disk_of(from), at, data, MIB);
        sim_disk_poke(disk_of(to), at, data, MIB);
    }
    free(data);
}

static bool
is_same(struct bench *one, struct bench *other)
{
    uint8_t *data[2] = { malloc(MIB), malloc(MIB) };
    bool same = true;

    assert_true(data[0] != NULL && data[1] != NULL);
    for (uint64_t at = 0; at < DISK_BYTES && same; at += MIB) {
        sim_disk_peek(disk_of(one), at, data[0], MIB);
        sim_disk_peek(disk_of(other), at, data[1], MIB);
        same = memcmp(data[0], data[1], MIB) == 0;
    }
    free(data[0]);
    free(data[1]);
    return same;
}

static struct volume *
find(struct bench *bench)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, "p/one", &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    return lookup.ret_volume;
}

/* The newest label of the disk says that this host has written it last. */
static bool
label_is_of(struct bench *bench, uint8_t host)
{
    uint8_t guid[GUID_BYTES] = { 0 };
    struct label newest = { 0 };

    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        uint8_t bytes[LABEL_BYTES];
        struct label label;
        sim_disk_peek(disk_of(bench), slot * LABEL_BYTES, bytes, sizeof(bytes));
        if (label_decode(bytes, &label) == 0 && label.generation > newest.generation) {
            newest = label;
        }
    }
    guid[0] = host;
    return newest.generation > 0 && newest.open &&
           memcmp(newest.host_guid, guid, GUID_BYTES) == 0;
}

/* Host 1 has pool p open, with a volume; everything is flushed. */
static struct bench *
first_host(uint32_t reactor_count)
{
    struct bench *bench = bench_create(1, reactor_count);

    bench->host = 1;
    bench_disk(bench, ONE[0], DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/one", 256 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/one"), 0);
    assert_int_equal(bench_fill(bench, find(bench), 0, MIB, 1), 0);
    assert_int_equal(bench_io(bench, find(bench), VOLUME_FLUSH, 0, NULL, 0), 0);
    bench_pass_time(bench, 2 * HEARTBEAT_S);
    return bench;
}

/* Host 2 takes it over and writes. */
static struct bench *
second_host(struct bench *first)
{
    struct disk_argument disks[1] = { { .spec = "/d/0" } };
    struct pool_import import = { .disks = disks, .disk_count = 1, .force = true };
    struct bench *bench = bench_create(2, 1);

    bench->host = 2;
    bench_disk(bench, ONE[0], DISK_BYTES);
    copy_disk(first, bench);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_import(bench, &import), 0);
    assert_true(bench_check(bench, find(bench), 0, MIB, 1));
    assert_int_equal(bench_fill(bench, find(bench), 0, MIB, 2), 0);
    assert_int_equal(bench_fill(bench, find(bench), 32 * MIB, MIB, 2), 0);
    assert_int_equal(bench_io(bench, find(bench), VOLUME_FLUSH, 0, NULL, 0), 0);
    bench_pass_time(bench, HEARTBEAT_S);
    return bench;
}

static void
nothing_of_a_lost_pool_is_written(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        bool closed = i % 2 == 1; /* the second host has closed it again */
        struct bench *first = first_host(1 + i / 2);
        struct bench *second = second_host(first);
        uint8_t block[4096] = { 1 };

        if (closed) {
            assert_int_equal(bench_shutdown(second), 0);
        }
        copy_disk(second, first);
        bench_pass_time(first, HEARTBEAT_S + 1);
        assert_int_equal(bench_events(first, "pool-lost"), 1);
        assert_int_equal(bench_pool_state(first, "p"), POOL_STATE_READ_ONLY);
        struct volume *one = find(first);
        assert_int_equal(bench_io(first, one, VOLUME_WRITE, 0, block, sizeof(block)), -EIO);
        assert_int_equal(bench_io(first, one, VOLUME_READ, 0, block, sizeof(block)), -EIO);
        assert_int_equal(bench_io(first, one, VOLUME_FLUSH, 0, NULL, 0), -EIO);
        assert_int_equal(bench_make_volume(first, "p/two", GIB), -EROFS);
        bench_pass_time(first, 100);
        assert_true(is_same(first, second));
        assert_int_equal(bench_shutdown_answer(first), -EIO);
        bench_kill(first);
        sim_quiesce(first->sim, 60 * NS_PER_S);
        assert_true(is_same(first, second));
        /* It is not simply opened again; if it was closed, with what the other host has written. */
        assert_int_equal(bench_boot(first), 0);
        bench_pass_time(first, 30);
        assert_int_equal(bench_pool_state(first, "p"),
                         closed ? POOL_STATE_ONLINE : POOL_STATE_OFFLINE);
        assert_true(closed ? bench_check(first, find(first), 32 * MIB, MIB, 2)
                           : is_same(first, second));
        assert_int_equal(bench_shutdown(first), 0);
        if (!closed) {
            assert_int_equal(bench_shutdown(second), 0);
        }
        bench_free(first);
        bench_free(second);
    }
}

/* What was written and not flushed, requests that are under way, a checkpoint, the end. */
static void
a_pool_is_lost_while_it_works(void **state)
{
    (void)state;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        struct bench *first = first_host(1);
        struct bench *second = second_host(first);
        struct volume *one = find(first);
        uint8_t block[4096] = { 1 };
        uint32_t failed = 0;

        assert_int_equal(bench_shutdown(second), 0);
        for (uint32_t i = 0; i < 100 + turn; i++) {
            if (i == 50 + turn) {
                copy_disk(second, first);
            }
            failed += bench_io(first, one, i % 3 == 0 ? VOLUME_FLUSH : VOLUME_WRITE,
                               i % 3 == 0 ? 0 : i * (64 * KIB), i % 3 == 0 ? NULL : block,
                               i % 3 == 0 ? 0 : sizeof(block)) < 0;
            sim_run_for(first->sim, turn * (NS_PER_S / 30));
        }
        bench_pass_time(first, HEARTBEAT_S + 1);
        assert_true(turn < TURNS / 2 || failed > 0);
        assert_int_equal(bench_events(first, "pool-lost"), 1);
        uint64_t hash = sim_disk_content_hash(disk_of(first));
        assert_int_equal(bench_io(first, one, VOLUME_WRITE, 0, block, sizeof(block)), -EIO);
        assert_int_equal(bench_shutdown_answer(first), -EIO);
        assert_true(sim_disk_content_hash(disk_of(first)) == hash);
        bench_kill(first);
        bench_free(first);
        bench_free(second);
    }
}

/* Before the first heartbeat after it went on it is told to close the pool, or to delete it. */
static void
labels_of_the_new_owner_outlive_the_end(void **state)
{
    (void)state;
    for (int for_good = 0; for_good < 2; for_good++) {
        struct bench *first = first_host(1);
        struct export_delete unexport = { .name = { .pool = "p", .volume = "one" } };

        if (for_good != 0) {
            assert_int_equal(bench_export_delete(first, &unexport), 0);
            assert_int_equal(bench_delete_volume(first, "p/one"), 0);
            bench_wait_for_jobs(first);
            bench_pass_time(first, 2 * HEARTBEAT_S);
        }
        struct bench *second = bench_create(2, 1);
        struct disk_argument disks[1] = { { .spec = "/d/0" } };
        struct pool_import import = { .disks = disks, .disk_count = 1, .force = true };
        second->host = 2;
        bench_disk(second, ONE[0], DISK_BYTES);
        copy_disk(first, second);
        assert_int_equal(bench_boot(second), 0);
        assert_int_equal(bench_pool_import(second, &import), 0);
        assert_true(label_is_of(second, 2));
        copy_disk(second, first);
        if (for_good != 0) {
            struct pool_delete delete = { .name = "p", .force = true };
            bench_pool_delete(first, &delete);
            assert_true(label_is_of(first, 2));
            assert_int_equal(bench_events(first, "pool-lost"), 1);
            assert_int_equal(bench_shutdown(first), 0);
        } else {
            bench_shutdown_answer(first);
            assert_true(label_is_of(first, 2));
            bench_kill(first);
        }
        bench_free(first);
        assert_int_equal(bench_shutdown(second), 0);
        bench_free(second);
    }
}

/* A label of ours that could not be written when the pool was opened is no sign of another host. */
static void
a_label_of_before_is_no_loss(void **state)
{
    (void)state;
    static const char *const two[] = { "/d/0", "/d/1", NULL };
    struct bench *bench = bench_create(3, 1);
    struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_WRITE,
                               .length_bytes = LABEL_PLACE_BYTES };

    bench->host = 1;
    bench_disk(bench, two[0], DISK_BYTES);
    bench_disk(bench, two[1], DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", two, false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench->host = 2; /* the same disks in another machine */
    sim_disk_add_fault(sim_disk_find(bench->sim, two[1]), &fault);
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 4 * HEARTBEAT_S);
    assert_int_equal(bench_events(bench, "pool-lost"), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    sim_disk_clear_faults(sim_disk_find(bench->sim, two[1]));
    bench_pass_time(bench, 4 * HEARTBEAT_S);
    assert_int_equal(bench_events(bench, "pool-lost"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_of_a_lost_pool_is_written),
        cmocka_unit_test(a_pool_is_lost_while_it_works),
        cmocka_unit_test(labels_of_the_new_owner_outlive_the_end),
        cmocka_unit_test(a_label_of_before_is_no_loss),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
