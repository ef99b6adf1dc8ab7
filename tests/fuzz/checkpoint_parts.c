/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint of three parts on two disks, for the reader. First byte: bit 0, begin with a good
 * checkpoint (made here, after docs/FORMAT.md), else with empty slots; bit 1, only damage. Then a
 * recipe over both disks, of which repairs are: 1 the CRC of a part's header; 2 that of a frame; 3
 * and 4 the same, with the right guids. The older image is of an earlier checkpoint in the same
 * places.
 *
 * After damage alone what is handed over is the beginning of what was written, and all of it when
 * the read succeeds, which it must when one disk is whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "metadata/checkpoint.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"

enum {
    DISKS = MACHINE_DISKS,
    PARTS = 3,
    PART_BYTES = 32 << 10,
    FRAMES_PER_PART = 3,
    SLOTS_START = 64 << 10,
    IMAGE_BYTES = PARTS * PART_BYTES,
    DISK_BYTES = 1 << 20,
    COMMIT = 4711,
    BLOCK = IMAGE_BLOCK_BYTES,
    FRAME_HEADER = 64,
    PLACES_OWN = 100,
    PLACES_NEXT = 120,
};

struct bench {
    struct machine machine;
    struct image images[DISKS];
    struct image genuine[DISKS];
    struct image older[DISKS];
    struct byte_buffer stream; /* all batches of the genuine checkpoint */
    struct checkpoint_read read;
    size_t taken_bytes;
    uint64_t items;
    bool only_damage;
};

/* The callbacks and repairs of a target have no other way to it. */
static struct bench bench;

/* Where a part lies: elsewhere on each disk. */
static uint32_t
slot_of(uint32_t part, uint32_t disk)
{
    return (part + 2 * disk) % PARTS;
}

/* ---- a checkpoint, by the book ---- */

struct chain {
    uint64_t commit;
    uint64_t frame;
    uint64_t items;
    uint32_t stream_crc;
};

static void
put_places(uint8_t *to, uint32_t part)
{
    put_le16(to, DISKS);
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        put_le16(to + 2 + disk * 6, (uint16_t)disk);
        put_le32(to + 4 + disk * 6, slot_of(part, disk));
    }
}

static void
seal_header(uint8_t *block)
{
    put_le32(block + 8, crc32c(0, block + 12, BLOCK - 12));
}

static void
seal_frame(uint8_t *frame, size_t room_bytes)
{
    size_t batch_bytes = get_le32(frame + 36);
    if (batch_bytes <= room_bytes - FRAME_HEADER) {
        put_le32(frame + 4, crc32c(0, frame + 8, FRAME_HEADER - 8 + batch_bytes));
    }
}

static uint32_t
fill_batch(struct byte_buffer *batch, uint64_t frame, uint64_t commit)
{
    struct random random;
    random_seed(&random, frame * 7 + commit);
    uint32_t items = 1 + (uint32_t)random_below(&random, 40);
    for (uint32_t n = 0; n < items; n++) {
        uint8_t key[16];
        uint8_t value[128];
        put_be64(key, frame);
        put_be64(key + 8, n);
        memset(value, (int)(random_u64(&random) & 0xff), sizeof(value));
        store_batch_put(batch, (enum store_family)(n * STORE_FAMILY_COUNT / items), key,
                        sizeof(key), value,
                        random_below(&random, sizeof(value)));
    }
    return items;
}

/* Frames of a part at `part`; returns the bytes used, the header's block included. */
static size_t
build_frames(uint8_t *part, struct chain *chain)
{
    size_t at = BLOCK;
    for (uint32_t n = 0; n < FRAMES_PER_PART; n++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        uint8_t *frame = part + at;
        uint32_t items = fill_batch(&batch, chain->frame, chain->commit);
        memcpy(frame, "VMCF", 4);
        memset(frame + 8, (int)(chain->commit & 0xff), GUID_BYTES);
        put_le64(frame + 24, chain->frame++);
        put_le32(frame + 32, items);
        put_le32(frame + 36, (uint32_t)batch.length_bytes);
        memcpy(frame + FRAME_HEADER, batch.data, batch.length_bytes);
        seal_frame(frame, PART_BYTES - at);
        chain->items += items;
        chain->stream_crc = crc32c(chain->stream_crc, frame + 4, 4);
        at += align_up(FRAME_HEADER + batch.length_bytes, BLOCK);
        if (chain->commit == COMMIT) {
            byte_buffer_append(&bench.stream, batch.data, batch.length_bytes);
        }
        byte_buffer_free(&batch);
    }
    return at;
}

static void
build_part(uint8_t *part, uint32_t number, struct chain *chain)
{
    uint64_t first_frame = chain->frame;
    size_t used_bytes = build_frames(part, chain);
    memcpy(part, "VOLMGRCP", 8);
    put_le32(part + 12, 1);
    memset(part + 16, 7, GUID_BYTES);
    memset(part + 32, (int)(chain->commit & 0xff), GUID_BYTES);
    put_le64(part + 48, chain->commit);
    put_le32(part + 56, number);
    put_le32(part + 60, number == PARTS - 1);
    put_le64(part + 64, first_frame);
    put_le64(part + 72, chain->frame - first_frame);
    put_le64(part + 80, used_bytes);
    put_le64(part + 88, chain->items);
    put_le32(part + 96, chain->stream_crc);
    put_places(part + PLACES_OWN, number);
    if (number + 1 < PARTS) {
        put_places(part + PLACES_NEXT, number + 1);
    }
    seal_header(part);
}

static void
build(struct image *images, uint64_t commit)
{
    struct chain chain = { .commit = commit };
    for (uint32_t number = 0; number < PARTS; number++) {
        uint8_t *part = calloc(1, PART_BYTES);
        ASSERT(part != NULL);
        build_part(part, number, &chain);
        for (uint32_t disk = 0; disk < DISKS; disk++) {
            memcpy(images[disk].bytes + (size_t)slot_of(number, disk) * PART_BYTES, part,
                   PART_BYTES);
        }
        free(part);
    }
}

static void
fix(struct image *image, size_t offset_bytes, uint8_t kind)
{
    uint8_t *block = image->bytes + offset_bytes;
    if (kind == 3) {
        memset(block + 16, 7, GUID_BYTES);
        memset(block + 32, COMMIT & 0xff, GUID_BYTES);
    } else if (kind == 4) {
        memset(block + 8, COMMIT & 0xff, GUID_BYTES);
    }
    if (kind == 1 || kind == 3) {
        seal_header(block);
    } else if (kind == 2 || kind == 4) {
        seal_frame(block, image->length_bytes - offset_bytes);
    }
}

/* ---- reading ---- */

static int
resolve(struct checkpoint_read *read, struct extent_place place, struct backend **ret_backend,
        uint64_t *ret_offset_bytes)
{
    (void)read;
    if (place.disk >= DISKS || place.slot >= PARTS) {
        return -ENODEV;
    }
    *ret_backend = bench.machine.backends[place.disk];
    *ret_offset_bytes = SLOTS_START + (uint64_t)place.slot * PART_BYTES;
    return 0;
}

static void
take_batch(struct checkpoint_read *read, const struct byte_buffer *batch)
{
    struct store_batch_item item;
    size_t position = 0;
    int more;
    while ((more = store_batch_next(batch->data, batch->length_bytes, &position, &item)) == 1) {
        ASSERT_OP((int)item.operation, ==, (int)STORE_PUT);
        bench.items++;
    }
    ASSERT_OP(more, ==, 0);
    if (bench.only_damage) {
        ASSERT_OP(bench.taken_bytes + batch->length_bytes, <=, bench.stream.length_bytes);
        ASSERT(memcmp(bench.stream.data + bench.taken_bytes, batch->data, batch->length_bytes)
               == 0);
    }
    bench.taken_bytes += batch->length_bytes;
    checkpoint_read_next(read, 0);
}

static void
start_read(void *argument)
{
    checkpoint_read(argument);
}

static int
read_all(void)
{
    bench.taken_bytes = 0;
    bench.items = 0;
    bench.read = (struct checkpoint_read){
        .commit = COMMIT, .part_bytes = PART_BYTES, .resolve = resolve, .batch = take_batch,
        .first_count = DISKS,
    };
    memset(bench.read.pool_guid, 7, GUID_BYTES);
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        bench.read.first[disk] = (struct extent_place){ (uint16_t)disk, slot_of(0, disk) };
    }
    return machine_await(&bench.machine, &bench.read.op, start_read, &bench.read);
}

static void
start(void)
{
    machine_start(&bench.machine, DISK_BYTES);
    for (uint32_t n = 0; n < DISKS; n++) {
        bench.images[n] = image_create(IMAGE_BYTES);
        bench.genuine[n] = image_create(IMAGE_BYTES);
        bench.older[n] = image_create(IMAGE_BYTES);
    }
    build(bench.older, COMMIT - 1);
    build(bench.genuine, COMMIT);
}

static void
expect_genuine(int result)
{
    for (uint32_t n = 0; n < DISKS; n++) {
        if (memcmp(bench.images[n].bytes, bench.genuine[n].bytes, IMAGE_BYTES) == 0) {
            ASSERT_OP(result, ==, 0);
        }
    }
    if (result == 0) {
        ASSERT_OP(bench.taken_bytes, ==, bench.stream.length_bytes);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };

    if (bench.machine.sim == NULL) {
        start();
    }
    uint8_t mode = input_u8(&input);
    bench.only_damage = (mode & 3) == 3;
    for (uint32_t n = 0; n < DISKS; n++) {
        if ((mode & 1) != 0) {
            image_copy(&bench.images[n], &bench.genuine[n]);
        } else {
            memset(bench.images[n].bytes, 0, IMAGE_BYTES);
        }
    }
    recipe_follow(&(struct recipe){ .images = bench.images, .image_count = DISKS,
                                    .older = bench.older,
                                    .fix = bench.only_damage ? NULL : fix },
                  &input);
    for (uint32_t n = 0; n < DISKS; n++) {
        sim_disk_poke(bench.machine.disks[n], SLOTS_START, bench.images[n].bytes, IMAGE_BYTES);
    }
    int result = read_all();
    ASSERT(result == 0 || result == -ENOENT || result == -EUCLEAN);
    if (result == 0) {
        ASSERT_OP(bench.read.ret_item_count, ==, bench.items);
    }
    if (bench.only_damage) {
        expect_genuine(result);
    }
    machine_expect_no_leak(&bench.machine);
    return 0;
}
