/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for volmgr's manager and volumes, for tests of targets: exports over plain memory or
 * a mapped file, which obey the contracts of volmgr/{request,volume,manager}.h, assert that the
 * target keeps its side of them, and misbehave on demand.
 *
 * Everything about a volume is called on its reactor, except that tests may set the hooks between
 * passes.
 */
#ifndef TESTS_UNIT_NBD_FAKE_VOLUME_H
#define TESTS_UNIT_NBD_FAKE_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "volmgr/changes.h"
#include "volmgr/manager.h"
#include "volmgr/request.h"
#include "volmgr/volume.h"

struct fake_volume_options {
    const char *pool_name;
    const char *name;
    uint64_t size_bytes;
    uint32_t sector_bytes; /* 0: 512 */
    const char *file;      /* NULL: anonymous memory */
    bool read_only;
    bool exclusive;
    struct reactor *reactor;
};

/* `control` answers look-ups, by message as the real one does. */
struct manager *fake_manager_create(struct reactor *control);
/* All volumes must have been released and detached. */
void fake_manager_destroy(struct manager *manager);
struct volume *fake_manager_add(struct manager *manager, const struct fake_volume_options *options);
/* Look-ups of this volume give `status`; 0: they work. */
void fake_volume_set_lookup_status(struct volume *volume, int status);
/* Look-ups and lists are kept without an answer until called with false. */
void fake_manager_hold_lookups(struct manager *manager, bool hold);

uint8_t *fake_volume_memory(struct volume *volume);
/* What STATUS reports as allocated, besides what was written. */
void fake_volume_set_allocated(struct volume *volume, uint64_t offset_bytes, uint64_t length_bytes);

/* From now on look-ups find it by this name. */
void fake_volume_rename(struct volume *volume, const char *name);
/*
 * A snapshot of the volume as it is now: volmgr/changes.h tells since it. Names "VOLUME@SNAPSHOT"
 * of other volumes are known as if they were of this one.
 */
void fake_volume_add_snapshot(struct volume *volume, const char *name);
/* There are more than the names tell. */
void fake_volume_set_more_snapshots(struct volume *volume, bool more);

/* ---- hooks ---- */

/* Requests of this kind fail with `status` from now on; 0: they work. */
void fake_volume_fail(struct volume *volume, enum volume_operation operation, int status);
/* Queries of changes fail with `status` from now on; 0: they work. */
void fake_volume_fail_changes(struct volume *volume, int status);
/* Requests and queries are kept without a reply until called with false. */
void fake_volume_hold(struct volume *volume, bool hold);
/* Reply -ETIMEDOUT to what is held, keeping it until fake_volume_hold(volume, false). */
void fake_volume_expire(struct volume *volume);
/* Reply in the opposite order of submission within one pass. */
void fake_volume_reverse(struct volume *volume, bool reverse);
/* volume_attach() gives `status`; 0: works. */
void fake_volume_set_attach_status(struct volume *volume, int status);
/* Deliver an event to all sessions. On the volume's reactor. */
void fake_volume_send_event(struct volume *volume, enum volume_session_event event);
void fake_volume_set_size(struct volume *volume, uint64_t size_bytes);

/* ---- what the tests look at ---- */

struct fake_volume_counters {
    uint64_t requests[VOLUME_OPERATION_COUNT];
    uint64_t fua;
    uint64_t no_hole;
    uint64_t fast_zero;
    uint64_t lookups_held; /* export look-ups that have not been released */
    uint32_t changes_held; /* snapshots that have not been given back */
    uint64_t changes_queries;
    uint32_t sessions;
    uint32_t in_flight;
    uint32_t in_flight_max;
};
const struct fake_volume_counters *fake_volume_counters(const struct volume *volume);
/* The newest session, or NULL. */
const struct volume_session *fake_volume_session(const struct volume *volume);

#endif
