/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that make room on demand: file systems that are full, slow, or larger than before (P7). */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/core_impl.h"

#define FILE_BYTES (1 * GIB)
#define ROOM_BYTES (96 * MIB)
#define STEP_BYTES (1 * MIB)

enum {
    FILES = 4,
};

struct rig {
    struct bench *bench;
    struct sim_disk *files[FILES];
    struct volume *volume;
    uint64_t written_bytes;
};

/* A pool of sparse files in tiers of their own, each on a file system of this room (0: enough). */
static void
rig_create_sized(struct rig *rig, uint32_t files, uint64_t file_bytes, uint64_t room_bytes)
{
    struct disk_argument disks[FILES] = { 0 };
    struct pool_create create = {
        .name = "p", .extent_bytes = 1 * MIB, .disk_count = files, .disks = disks
    };
    struct export_lookup lookup;

    *rig = (struct rig){ .bench = bench_create(5, 2) };
    for (uint32_t i = 0; i < files; i++) {
        snprintf(disks[i].spec, sizeof(disks[i].spec), "/f/%u", i);
        disks[i].tier = (uint8_t)i;
        rig->files[i] = sim_disk_create(
            rig->bench->sim, disks[i].spec,
            &(struct sim_disk_properties){
                .size_bytes = file_bytes, .capacity_bytes = room_bytes });
    }
    assert_int_equal(bench_boot(rig->bench), 0);
    assert_int_equal(bench_pool_create(rig->bench, &create), 0);
    assert_int_equal(bench_make_volume(rig->bench, "p/v", 64 * GIB), 0);
    assert_int_equal(bench_make_export(rig->bench, "p/v"), 0);
    assert_int_equal(bench_lookup(rig->bench, 0, "p/v", &lookup), 0);
    rig->volume = lookup.ret_volume;
}

static void
rig_create(struct rig *rig, uint32_t files)
{
    rig_create_sized(rig, files, FILE_BYTES, ROOM_BYTES);
}

static void
rig_free(struct rig *rig)
{
    bench_release(rig->bench, rig->volume);
    assert_int_equal(bench_shutdown(rig->bench), 0);
    bench_free(rig->bench);
}

static int
write_step(struct rig *rig)
{
    int result = bench_fill(rig->bench, rig->volume, rig->written_bytes, STEP_BYTES, 7);

    if (result == 0) {
        rig->written_bytes += STEP_BYTES;
    }
    return result;
}

static uint64_t
times_asked(const struct rig *rig)
{
    uint64_t times = 0;

    for (uint32_t i = 0; i < FILES && rig->files[i] != NULL; i++) {
        times += sim_disk_statistics(rig->files[i])->operations[FILE_IO_ALLOCATE];
    }
    return times;
}

/*
 * Until nothing fits, and nothing that would make room is under way: the last checkpoint is
 * written, the one before it is freed.
 */
static void
fill_up(struct rig *rig, uint32_t files)
{
    uint32_t refused = 0;

    do {
        for (refused = 0; refused < 20; refused++) {
            int result = write_step(rig);
            assert_true(result == 0 || result == -ENOSPC);
            if (result == 0) {
                refused = 0;
            }
        }
        bench_pass_time(rig->bench, 30);
    } while (write_step(rig) == 0);
    assert_in_range(rig->written_bytes, files * ROOM_BYTES / 2, files * ROOM_BYTES);
}

static void
a_file_system_that_grows_is_used(void **state)
{
    struct rig rig;

    (void)state;
    rig_create(&rig, 1);
    fill_up(&rig, 1);
    /* Writes that need space do not each trouble a disk that has just refused. */
    uint64_t asked = times_asked(&rig);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(write_step(&rig), -ENOSPC);
    }
    assert_in_range(times_asked(&rig) - asked, 0, 1);
    sim_disk_set_capacity(rig.files[0], 0);
    bench_pass_time(rig.bench, 3);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(write_step(&rig), 0);
    }
    assert_true(bench_check(rig.bench, rig.volume, 0, rig.written_bytes, 7));
    rig_free(&rig);
}

/* Several that each take their time to refuse are asked once each for one grant, not in turns. */
static void
slow_refusals_come_to_an_end(void **state)
{
    struct rig rig;

    (void)state;
    rig_create(&rig, FILES);
    fill_up(&rig, FILES);
    for (uint32_t i = 0; i < FILES; i++) {
        sim_disk_add_fault(rig.files[i], &(struct sim_fault){ .action = SIM_FAULT_DELAY,
                                                              .kinds = 1u << FILE_IO_ALLOCATE,
                                                              .delay_ns = 3 * NS_PER_S });
    }
    bench_pass_time(rig.bench, 3);
    uint64_t asked = times_asked(&rig);
    uint64_t began_ns = sim_now_ns(rig.bench->sim);
    assert_int_equal(write_step(&rig), -ENOSPC);
    assert_true(times_asked(&rig) >= asked + FILES);
    assert_in_range(sim_now_ns(rig.bench->sim) - began_ns, 3 * NS_PER_S, 4 * FILES * NS_PER_S);
    rig_free(&rig);
}

/* Space that comes and goes for years must not use up the numbers of extents. */
static void
numbers_of_extents_are_given_again(void **state)
{
    (void)state;
    struct rig rig;
    uint64_t highest = 0;

    rig_create(&rig, 1);
    for (int start = 0; start < 2; start++) {
        for (int round = 0; round < 20; round++) {
            for (uint64_t at = 0; at < 32 * STEP_BYTES; at += STEP_BYTES) {
                assert_int_equal(bench_fill(rig.bench, rig.volume, at, STEP_BYTES, 1), 0);
            }
            assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_DISCARD, 0, NULL,
                                      32 * STEP_BYTES),
                             0);
            assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
            bench_pass_time(rig.bench, 1);
            if (start == 0 && round == 1) {
                highest = rig.volume->pool->record.next_extent;
            }
        }
        assert_in_range(rig.volume->pool->record.next_extent, 32, highest + 16);
        struct export_lookup lookup;
        bench_kill(rig.bench);
        assert_int_equal(bench_boot(rig.bench), 0);
        assert_int_equal(bench_lookup(rig.bench, 0, "p/v", &lookup), 0);
        rig.volume = lookup.ret_volume;
    }
    rig_free(&rig);
}

/* In a full pool: also the grains that the volume took while it was small. */
static void
what_was_discarded_is_used_again(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, 1);
    fill_up(&rig, 1);
    for (uint64_t k = 0; k < 5; k++) {
        uint64_t at = k * GRAIN_BYTES;
        assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_DISCARD, at, NULL, GRAIN_BYTES), 0);
        assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(bench_fill(rig.bench, rig.volume, at, GRAIN_BYTES, 3), 0);
    }
    rig_free(&rig);
}

static void
write_replied(struct volume_request *request)
{
    assert_true(request->replied);
}

struct write_head {
    struct message message;
    struct volume *volume;
    struct volume_request request;
};

static void
write_submit(struct message *message)
{
    struct write_head *write = container_of(message, struct write_head, message);
    volume_submit(write->volume, &write->request);
}

/*
 * Writes wait for space, with memory that the pool's disk takes and the one that is added meanwhile
 * does not.
 */
static void
a_disk_with_larger_sectors_is_added_under_load(void **state)
{
    (void)state;
    enum { WRITES = 8, BYTES = 4096 };
    struct rig rig;
    struct write_head writes[WRITES];
    struct iovec iovs[WRITES];
    static _Alignas(4096) uint8_t memory[WRITES][8192];
    static _Alignas(4096) uint8_t back[4096];
    struct disk_argument disk = { .spec = "/f/large", .tier = 0 };
    struct pool_add add = { .name = "p", .disk_count = 1, .disks = &disk };

    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_ALLOCATE };
    uint64_t at = 0;

    /* The disk does not make room any more, and no grain is left. */
    rig_create(&rig, 1);
    assert_int_equal(bench_fill(rig.bench, rig.volume, at, GRAIN_BYTES, 1), 0);
    sim_disk_add_fault(rig.files[0], &hang);
    while (rig.volume->shard->shared_source.free_grains > 0) {
        at += GRAIN_BYTES;
        assert_int_equal(bench_fill(rig.bench, rig.volume, at, GRAIN_BYTES, 1), 0);
    }
    sim_disk_create(rig.bench->sim, disk.spec,
                    &(struct sim_disk_properties){ .size_bytes = FILE_BYTES,
                                                   .logical_sector_bytes = 4096,
                                                   .memory_alignment_bytes = 4096 });
    bool added = false;
    bench_pool_add_start(rig.bench, &add, &added);
    for (uint32_t i = 0; i < WRITES; i++) {
        struct write_head *write = &writes[i];
        uint8_t *payload = memory[i] + 512; /* all that the first disk wants */
        *write = (struct write_head){ .volume = rig.volume };
        iovs[i] = (struct iovec){ payload, BYTES };
        memset(payload, 100 + (int)i, BYTES);
        volume_request_init(&write->request);
        write->request.operation = VOLUME_WRITE;
        write->request.offset_bytes = at + (i + 1) * GRAIN_BYTES;
        write->request.length_bytes = BYTES;
        write->request.iov = &iovs[i];
        write->request.iov_count = 1;
        write->request.reply = write_replied;
        write->request.release = write_replied;
        reactor_send(rig.volume->shard->reactor, &write->message, write_submit);
    }
    assert_int_equal(bench_wait(rig.bench, &added), 0);
    bench_pass_time(rig.bench, 20);
    for (uint32_t i = 0; i < WRITES; i++) {
        struct volume_request *request = &writes[i].request;
        assert_true(request->replied);
        assert_int_equal(request->status, 0);
        assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_READ, request->offset_bytes, back,
                                  BYTES),
                         0);
        assert_memory_equal(back, memory[i] + 512, BYTES);
    }
    sim_disk_clear_faults(rig.files[0]);
    sim_disk_release(rig.files[0]);
    rig_free(&rig);
}

/*
 * X3, P9: an extent that is on its way back is nobody's while its disk discards it; who needs it
 * waits for that, but not for a disk that hangs.
 */
static void
a_discard_that_hangs_holds_nobody_up(void **state)
{
    struct rig rig;
    struct export_lookup lookup;
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_DISCARD };

    (void)state;
    rig_create_sized(&rig, 1, 96 * MIB, 0);
    assert_int_equal(bench_make_volume(rig.bench, "p/w", GIB), 0);
    assert_int_equal(bench_make_export(rig.bench, "p/w"), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/w", &lookup), 0);
    struct volume *other = lookup.ret_volume;
    while (write_step(&rig) == 0) {
        assert_true(rig.written_bytes < 96 * MIB);
    }
    assert_int_equal(bench_fill(rig.bench, other, 0, MIB, 2), -ENOSPC);
    sim_disk_add_fault(rig.files[0], &hang);
    assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_DISCARD, 0, NULL, 8 * MIB), 0);
    assert_int_equal(bench_io(rig.bench, rig.volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    uint64_t began_ns = sim_now_ns(rig.bench->sim);
    assert_int_equal(bench_fill(rig.bench, other, 0, MIB, 2), -ENOSPC);
    assert_true(sim_disk_hanging(rig.files[0]) > 0); /* they were asked back, and are waited for */
    assert_in_range(sim_now_ns(rig.bench->sim) - began_ns, 900 * NS_PER_MS, 3 * NS_PER_S);
    sim_disk_clear_faults(rig.files[0]);
    sim_disk_release(rig.files[0]);
    bench_pass_time(rig.bench, 1);
    assert_int_equal(bench_fill(rig.bench, other, 0, MIB, 2), 0);
    assert_true(bench_check(rig.bench, other, 0, MIB, 2));
    bench_release(rig.bench, other);
    rig_free(&rig);
}

/* P7: extents that a volume was granted ahead of need are asked back before another is refused. */
static void
what_is_kept_for_later_is_asked_back(void **state)
{
    struct rig rig;
    struct export_lookup lookup;
    uint64_t other_bytes = 0;

    (void)state;
    rig_create_sized(&rig, 1, GIB, 0);
    assert_int_equal(bench_make_volume(rig.bench, "p/w", 2 * GIB), 0);
    assert_int_equal(bench_make_export(rig.bench, "p/w"), 0);
    assert_int_equal(bench_lookup(rig.bench, 0, "p/w", &lookup), 0);
    const struct pool *pool = rig.volume->pool;
    uint64_t available = allocator_available(&pool->allocator, NULL);
    do {
        assert_int_equal(write_step(&rig), 0);
    } while (rig.volume->extents_owned < rig.written_bytes / MIB + 3);
    while (bench_fill(rig.bench, lookup.ret_volume, other_bytes, STEP_BYTES, 3) == 0) {
        other_bytes += STEP_BYTES;
    }
    assert_in_range((rig.written_bytes + other_bytes) / MIB, available - 1, available);
    bench_release(rig.bench, lookup.ret_volume);
    rig_free(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_system_that_grows_is_used),
        cmocka_unit_test(slow_refusals_come_to_an_end),
        cmocka_unit_test(numbers_of_extents_are_given_again),
        cmocka_unit_test(what_was_discarded_is_used_again),
        cmocka_unit_test(a_discard_that_hangs_holds_nobody_up),
        cmocka_unit_test(what_is_kept_for_later_is_asked_back),
        cmocka_unit_test(a_disk_with_larger_sectors_is_added_under_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
