/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include "base/assert.h"

static uint64_t
rotate_left(uint64_t value, unsigned count)
{
    return (value << count) | (value >> (64 - count));
}

void
random_seed(struct random *random, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++) {
        seed += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t mixed = seed;
        mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
        random->state[i] = mixed ^ (mixed >> 31);
    }
}

uint64_t
random_u64(struct random *random)
{
    uint64_t *state = random->state;
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

uint64_t
random_below(struct random *random, uint64_t limit)
{
    ASSERT(limit > 0);
    return (uint64_t)(((unsigned __int128)random_u64(random) * limit) >> 64);
}

bool
random_chance(struct random *random, uint32_t numerator, uint32_t denominator)
{
    return random_below(random, denominator) < numerator;
}
