/* SPDX-License-Identifier: Apache-2.0 */
/* Orders of events that the random loads meet too seldom to rely on, each as a test of its own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backends/guard.h"
#include "base/util.h"
#include "tests/sim/world.h"
#include "volmgr/core_impl.h"

static struct world *
world_start(void)
{
    struct world_options options = {
        .seed = 1,
        .reactor_count = 1,
        .disk_count = 1,
        .disk_bytes = { 40 * MIB },
        .extent_bytes = MIB,
        .volume_count = 1,
        .volume_bytes = 4 * MIB,
        .map_cache_bytes = MIB,
        .journal_bytes = MIB,
        .request_timeout_ns = 20 * NS_PER_S,
    };
    struct world *world = world_create(&options, NULL);

    assert_int_equal(world_boot(world), 0);
    assert_int_equal(world_format(world), 0);
    assert_int_equal(world_attach(world), 0);
    return world;
}

static void
world_end(struct world *world)
{
    assert_int_equal(world_shutdown(world), 0);
    world_free(world);
}

static void
hang(struct world *world, enum file_io_kind kind)
{
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << kind };
    sim_disk_add_fault(world->disks[0], &fault);
}

static void
let_go(struct world *world)
{
    sim_disk_clear_faults(world->disks[0]);
    sim_disk_release(world->disks[0]);
    assert_int_equal(world_drain(world), 0);
}

static void
run_for_ms(struct world *world, uint64_t ms)
{
    for (uint64_t end = sim_now_ns(world->sim) + ms * NS_PER_MS; sim_now_ns(world->sim) < end;) {
        sim_run_for(world->sim, NS_PER_MS);
    }
}

/*
 * The entry of the block is in a batch that is sealed and not committed yet. An overwrite with FUA
 * changes no entry, and is durable only with that batch (P2).
 */
static void
fua_waits_for_the_batch_that_is_sealed(void **state)
{
    (void)state;
    struct world *world = world_start();

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0), 0);
    hang(world, FILE_IO_FLUSH);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    run_for_ms(world, 100);
    struct world_io *fua = world_send(world, 0, VOLUME_WRITE, 0, 4 * KIB, VOLUME_FUA, true);
    run_for_ms(world, 100);
    assert_false(fua->replied);
    let_go(world);
    assert_int_equal(fua->status, 0);
    world_io_free(fua);
    world_end(world);
}

/*
 * A write hangs, and another one waits for its range: both are answered at their deadline. The
 * first keeps its range until the disk lets go of it; the second holds nothing, and has ended (P9).
 */
static void
who_only_waits_for_a_range_ends_at_its_deadline(void **state)
{
    (void)state;
    struct world *world = world_start();

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
    hang(world, FILE_IO_WRITE);
    struct world_io *first = world_send(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0, true);
    struct world_io *second = world_send(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0, true);
    run_for_ms(world, 25000);
    assert_true(first->replied && first->status == -ETIMEDOUT);
    assert_false(first->released);
    assert_true(second->replied && second->status == -ETIMEDOUT);
    assert_true(second->released);
    let_go(world);
    world_io_free(first);
    world_io_free(second);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0), 0);
    world_end(world);
}

/* The answer to a FLUSH that is waited for. */
static int
flush(struct world *world)
{
    return world_do(world, 0, VOLUME_FLUSH, 0, 0, 0);
}

/*
 * The commit that has the marks of one loss is under way when the next one is noticed: it does not
 * have the marks of that, and must not lift the fence (Z3).
 */
static void
a_second_loss_keeps_the_fence(void **state)
{
    (void)state;
    struct world *world = world_start();
    struct volume *volume = world->volumes[0];
    struct backend *disk = volume->pool->disks[0]->backend;

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
    guard_raise_loss(disk);
    assert_int_equal(flush(world), -EIO);
    assert_true(volume->journal_fenced);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 64 * KIB, 4 * KIB, 0), 0);
    sim_store_hold(world->sim, "p", true);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    run_for_ms(world, 50);
    assert_int_equal(volume->seal.phase, SEAL_COMMITTING);
    world_send(world, 0, VOLUME_WRITE, 128 * KIB, 4 * KIB, 0, false);
    run_for_ms(world, 50);
    guard_raise_loss(disk);
    world_send(world, 0, VOLUME_READ, 64 * KIB, 4 * KIB, 0, false); /* meets it */
    run_for_ms(world, 50);
    assert_int_equal(volume->seal.phase, SEAL_COMMITTING);
    sim_store_hold(world->sim, "p", false);
    while (volume->seal.phase == SEAL_COMMITTING) {
        assert_true(sim_step(world->sim));
    }
    assert_true(volume->journal_fenced);
    assert_int_equal(world_drain(world), 0);
    while (flush(world) < 0) {
    }
    assert_false(volume->journal_fenced);
    world_kill(world);
    world_free(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fua_waits_for_the_batch_that_is_sealed),
        cmocka_unit_test(who_only_waits_for_a_range_ends_at_its_deadline),
        cmocka_unit_test(a_second_loss_keeps_the_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
