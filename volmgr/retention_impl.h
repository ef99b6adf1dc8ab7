/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schedules of snapshots: when one is due, and which ones are to go. Pure: times come in, a list of
 * what to do comes out.
 *
 * THEORY OF OPERATION
 *
 * A policy is a few rules, each "every so often, keep so many". Time is cut in periods of the
 * rule's length, beginning at 1970; a rule is due when no snapshot was made for it in this one. A
 * snapshot that is made for several rules at once bears all their numbers, and goes when none of
 * them keeps it any more: each keeps the newest of its own. What was made by hand is never chosen,
 * nor what only rules that are no longer in use were the reason for.
 *
 * A snapshot may be immutable until a time, which can be put off and never be brought forward. It
 * is held against a clock of the pool's own, which does not go back, and which does not go forward
 * faster than time does while the daemon runs: setting the machine's clock shortens nothing.
 *
 * Invariants
 *  T1  What is immutable, or was not made for a rule, is not chosen.
 *  T2  The newest snapshot of each rule is not chosen (a rule keeps at least one).
 *  T3  An expiry only grows.
 */
#ifndef VOLMGR_RETENTION_IMPL_H
#define VOLMGR_RETENTION_IMPL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RETENTION_RULES_MAX = 8,
    RETENTION_KEEP_MAX = 10000,
};

struct retention_rule {
    uint64_t every_ns;     /* at least a second; 0: the rule is not in use */
    uint32_t keep;         /* 1 .. RETENTION_KEEP_MAX */
    uint64_t immutable_ns; /* for so long from its creation; 0: not at all */
};

struct retention_policy {
    struct retention_rule rules[RETENTION_RULES_MAX];
};

struct retention_snapshot {
    uint64_t created_ns; /* the pool's clock */
    uint64_t expires_ns; /* immutable until then; 0: it is not */
    uint8_t rules;       /* bit n: made for rule n; 0: by hand */
};

/* Foreign numbers (P12): 0 or -EINVAL. */
int retention_policy_check(const struct retention_policy *policy);

/* The rules for which a snapshot is due now, a bit each; 0: none. */
uint8_t retention_due(const struct retention_policy *policy,
                      const struct retention_snapshot *snapshots, uint32_t count, uint64_t now_ns);
/* When the next one is due; UINT64_MAX: never. */
uint64_t retention_next_due_ns(const struct retention_policy *policy,
                               const struct retention_snapshot *snapshots, uint32_t count,
                               uint64_t now_ns);
/* Until when a snapshot made for these rules is immutable; 0: it is not. */
uint64_t retention_expiry_ns(const struct retention_policy *policy, uint8_t rules,
                             uint64_t now_ns);
/* Which snapshots, in any order, are to be deleted now. Returns how many. */
uint32_t retention_choose(const struct retention_policy *policy,
                          const struct retention_snapshot *snapshots, uint32_t count,
                          uint64_t now_ns, bool *ret_chosen);

/* May anybody delete it? */
static inline bool
retention_may_delete(const struct retention_snapshot *snapshot, uint64_t now_ns)
{
    return snapshot->expires_ns <= now_ns;
}
/* 0, or -EPERM when that would shorten it (T3). */
int retention_extend(struct retention_snapshot *snapshot, uint64_t expires_ns);

/* ---- the pool's clock ---- */

struct retention_clock {
    uint64_t now_ns;       /* realtime, as far as it is believed; kept in the pool's records */
    uint64_t monotonic_ns; /* when it was last looked at, in this run */
};

/*
 * The pool is opened: real time counts if it is not behind what the clock had come to. What passed
 * while nothing ran cannot be known better.
 */
void retention_clock_start(struct retention_clock *clock, uint64_t stored_ns, uint64_t realtime_ns,
                           uint64_t monotonic_ns);
/* Move on by what has really passed; catch up with a real time that is ahead at most as fast. */
void retention_clock_advance(struct retention_clock *clock, uint64_t monotonic_ns);

#endif
