/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations of many sizes and depths on one disk, compared with a model in memory. May be
 * run in slices, with other things done to the disk meanwhile.
 */
#ifndef TESTS_UNIT_BACKENDS_RANDOM_IO_H
#define TESTS_UNIT_BACKENDS_RANDOM_IO_H

#include "tests/unit/backends/support.h"

#include "base/random.h"

enum {
    RANDOM_IO_DEPTH = 24,
    RANDOM_IO_BYTES_MAX = 1536 << 10,
    RANDOM_IO_IOV_MAX = 24,
};

struct random_io_slot {
    struct test_io io;
    struct iovec iov[RANDOM_IO_IOV_MAX];
    uint8_t *buffer;
    bool busy;
};

struct random_io {
    struct world *world;
    struct backend *backend;
    struct random random;
    uint8_t *model;
    uint8_t *known; /* per block: the model says what is there */
    uint64_t size_bytes;
    uint32_t block_bytes;
    bool tolerate_flush_errors;
    uint64_t started;
    uint64_t reads_checked;
    uint64_t flush_errors;
    struct random_io_slot slots[RANDOM_IO_DEPTH];
};

/* Everything on the disk counts as unknown at first. */
struct random_io *random_io_create(struct world *world, struct backend *backend, uint64_t seed);
/* Start `count` operations, as the depth allows. */
void random_io_run(struct random_io *work, uint64_t count);
/* Wait for what is in flight. */
void random_io_drain(struct random_io *work);
/* Read everything that is known and compare. */
void random_io_verify(struct random_io *work);
void random_io_free(struct random_io *work);

#endif
