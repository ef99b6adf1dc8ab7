/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are memory already (tmpfs): mapped, and copied by the processor.
 *
 * A plain read or write of such a file is a copy with a look-up for every 4 KiB of it; through a
 * mapping it is the copy alone. Transfers that the mapping cannot serve are left to the plain call.
 * A read through a mapping fills holes of the file. So a file that was not written to is read by
 * plain calls: who only looks at a file that may be somebody else's changes nothing of it.
 *
 * A mapping has one danger: where the file has been cut by somebody else, or the file system is
 * full, touching it is not an error but a signal. While a copy runs, the engine therefore knows
 * where to go back to; the signal leads there, and the plain call that follows finds the error and
 * its number. A bus error anywhere else ends the process as ever.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/util.h"
#include "io/platform_uring_impl.h"

enum {
    /* From here on a write goes round the caches: what is in them will be needed sooner. */
    STREAM_BYTES_MIN = 32 << 10,
    STREAM_ALIGNMENT_BYTES = 16,
};

/* ---- the signal ---- */

static void
bus_error(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    struct reactor *reactor = reactor_self();

    if (reactor != NULL && platform_is_uring(reactor_platform(reactor))) {
        sigjmp_buf *way_back = reactor_engine(reactor)->way_back;
        if (way_back != NULL) {
            siglongjmp(*way_back, 1);
        }
    }
    /* Not ours: the instruction is run again, and has its usual end. */
    signal(number, SIG_DFL);
}

void
memory_catch_bus_errors(void)
{
    struct sigaction action = { .sa_sigaction = bus_error, .sa_flags = SA_SIGINFO };
    sigemptyset(&action.sa_mask);
    int result = sigaction(SIGBUS, &action, NULL);
    ASSERT_OP(result, ==, 0);
}

/* ---- mappings ---- */

void
memory_map(struct platform_file *file, bool writable)
{
    uint64_t size_bytes = file->properties.size_bytes;
    int protection = PROT_READ | (writable ? PROT_WRITE : 0);

    ASSERT(file->properties.memory_backed && file->mapping == NULL);
    if (size_bytes == 0 || size_bytes > SIZE_MAX) {
        return;
    }
    void *mapping = mmap(NULL, size_bytes, protection, MAP_SHARED | MAP_NORESERVE, file->fd, 0);
    if (mapping == MAP_FAILED) {
        return; /* too large, or not allowed: plain calls do */
    }
    munlock(mapping, size_bytes); /* where all memory is locked: this is a disk, not ours */
    madvise(mapping, size_bytes, MADV_DONTFORK);
    madvise(mapping, size_bytes, MADV_DONTDUMP);
    file->mapping = mapping;
    file->mapping_bytes = size_bytes;
    file->mapping_writable = writable;
}

void
memory_unmap(struct platform_file *file)
{
    if (file->mapping != NULL) {
        munmap(file->mapping, file->mapping_bytes);
        file->mapping = NULL;
    }
}

/* ---- transfers ---- */

static void
copy_out(uint8_t *to, const uint8_t *from, size_t length_bytes)
{
#if defined(__SSE2__)
    if (length_bytes >= STREAM_BYTES_MIN &&
        is_aligned((uintptr_t)to | length_bytes, STREAM_ALIGNMENT_BYTES)) {
        for (size_t at = 0; at < length_bytes; at += STREAM_ALIGNMENT_BYTES) {
            _mm_stream_si128((__m128i *)(void *)(to + at),
                             _mm_loadu_si128((const __m128i *)(const void *)(from + at)));
        }
        _mm_sfence(); /* before anybody is told that it has been written */
        return;
    }
#endif
    memcpy(to, from, length_bytes);
}

/* Separate from who sets the way back, so that nothing of theirs is lost in a register. */
static __attribute__((noinline)) void
copy_all(const struct file_io *io)
{
    uint8_t *memory = io->file->mapping + io->offset_bytes;

    for (uint32_t i = 0; i < io->iov_count; i++) {
        const struct iovec *segment = &io->iov[i];
        if (io->kind == FILE_IO_READ) {
            memcpy(segment->iov_base, memory, segment->iov_len);
        } else {
            copy_out(memory, segment->iov_base, segment->iov_len);
        }
        memory += segment->iov_len;
    }
}

bool
memory_transfer(struct io_engine *engine, const struct file_io *io)
{
    struct platform_file *file = io->file;
    sigjmp_buf way_back;

    ASSERT_ON_REACTOR(engine->reactor);
    ASSERT(engine->way_back == NULL);
    if (!atomic_load_explicit(&file->written, memory_order_relaxed)) {
        if (io->kind == FILE_IO_READ) {
            return false;
        }
        atomic_store_explicit(&file->written, true, memory_order_relaxed);
    }
    if (file->mapping == NULL || (io->kind == FILE_IO_WRITE && !file->mapping_writable) ||
        io->length_bytes > INT32_MAX ||
        io->offset_bytes > file->mapping_bytes ||
        io->length_bytes > file->mapping_bytes - io->offset_bytes) {
        return false;
    }
    if (sigsetjmp(way_back, 0) == 0) {
        engine->way_back = &way_back;
        copy_all(io);
        engine->way_back = NULL;
        return true;
    }
    /* The handler was left by a jump: its signal is still blocked. */
    sigset_t blocked;
    engine->way_back = NULL;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &blocked, NULL);
    return false;
}
