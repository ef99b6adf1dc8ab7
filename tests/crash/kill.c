/* SPDX-License-Identifier: Apache-2.0 */
/* Deaths of the process, and power cuts right after what followed them. */
#include <errno.h>

#include "base/util.h"
#include "tests/crash/crash.h"

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

/*
 * The database is lost together with the process. It is rebuilt from the disks, and the journal of
 * the dead process, which is still there, brings the rest: nothing acknowledged is missing (P3).
 */
static int
boot_without_database(struct world *world)
{
    sim_store_lose(world->sim, "p");
    int result = world_boot(world);

    return result < 0 ? result : world_import(world, world->options.disk_count, false);
}

static int
kill_round(struct world *world, struct random *random, uint64_t seed, struct crash_tally *tally)
{
    uint64_t *deaths = &tally->items[CRASH_DEATHS];
    bool struck = false;
    int result = kill_workload(world, random, seed, &struck);

    crash_note(world, struck ? "struck" : "workload ended", result);
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
        crash_note(world, "cut after a flush", result);
        struct sim_cut cut = { .mode = SIM_CUT_BY_SEED, .seed = seed };
        world_power_cut(world, &cut);
    } else {
        crash_note(world, "kill", result);
        world_kill(world);
    }
    sim_stop_at(world->sim, 0);
    (*deaths)++;
    if (result == 0 && random_chance(random, 1, 8)) {
        tally->items[CRASH_STORE_LOST]++;
        result = boot_without_database(world);
    } else if (result == 0) {
        result = boot_after_kill(world, random, deaths);
    }
    result = result < 0 ? result : world_attach(world);
    result = result < 0 ? result : world_verify_recovered(world);
    result = result < 0 ? result : world_check(world);
    if (result == 0 && random_chance(random, 1, 3)) {
        /* The first FLUSH after a restart covers what the dead process had acknowledged. */
        for (uint32_t v = 0; v < world->options.volume_count && result == 0; v++) {
            result = world_do(world, v, VOLUME_FLUSH, 0, 0, 0);
        }
        crash_note(world, "cut after the first flush", result);
        struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };
        world_power_cut(world, &cut);
        result = result < 0 ? result : world_boot(world);
        result = result < 0 ? result : world_attach(world);
        result = result < 0 ? result : world_verify_recovered(world);
    }
    return world->failed && result == 0 ? -EBADMSG : result;
}

int
kill_test(const struct crash_request *request, struct crash_tally *tally)
{
    uint64_t *done = &tally->items[CRASH_ROUNDS];

    for (uint64_t seed = request->seed; *done < request->count; seed += request->seed_step) {
        struct world_options options;
        struct random random;
        crash_options(&options, seed);
        random_seed(&random, seed);
        struct world *world = world_create(&options, NULL);
        int result = crash_world_begin(world, "kill", seed);
        for (uint64_t i = 0; i < 20 && result == 0 && *done < request->count; i++, (*done)++) {
            result = kill_round(world, &random, seed * 1000 + i, tally);
        }
        result = result < 0 ? result : world_shutdown(world);
        if (result < 0) {
            crash_report("crash_test kill 20", world, seed, result);
            tally->items[CRASH_FAILED]++;
            return 1;
        }
        world_free(world);
    }
    return 0;
}
