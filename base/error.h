/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of the control path. Functions return 0 or -errno; where a person will read the outcome
 * they also fill a struct error with what failed, why, and what to do. The data path uses plain
 * -errno only.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

enum {
    ERROR_MESSAGE_SIZE = 512
};

struct error {
    int code;                         /* -errno, 0 when unset */
    char message[ERROR_MESSAGE_SIZE]; /* one or more sentences; no trailing newline */
};

/*
 * Record the first error; a later one does not mask it. `code` is -errno. Returns `code`, so that
 * callers can write: return error_set(error, -EINVAL, "...");  `error` may be NULL.
 */
int error_set(struct error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " in front of a message that is already set. Returns error->code. */
int error_prefix(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* strerror() of a positive or negative errno, thread safe, never NULL. */
const char *error_name(int code);

#endif
