/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash tests of the volume manager on a simulated machine.
 *
 *   crash_test cut STATES [SEED]    power cut after event N of recorded workloads, for every N;
 *                                   each unflushed write is kept, lost or torn by itself; reopen;
 *                                   every sector of every volume is asked for (P1, P2, P4)
 *   crash_test kill ROUNDS [SEED]   SIGKILL at random events, also during the replay of the one
 *                                   before; sometimes a power cut right after a FLUSH that followed
 *                                   a restart (P1, P2, P3)
 *
 *   crash_test fault RUNS [SEED]    each operation of a disk fails once (error, short, slow, hung,
 *                                   lost cache), sometimes two; every request is answered, what is
 *                                   served is right, before and after a restart
 *
 * Any failure prints the seed and the event, which give the same run again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "tests/sim/sim_log.h"
#include "tests/sim/workload.h"

enum {
    OPERATIONS_PER_RUN = 400,
};

static void
options_by_seed(struct world_options *options, uint64_t seed)
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
        .journal_bytes = 1 * MIB,
    };
    for (uint32_t i = 0; i < options->disk_count; i++) {
        options->disk_bytes[i] = 24 * MIB + random_below(&random, 8) * MIB;
        options->disk_sector_bytes[i] = random_chance(&random, 1, 4) ? 4096 : 512;
    }
}

static void
report(const char *what, const struct world *world, uint64_t seed, uint64_t event, int status)
{
    fprintf(stderr, "FAILED: %s: seed %" PRIu64 " event %" PRIu64 ": %s%s%s\n", what, seed, event,
            error_name(status), world->last_error[0] != '\0' ? ": " : "", world->last_error);
}

/* ---- cut ---- */

struct cut_run {
    struct world_options options;
    struct sim_log *log;
    struct world_record *record;
    struct oracle *oracles[WORLD_VOLUMES_MAX]; /* when the recording started */
    uint64_t durable_sectors;
};

/* Run the workload once, recording it. */
static int
cut_record(struct cut_run *run, uint64_t seed)
{
    struct workload workload;

    options_by_seed(&run->options, seed);
    struct world *world = world_create(&run->options, NULL);
    int result = world_boot(world);
    result = result < 0 ? result : world_format(world);
    result = result < 0 ? result : world_attach(world);
    if (result < 0) {
        report("format", world, seed, 0, result);
        return result;
    }
    for (uint32_t v = 0; v < run->options.volume_count; v++) {
        run->oracles[v] = oracle_copy(world->oracles[v]);
    }
    run->log = sim_log_start(world->sim);
    run->record = world_record_start(world);
    workload_init(&workload, world, seed);
    workload.hot_bytes = 96 * KIB;
    workload.length_bytes_max = 160 * KIB;
    workload.flush_seldom = seed % 3 == 0;
    result = workload_run(&workload, OPERATIONS_PER_RUN);
    if (result == 0) {
        result = world_verify(world);
    }
    sim_log_stop(world->sim);
    if (result == 0 && world->failed) {
        result = -EBADMSG;
    }
    int ended = world_shutdown(world);
    result = result < 0 ? result : ended;
    if (result < 0) {
        report("run", world, seed, sim_event_count(world->sim), result);
    }
    if (world->manager != NULL) {
        world_kill(world);
    }
    world_free(world);
    return result;
}

/* Boot from the image after event n and compare. */
static int
cut_check(struct cut_run *run, struct world_replay *replay, uint64_t seed, uint64_t n)
{
    struct sim_options sim_options = { .seed = hash_u64(seed) + n };
    struct sim *sim = sim_create(&sim_options);
    struct sim_cut cut = { .mode = SIM_CUT_BY_SEED, .seed = seed * 1000003 + n };
    int result = sim_log_materialise(run->log, n, &cut, sim);

    ASSERT_OP(result, ==, 0);
    struct world *world = world_create(&run->options, sim);
    world_replay_to(replay, n);
    world_replay_oracles(replay, world);
    result = world_boot(world);
    result = result < 0 ? result : world_attach(world);
    result = result < 0 ? result : world_verify_recovered(world);
    for (uint32_t v = 0; v < run->options.volume_count; v++) {
        run->durable_sectors += oracle_durable_sectors(world->oracles[v]);
    }
    if (result == 0 && n % 16 == 0) {
        /* It goes on living: more I/O, a clean end. */
        struct workload workload;
        workload_init(&workload, world, seed + n);
        workload.length_bytes_max = 64 * KIB;
        result = workload_run(&workload, 20);
        result = result < 0 ? result : world_verify(world);
        result = result < 0 || !world->failed ? result : -EBADMSG;
    }
    if (result < 0) {
        report("cut", world, seed, n, result);
    }
    int ended = world->manager != NULL ? world_shutdown(world) : 0;
    if (ended < 0 && result == 0) {
        report("shutdown after cut", world, seed, n, ended);
        result = ended;
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

static int
cut_test(uint64_t states, uint64_t seed)
{
    uint64_t done = 0;
    uint64_t failed = 0;
    uint64_t durable = 0;

    for (; done < states && failed < 10; seed++) {
        struct cut_run run = { 0 };
        int result = cut_record(&run, seed);
        if (result < 0) {
            cut_free(&run);
            failed++;
            continue;
        }
        struct world_replay *replay = world_replay_start(run.record, run.oracles);
        uint64_t length = sim_log_length(run.log);
        for (uint64_t n = 0; n <= length && done < states && failed < 10; n++) {
            failed += cut_check(&run, replay, seed, n) < 0;
            done++;
        }
        durable += run.durable_sectors;
        world_replay_free(replay);
        cut_free(&run);
    }
    printf("%" PRIu64 " crash states checked, %" PRIu64 " failed; %" PRIu64
           " sectors with a durable floor\n", done, failed, durable);
    return failed > 0 || durable == 0 ? 1 : 0;
}

/* ---- kill ---- */

/* Run until the simulator strikes at a random event, or the workload ends. */
static int
kill_workload(struct world *world, struct random *random, uint64_t seed, bool *ret_struck)
{
    struct workload workload;
    uint64_t span = 1 + random_below(random, 3000);

    workload_init(&workload, world, seed);
    workload.hot_bytes = 96 * KIB;
    workload.flush_seldom = random_chance(random, 1, 2);
    sim_stop_at(world->sim, sim_event_count(world->sim) + span);
    int result = workload_run(&workload, 300);
    *ret_struck = result == -ECANCELED || sim_has_stopped(world->sim);
    if (*ret_struck || result == 0) {
        return 0;
    }
    return result;
}

/* Boot; sometimes the process dies again while it replays. */
static int
boot_after_kill(struct world *world, struct random *random, uint64_t *deaths)
{
    while (random_chance(random, 1, 4)) {
        sim_stop_at(world->sim, sim_event_count(world->sim) + 1 + random_below(random, 60));
        int result = world_boot(world);
        if (result == 0 && !sim_has_stopped(world->sim)) {
            sim_stop_at(world->sim, 0);
            return 0;
        }
        if (result != 0 && result != -ECANCELED) {
            return result;
        }
        (*deaths)++;
        world_kill(world);
    }
    sim_stop_at(world->sim, 0);
    return world_boot(world);
}

static void
note(const struct world *world, const char *what, int result)
{
    if (getenv("VOLMGR_TEST_LOG") != NULL) {
        fprintf(stderr, "-- %s at event %" PRIu64 ": %s\n", what, sim_event_count(world->sim),
                error_name(result));
    }
}

static int
kill_round(struct world *world, struct random *random, uint64_t seed, uint64_t *deaths)
{
    bool struck = false;
    int result = kill_workload(world, random, seed, &struck);

    note(world, struck ? "struck" : "workload ended", result);
    if (result < 0) {
        return result;
    }
    if (!struck) {
        sim_stop_at(world->sim, 0);
    }
    if (random_chance(random, 1, 4) && !struck) {
        /* Flush everything, and cut the power: all of it must be there (P2 after P3). */
        for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
            result = world_do(world, v, VOLUME_FLUSH, 0, 0, 0);
        }
        note(world, "cut after a flush", result);
        struct sim_cut cut = { .mode = SIM_CUT_BY_SEED, .seed = seed };
        world_power_cut(world, &cut);
    } else {
        note(world, "kill", result);
        world_kill(world);
    }
    sim_stop_at(world->sim, 0);
    (*deaths)++;
    result = result < 0 ? result : boot_after_kill(world, random, deaths);
    result = result < 0 ? result : world_attach(world);
    result = result < 0 ? result : world_verify_recovered(world);
    if (result == 0 && random_chance(random, 1, 3)) {
        /* The first FLUSH after a restart covers what the dead process had acknowledged. */
        for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
            result = world_do(world, v, VOLUME_FLUSH, 0, 0, 0);
        }
        note(world, "cut after the first flush", result);
        struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };
        world_power_cut(world, &cut);
        result = result < 0 ? result : world_boot(world);
        result = result < 0 ? result : world_attach(world);
        result = result < 0 ? result : world_verify_recovered(world);
    }
    return world->failed && result == 0 ? -EBADMSG : result;
}

static int
kill_test(uint64_t rounds, uint64_t seed)
{
    uint64_t done = 0;
    uint64_t deaths = 0;

    while (done < rounds) {
        struct world_options options;
        struct random random;
        options_by_seed(&options, seed);
        random_seed(&random, seed);
        struct world *world = world_create(&options, NULL);
        int result = world_boot(world);
        result = result < 0 ? result : world_format(world);
        result = result < 0 ? result : world_attach(world);
        for (uint64_t i = 0; i < 20 && result == 0 && done < rounds; i++, done++) {
            result = kill_round(world, &random, seed * 1000 + i, &deaths);
        }
        if (result < 0) {
            report("kill", world, seed, sim_event_count(world->sim), result);
            return 1;
        }
        result = world_shutdown(world);
        if (result < 0) {
            report("shutdown", world, seed, sim_event_count(world->sim), result);
            return 1;
        }
        world_free(world);
        seed++;
    }
    printf("%" PRIu64 " rounds, %" PRIu64 " deaths, nothing lost\n", done, deaths);
    return 0;
}

/* ---- fault ---- */

static const enum sim_fault_action FAULTS[] = {
    SIM_FAULT_ERROR, SIM_FAULT_ERROR, SIM_FAULT_SHORT, SIM_FAULT_DELAY, SIM_FAULT_HANG,
    SIM_FAULT_LOSE_CACHE,
};

static void
add_fault(struct world *world, struct random *random, uint64_t skip)
{
    static const int errors[] = { EIO, EIO, ENOSPC, ETIMEDOUT };
    uint64_t disk = random_below(random, world->options.disk_count);
    struct sim_fault fault = {
        .action = FAULTS[random_below(random, ARRAY_SIZE(FAULTS))],
        .skip = skip,
        .count = 1,
        .error = errors[random_below(random, ARRAY_SIZE(errors))],
        .delay_ns = random_below(random, 10) * NS_PER_S,
    };

    if (fault.action == SIM_FAULT_LOSE_CACHE) {
        fault.kinds = 1u << FILE_IO_FLUSH;
        fault.skip = skip / 8;
        fault.error = EIO;
    }
    sim_disk_add_fault(world->disks[disk], &fault);
}

static void
release_hung(struct world *world)
{
    for (uint32_t i = 0; i < world->options.disk_count; i++) {
        sim_disk_clear_faults(world->disks[i]);
        sim_disk_release(world->disks[i]);
    }
}

/* -EIO from a volume that was fenced is an answer; wrong bytes never are. */
static int
verify_or_fenced(struct world *world, int (*check)(struct world *world), bool *ret_fenced)
{
    int result = check(world);

    *ret_fenced = result == -EIO;
    return result == -EIO ? 0 : result;
}

static int
fault_run(struct world *world, struct random *random, uint64_t seed)
{
    struct workload workload;
    bool fenced = false;

    workload_init(&workload, world, seed);
    workload.hot_bytes = 96 * KIB;
    workload.length_bytes_max = 96 * KIB;
    int result = workload_run(&workload, 40);
    add_fault(world, random, random_below(random, 150));
    if (random_chance(random, 1, 3)) {
        add_fault(world, random, random_below(random, 150));
    }
    result = result < 0 ? result : workload_run(&workload, 60);
    if (result == -ETIMEDOUT) {
        /* Requests are answered at their deadlines, but a slot is held until the disk lets go. */
        list_for_each(&world->ios, link) {
            const struct world_io *io = list_entry(link, struct world_io, link);
            if (!io->replied) {
                fprintf(stderr, "a request was never answered\n");
                return -ETIMEDOUT;
            }
        }
        result = 0;
    }
    release_hung(world);
    result = result < 0 ? result : world_drain(world);
    result = result < 0 ? result : verify_or_fenced(world, world_verify, &fenced);
    /* A read may meet the loss of a cache before the flush that tells of it has been answered. */
    if (result == 0 && world->failed && !fenced) {
        result = -EBADMSG;
    }
    if (result < 0) {
        return result;
    }
    /* Whatever was lost with a cache is lost; nothing that a FLUSH had covered may be. */
    world_kill(world);
    for (uint32_t v = 0; fenced && v < world->options.volume_count; v++) {
        oracle_died(world->oracles[v], true);
    }
    sim_quiesce(world->sim, 60 * NS_PER_S);
    world->options.accept_loss = fenced;
    result = world_boot(world);
    result = result < 0 ? result : world_attach(world);
    return result < 0 ? result : world_verify_recovered(world);
}

static int
fault_test(uint64_t runs, uint64_t seed)
{
    for (uint64_t done = 0; done < runs; done++, seed++) {
        struct world_options options;
        struct random random;
        options_by_seed(&options, seed);
        options.disk_timeout_ns = 2 * NS_PER_S;
        options.request_timeout_ns = 5 * NS_PER_S;
        random_seed(&random, seed);
        struct world *world = world_create(&options, NULL);
        int result = world_boot(world);
        result = result < 0 ? result : world_format(world);
        result = result < 0 ? result : world_attach(world);
        result = result < 0 ? result : fault_run(world, &random, seed);
        result = result < 0 ? result : world_shutdown(world);
        if (result < 0) {
            report("fault", world, seed, sim_event_count(world->sim), result);
            return 1;
        }
        world_free(world);
    }
    printf("%" PRIu64 " runs with faults, nothing wrong was shown\n", runs);
    return 0;
}

int
main(int argc, char **argv)
{
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;

    log_set_level(getenv("VOLMGR_TEST_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR - 1);
    if (argc > 2 && strcmp(argv[1], "cut") == 0) {
        return cut_test(count, seed);
    }
    if (argc > 2 && strcmp(argv[1], "kill") == 0) {
        return kill_test(count, seed);
    }
    if (argc > 2 && strcmp(argv[1], "fault") == 0) {
        return fault_test(count, seed);
    }
    fprintf(stderr, "usage: crash_test cut STATES | kill ROUNDS | fault RUNS [SEED]\n");
    return 2;
}
