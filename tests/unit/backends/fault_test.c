/* SPDX-License-Identifier: Apache-2.0 */
/* The fault filter over memory. */
#include "tests/unit/backends/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fault.h"
#include "backends/guard.h"
#include "base/util.h"

static int
setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    world_open(world);
    *state = world;
    return 0;
}

static int
teardown(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

static void
test_errors(void **state)
{
    struct world *world = *state;
    struct backend *disk =
        disk_open(world, "fault:mem:1M!write,nth=2,errno=EIO;read,range=64K+4K,errno=ENODATA", 0);
    uint8_t *data = buffer_new(8192, 1);
    uint8_t *back = buffer_new(8192, 2);

    assert_string_equal(disk->ops->type, "fault");
    assert_string_equal(fault_child(disk)->ops->type, "memory");
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data + 4096, 4096), -EIO);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    assert_memory_equal(back, data, 4096); /* nothing was done */
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data + 4096, 4096), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 60 << 10, back, 4096), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 60 << 10, back, 8192), -ENODATA);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 68 << 10, back, 4096), 0);
    assert_int_equal(fault_hits(disk), 2);

    fault_clear_rules(disk);
    struct error error = { 0 };
    assert_int_equal(fault_add_rules(disk, "write,drop", &error), 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0); /* a lie */
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    assert_memory_equal(back, data + 4096, 4096);
    assert_int_equal(fault_add_rules(disk, "nonsense", &error), -EINVAL);
    backend_close(disk);
    free(data);
    free(back);
}

static void
test_flush_failure_raises_loss(void **state)
{
    struct world *world = *state;
    struct backend *disk =
        disk_open(world, "fault:mem:1M!flush,nth=2,errno=EIO;write,nth=1,loss", 0);
    uint8_t *data = buffer_new(4096, 1);

    assert_int_equal(io_do(world, disk, BACKEND_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(backend_loss_generation(disk), 0);
    assert_int_equal(io_do(world, disk, BACKEND_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(backend_loss_generation(disk), 1);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    assert_int_equal(backend_loss_generation(disk), 2);
    /* A loss of the disk below reaches the top with the next completion. */
    guard_raise_loss(fault_child(disk));
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, data, 4096), 0);
    assert_int_equal(backend_loss_generation(disk), 3);
    backend_close(disk);
    free(data);
}

static void
test_short_delay_hang(void **state)
{
    struct world *world = *state;
    struct backend *disk = disk_open(
        world, "fault:mem:1M!write,short=1000;read,nth=2,delay=30;discard,hang,errno=EIO", 0);
    uint8_t *data = buffer_new(8192, 1);
    uint8_t *back = buffer_new(8192, 2);
    struct test_io io;

    /* Sixteen pieces of one block each, put together by the guard. */
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 8192), 0);
    assert_int_equal(fault_hits(disk), 16);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 8192), 0);
    assert_memory_equal(back, data, 8192);

    uint64_t start_ms = support_now_ms();
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 512), 0);
    assert_true(support_now_ms() - start_ms >= 29);

    memset(&io, 0, sizeof(io));
    io.io.kind = BACKEND_DISCARD;
    io.io.length_bytes = 4096;
    io.io.timeout_ns = 20 * NS_PER_MS;
    io_submit(world->reactor, disk, &io);
    support_pump(world, 60);
    assert_false(io.ended);
    assert_int_equal(io.overdue_calls, 1);
    assert_int_equal(fault_hanging(disk), 1);
    assert_int_equal(fault_release(disk), 1);
    assert_int_equal(io_wait(world, &io), -EIO);
    assert_int_equal(fault_hanging(disk), 0);
    assert_int_equal(fault_release(disk), 0);
    backend_close(disk);
    free(data);
    free(back);
}

static void
test_filter_over_filter(void **state)
{
    struct world *world = *state;
    struct backend *disk =
        disk_open(world, "fault:fault:mem:1M!read,errno=EIO!write,errno=EROFS", 0);
    uint8_t *data = buffer_new(4096, 1);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), -EROFS);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, data, 4096), -EIO);
    assert_int_equal(fault_hits(disk), 1);
    assert_int_equal(fault_hits(fault_child(disk)), 1);
    backend_close(disk);
    free(data);

    struct error error = { 0 };
    struct backend *none = NULL;
    assert_int_equal(
        backend_open(world->platform, world->reactor, "fault:mem:1M!what", 0, &none, &error),
        -EINVAL);
    error.code = 0;
    assert_int_equal(
        backend_open(world->platform, world->reactor, "fault:mem:what!read", 0, &none, &error),
        -EINVAL);
    assert_null(none);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_flush_failure_raises_loss),
        cmocka_unit_test(test_short_delay_hang),
        cmocka_unit_test(test_filter_over_filter),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
