/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The deterministic simulator: one seed is one run.
 *
 * THEORY OF OPERATION
 *
 * A `struct sim` is a machine: a clock that only the simulator moves, disks, sockets, metadata
 * stores, memory that outlives a process. Product code runs on it unchanged, through the platform
 * (platform_sim.h) and the store (store_sim.h). Reactors register themselves when they are created
 * on the simulated platform; the simulator runs them on the calling thread, one pass at a time, in
 * an order that the seed decides, and moves the clock to the next event when none has work.
 *
 * The *process* is everything that product code allocated and opened. It can end in three ways:
 * by its own code (the test destroys what it created), by sim_kill() (SIGKILL: what it submitted
 * may still happen, caches and volatile memory survive), or by sim_power_cut() (what was not
 * durable is kept, lost or torn). After the last two nothing that points into the process may be
 * used; its memory has been freed. For that, tests call product code between sim_process_enter()
 * and sim_process_leave(); the simulator does so around every pass. See sim_memory.h.
 *
 * Invariants
 *  S1  The same seed and the same workload give the same sequence of events, hence the same
 *      sim_trace_hash(). Nothing depends on addresses, on the time of day, or on the host.
 *  S2  Completions are handed to the reactor that submitted, from platform_ops.engine_poll().
 *  S3  Each pass moves the clock a little, so whoever polls for ever meets his time limit.
 *  S4  After sim_stop_at() has struck, nothing that the process does has an effect any more; what
 *      it still has in flight fails with -EIO, so that loops that wait inside a pass end.
 *
 * All functions: only from the thread that created the simulator, not from inside a pass unless
 * they say so.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim;
struct platform;

struct sim_options {
    uint64_t seed;
    uint64_t pass_cost_ns;      /* virtual time that a pass takes; 0: 500 */
    bool allow_payload_changes; /* otherwise the test aborts when a buffer in flight changes */
    bool verbose;               /* every event as a line on standard error */
};

/* What a DISCARD leaves in the range. */
enum sim_discard {
    SIM_DISCARD_BY_SEED, /* each discard one of the others: the content is undefined */
    SIM_DISCARD_ZEROES,
    SIM_DISCARD_NOTHING, /* the old bytes */
    SIM_DISCARD_SCRAMBLES,
};

/* How a power cut treats what is not durable. */
enum sim_cut_mode {
    SIM_CUT_BY_SEED, /* one of several styles, see sim_model.h */
    SIM_CUT_LOSE_ALL,
    SIM_CUT_KEEP_ALL,
    SIM_CUT_BY_MASK, /* bit i: keep the i-th undecided operation whole; see sim_undecided() */
};

struct sim_cut {
    enum sim_cut_mode mode;
    uint64_t seed;
    uint64_t mask;          /* SIM_CUT_BY_MASK */
    uint32_t store_commits; /* SIM_CUT_BY_MASK: commits kept beyond the last durable one */
    uint64_t store_older;   /* from a recording: each store is this many commits older than what
                               the cut leaves (a restored backup) */
};

/* ---- life ---- */

/* Never fails (aborts when out of memory). */
struct sim *sim_create(const struct sim_options *options);
/*
 * Frees the machine. Engines, files, sockets and stores should have been closed by then; what the
 * process left allocated is reported by the leak check.
 */
void sim_destroy(struct sim *sim);

/* The io/platform.h of this machine. It changes with no event of the machine. */
struct platform *sim_platform(struct sim *sim);

/* ---- running ---- */

typedef bool sim_predicate_fn(void *context);

/*
 * One step: a pass of one reactor that has work, or else the clock moves to the next event or
 * timer. False: nothing is left that could ever happen, or the simulation has stopped.
 */
bool sim_step(struct sim *sim);
/*
 * Step until `predicate` holds. 0; -ETIMEDOUT after limit_ns of virtual time; -EDEADLK when nothing
 * is left that could happen; -ECANCELED when sim_stop_at() has struck.
 */
int sim_run_until(struct sim *sim, sim_predicate_fn *predicate, void *context, uint64_t limit_ns);
/* Step for duration_ns of virtual time. 0 or -ECANCELED. */
int sim_run_for(struct sim *sim, uint64_t duration_ns);
/*
 * Step until no reactor has work and no disk, store or socket event is due, whatever timers are
 * armed and whatever hangs. Results as sim_run_until() (never -EDEADLK).
 */
int sim_quiesce(struct sim *sim, uint64_t limit_ns);

/* Virtual time since the machine was created; goes on through power cuts. Also inside a pass. */
uint64_t sim_now_ns(const struct sim *sim);
/* What CLOCK_REALTIME says from now on: clocks jump. Also inside a pass. */
void sim_set_realtime_ns(struct sim *sim, uint64_t realtime_ns);
/* A hash of all that has happened so far. */
uint64_t sim_trace_hash(const struct sim *sim);
/* For choices of the test itself, from the seed; its own stream. Also inside a pass. */
uint64_t sim_random(struct sim *sim);
/* Uniform in [0, limit). */
uint64_t sim_random_below(struct sim *sim, uint64_t limit);

/* ---- the process ---- */

/* What is allocated belongs to the process until the matching sim_process_leave(). Nests. */
void sim_process_enter(struct sim *sim);
void sim_process_leave(struct sim *sim);
/*
 * The opposite, for code of the test that product code calls back inside a pass: what is allocated
 * between belongs to the test.
 */
void sim_outside_enter(struct sim *sim);
void sim_outside_leave(struct sim *sim);
/* Blocks that the process holds: 0 after a clean shutdown. */
uint64_t sim_process_blocks(const struct sim *sim);

/*
 * SIGKILL. Memory, engines, files, sockets and store handles of the process are gone. Operations in
 * flight on disks are dropped, or complete later, by seed; a lock is held until they have
 * (sim_disk_is_locked()). What completed, and volatile memory, survives.
 */
void sim_kill(struct sim *sim);
/*
 * The power goes and comes back: as sim_kill(), but nothing in flight goes on, each disk and store
 * keeps what `cut` leaves, volatile memory is gone, the monotonic clock starts anew and the boot id
 * changes. Test clients see a reset. Fault rules of disks stay.
 */
void sim_power_cut(struct sim *sim, const struct sim_cut *cut);

/*
 * Events are submissions and completions of disk operations and commits. Stop as soon as the n-th
 * has happened (S4); n == 0: never. Then call sim_kill() or sim_power_cut(), which act as of that
 * very event, volatile memory included.
 */
void sim_stop_at(struct sim *sim, uint64_t event_number);
bool sim_has_stopped(const struct sim *sim);
/* Events so far. Also inside a pass. */
uint64_t sim_event_count(const struct sim *sim);
/* Operations on disks about which a power cut would have a choice now. */
uint32_t sim_undecided(const struct sim *sim);

#endif
