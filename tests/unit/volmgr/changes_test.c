/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changed blocks against the content: every difference between two views is told, and nothing else,
 * by both interfaces. Each write bears a stamp that is never used again, so that blocks differ
 * exactly if one of them has been written since they were the same.
 */
#include "tests/unit/volmgr/changes_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
by_hand(void **state)
{
    struct test test;
    (void)state;
    changes_rig_start(&test, 1, 2);
    rig_make_volume(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, HOT_SECTORS);
    struct model_snapshot *one = rig_take(&test, 0);
    rig_compare(&test, 0, one, 0, one);
    rig_change(&test, 0, VOLUME_WRITE, 8, 8);
    struct model_snapshot *two = rig_take(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 65, 1);       /* kind 1, part of a block */
    rig_change(&test, 0, VOLUME_DISCARD, 256, 128);  /* a grain */
    struct model_snapshot *three = rig_take(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 24, 8); /* kind 3: block 1 moves */
    rig_compare(&test, 0, one, 0, two);
    rig_compare(&test, 0, two, 0, three);
    rig_compare(&test, 0, one, 0, three);
    rig_compare(&test, 0, one, 0, NULL);
    rig_compare(&test, 0, two, 0, NULL);
    rig_compare(&test, 0, three, 0, NULL);
    rig_compare(&test, 0, three, 0, one); /* backwards it is the same */
    rig_drop(&test, 0, two);
    bench_wait_for_jobs(test.bench);
    rig_compare(&test, 0, one, 0, three);
    rig_compare(&test, 0, one, 0, NULL);
    rig_clone(&test, 0, three, 1);
    rig_change(&test, 1, VOLUME_WRITE, 300, 40);
    rig_compare(&test, 0, three, 1, NULL);
    rig_compare(&test, 0, one, 1, NULL);
    rig_roll_back(&test, 0, one);
    rig_change(&test, 0, VOLUME_WRITE, 500, 40);
    rig_compare(&test, 0, one, 0, NULL);
    rig_compare(&test, 0, three, 0, NULL);
    changes_rig_end(&test);
}

/*
 * A block that was only moved behind a snapshot is overwritten in place, and the daemon dies before
 * it could note that: the entry says `copied` of bytes that have changed.
 */
static bool
overwrite_and_die(uint64_t delay_ns)
{
    struct test test;
    struct expected expected;
    struct model_snapshot *snapshot;
    struct bench_io_call *calls[2];
    uint32_t data[BLOCK_BYTES / sizeof(uint32_t)];

    changes_rig_start(&test, 1, 1);
    rig_make_volume(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, 128);
    (void)rig_take(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, 64);
    snapshot = rig_take(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, 8); /* kind 3: blocks 1 to 7, or 8 to 15, are moved */
    bench_pass_time(test.bench, 4);       /* committed */
    uint32_t stamp = ++test.last_stamp;
    for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
        data[i] = stamp;
    }
    struct volume *volume = rig_hold(&test, 0);
    for (uint32_t block = 1; block < 16; block += 8) {
        calls[block / 8] =
            bench_io_begin(test.bench, volume, VOLUME_WRITE,
                           HOT_START + (uint64_t)block * BLOCK_BYTES, data, sizeof(data));
    }
    assert_int_equal(sim_run_for(test.bench->sim, delay_ns), 0);
    bench_kill(test.bench);
    free(calls[0]);
    free(calls[1]);
    assert_int_equal(bench_boot(test.bench), 0);
    volume = rig_hold(&test, 0);
    bool landed = false;
    for (uint32_t block = 1; block < 16; block += 8) {
        assert_int_equal(bench_io(test.bench, volume, VOLUME_READ,
                                  HOT_START + (uint64_t)block * BLOCK_BYTES, data, sizeof(data)),
                         0);
        for (uint32_t i = 0; i < SECTORS_PER_BLOCK; i++) {
            uint32_t found = data[i * SECTOR / sizeof(uint32_t)];
            landed |= found == stamp;
            test.volumes[0].stamps[block * SECTORS_PER_BLOCK + i] = found;
        }
    }
    bench_release(test.bench, volume);
    rig_expect(snapshot->stamps, test.volumes[0].stamps, &expected);
    rig_compare_by_manager(&test, "p/v0@s2", "p/v0", &expected);
    changes_rig_end(&test);
    return landed;
}

static void
notes_lost_in_a_crash(void **state)
{
    uint32_t landed = 0;
    (void)state;
    for (uint64_t delay_us = 0; delay_us < 300; delay_us += 5) {
        landed += overwrite_and_die(delay_us * NS_PER_US);
    }
    assert_true(landed > 10);
}

static void
random_step(struct test *test)
{
    uint32_t volume = (uint32_t)random_below(&test->random, VOLUMES);
    uint32_t dice = (uint32_t)random_below(&test->random, 100);

    if (!test->volumes[volume].used) {
        uint32_t from = (uint32_t)random_below(&test->random, VOLUMES);
        const struct model_snapshot *snapshot =
            test->volumes[from].used ? rig_any_snapshot(test, from) : NULL;
        if (snapshot != NULL && dice < 30) {
            rig_clone(test, from, snapshot, volume);
        }
        return;
    }
    struct model_snapshot *snapshot = rig_any_snapshot(test, volume);
    if (dice < 55) {
        rig_change_randomly(test, volume);
    } else if (dice < 72) {
        rig_take(test, volume);
    } else if (dice < 80 && snapshot != NULL) {
        rig_drop(test, volume, snapshot);
    } else if (dice < 82 && snapshot != NULL) {
        rig_roll_back(test, volume, snapshot);
    } else if (dice < 84) {
        bench_wait_for_jobs(test->bench);
    } else if (dice < 97) {
        uint32_t from = (uint32_t)random_below(&test->random, VOLUMES);
        const struct model_snapshot *older =
            test->volumes[from].used ? rig_any_snapshot(test, from) : NULL;
        if (older != NULL) {
            rig_compare(test, from, older, volume,
                        random_below(&test->random, 2) == 0 ? NULL : snapshot);
        }
    } else if (dice == 97) {
        assert_int_equal(bench_shutdown(test->bench), 0);
        assert_int_equal(bench_boot(test->bench), 0);
    } else if (dice == 98) {
        bench_kill(test->bench); /* all that was acknowledged is in the journal */
        assert_int_equal(bench_boot(test->bench), 0);
    } else {
        bench_pass_time(test->bench, 3); /* seals, jobs */
    }
}

static void
random_histories(void **state)
{
    const char *seeds_text = getenv("CHANGES_SEEDS");
    uint64_t seeds = seeds_text != NULL ? strtoull(seeds_text, NULL, 0) : 12;
    uint32_t compared = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        static struct test test;
        changes_rig_start(&test, seed, 1 + (uint32_t)seed % 2);
        rig_make_volume(&test, 0);
        for (uint32_t step = 0; step < 250; step++) {
            random_step(&test);
        }
        compared += test.compared;
        changes_rig_end(&test);
    }
    printf("compared %u pairs\n", compared);
}

/* ---- while it is written ---- */

enum {
    RACING = 6, /* writes beside a query */
};

struct racing {
    struct bench_io_call *calls[RACING];
    uint32_t *data[RACING];
};

/* Begin a write, a discard or a FLUSH, and note in `stamps` what it does. */
static void
race_begin(struct test *test, struct volume *volume, struct racing *racing, uint32_t index,
           uint32_t *stamps)
{
    uint32_t first = (uint32_t)random_below(&test->random, HOT_BLOCKS - 8);
    uint32_t count = 1 + (uint32_t)random_below(&test->random, 8);
    uint32_t dice = (uint32_t)random_below(&test->random, 8);
    enum volume_operation operation = dice < 6 ? VOLUME_WRITE
                                      : dice < 7 ? VOLUME_DISCARD : VOLUME_FLUSH;
    uint32_t stamp = operation == VOLUME_WRITE ? ++test->last_stamp : 0;
    size_t words = (size_t)count * BLOCK_BYTES / sizeof(uint32_t);

    racing->data[index] = malloc(words * sizeof(uint32_t));
    for (size_t i = 0; i < words; i++) {
        racing->data[index][i] = stamp;
    }
    bool flush = operation == VOLUME_FLUSH;
    racing->calls[index] = bench_io_begin(
        test->bench, volume, operation, flush ? 0 : HOT_START + (uint64_t)first * BLOCK_BYTES,
        operation == VOLUME_WRITE ? racing->data[index] : NULL,
        flush ? 0 : (uint64_t)count * BLOCK_BYTES);
    for (uint32_t i = first * SECTORS_PER_BLOCK; i < (first + count) * SECTORS_PER_BLOCK && !flush;
         i++) {
        stamps[i] = stamp;
    }
}

/* Told as changed: it is so by now; told as not changed: it was not when the query began. */
static void
assert_told_in_time(const struct session *session, const struct expected *before,
                    const struct expected *after)
{
    uint64_t at = HOT_START;

    for (uint32_t i = 0; i < session->query.ret_count; i++) {
        uint64_t end = at + session->extents[i].length_bytes;
        for (; at < end; at += BLOCK_BYTES) {
            uint64_t block = (at - HOT_START) >> BLOCK_SHIFT;
            if (session->extents[i].changed ? !after->changed[block] : before->changed[block]) {
                fail_msg("block %llu is told as %s", (unsigned long long)block,
                         session->extents[i].changed ? "changed" : "the same");
            }
        }
    }
}

static void
while_it_is_written(void **state)
{
    struct test test;
    struct session session;
    struct racing racing;
    struct expected before;
    struct expected after;
    char since[32];
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        changes_rig_start(&test, seed, 1);
        rig_make_volume(&test, 0);
        for (uint32_t i = 0; i < 60; i++) {
            rig_change_randomly(&test, 0);
            if (i % 12 == 11) {
                (void)rig_take(&test, 0);
            }
        }
        struct model_snapshot *since_that = &test.volumes[0].snapshots[2];
        struct volume *volume = rig_hold(&test, 0);
        snprintf(since, sizeof(since), "s%u", since_that->number);
        assert_int_equal(begin_session(&test, volume, since, &session), 0);
        for (uint32_t round = 0; round < 120; round++) {
            if (round % 40 == 39) { /* again there is much to be moved */
                (void)rig_take(&test, 0);
            }
            rig_expect(since_that->stamps, test.volumes[0].stamps, &before);
            after = before;
            /* One by one: each block that is different at some time may be told as changed. */
            for (uint32_t i = 0; i < RACING; i++) {
                struct expected now;
                race_begin(&test, volume, &racing, i, test.volumes[0].stamps);
                rig_expect(since_that->stamps, test.volumes[0].stamps, &now);
                for (uint32_t block = 0; block < HOT_BLOCKS; block++) {
                    before.changed[block] &= now.changed[block];
                    after.changed[block] |= now.changed[block];
                }
            }
            session.query.offset_bytes = HOT_START;
            session.query.length_bytes = HOT_BYTES;
            session.query.extents_max = 64;
            assert_int_equal(sim_run_for(test.bench->sim,
                                         random_below(&test.random, 300) * NS_PER_US), 0);
            session_run(&session, volume_reactor(volume), session_ask);
            assert_int_equal(session.query.op.result, 0);
            assert_told_in_time(&session, &before, &after);
            for (uint32_t i = 0; i < RACING; i++) {
                assert_int_equal(bench_io_end(test.bench, racing.calls[i]), 0);
                free(racing.data[i]);
            }
        }
        end_session(&session);
        bench_release(test.bench, volume);
        rig_compare(&test, 0, since_that, 0, NULL);
        changes_rig_end(&test);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(notes_lost_in_a_crash),
        cmocka_unit_test(while_it_is_written),
        cmocka_unit_test(random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
