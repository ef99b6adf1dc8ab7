/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of io/ share: a reactor on the real platform that the test's own thread drives,
 * and a platform without an outside world, whose clock moves only when the reactor sleeps.
 */
#ifndef TESTS_UNIT_IO_IO_TEST_H
#define TESTS_UNIT_IO_IO_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "io/platform.h"
#include "io/reactor.h"

/* ---- a reactor on the real platform ---- */

struct test_world {
    struct platform *platform;
    struct reactor *reactor;
};

static inline const struct platform_ops *
world_ops(struct test_world *world)
{
    return world->platform->ops;
}

static inline struct io_engine *
world_engine(struct test_world *world)
{
    return reactor_engine(world->reactor);
}

static inline void
world_open(struct test_world *world, uint64_t buffer_pool_bytes)
{
    struct error error = { 0 };
    if (platform_uring_create("/dev/shm", &world->platform, &error) < 0) {
        fail_msg("%s", error.message);
    }
    const struct reactor_options options = {
        .id = 3,
        .buffer_pool_bytes = buffer_pool_bytes,
        .cpu = -1,
    };
    if (reactor_create(world->platform, &options, &world->reactor, &error) < 0) {
        fail_msg("%s", error.message);
    }
}

static inline void
world_close(struct test_world *world)
{
    reactor_destroy(world->reactor);
    platform_uring_destroy(world->platform);
}

/* Run `call(argument)` inside a pass of the reactor. */
struct test_call {
    struct message message;
    void (*call)(void *argument);
    void *argument;
    bool called;
};

static inline void
test_call_deliver(struct message *message)
{
    struct test_call *call = container_of(message, struct test_call, message);
    call->call(call->argument);
    call->called = true;
}

static inline void
run_on(struct reactor *reactor, void (*call)(void *argument), void *argument)
{
    struct test_call test_call = { .call = call, .argument = argument };
    reactor_send(reactor, &test_call.message, test_call_deliver);
    while (!test_call.called) {
        reactor_pass(reactor, false, 0);
    }
}

/* Turn the loop until `*flag`, or give up after ten seconds. */
static inline void
wait_until(struct reactor *reactor, const bool *flag)
{
    struct platform *platform = reactor_platform(reactor);
    uint64_t give_up_ns = platform->ops->monotonic_ns(platform) + 10 * NS_PER_S;
    while (!*flag) {
        reactor_pass(reactor, true, 100 * NS_PER_MS);
        if (platform->ops->monotonic_ns(platform) > give_up_ns) {
            fail_msg("nothing happened for ten seconds");
        }
    }
}

/* Turn the loop for a while. */
static inline void
turn_for(struct reactor *reactor, uint64_t duration_ns)
{
    struct platform *platform = reactor_platform(reactor);
    uint64_t until_ns = platform->ops->monotonic_ns(platform) + duration_ns;
    while (platform->ops->monotonic_ns(platform) < until_ns) {
        reactor_pass(reactor, true, NS_PER_MS);
    }
}

/* ---- a platform that is only a clock ---- */

struct fake_platform {
    struct platform platform;
    uint64_t now_ns;
    uint64_t last_wait_ns; /* of the last poll */
    uint32_t sleeps;
    _Atomic uint32_t wakes;
    /* Called in each poll; may complete operations. Returns how many. NULL: nothing happens. */
    uint32_t (*on_poll)(struct fake_platform *fake, uint64_t wait_ns);
    uint64_t clock_step_ns; /* each reading of the clock takes this long */
};

static inline uint64_t
fake_monotonic_ns(struct platform *platform)
{
    struct fake_platform *fake = (struct fake_platform *)platform;
    fake->now_ns += fake->clock_step_ns;
    return fake->now_ns;
}

static inline int
fake_engine_open(struct platform *platform, struct reactor *reactor, struct io_engine **ret_engine,
                 struct error *error)
{
    (void)reactor;
    (void)error;
    *ret_engine = (struct io_engine *)platform;
    return 0;
}

static inline void
fake_engine_close(struct io_engine *engine)
{
    (void)engine;
}

static inline uint32_t
fake_engine_poll(struct io_engine *engine, uint64_t wait_ns)
{
    struct fake_platform *fake = (struct fake_platform *)engine;
    fake->last_wait_ns = wait_ns;
    uint32_t reaped = fake->on_poll != NULL ? fake->on_poll(fake, wait_ns) : 0;
    if (wait_ns > 0) {
        fake->sleeps++;
        if (reaped == 0 && wait_ns != UINT64_MAX) {
            fake->now_ns += wait_ns;
        }
    }
    return reaped;
}

static inline void
fake_engine_wake(struct io_engine *engine)
{
    struct fake_platform *fake = (struct fake_platform *)engine;
    fake->wakes++;
}

static inline void
fake_engine_register_memory(struct io_engine *engine, void *base, size_t length_bytes)
{
    (void)engine;
    (void)base;
    (void)length_bytes;
}

static inline void
fake_platform_init(struct fake_platform *fake)
{
    static const struct platform_ops ops = {
        .name = "fake",
        .monotonic_ns = fake_monotonic_ns,
        .engine_open = fake_engine_open,
        .engine_close = fake_engine_close,
        .engine_poll = fake_engine_poll,
        .engine_wake = fake_engine_wake,
        .engine_register_memory = fake_engine_register_memory,
    };
    *fake = (struct fake_platform){ .platform = { .ops = &ops }, .now_ns = NS_PER_S };
}

#endif
