/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/state_file_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    PATH_SIZE = 4096
};

int
state_file_open(struct state_file *file, struct platform *platform, const char *directory,
                const char *name, uint64_t size_bytes, struct error *error)
{
    char path[PATH_SIZE];

    ASSERT(is_aligned(size_bytes, STATE_FILE_ALIGNMENT));
    *file = (struct state_file){ .platform = platform };
    if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path)) {
        return error_set(error, -ENAMETOOLONG, "the path of the state directory is too long");
    }
    return platform->ops->file_open(platform, path, FILE_OPEN_CREATE, size_bytes, &file->file,
                                    error);
}

void
state_file_close(struct state_file *file)
{
    if (file->file != NULL) {
        file->platform->ops->file_close(file->file);
        file->file = NULL;
    }
}

/* ---- transfers ---- */

static void transfer_done(struct io_op *op);

static void
transfer_submit(struct state_transfer *transfer, struct platform *platform)
{
    transfer->io.op.done = transfer_done;
    transfer->io.op.reactor_id = reactor_id(reactor_self());
    transfer->io.iov = &transfer->iov;
    transfer->io.iov_count = 1;
    transfer->io.length_bytes = transfer->iov.iov_len;
    platform->ops->file_submit(reactor_engine(reactor_self()), &transfer->io);
}

static void
transfer_done(struct io_op *op)
{
    struct file_io *io = container_of(op, struct file_io, op);
    struct state_transfer *transfer = container_of(io, struct state_transfer, io);
    uint64_t done_bytes = op->result > 0 ? (uint64_t)op->result : 0;

    if (op->result < 0 || io->kind == FILE_IO_ALLOCATE) {
        reactor_complete(&transfer->op, op->result);
        return;
    }
    ASSERT_OP(done_bytes, <=, transfer->left_bytes);
    /* A file that is shorter than it was made: somebody cut it. */
    if (done_bytes == 0 && io->kind == FILE_IO_READ) {
        memset(transfer->iov.iov_base, 0, transfer->left_bytes);
        transfer->left_bytes = 0;
    }
    transfer->left_bytes -= done_bytes;
    if (transfer->left_bytes == 0) {
        reactor_complete(&transfer->op, 0);
        return;
    }
    if (done_bytes == 0) {
        reactor_complete(&transfer->op, -EIO);
        return;
    }
    io->offset_bytes += done_bytes;
    transfer->iov.iov_base = (uint8_t *)transfer->iov.iov_base + done_bytes;
    transfer->iov.iov_len = transfer->left_bytes;
    transfer_submit(transfer, reactor_platform(reactor_self()));
}

static void
transfer_begin(struct state_file *file, struct state_transfer *transfer, enum file_io_kind kind,
               uint64_t offset_bytes, void *data, uint64_t length_bytes)
{
    ASSERT(file->file != NULL);
    ASSERT(is_aligned(offset_bytes, STATE_FILE_ALIGNMENT));
    ASSERT(is_aligned(length_bytes, STATE_FILE_ALIGNMENT) && length_bytes > 0);
    transfer->op.reactor_id = reactor_id(reactor_self());
    transfer->left_bytes = length_bytes;
    transfer->iov = (struct iovec){ .iov_base = data, .iov_len = length_bytes };
    transfer->io = (struct file_io){
        .file = file->file,
        .kind = kind,
        .fua = kind == FILE_IO_WRITE,
        .offset_bytes = offset_bytes,
    };
    transfer_submit(transfer, file->platform);
}

void
state_file_read(struct state_file *file, struct state_transfer *transfer, uint64_t offset_bytes,
                void *data, uint64_t length_bytes)
{
    transfer_begin(file, transfer, FILE_IO_READ, offset_bytes, data, length_bytes);
}

void
state_file_write(struct state_file *file, struct state_transfer *transfer, uint64_t offset_bytes,
                 void *data, uint64_t length_bytes)
{
    transfer_begin(file, transfer, FILE_IO_WRITE, offset_bytes, data, length_bytes);
}

void
state_file_make_room(struct state_file *file, struct state_transfer *transfer)
{
    ASSERT(file->file != NULL);
    transfer->op.reactor_id = reactor_id(reactor_self());
    transfer->io = (struct file_io){
        .op = { .done = transfer_done, .reactor_id = reactor_id(reactor_self()) },
        .file = file->file,
        .kind = FILE_IO_ALLOCATE,
        .length_bytes = file->platform->ops->file_properties(file->file)->size_bytes,
    };
    file->platform->ops->file_submit(reactor_engine(reactor_self()), &transfer->io);
}
