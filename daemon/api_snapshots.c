/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about snapshots, and what is made from them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "base/util.h"
#include "daemon/api_call_impl.h"
#include "io/platform.h"

enum {
    DIFF_RUNS_MAX = 16384, /* of one answer: about 1 MiB of JSON */
};

_Static_assert((int)API_VIEWS_MAX <= (int)SNAPSHOT_GROUP_MAX, "a command fits one instant");
_Static_assert((int)API_RULES_MAX == (int)POLICY_RULES_MAX, "schedules fit both");
_Static_assert((int)API_VIEW_BYTES_MAX < (int)SNAPSHOT_PATH_SIZE, "names fit both");

static bool
same_name(const struct volume_name *left, const struct volume_name *right)
{
    return strcmp(left->pool, right->pool) == 0 && strcmp(left->volume, right->volume) == 0 &&
           strcmp(left->snapshot, right->snapshot) == 0;
}

/* For the call to own; `count` of them at least 1. */
static void
make_names(struct api_call *call, size_t count)
{
    ASSERT(call->names == NULL && count > 0);
    call->names = calloc(count, sizeof(*call->names));
    ASSERT(call->names != NULL);
    call->name_count = (uint32_t)count;
}

/* ---- reports ---- */

static void
snapshots_got(struct api_call *call)
{
    call->reports.snapshots = call->operation.snapshot_query.ret_snapshots;
    call->reports.snapshot_count = call->operation.snapshot_query.ret_count;
    api_call_finish(call);
}

static void
query_snapshots(struct api_call *call, const struct volume_name *name, api_call_fn *next)
{
    api_call_prepare(call, next);
    call->operation.snapshot_query.name = *name;
    manager_snapshot_query(call->node->manager, &call->operation.snapshot_query);
}

static void
answer_with_snapshot(struct api_call *call)
{
    query_snapshots(call, &call->name, snapshots_got);
}

static void
answer_with_volume(struct api_call *call)
{
    api_start_gather(call, REPORT_VOLUMES);
}

/* "POOL" or "POOL/VOLUME"; empty parts: all. */
static struct volume_name
scope_argument(const struct api_call *call)
{
    struct volume_name name = { 0 };
    const char *scope = api_text(&call->arguments, "scope");
    if (scope != NULL && strchr(scope, '/') != NULL) {
        return api_volume_name(scope);
    }
    if (scope != NULL) {
        api_copy_name(name.pool, scope);
    }
    return name;
}

/* ---- create, list, protect ---- */

static void report_next(struct api_call *call);

static void
one_reported(struct api_call *call)
{
    struct snapshot_query *query = &call->operation.snapshot_query;
    ASSERT_OP(call->reports.snapshot_count, <, call->name_count);
    if (query->ret_count > 0) {
        call->reports.snapshots[call->reports.snapshot_count++] = query->ret_snapshots[0];
    }
    free(query->ret_snapshots);
    report_next(call);
}

/* Each of those that were made; there may be many others of the same volumes. */
static void
report_next(struct api_call *call)
{
    if (call->names_reported == call->name_count) {
        api_call_finish(call);
        return;
    }
    query_snapshots(call, &call->names[call->names_reported++], one_reported);
}

static void
snapshots_created(struct api_call *call)
{
    call->reports.snapshots = calloc(call->name_count, sizeof(*call->reports.snapshots));
    ASSERT(call->reports.snapshots != NULL);
    report_next(call);
}

/* False: refused, and the call has ended. */
static bool
take_new_names(struct api_call *call)
{
    size_t count = 0;
    const char *const *views = api_strings(&call->arguments, "volumes", &count);
    const char *common = api_text(&call->arguments, "name");
    if (count == 0) {
        api_call_fail(call, -EINVAL, "volumes must name at least one volume");
        return false;
    }
    make_names(call, count);
    for (size_t i = 0; i < count; i++) {
        struct volume_name *name = &call->names[i];
        *name = api_volume_name(views[i]);
        for (size_t other = 0; other < i; other++) {
            if (strcmp(call->names[other].pool, name->pool) == 0 &&
                strcmp(call->names[other].volume, name->volume) == 0) {
                api_call_fail(call, -EINVAL, "%s/%s is named twice", name->pool, name->volume);
                return false;
            }
        }
        if (name->snapshot[0] == '\0' && common != NULL) {
            api_copy_name(name->snapshot, common);
        }
    }
    return true;
}

/* 0: no time is given. */
static uint64_t
immutable_until(const struct api_call *call)
{
    struct platform *platform = call->node->platform;
    uint64_t seconds = api_number(&call->arguments, "immutable_seconds", 0);
    return seconds > 0 ? platform->ops->realtime_ns(platform) + seconds * NS_PER_S : 0;
}

void
api_snapshot_create_start(struct api_call *call)
{
    api_call_prepare(call, snapshots_created);
    if (!take_new_names(call)) {
        return;
    }
    struct snapshot_create *create = &call->operation.snapshot_create;
    create->count = call->name_count;
    create->names = call->names;
    create->expires_realtime_ns = immutable_until(call);
    manager_snapshot_create(call->node->manager, create);
}

void
api_snapshot_list_start(struct api_call *call)
{
    struct volume_name scope = scope_argument(call);
    api_call_prepare(call, snapshots_got);
    call->with_space = true;
    call->operation.snapshot_query.name = scope;
    call->operation.snapshot_query.space = true;
    call->operation.snapshot_query.hidden = api_flag(&call->arguments, "all");
    manager_snapshot_query(call->node->manager, &call->operation.snapshot_query);
}

void
api_snapshot_protect_start(struct api_call *call)
{
    api_call_prepare(call, answer_with_snapshot);
    struct snapshot_set_expiry *set = &call->operation.snapshot_set_expiry;
    set->name = call->name = api_volume_argument(call, "snapshot");
    set->expires_realtime_ns = immutable_until(call);
    manager_snapshot_set_expiry(call->node->manager, set);
}

/* ---- delete ---- */

static void
answer_with_jobs(struct api_call *call)
{
    api_start_gather(call, call->is_dry_run ? 0 : REPORT_JOBS);
}

static void
volume_deleted(struct api_call *call)
{
    call->freed_bytes = call->operation.volume_delete.ret_freed_bytes;
    call->unnamed = call->operation.volume_delete.ret_hidden;
    answer_with_jobs(call);
}

static void
snapshots_deleted(struct api_call *call)
{
    call->freed_bytes = call->operation.snapshot_delete.ret_freed_bytes;
    call->unnamed = call->operation.snapshot_delete.ret_hidden;
    answer_with_jobs(call);
}

/* The snapshots of a deletion. False: refused, and the call has ended. */
static bool
take_doomed(struct api_call *call)
{
    size_t more = 0;
    const char *const *views = api_strings(&call->arguments, "more", &more);
    make_names(call, more + 1);
    call->names[0] = call->name;
    for (size_t i = 0; i < more; i++) {
        struct volume_name *name = &call->names[i + 1];
        *name = api_volume_name(views[i]);
        if (name->snapshot[0] == '\0') {
            api_call_fail(call, -EINVAL, "%s/%s is a volume: delete volumes one by one",
                          name->pool, name->volume);
            return false;
        }
        for (size_t other = 0; other <= i; other++) {
            if (same_name(&call->names[other], name)) {
                api_call_fail(call, -EINVAL, "%s is named twice", views[i]);
                return false;
            }
        }
    }
    return true;
}

static void
start_snapshot_delete(struct api_call *call)
{
    api_call_prepare(call, snapshots_deleted);
    if (api_flag(&call->arguments, "snapshots")) {
        api_call_fail(call, -EINVAL, "snapshots goes with a volume, not with a snapshot");
        return;
    }
    if (!take_doomed(call)) {
        return;
    }
    struct snapshot_delete *delete = &call->operation.snapshot_delete;
    delete->count = call->name_count;
    delete->names = call->names;
    delete->dry_run = call->is_dry_run;
    manager_snapshot_delete(call->node->manager, delete);
}

void
api_volume_delete_start(struct api_call *call)
{
    call->name = api_volume_argument(call, "volume");
    call->is_dry_run = api_flag(&call->arguments, "dry_run");
    if (call->name.snapshot[0] != '\0') {
        start_snapshot_delete(call);
        return;
    }
    api_call_prepare(call, volume_deleted);
    if (api_present(&call->arguments, "more")) {
        api_call_fail(call, -EINVAL, "%s/%s is a volume: delete volumes one by one",
                      call->name.pool, call->name.volume);
        return;
    }
    struct volume_delete *delete = &call->operation.volume_delete;
    delete->name = call->name;
    delete->snapshots = api_flag(&call->arguments, "snapshots");
    delete->dry_run = call->is_dry_run;
    manager_volume_delete(call->node->manager, delete);
}

/* ---- clone, roll back, compare ---- */

void
api_volume_clone_start(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_clone *clone = &call->operation.volume_clone;
    const char *tier = api_text(&call->arguments, "tier");
    clone->from = api_volume_argument(call, "source");
    clone->name = call->name = api_volume_argument(call, "volume");
    clone->reserve_bytes = api_number(&call->arguments, "reserve_bytes", 0);
    clone->tier =
        tier == NULL || strcmp(tier, "auto") == 0 ? VOLUME_TIER_AUTO
                                                  : (uint8_t)strtoul(tier, NULL, 10); /* A3 */
    if (strcmp(clone->from.pool, clone->name.pool) != 0) {
        api_call_fail(call, -EXDEV, "a clone shares blocks with its origin, so it must be in the "
                                    "same pool");
        return;
    }
    manager_volume_clone(call->node->manager, clone);
}

void
api_volume_rollback_start(struct api_call *call)
{
    api_call_prepare(call, answer_with_volume);
    struct volume_rollback *rollback = &call->operation.volume_rollback;
    rollback->name = call->name = api_volume_argument(call, "snapshot");
    call->name.snapshot[0] = '\0';
    manager_volume_rollback(call->node->manager, rollback);
}

static void
compared(struct api_call *call)
{
    const struct volume_diff *diff = &call->operation.volume_diff;
    call->reports.runs = diff->ret_runs;
    call->reports.run_count = diff->ret_count;
    call->diff_to_bytes = diff->ret_to_bytes;
    call->diff_next_bytes = diff->ret_next_bytes;
    call->diff_end_bytes = diff->ret_end_bytes;
    api_call_finish(call);
}

void
api_volume_diff_start(struct api_call *call)
{
    api_call_prepare(call, compared);
    struct volume_diff *diff = &call->operation.volume_diff;
    diff->from = api_volume_argument(call, "from");
    diff->to = diff->from;
    diff->to.snapshot[0] = '\0';
    if (api_present(&call->arguments, "to")) {
        diff->to = api_volume_argument(call, "to");
    }
    call->name = diff->to;
    diff->offset_bytes = api_number(&call->arguments, "offset_bytes", 0);
    diff->length_bytes = api_number(&call->arguments, "length_bytes", 0);
    diff->runs_max = DIFF_RUNS_MAX;
    manager_volume_diff(call->node->manager, diff);
}

/* ---- schedules ---- */

static void
policies_got(struct api_call *call)
{
    call->reports.policies = call->operation.policy_query.ret_policies;
    call->reports.policy_count = call->operation.policy_query.ret_count;
    api_call_finish(call);
}

static void
answer_with_policies(struct api_call *call)
{
    api_call_prepare(call, policies_got);
    call->operation.policy_query.name = call->name;
    manager_policy_query(call->node->manager, &call->operation.policy_query);
}

void
api_policy_set_start(struct api_call *call)
{
    size_t count = 0;
    const struct api_rule *rules = api_rules(&call->arguments, "rules", &count);
    api_call_prepare(call, answer_with_policies);
    struct policy_set *set = &call->operation.policy_set;
    set->name = call->name = api_volume_argument(call, "volume");
    if (api_flag(&call->arguments, "off") == (count > 0)) {
        api_call_fail(call, -EINVAL, "%s",
                      count > 0 ? "rules and off exclude each other"
                                : "rules are missing: give --every and --keep, or --off");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        set->policy.rules[i] = (struct policy_rule){
            .every_ns = rules[i].every_seconds * NS_PER_S,
            .immutable_ns = rules[i].immutable_seconds * NS_PER_S,
            .keep = rules[i].keep,
        };
    }
    manager_policy_set(call->node->manager, set);
}

void
api_policy_list_start(struct api_call *call)
{
    call->name = scope_argument(call);
    answer_with_policies(call);
}

/* ---- answers ---- */

json_t *
api_snapshot_answer(struct api_call *call)
{
    if (call->reports.snapshot_count == 0) {
        call->result = error_set(&call->error, -ENOENT, "there is no such snapshot any more");
        return NULL;
    }
    return encode_snapshot(&call->reports.snapshots[0], call->with_space);
}

json_t *
api_snapshot_list_answer(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.snapshot_count; i++) {
        json_array_append_new(list, encode_snapshot(&call->reports.snapshots[i], call->with_space));
    }
    return api_list_of("snapshots", list);
}

static json_t *
view_text(const struct volume_name *name)
{
    char text[SNAPSHOT_PATH_SIZE];
    volume_name_format(name, text);
    return api_json_text(text);
}

/*
 * The newest job that gives back the space of what was deleted: of the volume, or, where versions
 * of several are taken apart together, of the pool.
 */
static const struct job_report *
find_job(const struct api_call *call)
{
    const struct job_report *found = NULL;
    char volume[SNAPSHOT_PATH_SIZE];
    struct volume_name name = call->name;
    name.snapshot[0] = '\0';
    volume_name_format(&name, volume);
    for (uint32_t i = 0; i < call->reports.job_count; i++) {
        const struct job_report *job = &call->reports.jobs[i];
        bool is_of_volume = strcmp(job->subject, volume) == 0;
        bool is_of_pool =
            strcmp(job->subject, name.pool) == 0 && strcmp(job->kind, "reclaim") == 0;
        if ((is_of_volume || is_of_pool) && (found == NULL || job->id > found->id)) {
            found = job;
        }
    }
    return found;
}

json_t *
api_volume_delete_answer(struct api_call *call)
{
    const struct job_report *job = find_job(call);
    json_t *body = json_object();
    json_object_set_new(body, "deleted", api_json_text(api_text(&call->arguments, "volume")));
    json_object_set_new(body, "job", job != NULL ? encode_job(job) : json_null());
    json_object_set_new(body, "dry_run", json_boolean(call->is_dry_run));
    json_object_set_new(body, "freed_bytes",
                        call->is_dry_run ? json_integer((json_int_t)call->freed_bytes)
                                         : json_null());
    json_object_set_new(body, "unnamed_count", json_integer(call->unnamed));
    return body;
}

json_t *
api_volume_diff_answer(struct api_call *call)
{
    json_t *body = json_object();
    json_t *list = json_array();
    uint64_t changed_bytes = 0;
    ASSERT(body != NULL && list != NULL);
    for (uint32_t i = 0; i < call->reports.run_count; i++) {
        const struct volume_diff_run *run = &call->reports.runs[i];
        changed_bytes += run->length_bytes;
        json_array_append_new(list, json_pack("{s:I, s:I}", "offset_bytes",
                                              (json_int_t)run->offset_bytes, "length_bytes",
                                              (json_int_t)run->length_bytes));
    }
    bool more = call->diff_next_bytes < call->diff_end_bytes;
    json_object_set_new(body, "from", api_json_text(api_text(&call->arguments, "from")));
    json_object_set_new(body, "to", view_text(&call->name));
    json_object_set_new(body, "size_bytes", json_integer((json_int_t)call->diff_to_bytes));
    json_object_set_new(body, "changed_bytes", json_integer((json_int_t)changed_bytes));
    json_object_set_new(body, "runs", list);
    json_object_set_new(body, "next_offset_bytes",
                        more ? json_integer((json_int_t)call->diff_next_bytes) : json_null());
    return body;
}

json_t *
api_policy_answer(struct api_call *call)
{
    struct policy_report none = { .name = call->name };
    return encode_policy(call->reports.policy_count > 0 ? &call->reports.policies[0] : &none);
}

json_t *
api_policy_list_answer(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.policy_count; i++) {
        json_array_append_new(list, encode_policy(&call->reports.policies[i]));
    }
    return api_list_of("policies", list);
}
