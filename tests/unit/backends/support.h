/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of backends share: a platform, a reactor turned by hand, and waiting for I/O. */
#ifndef TESTS_UNIT_BACKENDS_SUPPORT_H
#define TESTS_UNIT_BACKENDS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "io/platform.h"
#include "io/reactor.h"

enum {
    SUPPORT_PATH_SIZE = 256
};

struct world {
    struct platform *platform;
    struct reactor *reactor; /* id 0; no thread: support_pump() turns it */
    char volatile_directory[SUPPORT_PATH_SIZE];
    char directory[SUPPORT_PATH_SIZE]; /* on a disk */
};

void world_open(struct world *world);
void world_close(struct world *world);

/* One operation, and what became of it. */
struct test_io {
    struct backend_io io;
    struct backend *backend;
    struct message message;
    struct iovec iov;
    bool ended;
    uint32_t overdue_calls;
    uint64_t ended_order; /* from a counter shared by all */
    uint64_t overdue_order;
};

/* Fill in and submit on the reactor of the world; returns at once. `buffer` may be NULL. */
void io_start(struct world *world, struct backend *backend, struct test_io *io,
              enum backend_io_kind kind, uint64_t offset_bytes, void *buffer,
              uint64_t length_bytes);
/* As io_start, with the fields of io->io already set. */
void io_submit(struct reactor *reactor, struct backend *backend, struct test_io *io);
/* Turn the loop until it has ended; fails the test after 60 s. Returns the result. */
int io_wait(struct world *world, struct test_io *io);
/* Both. */
int io_do(struct world *world, struct backend *backend, enum backend_io_kind kind,
          uint64_t offset_bytes, void *buffer, uint64_t length_bytes);
/* Turn the loop for a while. */
void support_pump(struct world *world, uint32_t milliseconds);
uint64_t support_now_ms(void);

/* Aligned memory filled from a seed; free() it. */
uint8_t *buffer_new(uint64_t bytes, uint64_t seed);
void buffer_fill(uint8_t *buffer, uint64_t bytes, uint64_t seed);

/* Open or fail the test with the message. */
struct backend *disk_open(struct world *world, const char *spec, uint32_t flags);

/* Run a shell command; true: it succeeded. */
bool command(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* First line of a command's output; false: it failed. */
bool command_output(char *line, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
