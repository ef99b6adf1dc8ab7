/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random control operations, with the process dying and the power failing between them and in the
 * middle of them. What was answered must be there afterwards; what was not may be there or not.
 *
 *     volmgr_stress_test [FIRST_SEED COUNT]
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "base/util.h"

enum {
    NAMES = 6,
    STEPS = 60,
};

struct model_volume {
    bool exists;
    bool exported;
    uint64_t size_bytes;
    uint64_t reserve_bytes;
    uint64_t written_bytes; /* from the start, flushed; 0: nothing */
    uint8_t seed;
};

struct model {
    struct bench *bench;
    struct random random;
    struct model_volume volumes[NAMES];
    struct model_volume before[NAMES]; /* without the operation that was interrupted */
    bool interrupted;
    uint32_t disks;
};

static const char *const PATHS[] = { "/d/0", "/d/1", NULL };

static void
name_of(uint32_t index, char name[static 16])
{
    snprintf(name, 16, "p/v%u", index);
}

/*
 * What an operation answered; one that was interrupted counts as done, and the model remembers how
 * it was before.
 */
static int
answer(struct model *model, int result, int when_interrupted)
{
    if (result != -ECANCELED) {
        return result;
    }
    memcpy(model->before, model->volumes, sizeof(model->before));
    model->interrupted = true;
    return when_interrupted;
}

/* ---- operations; each changes the model by what it answered ---- */

static void
set_name(struct volume_name *name, uint32_t index)
{
    snprintf(name->pool, sizeof(name->pool), "p");
    snprintf(name->volume, sizeof(name->volume), "v%u", index);
}

static void
do_create(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    struct volume_create create = {
        .size_bytes = (1 + random_below(&model->random, 64)) * 4 * MIB,
        .tier = VOLUME_TIER_AUTO,
    };

    set_name(&create.name, index);
    if (random_chance(&model->random, 1, 3)) {
        create.reserve_bytes = MIN(create.size_bytes, 16 * MIB);
    }
    int result = answer(model, bench_volume_create(model->bench, &create),
                        volume->exists ? -EEXIST : 0);
    if (volume->exists) {
        assert_int_equal(result, -EEXIST);
    } else if (result != -ENOSPC) {
        assert_int_equal(result, 0);
        *volume = (struct model_volume){
            .exists = true,
            .size_bytes = create.size_bytes,
            .reserve_bytes = create.reserve_bytes,
        };
    }
}

static void
do_delete(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    char name[16];

    name_of(index, name);
    int result = answer(model, bench_delete_volume(model->bench, name),
                        !volume->exists    ? -ENOENT
                        : volume->exported ? -EBUSY
                                           : 0);
    if (!volume->exists) {
        assert_int_equal(result, -ENOENT);
    } else if (volume->exported) {
        assert_int_equal(result, -EBUSY);
    } else {
        assert_int_equal(result, 0);
        volume->exists = false;
    }
}

static void
do_export(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    char name[16];

    name_of(index, name);
    int result = answer(model, bench_make_export(model->bench, name),
                        !volume->exists    ? -ENOENT
                        : volume->exported ? -EEXIST
                                           : 0);
    if (!volume->exists) {
        assert_int_equal(result, -ENOENT);
    } else {
        assert_int_equal(result, volume->exported ? -EEXIST : 0);
        volume->exported = true;
    }
}

static void
do_unexport(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    struct export_delete delete = { 0 };

    set_name(&delete.name, index);
    int result = answer(model, bench_export_delete(model->bench, &delete),
                        volume->exists && volume->exported ? 0 : -ENOENT);
    if (!volume->exists || !volume->exported) {
        assert_int_equal(result, -ENOENT);
    } else {
        assert_int_equal(result, 0);
        volume->exported = false;
    }
}

static void
do_resize(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    uint64_t size_bytes = (1 + random_below(&model->random, 80)) * 4 * MIB;
    char name[16];

    name_of(index, name);
    int result = answer(model, bench_resize(model->bench, name, size_bytes),
                        !volume->exists                     ? -ENOENT
                        : size_bytes < volume->reserve_bytes ? -EINVAL
                        : size_bytes < volume->written_bytes ? -ENOTEMPTY
                                                             : 0);
    if (!volume->exists) {
        assert_int_equal(result, -ENOENT);
    } else if (size_bytes < volume->reserve_bytes) {
        assert_int_equal(result, -EINVAL);
    } else if (size_bytes < volume->written_bytes) {
        assert_int_equal(result, -ENOTEMPTY);
    } else {
        assert_int_equal(result, 0);
        volume->size_bytes = size_bytes;
    }
}

static void
do_reserve(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    struct volume_set_reserve set = { .reserve_bytes = random_below(&model->random, 5) * 8 * MIB };

    set_name(&set.name, index);
    int result = answer(model, bench_volume_set_reserve(model->bench, &set),
                        !volume->exists                            ? -ENOENT
                        : set.reserve_bytes > volume->size_bytes ? -EINVAL
                                                                   : 0);
    if (!volume->exists) {
        assert_int_equal(result, -ENOENT);
    } else if (set.reserve_bytes > volume->size_bytes) {
        assert_int_equal(result, -EINVAL);
    } else if (result != -ENOSPC) {
        assert_int_equal(result, 0);
        volume->reserve_bytes = set.reserve_bytes;
    }
}

static void
do_rename(struct model *model, uint32_t index)
{
    uint32_t other = (uint32_t)random_below(&model->random, NAMES);
    struct model_volume *volume = &model->volumes[index];
    struct volume_rename rename = { 0 };

    set_name(&rename.name, index);
    snprintf(rename.new_name, sizeof(rename.new_name), "v%u", other);
    /* An exported volume keeps its export's name, which the model does not follow. */
    if (volume->exported) {
        return;
    }
    int result = answer(model, bench_volume_rename(model->bench, &rename),
                        !volume->exists                  ? -ENOENT
                        : model->volumes[other].exists ? -EEXIST
                                                         : 0);
    if (!volume->exists) {
        assert_int_equal(result, -ENOENT);
    } else if (model->volumes[other].exists) {
        assert_int_equal(result, -EEXIST);
    } else {
        assert_int_equal(result, 0);
        model->volumes[other] = *volume;
        *volume = (struct model_volume){ 0 };
    }
}

static void
do_write(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    struct export_lookup lookup;
    char name[16];

    name_of(index, name);
    if (!volume->exists || !volume->exported) {
        return;
    }
    uint64_t bytes = MIN(volume->size_bytes, (1 + random_below(&model->random, 8)) * 512 * KIB);
    assert_int_equal(bench_lookup(model->bench, 0, name, &lookup), 0);
    uint8_t seed = (uint8_t)random_u64(&model->random);
    bytes = MAX(bytes, volume->written_bytes);
    int result = bench_fill(model->bench, lookup.ret_volume, 0, bytes, seed);
    if (result == 0) {
        result = bench_io(model->bench, lookup.ret_volume, VOLUME_FLUSH, 0, NULL, 0);
    }
    assert_int_equal(result, 0);
    volume->written_bytes = bytes;
    volume->seed = seed;
    bench_release(model->bench, lookup.ret_volume);
}

static void
do_discard(struct model *model, uint32_t index)
{
    struct model_volume *volume = &model->volumes[index];
    struct export_lookup lookup;
    char name[16];

    name_of(index, name);
    if (!volume->exists || !volume->exported) {
        return;
    }
    assert_int_equal(bench_lookup(model->bench, 0, name, &lookup), 0);
    assert_int_equal(bench_io(model->bench, lookup.ret_volume, VOLUME_DISCARD, 0, NULL,
                              volume->size_bytes),
                     0);
    assert_int_equal(bench_io(model->bench, lookup.ret_volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    volume->written_bytes = 0;
    bench_release(model->bench, lookup.ret_volume);
}

static void
do_add_disk(struct model *model, uint32_t index)
{
    struct disk_argument disk = { 0 };
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };

    (void)index;
    if (model->disks >= 5) {
        return;
    }
    snprintf(disk.spec, sizeof(disk.spec), "/d/%u", model->disks);
    bench_disk(model->bench, disk.spec, 64 * MIB);
    assert_int_equal(bench_pool_add(model->bench, &add), 0);
    model->disks++;
}

typedef void operation_fn(struct model *model, uint32_t index);

static operation_fn *const OPERATIONS[] = {
    do_create, do_create,  do_delete, do_export,  do_export,  do_unexport, do_resize,
    do_rename, do_reserve, do_write,  do_write,   do_discard, do_add_disk,
};
enum {
    INTERRUPTIBLE = 9 /* the first so many: one commit each, done or not */
};

/* ---- the truth ---- */

static bool
volume_is(struct bench *bench, uint32_t index, const struct model_volume *volume)
{
    struct volume_report report;
    char name[16];

    name_of(index, name);
    if (bench_volume_report(bench, name, &report) != volume->exists) {
        return false;
    }
    return !volume->exists || (report.info.size_bytes == volume->size_bytes &&
                               report.reserve_bytes == volume->reserve_bytes &&
                               report.export_count == volume->exported);
}

/* All of what was interrupted has happened, or nothing of it. */
static void
settle_interrupted(struct model *model)
{
    bool done = true;
    bool undone = true;

    for (uint32_t i = 0; i < NAMES; i++) {
        done = done && volume_is(model->bench, i, &model->volumes[i]);
        undone = undone && volume_is(model->bench, i, &model->before[i]);
    }
    assert_true(done || undone);
    if (!done) {
        memcpy(model->volumes, model->before, sizeof(model->volumes));
    }
    model->interrupted = false;
}

static void
verify(struct model *model)
{
    uint64_t used = 0;
    uint32_t count = 0;

    assert_int_equal(bench_pool_state(model->bench, "p"), POOL_STATE_ONLINE);
    if (model->interrupted) {
        settle_interrupted(model);
    }
    for (uint32_t i = 0; i < NAMES; i++) {
        const struct model_volume *volume = &model->volumes[i];
        struct volume_report report;
        struct export_lookup lookup;
        char name[16];
        name_of(i, name);
        assert_int_equal(bench_volume_report(model->bench, name, &report), volume->exists);
        if (!volume->exists) {
            continue;
        }
        count++;
        assert_int_equal(report.info.size_bytes, volume->size_bytes);
        assert_int_equal(report.reserve_bytes, volume->reserve_bytes);
        assert_int_equal(report.export_count, volume->exported);
        assert_int_equal(report.mapped_bytes,
                         align_up(volume->written_bytes, GRAIN_BYTES));
        used += report.mapped_bytes;
        if (volume->exported && volume->written_bytes > 0) {
            assert_int_equal(bench_lookup(model->bench, 0, name, &lookup), 0);
            assert_true(bench_check(model->bench, lookup.ret_volume, 0, volume->written_bytes,
                                    volume->seed));
            bench_release(model->bench, lookup.ret_volume);
        }
    }
    bench_wait_for_jobs(model->bench);
    struct pool_report pool = bench_pool_report(model->bench, "p");
    assert_int_equal(pool.volume_count, count);
    assert_int_equal(pool.used_bytes, used);
    assert_int_equal(pool.disk_count, model->disks);
}

static void
restart(struct model *model)
{
    struct bench *bench = model->bench;

    uint64_t way = random_below(&model->random, 3);
    if (way == 0 && !model->interrupted) {
        assert_int_equal(bench_shutdown(bench), 0);
    } else if (way <= 1) {
        bench_kill(bench);
    } else {
        bench_power_cut(bench, SIM_CUT_BY_SEED);
    }
    sim_stop_at(bench->sim, 0);
    /* Now and then the start itself is interrupted, too. */
    while (random_chance(&model->random, 1, 3)) {
        sim_quiesce(bench->sim, 60 * NS_PER_S); /* the last requests of the dead one */
        sim_stop_at(bench->sim,
                    sim_event_count(bench->sim) + 1 + random_below(&model->random, 60));
        bench_boot_until_stopped(bench);
        if (random_chance(&model->random, 1, 2)) {
            bench_kill(bench);
        } else {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
        }
        sim_stop_at(bench->sim, 0);
    }
    bench->reactor_count = 1 + (uint32_t)random_below(&model->random, 3);
    assert_int_equal(bench_boot(bench), 0);
}

static void
run_seed(uint64_t seed)
{
    struct model model = { .disks = 2 };

    random_seed(&model.random, seed);
    model.bench = bench_create(seed, 1 + (uint32_t)(seed % 3));
    for (uint32_t i = 0; PATHS[i] != NULL; i++) {
        bench_disk(model.bench, PATHS[i], 512 * MIB);
    }
    assert_int_equal(bench_boot(model.bench), 0);
    assert_int_equal(bench_make_pool(model.bench, "p", PATHS, false), 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t index = (uint32_t)random_below(&model.random, NAMES);
        uint32_t which = (uint32_t)random_below(&model.random, ARRAY_SIZE(OPERATIONS));
        if (which < INTERRUPTIBLE && random_chance(&model.random, 1, 4)) {
            sim_stop_at(model.bench->sim, sim_event_count(model.bench->sim) + 1 +
                                              random_below(&model.random, 6));
        }
        OPERATIONS[which](&model, index);
        bool stopped = model.interrupted || sim_has_stopped(model.bench->sim);
        if (!stopped) {
            sim_stop_at(model.bench->sim, 0);
        }
        if (stopped && !model.interrupted) {
            /* It was answered before. */
            memcpy(model.before, model.volumes, sizeof(model.before));
            model.interrupted = true;
        }
        if (stopped || random_chance(&model.random, 1, 8)) {
            restart(&model);
            verify(&model);
        }
    }
    verify(&model);
    assert_int_equal(bench_shutdown(model.bench), 0);
    bench_free(model.bench);
}

static void
what_was_answered_is_there(void **state)
{
    const uint64_t *range = *state;

    for (uint64_t seed = range[0]; seed < range[0] + range[1]; seed++) {
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        run_seed(seed);
    }
}

int
main(int argc, char **argv)
{
    uint64_t range[2] = { 1, 25 };

    for (int i = 1; i < argc && i < 3; i++) {
        range[i - 1] = strtoull(argv[i], NULL, 10);
    }
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(what_was_answered_is_there, range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
