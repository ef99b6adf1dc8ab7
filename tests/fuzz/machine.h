/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For fuzz targets that look at disks: a simulated machine with one reactor and two disks, which
 * lives as long as the fuzzer, and inputs that are recipes for what lies on the disks.
 *
 * An image is a copy of some area of a disk. A recipe is a sequence of commands that change images:
 * bits flipped, blocks cleared, copied, put back from an older time, or written with bytes of the
 * input, with checksums made right where the command asks for it. So the fuzzer reaches what lies
 * behind the checksums, and a target may also say what no damage may lead to.
 */
#ifndef TESTS_FUZZ_MACHINE_H
#define TESTS_FUZZ_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/backend.h"
#include "io/reactor.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"

enum {
    MACHINE_DISKS = 2,
    IMAGE_BLOCK_BYTES = 4096,
    RECIPE_COMMANDS_MAX = 64,
};

struct machine {
    struct sim *sim;
    struct reactor *reactor;
    struct sim_disk *disks[MACHINE_DISKS];
    struct backend *backends[MACHINE_DISKS];
    uint64_t blocks; /* of memory that the process holds between two inputs */
};

void machine_start(struct machine *machine, uint64_t disk_bytes);
/* Call start(argument) on the reactor and run until `op` is done; returns its result. */
typedef void machine_call_fn(void *argument);
int machine_await(struct machine *machine, struct io_op *op, machine_call_fn *start,
                  void *argument);
/* The same for what is done when it returns. */
void machine_call(struct machine *machine, machine_call_fn *call, void *argument);
/* What product code allocated since the call before has been freed: else abort. */
void machine_expect_no_leak(struct machine *machine);

/* ---- inputs ---- */

struct input {
    const uint8_t *data;
    size_t left;
};

/* What is not there reads as zeroes. */
uint8_t input_u8(struct input *input);
uint16_t input_le16(struct input *input);
uint32_t input_le32(struct input *input);
/* At most `wanted` bytes; moves behind them. */
const uint8_t *input_take(struct input *input, size_t wanted, size_t *ret_length);

/* ---- images ---- */

struct image {
    uint8_t *bytes;
    size_t length_bytes; /* whole blocks */
};

struct image image_create(size_t length_bytes);
void image_copy(struct image *to, const struct image *from);

/*
 * Make checksums of the structure that begins at `offset_bytes` right; `kind` (0 to 7) is the
 * input's, and means what the target wants.
 */
typedef void image_fix_fn(struct image *image, size_t offset_bytes, uint8_t kind);

struct recipe {
    struct image *images; /* that it changes */
    uint32_t image_count;
    const struct image *older; /* the same areas at an earlier time, or NULL */
    image_fix_fn *fix;         /* NULL: the recipe only damages, and brings no bytes of its own */
};

/* Follow the input to its end. */
void recipe_follow(const struct recipe *recipe, struct input *input);

#endif
