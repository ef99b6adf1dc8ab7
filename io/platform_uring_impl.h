/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the io_uring platform, shared by the platform_uring*.c files.
 *
 * What a completion means is in the low bits of its user_data; the rest is the address of the
 * structure that was submitted. Tag and address travel together, so a completion needs no table.
 */
#ifndef IO_PLATFORM_URING_IMPL_H
#define IO_PLATFORM_URING_IMPL_H

#include <liburing.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/assert.h"
#include "io/platform.h"
#include "io/reactor.h"

enum completion_tag {
    TAG_OP = 0,      /* an io_op: the result is passed on */
    TAG_ENGINE = 1,  /* the engine's own: its eventfd, or a cancellation that nobody waits for */
    TAG_WRITE = 2,   /* a file_io that writes: a transfer */
    TAG_RECEIVE = 3, /* a socket_io; the result is bytes */
    TAG_SEND = 4,    /* a socket_io whose socket is writable */
    TAG_ACCEPT = 5,  /* a socket_accept; the result is a descriptor */
    TAG_ZEROES = 6,  /* a file_io that may have to be tried again in another way */
    TAG_READ = 7,    /* a file_io that reads: a transfer, and its data is fetched */
    TAG_MASK = 7
};

enum {
    ENGINE_SQ_ENTRIES = 512,
    ENGINE_CQ_ENTRIES = 8192,
    ENGINE_REGIONS_MAX = 16,
    /* Transfers that are handed over together, and completions that are taken together. */
    ENGINE_BATCH = 4,
    ENGINE_HELD_MAX = 256, /* a power of two */
    ENGINE_REGION_BYTES_MAX = 1 << 30, /* what the kernel takes as one registered buffer */
};

/* Whether a reactor may be asleep in the kernel. */
enum wake_state {
    WAKE_AWAKE,
    WAKE_SLEEPING,
    WAKE_NOTIFIED, /* somebody has asked it to look again before it sleeps */
};

struct platform_uring {
    struct platform platform; /* first */
    char boot_id[37];
    char *volatile_directory; /* NULL: none */
};

struct io_engine {
    struct platform_uring *platform;
    struct reactor *reactor;
    uint32_t reactor_id;
    struct io_uring ring;
    uint32_t setup_flags;
    bool enabled;
    pthread_t thread;   /* that enabled the ring, and the only one that may use it */
    uint32_t in_flight; /* submissions that will complete, without the eventfd's poll */
    int wake_fd;
    bool wake_armed;
    uint32_t transfers_queued; /* since something was handed over */
    /* Transfers that have ended and wait for their turn: a ring of what the kernel has told. */
    uint32_t held_first;
    uint32_t held_count;
    struct {
        uint64_t user_data;
        int32_t result;
    } held[ENGINE_HELD_MAX];
    uint32_t region_count;
    bool regions_registered;
    struct iovec regions[ENGINE_REGIONS_MAX]; /* the index is the ring's buffer index */
    sigjmp_buf *volatile way_back; /* from a bus error, while mapped memory is copied; or NULL */
    _Alignas(64) _Atomic uint32_t wake_state; /* enum wake_state; any thread */
};

/* ---- platform_uring.c ---- */

bool platform_is_uring(const struct platform *platform);

/* ---- platform_uring_engine.c ---- */

int engine_open(struct platform *platform, struct reactor *reactor, struct io_engine **ret_engine,
                struct error *error);
void engine_close(struct io_engine *engine);
uint32_t engine_poll(struct io_engine *engine, uint64_t wait_ns);
void engine_wake(struct io_engine *engine);
void engine_register_memory(struct io_engine *engine, void *base, size_t length_bytes);
void engine_fd_poll(struct io_engine *engine, struct fd_poll *poll);
void engine_fd_poll_cancel(struct io_engine *engine, struct fd_poll *poll);

/*
 * A free submission entry, with its user_data set. Hands over what is queued when the ring is full.
 * The caller prepares it at once; liburing's io_uring_prep_*() leave user_data alone.
 */
struct io_uring_sqe *engine_get_entry(struct io_engine *engine, void *owner,
                                      enum completion_tag tag);
/* A transfer has been prepared: hand over what is queued if that is a batch. */
void engine_transfer_queued(struct io_engine *engine);
/* Ask the kernel to end the operation that was submitted with this owner and tag. */
void engine_cancel(struct io_engine *engine, void *owner, enum completion_tag tag);
/* The registered buffer in which [base, base + length_bytes) lies; -1: none. */
int engine_find_region(const struct io_engine *engine, const void *base, size_t length_bytes);

/* ---- platform_uring_file.c, platform_uring_properties.c ---- */

struct platform_file {
    int fd;
    bool can_punch;
    uint8_t *mapping; /* of a file in memory; NULL: none */
    size_t mapping_bytes;
    bool mapping_writable;
    _Atomic bool written; /* by us */
    _Atomic bool no_zero_range; /* learned from the first refusal */
    struct file_properties properties;
};

int file_open(struct platform *platform, const char *path, uint32_t flags,
              uint64_t create_size_bytes, struct platform_file **ret_file, struct error *error);
void file_close(struct platform_file *file);
const struct file_properties *file_properties(struct platform_file *file);
int file_refresh(struct platform_file *file);
void file_submit(struct io_engine *engine, struct file_io *io);
/* TAG_READ: have the data brought to this processor before it is needed. */
void file_fetch_data(const struct file_io *io, int32_t result);
/* TAG_ZEROES: returns whether it was submitted again; otherwise the result stands. */
bool file_retry_zeroes(struct io_engine *engine, struct file_io *io, int32_t result);

/* Fill in what the open descriptor stands on. 0 or -errno. */
int file_probe(int fd, bool direct, bool writable, struct platform_file *file, struct error *error);
int file_read_size(int fd, uint64_t *ret_size_bytes);
/* Whether `fd` is on a file system that lives in memory; -errno when it cannot be told. */
int descriptor_is_in_memory(int fd);
/* The alignment that direct transfers need; false: the kernel does not say. 0 and 0: impossible. */
bool statx_direct_alignment(int fd, uint32_t *ret_memory_bytes, uint32_t *ret_offset_bytes);

/* ---- platform_uring_memory.c ---- */

/* Once for the process; again does no harm. */
void memory_catch_bus_errors(void);
/* Map a file in memory, if that is possible. */
void memory_map(struct platform_file *file, bool writable);
void memory_unmap(struct platform_file *file);
/* Do the whole transfer through the mapping. False: not possible, or not wholly done. */
bool memory_transfer(struct io_engine *engine, const struct file_io *io);

/* ---- platform_uring_listen.c, platform_uring_socket.c ---- */

struct platform_socket {
    int fd;
    bool is_unix;
    bool is_listener;
    char *unlink_path; /* of a unix listener, with the identity of the file */
    dev_t unlink_device;
    ino_t unlink_inode;
    /* One of each in flight at most. */
    struct socket_accept *accepting;
    struct socket_io *receiving;
    struct socket_io *sending;
    struct msghdr receive_header;
    /* How far `sending` has come. */
    uint32_t sent_segments; /* wholly sent */
    size_t sent_of_segment; /* bytes of the next one */
    uint64_t sent_bytes;
};

int socket_listen(struct platform *platform, const char *address, uint32_t mode,
                  struct platform_socket **ret_listener, char ret_bound[static SOCKET_ADDRESS_SIZE],
                  struct error *error);
void socket_accept(struct io_engine *engine, struct socket_accept *accept);
void socket_accepted(struct io_engine *engine, struct socket_accept *accept, int32_t result);
void socket_receive(struct io_engine *engine, struct socket_io *io);
void socket_send(struct io_engine *engine, struct socket_io *io);
void socket_received(struct io_engine *engine, struct socket_io *io, int32_t result);
/* The socket of a send that waited became writable, or the wait ended with -errno. */
void socket_send_ready(struct io_engine *engine, struct socket_io *io, int32_t result);
void socket_shutdown(struct io_engine *engine, struct platform_socket *socket);
void socket_close(struct platform_socket *socket);

/* ---- platform_uring_volatile.c ---- */

int volatile_map(struct platform *platform, const char *name, size_t size_bytes, void **ret_memory,
                 bool *ret_existed, struct error *error);
void volatile_unmap(struct platform *platform, void *memory, size_t size_bytes);
int volatile_remove(struct platform *platform, const char *name);

#endif
