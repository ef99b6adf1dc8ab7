/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_kill_test [LIVES [SEED]]
 *
 * The real database, killed for real. A child commits with many commits in flight, with and without
 * sync, over all families; it is killed by SIGKILL at any moment, that of opening and recovery
 * included, and the next child goes on with what is there. After each death the content must be
 * exactly that after some commit n, in all families: n is not before the last commit whose
 * completion the child had seen, and not after the last one submitted. What commit n contains
 * follows from n alone, so nothing has to be remembered but numbers, which the child keeps in
 * a file that it has mapped.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/random.h"
#include "base/util.h"
#include "metadata/schema.h"
#include "tests/unit/metadata/harness.h"

enum {
    KEY_COUNT = 400, /* of each family */
    KEY_BYTES = 24,
    VALUE_BYTES_MAX = 3000,
    IN_FLIGHT = 24,
    CHANGES_MAX = 6,
};

/* The child's memory that outlives it. */
struct numbers {
    uint64_t opened;    /* raised with each life that has opened the database */
    uint64_t submitted; /* the last commit handed over */
    uint64_t completed; /* the last commit that was answered */
};

/* ---- what a commit contains ---- */

struct change {
    enum store_family family;
    uint32_t key;
    bool deletes;
};

static uint32_t
commit_changes(uint64_t n, struct change *ret_changes)
{
    struct random random;
    random_seed(&random, hash_u64(n));
    uint32_t count = 1 + (uint32_t)random_below(&random, CHANGES_MAX);

    for (uint32_t i = 0; i < count; i++) {
        ret_changes[i] = (struct change){
            .family = (enum store_family)random_below(&random, STORE_FAMILY_COUNT),
            .key = (uint32_t)random_below(&random, KEY_COUNT),
            .deletes = random_chance(&random, 1, 5),
        };
    }
    return count;
}

static bool
commit_has_sync(uint64_t n)
{
    return hash_u64(n ^ 7) % 3 == 0;
}

/* Not one of the schema's: its own first byte. */
static void
key_make(uint32_t key, uint8_t ret_bytes[static KEY_BYTES])
{
    memset(ret_bytes, 0xee, KEY_BYTES);
    put_be64(ret_bytes + KEY_BYTES - 8, key);
}

/* The value that commit n gives to a key; returns its length. */
static uint32_t
value_make(uint64_t n, const struct change *change, uint8_t ret_bytes[static VALUE_BYTES_MAX])
{
    struct random random;
    random_seed(&random, hash_u64(n) ^ change->key);
    uint32_t length = 16 + (uint32_t)random_below(&random, VALUE_BYTES_MAX - 16);

    put_le64(ret_bytes, n);
    put_le64(ret_bytes + 8, change->key);
    for (uint32_t i = 16; i < length; i++) {
        ret_bytes[i] = (uint8_t)random_u64(&random);
    }
    return length;
}

static void
batch_make(uint64_t n, struct byte_buffer *batch)
{
    struct change changes[CHANGES_MAX];
    uint32_t count = commit_changes(n, changes);

    byte_buffer_clear(batch);
    schema_put_commit(batch, n);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t key[KEY_BYTES];
        uint8_t value[VALUE_BYTES_MAX];
        key_make(changes[i].key, key);
        if (changes[i].deletes) {
            store_batch_delete(batch, changes[i].family, key, sizeof(key));
        } else {
            uint32_t length = value_make(n, &changes[i], value);
            store_batch_put(batch, changes[i].family, key, sizeof(key), value, length);
        }
    }
}

/* ---- the child ---- */

struct slot {
    struct store *store;
    struct store_commit commit;
    struct byte_buffer batch;
};

static void
slot_start(void *argument)
{
    struct slot *slot = argument;
    store_commit(slot->store, &slot->commit);
}

static uint64_t
stored_commit(struct harness *harness, struct store *store)
{
    struct byte_buffer value = BYTE_BUFFER_INIT;
    uint64_t commit = 0;

    if (harness_get(harness, store, STORE_FAMILY_SYSTEM, "C", 1, &value) == 0) {
        ASSERT_OP(schema_get_commit(value.data, value.length_bytes, &commit), ==, 0);
    }
    byte_buffer_free(&value);
    return commit;
}

static struct numbers *
numbers_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    ASSERT(fd >= 0 && ftruncate(fd, sizeof(struct numbers)) == 0);
    struct numbers *numbers =
        mmap(NULL, sizeof(*numbers), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ASSERT(numbers != MAP_FAILED);
    close(fd);
    return numbers;
}

static void
number_set(uint64_t *number, uint64_t value)
{
    __atomic_store_n(number, value, __ATOMIC_SEQ_CST);
}

/* Commits until it is killed. */
static int
child(const char *directory, const char *numbers_path)
{
    static struct slot slots[IN_FLIGHT];
    struct numbers *numbers = numbers_map(numbers_path);
    struct store_rocksdb_options options = {
        .directory = directory, .cache_bytes = MIB, .merge = schema_merge,
    };
    struct store *store = NULL;
    struct error error = { 0 };
    void *state;

    options.create = access(directory, F_OK) != 0;
    if (harness_start(&state) != 0) {
        return 10;
    }
    struct harness *harness = state;
    rmdir(harness->directory); /* not needed, and we do not end by ourselves */
    if (store_rocksdb_open(&options, &store, &error) != 0) {
        fprintf(stderr, "a child cannot open: %s\n", error.message);
        return 11;
    }
    uint64_t last = stored_commit(harness, store);
    number_set(&numbers->submitted, last);
    number_set(&numbers->completed, last);
    number_set(&numbers->opened, numbers->opened + 1);
    for (uint64_t n = last + 1;; n++) {
        struct slot *slot = &slots[n % IN_FLIGHT];
        if (n > last + IN_FLIGHT) {
            if (harness_collect(harness, &slot->commit.op) != 0) {
                return 12;
            }
            number_set(&numbers->completed, n - IN_FLIGHT);
        }
        batch_make(n, &slot->batch);
        slot->store = store;
        slot->commit = (struct store_commit){ .batch = &slot->batch, .sync = commit_has_sync(n) };
        number_set(&numbers->submitted, n);
        harness_submit(harness, &slot->commit.op, slot_start, slot);
    }
}

/* ---- after its death ---- */

/* The last commit up to n that gave the key a value; 0: it has none. */
static void
expected_state(uint64_t n, uint64_t writers[STORE_FAMILY_COUNT][KEY_COUNT])
{
    memset(writers, 0, STORE_FAMILY_COUNT * sizeof(writers[0]));
    for (uint64_t commit = 1; commit <= n; commit++) {
        struct change changes[CHANGES_MAX];
        uint32_t count = commit_changes(commit, changes);
        for (uint32_t i = 0; i < count; i++) {
            writers[changes[i].family][changes[i].key] = changes[i].deletes ? 0 : commit;
        }
    }
}

static bool
item_is_right(const struct store_batch_item *item, uint64_t *writer)
{
    uint8_t value[VALUE_BYTES_MAX];
    uint64_t key = get_be64(item->key + KEY_BYTES - 8);
    struct change change = { .family = item->family, .key = (uint32_t)key };

    if (*writer == 0) {
        return false;
    }
    uint32_t length = value_make(*writer, &change, value);
    *writer = 0; /* seen */
    return item->value_bytes == length && memcmp(item->value, value, length) == 0;
}

static int
verify_family(struct harness *harness, struct store *store, enum store_family family,
              uint64_t writers[KEY_COUNT])
{
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct store_batch_item item;
    size_t position = 0;
    int result = harness_scan(harness, store, family, NULL, 64 << 10, &items);

    while (result == 0 &&
           store_batch_next(items.data, items.length_bytes, &position, &item) == 1) {
        if (item.key_bytes != KEY_BYTES || item.key[0] != 0xee) {
            continue; /* the commit number, the store's own */
        }
        uint64_t key = get_be64(item.key + KEY_BYTES - 8);
        if (key >= KEY_COUNT || !item_is_right(&item, &writers[key])) {
            fprintf(stderr, "family %u key %" PRIu64 " is wrong\n", family, key);
            result = -EBADMSG;
        }
    }
    for (uint32_t key = 0; key < KEY_COUNT && result == 0; key++) {
        if (writers[key] != 0) {
            fprintf(stderr, "family %u key %u of commit %" PRIu64 " is missing\n", family, key,
                    writers[key]);
            result = -EBADMSG;
        }
    }
    byte_buffer_free(&items);
    return result;
}

static int
verify(struct harness *harness, const struct numbers *numbers, uint64_t *ret_commit)
{
    static uint64_t writers[STORE_FAMILY_COUNT][KEY_COUNT];
    struct store *store = NULL;
    int result = harness_store_open(harness, "db", false, false, &store);

    if (result < 0) {
        fprintf(stderr, "the database cannot be opened: %s\n", error_name(result));
        return result;
    }
    uint64_t commit = stored_commit(harness, store);
    *ret_commit = commit;
    if (commit < numbers->completed || commit > numbers->submitted) {
        fprintf(stderr, "commit %" PRIu64 " outside of %" PRIu64 " to %" PRIu64 "\n", commit,
                numbers->completed, numbers->submitted);
        result = -EBADMSG;
    }
    expected_state(commit, writers);
    for (uint32_t family = 0; family < STORE_FAMILY_COUNT && result == 0; family++) {
        result = verify_family(harness, store, (enum store_family)family, writers[family]);
    }
    store->ops->close(store);
    return result;
}

/* One life of a child, ended at a random moment. 0, or what it exited with by itself. */
static int
one_life(const char *directory, const char *numbers_path, const struct numbers *numbers,
         struct random *random)
{
    uint64_t opened = __atomic_load_n(&numbers->opened, __ATOMIC_SEQ_CST);
    int status = 0;

    fflush(NULL);
    pid_t child_id = fork();
    ASSERT(child_id >= 0);
    if (child_id == 0) { /* a new program: RocksDB's threads do not survive a fork */
        execl("/proc/self/exe", "store_kill_test", "--child", directory, numbers_path,
              (char *)NULL);
        _exit(9);
    }
    if (!random_chance(random, 1, 4)) { /* otherwise perhaps while it opens */
        while (__atomic_load_n(&numbers->opened, __ATOMIC_SEQ_CST) == opened &&
               waitpid(child_id, &status, WNOHANG) == 0) {
            usleep(200);
        }
    }
    usleep((useconds_t)random_below(random, 60000));
    kill(child_id, SIGKILL);
    waitpid(child_id, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

static int
run(struct harness *harness, uint64_t lives, uint64_t seed)
{
    char directory[256];
    char numbers_path[256];
    struct random random;
    uint64_t commit = 0;

    random_seed(&random, seed);
    snprintf(directory, sizeof(directory), "%s", harness_path(harness, "db"));
    snprintf(numbers_path, sizeof(numbers_path), "%s", harness_path(harness, "numbers"));
    struct numbers *numbers = numbers_map(numbers_path);
    struct store *store = NULL;
    if (harness_store_open(harness, "db", true, false, &store) < 0) {
        return 1;
    }
    store->ops->close(store);
    for (uint64_t life = 0; life < lives; life++) {
        int result = one_life(directory, numbers_path, numbers, &random);
        result = result == 0 ? verify(harness, numbers, &commit) : result;
        if (result != 0) {
            fprintf(stderr, "FAILED: store_kill_test %" PRIu64 " %" PRIu64 ": life %" PRIu64 "\n",
                    lives, seed, life);
            return 1;
        }
    }
    printf("%" PRIu64 " deaths, %" PRIu64 " commits, each time exactly a prefix with all that was "
           "answered\n", lives, commit);
    munmap(numbers, sizeof(*numbers));
    return commit > lives ? 0 : 1; /* one that never commits proves nothing */
}

int
main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0) {
        return child(argv[2], argv[3]);
    }
    uint64_t lives = argc > 1 ? strtoull(argv[1], NULL, 10) : 40;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    void *state;

    log_set_level(LOG_LEVEL_ERROR);
    if (harness_start(&state) != 0) {
        return 1;
    }
    int result = run(state, lives, seed);
    harness_stop(&state);
    return result;
}
