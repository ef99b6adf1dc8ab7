/* SPDX-License-Identifier: Apache-2.0 */
/* Disks: the rules of the write cache, tearing, space, faults, locks. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/unit/sim/rig.h"

static const struct sim_disk_properties plain = { 0 };

/* ---- the write cache ---- */

static void
reads_see_the_cache(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 1, &plain);
    uint8_t *data = rig_buffer(8192, 0);

    assert_int_equal(rig_fill(&rig, 4096, 4096, 0x11, false), 4096);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 0, data, 8192, false), 8192);
    assert_int_equal(data[4095], 0);
    assert_int_equal(data[4096], 0x11);
    assert_int_equal(data[8191], 0x11);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 4 * MIB - 512, data, 8192, false), 512);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 4 * MIB, data, 512, false), 0);
    assert_int_equal(sim_disk_statistics(rig.disk)->operations[FILE_IO_READ], 3);
    free(data);
    rig_destroy(&rig);
}

static void
flush_keeps_what_it_covers(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 2, &plain);
    assert_int_equal(rig_fill(&rig, 0, 4096, 1, false), 4096);
    assert_int_equal(rig_flush(&rig), 0);
    assert_int_equal(rig_fill(&rig, 4096, 4096, 2, false), 4096);
    assert_int_equal(sim_undecided(rig.sim), 1);
    rig_cut(&rig, SIM_CUT_LOSE_ALL, 0);
    assert_int_equal(rig_peek(&rig, 0), 1);
    assert_int_equal(rig_peek(&rig, 4096), 0);
    sim_destroy(rig.sim);
}

/* What completes after the flush was submitted is not covered, though the flush ends later. */
static void
flush_does_not_cover_what_was_in_flight(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io write, flush;
    rig_create(&rig, 3, &plain);
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_DELAY,
                                                      .kinds = 1u << FILE_IO_FLUSH,
                                                      .delay_ns = NS_PER_S });
    uint8_t *data = rig_buffer(4096, 9);
    rig_submit(&rig, &write, FILE_IO_WRITE, 0, data, 4096, false);
    rig_submit(&rig, &flush, FILE_IO_FLUSH, 0, NULL, 0, false);
    assert_int_equal(rig_wait(&rig, &write), 4096);
    assert_false(flush.finished);
    assert_int_equal(rig_wait(&rig, &flush), 0);
    assert_int_equal(sim_undecided(rig.sim), 1);
    rig_cut(&rig, SIM_CUT_LOSE_ALL, 0);
    assert_int_equal(rig_peek(&rig, 0), 0);
    free(data);
    sim_destroy(rig.sim);
}

static void
fua_is_durable_and_never_undone(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rig rig;
        rig_create(&rig, 4, &plain);
        assert_int_equal(rig_fill(&rig, 0, 8192, 1, false), 8192);
        assert_int_equal(rig_fill(&rig, 4096, 8192, 2, true), 8192);
        assert_int_equal(rig_fill(&rig, 8192, 4096, 3, false), 4096);
        rig_cut(&rig, SIM_CUT_BY_SEED, seed);
        assert_int_equal(rig_peek(&rig, 4096), 2); /* the older write does not come back */
        assert_int_equal(rig_peek(&rig, 8191), 2);
        assert_true(rig_peek(&rig, 8192) == 2 || rig_peek(&rig, 8192) == 3);
        sim_destroy(rig.sim);
    }
}

static void
without_a_cache_completed_is_durable(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 5, &(struct sim_disk_properties){ .write_through = true });
    assert_false(rig.platform->ops->file_properties(rig.file)->write_cache);
    assert_int_equal(rig_fill(&rig, 0, 4096, 1, false), 4096);
    assert_int_equal(sim_undecided(rig.sim), 0);
    rig_cut(&rig, SIM_CUT_LOSE_ALL, 0);
    assert_int_equal(rig_peek(&rig, 0), 1);
    sim_destroy(rig.sim);
}

/* Over many seeds all four outcomes of two unflushed writes to one sector occur, and no other. */
static void
unflushed_writes_survive_as_any_subset(void **state)
{
    (void)state;
    bool seen[4] = { false };
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rig rig;
        rig_create(&rig, 6, &plain);
        assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
        assert_int_equal(rig_fill(&rig, 4096, 512, 1, false), 512);
        rig_cut(&rig, SIM_CUT_BY_SEED, seed);
        uint8_t first = rig_peek(&rig, 0);
        uint8_t second = rig_peek(&rig, 4096);
        assert_true(first <= 1 && second <= 1);
        seen[first * 2 + second] = true;
        sim_destroy(rig.sim);
    }
    for (int i = 0; i < 4; i++) {
        assert_true(seen[i]);
    }
}

/* Same sector: old content, the first or the second write. */
static void
later_write_may_be_lost_while_earlier_is_kept(void **state)
{
    (void)state;
    bool seen[3] = { false };
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rig rig;
        rig_create(&rig, 7, &plain);
        assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
        assert_int_equal(rig_fill(&rig, 0, 512, 2, false), 512);
        rig_cut(&rig, SIM_CUT_BY_SEED, seed);
        assert_true(rig_peek(&rig, 0) <= 2);
        seen[rig_peek(&rig, 0)] = true;
        sim_destroy(rig.sim);
    }
    assert_true(seen[0] && seen[1] && seen[2]);
}

static void
torn_only_between_units(uint32_t atomic_bytes)
{
    uint32_t torn = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rig rig;
        struct rig_io io;
        rig_create(&rig, 8, &(struct sim_disk_properties){ .atomic_bytes = atomic_bytes });
        uint8_t *data = rig_buffer(32768, 0xee);
        uint8_t *after = rig_buffer(32768, 0);
        if (seed % 2 == 0) {
            assert_int_equal(rig_do(&rig, FILE_IO_WRITE, 512, data, 32768, false), 32768);
        } else {
            rig_submit(&rig, &io, FILE_IO_WRITE, 512, data, 32768, true); /* in flight */
        }
        rig_cut(&rig, SIM_CUT_BY_SEED, seed);
        sim_disk_peek(rig.disk, 512, after, 32768);
        uint32_t changes = 0;
        for (uint32_t i = 1; i < 32768; i++) {
            if (after[i] != after[i - 1]) {
                changes++;
                assert_int_equal((i + 512) % atomic_bytes, 0);
            }
        }
        torn += changes > 0;
        assert_int_equal(rig_peek(&rig, 0), 0);
        assert_int_equal(rig_peek(&rig, 512 + 32768), 0);
        free(data);
        free(after);
        sim_destroy(rig.sim);
    }
    assert_in_range(torn, 20, 180);
}

static void
writes_tear_between_sectors_only(void **state)
{
    (void)state;
    torn_only_between_units(512);
    torn_only_between_units(4096);
}

/* ---- discards, zeroes, space ---- */

static void
zeroes_and_discards(void **state)
{
    (void)state;
    bool seen[3] = { false };
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct rig rig;
        rig_create(&rig, seed, &plain);
        assert_int_equal(rig_fill(&rig, 0, 16384, 5, false), 16384);
        assert_int_equal(sim_disk_allocated_bytes(rig.disk), 16384);
        assert_int_equal(rig_do(&rig, FILE_IO_WRITE_ZEROES, 0, NULL, 4096, false), 0);
        assert_int_equal(rig_peek(&rig, 4095), 0);
        assert_int_equal(rig_do(&rig, FILE_IO_DISCARD, 8192, NULL, 8192, false), 0);
        assert_int_equal(sim_disk_allocated_bytes(rig.disk), 8192);
        assert_int_equal(rig_peek(&rig, 8191), 5);
        uint8_t bytes[8192];
        sim_disk_peek(rig.disk, 8192, bytes, sizeof(bytes));
        bool same = memcmp(bytes, bytes + 1, sizeof(bytes) - 1) == 0;
        seen[same && bytes[0] == 0 ? 0 : same && bytes[0] == 5 ? 1 : 2] = true;
        rig_destroy(&rig);
    }
    assert_true(seen[0] && seen[1] && seen[2]);
}

static void
thin_file_runs_out_of_space(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 9, &(struct sim_disk_properties){ .capacity_bytes = 32768 });
    assert_int_equal(rig_do(&rig, FILE_IO_ALLOCATE, 0, NULL, 16384, false), 0);
    assert_int_equal(rig_fill(&rig, MIB, 16384, 1, false), 16384);
    assert_int_equal(rig_fill(&rig, 2 * MIB, 4096, 1, false), -ENOSPC);
    assert_int_equal(rig_peek(&rig, 2 * MIB), 0);
    assert_int_equal(rig_do(&rig, FILE_IO_ALLOCATE, 2 * MIB, NULL, 4096, false), -ENOSPC);
    assert_int_equal(rig_fill(&rig, 4096, 4096, 2, false), 4096);  /* allocated */
    assert_int_equal(rig_fill(&rig, MIB, 16384, 3, false), 16384); /* overwrite */
    assert_int_equal(rig_do(&rig, FILE_IO_DISCARD, 0, NULL, 4096, false), 0);
    assert_int_equal(rig_fill(&rig, 2 * MIB, 4096, 1, false), 4096);
    sim_disk_set_capacity(rig.disk, 65536);
    assert_int_equal(rig_fill(&rig, 3 * MIB, 32768, 1, false), 32768);
    rig_destroy(&rig);
}

static void
dirty_disks_have_old_bytes(void **state)
{
    (void)state;
    struct rig rig;
    uint8_t bytes[4096], zeroes[4096] = { 0 };
    rig_create(&rig, 10, &(struct sim_disk_properties){ .dirty = true });
    sim_disk_peek(rig.disk, MIB, bytes, sizeof(bytes));
    assert_memory_not_equal(bytes, zeroes, sizeof(bytes));
    assert_int_equal(rig_do(&rig, FILE_IO_WRITE_ZEROES, MIB, NULL, 4096, false), 0);
    sim_disk_peek(rig.disk, MIB, bytes, sizeof(bytes));
    assert_memory_equal(bytes, zeroes, sizeof(bytes));
    rig_destroy(&rig);
}

/* ---- what the kernel refuses ---- */

static void
refuses_what_the_kernel_refuses(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 11,
               &(struct sim_disk_properties){ .kind = FILE_KIND_BLOCK_DEVICE, .no_discard = true });
    uint8_t *data = rig_buffer(8192, 1);
    assert_int_equal(rig_do(&rig, FILE_IO_WRITE, 100, data, 512, false), -EINVAL);
    assert_int_equal(rig_do(&rig, FILE_IO_WRITE, 0, data + 1, 512, false), -EINVAL);
    assert_int_equal(rig_do(&rig, FILE_IO_WRITE, 0, data, 100, false), -EINVAL);
    assert_int_equal(rig_do(&rig, FILE_IO_WRITE, 4 * MIB, data, 512, false), -ENOSPC);
    assert_int_equal(rig_do(&rig, FILE_IO_DISCARD, 0, NULL, 4096, false), -EOPNOTSUPP);
    assert_int_equal(rig_do(&rig, FILE_IO_ALLOCATE, 0, NULL, 4096, false), -EOPNOTSUPP);
    assert_int_equal(rig.platform->ops->file_properties(rig.file)->discard_granularity_bytes, 0);

    struct rig reader = rig;
    assert_int_equal(rig.platform->ops->file_open(rig.platform, RIG_DISK, FILE_OPEN_READ_ONLY, 0,
                                                  &reader.file, NULL),
                     0);
    assert_int_equal(rig_do(&reader, FILE_IO_WRITE, 0, data, 512, false), -EBADF);
    assert_int_equal(rig_do(&reader, FILE_IO_READ, 0, data, 512, false), 512);
    rig.platform->ops->file_close(reader.file);
    sim_disk_resize(rig.disk, 8 * MIB);
    assert_int_equal(rig.platform->ops->file_properties(rig.file)->size_bytes, 4 * MIB);
    assert_int_equal(rig.platform->ops->file_refresh(rig.file), 0);
    assert_int_equal(rig.platform->ops->file_properties(rig.file)->size_bytes, 8 * MIB);
    free(data);
    rig_destroy(&rig);
}

static void
opens_locks_and_creates(void **state)
{
    (void)state;
    struct rig rig;
    struct platform_file *file;
    struct error error = { 0 };
    rig_create(&rig, 12, &plain);
    const struct platform_ops *ops = rig.platform->ops;

    assert_int_equal(ops->file_open(rig.platform, "/none", 0, 0, &file, &error), -ENOENT);
    assert_int_equal(error.code, -ENOENT);
    assert_int_equal(ops->file_open(rig.platform, RIG_DISK, FILE_OPEN_LOCK, 0, &file, NULL),
                     -EBUSY);
    assert_int_equal(ops->file_open(rig.platform, RIG_DISK, 0, 0, &file, NULL), 0);
    ops->file_close(file);
    uint32_t new_file = FILE_OPEN_CREATE | FILE_OPEN_EXCLUSIVE_CREATE;
    assert_int_equal(ops->file_open(rig.platform, RIG_DISK, new_file, 0, &file, NULL), -EEXIST);
    assert_int_equal(ops->file_open(rig.platform, "/new", new_file, 12345, &file, NULL), 0);
    assert_int_equal(ops->file_properties(file)->size_bytes, 12345);
    ops->file_close(file);
    sim_disk_set_missing(rig.disk, true);
    assert_int_equal(ops->file_open(rig.platform, RIG_DISK, 0, 0, &file, NULL), -ENOENT);
    rig_destroy(&rig);
}

/* ---- faults ---- */

static void
nth_operation_fails(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 13, &plain);
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_ERROR,
                                                      .kinds = 1u << FILE_IO_WRITE,
                                                      .skip = 2,
                                                      .count = 1,
                                                      .error = ENOSPC });
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_ERROR,
                                                      .kinds = 1u << FILE_IO_READ,
                                                      .offset_bytes = 4096,
                                                      .length_bytes = 512 });
    uint8_t *data = rig_buffer(8192, 0);
    assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
    assert_int_equal(rig_fill(&rig, 0, 512, 2, false), 512);
    assert_int_equal(rig_fill(&rig, 0, 512, 3, false), -ENOSPC);
    assert_int_equal(rig_fill(&rig, 0, 512, 4, false), 512);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 0, data, 4096, false), 4096);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 0, data, 8192, false), -EIO);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 4608, data, 512, false), 512);
    assert_int_equal(sim_disk_statistics(rig.disk)->faults, 2);
    assert_int_equal(sim_disk_statistics(rig.disk)->errors, 2);
    sim_disk_clear_faults(rig.disk);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 0, data, 8192, false), 8192);
    free(data);
    rig_destroy(&rig);
}

static void
short_transfers_end_at_a_sector(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rig rig;
        rig_create(&rig, seed, &plain);
        sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_SHORT, .count = 1 });
        int32_t done = rig_fill(&rig, 0, 8192, 1, false);
        assert_in_range(done, 0, 8192 - 512);
        assert_int_equal(done % 512, 0);
        assert_int_equal(rig_peek(&rig, (uint64_t)done), 0);
        if (done > 0) {
            assert_int_equal(rig_peek(&rig, (uint64_t)done - 1), 1);
        }
        assert_int_equal(rig_flush(&rig), 0);
        rig_cut(&rig, SIM_CUT_LOSE_ALL, 0);
        assert_int_equal(rig_peek(&rig, 0), done > 0);
        sim_destroy(rig.sim);
    }
}

/* The write of a request that was given up long ago still reaches the disk. */
static void
hanging_write_takes_effect_late(void **state)
{
    (void)state;
    struct rig rig;
    struct rig_io io;
    rig_create(&rig, 14, &plain);
    uint8_t *data = rig_buffer(4096, 1);
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_HANG, .count = 1 });
    rig_submit(&rig, &io, FILE_IO_WRITE, 0, data, 4096, false);
    assert_int_equal(sim_run_for(rig.sim, 1000 * NS_PER_S), 0);
    assert_false(io.finished);
    assert_int_equal(sim_disk_hanging(rig.disk), 1);
    assert_int_equal(rig_fill(&rig, 0, 4096, 2, false), 4096);
    assert_int_equal(rig_peek(&rig, 0), 2);
    sim_disk_release(rig.disk);
    assert_int_equal(rig_wait(&rig, &io), 4096);
    assert_int_equal(rig_peek(&rig, 0), 1);
    assert_int_equal(sim_disk_hanging(rig.disk), 0);
    free(data);
    rig_destroy(&rig);
}

static void
bit_rot_changes_one_bit_of_memory(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 15, &plain);
    uint8_t *data = rig_buffer(4096, 0);
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_BIT_ROT, .count = 1 });
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 0, data, 4096, false), 4096);
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 4096; i++) {
        bits += (uint32_t)__builtin_popcount(data[i]);
    }
    assert_int_equal(bits, 1);
    assert_int_equal(rig_do(&rig, FILE_IO_READ, 0, data, 4096, false), 4096);
    for (uint32_t i = 0; i < 4096; i++) {
        assert_int_equal(data[i], 0);
    }
    free(data);
    rig_destroy(&rig);
}

static void
misdirected_write_lands_elsewhere(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 16, &plain);
    sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_MISDIRECT, .count = 1 });
    assert_int_equal(rig_fill(&rig, 8192, 512, 7, false), 512);
    assert_int_equal(rig_peek(&rig, 8192), 0);
    uint32_t found = 0;
    for (uint64_t at = 0; at < 4 * MIB; at += 512) {
        found += rig_peek(&rig, at) == 7;
    }
    assert_int_equal(found, 1);
    rig_destroy(&rig);
}

/* The flush fails, the next one succeeds, and the data are gone all the same. */
static void
failed_flush_loses_the_cache(void **state)
{
    (void)state;
    for (int keeps_reads = 0; keeps_reads <= 1; keeps_reads++) {
        uint32_t lost = 0;
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct rig rig;
            rig_create(&rig, seed, &plain);
            sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_LOSE_CACHE,
                                                              .kinds = 1u << FILE_IO_FLUSH,
                                                              .skip = 1,
                                                              .count = 1,
                                                              .keeps_reads = keeps_reads != 0 });
            assert_int_equal(rig_fill(&rig, 4096, 512, 1, false), 512);
            assert_int_equal(rig_flush(&rig), 0);
            assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
            assert_int_equal(rig_flush(&rig), -EIO);
            uint8_t read_after_failure = rig_peek(&rig, 0);
            assert_int_equal(rig_flush(&rig), 0);
            assert_int_equal(sim_undecided(rig.sim), 0);
            rig_cut(&rig, SIM_CUT_KEEP_ALL, seed);
            assert_int_equal(rig_peek(&rig, 4096), 1);
            lost += rig_peek(&rig, 0) == 0;
            assert_int_equal(read_after_failure, keeps_reads ? 1 : rig_peek(&rig, 0));
            sim_destroy(rig.sim);
        }
        assert_in_range(lost, 5, 35);
    }
}

/* What a lost cache keeps is decided write by write. */
static void
lost_cache_keeps_some(void **state)
{
    (void)state;
    bool seen[4] = { false };
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rig rig;
        rig_create(&rig, seed, &plain);
        assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
        assert_int_equal(rig_fill(&rig, 4096, 512, 1, false), 512);
        sim_disk_reset(rig.disk);
        seen[rig_peek(&rig, 0) * 2 + rig_peek(&rig, 4096)] = true;
        rig_destroy(&rig);
    }
    assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

/* A flush that merely fails loses nothing, and promises nothing. */
static void
failed_flush_may_be_repeated(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 17, &plain);
    sim_disk_add_fault(
        rig.disk,
        &(struct sim_fault){ .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_FLUSH, .count = 1 });
    assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
    assert_int_equal(rig_flush(&rig), -EIO);
    assert_int_equal(sim_undecided(rig.sim), 1);
    assert_int_equal(rig_flush(&rig), 0);
    assert_int_equal(sim_undecided(rig.sim), 0);
    rig_destroy(&rig);
}

static void
reset_fails_what_is_in_flight(void **state)
{
    (void)state;
    uint32_t lost = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct rig rig;
        struct rig_io io, hanging;
        rig_create(&rig, seed, &plain);
        uint8_t *data = rig_buffer(4096, 2);
        assert_int_equal(rig_fill(&rig, 0, 512, 1, false), 512);
        sim_disk_add_fault(rig.disk, &(struct sim_fault){ .action = SIM_FAULT_HANG, .count = 1 });
        rig_submit(&rig, &hanging, FILE_IO_WRITE, MIB, data, 4096, false);
        rig_submit(&rig, &io, FILE_IO_WRITE, 8192, data, 4096, false);
        sim_disk_reset(rig.disk);
        assert_int_equal(rig_wait(&rig, &io), -EIO);
        assert_int_equal(rig_wait(&rig, &hanging), -EIO);
        lost += rig_peek(&rig, 0) == 0;
        free(data);
        rig_destroy(&rig);
    }
    assert_in_range(lost, 5, 35);
}

static void
poke_and_damage_are_durable(void **state)
{
    (void)state;
    struct rig rig;
    rig_create(&rig, 18, &plain);
    const uint8_t text[] = "label";
    uint8_t before[100], after[100];
    sim_disk_poke(rig.disk, 1000, text, sizeof(text));
    sim_disk_damage(rig.disk, 5000, sizeof(before), 3);
    sim_disk_peek(rig.disk, 5000, before, sizeof(before));
    uint64_t hash = sim_disk_content_hash(rig.disk);
    assert_int_equal(hash, sim_disk_durable_hash(rig.disk));
    rig_cut(&rig, SIM_CUT_LOSE_ALL, 0);
    sim_disk_peek(rig.disk, 1000, after, sizeof(text));
    assert_string_equal((char *)after, "label");
    sim_disk_peek(rig.disk, 5000, after, sizeof(after));
    assert_memory_equal(before, after, sizeof(after));
    assert_int_equal(hash, sim_disk_content_hash(rig.disk));
    sim_destroy(rig.sim);
}

/* Returns how the child ended when the buffer of a write changes before the write is done. */
static int
status_after_payload_change(bool allowed)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rig rig = {
            .sim = sim_create(&(struct sim_options){ .seed = 1, .allow_payload_changes = allowed }),
        };
        struct rig_io io;
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(99);
        }
        signal(SIGABRT, SIG_DFL);
        (void)sim_disk_create(rig.sim, RIG_DISK,
                              &(struct sim_disk_properties){ .size_bytes = MIB });
        rig_start_on(&rig, rig.sim);
        uint8_t *data = rig_buffer(4096, 1);
        rig_submit(&rig, &io, FILE_IO_WRITE, 0, data, 4096, false);
        data[100] = 2;
        (void)sim_quiesce(rig.sim, NS_PER_S);
        _exit(rig_peek(&rig, 100)); /* what was submitted */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void
changing_a_payload_in_flight_is_noticed(void **state)
{
    (void)state;
    int status = status_after_payload_change(false);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    status = status_after_payload_change(true);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_see_the_cache),
        cmocka_unit_test(flush_keeps_what_it_covers),
        cmocka_unit_test(flush_does_not_cover_what_was_in_flight),
        cmocka_unit_test(fua_is_durable_and_never_undone),
        cmocka_unit_test(without_a_cache_completed_is_durable),
        cmocka_unit_test(unflushed_writes_survive_as_any_subset),
        cmocka_unit_test(later_write_may_be_lost_while_earlier_is_kept),
        cmocka_unit_test(writes_tear_between_sectors_only),
        cmocka_unit_test(zeroes_and_discards),
        cmocka_unit_test(thin_file_runs_out_of_space),
        cmocka_unit_test(dirty_disks_have_old_bytes),
        cmocka_unit_test(refuses_what_the_kernel_refuses),
        cmocka_unit_test(opens_locks_and_creates),
        cmocka_unit_test(nth_operation_fails),
        cmocka_unit_test(short_transfers_end_at_a_sector),
        cmocka_unit_test(hanging_write_takes_effect_late),
        cmocka_unit_test(bit_rot_changes_one_bit_of_memory),
        cmocka_unit_test(misdirected_write_lands_elsewhere),
        cmocka_unit_test(failed_flush_loses_the_cache),
        cmocka_unit_test(lost_cache_keeps_some),
        cmocka_unit_test(failed_flush_may_be_repeated),
        cmocka_unit_test(reset_fails_what_is_in_flight),
        cmocka_unit_test(poke_and_damage_are_durable),
        cmocka_unit_test(changing_a_payload_in_flight_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
