/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manager on a simulated machine, for tests of its control plane. Each bench_*() call of a
 * control operation runs the simulator until it has completed and returns its result; -ECANCELED
 * when sim_stop_at() struck: then the process must be killed.
 */
#ifndef TESTS_UNIT_VOLMGR_HARNESS_H
#define TESTS_UNIT_VOLMGR_HARNESS_H

#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/store_sim.h"
#include "volmgr/manager.h"

/* Must stand before cmocka.h, which wants them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum {
    BENCH_REACTORS_MAX = 4,
    BENCH_POOLS_MAX = 4,
};

struct bench {
    struct sim *sim;
    uint32_t reactor_count;
    bool accept_loss;
    uint8_t host; /* which host this is */
    bool made_up; /* the database was not written by the manager: not checked */
    uint64_t journal_bytes;
    const char *state_directory; /* of files on the simulated machine; NULL: nothing is kept */
    const char *pool_names[BENCH_POOLS_MAX]; /* whose stores are looked for at the start */
    const char *candidates[8];               /* what the search for moved disks offers */
    struct reactor *reactors[BENCH_REACTORS_MAX];
    struct manager *manager;
    struct error error; /* of the last operation */
    struct store *store;   /* the one that was opened last */
    uint64_t results_kept; /* results of operations that a shutdown ended, not freed by then */
};

/* Any control operation: name, which is also its struct, and manager_NAME() starts it. */
#define BENCH_OPERATIONS(X)                                                                        \
    X(pool_create)                                                                                 \
    X(pool_add)                                                                                    \
    X(pool_delete)                                                                                 \
    X(pool_import)                                                                                 \
    X(pool_query)                                                                                  \
    X(volume_create)                                                                               \
    X(volume_delete)                                                                               \
    X(volume_resize)                                                                               \
    X(volume_rename)                                                                               \
    X(volume_set_reserve)                                                                          \
    X(volume_accept_loss)                                                                          \
    X(volume_query)                                                                                \
    X(snapshot_create)                                                                             \
    X(snapshot_delete)                                                                             \
    X(snapshot_query)                                                                              \
    X(snapshot_set_expiry)                                                                         \
    X(volume_clone)                                                                                \
    X(volume_rollback)                                                                             \
    X(volume_diff)                                                                                 \
    X(policy_set)                                                                                  \
    X(policy_query)                                                                                \
    X(export_create)                                                                               \
    X(export_delete)                                                                               \
    X(export_query)                                                                                \
    X(session_query)                                                                               \
    X(session_drop)                                                                                \
    X(block_query)                                                                                 \
    X(event_query)                                                                                 \
    X(job_query)                                                                                   \
    X(pool_check)                                                                                  \
    X(check_query)

#define BENCH_PROTOTYPE(name)                                                                      \
    int bench_##name(struct bench *bench, struct name *operation);                                 \
    void bench_##name##_start(struct bench *bench, struct name *operation, bool *ret_done);
BENCH_OPERATIONS(BENCH_PROTOTYPE)
#undef BENCH_PROTOTYPE

struct bench *bench_create(uint64_t seed, uint32_t reactor_count);
void bench_free(struct bench *bench);
struct sim_disk *bench_disk(struct bench *bench, const char *path, uint64_t size_bytes);

/* Start the process and open all pools. */
int bench_boot(struct bench *bench);
/* The same, while sim_stop_at() may strike: then -ECANCELED, and the process must be killed. */
int bench_boot_until_stopped(struct bench *bench);
/* What lives on tmpfs is lost although the machine was not booted. No process. */
void bench_lose_volatile_memory(struct bench *bench);
/* How many pieces of memory outlive the process now. */
uint32_t bench_volatile_count(const struct bench *bench);
/* No process: what the checker finds wrong in the databases, each printed. */
uint32_t bench_check_databases(struct bench *bench);
/* No process: commit to the database of pool "p". The ledger does not know of it. */
void bench_poke_database(struct bench *bench, const struct byte_buffer *batch);
/* No process: all records of a family of pool "p". */
void bench_scan_database(struct bench *bench, enum store_family family,
                         struct byte_buffer *ret_items);
/* Clean; nothing is left of the process, and the checker finds nothing wrong: asserted. */
int bench_shutdown(struct bench *bench);
/* Only what the manager answers; the process goes on, and is to be killed. */
int bench_shutdown_answer(struct bench *bench);
void bench_kill(struct bench *bench);
void bench_power_cut(struct bench *bench, enum sim_cut_mode mode);

/* Run until *flag. 0, or what sim_run_until() says. */
int bench_wait(struct bench *bench, const bool *flag);
/* Run until the function has been called on this reactor. */
void bench_run_on(struct bench *bench, struct reactor *reactor, void (*function)(void *argument),
                  void *argument);
/* Let `seconds` of virtual time pass. */
void bench_pass_time(struct bench *bench, uint32_t seconds);

/* Pool `name` on the paths, NULL-terminated. */
int bench_make_pool(struct bench *bench, const char *name, const char *const *paths, bool force);
int bench_make_volume(struct bench *bench, const char *path, uint64_t size_bytes);
/* Export by nbd under POOL/VOL. */
int bench_make_export(struct bench *bench, const char *path);
int bench_delete_volume(struct bench *bench, const char *path);
int bench_resize(struct bench *bench, const char *path, uint64_t size_bytes);

/* What the machine's clock says. */
uint64_t bench_realtime_ns(struct bench *bench);
/* An operation that was started and has not ended: the process is about to be killed. */
void bench_forget(struct control *control);
/* "p/v" or "p/v@s" */
void bench_set_name(struct volume_name *name, const char *path);
/* "p/v@s"; a group of several with bench_snapshot_create(). */
int bench_make_snapshot(struct bench *bench, const char *path);
int bench_drop_snapshot(struct bench *bench, const char *path);
int bench_make_clone(struct bench *bench, const char *from, const char *name);
int bench_roll_back(struct bench *bench, const char *path);
/* Export it read-only, if that is not done, and hold it. */
struct volume *bench_hold_snapshot(struct bench *bench, const char *path);
/* One snapshot's. False: there is none. */
bool bench_snapshot_report(struct bench *bench, const char *path,
                           struct snapshot_report *ret_report);

/* From reactor `from`; with 0 the volume is held until bench_release(). */
int bench_lookup(struct bench *bench, uint32_t from, const char *name,
                 struct export_lookup *ret_lookup);
void bench_release(struct bench *bench, struct volume *volume);

int bench_attach(struct bench *bench, struct volume *volume, struct volume_session *session);
void bench_detach(struct bench *bench, struct volume_session *session);

/* One request, waited for: its status. `data` for READ and WRITE. */
int bench_io(struct bench *bench, struct volume *volume, enum volume_operation operation,
             uint64_t offset_bytes, void *data, uint64_t length_bytes);
/* The same in two steps; `data` must live until the second one. */
struct bench_io_call;
struct bench_io_call *bench_io_begin(struct bench *bench, struct volume *volume,
                                     enum volume_operation operation, uint64_t offset_bytes,
                                     void *data, uint64_t length_bytes);
int bench_io_end(struct bench *bench, struct bench_io_call *call);
/* Write `length_bytes` of a pattern, or check for it. */
int bench_fill(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
               uint64_t length_bytes, uint8_t seed);
bool bench_check(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
                 uint64_t length_bytes, uint8_t seed);

/* Damage the newest (or the other) checkpoint on all disks. False: there is none. No process. */
bool bench_damage_checkpoint(struct bench *bench, const char *const *paths, bool newest);

/* The state of a pool; its reason goes to bench->error.message. */
enum pool_state bench_pool_state(struct bench *bench, const char *name);
/* One pool's report, without its disks. */
struct pool_report bench_pool_report(struct bench *bench, const char *name);
/* One volume's. False: there is none. */
bool bench_volume_report(struct bench *bench, const char *path, struct volume_report *ret_report);
/* Put a batch into the open store behind the manager's back. */
void bench_commit(struct bench *bench, const struct byte_buffer *batch);
/* How many events of this name there have been since the start. */
uint32_t bench_events(struct bench *bench, const char *name);
/* Until no job runs. */
void bench_wait_for_jobs(struct bench *bench);

#endif
