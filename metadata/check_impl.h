/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the check*.c files only. */
#ifndef METADATA_CHECK_IMPL_H
#define METADATA_CHECK_IMPL_H

#include "metadata/check.h"
#include "metadata/record_walk_impl.h"

/* Page versions of a branch, or links to them: how many, and what tells them from others. */
struct check_history {
    uint64_t count;
    uint64_t sum;
};

struct check_branch {
    struct branch_record record;
    struct branch_position position;
    bool has_position;
    uint32_t volumes;  /* that name it */
    uint32_t children; /* branches that fork from it */
    uint32_t snapshots; /* of it */
    uint32_t views;     /* of these, those that somebody may see */
    bool is_deleting;   /* its volume is being deleted: pages first, links later */
    bool has_ended;     /* nothing sees it any more */
    bool is_alone;      /* a line of its own, with a head, of which nothing is being removed */
    uint64_t owned_above; /* of its line: grains of generations up to it are inherited */
    struct check_history versions; /* in the maps */
    struct check_history links;
    uint64_t volume_bytes; /* size of the volume that names it */
    uint64_t owned_grains; /* counted in the maps */
    uint64_t head_grains;  /* that the newest version of each page names */
    uint64_t unseen_versions;
    int64_t counted_grains; /* by its counters */
};

struct check_snapshot {
    uint64_t branch;
    uint64_t generation;
    uint32_t dependents; /* branches that fork there */
    struct snapshot_record record;
};

struct check_extent {
    uint64_t id;
    uint64_t owner_branch;
    uint8_t state;
    size_t bits; /* where its three bitmaps begin: use bits, owned, inherited */
};

/* A grain that some version of the current page owns or inherits, by entry. */
struct check_seen {
    grain_address grain;
    uint32_t next; /* plus one; 0: none */
};

struct check_state {
    struct metadata_check *check;
    struct record_walk walk;
    enum store_family family; /* whose records are coming now; COUNT: none any more */

    bool has_pool;
    bool has_commit;
    bool is_closed;         /* the pool's last run ended cleanly */
    bool map_is_incomplete; /* pages could not be read: what they use is not known */
    bool history_is_incomplete;
    bool extents_are_incomplete;
    struct pool_record pool;
    struct disk_record *disks[POOL_DISKS_MAX]; /* NULL: none */
    uint64_t *slots[POOL_DISKS_MAX];           /* bitmap of slots in use */
    struct volume_record *volumes;
    size_t volume_count;
    struct check_branch *branches; /* in order of ids, as all arrays here */
    size_t branch_count;
    struct export_record *exports;
    size_t export_count;
    struct check_snapshot *snapshots;
    size_t snapshot_count;
    uint64_t *policies; /* ids of volumes */
    size_t policy_count;
    struct checkpoint_record checkpoints[256];
    bool has_checkpoint[256];

    uint32_t grains_per_extent;
    uint32_t bitmap_words; /* of one bitmap */
    struct check_extent *extents;
    size_t extent_count;
    uint64_t *bits;
    size_t bits_count;

    /* The page whose versions are being looked at. */
    uint64_t page_branch;
    uint64_t page_number;
    uint64_t page_generation; /* of the version before */
    uint64_t page_grains;     /* that it names */
    bool has_page;
    uint32_t seen_first[MAP_PAGE_ENTRIES]; /* plus one; 0: none */
    struct check_seen *seen;
    size_t seen_count;
    struct map_entry entries[MAP_PAGE_ENTRIES];
};

/* What a finding is about: the key of a record. */
struct check_key {
    enum store_family family;
    const uint8_t *bytes;
    uint32_t length_bytes;
};
#define CHECK_NO_KEY ((struct check_key){ 0 })

static inline struct check_key
check_item_key(const struct store_batch_item *item)
{
    return (struct check_key){ item->family, item->key, item->key_bytes };
}

void check_report(struct check_state *state, enum check_severity severity, enum check_code code,
                  bool repairable, struct check_key key, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/*
 * Room for one more element behind `count` of an array that grows in powers of two. Returns the
 * array's new place. Aborts when out of memory, as byte_buffer does.
 */
void *check_grow(void *array, size_t count, size_t element_bytes);

struct check_branch *check_find_branch(const struct check_state *state, uint64_t id);
const struct volume_record *check_find_volume(const struct check_state *state, uint64_t id);
struct check_extent *check_find_extent(const struct check_state *state, uint64_t id);
/* Whether `ancestor` is `branch` or one that it descends from. Ends in spite of loops. */
bool check_descends_from(const struct check_state *state, const struct check_branch *branch,
                         uint64_t ancestor);
/* The batch of repairs, or NULL when none is wanted. */
struct byte_buffer *check_repair(const struct check_state *state);

/* One record; then, when all of the family have been seen, what must hold among them. */
void check_report_unknown(struct check_state *state, const struct store_batch_item *item,
                          const char *what);
void check_system_item(struct check_state *state, const struct store_batch_item *item);
void check_system_end(struct check_state *state);
void check_extent_item(struct check_state *state, const struct store_batch_item *item);
void check_extent_end(struct check_state *state);
void check_map_item(struct check_state *state, const struct store_batch_item *item);
void check_map_end(struct check_state *state);
void check_history_item(struct check_state *state, const struct store_batch_item *item);
void check_history_end(struct check_state *state);
void check_add_version(struct check_history *history, uint64_t page, uint64_t version,
                       uint64_t previous);
void check_labels(struct check_state *state);

/* Of SYSTEM. False: the record is damaged. */
bool check_take_snapshot(struct check_state *state, const struct store_batch_item *item);
bool check_take_policy(struct check_state *state, const struct store_batch_item *item);
/* Volumes and branches are known. */
void check_snapshots(struct check_state *state);
/* Does a snapshot that somebody may see keep a generation in [from, to) of this branch? */
bool check_is_seen(const struct check_state *state, uint64_t branch, uint64_t from, uint64_t to);

#endif
