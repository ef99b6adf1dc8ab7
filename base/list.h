/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list with a head of the same type. Not thread safe. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/assert.h"
#include "base/util.h"

struct list {
    struct list *next;
    struct list *prev;
};

static inline void
list_init(struct list *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool
list_empty(const struct list *head)
{
    return head->next == head;
}

/* True for an initialised node that is on a list (nodes are re-initialised on removal). */
static inline bool
list_linked(const struct list *node)
{
    return node->next != NULL && node->next != node;
}

static inline void
list_insert_before(struct list *position, struct list *node)
{
    node->prev = position->prev;
    node->next = position;
    position->prev->next = node;
    position->prev = node;
}

static inline void
list_push_back(struct list *head, struct list *node)
{
    list_insert_before(head, node);
}

static inline void
list_push_front(struct list *head, struct list *node)
{
    list_insert_before(head->next, node);
}

static inline void
list_remove(struct list *node)
{
    ASSERT(node->next != NULL && node->prev != NULL);
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

static inline struct list *
list_pop_front(struct list *head)
{
    struct list *node = head->next;
    if (node == head) {
        return NULL;
    }
    list_remove(node);
    return node;
}

/* Move everything from `from` to the end of `to`; `from` is empty afterwards. */
static inline void
list_splice_back(struct list *to, struct list *from)
{
    if (list_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_entry(node, type, member) container_of(node, type, member)
#define list_first(head, type, member)                                                             \
    (list_empty(head) ? NULL : list_entry((head)->next, type, member))
#define list_for_each(head, node)                                                                  \
    for (struct list *node = (head)->next; node != (head); node = node->next)
/* The current node may be removed inside the body. */
#define list_for_each_safe(head, node)                                                             \
    for (struct list *node = (head)->next, *node##_next_ = node->next; node != (head);             \
         node = node##_next_, node##_next_ = node->next)

#endif
