/* SPDX-License-Identifier: Apache-2.0 */
/* Changed blocks: who holds what, sizes that differ, disks that fail or hang, many pages. */
#include "tests/unit/volmgr/changes_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct names_call {
    struct bench *bench;
    struct changes_names names;
    struct message message;
    bool done;
};

static void
session_named(struct io_op *op)
{
    container_of(op, struct names_call, names.op)->done = true;
}

static void
session_ask_names(struct message *message)
{
    struct names_call *call = container_of(message, struct names_call, message);
    call->names.op.done = session_named;
    manager_changes_names(call->bench->manager, &call->names);
}

static void
assert_names(struct test *test, struct volume *volume, const char *expected, size_t expected_bytes)
{
    struct names_call call = { .bench = test->bench, .names.volume = volume };

    sim_process_enter(test->bench->sim);
    reactor_send(test->bench->reactors[1], &call.message, session_ask_names);
    sim_process_leave(test->bench->sim);
    assert_int_equal(bench_wait(test->bench, &call.done), 0);
    assert_false(call.names.ret_more);
    assert_int_equal(call.names.ret_names.length_bytes, expected_bytes);
    assert_memory_equal(call.names.ret_names.data, expected, expected_bytes);
    sim_process_enter(test->bench->sim);
    byte_buffer_free(&call.names.ret_names);
    sim_process_leave(test->bench->sim);
}

static void
names_and_holds(void **state)
{
    struct test test;
    struct session session;
    struct volume_diff diff = { 0 };
    struct error error;
    (void)state;
    changes_rig_start(&test, 3, 2);
    rig_make_volume(&test, 0);
    rig_make_volume(&test, 2);
    struct model_snapshot *one = rig_take(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, 8);
    struct model_snapshot *two = rig_take(&test, 0);
    rig_clone(&test, 0, one, 1);
    (void)rig_take(&test, 1);
    struct volume *head = rig_hold(&test, 0);
    struct volume *other = rig_hold(&test, 1);
    struct volume *view = bench_hold_snapshot(test.bench, "p/v0@s2");
    assert_names(&test, head, "s2\0s1", 6);
    assert_names(&test, view, "s2\0s1", 6);
    assert_names(&test, other, "s3", 3);
    assert_int_equal(begin_session(&test, head, "s9", &session), -ENOENT);
    assert_int_equal(begin_session(&test, head, "", &session), -ENOENT);
    assert_int_equal(begin_session(&test, head, "@", &session), -ENOENT);
    assert_int_equal(begin_session(&test, head, "v0@", &session), -ENOENT);
    assert_int_equal(begin_session(&test, head, "v9@s1", &session), -ENOENT);
    bench_release(test.bench, other);
    other = rig_hold(&test, 2);
    assert_int_equal(begin_session(&test, other, "v0@s1", &session), -EXDEV);
    bench_release(test.bench, other);
    bench_release(test.bench, view);
    assert_int_equal(snapshot_name_parse("p/v0@s1", false, &diff.from, &error), 0);
    assert_int_equal(snapshot_name_parse("p/v2", true, &diff.to, &error), 0);
    assert_int_equal(bench_volume_diff(test.bench, &diff), -EXDEV);
    assert_null(diff.ret_runs);
    assert_int_equal(snapshot_name_parse("p/v0@s7", false, &diff.to, &error), 0);
    assert_int_equal(bench_volume_diff(test.bench, &diff), -ENOENT);
    assert_int_equal(snapshot_name_parse("p/v0", true, &diff.to, &error), 0);
    diff.offset_bytes = VOLUME_SIZE + 1;
    assert_int_equal(bench_volume_diff(test.bench, &diff), -EINVAL);
    diff.from = diff.to;
    diff.offset_bytes = 0;
    assert_int_equal(bench_volume_diff(test.bench, &diff), -EINVAL);
    /* While it is being compared neither the snapshot nor the volume goes. */
    assert_int_equal(begin_session(&test, head, "s1", &session), 0);
    bench_release(test.bench, head);
    assert_int_equal(bench_drop_snapshot(test.bench, "p/v0@s1"), -EBUSY);
    assert_int_equal(bench_roll_back(test.bench, "p/v0@s2"), -EBUSY);
    end_session(&session);
    rig_drop(&test, 0, one);
    rig_roll_back(&test, 0, two);
    changes_rig_end(&test);
}

/* The newer side has the size: what has been added is changed where it holds something. */
static void
sizes(void **state)
{
    struct test test;
    struct volume_diff diff = { 0 };
    struct error error;
    uint8_t data[BLOCK_BYTES] = { 1 };
    (void)state;
    changes_rig_start(&test, 4, 1);
    rig_make_volume(&test, 0);
    (void)rig_take(&test, 0);
    assert_int_equal(bench_resize(test.bench, "p/v0", VOLUME_SIZE + 2 * PAGE_BYTES), 0);
    struct volume *volume = rig_hold(&test, 0);
    assert_int_equal(bench_io(test.bench, volume, VOLUME_WRITE, VOLUME_SIZE + PAGE_BYTES + 8192,
                              data, sizeof(data)), 0);
    bench_release(test.bench, volume);
    (void)rig_take(&test, 0);
    assert_int_equal(snapshot_name_parse("p/v0@s1", false, &diff.from, &error), 0);
    for (int head = 0; head < 2; head++) {
        assert_int_equal(snapshot_name_parse(head ? "p/v0" : "p/v0@s2", true, &diff.to, &error),
                         0);
        assert_int_equal(bench_volume_diff(test.bench, &diff), 0);
        assert_int_equal(diff.ret_from_bytes, VOLUME_SIZE);
        assert_int_equal(diff.ret_to_bytes, VOLUME_SIZE + 2 * PAGE_BYTES);
        assert_int_equal(diff.ret_next_bytes, diff.ret_end_bytes);
        assert_int_equal(diff.ret_count, 1);
        assert_int_equal(diff.ret_runs[0].offset_bytes, VOLUME_SIZE + PAGE_BYTES + 8192);
        assert_int_equal(diff.ret_runs[0].length_bytes, BLOCK_BYTES);
        free(diff.ret_runs);
    }
    /* Back again: only what there still is can be told. */
    volume = rig_hold(&test, 0);
    assert_int_equal(bench_io(test.bench, volume, VOLUME_DISCARD, VOLUME_SIZE, NULL,
                              2 * PAGE_BYTES), 0);
    bench_release(test.bench, volume);
    assert_int_equal(bench_resize(test.bench, "p/v0", VOLUME_SIZE), 0);
    assert_int_equal(snapshot_name_parse("p/v0@s2", false, &diff.from, &error), 0);
    assert_int_equal(bench_volume_diff(test.bench, &diff), 0);
    assert_int_equal(diff.ret_to_bytes, VOLUME_SIZE);
    assert_int_equal(diff.ret_count, 0);
    free(diff.ret_runs);
    changes_rig_end(&test);
}

/* One grain of which 7 blocks are as the snapshot has them, but have been moved. */
static void
make_moved(struct test *test)
{
    rig_make_volume(test, 0);
    rig_change(test, 0, VOLUME_WRITE, 0, 128);
    (void)rig_take(test, 0);
    struct model_snapshot *middle = rig_take(test, 0);
    rig_change(test, 0, VOLUME_WRITE, 0, 72);
    struct model_snapshot *late = rig_take(test, 0);
    rig_change(test, 0, VOLUME_WRITE, 0, 8);
    rig_drop(test, 0, middle);
    rig_drop(test, 0, late);
    bench_wait_for_jobs(test->bench);
}

static void
disks_that_fail(void **state)
{
    struct test test;
    struct session session;
    struct expected expected;
    (void)state;
    changes_rig_start(&test, 5, 1);
    make_moved(&test);
    struct sim_disk *disk = sim_disk_find(test.bench->sim, CHANGES_DISK);
    rig_expect(test.volumes[0].snapshots[0].stamps, test.volumes[0].stamps, &expected);
    struct volume *volume = rig_hold(&test, 0);
    assert_int_equal(begin_session(&test, volume, "s1", &session), 0);
    bench_release(test.bench, volume);
    ask_range(&session, 0, VOLUME_SIZE, &expected);
    /* What cannot be read counts as changed, and the whole goes on. */
    sim_disk_add_fault(disk, &(struct sim_fault){ .action = SIM_FAULT_ERROR,
                                                  .kinds = 1u << FILE_IO_READ });
    uint32_t changed = 0;
    session.query.offset_bytes = HOT_START;
    session.query.length_bytes = HOT_BYTES;
    session.query.extents_max = 64;
    session_run(&session, test.bench->reactors[0], session_ask);
    assert_int_equal(session.query.op.result, 0);
    for (uint32_t i = 0; i < session.query.ret_count; i++) {
        changed += session.extents[i].changed
                       ? (uint32_t)(session.extents[i].length_bytes / BLOCK_BYTES) : 0;
    }
    uint32_t different = 0;
    for (uint32_t block = 0; block < HOT_BLOCKS; block++) {
        different += expected.changed[block];
    }
    assert_true(changed > different);
    /* A disk that does not answer: the host is told, and its memory waits for the end. */
    sim_disk_clear_faults(disk);
    sim_disk_add_fault(disk, &(struct sim_fault){ .action = SIM_FAULT_HANG,
                                                  .kinds = 1u << FILE_IO_READ });
    session_run(&session, test.bench->reactors[0], session_ask);
    assert_int_equal(session.query.op.result, -ETIMEDOUT);
    assert_true(sim_disk_hanging(disk) > 0);
    session_run(&session, test.bench->reactors[0], session_ask);
    assert_int_equal(session.query.op.result, -ETIMEDOUT);
    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    bench_pass_time(test.bench, 1);
    ask_range(&session, 0, VOLUME_SIZE, &expected);
    /* Closed while it hangs. */
    sim_disk_add_fault(disk, &(struct sim_fault){ .action = SIM_FAULT_HANG,
                                                  .kinds = 1u << FILE_IO_READ });
    session.query.offset_bytes = HOT_START;
    session.query.length_bytes = HOT_BYTES;
    session_run(&session, test.bench->reactors[0], session_ask);
    assert_int_equal(session.query.op.result, -ETIMEDOUT);
    end_session(&session);
    assert_int_equal(bench_drop_snapshot(test.bench, "p/v0@s1"), -EBUSY);
    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    bench_pass_time(test.bench, 1);
    rig_drop(&test, 0, &test.volumes[0].snapshots[0]);
    changes_rig_end(&test);
}

/* Is this block among what the manager tells? */
static bool
is_told(const struct volume_diff *diff, uint64_t at)
{
    for (uint32_t i = 0; i < diff->ret_count; i++) {
        const struct volume_diff_run *run = &diff->ret_runs[i];
        if (at >= run->offset_bytes && at - run->offset_bytes < run->length_bytes) {
            return true;
        }
    }
    return false;
}

/*
 * A write in place is overdue when a snapshot is taken, and ends while that settles; meanwhile the
 * block has been moved as it was. The snapshot shows what was written, the volume what was there.
 */
static void
a_late_write_that_was_given_up(void **state)
{
    struct test test;
    struct volume_name name;
    struct snapshot_create create = { .count = 1, .names = &name };
    struct volume_diff diff = { 0 };
    struct error error;
    static uint8_t data[BLOCK_BYTES] = { 7 };
    static uint8_t other[BLOCK_BYTES] = { 8 };
    static uint8_t in_snapshot[BLOCK_BYTES];
    static uint8_t in_volume[BLOCK_BYTES];
    const uint64_t at = HOT_START + BLOCK_BYTES;
    bool done = false;
    (void)state;
    changes_rig_start(&test, 8, 1);
    rig_make_volume(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, 128);
    (void)rig_take(&test, 0);
    rig_change(&test, 0, VOLUME_WRITE, 0, 32); /* four blocks of it in a home of their own */
    bench_pass_time(test.bench, 3);
    struct sim_disk *disk = sim_disk_find(test.bench->sim, CHANGES_DISK);
    struct volume *volume = rig_hold(&test, 0);
    sim_disk_add_fault(disk, &(struct sim_fault){ .action = SIM_FAULT_HANG,
                                                  .kinds = 1u << FILE_IO_WRITE, .count = 1 });
    struct bench_io_call *late =
        bench_io_begin(test.bench, volume, VOLUME_WRITE, at, data, sizeof(data));
    bench_pass_time(test.bench, 62);
    assert_int_equal(sim_disk_hanging(disk), 1);
    bench_set_name(&name, "p/v0@s2");
    bench_snapshot_create_start(test.bench, &create, &done);
    assert_int_equal(sim_run_for(test.bench->sim, 200 * NS_PER_MS), 0);
    assert_false(done);
    assert_int_equal(bench_io(test.bench, volume, VOLUME_WRITE, HOT_START + 8 * BLOCK_BYTES, other,
                              sizeof(other)), 0);
    sim_disk_release(disk);
    assert_int_equal(bench_wait(test.bench, &done), 0);
    assert_int_equal(create.control.op.result, 0);
    assert_int_equal(bench_io_end(test.bench, late), -ETIMEDOUT);
    assert_int_equal(bench_io(test.bench, volume, VOLUME_READ, at, in_volume, BLOCK_BYTES), 0);
    bench_release(test.bench, volume);
    volume = bench_hold_snapshot(test.bench, "p/v0@s2");
    assert_int_equal(bench_io(test.bench, volume, VOLUME_READ, at, in_snapshot, BLOCK_BYTES), 0);
    bench_release(test.bench, volume);
    assert_int_equal(snapshot_name_parse("p/v0@s2", false, &diff.from, &error), 0);
    assert_int_equal(snapshot_name_parse("p/v0", true, &diff.to, &error), 0);
    assert_int_equal(bench_volume_diff(test.bench, &diff), 0);
    assert_true(memcmp(in_volume, in_snapshot, BLOCK_BYTES) != 0);
    assert_true(is_told(&diff, at));
    free(diff.ret_runs);
    changes_rig_end(&test);
}

/* Links that come in several parts, and more pages than one answer is about. */
static void
many_pages(void **state)
{
    enum { PAGES = 2000, STRIDE_PAGES = 3 };
    struct test test;
    struct volume_diff diff = { 0 };
    struct error error;
    uint8_t data[BLOCK_BYTES] = { 1 };
    uint32_t runs = 0;
    uint32_t answers = 0;
    (void)state;
    changes_rig_start(&test, 6, 2);
    assert_int_equal(bench_make_volume(test.bench, "p/v0", PAGES * STRIDE_PAGES * PAGE_BYTES), 0);
    assert_int_equal(bench_make_export(test.bench, "p/v0"), 0);
    assert_int_equal(bench_make_snapshot(test.bench, "p/v0@s1"), 0);
    struct volume *volume = rig_hold(&test, 0);
    for (uint64_t page = 0; page < PAGES; page++) {
        assert_int_equal(bench_io(test.bench, volume, VOLUME_WRITE,
                                  page * STRIDE_PAGES * PAGE_BYTES + 4096, data, sizeof(data)), 0);
    }
    bench_release(test.bench, volume);
    assert_int_equal(bench_make_snapshot(test.bench, "p/v0@s2"), 0);
    assert_int_equal(snapshot_name_parse("p/v0@s1", false, &diff.from, &error), 0);
    assert_int_equal(snapshot_name_parse("p/v0@s2", false, &diff.to, &error), 0);
    do {
        diff.runs_max = 700;
        assert_int_equal(bench_volume_diff(test.bench, &diff), 0);
        for (uint32_t i = 0; i < diff.ret_count; i++, runs++) {
            assert_int_equal(diff.ret_runs[i].offset_bytes,
                             (uint64_t)runs * STRIDE_PAGES * PAGE_BYTES + 4096);
            assert_int_equal(diff.ret_runs[i].length_bytes, BLOCK_BYTES);
        }
        free(diff.ret_runs);
        diff.offset_bytes = diff.ret_next_bytes;
        answers++;
    } while (diff.ret_next_bytes < diff.ret_end_bytes);
    assert_int_equal(runs, PAGES);
    assert_int_equal(answers, 3);
    changes_rig_end(&test);
}

static void
sets_of_pages(void **state)
{
    enum { RANGE = 20000, PAGES = 3000 };
    static bool model[RANGE];
    struct page_set set = { 0 };
    struct random random;
    uint64_t page;
    (void)state;
    random_seed(&random, 1);
    assert_false(page_set_next(&set, 0, &page));
    for (uint32_t i = 0; i < PAGES; i++) {
        uint64_t added = random_below(&random, RANGE);
        model[added] = true;
        page_set_add(&set, added);
    }
    for (uint64_t from = 0; from < RANGE; from++) {
        uint64_t expected = from;
        while (expected < RANGE && !model[expected]) {
            expected++;
        }
        assert_int_equal(page_set_next(&set, from, &page), expected < RANGE);
        assert_true(expected == RANGE || page == expected);
    }
    page_set_add(&set, UINT64_C(1) << 38);
    assert_true(page_set_next(&set, RANGE, &page) && page == UINT64_C(1) << 38);
    assert_false(page_set_next(&set, page + 1, &page));
    page_set_free(&set);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_holds),
        cmocka_unit_test(sizes),
        cmocka_unit_test(disks_that_fail),
        cmocka_unit_test(a_late_write_that_was_given_up),
        cmocka_unit_test(many_pages),
        cmocka_unit_test(sets_of_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
