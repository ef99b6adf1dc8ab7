/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the control operations on snapshots share. Control reactor.
 */
#ifndef VOLMGR_SNAPSHOT_CONTROL_IMPL_H
#define VOLMGR_SNAPSHOT_CONTROL_IMPL_H

#include "volmgr/control_impl.h"
#include "volmgr/snapshot_impl.h"

/* ---- snapshot_create.c ---- */

/*
 * A snapshot of one volume, for a clone to begin at: without a name, HIDDEN, and found by nobody.
 * Until something depends on it, an open deletes it. `create` has one name, without a snapshot.
 * It is in *ret_snapshot when `create` completes with 0, with a hold that is the caller's; its view
 * in the lineage is still KEPT.
 */
void snapshot_create_hidden(struct manager *manager, struct snapshot_create *create,
                            struct snapshot **ret_snapshot);
/*
 * What the volume has written cannot be overwritten in place any more: a reserve needs as much
 * space again. 0 and the space is promised, or -ENOSPC with `error` set. volume_unpin() when
 * no snapshot needs it.
 */
int volume_pin(struct volume *volume, struct error *error);
void volume_unpin(struct volume *volume);
/* At open: of all volumes that have snapshots. */
void volumes_pin(struct pool *pool);
/* A snapshot of the volume is being made; it says so: -EBUSY. */
int volume_check_not_creating(const struct volume *volume, struct error *error);

/* ---- snapshot_delete.c ---- */

/* May it be deleted now? 0, or -EBUSY, -EPERM with `error` set. */
int snapshot_check_deletable(struct snapshot *snapshot, struct error *error);
/* "POOL/VOL@SNAPSHOT" */
void snapshot_path(const struct snapshot *snapshot, char text[static SNAPSHOT_PATH_SIZE]);
/* The KEPT snapshot of that name, or NULL with `error` set: -ENOENT. */
struct snapshot *volume_find_snapshot(const struct volume *volume, const char *name,
                                      struct error *error);
/* "2026-01-31 23:59:59 UTC" */
enum {
    TIME_TEXT_SIZE = 32
};
void time_format(uint64_t realtime_ns, char text[static TIME_TEXT_SIZE]);

/* ---- snapshot_policy.c ---- */

/* A schedule that the store has; at open. */
void policy_restore(struct volume *volume, const struct policy_record *record);
/* The volume is being deleted, or the pool closed. */
void policy_forget(struct volume *volume);
/* The pool serves: keep the schedules from now on. */
void policies_start(struct pool *pool);
/* The pool is being closed. False: not yet, ask again. */
bool policies_stop(struct pool *pool);

/* ---- snapshot_expiry.c ---- */

/*
 * The pool's clock, by which snapshots expire: it goes forward as time does, whatever is done to
 * the machine's clock meanwhile.
 */
uint64_t pool_clock_ns(struct pool *pool);
/* A time of the machine's clock as one of the pool's, and back; 0 stays 0. */
uint64_t pool_clock_from_realtime(struct pool *pool, uint64_t realtime_ns);
uint64_t pool_clock_to_realtime(struct pool *pool, uint64_t clock_ns);

#endif
