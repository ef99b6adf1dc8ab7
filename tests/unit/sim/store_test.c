/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated metadata store against metadata/store.h and against a naive reference. */
#include <errno.h>
#include <stdio.h>

#include "base/endian.h"
#include "base/error.h"
#include "base/random.h"
#include "metadata/store.h"
#include "tests/sim/sim_tree.h"
#include "tests/sim/store_sim.h"
#include "tests/unit/sim/rig.h"

#define NAME "pool"

struct bench {
    struct sim *sim;
    struct reactor *reactor;
    struct store *store;
};

/* Any one call, made on the reactor and waited for. */
struct call {
    struct message message;
    struct bench *bench;
    void (*start)(struct call *call);
    void *request;
    struct io_op *op;
    bool finished;
    int32_t result;
};

static int
append_merge(enum store_family family, const uint8_t *key, size_t key_bytes,
             struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes)
{
    (void)family;
    (void)key;
    (void)key_bytes;
    if (operand[0] == '!') {
        return -EUCLEAN;
    }
    byte_buffer_append(value, operand, operand_bytes);
    return 0;
}

static int
bench_open(struct bench *bench, bool create)
{
    return store_sim_open(bench->sim, NAME, create, append_merge, &bench->store, NULL);
}

static void
bench_create(struct bench *bench, uint64_t seed)
{
    bench->sim = sim_create(&(struct sim_options){ .seed = seed });
    bench->reactor = rig_start_reactor(bench->sim, 0);
    assert_int_equal(bench_open(bench, true), 0);
}

static void
bench_restart(struct bench *bench)
{
    bench->reactor = rig_start_reactor(bench->sim, 0);
    assert_int_equal(bench_open(bench, false), 0);
}

static void
bench_destroy(struct bench *bench)
{
    if (bench->store != NULL) {
        bench->store->ops->close(bench->store);
    }
    sim_process_enter(bench->sim);
    reactor_destroy(bench->reactor);
    sim_process_leave(bench->sim);
    sim_destroy(bench->sim);
}

/* ---- calls ---- */

/* The op is the first member of every request; the call that waits for it is found by its op. */
struct waiting {
    struct io_op *op;
    struct call *call;
};

static struct waiting waiting[64];

static void
call_done(struct io_op *op)
{
    for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
        if (waiting[i].op == op) {
            waiting[i].call->finished = true;
            waiting[i].call->result = op->result;
            waiting[i].op = NULL;
            return;
        }
    }
    fail();
}

static void
call_deliver(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    call->start(call);
}

static void
call_begin(struct bench *bench, struct call *call, void (*start)(struct call *), void *request)
{
    *call = (struct call){ .bench = bench, .start = start, .request = request, .op = request };
    call->op->done = call_done;
    for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
        if (waiting[i].op == NULL) {
            waiting[i] = (struct waiting){ .op = call->op, .call = call };
            reactor_send(bench->reactor, &call->message, call_deliver);
            return;
        }
    }
    fail();
}

static bool
call_is_finished(void *context)
{
    return ((struct call *)context)->finished;
}

static int32_t
call_wait(struct call *call)
{
    assert_int_equal(sim_run_until(call->bench->sim, call_is_finished, call, RIG_TIMEOUT), 0);
    return call->result;
}

static void
start_get(struct call *call)
{
    store_get(call->bench->store, call->request);
}

static void
start_scan(struct call *call)
{
    store_scan(call->bench->store, call->request);
}

static void
start_commit(struct call *call)
{
    store_commit(call->bench->store, call->request);
}

static void
start_snapshot_create(struct call *call)
{
    store_snapshot_create(call->bench->store, call->request);
}

static void
start_snapshot_release(struct call *call)
{
    store_snapshot_release(call->bench->store, call->request);
}

static void
start_ballast(struct call *call)
{
    store_ballast(call->bench->store, call->request);
}

/* A commit of one PUT that may stay in flight. */
struct put {
    struct call call;
    struct store_commit commit;
    struct byte_buffer batch;
};

static void
put_begin(struct bench *bench, struct put *put, const char *key, const char *value, bool sync)
{
    *put = (struct put){ 0 };
    store_batch_put(&put->batch, STORE_FAMILY_MAP, key, strlen(key), value, strlen(value));
    put->commit.batch = &put->batch;
    put->commit.sync = sync;
    call_begin(bench, &put->call, start_commit, &put->commit);
}

static int32_t
put_do(struct bench *bench, const char *key, const char *value, bool sync)
{
    struct put put;
    put_begin(bench, &put, key, value, sync);
    int32_t result = call_wait(&put.call);
    byte_buffer_free(&put.batch);
    return result;
}

static int32_t
commit_do(struct bench *bench, struct byte_buffer *batch, bool sync)
{
    struct call call;
    struct store_commit commit = { .batch = batch, .sync = sync };
    call_begin(bench, &call, start_commit, &commit);
    int32_t result = call_wait(&call);
    byte_buffer_free(batch);
    return result;
}

/* The value as text; "" when there is none. */
static int32_t
get_do(struct bench *bench, const char *key, char ret_text[static 64])
{
    struct call call;
    struct store_get get = { .family = STORE_FAMILY_MAP, .key_bytes = (uint32_t)strlen(key) };
    memcpy(get.key, key, get.key_bytes);
    call_begin(bench, &call, start_get, &get);
    int32_t result = call_wait(&call);
    snprintf(ret_text, 64, "%.*s", result == 0 ? (int)get.value.length_bytes : 0,
             result == 0 ? (const char *)get.value.data : "");
    byte_buffer_free(&get.value);
    return result;
}

static void
assert_value(struct bench *bench, const char *key, const char *expected)
{
    char text[64];
    int32_t result = get_do(bench, key, text);
    assert_int_equal(result, expected == NULL ? -ENOENT : 0);
    assert_string_equal(text, expected == NULL ? "" : expected);
}

/* ---- the tree ---- */

static void
tree_agrees_with_sorted_array(void **state)
{
    (void)state;
    enum {
        KEYS = 200
    };
    struct random random;
    uint8_t present[KEYS] = { 0 };
    uint8_t old_present[KEYS] = { 0 };
    struct sim_tree *root = NULL;
    struct sim_tree *old = NULL;

    random_seed(&random, 4);
    for (int step = 0; step < 5000; step++) {
        uint8_t key = (uint8_t)random_below(&random, KEYS);
        struct sim_tree *next;
        if (random_chance(&random, 1, 2)) {
            present[key] = (uint8_t)(1 + random_below(&random, 255));
            next = sim_tree_insert(root, &key, 1, &present[key], 1, false);
        } else {
            present[key] = 0;
            next = sim_tree_remove(root, &key, 1);
        }
        sim_tree_put(root);
        root = next;
        if (step == 2500) {
            old = sim_tree_get(root);
            memcpy(old_present, present, sizeof(present));
        }
    }
    uint64_t bytes = 0;
    int floor = -1;
    for (int i = 0; i < KEYS; i++) {
        uint8_t key = (uint8_t)i;
        floor = present[i] ? i : floor;
        bytes += present[i] ? 2 : 0;
        const struct sim_tree_entry *entry = sim_tree_find(root, &key, 1);
        assert_int_equal(entry == NULL ? 0 : entry->value[0], present[i]);
        entry = sim_tree_floor(root, &key, 1, false);
        assert_int_equal(entry == NULL ? -1 : entry->key[0], floor);
        entry = sim_tree_find(old, &key, 1);
        assert_int_equal(entry == NULL ? 0 : entry->value[0], old_present[i]);
    }
    int ceiling = -1;
    for (int i = KEYS - 1; i >= 0; i--) {
        uint8_t key = (uint8_t)i;
        const struct sim_tree_entry *entry = sim_tree_ceiling(root, &key, 1, true);
        assert_int_equal(entry == NULL ? -1 : entry->key[0], ceiling);
        ceiling = present[i] ? i : ceiling;
        entry = sim_tree_ceiling(root, &key, 1, false);
        assert_int_equal(entry == NULL ? -1 : entry->key[0], ceiling);
    }
    assert_int_equal(sim_tree_bytes(root), bytes);
    assert_int_not_equal(sim_tree_hash(root), sim_tree_hash(old));
    sim_tree_put(root);
    sim_tree_put(old);
}

/* ---- the contract ---- */

static void
puts_gets_deletes_and_merges(void **state)
{
    (void)state;
    struct bench bench;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    char text[64];
    bench_create(&bench, 1);
    assert_value(&bench, "a", NULL);
    assert_int_equal(put_do(&bench, "a", "1", false), 0);
    assert_value(&bench, "a", "1");

    store_batch_put(&batch, STORE_FAMILY_MAP, "b", 1, "x", 1);
    store_batch_merge(&batch, STORE_FAMILY_MAP, "b", 1, "yz", 2);
    store_batch_merge(&batch, STORE_FAMILY_MAP, "new", 3, "n", 1);
    store_batch_delete(&batch, STORE_FAMILY_MAP, "a", 1);
    store_batch_put(&batch, STORE_FAMILY_SYSTEM, "a", 1, "other family", 12);
    assert_int_equal(commit_do(&bench, &batch, true), 0);
    assert_value(&bench, "a", NULL);
    assert_value(&bench, "b", "xyz");
    assert_value(&bench, "new", "n");
    assert_true(bench.store->ops->size_bytes(bench.store) > 12);

    store_batch_merge(&batch, STORE_FAMILY_MAP, "b", 1, "!", 1); /* damages the value */
    assert_int_equal(commit_do(&bench, &batch, true), 0);
    assert_int_equal(get_do(&bench, "b", text), -EUCLEAN);
    assert_int_equal(put_do(&bench, "b", "new", true), 0);
    assert_value(&bench, "b", "new");

    struct store_ballast ballast = { .hold = true, .ret_held_bytes = 77 };
    struct call call;
    call_begin(&bench, &call, start_ballast, &ballast);
    assert_int_equal(call_wait(&call), 0);
    assert_int_equal(ballast.ret_held_bytes, 0);
    assert_int_equal(sim_store_calls(bench.sim, NAME, SIM_STORE_COMMIT), 4);
    bench_destroy(&bench);
}

static void
floor_finds_the_newest_version(void **state)
{
    (void)state;
    struct bench bench;
    bench_create(&bench, 2);
    assert_int_equal(put_do(&bench, "p1g1", "1", false), 0);
    assert_int_equal(put_do(&bench, "p1g4", "4", false), 0);
    assert_int_equal(put_do(&bench, "p2g9", "9", false), 0);
    static const struct {
        const char *key;
        const char *found;
    } cases[] = { { "p1g3", "p1g1" }, { "p1g4", "p1g4" }, { "p1g9", "p1g4" },
                  { "p1g0", NULL },   { "p2g8", NULL },   { "p2g9", "p2g9" } };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct call call;
        struct store_get get = { .family = STORE_FAMILY_MAP,
                                 .key_bytes = 4,
                                 .floor = true,
                                 .floor_prefix_bytes = 2 };
        memcpy(get.key, cases[i].key, 4);
        call_begin(&bench, &call, start_get, &get);
        assert_int_equal(call_wait(&call), cases[i].found == NULL ? -ENOENT : 0);
        if (cases[i].found != NULL) {
            assert_int_equal(get.ret_key_bytes, 4);
            assert_memory_equal(get.ret_key, cases[i].found, 4);
            assert_int_equal(get.value.data[0], cases[i].found[3]);
        }
        byte_buffer_free(&get.value);
    }
    bench_destroy(&bench);
}

/* All keys of a prefix, in order, in pieces of bytes_max; returns how many. */
static uint32_t
scan_all(struct bench *bench, const char *prefix, size_t bytes_max,
         const struct store_snapshot *snapshot, uint32_t *ret_pieces)
{
    struct store_scan scan = { .family = STORE_FAMILY_MAP,
                               .prefix_bytes = (uint32_t)strlen(prefix),
                               .bytes_max = bytes_max,
                               .snapshot = snapshot };
    uint32_t count = 0;
    char last[16] = "";
    memcpy(scan.prefix, prefix, scan.prefix_bytes);
    *ret_pieces = 0;
    do {
        struct call call;
        struct store_batch_item item;
        size_t position = 0;
        call_begin(bench, &call, start_scan, &scan);
        assert_int_equal(call_wait(&call), 0);
        while (store_batch_next(scan.items.data, scan.items.length_bytes, &position, &item) == 1) {
            char key[16];
            assert_int_equal(item.operation, STORE_PUT);
            snprintf(key, sizeof(key), "%.*s", (int)item.key_bytes, (const char *)item.key);
            assert_true(strcmp(last, key) < 0);
            assert_memory_equal(key, prefix, strlen(prefix));
            memcpy(last, key, sizeof(last));
            count++;
        }
        (*ret_pieces)++;
        memcpy(scan.start, scan.ret_next, scan.ret_next_bytes);
        scan.start_bytes = scan.ret_next_bytes;
    } while (scan.ret_more);
    byte_buffer_free(&scan.items);
    return count;
}

static void
scans_and_snapshots(void **state)
{
    (void)state;
    struct bench bench;
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct store_snapshot snapshot = { 0 };
    struct call call;
    struct put pending;
    uint32_t pieces;
    bench_create(&bench, 3);
    for (int i = 0; i < 100; i++) {
        char key[8];
        int length = snprintf(key, sizeof(key), "%c%02d", i % 2 ? 'k' : 'm', i);
        store_batch_put(&batch, STORE_FAMILY_MAP, key, (size_t)length, "value", 5);
    }
    assert_int_equal(commit_do(&bench, &batch, false), 0);
    assert_int_equal(scan_all(&bench, "k", 1 << 20, NULL, &pieces), 50);
    assert_int_equal(pieces, 1);
    assert_int_equal(scan_all(&bench, "k", 64, NULL, &pieces), 50);
    assert_in_range(pieces, 10, 25);
    assert_int_equal(scan_all(&bench, "k", 0, NULL, &pieces), 50); /* at least one comes */
    assert_int_equal(pieces, 50);
    assert_int_equal(scan_all(&bench, "", 1 << 20, NULL, &pieces), 100);
    assert_int_equal(scan_all(&bench, "z", 1 << 20, NULL, &pieces), 0);

    /* The view has what was submitted before it, though it had not completed. */
    put_begin(&bench, &pending, "k", "v", true);
    call_begin(&bench, &call, start_snapshot_create, &snapshot);
    assert_int_equal(call_wait(&call), 0);
    assert_true(pending.call.finished);
    assert_int_equal(put_do(&bench, "kk", "v", true), 0);
    assert_int_equal(scan_all(&bench, "k", 200, &snapshot, &pieces), 51);
    assert_int_equal(scan_all(&bench, "k", 200, NULL, &pieces), 52);
    call_begin(&bench, &call, start_snapshot_release, &snapshot);
    assert_int_equal(call_wait(&call), 0);
    assert_null(snapshot.handle);
    byte_buffer_free(&pending.batch);
    bench_destroy(&bench);
}

static void
opens_as_told(void **state)
{
    (void)state;
    struct bench bench;
    struct store *second;
    struct error error = { 0 };
    bench_create(&bench, 4);
    assert_int_equal(store_sim_open(bench.sim, NAME, false, append_merge, &second, &error), -EBUSY);
    assert_int_equal(error.code, -EBUSY);
    assert_int_equal(store_sim_open(bench.sim, "none", false, append_merge, &second, NULL),
                     -ENOENT);
    bench.store->ops->close(bench.store);
    bench.store = NULL;
    assert_int_equal(bench_open(&bench, true), -EEXIST);
    sim_store_set_damaged(bench.sim, NAME, true);
    assert_int_equal(bench_open(&bench, false), -EUCLEAN);
    sim_store_set_damaged(bench.sim, NAME, false);
    assert_int_equal(bench_open(&bench, false), 0);
    bench_destroy(&bench);
}

/* ---- crashes ---- */

static void
synced_commits_survive_and_the_rest_is_a_prefix(void **state)
{
    (void)state;
    bool seen[4] = { false };
    for (uint64_t seed = 0; seed < 120; seed++) {
        struct bench bench;
        struct put put;
        char text[64];
        bench_create(&bench, seed);
        assert_int_equal(put_do(&bench, "a", "1", false), 0);
        assert_int_equal(put_do(&bench, "b", "1", true), 0);
        assert_int_equal(put_do(&bench, "c", "1", false), 0);
        assert_int_equal(put_do(&bench, "d", "1", false), 0);
        put_begin(&bench, &put, "e", "1", true);
        assert_true(sim_step(bench.sim)); /* submitted, and no further */
        assert_false(put.call.finished);
        sim_power_cut(bench.sim, &(struct sim_cut){ .seed = seed });
        waiting[0].op = NULL;
        byte_buffer_free(&put.batch);
        bench_restart(&bench);
        assert_value(&bench, "a", "1");
        assert_value(&bench, "b", "1");
        int kept = 0;
        bool ended = false;
        static const char *const keys[] = { "c", "d", "e" };
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
            bool there = get_do(&bench, keys[i], text) == 0;
            assert_false(there && ended); /* a prefix */
            ended = !there;
            kept += there;
        }
        seen[kept] = true;
        bench_destroy(&bench);
    }
    for (int i = 0; i < 4; i++) {
        assert_true(seen[i]);
    }
}

static void
kill_keeps_completed_commits(void **state)
{
    (void)state;
    uint32_t kept = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct bench bench;
        struct put put;
        struct store_snapshot snapshot = { 0 };
        struct call call;
        char text[64];
        bench_create(&bench, seed);
        assert_int_equal(put_do(&bench, "a", "1", false), 0);
        call_begin(&bench, &call, start_snapshot_create, &snapshot); /* dies unreleased */
        assert_int_equal(call_wait(&call), 0);
        put_begin(&bench, &put, "b", "1", false);
        assert_true(sim_step(bench.sim));
        sim_kill(bench.sim);
        waiting[0].op = NULL;
        byte_buffer_free(&put.batch);
        bench_restart(&bench);
        assert_value(&bench, "a", "1");
        kept += get_do(&bench, "b", text) == 0;
        /* What survived the process may still be lost with the power. */
        sim_power_cut(bench.sim, &(struct sim_cut){ .mode = SIM_CUT_LOSE_ALL });
        bench_restart(&bench);
        assert_value(&bench, "a", NULL);
        bench_destroy(&bench);
    }
    assert_in_range(kept, 10, 50);
}

static void
clean_close_is_durable(void **state)
{
    (void)state;
    struct bench bench;
    bench_create(&bench, 5);
    assert_int_equal(put_do(&bench, "a", "1", false), 0);
    bench.store->ops->close(bench.store);
    sim_power_cut(bench.sim, &(struct sim_cut){ .mode = SIM_CUT_LOSE_ALL });
    bench_restart(&bench);
    assert_value(&bench, "a", "1");
    bench_destroy(&bench);
}

/* M4; and the commit that failed may or may not be there afterwards. */
static void
failed_commit_breaks_the_store(void **state)
{
    (void)state;
    uint32_t kept = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct bench bench;
        struct put first, second;
        char text[64];
        bench_create(&bench, seed);
        sim_store_fail(bench.sim, NAME, SIM_STORE_COMMIT, 1, 1, ENOSPC);
        assert_int_equal(put_do(&bench, "a", "1", true), 0);
        put_begin(&bench, &first, "b", "1", true);
        put_begin(&bench, &second, "c", "1", true); /* behind it, in flight already */
        assert_int_equal(call_wait(&first.call), -ENOSPC);
        assert_int_equal(call_wait(&second.call), -EIO);
        assert_int_equal(put_do(&bench, "d", "1", false), -EIO);
        assert_value(&bench, "b", NULL);
        assert_value(&bench, "a", "1");
        if (seed % 2 == 0) {
            sim_power_cut(bench.sim, &(struct sim_cut){ .seed = seed });
        } else {
            sim_kill(bench.sim);
        }
        bench_restart(&bench);
        assert_value(&bench, "a", "1");
        kept += get_do(&bench, "b", text) == 0;
        assert_value(&bench, "c", NULL);
        assert_value(&bench, "d", NULL);
        assert_int_equal(put_do(&bench, "e", "1", true), 0);
        byte_buffer_free(&first.batch);
        byte_buffer_free(&second.batch);
        bench_destroy(&bench);
    }
    assert_in_range(kept, 10, 50);
}

static void
reads_fail_and_hold_as_told(void **state)
{
    (void)state;
    struct bench bench;
    struct put put;
    char text[64];
    bench_create(&bench, 6);
    assert_int_equal(put_do(&bench, "a", "1", true), 0);
    sim_store_fail(bench.sim, NAME, SIM_STORE_GET, 1, 1, EIO);
    assert_value(&bench, "a", "1");
    assert_int_equal(get_do(&bench, "a", text), -EIO);
    assert_value(&bench, "a", "1");
    sim_store_clear_faults(bench.sim, NAME);

    sim_store_set_latency(bench.sim, NAME, NS_PER_MS, 2 * NS_PER_MS);
    uint64_t start_ns = sim_now_ns(bench.sim);
    assert_value(&bench, "a", "1");
    assert_in_range(sim_now_ns(bench.sim) - start_ns, NS_PER_MS, 3 * NS_PER_MS);

    sim_store_hold(bench.sim, NAME, true);
    put_begin(&bench, &put, "b", "1", true);
    assert_int_equal(sim_run_for(bench.sim, NS_PER_S), 0);
    assert_false(put.call.finished);
    sim_store_hold(bench.sim, NAME, false);
    assert_int_equal(call_wait(&put.call), 0);
    byte_buffer_free(&put.batch);
    bench_destroy(&bench);
}

static void
directory_is_lost_or_comes_back_old(void **state)
{
    (void)state;
    struct bench bench;
    bench_create(&bench, 7);
    for (int i = 0; i < 10; i++) {
        char value[8];
        snprintf(value, sizeof(value), "%d", i);
        assert_int_equal(put_do(&bench, "a", value, true), 0);
    }
    bench.store->ops->close(bench.store);
    assert_int_equal(sim_store_roll_back(bench.sim, NAME, 3), 3);
    assert_int_equal(bench_open(&bench, false), 0);
    assert_value(&bench, "a", "6");
    assert_int_equal(put_do(&bench, "a", "again", true), 0);
    bench.store->ops->close(bench.store);
    assert_int_equal(sim_store_roll_back(bench.sim, NAME, 1000), 7);
    assert_int_equal(bench_open(&bench, false), 0);
    assert_value(&bench, "a", "0");
    bench.store->ops->close(bench.store);
    sim_store_lose(bench.sim, NAME);
    assert_false(sim_store_exists(bench.sim, NAME));
    assert_int_equal(bench_open(&bench, false), -ENOENT);
    assert_int_equal(bench_open(&bench, true), 0);
    assert_value(&bench, "a", NULL);
    bench_destroy(&bench);
}

/* Commits complete in the order of submission, whatever each would take alone. */
static void
commits_complete_in_order(void **state)
{
    (void)state;
    struct bench bench;
    struct put puts[20];
    bench_create(&bench, 8);
    for (size_t i = 0; i < ARRAY_SIZE(puts); i++) {
        put_begin(&bench, &puts[i], "k", "v", i % 3 == 0);
    }
    size_t finished = 0;
    while (finished < ARRAY_SIZE(puts)) {
        assert_true(sim_step(bench.sim));
        while (finished < ARRAY_SIZE(puts) && puts[finished].call.finished) {
            finished++;
        }
        for (size_t i = finished; i < ARRAY_SIZE(puts); i++) {
            assert_false(puts[i].call.finished);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(puts); i++) {
        byte_buffer_free(&puts[i].batch);
    }
    bench_destroy(&bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_agrees_with_sorted_array),
        cmocka_unit_test(puts_gets_deletes_and_merges),
        cmocka_unit_test(floor_finds_the_newest_version),
        cmocka_unit_test(scans_and_snapshots),
        cmocka_unit_test(opens_as_told),
        cmocka_unit_test(synced_commits_survive_and_the_rest_is_a_prefix),
        cmocka_unit_test(kill_keeps_completed_commits),
        cmocka_unit_test(clean_close_is_durable),
        cmocka_unit_test(failed_commit_breaks_the_store),
        cmocka_unit_test(reads_fail_and_hold_as_told),
        cmocka_unit_test(directory_is_lost_or_comes_back_old),
        cmocka_unit_test(commits_complete_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
