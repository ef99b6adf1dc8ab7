/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs on other threads: where they run, in which order, and what comes back. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "io/offload.h"
#include "tests/unit/io/io_test.h"

enum {
    JOBS = 200
};

struct work {
    struct offload_job job;
    uint32_t number;
    struct reactor *ran_on;
    bool done;
};

static struct {
    struct test_world world;
    struct offload *offload;
    struct work works[JOBS];
    uint32_t run_order[JOBS]; /* with one thread only */
    _Atomic uint32_t run_count;
    uint32_t done_count;
    bool all_done;
} test;

static int
setup(void **state)
{
    (void)state;
    memset(&test, 0, sizeof(test));
    world_open(&test.world, 0);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    world_close(&test.world);
    return 0;
}

static int32_t
work_run(struct offload_job *job)
{
    struct work *work = container_of(job, struct work, job);
    work->ran_on = reactor_self();
    uint32_t at = atomic_fetch_add(&test.run_count, 1);
    test.run_order[at] = work->number;
    return -(int32_t)work->number;
}

static void
work_done(struct io_op *op)
{
    struct work *work = container_of(op, struct work, job.op);
    assert_ptr_equal(reactor_self(), test.world.reactor);
    assert_int_equal(op->result, -(int32_t)work->number);
    assert_false(work->done);
    work->done = true;
    test.done_count++;
    test.all_done = test.done_count == JOBS;
}

static void
submit_all(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < JOBS; i++) {
        test.works[i].number = i;
        test.works[i].job.op.done = work_done;
        offload_submit(test.offload, &test.works[i].job, work_run);
    }
    assert_int_equal(test.done_count, 0); /* never from inside the submission */
}

static void
run_all(uint32_t thread_count)
{
    struct error error = { 0 };
    assert_int_equal(offload_create("test", thread_count, &test.offload, &error), 0);
    run_on(test.world.reactor, submit_all, NULL);
    wait_until(test.world.reactor, &test.all_done);
    offload_destroy(test.offload);
}

static void
test_one_thread_keeps_the_order(void **state)
{
    (void)state;
    run_all(1);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(test.run_order[i], i);
        assert_null(test.works[i].ran_on);
    }
}

static void
test_several_threads(void **state)
{
    (void)state;
    run_all(4);
    assert_int_equal(test.run_count, JOBS);
}

static void
test_no_threads_runs_on_the_reactor(void **state)
{
    (void)state;
    run_all(0);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(test.run_order[i], i);
        assert_ptr_equal(test.works[i].ran_on, test.world.reactor);
    }
}

static int32_t
work_slow(struct offload_job *job)
{
    usleep(20000);
    return work_run(job);
}

static void
submit_slow(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < 5; i++) {
        test.works[i].number = i;
        test.works[i].job.op.done = work_done;
        offload_submit(test.offload, &test.works[i].job, work_slow);
    }
}

static void
test_destroy_waits_for_what_is_queued(void **state)
{
    (void)state;
    struct error error = { 0 };
    assert_int_equal(offload_create("slow", 2, &test.offload, &error), 0);
    run_on(test.world.reactor, submit_slow, NULL);
    offload_destroy(test.offload);
    assert_int_equal(test.run_count, 5);
    turn_for(test.world.reactor, 10 * NS_PER_MS);
    assert_int_equal(test.done_count, 5); /* their completions still arrive */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_thread_keeps_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_threads_runs_on_the_reactor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_waits_for_what_is_queued, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
