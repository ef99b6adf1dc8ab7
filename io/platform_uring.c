/* SPDX-License-Identifier: Apache-2.0 */
/* The Linux platform: clock, randomness, and the table that the other platform_uring files fill. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "io/platform_uring_impl.h"

static uint64_t
read_clock(clockid_t clock)
{
    struct timespec now;
    int result = clock_gettime(clock, &now);
    ASSERT_OP(result, ==, 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t
uring_monotonic_ns(struct platform *platform)
{
    (void)platform;
    return read_clock(CLOCK_BOOTTIME);
}

static uint64_t
uring_realtime_ns(struct platform *platform)
{
    (void)platform;
    return read_clock(CLOCK_REALTIME);
}

static uint64_t
uring_random_u64(struct platform *platform)
{
    uint64_t value = 0;
    (void)platform;
    /* Reads of up to 256 bytes are never short once the pool is initialised. */
    ssize_t got;
    do {
        got = getrandom(&value, sizeof(value), 0);
    } while (got < 0 && errno == EINTR);
    ASSERT_OP(got, ==, (ssize_t)sizeof(value));
    return value;
}

static void
uring_boot_id(struct platform *platform, char ret_text[static 37])
{
    struct platform_uring *uring = (struct platform_uring *)platform;
    memcpy(ret_text, uring->boot_id, sizeof(uring->boot_id));
}

static int
read_boot_id(char text[static 37], struct error *error)
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_set(error, -errno, "cannot open %s: %s", path, error_name(errno));
    }
    char read_text[36];
    ssize_t got = read(fd, read_text, sizeof(read_text));
    close(fd);
    if (got != (ssize_t)sizeof(read_text)) {
        return error_set(error, -EIO, "%s does not hold a boot id", path);
    }
    memcpy(text, read_text, sizeof(read_text));
    text[36] = '\0';
    return 0;
}

static const struct platform_ops uring_ops = {
    .name = "io_uring",
    .monotonic_ns = uring_monotonic_ns,
    .realtime_ns = uring_realtime_ns,
    .random_u64 = uring_random_u64,
    .boot_id = uring_boot_id,
    .engine_open = engine_open,
    .engine_close = engine_close,
    .engine_poll = engine_poll,
    .engine_wake = engine_wake,
    .engine_register_memory = engine_register_memory,
    .file_open = file_open,
    .file_close = file_close,
    .file_properties = file_properties,
    .file_refresh = file_refresh,
    .file_submit = file_submit,
    .socket_listen = socket_listen,
    .socket_accept = socket_accept,
    .socket_receive = socket_receive,
    .socket_send = socket_send,
    .socket_shutdown = socket_shutdown,
    .socket_close = socket_close,
    .fd_poll = engine_fd_poll,
    .fd_poll_cancel = engine_fd_poll_cancel,
    .volatile_map = volatile_map,
    .volatile_unmap = volatile_unmap,
    .volatile_remove = volatile_remove,
};

bool
platform_is_uring(const struct platform *platform)
{
    return platform->ops == &uring_ops;
}

static int
check_volatile_directory(const char *directory, struct error *error)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_set(error, -errno, "cannot open the directory for volatile state %s: %s",
                         directory, error_name(errno));
    }
    int in_memory = descriptor_is_in_memory(fd);
    close(fd);
    if (in_memory < 0) {
        return error_set(error, in_memory, "cannot tell what %s stands on: %s", directory,
                         error_name(in_memory));
    }
    if (in_memory == 0) {
        return error_set(error, -EINVAL,
                         "%s is not on tmpfs: what is kept there must not survive a power cut; "
                         "choose a directory below /run or /dev/shm",
                         directory);
    }
    return 0;
}

int
platform_uring_create(const char *volatile_directory, struct platform **ret_platform,
                      struct error *error)
{
    struct platform_uring *uring = calloc(1, sizeof(*uring));
    ASSERT(uring != NULL);
    uring->platform.ops = &uring_ops;
    int result = read_boot_id(uring->boot_id, error);
    if (result == 0 && volatile_directory != NULL) {
        result = check_volatile_directory(volatile_directory, error);
        if (result == 0) {
            uring->volatile_directory = strdup(volatile_directory);
            ASSERT(uring->volatile_directory != NULL);
        }
    }
    if (result < 0) {
        free(uring);
        return result;
    }
    memory_catch_bus_errors();
    *ret_platform = &uring->platform;
    return 0;
}

void
platform_uring_destroy(struct platform *platform)
{
    struct platform_uring *uring = (struct platform_uring *)platform;
    ASSERT(platform->ops == &uring_ops);
    free(uring->volatile_directory);
    free(uring);
}
