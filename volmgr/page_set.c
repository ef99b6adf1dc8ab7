/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/page_set_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    CHUNK_SHIFT = 12,
    CHUNK_WORDS = (1 << CHUNK_SHIFT) / 64,
};

struct page_set_chunk {
    uint64_t number; /* of its first page, shifted */
    uint64_t words[CHUNK_WORDS];
};

void
page_set_free(struct page_set *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        free(set->chunks[i]);
    }
    free(set->chunks);
    *set = (struct page_set){ 0 };
}

/* Index of the first chunk that is not below `number`. */
static uint32_t
find_chunk(const struct page_set *set, uint64_t number)
{
    uint32_t low = 0;
    uint32_t high = set->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (set->chunks[middle]->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void
insert_chunk(struct page_set *set, uint32_t at, uint64_t number)
{
    if (set->count == set->capacity) {
        set->capacity = MAX(set->capacity * 2, 8u);
        set->chunks = realloc(set->chunks, set->capacity * sizeof(struct page_set_chunk *));
        ASSERT(set->chunks != NULL);
    }
    struct page_set_chunk *chunk = calloc(1, sizeof(*chunk));
    ASSERT(chunk != NULL);
    chunk->number = number;
    memmove(&set->chunks[at + 1], &set->chunks[at],
            (set->count - at) * sizeof(struct page_set_chunk *));
    set->chunks[at] = chunk;
    set->count++;
}

void
page_set_add(struct page_set *set, uint64_t page)
{
    uint64_t number = page >> CHUNK_SHIFT;
    uint32_t bit = (uint32_t)(page & ((1u << CHUNK_SHIFT) - 1));

    if (set->recent >= set->count || set->chunks[set->recent]->number != number) {
        set->recent = find_chunk(set, number);
        if (set->recent == set->count || set->chunks[set->recent]->number != number) {
            insert_chunk(set, set->recent, number);
        }
    }
    set->chunks[set->recent]->words[bit / 64] |= UINT64_C(1) << (bit % 64);
}

/* The lowest bit of the chunk that is not below `from`; false: there is none. */
static bool
chunk_next(const struct page_set_chunk *chunk, uint32_t from, uint32_t *ret_bit)
{
    uint64_t mask = UINT64_MAX << (from % 64);

    for (uint32_t word = from / 64; word < CHUNK_WORDS; word++, mask = UINT64_MAX) {
        uint64_t left = chunk->words[word] & mask;
        if (left != 0) {
            *ret_bit = word * 64 + (uint32_t)__builtin_ctzll(left);
            return true;
        }
    }
    return false;
}

bool
page_set_next(const struct page_set *set, uint64_t from, uint64_t *ret_page)
{
    uint64_t number = from >> CHUNK_SHIFT;

    for (uint32_t i = find_chunk(set, number); i < set->count; i++) {
        const struct page_set_chunk *chunk = set->chunks[i];
        uint32_t first = chunk->number == number ? (uint32_t)(from & ((1u << CHUNK_SHIFT) - 1)) : 0;
        uint32_t bit;
        if (chunk_next(chunk, first, &bit)) {
            *ret_page = (chunk->number << CHUNK_SHIFT) + bit;
            return true;
        }
    }
    return false;
}
