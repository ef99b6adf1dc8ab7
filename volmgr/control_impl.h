/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the control plane share. All of it runs on the control reactor unless stated.
 */
#ifndef VOLMGR_CONTROL_IMPL_H
#define VOLMGR_CONTROL_IMPL_H

#include "volmgr/core_impl.h"
#include "volmgr/machine_impl.h"

enum {
    VOLUME_SECTOR_BYTES_DEFAULT = 512,
    POOL_WARNING_PERCENT_DEFAULT = 80,
    POOL_CRITICAL_PERCENT_DEFAULT = 95,
};
#define VOLUME_SIZE_BYTES_MAX       ((UINT64_C(1) << 63) - GRAIN_BYTES) /* 8 EiB - 64 KiB */
#define POOL_EXTENT_BYTES_DEFAULT   (4 * MIB)
#define CONTROL_POLL_NS             (1 * NS_PER_MS) /* between two looks at something that drains */
#define HEARTBEAT_NS                (5 * NS_PER_S)  /* an open pool's labels are written so often */
#define HEARTBEAT_WATCH_NS          (12500 * NS_PER_MS) /* no change so long: nobody has it open */

/* ---- pool.c: the object ---- */

/* In the manager's list, state OPENING, with empty tables. Context: control. */
struct pool *pool_new(struct manager *manager, const char *name);
/* Not in use by any other reactor; nothing under way; store and backends closed. */
void pool_free(struct pool *pool);
/* How much of the space that a volume without a reserve can get has been taken. */
uint8_t pool_taken_percent(const struct pool *pool);
struct pool *manager_find_pool(const struct manager *manager, const char *name);
void pool_set_state(struct pool *pool, enum pool_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static inline bool
pool_is_serving(const struct pool *pool)
{
    return pool->state <= POOL_STATE_READ_ONLY;
}
/* 0, or -EROFS, -ENODEV with `error` set: whether metadata of the pool can be changed. */
int pool_check_writable(const struct pool *pool, struct error *error);
/* Random bytes for an identity. */
void manager_make_guid(const struct manager *manager, uint8_t guid[static GUID_BYTES]);
void guid_format(const uint8_t guid[static GUID_BYTES], char text[static 37]);
uint64_t manager_realtime_ns(const struct manager *manager);
uint64_t text_hash(const char *text);

/* A disk of the pool from its record; slots all free, backend missing. NULL: index is taken. */
struct disk *pool_disk_new(struct pool *pool, const struct disk_record *record);
/*
 * When nothing is in flight on it any more: close what could not be closed before, and free it if
 * the pool has let go of it.
 */
void disk_release(struct disk *disk);
/* Take back a disk that was added last; its backend is closed. */
void pool_disk_free(struct pool *pool, struct disk *disk);
/*
 * Geometry that follows from the record: grains per extent, extent table, allocator. 0 or -errno.
 */
int pool_prepare(struct pool *pool, const struct pool_record *record);
/* Room in the tables for that many volumes. Once, before the first volume. */
void pool_prepare_volumes(struct pool *pool, size_t expected_count);

/* ---- disk_probe.c: opening disks, reading their labels ---- */

/* One disk text on its way to an open backend and a label that was read. */
struct disk_probe {
    struct machine *machine;
    char spec[DISK_SPEC_BYTES_MAX + 1];
    uint8_t tier;
    uint16_t index; /* the caller's: which disk of the pool */
    uint32_t flags; /* enum backend_open_flags */
    struct backend *backend; /* NULL: not open */
    int status;              /* of the opening, then of label_read(); -ETIMEDOUT: see below */
    struct error error;      /* of the opening */
    struct label label;
    struct foreign_content foreign;
};

/* 1 to POOL_DISKS_MAX disks, none twice. 0, or -EINVAL with `error` set. */
int disk_arguments_check(const struct disk_argument *disks, uint32_t count, struct error *error);
/* A disk text for people. */
void disk_spec_without_secrets(const char *spec, char *to, size_t to_bytes);
/* One probe for each, with indices from `first_index`; free(). */
struct disk_probe *disk_probes_from_arguments(const struct disk_argument *disks, uint32_t count,
                                              uint16_t first_index);
/*
 * Start to open those that are not open, or to read the labels of those that are. Those that do not
 * answer in time end with -ETIMEDOUT; their backend is NULL then, and closed by itself one day.
 */
void disk_probes_open(struct machine *machine, struct disk_probe *probes, uint32_t count);
void disk_probes_read(struct machine *machine, struct disk_probe *probes, uint32_t count);
/* Close what they hold; one job for all of them. */
struct backends_close {
    struct machine_job job;
    struct backend **backends;
    uint32_t count;
};
void disk_probes_close(struct machine *machine, struct backends_close *close,
                       struct disk_probe *probes, uint32_t count);
void backends_close_begin(struct backends_close *close, uint32_t count_max);
void backends_close_run(struct machine *machine, struct backends_close *close);
void backends_close_free(struct backends_close *close);

/* ---- pool_take.c: taking disks into a pool; each returns 0, or -errno with `error` set ---- */

int disk_probes_check_opened(const struct disk_probe *probes, uint32_t count,
                             struct error *error);
/*
 * Labels have been read: may they be taken? A disk of a pool that this daemon has open may not,
 * whatever `force` says.
 */
int disk_probes_judge(const struct manager *manager, const struct disk_probe *probes,
                      uint32_t count, bool force, struct error *error);
/* Make a disk of the pool of it; its backend moves there. Nothing is written. */
int pool_lay_out_disk(struct pool *pool, struct disk_probe *probe, bool with_ledger,
                      struct error *error);
/* Labels have been written: read them again, and check that each disk has its own. */
void disk_probes_read_back(struct machine *machine, struct pool *pool,
                           struct disk_probe *probes, uint32_t count);
int disk_probes_verify(struct pool *pool, struct disk_probe *probes, uint32_t count,
                       struct error *error);

/* ---- pool_disks.c ---- */

/* Close all backends of the pool. No other reactor uses them any more. */
void pool_backends_close(struct machine *machine, struct backends_close *close,
                         struct pool *pool);

/*
 * Write the labels of all present disks (those of `only`, if not NULL) from the records; afterwards
 * disk->label_status tells how it went for each, and the machine's status the first error. `wipe`:
 * remove them instead. Only by who holds the pool's line, and by the pool's checkpoint.
 */
void pool_labels_write(struct machine *machine, struct pool *pool, struct disk *only, bool is_open,
                       bool wipe);
/* The same for the pool's checkpoint; disks that are being added are left to who adds them. */
void pool_labels_write_members(struct machine *machine, struct pool *pool);
/*
 * Write those that are not being written, saying that the pool is open, if they are still ours;
 * nobody waits for it.
 */
void pool_labels_beat(struct pool *pool);
/* It is here, and has not answered for a while: the writing of a label or checkpoint goes on. */
bool disk_is_silent(const struct disk *disk);
/* The first such; NULL: none. */
const struct disk *pool_silent_disk(const struct pool *pool);
/* How many went well, of all members that are present; an event for each of the others. */
uint32_t pool_labels_good(struct pool *pool);
/* Fill in disk->label; `is_open`: this host is using the pool. */
void pool_label_fill(struct pool *pool, struct disk *disk, bool is_open);

/* ---- pool_heartbeat.c: no two daemons have one pool open ---- */

/* Does the label that was read say that the disk is another's by now? */
bool pool_label_is_others(const struct disk *disk, const struct label *label);
/* It does: nothing of the pool is written any more, and its volumes answer errors. */
void pool_lose(struct pool *pool, const struct disk *disk, const struct label *label);

/* Of an open pool: write the labels again and again, so that others see that it is in use. */
void pool_heartbeat_start(struct pool *pool);
void pool_heartbeat_stop(struct pool *pool);

/* Looking whether somebody else does, for labels that say that their pool is open. */
struct heartbeat_watch {
    struct machine_pause pause;
    uint32_t count; /* 0: nothing is being watched */
    uint64_t *generations; /* by probe, as they were; 0: not watched */
};
/*
 * The labels of the probes have been read. False: none needs to be watched. Otherwise a pause has
 * begun; read them again behind it, then judge.
 */
bool heartbeat_watch_begin(struct machine *machine, struct heartbeat_watch *watch,
                           const struct disk_probe *probes, uint32_t count);
/* 0, or -EBUSY with `error` set: a label has changed meanwhile. Ends the watch. */
int heartbeat_watch_judge(struct heartbeat_watch *watch, const struct disk_probe *probes,
                          struct error *error);

/* ---- pool_copies.c: which disks hold the commit ledger ---- */

enum {
    POOL_LEDGER_COPIES = 2 /* so many are wanted: each is written with every commit */
};

/* Whether the copy on this disk is to be believed rather than the other one's. */
bool label_has_better_ledger(const struct label *label, const struct label *other);
/* Disks that are here and have room for a copy, up to LEDGER_COPIES_MAX. */
uint32_t pool_ledger_copies(const struct pool *pool);
/* Is a disk that is about to be added to get room for one? */
bool pool_wants_room_for_copy(const struct pool *pool, const struct disk_probe *probe);
/*
 * Create pool->ledger over up to `copies_max` of them, the most trusted first. 0 (also when there
 * is none), or -errno.
 */
int pool_ledger_create(struct pool *pool, uint32_t copies_max);
/* Bit n is the n-th of pool->ledger_disks: only these are current; the labels will say so. */
void pool_ledger_note_current(struct pool *pool, uint32_t current);

/* ---- pool_serve.c: from loaded records to serving, and back ---- */

/* Shards with their volatile journals for this run; one blocking job. Fills pool->run. */
struct shards_create {
    struct machine_job job;
    struct pool *pool;
    uint64_t rings_from; /* incarnation: rings of it and later ones may have been left; 0: none */
    uint64_t rings_kept; /* those of this one are wanted; 0: of none */
    struct error error;
};
void pool_shards_create(struct machine *machine, struct shards_create *create, struct pool *pool);
/* Undo, before they have been started, or after the pool has been drained. `remove`: the rings. */
void pool_shards_destroy(struct pool *pool, bool remove_journals);
/*
 * Every extent goes to the source that hands out its grains (X2 holds). `ret_unused` gets the ids
 * (uint64_t[]) of those that hold nothing: allocator_release() them when the pool serves.
 */
void pool_place_extents(struct pool *pool, struct byte_buffer *ret_unused);
/* Start the shards, and let the volumes serve. A round. */
void pool_serve(struct machine *machine, struct round *round, struct pool *pool);

/*
 * Put a new volume into the pool's tables; volume_new() and volume_publish_info() have been done.
 */
void pool_add_volume(struct pool *pool, struct volume *volume);
void pool_remove_volume(struct pool *pool, struct volume *volume);
/* Free it with all that the control plane hangs on it; no other reactor knows it (V2). */
void volume_release(struct volume *volume);
/* NULL when there is none of that name that is not being deleted. */
struct volume *pool_find_volume(const struct pool *pool, const char *name);
struct volume *pool_find_volume_by_id(const struct pool *pool, uint64_t id);
struct volume *pool_find_volume_by_branch(const struct pool *pool, uint64_t branch);
/*
 * Make volume_get_info() tell what volume->durable says. Returns the info before (NULL: none),
 * which the caller frees after a round.
 */
struct volume_info *volume_publish_info(struct volume *volume);

/* ---- pool_checkpoint.c ---- */

/* At open: extents of checkpoints that were not finished, or have been replaced (KP3). */
void pool_checkpoint_give_back_orphans(struct pool *pool);
/* Write one now, by who holds the pool's line; nothing serves yet. */
typedef void pool_checkpoint_done_fn(void *context, int status);
void pool_checkpoint_now(struct pool *pool, pool_checkpoint_done_fn *done, void *context);
/* Whether one is being written; it ends soon. */
bool pool_checkpoint_cancel(struct pool *pool);

/* ---- state_space.c: room for the databases ---- */

/* The pool serves: look after the file system of the state directory from now on. */
void state_space_watch(struct pool *pool);
/* The pool is being closed. False: not yet, ask again. */
bool state_space_end(struct pool *pool);

/* ---- check_online.c ---- */

void checks_init(struct manager *manager);
void checks_free(struct manager *manager);
/* Whether one of this pool is running; it ends soon. */
bool pool_check_cancel(struct pool *pool);

/* ---- pool_close.c ---- */

/*
 * Drain, commit, mark clean, close, free. Stands in the pool's line; `done` is called at the end.
 */
typedef void pool_closed_fn(struct manager *manager, void *context, const struct error *error);
void pool_close(struct pool *pool, pool_closed_fn *done, void *context);

/* ---- pool_open.c ---- */

/* Open a pool that has a database; it stays, ONLINE or OFFLINE with the reason. */
typedef void pool_opened_fn(struct manager *manager, void *context);
void pool_open(struct pool *pool, pool_opened_fn *done, void *context);

/* ---- export.c ---- */

struct export {
    struct list manager_link;
    struct list volume_link;
    struct hash_node by_name; /* manager->exports_by_name, while it is active */
    struct list default_link; /* manager->default_exports, if it is active and a default */
    struct volume *volume;
    struct snapshot *snapshot; /* of the volume, that is exported; NULL: the volume itself */
    struct export_record record;
    struct export_access access; /* of record.options */
    bool active; /* false: another pool has an export of this name */
    bool hidden; /* not found by look-ups: it is being made or removed */
    bool pending; /* the commit that makes it is under way: its name is taken already */
    struct export *renamed; /* holds the new name until the commit that gives it has ended */
};

void exports_init(struct manager *manager);
void exports_free(struct manager *manager); /* every pool has been closed */
/* An export that the store has; at open. */
void export_restore(struct volume *volume, const struct export_record *record);
/* Forget the exports of a volume without touching the store; the pool is closing. */
void exports_forget(struct volume *volume);
void export_set_hidden(struct export *export, bool hidden);
/* Forget one; its record has been deleted. */
void export_remove(struct export *export);
/*
 * A volume is to be renamed: exports that have its name follow. Append their records, and hold the
 * new names; 0, or -EEXIST, -EBUSY with `error` set and nothing held. End it in any case after a 0.
 */
int exports_rename_begin(struct volume *volume, const char *new_volume_name,
                         struct byte_buffer *batch, struct error *error);
void exports_rename_end(struct volume *volume, bool done);
/* On the volume's reactor: whether hosts that have come by this export may attach. */
void volume_open_export(struct volume *volume, uint64_t export_id);
void volume_shut_export(struct volume *volume, uint64_t export_id);
bool volume_export_is_open(const struct volume *volume, uint64_t export_id);
/* Without those of its snapshots. */
uint32_t volume_export_count(const struct volume *volume);

/* ---- session.c ---- */

int sessions_create(struct manager *manager);
void sessions_destroy(struct manager *manager);
/* Hosts of manager->blocks are refused from now on; before any pool serves. */
void sessions_restore_blocks(struct manager *manager);
/* On the volume's reactor: tell all sessions. */
void volume_sessions_notify(struct volume *volume, enum volume_session_event event);

/* ---- volume_control.c ---- */

/* Whether the pool can promise `reserve_bytes` to `volume` (NULL: a new one). 0 or -ENOSPC. */
int pool_check_reserve(const struct pool *pool, const struct volume *volume,
                       uint64_t reserve_bytes, struct error *error);
/*
 * It can, and the commit begins: nobody else gets the space while it is under way. Until
 * pool_promise_end(), when the volume's record tells the reserve, or never will.
 */
void pool_promise_begin(struct pool *pool, const struct volume *volume, uint64_t reserve_bytes);
void pool_promise_end(struct pool *pool);
/* 0, or -EINVAL with `error` set. */
int volume_size_check(uint64_t size_bytes, uint32_t sector_bytes, struct error *error);
/* "POOL/VOL" */
enum {
    VOLUME_PATH_SIZE = 2 * NAME_BYTES_MAX + 2
};
void volume_path(const struct volume *volume, char text[static VOLUME_PATH_SIZE]);
/*
 * The volume that an operation in the pool's line is about, or NULL with the error set and the
 * machine failed: not there, or the pool cannot be changed.
 */
struct volume *machine_find_volume(struct machine *machine, struct pool *pool, const char *name);
/* Put an operation on a volume into the line of its pool; it fails when there is none. */
void machine_start_for_volume(struct machine *machine, const struct volume_name *name);

/* ---- volume_quiet.c: nobody attached, nothing under way, everything durable ---- */

struct volume_quiet {
    struct round round;
    struct volume *volume;
    /* 0, -EBUSY (sessions), -EIO (cannot be made durable), -ETIMEDOUT (not in time) */
    int status;
    uint64_t began_ns; /* when it was closed; the volume's reactor */
    bool fenced;       /* with -EIO: because a disk has lost writes of it */
    bool begun;
    bool closed;  /* nobody can attach until volume_reopen() */
    bool stop_serving;
};
/*
 * Steps out of the pool's line, since it may take long. Afterwards volume_quiet_step_in(), then
 * status 0: the volume is closed and quiet; otherwise it is as before.
 */
void volume_make_quiet(struct machine *machine, struct volume_quiet *quiet,
                       struct volume *volume, bool stop_serving);
enum machine_step volume_quiet_step_in(struct machine *machine, struct volume_quiet *quiet);
/* It was not done: fail, saying why and what to do. */
enum machine_step volume_quiet_refuse(struct machine *machine, const struct volume_quiet *quiet);
/* Undo it, if it was done. */
void volume_reopen(struct machine *machine, struct volume_quiet *quiet);
/* At the end, done or undone: others may alter the volume. */
void volume_quiet_end(struct volume_quiet *quiet);

/* ---- volume_erase.c ---- */

/* Append the change of the use bits of these grains, which are sorted by the call. */
void batch_append_use_bits(struct byte_buffer *batch, const struct extent_table *table,
                           grain_address *grains, size_t count, bool used);

/* Begin (or continue) to free the space of a volume that is marked as being deleted. */
void volume_erase(struct volume *volume);

/* ---- event.c, job.c ---- */

enum {
    EVENTS_MAX = 10000 /* the newest are kept */
};
void events_init(struct manager *manager);
/* Past events, ascending, go in front of those that there are, which get new numbers. */
void events_restore(struct manager *manager, const struct event *past, size_t count);
/* Call encode() for each event with a number in [first, last]: to + (number - first) * step. */
void events_visit(const struct manager *manager, uint64_t first, uint64_t last, uint8_t *to,
                  size_t step, void (*encode)(const struct event *event, uint8_t *to));
void events_free(struct manager *manager);
/* Answer all who wait for one; the daemon is ending. */
void events_end_waiting(struct manager *manager);

struct job;
void jobs_init(struct manager *manager);
void jobs_free(struct manager *manager);
struct job *job_start(struct manager *manager, const char *kind, const char *subject);
void job_progress(struct job *job, uint8_t percent);
/* `result` 0 or -errno. The job may be gone afterwards. */
void job_end(struct job *job, int result, const char *text);

#endif
