/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files in the state directory: what the daemon itself remembers over a restart, beside the
 * databases of its pools.
 *
 *   events        the newest events, a ring of slots
 *   daemon        hosts that are blocked, and from which number on jobs are counted
 *
 * Each is made with its full size by the first start, so that a full file system stops neither.
 * Everything here belongs to the control reactor. Without a state directory nothing is kept.
 */
#ifndef VOLMGR_STATE_FILE_IMPL_H
#define VOLMGR_STATE_FILE_IMPL_H

#include "base/byte_buffer.h"
#include "io/platform.h"
#include "volmgr/machine_impl.h"

enum {
    STATE_FILE_ALIGNMENT = 4096 /* of memory, offsets and lengths that are transferred */
};

struct state_file {
    struct platform *platform;
    struct platform_file *file; /* NULL: it could not be opened */
};

/* Blocks. Open, or make with this size. 0 or -errno with `error` set. */
int state_file_open(struct state_file *file, struct platform *platform, const char *directory,
                    const char *name, uint64_t size_bytes, struct error *error);
void state_file_close(struct state_file *file);

/* One transfer, however many pieces it takes. Memory as in io_uring: valid until done(). */
struct state_transfer {
    struct io_op op; /* the caller's done(); 0 or -errno; behind the end there are zeroes */
    struct file_io io;
    struct iovec iov;
    uint64_t left_bytes;
};

void state_file_read(struct state_file *file, struct state_transfer *transfer,
                     uint64_t offset_bytes, void *data, uint64_t length_bytes);
/* Durable when it completes. */
void state_file_write(struct state_file *file, struct state_transfer *transfer,
                      uint64_t offset_bytes, void *data, uint64_t length_bytes);

/* Room for the whole file, so that later writes do not need any. */
void state_file_make_room(struct state_file *file, struct state_transfer *transfer);

/* ---- event_file.c ---- */

struct event_file;
struct manager;

/* NULL without a state directory. Blocks. */
struct event_file *event_file_open(struct manager *manager, struct error *error);
/* Nothing is under way: event_file_is_idle(). NULL is none. */
void event_file_close(struct event_file *file);
/* Bring back what the file holds; armed at the machine. Nothing when `file` is NULL. */
void event_file_load(struct machine *machine, struct event_file *file);
/* Behind it: put the events in front of those that there are. */
void event_file_take(struct machine *machine, struct event_file *file);
/* There are events that the file does not hold yet: they are written soon, many at once. */
void event_file_wake(struct event_file *file);
/* Everything has been written, or cannot be; nothing is under way. Starts what makes it so. */
bool event_file_is_idle(struct event_file *file);

/* ---- daemon_record.c ---- */

enum {
    BLOCK_TEXT_SIZE = 128
};

/* A host that is refused: its address or identity, and the name that the administrator gave. */
struct block_entry {
    struct list link; /* manager->blocks */
    char match[BLOCK_TEXT_SIZE];
    char origin[BLOCK_TEXT_SIZE];
};

struct daemon_record;

struct daemon_record *daemon_record_open(struct manager *manager, struct error *error);
void daemon_record_close(struct daemon_record *record);
void daemon_record_load(struct machine *machine, struct daemon_record *record);
void daemon_record_take(struct machine *machine, struct daemon_record *record);
/*
 * Write manager->blocks and the number of the next job as they are now; armed at the machine.
 * -ETIMEDOUT when the disk has not answered by the deadline of disk operations: whether it is
 * written is not known then. Nothing without a state directory.
 */
struct daemon_save {
    struct list link;
    struct io_op op;
    struct timer deadline;
    struct manager *manager;
};
void daemon_record_save(struct machine *machine, struct daemon_save *save, io_op_done_fn *done);
/* Nobody waits for it. */
void daemon_record_touch(struct daemon_record *record);
/* A job has got a number: it is not used again by the next run. */
void daemon_record_job_counted(struct daemon_record *record);
bool daemon_record_is_idle(const struct daemon_record *record);
/* Whether the list is so long that no other entry fits. */
bool daemon_record_is_full(const struct manager *manager);

#endif
