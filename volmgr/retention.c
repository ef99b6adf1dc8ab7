/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/retention_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

int
retention_policy_check(const struct retention_policy *policy)
{
    for (uint32_t i = 0; i < RETENTION_RULES_MAX; i++) {
        const struct retention_rule *rule = &policy->rules[i];
        if (rule->every_ns == 0) {
            continue;
        }
        if (rule->every_ns < NS_PER_S || rule->keep == 0 || rule->keep > RETENTION_KEEP_MAX ||
            rule->immutable_ns > UINT64_MAX / 4) {
            return -EINVAL;
        }
    }
    return 0;
}

/* Newest creation among the snapshots of a rule; false: there is none. */
static bool
newest_of(uint32_t rule, const struct retention_snapshot *snapshots, uint32_t count,
          uint64_t *ret_created_ns)
{
    uint64_t newest_ns = 0;
    bool found = false;

    for (uint32_t i = 0; i < count; i++) {
        if ((snapshots[i].rules >> rule & 1) != 0) {
            newest_ns = MAX(newest_ns, snapshots[i].created_ns);
            found = true;
        }
    }
    *ret_created_ns = newest_ns;
    return found;
}

uint8_t
retention_due(const struct retention_policy *policy, const struct retention_snapshot *snapshots,
              uint32_t count, uint64_t now_ns)
{
    uint8_t due = 0;

    for (uint32_t i = 0; i < RETENTION_RULES_MAX; i++) {
        uint64_t every_ns = policy->rules[i].every_ns;
        uint64_t newest_ns = 0;
        if (every_ns != 0 && (!newest_of(i, snapshots, count, &newest_ns) ||
                              now_ns / every_ns > newest_ns / every_ns)) {
            due |= (uint8_t)(1u << i);
        }
    }
    return due;
}

uint64_t
retention_next_due_ns(const struct retention_policy *policy,
                      const struct retention_snapshot *snapshots, uint32_t count, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;

    for (uint32_t i = 0; i < RETENTION_RULES_MAX; i++) {
        uint64_t every_ns = policy->rules[i].every_ns;
        uint64_t newest_ns = 0;
        if (every_ns == 0) {
            continue;
        }
        if (!newest_of(i, snapshots, count, &newest_ns)) {
            return now_ns;
        }
        uint64_t due_ns = (newest_ns / every_ns + 1) * every_ns;
        next_ns = MIN(next_ns, MAX(due_ns, now_ns));
    }
    return next_ns;
}

uint64_t
retention_expiry_ns(const struct retention_policy *policy, uint8_t rules, uint64_t now_ns)
{
    uint64_t longest_ns = 0;

    for (uint32_t i = 0; i < RETENTION_RULES_MAX; i++) {
        if ((rules >> i & 1) != 0) {
            longest_ns = MAX(longest_ns, policy->rules[i].immutable_ns);
        }
    }
    return longest_ns == 0 ? 0 : now_ns + longest_ns;
}

/* A snapshot of one rule, to be sorted. */
struct dated {
    uint64_t created_ns;
    uint32_t index;
};

static int
newest_first(const void *left, const void *right)
{
    const struct dated *a = left;
    const struct dated *b = right;

    if (a->created_ns != b->created_ns) {
        return a->created_ns > b->created_ns ? -1 : 1;
    }
    return a->index > b->index ? -1 : a->index < b->index;
}

/* The newest `keep` snapshots of a rule are wanted, the others are not wanted by it. */
static void
judge_rule(uint32_t rule, uint32_t keep, const struct retention_snapshot *snapshots,
           uint32_t count, bool *wanted, bool *unwanted)
{
    struct dated *dated = calloc((size_t)count + 1, sizeof(*dated));
    uint32_t found = 0;

    ASSERT(dated != NULL);
    for (uint32_t i = 0; i < count; i++) {
        if ((snapshots[i].rules >> rule & 1) != 0) {
            dated[found++] = (struct dated){ snapshots[i].created_ns, i };
        }
    }
    qsort(dated, found, sizeof(*dated), newest_first);
    for (uint32_t i = 0; i < found; i++) {
        bool *verdict = i < MAX(keep, 1u) ? wanted : unwanted; /* T2 */
        verdict[dated[i].index] = true;
    }
    free(dated);
}

uint32_t
retention_choose(const struct retention_policy *policy, const struct retention_snapshot *snapshots,
                 uint32_t count, uint64_t now_ns, bool *ret_chosen)
{
    bool *wanted = calloc((size_t)count + 1, sizeof(*wanted));
    uint32_t chosen = 0;

    ASSERT(wanted != NULL);
    memset(ret_chosen, 0, count * sizeof(*ret_chosen));
    for (uint32_t i = 0; i < RETENTION_RULES_MAX; i++) {
        if (policy->rules[i].every_ns != 0) {
            judge_rule(i, policy->rules[i].keep, snapshots, count, wanted, ret_chosen);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        ret_chosen[i] = ret_chosen[i] && !wanted[i] && retention_may_delete(&snapshots[i], now_ns);
        ASSERT(!ret_chosen[i] || snapshots[i].rules != 0);
        chosen += ret_chosen[i];
    }
    free(wanted);
    return chosen;
}

int
retention_extend(struct retention_snapshot *snapshot, uint64_t expires_ns)
{
    if (expires_ns < snapshot->expires_ns) {
        return -EPERM;
    }
    snapshot->expires_ns = expires_ns;
    return 0;
}

/* ---- the pool's clock ---- */

void
retention_clock_start(struct retention_clock *clock, uint64_t stored_ns, uint64_t realtime_ns,
                      uint64_t monotonic_ns)
{
    clock->now_ns = MAX(stored_ns, realtime_ns);
    clock->monotonic_ns = monotonic_ns;
}

void
retention_clock_advance(struct retention_clock *clock, uint64_t monotonic_ns)
{
    ASSERT_OP(monotonic_ns, >=, clock->monotonic_ns);
    clock->now_ns += monotonic_ns - clock->monotonic_ns;
    clock->monotonic_ns = monotonic_ns;
}
