/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ballast: a preallocated file beside the database that is removed on the day on which the
 * device is full, so that the commits which free space can still be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/store_rocksdb_impl.h"

enum {
    PATH_BYTES = 4096,
};

/* Taking must never be what fills the device: as much again stays free. */
static bool
there_is_room(int fd, uint64_t more_bytes)
{
    struct statvfs fs;
    if (fstatvfs(fd, &fs) != 0) {
        return false;
    }
    uint64_t available_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return available_bytes / 2 >= more_bytes;
}

static int
ballast_take(const char *path, uint64_t wanted_bytes, uint64_t *ret_held_bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    int result = 0;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        result = -errno;
    } else if ((uint64_t)st.st_blocks * 512 < wanted_bytes
               || (uint64_t)st.st_size < wanted_bytes) {
        if (!there_is_room(fd, wanted_bytes)) {
            result = -ENOSPC;
        } else if (fallocate(fd, 0, 0, (off_t)wanted_bytes) != 0 || fsync(fd) != 0) {
            result = -errno;
        }
    }
    close(fd);
    if (result != 0) {
        unlink(path); /* half a ballast is none, and the space is wanted elsewhere */
        return result;
    }
    *ret_held_bytes = wanted_bytes;
    return 0;
}

int
store_ballast_set(const char *directory, uint64_t wanted_bytes, uint64_t *ret_held_bytes)
{
    ASSERT(ret_held_bytes != NULL);
    char path[PATH_BYTES];
    int length = snprintf(path, sizeof(path), "%s/BALLAST", directory);
    *ret_held_bytes = 0;
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return -ENAMETOOLONG;
    }
    if (wanted_bytes > 0) {
        return ballast_take(path, wanted_bytes, ret_held_bytes);
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return -errno;
    }
    return 0;
}
