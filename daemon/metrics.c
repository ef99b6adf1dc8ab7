/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All counters as Prometheus text (exposition format 0.0.4): reports of the manager, reactors, the
 * NBD server, the API and the process. Names end in the unit; counters end in _total.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "daemon/api_call_impl.h"
#include "daemon/api_server.h"
#include "daemon/report_names.h"
#include "io/platform.h"
#include "targets/nbd/server.h"

static void
family(struct byte_buffer *to, const char *name, const char *type, const char *help)
{
    byte_buffer_append_format(to, "# HELP volmgr_%s %s\n# TYPE volmgr_%s %s\n", name, help, name,
                              type);
}

/* A label value: backslash, quote and newline are escaped. */
static void
append_label(struct byte_buffer *to, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n') {
            byte_buffer_append_u8(to, '\\');
        }
        byte_buffer_append_u8(to, *value == '\n' ? 'n' : (uint8_t)*value);
    }
}

static void
append_seconds(struct byte_buffer *to, uint64_t ns)
{
    byte_buffer_append_format(to, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
}

static void
single(struct byte_buffer *to, const char *name, const char *type, const char *help,
       uint64_t value)
{
    family(to, name, type, help);
    byte_buffer_append_format(to, "volmgr_%s %" PRIu64 "\n", name, value);
}

/* ---- pools ---- */

struct pool_metric {
    const char *name;
    const char *help;
    size_t offset; /* of a uint64_t in struct pool_report */
};

static const struct pool_metric pool_metrics[] = {
    { "pool_size_bytes", "What extents can use.", offsetof(struct pool_report, size_bytes) },
    { "pool_used_bytes", "In grains that hold data.", offsetof(struct pool_report, used_bytes) },
    { "pool_allocated_bytes", "In extents.", offsetof(struct pool_report, allocated_bytes) },
    { "pool_trapped_bytes", "Free grains inside allocated extents.",
      offsetof(struct pool_report, trapped_bytes) },
    { "pool_provisioned_bytes", "Sum of the volumes' sizes.",
      offsetof(struct pool_report, provisioned_bytes) },
    { "pool_reserved_bytes", "Promised to volumes.", offsetof(struct pool_report, reserved_bytes) },
    { "pool_metadata_bytes", "Size of the database.",
      offsetof(struct pool_report, metadata_bytes) },
    { "pool_commit_number", "Last durable metadata commit.", offsetof(struct pool_report, commit) },
};

static uint64_t
field_at(const void *report, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const char *)report + offset, sizeof(value));
    return value;
}

static void
metrics_pools(const struct api_reports *reports, struct byte_buffer *to)
{
    for (size_t i = 0; i < ARRAY_SIZE(pool_metrics); i++) {
        const struct pool_metric *metric = &pool_metrics[i];
        family(to, metric->name, "gauge", metric->help);
        for (uint32_t pool = 0; pool < reports->pool_count; pool++) {
            byte_buffer_append_format(to, "volmgr_%s{pool=\"%s\"} %" PRIu64 "\n", metric->name,
                                      reports->pools[pool].name,
                                      field_at(&reports->pools[pool], metric->offset));
        }
    }
    family(to, "pool_taken_percent", "gauge",
           "Of the space that volumes without a reserve can get, what is taken.");
    for (uint32_t pool = 0; pool < reports->pool_count; pool++) {
        byte_buffer_append_format(to, "volmgr_pool_taken_percent{pool=\"%s\"} %u\n",
                                  reports->pools[pool].name,
                                  (unsigned)reports->pools[pool].taken_percent);
    }
    family(to, "pool_state", "gauge",
           "0 online, 1 degraded, 2 read-only, 3 opening, 4 offline.");
    for (uint32_t pool = 0; pool < reports->pool_count; pool++) {
        byte_buffer_append_format(to, "volmgr_pool_state{pool=\"%s\"} %d\n",
                                  reports->pools[pool].name, (int)reports->pools[pool].state);
    }
}

/* Of pools that were checked since the start. */
static void
metrics_checks(const struct api_reports *reports, struct byte_buffer *to)
{
    family(to, "pool_check_errors", "gauge", "Errors that the last check of the metadata found.");
    for (uint32_t i = 0; i < reports->check_count; i++) {
        byte_buffer_append_format(to, "volmgr_pool_check_errors{pool=\"%s\"} %" PRIu64 "\n",
                                  reports->checks[i].pool, reports->checks[i].errors);
    }
    family(to, "pool_check_timestamp_seconds", "gauge", "When it ended, as Unix time; 0: it runs.");
    for (uint32_t i = 0; i < reports->check_count; i++) {
        byte_buffer_append_format(to, "volmgr_pool_check_timestamp_seconds{pool=\"%s\"} ",
                                  reports->checks[i].pool);
        append_seconds(to, reports->checks[i].ended_realtime_ns);
        byte_buffer_append_u8(to, '\n');
    }
}

/* The buckets are cumulative, as the format wants them. */
static void
append_histogram(struct byte_buffer *to, const char *pool, int operation,
                 const struct latency *latency)
{
    char labels[NAME_BYTES_MAX + 64];
    uint64_t count = 0;
    snprintf(labels, sizeof(labels), "pool=\"%s\",operation=\"%s\"", pool,
             volume_operation_name(operation));
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        count += latency->counts[i];
        byte_buffer_append_format(to, "volmgr_request_seconds_bucket{%s,le=\"", labels);
        if (i + 1 < LATENCY_BUCKETS) {
            append_seconds(to, latency_bound_ns(i));
        } else {
            byte_buffer_append_format(to, "+Inf");
        }
        byte_buffer_append_format(to, "\"} %" PRIu64 "\n", count);
    }
    byte_buffer_append_format(to, "volmgr_request_seconds_sum{%s} ", labels);
    append_seconds(to, latency->total_ns);
    byte_buffer_append_format(to, "\nvolmgr_request_seconds_count{%s} %" PRIu64 "\n", labels,
                              count);
}

static void
metrics_latency(const struct api_reports *reports, struct byte_buffer *to)
{
    static const int operations[] = { VOLUME_READ, VOLUME_WRITE, VOLUME_WRITE_ZEROES,
                                      VOLUME_DISCARD, VOLUME_FLUSH };
    family(to, "request_seconds", "histogram",
           "Time from the request of a host to its reply, all volumes of a pool.");
    for (uint32_t pool = 0; pool < reports->pool_count; pool++) {
        for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
            append_histogram(to, reports->pools[pool].name, operations[i],
                             &reports->pools[pool].latency[operations[i]]);
        }
    }
}

/* ---- disks ---- */

static void
disk_labels(struct byte_buffer *to, const struct pool_report *pool,
            const struct disk_report *disk)
{
    byte_buffer_append_format(to, "{pool=\"%s\",index=\"%u\",disk=\"", pool->name,
                              (unsigned)disk->index);
    append_label(to, disk->spec);
    byte_buffer_append_u8(to, '"');
}

enum counter_kind {
    COUNTER_OPERATIONS,
    COUNTER_BYTES,
    COUNTER_ERRORS,
    COUNTER_SECONDS,
    COUNTER_KINDS
};

static const char *const counter_names[COUNTER_KINDS] = { "operations_total", "bytes_total",
                                                          "errors_total", "seconds_total" };

static void
append_counter(struct byte_buffer *to, enum counter_kind kind, uint64_t value)
{
    if (kind == COUNTER_SECONDS) {
        append_seconds(to, value);
        byte_buffer_append_u8(to, '\n');
    } else {
        byte_buffer_append_format(to, "%" PRIu64 "\n", value);
    }
}

static void
metrics_disk_counters(const struct api_reports *reports, enum counter_kind kind,
                      struct byte_buffer *to)
{
    char name[64];
    snprintf(name, sizeof(name), "disk_%s", counter_names[kind]);
    family(to, name, "counter", "Per disk and kind of operation.");
    for (uint32_t i = 0; i < reports->pool_count; i++) {
        const struct pool_report *pool = &reports->pools[i];
        for (uint32_t j = 0; j < pool->disk_count; j++) {
            const struct backend_statistics *statistics = &pool->disks[j].statistics;
            const uint64_t *const values[COUNTER_KINDS] = {
                statistics->operations, statistics->bytes, statistics->errors,
                statistics->total_ns
            };
            for (int operation = 0; operation < BACKEND_IO_KIND_COUNT; operation++) {
                byte_buffer_append_format(to, "volmgr_%s", name);
                disk_labels(to, pool, &pool->disks[j]);
                byte_buffer_append_format(to, ",operation=\"%s\"} ",
                                          disk_operation_name(operation));
                append_counter(to, kind, values[kind][operation]);
            }
        }
    }
}

struct disk_metric {
    const char *name;
    const char *help;
    uint64_t (*value)(const struct disk_report *disk);
};

static uint64_t
disk_size(const struct disk_report *disk)
{
    return disk->size_bytes;
}

static uint64_t
disk_allocated(const struct disk_report *disk)
{
    return disk->allocated_bytes;
}

static uint64_t
disk_in_flight(const struct disk_report *disk)
{
    return disk->statistics.in_flight;
}

static uint64_t
disk_overdue(const struct disk_report *disk)
{
    return disk->statistics.overdue;
}

static uint64_t
disk_state(const struct disk_report *disk)
{
    return disk->state;
}

static void
metrics_disks(const struct api_reports *reports, struct byte_buffer *to)
{
    static const struct disk_metric metrics[] = {
        { "disk_size_bytes", "Size of the device.", disk_size },
        { "disk_allocated_bytes", "In extents.", disk_allocated },
        { "disk_in_flight", "Operations that have not ended.", disk_in_flight },
        { "disk_overdue_total", "Operations that passed their deadline.", disk_overdue },
        { "disk_state", "1 active, 2 missing, 3 failed.", disk_state },
    };
    for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
        bool counter = strstr(metrics[i].name, "_total") != NULL;
        family(to, metrics[i].name, counter ? "counter" : "gauge", metrics[i].help);
        for (uint32_t j = 0; j < reports->pool_count; j++) {
            const struct pool_report *pool = &reports->pools[j];
            for (uint32_t k = 0; k < pool->disk_count; k++) {
                byte_buffer_append_format(to, "volmgr_%s", metrics[i].name);
                disk_labels(to, pool, &pool->disks[k]);
                byte_buffer_append_format(to, "} %" PRIu64 "\n",
                                          metrics[i].value(&pool->disks[k]));
            }
        }
    }
    for (int kind = 0; kind < COUNTER_KINDS; kind++) {
        metrics_disk_counters(reports, (enum counter_kind)kind, to);
    }
}

/* ---- volumes ---- */

static void
volume_value(struct byte_buffer *to, const char *name, const struct volume_report *volume,
             uint64_t value)
{
    byte_buffer_append_format(to, "volmgr_%s{volume=\"%s/%s\"} %" PRIu64 "\n", name,
                              volume->info.pool_name, volume->info.name, value);
}

static void
metrics_volumes(const struct api_reports *reports, struct byte_buffer *to)
{
    family(to, "volume_size_bytes", "gauge", "What hosts see.");
    for (uint32_t i = 0; i < reports->volume_count; i++) {
        volume_value(to, "volume_size_bytes", &reports->volumes[i],
                     reports->volumes[i].info.size_bytes);
    }
    family(to, "volume_mapped_bytes", "gauge", "Space of the pool that it holds.");
    for (uint32_t i = 0; i < reports->volume_count; i++) {
        volume_value(to, "volume_mapped_bytes", &reports->volumes[i],
                     reports->volumes[i].mapped_bytes);
    }
    family(to, "volume_sessions", "gauge", "Hosts attached.");
    for (uint32_t i = 0; i < reports->volume_count; i++) {
        volume_value(to, "volume_sessions", &reports->volumes[i],
                     reports->volumes[i].session_count);
    }
    family(to, "volume_fenced", "gauge", "1: it answers no I/O until its loss is accepted.");
    for (uint32_t i = 0; i < reports->volume_count; i++) {
        volume_value(to, "volume_fenced", &reports->volumes[i], reports->volumes[i].fenced);
    }
    for (int kind = 0; kind < COUNTER_KINDS; kind++) {
        char name[64];
        snprintf(name, sizeof(name), "volume_%s", counter_names[kind]);
        family(to, name, "counter", "Per volume and kind of operation.");
        for (uint32_t i = 0; i < reports->volume_count; i++) {
            const struct volume_report *volume = &reports->volumes[i];
            const uint64_t *const values[COUNTER_KINDS] = { volume->operations, volume->bytes,
                                                            volume->errors,
                                                            volume->latency_total_ns };
            for (int operation = 0; operation < VOLUME_OPERATION_COUNT; operation++) {
                byte_buffer_append_format(
                    to, "volmgr_%s{volume=\"%s/%s\",operation=\"%s\"} ", name,
                    volume->info.pool_name, volume->info.name, volume_operation_name(operation));
                append_counter(to, (enum counter_kind)kind, values[kind][operation]);
            }
        }
    }
}

/* ---- the daemon ---- */

struct counter_offset {
    const char *name;
    const char *help;
    size_t offset;
};

static const struct counter_offset reactor_counters[] = {
    { "reactor_passes_total", "Passes of the loop.", offsetof(struct reactor_statistics, passes) },
    { "reactor_completions_total", "Completions that were run.",
      offsetof(struct reactor_statistics, completions) },
    { "reactor_messages_total", "Messages that were taken.",
      offsetof(struct reactor_statistics, messages) },
    { "reactor_sleeps_total", "Sleeps.", offsetof(struct reactor_statistics, sleeps) },
    { "reactor_busy_seconds_total", "Time in passes that found work.",
      offsetof(struct reactor_statistics, busy_ns) },
    { "reactor_spin_seconds_total", "Time looking for work without sleeping.",
      offsetof(struct reactor_statistics, spin_ns) },
    { "reactor_poll_seconds_total", "Part of that while disks worked for it.",
      offsetof(struct reactor_statistics, poll_ns) },
    { "reactor_polls_total", "Times that it did that.",
      offsetof(struct reactor_statistics, polls) },
    { "reactor_poll_hits_total", "Times that it found work in time.",
      offsetof(struct reactor_statistics, poll_hits) },
    { "reactor_sleep_seconds_total", "Time asleep.",
      offsetof(struct reactor_statistics, sleep_ns) },
};

/*
 * The reactor writes while we read: io/reactor.h allows that for these counters, so the one read is
 * kept from the race detector. A counter that is torn is wrong once.
 */
__attribute__((no_sanitize_thread)) static uint64_t
counter_at(const struct reactor_statistics *statistics, size_t offset)
{
    return *(const volatile uint64_t *)(const void *)((const char *)statistics + offset);
}

static void
metrics_reactors(const struct node *node, struct byte_buffer *to)
{
    for (size_t i = 0; i < ARRAY_SIZE(reactor_counters); i++) {
        family(to, reactor_counters[i].name, "counter", reactor_counters[i].help);
        for (uint32_t j = 0; j < node->reactor_count; j++) {
            bool seconds = strstr(reactor_counters[i].name, "_seconds_") != NULL;
            byte_buffer_append_format(to, "volmgr_%s{reactor=\"%u\"} ", reactor_counters[i].name,
                                      (unsigned)j);
            append_counter(to, seconds ? COUNTER_SECONDS : COUNTER_OPERATIONS,
                           counter_at(reactor_statistics(node->reactors[j]),
                                      reactor_counters[i].offset));
        }
    }
}

#define NBD_COUNTER(member, help) { #member, help, offsetof(struct nbd_server_statistics, member) }

static const struct counter_offset nbd_counters[] = {
    NBD_COUNTER(connections_accepted, "Connections accepted."),
    NBD_COUNTER(connections_refused, "Connections over the limit."),
    NBD_COUNTER(handshakes_done, "Connections that reached transmission."),
    NBD_COUNTER(handshakes_failed, "Connections that did not."),
    NBD_COUNTER(tls_sessions, "Connections that use TLS."),
    NBD_COUNTER(protocol_errors, "Connections closed for what the client sent."),
    NBD_COUNTER(stuck_closed, "Connections closed for not moving."),
    NBD_COUNTER(requests, "Requests."),
    NBD_COUNTER(request_errors, "Requests answered with an error."),
    NBD_COUNTER(received_bytes, "Bytes received."),
    NBD_COUNTER(sent_bytes, "Bytes sent."),
    NBD_COUNTER(receives, "Receive operations."),
    NBD_COUNTER(sends, "Send operations."),
    NBD_COUNTER(stalls_slots, "Times that a socket was not read for want of a slot."),
    NBD_COUNTER(stalls_bytes, "Times that a socket was not read for its limit of bytes."),
    NBD_COUNTER(stalls_memory, "Times that a socket was not read for want of memory."),
};

static void
metrics_nbd(const struct node *node, struct byte_buffer *to)
{
    struct nbd_server_statistics statistics;
    if (node->nbd == NULL) {
        return;
    }
    nbd_server_statistics(node->nbd, &statistics);
    single(to, "nbd_connections", "gauge", "Connections that are open.",
           statistics.connections_open);
    for (size_t i = 0; i < ARRAY_SIZE(nbd_counters); i++) {
        char name[64];
        snprintf(name, sizeof(name), "nbd_%s_total", nbd_counters[i].name);
        single(to, name, "counter", nbd_counters[i].help,
               field_at(&statistics, nbd_counters[i].offset));
    }
}

static void
metrics_process(const struct node *node, struct byte_buffer *to)
{
    struct rusage usage;
    unsigned long size_pages = 0;
    unsigned long resident_pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%lu %lu", &size_pages, &resident_pages) != 2) {
            resident_pages = 0;
        }
        fclose(file);
    }
    single(to, "process_resident_bytes", "gauge", "Resident memory.",
           resident_pages * (uint64_t)sysconf(_SC_PAGESIZE));
    single(to, "process_virtual_bytes", "gauge", "Address space.",
           size_pages * (uint64_t)sysconf(_SC_PAGESIZE));
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        family(to, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
        uint64_t us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
        byte_buffer_append_format(to, "volmgr_process_cpu_seconds_total %" PRIu64 ".%06" PRIu64
                                      "\n",
                                  us / 1000000, us % 1000000);
        single(to, "process_major_faults_total", "counter",
               "Page faults that needed a disk; they should not grow.",
               (uint64_t)usage.ru_majflt);
    }
    single(to, "memory_locked", "gauge", "1 when the daemon cannot be swapped out.",
           node->memory_locked);
    uint64_t now_ns = node->platform->ops->monotonic_ns(node->platform);
    single(to, "uptime_seconds", "gauge", "Since the start.",
           (now_ns - node->started_monotonic_ns) / NS_PER_S);
}

void
encode_metrics(struct api_call *call, struct byte_buffer *to)
{
    const struct api_reports *reports = &call->reports;
    struct api_server_statistics api;
    uint64_t running = 0;
    for (uint32_t i = 0; i < reports->job_count; i++) {
        running += !reports->jobs[i].finished;
    }
    family(to, "build_info", "gauge", "Always 1; the label tells the version.");
    byte_buffer_append_format(to, "volmgr_build_info{version=\"%s\"} 1\n", VOLMGR_VERSION);
    metrics_pools(reports, to);
    metrics_checks(reports, to);
    metrics_latency(reports, to);
    metrics_disks(reports, to);
    metrics_volumes(reports, to);
    single(to, "exports", "gauge", "Exports.", reports->export_count);
    single(to, "sessions", "gauge", "Hosts attached.", reports->session_count);
    single(to, "jobs_running", "gauge", "Jobs that have not ended.", running);
    metrics_reactors(call->node, to);
    metrics_nbd(call->node, to);
    api_server_get_statistics(call->node->api, &api);
    single(to, "api_calls_total", "counter", "Calls of the API.", api.calls);
    single(to, "api_errors_total", "counter", "Calls that were refused or failed.", api.errors);
    metrics_process(call->node, to);
    ASSERT_OP(to->length_bytes, >, 0u);
}
