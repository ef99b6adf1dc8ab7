/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an open file stands on: its size, what direct transfers need, what the device below can do.
 * Everything here asks the kernel; nothing changes the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/util.h"
#include "io/platform_uring_impl.h"

enum {
    SECTOR_BYTES_MIN = 512,
    SECTOR_BYTES_DEFAULT = 4096, /* safe wherever the kernel does not say */
    SECTOR_BYTES_MAX = 65536,
};

int
descriptor_is_in_memory(int fd)
{
    struct statfs status;
    if (fstatfs(fd, &status) < 0) {
        return -errno;
    }
    return status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC;
}

int
file_read_size(int fd, uint64_t *ret_size_bytes)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (S_ISBLK(status.st_mode)) {
        uint64_t size_bytes = 0;
        if (ioctl(fd, BLKGETSIZE64, &size_bytes) < 0) {
            return -errno;
        }
        *ret_size_bytes = size_bytes;
    } else {
        *ret_size_bytes = (uint64_t)status.st_size;
    }
    return 0;
}

/*
 * Read one number or word of the queue directory of a block device. A partition has no queue of its
 * own: it is its parent's. False: not there.
 */
static bool
read_queue_attribute(dev_t device, const char *attribute, char text[static 64])
{
    static const char *const places[] = { "", "../" };

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        char path[128];
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(device),
                 minor(device), places[i], attribute);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        ssize_t got = read(fd, text, 63);
        close(fd);
        if (got > 0) {
            text[got] = '\0';
            text[strcspn(text, "\n")] = '\0';
            return true;
        }
    }
    return false;
}

static uint64_t
queue_number(dev_t device, const char *attribute, uint64_t otherwise)
{
    char text[64];
    if (!read_queue_attribute(device, attribute, text)) {
        return otherwise;
    }
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' ? value : otherwise;
}

static bool
is_sector_size(uint64_t bytes)
{
    return is_power_of_two(bytes) && bytes >= SECTOR_BYTES_MIN && bytes <= SECTOR_BYTES_MAX;
}

static int
probe_block_device(int fd, dev_t device, struct platform_file *file, struct error *error)
{
    struct file_properties *properties = &file->properties;
    int logical = 0;
    unsigned physical = 0;

    if (ioctl(fd, BLKSSZGET, &logical) < 0 || !is_sector_size((uint64_t)logical)) {
        return error_set(error, -EIO, "the device does not tell its sector size");
    }
    if (ioctl(fd, BLKPBSZGET, &physical) < 0 || !is_sector_size(physical)) {
        physical = (unsigned)logical;
    }
    properties->kind = FILE_KIND_BLOCK_DEVICE;
    properties->logical_sector_bytes = (uint32_t)logical;
    properties->physical_sector_bytes = MAX(physical, (unsigned)logical);
    properties->rotational = queue_number(device, "rotational", 0) != 0;
    char cache[64];
    properties->write_cache =
        !read_queue_attribute(device, "write_cache", cache) || strcmp(cache, "write through") != 0;
    /*
     * Our discard is a punched hole, which the kernel turns into zeroing with unmapping. A device
     * without that command cannot do it, whatever it says of plain discards.
     */
    file->can_punch = queue_number(device, "write_zeroes_max_bytes", 0) > 0 &&
                      queue_number(device, "discard_max_bytes", 0) > 0;
    if (file->can_punch) {
        properties->discard_granularity_bytes =
            MAX(queue_number(device, "discard_granularity", (uint64_t)logical), (uint64_t)logical);
    }
    return 0;
}

static void
probe_regular(int fd, const struct stat *status, bool writable, struct platform_file *file)
{
    struct file_properties *properties = &file->properties;
    uint64_t block_bytes = is_sector_size((uint64_t)status->st_blksize)
                               ? (uint64_t)status->st_blksize
                               : SECTOR_BYTES_DEFAULT;

    properties->kind = FILE_KIND_REGULAR;
    properties->physical_sector_bytes = SECTOR_BYTES_DEFAULT;
    properties->write_cache = true;
    if (properties->memory_backed) {
        properties->logical_sector_bytes = 1;
    } else {
        uint64_t physical =
            queue_number(status->st_dev, "physical_block_size", SECTOR_BYTES_DEFAULT);
        if (is_sector_size(physical)) {
            properties->physical_sector_bytes = (uint32_t)physical;
        }
        uint64_t logical = queue_number(status->st_dev, "logical_block_size", SECTOR_BYTES_DEFAULT);
        properties->logical_sector_bytes = !properties->direct       ? 1
                                           : is_sector_size(logical) ? (uint32_t)logical
                                                                     : SECTOR_BYTES_DEFAULT;
        properties->rotational = queue_number(status->st_dev, "rotational", 0) != 0;
    }
    /* Beyond the end there is nothing to punch: it only asks whether the file system knows how. */
    off_t beyond = (off_t)align_up((uint64_t)status->st_size, block_bytes);
    file->can_punch = writable && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, beyond,
                                            (off_t)block_bytes) == 0;
    properties->discard_granularity_bytes = file->can_punch ? block_bytes : 0;
}

int
file_probe(int fd, bool direct, bool writable, struct platform_file *file, struct error *error)
{
    struct file_properties *properties = &file->properties;
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return error_set(error, -errno, "cannot look at it: %s", error_name(errno));
    }
    int in_memory = descriptor_is_in_memory(fd);
    if (in_memory < 0) {
        return error_set(error, in_memory, "cannot tell what it stands on: %s",
                         error_name(in_memory));
    }
    /* A device node on devtmpfs is not memory. */
    properties->memory_backed = S_ISREG(status.st_mode) && in_memory > 0;
    properties->direct = direct;
    properties->memory_alignment_bytes = 1;
    if (S_ISREG(status.st_mode)) {
        probe_regular(fd, &status, writable, file);
    } else if (S_ISBLK(status.st_mode)) {
        int result = probe_block_device(fd, status.st_rdev, file, error);
        if (result < 0) {
            return result;
        }
    } else {
        properties->kind = FILE_KIND_OTHER;
        properties->logical_sector_bytes = 1;
        properties->physical_sector_bytes = 1;
    }
    if (direct) {
        uint32_t memory_bytes = 0;
        uint32_t offset_bytes = 0;
        if (statx_direct_alignment(fd, &memory_bytes, &offset_bytes) && offset_bytes > 0 &&
            memory_bytes > 0) {
            properties->logical_sector_bytes = MAX(
                offset_bytes, (uint32_t)(S_ISBLK(status.st_mode) ? properties->logical_sector_bytes
                                                                 : SECTOR_BYTES_MIN));
            properties->memory_alignment_bytes = memory_bytes;
        } else {
            properties->memory_alignment_bytes = properties->logical_sector_bytes;
        }
        properties->physical_sector_bytes =
            MAX(properties->physical_sector_bytes, properties->logical_sector_bytes);
    }
    int result = file_read_size(fd, &properties->size_bytes);
    return result == 0 ? 0
                       : error_set(error, result, "cannot read its size: %s", error_name(result));
}
