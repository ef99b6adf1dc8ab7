/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store of map pages in memory, and volumes on it whose data path follows the rules for
 * snapshots: what the product does with requests, seals and jobs, without I/O, one thing at a time.
 * All decisions are those of the pure modules of volmgr/.
 */
#ifndef TESTS_MODEL_SNAPSHOT_WORLD_H
#define TESTS_MODEL_SNAPSHOT_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "metadata/schema.h"
#include "volmgr/dead_versions_impl.h"
#include "volmgr/lineage_impl.h"
#include "volmgr/map_entry_impl.h"
#include "volmgr/map_version_impl.h"
#include "volmgr/snapshot_space_impl.h"

enum {
    WORLD_PAGES = 6, /* of each volume */
    WORLD_ENTRIES = 4, /* of each page */
    WORLD_BLOCKS = WORLD_PAGES * WORLD_ENTRIES * BLOCKS_PER_GRAIN,
    WORLD_GRAINS = 1 << 16,
    WORLD_VOLUMES = 64,
    WORLD_WINDOWS = 8, /* writes in flight */
};

/* What is on the disk. */
struct world_grain {
    bool used;
    uint32_t stamps[BLOCKS_PER_GRAIN]; /* content: each block that is written gets a new one */
};

struct world_version {
    uint32_t number;
    struct map_entry entries[WORLD_ENTRIES];
};

struct world_page {
    struct world_version *versions; /* by number */
    uint32_t count;
    uint32_t capacity;
};

/* All that is stored of one branch. */
struct world_branch {
    struct lineage_branch *branch;
    struct world_page pages[WORLD_PAGES];
    struct version_link *links; /* in order */
    uint32_t link_count;
    uint32_t link_capacity;
    struct space_cells cells;
};

/* A page of a volume's head in the cache. */
struct head_page {
    bool loaded;
    struct map_version version;
    struct map_entry entries[WORLD_ENTRIES];
    bool fresh[WORLD_ENTRIES]; /* the home has been taken, and no record names it */
    uint32_t windows;          /* in flight */
    uint32_t late;             /* of those, begun before the pending view */
    uint32_t frozen_version;   /* of the pending view, when the head has gone on; 0: not yet */
    uint32_t frozen_previous;
};

struct view_node;

struct world_volume {
    bool exists;
    struct lineage_branch *branch;
    struct head_page pages[WORLD_PAGES];
    uint32_t pending; /* generation that is being kept; 0: none */
    struct view_node *head;
    struct view_node *pending_node;
};

/* A write between ALLOC and MAP. */
struct world_window {
    struct world_volume *volume; /* NULL: not in use */
    uint32_t page;
    uint32_t entry;
    uint16_t mask;
    uint32_t generation;
    grain_address home;
    bool copies; /* its home is attached only at MAP */
    bool late;
};

/* Told of each block whose content as seen by the head (and the pending view) has changed. */
typedef void world_content_fn(void *context, struct world_volume *volume, uint32_t block,
                              uint32_t stamp, bool in_pending);

struct world {
    struct random random;
    struct lineage lineage;
    struct world_branch **branches; /* by id */
    uint64_t branch_capacity;
    uint64_t next_branch;
    struct world_grain *grains; /* by address; 0 is none */
    grain_address *free_grains;
    uint32_t free_count;
    uint32_t used_count;
    uint32_t next_stamp;
    struct world_volume volumes[WORLD_VOLUMES];
    struct world_window windows[WORLD_WINDOWS];
    struct lineage_job *jobs;
    uint32_t job_count;
    uint32_t job_capacity;
    world_content_fn *content;
    void *content_context;
    uint64_t copied_blocks; /* statistics */
    uint64_t late_finished;
    uint64_t versions_reclaimed;
};

void world_init(struct world *world, uint64_t seed);
void world_free(struct world *world);

/* ---- snapshot_store.c: what is stored ---- */

struct world_branch *world_stored(const struct world *world, const struct lineage_branch *branch);
struct world_branch *world_add_stored(struct world *world, struct lineage_branch *branch);
void world_remove_stored(struct world *world, struct lineage_branch *branch);
grain_address world_take_grain(struct world *world);
void world_free_grain(struct world *world, grain_address grain);
/* The version of exactly this number in the branch's key space; NULL: there is none. */
struct world_version *world_find_version(const struct world *world,
                                         const struct lineage_branch *branch, uint32_t page,
                                         uint32_t number);
/* The one behind a number, in the same key space. */
struct world_version *world_next_version(const struct world *world,
                                         const struct lineage_branch *branch, uint32_t page,
                                         uint32_t number);
/* Follow the steps of a look-up; the step then tells where it was found. NULL: an empty page. */
struct world_version *world_look_up(const struct world *world, struct lineage_step *step,
                                    uint32_t page);
/* As a view (or LINEAGE_FOREVER: what is stored for the head) sees it. */
struct world_version *world_resolve(const struct world *world, struct lineage_branch *branch,
                                    uint32_t generation, uint32_t page);
/* The next older version of the line, or what it inherits; 0: none. */
uint32_t world_previous(const struct world *world, struct lineage_branch *branch, uint32_t number,
                        uint32_t page, struct world_version **ret_version);
void world_put_version(struct world *world, struct lineage_branch *branch, uint32_t page,
                       uint32_t number, uint32_t previous, const struct map_entry *entries);
/* With its link. */
void world_remove_version(struct world *world, struct lineage_branch *branch, uint32_t page,
                          uint32_t number);
void world_add_link(struct world_branch *stored, const struct version_link *link);
void world_remove_link(struct world_branch *stored, const struct version_link *link);
/* First link that is not below the cursor; NULL: none. */
const struct version_link *world_find_link(const struct world_branch *stored,
                                           const struct version_link *cursor);
struct space_source world_space(struct world *world);
/* What the content of a block is in an entry; 0: zeroes. */
uint32_t world_read_block(const struct world *world, const struct map_entry *entry,
                          uint32_t block);

/* ---- snapshot_path.c: the data path of a head ---- */

uint32_t volume_frozen(const struct world_volume *volume);
struct head_page *volume_page(struct world *world, struct world_volume *volume, uint32_t page);
/* Begin a write; finishes those before it that it would wait for. False: no room. */
bool volume_write_begin(struct world *world, struct world_volume *volume, uint32_t page,
                        uint32_t entry, uint16_t mask);
void window_finish(struct world *world, struct world_window *window, bool success);
void volume_finish_windows(struct world *world, struct world_volume *volume);
void volume_zero(struct world *world, struct world_volume *volume, uint32_t page, uint32_t entry,
                 uint16_t mask);
void volume_merge(struct world *world, struct world_volume *volume, uint32_t page,
                  uint32_t entry);
void volume_seal(struct world *world, struct world_volume *volume);
/* Forget what is clean and not in use. */
void volume_evict(struct world *world, struct world_volume *volume);
void volume_bump(struct world *world, struct world_volume *volume);
/* False: late writes are still in flight. */
bool volume_keep(struct world *world, struct world_volume *volume);
void volume_abandon(struct world *world, struct world_volume *volume);
bool volume_has_late(const struct world *world, const struct world_volume *volume);

/* ---- snapshot_jobs.c ---- */

struct lineage_jobs world_jobs(struct world *world);
/* Work on one version. False: there is nothing to do. */
bool world_job_step(struct world *world);
void world_drain(struct world *world);
void world_flatten(struct world *world, struct world_volume *volume);
void world_promote(struct world *world, struct world_volume *volume);
/* Branches that have ended or are empty leave; no job is waiting. */
void world_tidy(struct world *world);

#endif
