/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"

enum {
    TIME_LIMIT_S = 100000, /* virtual */
};

void
machine_start(struct machine *machine, uint64_t disk_bytes)
{
    struct error error = { 0 };
    struct reactor_options options = { .cpu = -1 };

    log_set_level(LOG_LEVEL_ERROR);
    machine->sim = sim_create(&(struct sim_options){ .seed = 1 });
    sim_process_enter(machine->sim);
    ASSERT(reactor_create(sim_platform(machine->sim), &options, &machine->reactor, &error) == 0);
    sim_process_leave(machine->sim);
    for (uint32_t n = 0; n < MACHINE_DISKS; n++) {
        char path[16];
        snprintf(path, sizeof(path), "sim:%u", n);
        machine->disks[n] = sim_disk_create(
            machine->sim, path, &(struct sim_disk_properties){ .size_bytes = disk_bytes });
        sim_process_enter(machine->sim);
        ASSERT(backend_open(sim_platform(machine->sim), machine->reactor, path, 0,
                            &machine->backends[n], &error) == 0);
        sim_process_leave(machine->sim);
    }
}

struct call {
    struct message message;
    machine_call_fn *start;
    void *argument;
    bool delivered;
};

static void
call_deliver(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    call->delivered = true;
    call->start(call->argument);
}

static bool
call_is_delivered(void *context)
{
    return ((struct call *)context)->delivered;
}

void
machine_call(struct machine *machine, machine_call_fn *start, void *argument)
{
    struct call call = { .start = start, .argument = argument };

    reactor_send(machine->reactor, &call.message, call_deliver);
    ASSERT(sim_run_until(machine->sim, call_is_delivered, &call, TIME_LIMIT_S * NS_PER_S) == 0);
}

/* The mark that machine_await() looks for. */
static void
await_done(struct io_op *op)
{
    op->reactor_id = UINT32_MAX;
}

static bool
await_is_done(void *context)
{
    return ((struct io_op *)context)->reactor_id == UINT32_MAX;
}

int
machine_await(struct machine *machine, struct io_op *op, machine_call_fn *start, void *argument)
{
    op->done = await_done;
    op->reactor_id = 0;
    machine_call(machine, start, argument);
    ASSERT(sim_run_until(machine->sim, await_is_done, op, TIME_LIMIT_S * NS_PER_S) == 0);
    return op->result;
}

void
machine_expect_no_leak(struct machine *machine)
{
    ASSERT(sim_quiesce(machine->sim, TIME_LIMIT_S * NS_PER_S) == 0);
    uint64_t blocks = sim_process_blocks(machine->sim);
    if (machine->blocks == 0) {
        machine->blocks = blocks;
    }
    ASSERT_OP(blocks, ==, machine->blocks);
}

/* ---- inputs ---- */

const uint8_t *
input_take(struct input *input, size_t wanted, size_t *ret_length)
{
    const uint8_t *data = input->data;
    *ret_length = MIN(wanted, input->left);
    input->data += *ret_length;
    input->left -= *ret_length;
    return data;
}

static uint32_t
input_number(struct input *input, size_t width)
{
    uint8_t bytes[sizeof(uint32_t)] = { 0 };
    size_t length;
    const uint8_t *data = input_take(input, width, &length);
    memcpy(bytes, data, length);
    return get_le32(bytes);
}

uint8_t
input_u8(struct input *input)
{
    return (uint8_t)input_number(input, sizeof(uint8_t));
}

uint16_t
input_le16(struct input *input)
{
    return (uint16_t)input_number(input, sizeof(uint16_t));
}

uint32_t
input_le32(struct input *input)
{
    return input_number(input, sizeof(uint32_t));
}

/* ---- images ---- */

struct image
image_create(size_t length_bytes)
{
    struct image image = { .bytes = calloc(1, length_bytes), .length_bytes = length_bytes };
    ASSERT(image.bytes != NULL && is_aligned(length_bytes, IMAGE_BLOCK_BYTES));
    return image;
}

void
image_copy(struct image *to, const struct image *from)
{
    ASSERT_OP(to->length_bytes, ==, from->length_bytes);
    memcpy(to->bytes, from->bytes, from->length_bytes);
}

/*
 * A command: u8, of which bits 0-2 are the action, 3-5 the kind of repair, 6 the image, 7 all
 * images; then what the action needs.
 */
enum action {
    ACTION_FLIP,  /* le32 bit of the image */
    ACTION_CLEAR, /* le16 first block, u8 number of blocks */
    ACTION_COPY,  /* le16 from, le16 to, u8 number of blocks, u8 image they come from */
    ACTION_AGE,   /* le16 first block, u8 number of blocks: as they were at the earlier time */
    ACTION_PUT,   /* le16 block, le16 length, bytes; the rest of the block is cleared */
    ACTION_PATCH, /* le16 block, le16 offset in it, u8 length, bytes; the rest stays */
    ACTION_COUNT,
};

struct block_range {
    size_t start;
    size_t length;
};

static struct block_range
take_range(struct input *input, const struct image *image)
{
    size_t blocks = image->length_bytes / IMAGE_BLOCK_BYTES;
    size_t first = input_le16(input) % blocks;
    size_t count = MIN((size_t)input_u8(input) + 1, blocks - first);
    return (struct block_range){ first * IMAGE_BLOCK_BYTES, count * IMAGE_BLOCK_BYTES };
}

static void
flip(struct image *image, struct input *input)
{
    uint64_t bit = input_le32(input) % (image->length_bytes * 8);
    image->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

static void
copy_blocks(const struct recipe *recipe, struct image *image, struct input *input)
{
    size_t blocks = image->length_bytes / IMAGE_BLOCK_BYTES;
    size_t from = input_le16(input) % blocks;
    size_t to = input_le16(input) % blocks;
    size_t count = MIN((size_t)input_u8(input) + 1, blocks - MAX(from, to));
    const struct image *source = &recipe->images[input_u8(input) % recipe->image_count];
    memmove(image->bytes + to * IMAGE_BLOCK_BYTES, source->bytes + from * IMAGE_BLOCK_BYTES,
            count * IMAGE_BLOCK_BYTES);
}

/* What brings bytes of the input. */
static void
write_bytes(const struct recipe *recipe, struct image *image, struct input *input,
            enum action action, uint8_t kind)
{
    size_t blocks = image->length_bytes / IMAGE_BLOCK_BYTES;
    size_t start = input_le16(input) % blocks * IMAGE_BLOCK_BYTES;
    size_t at = start;
    size_t length;
    if (action == ACTION_PUT) {
        length = input_le16(input) % (IMAGE_BLOCK_BYTES + 1);
        memset(image->bytes + start, 0, IMAGE_BLOCK_BYTES);
    } else {
        at += input_le16(input) % IMAGE_BLOCK_BYTES;
        length = MIN((size_t)input_u8(input), start + IMAGE_BLOCK_BYTES - at);
    }
    const uint8_t *data = input_take(input, length, &length);
    memcpy(image->bytes + at, data, length);
    if (recipe->fix != NULL) {
        recipe->fix(image, start, kind);
    }
}

static void
follow_one(const struct recipe *recipe, struct image *image, struct input *input, uint8_t command)
{
    enum action action = (enum action)((command & 7) % ACTION_COUNT);
    struct block_range range;

    switch (action) {
    case ACTION_FLIP:
        flip(image, input);
        break;
    case ACTION_CLEAR:
        range = take_range(input, image);
        memset(image->bytes + range.start, 0, range.length);
        break;
    case ACTION_COPY:
        copy_blocks(recipe, image, input);
        break;
    case ACTION_AGE:
        range = take_range(input, image);
        if (recipe->older != NULL) {
            const struct image *older = &recipe->older[image - recipe->images];
            memcpy(image->bytes + range.start, older->bytes + range.start, range.length);
        }
        break;
    case ACTION_PUT:
    case ACTION_PATCH:
        if (recipe->fix != NULL) {
            write_bytes(recipe, image, input, action, (command >> 3) & 7);
        }
        break;
    case ACTION_COUNT:
        break;
    }
}

void
recipe_follow(const struct recipe *recipe, struct input *input)
{
    for (uint32_t n = 0; n < RECIPE_COMMANDS_MAX && input->left > 0; n++) {
        uint8_t command = input_u8(input);
        struct input arguments = *input;
        for (uint32_t image = 0; image < recipe->image_count; image++) {
            bool is_meant = (command & 0x80) != 0
                || image == (uint32_t)(command >> 6 & 1) % recipe->image_count;
            if (is_meant) {
                *input = arguments;
                follow_one(recipe, &recipe->images[image], input, command);
            }
        }
    }
}
