/* SPDX-License-Identifier: Apache-2.0 */
/* The buddy allocator: against a naive model, and the rules of waiting. */
#include "base/random.h"
#include "io/buffer_pool.h"
#include "tests/unit/io/io_test.h"

enum {
    POOL_BYTES = 64 << 20,
    RESERVE_BYTES = POOL_BYTES / 8, /* for short payloads only */
    HOLDERS = 300,
    PAGE = BUFFER_BLOCK_BYTES_MIN,
};

static struct {
    struct fake_platform fake;
    struct reactor *reactor;
    struct buffer_pool *pool;
    struct random random;
    struct buffer holders[HOLDERS];
    struct buffer_waiter waiters[HOLDERS];
    uint32_t granted_order[HOLDERS];
    uint32_t granted_count;
    bool inside; /* of a call of the pool: nobody may be told now */
} test;

static int
setup(void **state)
{
    (void)state;
    struct error error = { 0 };
    memset(&test, 0, sizeof(test));
    fake_platform_init(&test.fake);
    random_seed(&test.random, 23);
    const struct reactor_options options = { .id = 2, .buffer_pool_bytes = POOL_BYTES, .cpu = -1 };
    assert_int_equal(reactor_create(&test.fake.platform, &options, &test.reactor, &error), 0);
    test.pool = reactor_buffer_pool(test.reactor);
    assert_int_equal(buffer_pool_free_bytes(test.pool), POOL_BYTES);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    assert_int_equal(buffer_pool_free_bytes(test.pool), POOL_BYTES); /* no leak */
    reactor_destroy(test.reactor);
    return 0;
}

static void
granted(struct buffer_waiter *waiter)
{
    assert_false(test.inside);
    assert_ptr_equal(reactor_self(), test.reactor);
    assert_int_equal(waiter->buffer->length_bytes, waiter->length_bytes);
    test.granted_order[test.granted_count++] = (uint32_t)(waiter - test.waiters);
}

static bool
get(uint32_t holder, uint32_t length_bytes)
{
    return buffer_pool_get(test.pool, length_bytes, &test.holders[holder]);
}

static void
put(uint32_t holder)
{
    test.inside = true;
    buffer_pool_put(test.pool, &test.holders[holder]);
    test.inside = false;
    assert_int_equal(test.holders[holder].segment_count, 0);
    assert_int_equal(test.holders[holder].length_bytes, 0);
}

static void
wait_in_line(uint32_t holder, uint32_t length_bytes)
{
    struct buffer_waiter *waiter = &test.waiters[holder];
    assert_false(get(holder, length_bytes));
    waiter->buffer = &test.holders[holder];
    waiter->length_bytes = length_bytes;
    waiter->granted = granted;
    test.inside = true;
    buffer_pool_wait(test.pool, waiter);
    test.inside = false;
}

/* Each test's body runs on the reactor; passes between the steps are turned by the test. */
#define ON_REACTOR(body) run_on(test.reactor, body, NULL)

/* ---- against a model ---- */

static uint8_t page_used[POOL_BYTES / PAGE];
static uint8_t *region_low;

static void
mark_pages(const struct buffer *buffer, uint8_t from, uint8_t to)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < buffer->segment_count; i++) {
        const struct iovec *segment = &buffer->segments[i];
        assert_true(is_aligned((uintptr_t)segment->iov_base, PAGE));
        assert_true(segment->iov_len > 0);
        /* Direct transfers want whole sectors: only the last part may be odd. */
        assert_true(i + 1 == buffer->segment_count || segment->iov_len == BUFFER_BLOCK_BYTES_MAX);
        size_t first = (size_t)((uint8_t *)segment->iov_base - region_low) / PAGE;
        size_t count = div_round_up(segment->iov_len, PAGE);
        assert_true(first + count <= POOL_BYTES / PAGE);
        for (size_t page = first; page < first + count; page++) {
            assert_int_equal(page_used[page], from); /* nobody else has it */
            page_used[page] = to;
        }
        sum += segment->iov_len;
    }
    assert_int_equal(sum, buffer->length_bytes);
}

static uint32_t
random_length(void)
{
    switch (random_below(&test.random, 5)) {
    case 0:
        return PAGE;
    case 1:
        return (uint32_t)(1 + random_below(&test.random, BUFFER_SMALL_BYTES));
    case 2:
        return (uint32_t)(1 + random_below(&test.random, BUFFER_BLOCK_BYTES_MAX));
    case 3:
        return (uint32_t)(1 + random_below(&test.random, BUFFER_PAYLOAD_BYTES_MAX));
    default:
        return PAGE << random_below(&test.random, 9);
    }
}

/* The lowest address of the region, found by taking all of it. */
static void
find_region(void)
{
    region_low = (uint8_t *)UINTPTR_MAX;
    uint32_t taken = 0;
    while (taken < HOLDERS &&
           (get(taken, BUFFER_BLOCK_BYTES_MAX) || get(taken, BUFFER_SMALL_BYTES))) {
        uint8_t *base = test.holders[taken].segments[0].iov_base;
        region_low = MIN(region_low, base);
        taken++;
    }
    assert_int_equal(buffer_pool_free_bytes(test.pool), 0);
    while (taken > 0) {
        put(--taken);
    }
}

static void
random_body(void *argument)
{
    (void)argument;
    uint32_t got = 0;
    uint32_t refused = 0;
    find_region();
    memset(page_used, 0, sizeof(page_used));
    for (int step = 0; step < 60000; step++) {
        uint32_t holder = (uint32_t)random_below(&test.random, HOLDERS);
        uint64_t before = buffer_pool_free_bytes(test.pool);
        if (test.holders[holder].segment_count > 0) {
            mark_pages(&test.holders[holder], 1, 0);
            put(holder);
            assert_true(buffer_pool_free_bytes(test.pool) > before);
        } else {
            uint32_t length_bytes = random_length();
            if (get(holder, length_bytes)) {
                mark_pages(&test.holders[holder], 0, 1);
                uint64_t took = before - buffer_pool_free_bytes(test.pool);
                assert_true(took >= length_bytes && took < 2 * (uint64_t)length_bytes + PAGE);
                got++;
            } else {
                assert_int_equal(test.holders[holder].segment_count, 0);
                assert_int_equal(buffer_pool_free_bytes(test.pool), before);
                refused++;
            }
        }
    }
    assert_true(got > 5000 && refused > 1000);
    for (uint32_t i = 0; i < HOLDERS; i++) {
        if (test.holders[i].segment_count > 0) {
            mark_pages(&test.holders[i], 1, 0);
            put(i);
        }
    }
    /* Everything has merged again: the longest payload fits. */
    assert_true(get(0, BUFFER_PAYLOAD_BYTES_MAX));
    assert_int_equal(test.holders[0].segment_count, BUFFER_SEGMENTS_MAX);
    put(0);
}

static void
test_random_against_model(void **state)
{
    (void)state;
    ON_REACTOR(random_body);
}

static void
shapes_body(void *argument)
{
    (void)argument;
    static const struct {
        uint32_t length_bytes;
        uint32_t segments;
        uint32_t taken_bytes;
    } cases[] = {
        { 1, 1, PAGE },
        { PAGE, 1, PAGE },
        { PAGE + 1, 1, 2 * PAGE },
        { 5 * PAGE, 1, 8 * PAGE },
        { 1 << 20, 1, 1 << 20 },
        { (1 << 20) + 1, 2, (1 << 20) + PAGE },
        { (3 << 20) + (300 << 10), 4, (3 << 20) + (512 << 10) },
        { 32 << 20, 32, 32 << 20 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(get(0, cases[i].length_bytes));
        assert_int_equal(test.holders[0].segment_count, cases[i].segments);
        assert_int_equal(POOL_BYTES - buffer_pool_free_bytes(test.pool), cases[i].taken_bytes);
        for (uint32_t s = 0; s < test.holders[0].segment_count; s++) {
            struct iovec *segment = &test.holders[0].segments[s];
            memset(segment->iov_base, 0x5a, segment->iov_len); /* all of it is there */
        }
        put(0);
    }
}

static void
test_shapes(void **state)
{
    (void)state;
    ON_REACTOR(shapes_body);
}

/* ---- waiting ---- */

static void
fill_body(void *argument)
{
    (void)argument;
    /* 0..55: the main zone, in pieces of 1 MiB. */
    for (uint32_t i = 0; i < (POOL_BYTES - RESERVE_BYTES) >> 20; i++) {
        assert_true(get(i, 1 << 20));
    }
    assert_false(get(100, BUFFER_SMALL_BYTES + 1)); /* the reserve is not for these */
    assert_true(get(100, BUFFER_SMALL_BYTES));
    put(100);
    wait_in_line(101, 3 << 20);
    wait_in_line(102, 1 << 20);
}

static void
free_two_body(void *argument)
{
    (void)argument;
    put(0);
    put(1);
    /* 2 MiB are free in the main zone, but the first in line wants 3: nobody overtakes. */
    assert_int_equal(buffer_pool_free_bytes(test.pool), RESERVE_BYTES + (2 << 20));
    assert_false(get(103, 1 << 20));
    /* Short ones pass, from the reserve, down to its last byte, and not from the main zone. */
    uint32_t passed = 0;
    while (get(110 + passed, BUFFER_SMALL_BYTES)) {
        passed++;
    }
    assert_int_equal(passed, RESERVE_BYTES / BUFFER_SMALL_BYTES);
    assert_int_equal(buffer_pool_free_bytes(test.pool), 2 << 20);
    wait_in_line(104, PAGE);
    for (uint32_t i = 0; i < passed - 1; i++) {
        put(110 + i); /* the first of these serves 104 */
    }
    put(110 + passed - 1);
}

static void
free_more_body(void *argument)
{
    (void)argument;
    assert_int_equal(test.granted_count, 1);
    assert_int_equal(test.granted_order[0], 104);
    put(2);
    assert_int_equal(test.granted_count, 1); /* told from the loop, not from here */
    put(3);
}

static void
rest_body(void *argument)
{
    (void)argument;
    assert_int_equal(test.granted_count, 3);
    assert_int_equal(test.granted_order[1], 101);
    assert_int_equal(test.granted_order[2], 102);
    put(101);
    put(102);
    put(104);
    for (uint32_t i = 4; i < (POOL_BYTES - RESERVE_BYTES) >> 20; i++) {
        put(i);
    }
}

static void
test_order_of_waiting(void **state)
{
    (void)state;
    ON_REACTOR(fill_body);
    ON_REACTOR(free_two_body);
    reactor_pass(test.reactor, false, 0);
    ON_REACTOR(free_more_body);
    reactor_pass(test.reactor, false, 0);
    ON_REACTOR(rest_body);
}

static void
cancel_body(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < (POOL_BYTES - RESERVE_BYTES) >> 20; i++) {
        assert_true(get(i, 1 << 20));
    }
    wait_in_line(101, 32 << 20);
    wait_in_line(102, 1 << 20);
    wait_in_line(103, 1 << 20);
    put(0);
    put(1);
    /* The first gives up: those behind it fit at once. */
    buffer_pool_cancel(test.pool, &test.waiters[101]);
    assert_int_equal(test.holders[102].length_bytes, 1 << 20);
    /* One gives up after its memory was taken, before it was told: it is never told. */
    buffer_pool_cancel(test.pool, &test.waiters[103]);
    assert_int_equal(test.holders[103].segment_count, 0);
    buffer_pool_cancel(test.pool, &test.waiters[103]); /* no effect */
    assert_int_equal(buffer_pool_free_bytes(test.pool), RESERVE_BYTES + (1 << 20));
}

static void
cancel_rest_body(void *argument)
{
    (void)argument;
    assert_int_equal(test.granted_count, 1);
    assert_int_equal(test.granted_order[0], 102);
    buffer_pool_cancel(test.pool, &test.waiters[102]); /* no longer waiting: no effect */
    put(102);
    for (uint32_t i = 2; i < (POOL_BYTES - RESERVE_BYTES) >> 20; i++) {
        put(i);
    }
}

static void
test_leaving_the_line(void **state)
{
    (void)state;
    ON_REACTOR(cancel_body);
    reactor_pass(test.reactor, false, 0);
    ON_REACTOR(cancel_rest_body);
}

/* ---- everybody is served in the end ---- */

static struct {
    uint32_t served;
    uint32_t waiting;
} crowd;

static void
crowd_granted(struct buffer_waiter *waiter)
{
    assert_int_equal(waiter->buffer->length_bytes, waiter->length_bytes);
    crowd.served++;
    crowd.waiting--;
}

static void
crowd_body(void *argument)
{
    (void)argument;
    for (int i = 0; i < 20; i++) {
        uint32_t holder = (uint32_t)random_below(&test.random, HOLDERS);
        struct buffer_waiter *waiter = &test.waiters[holder];
        if (list_linked(&waiter->link)) {
            if (random_chance(&test.random, 1, 10)) {
                buffer_pool_cancel(test.pool, waiter);
                crowd.waiting--;
            }
        } else if (test.holders[holder].segment_count > 0) {
            buffer_pool_put(test.pool, &test.holders[holder]);
        } else if (!get(holder, waiter->length_bytes = random_length())) {
            waiter->buffer = &test.holders[holder];
            waiter->granted = crowd_granted;
            buffer_pool_wait(test.pool, waiter);
            crowd.waiting++;
        }
    }
}

static void
drain_body(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < HOLDERS; i++) {
        if (!list_linked(&test.waiters[i].link) && test.holders[i].segment_count > 0) {
            buffer_pool_put(test.pool, &test.holders[i]);
        }
    }
}

static void
test_everybody_is_served(void **state)
{
    (void)state;
    memset(&crowd, 0, sizeof(crowd));
    for (int round = 0; round < 3000; round++) {
        ON_REACTOR(crowd_body);
    }
    assert_true(crowd.served > 1000);
    for (int round = 0; round < HOLDERS && buffer_pool_free_bytes(test.pool) < POOL_BYTES;
         round++) {
        ON_REACTOR(drain_body);
        reactor_pass(test.reactor, false, 0);
    }
    assert_int_equal(crowd.waiting, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_against_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_of_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leaving_the_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_everybody_is_served, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
