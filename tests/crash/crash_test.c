/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash tests of the volume manager on a simulated machine.
 *
 *   crash_test cut STATES      power cut after event N of recorded workloads, for every N; each
 *                              unflushed write is kept, lost or torn by itself; in some states the
 *                              database is lost, damaged or an old one, too; reopen; every sector
 *                              that may hold anything is asked for (P1, P2, P4)
 *   crash_test kill ROUNDS     SIGKILL at random events, also during the replay of the one before;
 *                              sometimes a power cut right after a FLUSH that followed a restart
 *                              (P1, P2, P3)
 *   crash_test fault RUNS      operations of disks fail once (error, out of space, short, slow,
 *                              hung, lost cache), sometimes two; every request is answered, and
 *                              what is served is right, before and after a restart
 *   crash_test fault --all WORKLOADS
 *                              as fault: each operation of a workload with each kind of fault that
 *                              it can have, one run each
 *
 *   --seed S       the first workload (default 1)
 *   --choices C    cut: crash states at each cut point (default 1)
 *   --at N,CHOICE  cut: only this state of the workload of --seed
 *   --slice I/N    fault --all: one part of N; with "today/N" another one every day
 *   --point ...    fault: only the run that a failure has named; up to two of them
 *   -j JOBS        so many processes
 *
 * Any failure prints the command that gives the same run again.
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "tests/crash/crash.h"

enum {
    JOBS_MAX = 64,
};

typedef int test_fn(const struct crash_request *request, struct crash_tally *tally);

static const struct {
    const char *name;
    test_fn *run;
} TESTS[] = {
    { "cut", cut_test },
    { "kill", kill_test },
    { "fault", fault_test },
};

void
crash_options(struct world_options *options, uint64_t seed)
{
    struct random random;

    random_seed(&random, seed);
    *options = (struct world_options){
        .seed = seed,
        .reactor_count = 1 + (uint32_t)random_below(&random, 2),
        .disk_count = 1 + (uint32_t)random_below(&random, 3),
        .extent_bytes = 1 * MIB,
        .volume_count = 1 + (uint32_t)random_below(&random, 2),
        .volume_bytes = 3 * MIB,
        .map_cache_bytes = 1 * MIB,
        .journal_bytes = 256 * KIB,
    };
    for (uint32_t i = 0; i < options->disk_count; i++) {
        options->disk_bytes[i] = 24 * MIB + random_below(&random, 8) * MIB;
        options->disk_sector_bytes[i] = random_chance(&random, 1, 4) ? 4096 : 512;
    }
}

int
crash_world_begin(struct world *world, const char *what, uint64_t seed)
{
    int result = world_boot(world);

    result = result < 0 ? result : world_format(world);
    result = result < 0 ? result : world_attach(world);
    if (result < 0) {
        crash_report(what, world, seed, result);
    }
    return result;
}

void
crash_report(const char *what, const struct world *world, uint64_t seed, int status)
{
    fprintf(stderr, "FAILED: %s --seed %" PRIu64 ": event %" PRIu64 ": %s%s%s\n", what, seed,
            sim_event_count(world->sim), error_name(status),
            world->last_error[0] != '\0' ? ": " : "", world->last_error);
}

void
crash_note(const struct world *world, const char *what, int result)
{
    if (getenv("VOLMGR_TEST_LOG") != NULL) {
        fprintf(stderr, "-- %s at event %" PRIu64 ": %s\n", what, sim_event_count(world->sim),
                error_name(result));
    }
}

/* ---- jobs ---- */

static void
tally_add(struct crash_tally *sum, const struct crash_tally *part)
{
    uint64_t fewest = sum->items[CRASH_IOS_FEWEST];
    uint64_t other = part->items[CRASH_IOS_FEWEST];

    for (uint32_t i = 0; i < CRASH_TALLY_COUNT; i++) {
        sum->items[i] += part->items[i];
    }
    sum->items[CRASH_IOS_FEWEST] = fewest == 0 || (other != 0 && other < fewest) ? other : fewest;
}

static void
tally_print(const struct crash_tally *tally)
{
    static const char *const texts[] = {
#define CRASH_TALLY_TEXT(name, text) text,
        CRASH_TALLY(CRASH_TALLY_TEXT)
#undef CRASH_TALLY_TEXT
    };

    for (uint32_t i = 0; i < CRASH_TALLY_COUNT; i++) {
        if (tally->items[i] != 0 || i == CRASH_FAILED) {
            printf("%12" PRIu64 " %s\n", tally->items[i], texts[i]);
        }
    }
}

/* Each job has its own process, seeds and share of the count. */
static int
run_jobs(test_fn *run, const struct crash_request *request, uint64_t jobs,
         struct crash_tally *ret_sum)
{
    int pipes[2];
    int result = 0;

    if (pipe(pipes) < 0) {
        return 2;
    }
    fflush(NULL);
    for (uint64_t i = 0; i < jobs; i++) {
        pid_t child = fork();
        if (child < 0) {
            return 2;
        }
        if (child == 0) {
            struct crash_request part = *request;
            struct crash_tally tally = { 0 };
            if (request->all) {
                part.slice += i * request->slices;
                part.slices *= jobs;
            } else {
                part.seed += i;
                part.seed_step = jobs;
                part.count = request->count / jobs + (i < request->count % jobs);
            }
            int status = run(&part, &tally);
            ssize_t written = write(pipes[1], &tally, sizeof(tally));
            _exit(written == sizeof(tally) ? status : 2);
        }
    }
    close(pipes[1]);
    struct crash_tally tally;
    while (read(pipes[0], &tally, sizeof(tally)) == sizeof(tally)) {
        tally_add(ret_sum, &tally);
    }
    close(pipes[0]);
    for (uint64_t i = 0; i < jobs; i++) {
        int status = 0;
        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            result = 1;
        }
    }
    return result;
}

/* ---- the command line ---- */

static int
usage(void)
{
    fprintf(stderr, "usage: crash_test cut STATES | kill ROUNDS | fault RUNS |\n"
                    "       fault --all WORKLOADS [--seed S] [--choices C] [--at N,CHOICE]\n"
                    "       [--slice I/N] [--point ...] [-j JOBS]\n");
    return 2;
}

static bool
two_numbers(const char *text, char between, uint64_t *ret_first, uint64_t *ret_second)
{
    char *end = NULL;

    *ret_first = strtoull(text, &end, 10);
    if (end == text || *end != between) {
        return false;
    }
    *ret_second = strtoull(end + 1, &end, 10);
    return *end == '\0';
}

/* An option with a value. */
static bool
parse_option(const char *name, const char *value, struct crash_request *request, uint64_t *jobs)
{
    const struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {
        { "--seed", &request->seed },
        { "--choices", &request->choices },
        { "-j", jobs },
    };

    for (uint32_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].number = strtoull(value, NULL, 10);
            return true;
        }
    }
    if (strcmp(name, "--point") == 0 && request->point_count < ARRAY_SIZE(request->points)) {
        request->points[request->point_count++] = value;
        return true;
    }
    if (strcmp(name, "--at") == 0) {
        return two_numbers(value, ',', &request->only_event, &request->only_choice);
    }
    if (strcmp(name, "--slice") == 0 && strncmp(value, "today/", 6) == 0) {
        request->slices = strtoull(value + 6, NULL, 10);
        request->slice = request->slices > 0 ? (uint64_t)time(NULL) / 86400 % request->slices : 0;
        printf("--slice %" PRIu64 "/%" PRIu64 "\n", request->slice, request->slices);
        return true;
    }
    return strcmp(name, "--slice") == 0 &&
           two_numbers(value, '/', &request->slice, &request->slices);
}

static bool
parse(int argc, char **argv, struct crash_request *request, uint64_t *jobs)
{
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0) {
            request->all = true;
        } else if (argv[i][0] != '-') {
            request->count = strtoull(argv[i], NULL, 10);
        } else if (i + 1 == argc || !parse_option(argv[i], argv[i + 1], request, jobs)) {
            return false;
        } else {
            i++;
        }
    }
    return request->choices > 0 && request->slice < request->slices && *jobs > 0 &&
           *jobs <= JOBS_MAX &&
           (request->count > 0 || request->point_count > 0 ||
            request->only_event != UINT64_MAX);
}

int
main(int argc, char **argv)
{
    struct crash_request request = {
        .seed = 1, .seed_step = 1, .choices = 1, .only_event = UINT64_MAX, .slices = 1,
    };
    struct crash_tally tally = { 0 };
    uint64_t jobs = 1;
    test_fn *run = NULL;

    for (uint32_t i = 0; argc > 2 && i < ARRAY_SIZE(TESTS); i++) {
        run = strcmp(argv[1], TESTS[i].name) == 0 ? TESTS[i].run : run;
    }
    if (run == NULL || !parse(argc, argv, &request, &jobs)) {
        return usage();
    }
    /* Memory of one simulated machine serves the next: without page faults it is twice as fast. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, INT32_MAX);
    log_set_level(getenv("VOLMGR_TEST_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR - 1);
    time_t began = time(NULL);
    int result = jobs > 1 ? run_jobs(run, &request, jobs, &tally) : run(&request, &tally);
    tally_print(&tally);
    printf("%12" PRIu64 " seconds\n", (uint64_t)(time(NULL) - began));
    return result;
}
