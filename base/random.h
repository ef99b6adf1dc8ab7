/* SPDX-License-Identifier: Apache-2.0 */
/* xoshiro256** with splitmix64 seeding: fast, repeatable, not for secrets. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state[4];
};

void random_seed(struct random *random, uint64_t seed);
uint64_t random_u64(struct random *random);
/* Uniform in [0, limit); `limit` > 0. */
uint64_t random_below(struct random *random, uint64_t limit);
/* True with probability numerator / denominator. */
bool random_chance(struct random *random, uint32_t numerator, uint32_t denominator);

#endif
