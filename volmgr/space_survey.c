/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of a pool, read from the store, and what they tell. See reclaim_impl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/reclaim_impl.h"
#include "volmgr/snapshot_owner_impl.h"
#include "volmgr/space_survey_impl.h"

#define SPACE_SURVEY_PHASES(X)                                                                     \
    X(SEAL)                                                                                        \
    X(SCAN)                                                                                        \
    X(TAKE)                                                                                        \
    X(END)

enum space_survey_phase {
#define PHASE_ENUM(name) SURVEY_##name,
    SPACE_SURVEY_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    SURVEY_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    SPACE_SURVEY_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == SURVEY_PHASE_COUNT, "a name for each phase");

enum {
    SURVEY_SCAN_BYTES = 64 << 10,
    SURVEY_STEP_NS = 20000,
};
#define SURVEY_SEAL_TIMEOUT_NS (5 * NS_PER_S)

struct surveying {
    struct machine machine;
    struct space_survey *survey;
    struct space_table *table;
    struct store_scan scan;
    struct round round;
    struct machine_pause pause;
    int seal_status[REACTOR_COUNT_MAX]; /* each reactor its own */
    uint32_t seals_pending[REACTOR_COUNT_MAX];
};

MACHINE_DONE(scan_done, struct surveying, scan.op)

/* ---- the table ---- */

struct space_cells *
space_table_cells(struct space_table *table, uint64_t branch)
{
    struct space_table_row *rows = table->rows;
    size_t low = 0;
    size_t high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (rows[middle].branch < branch) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < table->count && rows[low].branch == branch ? &rows[low].cells : NULL;
}

/* One for each branch that the pool has; by ascending id, as the list is. */
static struct space_table *
table_new(struct pool *pool)
{
    struct space_table *table = calloc(1, sizeof(*table));
    size_t count = 0;

    ASSERT(table != NULL);
    list_for_each(&pool->branch_list, link) {
        count++;
    }
    table->rows = calloc(MAX(count, (size_t)1), sizeof(*table->rows));
    ASSERT(table->rows != NULL);
    list_for_each(&pool->branch_list, link) {
        table->rows[table->count++].branch =
            list_entry(link, struct pool_branch, link)->record.id;
    }
    return table;
}

static void
table_free(struct space_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        space_cells_free(&table->rows[i].cells);
    }
    free(table->rows);
    byte_buffer_free(&table->empties);
    free(table->views);
    free(table->grains);
    free(table);
}

static struct space_cells *
cells_of(void *context, const struct lineage_branch *branch)
{
    struct space_table *table = context;
    struct space_cells *cells = space_table_cells(table, branch->id);

    return cells != NULL ? cells : &table->none;
}

struct space_source
space_survey_source(const struct space_survey *survey)
{
    return (struct space_source){ cells_of, survey->driver };
}

struct space_table *
space_survey_table(const struct space_survey *survey)
{
    return survey->driver;
}

/* ---- sealing ---- */

struct survey_seal {
    struct volume_seal_wait wait;
    struct round_stop *stop;
};

static struct surveying *
visited_by(const struct round_stop *stop)
{
    return container_of(stop->round, struct surveying, round);
}

static void
sealed(struct io_op *op)
{
    struct survey_seal *seal =
        container_of(container_of(op, struct volume_seal_wait, op), struct survey_seal, wait);
    struct round_stop *stop = seal->stop;
    struct surveying *surveying = visited_by(stop);

    if (op->result < 0) {
        surveying->seal_status[stop->index] = op->result;
    }
    free(seal);
    if (--surveying->seals_pending[stop->index] == 0) {
        round_stop_done(stop);
    }
}

static void
seal_volume(struct round_stop *stop, struct volume *volume)
{
    struct survey_seal *seal = calloc(1, sizeof(*seal));

    ASSERT(seal != NULL);
    seal->stop = stop;
    seal->wait.timeout_ns = SURVEY_SEAL_TIMEOUT_NS;
    seal->wait.any = true;
    seal->wait.op.done = sealed;
    seal->wait.op.reactor_id = reactor_id(volume->shard->reactor);
    visited_by(stop)->seals_pending[stop->index]++;
    volume_seal_now(volume, &seal->wait);
}

static enum machine_step
seal_visit(struct round_stop *stop)
{
    struct surveying *surveying = visited_by(stop);
    struct shard *shard = surveying->survey->pool->shards[stop->index];

    surveying->seals_pending[stop->index] = 1; /* until all have been asked for */
    list_for_each(&shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        if (branch_is_counted(&volume->branch) && !seal_is_clean(volume)) {
            seal_volume(stop, volume);
        }
    }
    return --surveying->seals_pending[stop->index] == 0 ? MACHINE_NEXT : MACHINE_WAIT;
}

/* ---- reading ---- */

static enum machine_step
scan(struct surveying *surveying)
{
    struct store_scan *scan = &surveying->scan;

    for (uint32_t i = 0; i < REACTOR_COUNT_MAX; i++) {
        if (surveying->seal_status[i] < 0) {
            return machine_fail(&surveying->machine, surveying->seal_status[i],
                                "a volume cannot be made durable now");
        }
    }
    scan->family = STORE_FAMILY_HISTORY;
    scan->prefix[0] = HISTORY_COUNTER;
    scan->prefix_bytes = 1;
    scan->bytes_max = SURVEY_SCAN_BYTES;
    byte_buffer_clear(&scan->items);
    machine_arm(&surveying->machine, &scan->op, scan_done);
    store_scan(surveying->survey->pool->store, scan);
    return machine_wait(&surveying->machine);
}

static int
take_item(struct surveying *surveying, const struct store_batch_item *item)
{
    struct history_counter counter;
    int64_t count = 0;

    int result = history_counter_key_decode(item->key, item->key_bytes, &counter);
    if (result == 0) {
        result = schema_get_counter(item->value, item->value_bytes, &count);
    }
    if (result == 0 && count == 0) {
        byte_buffer_append(&surveying->table->empties, &counter, sizeof(counter));
    } else if (result == 0) {
        struct space_cells *cells = space_table_cells(surveying->table, counter.branch);
        if (cells != NULL && counter.birth < counter.death) {
            space_cells_add(cells, counter.birth, counter.death, count);
        }
    }
    return result;
}

static enum machine_step
take(struct surveying *surveying)
{
    struct machine *machine = &surveying->machine;
    struct store_scan *scan = &surveying->scan;
    struct store_batch_item item;
    size_t position = 0;
    int next = machine->status;

    while (next >= 0) {
        next = store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item);
        if (next == 0) {
            break;
        }
        next = next > 0 ? take_item(surveying, &item) : next;
    }
    if (next < 0) {
        return machine_fail(machine, next, "counters cannot be read");
    }
    if (!scan->ret_more) {
        return MACHINE_NEXT;
    }
    memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
    scan->start_bytes = scan->ret_next_bytes;
    machine_goto(machine, SURVEY_SCAN);
    machine_pause(machine, &surveying->pause, SURVEY_STEP_NS);
    return machine_wait(machine);
}

/* A branch that has had one generation has no counters: the number of its head's grains is it. */
static void
count_young_branches(struct surveying *surveying)
{
    struct pool *pool = surveying->survey->pool;

    list_for_each(&pool->branch_list, link) {
        const struct pool_branch *branch = list_entry(link, struct pool_branch, link);
        struct space_cells *cells = space_table_cells(surveying->table, branch->record.id);
        if (cells != NULL && cells->count == 0 && branch->lineage->has_head &&
            branch->lineage->parent == NULL && branch->volume != NULL) {
            space_cells_add(cells, 1, SPACE_ALIVE,
                            (int64_t)__atomic_load_n(&branch->volume->mapped_grains,
                                                     __ATOMIC_RELAXED));
        }
    }
}

static enum machine_step
survey_phase(struct machine *machine, uint32_t phase)
{
    struct surveying *surveying = container_of(machine, struct surveying, machine);

    switch ((enum space_survey_phase)phase) {
    case SURVEY_SEAL:
        if (surveying->survey->exact) {
            round_all(machine, &surveying->round, seal_visit);
        }
        return machine_wait(machine);
    case SURVEY_SCAN:
        return scan(surveying);
    case SURVEY_TAKE:
        return take(surveying);
    case SURVEY_END:
        return MACHINE_NEXT;
    case SURVEY_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
survey_release(struct machine *machine)
{
    struct surveying *surveying = container_of(machine, struct surveying, machine);
    struct space_survey *survey = surveying->survey;
    int code = machine->control->error.code;

    if (code == 0) {
        count_young_branches(surveying);
        survey->driver = surveying->table;
    } else {
        table_free(surveying->table);
    }
    survey->op.reactor_id = reactor_id(machine->manager->control);
    round_free(&surveying->round);
    byte_buffer_free(&surveying->scan.items);
    free(surveying);
    reactor_complete(&survey->op, code);
}

static const struct machine_ops SPACE_SURVEY_OPS = {
    .name = "space survey",
    .phase_names = PHASE_NAMES,
    .phase_count = SURVEY_PHASE_COUNT,
    .failed_phase = SURVEY_END,
    .phase = survey_phase,
    .release = survey_release,
};

void
space_survey_start(struct space_survey *survey, struct pool *pool)
{
    struct surveying *surveying = calloc(1, sizeof(*surveying));

    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(surveying != NULL);
    survey->pool = pool;
    survey->driver = NULL;
    surveying->survey = survey;
    surveying->table = table_new(pool);
    machine_init(&surveying->machine, &SPACE_SURVEY_OPS, pool->manager, NULL);
    machine_start(&surveying->machine);
}

void
space_survey_free(struct space_survey *survey)
{
    if (survey->driver != NULL) {
        table_free(survey->driver);
        survey->driver = NULL;
    }
}

/* ---- answers ---- */

static void
ask_line(struct space_survey *survey, struct lineage_branch *top)
{
    struct space_table *table = survey->driver;
    struct space_source source = space_survey_source(survey);

    table->top = top;
    table->view_count = lineage_views(top, NULL, 0);
    free(table->views);
    free(table->grains);
    table->views = calloc((size_t)table->view_count + 1, sizeof(*table->views));
    table->grains = calloc((size_t)table->view_count + 1, sizeof(*table->grains));
    ASSERT(table->views != NULL && table->grains != NULL);
    lineage_views(top, table->views, table->view_count);
    space_line_exclusive(&source, top, table->grains);
}

uint64_t
space_survey_exclusive(struct space_survey *survey, const struct pool_branch *branch,
                       uint32_t generation)
{
    struct space_table *table = survey->driver;
    struct lineage_branch *top = lineage_top(branch->lineage);
    struct space_victim victim = { .branch = branch->lineage, .generation = generation };

    ASSERT(table != NULL);
    if (generation == LINEAGE_FOREVER && lineage_bottom(top)->parent != NULL) {
        return reclaim_would_free(survey, &victim, 1, NULL); /* what it was made from may go, too */
    }
    const struct lineage_view *view = lineage_find_view(branch->lineage, generation);
    if (generation != LINEAGE_FOREVER && (view == NULL || view->dependents > 0)) {
        return 0;
    }
    if (table->top != top) {
        ask_line(survey, top);
    }
    uint32_t low = 0;
    uint32_t high = table->view_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->views[middle] < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return table->grains[low];
}

uint64_t
reclaim_would_free(struct space_survey *survey, const struct space_victim *victims,
                   uint32_t count, bool *ret_hidden)
{
    struct space_source source = space_survey_source(survey);

    ASSERT(survey->driver != NULL);
    return space_freed_by(&source, &survey->pool->lineage, victims, count, ret_hidden);
}
