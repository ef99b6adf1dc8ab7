/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/volmgr/changes_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const DISKS[] = { CHANGES_DISK, NULL };

/* ---- the bench ---- */

void
rig_name_of(char text[static 32], uint32_t volume, const struct model_snapshot *snapshot)
{
    if (snapshot != NULL) {
        snprintf(text, 32, "p/v%u@s%u", volume, snapshot->number);
    } else {
        snprintf(text, 32, "p/v%u", volume);
    }
}

void
changes_rig_start(struct test *test, uint64_t seed, uint32_t reactors)
{
    memset(test, 0, sizeof(*test));
    random_seed(&test->random, seed);
    test->bench = bench_create(seed, reactors);
    bench_disk(test->bench, DISKS[0], 512 * MIB);
    assert_int_equal(bench_boot(test->bench), 0);
    assert_int_equal(bench_make_pool(test->bench, "p", DISKS, false), 0);
}

void
changes_rig_end(struct test *test)
{
    assert_int_equal(bench_shutdown(test->bench), 0);
    bench_free(test->bench);
}

void
rig_make_volume(struct test *test, uint32_t volume)
{
    char name[32];

    rig_name_of(name, volume, NULL);
    assert_int_equal(bench_make_volume(test->bench, name, VOLUME_SIZE), 0);
    assert_int_equal(bench_make_export(test->bench, name), 0);
    test->volumes[volume].used = true;
}

struct volume *
rig_hold(struct test *test, uint32_t volume)
{
    struct export_lookup lookup;
    char name[32];

    rig_name_of(name, volume, NULL);
    assert_int_equal(bench_lookup(test->bench, 0, name, &lookup), 0);
    return lookup.ret_volume;
}

/* Sectors of the hot region; whole blocks of them read as zeroes afterwards, for DISCARD too. */
void
rig_change(struct test *test, uint32_t number, enum volume_operation operation, uint32_t first,
           uint32_t count)
{
    struct volume *volume = rig_hold(test, number);
    uint32_t *stamps = test->volumes[number].stamps;
    uint32_t stamp = operation == VOLUME_WRITE ? ++test->last_stamp : 0;
    uint32_t *data = malloc((size_t)count * SECTOR);

    for (uint32_t i = 0; i < count * SECTOR / sizeof(*data); i++) {
        data[i] = stamp;
    }
    assert_int_equal(bench_io(test->bench, volume, operation, HOT_START + (uint64_t)first * SECTOR,
                              data, (uint64_t)count * SECTOR), 0);
    for (uint32_t i = first; i < first + count; i++) {
        stamps[i] = stamp;
    }
    free(data);
    bench_release(test->bench, volume);
}

void
rig_change_randomly(struct test *test, uint32_t number)
{
    uint32_t kind = (uint32_t)random_below(&test->random, 10);

    if (kind < 5) {
        uint32_t first = (uint32_t)random_below(&test->random, HOT_BLOCKS);
        uint32_t count = 1 + (uint32_t)random_below(&test->random, MIN(12u, HOT_BLOCKS - first));
        rig_change(test, number, VOLUME_WRITE, first * SECTORS_PER_BLOCK,
                   count * SECTORS_PER_BLOCK);
    } else if (kind < 8) {
        uint32_t first = (uint32_t)random_below(&test->random, HOT_SECTORS - 20);
        rig_change(test, number, VOLUME_WRITE, first,
                   1 + (uint32_t)random_below(&test->random, 20));
    } else {
        uint32_t first = (uint32_t)random_below(&test->random, HOT_BLOCKS);
        uint32_t count = 1 + (uint32_t)random_below(&test->random, MIN(24u, HOT_BLOCKS - first));
        rig_change(test, number, kind == 8 ? VOLUME_DISCARD : VOLUME_WRITE_ZEROES,
                   first * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK);
    }
}

struct model_snapshot *
rig_take(struct test *test, uint32_t volume)
{
    struct model_volume *model = &test->volumes[volume];
    char name[32];

    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        struct model_snapshot *snapshot = &model->snapshots[i];
        if (!snapshot->used) {
            snapshot->used = true;
            snapshot->number = ++test->last_number;
            memcpy(snapshot->stamps, model->stamps, sizeof(model->stamps));
            rig_name_of(name, volume, snapshot);
            int rc = bench_make_snapshot(test->bench, name);
            if (rc < 0) {
                fail_msg("%s: %s", name, test->bench->error.message);
            }
            return snapshot;
        }
    }
    return NULL;
}

void
rig_drop(struct test *test, uint32_t volume, struct model_snapshot *snapshot)
{
    char name[32];

    rig_name_of(name, volume, snapshot);
    int rc = bench_drop_snapshot(test->bench, name);
    if (rc < 0) {
        fail_msg("%s: %s", name, test->bench->error.message);
    }
    snapshot->used = false;
}

struct model_snapshot *
rig_any_snapshot(struct test *test, uint32_t volume)
{
    struct model_volume *model = &test->volumes[volume];
    uint32_t first = (uint32_t)random_below(&test->random, SNAPSHOTS);

    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        struct model_snapshot *snapshot = &model->snapshots[(first + i) % SNAPSHOTS];
        if (snapshot->used) {
            return snapshot;
        }
    }
    return NULL;
}

void
rig_clone(struct test *test, uint32_t from, const struct model_snapshot *snapshot, uint32_t to)
{
    char from_name[32];
    char name[32];

    rig_name_of(from_name, from, snapshot);
    rig_name_of(name, to, NULL);
    int rc = bench_make_clone(test->bench, from_name, name);
    if (rc < 0) {
        fail_msg("%s: %s", name, test->bench->error.message);
    }
    assert_int_equal(bench_make_export(test->bench, name), 0);
    test->volumes[to].used = true;
    memcpy(test->volumes[to].stamps, snapshot->stamps, sizeof(snapshot->stamps));
}

void
rig_roll_back(struct test *test, uint32_t volume, const struct model_snapshot *snapshot)
{
    char name[32];

    rig_name_of(name, volume, snapshot);
    int rc = bench_roll_back(test->bench, name);
    if (rc < 0) {
        fail_msg("%s: %s", name, test->bench->error.message);
    }
    memcpy(test->volumes[volume].stamps, snapshot->stamps, sizeof(snapshot->stamps));
}

/* ---- comparing ---- */

void
rig_expect(const uint32_t *from, const uint32_t *to, struct expected *ret)
{
    for (uint32_t block = 0; block < HOT_BLOCKS; block++) {
        size_t at = (size_t)block * SECTORS_PER_BLOCK;
        ret->changed[block] =
            memcmp(from + at, to + at, SECTORS_PER_BLOCK * sizeof(uint32_t)) != 0;
    }
}

void
rig_assert_told(const struct expected *expected, uint64_t offset, bool changed)
{
    uint64_t block = (offset - HOT_START) >> BLOCK_SHIFT;
    bool wanted = offset >= HOT_START && block < HOT_BLOCKS && expected->changed[block];

    if (changed != wanted) {
        fail_msg("block %lld is told as %s", (long long)block, changed ? "changed" : "the same");
    }
}

/* The whole volume by manager_volume_diff(), in as many answers as that takes. */
void
rig_compare_by_manager(struct test *test, const char *from, const char *to,
                       const struct expected *expected)
{
    struct volume_diff diff = { .runs_max = (uint32_t)random_below(&test->random, 6) };
    struct error error;
    uint64_t end = 0;
    uint64_t last = UINT64_MAX;

    assert_int_equal(snapshot_name_parse(from, false, &diff.from, &error), 0);
    assert_int_equal(snapshot_name_parse(to, true, &diff.to, &error), 0);
    do {
        diff.offset_bytes = end;
        int rc = bench_volume_diff(test->bench, &diff);
        if (rc < 0) {
            fail_msg("%s to %s: %s", from, to, test->bench->error.message);
        }
        assert_int_equal(diff.ret_end_bytes, VOLUME_SIZE);
        uint64_t at = end;
        for (uint32_t i = 0; i < diff.ret_count; i++) {
            const struct volume_diff_run *run = &diff.ret_runs[i];
            assert_true(run->length_bytes > 0 && run->offset_bytes >= at);
            assert_true(run->offset_bytes != last || i == 0); /* else it were one */
            for (; at < run->offset_bytes; at += BLOCK_BYTES) {
                rig_assert_told(expected, at, false);
            }
            for (; at < run->offset_bytes + run->length_bytes; at += BLOCK_BYTES) {
                rig_assert_told(expected, at, true);
            }
            last = at;
        }
        for (; at < diff.ret_next_bytes; at += BLOCK_BYTES) {
            rig_assert_told(expected, at, false);
        }
        assert_true(diff.ret_next_bytes > end);
        end = diff.ret_next_bytes;
        free(diff.ret_runs);
    } while (end < VOLUME_SIZE);
}

static void
session_opened(struct io_op *op)
{
    container_of(op, struct session, open.op)->done = true;
}

static void
session_open(struct message *message)
{
    struct session *session = container_of(message, struct session, message);
    session->open.op.done = session_opened;
    session->open.volume = session->volume;
    manager_changes_open(session->test->bench->manager, &session->open);
}

static void
session_answered(struct io_op *op)
{
    container_of(op, struct session, query.op)->done = true;
}

void
session_ask(struct message *message)
{
    struct session *session = container_of(message, struct session, message);
    session->query.op.done = session_answered;
    session->query.extents = session->extents;
    changes_query(session->open.ret_changes, &session->query);
}

static void
session_close(struct message *message)
{
    struct session *session = container_of(message, struct session, message);
    manager_changes_close(session->open.ret_changes);
    session->done = true;
}

void
session_run(struct session *session, struct reactor *reactor, message_fn *function)
{
    struct bench *bench = session->test->bench;

    session->done = false;
    sim_process_enter(bench->sim);
    reactor_send(reactor, &session->message, function);
    sim_process_leave(bench->sim);
    assert_int_equal(bench_wait(bench, &session->done), 0);
}

int
begin_session(struct test *test, struct volume *volume, const char *since, struct session *session)
{
    uint32_t reactor = (uint32_t)random_below(&test->random, test->bench->reactor_count);

    *session = (struct session){ .test = test, .volume = volume };
    snprintf(session->open.since, sizeof(session->open.since), "%s", since);
    session_run(session, test->bench->reactors[reactor], session_open);
    return session->open.op.result;
}

void
end_session(struct session *session)
{
    session_run(session, session->test->bench->reactors[0], session_close);
    assert_int_equal(sim_run_for(session->test->bench->sim, NS_PER_MS), 0); /* it is closed */
}

/* Ask for a range: what comes must be right, and at least something. */
void
ask_range(struct session *session, uint64_t offset, uint64_t length,
          const struct expected *expected)
{
    while (length > 0) {
        uint64_t told = 0;
        session->query.offset_bytes = offset;
        session->query.length_bytes = length;
        session->query.extents_max = 1 + (uint32_t)random_below(&session->test->random, 64);
        session_run(session, volume_reactor(session->volume), session_ask);
        assert_int_equal(session->query.op.result, 0);
        assert_true(session->query.ret_count > 0);
        for (uint32_t i = 0; i < session->query.ret_count; i++) {
            const struct volume_status_extent *extent = &session->extents[i];
            assert_true(extent->length_bytes > 0 && told + extent->length_bytes <= length);
            assert_true(i == 0 || extent->changed != session->extents[i - 1].changed);
            for (uint64_t at = told; at < told + extent->length_bytes; at += SECTOR) {
                rig_assert_told(expected, offset + at, extent->changed);
            }
            told += extent->length_bytes;
        }
        offset += told;
        length -= told;
    }
}

void
ask_somewhere(struct session *session, const struct expected *expected)
{
    struct random *random = &session->test->random;
    uint64_t start = HOT_START - GRAIN_BYTES;
    uint64_t first = random_below(random, (HOT_BYTES + 2 * GRAIN_BYTES) / SECTOR);
    uint64_t count = 1 + random_below(random, 400);

    ask_range(session, start + first * SECTOR, count * SECTOR, expected);
}

/* From a snapshot of one volume to another view. */
void
rig_compare(struct test *test, uint32_t from_volume, const struct model_snapshot *from,
            uint32_t to_volume, const struct model_snapshot *to)
{
    struct expected expected;
    struct session session;
    char from_name[32];
    char to_name[32];
    char since[32];

    rig_name_of(from_name, from_volume, from);
    rig_name_of(to_name, to_volume, to);
    rig_expect(from->stamps, to != NULL ? to->stamps : test->volumes[to_volume].stamps, &expected);
    rig_compare_by_manager(test, from_name, to_name, &expected);
    test->compared++;
    if (from_volume == to_volume) {
        snprintf(since, sizeof(since), "s%u", from->number);
    } else {
        snprintf(since, sizeof(since), "v%u@s%u", from_volume, from->number);
    }
    struct volume *volume = to != NULL ? bench_hold_snapshot(test->bench, to_name)
                                       : rig_hold(test, to_volume);
    assert_int_equal(begin_session(test, volume, since, &session), 0);
    ask_range(&session, 0, VOLUME_SIZE, &expected);
    for (uint32_t i = 0; i < 4; i++) {
        ask_somewhere(&session, &expected);
    }
    if (to == NULL) { /* it goes on being changed, and the session notices */
        bench_release(test->bench, volume);
        for (uint32_t i = 0; i < 2; i++) {
            rig_change_randomly(test, to_volume);
            rig_expect(from->stamps, test->volumes[to_volume].stamps, &expected);
            ask_somewhere(&session, &expected);
            ask_range(&session, 0, VOLUME_SIZE, &expected);
        }
        end_session(&session);
        return;
    }
    bench_release(test->bench, volume);
    end_session(&session);
    struct volume_name name;
    struct error error;
    assert_int_equal(snapshot_name_parse(to_name, false, &name, &error), 0);
    struct export_delete delete = { .name = name };
    snprintf(delete.protocol, sizeof(delete.protocol), "nbd");
    assert_int_equal(bench_export_delete(test->bench, &delete), 0);
}
