/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The outside world: clock, randomness, files, sockets, memory that outlives the process.
 *
 * Everything that is not computation comes through this interface. It has two implementations:
 * platform_uring.c (Linux, io_uring) and the deterministic simulator (tests/sim/platform_sim.c:
 * virtual time, disks that lose, tear, delay and fail). Product code includes this header only.
 *
 * Asynchronous calls take an engine, which is the calling reactor's own half of the platform; they
 * never call back from inside, and complete through reactor_complete() on that reactor.
 */
#ifndef IO_PLATFORM_H
#define IO_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "io/op.h"

struct platform;
struct io_engine;       /* per reactor */
struct platform_file;   /* an open file or block device; usable from every reactor */
struct platform_socket; /* listening or connected; one reactor at a time */
struct reactor;

/* ---- files and block devices ---- */

enum file_open_flags {
    FILE_OPEN_READ_ONLY = 1u << 0,
    FILE_OPEN_CREATE = 1u << 1,     /* regular file; together with EXCLUSIVE_CREATE: must be new */
    FILE_OPEN_EXCLUSIVE_CREATE = 1u << 2,
    FILE_OPEN_DIRECT = 1u << 3,     /* bypass the page cache where the file system can */
    FILE_OPEN_LOCK = 1u << 4,       /* exclusive OFD lock; block devices O_EXCL; -EBUSY if held */
};

enum file_kind {
    FILE_KIND_REGULAR,
    FILE_KIND_BLOCK_DEVICE,
    FILE_KIND_OTHER,
};

struct file_properties {
    enum file_kind kind;
    uint64_t size_bytes;
    uint32_t logical_sector_bytes;  /* smallest transfer and its alignment; 1 where there is none */
    uint32_t physical_sector_bytes;
    uint32_t memory_alignment_bytes; /* that payload buffers need; 1 where there is none */
    uint64_t discard_granularity_bytes; /* 0: FILE_IO_DISCARD fails with -EOPNOTSUPP */
    bool direct;      /* transfers bypass the page cache */
    bool memory_backed; /* tmpfs and the like: transfers are done inside submit, by plain calls */
    bool rotational;
    bool write_cache; /* a flush is needed for durability (true unless known otherwise) */
};

enum file_io_kind {
    FILE_IO_READ,
    FILE_IO_WRITE,
    FILE_IO_FLUSH,        /* fdatasync: covers writes that *completed* before the submission */
    FILE_IO_DISCARD,      /* punch hole / BLKDISCARD; the content is undefined afterwards */
    FILE_IO_WRITE_ZEROES, /* reads as zeroes afterwards */
    FILE_IO_ALLOCATE,     /* regular files: make room so that writes cannot meet ENOSPC */
};

/* Embedded in its owner; everything but `op` is read-only while in flight. */
struct file_io {
    struct io_op op; /* result: bytes transferred (may be short) or -errno; others 0 or -errno */
    struct platform_file *file;
    enum file_io_kind kind;
    bool fua; /* WRITE: durable when it completes */
    uint64_t offset_bytes;
    uint64_t length_bytes;   /* of the range; for READ and WRITE the sum of iov */
    const struct iovec *iov; /* must stay valid until done(); at most 1024 entries */
    uint32_t iov_count;
};

/* ---- sockets ---- */

/*
 * Addresses are text: "unix:/path", "tcp:HOST:PORT" ("tcp:[::1]:10809"; HOST "*": all addresses;
 * port 0: any free one).
 *
 * A socket has at most one accept, one receive and one send in flight. A connected socket may be
 * handed to another reactor while nothing is in flight on it.
 */
enum {
    SOCKET_ADDRESS_SIZE = 128
};

struct socket_accept {
    struct io_op op; /* result: 0 or -errno: -ECANCELED after shutdown; -EMFILE: wait, then again */
    struct platform_socket *listener;
    /* Valid in done() when result is 0: the connection, which is the caller's to close, and its
     * peer for people: "unix (pid 12, uid 0)", "tcp:10.0.0.1:4711". */
    struct platform_socket *ret_socket;
    char ret_peer[SOCKET_ADDRESS_SIZE];
};

struct socket_io {
    struct io_op op; /* result: bytes or -errno */
    struct platform_socket *socket;
    const struct iovec *iov; /* must stay valid until done(); receive: the first 1024 are used */
    uint32_t iov_count;
    bool is_send;
    bool more_follows; /* send: a hint that more will be sent at once (MSG_MORE) */
};

/* ---- readiness of a foreign descriptor (libiscsi, curl) ---- */

struct fd_poll {
    struct io_op op; /* result: POLLIN | POLLOUT ... or -errno (-ECANCELED after fd_poll_cancel) */
    int fd;
    uint32_t events; /* poll(2) */
};

/* ---- the table ---- */

struct platform_ops {
    const char *name;

    /* Clock and randomness; any thread. */
    uint64_t (*monotonic_ns)(struct platform *platform); /* CLOCK_BOOTTIME: counts sleep too */
    uint64_t (*realtime_ns)(struct platform *platform);
    uint64_t (*random_u64)(struct platform *platform);
    /* 36 characters and a NUL; changes with each boot of the machine. */
    void (*boot_id)(struct platform *platform, char ret_text[static 37]);

    /* Engines; called by the reactor only. */
    int (*engine_open)(struct platform *platform, struct reactor *reactor,
                       struct io_engine **ret_engine, struct error *error);
    void (*engine_close)(struct io_engine *engine);
    /*
     * Hand over what was submitted, reap what has completed (through reactor_complete()). Sleeps
     * for up to wait_ns when wait_ns > 0 and nothing has completed. Returns the number reaped.
     */
    uint32_t (*engine_poll)(struct io_engine *engine, uint64_t wait_ns);
    /* End a sleep of engine_poll(); any thread. */
    void (*engine_wake)(struct io_engine *engine);
    /* Memory that will carry payload, before the first poll. Failure is not an error. */
    void (*engine_register_memory)(struct io_engine *engine, void *base, size_t length_bytes);

    /* Files. Open, close and properties block: control path only, any thread. */
    int (*file_open)(struct platform *platform, const char *path, uint32_t flags,
                     uint64_t create_size_bytes, struct platform_file **ret_file,
                     struct error *error);
    void (*file_close)(struct platform_file *file); /* nothing in flight */
    const struct file_properties *(*file_properties)(struct platform_file *file);
    /* Read the size again (a disk that was grown). */
    int (*file_refresh)(struct platform_file *file);
    void (*file_submit)(struct io_engine *engine, struct file_io *io);

    /*
     * Sockets. Shutdown and close do not block; close needs nothing in flight. Listen is for the
     * control path: it resolves names, sets the mode of a unix socket, and replaces a socket file
     * that nobody listens on (up to half a second; -EADDRINUSE when somebody does).
     */
    int (*socket_listen)(struct platform *platform, const char *address, uint32_t mode,
                         struct platform_socket **ret_listener,
                         char ret_bound[static SOCKET_ADDRESS_SIZE], struct error *error);
    void (*socket_accept)(struct io_engine *engine, struct socket_accept *accept);
    /* Receive: some bytes, 0 at the end. */
    void (*socket_receive)(struct io_engine *engine, struct socket_io *io);
    /* Send: all of it, or -errno. */
    void (*socket_send)(struct io_engine *engine, struct socket_io *io);
    /* Both directions; what is in flight on it completes soon, with 0, -EPIPE or -ECANCELED. */
    void (*socket_shutdown)(struct io_engine *engine, struct platform_socket *socket);
    void (*socket_close)(struct platform_socket *socket);

    void (*fd_poll)(struct io_engine *engine, struct fd_poll *poll);
    void (*fd_poll_cancel)(struct io_engine *engine, struct fd_poll *poll);

    /*
     * Memory that survives the death of the process but not a power cut (a file on tmpfs, mapped
     * shared, preallocated and locked). `name` has no slash. `*ret_existed` tells whether it was
     * there with this size; otherwise it is new and zeroed. Blocks: control path only.
     */
    int (*volatile_map)(struct platform *platform, const char *name, size_t size_bytes,
                        void **ret_memory, bool *ret_existed, struct error *error);
    void (*volatile_unmap)(struct platform *platform, void *memory, size_t size_bytes);
    /* Remove one that is not mapped. 0, -ENOENT or -errno. */
    int (*volatile_remove)(struct platform *platform, const char *name);
};

/* Implementations embed this as their first member. */
struct platform {
    const struct platform_ops *ops;
};

/*
 * The real one. `volatile_directory`: where volatile_map() keeps its files; must exist and be on
 * tmpfs (-EINVAL with `error` set otherwise); NULL where volatile_map() will not be called.
 */
int platform_uring_create(const char *volatile_directory, struct platform **ret_platform,
                          struct error *error);
void platform_uring_destroy(struct platform *platform);

#endif
