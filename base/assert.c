/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void
assert_fail(const char *file, int line, const char *function, const char *condition)
{
    fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", file, line, function, condition);
    abort();
}

_Noreturn void
assert_fail_op(const char *file, int line, const char *function, const char *condition,
               uint64_t left, uint64_t right)
{
    fprintf(stderr, "%s:%d: %s: assertion failed: %s (%" PRIu64 " against %" PRIu64 ")\n", file,
            line, function, condition, left, right);
    abort();
}
