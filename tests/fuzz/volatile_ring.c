/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a volatile journal, as the next start finds it. First byte: bit 0, begin with a
 * ring that the product has written (bits 2-4: how far it had come), else with zeroes; bit 1, only
 * damage. Then a recipe over the ring, whose repairs are: 1 the CRC of the header; 2 the CRCs of
 * all records that a block has a part of; 3 the check bits of the number of the oldest record.
 *
 * After damage alone only records that were written come, in their order, from the oldest on; they
 * may end early only where nothing whole follows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "io/platform.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"
#include "tests/unit/metadata/private_doors.h"

enum {
    IMAGE_BYTES = (DOOR_RING_BYTES + IMAGE_BLOCK_BYTES - 1) / IMAGE_BLOCK_BYTES * IMAGE_BLOCK_BYTES,
    STAGES = 8,
    HEADER_CRC_AT = 12,
    NUMBER_BITS = 48, /* of the oldest record; check bits above */
};
#define NUMBER_MASK ((UINT64_C(1) << NUMBER_BITS) - 1)

/* Appended and committed records at each stage. */
static const uint64_t stages[STAGES][2] = {
    { 0, 0 },     { 1, 0 },       { 60, 0 },      { 128, 0 },
    { 128, 128 }, { 190, 120 }, { 1000, 900 }, { 1100, 1100 },
};

struct bench {
    struct machine machine;
    struct image image;
    struct image genuine[STAGES];
    uint64_t next_sequence;
    uint64_t replayed;
    bool only_damage;
};

static void
fix(struct image *image, size_t offset_bytes, uint8_t kind)
{
    if (kind == 1) {
        put_le32(image->bytes + HEADER_CRC_AT, 0);
        put_le32(image->bytes + HEADER_CRC_AT, crc32c(0, image->bytes, DOOR_RING_TAIL_AT));
        return;
    }
    if (kind == 3) {
        uint8_t *tail = image->bytes + DOOR_RING_TAIL_AT;
        put_le16(tail + NUMBER_BITS / 8, (uint16_t)crc32c(0, tail, NUMBER_BITS / 8));
    }
    for (size_t n = 0; n < DOOR_RING_RECORDS && kind == 2; n++) {
        size_t at = DOOR_RING_HEADER_BYTES + n * DOOR_RING_RECORD_BYTES;
        if (at + DOOR_RING_RECORD_BYTES > offset_bytes && at < offset_bytes + IMAGE_BLOCK_BYTES) {
            put_le32(image->bytes + at,
                     crc32c(0, image->bytes + at + 4, DOOR_RING_RECORD_BYTES - 4));
        }
    }
}

static int
take_record(void *context, const struct door_ring_record *record)
{
    struct bench *bench = context;
    ASSERT_OP(record->sequence, ==, bench->next_sequence);
    bench->next_sequence++;
    bench->replayed++;
    ASSERT_OP(bench->replayed, <=, (uint64_t)DOOR_RING_RECORDS);
    if (bench->only_damage) {
        struct door_ring_record written;
        door_ring_record(record->sequence, &written);
        ASSERT(memcmp(&written, record, sizeof(written)) == 0);
    }
    return 0;
}

/* Put the image where the platform keeps it. */
static void
lay_down(struct bench *bench)
{
    struct platform *platform = sim_platform(bench->machine.sim);
    char name[96];
    void *memory;
    bool existed;

    door_ring_name(name);
    ASSERT(platform->ops->volatile_map(platform, name, DOOR_RING_BYTES, &memory, &existed, NULL)
           == 0);
    memcpy(memory, bench->image.bytes, DOOR_RING_BYTES);
    platform->ops->volatile_unmap(platform, memory, DOOR_RING_BYTES);
}

/* Record `sequence` lies in the ring as it was written. */
static bool
record_is_whole(const struct bench *bench, const struct image *genuine, uint64_t sequence)
{
    size_t at = DOOR_RING_HEADER_BYTES + sequence % DOOR_RING_RECORDS * DOOR_RING_RECORD_BYTES;
    return memcmp(bench->image.bytes + at, genuine->bytes + at, DOOR_RING_RECORD_BYTES) == 0;
}

static void
expect_genuine(const struct bench *bench, uint32_t stage, int result)
{
    const struct image *genuine = &bench->genuine[stage];
    uint64_t tail = get_le64(genuine->bytes + DOOR_RING_TAIL_AT) & NUMBER_MASK;
    uint64_t head = stages[stage][0];
    uint64_t whole = 0; /* up to the last whole one */

    for (uint64_t sequence = tail; sequence < head; sequence++) {
        if (record_is_whole(bench, genuine, sequence)) {
            whole = sequence + 1 - tail;
        }
    }
    if (memcmp(bench->image.bytes, genuine->bytes, DOOR_RING_BYTES) == 0) {
        ASSERT_OP(result, ==, 0);
        ASSERT_OP(bench->replayed, ==, head - tail);
    }
    if (result == 0) {
        ASSERT_OP(bench->replayed, ==, whole);
    }
}

static void
start(struct bench *bench)
{
    machine_start(&bench->machine, 1 << 20);
    bench->image = image_create(IMAGE_BYTES);
    for (uint32_t stage = 0; stage < STAGES; stage++) {
        bench->genuine[stage] = image_create(IMAGE_BYTES);
        door_ring_build(sim_platform(bench->machine.sim), stages[stage][0], stages[stage][1],
                        bench->genuine[stage].bytes);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench bench;
    struct input input = { data, size };
    struct error error = { 0 };
    size_t fences;

    if (bench.machine.sim == NULL) {
        start(&bench);
    }
    uint8_t mode = input_u8(&input);
    uint32_t stage = mode >> 2 & (STAGES - 1);
    const struct image *genuine = &bench.genuine[stage];
    bench.only_damage = (mode & 3) == 3;
    if ((mode & 1) != 0) {
        image_copy(&bench.image, genuine);
    } else {
        memset(bench.image.bytes, 0, bench.image.length_bytes);
    }
    recipe_follow(&(struct recipe){ .images = &bench.image, .image_count = 1,
                                    .fix = bench.only_damage ? NULL : fix },
                  &input);
    bench.next_sequence = get_le64(bench.image.bytes + DOOR_RING_TAIL_AT) & NUMBER_MASK;
    bench.replayed = 0;
    lay_down(&bench);
    int result = door_ring_replay(sim_platform(bench.machine.sim), take_record, &bench, &fences,
                                  &error);
    ASSERT(result == 0 || result == -ESTALE || result == -EUCLEAN);
    ASSERT((result == 0) == (error.message[0] == '\0'));
    ASSERT_OP(fences, <=, (size_t)DOOR_RING_HEADER_BYTES / 8);
    if (bench.only_damage) {
        expect_genuine(&bench, stage, result);
    }
    return 0;
}
