/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated disks: files and block devices of the simulated machine, and what can go wrong with
 * them. The rules of their write cache are in sim_model.h.
 *
 * Product code opens a disk by its path through the platform. A path with FILE_OPEN_CREATE makes a
 * regular file with the default properties.
 *
 * Reads see the newest content. A read takes its bytes, and a write takes effect for readers, when
 * it completes. Creation of a file, and its size, are durable at once.
 */
#ifndef TESTS_SIM_SIM_DISK_H
#define TESTS_SIM_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "io/platform.h"
#include "tests/sim/sim.h"

struct sim_disk;

enum {
    SIM_DISK_KIND_COUNT = FILE_IO_ALLOCATE + 1
};

/* Zero means the default that is named. */
struct sim_disk_properties {
    uint64_t size_bytes;
    enum file_kind kind;             /* a regular file */
    uint32_t logical_sector_bytes;   /* 512 */
    uint32_t physical_sector_bytes;  /* 4096 */
    uint32_t memory_alignment_bytes; /* 512 */
    uint32_t atomic_bytes;           /* 512: writes tear between units of this size */
    bool write_through;              /* no volatile cache: what has completed is durable */
    bool no_discard;
    bool rotational;
    bool dirty;               /* unwritten space has old bytes, not zeroes */
    enum sim_discard discard; /* by seed */
    uint64_t capacity_bytes;  /* thin: room for this much, by 4 KiB; 0: all of it */
    uint64_t latency_ns_min;  /* 20 us */
    uint64_t latency_ns_max;  /* 200 us; one operation in 32 takes up to ten times as long */
};

/* ---- faults ---- */

enum sim_fault_action {
    SIM_FAULT_ERROR,      /* fails with `error`; a write may have reached the disk in part */
    SIM_FAULT_SHORT,      /* READ, WRITE: ends early at a sector boundary, with the short count */
    SIM_FAULT_DELAY,      /* takes delay_ns longer */
    SIM_FAULT_HANG,       /* until sim_disk_release(), when it takes effect after all */
    SIM_FAULT_BIT_ROT,    /* READ: one bit is wrong, in the memory only */
    SIM_FAULT_MISDIRECT,  /* READ, WRITE: of another place on the disk */
    SIM_FAULT_LOSE_CACHE, /* fails with `error`, and the cache has lost what it held: unflushed
                             writes are kept, lost or torn now, and later flushes succeed */
};

struct sim_fault {
    enum sim_fault_action action;
    uint32_t kinds;              /* mask of 1u << enum file_io_kind; 0: every kind */
    uint64_t offset_bytes;       /* operations that touch this range; FLUSH always does */
    uint64_t length_bytes;       /* 0: to the end */
    uint64_t skip;               /* so many matching operations pass first */
    uint64_t count;              /* strikes so often; 0: for ever */
    uint32_t chance_per_million; /* of each matching operation after `skip`; 0: all */
    int error;                   /* positive errno; 0: EIO */
    uint64_t delay_ns;
    bool keeps_reads; /* LOSE_CACHE: reads see the lost data until the power goes */
};

/* ---- disks ---- */

/* `path` is new. The disk lives as long as the simulator. */
struct sim_disk *sim_disk_create(struct sim *sim, const char *path,
                                 const struct sim_disk_properties *properties);
/* NULL when there is none. */
struct sim_disk *sim_disk_find(struct sim *sim, const char *path);

/* Rules are asked in the order in which they were added; the first that strikes, strikes alone. */
void sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault);
void sim_disk_clear_faults(struct sim_disk *disk);
/* Operations that hang now. */
uint32_t sim_disk_hanging(const struct sim_disk *disk);
/* Let all that hang go on. Fault rules stay. */
void sim_disk_release(struct sim_disk *disk);
/*
 * The disk is reset: what is in flight or hangs fails soon with -EIO (and may have taken effect in
 * part), what the cache held is kept, lost or torn; reads show it.
 */
void sim_disk_reset(struct sim_disk *disk);
/* While missing, opening fails with -ENOENT. What is open is not affected. */
void sim_disk_set_missing(struct sim_disk *disk, bool missing);
/* Seen by the product after platform_ops.file_refresh(). */
void sim_disk_resize(struct sim_disk *disk, uint64_t size_bytes);
void sim_disk_set_capacity(struct sim_disk *disk, uint64_t capacity_bytes);

/* Held by an open file, or by the last operations of a killed process. */
bool sim_disk_is_locked(const struct sim_disk *disk);

/* The newest content. Also inside a pass. */
void sim_disk_peek(const struct sim_disk *disk, uint64_t offset_bytes, void *ret_data,
                   uint64_t length_bytes);
/* Change the medium behind everyone's back, durably (damage, or preparing a test). */
void sim_disk_poke(struct sim_disk *disk, uint64_t offset_bytes, const void *data,
                   uint64_t length_bytes);
/* poke() with bytes of `seed`. */
void sim_disk_damage(struct sim_disk *disk, uint64_t offset_bytes, uint64_t length_bytes,
                     uint64_t seed);
/* Of what reads see; and of what is durable for certain. */
uint64_t sim_disk_content_hash(const struct sim_disk *disk);
uint64_t sim_disk_durable_hash(const struct sim_disk *disk);
uint64_t sim_disk_allocated_bytes(const struct sim_disk *disk);

struct sim_disk_statistics {
    uint64_t operations[SIM_DISK_KIND_COUNT]; /* submitted */
    uint64_t bytes[SIM_DISK_KIND_COUNT];
    uint64_t fua;
    uint64_t errors;
    uint64_t faults; /* rules that struck */
    uint64_t faults_of[SIM_DISK_KIND_COUNT];
};

/* Also inside a pass. */
const struct sim_disk_statistics *sim_disk_statistics(const struct sim_disk *disk);

#endif
