/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs on the simulated machine: they repeat exactly, and a hung disk delays nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "tests/sim/workload.h"

static struct world_options
options_apart(uint64_t seed)
{
    return (struct world_options){
        .seed = seed,
        .reactor_count = 1,
        .disk_count = 3,
        .disk_bytes = { 64 * MIB, 64 * MIB, 64 * MIB },
        .disk_tier = { 0, 1, 2 },
        .volume_by_tier = true,
        .extent_bytes = MIB,
        .volume_count = 3,
        .volume_bytes = 8 * MIB,
        .map_cache_bytes = 4 * MIB,
        .journal_bytes = MIB,
        .disk_timeout_ns = 10 * NS_PER_S,
        .request_timeout_ns = 30 * NS_PER_S,
    };
}

static struct world *
world_start(const struct world_options *options)
{
    struct world *world = world_create(options, NULL);

    assert_int_equal(world_boot(world), 0);
    assert_int_equal(world_format(world), 0);
    assert_int_equal(world_attach(world), 0);
    return world;
}

static uint64_t
trace_of(uint64_t seed)
{
    struct world_options options = options_apart(seed);
    struct workload workload;

    options.reactor_count = 3;
    struct world *world = world_start(&options);
    workload_init(&workload, world, seed);
    assert_int_equal(workload_run(&workload, 500), 0);
    assert_int_equal(world_shutdown(world), 0);
    uint64_t hash = sim_trace_hash(world->sim);
    world_free(world);
    return hash;
}

static void
one_seed_is_one_run(void **state)
{
    (void)state;
    assert_true(trace_of(5) == trace_of(5));
    assert_true(trace_of(5) != trace_of(6));
}

/* The longest of `count` writes, reads and flushes of a volume, one after the other. */
static uint64_t
longest_ns(struct world *world, uint32_t volume, uint32_t count)
{
    uint64_t longest = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t start = sim_now_ns(world->sim);
        uint64_t offset = (uint64_t)i % 512 * 16 * KIB;
        assert_int_equal(world_do(world, volume, VOLUME_WRITE, offset, 4 * KIB, 0), 0);
        assert_int_equal(world_do(world, volume, VOLUME_READ, offset, 4 * KIB, 0), 0);
        assert_int_equal(world_do(world, volume, VOLUME_FLUSH, 0, 0, 0), 0);
        longest = MAX(longest, sim_now_ns(world->sim) - start);
    }
    return longest;
}

/* P9: same reactor, same pool, another disk. */
static void
a_hung_disk_delays_nobody_else(void **state)
{
    (void)state;
    struct world_options options = options_apart(7);
    struct world *world = world_start(&options);
    struct sim_fault fault = { .action = SIM_FAULT_HANG };

    uint64_t before = longest_ns(world, 0, 200);
    for (uint64_t at = 0; at < 2 * MIB; at += 64 * KIB) {
        assert_int_equal(world_do(world, 2, VOLUME_WRITE, at, 64 * KIB, 0), 0);
    }
    sim_disk_add_fault(world->disks[2], &fault); /* this disk has no ledger */
    for (uint64_t i = 0; i < 64; i++) {
        world_send(world, 2, i % 2 == 0 ? VOLUME_WRITE : VOLUME_READ, i * 64 * KIB % (4 * MIB),
                   64 * KIB, 0, false);
    }
    world_send(world, 2, VOLUME_FLUSH, 0, 0, 0, false);
    uint64_t during = longest_ns(world, 0, 200);
    assert_true(during < 2 * before);
    sim_disk_clear_faults(world->disks[2]);
    sim_disk_release(world->disks[2]);
    assert_int_equal(world_drain(world), 0);
    assert_false(world->failed);
    assert_int_equal(world_verify(world), 0);
    assert_int_equal(world_shutdown(world), 0);
    world_free(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_seed_is_one_run),
        cmocka_unit_test(a_hung_disk_delays_nobody_else),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
