/* SPDX-License-Identifier: Apache-2.0 */
/* The running side of the simulated metadata store; store_sim.h has the theory. */
#include "tests/sim/store_sim.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"

enum {
    HISTORY_COUNT_MAX = 4096,
    SYNC_FACTOR = 10,
};

enum request_kind {
    REQUEST_GET,
    REQUEST_SCAN,
    REQUEST_COMMIT,
    REQUEST_SNAPSHOT_CREATE,
    REQUEST_OTHER, /* only answers */
};

struct store_rule {
    bool set;
    uint64_t skip;
    uint64_t count;
    int error;
    uint64_t seen;
    uint64_t struck;
};

struct history {
    uint64_t number;
    struct sim_tree *root;
};

/* A snapshot that was not released; a process may die with some. */
struct view {
    struct list link; /* sim_store.views */
    struct sim_tree *root;
};

/* What the name stands for. */
struct sim_store {
    struct sim *sim;
    uint32_t index;
    char *name;
    bool exists;
    bool damaged;
    bool held;
    struct sim_store_handle *handle; /* while open */
    struct sim_store_model model;
    struct sim_tree *visible;   /* after the last commit that completed */
    struct sim_tree *submitted; /* after the last one submitted */
    uint64_t submitted_number;  /* of commits; never used twice */
    uint64_t completed_number;
    bool doomed; /* a commit failed, or will when its turn comes: those behind it fail too */
    struct history *history; /* ascending */
    uint32_t history_count;
    struct list requests; /* in flight, in order of submission */
    struct list views;
    uint64_t ordered_due_ns; /* commits and snapshots do not overtake each other */
    uint64_t latency_ns_min;
    uint64_t latency_ns_max;
    struct store_rule rules[SIM_STORE_CALL_COUNT];
    uint64_t calls[SIM_STORE_CALL_COUNT];
};

struct sim_store_handle {
    struct store store;
    struct sim_store *medium;
    store_merge_fn *merge;
};

struct request {
    struct sim_event event;
    struct list link;
    struct sim_store *medium;
    enum request_kind kind;
    struct io_op *op; /* NULL once answered */
    struct io_engine *engine;
    void *call;            /* the store_get and so on */
    struct sim_tree *root; /* COMMIT: its outcome; reads: what they look at, or as of the end */
    bool root_is_set;
    uint64_t number;
    bool sync;
    int error; /* positive */
    bool parked;
};

static struct sim_store *
medium_of(struct store *store)
{
    return container_of(store, struct sim_store_handle, store)->medium;
}

/* ---- requests ---- */

static void
request_free(struct request *request)
{
    sim_unschedule(request->medium->sim, &request->event);
    list_remove(&request->link);
    sim_tree_put(request->root);
    sim_release(request);
}

static void
request_answer(struct request *request, int32_t result)
{
    if (request->op != NULL) {
        sim_engine_complete(request->engine, request->op, result);
        request->op = NULL;
        request->engine = NULL;
    }
}

static struct request *
request_make(struct sim_store *medium, enum request_kind kind, struct io_op *op, void *call)
{
    struct reactor *self = reactor_self();
    ASSERT(self != NULL);
    struct request *request = sim_allocate(sizeof(*request));
    request->medium = medium;
    request->kind = kind;
    request->op = op;
    request->call = call;
    request->engine = reactor_engine(self);
    ASSERT(request->engine->sim == medium->sim);
    sim_engine_take(request->engine, op);
    list_push_back(&medium->requests, &request->link);
    return request;
}

/* Whether the rule for this kind of call strikes now; returns the error (positive) or 0. */
static int
rule_strikes(struct sim_store *medium, enum sim_store_call call)
{
    struct store_rule *rule = &medium->rules[call];
    medium->calls[call]++;
    if (!rule->set) {
        return 0;
    }
    rule->seen++;
    if (rule->seen <= rule->skip || (rule->count != 0 && rule->struck >= rule->count)) {
        return 0;
    }
    rule->struck++;
    return rule->error;
}

static void request_fire(struct sim *sim, struct sim_event *event);

static void
request_schedule(struct request *request, bool ordered)
{
    struct sim_store *medium = request->medium;
    struct sim *sim = medium->sim;
    if (sim->stopped) {
        request_answer(request, -EIO);
        return;
    }
    uint64_t delay_ns =
        sim_between(sim, SIM_STREAM_STORE, medium->latency_ns_min, medium->latency_ns_max);
    uint64_t due_ns = sim->now_ns + (request->sync ? delay_ns * SYNC_FACTOR : delay_ns);
    if (ordered) {
        due_ns = MAX(due_ns, medium->ordered_due_ns);
        medium->ordered_due_ns = due_ns;
    }
    sim_schedule(sim, &request->event, due_ns, request_fire);
}

/* ---- reads ---- */

static uint32_t
tree_key(uint8_t *ret_key, enum store_family family, const uint8_t *key, uint32_t key_bytes)
{
    ASSERT_OP(key_bytes, <=, (uint32_t)STORE_KEY_BYTES_MAX);
    ret_key[0] = (uint8_t)family;
    memcpy(ret_key + 1, key, key_bytes);
    return key_bytes + 1;
}

static bool
has_prefix(const struct sim_tree_entry *entry, const uint8_t *prefix, uint32_t prefix_bytes)
{
    return entry->key_bytes >= prefix_bytes && memcmp(entry->key, prefix, prefix_bytes) == 0;
}

static int
do_get(struct sim *sim, struct sim_tree *root, struct store_get *get)
{
    uint8_t key[SIM_TREE_KEY_BYTES_MAX];
    uint32_t key_bytes = tree_key(key, get->family, get->key, get->key_bytes);
    const struct sim_tree_entry *entry = sim_tree_find(root, key, key_bytes);

    if (get->floor) {
        entry = sim_tree_floor(root, key, key_bytes, false);
        if (entry != NULL && !has_prefix(entry, key, get->floor_prefix_bytes + 1)) {
            entry = NULL;
        }
    }
    byte_buffer_clear(&get->value);
    get->ret_previous_key_bytes = 0;
    if (entry == NULL) {
        return -ENOENT;
    }
    if (entry->damaged) {
        return -EUCLEAN;
    }
    /* The buffer is the process's: it dies with it. */
    sim_process_enter(sim);
    byte_buffer_append(&get->value, entry->value, entry->value_bytes);
    sim_process_leave(sim);
    get->ret_key_bytes = entry->key_bytes - 1;
    memcpy(get->ret_key, entry->key + 1, get->ret_key_bytes);
    const struct sim_tree_entry *previous =
        get->previous ? sim_tree_floor(root, entry->key, entry->key_bytes, true) : NULL;
    if (previous != NULL && has_prefix(previous, key, get->floor_prefix_bytes + 1)) {
        get->ret_previous_key_bytes = previous->key_bytes - 1;
        memcpy(get->ret_previous_key, previous->key + 1, get->ret_previous_key_bytes);
    }
    return 0;
}

static int
do_scan(struct sim *sim, struct sim_tree *root, struct store_scan *scan)
{
    uint8_t prefix[SIM_TREE_KEY_BYTES_MAX];
    uint8_t start[SIM_TREE_KEY_BYTES_MAX];
    uint32_t prefix_bytes = tree_key(prefix, scan->family, scan->prefix, scan->prefix_bytes);
    uint32_t start_bytes = tree_key(start, scan->family, scan->start, scan->start_bytes);
    const struct sim_tree_entry *entry = sim_tree_ceiling(root, prefix, prefix_bytes, false);

    if (scan->start_bytes > 0) {
        const struct sim_tree_entry *at_start = sim_tree_ceiling(root, start, start_bytes, false);
        /* A start in front of the prefix changes nothing. */
        bool in_front = memcmp(start, prefix, MIN(start_bytes, prefix_bytes)) < 0;
        entry = in_front ? entry : at_start;
    }
    byte_buffer_clear(&scan->items);
    scan->ret_more = false;
    scan->ret_next_bytes = 0;
    while (entry != NULL && has_prefix(entry, prefix, prefix_bytes)) {
        if (entry->damaged) {
            return -EUCLEAN;
        }
        if (scan->items.length_bytes > 0 &&
            scan->items.length_bytes + entry->value_bytes > scan->bytes_max) {
            scan->ret_more = true;
            scan->ret_next_bytes = entry->key_bytes - 1;
            memcpy(scan->ret_next, entry->key + 1, scan->ret_next_bytes);
            break;
        }
        sim_process_enter(sim);
        store_batch_put(&scan->items, scan->family, entry->key + 1, entry->key_bytes - 1,
                        entry->value, entry->value_bytes);
        sim_process_leave(sim);
        entry = sim_tree_ceiling(root, entry->key, entry->key_bytes, true);
    }
    return 0;
}

/* A read may see the state at its submission, or that at its end: both are allowed (M3). */
static void
choose_view(struct request *request)
{
    struct sim_store *medium = request->medium;
    if (random_chance(sim_stream(medium->sim, SIM_STREAM_STORE), 1, 2)) {
        request->root = sim_tree_get(medium->visible);
        request->root_is_set = true;
    }
}

static void
store_sim_get(struct store *store, struct store_get *get)
{
    struct sim_store *medium = medium_of(store);
    struct request *request = request_make(medium, REQUEST_GET, &get->op, get);
    request->error = rule_strikes(medium, SIM_STORE_GET);
    choose_view(request);
    request_schedule(request, false);
}

static void
store_sim_scan(struct store *store, struct store_scan *scan)
{
    struct sim_store *medium = medium_of(store);
    struct request *request = request_make(medium, REQUEST_SCAN, &scan->op, scan);
    request->error = rule_strikes(medium, SIM_STORE_SCAN);
    if (scan->snapshot != NULL) {
        const struct view *view = scan->snapshot->handle;
        request->root = sim_tree_get(view->root);
        request->root_is_set = true;
    } else {
        choose_view(request);
    }
    request_schedule(request, false);
}

/* ---- commits ---- */

static struct sim_tree *
apply_merge(struct sim_tree *root, const struct store_batch_item *item, const uint8_t *key,
            uint32_t key_bytes, store_merge_fn *merge)
{
    const struct sim_tree_entry *old = sim_tree_find(root, key, key_bytes);
    if (old != NULL && old->damaged) {
        return sim_tree_get(root);
    }
    struct byte_buffer value = BYTE_BUFFER_INIT;
    if (old != NULL) {
        byte_buffer_append(&value, old->value, old->value_bytes);
    }
    int result =
        merge(item->family, item->key, item->key_bytes, &value, item->value, item->value_bytes);
    struct sim_tree *changed =
        sim_tree_insert(root, key, key_bytes, value.data, (uint32_t)value.length_bytes, result < 0);
    byte_buffer_free(&value);
    return changed;
}

/* The state after `batch` on top of `root`; an owned reference. */
static struct sim_tree *
apply_batch(struct sim_tree *root, const struct byte_buffer *batch, store_merge_fn *merge)
{
    struct store_batch_item item;
    size_t position = 0;
    int more;
    struct sim_tree *state = sim_tree_get(root);

    while ((more = store_batch_next(batch->data, batch->length_bytes, &position, &item)) == 1) {
        uint8_t key[SIM_TREE_KEY_BYTES_MAX];
        uint32_t key_bytes = tree_key(key, item.family, item.key, item.key_bytes);
        struct sim_tree *next = NULL;
        switch (item.operation) {
        case STORE_PUT:
            next = sim_tree_insert(state, key, key_bytes, item.value, item.value_bytes, false);
            break;
        case STORE_DELETE:
            next = sim_tree_remove(state, key, key_bytes);
            break;
        case STORE_MERGE:
            next = apply_merge(state, &item, key, key_bytes, merge);
            break;
        }
        sim_tree_put(state);
        state = next;
    }
    ASSERT_OP(more, ==, 0); /* batches to be committed are our own */
    return state;
}

static void
history_add(struct sim_store *medium, uint64_t number, struct sim_tree *root)
{
    if (medium->history == NULL) {
        medium->history = sim_allocate_raw(2 * HISTORY_COUNT_MAX * sizeof(*medium->history));
    }
    if (medium->history_count == 2 * HISTORY_COUNT_MAX) {
        for (uint32_t i = 0; i < HISTORY_COUNT_MAX; i++) {
            sim_tree_put(medium->history[i].root);
        }
        memcpy(medium->history, medium->history + HISTORY_COUNT_MAX,
               HISTORY_COUNT_MAX * sizeof(*medium->history));
        medium->history_count = HISTORY_COUNT_MAX;
    }
    medium->history[medium->history_count++] =
        (struct history){ .number = number, .root = sim_tree_get(root) };
}

static void
history_truncate(struct sim_store *medium, uint64_t number)
{
    while (medium->history_count > 0 &&
           medium->history[medium->history_count - 1].number > number) {
        medium->history_count--;
        sim_tree_put(medium->history[medium->history_count].root);
    }
}

static void
store_sim_commit(struct store *store, struct store_commit *commit)
{
    struct sim_store *medium = medium_of(store);
    struct sim *sim = medium->sim;
    struct request *request = request_make(medium, REQUEST_COMMIT, &commit->op, commit);

    request->sync = commit->sync;
    request->error = rule_strikes(medium, SIM_STORE_COMMIT);
    if (medium->doomed || sim->stopped) {
        request->error = EIO;
        request_schedule(request, true);
        return;
    }
    medium->doomed = request->error != 0;
    request->number = ++medium->submitted_number;
    request->root = apply_batch(medium->submitted, commit->batch,
                                container_of(store, struct sim_store_handle, store)->merge);
    sim_tree_put(medium->submitted);
    medium->submitted = sim_tree_get(request->root);
    sim_trace(sim, SIM_TRACE_STORE_SUBMIT, medium->index, request->number,
              crc32c(0, commit->batch->data, commit->batch->length_bytes), commit->sync);
    sim_log_note_commit(sim, medium->index, request->number, request->root);
    sim_store_model_submit(&medium->model, request->number, sim_tree_get(request->root));
    history_add(medium, request->number, request->root);
    request_schedule(request, true);
    sim_count_event(sim);
}

static void
finish_commit(struct request *request)
{
    struct sim_store *medium = request->medium;
    struct sim *sim = medium->sim;
    bool sync = request->sync;
    uint64_t number = request->number;

    ASSERT_OP(number, >, medium->completed_number);
    sim_tree_put(medium->visible);
    medium->visible = sim_tree_get(request->root);
    medium->completed_number = number;
    if (sync) {
        sim_store_model_durable(&medium->model, number);
    }
    sim_log_note_commit_done(sim, medium->index, number, sync);
    request_answer(request, 0);
    request_free(request);
    sim_count_event(sim);
}

/* ---- snapshots and the rest ---- */

static void
view_free(struct view *view)
{
    list_remove(&view->link);
    sim_tree_put(view->root);
    sim_release(view);
}

static void
store_sim_snapshot_create(struct store *store, struct store_snapshot *snapshot)
{
    struct sim_store *medium = medium_of(store);
    struct request *request =
        request_make(medium, REQUEST_SNAPSHOT_CREATE, &snapshot->op, snapshot);
    snapshot->handle = NULL;
    request->error = medium->doomed ? EIO : 0;
    request->root = sim_tree_get(medium->submitted);
    request_schedule(request, true);
}

static void
store_sim_snapshot_release(struct store *store, struct store_snapshot *snapshot)
{
    struct sim_store *medium = medium_of(store);
    struct request *request = request_make(medium, REQUEST_OTHER, &snapshot->op, snapshot);
    ASSERT(snapshot->handle != NULL);
    view_free(snapshot->handle);
    snapshot->handle = NULL;
    request_schedule(request, true);
}

static void
store_sim_ballast(struct store *store, struct store_ballast *ballast)
{
    struct request *request = request_make(medium_of(store), REQUEST_OTHER, &ballast->op, ballast);
    ballast->ret_held_bytes = 0;
    request_schedule(request, true);
}

static int
serve(struct request *request)
{
    struct sim_store *medium = request->medium;
    struct sim_tree *root = request->root_is_set ? request->root : medium->visible;
    if (request->error != 0) {
        return -request->error;
    }
    switch (request->kind) {
    case REQUEST_GET:
        return do_get(medium->sim, root, request->call);
    case REQUEST_SCAN:
        return do_scan(medium->sim, root, request->call);
    case REQUEST_SNAPSHOT_CREATE: {
        struct store_snapshot *snapshot = request->call;
        struct view *view = sim_allocate(sizeof(*view));
        view->root = sim_tree_get(request->root);
        list_push_back(&medium->views, &view->link);
        snapshot->handle = view;
        return 0;
    }
    case REQUEST_OTHER:
        return 0;
    case REQUEST_COMMIT:
        break;
    }
    UNREACHABLE();
}

static void
request_fire(struct sim *sim, struct sim_event *event)
{
    struct request *request = container_of(event, struct request, event);
    if (request->medium->held) {
        request->parked = true;
        return;
    }
    if (request->kind == REQUEST_COMMIT && request->error == 0) {
        sim_trace(sim, SIM_TRACE_STORE_COMPLETE, request->medium->index, request->number, 0, 0);
        finish_commit(request);
        return;
    }
    int result = request->kind == REQUEST_COMMIT ? -request->error : 0;
    if (request->kind != REQUEST_COMMIT && request->op != NULL) {
        result = serve(request);
    }
    sim_trace(sim, SIM_TRACE_STORE_READ, request->medium->index, (uint64_t)request->kind,
              request->number, (uint64_t)(int64_t)result);
    request_answer(request, result);
    request_free(request);
}

/* ---- opening and closing ---- */

static struct sim_store *
medium_find(struct sim *sim, const char *name)
{
    for (uint32_t i = 0; i < sim->store_count; i++) {
        if (strcmp(sim->stores[i]->name, name) == 0) {
            return sim->stores[i];
        }
    }
    return NULL;
}

static struct sim_store *
medium_get(struct sim *sim, const char *name)
{
    struct sim_store *medium = medium_find(sim, name);
    if (medium != NULL) {
        return medium;
    }
    ASSERT_OP(sim->store_count, <, (uint32_t)SIM_STORE_COUNT_MAX);
    medium = sim_allocate(sizeof(*medium));
    medium->sim = sim;
    medium->index = sim->store_count;
    medium->name = sim_copy_text(name);
    medium->latency_ns_min = 5 * NS_PER_US;
    medium->latency_ns_max = 50 * NS_PER_US;
    list_init(&medium->requests);
    list_init(&medium->views);
    sim->stores[sim->store_count++] = medium;
    sim_log_note_store(sim, medium);
    return medium;
}

/* The state is `root`, which is taken over, without anything undecided. */
static void
medium_reset(struct sim_store *medium, struct sim_tree *root)
{
    sim_store_model_free(&medium->model);
    medium->model.durable = sim_tree_get(root);
    medium->model.durable_number = medium->submitted_number;
    sim_tree_put(medium->visible);
    sim_tree_put(medium->submitted);
    medium->visible = sim_tree_get(root);
    medium->submitted = root;
    medium->completed_number = medium->submitted_number;
    medium->doomed = false;
    medium->ordered_due_ns = 0;
}

/* Decide which of the commits that did not complete survive the end of the process (T2). */
static void
settle(struct sim_store *medium)
{
    struct sim *sim = medium->sim;
    struct sim_store_model *model = &medium->model;
    uint32_t completed = 0;

    while (completed < model->pending_count &&
           model->pending[completed].number <= medium->completed_number) {
        completed++;
    }
    uint32_t kept = completed + (uint32_t)random_below(sim_stream(sim, SIM_STREAM_KILL),
                                                       model->pending_count - completed + 1);
    if (kept > completed) {
        medium->completed_number = model->pending[kept - 1].number;
        sim_tree_put(medium->visible);
        medium->visible = sim_tree_get(model->pending[kept - 1].root);
    }
    sim_log_note_truncate(sim, medium->index, medium->completed_number);
    sim_store_model_truncate(model, medium->completed_number);
    history_truncate(medium, medium->completed_number);
    sim_tree_put(medium->submitted);
    medium->submitted = sim_tree_get(medium->visible);
    medium->doomed = false;
    medium->ordered_due_ns = 0;
}

static void
store_sim_close(struct store *store)
{
    struct sim_store_handle *handle = container_of(store, struct sim_store_handle, store);
    struct sim_store *medium = handle->medium;
    struct sim *sim = medium->sim;

    medium->handle = NULL;
    sim_release(handle);
    if (sim->stopped) {
        return;
    }
    ASSERT(list_empty(&medium->requests));
    settle(medium);
    if (medium->model.pending_count > 0) {
        sim_store_model_durable(&medium->model, medium->completed_number);
        sim_log_note_commit_done(sim, medium->index, medium->completed_number, true);
        sim_count_event(sim);
    }
}

static uint64_t
store_sim_size_bytes(struct store *store)
{
    return sim_tree_bytes(medium_of(store)->visible);
}

static const struct store_ops store_sim_ops = {
    .type = "simulated",
    .get = store_sim_get,
    .scan = store_sim_scan,
    .commit = store_sim_commit,
    .snapshot_create = store_sim_snapshot_create,
    .snapshot_release = store_sim_snapshot_release,
    .ballast = store_sim_ballast,
    .close = store_sim_close,
    .size_bytes = store_sim_size_bytes,
};

int
store_sim_open(struct sim *sim, const char *name, bool create, store_merge_fn *merge,
               struct store **ret_store, struct error *error)
{
    struct sim_store *medium = medium_get(sim, name);
    if (sim->stopped) {
        return error_set(error, -EIO, "the machine has stopped");
    }
    if (medium->handle != NULL) {
        return error_set(error, -EBUSY, "the database %s is open already", name);
    }
    if (create && medium->exists) {
        return error_set(error, -EEXIST, "the database %s exists already", name);
    }
    if (!create && !medium->exists) {
        return error_set(error, -ENOENT, "there is no database %s", name);
    }
    if (medium->damaged) {
        return error_set(error, -EUCLEAN, "the database %s is damaged", name);
    }
    medium->exists = true;
    struct sim_store_handle *handle = sim_allocate(sizeof(*handle));
    *handle = (struct sim_store_handle){
        .store = { .ops = &store_sim_ops },
        .medium = medium,
        .merge = merge,
    };
    medium->handle = handle;
    *ret_store = &handle->store;
    return 0;
}

/* ---- what tests and the simulator do to stores ---- */

void
sim_store_fail(struct sim *sim, const char *name, enum sim_store_call call, uint64_t skip,
               uint64_t count, int error)
{
    ASSERT_OP(error, >, 0);
    medium_get(sim, name)->rules[call] =
        (struct store_rule){ .set = true, .skip = skip, .count = count, .error = error };
}

void
sim_store_clear_faults(struct sim *sim, const char *name)
{
    memset(medium_get(sim, name)->rules, 0, sizeof(((struct sim_store *)0)->rules));
}

void
sim_store_set_latency(struct sim *sim, const char *name, uint64_t ns_min, uint64_t ns_max)
{
    struct sim_store *medium = medium_get(sim, name);
    medium->latency_ns_min = ns_min;
    medium->latency_ns_max = ns_max;
}

void
sim_store_hold(struct sim *sim, const char *name, bool held)
{
    struct sim_store *medium = medium_get(sim, name);
    medium->held = held;
    if (held) {
        return;
    }
    list_for_each(&medium->requests, node) {
        struct request *request = list_entry(node, struct request, link);
        if (request->parked) {
            request->parked = false;
            sim_schedule(sim, &request->event, sim->now_ns, request_fire);
        }
    }
}

void
sim_store_lose(struct sim *sim, const char *name)
{
    struct sim_store *medium = medium_get(sim, name);
    ASSERT(medium->handle == NULL);
    ASSERT(sim->log == NULL); /* a recording knows no such event */
    medium->exists = false;
    history_truncate(medium, 0);
    medium_reset(medium, NULL);
}

uint64_t
sim_store_roll_back(struct sim *sim, const char *name, uint64_t commits)
{
    struct sim_store *medium = medium_get(sim, name);
    ASSERT(medium->handle == NULL);
    ASSERT(sim->log == NULL); /* as above */
    /* The last entry of the history is the present. */
    uint64_t undone =
        medium->history_count == 0 ? 0 : MIN(commits, (uint64_t)medium->history_count - 1);
    if (undone > 0) {
        const struct history *past = &medium->history[medium->history_count - 1 - undone];
        struct sim_tree *root = sim_tree_get(past->root);
        history_truncate(medium, past->number);
        medium_reset(medium, root);
    }
    return undone;
}

void
sim_store_set_damaged(struct sim *sim, const char *name, bool damaged)
{
    medium_get(sim, name)->damaged = damaged;
}

bool
sim_store_exists(struct sim *sim, const char *name)
{
    const struct sim_store *medium = medium_find(sim, name);
    return medium != NULL && medium->exists;
}

uint64_t
sim_store_content_hash(struct sim *sim, const char *name)
{
    return sim_tree_hash(medium_get(sim, name)->visible);
}

uint64_t
sim_store_calls(struct sim *sim, const char *name, enum sim_store_call call)
{
    return medium_get(sim, name)->calls[call];
}

const char *
sim_store_name(const struct sim_store *store)
{
    return store->name;
}

const struct sim_store_model *
sim_store_model(const struct sim_store *store)
{
    return &store->model;
}

static void
forget_requests(struct sim_store *store)
{
    list_for_each_safe(&store->requests, node) {
        request_free(list_entry(node, struct request, link));
    }
    list_for_each_safe(&store->views, node) {
        view_free(list_entry(node, struct view, link));
    }
    sim_release(store->handle);
    store->handle = NULL;
}

void
sim_store_destroy(struct sim_store *store)
{
    forget_requests(store);
    sim_store_model_free(&store->model);
    sim_tree_put(store->visible);
    sim_tree_put(store->submitted);
    history_truncate(store, 0);
    sim_release(store->history);
    sim_release(store->name);
    sim_release(store);
}

void
sim_store_kill(struct sim_store *store)
{
    forget_requests(store);
    settle(store);
}

void
sim_store_stop(struct sim_store *store)
{
    list_for_each(&store->requests, node) {
        request_answer(list_entry(node, struct request, link), -EIO);
    }
}

void
sim_store_set_content(struct sim *sim, const char *name, struct sim_tree *root)
{
    struct sim_store *medium = medium_get(sim, name);
    ASSERT(medium->handle == NULL);
    medium->exists = true;
    medium_reset(medium, root);
}

void
sim_store_power_cut(struct sim_store *store, uint32_t kept)
{
    struct sim_tree *root = sim_store_model_root(&store->model, kept);
    uint64_t number =
        kept == 0 ? store->model.durable_number : store->model.pending[kept - 1].number;
    forget_requests(store);
    history_truncate(store, number);
    medium_reset(store, root);
}
