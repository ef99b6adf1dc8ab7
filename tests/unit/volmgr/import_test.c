/* SPDX-License-Identifier: Apache-2.0 */
/* A pool whose database is gone is rebuilt from its disks. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/util.h"
#include "metadata/label.h"

#define DISK_BYTES (256 * MIB)

static const char *const THREE[] = { "/d/0", "/d/1", "/d/2", NULL };

static struct bench *
bench_with_pool(uint64_t seed)
{
    struct bench *bench = bench_create(seed, 2);

    for (uint32_t i = 0; i < 3; i++) {
        bench_disk(bench, THREE[i], DISK_BYTES);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", THREE, false), 0);
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
make(struct bench *bench, const char *name)
{
    assert_int_equal(bench_make_volume(bench, name, 1 * GIB), 0);
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

/* Commits, so that checkpoints are taken and the ledger goes round. */
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

static void
check_all(struct bench *bench)
{
    struct volume *one = find(bench, "p/one");
    struct volume *two = find(bench, "p/two");

    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_true(bench_check(bench, one, 0, 90 * MIB, 1));
    assert_true(bench_check(bench, two, 10 * MIB, 1 * MIB, 2));
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, 91 * MIB);
}

/* From the ledger alone; from checkpoint and ledger; with the first daemon killed or ended. */
static void
nothing_that_was_flushed_is_lost(void **state)
{
    static const uint32_t churns[] = { 0, 400, 1500, 3000 };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(churns); i++) {
        for (uint32_t end = 0; end < 3; end++) {
            struct bench *bench = bench_with_pool(i + 1);
            struct volume *one = make(bench, "p/one");
            struct pool_import result;
            assert_int_equal(bench_fill(bench, one, 0, 90 * MIB, 1), 0);
            churn(bench, one, churns[i]);
            struct volume *two = make(bench, "p/two");
            assert_int_equal(bench_fill(bench, two, 10 * MIB, 1 * MIB, 2), 0);
            assert_int_equal(bench_io(bench, two, VOLUME_FLUSH, 0, NULL, 0), 0);
            if (end == 0) {
                assert_int_equal(bench_shutdown(bench), 0);
            } else if (end == 1) {
                bench_kill(bench); /* what was not flushed is in the volatile journal */
                sim_quiesce(bench->sim, 60 * NS_PER_S); /* its last operations hold the disks */
            } else {
                assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
                bench_power_cut(bench, SIM_CUT_LOSE_ALL);
            }
            sim_store_lose(bench->sim, "p");
            assert_int_equal(bench_boot(bench), 0);
            assert_int_equal(import(bench, THREE, end != 0, &result), 0);
            assert_string_equal(result.ret_name, "p");
            check_all(bench);
            assert_int_equal(import(bench, THREE, true, NULL), -EBUSY); /* it is in use */
            assert_int_equal(bench_shutdown(bench), 0);
            assert_int_equal(bench_boot(bench), 0);
            check_all(bench);
            assert_int_equal(bench_shutdown(bench), 0);
            bench_free(bench);
        }
    }
}

static void
a_damaged_database_is_replaced_on_request(void **state)
{
    struct bench *bench = bench_with_pool(5);
    struct volume *one = make(bench, "p/one");

    (void)state;
    assert_int_equal(bench_fill(bench, one, 0, 90 * MIB, 1), 0);
    struct volume *two = make(bench, "p/two");
    assert_int_equal(bench_fill(bench, two, 10 * MIB, 1 * MIB, 2), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_store_set_damaged(bench->sim, "p", true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(import(bench, THREE, false, NULL), -EEXIST);
    assert_int_equal(import(bench, THREE, true, NULL), 0);
    check_all(bench);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
what_cannot_be_proved_needs_force(void **state)
{
    struct bench *bench = bench_with_pool(6);
    struct volume *one = make(bench, "p/one");
    static const char *const third[] = { "/d/2", NULL };
    static const char *const stranger[] = { "/d/0", "/e/0", NULL };
    static const char *const blank[] = { "/e/1", NULL };
    static const char *const first_and_third[] = { "/d/0", "/d/2", NULL };
    static const char *const own[] = { "/e/0", NULL };

    (void)state;
    bench->pool_names[1] = "q";
    bench_disk(bench, "/e/0", DISK_BYTES);
    bench_disk(bench, "/e/1", DISK_BYTES);
    assert_int_equal(bench_make_pool(bench, "q", own, false), 0);
    assert_int_equal(bench_fill(bench, one, 0, 90 * MIB, 1), 0);
    churn(bench, one, 1500);
    struct volume *two = make(bench, "p/two");
    assert_int_equal(bench_fill(bench, two, 10 * MIB, 1 * MIB, 2), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_store_lose(bench->sim, "p");
    sim_store_lose(bench->sim, "q");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, blank, false, NULL), -ENOENT);
    assert_int_equal(import(bench, stranger, false, NULL), -EINVAL);
    assert_int_equal(import(bench, third, false, NULL), -ENODATA); /* no ledger on it */
    assert_false(sim_store_exists(bench->sim, "p"));
    /* One of two copies of the ledger: the other might know more. */
    assert_int_equal(import(bench, first_and_third, false, NULL), -ENODATA);
    assert_int_equal(import(bench, THREE, false, NULL), 0);
    check_all(bench);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* The newest checkpoint is damaged on all copies: the older one and more of the ledger do. */
static void
an_older_checkpoint_does_as_well(void **state)
{
    struct bench *bench = bench_with_pool(8);
    struct volume *one = make(bench, "p/one");
    struct pool_import result;

    (void)state;
    assert_int_equal(bench_fill(bench, one, 0, 90 * MIB, 1), 0);
    churn(bench, one, 3000);
    struct volume *two = make(bench, "p/two");
    assert_int_equal(bench_fill(bench, two, 10 * MIB, 1 * MIB, 2), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_true(bench_damage_checkpoint(bench, THREE, true));
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, THREE, false, &result), 0);
    assert_int_equal(bench_events(bench, "checkpoint-damaged"), 1);
    check_all(bench);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* None of the two, and the ledger does not reach back to the beginning: not without telling. */
static void
without_checkpoint_a_ledger_that_went_round_is_not_enough(void **state)
{
    struct bench *bench = bench_with_pool(9);
    struct volume *one = make(bench, "p/one");

    (void)state;
    churn(bench, one, 3000);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_true(bench_damage_checkpoint(bench, THREE, true));
    assert_true(bench_damage_checkpoint(bench, THREE, false));
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, THREE, false, NULL), -ENODATA);
    assert_int_equal(import(bench, THREE, true, NULL), -ENODATA);
    assert_false(sim_store_exists(bench->sim, "p"));
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

enum {
    LEDGER_START_BYTES = 1 << 20,
    LEDGER_BYTES = 4 << 20, /* and more than that has none of these disks */
    BLOCK = 4096,
};

/* The commit of the newest checkpoint that a label of the disk names. */
static uint64_t
newest_checkpoint(struct bench *bench, const char *path)
{
    struct label newest = { 0 };
    uint8_t block[LABEL_BYTES];

    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        struct label label;
        sim_disk_peek(sim_disk_find(bench->sim, path), slot * LABEL_BYTES, block, sizeof(block));
        if (label_decode(block, &label) == 0 && label.generation > newest.generation) {
            newest = label;
        }
    }
    return MAX(newest.checkpoints[0].commit, newest.checkpoints[1].commit);
}

/* As if these commits had not reached the disk. */
static uint32_t
wipe_records_from(struct bench *bench, const char *path, uint64_t commit)
{
    struct sim_disk *disk = sim_disk_find(bench->sim, path);
    static const uint8_t zeroes[BLOCK];
    uint8_t block[BLOCK];
    uint32_t wiped = 0;

    for (uint64_t at = LEDGER_START_BYTES; at < LEDGER_START_BYTES + LEDGER_BYTES; at += BLOCK) {
        sim_disk_peek(disk, at, block, sizeof(block));
        if (memcmp(block, "VOLMGRLR", 8) == 0 && get_le64(block + 56) >= commit) {
            sim_disk_poke(disk, at, zeroes, sizeof(zeroes));
            wiped++;
        }
    }
    return wiped;
}

/*
 * Database and ledger are written in parallel: a checkpoint may have the commit that was under way
 * when the power went, and the ledger not. It was refused as if the ledger lacked something.
 */
static void
a_checkpoint_may_have_one_commit_more_than_the_ledger(void **state)
{
    struct bench *bench = bench_with_pool(10);
    struct volume *one = make(bench, "p/one");
    struct pool_import result;

    (void)state;
    assert_int_equal(bench_fill(bench, one, 0, 90 * MIB, 1), 0);
    churn(bench, one, 1500);
    bench_power_cut(bench, SIM_CUT_LOSE_ALL);
    uint64_t commit = newest_checkpoint(bench, THREE[0]);
    assert_true(commit > 0);
    for (uint32_t i = 0; THREE[i] != NULL; i++) {
        uint32_t wiped = wipe_records_from(bench, THREE[i], commit);
        assert_true(wiped > 0 || i == 2);
    }
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, THREE, false, &result), 0);
    assert_int_equal(result.ret_commit, commit);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, 90 * MIB, 1));
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
copy_ledger(struct bench *bench, uint8_t *memory, bool back)
{
    for (uint32_t i = 0; THREE[i] != NULL; i++) {
        struct sim_disk *disk = sim_disk_find(bench->sim, THREE[i]);
        if (back) {
            sim_disk_poke(disk, LEDGER_START_BYTES, memory + i * LEDGER_BYTES, LEDGER_BYTES);
        } else {
            sim_disk_peek(disk, LEDGER_START_BYTES, memory + i * LEDGER_BYTES, LEDGER_BYTES);
        }
    }
}

/* An older database was rebuilt without a word when the ledgers of all disks were put back. */
static void
a_ledger_that_was_put_back_is_told_by_the_labels(void **state)
{
    struct bench *bench = bench_with_pool(11);
    struct volume *one = make(bench, "p/one");
    uint8_t *memory = malloc(3 * (size_t)LEDGER_BYTES);
    struct pool_import result;

    (void)state;
    assert_non_null(memory);
    assert_int_equal(bench_fill(bench, one, 0, 90 * MIB, 1), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    copy_ledger(bench, memory, false);
    assert_int_equal(bench_boot(bench), 0);
    make(bench, "p/two");
    assert_int_equal(bench_shutdown(bench), 0);
    copy_ledger(bench, memory, true);
    sim_store_lose(bench->sim, "p");
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(import(bench, THREE, false, NULL), -ESTALE);
    assert_non_null(strstr(bench->error.message, "older time"));
    assert_false(sim_store_exists(bench->sim, "p"));
    assert_int_equal(import(bench, THREE, true, &result), 0);
    assert_true(bench_check(bench, find(bench, "p/one"), 0, 90 * MIB, 1));
    assert_int_equal(bench_shutdown(bench), 0);
    free(memory);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_that_was_flushed_is_lost),
        cmocka_unit_test(a_damaged_database_is_replaced_on_request),
        cmocka_unit_test(what_cannot_be_proved_needs_force),
        cmocka_unit_test(an_older_checkpoint_does_as_well),
        cmocka_unit_test(without_checkpoint_a_ledger_that_went_round_is_not_enough),
        cmocka_unit_test(a_checkpoint_may_have_one_commit_more_than_the_ledger),
        cmocka_unit_test(a_ledger_that_was_put_back_is_told_by_the_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
