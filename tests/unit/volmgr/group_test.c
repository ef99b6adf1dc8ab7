/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots under traffic. A host writes to two volumes in turns, each write after the reply to the
 * one before: no snapshot of both may have an effect without its cause. Disks that hang hold up the
 * snapshot, and hosts for a moment only.
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

#define DISK_BYTES (256 * MIB)

enum {
    CHAIN_BLOCKS = 3, /* that the writes go to, one after the other */
    NOISE = 4,        /* other writes at the time of a snapshot; some are slow */
};

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static struct volume *
make_and_hold(struct bench *bench, const char *name)
{
    struct export_lookup lookup;

    assert_int_equal(bench_make_volume(bench, name, 1 * GIB), 0);
    assert_int_equal(bench_make_export(bench, name), 0);
    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

/* ---- writes that depend on one another ---- */

struct chain {
    struct volume *volumes[2];
    uint64_t number; /* of the write that is under way; even ones go to the first volume */
    uint64_t last;   /* do not go beyond it */
    struct volume_request request;
    struct iovec iov;
    uint8_t *block;
    struct message message;
    bool ended;
};

static void
chain_send(struct message *message)
{
    struct chain *chain = container_of(message, struct chain, message);
    uint64_t at = chain->number / 2 % CHAIN_BLOCKS * 4096;

    put_le64(chain->block, chain->number);
    chain->request.offset_bytes = at;
    volume_submit(chain->volumes[chain->number % 2], &chain->request);
}

static void
chain_replied(struct volume_request *request)
{
    assert_int_equal(request->status, 0);
}

static void
chain_released(struct volume_request *request)
{
    struct chain *chain = container_of(request, struct chain, request);

    if (chain->number++ == chain->last) {
        chain->ended = true;
        return;
    }
    reactor_send(volume_reactor(chain->volumes[chain->number % 2]), &chain->message, chain_send);
}

static void
chain_start(struct bench *bench, struct chain *chain, uint64_t count)
{
    chain->block = aligned_alloc(4096, 4096);
    assert_non_null(chain->block);
    memset(chain->block, 0, 4096);
    chain->last = count;
    volume_request_init(&chain->request);
    chain->iov = (struct iovec){ .iov_base = chain->block, .iov_len = 4096 };
    chain->request.operation = VOLUME_WRITE;
    chain->request.length_bytes = 4096;
    chain->request.iov = &chain->iov;
    chain->request.iov_count = 1;
    chain->request.reply = chain_replied;
    chain->request.release = chain_released;
    sim_process_enter(bench->sim);
    reactor_send(volume_reactor(chain->volumes[0]), &chain->message, chain_send);
    sim_process_leave(bench->sim);
}

/* The number of the newest write that it has; 0: none. */
static uint64_t
newest_write(struct bench *bench, struct volume *volume)
{
    uint8_t *data = aligned_alloc(4096, CHAIN_BLOCKS * 4096);
    uint64_t newest = 0;

    assert_non_null(data);
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, 0, data, CHAIN_BLOCKS * 4096), 0);
    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++) {
        newest = MAX(newest, get_le64(data + i * 4096));
    }
    free(data);
    return newest;
}

/* Writes to where nothing is yet: the gates have to wait for those that are slow. */
static void
noise_begin(struct bench *bench, struct chain *chain, uint32_t round,
            struct bench_io_call *calls[static NOISE], uint8_t *data)
{
    for (uint32_t i = 0; i < NOISE; i++) {
        uint64_t at = (16 + round * NOISE + i) * UINT64_C(65536);
        calls[i] = bench_io_begin(bench, chain->volumes[i % 2], VOLUME_WRITE, at, data, 4096);
    }
}

static void
no_snapshot_has_an_effect_without_its_cause(void **state)
{
    struct bench *bench = bench_create(51, 3);
    struct chain chain = { .number = 2 };
    struct volume_name names[2] = {
        { .pool = "p", .volume = "a" },
        { .pool = "p", .volume = "b" },
    };
    struct sim_fault slow = {
        .action = SIM_FAULT_DELAY,
        .kinds = 1u << FILE_IO_WRITE,
        .chance_per_million = 50000,
        .delay_ns = 10 * NS_PER_MS,
    };
    struct bench_io_call *noise[NOISE];
    uint8_t *noise_data = aligned_alloc(4096, 4096);
    uint32_t count = 0;
    char path[32];

    (void)state;
    assert_non_null(noise_data);
    memset(noise_data, 0, 4096);
    sim_disk_add_fault(bench_disk(bench, "/d/0", DISK_BYTES), &slow);
    sim_disk_add_fault(bench_disk(bench, "/d/1", DISK_BYTES), &slow);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", TWO, false), 0);
    chain.volumes[0] = make_and_hold(bench, "p/a");
    chain.volumes[1] = make_and_hold(bench, "p/b");
    assert_true(volume_reactor(chain.volumes[0]) != volume_reactor(chain.volumes[1]));
    chain_start(bench, &chain, 3000);
    while (!chain.ended) {
        struct snapshot_create create = { .count = 2, .names = names };
        for (uint32_t i = 0; i < 2; i++) {
            snprintf(names[i].snapshot, sizeof(names[i].snapshot), "s%u", count);
        }
        noise_begin(bench, &chain, count, noise, noise_data);
        assert_int_equal(bench_snapshot_create(bench, &create), 0);
        for (uint32_t i = 0; i < NOISE; i++) {
            assert_int_equal(bench_io_end(bench, noise[i]), 0);
        }
        count++;
        sim_run_for(bench->sim, (10 + count * 37 % 11) * 100 * NS_PER_US);
    }
    assert_true(count > 50);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t newest[2];
        for (uint32_t n = 0; n < 2; n++) {
            snprintf(path, sizeof(path), "p/%c@s%u", 'a' + n, i);
            struct volume *view = bench_hold_snapshot(bench, path);
            newest[n] = newest_write(bench, view);
            bench_release(bench, view);
        }
        /* One that was under way may be there or not; the one before it must be. */
        uint64_t last = MAX(newest[0], newest[1]);
        assert_true(last <= 2 || newest[(last + 1) % 2] + 1 >= last);
    }
    bench_release(bench, chain.volumes[0]);
    bench_release(bench, chain.volumes[1]);
    assert_int_equal(bench_shutdown(bench), 0);
    free(chain.block);
    free(noise_data);
    bench_free(bench);
}

/* ---- disks that hang ---- */

/* The snapshot that was made then has what the write that hung had written. */
static void
check_after_the_hang(struct bench *bench, const uint8_t *block)
{
    uint8_t *data = aligned_alloc(4096, 4096);
    struct volume *view = bench_hold_snapshot(bench, "p/a@s");

    assert_non_null(data);
    assert_true(bench_check(bench, view, 0, 512 * KIB, 1));
    assert_int_equal(bench_io(bench, view, VOLUME_READ, 512 * KIB, data, 4096), 0);
    assert_memory_equal(data, block, 4096);
    bench_wait_for_jobs(bench);
    bench_release(bench, view);
    free(data);
}

static void
a_hung_disk_fails_the_snapshot_and_nobody_else(void **state)
{
    struct bench *bench = bench_create(52, 2);
    struct sim_disk *disk = bench_disk(bench, "/d/0", DISK_BYTES);
    static const char *const one[] = { "/d/0", NULL };
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_WRITE, .count = 1 };
    struct volume_name names[2] = {
        { .pool = "p", .volume = "a", .snapshot = "s" },
        { .pool = "p", .volume = "b", .snapshot = "s" },
    };
    struct snapshot_create create = { .count = 2, .names = names };
    struct snapshot_query query = { .hidden = true };
    uint8_t *block = aligned_alloc(4096, 4096);
    uint8_t *other = aligned_alloc(4096, 4096);
    uint64_t longest_ns = 0;
    bool done = false;

    (void)state;
    memset(block, 7, 4096);
    memset(other, 8, 4096);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", one, false), 0);
    struct volume *a = make_and_hold(bench, "p/a");
    struct volume *b = make_and_hold(bench, "p/b");
    assert_int_equal(bench_fill(bench, a, 0, 1 * MIB, 1), 0);
    assert_int_equal(bench_fill(bench, b, 0, 1 * MIB, 2), 0);
    assert_int_equal(bench_io(bench, a, VOLUME_FLUSH, 0, NULL, 0), 0);
    sim_disk_add_fault(disk, &hang);
    struct bench_io_call *hung = bench_io_begin(bench, a, VOLUME_WRITE, 512 * KIB, block, 4096);
    sim_run_for(bench->sim, 2 * NS_PER_MS);
    assert_int_equal(sim_disk_hanging(disk), 1);

    uint64_t began_ns = bench_realtime_ns(bench);
    bench_snapshot_create_start(bench, &create, &done);
    while (!done) {
        struct volume *volume = bench_realtime_ns(bench) % 2 == 0 ? a : b;
        uint64_t sent_ns = bench_realtime_ns(bench);
        assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, 768 * KIB, other, 4096), 0);
        longest_ns = MAX(longest_ns, bench_realtime_ns(bench) - sent_ns);
        sim_run_for(bench->sim, 1 * NS_PER_MS);
    }
    uint64_t took_ns = bench_realtime_ns(bench) - began_ns;
    assert_int_equal(create.control.op.result, -ETIMEDOUT);
    assert_true(took_ns > 4 * NS_PER_S && took_ns < 6 * NS_PER_S);
    assert_true(longest_ns < 60 * NS_PER_MS);
    assert_non_null(strstr(create.control.error.message, "/d/0"));
    /* The same with one volume. */
    create = (struct snapshot_create){ .count = 1, .names = names };
    assert_int_equal(bench_snapshot_create(bench, &create), -ETIMEDOUT);
    assert_int_equal(bench_snapshot_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 0);
    free(query.ret_snapshots);

    sim_disk_release(disk);
    assert_int_equal(bench_io_end(bench, hung), 0);
    create = (struct snapshot_create){ .count = 2, .names = names };
    assert_int_equal(bench_snapshot_create(bench, &create), 0);
    check_after_the_hang(bench, block);
    bench_release(bench, a);
    bench_release(bench, b);
    assert_int_equal(bench_shutdown(bench), 0);
    free(block);
    free(other);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_snapshot_has_an_effect_without_its_cause),
        cmocka_unit_test(a_hung_disk_fails_the_snapshot_and_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
