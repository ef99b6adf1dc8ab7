/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that outlives the process: files on tmpfs, mapped shared. The kernel keeps what was stored
 * when the process is killed; a power cut takes it away. A new one is built under another name and
 * renamed when it is complete, so that a name never stands for half a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "io/platform_uring_impl.h"

static char *
volatile_path(struct platform *platform, const char *name, const char *suffix)
{
    struct platform_uring *uring = (struct platform_uring *)platform;
    ASSERT(uring->volatile_directory != NULL);
    ASSERT(name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL);
    char *path = NULL;
    int length = asprintf(&path, "%s/%s%s", uring->volatile_directory, name, suffix);
    ASSERT_OP(length, >, 0);
    return path;
}

/* Whether the file can be used as it is: regular, of this size, with all its memory. */
static bool
file_is_whole(int fd, size_t size_bytes)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
           (size_t)status.st_size == size_bytes &&
           (uint64_t)status.st_blocks * 512 >= (uint64_t)size_bytes;
}

static int
create_volatile(const char *new_path, const char *path, size_t size_bytes, int *ret_fd)
{
    if (unlink(new_path) < 0 && errno != ENOENT) {
        return -errno;
    }
    int fd = open(new_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    /* All of it now: a store to memory that does not exist later would be a fatal signal. */
    int result = descriptor_is_in_memory(fd);
    if (result > 0) {
        result = fallocate(fd, 0, 0, (off_t)size_bytes) < 0 ? -errno : 0;
    } else if (result == 0) {
        result = -EINVAL;
    }
    if (result == 0 && rename(new_path, path) < 0) {
        result = -errno;
    }
    if (result < 0) {
        unlink(new_path);
        close(fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

static int
map_descriptor(int fd, const char *path, size_t size_bytes, void **ret_memory)
{
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    if (mlock(memory, size_bytes) < 0) {
        log_warning("io",
                    "%s: cannot lock %zu bytes in memory (%s): raise RLIMIT_MEMLOCK, or it may be "
                    "paged out",
                    path, size_bytes, error_name(errno));
    }
    madvise(memory, size_bytes, MADV_DONTFORK);
    *ret_memory = memory;
    return 0;
}

int
volatile_map(struct platform *platform, const char *name, size_t size_bytes, void **ret_memory,
             bool *ret_existed, struct error *error)
{
    struct platform_uring *uring = (struct platform_uring *)platform;
    ASSERT(size_bytes > 0);
    if (uring->volatile_directory == NULL) {
        return error_set(error, -ENOENT, "no directory for volatile state was configured");
    }
    char *path = volatile_path(platform, name, "");
    char *new_path = volatile_path(platform, name, ".new");
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool existed = fd >= 0 && file_is_whole(fd, size_bytes);
    int result = 0;
    if (!existed) {
        if (fd >= 0) {
            close(fd);
        }
        result = create_volatile(new_path, path, size_bytes, &fd);
    }
    void *memory = NULL;
    if (result == 0) {
        result = map_descriptor(fd, path, size_bytes, &memory);
        close(fd); /* the mapping keeps the file */
    }
    if (result < 0) {
        error_set(error, result, "cannot make %zu bytes of volatile memory in %s: %s", size_bytes,
                  path, error_name(result));
    } else {
        *ret_memory = memory;
        *ret_existed = existed;
    }
    free(path);
    free(new_path);
    return result;
}

void
volatile_unmap(struct platform *platform, void *memory, size_t size_bytes)
{
    (void)platform;
    ASSERT(memory != NULL && size_bytes > 0);
    int result = munmap(memory, size_bytes);
    ASSERT_OP(result, ==, 0);
}

int
volatile_remove(struct platform *platform, const char *name)
{
    struct platform_uring *uring = (struct platform_uring *)platform;
    if (uring->volatile_directory == NULL) {
        return -ENOENT;
    }
    char *path = volatile_path(platform, name, "");
    int result = unlink(path) < 0 ? -errno : 0;
    free(path);
    return result;
}
