/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volume_model OPERATIONS [SEED]
 *
 * Random reads, writes, discards, zeroings (with and without NO_HOLE) and flushes of every size and
 * alignment down to 512 bytes on several volumes at once, in a pool that is often full; mixed with
 * volumes that grow, shrink and get or lose a reserve, disks added to the pool, and clean restarts
 * with other numbers of reactors. Every sector is compared with a naive reference of content,
 * every block, volume and the pool with one of space (space_model.h); the checker has no findings;
 * after a clean end nothing of the process may be left.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "tests/model/space_model.h"
#include "tests/sim/workload.h"

enum {
    OPERATIONS_PER_RUN = 4000,
    STEPS = 20,
    VOLUME_BYTES_MAX = 8 << 20,
};

struct model_run {
    struct world *world;
    struct space_model *space;
    struct workload workload;
    struct random random;
    uint64_t reserves[WORLD_VOLUMES_MAX];
};

/* What has happened in all runs, to see that all of it does. */
static void
tell(const struct world_statistics *all, uint64_t operations)
{
    printf("%" PRIu64 " operations agree with the reference: %" PRIu64 " writes, %" PRIu64
           " discards, %" PRIu64 " zeroings (%" PRIu64 " without a hole), %" PRIu64
           " out of space; volumes %" PRIu64 " times larger, %" PRIu64 " smaller, %" PRIu64
           " times refused; %" PRIu64 " disks added\n",
           operations, all->requests[VOLUME_WRITE], all->requests[VOLUME_DISCARD],
           all->requests[VOLUME_WRITE_ZEROES], all->no_hole, all->no_space, all->grown,
           all->shrunk, all->resizes_refused, all->disks_added);
}

static void
options_by_seed(struct world_options *options, struct random *random, uint64_t seed)
{
    *options = (struct world_options){
        .seed = seed,
        .reactor_count = 1 + (uint32_t)random_below(random, 3),
        .disk_count = 1 + (uint32_t)random_below(random, 2),
        .extent_bytes = MIB << random_below(random, 3),
        .volume_count = 1 + (uint32_t)random_below(random, 3),
        /* Not a whole number of grains, nor (sometimes) of blocks. */
        .volume_bytes = 4 * MIB + random_below(random, 64) * 512,
        .volume_bytes_max = VOLUME_BYTES_MAX,
        .map_cache_bytes = MIB,
        .journal_bytes = MIB,
    };
    /* Six extents are kept for metadata; the rest is too little for all, or plenty. */
    uint64_t slots = 6 + 2 + random_below(random, 16 * MIB / options->extent_bytes);
    for (uint32_t i = 0; i < options->disk_count; i++) {
        options->disk_bytes[i] =
            4 * MIB + div_round_up(slots, options->disk_count) * options->extent_bytes;
        options->disk_sector_bytes[i] = random_chance(random, 1, 3) ? 4096 : 512;
        options->disk_is_file[i] = random_chance(random, 1, 4);
    }
}

/* ---- what an administrator does ---- */

static int
restart(struct model_run *run)
{
    struct world *world = run->world;
    int result = world_shutdown(world);

    if (result == 0 && sim_process_blocks(world->sim) != 0) {
        fprintf(stderr, "%" PRIu64 " blocks of memory left behind\n",
                sim_process_blocks(world->sim));
        return -EUCLEAN;
    }
    world->options.reactor_count = 1 + (uint32_t)random_below(&run->random, 3);
    result = result < 0 ? result : world_boot(world);
    result = result < 0 ? result : world_attach(world);
    return result < 0 ? result : world_verify(world);
}

/* While requests are under way. */
static int
grow(struct model_run *run, uint32_t volume)
{
    struct world *world = run->world;
    uint64_t room_bytes = VOLUME_BYTES_MAX - world->sizes[volume];
    int result = workload_send(&run->workload, 8);

    result = result < 0 ? result
                        : world_resize(world, volume,
                                       world->sizes[volume] +
                                           random_below(&run->random, room_bytes / 512 + 1) * 512);
    return result < 0 ? result : world_drain(world);
}

/* Possible exactly when the tail holds nothing, and the reserve is not larger than the rest. */
static int
shrink(struct model_run *run, uint32_t volume)
{
    struct world *world = run->world;
    uint64_t blocks = world->sizes[volume] / BLOCK_BYTES;
    uint64_t size_bytes =
        (blocks / 2 + random_below(&run->random, blocks - blocks / 2)) * BLOCK_BYTES;
    int result = 0;

    if (random_chance(&run->random, 2, 3)) {
        /* Only whole blocks are sure to be gone. */
        result = world_do(world, volume, VOLUME_DISCARD, size_bytes,
                          blocks * BLOCK_BYTES - size_bytes, 0);
    }
    int expected = run->reserves[volume] > size_bytes ? -EINVAL : 0;
    result = result < 0 ? result : space_model_compare(run->space); /* settles what is unknown */
    if (expected == 0 && space_model_holds_data_from(run->space, volume, size_bytes)) {
        expected = -ENOTEMPTY;
    }
    if (result < 0) {
        return result;
    }
    result = world_resize(world, volume, size_bytes);
    if (result != expected) {
        fprintf(stderr, "made smaller: %s instead of %s\n", error_name(result),
                error_name(expected));
        return -EBADMSG;
    }
    space_model_resized(run->space, volume);
    return 0;
}

static int
reserve(struct model_run *run, uint32_t volume)
{
    struct world *world = run->world;
    uint64_t bytes = random_chance(&run->random, 1, 2) ? 0 : world->sizes[volume];
    int result = world_set_reserve(world, volume, bytes);

    if (result == 0) {
        run->reserves[volume] = bytes;
    }
    return result == -ENOSPC && bytes > 0 ? 0 : result;
}

static int
add_disk(struct model_run *run)
{
    struct world *world = run->world;
    int result;

    if (world->options.disk_count == 4) {
        return 0;
    }
    result = world_add_disk(world, world->options.disk_count, 24 * MIB);
    world->options.disk_count += result == 0;
    return result;
}

/* ---- running ---- */

/* A volume that has reserved all of itself is never told that there is no space (P7). */
static int
requests(struct model_run *run)
{
    struct world *world = run->world;
    struct world_statistics before = world->statistics;
    int result = workload_run(&run->workload, OPERATIONS_PER_RUN / STEPS);

    for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
        if (run->reserves[v] >= world->sizes[v] &&
            world->statistics.no_space_of[v] > before.no_space_of[v]) {
            fprintf(stderr, "volume %u has a reserve, and there was no space\n", v);
            result = -EBADMSG;
        }
    }
    return result;
}

static int
step(struct model_run *run)
{
    struct world *world = run->world;
    uint32_t volume = (uint32_t)random_below(&run->random, world->options.volume_count);
    int result = requests(run);

    result = result < 0 ? result : space_model_compare(run->space);
    if (result < 0 || world->failed) {
        return result < 0 ? result : -EBADMSG;
    }
    switch (random_below(&run->random, 16)) {
    case 0:
    case 1:
    case 2:
        result = restart(run);
        return result < 0 ? result : space_model_compare(run->space);
    case 3:
    case 4:
        return grow(run, volume);
    case 5:
    case 6:
    case 7:
        return shrink(run, volume);
    case 8:
    case 9:
        return reserve(run, volume);
    case 10:
        return add_disk(run);
    case 11:
    case 12:
        return world_do(world, volume, VOLUME_DISCARD, 0,
                        align_down(world->sizes[volume], BLOCK_BYTES), 0);
    default:
        return 0;
    }
}

static int
run_one(uint64_t seed, struct world_statistics *all)
{
    struct world_options options;
    struct model_run run = { 0 };

    random_seed(&run.random, seed);
    options_by_seed(&options, &run.random, seed);
    struct world *world = world_create(&options, NULL);
    run.world = world;
    run.space = space_model_create(world);
    int result = world_boot(world);
    result = result < 0 ? result : world_format(world);
    result = result < 0 ? result : world_attach(world);
    workload_init(&run.workload, world, seed);
    run.workload.queue_depth = 1 + (uint32_t)random_below(&run.random, 24);
    run.workload.length_bytes_max = 2 * MIB;
    for (uint32_t i = 0; i < STEPS && result == 0; i++) {
        result = step(&run);
    }
    result = result < 0 ? result : world_verify(world);
    for (uint32_t v = 0; v < options.volume_count && result == 0; v++) {
        result = world_do(world, v, VOLUME_FLUSH, 0, 0, 0);
    }
    result = result < 0 ? result : world_check(world);
    result = result < 0 ? result : world_shutdown(world);
    if (result < 0) {
        fprintf(stderr, "FAILED: volume_model 1 %" PRIu64 ": %s: %s\n", seed, error_name(result),
                world->last_error);
        return result;
    }
    for (uint32_t i = 0; i < sizeof(*all) / sizeof(uint64_t); i++) {
        ((uint64_t *)all)[i] += ((const uint64_t *)&world->statistics)[i];
    }
    space_model_free(run.space);
    world_free(world);
    return 0;
}

int
main(int argc, char **argv)
{
    uint64_t operations = argc > 1 ? strtoull(argv[1], NULL, 10) : OPERATIONS_PER_RUN;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    struct world_statistics all = { 0 };
    uint64_t done = 0;

    log_set_level(getenv("VOLMGR_TEST_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR - 1);
    for (; done < operations; done += OPERATIONS_PER_RUN, seed++) {
        if (run_one(seed, &all) < 0) {
            return 1;
        }
    }
    tell(&all, done);
    return 0;
}
