/* SPDX-License-Identifier: Apache-2.0 */
/* The loop, the clock, and the life and death of the process; sim.h has the theory. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/platform_sim.h"
#include "tests/sim/sim_impl.h"
#include "tests/sim/sim_log.h"

enum {
    PASS_COST_NS_DEFAULT = 500,
    HEAP_CAPACITY_MIN = 64,
};

/* ---- events ---- */

static bool
event_before(const struct sim_event *left, const struct sim_event *right)
{
    if (left->due_ns != right->due_ns) {
        return left->due_ns < right->due_ns;
    }
    return left->number < right->number;
}

static void
heap_place(struct sim *sim, uint32_t index, struct sim_event *event)
{
    sim->heap[index] = event;
    event->slot = index + 1;
}

static void
heap_sift(struct sim *sim, uint32_t index, struct sim_event *event)
{
    while (index > 0 && event_before(event, sim->heap[(index - 1) / 2])) {
        heap_place(sim, index, sim->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child + 1 < sim->heap_count && event_before(sim->heap[child + 1], sim->heap[child])) {
            child++;
        }
        if (child >= sim->heap_count || !event_before(sim->heap[child], event)) {
            break;
        }
        heap_place(sim, index, sim->heap[child]);
        index = child;
    }
    heap_place(sim, index, event);
}

void
sim_schedule(struct sim *sim, struct sim_event *event, uint64_t due_ns, sim_event_fn *fire)
{
    ASSERT_OP(event->slot, ==, 0u);
    if (sim->heap_count == sim->heap_capacity) {
        sim->heap_capacity = MAX(sim->heap_capacity * 2, (uint32_t)HEAP_CAPACITY_MIN);
        sim->heap = sim_resize(sim->heap, sim->heap_capacity * sizeof(struct sim_event *));
    }
    event->fire = fire;
    event->due_ns = MAX(due_ns, sim->now_ns);
    event->number = sim->next_event_number++;
    sim->heap_count++;
    heap_sift(sim, sim->heap_count - 1, event);
}

void
sim_unschedule(struct sim *sim, struct sim_event *event)
{
    if (event->slot == 0) {
        return;
    }
    uint32_t index = event->slot - 1;
    ASSERT(sim->heap[index] == event);
    event->slot = 0;
    sim->heap_count--;
    if (index < sim->heap_count) {
        heap_sift(sim, index, sim->heap[sim->heap_count]);
    }
}

void
sim_fire_due(struct sim *sim)
{
    while (sim->heap_count > 0 && sim->heap[0]->due_ns <= sim->now_ns && !sim->stopped) {
        struct sim_event *event = sim->heap[0];
        sim_unschedule(sim, event);
        event->fire(sim, event);
    }
}

uint64_t
sim_next_event_ns(const struct sim *sim)
{
    return sim->heap_count > 0 ? sim->heap[0]->due_ns : UINT64_MAX;
}

/* ---- randomness and the trace ---- */

uint64_t
sim_between(struct sim *sim, enum sim_stream stream, uint64_t low, uint64_t high)
{
    ASSERT_OP(low, <=, high);
    return low + random_below(sim_stream(sim, stream), high - low + 1);
}

uint64_t
sim_random(struct sim *sim)
{
    return random_u64(sim_stream(sim, SIM_STREAM_TEST));
}

uint64_t
sim_random_below(struct sim *sim, uint64_t limit)
{
    return random_below(sim_stream(sim, SIM_STREAM_TEST), limit);
}

static const char *
trace_tag_name(enum sim_trace_tag tag)
{
    switch (tag) {
    case SIM_TRACE_PASS:
        return "pass";
    case SIM_TRACE_SUBMIT:
        return "submit";
    case SIM_TRACE_COMPLETE:
        return "complete";
    case SIM_TRACE_ABANDON:
        return "abandon";
    case SIM_TRACE_DROP_CACHE:
        return "drop-cache";
    case SIM_TRACE_STORE_SUBMIT:
        return "store-submit";
    case SIM_TRACE_STORE_COMPLETE:
        return "store-complete";
    case SIM_TRACE_STORE_READ:
        return "store-read";
    case SIM_TRACE_SOCKET:
        return "socket";
    case SIM_TRACE_KILL:
        return "kill";
    case SIM_TRACE_POWER_CUT:
        return "power-cut";
    case SIM_TRACE_STOP:
        return "stop";
    }
    UNREACHABLE();
}

void
sim_trace(struct sim *sim, enum sim_trace_tag tag, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    const uint64_t words[] = { sim->now_ns, (uint64_t)tag, a, b, c, d };
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        sim->trace_hash = hash_u64(sim->trace_hash + words[i]);
    }
    if (sim->options.verbose) {
        fprintf(stderr,
                "%12" PRIu64 " #%-6" PRIu64 " %-14s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64
                "\n",
                sim->now_ns, sim->event_count, trace_tag_name(tag), a, b, c, (int64_t)d);
    }
}

uint64_t
sim_trace_hash(const struct sim *sim)
{
    return sim->trace_hash;
}

/* ---- stopping ---- */

static void
stop_now(struct sim *sim)
{
    sim->stopped = true;
    sim_trace(sim, SIM_TRACE_STOP, sim->event_count, 0, 0, 0);
    /* The pass that is running goes on to its end: what it writes there must not count. */
    list_for_each(&sim->volatiles, node) {
        struct sim_volatile *map = list_entry(node, struct sim_volatile, link);
        map->frozen = sim_allocate_raw(map->size_bytes);
        memcpy(map->frozen, map->memory, map->size_bytes);
    }
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        sim_disk_stop(sim->disks[i]);
    }
    for (uint32_t i = 0; i < sim->store_count; i++) {
        sim_store_stop(sim->stores[i]);
    }
}

void
sim_count_event(struct sim *sim)
{
    ASSERT(!sim->stopped);
    sim->event_count++;
    if (sim->event_count == sim->stop_at) {
        stop_now(sim);
    }
}

void
sim_stop_at(struct sim *sim, uint64_t event_number)
{
    ASSERT(event_number == 0 || event_number > sim->event_count);
    sim->stop_at = event_number;
}

bool
sim_has_stopped(const struct sim *sim)
{
    return sim->stopped;
}

uint64_t
sim_event_count(const struct sim *sim)
{
    return sim->event_count;
}

/* ---- the loop ---- */

static bool
engine_has_work(const struct io_engine *engine)
{
    return engine->due_first != NULL || reactor_has_work(engine->reactor);
}

/* One of the engines that have work, each with the same chance; NULL: none has. */
static struct io_engine *
pick_engine(struct sim *sim)
{
    struct io_engine *picked = NULL;
    uint64_t candidates = 0;

    list_for_each(&sim->engines, node) {
        struct io_engine *engine = list_entry(node, struct io_engine, link);
        if (engine_has_work(engine)) {
            candidates++;
            if (random_below(sim_stream(sim, SIM_STREAM_SCHEDULE), candidates) == 0) {
                picked = engine;
            }
        }
    }
    return picked;
}

static uint64_t
next_timer_ns(const struct sim *sim)
{
    uint64_t earliest_ns = UINT64_MAX;
    list_for_each(&sim->engines, node) {
        const struct io_engine *engine = list_entry(node, struct io_engine, link);
        uint64_t due_ns = reactor_next_timer_ns(engine->reactor);
        if (due_ns < UINT64_MAX - sim->boot_ns) {
            earliest_ns = MIN(earliest_ns, due_ns + sim->boot_ns);
        }
    }
    return earliest_ns;
}

static void
run_pass(struct sim *sim, struct io_engine *engine)
{
    ASSERT(!sim->stepping);
    sim_trace(sim, SIM_TRACE_PASS, reactor_id(engine->reactor), 0, 0, 0);
    sim->stepping = true;
    sim_process_enter(sim);
    (void)reactor_pass(engine->reactor, false, 0);
    sim_process_leave(sim);
    sim->stepping = false;
    sim->now_ns += sim->options.pass_cost_ns;
}

/* As sim_step(), but the clock goes to `until_ns` at most when nobody has work. */
static bool
step_until(struct sim *sim, uint64_t until_ns, bool with_timers)
{
    if (sim->stopped) {
        return false;
    }
    sim_fire_due(sim);
    if (sim->stopped) {
        return false;
    }
    struct io_engine *engine = pick_engine(sim);
    if (engine != NULL) {
        run_pass(sim, engine);
        return true;
    }
    uint64_t next_ns = sim_next_event_ns(sim);
    if (with_timers) {
        next_ns = MIN(next_ns, next_timer_ns(sim));
    }
    if (next_ns == UINT64_MAX) {
        return false;
    }
    sim->now_ns = MAX(sim->now_ns, MIN(next_ns, until_ns));
    sim_fire_due(sim);
    return true;
}

bool
sim_step(struct sim *sim)
{
    return step_until(sim, UINT64_MAX, true);
}

int
sim_run_until(struct sim *sim, sim_predicate_fn *predicate, void *context, uint64_t limit_ns)
{
    uint64_t deadline_ns = sim->now_ns + limit_ns;
    for (;;) {
        if (predicate(context)) {
            return 0;
        }
        if (sim->stopped) {
            return -ECANCELED;
        }
        if (sim->now_ns >= deadline_ns) {
            return -ETIMEDOUT;
        }
        if (!step_until(sim, deadline_ns, true) && !sim->stopped) {
            return -EDEADLK;
        }
    }
}

int
sim_run_for(struct sim *sim, uint64_t duration_ns)
{
    uint64_t deadline_ns = sim->now_ns + duration_ns;
    while (!sim->stopped && sim->now_ns < deadline_ns) {
        if (!step_until(sim, deadline_ns, true)) {
            sim->now_ns = MAX(sim->now_ns, deadline_ns);
        }
    }
    return sim->stopped ? -ECANCELED : 0;
}

int
sim_quiesce(struct sim *sim, uint64_t limit_ns)
{
    uint64_t deadline_ns = sim->now_ns + limit_ns;
    while (step_until(sim, deadline_ns, false)) {
        if (sim->now_ns >= deadline_ns) {
            return -ETIMEDOUT;
        }
    }
    return sim->stopped ? -ECANCELED : 0;
}

uint64_t
sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

void
sim_set_realtime_ns(struct sim *sim, uint64_t realtime_ns)
{
    sim->realtime_offset_ns = realtime_ns - sim->now_ns;
}

/* ---- whose memory ---- */

static void
scope_enter(struct sim *sim, struct sim_arena *arena)
{
    ASSERT_OP(sim->scope_depth, <, (uint32_t)ARRAY_SIZE(sim->scope_stack));
    sim->scope_stack[sim->scope_depth++] = sim_arena_swap(arena);
}

static void
scope_leave(struct sim *sim, struct sim_arena *arena)
{
    ASSERT_OP(sim->scope_depth, >, 0u);
    struct sim_arena *left = sim_arena_swap(sim->scope_stack[--sim->scope_depth]);
    ASSERT(left == arena);
}

void
sim_process_enter(struct sim *sim)
{
    scope_enter(sim, sim->arena);
}

void
sim_process_leave(struct sim *sim)
{
    scope_leave(sim, sim->arena);
}

void
sim_outside_enter(struct sim *sim)
{
    scope_enter(sim, NULL);
}

void
sim_outside_leave(struct sim *sim)
{
    scope_leave(sim, NULL);
}

uint64_t
sim_process_blocks(const struct sim *sim)
{
    return sim_arena_blocks(sim->arena);
}

/* ---- the end of the process ---- */

/* Engines, files and mappings go; what disks, sockets and stores do is up to the caller. */
static void
end_process(struct sim *sim)
{
    struct list *node;

    while ((node = list_pop_front(&sim->engines)) != NULL) {
        sim_release(list_entry(node, struct io_engine, link));
    }
    while ((node = list_pop_front(&sim->files)) != NULL) {
        struct platform_file *file = list_entry(node, struct platform_file, link);
        if (file->disk->locked_by == file) {
            file->disk->locked_by = NULL;
        }
        sim_release(file);
    }
    list_for_each(&sim->volatiles, volatile_node) {
        struct sim_volatile *map = list_entry(volatile_node, struct sim_volatile, link);
        map->mapped = false;
        if (map->frozen != NULL) {
            memcpy(map->memory, map->frozen, map->size_bytes);
            sim_release(map->frozen);
            map->frozen = NULL;
        }
    }
    sim_arena_kill(sim->arena);
    sim->stopped = false;
    sim->stop_at = 0;
}

void
sim_kill(struct sim *sim)
{
    ASSERT(!sim->stepping && sim->scope_depth == 0);
    sim_trace(sim, SIM_TRACE_KILL, 0, 0, 0, 0);
    sim->stopped = false;
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        sim_disk_kill(sim->disks[i]);
    }
    for (uint32_t i = 0; i < sim->store_count; i++) {
        sim_store_kill(sim->stores[i]);
    }
    sim_socket_kill_all(sim, false);
    end_process(sim);
}

static void
forget_volatiles(struct sim *sim)
{
    struct list *node;
    while ((node = list_pop_front(&sim->volatiles)) != NULL) {
        struct sim_volatile *map = list_entry(node, struct sim_volatile, link);
        sim_release(map->name);
        sim_release(map->memory);
        sim_release(map->frozen);
        sim_release(map);
    }
}

void
sim_power_cut(struct sim *sim, const struct sim_cut *cut)
{
    ASSERT(!sim->stepping && sim->scope_depth == 0);
    struct sim_model *models[SIM_DISK_COUNT_MAX];
    struct sim_cut_plan plan;

    sim_trace(sim, SIM_TRACE_POWER_CUT, cut->seed, (uint64_t)cut->mode, cut->mask, 0);
    sim_log_stop(sim);
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        models[i] = &sim->disks[i]->model;
    }
    sim_cut_plan_make(&plan, cut, models, sim->disk_count);
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        struct sim_image image;
        sim_model_crash(models[i], &plan, &image);
        sim_disk_power_cut(sim->disks[i], &image);
    }
    for (uint32_t i = 0; i < sim->store_count; i++) {
        struct sim_store *store = sim->stores[i];
        sim_store_power_cut(store, sim_store_model_choose(sim_store_model(store), i, &plan, cut));
    }
    sim_socket_kill_all(sim, true);
    end_process(sim);
    forget_volatiles(sim);
    sim->boot_count++;
    sim->boot_ns = sim->now_ns;
}

uint32_t
sim_undecided(const struct sim *sim)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        count += sim_model_undecided(&sim->disks[i]->model);
    }
    return count;
}

/* ---- life ---- */

struct sim *
sim_create(const struct sim_options *options)
{
    struct sim *sim = sim_allocate(sizeof(*sim));
    sim->platform.ops = &platform_sim_ops;
    sim->options = *options;
    if (sim->options.pass_cost_ns == 0) {
        sim->options.pass_cost_ns = PASS_COST_NS_DEFAULT;
    }
    for (uint32_t i = 0; i < SIM_STREAM_COUNT; i++) {
        random_seed(&sim->streams[i], hash_u64(options->seed + i * UINT64_C(0x9e3779b97f4a7c15)));
    }
    list_init(&sim->engines);
    list_init(&sim->volatiles);
    list_init(&sim->files);
    list_init(&sim->sockets);
    list_init(&sim->connections);
    sim->arena = sim_arena_create();
    sim->now_ns = NS_PER_S;
    sim->realtime_offset_ns = UINT64_C(1767225600) * NS_PER_S; /* the start of 2026 */
    sim->trace_hash = options->seed;
    sim_set_network(sim, &(struct sim_network){ 0 });
    return sim;
}

void
sim_destroy(struct sim *sim)
{
    ASSERT(!sim->stepping && sim->scope_depth == 0);
    sim_log_stop(sim);
    sim_socket_kill_all(sim, true);
    sim_socket_free_all(sim);
    for (uint32_t i = 0; i < sim->store_count; i++) {
        sim_store_destroy(sim->stores[i]);
    }
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        sim_disk_destroy(sim->disks[i]);
    }
    struct list *node;
    while ((node = list_pop_front(&sim->engines)) != NULL) {
        sim_release(list_entry(node, struct io_engine, link));
    }
    while ((node = list_pop_front(&sim->files)) != NULL) {
        sim_release(list_entry(node, struct platform_file, link));
    }
    forget_volatiles(sim);
    sim_arena_destroy(sim->arena);
    sim_release(sim->heap);
    sim_release(sim);
}

struct platform *
sim_platform(struct sim *sim)
{
    return &sim->platform;
}
