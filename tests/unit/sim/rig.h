/* SPDX-License-Identifier: Apache-2.0 */
/* A small process on a simulated machine: one reactor, one disk, blocking calls for the tests. */
#ifndef TESTS_UNIT_SIM_RIG_H
#define TESTS_UNIT_SIM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"

#define RIG_DISK    "sim:disk"
#define RIG_SECTOR  512u
#define RIG_TIMEOUT (100 * NS_PER_S)

struct rig {
    struct sim *sim;
    struct platform *platform;
    struct sim_disk *disk;
    struct reactor *reactor;
    struct platform_file *file;
};

/* One operation in flight, for tests that want several. */
struct rig_io {
    struct file_io io;
    struct iovec iov;
    bool finished;
    int32_t result;
};

static inline void
rig_io_done(struct io_op *op)
{
    struct rig_io *rig_io = container_of(op, struct rig_io, io.op);
    rig_io->finished = true;
    rig_io->result = op->result;
}

static inline bool
rig_io_is_finished(void *context)
{
    return ((struct rig_io *)context)->finished;
}

static inline struct reactor *
rig_start_reactor(struct sim *sim, uint32_t id)
{
    struct reactor *reactor = NULL;
    const struct reactor_options options = { .id = id, .cpu = -1 };
    sim_process_enter(sim);
    int result = reactor_create(sim_platform(sim), &options, &reactor, NULL);
    sim_process_leave(sim);
    assert_int_equal(result, 0);
    return reactor;
}

static inline int
rig_open(struct rig *rig)
{
    sim_process_enter(rig->sim);
    int result = rig->platform->ops->file_open(
        rig->platform, RIG_DISK, FILE_OPEN_DIRECT | FILE_OPEN_LOCK, 0, &rig->file, NULL);
    sim_process_leave(rig->sim);
    return result;
}

static inline void
rig_start_process(struct rig *rig)
{
    rig->reactor = rig_start_reactor(rig->sim, 0);
    assert_int_equal(rig_open(rig), 0);
}

static inline void
rig_start_on(struct rig *rig, struct sim *sim)
{
    *rig = (struct rig){ .sim = sim, .platform = sim_platform(sim) };
    rig->disk = sim_disk_find(sim, RIG_DISK);
    rig_start_process(rig);
}

static inline void
rig_create(struct rig *rig, uint64_t seed, const struct sim_disk_properties *properties)
{
    struct sim *sim = sim_create(&(struct sim_options){ .seed = seed });
    struct sim_disk_properties filled = *properties;
    if (filled.size_bytes == 0) {
        filled.size_bytes = 4 * MIB;
    }
    (void)sim_disk_create(sim, RIG_DISK, &filled);
    rig_start_on(rig, sim);
}

static inline void
rig_end_process(struct rig *rig)
{
    sim_process_enter(rig->sim);
    rig->platform->ops->file_close(rig->file);
    reactor_destroy(rig->reactor);
    sim_process_leave(rig->sim);
    assert_int_equal(sim_process_blocks(rig->sim), 0);
}

static inline void
rig_destroy(struct rig *rig)
{
    rig_end_process(rig);
    sim_destroy(rig->sim);
}

/* `data` must stay until the end, and be aligned to 512. */
static inline void
rig_submit(struct rig *rig, struct rig_io *rig_io, enum file_io_kind kind, uint64_t offset_bytes,
           void *data, uint64_t length_bytes, bool fua)
{
    *rig_io = (struct rig_io){
        .iov = { .iov_base = data, .iov_len = length_bytes },
        .io = { .op = { .done = rig_io_done },
                .file = rig->file,
                .kind = kind,
                .fua = fua,
                .offset_bytes = offset_bytes,
                .length_bytes = length_bytes },
    };
    if (kind == FILE_IO_READ || kind == FILE_IO_WRITE) {
        rig_io->io.iov = &rig_io->iov;
        rig_io->io.iov_count = 1;
    }
    rig->platform->ops->file_submit(reactor_engine(rig->reactor), &rig_io->io);
}

static inline int32_t
rig_wait(struct rig *rig, struct rig_io *rig_io)
{
    assert_int_equal(sim_run_until(rig->sim, rig_io_is_finished, rig_io, RIG_TIMEOUT), 0);
    return rig_io->result;
}

static inline int32_t
rig_do(struct rig *rig, enum file_io_kind kind, uint64_t offset_bytes, void *data,
       uint64_t length_bytes, bool fua)
{
    struct rig_io rig_io;
    rig_submit(rig, &rig_io, kind, offset_bytes, data, length_bytes, fua);
    return rig_wait(rig, &rig_io);
}

/* A buffer of which each byte is `fill`; from aligned memory of the test, to be freed. */
static inline uint8_t *
rig_buffer(uint64_t length_bytes, uint8_t fill)
{
    uint8_t *data = aligned_alloc(4096, align_up(length_bytes, 4096));
    assert_non_null(data);
    memset(data, fill, length_bytes);
    return data;
}

static inline int32_t
rig_fill(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes, uint8_t fill, bool fua)
{
    uint8_t *data = rig_buffer(length_bytes, fill);
    int32_t result = rig_do(rig, FILE_IO_WRITE, offset_bytes, data, length_bytes, fua);
    free(data);
    return result;
}

static inline int32_t
rig_flush(struct rig *rig)
{
    return rig_do(rig, FILE_IO_FLUSH, 0, NULL, 0, false);
}

/* The byte on the disk. */
static inline uint8_t
rig_peek(const struct rig *rig, uint64_t offset_bytes)
{
    uint8_t byte;
    sim_disk_peek(rig->disk, offset_bytes, &byte, 1);
    return byte;
}

static inline void
rig_cut(struct rig *rig, enum sim_cut_mode mode, uint64_t seed)
{
    sim_power_cut(rig->sim, &(struct sim_cut){ .mode = mode, .seed = seed });
    rig->reactor = NULL;
    rig->file = NULL;
}

#endif
