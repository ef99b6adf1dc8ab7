/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes as people write them: 4096, 512K, 10G, 1.5T. Binary units only (K = 1024). */
#ifndef BASE_SIZE_TEXT_H
#define BASE_SIZE_TEXT_H

#include <stdint.h>

enum {
    SIZE_TEXT_SIZE = 16
};

/*
 * Parse digits with an optional fraction and a suffix B, K, M, G, T, P or E, optionally followed by
 * "iB" ("10GiB" = "10G"); case does not matter. A fraction must give a whole number of bytes.
 * Returns 0, -EINVAL (not a size) or -ERANGE (does not fit 63 bits). `*ret_bytes` is untouched on
 * failure.
 */
int size_parse(const char *text, uint64_t *ret_bytes);

/* The shortest exact or three-digit form, such as "10 GiB" or "1.46 TiB". Returns `text`. */
char *size_format(uint64_t bytes, char text[static SIZE_TEXT_SIZE]);

#endif
