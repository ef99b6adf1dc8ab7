/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit ledger is full until a checkpoint is written: commits wait for the checkpoint, so it
 * must not wait for anybody who waits for a commit. And disks that hang, fail and come back while
 * commits come as fast as they can: every operation of control ends, and so does every FLUSH of a
 * volume on a disk that answers.
 *
 *     pool_full_ledger_test [FIRST_SEED COUNT]
 */
#include "tests/crash/pool_bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "base/util.h"

enum {
    STEPS = 400,
    OPERATIONS = 6, /* under way at one time */
};

#define LONGEST_NS (10 * NS_PER_S)

static uint64_t first_seed = 1;
static uint64_t seed_count = 40;

/*
 * The flush of a disk hangs, so that a checkpoint takes seconds; meanwhile FLUSH and a control
 * operation fill the ledger in turn. Once the operation is the one that finds it full, while it
 * has the pool's line: the checkpoint got in line behind it, and each waited for the other.
 */
static void
an_operation_that_finds_the_ledger_full_ends(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH };
    uint64_t size_bytes = GIB;
    uint64_t longest_ns = 0;

    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &fault);
    for (uint32_t i = 0; i < 3000; i++) {
        uint64_t start_ns = sim_now_ns(bench->sim);
        churn(bench, one, 1);
        size_bytes += MIB;
        assert_int_equal(bench_resize(bench, "p/one", size_bytes), 0);
        longest_ns = MAX(longest_ns, sim_now_ns(bench->sim) - start_ns);
    }
    assert_true(bench_events(bench, "commits-wait") >= 1);
    assert_true(longest_ns < LONGEST_NS);
    let_go(bench, "/d/1");
    end_clean(bench);
}

/* ---- random operations beside random faults ---- */

enum slot_kind {
    SLOT_FREE,
    SLOT_CREATE,
    SLOT_RESIZE,
    SLOT_RESERVE,
    SLOT_EXPORT,
    SLOT_UNEXPORT,
    SLOT_DELETE,
    SLOT_ADD,
    SLOT_CHECK,
    SLOT_KIND_COUNT,
};

struct slot {
    enum slot_kind kind;
    bool done;
    uint64_t start_ns;
    struct disk_argument disk;
    union {
        struct control control;
        struct volume_create create;
        struct volume_resize resize;
        struct volume_set_reserve reserve;
        struct export_create export;
        struct export_delete unexport;
        struct volume_delete delete;
        struct pool_add add;
        struct pool_check check;
    } operation;
};

struct scene {
    struct bench *bench;
    struct volume *one;
    struct random random;
    struct slot slots[OPERATIONS];
    uint64_t seed;
    uint64_t longest_flush_ns;
    uint64_t longest_operation_ns;
    bool added;
    bool faulty;
};

static void
random_name(struct scene *scene, struct volume_name *name)
{
    snprintf(name->pool, sizeof(name->pool), "p");
    snprintf(name->volume, sizeof(name->volume), "v%u",
             (unsigned)random_below(&scene->random, 4));
}

static void
start_volume_operation(struct scene *scene, struct slot *slot)
{
    struct bench *bench = scene->bench;

    switch (slot->kind) {
    case SLOT_CREATE:
        random_name(scene, &slot->operation.create.name);
        slot->operation.create.size_bytes = (1 + random_below(&scene->random, 64)) * 4 * MIB;
        bench_volume_create_start(bench, &slot->operation.create, &slot->done);
        return;
    case SLOT_RESIZE:
        random_name(scene, &slot->operation.resize.name);
        slot->operation.resize.size_bytes = (1 + random_below(&scene->random, 128)) * 4 * MIB;
        bench_volume_resize_start(bench, &slot->operation.resize, &slot->done);
        return;
    case SLOT_RESERVE:
        random_name(scene, &slot->operation.reserve.name);
        slot->operation.reserve.reserve_bytes = random_below(&scene->random, 2) * MIB;
        bench_volume_set_reserve_start(bench, &slot->operation.reserve, &slot->done);
        return;
    default:
        random_name(scene, &slot->operation.delete.name);
        bench_volume_delete_start(bench, &slot->operation.delete, &slot->done);
        return;
    }
}

static void
start_operation(struct scene *scene, struct slot *slot)
{
    struct bench *bench = scene->bench;

    *slot = (struct slot){
        .kind = (enum slot_kind)(1 + random_below(&scene->random, SLOT_KIND_COUNT - 1)),
        .start_ns = sim_now_ns(bench->sim),
    };
    switch (slot->kind) {
    case SLOT_EXPORT:
        random_name(scene, &slot->operation.export.name);
        snprintf(slot->operation.export.record.protocol,
                 sizeof(slot->operation.export.record.protocol), "nbd");
        bench_export_create_start(bench, &slot->operation.export, &slot->done);
        return;
    case SLOT_UNEXPORT:
        random_name(scene, &slot->operation.unexport.name);
        bench_export_delete_start(bench, &slot->operation.unexport, &slot->done);
        return;
    case SLOT_ADD:
        if (!scene->added && random_chance(&scene->random, 1, 4)) {
            scene->added = true;
            snprintf(slot->disk.spec, sizeof(slot->disk.spec), "/d/2");
            slot->disk.tier = 1;
            snprintf(slot->operation.add.name, sizeof(slot->operation.add.name), "p");
            slot->operation.add.disks = &slot->disk;
            slot->operation.add.disk_count = 1;
            bench_pool_add_start(bench, &slot->operation.add, &slot->done);
            return;
        }
        slot->kind = SLOT_FREE;
        return;
    case SLOT_CHECK:
        if (random_chance(&scene->random, 1, 8)) {
            snprintf(slot->operation.check.name, sizeof(slot->operation.check.name), "p");
            bench_pool_check_start(bench, &slot->operation.check, &slot->done);
            return;
        }
        slot->kind = SLOT_FREE;
        return;
    default:
        start_volume_operation(scene, slot);
    }
}

/* Free the slots of operations that have ended. False: one takes too long. */
static bool
look_at_operations(struct scene *scene)
{
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        struct slot *slot = &scene->slots[i];
        if (slot->kind == SLOT_FREE) {
            continue;
        }
        uint64_t took_ns = sim_now_ns(scene->bench->sim) - slot->start_ns;
        if (slot->done) {
            slot->kind = SLOT_FREE;
        } else if (took_ns > 120 * NS_PER_S) {
            print_message("seed %llu: operation %d has not ended\n",
                          (unsigned long long)scene->seed, (int)slot->kind);
            return false;
        }
        scene->longest_operation_ns = MAX(scene->longest_operation_ns, took_ns);
    }
    return true;
}

static void
change_faults(struct scene *scene)
{
    struct sim_disk *disk = sim_disk_find(scene->bench->sim, "/d/1");
    static const enum file_io_kind kinds[] = { FILE_IO_READ, FILE_IO_WRITE, FILE_IO_FLUSH,
                                               FILE_IO_ALLOCATE };

    if (scene->faulty) {
        sim_disk_clear_faults(disk);
        sim_disk_release(disk);
        scene->faulty = false;
        return;
    }
    struct sim_fault fault = {
        .action = random_chance(&scene->random, 3, 4) ? SIM_FAULT_HANG : SIM_FAULT_ERROR,
    };
    if (random_chance(&scene->random, 2, 3)) {
        fault.kinds = 1u << kinds[random_below(&scene->random, ARRAY_SIZE(kinds))];
    }
    if (random_chance(&scene->random, 1, 3)) {
        /* Behind the labels and the ledger, or these alone. */
        bool data = random_chance(&scene->random, 1, 2);
        fault.offset_bytes = data ? 5 * MIB : 0;
        fault.length_bytes = data ? 50 * MIB : MIB;
    }
    sim_disk_add_fault(disk, &fault);
    scene->faulty = true;
}

static bool
flush(struct scene *scene)
{
    uint64_t start_ns = sim_now_ns(scene->bench->sim);

    churn(scene->bench, scene->one, 1 + (uint32_t)random_below(&scene->random, 20));
    uint64_t took_ns = sim_now_ns(scene->bench->sim) - start_ns;
    scene->longest_flush_ns = MAX(scene->longest_flush_ns, took_ns);
    return took_ns < LONGEST_NS;
}

static bool
play(struct scene *scene)
{
    for (uint32_t step = 0; step < STEPS; step++) {
        for (uint32_t i = 0; i < OPERATIONS; i++) {
            if (scene->slots[i].kind == SLOT_FREE) {
                start_operation(scene, &scene->slots[i]);
            }
        }
        if (random_chance(&scene->random, 1, 20)) {
            change_faults(scene);
        }
        if (random_chance(&scene->random, 1, 30)) {
            bench_pass_time(scene->bench, (uint32_t)random_below(&scene->random, 12));
        }
        if (!flush(scene) || !look_at_operations(scene)) {
            return false;
        }
    }
    sim_disk_clear_faults(sim_disk_find(scene->bench->sim, "/d/1"));
    sim_disk_release(sim_disk_find(scene->bench->sim, "/d/1"));
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        if (scene->slots[i].kind != SLOT_FREE &&
            bench_wait(scene->bench, &scene->slots[i].done) != 0) {
            return look_at_operations(scene) && false;
        }
    }
    bench_pass_time(scene->bench, 120);
    return true;
}

static void
every_operation_ends_whatever_one_disk_does(void **state)
{
    (void)state;
    uint64_t longest_flush_ns = 0;
    uint64_t longest_operation_ns = 0;

    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) {
        struct scene scene = { .seed = seed };
        random_seed(&scene.random, seed);
        scene.bench = bench_with_tiers(&scene.one);
        bench_disk(scene.bench, "/d/2", DISK_BYTES);
        bool played = play(&scene);
        if (!played) {
            fail_msg("seed %llu: FLUSH took %llu ms", (unsigned long long)seed,
                     (unsigned long long)(scene.longest_flush_ns / NS_PER_MS));
        }
        longest_flush_ns = MAX(longest_flush_ns, scene.longest_flush_ns);
        longest_operation_ns = MAX(longest_operation_ns, scene.longest_operation_ns);
        end_clean(scene.bench);
    }
    print_message("longest FLUSH %llu ms, longest operation %llu ms\n",
                  (unsigned long long)(longest_flush_ns / NS_PER_MS),
                  (unsigned long long)(longest_operation_ns / NS_PER_MS));
}

/* ---- the end ---- */

static bool
flag_is_set(void *context)
{
    return *(const bool *)context;
}

/* What an operation waits for, as the log of the daemon tells it. */
struct question {
    struct message message;
    const struct control *control;
    char text[512];
    bool done;
};

static void
question_arrived(struct message *message)
{
    struct question *question = container_of(message, struct question, message);

    manager_control_describe(question->control, question->text, sizeof(question->text));
    question->done = true;
}

static void
assert_waits_for(struct bench *bench, const struct control *control, const char *what)
{
    struct question question = { .control = control };

    sim_process_enter(bench->sim);
    reactor_send(bench->reactors[0], &question.message, question_arrived);
    sim_process_leave(bench->sim);
    assert_int_equal(bench_wait(bench, &question.done), 0);
    assert_non_null(strstr(question.text, what));
}

/*
 * The daemon is told to end while commits wait for a checkpoint: those that wait, and those that
 * the end itself needs, have to get through.
 */
static void
a_pool_with_a_full_ledger_is_closed_in_order(void **state)
{
    (void)state;
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    bool done = true;
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_FLUSH };
    struct volume_resize resize = { .name = { "p", "one" }, .size_bytes = GIB };
    struct volume_resize second = { .name = { "p", "two" }, .size_bytes = GIB };
    bool second_done = false;

    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/1"), &fault);
    while (done) {
        resize.size_bytes += MIB;
        bench_volume_resize_start(bench, &resize, &done);
        sim_run_until(bench->sim, flag_is_set, &done, NS_PER_S);
    }
    assert_int_equal(bench_events(bench, "commits-wait"), 1);
    bench_volume_resize_start(bench, &second, &second_done);
    assert_waits_for(bench, &resize.control, "PUBLISH; commits wait for a checkpoint");
    assert_waits_for(bench, &second.control, "begin CHECK; in line behind volume change, which");
    sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/1"));
    sim_disk_release(sim_disk_find(bench->sim, "/d/1"));
    assert_int_equal(bench_shutdown(bench), 0);
    assert_true(done && second_done);
    bench_free(bench);
}

/*
 * No checkpoint can be written for hours, and each try costs nothing of what is kept for one in the
 * ledger: when the disks are good again the next one makes room.
 */
static void
checkpoints_that_fail_use_up_nothing(void **state)
{
    (void)state;
    static const char *const paths[] = { "/d/0", "/d/1" };
    struct volume *one = NULL;
    struct bench *bench = bench_with_tiers(&one);
    struct sim_fault fault = {
        .action = SIM_FAULT_ERROR,
        .kinds = 1u << FILE_IO_WRITE,
        .offset_bytes = 5 * MIB, /* behind the labels and the ledger */
        .length_bytes = 50 * MIB,
    };
    struct volume_resize resize = { .name = { "p", "one" }, .size_bytes = GIB };
    bool done = true;

    for (uint32_t i = 0; i < ARRAY_SIZE(paths); i++) {
        sim_disk_add_fault(sim_disk_find(bench->sim, paths[i]), &fault);
    }
    while (done) {
        resize.size_bytes += MIB;
        bench_volume_resize_start(bench, &resize, &done);
        sim_run_until(bench->sim, flag_is_set, &done, NS_PER_S);
    }
    uint32_t failed = bench_events(bench, "checkpoint-failed");
    bench_pass_time(bench, 3 * 3600);
    assert_false(done);
    assert_true(bench_events(bench, "checkpoint-failed") > failed + 500);
    for (uint32_t i = 0; i < ARRAY_SIZE(paths); i++) {
        sim_disk_clear_faults(sim_disk_find(bench->sim, paths[i]));
    }
    assert_int_equal(sim_run_until(bench->sim, flag_is_set, &done, 60 * NS_PER_S), 0);
    assert_int_equal(resize.control.error.code, 0);
    end_clean(bench);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_operation_that_finds_the_ledger_full_ends),
        cmocka_unit_test(a_pool_with_a_full_ledger_is_closed_in_order),
        cmocka_unit_test(checkpoints_that_fail_use_up_nothing),
        cmocka_unit_test(every_operation_ends_whatever_one_disk_does),
    };
    if (argc > 2) {
        first_seed = strtoull(argv[1], NULL, 10);
        seed_count = strtoull(argv[2], NULL, 10);
    }
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
