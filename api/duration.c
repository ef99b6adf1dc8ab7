/* SPDX-License-Identifier: Apache-2.0 */
#include "api/duration.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

/* From the largest down. */
static const char units[] = "wdhms";
static const uint64_t unit_seconds[] = { 7 * 86400, 86400, 3600, 60, 1 };

int
duration_parse(const char *text, uint64_t *ret_seconds)
{
    uint64_t seconds = 0;
    const char *allowed = units;

    do {
        uint64_t number = 0;
        if (!isdigit((unsigned char)*text)) {
            return -EINVAL;
        }
        for (; isdigit((unsigned char)*text); text++) {
            if (__builtin_mul_overflow(number, 10u, &number) ||
                __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number)) {
                return -ERANGE;
            }
        }
        const char *unit = *text != '\0' ? strchr(allowed, *text) : NULL;
        if (unit == NULL) {
            return -EINVAL;
        }
        if (__builtin_mul_overflow(number, unit_seconds[unit - units], &number) ||
            __builtin_add_overflow(seconds, number, &seconds) || seconds > INT64_MAX) {
            return -ERANGE;
        }
        allowed = unit + 1;
        text++;
    } while (*text != '\0');
    *ret_seconds = seconds;
    return 0;
}

char *
duration_format(uint64_t seconds, char text[static DURATION_TEXT_SIZE])
{
    size_t first = 0;
    while (first + 1 < ARRAY_SIZE(unit_seconds) && seconds < unit_seconds[first]) {
        first++;
    }
    ASSERT_OP(first, <, ARRAY_SIZE(unit_seconds));
    uint64_t rest = seconds % unit_seconds[first];
    if (rest == 0) {
        snprintf(text, DURATION_TEXT_SIZE, "%" PRIu64 "%c", seconds / unit_seconds[first],
                 units[first]);
        return text;
    }
    for (size_t second = first + 1; second < ARRAY_SIZE(unit_seconds); second++) {
        if (rest % unit_seconds[second] == 0) {
            snprintf(text, DURATION_TEXT_SIZE, "%" PRIu64 "%c%" PRIu64 "%c",
                     seconds / unit_seconds[first], units[first], rest / unit_seconds[second],
                     units[second]);
            break;
        }
    }
    return text;
}
