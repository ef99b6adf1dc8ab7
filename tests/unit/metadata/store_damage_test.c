/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What RocksDB, with the store's settings, says to damaged files (RELIABILITY C.4), measured.
 *
 * The claim: a loss is never silent for one who compares the commit number. For every kind of
 * damage the outcome is one of: the open is refused; the commit number is lower than the one that
 * was acknowledged, and exactly the commits up to it are there; reads say -EUCLEAN or -EIO; or all
 * is there. The outcomes are printed as a table, which docs/FORMAT.md quotes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/log.h"
#include "base/random.h"
#include "base/util.h"
#include "tests/unit/metadata/harness.h"
#include "metadata/check.h"
#include "metadata/schema.h"

enum {
    COMMITS = 1000,
    IN_TABLES = 500, /* the first so many are in table files, the others in the log */
    KEYS_PER_COMMIT = 4,
};

static void
data_key(uint64_t commit, uint32_t n, uint8_t *key)
{
    map_key_encode(key, 1 + n, hash_u64(commit) >> 40, commit);
}

static void
data_value(uint64_t commit, uint32_t n, uint8_t value[100])
{
    struct random random;
    random_seed(&random, commit * KEYS_PER_COMMIT + n);
    for (uint32_t m = 0; m < 100; m += 4) {
        put_le32(value + m, (uint32_t)random_u64(&random));
    }
}

static void
fill(struct harness *harness, struct store *store, uint64_t first, uint64_t last)
{
    for (uint64_t commit = first; commit <= last; commit++) {
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        schema_put_commit(&batch, commit);
        for (uint32_t n = 0; n < KEYS_PER_COMMIT; n++) {
            uint8_t key[MAP_KEY_BYTES];
            uint8_t value[100];
            data_key(commit, n, key);
            data_value(commit, n, value);
            store_batch_put(&batch, n == 0 ? STORE_FAMILY_EXTENT : STORE_FAMILY_MAP, key,
                            sizeof(key), value, sizeof(value));
        }
        assert_int_equal(harness_commit(harness, store, &batch, true), 0);
    }
}

/* Make `to` a copy of the directory `from`. */
static void
copy_directory(struct harness *harness, const char *from, const char *to)
{
    char command[1024];
    snprintf(command, sizeof(command), "rm -rf %s && cp -r %s %s", harness_path(harness, to),
             harness_path(harness, from), harness_path(harness, to));
    assert_int_equal(system(command), 0);
}

/* The origin of all damage: half in tables, half in the log, as a kill leaves it. */
static void
build_origin(struct harness *harness)
{
    struct store *store;
    assert_int_equal(harness_store_open(harness, "work", true, false, &store), 0);
    fill(harness, store, 1, IN_TABLES);
    store->ops->close(store);
    assert_int_equal(harness_store_open(harness, "work", false, false, &store), 0);
    fill(harness, store, IN_TABLES + 1, COMMITS);
    copy_directory(harness, "work", "origin");
    store->ops->close(store);
}

/* ---- damage ---- */

/* The largest file of the directory whose name begins and ends so. */
static void
find_file(const char *directory, const char *begin, const char *end, char path[static 512])
{
    DIR *handle = opendir(directory);
    assert_non_null(handle);
    off_t largest = -1;
    const struct dirent *entry;
    while ((entry = readdir(handle)) != NULL) {
        size_t length = strlen(entry->d_name);
        struct stat st;
        if (length >= strlen(end) && strncmp(entry->d_name, begin, strlen(begin)) == 0
            && strcmp(entry->d_name + length - strlen(end), end) == 0
            && fstatat(dirfd(handle), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode)
            && st.st_size > largest) {
            largest = st.st_size;
            snprintf(path, 512, "%s/%s", directory, entry->d_name);
        }
    }
    closedir(handle);
    assert_true(largest > 0);
}

static uint64_t
file_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void
overwrite(const char *path, uint64_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
    close(fd);
}

static void
flip(const char *path, uint64_t offset)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

typedef void damage_fn(const char *path);

static void
flip_middle(const char *path)
{
    flip(path, file_size(path) / 2);
}

static void
flip_early(const char *path)
{
    flip(path, file_size(path) / 10);
}

static void
flip_near_end(const char *path)
{
    flip(path, file_size(path) - 20);
}

static void
cut_tail(const char *path)
{
    assert_int_equal(truncate(path, (off_t)file_size(path) - 20), 0);
}

static void
cut_half(const char *path)
{
    assert_int_equal(truncate(path, (off_t)file_size(path) / 2), 0);
}

static void
cut_all(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void
cut_tail_then_zeroes(const char *path)
{
    uint64_t size = file_size(path);
    cut_tail(path);
    assert_int_equal(truncate(path, (off_t)size + 65536), 0);
}

static void
cut_tail_then_garbage(const char *path)
{
    uint8_t garbage[4096];
    struct random random;
    random_seed(&random, 51);
    for (size_t n = 0; n < sizeof(garbage); n++) {
        garbage[n] = (uint8_t)random_u64(&random);
    }
    cut_tail(path);
    overwrite(path, file_size(path), garbage, sizeof(garbage));
}

static void
zero_last_block(const char *path)
{
    static const uint8_t zeroes[4096];
    overwrite(path, align_down(file_size(path) - 1, 4096), zeroes,
              file_size(path) - align_down(file_size(path) - 1, 4096));
}

static void
zero_middle_block(const char *path)
{
    static const uint8_t zeroes[4096];
    overwrite(path, align_down(file_size(path) / 2, 4096), zeroes, sizeof(zeroes));
}

static void
remove_file(const char *path)
{
    assert_int_equal(unlink(path), 0);
}

struct kind {
    const char *name;
    const char *begin; /* of the file's name */
    const char *end;
    damage_fn *damage;
};

static const struct kind kinds[] = {
    { "log: one byte flipped early", "", ".log", flip_early },
    { "log: one byte flipped in the middle", "", ".log", flip_middle },
    { "log: one byte flipped near the end", "", ".log", flip_near_end },
    { "log: last 20 bytes cut", "", ".log", cut_tail },
    { "log: tail cut, then zeroes", "", ".log", cut_tail_then_zeroes },
    { "log: tail cut, then garbage", "", ".log", cut_tail_then_garbage },
    { "log: last block zeroed", "", ".log", zero_last_block },
    { "log: a block in the middle zeroed", "", ".log", zero_middle_block },
    { "log: second half cut", "", ".log", cut_half },
    { "log: empty", "", ".log", cut_all },
    { "log: removed", "", ".log", remove_file },
    { "table: one byte flipped early", "", ".sst", flip_early },
    { "table: one byte flipped in the middle", "", ".sst", flip_middle },
    { "table: one byte flipped near the end", "", ".sst", flip_near_end },
    { "table: a block in the middle zeroed", "", ".sst", zero_middle_block },
    { "table: second half cut", "", ".sst", cut_half },
    { "table: removed", "", ".sst", remove_file },
    { "CURRENT removed", "CURRENT", "", remove_file },
    { "CURRENT empty", "CURRENT", "", cut_all },
    { "CURRENT: one byte flipped", "CURRENT", "", flip_middle },
    { "MANIFEST removed", "MANIFEST-", "", remove_file },
    { "MANIFEST: one byte flipped", "MANIFEST-", "", flip_middle },
    { "MANIFEST: last 20 bytes cut", "MANIFEST-", "", cut_tail },
    { "MANIFEST empty", "MANIFEST-", "", cut_all },
};

/* ---- outcome ---- */

struct outcome {
    int open_result;
    bool commit_is_readable;
    uint64_t commit;
    uint64_t keys_good;
    uint64_t keys_absent;
    uint64_t keys_unreadable;
    uint64_t keys_beyond; /* of commits above the number */
};

static void
look_at_keys(struct harness *harness, struct store *store, struct outcome *outcome)
{
    struct byte_buffer found = BYTE_BUFFER_INIT;
    for (uint64_t commit = 1; commit <= COMMITS; commit++) {
        for (uint32_t n = 0; n < KEYS_PER_COMMIT; n++) {
            uint8_t key[MAP_KEY_BYTES];
            uint8_t value[100];
            data_key(commit, n, key);
            data_value(commit, n, value);
            int result = harness_get(harness, store,
                                     n == 0 ? STORE_FAMILY_EXTENT : STORE_FAMILY_MAP, key,
                                     sizeof(key), &found);
            if (result == 0) {
                assert_int_equal(found.length_bytes, sizeof(value)); /* never wrong bytes */
                assert_memory_equal(found.data, value, sizeof(value));
                outcome->keys_good++;
                outcome->keys_beyond += outcome->commit_is_readable && commit > outcome->commit;
            } else if (result == -ENOENT) {
                outcome->keys_absent++;
            } else {
                assert_true(result == -EUCLEAN || result == -EIO);
                outcome->keys_unreadable++;
            }
        }
    }
    byte_buffer_free(&found);
}

static void
look(struct harness *harness, const char *name, bool read_only, struct outcome *outcome)
{
    struct store *store;
    memset(outcome, 0, sizeof(*outcome));
    outcome->open_result = harness_store_open(harness, name, false, read_only, &store);
    if (outcome->open_result != 0) {
        return;
    }
    struct byte_buffer found = BYTE_BUFFER_INIT;
    outcome->commit_is_readable =
        harness_get(harness, store, STORE_FAMILY_SYSTEM, "C", 1, &found) == 0
        && schema_get_commit(found.data, found.length_bytes, &outcome->commit) == 0;
    byte_buffer_free(&found);
    look_at_keys(harness, store, outcome);
    store->ops->close(store);
}

/* The claim. */
static void
judge(const struct kind *kind, const struct outcome *outcome)
{
    if (outcome->open_result != 0) {
        assert_true(outcome->open_result == -EUCLEAN || outcome->open_result == -ENOENT
                    || outcome->open_result == -EIO);
        return;
    }
    uint64_t expected = (outcome->commit_is_readable ? outcome->commit : 0) * KEYS_PER_COMMIT;
    bool exactly_those = outcome->keys_beyond == 0
        && outcome->keys_good + outcome->keys_unreadable >= expected
        && outcome->keys_absent <= COMMITS * KEYS_PER_COMMIT - expected;
    if (!exactly_those) {
        fail_msg("%s: commit %llu, but %llu keys good, %llu absent, %llu unreadable, %llu beyond",
                 kind->name, (unsigned long long)outcome->commit,
                 (unsigned long long)outcome->keys_good, (unsigned long long)outcome->keys_absent,
                 (unsigned long long)outcome->keys_unreadable,
                 (unsigned long long)outcome->keys_beyond);
    }
}

static void
describe(const struct outcome *outcome, char text[static 64])
{
    if (outcome->open_result != 0) {
        snprintf(text, 64, "refused (%s)",
                 outcome->open_result == -EUCLEAN    ? "damaged"
                     : outcome->open_result == -ENOENT ? "not there"
                                                       : "I/O error");
    } else if (!outcome->commit_is_readable) {
        snprintf(text, 64, "opens, no commit number");
    } else if (outcome->commit < COMMITS) {
        snprintf(text, 64, "opens, commit %llu", (unsigned long long)outcome->commit);
    } else if (outcome->keys_unreadable > 0) {
        snprintf(text, 64, "opens, %llu reads say so",
                 (unsigned long long)outcome->keys_unreadable);
    } else {
        snprintf(text, 64, "opens, all there");
    }
}

static void
no_loss_is_unnoticed(void **state)
{
    struct harness *harness = *state;
    uint32_t refused = 0;
    uint32_t behind = 0;
    build_origin(harness);
    struct outcome outcome;
    copy_directory(harness, "origin", "copy");
    look(harness, "copy", false, &outcome); /* the control: a kill loses nothing (P3) */
    assert_int_equal(outcome.commit, COMMITS);
    assert_int_equal(outcome.keys_good, COMMITS * KEYS_PER_COMMIT);
    for (size_t n = 0; n < ARRAY_SIZE(kinds); n++) {
        char texts[2][64];
        for (uint32_t read_only = 0; read_only < 2; read_only++) {
            char path[512];
            copy_directory(harness, "origin", "copy");
            find_file(harness_path(harness, "copy"), kinds[n].begin, kinds[n].end, path);
            kinds[n].damage(path);
            look(harness, "copy", read_only == 1, &outcome);
            judge(&kinds[n], &outcome);
            describe(&outcome, texts[read_only]);
            refused += outcome.open_result != 0;
            behind += outcome.open_result == 0 && outcome.commit < COMMITS;
        }
        print_message("| %-40s | %-26s | %-26s |\n", kinds[n].name, texts[0], texts[1]);
    }
    assert_true(refused > 5 && behind > 5); /* the damage did something */
}

/*
 * A database that was closed has everything in tables, one family after the other. A MANIFEST that
 * loses its end must not show some families as they were before.
 */
static void
families_are_of_one_time(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    char path[512];
    uint32_t refused = 0;
    for (uint32_t half = 0; half < 2; half++) {
        assert_int_equal(harness_store_open(harness, "closed", half == 0, false, &store), 0);
        fill(harness, store, half * (uint64_t)IN_TABLES + 1, (half + 1) * (uint64_t)IN_TABLES);
        store->ops->close(store);
    }
    for (uint64_t bytes = 4; bytes < 400; bytes += 12) {
        static const struct kind kind = { "closed: end of the MANIFEST cut", "", "", NULL };
        struct outcome outcome;
        copy_directory(harness, "closed", "copy");
        find_file(harness_path(harness, "copy"), "MANIFEST-", "", path);
        assert_int_equal(truncate(path, (off_t)(file_size(path) - bytes)), 0);
        look(harness, "copy", false, &outcome);
        judge(&kind, &outcome);
        refused += outcome.open_result != 0;
    }
    assert_true(refused > 5);
}

/* A MANIFEST of an older time under a log of today: what lies between is gone. */
static void
holes_below_a_log_are_found(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    char path[512];
    char command[1300];
    for (uint32_t part = 0; part < 4; part++) {
        assert_int_equal(harness_store_open(harness, "holes", part == 0, false, &store), 0);
        fill(harness, store, part * 50 + 1, part * 50 + 50);
        if (part == 3) {
            copy_directory(harness, "holes", "copy"); /* as after a kill: the last 50 in the log */
        }
        store->ops->close(store);
        if (part == 1) {
            copy_directory(harness, "holes", "older");
        }
    }
    assert_int_equal(harness_store_open(harness, "copy", false, true, &store), 0);
    store->ops->close(store);
    /* The tables that the older MANIFEST names are still there, the log is the new one. */
    find_file(harness_path(harness, "older"), "MANIFEST-", "", path);
    snprintf(command, sizeof(command), "cd %s && cp -n %s/*.sst . && rm MANIFEST-* CURRENT && "
             "cp %s %s/CURRENT .", harness_path(harness, "copy"), harness_path(harness, "older"),
             path, harness_path(harness, "older"));
    assert_int_equal(system(command), 0);
    assert_int_equal(harness_store_open(harness, "copy", false, false, &store), -EUCLEAN);
}

/* ---- the checker over a table that cannot be read ---- */

struct run {
    struct metadata_check check;
    uint32_t unreadable;
};

static void
take_finding(struct metadata_check *check, const struct check_finding *finding)
{
    struct run *run = container_of(check, struct run, check);
    run->unreadable += finding->code == CHECK_UNREADABLE;
}

static void
start_check(void *argument)
{
    metadata_check(argument);
}

static void
the_checker_tells_what_it_cannot_read(void **state)
{
    struct harness *harness = *state;
    struct store *store;
    char path[512];
    assert_int_equal(harness_store_open(harness, "check", true, false, &store), 0);
    fill(harness, store, 1, IN_TABLES);
    store->ops->close(store);
    find_file(harness_path(harness, "check"), "", ".sst", path);
    flip_middle(path);
    assert_int_equal(harness_store_open(harness, "check", false, true, &store), 0);
    struct run run = { .check = { .store = store, .finding = take_finding } };
    assert_int_equal(harness_await(harness, &run.check.op, start_check, &run.check), 0);
    assert_true(run.unreadable > 0);
    store->ops->close(store);
}

/* Each read of a damaged table fails, as often as a host asks; the log must not fill up. */
static void
errors_of_reads_do_not_fill_the_log(void **state)
{
    struct harness *harness = *state;
    char path[512];
    char text[1 << 14];
    struct outcome outcome;
    uint32_t lines = 0;

    copy_directory(harness, "origin", "copy"); /* of the test before */
    find_file(harness_path(harness, "copy"), "", ".sst", path);
    zero_middle_block(path);
    FILE *log = tmpfile();
    assert_non_null(log);
    int standard_error = dup(STDERR_FILENO);
    assert_true(standard_error >= 0);
    assert_true(dup2(fileno(log), STDERR_FILENO) >= 0);
    look(harness, "copy", false, &outcome);
    assert_true(dup2(standard_error, STDERR_FILENO) >= 0);
    close(standard_error);
    assert_int_equal(outcome.open_result, 0);
    assert_true(outcome.keys_unreadable > 2 * LOG_LIMIT_LINES);
    ssize_t bytes = pread(fileno(log), text, sizeof(text) - 1, 0);
    assert_in_range(bytes, 1, sizeof(text) - 2);
    text[bytes] = '\0';
    fclose(log);
    for (const char *at = text; (at = strstr(at, "read failed")) != NULL; at++) {
        lines++;
    }
    assert_int_equal(lines, LOG_LIMIT_LINES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_are_of_one_time),
        cmocka_unit_test(holes_below_a_log_are_found),
        cmocka_unit_test(the_checker_tells_what_it_cannot_read),
        cmocka_unit_test(no_loss_is_unnoticed),
        cmocka_unit_test(errors_of_reads_do_not_fill_the_log),
    };
    return cmocka_run_group_tests(tests, harness_start, harness_stop);
}
