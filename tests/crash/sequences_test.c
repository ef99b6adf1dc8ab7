/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences of events that once lost data, hung a neighbour or ended the daemon, each as a test on
 * the simulated machine.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "tests/sim/world.h"

static struct world_options
options_small(void)
{
    return (struct world_options){
        .seed = 1,
        .reactor_count = 1,
        .disk_count = 1,
        .disk_bytes = { 40 * MIB, 40 * MIB },
        .extent_bytes = MIB,
        .volume_count = 1,
        .volume_bytes = 4 * MIB,
        .map_cache_bytes = MIB,
        .journal_bytes = MIB,
        .request_timeout_ns = 20 * NS_PER_S,
    };
}

/* Two volumes, each on a disk of its own. */
static struct world_options
options_apart(void)
{
    struct world_options options = options_small();

    options.disk_count = 2;
    options.volume_count = 2;
    options.disk_tier[1] = 1;
    options.volume_by_tier = true;
    return options;
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

static void
world_end(struct world *world)
{
    world_kill(world);
    world_free(world);
}

static void
clean_end(struct world *world)
{
    assert_int_equal(world_shutdown(world), 0);
    world_free(world);
}

static void
fault_once(struct world *world, uint32_t disk, enum sim_fault_action action, enum file_io_kind kind)
{
    struct sim_fault fault = { .action = action, .kinds = 1u << kind, .count = 1 };
    sim_disk_add_fault(world->disks[disk], &fault);
}

static void
hang(struct world *world, uint32_t disk, uint32_t kinds)
{
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = kinds };
    sim_disk_add_fault(world->disks[disk], &fault);
}

static void
let_go(struct world *world, uint32_t disk)
{
    sim_disk_clear_faults(world->disks[disk]);
    sim_disk_release(world->disks[disk]);
    assert_int_equal(world_drain(world), 0);
}

/* The answer to a request within a time, or -EINPROGRESS. It is left to the world. */
static int
status_within(struct world *world, uint32_t volume, enum volume_operation operation,
              uint64_t offset_bytes, uint64_t length_bytes, uint64_t limit_ns)
{
    struct world_io *io = world_send(world, volume, operation, offset_bytes, length_bytes, 0, true);

    for (uint64_t end = sim_now_ns(world->sim) + limit_ns;
         !io->replied && sim_now_ns(world->sim) < end;) {
        sim_run_for(world->sim, NS_PER_MS);
    }
    int status = io->replied ? io->status : -EINPROGRESS;
    if (io->released) {
        world_io_free(io);
    } else {
        io->keep = false;
    }
    return status;
}

/* A grain was taken for each of 16 grains, then the first write failed: 15 homes were nobody's. */
static void
homes_of_a_failed_request_are_given_back(void **state)
{
    (void)state;
    struct world_options options = options_small();
    struct world *world = world_start(&options);
    struct sim_fault fault = {
        .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_WRITE, .count = 1, .offset_bytes = 3 * MIB
    };

    sim_disk_add_fault(world->disks[0], &fault);
    assert_true(world_do(world, 0, VOLUME_WRITE_ZEROES, 0, MIB, VOLUME_NO_HOLE) < 0);
    clean_end(world);
}

/* Zeroes that are zeroes already still wait for the commit that made them so (P2). */
static void
fua_over_zeroes_waits_for_their_commit(void **state)
{
    (void)state;
    struct world_options options = options_small();
    struct world *world = world_start(&options);
    struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE_ZEROES, 0, 4 * KIB, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE_ZEROES, 512, 512, VOLUME_FUA), 0);
    world_power_cut(world, &cut);
    assert_int_equal(world_boot(world), 0);
    assert_int_equal(world_attach(world), 0);
    assert_int_equal(world_verify_recovered(world), 0);
    clean_end(world);
}

/* Both volumes lost data with one flush; the second one's own flush came later and was good. */
static void
a_good_flush_after_a_bad_one_proves_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 8; seed++) {
        struct world_options options = options_small();
        options.seed = seed;
        options.volume_count = 2;
        struct world *world = world_start(&options);
        const struct sim_disk_statistics *statistics = sim_disk_statistics(world->disks[0]);
        for (uint32_t v = 0; v < 2; v++) {
            assert_int_equal(world_do(world, v, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
        }
        fault_once(world, 0, SIM_FAULT_LOSE_CACHE, FILE_IO_FLUSH);
        uint64_t flushes = statistics->operations[FILE_IO_FLUSH];
        struct world_io *first = world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, true);
        while (statistics->operations[FILE_IO_FLUSH] == flushes) {
            sim_step(world->sim);
        }
        struct world_io *second = world_send(world, 1, VOLUME_FLUSH, 0, 0, 0, true);
        assert_int_equal(world_drain(world), 0);
        assert_int_equal(first->status, -EIO);
        assert_int_equal(second->status, -EIO);
        world_io_free(first);
        world_io_free(second);
        world_end(world);
    }
}

/* The records of a fenced volume held the ring's tail for ever. */
static void
a_fenced_volume_leaves_the_ring_to_others(void **state)
{
    (void)state;
    struct world_options options = options_apart();
    struct world *world = world_start(&options);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0), 0);
    fault_once(world, 0, SIM_FAULT_LOSE_CACHE, FILE_IO_FLUSH);
    assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), -EIO);
    for (uint64_t i = 0; i < 15000; i++) { /* more than the ring has records */
        assert_int_equal(world_do(world, 1, i % 2 == 0 ? VOLUME_WRITE : VOLUME_DISCARD,
                                  64 * KIB * (i / 2 % 60), 4 * KIB, 0),
                         0);
    }
    world_end(world);
}

/* A block in each of the first `grains` grains: each is a record of its own in the ring. */
static void
send_to_each_grain(struct world *world, uint32_t volume, uint64_t grains, uint64_t block)
{
    for (uint64_t grain = 0; grain < grains; grain++) {
        world_send(world, volume, VOLUME_WRITE, grain * 64 * KIB + block * 4 * KIB, 4 * KIB, 0,
                   false);
        if (grain % 64 == 63) {
            sim_run_for(world->sim, 2 * NS_PER_MS);
        }
    }
}

/*
 * Each volume may hold a quarter of the ring, so four that wait for one hung disk held nearly all
 * of it, and the fifth, on another disk, had no room to log into.
 */
static void
volumes_on_a_hung_disk_leave_room_in_the_ring(void **state)
{
    (void)state;
    enum { HUNG = 4, OTHER = HUNG, GRAINS = 1000 };
    struct world_options options = options_apart();
    options.volume_count = HUNG + 1;
    options.volume_by_tier = false;
    options.disk_tier[0] = 2;
    for (uint32_t v = 0; v < options.volume_count; v++) {
        options.volume_tier[v] = v < HUNG ? 1 : 2;
    }
    options.disk_bytes[0] = 100 * MIB;
    options.disk_bytes[1] = 500 * MIB;
    options.extent_bytes = 4 * MIB; /* few commits: the ledger has room for all */
    options.volume_bytes = 64 * MIB;
    options.journal_bytes = 256 * KIB; /* about 3200 records */
    options.request_timeout_ns = 3600 * NS_PER_S;
    struct world *world = world_start(&options);

    for (uint32_t v = 0; v < HUNG; v++) {
        send_to_each_grain(world, v, GRAINS, 0);
        assert_int_equal(world_drain(world), 0);
    }
    assert_int_equal(world_do(world, OTHER, VOLUME_WRITE, 0, MIB, 0), 0);
    sim_run_for(world->sim, 5 * NS_PER_S); /* all of it is committed by now */
    hang(world, 1, 1u << FILE_IO_FLUSH);
    for (uint32_t v = 0; v < HUNG; v++) {
        send_to_each_grain(world, v, GRAINS, 1);
    }
    sim_run_for(world->sim, 5 * NS_PER_S);
    for (uint64_t i = 0; i < 2000; i++) { /* they hold most of what the ring has room for */
        enum volume_operation operation = i % 2 == 0 ? VOLUME_DISCARD : VOLUME_WRITE;
        assert_int_equal(status_within(world, OTHER, operation, i / 2 % 256 * 4 * KIB, 4 * KIB,
                                       15 * NS_PER_S),
                         0);
        if (i == 300) {
            assert_int_equal(status_within(world, OTHER, VOLUME_FLUSH, 0, 0, 15 * NS_PER_S), 0);
        }
    }
    let_go(world, 1);
    assert_false(world->failed);
    clean_end(world);
}

/* Commits wrote to every ledger disk and waited for the slowest for ever. */
static void
a_hung_ledger_disk_does_not_stop_other_flushes(void **state)
{
    (void)state;
    struct world_options options = options_apart();
    struct world *world = world_start(&options);

    for (uint32_t v = 0; v < 2; v++) {
        assert_int_equal(world_do(world, v, VOLUME_WRITE, 0, 4 * KIB, 0), 0);
    }
    hang(world, 0, 0);
    assert_int_equal(status_within(world, 1, VOLUME_FLUSH, 0, 0, 15 * NS_PER_S), 0);
    assert_int_equal(world_do(world, 1, VOLUME_WRITE, MIB, 4 * KIB, 0), 0);
    /* The copy has been left out: the next one is not delayed at all. */
    assert_int_equal(status_within(world, 1, VOLUME_FLUSH, 0, 0, NS_PER_S), 0);
    let_go(world, 0);
    world_end(world);
}

/* The allocator waited for a discard before it looked at anything else. */
static void
a_hung_discard_does_not_stop_allocation(void **state)
{
    (void)state;
    struct world_options options = options_apart();
    options.volume_bytes = 32 * MIB;
    struct world *world = world_start(&options);

    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, at, MIB, 0), 0);
    }
    hang(world, 0, 1u << FILE_IO_DISCARD);
    assert_int_equal(world_do(world, 0, VOLUME_DISCARD, 0, 8 * MIB, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    sim_run_for(world->sim, 2 * NS_PER_S);
    assert_true(sim_disk_hanging(world->disks[0]) > 0);
    for (uint64_t at = 0; at < 16 * MIB; at += MIB) {
        assert_int_equal(status_within(world, 1, VOLUME_WRITE, at, MIB, 5 * NS_PER_S), 0);
    }
    let_go(world, 0);
    world_end(world);
}

/* More commits than the ring has room for: checkpoints let it go round. */
static void
the_commit_ledger_goes_round(void **state)
{
    (void)state;
    struct world_options options = options_small();
    struct world *world = world_start(&options);
    struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };

    for (uint64_t i = 0; i < 3000; i++) {
        assert_int_equal(world_do(world, 0, i % 3 == 2 ? VOLUME_DISCARD : VOLUME_WRITE,
                                  64 * KIB * (i % 60), 4 * KIB, 0),
                         0);
        assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    }
    world_power_cut(world, &cut);
    assert_int_equal(world_boot(world), 0);
    assert_int_equal(world_attach(world), 0);
    assert_int_equal(world_verify_recovered(world), 0);
    clean_end(world);
}

/* Grains come back with the next commit: until then the pool is not full (P7). */
static void
discarded_space_is_there_for_the_next_write(void **state)
{
    (void)state;
    struct world_options options = options_small();
    struct world *world = world_start(&options);

    for (uint32_t i = 0; i < 2000; i++) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0), 0);
        assert_int_equal(world_do(world, 0, VOLUME_DISCARD, 0, 64 * KIB, 0), 0);
    }
    clean_end(world);
}

/* Pages that could not be evicted stood in front and hid the rest. */
static void
the_map_cache_keeps_its_bound(void **state)
{
    (void)state;
    struct world_options options = options_apart();
    options.volume_bytes = 16 * GIB;
    options.disk_bytes[0] = 100 * MIB;
    options.disk_bytes[1] = 100 * MIB;
    struct world *world = world_start(&options);
    enum { PAGES = 200 };

    for (uint64_t page = 0; page < PAGES; page++) {
        assert_int_equal(world_do(world, 1, VOLUME_WRITE, page * 32 * MIB, 4 * KIB, 0), 0);
    }
    assert_int_equal(world_do(world, 1, VOLUME_FLUSH, 0, 0, 0), 0);
    hang(world, 0, 1u << FILE_IO_FLUSH);
    for (uint64_t page = 0; page < 40; page++) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, page * 32 * MIB, 4 * KIB, 0), 0);
    }
    sim_run_for(world->sim, 3 * NS_PER_S);
    for (uint64_t page = 0; page < 2 * PAGES; page++) {
        assert_int_equal(world_do(world, 1, VOLUME_READ, page % PAGES * 32 * MIB, 4 * KIB, 0), 0);
    }
    /* The 40 dirty pages may stay; 200 others may not. */
    assert_true(world_cache_bytes(world, 1) < 2 * options.map_cache_bytes);
    let_go(world, 0);
    world_end(world);
}

/*
 * A write that hangs is overtaken by nothing on its range, and does not come back over newer data.
 */
static void
a_hung_write_never_shows_over_newer_data(void **state)
{
    (void)state;
    struct world_options options = options_small();
    options.disk_timeout_ns = 2 * NS_PER_S;
    options.request_timeout_ns = 5 * NS_PER_S;
    struct world *world = world_start(&options);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
    hang(world, 0, 1u << FILE_IO_WRITE);
    assert_int_equal(status_within(world, 0, VOLUME_WRITE, 0, 4 * KIB, 10 * NS_PER_S), -ETIMEDOUT);
    sim_disk_clear_faults(world->disks[0]); /* later writes do not hang; this one still does */
    assert_int_equal(status_within(world, 0, VOLUME_WRITE, 0, 4 * KIB, 10 * NS_PER_S), -ETIMEDOUT);
    assert_int_equal(status_within(world, 0, VOLUME_WRITE, 8 * KIB, 4 * KIB, NS_PER_S), 0);
    struct world_io *newer = world_send(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0, true);
    sim_run_for(world->sim, NS_PER_S);
    let_go(world, 0);
    assert_int_equal(newer->status, 0);
    world_io_free(newer);
    assert_int_equal(world_verify(world), 0);
    clean_end(world);
}

/* The pool is full, and what another volume has discarded waits for a disk that hangs (P7, P9). */
static void
a_full_pool_says_so_beside_a_hung_disk(void **state)
{
    (void)state;
    struct world_options options = options_apart();
    options.volume_bytes = 128 * MIB;
    struct world *world = world_start(&options);
    uint64_t filled[2] = { 0 };

    assert_int_equal(world_do(world, 1, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
    filled[1] = 64 * KIB;
    for (uint32_t v = 0; v < 2; v++) {
        while (world_do(world, v, VOLUME_WRITE, filled[v], 64 * KIB, 0) == 0) {
            filled[v] += 64 * KIB;
        }
    }
    for (uint32_t v = 0; v < 2; v++) {
        assert_int_equal(world_do(world, v, VOLUME_FLUSH, 0, 0, 0), 0);
    }
    hang(world, 0, 1u << FILE_IO_FLUSH);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 4 * KIB, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_DISCARD, 64 * KIB, 64 * KIB, 0), 0);
    struct world_io *waiting = world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    assert_non_null(waiting);
    assert_int_equal(
        status_within(world, 1, VOLUME_WRITE, filled[1], 64 * KIB, 15 * NS_PER_S), -ENOSPC);
    let_go(world, 0);
    clean_end(world);
}

/* Once the pool was full, and what a volume of a tier wrote went where it could. There is space. */
static void
a_volume_keeps_to_its_tier_after_the_pool_was_full(void **state)
{
    (void)state;
    struct world_options options = options_apart();
    options.volume_bytes = 128 * MIB;
    options.volume_by_tier = false;
    options.volume_tier[1] = 1; /* volume 0: anywhere */
    struct world *world = world_start(&options);
    uint64_t filled[2] = { 0, 64 * KIB };

    assert_int_equal(world_do(world, 1, VOLUME_WRITE, 0, 64 * KIB, 0), 0);
    for (uint32_t v = 0; v < 2; v++) {
        while (world_do(world, v, VOLUME_WRITE, filled[v], 64 * KIB, 0) == 0) {
            filled[v] += 64 * KIB;
        }
    }
    for (uint64_t at = 0; at < filled[0]; at += MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_DISCARD, at, MIB, 0), 0);
    }
    assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    sim_run_for(world->sim, 20 * NS_PER_S);
    const uint64_t *bytes = &sim_disk_statistics(world->disks[1])->bytes[FILE_IO_WRITE];
    uint64_t before = *bytes;
    for (uint64_t at = filled[1]; at < filled[1] + 16 * MIB; at += 64 * KIB) {
        assert_int_equal(world_do(world, 1, VOLUME_WRITE, at, 64 * KIB, 0), 0);
    }
    assert_true(*bytes - before >= 12 * MIB);
    clean_end(world);
}

/* A checkpoint is written, and the only disk that its place could be noted on takes no label. */
static void
a_checkpoint_without_a_label_is_given_up(void **state)
{
    (void)state;
    struct world_options options = options_small();
    struct world *world = world_start(&options);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, options.volume_bytes / 2, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    sim_run_for(world->sim, 5 * NS_PER_S);
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH, .count = 1 };
    sim_disk_add_fault(world->disks[0], &fault);
    sim_run_for(world->sim, 12 * NS_PER_S); /* a heartbeat */
    assert_int_equal(sim_disk_hanging(world->disks[0]), 1);
    for (uint64_t block = 0; block < 400; block++) { /* needs commits, and no flush of a disk */
        assert_int_equal(
            world_do(world, 0, VOLUME_DISCARD, block * 4 * KIB, 4 * KIB, 0), 0);
        assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    }
    let_go(world, 0);
    assert_int_equal(world_verify(world), 0);
    clean_end(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(homes_of_a_failed_request_are_given_back),
        cmocka_unit_test(fua_over_zeroes_waits_for_their_commit),
        cmocka_unit_test(a_good_flush_after_a_bad_one_proves_nothing),
        cmocka_unit_test(a_fenced_volume_leaves_the_ring_to_others),
        cmocka_unit_test(volumes_on_a_hung_disk_leave_room_in_the_ring),
        cmocka_unit_test(a_hung_ledger_disk_does_not_stop_other_flushes),
        cmocka_unit_test(a_hung_discard_does_not_stop_allocation),
        cmocka_unit_test(the_commit_ledger_goes_round),
        cmocka_unit_test(a_checkpoint_without_a_label_is_given_up),
        cmocka_unit_test(discarded_space_is_there_for_the_next_write),
        cmocka_unit_test(a_full_pool_says_so_beside_a_hung_disk),
        cmocka_unit_test(a_volume_keeps_to_its_tier_after_the_pool_was_full),
        cmocka_unit_test(the_map_cache_keeps_its_bound),
        cmocka_unit_test(a_hung_write_never_shows_over_newer_data),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
