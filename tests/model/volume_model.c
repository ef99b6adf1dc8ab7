/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volume_model OPERATIONS [SEED]
 *
 * Random reads, writes, discards, zeroings and flushes of every size and alignment on several
 * volumes at once, mixed with growing volumes, adding disks to a pool that has become full, and
 * clean restarts with other numbers of reactors. Every sector is compared with a naive reference;
 * after a clean end nothing of the process may be left.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "tests/sim/workload.h"

enum {
    OPERATIONS_PER_RUN = 4000,
    STEPS = 20,
};

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
        .map_cache_bytes = MIB,
        .journal_bytes = MIB,
    };
    for (uint32_t i = 0; i < options->disk_count; i++) {
        options->disk_bytes[i] = 40 * MIB + random_below(random, 64) * MIB;
        options->disk_sector_bytes[i] = random_chance(random, 1, 3) ? 4096 : 512;
    }
}

static int
restart(struct world *world, struct random *random)
{
    int result = world_shutdown(world);

    if (result == 0 && sim_process_blocks(world->sim) != 0) {
        fprintf(stderr, "%" PRIu64 " blocks of memory left behind\n",
                sim_process_blocks(world->sim));
        return -EUCLEAN;
    }
    world->options.reactor_count = 1 + (uint32_t)random_below(random, 3);
    result = result < 0 ? result : world_boot(world);
    result = result < 0 ? result : world_attach(world);
    return result < 0 ? result : world_verify(world);
}

static int
step(struct world *world, struct workload *workload, struct random *random)
{
    int result = workload_run(workload, OPERATIONS_PER_RUN / STEPS);

    if (result == 0 && random_chance(random, 1, 4)) {
        result = restart(world, random);
    }
    if (result == 0 && random_chance(random, 1, 8) && world->options.disk_count < 4) {
        result = world_add_disk(world, world->options.disk_count, 24 * MIB);
        world->options.disk_count++;
    }
    if (result == 0 && world->failed) {
        result = -EBADMSG;
    }
    return result;
}

static int
run(uint64_t seed)
{
    struct world_options options;
    struct workload workload;
    struct random random;

    random_seed(&random, seed);
    options_by_seed(&options, &random, seed);
    struct world *world = world_create(&options, NULL);
    int result = world_boot(world);
    result = result < 0 ? result : world_format(world);
    result = result < 0 ? result : world_attach(world);
    workload_init(&workload, world, seed);
    workload.queue_depth = 1 + (uint32_t)random_below(&random, 24);
    workload.length_bytes_max = 2 * MIB;
    for (uint32_t i = 0; i < STEPS && result == 0; i++) {
        result = step(world, &workload, &random);
    }
    result = result < 0 ? result : world_verify(world);
    result = result < 0 ? result : world_shutdown(world);
    if (result < 0) {
        fprintf(stderr, "FAILED: seed %" PRIu64 ": %s: %s\n", seed, error_name(result),
                world->last_error);
        return result;
    }
    world_free(world);
    return 0;
}

int
main(int argc, char **argv)
{
    uint64_t operations = argc > 1 ? strtoull(argv[1], NULL, 10) : OPERATIONS_PER_RUN;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t done = 0;

    log_set_level(getenv("VOLMGR_TEST_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR - 1);
    for (; done < operations; done += OPERATIONS_PER_RUN, seed++) {
        if (run(seed) < 0) {
            return 1;
        }
    }
    printf("%" PRIu64 " operations agree with the reference\n", done);
    return 0;
}
