/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/byte_buffer.h"
#include "base/random.h"
#include "tests/sim/sim_memory.h"

/* Hidden from the compiler, which would otherwise leave out what has no effect. */
static void *volatile hold;

static void
arena_notes_what_is_allocated_inside(void **state)
{
    (void)state;
    struct sim_arena *arena = sim_arena_create();
    void *volatile outside = malloc(10);
    assert_null(sim_arena_swap(arena));
    void *volatile inside = malloc(10);
    char *volatile text = strdup("text");
    char *formatted = NULL;
    assert_int_equal(asprintf(&formatted, "%d-%s", 17, "x"), 4);
    assert_string_equal(formatted, "17-x");
    void *volatile aligned = aligned_alloc(64, 128);
    inside = realloc(inside, 100000);
    assert_ptr_equal(sim_arena_swap(NULL), arena);
    assert_int_equal(sim_arena_blocks(arena), 4);

    hold = malloc(10); /* not inside any more */
    assert_int_equal(sim_arena_blocks(arena), 4);
    inside = realloc(inside, 200000); /* stays where it was noted */
    outside = realloc(outside, 1000);
    assert_int_equal(sim_arena_blocks(arena), 4);
    free(text);
    assert_int_equal(sim_arena_blocks(arena), 3);
    free(hold);
    free(outside);
    free(inside);
    free(aligned);
    free(formatted);
    assert_int_equal(sim_arena_blocks(arena), 0);
    sim_arena_destroy(arena);
}

static void
arena_kill_frees_everything(void **state)
{
    (void)state;
    struct sim_arena *arena = sim_arena_create();
    struct sim_arena *other = sim_arena_create();
    struct byte_buffer buffer = BYTE_BUFFER_INIT;

    sim_arena_swap(other);
    uint8_t *volatile survivor = malloc(100);
    survivor[99] = 1;
    sim_arena_swap(arena);
    for (int i = 0; i < 5000; i++) {
        hold = calloc(1, (size_t)i + 1); /* lost: only the arena knows */
    }
    byte_buffer_append_format(&buffer, "%2000d", 1); /* allocated by a library of the product */
    char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(munmap(map + 4096, 8192), 0); /* leaves two parts */
    sim_arena_swap(NULL);
    assert_int_equal(sim_arena_blocks(arena), 5000 + 1 + 2);
    sim_arena_kill(arena);
    assert_int_equal(sim_arena_blocks(arena), 0);
    assert_int_equal(sim_arena_blocks(other), 1);
    assert_int_equal(survivor[99], 1);
    free(survivor);
    sim_arena_destroy(arena);
    sim_arena_destroy(other);
}

/* Frees in any order keep the table consistent. */
static void
arena_table_survives_random_order(void **state)
{
    (void)state;
    enum {
        COUNT = 3000
    };
    static void *blocks[COUNT];
    struct sim_arena *arena = sim_arena_create();
    struct random random;
    size_t live = 0;

    random_seed(&random, 5);
    sim_arena_swap(arena);
    for (int i = 0; i < 100000; i++) {
        size_t slot = random_below(&random, COUNT);
        if (blocks[slot] == NULL) {
            blocks[slot] = malloc(1 + random_below(&random, 100));
            live++;
        } else {
            free(blocks[slot]);
            blocks[slot] = NULL;
            live--;
        }
        assert_int_equal(sim_arena_blocks(arena), live);
    }
    sim_arena_swap(NULL);
    sim_arena_kill(arena);
    memset(blocks, 0, sizeof(blocks));
    sim_arena_destroy(arena);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_notes_what_is_allocated_inside),
        cmocka_unit_test(arena_kill_frees_everything),
        cmocka_unit_test(arena_table_survives_random_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
