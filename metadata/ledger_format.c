/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting an empty ring. The old headers are read first, because the new ones must have a higher
 * number; then room is made for the whole area, so that no record ever meets a full device (P7);
 * then both headers of every copy are written. When a copy fails, it starts again without it and
 * with the next number, so that the headers that count name exactly those that have them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "io/platform.h"
#include "metadata/ledger_impl.h"

enum format_step {
    FORMAT_READ_FIRST,
    FORMAT_READ_SECOND,
    FORMAT_ALLOCATE,
    FORMAT_WRITE_FIRST,
    FORMAT_WRITE_SECOND,
};

struct format_state {
    struct ledger_format *format;
    enum format_step step;
    uint32_t copies;  /* still taking part */
    uint32_t failed;  /* in this step */
    int32_t failure;  /* the last one */
    uint32_t waiting;
    uint64_t highest_number;
    struct ledger_buffer *buffers[LEDGER_COPIES_MAX];
};

static struct format_state *
state_of(const struct ledger *ledger)
{
    ASSERT(ledger->is_busy && ledger->driver != NULL);
    return ledger->driver;
}

static void format_step_start(struct ledger *ledger);

static void
format_finish(struct ledger *ledger, int32_t result)
{
    struct format_state *state = state_of(ledger);
    struct ledger_format *format = state->format;
    for (uint32_t n = 0; n < LEDGER_COPIES_MAX; n++) {
        if (state->buffers[n] != NULL) {
            ledger_buffer_release(state->buffers[n]);
        }
    }
    format->ret_current_copies = result == 0 ? state->copies : 0;
    ledger->driver = NULL;
    ledger->is_busy = false;
    free(state);
    reactor_complete(&format->op, result);
}

static void
format_complete(struct ledger *ledger)
{
    ledger->is_ready = true;
    ledger->current = state_of(ledger)->copies;
    ledger->next_sequence = 1;
    ledger->next_offset_bytes = 0;
    ledger->last_commit = ledger->ring.base_commit;
    ledger->released = ledger->ring.base_commit;
    ledger->last_crc = ledger->ring.crc;
    format_finish(ledger, 0);
}

static void
format_prepare_headers(struct ledger *ledger)
{
    struct format_state *state = state_of(ledger);
    struct platform *platform = reactor_platform(ledger->reactor);
    struct ledger_ring *ring = &ledger->ring;
    *ring = (struct ledger_ring){
        .format_number = ++state->highest_number,
        .incarnation = ledger->options.incarnation,
        .base_commit = state->format->commit,
        .ring_bytes = ledger->area_bytes - 2 * LEDGER_BLOCK_BYTES,
    };
    memcpy(ring->pool_guid, ledger->options.pool_guid, GUID_BYTES);
    put_le64(ring->ring_guid, platform->ops->random_u64(platform));
    put_le64(ring->ring_guid + 8, platform->ops->random_u64(platform));
    ledger_members_fill(ledger, state->copies, &ring->members);
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((state->copies & 1u << n) != 0) {
            ledger_ring_encode(ring, state->buffers[n]->data);
        }
    }
}

static void
format_step_end(struct ledger *ledger)
{
    struct format_state *state = state_of(ledger);
    if (state->step == FORMAT_READ_FIRST || state->step == FORMAT_READ_SECOND) {
        /* What cannot be read may be writable, and has nothing that we must stay above. */
        state->failed = 0;
    }
    if (state->failed != 0) {
        state->copies &= ~state->failed;
        if (state->copies == 0) {
            format_finish(ledger, state->failure == -ENOSPC ? -ENOSPC : -EIO);
            return;
        }
        format_prepare_headers(ledger);
        state->step = FORMAT_WRITE_FIRST;
    } else if (state->step == FORMAT_WRITE_SECOND) {
        format_complete(ledger);
        return;
    } else {
        state->step++;
        if (state->step == FORMAT_WRITE_FIRST) {
            format_prepare_headers(ledger);
        }
    }
    format_step_start(ledger);
}

static void
format_io_done(struct ledger_copy *copy, int32_t result)
{
    struct ledger *ledger = copy->ledger;
    struct format_state *state = state_of(ledger);
    state->waiting &= ~ledger_bit(copy);
    if (result == -EOPNOTSUPP && state->step == FORMAT_ALLOCATE) {
        result = 0; /* thin, and nothing can be done about it */
    }
    if (result < 0) {
        state->failed |= ledger_bit(copy);
        state->failure = result;
    } else if (state->step == FORMAT_READ_FIRST || state->step == FORMAT_READ_SECOND) {
        struct ledger_ring ring;
        if (ledger_ring_decode(state->buffers[copy->number]->data, &ring) == 0) {
            state->highest_number = MAX(state->highest_number, ring.format_number);
        }
    }
    if (state->waiting == 0) {
        format_step_end(ledger);
    }
}

static void
format_step_start(struct ledger *ledger)
{
    struct format_state *state = state_of(ledger);
    bool is_second = state->step == FORMAT_READ_SECOND || state->step == FORMAT_WRITE_SECOND;
    bool is_write = state->step == FORMAT_WRITE_FIRST || state->step == FORMAT_WRITE_SECOND;
    enum backend_io_kind kind = is_write ? BACKEND_WRITE : BACKEND_READ;
    state->failed = 0;
    state->waiting = state->copies;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((state->copies & 1u << n) != 0) {
            struct ledger_copy *copy = ledger->copies[n];
            if (state->step == FORMAT_ALLOCATE) {
                ledger_io_start(copy, BACKEND_ALLOCATE, 0, NULL, copy->options.length_bytes,
                                format_io_done);
                continue;
            }
            ledger_io_start(copy, kind, is_second ? ledger_second_ring_header(copy) : 0,
                            state->buffers[n], LEDGER_BLOCK_BYTES, format_io_done);
        }
    }
}

void
ledger_format(struct ledger_format *format)
{
    struct ledger *ledger = format->ledger;
    ASSERT_ON_REACTOR(ledger->reactor);
    ASSERT(!ledger->is_busy && format->op.done != NULL);
    format->op.reactor_id = reactor_id(ledger->reactor);
    format->ret_current_copies = 0;
    struct format_state *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        reactor_complete(&format->op, -ENOMEM);
        return;
    }
    ledger_reset(ledger);
    ledger->is_busy = true;
    ledger->driver = state;
    state->format = format;
    state->step = FORMAT_READ_FIRST;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if (ledger->copies[n]->in_flight) {
            continue; /* late since before: its disk is not to be waited for */
        }
        state->buffers[n] = ledger_buffer_create(LEDGER_BLOCK_BYTES);
        if (state->buffers[n] == NULL) {
            format_finish(ledger, -ENOMEM);
            return;
        }
        state->copies |= 1u << n;
    }
    if (state->copies == 0) {
        format_finish(ledger, -EIO);
        return;
    }
    format_step_start(ledger);
}
