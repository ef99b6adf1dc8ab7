/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backends: anything that stores blocks and can be a disk of a pool.
 *
 * THEORY OF OPERATION
 *
 * A backend is a const table of operations (struct backend_ops) and an instance. Callers never use
 * the table: they call backend_*() of this header, the guard (guard.c), which checks the contract
 * on both sides, emulates what a backend lacks (FUA by a flush, zeroes by writing), carries
 * submissions to the owning reactor where a backend has one, counts, and watches deadlines.
 *
 * Invariants
 *  B1  An operation ends exactly once, by done() of its io_op, on the reactor that submitted it,
 *      never from inside backend_submit(). Until then its memory belongs to the backend.
 *  B2  A deadline ends the *wait*, not the operation (P9). When it passes, overdue() is called
 *      once, and the operation is still in flight: its buffer, range and grain stay taken until
 *      done().
 *  B3  FLUSH covers every write that had completed before the flush was submitted, from any
 *      reactor.
 *  B4  A transfer is all or nothing for the caller: a short transfer of the device is continued,
 *      and one that cannot be finished is an error (-EIO; -ENOSPC where the device said so).
 *  B5  After an error of FLUSH, or a reset that may have lost unflushed writes, the backend's
 *      loss_generation has been raised before done() is called. A caller that sees it change must
 *      treat what it wrote since its last good flush as lost. A FLUSH that was in flight when
 *      loss_generation rose fails with -EIO, whatever the device said.
 */
#ifndef BACKENDS_BACKEND_H
#define BACKENDS_BACKEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/list.h"
#include "io/reactor.h"

struct backend;
struct backend_ops;
struct platform;

enum backend_io_kind {
    BACKEND_READ,
    BACKEND_WRITE,
    BACKEND_FLUSH,
    BACKEND_DISCARD,      /* a hint: the content is undefined afterwards */
    BACKEND_WRITE_ZEROES, /* reads as zeroes afterwards */
    /* Make room below a range, so that writes there cannot meet -ENOSPC; -EOPNOTSUPP: it cannot. */
    BACKEND_ALLOCATE,
    BACKEND_IO_KIND_COUNT
};

enum {
    BACKEND_IOV_COUNT_MAX = 1024
};

struct backend_io;
typedef void backend_io_overdue_fn(struct backend_io *io);

/* Embedded in its owner. Zero it once; the first block of fields is the caller's. */
struct backend_io {
    struct io_op op; /* result: 0 or -errno (see B4) */
    enum backend_io_kind kind;
    bool fua; /* WRITE, WRITE_ZEROES: durable when done */
    uint64_t offset_bytes; /* aligned to block_bytes of the properties, as is the length */
    uint64_t length_bytes;
    const struct iovec *iov; /* READ and WRITE; aligned to memory_alignment_bytes */
    uint32_t iov_count;
    uint64_t timeout_ns;            /* 0: the backend's default */
    backend_io_overdue_fn *overdue; /* called at the deadline; NULL: the caller does not care */
    void *owner; /* the caller's; untouched */

    /* The guard's and the backend's own. */
    struct backend *backend;
    struct list deadline_link;
    uint64_t deadline_ns;
    uint64_t submitted_ns;
    bool is_overdue;
    uint8_t stage;
    struct reactor *reactor;
    struct message message;
    io_op_done_fn *saved_done;
    uint64_t loss_generation; /* FLUSH: at submission */
    void *scratch; /* emulation buffers and the like */
    uint64_t driver[24]; /* the implementation's per-I/O state; its size is asserted there */
};

struct backend_properties {
    uint64_t size_bytes;
    uint32_t block_bytes;          /* 512 or 4096: smallest transfer */
    uint32_t physical_block_bytes; /* smallest that is not a read-modify-write inside */
    uint32_t memory_alignment_bytes;
    uint64_t discard_granularity_bytes; /* 0: no discard */
    uint64_t transfer_bytes_max;        /* longer READs and WRITEs are split by the guard */
    uint64_t range_bytes_max; /* the same for DISCARD, WRITE_ZEROES, ALLOCATE; 0: no limit */
    bool rotational;
    bool write_cache;   /* false: a completed write is durable */
    bool can_grow;      /* size may change under us; refresh() reads it again */
    bool thin;          /* may meet -ENOSPC on ranges that were not ALLOCATEd */
    bool remote;
    bool slow_first_write; /* to room that was ALLOCATEd and never written; zeroes ahead pay */
    /*
     * Proven at open: what an earlier process of this machine wrote and did not flush is still
     * there, provided that the machine has not been rebooted since. False: count it as lost.
     */
    bool kept_unflushed;
};

struct backend_statistics {
    uint64_t operations[BACKEND_IO_KIND_COUNT];
    uint64_t bytes[BACKEND_IO_KIND_COUNT];
    uint64_t errors[BACKEND_IO_KIND_COUNT];
    uint64_t overdue;
    uint64_t total_ns[BACKEND_IO_KIND_COUNT];
    uint64_t in_flight;
};

/*
 * What an implementation provides. All members are set in every table; shared defaults are in
 * guard.h. Context is "control" for calls that may block (an offload thread or start-up) and
 * "reactor" for those that run on a reactor and must not block.
 */
struct backend_ops {
    const char *type;   /* "file", "block", "iscsi", "memory", "fault" */
    const char *scheme; /* prefix that selects it, such as "iscsi://"; NULL: matched by probing */
    bool owner_reactor_only; /* submit only on backend->owner; the guard forwards */

    /*
     * control. `spec` is the DISK text of the command line. Creates what the spec says to create.
     * On success stores the implementation's state in backend->state and fills backend->properties.
     */
    int (*open)(struct backend *backend, const char *spec, uint32_t flags, struct error *error);
    /* control. Nothing is in flight. Releases locks last. */
    void (*close)(struct backend *backend);
    /* control. Read the size again into backend->properties. */
    int (*refresh)(struct backend *backend, struct error *error);
    /*
     * reactor. Start the operation; complete it with reactor_complete(&io->op, result) later, never
     * from inside (or, from a function that the loop called, with guard_complete() of guard.h).
     * result: 0 for all of it; for READ and WRITE also the number of bytes of a short transfer; or
     * -errno. -EOPNOTSUPP to WRITE_ZEROES or to `fua` makes the guard emulate it from then on.
     * Ranges, alignment and capability have been checked; the length is at most transfer_bytes_max
     * (READ, WRITE) or range_bytes_max; iov_count is at most BACKEND_IOV_COUNT_MAX.
     */
    void (*submit)(struct backend *backend, struct backend_io *io);
};

enum backend_open_flags {
    BACKEND_OPEN_READ_ONLY = 1u << 0,
    BACKEND_OPEN_PROBE = 1u << 1, /* only to look at the label: no lock, no creation */
};

struct backend {
    const struct backend_ops *ops;
    struct platform *platform;
    struct reactor *owner; /* for owner_reactor_only; otherwise where the deadline watch may run */
    char *spec;            /* without secrets */
    struct backend_properties properties;
    void *state; /* the implementation's */
    uint64_t loss_generation; /* atomic; see B5 */
    uint64_t default_timeout_ns;
    struct backend_guard *guard; /* per-reactor deadline lists and statistics */
};

/*
 * A copy of a disk's text in which passwords are left out, for messages, logs and listings. Never
 * NULL; free() it. Any thread. Works on text that is not valid, too.
 */
char *backend_spec_without_secrets(const char *spec);

/*
 * control. Open by the text that administrators write: a path to a file or block device,
 * "file:PATH?size=20G", "iscsi://[USER%PW@]HOST[:PORT]/IQN/LUN", "mem:SIZE",
 * "fault:SPEC!RULES" (see fault.h). `owner` is the reactor of owner_reactor_only backends. The
 * device is locked against other processes (-EBUSY with who holds it where that can be told).
 */
int backend_open(struct platform *platform, struct reactor *owner, const char *spec, uint32_t flags,
                 struct backend **ret_backend, struct error *error);
/*
 * control. Nothing in flight. The owner of an owner_reactor_only backend still runs (or is turned
 * by the calling thread): it is asked to let go of the disk.
 */
void backend_close(struct backend *backend);
int backend_refresh(struct backend *backend, struct error *error);

/*
 * reactor. Submit one operation. The guard asserts range, alignment and that `io` is idle; splits
 * by transfer_bytes_max; emulates. The completion may come after `overdue`. FLUSH ignores the
 * range. DISCARD where there is none, and ALLOCATE where nothing is thin, succeed and do nothing;
 * whatever would change a disk that was opened read-only fails with -EROFS.
 */
void backend_submit(struct backend *backend, struct backend_io *io);

/*
 * Any thread, and not to be undone: the disk has become somebody else's. What would change it fails
 * with -EROFS from now on, as if it had been opened read-only; what was submitted before goes on.
 */
void backend_refuse_changes(struct backend *backend);

/* Any thread. See B5. */
static inline uint64_t
backend_loss_generation(const struct backend *backend)
{
    return __atomic_load_n(&backend->loss_generation, __ATOMIC_ACQUIRE);
}
/* Any thread. The size may grow by backend_refresh(); everything else is constant while open. */
static inline uint64_t
backend_size_bytes(const struct backend *backend)
{
    return __atomic_load_n(&backend->properties.size_bytes, __ATOMIC_RELAXED);
}

/* Any thread. Sums over reactors; values of a moment. */
void backend_get_statistics(struct backend *backend, struct backend_statistics *ret_statistics);

/*
 * Blocking transfers for the control path (labels, import) on an offload or main thread; they run
 * the passes of `pump`, a reactor without a thread of its own, until the operation has ended. An
 * owner_reactor_only backend needs its owner running on its own thread, or as the pump.
 * `data` (READ, WRITE; else NULL) needs no alignment: it is copied. 0 or -errno; -ETIMEDOUT at the
 * backend's default deadline: the operation is still in flight, on memory of its own, and the pump
 * must go on running until it has ended.
 */
int backend_sync_io(struct reactor *pump, struct backend *backend, enum backend_io_kind kind,
                    uint64_t offset_bytes, void *data, uint64_t length_bytes);

#endif
