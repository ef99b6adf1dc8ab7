/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated metadata store: metadata/store.h over an ordered map in memory.
 *
 * THEORY OF OPERATION
 *
 * The map is a persistent tree: each commit makes a new root that shares what it did not change, so
 * the state after every commit of the recent past is at hand, and "what survives" is the choice of
 * a root. A commit is applied at its submission, becomes visible to reads when it completes, and
 * durable when a commit with sync completes that is not before it.
 *
 * Invariants
 *  T1  What survives a power cut is the state after some commit, not before the last one that is
 *      durable, not after the last one submitted.
 *  T2  What survives the death of the process alone is the state after some commit, not before the
 *      last one that completed.
 *  T3  Commits complete in the order of submission; after one that failed, all fail with -EIO until
 *      the store is opened again. Whether the failed one survives is undecided (an error of the
 *      write-ahead log leaves it in doubt).
 *
 * The name stands for a directory; what is behind it lives as long as the simulator.
 */
#ifndef TESTS_SIM_STORE_SIM_H
#define TESTS_SIM_STORE_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "metadata/store.h"
#include "tests/sim/sim.h"

/*
 * Open the store `name`: with `create` it must not exist, otherwise it must. 0, -EEXIST, -ENOENT,
 * -EUCLEAN (sim_store_set_damaged()), -EBUSY (open already). As store_rocksdb_open().
 */
int store_sim_open(struct sim *sim, const char *name, bool create, store_merge_fn *merge,
                   struct store **ret_store, struct error *error);

enum sim_store_call {
    SIM_STORE_GET,
    SIM_STORE_SCAN,
    SIM_STORE_COMMIT,
    SIM_STORE_CALL_COUNT,
};

/* After `skip` more calls of this kind, `count` (0: all) fail with `error` (positive errno). */
void sim_store_fail(struct sim *sim, const char *name, enum sim_store_call call, uint64_t skip,
                    uint64_t count, int error);
void sim_store_clear_faults(struct sim *sim, const char *name);
/* Calls take so long: each between the two. Defaults: 5 us to 50 us, ten times that with sync. */
void sim_store_set_latency(struct sim *sim, const char *name, uint64_t ns_min, uint64_t ns_max);
/* While held, nothing completes. */
void sim_store_hold(struct sim *sim, const char *name, bool held);

/* The directory is lost. Not while open. */
void sim_store_lose(struct sim *sim, const char *name);
/*
 * The directory comes back in the state of up to `commits` commits ago (a restored backup). Returns
 * how many commits were undone: the last 4096 are kept. Not while open.
 */
uint64_t sim_store_roll_back(struct sim *sim, const char *name, uint64_t commits);
/* While damaged, opening fails with -EUCLEAN. */
void sim_store_set_damaged(struct sim *sim, const char *name, bool damaged);
bool sim_store_exists(struct sim *sim, const char *name);
/* Equal for equal content, of what reads see. */
uint64_t sim_store_content_hash(struct sim *sim, const char *name);
/* Calls so far, with their bytes of batch for commits. */
uint64_t sim_store_calls(struct sim *sim, const char *name, enum sim_store_call call);

#endif
