/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger in memory, and appending to it.
 *
 * THEORY OF OPERATION
 *
 * Each copy's area has a ring header in its first and last block; between them is the ring. A
 * record lies in one piece, on whole blocks; one that does not fit before the end of the ring
 * begins at its start. The newest record is never overwritten (it tells where the run begins and
 * which copies are current), nor is any record that has not been released (L3), and two blocks are
 * always kept for the records that drop copies (L4).
 *
 * Append: (1) heal: after a scan some current copy may lack records that another one has; they are
 * written to it first. (2) write the record to all current copies with FUA. (3) when copies failed
 * or were late, write a MEMBERS record without them to the others; only then is the commit
 * acknowledged. A late copy's transfer stays in flight; its memory is given back when the backend
 * is done with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "metadata/ledger_impl.h"

/* ---- memory ---- */

struct ledger_buffer *
ledger_buffer_create(size_t length_bytes)
{
    struct ledger_buffer *buffer = calloc(1, sizeof(*buffer));
    void *data = NULL;
    ASSERT(length_bytes > 0 && is_aligned(length_bytes, LEDGER_BLOCK_BYTES));
    if (buffer == NULL || posix_memalign(&data, LEDGER_BLOCK_BYTES, length_bytes) != 0) {
        free(buffer);
        return NULL;
    }
    memset(data, 0, length_bytes);
    buffer->references = 1;
    buffer->length_bytes = length_bytes;
    buffer->data = data;
    return buffer;
}

void
ledger_buffer_release(struct ledger_buffer *buffer)
{
    ASSERT_OP(buffer->references, >, 0u);
    if (--buffer->references == 0) {
        free(buffer->data);
        free(buffer);
    }
}

struct ledger_entry *
ledger_entry_at(const struct ledger_entries *entries, uint32_t number)
{
    ASSERT_OP(number, <, entries->count);
    return &entries->ring[(entries->first + number) & (entries->capacity - 1)];
}

void
ledger_entries_push(struct ledger_entries *entries, const struct ledger_entry *entry)
{
    if (entries->count == entries->capacity) {
        uint32_t capacity = entries->capacity == 0 ? 64 : entries->capacity * 2;
        struct ledger_entry *ring = calloc(capacity, sizeof(*ring));
        ASSERT(ring != NULL);
        for (uint32_t n = 0; n < entries->count; n++) {
            ring[n] = *ledger_entry_at(entries, n);
        }
        free(entries->ring);
        entries->ring = ring;
        entries->capacity = capacity;
        entries->first = 0;
    }
    entries->count++;
    *ledger_entry_at(entries, entries->count - 1) = *entry;
}

void
ledger_entries_pop(struct ledger_entries *entries)
{
    ASSERT_OP(entries->count, >, 0u);
    entries->first = (entries->first + 1) & (entries->capacity - 1);
    entries->count--;
    entries->first_sequence++;
}

/* ---- transfers ---- */

static void
io_done(struct io_op *op)
{
    struct ledger_copy *copy =
        container_of(container_of(op, struct backend_io, op), struct ledger_copy, io);
    ASSERT(copy->in_flight);
    copy->in_flight = false;
    if (copy->buffer != NULL) {
        ledger_buffer_release(copy->buffer);
        copy->buffer = NULL;
    }
    if (copy->ledger == NULL) {
        free(copy);
        return;
    }
    if (copy->detached) {
        copy->detached = false;
        return;
    }
    copy->done(copy, op->result);
}

void
ledger_io_start(struct ledger_copy *copy, enum backend_io_kind kind, uint64_t offset_bytes,
                struct ledger_buffer *buffer, size_t length_bytes, ledger_io_fn *done)
{
    ASSERT_ON_REACTOR(copy->ledger->reactor);
    ASSERT(!copy->in_flight);
    ASSERT(buffer == NULL ? kind == BACKEND_ALLOCATE : length_bytes <= buffer->length_bytes);
    ASSERT_OP(offset_bytes + length_bytes, <=, copy->options.length_bytes);
    copy->in_flight = true;
    copy->detached = false;
    copy->done = done;
    copy->buffer = buffer;
    memset(&copy->io, 0, sizeof(copy->io));
    if (buffer != NULL) {
        buffer->references++;
        copy->iov = (struct iovec){ .iov_base = buffer->data, .iov_len = length_bytes };
        copy->io.iov = &copy->iov;
        copy->io.iov_count = 1;
    }
    copy->io.op.done = io_done;
    copy->io.kind = kind;
    copy->io.fua = kind == BACKEND_WRITE;
    copy->io.offset_bytes = copy->options.start_bytes + offset_bytes;
    copy->io.length_bytes = length_bytes;
    backend_submit(copy->options.backend, &copy->io);
}

void
ledger_io_detach(struct ledger_copy *copy)
{
    ASSERT(copy->in_flight && !copy->detached);
    copy->detached = true;
}

/* ---- members ---- */

uint32_t
ledger_members_mask(const struct ledger *ledger, const struct ledger_members *members)
{
    uint32_t mask = 0;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        for (uint32_t member = 0; member < members->count; member++) {
            if (ledger->copies[n]->options.disk_index == members->disks[member]) {
                mask |= 1u << n;
            }
        }
    }
    return mask;
}

void
ledger_members_fill(const struct ledger *ledger, uint32_t mask, struct ledger_members *ret_members)
{
    *ret_members = (struct ledger_members){ 0 };
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((mask & 1u << n) != 0) {
            ret_members->disks[ret_members->count++] = ledger->copies[n]->options.disk_index;
        }
    }
}

uint64_t
ledger_second_ring_header(const struct ledger_copy *copy)
{
    return align_down(copy->options.length_bytes, LEDGER_BLOCK_BYTES) - LEDGER_BLOCK_BYTES;
}

/* ---- life ---- */

int
ledger_create(const struct ledger_options *options, struct ledger **ret_ledger)
{
    ASSERT(reactor_self() != NULL);
    ASSERT(options->copy_count >= 1 && options->copy_count <= LEDGER_COPIES_MAX);
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    if (ledger == NULL) {
        return -ENOMEM;
    }
    ledger->reactor = reactor_self();
    ledger->options = *options;
    ledger->area_bytes = UINT64_MAX;
    for (uint32_t n = 0; n < options->copy_count; n++) {
        struct ledger_copy *copy = calloc(1, sizeof(*copy));
        if (copy == NULL) {
            ledger_destroy(ledger);
            return -ENOMEM;
        }
        ledger->copies[n] = copy;
        copy->ledger = ledger;
        copy->options = options->copies[n];
        copy->number = n;
        ASSERT(is_aligned(copy->options.start_bytes, LEDGER_BLOCK_BYTES));
        ledger->area_bytes = MIN(ledger->area_bytes,
                                 align_down(copy->options.length_bytes, LEDGER_BLOCK_BYTES));
    }
    /* Two headers, a record, and the reserve. */
    ASSERT_OP(ledger->area_bytes, >=, (uint64_t)(3 + LEDGER_RESERVE_BLOCKS) * LEDGER_BLOCK_BYTES);
    *ret_ledger = ledger;
    return 0;
}

void
ledger_destroy(struct ledger *ledger)
{
    ASSERT_ON_REACTOR(ledger->reactor);
    ASSERT(!ledger->is_busy);
    for (uint32_t n = 0; n < LEDGER_COPIES_MAX; n++) {
        struct ledger_copy *copy = ledger->copies[n];
        if (copy != NULL && copy->in_flight) {
            ASSERT(copy->detached);
            copy->ledger = NULL; /* frees itself when the backend is done */
        } else {
            free(copy);
        }
    }
    free(ledger->entries.ring);
    free(ledger);
}

void
ledger_reset(struct ledger *ledger)
{
    free(ledger->entries.ring);
    ledger->entries = (struct ledger_entries){ 0 };
    ledger->is_ready = false;
    ledger->current = 0;
    ledger->heal_wanted = false;
    ledger->next_offset_bytes = 0;
    ledger->next_sequence = 1;
}

/* ---- space ---- */

/* Where a record of `record_bytes` may begin when the next byte is `next`; false: nowhere. */
static bool
place_one(uint64_t ring_bytes, bool is_empty, uint64_t tail, uint64_t next, uint64_t record_bytes,
          uint64_t *ret_offset)
{
    if (is_empty || next > tail) {
        if (next + record_bytes <= ring_bytes) {
            *ret_offset = next;
            return true;
        }
        /* From the start; never up to the tail: next == tail would look empty. */
        if (is_empty ? record_bytes <= ring_bytes : record_bytes < tail) {
            *ret_offset = 0;
            return true;
        }
        return false;
    }
    if (next + record_bytes < tail) {
        *ret_offset = next;
        return true;
    }
    return false;
}

bool
ledger_place(const struct ledger *ledger, uint64_t record_bytes, bool use_reserve,
             uint64_t *ret_offset_bytes)
{
    const struct ledger_entries *entries = &ledger->entries;
    bool is_empty = entries->count == 0;
    uint64_t tail = is_empty ? 0 : ledger_entry_at(entries, 0)->offset_bytes;
    uint64_t offset;
    if (!place_one(ledger->ring.ring_bytes, is_empty, tail, ledger->next_offset_bytes, record_bytes,
                   &offset)) {
        return false;
    }
    uint64_t next = offset + record_bytes;
    uint64_t first = is_empty ? offset : tail;
    for (uint32_t n = 0; n < LEDGER_RESERVE_BLOCKS && !use_reserve; n++) {
        uint64_t reserved;
        if (!place_one(ledger->ring.ring_bytes, false, first, next, LEDGER_BLOCK_BYTES,
                       &reserved)) {
            return false;
        }
        next = reserved + LEDGER_BLOCK_BYTES;
    }
    *ret_offset_bytes = offset;
    return true;
}

uint64_t
ledger_used_bytes(const struct ledger *ledger)
{
    const struct ledger_entries *entries = &ledger->entries;
    if (entries->count == 0) {
        return 0;
    }
    uint64_t tail = ledger_entry_at(entries, 0)->offset_bytes;
    uint64_t next = ledger->next_offset_bytes;
    return next > tail ? next - tail : ledger->ring.ring_bytes - tail + next;
}

uint64_t
ledger_size_bytes(const struct ledger *ledger)
{
    return ledger->is_ready ? ledger->ring.ring_bytes
                            : ledger->area_bytes - 2 * LEDGER_BLOCK_BYTES;
}

void
ledger_release(struct ledger *ledger, uint64_t commit)
{
    ASSERT_ON_REACTOR(ledger->reactor);
    ledger->released = MAX(ledger->released, commit);
    if (!ledger->is_busy) {
        ledger_trim(ledger);
    }
}

void
ledger_trim(struct ledger *ledger)
{
    /* The newest record always stays: see the theory of operation. */
    while (ledger->entries.count > 1
           && ledger_entry_at(&ledger->entries, 0)->commit <= ledger->released) {
        ledger_entries_pop(&ledger->entries);
    }
}
