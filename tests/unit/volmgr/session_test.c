/* SPDX-License-Identifier: Apache-2.0 */
/* Exports and sessions: who finds what, who may attach, and how he is got rid of. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static const char *const ONE[] = { "/d/0", NULL };

static struct bench *
bench_with_pool(uint32_t reactor_count)
{
    struct bench *bench = bench_create(5, reactor_count);

    bench_disk(bench, "/d/0", 256 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    return bench;
}

struct host {
    struct volume_session session;
    uint32_t drops;
};

static void
host_event(struct volume_session *session, enum volume_session_event event)
{
    if (event == VOLUME_SESSION_DROP) {
        container_of(session, struct host, session)->drops++;
    }
}

static struct host
make_host(const char *peer, const char *identity)
{
    struct host host = { .session = { .protocol = "nbd", .event = host_event } };

    snprintf(host.session.peer, sizeof(host.session.peer), "%s", peer);
    snprintf(host.session.identity, sizeof(host.session.identity), "%s", identity);
    return host;
}

static void
exports_are_found_from_everywhere_and_restored(void **state)
{
    struct bench *bench = bench_with_pool(3);
    struct export_create create = {
        .name = { "p", "v1" },
        .record = { .protocol = "iscsi", .name = "iqn.x:disk", .options = "tls=off" },
    };
    struct export_lookup lookup;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v1", 1 * MIB), 0);
    assert_int_equal(bench_make_volume(bench, "p/v2", 1 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v1"), 0);
    assert_int_equal(bench_make_export(bench, "p/v1"), -EEXIST);
    assert_int_equal(bench_make_export(bench, "p/none"), -ENOENT);
    assert_int_equal(bench_export_create(bench, &create), 0);
    snprintf(create.name.volume, sizeof(create.name.volume), "v2");
    assert_int_equal(bench_export_create(bench, &create), -EEXIST); /* the name, for iscsi */
    snprintf(create.record.protocol, sizeof(create.record.protocol), "nbd");
    assert_int_equal(bench_export_create(bench, &create), 0); /* another protocol */
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t from = 0; from < 3; from++) {
            assert_int_equal(bench_lookup(bench, from, "p/v1", &lookup), 0);
            assert_string_equal(lookup.ret_info.name, "v1");
            bench_release(bench, lookup.ret_volume);
            assert_int_equal(bench_lookup(bench, from, "p/v2", &lookup), -ENOENT);
            assert_int_equal(bench_lookup(bench, from, "iqn.x:disk", &lookup), 0);
            assert_string_equal(lookup.ret_info.name, "v2");
            assert_string_equal(lookup.ret_record.options, "tls=off");
            bench_release(bench, lookup.ret_volume);
        }
        struct export_query query = { .protocol = "iscsi" };
        assert_int_equal(bench_export_query(bench, &query), 0);
        assert_int_equal(query.ret_count, 1);
        assert_string_equal(query.ret_exports[0].volume.volume, "v1");
        assert_int_equal(query.ret_exports[0].size_bytes, 1 * MIB);
        free(query.ret_exports);
        assert_int_equal(bench_shutdown(bench), 0);
        assert_int_equal(bench_boot(bench), 0);
    }
    struct export_delete delete = { .name = { "p", "v1" }, .protocol = "nbd" };
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    assert_int_equal(bench_export_delete(bench, &delete), -ENOENT);
    assert_int_equal(bench_lookup(bench, 1, "p/v1", &lookup), -ENOENT);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    struct export_query query = { 0 };
    assert_int_equal(bench_export_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 2);
    free(query.ret_exports);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static struct volume *
make_and_hold(struct bench *bench, const char *name)
{
    struct export_lookup lookup;

    assert_int_equal(bench_make_volume(bench, name, 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, name), 0);
    assert_int_equal(bench_lookup(bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

static void
exclusive_means_alone(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v");
    struct host first = make_host("tcp:10.0.0.1:1", "");
    struct host second = make_host("tcp:10.0.0.2:1", "");

    (void)state;
    assert_int_equal(bench_attach(bench, volume, &first.session), 0);
    second.session.exclusive = true;
    assert_int_equal(bench_attach(bench, volume, &second.session), -EBUSY);
    second.session.exclusive = false;
    assert_int_equal(bench_attach(bench, volume, &second.session), 0);
    assert_int_not_equal(first.session.id, second.session.id);
    bench_detach(bench, &first.session);
    bench_detach(bench, &second.session);
    second.session.exclusive = true;
    assert_int_equal(bench_attach(bench, volume, &second.session), 0);
    assert_int_equal(bench_attach(bench, volume, &first.session), -EBUSY);
    struct session_query query = { 0 };
    assert_int_equal(bench_session_query(bench, &query), 0);
    assert_int_equal(query.ret_count, 1);
    assert_true(query.ret_sessions[0].exclusive);
    assert_string_equal(query.ret_sessions[0].volume.volume, "v");
    free(query.ret_sessions);
    bench_detach(bench, &second.session);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
a_drop_waits_until_the_host_has_let_go(void **state)
{
    struct bench *bench = bench_with_pool(3);
    struct volume *volumes[3] = {
        make_and_hold(bench, "p/a"), make_and_hold(bench, "p/b"), make_and_hold(bench, "p/c"),
    };
    struct host hosts[3];
    struct session_drop drop = { .match = "10.0.0.1" };
    struct session_drop again = { 0 };
    bool done = false;
    bool done_again = false;

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        hosts[i] = make_host(i == 2 ? "tcp:10.0.0.2:9" : "tcp:10.0.0.1:9", "");
        hosts[i].session.in_flight = 1;
        assert_int_equal(bench_attach(bench, volumes[i], &hosts[i].session), 0);
    }
    bench_session_drop_start(bench, &drop, &done);
    bench_pass_time(bench, 2);
    assert_false(done);
    assert_int_equal(hosts[0].drops, 1);
    assert_int_equal(hosts[1].drops, 1);
    assert_int_equal(hosts[2].drops, 0);
    hosts[0].session.in_flight = 0;
    bench_detach(bench, &hosts[0].session);
    bench_pass_time(bench, 2);
    assert_false(done);
    /* A second command about the same session waits, too, and tells the host only once. */
    again.id = hosts[1].session.id;
    bench_session_drop_start(bench, &again, &done_again);
    bench_pass_time(bench, 1);
    assert_false(done_again);
    assert_int_equal(hosts[1].drops, 1);
    hosts[1].session.in_flight = 0;
    bench_detach(bench, &hosts[1].session);
    assert_int_equal(bench_wait(bench, &done), 0);
    assert_int_equal(bench_wait(bench, &done_again), 0);
    assert_int_equal(drop.control.op.result, 0);
    assert_int_equal(drop.ret_dropped, 2);
    assert_int_equal(again.ret_dropped, 1);
    again = (struct session_drop){ .id = 4711 };
    assert_int_equal(bench_session_drop(bench, &again), -ENOENT);
    again = (struct session_drop){ 0 };
    assert_int_equal(bench_session_drop(bench, &again), -EINVAL);
    hosts[2].session.in_flight = 0;
    bench_detach(bench, &hosts[2].session);
    for (uint32_t i = 0; i < 3; i++) {
        bench_release(bench, volumes[i]);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

struct match_case {
    const char *peer;
    const char *identity;
    const char *match;
    bool matches;
};

static void
blocked_hosts_stay_out(void **state)
{
    static const struct match_case cases[] = {
        { "tcp:10.0.0.1:4711", "", "10.0.0.1", true },
        { "tcp:10.0.0.1:4711", "", "tcp:10.0.0.1", true },
        { "tcp:10.0.0.1:4711", "", "tcp:10.0.0.1:4711", true },
        { "tcp:10.0.0.11:4711", "", "10.0.0.1", false },
        { "tcp:10.0.0.1:4711", "", "10.0.0", false },
        { "tcp:[fe80::1]:4711", "", "fe80::1", true },
        { "tcp:[fe80::1]:4711", "", "[fe80::1]", true },
        { "tcp:[fe80::1]:4711", "", "fe80", false },
        { "unix (pid 12, uid 0)", "", "uid 0", true },
        { "unix (pid 12, uid 0)", "", "pid 12", true },
        { "unix (pid 12, uid 0)", "", "unix (pid 12, uid 0)", true },
        { "unix (pid 12, uid 0)", "", "pid 1", false },
        { "tcp:10.0.0.1:4711", "iqn.host:a", "iqn.host:a", true },
        { "tcp:10.0.0.1:4711", "iqn.host:a", "iqn.host", false },
        { "", "", "x", false },
    };
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v");

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct host host = make_host(cases[i].peer, cases[i].identity);
        struct session_drop drop = { .block = true };
        snprintf(drop.match, sizeof(drop.match), "%s", cases[i].match);
        assert_int_equal(bench_session_drop(bench, &drop), 0);
        assert_int_equal(bench_attach(bench, volume, &host.session),
                         cases[i].matches ? -EACCES : 0);
        if (!cases[i].matches) {
            bench_detach(bench, &host.session);
        }
        drop = (struct session_drop){ .unblock = true };
        snprintf(drop.match, sizeof(drop.match), "%s", cases[i].match);
        assert_int_equal(bench_session_drop(bench, &drop), 0);
        assert_int_equal(bench_attach(bench, volume, &host.session), 0);
        bench_detach(bench, &host.session);
    }
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
unexporting_and_deleting_respect_hosts(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v");
    struct host host = make_host("tcp:10.0.0.1:1", "");
    struct export_delete delete = { .name = { "p", "v" } };
    struct export_lookup lookup;
    bool done = false;

    (void)state;
    assert_int_equal(bench_attach(bench, volume, &host.session), 0);
    assert_int_equal(bench_export_delete(bench, &delete), -EBUSY);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0); /* still there */
    bench_release(bench, lookup.ret_volume);
    delete.drop_sessions = true;
    bench_export_delete_start(bench, &delete, &done);
    bench_pass_time(bench, 1);
    assert_false(done);
    assert_int_equal(host.drops, 1);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), -ENOENT);
    assert_int_equal(bench_delete_volume(bench, "p/none"), -ENOENT);
    bench_detach(bench, &host.session);
    assert_int_equal(bench_wait(bench, &done), 0);
    assert_int_equal(delete.control.op.result, 0);
    assert_int_equal(bench_delete_volume(bench, "p/v"), -EBUSY); /* still held */
    bench_release(bench, volume);
    assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
    bench_wait_for_jobs(bench);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

struct late_detach {
    struct bench *bench;
    struct host host;
};

static void
the_end_of_the_daemon_drops_hosts(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v");
    struct event_query wait = { .wait = true, .wait_ns = 3600 * NS_PER_S,
                                .after_sequence = 1000 };
    bool answered = false;

    (void)state;
    assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 9), 0); /* not flushed */
    bench_release(bench, volume);
    bench_event_query_start(bench, &wait, &answered);
    bench->results_kept = 1;
    assert_int_equal(bench_shutdown(bench), 0);
    assert_true(answered);
    free(wait.ret_events);
    bench->results_kept = 0;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_events(bench, "replayed"), 0);
    assert_int_equal(bench_pool_report(bench, "p").used_bytes, 1 * MIB);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
events_can_be_waited_for(void **state)
{
    struct bench *bench = bench_with_pool(1);
    struct event_query now = { 0 };
    struct event_query later = { .wait = true, .wait_ns = 5 * NS_PER_S };
    bool done = false;

    (void)state;
    assert_int_equal(bench_event_query(bench, &now), 0);
    assert_true(now.ret_count > 0);
    later.after_sequence = now.ret_events[now.ret_count - 1].sequence;
    free(now.ret_events);
    bench_event_query_start(bench, &later, &done);
    bench_pass_time(bench, 1);
    assert_false(done);
    struct session_drop drop = { .match = "10.0.0.1", .block = true };
    assert_int_equal(bench_session_drop(bench, &drop), 0);
    assert_int_equal(bench_wait(bench, &done), 0);
    assert_int_equal(later.ret_count, 1);
    assert_string_equal(later.ret_events[0].name, "sessions-dropped");
    later.after_sequence = later.ret_events[0].sequence;
    free(later.ret_events);
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_event_query(bench, &later), 0);
    assert_int_equal(later.ret_count, 0);
    assert_true(sim_now_ns(bench->sim) - start_ns >= 5 * NS_PER_S);
    free(later.ret_events);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* ---- names, and who comes in between ---- */

static struct bench *
bench_with_two_pools(void)
{
    static const char *const TWO[] = { "/d/1", NULL };
    struct bench *bench = bench_with_pool(2);

    bench->pool_names[1] = "q";
    bench_disk(bench, "/d/1", 256 * MIB);
    assert_int_equal(bench_make_pool(bench, "q", TWO, false), 0);
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_volume(bench, "q/v", 16 * MIB), 0);
    return bench;
}

/* Commits of two pools are not in one line: both succeeded, and one was not served. */
static void
one_of_two_pools_gets_the_name(void **state)
{
    struct bench *bench = bench_with_two_pools();
    struct export_create creates[2] = {
        { .name = { "p", "v" }, .record = { .protocol = "nbd", .name = "disk" } },
        { .name = { "q", "v" }, .record = { .protocol = "nbd", .name = "disk" } },
    };
    bool done[2] = { false, false };

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        bench_export_create_start(bench, &creates[i], &done[i]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(bench_wait(bench, &done[i]), 0);
    }
    int first = creates[0].control.op.result;
    int second = creates[1].control.op.result;
    assert_true((first == 0 && second == -EEXIST) || (first == -EEXIST && second == 0));
    assert_int_equal(bench_events(bench, "export-name-taken"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* A pool that was away while its name was given to another: served when it is free again. */
static void
a_name_that_becomes_free_is_served(void **state)
{
    struct bench *bench = bench_with_two_pools();
    struct export_create create = { .name = { "q", "v" },
                                    .record = { .protocol = "nbd", .name = "p/v" } };
    struct export_delete delete = { .name = { "p", "v" } };
    struct export_lookup lookup;

    (void)state;
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench->pool_names[0] = "q";
    bench->pool_names[1] = NULL;
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_export_create(bench, &create), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    bench->pool_names[0] = "p";
    bench->pool_names[1] = "q";
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_events(bench, "export-name-taken"), 1);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0);
    bool p_has_it = strcmp(lookup.ret_info.pool_name, "p") == 0;
    bench_release(bench, lookup.ret_volume);
    snprintf(delete.name.pool, sizeof(delete.name.pool), "%s", p_has_it ? "p" : "q");
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0);
    assert_string_equal(lookup.ret_info.pool_name, p_has_it ? "q" : "p");
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* It had looked the export up before it was removed, and attached afterwards. */
static void
nobody_attaches_by_an_export_that_is_gone(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v");
    struct host late = make_host("tcp:10.0.0.1:1", "");
    struct host other = make_host("tcp:10.0.0.2:1", "");
    struct export_delete delete = { .name = { "p", "v" } };
    struct export_lookup lookup;

    (void)state;
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0);
    late.session.export_id = lookup.ret_record.id;
    other.session.export_id = lookup.ret_record.id;
    assert_int_equal(bench_attach(bench, volume, &other.session), 0);
    assert_int_equal(bench_export_delete(bench, &delete), -EBUSY);
    /* Refused: it is as before. */
    assert_int_equal(bench_attach(bench, volume, &late.session), 0);
    bench_detach(bench, &late.session);
    bench_detach(bench, &other.session);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    assert_int_equal(bench_attach(bench, volume, &late.session), -ENODEV);
    /* Nor by the next export of the volume: it must look that up. */
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_attach(bench, volume, &late.session), -ENODEV);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0);
    late.session.export_id = lookup.ret_record.id;
    assert_int_equal(bench_attach(bench, volume, &late.session), 0);
    bench_detach(bench, &late.session);
    bench_release(bench, lookup.ret_volume);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    /* A restart opens what is exported. */
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0);
    late.session.export_id = lookup.ret_record.id;
    assert_int_equal(bench_attach(bench, lookup.ret_volume, &late.session), 0);
    bench_detach(bench, &late.session);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
unexporting_by_force_has_a_deadline(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume *volume = make_and_hold(bench, "p/v");
    struct host host = make_host("tcp:10.0.0.1:1", "");
    struct export_delete delete = { .name = { "p", "v" }, .drop_sessions = true };
    struct export_lookup lookup;

    (void)state;
    host.session.in_flight = 1;
    assert_int_equal(bench_attach(bench, volume, &host.session), 0);
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_export_delete(bench, &delete), -ETIMEDOUT);
    assert_true(sim_now_ns(bench->sim) - start_ns < 70 * NS_PER_S);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0); /* as before */
    bench_release(bench, lookup.ret_volume);
    host.session.in_flight = 0;
    bench_detach(bench, &host.session);
    assert_int_equal(bench_export_delete(bench, &delete), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Two commands about one volume, in every order that the seed brings: one loses, in words. */
static void
commands_about_one_volume_do_not_mix(void **state)
{
    (void)state;
    for (uint32_t head_start = 0; head_start < 60; head_start++) {
        struct bench *bench = bench_with_pool(2);
        struct volume_delete delete = { .name = { "p", "v" } };
        struct export_create export = { .name = { "p", "v" }, .record = { .protocol = "nbd" } };
        struct volume_rename rename = { .name = { "p", "v" }, .new_name = "w" };
        bool done[3] = { false, false, false };
        assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
        bench_volume_delete_start(bench, &delete, &done[0]);
        for (uint32_t i = 0; i < head_start % 20; i++) {
            sim_step(bench->sim);
        }
        bench_export_create_start(bench, &export, &done[1]);
        for (uint32_t i = 0; i < head_start / 20; i++) {
            sim_step(bench->sim);
        }
        bench_volume_rename_start(bench, &rename, &done[2]);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(bench_wait(bench, &done[i]), 0);
        }
        int deleted = delete.control.op.result;
        int exported = export.control.op.result;
        int renamed = rename.control.op.result;
        assert_int_equal(deleted, 0);
        assert_true(exported == -ENOENT || exported == -EBUSY);
        assert_true(renamed == -ENOENT || renamed == -EBUSY);
        bench_wait_for_jobs(bench);
        struct export_query query = { 0 };
        assert_int_equal(bench_export_query(bench, &query), 0);
        assert_int_equal(query.ret_count, 0);
        free(query.ret_exports);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* The ids of what was deleted are in no later volume. */
static void
ids_are_never_used_again(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct volume_report report;
    uint64_t last = 0;

    (void)state;
    for (uint32_t round = 0; round < 6; round++) {
        assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
        assert_true(bench_volume_report(bench, "p/v", &report));
        assert_true(report.id > last);
        last = report.id;
        assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
        if (round % 2 == 0) {
            bench_power_cut(bench, SIM_CUT_BY_SEED);
            assert_int_equal(bench_boot(bench), 0);
        }
        bench_wait_for_jobs(bench);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

struct names_call {
    struct bench *bench;
    struct export_names names;
    bool done;
};

static void
names_done(struct io_op *op)
{
    struct export_names *names = container_of(op, struct export_names, op);
    container_of(names, struct names_call, names)->done = true;
}

static void
names_begin(void *argument)
{
    struct names_call *call = argument;
    manager_export_names(call->bench->manager, &call->names);
}

/* The names of the exports, each with its NUL; free what they are in. Returns the result. */
static int
find_names(struct bench *bench, struct byte_buffer *ret_names)
{
    struct names_call call = { .bench = bench, .names = { .protocol = "nbd" } };

    call.names.op.done = names_done;
    bench_run_on(bench, bench->reactors[1], names_begin, &call);
    assert_int_equal(bench_wait(bench, &call.done), 0);
    *ret_names = call.names.ret_names;
    return call.names.op.result;
}

/* A host that reconnects meanwhile would take "there is no such export" for a deleted one. */
static void
an_export_is_not_unknown_while_a_pool_is_being_opened(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct sim_fault fault = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_READ };
    struct export_lookup lookup;
    struct byte_buffer names;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    sim_disk_add_fault(sim_disk_find(bench->sim, "/d/0"), &fault);
    assert_int_equal(bench_boot(bench), 0); /* its patience ends */
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OPENING);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), -EAGAIN);
    assert_int_equal(bench_lookup(bench, 1, "", &lookup), -EAGAIN);
    assert_int_equal(find_names(bench, &names), -EAGAIN);
    assert_int_equal(names.length_bytes, 0);
    sim_disk_clear_faults(sim_disk_find(bench->sim, "/d/0"));
    sim_disk_release(sim_disk_find(bench->sim, "/d/0"));
    bench_pass_time(bench, 5);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
    assert_int_equal(bench_lookup(bench, 1, "p/v", &lookup), 0);
    bench_release(bench, lookup.ret_volume);
    assert_int_equal(bench_lookup(bench, 1, "p/w", &lookup), -ENOENT);
    assert_int_equal(bench_lookup(bench, 1, "", &lookup), -ENOENT);
    assert_int_equal(find_names(bench, &names), 0);
    assert_int_equal(names.length_bytes, sizeof("p/v"));
    byte_buffer_free(&names);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exports_are_found_from_everywhere_and_restored),
        cmocka_unit_test(exclusive_means_alone),
        cmocka_unit_test(a_drop_waits_until_the_host_has_let_go),
        cmocka_unit_test(blocked_hosts_stay_out),
        cmocka_unit_test(unexporting_and_deleting_respect_hosts),
        cmocka_unit_test(the_end_of_the_daemon_drops_hosts),
        cmocka_unit_test(events_can_be_waited_for),
        cmocka_unit_test(one_of_two_pools_gets_the_name),
        cmocka_unit_test(a_name_that_becomes_free_is_served),
        cmocka_unit_test(nobody_attaches_by_an_export_that_is_gone),
        cmocka_unit_test(unexporting_by_force_has_a_deadline),
        cmocka_unit_test(commands_about_one_volume_do_not_mix),
        cmocka_unit_test(ids_are_never_used_again),
        cmocka_unit_test(an_export_is_not_unknown_while_a_pool_is_being_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
