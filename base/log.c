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

void
log_line(enum log_level level, const char *component, const char *format, ...)
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
    va_list arguments;
    va_start(arguments, format);
    int text = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
    va_end(arguments);
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
