/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for calls that block (RocksDB, opening devices). A job runs on one of them; its
 * completion comes back to the reactor that submitted it. In simulation, and with zero threads,
 * jobs run on a later pass of the submitting reactor itself.
 */
#ifndef IO_OFFLOAD_H
#define IO_OFFLOAD_H

#include <stdint.h>

#include "base/error.h"
#include "io/reactor.h"

struct offload;
struct offload_job;
/* Runs on an offload thread: touches only what the submitter left alone until done(). */
typedef int32_t offload_fn(struct offload_job *job);

struct offload_job {
    struct io_op op; /* result: what the function returned */
    offload_fn *work;
    struct message message;
    struct reactor *reply_to;
    struct offload_job *next;
};

int offload_create(const char *name, uint32_t thread_count, struct offload **ret_offload,
                   struct error *error);
/* Waits for queued jobs. */
void offload_destroy(struct offload *offload);
/* On a reactor. Jobs of an offload with one thread run in the order of submission. */
void offload_submit(struct offload *offload, struct offload_job *job, offload_fn *work);

#endif
