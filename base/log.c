/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The only process-wide settings of the libraries: written once by main() before threads start. */
static enum log_level log_level_max = LOG_LEVEL_NOTICE;
static int log_journal_format;

void
log_set_level(enum log_level level)
{
    log_level_max = level;
}

enum log_level
log_get_level(void)
{
    return log_level_max;
}

void
log_set_journal_format(int enable)
{
    log_journal_format = enable;
}

static void __attribute__((format(printf, 3, 0)))
put_line(enum log_level level, const char *component, const char *format, va_list arguments)
{
    if (level > log_level_max) {
        return;
    }
    char line[2048];
    size_t used;
    if (log_journal_format) {
        used = (size_t)snprintf(line, sizeof(line), "<%d>%s: ", (int)level, component);
    } else {
        static const char names[] = "???EWNID";
        struct timespec now;
        struct tm parts;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &parts);
        size_t stamp = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &parts);
        used = stamp + (size_t)snprintf(line + stamp, sizeof(line) - stamp, ".%03ldZ %c %s: ",
                                        now.tv_nsec / 1000000, names[level & 7], component);
    }
    int text = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
    if (text > 0) {
        used += (size_t)text;
    }
    if (used > sizeof(line) - 2) {
        used = sizeof(line) - 2;
    }
    line[used++] = '\n';
    /* One write, so that lines of several threads do not mix. Nothing to do if it fails. */
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written;
}

void
log_line(enum log_level level, const char *component, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    put_line(level, component, format, arguments);
    va_end(arguments);
}

bool
log_limit_take(struct log_limit *limit, uint64_t now_ns, uint32_t *ret_left_out)
{
    uint64_t began_ns = __atomic_load_n(&limit->began_ns, __ATOMIC_RELAXED);

    *ret_left_out = 0;
    if ((began_ns == 0 || now_ns - began_ns >= LOG_LIMIT_SECONDS * UINT64_C(1000000000)) &&
        __atomic_compare_exchange_n(&limit->began_ns, &began_ns, now_ns, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
        __atomic_store_n(&limit->lines, 0, __ATOMIC_RELAXED);
        *ret_left_out = __atomic_exchange_n(&limit->left_out, 0, __ATOMIC_RELAXED);
    }
    if (__atomic_fetch_add(&limit->lines, 1, __ATOMIC_RELAXED) < LOG_LIMIT_LINES) {
        return true;
    }
    __atomic_fetch_add(&limit->left_out, 1, __ATOMIC_RELAXED);
    return false;
}

void
log_error_limited(struct log_limit *limit, const char *component, const char *format, ...)
{
    struct timespec now;
    uint32_t left_out = 0;
    va_list arguments;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!log_limit_take(limit, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
                        &left_out)) {
        return;
    }
    if (left_out > 0) {
        log_error(component, "%u more errors like the next one were not logged", left_out);
    }
    va_start(arguments, format);
    put_line(LOG_LEVEL_ERROR, component, format, arguments);
    va_end(arguments);
}
