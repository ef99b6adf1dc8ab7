/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of a RocksDB store on memory disks: round trips, faults, damage (K1 to K3). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fault.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/checkpoint.h"

enum {
    PARTS = 12,
    DISKS = 2,
    PART_BYTES = EXTENT_BYTES_MIN,
};

struct bench {
    struct harness *harness;
    struct store *store;
    struct backend *disks[DISKS];
    bool disk_is_here[DISKS];
    struct checkpoint_part parts[PARTS];
    struct checkpoint_write write;
    struct checkpoint_read read;
    struct byte_buffer restored; /* what the last read handed over */
    uint64_t next_commit;
    bool commit_meanwhile;
    uint32_t throttled;
    uint32_t cancel_after;
    struct store_commit commit;
    struct byte_buffer commit_batch;
    bool commit_busy;
};

static int
add_commit(struct bench *bench, uint32_t pages, bool sync)
{
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct random random;
    random_seed(&random, bench->next_commit);
    schema_put_commit(&batch, bench->next_commit++);
    for (uint32_t n = 0; n < pages; n++) {
        static uint8_t value[12000];
        size_t length = random_below(&random, sizeof(value));
        for (size_t m = 0; m < length; m++) {
            value[m] = (uint8_t)random_u64(&random);
        }
        uint8_t key[MAP_KEY_BYTES];
        map_key_encode(key, 1 + random_below(&random, 4), random_below(&random, 500), 1);
        store_batch_put(&batch, n % 9 == 0 ? STORE_FAMILY_EXTENT : STORE_FAMILY_MAP, key,
                        sizeof(key), value, length);
    }
    return harness_commit(bench->harness, bench->store, &batch, sync);
}

static struct bench *
bench_start(struct harness *harness, const char *name, uint32_t commits)
{
    struct bench *bench = test_calloc(1, sizeof(*bench));
    bench->harness = harness;
    bench->next_commit = 1;
    assert_int_equal(harness_store_open(harness, name, true, false, &bench->store), 0);
    for (uint32_t n = 0; n < commits; n++) {
        assert_int_equal(add_commit(bench, 8, false), 0);
    }
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        bench->disks[disk] = harness_backend(harness, "fault:mem:32M!");
        bench->disk_is_here[disk] = true;
    }
    for (uint32_t part = 0; part < PARTS; part++) {
        bench->parts[part].copy_count = DISKS;
        for (uint32_t disk = 0; disk < DISKS; disk++) {
            uint32_t slot = (part * 7 + disk * 3) % 30; /* anywhere */
            bench->parts[part].copies[disk] = (struct checkpoint_place){
                .backend = bench->disks[disk],
                .offset_bytes = MIB + (uint64_t)slot * PART_BYTES,
                .place = { .disk = (uint16_t)disk, .slot = slot },
            };
        }
    }
    return bench;
}

static void
bench_stop(struct bench *bench)
{
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        backend_close(bench->disks[disk]);
    }
    bench->store->ops->close(bench->store);
    byte_buffer_free(&bench->restored);
    byte_buffer_free(&bench->commit_batch);
    test_free(bench);
}

/* ---- calls ---- */

static void
commit_done(struct io_op *op)
{
    container_of(container_of(op, struct store_commit, op), struct bench, commit)->commit_busy =
        false;
    assert_int_equal(op->result, 0);
}

/* Called between the writes of a checkpoint: slip in commits. */
static uint64_t
throttle(struct checkpoint_write *write, uint64_t length_bytes)
{
    struct bench *bench = container_of(write, struct bench, write);
    assert_true(length_bytes <= CHECKPOINT_BUFFER_BYTES);
    bench->throttled++;
    if (bench->cancel_after != 0 && bench->throttled >= bench->cancel_after) {
        write->cancel = true;
    }
    if (bench->commit_meanwhile && !bench->commit_busy) {
        uint8_t key[MAP_KEY_BYTES];
        byte_buffer_clear(&bench->commit_batch);
        schema_put_commit(&bench->commit_batch, bench->next_commit++);
        map_key_encode(key, 9, bench->next_commit, 1);
        store_batch_put(&bench->commit_batch, STORE_FAMILY_MAP, key, sizeof(key), "later", 5);
        bench->commit = (struct store_commit){ .batch = &bench->commit_batch };
        bench->commit.op.done = commit_done;
        bench->commit_busy = true;
        store_commit(bench->store, &bench->commit);
    }
    return bench->commit_meanwhile ? NS_PER_MS : 0;
}

static void
start_write(void *argument)
{
    checkpoint_write(argument);
}

static int
bench_write(struct bench *bench, uint32_t part_count)
{
    bench->throttled = 0;
    bench->write = (struct checkpoint_write){
        .store = bench->store, .part_bytes = PART_BYTES, .parts = bench->parts,
        .part_count = part_count, .throttle = throttle,
    };
    memset(bench->write.pool_guid, 7, GUID_BYTES);
    int result = harness_await(bench->harness, &bench->write.op, start_write, &bench->write);
    while (bench->commit_busy) {
        reactor_pass(bench->harness->reactor, true, NS_PER_MS);
    }
    return result;
}

static int
resolve(struct checkpoint_read *read, struct extent_place place, struct backend **ret_backend,
        uint64_t *ret_offset_bytes)
{
    struct bench *bench = container_of(read, struct bench, read);
    if (place.disk >= DISKS || !bench->disk_is_here[place.disk] || place.slot >= 30) {
        return -ENODEV;
    }
    *ret_backend = bench->disks[place.disk];
    *ret_offset_bytes = MIB + (uint64_t)place.slot * PART_BYTES;
    return 0;
}

static void
take_batch(struct checkpoint_read *read, const struct byte_buffer *batch)
{
    struct bench *bench = container_of(read, struct bench, read);
    byte_buffer_append(&bench->restored, batch->data, batch->length_bytes);
    checkpoint_read_next(read, 0);
}

static void
start_read(void *argument)
{
    checkpoint_read(argument);
}

static int
bench_read(struct bench *bench, uint64_t commit)
{
    byte_buffer_clear(&bench->restored);
    bench->read = (struct checkpoint_read){
        .commit = commit, .part_bytes = PART_BYTES, .resolve = resolve, .batch = take_batch,
    };
    bench->read.first_count = bench->write.ret_first_count;
    memcpy(bench->read.first, bench->write.ret_first, sizeof(bench->read.first));
    memset(bench->read.pool_guid, 7, GUID_BYTES);
    return harness_await(bench->harness, &bench->read.op, start_read, &bench->read);
}

/* All families of the store as one batch. */
static void
store_image(struct bench *bench, struct byte_buffer *ret_image)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    byte_buffer_clear(ret_image);
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        assert_int_equal(harness_scan(bench->harness, bench->store, (enum store_family)family, NULL,
                                      1 << 20, &items),
                         0);
        byte_buffer_append(ret_image, items.data, items.length_bytes);
    }
    byte_buffer_free(&items);
}

static void
expect_image(const struct byte_buffer *restored, const struct byte_buffer *image)
{
    assert_int_equal(restored->length_bytes, image->length_bytes);
    assert_memory_equal(restored->data, image->data, image->length_bytes);
}

/* ---- tests ---- */

static void
a_checkpoint_is_the_state_of_one_commit(void **state)
{
    struct bench *bench = bench_start(*state, "cp-state", 60);
    struct byte_buffer image = BYTE_BUFFER_INIT;
    store_image(bench, &image);
    bench->commit_meanwhile = true;
    assert_int_equal(bench_write(bench, PARTS), 0);
    assert_int_equal(bench->write.ret_commit, 60);
    assert_true(bench->next_commit > 63); /* commits went on */
    assert_true(bench->write.ret_part_count >= 3);
    assert_int_equal(bench->write.ret_copies_min, 2);
    assert_int_equal(bench_read(bench, 60), 0);
    expect_image(&bench->restored, &image);
    assert_int_equal(bench->read.ret_item_count, bench->write.ret_item_count);
    assert_int_equal(bench->read.ret_length_bytes, bench->write.ret_length_bytes);
    assert_int_equal(bench->read.ret_part_count, bench->write.ret_part_count);
    assert_int_equal(bench->read.ret_damaged_pieces, 0);
    assert_int_equal(bench_read(bench, 59), -ENOENT);
    for (uint32_t disk = 0; disk < DISKS; disk++) { /* either disk is enough */
        memset(bench->disk_is_here, true, sizeof(bench->disk_is_here));
        bench->disk_is_here[disk] = false;
        assert_int_equal(bench_read(bench, 60), 0);
        expect_image(&bench->restored, &image);
    }
    memset(bench->disk_is_here, false, sizeof(bench->disk_is_here));
    assert_int_equal(bench_read(bench, 60), -ENOENT);
    byte_buffer_free(&image);
    bench_stop(bench);
}

static void
a_new_database_is_made_from_it(void **state)
{
    struct bench *bench = bench_start(*state, "cp-rebuild", 20);
    struct byte_buffer image = BYTE_BUFFER_INIT;
    struct byte_buffer again = BYTE_BUFFER_INIT;
    store_image(bench, &image);
    assert_int_equal(bench_write(bench, PARTS), 0);
    assert_int_equal(bench_read(bench, 20), 0);
    bench->store->ops->close(bench->store);
    assert_int_equal(harness_store_open(bench->harness, "cp-rebuilt", true, false, &bench->store),
                     0);
    byte_buffer_append(&again, bench->restored.data, bench->restored.length_bytes);
    assert_int_equal(harness_commit(bench->harness, bench->store, &again, true), 0);
    store_image(bench, &again);
    expect_image(&again, &image);
    byte_buffer_free(&again);
    byte_buffer_free(&image);
    bench_stop(bench);
}

static void
too_few_parts_and_a_small_database(void **state)
{
    struct bench *bench = bench_start(*state, "cp-small", 1);
    assert_int_equal(bench_write(bench, 1), 0);
    assert_int_equal(bench->write.ret_part_count, 1);
    assert_int_equal(bench_read(bench, 1), 0);
    for (uint32_t n = 0; n < 40; n++) {
        assert_int_equal(add_commit(bench, 8, false), 0);
    }
    uint32_t needed;
    for (needed = 1; bench_write(bench, needed) == -ENOSPC; needed++) {
        assert_int_equal(bench->write.ret_part_count, needed);
    }
    assert_int_equal(bench->write.op.result, 0);
    assert_true(needed >= 2 && needed < PARTS);
    uint64_t store_bytes = bench->store->ops->size_bytes(bench->store);
    assert_true(checkpoint_part_count(store_bytes, PART_BYTES) >= needed);
    bench_stop(bench);
}

static void
an_empty_store_has_no_commit_to_speak_of(void **state)
{
    struct bench *bench = bench_start(*state, "cp-empty", 0);
    assert_int_equal(bench_write(bench, PARTS), -EUCLEAN);
    bench_stop(bench);
}

static void
cancelled_checkpoints_leave_nothing_behind(void **state)
{
    struct bench *bench = bench_start(*state, "cp-cancel", 60);
    for (uint32_t after = 1; after < 6; after++) {
        bench->cancel_after = after;
        assert_int_equal(bench_write(bench, PARTS), -ECANCELED);
        assert_int_equal(bench->throttled, after);
        assert_null(bench->write.driver);
    }
    bench->cancel_after = 0;
    assert_int_equal(bench_write(bench, PARTS), 0);
    bench_stop(bench);
}

static void
failing_disks(void **state)
{
    struct bench *bench = bench_start(*state, "cp-fail", 40);
    struct byte_buffer image = BYTE_BUFFER_INIT;
    struct error error = { 0 };
    store_image(bench, &image);
    for (uint32_t nth = 1; nth <= 4; nth++) { /* one write after the other of the first disk */
        char rule[64];
        snprintf(rule, sizeof(rule), "write,nth=%u,errno=EIO", nth);
        fault_clear_rules(bench->disks[0]);
        assert_int_equal(fault_add_rules(bench->disks[0], rule, &error), 0);
        assert_int_equal(bench_write(bench, PARTS), 0);
        assert_int_equal(bench->write.ret_copies_min, 1);
        assert_in_range(bench->write.ret_first_count, 1, 2);
        assert_int_equal(bench_read(bench, 40), 0);
        expect_image(&bench->restored, &image);
    }
    fault_clear_rules(bench->disks[0]);
    assert_int_equal(fault_add_rules(bench->disks[0], "flush,errno=EIO", &error), 0);
    assert_int_equal(bench_write(bench, PARTS), 0);
    assert_int_equal(bench->write.ret_copies_min, 1);
    assert_int_equal(fault_add_rules(bench->disks[1], "flush,nth=1,errno=EIO", &error), 0);
    assert_int_equal(bench_write(bench, PARTS), -EIO);
    fault_clear_rules(bench->disks[0]);
    assert_int_equal(fault_add_rules(bench->disks[0], "write,nth=2,errno=EIO", &error), 0);
    assert_int_equal(fault_add_rules(bench->disks[1], "write,nth=2,errno=EIO", &error), 0);
    assert_int_equal(bench_write(bench, PARTS), -EIO);
    byte_buffer_free(&image);
    bench_stop(bench);
}

/* Whatever is done to the disks: the whole state, or a refusal. */
static void
damage_is_read_around_or_refused(void **state)
{
    struct bench *bench = bench_start(*state, "cp-damage", 40);
    struct byte_buffer image = BYTE_BUFFER_INIT;
    struct random random;
    random_seed(&random, 31);
    store_image(bench, &image);
    assert_int_equal(bench_write(bench, PARTS), 0);
    uint8_t *good[DISKS];
    uint8_t *bad = aligned_alloc(4096, 32 * MIB);
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        good[disk] = aligned_alloc(4096, 32 * MIB);
        assert_int_equal(harness_transfer(bench->harness, bench->disks[disk], BACKEND_READ, 0,
                                          good[disk], 32 * MIB),
                         0);
    }
    uint32_t intact = 0;
    uint32_t around = 0;
    uint32_t refused = 0;
    for (uint32_t round = 0; round < 60; round++) {
        for (uint32_t disk = 0; disk < DISKS; disk++) {
            memcpy(bad, good[disk], 32 * MIB);
            uint64_t count = round % 3 == 0 && disk == 1 ? 0 : random_below(&random, 12);
            for (uint64_t n = 0; n < count; n++) {
                const struct checkpoint_part *part =
                    &bench->parts[random_below(&random, bench->write.ret_part_count)];
                uint64_t at = part->copies[disk].offset_bytes + random_below(&random, PART_BYTES);
                if (random_chance(&random, 1, 3)) {
                    at = align_down(at, 4096) + random_below(&random, 80);
                }
                bad[at] ^= (uint8_t)(1u << random_below(&random, 8));
                if (random_chance(&random, 1, 6)) { /* a lost or misdirected block */
                    memcpy(bad + align_down(at, 4096),
                           good[disk] + random_below(&random, 8192) * 4096, 4096);
                }
            }
            harness_transfer(bench->harness, bench->disks[disk], BACKEND_WRITE, 0, bad, 32 * MIB);
        }
        int result = bench_read(bench, 40);
        if (result == 0) {
            expect_image(&bench->restored, &image);
            intact += bench->read.ret_damaged_pieces == 0;
            around += bench->read.ret_damaged_pieces > 0;
        } else {
            assert_true(result == -EUCLEAN || result == -ENOENT);
            refused++;
        }
    }
    assert_true(intact + around > 5 && around > 5 && refused > 2);
    free(bad);
    free(good[0]);
    free(good[1]);
    byte_buffer_free(&image);
    bench_stop(bench);
}

/* Where the n-th frame of the first part lies on a disk, and how many bytes its batch has. */
static uint64_t
find_frame(struct bench *bench, uint32_t disk, uint32_t number, uint32_t *ret_batch_bytes)
{
    uint8_t *part = aligned_alloc(4096, PART_BYTES);
    uint64_t start = bench->parts[0].copies[disk].offset_bytes;
    uint64_t at = 4096;
    assert_int_equal(
        harness_transfer(bench->harness, bench->disks[disk], BACKEND_READ, start, part, PART_BYTES),
        0);
    for (uint32_t n = 0;; n++) {
        assert_memory_equal(part + at, "VMCF", 4);
        *ret_batch_bytes = get_le32(part + at + 36);
        if (n == number) {
            break;
        }
        at += align_up(64 + *ret_batch_bytes, 4096);
    }
    free(part);
    return start + at;
}

static void
a_whole_frame_in_the_wrong_place(void **state)
{
    struct bench *bench = bench_start(*state, "cp-place", 40);
    struct byte_buffer image = BYTE_BUFFER_INIT;
    uint32_t batch_bytes;
    store_image(bench, &image);
    assert_int_equal(bench_write(bench, PARTS), 0);
    uint64_t to = find_frame(bench, 0, 2, &batch_bytes);
    uint64_t from = find_frame(bench, 0, 0, &batch_bytes);
    uint64_t length = align_up(64 + batch_bytes, 4096);
    uint8_t *memory = aligned_alloc(4096, length);
    assert_int_equal(
        harness_transfer(bench->harness, bench->disks[0], BACKEND_READ, from, memory, length), 0);
    assert_int_equal(
        harness_transfer(bench->harness, bench->disks[0], BACKEND_WRITE, to, memory, length), 0);
    free(memory);
    assert_int_equal(bench_read(bench, 40), 0); /* the other disk has the right one */
    assert_true(bench->read.ret_damaged_pieces > 0);
    expect_image(&bench->restored, &image);
    byte_buffer_free(&image);
    bench_stop(bench);
}

static void
a_forged_frame_is_not_believed(void **state)
{
    struct bench *bench = bench_start(*state, "cp-forge", 40);
    assert_int_equal(bench_write(bench, PARTS), 0);
    for (uint32_t disk = 0; disk < DISKS; disk++) { /* the last byte of a value, and its CRC */
        uint32_t batch_bytes;
        uint64_t at = find_frame(bench, disk, 1, &batch_bytes);
        uint64_t length = align_up(64 + batch_bytes, 4096);
        uint8_t *memory = aligned_alloc(4096, length);
        harness_transfer(bench->harness, bench->disks[disk], BACKEND_READ, at, memory, length);
        memory[64 + batch_bytes - 1] ^= 1;
        put_le32(memory + 4, crc32c(0, memory + 8, 56 + batch_bytes));
        harness_transfer(bench->harness, bench->disks[disk], BACKEND_WRITE, at, memory, length);
        free(memory);
    }
    assert_int_equal(bench_read(bench, 40), -EUCLEAN);
    bench_stop(bench);
}

static void
refuse_batch(struct checkpoint_read *read, const struct byte_buffer *batch)
{
    assert_true(batch->length_bytes > 0);
    checkpoint_read_next(read, -EXDEV);
}

static void
a_consumer_may_stop_and_a_verifier_needs_none(void **state)
{
    struct bench *bench = bench_start(*state, "cp-verify", 30);
    assert_int_equal(bench_write(bench, PARTS), 0);
    uint64_t items = bench->write.ret_item_count;
    assert_int_equal(bench_read(bench, 30), 0);
    bench->read.batch = refuse_batch;
    assert_int_equal(harness_await(bench->harness, &bench->read.op, start_read, &bench->read),
                     -EXDEV);
    bench->read.batch = NULL;
    assert_int_equal(harness_await(bench->harness, &bench->read.op, start_read, &bench->read), 0);
    assert_int_equal(bench->read.ret_item_count, items);
    bench->read.pool_guid[0] ^= 1;
    assert_int_equal(harness_await(bench->harness, &bench->read.op, start_read, &bench->read),
                     -ENOENT);
    bench_stop(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_is_the_state_of_one_commit),
        cmocka_unit_test(a_new_database_is_made_from_it),
        cmocka_unit_test(too_few_parts_and_a_small_database),
        cmocka_unit_test(an_empty_store_has_no_commit_to_speak_of),
        cmocka_unit_test(cancelled_checkpoints_leave_nothing_behind),
        cmocka_unit_test(failing_disks),
        cmocka_unit_test(damage_is_read_around_or_refused),
        cmocka_unit_test(a_whole_frame_in_the_wrong_place),
        cmocka_unit_test(a_forged_frame_is_not_believed),
        cmocka_unit_test(a_consumer_may_stop_and_a_verifier_needs_none),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
