/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool whose branches and snapshots are made by hand, between two runs of the manager: records in
 * its database, as the operations on snapshots write them. It knows what every head and every
 * snapshot must show, and compares all of it through the real data path.
 */
#ifndef TESTS_UNIT_VOLMGR_LINEAGE_RIG_H
#define TESTS_UNIT_VOLMGR_LINEAGE_RIG_H

#include "tests/unit/volmgr/harness.h"

#include "base/random.h"
#include "volmgr/core_impl.h"

enum {
    LRIG_GRAINS = 12,
    LRIG_BLOCKS = LRIG_GRAINS * 16,
    LRIG_VOLUMES = 8,
    LRIG_VIEWS = 40,
    LRIG_BRANCHES = 64,
};

/* A stamp for each block; 0: zeroes. */
struct lrig_content {
    uint32_t stamps[LRIG_BLOCKS];
};

struct lrig_volume {
    uint64_t id; /* 0: none */
    char name[8];
    struct lrig_content content;
};

struct lrig_view {
    uint64_t branch; /* 0: none */
    uint32_t generation;
    struct lrig_content content;
};

/* What is in the database. */
struct lrig_records {
    struct pool_record pool;
    struct branch_record branches[LRIG_BRANCHES];
    uint64_t mapped[LRIG_BRANCHES]; /* of the positions */
    struct lineage_branch *lineage_of[LRIG_BRANCHES];
    uint32_t branch_count;
    struct snapshot_record snapshots[LRIG_VIEWS];
    uint64_t snapshot_branch[LRIG_VIEWS];
    uint32_t snapshot_generation[LRIG_VIEWS];
    uint32_t snapshot_count;
    struct volume_record volumes[LRIG_VOLUMES];
    uint32_t volume_count;
    struct lineage lineage;
};

struct lrig {
    struct bench *bench;
    struct random random;
    struct lrig_volume volumes[LRIG_VOLUMES];
    struct lrig_view views[LRIG_VIEWS];
    uint32_t last_stamp;
    struct lrig_records records; /* lrig_records_read() */
    struct byte_buffer batch;
    uint8_t *data;
};

/* A pool with the volume "v1"; the manager runs. */
void lrig_create(struct lrig *rig, uint64_t seed, uint32_t reactor_count);
void lrig_free(struct lrig *rig);
void lrig_boot(struct lrig *rig);
void lrig_shutdown(struct lrig *rig);

/* ---- while the manager runs ---- */

struct volume *lrig_head(struct lrig *rig, const char *name);
/* Write blocks, or discard them, in the head of volume `which`. */
void lrig_write(struct lrig *rig, uint32_t which, uint32_t block, uint32_t count);
void lrig_discard(struct lrig *rig, uint32_t which, uint32_t block, uint32_t count);
void lrig_flush(struct lrig *rig, uint32_t which);
uint32_t lrig_random_volume(struct lrig *rig);
/* Some change to a random head. */
void lrig_change(struct lrig *rig);
/* Every head and every view, block by block; views refuse writes. */
void lrig_compare(struct lrig *rig);

/* ---- while it does not ---- */

/* Everything below is between these two. */
void lrig_records_begin(struct lrig *rig);
void lrig_records_end(struct lrig *rig);
/* Instead of that: branches and snapshots are written as the records are now, fit or not. */
void lrig_records_end_as_they_are(struct lrig *rig);
uint32_t lrig_branch_of(const struct lrig *rig, uint64_t id);
/* A snapshot of the head of volume `which`; the index of the view. */
uint32_t lrig_snapshot(struct lrig *rig, uint32_t which);
/* A clone at a view; the index of the volume. */
uint32_t lrig_clone(struct lrig *rig, uint32_t view);
/* Roll the volume of the view's branch back to it. False: that branch is not its volume's past. */
bool lrig_rollback(struct lrig *rig, uint32_t which, uint32_t view);
void lrig_delete_view(struct lrig *rig, uint32_t view);

#endif
