/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct transfer alignment by statx(2) (Linux 6.1). A file of its own, because the C library's
 * struct statx does not have these fields and does not tolerate the kernel's header beside it.
 */
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

bool statx_direct_alignment(int fd, uint32_t *ret_memory_bytes, uint32_t *ret_offset_bytes);

bool
statx_direct_alignment(int fd, uint32_t *ret_memory_bytes, uint32_t *ret_offset_bytes)
{
    struct statx status;
    memset(&status, 0, sizeof(status));
    long result = syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status);
    if (result != 0 || (status.stx_mask & STATX_DIOALIGN) == 0) {
        return false;
    }
    *ret_memory_bytes = status.stx_dio_mem_align;
    *ret_offset_bytes = status.stx_dio_offset_align;
    return true;
}
