/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remote LUNs against a foreign target that is killed, restarted and stopped under load. Skipped,
 * with a message, where tgtd cannot be run.
 */
#include "tests/unit/backends/support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "backends/iscsi_impl.h"
#include "base/util.h"
#include "tests/unit/backends/random_io.h"
#include "tests/unit/backends/tgtd.h"

enum {
    LUN_BYTES = 32 << 20
};

struct fixture {
    struct world world;
    struct tgtd tgtd;
    char url[512];
};

static int
setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    *state = fixture;
    world_open(&fixture->world);
    if (!tgtd_available()) {
        print_message("tgtd cannot be run here; skipped\n");
        return 0;
    }
    static int number;
    snprintf(fixture->tgtd.target, sizeof(fixture->tgtd.target),
             "iqn.2026-11.io.volmgr.test:iscsi-%d-%d", getpid(), number++);
    snprintf(fixture->tgtd.directory, sizeof(fixture->tgtd.directory), "%.200s",
             fixture->world.directory);
    fixture->tgtd.lun_count = 2;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *fixture = *state;
    tgtd_kill(&fixture->tgtd);
    world_close(&fixture->world);
    free(fixture);
    return 0;
}

static void
start(struct fixture *fixture)
{
    if (!tgtd_available()) {
        skip();
    }
    if (!tgtd_start(&fixture->tgtd, LUN_BYTES)) {
        fail_msg("tgtd does not start");
    }
}

static const char *
url(struct fixture *fixture, const char *user, uint32_t lun, const char *options)
{
    tgtd_url(&fixture->tgtd, fixture->url, sizeof(fixture->url), user, lun, options);
    return fixture->url;
}

static int
try_open(struct fixture *fixture, const char *spec, struct error *error)
{
    struct backend *disk = NULL;
    memset(error, 0, sizeof(*error));
    int result =
        backend_open(fixture->world.platform, fixture->world.reactor, spec, 0, &disk, error);
    if (result == 0) {
        backend_close(disk);
    }
    return result;
}

static void
test_chap(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct error error;
    uint8_t *data = buffer_new(4096, 1);

    fixture->tgtd.chap = true;
    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "carol%secret-of-carol", 1, ""), 0);
    assert_null(strstr(disk->spec, "secret"));
    assert_non_null(strstr(disk->spec, "carol@127.0.0.1"));
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    backend_close(disk);

    assert_int_equal(try_open(fixture, url(fixture, "carol%wrong-secret", 1, ""), &error), -EACCES);
    assert_null(strstr(error.message, "wrong-secret"));
    assert_int_equal(try_open(fixture, url(fixture, "dave%secret-of-carol", 1, ""), &error),
                     -EACCES);
    assert_true(try_open(fixture, url(fixture, "", 1, ""), &error) < 0);
    free(data);
}

static void
test_refusals(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    char spec[512];

    start(fixture);
    /* No such LUN, no such target, nobody there. */
    assert_int_equal(try_open(fixture, url(fixture, "", 9, ""), &error), -ENODEV);
    snprintf(spec, sizeof(spec), "iscsi://127.0.0.1:%d/iqn.2026-11.io.volmgr.test:none/1",
             fixture->tgtd.port);
    assert_true(try_open(fixture, spec, &error) < 0);
    assert_true(error.message[0] != '\0');
    snprintf(spec, sizeof(spec), "iscsi://127.0.0.1:%d/%s/1", 1, fixture->tgtd.target);
    assert_int_equal(try_open(fixture, spec, &error), -EHOSTUNREACH);
    snprintf(spec, sizeof(spec), "iscsi://no-such-host.invalid/%s/1", fixture->tgtd.target);
    assert_int_equal(try_open(fixture, spec, &error), -EHOSTUNREACH);
    /* LUN 0 of this target is its controller. */
    assert_int_equal(try_open(fixture, url(fixture, "", 0, ""), &error), -ENODEV);
}

static void
test_two_luns(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct random_io *work[2];

    start(fixture);
    for (uint32_t i = 0; i < 2; i++) {
        struct backend *disk = disk_open(world, url(fixture, "", 1 + i, ""), 0);
        work[i] = random_io_create(world, disk, 100 + i);
    }
    for (uint32_t round = 0; round < 20; round++) {
        random_io_run(work[round % 2], 60);
    }
    for (uint32_t i = 0; i < 2; i++) {
        random_io_verify(work[i]);
        assert_int_equal(backend_loss_generation(work[i]->backend), 0);
        backend_close(work[i]->backend);
        random_io_free(work[i]);
    }
}

/* In the middle of PDUs: by the kernel, at our end, or by the target. */
static void
cut_connection(struct fixture *fixture, bool at_our_end)
{
    char session[16];
    if (at_our_end && command("ss -K dst 127.0.0.1 dport = :%d", fixture->tgtd.port)) {
        return;
    }
    if (!command_output(session, sizeof(session),
                        "tgtadm -C %d --lld iscsi --op show --mode conn --tid 1 | "
                        "sed -n 's/Session: //p'",
                        fixture->tgtd.control)) {
        fail_msg("the target has no session");
    }
    assert_true(command("tgtadm -C %d --lld iscsi --op delete --mode conn --tid 1 --sid %s --cid 0",
                        fixture->tgtd.control, session));
}

/* The connection breaks, the target does not: everything is sent again, nothing was lost. */
static void
test_connection_cut(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    struct lun_disk *lun = disk->state;
    struct random_io *work = random_io_create(world, disk, 7);
    for (uint32_t round = 0; round < 8; round++) {
        random_io_run(work, 150);
        cut_connection(fixture, round % 2 == 0);
        random_io_run(work, 30);
    }
    random_io_verify(work);
    assert_true(lun->sessions >= 1 + 8);
    /* Each new session was greeted with 29/00; the witness disproved it (L6, L7). */
    assert_true(lun->witness_armed);
    assert_int_equal(backend_loss_generation(disk), 0);
    random_io_free(work);
    backend_close(disk);
}

/* The target dies and comes back without its registrations: unflushed writes count as lost. */
static void
test_target_killed_under_load(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    struct random_io *work = random_io_create(world, disk, 8);
    uint8_t *last = buffer_new(4096, 2);
    work->tolerate_flush_errors = true; /* B5: those in flight at a loss fail */
    work->size_bytes -= 4096;
    for (uint32_t round = 0; round < 4; round++) {
        uint64_t generation = backend_loss_generation(disk);
        random_io_run(work, 200);
        /* No FLUSH that is under way covers this one, so there is something to lose. */
        assert_int_equal(io_do(world, disk, BACKEND_WRITE, work->size_bytes, last, 4096), 0);
        tgtd_kill(&fixture->tgtd);
        support_pump(world, 300);
        assert_int_equal(backend_loss_generation(disk), generation); /* not known yet */
        assert_true(tgtd_start(&fixture->tgtd, LUN_BYTES));
        random_io_run(work, 50);
        random_io_drain(work);
        assert_int_equal(backend_loss_generation(disk), generation + 1);
    }
    random_io_verify(work); /* this target keeps its data in the kernel: nothing is wrong */
    random_io_free(work);
    free(last);

    /* With everything flushed, a reset costs nothing. */
    uint64_t generation = backend_loss_generation(disk);
    uint8_t *data = buffer_new(4096, 1);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    assert_int_equal(io_do(world, disk, BACKEND_FLUSH, 0, NULL, 0), 0);
    tgtd_kill(&fixture->tgtd);
    assert_true(tgtd_start(&fixture->tgtd, LUN_BYTES));
    assert_int_equal(io_do(world, disk, BACKEND_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(backend_loss_generation(disk), generation);
    free(data);
    backend_close(disk);
}

static void
test_hang_and_go_on(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    uint8_t *data = buffer_new(1 << 20, 3);
    uint8_t *back = buffer_new(1 << 20, 4);
    struct test_io io;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    kill(fixture->tgtd.pid, SIGSTOP);
    io_start(world, disk, &io, BACKEND_WRITE, 0, data, 1 << 20);
    io.io.timeout_ns = 200 * NS_PER_MS;
    uint64_t end_ms = support_now_ms() + 20000;
    while (io.overdue_calls == 0 && support_now_ms() < end_ms) {
        support_pump(world, 20);
    }
    support_pump(world, 400);
    assert_false(io.ended);
    assert_int_equal(io.overdue_calls, 1);
    kill(fixture->tgtd.pid, SIGCONT);
    assert_int_equal(io_wait(world, &io), 0);
    assert_int_equal(io.overdue_calls, 1);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 1 << 20), 0);
    assert_memory_equal(back, data, 1 << 20);
    backend_close(disk);
    free(data);
    free(back);
}

/* A hang that outlasts the NOPs, and then the patience with reconnecting. */
static void
test_outage(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    uint8_t *data = buffer_new(1 << 20, 5);
    uint8_t *back = buffer_new(1 << 20, 6);
    struct test_io write, read, flush, late;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, "?nop_interval=1&reconnect=2"), 0);
    struct lun_disk *lun = disk->state;
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 4096), 0);
    kill(fixture->tgtd.pid, SIGSTOP);
    io_start(world, disk, &write, BACKEND_WRITE, 0, data, 1 << 20);
    io_start(world, disk, &read, BACKEND_READ, 4 << 20, back, 1 << 20);
    io_start(world, disk, &flush, BACKEND_FLUSH, 0, NULL, 0);
    uint64_t generation = backend_loss_generation(disk);
    uint64_t end_ms = support_now_ms() + 20000;
    while (!lun->is_down && support_now_ms() < end_ms) {
        support_pump(world, 20);
    }
    assert_true(lun->is_down);
    while (!(read.ended && flush.ended) && support_now_ms() < end_ms) {
        support_pump(world, 20);
    }
    /* What cannot take effect any more has failed; the write may, and has not. */
    assert_true(read.ended && flush.ended);
    assert_int_equal(read.io.op.result, -EHOSTDOWN);
    assert_int_equal(flush.io.op.result, -EHOSTDOWN);
    assert_int_equal(backend_loss_generation(disk), generation + 1);
    assert_false(write.ended);
    io_start(world, disk, &late, BACKEND_WRITE, 8 << 20, data, 4096);
    assert_int_equal(io_wait(world, &late), -EHOSTDOWN);
    /* Back again. */
    kill(fixture->tgtd.pid, SIGCONT);
    assert_int_equal(io_wait(world, &write), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, back, 1 << 20), 0);
    assert_memory_equal(back, data, 1 << 20);
    assert_false(lun->is_down);
    backend_close(disk);
    free(data);
    free(back);
}

/* Another disk behind the same address must not get our writes. */
static void
test_stranger_at_our_address(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    uint8_t *data = buffer_new(4096, 5);
    struct test_io io;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, "?reconnect=1"), 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    tgtd_kill(&fixture->tgtd);
    assert_true(tgtd_start(&fixture->tgtd, LUN_BYTES));
    assert_true(command("tgtadm -C %d --lld iscsi --op update --mode logicalunit --tid 1 --lun 1 "
                        "--params scsi_id=stranger",
                        fixture->tgtd.control));
    io_start(world, disk, &io, BACKEND_WRITE, 4096, data, 4096);
    support_pump(world, 3000);
    uint8_t *there = buffer_new(4096, 9);
    char path[384];
    snprintf(path, sizeof(path), "%s/lun1", fixture->tgtd.directory);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    fseek(file, 4096, SEEK_SET);
    assert_int_equal(fread(there, 1, 4096, file), 4096);
    fclose(file);
    for (uint32_t i = 0; i < 4096; i++) {
        assert_int_equal(there[i], 0);
    }
    /* It returns. */
    tgtd_kill(&fixture->tgtd);
    assert_true(tgtd_start(&fixture->tgtd, LUN_BYTES));
    int result = io_wait(world, &io);
    assert_true(result == 0 || result == -EHOSTDOWN);
    uint64_t end_ms = support_now_ms() + 10000;
    while ((result = io_do(world, disk, BACKEND_WRITE, 4096, data, 4096)) == -EHOSTDOWN &&
           support_now_ms() < end_ms) {
        support_pump(world, 50);
    }
    assert_int_equal(result, 0);
    backend_close(disk);
    free(data);
    free(there);
}

/* Whether the unflushed writes of a process that died are still there. */
static void
test_kept_unflushed(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    assert_false(disk->properties.kept_unflushed); /* never seen before */
    /* Die: the connection ends without a logout, the registration stays. */
    struct lun_disk *lun = disk->state;
    assert_true(lun->witness_armed);
    lun_session_drop(lun);
    backend_close(disk);
    disk = disk_open(world, url(fixture, "", 1, ""), 0);
    assert_true(disk->properties.kept_unflushed);
    lun_session_drop(disk->state);
    backend_close(disk);
    tgtd_kill(&fixture->tgtd);
    assert_true(tgtd_start(&fixture->tgtd, LUN_BYTES));
    disk = disk_open(world, url(fixture, "", 1, ""), 0);
    assert_false(disk->properties.kept_unflushed);
    backend_close(disk);
}

/* The owner has a thread of its own; I/O from another reactor, closing from this thread. */
static void
test_owner_thread(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct reactor_options options = { .id = 5, .cpu = -1 };
    struct reactor *owner = NULL;
    struct backend *disk = NULL;
    struct error error = { 0 };
    uint8_t *data = buffer_new(1 << 20, 1);
    uint8_t *back = buffer_new(1 << 20, 2);

    start(fixture);
    assert_int_equal(reactor_create(world->platform, &options, &owner, &error), 0);
    assert_int_equal(reactor_start(owner, &error), 0);
    if (backend_open(world->platform, owner, url(fixture, "", 1, ""), 0, &disk, &error) < 0) {
        fail_msg("%s", error.message);
    }
    struct random_io *work = random_io_create(world, disk, 77);
    random_io_run(work, 500);
    random_io_verify(work);
    random_io_free(work);
    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_WRITE, 0, data, 1 << 20), 0);
    assert_int_equal(backend_refresh(disk, &error), 0);
    assert_int_equal(backend_sync_io(world->reactor, disk, BACKEND_READ, 0, back, 1 << 20), 0);
    assert_memory_equal(back, data, 1 << 20);
    backend_close(disk);
    reactor_stop(owner);
    reactor_join(owner);
    reactor_destroy(owner);
    free(data);
    free(back);
}

/* ---- another initiator at the same LUN ---- */

static struct iscsi_context *
stranger_connect(struct fixture *fixture)
{
    char portal[64];
    struct iscsi_context *context = iscsi_create_context("iqn.2026-11.io.volmgr.test:another-host");
    assert_non_null(context);
    snprintf(portal, sizeof(portal), "127.0.0.1:%d", fixture->tgtd.port);
    iscsi_set_targetname(context, fixture->tgtd.target);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    assert_int_equal(iscsi_full_connect_sync(context, portal, 1), 0);
    return context;
}

static void
stranger_disconnect(struct iscsi_context *context)
{
    iscsi_logout_sync(context);
    iscsi_destroy_context(context);
}

/* Its resets end our commands without a word, but not what was written. */
static void
test_reset_by_another_host(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    struct lun_disk *lun = disk->state;
    struct random_io *work = random_io_create(world, disk, 12);
    struct iscsi_context *stranger = stranger_connect(fixture);
    for (uint32_t round = 0; round < 5; round++) {
        random_io_run(work, 100);
        assert_int_equal(iscsi_task_mgmt_lun_reset_sync(stranger, 1), 0);
        random_io_run(work, 60);
    }
    random_io_verify(work);
    assert_true(lun->sessions >= 1 + 5); /* each was noticed */
    assert_int_equal(backend_loss_generation(disk), 0);
    stranger_disconnect(stranger);
    random_io_free(work);
    backend_close(disk);
}

static void
persistent_reserve(struct iscsi_context *stranger, int action, uint64_t key, uint64_t new_key)
{
    struct scsi_persistent_reserve_out_basic parameters = {
        .reservation_key = key,
        .service_action_reservation_key = new_key,
    };
    struct scsi_task *task = iscsi_persistent_reserve_out_sync(
        stranger, 1, action, 0, SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS, &parameters);
    assert_non_null(task);
    assert_int_equal(task->status, SCSI_STATUS_GOOD);
    scsi_free_scsi_task(task);
}

/*
 * A reset that took the witness with it, while the connection stays: the first commands are told,
 * the flush right behind them is not, and must not be believed (B5).
 */
static void
test_flush_behind_a_reset(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    uint8_t *data = buffer_new(4096, 1);
    struct test_io reads[6];
    struct test_io flush;

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    struct iscsi_context *stranger = stranger_connect(fixture);
    persistent_reserve(stranger, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 4711);
    persistent_reserve(stranger, SCSI_PERSISTENT_RESERVE_CLEAR, 4711, 0);
    assert_int_equal(iscsi_task_mgmt_lun_reset_sync(stranger, 1), 0);
    stranger_disconnect(stranger);
    for (uint32_t i = 0; i < ARRAY_SIZE(reads); i++) {
        io_start(world, disk, &reads[i], BACKEND_READ, 4096, data, 4096);
    }
    io_start(world, disk, &flush, BACKEND_FLUSH, 0, NULL, 0);
    /* All are sent in one pass, and all answers are there before the first is looked at. */
    reactor_pass(world->reactor, false, 0);
    usleep(100000);
    assert_int_equal(io_wait(world, &flush), -EIO);
    assert_int_equal(backend_loss_generation(disk), 1);
    for (uint32_t i = 0; i < ARRAY_SIZE(reads); i++) {
        assert_int_equal(io_wait(world, &reads[i]), 0);
    }
    assert_int_equal(io_do(world, disk, BACKEND_FLUSH, 0, NULL, 0), 0);
    backend_close(disk);
    free(data);
}

static void
test_probe_disturbs_nobody(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct error error = { 0 };
    uint8_t *data = buffer_new(4096, 1);

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    struct lun_disk *lun = disk->state;
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    struct backend *probe = disk_open(world, url(fixture, "", 1, ""), BACKEND_OPEN_PROBE);
    assert_int_equal(io_do(world, probe, BACKEND_READ, 0, data, 4096), 0);
    backend_close(probe);
    assert_int_equal(backend_refresh(disk, &error), 0);
    assert_int_equal(io_do(world, disk, BACKEND_READ, 0, data, 4096), 0);
    assert_int_equal(lun->sessions, 1);
    backend_close(disk);
    free(data);
}

struct resetting {
    pthread_t thread;
    struct fixture *fixture;
    bool stop; /* atomic */
};

static void *
reset_again_and_again(void *argument)
{
    struct resetting *resetting = argument;
    struct iscsi_context *stranger = stranger_connect(resetting->fixture);
    while (!__atomic_load_n(&resetting->stop, __ATOMIC_ACQUIRE)) {
        iscsi_task_mgmt_lun_reset_sync(stranger, 1);
        usleep(3000);
    }
    stranger_disconnect(stranger);
    return NULL;
}

/* One command at a time: nothing follows it that would be told of the reset that ended it. */
static void
test_reset_of_a_lonely_command(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    struct resetting resetting = { .fixture = fixture };
    uint8_t *data = buffer_new(1 << 20, 1);
    uint8_t *back = buffer_new(1 << 20, 2);

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, "?nop_interval=1"), 0);
    assert_int_equal(pthread_create(&resetting.thread, NULL, reset_again_and_again, &resetting), 0);
    for (uint32_t i = 0; i < 30; i++) {
        uint64_t at = (uint64_t)(i % 16) << 20;
        struct test_io io;
        buffer_fill(data, 1 << 20, i);
        /* The target finds the command and the reset at the same time. */
        kill(fixture->tgtd.pid, SIGSTOP);
        io_start(world, disk, &io, BACKEND_WRITE, at, data, 1 << 20);
        support_pump(world, 10);
        kill(fixture->tgtd.pid, SIGCONT);
        assert_int_equal(io_wait(world, &io), 0);
        assert_int_equal(io_do(world, disk, BACKEND_READ, at, back, 1 << 20), 0);
        assert_memory_equal(back, data, 1 << 20);
    }
    __atomic_store_n(&resetting.stop, true, __ATOMIC_RELEASE);
    pthread_join(resetting.thread, NULL);
    assert_int_equal(backend_loss_generation(disk), 0);
    backend_close(disk);
    free(data);
    free(back);
}

static void
test_reserved_by_another_host(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    uint8_t *data = buffer_new(4096, 1);

    start(fixture);
    struct backend *disk = disk_open(world, url(fixture, "", 1, ""), 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    struct iscsi_context *stranger = stranger_connect(fixture);
    persistent_reserve(stranger, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 4711);
    persistent_reserve(stranger, SCSI_PERSISTENT_RESERVE_RESERVE, 4711, 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), -EBUSY);
    persistent_reserve(stranger, SCSI_PERSISTENT_RESERVE_RELEASE, 4711, 0);
    assert_int_equal(io_do(world, disk, BACKEND_WRITE, 0, data, 4096), 0);
    stranger_disconnect(stranger);
    backend_close(disk);
    free(data);
}

/* Closing on the owner itself, as a program without other threads does. */
struct closing {
    struct message message;
    struct backend *disk;
    bool closed;
};

static void
close_here(struct message *message)
{
    struct closing *closing = container_of(message, struct closing, message);
    backend_close(closing->disk);
    closing->closed = true;
}

static void
test_close_on_owner(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    uint8_t *data = buffer_new(4096, 1);

    start(fixture);
    for (uint32_t round = 0; round < 3; round++) {
        struct closing closing = { .disk = disk_open(world, url(fixture, "", 1, ""), 0) };
        if (round > 0) {
            assert_int_equal(io_do(world, closing.disk, BACKEND_WRITE, 0, data, 4096), 0);
        }
        reactor_send(world->reactor, &closing.message, close_here);
        while (!closing.closed) {
            support_pump(world, 1);
        }
    }
    free(data);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_luns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connection_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target_killed_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hang_and_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stranger_at_our_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kept_unflushed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owner_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_by_another_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_behind_a_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_probe_disturbs_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_of_a_lonely_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved_by_another_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_on_owner, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
