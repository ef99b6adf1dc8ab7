/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a pool: what its files share. pool_open.c is the list of phases; pool_load.c reads the
 * database, pool_find.c finds the disks, pool_ledger.c makes ledger and database equal,
 * pool_replay.c brings back what the volatile journals hold.
 */
#ifndef VOLMGR_POOL_OPEN_IMPL_H
#define VOLMGR_POOL_OPEN_IMPL_H

#include "volmgr/control_impl.h"

#define POOL_OPEN_PHASES(X)                                                                        \
    X(OPEN_STORE)                                                                                  \
    X(SCAN_SYSTEM)                                                                                 \
    X(LOAD_SYSTEM)                                                                                 \
    X(OPEN_DISKS)                                                                                  \
    X(READ_LABELS)                                                                                 \
    X(MATCH_DISKS)                                                                                 \
    X(LIST_CANDIDATES)                                                                             \
    X(LOOK_AT_CANDIDATES)                                                                          \
    X(READ_CANDIDATES)                                                                             \
    X(RECOGNISE)                                                                                   \
    X(REOPEN_DISKS)                                                                                \
    X(REREAD_LABELS)                                                                               \
    X(MATCH_AGAIN)                                                                                 \
    X(RELEASE_STRANGERS)                                                                           \
    X(WATCH)                                                                                       \
    X(WATCH_AGAIN)                                                                                 \
    X(RAISE_INCARNATION)                                                                           \
    X(SCAN_LEDGER)                                                                                 \
    X(JUDGE_LEDGER)                                                                                \
    X(APPLY_LEDGER)                                                                                \
    X(CLOSE_FOR_RELOAD)                                                                            \
    X(RELOAD)                                                                                      \
    X(FORMAT_LEDGER)                                                                               \
    X(SCAN_EXTENTS)                                                                                \
    X(LOAD_EXTENTS)                                                                                \
    X(CREATE_SHARDS)                                                                               \
    X(MAKE_VOLUMES)                                                                                \
    X(FLUSH_DISKS)                                                                                 \
    X(FENCE_LOST_WRITES)                                                                           \
    X(LEAVE_OUT)                                                                                   \
    X(READ_JOURNALS)                                                                               \
    X(SORT_RECORDS)                                                                                \
    X(FETCH_PAGES)                                                                                 \
    X(COMMIT_PAGES)                                                                                \
    X(PAGES_COMMITTED)                                                                             \
    X(MAKE_ROOM)                                                                                   \
    X(ROOM_SETTLE)                                                                                 \
    X(ROOM_FORMATTED)                                                                              \
    X(REJOIN_LEDGER)                                                                               \
    X(REJOIN_AGAIN)                                                                                \
    X(REJOIN_SETTLE)                                                                               \
    X(REJOIN_FORMATTED)                                                                            \
    X(WRITE_LABELS)                                                                                \
    X(COMMIT_RUN)                                                                                  \
    X(REMOVE_JOURNALS)                                                                             \
    X(ANCHOR)                                                                                      \
    X(ANCHOR_SETTLE)                                                                               \
    X(SERVE)                                                                                       \
    X(SUCCEED)                                                                                     \
    X(UNDO_SETTLE)                                                                                 \
    X(UNDO)                                                                                        \
    X(UNDO_STORE)                                                                                  \
    X(UNDO_CLOSE)                                                                                  \
    X(UNDO_PROBES)                                                                                 \
    X(OFFLINE)

enum pool_open_phase {
#define PHASE_ENUM(name) OPEN_##name,
    POOL_OPEN_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    OPEN_PHASE_COUNT
};

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
    struct byte_buffer snapshots; /* struct load_snapshot[] */
    struct byte_buffer policies;  /* struct load_policy[] */
};

struct load_position {
    uint64_t branch;
    struct branch_position position;
};

struct load_policy {
    uint64_t volume;
    struct policy_record record;
};

struct load_snapshot {
    uint64_t branch;
    uint64_t generation;
    struct snapshot_record record;
    bool has_children; /* some branch was forked there */
};

/* In the record of the last run: none was; the database was imported with --force. */
#define RUN_OF_NO_BOOT "-"
/* A history that may lack commits is numbered so far above what may be known of it elsewhere. */
#define NEW_HISTORY_COMMITS (UINT64_C(1) << 32)

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
    struct heartbeat_watch watch;
    uint32_t missing_count;
    bool returned; /* a disk is back that the last run went without */
    struct byte_buffer affected; /* uint64_t[]: branches with extents on missing disks */
    bool shared_affected;        /* extents of small volumes are on missing disks */

    struct ledger_scan ledger_scan;
    struct ledger_format ledger_format;
    struct ledger_gap gap;
    struct store_commit store_commit;
    bool format_ledger;
    bool rejoin_ledger; /* a copy that is here is not current */
    bool ring_is_new;   /* it was formatted by this opening: no checkpoint is behind it yet */

    bool run_noted; /* this run may be in the database */
    struct shards_create shards;
    struct pool_replay *replay;
    uint32_t flushes_failed;      /* of the disks, before the replay; without those that are late */
    bool fenced_rings;            /* this start has fenced all rings of the last run */
    uint64_t rings_fenced_before; /* bit n: every branch of ring n was */
    struct byte_buffer fences;    /* uint64_t[]: branches that were, or that lost writes now */
    uint32_t room_phase;          /* where it goes on when there is room in the ledger */
    uint32_t room_checkpoints;    /* that were written for it */
    bool branches_changed;     /* their records go with the next commit */
    struct byte_buffer first;  /* store items that go with the first commit; it is committed soon */
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

/* ---- snapshot_load.c: branches and snapshots ---- */

/*
 * The lineage, pool->branches and pool->reclaim_jobs from the records, before the volumes. 0, or
 * -EUCLEAN with `error` saying what does not fit.
 */
int snapshot_load_lineage(struct pool_opening *opening, struct error *error);
/* Behind the volumes: keepers of extents, and pool->snapshots. */
int snapshot_load_tables(struct pool_opening *opening, struct error *error);
/*
 * The head of this volume has got as far as `generation`, as a journal tells: the bump was not
 * committed. It goes on from there.
 */
void pool_load_raise(struct pool_opening *opening, struct volume *volume, uint32_t generation);
/*
 * The last run did not end in order, and its journals have been looked at, if there are any: heads
 * begin a new generation, and note the one before, up to which `copied` bits of entries cannot be
 * trusted. An entry can only have such bits when it was written over something frozen, so a branch
 * that has had one generation only, and no parent, is left alone.
 */
void pool_load_unclean(struct pool_opening *opening);
/* Into opening->batch, which is about to be committed: what was to go with the first commit. */
void pool_load_put_first(struct pool_opening *opening);

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
/* 0, or -EUCLEAN when some record is no batch; its commit. Nothing has been taken out yet. */
int ledger_gap_check(const struct ledger_gap *gap, uint64_t *ret_commit);

/*
 * Whether the ledger is so full that the start may not get its commits in: then go to
 * OPEN_MAKE_ROOM, with opening->room_phase set.
 */
bool pool_ledger_wants_room(const struct pool_opening *opening);
/* The phases MAKE_ROOM, ROOM_SETTLE and ROOM_FORMATTED. */
enum machine_step pool_ledger_make_room(struct pool_opening *opening);
enum machine_step pool_ledger_room_format(struct pool_opening *opening);
enum machine_step pool_ledger_room_made(struct pool_opening *opening);
/* Start to read the ledger; MACHINE_NEXT when there is none. */
enum machine_step pool_ledger_scan(struct pool_opening *opening);
/* What it says: equal, format it, apply records to the database, or refuse. */
enum machine_step pool_ledger_judge(struct pool_opening *opening);
/* Apply the next record; MACHINE_NEXT without waiting when there is no more. */
enum machine_step pool_ledger_apply(struct pool_opening *opening);
enum machine_step pool_ledger_format(struct pool_opening *opening);
/* It was formatted, or was not to be. */
enum machine_step pool_ledger_formatted(struct pool_opening *opening);

/* Copies that were left behind: checkpoints, then all copies anew; see the phases REJOIN_*. */
enum machine_step pool_ledger_rejoin(struct pool_opening *opening);
enum machine_step pool_ledger_rejoin_format(struct pool_opening *opening);
enum machine_step pool_ledger_rejoined(struct pool_opening *opening);
/* A checkpoint behind a new ring, without which an import could not use it. */
enum machine_step pool_ledger_anchor(struct pool_opening *opening);

/* ---- pool_open.c ---- */

/*
 * Nothing of the allocator or committer is under way, nor on its way to them. If not: look again at
 * `phase`, behind a pause.
 */
bool pool_open_is_settled(struct pool_opening *opening, uint32_t phase);

/* ---- pool_open_flush.c ---- */

/* Flush every disk that is here. */
enum machine_step pool_flush_disks(struct pool_opening *opening);
/* They have been, or are late: if one has lost writes, that is noted in the rings at once. */
enum machine_step pool_flush_judge(struct pool_opening *opening);
/* It is noted: go on without those that failed, or refuse. */
enum machine_step pool_flush_leave_out(struct pool_opening *opening);
/* It is offline, or a late flush has ended: if nothing else keeps it so, another try. */
void pool_open_again(struct pool *pool);

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
