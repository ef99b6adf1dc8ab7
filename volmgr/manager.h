/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manager: all pools, volumes and exports of one daemon, and every control operation on them.
 *
 * THEORY OF OPERATION
 *
 * The manager lives on the control reactor (reactor 0). Control operations are structs that embed a
 * struct control; they are submitted on the control reactor (a daemon's API threads send a message
 * first), run as phase machines that may wait for disks and for the store, and end by
 * reactor_complete() of control.op there. Each operation that changes something is durable when it
 * completes with 0. Operations that change one pool are run one after the other; those that only
 * report never wait for them and never touch a disk.
 *
 * Reports are copies in plain structs; arrays are allocated for the caller, who frees them with
 * free().
 */
#ifndef VOLMGR_MANAGER_H
#define VOLMGR_MANAGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "io/reactor.h"
#include "metadata/export_access.h"
#include "metadata/schema.h"
#include "volmgr/volume.h"

struct manager;
struct platform;
struct store;

/* ---- life ---- */

/* Opens (or creates) the database of a pool; control context. The simulator brings its own. */
typedef int manager_store_open_fn(void *context, const char *pool_name, bool create,
                                  struct store **ret_store, struct error *error);

/* Remove the database of a pool that was not created after all; it is closed. Control context. */
typedef int manager_store_remove_fn(void *context, const char *pool_name, struct error *error);
/* Names of all pools that have a database, each NUL-terminated, appended. Control context. */
typedef int manager_pool_list_fn(void *context, struct byte_buffer *ret_names,
                                 struct error *error);
/*
 * Where a disk might be that is not found under `missing_spec` any more: texts for backend_open(),
 * each NUL-terminated, appended. Control context. Finding none is no error.
 */
typedef void manager_disk_search_fn(void *context, const char *missing_spec,
                                    struct byte_buffer *ret_specs);
/* The one for real machines: the directory of the missing path, and /dev/disk/by-id. */
void manager_disk_search(void *context, const char *missing_spec, struct byte_buffer *ret_specs);

/*
 * How much room there is for the databases, on the file system of the state directory. Blocking.
 */
typedef int manager_state_free_fn(void *context, uint64_t *ret_free_bytes);

struct manager_options {
    struct platform *platform;
    struct reactor **reactors; /* [0] is the control reactor */
    uint32_t reactor_count;
    const char *state_directory; /* of this daemon; holds one database directory per pool */
    manager_store_open_fn *store_open;
    manager_store_remove_fn *store_remove;
    manager_pool_list_fn *pool_list;
    manager_disk_search_fn *disk_search; /* NULL: moved disks are not looked for */
    manager_state_free_fn *state_free;   /* NULL: it is not looked after */
    uint64_t ballast_bytes;              /* that each database keeps; 0: none */
    void *store_context;                 /* of these five */
    uint8_t host_guid[GUID_BYTES];       /* identity of this host, noted in the disk labels */
    uint32_t offload_threads; /* for calls that block: 2; 0 in simulation */
    uint64_t map_cache_bytes;      /* all reactors together; default 128 MiB */
    uint64_t journal_bytes;        /* volatile journal per reactor and pool; default 8 MiB */
    uint64_t commit_interval_ns;   /* longest time that a map change stays uncommitted: 2 s */
    uint64_t disk_timeout_ns;      /* default deadline of a disk operation: 30 s */
    uint64_t request_timeout_ns;   /* default deadline of a host's request: 60 s */
    bool accept_loss;              /* open volumes whose volatile journal is gone */
};
void manager_options_default(struct manager_options *options);

int manager_create(const struct manager_options *options, struct manager **ret_manager,
                   struct error *error);
/* Everything is closed (manager_shutdown) or abandoned (simulated death). */
void manager_destroy(struct manager *manager);

/* Common head of every control operation. */
struct control {
    struct io_op op;     /* result: 0 or -errno, the same as error.code */
    struct error error;  /* message for the administrator */
    struct manager *manager;
    struct list link;    /* in the pool's queue */
    void *machine;       /* phase machine, while it runs */
};

/*
 * What an operation that has not ended waits for, for people: its step, who is before it in line,
 * whether commits or a disk hold it up. Control reactor.
 */
void manager_control_describe(const struct control *control, char *text, size_t text_bytes);

/*
 * Open every pool that the state directory knows, replay, and begin to serve. A pool that cannot be
 * opened is reported by its state and an event, and does not stop the others; one that takes long
 * (a disk that does not answer) goes on being opened after this has completed.
 */
struct manager_start {
    struct control control;
};
void manager_start(struct manager *manager, struct manager_start *start);

/*
 * Take no new requests, let those in flight end, commit, mark clean, close. -ETIMEDOUT: that takes
 * too long (a disk hangs): the process has to end without manager_destroy(), as if it were killed,
 * and the next start recovers what has not been closed.
 */
struct manager_shutdown {
    struct control control;
};
void manager_shutdown(struct manager *manager, struct manager_shutdown *shutdown);

/* ---- pools and disks ---- */

struct disk_argument {
    char spec[DISK_SPEC_BYTES_MAX + 1];
    uint8_t tier;
};

struct pool_create {
    struct control control;
    char name[NAME_BYTES_MAX + 1];
    uint64_t extent_bytes; /* 0: default 4 MiB */
    bool force;            /* take disks that hold something else */
    uint32_t disk_count;
    struct disk_argument *disks;
};
void manager_pool_create(struct manager *manager, struct pool_create *create);

struct pool_add {
    struct control control;
    char name[NAME_BYTES_MAX + 1];
    bool force;
    uint32_t disk_count;
    struct disk_argument *disks;
};
/* Disks join the pool at once; nothing is moved to them. -EBUSY, -EEXIST: taken or foreign. */
void manager_pool_add(struct manager *manager, struct pool_add *add);

struct pool_delete {
    struct control control;
    char name[NAME_BYTES_MAX + 1];
    bool force; /* although it is not ONLINE: forget it, whatever its disks hold */
};
/*
 * A pool without volumes goes: its disks get rid of their labels, and its database is removed.
 * -EBUSY: it has volumes. -ENODEV: it is not whole, and `force` was not given.
 */
void manager_pool_delete(struct manager *manager, struct pool_delete *delete);

/* Without a database: rebuild it from the newest checkpoint and ledger on the disks. */
struct pool_import {
    struct control control;
    uint32_t disk_count;
    struct disk_argument *disks;
    bool force; /* although another host seems to have it open; logged */
    char ret_name[NAME_BYTES_MAX + 1];
    uint64_t ret_commit; /* state of this commit was restored */
};
void manager_pool_import(struct manager *manager, struct pool_import *import);

enum pool_state {
    POOL_STATE_ONLINE,    /* ordered from good to bad */
    POOL_STATE_DEGRADED,  /* a disk is missing or failed; some volumes are affected */
    POOL_STATE_READ_ONLY, /* metadata cannot be written */
    POOL_STATE_OPENING,
    POOL_STATE_OFFLINE,   /* could not be opened: see `reason` */
};
const char *pool_state_name(enum pool_state state);

struct disk_report {
    uint16_t index;
    uint8_t tier;
    uint8_t state; /* enum disk_state */
    uint8_t guid[GUID_BYTES];
    char spec[DISK_SPEC_BYTES_MAX + 1]; /* without secrets */
    char type[16];
    uint64_t size_bytes;
    uint64_t data_bytes;      /* that extents can use */
    uint64_t allocated_bytes; /* in extents */
    uint32_t block_bytes;
    bool ledger;
    struct backend_statistics statistics;
};

/*
 * Requests of hosts by their latency: counts[n] of those that took up to latency_bound_ns(n), and
 * longer than the bound before; the last one those that took longer.
 */
enum {
    LATENCY_BUCKETS = 21
};
static inline uint64_t
latency_bound_ns(uint32_t bucket)
{
    return UINT64_C(8192) << bucket; /* 8 us, 16 us ... 4.3 s */
}
struct latency {
    uint64_t counts[LATENCY_BUCKETS];
    uint64_t total_ns;
};
static inline void
latency_add(struct latency *latency, uint64_t ns)
{
    uint64_t units = (ns + 8191) >> 13;
    uint32_t bucket = units <= 1 ? 0 : 64u - (uint32_t)__builtin_clzll(units - 1);
    latency->counts[bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
    latency->total_ns += ns;
}

struct pool_report {
    char name[NAME_BYTES_MAX + 1];
    uint8_t guid[GUID_BYTES];
    enum pool_state state;
    char reason[ERROR_MESSAGE_SIZE]; /* why it is not ONLINE */
    uint64_t extent_bytes;
    uint64_t size_bytes;        /* sum of data_bytes */
    uint64_t allocated_bytes;   /* in extents */
    uint64_t used_bytes;        /* in grains */
    uint64_t trapped_bytes;     /* free grains inside allocated extents */
    uint64_t provisioned_bytes; /* sum of volume sizes */
    uint64_t reserved_bytes;
    uint64_t metadata_bytes;
    uint8_t taken_percent; /* of what a volume without a reserve can get */
    uint8_t warning_percent;
    uint8_t critical_percent;
    uint64_t commit;
    uint64_t incarnation;
    struct latency latency[VOLUME_OPERATION_COUNT]; /* of all volumes, since the pool was opened */
    uint32_t volume_count;
    uint32_t disk_count;
    struct disk_report *disks; /* free() */
};

struct pool_query {
    struct control control;
    char name[NAME_BYTES_MAX + 1]; /* empty: all */
    uint32_t ret_count;
    struct pool_report *ret_pools; /* free() each `disks`, then it */
};
void manager_pool_query(struct manager *manager, struct pool_query *query);
void pool_query_free(struct pool_query *query);

/* ---- volumes ---- */

struct volume_name {
    char pool[NAME_BYTES_MAX + 1];
    char volume[NAME_BYTES_MAX + 1];
    char snapshot[NAME_BYTES_MAX + 1]; /* of that volume; empty: the volume itself */
};
/* "POOL/VOL"; -EINVAL with `error` set. */
int volume_name_parse(const char *text, struct volume_name *ret_name, struct error *error);
/* "POOL/VOL@SNAPSHOT"; `snapshot` stays empty for "POOL/VOL" where that is allowed. */
int snapshot_name_parse(const char *text, bool volume_allowed, struct volume_name *ret_name,
                        struct error *error);
enum {
    SNAPSHOT_PATH_SIZE = 3 * NAME_BYTES_MAX + 3
};
/* "POOL/VOL" or "POOL/VOL@SNAPSHOT" */
void volume_name_format(const struct volume_name *name, char text[static SNAPSHOT_PATH_SIZE]);

struct volume_create {
    struct control control;
    struct volume_name name;
    uint64_t size_bytes;    /* multiple of the sector; at most 8 EiB - 64 KiB */
    uint64_t reserve_bytes; /* space that this volume is sure to have */
    uint32_t sector_bytes;  /* 0: 512 */
    uint8_t tier;           /* VOLUME_TIER_AUTO or a number */
};
void manager_volume_create(struct manager *manager, struct volume_create *create);

struct volume_delete {
    struct control control;
    struct volume_name name;
    bool snapshots; /* its snapshots, too; otherwise -ENOTEMPTY when it has some */
    bool dry_run;   /* change nothing: only whether it could be done, and what it would free */
    uint64_t ret_freed_bytes; /* of a dry run */
    uint32_t ret_hidden;      /* snapshots that stay without a name, since clones need them */
};
/*
 * -EBUSY while exported or attached, or while one of its snapshots is in use; -EPERM while one of
 * them is immutable. Returns when the name is gone; space comes back as a job. Clones stay.
 */
void manager_volume_delete(struct manager *manager, struct volume_delete *delete);

struct volume_resize {
    struct control control;
    struct volume_name name;
    uint64_t size_bytes; /* smaller only when the tail holds nothing: -ENOTEMPTY otherwise */
};
void manager_volume_resize(struct manager *manager, struct volume_resize *resize);

struct volume_rename {
    struct control control;
    struct volume_name name;
    char new_name[NAME_BYTES_MAX + 1];
};
/* Identity, data and attached hosts stay; export names that followed the name follow it again. */
void manager_volume_rename(struct manager *manager, struct volume_rename *rename);

struct volume_set_reserve {
    struct control control;
    struct volume_name name;
    uint64_t reserve_bytes;
};
/* -ENOSPC when the pool cannot promise that much. */
void manager_volume_set_reserve(struct manager *manager, struct volume_set_reserve *set);

struct volume_accept_loss {
    struct control control;
    struct volume_name name;
};
/*
 * A disk lost writes of the volume, and it is not known which: it answers no I/O. From now on it
 * serves what the disks kept, as after a power cut. -EALREADY when it serves already.
 */
void manager_volume_accept_loss(struct manager *manager, struct volume_accept_loss *accept);

struct volume_report {
    struct volume_info info;
    uint64_t id;
    uint64_t reserve_bytes;
    uint64_t mapped_bytes; /* in grains: all that its blocks are in, shared with snapshots or not */
    uint64_t exclusive_bytes; /* of these: freed if the volume alone were deleted; see `space` */
    uint64_t shared_bytes;    /* the others: snapshots, clones or its origin need them, too */
    uint32_t snapshot_count;  /* with a name */
    bool has_parent;          /* it is a clone, and still needs what it was made from */
    struct volume_name parent; /* empty volume: that has been deleted; empty snapshot: likewise */
    bool has_policy;          /* snapshots of it are made by a schedule */
    uint8_t tier;
    uint32_t reactor;
    bool affected;         /* some of its space is on a missing disk */
    bool fenced;           /* it answers no I/O: see manager_volume_accept_loss() */
    char problem[256];     /* empty: none */
    uint32_t session_count;
    uint32_t export_count;
    uint64_t created_realtime_ns;
    uint64_t operations[VOLUME_OPERATION_COUNT];
    uint64_t bytes[VOLUME_OPERATION_COUNT];
    uint64_t errors[VOLUME_OPERATION_COUNT];
    uint64_t latency_total_ns[VOLUME_OPERATION_COUNT];
};

struct volume_query {
    struct control control;
    struct volume_name name; /* empty parts: all */
    bool space; /* exclusive and shared bytes, too: that reads the databases */
    uint32_t ret_count;
    struct volume_report *ret_volumes; /* free() */
};
void manager_volume_query(struct manager *manager, struct volume_query *query);

/* ---- snapshots ---- */

/*
 * Take a snapshot of each of the volumes, all at one instant: of two writes, the second of which
 * was sent after the reply to the first one, no snapshot has the second without the first, on
 * whichever of the volumes. All of them exist when this completes with 0, or none, whatever fails
 * or crashes. Hosts go on; a write waits for at most 50 ms.
 *
 * -EEXIST: there is one of that name; -EXDEV: the volumes are of several pools; -ETIMEDOUT: what
 * was written before could not be made durable in time: a disk does not answer (it is named);
 * -EIO: it cannot be made durable; -ENOSPC: the reserve of a volume could not be kept.
 */
struct snapshot_create {
    struct control control;
    uint32_t count;              /* 1 .. SNAPSHOT_GROUP_MAX, no volume twice */
    struct volume_name *names;   /* the caller's; an empty `snapshot` is replaced by a name that
                                  * tells the time: "20260131T235959Z" */
    uint64_t expires_realtime_ns; /* immutable until then; 0: it is not */
    uint8_t rules;               /* made for these rules of the volume's policy; 0: by hand */
    uint64_t timeout_ns;         /* 0: SNAPSHOT_TIMEOUT_NS */
    uint64_t ret_created_realtime_ns;
};
enum {
    SNAPSHOT_GROUP_MAX = 256
};
#define SNAPSHOT_TIMEOUT_NS (5 * NS_PER_S)
void manager_snapshot_create(struct manager *manager, struct snapshot_create *create);

/*
 * Delete snapshots of one pool, all in one commit. One that clones were made from loses its name
 * and stays until they are gone. Returns when the names are gone; space comes back as a job.
 *
 * -EBUSY: it is exported or being read; -EPERM: it is immutable, and until when; -ENOENT.
 */
struct snapshot_delete {
    struct control control;
    uint32_t count;            /* at least 1 */
    struct volume_name *names; /* the caller's */
    bool dry_run;              /* change nothing; the checks are made */
    uint64_t ret_freed_bytes;  /* dry run: what deleting all of them would free, or frees later */
    uint32_t ret_hidden;       /* that stay without a name */
};
void manager_snapshot_delete(struct manager *manager, struct snapshot_delete *delete);

struct snapshot_report {
    struct volume_name name; /* empty snapshot: it has been deleted, and clones need it */
    uint64_t id;
    uint8_t guid[GUID_BYTES];
    uint8_t group_guid[GUID_BYTES]; /* of those taken at one instant; zeroes: it was alone */
    uint64_t size_bytes;
    uint64_t mapped_bytes;    /* in grains that it names */
    uint64_t exclusive_bytes; /* of these: freed if it alone were deleted; see `space` */
    uint64_t shared_bytes;    /* the others */
    uint64_t created_realtime_ns;
    uint64_t expires_realtime_ns; /* 0: it can be deleted at any time */
    uint32_t clone_count;  /* volumes that were made from it and need it */
    uint32_t export_count;
    uint32_t hold_count;   /* who reads it now: hosts, comparisons */
    uint8_t rules;         /* of the volume's policy that it was made for; 0: by hand */
};

struct snapshot_query {
    struct control control;
    struct volume_name name; /* empty parts: all */
    bool hidden;             /* also those that have been deleted and that clones need */
    bool space;              /* exclusive and shared bytes, too: that reads the databases */
    uint32_t ret_count;
    struct snapshot_report *ret_snapshots; /* by volume, oldest first; free() */
};
/* -ENOENT: a pool, volume or snapshot that was named is not there. */
void manager_snapshot_query(struct manager *manager, struct snapshot_query *query);

/*
 * Nobody can delete the snapshot before that time, which can only be put off: -EPERM. It is held
 * against a clock of the pool's own, which setting the machine's clock does not move.
 */
struct snapshot_set_expiry {
    struct control control;
    struct volume_name name;
    uint64_t expires_realtime_ns;
};
void manager_snapshot_set_expiry(struct manager *manager, struct snapshot_set_expiry *set);

/*
 * A new volume `name`, in the same pool, that begins as what `from` is: a snapshot, or a volume as
 * it is now (then with a snapshot of its own that has no name and goes with the last clone). No
 * data is copied; both can be written, and deleted, independently. The size is that of `from`.
 */
struct volume_clone {
    struct control control;
    struct volume_name from;
    struct volume_name name;
    uint64_t reserve_bytes;
    uint8_t tier; /* VOLUME_TIER_AUTO or a number */
    uint64_t timeout_ns; /* as for snapshot_create; of a volume */
};
void manager_volume_clone(struct manager *manager, struct volume_clone *clone);

/*
 * The volume becomes what its snapshot is; what was written since is gone, but for what later
 * snapshots hold, which stay. Identity, name, exports and reserve stay; the size is the snapshot's.
 * -EBUSY while a host is attached. Takes no longer for large volumes.
 */
struct volume_rollback {
    struct control control;
    struct volume_name name; /* with the snapshot */
};
void manager_volume_rollback(struct manager *manager, struct volume_rollback *rollback);

/* ---- changed blocks ---- */

struct volume_diff_run {
    uint64_t offset_bytes;
    uint64_t length_bytes;
};

enum {
    VOLUME_DIFF_RUNS_MAX = 65536
};

/*
 * What differs between a snapshot and a later state of the same volume (or of a clone, or of what a
 * rollback left behind): the blocks of `to` that are not as `from` shows them, exact to 4 KiB,
 * joined to runs as long as possible, in order. Where `to` is larger than `from`, what is behind
 * the end of `from` is compared with zeroes. One answer covers a part of the range: ask again from
 * ret_next_bytes until that is ret_end_bytes. Of a volume itself: its state during the answer.
 *
 * -ENOENT: one of them does not exist; -EXDEV: they have no common past, or are not of one pool.
 */
struct volume_diff {
    struct control control;
    struct volume_name from; /* a snapshot */
    struct volume_name to;   /* a snapshot, or (snapshot empty) a volume as it is now */
    uint64_t offset_bytes;
    uint64_t length_bytes; /* 0: to the end; cut at the end of `to` */
    uint32_t runs_max;     /* of one answer; 0: VOLUME_DIFF_RUNS_MAX, which is also the most */
    uint64_t ret_from_bytes; /* sizes of the two */
    uint64_t ret_to_bytes;
    uint64_t ret_next_bytes; /* everything before it has been told */
    uint64_t ret_end_bytes;  /* of the range */
    uint32_t ret_count;
    struct volume_diff_run *ret_runs; /* free() */
};
void manager_volume_diff(struct manager *manager, struct volume_diff *diff);

/* ---- schedules of snapshots ---- */

/*
 * Snapshots of the volume are made and deleted by these rules from now on: each makes one "every"
 * so often, at multiples of that time since 1970 UTC, and keeps the newest `keep` of its own. What
 * was missed while the daemon did not run is made once. None in use: the schedule ends, and what
 * was made by it stays. Who made a snapshot by hand deletes it by hand.
 */
struct policy_set {
    struct control control;
    struct volume_name name;
    struct policy_record policy;
};
/* -EINVAL: `every` below a second, `keep` not in 1 .. 10000. */
void manager_policy_set(struct manager *manager, struct policy_set *set);

struct policy_report {
    struct volume_name name;
    struct policy_record policy;
    uint64_t next_realtime_ns;  /* when the next snapshot is due */
    uint64_t failed_realtime_ns; /* the last one failed then; 0: it did not */
    char problem[256];          /* how */
};

struct policy_query {
    struct control control;
    struct volume_name name; /* empty parts: all that have one */
    uint32_t ret_count;
    struct policy_report *ret_policies; /* free() */
};
void manager_policy_query(struct manager *manager, struct policy_query *query);

/* ---- exports ---- */

struct export_create {
    struct control control;
    struct volume_name name; /* a snapshot is exported read-only, as "POOL/VOL@SNAPSHOT" */
    /*
     * id, volume are filled in; an empty name becomes POOL/VOL. `options` is as written by
     * export_access_format(). One export of a protocol can be the default: -EBUSY otherwise.
     */
    struct export_record record;
};
void manager_export_create(struct manager *manager, struct export_create *create);

struct export_delete {
    struct control control;
    struct volume_name name; /* of a volume: not the exports of its snapshots */
    char protocol[16];  /* empty: all */
    bool drop_sessions; /* otherwise -EBUSY while hosts are attached */
};
void manager_export_delete(struct manager *manager, struct export_delete *delete);

struct export_report {
    struct export_record record;
    struct volume_name volume; /* with the snapshot, if it is one's */
    uint64_t size_bytes;
    uint32_t session_count;
};

struct export_query {
    struct control control;
    char protocol[16]; /* empty: all */
    uint32_t ret_count;
    struct export_report *ret_exports; /* free() */
};
void manager_export_query(struct manager *manager, struct export_query *query);

/*
 * For targets, from any reactor: find an export by the name that a host asked for. The completion
 * comes on the calling reactor. With result 0 the volume is held until export_release(); attach to
 * it on volume_reactor(volume).
 */
struct export_lookup {
    /* 0, -ENOENT, -EAGAIN (unknown, but a pool is still being opened: ask again in a while),
     * -ENODEV (pool not serving), -EACCES (not for this host), -ENOKEY (not without TLS) */
    struct io_op op;
    char protocol[16];
    char name[NAME_BYTES_MAX * 2 + 2]; /* empty: the default export */
    struct export_client client;
    struct export_record ret_record;
    struct volume *ret_volume;
    struct volume_info ret_info;
    struct message message;
    struct reactor *reply_to;
    struct manager *manager;
};
void manager_export_lookup(struct manager *manager, struct export_lookup *lookup);
/* Any reactor. */
void manager_export_release(struct manager *manager, struct volume *volume);

/*
 * For targets, from any reactor: the names of the exports of a protocol that this client may use,
 * each NUL-terminated.
 */
struct export_names {
    struct io_op op; /* 0, or -EAGAIN: a pool is still being opened, and there may be more */
    char protocol[16];
    struct export_client client;
    struct byte_buffer ret_names; /* the caller frees it */
    struct message message;
    struct reactor *reply_to;
    struct manager *manager;
};
void manager_export_names(struct manager *manager, struct export_names *names);

/* ---- sessions ---- */

struct session_report {
    uint64_t id;
    struct volume_name volume;
    char protocol[16];
    char peer[128];
    char identity[128];
    bool read_only;
    bool exclusive;
    bool dropping;
    uint64_t attached_realtime_ns;
    uint64_t reads, writes, read_bytes, written_bytes;
    uint64_t read_total_ns, write_total_ns; /* from the request to its reply */
    uint32_t in_flight;
    uint32_t reactor;
};

struct session_query {
    struct control control;
    uint32_t ret_count;
    struct session_report *ret_sessions; /* free() */
};
void manager_session_query(struct manager *manager, struct session_query *query);

/*
 * Drop sessions by id, or by peer or identity text. Completes with 0 when nothing of them can still
 * take effect; -ETIMEDOUT when that is not so at the deadline: they take no request any more, and
 * end by themselves.
 *
 * `block`: refuse that host from now on, over every transport: by the text, and by the addresses
 * and identities of its sessions. That is durable (in the state directory) when this completes
 * with 0.
 * `unblock`: let in again what was blocked by that text; drops nothing.
 */
struct session_drop {
    struct control control;
    uint64_t id;      /* 0: by text */
    char match[128];  /* equal to the peer's host part or to the identity */
    bool block;
    bool unblock;
    uint64_t timeout_ns; /* 0: that of requests */
    uint32_t ret_dropped; /* that have ended */
};
void manager_session_drop(struct manager *manager, struct session_drop *drop);

/* Hosts that are refused. */
struct block_report {
    char match[128];  /* address or identity */
    char origin[128]; /* the text by which it was blocked: to be named to unblock it */
};

struct block_query {
    struct control control;
    uint32_t ret_count;
    struct block_report *ret_blocks; /* free() */
};
void manager_block_query(struct manager *manager, struct block_query *query);

/* ---- events and jobs ---- */

enum event_severity {
    EVENT_INFO,
    EVENT_WARNING,
    EVENT_CRITICAL,
};

struct event {
    uint64_t sequence;
    uint64_t realtime_ns;
    enum event_severity severity;
    char pool[NAME_BYTES_MAX + 1];
    char subject[2 * NAME_BYTES_MAX + 2]; /* a disk, a volume, or empty */
    char name[48];                        /* stable, such as "pool-space-warning" */
    char text[256];
};

struct event_query {
    struct control control;
    uint64_t after_sequence;
    bool wait; /* complete when there is one, or after wait_ns */
    uint64_t wait_ns;
    uint32_t ret_count;
    struct event *ret_events; /* free() */
    struct list wait_link;
    struct timer timer;
};
void manager_event_query(struct manager *manager, struct event_query *query);

struct job_report {
    uint64_t id;
    char kind[32]; /* "delete", "checkpoint", "check" ... */
    char subject[2 * NAME_BYTES_MAX + 2];
    uint8_t percent;
    bool finished;
    int result;
    char text[256];
    uint64_t started_realtime_ns;
    uint64_t ended_realtime_ns;
};

struct job_query {
    struct control control;
    uint64_t id; /* 0: all */
    uint32_t ret_count;
    struct job_report *ret_jobs; /* free() */
};
void manager_job_query(struct manager *manager, struct job_query *query);

/* ---- checking a pool that serves (check_online.c) ---- */

/*
 * Begin to check the metadata of a pool, in the background and without holding up I/O: the database
 * as of one commit, the labels of the disks that answer, and what the daemon has in memory. At
 * once: the result is asked for with check_query. While one is running it is that one.
 */
struct pool_check {
    struct control control; /* 0, -ENOENT, -ENODEV (the pool does not serve), -ESHUTDOWN */
    char name[NAME_BYTES_MAX + 1];
    uint64_t ret_job;
};
void manager_pool_check(struct manager *manager, struct pool_check *check);

enum {
    CHECK_NOTES_MAX = 200 /* more are counted, and not kept */
};

struct check_note {
    bool is_error; /* or a warning: space or tidiness */
    char code[40]; /* stable, such as "grain-leaked" */
    char text[240];
};

/* The last check of a pool since the daemon started. */
struct check_report {
    char pool[NAME_BYTES_MAX + 1];
    uint64_t job;
    uint8_t percent;
    bool finished;
    int result; /* 0: complete, whatever was found; -errno: it could not be done, see `reason` */
    char reason[256];
    uint64_t errors;
    uint64_t warnings;
    uint64_t commit; /* state after this one was checked */
    uint64_t records;
    uint64_t extents;
    uint64_t pages;
    uint64_t grains;
    uint32_t disks; /* whose labels were read */
    uint64_t started_realtime_ns;
    uint64_t ended_realtime_ns;
    uint32_t note_count;
    struct check_note *notes; /* free() */
};

struct check_query {
    struct control control;
    char name[NAME_BYTES_MAX + 1]; /* of a pool; empty: all */
    uint32_t ret_count;
    struct check_report *ret_checks; /* check_query_free() */
};
void manager_check_query(struct manager *manager, struct check_query *query);
void check_query_free(struct check_query *query);

#endif
