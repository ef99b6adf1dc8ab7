/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has changed in a volume since a snapshot: for targets that tell their hosts (dirty bitmaps),
 * exact to 4 KiB. manager.h has the same for administrators, manager_volume_diff().
 *
 * The older side is a snapshot; the newer side is what is exported: a volume as it is now, or a
 * later snapshot. Both must have a common past: the snapshot is one of the volume or of the volume
 * that it is a clone of, before or after a rollback.
 *
 * Of a volume that is being written: what was acknowledged before the query began is told; what is
 * written during the query may or may not be.
 */
#ifndef VOLMGR_CHANGES_H
#define VOLMGR_CHANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "io/reactor.h"
#include "volmgr/request.h"
#include "volmgr/volume.h"

struct changes;
struct manager;

enum {
    CHANGES_SINCE_SIZE = 2 * NAME_BYTES_MAX + 2, /* "SNAPSHOT" or "VOLUME@SNAPSHOT" */
    CHANGES_NAMES_MAX = 1024,
};

/*
 * From any reactor: names of snapshots since which can be told what has changed in this volume
 * (which the caller holds by a look-up), each NUL-terminated, newest first, CHANGES_NAMES_MAX at
 * most. Those of volumes that it is a clone of are not among them, and can be opened all the same.
 */
struct changes_names {
    struct io_op op; /* 0 */
    struct volume *volume;
    struct byte_buffer ret_names; /* the caller frees it */
    bool ret_more;                /* there are older ones */
    struct message message;
    struct reactor *reply_to;
    struct manager *manager;
};
void manager_changes_names(struct manager *manager, struct changes_names *names);

/*
 * From any reactor: begin to compare. The snapshot (and the volume) is held until
 * manager_changes_close(): it cannot be deleted.
 */
struct changes_open {
    /* 0; -ENOENT: no such snapshot; -EXDEV: no common past; -ENODEV: the pool is not serving */
    struct io_op op;
    struct volume *volume; /* held by the caller */
    char since[CHANGES_SINCE_SIZE]; /* any text: one that is no name is not found */
    struct changes *ret_changes;
    struct message message;
    struct reactor *reply_to;
    struct manager *manager;
};
void manager_changes_open(struct manager *manager, struct changes_open *open);
/*
 * From any reactor: is this the newer side? What had the name of the volume that changes were
 * opened for may have it no more.
 */
bool changes_are_of(const struct changes *changes, const struct volume *volume);
/*
 * From any reactor; every query has been answered. The caller may give back its own hold on the
 * volume at once.
 */
void manager_changes_close(struct changes *changes);

/*
 * On volume_reactor() of the volume. Several may be under way: they are answered one after the
 * other, each later than the call.
 */
struct changes_query {
    struct io_op op; /* 0; -EIO; -ETIMEDOUT; -ESHUTDOWN; -ESTALE: the volume was rolled back */
    uint64_t offset_bytes; /* within the volume */
    uint64_t length_bytes; /* > 0 */
    /* Room for runs: alternately changed and not, from offset_bytes on. May end before the range,
     * but there is at least one. */
    struct volume_status_extent *extents;
    uint32_t extents_max;
    uint32_t ret_count;
    /* private */
    struct list link;
};
void changes_query(struct changes *changes, struct changes_query *query);

#endif
