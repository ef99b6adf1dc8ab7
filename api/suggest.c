/* SPDX-License-Identifier: Apache-2.0 */
#include "api/suggest.h"

#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    SUGGEST_BYTES_MAX = 63
};

unsigned
suggest_distance(const char *left, const char *right)
{
    size_t rows = strlen(left);
    size_t columns = strlen(right);
    if (rows > SUGGEST_BYTES_MAX || columns > SUGGEST_BYTES_MAX) {
        return SUGGEST_BYTES_MAX + 1;
    }
    /* Three rows of the table of distances between prefixes (optimal string alignment). */
    unsigned table[3][SUGGEST_BYTES_MAX + 1];
    for (size_t column = 0; column <= columns; column++) {
        table[0][column] = (unsigned)column;
    }
    for (size_t row = 1; row <= rows; row++) {
        unsigned *now = table[row % 3];
        const unsigned *before = table[(row + 2) % 3];
        const unsigned *earlier = table[(row + 1) % 3];
        now[0] = (unsigned)row;
        for (size_t column = 1; column <= columns; column++) {
            unsigned differs = left[row - 1] != right[column - 1];
            unsigned one_more = MIN(before[column], now[column - 1]) + 1;
            now[column] = MIN(one_more, before[column - 1] + differs);
            if (row > 1 && column > 1 && left[row - 1] == right[column - 2] &&
                left[row - 2] == right[column - 1]) {
                now[column] = MIN(now[column], earlier[column - 2] + 1);
            }
        }
    }
    unsigned distance = table[rows % 3][columns];
    ASSERT_OP(distance, <=, (unsigned)MAX(rows, columns));
    return distance;
}

void
suggest_consider(const char *word, const char *candidate, const char **best)
{
    size_t length = strlen(word);
    unsigned limit = length <= 3 ? 1 : length <= 7 ? 2 : 3;
    bool begins = length >= 2 && strncmp(word, candidate, length) == 0;
    unsigned distance = suggest_distance(word, candidate);
    if (!begins && distance > limit) {
        return;
    }
    if (*best == NULL || distance < suggest_distance(word, *best)) {
        *best = candidate;
    }
}
