/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one form in which every protocol asks for I/O on a volume.
 *
 * A target embeds a volume_request in its own command slot, fills in the caller's fields and calls
 * volume_submit() on the reactor that owns the volume. Two calls come back, both from the loop:
 *
 *   reply()    exactly once: the answer for the host (success, error, or the deadline passed)
 *   release()  exactly once, at or after reply(): nothing of the request can take effect any more;
 *              buffers and slot may be used again. Normally it follows reply() at once; after a
 *              deadline it comes when the backend has proved the end of the operation (P9).
 */
#ifndef VOLMGR_REQUEST_H
#define VOLMGR_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "backends/backend.h"
#include "base/list.h"
#include "io/reactor.h"
#include "metadata/schema.h"

struct volume;
struct volume_request;
struct map_page;

enum volume_operation {
    VOLUME_READ,
    VOLUME_WRITE,
    VOLUME_WRITE_ZEROES, /* reads as zeroes afterwards; frees space unless NO_HOLE */
    VOLUME_DISCARD,      /* reads as zeroes afterwards (whole blocks); frees space */
    VOLUME_FLUSH,        /* P2 */
    VOLUME_STATUS,       /* what is allocated: fills `extents` */
    VOLUME_PREFETCH,     /* bring the map (and later the data) closer; never fails for lack of it */
    VOLUME_OPERATION_COUNT
};

enum volume_request_flags {
    VOLUME_FUA = 1u << 0,
    VOLUME_NO_HOLE = 1u << 1,   /* WRITE_ZEROES: allocate, so that later writes find their space */
    VOLUME_FAST_ZERO = 1u << 2, /* WRITE_ZEROES: -EOPNOTSUPP rather than slower than writing */
};

/* One run of VOLUME_STATUS, or of changes_query(). */
struct volume_status_extent {
    uint64_t length_bytes;
    bool hole;    /* not allocated */
    bool zero;    /* reads as zeroes */
    bool changed; /* changes_query() only */
};

typedef void volume_request_fn(struct volume_request *request);

enum {
    VOLUME_CHILDREN_MAX = 24, /* backend operations in flight for one request */
    VOLUME_WINDOW_GRAINS = 16, /* a request is worked on in windows of up to 1 MiB */
    VOLUME_FAN_IOV_MAX = 128,
};

/* A backend operation of a request. */
struct volume_child {
    struct backend_io io;
    struct volume_request *request;
    uint32_t disk_index;
    uint64_t volume_offset_bytes; /* where its blocks are in the volume */
    uint64_t loss_generation; /* of the disk, as the shard knew it at submission */
};

struct volume_request {
    /* ---- the caller's; read-only from submit to release ---- */
    enum volume_operation operation;
    uint32_t flags;
    uint64_t offset_bytes; /* any alignment: partial blocks are read, patched and written */
    uint64_t length_bytes; /* > 0 except FLUSH; within the volume (validated by the target) */
    const struct iovec *iov; /* READ, WRITE: payload; 4 KiB aligned segments are never copied */
    uint32_t iov_count;
    uint64_t timeout_ns; /* 0: the volume's default */
    volume_request_fn *reply;
    volume_request_fn *release;
    struct volume_status_extent *extents; /* STATUS: room for extents_max runs */
    uint32_t extents_max;

    /* ---- the outcome; valid in reply() ---- */
    int status; /* 0 or -errno: -ENOSPC, -EIO, -EROFS, -ETIMEDOUT, -EOPNOTSUPP, -ESHUTDOWN */
    uint32_t extents_count;

    /* ---- the pipeline's own (volmgr/pipeline.c) ---- */
    struct volume *volume;
    uint32_t mask;        /* stages that this operation uses */
    uint8_t stage;        /* the next one to consider */
    bool running;
    bool submitting;      /* inside volume_submit() */
    bool waiting;         /* left the executor; something will resume it */
    bool replied;
    bool has_failed;
    bool payload_aligned; /* memory and length of each segment suit the disks */
    uint8_t space_waits;  /* how often it waited for freed grains instead */
    bool asked_for_space; /* waited for a grant: the next refusal is the answer */
    bool needs_commit;    /* FUA: an entry of it waits to be committed */
    bool stale;           /* a disk of the window has lost writes in the meantime */
    uint64_t started_ns;
    struct list active_link;       /* the volume's requests, oldest first */
    struct list shard_active_link; /* the shard's */

    /* range lock */
    struct list lock_link;
    struct list lock_wait_link;
    struct list lock_waiters;
    uint64_t lock_sequence;
    uint64_t lock_first_block;
    uint64_t lock_last_block;
    bool lock_exclusive;
    bool lock_held;

    /* window: bytes [cursor, window_end) of the volume, within one map page */
    uint64_t cursor_bytes;
    uint64_t window_end_bytes;
    uint8_t window_kind;
    uint32_t generation; /* of the volume when the window passed ALLOC, or at MAP without */
    uint64_t plan_epoch;     /* of the volume when the window was planned */
    uint32_t geometry_epoch; /* of the shard when payload_aligned was worked out */
    struct map_page *page; /* pinned during the window */
    uint64_t changed[MAP_PAGE_ENTRIES / 64]; /* entries of the page that LOG must record */

    uint8_t watched;                       /* enum volume_request_watch */
    uint64_t copy_home; /* grain_address: the new home of a window that copies, until MAP */

    struct list wait_link; /* in line for something: a page, space, journal room, a seal */
    struct io_op wake;     /* how pipeline_resume() gets it back into the loop */
    bool waking;

    uint32_t children_pending;
    struct volume_child only_child; /* most requests need no more than this one */
    struct iovec only_iov;
    struct volume_fan *fan;         /* several children; from the shard's pool */
    struct volume_bounce *bounce;   /* aligned memory for partial or misaligned blocks */
    uint8_t bounce_phase;
};

/*
 * Start a request. On the volume's reactor. `operation`, range and flags have been validated by the
 * target; they are asserted. Zero the pipeline's fields by volume_request_init() once per slot.
 */
void volume_request_init(struct volume_request *request);
void volume_submit(struct volume *volume, struct volume_request *request);

#endif
