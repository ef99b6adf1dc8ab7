/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A healthy example database, and a generator of every kind of damage that the checker knows. Tests
 * only.
 */
#ifndef TESTS_UNIT_METADATA_DAMAGE_H
#define TESTS_UNIT_METADATA_DAMAGE_H

#include "metadata/check.h"

enum {
    EXAMPLE_EXTENT_BYTES = 4 << 20,
    EXAMPLE_GRAINS = EXAMPLE_EXTENT_BYTES / GRAIN_BYTES,
    /* Branches: the line of volume 1, a clone of it, and a small volume in shared extents. */
    EXAMPLE_BRANCH = 1,
    EXAMPLE_CLONE = 2,
    EXAMPLE_SMALL = 3,
    EXAMPLE_FORK_GENERATION = 2,
    /* Extents: two of the branch, one of the clone, one shared, one of a checkpoint. */
    EXAMPLE_EXTENT_A = 1,
    EXAMPLE_EXTENT_B = 2,
    EXAMPLE_EXTENT_CLONE = 3,
    EXAMPLE_EXTENT_SHARED = 4,
    EXAMPLE_EXTENT_CHECKPOINT = 5,
};

/* Append the example to `batch`: the checker finds nothing in it. */
void example_build(struct byte_buffer *batch);
void example_label(uint16_t disk, struct label *ret_label);

struct damage {
    const char *name;
    enum check_code code; /* that must be found */
    enum check_severity severity;
    bool repairable;
    void (*apply)(struct byte_buffer *batch); /* to a database that holds the example */
};
extern const struct damage damages[];
extern const size_t damage_count;

#endif
