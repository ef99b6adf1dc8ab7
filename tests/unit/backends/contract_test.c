/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One suite for every backend: what backends/backend.h promises, on memory, files on a disk and on
 * tmpfs, loop devices with 512 and 4096 byte sectors, the fault filter, and a LUN of a foreign
 * target. Where a case cannot be built (no loop devices, no tgtd), its tests are skipped, and say
 * so.
 */
#include "tests/unit/backends/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/fault.h"
#include "base/util.h"
#include "tests/unit/backends/random_io.h"
#include "tests/unit/backends/tgtd.h"

enum {
    DISK_BYTES = 48 << 20,
    RANDOM_OPERATIONS = 4000,
};

struct fixture;

/* One kind of disk. */
struct disk_case {
    const char *name;
    bool (*prepare)(struct fixture *fixture); /* false: cannot be built here */
    void (*destroy)(struct fixture *fixture);
    bool (*grow)(struct fixture *fixture); /* NULL: it cannot */
    bool persistent;                       /* content survives close and open */
    bool locked;                           /* a second open is refused */
    uint32_t block_bytes;
};

struct fixture {
    const struct disk_case *disk_case;
    struct world world;
    bool available;
    char spec[512];
    char path[SUPPORT_PATH_SIZE];
    char device[64];
    struct tgtd tgtd;
};

/* ---- the cases ---- */

static bool
prepare_memory(struct fixture *fixture)
{
    snprintf(fixture->spec, sizeof(fixture->spec), "%s", "mem:48M");
    return true;
}

static bool
prepare_memory_4096(struct fixture *fixture)
{
    snprintf(fixture->spec, sizeof(fixture->spec), "%s", "mem:48M?block=4096");
    return true;
}

static bool
prepare_fault(struct fixture *fixture)
{
    snprintf(fixture->spec, sizeof(fixture->spec), "%s",
             "fault:mem:48M!seed=3;read|write,chance=1/10,short=3000;*,chance=1/50,delay=3");
    return true;
}

static bool
prepare_file(struct fixture *fixture)
{
    snprintf(fixture->path, sizeof(fixture->path), "%.200s/file", fixture->world.directory);
    snprintf(fixture->spec, sizeof(fixture->spec), "file:%s?size=48M", fixture->path);
    return true;
}

static bool
prepare_tmpfs(struct fixture *fixture)
{
    snprintf(fixture->path, sizeof(fixture->path), "%.200s/file",
             fixture->world.volatile_directory);
    snprintf(fixture->spec, sizeof(fixture->spec), "file:%s?size=48M", fixture->path);
    return true;
}

static bool
grow_file(struct fixture *fixture)
{
    return truncate(fixture->path, 64 << 20) == 0;
}

static bool
prepare_loop_of(struct fixture *fixture, uint32_t sector_bytes)
{
    snprintf(fixture->path, sizeof(fixture->path), "%.200s/loop", fixture->world.directory);
    int fd = open(fixture->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    if (!command_output(fixture->device, sizeof(fixture->device), "losetup -f --show -b %u %s",
                        sector_bytes, fixture->path)) {
        return false;
    }
    snprintf(fixture->spec, sizeof(fixture->spec), "%s", fixture->device);
    return true;
}

static bool
prepare_loop_512(struct fixture *fixture)
{
    return prepare_loop_of(fixture, 512);
}

static bool
prepare_loop_4096(struct fixture *fixture)
{
    return prepare_loop_of(fixture, 4096);
}

static bool
grow_loop(struct fixture *fixture)
{
    return truncate(fixture->path, 64 << 20) == 0 && command("losetup -c %s", fixture->device);
}

static void
destroy_loop(struct fixture *fixture)
{
    if (fixture->device[0] != '\0') {
        command("losetup -d %s", fixture->device);
    }
}

static bool
prepare_iscsi(struct fixture *fixture)
{
    struct tgtd *tgtd = &fixture->tgtd;
    if (!tgtd_available()) {
        return false;
    }
    snprintf(tgtd->target, sizeof(tgtd->target), "iqn.2026-11.io.volmgr.test:contract-%d",
             getpid());
    snprintf(tgtd->directory, sizeof(tgtd->directory), "%.200s", fixture->world.directory);
    tgtd->lun_count = 1;
    if (!tgtd_start(tgtd, DISK_BYTES)) {
        return false;
    }
    tgtd_url(tgtd, fixture->spec, sizeof(fixture->spec), "", 1, "");
    return true;
}

static bool
prepare_iscsi_4096(struct fixture *fixture)
{
    fixture->tgtd.block_bytes = 4096;
    return prepare_iscsi(fixture);
}

static bool
grow_iscsi(struct fixture *fixture)
{
    /* The target reads the size of its file when it starts. */
    char path[384];
    snprintf(path, sizeof(path), "%s/lun1", fixture->tgtd.directory);
    tgtd_kill(&fixture->tgtd);
    return truncate(path, 64 << 20) == 0 && tgtd_start(&fixture->tgtd, DISK_BYTES);
}

static void
destroy_iscsi(struct fixture *fixture)
{
    tgtd_kill(&fixture->tgtd);
}

static const struct disk_case cases[] = {
    { "memory", prepare_memory, NULL, NULL, false, false, 512 },
    { "memory-4096", prepare_memory_4096, NULL, NULL, false, false, 4096 },
    { "fault", prepare_fault, NULL, NULL, false, false, 512 },
    { "file", prepare_file, NULL, grow_file, true, true, 0 },
    { "tmpfs", prepare_tmpfs, NULL, grow_file, true, true, 512 },
    { "loop-512", prepare_loop_512, destroy_loop, grow_loop, true, true, 512 },
    { "loop-4096", prepare_loop_4096, destroy_loop, grow_loop, true, true, 4096 },
    { "iscsi", prepare_iscsi, destroy_iscsi, grow_iscsi, true, true, 512 },
    { "iscsi-4096", prepare_iscsi_4096, destroy_iscsi, NULL, true, true, 4096 },
};

/* ---- fixture ---- */

/* cmocka's group setup takes no argument: the group that runs now. */
static const struct disk_case *current_case;

static int
group_setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    fixture->disk_case = current_case;
    world_open(&fixture->world);
    fixture->available = current_case->prepare(fixture);
    if (!fixture->available) {
        print_message("%s: cannot be built on this machine; skipped\n", current_case->name);
    }
    *state = fixture;
    return 0;
}

static int
group_teardown(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->disk_case->destroy != NULL) {
        fixture->disk_case->destroy(fixture);
    }
    world_close(&fixture->world);
    free(fixture);
    return 0;
}

static struct backend *
begin(void **state)
{
    struct fixture *fixture = *state;
    if (!fixture->available) {
        skip();
    }
    return disk_open(&fixture->world, fixture->spec, 0);
}

/* ---- the suite ---- */

static void
test_properties(void **state)
{
    struct fixture *fixture = *state;
    struct backend *disk = begin(state);
    const struct backend_properties *properties = &disk->properties;

    assert_int_equal(properties->size_bytes, DISK_BYTES);
    if (fixture->disk_case->block_bytes != 0) {
        assert_int_equal(properties->block_bytes, fixture->disk_case->block_bytes);
    }
    assert_true(properties->block_bytes == 512 || properties->block_bytes == 4096);
    assert_true(properties->physical_block_bytes >= properties->block_bytes);
    assert_true(is_power_of_two(properties->memory_alignment_bytes));
    assert_int_equal(backend_loss_generation(disk), 0);
    assert_true(fixture->disk_case->grow == NULL || properties->can_grow);
    backend_close(disk);
}

static void
test_random_io(void **state)
{
    struct fixture *fixture = *state;
    struct backend *disk = begin(state);
    struct random_io *work = random_io_create(&fixture->world, disk, 11);

    random_io_run(work, RANDOM_OPERATIONS);
    random_io_verify(work);
    assert_true(work->reads_checked > RANDOM_OPERATIONS / 4);
    struct backend_statistics statistics;
    backend_get_statistics(disk, &statistics);
    uint64_t operations = 0;
    for (uint32_t kind = 0; kind < BACKEND_IO_KIND_COUNT; kind++) {
        operations += statistics.operations[kind];
        assert_int_equal(statistics.errors[kind], 0);
    }
    assert_int_equal(operations, work->started + DISK_BYTES / (1 << 20));
    assert_true(statistics.bytes[BACKEND_WRITE] > 0);
    /* What ends in the pass in which it was submitted takes no time, by the reactor's clock. */
    assert_true(disk->properties.memory_alignment_bytes == 1 ||
                statistics.total_ns[BACKEND_WRITE] > 0);
    assert_int_equal(statistics.in_flight, 0);
    assert_int_equal(statistics.overdue, 0);
    assert_int_equal(backend_loss_generation(disk), 0);

    backend_close(disk);
    if (fixture->disk_case->persistent) {
        work->backend = disk_open(&fixture->world, fixture->spec, 0);
        random_io_verify(work);
        backend_close(work->backend);
    }
    random_io_free(work);
}

static void
test_zeroes_and_discard(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct backend *disk = begin(state);
    uint64_t block = disk->properties.block_bytes;
    uint64_t bytes = 8 << 20;
    uint8_t *data = buffer_new(bytes, 5);
    uint8_t *back = buffer_new(bytes, 6);

    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, bytes), 0);
    /* Odd edges: only these blocks, and all of them. */
    uint64_t from = 3 * block;
    uint64_t length = (5 << 20) + block;
    assert_int_equal(io_do(world, disk, BACKEND_WRITE_ZEROES, from, NULL, length), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, bytes), 0);
    assert_memory_equal(back, data, from);
    for (uint64_t i = from; i < from + length; i++) {
        if (back[i] != 0) {
            fail_msg("byte %llu is not zero", (unsigned long long)i);
        }
    }
    assert_memory_equal(back + from + length, data + from + length, bytes - from - length);
    /* Neighbours of a discard stay. */
    assert_int_equal(io_do(world, disk, BACKEND_DISCARD, 1 << 20, NULL, 4 << 20), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, bytes), 0);
    assert_memory_equal(back, data, from);
    assert_memory_equal(back + from + length, data + from + length, bytes - from - length);
    /* A whole disk at once, and written again. */
    assert_int_equal(io_do(world, disk, BACKEND_WRITE_ZEROES, 0, NULL, DISK_BYTES), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, DISK_BYTES - bytes, back, bytes), 0);
    for (uint64_t i = 0; i < bytes; i++) {
        assert_int_equal(back[i], 0);
    }
    int result = io_do(world, disk, BACKEND_ALLOCATE, 0, NULL, 4 << 20);
    assert_true(result == 0 || result == -EOPNOTSUPP);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, bytes), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, bytes), 0);
    assert_memory_equal(back, data, bytes);
    backend_close(disk);
    free(data);
    free(back);
}

static void
test_edges_and_vectors(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct backend *disk = begin(state);
    uint64_t block = disk->properties.block_bytes;
    uint64_t bytes = 4096 * 600;
    uint8_t *data = buffer_new(bytes, 7);
    uint8_t *back = buffer_new(bytes, 8);
    struct iovec *iov = calloc(600, sizeof(*iov));
    struct test_io io = { 0 };

    assert_int_equal(io_do(world, disk, BACKEND_WRITE, DISK_BYTES - block, data, block), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, DISK_BYTES - block, back, block), 0);
    assert_memory_equal(back, data, block);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data + 4096, block), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, block), 0);
    assert_memory_equal(back, data + 4096, block);

    /* Many entries, backwards in memory; libiscsi, for one, changes them in passing. */
    for (uint32_t i = 0; i < 600; i++) {
        iov[i] = (struct iovec){ data + 4096 * (599 - i), 4096 };
    }
    io.io.kind = BACKEND_WRITE;
    io.io.fua = true;
    io.io.offset_bytes = DISK_BYTES - bytes;
    io.io.length_bytes = bytes;
    io.io.iov = iov;
    io.io.iov_count = 600;
    io_submit(world->reactor, disk, &io);
    assert_int_equal(io_wait(world, &io), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, DISK_BYTES - bytes, back, bytes), 0);
    for (uint32_t i = 0; i < 600; i++) {
        assert_memory_equal(back + 4096 * i, data + 4096 * (599 - i), 4096);
        assert_ptr_equal(iov[i].iov_base, data + 4096 * (599 - i));
        assert_int_equal(iov[i].iov_len, 4096);
    }
    backend_close(disk);
    free(data);
    free(back);
    free(iov);
}

static void
test_open_rules(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct backend *disk = begin(state);
    struct backend *second = NULL;
    struct error error = { 0 };
    uint8_t *data = buffer_new(4096, 21);
    uint8_t *back = buffer_new(4096, 22);

    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    if (fixture->disk_case->locked) {
        assert_int_equal(
            backend_open(world->platform, world->reactor, fixture->spec, 0, &second, &error),
            -EBUSY);
        assert_null(second);
        assert_true(error.message[0] != '\0');
        /* A probe looks past the lock, disturbs nobody, and writes nothing. */
        struct backend *probe = disk_open(world, fixture->spec, BACKEND_OPEN_PROBE);
        assert_int_equal(io_do(world, probe, BACKEND_READ, 0, back, 4096), 0);
        assert_memory_equal(back, data, 4096);
        assert_int_equal(io_do(world, probe, BACKEND_WRITE, 0, back, 4096), -EROFS);
        backend_close(probe);
        assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    }
    backend_close(disk);
    disk = disk_open(world, fixture->spec, BACKEND_OPEN_READ_ONLY);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    if (fixture->disk_case->persistent) {
        assert_memory_equal(back, data, 4096);
    }
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), -EROFS);
    assert_int_equal(io_do(world, disk, BACKEND_DISCARD, 0, NULL, 4096), -EROFS);
    assert_int_equal(io_do(world, disk, BACKEND_FLUSH, 0, NULL, 0), 0);
    backend_close(disk);
    free(data);
    free(back);
}

/* The same disk under the fault filter: a deadline ends the wait, not the operation. */
static void
test_deadline(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    if (!fixture->available) {
        skip();
    }
    char spec[600];
    snprintf(spec, sizeof(spec), "fault:%s!read,nth=1,hang;write,nth=1,hang", fixture->spec);
    struct backend *disk = disk_open(world, spec, 0);
    uint8_t *data = buffer_new(4096, 31);
    uint8_t *back = buffer_new(4096, 32);
    struct test_io write, read;

    io_start(world, disk, &write, BACKEND_WRITE, 0, data, 4096);
    write.io.timeout_ns = 60 * NS_PER_MS;
    io_start(world, disk, &read, BACKEND_READ, 4096, back, 4096);
    read.io.timeout_ns = 30 * NS_PER_MS;
    support_pump(world, 150);
    assert_false(write.ended);
    assert_false(read.ended);
    assert_int_equal(write.overdue_calls, 1);
    assert_int_equal(read.overdue_calls, 1);
    assert_true(read.overdue_order < write.overdue_order);
    struct backend_statistics statistics;
    backend_get_statistics(disk, &statistics);
    assert_int_equal(statistics.overdue, 2);
    assert_int_equal(statistics.in_flight, 2);
    /* Others are not held up. */
    assert_int_equal(io_do(world, disk, BACKEND_READ, 8192, back, 4096), 0);
    assert_int_equal(fault_release(disk), 2);
    assert_int_equal(io_wait(world, &write), 0);
    assert_int_equal(io_wait(world, &read), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    assert_memory_equal(back, data, 4096);
    backend_close(disk);
    free(data);
    free(back);
}

static void
test_sync_transfers(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct backend *disk = begin(state);
    uint8_t *data = buffer_new(3 << 20, 41);
    uint8_t *back = buffer_new(3 << 20, 42);
    uint64_t bytes = 5 * 4096;

    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_WRITE, 4096, data + 5, bytes),
                     0);
    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_READ, 4096, back + 3, bytes), 0);
    assert_memory_equal(back + 3, data + 5, bytes);
    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_WRITE, 0, data, 3 << 20), 0);
    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_READ, 0, back, 3 << 20), 0);
    assert_memory_equal(back, data, 3 << 20);
    backend_close(disk);
    free(data);
    free(back);
}

static void
test_refresh_after_growth(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct backend *disk = begin(state);
    struct error error = { 0 };
    uint8_t *data = buffer_new(4096, 51);
    uint8_t *back = buffer_new(4096, 52);

    assert_int_equal(backend_refresh(disk, &error), 0);
    assert_int_equal(backend_size_bytes(disk), DISK_BYTES);
    if (fixture->disk_case->grow != NULL) {
        assert_true(fixture->disk_case->grow(fixture));
        assert_int_equal(backend_size_bytes(disk), DISK_BYTES);
        if (backend_refresh(disk, &error) < 0) {
            fail_msg("%s", error.message);
        }
        assert_int_equal(backend_size_bytes(disk), 64 << 20);
        assert_int_equal(io_do(world, disk, BACKEND_WRITE, (64 << 20) - 4096, data, 4096), 0);
        assert_int_equal(io_do(world, disk, BACKEND_READ, (64 << 20) - 4096, back, 4096), 0);
        assert_memory_equal(back, data, 4096);
    }
    backend_close(disk);
    free(data);
    free(back);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_properties),         cmocka_unit_test(test_random_io),
        cmocka_unit_test(test_zeroes_and_discard), cmocka_unit_test(test_edges_and_vectors),
        cmocka_unit_test(test_open_rules),         cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_sync_transfers),     cmocka_unit_test(test_refresh_after_growth),
    };
    int failed = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0) {
            continue;
        }
        current_case = &cases[i];
        failed += cmocka_run_group_tests_name(cases[i].name, tests, group_setup, group_teardown);
    }
    return failed != 0;
}
