/* SPDX-License-Identifier: Apache-2.0 */
/* The checker finds every kind of generated damage; what it repairs is repaired. The dump. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/damage.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/dump.h"

struct run {
    struct metadata_check check;
    uint32_t found[CHECK_CODE_COUNT];
    struct check_finding last[CHECK_CODE_COUNT];
    char texts[4096];
};

static void
take_finding(struct metadata_check *check, const struct check_finding *finding)
{
    struct run *run = container_of(check, struct run, check);
    run->found[finding->code]++;
    run->last[finding->code] = *finding;
    size_t length = strlen(run->texts);
    snprintf(run->texts + length, sizeof(run->texts) - length, "  %s: %s\n",
             check_code_name(finding->code), finding->text);
}

static void
start_check(void *argument)
{
    metadata_check(argument);
}

static void
run_check(struct harness *harness, struct store *store, struct run *run,
          struct byte_buffer *repair)
{
    memset(run, 0, sizeof(*run));
    run->check.store = store;
    run->check.finding = take_finding;
    run->check.repair = repair;
    assert_int_equal(harness_await(harness, &run->check.op, start_check, &run->check), 0);
    assert_null(run->check.driver);
}

static uint64_t
total(const struct run *run)
{
    return run->check.ret_findings[CHECK_WARNING] + run->check.ret_findings[CHECK_ERROR];
}

/* Every record of the store, so that it can be made again. */
static void
clear_store(struct harness *harness, struct store *store)
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        assert_int_equal(
            harness_scan(harness, store, (enum store_family)family, NULL, 1 << 20, &items), 0);
        size_t position = 0;
        struct store_batch_item item;
        while (store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
            store_batch_delete(&batch, item.family, item.key, item.key_bytes);
        }
    }
    byte_buffer_free(&items);
    assert_int_equal(harness_commit(harness, store, &batch, false), 0);
}

static struct store *
example_store(struct harness *harness, const char *name)
{
    struct store *store;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    assert_int_equal(harness_store_open(harness, name, true, false, &store), 0);
    example_build(&batch);
    assert_int_equal(harness_commit(harness, store, &batch, false), 0);
    return store;
}

static void
nothing_is_found_in_a_healthy_database(void **state)
{
    struct harness *harness = *state;
    struct store *store = example_store(harness, "healthy");
    struct run *run = test_malloc(sizeof(*run));
    struct byte_buffer repair = BYTE_BUFFER_INIT;
    run_check(harness, store, run, &repair);
    if (total(run) != 0) {
        fail_msg("found:\n%s", run->texts);
    }
    assert_int_equal(repair.length_bytes, 0);
    assert_int_equal(run->check.ret_commit, 1234);
    assert_int_equal(run->check.ret_extents, 5);
    assert_int_equal(run->check.ret_pages, 5);
    assert_int_equal(run->check.ret_grains, 8);
    store->ops->close(store);
    assert_int_equal(harness_store_open(harness, "healthy", false, true, &store), 0);
    run_check(harness, store, run, NULL); /* as `volctl check` has it */
    assert_int_equal(total(run), 0);
    store->ops->close(store);
    test_free(run);
}

static void
every_damage_is_found(void **state)
{
    struct harness *harness = *state;
    struct run *run = test_malloc(sizeof(*run));
    bool covered[CHECK_CODE_COUNT] = { false };
    for (size_t n = 0; n < damage_count; n++) {
        const struct damage *damage = &damages[n];
        char name[32];
        snprintf(name, sizeof(name), "damage-%zu", n);
        struct store *store = example_store(harness, name);
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        struct byte_buffer repair = BYTE_BUFFER_INIT;
        damage->apply(&batch);
        assert_int_equal(harness_commit(harness, store, &batch, false), 0);
        run_check(harness, store, run, &repair);
        const struct check_finding *finding = &run->last[damage->code];
        if (run->found[damage->code] == 0 || finding->severity != damage->severity
            || finding->repairable != damage->repairable || finding->text[0] == '\0') {
            fail_msg("%s: expected %s, found:\n%s", damage->name, check_code_name(damage->code),
                     run->texts);
        }
        covered[damage->code] = true;
        if (damage->repairable) {
            assert_true(repair.length_bytes > 0);
            assert_int_equal(harness_commit(harness, store, &repair, false), 0);
            run_check(harness, store, run, NULL);
            if (total(run) != 0) {
                fail_msg("%s: left after the repair:\n%s", damage->name, run->texts);
            }
        }
        byte_buffer_free(&repair);
        store->ops->close(store);
    }
    for (uint32_t code = 0; code < CHECK_LABEL_POOL_WRONG; code++) {
        /* A new code needs its damage. What cannot be read: store_damage_test. */
        if (!covered[code] && code != CHECK_UNREADABLE) {
            fail_msg("no damage is generated for %s", check_code_name((enum check_code)code));
        }
    }
    test_free(run);
}

static void
labels_are_compared(void **state)
{
    struct harness *harness = *state;
    struct store *store = example_store(harness, "labels");
    struct run *run = test_malloc(sizeof(*run));
    struct label labels[2];
    for (uint32_t n = 0; n < 6; n++) {
        example_label(0, &labels[0]);
        example_label(1, &labels[1]);
        static const enum check_code codes[] = {
            CHECK_CODE_COUNT, CHECK_CODE_COUNT, CHECK_LABEL_POOL_WRONG, CHECK_LABEL_DISK_UNKNOWN,
            CHECK_LABEL_GEOMETRY_WRONG, CHECK_LABEL_NEWER,
        };
        labels[1].incarnation += n == 1 ? 1 : n == 5 ? 2 : 0;
        labels[1].pool_guid[0] ^= n == 2;
        labels[1].disk_guid[0] ^= n == 3;
        labels[1].slot_count -= n == 4;
        memset(run, 0, sizeof(*run));
        run->check.store = store;
        run->check.finding = take_finding;
        run->check.labels = labels;
        run->check.label_count = 2;
        assert_int_equal(harness_await(harness, &run->check.op, start_check, &run->check), 0);
        assert_int_equal(total(run), codes[n] == CHECK_CODE_COUNT ? 0 : 1);
        if (codes[n] != CHECK_CODE_COUNT) {
            assert_int_equal(run->found[codes[n]], 1);
            assert_int_equal(run->last[codes[n]].key[2], 1); /* which disk */
        }
    }
    store->ops->close(store);
    test_free(run);
}

/* Any flipped bit of an extent or a page is found. */
static void
flipped_bits_are_found(void **state)
{
    struct harness *harness = *state;
    struct store *store = example_store(harness, "flips");
    struct run *run = test_malloc(sizeof(*run));
    struct random random;
    random_seed(&random, 41);
    struct byte_buffer items[2] = { BYTE_BUFFER_INIT, BYTE_BUFFER_INIT };
    assert_int_equal(
        harness_scan(harness, store, STORE_FAMILY_EXTENT, NULL, 1 << 20, &items[0]), 0);
    assert_int_equal(harness_scan(harness, store, STORE_FAMILY_MAP, NULL, 1 << 20, &items[1]), 0);
    for (uint32_t round = 0; round < 300; round++) {
        const struct byte_buffer *from = &items[round % 2];
        size_t position = 0;
        struct store_batch_item item;
        for (uint64_t skip = random_below(&random, 5); skip < 5; skip++) {
            assert_int_equal(
                store_batch_next(from->data, from->length_bytes, &position, &item), 1);
        }
        struct byte_buffer value = BYTE_BUFFER_INIT;
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        byte_buffer_append(&value, item.value, item.value_bytes);
        uint64_t bit = random_below(&random, value.length_bytes * 8);
        value.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        store_batch_put(&batch, item.family, item.key, item.key_bytes, value.data,
                        value.length_bytes);
        assert_int_equal(harness_commit(harness, store, &batch, false), 0);
        run_check(harness, store, run, NULL);
        assert_int_equal(run->found[CHECK_EXTENT_DAMAGED] + run->found[CHECK_PAGE_DAMAGED], 1);
        assert_int_equal(run->found[CHECK_GRAIN_LEAKED] != 0 && round % 2 == 1, 0);
        store_batch_put(&batch, item.family, item.key, item.key_bytes, item.value,
                        item.value_bytes);
        assert_int_equal(harness_commit(harness, store, &batch, false), 0);
        byte_buffer_free(&value);
    }
    run_check(harness, store, run, NULL);
    assert_int_equal(total(run), 0);
    byte_buffer_free(&items[0]);
    byte_buffer_free(&items[1]);
    store->ops->close(store);
    test_free(run);
}

/* Random records under legal keys: findings, but no crash. */
static void
noise_does_not_disturb(void **state)
{
    struct harness *harness = *state;
    struct store *store = example_store(harness, "noise");
    struct run *run = test_malloc(sizeof(*run));
    struct random random;
    random_seed(&random, 42);
    for (uint32_t round = 0; round < 60; round++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        for (uint32_t n = 0; n < 20; n++) {
            uint8_t key[STORE_KEY_BYTES_MAX];
            uint8_t value[200];
            uint32_t family = (uint32_t)random_below(&random, STORE_FAMILY_COUNT);
            static const char types[] = "PCDVBJXNKZEqST";
            size_t key_bytes = family == STORE_FAMILY_MAP ? 24
                : family == STORE_FAMILY_EXTENT            ? 8
                : family == STORE_FAMILY_HISTORY           ? 17 + 8 * random_below(&random, 2)
                                                           : 1 + random_below(&random, 18);
            memset(key, 0, sizeof(key));
            key[0] = family == STORE_FAMILY_SYSTEM
                ? (uint8_t)types[random_below(&random, sizeof(types) - 1)]
                : family == STORE_FAMILY_HISTORY ? "LA"[random_below(&random, 2)] : 0;
            key[key_bytes - 1] = (uint8_t)(1 + random_below(&random, 5));
            size_t length = random_below(&random, sizeof(value));
            for (size_t m = 0; m < length; m++) {
                value[m] = (uint8_t)random_u64(&random);
            }
            store_batch_put(&batch, (enum store_family)family, key, key_bytes, value, length);
        }
        assert_int_equal(harness_commit(harness, store, &batch, false), 0);
        run_check(harness, store, run, NULL);
        assert_true(run->check.ret_findings[CHECK_ERROR] > 0);
        if (round % 10 == 9) {
            clear_store(harness, store);
            example_build(&batch);
            assert_int_equal(harness_commit(harness, store, &batch, false), 0);
        }
    }
    store->ops->close(store);
    test_free(run);
}

/* ---- dump ---- */

struct dump_run {
    struct metadata_dump dump;
    struct byte_buffer text;
};

static void
take_line(struct metadata_dump *dump, const char *line, size_t length)
{
    struct dump_run *run = container_of(dump, struct dump_run, dump);
    assert_int_equal(strlen(line), length);
    assert_null(strchr(line, '\n'));
    byte_buffer_append(&run->text, line, length);
    byte_buffer_append_u8(&run->text, '\n');
}

static void
start_dump(void *argument)
{
    metadata_dump(argument);
}

static void
the_dump_is_json_and_complete(void **state)
{
    struct harness *harness = *state;
    struct store *store = example_store(harness, "dump");
    struct dump_run run = { .dump = { .store = store, .line = take_line } };
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    store_batch_put(&batch, STORE_FAMILY_SYSTEM, "E\0\0\0\0\0\0\0\2", 9, "a \"quote\"\n\xff", 11);
    store_batch_put(&batch, STORE_FAMILY_SYSTEM, "V\0\0\0\0\0\0\0\7", 9, "noise", 5);
    assert_int_equal(harness_commit(harness, store, &batch, false), 0);
    assert_int_equal(harness_await(harness, &run.dump.op, start_dump, &run.dump), 0);
    byte_buffer_append_u8(&run.text, '\0');
    const char *text = (const char *)run.text.data;
    assert_int_equal(run.dump.ret_damaged, 1);
    static const char *const expected[] = {
        "{\"type\":\"commit\",\"commit\":1234}",
        "{\"type\":\"branch\",\"id\":2,\"family\":1,\"parent\":1,\"fork_generation\":2,"
        "\"current_generation\":4,\"volume\":2,\"unclean_generation\":0,\"headless\":false,"
        "\"complete\":false,\"continues\":false}",
        "{\"type\":\"snapshot\",\"branch\":1,\"generation\":2,\"id\":1,\"volume\":1,",
        "\"name\":\"before\",\"state\":2,",
        "{\"type\":\"policy\",\"volume\":1,\"rules\":[[0,1099511627776,8,0]]}",
        "{\"type\":\"link\",\"branch\":1,\"version\":4,\"previous\":2,\"page\":0}",
        "{\"type\":\"counter\",\"branch\":1,\"birth\":2,\"death\":4,\"grains\":1}",
        "{\"type\":\"counter\",\"branch\":1,\"birth\":1,\"death\":4,\"grains\":0}",
        "{\"type\":\"position\",\"branch\":1,\"batch\":10,\"mapped_grains\":5}",
        "{\"type\":\"damaged\",\"family\":0,\"key\":\"560000000000000007\","
        "\"value\":\"6e6f697365\"}",
        "\"text\":\"a \\\"quote\\\"\\u000a\\u00ff\"}",
        "\"places\":[[0,5],[1,8]]",
        "\"state\":\"checkpoint\"",
        "{\"type\":\"page\",\"branch\":2,\"page\":0,\"generation\":4,"
        "\"entries\":[[0,64,1,255,0,0,0,0,0],[1,201,3,255,65,2,3840,0,0]]}",
    };
    for (size_t n = 0; n < ARRAY_SIZE(expected); n++) {
        if (strstr(text, expected[n]) == NULL) {
            fail_msg("not in the dump: %s", expected[n]);
        }
    }
    FILE *file = fopen(harness_path(harness, "dump.json"), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    char command[512];
    snprintf(command, sizeof(command),
             "command -v python3 >/dev/null || exit 0; python3 -c \"import json,sys;"
             "n=sum(1 for l in open(sys.argv[1]) if json.loads(l));"
             "sys.exit(n != int(sys.argv[2]))\" %s %u",
             harness_path(harness, "dump.json"), (unsigned)run.dump.ret_lines);
    assert_int_equal(system(command), 0);
    byte_buffer_free(&run.text);
    store->ops->close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_found_in_a_healthy_database),
        cmocka_unit_test(every_damage_is_found),
        cmocka_unit_test(labels_are_compared),
        cmocka_unit_test(flipped_bits_are_found),
        cmocka_unit_test(noise_does_not_disturb),
        cmocka_unit_test(the_dump_is_json_and_complete),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
