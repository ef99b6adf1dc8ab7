/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing labels on a disk.
 *
 * Reading takes two transfers, one at the beginning and one at the end of the disk, wide enough for
 * all slots and for the signatures of others. A disk of which one end cannot be read is still known
 * by the other. Writing changes one slot of the first place, makes it durable, and only then
 * touches the second place: at any instant all slots but one are whole.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/label_impl.h"

enum {
    MEMORY_ALIGNMENT = 4096,
};

static uint8_t *
aligned_memory(const struct backend *backend, size_t length_bytes)
{
    size_t alignment = MAX((size_t)backend->properties.memory_alignment_bytes,
                           (size_t)MEMORY_ALIGNMENT);
    void *memory = NULL;
    if (posix_memalign(&memory, alignment, length_bytes) != 0) {
        return NULL;
    }
    return memory;
}

/* ---- read ---- */

enum read_step {
    READ_HEAD,
    READ_TAIL,
};

static void
read_take_slot(struct label_read *read, const uint8_t *block)
{
    struct label label;
    int result = label_decode(block, &label);
    if (result == 0) {
        if (read->ret_label.generation < label.generation || read->ret_label.generation == 0) {
            read->ret_label = label;
        }
    } else if (result == -EPROTO) {
        read->newer = true;
    } else if (result != -ENOENT) {
        read->ret_damaged_slots++;
    }
}

static void
read_take_window(struct label_read *read, const struct disk_window *window, uint64_t place_bytes)
{
    ASSERT(place_bytes >= window->start_bytes);
    uint64_t offset = place_bytes - window->start_bytes;
    ASSERT_OP(offset + LABEL_SLOTS * LABEL_BYTES, <=, window->length_bytes);
    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        read_take_slot(read, window->data + offset + (uint64_t)slot * LABEL_BYTES);
    }
    if (!read->ret_foreign.found) {
        foreign_content_find(window, &read->ret_foreign);
    }
}

/* What is known once both ends have been looked at. */
static void
read_finish(struct label_read *read)
{
    int32_t result = -ENOENT;
    free(read->memory);
    read->memory = NULL;
    if (read->newer) {
        /* What our own version says here is what was there before: it must not rule again. */
        result = -EPROTO;
        memset(&read->ret_label, 0, sizeof(read->ret_label));
        read->ret_foreign.found = true;
        snprintf(read->ret_foreign.what, sizeof(read->ret_foreign.what),
                 "a label of a newer version of volmgr");
    } else if (read->ret_label.generation != 0) {
        result = 0;
        read->ret_foreign.found = true;
        snprintf(read->ret_foreign.what, sizeof(read->ret_foreign.what), "a label of pool `%.100s`",
                 read->ret_label.pool_name);
    } else if (read->failed) {
        result = -EIO;
    } else if (read->ret_damaged_slots > 0) {
        result = -EBADMSG;
    }
    reactor_complete(&read->op, result);
}

static void read_done(struct io_op *op);

static void
read_submit(struct label_read *read, uint32_t step)
{
    uint64_t disk_bytes = align_down(read->backend->properties.size_bytes, LABEL_BYTES);
    uint64_t length_bytes = MIN(disk_bytes, step == READ_HEAD ? (uint64_t)LABEL_HEAD_WINDOW_BYTES
                                                              : (uint64_t)LABEL_TAIL_WINDOW_BYTES);
    read->step = step;
    read->iov = (struct iovec){ .iov_base = read->memory, .iov_len = length_bytes };
    memset(&read->io, 0, sizeof(read->io));
    read->io.op.done = read_done;
    read->io.kind = BACKEND_READ;
    read->io.offset_bytes = step == READ_HEAD ? 0 : disk_bytes - length_bytes;
    read->io.length_bytes = length_bytes;
    read->io.iov = &read->iov;
    read->io.iov_count = 1;
    backend_submit(read->backend, &read->io);
}

static void
read_done(struct io_op *op)
{
    struct label_read *read =
        container_of(container_of(op, struct backend_io, op), struct label_read, io);
    if (op->result < 0) {
        read->failed = true;
    } else {
        uint64_t disk_bytes = read->backend->properties.size_bytes;
        struct disk_window window = {
            .data = read->memory,
            .start_bytes = read->io.offset_bytes,
            .length_bytes = read->io.length_bytes,
            .disk_bytes = disk_bytes,
        };
        read_take_window(read, &window,
                         read->step == READ_HEAD ? 0 : label_second_place_bytes(disk_bytes));
    }
    if (read->step == READ_HEAD) {
        read_submit(read, READ_TAIL);
    } else {
        read_finish(read);
    }
}

void
label_read(struct label_read *read)
{
    struct reactor *reactor = reactor_self();
    ASSERT(reactor != NULL);
    ASSERT(read->op.done != NULL);
    read->op.reactor_id = reactor_id(reactor);
    memset(&read->ret_label, 0, sizeof(read->ret_label));
    memset(&read->ret_foreign, 0, sizeof(read->ret_foreign));
    read->ret_damaged_slots = 0;
    read->failed = false;
    read->newer = false;
    if (read->backend->properties.size_bytes < 2 * LABEL_PLACE_BYTES) {
        reactor_complete(&read->op, -ENOENT); /* too small to have been a disk of ours */
        return;
    }
    read->memory = aligned_memory(read->backend, LABEL_HEAD_WINDOW_BYTES);
    if (read->memory == NULL) {
        reactor_complete(&read->op, -ENOMEM);
        return;
    }
    read_submit(read, READ_HEAD);
}

/* ---- write ---- */

/* In this order; `step` counts through them. */
enum write_step {
    WRITE_FIRST,
    FLUSH_FIRST,
    WRITE_SECOND,
    FLUSH_SECOND,
    WRITE_STEPS,
};

static void write_done(struct io_op *op);

static void
write_submit(struct label_write *write)
{
    uint64_t disk_bytes =
        write->label != NULL ? write->label->size_bytes : write->backend->properties.size_bytes;
    uint64_t place_bytes = write->step == WRITE_FIRST ? 0 : label_second_place_bytes(disk_bytes);
    uint64_t offset_bytes = 0;
    if (!write->wipe) {
        offset_bytes = write->label->generation % LABEL_SLOTS * LABEL_BYTES;
    }
    bool is_write = write->step == WRITE_FIRST || write->step == WRITE_SECOND;
    memset(&write->io, 0, sizeof(write->io));
    write->io.op.done = write_done;
    write->io.kind = is_write ? BACKEND_WRITE : BACKEND_FLUSH;
    if (is_write) {
        write->iov = (struct iovec){
            .iov_base = write->memory,
            .iov_len = write->wipe ? LABEL_PLACE_BYTES : LABEL_BYTES,
        };
        write->io.offset_bytes = place_bytes + offset_bytes;
        write->io.length_bytes = write->iov.iov_len;
        write->io.iov = &write->iov;
        write->io.iov_count = 1;
    }
    backend_submit(write->backend, &write->io);
}

static void
write_done(struct io_op *op)
{
    struct label_write *write =
        container_of(container_of(op, struct backend_io, op), struct label_write, io);
    int32_t result = op->result;
    write->step++;
    if (result >= 0 && write->step < WRITE_STEPS) {
        write_submit(write);
        return;
    }
    free(write->memory);
    write->memory = NULL;
    reactor_complete(&write->op, result < 0 ? result : 0);
}

void
label_write(struct label_write *write)
{
    struct reactor *reactor = reactor_self();
    ASSERT(reactor != NULL);
    ASSERT(write->op.done != NULL);
    ASSERT(write->wipe || write->label != NULL);
    write->op.reactor_id = reactor_id(reactor);
    size_t length_bytes = write->wipe ? LABEL_PLACE_BYTES : LABEL_BYTES;
    write->memory = aligned_memory(write->backend, length_bytes);
    if (write->memory == NULL) {
        reactor_complete(&write->op, -ENOMEM);
        return;
    }
    memset(write->memory, 0, length_bytes);
    if (!write->wipe) {
        ASSERT_OP(write->label->size_bytes, <=, write->backend->properties.size_bytes);
        write->label->generation++;
        label_encode(write->label, write->memory);
    }
    write->step = WRITE_FIRST;
    write_submit(write);
}
