/* SPDX-License-Identifier: Apache-2.0 */
/* The manager's life: options, creation, opening all pools, closing them. */
#include "volmgr/manager.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "volmgr/control_impl.h"
#include "volmgr/state_file_impl.h"

void
manager_options_default(struct manager_options *options)
{
    *options = (struct manager_options){
        .disk_search = manager_disk_search,
        .offload_threads = 2,
        .map_cache_bytes = 128 * MIB,
        .journal_bytes = 8 * MIB,
        .commit_interval_ns = 2 * NS_PER_S,
        .disk_timeout_ns = 30 * NS_PER_S,
        .request_timeout_ns = 60 * NS_PER_S,
    };
}

int
manager_create(const struct manager_options *options, struct manager **ret_manager,
               struct error *error)
{
    ASSERT(options->reactor_count > 0 && options->reactor_count <= REACTOR_COUNT_MAX);
    ASSERT(options->platform != NULL && options->store_open != NULL);
    ASSERT(options->store_remove != NULL && options->pool_list != NULL);

    struct manager *manager = calloc(1, sizeof(*manager));
    if (manager == NULL) {
        return error_set(error, -ENOMEM, "no memory for the manager");
    }
    manager->options = *options;
    manager->control = options->reactors[0];
    int result =
        offload_create("offload", options->offload_threads, &manager->offload, error);
    if (result < 0) {
        free(manager);
        return result;
    }
    list_init(&manager->pools);
    exports_init(manager);
    events_init(manager);
    list_init(&manager->blocks);
    jobs_init(manager);
    checks_init(manager);
    sessions_create(manager);
    *ret_manager = manager;
    return 0;
}

void
manager_destroy(struct manager *manager)
{
    ASSERT(list_empty(&manager->pools));
    offload_destroy(manager->offload);
    exports_free(manager);
    events_free(manager);
    jobs_free(manager);
    checks_free(manager);
    sessions_destroy(manager);
    event_file_close(manager->event_file);
    daemon_record_close(manager->daemon_record);
    free(manager);
}

/* ---- start ---- */

#define MANAGER_START_PHASES(X)                                                                    \
    X(LIST_POOLS)                                                                                  \
    X(READ_STATE)                                                                                  \
    X(TAKE_STATE)                                                                                  \
    X(OPEN_POOLS)                                                                                  \
    X(END)

enum manager_start_phase {
#define PHASE_ENUM(name) START_##name,
    MANAGER_START_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    START_PHASE_COUNT
};

static const char *const START_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    MANAGER_START_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(START_PHASE_NAMES) == START_PHASE_COUNT, "a name for each phase");

enum {
    START_PATIENCE_S = 10 /* longer, and a pool goes on being opened while the others serve */
};

/* The pools that are being opened; outlives the start when one of them takes long. */
struct start_wait {
    uint32_t pools;
    struct starting *starting; /* NULL: it does not wait any more */
};

struct starting {
    struct machine machine;
    struct start_wait *wait;
    struct timer patience;
    struct machine_job job;
    struct byte_buffer names;
    struct error error;
    struct error state_error;
};

static int32_t
list_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct starting *starting = container_of(own, struct starting, job);
    struct manager *manager = starting->machine.manager;
    const struct manager_options *options = &manager->options;

    manager->event_file = event_file_open(manager, &starting->state_error);
    manager->daemon_record = daemon_record_open(manager, &starting->state_error);
    return options->pool_list(options->store_context, &starting->names, &starting->error);
}

static void
start_pool_opened(struct manager *manager, void *context)
{
    struct start_wait *wait = context;
    struct starting *starting = wait->starting;

    ASSERT_OP(wait->pools, >, 0u);
    if (--wait->pools > 0) {
        return;
    }
    free(wait);
    if (starting != NULL) {
        timer_disarm(manager->control, &starting->patience);
        starting->wait = NULL;
        machine_completed(&starting->machine, 0);
    }
}

static void
start_patience_over(struct timer *timer)
{
    struct starting *starting = container_of(timer, struct starting, patience);

    event_raise(starting->machine.manager, EVENT_WARNING, NULL, NULL, "slow-start",
                "%u pools are still being opened", starting->wait->pools);
    starting->wait->starting = NULL;
    starting->wait = NULL;
    machine_completed(&starting->machine, 0);
}

/* Before any pool serves: who is blocked must be known. */
static enum machine_step
read_state(struct starting *starting)
{
    struct machine *machine = &starting->machine;

    if (machine->status < 0) {
        error_set(&starting->error, machine->status, "%s", error_name(machine->status));
        return machine_fail(machine, machine->status, "cannot list the pools: %.400s",
                            starting->error.message);
    }
    event_file_load(machine, machine->manager->event_file);
    daemon_record_load(machine, machine->manager->daemon_record);
    return machine_wait(machine);
}

static enum machine_step
take_state(struct starting *starting)
{
    struct machine *machine = &starting->machine;
    struct manager *manager = machine->manager;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "which hosts are blocked cannot be read from the state directory: %s",
                            error_name(machine->status));
    }
    if (manager->options.state_directory != NULL && manager->daemon_record == NULL) {
        return machine_fail(machine, starting->state_error.code,
                            "which hosts are blocked cannot be read: %.400s",
                            starting->state_error.message);
    }
    if (manager->options.state_directory != NULL && manager->event_file == NULL) {
        log_warning("event", "events are kept in memory only: %s", starting->state_error.message);
    }
    event_file_take(machine, manager->event_file);
    daemon_record_take(machine, manager->daemon_record);
    return MACHINE_NEXT;
}

static enum machine_step
open_pools(struct starting *starting)
{
    struct machine *machine = &starting->machine;
    struct manager *manager = machine->manager;
    size_t at = 0;

    starting->wait = calloc(1, sizeof(*starting->wait));
    ASSERT(starting->wait != NULL);
    starting->wait->starting = starting;
    starting->wait->pools = 1; /* this phase, which keeps it while pools are being started */
    machine->pending++;
    timer_arm(manager->control, &starting->patience,
              reactor_now_ns(manager->control) + START_PATIENCE_S * NS_PER_S,
              start_patience_over);
    while (at < starting->names.length_bytes) {
        const char *name = (const char *)starting->names.data + at;
        at += strnlen(name, starting->names.length_bytes - at) + 1;
        if (at > starting->names.length_bytes || !schema_name_is_valid(name)) {
            event_raise(manager, EVENT_WARNING, NULL, NULL, "foreign-database",
                        "the state directory holds something that is no pool: ignored");
            continue;
        }
        if (manager_find_pool(manager, name) != NULL) {
            continue;
        }
        starting->wait->pools++;
        struct pool *pool = pool_new(manager, name);
        pool->from_start = true;
        pool_open(pool, start_pool_opened, starting->wait);
    }
    if (--starting->wait->pools == 0) {
        timer_disarm(manager->control, &starting->patience);
        free(starting->wait);
        starting->wait = NULL;
        machine->pending--;
    }
    return machine_wait(machine);
}

static enum machine_step
start_phase(struct machine *machine, uint32_t phase)
{
    struct starting *starting = container_of(machine, struct starting, machine);

    switch ((enum manager_start_phase)phase) {
    case START_LIST_POOLS:
        machine_offload(machine, &starting->job, list_work);
        return machine_wait(machine);
    case START_READ_STATE:
        return read_state(starting);
    case START_TAKE_STATE:
        return take_state(starting);
    case START_OPEN_POOLS:
        return open_pools(starting);
    case START_END:
        return MACHINE_NEXT;
    case START_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
start_release(struct machine *machine)
{
    struct starting *starting = container_of(machine, struct starting, machine);

    byte_buffer_free(&starting->names);
    free(starting);
}

static const struct machine_ops START_OPS = {
    .name = "start",
    .phase_names = START_PHASE_NAMES,
    .phase_count = START_PHASE_COUNT,
    .failed_phase = START_PHASE_COUNT,
    .phase = start_phase,
    .release = start_release,
};

void
manager_start(struct manager *manager, struct manager_start *start)
{
    struct starting *starting = calloc(1, sizeof(*starting));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(starting != NULL);
    machine_init(&starting->machine, &START_OPS, manager, &start->control);
    machine_start(&starting->machine);
}

/* ---- shutdown ---- */

#define MANAGER_SHUTDOWN_PHASES(X)                                                                 \
    X(AWAIT_IMPORTS)                                                                               \
    X(CLOSE_POOLS)                                                                                 \
    X(WRITE_STATE)                                                                                 \
    X(END)

enum manager_shutdown_phase {
#define PHASE_ENUM(name) SHUTDOWN_##name,
    MANAGER_SHUTDOWN_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    SHUTDOWN_PHASE_COUNT
};

static const char *const SHUTDOWN_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    MANAGER_SHUTDOWN_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(SHUTDOWN_PHASE_NAMES) == SHUTDOWN_PHASE_COUNT, "a name for each phase");

enum {
    SHUTDOWN_PATIENCE_S = 15 /* and the time that a disk is given */
};

struct stopping {
    struct machine machine;
    struct machine_pause pause;
    struct timer patience;
    struct error error; /* of the first pool that could not be closed cleanly */
};

static void
shutdown_pool_closed(struct manager *manager, void *context, const struct error *error)
{
    struct stopping *stopping = context;

    ASSERT(stopping->machine.manager == manager);
    if (error->code < 0 && stopping->error.code == 0) {
        stopping->error = *error;
    }
    machine_completed(&stopping->machine, 0);
}

/* What is still open, and which disk may be why. */
static void
describe_open_pools(const struct manager *manager, char *to, size_t to_bytes)
{
    size_t at = 0;

    to[0] = '\0';
    list_for_each(&manager->pools, link) {
        const struct pool *pool = list_entry(link, struct pool, link);
        const struct disk *disk = pool_silent_disk(pool);
        const struct backend *backend = NULL;
        if (disk != NULL) {
            backend = disk->backend != NULL ? disk->backend : disk->late_backend;
        }
        int more = snprintf(to + at, to_bytes - at, "%spool `%s`%s%.100s%s", at > 0 ? ", " : "",
                            pool->name, backend != NULL ? " (disk " : "",
                            backend != NULL ? backend->spec : "",
                            backend != NULL ? " does not answer)" : "");
        at = MIN(at + (size_t)MAX(more, 0), to_bytes - 1);
    }
}

/*
 * A disk that hangs is not waited for: who asked is told, and ends the process as if it had been
 * killed, which loses nothing that was acknowledged. The machine goes on by itself meanwhile.
 */
static void
shutdown_patience_over(struct timer *timer)
{
    struct stopping *stopping = container_of(timer, struct stopping, patience);
    struct machine *machine = &stopping->machine;
    struct manager *manager = machine->manager;
    struct control *control = machine->control;
    char text[300];

    describe_open_pools(manager, text, sizeof(text));
    machine->own = (struct control){ .manager = manager, .machine = machine };
    list_init(&machine->own.link);
    machine->control = &machine->own;
    control->machine = NULL;
    error_set(&control->error, -ETIMEDOUT,
              "not everything could be closed in time: %s; the next start recovers it",
              text[0] != '\0' ? text : "an operation has not ended");
    control_complete(manager, control, -ETIMEDOUT);
}

static enum machine_step
shutdown_phase(struct machine *machine, uint32_t phase)
{
    struct stopping *stopping = container_of(machine, struct stopping, machine);
    struct manager *manager = machine->manager;

    switch ((enum manager_shutdown_phase)phase) {
    case SHUTDOWN_AWAIT_IMPORTS:
        if (!manager->stopping) {
            manager->stopping = true;
            events_end_waiting(manager);
        }
        if (manager->imports > 0) {
            machine_goto(machine, SHUTDOWN_AWAIT_IMPORTS);
            machine_pause(machine, &stopping->pause, CONTROL_POLL_NS);
        }
        return machine_wait(machine);
    case SHUTDOWN_CLOSE_POOLS:
        machine->pending++; /* keep the phase open while pools are being closed */
        list_for_each_safe(&manager->pools, link) {
            machine->pending++;
            pool_close(list_entry(link, struct pool, link), shutdown_pool_closed, stopping);
        }
        machine->pending--;
        return machine_wait(machine);
    case SHUTDOWN_WRITE_STATE:
        if (!event_file_is_idle(manager->event_file) ||
            !daemon_record_is_idle(manager->daemon_record)) {
            machine_goto(machine, SHUTDOWN_WRITE_STATE);
            machine_pause(machine, &stopping->pause, CONTROL_POLL_NS);
        }
        return machine_wait(machine);
    case SHUTDOWN_END:
        ASSERT(list_empty(&manager->pools));
        timer_disarm(manager->control, &stopping->patience);
        if (stopping->error.code < 0) {
            return machine_fail(machine, stopping->error.code, "%s", stopping->error.message);
        }
        return MACHINE_NEXT;
    case SHUTDOWN_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
shutdown_release(struct machine *machine)
{
    free(container_of(machine, struct stopping, machine));
}

static const struct machine_ops SHUTDOWN_OPS = {
    .name = "shutdown",
    .phase_names = SHUTDOWN_PHASE_NAMES,
    .phase_count = SHUTDOWN_PHASE_COUNT,
    .failed_phase = SHUTDOWN_PHASE_COUNT,
    .phase = shutdown_phase,
    .release = shutdown_release,
};

void
manager_shutdown(struct manager *manager, struct manager_shutdown *shutdown)
{
    struct stopping *stopping = calloc(1, sizeof(*stopping));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(stopping != NULL);
    if (manager->stopping) {
        free(stopping);
        control_refuse(manager, &shutdown->control, -EALREADY, "the daemon is ending already");
        return;
    }
    machine_init(&stopping->machine, &SHUTDOWN_OPS, manager, &shutdown->control);
    timer_arm(manager->control, &stopping->patience,
              reactor_now_ns(manager->control) + manager->options.disk_timeout_ns +
                  SHUTDOWN_PATIENCE_S * NS_PER_S,
              shutdown_patience_over);
    machine_start(&stopping->machine);
}
