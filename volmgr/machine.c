/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/machine_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "volmgr/core_impl.h"

/* ---- running ---- */

static void
line_reached(struct message *message)
{
    struct machine *machine = container_of(message, struct machine, message);

    if (machine->entering) {
        machine->entering = false;
        machine_completed(machine, 0);
    } else {
        machine_start(machine);
    }
}

/* By message: thousands in line that all fail at once must not nest. */
static void
line_advance(struct pool *pool)
{
    struct control *next = list_first(&pool->controls, struct control, link);
    if (next != NULL) {
        struct machine *machine = next->machine;
        reactor_send(machine->manager->control, &machine->message, line_reached);
    }
}

void
machine_step_out(struct machine *machine)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT(machine->in_line);
    ASSERT(list_first(&machine->pool->controls, struct control, link) == machine->control);
    list_remove(&machine->control->link);
    machine->in_line = false;
    line_advance(machine->pool);
}

enum machine_step
machine_step_in(struct machine *machine)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    struct pool *pool = machine->pool;
    bool is_first = list_empty(&pool->controls);

    ASSERT(!machine->in_line && !pool->stopping);
    machine->in_line = true;
    list_push_back(&pool->controls, &machine->control->link);
    if (is_first) {
        return MACHINE_NEXT;
    }
    machine->entering = true;
    machine->pending++;
    return MACHINE_WAIT;
}

static void
machine_finish(struct machine *machine)
{
    struct manager *manager = machine->manager;
    struct control *control = machine->control;
    bool was_asked_for = control != &machine->own;
    int code = control->error.code;

    ASSERT_OP(machine->pending, ==, 0u);
    ASSERT(code < 0 || !machine->failed);
    log_debug("control", "%s: ended: %s", machine->ops->name,
              code == 0 ? "done" : control->error.message);
    if (machine->in_line) {
        machine_step_out(machine);
    }
    control->machine = NULL;
    machine->ops->release(machine);
    if (was_asked_for) {
        control_complete(manager, control, code);
    }
}

static void
machine_run(struct machine *machine)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT(!machine->running);
    machine->running = true;
    while (machine->phase < machine->ops->phase_count) {
        ASSERT_OP(machine->pending, ==, 0u);
        uint32_t phase = machine->phase++;
        log_debug("control", "%s: %s", machine->ops->name, machine->ops->phase_names[phase]);
        enum machine_step step = machine->ops->phase(machine, phase);
        machine->status = 0;
        if (step == MACHINE_WAIT) {
            ASSERT_OP(machine->pending, >, 0u);
            machine->running = false;
            return;
        }
    }
    machine_finish(machine);
}

void
machine_init(struct machine *machine, const struct machine_ops *ops, struct manager *manager,
             struct control *control)
{
    ASSERT_ON_REACTOR(manager->control);
    *machine = (struct machine){
        .ops = ops,
        .manager = manager,
        .control = control != NULL ? control : &machine->own,
    };
    machine->control->manager = manager;
    machine->control->machine = machine;
    machine->control->error = (struct error){ 0 };
    list_init(&machine->control->link);
}

void
machine_start(struct machine *machine)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT_OP(machine->phase, ==, 0u);
    machine_run(machine);
}

void
machine_start_in_line(struct machine *machine, struct pool *pool)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    bool is_first = list_empty(&pool->controls);

    ASSERT(machine->pool == NULL);
    machine->pool = pool;
    machine->in_line = true;
    list_push_back(&pool->controls, &machine->control->link);
    if (is_first) {
        machine_start(machine);
    }
}

void
machine_leave_line(struct machine *machine, int code, const char *format, ...)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    struct pool *pool = machine->pool;
    char text[ERROR_MESSAGE_SIZE];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    ASSERT(list_first(&pool->controls, struct control, link) == machine->control);
    list_remove(&machine->control->link);
    machine->in_line = false;
    machine->pool = NULL;
    while (!list_empty(&pool->controls)) {
        struct control *other = list_first(&pool->controls, struct control, link);
        struct machine *waiting = other->machine;
        ASSERT_OP(waiting->phase, ==, 0u);
        list_remove(&other->link);
        waiting->in_line = false;
        waiting->pool = NULL;
        waiting->failed = true;
        error_set(&other->error, code, "%s", text);
        machine_finish(waiting);
    }
}

void
machine_abandon(struct machine *machine)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT(machine->failed);
    ASSERT(machine->pool == NULL && !machine->running);
    machine_finish(machine);
}

void
machine_arm(struct machine *machine, struct io_op *op, io_op_done_fn *done)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    op->done = done;
    op->reactor_id = reactor_id(machine->manager->control);
    machine->pending++;
}

void
machine_completed(struct machine *machine, int status)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT_OP(machine->pending, >, 0u);
    if (status < 0 && machine->status == 0) {
        machine->status = status;
    }
    if (--machine->pending == 0) {
        machine_run(machine);
    }
}

enum machine_step
machine_fail_noted(struct machine *machine)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT(machine->control->error.code < 0);
    ASSERT(!machine->failed);
    machine->failed = true;
    return machine_goto(machine, machine->ops->failed_phase);
}

enum machine_step
machine_fail(struct machine *machine, int code, const char *format, ...)
{
    char text[ERROR_MESSAGE_SIZE];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    error_set(&machine->control->error, code, "%s", text);
    return machine_fail_noted(machine);
}

/* ---- blocking work ---- */

static void
job_done(struct io_op *op)
{
    struct offload_job *job = container_of(op, struct offload_job, op);
    struct machine_job *own = container_of(job, struct machine_job, job);

    machine_completed(own->machine, op->result);
}

void
machine_offload(struct machine *machine, struct machine_job *job, offload_fn *work)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    job->machine = machine;
    machine_arm(machine, &job->job.op, job_done);
    offload_submit(machine->manager->offload, &job->job, work);
}

/* ---- a pause ---- */

static void
pause_expired(struct timer *timer)
{
    struct machine_pause *pause = container_of(timer, struct machine_pause, timer);
    machine_completed(pause->machine, 0);
}

void
machine_pause(struct machine *machine, struct machine_pause *pause, uint64_t delay_ns)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    struct reactor *control = machine->manager->control;

    pause->machine = machine;
    machine->pending++;
    timer_arm(control, &pause->timer, reactor_now_ns(control) + delay_ns, pause_expired);
}

/* ---- rounds ---- */

static void
round_returned(struct message *message)
{
    struct round_stop *stop = container_of(message, struct round_stop, message);
    struct round *round = stop->round;

    ASSERT_OP(round->pending, >, 0u);
    if (--round->pending == 0) {
        machine_completed(round->machine, 0);
    }
}

void
round_stop_done(struct round_stop *stop)
{
    struct manager *manager = stop->round->machine->manager;

    ASSERT_ON_REACTOR(manager->options.reactors[stop->index]);
    reactor_send(manager->control, &stop->message, round_returned);
}

static void
round_arrived(struct message *message)
{
    struct round_stop *stop = container_of(message, struct round_stop, message);

    if (stop->round->visit(stop) == MACHINE_NEXT) {
        round_stop_done(stop);
    }
}

static void
round_begin(struct machine *machine, struct round *round, round_visit_fn *visit, uint32_t count)
{
    uint32_t reactor_count = machine->manager->options.reactor_count;

    ASSERT_OP(round->pending, ==, 0u);
    if (round->stops == NULL) {
        round->stops = calloc(reactor_count, sizeof(*round->stops));
        ASSERT(round->stops != NULL);
    }
    round->machine = machine;
    round->visit = visit;
    round->pending = count;
    machine->pending++;
}

static void
round_send(struct round *round, uint32_t index)
{
    struct round_stop *stop = &round->stops[index];

    stop->round = round;
    stop->index = index;
    reactor_send(round->machine->manager->options.reactors[index], &stop->message, round_arrived);
}

void
round_all(struct machine *machine, struct round *round, round_visit_fn *visit)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    uint32_t count = machine->manager->options.reactor_count;

    round_begin(machine, round, visit, count);
    for (uint32_t i = 0; i < count; i++) {
        round_send(round, i);
    }
}

void
round_one(struct machine *machine, struct round *round, uint32_t index, round_visit_fn *visit)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    ASSERT_OP(index, <, machine->manager->options.reactor_count);
    round_begin(machine, round, visit, 1);
    round_send(round, index);
}

void
round_free(struct round *round)
{
    ASSERT_OP(round->pending, ==, 0u);
    free(round->stops);
    round->stops = NULL;
}

/* ---- refusals ---- */

void
control_complete(struct manager *manager, struct control *control, int code)
{
    ASSERT_ON_REACTOR(manager->control);
    control->op.reactor_id = reactor_id(manager->control);
    reactor_complete(&control->op, code);
}

void
control_refuse(struct manager *manager, struct control *control, int code, const char *format, ...)
{
    char text[ERROR_MESSAGE_SIZE];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    control->manager = manager;
    control->machine = NULL;
    control->error = (struct error){ 0 };
    error_set(&control->error, code, "%s", text);
    control_complete(manager, control, code);
}
