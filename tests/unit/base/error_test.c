/* SPDX-License-Identifier: Apache-2.0 */
/* Errors for people, log lines, assertions. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/log.h"

static void
test_first_error_wins(void **state)
{
    (void)state;
    struct error error = { 0 };
    assert_int_equal(error_set(&error, -EIO, "disk %d failed", 3), -EIO);
    assert_int_equal(error_set(&error, -EINVAL, "later"), -EINVAL);
    assert_int_equal(error.code, -EIO);
    assert_string_equal(error.message, "disk 3 failed");
    assert_int_equal(error_set(NULL, -ENOSPC, "nobody reads this"), -ENOSPC);
}

static void
test_prefix(void **state)
{
    (void)state;
    struct error error = { 0 };
    assert_int_equal(error_prefix(&error, "pool %s", "p"), 0); /* nothing set: stays unset */
    assert_int_equal(error.code, 0);
    assert_string_equal(error.message, "");
    assert_int_equal(error_prefix(NULL, "x"), 0);

    error_set(&error, -EBUSY, "in use");
    assert_int_equal(error_prefix(&error, "disk %d", 7), -EBUSY);
    assert_int_equal(error_prefix(&error, "pool %s", "p"), -EBUSY);
    assert_string_equal(error.message, "pool p: disk 7: in use");
}

static void
test_long_messages_are_cut_not_overrun(void **state)
{
    (void)state;
    struct {
        struct error error;
        uint8_t canary[8];
    } box = { .canary = "canary!" };
    char text[2 * ERROR_MESSAGE_SIZE];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    error_set(&box.error, -EIO, "%s", text);
    assert_int_equal(strlen(box.error.message), ERROR_MESSAGE_SIZE - 1);
    error_prefix(&box.error, "%s", text);
    assert_true(strlen(box.error.message) < ERROR_MESSAGE_SIZE);
    error_prefix(&box.error, "front");
    assert_memory_equal(box.error.message, "front: aaa", 10);
    assert_memory_equal(box.canary, "canary!", 8);
}

static void
test_error_name(void **state)
{
    (void)state;
    assert_string_equal(error_name(-ENOENT), "No such file or directory");
    assert_string_equal(error_name(ENOENT), "No such file or directory");
    assert_string_equal(error_name(-123456), "unknown error");
}

/* What `action` writes to standard error in a child, and how the child ends. */
static int
run_child(void (*action)(void), char output[static 4096])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        signal(SIGABRT, SIG_DFL);
        action();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t got;
    while (used < 4095 && (got = read(ends[0], output + used, 4095 - used)) > 0) {
        used += (size_t)got;
    }
    output[used] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

static void
fail_comparison(void)
{
    uint32_t seven = 7;
    ASSERT_OP(seven, <=, 3u);
}

static void
fail_condition(void)
{
    ASSERT(1 + 1 == 3);
}

static void
hold(void)
{
    ASSERT(1 + 1 == 2);
    ASSERT_OP(1, <, 2);
}

static void
test_assert(void **state)
{
    (void)state;
    char output[4096];
    int status = run_child(fail_comparison, output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(output, "seven <= 3u (7 against 3)"));
    assert_non_null(strstr(output, "fail_comparison"));
    status = run_child(fail_condition, output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(output, "1 + 1 == 3"));
    status = run_child(hold, output);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(output, "");
}

static void
log_some(void)
{
    log_debug("part", "unseen");
    log_info("part", "unseen");
    log_notice("part", "first %d", 1);
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("part", "second");
    log_set_journal_format(1);
    log_error("part", "third");
    char text[5000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_error("part", "%s", text);
}

static const char *
next_line(const char *line)
{
    const char *end = strchr(line, '\n');
    assert_non_null(end);
    return end + 1;
}

static void
test_log(void **state)
{
    (void)state;
    char output[4096];
    int status = run_child(log_some, output);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_null(strstr(output, "unseen"));
    const char *line = output;
    assert_non_null(strstr(line, "Z N part: first 1\n"));
    line = next_line(line);
    assert_non_null(strstr(line, "Z D part: second\n"));
    line = next_line(line);
    assert_memory_equal(line, "<3>part: third\n", 15);
    line = next_line(line);
    assert_memory_equal(line, "<3>part: xxx", 12);
    assert_true(strlen(line) <= 2048);
    assert_string_equal(next_line(line), "");
}

/* 10 lines a minute; then how many were left out. */
static void
test_log_limit(void **state)
{
    (void)state;
    const uint64_t second = UINT64_C(1000000000);
    struct log_limit limit = { 0 };
    uint32_t left_out = 99;
    uint32_t lines = 0;

    for (uint64_t i = 0; i < 144; i++) {
        lines += log_limit_take(&limit, 5 * second + i, &left_out);
        assert_int_equal(left_out, 0);
    }
    assert_int_equal(lines, LOG_LIMIT_LINES);
    assert_false(log_limit_take(&limit, (4 + LOG_LIMIT_SECONDS) * second, &left_out));
    assert_true(log_limit_take(&limit, (6 + LOG_LIMIT_SECONDS) * second, &left_out));
    assert_int_equal(left_out, 144 - LOG_LIMIT_LINES + 1);
    assert_true(log_limit_take(&limit, (7 + LOG_LIMIT_SECONDS) * second, &left_out));
    assert_int_equal(left_out, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_error_wins),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_long_messages_are_cut_not_overrun),
        cmocka_unit_test(test_error_name),
        cmocka_unit_test(test_assert),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
