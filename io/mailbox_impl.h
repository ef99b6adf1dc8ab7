/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mailbox of a reactor: many senders, one receiver, no locks.
 *
 * Senders push onto a stack by compare-and-swap; the receiver takes the whole stack with one
 * exchange and turns it round. Two messages of one sender are pushed in the order in which they
 * were sent, and the turning keeps that order (R2). There is no ABA: nodes are only ever pushed
 * one by one and taken all at once.
 */
#ifndef IO_MAILBOX_IMPL_H
#define IO_MAILBOX_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/assert.h"
#include "io/reactor.h"

struct mailbox {
    _Atomic(struct message *) newest;
};

/* What `next` of the oldest message holds, so that NULL always means "not in flight". */
#define MAILBOX_END ((struct message *)1)

/* Any thread. Returns whether the mailbox was empty, that is, whether the receiver may sleep. */
static inline bool
mailbox_push(struct mailbox *mailbox, struct message *message)
{
    ASSERT(message->next == NULL);
    struct message *newest = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do {
        message->next = newest != NULL ? newest : MAILBOX_END;
    } while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &newest, message,
                                                    memory_order_seq_cst, memory_order_relaxed));
    return newest == NULL;
}

/* Receiver only. */
static inline bool
mailbox_empty(const struct mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->newest, memory_order_relaxed) == NULL;
}

/* Receiver only. Everything that has arrived, oldest first, linked by `next` up to MAILBOX_END. */
static inline struct message *
mailbox_take(struct mailbox *mailbox)
{
    struct message *newest = atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire);
    struct message *oldest = MAILBOX_END;
    while (newest != NULL && newest != MAILBOX_END) {
        struct message *older = newest->next;
        ASSERT(older != NULL);
        newest->next = oldest;
        oldest = newest;
        newest = older;
    }
    return oldest;
}

#endif
