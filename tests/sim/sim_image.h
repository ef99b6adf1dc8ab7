/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of a simulated disk: sparse, and cheap to copy.
 *
 * THEORY OF OPERATION
 *
 * A hash directory of chunks, each a fixed array of 4 KiB pages. Chunks and pages are counted
 * references and copied on the first write after a clone, so a clone costs a pointer per chunk that
 * was ever touched, and a crash image costs what differs from its base. A page that is absent reads
 * as the background: zeroes, or a pattern that stands for the bytes of whoever had the disk before.
 *
 * Whether a page is *allocated* (thin files, capacity limits) is kept apart from what it contains.
 */
#ifndef TESTS_SIM_SIM_IMAGE_H
#define TESTS_SIM_SIM_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SIM_PAGE_BYTES = 4096
};

struct sim_chunk;

struct sim_image {
    struct sim_chunk **chunks; /* open addressing by chunk number */
    uint32_t capacity;         /* a power of two, or 0 */
    uint32_t count;
    uint64_t background_seed; /* 0: zeroes */
    uint64_t allocated_pages;
};

/* An image without content. `background_seed`: 0 for zeroes. */
void sim_image_init(struct sim_image *image, uint64_t background_seed);
void sim_image_free(struct sim_image *image);
/* `*ret_image` need not be initialised; both are independent afterwards. O(chunks). */
void sim_image_clone(struct sim_image *ret_image, const struct sim_image *from);

void sim_image_read(const struct sim_image *image, uint64_t offset_bytes, void *ret_data,
                    uint64_t length_bytes);
/* Marks the pages as allocated. */
void sim_image_write(struct sim_image *image, uint64_t offset_bytes, const void *data,
                     uint64_t length_bytes);
/* Reads as zeroes afterwards. Does not change what is allocated. */
void sim_image_zero(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes);
/* Reads as a pattern of `seed` afterwards. Does not change what is allocated. */
void sim_image_scramble(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes,
                        uint64_t seed);

/* Every page that the range touches becomes allocated. */
void sim_image_allocate(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes);
/* Every page that lies wholly in the range becomes free. */
void sim_image_deallocate(struct sim_image *image, uint64_t offset_bytes, uint64_t length_bytes);
/* How many pages sim_image_allocate() would add. */
uint64_t sim_image_pages_missing(const struct sim_image *image, uint64_t offset_bytes,
                                 uint64_t length_bytes);

/* Equal for images that read the same in [0, size_bytes), however they came about. */
uint64_t sim_image_hash(const struct sim_image *image, uint64_t size_bytes);

#endif
