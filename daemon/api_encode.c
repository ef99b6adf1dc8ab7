/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of the manager as JSON; the shapes are described in api/shapes.c and held by a test. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/duration.h"
#include "api/error_body.h"
#include "base/assert.h"
#include "base/util.h"
#include "daemon/api_call_impl.h"
#include "daemon/api_server.h"
#include "daemon/report_names.h"
#include "daemon/runtime.h"
#include "io/platform.h"
#include "targets/nbd/server.h"

static void
set_text(json_t *object, const char *name, const char *text)
{
    json_object_set_new(object, name, api_json_text(text));
}

static void
set_number(json_t *object, const char *name, uint64_t number)
{
    json_object_set_new(object, name, json_integer((json_int_t)MIN(number, (uint64_t)INT64_MAX)));
}

static void
set_bool(json_t *object, const char *name, bool value)
{
    json_object_set_new(object, name, json_boolean(value));
}

static void
set_guid(json_t *object, const char *name, const uint8_t guid[static GUID_BYTES])
{
    char text[2 * GUID_BYTES + 5];
    size_t used = 0;
    for (size_t i = 0; i < GUID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            text[used++] = '-';
        }
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%02x", guid[i]);
    }
    set_text(object, name, text);
}

static void
set_volume(json_t *object, const char *name, const char *pool, const char *volume)
{
    char text[2 * NAME_BYTES_MAX + 2];
    snprintf(text, sizeof(text), "%s/%s", pool, volume);
    set_text(object, name, text);
}

/* POOL/VOLUME[@SNAPSHOT] */
static void
set_view(json_t *object, const char *name, const struct volume_name *view)
{
    char text[SNAPSHOT_PATH_SIZE];
    volume_name_format(view, text);
    set_text(object, name, text);
}

static json_t *
encode_counters(const char *kind, uint64_t operations, uint64_t bytes, uint64_t errors,
                uint64_t total_ns)
{
    json_t *object = json_object();
    set_text(object, "kind", kind);
    set_number(object, "operations", operations);
    set_number(object, "bytes", bytes);
    set_number(object, "errors", errors);
    set_number(object, "total_ns", total_ns);
    return object;
}

json_t *
encode_disk(const struct pool_report *pool, const struct disk_report *disk, bool with_counters)
{
    const struct backend_statistics *statistics = &disk->statistics;
    json_t *object = json_object();
    ASSERT(object != NULL);
    set_text(object, "pool", pool->name);
    set_number(object, "index", disk->index);
    set_text(object, "disk", disk->spec);
    set_text(object, "type", disk->type);
    set_text(object, "state", disk_state_name(disk->state));
    set_number(object, "tier", disk->tier);
    set_number(object, "size_bytes", disk->size_bytes);
    set_number(object, "data_bytes", disk->data_bytes);
    set_number(object, "allocated_bytes", disk->allocated_bytes);
    set_number(object, "block_bytes", disk->block_bytes);
    set_bool(object, "ledger", disk->ledger);
    set_guid(object, "guid", disk->guid);
    set_number(object, "in_flight", statistics->in_flight);
    set_number(object, "overdue", statistics->overdue);
    if (with_counters) {
        json_t *list = json_array();
        for (int kind = 0; kind < BACKEND_IO_KIND_COUNT; kind++) {
            json_array_append_new(
                list, encode_counters(disk_operation_name(kind), statistics->operations[kind],
                                      statistics->bytes[kind], statistics->errors[kind],
                                      statistics->total_ns[kind]));
        }
        json_object_set_new(object, "counters", list);
    }
    return object;
}

json_t *
encode_pool(const struct pool_report *pool, bool with_disks)
{
    json_t *object = json_object();
    ASSERT(object != NULL);
    set_text(object, "pool", pool->name);
    set_text(object, "state", pool_state_name(pool->state));
    set_text(object, "reason", pool->reason);
    set_number(object, "size_bytes", pool->size_bytes);
    set_number(object, "used_bytes", pool->used_bytes);
    set_number(object, "allocated_bytes", pool->allocated_bytes);
    set_number(object, "trapped_bytes", pool->trapped_bytes);
    set_number(object, "provisioned_bytes", pool->provisioned_bytes);
    set_number(object, "reserved_bytes", pool->reserved_bytes);
    set_number(object, "metadata_bytes", pool->metadata_bytes);
    set_number(object, "extent_bytes", pool->extent_bytes);
    set_number(object, "volume_count", pool->volume_count);
    set_number(object, "disk_count", pool->disk_count);
    set_number(object, "commit", pool->commit);
    set_number(object, "incarnation", pool->incarnation);
    set_guid(object, "guid", pool->guid);
    if (with_disks) {
        json_t *list = json_array();
        for (uint32_t i = 0; i < pool->disk_count; i++) {
            json_array_append_new(list, encode_disk(pool, &pool->disks[i], false));
        }
        json_object_set_new(object, "disks", list);
    }
    return object;
}

static void
set_shares(json_t *object, bool are_known, uint64_t exclusive_bytes, uint64_t shared_bytes)
{
    if (are_known) {
        set_number(object, "exclusive_bytes", exclusive_bytes);
        set_number(object, "shared_bytes", shared_bytes);
        return;
    }
    json_object_set_new(object, "exclusive_bytes", json_null());
    json_object_set_new(object, "shared_bytes", json_null());
}

/* What has been deleted since has no name any more. */
static void
encode_origin(json_t *object, const struct volume_report *volume)
{
    const struct volume_name *parent = &volume->parent;
    char text[SNAPSHOT_PATH_SIZE + 16] = "";
    if (volume->has_parent) {
        snprintf(text, sizeof(text), "%s/%s@%s", parent->pool,
                 parent->volume[0] != '\0' ? parent->volume : "(deleted)",
                 parent->snapshot[0] != '\0' ? parent->snapshot : "(deleted)");
    }
    set_text(object, "origin", text);
}

json_t *
encode_volume(const struct volume_report *volume, bool with_space)
{
    json_t *object = json_object();
    char tier[8] = "auto";
    ASSERT(object != NULL);
    if (volume->tier != VOLUME_TIER_AUTO) {
        snprintf(tier, sizeof(tier), "%u", (unsigned)volume->tier);
    }
    set_volume(object, "volume", volume->info.pool_name, volume->info.name);
    set_number(object, "size_bytes", volume->info.size_bytes);
    set_number(object, "mapped_bytes", volume->mapped_bytes);
    set_shares(object, with_space, volume->exclusive_bytes, volume->shared_bytes);
    set_number(object, "snapshot_count", volume->snapshot_count);
    encode_origin(object, volume);
    set_bool(object, "snapshot_policy", volume->has_policy);
    set_number(object, "reserve_bytes", volume->reserve_bytes);
    set_number(object, "sector_bytes", volume->info.sector_bytes);
    set_text(object, "tier", tier);
    set_number(object, "export_count", volume->export_count);
    set_number(object, "session_count", volume->session_count);
    set_bool(object, "fenced", volume->fenced);
    set_bool(object, "affected", volume->affected);
    set_text(object, "problem", volume->problem);
    set_guid(object, "guid", volume->info.guid);
    set_number(object, "id", volume->id);
    set_number(object, "reactor", volume->reactor);
    json_object_set_new(object, "created", api_json_time(volume->created_realtime_ns));
    json_t *list = json_array();
    for (int kind = 0; kind < VOLUME_OPERATION_COUNT; kind++) {
        json_array_append_new(list,
                              encode_counters(volume_operation_name(kind), volume->operations[kind],
                                              volume->bytes[kind], volume->errors[kind],
                                              volume->latency_total_ns[kind]));
    }
    json_object_set_new(object, "counters", list);
    return object;
}

static bool
is_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

static void
encode_snapshot_state(json_t *object, const struct snapshot_report *snapshot)
{
    json_t *rules = json_array();
    const char *state = "kept";
    if (snapshot->name.snapshot[0] == '\0') {
        state = "kept for clones";
    } else if (snapshot->export_count > 0 || snapshot->hold_count > 0) {
        state = "in use";
    }
    for (unsigned rule = 0; rule < POLICY_RULES_MAX; rule++) {
        char number[8];
        if ((snapshot->rules & (1u << rule)) != 0) {
            snprintf(number, sizeof(number), "%u", rule + 1);
            json_array_append_new(rules, api_json_text(number));
        }
    }
    json_object_set_new(object, "rules", rules);
    set_text(object, "state", state);
}

json_t *
encode_snapshot(const struct snapshot_report *snapshot, bool with_space)
{
    json_t *object = json_object();
    char name[SNAPSHOT_PATH_SIZE + 24];
    ASSERT(object != NULL);
    volume_name_format(&snapshot->name, name);
    if (snapshot->name.snapshot[0] == '\0') {
        snprintf(name, sizeof(name), "%s/%s@#%" PRIu64, snapshot->name.pool,
                 snapshot->name.volume[0] != '\0' ? snapshot->name.volume : "#", snapshot->id);
    }
    set_text(object, "snapshot", name);
    json_object_set_new(object, "created", api_json_time(snapshot->created_realtime_ns));
    set_number(object, "size_bytes", snapshot->size_bytes);
    set_number(object, "mapped_bytes", snapshot->mapped_bytes);
    set_shares(object, with_space, snapshot->exclusive_bytes, snapshot->shared_bytes);
    json_object_set_new(object, "immutable_until", api_json_time(snapshot->expires_realtime_ns));
    encode_snapshot_state(object, snapshot);
    set_number(object, "clone_count", snapshot->clone_count);
    set_number(object, "export_count", snapshot->export_count);
    set_number(object, "reader_count", snapshot->hold_count);
    if (is_zero(snapshot->group_guid, GUID_BYTES)) {
        set_text(object, "group", "");
    } else {
        set_guid(object, "group", snapshot->group_guid);
    }
    set_guid(object, "guid", snapshot->guid);
    set_number(object, "id", snapshot->id);
    return object;
}

json_t *
encode_policy(const struct policy_report *policy)
{
    json_t *object = json_object();
    json_t *rules = json_array();
    char summary[POLICY_RULES_MAX * 48] = "";
    size_t used = 0;
    ASSERT(object != NULL && rules != NULL);
    for (unsigned i = 0; i < POLICY_RULES_MAX; i++) {
        const struct policy_rule *rule = &policy->policy.rules[i];
        char every[DURATION_TEXT_SIZE];
        if (rule->every_ns == 0) {
            continue;
        }
        json_t *encoded = json_object();
        set_number(encoded, "number", i + 1);
        set_number(encoded, "every_seconds", rule->every_ns / NS_PER_S);
        set_number(encoded, "keep", rule->keep);
        set_number(encoded, "immutable_seconds", rule->immutable_ns / NS_PER_S);
        json_array_append_new(rules, encoded);
        used += (size_t)snprintf(summary + used, sizeof(summary) - used, "%severy %s keep %" PRIu32,
                                 used > 0 ? ", " : "",
                                 duration_format(rule->every_ns / NS_PER_S, every), rule->keep);
        ASSERT_OP(used, <, sizeof(summary));
    }
    set_view(object, "volume", &policy->name);
    set_text(object, "summary", summary);
    json_object_set_new(object, "next", api_json_time(policy->next_realtime_ns));
    json_object_set_new(object, "failed", api_json_time(policy->failed_realtime_ns));
    set_text(object, "problem", policy->problem);
    json_object_set_new(object, "rules", rules);
    return object;
}

static void
encode_export_rules(json_t *object, const char *options)
{
    struct export_access access;
    json_t *hosts = json_array();
    int result = export_access_parse(options, &access);
    for (uint32_t i = 0; i < access.host_count; i++) {
        char host[EXPORT_HOST_TEXT_SIZE];
        json_array_append_new(hosts, api_json_text(export_host_format(&access.hosts[i], host)));
    }
    if (result < 0) {
        json_array_append_new(hosts, json_string("nobody: its rules are not understood"));
    }
    set_text(object, "tls", export_tls_name(access.tls));
    set_bool(object, "default", access.is_default);
    json_object_set_new(object, "hosts", hosts);
}

json_t *
encode_export(const struct export_report *report)
{
    json_t *object = json_object();
    ASSERT(object != NULL);
    set_view(object, "volume", &report->volume);
    set_text(object, "protocol", report->record.protocol);
    set_text(object, "name", report->record.name);
    set_bool(object, "read_only", report->record.read_only);
    set_bool(object, "exclusive", report->record.exclusive);
    encode_export_rules(object, report->record.options);
    set_number(object, "size_bytes", report->size_bytes);
    set_number(object, "session_count", report->session_count);
    return object;
}

json_t *
encode_session(const struct session_report *session)
{
    json_t *object = json_object();
    ASSERT(object != NULL);
    set_number(object, "id", session->id);
    set_view(object, "volume", &session->volume);
    set_text(object, "protocol", session->protocol);
    set_text(object, "peer", session->peer);
    set_text(object, "identity", session->identity);
    set_bool(object, "read_only", session->read_only);
    set_bool(object, "exclusive", session->exclusive);
    set_bool(object, "dropping", session->dropping);
    json_object_set_new(object, "attached", api_json_time(session->attached_realtime_ns));
    set_number(object, "in_flight", session->in_flight);
    set_number(object, "reads", session->reads);
    set_number(object, "writes", session->writes);
    set_number(object, "read_bytes", session->read_bytes);
    set_number(object, "written_bytes", session->written_bytes);
    set_number(object, "read_total_ns", session->read_total_ns);
    set_number(object, "write_total_ns", session->write_total_ns);
    set_number(object, "reactor", session->reactor);
    return object;
}

/* The errno name of a failure; empty text for none. */
static const char *
failure_name(int result)
{
    const char *name = result < 0 ? strerrorname_np(-result) : "";
    return name != NULL ? name : "EIO";
}

json_t *
encode_job(const struct job_report *job)
{
    json_t *object = json_object();
    ASSERT(object != NULL);
    set_number(object, "id", job->id);
    set_text(object, "kind", job->kind);
    set_text(object, "subject", job->subject);
    set_number(object, "percent", job->percent);
    set_bool(object, "finished", job->finished);
    set_text(object, "error", failure_name(job->finished ? job->result : 0));
    set_text(object, "text", job->text);
    json_object_set_new(object, "started", api_json_time(job->started_realtime_ns));
    json_object_set_new(object, "ended", api_json_time(job->ended_realtime_ns));
    return object;
}

json_t *
encode_check(const struct check_report *check)
{
    json_t *object = json_object();
    json_t *findings = json_array();
    ASSERT(object != NULL && findings != NULL);
    set_text(object, "pool", check->pool);
    set_number(object, "job", check->job);
    set_number(object, "percent", check->percent);
    set_bool(object, "finished", check->finished);
    set_text(object, "error", failure_name(check->result));
    set_text(object, "reason", check->reason);
    set_number(object, "errors", check->errors);
    set_number(object, "warnings", check->warnings);
    set_number(object, "commit", check->commit);
    set_number(object, "records", check->records);
    set_number(object, "extents", check->extents);
    set_number(object, "pages", check->pages);
    set_number(object, "grains", check->grains);
    set_number(object, "disks", check->disks);
    json_object_set_new(object, "started", api_json_time(check->started_realtime_ns));
    json_object_set_new(object, "ended", api_json_time(check->ended_realtime_ns));
    for (uint32_t i = 0; i < check->note_count; i++) {
        json_t *finding = json_object();
        set_text(finding, "severity", check->notes[i].is_error ? "error" : "warning");
        set_text(finding, "code", check->notes[i].code);
        set_text(finding, "text", check->notes[i].text);
        json_array_append_new(findings, finding);
    }
    json_object_set_new(object, "findings", findings);
    return object;
}

json_t *
encode_event(const struct event *event)
{
    json_t *object = json_object();
    ASSERT(object != NULL);
    set_number(object, "sequence", event->sequence);
    json_object_set_new(object, "time", api_json_time(event->realtime_ns));
    set_text(object, "severity", event_severity_name(event->severity));
    set_text(object, "name", event->name);
    set_text(object, "pool", event->pool);
    set_text(object, "subject", event->subject);
    set_text(object, "text", event->text);
    return object;
}

/* ---- status ---- */

static enum event_severity
worse(enum event_severity left, enum event_severity right)
{
    return left > right ? left : right;
}

static void
add_problem(json_t *problems, const char *subject, const char *state, const char *reason)
{
    char text[3 * NAME_BYTES_MAX + DISK_SPEC_BYTES_MAX];
    snprintf(text, sizeof(text), "%s %s%s%s", subject, state, reason[0] != '\0' ? ": " : "",
             reason);
    json_array_append_new(problems, api_json_text(text));
}

static enum event_severity
find_space_problem(const struct pool_report *pool, json_t *problems)
{
    char subject[NAME_BYTES_MAX + 8];
    char state[32];

    if (pool->critical_percent == 0 || pool->taken_percent < pool->warning_percent) {
        return EVENT_INFO;
    }
    snprintf(subject, sizeof(subject), "pool %s", pool->name);
    snprintf(state, sizeof(state), "is %u %% full", pool->taken_percent);
    add_problem(problems, subject, state, "add disks or delete volumes");
    return pool->taken_percent >= pool->critical_percent ? EVENT_CRITICAL : EVENT_WARNING;
}

/* Collects what is wrong; returns how bad it is as an event_severity. */
static enum event_severity
find_problems(const struct api_reports *reports, json_t *problems)
{
    enum event_severity worst = EVENT_INFO;
    char subject[2 * NAME_BYTES_MAX + 16];
    for (uint32_t i = 0; i < reports->pool_count; i++) {
        const struct pool_report *pool = &reports->pools[i];
        if (pool->state != POOL_STATE_ONLINE) {
            snprintf(subject, sizeof(subject), "pool %s is", pool->name);
            add_problem(problems, subject, pool_state_name(pool->state), pool->reason);
            bool serves =
                pool->state == POOL_STATE_DEGRADED || pool->state == POOL_STATE_OPENING;
            worst = worse(worst, serves ? EVENT_WARNING : EVENT_CRITICAL);
        }
        worst = worse(worst, find_space_problem(pool, problems));
        for (uint32_t disk = 0; disk < pool->disk_count; disk++) {
            if (pool->disks[disk].state != DISK_STATE_ACTIVE) {
                snprintf(subject, sizeof(subject), "disk %u of pool %s is",
                         (unsigned)pool->disks[disk].index, pool->name);
                add_problem(problems, subject, disk_state_name(pool->disks[disk].state),
                            pool->disks[disk].spec);
                worst = worse(worst, EVENT_WARNING);
            }
        }
    }
    for (uint32_t i = 0; i < reports->volume_count; i++) {
        const struct volume_report *volume = &reports->volumes[i];
        if (volume->problem[0] != '\0' || volume->affected || volume->fenced) {
            snprintf(subject, sizeof(subject), "volume %s/%s", volume->info.pool_name,
                     volume->info.name);
            add_problem(problems, subject,
                        volume->fenced     ? "is fenced"
                        : volume->affected ? "is affected"
                                           : "has a problem",
                        volume->problem);
            worst = EVENT_CRITICAL;
        }
    }
    return worst;
}

static json_t *
encode_listeners(const struct node *node)
{
    static const char *const tls_names[] = { [NBD_TLS_OFF] = "off",
                                             [NBD_TLS_OPTIONAL] = "optional",
                                             [NBD_TLS_REQUIRED] = "required" };
    json_t *list = json_array();
    for (uint32_t i = 0; i < node->nbd_listen_count; i++) {
        json_t *object = json_object();
        ASSERT_OP((size_t)node->nbd_tls[i], <, ARRAY_SIZE(tls_names));
        set_text(object, "protocol", "nbd");
        set_text(object, "address", nbd_server_bound_address(node->nbd, i));
        set_text(object, "tls", tls_names[node->nbd_tls[i]]);
        json_array_append_new(list, object);
    }
    for (uint32_t i = 0; api_server_tcp_address(node->api, i) != NULL; i++) {
        json_t *object = json_object();
        set_text(object, "protocol", "api");
        set_text(object, "address", api_server_tcp_address(node->api, i));
        set_text(object, "tls", "required");
        json_array_append_new(list, object);
    }
    return list;
}

json_t *
encode_status(struct api_call *call)
{
    static const char *const health_names[] = { "ok", "warning", "critical" };
    static const char *const state_names[] = { "starting", "serving", "stopping" };
    struct node *node = call->node;
    const struct api_reports *reports = &call->reports;
    uint64_t now_ns = node->platform->ops->monotonic_ns(node->platform);
    json_t *object = json_object();
    json_t *problems = json_array();
    uint64_t running = 0;
    ASSERT(object != NULL && problems != NULL);
    enum event_severity worst = find_problems(reports, problems);
    for (uint32_t i = 0; i < reports->job_count; i++) {
        running += !reports->jobs[i].finished;
    }
    set_text(object, "health", health_names[worst]);
    json_object_set_new(object, "problems", problems);
    set_text(object, "state", state_names[atomic_load(&node->state)]);
    set_text(object, "version", VOLMGR_VERSION);
    set_text(object, "state_directory", node->state_directory);
    json_object_set_new(object, "started", api_json_time(node->started_realtime_ns));
    set_number(object, "uptime_seconds", (now_ns - node->started_monotonic_ns) / NS_PER_S);
    set_number(object, "process_id", (uint64_t)getpid());
    set_number(object, "reactor_count", node->reactor_count);
    set_bool(object, "memory_locked", node->memory_locked);
    set_bool(object, "io_flusher", runtime_is_io_flusher()); /* as all threads are, or none */
    set_number(object, "pool_count", reports->pool_count);
    set_number(object, "volume_count", reports->volume_count);
    set_number(object, "export_count", reports->export_count);
    set_number(object, "session_count", reports->session_count);
    set_number(object, "jobs_running", running);
    json_object_set_new(object, "listeners", encode_listeners(node));
    json_t *pools = json_array();
    for (uint32_t i = 0; i < reports->pool_count; i++) {
        json_array_append_new(pools, encode_pool(&reports->pools[i], false));
    }
    json_object_set_new(object, "pools", pools);
    return object;
}
