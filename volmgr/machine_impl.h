/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase machines: how a control operation that waits is written.
 *
 * THEORY OF OPERATION
 *
 * An operation is a struct that embeds a machine, an enum of phases, and one function with a switch
 * over them, in the order in which they run. A phase starts what it needs (jobs, label reads,
 * commits, rounds of messages ...), each announced by machine_arm() or a helper that calls it, and
 * returns machine_wait() as the last thing it does; the next phase runs when all of them have
 * completed and finds the first error in machine->status. machine_fail() notes the error for the
 * administrator and goes to the phase where undoing begins. The machine ends behind its last phase.
 *
 * Everything here runs on the control reactor.
 *
 * Invariants
 *  H1  A phase runs from the loop or from the call that started the machine, never nested.
 *  H2  Nothing that was armed is still under way when a phase begins.
 *  H3  The first error of an operation is the one that is reported.
 */
#ifndef VOLMGR_MACHINE_IMPL_H
#define VOLMGR_MACHINE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "io/offload.h"
#include "io/reactor.h"
#include "volmgr/manager.h"

struct machine;
struct pool;

enum machine_step {
    MACHINE_NEXT,
    MACHINE_WAIT,
};

struct machine_ops {
    const char *name;               /* "pool create" */
    const char *const *phase_names; /* phase_count of them */
    uint32_t phase_count;
    uint32_t failed_phase; /* where machine_fail() continues; phase_count: the end */
    enum machine_step (*phase)(struct machine *machine, uint32_t phase);
    /* Behind the last phase: free the operation. Everything of `machine` was taken care of. */
    void (*release)(struct machine *machine);
};

struct machine {
    const struct machine_ops *ops;
    struct manager *manager;
    struct pool *pool;       /* whose line it belongs to; NULL: none */
    bool in_line;
    bool entering;           /* back in line, and its turn has not come yet */
    struct control *control; /* the caller's, or `own` */
    struct control own;      /* of a machine that nobody outside asked for */
    uint32_t phase;          /* the next one */
    uint32_t pending;        /* completions that the next phase waits for */
    int status;              /* first error among them */
    struct message message;  /* its turn in the line has come */
    bool running;
    bool failed;
};

/* Fill in the head of an operation. `control` NULL: nobody is told the outcome. */
void machine_init(struct machine *machine, const struct machine_ops *ops, struct manager *manager,
                  struct control *control);
/* Begin at once. */
void machine_start(struct machine *machine);
/* Begin when everything before it in the pool's line has ended; hold the line until it ends. */
void machine_start_in_line(struct machine *machine, struct pool *pool);

/*
 * Let the others in line go on, while this one waits for something that may take long (a host that
 * detaches, a hung disk), and get in line again. machine_step_in() may wait; what was true before
 * stepping out must be looked at again behind it. Not after pool_close() has been called.
 */
void machine_step_out(struct machine *machine);
enum machine_step machine_step_in(struct machine *machine);
/*
 * The pool is about to be freed by this operation: leave its line for good. Those behind it, none
 * of which has begun, fail with this error.
 */
void machine_leave_line(struct machine *machine, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A machine that has failed before it began, and stands in no line: complete it. */
void machine_abandon(struct machine *machine);

/* Count one completion that the next phase waits for, and prepare its op. */
void machine_arm(struct machine *machine, struct io_op *op, io_op_done_fn *done);
/* One of them has come. Runs the next phase when it was the last. */
void machine_completed(struct machine *machine, int status);
/* The return value of a phase that may have armed something. */
static inline enum machine_step
machine_wait(const struct machine *machine)
{
    return machine->pending > 0 ? MACHINE_WAIT : MACHINE_NEXT;
}

/* Note the error (the first one counts) and go on with the phase where undoing begins. */
enum machine_step machine_fail(struct machine *machine, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* As machine_fail(), when the message is in machine->control->error already. */
enum machine_step machine_fail_noted(struct machine *machine);
/* Continue with `phase` instead of the next one. */
static inline enum machine_step
machine_goto(struct machine *machine, uint32_t phase)
{
    machine->phase = phase;
    return MACHINE_NEXT;
}
/* Skip the phases that undo: the operation has succeeded. */
static inline enum machine_step
machine_end(struct machine *machine)
{
    return machine_goto(machine, machine->ops->phase_count);
}

/* done() of an op that is the member `member` of `type`, which embeds `machine`. */
#define MACHINE_DONE(function, type, member)                                                       \
    static void function(struct io_op *op)                                                         \
    {                                                                                              \
        machine_completed(&container_of(op, type, member)->machine, op->result);                   \
    }

/* ---- blocking work ---- */

struct machine_job {
    struct offload_job job;
    struct machine *machine;
};

/* Run `work` on an offload thread; what it returns becomes machine->status if negative. */
void machine_offload(struct machine *machine, struct machine_job *job, offload_fn *work);

/* ---- a pause ---- */

struct machine_pause {
    struct timer timer;
    struct machine *machine;
};

/* The next phase runs after `delay_ns`. */
void machine_pause(struct machine *machine, struct machine_pause *pause, uint64_t delay_ns);

/* ---- rounds of messages ---- */

struct round;
struct round_stop;

/*
 * At reactor stop->index, on it. Return MACHINE_NEXT when the visit is over, or MACHINE_WAIT and
 * call round_stop_done() on that reactor later.
 */
typedef enum machine_step round_visit_fn(struct round_stop *stop);

struct round_stop {
    struct message message;
    struct round *round;
    uint32_t index;
    struct timer timer; /* for visits that look again later */
};

/* Embedded in the operation; the stops are allocated with the first use. */
struct round {
    struct machine *machine;
    round_visit_fn *visit;
    void *context; /* the owner's */
    uint32_t pending;
    struct round_stop *stops;
};

/*
 * Visit every reactor. Also a grace period: what was unlinked before is unknown to all afterwards.
 */
void round_all(struct machine *machine, struct round *round, round_visit_fn *visit);
/* Visit one reactor. */
void round_one(struct machine *machine, struct round *round, uint32_t index,
               round_visit_fn *visit);
void round_stop_done(struct round_stop *stop);
void round_free(struct round *round);

/* ---- refusals ---- */

/* Complete a control operation that did not become a machine. */
void control_complete(struct manager *manager, struct control *control, int code);
void control_refuse(struct manager *manager, struct control *control, int code,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
