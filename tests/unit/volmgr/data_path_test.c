/* SPDX-License-Identifier: Apache-2.0 */
/* Edges of the data path and of starts that random loads meet seldom or never. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/guard.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"
#include "volmgr/control_impl.h"

enum {
    BLOCK = 4 * KIB,
    MANY_VOLUMES = 200,
};

static const char *const ONE[] = { "/d/0", NULL };

static struct bench *
bench_start(uint64_t disk_bytes)
{
    struct bench *bench = bench_create(11, 1);

    bench_disk(bench, ONE[0], disk_bytes);
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
    return bench;
}

static struct volume *
make_volume(struct bench *bench, const char *path, uint64_t size_bytes)
{
    struct export_lookup lookup;

    assert_int_equal(bench_make_volume(bench, path, size_bytes), 0);
    assert_int_equal(bench_make_export(bench, path), 0);
    assert_int_equal(bench_lookup(bench, 0, path, &lookup), 0);
    return lookup.ret_volume;
}

static void
bench_end(struct bench *bench)
{
    assert_int_equal(bench_shutdown(bench), 0);
    bench_free(bench);
}

/* Bytes beside a discarded range stay, also within its first and last block (P1). */
static void
a_discard_leaves_the_rest_of_a_block_alone(void **state)
{
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *volume = make_volume(bench, "p/v", 8 * MIB);

    assert_int_equal(bench_fill(bench, volume, 0, 4 * BLOCK, 1), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 512, NULL, 1024), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, BLOCK, NULL, 512), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, 3 * BLOCK - 512, NULL, 1024), 0);
    assert_true(bench_check(bench, volume, 0, 4 * BLOCK, 1));
    bench_release(bench, volume);
    bench_end(bench);
}

/* So many that pages of the same number meet in one chain of the cache's table. */
static void
map_pages_of_many_volumes_are_told_apart(void **state)
{
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *volumes[MANY_VOLUMES];

    for (uint32_t i = 0; i < MANY_VOLUMES; i++) {
        char path[32];
        snprintf(path, sizeof(path), "p/v%u", i);
        volumes[i] = make_volume(bench, path, MIB);
        assert_int_equal(bench_fill(bench, volumes[i], 0, BLOCK, (uint8_t)i), 0);
    }
    for (uint32_t i = 0; i < MANY_VOLUMES; i++) {
        assert_true(bench_check(bench, volumes[i], 0, BLOCK, (uint8_t)i));
        bench_release(bench, volumes[i]);
    }
    bench_end(bench);
}

/*
 * The disk has lost writes, and nobody on the volume's reactor has met that yet: the flush is good,
 * and what it was to make durable is not there (F2).
 */
static void
a_good_flush_after_a_loss_that_nobody_met_fails(void **state)
{
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *volume = make_volume(bench, "p/v", 8 * MIB);
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);

    assert_int_equal(bench_fill(bench, volume, 0, BLOCK, 1), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(bench_fill(bench, volume, BLOCK, BLOCK, 1), 0);
    guard_raise_loss(volume->pool->disks[0]->backend);
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, BLOCK, data, BLOCK), -EIO);
    assert_true(bench_check(bench, volume, 0, BLOCK, 1));
    assert_int_equal(bench_io(bench, volume, VOLUME_FLUSH, 0, NULL, 0), 0);
    free(data);
    bench_release(bench, volume);
    bench_end(bench);
}

/* What a host sends that has not heard yet that the volume has become smaller. */
static void
a_request_behind_the_new_end_is_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *volume = make_volume(bench, "p/v", 8 * MIB);
    uint8_t *data = aligned_alloc(BLOCK, 2 * BLOCK);

    memset(data, 1, 2 * BLOCK);
    assert_int_equal(bench_resize(bench, "p/v", 4 * MIB), 0);
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t at = 4 * MIB - (i == 0 ? BLOCK : 0); /* across the end, and behind it */
        assert_int_equal(bench_io(bench, volume, VOLUME_READ, at, data, 2 * BLOCK), -ENXIO);
        assert_int_equal(bench_io(bench, volume, VOLUME_WRITE, at, data, 2 * BLOCK), -ENXIO);
        assert_int_equal(bench_io(bench, volume, VOLUME_DISCARD, at, NULL, 2 * BLOCK), -ENXIO);
    }
    assert_int_equal(bench_resize(bench, "p/v", 8 * MIB), 0);
    assert_int_equal(bench_io(bench, volume, VOLUME_READ, 4 * MIB - BLOCK, data, 2 * BLOCK), 0);
    for (uint32_t i = 0; i < 2 * BLOCK; i++) {
        assert_int_equal(data[i], 0);
    }
    free(data);
    bench_release(bench, volume);
    bench_end(bench);
}

/* Whether the failed one is durable is not known, and a later one would only seem to be. */
static void
nothing_is_committed_behind_a_failed_commit(void **state)
{
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *volumes[2] = { make_volume(bench, "p/a", MIB), make_volume(bench, "p/b", MIB) };
    const struct pool *pool = volumes[0]->pool;

    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(bench_fill(bench, volumes[i], 0, BLOCK, 1), 0);
        assert_int_equal(bench_io(bench, volumes[i], VOLUME_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(bench_fill(bench, volumes[i], BLOCK, BLOCK, 1), 0);
    }
    sim_store_fail(bench->sim, "p", SIM_STORE_COMMIT, 0, 1, EIO);
    assert_true(bench_io(bench, volumes[0], VOLUME_FLUSH, 0, NULL, 0) < 0);
    uint64_t groups = pool->committer.groups;
    assert_true(bench_io(bench, volumes[1], VOLUME_FLUSH, 0, NULL, 0) < 0);
    assert_int_equal(pool->committer.groups, groups);
    assert_true(bench_check(bench, volumes[1], 0, 2 * BLOCK, 1)); /* readable still */
    bench_kill(bench);
    bench_free(bench);
}

/* ---- what is left of a run that died ---- */

/* The first record of this branch in a ring, or NULL. */
static uint8_t *
ring_record(uint8_t *ring, size_t ring_bytes, uint64_t branch)
{
    enum {
        BRANCH_AT = 16
    };
    for (size_t at = JOURNAL_HEADER_BYTES; at + JOURNAL_RECORD_BYTES <= ring_bytes;
         at += JOURNAL_RECORD_BYTES) {
        if (get_le32(ring + at) != 0 && get_le64(ring + at + BRANCH_AT) == branch) {
            return ring + at;
        }
    }
    return NULL;
}

/* Memory that others could write: a whole record that names the grain of another volume (P12). */
static void
a_ring_that_names_a_grain_of_another_volume_is_refused(void **state)
{
    enum {
        HOME_AT = 40 /* of the entry in the record */
    };
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *mine = make_volume(bench, "p/mine", 8 * MIB);
    struct volume *other = make_volume(bench, "p/other", 8 * MIB);
    uint64_t my_branch = mine->branch.id;
    uint64_t other_branch = other->branch.id;

    assert_int_equal(bench_fill(bench, other, 0, BLOCK, 2), 0);
    assert_int_equal(bench_fill(bench, mine, 0, BLOCK, 1), 0);
    assert_int_equal(bench_io(bench, other, VOLUME_FLUSH, 0, NULL, 0), 0);
    bench_kill(bench);
    assert_int_equal(bench_volatile_count(bench), 1);
    struct sim_volatile *ring = list_first(&bench->sim->volatiles, struct sim_volatile, link);
    uint8_t *record = ring_record(ring->memory, ring->size_bytes, my_branch);
    const uint8_t *theirs = ring_record(ring->memory, ring->size_bytes, other_branch);
    assert_non_null(record);
    assert_non_null(theirs);
    memcpy(record + HOME_AT, theirs + HOME_AT, sizeof(grain_address));
    put_le32(record, crc32c(0, record + 4, JOURNAL_RECORD_BYTES - 4));
    assert_int_equal(bench_boot(bench), 0);
    assert_int_equal(bench_pool_state(bench, "p"), POOL_STATE_OFFLINE);
    bench_end(bench);
}

/* A whole page of the database whose entry has a grain of a generation to come (P12). */
static void
a_map_entry_that_cannot_be_ours_is_an_error(void **state)
{
    (void)state;
    struct bench *bench = bench_start(64 * MIB);
    struct volume *mine = make_volume(bench, "p/mine", 64 * MIB);
    struct volume *other = make_volume(bench, "p/other", 8 * MIB);
    struct byte_buffer batch = BYTE_BUFFER_INIT;
    struct byte_buffer page = BYTE_BUFFER_INIT;
    static struct map_entry entries[MAP_PAGE_ENTRIES];
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);
    uint8_t key[MAP_KEY_BYTES];

    assert_int_equal(bench_fill(bench, other, 0, BLOCK, 2), 0);
    assert_int_equal(bench_io(bench, other, VOLUME_FLUSH, 0, NULL, 0), 0);
    list_for_each(&other->shard->cache.lru, link) {
        const struct map_page *theirs = list_entry(link, struct map_page, lru_link);
        if (theirs->volume == other && theirs->entries != NULL) {
            entries[0] = theirs->entries[0];
            entries[0].home_generation++;
        }
    }
    assert_int_not_equal(entries[0].home, GRAIN_NONE);
    map_page_encode(entries, &page);
    map_key_encode(key, mine->branch.id, 1, mine->branch.current_generation);
    store_batch_put(&batch, STORE_FAMILY_MAP, key, sizeof(key), page.data, page.length_bytes);
    bench_commit(bench, &batch);
    assert_int_equal(bench_io(bench, mine, VOLUME_READ, 32 * MIB, data, BLOCK), -EIO);
    assert_int_equal(bench_io(bench, mine, VOLUME_WRITE, 32 * MIB, data, BLOCK), -EIO);
    assert_int_equal(bench_io(bench, mine, VOLUME_READ, 0, data, BLOCK), 0);
    byte_buffer_free(&batch);
    byte_buffer_free(&page);
    free(data);
    bench_kill(bench);
    bench_free(bench);
}

/* ---- what people are shown ---- */

static void
no_password_of_a_disk_is_shown(void **state)
{
    static const struct {
        const char *spec;
        const char *shown;
    } cases[] = {
        { "/dev/sdb", "/dev/sdb" },
        { "file:/d/a?size=20G", "file:/d/a" },
        { "iscsi://array:3260/iqn.2026-11.a:b/1", "iscsi://array:3260/iqn.2026-11.a:b/1" },
        { "iscsi://me%word@array/iqn.2026-11.a:b/1", "iscsi://me@array/iqn.2026-11.a:b/1" },
        { "iscsi://me%wo@rd@array/iqn.a:b/1", "iscsi://me@array/iqn.a:b/1" },
        { "iscsi://me%word@array/iqn.a:b/1?target_password=word", "iscsi://me@array/iqn.a:b/1" },
        { "iscsi://array/iqn.a:b/1?target_user=me&target_password=word",
          "iscsi://array/iqn.a:b/1" },
        { "fault:iscsi://me%word@array/iqn.a:b/1!read", "fault:iscsi://me@array/iqn.a:b/1!read" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char shown[DISK_SPEC_BYTES_MAX + 1];
        disk_spec_without_secrets(cases[i].spec, shown, sizeof(shown));
        assert_string_equal(shown, cases[i].shown);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_discard_leaves_the_rest_of_a_block_alone),
        cmocka_unit_test(map_pages_of_many_volumes_are_told_apart),
        cmocka_unit_test(a_good_flush_after_a_loss_that_nobody_met_fails),
        cmocka_unit_test(a_request_behind_the_new_end_is_refused),
        cmocka_unit_test(nothing_is_committed_behind_a_failed_commit),
        cmocka_unit_test(a_ring_that_names_a_grain_of_another_volume_is_refused),
        cmocka_unit_test(a_map_entry_that_cannot_be_ours_is_an_error),
        cmocka_unit_test(no_password_of_a_disk_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
