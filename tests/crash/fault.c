/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failing disks.
 *
 * A run: a workload, while which one operation of a disk fails (or two). What is checked:
 *
 *   - Every request is answered by its deadline, whatever hangs.
 *   - A read that succeeds shows what the oracle allows (P1), with the fault and after it.
 *   - A block may be unreadable only when a flush of a disk has failed (or a disk was absent at the
 *     start after a death): the disk may have lost what it held, which no read can tell, so that
 *     the volume must say so. It says so still after the death of the daemon, after a clean end,
 *     and after a power cut, until the block is rewritten or the loss accepted; only accepting may
 *     bring older bytes, never older than what a FLUSH had covered.
 *   - After a start without further faults everything else is there (P2, P3), or after two faults,
 *     if the pool is refused, after an import what was flushed (P2); the checker has no findings,
 *     every block can be written again, and the daemon ends cleanly.
 *
 * `fault RUNS` takes everything by chance. `fault --all` lists the operations of one run without
 * faults, during I/O and during the start after a death, and makes a run for each operation and
 * each kind of fault that it can have; so the list is complete for that workload.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "tests/crash/crash.h"

enum {
    REQUESTS_BEFORE = 40,
    REQUESTS_WITH = 60,
};

enum fault_phase {
    DURING_IO,
    DURING_START, /* of a daemon that died */
    FAULT_PHASE_COUNT
};

static const char *const PHASES[] = { [DURING_IO] = "io", [DURING_START] = "start" };

/* What can go wrong with an operation; the reset is one that loses unflushed writes. */
static const struct {
    const char *name;
    enum sim_fault_action action;
    uint32_t kinds; /* 0: every one */
    int error;
    uint64_t delay_ns;
    bool keeps_reads;
} FAULTS[] = {
    { "error", SIM_FAULT_ERROR, .error = EIO },
    { "no-space", SIM_FAULT_ERROR, .error = ENOSPC,
      .kinds = 1u << FILE_IO_WRITE | 1u << FILE_IO_WRITE_ZEROES | 1u << FILE_IO_ALLOCATE },
    { "short", SIM_FAULT_SHORT, .kinds = 1u << FILE_IO_READ | 1u << FILE_IO_WRITE },
    { "late", SIM_FAULT_DELAY, .delay_ns = 8 * NS_PER_S },
    { "hung", SIM_FAULT_HANG, .kinds = 0 },
    { "reset", SIM_FAULT_LOSE_CACHE, .error = EIO, .kinds = 1u << FILE_IO_FLUSH },
    { "reset-unseen", SIM_FAULT_LOSE_CACHE, .error = EIO, .keeps_reads = true,
      .kinds = 1u << FILE_IO_FLUSH },
};

static const char *const KINDS[] = {
    [FILE_IO_READ] = "read",       [FILE_IO_WRITE] = "write",
    [FILE_IO_FLUSH] = "flush",     [FILE_IO_WRITE_ZEROES] = "write-zeroes",
    [FILE_IO_DISCARD] = "discard", [FILE_IO_ALLOCATE] = "allocate",
};
_Static_assert(ARRAY_SIZE(KINDS) == SIM_DISK_KIND_COUNT, "a name for each kind");

/* One fault: the n-th operation of its kind on a disk, from the beginning of the phase. */
struct fault_point {
    uint32_t disk;
    uint32_t kind;
    uint64_t n;
    uint32_t fault; /* of FAULTS */
};

struct fault_run {
    uint64_t seed;
    enum fault_phase phase;
    struct fault_point points[2];
    uint32_t point_count;
    struct world *world;
    struct random random;
    struct crash_tally *tally;
    bool loss_is_possible; /* blocks may be unreadable */
    struct sim_disk_statistics before[WORLD_DISKS_MAX]; /* the phase */
};

/* ---- the machine ---- */

static void
fault_options(struct world_options *options, uint64_t seed)
{
    struct random random;

    random_seed(&random, seed);
    crash_options(options, seed);
    options->disk_count = 1 + (uint32_t)random_below(&random, 2);
    options->volume_bytes = MIB + 512 * random_below(&random, 64);
    options->volume_count = 2;
    options->disk_timeout_ns = 2 * NS_PER_S;
    options->request_timeout_ns = 5 * NS_PER_S;
    for (uint32_t i = 0; i < options->disk_count; i++) {
        options->disk_bytes[i] = 24 * MIB;
        options->disk_is_file[i] = random_chance(&random, 1, 3);
    }
}

static void
add_fault(struct fault_run *run, const struct fault_point *point)
{
    struct sim_fault fault = {
        .action = FAULTS[point->fault].action,
        .error = FAULTS[point->fault].error,
        .delay_ns = FAULTS[point->fault].delay_ns,
        .keeps_reads = FAULTS[point->fault].keeps_reads,
        .kinds = 1u << point->kind,
        .skip = point->n,
        .count = 1,
    };
    sim_disk_add_fault(run->world->disks[point->disk], &fault);
}

static void
release_hung(struct world *world)
{
    for (uint32_t i = 0; i < world->options.disk_count; i++) {
        sim_disk_clear_faults(world->disks[i]);
        sim_disk_release(world->disks[i]);
    }
}

static uint64_t
faults_struck(const struct world *world)
{
    uint64_t struck = 0;

    for (uint32_t i = 0; i < world->options.disk_count; i++) {
        struck += sim_disk_statistics(world->disks[i])->faults;
    }
    return struck;
}

/*
 * The reasons for blocks that cannot be read: a flush was struck; or a disk was absent when the
 * daemon started after a death, so that nothing can tell what it has kept.
 */
static void
note_possible_loss(struct fault_run *run)
{
    for (uint32_t i = 0; i < run->world->options.disk_count; i++) {
        const struct sim_disk_statistics *statistics = sim_disk_statistics(run->world->disks[i]);
        run->loss_is_possible = run->loss_is_possible || statistics->faults_of[FILE_IO_FLUSH] > 0 ||
                            (run->phase == DURING_START && statistics->faults > 0);
    }
    run->world->allow_unreadable = run->loss_is_possible;
}

/* ---- checks ---- */

static uint64_t
unreadable(const struct world *world)
{
    uint64_t blocks = 0;

    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        blocks += world->unreadable[v];
    }
    return blocks;
}

static int
complain(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return -EBADMSG;
}

static int
boot_and_verify(struct world *world)
{
    int result = world_boot(world);

    result = result < 0 ? result : world_attach(world);
    return result < 0 ? result : world_verify_recovered(world);
}

/*
 * After two faults a pool may be refused. Then import, or, where it says that the database is
 * better than what the disks have, accepting a loss brings back what was flushed.
 */
static int
after_refusal(struct fault_run *run)
{
    struct world *world = run->world;

    run->tally->items[CRASH_IMPORTS]++;
    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        oracle_died(world->oracles[v], true);
    }
    int result = world_import(world, world->options.disk_count, true);
    if (result == -EEXIST) {
        world_kill(world);
        for (uint32_t v = 0; v < world->options.volume_count; v++) {
            oracle_died(world->oracles[v], true);
        }
        world->options.accept_loss = true;
        return boot_and_verify(world);
    }
    result = result < 0 ? result : world_attach(world);
    return result < 0 ? result : world_verify_recovered(world);
}

/* Requests are answered at their deadlines, but a slot is held until the disk lets go. */
static int
all_are_answered(struct world *world)
{
    list_for_each(&world->ios, link) {
        const struct world_io *io = list_entry(link, struct world_io, link);
        if (!io->replied) {
            return complain("a request was never answered");
        }
    }
    return 0;
}

/* What cannot be read can be written, and read after that. */
static int
rewrite(struct world *world)
{
    int result = 0;

    for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
        for (uint64_t at = 0; at < world->sizes[v] && result == 0; at += 256 * KIB) {
            result = world_do(world, v, VOLUME_WRITE, at, MIN(256 * KIB, world->sizes[v] - at), 0);
        }
        result = result < 0 ? result : world_do(world, v, VOLUME_FLUSH, 0, 0, 0);
    }
    world->allow_unreadable = false;
    return result < 0 ? result : world_verify(world);
}

/*
 * Volumes have said that they lost something. That lasts; `accept_loss` ends what is not known
 * block by block, and the rest is rewritten.
 */
static int
check_loss(struct fault_run *run)
{
    struct world *world = run->world;
    uint64_t before[WORLD_VOLUMES_MAX];

    run->tally->items[CRASH_FENCED_AFTER]++;
    memcpy(before, world->unreadable, sizeof(before));
    int result = 0;
    switch (random_below(&run->random, 3)) {
    case 0:
        world_kill(world);
        break;
    case 1:
        result = world_shutdown(world);
        break;
    default: {
        struct sim_cut cut = { .mode = SIM_CUT_BY_SEED, .seed = run->seed };
        world_power_cut(world, &cut);
    }
    }
    result = result < 0 ? result : boot_and_verify(world);
    for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
        if (world->unreadable[v] < before[v]) {
            return complain("a loss was forgotten by a restart");
        }
    }
    result = result < 0 ? result : world_shutdown(world);
    for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
        if (before[v] > 0) {
            oracle_died(world->oracles[v], true); /* what was not flushed may be gone */
        }
    }
    world->options.accept_loss = true;
    run->tally->items[CRASH_LOSS_ACCEPTED]++;
    result = result < 0 ? result : boot_and_verify(world);
    return result < 0 ? result : rewrite(world);
}

/* Everything that may hang has been let go. The daemon dies, and starts on disks that work. */
static int
check_after_death(struct fault_run *run)
{
    struct world *world = run->world;

    world_kill(world);
    sim_quiesce(world->sim, 60 * NS_PER_S);
    int result = boot_and_verify(world);
    if (result == -ENOENT && run->point_count > 1) {
        result = after_refusal(run);
    }
    if (result == 0 && unreadable(world) > 0) {
        result = check_loss(run);
    }
    result = result < 0 ? result : world_check(world);
    result = result < 0 ? result : world_shutdown(world);
    if (result == 0 && world->failed) {
        result = -EBADMSG;
    }
    return result;
}

/* ---- the runs ---- */

/* The same requests in every run of a seed, until a fault changes what happens. */
static int
run_workload(struct fault_run *run, uint64_t count)
{
    struct workload workload;

    workload_init(&workload, run->world, run->seed + count);
    workload.hot_bytes = 96 * KIB;
    workload.length_bytes_max = 96 * KIB;
    return workload_run(&workload, count);
}

static void
begin_phase(struct fault_run *run)
{
    for (uint32_t i = 0; i < run->world->options.disk_count; i++) {
        run->before[i] = *sim_disk_statistics(run->world->disks[i]);
    }
    for (uint32_t i = 0; i < run->point_count; i++) {
        add_fault(run, &run->points[i]);
    }
}

static int
during_io(struct fault_run *run)
{
    struct world *world = run->world;

    begin_phase(run);
    int result = run_workload(run, REQUESTS_WITH);
    if (result == -ETIMEDOUT) {
        result = all_are_answered(world);
    }
    /* A flush that is late is answered later than the requests. */
    sim_run_for(world->sim, 3 * NS_PER_S);
    note_possible_loss(run);
    release_hung(world);
    result = result < 0 ? result : world_drain(world);
    result = result < 0 ? result : world_verify(world);
    run->tally->items[CRASH_FENCED] += result == 0 && unreadable(world) > 0;
    return result;
}

/*
 * The daemon dies, and a disk fails while it starts: it serves, or says why not; then it is as
 * if it died once more.
 */
static int
during_start(struct fault_run *run)
{
    struct world *world = run->world;

    world_kill(world);
    begin_phase(run);
    int result = world_boot(world);
    if (result == -ETIMEDOUT || result == -EDEADLK) {
        return complain("a start has no end");
    }
    note_possible_loss(run);
    if (result == 0 && world_serves(world)) {
        result = world_attach(world);
        sim_run_for(world->sim, 3 * NS_PER_S);
        release_hung(world);
        result = result < 0 ? result : world_verify_recovered(world);
        result = result == -EIO || result == -ENODEV ? 0 : result;
        return result;
    }
    sim_run_for(world->sim, 3 * NS_PER_S);
    release_hung(world);
    return 0;
}

static int
fault_run(struct fault_run *run)
{
    struct world_options options;

    fault_options(&options, run->seed);
    random_seed(&run->random, run->seed);
    run->world = world_create(&options, NULL);
    struct world *world = run->world;
    int result = crash_world_begin(world, "fault", run->seed);
    result = result < 0 ? result : run_workload(run, REQUESTS_BEFORE);
    if (result == 0) {
        result = run->phase == DURING_IO ? during_io(run) : during_start(run);
    }
    run->tally->items[CRASH_STRUCK] += faults_struck(world);
    run->tally->items[CRASH_DOUBLE_FAULTS] += run->point_count > 1;
    if (run->point_count == 0 && result == 0) {
        return 0; /* the caller looks at the operations */
    }
    result = result < 0 ? result : check_after_death(run);
    if (result < 0) {
        fprintf(stderr, "FAILED: crash_test fault --seed %" PRIu64, run->seed);
        for (uint32_t i = 0; i < run->point_count; i++) {
            const struct fault_point *point = &run->points[i];
            fprintf(stderr, " --point %s,%u,%s,%" PRIu64 ",%s", PHASES[run->phase], point->disk,
                    KINDS[point->kind], point->n, FAULTS[point->fault].name);
        }
        fprintf(stderr, ": %s: %s\n", error_name(result), world->last_error);
        run->tally->items[CRASH_FAILED]++;
    }
    run->tally->items[CRASH_ROUNDS]++;
    return result;
}

static void
run_free(struct fault_run *run)
{
    if (run->world->manager != NULL) {
        world_kill(run->world);
    }
    world_free(run->world);
    run->world = NULL;
}

/* ---- by chance ---- */

/* How many operations of each kind a phase has, from a run without faults. */
struct fault_plan {
    uint64_t counts[FAULT_PHASE_COUNT][WORLD_DISKS_MAX][SIM_DISK_KIND_COUNT];
    uint32_t disk_count;
};

static int
plan_make(struct fault_plan *plan, uint64_t seed, struct crash_tally *tally)
{
    int result = 0;

    *plan = (struct fault_plan){ 0 };
    for (uint32_t phase = 0; phase < FAULT_PHASE_COUNT && result == 0; phase++) {
        struct fault_run run = { .seed = seed, .phase = (enum fault_phase)phase, .tally = tally };
        result = fault_run(&run);
        plan->disk_count = run.world->options.disk_count;
        for (uint32_t disk = 0; disk < plan->disk_count; disk++) {
            for (uint32_t kind = 0; kind < SIM_DISK_KIND_COUNT; kind++) {
                plan->counts[phase][disk][kind] =
                    sim_disk_statistics(run.world->disks[disk])->operations[kind] -
                    run.before[disk].operations[kind];
            }
        }
        run_free(&run);
    }
    return result;
}

static bool
fault_suits(uint32_t fault, uint32_t kind)
{
    return FAULTS[fault].kinds == 0 || (FAULTS[fault].kinds & 1u << kind) != 0;
}

static struct fault_point
random_point(const struct fault_plan *plan, enum fault_phase phase, struct random *random)
{
    struct fault_point point;
    uint64_t count;

    do {
        point.disk = (uint32_t)random_below(random, plan->disk_count);
        point.fault = (uint32_t)random_below(random, ARRAY_SIZE(FAULTS));
        point.kind = (uint32_t)random_below(random, SIM_DISK_KIND_COUNT);
        count = plan->counts[phase][point.disk][point.kind];
    } while (!fault_suits(point.fault, point.kind) || count == 0);
    point.n = random_below(random, count);
    return point;
}

/* Runs of one workload with random faults; every third with two. */
static void
some_points(const struct fault_plan *plan, uint64_t seed, uint64_t count,
            struct crash_tally *tally)
{
    struct random random;

    random_seed(&random, seed);
    for (uint64_t i = 0; i < count && tally->items[CRASH_FAILED] < CRASH_FAILURES_MAX; i++) {
        struct fault_run run = { .seed = seed, .tally = tally };
        run.phase = random_chance(&random, 1, 4) ? DURING_START : DURING_IO;
        run.point_count = random_chance(&random, 1, 3) ? 2 : 1;
        for (uint32_t p = 0; p < run.point_count; p++) {
            run.points[p] = random_point(plan, run.phase, &random);
        }
        (void)fault_run(&run);
        run_free(&run);
    }
}

/* ---- all of them ---- */

/* Each operation of one kind on one disk, with each fault that it can have. */
static void
all_of_kind(const struct crash_request *request, struct fault_run *first, uint64_t count,
            uint64_t *number)
{
    uint64_t *items = first->tally->items;
    struct fault_point *point = &first->points[0];

    for (point->n = 0; point->n < count; point->n++) {
        for (point->fault = 0; point->fault < ARRAY_SIZE(FAULTS); point->fault++) {
            if (!fault_suits(point->fault, point->kind) ||
                (*number)++ % request->slices != request->slice ||
                items[CRASH_FAILED] >= CRASH_FAILURES_MAX) {
                continue;
            }
            struct fault_run run = *first;
            (void)fault_run(&run);
            run_free(&run);
            items[CRASH_POINTS]++;
        }
    }
}

static void
all_points(const struct fault_plan *plan, const struct crash_request *request, uint64_t seed,
           struct crash_tally *tally)
{
    uint64_t number = 0;

    for (uint32_t phase = 0; phase < FAULT_PHASE_COUNT; phase++) {
        for (uint32_t disk = 0; disk < plan->disk_count; disk++) {
            for (uint32_t kind = 0; kind < SIM_DISK_KIND_COUNT; kind++) {
                struct fault_run run = {
                    .seed = seed, .phase = (enum fault_phase)phase, .tally = tally,
                    .points = { { .disk = disk, .kind = kind } }, .point_count = 1,
                };
                all_of_kind(request, &run, plan->counts[phase][disk][kind], &number);
            }
        }
    }
}

/* ---- one of them again ---- */

/* Which of the names, or `count`. */
static uint32_t
name_find(const char *const *names, uint32_t count, const char *name)
{
    uint32_t i = 0;

    while (i < count && strcmp(names[i], name) != 0) {
        i++;
    }
    return i;
}

static bool
point_parse(const char *text, enum fault_phase *ret_phase, struct fault_point *ret_point)
{
    char phase[16];
    char kind[16];
    char fault[16];
    unsigned int disk = 0;
    unsigned long long n = 0;

    if (sscanf(text, "%15[^,],%u,%15[^,],%llu,%15s", phase, &disk, kind, &n, fault) != 5) {
        return false;
    }
    *ret_phase = (enum fault_phase)name_find(PHASES, ARRAY_SIZE(PHASES), phase);
    *ret_point = (struct fault_point){
        .disk = disk, .kind = name_find(KINDS, ARRAY_SIZE(KINDS), kind), .n = n,
    };
    while (ret_point->fault < ARRAY_SIZE(FAULTS) &&
           strcmp(FAULTS[ret_point->fault].name, fault) != 0) {
        ret_point->fault++;
    }
    return *ret_phase < FAULT_PHASE_COUNT && disk < WORLD_DISKS_MAX &&
           ret_point->kind < ARRAY_SIZE(KINDS) && ret_point->fault < ARRAY_SIZE(FAULTS);
}

static int
one_run(const struct crash_request *request, struct crash_tally *tally)
{
    struct fault_run run = {
        .seed = request->seed, .tally = tally, .point_count = request->point_count,
    };

    for (uint32_t i = 0; i < run.point_count; i++) {
        if (!point_parse(request->points[i], &run.phase, &run.points[i])) {
            fprintf(stderr, "`%s` is no point\n", request->points[i]);
            return 2;
        }
    }
    int result = fault_run(&run);
    run_free(&run);
    return result < 0 ? 1 : 0;
}

int
fault_test(const struct crash_request *request, struct crash_tally *tally)
{
    enum { RUNS_OF_A_SEED = 20 };
    uint64_t *items = tally->items;
    uint64_t seed = request->seed;
    uint64_t workloads = 0;

    if (request->point_count > 0) {
        return one_run(request, tally);
    }
    while (items[CRASH_FAILED] < CRASH_FAILURES_MAX &&
           (request->all ? workloads : items[CRASH_ROUNDS]) < request->count) {
        struct fault_plan plan;
        if (plan_make(&plan, seed, tally) < 0) {
            items[CRASH_FAILED]++;
        } else if (request->all) {
            all_points(&plan, request, seed, tally);
        } else {
            uint64_t count = MIN((uint64_t)RUNS_OF_A_SEED, request->count - items[CRASH_ROUNDS]);
            some_points(&plan, seed, count, tally);
        }
        workloads++;
        seed += request->seed_step;
    }
    items[CRASH_RECORDINGS] += request->slice == 0 ? workloads : 0;
    return items[CRASH_FAILED] > 0 ? 1 : 0;
}
