/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of a test, and the reading of whole volumes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/world_impl.h"

enum {
    VERIFY_PIECE_BYTES = 64 << 10,
    VERIFY_RUN_PIECES = 4,
};

/* ---- I/O ---- */

static void
io_send_deliver(struct message *message)
{
    struct world_io *io = container_of(message, struct world_io, message);
    struct oracle *oracle = io->world->oracles[io->volume];

    sim_outside_enter(io->world->sim);
    switch (io->operation) {
    case VOLUME_WRITE:
        io->write = oracle_submit(oracle, io->offset_bytes, io->length_bytes, io->data);
        break;
    case VOLUME_WRITE_ZEROES:
    case VOLUME_DISCARD:
        if (io->change_length_bytes > 0) {
            io->write =
                oracle_submit(oracle, io->change_offset_bytes, io->change_length_bytes, NULL);
        }
        break;
    case VOLUME_FLUSH:
        io->token = oracle_flush_sent(oracle);
        break;
    default:
        io->token = oracle_now(oracle);
    }
    world_note_sent(io->world, io);
    if (io->world->told != NULL) {
        io->world->told(io->world->told_context, io);
    }
    sim_outside_leave(io->world->sim);
    volume_submit(io->world->volumes[io->volume], &io->request);
}

static void
io_replied(struct volume_request *request)
{
    struct world_io *io = container_of(request, struct world_io, request);
    struct oracle *oracle = io->world->oracles[io->volume];

    io->replied = true;
    io->status = request->status;
    if (sim_has_stopped(io->world->sim)) {
        return; /* the process is dead already: nobody has heard this answer */
    }
    sim_outside_enter(io->world->sim);
    world_note_answered(io->world, io);
    if (io->world->told != NULL) {
        io->world->told(io->world->told_context, io);
    }
    io->world->statistics.no_space += io->status == -ENOSPC;
    io->world->statistics.no_space_of[io->volume] += io->status == -ENOSPC;
    io->world->statistics.failed += io->status < 0;
    if (io->write != NULL) {
        oracle_answered(oracle, io->write, io->status == 0, (io->flags & VOLUME_FUA) != 0);
        io->write = NULL;
    } else if (io->operation == VOLUME_FLUSH && io->status == 0) {
        oracle_flush_answered(oracle, io->token);
    } else if (io->operation == VOLUME_READ && io->status == 0 &&
               oracle_check_read(oracle, io->offset_bytes, io->length_bytes, io->data,
                                 io->token) < 0) {
        io->world->failed = true;
    }
    sim_outside_leave(io->world->sim);
}

/* For reads of the whole volume, which the caller checks. */
static void
io_replied_unchecked(struct volume_request *request)
{
    struct world_io *io = container_of(request, struct world_io, request);

    io->replied = true;
    io->status = request->status;
}

static void
io_released(struct volume_request *request)
{
    struct world_io *io = container_of(request, struct world_io, request);

    ASSERT(io->replied);
    list_remove(&io->link);
    io->world->in_flight--;
    io->released = true;
    if (!io->keep) {
        struct sim *sim = io->world->sim;
        sim_outside_enter(sim);
        free(io->data);
        free(io);
        sim_outside_leave(sim);
    }
}

/* A part of a block stays as it is when it is discarded; the other operations change all bytes. */
static void
note_change(struct world_io *io)
{
    uint64_t end_bytes = io->offset_bytes + io->length_bytes;

    io->change_offset_bytes = io->offset_bytes;
    io->change_length_bytes = io->length_bytes;
    if (io->operation == VOLUME_DISCARD) {
        io->change_offset_bytes = align_up(io->offset_bytes, BLOCK_BYTES);
        end_bytes = align_down(end_bytes, BLOCK_BYTES);
        io->change_length_bytes =
            end_bytes > io->change_offset_bytes ? end_bytes - io->change_offset_bytes : 0;
    }
}

/* world_send() in two steps: the caller may change the request in between. */
static struct world_io *
world_make(struct world *world, uint32_t volume, enum volume_operation operation,
           uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags, bool keep)
{
    struct world_io *io = calloc(1, sizeof(*io));

    ASSERT(io != NULL);
    io->world = world;
    io->id = world->next_id++;
    io->volume = volume;
    io->operation = operation;
    io->flags = flags;
    io->offset_bytes = offset_bytes;
    io->length_bytes = length_bytes;
    note_change(io);
    io->keep = keep;
    volume_request_init(&io->request);
    if (operation == VOLUME_READ || operation == VOLUME_WRITE) {
        io->data = aligned_alloc(4096, align_up(length_bytes, 4096));
        ASSERT(io->data != NULL);
        memset(io->data, 0xa5, length_bytes);
        io->iov = (struct iovec){ io->data, length_bytes };
        io->request.iov = &io->iov;
        io->request.iov_count = 1;
    }
    io->request.operation = operation;
    io->request.flags = flags;
    io->request.offset_bytes = offset_bytes;
    io->request.length_bytes = length_bytes;
    io->request.reply = io_replied;
    io->request.release = io_released;
    return io;
}

static void
world_start(struct world_io *io)
{
    struct world *world = io->world;

    list_push_back(&world->ios, &io->link);
    world->in_flight++;
    world->statistics.requests[io->operation]++;
    world->statistics.fua += (io->flags & VOLUME_FUA) != 0;
    world->statistics.no_hole += (io->flags & VOLUME_NO_HOLE) != 0;
    sim_process_enter(world->sim);
    reactor_send(volume_reactor(world->volumes[io->volume]), &io->message, io_send_deliver);
    sim_process_leave(world->sim);
}

struct world_io *
world_send(struct world *world, uint32_t volume, enum volume_operation operation,
           uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags, bool keep)
{
    struct world_io *io =
        world_make(world, volume, operation, offset_bytes, length_bytes, flags, keep);

    world_start(io);
    return io;
}

void
world_io_free(struct world_io *io)
{
    ASSERT(io->keep && io->released);
    free(io->data);
    free(io);
}

static bool
nothing_in_flight(void *context)
{
    return ((struct world *)context)->in_flight == 0;
}

int
world_drain(struct world *world)
{
    return sim_run_until(world->sim, nothing_in_flight, world, WORLD_WAIT_S * NS_PER_S);
}

static bool
io_is_released(void *context)
{
    return ((struct world_io *)context)->released;
}

int
world_do(struct world *world, uint32_t volume, enum volume_operation operation,
         uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags)
{
    struct world_io *io =
        world_send(world, volume, operation, offset_bytes, length_bytes, flags, true);
    int result = sim_run_until(world->sim, io_is_released, io, WORLD_WAIT_S * NS_PER_S);
    if (result < 0) {
        return result; /* it goes with the process */
    }
    result = io->status;
    world_io_free(io);
    return result;
}

void
world_abandon_ios(struct world *world)
{
    list_for_each_safe(&world->ios, link) {
        struct world_io *io = list_entry(link, struct world_io, link);
        list_remove(link);
        world->in_flight--;
        if (io->keep) {
            io->released = true;
        } else {
            free(io->data);
            free(io);
        }
    }
    ASSERT_OP(world->in_flight, ==, 0u);
}

/* ---- verification ---- */

/* Read a part of a volume and ask the oracle. */
static int
verify_range(struct world *world, uint32_t volume, uint64_t offset_bytes, uint64_t length_bytes,
             bool recovered)
{
    struct oracle *oracle = world->oracles[volume];
    struct world_io *io =
        world_make(world, volume, VOLUME_READ, offset_bytes, length_bytes, 0, true);

    /* The oracle's own check is for running volumes; after a restart it may allow more. */
    io->request.reply = io_replied_unchecked;
    world_start(io);
    int status = sim_run_until(world->sim, io_is_released, io, WORLD_WAIT_S * NS_PER_S);
    if (status < 0) {
        return status;
    }
    status = io->status;
    if (status == 0 && recovered) {
        status = oracle_check_recovered(oracle, offset_bytes, length_bytes, io->data);
    } else if (status == 0) {
        status = oracle_check_read(oracle, offset_bytes, length_bytes, io->data,
                                   oracle_now(oracle));
    }
    world_io_free(io);
    return status;
}

/* Block by block where the whole cannot be read. */
static int
verify_readable(struct world *world, uint32_t volume, uint64_t offset_bytes,
                uint64_t length_bytes, bool recovered)
{
    uint64_t end = offset_bytes + length_bytes;
    int result = verify_range(world, volume, offset_bytes, length_bytes, recovered);

    if (result != -EIO || !world->allow_unreadable) {
        return result;
    }
    result = 0;
    for (uint64_t at = offset_bytes; at < end; at = align_down(at, BLOCK_BYTES) + BLOCK_BYTES) {
        uint64_t length = MIN(align_down(at, BLOCK_BYTES) + BLOCK_BYTES, end) - at;
        int status = verify_range(world, volume, at, length, recovered);
        world->unreadable[volume] += status == -EIO;
        result = status < 0 && status != -EIO ? status : result;
    }
    return result;
}

int
world_allocated(struct world *world, uint32_t volume, uint32_t unit_bytes, uint8_t *ret_allocated)
{
    enum { EXTENTS_MAX = 64 };
    struct volume_status_extent extents[EXTENTS_MAX];
    uint64_t at = 0;

    while (at < world->sizes[volume]) {
        struct world_io *io =
            world_make(world, volume, VOLUME_STATUS, at, world->sizes[volume] - at, 0, true);
        io->request.extents = extents;
        io->request.extents_max = EXTENTS_MAX;
        world_start(io);
        int status = sim_run_until(world->sim, io_is_released, io, WORLD_WAIT_S * NS_PER_S);
        if (status < 0) {
            return status;
        }
        status = io->status;
        uint32_t count = io->request.extents_count;
        world_io_free(io);
        if (status < 0) {
            return status;
        }
        ASSERT(count > 0 && count <= EXTENTS_MAX);
        for (uint32_t i = 0; i < count; i++) {
            uint64_t end = at + extents[i].length_bytes;
            ASSERT(extents[i].length_bytes > 0 && end <= world->sizes[volume]);
            if (!extents[i].hole || !extents[i].zero) {
                memset(ret_allocated + at / unit_bytes, 1,
                       div_round_up(end, unit_bytes) - at / unit_bytes);
            }
            at = end;
        }
    }
    return 0;
}

static int
verify_volume(struct world *world, uint32_t volume, bool recovered)
{
    uint64_t size_bytes = world->sizes[volume];
    uint64_t pieces = div_round_up(size_bytes, VERIFY_PIECE_BYTES);
    uint8_t *wanted = calloc(pieces, 1);
    ASSERT(wanted != NULL);
    /* A piece that neither the map nor the oracle knows reads as zeroes by the same map. */
    int result = world_allocated(world, volume, VERIFY_PIECE_BYTES, wanted);

    world->unreadable[volume] = 0;
    if (result == -ETIMEDOUT || result == -ECANCELED || result == -EDEADLK) {
        free(wanted);
        return result;
    }
    /* One that nobody knows, to see that it does read as zeroes. */
    wanted[sim_random_below(world->sim, pieces)] = 1;
    for (uint64_t i = 0; i < pieces; i++) {
        uint64_t at = i * VERIFY_PIECE_BYTES;
        uint64_t length = MIN((uint64_t)VERIFY_PIECE_BYTES, size_bytes - at);
        wanted[i] |= result < 0 || oracle_was_written(world->oracles[volume], at, length);
    }
    if (result == -EIO && world->allow_unreadable) {
        result = 0; /* it answers nothing at all: see block by block */
    }
    for (uint64_t i = 0; i < pieces;) {
        uint64_t run = 0;
        while (i + run < pieces && wanted[i + run] && run < VERIFY_RUN_PIECES) {
            run++;
        }
        if (run > 0) {
            uint64_t at = i * VERIFY_PIECE_BYTES;
            uint64_t length = MIN(run * VERIFY_PIECE_BYTES, size_bytes - at);
            int status = verify_readable(world, volume, at, length, recovered);
            result = status < 0 ? status : result;
        }
        i += MAX(run, (uint64_t)1);
    }
    free(wanted);
    return result;
}

/* After a death the size may be the one that was asked for, or not yet. */
static int
settle_size(struct world *world, uint32_t volume)
{
    struct volume_info info;

    volume_get_info(world->volumes[volume], &info);
    if (info.size_bytes != world->sizes[volume] &&
        (world->sizes_asked[volume] == 0 || info.size_bytes != world->sizes_asked[volume])) {
        fprintf(stderr, "volume %u has %llu bytes instead of %llu (asked for: %llu)\n", volume,
                (unsigned long long)info.size_bytes, (unsigned long long)world->sizes[volume],
                (unsigned long long)world->sizes_asked[volume]);
        return -EBADMSG;
    }
    if (info.size_bytes < world->sizes[volume]) {
        oracle_cut_off(world->oracles[volume], info.size_bytes);
    }
    world->sizes[volume] = info.size_bytes;
    world->sizes_asked[volume] = 0;
    return 0;
}

int
world_verify_recovered(struct world *world)
{
    int result = 0;

    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        int status = settle_size(world, v);
        status = status < 0 ? status : verify_volume(world, v, true);
        result = status < 0 ? status : result;
    }
    return result;
}

int
world_verify(struct world *world)
{
    int result = 0;

    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        int status = verify_volume(world, v, false);
        result = status < 0 ? status : result;
    }
    return result;
}
