/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking up a map page in the store, along a chain of places: the version that a view sees, and
 * the one that it supersedes. Several gets, one after the other; on any reactor.
 *
 * What it supersedes may be in the key space of an ancestor, and it is looked for there whether the
 * line owns that ancestor or not: inherited grains are never freed, so it makes no difference until
 * the line comes to own them, and nothing has to be put right then.
 */
#ifndef VOLMGR_MAP_LOOKUP_IMPL_H
#define VOLMGR_MAP_LOOKUP_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/reactor.h"
#include "metadata/store.h"
#include "volmgr/snapshot_impl.h"

/* Embedded in its owner; zeroed, then the first part is filled in. */
struct map_lookup {
    struct io_op op; /* 0, also when the page is empty; -EIO, -EUCLEAN */
    struct store *store;
    const struct view_chain *chain; /* stays until done() */
    uint32_t newest;     /* no version above it is right: the current generation, or the view */
    bool wants_previous; /* a head, which changes the page */
    uint64_t page;

    struct byte_buffer value; /* of the page version; the owner frees it */
    uint32_t ret_version;     /* 0: there is none; the page is empty */
    uint32_t ret_previous;    /* the next older one, own or inherited; 0: none, or not asked for */
    uint64_t ret_branch;      /* whose key space the version is in */

    uint32_t place;
    struct store_get get;
};

void map_lookup(struct map_lookup *lookup);

#endif
