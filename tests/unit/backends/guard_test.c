/* SPDX-License-Identifier: Apache-2.0 */
/* The guard over a backend that does what the test tells it. */
#include "tests/unit/backends/support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/guard.h"
#include "base/random.h"
#include "base/util.h"

enum {
    SCRIPT_STEPS_MAX = 64,
    SCRIPT_DISK_BYTES = 8 << 20,
};

/* What was asked for, and what to answer. */
struct script_step {
    enum backend_io_kind kind;
    bool fua;
    uint64_t offset_bytes;
    uint64_t length_bytes;
};

/* A memory disk that records submissions and answers with chosen results. */
struct script {
    uint8_t *memory;
    struct script_step steps[SCRIPT_STEPS_MAX];
    int32_t results[SCRIPT_STEPS_MAX]; /* answer to the n-th submission */
    uint32_t count;
    bool hold; /* keep them */
    bool no_record;
    struct backend_io *held[SCRIPT_STEPS_MAX];
    uint32_t held_count;
    struct message release; /* lets go of what is held, successfully */
};

static void
script_transfer(struct script *script, struct backend_io *io, int32_t result)
{
    uint64_t bytes = result == 0 ? io->length_bytes : (uint64_t)MAX(result, 0);
    uint8_t *at = script->memory + io->offset_bytes;
    if (io->kind == BACKEND_WRITE_ZEROES && result == 0) {
        memset(at, 0, io->length_bytes);
    }
    if (io->kind != BACKEND_READ && io->kind != BACKEND_WRITE) {
        return;
    }
    for (uint32_t i = 0; bytes > 0; i++) {
        uint64_t here = MIN(bytes, io->iov[i].iov_len);
        if (io->kind == BACKEND_READ) {
            memcpy(io->iov[i].iov_base, at, here);
        } else {
            memcpy(at, io->iov[i].iov_base, here);
        }
        at += here;
        bytes -= here;
    }
}

static void
script_submit(struct backend *backend, struct backend_io *io)
{
    struct script *script = backend->state;
    int32_t result = 0;

    assert_true(!backend->ops->owner_reactor_only || reactor_self() == backend->owner);
    if (!script->no_record) {
        assert_true(script->count < SCRIPT_STEPS_MAX);
        script->steps[script->count] = (struct script_step){
            .kind = io->kind,
            .fua = io->fua,
            .offset_bytes = io->offset_bytes,
            .length_bytes = io->length_bytes,
        };
        result = script->results[script->count++];
    }
    if (script->hold) {
        script->held[script->held_count++] = io;
        return;
    }
    script_transfer(script, io, result);
    reactor_complete(&io->op, result);
}

static void
script_release(struct message *message)
{
    struct script *script = container_of(message, struct script, release);
    uint32_t count = script->held_count;
    script->held_count = 0;
    script->hold = false;
    for (uint32_t i = 0; i < count; i++) {
        guard_complete(script->held[i], 0); /* the loop has called us */
    }
}

static int
script_open(struct backend *backend, const char *spec, uint32_t flags, struct error *error)
{
    (void)backend;
    (void)spec;
    (void)flags;
    return error_set(error, -EINVAL, "not used");
}

static void
script_close(struct backend *backend)
{
    struct script *script = backend->state;
    free(script->memory);
    free(script);
}

static const struct backend_ops script_ops = {
    .type = "script",
    .open = script_open,
    .close = script_close,
    .refresh = guard_refresh_fixed,
    .submit = script_submit,
};

static const struct backend_ops script_owner_ops = {
    .type = "script",
    .owner_reactor_only = true,
    .open = script_open,
    .close = script_close,
    .refresh = guard_refresh_fixed,
    .submit = script_submit,
};

static struct backend *
script_create(struct world *world, const struct backend_ops *ops)
{
    struct backend *backend = calloc(1, sizeof(*backend));
    struct script *script = calloc(1, sizeof(*script));
    script->memory = buffer_new(SCRIPT_DISK_BYTES, 99);
    backend->ops = ops;
    backend->platform = world->platform;
    backend->owner = world->reactor;
    backend->state = script;
    backend->spec = strdup("script");
    backend->default_timeout_ns = 30 * NS_PER_S;
    backend->properties = (struct backend_properties){
        .size_bytes = SCRIPT_DISK_BYTES,
        .block_bytes = 512,
        .physical_block_bytes = 4096,
        .memory_alignment_bytes = 512,
        .discard_granularity_bytes = 512,
        .transfer_bytes_max = 64 << 10,
        .range_bytes_max = 1 << 20,
        .thin = true,
    };
    assert_int_equal(guard_create(backend), 0);
    return backend;
}

static struct script *
script_of(struct backend *backend)
{
    return backend->state;
}

static void
script_reset(struct backend *backend)
{
    struct script *script = script_of(backend);
    memset(script->steps, 0, sizeof(script->steps));
    memset(script->results, 0, sizeof(script->results));
    script->count = 0;
}

static void
assert_step(struct backend *backend, uint32_t index, enum backend_io_kind kind, bool fua,
            uint64_t offset_bytes, uint64_t length_bytes)
{
    const struct script_step *step = &script_of(backend)->steps[index];
    assert_true(index < script_of(backend)->count);
    assert_int_equal(step->kind, kind);
    assert_int_equal(step->fua, fua);
    assert_int_equal(step->offset_bytes, offset_bytes);
    assert_int_equal(step->length_bytes, length_bytes);
}

static int
setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    world_open(world);
    *state = world;
    return 0;
}

static int
teardown(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

/* ---- transfers ---- */

static void
test_split_by_transfer_max(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    uint8_t *data = buffer_new(200 << 10, 1);
    uint8_t *back = buffer_new(200 << 10, 2);
    struct test_io io = { 0 };
    struct iovec iov[5];

    assert_int_equal(io_do(world, backend, BACKEND_WRITE, 4096, data, 200 << 10), 0);
    assert_int_equal(script_of(backend)->count, 4);
    assert_step(backend, 0, BACKEND_WRITE, false, 4096, 64 << 10);
    assert_step(backend, 3, BACKEND_WRITE, false, 4096 + (192 << 10), 8 << 10);
    assert_memory_equal(script_of(backend)->memory + 4096, data, 200 << 10);

    /* Pieces that end in the middle of an entry, and entries longer than a piece. */
    uint64_t lengths[5] = { 512, 70 << 10, (30 << 10) + 512, 1024, 0 };
    lengths[4] = (200 << 10) - lengths[0] - lengths[1] - lengths[2] - lengths[3];
    uint64_t at = 0;
    for (uint32_t i = 0; i < 5; i++) {
        iov[i] = (struct iovec){ back + at, lengths[i] };
        at += lengths[i];
    }
    script_reset(backend);
    io.io.kind = BACKEND_READ;
    io.io.offset_bytes = 4096;
    io.io.length_bytes = 200 << 10;
    io.io.iov = iov;
    io.io.iov_count = 5;
    io_submit(world->reactor, backend, &io);
    assert_int_equal(io_wait(world, &io), 0);
    assert_memory_equal(back, data, 200 << 10);
    /* The caller's fields are the caller's again. */
    assert_ptr_equal(io.io.iov, iov);
    assert_int_equal(io.io.iov_count, 5);
    assert_int_equal(io.io.offset_bytes, 4096);
    assert_int_equal(io.io.length_bytes, 200 << 10);
    assert_int_equal(io.io.kind, BACKEND_READ);

    struct backend_statistics statistics;
    backend_get_statistics(backend, &statistics);
    assert_int_equal(statistics.operations[BACKEND_WRITE], 1);
    assert_int_equal(statistics.bytes[BACKEND_WRITE], 200 << 10);
    assert_int_equal(statistics.operations[BACKEND_READ], 1);
    assert_int_equal(statistics.in_flight, 0);
    backend_close(backend);
    free(data);
    free(back);
}

static void
test_short_transfers_are_continued(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    uint8_t *data = buffer_new(16384, 1);

    script->results[0] = 512;
    script->results[1] = 1024 + 100; /* whole blocks count */
    assert_int_equal(io_do(world, backend, BACKEND_WRITE, 0, data, 16384), 0);
    assert_int_equal(script->count, 3);
    assert_step(backend, 1, BACKEND_WRITE, false, 512, 16384 - 512);
    assert_step(backend, 2, BACKEND_WRITE, false, 1536, 16384 - 1536);
    assert_memory_equal(script->memory, data, 16384);

    /* A full count is as good as 0. */
    script_reset(backend);
    script->results[0] = 16384;
    assert_int_equal(io_do(world, backend, BACKEND_READ, 0, data, 16384), 0);
    assert_int_equal(script->count, 1);

    /* No progress, and an error after some: both are errors, B4. */
    script_reset(backend);
    script->results[0] = 100;
    assert_int_equal(io_do(world, backend, BACKEND_READ, 0, data, 16384), -EIO);
    script_reset(backend);
    script->results[0] = 8192;
    script->results[1] = -ENOSPC;
    assert_int_equal(io_do(world, backend, BACKEND_WRITE, 0, data, 16384), -ENOSPC);
    struct backend_statistics statistics;
    backend_get_statistics(backend, &statistics);
    assert_int_equal(statistics.errors[BACKEND_READ], 1);
    assert_int_equal(statistics.errors[BACKEND_WRITE], 1);
    backend_close(backend);
    free(data);
}

static int
do_fua(struct world *world, struct backend *backend, enum backend_io_kind kind, void *data,
       uint64_t bytes)
{
    struct test_io io = { 0 };
    io.io.kind = kind;
    io.io.fua = true;
    io.io.length_bytes = bytes;
    if (data != NULL) {
        io.iov = (struct iovec){ data, bytes };
        io.io.iov = &io.iov;
        io.io.iov_count = 1;
    }
    io_submit(world->reactor, backend, &io);
    int result = io_wait(world, &io);
    assert_true(io.io.fua && io.io.kind == kind && io.io.length_bytes == bytes);
    return result;
}

static void
test_fua(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    uint8_t *data = buffer_new(128 << 10, 1);

    /* Native: passed on, with each piece. */
    assert_int_equal(do_fua(world, backend, BACKEND_WRITE, data, 128 << 10), 0);
    assert_int_equal(script->count, 2);
    assert_step(backend, 1, BACKEND_WRITE, true, 64 << 10, 64 << 10);

    /* Refused: written again with a flush behind it, and so from then on. */
    script_reset(backend);
    script->results[0] = -EOPNOTSUPP;
    assert_int_equal(do_fua(world, backend, BACKEND_WRITE, data, 4096), 0);
    assert_int_equal(script->count, 3);
    assert_step(backend, 1, BACKEND_WRITE, false, 0, 4096);
    assert_step(backend, 2, BACKEND_FLUSH, false, 0, 0);
    script_reset(backend);
    assert_int_equal(do_fua(world, backend, BACKEND_WRITE, data, 128 << 10), 0);
    assert_int_equal(script->count, 3);
    assert_step(backend, 0, BACKEND_WRITE, false, 0, 64 << 10);
    assert_step(backend, 2, BACKEND_FLUSH, false, 0, 0);

    /* The flush fails: so does the write, and what was not flushed counts as lost. */
    script_reset(backend);
    script->results[1] = -EIO;
    assert_int_equal(backend_loss_generation(backend), 0);
    assert_int_equal(do_fua(world, backend, BACKEND_WRITE, data, 4096), -EIO);
    assert_int_equal(backend_loss_generation(backend), 1);
    backend_close(backend);
    free(data);
}

static void
test_zeroes(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    uint64_t bytes = 3 << 20;

    assert_int_equal(io_do(world, backend, BACKEND_WRITE_ZEROES, 0, NULL, bytes), 0);
    assert_int_equal(script->count, 3); /* by range_bytes_max */
    assert_step(backend, 2, BACKEND_WRITE_ZEROES, false, 2 << 20, 1 << 20);

    /* Zeroes with FUA on a backend whose zeroes have none. */
    guard_emulate(backend, GUARD_EMULATE_ZEROES_FUA);
    script_reset(backend);
    assert_int_equal(do_fua(world, backend, BACKEND_WRITE_ZEROES, NULL, 8192), 0);
    assert_int_equal(script->count, 2);
    assert_step(backend, 0, BACKEND_WRITE_ZEROES, false, 0, 8192);
    assert_step(backend, 1, BACKEND_FLUSH, false, 0, 0);

    /* Refused in the middle: the rest is written, in bounded pieces. */
    buffer_fill(script->memory, SCRIPT_DISK_BYTES, 5);
    script_reset(backend);
    script->results[1] = -EOPNOTSUPP;
    assert_int_equal(io_do(world, backend, BACKEND_WRITE_ZEROES, 512, NULL, bytes), 0);
    assert_int_equal(script->count, 2 + 32);
    assert_step(backend, 2, BACKEND_WRITE, false, 512 + (1 << 20), 64 << 10);
    for (uint64_t i = 0; i < bytes; i++) {
        assert_int_equal(script->memory[512 + i], 0);
    }
    assert_int_not_equal(script->memory[511] | script->memory[510] | script->memory[509], 0);
    /* Emulated zeroes may use FUA. */
    script_reset(backend);
    assert_int_equal(do_fua(world, backend, BACKEND_WRITE_ZEROES, NULL, 8192), 0);
    assert_int_equal(script->count, 1);
    assert_step(backend, 0, BACKEND_WRITE, true, 0, 8192);
    backend_close(backend);
}

static void
test_nothing_to_do(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    uint8_t *data = buffer_new(4096, 1);

    /* A discard that the backend refuses was a hint. */
    script->results[0] = -EOPNOTSUPP;
    assert_int_equal(io_do(world, backend, BACKEND_DISCARD, 0, NULL, 4096), 0);
    assert_int_equal(io_do(world, backend, BACKEND_DISCARD, 0, NULL, 4096), 0);
    assert_int_equal(script->count, 1);
    script_reset(backend);
    assert_int_equal(io_do(world, backend, BACKEND_ALLOCATE, 0, NULL, 4096), 0);
    assert_int_equal(script->count, 1);
    backend->properties.thin = false;
    assert_int_equal(io_do(world, backend, BACKEND_ALLOCATE, 0, NULL, 4096), 0);
    assert_int_equal(script->count, 1);

    guard_emulate(backend, GUARD_READ_ONLY);
    assert_int_equal(io_do(world, backend, BACKEND_WRITE, 0, data, 4096), -EROFS);
    assert_int_equal(io_do(world, backend, BACKEND_WRITE_ZEROES, 0, NULL, 4096), -EROFS);
    assert_int_equal(io_do(world, backend, BACKEND_DISCARD, 0, NULL, 4096), -EROFS);
    assert_int_equal(io_do(world, backend, BACKEND_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(script->count, 1);
    assert_int_equal(io_do(world, backend, BACKEND_READ, 0, data, 4096), 0);
    backend_close(backend);
    free(data);
}

static void
test_loss(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    struct test_io io;

    script->results[0] = -EIO;
    assert_int_equal(io_do(world, backend, BACKEND_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(backend_loss_generation(backend), 1);
    assert_int_equal(io_do(world, backend, BACKEND_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(backend_loss_generation(backend), 1);

    /* A flush during which something was lost fails, whatever the device says. */
    script->hold = true;
    io_start(world, backend, &io, BACKEND_FLUSH, 0, NULL, 0);
    support_pump(world, 2);
    assert_int_equal(script->held_count, 1);
    guard_raise_loss(backend);
    assert_false(io.ended);
    reactor_send(world->reactor, &script->release, script_release);
    assert_int_equal(io_wait(world, &io), -EIO);
    assert_int_equal(backend_loss_generation(backend), 2);
    backend_close(backend);
}

/* ---- deadlines ---- */

static void
test_overdue_in_order(void **state)
{
    enum {
        COUNT = 24
    };
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    uint8_t *data = buffer_new(512, 1);
    struct test_io ios[COUNT];
    struct random random;

    /* More distinct timeouts than the guard has lists, in random order. */
    random_seed(&random, 4);
    script->hold = true;
    for (uint32_t i = 0; i < COUNT; i++) {
        memset(&ios[i], 0, sizeof(ios[i]));
        ios[i].io.kind = BACKEND_READ;
        ios[i].io.length_bytes = 512;
        ios[i].iov = (struct iovec){ data, 512 };
        ios[i].io.iov = &ios[i].iov;
        ios[i].io.iov_count = 1;
        ios[i].io.timeout_ns = (20 + 10 * random_below(&random, 12)) * NS_PER_MS;
        io_submit(world->reactor, backend, &ios[i]);
    }
    support_pump(world, 2);
    struct backend_statistics statistics;
    backend_get_statistics(backend, &statistics);
    assert_int_equal(statistics.in_flight, COUNT);
    assert_int_equal(statistics.overdue, 0);
    uint64_t start_ms = support_now_ms();
    while (statistics.overdue < COUNT && support_now_ms() < start_ms + 5000) {
        support_pump(world, 1);
        backend_get_statistics(backend, &statistics);
    }
    assert_int_equal(statistics.overdue, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(ios[i].overdue_calls, 1);
        assert_false(ios[i].ended); /* B2 */
        for (uint32_t j = 0; j < COUNT; j++) {
            if (ios[i].io.deadline_ns < ios[j].io.deadline_ns) {
                assert_true(ios[i].overdue_order < ios[j].overdue_order);
            }
        }
    }
    support_pump(world, 30);
    reactor_send(world->reactor, &script->release, script_release);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(io_wait(world, &ios[i]), 0);
        assert_int_equal(ios[i].overdue_calls, 1);
    }
    backend_close(backend); /* asserts that no timer is left */
    free(data);
}

static void
test_deadline_of_what_comes_later(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    struct test_io slow = { 0 };
    struct test_io quick = { 0 };

    /* A shorter timeout behind a longer one must move the timer forward. */
    script->hold = true;
    slow.io.kind = BACKEND_FLUSH;
    slow.io.timeout_ns = 10 * NS_PER_S;
    quick.io.kind = BACKEND_FLUSH;
    quick.io.timeout_ns = 20 * NS_PER_MS;
    io_submit(world->reactor, backend, &slow);
    io_submit(world->reactor, backend, &quick);
    uint64_t start_ms = support_now_ms();
    while (quick.overdue_calls == 0 && support_now_ms() < start_ms + 5000) {
        support_pump(world, 1);
    }
    assert_int_equal(quick.overdue_calls, 1);
    assert_int_equal(slow.overdue_calls, 0);
    reactor_send(world->reactor, &script->release, script_release);
    assert_int_equal(io_wait(world, &slow), 0);
    assert_int_equal(io_wait(world, &quick), 0);
    /* Ended before its deadline: never overdue. */
    slow.io.timeout_ns = 500 * NS_PER_MS;
    io_submit(world->reactor, backend, &slow);
    assert_int_equal(io_wait(world, &slow), 0);
    support_pump(world, 700);
    assert_int_equal(slow.overdue_calls, 0);
    backend_close(backend);
}

static void
test_sync_io(void **state)
{
    struct world *world = *state;
    struct backend *backend = script_create(world, &script_ops);
    struct script *script = script_of(backend);
    uint8_t *data = buffer_new(3 << 20, 8);
    uint8_t *back = buffer_new(3 << 20, 9);

    /* Any alignment of memory, any length of whole blocks. */
    script->no_record = true;
    uint64_t bytes = (2 << 20) + 512;
    assert_int_equal(backend_sync_io(world->reactor, backend, BACKEND_WRITE, 512, data + 3, bytes),
                     0);
    assert_int_equal(backend_sync_io(world->reactor, backend, BACKEND_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(backend_sync_io(world->reactor, backend, BACKEND_READ, 512, back + 1, bytes),
                     0);
    assert_memory_equal(back + 1, data + 3, bytes);

    /* Hung: the caller goes on at the deadline, the operation keeps its own memory. */
    script->hold = true;
    backend->default_timeout_ns = 20 * NS_PER_MS;
    assert_int_equal(backend_sync_io(world->reactor, backend, BACKEND_READ, 0, back, 4096),
                     -ETIMEDOUT);
    free(back);
    struct backend_statistics statistics;
    backend_get_statistics(backend, &statistics);
    assert_int_equal(statistics.in_flight, 1);
    reactor_send(world->reactor, &script->release, script_release);
    support_pump(world, 5);
    backend_get_statistics(backend, &statistics);
    assert_int_equal(statistics.in_flight, 0);
    backend_close(backend);
    free(data);
}

/* ---- several reactors ---- */

enum {
    THREADED_IOS = 32,
    THREADED_ROUNDS = 3000,
};

struct threaded_io {
    struct backend_io io;
    struct message message;
    struct iovec iov;
    struct backend *backend;
    struct reactor *reactor;
    uint32_t rounds_left;
    uint8_t *data;
    uint32_t *running; /* atomic */
};

static void threaded_done(struct io_op *op);

static void
threaded_submit(struct message *message)
{
    struct threaded_io *io = container_of(message, struct threaded_io, message);
    io->io.op.done = threaded_done;
    backend_submit(io->backend, &io->io);
}

static void
threaded_done(struct io_op *op)
{
    struct threaded_io *io = container_of(op, struct threaded_io, io.op);
    assert_true(reactor_self() == io->reactor); /* B1 */
    assert_int_equal(op->result, 0);
    if (--io->rounds_left == 0) {
        __atomic_fetch_sub(io->running, 1, __ATOMIC_RELEASE);
        return;
    }
    io->io.kind = io->rounds_left % 3 == 0   ? BACKEND_FLUSH
                  : io->rounds_left % 3 == 1 ? BACKEND_WRITE
                                             : BACKEND_READ;
    io->io.fua = io->rounds_left % 7 == 0;
    threaded_submit(&io->message);
}

static void
test_owner_gets_everything(void **state)
{
    struct world *world = *state;
    struct reactor *reactors[3];
    struct threaded_io ios[THREADED_IOS] = { 0 };
    struct error error = { 0 };
    uint32_t running = THREADED_IOS;

    for (uint32_t i = 0; i < 3; i++) {
        struct reactor_options options = { .id = 1 + i, .cpu = -1 };
        assert_int_equal(reactor_create(world->platform, &options, &reactors[i], &error), 0);
        assert_int_equal(reactor_start(reactors[i], &error), 0);
    }
    struct backend *backend = script_create(world, &script_owner_ops);
    script_of(backend)->no_record = true;
    backend->owner = reactors[0];
    guard_emulate(backend, GUARD_EMULATE_FUA); /* several pieces, each forwarded */
    for (uint32_t i = 0; i < THREADED_IOS; i++) {
        struct threaded_io *io = &ios[i];
        io->data = buffer_new(4096, i);
        io->iov = (struct iovec){ io->data, 4096 };
        io->io.iov = &io->iov;
        io->io.iov_count = 1;
        io->io.kind = BACKEND_READ;
        io->io.offset_bytes = i * 4096;
        io->io.length_bytes = 4096;
        io->backend = backend;
        io->reactor = reactors[i % 3];
        io->rounds_left = THREADED_ROUNDS;
        io->running = &running;
        reactor_send(io->reactor, &io->message, threaded_submit);
    }
    struct backend_statistics statistics;
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0) {
        usleep(1000);
        backend_get_statistics(backend, &statistics);
        assert_true(statistics.operations[BACKEND_READ] <= THREADED_IOS * THREADED_ROUNDS);
    }
    for (uint32_t i = 0; i < 3; i++) {
        reactor_stop(reactors[i]);
        reactor_join(reactors[i]);
    }
    backend_get_statistics(backend, &statistics);
    assert_int_equal(statistics.operations[BACKEND_READ] + statistics.operations[BACKEND_WRITE] +
                         statistics.operations[BACKEND_FLUSH],
                     THREADED_IOS * THREADED_ROUNDS);
    assert_int_equal(statistics.in_flight, 0);
    backend_close(backend);
    for (uint32_t i = 0; i < 3; i++) {
        reactor_destroy(reactors[i]);
    }
    for (uint32_t i = 0; i < THREADED_IOS; i++) {
        free(ios[i].data);
    }
}

/* ---- the caller's half of the contract ---- */

/* Run one submission in a child; true: an assertion stopped it. */
static bool
dies(struct world *world, enum backend_io_kind kind, uint64_t offset_bytes, uint64_t length_bytes,
     uint64_t misalign, int twice)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        FILE *quiet = freopen("/dev/null", "w", stderr);
        (void)quiet;
        signal(SIGABRT, SIG_DFL);
        struct backend *backend = script_create(world, &script_ops);
        uint8_t *data = buffer_new(1 << 20, 1);
        struct test_io io;
        script_of(backend)->hold = twice;
        io_start(world, backend, &io, kind, offset_bytes, data + misalign, length_bytes);
        reactor_pass(world->reactor, false, 0);
        if (twice) {
            io_submit(world->reactor, backend, &io);
        }
        reactor_pass(world->reactor, false, 0);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
test_contract_violations_assert(void **state)
{
    struct world *world = *state;
    assert_false(dies(world, BACKEND_READ, 512, 1024, 512, 0));
    assert_true(dies(world, BACKEND_READ, 100, 512, 0, 0));
    assert_true(dies(world, BACKEND_READ, 0, 100, 0, 0));
    assert_true(dies(world, BACKEND_READ, 0, 0, 0, 0));
    assert_true(dies(world, BACKEND_WRITE, 0, 512, 8, 0)); /* memory alignment */
    assert_true(dies(world, BACKEND_WRITE, SCRIPT_DISK_BYTES, 512, 0, 0));
    assert_true(dies(world, BACKEND_WRITE, SCRIPT_DISK_BYTES - 512, 1024, 0, 0));
    assert_true(dies(world, BACKEND_DISCARD, UINT64_MAX - 511, 512, 0, 0));
    assert_true(dies(world, BACKEND_IO_KIND_COUNT, 0, 512, 0, 0));
    assert_true(dies(world, BACKEND_READ, 0, 512, 0, 1)); /* busy */
}

/* ---- cost ---- */

struct bench {
    struct message message;
    struct backend *backend;
    struct backend_io io;
    struct iovec iov;
    uint64_t left;
    bool direct; /* without the guard */
};

static void bench_done(struct io_op *op);

static void
bench_next(struct bench *bench)
{
    bench->io.op.done = bench_done;
    if (bench->direct) {
        bench->io.op.reactor_id = 0;
        bench->backend->ops->submit(bench->backend, &bench->io);
    } else {
        backend_submit(bench->backend, &bench->io);
    }
}

static void
bench_done(struct io_op *op)
{
    struct bench *bench = container_of(op, struct bench, io.op);
    if (--bench->left > 0) {
        bench_next(bench);
    }
}

static void
bench_start(struct message *message)
{
    bench_next(container_of(message, struct bench, message));
}

static double
bench_ns(struct world *world, struct backend *backend, bool direct)
{
    enum {
        COUNT = 2000000
    };
    struct bench bench = { .backend = backend, .left = COUNT, .direct = direct };
    uint8_t *data = buffer_new(4096, 1);
    bench.iov = (struct iovec){ data, 4096 };
    bench.io.iov = &bench.iov;
    bench.io.iov_count = 1;
    bench.io.length_bytes = 4096;
    bench.io.kind = BACKEND_READ;
    reactor_send(world->reactor, &bench.message, bench_start);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (bench.left > 0) {
        reactor_pass(world->reactor, false, 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    free(data);
    return ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) /
           COUNT;
}

static void
test_cost(void **state)
{
    struct world *world = *state;
    struct backend *backend = disk_open(world, "mem:1M", 0);
    double without_ns = bench_ns(world, backend, true);
    double with_ns = bench_ns(world, backend, false);
    print_message("4 KiB read of memory: %.0f ns without the guard, %.0f ns with it\n", without_ns,
                  with_ns);
    assert_true(with_ns - without_ns < 50000); /* a bound for sanitizers on a busy machine */
    backend_close(backend);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_by_transfer_max),
        cmocka_unit_test(test_short_transfers_are_continued),
        cmocka_unit_test(test_fua),
        cmocka_unit_test(test_zeroes),
        cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_overdue_in_order),
        cmocka_unit_test(test_deadline_of_what_comes_later),
        cmocka_unit_test(test_sync_io),
        cmocka_unit_test(test_owner_gets_everything),
        cmocka_unit_test(test_contract_violations_assert),
        cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
