/* SPDX-License-Identifier: Apache-2.0 */
/* The checker on snapshots, on policies, and on what branches owe to snapshots. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/check_impl.h"

enum {
    POLICY_KEY_BYTES = 9, /* type, be64 */
};

/* ---- one record ---- */

bool
check_take_snapshot(struct check_state *state, const struct store_batch_item *item)
{
    struct check_snapshot snapshot = { 0 };
    if (schema_snapshot_key_decode(item->key, item->key_bytes, &snapshot.branch,
                                   &snapshot.generation) != 0
        || schema_get_snapshot(item->value, item->value_bytes, &snapshot.record) != 0) {
        return false;
    }
    state->snapshots = check_grow(state->snapshots, state->snapshot_count, sizeof(snapshot));
    state->snapshots[state->snapshot_count++] = snapshot;
    return true;
}

bool
check_take_policy(struct check_state *state, const struct store_batch_item *item)
{
    struct policy_record record;
    if (item->key_bytes != POLICY_KEY_BYTES
        || schema_get_policy(item->value, item->value_bytes, &record) != 0) {
        return false;
    }
    state->policies = check_grow(state->policies, state->policy_count, sizeof(uint64_t));
    state->policies[state->policy_count++] = get_be64(item->key + 1);
    return true;
}

/* ---- among the records ---- */

/* They are in order of branch and generation. */
static size_t
snapshot_lower_bound(const struct check_state *state, uint64_t branch, uint64_t generation)
{
    size_t low = 0;
    size_t high = state->snapshot_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct check_snapshot *at = &state->snapshots[middle];
        if (at->branch < branch || (at->branch == branch && at->generation < generation)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct check_snapshot *
find_snapshot(const struct check_state *state, uint64_t branch, uint64_t generation)
{
    size_t at = snapshot_lower_bound(state, branch, generation);
    bool found = at < state->snapshot_count && state->snapshots[at].branch == branch
        && state->snapshots[at].generation == generation;
    return found ? &state->snapshots[at] : NULL;
}

static void
report_snapshot(struct check_state *state, enum check_severity severity, enum check_code code,
                const struct check_snapshot *snapshot, const char *what, uint64_t number)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_snapshot(key, snapshot->branch, snapshot->generation);
    check_report(state, severity, code, false,
                 (struct check_key){ STORE_FAMILY_SYSTEM, key, key_bytes },
                 "snapshot `%.64s` %s %" PRIu64, snapshot->record.name, what, number);
}

static bool
is_seen(const struct check_snapshot *snapshot)
{
    return snapshot->record.state == SNAPSHOT_PENDING || snapshot->record.state == SNAPSHOT_KEPT;
}

static void
check_snapshot(struct check_state *state, const struct check_snapshot *snapshot)
{
    struct check_branch *branch = check_find_branch(state, snapshot->branch);
    if (state->has_pool && snapshot->record.id > state->pool.last_snapshot) {
        report_snapshot(state, CHECK_ERROR, CHECK_COUNTER_BEHIND, snapshot,
                        "has an id that the pool would give out again:", snapshot->record.id);
    }
    if (is_seen(snapshot) && check_find_volume(state, snapshot->record.volume) == NULL) {
        report_snapshot(state, CHECK_ERROR, CHECK_SNAPSHOT_ORPHAN, snapshot,
                        "is of a volume that is not there:", snapshot->record.volume);
    }
    if (branch == NULL) {
        report_snapshot(state, CHECK_ERROR, CHECK_SNAPSHOT_ORPHAN, snapshot,
                        "is of a branch that is not there:", snapshot->branch);
        return;
    }
    branch->snapshots++;
    branch->views += snapshot->record.state != SNAPSHOT_DELETING;
    /* One that is being made, or was given up, is recorded before the end of its generation is. */
    bool is_early = snapshot->record.state == SNAPSHOT_PENDING ||
                    (snapshot->record.state == SNAPSHOT_DELETING && !state->is_closed);
    uint64_t end = is_early ? UINT32_MAX : branch->record.current_generation;
    if (snapshot->generation == 0 || snapshot->generation >= end || (branch->record.parent != 0
            && snapshot->generation <= branch->record.fork_generation)) {
        report_snapshot(state, CHECK_ERROR, CHECK_SNAPSHOT_GENERATION_WRONG, snapshot,
                        "keeps a generation that is none of its branch's frozen ones:",
                        snapshot->generation);
    }
    if (snapshot->record.state == SNAPSHOT_PENDING && state->is_closed) {
        report_snapshot(state, CHECK_WARNING, CHECK_SNAPSHOT_STRAY, snapshot,
                        "was being made when the pool was closed; of volume",
                        snapshot->record.volume);
    }
}

static int
compare_names(const void *left, const void *right)
{
    const struct check_snapshot *a = *(const struct check_snapshot *const *)left;
    const struct check_snapshot *b = *(const struct check_snapshot *const *)right;
    if (a->record.volume != b->record.volume) {
        return a->record.volume < b->record.volume ? -1 : 1;
    }
    return strcmp(a->record.name, b->record.name);
}

static int
compare_ids(const void *left, const void *right)
{
    const struct check_snapshot *a = *(const struct check_snapshot *const *)left;
    const struct check_snapshot *b = *(const struct check_snapshot *const *)right;
    return (a->record.id > b->record.id) - (a->record.id < b->record.id);
}

static void
check_twice(struct check_state *state)
{
    if (state->snapshot_count < 2) {
        return;
    }
    const struct check_snapshot **sorted = calloc(state->snapshot_count, sizeof(*sorted));
    ASSERT(sorted != NULL);
    size_t named = 0;
    for (size_t n = 0; n < state->snapshot_count; n++) {
        if (is_seen(&state->snapshots[n])) {
            sorted[named++] = &state->snapshots[n];
        }
    }
    qsort(sorted, named, sizeof(*sorted), compare_names);
    for (size_t n = 1; n < named; n++) {
        if (compare_names(&sorted[n - 1], &sorted[n]) == 0) {
            report_snapshot(state, CHECK_ERROR, CHECK_SNAPSHOT_TWICE, sorted[n],
                            "has the name of another one of volume", sorted[n]->record.volume);
        }
    }
    for (size_t n = 0; n < state->snapshot_count; n++) {
        sorted[n] = &state->snapshots[n];
    }
    qsort(sorted, state->snapshot_count, sizeof(*sorted), compare_ids);
    for (size_t n = 1; n < state->snapshot_count; n++) {
        if (sorted[n - 1]->record.id == sorted[n]->record.id) {
            report_snapshot(state, CHECK_ERROR, CHECK_SNAPSHOT_TWICE, sorted[n],
                            "has the id of another one:", sorted[n]->record.id);
        }
    }
    free(sorted);
}

bool
check_is_seen(const struct check_state *state, uint64_t branch, uint64_t from, uint64_t to)
{
    for (size_t at = snapshot_lower_bound(state, branch, from); at < state->snapshot_count; at++) {
        const struct check_snapshot *snapshot = &state->snapshots[at];
        if (snapshot->branch != branch || snapshot->generation >= to) {
            return false;
        }
        if (snapshot->record.state != SNAPSHOT_DELETING) {
            return true;
        }
    }
    return false;
}

/* A branch needs the generation of its parent at which it forks. */
static void
check_fork(struct check_state *state, const struct check_branch *branch)
{
    const struct branch_record *record = &branch->record;
    if (record->parent == 0 || (record->flags & BRANCH_CONTINUES) != 0 || branch->has_ended) {
        return;
    }
    struct check_snapshot *fork = find_snapshot(state, record->parent, record->fork_generation);
    if (fork != NULL
        && (fork->record.state == SNAPSHOT_KEPT || fork->record.state == SNAPSHOT_HIDDEN)) {
        fork->dependents++;
        return;
    }
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_id(key, SCHEMA_BRANCH, record->id);
    check_report(state, CHECK_ERROR, CHECK_FORK_NOT_KEPT, false,
                 (struct check_key){ STORE_FAMILY_SYSTEM, key, key_bytes },
                 "this branch forks from generation %" PRIu64 " of branch %" PRIu64
                 ", which no snapshot keeps",
                 record->fork_generation, record->parent);
}

static bool
continues(const struct check_branch *branch)
{
    return (branch->record.flags & BRANCH_CONTINUES) != 0 && branch->record.parent != 0;
}

/* What has ended, and which branches are lines. Children have higher ids than their parents. */
static void
find_lines(struct check_state *state)
{
    for (size_t n = 0; n < state->branch_count; n++) {
        struct check_branch *branch = &state->branches[n];
        branch->is_alone = (branch->record.flags & BRANCH_HEADLESS) == 0 && !continues(branch)
            && branch->snapshots == branch->views && !branch->is_deleting;
    }
    for (size_t n = state->branch_count; n > 0; n--) {
        struct check_branch *branch = &state->branches[n - 1];
        /* `is_alone` of one without a head is unset, and set while one above continues it. */
        branch->has_ended = (branch->record.flags & BRANCH_HEADLESS) != 0 && branch->views == 0
            && !branch->is_alone;
        struct check_branch *parent =
            continues(branch) ? check_find_branch(state, branch->record.parent) : NULL;
        if (parent != NULL && !branch->has_ended && parent < branch) {
            parent->is_alone = (parent->record.flags & BRANCH_HEADLESS) != 0;
        }
    }
    for (size_t n = 0; n < state->branch_count; n++) {
        struct check_branch *branch = &state->branches[n];
        branch->is_alone &= (branch->record.flags & BRANCH_HEADLESS) == 0;
        branch->owned_above = branch->record.parent != 0 ? branch->record.fork_generation : 0;
        const struct check_branch *parent =
            continues(branch) ? check_find_branch(state, branch->record.parent) : NULL;
        if (parent != NULL && parent < branch) {
            branch->owned_above = parent->owned_above;
        }
    }
}

static void
check_policies(struct check_state *state)
{
    for (size_t n = 0; n < state->policy_count; n++) {
        uint64_t volume = state->policies[n];
        if (check_find_volume(state, volume) != NULL) {
            continue;
        }
        uint8_t key[STORE_KEY_BYTES_MAX];
        uint32_t key_bytes = schema_key_id(key, SCHEMA_POLICY, volume);
        check_report(state, CHECK_WARNING, CHECK_POLICY_ORPHAN, true,
                     (struct check_key){ STORE_FAMILY_SYSTEM, key, key_bytes },
                     "the snapshot policy of volume %" PRIu64
                     " is left over: there is no such volume",
                     volume);
        if (check_repair(state) != NULL) {
            schema_delete_id(check_repair(state), SCHEMA_POLICY, volume);
        }
    }
}

void
check_snapshots(struct check_state *state)
{
    for (size_t n = 0; n < state->snapshot_count; n++) {
        check_snapshot(state, &state->snapshots[n]);
    }
    check_twice(state);
    find_lines(state);
    for (size_t n = 0; n < state->branch_count; n++) {
        check_fork(state, &state->branches[n]);
    }
    for (size_t n = 0; n < state->snapshot_count; n++) {
        const struct check_snapshot *snapshot = &state->snapshots[n];
        if (snapshot->record.state == SNAPSHOT_HIDDEN && snapshot->dependents == 0) {
            report_snapshot(state, CHECK_WARNING, CHECK_SNAPSHOT_STRAY, snapshot,
                            "was deleted, and no clone needs it; its number is",
                            snapshot->record.id);
        }
    }
    check_policies(state);
}
