/* SPDX-License-Identifier: Apache-2.0 */
/* Random I/O on the volumes of a world: what hosts do, in every size and alignment. */
#ifndef TESTS_SIM_WORKLOAD_H
#define TESTS_SIM_WORKLOAD_H

#include "base/random.h"
#include "tests/sim/world.h"

struct workload {
    struct world *world;
    struct random random;
    uint32_t queue_depth;
    uint64_t hot_bytes;      /* of each volume, at several places; 0: all of it */
    uint64_t length_bytes_max;
    bool flush_seldom;
};

void workload_init(struct workload *workload, struct world *world, uint64_t seed);
/* Send `count` requests, `queue_depth` at a time, and leave the last ones in flight. */
int workload_send(struct workload *workload, uint64_t count);
/* ... and wait for all of them. 0, -ECANCELED (the simulator has stopped), ... */
int workload_run(struct workload *workload, uint64_t count);

#endif
