/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The committer: every durable change of a pool's metadata, one group after the other.
 *
 * THEORY OF OPERATION
 *
 * Shards and control operations hand in commit requests. The committer, on the control reactor,
 * takes all that wait, joins their batches behind one another, adds the next commit number, and
 * writes the group to the store (synced) and to the ledger in parallel. When both are durable each
 * request is answered on the reactor that it came from. One group is in flight at a time, so that
 * requests that arrive meanwhile share the next sync.
 *
 * Invariants
 *  C1  Commit n+1 is submitted only after commit n is durable in the store and in every current
 *      ledger copy.
 *  C2  After a failed commit, or when the pool is another host's, none is tried again: the pool is
 *      read-only until the daemon restarts.
 *  C4  When the ledger has no room for a group, nothing is written: requests wait, but for the
 *      urgent ones of the checkpoint that will make room, and the last of a pool that is closed;
 *      for these a part of the ring is kept.
 *  C3  What a batch says about data was flushed before the request was handed in (P4).
 */
#ifndef VOLMGR_COMMITTER_IMPL_H
#define VOLMGR_COMMITTER_IMPL_H

#include "base/byte_buffer.h"
#include "base/list.h"
#include "io/reactor.h"
#include "metadata/ledger.h"
#include "metadata/store.h"

struct pool;

/* Embedded in its owner; `batch` stays valid until done(). */
struct commit_request {
    struct io_op op; /* 0, -EROFS (C2) or -EIO; done() on the submitting reactor */
    struct byte_buffer *batch;
    bool urgent;         /* may use the last part of the ledger (C4) */
    bool has_numbers;    /* it has used numbers of the pool's record: that goes with the group */
    /*
     * The record of this branch (0: none) goes with the group, as control has it; its current
     * generation has been raised to this by then.
     */
    uint64_t branch;
    uint32_t branch_generation;
    uint64_t ret_commit; /* the number under which it became durable */
    struct list link;
    struct message message;
    struct reactor *reply_to;
    struct pool *pool;
};

struct committer {
    struct pool *pool;
    struct list waiting;
    struct list in_flight;
    bool running;
    bool broken;
    bool stalled;      /* the ledger is full: C4 */
    struct timer stall_timer;
    int broken_status;
    struct byte_buffer group;
    uint64_t commit; /* last number given */
    struct store_commit store_commit;
    struct ledger_append ledger_append;
    uint32_t parts_pending; /* store, ledger */
    int status;
    struct pass_hook hook;
    uint64_t groups;
    uint64_t requests;
    struct list idle_waiters; /* struct commit_idle_waiter */
};

void committer_init(struct committer *committer, struct pool *pool, uint64_t last_commit);
void committer_free(struct committer *committer); /* idle */
/* Any reactor. */
void committer_submit(struct pool *pool, struct commit_request *request);
/* The ledger has been released: go on with what waited for that. Control reactor. */
void committer_ledger_released(struct committer *committer);
/* No commit any more (C2); the one that is under way is not acknowledged. Control reactor. */
void committer_break(struct committer *committer);
/* Bytes of batches that the ledger takes now; the pool has one. Control reactor. */
uint64_t committer_room_bytes(const struct committer *committer, bool urgent);
bool committer_is_idle(const struct committer *committer);

#endif
