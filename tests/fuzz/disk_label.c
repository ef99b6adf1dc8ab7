/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends of a disk, as label_read() sees them. First byte: bit 0, begin with a disk that has been
 * labelled five times, else with an empty one; bit 1, only damage. Then a recipe over one image:
 * the first 128 KiB of the disk and its last 64 KiB. A repair of any kind is the CRC of a label.
 *
 * After damage alone, the newest label of which one block is whole must be found, and no other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/label.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"

enum {
    DISK_BYTES = 8 << 20,
    HEAD_BYTES = 128 << 10,
    IMAGE_BYTES = HEAD_BYTES + LABEL_PLACE_BYTES,
    GENERATIONS = 5,
    CRC_AT = 8,
};

struct bench {
    struct machine machine;
    struct image image;
    struct image genuine;
    uint8_t blocks[GENERATIONS][LABEL_BYTES]; /* what was written, by generation less one */
    struct label_read read;
    struct label_write write;
    struct label label;
};

static void
fix(struct image *image, size_t offset_bytes, uint8_t kind)
{
    uint8_t *block = image->bytes + offset_bytes;
    if (kind != 0) {
        put_le32(block + CRC_AT, 0);
        put_le32(block + CRC_AT, crc32c(0, block, LABEL_BYTES));
    }
}

static void
start_read(void *argument)
{
    label_read(argument);
}

static void
start_write(void *argument)
{
    label_write(argument);
}

static void
poke(struct bench *bench, const struct image *image)
{
    sim_disk_poke(bench->machine.disks[0], 0, image->bytes, HEAD_BYTES);
    sim_disk_poke(bench->machine.disks[0], DISK_BYTES - LABEL_PLACE_BYTES,
                  image->bytes + HEAD_BYTES, LABEL_PLACE_BYTES);
}

static void
start(struct bench *bench)
{
    machine_start(&bench->machine, DISK_BYTES);
    bench->image = image_create(IMAGE_BYTES);
    bench->genuine = image_create(IMAGE_BYTES);
    struct label *label = &bench->label;
    ASSERT(label_layout(DISK_BYTES, EXTENT_BYTES_MIN, true, label) == 0);
    memcpy(label->pool_name, "tank", sizeof("tank"));
    memset(label->pool_guid, 7, GUID_BYTES);
    memset(label->disk_guid, 8, GUID_BYTES);
    label->disk_count = 2;
    for (uint32_t n = 0; n < GENERATIONS; n++) {
        label->incarnation = n;
        bench->write = (struct label_write){ .backend = bench->machine.backends[0],
                                             .label = label };
        ASSERT(machine_await(&bench->machine, &bench->write.op, start_write, &bench->write) == 0);
        label_encode(label, bench->blocks[n]);
    }
    sim_disk_peek(bench->machine.disks[0], 0, bench->genuine.bytes, HEAD_BYTES);
    sim_disk_peek(bench->machine.disks[0], DISK_BYTES - LABEL_PLACE_BYTES,
                  bench->genuine.bytes + HEAD_BYTES, LABEL_PLACE_BYTES);
}

static int
look(struct bench *bench)
{
    bench->read = (struct label_read){ .backend = bench->machine.backends[0] };
    return machine_await(&bench->machine, &bench->read.op, start_read, &bench->read);
}

/* The newest generation of which a whole block is in some slot; 0: none. */
static uint32_t
newest_whole(const struct bench *bench)
{
    static const size_t places[] = { 0, HEAD_BYTES };
    for (uint32_t generation = GENERATIONS; generation > 0; generation--) {
        for (size_t slot = 0; slot < LABEL_SLOTS * ARRAY_SIZE(places); slot++) {
            size_t at = places[slot / LABEL_SLOTS] + slot % LABEL_SLOTS * LABEL_BYTES;
            if (memcmp(bench->image.bytes + at, bench->blocks[generation - 1], LABEL_BYTES) == 0) {
                return generation;
            }
        }
    }
    return 0;
}

static void
expect_newest(const struct bench *bench, int result)
{
    uint8_t block[LABEL_BYTES];
    uint32_t generation = newest_whole(bench);
    if (generation == 0) {
        ASSERT(result == -ENOENT || result == -EBADMSG);
        return;
    }
    ASSERT_OP(result, ==, 0);
    label_encode(&bench->read.ret_label, block);
    ASSERT(memcmp(block, bench->blocks[generation - 1], LABEL_BYTES) == 0);
}

/* A label that was accepted can be written again, and is then the newest. */
static void
expect_successor(struct bench *bench)
{
    struct label *label = &bench->read.ret_label;
    if (label->size_bytes > DISK_BYTES || label->generation == UINT64_MAX - 1) {
        return; /* of a larger disk, to which nobody writes; or the last there can be */
    }
    bench->label = *label;
    bench->write = (struct label_write){ .backend = bench->machine.backends[0],
                                         .label = &bench->label };
    ASSERT(machine_await(&bench->machine, &bench->write.op, start_write, &bench->write) == 0);
    if (label->size_bytes == DISK_BYTES) {
        ASSERT_OP(look(bench), ==, 0);
        ASSERT_OP(bench->read.ret_label.generation, ==, bench->label.generation);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench bench;
    struct input input = { data, size };

    if (bench.machine.sim == NULL) {
        start(&bench);
    }
    uint8_t mode = input_u8(&input);
    bool only_damage = (mode & 3) == 3;
    if ((mode & 1) != 0) {
        image_copy(&bench.image, &bench.genuine);
    } else {
        memset(bench.image.bytes, 0, bench.image.length_bytes);
    }
    recipe_follow(&(struct recipe){ .images = &bench.image, .image_count = 1,
                                    .fix = only_damage ? NULL : fix },
                  &input);
    poke(&bench, &bench.image);
    int result = look(&bench);
    ASSERT(memchr(bench.read.ret_foreign.what, '\0', sizeof(bench.read.ret_foreign.what)) != NULL);
    if (only_damage) {
        expect_newest(&bench, result);
    } else if (result == 0) {
        expect_successor(&bench);
    }
    machine_expect_no_leak(&bench.machine);
    return 0;
}
