/* SPDX-License-Identifier: Apache-2.0 */
#include "api/shapes.h"

#include "base/util.h"

#define SHAPE(shape_name, shape_help, shape_fields)                                                \
    const struct api_shape api_shape_##shape_name = {                                              \
        .name = #shape_name,                                                                       \
        .help = shape_help,                                                                        \
        .fields = shape_fields,                                                                    \
        .field_count = ARRAY_SIZE(shape_fields),                                                   \
    }

static const struct api_reply_field counters_fields[] = {
    { "kind", API_TYPE_STRING, API_COLUMN, "KIND", "what was asked: read, write, flush ...", NULL },
    { "operations", API_TYPE_NUMBER, API_COLUMN, "OPERATIONS", "ended, with or without success",
      NULL },
    { "bytes", API_TYPE_SIZE, API_COLUMN, "BYTES", "payload, or length of the ranges", NULL },
    { "errors", API_TYPE_NUMBER, API_COLUMN, "ERRORS", "ended with an error", NULL },
    { "total_ns", API_TYPE_NUMBER, 0, "TOTAL NS",
      "sum of the time from submission to end, in nanoseconds", NULL },
};
SHAPE(counters, "Counters of one kind of operation since the daemon started.", counters_fields);

static const struct api_reply_field disk_fields[] = {
    { "pool", API_TYPE_NAME, API_COLUMN, "POOL", "the pool that the disk is a member of", NULL },
    { "index", API_TYPE_NUMBER, API_COLUMN, "INDEX", "number of the disk in its pool, for life",
      NULL },
    { "disk", API_TYPE_STRING, API_COLUMN, "DISK", "the text that opens it, without secrets",
      NULL },
    { "type", API_TYPE_STRING, API_COLUMN, "TYPE", "file, block, iscsi, memory", NULL },
    { "state", API_TYPE_STRING, API_COLUMN, "STATE", "active, missing or failed", NULL },
    { "tier", API_TYPE_NUMBER, API_COLUMN, "TIER", "speed class, 0 the fastest", NULL },
    { "size_bytes", API_TYPE_SIZE, API_COLUMN, "SIZE", "of the whole device", NULL },
    { "data_bytes", API_TYPE_SIZE, 0, "DATA", "what extents can use", NULL },
    { "allocated_bytes", API_TYPE_SIZE, API_COLUMN, "ALLOCATED", "in extents", NULL },
    { "block_bytes", API_TYPE_SIZE, 0, "BLOCK", "smallest transfer", NULL },
    { "ledger", API_TYPE_BOOL, 0, "LEDGER", "the disk holds a commit ledger", NULL },
    { "guid", API_TYPE_STRING, 0, "GUID", "identity in the disk's label", NULL },
    { "in_flight", API_TYPE_NUMBER, 0, "IN FLIGHT", "operations that have not ended", NULL },
    { "overdue", API_TYPE_NUMBER, 0, "OVERDUE", "operations that passed their deadline", NULL },
    { "counters", API_TYPE_LIST, API_WIDE | API_OPTIONAL, "COUNTERS", "per kind of operation",
      &api_shape_counters },
};
SHAPE(disk, "A disk: a member of a pool.", disk_fields);

static const struct api_reply_field pool_fields[] = {
    { "pool", API_TYPE_NAME, API_COLUMN, "POOL", "its name", NULL },
    { "state", API_TYPE_STRING, API_COLUMN, "STATE",
      "online, degraded, read-only, opening or offline", NULL },
    { "reason", API_TYPE_STRING, 0, "REASON", "why it is not online; otherwise empty", NULL },
    { "size_bytes", API_TYPE_SIZE, API_COLUMN, "SIZE", "what extents can use, all disks", NULL },
    { "used_bytes", API_TYPE_SIZE, API_COLUMN, "USED", "in grains that hold data", NULL },
    { "allocated_bytes", API_TYPE_SIZE, API_COLUMN, "ALLOCATED", "in extents", NULL },
    { "trapped_bytes", API_TYPE_SIZE, 0, "TRAPPED", "free grains inside allocated extents", NULL },
    { "provisioned_bytes", API_TYPE_SIZE, API_COLUMN, "PROVISIONED", "sum of the volumes' sizes",
      NULL },
    { "reserved_bytes", API_TYPE_SIZE, 0, "RESERVED", "promised to volumes with a reserve", NULL },
    { "metadata_bytes", API_TYPE_SIZE, 0, "METADATA", "size of the pool's database", NULL },
    { "extent_bytes", API_TYPE_SIZE, 0, "EXTENT", "unit of allocation", NULL },
    { "volume_count", API_TYPE_NUMBER, API_COLUMN, "VOLUMES", "volumes in the pool", NULL },
    { "disk_count", API_TYPE_NUMBER, API_COLUMN, "DISKS", "disks of the pool", NULL },
    { "commit", API_TYPE_NUMBER, 0, "COMMIT", "number of the last durable metadata commit", NULL },
    { "incarnation", API_TYPE_NUMBER, 0, "INCARNATION", "how often the pool has been opened",
      NULL },
    { "guid", API_TYPE_STRING, 0, "GUID", "identity in the labels of its disks", NULL },
    { "disks", API_TYPE_LIST, API_WIDE | API_OPTIONAL, "DISKS", "the members", &api_shape_disk },
};
SHAPE(pool, "A pool: disks plus one address map.", pool_fields);

static const struct api_reply_field volume_fields[] = {
    { "volume", API_TYPE_VOLUME, API_COLUMN, "VOLUME", "POOL/VOLUME", NULL },
    { "size_bytes", API_TYPE_SIZE, API_COLUMN, "SIZE", "what hosts see", NULL },
    { "mapped_bytes", API_TYPE_SIZE, API_COLUMN, "MAPPED",
      "space of the pool that its data is in, shared with others or not", NULL },
    { "exclusive_bytes", API_TYPE_SIZE, API_OPTIONAL, "EXCLUSIVE",
      "of it, what deleting the volume alone would free; where one volume is shown", NULL },
    { "shared_bytes", API_TYPE_SIZE, API_OPTIONAL, "SHARED",
      "the rest of it, which snapshots, clones or its origin need, too", NULL },
    { "snapshot_count", API_TYPE_NUMBER, API_COLUMN, "SNAPSHOTS", "snapshots of it", NULL },
    { "origin", API_TYPE_STRING, 0, "ORIGIN",
      "what it was cloned from, as long as it shares data with it; otherwise empty", NULL },
    { "snapshot_policy", API_TYPE_BOOL, 0, "SNAPSHOT POLICY", "a schedule makes snapshots of it",
      NULL },
    { "reserve_bytes", API_TYPE_SIZE, API_COLUMN, "RESERVE", "space that it is sure to have",
      NULL },
    { "sector_bytes", API_TYPE_SIZE, 0, "SECTOR", "logical sector offered to hosts", NULL },
    { "tier", API_TYPE_TIER, API_COLUMN, "TIER", "auto, or the tier it is kept on", NULL },
    { "export_count", API_TYPE_NUMBER, API_COLUMN, "EXPORTS", "ways to reach it", NULL },
    { "session_count", API_TYPE_NUMBER, API_COLUMN, "SESSIONS", "hosts attached now", NULL },
    { "fenced", API_TYPE_BOOL, 0, "FENCED",
      "it answers no I/O, because a disk has lost writes of it; see accept-loss", NULL },
    { "affected", API_TYPE_BOOL, 0, "AFFECTED", "some of its space is on a missing disk", NULL },
    { "problem", API_TYPE_STRING, API_COLUMN, "PROBLEM", "what is wrong; empty: nothing", NULL },
    { "guid", API_TYPE_STRING, 0, "GUID", "identity for hosts, for life", NULL },
    { "id", API_TYPE_NUMBER, 0, "ID", "number in the pool's metadata", NULL },
    { "reactor", API_TYPE_NUMBER, 0, "REACTOR", "number of the reactor that owns it", NULL },
    { "created", API_TYPE_TIME, 0, "CREATED", "when", NULL },
    { "counters", API_TYPE_LIST, API_WIDE | API_OPTIONAL, "COUNTERS", "per kind of operation",
      &api_shape_counters },
};
SHAPE(volume, "A volume: a thin virtual disk.", volume_fields);

static const struct api_reply_field snapshot_fields[] = {
    { "snapshot", API_TYPE_SNAPSHOT, API_COLUMN, "SNAPSHOT",
      "POOL/VOLUME@SNAPSHOT; a number with # stands for a name that has been deleted", NULL },
    { "created", API_TYPE_TIME, API_COLUMN, "CREATED", "the instant that it shows", NULL },
    { "size_bytes", API_TYPE_SIZE, API_COLUMN, "SIZE", "what hosts see", NULL },
    { "mapped_bytes", API_TYPE_SIZE, API_COLUMN, "MAPPED",
      "space of the pool that its data is in, shared with others or not", NULL },
    { "exclusive_bytes", API_TYPE_SIZE, API_COLUMN | API_OPTIONAL, "EXCLUSIVE",
      "of it, what deleting this snapshot alone would free; where snapshots are listed", NULL },
    { "shared_bytes", API_TYPE_SIZE, API_COLUMN | API_OPTIONAL, "SHARED",
      "the rest of it, which the volume, other snapshots or clones need, too", NULL },
    { "immutable_until", API_TYPE_TIME, API_COLUMN, "IMMUTABLE UNTIL",
      "nobody can delete it before; empty: it can be deleted", NULL },
    { "rules", API_TYPE_STRINGS, API_COLUMN, "RULES",
      "numbers of the rules of the volume's policy that it was made for; none: by hand", NULL },
    { "state", API_TYPE_STRING, API_COLUMN, "STATE",
      "kept; in use: it is exported or read; kept for clones: it was deleted and has no name, but "
      "clones need it",
      NULL },
    { "clone_count", API_TYPE_NUMBER, API_COLUMN, "CLONES", "volumes that begin as it and need it",
      NULL },
    { "export_count", API_TYPE_NUMBER, 0, "EXPORTS", "ways to reach it", NULL },
    { "reader_count", API_TYPE_NUMBER, 0, "READERS", "hosts and comparisons that read it now",
      NULL },
    { "group", API_TYPE_STRING, 0, "GROUP",
      "the same for all that were taken at one instant; empty: it was alone", NULL },
    { "guid", API_TYPE_STRING, 0, "GUID", "identity for hosts, for life", NULL },
    { "id", API_TYPE_NUMBER, 0, "ID", "number in the pool's metadata", NULL },
};
SHAPE(snapshot, "A snapshot: what a volume was at one instant.", snapshot_fields);

static const struct api_reply_field run_fields[] = {
    { "offset_bytes", API_TYPE_SIZE, API_COLUMN, "OFFSET", "where it begins", NULL },
    { "length_bytes", API_TYPE_SIZE, API_COLUMN, "LENGTH", "multiple of 4096, but at the end",
      NULL },
};
SHAPE(run, "Blocks one after the other.", run_fields);

static const struct api_reply_field diff_fields[] = {
    { "from", API_TYPE_SNAPSHOT, 0, "FROM", "the older state", NULL },
    { "to", API_TYPE_VIEW, 0, "TO", "the newer state", NULL },
    { "size_bytes", API_TYPE_SIZE, 0, "SIZE", "of the newer state", NULL },
    { "changed_bytes", API_TYPE_SIZE, 0, "CHANGED", "length of all runs together", NULL },
    { "runs", API_TYPE_LIST, 0, "RUNS", "what has changed, in ascending order", &api_shape_run },
    { "next_offset_bytes", API_TYPE_SIZE, API_OPTIONAL, "NEXT OFFSET",
      "ask for the rest with this offset; null: there is no more", NULL },
};
SHAPE(diff, "Blocks that differ between two states of a volume, or a part of them.", diff_fields);

static const struct api_reply_field rule_fields[] = {
    { "number", API_TYPE_NUMBER, API_COLUMN, "RULE", "from 1", NULL },
    { "every_seconds", API_TYPE_DURATION, API_COLUMN, "EVERY", "a snapshot is made so often",
      NULL },
    { "keep", API_TYPE_NUMBER, API_COLUMN, "KEEP", "so many of the newest stay", NULL },
    { "immutable_seconds", API_TYPE_DURATION, API_COLUMN, "IMMUTABLE",
      "nobody can delete them for so long; 0: they can be deleted", NULL },
};
SHAPE(rule, "A rule of a schedule of snapshots.", rule_fields);

static const struct api_reply_field policy_fields[] = {
    { "volume", API_TYPE_VOLUME, API_COLUMN, "VOLUME", "POOL/VOLUME", NULL },
    { "summary", API_TYPE_STRING, API_COLUMN, "RULES", "its rules, for people", NULL },
    { "next", API_TYPE_TIME, API_COLUMN, "NEXT", "when the next snapshot is due", NULL },
    { "failed", API_TYPE_TIME, 0, "FAILED", "when the last one could not be made, if so", NULL },
    { "problem", API_TYPE_STRING, API_COLUMN, "PROBLEM", "why; empty: it was made", NULL },
    { "rules", API_TYPE_LIST, 0, "RULES", "none: no snapshots are made", &api_shape_rule },
};
SHAPE(policy, "A schedule by which snapshots of a volume are made and deleted.", policy_fields);

static const struct api_reply_field export_fields[] = {
    { "volume", API_TYPE_VIEW, API_COLUMN, "VOLUME", "POOL/VOLUME or POOL/VOLUME@SNAPSHOT", NULL },
    { "protocol", API_TYPE_STRING, API_COLUMN, "PROTOCOL", "nbd", NULL },
    { "name", API_TYPE_STRING, API_COLUMN, "NAME", "what hosts ask for", NULL },
    { "read_only", API_TYPE_BOOL, API_COLUMN, "READ ONLY", "hosts may not write", NULL },
    { "exclusive", API_TYPE_BOOL, API_COLUMN, "EXCLUSIVE", "one host at a time", NULL },
    { "tls", API_TYPE_STRING, API_COLUMN, "TLS", "required, allowed or off", NULL },
    { "default", API_TYPE_BOOL, 0, "DEFAULT", "also found by hosts that ask for no name", NULL },
    { "hosts", API_TYPE_STRINGS, API_COLUMN, "HOSTS", "only these; empty: all", NULL },
    { "size_bytes", API_TYPE_SIZE, API_COLUMN, "SIZE", "of the volume", NULL },
    { "session_count", API_TYPE_NUMBER, API_COLUMN, "SESSIONS", "hosts attached now", NULL },
};
SHAPE(export, "An export: a volume that hosts can reach by a protocol.", export_fields);

static const struct api_reply_field session_fields[] = {
    { "id", API_TYPE_NUMBER, API_COLUMN, "ID", "unique while the daemon runs", NULL },
    { "volume", API_TYPE_VIEW, API_COLUMN, "VOLUME", "POOL/VOLUME or POOL/VOLUME@SNAPSHOT", NULL },
    { "protocol", API_TYPE_STRING, API_COLUMN, "PROTOCOL", "nbd", NULL },
    { "peer", API_TYPE_STRING, API_COLUMN, "PEER", "address of the host", NULL },
    { "identity", API_TYPE_STRING, API_COLUMN, "IDENTITY",
      "what the host has proved to be; empty: nothing", NULL },
    { "read_only", API_TYPE_BOOL, 0, "READ ONLY", "the host may not write", NULL },
    { "exclusive", API_TYPE_BOOL, 0, "EXCLUSIVE", "no other host may attach", NULL },
    { "dropping", API_TYPE_BOOL, 0, "DROPPING", "told to end, waiting for what is in flight",
      NULL },
    { "attached", API_TYPE_TIME, API_COLUMN, "ATTACHED", "since when", NULL },
    { "in_flight", API_TYPE_NUMBER, API_COLUMN, "IN FLIGHT", "requests not answered yet", NULL },
    { "reads", API_TYPE_NUMBER, 0, "READS", "requests", NULL },
    { "writes", API_TYPE_NUMBER, 0, "WRITES", "requests", NULL },
    { "read_bytes", API_TYPE_SIZE, API_COLUMN, "READ", "bytes", NULL },
    { "written_bytes", API_TYPE_SIZE, API_COLUMN, "WRITTEN", "bytes", NULL },
    { "read_total_ns", API_TYPE_NUMBER, 0, "READ NS", "sum of the reads' time, in nanoseconds",
      NULL },
    { "write_total_ns", API_TYPE_NUMBER, 0, "WRITE NS", "sum of the writes' time, in nanoseconds",
      NULL },
    { "reactor", API_TYPE_NUMBER, 0, "REACTOR", "number of the reactor that serves it", NULL },
};
SHAPE(session, "A session: one host's connection to one volume.", session_fields);

static const struct api_reply_field job_fields[] = {
    { "id", API_TYPE_NUMBER, API_COLUMN, "ID", "unique while the daemon runs", NULL },
    { "kind", API_TYPE_STRING, API_COLUMN, "KIND", "delete, checkpoint, check ...", NULL },
    { "subject", API_TYPE_STRING, API_COLUMN, "SUBJECT", "what it works on", NULL },
    { "percent", API_TYPE_NUMBER, API_COLUMN, "PERCENT", "done", NULL },
    { "finished", API_TYPE_BOOL, API_COLUMN, "FINISHED", "it has ended", NULL },
    { "error", API_TYPE_STRING, API_COLUMN, "ERROR", "name of the error it ended with, or empty",
      NULL },
    { "text", API_TYPE_STRING, API_COLUMN, "TEXT", "for people", NULL },
    { "started", API_TYPE_TIME, API_COLUMN, "STARTED", "when", NULL },
    { "ended", API_TYPE_TIME, 0, "ENDED", "when; empty while it runs", NULL },
};
SHAPE(job, "A job: long work in the background.", job_fields);

static const struct api_reply_field event_fields[] = {
    { "sequence", API_TYPE_NUMBER, API_COLUMN, "NUMBER", "grows by each event", NULL },
    { "time", API_TYPE_TIME, API_COLUMN, "TIME", "when", NULL },
    { "severity", API_TYPE_STRING, API_COLUMN, "SEVERITY", "info, warning or critical", NULL },
    { "name", API_TYPE_STRING, API_COLUMN, "EVENT", "stable name, for programs", NULL },
    { "pool", API_TYPE_STRING, API_COLUMN, "POOL", "the pool concerned, or empty", NULL },
    { "subject", API_TYPE_STRING, API_COLUMN, "SUBJECT", "disk or volume concerned, or empty",
      NULL },
    { "text", API_TYPE_STRING, API_COLUMN, "TEXT", "for people", NULL },
};
SHAPE(event, "An event: something that an administrator may want to know.", event_fields);

static const struct api_reply_field finding_fields[] = {
    { "severity", API_TYPE_STRING, API_COLUMN, "SEVERITY",
      "error: data is damaged, or would be by going on; warning: space or tidiness", NULL },
    { "code", API_TYPE_STRING, API_COLUMN, "CODE", "stable name such as grain-leaked", NULL },
    { "text", API_TYPE_STRING, API_COLUMN, "TEXT", "for people", NULL },
};
SHAPE(finding, "Something that a check has found.", finding_fields);

static const struct api_reply_field check_fields[] = {
    { "pool", API_TYPE_NAME, API_COLUMN, "POOL", "the pool that was checked", NULL },
    { "job", API_TYPE_NUMBER, 0, "JOB", "id of the job that does it; 0: it could not begin", NULL },
    { "percent", API_TYPE_NUMBER, API_COLUMN, "PERCENT", "done", NULL },
    { "finished", API_TYPE_BOOL, API_COLUMN, "FINISHED", "it has ended", NULL },
    { "error", API_TYPE_STRING, API_COLUMN, "ERROR",
      "name of the error for which it could not be completed, or empty", NULL },
    { "reason", API_TYPE_STRING, 0, "REASON", "the same for people", NULL },
    { "errors", API_TYPE_NUMBER, API_COLUMN, "ERRORS", "found", NULL },
    { "warnings", API_TYPE_NUMBER, API_COLUMN, "WARNINGS", "found", NULL },
    { "commit", API_TYPE_NUMBER, 0, "COMMIT", "the state after this commit was checked", NULL },
    { "records", API_TYPE_NUMBER, API_COLUMN, "RECORDS", "looked at", NULL },
    { "extents", API_TYPE_NUMBER, 0, "EXTENTS", "looked at", NULL },
    { "pages", API_TYPE_NUMBER, 0, "PAGES", "map pages looked at", NULL },
    { "grains", API_TYPE_NUMBER, 0, "GRAINS", "mapped ones", NULL },
    { "disks", API_TYPE_NUMBER, 0, "DISKS", "whose labels were read", NULL },
    { "started", API_TYPE_TIME, API_COLUMN, "STARTED", "when", NULL },
    { "ended", API_TYPE_TIME, 0, "ENDED", "when; empty while it runs", NULL },
    { "findings", API_TYPE_LIST, API_WIDE, "FINDINGS", "at most 200 of them", &api_shape_finding },
};
SHAPE(check, "A check of a pool's metadata.", check_fields);

static const struct api_reply_field dropped_fields[] = {
    { "dropped", API_TYPE_NUMBER, 0, "DROPPED", "sessions that were ended", NULL },
    { "blocked", API_TYPE_BOOL, 0, "BLOCKED", "the host is refused from now on", NULL },
};
SHAPE(dropped, "What was dropped.", dropped_fields);

static const struct api_reply_field block_fields[] = {
    { "match", API_TYPE_STRING, API_COLUMN, "MATCH", "address or name that is refused", NULL },
    { "origin", API_TYPE_STRING, API_COLUMN, "ORIGIN",
      "what was blocked; to be named to unblock it", NULL },
};
SHAPE(block, "A host that is refused.", block_fields);

static const struct api_reply_field deleted_fields[] = {
    { "deleted", API_TYPE_STRING, 0, "DELETED", "what is gone", NULL },
    { "job", API_TYPE_OBJECT, API_OPTIONAL, "JOB",
      "the job that gives its space back; null when there is none", &api_shape_job },
    { "dry_run", API_TYPE_BOOL, API_OPTIONAL, "DRY RUN", "nothing was changed", NULL },
    { "freed_bytes", API_TYPE_SIZE, API_OPTIONAL, "FREED", "of a dry run: what it would free",
      NULL },
    { "unnamed_count", API_TYPE_NUMBER, API_OPTIONAL, "UNNAMED",
      "snapshots that stay without a name until the clones that need them are gone", NULL },
};
SHAPE(deleted, "What was deleted.", deleted_fields);

static const struct api_reply_field listener_fields[] = {
    { "protocol", API_TYPE_STRING, API_COLUMN, "PROTOCOL", "nbd; api: management by TLS", NULL },
    { "address", API_TYPE_STRING, API_COLUMN, "ADDRESS", "unix:PATH or tcp:HOST:PORT", NULL },
    { "tls", API_TYPE_STRING, API_COLUMN, "TLS", "off, optional or required", NULL },
};
SHAPE(listener, "An address at which hosts are served.", listener_fields);

static const struct api_reply_field status_fields[] = {
    { "health", API_TYPE_STRING, 0, "HEALTH", "ok, warning or critical", NULL },
    { "problems", API_TYPE_STRINGS, 0, "PROBLEMS", "why it is not ok", NULL },
    { "state", API_TYPE_STRING, 0, "STATE", "starting, serving or stopping", NULL },
    { "version", API_TYPE_STRING, 0, "VERSION", "of the daemon", NULL },
    { "state_directory", API_TYPE_STRING, 0, "STATE DIRECTORY", "where its metadata is", NULL },
    { "started", API_TYPE_TIME, 0, "STARTED", "when", NULL },
    { "uptime_seconds", API_TYPE_NUMBER, 0, "UPTIME SECONDS", "since the start", NULL },
    { "process_id", API_TYPE_NUMBER, 0, "PROCESS ID", "of the daemon", NULL },
    { "reactor_count", API_TYPE_NUMBER, 0, "REACTORS", "threads that serve I/O", NULL },
    { "memory_locked", API_TYPE_BOOL, 0, "MEMORY LOCKED", "the daemon cannot be swapped out",
      NULL },
    { "io_flusher", API_TYPE_BOOL, 0, "IO FLUSHER",
      "its own memory never waits for pages that a host writes back through it", NULL },
    { "pool_count", API_TYPE_NUMBER, 0, "POOLS", "pools", NULL },
    { "volume_count", API_TYPE_NUMBER, 0, "VOLUMES", "volumes in all pools", NULL },
    { "export_count", API_TYPE_NUMBER, 0, "EXPORTS", "exports", NULL },
    { "session_count", API_TYPE_NUMBER, 0, "SESSIONS", "hosts attached now", NULL },
    { "jobs_running", API_TYPE_NUMBER, 0, "JOBS RUNNING", "jobs that have not ended", NULL },
    { "listeners", API_TYPE_LIST, 0, "LISTENERS", "where hosts are served", &api_shape_listener },
    { "pools", API_TYPE_LIST, 0, "POOLS", "without their disks", &api_shape_pool },
};
SHAPE(status, "The daemon as a whole.", status_fields);

static const struct api_reply_field error_fields[] = {
    { "error", API_TYPE_STRING, 0, "ERROR", "what failed", NULL },
    { "why", API_TYPE_STRING, 0, "WHY", "the reason", NULL },
    { "what_to_do", API_TYPE_STRING, 0, "WHAT TO DO", "a remedy; may be empty", NULL },
    { "code", API_TYPE_STRING, 0, "CODE", "errno name such as EBUSY, for programs", NULL },
};
SHAPE(error, "The body of every answer whose HTTP status is 400 or above.", error_fields);

const struct api_shape *
api_shape(size_t index)
{
    static const struct api_shape *const shapes[] = {
        &api_shape_status, &api_shape_listener, &api_shape_pool,   &api_shape_disk,
        &api_shape_volume, &api_shape_counters, &api_shape_snapshot, &api_shape_diff,
        &api_shape_run,    &api_shape_policy,   &api_shape_rule,   &api_shape_export,
        &api_shape_session,
        &api_shape_job,    &api_shape_event,    &api_shape_check,  &api_shape_finding,
        &api_shape_deleted, &api_shape_dropped, &api_shape_block,
        &api_shape_error,
    };
    return index < ARRAY_SIZE(shapes) ? shapes[index] : NULL;
}
