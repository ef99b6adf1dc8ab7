/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A synced commit reaches the disk before it is acknowledged (P2). A killed process cannot show
 * that, for the kernel keeps what was written: here the system calls are counted.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/metadata/harness.h"

static atomic_uint sync_count;

/* Found before the C library's by all that is linked into this program. */
int
fdatasync(int fd)
{
    atomic_fetch_add(&sync_count, 1);
    return (int)syscall(SYS_fdatasync, fd);
}

int
fsync(int fd)
{
    atomic_fetch_add(&sync_count, 1);
    return (int)syscall(SYS_fsync, fd);
}

static void
commit_one(struct harness *harness, struct store *store, bool sync)
{
    struct byte_buffer batch = BYTE_BUFFER_INIT;

    store_batch_put(&batch, STORE_FAMILY_MAP, "key", 3, "value", 5);
    assert_int_equal(harness_commit(harness, store, &batch, sync), 0);
}

static void
a_synced_commit_is_synced(void **state)
{
    struct harness *harness = *state;
    struct store *store = NULL;

    assert_int_equal(harness_store_open(harness, "db", true, false, &store), 0);
    commit_one(harness, store, true);
    for (uint32_t i = 0; i < 8; i++) {
        unsigned before = atomic_load(&sync_count);
        commit_one(harness, store, true);
        assert_true(atomic_load(&sync_count) > before);
    }
    unsigned before = atomic_load(&sync_count);
    commit_one(harness, store, false);
    assert_int_equal(atomic_load(&sync_count), before);
    store->ops->close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_synced_commit_is_synced, harness_start, harness_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
