/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which stored version of a map page the head's changes go to: pure, one of these per cached page.
 *
 * THEORY OF OPERATION
 *
 * Pages are stored in versions, numbered by the generation of their change. A view (a kept
 * generation, or the head) sees the newest version that is not above it. `frozen` is the newest
 * view below the head of the line. What the head changes goes to the version of now's generation.
 * If the newest stored version is older than that, but above `frozen`, nobody but the head sees it:
 * then the new one replaces it. Otherwise the new one supersedes it, and it stays.
 *
 * The version below the working one is what decides about grains that the head drops: those of
 * generations up to it are named by it too, and live until it dies; younger ones were named by
 * nobody but the head. So that this holds, a grain is stamped, when it is first named, with the
 * number of the working version, which may be less than the generation of now (W1).
 *
 * Invariants
 *  W1  The decision is made at the first change since the page was clean, and is kept until those
 *      changes have been encoded; a view that is deleted meanwhile does not change it, since grains
 *      have been dropped under it.
 *  W2  Changes made before a view froze the page are encoded before the first change after it.
 *  W3  The working version is above `frozen`, and above `previous`.
 *  W4  No version names grains of generations above its own number.
 */
#ifndef VOLMGR_MAP_VERSION_IMPL_H
#define VOLMGR_MAP_VERSION_IMPL_H

#include <stdbool.h>
#include <stdint.h>

struct map_version {
    uint32_t stored;   /* newest stored version, own or inherited; 0: none */
    uint32_t previous; /* what the working one (of a clean page: `stored`) supersedes; 0: none */
    uint32_t working;  /* number of the version that changes go to; 0: the page is clean */
};

/*
 * A page has been loaded: `stored` is the version that was found, and `previous` the next older
 * one; 0: none. What is inherited is not above `frozen`, so no difference is made; and when the
 * line comes to own it, because it continues its parent, nothing has to be put right here.
 */
void map_version_loaded(struct map_version *version, uint32_t stored, uint32_t previous);

/* Must what has been changed be encoded (map_version_encoded()) before another change? (W2) */
static inline bool
map_version_must_freeze(const struct map_version *version, uint32_t frozen)
{
    return version->working != 0 && version->working <= frozen;
}

/* A change is about to be made; `current` > `frozen` is the generation in which. */
void map_version_change(struct map_version *version, uint32_t frozen, uint32_t current);

/* How the changes are to be stored: PUT the page and its link; else MERGE into what is stored. */
static inline bool
map_version_is_new(const struct map_version *version)
{
    return version->working != version->stored;
}
/* The stored version that the new one replaces, to be deleted with its link; 0: none. */
static inline uint32_t
map_version_replaced(const struct map_version *version)
{
    return map_version_is_new(version) && version->stored != version->previous ? version->stored
                                                                              : 0;
}
/* They are on their way to the store. */
void map_version_encoded(struct map_version *version);

/* The head no longer names an own grain of this generation: does nobody else either? */
static inline bool
map_version_frees(const struct map_version *version, uint32_t grain_generation)
{
    return grain_generation > version->previous;
}

/* The version `died` below the working one is gone; `previous` supersedes nothing newer than it. */
void map_version_died(struct map_version *version, uint32_t died, uint32_t previous);

#endif
