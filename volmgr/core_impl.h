/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects of volmgr/ and who owns them. Private to this folder.
 *
 *   manager ── pool ─┬─ disk[]          control reactor; `backend` and geometry are read anywhere
 *                    ├─ extent table    places: read anywhere; use bits: the extent's shard
 *                    ├─ committer       control reactor
 *                    └─ shard[]         one per reactor: map cache, volatile journal, allocator
 *                          └─ volume[]  each on one shard: branch, range lock, dirty pages, seal
 *
 * Invariants (beside those of the DESIGN's maps, which map_entry.h numbers)
 *  V1  What belongs to a shard is touched on its reactor only.
 *  V2  An object that another reactor may still know by pointer (volume, disk, pool) is freed only
 *      after a round of messages to every reactor.
 *  V3  A page that has dirty, sealed or fresh entries is not evicted.
 *  V4  Every commit goes through the committer, in its order, and carries the next commit number.
 */
#ifndef VOLMGR_CORE_IMPL_H
#define VOLMGR_CORE_IMPL_H

#include "base/hash_table.h"
#include "base/list.h"
#include "io/offload.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "metadata/label.h"
#include "metadata/ledger.h"
#include "metadata/schema.h"
#include "metadata/store.h"
#include "volmgr/committer_impl.h"
#include "volmgr/extent_impl.h"
#include "volmgr/journal_impl.h"
#include "volmgr/manager.h"
#include "volmgr/map_cache_impl.h"
#include "volmgr/range_lock_impl.h"
#include "volmgr/retention_impl.h"
#include "volmgr/snapshot_impl.h"
#include "volmgr/snapshot_owner_impl.h"
#include "volmgr/unflushed_impl.h"
#include "volmgr/volume.h"

struct daemon_record;
struct event_file;
struct machine;
struct pool;
struct pool_checkpointing;
struct reclaim;
struct session_table;
struct shard;
struct snapshot_creation;
struct snapshot_policies;
struct snapshot_policy;
struct state_space;

/* ---- disks ---- */

enum {
    LABEL_WAITERS_MAX = 2 /* who holds the pool's line, and its checkpoint */
};

/* A machine that waits for a label to be written. */
struct label_waiter {
    struct machine *machine; /* NULL: nobody */
    uint64_t due_ns;         /* until then */
};

struct disk {
    struct manager *manager;
    struct pool *pool;
    struct disk_record record;
    struct backend *backend; /* NULL while missing; constant once shards run */
    struct label label;
    uint64_t *slots_used; /* bit per slot; control reactor */
    uint32_t slots_free;
    uint32_t slot_cursor;
    struct backend_io flush_io; /* disk_flush.c, control reactor */
    bool flush_running;
    uint64_t loss_generation_told; /* of the backend; all shards have been told */
    struct list flush_waiting; /* struct shard_disk by flush_link: for the next flush */
    struct list flush_covered; /* for the one that is under way */
    bool backend_full; /* it refused to make room although slots are free; until some are freed */
    uint64_t backend_full_until_ns; /* or until this time: there may be room again by then */
    struct label_write label_write;
    struct backend_io look_io;     /* before a label is written: is the disk still ours? */
    struct iovec look_iov;
    uint8_t *look_memory;
    bool look_open;                /* what is written then */
    bool look_wipe;
    bool labelled;                 /* its label has been written in this run */
    struct label_waiter label_waiters[LABEL_WAITERS_MAX];
    bool label_busy;               /* it is being written, whether anybody waits or not */
    bool label_late;               /* that takes so long that nobody waits for it any more */
    uint64_t avoid_until_ns;       /* it could not be written to: no checkpoint goes there */
    uint64_t silent_until_ns;      /* it was waited for too long; nobody does until then */
    bool ledger_dropped;           /* its copy was, in this run: not before the next */
    bool joining;                  /* it is being added: not a disk of the pool yet */
    bool label_queued;             /* another writing follows, as the next two say */
    bool label_queued_open;
    bool label_queued_wipe;
    uint64_t label_started_ns;
    uint32_t busy;  /* control's operations in flight on it, whether anybody waits or not */
    bool orphaned;  /* the pool has let go of it; closed and freed when it is not busy */
    struct backend *late_backend; /* to be closed then */
    struct offload_job late_close;
    bool late_closing;
    struct backend *left_out; /* a start went on without it; the ledger may have a copy there */
    int flush_status;         /* of the flush at the start */
    int label_status;              /* how that ended */
    char problem[128];             /* why it is missing; empty: it is not */
};

/* A shard's view of a disk: what it has written and not flushed. */
struct shard_disk {
    struct shard *shard;
    struct disk *disk;
    bool flush_wanted;        /* waiters_next is not empty: submit at the end of the pass */
    bool flush_running;       /* a wish is with the control reactor */
    uint64_t flush_began_ns;  /* since when */
    uint64_t flush_generation_before; /* loss_generation_seen then */
    struct list waiters;      /* struct disk_flush_waiter: covered by that wish */
    struct list waiters_next; /* came later */
    struct message message;   /* the wish, and its answer */
    struct list flush_link;   /* disk->flush_waiting or flush_covered; control reactor */
    int flush_status;         /* the answer */
    uint64_t flush_generation; /* backend->loss_generation when it ended */
    uint64_t flushes;
    uint64_t loss_generation_seen;
};

struct disk_flush_waiter {
    struct list link;
    void (*flushed)(struct disk_flush_waiter *waiter, int status);
    struct volume *volume;
};

/* ---- volumes ---- */

enum {
    UNFLUSHED_GRAINS_MAX = 32768, /* written since the last sealing; then it is time for the next */
};

struct volume_loss;

enum seal_phase {
    SEAL_IDLE,
    SEAL_FLUSHING,   /* the disks that the sealed deltas (and plain overwrites) touched */
    SEAL_COMMITTING, /* the batch is with the committer */
};

/*
 * One sealed batch of one volume on its way to the disk. A volume has at most one; what is
 * acknowledged after the sealing belongs to the next.
 */
struct volume_seal {
    enum seal_phase phase;
    uint64_t began_ns;
    uint64_t batch;             /* number that is being made durable */
    struct commit_request commit;
    struct byte_buffer bytes;   /* the store batch */
    size_t frozen_bytes;        /* of them: what had been encoded before (history.frozen) */
    struct list pages;          /* struct map_page by seal_link: entries in `sealed` */
    struct byte_buffer allocated; /* grain_address[]: until it is known that it was committed */
    struct byte_buffer dropped; /* grain_address[]: free once committed */
    struct unflushed written;   /* blocks that the flushes under way are to cover */
    uint64_t disks[POOL_DISKS_MAX / 64]; /* that are being flushed; without those that were */
    bool lifts_fence;           /* every mark of a loss is in the batch, or committed */
    struct list requests;       /* struct volume_request by wait_link: answered at the end */
    struct disk_flush_waiter *disk_waiters; /* one per disk of the pool, lazily */
    uint32_t disk_waiters_count;
    uint32_t disks_pending;
    int status;
};

struct volume {
    /* Constant after creation, or changed by the control reactor with a message to the owner. */
    struct pool *pool;
    struct shard *shard;
    struct volume_record record;  /* the owner reactor's copy, which follows by message */
    struct volume_record durable; /* control: what the store has */
    struct volume_info *info;     /* any reactor; replaced whole, freed after a round (V2) */
    struct branch_record branch;
    uint32_t frozen; /* grains up to this generation are needed by others, and never written */
    uint32_t view;   /* LINEAGE_FOREVER: the head; else it shows this generation, read-only */
    uint32_t owned_above; /* grains up to it are inherited: never written or freed by this head */
    struct view_chain *chain; /* where its pages are looked up */
    uint32_t branches_kept;     /* control: struct pool_branch that have it as their volume */
    bool keeper; /* control: it only keeps extents of branches without a head (snapshot_impl.h) */
    struct snapshot *snapshot;  /* control: that it shows; NULL: it shows the head */
    struct list snapshots;      /* control: struct snapshot by volume_link */
    struct hash_node by_id;     /* control: pool->volumes_by_id */
    struct hash_node by_branch; /* control: pool->volumes_by_branch */
    struct hash_node by_name;   /* control: pool->volumes_by_name */
    struct list pool_link;      /* control: pool->volumes */
    uint32_t holds;             /* control: export look-ups that have not been released */
    uint64_t extents_pinned;    /* control: of the owned, that snapshots need: no room for writes */
    struct snapshot_policy *policy; /* control: schedule of its snapshots; NULL: none */
    struct snapshot_creation *creating; /* control: a snapshot of it is being made */
    bool altering;              /* control: an operation on it waits outside the pool's line */
    bool pending;               /* control: it is being made, its record is not yet durable */
    struct list exports;        /* control: struct export by volume_link */
    uint64_t extents_owned;     /* control: granted to this branch alone */
    bool affected;              /* some extent of it is on a missing disk */
    bool reserve_told;          /* control: that its reserve is used up */

    /* Owner reactor. */
    bool serving;
    bool closed; /* nobody may attach: it is being deleted or made smaller */
    struct list sessions;
    struct byte_buffer export_ids; /* uint64_t[]: hosts that have come by these may attach */
    struct range_lock lock;
    struct list active; /* requests, oldest first */
    struct list shard_dirty_link; /* shard->dirty_volumes: has deltas or unflushed disks */
    struct list seal_wanted_link; /* shard->seal_wanted: seal at the end of this pass */
    struct list shard_link;       /* shard->volumes */
    bool seal_again;              /* asked for while a seal was under way */
    bool commit_failed;           /* the pool's metadata cannot be written any more */
    bool lost;                    /* the pool is another host's: fenced in this run, for that */
    bool fenced;                  /* writes may be lost, which ones is not known: no I/O */
    bool journal_fenced;          /* the ring's header says so until a commit has the marks */
    bool loss_to_report;          /* the next FLUSH fails */
    bool loss_told;               /* a FLUSH has failed since the last loss began */
    uint32_t seals_failed;        /* since the last good one */
    uint64_t losses;              /* that began */
    uint64_t plan_epoch; /* raised by what makes windows be planned again: loss, frozen */
    struct volume_loss *loss;     /* whose marks are being set; NULL: none */
    struct list loss_waiters;     /* requests */
    struct unflushed written;     /* blocks written since the last sealing */
    struct list dirty_pages;
    uint32_t dirty_page_count;
    uint64_t open_batch;        /* deltas of now belong to it */
    uint64_t committed_batch;
    uint64_t mapped_grains;
    struct byte_buffer allocated; /* grain_address[]: use bits to set with the open batch */
    struct byte_buffer dropped;   /* grain_address[]: use bits to clear with the open batch */
    uint64_t dirty_disks[POOL_DISKS_MAX / 64]; /* written since its last flush of that disk */
    uint32_t journal_open[JOURNAL_SEGMENTS];   /* records of the open batch, by ring segment */
    uint32_t journal_sealed[JOURNAL_SEGMENTS]; /* of the sealed one */
    uint32_t journal_records;                  /* sum of both */
    struct list flush_requests; /* wait for the next seal */
    struct volume_seal seal;
    struct volume_history history; /* snapshot_owner.c: gate, and what freezes */
    struct grain_source source; /* its own extents; small volumes use the shard's */
    struct list drain_waiters;
    struct list changes; /* struct changes by volume_link: what compares it with a snapshot */

    uint64_t operations[VOLUME_OPERATION_COUNT];
    uint64_t bytes[VOLUME_OPERATION_COUNT];
    uint64_t errors[VOLUME_OPERATION_COUNT];
    uint64_t latency_total_ns[VOLUME_OPERATION_COUNT];
};

/* ---- shards ---- */

struct shard {
    struct pool *pool;
    struct reactor *reactor;
    uint32_t index; /* of the reactor */
    struct map_cache cache;
    struct journal journal;
    struct grain_source shared_source; /* for small volumes */
    struct shard_disk **disks;         /* by disk index; room for POOL_DISKS_MAX */
    uint32_t disk_count;               /* highest index + 1 */
    struct list volumes;
    struct list dirty_volumes;
    struct list seal_waiters;    /* requests that wait for a seal to end: journal room, space */
    struct list active;          /* all requests of the shard, oldest first: deadlines */
    struct timer deadline_timer;
    struct timer commit_timer;   /* the longest time that a change stays uncommitted */
    struct timer space_timer;    /* who waits for freed grains looks again */
    struct list seal_wanted;
    struct pass_hook seal_hook;  /* start wanted seals */
    struct pass_hook flush_hook; /* submit wanted disk flushes */
    struct list free_fans;       /* child arrays for requests with several children */
    struct list free_bounces;    /* one grain of aligned memory each */
    uint32_t sector_bytes_max;   /* largest block of any disk: smaller transfers go by bounce */
    uint32_t memory_alignment_max;
    uint32_t geometry_epoch; /* raised when one of the two is */
    struct latency latency[VOLUME_OPERATION_COUNT]; /* of requests that have been answered */
    bool refuses_entries; /* the state directory is full: nothing new is mapped (state_space.c) */
    bool stopping;
    bool remove_journal; /* at shard_destroy(): everything in it is committed */
};

/* ---- pools ---- */

/* A complete checkpoint of the database on the pool's disks. */
struct pool_checkpoint {
    uint64_t commit; /* 0: none */
    uint64_t length_bytes;
    uint64_t first_extent; /* of consecutive ones */
    uint32_t extent_count;
    uint32_t first_count;
    struct extent_place first[EXTENT_COPIES_MAX]; /* where its first part is */
};

struct pool {
    struct manager *manager;
    struct list link; /* manager->pools */
    char name[NAME_BYTES_MAX + 1];
    enum pool_state state;
    char reason[ERROR_MESSAGE_SIZE];
    struct pool_record record;
    uint32_t grains_per_extent;
    uint32_t grains_shift; /* log2 of it */
    struct store *store;
    struct disk *disks[POOL_DISKS_MAX];
    uint32_t disk_count; /* highest index + 1 */
    struct extent_table extents;
    struct committer committer;
    uint32_t batch_pages_max; /* atomic; so many whole pages are a quarter of the ledger; 0: any */
    struct ledger *ledger; /* NULL: a pool whose disks are all memory */
    uint16_t ledger_disks[LEDGER_COPIES_MAX]; /* indexes, in the order of its copies */
    uint32_t ledger_disk_count;
    struct shard **shards; /* by reactor index; manager->reactor_count of them */
    struct list volumes;
    struct hash_table volumes_by_id;
    struct hash_table volumes_by_name;
    struct hash_table volumes_by_branch; /* heads */
    struct lineage lineage;
    struct hash_table branches;   /* struct pool_branch by id */
    struct list branch_list;      /* the same, by ascending id */
    struct hash_table snapshots;  /* struct snapshot by (branch, generation) */
    struct hash_table snapshots_by_name; /* those with a name, by volume and name */
    struct list snapshot_list;    /* all of them */
    struct list views;            /* struct volume by pool_link: that show snapshots */
    uint32_t surveys; /* of its space, by who does not stand in its line: it is not freed */
    struct retention_clock clock; /* by which snapshots expire: pool_clock_ns() */
    struct snapshot_policies *policies; /* snapshot_policy.c; NULL: no schedule is being kept */
    struct byte_buffer reclaim_jobs; /* struct lineage_job[]: what is to be freed, see reclaim.c */
    bool reclaim_skipped; /* something could not be read: records stay until the next open */
    struct reclaim *reclaim;         /* who works on them; NULL: nobody does */
    uint32_t volume_count; /* without those being deleted */
    struct list controls;      /* struct control in line; the first one runs */
    struct list extent_grants; /* requests of shards for extents, in line */
    struct allocator allocator;
    uint8_t threshold_raised;  /* percent of the last space event */
    uint64_t full_event_ns;    /* when the last event about a full pool was raised */
    struct timer label_timer;  /* the first of who waits for labels does so until then */
    bool heartbeat_begun; /* its labels are watched: see pool_heartbeat.c */
    struct timer heartbeat_timer;
    uint64_t database_commit;  /* where its database ended when it was read; 0: not known */
    bool database_unfinished;  /* it has no pool record: a creation or import did not get so far */
    struct run_record run;     /* this run: where its volatile journals are */
    struct pool_checkpoint checkpoints[2];
    struct pool_checkpointing *checkpointing; /* NULL: none is being written */
    uint32_t checkpoints_given_up;   /* they wait for disks that hang */
    uint32_t checkpoints_due;        /* so many are needed whatever the ledger's fill */
    uint64_t checkpoint_retry_ns;    /* not before */
    uint64_t checkpoint_ended_ns;
    uint64_t checkpoint_ended_commit;
    struct list erasures;      /* struct volume_erasure: volumes whose space is being freed */
    uint32_t flushes_late;     /* of a start that went offline: not ended, or not looked after */
    struct run_record late_run; /* whose rings are fenced if one of them fails; 0 rings: none */
    bool from_start;            /* the daemon's start opened it, and nobody else is at it */
    bool awaits_flush;          /* that is why it is offline */
    bool late_flush_failed;
    struct state_space *state_space; /* NULL: it is not watched */
    bool lost;                 /* another host has it: nothing is written any more */
    bool take_over;            /* open it although another host seems to have it open */
    bool stopping;             /* background work ends where it can be resumed */
};

struct manager {
    struct manager_options options;
    struct reactor *control; /* options.reactors[0] */
    struct offload *offload; /* opening devices and databases */
    struct list pools;
    struct list exports;     /* struct export by manager_link */
    struct hash_table exports_by_name;
    struct list default_exports; /* struct export by default_link: at most one of a protocol */
    struct session_table *session_tables; /* by reactor index; each belongs to its reactor */
    struct list events;      /* newest last, bounded */
    uint32_t event_count;
    uint64_t event_sequence;
    struct list event_waiters;
    struct list jobs;
    uint64_t job_sequence;
    struct list checks;      /* check_online.c: the last one of each pool */
    uint64_t session_sequence; /* atomic */
    struct event_file *event_file;       /* NULL: events are kept in memory only */
    struct daemon_record *daemon_record; /* NULL: nothing is kept over a restart */
    struct list blocks;                  /* struct block_entry: hosts that are refused */
    uint32_t imports;        /* under way */
    bool stopping;
};

/* ---- helpers shared by the files of this folder ---- */

static inline struct disk *
pool_disk(const struct pool *pool, uint16_t index)
{
    ASSERT_OP(index, <, __atomic_load_n(&pool->disk_count, __ATOMIC_RELAXED));
    return pool->disks[index];
}

/*
 * The shard on which a branch lives: that of the volume whose head it is or was, so that a rollback
 * stays on its reactor.
 */
static inline uint32_t
pool_shard_index(const struct branch_record *branch, uint32_t shard_count)
{
    return (uint32_t)((branch->volume != 0 ? branch->volume : branch->id) % shard_count);
}

/* Extents of the volume that its reserve can be taken from. Control reactor. */
static inline uint64_t
volume_extents_writable(const struct volume *volume)
{
    return volume->extents_owned > volume->extents_pinned
               ? volume->extents_owned - volume->extents_pinned
               : 0;
}

/* Which volatile journal shard `index` has in this run, or had in the run of `run`. */
void pool_journal_identity(const struct pool *pool, const struct run_record *run, uint32_t index,
                           struct journal_identity *ret_identity);

/* Raise an event (event.c); control reactor, or use event_post() from elsewhere. */
void event_raise(struct manager *manager, enum event_severity severity, const char *pool,
                 const char *subject, const char *name, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* From any reactor; allocates and sends. */
void event_post(struct manager *manager, enum event_severity severity, const char *pool,
                const char *subject, const char *name, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* ---- what the data path tells the control plane; control reactor ---- */

/* A commit failed: the pool is read-only from now on. */
void pool_metadata_failed(struct pool *pool, int status);
/* Ledger copies (a bit each) were dropped because their disks were late or failed. */
void pool_ledger_copies_dropped(struct pool *pool, uint32_t copies);
/* A commit is durable: is it time for a checkpoint? */
void pool_committed(struct pool *pool);
/* Slots were taken or freed: thresholds and events. */
void pool_space_changed(struct pool *pool);
/* An allocation for `volume` (NULL: small volumes) was refused. Rate-limited event. */
void pool_out_of_space(struct pool *pool, struct volume *volume);
/* An extent of this branch has come, or gone back to the pool: extents_owned of its volume. */
void pool_branch_got_extent(struct pool *pool, uint64_t branch);
void pool_branch_lost_extent(struct pool *pool, uint64_t branch);

/* ---- shard.c: life of a shard and of the volumes on it ---- */

/* control, before any reactor of the pool runs requests. */
int shard_create(struct pool *pool, uint32_t index, struct shard **ret_shard,
                 struct error *error);
/* shard_stop() was called, no volume is left on it, everything is committed. */
void shard_destroy(struct shard *shard);
/* The last active request of a volume has ended: tells those who wait for it. */
void volume_drained(struct volume *volume);
/* Wait until no request is active (new ones are refused while volume->serving is false). */
struct volume_drain {
    struct io_op op; /* 0; on the owner reactor */
    struct list link;
};
void volume_drain(struct volume *volume, struct volume_drain *drain);
/* Disarm its timers; on the shard's reactor, when nothing is active or dirty any more. */
void shard_stop(struct shard *shard);
/* Begin periodic work; on the shard's reactor. */
void shard_start(struct shard *shard);
/* A disk was added: on the shard's reactor. */
void shard_add_disk(struct shard *shard, struct disk *disk);
/* control: fill in the runtime part of a volume from its records; not yet serving. */
struct volume *volume_new(struct pool *pool, const struct volume_record *record,
                          const struct branch_record *branch,
                          const struct branch_position *position);
void volume_free(struct volume *volume);

/* ---- disk_flush.c ---- */

/* The waiter is answered when everything written before now is on the disk, or lost. */
void disk_flush_want(struct shard_disk *mine, struct disk_flush_waiter *waiter);
/*
 * control: an operation of the pool's metadata has ended on its disks; if one of them has lost
 * writes, all shards are told.
 */
void disk_flush_notice_losses(struct pool *pool);
/* Has any disk lost writes that this shard does not know of? Its volumes are told. */
void disk_flush_look(struct shard *shard);

/* ---- seal.c: FLUSH, periodic commits ---- */

/* The request's COMMIT stage: wait for a seal that covers all that is acknowledged now. */
void seal_wait(struct volume *volume, struct volume_request *request);
/* Seal this volume now if it has something; no one waits. */
void seal_kick(struct volume *volume);
/* Seal all dirty volumes of the shard (journal or cache under pressure, timer). */
void seal_kick_all(struct shard *shard);
/* True when nothing of the volume waits to become durable. */
bool seal_is_clean(const struct volume *volume);
/* The volume has written something: it is sealed within the commit interval. */
void seal_note_dirty(struct volume *volume);
/* Does anybody wait for the next seal? */
bool seal_is_awaited(const struct volume *volume);
/*
 * A PUT of a whole page and its link, as a version that is new. One that nobody but the head has
 * seen gives way to it.
 */
void seal_put_version(struct byte_buffer *batch, const struct volume *volume, uint64_t page,
                      const struct map_version *version, const struct byte_buffer *value);
/*
 * Before a change to the page: decides to which stored version it goes (map_version_impl.h). Its
 * number will be above `above`, the generation of what an entry is going to name below its home.
 */
void seal_page_will_change(struct volume *volume, struct map_page *page, uint32_t above);
/* A page's entry has changed: it belongs to the open batch. */
void seal_entry_changed(struct volume *volume, struct map_page *page, uint32_t index);
/* May this page be changed in the open batch? Else the volume is being sealed: wait for that. */
bool seal_batch_has_room(struct volume *volume, const struct map_page *page);
/* May this volume append `records` to the journal now? Kicks a seal when not. */
bool seal_journal_has_room(struct volume *volume, uint32_t records);
/* What the store may know of an entry: without a home that no record names yet. */
struct map_entry seal_stored_view(const struct map_entry *entry);

/* ---- loss.c: a disk has lost what it had not flushed ---- */

/* The volume had written to this disk and not flushed it. */
void volume_loss_begin(struct volume *volume, const struct disk *disk);
/* Marks for a loss of this disk may still have to be set. */
bool volume_loss_concerns(const struct volume *volume, uint32_t disk_index);
/*
 * Bytes [start, end) of the volume were written to a disk, well or not: their blocks have to be
 * flushed, or (`durable`) need not be any more.
 */
void volume_loss_note_written(struct volume *volume, uint32_t disk_index, uint64_t start_bytes,
                              uint64_t end_bytes, bool durable);

/* ---- changes.c ---- */

/* A page becomes dirty: who compares the volume has to look at it. */
void changes_add_page(struct volume *volume, uint64_t page);

/* ---- pipeline.c ---- */

/* Go on with a request that waited; on the owner reactor. */
void pipeline_resume(struct volume_request *request);
void pipeline_resume_all(struct list *waiters);

#endif
