/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importing a pool: what its files share. pool_import.c is the list of phases and what is changed;
 * pool_import_judge.c finds out, without changing anything, what the disks have.
 */
#ifndef VOLMGR_POOL_IMPORT_IMPL_H
#define VOLMGR_POOL_IMPORT_IMPL_H

#include "metadata/checkpoint.h"
#include "volmgr/pool_open_impl.h"

struct pool_importing {
    struct machine machine;
    struct pool_import *import;
    struct disk_probe *probes;
    uint32_t disk_count;
    bool stray[POOL_DISKS_MAX]; /* by probe: has a label of the pool, and is none of its disks */
    const struct label *newest; /* of the highest incarnation */
    struct heartbeat_watch watch;
    struct machine_pause pause;
    uint64_t wait_until_ns; /* for a flush of an earlier start; 0: it does not */
    struct machine_job job;
    struct error job_error;
    struct backends_close close;
    bool remove_store; /* in the next store job: close it, and remove it */
    struct store *store;
    struct store_commit store_commit;
    struct store_scan scan;
    struct checkpoint_read read;
    uint64_t checkpoint_commit; /* that is being tried; 0: none, begin with nothing */
    struct ledger *ledger;
    const struct disk_probe *copies[LEDGER_COPIES_MAX]; /* of it, in this order */
    uint32_t copy_count;
    struct ledger_scan ledger_scan;
    struct ledger_gap gap;
    struct byte_buffer batch;
    struct byte_buffer pool_record; /* the value that comes last: without it there is no pool */
    uint64_t commit;  /* of the rebuilt state */
    bool is_complete; /* it is the last one that was acknowledged */
    struct pool *pool; /* holds the name */
    bool pool_opening; /* it is on its own from now on */
};

/* ---- pool_import_judge.c; nothing is changed ---- */

/* Labels have been read: which pool it is, and whether it may be imported. */
enum machine_step import_choose(struct pool_importing *importing);
/* Which pool of this name is here; NULL: none, or the one that this import has made. */
struct pool *import_existing_pool(const struct pool_importing *importing);
/*
 * Try the newest checkpoint that has not been tried; import_checkpoint_was_verified() goes on with
 * the next one at `verify_phase`.
 */
enum machine_step import_verify_checkpoint(struct pool_importing *importing);
enum machine_step import_checkpoint_was_verified(struct pool_importing *importing,
                                                 uint32_t verify_phase);
/* importing->read is made ready for the checkpoint that was found. */
void import_prepare_read(struct pool_importing *importing, checkpoint_batch_fn *batch);
enum machine_step import_scan_ledger(struct pool_importing *importing);
/* What is behind the checkpoint in the ledger; is it all that there was? */
enum machine_step import_judge_ledger(struct pool_importing *importing);

#endif
