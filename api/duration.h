/* SPDX-License-Identifier: Apache-2.0 */
/* Durations as people write them: 90s, 15m, 1h, 7d, 2w. */
#ifndef API_DURATION_H
#define API_DURATION_H

#include <stdint.h>

enum {
    DURATION_TEXT_SIZE = 32
};

/*
 * Parse digits and a unit (s, m, h, d, w), one or more times, from the largest unit down: "1h30m".
 * Returns 0, -EINVAL (not a duration; a number without a unit is none) or -ERANGE (more than 63
 * bits). `*ret_seconds` is untouched on failure.
 */
int duration_parse(const char *text, uint64_t *ret_seconds);

/* The shortest exact text of at most two units, else seconds: "15m", "1d12h", "90061s". Returns
 * `text`. */
char *duration_format(uint64_t seconds, char text[static DURATION_TEXT_SIZE]);

#endif
