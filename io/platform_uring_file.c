/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and block devices.
 *
 * Transfers to files on disks go through the ring, past the page cache where the file system can.
 * Files on tmpfs are served inside the submission, by copying from or to a mapping or by plain
 * calls: the ring would hand them to worker threads, which costs about twice as much. The
 * completion is queued in both cases.
 *
 * FLUSH is fdatasync(2): it covers the writes that had completed when it was submitted, and none
 * that were in flight. A forced unit access write is RWF_DSYNC.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "io/platform_uring_impl.h"

enum {
    /* Longer ranges of a file in memory are changed by a worker thread: zeroing takes its time. */
    INLINE_RANGE_BYTES_MAX = 256 << 10,
    IOV_COUNT_MAX = 1024,
    /* Longer reads do not stay in the caches until they are sent. */
    FETCH_BYTES_MAX = 16 << 10,
    CACHE_LINE_BYTES = 64,
};

/* ---- opening ---- */

/* Make what was created survive a power cut: its size, and its name in the directory. */
static int
sync_created(int fd, const char *path)
{
    if (fsync(fd) < 0) {
        return -errno;
    }
    char *copy = strdup(path);
    ASSERT(copy != NULL);
    int directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (directory < 0) {
        return -errno;
    }
    int result = fsync(directory) < 0 ? -errno : 0;
    close(directory);
    return result;
}

static int
create_file(const char *path, uint32_t flags, uint64_t size_bytes, int *ret_fd, struct error *error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST && (flags & FILE_OPEN_EXCLUSIVE_CREATE) == 0) {
            return -EEXIST; /* the caller opens it instead: no error yet */
        }
        return error_set(error, -errno, "cannot create %s: %s", path, error_name(errno));
    }
    int result = ftruncate(fd, (off_t)size_bytes) < 0 ? -errno : 0;
    if (result == 0) {
        result = sync_created(fd, path);
    }
    if (result < 0) {
        unlink(path);
        close(fd);
        return error_set(error, result, "cannot create %s: %s", path, error_name(result));
    }
    *ret_fd = fd;
    return 0;
}

/* How often a process, named by its directory in /proc, has this file open. */
static uint32_t
count_open(const char *process, const struct stat *wanted)
{
    char path[300];
    snprintf(path, sizeof(path), "/proc/%s/fd", process);
    DIR *descriptors = opendir(path);
    struct dirent *descriptor;
    uint32_t count = 0;

    if (descriptors == NULL) {
        return 0;
    }
    while ((descriptor = readdir(descriptors)) != NULL) {
        struct stat status;
        count += descriptor->d_name[0] != '.' &&
                 fstatat(dirfd(descriptors), descriptor->d_name, &status, 0) == 0 &&
                 status.st_dev == wanted->st_dev && status.st_ino == wanted->st_ino;
    }
    closedir(descriptors);
    return count;
}

static int
refuse_own(const char *path, struct error *error)
{
    return error_set(error, -EBUSY,
                     "%s is in use: this daemon has it open already, for one of its pools", path);
}

static int
open_existing(const char *path, uint32_t flags, int *ret_fd, struct error *error)
{
    int open_flags = (flags & FILE_OPEN_READ_ONLY) != 0 ? O_RDONLY : O_RDWR;
    struct stat status;

    /* On a block device O_EXCL excludes mounts, volume managers and others who ask for it. */
    if ((flags & FILE_OPEN_LOCK) != 0 && stat(path, &status) == 0 && S_ISBLK(status.st_mode)) {
        open_flags |= O_EXCL;
    }
    /* O_NONBLOCK: a FIFO must not stop us here; it has no effect on files and disks. */
    int fd = open(path, open_flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int code = errno;
        if (code == EBUSY && stat(path, &status) == 0 && count_open("self", &status) > 0) {
            return refuse_own(path, error);
        }
        if (code == EBUSY) {
            return error_set(error, -EBUSY,
                             "%s is in use: it is mounted, part of another volume manager's "
                             "device, or opened exclusively by another process",
                             path);
        }
        return error_set(error, -code, "cannot open %s: %s", path, error_name(code));
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    *ret_fd = fd;
    return 0;
}

/*
 * A process that has the file open, for the message only; 0 where it is not told. Others first;
 * this one has it open in `fd`, too.
 */
static long
find_holder(int fd)
{
    struct stat wanted;
    DIR *processes = fstat(fd, &wanted) == 0 ? opendir("/proc") : NULL;
    struct dirent *process;
    long holder = 0;

    while (holder == 0 && processes != NULL && (process = readdir(processes)) != NULL) {
        long pid = strtol(process->d_name, NULL, 10);
        if (pid > 0 && pid != getpid() && count_open(process->d_name, &wanted) > 0) {
            holder = pid;
        }
    }
    if (holder == 0 && processes != NULL && count_open("self", &wanted) > 1) {
        holder = getpid();
    }
    if (processes != NULL) {
        closedir(processes);
    }
    return holder;
}

/*
 * The lock is on the descriptor that carries the transfers, so that the kernel releases it only
 * after the last of them has ended, even if this process has died long before.
 */
static int
lock_file(int fd, const char *path, bool read_only, struct error *error)
{
    struct flock lock = {
        /* An exclusive lock needs a writable descriptor; a shared one excludes writers as well. */
        .l_type = read_only ? F_RDLCK : F_WRLCK,
        .l_whence = SEEK_SET,
    };
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        return 0;
    }
    if (errno == EAGAIN || errno == EACCES) {
        long holder = find_holder(fd);
        if (holder == getpid()) {
            return refuse_own(path, error);
        }
        if (holder > 0) {
            return error_set(error, -EBUSY, "%s is locked: process %ld has it open", path, holder);
        }
        return error_set(error, -EBUSY, "%s is locked by another open of it", path);
    }
    return error_set(error, -errno, "cannot lock %s: %s", path, error_name(errno));
}

/* Bypass the page cache if the file system can. Returns whether it does. */
static bool
make_direct(int fd)
{
    uint32_t memory_bytes = 0;
    uint32_t offset_bytes = 0;

    if (descriptor_is_in_memory(fd) > 0) {
        struct stat status;
        if (fstat(fd, &status) < 0 || S_ISREG(status.st_mode)) {
            return false;
        }
    }
    if (statx_direct_alignment(fd, &memory_bytes, &offset_bytes) && offset_bytes == 0) {
        return false;
    }
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) < 0) {
        return false;
    }
    /* Pages left in the cache would make every direct transfer look for them. */
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return true;
}

int
file_open(struct platform *platform, const char *path, uint32_t flags, uint64_t create_size_bytes,
          struct platform_file **ret_file, struct error *error)
{
    (void)platform;
    ASSERT(path != NULL && ret_file != NULL);
    ASSERT((flags & FILE_OPEN_READ_ONLY) == 0 || (flags & FILE_OPEN_CREATE) == 0);
    bool read_only = (flags & FILE_OPEN_READ_ONLY) != 0;
    int fd = -1;
    int result = -EEXIST;

    if ((flags & FILE_OPEN_CREATE) != 0) {
        result = create_file(path, flags, create_size_bytes, &fd, error);
    }
    if (result == -EEXIST && (flags & FILE_OPEN_EXCLUSIVE_CREATE) == 0) {
        result = open_existing(path, flags, &fd, error);
    }
    if (result == 0 && (flags & FILE_OPEN_LOCK) != 0) {
        result = lock_file(fd, path, read_only, error);
    }
    if (result < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return result;
    }
    struct platform_file *file = calloc(1, sizeof(*file));
    ASSERT(file != NULL);
    file->fd = fd;
    bool direct = (flags & FILE_OPEN_DIRECT) != 0 && make_direct(fd);
    result = file_probe(fd, direct, !read_only, file, error);
    if (result < 0) {
        error_prefix(error, "%s", path);
        file_close(file);
        return result;
    }
    if (file->properties.memory_backed) {
        memory_map(file, !read_only);
    }
    *ret_file = file;
    return 0;
}

void
file_close(struct platform_file *file)
{
    ASSERT(file->fd >= 0);
    memory_unmap(file);
    close(file->fd);
    free(file);
}

const struct file_properties *
file_properties(struct platform_file *file)
{
    return &file->properties;
}

int
file_refresh(struct platform_file *file)
{
    uint64_t size_bytes = 0;
    int result = file_read_size(file->fd, &size_bytes);
    if (result == 0) {
        /* Others may be reading it. */
        __atomic_store_n(&file->properties.size_bytes, size_bytes, __ATOMIC_RELAXED);
    }
    return result;
}

/* ---- files in memory ---- */

static int32_t
transfer_now(struct io_engine *engine, struct file_io *io)
{
    ssize_t done;

    if (memory_transfer(engine, io)) {
        return (int32_t)io->length_bytes;
    }
    do {
        if (io->kind == FILE_IO_READ) {
            done = preadv(io->file->fd, io->iov, (int)io->iov_count, (off_t)io->offset_bytes);
        } else {
            done = pwritev(io->file->fd, io->iov, (int)io->iov_count, (off_t)io->offset_bytes);
        }
    } while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : (int32_t)done;
}

static int32_t
change_range_now(struct file_io *io, int mode)
{
    int result;
    do {
        result = fallocate(io->file->fd, mode, (off_t)io->offset_bytes, (off_t)io->length_bytes);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* ---- submission ---- */

static void
submit_transfer(struct io_engine *engine, struct file_io *io)
{
    ASSERT(io->iov_count > 0 && io->iov_count <= IOV_COUNT_MAX);
    if (io->file->properties.memory_backed) {
        reactor_complete(&io->op, transfer_now(engine, io));
        return;
    }
    bool is_read = io->kind == FILE_IO_READ;
    struct io_uring_sqe *entry = engine_get_entry(engine, io, is_read ? TAG_READ : TAG_WRITE);
    int fd = io->file->fd;

    if (io->iov_count > 1 || io->iov[0].iov_len > UINT32_MAX) {
        if (is_read) {
            io_uring_prep_readv(entry, fd, io->iov, io->iov_count, io->offset_bytes);
        } else {
            io_uring_prep_writev(entry, fd, io->iov, io->iov_count, io->offset_bytes);
        }
    } else {
        void *base = io->iov[0].iov_base;
        uint32_t length_bytes = (uint32_t)io->iov[0].iov_len;
        int region = engine_find_region(engine, base, length_bytes);
        if (region >= 0 && is_read) {
            io_uring_prep_read_fixed(entry, fd, base, length_bytes, io->offset_bytes, region);
        } else if (region >= 0) {
            io_uring_prep_write_fixed(entry, fd, base, length_bytes, io->offset_bytes, region);
        } else if (is_read) {
            io_uring_prep_read(entry, fd, base, length_bytes, io->offset_bytes);
        } else {
            io_uring_prep_write(entry, fd, base, length_bytes, io->offset_bytes);
        }
    }
    if (!is_read && io->fua) {
        entry->rw_flags = RWF_DSYNC;
    }
    engine_transfer_queued(engine);
}

/*
 * What a device has written to memory is in no cache of this processor, and whoever copies it next
 * (to a socket) waits for one line after the other: 4.5 us for 4 KiB, a third of all the time that
 * a read took. Asked for side by side beforehand, the lines are there by then.
 */
void
file_fetch_data(const struct file_io *io, int32_t result)
{
    ASSERT(io->kind == FILE_IO_READ);
    if (result <= 0 || result > FETCH_BYTES_MAX) {
        return;
    }
    for (uint32_t i = 0; i < io->iov_count; i++) {
        const uint8_t *base = io->iov[i].iov_base;
        for (size_t at = 0; at < io->iov[i].iov_len; at += CACHE_LINE_BYTES) {
            __builtin_prefetch(base + at);
        }
    }
}

static void
submit_flush(struct io_engine *engine, struct file_io *io)
{
    struct io_uring_sqe *entry = engine_get_entry(engine, &io->op, TAG_OP);
    io_uring_prep_fsync(entry, io->file->fd, IORING_FSYNC_DATASYNC);
}

static void
submit_range(struct io_engine *engine, struct file_io *io, int mode, enum completion_tag tag)
{
    if (io->file->properties.memory_backed && io->length_bytes <= INLINE_RANGE_BYTES_MAX) {
        reactor_complete(&io->op, change_range_now(io, mode));
        return;
    }
    struct io_uring_sqe *entry = engine_get_entry(engine, &io->op, tag);
    io_uring_prep_fallocate(entry, io->file->fd, mode, (off_t)io->offset_bytes,
                            (off_t)io->length_bytes);
}

static void
submit_write_zeroes(struct io_engine *engine, struct file_io *io)
{
    /* On a file, zeroing a range keeps its room, so a later write there cannot meet ENOSPC. */
    bool punch = io->file->properties.memory_backed || atomic_load(&io->file->no_zero_range);
    submit_range(engine, io,
                 (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE,
                 punch ? TAG_OP : TAG_ZEROES);
}

bool
file_retry_zeroes(struct io_engine *engine, struct file_io *io, int32_t result)
{
    ASSERT(io->kind == FILE_IO_WRITE_ZEROES);
    if (result != -EOPNOTSUPP || !io->file->can_punch) {
        return false;
    }
    atomic_store(&io->file->no_zero_range, true);
    submit_write_zeroes(engine, io);
    return true;
}

void
file_submit(struct io_engine *engine, struct file_io *io)
{
    ASSERT_ON_REACTOR(engine->reactor);
    ASSERT(io->op.done != NULL && io->file != NULL);
    const struct file_properties *properties = &io->file->properties;

    io->op.reactor_id = engine->reactor_id;
    switch (io->kind) {
    case FILE_IO_READ:
    case FILE_IO_WRITE:
        submit_transfer(engine, io);
        return;
    case FILE_IO_FLUSH:
        if (properties->memory_backed) {
            reactor_complete(&io->op, 0); /* memory is all the durability that it has */
        } else {
            submit_flush(engine, io);
        }
        return;
    case FILE_IO_DISCARD:
        if (properties->discard_granularity_bytes == 0) {
            reactor_complete(&io->op, -EOPNOTSUPP);
        } else {
            submit_range(engine, io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, TAG_OP);
        }
        return;
    case FILE_IO_WRITE_ZEROES:
        submit_write_zeroes(engine, io);
        return;
    case FILE_IO_ALLOCATE:
        if (properties->kind == FILE_KIND_REGULAR) {
            submit_range(engine, io, FALLOC_FL_KEEP_SIZE, TAG_OP);
        } else {
            reactor_complete(&io->op, 0); /* a device has all its room */
        }
        return;
    }
    UNREACHABLE();
}
