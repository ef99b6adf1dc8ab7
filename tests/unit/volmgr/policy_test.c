/* SPDX-License-Identifier: Apache-2.0 */
/* Schedules: snapshots come and go by themselves. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/core_impl.h"

#define DISK_BYTES (256 * MIB)

static const char *const ONE[] = { "/d/0", NULL };

static struct bench *
bench_with_volume(void)
{
    struct bench *bench = bench_create(61, 2);

    bench_disk(bench, "/d/0", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
    return bench;
}

static int
set_rule(struct bench *bench, uint64_t every_s, uint32_t keep, uint64_t immutable_s)
{
    struct policy_set set = {
        .name = { .pool = "p", .volume = "v" },
        .policy.rules[0] = {
            .every_ns = every_s * NS_PER_S,
            .keep = keep,
            .immutable_ns = immutable_s * NS_PER_S,
        },
    };
    return bench_policy_set(bench, &set);
}

static uint32_t
snapshot_count(struct bench *bench)
{
    struct volume_report report;

    assert_true(bench_volume_report(bench, "p/v", &report));
    return report.snapshot_count;
}

static struct policy_report
policy_report(struct bench *bench)
{
    struct policy_query query = { .name = { .pool = "p", .volume = "v" } };
    struct policy_report report = { 0 };

    assert_int_equal(bench_policy_query(bench, &query), 0);
    if (query.ret_count == 1) {
        report = query.ret_policies[0];
    }
    free(query.ret_policies);
    return report;
}

static void
snapshots_come_and_go(void **state)
{
    struct bench *bench = bench_with_volume();

    (void)state;
    assert_int_equal(set_rule(bench, 0, 0, 0), 0); /* nothing to do */
    assert_int_equal(set_rule(bench, 10, 0, 0), -EINVAL);
    assert_int_equal(set_rule(bench, 10, 10001, 0), -EINVAL);
    assert_int_equal(bench_make_snapshot(bench, "p/v@mine"), 0);
    assert_int_equal(set_rule(bench, 10, 3, 0), 0);
    bench_pass_time(bench, 1);
    assert_int_equal(snapshot_count(bench), 2); /* the first one at once */
    bench_pass_time(bench, 15);
    assert_true(snapshot_count(bench) >= 3);
    bench_pass_time(bench, 60);
    assert_int_equal(snapshot_count(bench), 4);
    struct policy_report report = policy_report(bench);
    assert_int_equal(report.policy.rules[0].keep, 3);
    assert_true(report.next_realtime_ns > bench_realtime_ns(bench));
    assert_true(report.next_realtime_ns <= bench_realtime_ns(bench) + 10 * NS_PER_S);
    assert_int_equal(report.next_realtime_ns % (10 * NS_PER_S), 0);
    assert_int_equal(report.failed_realtime_ns, 0);
    assert_int_equal(set_rule(bench, 10, 1, 0), 0); /* fewer are kept: at once */
    bench_pass_time(bench, 1);
    assert_int_equal(snapshot_count(bench), 2);
    assert_int_equal(set_rule(bench, 0, 0, 0), 0);
    bench_pass_time(bench, 60);
    assert_int_equal(snapshot_count(bench), 2);
    assert_int_equal(policy_report(bench).policy.rules[0].keep, 0);
    assert_int_equal(bench_drop_snapshot(bench, "p/v@mine"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
what_was_missed_is_made_once(void **state)
{
    struct bench *bench = bench_with_volume();

    (void)state;
    assert_int_equal(set_rule(bench, 3600, 100, 0), 0);
    bench_pass_time(bench, 1);
    assert_int_equal(snapshot_count(bench), 1);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_pass_time(bench, 10 * 3600);
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 1);
    assert_int_equal(snapshot_count(bench), 2);
    /* In the same hour nothing is made twice, whatever happens to the process. */
    bench_kill(bench);
    assert_int_equal(bench_boot(bench), 0);
    bench_pass_time(bench, 1);
    assert_int_equal(snapshot_count(bench), 2);
    assert_int_equal(policy_report(bench).policy.rules[0].keep, 100);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
setting_the_clock_shortens_nothing(void **state)
{
    struct bench *bench = bench_with_volume();
    struct snapshot_query query = { .name = { .pool = "p", .volume = "v" } };
    char path[SNAPSHOT_PATH_SIZE];

    (void)state;
    assert_int_equal(set_rule(bench, 10, 1, 1000), 0);
    bench_pass_time(bench, 1);
    assert_int_equal(bench_snapshot_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 1);
    assert_int_equal(query.ret_snapshots[0].rules, 1);
    assert_true(query.ret_snapshots[0].expires_realtime_ns >
                bench_realtime_ns(bench) + 990 * NS_PER_S);
    volume_name_format(&query.ret_snapshots[0].name, path);
    free(query.ret_snapshots);
    assert_int_equal(bench_drop_snapshot(bench, path), -EPERM);
    sim_set_realtime_ns(bench->sim, bench_realtime_ns(bench) + 5000 * NS_PER_S);
    assert_int_equal(bench_drop_snapshot(bench, path), -EPERM);
    bench_pass_time(bench, 100);
    assert_true(snapshot_count(bench) > 3); /* immutable ones are not thinned out */
    /* Set back by a day: the schedule goes on. */
    sim_set_realtime_ns(bench->sim, bench_realtime_ns(bench) - 86400 * NS_PER_S);
    uint32_t before = snapshot_count(bench);
    bench_pass_time(bench, 100);
    assert_true(snapshot_count(bench) > before);
    assert_int_equal(bench_drop_snapshot(bench, path), -EPERM);
    assert_int_equal(set_rule(bench, 10, 1, 0), 0);
    bench_pass_time(bench, 1300);
    assert_int_equal(snapshot_count(bench), 1);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_schedule_that_fails_is_told(void **state)
{
    struct bench *bench = bench_with_volume();
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_WRITE, .count = 1 };
    struct sim_disk *disk = sim_disk_find(bench->sim, "/d/0");
    struct export_lookup lookup;
    uint8_t *block = aligned_alloc(4096, 4096);

    (void)state;
    assert_non_null(block);
    memset(block, 1, 4096);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    assert_int_equal(bench_fill(bench, lookup.ret_volume, 0, 1 * MIB, 1), 0);
    assert_int_equal(bench_io(bench, lookup.ret_volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    sim_disk_add_fault(disk, &hang);
    struct bench_io_call *call =
        bench_io_begin(bench, lookup.ret_volume, VOLUME_WRITE, 8192, block, 4096);
    sim_run_for(bench->sim, 2 * NS_PER_MS);
    assert_int_equal(sim_disk_hanging(disk), 1);
    assert_int_equal(set_rule(bench, 3600, 3, 0), 0);
    bench_pass_time(bench, 10);
    assert_int_equal(snapshot_count(bench), 0);
    struct policy_report report = policy_report(bench);
    assert_true(report.failed_realtime_ns != 0);
    assert_true(report.problem[0] != '\0');
    assert_int_equal(bench_events(bench, "snapshot-schedule-failed"), 1);
    sim_disk_release(disk);
    assert_int_equal(bench_io_end(bench, call), 0);
    bench_pass_time(bench, 70); /* tried again by and by */
    assert_int_equal(snapshot_count(bench), 1);
    assert_int_equal(policy_report(bench).failed_realtime_ns, 0);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    free(block);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_come_and_go),
        cmocka_unit_test(what_was_missed_is_made_once),
        cmocka_unit_test(setting_the_clock_shortens_nothing),
        cmocka_unit_test(a_schedule_that_fails_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
