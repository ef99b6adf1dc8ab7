/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole volume manager on a simulated machine, with oracles for its volumes.
 *
 * The world owns the machine (struct sim), its disks, and, while it runs, the process: reactors and
 * a manager. Calls here drive the simulator until what they ask for has happened; they return what
 * the manager answered. Volumes are named v0, v1 ... in pool p; disks are sim:d0, sim:d1 ...
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "tests/sim/oracle.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/store_sim.h"
#include "volmgr/manager.h"

enum {
    WORLD_DISKS_MAX = 8,
    WORLD_VOLUMES_MAX = 8,
    WORLD_REACTORS_MAX = 4,
};

struct world_options {
    uint64_t seed;
    uint32_t reactor_count;
    uint32_t disk_count;
    uint64_t disk_bytes[WORLD_DISKS_MAX];
    uint32_t disk_sector_bytes[WORLD_DISKS_MAX]; /* 0: 512 */
    uint64_t extent_bytes;
    uint32_t volume_count;
    uint64_t volume_bytes;
    uint64_t volume_bytes_max; /* that resizing will reach; 0: volume_bytes */
    uint64_t reserve_bytes[WORLD_VOLUMES_MAX]; /* when created */
    uint64_t map_cache_bytes;
    uint64_t journal_bytes;
    uint64_t disk_timeout_ns;    /* 0: default */
    uint64_t request_timeout_ns; /* 0: default */
    uint8_t disk_tier[WORLD_DISKS_MAX];
    bool disk_is_file[WORLD_DISKS_MAX]; /* a sparse file rather than a block device */
    bool volume_by_tier;                    /* volume n lives on tier n, otherwise: */
    uint8_t volume_tier[WORLD_VOLUMES_MAX]; /* 0: anywhere; n: tier n */
    bool accept_loss;    /* at boot: volumes whose unflushed writes were lost serve again */
};

/* What a test has asked for, and how it ended. */
struct world_statistics {
    uint64_t requests[VOLUME_OPERATION_COUNT];
    uint64_t fua;
    uint64_t no_hole;
    uint64_t no_space; /* answers */
    uint64_t no_space_of[WORLD_VOLUMES_MAX];
    uint64_t failed;   /* answers with any error */
    uint64_t grown;
    uint64_t shrunk;
    uint64_t resizes_refused;
    uint64_t disks_added;
};

struct world_io;

struct world {
    struct world_options options;
    struct sim *sim;
    struct sim_disk *disks[WORLD_DISKS_MAX];
    struct oracle *oracles[WORLD_VOLUMES_MAX];
    uint64_t sizes[WORLD_VOLUMES_MAX];
    uint64_t sizes_asked[WORLD_VOLUMES_MAX]; /* by a change that a death interrupted; 0: none */
    struct world_statistics statistics;
    /* The process; NULL while there is none. */
    struct reactor *reactors[WORLD_REACTORS_MAX];
    struct manager *manager;
    struct volume *volumes[WORLD_VOLUMES_MAX];
    struct list ios;     /* struct world_io in flight */
    uint32_t in_flight;
    char last_error[ERROR_MESSAGE_SIZE];
    bool failed; /* an oracle has complained */
    /*
     * Verifying: blocks that cannot be read are counted and left out, rather than a failure.
     * Whoever sets it knows of a loss that the product had to report.
     */
    bool allow_unreadable;
    uint64_t unreadable[WORLD_VOLUMES_MAX]; /* blocks, by the last verification */
    uint64_t next_id;
    /* NULL, or called with each request when it is submitted, and when it is answered (replied). */
    void (*told)(void *context, const struct world_io *io);
    void *told_context;
    struct world_record *record; /* what the oracles were told, while recording */
};

/* One request of a test. */
struct world_io {
    struct message message;
    struct list link;
    struct world *world;
    uint64_t id;
    uint32_t volume;
    struct volume_request request;
    enum volume_operation operation;
    uint32_t flags;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    /* What it changes: of a discard, only the blocks that it covers as a whole. */
    uint64_t change_offset_bytes;
    uint64_t change_length_bytes;
    uint8_t *data;
    struct iovec iov;
    struct oracle_write *write;
    uint64_t token; /* FLUSH and READ */
    bool replied;
    bool released;
    int status;
    bool keep; /* the caller looks at it and frees it by world_io_free() */
};

/*
 * The machine and its disks; no process yet. `sim`: one that has its disks already (an image),
 * which the world owns from now on, or NULL.
 */
struct world *world_create(const struct world_options *options, struct sim *sim);
void world_free(struct world *world);

/* Start the process: reactors, manager, all pools. 0, or what starting answered. */
int world_boot(struct world *world);
/* Create pool p, volumes and their exports; afterwards, and after a boot, world_attach(). */
int world_format(struct world *world);
/* Look the volumes up, so that I/O can be sent. 0; -ENODEV when the pool does not serve. */
int world_attach(struct world *world);
/* Clean shutdown. */
int world_shutdown(struct world *world);
/* The process is gone; see sim_kill() and sim_power_cut(). Oracles are told. */
void world_kill(struct world *world);
void world_power_cut(struct world *world, const struct sim_cut *cut);

/* Send; answers arrive while the simulator runs. NULL data for a write: filled by the oracle. */
struct world_io *world_send(struct world *world, uint32_t volume, enum volume_operation operation,
                            uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags,
                            bool keep);
void world_io_free(struct world_io *io);
/* Run until nothing of the test is in flight. 0, -ETIMEDOUT, -ECANCELED (sim_stop_at). */
int world_drain(struct world *world);
/* Send and wait; the status. */
int world_do(struct world *world, uint32_t volume, enum volume_operation operation,
             uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags);
/*
 * Read every volume and ask the oracles: all that was ever written, all that the volume's map
 * knows, and samples of the rest. 0, -EBADMSG, or what reading answered.
 */
int world_verify_recovered(struct world *world);
/* The same against what a running volume must show. */
int world_verify(struct world *world);
/*
 * Which units of a volume hold data by its own report, one byte each. 0, or what asking for it
 * answered.
 */
int world_allocated(struct world *world, uint32_t volume, uint32_t unit_bytes,
                    uint8_t *ret_allocated);

/*
 * Recording: together with sim_log, the oracles as they were at any event of a run, so that an
 * image of the disks after that event can be checked. Start both at the same time, with nothing in
 * flight.
 */
struct world_record;
struct world_replay;
struct world_record *world_record_start(struct world *world);
void world_record_free(struct world_record *record);
/* `oracles`: copies of the world's, made when the recording started. */
struct world_replay *world_replay_start(const struct world_record *record,
                                        struct oracle *const *oracles);
/* All that was told up to (and while no further event had happened after) `event`. Ascending. */
void world_replay_to(struct world_replay *replay, uint64_t event);
/* Give `world` copies of the oracles as they are now, told of a power cut. */
void world_replay_oracles(const struct world_replay *replay, struct world *world);
void world_replay_free(struct world_replay *replay);

/* ---- control operations, waiting; see manager.h ---- */
/* With `size_bytes` below the present size: nothing may be in flight. */
int world_resize(struct world *world, uint32_t volume, uint64_t size_bytes);
int world_set_reserve(struct world *world, uint32_t volume, uint64_t reserve_bytes);
int world_add_disk(struct world *world, uint32_t index, uint64_t size_bytes);
/*
 * `volctl pool import` with the first disks, after a boot without the database; `force`: with one
 * that did not serve.
 */
int world_import(struct world *world, uint32_t disk_count, bool force);
/* Whether the pool serves; false after a boot that found its database wanting. */
bool world_serves(struct world *world);
/*
 * metadata/check.h over the running pool, and whether the counters of volumes and pool agree with
 * the maps. Nothing is in flight. 0; -EUCLEAN when there are findings (they are printed).
 */
int world_check(struct world *world);
int world_query_volume(struct world *world, uint32_t volume, struct volume_report *ret_report);
int world_query_pool(struct world *world, struct pool_report *ret_report);
/* Memory of the map cache of the reactor that owns this volume. */
uint64_t world_cache_bytes(const struct world *world, uint32_t volume);

#endif
