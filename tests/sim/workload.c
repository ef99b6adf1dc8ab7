/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/workload.h"

#include <errno.h>

#include "base/assert.h"
#include "base/util.h"

void
workload_init(struct workload *workload, struct world *world, uint64_t seed)
{
    *workload = (struct workload){
        .world = world,
        .queue_depth = 8,
        .length_bytes_max = 256 * KIB,
    };
    random_seed(&workload->random, seed);
}

static uint64_t
random_length(struct workload *workload, uint64_t unit)
{
    uint64_t bytes;

    switch (random_below(&workload->random, 8)) {
    case 0:
        bytes = unit;
        break;
    case 1:
    case 2:
    case 3:
        bytes = 4 * KIB;
        break;
    case 4:
    case 5:
        bytes = unit * (1 + random_below(&workload->random, 32 * KIB / unit));
        break;
    case 6:
        bytes = 64 * KIB;
        break;
    default:
        bytes = unit * (1 + random_below(&workload->random, workload->length_bytes_max / unit));
    }
    return MAX(align_down(MIN(bytes, workload->length_bytes_max), unit), unit);
}

static uint64_t
random_offset(struct workload *workload, uint64_t size_bytes, uint64_t length_bytes, uint64_t unit)
{
    uint64_t range = size_bytes - length_bytes + 1;
    uint64_t offset;

    if (workload->hot_bytes != 0 && random_chance(&workload->random, 7, 8)) {
        /* A few hot places, so that blocks are written again and again. */
        uint64_t place = random_below(&workload->random, 3) * (size_bytes / 3);
        offset = place + random_below(&workload->random, workload->hot_bytes);
        offset = MIN(offset, range - 1);
    } else {
        offset = random_below(&workload->random, range);
    }
    return align_down(offset, unit);
}

static void
send_one(struct workload *workload)
{
    struct world *world = workload->world;
    uint32_t volume = (uint32_t)random_below(&workload->random, world->options.volume_count);
    uint64_t unit = random_chance(&workload->random, 1, 3) ? 512 : 4 * KIB;
    uint64_t choice = random_below(&workload->random, 100);
    enum volume_operation operation = VOLUME_WRITE;
    uint32_t flags = random_chance(&workload->random, 1, 12) ? VOLUME_FUA : 0;

    if (choice < 10) {
        operation = VOLUME_READ;
        flags = 0;
    } else if (choice < 20) {
        operation = VOLUME_DISCARD;
    } else if (choice < 28) {
        operation = VOLUME_WRITE_ZEROES;
        flags |= random_chance(&workload->random, 1, 3) ? VOLUME_NO_HOLE : 0;
    } else if (choice < (workload->flush_seldom ? 29 : 38)) {
        world_send(world, volume, VOLUME_FLUSH, 0, 0, 0, false);
        return;
    }
    uint64_t length =
        MIN(random_length(workload, unit), align_down(world->sizes[volume], unit));
    uint64_t offset = random_offset(workload, world->sizes[volume], length, unit);
    world_send(world, volume, operation, offset, length, flags, false);
}

static bool
below_queue_depth(void *context)
{
    struct workload *workload = context;
    return workload->world->in_flight < workload->queue_depth;
}

int
workload_send(struct workload *workload, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        send_one(workload);
        int result = sim_run_until(workload->world->sim, below_queue_depth, workload,
                                   600 * NS_PER_S);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

int
workload_run(struct workload *workload, uint64_t count)
{
    int result = workload_send(workload, count);

    return result < 0 ? result : world_drain(workload->world);
}
