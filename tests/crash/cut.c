/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts at every event of a recorded workload.
 *
 * A workload is run once, with everything noted that happened to disks and database (sim_log.h) and
 * all that hosts were told (world_record). For every event N, and for several choices of what the
 * caches lose, the machine after a cut at N is made from the notes; the product starts on it, and
 * must show what the oracle allows. Nothing is run twice: a state costs its start and its reading.
 *
 * The workload has all that changes something: writes of every size and alignment, FUA, FLUSH,
 * discards, zeroings, volumes that grow (under I/O) and shrink, a pool that becomes full, goes on
 * full, and gets another disk; one volume has a reserve, and never meets the full pool (P7).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/crash/crash.h"
#include "tests/sim/sim_log.h"

enum {
    IOS_MIN = 2000, /* disk operations of a workload */
    VOLUME_RESERVED = 2,
    WENT_ON_EVERY = 16,
    CHECKED_EVERY = 8,
};

struct cut_run {
    struct world_options options;
    uint64_t seed;
    struct sim_log *log;
    struct world_record *record;
    struct oracle *oracles[WORLD_VOLUMES_MAX]; /* when the recording started */
    uint32_t disk_count;                       /* when it ended */
    struct crash_tally *tally;
};

/* ---- the workload ---- */

/* Room for a few MiB beyond what is kept for checkpoints, and more volume than that. */
static void
cut_options(struct world_options *options, uint64_t seed)
{
    struct random random;

    random_seed(&random, seed);
    crash_options(options, seed);
    options->volume_count = 2 + (uint32_t)random_below(&random, 2);
    options->volume_bytes = MIB + random_below(&random, 64) * 512;
    options->volume_bytes_max = seed % 3 == 0 ? 80 * MIB : 10 * MIB;
    options->reserve_bytes[VOLUME_RESERVED] = options->volume_bytes;
    options->disk_count = random_chance(&random, 1, 2) ? 1 : 2 + (uint32_t)(seed % 2);
    uint64_t slots = 6 + 2 + random_below(&random, 3) + (options->volume_count > VOLUME_RESERVED);
    for (uint32_t i = 0; i < options->disk_count; i++) {
        uint64_t share = i + 1 < options->disk_count ? slots / options->disk_count
                                                     : slots - i * (slots / options->disk_count);
        options->disk_bytes[i] = (share + 4) * MIB;
    }
}

static uint64_t
disk_operations(const struct world *world)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < world->options.disk_count; i++) {
        const struct sim_disk_statistics *statistics = sim_disk_statistics(world->disks[i]);
        for (uint32_t kind = 0; kind < SIM_DISK_KIND_COUNT; kind++) {
            count += kind == FILE_IO_READ ? 0 : statistics->operations[kind];
        }
    }
    return count;
}

/* Volume 1 grows while requests are in flight, beyond what the pool can hold. */
static int
grow(struct world *world, struct workload *workload)
{
    int result = workload_send(workload, 8);

    result = result < 0 ? result
                        : world_resize(world, 1, world->options.volume_bytes_max - 4096);
    return result < 0 ? result : world_drain(world);
}

/* Until there is no room, or the volume ends; then go on with a full pool. */
static int
fill(struct world *world, struct workload *workload)
{
    int result = 0;

    for (uint64_t at = 0; at + 256 * KIB <= world->sizes[1] && result == 0; at += 256 * KIB) {
        result = world_do(world, 1, at % MIB == 0 ? VOLUME_WRITE_ZEROES : VOLUME_WRITE, at,
                          256 * KIB, at % MIB == 0 ? VOLUME_NO_HOLE : 0);
    }
    if (result < 0 && result != -ENOSPC) {
        return result;
    }
    uint64_t hot_bytes = workload->hot_bytes;
    workload->hot_bytes = 0; /* where nothing is yet, as well */
    result = workload_run(workload, 60);
    workload->hot_bytes = hot_bytes;
    return result < 0 ? result : workload_run(workload, 60);
}

static int
make_room(struct world *world, struct workload *workload)
{
    int result = world_do(world, 1, VOLUME_DISCARD, MIB, MIB, 0);

    result = result < 0 ? result : workload_run(workload, 60);
    result = result < 0 ? result : world_add_disk(world, world->options.disk_count, 8 * MIB);
    world->options.disk_count += result == 0;
    return result < 0 ? result : workload_run(workload, 60);
}

/* The tail is discarded first; sometimes it is not, and the volume stays as it is. */
static int
shrink(struct world *world, struct workload *workload, uint64_t seed)
{
    uint64_t size_bytes = 2 * MIB + 512 * (seed % 16);
    int result = 0;

    if (seed % 4 != 0) {
        result = world_do(world, 1, VOLUME_DISCARD, align_down(size_bytes, 4096),
                          world->sizes[1] - align_down(size_bytes, 4096), 0);
    }
    result = result < 0 ? result : world_resize(world, 1, align_up(size_bytes, 4096));
    if (result < 0 && result != -ENOTEMPTY) {
        return result;
    }
    result = workload_run(workload, 60);
    result = result < 0 ? result : world_resize(world, 1, MAX(6 * MIB, world->sizes[1]));
    return result < 0 ? result : workload_run(workload, 60);
}

static int
cut_workload(struct world *world, uint64_t seed)
{
    struct workload workload;

    workload_init(&workload, world, seed);
    workload.hot_bytes = 96 * KIB;
    workload.length_bytes_max = 160 * KIB;
    workload.flush_seldom = seed % 3 == 0;
    int result = workload_run(&workload, 120);
    result = result < 0 ? result : grow(world, &workload);
    result = result < 0 ? result : workload_run(&workload, 60);
    result = result < 0 ? result : fill(world, &workload);
    result = result < 0 ? result : make_room(world, &workload);
    result = result < 0 ? result : shrink(world, &workload, seed);
    while (result == 0 && disk_operations(world) < IOS_MIN) {
        result = workload_run(&workload, 40);
    }
    if (result == 0 && world->options.volume_count > VOLUME_RESERVED &&
        world->statistics.no_space_of[VOLUME_RESERVED] > 0) {
        fprintf(stderr, "a volume with a reserve was told that there is no space\n");
        result = -ENOSPC;
    }
    return result;
}

/* ---- recording ---- */

static void
tally_world(struct crash_tally *tally, const struct world *world)
{
    const struct world_statistics *asked = &world->statistics;
    uint64_t ios = 0;

    for (uint32_t i = 0; i < world->options.disk_count; i++) {
        const struct sim_disk_statistics *disk = sim_disk_statistics(world->disks[i]);
        tally->items[CRASH_WRITES] += disk->operations[FILE_IO_WRITE];
        tally->items[CRASH_FUA] += disk->fua;
        tally->items[CRASH_FLUSHES] += disk->operations[FILE_IO_FLUSH];
        tally->items[CRASH_DISCARDS] += disk->operations[FILE_IO_DISCARD];
    }
    ios = disk_operations(world);
    tally->items[CRASH_IOS] += ios;
    if (tally->items[CRASH_IOS_FEWEST] == 0 || ios < tally->items[CRASH_IOS_FEWEST]) {
        tally->items[CRASH_IOS_FEWEST] = ios;
    }
    for (uint32_t i = 0; i < VOLUME_OPERATION_COUNT; i++) {
        tally->items[CRASH_HOST_REQUESTS] += asked->requests[i];
    }
    tally->items[CRASH_HOST_FLUSHES] += asked->requests[VOLUME_FLUSH];
    tally->items[CRASH_HOST_DISCARDS] += asked->requests[VOLUME_DISCARD];
    tally->items[CRASH_HOST_ZEROES] += asked->requests[VOLUME_WRITE_ZEROES];
    tally->items[CRASH_HOST_FUA] += asked->fua;
    tally->items[CRASH_NO_SPACE] += asked->no_space;
    tally->items[CRASH_GROWN] += asked->grown;
    tally->items[CRASH_SHRUNK] += asked->shrunk;
    tally->items[CRASH_DISKS_ADDED] += asked->disks_added;
    tally->items[CRASH_RECORDINGS]++;
}

/* Run the workload once, recording it. */
static int
cut_record(struct cut_run *run)
{
    cut_options(&run->options, run->seed);
    struct world *world = world_create(&run->options, NULL);
    int result = crash_world_begin(world, "cut", run->seed);
    if (result < 0) {
        return result;
    }
    for (uint32_t v = 0; v < run->options.volume_count; v++) {
        run->oracles[v] = oracle_copy(world->oracles[v]);
    }
    run->log = sim_log_start(world->sim);
    run->record = world_record_start(world);
    result = cut_workload(world, run->seed);
    if (result == 0) {
        result = world_verify(world);
    }
    sim_log_stop(world->sim);
    if (result == 0 && world->failed) {
        result = -EBADMSG;
    }
    result = result < 0 ? result : world_check(world);
    run->disk_count = world->options.disk_count;
    tally_world(run->tally, world);
    int ended = world_shutdown(world);
    result = result < 0 ? result : ended;
    if (result < 0) {
        crash_report("cut: the workload itself:", world, run->seed, result);
    }
    if (world->manager != NULL) {
        world_kill(world);
    }
    world_free(world);
    return result;
}

static void
cut_free(struct cut_run *run)
{
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        if (run->oracles[v] != NULL) {
            oracle_free(run->oracles[v]);
        }
    }
    if (run->record != NULL) {
        world_record_free(run->record);
    }
    if (run->log != NULL) {
        sim_log_free(run->log);
    }
}

/* ---- one crash state ---- */

enum store_fate {
    STORE_AS_CUT,
    STORE_OLDER,
    STORE_LOST,
    STORE_DAMAGED,
};

/* A state: everything about it follows from the recording, n and the choice. */
struct cut_state {
    uint64_t n;
    uint64_t choice;
    struct random random;
    enum store_fate fate;
    struct sim_cut cut;
};

static void
state_choose(struct cut_state *state, uint64_t seed, uint64_t n, uint64_t choice)
{
    static const enum store_fate fates[] = { STORE_OLDER, STORE_OLDER, STORE_LOST, STORE_DAMAGED };

    *state = (struct cut_state){ .n = n, .choice = choice };
    random_seed(&state->random, hash_u64(seed) ^ hash_u64(n * 1000003 + choice));
    state->cut.mode = SIM_CUT_BY_SEED;
    state->cut.seed = random_u64(&state->random);
    if (random_chance(&state->random, 1, 4)) {
        state->fate = fates[random_below(&state->random, ARRAY_SIZE(fates))];
    }
    if (state->fate == STORE_OLDER) {
        uint64_t limit = random_chance(&state->random, 1, 2) ? 8 : 2000;
        state->cut.store_older = 1 + random_below(&state->random, limit);
    }
}

/* The administrator gives all disks; one whose addition was cut short may be no member. */
static int
import(struct world *world, uint32_t disks_at_first, bool force, struct crash_tally *tally)
{
    uint32_t disk_count = 0;

    while (disk_count < WORLD_DISKS_MAX && world->disks[disk_count] != NULL) {
        disk_count++;
    }
    int result = world_import(world, disk_count, force);
    if (result < 0 && disk_count > disks_at_first) {
        result = world_import(world, disks_at_first, force);
    }
    tally->items[CRASH_IMPORTS]++;
    return result;
}

static int
state_boot(struct cut_run *run, struct cut_state *state, struct world *world)
{
    struct crash_tally *tally = run->tally;
    bool force = false;
    int result = 0;

    switch (state->fate) {
    case STORE_AS_CUT:
        return world_boot(world);
    case STORE_OLDER:
        tally->items[CRASH_STORE_OLDER]++;
        result = world_boot(world);
        if (result == 0 && world_serves(world)) {
            tally->items[CRASH_CAUGHT_UP]++;
            return 0;
        }
        force = true;
        break;
    case STORE_LOST:
        tally->items[CRASH_STORE_LOST]++;
        sim_store_lose(world->sim, "p");
        result = world_boot(world);
        break;
    case STORE_DAMAGED:
        tally->items[CRASH_STORE_DAMAGED]++;
        sim_store_set_damaged(world->sim, "p", true);
        result = world_boot(world);
        force = true;
        break;
    }
    if (result == 0 && world_serves(world)) {
        fprintf(stderr, "a pool without its database serves\n");
        result = -EBADMSG;
    }
    return result < 0 ? result : import(world, run->options.disk_count, force, tally);
}

/* It goes on living: more I/O, a clean end. */
static int
state_goes_on(struct cut_run *run, struct cut_state *state, struct world *world)
{
    struct workload workload;

    workload_init(&workload, world, random_u64(&state->random));
    workload.length_bytes_max = 64 * KIB;
    int result = workload_run(&workload, 20);
    result = result < 0 ? result : world_verify(world);
    result = result < 0 || !world->failed ? result : -EBADMSG;
    run->tally->items[CRASH_WENT_ON]++;
    return result < 0 ? result : world_shutdown(world);
}

static void
state_report(const struct cut_run *run, const struct cut_state *state, const struct world *world,
             int status)
{
    static const char *const fates[] = { "as cut", "older", "lost", "damaged" };

    fprintf(stderr, "FAILED: crash_test cut --seed %" PRIu64 " --at %" PRIu64 ",%" PRIu64
            " (database %s): %s%s%s\n", run->seed, state->n, state->choice, fates[state->fate],
            error_name(status), world->last_error[0] != '\0' ? ": " : "", world->last_error);
}

/* Boot from the image after event n and compare. */
static int
cut_check(struct cut_run *run, struct world_replay *replay, uint64_t n, uint64_t choice)
{
    struct cut_state state;
    state_choose(&state, run->seed, n, choice);
    struct sim_options sim_options = { .seed = random_u64(&state.random) };
    struct sim *sim = sim_create(&sim_options);
    int result = sim_log_materialise(run->log, n, &state.cut, sim);

    ASSERT_OP(result, ==, 0);
    struct world_options options = run->options;
    options.disk_count = run->disk_count;
    struct world *world = world_create(&options, sim);
    world_replay_to(replay, n);
    world_replay_oracles(replay, world);
    result = state_boot(run, &state, world);
    result = result < 0 ? result : world_attach(world);
    result = result < 0 ? result : world_verify_recovered(world);
    uint64_t turn = n + choice;
    for (uint32_t v = 0; turn % WENT_ON_EVERY == 0 && v < run->options.volume_count; v++) {
        run->tally->items[CRASH_DURABLE_SECTORS] += oracle_durable_sectors(world->oracles[v]);
    }
    if (result == 0 && turn % CHECKED_EVERY == 0) {
        run->tally->items[CRASH_CHECKED]++;
        result = world_check(world);
    }
    if (result == 0 && turn % WENT_ON_EVERY == 0) {
        result = state_goes_on(run, &state, world);
    }
    if (result < 0) {
        state_report(run, &state, world, result);
    }
    if (world->manager != NULL) {
        world_kill(world);
    }
    world_free(world);
    run->tally->items[CRASH_STATES]++;
    run->tally->items[CRASH_FAILED] += result < 0;
    return result;
}

/* ---- all of them ---- */

static void
cut_explore(struct cut_run *run, const struct crash_request *request)
{
    struct world_replay *replay = world_replay_start(run->record, run->oracles);
    uint64_t length = sim_log_length(run->log);
    uint64_t *items = run->tally->items;
    uint64_t n = 0;

    if (request->only_event != UINT64_MAX) {
        (void)cut_check(run, replay, MIN(request->only_event, length), request->only_choice);
        world_replay_free(replay);
        return;
    }
    for (; n <= length && items[CRASH_STATES] < request->count &&
           items[CRASH_FAILED] < CRASH_FAILURES_MAX; n++) {
        for (uint64_t choice = 0; choice < request->choices; choice++) {
            (void)cut_check(run, replay, n, choice);
        }
        items[CRASH_EVENTS]++;
    }
    items[CRASH_CUT_SHORT] += n <= length;
    world_replay_free(replay);
}

int
cut_test(const struct crash_request *request, struct crash_tally *tally)
{
    uint64_t *items = tally->items;
    uint64_t seed = request->seed;
    bool only_one = request->only_event != UINT64_MAX;

    do {
        struct cut_run run = { .seed = seed, .tally = tally };
        if (cut_record(&run) < 0) {
            items[CRASH_FAILED]++;
        } else {
            cut_explore(&run, request);
        }
        cut_free(&run);
        seed += request->seed_step;
    } while (!only_one && items[CRASH_STATES] < request->count &&
             items[CRASH_FAILED] < CRASH_FAILURES_MAX);
    return items[CRASH_FAILED] > 0 || items[CRASH_DURABLE_SECTORS] == 0 ? 1 : 0;
}
