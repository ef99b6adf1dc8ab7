/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_image.h"

#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_memory.h"

enum {
    CHUNK_PAGES = 128,
    CHUNK_BYTES = CHUNK_PAGES * SIM_PAGE_BYTES,
    PAGE_WORDS = SIM_PAGE_BYTES / 8,
    SECTOR_WORDS = 512 / 8,
    DIRECTORY_CAPACITY_MIN = 8,
};

struct sim_page {
    uint32_t references;
    union {
        uint8_t data[SIM_PAGE_BYTES];
        uint64_t words[PAGE_WORDS];
    };
};

struct sim_chunk {
    uint64_t number; /* offset_bytes / CHUNK_BYTES */
    uint32_t references;
    uint64_t allocated[CHUNK_PAGES / 64];
    struct sim_page *pages[CHUNK_PAGES]; /* NULL: the background */
};

/* ---- pages and chunks ---- */

/*
 * Old bytes are read far more often than anything else here, so they are cheap: one byte all over a
 * page, but for the first word of each sector, which names the page.
 */
static void
page_fill_pattern(uint64_t *words, uint64_t page_number, uint64_t seed)
{
    if (seed == 0) {
        memset(words, 0, SIM_PAGE_BYTES);
        return;
    }
    uint64_t base = hash_u64(seed + page_number);
    memset(words, (int)(base & 0xff) | 1, SIM_PAGE_BYTES);
    for (uint64_t i = 0; i < PAGE_WORDS; i += SECTOR_WORDS) {
        words[i] = base + i;
    }
}

static void
page_put(struct sim_page *page)
{
    if (page != NULL && --page->references == 0) {
        sim_release(page);
    }
}

static void
chunk_put(struct sim_chunk *chunk)
{
    ASSERT_OP(chunk->references, >, 0u);
    if (--chunk->references > 0) {
        return;
    }
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        page_put(chunk->pages[i]);
    }
    sim_release(chunk);
}

static struct sim_chunk *
chunk_copy(const struct sim_chunk *from)
{
    struct sim_chunk *chunk = sim_allocate_raw(sizeof(*chunk));
    memcpy(chunk, from, sizeof(*chunk));
    chunk->references = 1;
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        if (chunk->pages[i] != NULL) {
            chunk->pages[i]->references++;
        }
    }
    return chunk;
}

static uint32_t
directory_slot(const struct sim_image *image, uint64_t number)
{
    uint32_t slot = (uint32_t)hash_u64(number) & (image->capacity - 1);
    while (image->chunks[slot] != NULL && image->chunks[slot]->number != number) {
        slot = (slot + 1) & (image->capacity - 1);
    }
    return slot;
}

static void
directory_grow(struct sim_image *image)
{
    struct sim_chunk **old_chunks = image->chunks;
    uint32_t old_capacity = image->capacity;

    image->capacity = MAX(old_capacity * 2, (uint32_t)DIRECTORY_CAPACITY_MIN);
    image->chunks = sim_allocate(image->capacity * sizeof(struct sim_chunk *));
    for (uint32_t i = 0; i < old_capacity; i++) {
        if (old_chunks[i] != NULL) {
            image->chunks[directory_slot(image, old_chunks[i]->number)] = old_chunks[i];
        }
    }
    sim_release(old_chunks);
}

static const struct sim_chunk *
chunk_find(const struct sim_image *image, uint64_t number)
{
    if (image->capacity == 0) {
        return NULL;
    }
    return image->chunks[directory_slot(image, number)];
}

/* The chunk, made if absent, not shared with another image. */
static struct sim_chunk *
chunk_own(struct sim_image *image, uint64_t number)
{
    if (image->count * 2 >= image->capacity) {
        directory_grow(image);
    }
    uint32_t slot = directory_slot(image, number);
    struct sim_chunk *chunk = image->chunks[slot];
    if (chunk == NULL) {
        chunk = sim_allocate(sizeof(*chunk));
        chunk->number = number;
        chunk->references = 1;
        image->count++;
    } else if (chunk->references > 1) {
        struct sim_chunk *copy = chunk_copy(chunk);
        chunk_put(chunk);
        chunk = copy;
    }
    image->chunks[slot] = chunk;
    return chunk;
}

/* The page, not shared with another image; `keep` when its old content matters. */
static struct sim_page *
page_own(struct sim_image *image, struct sim_chunk *chunk, uint32_t index, bool keep)
{
    struct sim_page *old = chunk->pages[index];
    if (old != NULL && old->references == 1) {
        return old;
    }
    struct sim_page *page = sim_allocate_raw(sizeof(*page));
    page->references = 1;
    if (keep && old != NULL) {
        memcpy(page->data, old->data, SIM_PAGE_BYTES);
    } else if (keep) {
        page_fill_pattern(page->words, chunk->number * CHUNK_PAGES + index, image->background_seed);
    }
    page_put(old);
    chunk->pages[index] = page;
    return page;
}

static bool
chunk_is_allocated(const struct sim_chunk *chunk, uint32_t index)
{
    return (chunk->allocated[index / 64] >> (index % 64)) & 1;
}

static void
chunk_set_allocated(struct sim_image *image, struct sim_chunk *chunk, uint32_t index,
                    bool allocated)
{
    if (chunk_is_allocated(chunk, index) == allocated) {
        return;
    }
    chunk->allocated[index / 64] ^= UINT64_C(1) << (index % 64);
    image->allocated_pages += allocated ? 1 : UINT64_MAX;
}

/*
 * Bytes from offset_bytes on, at most length_bytes, in a chunk that was never touched: what large
 * discards skip at once. 0: the chunk exists.
 */
static uint64_t
untouched_bytes(const struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes)
{
    if (chunk_find(image, offset_bytes / CHUNK_BYTES) != NULL) {
        return 0;
    }
    return MIN(length_bytes, CHUNK_BYTES - offset_bytes % CHUNK_BYTES);
}

/* ---- the image ---- */

void
sim_image_init(struct sim_image *image, uint64_t background_seed)
{
    *image = (struct sim_image){ .background_seed = background_seed };
}

void
sim_image_free(struct sim_image *image)
{
    for (uint32_t i = 0; i < image->capacity; i++) {
        if (image->chunks[i] != NULL) {
            chunk_put(image->chunks[i]);
        }
    }
    sim_release(image->chunks);
    *image = (struct sim_image){ 0 };
}

void
sim_image_clone(struct sim_image *ret_image, const struct sim_image *from)
{
    struct sim_image clone = *from;
    if (from->capacity > 0) {
        clone.chunks = sim_allocate_raw(from->capacity * sizeof(struct sim_chunk *));
        memcpy(clone.chunks, from->chunks, from->capacity * sizeof(struct sim_chunk *));
        for (uint32_t i = 0; i < clone.capacity; i++) {
            if (clone.chunks[i] != NULL) {
                clone.chunks[i]->references++;
            }
        }
    }
    *ret_image = clone;
}

/* Where an offset lies, and how much of `left_bytes` is in that page. */
struct place {
    uint64_t chunk_number;
    uint32_t index;
    uint32_t offset_in_page;
    uint32_t length_bytes;
};

static struct place
place_of(uint64_t offset_bytes, uint64_t left_bytes)
{
    uint32_t offset_in_page = (uint32_t)(offset_bytes % SIM_PAGE_BYTES);
    return (struct place){
        .chunk_number = offset_bytes / CHUNK_BYTES,
        .index = (uint32_t)(offset_bytes % CHUNK_BYTES / SIM_PAGE_BYTES),
        .offset_in_page = offset_in_page,
        .length_bytes = (uint32_t)MIN(left_bytes, (uint64_t)(SIM_PAGE_BYTES - offset_in_page)),
    };
}

void
sim_image_read(const struct sim_image *image, uint64_t offset_bytes, void *ret_data,
               uint64_t length_bytes)
{
    uint8_t *to = ret_data;
    while (length_bytes > 0) {
        struct place place = place_of(offset_bytes, length_bytes);
        const struct sim_chunk *chunk = chunk_find(image, place.chunk_number);
        const struct sim_page *page = chunk == NULL ? NULL : chunk->pages[place.index];
        if (page != NULL) {
            memcpy(to, page->data + place.offset_in_page, place.length_bytes);
        } else if (image->background_seed == 0) {
            memset(to, 0, place.length_bytes);
        } else {
            uint64_t words[PAGE_WORDS];
            bool in_place =
                place.length_bytes == SIM_PAGE_BYTES && (uintptr_t)to % sizeof(uint64_t) == 0;
            uint64_t *fill = in_place ? (void *)to : words;
            page_fill_pattern(fill, offset_bytes / SIM_PAGE_BYTES, image->background_seed);
            if (!in_place) {
                memcpy(to, (uint8_t *)words + place.offset_in_page, place.length_bytes);
            }
        }
        to += place.length_bytes;
        offset_bytes += place.length_bytes;
        length_bytes -= place.length_bytes;
    }
}

void
sim_image_write(struct sim_image *image, uint64_t offset_bytes, const void *data,
                uint64_t length_bytes)
{
    const uint8_t *from = data;
    while (length_bytes > 0) {
        struct place place = place_of(offset_bytes, length_bytes);
        struct sim_chunk *chunk = chunk_own(image, place.chunk_number);
        bool whole = place.length_bytes == SIM_PAGE_BYTES;
        struct sim_page *page = page_own(image, chunk, place.index, !whole);
        memcpy(page->data + place.offset_in_page, from, place.length_bytes);
        chunk_set_allocated(image, chunk, place.index, true);
        from += place.length_bytes;
        offset_bytes += place.length_bytes;
        length_bytes -= place.length_bytes;
    }
}

/* A page of the pattern: `*shared`, which is made when it is NULL; the image has a reference. */
static void
place_shared_page(struct sim_image *image, struct place place, uint64_t seed,
                  struct sim_page **shared)
{
    if (*shared == NULL) {
        *shared = sim_allocate_raw(sizeof(**shared));
        (*shared)->references = 1;
        page_fill_pattern((*shared)->words, 0, seed);
    }
    struct sim_chunk *chunk = chunk_own(image, place.chunk_number);
    page_put(chunk->pages[place.index]);
    (*shared)->references++;
    chunk->pages[place.index] = *shared;
}

/* Give a page back to the background. */
static void
place_background(struct sim_image *image, struct place place)
{
    const struct sim_chunk *seen = chunk_find(image, place.chunk_number);
    if (seen != NULL && seen->pages[place.index] != NULL) {
        struct sim_chunk *chunk = chunk_own(image, place.chunk_number);
        page_put(chunk->pages[place.index]);
        chunk->pages[place.index] = NULL;
    }
}

/*
 * Fill with the pattern of `seed` (0: zeroes), the same in every page. Whole pages of one call are
 * one page.
 */
static void
image_fill(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes, uint64_t seed)
{
    struct sim_page *shared = NULL;
    bool as_background = seed == 0 && image->background_seed == 0;

    while (length_bytes > 0) {
        uint64_t skip_bytes =
            as_background ? untouched_bytes(image, offset_bytes, length_bytes) : 0;
        offset_bytes += skip_bytes;
        length_bytes -= skip_bytes;
        struct place place = place_of(offset_bytes, length_bytes);
        if (skip_bytes > 0) {
            continue;
        }
        if (place.length_bytes == SIM_PAGE_BYTES && as_background) {
            place_background(image, place);
        } else if (place.length_bytes == SIM_PAGE_BYTES) {
            place_shared_page(image, place, seed, &shared);
        } else {
            struct sim_chunk *chunk = chunk_own(image, place.chunk_number);
            struct sim_page *page = page_own(image, chunk, place.index, true);
            uint64_t words[PAGE_WORDS];
            page_fill_pattern(words, 0, seed);
            memcpy(page->data + place.offset_in_page, (uint8_t *)words + place.offset_in_page,
                   place.length_bytes);
        }
        offset_bytes += place.length_bytes;
        length_bytes -= place.length_bytes;
    }
    page_put(shared);
}

void
sim_image_zero(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes)
{
    image_fill(image, offset_bytes, length_bytes, 0);
}

void
sim_image_scramble(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes,
                   uint64_t seed)
{
    image_fill(image, offset_bytes, length_bytes, seed | 1);
}

void
sim_image_allocate(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint64_t end = offset_bytes + length_bytes;
    for (uint64_t at = align_down(offset_bytes, SIM_PAGE_BYTES); at < end; at += SIM_PAGE_BYTES) {
        struct place place = place_of(at, SIM_PAGE_BYTES);
        chunk_set_allocated(image, chunk_own(image, place.chunk_number), place.index, true);
    }
}

void
sim_image_deallocate(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint64_t end = align_down(offset_bytes + length_bytes, SIM_PAGE_BYTES);
    uint64_t at = align_up(offset_bytes, SIM_PAGE_BYTES);
    while (at < end) {
        uint64_t skip_bytes = untouched_bytes(image, at, end - at);
        if (skip_bytes > 0) {
            at += skip_bytes;
            continue;
        }
        struct place place = place_of(at, SIM_PAGE_BYTES);
        if (chunk_is_allocated(chunk_find(image, place.chunk_number), place.index)) {
            chunk_set_allocated(image, chunk_own(image, place.chunk_number), place.index, false);
        }
        at += SIM_PAGE_BYTES;
    }
}

uint64_t
sim_image_pages_missing(const struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint64_t missing = 0;
    uint64_t end = offset_bytes + length_bytes;
    for (uint64_t at = align_down(offset_bytes, SIM_PAGE_BYTES); at < end; at += SIM_PAGE_BYTES) {
        struct place place = place_of(at, SIM_PAGE_BYTES);
        const struct sim_chunk *chunk = chunk_find(image, place.chunk_number);
        missing += chunk == NULL || !chunk_is_allocated(chunk, place.index);
    }
    return missing;
}

static uint64_t
page_hash(const uint64_t *words, uint64_t page_number)
{
    uint64_t hash = hash_u64(page_number + 1);
    for (uint64_t i = 0; i < PAGE_WORDS; i++) {
        hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash_u64(hash);
}

uint64_t
sim_image_hash(const struct sim_image *image, uint64_t size_bytes)
{
    uint64_t hash = hash_u64(image->background_seed) ^ size_bytes;
    uint64_t background[PAGE_WORDS];

    /* A sum over the pages that differ from the background does not depend on the order. */
    for (uint32_t i = 0; i < image->capacity; i++) {
        const struct sim_chunk *chunk = image->chunks[i];
        for (uint32_t j = 0; chunk != NULL && j < CHUNK_PAGES; j++) {
            uint64_t number = chunk->number * CHUNK_PAGES + j;
            if (chunk->pages[j] == NULL || number * SIM_PAGE_BYTES >= size_bytes) {
                continue;
            }
            page_fill_pattern(background, number, image->background_seed);
            if (memcmp(background, chunk->pages[j]->data, SIM_PAGE_BYTES) != 0) {
                hash += page_hash(chunk->pages[j]->words, number);
            }
        }
    }
    return hash;
}
