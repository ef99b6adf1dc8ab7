/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recording of a run: everything that happened to disks and stores, from which the state after
 * a power cut at any event can be made without running the workload again.
 *
 * Events have the numbers of sim_event_count(), counted from the start of the recording. Making the
 * images in ascending order is cheap (the log keeps its place); going back starts from the
 * beginning. A recording ends at a power cut.
 */
#ifndef TESTS_SIM_SIM_LOG_H
#define TESTS_SIM_SIM_LOG_H

#include <stdint.h>

#include "tests/sim/sim.h"

struct sim_log;

/* Begin to record. The log belongs to the caller; it may outlive the simulator. */
struct sim_log *sim_log_start(struct sim *sim);
/* End the recording; without effect when it has ended. */
void sim_log_stop(struct sim *sim);
/* The recording must have been stopped, or the simulator destroyed. */
void sim_log_free(struct sim_log *log);

/* Events recorded so far: `n` of the calls below is 0 .. this. */
uint64_t sim_log_length(const struct sim_log *log);
/* sim_undecided() after event n. */
uint32_t sim_log_undecided(struct sim_log *log, uint64_t n);
/* Commits beyond the last durable one, of all stores, after event n. */
uint32_t sim_log_undecided_commits(struct sim_log *log, uint64_t n);
/*
 * Give `target`, another simulator on which nothing has run yet, the disks and stores (same paths,
 * names and properties) with the content that sim_power_cut(sim, cut) right after event n would
 * have left. -ERANGE: n is greater than the length.
 */
int sim_log_materialise(struct sim_log *log, uint64_t n, const struct sim_cut *cut,
                        struct sim *target);

#endif
