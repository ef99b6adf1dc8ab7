/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the reclaim*.c files only: the worker of a pool. Control reactor unless stated. */
#ifndef VOLMGR_RECLAIM_WORKER_IMPL_H
#define VOLMGR_RECLAIM_WORKER_IMPL_H

#include "volmgr/dead_versions_impl.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_owner_impl.h"

#define RECLAIM_PHASES(X)                                                                          \
    X(BEGIN)                                                                                       \
    X(NEXT_JOB)                                                                                    \
    X(TELL_OWNER)                                                                                  \
    X(SEAL_OWNER)                                                                                  \
    X(SCAN)                                                                                        \
    X(PICK)                                                                                        \
    X(LOOK_BELOW)                                                                                  \
    X(FOUND_BELOW)                                                                                 \
    X(GET_DYING)                                                                                   \
    X(GOT_DYING)                                                                                   \
    X(GET_OLDER)                                                                                   \
    X(GOT_OLDER)                                                                                   \
    X(GET_NEWER)                                                                                   \
    X(GOT_NEWER)                                                                                   \
    X(COMMIT)                                                                                      \
    X(PIECE_SEAL)                                                                                  \
    X(PIECE_DRAIN)                                                                                 \
    X(PIECE_DRAINED)                                                                               \
    X(PIECE_TELL)                                                                                  \
    X(PIECE_DONE)                                                                                  \
    X(JOB_DONE)                                                                                    \
    X(SURVEY)                                                                                      \
    X(SURVEYED)                                                                                    \
    X(LEAVE)                                                                                       \
    X(LEFT)                                                                                        \
    X(END)

enum reclaim_phase {
#define PHASE_ENUM(name) RECLAIM_##name,
    RECLAIM_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    RECLAIM_PHASE_COUNT
};

enum {
    RECLAIM_PIECE_VERSIONS = 64,
    RECLAIM_PIECE_BYTES = 1 << 20, /* of batch */
    RECLAIM_SCAN_BYTES = 16 << 10, /* of links */
};

/* The entries of a stored version. */
struct reclaim_page {
    uint32_t number; /* of the version; 0: there is none */
    struct map_entry *entries;
};

/* A version that is dead, and what is next to it. */
struct reclaim_find {
    struct version_link link;            /* of what supersedes it; of a tail: its own */
    struct lineage_branch *branch;       /* where it is */
    struct lineage_step step;            /* on the way to it, or to the older one */
    uint64_t page;
    uint32_t number;
    uint32_t local_previous; /* next older version in the same branch; 0: none */
    struct reclaim_page dying;
    struct reclaim_page older; /* of the line, or inherited */
    struct reclaim_page newer;
};

/* What the owner says of a version that the head's may supersede. */
enum reclaim_answer {
    RECLAIM_NONE,   /* it has not been asked */
    RECLAIM_ADDED,  /* it has been removed, with the open batch */
    RECLAIM_FROZEN, /* what supersedes it is immutable */
    RECLAIM_STALE,  /* something else supersedes it by now */
    RECLAIM_WAIT,   /* after the next sealing */
    RECLAIM_FAILED, /* the page cannot be read */
};

/* A version that has been removed: cached pages may still have it below theirs. */
struct reclaim_died {
    uint64_t branch;
    uint64_t page;
    uint32_t died;
    uint32_t previous;
};

struct reclaim {
    struct machine machine;
    struct pool *pool;
    struct job *report;
    uint64_t jobs_done;
    uint64_t versions; /* removed */
    uint64_t skipped;  /* cannot be read: they stay */
    bool wants_kick;   /* while it ends: look again */

    /* The job that is worked on. */
    struct lineage_job job;
    bool has_job;
    bool again;    /* something had to be passed over: look at all of it once more */
    uint32_t passes;
    bool wait;     /* end the piece: the owner has to seal */
    bool exhausted;
    uint32_t postponed; /* jobs in a row: their volumes cannot be sealed */
    uint64_t bound;
    struct dead_gap gap;
    struct version_link cursor;
    struct volume *volume; /* whose head is above; NULL: none */
    struct view_chain *chain; /* for it */
    uint32_t frozen;          /* likewise */
    uint32_t frozen_settled;  /* without a generation that is about to be kept */
    uint32_t owned_above;
    uint32_t settled; /* versions above it may be the head's */

    /* The piece. */
    struct store_scan scan;
    size_t scan_position;
    struct store_get get;
    struct store_scan newer_scan;
    struct reclaim_find find;
    bool asked_owner;
    enum reclaim_answer answer;
    uint64_t pages[RECLAIM_PIECE_VERSIONS];
    uint32_t page_count;
    struct byte_buffer died;   /* struct reclaim_died[] */
    struct byte_buffer grains; /* grain_address[]: use bits to clear with the piece's commit */
    struct byte_buffer owner_grains; /* likewise with the owner's batch */
    uint64_t drain_since_ns; /* the owner's requests up to then may still use the grains; 0: new */
    bool is_drained;         /* none of them is under way any more */
    struct byte_buffer batch;
    struct commit_request commit;
    bool owner_added; /* something for its open batch */
    uint64_t piece_began_ns;

    struct round round;
    struct volume_seal_wait seal;
    struct round_stop *seal_stop;
    int seal_status;
    struct machine_pause pause;

    /* Leaving. */
    struct space_survey survey;
    struct byte_buffer gone; /* struct pool_branch *[] */
    bool leaves;             /* the commit is under way */
};

/* ---- reclaim.c ---- */

/* The piece ends with this version, which could not be dealt with now; it comes again. */
enum machine_step reclaim_end_piece(struct reclaim *reclaim, bool again);
enum machine_step reclaim_later(struct reclaim *reclaim, enum reclaim_phase phase,
                                uint64_t delay_ns);
/*
 * The newest view of the line that is no more being made, or what it inherits: what was written up
 * to it is in the store, and is not changed while it is there.
 */
uint32_t reclaim_settled_generation(struct lineage_branch *top);
bool reclaim_must_stop(const struct reclaim *reclaim);

/* ---- reclaim_find.c: LOOK_BELOW to GOT_NEWER ---- */

enum machine_step reclaim_find_phase(struct reclaim *reclaim, enum reclaim_phase phase);
void reclaim_find_init(struct reclaim_find *find);
void reclaim_find_free(struct reclaim_find *find);
/*
 * Append the items that remove it, and the grains that nobody names then. Any reactor.
 */
void reclaim_encode(const struct reclaim *reclaim, const struct map_entry *newer,
                    struct byte_buffer *batch, struct byte_buffer *grains);

/* ---- reclaim_owner.c: on the owner's reactor ---- */

round_visit_fn reclaim_tell_visit;  /* frozen, chain */
round_visit_fn reclaim_seal_visit;  /* volume_seal_now() */
round_visit_fn reclaim_owner_visit; /* the version in reclaim->find */
round_visit_fn reclaim_drain_visit; /* have requests of before the piece's end ended? */
round_visit_fn reclaim_died_visit;  /* all reactors: a piece has been committed */

/* ---- reclaim_leave.c: records and branches that go; SURVEY to LEFT ---- */

enum machine_step reclaim_leave_phase(struct reclaim *reclaim, enum reclaim_phase phase);
/* Is there any that could? */
bool reclaim_has_leavers(const struct pool *pool);

#endif
