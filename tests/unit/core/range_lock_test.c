/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The range lock against a naive model: at every moment no two holders conflict, requests that
 * conflict are granted in the order of arrival, and nobody waits for nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

/* Instead of the pipeline's: the lock has granted. */
void
pipeline_resume(struct volume_request *request)
{
    assert_true(request->lock_held);
}

static void
enter(struct range_lock *lock, struct volume_request *request, uint64_t first, uint64_t last,
      bool exclusive)
{
    request->lock_first_block = first;
    request->lock_last_block = last;
    request->lock_exclusive = exclusive;
    bool granted = range_lock_enter(lock, request);
    assert_int_equal(granted, request->lock_held);
}

static struct volume_request *
requests_new(size_t count)
{
    struct volume_request *requests = calloc(count, sizeof(*requests));
    assert_non_null(requests);
    for (size_t i = 0; i < count; i++) {
        list_init(&requests[i].lock_link);
        list_init(&requests[i].lock_wait_link);
        list_init(&requests[i].lock_waiters);
    }
    return requests;
}

static void
readers_share_and_writers_exclude(void **state)
{
    (void)state;
    struct range_lock lock;
    struct volume_request *r = requests_new(4);

    range_lock_init(&lock);
    enter(&lock, &r[0], 0, 3, false);
    enter(&lock, &r[1], 2, 5, false);
    enter(&lock, &r[2], 3, 3, true);
    enter(&lock, &r[3], 3, 3, false); /* behind the writer, although readers hold the range */
    assert_true(r[0].lock_held && r[1].lock_held);
    assert_false(r[2].lock_held || r[3].lock_held);
    range_lock_leave(&lock, &r[0]);
    assert_false(r[2].lock_held);
    range_lock_leave(&lock, &r[1]);
    assert_true(r[2].lock_held);
    assert_false(r[3].lock_held);
    range_lock_leave(&lock, &r[2]);
    assert_true(r[3].lock_held);
    range_lock_leave(&lock, &r[3]);
    range_lock_free(&lock);
    free(r);
}

static void
one_that_gives_up_lets_the_next_pass(void **state)
{
    (void)state;
    struct range_lock lock;
    struct volume_request *r = requests_new(3);

    range_lock_init(&lock);
    enter(&lock, &r[0], 0, 0, false);
    enter(&lock, &r[1], 0, 0, true);
    enter(&lock, &r[2], 0, 0, false);
    assert_false(r[2].lock_held);
    range_lock_leave(&lock, &r[1]);
    assert_true(r[2].lock_held);
    assert_false(range_lock_others(&lock, &r[0], 1, 15));
    assert_true(range_lock_others(&lock, &r[0], 0, 15));
    range_lock_leave(&lock, &r[0]);
    assert_false(range_lock_others(&lock, &r[2], 0, 15));
    range_lock_leave(&lock, &r[2]);
    range_lock_free(&lock);
    free(r);
}

enum {
    POPULATION = 48
};

static bool
conflicts(const struct volume_request *a, const struct volume_request *b)
{
    return (a->lock_exclusive || b->lock_exclusive) &&
           a->lock_first_block <= b->lock_last_block && b->lock_first_block <= a->lock_last_block;
}

/* Everybody inside: held exactly when no earlier one conflicts. */
static void
check(const struct volume_request *requests, const bool *inside)
{
    for (int i = 0; i < POPULATION; i++) {
        bool blocked = false;
        if (!inside[i]) {
            continue;
        }
        for (int j = 0; j < POPULATION; j++) {
            blocked |= inside[j] && requests[j].lock_sequence < requests[i].lock_sequence &&
                       conflicts(&requests[i], &requests[j]);
        }
        assert_int_equal(requests[i].lock_held, !blocked);
    }
}

static void
random_traffic_agrees_with_a_model(void **state)
{
    (void)state;
    struct range_lock lock;
    struct random random;
    struct volume_request *requests = requests_new(POPULATION);
    bool inside[POPULATION] = { false };

    random_seed(&random, 11);
    range_lock_init(&lock);
    for (int step = 0; step < 200000; step++) {
        uint64_t i = random_below(&random, POPULATION);
        if (inside[i]) {
            range_lock_leave(&lock, &requests[i]);
            inside[i] = false;
        } else {
            uint64_t first = random_below(&random, 256);
            uint64_t length = random_chance(&random, 1, 4) ? random_below(&random, 80) : 0;
            inside[i] = true;
            enter(&lock, &requests[i], first, first + length, random_chance(&random, 1, 2));
        }
        check(requests, inside);
    }
    for (int i = 0; i < POPULATION; i++) {
        if (inside[i]) {
            range_lock_leave(&lock, &requests[i]);
        }
    }
    range_lock_free(&lock);
    free(requests);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_share_and_writers_exclude),
        cmocka_unit_test(one_that_gives_up_lets_the_next_pass),
        cmocka_unit_test(random_traffic_agrees_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
