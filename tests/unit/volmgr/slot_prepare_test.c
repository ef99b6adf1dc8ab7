/* SPDX-License-Identifier: Apache-2.0 */
/* Slots that are written ahead of need: when, how many, and that it harms nobody. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/core_impl.h"

enum {
    DISK_MIB = 1024,
    GRAINS_PER_EXTENT = 16,
};

struct rig {
    struct bench *bench;
    struct sim_disk *disk;
    struct volume *volume;
};

static void
find_volume(struct rig *rig)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(rig->bench, 0, "p/v", &lookup), 0);
    rig->volume = lookup.ret_volume;
}

static void
rig_create(struct rig *rig, enum file_kind kind, uint64_t capacity_bytes)
{
    struct disk_argument disk = { .spec = "/f" };
    struct pool_create create = {
        .name = "p", .extent_bytes = 1 * MIB, .disk_count = 1, .disks = &disk
    };

    *rig = (struct rig){ .bench = bench_create(5, 2) };
    rig->disk = sim_disk_create(
        rig->bench->sim, disk.spec,
        &(struct sim_disk_properties){ .kind = kind,
                                       .size_bytes = DISK_MIB * MIB,
                                       .capacity_bytes = capacity_bytes });
    assert_int_equal(bench_boot(rig->bench), 0);
    assert_int_equal(bench_pool_create(rig->bench, &create), 0);
    assert_int_equal(bench_make_volume(rig->bench, "p/v", 64 * GIB), 0);
    assert_int_equal(bench_make_export(rig->bench, "p/v"), 0);
    find_volume(rig);
}

static void
rig_free(struct rig *rig)
{
    bench_release(rig->bench, rig->volume);
    assert_int_equal(bench_shutdown(rig->bench), 0);
    bench_free(rig->bench);
}

static uint32_t
ready(const struct rig *rig)
{
    return slot_preparer_ready(rig->volume->pool->allocator.preparer);
}

/* The first block of grains [first, end). 0, or what the first write that fails says. */
static int
write_small(struct rig *rig, uint64_t first, uint64_t end)
{
    int result = 0;

    for (uint64_t grain = first; grain < end && result == 0; grain++) {
        result = bench_fill(rig->bench, rig->volume, grain * GRAIN_BYTES, BLOCK_BYTES, 3);
    }
    return result;
}

static void
check_small(struct rig *rig, uint64_t end)
{
    static const uint8_t zeroes[GRAIN_BYTES - BLOCK_BYTES];
    static uint8_t rest[sizeof(zeroes)];

    for (uint64_t grain = 0; grain < end; grain++) {
        uint64_t at = grain * GRAIN_BYTES;
        assert_true(bench_check(rig->bench, rig->volume, at, BLOCK_BYTES, 3));
        assert_int_equal(bench_io(rig->bench, rig->volume, VOLUME_READ, at + BLOCK_BYTES, rest,
                                  sizeof(rest)),
                         0);
        assert_memory_equal(rest, zeroes, sizeof(rest));
    }
}

static void
small_writes_have_slots_prepared_and_use_them(void **state)
{
    (void)state;
    struct rig rig;
    const struct allocator *allocator;

    rig_create(&rig, FILE_KIND_REGULAR, 0);
    allocator = &rig.volume->pool->allocator;
    assert_int_equal(write_small(&rig, 0, 1500), 0);
    assert_int_equal(ready(&rig), 0); /* not while extents are asked for */
    bench_pass_time(rig.bench, 5);
    assert_in_range(ready(&rig), 8, allocator->slots_free / 16);
    /* What is ready is free; no slot is lost or counted twice. */
    const struct disk *disk = rig.volume->pool->disks[0];
    uint32_t bits = 0;
    for (uint32_t i = 0; i < disk->record.slot_count; i++) {
        bits += (uint32_t)((disk->slots_used[i / 64] >> (i % 64)) & 1);
    }
    assert_int_equal(disk->record.slot_count - bits + ready(&rig), disk->slots_free);
    assert_int_equal(allocator->slots_free, disk->slots_free);

    uint32_t before = ready(&rig);
    uint64_t zeroed = sim_disk_statistics(rig.disk)->operations[FILE_IO_WRITE];
    bench_pass_time(rig.bench, 5); /* there are enough */
    assert_in_range(sim_disk_statistics(rig.disk)->operations[FILE_IO_WRITE], zeroed, zeroed + 8);
    assert_int_equal(write_small(&rig, 1500, 2500), 0);
    assert_in_range(ready(&rig), 0, before - 4);
    check_small(&rig, 2500);
    bench_pass_time(rig.bench, 5);
    check_small(&rig, 2500);
    rig_free(&rig);
}

static void
large_writes_and_devices_have_nothing_prepared(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, FILE_KIND_REGULAR, 0);
    assert_int_equal(bench_fill(rig.bench, rig.volume, 0, 128 * MIB, 1), 0);
    bench_pass_time(rig.bench, 5);
    assert_int_equal(ready(&rig), 0);
    rig_free(&rig);

    rig_create(&rig, FILE_KIND_BLOCK_DEVICE, 0);
    assert_int_equal(write_small(&rig, 0, 1500), 0);
    bench_pass_time(rig.bench, 5);
    assert_int_equal(ready(&rig), 0);
    rig_free(&rig);
}

/* A write of zeroes to the third slot that is prepared now hangs. */
static void
hang_a_write_of_zeroes(struct rig *rig)
{
    const struct disk *disk = rig->volume->pool->disks[0];
    uint64_t used = rig->volume->pool->allocator.slots_total -
                    rig->volume->pool->allocator.slots_free;

    sim_disk_add_fault(rig->disk, &(struct sim_fault){
                                      .action = SIM_FAULT_HANG,
                                      .kinds = 1u << FILE_IO_WRITE,
                                      .offset_bytes = disk->record.data_start_bytes + used * MIB,
                                      .skip = 2,
                                      .count = 1,
                                  });
    bench_pass_time(rig->bench, 2);
    assert_int_equal(sim_disk_hanging(rig->disk), 1);
}

/* They would only be doubled, and the next burst of small ones would find nothing. */
static void
large_writes_leave_alone_what_was_prepared(void **state)
{
    (void)state;
    struct rig rig;
    struct volume *other;
    struct export_lookup lookup;

    rig_create(&rig, FILE_KIND_REGULAR, 0);
    assert_int_equal(bench_make_volume(rig.bench, "p/large", 64 * GIB), 0);
    assert_int_equal(bench_make_export(rig.bench, "p/large"), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/large", &lookup), 0);
    other = lookup.ret_volume;
    assert_int_equal(write_small(&rig, 0, 1500), 0);
    bench_pass_time(rig.bench, 5);
    uint32_t before = ready(&rig);
    assert_true(before >= 8);
    assert_int_equal(bench_fill(rig.bench, other, 0, 64 * MIB, 1), 0);
    assert_int_equal(ready(&rig), before);
    assert_int_equal(write_small(&rig, 1500, 2500), 0);
    assert_in_range(ready(&rig), 0, before - 4);
    /* All the same they get the last ones (P7), but those that are kept for metadata. */
    uint64_t written = 64 * MIB;
    while (bench_fill(rig.bench, other, written, MIB, 1) == 0) {
        written += MIB;
        assert_true(written < DISK_MIB * MIB);
    }
    assert_in_range(ready(&rig), 0,
                    allocator_metadata_reserve(&rig.volume->pool->allocator));
    check_small(&rig, 2500);
    bench_release(rig.bench, other);
    rig_free(&rig);
}

/* W1: zeroes that the disk holds back meet nobody's data when it lets them go. */
static void
a_late_write_of_zeroes_harms_nobody(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, FILE_KIND_REGULAR, 0);
    assert_int_equal(write_small(&rig, 0, 1500), 0);
    hang_a_write_of_zeroes(&rig);
    assert_in_range(ready(&rig), 1, 3);
    assert_int_equal(write_small(&rig, 1500, 6000), 0);
    bench_pass_time(rig.bench, 2);
    sim_disk_release(rig.disk);
    bench_pass_time(rig.bench, 2);
    check_small(&rig, 6000);
    assert_in_range(ready(&rig), 3, 128); /* it goes on */
    rig_free(&rig);
}

/* Also after the death of the process and after a power cut, in the middle of it. */
static void
what_was_prepared_is_free_after_a_crash(void **state)
{
    (void)state;

    for (int power_cut = 0; power_cut < 2; power_cut++) {
        struct rig rig;
        rig_create(&rig, FILE_KIND_REGULAR, 0);
        assert_int_equal(write_small(&rig, 0, 1500), 0);
        assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
        bench_pass_time(rig.bench, 1);
        assert_true(ready(&rig) > 0);
        assert_int_equal(write_small(&rig, 1500, 1700), 0);
        assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
        if (power_cut != 0) {
            bench_power_cut(rig.bench, SIM_CUT_BY_SEED);
        } else {
            bench_kill(rig.bench);
        }
        assert_int_equal(bench_boot(rig.bench), 0);
        find_volume(&rig);
        assert_int_equal(ready(&rig), 0);
        check_small(&rig, 1700);
        assert_int_equal(write_small(&rig, 1700, 2500), 0);
        check_small(&rig, 2500);
        rig_free(&rig);
    }
}

/* P7: a pool is as full as without, and a file system without room is left alone for a while. */
static void
the_last_extent_can_be_used(void **state)
{
    (void)state;
    struct rig rig;
    uint64_t written = 0;

    rig_create(&rig, FILE_KIND_REGULAR, 512 * MIB);
    while (write_small(&rig, written, written + 100) == 0) {
        written += 100;
        if (written % 500 == 0) {
            bench_pass_time(rig.bench, 1);
        }
        assert_true(written < DISK_MIB * GRAINS_PER_EXTENT);
    }
    assert_true(written > 400 * GRAINS_PER_EXTENT);
    check_small(&rig, written);
    uint64_t asked = sim_disk_statistics(rig.disk)->operations[FILE_IO_ALLOCATE];
    bench_pass_time(rig.bench, 5);
    assert_in_range(sim_disk_statistics(rig.disk)->operations[FILE_IO_ALLOCATE], asked, asked + 3);
    rig_free(&rig);
}

/* A reserve of all that is left, for the volume: so many grains. */
static uint64_t
reserve_all(struct rig *rig)
{
    struct volume_set_reserve set = { .name = { "p", "v" } };
    uint64_t extents = allocator_available(&rig->volume->pool->allocator, NULL);

    set.reserve_bytes = extents * MIB;
    assert_int_equal(bench_volume_set_reserve(rig->bench, &set), 0);
    return extents * GRAINS_PER_EXTENT;
}

/* Slots that are taken and no extent's: the one that is being written. */
static bool
one_is_being_written(void *context)
{
    const struct rig *rig = context;
    const struct pool *pool = rig->volume->pool;
    uint64_t taken = pool->allocator.slots_total - pool->allocator.slots_free;

    for (uint64_t id = 1; id < pool->extents.count_end; id++) {
        const struct extent *extent = extent_table_find(&pool->extents, id);
        taken -= extent != NULL ? extent->copy_count : 0;
    }
    return taken > 0;
}

/* W4: the slot that is half written when a burst begins is not missed by who was promised it. */
static void
a_reserve_gets_the_slot_that_is_being_written(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, FILE_KIND_REGULAR, 0);
    uint64_t grains = reserve_all(&rig);
    assert_int_equal(write_small(&rig, 0, 1500), 0);
    assert_int_equal(sim_run_until(rig.bench->sim, one_is_being_written, &rig, 2 * NS_PER_S), 0);
    assert_int_equal(write_small(&rig, 1500, grains), 0);
    check_small(&rig, grains);
    rig_free(&rig);
}

/* W4: while the disk writes to it, it is waited for; but not for ever (P9). */
static void
a_slot_is_waited_for_while_the_disk_writes_to_it(void **state)
{
    (void)state;

    for (int is_late = 0; is_late < 2; is_late++) {
        struct rig rig;
        uint8_t block[BLOCK_BYTES] = { 1 };

        rig_create(&rig, FILE_KIND_REGULAR, 0);
        uint64_t grains = reserve_all(&rig);
        assert_int_equal(write_small(&rig, 0, 1500), 0);
        hang_a_write_of_zeroes(&rig);
        assert_int_equal(write_small(&rig, 1500, grains - GRAINS_PER_EXTENT), 0);
        struct bench_io_call *call =
            bench_io_begin(rig.bench, rig.volume, VOLUME_WRITE,
                           (grains - GRAINS_PER_EXTENT) * GRAIN_BYTES, block, sizeof(block));
        uint64_t began_ns = sim_now_ns(rig.bench->sim);
        assert_int_equal(sim_run_for(rig.bench->sim, 300 * NS_PER_MS), 0);
        if (is_late == 0) {
            sim_disk_release(rig.disk);
        }
        assert_int_equal(bench_io_end(rig.bench, call), is_late == 0 ? 0 : -ENOSPC);
        assert_in_range(sim_now_ns(rig.bench->sim) - began_ns, 300 * NS_PER_MS,
                        1500 * NS_PER_MS);
        sim_disk_release(rig.disk);
        bench_pass_time(rig.bench, 1);
        /* Whoever was too early gets it now. */
        assert_int_equal(write_small(&rig, grains - GRAINS_PER_EXTENT, grains), 0);
        check_small(&rig, grains);
        rig_free(&rig);
    }
}

/* A pool that has become read-only keeps no slot taken that is nobody's. */
static void
no_slot_is_missing_when_the_pool_is_read_only(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, FILE_KIND_REGULAR, 0);
    assert_int_equal(write_small(&rig, 0, 1500), 0);
    uint64_t free_count = rig.volume->pool->allocator.slots_free;
    assert_int_equal(sim_run_until(rig.bench->sim, one_is_being_written, &rig, 2 * NS_PER_S), 0);
    assert_int_equal(rig.volume->pool->allocator.slots_free, free_count - 1);
    sim_store_fail(rig.bench->sim, "p", SIM_STORE_COMMIT, 0, 1, EIO);
    assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), -EIO);
    bench_pass_time(rig.bench, 1);
    assert_int_equal(bench_pool_state(rig.bench, "p"), POOL_STATE_READ_ONLY);
    assert_int_equal(rig.volume->pool->allocator.slots_free, free_count);
    bench_release(rig.bench, rig.volume);
    assert_int_equal(bench_shutdown(rig.bench), -EIO);
    bench_free(rig.bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_writes_have_slots_prepared_and_use_them),
        cmocka_unit_test(large_writes_and_devices_have_nothing_prepared),
        cmocka_unit_test(large_writes_leave_alone_what_was_prepared),
        cmocka_unit_test(a_late_write_of_zeroes_harms_nobody),
        cmocka_unit_test(what_was_prepared_is_free_after_a_crash),
        cmocka_unit_test(the_last_extent_can_be_used),
        cmocka_unit_test(a_reserve_gets_the_slot_that_is_being_written),
        cmocka_unit_test(a_slot_is_waited_for_while_the_disk_writes_to_it),
        cmocka_unit_test(no_slot_is_missing_when_the_pool_is_read_only),
    };
    return cmocka_run_group_tests_name("slot_prepare", tests, NULL, NULL);
}
