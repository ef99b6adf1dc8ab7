/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a pool: what its files share. pool_open.c is the list of phases; pool_load.c reads the
 * database, pool_find.c finds the disks, pool_ledger.c makes ledger and database equal,
 * pool_replay.c brings back what the volatile journals hold.
 */
#ifndef VOLMGR_POOL_OPEN_IMPL_H
#define VOLMGR_POOL_OPEN_IMPL_H

#include "volmgr/control_impl.h"

/* The SYSTEM family, decoded. Arrays in the order of their keys. */
struct pool_load {
    bool has_pool;
    bool has_commit;
    bool has_run;
    struct pool_record pool;
    uint64_t commit;
    struct run_record run;
    struct checkpoint_record checkpoints[2];
    struct byte_buffer disks;     /* struct disk_record[] */
    struct byte_buffer branches;  /* struct branch_record[] */
    struct byte_buffer positions; /* struct load_position[] */
    struct byte_buffer volumes;   /* struct volume_record[] */
    struct byte_buffer exports;   /* struct export_record[] */
};

struct load_position {
    uint64_t branch;
    struct branch_position position;
};

/* Records of the ledger that the database does not have. */
struct ledger_gap {
    struct byte_buffer batches; /* {le64 commit, le64 length, batch} back to back */
    uint64_t next_commit;       /* of the first record that was given */
    size_t position;            /* of the next batch to be applied */
    struct byte_buffer batch;
};

struct pool_replay;

struct pool_opening {
    struct machine machine;
    struct pool *pool;
    pool_opened_fn *done;
    void *context;

    struct machine_job job;
    struct error job_error;
    struct store *store;
    struct store_scan scan;
    struct pool_load load;
    struct run_record last_run;
    bool was_clean;  /* the last run ended in order */
    bool same_boot;  /* the machine has not been booted since */

    struct disk_probe *probes; /* one for each disk record, in that order */
    uint32_t probe_count;
    uint64_t locked_until_ns; /* how long a locked disk is waited for; 0: none is */
    struct machine_pause pause;
    bool looked; /* whether all is settled, once */
    struct byte_buffer candidates; /* texts of disks that may be the missing ones */
    struct disk_probe *found;      /* the same, opened to look */
    uint32_t found_count;
    struct backends_close close;
    uint32_t missing_count;
    struct byte_buffer affected; /* uint64_t[]: branches with extents on missing disks */
    bool shared_affected;        /* extents of small volumes are on missing disks */

    struct ledger_scan ledger_scan;
    struct ledger_format ledger_format;
    struct ledger_gap gap;
    struct store_commit store_commit;
    bool format_ledger;
    bool rejoin_ledger; /* a copy that is here is not current */

    struct shards_create shards;
    struct pool_replay *replay;
    struct byte_buffer unused; /* uint64_t[]: extents that hold nothing */
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
};

/* ---- pool_load.c ---- */

void pool_load_free(struct pool_load *load);
/* One piece of the SYSTEM family. 0 or -EUCLEAN with `error` naming the record. */
int pool_load_system(struct pool_load *load, const struct byte_buffer *items,
                     struct error *error);
/* All pieces are there: is it complete? */
int pool_load_check(const struct pool_load *load, const char *pool_name, struct error *error);
/* One piece of the EXTENT family into the pool's table and the slot maps. */
int pool_load_extents(struct pool_opening *opening, const struct byte_buffer *items,
                      struct error *error);
/* pool->checkpoints from the records; the extents are there. */
void pool_load_checkpoints(struct pool_opening *opening);
/* Volumes and exports from the records; the shards are there. */
int pool_load_volumes(struct pool_opening *opening, struct error *error);

/* ---- pool_find.c ---- */

/* Disk objects and probes from the records. */
int pool_find_begin(struct pool_opening *opening);
/* Labels have been read: which disks are what the records say? Counts opening->missing_count. */
void pool_find_match(struct pool_opening *opening);
/* Blocking: make the list of texts under which the missing ones may be found. */
int32_t pool_find_candidates_work(struct offload_job *job);
/* Probes, only to look, from the list. */
void pool_find_look(struct pool_opening *opening);
/* They have been read: note the new texts of disks that were recognised. */
void pool_find_recognise(struct pool_opening *opening);

/* ---- pool_ledger.c ---- */

void ledger_gap_add(struct ledger_gap *gap, uint64_t commit, const void *batch,
                    size_t batch_bytes);
/* 1: gap->batch is the next to be applied; 0: there is no more; -EUCLEAN: it is no batch. */
int ledger_gap_next(struct ledger_gap *gap, uint64_t *ret_commit);
bool ledger_gap_is_done(const struct ledger_gap *gap);
void ledger_gap_clear(struct ledger_gap *gap);

/* Start to read the ledger; MACHINE_NEXT when there is none. */
enum machine_step pool_ledger_scan(struct pool_opening *opening);
/* What it says: equal, format it, apply records to the database, or refuse. */
enum machine_step pool_ledger_judge(struct pool_opening *opening, uint32_t apply_phase,
                                    uint32_t equal_phase);
/* Apply the next record; MACHINE_NEXT without waiting when there is no more. */
enum machine_step pool_ledger_apply(struct pool_opening *opening, uint32_t apply_phase);
enum machine_step pool_ledger_format(struct pool_opening *opening);

/* ---- pool_replay.c ---- */

struct pool_replay *pool_replay_new(struct pool_opening *opening);
void pool_replay_free(struct pool_replay *replay);
/* Blocking: read the rings of the last run. */
int32_t pool_replay_read_work(struct offload_job *job);
/* The rings are read: put the records in order, drop what is committed. */
void pool_replay_sort(struct pool_replay *replay);
/* Fetch the next pages concerned; MACHINE_NEXT without waiting when there is none. */
enum machine_step pool_replay_fetch(struct pool_opening *opening);
bool pool_replay_has_more(const struct pool_replay *replay);
/* The pages are there: build and commit the piece. */
enum machine_step pool_replay_commit(struct pool_opening *opening);
/* Blocking: remove the rings of the last run. */
int32_t pool_replay_remove_work(struct offload_job *job);
/* Something of what was acknowledged and not flushed could not be brought back. */
void pool_replay_report(const struct pool_replay *replay);

#endif
