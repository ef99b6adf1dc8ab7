/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata store on RocksDB: opening and closing.
 *
 * THEORY OF OPERATION
 *
 * One database per pool, one column family per store family, one write-ahead log for all of them,
 * so that a batch is atomic across families (M1). Writes are never made without the log. Deltas are
 * RocksDB merge operands; the merge operator calls the store's merge function, and where there is
 * no base value yet it only puts operands behind each other, which is legal because operands of
 * all families are sequences (schema.h).
 *
 * The log is recovered in RocksDB's point-in-time mode: after a power cut it ends in a torn record
 * or in zeroes of the preallocated area, and every stricter mode takes an ordinary power cut for
 * damage. The price is that damage in the middle of the log looks like an early end, too: the
 * database opens and has lost commits. RocksDB cannot tell the two apart, we can: each commit has
 * its number in the SYSTEM family, and the pool compares it with the ledger's before it serves
 * (RELIABILITY C.4; tests/unit/metadata/store_damage_test.c measures it).
 *
 * The log is shared, but RocksDB writes out one family at a time, and notes it in its MANIFEST. A
 * MANIFEST that has lost its end can make one family older than the others, with the newest commit
 * number in place; one that is older as a whole, or a log that is gone, leaves a hole below batches
 * of later logs. So each batch merges its number into every family, onto the number before, and a
 * database whose families have holes or do not agree is refused (the witness). RocksDB's own atomic
 * flush would not help when one family is flushed at close, and 7.8 aborts when such a flush meets
 * an automatic one.
 *
 * A delta that cannot be folded would fail flushes and compactions, and so in the end the opening
 * of the database. It must not: folding then gives a value that no decoder takes, and one damaged
 * page is one damaged page.
 *
 * Memory: block cache (with index and filter blocks in it) + write buffers (WRITE_BUFFER_TOTAL, up
 * to twice that while they are being flushed) + about 1 MiB for each running background job.
 *
 * A read-only store opens the files of a database that may be in use by a daemon: it takes no lock,
 * creates no file, and keeps every table file open, so that the daemon may delete what it has
 * replaced. It sees the state at the time of opening.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"
#include "metadata/store_rocksdb_impl.h"

enum {
    READER_THREADS = 2,
    BACKGROUND_JOBS = 4,
    OPEN_FILES_MAX = 512,
    OPEN_RETRY_MS = 20,
    OPEN_ATTEMPTS = 5, /* read-only: files may be replaced while we open them */
    BLOOM_BITS = 10,
    BLOCK_BYTES_MAP = 8 << 10,
    INFO_LOG_BYTES = 4 << 20,
    INFO_LOG_FILES = 3,
    RECOVERY_POINT_IN_TIME = 2, /* rocksdb::WALRecoveryMode */
    /*
     * rocksdb::InfoLogLevel. Only what it writes at open, when there is room: on a full device the
     * second line after one that failed aborts the process (7.8 with assertions, as in Debian).
     */
    INFO_LOG_LEVEL_FATAL = 4,
};
#define WRITE_BUFFER_TOTAL (48 * MIB)
#define WRITE_AHEAD_LOG_MAX (96 * MIB)
#define OPEN_ROOM           WRITE_BUFFER_TOTAL /* a log that is replayed becomes tables */
#define OPEN_ROOM_MIN       (MIB)

/* SYSTEM is in the column family that every database has. */
static const char *const family_names[STORE_FAMILY_COUNT] = {
    [STORE_FAMILY_SYSTEM] = "default",
    [STORE_FAMILY_EXTENT] = "extent",
    [STORE_FAMILY_MAP] = "map",
    [STORE_FAMILY_HISTORY] = "history",
};
static const uint64_t family_write_buffer_bytes[STORE_FAMILY_COUNT] = {
    [STORE_FAMILY_SYSTEM] = 4 * MIB,
    [STORE_FAMILY_EXTENT] = 8 * MIB,
    [STORE_FAMILY_MAP] = 16 * MIB,
    [STORE_FAMILY_HISTORY] = 8 * MIB,
};

/* ---- merge operator ---- */

struct merge_state {
    store_merge_fn *merge;
    enum store_family family;
};

static char *
concatenate(const char *const *operands, const size_t *lengths, int count, size_t *ret_bytes)
{
    size_t total = 0;
    for (int n = 0; n < count; n++) {
        total += lengths[n];
    }
    char *all = malloc(total + 1);
    ASSERT(all != NULL);
    size_t position = 0;
    for (int n = 0; n < count; n++) {
        memcpy(all + position, operands[n], lengths[n]);
        position += lengths[n];
    }
    *ret_bytes = total;
    return all;
}

/* What a decoder of any family refuses, with what was there before behind it. */
static void
make_damaged(struct byte_buffer *value, const char *existing, size_t existing_bytes)
{
    static const char mark[] = "\xff" "is damaged"; /* nor is it a number of a witness */
    byte_buffer_clear(value);
    if (existing_bytes < strlen(mark) || memcmp(existing, mark, strlen(mark)) != 0) {
        byte_buffer_append(value, mark, strlen(mark));
    }
    if (existing_bytes > 0) {
        byte_buffer_append(value, existing, MIN(existing_bytes, (size_t)STORE_VALUE_BYTES_MAX / 2));
    }
}

/* Ranges that follow each other become one; others stay, and will not fold. */
static size_t
witness_join(char *ranges, size_t length)
{
    size_t kept = STORE_WITNESS_RANGE_BYTES;
    for (size_t at = kept; at + STORE_WITNESS_RANGE_BYTES <= length;
         at += STORE_WITNESS_RANGE_BYTES) {
        uint8_t *before = (uint8_t *)ranges + kept - sizeof(uint64_t);
        if (get_le64((const uint8_t *)ranges + at) == get_le64(before) + 1) {
            memcpy(before, ranges + at + sizeof(uint64_t), sizeof(uint64_t));
        } else {
            memmove(ranges + kept, ranges + at, STORE_WITNESS_RANGE_BYTES);
            kept += STORE_WITNESS_RANGE_BYTES;
        }
    }
    return MIN(kept, length);
}

static int
witness_merge(struct byte_buffer *value, const uint8_t *ranges, size_t length)
{
    uint64_t number = value->length_bytes == sizeof(number) ? get_le64(value->data) : 0;
    if ((value->length_bytes != 0 && value->length_bytes != sizeof(number)) || length == 0
        || length % STORE_WITNESS_RANGE_BYTES != 0) {
        return -EUCLEAN;
    }
    for (size_t at = 0; at < length; at += STORE_WITNESS_RANGE_BYTES) {
        if (get_le64(ranges + at) != number + 1) {
            return -EUCLEAN;
        }
        number = get_le64(ranges + at + sizeof(number));
    }
    byte_buffer_clear(value);
    byte_buffer_append_le64(value, number);
    return 0;
}

static char *
merge_full(void *argument, const char *key, size_t key_bytes, const char *existing,
           size_t existing_bytes, const char *const *operands, const size_t *lengths, int count,
           unsigned char *success, size_t *ret_bytes)
{
    const struct merge_state *state = argument;
    struct byte_buffer value = BYTE_BUFFER_INIT;
    if (existing != NULL) {
        byte_buffer_append(&value, existing, existing_bytes);
    }
    size_t all_bytes;
    char *all = concatenate(operands, lengths, count, &all_bytes);
    int result = store_is_witness(key, key_bytes)
        ? witness_merge(&value, (const uint8_t *)all, all_bytes)
        : state->merge(state->family, (const uint8_t *)key, key_bytes, &value,
                       (const uint8_t *)all, all_bytes);
    free(all);
    if (result != 0) {
        make_damaged(&value, existing, existing != NULL ? existing_bytes : 0);
    }
    *success = 1;
    *ret_bytes = value.length_bytes;
    byte_buffer_reserve(&value, 1); /* RocksDB wants a pointer, also to nothing */
    return (char *)value.data;
}

static char *
merge_partial(void *argument, const char *key, size_t key_bytes, const char *const *operands,
              const size_t *lengths, int count, unsigned char *success, size_t *ret_bytes)
{
    (void)argument;
    *success = 1;
    char *all = concatenate(operands, lengths, count, ret_bytes);
    if (store_is_witness(key, key_bytes)) {
        *ret_bytes = witness_join(all, *ret_bytes);
    }
    return all;
}

static void
merge_free_value(void *argument, const char *value, size_t value_bytes)
{
    (void)argument;
    (void)value_bytes;
    free((void *)(uintptr_t)value);
}

static const char *
merge_name(void *argument)
{
    (void)argument;
    return "volmgr.delta"; /* part of the format: RocksDB refuses another name */
}

static rocksdb_mergeoperator_t *
merge_operator_create(store_merge_fn *merge, enum store_family family)
{
    struct merge_state *state = malloc(sizeof(*state));
    ASSERT(state != NULL);
    *state = (struct merge_state){ .merge = merge, .family = family };
    return rocksdb_mergeoperator_create(state, free, merge_full, merge_partial, merge_free_value,
                                        merge_name);
}

/* ---- options ---- */

static void
set_database_options(rocksdb_options_t *options, const struct store_rocksdb_options *wanted)
{
    rocksdb_options_set_create_if_missing(options, wanted->create);
    rocksdb_options_set_create_missing_column_families(options, wanted->create);
    rocksdb_options_set_error_if_exists(options, wanted->create);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_wal_recovery_mode(options, RECOVERY_POINT_IN_TIME);
    rocksdb_options_set_manual_wal_flush(options, 0);
    rocksdb_options_set_db_write_buffer_size(options, WRITE_BUFFER_TOTAL);
    rocksdb_options_set_max_total_wal_size(options, WRITE_AHEAD_LOG_MAX);
    rocksdb_options_set_max_background_jobs(options, BACKGROUND_JOBS);
    /* A read-only store keeps all tables open: their names may go away under it. */
    rocksdb_options_set_max_open_files(options, wanted->read_only ? -1 : OPEN_FILES_MAX);
    rocksdb_options_set_max_file_opening_threads(options, 2);
    rocksdb_options_set_bytes_per_sync(options, MIB);
    rocksdb_options_set_max_log_file_size(options, INFO_LOG_BYTES);
    rocksdb_options_set_keep_log_file_num(options, INFO_LOG_FILES);
    rocksdb_options_set_info_log_level(options, INFO_LOG_LEVEL_FATAL);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
    rocksdb_options_set_skip_stats_update_on_db_open(options, 1);
    rocksdb_options_set_max_manifest_file_size(options, 16 * MIB);
}

static void
set_table_options(rocksdb_options_t *options, rocksdb_cache_t *cache, enum store_family family)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    rocksdb_block_based_options_set_block_size(table, BLOCK_BYTES_MAP);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_whole_key_filtering(table, 1);
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS));
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    if (family == STORE_FAMILY_MAP) {
        rocksdb_options_set_prefix_extractor(
            options, rocksdb_slicetransform_create_fixed_prefix(STORE_MAP_PREFIX_BYTES));
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.05);
        rocksdb_options_set_memtable_whole_key_filtering(options, 1);
    }
}

static rocksdb_options_t *
family_options_create(const struct store_rocksdb_options *wanted, rocksdb_cache_t *cache,
                      enum store_family family)
{
    rocksdb_options_t *options = rocksdb_options_create();
    set_database_options(options, wanted);
    set_table_options(options, cache, family);
    rocksdb_options_set_write_buffer_size(options, family_write_buffer_bytes[family]);
    rocksdb_options_set_max_write_buffer_number(options, 3);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_target_file_size_base(options, 32 * MIB);
    rocksdb_options_set_max_bytes_for_level_base(options, 128 * MIB);
    rocksdb_options_set_merge_operator(options, merge_operator_create(wanted->merge, family));
    return options;
}

/* ---- directory ---- */

static bool
is_database_file(const char *name)
{
    size_t length = strlen(name);
    return strcmp(name, "CURRENT") == 0 || strncmp(name, "MANIFEST-", 9) == 0
        || (length > 4
            && (strcmp(name + length - 4, ".sst") == 0 || strcmp(name + length - 4, ".log") == 0));
}

enum directory_state {
    DIRECTORY_ABSENT,
    DIRECTORY_EMPTY,    /* holds no file of a database */
    DIRECTORY_REMAINS,  /* files of a database, but not the one that RocksDB begins with */
    DIRECTORY_DATABASE,
};

static enum directory_state
directory_look(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return DIRECTORY_ABSENT;
    }
    enum directory_state state = DIRECTORY_EMPTY;
    const struct dirent *entry;
    while (state != DIRECTORY_DATABASE && (entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, "CURRENT") == 0) {
            state = DIRECTORY_DATABASE;
        } else if (is_database_file(entry->d_name)) {
            state = DIRECTORY_REMAINS;
        }
    }
    closedir(directory);
    return state;
}

/* Make the entry of `path` in its directory durable. */
static int
sync_parent(const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL) {
        return -ENOMEM;
    }
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0) {
        return -errno;
    }
    int result = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return result;
}

static int
directory_prepare(const struct store_rocksdb_options *options, struct error *error)
{
    const char *path = options->directory;
    enum directory_state state = directory_look(path);
    if (!options->create) {
        if (state == DIRECTORY_ABSENT || state == DIRECTORY_EMPTY) {
            return error_set(error, -ENOENT, "there is no metadata database in %s", path);
        }
        if (state == DIRECTORY_REMAINS) {
            return error_set(error, -EUCLEAN,
                             "the metadata database in %s is damaged: its file CURRENT is gone",
                             path);
        }
        return 0;
    }
    if (state == DIRECTORY_DATABASE || state == DIRECTORY_REMAINS) {
        return error_set(error, -EEXIST, "%s already holds a metadata database", path);
    }
    if (state == DIRECTORY_ABSENT && mkdir(path, 0700) != 0 && errno != EEXIST) {
        return error_set(error, -errno, "cannot create %s: %s", path, error_name(errno));
    }
    int result = sync_parent(path);
    if (result != 0) {
        return error_set(error, result, "cannot make %s durable: %s", path, error_name(result));
    }
    return 0;
}

/* ---- open ---- */

/* What RocksDB says when a database cannot be opened, as errno and in words. */
static int
open_error(const char *directory, char *text, struct error *error)
{
    int result = store_rocksdb_error(text);
    if (strstr(text, "/LOCK") != NULL) {
        error_set(error, -EBUSY, "the metadata database in %s is in use by another process (%s)",
                  directory, text);
        result = -EBUSY;
    } else if (result == -ENOSPC) {
        error_set(error, result, "no space to open the metadata database in %s (%s)", directory,
                  text);
    } else if (strstr(text, "Column family not found") != NULL) {
        /* Not created here: one that the MANIFEST has lost would come back empty. */
        result = -EUCLEAN;
        error_set(error, result,
                  "the metadata database in %s is damaged, or of an early version: a family of "
                  "records is missing (%s)",
                  directory, text);
    } else if (result == -EUCLEAN || strncmp(text, "Invalid argument", 16) == 0
               || strstr(text, "No such file") != NULL) {
        result = -EUCLEAN;
        error_set(error, result, "the metadata database in %s is damaged: %s", directory, text);
    } else {
        error_set(error, result, "cannot open the metadata database in %s: %s", directory, text);
    }
    rocksdb_free(text);
    return result;
}

/* NULL: the families agree; `store->batches` is their number. An allocated text as RocksDB's. */
static char *
witness_check(struct store_rocksdb *store)
{
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    char *text = NULL;
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT && text == NULL; family++) {
        size_t length = 0;
        char *value = rocksdb_get_cf(store->database, options, store->families[family],
                                     STORE_WITNESS_KEY, STORE_WITNESS_KEY_BYTES, &length, &text);
        uint64_t number = length == sizeof(number) ? get_le64((const uint8_t *)value) : 0;
        if (text == NULL && length != 0 && length != sizeof(number)) {
            text = strdup("Corruption: a part of what was committed is missing");
        } else if (text == NULL && family > 0 && number != store->batches) {
            text = strdup("Corruption: its families are of different times");
        }
        store->batches = number;
        rocksdb_free(value);
    }
    rocksdb_readoptions_destroy(options);
    return text;
}

static void
database_close(struct store_rocksdb *store)
{
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        rocksdb_column_family_handle_destroy(store->families[family]);
    }
    rocksdb_close(store->database);
    store->database = NULL;
}

static char *
database_open_once(struct store_rocksdb *store)
{
    char *text = NULL;
    const rocksdb_options_t *const *options = (const rocksdb_options_t *const *)store->options;
    if (store->read_only) {
        store->database = rocksdb_open_for_read_only_column_families(
            options[0], store->directory, STORE_FAMILY_COUNT, family_names, options,
            store->families, 0, &text);
    } else {
        store->database =
            rocksdb_open_column_families(options[0], store->directory, STORE_FAMILY_COUNT,
                                         family_names, options, store->families, &text);
    }
    if (text == NULL) {
        text = witness_check(store);
        if (text != NULL) {
            database_close(store);
        }
    }
    return text;
}

static int
database_open(struct store_rocksdb *store, const struct store_rocksdb_options *options,
              struct error *error)
{
    rocksdb_cache_t *cache = rocksdb_cache_create_lru(MAX(options->cache_bytes, MIB));
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        store->options[family] =
            family_options_create(options, cache, (enum store_family)family);
    }
    rocksdb_cache_destroy(cache); /* the options hold it */

    char *text = database_open_once(store);
    /* A daemon that compacts may delete a file between our reading of its name and of itself. */
    for (uint32_t n = 1; n < OPEN_ATTEMPTS && store->read_only && text != NULL; n++) {
        rocksdb_free(text);
        poll(NULL, 0, OPEN_RETRY_MS);
        text = database_open_once(store);
    }
    if (text != NULL) {
        store->database = NULL;
        return open_error(store->directory, text, error);
    }
    store->read_point = rocksdb_readoptions_create();
    store->read_prefix = rocksdb_readoptions_create();
    rocksdb_readoptions_set_prefix_same_as_start(store->read_prefix, 1);
    store->read_total = rocksdb_readoptions_create();
    rocksdb_readoptions_set_total_order_seek(store->read_total, 1);
    return 0;
}

/* Everything that exists of a store that is not in use; also half of one. */
static void
store_free(struct store_rocksdb *store)
{
    if (store->database != NULL) {
        database_close(store);
        rocksdb_readoptions_destroy(store->read_point);
        rocksdb_readoptions_destroy(store->read_prefix);
        rocksdb_readoptions_destroy(store->read_total);
    }
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT; family++) {
        if (store->options[family] != NULL) {
            rocksdb_options_destroy(store->options[family]);
        }
    }
    free(store->directory);
    free(store);
}

static uint64_t
available_bytes(const char *path)
{
    struct statvfs fs;
    return statvfs(path, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX;
}

/*
 * What opening may write must find room: RocksDB 7.8 aborts when its own log meets a full device.
 * On such a day the ballast is given back here, so that a restarted daemon can free space at all.
 */
static int
make_room(const struct store_rocksdb *store, struct error *error)
{
    uint64_t held_bytes;
    if (store->read_only || available_bytes(store->directory) >= OPEN_ROOM) {
        return 0;
    }
    int result = store_ballast_set(store->directory, 0, &held_bytes);
    if (result != 0) {
        log_warning("store", "%s: cannot give back the ballast: %s", store->directory,
                    error_name(result));
    }
    uint64_t available = available_bytes(store->directory);
    if (available < OPEN_ROOM_MIN) {
        return error_set(error, -ENOSPC,
                         "no space to open the metadata database in %s: %llu KiB are left on its "
                         "device, and %llu are needed",
                         store->directory, (unsigned long long)(available / KIB),
                         (unsigned long long)(OPEN_ROOM_MIN / KIB));
    }
    return 0;
}

static int
threads_start(struct store_rocksdb *store, struct error *error)
{
    int result = offload_create("commit", 1, &store->committer, error);
    if (result != 0) {
        return result;
    }
    result = offload_create("fetch", READER_THREADS, &store->readers, error);
    if (result != 0) {
        offload_destroy(store->committer);
    }
    return result;
}

int
store_rocksdb_open(const struct store_rocksdb_options *options, struct store **ret_store,
                   struct error *error)
{
    ASSERT(options->directory != NULL && options->merge != NULL);
    ASSERT(!(options->create && options->read_only));
    int result = directory_prepare(options, error);
    if (result != 0) {
        return result;
    }
    struct store_rocksdb *store = calloc(1, sizeof(*store));
    if (store == NULL || (store->directory = strdup(options->directory)) == NULL) {
        free(store);
        return error_set(error, -ENOMEM, "no memory for the metadata store");
    }
    store->store.ops = &store_rocksdb_ops;
    store->read_only = options->read_only;
    store->ballast_bytes = options->ballast_bytes;
    result = make_room(store, error);
    if (result == 0) {
        result = database_open(store, options, error);
    }
    if (result == 0) {
        result = threads_start(store, error);
    }
    if (result != 0) {
        store_free(store);
        return result;
    }
    if (!store->read_only && store->ballast_bytes > 0) {
        uint64_t held_bytes;
        int missing = store_ballast_set(store->directory, store->ballast_bytes, &held_bytes);
        if (missing != 0) {
            log_warning("store", "%s: cannot keep %llu bytes for an emergency: %s",
                        store->directory, (unsigned long long)store->ballast_bytes,
                        error_name(missing));
        }
    }
    *ret_store = &store->store;
    return 0;
}

/* ---- close ---- */

void
store_rocksdb_close(struct store *base)
{
    struct store_rocksdb *store = container_of(base, struct store_rocksdb, store);
    offload_destroy(store->readers);
    offload_destroy(store->committer);
    if (!store->read_only && !store->is_broken) {
        /* Into tables, so that the next open has no log to replay. */
        rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
        rocksdb_flushoptions_set_wait(options, 1);
        char *text = NULL;
        for (uint32_t family = 0; family < STORE_FAMILY_COUNT && text == NULL; family++) {
            rocksdb_flush_cf(store->database, options, store->families[family], &text);
        }
        if (text != NULL) {
            log_error("store", "%s: flush at close failed: %s", store->directory, text);
            rocksdb_free(text);
        }
        rocksdb_flushoptions_destroy(options);
    }
    store_free(store);
}
