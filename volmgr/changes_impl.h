/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changed blocks between two views, in two parts: changes_open.c (control) finds out which versions
 * of which branches lie between them and holds what is read; changes.c (the reactor of the newer
 * side) answers queries.
 *
 * THEORY OF OPERATION
 *
 * Each stored page version has a link, sorted by the version's number, so the pages that may differ
 * are those with a link behind the older view on the way to the newer one; where the two are on
 * different branches, those on both ways from their common ancestor (O(pages changed)). Links are
 * read once, from one state of the store, to a set of page numbers; pages of a live head that are
 * changed later are added as they become dirty, so that the set is never too small.
 *
 * Then, page by page and entry by entry: the older side as the store has it (it never changes), the
 * newer side as the volume's cache has it. What map_entry_diff() cannot decide is read from both
 * places and compared, one grain at a time. Blocks that cannot be read count as changed: whoever
 * copies them finds out why.
 *
 * Invariants
 *  D1  A page that differs is in the set from before the first query is worked on; a page that the
 *      head changes, from before the change is acknowledged.
 *  D2  The older view is held, so its versions and their grains stay; what the newer side shows is
 *      read by entries of the moment: where a block has been moved during the comparison it is
 *      compared again, and counts as changed if that goes on.
 *  D3  Queries of one object are worked on one at a time, in their order.
 *  D4  Memory of a read that is overdue is kept until the read has ended.
 */
#ifndef VOLMGR_CHANGES_IMPL_H
#define VOLMGR_CHANGES_IMPL_H

#include "backends/backend.h"
#include "volmgr/changes.h"
#include "volmgr/control_impl.h"
#include "volmgr/map_diff_impl.h"
#include "volmgr/map_lookup_impl.h"
#include "volmgr/page_set_impl.h"

/* Links of the versions (above, upto] of a branch. */
struct changes_scan {
    uint64_t branch;
    uint32_t above;
    uint32_t upto;
};

/* Blocks of one grain that one side has there, read to be compared. */
struct changes_read {
    struct backend_io io;
    struct iovec iov;
    struct changes *changes;
    grain_address grain; /* GRAIN_NONE: nothing is read */
    uint32_t first_block;
    bool failed;
    uint8_t *memory; /* one grain */
};

enum {
    CHANGES_SIDES = 2,   /* older, newer */
    CHANGES_SOURCES = 2, /* home, base */
};

struct changes {
    /* Set by changes_open.c, constant from then on. */
    struct pool *pool;
    struct volume *volume; /* the newer side: a head or a view */
    uint64_t branch;       /* of a head; 0: a view */
    struct snapshot *from;
    struct snapshot *to; /* that the volume shows; NULL: a head */
    struct view_chain *older;
    struct map_diff_views views;
    struct changes_scan *scans;
    uint32_t scan_count;

    /* Control. */
    struct snapshot_opening from_opening;
    struct snapshot_opening to_opening;
    void (*opened)(struct changes *changes, void *context);
    void (*closed)(void *context); /* NULL: nobody waits for it */
    void *context;
    struct message message; /* to the volume's reactor and back, when it is closed */

    /* The volume's reactor. */
    struct list volume_link; /* volume->changes, of a head */
    struct list queries;     /* struct changes_query by link; the first one is being worked on */
    struct page_set pages;
    bool loading;
    bool loaded;
    bool working; /* a query is, or its reads have not ended */
    bool late;    /* it was answered, since they take so long */
    bool closing;
    int status; /* of reading the links */
    uint32_t scan_index;
    struct store_snapshot state; /* of the store, that links are read from */
    struct store_scan scan;

    /* The query that is worked on. */
    uint64_t at_bytes; /* everything before it has been told */
    uint64_t end_bytes;
    uint32_t pages_left; /* before it is answered with what there is */
    uint64_t page;       /* number */
    struct map_page *newer_page; /* pinned */
    struct map_lookup lookup; /* of the older side */
    struct map_entry *older_entries; /* MAP_PAGE_ENTRIES, of `older_page` */
    uint64_t older_page;             /* UINT64_MAX: of none */
    bool older_empty;
    struct volume_request prefetch;
    int prefetch_status;
    uint32_t prefetches; /* of this page */
    struct map_entry newer_entry; /* as it was when the reads began */
    struct map_diff diff;         /* of the grain at at_bytes */
    bool compared;                /* nothing of it remains to be read */
    uint32_t tries;               /* of reading it */
    struct changes_read reads[CHANGES_SIDES][CHANGES_SOURCES];
    uint32_t reads_pending;
};

/*
 * control. Both sides are KEPT; `to` NULL: the head of `volume`, which has one. opened() is called
 * later. NULL: they have no common past.
 */
struct changes *changes_begin(struct pool *pool, struct snapshot *from, struct volume *volume,
                              struct snapshot *to,
                              void (*opened)(struct changes *changes, void *context),
                              void *context);
/* The volume's reactor: nobody asks any more; calls changes_released() there when all has ended. */
void changes_end(struct changes *changes);
void changes_released(struct changes *changes);

/* ---- pure: which links are between two views ---- */

/* `max` scans at most; false: there is no common past. Zero scans: nothing can have changed. */
bool changes_plan(struct lineage_branch *older, uint32_t older_generation,
                  struct lineage_branch *newer, uint32_t newer_generation,
                  struct changes_scan **ret_scans, uint32_t *ret_count, bool *ret_same_line);

#endif
