/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks in regular files, and the transfers that they share with block devices.
 *
 * Everything goes through the platform, so that the same code runs on the simulator. Transfers
 * bypass the page cache where the file system can; what lies on memory (tmpfs) is done by the
 * platform with plain calls. An operation that the kernel has accepted cannot be cancelled: it
 * stays in flight until the kernel completes it (B2).
 *
 * A file that grows behind our back is seen by refresh(); one that was cut gives short reads, which
 * the guard turns into -EIO. -ENOSPC of the file system is passed on as it is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/file_impl.h"
#include "backends/guard.h"
#include "backends/registry.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/size_text.h"
#include "base/util.h"

enum {
    FILE_PATH_SIZE = 4096
};

static const char file_scheme[] = "file:";

/* Long enough that the device never waits for the next piece, short enough for any counter. */
static const uint64_t file_transfer_bytes_max = 64 * MIB;
/* Keeps one discard or allocation from holding a worker of the kernel for minutes. */
static const uint64_t file_range_bytes_max = 4 * GIB;

/* backend_io.driver */
struct file_driver {
    struct file_io file_io;
};
_Static_assert(sizeof(struct file_driver) <= sizeof(((struct backend_io *)0)->driver),
               "the state of a file transfer must fit into the room that a backend_io has for it");

/* ---- opening ---- */

/* Smallest transfer and its alignment for us: 512 or 4096; 0 when the device's is neither. */
static uint32_t
usable_block_bytes(uint32_t sector_bytes)
{
    if (sector_bytes <= 512) {
        return 512;
    }
    return sector_bytes <= 4096 ? 4096 : 0;
}

static int
fill_properties(struct backend *backend, const char *path, const struct file_properties *file,
                struct error *error)
{
    struct backend_properties *properties = &backend->properties;
    bool regular = file->kind == FILE_KIND_REGULAR;
    uint32_t block_bytes = usable_block_bytes(file->logical_sector_bytes);

    if (block_bytes == 0) {
        return error_set(error, -EINVAL,
                         "%s has sectors of %u bytes; only 512 and 4096 are supported", path,
                         file->logical_sector_bytes);
    }
    if (file->size_bytes < block_bytes) {
        return error_set(error, -EINVAL, "%s is empty; give it a size first (truncate -s 20G %s)",
                         path, path);
    }
    *properties = (struct backend_properties){
        .size_bytes = align_down(file->size_bytes, block_bytes),
        .block_bytes = block_bytes,
        .physical_block_bytes = MAX(block_bytes, file->physical_sector_bytes),
        .memory_alignment_bytes = MAX(file->memory_alignment_bytes, 1u),
        .discard_granularity_bytes = file->discard_granularity_bytes,
        .transfer_bytes_max = file_transfer_bytes_max,
        .range_bytes_max = file_range_bytes_max,
        .rotational = file->rotational,
        .write_cache = file->write_cache,
        .can_grow = true,
        .thin = regular,
        .remote = false,
        .slow_first_write = regular && !file->memory_backed, /* "unwritten" extents */
        .kept_unflushed = true, /* the page cache and the device outlive a process */
    };
    return 0;
}

/* Open what is there; create it exclusively when it is not and a size was given. */
static int
open_or_create(struct platform *platform, const char *path, uint32_t file_flags,
               uint64_t create_size_bytes, struct platform_file **ret_file, struct error *error)
{
    struct error first = { 0 };
    int result = platform->ops->file_open(platform, path, file_flags, 0, ret_file, &first);
    if (result == -ENOENT && create_size_bytes > 0 && !(file_flags & FILE_OPEN_READ_ONLY)) {
        struct error second = { 0 };
        result = platform->ops->file_open(
            platform, path, file_flags | FILE_OPEN_CREATE | FILE_OPEN_EXCLUSIVE_CREATE,
            create_size_bytes, ret_file, &second);
        first = second;
    }
    if (result < 0) {
        return error_set(error, result, "%s", first.code != 0 ? first.message : error_name(result));
    }
    return 0;
}

int
file_disk_open(struct backend *backend, const char *path, uint32_t flags,
               uint64_t create_size_bytes, enum file_kind kind, struct error *error)
{
    struct platform *platform = backend->platform;
    struct platform_file *file = NULL;
    bool read_only = (flags & (BACKEND_OPEN_READ_ONLY | BACKEND_OPEN_PROBE)) != 0;
    uint32_t file_flags = FILE_OPEN_DIRECT;
    ASSERT(backend->state == NULL);

    file_flags |= read_only ? FILE_OPEN_READ_ONLY : 0u;
    file_flags |= flags & BACKEND_OPEN_PROBE ? 0u : FILE_OPEN_LOCK;
    create_size_bytes = flags & BACKEND_OPEN_PROBE ? 0 : create_size_bytes;
    int result = open_or_create(platform, path, file_flags, create_size_bytes, &file, error);
    if (result < 0) {
        return result;
    }
    const struct file_properties *properties = platform->ops->file_properties(file);
    if (properties->kind != kind) {
        result = error_set(error, -EINVAL, "%s is not a %s", path,
                           kind == FILE_KIND_REGULAR ? "regular file" : "block device");
    } else {
        result = fill_properties(backend, path, properties, error);
    }
    if (result < 0) {
        platform->ops->file_close(file);
        return result;
    }
    backend->state = file;
    /* The platform promises FUA for writes only. */
    guard_emulate(backend, GUARD_EMULATE_ZEROES_FUA);
    return 0;
}

void
file_disk_close(struct backend *backend)
{
    struct platform_file *file = backend->state;
    ASSERT(file != NULL);
    backend->state = NULL;
    backend->platform->ops->file_close(file);
}

int
file_disk_refresh(struct backend *backend, struct error *error)
{
    struct platform_file *file = backend->state;
    int result = backend->platform->ops->file_refresh(file);
    if (result < 0) {
        return error_set(error, result, "cannot read the size of %s: %s", backend->spec,
                         error_name(result));
    }
    uint64_t size_bytes = align_down(backend->platform->ops->file_properties(file)->size_bytes,
                                     backend->properties.block_bytes);
    uint64_t old_bytes = backend_size_bytes(backend);
    if (size_bytes < old_bytes) {
        char now_text[SIZE_TEXT_SIZE], old_text[SIZE_TEXT_SIZE];
        return error_set(error, -EINVAL, "%s has shrunk from %s to %s; restore its size",
                         backend->spec, size_format(old_bytes, old_text),
                         size_format(size_bytes, now_text));
    }
    __atomic_store_n(&backend->properties.size_bytes, size_bytes, __ATOMIC_RELAXED);
    return 0;
}

/* ---- transfers ---- */

static void
file_disk_done(struct io_op *op)
{
    struct file_driver *driver = container_of(op, struct file_driver, file_io.op);
    struct backend_io *io = container_of((void *)driver, struct backend_io, driver);
    int32_t result = op->result;

    if (result >= 0 && (io->kind == BACKEND_READ || io->kind == BACKEND_WRITE)) {
        if ((uint64_t)result == io->length_bytes) {
            result = 0;
        } else if (result == 0) {
            result = -EIO; /* the end of the file, before the end of the disk */
        }
    } else if (result > 0) {
        result = 0;
    }
    guard_complete(io, result);
}

void
file_disk_submit(struct backend *backend, struct backend_io *io)
{
    static const enum file_io_kind kinds[BACKEND_IO_KIND_COUNT] = {
        [BACKEND_READ] = FILE_IO_READ,
        [BACKEND_WRITE] = FILE_IO_WRITE,
        [BACKEND_FLUSH] = FILE_IO_FLUSH,
        [BACKEND_DISCARD] = FILE_IO_DISCARD,
        [BACKEND_WRITE_ZEROES] = FILE_IO_WRITE_ZEROES,
        [BACKEND_ALLOCATE] = FILE_IO_ALLOCATE,
    };
    struct file_driver *driver = (struct file_driver *)io->driver;
    ASSERT_OP((uint32_t)io->kind, <, (uint32_t)BACKEND_IO_KIND_COUNT);

    driver->file_io = (struct file_io){
        .op = { .done = file_disk_done, .reactor_id = io->op.reactor_id },
        .file = backend->state,
        .kind = kinds[io->kind],
        .fua = io->fua && io->kind == BACKEND_WRITE,
        .offset_bytes = io->offset_bytes,
        .length_bytes = io->length_bytes,
        .iov = io->iov,
        .iov_count = io->iov_count,
    };
    backend->platform->ops->file_submit(reactor_engine(reactor_self()), &driver->file_io);
}

/* ---- the text of a file disk ---- */

/* "file:PATH" or "file:PATH?size=20G" or a plain path. */
static int
parse_file_spec(const char *spec, char path[static FILE_PATH_SIZE], uint64_t *ret_size_bytes,
                struct error *error)
{
    bool with_scheme = strncmp(spec, file_scheme, strlen(file_scheme)) == 0;
    const char *start = with_scheme ? spec + strlen(file_scheme) : spec;
    const char *options = with_scheme ? strrchr(start, '?') : NULL;
    size_t length = options != NULL ? (size_t)(options - start) : strlen(start);
    uint64_t size_bytes = 0;

    if (length == 0) {
        return error_set(error, -EINVAL, "\"%s\" names no file; write file:PATH?size=20G", spec);
    }
    if (length >= FILE_PATH_SIZE) {
        return error_set(error, -ENAMETOOLONG, "the path of the file is too long");
    }
    if (options != NULL) {
        if (strncmp(options, "?size=", 6) != 0) {
            return error_set(error, -EINVAL,
                             "unknown option \"%s\" of a file disk; write ?size=20G", options);
        }
        if (size_parse(options + 6, &size_bytes) < 0 || size_bytes == 0) {
            return error_set(error, -EINVAL, "\"%s\" is not a size; write ?size=20G", options + 6);
        }
        if (size_bytes % 4096 != 0) {
            return error_set(error, -EINVAL, "the size of a file disk is a multiple of 4096 bytes");
        }
    }
    memcpy(path, start, length);
    path[length] = '\0';
    *ret_size_bytes = size_bytes;
    return 0;
}

static int
file_open(struct backend *backend, const char *spec, uint32_t flags, struct error *error)
{
    char path[FILE_PATH_SIZE];
    uint64_t size_bytes = 0;
    int result = parse_file_spec(spec, path, &size_bytes, error);
    if (result < 0) {
        return result;
    }
    return file_disk_open(backend, path, flags, size_bytes, FILE_KIND_REGULAR, error);
}

const struct backend_ops file_backend_ops = {
    .type = "file",
    .scheme = file_scheme,
    .owner_reactor_only = false,
    .open = file_open,
    .close = file_disk_close,
    .refresh = file_disk_refresh,
    .submit = file_disk_submit,
};
