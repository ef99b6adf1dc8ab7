/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of numbers of map pages: a bit for each, in chunks that exist where there is one (4 MiB for
 * a volume of 1 PiB that was written everywhere). Pure.
 */
#ifndef VOLMGR_PAGE_SET_IMPL_H
#define VOLMGR_PAGE_SET_IMPL_H

#include <stdbool.h>
#include <stdint.h>

struct page_set_chunk;

struct page_set {
    struct page_set_chunk **chunks; /* by ascending number */
    uint32_t count;
    uint32_t capacity;
    uint32_t recent; /* where the last one was added */
};

/* A zeroed one is empty. */
void page_set_free(struct page_set *set);
void page_set_add(struct page_set *set, uint64_t page);
/* The lowest one that is not below `from`. False: there is none. */
bool page_set_next(const struct page_set *set, uint64_t from, uint64_t *ret_page);

#endif
