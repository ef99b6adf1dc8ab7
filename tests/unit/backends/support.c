/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backends/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "base/util.h"

void
world_open(struct world *world)
{
    struct error error = { 0 };
    memset(world, 0, sizeof(*world));
    snprintf(world->volatile_directory, SUPPORT_PATH_SIZE, "/dev/shm/volmgr-test-%d", getpid());
    snprintf(world->directory, SUPPORT_PATH_SIZE, "/var/tmp/volmgr-test-%d", getpid());
    mkdir(world->volatile_directory, 0700);
    mkdir(world->directory, 0700);
    if (platform_uring_create(world->volatile_directory, &world->platform, &error) < 0) {
        fail_msg("platform: %s", error.message);
    }
    struct reactor_options options = { .id = 0, .cpu = -1 };
    if (reactor_create(world->platform, &options, &world->reactor, &error) < 0) {
        fail_msg("reactor: %s", error.message);
    }
}

void
world_close(struct world *world)
{
    support_pump(world, 5); /* forgotten polls end */
    reactor_destroy(world->reactor);
    platform_uring_destroy(world->platform);
    command("rm -rf %s %s", world->volatile_directory, world->directory);
}

uint64_t
support_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void
support_pump(struct world *world, uint32_t milliseconds)
{
    uint64_t end_ms = support_now_ms() + milliseconds;
    do {
        reactor_pass(world->reactor, true, NS_PER_MS);
    } while (support_now_ms() < end_ms);
}

static uint64_t
next_order(void)
{
    static uint64_t order;
    return __atomic_add_fetch(&order, 1, __ATOMIC_RELAXED);
}

static void
test_io_done(struct io_op *op)
{
    struct test_io *io = container_of(op, struct test_io, io.op);
    io->ended_order = next_order();
    __atomic_store_n(&io->ended, true, __ATOMIC_RELEASE);
}

static void
test_io_overdue(struct backend_io *backend_io)
{
    struct test_io *io = container_of(backend_io, struct test_io, io);
    io->overdue_calls++;
    io->overdue_order = next_order();
}

static void
test_io_submit(struct message *message)
{
    struct test_io *io = container_of(message, struct test_io, message);
    backend_submit(io->backend, &io->io);
}

void
io_submit(struct reactor *reactor, struct backend *backend, struct test_io *io)
{
    io->backend = backend;
    io->ended = false;
    io->overdue_calls = 0;
    io->io.op.done = test_io_done;
    io->io.overdue = test_io_overdue;
    reactor_send(reactor, &io->message, test_io_submit);
}

void
io_start(struct world *world, struct backend *backend, struct test_io *io,
         enum backend_io_kind kind, uint64_t offset_bytes, void *buffer, uint64_t length_bytes)
{
    memset(io, 0, sizeof(*io));
    io->io.kind = kind;
    io->io.offset_bytes = offset_bytes;
    io->io.length_bytes = length_bytes;
    if (buffer != NULL) {
        io->iov = (struct iovec){ .iov_base = buffer, .iov_len = length_bytes };
        io->io.iov = &io->iov;
        io->io.iov_count = 1;
    }
    io_submit(world->reactor, backend, io);
}

int
io_wait(struct world *world, struct test_io *io)
{
    uint64_t end_ms = support_now_ms() + 60000;
    while (!__atomic_load_n(&io->ended, __ATOMIC_ACQUIRE)) {
        reactor_pass(world->reactor, true, NS_PER_MS);
        if (support_now_ms() > end_ms) {
            fail_msg("an operation (kind %d) does not end", (int)io->io.kind);
        }
    }
    return io->io.op.result;
}

int
io_do(struct world *world, struct backend *backend, enum backend_io_kind kind,
      uint64_t offset_bytes, void *buffer, uint64_t length_bytes)
{
    struct test_io *io = calloc(1, sizeof(*io));
    io_start(world, backend, io, kind, offset_bytes, buffer, length_bytes);
    int result = io_wait(world, io);
    free(io);
    return result;
}

void
buffer_fill(uint8_t *buffer, uint64_t bytes, uint64_t seed)
{
    uint64_t value = hash_u64(seed + 1);
    assert_true(bytes % 8 == 0);
    for (uint64_t i = 0; i < bytes; i += 8) {
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(buffer + i, &value, 8);
    }
}

uint8_t *
buffer_new(uint64_t bytes, uint64_t seed)
{
    uint8_t *buffer = aligned_alloc(4096, align_up(bytes, 4096));
    assert_non_null(buffer);
    buffer_fill(buffer, bytes, seed);
    return buffer;
}

struct backend *
disk_open(struct world *world, const char *spec, uint32_t flags)
{
    struct error error = { 0 };
    struct backend *backend = NULL;
    int result = backend_open(world->platform, world->reactor, spec, flags, &backend, &error);
    if (result < 0) {
        fail_msg("%s: %d: %s", spec, result, error.message);
    }
    return backend;
}

bool
command(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    char quiet[sizeof(text) + 32];
    snprintf(quiet, sizeof(quiet), "%s >/dev/null 2>&1", text);
    return system(quiet) == 0;
}

bool
command_output(char *line, size_t size, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    FILE *output = popen(text, "r");
    if (output == NULL) {
        return false;
    }
    line[0] = '\0';
    char *got = fgets(line, (int)size, output);
    line[strcspn(line, "\n")] = '\0';
    return pclose(output) == 0 && got != NULL;
}
