/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that outlives the process; clock, randomness, boot id. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/io/io_test.h"

enum {
    SIZE = 3 * 4096 + 100
};

static struct {
    char directory[64];
    struct platform *platform;
} test;

static int
setup(void **state)
{
    (void)state;
    struct error error = { 0 };
    snprintf(test.directory, sizeof(test.directory), "/dev/shm/volmgr-test-XXXXXX");
    assert_non_null(mkdtemp(test.directory));
    return platform_uring_create(test.directory, &test.platform, &error);
}

static int
teardown(void **state)
{
    (void)state;
    platform_uring_destroy(test.platform);
    return rmdir(test.directory); /* nothing was left behind */
}

static uint8_t *
map(const char *name, size_t size_bytes, bool expect_existed)
{
    void *memory = NULL;
    bool existed = !expect_existed;
    struct error error = { 0 };
    if (test.platform->ops->volatile_map(test.platform, name, size_bytes, &memory, &existed,
                                         &error) < 0) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(existed, expect_existed);
    return memory;
}

static void
test_new_is_zeroed_and_kept(void **state)
{
    (void)state;
    uint8_t *memory = map("ring-0", SIZE, false);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(memory[i], 0);
        memory[i] = (uint8_t)(i * 7 + 1);
    }
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);

    memory = map("ring-0", SIZE, true);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(memory[i], (uint8_t)(i * 7 + 1));
    }
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);
    assert_int_equal(test.platform->ops->volatile_remove(test.platform, "ring-0"), 0);
    assert_int_equal(test.platform->ops->volatile_remove(test.platform, "ring-0"), -ENOENT);
}

static void
test_survives_a_killed_process(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        uint8_t *memory = map("ring", SIZE, false);
        memcpy(memory + 4090, "acknowledged", 12); /* over the end of a page */
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    uint8_t *memory = map("ring", SIZE, true);
    assert_memory_equal(memory + 4090, "acknowledged", 12);
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);
    assert_int_equal(test.platform->ops->volatile_remove(test.platform, "ring"), 0);
}

static void
test_another_size_starts_anew(void **state)
{
    (void)state;
    uint8_t *memory = map("ring", SIZE, false);
    memset(memory, 1, SIZE);
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);
    memory = map("ring", 2 * SIZE, false);
    for (size_t i = 0; i < 2 * SIZE; i++) {
        assert_int_equal(memory[i], 0);
    }
    memset(memory, 2, 2 * SIZE);
    test.platform->ops->volatile_unmap(test.platform, memory, 2 * SIZE);
    memory = map("ring", SIZE, false); /* smaller again */
    assert_int_equal(memory[0] | memory[SIZE - 1], 0);
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);
    assert_int_equal(test.platform->ops->volatile_remove(test.platform, "ring"), 0);
}

static void
test_memory_is_there_from_the_start(void **state)
{
    (void)state;
    char path[128];
    struct stat status;
    uint8_t *memory = map("ring", SIZE, false);
    snprintf(path, sizeof(path), "%s/ring", test.directory);
    assert_int_equal(stat(path, &status), 0);
    assert_true((uint64_t)status.st_blocks * 512 >= SIZE); /* no store can meet a full tmpfs */
    assert_int_equal(status.st_mode & 07777, 0600);
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);

    /* A file of the right size with holes in it is not taken for one of ours. */
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, SIZE), 0);
    memory = map("ring", SIZE, false);
    assert_int_equal(stat(path, &status), 0);
    assert_true((uint64_t)status.st_blocks * 512 >= SIZE);
    test.platform->ops->volatile_unmap(test.platform, memory, SIZE);
    assert_int_equal(test.platform->ops->volatile_remove(test.platform, "ring"), 0);
}

static void
test_too_large_is_an_error(void **state)
{
    (void)state;
    void *memory = &test;
    bool existed = true;
    struct error error = { 0 };
    int result = test.platform->ops->volatile_map(test.platform, "ring", (size_t)1 << 45, &memory,
                                                  &existed, &error);
    assert_int_equal(result, -ENOSPC);
    assert_ptr_equal(memory, &test); /* untouched */
    assert_true(existed);
    assert_non_null(strstr(error.message, "ring"));
}

static void
test_directory_must_be_in_memory(void **state)
{
    (void)state;
    struct platform *platform = NULL;
    struct error error = { 0 };
    assert_int_equal(platform_uring_create("/dev/shm/volmgr-not-there", &platform, &error),
                     -ENOENT);
    error = (struct error){ 0 };
    assert_int_equal(platform_uring_create("/proc", &platform, &error), -EINVAL);
    assert_non_null(strstr(error.message, "/proc is not on tmpfs"));
    assert_null(platform);
}

static void
test_boot_id_clock_random(void **state)
{
    (void)state;
    const struct platform_ops *ops = test.platform->ops;
    char text[37];
    memset(text, 'x', sizeof(text));
    ops->boot_id(test.platform, text);
    assert_int_equal(strlen(text), 36);
    assert_int_equal(strspn(text, "0123456789abcdef-"), 36);
    assert_int_equal(text[8], '-');

    uint64_t before_ns = ops->monotonic_ns(test.platform);
    usleep(2000);
    uint64_t after_ns = ops->monotonic_ns(test.platform);
    assert_in_range(after_ns - before_ns, 2 * NS_PER_MS, 2 * NS_PER_S);
    assert_true(ops->realtime_ns(test.platform) > UINT64_C(1600000000) * NS_PER_S);

    uint64_t seen_or = 0;
    uint64_t seen_and = UINT64_MAX;
    for (int i = 0; i < 64; i++) {
        uint64_t value = ops->random_u64(test.platform);
        seen_or |= value;
        seen_and &= value;
    }
    assert_true(seen_or == UINT64_MAX && seen_and == 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_new_is_zeroed_and_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_survives_a_killed_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_size_starts_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_is_there_from_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_large_is_an_error, setup, teardown),
        cmocka_unit_test(test_directory_must_be_in_memory),
        cmocka_unit_test_setup_teardown(test_boot_id_clock_random, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
