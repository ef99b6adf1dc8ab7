/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault filter. Each operation gets a small context from the heap, which embeds the operation
 * on the backend below; the rules are asked once, at submission. The steps of an operation are:
 * wait (delay, hang), then the outcome (error, drop, or submission below), then completion. Rules
 * and the list of what hangs are under a mutex, because fault_*() may be called on any thread.
 */
#include "backends/fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fault_impl.h"
#include "backends/guard.h"
#include "backends/registry.h"
#include "base/assert.h"
#include "base/util.h"
#include "io/reactor.h"

static const char fault_scheme[] = "fault:";

struct fault_state {
    struct backend *child;
    pthread_mutex_t lock; /* what follows */
    struct list rules;
    struct list hanging;
    struct random random;
    uint64_t hits;
    uint64_t child_loss_generation; /* up to here passed on */
};

/* One operation on its way through. */
struct fault_io {
    struct backend_io child_io;
    struct backend *backend;
    struct backend_io *io; /* from above */
    struct reactor *reactor;
    struct fault_outcome outcome;
    struct timer timer;
    struct message message;
    struct list hang_link;
    struct iovec iov[]; /* of a shortened transfer */
};

/* ---- the end ---- */

/* Pass on a loss of the backend below, before any completion that follows it (B5). */
static void
pass_loss_on(struct backend *backend)
{
    struct fault_state *state = backend->state;
    pthread_mutex_lock(&state->lock);
    uint64_t generation = backend_loss_generation(state->child);
    if (generation != state->child_loss_generation) {
        state->child_loss_generation = generation;
        guard_raise_loss(backend);
    }
    pthread_mutex_unlock(&state->lock);
}

static void
fault_end(struct fault_io *fault, int32_t result)
{
    struct backend_io *io = fault->io;
    pass_loss_on(fault->backend);
    free(fault);
    reactor_complete(&io->op, result);
}

static void
fault_child_done(struct io_op *op)
{
    struct fault_io *fault = container_of(op, struct fault_io, child_io.op);
    ASSERT_ON_REACTOR(fault->reactor);
    int32_t result = op->result;
    if (result == 0 && fault->child_io.length_bytes < fault->io->length_bytes) {
        result = (int32_t)fault->child_io.length_bytes; /* short, as asked for */
    }
    fault_end(fault, result);
}

/* ---- the way down ---- */

/* Cut the operation below to `bytes`. */
static void
fault_shorten(struct fault_io *fault, uint64_t bytes)
{
    struct backend_io *child = &fault->child_io;
    uint64_t block_bytes = fault->backend->properties.block_bytes;
    uint32_t count = 0;

    bytes = MAX(bytes - bytes % block_bytes, block_bytes);
    if (bytes >= child->length_bytes) {
        return;
    }
    child->length_bytes = bytes;
    for (uint32_t i = 0; bytes > 0; i++) {
        ASSERT_OP(i, <, child->iov_count);
        fault->iov[count] = child->iov[i];
        fault->iov[count].iov_len = MIN(child->iov[i].iov_len, bytes);
        bytes -= fault->iov[count].iov_len;
        count++;
    }
    child->iov = fault->iov;
    child->iov_count = count;
}

static void
fault_proceed(struct fault_io *fault)
{
    const struct fault_outcome *outcome = &fault->outcome;
    struct fault_state *state = fault->backend->state;
    struct backend_io *io = fault->io;
    bool transfer = io->kind == BACKEND_READ || io->kind == BACKEND_WRITE;

    if (outcome->loss) {
        guard_raise_loss(fault->backend);
    }
    if (outcome->error != 0 || outcome->drop) {
        fault_end(fault, outcome->error);
        return;
    }
    fault->child_io.kind = io->kind;
    fault->child_io.fua = io->fua;
    fault->child_io.offset_bytes = io->offset_bytes;
    fault->child_io.length_bytes = io->length_bytes;
    fault->child_io.iov = io->iov;
    fault->child_io.iov_count = io->iov_count;
    fault->child_io.op.done = fault_child_done;
    if (transfer && outcome->short_bytes != 0) {
        fault_shorten(fault, outcome->short_bytes);
    }
    backend_submit(state->child, &fault->child_io);
}

static void
fault_hang_or_proceed(struct fault_io *fault)
{
    struct fault_state *state = fault->backend->state;
    if (!fault->outcome.hang) {
        fault_proceed(fault);
        return;
    }
    pthread_mutex_lock(&state->lock);
    list_push_back(&state->hanging, &fault->hang_link);
    pthread_mutex_unlock(&state->lock);
}

static void
fault_delay_over(struct timer *timer)
{
    struct fault_io *fault = container_of(timer, struct fault_io, timer);
    ASSERT_ON_REACTOR(fault->reactor);
    fault_hang_or_proceed(fault);
}

static void
fault_released(struct message *message)
{
    struct fault_io *fault = container_of(message, struct fault_io, message);
    ASSERT_ON_REACTOR(fault->reactor);
    fault_proceed(fault);
}

static void
fault_submit(struct backend *backend, struct backend_io *io)
{
    struct fault_state *state = backend->state;
    struct fault_io *fault = calloc(1, sizeof(*fault) + io->iov_count * sizeof(struct iovec));
    if (fault == NULL) {
        reactor_complete(&io->op, -ENOMEM);
        return;
    }
    fault->backend = backend;
    fault->io = io;
    fault->reactor = reactor_self();
    pthread_mutex_lock(&state->lock);
    if (fault_rules_apply(&state->rules, &state->random, io->kind, io->offset_bytes,
                          io->length_bytes, &fault->outcome)) {
        state->hits++;
    }
    pthread_mutex_unlock(&state->lock);
    if (fault->outcome.delay_ns > 0) {
        timer_arm(fault->reactor, &fault->timer,
                  reactor_now_ns(fault->reactor) + fault->outcome.delay_ns, fault_delay_over);
        return;
    }
    fault_hang_or_proceed(fault);
}

/* ---- life ---- */

static int
open_child(struct backend *backend, const char *spec, uint32_t flags, const char **ret_rules,
           struct error *error)
{
    struct fault_state *state = backend->state;
    const char *start = spec + strlen(fault_scheme);
    const char *rules = strrchr(start, '!');
    size_t length = rules != NULL ? (size_t)(rules - start) : strlen(start);

    char *child_spec = strndup(start, length);
    ASSERT(child_spec != NULL);
    *ret_rules = rules != NULL ? rules + 1 : "";
    int result =
        backend_open(backend->platform, backend->owner, child_spec, flags, &state->child, error);
    free(child_spec);
    return result;
}

static int
fault_open(struct backend *backend, const char *spec, uint32_t flags, struct error *error)
{
    const char *rules;
    struct fault_state *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        return error_set(error, -ENOMEM, "no memory for a fault filter");
    }
    pthread_mutex_init(&state->lock, NULL);
    list_init(&state->rules);
    list_init(&state->hanging);
    random_seed(&state->random, 1);
    backend->state = state;
    int result = open_child(backend, spec, flags, &rules, error);
    if (result == 0) {
        result = fault_rules_parse(rules, &state->rules, &state->random, error);
        if (result < 0) {
            backend_close(state->child);
        }
    }
    if (result < 0) {
        fault_rules_free(&state->rules);
        pthread_mutex_destroy(&state->lock);
        free(state);
        backend->state = NULL;
        return result;
    }
    backend->properties = state->child->properties;
    backend->default_timeout_ns = state->child->default_timeout_ns;
    return 0;
}

static void
fault_close(struct backend *backend)
{
    struct fault_state *state = backend->state;
    ASSERT(list_empty(&state->hanging));
    backend_close(state->child);
    fault_rules_free(&state->rules);
    pthread_mutex_destroy(&state->lock);
    free(state);
    backend->state = NULL;
}

static int
fault_refresh(struct backend *backend, struct error *error)
{
    struct fault_state *state = backend->state;
    int result = backend_refresh(state->child, error);
    ASSERT(result <= 0);
    if (result == 0) {
        __atomic_store_n(&backend->properties.size_bytes, backend_size_bytes(state->child),
                         __ATOMIC_RELAXED);
    }
    return result;
}

const struct backend_ops fault_backend_ops = {
    .type = "fault",
    .scheme = fault_scheme,
    .owner_reactor_only = false, /* the guard of the backend below forwards where it must */
    .open = fault_open,
    .close = fault_close,
    .refresh = fault_refresh,
    .submit = fault_submit,
};

/* ---- control ---- */

static struct fault_state *
state_of(struct backend *backend)
{
    ASSERT(backend->ops == &fault_backend_ops);
    ASSERT(backend->state != NULL);
    return backend->state;
}

int
fault_add_rules(struct backend *backend, const char *rules, struct error *error)
{
    struct fault_state *state = state_of(backend);
    pthread_mutex_lock(&state->lock);
    int result = fault_rules_parse(rules, &state->rules, &state->random, error);
    pthread_mutex_unlock(&state->lock);
    return result;
}

void
fault_clear_rules(struct backend *backend)
{
    struct fault_state *state = state_of(backend);
    pthread_mutex_lock(&state->lock);
    fault_rules_free(&state->rules);
    pthread_mutex_unlock(&state->lock);
}

uint32_t
fault_release(struct backend *backend)
{
    struct fault_state *state = state_of(backend);
    struct list released;
    uint32_t count = 0;

    list_init(&released);
    pthread_mutex_lock(&state->lock);
    list_splice_back(&released, &state->hanging);
    pthread_mutex_unlock(&state->lock);
    struct list *link;
    while ((link = list_pop_front(&released)) != NULL) {
        struct fault_io *fault = list_entry(link, struct fault_io, hang_link);
        reactor_send(fault->reactor, &fault->message, fault_released);
        count++;
    }
    return count;
}

uint32_t
fault_hanging(struct backend *backend)
{
    struct fault_state *state = state_of(backend);
    uint32_t count = 0;
    pthread_mutex_lock(&state->lock);
    list_for_each(&state->hanging, link) {
        count++;
    }
    pthread_mutex_unlock(&state->lock);
    return count;
}

uint64_t
fault_hits(struct backend *backend)
{
    struct fault_state *state = state_of(backend);
    pthread_mutex_lock(&state->lock);
    uint64_t hits = state->hits;
    pthread_mutex_unlock(&state->lock);
    return hits;
}

struct backend *
fault_child(struct backend *backend)
{
    return state_of(backend)->child;
}
