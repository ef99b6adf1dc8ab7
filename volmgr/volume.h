/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What targets may know of a volume: identity, geometry, and who is attached.
 */
#ifndef VOLMGR_VOLUME_H
#define VOLMGR_VOLUME_H

#include "base/list.h"
#include "volmgr/request.h"

struct reactor;
struct volume;
struct volume_session;

struct volume_info {
    char pool_name[NAME_BYTES_MAX + 1];
    char name[NAME_BYTES_MAX + 1];
    char snapshot[NAME_BYTES_MAX + 1]; /* empty: it is the volume, not a snapshot of it */
    uint8_t guid[GUID_BYTES];
    uint64_t size_bytes;
    uint32_t sector_bytes;    /* logical: 512 or 4096 */
    uint32_t block_bytes;     /* preferred: 4096 */
    uint32_t grain_bytes;     /* discard granularity: 64 KiB */
};

/* Any thread; a copy. */
void volume_get_info(struct volume *volume, struct volume_info *ret_info);
/* The reactor that owns the volume: submit there. Constant for as long as a session is attached. */
struct reactor *volume_reactor(struct volume *volume);

/*
 * Attaching. A session stands for one host's connection to one volume; while it is attached the
 * volume is neither deleted nor moved. Owner reactor only.
 */
enum volume_session_event {
    VOLUME_SESSION_RESIZED, /* volume_get_info() tells the new size */
    VOLUME_SESSION_DROP,    /* end now: take no further request; detach when none is in flight */
};
typedef void volume_session_event_fn(struct volume_session *session,
                                     enum volume_session_event event);

struct volume_session {
    struct volume *volume;
    struct list link; /* the volume's */
    struct list reactor_link; /* all sessions of the reactor */
    uint64_t id;      /* unique in this run of the daemon; set by attach */
    const char *protocol;              /* "nbd" */
    char peer[128];                    /* for people and for --block */
    char identity[128];                /* TLS name, IQN, or empty */
    uint64_t export_id; /* of the export by which the host came; 0: by none */
    bool read_only;
    bool exclusive;
    bool dropping; /* DROP has been delivered */
    uint64_t attached_realtime_ns;
    uint64_t reads, writes, read_bytes, written_bytes; /* the target's to count */
    uint64_t read_total_ns, write_total_ns;            /* latencies; likewise */
    uint32_t in_flight;                                /* the target's to keep */
    volume_session_event_fn *event;
};

/*
 * 0; -EBUSY: an exclusive session is attached, or this one wants to be and is not alone (one
 * connection, also of the same host); -ENODEV: being deleted, or no longer exported, or the pool is
 * not serving; -EACCES: the host is blocked.
 */
int volume_attach(struct volume *volume, struct volume_session *session);
/* No request of the session is in flight. */
void volume_detach(struct volume_session *session);

#endif
