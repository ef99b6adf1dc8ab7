/* SPDX-License-Identifier: Apache-2.0 */
/* Starting with many volumes and extents must not take long: no round trip for each of them. */
#include "tests/unit/volmgr/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"

enum {
    VOLUMES = 10000,
    EXTENTS = 160000,
    CPU_MS_MAX = 3000, /* generous: sanitizers, slow machines; it measures some 200 */
};

static const char *const ONE[] = { "/d/0", NULL };

static uint64_t
cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct commit_call {
    struct message message;
    struct store_commit commit;
    struct store *store;
    bool done;
};

static void
commit_done(struct io_op *op)
{
    struct store_commit *commit = container_of(op, struct store_commit, op);
    container_of(commit, struct commit_call, commit)->done = true;
}

static void
commit_begin(struct message *message)
{
    struct commit_call *call = container_of(message, struct commit_call, message);
    call->commit.op.done = commit_done;
    store_commit(call->store, &call->commit);
}

/* What the manager would have written, had it been asked ten thousand times. */
static void
fill_database(struct bench *bench, const struct pool_record *pool)
{
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct reactor *reactor = NULL;
    struct reactor_options options = { .id = 0, .cpu = -1 };
    struct commit_call call = { .commit = { .batch = &batch, .sync = true } };
    struct pool_record changed = *pool;

    changed.next_volume = VOLUMES + 1;
    changed.next_branch = VOLUMES + 1;
    changed.next_extent = EXTENTS + 1;
    schema_put_pool(&batch, &changed);
    for (uint64_t i = 1; i <= VOLUMES; i++) {
        struct volume_record volume = {
            .id = i, .branch = i, .size_bytes = 64 * GIB, .sector_bytes = 512, .copies = 1,
            .tier = VOLUME_TIER_AUTO,
        };
        struct branch_record branch = { .id = i, .family = i, .current_generation = 1 };
        struct branch_position position = { .batch = 7, .mapped_grains = EXTENTS / VOLUMES * 8 };
        struct export_record export = { .id = i, .volume = i, .protocol = "nbd" };
        snprintf(volume.name, sizeof(volume.name), "volume-%llu", (unsigned long long)i);
        snprintf(export.name, sizeof(export.name), "p/volume-%llu", (unsigned long long)i);
        schema_put_volume(&batch, &volume);
        schema_put_branch(&batch, &branch);
        schema_put_position(&batch, i, &position);
        schema_put_export(&batch, &export);
    }
    for (uint64_t i = 1; i <= EXTENTS; i++) {
        struct extent_record extent = {
            .owner_branch = 1 + i % VOLUMES, .state = EXTENT_STATE_DATA, .copy_count = 1,
            .places = { { .disk = 0, .slot = (uint32_t)i } }, .used = { 0xff },
        };
        schema_put_extent(&batch, i, &extent, (uint32_t)(pool->extent_bytes / GRAIN_BYTES));
    }
    sim_process_enter(bench->sim);
    assert_int_equal(reactor_create(sim_platform(bench->sim), &options, &reactor, NULL), 0);
    assert_int_equal(store_sim_open(bench->sim, "p", false, schema_merge, &call.store, NULL), 0);
    reactor_send(reactor, &call.message, commit_begin);
    sim_process_leave(bench->sim);
    assert_int_equal(bench_wait(bench, &call.done), 0);
    assert_int_equal(call.commit.op.result, 0);
    sim_process_enter(bench->sim);
    call.store->ops->close(call.store);
    reactor_destroy(reactor);
    sim_process_leave(bench->sim);
    byte_buffer_free(&batch);
}

static void
ten_thousand_volumes_start_at_once(void **state)
{
    struct bench *bench = bench_create(1, 2);
    struct export_lookup lookup;

    (void)state;
    bench_disk(bench, "/d/0", UINT64_C(200000) * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    struct pool_report before = bench_pool_report(bench, "p");
    assert_int_equal(bench_shutdown(bench), 0);
    struct pool_record record = {
        .schema_version = SCHEMA_VERSION, .extent_bytes = before.extent_bytes,
        .incarnation = before.incarnation, .next_export = VOLUMES + 1, .name = "p",
        .warning_percent = 80, .critical_percent = 95,
    };
    memcpy(record.pool_guid, before.guid, sizeof(record.pool_guid));
    fill_database(bench, &record);
    bench->made_up = true;

    uint64_t start_ms = cpu_ms();
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_boot(bench), 0);
    uint64_t spent_ms = cpu_ms() - start_ms;
    uint64_t virtual_ms = (sim_now_ns(bench->sim) - start_ns) / NS_PER_MS;
    print_message("%d volumes, %d extents: %llu ms of CPU, %llu ms of virtual time\n", VOLUMES,
                  EXTENTS, (unsigned long long)spent_ms, (unsigned long long)virtual_ms);
    struct pool_report after = bench_pool_report(bench, "p");
    assert_int_equal(after.state, POOL_STATE_ONLINE);
    assert_int_equal(after.volume_count, VOLUMES);
    assert_int_equal(after.allocated_bytes, EXTENTS * after.extent_bytes);
    assert_int_equal(after.used_bytes, UINT64_C(8) * EXTENTS * GRAIN_BYTES);
    assert_int_equal(bench_lookup(bench, 1, "p/volume-9999", &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    assert_true(spent_ms < CPU_MS_MAX);
    assert_true(virtual_ms < 500);
    start_ms = cpu_ms();
    assert_int_equal(bench_shutdown(bench), 0);
    assert_true(cpu_ms() - start_ms < CPU_MS_MAX);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_volumes_start_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
