/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk is reset behind our back and loses what it had not flushed: nobody is shown what was there
 * before, and requests that are under way are not fooled by it (B5, Z1, Z2).
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fault.h"
#include "backends/guard.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

enum {
    BLOCK = 4 * KIB,
};

struct rig {
    struct bench *bench;
    struct volume *volume;
    struct backend *disk; /* the fault filter */
    struct sim_disk *file; /* below it */
};

static struct rig
rig_create(void)
{
    struct rig rig = { .bench = bench_create(7, 1) };
    struct export_lookup lookup;

    /* A sparse file, so that space is allocated before it is handed out. */
    rig.file = sim_disk_create(rig.bench->sim, "/f/0",
                               &(struct sim_disk_properties){ .size_bytes = 64 * MIB,
                                                              .capacity_bytes = 64 * MIB });
    assert_int_equal(bench_boot(rig.bench), 0);
    struct disk_argument disk = { 0 };
    struct pool_create create = {
        .name = "p", .extent_bytes = 1 * MIB, .disk_count = 1, .disks = &disk
    };
    snprintf(disk.spec, sizeof(disk.spec), "fault:/f/0!flush,nth=1000000,errno=EIO");
    assert_int_equal(bench_pool_create(rig.bench, &create), 0);
    assert_int_equal(bench_make_volume(rig.bench, "p/v", 128 * MIB), 0);
    assert_int_equal(bench_make_export(rig.bench, "p/v"), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/v", &lookup), 0);
    rig.volume = lookup.ret_volume;
    rig.disk = rig.volume->pool->disks[0]->backend;
    /* Blocks 0 to 15 are flushed, then block 1 is written again. */
    assert_int_equal(bench_fill(rig.bench, rig.volume, 0, 16 * BLOCK, 1), 0);
    assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 2), 0);
    return rig;
}

static void
rig_free(struct rig *rig)
{
    fault_clear_rules(rig->disk);
    bench_release(rig->bench, rig->volume);
    assert_int_equal(bench_shutdown(rig->bench), 0);
    bench_free(rig->bench);
}

static void
add_rule(struct rig *rig, const char *rule)
{
    struct error error = { 0 };
    assert_int_equal(fault_add_rules(rig->disk, rule, &error), 0);
}

static int
read_at(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes)
{
    static uint8_t data[16 * BLOCK];
    return bench_io(rig->bench, rig->volume, VOLUME_READ, offset_bytes, data, length_bytes);
}

static int
flush(struct rig *rig)
{
    return bench_io(rig->bench, rig->volume, VOLUME_FLUSH, 0, NULL, 0);
}

/* The read that meets the reset may have seen the old content already. */
static void
a_read_after_a_reset_does_not_see_older_data(void **state)
{
    (void)state;
    struct rig rig = rig_create();

    add_rule(&rig, "read,count=1,loss");
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    assert_true(bench_check(rig.bench, rig.volume, 2 * BLOCK, 14 * BLOCK, 1));
    assert_int_equal(flush(&rig), -EIO); /* the host is told, once */
    assert_int_equal(flush(&rig), 0);
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 3), 0);
    assert_true(bench_check(rig.bench, rig.volume, BLOCK, BLOCK, 3));
    rig_free(&rig);
}

/* The write may have been lost with the rest: it is done again. */
static void
a_write_that_meets_a_reset_is_done_again(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    const struct sim_disk_statistics *statistics = sim_disk_statistics(rig.file);
    uint64_t writes = statistics->operations[FILE_IO_WRITE];

    add_rule(&rig, "write,count=1,loss");
    assert_int_equal(bench_fill(rig.bench, rig.volume, 3 * BLOCK, BLOCK, 4), 0);
    assert_int_equal(statistics->operations[FILE_IO_WRITE] - writes, 2);
    assert_true(bench_check(rig.bench, rig.volume, 3 * BLOCK, BLOCK, 4));
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    rig_free(&rig);
}

/* A part of a block that is lost cannot be written: the rest of it is not there any more. */
static void
a_partial_write_that_meets_a_reset_fails(void **state)
{
    (void)state;
    struct rig rig = rig_create();

    add_rule(&rig, "write,count=1,loss");
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK + 512, 512, 4), -EIO);
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    assert_true(bench_check(rig.bench, rig.volume, 2 * BLOCK, 14 * BLOCK, 1));
    rig_free(&rig);
}

struct sending {
    struct message message;
    struct volume *volume;
    struct volume_request request;
    struct iovec iov;
};

static void
nothing(struct volume_request *request)
{
    assert_true(request->replied);
}

static void
submit(struct message *message)
{
    struct sending *sending = container_of(message, struct sending, message);
    volume_submit(sending->volume, &sending->request);
}

/* A window waits for space, and meanwhile a block that it overwrites in part is lost. */
static void
a_write_that_waited_looks_again(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    static _Alignas(BLOCK) uint8_t payload[2 * BLOCK]; /* not by way of a bounce */
    struct sending sending = { .volume = rig.volume, .iov = { payload, 512 + BLOCK } };
    struct volume_request *request = &sending.request;

    /* The block before MIB is there and not flushed, what is behind is not; no grain is free. */
    uint64_t last = MIB - BLOCK;
    uint64_t far = 15 * MIB;
    assert_int_equal(bench_fill(rig.bench, rig.volume, last, BLOCK, 5), 0);
    add_rule(&rig, "allocate,hang");
    while (rig.volume->shard->shared_source.free_grains > 0) {
        assert_int_equal(bench_fill(rig.bench, rig.volume, far, BLOCK, 1), 0);
        far -= GRAIN_BYTES;
    }
    assert_int_equal(bench_fill(rig.bench, rig.volume, last, BLOCK, 5), 0);
    volume_request_init(request);
    request->operation = VOLUME_WRITE;
    request->offset_bytes = MIB - 512;
    request->length_bytes = sending.iov.iov_len;
    request->iov = &sending.iov;
    request->iov_count = 1;
    request->reply = nothing;
    request->release = nothing;
    reactor_send(rig.bench->reactors[0], &sending.message, submit);
    bench_pass_time(rig.bench, 1);
    assert_true(fault_hanging(rig.disk) > 0);
    assert_false(request->replied);
    add_rule(&rig, "read,count=1,loss");
    assert_int_equal(read_at(&rig, 0, BLOCK), 0); /* meets the reset: `last` is lost */
    fault_clear_rules(rig.disk);
    fault_release(rig.disk);
    bench_pass_time(rig.bench, 2);
    assert_true(request->replied);
    assert_int_equal(request->status, -EIO);
    assert_int_equal(read_at(&rig, last, BLOCK), -EIO);
    rig_free(&rig);
}

/* The daemon died before it was durable what was lost: an administrator must accept that. */
static void
a_fence_is_lifted_by_accepting_the_loss(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    struct volume_accept_loss accept = { .name = { .pool = "p", .volume = "v" } };
    struct volume_report report;
    struct export_lookup lookup;

    assert_int_equal(bench_volume_accept_loss(rig.bench, &accept), -EALREADY);
    add_rule(&rig, "flush,count=1,errno=EIO");
    assert_int_equal(flush(&rig), -EIO);
    fault_clear_rules(rig.disk); /* memory of the test, not of the process that dies */
    bench_kill(rig.bench);
    for (int start = 0; start < 2; start++) {
        assert_int_equal(bench_boot(rig.bench), 0);
        assert_int_equal(bench_lookup(rig.bench, 0, "p/v", &lookup), 0);
        rig.volume = lookup.ret_volume;
        rig.disk = rig.volume->pool->disks[0]->backend;
        assert_int_equal(read_at(&rig, 0, BLOCK), -EIO);
        if (start == 0) {
            bench_release(rig.bench, rig.volume);
            assert_int_equal(bench_shutdown(rig.bench), 0); /* a clean one changes nothing */
        }
    }
    assert_true(bench_volume_report(rig.bench, "p/v", &report));
    assert_true(report.fenced);
    assert_non_null(strstr(report.problem, "accept-loss"));
    assert_int_equal(bench_volume_accept_loss(rig.bench, &accept), 0);
    assert_true(bench_check(rig.bench, rig.volume, 2 * BLOCK, 14 * BLOCK, 1));
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), 0); /* old or new: as after a power cut */
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 3), 0);
    assert_int_equal(flush(&rig), 0);
    bench_kill(rig.bench);
    assert_int_equal(bench_boot(rig.bench), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/v", &lookup), 0);
    rig.volume = lookup.ret_volume;
    rig.disk = rig.volume->pool->disks[0]->backend;
    assert_true(bench_check(rig.bench, rig.volume, BLOCK, BLOCK, 3));
    rig_free(&rig);
}

/* The reset has been noticed, its blocks are rewritten; then the flush of before fails. */
static void
blocks_written_after_a_loss_was_told_are_kept(void **state)
{
    (void)state;
    struct rig rig = rig_create();

    bench_pass_time(rig.bench, 5);
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 2), 0);
    add_rule(&rig, "flush,count=1,hang");
    bench_pass_time(rig.bench, 4);
    assert_int_equal(fault_hanging(rig.disk), 1);
    add_rule(&rig, "read,count=1,loss");
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 3), 0);
    assert_int_equal(bench_fill(rig.bench, rig.volume, 3 * BLOCK, BLOCK, 3), 0);
    fault_clear_rules(rig.disk);
    fault_release(rig.disk);
    bench_pass_time(rig.bench, 1);
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), 0);
    assert_int_equal(read_at(&rig, 3 * BLOCK, BLOCK), 0);
    rig_free(&rig);
}

/* It may have gone with the cache; doing it again fails. What it was to replace is lost, too. */
static void
fua_that_meets_a_reset_makes_nothing_durable(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    static _Alignas(BLOCK) uint8_t payload[BLOCK];
    struct sending sending = { .volume = rig.volume, .iov = { payload, BLOCK } };
    struct volume_request *request = &sending.request;

    add_rule(&rig, "write,count=1,loss;write,count=1,errno=EIO");
    volume_request_init(request);
    request->operation = VOLUME_WRITE;
    request->flags = VOLUME_FUA;
    request->offset_bytes = BLOCK; /* acknowledged and not flushed */
    request->length_bytes = BLOCK;
    request->iov = &sending.iov;
    request->iov_count = 1;
    request->reply = nothing;
    request->release = nothing;
    reactor_send(rig.bench->reactors[0], &sending.message, submit);
    bench_pass_time(rig.bench, 1);
    assert_true(request->replied);
    assert_int_equal(request->status, -EIO);
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    assert_true(bench_check(rig.bench, rig.volume, 2 * BLOCK, 14 * BLOCK, 1));
    rig_free(&rig);
}

/*
 * The map that tells what is lost cannot be read. What is in memory names grains whose content was
 * lost before it was ever flushed: others' old bytes. Only a start drops that.
 */
static void
a_loss_of_this_run_is_accepted_after_a_start(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    struct volume_accept_loss accept = { .name = { .pool = "p", .volume = "v" } };
    struct export_lookup lookup;
    static uint8_t data[BLOCK];
    static const uint8_t zeroes[BLOCK];
    uint64_t fresh = 40 * MIB;

    bench_pass_time(rig.bench, 5);
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 2), 0);
    rig.volume->shard->cache.bytes_max = 0; /* block 1's page is evicted */
    assert_int_equal(read_at(&rig, 100 * MIB, BLOCK), 0);
    assert_int_equal(read_at(&rig, 70 * MIB, BLOCK), 0);
    assert_int_equal(bench_fill(rig.bench, rig.volume, fresh, 16 * BLOCK, 7), 0);
    sim_store_fail(rig.bench->sim, "p", SIM_STORE_GET, 0, 0, EIO);
    add_rule(&rig, "flush,count=1,errno=EIO");
    assert_int_equal(flush(&rig), -EIO);
    assert_int_equal(read_at(&rig, fresh, BLOCK), -EIO);
    sim_store_clear_faults(rig.bench->sim, "p");
    assert_int_equal(bench_volume_accept_loss(rig.bench, &accept), -EBUSY);
    assert_int_equal(read_at(&rig, fresh, BLOCK), -EIO);
    fault_clear_rules(rig.disk);
    bench_kill(rig.bench);
    assert_int_equal(bench_boot(rig.bench), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/v", &lookup), 0);
    rig.volume = lookup.ret_volume;
    rig.disk = rig.volume->pool->disks[0]->backend;
    assert_int_equal(read_at(&rig, fresh, BLOCK), -EIO);
    assert_int_equal(bench_volume_accept_loss(rig.bench, &accept), 0);
    for (uint64_t at = fresh; at < fresh + 16 * BLOCK; at += BLOCK) {
        assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_READ, at, data, BLOCK), 0);
        assert_true(memcmp(data, zeroes, BLOCK) == 0 ||
                    bench_check(rig.bench, rig.volume, at, BLOCK, 7));
    }
    assert_true(bench_check(rig.bench, rig.volume, 2 * BLOCK, 14 * BLOCK, 1));
    rig_free(&rig);
}

/* A read fails and meets a loss at the same time: that is enough to fence the volume. */
static void
a_failed_read_that_meets_a_reset_is_noticed(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    struct export_lookup lookup;

    add_rule(&rig, "read,count=1,loss,errno=EIO");
    assert_int_equal(read_at(&rig, 5 * BLOCK, BLOCK), -EIO);
    fault_clear_rules(rig.disk);
    bench_kill(rig.bench);
    assert_int_equal(bench_boot(rig.bench), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/v", &lookup), 0);
    rig.volume = lookup.ret_volume;
    rig.disk = rig.volume->pool->disks[0]->backend;
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    rig_free(&rig);
}

/* Its metadata cannot be written any more, and the marks need a page that is not in memory. */
static void
a_loss_in_a_read_only_pool_leaves_the_rest_readable(void **state)
{
    (void)state;
    struct rig rig = rig_create();
    struct sending sending = { .volume = rig.volume };
    struct volume_request *request = &sending.request;

    assert_int_equal(flush(&rig), 0);
    rig.volume->shard->cache.bytes_max = 0;
    assert_int_equal(bench_fill(rig.bench, rig.volume, 40 * MIB, BLOCK, 7), 0);
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), 0);
    sim_store_fail(rig.bench->sim, "p", SIM_STORE_COMMIT, 0, 1, EIO);
    sim_store_hold(rig.bench->sim, "p", true);
    volume_request_init(request);
    request->operation = VOLUME_FLUSH;
    request->reply = nothing;
    request->release = nothing;
    reactor_send(rig.bench->reactors[0], &sending.message, submit);
    bench_pass_time(rig.bench, 1);
    assert_false(request->replied); /* flushed, and being committed */
    add_rule(&rig, "flush,hang");
    assert_int_equal(bench_fill(rig.bench, rig.volume, BLOCK, BLOCK, 3), 0); /* not flushed */
    sim_store_hold(rig.bench->sim, "p", false);
    bench_pass_time(rig.bench, 1);
    assert_int_equal(request->status, -EIO);
    assert_int_equal(read_at(&rig, 70 * MIB, BLOCK), 0);
    assert_int_equal(read_at(&rig, 100 * MIB, BLOCK), 0); /* page 0 is evicted */
    add_rule(&rig, "read,count=1,loss");
    assert_int_equal(read_at(&rig, 40 * MIB, BLOCK), 0);
    assert_int_equal(read_at(&rig, BLOCK, BLOCK), -EIO);
    assert_true(bench_check(rig.bench, rig.volume, 2 * BLOCK, 14 * BLOCK, 1));
    fault_clear_rules(rig.disk);
    fault_release(rig.disk);
    bench_pass_time(rig.bench, 1);
    bench_kill(rig.bench);
    bench_free(rig.bench);
}

/*
 * A commit meets the loss of a disk, and the volumes know of it when it ends. Z4: what was written
 * to that disk and lies on another one now is not lost with it.
 */
static void
what_has_moved_to_another_disk_is_not_lost(void **state)
{
    (void)state;
    struct bench *bench = bench_create(9, 1);
    struct disk_argument disks[] = { { .spec = "/d/0" }, { .spec = "/d/1", .tier = 1 } };
    struct pool_create create = { .name = "p", .extent_bytes = MIB, .disk_count = 2,
                                  .disks = disks };
    struct export_lookup lookup;
    uint8_t *block = aligned_alloc(BLOCK, BLOCK);

    bench_disk(bench, disks[0].spec, 64 * MIB);
    bench_disk(bench, disks[1].spec, 64 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_create(bench, &create), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", GIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    struct volume *volume = lookup.ret_volume;
    const struct pool *pool = volume->pool;
    /* The first disk is full, and nothing is kept for later on it. */
    const struct disk *second = pool->disks[1];
    for (uint64_t i = 0; second->record.slot_count - second->slots_free < 10; i++) {
        assert_int_equal(bench_fill(bench, volume, i * MIB, MIB, 1), 0);
    }
    assert_int_equal(pool->disks[0]->slots_free, 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    /* Blocks of the first and another grain, on the first disk; then the first one moves. */
    assert_int_equal(bench_fill(bench, volume, 0, BLOCK, 2), 0);
    assert_int_equal(bench_fill(bench, volume, MIB, BLOCK, 2), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 0, NULL, GRAIN_BYTES), 0);
    assert_int_equal(bench_fill(bench, volume, 0, BLOCK, 3), 0);
    guard_raise_loss(pool->disks[0]->backend);
    assert_int_equal(bench_make_volume(bench, "p/w", 16 * MIB), 0);
    assert_int_equal(sim_run_for(bench->sim, 10 * NS_PER_MS), 0);
    /* Not only when somebody reads. */
    assert_int_equal(bench_events(bench, "unflushed-writes-lost"), 1);
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, MIB, block, BLOCK), -EIO);
    assert_true(bench_check(bench, volume, 0, BLOCK, 3));
    free(block);
    bench_release(bench, volume);
    bench_shutdown(bench);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_moved_to_another_disk_is_not_lost),
        cmocka_unit_test(a_read_after_a_reset_does_not_see_older_data),
        cmocka_unit_test(a_write_that_meets_a_reset_is_done_again),
        cmocka_unit_test(a_partial_write_that_meets_a_reset_fails),
        cmocka_unit_test(a_write_that_waited_looks_again),
        cmocka_unit_test(a_fence_is_lifted_by_accepting_the_loss),
        cmocka_unit_test(blocks_written_after_a_loss_was_told_are_kept),
        cmocka_unit_test(fua_that_meets_a_reset_makes_nothing_durable),
        cmocka_unit_test(a_loss_of_this_run_is_accepted_after_a_start),
        cmocka_unit_test(a_failed_read_that_meets_a_reset_is_noticed),
        cmocka_unit_test(a_loss_in_a_read_only_pool_leaves_the_rest_readable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
