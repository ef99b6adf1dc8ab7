/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The range lock of a volume: who may work on which blocks.
 *
 * Reads share, everything else excludes. Requests are granted in the order of arrival among those
 * that overlap: a request waits for the newest earlier one that conflicts with it, and looks again
 * when that one lets go. So nobody starves, and a request never passes one that it conflicts with.
 *
 * Narrow ranges (within one grain) are kept in buckets by grain, wide ones in one list, so that the
 * common case looks at a handful of neighbours only.
 */
#ifndef VOLMGR_RANGE_LOCK_IMPL_H
#define VOLMGR_RANGE_LOCK_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct volume_request;

enum {
    RANGE_LOCK_BUCKETS = 64
};

struct range_lock {
    struct list *buckets; /* RANGE_LOCK_BUCKETS lists, allocated with the first narrow request */
    struct list wide;
    uint32_t narrow_count;
    uint32_t wide_count;
    uint64_t sequence; /* order of arrival */
};

void range_lock_init(struct range_lock *lock);
void range_lock_free(struct range_lock *lock); /* nothing held or waiting */

/*
 * Enter with request->lock_first_block .. lock_last_block and lock_exclusive. True: granted. False:
 * in line; pipeline_resume() is called when it is granted.
 */
bool range_lock_enter(struct range_lock *lock, struct volume_request *request);
/* Leave, granted or in line; grants to those that waited on it. */
void range_lock_leave(struct range_lock *lock, struct volume_request *request);
/* Does any other granted request overlap these blocks? */
bool range_lock_others(const struct range_lock *lock, const struct volume_request *self,
                       uint64_t first_block, uint64_t last_block);

#endif
