/* SPDX-License-Identifier: Apache-2.0 */
/* The commit ledger on memory disks, with faults and damage: invariants L1 to L4. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backends/fault.h"
#include "base/crc32c.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/ledger.h"

enum {
    BLOCK = 4096,
    AREA_START = 64 << 10,
    COPIES = 3,
};

/* A ledger over some of three disks, and what a scan of it said. */
struct bench {
    struct harness *harness;
    struct backend *disks[COPIES];
    uint64_t area_bytes;
    uint64_t incarnation;
    struct ledger *ledger;
    struct ledger_scan scan;
    uint64_t delivered;      /* records of the last scan */
    uint64_t first_delivered;
    uint64_t salt;           /* of the batches' content */
    bool wrong;              /* a record did not have the content of its number */
};

static struct bench *
bench_start(struct harness *harness, uint32_t disks, uint64_t area_bytes)
{
    struct bench *bench = test_calloc(1, sizeof(*bench));
    bench->harness = harness;
    bench->area_bytes = area_bytes;
    bench->incarnation = 1;
    for (uint32_t n = 0; n < disks; n++) {
        bench->disks[n] = harness_backend(harness, "fault:mem:8M!");
    }
    return bench;
}

struct open_call {
    struct io_op op;
    struct bench *bench;
    uint32_t mask;
};

static void
start_open(void *argument)
{
    struct open_call *call = argument;
    struct bench *bench = call->bench;
    struct ledger_options options = {
        .incarnation = bench->incarnation,
        .late_ns = 2 * NS_PER_S, /* of this machine, which may be busy */
    };
    memset(options.pool_guid, 7, GUID_BYTES);
    for (uint32_t n = 0; n < COPIES; n++) {
        if ((call->mask & 1u << n) != 0) {
            options.copies[options.copy_count++] = (struct ledger_copy_options){
                .backend = bench->disks[n], .disk_index = (uint16_t)(10 + n),
                .start_bytes = AREA_START, .length_bytes = bench->area_bytes,
            };
        }
    }
    int result = ledger_create(&options, &bench->ledger);
    reactor_complete(&call->op, result);
}

static void
start_destroy(void *argument)
{
    struct open_call *call = argument;
    ledger_destroy(call->bench->ledger);
    call->bench->ledger = NULL;
    reactor_complete(&call->op, 0);
}

static void
bench_close(struct bench *bench)
{
    struct open_call call = { .bench = bench };
    if (bench->ledger != NULL) {
        assert_int_equal(harness_await(bench->harness, &call.op, start_destroy, &call), 0);
    }
}

/* A new ledger in memory over these disks (a bit each), of the next incarnation. */
static void
bench_open(struct bench *bench, uint32_t mask)
{
    bench_close(bench);
    bench->incarnation++;
    struct open_call call = { .bench = bench, .mask = mask };
    assert_int_equal(harness_await(bench->harness, &call.op, start_open, &call), 0);
}

static void
bench_stop(struct bench *bench)
{
    bench_close(bench);
    for (uint32_t n = 0; n < COPIES; n++) {
        if (bench->disks[n] != NULL) {
            backend_close(bench->disks[n]);
        }
    }
    test_free(bench);
}

static void
start_format(void *argument)
{
    ledger_format(argument);
}

static int
bench_format(struct bench *bench, uint64_t commit, uint32_t *ret_current)
{
    struct ledger_format format = { .ledger = bench->ledger, .commit = commit };
    int result = harness_await(bench->harness, &format.op, start_format, &format);
    *ret_current = format.ret_current_copies;
    return result;
}

/* The batch of commit n: its length and bytes follow from n. */
static void
fill_batch(const struct bench *bench, uint64_t commit, uint32_t length, struct byte_buffer *batch)
{
    struct random random;
    random_seed(&random, commit ^ bench->salt);
    byte_buffer_clear(batch);
    for (uint32_t n = 0; n < length; n++) {
        byte_buffer_append_u8(batch, (uint8_t)random_u64(&random));
    }
}

static void
start_append(void *argument)
{
    ledger_append(argument);
}

static int
bench_append_sized(struct bench *bench, uint64_t commit, uint32_t length, uint32_t *ret_dropped)
{
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    fill_batch(bench, commit, length, &batch);
    struct ledger_append append = { .ledger = bench->ledger, .commit = commit, .batch = &batch };
    int result = harness_await(bench->harness, &append.op, start_append, &append);
    if (ret_dropped != NULL) {
        *ret_dropped = append.ret_dropped_copies;
    } else {
        assert_int_equal(append.ret_dropped_copies, 0);
    }
    byte_buffer_free(&batch);
    return result;
}

static uint32_t
usual_length(uint64_t commit)
{
    return (uint32_t)(hash_u64(commit) % 9000);
}

static int
bench_append(struct bench *bench, uint64_t commit)
{
    return bench_append_sized(bench, commit, usual_length(commit), NULL);
}

static int
take_record(struct ledger_scan *scan, uint64_t commit, const void *data, size_t length)
{
    struct bench *bench = container_of(scan, struct bench, scan);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    fill_batch(bench, commit, (uint32_t)length, &batch);
    if (length > 0 && memcmp(batch.data, data, length) != 0) {
        bench->wrong = true;
    }
    if (bench->delivered == 0) {
        bench->first_delivered = commit;
    }
    if (commit != bench->first_delivered + bench->delivered) {
        bench->wrong = true;
    }
    bench->delivered++;
    byte_buffer_free(&batch);
    return 0;
}

static void
start_scan(void *argument)
{
    ledger_scan(argument);
}

static int
bench_scan(struct bench *bench, uint64_t after_commit)
{
    memset(&bench->scan, 0, sizeof(bench->scan));
    bench->scan.ledger = bench->ledger;
    bench->scan.after_commit = after_commit;
    bench->scan.record = take_record;
    bench->delivered = 0;
    bench->first_delivered = 0;
    bench->wrong = false;
    int result = harness_await(bench->harness, &bench->scan.op, start_scan, &bench->scan);
    assert_false(bench->wrong);
    return result;
}

/* Reopen over these disks and expect exactly the records (after, last]. */
static void
expect_run(struct bench *bench, uint32_t mask, uint64_t after, uint64_t last, uint32_t current)
{
    bench_open(bench, mask);
    assert_int_equal(bench_scan(bench, after), 0);
    assert_int_equal(bench->scan.ret_last_commit, last);
    assert_int_equal(bench->delivered, last - after);
    assert_int_equal(bench->scan.ret_current_copies, current);
    if (last > after) {
        assert_int_equal(bench->first_delivered, after + 1);
    }
}

static void
damage(struct bench *bench, uint32_t disk, uint64_t ring_offset)
{
    harness_patch(bench->harness, bench->disks[disk], AREA_START + BLOCK + ring_offset, "?!", 2);
}

struct release_call {
    struct io_op op;
    struct bench *bench;
    uint64_t commit;
};

static void
start_release(void *argument)
{
    struct release_call *call = argument;
    ledger_release(call->bench->ledger, call->commit);
    reactor_complete(&call->op, 0);
}

static void
bench_release(struct bench *bench, uint64_t commit)
{
    struct release_call call = { .bench = bench, .commit = commit };
    assert_int_equal(harness_await(bench->harness, &call.op, start_release, &call), 0);
}

/* ---- plain use ---- */

static void
records_come_back_in_order(void **state)
{
    struct bench *bench = bench_start(*state, 2, 2 * MIB);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 0), -ENOENT);
    assert_int_equal(bench->scan.ret_current_copies, 0);
    assert_int_equal(bench_format(bench, 100, &current), 0);
    assert_int_equal(current, 3);
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 0), -ENOENT); /* formatted: append may follow */
    assert_int_equal(bench->scan.ret_current_copies, 3);
    assert_int_equal(bench->scan.ret_last_commit, 100);
    for (uint64_t commit = 101; commit <= 120; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    expect_run(bench, 3, 100, 120, 3);
    assert_int_equal(bench->scan.ret_first_commit, 101);
    for (uint64_t commit = 121; commit <= 140; commit++) { /* goes on where the scan ended */
        assert_int_equal(bench_append(bench, commit), 0);
    }
    expect_run(bench, 3, 133, 140, 3);
    expect_run(bench, 3, 140, 140, 3);
    expect_run(bench, 1, 100, 140, 1);
    assert_int_equal(bench->scan.ret_absent_copies, 1);
    bench_stop(bench);
}

static void
the_ring_goes_round(void **state)
{
    struct bench *bench = bench_start(*state, 2, 40 * BLOCK);
    struct random random;
    random_seed(&random, 21);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    uint64_t released = 0;
    uint64_t last = 0;
    uint32_t refused = 0;
    for (uint32_t step = 0; step < 1500; step++) {
        uint32_t length = (uint32_t)random_below(&random, 30000);
        if (random_chance(&random, 1, 10)) {
            length = 0;
        }
        uint64_t used_bytes = ledger_used_bytes(bench->ledger);
        int result = bench_append_sized(bench, last + 1, length, NULL);
        if (result == -ENOSPC) { /* L3: refused, not overwritten; release, then it goes */
            refused++;
            assert_int_equal(ledger_used_bytes(bench->ledger), used_bytes);
            assert_true(last > released);
            released += 1 + random_below(&random, last - released);
        } else {
            assert_int_equal(result, 0);
            last++;
            assert_true(ledger_used_bytes(bench->ledger) <= ledger_size_bytes(bench->ledger));
        }
        if (step % 37 == 0) {
            expect_run(bench, 3, released, last, 3);
        }
        if (result == -ENOSPC || step % 37 == 0) {
            bench_release(bench, released);
        }
    }
    assert_true(refused > 50);
    expect_run(bench, 3, released, last, 3);
    bench_stop(bench);
}

static void
a_full_ring_writes_nothing(void **state)
{
    struct bench *bench = bench_start(*state, 1, 16 * BLOCK);
    uint32_t current;
    bench_open(bench, 1);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    uint64_t last = 0;
    int result;
    while ((result = bench_append_sized(bench, last + 1, 100, NULL)) == 0) {
        last++;
    }
    assert_int_equal(result, -ENOSPC);
    assert_int_equal(last, 14 - 2); /* the ring without the blocks that are kept for L4 */
    struct backend_statistics before;
    struct backend_statistics after;
    backend_get_statistics(bench->disks[0], &before);
    assert_int_equal(bench_append_sized(bench, last + 1, 100, NULL), -ENOSPC);
    assert_int_equal(bench_append_sized(bench, last + 1, 15 * BLOCK, NULL), -ENOSPC);
    backend_get_statistics(bench->disks[0], &after);
    assert_int_equal(after.operations[BACKEND_WRITE], before.operations[BACKEND_WRITE]);
    expect_run(bench, 1, 0, last, 1);
    bench_release(bench, 5);
    for (uint32_t n = 0; n < 4; n++) {
        assert_int_equal(bench_append_sized(bench, ++last, 100, NULL), 0);
    }
    expect_run(bench, 1, 5, last, 1);
    bench_stop(bench);
}

/* ---- damage ---- */

static void
a_torn_record_at_the_end_is_the_end(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 10; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, 3 * BLOCK, NULL), 0);
    }
    uint64_t last_offset = 9 * 4 * BLOCK;
    damage(bench, 1, last_offset + 2 * BLOCK); /* on one copy: the other has it */
    expect_run(bench, 3, 0, 10, 3);
    damage(bench, 0, last_offset + 3 * BLOCK);
    expect_run(bench, 3, 0, 9, 3);
    assert_int_equal(bench_append(bench, 10), 0); /* takes the place of the torn one */
    assert_int_equal(bench_append(bench, 11), 0);
    expect_run(bench, 3, 0, 11, 3);
    bench_stop(bench);
}

static void
a_hole_is_damage_unless_it_is_not_needed(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 10; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, 100, NULL), 0);
    }
    damage(bench, 0, 4 * BLOCK + 130);
    expect_run(bench, 3, 0, 10, 3); /* the other copy has commit 5 */
    damage(bench, 1, 4 * BLOCK + 130);
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 0), -EUCLEAN);
    assert_int_equal(bench->delivered, 0);
    assert_int_equal(bench_scan(bench, 4), -EUCLEAN);
    assert_int_equal(bench_scan(bench, 5), 0);
    assert_int_equal(bench->delivered, 5);
    assert_int_equal(bench->scan.ret_first_commit, 6);
    expect_run(bench, 3, 7, 10, 3);
    bench_stop(bench);
}

static void
the_first_append_heals_the_copies(void **state)
{
    struct bench *bench = bench_start(*state, 3, MIB);
    uint32_t current;
    bench_open(bench, 7);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 30; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, 5000, NULL), 0);
    }
    for (uint32_t n = 0; n < 30; n++) { /* each record is left on one copy only */
        damage(bench, (n + 1) % 3, (uint64_t)n * 2 * BLOCK);
        damage(bench, (n + 2) % 3, (uint64_t)n * 2 * BLOCK + BLOCK);
    }
    expect_run(bench, 7, 0, 30, 7);
    assert_int_equal(bench_append(bench, 31), 0);
    for (uint32_t n = 0; n < 3; n++) {
        expect_run(bench, 1u << n, 0, 31, 1);
        assert_int_equal(bench->scan.ret_absent_copies, 2);
    }
    bench_stop(bench);
}

static void
ring_headers_are_needed(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    assert_int_equal(bench_append(bench, 1), 0);
    harness_patch(bench->harness, bench->disks[0], AREA_START + 100, "x", 1);
    expect_run(bench, 3, 0, 1, 3); /* the second header is there */
    harness_patch(bench->harness, bench->disks[0], AREA_START + MIB - BLOCK + 100, "x", 1);
    expect_run(bench, 3, 0, 1, 2); /* what ring that copy is of is not known */
    harness_patch(bench->harness, bench->disks[1], AREA_START + 100, "x", 1);
    harness_patch(bench->harness, bench->disks[1], AREA_START + MIB - BLOCK + 100, "x", 1);
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 0), -EUCLEAN); /* and not "no record" */
    bench_stop(bench);
}

/* Numbers that would overflow sums, behind a good CRC. */
static void
absurd_ring_headers_are_refused(void **state)
{
    static const struct {
        size_t at;
        uint64_t value;
    } absurd[] = {
        { 72, UINT64_MAX - BLOCK + 1 }, { 72, UINT64_C(1) << 62 }, { 48, UINT64_MAX },
        { 48, 0 },                      { 56, UINT64_MAX },        { 64, UINT64_MAX },
    };
    struct bench *bench = bench_start(*state, 1, MIB);
    uint8_t *header = aligned_alloc(BLOCK, BLOCK);
    uint32_t current;
    assert_non_null(header);
    for (size_t n = 0; n < ARRAY_SIZE(absurd); n++) {
        bench_open(bench, 1);
        assert_int_equal(bench_format(bench, 0, &current), 0);
        assert_int_equal(bench_append(bench, 1), 0);
        assert_int_equal(harness_transfer(bench->harness, bench->disks[0], BACKEND_READ,
                                          AREA_START, header, BLOCK), 0);
        memcpy(header + absurd[n].at, &absurd[n].value, sizeof(absurd[n].value));
        uint32_t crc = crc32c(0, header + 12, BLOCK - 12);
        memcpy(header + 8, &crc, sizeof(crc));
        harness_patch(bench->harness, bench->disks[0], AREA_START, header, BLOCK);
        expect_run(bench, 1, 0, 1, 1); /* the second header is there */
        harness_patch(bench->harness, bench->disks[0], AREA_START + MIB - BLOCK, header, BLOCK);
        bench_open(bench, 1);
        assert_int_equal(bench_scan(bench, 0), -EUCLEAN);
    }
    free(header);
    bench_stop(bench);
}

/* A disk put the newest record in a wrong place as well: the ring does not go on from there. */
static void
misplaced_records_are_not_gone_on_from(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint8_t *record = aligned_alloc(BLOCK, BLOCK);
    uint32_t current;
    assert_non_null(record);
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 9; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, 50, NULL), 0);
    }
    uint64_t newest = AREA_START + BLOCK + 8 * BLOCK; /* behind the ring header */
    assert_int_equal(harness_transfer(bench->harness, bench->disks[0], BACKEND_READ, newest, record,
                                      BLOCK), 0);
    harness_patch(bench->harness, bench->disks[0], newest - 6 * BLOCK, record, BLOCK);
    free(record);
    expect_run(bench, 3, 0, 9, 3);
    for (uint64_t commit = 10; commit <= 12; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, 50, NULL), 0);
    }
    expect_run(bench, 2, 0, 12, 1); /* nothing was overwritten */
    expect_run(bench, 1, 0, 12, 1); /* and the copy was healed */
    bench_stop(bench);
}

/* ---- copies that fail, are late, or are not here ---- */

static void
a_copy_that_fails_is_dropped_and_stays_dropped(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    uint32_t dropped;
    struct error error = { 0 };
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 5; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    assert_int_equal(fault_add_rules(bench->disks[1], "write,nth=1,errno=EIO", &error), 0);
    assert_int_equal(bench_append_sized(bench, 6, 50, &dropped), 0);
    assert_int_equal(dropped, 2);
    struct backend_statistics before;
    struct backend_statistics after;
    backend_get_statistics(bench->disks[1], &before);
    for (uint64_t commit = 7; commit <= 9; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    backend_get_statistics(bench->disks[1], &after);
    assert_int_equal(after.operations[BACKEND_WRITE], before.operations[BACKEND_WRITE]);
    expect_run(bench, 3, 0, 9, 1);
    assert_int_equal(bench->scan.ret_absent_copies, 0);
    expect_run(bench, 1, 0, 9, 1);
    expect_run(bench, 2, 0, 5, 1); /* alone, the stale copy says whom it misses */
    assert_int_equal(bench->scan.ret_absent_copies, 1);
    /* Taken in again by a new ring. */
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 9, &current), 0);
    assert_int_equal(current, 3);
    assert_int_equal(bench_append(bench, 10), 0);
    expect_run(bench, 3, 9, 10, 3);
    assert_int_equal(bench->scan.ret_first_commit, 10);
    bench_stop(bench);
}

static void
drops_are_durable_before_the_acknowledgement(void **state)
{
    /* Copy 1 fails in the record, copy 2 in the MEMBERS record that says so. */
    struct bench *bench = bench_start(*state, 3, MIB);
    uint32_t current;
    uint32_t dropped;
    struct error error = { 0 };
    bench_open(bench, 7);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    assert_int_equal(bench_append(bench, 1), 0);
    assert_int_equal(fault_add_rules(bench->disks[1], "write,nth=1,errno=EIO", &error), 0);
    assert_int_equal(fault_add_rules(bench->disks[2], "write,nth=2,errno=EIO", &error), 0);
    assert_int_equal(bench_append_sized(bench, 2, 50, &dropped), 0);
    assert_int_equal(dropped, 6);
    expect_run(bench, 7, 0, 2, 1);
    bench_stop(bench);
}

static void
the_last_copy_that_fails_ends_it(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    uint32_t dropped;
    struct error error = { 0 };
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    assert_int_equal(bench_append(bench, 1), 0);
    for (uint32_t n = 0; n < 2; n++) {
        assert_int_equal(fault_add_rules(bench->disks[n], "write,nth=1,errno=EIO", &error), 0);
    }
    assert_int_equal(bench_append_sized(bench, 2, 50, &dropped), -EIO);
    assert_int_equal(dropped, 3);
    assert_int_equal(bench_append_sized(bench, 2, 50, &dropped), -EIO);
    expect_run(bench, 3, 0, 1, 3); /* a restart finds what was acknowledged */
    bench_stop(bench);
}

static void
a_late_copy_stops_nobody(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    uint32_t dropped;
    struct error error = { 0 };
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    assert_int_equal(fault_add_rules(bench->disks[0], "write,nth=1,delay=5", &error), 0);
    assert_int_equal(bench_append_sized(bench, 1, 5000, &dropped), 0);
    assert_int_equal(dropped, 0); /* a little late is not late */
    assert_int_equal(fault_add_rules(bench->disks[1], "write,hang,count=1", &error), 0);
    assert_int_equal(bench_append_sized(bench, 2, 5000, &dropped), 0);
    assert_int_equal(dropped, 2);
    assert_int_equal(fault_hanging(bench->disks[1]), 1);
    for (uint64_t commit = 3; commit <= 6; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    bench_close(bench);                /* the ledger is gone, its write is not: B2 */
    assert_int_equal(fault_release(bench->disks[1]), 1);
    harness_idle(bench->harness, 20 * NS_PER_MS);
    expect_run(bench, 3, 0, 6, 1); /* the record that came late is not believed */
    bench_stop(bench);
}

static void
histories_that_parted_do_not_mix(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 5; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    expect_run(bench, 1, 0, 5, 1); /* disk 1 is not here; the pool was opened without it */
    assert_int_equal(bench->scan.ret_absent_copies, 1);
    for (uint64_t commit = 6; commit <= 7; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    expect_run(bench, 3, 0, 7, 1);
    expect_run(bench, 2, 0, 5, 1); /* now the other one alone, in a later incarnation */
    bench->salt = 99;              /* another history */
    for (uint64_t commit = 6; commit <= 12; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 5), 0); /* checks the content of 6 to 12 */
    assert_int_equal(bench->delivered, 7);
    assert_int_equal(bench->scan.ret_current_copies, 2);
    bench_stop(bench);
}

static void
the_later_incarnation_rules_though_it_is_shorter(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 5; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    expect_run(bench, 1, 0, 5, 1);
    for (uint64_t commit = 6; commit <= 20; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    expect_run(bench, 2, 0, 5, 1); /* opened once more, without the disk that has 6 to 20 */
    bench->salt = 98;
    assert_int_equal(bench_append(bench, 6), 0);
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 5), 0); /* checks the content of 6 */
    assert_int_equal(bench->scan.ret_last_commit, 6);
    assert_int_equal(bench->scan.ret_current_copies, 2);
    bench_stop(bench);
}

/* P7: a record never meets a full device, because formatting has made room for all of them. */
static void
formatting_makes_room(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    struct error error = { 0 };
    uint32_t current;
    for (uint32_t n = 0; n < 2; n++) { /* disks that are thin */
        char spec[300];
        char name[16];
        snprintf(name, sizeof(name), "disk-%u", n);
        snprintf(spec, sizeof(spec), "fault:file:%s?size=8M!",
                 harness_path(bench->harness, name));
        backend_close(bench->disks[n]);
        bench->disks[n] = harness_backend(bench->harness, spec);
    }
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    assert_int_equal(current, 3);
    struct stat st;
    assert_int_equal(stat(harness_path(bench->harness, "disk-1"), &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= MIB);
    assert_int_equal(fault_add_rules(bench->disks[1], "allocate,errno=ENOSPC", &error), 0);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    assert_int_equal(current, 1); /* the other would have failed on some bad day */
    assert_int_equal(bench_append(bench, 1), 0);
    assert_int_equal(fault_add_rules(bench->disks[0], "allocate,errno=ENOSPC", &error), 0);
    assert_int_equal(bench_format(bench, 1, &current), -ENOSPC);
    bench_stop(bench);
}

static void
formatting_again_and_with_a_bad_copy(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    struct error error = { 0 };
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 20; commit++) {
        assert_int_equal(bench_append(bench, commit), 0);
    }
    assert_int_equal(bench_format(bench, 20, &current), 0);
    bench_open(bench, 3);
    assert_int_equal(bench_scan(bench, 0), -ENOENT); /* old records do not come back */
    assert_int_equal(bench_append(bench, 21), 0);
    expect_run(bench, 3, 20, 21, 3);
    for (uint32_t nth = 1; nth <= 2; nth++) {
        char rule[64];
        snprintf(rule, sizeof(rule), "write,nth=%u,errno=EIO", nth);
        fault_clear_rules(bench->disks[0]);
        assert_int_equal(fault_add_rules(bench->disks[0], rule, &error), 0);
        assert_int_equal(bench_format(bench, 21 + nth, &current), 0);
        assert_int_equal(current, 2);
        fault_clear_rules(bench->disks[0]);
        assert_int_equal(bench_append(bench, 22 + nth), 0);
        expect_run(bench, 3, 21 + nth, 22 + nth, 2);
    }
    bench_open(bench, 3);
    assert_int_equal(fault_add_rules(bench->disks[0], "write,errno=EIO", &error), 0);
    assert_int_equal(fault_add_rules(bench->disks[1], "write,errno=EIO", &error), 0);
    assert_int_equal(bench_format(bench, 50, &current), -EIO);
    assert_int_equal(current, 0);
    bench_stop(bench);
}

static void
bad_sectors_in_the_ring(void **state)
{
    struct bench *bench = bench_start(*state, 2, MIB);
    uint32_t current;
    struct error error = { 0 };
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 20; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, 100, NULL), 0);
    }
    char rule[64]; /* commit 8 cannot be read from the first disk */
    snprintf(rule, sizeof(rule), "read,range=%u+4K,errno=EIO", AREA_START + BLOCK + 7 * BLOCK);
    assert_int_equal(fault_add_rules(bench->disks[0], rule, &error), 0);
    expect_run(bench, 3, 0, 20, 3);
    bench_open(bench, 1);
    assert_int_equal(bench_scan(bench, 0), -EUCLEAN);
    assert_int_equal(bench_scan(bench, 8), 0);
    fault_clear_rules(bench->disks[0]);
    assert_int_equal(fault_add_rules(bench->disks[0], "read,errno=EIO", &error), 0);
    assert_int_equal(bench_scan(bench, 0), -EIO);
    expect_run(bench, 3, 0, 20, 2);
    bench_stop(bench);
}

/* ---- tears and noise: what is handed over is always what was appended ---- */

static void
tears_of_the_last_record(void **state)
{
    struct bench *bench = bench_start(*state, 1, 24 * BLOCK);
    struct random random;
    random_seed(&random, 22);
    uint32_t current;
    uint8_t *before = aligned_alloc(BLOCK, 24 * BLOCK);
    uint8_t *after = aligned_alloc(BLOCK, 24 * BLOCK);
    uint8_t *torn = aligned_alloc(BLOCK, 24 * BLOCK);
    uint64_t last = 0;
    uint32_t whole = 0;
    bench_open(bench, 1);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint32_t round = 0; round < 300; round++) {
        bench_release(bench, last > 2 ? last - 2 : 0);
        harness_transfer(bench->harness, bench->disks[0], BACKEND_READ, AREA_START, before,
                         24 * BLOCK);
        uint32_t length = (uint32_t)random_below(&random, 5 * BLOCK);
        assert_int_equal(bench_append_sized(bench, last + 1, length, NULL), 0);
        harness_transfer(bench->harness, bench->disks[0], BACKEND_READ, AREA_START, after,
                         24 * BLOCK);
        memcpy(torn, before, 24 * BLOCK);
        uint32_t sectors = 0; /* any sectors of the write may have reached the disk */
        for (uint32_t sector = 0; sector < 24 * BLOCK / 512; sector++) {
            if (memcmp(before + sector * 512, after + sector * 512, 512) != 0
                && random_chance(&random, round % 4 == 3 ? 29 : round % 4, 30)) {
                memcpy(torn + sector * 512, after + sector * 512, 512);
            } else if (memcmp(before + sector * 512, after + sector * 512, 512) != 0) {
                sectors++;
            }
        }
        harness_transfer(bench->harness, bench->disks[0], BACKEND_WRITE, AREA_START, torn,
                         24 * BLOCK);
        bench_open(bench, 1);
        uint64_t kept = last > 2 ? last - 2 : 0;
        int result = bench_scan(bench, kept);
        uint64_t expected = bench->scan.ret_last_commit; /* whose content has been compared */
        assert_true(expected == last + 1 || (expected == last && sectors > 0));
        whole += expected == last + 1;
        assert_int_equal(result, expected == 0 ? -ENOENT : 0);
        assert_int_equal(bench->delivered, expected - kept);
        last = expected;
    }
    assert_true(whole > 10 && whole < 150);
    free(before);
    free(after);
    free(torn);
    bench_stop(bench);
}

static void
noise_is_never_handed_over(void **state)
{
    struct bench *bench = bench_start(*state, 2, 64 * BLOCK);
    struct random random;
    random_seed(&random, 23);
    uint32_t current;
    uint8_t *area = aligned_alloc(BLOCK, 64 * BLOCK);
    uint8_t *noisy = aligned_alloc(BLOCK, 64 * BLOCK);
    bench_open(bench, 3);
    assert_int_equal(bench_format(bench, 0, &current), 0);
    for (uint64_t commit = 1; commit <= 25; commit++) {
        assert_int_equal(bench_append_sized(bench, commit, usual_length(commit) / 2, NULL), 0);
    }
    harness_transfer(bench->harness, bench->disks[0], BACKEND_READ, AREA_START, area, 64 * BLOCK);
    uint32_t outcomes[3] = { 0 };
    for (uint32_t round = 0; round < 400; round++) {
        for (uint32_t disk = 0; disk < 2; disk++) {
            memcpy(noisy, area, 64 * BLOCK);
            for (uint64_t n = random_below(&random, 60); n > 0; n--) {
                uint64_t at = random_below(&random, 64 * BLOCK);
                if (random_chance(&random, 1, 2)) { /* aim at headers */
                    at = align_down(at, BLOCK) + random_below(&random, 130);
                }
                noisy[at] = (uint8_t)random_u64(&random);
            }
            if (random_chance(&random, 1, 4)) { /* a misdirected write */
                memcpy(noisy + random_below(&random, 64) * BLOCK,
                       area + random_below(&random, 64) * BLOCK, BLOCK);
            }
            harness_transfer(bench->harness, bench->disks[disk], BACKEND_WRITE, AREA_START, noisy,
                             64 * BLOCK);
        }
        bench_open(bench, 3);
        int result = bench_scan(bench, 0); /* asserts the content of what comes */
        assert_true(result == 0 || result == -EUCLEAN || result == -ENOENT);
        assert_true(bench->scan.ret_last_commit <= 25 || result != 0);
        outcomes[result == 0 ? 0 : result == -EUCLEAN ? 1 : 2]++;
    }
    assert_true(outcomes[0] > 10 && outcomes[1] > 10);
    free(area);
    free(noisy);
    bench_stop(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_in_order),
        cmocka_unit_test(the_ring_goes_round),
        cmocka_unit_test(a_full_ring_writes_nothing),
        cmocka_unit_test(a_torn_record_at_the_end_is_the_end),
        cmocka_unit_test(a_hole_is_damage_unless_it_is_not_needed),
        cmocka_unit_test(the_first_append_heals_the_copies),
        cmocka_unit_test(ring_headers_are_needed),
        cmocka_unit_test(absurd_ring_headers_are_refused),
        cmocka_unit_test(misplaced_records_are_not_gone_on_from),
        cmocka_unit_test(a_copy_that_fails_is_dropped_and_stays_dropped),
        cmocka_unit_test(drops_are_durable_before_the_acknowledgement),
        cmocka_unit_test(the_last_copy_that_fails_ends_it),
        cmocka_unit_test(a_late_copy_stops_nobody),
        cmocka_unit_test(histories_that_parted_do_not_mix),
        cmocka_unit_test(the_later_incarnation_rules_though_it_is_shorter),
        cmocka_unit_test(formatting_makes_room),
        cmocka_unit_test(formatting_again_and_with_a_bad_copy),
        cmocka_unit_test(bad_sectors_in_the_ring),
        cmocka_unit_test(tears_of_the_last_record),
        cmocka_unit_test(noise_is_never_handed_over),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
