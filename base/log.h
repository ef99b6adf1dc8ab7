/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leveled log lines. The sink is the process's standard error (or the journal, by the <N> prefix
 * that systemd understands); a structured event (volmgr/event.h) is what administrators act on.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR = 3, /* numbers are those of syslog */
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7,
};

/* Set before threads start. Default: NOTICE. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* Prefix lines with <N> for the journal instead of a time stamp. Set before threads start. */
void log_set_journal_format(int enable);

/* One line; thread safe; `format` carries no newline. Never put a secret in. */
void log_line(enum log_level level, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum {
    LOG_LIMIT_LINES = 10,   /* in so many seconds, */
    LOG_LIMIT_SECONDS = 60,
};

/* For lines that a host could ask for without end. Zeroed memory is a fresh one. Any thread. */
struct log_limit {
    uint64_t began_ns; /* atomics */
    uint32_t lines;
    uint32_t left_out;
};

/* One more line now? *ret_left_out: how many were refused since the last period began. */
bool log_limit_take(struct log_limit *limit, uint64_t now_ns, uint32_t *ret_left_out);
/* An error, if the limit lets it through; what was left out before is told first. */
void log_error_limited(struct log_limit *limit, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(component, ...)   log_line(LOG_LEVEL_ERROR, component, __VA_ARGS__)
#define log_warning(component, ...) log_line(LOG_LEVEL_WARNING, component, __VA_ARGS__)
#define log_notice(component, ...)  log_line(LOG_LEVEL_NOTICE, component, __VA_ARGS__)
#define log_info(component, ...)    log_line(LOG_LEVEL_INFO, component, __VA_ARGS__)
#define log_debug(component, ...)                                                                  \
    do {                                                                                           \
        if (log_get_level() >= LOG_LEVEL_DEBUG) {                                                  \
            log_line(LOG_LEVEL_DEBUG, component, __VA_ARGS__);                                     \
        }                                                                                          \
    } while (0)

#endif
