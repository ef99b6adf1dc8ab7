/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the simulator share. Not for tests. */
#ifndef TESTS_SIM_SIM_IMPL_H
#define TESTS_SIM_SIM_IMPL_H

#include "base/list.h"
#include "base/random.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_model.h"
#include "tests/sim/sim_socket.h"
#include "tests/sim/sim_tree.h"

enum {
    SIM_DISK_COUNT_MAX = 256,
    SIM_STORE_COUNT_MAX = 64,
    SIM_FAULT_COUNT_MAX = 32,
};

/* ---- events: what happens at a time ---- */

struct sim_event;
typedef void sim_event_fn(struct sim *sim, struct sim_event *event);

struct sim_event {
    sim_event_fn *fire;
    uint64_t due_ns;
    uint64_t number; /* order among those due at the same time */
    uint32_t slot;   /* position in the heap plus one; 0: not scheduled */
};

void sim_schedule(struct sim *sim, struct sim_event *event, uint64_t due_ns, sim_event_fn *fire);
/* No effect if it is not scheduled. */
void sim_unschedule(struct sim *sim, struct sim_event *event);

/* ---- streams of random numbers: what one part draws does not change what another gets ---- */

enum sim_stream {
    SIM_STREAM_SCHEDULE,
    SIM_STREAM_PRODUCT,
    SIM_STREAM_DISK,
    SIM_STREAM_SOCKET,
    SIM_STREAM_STORE,
    SIM_STREAM_TEST,
    SIM_STREAM_KILL,
    SIM_STREAM_COUNT
};

/* ---- the machine ---- */

struct io_engine {
    struct list link; /* sim.engines */
    struct sim *sim;
    struct reactor *reactor;
    struct io_op *due_first; /* completions to be reaped, by ready_next, results in `result` */
    struct io_op *due_last;
};

struct sim_volatile {
    struct list link; /* sim.volatiles */
    char *name;
    uint8_t *memory;
    size_t size_bytes;
    uint8_t *frozen; /* its content when the simulation stopped; otherwise NULL */
    bool mapped;
};

/* Commits of a store that are not known to be durable; see store_sim.h. */
struct sim_store_model {
    struct sim_tree *durable;
    uint64_t durable_number;
    struct sim_store_pending {
        uint64_t number;
        struct sim_tree *root;
    } * pending; /* ascending */
    uint32_t pending_count;
    uint32_t pending_capacity;
};

struct sim_store;
struct sim_log;

struct sim {
    struct platform platform; /* first member: the platform is the machine */
    struct sim_options options;
    struct random streams[SIM_STREAM_COUNT];

    uint64_t now_ns;
    uint64_t boot_ns; /* when the clock of this boot began */
    uint64_t realtime_offset_ns;
    uint64_t boot_count;
    struct sim_event **heap;
    uint32_t heap_count;
    uint32_t heap_capacity;
    uint64_t next_event_number;

    struct list engines;
    struct list volatiles;
    struct list files;
    struct list sockets;     /* struct platform_socket */
    struct list connections; /* struct sim_connection */
    struct sim_disk *disks[SIM_DISK_COUNT_MAX];
    uint32_t disk_count;
    struct sim_store *stores[SIM_STORE_COUNT_MAX];
    uint32_t store_count;
    struct sim_network network;
    bool network_held;
    uint32_t next_port;
    uint64_t next_connection;

    struct sim_arena *arena;
    struct sim_arena *scope_stack[32];
    uint32_t scope_depth;
    bool stepping;

    uint64_t trace_hash;
    uint64_t operation_sequence;
    uint64_t event_count;
    uint64_t stop_at;
    bool stopped;
    struct sim_log *log;
};

static inline struct sim *
sim_of(struct platform *platform)
{
    return container_of(platform, struct sim, platform);
}

static inline struct random *
sim_stream(struct sim *sim, enum sim_stream stream)
{
    return &sim->streams[stream];
}

/* Uniform in [low, high]. */
uint64_t sim_between(struct sim *sim, enum sim_stream stream, uint64_t low, uint64_t high);

/* Queue a completion for the reactor of `engine`; it is reaped at the next engine_poll(). */
void sim_engine_complete(struct io_engine *engine, struct io_op *op, int32_t result);
/* As sim_engine_complete(), after `op` was marked as submitted on that reactor. */
void sim_engine_take(struct io_engine *engine, struct io_op *op);
/* Fire what is due by now. */
void sim_fire_due(struct sim *sim);
/* When the next event is due; UINT64_MAX: none. */
uint64_t sim_next_event_ns(const struct sim *sim);

/* ---- the trace ---- */

enum sim_trace_tag {
    SIM_TRACE_PASS = 1,
    SIM_TRACE_SUBMIT,
    SIM_TRACE_COMPLETE,
    SIM_TRACE_ABANDON,
    SIM_TRACE_DROP_CACHE,
    SIM_TRACE_STORE_SUBMIT,
    SIM_TRACE_STORE_COMPLETE,
    SIM_TRACE_STORE_READ,
    SIM_TRACE_SOCKET,
    SIM_TRACE_KILL,
    SIM_TRACE_POWER_CUT,
    SIM_TRACE_STOP,
};

void sim_trace(struct sim *sim, enum sim_trace_tag tag, uint64_t a, uint64_t b, uint64_t c,
               uint64_t d);
/* Count an event of sim_event_count(); stops the simulation if it is the one. */
void sim_count_event(struct sim *sim);

/* ---- disks (sim_disk.c) ---- */

struct sim_disk_rule {
    struct sim_fault fault;
    uint64_t seen;
    uint64_t struck;
};

struct sim_disk {
    struct sim *sim;
    uint32_t index;
    char *path;
    struct sim_disk_properties properties; /* defaults filled in */
    bool missing;
    struct sim_image visible; /* what reads see */
    struct sim_model model;   /* what a cut would leave */
    struct list transfers;    /* in flight */
    uint32_t orphan_count;    /* of them, of killed processes that held the lock */
    struct platform_file *locked_by;
    struct sim_disk_rule rules[SIM_FAULT_COUNT_MAX];
    uint32_t rule_count;
    struct sim_disk_statistics statistics;
};

struct platform_file {
    struct list link; /* sim.files */
    struct sim_disk *disk;
    uint32_t flags;
    uint32_t in_flight;
    struct file_properties properties;
};

void sim_disk_submit(struct io_engine *engine, struct file_io *io);
void sim_disk_destroy(struct sim_disk *disk);
/* Give the disk a content, all of it durable; takes over `image`. */
void sim_disk_set_content(struct sim_disk *disk, struct sim_image *image);
/* The process dies: see sim_kill(). Fails what is in flight when the simulation stops (S4). */
void sim_disk_kill(struct sim_disk *disk);
void sim_disk_stop(struct sim_disk *disk);
/* Nothing in flight goes on; the content becomes `image`, which is taken over. */
void sim_disk_power_cut(struct sim_disk *disk, struct sim_image *image);

/* ---- sockets (sim_socket.c) ---- */

int sim_socket_listen(struct platform *platform, const char *address, uint32_t mode,
                      struct platform_socket **ret_listener,
                      char ret_bound[static SOCKET_ADDRESS_SIZE], struct error *error);
void sim_socket_accept(struct io_engine *engine, struct socket_accept *accept);
void sim_socket_receive(struct io_engine *engine, struct socket_io *io);
void sim_socket_send(struct io_engine *engine, struct socket_io *io);
void sim_socket_shutdown(struct io_engine *engine, struct platform_socket *socket);
void sim_socket_close(struct platform_socket *socket);
/* All sockets of the process vanish; clients see a reset, or the end, by seed. */
void sim_socket_kill_all(struct sim *sim, bool reset);
/* Before the simulator goes: clients that were not closed go with it. */
void sim_socket_free_all(struct sim *sim);

/* ---- stores (store_sim.c) ---- */

void sim_store_model_free(struct sim_store_model *model);
void sim_store_model_clone(struct sim_store_model *ret_model, const struct sim_store_model *from);
/* Takes over `root`. */
void sim_store_model_submit(struct sim_store_model *model, uint64_t number, struct sim_tree *root);
/* Commits up to `number` are durable. */
void sim_store_model_durable(struct sim_store_model *model, uint64_t number);
/* Commits after `number` never happened. */
void sim_store_model_truncate(struct sim_store_model *model, uint64_t number);
/* How many commits beyond the durable one a cut keeps, and the state (an owned reference). */
uint32_t sim_store_model_choose(const struct sim_store_model *model, uint32_t store_index,
                                const struct sim_cut_plan *plan, const struct sim_cut *cut);
struct sim_tree *sim_store_model_root(const struct sim_store_model *model, uint32_t kept);

const char *sim_store_name(const struct sim_store *store);
const struct sim_store_model *sim_store_model(const struct sim_store *store);
void sim_store_destroy(struct sim_store *store);
void sim_store_kill(struct sim_store *store);
/* What is in flight fails (S4). */
void sim_store_stop(struct sim_store *store);
/* The state becomes `root`, which is taken over, for certain. Creates the store when needed. */
void sim_store_set_content(struct sim *sim, const char *name, struct sim_tree *root);
void sim_store_power_cut(struct sim_store *store, uint32_t kept);

/* ---- the log (sim_log.c): notes of what happened; no effect when nothing records ---- */

void sim_log_note_submit(struct sim *sim, struct sim_operation *operation);
void sim_log_note_complete(struct sim *sim, struct sim_operation *operation);
void sim_log_note_abandon(struct sim *sim, struct sim_operation *operation);
void sim_log_note_drop_cache(struct sim *sim, const struct sim_disk *disk, uint64_t seed);
void sim_log_note_disk(struct sim *sim, const struct sim_disk *disk);
void sim_log_note_store(struct sim *sim, const struct sim_store *store);
void sim_log_note_commit(struct sim *sim, uint32_t store_index, uint64_t number,
                         struct sim_tree *root);
void sim_log_note_commit_done(struct sim *sim, uint32_t store_index, uint64_t number, bool durable);
void sim_log_note_truncate(struct sim *sim, uint32_t store_index, uint64_t number);

#endif
