/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks in memory, for tests and measurements: "mem:SIZE[?block=512|4096]". The memory is mapped
 * sparse, belongs to this instance, and is gone when it is closed. Transfers are copies done inside
 * submit; their completions are queued to the loop. Nothing here waits, so nothing is ever overdue.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backends/guard.h"
#include "backends/registry.h"
#include "base/assert.h"
#include "base/size_text.h"
#include "base/util.h"

enum {
    MEMORY_PAGE_BYTES = 4096
};

static const char memory_scheme[] = "mem:";

static int
parse_memory_spec(const char *spec, uint64_t *ret_size_bytes, uint32_t *ret_block_bytes,
                  struct error *error)
{
    char text[SIZE_TEXT_SIZE * 2];
    const char *start = spec + strlen(memory_scheme);
    size_t length = strcspn(start, "?");
    uint64_t size_bytes = 0;
    uint32_t block_bytes = 512;

    if (strcmp(start + length, "?block=4096") == 0) {
        block_bytes = 4096;
    } else if (start[length] != '\0' && strcmp(start + length, "?block=512") != 0) {
        return error_set(error, -EINVAL, "unknown option \"%s\" of a memory disk", start + length);
    }
    if (length < sizeof(text)) {
        memcpy(text, start, length);
        text[length] = '\0';
    }
    if (length >= sizeof(text) || size_parse(text, &size_bytes) < 0 || size_bytes == 0) {
        return error_set(error, -EINVAL, "\"%s\" has no valid size; write mem:1G", spec);
    }
    if (size_bytes % MEMORY_PAGE_BYTES != 0) {
        return error_set(error, -EINVAL, "the size of a memory disk is a multiple of 4096 bytes");
    }
    *ret_size_bytes = size_bytes;
    *ret_block_bytes = block_bytes;
    return 0;
}

static int
memory_open(struct backend *backend, const char *spec, uint32_t flags, struct error *error)
{
    uint64_t size_bytes = 0;
    uint32_t block_bytes = 0;
    (void)flags;

    int result = parse_memory_spec(spec, &size_bytes, &block_bytes, error);
    if (result < 0) {
        return result;
    }
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return error_set(error, -ENOMEM, "cannot map the memory of %s", spec);
    }
    backend->state = memory;
    backend->properties = (struct backend_properties){
        .size_bytes = size_bytes,
        .block_bytes = block_bytes,
        .physical_block_bytes = MEMORY_PAGE_BYTES,
        .memory_alignment_bytes = 1,
        .discard_granularity_bytes = MEMORY_PAGE_BYTES,
        .transfer_bytes_max = 64 * MIB,
        .write_cache = false,
    };
    return 0;
}

static void
memory_close(struct backend *backend)
{
    ASSERT(backend->state != NULL);
    munmap(backend->state, backend->properties.size_bytes);
    backend->state = NULL;
}

/* Zero a range, giving whole pages back. */
static void
memory_zero(uint8_t *start, uint64_t length_bytes)
{
    uintptr_t first = align_up((uintptr_t)start, MEMORY_PAGE_BYTES);
    uintptr_t last = align_down((uintptr_t)start + length_bytes, MEMORY_PAGE_BYTES);

    if (first >= last) {
        memset(start, 0, length_bytes);
        return;
    }
    memset(start, 0, first - (uintptr_t)start);
    int result = madvise((void *)first, last - first, MADV_DONTNEED);
    ASSERT_OP(result, ==, 0); /* cannot fail on a private anonymous mapping of ours */
    memset((void *)last, 0, (uintptr_t)start + length_bytes - last);
}

static void
memory_submit(struct backend *backend, struct backend_io *io)
{
    uint8_t *at = (uint8_t *)backend->state + io->offset_bytes;
    ASSERT(io->kind == BACKEND_FLUSH ||
           io->offset_bytes + io->length_bytes <= backend->properties.size_bytes);

    switch (io->kind) {
    case BACKEND_READ:
        for (uint32_t i = 0; i < io->iov_count; i++) {
            memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
            at += io->iov[i].iov_len;
        }
        break;
    case BACKEND_WRITE:
        for (uint32_t i = 0; i < io->iov_count; i++) {
            memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
            at += io->iov[i].iov_len;
        }
        break;
    case BACKEND_DISCARD:
    case BACKEND_WRITE_ZEROES:
        memory_zero(at, io->length_bytes);
        break;
    case BACKEND_FLUSH:
    case BACKEND_ALLOCATE:
        break;
    case BACKEND_IO_KIND_COUNT:
        UNREACHABLE();
    }
    reactor_complete(&io->op, 0);
}

const struct backend_ops memory_backend_ops = {
    .type = "memory",
    .scheme = memory_scheme,
    .owner_reactor_only = false,
    .open = memory_open,
    .close = memory_close,
    .refresh = guard_refresh_fixed,
    .submit = memory_submit,
};
