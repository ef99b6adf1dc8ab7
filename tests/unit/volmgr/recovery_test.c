/* SPDX-License-Identifier: Apache-2.0 */
/* Starts that do not follow a clean shutdown: replay, the ledger against the database, refusals. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define DISK_BYTES (256 * MIB)

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct bench *
bench_with_pool(uint64_t seed, uint32_t reactor_count)
{
    struct bench *bench = bench_create(seed, reactor_count);

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    return bench;
}

static struct volume *
make(struct bench *bench, const char *name, uint64_t size_bytes)
{
    struct export_lookup lookup;

    assert_int_equal(bench_make_volume(bench, name, size_bytes), 0);
    assert_int_equal(bench_make_export(bench, name), 0);
    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    return lookup.ret_volume;
}

static struct volume *
find(struct bench *bench, const char *name)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    return lookup.ret_volume;
}

/* P3: acknowledged, not flushed, daemon killed: it is all there. */
static void
nothing_is_lost_when_the_daemon_dies(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct bench *bench = bench_with_pool(seed, 1 + (uint32_t)(seed % 3));
        struct volume *one = make(bench, "p/one", 1 * GIB);
        struct volume *two = make(bench, "p/two", 1 * GIB);
        uint8_t zeroes[4096] = { 0 };
        uint8_t read[4096];

        assert_int_equal(bench_fill(bench, one, 0, 5 * MIB, 1), 0);
        assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(bench_fill(bench, one, 1 * MIB, 3 * MIB, 2), 0);
        assert_int_equal(bench_fill(bench, one, 700 * MIB, 2 * MIB, 3), 0);
        assert_int_equal(bench_fill(bench, two, 4096, 70 * MIB, 4), 0);
        assert_int_equal(bench_io(bench, one, VOLUME_DISCARD, 4 * MIB, NULL, 1 * MIB), 0);
        uint64_t used = bench_pool_report(bench, "p").used_bytes;
        bench_kill(bench);

        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        one = find(bench, "p/one");
        two = find(bench, "p/two");
        assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
        assert_true(bench_check(bench, one, 1 * MIB, 3 * MIB, 2));
        assert_true(bench_check(bench, one, 700 * MIB, 2 * MIB, 3));
        assert_true(bench_check(bench, two, 4096, 70 * MIB, 4));
        assert_int_equal(bench_io(bench, one, VOLUME_READ, 4 * MIB + 8192, read, 4096), 0);
        assert_memory_equal(read, zeroes, sizeof(read));
        assert_int_equal(bench_pool_report(bench, "p").used_bytes, used);
        /* And after a power cut at once: what was replayed has been flushed and committed. */
        bench_power_cut(bench, SIM_CUT_LOSE_ALL);
        assert_int_equal(bench_boot(bench), 0);
        one = find(bench, "p/one");
        two = find(bench, "p/two");
        assert_true(bench_check(bench, one, 1 * MIB, 3 * MIB, 2));
        assert_true(bench_check(bench, two, 4096, 70 * MIB, 4));
        assert_int_equal(bench_pool_report(bench, "p").used_bytes, used);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/*
 * P1, P4: the daemon dies, and while it recovers the power fails: a map entry that replay has
 * committed must not name bytes that never got to the disk. What was not flushed may be gone, but
 * what is read then is zeroes, never what somebody else left there.
 */
static void
replay_commits_nothing_that_is_not_on_the_disks(void **state)
{
    (void)state;
    for (uint64_t step = 1; step < 120; step++) {
        struct bench *bench = bench_create(step, 1);
        struct sim_disk_properties properties = {
            .size_bytes = DISK_BYTES, .kind = FILE_KIND_BLOCK_DEVICE, .dirty = true,
        };
        sim_disk_create(bench->sim, "/d/0", &properties);
        sim_disk_create(bench->sim, "/d/1", &properties);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_make_pool(bench, "p", TWO, true), 0);
        struct volume *one = make(bench, "p/one", 1 * GIB);
        assert_int_equal(bench_fill(bench, one, 0, 256 * KIB, 1), 0);
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        bench_boot_until_stopped(bench);
        bool ended = !sim_has_stopped(bench->sim);
        bench_power_cut(bench, SIM_CUT_LOSE_ALL);
        sim_stop_at(bench->sim, 0);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        one = find(bench, "p/one");
        for (uint64_t at = 0; at < 256 * KIB; at += 4096) {
            uint8_t read[4096];
            uint8_t zeroes[4096] = { 0 };
            assert_int_equal(bench_io(bench, one, VOLUME_READ, at, read, sizeof(read)), 0);
            assert_true(memcmp(read, zeroes, sizeof(read)) == 0 ||
                        bench_check(bench, one, at, sizeof(read), 1));
        }
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
        if (ended) {
            assert_true(step > 20);
            return;
        }
    }
}

/* Killed again and again while it recovers: the next attempt gets there. */
static void
replay_can_be_interrupted_anywhere(void **state)
{
    struct bench *bench = bench_with_pool(3, 2);
    struct volume *one = make(bench, "p/one", 8 * GIB);

    (void)state;
    /* Many pages, so that replay takes several pieces. */
    for (uint64_t i = 0; i < 150; i++) {
        assert_int_equal(bench_fill(bench, one, i * 40 * MIB, 8192, (uint8_t)i), 0);
    }
    uint64_t used = bench_pool_report(bench, "p").used_bytes;
    bench_kill(bench);
    uint64_t step = 1;
    for (uint32_t tries = 0; tries < 60; tries++, step += 2) {
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + step);
        int result = bench_boot_until_stopped(bench);
        if (result == 0) {
            break;
        }
        bench_kill(bench);
    }
    sim_stop_at(bench->sim, 0);
    bench_kill(bench);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    one = find(bench, "p/one");
    for (uint64_t i = 0; i < 150; i++) {
        assert_true(bench_check(bench, one, i * 40 * MIB, 8192, (uint8_t)i));
    }
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, used);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_power_cut_keeps_what_was_flushed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct bench *bench = bench_with_pool(seed, 2);
        struct volume *one = make(bench, "p/one", 1 * GIB);

        assert_int_equal(bench_fill(bench, one, 0, 5 * MIB, 1), 0);
        assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(bench_fill(bench, one, 100 * MIB, 5 * MIB, 2), 0);
        bench_power_cut(bench, SIM_CUT_BY_SEED);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        one = find(bench, "p/one");
        assert_true(bench_check(bench, one, 0, 5 * MIB, 1));
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* The rings are those of the run that wrote them, however many reactors there are now. */
static void
the_number_of_reactors_may_change(void **state)
{
    struct bench *bench = bench_with_pool(4, 3);
    struct volume *volumes[5];
    static const uint32_t counts[] = { 1, 4, 2 };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(volumes); i++) {
        char name[16];
        snprintf(name, sizeof(name), "p/v%u", i);
        volumes[i] = make(bench, name, 1 * GIB);
    }
    for (uint32_t round = 0; round < ARRAY_SIZE(counts); round++) {
        for (uint32_t i = 0; i < ARRAY_SIZE(volumes); i++) {
            assert_int_equal(
                bench_fill(bench, volumes[i], round * MIB, 1 * MIB, (uint8_t)(i + round)), 0);
        }
        bench_kill(bench);
        bench->reactor_count = counts[round];
        bench->journal_bytes *= 2;
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        for (uint32_t i = 0; i < ARRAY_SIZE(volumes); i++) {
            char name[16];
            snprintf(name, sizeof(name), "p/v%u", i);
            volumes[i] = find(bench, name);
            for (uint32_t past = 0; past <= round; past++) {
                assert_true(bench_check(bench, volumes[i], past * MIB, 1 * MIB,
                                        (uint8_t)(i + past)));
            }
        }
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Same boot, not clean, and the ring is gone: never silent. */
static void
a_lost_volatile_journal_is_not_silent(void **state)
{
    struct bench *bench = bench_with_pool(2, 2);
    struct volume *one = make(bench, "p/one", 1 * GIB);

    (void)state;
    assert_int_equal(bench_fill(bench, one, 0, 1 * MIB, 1), 0);
    assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_fill(bench, one, 4 * MIB, 1 * MIB, 2), 0);
    bench_kill(bench);
    bench_lose_volatile_memory(bench);
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
        assert_non_null(strstr(bench->error.message, "--accept-loss"));
        assert_int_equal(bench_shutdown(bench), 0);
    }
    bench->accept_loss = true;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_events(bench, "unflushed-writes-lost"), 1);
    one = find(bench, "p/one");
    assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
    assert_int_equal(bench_shutdown(bench), 0);
    bench->accept_loss = false;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* A database that was restored from a copy: the ledger has what it lacks. */
static void
an_old_database_is_brought_up_to_date(void **state)
{
    struct bench *bench = bench_with_pool(2, 2);
    struct volume *one = make(bench, "p/one", 1 * GIB);
    struct volume_report report;

    (void)state;
    assert_int_equal(bench_fill(bench, one, 0, 1 * MIB, 1), 0);
    assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
    struct pool_report before = bench_pool_report(bench, "p");
    assert_int_equal(bench_make_volume(bench, "p/two", 1 * GIB), 0);
    assert_int_equal(bench_fill(bench, one, 64 * MIB, 6 * MIB, 2), 0);
    assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_true(sim_store_roll_back(bench->sim, "p", 5) >= 4);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_events(bench, "database-behind"), 1);
    assert_true(bench_volume_report(bench, "p/two", &report));
    one = find(bench, "p/one");
    assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
    assert_true(bench_check(bench, one, 64 * MIB, 6 * MIB, 2));
    assert_true(bench_pool_report(bench, "p").commit > before.commit + 3);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/*
 * Both copies of the ledger are damaged: refused, unless the administrator takes it upon himself.
 */
static void
a_damaged_ledger_is_refused(void **state)
{
    struct bench *bench = bench_with_pool(2, 1);
    struct volume *one = make(bench, "p/one", 1 * GIB);

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(bench_fill(bench, one, i * MIB, 1 * MIB, 1), 0);
        assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    /* A ring begins one MiB into the disk with its header; the records follow. */
    for (uint32_t i = 0; i < 2; i++) {
        sim_disk_damage(sim_disk_find(bench->sim, TWO[i]), 1 * MIB, 1 * MIB, 99);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench->accept_loss = true;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    one = find(bench, "p/one");
    assert_true(bench_check(bench, one, 0, 8 * MIB, 1));
    assert_int_equal(bench_shutdown(bench), 0);
    bench->accept_loss = false;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static uint32_t
checkpoints_written(struct bench *bench)
{
    struct job_query query = { 0 };
    uint32_t count = 0;

    assert_int_equal(bench_job_query(bench, &query), 0);
    for (uint32_t i = 0; i < query.ret_count; i++) {
        if (strcmp(query.ret_jobs[i].kind, "checkpoint") == 0 && query.ret_jobs[i].finished) {
            assert_int_equal(query.ret_jobs[i].result, 0);
            count++;
        }
    }
    free(query.ret_jobs);
    return count;
}

/* The ledger is a small ring: without checkpoints it would be full after a thousand commits. */
static void
checkpoints_let_the_ledger_go_round(void **state)
{
    struct bench *bench = bench_with_pool(2, 2);
    struct volume *one = make(bench, "p/one", 1 * GIB);
    uint64_t allocated_max = 0;
    uint8_t block[4096] = { 1 };
    uint32_t written = 0;

    (void)state;
    for (uint32_t round = 0; round < 6; round++) {
        for (uint64_t i = 0; i < 600; i++) {
            enum volume_operation operation = (i & 1) == 0 ? VOLUME_WRITE : VOLUME_DISCARD;
            assert_int_equal(bench_io(bench, one, operation, round * MIB,
                                      operation == VOLUME_WRITE ? block : NULL, 4096),
                             0);
            assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
        }
        assert_int_equal(bench_fill(bench, one, round * MIB, 4096, (uint8_t)round), 0);
        written += checkpoints_written(bench);
        if (round == 1) {
            bench_kill(bench);
        } else if (round == 3) {
            assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        } else {
            assert_int_equal(bench_shutdown(bench), 0);
        }
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        bench_pass_time(bench, 1);
        struct pool_report pool = bench_pool_report(bench, "p");
        allocated_max = MAX(allocated_max, pool.allocated_bytes);
        one = find(bench, "p/one");
        for (uint32_t i = 0; i <= round; i++) {
            assert_true(bench_check(bench, one, i * MIB, 4096, (uint8_t)i));
        }
    }
    assert_true(bench_pool_report(bench, "p").commit > 2000);
    assert_true(written >= 4);
    /* Two checkpoints of few parts, in two copies; nothing of older ones is left. */
    assert_true(allocated_max < 64 * MIB);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static bool
checkpoint_is_running(struct bench *bench)
{
    struct job_query query = { 0 };
    bool running = false;

    assert_int_equal(bench_job_query(bench, &query), 0);
    for (uint32_t i = 0; i < query.ret_count; i++) {
        running = running || !query.ret_jobs[i].finished;
    }
    free(query.ret_jobs);
    return running;
}

/* However many there have been, and however they ended: two of them take space. */
static void
old_checkpoints_give_their_space_back(void **state)
{
    struct bench *bench = bench_with_pool(2, 1);
    struct volume *one = make(bench, "p/one", 1 * GIB);
    uint8_t block[4096] = { 1 };
    uint32_t interrupted = 0;

    (void)state;
    for (uint32_t i = 0; i < 4000 || interrupted < 8; i++) {
        enum volume_operation operation = (i & 1) == 0 ? VOLUME_WRITE : VOLUME_DISCARD;
        assert_int_equal(bench_io(bench, one, operation, 0,
                                  operation == VOLUME_WRITE ? block : NULL, 4096),
                         0);
        assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), 0);
        if (i >= 4000 && checkpoint_is_running(bench)) {
            bench_kill(bench);
            assert_int_equal(bench_boot(bench), 0);
            one = find(bench, "p/one");
            interrupted++;
        }
        assert_true(i < 20000);
        if (i == 3999) {
            bench_pass_time(bench, 1);
            assert_true(checkpoints_written(bench) > 4);
            assert_true(bench_pool_report(bench, "p").allocated_bytes <= 12 * MIB);
        }
    }
    bench_pass_time(bench, 1);
    assert_true(bench_pool_report(bench, "p").allocated_bytes <= 12 * MIB);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_damaged_database_is_refused(void **state)
{
    struct bench *bench = bench_with_pool(2, 1);

    (void)state;
    assert_int_equal(bench_shutdown(bench), 0);
    sim_store_set_damaged(bench->sim, "p", true);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_store_set_damaged(bench->sim, "p", false);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* A store that fails makes the pool read-only; it says so, and a restart recovers. */
static void
a_failing_store_makes_the_pool_read_only(void **state)
{
    struct bench *bench = bench_with_pool(2, 2);
    struct volume *one = make(bench, "p/one", 1 * GIB);

    (void)state;
    assert_int_equal(bench_fill(bench, one, 0, 1 * MIB, 1), 0);
    sim_store_fail(bench->sim, "p", SIM_STORE_COMMIT, 0, 1, EIO);
    assert_int_equal(bench_io(bench, one, VOLUME_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_READ_ONLY);
    assert_int_equal(bench_make_volume(bench, "p/two", 1 * GIB), -EROFS);
    assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
    assert_int_equal(bench_shutdown(bench), -EIO); /* not clean, and says so */
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    one = find(bench, "p/one");
    assert_true(bench_check(bench, one, 0, 1 * MIB, 1));
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_when_the_daemon_dies),
        cmocka_unit_test(replay_commits_nothing_that_is_not_on_the_disks),
        cmocka_unit_test(replay_can_be_interrupted_anywhere),
        cmocka_unit_test(a_power_cut_keeps_what_was_flushed),
        cmocka_unit_test(the_number_of_reactors_may_change),
        cmocka_unit_test(a_lost_volatile_journal_is_not_silent),
        cmocka_unit_test(an_old_database_is_brought_up_to_date),
        cmocka_unit_test(a_damaged_ledger_is_refused),
        cmocka_unit_test(checkpoints_let_the_ledger_go_round),
        cmocka_unit_test(old_checkpoints_give_their_space_back),
        cmocka_unit_test(a_damaged_database_is_refused),
        cmocka_unit_test(a_failing_store_makes_the_pool_read_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
