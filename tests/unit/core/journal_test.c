/* SPDX-License-Identifier: Apache-2.0 */
/* The volatile journal: what replay finds after a death at any point, and what it must refuse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "io/platform.h"
#include "volmgr/journal_impl.h"

enum {
    SIZE_BYTES = JOURNAL_HEADER_BYTES + JOURNAL_SEGMENTS * 4 * JOURNAL_RECORD_BYTES,
    CAPACITY = JOURNAL_SEGMENTS * 4,
};

/* Memory that outlives the journal object, as a file on tmpfs does. */
struct fake_platform {
    struct platform platform;
    uint8_t memory[SIZE_BYTES];
    bool exists;
};

static int
fake_map(struct platform *platform, const char *name, size_t size_bytes, void **ret_memory,
         bool *ret_existed, struct error *error)
{
    struct fake_platform *fake = container_of(platform, struct fake_platform, platform);
    (void)name;
    (void)error;
    assert_int_equal(size_bytes, SIZE_BYTES);
    if (!fake->exists) {
        memset(fake->memory, 0, sizeof(fake->memory));
    }
    *ret_memory = fake->memory;
    *ret_existed = fake->exists;
    fake->exists = true;
    return 0;
}

static void
fake_unmap(struct platform *platform, void *memory, size_t size_bytes)
{
    (void)platform;
    (void)memory;
    (void)size_bytes;
}

static int
fake_remove(struct platform *platform, const char *name)
{
    (void)name;
    container_of(platform, struct fake_platform, platform)->exists = false;
    return 0;
}

static const struct platform_ops FAKE_OPS = {
    .name = "fake",
    .volatile_map = fake_map,
    .volatile_unmap = fake_unmap,
    .volatile_remove = fake_remove,
};

static const struct journal_identity IDENTITY = { .incarnation = 3, .index = 1, .boot_id = "boot" };

struct collected {
    uint64_t count;
    struct journal_record records[2 * CAPACITY];
    struct byte_buffer fences;
};

static int
collect(void *context, const struct journal_record *record)
{
    struct collected *collected = context;
    collected->records[collected->count++] = *record;
    return 0;
}

static int
replay(struct fake_platform *fake, const struct journal_identity *identity,
       struct collected *collected)
{
    struct error error = { 0 };
    collected->count = 0;
    byte_buffer_clear(&collected->fences);
    int result = journal_replay(&fake->platform, identity, SIZE_BYTES, collect, collected,
                                &collected->fences, &error);
    assert_int_equal(result, error.code);
    return result;
}

static uint32_t
append(struct journal *journal, uint64_t n)
{
    struct map_entry entry = { .home = n + 1, .home_generation = 1, .valid = 1 };
    return journal_append(journal, 9, n / 3 + 1, n * 5, &entry);
}

static int
setup(void **state)
{
    struct fake_platform *fake = calloc(1, sizeof(*fake));
    fake->platform.ops = &FAKE_OPS;
    *state = fake;
    return 0;
}

static int
teardown(void **state)
{
    free(*state);
    return 0;
}

static void
what_was_appended_is_replayed_in_order(void **state)
{
    struct fake_platform *fake = *state;
    struct journal journal;
    struct collected *collected = calloc(1, sizeof(*collected));

    assert_int_equal(journal_create(&journal, &fake->platform, &IDENTITY, SIZE_BYTES, NULL), 0);
    assert_int_equal(journal.capacity, CAPACITY);
    for (uint64_t n = 0; n < 10; n++) {
        append(&journal, n);
    }
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_int_equal(collected->count, 10);
    for (uint64_t n = 0; n < 10; n++) {
        assert_int_equal(collected->records[n].branch, 9);
        assert_int_equal(collected->records[n].volume_grain, n * 5);
        assert_int_equal(collected->records[n].batch, n / 3 + 1);
        assert_int_equal(collected->records[n].entry.home, n + 1);
    }
    free(collected);
}

/* Many laps, committed in random order: replay always finds everything that is not committed. */
static void
the_tail_never_passes_what_is_uncommitted(void **state)
{
    struct fake_platform *fake = *state;
    struct journal journal;
    struct collected *collected = calloc(1, sizeof(*collected));
    struct random random;
    uint32_t segments[CAPACITY];
    uint64_t numbers[CAPACITY];
    uint32_t open = 0;
    uint64_t next = 0;

    random_seed(&random, 3);
    assert_int_equal(journal_create(&journal, &fake->platform, &IDENTITY, SIZE_BYTES, NULL), 0);
    for (int step = 0; step < 20000; step++) {
        if (journal_free_records(&journal) > 0 && random_chance(&random, 1, 2)) {
            segments[open] = append(&journal, next);
            numbers[open++] = next++;
        } else if (open > 0) {
            uint64_t i = random_chance(&random, 3, 4) ? 0 : random_below(&random, open);
            journal_committed(&journal, segments[i], 1);
            open--;
            memmove(&segments[i], &segments[i + 1], (open - i) * sizeof(segments[0]));
            memmove(&numbers[i], &numbers[i + 1], (open - i) * sizeof(numbers[0]));
        }
        if (step % 97 == 0) {
            assert_int_equal(replay(fake, &IDENTITY, collected), 0);
            assert_int_equal(collected->count, journal.head - journal.tail);
            for (uint32_t i = 0; i < open; i++) {
                bool found = false;
                for (uint64_t r = 0; r < collected->count; r++) {
                    found |= collected->records[r].volume_grain == numbers[i] * 5;
                }
                assert_true(found);
            }
        }
    }
    assert_true(next > 4 * CAPACITY);
    free(collected);
}

/* Death inside an append: the record is not there, everything before it is. */
static void
a_torn_last_record_is_the_end(void **state)
{
    struct fake_platform *fake = *state;
    struct journal journal;
    struct collected *collected = calloc(1, sizeof(*collected));

    for (size_t cut = 4; cut < 70; cut++) {
        fake->exists = false;
        assert_int_equal(journal_create(&journal, &fake->platform, &IDENTITY, SIZE_BYTES, NULL), 0);
        for (uint64_t n = 0; n < 5; n++) {
            append(&journal, n);
        }
        uint8_t *last = journal.memory + JOURNAL_HEADER_BYTES + 4 * JOURNAL_RECORD_BYTES;
        memset(last, 0, 4); /* the CRC is written last */
        memset(last + cut, 0, JOURNAL_RECORD_BYTES - cut);
        assert_int_equal(replay(fake, &IDENTITY, collected), 0);
        assert_int_equal(collected->count, 4);
    }
    free(collected);
}

static void
damage_is_not_taken_for_an_end(void **state)
{
    struct fake_platform *fake = *state;
    struct journal journal;
    struct collected *collected = calloc(1, sizeof(*collected));

    assert_int_equal(journal_create(&journal, &fake->platform, &IDENTITY, SIZE_BYTES, NULL), 0);
    for (uint64_t n = 0; n < 5; n++) {
        append(&journal, n);
    }
    for (size_t at = 0; at < JOURNAL_RECORD_BYTES; at++) {
        uint8_t *byte = journal.memory + JOURNAL_HEADER_BYTES + 2 * JOURNAL_RECORD_BYTES + at;
        *byte ^= 0x40;
        assert_int_equal(replay(fake, &IDENTITY, collected), -EUCLEAN);
        *byte ^= 0x40;
    }
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    /* The tail and the number of fences, which move: outside the header's checksum. */
    for (size_t bit = 0; bit < 64; bit++) {
        static const size_t numbers_at[] = { 128, 192 };
        for (size_t i = 0; i < ARRAY_SIZE(numbers_at); i++) {
            uint8_t *byte = journal.memory + numbers_at[i] + bit / 8;
            *byte ^= (uint8_t)(1u << (bit % 8));
            assert_int_equal(replay(fake, &IDENTITY, collected), -EUCLEAN);
            *byte ^= (uint8_t)(1u << (bit % 8));
        }
    }
    journal.memory[50] ^= 1; /* the header */
    assert_int_equal(replay(fake, &IDENTITY, collected), -EUCLEAN);
    free(collected);
}

static void
another_boot_or_incarnation_is_not_replayed(void **state)
{
    struct fake_platform *fake = *state;
    struct journal journal;
    struct collected *collected = calloc(1, sizeof(*collected));
    struct journal_identity other = IDENTITY;

    assert_int_equal(replay(fake, &IDENTITY, collected), -ENOENT);
    fake->exists = false;
    assert_int_equal(journal_create(&journal, &fake->platform, &IDENTITY, SIZE_BYTES, NULL), 0);
    append(&journal, 0);
    snprintf(other.boot_id, sizeof(other.boot_id), "other");
    assert_int_equal(replay(fake, &other, collected), -ESTALE);
    other = IDENTITY;
    other.incarnation++;
    assert_int_equal(replay(fake, &other, collected), -ESTALE);
    other = IDENTITY;
    other.database_guid[3] = 1;
    assert_int_equal(replay(fake, &other, collected), -ESTALE);
    assert_int_equal(collected->count, 0);
    free(collected);
}

static void
fences_outlive_the_process(void **state)
{
    struct fake_platform *fake = *state;
    struct journal journal;
    struct collected *collected = calloc(1, sizeof(*collected));

    assert_int_equal(journal_create(&journal, &fake->platform, &IDENTITY, SIZE_BYTES, NULL), 0);
    append(&journal, 0);
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_false(journal_is_fenced(&collected->fences, 9));
    journal_fence(&journal, 9);
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_true(journal_is_fenced(&collected->fences, 9));
    assert_false(journal_is_fenced(&collected->fences, 8));
    journal_fence(&journal, 10);
    journal_fence(&journal, 11);
    journal_lift_fence(&journal, 9);
    journal_lift_fence(&journal, 11);
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_int_equal(collected->fences.length_bytes, sizeof(uint64_t));
    assert_true(journal_is_fenced(&collected->fences, 10));
    for (uint64_t branch = 100; branch < 1100; branch++) {
        journal_fence(&journal, branch);
    }
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_int_equal(collected->count, 1);
    assert_true(journal_is_fenced(&collected->fences, 8)); /* too many to name: everyone */
    for (uint64_t branch = 100; branch < 1100; branch++) {
        journal_lift_fence(&journal, branch);
    }
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_true(journal_is_fenced(&collected->fences, 8)); /* 10 may still be among them */
    journal_lift_fence(&journal, 10);
    assert_int_equal(replay(fake, &IDENTITY, collected), 0);
    assert_int_equal(collected->fences.length_bytes, 0);
    byte_buffer_free(&collected->fences);
    free(collected);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_appended_is_replayed_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(the_tail_never_passes_what_is_uncommitted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_torn_last_record_is_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_not_taken_for_an_end, setup, teardown),
        cmocka_unit_test_setup_teardown(fences_outlive_the_process, setup, teardown),
        cmocka_unit_test_setup_teardown(another_boot_or_incarnation_is_not_replayed, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
