/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes, snapshots and clones whose contents are known, and what the comparison of any two must
 * tell. Each write bears a stamp that is never used again, so that blocks differ exactly if one of
 * them has been written since they were the same.
 */
#ifndef TESTS_UNIT_VOLMGR_CHANGES_RIG_H
#define TESTS_UNIT_VOLMGR_CHANGES_RIG_H

#include "tests/unit/volmgr/harness.h"

#include "base/random.h"
#include "base/util.h"
#include "volmgr/changes_impl.h"

enum {
    VOLUMES = 4,
    SNAPSHOTS = 10, /* of a volume */
    SECTOR = 512,
    SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR,
    HOT_GRAINS = 10,
    HOT_BLOCKS = HOT_GRAINS * BLOCKS_PER_GRAIN,
    HOT_SECTORS = HOT_BLOCKS * SECTORS_PER_BLOCK,
};

#define PAGE_BYTES (UINT64_C(1) << MAP_PAGE_SHIFT)
/* The grains that are written lie on both sides of the border of two pages. */
#define HOT_START   (PAGE_BYTES - UINT64_C(4) * GRAIN_BYTES)
#define HOT_BYTES   ((uint64_t)HOT_GRAINS * GRAIN_BYTES)
#define VOLUME_SIZE (4 * PAGE_BYTES)

struct model_snapshot {
    bool used;
    uint32_t number; /* of the name */
    uint32_t stamps[HOT_SECTORS];
};

struct model_volume {
    bool used;
    uint32_t stamps[HOT_SECTORS]; /* 0: zeroes */
    struct model_snapshot snapshots[SNAPSHOTS];
};

struct test {
    struct bench *bench;
    struct random random;
    struct model_volume volumes[VOLUMES];
    uint32_t last_stamp;
    uint32_t last_number;
    uint32_t compared;
    uint32_t refused;
    bool copies_expected;
};

#define CHANGES_DISK "/d0"

struct expected {
    bool changed[HOT_BLOCKS];
};

struct session {
    struct test *test;
    struct volume *volume;
    struct changes_open open;
    struct changes_query query;
    struct volume_status_extent extents[64];
    struct message message;
    bool done;
};

/* "p/vN@sM", or "p/vN". */
void rig_name_of(char text[static 32], uint32_t volume, const struct model_snapshot *snapshot);
/* A pool "p" without volumes. */
void changes_rig_start(struct test *test, uint64_t seed, uint32_t reactors);
void changes_rig_end(struct test *test);
/* "p/vN", exported. */
void rig_make_volume(struct test *test, uint32_t volume);
/* Look it up; bench_release(). */
struct volume *rig_hold(struct test *test, uint32_t volume);
/* Sectors of the hot region. DISCARD of whole blocks. */
void rig_change(struct test *test, uint32_t number, enum volume_operation operation, uint32_t first,
                uint32_t count);
void rig_change_randomly(struct test *test, uint32_t number);
/* NULL: there are enough. */
struct model_snapshot *rig_take(struct test *test, uint32_t volume);
void rig_drop(struct test *test, uint32_t volume, struct model_snapshot *snapshot);
/* NULL: there is none. */
struct model_snapshot *rig_any_snapshot(struct test *test, uint32_t volume);
void rig_clone(struct test *test, uint32_t from, const struct model_snapshot *snapshot,
               uint32_t to);
void rig_roll_back(struct test *test, uint32_t volume, const struct model_snapshot *snapshot);
/* Which blocks differ. */
void rig_expect(const uint32_t *from, const uint32_t *to, struct expected *ret);
/* Of one block, by its offset in the volume. */
void rig_assert_told(const struct expected *expected, uint64_t offset, bool changed);
/* The whole volume by manager_volume_diff(), in as many answers as that takes. */
void rig_compare_by_manager(struct test *test, const char *from, const char *to,
                            const struct expected *expected);
/* For session_run(): session->query, with room for all extents. */
void session_ask(struct message *message);
/* Call it on that reactor, and wait until session->done. */
void session_run(struct session *session, struct reactor *reactor, message_fn *function);
/* The status. */
int begin_session(struct test *test, struct volume *volume, const char *since,
                  struct session *session);
void end_session(struct session *session);
/* What comes must be right, and at least something. */
void ask_range(struct session *session, uint64_t offset, uint64_t length,
               const struct expected *expected);
void ask_somewhere(struct session *session, const struct expected *expected);
/* From a snapshot of one volume to another view (NULL: the head), by both interfaces. */
void rig_compare(struct test *test, uint32_t from_volume, const struct model_snapshot *from,
                 uint32_t to_volume, const struct model_snapshot *to);

#endif
