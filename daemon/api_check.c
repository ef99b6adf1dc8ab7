/* SPDX-License-Identifier: Apache-2.0 */
/* "check" and "checks": one pool after the other is told to be checked, then all are reported. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "daemon/api_call_impl.h"

static void check_next_pool(struct api_call *call);

static void
check_begun(struct api_call *call)
{
    call->checked++;
    check_next_pool(call);
}

/* Without a name, pools that do not serve are passed over, and told of in the answer. */
static void
check_next_pool(struct api_call *call)
{
    const struct api_reports *reports = &call->reports;
    bool named = call->pool_name[0] != '\0';

    while (call->checked < reports->pool_count && !named &&
           reports->pools[call->checked].state > POOL_STATE_READ_ONLY) {
        call->checked++;
    }
    if (call->checked == reports->pool_count) {
        api_start_gather(call, REPORT_CHECKS);
        return;
    }
    api_call_prepare(call, check_begun);
    api_copy_name(call->operation.pool_check.name, reports->pools[call->checked].name);
    manager_pool_check(call->node->manager, &call->operation.pool_check);
}

static void
check_pools_known(struct api_call *call)
{
    call->reports.pools = call->operation.pool_query.ret_pools;
    call->reports.pool_count = call->operation.pool_query.ret_count;
    if (call->reports.pool_count == 0 && call->pool_name[0] != '\0') {
        api_call_fail(call, -ENOENT, "there is no such pool");
        return;
    }
    check_next_pool(call);
}

void
api_check_start(struct api_call *call)
{
    if (api_present(&call->arguments, "pool")) {
        api_copy_name(call->pool_name, api_text(&call->arguments, "pool"));
    }
    api_call_prepare(call, check_pools_known);
    memcpy(call->operation.pool_query.name, call->pool_name, sizeof(call->pool_name));
    manager_pool_query(call->node->manager, &call->operation.pool_query);
}

void
api_check_list_start(struct api_call *call)
{
    if (api_present(&call->arguments, "pool")) {
        api_copy_name(call->pool_name, api_text(&call->arguments, "pool"));
    }
    api_start_gather(call, REPORT_CHECKS);
}

json_t *
api_check_list_answer(struct api_call *call)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < call->reports.check_count; i++) {
        json_array_append_new(list, encode_check(&call->reports.checks[i]));
    }
    return api_list_of("checks", list);
}

static bool
has_check(const struct api_reports *reports, const char *pool)
{
    for (uint32_t i = 0; i < reports->check_count; i++) {
        if (strcmp(reports->checks[i].pool, pool) == 0) {
            return true;
        }
    }
    return false;
}

/* With a row for each pool that could not be checked: no answer must not look like a good one. */
json_t *
api_check_answer(struct api_call *call)
{
    json_t *body = api_check_list_answer(call);
    for (uint32_t i = 0; i < call->reports.pool_count; i++) {
        const struct pool_report *pool = &call->reports.pools[i];
        if (pool->state <= POOL_STATE_READ_ONLY || has_check(&call->reports, pool->name)) {
            continue;
        }
        struct check_report missing = { .finished = true, .result = -ENODEV };
        api_copy_name(missing.pool, pool->name);
        snprintf(missing.reason, sizeof(missing.reason), "the pool is %s: %.200s",
                 pool_state_name(pool->state), pool->reason);
        json_array_append_new(json_object_get(body, "checks"), encode_check(&missing));
    }
    return body;
}
