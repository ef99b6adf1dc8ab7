/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that hang or fail hold up neither the other parts of the pool nor its end (P9). */
#include "tests/crash/pool_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

/*
 * The second copy was looked for among the places that the allocator likes best, which are on one
 * disk when tiers differ: a checkpoint was on that disk alone, and died with it.
 */
static void
a_checkpoint_is_on_two_disks_of_different_tiers(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);

    write_and_flush(bench, one, 0, MIB, 1);
    churn(bench, one, 2000); /* the ledger has gone round: it needs a checkpoint */
    write_and_flush(bench, one, 8 * MIB, MIB, 2);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_store_lose(bench->sim, "p");
    struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_READ,
                               .offset_bytes = 5 * MIB, .length_bytes = 50 * MIB };
    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/0"), &fault);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, TWO, false, NULL), 0);
    sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/0"));
    assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
    assert_true(bench_check(bench, find(bench, "p/one"), 8 * MIB, MIB, 2));
    end_clean(bench);
}

/*
 * Checkpoints had one copy on each of two disks and waited for both: with one that hangs the ledger
 * filled up, and no FLUSH of any volume ended any more.
 */
static void
a_disk_that_hangs_stops_no_checkpoint(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);

    churn(bench, one, 200);
    hang(bench, "/d/1");
    for (uint32_t i = 0; i < 30; i++) {
        churn(bench, one, 100);
        bench_pass_time(bench, 4);
    }
    let_go(bench, "/d/1");
    end_clean(bench);
}

/* One that was written to already when the disk stopped answering. */
static void
a_disk_that_hangs_while_a_checkpoint_is_written_stops_no_other(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_WRITE,
                               .offset_bytes = 5 * MIB, .length_bytes = 40 * MIB };

    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &fault);
    churn(bench, one, 300);
    hang(bench, "/d/1");
    for (uint32_t i = 0; i < 40; i++) {
        churn(bench, one, 50);
        bench_pass_time(bench, 4);
    }
    assert_true(bench_events(bench, "checkpoint-failed") >= 1);
    let_go(bench, "/d/1");
    end_clean(bench);
}

/* A host's read was under way on the good disk: it was taken for one that hangs as well. */
static void
work_on_a_good_disk_is_no_sign_that_it_hangs(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    struct sim_fault hangs = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_WRITE,
                               .offset_bytes = 5 * MIB, .length_bytes = 40 * MIB };
    struct sim_fault is_read = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_READ,
                                 .count = 1 };
    uint8_t block[4096];

    write_and_flush(bench, one, 0, MIB, 1);
    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &hangs);
    churn(bench, one, 100);
    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/0"), &is_read);
    struct bench_io_call *read = bench_io_begin(bench, one, VOLUME_READ, 0, block, sizeof(block));
    for (uint32_t i = 0; i < 40; i++) {
        churn(bench, one, 50);
        bench_pass_time(bench, 1);
    }
    assert_int_equal(bench_events(bench, "checkpoint-failed"), 1);
    let_go(bench, "/d/0");
    let_go(bench, "/d/1");
    assert_int_equal(bench_io_end(bench, read), 0);
    end_clean(bench);
}

/* A disk without room for its copy made every checkpoint fail, and the ledger filled up. */
static void
a_disk_that_fails_stops_no_checkpoint(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    static const uint32_t kinds[] = { FILE_IO_ALLOCATE, FILE_IO_WRITE, FILE_IO_FLUSH };

    for (uint32_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << kinds[i] };
        sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &fault);
        for (uint32_t round = 0; round < 25; round++) {
            churn(bench, one, 100);
            bench_pass_time(bench, 1);
        }
        sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/1"));
    }
    end_clean(bench);
}

/* A write that hangs is not waited for at the end; the next start has it. */
static void
a_disk_that_hangs_does_not_hold_up_the_end(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    struct volume_create volume = { .name = { "p", "slow" }, .size_bytes = GIB, .tier = 1 };

    assert_int_equal(bench_volume_create(bench, &volume), 0);
    assert_int_equal(bench_make_export(bench, "p/slow"), 0);
    assert_int_equal(bench_fill(bench, find(bench, "p/slow"), 0, MIB, 3), 0);
    assert_int_equal(bench_fill(bench, one, 0, MIB, 1), 0);
    hang(bench, "/d/1");
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_shutdown_answer(bench), -ETIMEDOUT);
    assert_true(sim_now_ns(bench->sim) - start_ns < 60 * NS_PER_S);
    assert_non_null(strstr(bench->error.message, "`p`"));
    assert_non_null(strstr(bench->error.message, "/d/1"));
    bench_kill(bench);
    sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/1"));
    sim_disk_release(sim_disk_find(bench->sim, "/d/1"));
    sim_quiesce(bench->sim, 60 * NS_PER_S);
    assert_int_equal(bench_boot(bench), 0);
    assert_true(bench_check(bench, find(bench, "p/slow"), 0, MIB, 3));
    assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
    end_clean(bench);
}

/*
 * FLUSH of a disk hangs while commits come as fast as they can: none of them waits for long. The
 * checkpoint was given up only when the ledger had been full for half a minute.
 */
static void
a_checkpoint_in_the_way_is_given_up_soon(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH };
    uint64_t longest_ns = 0;

    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &fault);
    for (uint32_t i = 0; i < 3000; i++) {
        uint64_t start_ns = sim_now_ns(bench->sim);
        churn(bench, one, 2);
        longest_ns = MAX(longest_ns, sim_now_ns(bench->sim) - start_ns);
    }
    assert_true(longest_ns < 4 * NS_PER_S);
    let_go(bench, "/d/1");
    end_clean(bench);
}

/* A start whose flush has not ended: its disk is busy, and an import waits for what it says. */
static void
an_import_waits_for_the_flush_of_a_start(void **state)
{
    (void)state;
    static const char *const one_disk[] = { "/d/0", NULL };
    struct bench *bench = bench_with_pool(5, one_disk);
    struct volume *one = make(bench, "p/one", GIB);
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH, .count = 1 };
    struct sim_disk *disk = sim_disk_find(bench->sim, "/d/0");
    struct disk_argument argument = { .spec = "/d/0" };
    struct pool_import operation = { .disks = &argument, .disk_count = 1, .force = true };
    bool done = false;

    assert_int_equal(bench_fill(bench, one, 0, MIB, 1), 0);
    bench_kill(bench);
    sim_disk_add_fault(disk, &fault);
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 100);
    assert_int_equal(sim_disk_hanging(disk), 1);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_non_null(strstr(bench->error.message, "does not end its flush"));
    assert_int_equal(import(bench, one_disk, true, NULL), -EBUSY);
    assert_non_null(strstr(bench->error.message, "has not ended yet"));
    bench_pool_import_start(bench, &operation, &done);
    bench_pass_time(bench, 5);
    assert_false(done);
    sim_disk_release(disk);
    assert_int_equal(bench_wait(bench, &done), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
    end_clean(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_is_on_two_disks_of_different_tiers),
        cmocka_unit_test(a_disk_that_hangs_stops_no_checkpoint),
        cmocka_unit_test(a_disk_that_hangs_while_a_checkpoint_is_written_stops_no_other),
        cmocka_unit_test(work_on_a_good_disk_is_no_sign_that_it_hangs),
        cmocka_unit_test(a_disk_that_fails_stops_no_checkpoint),
        cmocka_unit_test(a_disk_that_hangs_does_not_hold_up_the_end),
        cmocka_unit_test(a_checkpoint_in_the_way_is_given_up_soon),
        cmocka_unit_test(an_import_waits_for_the_flush_of_a_start),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
