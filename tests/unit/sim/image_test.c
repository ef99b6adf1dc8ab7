/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "tests/sim/sim_image.h"

enum {
    SIZE = 3 << 20
};

/* Random changes of an image and of a flat array agree; a clone keeps what was. */
static void
run_against_flat_array(uint64_t seed, uint64_t background_seed)
{
    struct random random;
    struct sim_image image;
    struct sim_image clone = { 0 };
    uint8_t *flat = malloc(SIZE);
    uint8_t *flat_clone = malloc(SIZE);
    uint8_t *read = malloc(SIZE);

    random_seed(&random, seed);
    sim_image_init(&image, background_seed);
    sim_image_read(&image, 0, flat, SIZE);
    for (int i = 0; i < 400; i++) {
        uint64_t offset = random_below(&random, SIZE);
        uint64_t length = 1 + random_below(&random, MIN((uint64_t)SIZE - offset, 20000u));
        if (i == 200) {
            sim_image_clone(&clone, &image);
            memcpy(flat_clone, flat, SIZE);
        }
        if (random_chance(&random, 1, 4)) {
            sim_image_zero(&image, offset, length);
            memset(flat + offset, 0, length);
        } else if (random_chance(&random, 1, 4)) {
            sim_image_scramble(&image, offset, length, seed);
            sim_image_read(&image, offset, flat + offset, length);
        } else {
            memset(read, i, length);
            sim_image_write(&image, offset, read, length);
            memcpy(flat + offset, read, length);
        }
    }
    sim_image_read(&image, 0, read, SIZE);
    assert_memory_equal(read, flat, SIZE);
    sim_image_read(&clone, 0, read, SIZE);
    assert_memory_equal(read, flat_clone, SIZE);

    /* The hash is that of the content: a copy that came about in another way has the same. */
    struct sim_image copy;
    sim_image_init(&copy, background_seed);
    for (uint64_t at = SIZE; at > 0; at -= 65536) {
        sim_image_write(&copy, at - 65536, flat + at - 65536, 65536);
    }
    assert_int_equal(sim_image_hash(&copy, SIZE), sim_image_hash(&image, SIZE));
    flat[12345] ^= 1;
    sim_image_write(&copy, 12345, flat + 12345, 1);
    assert_int_not_equal(sim_image_hash(&copy, SIZE), sim_image_hash(&image, SIZE));

    sim_image_free(&copy);
    sim_image_free(&clone);
    sim_image_free(&image);
    free(flat);
    free(flat_clone);
    free(read);
}

static void
image_agrees_with_flat_array(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        run_against_flat_array(seed, seed % 2 == 0 ? 0 : seed);
    }
}

static void
image_reads_background(void **state)
{
    (void)state;
    struct sim_image zeroes;
    struct sim_image dirty;
    uint8_t first[4096];
    uint8_t second[4096];

    sim_image_init(&zeroes, 0);
    sim_image_init(&dirty, 7);
    memset(second, 0, sizeof(second));
    sim_image_read(&zeroes, TIB, first, sizeof(first));
    assert_memory_equal(first, second, sizeof(first));
    sim_image_read(&dirty, TIB, first, sizeof(first));
    assert_memory_not_equal(first, second, sizeof(first));
    sim_image_read(&dirty, TIB, second, sizeof(second));
    assert_memory_equal(first, second, sizeof(first));
    sim_image_zero(&dirty, TIB, 4096);
    memset(second, 0, sizeof(second));
    sim_image_read(&dirty, TIB, first, sizeof(first));
    assert_memory_equal(first, second, sizeof(first));
    sim_image_free(&dirty);
    sim_image_free(&zeroes);
}

static void
image_counts_allocated_pages(void **state)
{
    (void)state;
    struct sim_image image;
    struct sim_image clone;
    const uint8_t byte = 1;

    sim_image_init(&image, 0);
    assert_int_equal(sim_image_pages_missing(&image, 4095, 2), 2);
    sim_image_write(&image, 5000, &byte, 1);
    assert_int_equal(image.allocated_pages, 1);
    sim_image_allocate(&image, 0, 3 * 4096 + 1);
    assert_int_equal(image.allocated_pages, 4);
    sim_image_clone(&clone, &image);
    sim_image_deallocate(&image, 1, 3 * 4096); /* pages 1 and 2 lie wholly in it */
    assert_int_equal(image.allocated_pages, 2);
    assert_int_equal(clone.allocated_pages, 4);
    assert_int_equal(sim_image_pages_missing(&clone, 0, 4 * 4096), 0);
    assert_int_equal(sim_image_pages_missing(&image, 0, 4 * 4096), 2);
    sim_image_deallocate(&image, 0, 4 * TIB);
    assert_int_equal(image.allocated_pages, 0);
    sim_image_zero(&image, 0, 4 * TIB); /* large and empty ranges are skipped, not walked */
    sim_image_free(&clone);
    sim_image_free(&image);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_agrees_with_flat_array),
        cmocka_unit_test(image_reads_background),
        cmocka_unit_test(image_counts_allocated_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
