/* SPDX-License-Identifier: Apache-2.0 */
/* The checker's frame: the walk, the findings, the arrays. */
#include "metadata/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/check_impl.h"

static const char *const code_names[CHECK_CODE_COUNT] = {
#define X(name, text) [CHECK_##name] = (text),
    CHECK_CODES(X)
#undef X
};

static const char *const family_names[STORE_FAMILY_COUNT] = {
    [STORE_FAMILY_SYSTEM] = "system",
    [STORE_FAMILY_EXTENT] = "extent",
    [STORE_FAMILY_MAP] = "map",
    [STORE_FAMILY_HISTORY] = "history",
};

const char *
check_code_name(enum check_code code)
{
    ASSERT_OP((uint32_t)code, <, (uint32_t)CHECK_CODE_COUNT);
    return code_names[code];
}

void
check_report(struct check_state *state, enum check_severity severity, enum check_code code,
             bool repairable, struct check_key key, const char *format, ...)
{
    ASSERT_OP(key.length_bytes, <=, (uint32_t)STORE_KEY_BYTES_MAX);
    struct check_finding finding = {
        .severity = severity,
        .code = code,
        .repairable = repairable,
        .family = key.family,
        .key_bytes = key.length_bytes,
    };
    if (key.length_bytes > 0) {
        memcpy(finding.key, key.bytes, key.length_bytes);
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding.text, sizeof(finding.text), format, arguments);
    va_end(arguments);
    state->check->ret_findings[severity]++;
    state->check->finding(state->check, &finding);
}

void *
check_grow(void *array, size_t count, size_t element_bytes)
{
    if (count != 0 && !(is_power_of_two(count) && count >= 16)) {
        return array;
    }
    size_t capacity = count == 0 ? 16 : count * 2;
    void *grown = realloc(array, capacity * element_bytes);
    ASSERT(grown != NULL);
    return grown;
}

struct check_branch *
check_find_branch(const struct check_state *state, uint64_t id)
{
    size_t low = 0;
    size_t high = state->branch_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->branches[middle].record.id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < state->branch_count && state->branches[low].record.id == id;
    return found ? &state->branches[low] : NULL;
}

const struct volume_record *
check_find_volume(const struct check_state *state, uint64_t id)
{
    size_t low = 0;
    size_t high = state->volume_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->volumes[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < state->volume_count && state->volumes[low].id == id;
    return found ? &state->volumes[low] : NULL;
}

struct check_extent *
check_find_extent(const struct check_state *state, uint64_t id)
{
    size_t low = 0;
    size_t high = state->extent_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->extents[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < state->extent_count && state->extents[low].id == id;
    return found ? &state->extents[low] : NULL;
}

void
check_report_unknown(struct check_state *state, const struct store_batch_item *item,
                     const char *what)
{
    bool must_be_known = item->key[0] >= SCHEMA_MUST_BE_KNOWN;
    check_report(state, must_be_known ? CHECK_ERROR : CHECK_WARNING, CHECK_RECORD_UNKNOWN, false,
                 check_item_key(item), "a %s of type 0x%02x: a newer version may have written it%s",
                 what, item->key[0],
                 must_be_known ? ", and nobody can do without it who does not know it" : "");
}

bool
check_descends_from(const struct check_state *state, const struct check_branch *branch,
                    uint64_t ancestor)
{
    for (size_t steps = 0; branch != NULL && steps <= state->branch_count; steps++) {
        if (branch->record.id == ancestor) {
            return true;
        }
        branch = branch->record.parent == 0 ? NULL
                                            : check_find_branch(state, branch->record.parent);
    }
    return false;
}

struct byte_buffer *
check_repair(const struct check_state *state)
{
    return state->check->repair;
}

/* ---- the walk ---- */

static void
family_end(struct check_state *state)
{
    switch (state->family) {
    case STORE_FAMILY_SYSTEM:
        check_system_end(state);
        break;
    case STORE_FAMILY_EXTENT:
        check_extent_end(state);
        break;
    case STORE_FAMILY_MAP:
        check_map_end(state);
        break;
    case STORE_FAMILY_HISTORY:
        check_history_end(state);
        break;
    case STORE_FAMILY_COUNT:
        UNREACHABLE();
    }
    state->family++;
}

/* Records come family by family; what is checked at the end of one comes before the next. */
static void
take_item(struct record_walk *walk, const struct store_batch_item *item)
{
    struct check_state *state = container_of(walk, struct check_state, walk);
    while (state->family != item->family) {
        family_end(state);
    }
    state->check->ret_records++;
    switch (item->family) {
    case STORE_FAMILY_SYSTEM:
        check_system_item(state, item);
        break;
    case STORE_FAMILY_EXTENT:
        check_extent_item(state, item);
        break;
    case STORE_FAMILY_MAP:
        check_map_item(state, item);
        break;
    case STORE_FAMILY_HISTORY:
        check_history_item(state, item);
        break;
    case STORE_FAMILY_COUNT:
        UNREACHABLE();
    }
}

static void
take_failure(struct record_walk *walk, enum store_family family, const uint8_t *last_key,
             uint32_t last_key_bytes, int error)
{
    struct check_state *state = container_of(walk, struct check_state, walk);
    while (state->family != family) {
        family_end(state);
    }
    state->extents_are_incomplete |= family == STORE_FAMILY_EXTENT;
    state->map_is_incomplete |= family == STORE_FAMILY_MAP;
    state->history_is_incomplete |= family == STORE_FAMILY_HISTORY;
    check_report(state, CHECK_ERROR, CHECK_UNREADABLE, false,
                 (struct check_key){ family, last_key, last_key_bytes },
                 "the %s records behind this key cannot be read: %s", family_names[family],
                 error_name(error));
}

static void
state_free(struct check_state *state)
{
    for (uint32_t disk = 0; disk < POOL_DISKS_MAX; disk++) {
        free(state->disks[disk]);
        free(state->slots[disk]);
    }
    free(state->volumes);
    free(state->branches);
    free(state->exports);
    free(state->snapshots);
    free(state->policies);
    free(state->extents);
    free(state->bits);
    free(state->seen);
    free(state);
}

static void
walk_done(struct io_op *op)
{
    struct check_state *state =
        container_of(container_of(op, struct record_walk, op), struct check_state, walk);
    struct metadata_check *check = state->check;
    while (state->family != STORE_FAMILY_COUNT && op->result == 0) {
        family_end(state);
    }
    if (op->result == 0) {
        check_labels(state);
    }
    int32_t result = op->result;
    check->driver = NULL;
    state_free(state);
    reactor_complete(&check->op, result);
}

void
metadata_check(struct metadata_check *check)
{
    ASSERT(reactor_self() != NULL && check->op.done != NULL && check->finding != NULL);
    check->op.reactor_id = reactor_id(reactor_self());
    memset(check->ret_findings, 0, sizeof(check->ret_findings));
    check->ret_commit = 0;
    check->ret_records = 0;
    check->ret_extents = 0;
    check->ret_pages = 0;
    check->ret_grains = 0;
    struct check_state *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        reactor_complete(&check->op, -ENOMEM);
        return;
    }
    check->driver = state;
    state->check = check;
    state->walk.op.done = walk_done;
    state->walk.store = check->store;
    state->walk.snapshot = check->snapshot;
    state->walk.item = take_item;
    state->walk.failed = take_failure;
    state->walk.step_bytes = check->step_bytes;
    state->walk.rest_ns = check->rest_ns;
    state->walk.cancel = &check->cancel;
    record_walk(&state->walk);
}
