/* SPDX-License-Identifier: Apache-2.0 */
/* Checking a pool that serves: finds what is wrong in database, labels and memory; harms nobody. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define DISK_BYTES (128 * MIB)

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct bench *
bench_with_volume(uint64_t seed, uint64_t filled_bytes)
{
    struct bench *bench = bench_create(seed, 2);
    struct export_lookup lookup;

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 256 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    assert_int_equal(bench_fill(bench, lookup.ret_volume, 0, filled_bytes, 1), 0);
    assert_int_equal(bench_io(bench, lookup.ret_volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    bench_release(bench, lookup.ret_volume);
    return bench;
}

static uint64_t
begin(struct bench *bench)
{
    struct pool_check check = { .name = "p" };

    assert_int_equal(bench_pool_check(bench, &check), 0);
    assert_true(check.ret_job > 0);
    return check.ret_job;
}

/* The result, with its notes; check_query_free(). */
static struct check_query
result_of(struct bench *bench)
{
    struct check_query query = { .name = "p" };

    assert_int_equal(bench_check_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 1);
    return query;
}

static struct check_query
check_now(struct bench *bench)
{
    begin(bench);
    bench_wait_for_jobs(bench);
    struct check_query query = result_of(bench);
    assert_true(query.ret_checks[0].finished);
    return query;
}

static bool
has_note(const struct check_query *query, const char *code)
{
    for (uint32_t i = 0; i < query->ret_checks[0].note_count; i++) {
        if (strcmp(query->ret_checks[0].notes[i].code, code) == 0) {
            return true;
        }
    }
    return false;
}

static void
a_pool_in_order_has_no_findings(void **state)
{
    struct bench *bench = bench_with_volume(1, 8 * MIB);

    (void)state;
    struct check_query query = check_now(bench);
    const struct check_report *report = &query.ret_checks[0];
    assert_int_equal(report->result, 0);
    assert_int_equal(report->errors, 0);
    assert_int_equal(report->warnings, 0);
    assert_int_equal(report->percent, 100);
    assert_int_equal(report->disks, 2);
    assert_int_equal(report->grains, 8 * MIB / (64 * KIB));
    assert_true(report->commit > 0 && report->records > 0 && report->pages > 0);
    assert_true(report->ended_realtime_ns >= report->started_realtime_ns);
    check_query_free(&query);
    assert_int_equal(bench_events(bench, "check-found-errors"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
what_is_not_committed_yet_is_no_finding(void **state)
{
    struct bench *bench = bench_with_volume(2, 1 * MIB);
    struct export_lookup lookup;

    (void)state;
    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    for (uint32_t round = 0; round < 20; round++) {
        /* Acknowledged, in the journal only; and more while the check runs. */
        uint64_t offset = (1 + round * 8) * MIB;
        assert_int_equal(bench_fill(bench, lookup.ret_volume, offset, 3 * MIB, 2), 0);
        begin(bench);
        assert_int_equal(bench_fill(bench, lookup.ret_volume, offset + 4 * MIB, 2 * MIB, 3), 0);
        assert_int_equal(bench_io(bench, lookup.ret_volume, VOLUME_DISCARD, offset, NULL, 2 * MIB),
                         0);
        bench_wait_for_jobs(bench);
        struct check_query query = result_of(bench);
        assert_int_equal(query.ret_checks[0].result, 0);
        assert_int_equal(query.ret_checks[0].errors, 0);
        check_query_free(&query);
    }
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* The record of the only volume, as the report of the manager tells it. */
static struct volume_record
volume_record_of(struct bench *bench)
{
    struct volume_report report;
    struct volume_record record = { .copies = 1 };

    assert_true(bench_volume_report(bench, "p/v", &report));
    record.id = report.id;
    record.branch = report.id; /* wrong or not: what is put is another volume anyway */
    snprintf(record.name, sizeof(record.name), "v");
    record.size_bytes = report.info.size_bytes;
    record.sector_bytes = report.info.sector_bytes;
    record.tier = report.tier;
    memcpy(record.guid, report.info.guid, GUID_BYTES);
    return record;
}

static void
a_database_that_says_otherwise_than_memory_is_found(void **state)
{
    struct bench *bench = bench_with_volume(3, 1 * MIB);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct volume_record record = volume_record_of(bench);
    struct export_record export = { .id = 77, .volume = record.id, .name = "p/x",
                                    .protocol = "nbd" };

    (void)state;
    record.size_bytes /= 2;
    schema_put_volume(&batch, &record);
    record.id = 99;
    record.branch = 99;
    snprintf(record.name, sizeof(record.name), "w");
    schema_put_volume(&batch, &record);
    schema_put_export(&batch, &export);
    bench_commit(bench, &batch);
    struct check_query query = check_now(bench);
    assert_int_equal(query.ret_checks[0].result, 0);
    assert_true(query.ret_checks[0].errors >= 3);
    assert_true(has_note(&query, "memory-volume-differs"));
    assert_true(has_note(&query, "memory-volume-missing"));
    assert_true(has_note(&query, "memory-export-missing"));
    assert_true(has_note(&query, "volume-branch-wrong"));
    check_query_free(&query);
    assert_int_equal(bench_events(bench, "check-found-errors"), 1);
    byte_buffer_free(&batch);
    bench->made_up = true;
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
records_that_are_gone_are_found(void **state)
{
    struct bench *bench = bench_with_volume(4, 1 * MIB);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct volume_report report;

    (void)state;
    assert_true(bench_volume_report(bench, "p/v", &report));
    schema_delete_id(&batch, SCHEMA_VOLUME, report.id);
    bench_commit(bench, &batch);
    struct check_query query = check_now(bench);
    assert_true(has_note(&query, "memory-volume-extra"));
    assert_true(has_note(&query, "export-volume-missing"));
    check_query_free(&query);
    byte_buffer_free(&batch);
    bench->made_up = true;
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
an_extent_in_another_place_is_found(void **state)
{
    struct bench *bench = bench_with_volume(5, 4 * MIB);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct extent_record record = { .state = EXTENT_STATE_DATA, .copy_count = 1 };

    (void)state;
    uint32_t grains = (uint32_t)(bench_pool_report(bench, "p").extent_bytes / (64 * KIB));
    record.places[0].slot = 20;
    for (uint64_t id = 1; id <= 3; id++) {
        schema_put_extent(&batch, id, &record, grains);
    }
    bench_commit(bench, &batch);
    struct check_query query = check_now(bench);
    assert_true(has_note(&query, "memory-extent-differs"));
    assert_true(has_note(&query, "extent-slot-twice"));
    check_query_free(&query);
    byte_buffer_free(&batch);
    bench->made_up = true;
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
numbers_that_are_given_again_are_no_finding(void **state)
{
    struct bench *bench = bench_with_volume(9, 32 * MIB);
    struct export_lookup from;
    struct export_lookup to;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/w", 256 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/w"), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/v", &from), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/w", &to), 0);
    for (uint32_t round = 0; round < 4; round++) {
        bool done = false;
        struct pool_check check = { .name = "p" };
        /* So slow that extents go and come back between the snapshot and the look at them. */
        sim_store_set_latency(bench->sim, "p", 300 * NS_PER_MS, 300 * NS_PER_MS);
        bench_pool_check_start(bench, &check, &done);
        assert_int_equal(bench_wait(bench, &done), 0);
        bench_pass_time(bench, 1);
        struct volume *left = round % 2 == 0 ? from.ret_volume : to.ret_volume;
        struct volume *right = round % 2 == 0 ? to.ret_volume : from.ret_volume;
        sim_store_set_latency(bench->sim, "p", NS_PER_US, NS_PER_US);
        assert_int_equal(bench_io(bench, left, VOLUME_DISCARD, 0, NULL, 64 * MIB), 0);
        assert_int_equal(bench_io(bench, left, VOLUME_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(bench_fill(bench, right, 0, 32 * MIB, 2), 0);
        assert_int_equal(bench_io(bench, right, VOLUME_FLUSH, 0, NULL, 0), 0);
        bench_wait_for_jobs(bench);
        struct check_query query = result_of(bench);
        assert_int_equal(query.ret_checks[0].result, 0);
        assert_int_equal(query.ret_checks[0].errors, 0);
        check_query_free(&query);
    }
    bench_release(bench, from.ret_volume);
    bench_release(bench, to.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_label_that_is_gone_is_found(void **state)
{
    struct bench *bench = bench_with_volume(6, 1 * MIB);

    (void)state;
    sim_disk_damage(sim_disk_find(bench->sim, "/d/1"), 0, 1 * MIB, 1);
    sim_disk_damage(sim_disk_find(bench->sim, "/d/1"), DISK_BYTES - 1 * MIB, 1 * MIB, 2);
    struct check_query query = check_now(bench);
    assert_int_equal(query.ret_checks[0].disks, 1);
    assert_true(has_note(&query, "label-damaged") || has_note(&query, "label-missing"));
    check_query_free(&query);
    bench->made_up = true;
    bench_kill(bench);
    bench_free(bench);
}

static void
a_disk_that_hangs_holds_up_neither_check_nor_commands(void **state)
{
    struct bench *bench = bench_with_volume(7, 1 * MIB);

    (void)state;
    struct sim_disk *disk = sim_disk_find(bench->sim, "/d/1");
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_READ };
    sim_disk_add_fault(disk, &fault);
    begin(bench);
    assert_int_equal(bench_resize(bench, "p/v", 512 * MIB), 0); /* stands in the same line */
    bench_wait_for_jobs(bench);
    struct check_query query = result_of(bench);
    assert_int_equal(query.ret_checks[0].result, 0);
    assert_int_equal(query.ret_checks[0].disks, 1);
    assert_int_equal(query.ret_checks[0].errors, 0);
    check_query_free(&query);
    assert_int_equal(sim_disk_hanging(disk), 2); /* the check's and the heartbeat's, and no more */
    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
the_end_of_the_daemon_ends_a_check(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 30; seed++) {
        struct bench *bench = bench_with_volume(seed, 16 * MIB);
        bool done = false;
        struct pool_check check = { .name = "p" };
        /* Slow reads, so that the end comes at different places of the check. */
        sim_store_set_latency(bench->sim, "p", seed * 10 * NS_PER_US, seed * 100 * NS_PER_US);
        bench_pool_check_start(bench, &check, &done);
        if (seed % 2 == 0) {
            assert_int_equal(bench_wait(bench, &done), 0);
        }
        assert_int_equal(bench_shutdown(bench), 0);
        assert_true(done);
        bench_free(bench);
    }
}

static void
two_checks_of_one_pool_are_one(void **state)
{
    struct bench *bench = bench_with_volume(8, 1 * MIB);
    struct pool_check absent = { .name = "q" };

    (void)state;
    uint64_t first = begin(bench);
    assert_int_equal(begin(bench), first);
    bench_wait_for_jobs(bench);
    assert_true(begin(bench) > first);
    bench_wait_for_jobs(bench);
    struct check_query query = result_of(bench);
    check_query_free(&query);
    assert_int_equal(bench_pool_check(bench, &absent), -ENOENT);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_in_order_has_no_findings),
        cmocka_unit_test(what_is_not_committed_yet_is_no_finding),
        cmocka_unit_test(a_database_that_says_otherwise_than_memory_is_found),
        cmocka_unit_test(records_that_are_gone_are_found),
        cmocka_unit_test(an_extent_in_another_place_is_found),
        cmocka_unit_test(numbers_that_are_given_again_are_no_finding),
        cmocka_unit_test(a_label_that_is_gone_is_found),
        cmocka_unit_test(a_disk_that_hangs_holds_up_neither_check_nor_commands),
        cmocka_unit_test(the_end_of_the_daemon_ends_a_check),
        cmocka_unit_test(two_checks_of_one_pool_are_one),
    };
    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
