/* SPDX-License-Identifier: Apache-2.0 */
/* What the three crash tests share; crash_test.c says what they are. */
#ifndef TESTS_CRASH_CRASH_H
#define TESTS_CRASH_CRASH_H

#include "tests/sim/workload.h"

enum {
    CRASH_FAILURES_MAX = 10, /* then a test gives up */
};

/* What has been counted: CRASH_<NAME> and how it is called in the report. */
#define CRASH_TALLY(X)                                                                             \
    X(STATES, "crash states")                                                                      \
    X(RECORDINGS, "recorded workloads")                                                            \
    X(EVENTS, "distinct cut points: every submission, completion and commit")                      \
    X(CUT_SHORT, "workloads of which only the first cut points were asked for")                    \
    X(IOS, "disk operations in the workloads")                                                     \
    X(IOS_FEWEST, "disk operations in the shortest workload")                                      \
    X(WRITES, "  writes")                                                                          \
    X(FUA, "  of them with FUA")                                                                   \
    X(FLUSHES, "  flushes")                                                                        \
    X(DISCARDS, "  discards")                                                                      \
    X(HOST_REQUESTS, "requests of hosts")                                                          \
    X(HOST_FLUSHES, "  FLUSH")                                                                     \
    X(HOST_FUA, "  with FUA")                                                                      \
    X(HOST_DISCARDS, "  discards")                                                                 \
    X(HOST_ZEROES, "  zeroings")                                                                   \
    X(NO_SPACE, "  answered: out of space")                                                        \
    X(GROWN, "volumes made larger")                                                                \
    X(SHRUNK, "volumes made smaller")                                                              \
    X(DISKS_ADDED, "disks added")                                                                  \
    X(STORE_LOST, "times the database was lost")                                                   \
    X(STORE_OLDER, "states with an older database")                                                \
    X(STORE_DAMAGED, "states with a damaged database")                                             \
    X(CAUGHT_UP, "older databases that the ledger brought up")                                     \
    X(IMPORTS, "pools rebuilt by import")                                                          \
    X(CHECKED, "states in which the checker ran")                                                  \
    X(WENT_ON, "states in which I/O went on")                                                      \
    X(DURABLE_SECTORS, "sectors with a durable floor in these")                                    \
    X(ROUNDS, "rounds")                                                                            \
    X(DEATHS, "deaths")                                                                            \
    X(POINTS, "operations, each with each kind of fault")                                          \
    X(DOUBLE_FAULTS, "runs with two faults")                                                       \
    X(STRUCK, "faults that struck")                                                                \
    X(FENCED, "runs in which a volume was fenced")                                                 \
    X(FENCED_AFTER, "runs in which it still was after a restart")                                  \
    X(LOSS_ACCEPTED, "runs in which the loss was accepted")                                        \
    X(READ_ONLY, "runs in which the pool became read-only")                                        \
    X(FAILED, "failed")

enum crash_tally_item {
#define CRASH_TALLY_ENUM(name, text) CRASH_##name,
    CRASH_TALLY(CRASH_TALLY_ENUM)
#undef CRASH_TALLY_ENUM
        CRASH_TALLY_COUNT
};

struct crash_tally {
    uint64_t items[CRASH_TALLY_COUNT];
};

/* What the command line asked for, or one job's share of it. */
struct crash_request {
    uint64_t count;
    uint64_t seed;
    uint64_t seed_step; /* jobs take turns */
    uint64_t choices;     /* cut: crash states at each cut point */
    uint64_t only_event;  /* cut: this cut point and choice alone; UINT64_MAX: all */
    uint64_t only_choice;
    uint64_t slice;  /* fault --all: this one of so many parts */
    uint64_t slices;
    bool all;
    const char *points[2]; /* fault: this run alone */
    uint32_t point_count;
};

/* 0 or 1, an exit status. */
int cut_test(const struct crash_request *request, struct crash_tally *tally);
int kill_test(const struct crash_request *request, struct crash_tally *tally);
int fault_test(const struct crash_request *request, struct crash_tally *tally);

/* A small pool with one or two volumes, of every shape. */
void crash_options(struct world_options *options, uint64_t seed);
/* Boot, format, attach. Reports what fails. */
int crash_world_begin(struct world *world, const char *what, uint64_t seed);
void crash_report(const char *what, const struct world *world, uint64_t seed, int status);
/* A line with VOLMGR_TEST_LOG. */
void crash_note(const struct world *world, const char *what, int result);

#endif
