/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checker: does the database agree with itself, and with the disks' labels.
 *
 * THEORY OF OPERATION
 *
 * One walk over all records, in the order SYSTEM, EXTENT, MAP, HISTORY, of a store that does not
 * change (it is opened read-only, or read through a snapshot). What must be compared across records
 * is kept in memory: all SYSTEM records, and per extent its use bits and two bitmaps of the grains
 * that the maps name: about 100 bytes for an extent of 4 MiB. Map pages are looked at one by one.
 *
 * A grain belongs to the line in whose generations it was allocated (a branch, with those that it
 * continues): an entry whose generation lies above the fork of the line's lowest branch *owns* the
 * grain, one below *inherits* it. So each grain is owned by the versions of one page of one line,
 * and every inherited grain has an owner among the ancestors.
 *
 * Versions that nothing sees are on their way out while a record says so: that of a snapshot that
 * is being deleted, or of a branch without a head. Only others are reported.
 *
 * The checker changes nothing. For what it calls repairable it can give the batch that repairs it.
 */
#ifndef METADATA_CHECK_H
#define METADATA_CHECK_H

#include "metadata/label.h"
#include "metadata/schema.h"
#include "metadata/store.h"

enum check_severity {
    CHECK_WARNING, /* space or tidiness: no data is at risk */
    CHECK_ERROR,   /* data is damaged, or would be by going on */
    CHECK_SEVERITY_COUNT
};

#define CHECK_CODES(X)                                                                             \
    X(UNREADABLE, "unreadable")                                                                    \
    X(RECORD_UNKNOWN, "record-unknown")                                                            \
    X(RECORD_DAMAGED, "record-damaged")                                                            \
    X(POOL_MISSING, "pool-missing")                                                                \
    X(COMMIT_MISSING, "commit-missing")                                                            \
    X(COUNTER_BEHIND, "counter-behind")                                                            \
    X(VOLUME_NAME_TWICE, "volume-name-twice")                                                      \
    X(VOLUME_BRANCH_WRONG, "volume-branch-wrong")                                                  \
    X(BRANCH_PARENT_WRONG, "branch-parent-wrong")                                                  \
    X(BRANCH_FAMILY_WRONG, "branch-family-wrong")                                                  \
    X(BRANCH_ORPHAN, "branch-orphan")                                                              \
    X(FORK_NOT_KEPT, "fork-not-kept")                                                              \
    X(SNAPSHOT_ORPHAN, "snapshot-orphan")                                                          \
    X(SNAPSHOT_GENERATION_WRONG, "snapshot-generation-wrong")                                      \
    X(SNAPSHOT_TWICE, "snapshot-twice")                                                            \
    X(SNAPSHOT_STRAY, "snapshot-stray")                                                            \
    X(POLICY_ORPHAN, "policy-orphan")                                                              \
    X(POSITION_ORPHAN, "position-orphan")                                                          \
    X(MAPPED_COUNT_WRONG, "mapped-count-wrong")                                                    \
    X(EXPORT_VOLUME_MISSING, "export-volume-missing")                                              \
    X(EXPORT_NAME_TWICE, "export-name-twice")                                                      \
    X(CHECKPOINT_WRONG, "checkpoint-wrong")                                                        \
    X(EXTENT_DAMAGED, "extent-damaged")                                                            \
    X(EXTENT_OWNER_MISSING, "extent-owner-missing")                                                \
    X(EXTENT_DISK_MISSING, "extent-disk-missing")                                                  \
    X(EXTENT_SLOT_OUTSIDE, "extent-slot-outside")                                                  \
    X(EXTENT_SLOT_TWICE, "extent-slot-twice")                                                      \
    X(EXTENT_COPIES_TOGETHER, "extent-copies-together")                                            \
    X(PAGE_DAMAGED, "page-damaged")                                                                \
    X(PAGE_ORPHAN, "page-orphan")                                                                  \
    X(PAGE_GENERATION_WRONG, "page-generation-wrong")                                              \
    X(ENTRY_GENERATION_WRONG, "entry-generation-wrong")                                            \
    X(ENTRY_BEYOND_END, "entry-beyond-end")                                                        \
    X(GRAIN_EXTENT_MISSING, "grain-extent-missing")                                                \
    X(GRAIN_EXTENT_WRONG, "grain-extent-wrong")                                                    \
    X(GRAIN_TWICE, "grain-twice")                                                                  \
    X(GRAIN_OWNER_MISSING, "grain-owner-missing")                                                  \
    X(GRAIN_USE_MISSING, "grain-use-missing")                                                      \
    X(GRAIN_LEAKED, "grain-leaked")                                                                \
    X(VERSION_UNSEEN, "version-unseen")                                                            \
    X(HISTORY_ORPHAN, "history-orphan")                                                            \
    X(LINK_WRONG, "link-wrong")                                                                    \
    X(LINKS_WRONG, "links-wrong")                                                                  \
    X(COUNTER_WRONG, "counter-wrong")                                                              \
    X(LABEL_POOL_WRONG, "label-pool-wrong")                                                        \
    X(LABEL_DISK_UNKNOWN, "label-disk-unknown")                                                    \
    X(LABEL_GEOMETRY_WRONG, "label-geometry-wrong")                                                \
    X(LABEL_NEWER, "label-newer")

enum check_code {
#define X(name, text) CHECK_##name,
    CHECK_CODES(X)
#undef X
        CHECK_CODE_COUNT
};

struct check_finding {
    enum check_severity severity;
    enum check_code code;
    bool repairable;
    enum store_family family; /* of the record that it is about */
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes; /* 0: about no single record */
    char text[240];     /* one sentence for people */
};

/* Such as "grain-leaked"; part of the API. */
const char *check_code_name(enum check_code code);

struct metadata_check;
typedef void check_finding_fn(struct metadata_check *check, const struct check_finding *finding);

/* Asynchronous; on a reactor. */
struct metadata_check {
    /* 0: complete, whatever was found; -ENOMEM, -ECANCELED. The counts below grow as it goes. */
    struct io_op op;
    struct store *store;
    const struct store_snapshot *snapshot; /* NULL only when the store does not change */
    const struct label *labels;            /* of the disks that are here; may be NULL */
    uint32_t label_count;
    check_finding_fn *finding; /* called from the loop; copies what it needs */
    /* NULL, or an empty buffer: filled with the batch that repairs all that is repairable. Commit
     * it only if nothing has been committed since; then check again. */
    struct byte_buffer *repair;
    /* For a database that serves meanwhile: small steps and a rest behind each, so that the
     * reactor's other work waits for little. 0: 256 KiB; 0: no rest. */
    size_t step_bytes;
    uint64_t rest_ns;
    bool cancel; /* set at any time: it ends soon, with -ECANCELED */

    uint64_t ret_findings[CHECK_SEVERITY_COUNT];
    uint64_t ret_commit;
    uint64_t ret_records;
    uint64_t ret_extents;
    uint64_t ret_pages;
    uint64_t ret_grains; /* mapped */
    void *driver;
};
void metadata_check(struct metadata_check *check);

#endif
