/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean": the nearest of some words. */
#ifndef API_SUGGEST_H
#define API_SUGGEST_H

#include <stddef.h>

/*
 * Number of insertions, deletions, replacements and exchanges of neighbours that lead from one word
 * to the other. Words longer than 63 bytes are at a distance of at least 64.
 */
unsigned suggest_distance(const char *left, const char *right);

/*
 * Keeps the best so far: call with each candidate; `*best` starts as NULL. A candidate counts when
 * it is near enough to be a slip of the fingers, or begins with the word.
 */
void suggest_consider(const char *word, const char *candidate, const char **best);

#endif
