/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on pools end at every event, by SIGKILL and by power cuts: what is left is the pool as
 * before or as after, never something between.
 */
#include "tests/crash/pool_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

static const char *const TWO[] = { "/d/0", "/d/1", NULL };
static const char *const THREE[] = { "/d/0", "/d/1", "/d/2", NULL };

/*
 * The daemon dies, or the power fails, at any event of an import: what is left of it is never taken
 * for the pool. It had the records of pool and commit before it had the volumes' maps.
 */
static void
an_interrupted_import_is_never_taken_for_the_pool(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(5, TWO);
    struct volume *one = make(bench, "p/one", GIB);
    bool ended = false;

    write_and_flush(bench, one, 0, 4 * MIB, 1);
    churn(bench, one, 600);
    write_and_flush(bench, one, 64 * MIB, MIB, 2);
    assert_int_equal(bench_shutdown(bench), 0);
    for (uint64_t step = 1; !ended; step++) {
        sim_store_lose(bench->sim, "p");
        assert_int_equal(bench_boot(bench), 0);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        int result = import(bench, TWO, step % 3 == 0, NULL);
        ended = result != -ECANCELED;
        if (step % 2 == 0) {
            bench_kill(bench);
            sim_quiesce(bench->sim, 60 * NS_PER_S);
        } else {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        sim_stop_at(bench->sim, 0);
        assert_int_equal(bench_boot(bench), 0);
        if (bench_pool_state(bench, "p") != POOL_STATE_ONLINE) {
            assert_int_equal(import(bench, TWO, false, NULL), 0);
        }
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_true(bench_check(bench, find(bench, "p/one"), 0, 4 * MIB, 1));
        assert_true(bench_check(bench, find(bench, "p/one"), 64 * MIB, MIB, 2));
        assert_int_equal(bench_shutdown(bench), 0);
    }
    bench_free(bench);
}

/* A creation that did not get to its end is no pool, and nothing stands in the way of the next. */
static void
a_creation_can_be_interrupted_anywhere(void **state)
{
    (void)state;
    bool ended = false;

    for (uint64_t step = 1; !ended; step++) {
        struct bench *bench = bench_create(step, 2);
        bench_disk(bench, "/d/0", DISK_BYTES);
        bench_disk(bench, "/d/1", DISK_BYTES);
        assert_int_equal(bench_boot(bench), 0);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        ended = bench_make_pool(bench, "p", TWO, false) != -ECANCELED;
        die(bench, step);
        assert_int_equal(bench_boot(bench), 0);
        if (bench_pool_state(bench, "p") != POOL_STATE_ONLINE) {
            assert_int_equal(bench_make_pool(bench, "p", TWO, true), 0);
        }
        assert_int_equal(bench_make_volume(bench, "p/one", GIB), 0);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        end_clean(bench);
    }
}

static void
an_addition_can_be_interrupted_anywhere(void **state)
{
    (void)state;
    bool ended = false;

    for (uint64_t step = 1; !ended; step++) {
        struct bench *bench = bench_with_pool(step, TWO);
        struct volume *one = make(bench, "p/one", GIB);
        struct disk_argument disk = { .spec = "/d/2" };
        struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };
        write_and_flush(bench, one, 0, 4 * MIB, 1);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        ended = bench_pool_add(bench, &add) != -ECANCELED;
        die(bench, step);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        if (bench_pool_report(bench, "p").disk_count == 2) {
            struct pool_add again = { .name = "p", .force = true, .disk_count = 1,
                                      .disks = &disk };
            assert_int_equal(bench_pool_add(bench, &again), 0);
        }
        write_and_flush(bench, find(bench, "p/one"), 100 * MIB, 8 * MIB, 2);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_true(bench_check(bench, find(bench, "p/one"), 0, 4 * MIB, 1));
        assert_true(bench_check(bench, find(bench, "p/one"), 100 * MIB, 8 * MIB, 2));
        end_clean(bench);
    }
}

/*
 * Starts and ends of a pool whose ledger is started anew, with two reactors; nothing of what they
 * leave in memory stays there.
 */
static void
a_start_can_be_interrupted_anywhere(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(5, THREE);
    struct volume *one = make(bench, "p/one", GIB);
    bool ended = false;

    write_and_flush(bench, one, 0, 40 * MIB, 1);
    assert_int_equal(bench_shutdown(bench), 0);
    for (uint64_t step = 1; !ended; step += 1 + step / 30) {
        /* A ledger disk was away, and is back. */
        set_missing(bench, "/d/1", true);
        assert_int_equal(bench_boot(bench), 0);
        write_and_flush(bench, find(bench, "p/one"), 60 * MIB, 4096, (uint8_t)step);
        assert_int_equal(bench_fill(bench, find(bench, "p/one"), 61 * MIB, 4096, (uint8_t)step), 0);
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
        set_missing(bench, "/d/1", false);
        bench->reactor_count = 1 + (uint32_t)(step % 3);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        ended = bench_boot_until_stopped(bench) != -ECANCELED;
        die(bench, step);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        one = find(bench, "p/one");
        assert_true(bench_check(bench, one, 60 * MIB, 4096, (uint8_t)step));
        assert_true(step % 2 == 1 || bench_check(bench, one, 61 * MIB, 4096, (uint8_t)step));
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_volatile_count(bench), 0);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, 40 * MIB, 1));
    end_clean(bench);
}

static void
an_end_can_be_interrupted_anywhere(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(5, TWO);
    bool ended = false;

    make(bench, "p/one", GIB);
    for (uint64_t step = 1; !ended; step++) {
        struct volume *one = find(bench, "p/one");
        assert_int_equal(bench_fill(bench, one, 0, MIB, (uint8_t)step), 0);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        ended = bench_shutdown_answer(bench) != -ECANCELED;
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
        sim_stop_at(bench->sim, 0);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, (uint8_t)step));
        assert_int_equal(bench_volatile_count(bench), 1);
    }
    end_clean(bench);
}

/* A start that could not be recorded left a run without rings, and the next one asked for them. */
static void
a_start_that_cannot_be_recorded_stands_in_nobodys_way(void **state)
{
    (void)state;
    for (uint64_t skip = 0; skip < 12; skip++) {
        struct bench *bench = bench_with_pool(skip + 1, TWO);
        struct volume *one = make(bench, "p/one", GIB);

        write_and_flush(bench, one, 0, MIB, 1);
        assert_int_equal(bench_fill(bench, one, 0, MIB, 2), 0);
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
        for (uint32_t i = 0; i < 2; i++) {
            struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_WRITE,
                                       .offset_bytes = MIB, .length_bytes = 4 * MIB,
                                       .skip = skip };
            sim_disk_add_fault(sim_disk_find(bench->sim, TWO[i]), &fault);
        }
        assert_int_equal(bench_boot(bench), 0);
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
        for (uint32_t i = 0; i < 2; i++) {
            sim_disk_clear_faults(sim_disk_find(bench->sim, TWO[i]));
        }
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 2));
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_volatile_count(bench), 0);
        bench_free(bench);
    }
}

/* The daemon dies at any event of it. */
static void
adding_a_copy_can_be_interrupted_anywhere(void **state)
{
    (void)state;
    static const char *const alone[] = { "/d/0", NULL };
    bool ended = false;

    for (uint64_t step = 1; !ended; step += 1 + step / 60) {
        struct bench *bench = bench_with_pool(step, alone);
        struct volume *one = make(bench, "p/one", GIB);
        struct disk_argument disk = { .spec = "/d/1" };
        struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };

        write_and_flush(bench, one, 0, MIB, 1);
        assert_int_equal(bench_pool_add(bench, &add), 0);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        ended = sim_run_for(bench->sim, 3 * NS_PER_S) != -ECANCELED;
        die(bench, step);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        write_and_flush(bench, find(bench, "p/one"), MIB, MIB, 2);
        assert_int_equal(bench_shutdown(bench), 0);
        sim_store_lose(bench->sim, "p");
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(import(bench, TWO, false, NULL), 0);
        assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
        assert_true(bench_check(bench, find(bench, "p/one"), MIB, MIB, 2));
        end_clean(bench);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_interrupted_import_is_never_taken_for_the_pool),
        cmocka_unit_test(a_creation_can_be_interrupted_anywhere),
        cmocka_unit_test(an_addition_can_be_interrupted_anywhere),
        cmocka_unit_test(a_start_can_be_interrupted_anywhere),
        cmocka_unit_test(an_end_can_be_interrupted_anywhere),
        cmocka_unit_test(a_start_that_cannot_be_recorded_stands_in_nobodys_way),
        cmocka_unit_test(adding_a_copy_can_be_interrupted_anywhere),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
