/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/pool_bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

struct bench *
bench_with_pool(uint64_t seed, const char *const *paths)
{
    struct bench *bench = bench_create(seed, 1);

    for (uint32_t i = 0; i < 4; i++) {
        char path[16];
        snprintf(path, sizeof(path), "/d/%u", i);
        bench_disk(bench, path, DISK_BYTES);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", paths, false), 0);
    return bench;
}

struct volume *
find(struct bench *bench, const char *name)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    return lookup.ret_volume;
}

struct volume *
make(struct bench *bench, const char *name, uint64_t size_bytes)
{
    assert_int_equal(bench_make_volume(bench, name, size_bytes), 0);
    assert_int_equal(bench_make_export(bench, name), 0);
    return find(bench, name);
}

int
import(struct bench *bench, const char *const *paths, bool force, struct pool_import *ret_import)
{
    struct disk_argument disks[8] = { 0 };
    struct pool_import operation = { .disks = disks, .force = force };

    for (uint32_t i = 0; paths[i] != NULL; i++) {
        snprintf(disks[i].spec, sizeof(disks[i].spec), "%s", paths[i]);
        operation.disk_count++;
    }
    int result = bench_pool_import(bench, &operation);
    if (ret_import != NULL) {
        *ret_import = operation;
    }
    return result;
}

void
set_missing(struct bench *bench, const char *path, bool missing)
{
    sim_disk_set_missing(sim_disk_find(bench->sim, path), missing);
}

void
write_and_flush(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
                uint64_t length_bytes, uint8_t seed)
{
    assert_int_equal(bench_fill(bench, volume, offset_bytes, length_bytes, seed), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
}

void
end_clean(struct bench *bench)
{
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

void
churn(struct bench *bench, struct volume *volume, uint32_t count)
{
    uint8_t block[4096] = { 1 };

    for (uint32_t i = 0; i < count; i++) {
        enum volume_operation operation = (i & 1) == 0 ? VOLUME_WRITE : VOLUME_DISCARD;
        assert_int_equal(bench_io(bench, volume, operation, 900 * MIB,
                                  operation == VOLUME_WRITE ? block : NULL, 4096),
                         0);
        assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    }
}

void
copy_disk(struct bench *bench, const char *from, const char *to)
{
    struct sim_disk *source = sim_disk_find(bench->sim, from);
    struct sim_disk *target = sim_disk_find(bench->sim, to);
    uint8_t *data = malloc(MIB);

    assert_non_null(data);
    for (uint64_t at = 0; at < DISK_BYTES; at += MIB) {
        sim_disk_peek(source, at, data, MIB);
        sim_disk_poke(target, at, data, MIB);
    }
    free(data);
}

void
hang(struct bench *bench, const char *path)
{
    struct sim_fault fault = { .action = SIM_FAULT_HANG };
    sim_disk_add_fault(sim_disk_find(bench->sim, path), &fault);
}

void
let_go(struct bench *bench, const char *path)
{
    struct sim_disk *disk = sim_disk_find(bench->sim, path);

    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    bench_pass_time(bench, 10);
}

struct bench *
bench_with_tiers(struct volume **ret_one)
{
    struct bench *bench = bench_create(3, 1);
    struct disk_argument disks[] = { { .spec = "/d/0" }, { .spec = "/d/1", .tier = 1 } };
    struct pool_create create = { .name = "p", .extent_bytes = MIB, .disk_count = 2,
                                  .disks = disks };
    struct volume_create volume = { .name = { "p", "one" }, .size_bytes = GIB };

    bench_disk(bench, "/d/0", DISK_BYTES);
    bench_disk(bench, "/d/1", DISK_BYTES);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_create(bench, &create), 0);
    assert_int_equal(bench_volume_create(bench, &volume), 0);
    assert_int_equal(bench_make_export(bench, "p/one"), 0);
    *ret_one = find(bench, "p/one");
    return bench;
}

void
die(struct bench *bench, uint64_t step)
{
    if (step % 2 == 0) {
        bench_kill(bench);
        sim_quiesce(bench->sim, 60 * NS_PER_S);
    } else {
        bench_power_cut(bench, SIM_CUT_BY_SEED);
    }
    sim_stop_at(bench->sim, 0);
}

void
check_opens_with(struct bench *bench, const char *const *paths, uint32_t alone)
{
    assert_int_equal(bench_shutdown(bench), 0);
    for (uint32_t i = 0; paths[i] != NULL; i++) {
        set_missing(bench, paths[i], i != alone);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_DEGRADED);
    assert_int_equal(bench_make_volume(bench, "p/late", GIB), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    for (uint32_t i = 0; paths[i] != NULL; i++) {
        set_missing(bench, paths[i], false);
    }
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
}
