/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The path of a request through the volume manager: its stages, and what they share.
 *
 *   ADMIT   take note of it; refuse what cannot be served
 *   LOCK    range lock on the blocks concerned; conflicting requests queue on the holder
 *   LOOKUP  the map page of the next window, from the cache or fetched by message
 *   ALLOC   grains for first writes and broken sharing
 *   ISSUE   disk operations of the window; zeroes are filled in
 *   SETTLE  collect them; first error wins
 *   MAP     change the entries in memory; they belong to the open batch
 *   LOG     the changed entries go to the volatile journal (P3)
 *   UNLOCK  next window, or let go of the range
 *   COMMIT  FLUSH, and FUA whose entries are not committed: wait for a seal (P2)
 *   REPLY   answer, release
 *
 * A long request is worked on in windows, each within one map page, from LOOKUP to LOG; the range
 * stays locked over all of them. An overwrite of valid, current blocks passes ALLOC, MAP, LOG and
 * COMMIT without waiting and touches no metadata, but for a closed gate: what may change the map is
 * held back at ALLOC (zeroing: at MAP) for the instant at which a generation ends
 * (snapshot_owner_impl.h).
 */
#ifndef VOLMGR_PIPELINE_IMPL_H
#define VOLMGR_PIPELINE_IMPL_H

#include "volmgr/core_impl.h"
#include "volmgr/map_entry_impl.h"

#define PIPELINE_STAGES(X)                                                                         \
    X(ADMIT)                                                                                       \
    X(LOCK)                                                                                        \
    X(LOOKUP)                                                                                      \
    X(ALLOC)                                                                                       \
    X(ISSUE)                                                                                       \
    X(SETTLE)                                                                                      \
    X(MAP)                                                                                         \
    X(LOG)                                                                                         \
    X(UNLOCK)                                                                                      \
    X(COMMIT)                                                                                      \
    X(REPLY)

enum pipeline_stage {
#define PIPELINE_STAGE_ENUM(name) STAGE_##name,
    PIPELINE_STAGES(PIPELINE_STAGE_ENUM)
#undef PIPELINE_STAGE_ENUM
    STAGE_COUNT
};

enum step {
    STEP_NEXT,  /* go on with the next stage */
    STEP_WAIT,  /* something that was armed last will resume; then the next stage */
    STEP_AGAIN, /* as WAIT, but run this stage again */
};

/* How the window is worked on. */
enum window_kind {
    WINDOW_DIRECT, /* payload goes between the disks and the caller's memory */
    WINDOW_BOUNCE, /* by way of aligned memory: partial blocks, or payload that is not aligned */
    WINDOW_ZERO,   /* whole blocks become zeroes in the map */
    WINDOW_SKIP,   /* nothing to do (partial blocks of a discard) */
};

enum bounce_phase {
    BOUNCE_NONE,
    BOUNCE_EDGES, /* reading the blocks that are written in part */
    BOUNCE_BODY,  /* the transfer itself */
};

struct volume_fan {
    struct list link; /* shard->free_fans */
    uint32_t iov_used;
    struct volume_child children[VOLUME_CHILDREN_MAX];
    struct iovec iov[VOLUME_FAN_IOV_MAX];
};

struct volume_bounce {
    struct list link; /* shard->free_bounces */
    uint8_t *memory;  /* one grain, aligned to it */
    struct iovec iov;
};

/* One contiguous transfer: a place on a disk and where it lies in the request's payload. */
struct segment {
    struct disk *disk;
    uint64_t disk_offset_bytes;
    uint64_t length_bytes;
    uint64_t payload_offset_bytes; /* from the start of the request, or of the bounce */
};

struct segments {
    struct segment list[VOLUME_CHILDREN_MAX];
    uint32_t count;
};

/* ---- pipeline_copy.c: a frozen home over a base (transition 3) ---- */

/* Does a write of this entry have to copy? */
bool copy_is_needed(const struct volume *volume, const struct map_entry *entry);
/* ALLOC: another window copies that entry; the request has been put in line. */
bool copy_must_wait(struct volume_request *request);
/* ALLOC: the window's new home. */
void copy_begin(struct volume_request *request, grain_address grain);
/* ISSUE, and again when what is read is there (BOUNCE_EDGES). */
void copy_issue(struct volume_request *request);
/* MAP: the entry changes to the new home. */
void copy_map(struct volume_request *request, uint32_t generation,
              struct map_entry_dropped *dropped);
/* It has failed, or is to be planned again: the entry is as it was. */
void copy_give_up(struct volume_request *request);

/* ---- pipeline.c ---- */

/* The first error wins; the rest of the stages is skipped but for UNLOCK and REPLY. */
void request_fail(struct volume_request *request, int status);
void pipeline_run(struct volume_request *request);
/* The window is worked on again from LOOKUP. */
void window_plan_again(struct volume_request *request);
/* A request is past its deadline: answer it; it goes on holding what it holds. */
void pipeline_overdue(struct volume_request *request);

static inline uint64_t
request_end_bytes(const struct volume_request *request)
{
    return request->offset_bytes + request->length_bytes;
}

/* The entry of the page that a byte of the volume lies in. */
static inline uint32_t
entry_index(uint64_t offset_bytes)
{
    return (uint32_t)(offset_bytes >> GRAIN_SHIFT) % MAP_PAGE_ENTRIES;
}

/*
 * Since the window was planned a loss has been noticed, so that blocks of it may be marked now
 * (Z1), or what is frozen has changed (G2), or a disk was added that wants larger or better aligned
 * transfers.
 */
static inline bool
window_is_outdated(const struct volume_request *request)
{
    const struct volume *volume = request->volume;
    return UNLIKELY(request->plan_epoch != volume->plan_epoch ||
                    request->geometry_epoch != volume->shard->geometry_epoch);
}

/* The blocks of grain [grain_start, + 64 KiB) that [start, end) touches, as bits. */
static inline uint16_t
block_mask(uint64_t grain_start_bytes, uint64_t start_bytes, uint64_t end_bytes)
{
    uint64_t from = start_bytes > grain_start_bytes ? start_bytes - grain_start_bytes : 0;
    uint64_t to = MIN(end_bytes - grain_start_bytes, (uint64_t)GRAIN_BYTES);
    uint32_t first = (uint32_t)(from >> BLOCK_SHIFT);
    uint32_t last = (uint32_t)((to - 1) >> BLOCK_SHIFT);
    return (uint16_t)((UINT32_C(2) << last) - (UINT32_C(1) << first));
}

/* ---- pipeline_issue.c ---- */

/* Decide how the next window is worked on, and where it ends. The page is there. */
void window_plan(struct volume_request *request);
enum step stage_issue(struct volume_request *request);
enum step stage_settle(struct volume_request *request);
/* Give fan and bounce back to the shard. */
void issue_release(struct volume_request *request);
/* One block at `in_grain_bytes` of a grain, which is at the same place of the bounce. */
void issue_add_blocks(struct volume_request *request, grain_address grain, uint64_t in_grain_bytes,
                      struct segments *segments);
/* Start the transfers on the bounce, whose memory is for the volume from `start_bytes` on. */
void issue_bounced(struct volume_request *request, const struct segments *segments,
                   uint64_t start_bytes, bool is_write);
/* The window's payload, or zeroes, to the bounce from `at` on. */
void issue_fill_bounce(struct volume_request *request, uint64_t at);

/* ---- pipeline_map.c ---- */

enum step stage_alloc(struct volume_request *request);
enum step stage_map(struct volume_request *request);
enum step stage_log(struct volume_request *request);
/* Would MAP change an entry of this window (DIRECT, BOUNCE)? */
bool map_window_changes(const struct volume_request *request);
/* Is some of it written to a home that an entry has named before? */
bool map_window_is_in_place(const struct volume_request *request);
/*
 * Does it write to another place than where the map has some of its blocks? Until MAP it is the old
 * place that counts, so however durable the new one is, what was lost there is lost.
 */
bool map_window_moves(const struct volume_request *request);
/* Homes that were attached for a request that failed, and that nobody else is using. */
void map_detach_unused(struct volume_request *request);
/*
 * A write to homes that a bump has frozen has failed or was given up, and is not tried again: what
 * the snapshot shows is what has become of it, and a copy may have moved what was there before. The
 * blocks are not `copied` then, and copies that are under way begin again.
 */
void map_late_write_failed(struct volume_request *request);
/* Fill in STATUS from the window. True when no more runs fit. */
bool map_collect_status(struct volume_request *request);

#endif
