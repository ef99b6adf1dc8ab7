/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What administrators, crashes and returning disks do to whole pools, each sequence as a test on
 * the simulated machine: nothing may be lost, taken for something else, served from an old copy,
 * opened twice, or hang.
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "metadata/label.h"

#define DISK_BYTES (64 * MIB)

static const char *const TWO[] = { "/d/0", "/d/1", NULL };
static const char *const THREE[] = { "/d/0", "/d/1", "/d/2", NULL };

/* ---- helpers ---- */

static struct bench *
bench_with_pool(uint64_t seed, const char *const *paths)
{
    struct bench *bench = bench_create(seed, 1);

    for (uint32_t i = 0; i < 4; i++) {
        char path[16];
        snprintf(path, sizeof(path), "/d/%u", i);
        bench_disk(bench, path, DISK_BYTES);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", paths, false), 0);
    return bench;
}

static struct volume *
find(struct bench *bench, const char *name)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    return lookup.ret_volume;
}

static struct volume *
make(struct bench *bench, const char *name, uint64_t size_bytes)
{
    assert_int_equal(bench_make_volume(bench, name, size_bytes), 0);
    assert_int_equal(bench_make_export(bench, name), 0);
    return find(bench, name);
}

static int
import(struct bench *bench, const char *const *paths, bool force, struct pool_import *ret_import)
{
    struct disk_argument disks[8] = { 0 };
    struct pool_import operation = { .disks = disks, .force = force };

    for (uint32_t i = 0; paths[i] != NULL; i++) {
        snprintf(disks[i].spec, sizeof(disks[i].spec), "%s", paths[i]);
        operation.disk_count++;
    }
    int result = bench_pool_import(bench, &operation);
    if (ret_import != NULL) {
        *ret_import = operation;
    }
    return result;
}

static void
set_missing(struct bench *bench, const char *path, bool missing)
{
    sim_disk_set_missing(sim_disk_find(bench->sim, path), missing);
}

static void
write_and_flush(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
                uint64_t length_bytes, uint8_t seed)
{
    assert_int_equal(bench_fill(bench, volume, offset_bytes, length_bytes, seed), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
}

static void
end(struct bench *bench)
{
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* ---- importing ---- */

/* So many commits that there is a checkpoint. */
static void
churn(struct bench *bench, struct volume *volume, uint32_t count)
{
    uint8_t block[4096] = { 1 };

    for (uint32_t i = 0; i < count; i++) {
        enum volume_operation operation = (i & 1) == 0 ? VOLUME_WRITE : VOLUME_DISCARD;
        assert_int_equal(bench_io(bench, volume, operation, 900 * MIB,
                                  operation == VOLUME_WRITE ? block : NULL, 4096),
                         0);
        assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    }
}

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
    end(bench);
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
    end(bench);
}

/* ---- disks that come back ---- */

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
    end(bench);
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
    end(bench);
}

static void
copy_disk(struct bench *bench, const char *from, const char *to)
{
    struct sim_disk *source = sim_disk_find(bench->sim, from);
    struct sim_disk *target = sim_disk_find(bench->sim, to);
    uint8_t *data = malloc(MIB);

    assert_non_null(data);
    for (uint64_t at = 0; at < DISK_BYTES; at += MIB) {
        sim_disk_peek(source, at, data, MIB);
        sim_disk_poke(target, at, data, MIB);
    }
    free(data);
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
        end(bench);
    }
}

/* ---- who else has it ---- */

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
        end(bench);
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
    end(bench);
}

/* ---- disks that hang or fail ---- */

static void
hang(struct bench *bench, const char *path)
{
    struct sim_fault fault = { .action = SIM_FAULT_HANG };
    sim_disk_add_fault(sim_disk_find(bench->sim, path), &fault);
}

static void
let_go(struct bench *bench, const char *path)
{
    struct sim_disk *disk = sim_disk_find(bench->sim, path);

    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    bench_pass_time(bench, 10);
}

/* Pool p with disk 0 on tier 0, and disk 1 on tier 1; volume p/one on tier 0. */
static struct bench *
bench_with_tiers(struct volume **ret_one)
{
    struct bench *bench = bench_create(3, 1);
    struct disk_argument disks[] = { { .spec = "/d/0" }, { .spec = "/d/1", .tier = 1 } };
    struct pool_create create = { .name = "p", .extent_bytes = MIB, .disk_count = 2,
                                  .disks = disks };
    struct volume_create volume = { .name = { "p", "one" }, .size_bytes = GIB };

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_create(bench, &create), 0);
    assert_int_equal(bench_volume_create(bench, &volume), 0);
    assert_int_equal(bench_make_export(bench, "p/one"), 0);
    *ret_one = find(bench, "p/one");
    return bench;
}

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
    end(bench);
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
    end(bench);
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
    end(bench);
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
    end(bench);
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
    end(bench);
}

/* ---- names and places ---- */

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
    end(bench);
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
        end(bench);
    }
}

/* ---- an end at every event ---- */

/* Killed, or the power is cut, whichever the step says. */
static void
die(struct bench *bench, uint64_t step)
{
    if (step % 2 == 0) {
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
    } else {
        bench_power_cut(bench, SIM_CUT_BY_SEED);
    }
    sim_stop_at(bench->sim, 0);
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
        end(bench);
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
        end(bench);
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
    end(bench);
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
    end(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_interrupted_import_is_never_taken_for_the_pool),
        cmocka_unit_test(a_pool_can_be_imported_after_its_ledger_was_started_anew),
        cmocka_unit_test(an_import_that_fails_leaves_the_database),
        cmocka_unit_test(a_pools_own_disk_is_never_added_to_it_again),
        cmocka_unit_test(an_old_database_with_an_old_ledger_copy_is_refused),
        cmocka_unit_test(an_old_copy_of_a_disk_is_not_served),
        cmocka_unit_test(a_pool_in_use_elsewhere_is_let_alone),
        cmocka_unit_test(an_open_pool_shows_that_it_is_open),
        cmocka_unit_test(a_checkpoint_is_on_two_disks_of_different_tiers),
        cmocka_unit_test(a_disk_that_hangs_stops_no_checkpoint),
        cmocka_unit_test(a_disk_that_hangs_while_a_checkpoint_is_written_stops_no_other),
        cmocka_unit_test(a_disk_that_fails_stops_no_checkpoint),
        cmocka_unit_test(a_disk_that_hangs_does_not_hold_up_the_end),
        cmocka_unit_test(disks_that_have_changed_places_are_recognised),
        cmocka_unit_test(a_pool_of_the_same_name_is_not_replaced),
        cmocka_unit_test(a_name_is_given_once),
        cmocka_unit_test(a_creation_can_be_interrupted_anywhere),
        cmocka_unit_test(an_addition_can_be_interrupted_anywhere),
        cmocka_unit_test(a_start_can_be_interrupted_anywhere),
        cmocka_unit_test(an_end_can_be_interrupted_anywhere),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
