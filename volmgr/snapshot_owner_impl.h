/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instant at which a generation of a volume ends, on the reactor that owns it.
 *
 * THEORY OF OPERATION
 *
 * A *gate* holds back what may change the map of a volume: a window that comes to ALLOC (zeroing:
 * to MAP) waits while it is closed. It is drained when no window that had passed ALLOC is before
 * the end of LOG. Then a *bump* is one step with nothing in between: the generation of now is kept,
 * the next one begins, and what is named up to now is frozen. All windows are planned again then.
 *
 * Writes in place that change nothing in the map may be under way at the bump, unless the gate is
 * for `all`. What they write lies in a grain that is frozen now. It is not acknowledged yet, so it
 * may be in what was kept; but a copy of the grain's blocks for the head may have been made before
 * it was there. So when it comes to MAP such a window is planned again too, and written once more,
 * as one of the new generation: the head has it in any case. The kept generation may be read when
 * all of them have ended: *settled*.
 *
 * Nothing of the map is encoded at a bump. A page that has uncommitted changes from before is
 * frozen when it is next changed: its changes are encoded, as had been decided for them, to the
 * bytes that go first in the next batch.
 *
 * Invariants
 *  G1  A gate is closed for at most GATE_MAX_NS: nobody waits for a disk that does not answer (P9).
 *  G2  No request that was ever past ALLOC changes the map with another generation than that of its
 *      plan.
 *  G3  What was encoded for a page is committed before anything that was encoded for it later, and
 *      when its batch is not committed it goes first in the next one.
 *  G4  What a bump has kept is complete only if no loss began between the bump and the commit that
 *      has all of it: the marks of such a loss are in the head alone.
 */
#ifndef VOLMGR_SNAPSHOT_OWNER_IMPL_H
#define VOLMGR_SNAPSHOT_OWNER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/list.h"
#include "base/util.h"
#include "io/reactor.h"
#include "metadata/schema.h"

struct map_page;
struct volume;
struct volume_request;

/* The longest time that a gate is closed without a break. */
#define GATE_MAX_NS (50 * NS_PER_MS)

/* ---- the gate ---- */

struct volume_gate {
    /*
     * Completed once: 0: drained, and closed for the rest of GATE_MAX_NS; -EAGAIN: it was not
     * drained in time, or marks of a loss were being set, and it is open again: try again in
     * GATE_MAX_NS; -EBUSY: somebody else's is closed; -EIO: the volume cannot be written to.
     */
    struct io_op op;
    bool all;            /* in-place writes wait, too: for groups */
    bool is_closed;      /* the owner's; it opens by itself when its time is over */
    char ret_disk[64];   /* -EAGAIN: a disk that something waits for; empty: not known */
    struct volume *volume;
    struct timer timer;
    bool completed;
};

void volume_gate_close(struct volume *volume, struct volume_gate *gate);
/*
 * Those who waited go on. Nothing happens if it has opened by itself. One that is not drained yet
 * is completed with -ECANCELED.
 */
void volume_gate_open(struct volume *volume, struct volume_gate *gate);

/* ---- generations ---- */

/*
 * The volume's gate is closed and drained: returns the kept generation. 0: it has opened by itself
 * in the meantime, or nothing can be kept now (fenced, a loss is being noted): nothing was done.
 */
uint32_t volume_bump(struct volume *volume);
/*
 * A view has gone, or its tail: what the head may not write falls to this generation
 * (lineage_frozen()). Without a gate. What control counts as kept already, but has not been bumped
 * here yet, does not.
 */
void volume_unbump(struct volume *volume, uint32_t frozen);

/* Completed when all writes that were under way in place at the bump have ended. */
struct volume_settle {
    struct io_op op;     /* 0, or -ETIMEDOUT */
    uint64_t timeout_ns; /* 0: none */
    struct volume *volume;
    struct list link;
    struct timer timer;
};
void volume_settle(struct volume *volume, struct volume_settle *settle);
/* If it has not been completed: -ECANCELED. */
void volume_settle_cancel(struct volume_settle *settle);

/* As a FLUSH: all that was changed until now is durable, with the branch's record. */
struct volume_seal_wait {
    struct io_op op;     /* 0, -EIO (also: G4 does not hold since the last bump), or -ETIMEDOUT */
    uint64_t timeout_ns; /* 0: none */
    bool any;            /* G4 is of no interest */
    struct volume *volume;
    struct list link;
    struct timer timer;
};
void volume_seal_now(struct volume *volume, struct volume_seal_wait *wait);
/* If it has not been completed: -ECANCELED. The seal goes on. */
void volume_seal_cancel(struct volume_seal_wait *wait);

/*
 * Store items that go first in the next batch. For who changes stored versions beside the head;
 * volume_seal_now() afterwards.
 */
void seal_add(struct volume *volume, const struct byte_buffer *items);
/*
 * The version `died` of this page, which the head's superseded, is gone from the store by items of
 * seal_add(); `previous` takes its place.
 */
void seal_version_died(struct volume *volume, struct map_page *page, uint32_t died,
                       uint32_t previous);

/* ---- counters of grains ---- */

/*
 * Grains of `birth` that entered the head (death HISTORY_FOREVER), or left it in `death`; committed
 * with the open batch.
 */
void volume_count_grains(struct volume *volume, uint32_t birth, uint32_t death, int64_t count);
/*
 * Are there counters for this branch? Not while it has had one generation only: then the number in
 * its position is what (1, forever) would be, and the bump that ends this writes that.
 */
static inline bool
branch_is_counted(const struct branch_record *branch)
{
    return branch->parent != 0 || branch->current_generation > 1;
}

/* ---- what the pipeline and the seal need ---- */

enum volume_request_watch {
    WATCH_DRAIN = 1, /* the gate waits for the end of its window */
    WATCH_LATE = 2,  /* its window was in place, and under way at a bump */
};

/* Part of struct volume; the owner reactor's. */
struct volume_history {
    struct volume_gate *gate; /* closed; NULL: none is */
    uint32_t gate_pending;    /* windows that it waits for */
    struct list gate_waiters; /* requests that wait for it */
    uint32_t late_count;      /* windows with WATCH_LATE */
    struct list settles;
    bool is_keeping;               /* since a bump: what it kept is not known to be durable */
    uint32_t kept;                 /* by that bump */
    uint64_t losses_at_bump;
    bool covers_bump;              /* the seal under way has all that was kept (G4) */
    uint32_t sealed_generation;    /* current when that seal began */
    bool branch_changed;           /* its record, as control has it, goes with the open batch */
    bool branch_sealed;            /* with the sealed one */
    struct byte_buffer frozen;     /* encoded, and first in the next batch */
    struct byte_buffer counts;     /* struct history_count[]: of the open batch */
    struct byte_buffer counts_sealed;
    struct list seal_waits;        /* struct volume_seal_wait: for the next seal */
    struct list seal_waits_sealed; /* for the one that is under way */
};

void volume_history_init(struct volume_history *history);
void volume_history_free(struct volume_history *history);

/* The volume is being sealed; that has ended; its batch is not committed after all. */
void volume_history_sealing(struct volume *volume);
void volume_history_sealed(struct volume *volume, int status);
void volume_history_unsealed(struct volume *volume);
/* Behind the pages of the batch: counters; the record of the branch goes with its commit. */
void volume_history_encode(struct volume *volume, struct byte_buffer *batch);

/* Gate closed, at ALLOC or at MAP of zeroes: must this window wait? It has been put in line. */
bool volume_gate_holds(struct volume_request *request);
/* A window has ended that somebody watches. */
void volume_watched_window_ended(struct volume_request *request);

#endif
