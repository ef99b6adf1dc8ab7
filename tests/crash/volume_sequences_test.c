/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane under death: volumes and exports are made, deleted, renamed, resized, reserved,
 * unexported, several at a time, while hosts write; at some event the process is killed or the
 * power cut, and in a part of the runs once more while the pool is being opened. Afterwards each
 * volume must be as the last command that was answered left it, or as the one under way would have;
 * the checker finds nothing wrong, and what was deleted gives its space back.
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

enum {
    SLOTS = 5,
    ROUNDS = 14,
    SEEDS = 10,
    CRASHES_A_SEED = 30,
    AT_ONCE_MAX = 3,
};

/* What a volume is; no name: it is not there. */
struct shape {
    char name[32];
    uint64_t size_bytes;
    uint64_t reserve_bytes;
    bool exported;
};

enum action {
    CREATE,
    DELETE,
    RENAME,
    RESIZE,
    RESERVE,
    EXPORT,
    UNEXPORT,
};

union operation {
    struct volume_create create;
    struct volume_delete delete;
    struct volume_rename rename;
    struct volume_resize resize;
    struct volume_set_reserve reserve;
    struct export_create export;
    struct export_delete unexport;
    struct control control;
};

struct slot {
    struct shape now;
    struct shape next; /* if the command under way succeeds */
    bool under_way;
    enum action action;
    union operation operation;
    bool done;
};

struct run {
    struct bench *bench;
    struct slot slots[SLOTS];
    uint32_t names;
    uint64_t id_high;
};

static const char *const TWO[] = { "/d/0", "/d/1", NULL };

static void
set_name(struct volume_name *name, const struct slot *slot)
{
    snprintf(name->pool, sizeof(name->pool), "p");
    snprintf(name->volume, sizeof(name->volume), "%s", slot->now.name);
}

/* ---- commands ---- */

static enum action
choose(struct run *run, const struct slot *slot)
{
    struct sim *sim = run->bench->sim;

    if (slot->now.name[0] == '\0') {
        return CREATE;
    }
    if (slot->now.exported) {
        return (enum action[]){ RENAME, RESIZE, RESERVE, UNEXPORT }[sim_random_below(sim, 4)];
    }
    return (enum action[]){ DELETE, DELETE, RENAME, RESIZE, RESERVE, EXPORT,
                            EXPORT }[sim_random_below(sim, 7)];
}

static void
start_sized(struct run *run, struct slot *slot)
{
    struct bench *bench = run->bench;
    union operation *operation = &slot->operation;

    if (slot->action == RESIZE) {
        /* Up, or down to what it was: what is behind it was never written. */
        slot->next.size_bytes = slot->now.size_bytes + 512 * (1 + sim_random_below(bench->sim, 99));
        set_name(&operation->resize.name, slot);
        operation->resize.size_bytes = slot->next.size_bytes;
        bench_volume_resize_start(bench, &operation->resize, &slot->done);
    } else {
        slot->next.reserve_bytes = sim_random_below(bench->sim, 5) * MIB;
        set_name(&operation->reserve.name, slot);
        operation->reserve.reserve_bytes = slot->next.reserve_bytes;
        bench_volume_set_reserve_start(bench, &operation->reserve, &slot->done);
    }
}

static void
start_existing(struct run *run, struct slot *slot)
{
    struct bench *bench = run->bench;
    union operation *operation = &slot->operation;

    switch (slot->action) {
    case DELETE:
        memset(&slot->next, 0, sizeof(slot->next));
        set_name(&operation->delete.name, slot);
        bench_volume_delete_start(bench, &operation->delete, &slot->done);
        break;
    case RENAME:
        snprintf(slot->next.name, sizeof(slot->next.name), "v%u", run->names++);
        set_name(&operation->rename.name, slot);
        snprintf(operation->rename.new_name, sizeof(operation->rename.new_name), "%s",
                 slot->next.name);
        bench_volume_rename_start(bench, &operation->rename, &slot->done);
        break;
    case EXPORT:
        slot->next.exported = true;
        set_name(&operation->export.name, slot);
        snprintf(operation->export.record.protocol, sizeof(operation->export.record.protocol),
                 "nbd");
        bench_export_create_start(bench, &operation->export, &slot->done);
        break;
    case UNEXPORT:
        slot->next.exported = false;
        set_name(&operation->unexport.name, slot);
        bench_export_delete_start(bench, &operation->unexport, &slot->done);
        break;
    default:
        start_sized(run, slot);
    }
}

static void
start(struct run *run, struct slot *slot)
{
    struct bench *bench = run->bench;

    memset(&slot->operation, 0, sizeof(slot->operation));
    slot->action = choose(run, slot);
    slot->next = slot->now;
    slot->under_way = true;
    slot->done = false;
    if (slot->action != CREATE) {
        start_existing(run, slot);
        return;
    }
    snprintf(slot->next.name, sizeof(slot->next.name), "v%u", run->names++);
    slot->next.size_bytes = (8 + sim_random_below(bench->sim, 60)) * MIB;
    slot->next.reserve_bytes = sim_random_below(bench->sim, 3) * MIB;
    struct volume_create *create = &slot->operation.create;
    snprintf(create->name.pool, sizeof(create->name.pool), "p");
    snprintf(create->name.volume, sizeof(create->name.volume), "%s", slot->next.name);
    create->size_bytes = slot->next.size_bytes;
    create->reserve_bytes = slot->next.reserve_bytes;
    create->tier = VOLUME_TIER_AUTO;
    bench_volume_create_start(bench, create, &slot->done);
}

/* Its answer, if it has come. Names and numbers are chosen so that nothing can be refused. */
static void
look_at_answer(struct slot *slot)
{
    if (slot->under_way && slot->done) {
        assert_int_equal(slot->operation.control.op.result, 0);
        slot->now = slot->next;
        slot->under_way = false;
    }
}

static int
write_something(struct run *run, struct slot *slot)
{
    struct export_lookup lookup;
    struct bench *bench = run->bench;
    char path[64];

    snprintf(path, sizeof(path), "p/%s", slot->now.name);
    int result = bench_lookup(bench, 0, path, &lookup);
    if (result == -ECANCELED) {
        return result;
    }
    assert_int_equal(result, 0);
    uint64_t at = sim_random_below(bench->sim, 7) * MIB;
    result = bench_fill(bench, lookup.ret_volume, at, 256 * KIB, 1);
    if (result == 0 && sim_random_below(bench->sim, 2) == 0) {
        result = bench_io(bench, lookup.ret_volume, VOLUME_FLUSH, 0, NULL, 0);
    }
    if (result == 0) {
        bench_release(bench, lookup.ret_volume);
    }
    return result;
}

/* 0, or -ECANCELED when the end has come. */
static int
one_round(struct run *run)
{
    struct bench *bench = run->bench;
    uint32_t first = (uint32_t)sim_random_below(bench->sim, SLOTS);
    uint32_t count = 1 + (uint32_t)sim_random_below(bench->sim, AT_ONCE_MAX);

    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &run->slots[i];
        if (slot->now.exported && sim_random_below(bench->sim, 2) == 0 &&
            write_something(run, slot) < 0) {
            return -ECANCELED;
        }
    }
    for (uint32_t i = 0; i < count && !sim_has_stopped(bench->sim); i++) {
        start(run, &run->slots[(first + i) % SLOTS]);
        for (uint64_t steps = sim_random_below(bench->sim, 6); steps > 0; steps--) {
            sim_step(bench->sim);
        }
    }
    int result = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &run->slots[i];
        if (slot->under_way && !slot->done && result == 0) {
            result = bench_wait(bench, &slot->done);
        }
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        look_at_answer(&run->slots[i]);
    }
    return result;
}

/* ---- what is found afterwards ---- */

static bool
is_there(const struct shape *shape, const struct volume_query *volumes,
         const struct export_query *exports, uint64_t *ret_id)
{
    bool found = false;
    bool exported = false;
    char path[64];

    for (uint32_t i = 0; i < volumes->ret_count; i++) {
        const struct volume_report *report = &volumes->ret_volumes[i];
        if (strcmp(report->info.name, shape->name) == 0) {
            found = report->info.size_bytes == shape->size_bytes &&
                    report->reserve_bytes == shape->reserve_bytes &&
                    report->export_count == (shape->exported ? 1 : 0);
            *ret_id = report->id;
        }
    }
    snprintf(path, sizeof(path), "p/%s", shape->name);
    for (uint32_t i = 0; i < exports->ret_count; i++) {
        exported = exported || strcmp(exports->ret_exports[i].record.name, path) == 0;
    }
    return shape->name[0] == '\0' || (found && exported == shape->exported);
}

/* Each volume is as before or as after the command that was under way; there are no others. */
static void
verify(struct run *run)
{
    struct bench *bench = run->bench;
    struct volume_query volumes = { 0 };
    struct export_query exports = { 0 };
    uint64_t ids[SLOTS] = { 0 };
    uint32_t count = 0;

    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_volume_query(bench, &volumes), 0);
    assert_int_equal(bench_export_query(bench, &exports), 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &run->slots[i];
        bool renamed = slot->under_way && slot->action == RENAME;
        bool is_next = slot->under_way && is_there(&slot->next, &volumes, &exports, &ids[i]);
        if (is_next && slot->action == DELETE) {
            /* Without a name anything fits: it is gone only when the old name is. */
            uint64_t id = 0;
            is_next = !is_there(&slot->now, &volumes, &exports, &id);
        }
        if (is_next) {
            slot->now = slot->next;
        } else if (!is_there(&slot->now, &volumes, &exports, &ids[i])) {
            print_message("slot %u: `%s` is not as it should be (renamed: %d)\n", i,
                          slot->now.name, renamed);
            assert_true(false);
        }
        slot->under_way = false;
        count += slot->now.name[0] != '\0' ? 1 : 0;
    }
    assert_int_equal(volumes.ret_count, count);
    /* Numbers of volumes only grow. */
    for (uint32_t i = 0; i < volumes.ret_count; i++) {
        run->id_high = MAX(run->id_high, volumes.ret_volumes[i].id);
        for (uint32_t other = 0; other < i; other++) {
            assert_true(volumes.ret_volumes[i].id != volumes.ret_volumes[other].id);
        }
    }
    free(volumes.ret_volumes);
    free(exports.ret_exports);
}

static void
verify_ids(struct run *run)
{
    struct volume_report report;

    assert_int_equal(bench_make_volume(run->bench, "p/newest", 1 * MIB), 0);
    assert_true(bench_volume_report(run->bench, "p/newest", &report));
    assert_true(report.id > run->id_high);
    assert_int_equal(bench_delete_volume(run->bench, "p/newest"), 0);
}

/*
 * What is used is what volumes map; nothing of the deleted ones is left. (That the use bits say the
 * same is what the checker looks at when the pool has been closed.)
 */
static void
verify_space(struct run *run)
{
    struct bench *bench = run->bench;
    struct volume_query volumes = { 0 };
    uint64_t mapped = 0;

    bench_wait_for_jobs(bench);
    bench_pass_time(bench, 3);
    assert_int_equal(bench_volume_query(bench, &volumes), 0);
    for (uint32_t i = 0; i < volumes.ret_count; i++) {
        mapped += volumes.ret_volumes[i].mapped_bytes;
    }
    free(volumes.ret_volumes);
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, mapped);
    assert_int_equal(bench_events(bench, "orphan-extents"), 0);
    assert_int_equal(bench_events(bench, "stray-extents-freed"), 0);
}

/* ---- runs ---- */

static void
run_begin(struct run *run, uint64_t seed)
{
    memset(run, 0, sizeof(*run));
    run->bench = bench_create(seed, 1 + (uint32_t)(seed % 3));
    run->bench->state_directory = "/state";
    bench_disk(run->bench, "/d/0", 128 * MIB);
    bench_disk(run->bench, "/d/1", 128 * MIB);
    assert_int_equal(bench_boot(run->bench), 0);
    assert_int_equal(bench_make_pool(run->bench, "p", TWO, false), 0);
}

static void
die(struct run *run, uint64_t n)
{
    if (n % 3 == 0) {
        bench_kill(run->bench);
    } else {
        bench_power_cut(run->bench, n % 3 == 1 ? SIM_CUT_BY_SEED : SIM_CUT_LOSE_ALL);
    }
    sim_stop_at(run->bench->sim, 0);
}

/* Die `stop` events after the pool was made (0: never). Returns the events of the rounds. */
static uint64_t
run_once(uint64_t seed, uint64_t stop)
{
    struct run run;
    run_begin(&run, seed);
    struct sim *sim = run.bench->sim;
    uint64_t first_event = sim_event_count(sim);

    sim_stop_at(sim, stop > 0 ? first_event + stop : 0);
    int result = 0;
    for (uint32_t round = 0; round < ROUNDS && result == 0; round++) {
        result = one_round(&run);
    }
    uint64_t events = sim_event_count(sim) - first_event;
    if (stop > 0) {
        die(&run, stop);
        if (stop % 4 == 0) {
            /* Again, while it is being opened or goes on with what it had begun. */
            sim_stop_at(sim, sim_event_count(sim) + 1 + stop % 97);
            if (bench_boot_until_stopped(run.bench) == 0) {
                sim_run_for(sim, stop % 31 * NS_PER_MS);
            }
            die(&run, stop + 1);
        }
        assert_int_equal(bench_boot(run.bench), 0);
    }
    verify(&run);
    verify_ids(&run);
    verify_space(&run);
    /* It goes on working, and the checker finds nothing wrong. */
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(one_round(&run), 0);
    }
    assert_int_equal(bench_shutdown(run.bench), 0);
    assert_int_equal(bench_boot(run.bench), 0);
    verify(&run);
    verify_space(&run);
    assert_int_equal(bench_shutdown(run.bench), 0);
    bench_free(run.bench);
    return events;
}

static void
commands_are_whole_whenever_death_comes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t events = run_once(seed, 0);
        assert_true(events > CRASHES_A_SEED);
        for (uint64_t n = 0; n < CRASHES_A_SEED; n++) {
            uint64_t stop = 1 + (n * events + seed * 7) / CRASHES_A_SEED % events;
            run_once(seed, stop);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_whole_whenever_death_comes),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
