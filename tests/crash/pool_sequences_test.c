/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What administrators and returning disks do to whole pools, each sequence as a test on the
 * simulated machine: nothing may be lost, taken for something else, served from an old copy, or
 * opened twice.
 */
#include "tests/crash/pool_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "metadata/label.h"

static const char *const TWO[] = { "/d/0", "/d/1", NULL };
static const char *const THREE[] = { "/d/0", "/d/1", "/d/2", NULL };

/*
 * A copy of the ledger came back, and the ring was started anew: a database that is lost right
 * afterwards can still be rebuilt. The checkpoints had ended before the new ring began.
 */
static void
a_pool_can_be_imported_after_its_ledger_was_started_anew(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(3, TWO);
    struct volume *one = make(bench, "p/one", GIB);

    write_and_flush(bench, one, 0, MIB, 1);
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/1", true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_volume(bench, "p/two", GIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/1", false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_events(bench, "ledger-copy-rejoined"), 1);
    one = find(bench, "p/one");
    write_and_flush(bench, one, 16 * MIB, MIB, 2);
    bench_power_cut(bench, SIM_CUT_LOSE_ALL);
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, TWO, false, NULL), 0);
    one = find(bench, "p/one");
    assert_true(bench_check(bench, one, 16 * MIB, MIB, 2));
    end_clean(bench);
}

/* --force removed the database before it was known whether the disks make another one. */
static void
an_import_that_fails_leaves_the_database(void **state)
{
    (void)state;
    static const char *const third[] = { "/d/2", NULL };
    struct bench *bench = bench_with_pool(3, THREE);
    struct volume *one = make(bench, "p/one", GIB);

    write_and_flush(bench, one, 0, MIB, 1);
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/0", true);
    set_missing(bench, "/d/1", true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(import(bench, third, true, NULL), -ENODATA);
    assert_true(sim_store_exists(bench->sim, "p"));
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/0", false);
    set_missing(bench, "/d/1", false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
    end_clean(bench);
}

/* A missing disk of the pool is not a new one for it, whatever is forced: its data are needed. */
static void
a_pools_own_disk_is_never_added_to_it_again(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(3, TWO);
    struct volume *one = make(bench, "p/one", GIB);
    struct disk_argument disk = { .spec = "/d/1" };
    struct pool_add add = { .name = "p", .force = true, .disk_count = 1, .disks = &disk };

    write_and_flush(bench, one, 0, 80 * MIB, 1);
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/1", true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
    set_missing(bench, "/d/1", false);
    assert_int_equal(bench_pool_add(bench, &add), -EEXIST);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, 80 * MIB, 1));
    end_clean(bench);
}

/*
 * The pool went on with one copy of the ledger. That one is away, the other is back, and the
 * database is an old one: what is here agrees up to a point, and does not prove that it is all.
 */
static void
an_old_database_with_an_old_ledger_copy_is_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(3, TWO);
    struct volume *one = make(bench, "p/one", 32 * MIB);

    write_and_flush(bench, one, 0, MIB, 1);
    write_and_flush(bench, one, MIB, MIB, 1);
    write_and_flush(bench, one, 2 * MIB, MIB, 1);
    uint64_t common = bench_pool_report(bench, "p").commit;
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/1", true);
    assert_int_equal(bench_boot(bench), 0);
    one = find(bench, "p/one");
    for (uint32_t i = 0; i < 8; i++) {
        write_and_flush(bench, one, (8 + i) * MIB, MIB, 2);
    }
    uint64_t newest = bench_pool_report(bench, "p").commit;
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/1", false);
    set_missing(bench, "/d/0", true);
    /* It ends before what the copy on disk 1 has. */
    sim_store_roll_back(bench->sim, "p", newest - common + 3);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_non_null(strstr(bench->error.message, "/d/0"));
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/0", false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_true(bench_check(bench, find(bench, "p/one"), 15 * MIB, MIB, 2));
    end_clean(bench);
}

/* A disk was copied, the pool went on, and now only the copy is found; or it was copied back. */
static void
an_old_copy_of_a_disk_is_not_served(void **state)
{
    (void)state;
    for (uint32_t in_place = 0; in_place < 2; in_place++) {
        static const char *const pool[] = { "/d/0", "/d/1", "/d/2", NULL };
        struct bench *bench = bench_with_pool(3, pool);
        struct volume *one = make(bench, "p/one", GIB);

        write_and_flush(bench, one, 0, 110 * MIB, 1);
        assert_int_equal(bench_shutdown(bench), 0);
        copy_disk(bench, "/d/2", "/d/3");
        assert_int_equal(bench_boot(bench), 0);
        write_and_flush(bench, find(bench, "p/one"), 0, 110 * MIB, 2);
        assert_int_equal(bench_shutdown(bench), 0);
        if (in_place == 1) {
            copy_disk(bench, "/d/3", "/d/2");
        } else {
            set_missing(bench, "/d/2", true);
            bench->candidates[0] = "/d/3";
        }
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
        assert_int_equal(strstr(bench->error.message, "old copy") != NULL, in_place == 1);
        assert_int_equal(bench_events(bench, "disk-copy-ignored"), 1 - in_place);
        one = find(bench, "p/one");
        for (uint64_t at = 0; at < 110 * MIB; at += MIB) {
            assert_false(bench_check(bench, one, at, MIB, 1));
        }
        end_clean(bench);
    }
}

/* As another host's daemon does while it has the pool open. */
static void
beat(struct bench *bench, const char *path)
{
    struct sim_disk *disk = sim_disk_find(bench->sim, path);
    uint8_t block[LABEL_BYTES];
    struct label newest = { 0 };

    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        struct label label;
        sim_disk_peek(disk, slot * LABEL_BYTES, block, sizeof(block));
        if (label_decode(block, &label) == 0 && label.generation > newest.generation) {
            newest = label;
        }
    }
    assert_true(newest.generation > 0);
    newest.generation++;
    label_encode(&newest, block);
    sim_disk_poke(disk, newest.generation % LABEL_SLOTS * LABEL_BYTES, block, sizeof(block));
}

/* Another host's daemon is alive: nothing takes its disks, whatever is forced. */
static void
a_pool_in_use_elsewhere_is_let_alone(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < 4; way++) {
        struct bench *bench = bench_with_pool(3, TWO);
        struct volume *one = make(bench, "p/one", GIB);
        struct disk_argument disks[] = { { .spec = "/d/0" }, { .spec = "/d/1" } };
        struct disk_argument fourth = { .spec = "/d/3" };
        struct pool_import take = { .disk_count = 2, .disks = disks, .force = true };
        struct pool_create create = { .name = "q", .disk_count = 1, .disks = disks,
                                      .force = true };
        struct pool_add add = { .name = "r", .disk_count = 1, .disks = disks, .force = true };
        bool done = false;

        write_and_flush(bench, one, 0, MIB, 1);
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
        if (way != 0) {
            sim_store_lose(bench->sim, "p");
        }
        bench->host = 1;
        assert_int_equal(bench_boot(bench), 0);
        if (way == 0) {
            beat(bench, "/d/0");
        } else if (way == 1) {
            bench_pool_import_start(bench, &take, &done);
        } else if (way == 2) {
            bench_pool_create_start(bench, &create, &done);
        } else if (way == 3) {
            struct pool_create other = { .name = "r", .disk_count = 1, .disks = &fourth };
            assert_int_equal(bench_pool_create(bench, &other), 0);
            bench_pool_add_start(bench, &add, &done);
        }
        for (uint32_t i = 0; i < 4; i++) {
            bench_pass_time(bench, 5);
            beat(bench, "/d/0");
        }
        if (way == 0) {
            assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
            assert_non_null(strstr(bench->error.message, "in use"));
        } else {
            assert_true(done);
        }
        assert_int_equal(way == 1 ? take.control.op.result : -EBUSY, -EBUSY);
        assert_int_equal(way == 2 ? create.control.op.result : -EBUSY, -EBUSY);
        assert_int_equal(way == 3 ? add.control.op.result : -EBUSY, -EBUSY);
        /* It goes on, and has everything. */
        assert_int_equal(bench_shutdown(bench), 0);
        bench->host = 0;
        assert_int_equal(bench_boot(bench), 0);
        if (way != 0) {
            assert_int_equal(import(bench, TWO, false, NULL), 0);
        }
        assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
        end_clean(bench);
    }
}

/* The labels of an open pool change by themselves, and those of a closed one do not. */
static void
an_open_pool_shows_that_it_is_open(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(3, TWO);
    const struct sim_disk_statistics *statistics =
        sim_disk_statistics(sim_disk_find(bench->sim, "/d/1"));
    uint64_t before = statistics->operations[FILE_IO_WRITE];

    bench_pass_time(bench, 30);
    uint64_t written = statistics->operations[FILE_IO_WRITE] - before;
    assert_true(written >= 10 && written <= 14); /* twice every five seconds */
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 7);
    end_clean(bench);
}

/* What the paths name has been exchanged: each disk is what its label says. */
static void
disks_that_have_changed_places_are_recognised(void **state)
{
    (void)state;
    struct bench *bench = bench_with_pool(3, THREE);
    struct volume *one = make(bench, "p/one", GIB);

    write_and_flush(bench, one, 0, 110 * MIB, 1);
    assert_int_equal(bench_shutdown(bench), 0);
    copy_disk(bench, "/d/0", "/d/3");
    copy_disk(bench, "/d/1", "/d/0");
    copy_disk(bench, "/d/2", "/d/1");
    copy_disk(bench, "/d/3", "/d/2");
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        assert_int_equal(bench_events(bench, "disk-moved"), round == 0 ? 3 : 0);
        assert_true(bench_check(bench, find(bench, "p/one"), 0, 110 * MIB, 1));
        assert_int_equal(bench_shutdown(bench), 0);
    }
    bench_free(bench);
}

/* Two pools of one name: importing one never takes away the other. */
static void
a_pool_of_the_same_name_is_not_replaced(void **state)
{
    (void)state;
    static const char *const other[] = { "/d/2", "/d/3", NULL };
    struct bench *bench = bench_with_pool(3, TWO);

    assert_int_equal(bench_make_volume(bench, "p/first", GIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", other, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/second", GIB), 0);
    assert_int_equal(import(bench, TWO, true, NULL), -EEXIST);
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/2", true);
    set_missing(bench, "/d/3", true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(import(bench, TWO, true, NULL), -EEXIST);
    assert_int_equal(bench_shutdown(bench), 0);
    set_missing(bench, "/d/2", false);
    set_missing(bench, "/d/3", false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_pool_report(bench, "p").volume_count, 1);
    end_clean(bench);
}

/* The daemon ended with an assertion when a pool was created while one of its name was imported. */
static void
a_name_is_given_once(void **state)
{
    (void)state;
    for (uint64_t step = 1; step < 60; step += 2) {
        struct bench *bench = bench_with_pool(step, TWO);
        struct disk_argument disks[] = { { .spec = "/d/0" }, { .spec = "/d/1" } };
        struct disk_argument other[] = { { .spec = "/d/2" } };
        struct pool_import take = { .disk_count = 2, .disks = disks };
        struct pool_create create = { .name = "p", .disk_count = 1, .disks = other };
        bool taken = false;
        bool created = false;

        assert_int_equal(bench_shutdown(bench), 0);
        sim_store_lose(bench->sim, "p");
        assert_int_equal(bench_boot(bench), 0);
        bench_pool_import_start(bench, &take, &taken);
        for (uint64_t i = 0; i < step * 4; i++) {
            sim_step(bench->sim);
        }
        bench_pool_create_start(bench, &create, &created);
        assert_int_equal(bench_wait(bench, &taken), 0);
        assert_int_equal(bench_wait(bench, &created), 0);
        assert_true((take.control.op.result == 0) != (create.control.op.result == 0));
        end_clean(bench);
    }
}

/* The only copy of the ledger fails: what it has is still all there was. */
static void
the_only_copy_of_the_ledger_stays_the_newest(void **state)
{
    (void)state;
    static const char *const alone[] = { "/d/0", NULL };
    struct bench *bench = bench_with_pool(3, alone);
    struct volume *one = make(bench, "p/one", GIB);
    struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_WRITE,
                               .offset_bytes = MIB, .length_bytes = 4 * MIB };

    write_and_flush(bench, one, 0, MIB, 1);
    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/0"), &fault);
    assert_int_equal(bench_make_volume(bench, "p/two", GIB), -EIO);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_READ_ONLY);
    bench_pass_time(bench, 12);
    bench_kill(bench);
    sim_quiesce(bench->sim, 60 * NS_PER_S);
    sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/0"));
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 1));
    end_clean(bench);
}

/* A pool on which nothing could ever be written. */
static void
extents_too_large_for_the_disks_are_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_create(3, 1);
    struct disk_argument disk = { .spec = "/d/0" };
    struct pool_create create = { .name = "p", .extent_bytes = 64 * MIB, .disk_count = 1,
                                  .disks = &disk };

    bench_disk(bench, "/d/0", 300 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_create(bench, &create), -ENOSPC);
    assert_non_null(strstr(bench->error.message, "--extent"));
    create.extent_bytes = 4 * MIB;
    assert_int_equal(bench_pool_create(bench, &create), 0);
    end_clean(bench);
}

/* Disks that were added later held no copy: the first disk's was the only one for ever. */
static void
an_added_disk_gets_a_copy_of_the_ledger(void **state)
{
    (void)state;
    static const char *const alone[] = { "/d/0", NULL };
    struct bench *bench = bench_with_pool(3, alone);
    struct volume *one = make(bench, "p/one", GIB);
    struct disk_argument disk = { .spec = "/d/1" };
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };

    churn(bench, one, 50);
    assert_int_equal(bench_pool_add(bench, &add), 0);
    churn(bench, one, 50);
    /* With the next start, behind two checkpoints: the ring that is there may be needed. */
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_events(bench, "ledger-copy-rejoined"), 1);
    one = find(bench, "p/one");
    write_and_flush(bench, one, 0, MIB, 1);
    check_opens_with(bench, TWO, 1);
    one = find(bench, "p/one");
    assert_true(bench_check(bench, one, 0, MIB, 1));
    /* And it takes part in an import. */
    write_and_flush(bench, one, 0, MIB, 2);
    bench_power_cut(bench, SIM_CUT_LOSE_ALL);
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, TWO, false, NULL), 0);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, MIB, 2));
    end_clean(bench);
}

/* A copy was dropped while the pool served, or is missing at the start: another disk takes over. */
static void
another_disk_takes_over_the_ledger(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < 2; way++) {
        struct bench *bench = bench_with_pool(3, THREE);
        struct volume *one = make(bench, "p/one", 32 * MIB);

        write_and_flush(bench, one, 0, MIB, 1);
        if (way == 0) {
            hang(bench, "/d/1");
            assert_int_equal(bench_make_volume(bench, "p/two", GIB), 0);
            assert_int_equal(bench_events(bench, "ledger-copy-dropped"), 1);
            bench_pass_time(bench, 10);
            let_go(bench, "/d/1");
        }
        assert_int_equal(bench_shutdown(bench), 0);
        set_missing(bench, "/d/1", true);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_events(bench, "ledger-copy-rejoined"), 1);
        assert_int_equal(bench_make_volume(bench, "p/three", GIB), 0);
        check_opens_with(bench, THREE, 2);
        end_clean(bench);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_can_be_imported_after_its_ledger_was_started_anew),
        cmocka_unit_test(an_import_that_fails_leaves_the_database),
        cmocka_unit_test(a_pools_own_disk_is_never_added_to_it_again),
        cmocka_unit_test(an_old_database_with_an_old_ledger_copy_is_refused),
        cmocka_unit_test(an_old_copy_of_a_disk_is_not_served),
        cmocka_unit_test(a_pool_in_use_elsewhere_is_let_alone),
        cmocka_unit_test(an_open_pool_shows_that_it_is_open),
        cmocka_unit_test(disks_that_have_changed_places_are_recognised),
        cmocka_unit_test(a_pool_of_the_same_name_is_not_replaced),
        cmocka_unit_test(a_name_is_given_once),
        cmocka_unit_test(the_only_copy_of_the_ledger_stays_the_newest),
        cmocka_unit_test(extents_too_large_for_the_disks_are_refused),
        cmocka_unit_test(an_added_disk_gets_a_copy_of_the_ledger),
        cmocka_unit_test(another_disk_takes_over_the_ledger),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
