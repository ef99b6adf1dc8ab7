/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's side towards the implementations of backends. Callers of backends include
 * backends/backend.h only.
 */
#ifndef BACKENDS_GUARD_H
#define BACKENDS_GUARD_H

#include <stdint.h>

#include "backends/backend.h"

/* control. Part of opening and closing a backend; nothing in flight at destroy. 0 or -ENOMEM. */
int guard_create(struct backend *backend);
void guard_destroy(struct backend *backend);

/* What the guard emulates from the first operation on. */
enum guard_emulation {
    GUARD_EMULATE_FUA = 1u << 0,        /* by WRITE and FLUSH */
    GUARD_EMULATE_ZEROES = 1u << 1,     /* by WRITE of a buffer of zeroes */
    GUARD_EMULATE_ZEROES_FUA = 1u << 2, /* FUA of WRITE_ZEROES only, by a FLUSH behind it */
    GUARD_NO_DISCARD = 1u << 3,         /* DISCARD does nothing */
    GUARD_READ_ONLY = 1u << 4,          /* refuse what changes the disk with -EROFS */
};
/* Any thread. Adds to what is emulated. */
void guard_emulate(struct backend *backend, uint32_t emulations);

/*
 * reactor. As reactor_complete(&io->op, result), but runs the completion at once. Only from a
 * function that the loop has called (a completion, message, timer or hook), never from submit.
 */
static inline void
guard_complete(struct backend_io *io, int32_t result)
{
    io_op_done_fn *done = io->op.done;
    io->op.done = NULL;
    io->op.result = result;
    done(&io->op);
}

/*
 * Any thread. Unflushed writes may have been lost (B5). Before the done() of the operation that
 * showed it. A failed FLUSH needs no call: the guard counts it.
 */
void guard_raise_loss(struct backend *backend);

/* control. For ops->refresh of a backend whose size never changes. */
int guard_refresh_fixed(struct backend *backend, struct error *error);

#endif
