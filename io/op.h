/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion object: one asynchronous step.
 *
 * An io_op is embedded in the struct that owns it, so an operation in flight costs no allocation
 * and there is nothing to free. At most one submission of an op is outstanding. `done` is called
 * from the reactor's loop, never from inside the submitting call, and always on the reactor that
 * submitted it.
 */
#ifndef IO_OP_H
#define IO_OP_H

#include <stddef.h>
#include <stdint.h>

struct io_op;

typedef void io_op_done_fn(struct io_op *op);

struct io_op {
    io_op_done_fn *done;      /* set by the owner before each submission; cleared by the loop */
    struct io_op *ready_next; /* the reactor's, while the completion is queued */
    int32_t result;           /* bytes, 0, or -errno; valid from the call of done() on */
    uint32_t reactor_id;      /* where it was submitted; set by whoever takes the submission */
};

#endif
