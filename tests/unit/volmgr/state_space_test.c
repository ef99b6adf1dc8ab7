/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the file system of the databases fills up: who needs new map entries is refused before a
 * commit fails, and everybody else goes on.
 */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "metadata/store.h"
#include "volmgr/core_impl.h"

#define BALLAST_BYTES (64 * MIB)

/* What the simulated store has no notion of. */
static uint64_t free_bytes;
static int free_status;
static bool held;
static uint32_t taken;
static bool refuses_ballast;

static int
state_free(void *context, uint64_t *ret_free_bytes)
{
    (void)context;
    *ret_free_bytes = free_bytes;
    return free_status;
}

static void
ballast(struct store *store, struct store_ballast *request)
{
    (void)store;
    if (request->hold && refuses_ballast) {
        reactor_complete(&request->op, -ENOSPC);
        return;
    }
    held = request->hold;
    taken += request->hold;
    reactor_complete(&request->op, 0);
}

static struct volume *
find(struct bench *bench)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, "p/one", &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    return lookup.ret_volume;
}

static struct bench *
bench_with_pool(struct store_ops *ops)
{
    static const char *const disks[] = { "/d/0", NULL };
    struct bench *bench = bench_create(1, 2);

    free_bytes = GIB;
    free_status = 0;
    held = true;
    taken = 0;
    refuses_ballast = false;
    bench_disk(bench, disks[0], 256 * MIB);
    bench_disk(bench, "/d/1", 256 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    bench->manager->options.state_free = state_free;
    bench->manager->options.ballast_bytes = BALLAST_BYTES;
    assert_int_equal(bench_make_pool(bench, "p", disks, false), 0);
    *ops = *bench->store->ops;
    ops->ballast = ballast;
    bench->store->ops = ops;
    assert_int_equal(bench_make_volume(bench, "p/one", GIB), 0);
    assert_int_equal(bench_make_export(bench, "p/one"), 0);
    assert_int_equal(bench_fill(bench, find(bench), 0, MIB, 1), 0);
    assert_int_equal(bench_io(bench, find(bench), VOLUME_FLUSH, 0, NULL, 0), 0);
    return bench;
}

static int
write_block(struct bench *bench, uint64_t offset_bytes)
{
    uint8_t block[4096] = { 1 };
    return bench_io(bench, find(bench), VOLUME_WRITE, offset_bytes, block, sizeof(block));
}

static void
only_what_needs_new_entries_is_refused(void **state)
{
    (void)state;
    struct store_ops ops;
    struct bench *bench = bench_with_pool(&ops);
    struct disk_argument disks[1] = { { .spec = "/d/1" } };
    struct pool_add add = { .name = "p", .disks = disks, .disk_count = 1 };
    uint8_t block[4096];

    free_bytes = 2 * BALLAST_BYTES;
    bench_pass_time(bench, 3);
    assert_int_equal(bench_events(bench, "state-space-low"), 0);
    free_bytes -= 1;
    bench_pass_time(bench, 10);
    assert_int_equal(bench_events(bench, "state-space-low"), 1);
    assert_int_equal(write_block(bench, 100 * MIB), 0);
    assert_true(held);
    free_bytes = BALLAST_BYTES / 2 - 1;
    bench_pass_time(bench, 3);
    assert_int_equal(bench_events(bench, "state-space-full"), 1);
    assert_false(held);
    free_bytes += BALLAST_BYTES;
    bench_pass_time(bench, 3);

    assert_int_equal(write_block(bench, 200 * MIB), -ENOSPC);
    assert_int_equal(write_block(bench, 100 * MIB), 0); /* in place */
    assert_int_equal(write_block(bench, 100 * MIB + 4096), 0); /* in the same grain */
    assert_int_equal(
        bench_io(bench, find(bench), VOLUME_READ, 200 * MIB, block, sizeof(block)), 0);
    assert_int_equal(bench_io(bench, find(bench), VOLUME_DISCARD, 0, NULL, 64 * KIB), 0);
    assert_int_equal(bench_io(bench, find(bench), VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_pool_add(bench, &add), 0);
    assert_int_equal(write_block(bench, 0), -ENOSPC); /* more room in the pool is no help */
    assert_int_equal(bench_make_volume(bench, "p/two", GIB), 0);
    assert_int_equal(bench_delete_volume(bench, "p/two"), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);

    free_bytes = 2 * BALLAST_BYTES;
    refuses_ballast = true; /* somebody else was faster */
    bench_pass_time(bench, 3);
    assert_int_equal(write_block(bench, 200 * MIB), -ENOSPC);
    refuses_ballast = false;
    bench_pass_time(bench, 3);
    assert_int_equal(bench_events(bench, "state-space-back"), 1);
    assert_true(held);
    assert_int_equal(taken, 1);
    assert_int_equal(write_block(bench, 200 * MIB), 0);
    assert_int_equal(bench_events(bench, "state-space-low"), 1);
    free_bytes = GIB;
    bench_pass_time(bench, 3);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* It cannot be told: nothing is refused for that, and the watch goes on. */
static void
a_look_that_fails_changes_nothing(void **state)
{
    (void)state;
    struct store_ops ops;
    struct bench *bench = bench_with_pool(&ops);

    free_bytes = 0;
    free_status = -EIO;
    bench_pass_time(bench, 5);
    assert_int_equal(write_block(bench, 200 * MIB), 0);
    free_status = 0;
    bench_pass_time(bench, 3);
    assert_int_equal(write_block(bench, 300 * MIB), -ENOSPC);
    assert_int_equal(bench_shutdown(bench), 0); /* while it refuses */
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_needs_new_entries_is_refused),
        cmocka_unit_test(a_look_that_fails_changes_nothing),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
