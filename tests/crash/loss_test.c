/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk loses what it had not flushed: just those blocks read as errors until they are rewritten,
 * whatever happens to the daemon and the machine afterwards, and nothing that a FLUSH or FUA had
 * acknowledged is given up.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/sim/world.h"

enum {
    BLOCK = 4 * KIB,
    /* Longer than the commit interval: what was dirty has been committed. */
    LONG_ENOUGH_S = 5,
};

static struct world_options
options_small(uint64_t seed)
{
    return (struct world_options){
        .seed = seed,
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
start_again(struct world *world)
{
    assert_int_equal(world_boot(world), 0);
    assert_int_equal(world_attach(world), 0);
}

static void
end(struct world *world)
{
    assert_false(world->failed);
    assert_int_equal(world_shutdown(world), 0);
    world_free(world);
}

static void
lose_with_next_flush(struct world *world, uint32_t disk)
{
    struct sim_fault fault = {
        .action = SIM_FAULT_LOSE_CACHE, .kinds = 1u << FILE_IO_FLUSH, .count = 1
    };
    sim_disk_add_fault(world->disks[disk], &fault);
}

static int
do_block(struct world *world, uint32_t volume, enum volume_operation operation, uint64_t block)
{
    return world_do(world, volume, operation, block * BLOCK, BLOCK, 0);
}

static int
flush(struct world *world, uint32_t volume)
{
    return world_do(world, volume, VOLUME_FLUSH, 0, 0, 0);
}

/* Blocks of the volume that give an error; all others are what the oracle wants. */
static uint64_t
unreadable_blocks(struct world *world, uint32_t volume)
{
    uint64_t count = 0;

    for (uint64_t block = 0; block < world->sizes[volume] / BLOCK; block++) {
        int status = do_block(world, volume, VOLUME_READ, block);
        assert_true(status == 0 || status == -EIO);
        count += status == -EIO;
    }
    assert_false(world->failed);
    return count;
}

/*
 * Blocks 0 to 15 are flushed; then 1, 20 and 40 are written, and a FLUSH loses them. Block 40 is a
 * grain of its own.
 */
static struct world *
world_with_loss(struct world_options *options)
{
    struct world *world = world_start(options);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 1), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 20), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 40), 0);
    lose_with_next_flush(world, 0);
    assert_int_equal(flush(world, 0), -EIO);
    return world;
}

static void
lost_blocks_are_errors_until_they_are_rewritten(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_with_loss(&options);

    assert_int_equal(unreadable_blocks(world, 0), 3);
    assert_int_equal(flush(world, 0), 0); /* it was told */
    /* Less than a block does not bring the rest of it back. */
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, BLOCK, 512, 0), -EIO);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE_ZEROES, BLOCK, 512, 0), -EIO);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 1), -EIO);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 1), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE_ZEROES, 20), 0);
    assert_int_equal(do_block(world, 0, VOLUME_DISCARD, 40), 0);
    assert_int_equal(unreadable_blocks(world, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };
    world_power_cut(world, &cut);
    start_again(world);
    assert_int_equal(world_verify_recovered(world), 0);
    end(world);
}

static void
the_marks_outlive_the_process_and_the_power(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct world_options options = options_small(1);
        struct world *world = world_with_loss(&options);
        struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };
        sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
        if (how == 0) {
            world_kill(world);
        } else if (how == 1) {
            world_power_cut(world, &cut);
        } else {
            assert_int_equal(world_shutdown(world), 0);
        }
        start_again(world);
        assert_int_equal(unreadable_blocks(world, 0), 3);
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, MIB, 0), 0);
        assert_int_equal(unreadable_blocks(world, 0), 0);
        end(world);
    }
}

/* The daemon dies before it is durable which blocks were lost. */
static void
a_fence_outlives_starts_until_it_is_accepted(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_with_loss(&options);
    uint64_t blocks = options.volume_bytes / BLOCK;

    world_kill(world);
    start_again(world);
    assert_int_equal(unreadable_blocks(world, 0), blocks);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 100), -EIO);
    assert_int_equal(flush(world, 0), -EIO);
    world_kill(world);
    start_again(world);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 0), -EIO);
    assert_int_equal(world_shutdown(world), 0);
    start_again(world);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 0), -EIO);
    assert_int_equal(world_shutdown(world), 0);
    world->options.accept_loss = true;
    oracle_died(world->oracles[0], true);
    start_again(world);
    assert_int_equal(world_verify_recovered(world), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 1), 0);
    assert_int_equal(flush(world, 0), 0);
    /* Accepted once and for all. */
    assert_int_equal(world_shutdown(world), 0);
    world->options.accept_loss = false;
    start_again(world);
    assert_int_equal(unreadable_blocks(world, 0), 0);
    end(world);
}

/* Z4: a block that FUA made durable stays, whatever was written beside it. */
static void
what_fua_acknowledged_is_kept(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 32 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 3), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 4), 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 3 * BLOCK, BLOCK, VOLUME_FUA), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 5), 0);
    lose_with_next_flush(world, 0);
    assert_int_equal(flush(world, 0), -EIO);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 3), 0);
    assert_true(unreadable_blocks(world, 0) >= 1);
    assert_true(unreadable_blocks(world, 0) <= 2);
    end(world);
}

/* Only what lies on the disk that lost it, and only volumes that had written there. */
static void
others_go_on(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    options.disk_count = 2;
    options.volume_count = 2;
    options.disk_tier[1] = 1;
    options.volume_by_tier = true;
    struct world *world = world_start(&options);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(world_do(world, 1, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    lose_with_next_flush(world, 0);
    assert_int_equal(flush(world, 0), -EIO);
    assert_int_equal(unreadable_blocks(world, 1), 0);
    assert_int_equal(flush(world, 1), 0);
    assert_int_equal(unreadable_blocks(world, 0), 16);
    end(world);
}

/* Every flush fails from now on: no progress, no hang, no busy loop; the pool can be closed. */
static void
a_disk_that_cannot_flush_any_more(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);
    struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_FLUSH };
    const struct sim_disk_statistics *statistics = sim_disk_statistics(world->disks[0]);

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 4 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    sim_disk_add_fault(world->disks[0], &fault);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(do_block(world, 0, VOLUME_WRITE, 4 + i), 0);
        assert_int_equal(flush(world, 0), -EIO);
    }
    uint64_t before = statistics->operations[FILE_IO_FLUSH];
    sim_run_for(world->sim, 100 * NS_PER_S);
    assert_true(statistics->operations[FILE_IO_FLUSH] - before < 200);
    assert_int_equal(unreadable_blocks(world, 0), 20);
    assert_int_equal(world_shutdown(world), -EIO); /* not clean */
    world_kill(world);
    sim_disk_clear_faults(world->disks[0]);
    /* It was never durable which blocks were lost. */
    start_again(world);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 0), -EIO);
    end(world);
}

/* Also when the commit timer has expired while they were being set: nobody need ask for it. */
static void
marks_are_committed_by_themselves(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH, .count = 1 };

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    sim_run_for(world->sim, 5 * NS_PER_S);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 1), 0);
    sim_disk_add_fault(world->disks[0], &hang);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_int_equal(sim_disk_hanging(world->disks[0]), 1);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 40), 0); /* arms the commit timer */
    sim_run_for(world->sim, 5 * NS_PER_S);                     /* which expires */
    sim_disk_reset(world->disks[0]);                           /* the flush fails */
    sim_run_for(world->sim, 60 * NS_PER_S);                    /* many commit intervals */
    assert_int_equal(do_block(world, 0, VOLUME_READ, 0), 0);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 1), -EIO);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 80), 0);
    sim_run_for(world->sim, 60 * NS_PER_S);
    world_kill(world);
    start_again(world);
    assert_true(unreadable_blocks(world, 0) <= 2); /* not the whole volume */
    end(world);
}

/* The rest of the block is lost with the flush that follows; what FUA wrote may not be. */
static void
fua_of_a_part_of_a_block_is_kept(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);
    struct sim_fault lose = {
        .action = SIM_FAULT_LOSE_CACHE, .kinds = 1u << FILE_IO_FLUSH, .count = 1
    };

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 3), 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 3 * BLOCK, 512, VOLUME_FUA), 0);
    sim_disk_add_fault(world->disks[0], &lose);
    flush(world, 0);
    assert_int_equal(world_do(world, 0, VOLUME_READ, 3 * BLOCK, 512, 0), 0);
    end(world);
}

/* The flush that fails is that of a label, while the flush of the data hangs. */
static void
a_loss_that_a_label_meets_is_fenced(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH, .count = 1 };
    struct sim_fault lose = {
        .action = SIM_FAULT_LOSE_CACHE, .kinds = 1u << FILE_IO_FLUSH, .count = 1
    };

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    sim_run_for(world->sim, 5 * NS_PER_S);
    sim_disk_add_fault(world->disks[0], &hang);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, MIB, 16 * BLOCK, 0), 0);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_int_equal(sim_disk_hanging(world->disks[0]), 1);
    sim_disk_add_fault(world->disks[0], &lose);
    for (int i = 0; i < 600 && sim_disk_statistics(world->disks[0])->faults < 2; i++) {
        sim_run_for(world->sim, NS_PER_S / 10);
    }
    assert_int_equal(sim_disk_statistics(world->disks[0])->faults, 2);
    sim_run_for(world->sim, 10 * NS_PER_S);
    sim_disk_clear_faults(world->disks[0]);
    world_kill(world);
    sim_disk_release(world->disks[0]);
    sim_run_for(world->sim, NS_PER_S);
    start_again(world);
    world->allow_unreadable = true;
    assert_int_equal(world_verify_recovered(world), 0);
    end(world);
}

/* A lost block is rewritten; the daemon dies, and the disk comes back without that. */
static void
a_mark_is_not_taken_away_by_a_replay_without_the_disk(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    options.disk_count = 2;
    options.volume_count = 2;
    options.disk_tier[1] = 1;
    options.volume_by_tier = true;
    struct world *world = world_start(&options);
    struct sim_fault lose = {
        .action = SIM_FAULT_LOSE_CACHE, .kinds = 1u << FILE_IO_FLUSH, .count = 1
    };

    assert_int_equal(world_do(world, 1, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 1), 0);
    for (uint64_t block = 0; block < 8; block++) {
        assert_int_equal(do_block(world, 1, VOLUME_WRITE, block), 0);
    }
    sim_disk_add_fault(world->disks[1], &lose);
    assert_int_equal(flush(world, 1), -EIO);
    sim_run_for(world->sim, 5 * NS_PER_S);
    assert_int_equal(unreadable_blocks(world, 1), 8);
    for (uint64_t block = 0; block < 8; block++) {
        assert_int_equal(do_block(world, 1, VOLUME_WRITE, block), 0);
    }
    world_kill(world);
    sim_run_for(world->sim, NS_PER_S);
    sim_disk_set_missing(world->disks[1], true);
    start_again(world);
    assert_int_equal(world_shutdown(world), 0);
    sim_run_for(world->sim, NS_PER_S);
    sim_disk_reset(world->disks[1]); /* pulled: what it had not flushed is lost */
    sim_disk_set_missing(world->disks[1], false);
    start_again(world);
    /* What it showed last was the third version, before that an error: never the first. */
    world->allow_unreadable = true;
    assert_int_equal(world_verify_recovered(world), 0);
    end(world);
}

/* Flushes have failed before; now the disk is good again, and the pool is closed. */
static void
closing_tries_again(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);
    struct sim_fault lose = {
        .action = SIM_FAULT_LOSE_CACHE, .kinds = 1u << FILE_IO_FLUSH, .count = 3
    };

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    sim_disk_add_fault(world->disks[0], &lose);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(do_block(world, 0, VOLUME_WRITE, i), 0);
        assert_int_equal(flush(world, 0), -EIO);
    }
    assert_int_equal(sim_disk_statistics(world->disks[0])->faults, 3);
    assert_int_equal(unreadable_blocks(world, 0), 3);
    assert_int_equal(world_shutdown(world), 0);
    start_again(world);
    assert_int_equal(unreadable_blocks(world, 0), 3);
    end(world);
}

/*
 * Two volumes that both have blocks on both disks, 8 of 1 MiB apart each, which are written and not
 * flushed in volume 0. Its FLUSH has flushed disk 0 and waits for disk 1, which hangs.
 */
static struct world *
world_with_half_a_flush(struct world_options *options)
{
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH };

    options->disk_count = 2;
    options->volume_count = 2;
    options->volume_bytes = 16 * MIB;
    options->disk_bytes[1] = 44 * MIB; /* extents go to one and the other */
    struct world *world = world_start(options);
    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        uint32_t first = (uint32_t)(at / MIB / 2 % 2);
        assert_int_equal(world_do(world, first, VOLUME_WRITE, at, MIB, 0), 0);
        assert_int_equal(world_do(world, 1 - first, VOLUME_WRITE, at, MIB, 0), 0);
    }
    assert_int_equal(flush(world, 0), 0);
    assert_int_equal(flush(world, 1), 0);
    sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, at, BLOCK, 0), 0);
    }
    sim_disk_add_fault(world->disks[1], &hang);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_int_equal(sim_disk_hanging(world->disks[1]), 1);
    assert_int_equal(sim_disk_hanging(world->disks[0]), 0);
    return world;
}

/* Where it lies is told by the disk that is read. */
static uint32_t
disk_of_block(struct world *world, uint32_t volume, uint64_t block)
{
    const uint64_t *reads = &sim_disk_statistics(world->disks[0])->operations[FILE_IO_READ];
    uint64_t before = *reads;

    assert_int_equal(do_block(world, volume, VOLUME_READ, block), 0);
    return *reads > before ? 0 : 1;
}

/* Volume 1 writes to both disks, and a flush of disk 0 loses that. */
static void
lose_on_disk_0(struct world *world)
{
    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 1, VOLUME_WRITE, at, BLOCK, 0), 0);
    }
    lose_with_next_flush(world, 0);
    world_send(world, 1, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_int_equal(sim_disk_statistics(world->disks[0])->faults, 1);
}

/* The flush of disk 0 was good, so nothing of volume 0 is lost, and its FLUSH may succeed. */
static void
what_a_good_flush_covered_is_not_marked(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_with_half_a_flush(&options);

    lose_on_disk_0(world);
    assert_int_equal(unreadable_blocks(world, 0), 0);
    uint64_t lost = unreadable_blocks(world, 1);
    assert_in_range(lost, 1, 7);
    sim_disk_clear_faults(world->disks[1]);
    sim_disk_release(world->disks[1]);
    assert_int_equal(world_drain(world), 0);
    assert_int_equal(unreadable_blocks(world, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    assert_int_equal(unreadable_blocks(world, 1), lost);
    end(world);
}

/* Volume 0 has written to disk 0 again since: just that is lost there, whatever comes then. */
static void
a_loss_during_a_seal_marks_what_is_not_flushed(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_with_half_a_flush(&options);
    uint64_t on_disk[2] = { 0 };
    uint64_t at_disk_0 = 0;

    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        uint32_t disk = disk_of_block(world, 0, at / BLOCK);
        on_disk[disk]++;
        at_disk_0 = disk == 0 ? at : at_disk_0;
    }
    assert_true(on_disk[0] > 1 && on_disk[1] > 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, at_disk_0 + BLOCK, BLOCK, 0), 0);
    lose_on_disk_0(world);
    assert_int_equal(unreadable_blocks(world, 0), 1);
    assert_int_equal(do_block(world, 0, VOLUME_READ, at_disk_0 / BLOCK + 1), -EIO);
    /* Then the flush of disk 1 fails as well. */
    sim_disk_clear_faults(world->disks[1]);
    sim_disk_reset(world->disks[1]);
    assert_int_equal(world_drain(world), 0);
    assert_int_equal(unreadable_blocks(world, 0), 1 + on_disk[1]);
    /* And disk 0 once more, which has nothing new of volume 0. */
    lose_with_next_flush(world, 0);
    assert_int_equal(do_block(world, 1, VOLUME_WRITE, at_disk_0 / BLOCK), 0);
    flush(world, 1);
    flush(world, 0);
    assert_int_equal(unreadable_blocks(world, 0), 1 + on_disk[1]);
    sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
    assert_int_equal(flush(world, 0), 0);
    end(world);
}

/* The host was told that it failed; since then its bytes were read. They do not go back. */
static void
bytes_of_a_late_write_do_not_go_back(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_start(&options);
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_WRITE, .count = 1 };

    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(flush(world, 0), 0);
    sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
    sim_disk_add_fault(world->disks[0], &hang);
    struct world_io *late =
        world_send(world, 0, VOLUME_WRITE, 3 * BLOCK, BLOCK, 0, true);
    sim_run_for(world->sim, 30 * NS_PER_S);
    assert_true(late->replied);
    assert_int_equal(late->status, -ETIMEDOUT);
    sim_disk_release(world->disks[0]);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_true(late->released);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 3), 0);
    lose_with_next_flush(world, 0);
    assert_int_equal(flush(world, 0), -EIO);
    assert_int_equal(unreadable_blocks(world, 0), 1);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 3), -EIO);
    /* Nor do those of a write that the disk failed: it may have taken it in part. */
    struct sim_fault error = {
        .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_WRITE, .count = 1
    };
    sim_disk_add_fault(world->disks[0], &error);
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 5), -EIO);
    lose_with_next_flush(world, 0);
    assert_int_equal(flush(world, 0), -EIO);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 5), -EIO);
    assert_int_equal(unreadable_blocks(world, 0), 2);
    world_io_free(late);
    end(world);
}

/* A loss in the middle of everything: requests in flight of every kind, on two volumes. */
/*
 * 8 blocks of volume 0, 1 MiB apart, are written and not flushed, and the page of its map that they
 * are in has left the cache.
 */
static struct world *
world_with_an_evicted_page(struct world_options *options)
{
    options->volume_bytes = 256 * MIB;
    options->map_cache_bytes = 16 * KIB;
    struct world *world = world_start(options);

    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, at, MIB, 0), 0);
    }
    for (uint64_t at = 32 * MIB; at < 128 * MIB; at += 32 * MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, at, 16 * BLOCK, 0), 0);
    }
    assert_int_equal(flush(world, 0), 0);
    sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_WRITE, at, BLOCK, 0), 0);
    }
    for (uint64_t at = 128 * MIB; at < 256 * MIB; at += 32 * MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_READ, at, BLOCK, 0), 0);
    }
    return world;
}

static void
all_8_are_lost_and_nothing_else(struct world *world)
{
    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 0, VOLUME_READ, at, BLOCK, 0), -EIO);
        assert_int_equal(world_do(world, 0, VOLUME_READ, at + BLOCK, MIB - BLOCK, 0), 0);
    }
    assert_int_equal(do_block(world, 0, VOLUME_WRITE, 0), 0);
    assert_int_equal(do_block(world, 0, VOLUME_READ, 0), 0);
}

/* Requests wait while the map is read that marks are to be set in. */
static void
marks_are_being_set(struct world *world)
{
    struct world_io *io = world_send(world, 0, VOLUME_READ, BLOCK, BLOCK, 0, true);

    sim_run_for(world->sim, NS_PER_S / 10);
    assert_false(io->replied);
    io->keep = false;
}

/* It is needed for the marks, and it is not broken. */
static void
a_slow_store_does_not_fence_a_volume(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    struct world *world = world_with_an_evicted_page(&options);

    lose_with_next_flush(world, 0);
    sim_store_hold(world->sim, "p", true);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, 30 * NS_PER_S);
    marks_are_being_set(world);
    sim_store_hold(world->sim, "p", false);
    assert_int_equal(world_drain(world), 0);
    sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
    all_8_are_lost_and_nothing_else(world);
    end(world);
}

/*
 * Disk 0 loses its cache while volume 0's FLUSH waits for both disks, its marks wait for the map,
 * and before they are set the next flush of disk 0 is good and that of disk 1 fails.
 */
static void
a_good_flush_after_a_loss_covers_nothing(void **state)
{
    (void)state;
    struct world_options options = options_small(1);
    options.disk_count = 2;
    options.volume_count = 2;
    options.disk_bytes[1] = 44 * MIB;
    struct world *world = world_with_an_evicted_page(&options);
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH, .count = 1 };

    sim_disk_add_fault(world->disks[0], &hang);
    sim_disk_add_fault(world->disks[1], &hang);
    for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
        assert_int_equal(world_do(world, 1, VOLUME_WRITE, at, MIB, 0), 0);
    }
    world_send(world, 1, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_int_equal(sim_disk_hanging(world->disks[0]), 1);
    assert_int_equal(sim_disk_hanging(world->disks[1]), 1);
    world_send(world, 0, VOLUME_FLUSH, 0, 0, 0, false);
    sim_run_for(world->sim, NS_PER_S / 10);
    sim_store_hold(world->sim, "p", true);
    lose_with_next_flush(world, 0); /* that of a label */
    while (sim_disk_statistics(world->disks[0])->faults < 2) {
        sim_run_for(world->sim, NS_PER_S / 10);
    }
    marks_are_being_set(world);
    sim_disk_release(world->disks[0]);
    sim_run_for(world->sim, NS_PER_S / 10);
    assert_int_equal(sim_disk_hanging(world->disks[0]), 0);
    marks_are_being_set(world);
    sim_disk_reset(world->disks[1]);
    sim_run_for(world->sim, NS_PER_S / 10);
    sim_store_hold(world->sim, "p", false);
    assert_int_equal(world_drain(world), 0);
    all_8_are_lost_and_nothing_else(world);
    sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
    end(world);
}

static void
random_losses_never_show_wrong_bytes(void **state)
{
    (void)state;
    uint64_t marked = 0;

    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct world_options options = options_small(seed);
        struct random random;
        options.volume_count = 2;
        options.reactor_count = 1 + seed % 2;
        options.volume_bytes = MIB;
        struct world *world = world_start(&options);
        random_seed(&random, seed);
        for (int round = 0; round < 4; round++) {
            lose_with_next_flush(world, 0);
            for (int i = 0; i < 60; i++) {
                static const enum volume_operation kinds[] = {
                    VOLUME_WRITE, VOLUME_WRITE, VOLUME_WRITE, VOLUME_WRITE_ZEROES, VOLUME_DISCARD,
                };
                uint64_t length = (1 + random_below(&random, 40)) * 512;
                uint64_t offset = random_below(&random, (MIB - BLOCK - length) / 512) * 512;
                uint32_t flags = random_chance(&random, 1, 10) ? VOLUME_FUA : 0;
                enum volume_operation kind = kinds[random_below(&random, ARRAY_SIZE(kinds))];
                if (kind == VOLUME_DISCARD) { /* whole blocks: others are left alone */
                    offset = align_down(offset, BLOCK);
                    length = align_up(length, BLOCK);
                }
                if (random_chance(&random, 1, 20)) {
                    kind = VOLUME_FLUSH;
                    offset = length = flags = 0;
                }
                world_send(world, (uint32_t)random_below(&random, 2), kind, offset, length, flags,
                           false);
                sim_run_for(world->sim, random_below(&random, 100 * NS_PER_US));
            }
            assert_int_equal(world_drain(world), 0);
            sim_run_for(world->sim, random_below(&random, 3) * NS_PER_S);
            marked += unreadable_blocks(world, 0) + unreadable_blocks(world, 1);
        }
        sim_run_for(world->sim, LONG_ENOUGH_S * NS_PER_S);
        sim_disk_clear_faults(world->disks[0]);
        end(world);
    }
    assert_true(marked > 1000); /* else this proves little */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_blocks_are_errors_until_they_are_rewritten),
        cmocka_unit_test(the_marks_outlive_the_process_and_the_power),
        cmocka_unit_test(a_fence_outlives_starts_until_it_is_accepted),
        cmocka_unit_test(what_fua_acknowledged_is_kept),
        cmocka_unit_test(others_go_on),
        cmocka_unit_test(a_disk_that_cannot_flush_any_more),
        cmocka_unit_test(marks_are_committed_by_themselves),
        cmocka_unit_test(fua_of_a_part_of_a_block_is_kept),
        cmocka_unit_test(a_loss_that_a_label_meets_is_fenced),
        cmocka_unit_test(a_mark_is_not_taken_away_by_a_replay_without_the_disk),
        cmocka_unit_test(closing_tries_again),
        cmocka_unit_test(what_a_good_flush_covered_is_not_marked),
        cmocka_unit_test(a_loss_during_a_seal_marks_what_is_not_flushed),
        cmocka_unit_test(bytes_of_a_late_write_do_not_go_back),
        cmocka_unit_test(a_slow_store_does_not_fence_a_volume),
        cmocka_unit_test(a_good_flush_after_a_loss_covers_nothing),
        cmocka_unit_test(random_losses_never_show_wrong_bytes),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
