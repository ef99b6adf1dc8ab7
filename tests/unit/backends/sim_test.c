/* SPDX-License-Identifier: Apache-2.0 */
/* The file backend on the simulated platform: the same code, virtual time, chosen misfortunes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "backends/backend.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"

enum {
    DISK_BYTES = 1 << 20,
    DISK_BLOCKS = DISK_BYTES / 512,
    OPERATIONS = 200,
};

static const char disk_path[] = "sim:disk";

/* A process with one reactor and one disk; its operations, one after the other. */
struct rig {
    struct sim *sim;
    struct sim_disk *disk;
    struct reactor *reactor;
    struct backend *backend;
    struct backend_io io;
    struct message message;
    struct iovec iov[2];
    bool ended;
    uint32_t overdue_calls;
    uint8_t data[64 << 10] __attribute__((aligned(4096)));
    uint8_t model[DISK_BYTES];
};

/* The rig is the test's, not the simulated process's. */
static struct rig the_rig;

static void
process_start(struct rig *rig)
{
    const struct reactor_options options = { .id = 0, .cpu = -1 };
    struct error error = { 0 };
    sim_process_enter(rig->sim);
    int result = reactor_create(sim_platform(rig->sim), &options, &rig->reactor, &error);
    if (result == 0) {
        result =
            backend_open(sim_platform(rig->sim), rig->reactor, disk_path, 0, &rig->backend, &error);
    }
    sim_process_leave(rig->sim);
    if (result < 0) {
        fail_msg("%s", error.message);
    }
    memset(&rig->io, 0, sizeof(rig->io));
}

static void
process_end(struct rig *rig)
{
    sim_process_enter(rig->sim);
    backend_close(rig->backend);
    reactor_destroy(rig->reactor);
    sim_process_leave(rig->sim);
    assert_int_equal(sim_process_blocks(rig->sim), 0);
}

static struct rig *
rig_create(uint64_t seed, const struct sim_disk_properties *properties)
{
    struct rig *rig = &the_rig;
    memset(rig, 0, sizeof(*rig));
    rig->sim = sim_create(&(struct sim_options){ .seed = seed });
    struct sim_disk_properties filled = *properties;
    filled.size_bytes = DISK_BYTES;
    rig->disk = sim_disk_create(rig->sim, disk_path, &filled);
    process_start(rig);
    return rig;
}

static void
rig_destroy(struct rig *rig)
{
    process_end(rig);
    sim_destroy(rig->sim);
}

static void
rig_done(struct io_op *op)
{
    container_of(op, struct rig, io.op)->ended = true;
}

static void
rig_overdue(struct backend_io *io)
{
    container_of(io, struct rig, io)->overdue_calls++;
}

static void
rig_submit(struct message *message)
{
    struct rig *rig = container_of(message, struct rig, message);
    rig->io.op.done = rig_done;
    rig->io.overdue = rig_overdue;
    backend_submit(rig->backend, &rig->io);
}

static bool
rig_ended(void *context)
{
    return ((struct rig *)context)->ended;
}

static void
rig_start(struct rig *rig, enum backend_io_kind kind, bool fua, uint64_t block, uint64_t blocks)
{
    uint64_t bytes = blocks * 512;
    rig->io.kind = kind;
    rig->io.fua = fua;
    rig->io.offset_bytes = block * 512;
    rig->io.length_bytes = bytes;
    rig->iov[0] = (struct iovec){ rig->data, align_down(bytes / 2, 512) };
    rig->iov[1] = (struct iovec){ rig->data + rig->iov[0].iov_len, bytes - rig->iov[0].iov_len };
    rig->io.iov = rig->iov;
    rig->io.iov_count = 2;
    rig->ended = false;
    reactor_send(rig->reactor, &rig->message, rig_submit);
}

static int
rig_wait(struct rig *rig)
{
    assert_int_equal(sim_run_until(rig->sim, rig_ended, rig, 100 * NS_PER_S), 0);
    return rig->io.op.result;
}

static int
rig_do(struct rig *rig, enum backend_io_kind kind, bool fua, uint64_t block, uint64_t blocks)
{
    rig_start(rig, kind, fua, block, blocks);
    return rig_wait(rig);
}

/* A short transfer of nothing at all is an error (B4); then once more without misfortune. */
static int
rig_do_patiently(struct rig *rig, enum backend_io_kind kind, bool fua, uint64_t block,
                 uint64_t blocks)
{
    int result = rig_do(rig, kind, fua, block, blocks);
    if (result == -EIO) {
        sim_disk_clear_faults(rig->disk);
        result = rig_do(rig, kind, fua, block, blocks);
    }
    return result;
}

static void
random_bytes(struct random *random, uint8_t *data, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t value = random_u64(random);
        memcpy(data + i, &value, 8);
    }
}

/* One run; returns the hash of all that happened. */
static uint64_t
run_with_short_transfers(uint64_t seed)
{
    struct random random;
    struct rig *rig = rig_create(seed, &(struct sim_disk_properties){ 0 });
    random_seed(&random, seed);
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        uint64_t blocks = 2 + random_below(&random, 126);
        uint64_t block = random_below(&random, DISK_BLOCKS - blocks + 1);
        bool fua = random_chance(&random, 1, 4);
        sim_disk_clear_faults(rig->disk);
        if (random_chance(&random, 1, 2)) {
            sim_disk_add_fault(rig->disk,
                               &(struct sim_fault){ .action = SIM_FAULT_SHORT, .count = 1 });
        }
        switch (random_below(&random, 4)) {
        case 0:
            random_bytes(&random, rig->data, blocks * 512);
            assert_int_equal(rig_do_patiently(rig, BACKEND_WRITE, fua, block, blocks), 0);
            memcpy(rig->model + block * 512, rig->data, blocks * 512);
            break;
        case 1:
            assert_int_equal(rig_do(rig, BACKEND_WRITE_ZEROES, fua, block, blocks), 0);
            memset(rig->model + block * 512, 0, blocks * 512);
            break;
        case 2:
            assert_int_equal(rig_do(rig, BACKEND_FLUSH, false, 0, 0), 0);
            break;
        default:
            assert_int_equal(rig_do_patiently(rig, BACKEND_READ, false, block, blocks), 0);
            assert_memory_equal(rig->data, rig->model + block * 512, blocks * 512);
            break;
        }
    }
    uint64_t hash = sim_trace_hash(rig->sim);
    rig_destroy(rig);
    return hash;
}

static void
test_short_transfers(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        assert_true(run_with_short_transfers(seed) == run_with_short_transfers(seed));
    }
}

/* What FUA and FLUSH promise holds through a power cut. */
static void
test_durable_means_durable(void **state)
{
    const struct sim_cut cut = { .mode = SIM_CUT_LOSE_ALL };
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct random random;
        struct rig *rig = rig_create(seed, &(struct sim_disk_properties){ .dirty = true });
        random_seed(&random, seed);
        random_bytes(&random, rig->model, 64 << 10);
        memcpy(rig->data, rig->model, 16 << 10);
        assert_int_equal(rig_do(rig, BACKEND_WRITE, true, 0, 32), 0);
        assert_int_equal(rig_do(rig, BACKEND_WRITE_ZEROES, true, 8, 4), 0);
        memset(rig->model + 8 * 512, 0, 4 * 512);
        sim_power_cut(rig->sim, &cut);
        process_start(rig);
        assert_int_equal(rig_do(rig, BACKEND_READ, false, 0, 32), 0);
        assert_memory_equal(rig->data, rig->model, 16 << 10);

        random_bytes(&random, rig->data, 16 << 10);
        memcpy(rig->model, rig->data, 16 << 10);
        assert_int_equal(rig_do(rig, BACKEND_WRITE, false, 0, 32), 0);
        assert_int_equal(rig_do(rig, BACKEND_FLUSH, false, 0, 0), 0);
        sim_power_cut(rig->sim, &cut);
        process_start(rig);
        assert_int_equal(rig_do(rig, BACKEND_READ, false, 0, 32), 0);
        assert_memory_equal(rig->data, rig->model, 16 << 10);
        assert_true(rig->backend->properties.kept_unflushed);
        rig_destroy(rig);
    }
}

static void
test_hang_is_overdue_in_virtual_time(void **state)
{
    struct rig *rig = rig_create(3, &(struct sim_disk_properties){ 0 });
    (void)state;
    sim_disk_add_fault(rig->disk, &(struct sim_fault){ .action = SIM_FAULT_HANG, .count = 1 });
    uint64_t start_ns = sim_now_ns(rig->sim);
    rig_start(rig, BACKEND_READ, false, 0, 8);
    assert_int_equal(sim_run_for(rig->sim, 29 * NS_PER_S), 0);
    assert_int_equal(rig->overdue_calls, 0);
    assert_int_equal(sim_run_for(rig->sim, 2 * NS_PER_S), 0);
    assert_int_equal(rig->overdue_calls, 1);
    assert_false(rig->ended);
    assert_true(sim_now_ns(rig->sim) - start_ns >= 31 * NS_PER_S);
    sim_disk_release(rig->disk);
    assert_int_equal(rig_wait(rig), 0);
    rig_destroy(rig);
}

static void
test_errors_are_passed_on(void **state)
{
    struct rig *rig = rig_create(4, &(struct sim_disk_properties){ .capacity_bytes = 64 << 10 });
    (void)state;

    /* A thin file system: what was allocated can be written, more cannot. */
    assert_true(rig->backend->properties.thin);
    assert_int_equal(rig_do(rig, BACKEND_ALLOCATE, false, 0, 128), 0);
    assert_int_equal(rig_do(rig, BACKEND_WRITE, false, 256, 8), -ENOSPC);
    assert_int_equal(rig_do(rig, BACKEND_WRITE, false, 0, 128), 0);
    assert_int_equal(rig_do(rig, BACKEND_ALLOCATE, false, 256, 8), -ENOSPC);

    sim_disk_add_fault(
        rig->disk,
        &(struct sim_fault){ .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_FLUSH, .count = 1 });
    assert_int_equal(rig_do(rig, BACKEND_FLUSH, false, 0, 0), -EIO);
    assert_int_equal(backend_loss_generation(rig->backend), 1);
    assert_int_equal(rig_do(rig, BACKEND_FLUSH, false, 0, 0), 0);

    /* A disk that was cut behind our back ends early: an error, and no endless loop. */
    sim_disk_resize(rig->disk, 32 << 10);
    assert_int_equal(rig_do(rig, BACKEND_READ, false, 32, 64), -EIO);
    sim_process_enter(rig->sim);
    struct error error = { 0 };
    assert_int_equal(backend_refresh(rig->backend, &error), -EINVAL);
    sim_process_leave(rig->sim);
    assert_int_equal(backend_size_bytes(rig->backend), DISK_BYTES);
    sim_disk_resize(rig->disk, 2 * DISK_BYTES);
    sim_process_enter(rig->sim);
    assert_int_equal(backend_refresh(rig->backend, &error), 0);
    sim_process_leave(rig->sim);
    assert_int_equal(backend_size_bytes(rig->backend), 2 * DISK_BYTES);
    rig_destroy(rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_transfers),
        cmocka_unit_test(test_durable_means_durable),
        cmocka_unit_test(test_hang_is_overdue_in_virtual_time),
        cmocka_unit_test(test_errors_are_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
