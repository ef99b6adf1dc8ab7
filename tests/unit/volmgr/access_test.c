/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of an export are kept to where targets look it up, also after a restart. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

struct call {
    struct message message;
    struct manager *manager;
    struct export_lookup lookup;
    bool done;
};

static void
looked_up(struct io_op *op)
{
    struct export_lookup *lookup = container_of(op, struct export_lookup, op);
    container_of(lookup, struct call, lookup)->done = true;
}

static void
look_up(struct message *message)
{
    struct call *call = container_of(message, struct call, message);
    manager_export_lookup(call->manager, &call->lookup);
}

/* What a host that comes from `peer` is answered. */
static int
answer(struct bench *bench, const char *name, const char *peer, bool tls, const char *identity)
{
    struct call call = { .manager = bench->manager, .lookup = { .protocol = "nbd" } };

    snprintf(call.lookup.name, sizeof(call.lookup.name), "%s", name);
    snprintf(call.lookup.client.peer, sizeof(call.lookup.client.peer), "%s", peer);
    snprintf(call.lookup.client.identity, sizeof(call.lookup.client.identity), "%s", identity);
    call.lookup.client.tls = tls;
    call.lookup.op.done = looked_up;
    sim_process_enter(bench->sim);
    reactor_send(bench->reactors[1], &call.message, look_up);
    sim_process_leave(bench->sim);
    assert_int_equal(bench_wait(bench, &call.done), 0);
    if (call.lookup.op.result == 0) {
        bench_release(bench, call.lookup.ret_volume);
    }
    return call.lookup.op.result;
}

static void
make_export(struct bench *bench, const char *volume, const char *options)
{
    struct export_create create = { .name = { .pool = "p" }, .record = { .protocol = "nbd" } };
    char path[64];

    snprintf(path, sizeof(path), "p/%s", volume);
    assert_int_equal(bench_make_volume(bench, path, MIB), 0);
    snprintf(create.name.volume, sizeof(create.name.volume), "%s", volume);
    snprintf(create.record.options, sizeof(create.record.options), "%s", options);
    assert_int_equal(bench_export_create(bench, &create), 0);
}

static void
who_is_not_meant_does_not_find_an_export(void **state)
{
    static const char *const ONE[] = { "/d/0", NULL };
    (void)state;
    struct bench *bench = bench_create(3, 2);

    bench_disk(bench, ONE[0], 64 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    make_export(bench, "all", "");
    make_export(bench, "ten", "host=10.0.0.0/8");
    make_export(bench, "safe", "tls=required");
    make_export(bench, "web", "host=tls:web1");
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(answer(bench, "p/all", "tcp:192.0.2.1:5", false, ""), 0);
        assert_int_equal(answer(bench, "p/ten", "tcp:10.1.2.3:5", false, ""), 0);
        assert_int_equal(answer(bench, "p/ten", "tcp:192.0.2.1:5", false, ""), -EACCES);
        assert_int_equal(answer(bench, "p/ten", "unix (pid 1, uid 0)", false, ""), -EACCES);
        assert_int_equal(answer(bench, "p/safe", "tcp:10.1.2.3:5", false, ""), -ENOKEY);
        assert_int_equal(answer(bench, "p/safe", "tcp:10.1.2.3:5", true, ""), 0);
        assert_int_equal(answer(bench, "p/web", "tcp:10.1.2.3:5", true, "web1"), 0);
        assert_int_equal(answer(bench, "p/web", "tcp:10.1.2.3:5", true, "web2"), -EACCES);
        assert_int_equal(answer(bench, "p/web", "tcp:10.1.2.3:5", false, ""), -ENOKEY);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_not_meant_does_not_find_an_export),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
