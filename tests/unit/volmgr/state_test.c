/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon remembers over a restart: events, blocked hosts, numbers of jobs. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "volmgr/control_impl.h"

static const char *const ONE[] = { "/d/0", NULL };

static struct bench *
bench_with_pool(uint32_t reactor_count)
{
    struct bench *bench = bench_create(31, reactor_count);

    bench->state_directory = "/state";
    bench_disk(bench, "/d/0", 256 * MIB);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    return bench;
}

static struct event_query
all_events(struct bench *bench)
{
    struct event_query query = { 0 };

    assert_int_equal(bench_event_query(bench, &query), 0);
    for (uint32_t i = 1; i < query.ret_count; i++) {
        assert_true(query.ret_events[i].sequence > query.ret_events[i - 1].sequence);
    }
    return query;
}

static int
block(struct bench *bench, const char *match, bool unblock)
{
    struct session_drop drop = { .block = !unblock, .unblock = unblock };

    snprintf(drop.match, sizeof(drop.match), "%s", match);
    return bench_session_drop(bench, &drop);
}

/* ---- events ---- */

static void
events_are_there_after_a_restart(void **state)
{
    struct bench *bench = bench_with_pool(2);
    uint64_t last = 0;

    (void)state;
    for (uint32_t round = 0; round < 6; round++) {
        assert_int_equal(block(bench, "10.0.0.1", round % 2 != 0), 0);
        bench_pass_time(bench, 1);
        struct event_query query = all_events(bench);
        last = query.ret_events[query.ret_count - 1].sequence;
        assert_string_equal(query.ret_events[0].name, "pool-created");
        assert_string_equal(query.ret_events[0].pool, "p");
        assert_int_equal(query.ret_events[0].sequence, 1);
        free(query.ret_events);
        assert_int_equal(bench_events(bench, "sessions-dropped"), round / 2 + 1);
        switch (round % 3) {
        case 0:
            assert_int_equal(bench_shutdown(bench), 0);
            break;
        case 1:
            bench_kill(bench);
            break;
        default:
            bench_power_cut(bench, SIM_CUT_LOSE_ALL);
        }
        assert_int_equal(bench_boot(bench), 0);
        query = (struct event_query){ .after_sequence = last - 1 };
        assert_int_equal(bench_event_query(bench, &query), 0);
        assert_true(query.ret_count >= 1);
        assert_int_equal(query.ret_events[0].sequence, last);
        free(query.ret_events);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* The last ones before a clean end, too: raised while it ends. */
static void
a_clean_end_writes_all_events(void **state)
{
    struct bench *bench = bench_with_pool(1);

    (void)state;
    assert_int_equal(block(bench, "10.0.0.1", false), 0);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_events(bench, "sessions-dropped"), 1);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

struct storm {
    struct message message;
    struct manager *manager;
    uint32_t count;
    uint32_t number;
    bool done;
};

static void
storm_deliver(struct message *message)
{
    struct storm *storm = container_of(message, struct storm, message);

    for (uint32_t i = 0; i < storm->count; i++) {
        event_raise(storm->manager, EVENT_INFO, "p", "s", "storm", "%u", storm->number++);
    }
    storm->done = true;
}

static void
raise_many(struct bench *bench, struct storm *storm, uint32_t count)
{
    storm->manager = bench->manager;
    storm->count = count;
    storm->done = false;
    sim_process_enter(bench->sim);
    reactor_send(bench->reactors[0], &storm->message, storm_deliver);
    sim_process_leave(bench->sim);
    assert_int_equal(bench_wait(bench, &storm->done), 0);
}

/* The file goes round, and keeps the newest; writes are far fewer than events. */
static void
the_newest_events_are_kept(void **state)
{
    struct bench *bench = bench_with_pool(1);
    struct storm storm = { .number = 0 };

    (void)state;
    log_set_level(LOG_LEVEL_ERROR - 1);
    for (uint32_t i = 0; i < 450; i++) {
        raise_many(bench, &storm, 50);
        sim_run_for(bench->sim, 100 * NS_PER_MS);
    }
    const struct sim_disk_statistics *statistics =
        sim_disk_statistics(sim_disk_find(bench->sim, "/state/events"));
    assert_true(statistics->operations[FILE_IO_WRITE] < 1000);
    bench_power_cut(bench, SIM_CUT_LOSE_ALL);
    assert_int_equal(bench_boot(bench), 0);
    struct event_query query = all_events(bench);
    assert_true(query.ret_count >= EVENTS_MAX - 64 && query.ret_count <= EVENTS_MAX);
    uint32_t newest = 0;
    for (uint32_t i = 0; i < query.ret_count; i++) {
        if (strcmp(query.ret_events[i].name, "storm") == 0) {
            newest = (uint32_t)strtoul(query.ret_events[i].text, NULL, 10);
        }
    }
    assert_int_equal(newest, storm.number - 1);
    free(query.ret_events);
    /* More at once than can be written: what memory has lost is skipped, the rest follows. */
    raise_many(bench, &storm, 30000);
    bench_pass_time(bench, 60);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    query = all_events(bench);
    assert_int_equal(query.ret_count, EVENTS_MAX);
    assert_int_equal(strtoul(query.ret_events[EVENTS_MAX - 1].text, NULL, 10), storm.number - 1);
    free(query.ret_events);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
damage_of_the_files_stops_no_start(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct bench *bench = bench_with_pool(2);
        assert_int_equal(block(bench, "10.0.0.1", false), 0);
        assert_int_equal(block(bench, "host-a", false), 0);
        assert_int_equal(bench_shutdown(bench), 0);
        struct sim_disk *events = sim_disk_find(bench->sim, "/state/events");
        struct sim_disk *daemon = sim_disk_find(bench->sim, "/state/daemon");
        switch (seed) {
        case 0:
            sim_disk_damage(events, 0, 10 * MIB, seed);
            break;
        case 1:
            sim_disk_damage(events, 2048, 512, seed);
            break;
        case 2:
            sim_disk_damage(daemon, 0, 256 * KIB, seed);
            break;
        case 3:
            sim_disk_damage(daemon, 256 * KIB, 256 * KIB, seed);
            break;
        default:
            sim_disk_damage(daemon, 0, 512 * KIB, seed);
        }
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_ONLINE);
        /* Nobody is let in silently. */
        assert_int_equal(bench_events(bench, "blocked-hosts-unknown"), seed >= 4 ? 1 : 0);
        struct block_query query = { 0 };
        assert_int_equal(bench_block_query(bench, &query), 0);
        assert_true(seed >= 4 ? query.ret_count == 0 : query.ret_count >= 1);
        free(query.ret_blocks);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* ---- hosts ---- */

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

static struct volume *
hold(struct bench *bench)
{
    struct export_lookup lookup;

    assert_int_equal(bench_lookup(bench, 0, "p/v", &lookup), 0);
    return lookup.ret_volume;
}

static int
try_attach(struct bench *bench, const char *peer, const char *identity)
{
    struct host host = make_host(peer, identity);
    struct volume *volume = hold(bench);

    int result = bench_attach(bench, volume, &host.session);
    if (result == 0) {
        bench_detach(bench, &host.session);
    }
    bench_release(bench, volume);
    return result;
}

static void
a_blocked_host_stays_out_after_the_daemon_died(void **state)
{
    struct bench *bench = bench_with_pool(3);

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    for (uint32_t round = 0; round < 4; round++) {
        assert_int_equal(try_attach(bench, "tcp:10.0.0.1:1", ""), 0);
        assert_int_equal(block(bench, "10.0.0.1", false), 0);
        if (round % 2 == 0) {
            bench_kill(bench);
        } else {
            bench_power_cut(bench, SIM_CUT_LOSE_ALL);
        }
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(try_attach(bench, "tcp:10.0.0.1:2", ""), -EACCES);
        assert_int_equal(try_attach(bench, "tcp:10.0.0.2:2", ""), 0);
        assert_int_equal(block(bench, "10.0.0.1", true), 0);
        bench_kill(bench);
        assert_int_equal(bench_boot(bench), 0);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* By its number, its identity or its address: it is known by all of them afterwards. */
static void
a_blocked_host_cannot_come_by_another_way(void **state)
{
    struct bench *bench = bench_with_pool(2);

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    for (uint32_t way = 0; way < 3; way++) {
        struct volume *volume = hold(bench);
        struct host tls = make_host("tcp:[fe80::1]:7", "host-a");
        struct host plain = make_host("tcp:[fe80::1]:8", "");
        struct host other = make_host("tcp:10.0.0.9:8", "host-b");
        struct session_drop drop = { .block = true };
        bool done = false;
        assert_int_equal(bench_attach(bench, volume, &tls.session), 0);
        assert_int_equal(bench_attach(bench, volume, &plain.session), 0);
        assert_int_equal(bench_attach(bench, volume, &other.session), 0);
        if (way == 0) {
            drop.id = tls.session.id;
        } else {
            snprintf(drop.match, sizeof(drop.match), "%s", way == 1 ? "host-a" : "fe80::1");
        }
        bench_session_drop_start(bench, &drop, &done);
        bench_pass_time(bench, 1);
        assert_int_equal(tls.drops, 1);
        assert_int_equal(plain.drops, 1); /* the same host without TLS */
        assert_int_equal(other.drops, 0);
        bench_detach(bench, &tls.session);
        bench_detach(bench, &plain.session);
        assert_int_equal(bench_wait(bench, &done), 0);
        assert_int_equal(drop.control.op.result, 0);
        assert_int_equal(drop.ret_dropped, 2);
        assert_int_equal(try_attach(bench, "tcp:[fe80::1]:9", ""), -EACCES);
        assert_int_equal(try_attach(bench, "tcp:10.1.1.1:9", "host-a"), -EACCES);
        assert_int_equal(try_attach(bench, "tcp:10.1.1.1:9", "host-c"), 0);
        struct block_query query = { 0 };
        assert_int_equal(bench_block_query(bench, &query), 0);
        assert_int_equal(query.ret_count, 2);
        assert_int_equal(block(bench, query.ret_blocks[1].origin, true), 0);
        free(query.ret_blocks);
        assert_int_equal(try_attach(bench, "tcp:[fe80::1]:9", "host-a"), 0);
        bench_detach(bench, &other.session);
        bench_release(bench, volume);
    }
    struct volume *volume = hold(bench);
    struct host local = make_host("unix (pid 12, uid 0)", "");
    assert_int_equal(bench_attach(bench, volume, &local.session), 0);
    struct session_drop drop = { .id = local.session.id, .block = true };
    assert_int_equal(bench_session_drop(bench, &drop), -EINVAL);
    assert_int_equal(local.drops, 0);
    bench_detach(bench, &local.session);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* It said success only if it never ended; now it says at the deadline what is the matter. */
static void
a_host_that_does_not_end_is_no_success(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct host host = make_host("tcp:10.0.0.1:7", "");
    struct session_drop drop = { .match = "10.0.0.1", .block = true, .timeout_ns = 5 * NS_PER_S };

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    struct volume *volume = hold(bench);
    assert_int_equal(bench_attach(bench, volume, &host.session), 0);
    host.session.in_flight = 1;
    uint64_t start_ns = sim_now_ns(bench->sim);
    assert_int_equal(bench_session_drop(bench, &drop), -ETIMEDOUT);
    assert_true(sim_now_ns(bench->sim) - start_ns < 6 * NS_PER_S);
    assert_int_equal(drop.ret_dropped, 0);
    assert_non_null(strstr(bench->error.message, "p/v"));
    assert_int_equal(try_attach(bench, "tcp:10.0.0.1:8", ""), -EACCES); /* blocked all the same */
    assert_int_equal(bench_session_drop(bench, &drop), -ETIMEDOUT);
    assert_int_equal(host.drops, 1);
    host.session.in_flight = 0;
    bench_detach(bench, &host.session);
    assert_int_equal(bench_session_drop(bench, &drop), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* A host with one write under way. */
struct writer {
    struct host host;
    struct message message;
    struct volume *volume;
    struct volume_request request;
    struct iovec iov;
    uint8_t *data;
    bool replied;
    bool released;
};

static void
writer_replied(struct volume_request *request)
{
    container_of(request, struct writer, request)->replied = true;
}

static void
writer_released(struct volume_request *request)
{
    struct writer *writer = container_of(request, struct writer, request);

    writer->released = true;
    writer->host.session.in_flight--;
    if (writer->host.session.dropping) {
        volume_detach(&writer->host.session);
    }
}

static void
writer_deliver(struct message *message)
{
    struct writer *writer = container_of(message, struct writer, message);

    writer->host.session.in_flight++;
    volume_submit(writer->volume, &writer->request);
}

static void
write_block(struct bench *bench, struct writer *writer, struct volume *volume, uint8_t fill)
{
    writer->data = aligned_alloc(4096, 4096);
    assert_non_null(writer->data);
    memset(writer->data, fill, 4096);
    writer->volume = volume;
    volume_request_init(&writer->request);
    writer->iov = (struct iovec){ .iov_base = writer->data, .iov_len = 4096 };
    writer->request.operation = VOLUME_WRITE;
    writer->request.offset_bytes = 0;
    writer->request.length_bytes = 4096;
    writer->request.iov = &writer->iov;
    writer->request.iov_count = 1;
    writer->request.reply = writer_replied;
    writer->request.release = writer_released;
    sim_process_enter(bench->sim);
    reactor_send(volume_reactor(volume), &writer->message, writer_deliver);
    sim_process_leave(bench->sim);
}

/*
 * Its write hangs on a disk, and is answered with an error long before it ends. Until it has ended
 * the drop is no success; the next host's write on that block comes behind it.
 */
static void
a_write_that_hangs_is_waited_for(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct sim_disk *disk = sim_disk_find(bench->sim, "/d/0");
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_WRITE };
    struct session_drop drop = { .match = "10.0.0.1", .block = true, .timeout_ns = 90 * NS_PER_S };
    struct writer old = { .host = make_host("tcp:10.0.0.1:7", "") };
    struct writer new = { .host = make_host("tcp:10.0.0.2:7", "") };
    uint8_t block_data[4096];

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 128 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    struct volume *volume = hold(bench);
    assert_int_equal(bench_fill(bench, volume, 0, 1 * MIB, 1), 0);
    assert_int_equal(bench_attach(bench, volume, &old.host.session), 0);
    sim_disk_add_fault(disk, &hang);
    write_block(bench, &old, volume, 0xaa);
    bench_pass_time(bench, 1);
    assert_int_equal(bench_session_drop(bench, &drop), -ETIMEDOUT);
    assert_true(old.replied && !old.released);
    sim_disk_clear_faults(disk); /* what hangs still does */
    assert_int_equal(bench_attach(bench, volume, &new.host.session), 0);
    write_block(bench, &new, volume, 0xbb);
    bench_pass_time(bench, 5);
    assert_false(new.replied);
    sim_disk_release(disk);
    assert_int_equal(bench_wait(bench, &new.released), 0);
    assert_true(old.released);
    assert_int_equal(new.request.status, 0);
    assert_int_equal(bench_session_drop(bench, &drop), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, 0, block_data, 4096), 0);
    assert_memory_equal(block_data, new.data, 4096);
    bench_detach(bench, &new.host.session);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
    free(old.data);
    free(new.data);
}

static void
a_block_that_is_not_durable_is_no_success(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct sim_fault fault = { .action = SIM_FAULT_ERROR, .kinds = 1u << FILE_IO_WRITE };

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    sim_disk_add_fault(sim_disk_find(bench->sim, "/state/daemon"), &fault);
    assert_int_equal(block(bench, "10.0.0.1", false), -EIO);
    assert_non_null(strstr(bench->error.message, "until the daemon is restarted"));
    assert_int_equal(try_attach(bench, "tcp:10.0.0.1:8", ""), -EACCES);
    sim_disk_clear_faults(sim_disk_find(bench->sim, "/state/daemon"));
    assert_int_equal(block(bench, "10.0.0.1", false), 0);
    bench_power_cut(bench, SIM_CUT_LOSE_ALL);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(try_attach(bench, "tcp:10.0.0.1:8", ""), -EACCES);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* The disk of the state directory does not answer: the host is out all the same, and it is said. */
static void
a_hung_state_directory_keeps_no_host_in(void **state)
{
    struct bench *bench = bench_with_pool(2);
    struct sim_disk *disk = sim_disk_find(bench->sim, "/state/daemon");
    struct sim_fault hang = { .action = SIM_FAULT_HANG };
    struct host host = make_host("tcp:10.0.0.1:7", "");
    struct session_drop drop = { .match = "10.0.0.1", .block = true };
    bool done = false;

    (void)state;
    assert_int_equal(bench_make_volume(bench, "p/v", 16 * MIB), 0);
    assert_int_equal(bench_make_export(bench, "p/v"), 0);
    struct volume *volume = hold(bench);
    assert_int_equal(bench_attach(bench, volume, &host.session), 0);
    sim_disk_add_fault(disk, &hang);
    bench_session_drop_start(bench, &drop, &done);
    bench_pass_time(bench, 1);
    assert_int_equal(host.drops, 1);
    assert_false(done);
    bench_detach(bench, &host.session);
    assert_int_equal(try_attach(bench, "tcp:10.0.0.1:8", ""), -EACCES);
    assert_int_equal(bench_wait(bench, &done), 0);
    assert_int_equal(drop.control.op.result, -ETIMEDOUT);
    assert_non_null(strstr(drop.control.error.message, "recorded"));
    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    assert_int_equal(bench_session_drop(bench, &drop), 0);
    bench_release(bench, volume);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

static void
the_list_of_blocked_hosts_is_bounded(void **state)
{
    struct bench *bench = bench_with_pool(1);
    uint32_t count = 0;
    char name[32];
    int result = 0;

    (void)state;
    log_set_level(LOG_LEVEL_ERROR - 1);
    while (result == 0 && count < 100000) {
        snprintf(name, sizeof(name), "host-%u", count);
        result = block(bench, name, false);
        count += result == 0 ? 1 : 0;
    }
    assert_int_equal(result, -ENOSPC);
    assert_true(count >= 1000);
    assert_int_equal(bench_shutdown(bench), 0);
    assert_int_equal(bench_boot(bench), 0);
    struct block_query query = { 0 };
    assert_int_equal(bench_block_query(bench, &query), 0);
    assert_int_equal(query.ret_count, count);
    free(query.ret_blocks);
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* However far a block and an unblock have come when the power goes: all of it or nothing. */
static void
a_power_cut_leaves_the_old_list_or_the_new(void **state)
{
    (void)state;
    log_set_level(LOG_LEVEL_ERROR - 1);
    for (uint64_t stop = 1; stop < 40; stop++) {
        struct bench *bench = bench_with_pool(2);
        assert_int_equal(block(bench, "host-a", false), 0);
        sim_stop_at(bench->sim, sim_event_count(bench->sim) + stop);
        int first = block(bench, "host-b", false);
        int second = first == 0 ? block(bench, "host-a", true) : -ECANCELED;
        if (second == 0) {
            bench_free((bench_kill(bench), bench));
            break;
        }
        bench_power_cut(bench, SIM_CUT_BY_SEED);
        sim_stop_at(bench->sim, 0);
        assert_int_equal(bench_boot(bench), 0);
        struct block_query query = { 0 };
        assert_int_equal(bench_block_query(bench, &query), 0);
        bool has_a = false;
        bool has_b = false;
        for (uint32_t i = 0; i < query.ret_count; i++) {
            has_a = has_a || strcmp(query.ret_blocks[i].match, "host-a") == 0;
            has_b = has_b || strcmp(query.ret_blocks[i].match, "host-b") == 0;
        }
        free(query.ret_blocks);
        assert_true(has_a || has_b);
        assert_true(first != 0 || has_b);
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

/* ---- jobs ---- */

static void
numbers_of_jobs_are_never_used_again(void **state)
{
    struct bench *bench = bench_with_pool(2);
    uint64_t last = 0;

    (void)state;
    for (uint32_t round = 0; round < 4; round++) {
        struct job_query query = { 0 };
        assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
        assert_int_equal(bench_delete_volume(bench, "p/v"), 0);
        bench_wait_for_jobs(bench);
        assert_int_equal(bench_job_query(bench, &query), 0);
        for (uint32_t i = 0; i < query.ret_count; i++) {
            assert_true(query.ret_jobs[i].id > last);
        }
        last = query.ret_jobs[query.ret_count - 1].id;
        free(query.ret_jobs);
        bench_pass_time(bench, 1); /* events are on disk a moment later */
        if (round % 2 == 0) {
            bench_kill(bench);
        } else {
            assert_int_equal(bench_shutdown(bench), 0);
        }
        assert_int_equal(bench_boot(bench), 0);
        /* How it ended is in the events. */
        assert_int_equal(bench_events(bench, "volume-erased"), round + 1);
    }
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_there_after_a_restart),
        cmocka_unit_test(a_clean_end_writes_all_events),
        cmocka_unit_test(damage_of_the_files_stops_no_start),
        cmocka_unit_test(a_blocked_host_stays_out_after_the_daemon_died),
        cmocka_unit_test(a_blocked_host_cannot_come_by_another_way),
        cmocka_unit_test(a_host_that_does_not_end_is_no_success),
        cmocka_unit_test(a_write_that_hangs_is_waited_for),
        cmocka_unit_test(a_block_that_is_not_durable_is_no_success),
        cmocka_unit_test(a_hung_state_directory_keeps_no_host_in),
        cmocka_unit_test(numbers_of_jobs_are_never_used_again),
        cmocka_unit_test(the_newest_events_are_kept),
        cmocka_unit_test(the_list_of_blocked_hosts_is_bounded),
        cmocka_unit_test(a_power_cut_leaves_the_old_list_or_the_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
