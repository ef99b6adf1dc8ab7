/* SPDX-License-Identifier: Apache-2.0 */
/* What check_online.c and check_memory.c share. Control reactor. */
#ifndef VOLMGR_CHECK_ONLINE_IMPL_H
#define VOLMGR_CHECK_ONLINE_IMPL_H

#include "metadata/check.h"
#include "volmgr/control_impl.h"

/* What is kept of a check when it has ended. */
struct check_result {
    struct list link; /* manager->checks */
    struct checking *running;
    struct check_report report; /* without notes */
    struct byte_buffer notes;   /* struct check_note[] */
};

struct checking {
    struct machine machine;
    struct pool *pool;
    struct check_result *result;
    struct job *job;
    bool cancel;

    struct list attempts; /* struct label_attempt that have not answered */
    struct timer label_timer;
    struct label *labels;
    uint32_t label_count;

    struct store_snapshot snapshot;
    bool has_snapshot;
    struct store_scan scan;
    struct machine_pause pause;
    struct byte_buffer doubts;     /* struct check_note[]: of this look at the records */
    uint32_t record_looks;
    struct byte_buffer volume_ids; /* uint64_t[], ascending: what the database has */
    struct byte_buffer export_ids;
    uint64_t volumes_end; /* what has a number from these on was made after the snapshot */
    uint64_t exports_end;
    struct byte_buffer suspects; /* uint64_t[]: extents that both sides know otherwise */
    size_t suspect;              /* the one that is looked at */
    uint32_t suspect_looks;
    struct store_get get;
    uint64_t extents_known; /* for the progress */
    uint64_t grains_known;

    struct metadata_check check;
    struct timer progress_timer;
};

/* An error that the next look at the records may not see any more. */
void check_doubt(struct checking *checking, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- check_memory.c ---- */

/* A record of the database, as of the snapshot. */
typedef void check_compare_fn(struct checking *checking, const struct store_batch_item *item);
check_compare_fn check_compare_record; /* of SYSTEM, while standing in the line */
check_compare_fn check_compare_extent; /* of EXTENT; fills checking->suspects */
/* All SYSTEM records have been seen: what memory has must have been among them. */
void check_compare_ends(struct checking *checking);
/* What is wrong with an extent that memory and database know: a code, or NULL for nothing. */
const char *check_extent_fault(const struct pool *pool, const struct extent *extent,
                               const struct extent_record *record);
/* NULL: memory has none of this number, or it is about to go. */
const struct extent *check_living_extent(const struct pool *pool, uint64_t id);

#endif
