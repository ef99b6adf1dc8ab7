/* SPDX-License-Identifier: Apache-2.0 */
/* Changed blocks for administrators: one part of the answer at a time, from changes.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/changes_impl.h"

enum {
    EXTENTS_MAX = 4096,    /* of one query */
    ANSWER_SECONDS = 2,    /* so long, then what is known is answered */
};

#define DIFF_PHASES(X)                                                                             \
    X(BEGIN)                                                                                       \
    X(ASK)                                                                                         \
    X(TAKE)                                                                                        \
    X(CLOSE)                                                                                       \
    X(END)

enum diff_phase {
#define PHASE_ENUM(name) DIFF_##name,
    DIFF_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    DIFF_PHASE_COUNT
};

static const char *const DIFF_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    DIFF_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(DIFF_PHASE_NAMES) == DIFF_PHASE_COUNT, "a name for each phase");

struct volume_comparison {
    struct machine machine;
    struct volume_diff *diff;
    struct changes *changes; /* NULL: not begun */
    struct io_op opened; /* or closed */
    struct round round;
    struct round_stop *stop; /* the visit that waits for the query */
    struct changes_query query;
    struct volume_status_extent extents[EXTENTS_MAX];
    struct byte_buffer runs; /* struct volume_diff_run[] */
    uint32_t run_count;
    uint64_t until_ns;
};

MACHINE_DONE(comparison_opened, struct volume_comparison, opened)

static void
begun(struct changes *changes, void *context)
{
    struct volume_comparison *comparison = context;

    (void)changes;
    reactor_complete(&comparison->opened, 0);
}

static void
ended(void *context)
{
    struct volume_comparison *comparison = context;

    reactor_complete(&comparison->opened, 0);
}

static const char *
name_text(const struct volume_name *name, char text[static SNAPSHOT_PATH_SIZE])
{
    volume_name_format(name, text);
    return text;
}

/* The volume of a name; with `ret_snapshot` the snapshot, too, if it names one. */
static int
find_side(struct pool *pool, const struct volume_name *name, struct volume **ret_volume,
          struct snapshot **ret_snapshot, struct error *error)
{
    char text[SNAPSHOT_PATH_SIZE];

    *ret_snapshot = NULL;
    *ret_volume = pool_find_volume(pool, name->volume);
    if (*ret_volume == NULL) {
        return error_set(error, -ENOENT, "there is no volume `%s/%s`", name->pool, name->volume);
    }
    if (name->snapshot[0] != '\0') {
        *ret_snapshot = pool_find_snapshot_by_name(pool, *ret_volume, name->snapshot);
        if (*ret_snapshot == NULL) {
            return error_set(error, -ENOENT, "there is no snapshot `%s`", name_text(name, text));
        }
    }
    return 0;
}

/* Cut the range at the end of the newer side. */
static int
set_range(struct volume_diff *diff, uint64_t size_bytes, struct error *error)
{
    diff->ret_to_bytes = size_bytes;
    if (diff->offset_bytes > size_bytes) {
        return error_set(error, -EINVAL, "the range begins behind the end, which is at %llu",
                         (unsigned long long)size_bytes);
    }
    uint64_t rest = size_bytes - diff->offset_bytes;
    uint64_t length = diff->length_bytes == 0 ? rest : MIN(diff->length_bytes, rest);
    diff->ret_next_bytes = diff->offset_bytes;
    diff->ret_end_bytes = diff->offset_bytes + length;
    return 0;
}

static int
begin(struct volume_comparison *comparison, struct error *error)
{
    struct volume_diff *diff = comparison->diff;
    struct manager *manager = comparison->machine.manager;
    struct pool *pool = manager_find_pool(manager, diff->from.pool);
    struct volume *volume;
    struct snapshot *from;
    struct snapshot *to;

    if (pool == NULL) {
        return error_set(error, -ENOENT, "there is no pool `%s`", diff->from.pool);
    }
    if (strcmp(diff->from.pool, diff->to.pool) != 0) {
        return error_set(error, -EXDEV, "both have to be of one pool");
    }
    if (!pool_is_serving(pool) || pool->stopping) {
        return error_set(error, -ENODEV, "the pool `%s` is not serving", pool->name);
    }
    int rc = find_side(pool, &diff->from, &volume, &from, error);
    if (rc == 0 && from == NULL) {
        rc = error_set(error, -EINVAL, "changes are told since a snapshot: POOL/VOL@SNAPSHOT");
    }
    rc = rc < 0 ? rc : find_side(pool, &diff->to, &volume, &to, error);
    rc = rc < 0 ? rc : set_range(diff, to != NULL ? to->record.size_bytes
                                                  : volume->durable.size_bytes, error);
    if (rc < 0) {
        return rc;
    }
    if (to == NULL && volume->altering) {
        return error_set(error, -EBUSY, "the volume is just being changed; try again");
    }
    diff->ret_from_bytes = from->record.size_bytes;
    comparison->changes = changes_begin(pool, from, volume, to, begun, comparison);
    if (comparison->changes == NULL) {
        return error_set(error, -EXDEV, "they have no common past: no blocks are shared");
    }
    machine_arm(&comparison->machine, &comparison->opened, comparison_opened);
    return 0;
}

/* ---- one query on the volume's reactor ---- */

static void
query_answered(struct io_op *op)
{
    struct changes_query *query = container_of(op, struct changes_query, op);
    struct volume_comparison *comparison =
        container_of(query, struct volume_comparison, query);
    struct round_stop *stop = comparison->stop;

    round_stop_done(stop);
}

static enum machine_step
query_visit(struct round_stop *stop)
{
    struct volume_comparison *comparison =
        container_of(stop->round, struct volume_comparison, round);
    const struct volume_diff *diff = comparison->diff;

    comparison->stop = stop;
    comparison->query = (struct changes_query){
        .op.done = query_answered,
        .offset_bytes = diff->ret_next_bytes,
        .length_bytes = diff->ret_end_bytes - diff->ret_next_bytes,
        .extents = comparison->extents,
        .extents_max = EXTENTS_MAX,
    };
    changes_query(comparison->changes, &comparison->query);
    return MACHINE_WAIT;
}

static enum machine_step
ask(struct volume_comparison *comparison)
{
    struct machine *machine = &comparison->machine;
    const struct changes *changes = comparison->changes;

    if (changes->pool->stopping) {
        return machine_fail(machine, -ESHUTDOWN, "the pool is being closed");
    }
    if (comparison->diff->ret_next_bytes == comparison->diff->ret_end_bytes) {
        return machine_goto(machine, DIFF_CLOSE);
    }
    round_one(machine, &comparison->round, changes->volume->shard->index, query_visit);
    return machine_wait(machine);
}

/* False: there is no room. */
static bool
take_run(struct volume_comparison *comparison, uint64_t offset_bytes, uint64_t length_bytes)
{
    struct volume_diff_run *runs = (struct volume_diff_run *)(void *)comparison->runs.data;
    struct volume_diff_run *last =
        comparison->run_count > 0 ? &runs[comparison->run_count - 1] : NULL;

    if (last != NULL && last->offset_bytes + last->length_bytes == offset_bytes) {
        last->length_bytes += length_bytes;
        return true;
    }
    if (comparison->run_count == comparison->diff->runs_max) {
        return false;
    }
    struct volume_diff_run run = { offset_bytes, length_bytes };
    byte_buffer_append(&comparison->runs, &run, sizeof(run));
    comparison->run_count++;
    return true;
}

static enum machine_step
take(struct volume_comparison *comparison)
{
    struct machine *machine = &comparison->machine;
    struct volume_diff *diff = comparison->diff;
    const struct changes_query *query = &comparison->query;

    if (query->op.result < 0) {
        return machine_fail(machine, query->op.result,
                            "changes behind byte %llu cannot be told (%s)",
                            (unsigned long long)diff->ret_next_bytes,
                            error_name(query->op.result));
    }
    ASSERT_OP(query->ret_count, >, 0u);
    for (uint32_t i = 0; i < query->ret_count; i++) {
        const struct volume_status_extent *extent = &query->extents[i];
        if (extent->changed &&
            !take_run(comparison, diff->ret_next_bytes, extent->length_bytes)) {
            return machine_goto(machine, DIFF_CLOSE);
        }
        diff->ret_next_bytes += extent->length_bytes;
    }
    return machine_goto(machine, reactor_now_ns(machine->manager->control) < comparison->until_ns
                                     ? DIFF_ASK
                                     : DIFF_CLOSE);
}

static enum machine_step
diff_phase(struct machine *machine, uint32_t phase)
{
    struct volume_comparison *comparison =
        container_of(machine, struct volume_comparison, machine);
    struct volume_diff *diff = comparison->diff;

    switch ((enum diff_phase)phase) {
    case DIFF_BEGIN:
        if (begin(comparison, &machine->control->error) < 0) {
            return machine_fail_noted(machine);
        }
        return machine_wait(machine);
    case DIFF_ASK:
        return ask(comparison);
    case DIFF_TAKE:
        return take(comparison);
    case DIFF_CLOSE: /* whoever has the answer can delete the snapshots */
        if (comparison->changes != NULL) {
            machine_arm(machine, &comparison->opened, comparison_opened);
            comparison->changes->closed = ended;
            manager_changes_close(comparison->changes);
        }
        return machine_wait(machine);
    case DIFF_END:
        if (machine->failed) {
            byte_buffer_free(&comparison->runs);
            return MACHINE_NEXT;
        }
        byte_buffer_reserve(&comparison->runs, 1); /* so that there is memory to free */
        diff->ret_runs = (struct volume_diff_run *)(void *)comparison->runs.data;
        diff->ret_count = comparison->run_count;
        return MACHINE_NEXT;
    case DIFF_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
diff_release(struct machine *machine)
{
    struct volume_comparison *comparison =
        container_of(machine, struct volume_comparison, machine);

    round_free(&comparison->round);
    free(comparison);
}

static const struct machine_ops VOLUME_DIFF_OPS = {
    .name = "diff",
    .phase_names = DIFF_PHASE_NAMES,
    .phase_count = DIFF_PHASE_COUNT,
    .failed_phase = DIFF_CLOSE,
    .phase = diff_phase,
    .release = diff_release,
};

void
manager_volume_diff(struct manager *manager, struct volume_diff *diff)
{
    struct volume_comparison *comparison = calloc(1, sizeof(*comparison));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(comparison != NULL);
    if (diff->runs_max == 0 || diff->runs_max > VOLUME_DIFF_RUNS_MAX) {
        diff->runs_max = VOLUME_DIFF_RUNS_MAX;
    }
    diff->ret_count = 0;
    diff->ret_runs = NULL;
    comparison->diff = diff;
    comparison->until_ns = reactor_now_ns(manager->control) + ANSWER_SECONDS * NS_PER_S;
    machine_init(&comparison->machine, &VOLUME_DIFF_OPS, manager, &diff->control);
    machine_start(&comparison->machine);
}
