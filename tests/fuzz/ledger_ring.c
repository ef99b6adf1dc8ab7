/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two copies of a commit ledger. First byte: bit 0, begin with the ring that the product has
 * written, else with empty areas; bit 1, only damage. Then a recipe over both copies, of which
 * repairs are: 1 the CRC of a ring header; 2 guids and CRCs of a record; 3 the same, as the
 * successor of the newest record or of the one repaired before it.
 *
 * After damage alone no record may come that was not written, and after a scan that found no fault
 * another record is appended, with which the ring must be whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "metadata/ledger.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"

enum {
    COPIES = MACHINE_DISKS,
    AREA_START = 64 << 10,
    AREA_BYTES = 26 * LEDGER_RECORD_ALIGNMENT,
    DISK_BYTES = 1 << 20,
    BASE_COMMIT = 100,
    OLDER_COMMIT = 112, /* when the older image was taken */
    LAST_COMMIT = 120,
    RELEASE_LAG = 9, /* so many commits are kept */
    RECORD_HEADER_BYTES = 128,
    CRC_START = 12,
};

struct bench {
    struct machine machine;
    struct image images[COPIES];
    struct image genuine[COPIES];
    struct image older[COPIES];
    struct ledger *ledger;
    struct ledger_format format;
    struct ledger_append append;
    struct ledger_scan scan;
    struct byte_buffer batches[LAST_COMMIT - BASE_COMMIT + 2]; /* by commit, from BASE_COMMIT */
    uint64_t next_delivered; /* commit that must come next; 0: any */
    uint64_t delivered;
    bool only_damage;
    uint32_t newest_crc;   /* of the newest genuine record's header */
    uint32_t previous_crc; /* what a successor points back to */
};

/* The callbacks and repairs of a target have no other way to it. */
static struct bench bench;

/* ---- repairs ---- */

static void
fix_record(struct image *image, size_t offset_bytes, uint8_t kind)
{
    uint8_t *header = image->bytes + offset_bytes;
    uint32_t payload_bytes = get_le32(header + 84);
    memcpy(header + 16, bench.genuine[0].bytes + 16, 2 * (size_t)GUID_BYTES);
    if (payload_bytes <= image->length_bytes - offset_bytes - RECORD_HEADER_BYTES) {
        put_le32(header + 88, crc32c(0, header + RECORD_HEADER_BYTES, payload_bytes));
    }
    if (kind == 3) {
        put_le32(header + 80, bench.previous_crc);
    }
    uint32_t crc = crc32c(0, header + CRC_START, RECORD_HEADER_BYTES - CRC_START);
    put_le32(header + 8, crc);
    bench.previous_crc = crc;
}

static void
fix(struct image *image, size_t offset_bytes, uint8_t kind)
{
    uint8_t *block = image->bytes + offset_bytes;
    if (kind == 1) {
        put_le32(block + 8, crc32c(0, block + CRC_START, LEDGER_RECORD_ALIGNMENT - CRC_START));
    } else if (kind == 2 || kind == 3) {
        fix_record(image, offset_bytes, kind);
    }
}

/* ---- the ledger ---- */

static void
call_open(void *argument)
{
    struct ledger_options options = { .incarnation = *(uint64_t *)argument, .copy_count = COPIES };
    memset(options.pool_guid, 7, GUID_BYTES);
    for (uint32_t n = 0; n < COPIES; n++) {
        options.copies[n] = (struct ledger_copy_options){
            .backend = bench.machine.backends[n], .disk_index = (uint16_t)n,
            .start_bytes = AREA_START, .length_bytes = AREA_BYTES,
        };
    }
    ASSERT(ledger_create(&options, &bench.ledger) == 0);
}

static void
open_ledger(uint64_t incarnation)
{
    machine_call(&bench.machine, call_open, &incarnation);
}

static void
call_destroy(void *argument)
{
    (void)argument;
    ledger_destroy(bench.ledger);
}

static void
start_format(void *argument)
{
    ledger_format(argument);
}

static void
start_append(void *argument)
{
    ledger_append(argument);
}

static void
start_scan(void *argument)
{
    ledger_scan(argument);
}

static void
call_release(void *argument)
{
    ledger_release(bench.ledger, *(const uint64_t *)argument);
}

/* The batch of a commit; those that nothing but forged records lead to share one. */
static const struct byte_buffer *
batch_of(uint64_t commit)
{
    uint64_t number = commit - BASE_COMMIT;
    return &bench.batches[number < ARRAY_SIZE(bench.batches) ? number : 0];
}

static void
fill_batches(void)
{
    for (size_t number = 0; number < ARRAY_SIZE(bench.batches); number++) {
        struct random random;
        random_seed(&random, number);
        for (uint64_t n = random_below(&random, 9000); n > 0; n--) {
            byte_buffer_append_u8(&bench.batches[number], (uint8_t)random_u64(&random));
        }
    }
}

static int
append(uint64_t commit)
{
    bench.append = (struct ledger_append){
        .ledger = bench.ledger, .commit = commit, .batch = batch_of(commit),
    };
    return machine_await(&bench.machine, &bench.append.op, start_append, &bench.append);
}

static int
take_record(struct ledger_scan *scan, uint64_t commit, const void *batch, size_t batch_bytes)
{
    ASSERT_OP(commit, >, scan->after_commit);
    ASSERT(bench.next_delivered == 0 || commit == bench.next_delivered);
    bench.next_delivered = commit + 1;
    bench.delivered++;
    if (bench.only_damage) {
        const struct byte_buffer *written = batch_of(commit);
        ASSERT_OP(batch_bytes, ==, written->length_bytes);
        ASSERT(batch_bytes == 0 || memcmp(batch, written->data, batch_bytes) == 0);
    }
    return 0;
}

static int
scan(uint64_t after_commit)
{
    bench.next_delivered = 0;
    bench.delivered = 0;
    bench.scan = (struct ledger_scan){
        .ledger = bench.ledger, .after_commit = after_commit, .record = take_record,
    };
    return machine_await(&bench.machine, &bench.scan.op, start_scan, &bench.scan);
}

static void
peek(struct image *images)
{
    for (uint32_t n = 0; n < COPIES; n++) {
        sim_disk_peek(bench.machine.disks[n], AREA_START, images[n].bytes, AREA_BYTES);
    }
}

static uint32_t
newest_crc(const struct image *image)
{
    uint64_t highest = 0;
    uint32_t crc = 0;
    for (size_t at = 0; at < image->length_bytes; at += LEDGER_RECORD_ALIGNMENT) {
        const uint8_t *block = image->bytes + at;
        if (memcmp(block, "VOLMGRLR", 8) == 0 && get_le64(block + 48) > highest) {
            highest = get_le64(block + 48);
            crc = get_le32(block + 8);
        }
    }
    ASSERT_OP(crc, !=, 0u);
    return crc;
}

static void
start(void)
{
    machine_start(&bench.machine, DISK_BYTES);
    fill_batches();
    for (uint32_t n = 0; n < COPIES; n++) {
        bench.images[n] = image_create(AREA_BYTES);
        bench.genuine[n] = image_create(AREA_BYTES);
        bench.older[n] = image_create(AREA_BYTES);
    }
    open_ledger(1);
    bench.format = (struct ledger_format){ .ledger = bench.ledger, .commit = BASE_COMMIT };
    ASSERT(machine_await(&bench.machine, &bench.format.op, start_format, &bench.format) == 0);
    for (uint64_t commit = BASE_COMMIT + 1; commit <= LAST_COMMIT; commit++) {
        ASSERT(append(commit) == 0);
        uint64_t released = commit - RELEASE_LAG;
        machine_call(&bench.machine, call_release, &released);
        if (commit == OLDER_COMMIT) {
            peek(bench.older);
        }
    }
    peek(bench.genuine);
    bench.newest_crc = newest_crc(&bench.genuine[0]);
    machine_call(&bench.machine, call_destroy, NULL);
}

/* ---- what must hold ---- */

static void
expect_genuine(int result, uint64_t after_commit)
{
    bool one_is_whole = false;
    for (uint32_t n = 0; n < COPIES; n++) {
        one_is_whole = one_is_whole
            || memcmp(bench.images[n].bytes, bench.genuine[n].bytes, AREA_BYTES) == 0;
    }
    if (one_is_whole) {
        ASSERT_OP(result, ==, 0);
        ASSERT_OP(bench.scan.ret_last_commit, ==, (uint64_t)LAST_COMMIT);
    }
    if (result == 0) {
        ASSERT_OP(bench.scan.ret_last_commit, <=, (uint64_t)LAST_COMMIT);
        if (bench.scan.ret_last_commit > after_commit) {
            ASSERT_OP(bench.delivered, ==, bench.scan.ret_last_commit - after_commit);
        }
    }
}

/* After a good scan the ring takes another record, and then is whole. */
static void
expect_successor(uint64_t after_commit)
{
    uint64_t last = bench.scan.ret_last_commit;
    uint64_t delivered = bench.delivered;
    int result = append(last + 1);
    if (result != 0) {
        ASSERT(result == -ENOSPC || result == -EIO);
        return;
    }
    machine_call(&bench.machine, call_destroy, NULL);
    open_ledger(3);
    result = scan(after_commit);
    if (bench.only_damage) {
        ASSERT_OP(result, ==, 0);
        ASSERT_OP(bench.scan.ret_last_commit, ==, last + 1);
        ASSERT_OP(bench.delivered, ==, delivered + (last + 1 > after_commit));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    const uint64_t after_commit = LAST_COMMIT - RELEASE_LAG;

    if (bench.machine.sim == NULL) {
        start();
    }
    uint8_t mode = input_u8(&input);
    bench.only_damage = (mode & 3) == 3;
    bench.previous_crc = bench.newest_crc;
    for (uint32_t n = 0; n < COPIES; n++) {
        if ((mode & 1) != 0) {
            image_copy(&bench.images[n], &bench.genuine[n]);
        } else {
            memset(bench.images[n].bytes, 0, AREA_BYTES);
        }
    }
    recipe_follow(&(struct recipe){ .images = bench.images, .image_count = COPIES,
                                    .older = bench.older,
                                    .fix = bench.only_damage ? NULL : fix },
                  &input);
    for (uint32_t n = 0; n < COPIES; n++) {
        sim_disk_poke(bench.machine.disks[n], AREA_START, bench.images[n].bytes, AREA_BYTES);
    }
    open_ledger(2);
    int result = scan(after_commit);
    ASSERT(result == 0 || result == -ENOENT || result == -EUCLEAN || result == -EIO);
    if (bench.only_damage) {
        expect_genuine(result, after_commit);
    }
    if (result == 0 && bench.scan.ret_current_copies != 0) {
        expect_successor(after_commit);
    }
    machine_call(&bench.machine, call_destroy, NULL);
    machine_expect_no_leak(&bench.machine);
    return 0;
}
