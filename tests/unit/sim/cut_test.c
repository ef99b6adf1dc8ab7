/* SPDX-License-Identifier: Apache-2.0 */
/* Determinism, the log, stopping at an event, kills. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "tests/sim/sim_log.h"
#include "tests/unit/sim/workload.h"

static struct sim *
machine(uint64_t seed)
{
    struct sim *sim = sim_create(&(struct sim_options){ .seed = seed });
    workload_create_disks(sim);
    return sim;
}

static uint64_t
trace_of_run(uint64_t seed, uint64_t *ret_content)
{
    struct sim *sim = machine(seed);
    struct workload *workload = workload_start(sim, 300);
    assert_int_equal(sim_run_until(sim, workload_is_finished, workload, RIG_TIMEOUT), 0);
    workload_end(workload);
    uint64_t trace = sim_trace_hash(sim);
    *ret_content = workload_content_hash(sim);
    sim_destroy(sim);
    return trace;
}

static void
same_seed_is_same_run(void **state)
{
    (void)state;
    uint64_t content[3];
    void *noise = malloc(12345); /* other addresses in the second run */
    uint64_t first = trace_of_run(11, &content[0]);
    free(noise);
    assert_int_equal(first, trace_of_run(11, &content[1]));
    assert_int_equal(content[0], content[1]);
    assert_int_not_equal(first, trace_of_run(12, &content[2]));
    assert_int_not_equal(content[0], content[2]);
}

/* Run up to event n, cut there; returns the content, and the volatile counter as it was. */
static uint64_t
content_after_cut_at(uint64_t seed, uint64_t n, const struct sim_cut *cut)
{
    struct sim *sim = machine(seed);
    struct workload *workload = workload_start(sim, 60);
    if (n == 0) {
        sim_power_cut(sim, cut);
    } else {
        sim_stop_at(sim, n);
        assert_int_equal(sim_run_until(sim, workload_is_finished, workload, RIG_TIMEOUT),
                         -ECANCELED);
        assert_true(sim_has_stopped(sim));
        assert_int_equal(sim_event_count(sim), n);
        sim_power_cut(sim, cut);
        assert_false(sim_has_stopped(sim));
    }
    assert_int_equal(sim_process_blocks(sim), 0);
    uint64_t content = workload_content_hash(sim);
    sim_destroy(sim);
    return content;
}

static struct sim_log *
record(uint64_t seed, uint32_t operations)
{
    struct sim *sim = machine(seed);
    struct sim_log *log = sim_log_start(sim);
    struct workload *workload = workload_start(sim, operations);
    assert_int_equal(sim_run_until(sim, workload_is_finished, workload, RIG_TIMEOUT), 0);
    workload_end(workload);
    sim_destroy(sim);
    return log;
}

static uint64_t
content_of_image(struct sim_log *log, uint64_t n, const struct sim_cut *cut)
{
    struct sim *after = sim_create(&(struct sim_options){ .seed = 99 });
    assert_int_equal(sim_log_materialise(log, n, cut, after), 0);
    uint64_t content = workload_content_hash(after);
    sim_destroy(after);
    return content;
}

/* The central promise: an image made from the log at n is what a cut at n leaves. */
static void
image_from_log_equals_actual_cut(void **state)
{
    (void)state;
    const uint64_t seed = 21;
    struct sim_log *log = record(seed, 60);
    uint64_t length = sim_log_length(log);
    uint64_t differing = 0;
    uint64_t last = 0;

    assert_in_range(length, 80, 130);
    /* The last events belong to the clean shutdown of the recorded run. */
    for (uint64_t n = 0; n <= length - 1; n++) {
        const struct sim_cut cut = { .mode = (n % 4 == 0) ? SIM_CUT_LOSE_ALL : SIM_CUT_BY_SEED,
                                     .seed = n * 7 };
        uint64_t actual = content_after_cut_at(seed, n, &cut);
        assert_int_equal(content_of_image(log, n, &cut), actual);
        differing += actual != last;
        last = actual;
    }
    assert_in_range(differing, length / 3, length);
    /* Backwards, and once more. */
    for (uint64_t n = length; n-- > length - 20;) {
        const struct sim_cut cut = { .seed = n };
        uint64_t image = content_of_image(log, n, &cut);
        assert_int_equal(image, content_of_image(log, n, &cut));
    }
    assert_int_equal(sim_log_materialise(log, length + 1, &(struct sim_cut){ 0 }, NULL), -ERANGE);
    sim_log_free(log);
}

static void
masks_enumerate_subsets(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 31, &(struct sim_disk_properties){ 0 });
    struct sim_log *log = sim_log_start(rig.sim);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(rig_fill(&rig, i * 4096, 4096, 1, false), 4096);
    }
    uint64_t n = sim_log_length(log);
    rig_destroy(&rig);
    assert_int_equal(sim_log_undecided(log, n), 4);
    assert_int_equal(sim_log_undecided(log, 1), 1); /* in flight */
    assert_int_equal(sim_log_undecided_commits(log, n), 0);
    for (uint64_t mask = 0; mask < 16; mask++) {
        struct sim *after = sim_create(&(struct sim_options){ .seed = 1 });
        const struct sim_cut cut = { .mode = SIM_CUT_BY_MASK, .mask = mask };
        assert_int_equal(sim_log_materialise(log, n, &cut, after), 0);
        for (uint64_t i = 0; i < 4; i++) {
            uint8_t byte;
            sim_disk_peek(sim_disk_find(after, RIG_DISK), i * 4096 + 4095, &byte, 1);
            assert_int_equal(byte, (mask >> i) & 1);
        }
        sim_destroy(after);
    }
    sim_log_free(log);
}

/* The log follows lost caches and kills as well. */
static void
log_follows_faults_and_kills(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 40; seed++) {
        struct sim *sim = machine(seed);
        struct sim_log *log = sim_log_start(sim);
        sim_disk_add_fault(sim_disk_find(sim, "sim:0"),
                           &(struct sim_fault){ .action = SIM_FAULT_LOSE_CACHE,
                                                .chance_per_million = 50000,
                                                .keeps_reads = seed % 2 == 0 });
        sim_disk_add_fault(
            sim_disk_find(sim, "sim:1"),
            &(struct sim_fault){ .action = SIM_FAULT_ERROR, .chance_per_million = 100000 });
        sim_disk_add_fault(
            sim_disk_find(sim, "sim:1"),
            &(struct sim_fault){ .action = SIM_FAULT_SHORT, .chance_per_million = 100000 });
        struct workload *workload = workload_start(sim, 100);
        sim_stop_at(sim, 40 + seed);
        assert_int_equal(sim_run_until(sim, workload_is_finished, workload, RIG_TIMEOUT),
                         -ECANCELED);
        sim_kill(sim);
        assert_int_equal(sim_quiesce(sim, RIG_TIMEOUT), 0);
        (void)sim_disk_create(sim, "sim:late", &(struct sim_disk_properties){ .size_bytes = MIB });
        workload = workload_start(sim, 50);
        sim_stop_at(sim, 120);
        (void)sim_run_until(sim, workload_is_finished, workload, RIG_TIMEOUT);

        const struct sim_cut cut = { .seed = seed };
        sim_power_cut(sim, &cut);
        assert_int_equal(content_of_image(log, sim_log_length(log), &cut),
                         workload_content_hash(sim));
        sim_destroy(sim);
        sim_log_free(log);
    }
}

static uint8_t
ring_counter(struct sim *sim)
{
    void *ring;
    bool existed;
    struct platform *platform = sim_platform(sim);
    assert_int_equal(platform->ops->volatile_map(platform, "ring", 4096, &ring, &existed, NULL), 0);
    uint8_t counter = existed ? *(uint8_t *)ring : 0xff;
    platform->ops->volatile_unmap(platform, ring, 4096);
    return counter;
}

/* All six slots start in one pass; a kill at event n sees volatile memory as of that very event. */
static void
kill_at_event_freezes_volatile_memory(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 1, &(struct sim_disk_properties){ 0 });
    uint8_t *ring;
    bool existed;
    uint8_t *data = rig_buffer(512, 1);
    struct rig_io io[3];
    assert_int_equal(
        rig.platform->ops->volatile_map(rig.platform, "ring", 4096, (void **)&ring, &existed, NULL),
        0);
    sim_stop_at(rig.sim, 2);
    for (uint32_t i = 0; i < 3; i++) {
        ring[0]++;
        rig_submit(&rig, &io[i], FILE_IO_WRITE, i * 512, data, 512, false);
    }
    assert_int_equal(ring[0], 3);
    assert_int_equal(sim_undecided(rig.sim), 2); /* the third has no effect any more */
    assert_int_equal(sim_run_for(rig.sim, NS_PER_S), -ECANCELED);
    sim_kill(rig.sim);
    assert_int_equal(ring_counter(rig.sim), 2);
    free(data);
    sim_destroy(rig.sim);
}

/* What waits inside a pass after the stop is told that nothing works any more. */
static void
stopped_machine_answers_with_errors(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io io[2];
    rig_create(&rig, 2, &(struct sim_disk_properties){ 0 });
    uint8_t *data = rig_buffer(512, 1);
    sim_stop_at(rig.sim, 1);
    rig_submit(&rig, &io[0], FILE_IO_WRITE, 0, data, 512, false);
    rig_submit(&rig, &io[1], FILE_IO_WRITE, 512, data, 512, false);
    while (!io[0].finished || !io[1].finished) {
        (void)reactor_pass(rig.reactor, true, NS_PER_MS);
    }
    assert_int_equal(io[0].result, -EIO);
    assert_int_equal(io[1].result, -EIO);
    struct platform_file *file;
    assert_int_equal(rig.platform->ops->file_open(rig.platform, RIG_DISK, 0, 0, &file, NULL), -EIO);
    rig_cut(&rig, SIM_CUT_KEEP_ALL, 0);
    assert_int_equal(rig_peek(&rig, 0), 1);
    assert_int_equal(rig_peek(&rig, 512), 0);
    free(data);
    sim_destroy(rig.sim);
}

/* ---- kills ---- */

static void
kill_keeps_what_completed(void **state)
{
    (void)state;
    uint32_t kept = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rig rig;
        struct rig_io io;
        rig_create(&rig, seed, &(struct sim_disk_properties){ 0 });
        assert_int_equal(rig_fill(&rig, 0, 4096, 1, false), 4096);
        uint8_t *data = rig_buffer(4096, 2);
        rig_submit(&rig, &io, FILE_IO_WRITE, 4096, data, 4096, false);
        sim_kill(rig.sim);
        memset(data, 0xff, 4096); /* the kernel has its own copy */
        assert_int_equal(sim_process_blocks(rig.sim), 0);
        assert_int_equal(rig_peek(&rig, 0), 1);
        assert_int_equal(rig_peek(&rig, 4096), 0);
        assert_int_equal(sim_quiesce(rig.sim, RIG_TIMEOUT), 0);
        assert_false(io.finished);
        kept += rig_peek(&rig, 4096) == 2;
        /* The cache survived the process, not the power. */
        assert_true(sim_undecided(rig.sim) >= 1);
        rig_start_process(&rig);
        assert_int_equal(rig_flush(&rig), 0);
        assert_int_equal(sim_undecided(rig.sim), 0);
        free(data);
        rig_destroy(&rig);
    }
    assert_in_range(kept, 20, 55);
}

static void
lock_is_held_until_the_last_write_is_done(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io io;
    rig_create(&rig, 3, &(struct sim_disk_properties){ 0 });
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_HANG, .count = 1 });
    uint8_t *data = rig_buffer(4096, 2);
    rig_submit(&rig, &io, FILE_IO_WRITE, 0, data, 4096, false);
    sim_kill(rig.sim);
    assert_int_equal(sim_run_for(rig.sim, NS_PER_S), 0);
    rig.reactor = rig_start_reactor(rig.sim, 0);
    assert_true(sim_disk_is_locked(rig.disk));
    assert_int_equal(rig_open(&rig), -EBUSY);
    sim_disk_release(rig.disk);
    assert_int_equal(rig_open(&rig), -EBUSY);
    assert_int_equal(sim_run_for(rig.sim, NS_PER_S), 0);
    assert_int_equal(rig_peek(&rig, 0), 2); /* before the open, never after it */
    assert_int_equal(rig_open(&rig), 0);
    free(data);
    rig_destroy(&rig);
}

/* The first process dies with two writes that hang; the next one dies when one of them is done. */
static void
lock_of_a_dead_process_outlives_the_next_one(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io io[2];
    rig_create(&rig, 5, &(struct sim_disk_properties){ 0 });
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_HANG, .count = 2 });
    uint8_t *data = rig_buffer(4096, 2);
    for (uint32_t i = 0; i < 2; i++) {
        rig_submit(&rig, &io[i], FILE_IO_WRITE, i * 4096, data, 4096, false);
    }
    sim_kill(rig.sim);

    rig.reactor = rig_start_reactor(rig.sim, 0);
    assert_int_equal(rig_open(&rig), -EBUSY);
    sim_stop_at(rig.sim, sim_event_count(rig.sim) + 1);
    sim_disk_release(rig.disk);
    assert_int_equal(sim_run_for(rig.sim, NS_PER_S), -ECANCELED);
    sim_kill(rig.sim);
    assert_true(sim_disk_is_locked(rig.disk)); /* the other write is on its way */
    assert_int_equal(sim_quiesce(rig.sim, RIG_TIMEOUT), 0);
    assert_false(sim_disk_is_locked(rig.disk));
    free(data);
    sim_destroy(rig.sim);
}

/* An older database: the state of so many commits before what the cut leaves. */
static void
images_with_an_older_store(void **state)
{
    (void)state;
    struct sim_log *log = record(41, 300);
    uint64_t length = sim_log_length(log);
    const struct sim_cut now = { .mode = SIM_CUT_KEEP_ALL };
    const struct sim_cut ages_ago = { .mode = SIM_CUT_KEEP_ALL, .store_older = 1000000 };
    uint64_t differing = 0;
    uint64_t last = 0;

    for (uint64_t older = 0; older < 20; older++) {
        struct sim *after = sim_create(&(struct sim_options){ .seed = 1 });
        const struct sim_cut cut = { .mode = SIM_CUT_KEEP_ALL, .store_older = older };
        assert_int_equal(sim_log_materialise(log, length, &cut, after), 0);
        uint64_t hash = sim_store_content_hash(after, WORKLOAD_STORE);
        differing += hash != last;
        last = hash;
        sim_destroy(after);
    }
    assert_int_equal(differing, 20); /* each of these commits has changed something */
    assert_int_not_equal(content_of_image(log, length, &now),
                         content_of_image(log, length, &ages_ago));
    /* Further back than the recording there is nothing. */
    struct sim *start = sim_create(&(struct sim_options){ .seed = 1 });
    assert_int_equal(sim_log_materialise(log, length, &ages_ago, start), 0);
    assert_int_equal(sim_store_content_hash(start, WORKLOAD_STORE), 0);
    sim_destroy(start);
    sim_log_free(log);
}

static void
power_cut_ends_what_hangs(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io io;
    rig_create(&rig, 4, &(struct sim_disk_properties){ 0 });
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_HANG, .count = 1 });
    uint8_t *data = rig_buffer(4096, 2);
    rig_submit(&rig, &io, FILE_IO_WRITE, 0, data, 4096, false);
    rig_cut(&rig, SIM_CUT_LOSE_ALL, 0);
    assert_false(sim_disk_is_locked(rig.disk));
    assert_int_equal(sim_disk_hanging(rig.disk), 0);
    rig_start_process(&rig);
    assert_int_equal(sim_quiesce(rig.sim, RIG_TIMEOUT), 0);
    assert_int_equal(rig_peek(&rig, 0), 0);
    free(data);
    rig_destroy(&rig);
}

/* Many lives of one machine: nothing leaks, commits and bytes behave. */
static void
machine_survives_many_deaths(void **state)
{
    (void)state;
    struct sim *sim = machine(5);
    for (uint64_t life = 0; life < 60; life++) {
        struct workload *workload = workload_start(sim, 40);
        (void)sim_run_for(sim, sim_random_below(sim, 3 * NS_PER_MS));
        if (life % 3 == 0) {
            sim_power_cut(sim, &(struct sim_cut){ .seed = life });
        } else {
            sim_kill(sim);
            workload = NULL;
            assert_int_equal(sim_quiesce(sim, RIG_TIMEOUT), 0);
        }
        assert_int_equal(sim_process_blocks(sim), 0);
        (void)workload;
    }
    sim_destroy(sim);
}

/* ---- speed ---- */

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* An image costs far less than the 6 ms that 10,000 a minute allow; sanitizers included. */
static void
images_are_cheap(void **state)
{
    (void)state;
    struct sim_log *log = record(77, 2000);
    uint64_t length = sim_log_length(log);
    double start = seconds_now();
    uint64_t images = 0;
    for (uint64_t n = 0; n <= length; n++) {
        struct sim *after = sim_create(&(struct sim_options){ .seed = n });
        assert_int_equal(sim_log_materialise(log, n, &(struct sim_cut){ .seed = n }, after), 0);
        sim_destroy(after);
        images++;
    }
    double seconds = seconds_now() - start;
    printf("%llu images in %.3f s: %.0f a minute\n", (unsigned long long)images, seconds,
           (double)images / seconds * 60);
    assert_true((double)images / seconds * 60 > 10000);
    sim_log_free(log);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_is_same_run),
        cmocka_unit_test(image_from_log_equals_actual_cut),
        cmocka_unit_test(masks_enumerate_subsets),
        cmocka_unit_test(log_follows_faults_and_kills),
        cmocka_unit_test(kill_at_event_freezes_volatile_memory),
        cmocka_unit_test(stopped_machine_answers_with_errors),
        cmocka_unit_test(kill_keeps_what_completed),
        cmocka_unit_test(lock_is_held_until_the_last_write_is_done),
        cmocka_unit_test(lock_of_a_dead_process_outlives_the_next_one),
        cmocka_unit_test(images_with_an_older_store),
        cmocka_unit_test(power_cut_ends_what_hangs),
        cmocka_unit_test(machine_survives_many_deaths),
        cmocka_unit_test(images_are_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
