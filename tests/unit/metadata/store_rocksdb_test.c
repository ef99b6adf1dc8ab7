/* SPDX-License-Identifier: Apache-2.0 */
/* The RocksDB store against a naive model; invariants M1 to M4, snapshots, read-only use. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/schema.h"

static void
put_text(struct byte_buffer *batch, enum store_family family, const char *key, const char *value)
{
    store_batch_put(batch, family, key, strlen(key), value, strlen(value));
}

static void
expect_text(struct harness *harness, struct store *store, enum store_family family,
            const char *key, const char *expected)
{
    struct byte_buffer value = BYTE_BUFFER_INIT;
    int result = harness_get(harness, store, family, key, strlen(key), &value);
    if (expected == NULL) {
        assert_int_equal(result, -ENOENT);
    } else {
        assert_int_equal(result, 0);
        assert_int_equal(value.length_bytes, strlen(expected));
        assert_memory_equal(value.data, expected, value.length_bytes);
    }
    byte_buffer_free(&value);
}

static void
opening_and_creating(void **state)
{
    struct harness *harness = *state;
    struct store *store = NULL;
    assert_int_equal(harness_store_open(harness, "none", false, false, &store), -ENOENT);
    assert_int_equal(harness_store_open(harness, "none", false, true, &store), -ENOENT);
    assert_null(store);
    assert_int_equal(harness_store_open(harness, "db", true, false, &store), 0);
    struct store *second = NULL;
    assert_int_equal(harness_store_open(harness, "db", false, false, &second), -EBUSY);
    assert_int_equal(harness_store_open(harness, "db", true, false, &second), -EEXIST);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    put_text(&batch, STORE_FAMILY_SYSTEM, "a", "1");
    put_text(&batch, STORE_FAMILY_EXTENT, "a", "2");
    put_text(&batch, STORE_FAMILY_MAP, "a", "");
    assert_int_equal(harness_commit(harness, store, &batch, true), 0);
    expect_text(harness, store, STORE_FAMILY_MAP, "a", "");
    assert_true(store->ops->size_bytes(store) > 0);
    store->ops->close(store);

    assert_int_equal(harness_store_open(harness, "db", false, false, &store), 0);
    expect_text(harness, store, STORE_FAMILY_SYSTEM, "a", "1");
    expect_text(harness, store, STORE_FAMILY_EXTENT, "a", "2");
    expect_text(harness, store, STORE_FAMILY_MAP, "a", "");
    expect_text(harness, store, STORE_FAMILY_MAP, "b", NULL);
    put_text(&batch, STORE_FAMILY_MAP, "b", "x");
    store_batch_delete(&batch, STORE_FAMILY_MAP, "a", 1);
    store_batch_delete(&batch, STORE_FAMILY_MAP, "never", 5);
    assert_int_equal(harness_commit(harness, store, &batch, false), 0);
    expect_text(harness, store, STORE_FAMILY_MAP, "a", NULL);
    expect_text(harness, store, STORE_FAMILY_MAP, "b", "x");
    store->ops->close(store);
}

/* ---- floor look-ups and merges against a model: 4 branches x 4 pages x 12 generations ---- */

enum {
    BRANCHES = 4,
    PAGES = 4,
    GENERATIONS = 12,
};

struct model_page {
    bool exists;
    struct map_entry entries[MAP_PAGE_ENTRIES];
};

static struct model_page model[BRANCHES][PAGES][GENERATIONS];

static void
start_get(void *argument)
{
    void **pair = argument;
    store_get(pair[0], pair[1]);
}

static void
check_floor(struct harness *harness, struct store *store, uint32_t branch, uint32_t page,
            uint32_t generation)
{
    struct store_get get = {
        .family = STORE_FAMILY_MAP, .key_bytes = MAP_KEY_BYTES, .floor = true,
        .floor_prefix_bytes = 16, .previous = true, .ret_previous_key_bytes = 7,
    };
    map_key_encode(get.key, branch, page, generation);
    void *pair[] = { store, &get };
    int result = harness_await(harness, &get.op, start_get, pair);
    int32_t expected = (int32_t)generation;
    while (expected >= 0 && !model[branch][page][expected].exists) {
        expected--;
    }
    int32_t previous = expected - 1;
    while (previous >= 0 && !model[branch][page][previous].exists) {
        previous--;
    }
    if (previous < 0) {
        assert_int_equal(get.ret_previous_key_bytes, 0);
    } else {
        uint8_t key[MAP_KEY_BYTES];
        map_key_encode(key, branch, page, (uint32_t)previous);
        assert_int_equal(get.ret_previous_key_bytes, sizeof(key));
        assert_memory_equal(get.ret_previous_key, key, sizeof(key));
    }
    if (expected < 0) {
        assert_int_equal(result, -ENOENT);
    } else {
        uint64_t found[3];
        assert_int_equal(result, 0);
        assert_int_equal(
            map_key_decode(get.ret_key, get.ret_key_bytes, &found[0], &found[1], &found[2]), 0);
        assert_int_equal(found[0], branch);
        assert_int_equal(found[1], page);
        assert_int_equal(found[2], expected);
        static struct map_entry entries[MAP_PAGE_ENTRIES];
        uint32_t used;
        assert_int_equal(
            map_page_decode(get.value.data, get.value.length_bytes, entries, &used), 0);
        assert_memory_equal(entries, model[branch][page][expected].entries, sizeof(entries));
    }
    byte_buffer_free(&get.value);
}

static void
model_step(struct random *random, struct byte_buffer *batch)
{
    uint64_t branch = random_below(random, BRANCHES);
    uint64_t page = random_below(random, PAGES);
    uint64_t generation = random_below(random, GENERATIONS);
    struct model_page *at = &model[branch][page][generation];
    uint8_t key[MAP_KEY_BYTES];
    map_key_encode(key, branch, page, generation);
    uint64_t action = random_below(random, 10);
    if (action == 0) {
        memset(at, 0, sizeof(*at));
        store_batch_delete(batch, STORE_FAMILY_MAP, key, sizeof(key));
        return;
    }
    at->exists = true;
    struct byte_buffer bytes = BYTE_BUFFER_INIT;
    if (action == 1) {
        map_page_encode(at->entries, &bytes);
        store_batch_put(batch, STORE_FAMILY_MAP, key, sizeof(key), bytes.data, bytes.length_bytes);
    } else {
        for (uint64_t n = random_below(random, 12) + 1; n > 0; n--) {
            uint32_t index = (uint32_t)random_below(random, 20);
            struct map_entry entry = { 0 };
            if (random_chance(random, 3, 4)) {
                entry.home = 1 + random_below(random, 100000);
                entry.home_generation = (uint32_t)generation + 1;
                entry.valid = (uint16_t)(random_u64(random) | 1);
            }
            at->entries[index] = entry;
            map_delta_append(&bytes, index, &entry);
        }
        store_batch_merge(batch, STORE_FAMILY_MAP, key, sizeof(key), bytes.data,
                          bytes.length_bytes);
    }
    byte_buffer_free(&bytes);
}

static void
floor_and_merge_equal_a_model(void **state)
{
    struct harness *harness = *state;
    struct random random;
    random_seed(&random, 5);
    memset(model, 0, sizeof(model));
    struct store *store;
    assert_int_equal(harness_store_open(harness, "model", true, false, &store), 0);
    for (uint32_t round = 0; round < 400; round++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        for (uint64_t n = random_below(&random, 10); n < 12; n++) {
            model_step(&random, &batch);
        }
        assert_int_equal(harness_commit(harness, store, &batch, round % 16 == 0), 0);
        for (uint32_t n = 0; n < 6; n++) {
            check_floor(harness, store, (uint32_t)random_below(&random, BRANCHES),
                        (uint32_t)random_below(&random, PAGES),
                        (uint32_t)random_below(&random, GENERATIONS));
        }
        if (round % 80 == 79) { /* into tables and through a recovery of the log in turn */
            store->ops->close(store);
            assert_int_equal(harness_store_open(harness, "model", false, false, &store), 0);
        }
    }
    for (uint32_t branch = 0; branch < BRANCHES; branch++) {
        for (uint32_t page = 0; page < PAGES; page++) {
            for (uint32_t generation = 0; generation < GENERATIONS; generation++) {
                check_floor(harness, store, branch, page, generation);
            }
        }
    }
    store->ops->close(store);
}

/* Any family, any length of prefix. */
static void
floor_stays_within_its_prefix(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    assert_int_equal(harness_store_open(harness, "floor", true, false, &store), 0);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        put_text(&batch, (enum store_family)family, "aa", "1");
        put_text(&batch, (enum store_family)family, "ab5", "2");
        put_text(&batch, (enum store_family)family, "ad1", "3");
    }
    assert_int_equal(harness_commit(harness, store, &batch, false), 0);
    static const struct {
        const char *key;
        uint32_t prefix_bytes;
        const char *value;    /* NULL: none */
        const char *previous; /* key of the next smaller one; "": none */
    } cases[] = {
        { "ab7", 2, "2", "" },  { "ab5", 2, "2", "" },   { "ab4", 2, NULL, "" },
        { "ab4", 1, "1", "" },  { "ac9", 2, NULL, "" },  { "ac9", 1, "2", "aa" },
        { "zz", 0, "3", "ab5" }, { "a", 1, NULL, "" },
    };
    for (uint32_t n = 0; n < STORE_FAMILY_COUNT * ARRAY_SIZE(cases); n++) {
        size_t at = n / STORE_FAMILY_COUNT;
        struct store_get get = {
            .family = (enum store_family)(n % STORE_FAMILY_COUNT), .floor = true,
            .floor_prefix_bytes = cases[at].prefix_bytes, .previous = true,
        };
        get.key_bytes = (uint32_t)strlen(cases[at].key);
        memcpy(get.key, cases[at].key, get.key_bytes);
        void *pair[] = { store, &get };
        int result = harness_await(harness, &get.op, start_get, pair);
        assert_int_equal(result, cases[at].value == NULL ? -ENOENT : 0);
        if (result == 0) {
            assert_memory_equal(get.value.data, cases[at].value, 1);
        }
        assert_int_equal(get.ret_previous_key_bytes, strlen(cases[at].previous));
        assert_memory_equal(get.ret_previous_key, cases[at].previous,
                            get.ret_previous_key_bytes);
        byte_buffer_free(&get.value);
    }
    store->ops->close(store);
}

/* ---- scans ---- */

static void
start_scan(void *argument)
{
    void **pair = argument;
    store_scan(pair[0], pair[1]);
}

static void
scans_stop_and_go_on(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    assert_int_equal(harness_store_open(harness, "scan", true, false, &store), 0);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    for (uint32_t n = 0; n < 1000; n++) {
        uint8_t key[MAP_KEY_BYTES];
        map_key_encode(key, n / 100, n % 100, 1);
        store_batch_put(&batch, STORE_FAMILY_MAP, key, sizeof(key), &n, sizeof(n));
    }
    put_text(&batch, STORE_FAMILY_SYSTEM, "\xff\xff", "top");
    assert_int_equal(harness_commit(harness, store, &batch, false), 0);

    static const size_t limits[] = { 1, 100, 5000, 1 << 20 };
    for (size_t n = 0; n < ARRAY_SIZE(limits); n++) {
        struct byte_buffer items = BYTE_BUFFER_INIT;
        assert_int_equal(
            harness_scan(harness, store, STORE_FAMILY_MAP, NULL, limits[n], &items), 0);
        size_t position = 0;
        struct store_batch_item item;
        for (uint32_t expected = 0; expected < 1000; expected++) {
            assert_int_equal(store_batch_next(items.data, items.length_bytes, &position, &item), 1);
            assert_int_equal(item.operation, STORE_PUT);
            assert_memory_equal(item.value, &expected, sizeof(expected));
        }
        assert_int_equal(position, items.length_bytes);
        byte_buffer_free(&items);
    }

    /* One branch by its prefix, from a page on. */
    struct store_scan scan = { .family = STORE_FAMILY_MAP, .bytes_max = 1 << 20 };
    put_be64(scan.prefix, 7);
    scan.prefix_bytes = 8;
    map_key_encode(scan.start, 7, 60, 0);
    scan.start_bytes = MAP_KEY_BYTES;
    void *pair[] = { store, &scan };
    assert_int_equal(harness_await(harness, &scan.op, start_scan, pair), 0);
    size_t position = 0;
    struct store_batch_item item;
    for (uint32_t expected = 760; expected < 800; expected++) {
        assert_int_equal(
            store_batch_next(scan.items.data, scan.items.length_bytes, &position, &item), 1);
        assert_memory_equal(item.value, &expected, sizeof(expected));
    }
    assert_int_equal(position, scan.items.length_bytes);
    assert_false(scan.ret_more);

    /* A prefix that has no successor, and a start before the prefix. */
    scan.family = STORE_FAMILY_SYSTEM;
    memset(scan.prefix, 0xff, 2);
    scan.prefix_bytes = 2;
    scan.start[0] = 'a';
    scan.start_bytes = 1;
    assert_int_equal(harness_await(harness, &scan.op, start_scan, pair), 0);
    position = 0;
    assert_int_equal(store_batch_next(scan.items.data, scan.items.length_bytes, &position, &item),
                     1);
    assert_int_equal(item.value_bytes, 3);
    byte_buffer_free(&scan.items);
    store->ops->close(store);
}

/* ---- order and snapshots ---- */

static void
start_commit(void *argument)
{
    void **pair = argument;
    store_commit(pair[0], pair[1]);
}

static void
start_snapshot(void *argument)
{
    void **pair = argument;
    store_snapshot_create(pair[0], pair[1]);
}

static void
start_release(void *argument)
{
    void **pair = argument;
    store_snapshot_release(pair[0], pair[1]);
}

static void
a_snapshot_takes_its_place_in_the_order_of_commits(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    assert_int_equal(harness_store_open(harness, "snap", true, false, &store), 0);
    enum { COMMITS = 40, CUT = 17 };
    static struct store_commit commits[COMMITS];
    static struct byte_buffer batches[COMMITS];
    static void *pairs[COMMITS][2];
    struct store_snapshot snapshot = { 0 };
    void *snapshot_pair[] = { store, &snapshot };
    for (uint64_t n = 0; n < COMMITS; n++) {
        if (n == CUT) {
            harness_submit(harness, &snapshot.op, start_snapshot, snapshot_pair);
        }
        schema_put_commit(&batches[n], n + 1);
        put_text(&batches[n], (enum store_family)(1 + n % (STORE_FAMILY_COUNT - 1)), "last",
                 n < CUT ? "before" : "after");
        commits[n] = (struct store_commit){ .batch = &batches[n], .sync = n % 5 == 0 };
        pairs[n][0] = store;
        pairs[n][1] = &commits[n];
        harness_submit(harness, &commits[n].op, start_commit, pairs[n]);
    }
    assert_int_equal(harness_collect(harness, &snapshot.op), 0);
    for (uint32_t n = 0; n < COMMITS; n++) {
        assert_int_equal(harness_collect(harness, &commits[n].op), 0);
        byte_buffer_free(&batches[n]);
    }
    struct byte_buffer items = BYTE_BUFFER_INIT;
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        assert_int_equal(harness_scan(harness, store, (enum store_family)family, &snapshot, 1 << 20,
                                      &items),
                         0);
        size_t position = 0;
        struct store_batch_item item;
        assert_int_equal(store_batch_next(items.data, items.length_bytes, &position, &item), 1);
        if (family == STORE_FAMILY_SYSTEM) {
            assert_int_equal(get_le64(item.value), CUT);
        } else {
            assert_memory_equal(item.value, "before", 6);
        }
        assert_int_equal(harness_scan(harness, store, (enum store_family)family, NULL, 1 << 20,
                                      &items),
                         0);
        position = 0;
        assert_int_equal(store_batch_next(items.data, items.length_bytes, &position, &item), 1);
        assert_memory_equal(item.value, family == STORE_FAMILY_SYSTEM ? "\x28" : "a", 1);
    }
    byte_buffer_free(&items);
    assert_int_equal(harness_await(harness, &snapshot.op, start_release, snapshot_pair), 0);
    assert_null(snapshot.handle);
    store->ops->close(store);
}

/* ---- damage to deltas, broken stores ---- */

static void
a_failed_commit_breaks_the_store(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    assert_int_equal(harness_store_open(harness, "broken", true, false, &store), 0);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    put_text(&batch, STORE_FAMILY_SYSTEM, "a", "1");
    assert_int_equal(harness_commit(harness, store, &batch, true), 0);
    byte_buffer_append(&batch, "this is no batch", 16);
    assert_int_equal(harness_commit(harness, store, &batch, true), -EBADMSG);
    put_text(&batch, STORE_FAMILY_SYSTEM, "b", "2");
    assert_int_equal(harness_commit(harness, store, &batch, true), -EIO); /* M4 */
    expect_text(harness, store, STORE_FAMILY_SYSTEM, "a", "1");           /* reads go on */
    store->ops->close(store);
    assert_int_equal(harness_store_open(harness, "broken", false, false, &store), 0);
    expect_text(harness, store, STORE_FAMILY_SYSTEM, "a", "1");
    expect_text(harness, store, STORE_FAMILY_SYSTEM, "b", NULL);
    store->ops->close(store);
}

/* One page that cannot be folded is one damaged page; compactions and commits of others go on. */
static void
a_delta_that_does_not_fold_stops_nobody(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    struct byte_buffer value = BYTE_BUFFER_INIT;
    uint8_t bad[2][MAP_KEY_BYTES];
    map_key_encode(bad[0], 1, 1, 1);
    map_key_encode(bad[1], 1, 2, 1);
    for (uint32_t round = 0; round < 12; round++) { /* each a table: they are compacted */
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        uint8_t key[MAP_KEY_BYTES];
        assert_int_equal(harness_store_open(harness, "stops", round == 0, false, &store), 0);
        map_key_encode(key, 1, 1 + round % 3, 2);
        store_batch_put(&batch, STORE_FAMILY_MAP, key, sizeof(key), "", 0);
        if (round == 0) {
            store_batch_put(&batch, STORE_FAMILY_MAP, bad[1], sizeof(bad[1]), "no page", 7);
            store_batch_merge(&batch, STORE_FAMILY_SYSTEM, "x", 1, "x", 1);
        }
        struct byte_buffer delta = BYTE_BUFFER_INIT;
        map_delta_append(&delta, 7, &(struct map_entry){ .home = 9, .valid = 1 });
        store_batch_merge(&batch, STORE_FAMILY_MAP, bad[0], sizeof(bad[0]), "short", 5);
        store_batch_merge(&batch, STORE_FAMILY_MAP, bad[1], sizeof(bad[1]), delta.data,
                          delta.length_bytes);
        byte_buffer_free(&delta);
        assert_int_equal(harness_commit(harness, store, &batch, true), 0);
        harness_idle(harness, 30 * NS_PER_MS);
        for (uint32_t n = 0; n < 2; n++) {
            assert_int_equal(harness_get(harness, store, STORE_FAMILY_MAP, bad[n], sizeof(bad[n]),
                                         &value), 0);
            static struct map_entry entries[MAP_PAGE_ENTRIES];
            uint32_t used;
            assert_int_equal(map_page_decode(value.data, value.length_bytes, entries, &used),
                             -EUCLEAN);
        }
        store->ops->close(store);
    }
    byte_buffer_free(&value);
}

/* A child with a file size limit: its write-ahead log fails like on a full device. */
static int
child_fills_its_device(const char *directory)
{
    struct harness *harness;
    void *state;
    if (harness_start(&state) != 0) {
        return 10;
    }
    harness = state;
    struct store_rocksdb_options options = {
        .directory = directory, .create = true, .cache_bytes = MIB, .merge = schema_merge,
    };
    struct store *store;
    struct error error = { 0 };
    if (store_rocksdb_open(&options, &store, &error) != 0) {
        return 11;
    }
    struct rlimit limit = { .rlim_cur = 256 << 10, .rlim_max = RLIM_INFINITY };
    setrlimit(RLIMIT_FSIZE, &limit);
    static uint8_t value[10000];
    int result = 0;
    uint64_t acknowledged = 0;
    for (uint64_t n = 1; n < 100 && result == 0; n++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        schema_put_commit(&batch, n);
        put_le64(value, n);
        store_batch_put(&batch, STORE_FAMILY_MAP, &n, sizeof(n), value, sizeof(value));
        result = harness_commit(harness, store, &batch, true);
        acknowledged = result == 0 ? n : acknowledged;
    }
    if (result == 0 || acknowledged < 5) {
        return 12;
    }
    limit.rlim_cur = RLIM_INFINITY; /* space is there again: it must not matter (M4) */
    setrlimit(RLIMIT_FSIZE, &limit);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    schema_put_commit(&batch, 1000);
    if (harness_commit(harness, store, &batch, true) != -EIO) {
        return 13;
    }
    store->ops->close(store);
    if (store_rocksdb_open(&(struct store_rocksdb_options){ .directory = directory,
                                                            .cache_bytes = MIB,
                                                            .merge = schema_merge },
                           &store, &error)
        != 0) {
        return 14;
    }
    struct byte_buffer found = BYTE_BUFFER_INIT;
    uint64_t commit = 0;
    if (harness_get(harness, store, STORE_FAMILY_SYSTEM, "C", 1, &found) != 0
        || schema_get_commit(found.data, found.length_bytes, &commit) != 0
        || commit < acknowledged || commit > acknowledged + 1) {
        return 15;
    }
    byte_buffer_free(&found);
    store->ops->close(store);
    return harness_stop(&state) == 0 ? 0 : 16;
}

/* A child that commits, tells what is acknowledged, and is killed at any moment. */
static int
child_commits(const char *directory)
{
    void *state;
    struct store *store;
    struct error error = { 0 };
    struct store_rocksdb_options options = {
        .directory = directory, .create = true, .cache_bytes = MIB, .merge = schema_merge,
    };
    if (harness_start(&state) != 0 || store_rocksdb_open(&options, &store, &error) != 0) {
        return 10;
    }
    rmdir(((struct harness *)state)->directory); /* not needed, and we do not end by ourselves */
    for (uint64_t n = 1;; n++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        schema_put_commit(&batch, n);
        for (uint32_t family = 1; family < STORE_FAMILY_COUNT; family++) {
            store_batch_put(&batch, (enum store_family)family, &n, sizeof(n), &n, sizeof(n));
        }
        if (harness_commit(state, store, &batch, n % 3 == 0) != 0
            || write(STDOUT_FILENO, &n, sizeof(n)) != sizeof(n)) {
            return 11;
        }
    }
}

static void
a_killed_process_loses_nothing_acknowledged(void **state)
{
    struct harness *harness = *state;
    for (uint32_t round = 0; round < 4; round++) {
        char name[16];
        int pipes[2];
        uint64_t acknowledged = 0;
        snprintf(name, sizeof(name), "kill-%u", round);
        const char *directory = harness_path(harness, name);
        assert_int_equal(pipe(pipes), 0);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            dup2(pipes[1], STDOUT_FILENO);
            execl("/proc/self/exe", "store_rocksdb_test", "--commit", directory, (char *)NULL);
            _exit(9);
        }
        close(pipes[1]);
        while (acknowledged < 20 + 111 * round
               && read(pipes[0], &acknowledged, sizeof(acknowledged)) > 0) {
        }
        kill(child, SIGKILL);
        while (read(pipes[0], &acknowledged, sizeof(acknowledged)) > 0) {
        }
        close(pipes[0]);
        assert_int_equal(waitpid(child, NULL, 0), child);
        assert_true(acknowledged >= 20);

        struct store *store;
        struct byte_buffer value = BYTE_BUFFER_INIT;
        uint64_t commit = 0;
        assert_int_equal(harness_store_open(harness, name, false, false, &store), 0);
        assert_int_equal(harness_get(harness, store, STORE_FAMILY_SYSTEM, "C", 1, &value), 0);
        assert_int_equal(schema_get_commit(value.data, value.length_bytes, &commit), 0);
        assert_in_range(commit, acknowledged, acknowledged + 1);
        for (uint64_t n = 1; n <= commit + 1; n++) { /* M1: in all families, or in none */
            for (uint32_t family = 1; family < STORE_FAMILY_COUNT; family++) {
                assert_int_equal(harness_get(harness, store, (enum store_family)family, &n,
                                             sizeof(n), &value),
                                 n <= commit ? 0 : -ENOENT);
            }
        }
        byte_buffer_free(&value);
        store->ops->close(store);
    }
}

static void
a_full_device_loses_nothing_acknowledged(void **state)
{
    struct harness *harness = *state;
    const char *directory = harness_path(harness, "full");
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* a new program: RocksDB's threads do not survive a fork */
        execl("/proc/self/exe", "store_rocksdb_test", "--fill", directory, (char *)NULL);
        _exit(9);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- read-only ---- */

/* Names, sizes and times of all files of a directory in one number. */
static uint64_t
directory_fingerprint(const char *path)
{
    uint64_t sum = 0;
    DIR *directory = opendir(path);
    assert_non_null(directory);
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        struct stat st;
        if (fstatat(dirfd(directory), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode)) {
            uint64_t hash = 5381;
            for (const char *c = entry->d_name; *c != '\0'; c++) {
                hash = hash * 33 + (uint8_t)*c;
            }
            sum += hash_u64(hash) + hash_u64((uint64_t)st.st_size)
                + hash_u64((uint64_t)st.st_mtim.tv_nsec + (uint64_t)st.st_mtim.tv_sec * NS_PER_S);
        }
    }
    closedir(directory);
    return sum;
}

static void
read_only_changes_nothing(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    assert_int_equal(harness_store_open(harness, "ro", true, false, &store), 0);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    put_text(&batch, STORE_FAMILY_SYSTEM, "a", "1");
    assert_int_equal(harness_commit(harness, store, &batch, true), 0);
    store->ops->close(store);
    assert_int_equal(harness_store_open(harness, "ro", false, false, &store), 0);
    put_text(&batch, STORE_FAMILY_SYSTEM, "b", "in the log only");
    assert_int_equal(harness_commit(harness, store, &batch, true), 0);

    /* While a daemon has it. */
    harness_idle(harness, 50 * NS_PER_MS);
    uint64_t before = directory_fingerprint(harness_path(harness, "ro"));
    struct store *reader;
    assert_int_equal(harness_store_open(harness, "ro", false, true, &reader), 0);
    expect_text(harness, reader, STORE_FAMILY_SYSTEM, "a", "1");
    expect_text(harness, reader, STORE_FAMILY_SYSTEM, "b", "in the log only");
    put_text(&batch, STORE_FAMILY_SYSTEM, "c", "refused");
    assert_int_equal(harness_commit(harness, reader, &batch, true), -EROFS);
    assert_true(directory_fingerprint(harness_path(harness, "ro")) == before);

    /* The daemon goes on, replaces its files, and is not disturbed by the reader's end. */
    for (uint32_t n = 0; n < 200; n++) {
        static uint8_t value[50000];
        for (size_t m = 0; m < sizeof(value); m++) {
            value[m] = (uint8_t)(m * 2654435761u >> (n % 24));
        }
        store_batch_put(&batch, STORE_FAMILY_MAP, &n, sizeof(n), value, sizeof(value));
        put_text(&batch, STORE_FAMILY_SYSTEM, "b", "newer");
        assert_int_equal(harness_commit(harness, store, &batch, n % 10 == 0), 0);
    }
    store->ops->close(store);
    assert_int_equal(harness_store_open(harness, "ro", false, false, &store), 0);
    expect_text(harness, reader, STORE_FAMILY_SYSTEM, "b", "in the log only");
    before = directory_fingerprint(harness_path(harness, "ro"));
    reader->ops->close(reader);
    assert_true(directory_fingerprint(harness_path(harness, "ro")) == before);
    expect_text(harness, store, STORE_FAMILY_SYSTEM, "b", "newer");
    store->ops->close(store);
}

/* One that an early version made, or whose MANIFEST has lost its end: never empty instead. */
static void
a_missing_family_is_refused(void **state)
{
    struct harness *harness = *state;
    static const char *const names[] = { "default", "extent", "map" };
    rocksdb_column_family_handle_t *families[ARRAY_SIZE(names)];
    rocksdb_options_t *options = rocksdb_options_create();
    const rocksdb_options_t *each[] = { options, options, options };
    char *text = NULL;
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_t *database = rocksdb_open_column_families(
        options, harness_path(harness, "three"), (int)ARRAY_SIZE(names), names, each, families,
        &text);
    assert_null(text);
    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        rocksdb_column_family_handle_destroy(families[n]);
    }
    rocksdb_close(database);
    rocksdb_options_destroy(options);

    for (uint32_t n = 0; n < 2; n++) {
        struct store_rocksdb_options wanted = {
            .directory = harness_path(harness, "three"), .read_only = n == 1,
            .cache_bytes = MIB, .merge = schema_merge,
        };
        struct store *store;
        struct error error = { 0 };
        assert_int_equal(store_rocksdb_open(&wanted, &store, &error), -EUCLEAN);
        assert_non_null(strstr(error.message, "a family of records is missing"));
    }
}

/* ---- ballast ---- */

static void
start_ballast(void *argument)
{
    void **pair = argument;
    store_ballast(pair[0], pair[1]);
}

static uint64_t
blocks_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static void
the_ballast_is_given_back_and_taken_again(void **state)
{
    struct harness *harness = *state;
    struct store_rocksdb_options options = {
        .directory = harness_path(harness, "ballast"), .create = true, .cache_bytes = MIB,
        .ballast_bytes = 4 * MIB, .merge = schema_merge,
    };
    struct store *store;
    struct error error = { 0 };
    assert_int_equal(store_rocksdb_open(&options, &store, &error), 0);
    const char *path = harness_path(harness, "ballast/BALLAST");
    assert_true(blocks_of(path) >= 4 * MIB);
    assert_true(store->ops->size_bytes(store) >= 4 * MIB);
    struct store_ballast ballast = { .hold = false, .ret_held_bytes = 1 };
    void *pair[] = { store, &ballast };
    assert_int_equal(harness_await(harness, &ballast.op, start_ballast, pair), 0);
    assert_int_equal(ballast.ret_held_bytes, 0);
    assert_int_equal(blocks_of(path), 0);
    assert_int_equal(harness_await(harness, &ballast.op, start_ballast, pair), 0); /* again */
    ballast.hold = true;
    assert_int_equal(harness_await(harness, &ballast.op, start_ballast, pair), 0);
    assert_int_equal(ballast.ret_held_bytes, 4 * MIB);
    assert_true(blocks_of(path) >= 4 * MIB);
    store->ops->close(store);

    options.create = false;
    options.ballast_bytes = UINT64_C(1) << 55; /* more than any device has: open all the same */
    assert_int_equal(store_rocksdb_open(&options, &store, &error), 0);
    pair[0] = store;
    assert_int_equal(harness_await(harness, &ballast.op, start_ballast, pair), -ENOSPC);
    assert_int_equal(blocks_of(path), 0);
    store->ops->close(store);
}

/* A device that is full to the last block: the ballast makes room to open, and to free things. */
static void
a_full_device_opens_without_its_ballast(void **state)
{
    struct harness *harness = *state;
    const char *place = harness_path(harness, "small");
    char directory[512];
    char filler[512];
    static uint8_t noise[1 << 20];
    assert_int_equal(mkdir(place, 0700), 0);
    if (mount("none", place, "tmpfs", 0, "size=96M") != 0) {
        print_message("not permitted to mount\n");
        skip();
    }
    snprintf(directory, sizeof(directory), "%s/db", place);
    snprintf(filler, sizeof(filler), "%s/filler", place);
    struct store_rocksdb_options options = {
        .directory = directory, .create = true, .cache_bytes = MIB, .merge = schema_merge,
        .ballast_bytes = 24 * MIB,
    };
    struct error error = { 0 };
    struct store *store;
    for (uint32_t round = 0; round < 2; round++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        assert_int_equal(store_rocksdb_open(&options, &store, &error), 0);
        put_text(&batch, STORE_FAMILY_SYSTEM, "a", round == 0 ? "1" : "2");
        assert_int_equal(harness_commit(harness, store, &batch, true), 0);
        expect_text(harness, store, STORE_FAMILY_SYSTEM, "a", round == 0 ? "1" : "2");
        store->ops->close(store);
        options.create = false;
        int fd = open(filler, O_WRONLY | O_CREAT | O_APPEND, 0600);
        assert_true(fd >= 0);
        while (round == 0 && write(fd, noise, sizeof(noise)) > 0) {
        }
        close(fd);
    }
    options.ballast_bytes = 0; /* and when there is nothing left to give back, in words */
    int fd = open(filler, O_WRONLY | O_APPEND);
    while (write(fd, noise, sizeof(noise)) > 0) {
    }
    close(fd);
    assert_int_equal(store_rocksdb_open(&options, &store, &error), -ENOSPC);
    assert_non_null(strstr(error.message, "no space to open the metadata database"));
    assert_int_equal(umount(place), 0);
}

int
main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--fill") == 0) {
        signal(SIGXFSZ, SIG_IGN);
        return child_fills_its_device(argv[2]);
    }
    if (argc == 3 && strcmp(argv[1], "--commit") == 0) {
        return child_commits(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_and_creating),
        cmocka_unit_test(floor_and_merge_equal_a_model),
        cmocka_unit_test(floor_stays_within_its_prefix),
        cmocka_unit_test(scans_stop_and_go_on),
        cmocka_unit_test(a_snapshot_takes_its_place_in_the_order_of_commits),
        cmocka_unit_test(a_failed_commit_breaks_the_store),
        cmocka_unit_test(a_delta_that_does_not_fold_stops_nobody),
        cmocka_unit_test(a_killed_process_loses_nothing_acknowledged),
        cmocka_unit_test(a_full_device_loses_nothing_acknowledged),
        cmocka_unit_test(read_only_changes_nothing),
        cmocka_unit_test(a_missing_family_is_refused),
        cmocka_unit_test(the_ballast_is_given_back_and_taken_again),
        cmocka_unit_test(a_full_device_opens_without_its_ballast),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
