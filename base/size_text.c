/* SPDX-License-Identifier: Apache-2.0 */
#include "base/size_text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char SUFFIXES[] = "BKMGTPE";

static int
parse_suffix(const char *text, unsigned *ret_shift)
{
    if (*text == '\0') {
        *ret_shift = 0;
        return 0;
    }
    const char *found = strchr(SUFFIXES, toupper((unsigned char)*text));
    if (found == NULL || *found == '\0') {
        return -EINVAL;
    }
    unsigned shift = 10 * (unsigned)(found - SUFFIXES);
    text++;
    if (shift > 0 && tolower((unsigned char)text[0]) == 'i') {
        text++;
        if (tolower((unsigned char)text[0]) != 'b') {
            return -EINVAL;
        }
        text++;
    } else if (shift > 0 && tolower((unsigned char)text[0]) == 'b') {
        text++;
    }
    if (*text != '\0') {
        return -EINVAL;
    }
    *ret_shift = shift;
    return 0;
}

int
size_parse(const char *text, uint64_t *ret_bytes)
{
    unsigned __int128 whole = 0;
    unsigned __int128 fraction = 0;
    unsigned __int128 divisor = 1;

    if (!isdigit((unsigned char)*text)) {
        return -EINVAL;
    }
    for (; isdigit((unsigned char)*text); text++) {
        whole = whole * 10 + (unsigned)(*text - '0');
        if (whole > INT64_MAX) {
            return -ERANGE;
        }
    }
    if (*text == '.') {
        text++;
        if (!isdigit((unsigned char)*text)) {
            return -EINVAL;
        }
        for (; isdigit((unsigned char)*text); text++) {
            if (divisor > UINT64_C(1000000000000000)) {
                return -EINVAL;
            }
            fraction = fraction * 10 + (unsigned)(*text - '0');
            divisor *= 10;
        }
    }
    unsigned shift = 0;
    int result = parse_suffix(text, &shift);
    if (result < 0) {
        return result;
    }
    unsigned __int128 scaled_fraction = fraction << shift;
    if (scaled_fraction % divisor != 0) {
        return -EINVAL;
    }
    unsigned __int128 bytes = (whole << shift) + scaled_fraction / divisor;
    if (bytes > INT64_MAX) {
        return -ERANGE;
    }
    *ret_bytes = (uint64_t)bytes;
    return 0;
}

char *
size_format(uint64_t bytes, char text[static SIZE_TEXT_SIZE])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned unit = 0;
    uint64_t scale = 1;

    while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes / scale >= 1024) {
        scale *= 1024;
        unit++;
    }
    if (bytes % scale == 0) {
        snprintf(text, SIZE_TEXT_SIZE, "%" PRIu64 " %s", bytes / scale, units[unit]);
    } else {
        double value = (double)bytes / (double)scale;
        int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
        snprintf(text, SIZE_TEXT_SIZE, "%.*f %s", decimals, value, units[unit]);
    }
    return text;
}
