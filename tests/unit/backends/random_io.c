/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backends/random_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

struct random_io *
random_io_create(struct world *world, struct backend *backend, uint64_t seed)
{
    struct random_io *work = calloc(1, sizeof(*work));
    work->world = world;
    work->backend = backend;
    work->size_bytes = backend_size_bytes(backend);
    work->block_bytes = backend->properties.block_bytes;
    work->model = malloc(work->size_bytes);
    work->known = calloc(work->size_bytes / work->block_bytes, 1);
    random_seed(&work->random, seed);
    for (uint32_t i = 0; i < RANDOM_IO_DEPTH; i++) {
        work->slots[i].buffer = buffer_new(RANDOM_IO_BYTES_MAX + 4096, seed + i);
    }
    return work;
}

void
random_io_free(struct random_io *work)
{
    for (uint32_t i = 0; i < RANDOM_IO_DEPTH; i++) {
        free(work->slots[i].buffer);
    }
    free(work->model);
    free(work->known);
    free(work);
}

static bool
overlaps(const struct random_io *work, uint64_t offset_bytes, uint64_t length_bytes)
{
    for (uint32_t i = 0; i < RANDOM_IO_DEPTH; i++) {
        const struct backend_io *io = &work->slots[i].io.io;
        uint64_t at = work->slots[i].io.io.offset_bytes;
        if (work->slots[i].busy && io->kind != BACKEND_FLUSH &&
            offset_bytes < at + io->length_bytes && at < offset_bytes + length_bytes) {
            return true;
        }
    }
    return false;
}

static void
set_known(struct random_io *work, const struct backend_io *io, bool known)
{
    memset(work->known + io->offset_bytes / work->block_bytes, known,
           io->length_bytes / work->block_bytes);
}

static void
check_read(struct random_io *work, struct random_io_slot *slot)
{
    const struct backend_io *io = &slot->io.io;
    uint64_t at = io->offset_bytes;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        const uint8_t *got = io->iov[i].iov_base;
        for (uint64_t j = 0; j < io->iov[i].iov_len;
             j += MIN(work->block_bytes, io->iov[i].iov_len - j)) {
            uint64_t block = (at + j) / work->block_bytes;
            uint64_t bytes = MIN((uint64_t)work->block_bytes - (at + j) % work->block_bytes,
                                 io->iov[i].iov_len - j);
            if (work->known[block] && memcmp(got + j, work->model + at + j, bytes) != 0) {
                fail_msg("wrong data at byte %llu", (unsigned long long)(at + j));
            }
        }
        at += io->iov[i].iov_len;
    }
    work->reads_checked++;
}

static void
finish(struct random_io *work, struct random_io_slot *slot)
{
    const struct backend_io *io = &slot->io.io;
    int result = io->op.result;

    slot->busy = false;
    bool flushes = io->kind == BACKEND_FLUSH || io->fua; /* the guard may emulate the latter */
    if (flushes && result == -EIO && work->tolerate_flush_errors) {
        work->flush_errors++;
        if (io->kind != BACKEND_FLUSH) {
            set_known(work, io, false);
        }
        return;
    }
    if (result != 0) {
        fail_msg("operation %d of %llu bytes at %llu: %d", (int)io->kind,
                 (unsigned long long)io->length_bytes, (unsigned long long)io->offset_bytes,
                 result);
    }
    switch (io->kind) {
    case BACKEND_READ:
        check_read(work, slot);
        break;
    case BACKEND_WRITE:
        for (uint64_t i = 0, at = io->offset_bytes; i < io->iov_count; i++) {
            memcpy(work->model + at, io->iov[i].iov_base, io->iov[i].iov_len);
            at += io->iov[i].iov_len;
        }
        set_known(work, io, true);
        break;
    case BACKEND_WRITE_ZEROES:
        memset(work->model + io->offset_bytes, 0, io->length_bytes);
        set_known(work, io, true);
        break;
    default:
        break;
    }
}

static struct random_io_slot *
free_slot(struct random_io *work)
{
    uint64_t end_ms = support_now_ms() + 120000;
    for (;;) {
        struct random_io_slot *found = NULL;
        for (uint32_t i = 0; i < RANDOM_IO_DEPTH; i++) {
            struct random_io_slot *slot = &work->slots[i];
            if (slot->busy && slot->io.ended) {
                finish(work, slot);
            }
            found = slot->busy ? found : slot;
        }
        if (found != NULL) {
            return found;
        }
        reactor_pass(work->world->reactor, true, NS_PER_MS);
        if (support_now_ms() > end_ms) {
            fail_msg("operations do not end");
        }
    }
}

void
random_io_drain(struct random_io *work)
{
    for (uint32_t i = 0; i < RANDOM_IO_DEPTH; i++) {
        if (work->slots[i].busy) {
            io_wait(work->world, &work->slots[i].io);
            finish(work, &work->slots[i]);
        }
    }
}

/* Cut the buffer into pieces of whole blocks. */
static void
choose_iov(struct random_io *work, struct random_io_slot *slot, uint64_t length_bytes)
{
    uint64_t unit = MAX(work->backend->properties.memory_alignment_bytes, 512u);
    uint32_t count = 0;
    uint64_t at = 0;
    bool many = random_chance(&work->random, 1, 3);

    while (at < length_bytes) {
        uint64_t bytes = length_bytes - at;
        if (many && count + 1 < RANDOM_IO_IOV_MAX && bytes > unit) {
            bytes = unit * (1 + random_below(&work->random, bytes / unit));
        }
        slot->iov[count++] = (struct iovec){ slot->buffer + at, bytes };
        at += bytes;
    }
    slot->io.io.iov = slot->iov;
    slot->io.io.iov_count = count;
}

static enum backend_io_kind
choose_kind(struct random_io *work)
{
    uint64_t dice = random_below(&work->random, 100);
    if (dice < 40) {
        return BACKEND_READ;
    }
    if (dice < 82) {
        return BACKEND_WRITE;
    }
    if (dice < 88) {
        return BACKEND_FLUSH;
    }
    if (dice < 93) {
        return BACKEND_DISCARD;
    }
    return BACKEND_WRITE_ZEROES;
}

static void
start_one(struct random_io *work, struct random_io_slot *slot)
{
    static const uint64_t bytes_max[] = { 4096, 16384, 131072, RANDOM_IO_BYTES_MAX };
    uint64_t limit = bytes_max[random_below(&work->random, ARRAY_SIZE(bytes_max))];
    uint64_t blocks = 1 + random_below(&work->random, limit / work->block_bytes);
    uint64_t disk_blocks = work->size_bytes / work->block_bytes;
    uint64_t first = random_below(&work->random, disk_blocks - blocks + 1);

    if (random_chance(&work->random, 1, 16)) {
        first = random_chance(&work->random, 1, 2) ? 0 : disk_blocks - blocks; /* the edges */
    }
    memset(&slot->io, 0, sizeof(slot->io));
    struct backend_io *io = &slot->io.io;
    io->kind = choose_kind(work);
    io->offset_bytes = first * work->block_bytes;
    io->length_bytes = blocks * work->block_bytes;
    if (io->kind == BACKEND_FLUSH) {
        io->offset_bytes = 0;
        io->length_bytes = 0;
    } else if (overlaps(work, io->offset_bytes, io->length_bytes)) {
        return;
    }
    io->fua = random_chance(&work->random, 1, 8);
    if (io->kind == BACKEND_READ || io->kind == BACKEND_WRITE) {
        choose_iov(work, slot, io->length_bytes);
        buffer_fill(slot->buffer, io->length_bytes, random_u64(&work->random));
    }
    if (io->kind == BACKEND_DISCARD) {
        set_known(work, io, false);
    }
    slot->busy = true;
    work->started++;
    io_submit(work->world->reactor, work->backend, &slot->io);
}

void
random_io_run(struct random_io *work, uint64_t count)
{
    uint64_t until = work->started + count;
    while (work->started < until) {
        start_one(work, free_slot(work));
    }
}

void
random_io_verify(struct random_io *work)
{
    struct random_io_slot *slot = &work->slots[0];
    random_io_drain(work);
    for (uint64_t at = 0; at < work->size_bytes; at += 1 << 20) {
        uint64_t bytes = MIN(work->size_bytes - at, UINT64_C(1) << 20);
        io_start(work->world, work->backend, &slot->io, BACKEND_READ, at, slot->buffer, bytes);
        assert_int_equal(io_wait(work->world, &slot->io), 0);
        check_read(work, slot);
    }
}
