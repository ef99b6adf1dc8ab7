/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random workload on a rig, for tests that cut or kill in the middle of it: two disks, a store,
 * several operations in flight at a time. It runs inside done() functions and messages, as product
 * code does, and draws from the simulator's seed only.
 */
#ifndef TESTS_UNIT_SIM_WORKLOAD_H
#define TESTS_UNIT_SIM_WORKLOAD_H

#include "base/byte_buffer.h"
#include "metadata/store.h"
#include "tests/sim/store_sim.h"
#include "tests/unit/sim/rig.h"

#define WORKLOAD_STORE "store"

enum {
    WORKLOAD_SLOTS = 6,
    WORKLOAD_DISKS = 2,
};

struct workload;

struct workload_slot {
    struct file_io io;
    struct iovec iov;
    struct store_commit commit;
    struct byte_buffer batch;
    uint8_t *data;
    struct workload *workload;
};

/* Allocated by the process; dies with it. */
struct workload {
    struct sim *sim;
    struct platform *platform;
    struct reactor *reactor;
    struct platform_file *files[WORKLOAD_DISKS];
    struct store *store;
    struct message start;
    struct workload_slot slots[WORKLOAD_SLOTS];
    uint32_t left;
    uint32_t in_flight;
    uint8_t *ring; /* volatile memory: counts what was started */
};

static inline int
workload_merge(enum store_family family, const uint8_t *key, size_t key_bytes,
               struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes)
{
    (void)family;
    (void)key;
    (void)key_bytes;
    byte_buffer_append(value, operand, operand_bytes);
    return 0;
}

static inline void workload_next(struct workload_slot *slot);

static inline void
workload_file_done(struct io_op *op)
{
    struct workload_slot *slot = container_of(op, struct workload_slot, io.op);
    slot->workload->in_flight--;
    workload_next(slot);
}

static inline void
workload_commit_done(struct io_op *op)
{
    struct workload_slot *slot = container_of(op, struct workload_slot, commit.op);
    slot->workload->in_flight--;
    workload_next(slot);
}

static inline void
workload_commit(struct workload_slot *slot, uint64_t number)
{
    struct workload *workload = slot->workload;
    uint8_t key = (uint8_t)sim_random_below(workload->sim, 20);
    byte_buffer_clear(&slot->batch);
    store_batch_put(&slot->batch, STORE_FAMILY_SYSTEM, "last", 4, &number, sizeof(number));
    store_batch_merge(&slot->batch, STORE_FAMILY_MAP, &key, 1, &number, 1);
    slot->commit.op.done = workload_commit_done;
    slot->commit.batch = &slot->batch;
    slot->commit.sync = sim_random_below(workload->sim, 2) == 0;
    store_commit(workload->store, &slot->commit);
}

static inline void
workload_next(struct workload_slot *slot)
{
    static const enum file_io_kind kinds[] = {
        FILE_IO_WRITE, FILE_IO_WRITE, FILE_IO_WRITE,        FILE_IO_READ,
        FILE_IO_FLUSH, FILE_IO_FLUSH, FILE_IO_WRITE_ZEROES, FILE_IO_DISCARD,
    };
    struct workload *workload = slot->workload;
    if (workload->left == 0) {
        return;
    }
    workload->left--;
    workload->in_flight++;
    workload->ring[0]++;
    if (sim_random_below(workload->sim, 5) == 0) {
        workload_commit(slot, workload->left);
        return;
    }
    uint64_t length_bytes = 512 * (1 + sim_random_below(workload->sim, 32));
    memset(slot->data, (int)(workload->left % 255) + 1, length_bytes);
    slot->iov = (struct iovec){ .iov_base = slot->data, .iov_len = length_bytes };
    slot->io = (struct file_io){
        .op = { .done = workload_file_done },
        .file = workload->files[sim_random_below(workload->sim, WORKLOAD_DISKS)],
        .kind = kinds[sim_random_below(workload->sim, ARRAY_SIZE(kinds))],
        .offset_bytes = 512 * sim_random_below(workload->sim, 256),
        .length_bytes = length_bytes,
    };
    if (slot->io.kind == FILE_IO_READ || slot->io.kind == FILE_IO_WRITE) {
        slot->io.fua = slot->io.kind == FILE_IO_WRITE && workload->left % 7 == 0;
        slot->io.iov = &slot->iov;
        slot->io.iov_count = 1;
    }
    workload->platform->ops->file_submit(reactor_engine(workload->reactor), &slot->io);
}

static inline void
workload_begin(struct message *message)
{
    struct workload *workload = container_of(message, struct workload, start);
    for (uint32_t i = 0; i < WORKLOAD_SLOTS; i++) {
        workload_next(&workload->slots[i]);
    }
}

static inline void
workload_create_disks(struct sim *sim)
{
    (void)sim_disk_create(sim, "sim:0", &(struct sim_disk_properties){ .size_bytes = MIB });
    (void)sim_disk_create(sim, "sim:1",
                          &(struct sim_disk_properties){ .size_bytes = MIB, .dirty = true });
}

/* Start it on a machine with disks; it runs when the simulator is stepped. */
static inline struct workload *
workload_start(struct sim *sim, uint32_t operations)
{
    void *ring;
    bool existed;
    sim_process_enter(sim);
    struct workload *workload = calloc(1, sizeof(*workload));
    workload->sim = sim;
    workload->platform = sim_platform(sim);
    workload->left = operations;
    const struct reactor_options options = { .id = 3, .cpu = -1 };
    assert_int_equal(reactor_create(workload->platform, &options, &workload->reactor, NULL), 0);
    const struct platform_ops *ops = workload->platform->ops;
    for (uint32_t i = 0; i < WORKLOAD_DISKS; i++) {
        const char *path = i == 0 ? "sim:0" : "sim:1";
        assert_int_equal(ops->file_open(workload->platform, path, FILE_OPEN_DIRECT | FILE_OPEN_LOCK,
                                        0, &workload->files[i], NULL),
                         0);
    }
    assert_int_equal(store_sim_open(sim, WORKLOAD_STORE, !sim_store_exists(sim, WORKLOAD_STORE),
                                    workload_merge, &workload->store, NULL),
                     0);
    assert_int_equal(ops->volatile_map(workload->platform, "ring", 4096, &ring, &existed, NULL), 0);
    workload->ring = ring;
    for (uint32_t i = 0; i < WORKLOAD_SLOTS; i++) {
        workload->slots[i].workload = workload;
        workload->slots[i].data = aligned_alloc(4096, 16384);
    }
    reactor_send(workload->reactor, &workload->start, workload_begin);
    sim_process_leave(sim);
    return workload;
}

static inline bool
workload_is_finished(void *context)
{
    const struct workload *workload = context;
    return workload->left == 0 && workload->in_flight == 0;
}

/* A clean shutdown of a workload that is finished. */
static inline void
workload_end(struct workload *workload)
{
    struct sim *sim = workload->sim;
    const struct platform_ops *ops = workload->platform->ops;
    sim_process_enter(sim);
    for (uint32_t i = 0; i < WORKLOAD_SLOTS; i++) {
        free(workload->slots[i].data);
        byte_buffer_free(&workload->slots[i].batch);
    }
    for (uint32_t i = 0; i < WORKLOAD_DISKS; i++) {
        ops->file_close(workload->files[i]);
    }
    ops->volatile_unmap(workload->platform, workload->ring, 4096);
    workload->store->ops->close(workload->store);
    reactor_destroy(workload->reactor);
    free(workload);
    sim_process_leave(sim);
    assert_int_equal(sim_process_blocks(sim), 0);
}

/* Of all disks and the store. */
static inline uint64_t
workload_content_hash(struct sim *sim)
{
    return hash_u64(sim_disk_content_hash(sim_disk_find(sim, "sim:0"))) +
           hash_u64(sim_disk_content_hash(sim_disk_find(sim, "sim:1")) + 1) +
           hash_u64(sim_store_content_hash(sim, WORKLOAD_STORE) + 2);
}

#endif
