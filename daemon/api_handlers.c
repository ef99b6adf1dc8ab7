/* SPDX-License-Identifier: Apache-2.0 */
/* What each command does: one row of the handler table per row of the command table. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "base/util.h"
#include "daemon/api_call_impl.h"

enum {
    EVENT_SLICE_MS = 500, /* a wait for events is made of these, so that it ends with the daemon */
};

/* The API has limits of its own, for it knows no struct of ours: they are the same. */
_Static_assert((int)API_NAME_BYTES_MAX == (int)NAME_BYTES_MAX, "names fit both");
_Static_assert((int)API_VOLUME_BYTES_MAX == 2 * (int)NAME_BYTES_MAX + 1, "POOL/VOLUME fits both");
_Static_assert((int)API_DISK_BYTES_MAX == (int)DISK_SPEC_BYTES_MAX, "disk texts fit both");

/* ---- steps ---- */

static void
operation_done(struct io_op *op)
{
    struct api_call *call = container_of(op, struct api_call, operation.control.op);
    ASSERT_ON_REACTOR(call->node->reactors[0]);
    call->result = op->result < 0 ? op->result : 0;
    call->error = call->operation.control.error;
    if (call->result == 0 && call->next != NULL) {
        call->next(call);
        return;
    }
    api_call_finish(call);
}

void
api_call_prepare(struct api_call *call, api_call_fn *next)
{
    ASSERT_ON_REACTOR(call->node->reactors[0]);
    memset(&call->operation, 0, sizeof(call->operation));
    call->operation.control.op.done = operation_done;
    call->next = next;
}

void
api_call_finish(struct api_call *call)
{
    ASSERT_ON_REACTOR(call->node->reactors[0]);
    ASSERT_OP(call->result, <=, 0);
    if (call->waits) {
        ASSERT_OP(call->node->event_waits, >, 0u);
        call->node->event_waits--;
        call->waits = false;
    }
    api_server_resume(call);
}

void
api_call_fail(struct api_call *call, int code, const char *format, ...)
{
    va_list arguments;
    ASSERT_OP(code, <, 0);
    call->result = code;
    call->error.code = code;
    va_start(arguments, format);
    vsnprintf(call->error.message, sizeof(call->error.message), format, arguments);
    va_end(arguments);
    api_call_finish(call);
}

void
api_copy_name(char to[static NAME_BYTES_MAX + 1], const char *from)
{
    ASSERT_OP(strlen(from), <=, (size_t)NAME_BYTES_MAX);
    snprintf(to, NAME_BYTES_MAX + 1, "%s", from);
}

struct volume_name
api_volume_name(const char *text)
{
    struct volume_name name = { 0 };
    const char *slash = strchr(text, '/');
    ASSERT(slash != NULL);
    size_t length = strcspn(slash + 1, "@");
    snprintf(name.pool, sizeof(name.pool), "%.*s", (int)(slash - text), text);
    snprintf(name.volume, sizeof(name.volume), "%.*s", (int)length, slash + 1);
    if (slash[1 + length] == '@') {
        snprintf(name.snapshot, sizeof(name.snapshot), "%s", slash + 2 + length);
    }
    return name;
}

struct volume_name
api_volume_argument(const struct api_call *call, const char *name)
{
    return api_volume_name(api_text(&call->arguments, name));
}

/* ---- gathering reports ---- */

static void
gather_pools_done(struct api_call *call)
{
    call->reports.pools = call->operation.pool_query.ret_pools;
    call->reports.pool_count = call->operation.pool_query.ret_count;
    api_call_gather(call);
}

static void
gather_volumes_done(struct api_call *call)
{
    call->reports.volumes = call->operation.volume_query.ret_volumes;
    call->reports.volume_count = call->operation.volume_query.ret_count;
    api_call_gather(call);
}

static void
gather_exports_done(struct api_call *call)
{
    call->reports.exports = call->operation.export_query.ret_exports;
    call->reports.export_count = call->operation.export_query.ret_count;
    api_call_gather(call);
}

static void
gather_sessions_done(struct api_call *call)
{
    call->reports.sessions = call->operation.session_query.ret_sessions;
    call->reports.session_count = call->operation.session_query.ret_count;
    api_call_gather(call);
}

static void
gather_jobs_done(struct api_call *call)
{
    call->reports.jobs = call->operation.job_query.ret_jobs;
    call->reports.job_count = call->operation.job_query.ret_count;
    api_call_gather(call);
}

static void
gather_checks_done(struct api_call *call)
{
    call->reports.checks = call->operation.check_query.ret_checks;
    call->reports.check_count = call->operation.check_query.ret_count;
    api_call_gather(call);
}

static void
gather_blocks_done(struct api_call *call)
{
    call->reports.blocks = call->operation.block_query.ret_blocks;
    call->reports.block_count = call->operation.block_query.ret_count;
    api_call_gather(call);
}

void
api_call_gather(struct api_call *call)
{
    struct manager *manager = call->node->manager;
    uint32_t next = call->gather_wanted & -call->gather_wanted;
    call->gather_wanted &= ~next;
    switch (next) {
    case REPORT_POOLS:
        api_call_prepare(call, gather_pools_done);
        memcpy(call->operation.pool_query.name, call->pool_name, sizeof(call->pool_name));
        manager_pool_query(manager, &call->operation.pool_query);
        return;
    case REPORT_VOLUMES:
        api_call_prepare(call, gather_volumes_done);
        call->operation.volume_query.name = call->name;
        call->operation.volume_query.space = call->with_space;
        manager_volume_query(manager, &call->operation.volume_query);
        return;
    case REPORT_EXPORTS:
        api_call_prepare(call, gather_exports_done);
        if (call->arguments.command->id == API_EXPORT_LIST &&
            api_present(&call->arguments, "protocol")) {
            snprintf(call->operation.export_query.protocol,
                     sizeof(call->operation.export_query.protocol), "%s",
                     api_text(&call->arguments, "protocol"));
        }
        manager_export_query(manager, &call->operation.export_query);
        return;
    case REPORT_SESSIONS:
        api_call_prepare(call, gather_sessions_done);
        manager_session_query(manager, &call->operation.session_query);
        return;
    case REPORT_JOBS:
        api_call_prepare(call, gather_jobs_done);
        if (call->arguments.command->id == API_JOB_LIST) {
            call->operation.job_query.id = api_number(&call->arguments, "id", 0);
        }
        manager_job_query(manager, &call->operation.job_query);
        return;
    case REPORT_CHECKS:
        api_call_prepare(call, gather_checks_done);
        memcpy(call->operation.check_query.name, call->pool_name, sizeof(call->pool_name));
        manager_check_query(manager, &call->operation.check_query);
        return;
    case REPORT_BLOCKS:
        api_call_prepare(call, gather_blocks_done);
        manager_block_query(manager, &call->operation.block_query);
        return;
    default:
        ASSERT_OP(next, ==, 0u);
        api_call_finish(call);
    }
}

void
api_reports_free(struct api_reports *reports)
{
    for (uint32_t i = 0; i < reports->pool_count; i++) {
        free(reports->pools[i].disks);
    }
    free(reports->pools);
    free(reports->volumes);
    free(reports->exports);
    free(reports->sessions);
    free(reports->events);
    free(reports->jobs);
    for (uint32_t i = 0; i < reports->check_count; i++) {
        free(reports->checks[i].notes);
    }
    free(reports->checks);
    free(reports->blocks);
    free(reports->snapshots);
    free(reports->policies);
    free(reports->runs);
    *reports = (struct api_reports){ 0 };
}

void
api_start_gather(struct api_call *call, uint32_t wanted)
{
    call->gather_wanted = wanted;
    api_call_gather(call);
}

/* ---- pools ---- */

static void
answer_with_pool(struct api_call *call)
{
    api_start_gather(call, REPORT_POOLS);
}

static void
imported(struct api_call *call)
{
    memcpy(call->pool_name, call->operation.pool_import.ret_name, sizeof(call->pool_name));
    api_start_gather(call, REPORT_POOLS);
}

static struct disk_argument *
disk_arguments(struct api_call *call, uint32_t *ret_count)
{
    size_t count = 0;
    const struct api_disk *disks = api_disks(&call->arguments, "disks", &count);
    ASSERT(call->disks == NULL);
    call->disks = calloc(count, sizeof(*call->disks));
    ASSERT(call->disks != NULL);
    for (size_t i = 0; i < count; i++) {
        snprintf(call->disks[i].spec, sizeof(call->disks[i].spec), "%s", disks[i].disk);
        call->disks[i].tier = disks[i].tier;
    }
    *ret_count = (uint32_t)count;
    return call->disks;
}

static void
start_pool_create(struct api_call *call)
{
    api_call_prepare(call, answer_with_pool);
    struct pool_create *create = &call->operation.pool_create;
    api_copy_name(create->name, api_text(&call->arguments, "pool"));
    api_copy_name(call->pool_name, create->name);
    create->extent_bytes = api_number(&call->arguments, "extent_bytes", 0);
    create->force = api_flag(&call->arguments, "force");
    create->disks = disk_arguments(call, &create->disk_count);
    if (create->extent_bytes != 0 && !is_power_of_two(create->extent_bytes)) {
        api_call_fail(call, -EINVAL, "extent_bytes must be a power of two");
        return;
    }
    manager_pool_create(call->node->manager, create);
}

static void
start_pool_add(struct api_call *call)
{
    api_call_prepare(call, answer_with_pool);
    struct pool_add *add = &call->operation.pool_add;
    api_copy_name(add->name, api_text(&call->arguments, "pool"));
    api_copy_name(call->pool_name, add->name);
    add->force = api_flag(&call->arguments, "force");
    add->disks = disk_arguments(call, &add->disk_count);
    manager_pool_add(call->node->manager, add);
}

static void
start_pool_import(struct api_call *call)
{
    api_call_prepare(call, imported);
    struct pool_import *import = &call->operation.pool_import;
    import->force = api_flag(&call->arguments, "force");
    import->disks = disk_arguments(call, &import->disk_count);
    manager_pool_import(call->node->manager, import);
}

static void
deleted(struct api_call *call)
{
    api_start_gather(call, 0);
}

static void
start_pool_delete(struct api_call *call)
{
    api_call_prepare(call, deleted);
    struct pool_delete *delete = &call->operation.pool_delete;
    api_copy_name(delete->name, api_text(&call->arguments, "pool"));
    delete->force = api_flag(&call->arguments, "force");
    manager_pool_delete(call->node->manager, delete);
}

static void
start_pool_query(struct api_call *call)
{
    if (call->arguments.command->field_count > 0 && api_present(&call->arguments, "pool")) {
        api_copy_name(call->pool_name, api_text(&call->arguments, "pool"));
    }
    api_start_gather(call, REPORT_POOLS);
}

/* ---- volumes ---- */

static void
answer_with_volume(struct api_call *call)
{
    api_start_gather(call, REPORT_VOLUMES);
}

static void
start_volume_create(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_create *create = &call->operation.volume_create;
    const char *tier = api_text(&call->arguments, "tier");
    create->name = call->name = api_volume_argument(call, "volume");
    create->size_bytes = api_number(&call->arguments, "size_bytes", 0);
    create->reserve_bytes = api_number(&call->arguments, "reserve_bytes", 0);
    create->sector_bytes = (uint32_t)api_number(&call->arguments, "sector_bytes", 0);
    create->tier =
        tier == NULL || strcmp(tier, "auto") == 0 ? VOLUME_TIER_AUTO
                                                  : (uint8_t)strtoul(tier, NULL, 10); /* A3 */
    manager_volume_create(call->node->manager, create);
}

static void
start_volume_resize(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_resize *resize = &call->operation.volume_resize;
    resize->name = call->name = api_volume_argument(call, "volume");
    resize->size_bytes = api_number(&call->arguments, "size_bytes", 0);
    manager_volume_resize(call->node->manager, resize);
}

static void
start_volume_rename(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_rename *rename = &call->operation.volume_rename;
    rename->name = call->name = api_volume_argument(call, "volume");
    api_copy_name(rename->new_name, api_text(&call->arguments, "new_name"));
    api_copy_name(call->name.volume, rename->new_name);
    manager_volume_rename(call->node->manager, rename);
}

static void
start_volume_reserve(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_set_reserve *set = &call->operation.volume_set_reserve;
    set->name = call->name = api_volume_argument(call, "volume");
    set->reserve_bytes = api_number(&call->arguments, "reserve_bytes", 0);
    manager_volume_set_reserve(call->node->manager, set);
}

static void
start_volume_accept_loss(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_accept_loss *accept = &call->operation.volume_accept_loss;
    accept->name = call->name = api_volume_argument(call, "volume");
    if (!api_flag(&call->arguments, "yes")) {
        api_call_fail(call, -EINVAL,
                      "writes that hosts had not flushed are lost for good when it serves again; "
                      "give --yes (\"yes\": true) when that has been understood");
        return;
    }
    manager_volume_accept_loss(call->node->manager, accept);
}

static void
start_volume_show(struct api_call *call)
{
    call->name = api_volume_argument(call, "volume");
    call->with_space = true;
    api_start_gather(call, REPORT_VOLUMES);
}

static void
start_volume_list(struct api_call *call)
{
    if (api_present(&call->arguments, "pool")) {
        api_copy_name(call->name.pool, api_text(&call->arguments, "pool"));
    }
    api_start_gather(call, REPORT_VOLUMES);
}

/* ---- exports and sessions ---- */

static void
answer_with_exports(struct api_call *call)
{
    api_start_gather(call, REPORT_EXPORTS);
}

static void
start_export_create(struct api_call *call)
{
    api_call_prepare(call, answer_with_exports);
    struct export_create *create = &call->operation.export_create;
    const char *name = api_text(&call->arguments, "name");
    create->name = call->name = api_volume_argument(call, "volume");
    snprintf(create->record.protocol, sizeof(create->record.protocol), "%s",
             api_text(&call->arguments, "protocol"));
    snprintf(create->record.name, sizeof(create->record.name), "%s", name != NULL ? name : "");
    create->record.read_only = api_flag(&call->arguments, "read_only");
    create->record.exclusive = api_flag(&call->arguments, "exclusive");
    struct error error = { 0 };
    int result = api_export_rules(call, create->record.options, &error);
    if (result < 0) {
        api_call_fail(call, result, "%s", error.message);
        return;
    }
    manager_export_create(call->node->manager, create);
}

static void
start_export_delete(struct api_call *call)
{
    api_call_prepare(call, NULL);
    struct export_delete *delete = &call->operation.export_delete;
    const char *protocol = api_text(&call->arguments, "protocol");
    delete->name = api_volume_argument(call, "volume");
    snprintf(delete->protocol, sizeof(delete->protocol), "%s", protocol != NULL ? protocol : "");
    delete->drop_sessions = api_flag(&call->arguments, "force");
    manager_export_delete(call->node->manager, delete);
}

static void
start_export_list(struct api_call *call)
{
    api_start_gather(call, REPORT_EXPORTS);
}

static void
start_session_list(struct api_call *call)
{
    api_start_gather(call, REPORT_SESSIONS);
}

static void
start_session_blocks(struct api_call *call)
{
    api_start_gather(call, REPORT_BLOCKS);
}

static void
sessions_dropped(struct api_call *call)
{
    call->dropped = call->operation.session_drop.ret_dropped;
    api_call_finish(call);
}

static void
start_session_drop(struct api_call *call)
{
    api_call_prepare(call, sessions_dropped);
    struct session_drop *drop = &call->operation.session_drop;
    const char *session = api_text(&call->arguments, "session");
    drop->block = api_flag(&call->arguments, "block");
    drop->unblock = api_flag(&call->arguments, "unblock");
    if (drop->block && drop->unblock) {
        api_call_fail(call, -EINVAL, "block and unblock exclude each other");
        return;
    }
    size_t digits = strspn(session, "0123456789");
    if (session[digits] == '\0' && digits <= 18) {
        drop->id = strtoull(session, NULL, 10);
        if (drop->id == 0) {
            api_call_fail(call, -ENOENT, "there is no session 0");
            return;
        }
    } else {
        snprintf(drop->match, sizeof(drop->match), "%s", session);
    }
    manager_session_drop(call->node->manager, drop);
}

/* ---- the daemon ---- */

static void
start_status(struct api_call *call)
{
    api_start_gather(call, REPORT_POOLS | REPORT_VOLUMES | REPORT_EXPORTS | REPORT_SESSIONS |
                           REPORT_JOBS);
}

static void
start_metrics(struct api_call *call)
{
    api_start_gather(call, REPORT_POOLS | REPORT_VOLUMES | REPORT_EXPORTS | REPORT_SESSIONS |
                               REPORT_JOBS | REPORT_CHECKS);
}

static void
start_job_list(struct api_call *call)
{
    api_start_gather(call, REPORT_JOBS);
}

static void start_event_slice(struct api_call *call);

static void
events_got(struct api_call *call)
{
    struct event_query *query = &call->operation.event_query;
    call->reports.events = query->ret_events;
    call->reports.event_count = query->ret_count;
    struct reactor *reactor = call->node->reactors[0];
    if (query->ret_count == 0 && reactor_now_ns(reactor) < call->deadline_ns &&
        atomic_load(&call->node->state) != NODE_STOPPING) {
        free(call->reports.events);
        call->reports.events = NULL;
        start_event_slice(call);
        return;
    }
    api_call_finish(call);
}

/*
 * Whoever follows the events holds a connection. Half of them stay free for other commands (P9):
 * when too many wait, the answer is what there is, at once.
 */
static bool
may_wait(const struct node *node)
{
    ASSERT_ON_REACTOR(node->reactors[0]);
    return node->event_waits < node->config.api.connections / 2;
}

static void
start_event_slice(struct api_call *call)
{
    uint64_t now_ns = reactor_now_ns(call->node->reactors[0]);
    uint64_t left_ns = call->deadline_ns > now_ns ? call->deadline_ns - now_ns : 0;
    api_call_prepare(call, events_got);
    struct event_query *query = &call->operation.event_query;
    query->after_sequence = api_number(&call->arguments, "after", 0);
    query->wait = left_ns > 0;
    query->wait_ns = MIN(left_ns, EVENT_SLICE_MS * NS_PER_MS);
    manager_event_query(call->node->manager, query);
}

static void
start_event_list(struct api_call *call)
{
    uint64_t seconds = api_number(&call->arguments, "wait_seconds", 0);
    call->deadline_ns = reactor_now_ns(call->node->reactors[0]);
    if (seconds > 0 && may_wait(call->node)) {
        call->deadline_ns += seconds * NS_PER_S;
        call->waits = true;
        call->node->event_waits++;
    }
    start_event_slice(call);
}

/* ---- answers ---- */

static json_t *
not_found(struct api_call *call, const char *what)
{
    call->result = error_set(&call->error, -ENOENT, "there is no such %s", what);
    return NULL;
}

static json_t *
answer_pool(struct api_call *call)
{
    ASSERT_OP(call->result, ==, 0);
    return call->reports.pool_count > 0 ? encode_pool(&call->reports.pools[0], true)
                                        : not_found(call, "pool");
}

json_t *
api_list_of(const char *name, json_t *list)
{
    json_t *body = json_object();
    ASSERT(body != NULL && json_is_array(list));
    json_object_set_new(body, name, list);
    return body;
}

static json_t *
answer_pools(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.pool_count; i++) {
        json_array_append_new(list, encode_pool(&call->reports.pools[i], true));
    }
    return api_list_of("pools", list);
}

static json_t *
answer_disks(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.pool_count; i++) {
        const struct pool_report *pool = &call->reports.pools[i];
        for (uint32_t disk = 0; disk < pool->disk_count; disk++) {
            json_array_append_new(list, encode_disk(pool, &pool->disks[disk], true));
        }
    }
    return api_list_of("disks", list);
}

static json_t *
answer_disk(struct api_call *call)
{
    const char *wanted = api_text(&call->arguments, "disk");
    for (uint32_t i = 0; i < call->reports.pool_count; i++) {
        const struct pool_report *pool = &call->reports.pools[i];
        for (uint32_t disk = 0; disk < pool->disk_count; disk++) {
            char index[8];
            snprintf(index, sizeof(index), "%u", (unsigned)pool->disks[disk].index);
            if (strcmp(index, wanted) == 0 || strcmp(pool->disks[disk].spec, wanted) == 0) {
                return encode_disk(pool, &pool->disks[disk], true);
            }
        }
    }
    return not_found(call, "disk in that pool");
}

static json_t *
answer_volume(struct api_call *call)
{
    ASSERT_OP(call->result, ==, 0);
    return call->reports.volume_count > 0
               ? encode_volume(&call->reports.volumes[0], call->with_space)
               : not_found(call, "volume");
}

static json_t *
answer_volumes(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.volume_count; i++) {
        json_array_append_new(list, encode_volume(&call->reports.volumes[i], call->with_space));
    }
    return api_list_of("volumes", list);
}

static json_t *
deleted_at_once(const char *what)
{
    json_t *body = json_object();
    json_object_set_new(body, "deleted", api_json_text(what));
    json_object_set_new(body, "job", json_null());
    return body;
}

static json_t *
answer_pool_deleted(struct api_call *call)
{
    return deleted_at_once(api_text(&call->arguments, "pool"));
}

static json_t *
answer_export_deleted(struct api_call *call)
{
    return deleted_at_once(api_text(&call->arguments, "volume"));
}

static bool
same_volume(const struct volume_name *left, const struct volume_name *right)
{
    return strcmp(left->pool, right->pool) == 0 && strcmp(left->volume, right->volume) == 0 &&
           strcmp(left->snapshot, right->snapshot) == 0;
}

/* The one that was made: of the volume, by the protocol, and by the name where one was given. */
static json_t *
answer_export(struct api_call *call)
{
    const char *name = api_text(&call->arguments, "name");
    for (uint32_t i = 0; i < call->reports.export_count; i++) {
        const struct export_report *report = &call->reports.exports[i];
        if (same_volume(&report->volume, &call->name) &&
            strcmp(report->record.protocol, api_text(&call->arguments, "protocol")) == 0 &&
            (name == NULL || strcmp(report->record.name, name) == 0)) {
            return encode_export(report);
        }
    }
    return not_found(call, "export any more");
}

static json_t *
answer_exports(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.export_count; i++) {
        json_array_append_new(list, encode_export(&call->reports.exports[i]));
    }
    return api_list_of("exports", list);
}

static json_t *
answer_sessions(struct api_call *call)
{
    json_t *list = json_array();
    struct volume_name wanted = { 0 };
    bool all = !api_present(&call->arguments, "volume");
    if (!all) {
        wanted = api_volume_argument(call, "volume");
    }
    for (uint32_t i = 0; i < call->reports.session_count; i++) {
        const struct session_report *session = &call->reports.sessions[i];
        if (all || same_volume(&session->volume, &wanted)) {
            json_array_append_new(list, encode_session(session));
        }
    }
    return api_list_of("sessions", list);
}

static json_t *
answer_dropped(struct api_call *call)
{
    json_t *body = json_object();
    json_object_set_new(body, "dropped", json_integer(call->dropped));
    json_object_set_new(body, "blocked", json_boolean(api_flag(&call->arguments, "block")));
    return body;
}

static json_t *
answer_blocks(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.block_count; i++) {
        json_t *block = json_object();
        json_object_set_new(block, "match", api_json_text(call->reports.blocks[i].match));
        json_object_set_new(block, "origin", api_json_text(call->reports.blocks[i].origin));
        json_array_append_new(list, block);
    }
    return api_list_of("blocks", list);
}

static json_t *
answer_jobs(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.job_count; i++) {
        json_array_append_new(list, encode_job(&call->reports.jobs[i]));
    }
    return api_list_of("jobs", list);
}

static json_t *
answer_events(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.event_count; i++) {
        json_array_append_new(list, encode_event(&call->reports.events[i]));
    }
    return api_list_of("events", list);
}

/* ---- the table ---- */

static const struct api_handler handlers[API_COMMANDS_REMOTE] = {
    [API_POOL_CREATE] = { .changes = true, .creates = true, .start = start_pool_create,
                          .encode = answer_pool },
    [API_POOL_ADD] = { .changes = true, .start = start_pool_add, .encode = answer_pool },
    [API_POOL_IMPORT] = { .changes = true, .creates = true, .start = start_pool_import,
                          .encode = answer_pool },
    [API_POOL_LIST] = { .start = start_pool_query, .encode = answer_pools },
    [API_POOL_SHOW] = { .start = start_pool_query, .encode = answer_pool },
    [API_POOL_DELETE] = { .changes = true, .start = start_pool_delete,
                          .encode = answer_pool_deleted },
    [API_DISK_LIST] = { .start = start_pool_query, .encode = answer_disks },
    [API_DISK_SHOW] = { .start = start_pool_query, .encode = answer_disk },
    [API_VOLUME_CREATE] = { .changes = true, .creates = true, .start = start_volume_create,
                            .encode = answer_volume },
    [API_VOLUME_LIST] = { .start = start_volume_list, .encode = answer_volumes },
    [API_VOLUME_SHOW] = { .start = start_volume_show, .encode = answer_volume },
    [API_VOLUME_RESIZE] = { .changes = true, .start = start_volume_resize,
                            .encode = answer_volume },
    [API_VOLUME_RENAME] = { .changes = true, .start = start_volume_rename,
                            .encode = answer_volume },
    [API_VOLUME_RESERVE] = { .changes = true, .start = start_volume_reserve,
                             .encode = answer_volume },
    [API_VOLUME_DELETE] = { .changes = true, .start = api_volume_delete_start,
                            .encode = api_volume_delete_answer },
    [API_VOLUME_ACCEPT_LOSS] = { .changes = true, .start = start_volume_accept_loss,
                                 .encode = answer_volume },
    [API_SNAPSHOT_CREATE] = { .changes = true, .creates = true,
                              .start = api_snapshot_create_start,
                              .encode = api_snapshot_list_answer },
    [API_SNAPSHOT_LIST] = { .start = api_snapshot_list_start, .encode = api_snapshot_list_answer },
    [API_SNAPSHOT_PROTECT] = { .changes = true, .start = api_snapshot_protect_start,
                               .encode = api_snapshot_answer },
    [API_VOLUME_CLONE] = { .changes = true, .creates = true, .start = api_volume_clone_start,
                           .encode = answer_volume },
    [API_VOLUME_ROLLBACK] = { .changes = true, .start = api_volume_rollback_start,
                              .encode = answer_volume },
    [API_VOLUME_DIFF] = { .start = api_volume_diff_start, .encode = api_volume_diff_answer },
    [API_POLICY_SET] = { .changes = true, .start = api_policy_set_start,
                         .encode = api_policy_answer },
    [API_POLICY_LIST] = { .start = api_policy_list_start, .encode = api_policy_list_answer },
    [API_EXPORT_CREATE] = { .changes = true, .creates = true, .start = start_export_create,
                            .encode = answer_export },
    [API_EXPORT_DELETE] = { .changes = true, .start = start_export_delete,
                            .encode = answer_export_deleted },
    [API_EXPORT_LIST] = { .start = start_export_list, .encode = answer_exports },
    [API_SESSION_LIST] = { .start = start_session_list, .encode = answer_sessions },
    [API_SESSION_DROP] = { .changes = true, .start = start_session_drop,
                           .encode = answer_dropped },
    [API_SESSION_BLOCKS] = { .start = start_session_blocks, .encode = answer_blocks },
    [API_STATUS] = { .start = start_status, .encode = encode_status },
    [API_JOB_LIST] = { .start = start_job_list, .encode = answer_jobs },
    [API_EVENT_LIST] = { .start = start_event_list, .encode = answer_events },
    [API_CHECK] = { .changes = true, .start = api_check_start, .encode = api_check_answer },
    [API_CHECK_LIST] = { .start = api_check_list_start, .encode = api_check_list_answer },
    [API_METRICS] = { .start = start_metrics },
};

const struct api_handler *
api_handler(enum api_command_id id)
{
    ASSERT_OP((int)id, <, (int)API_COMMANDS_REMOTE);
    ASSERT(handlers[id].start != NULL);
    return &handlers[id];
}
