/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the ledger.
 *
 * (1) The ring headers of all copies; the one with the highest format number rules. (2) Each copy's
 * ring is read from end to end, and every whole record of that ring is noted: copies are
 * independent, and nothing is believed because of where it lies. (3) The newest record begins the
 * run, which is followed backwards by the CRCs that each record has of the one before (L2): a
 * record of another history never fits. (4) The records behind `after_commit` are read again and
 * handed over.
 *
 * Where a chunk cannot be read, it is read block by block; a copy that fails again and again is
 * left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "metadata/ledger_impl.h"

enum {
    SCAN_CHUNK_BYTES = 1 << 20,
    SCAN_FAILURES_MAX = 16, /* in a row, block by block */
};

/* A record that was found whole. */
struct found {
    struct ledger_header header;
    uint64_t offset_bytes;
    uint32_t copies;
};

/* How far the reading of one copy has come. */
struct scan_reader {
    struct ledger_buffer *buffer;
    uint64_t chunk_start;
    uint64_t chunk_bytes;
    uint64_t position;      /* next byte of the ring to look at */
    uint64_t small_until;   /* read block by block up to here */
    uint32_t failures;      /* in a row */
    bool in_record;
    uint64_t record_start;
    uint64_t payload_left;
    uint32_t crc;
    struct ledger_header header;
};

struct scan_state {
    struct ledger_scan *scan;
    bool second_header;
    bool any_ring;      /* no header was found: look for any record of the pool */
    bool any_found;
    uint32_t readable;  /* copies */
    uint32_t waiting;
    uint32_t headed;    /* copies that have the ruling header */
    struct ledger_ring ring;
    struct scan_reader readers[LEDGER_COPIES_MAX];
    struct found *found;
    size_t found_count;
    size_t found_capacity;

    /* Handing over. */
    uint32_t number;
    uint32_t tried;
    struct ledger_buffer *record;
};

static struct scan_state *
state_of(const struct ledger *ledger)
{
    ASSERT(ledger->is_busy && ledger->driver != NULL);
    return ledger->driver;
}

static void
scan_finish(struct ledger *ledger, int32_t result)
{
    struct scan_state *state = state_of(ledger);
    struct ledger_scan *scan = state->scan;
    for (uint32_t n = 0; n < LEDGER_COPIES_MAX; n++) {
        if (state->readers[n].buffer != NULL) {
            ledger_buffer_release(state->readers[n].buffer);
        }
    }
    if (state->record != NULL) {
        ledger_buffer_release(state->record);
    }
    free(state->found);
    free(state);
    ledger->driver = NULL;
    ledger->is_busy = false;
    if (result != 0 && result != -ENOENT) {
        ledger_reset(ledger);
        scan->ret_current_copies = 0;
    }
    reactor_complete(&scan->op, result);
}

/* ---- (4) hand over ---- */

static void hand_over_next(struct ledger *ledger);

static void
hand_over_done(struct ledger_copy *copy, int32_t result)
{
    struct ledger *ledger = copy->ledger;
    struct scan_state *state = state_of(ledger);
    const struct ledger_entry *entry = ledger_entry_at(&ledger->entries, state->number);
    const uint8_t *data = state->record->data;
    struct ledger_header header;
    bool is_good = result >= 0 && ledger_header_decode(data, &header) == 0
        && header.header_crc == entry->header_crc && header.payload_bytes == entry->payload_bytes
        && header.payload_crc == crc32c(0, data + LEDGER_HEADER_BYTES, entry->payload_bytes);
    if (is_good) {
        int answer = state->scan->record(state->scan, entry->commit, data + LEDGER_HEADER_BYTES,
                                         entry->payload_bytes);
        if (answer < 0) {
            scan_finish(ledger, answer);
            return;
        }
        state->number++;
        state->tried = 0;
    }
    ledger_buffer_release(state->record);
    state->record = NULL;
    hand_over_next(ledger);
}

static void
hand_over_next(struct ledger *ledger)
{
    struct scan_state *state = state_of(ledger);
    for (; state->number < ledger->entries.count; state->number++, state->tried = 0) {
        const struct ledger_entry *entry = ledger_entry_at(&ledger->entries, state->number);
        if (entry->kind != LEDGER_RECORD_COMMIT || entry->commit <= state->scan->after_commit) {
            continue;
        }
        uint32_t sources = entry->good_copies & ~state->tried;
        if (sources == 0) {
            scan_finish(ledger, -EIO);
            return;
        }
        struct ledger_copy *copy = ledger->copies[__builtin_ctz(sources)];
        state->tried |= ledger_bit(copy);
        state->record = ledger_buffer_create(ledger_record_bytes(entry->payload_bytes));
        if (state->record == NULL) {
            scan_finish(ledger, -ENOMEM);
            return;
        }
        ledger_io_start(copy, BACKEND_READ, LEDGER_RING_START + entry->offset_bytes, state->record,
                        state->record->length_bytes, hand_over_done);
        return;
    }
    scan_finish(ledger, 0);
}

/* ---- (3) the run ---- */

static int
found_compare(const void *left, const void *right)
{
    const struct found *a = left;
    const struct found *b = right;
    if (a->header.sequence != b->header.sequence) {
        return a->header.sequence < b->header.sequence ? -1 : 1;
    }
    if (a->header.header_crc != b->header.header_crc) {
        return a->header.header_crc < b->header.header_crc ? -1 : 1;
    }
    return a->offset_bytes < b->offset_bytes ? -1 : a->offset_bytes > b->offset_bytes;
}

/* Sort by sequence; one element for what several copies have. */
static void
found_unite(struct scan_state *state)
{
    if (state->found_count == 0) {
        return;
    }
    qsort(state->found, state->found_count, sizeof(state->found[0]), found_compare);
    size_t last = 0;
    for (size_t n = 1; n < state->found_count; n++) {
        if (found_compare(&state->found[last], &state->found[n]) == 0) {
            state->found[last].copies |= state->found[n].copies;
        } else {
            state->found[++last] = state->found[n];
        }
    }
    state->found_count = last + 1;
}

/* Which of two records is newer: > 0, the second. 0: the same, perhaps in another place. */
static int
found_age(const struct found *left, const struct found *right)
{
    const struct ledger_header *a = &left->header;
    const struct ledger_header *b = &right->header;
    /* A later incarnation knew what it continued from; an earlier one's copy was absent. */
    if (a->incarnation != b->incarnation) {
        return b->incarnation > a->incarnation ? 1 : -1;
    }
    return b->sequence == a->sequence ? 0 : b->sequence > a->sequence ? 1 : -1;
}

/*
 * `before` is what `after` points back to, and lies where the record before it lies. (A write that
 * a disk put in a wrong place leaves a whole record there, too. To go on from such a place would
 * overwrite others.)
 */
static bool
found_follows(const struct scan_state *state, const struct found *before,
              const struct found *after)
{
    const struct ledger_header *a = &before->header;
    const struct ledger_header *b = &after->header;
    uint64_t end = before->offset_bytes + ledger_record_bytes(a->payload_bytes);
    bool fits = end + ledger_record_bytes(b->payload_bytes) <= state->ring.ring_bytes;
    uint64_t commit = a->commit + (b->kind == LEDGER_RECORD_COMMIT ? 1 : 0);
    return a->sequence + 1 == b->sequence && a->header_crc == b->previous_crc
        && b->commit == commit && b->incarnation >= a->incarnation
        && after->offset_bytes == (fits ? end : 0);
}

/* A run that ends with an element: where it goes on backwards, and how far it reaches. */
struct run {
    size_t before; /* SIZE_MAX: nowhere */
    uint64_t first_sequence;
};

/* The longest run that ends with each element; `runs` has room for all. */
static void
runs_build(const struct scan_state *state, struct run *runs)
{
    for (size_t at = 0; at < state->found_count; at++) {
        const struct found *after = &state->found[at];
        runs[at] = (struct run){ SIZE_MAX, after->header.sequence };
        for (size_t n = at;
             n > 0 && state->found[n - 1].header.sequence + 1 >= after->header.sequence; n--) {
            if (found_follows(state, &state->found[n - 1], after)
                && runs[n - 1].first_sequence < runs[at].first_sequence) {
                runs[at] = (struct run){ n - 1, runs[n - 1].first_sequence };
            }
        }
    }
}

/* The newest record; where there are several places of it, the one with the longest run. */
static size_t
found_newest(const struct scan_state *state, const struct run *runs)
{
    size_t newest = 0;
    for (size_t n = 1; n < state->found_count; n++) {
        int age = found_age(&state->found[newest], &state->found[n]);
        if (age > 0 || (age == 0 && runs[n].first_sequence < runs[newest].first_sequence)) {
            newest = n;
        }
    }
    return newest;
}

/* Take the run that ends with `newest`, from its oldest record on. */
static void
run_take(struct ledger *ledger, size_t newest, const struct run *runs)
{
    const struct scan_state *state = state_of(ledger);
    /* What lies before the newest record's first_sequence was released, and may be anything. */
    uint64_t first_sequence =
        MAX(state->found[newest].header.first_sequence, runs[newest].first_sequence);
    size_t count = state->found[newest].header.sequence + 1 - first_sequence;
    size_t *numbers = calloc(count, sizeof(*numbers));
    ASSERT(numbers != NULL);
    size_t at = newest;
    for (size_t n = count; n > 0; n--, at = runs[at].before) {
        numbers[n - 1] = at;
    }
    ledger->entries.first_sequence = first_sequence;
    for (size_t n = 0; n < count; n++) {
        const struct found *found = &state->found[numbers[n]];
        struct ledger_entry entry = {
            .commit = found->header.commit,
            .offset_bytes = found->offset_bytes,
            .payload_bytes = found->header.payload_bytes,
            .header_crc = found->header.header_crc,
            .good_copies = found->copies,
            .kind = found->header.kind,
        };
        ledger_entries_push(&ledger->entries, &entry);
        ledger->next_sequence = found->header.sequence + 1;
        ledger->next_offset_bytes =
            found->offset_bytes + ledger_record_bytes(found->header.payload_bytes);
        ledger->last_commit = found->header.commit;
        ledger->last_crc = found->header.header_crc;
    }
    free(numbers);
}

/* The ring is known, and what its newest record (or, without one, its header) calls current. */
static void
run_members(struct ledger *ledger, const struct ledger_members *members)
{
    struct scan_state *state = state_of(ledger);
    uint32_t present = ledger_members_mask(ledger, members) & state->readable & state->headed;
    ledger->current = present;
    ledger->is_ready = present != 0;
    ledger->heal_wanted = false;
    for (uint32_t n = 0; n < ledger->entries.count; n++) {
        if ((present & ~ledger_entry_at(&ledger->entries, n)->good_copies) != 0) {
            ledger->heal_wanted = true;
        }
    }
    state->scan->ret_current_copies = present;
    state->scan->ret_absent_copies = members->count - (uint32_t)__builtin_popcount(present);
    state->scan->ret_last_commit = ledger->last_commit;
}

static uint64_t
run_first_commit(const struct ledger *ledger)
{
    for (uint32_t n = 0; n < ledger->entries.count; n++) {
        const struct ledger_entry *entry = ledger_entry_at(&ledger->entries, n);
        if (entry->kind == LEDGER_RECORD_COMMIT) {
            return entry->commit;
        }
    }
    return ledger->last_commit + 1;
}

static void
scan_evaluate(struct ledger *ledger)
{
    struct scan_state *state = state_of(ledger);
    if (state->readable == 0) {
        scan_finish(ledger, -EIO);
        return;
    }
    if (state->any_ring) {
        /* Records, but nothing that says which ring they are of: damage, not a new disk. */
        scan_finish(ledger, state->any_found ? -EUCLEAN : -ENOENT);
        return;
    }
    ledger->ring = state->ring;
    ledger->last_commit = state->ring.base_commit;
    ledger->last_crc = state->ring.crc;
    found_unite(state);
    if (state->found_count == 0) {
        run_members(ledger, &state->ring.members);
        state->scan->ret_first_commit = ledger->last_commit + 1;
        state->scan->ret_last_incarnation = state->ring.incarnation;
        scan_finish(ledger, -ENOENT);
        return;
    }
    struct run *runs = calloc(state->found_count, sizeof(*runs));
    if (runs == NULL) {
        scan_finish(ledger, -ENOMEM);
        return;
    }
    runs_build(state, runs);
    size_t newest = found_newest(state, runs);
    run_take(ledger, newest, runs);
    free(runs);
    run_members(ledger, &state->found[newest].header.members);
    state->scan->ret_first_commit = run_first_commit(ledger);
    state->scan->ret_last_incarnation = state->found[newest].header.incarnation;
    bool is_whole =
        ledger->entries.first_sequence == state->found[newest].header.first_sequence;
    if (!is_whole && state->scan->ret_first_commit > state->scan->after_commit + 1) {
        scan_finish(ledger, -EUCLEAN);
        return;
    }
    hand_over_next(ledger);
}

/* ---- (2) reading the rings ---- */

static void reader_next_chunk(struct ledger_copy *copy);

static void
reader_end(struct ledger_copy *copy, bool is_readable)
{
    struct ledger *ledger = copy->ledger;
    struct scan_state *state = state_of(ledger);
    if (!is_readable) {
        state->readable &= ~ledger_bit(copy);
    }
    state->waiting &= ~ledger_bit(copy);
    if (state->waiting == 0) {
        scan_evaluate(ledger);
    }
}

static void
found_add(struct scan_state *state, const struct scan_reader *reader, uint32_t copies)
{
    if (state->any_ring) {
        state->any_found = true;
        return;
    }
    if (state->found_count == state->found_capacity) {
        state->found_capacity = MAX(state->found_capacity * 2, (size_t)256);
        state->found = realloc(state->found, state->found_capacity * sizeof(state->found[0]));
        ASSERT(state->found != NULL);
    }
    state->found[state->found_count++] = (struct found){
        .header = reader->header,
        .offset_bytes = reader->record_start,
        .copies = copies,
    };
}

/* A header at the reader's position that may begin a record of the ring. */
static bool
reader_header(const struct ledger *ledger, struct scan_reader *reader)
{
    const struct scan_state *state = state_of(ledger);
    const uint8_t *at = reader->buffer->data + (reader->position - reader->chunk_start);
    struct ledger_header *header = &reader->header;
    if (ledger_header_decode(at, header) != 0
        || memcmp(header->pool_guid, ledger->options.pool_guid, GUID_BYTES) != 0) {
        return false;
    }
    if (!state->any_ring
        && memcmp(header->ring_guid, state->ring.ring_guid, GUID_BYTES) != 0) {
        return false;
    }
    return reader->position + ledger_record_bytes(header->payload_bytes) <= state->ring.ring_bytes;
}

/* The record's bytes are complete, or it is known to be damaged. */
static void
reader_record_end(struct scan_state *state, struct scan_reader *reader, uint32_t copies,
                  bool is_good)
{
    reader->in_record = false;
    reader->position = reader->record_start + LEDGER_BLOCK_BYTES;
    if (is_good) {
        found_add(state, reader, copies);
        reader->position =
            reader->record_start + ledger_record_bytes(reader->header.payload_bytes);
    }
}

static void
reader_parse(struct ledger_copy *copy)
{
    struct scan_state *state = state_of(copy->ledger);
    struct scan_reader *reader = &state->readers[copy->number];
    uint64_t chunk_end = reader->chunk_start + reader->chunk_bytes;
    /* After a damaged record the position may lie before the chunk: then it is read again. */
    while (reader->position >= reader->chunk_start && reader->position < chunk_end) {
        if (!reader->in_record) {
            if (!reader_header(copy->ledger, reader)) {
                reader->position += LEDGER_BLOCK_BYTES;
                continue;
            }
            reader->in_record = true;
            reader->record_start = reader->position;
            reader->payload_left = reader->header.payload_bytes;
            reader->crc = 0;
            reader->position += LEDGER_HEADER_BYTES;
        }
        uint64_t take = MIN(reader->payload_left, chunk_end - reader->position);
        reader->crc = crc32c(reader->crc,
                             reader->buffer->data + (reader->position - reader->chunk_start), take);
        reader->position += take;
        reader->payload_left -= take;
        if (reader->payload_left == 0) {
            reader_record_end(state, reader, ledger_bit(copy),
                              reader->crc == reader->header.payload_crc);
        }
    }
}

static void
reader_failed(struct ledger_copy *copy)
{
    struct scan_state *state = state_of(copy->ledger);
    struct scan_reader *reader = &state->readers[copy->number];
    if (reader->chunk_bytes > LEDGER_BLOCK_BYTES) {
        reader->small_until = reader->chunk_start + reader->chunk_bytes;
        return;
    }
    reader->failures++;
    if (reader->in_record) {
        reader_record_end(state, reader, 0, false);
    }
    reader->position = MAX(reader->position, reader->chunk_start + LEDGER_BLOCK_BYTES);
}

static void
reader_chunk_done(struct ledger_copy *copy, int32_t result)
{
    struct scan_reader *reader = &state_of(copy->ledger)->readers[copy->number];
    if (result < 0) {
        reader_failed(copy);
    } else {
        reader->failures = 0;
        reader_parse(copy);
    }
    reader_next_chunk(copy);
}

static void
reader_next_chunk(struct ledger_copy *copy)
{
    struct scan_state *state = state_of(copy->ledger);
    struct scan_reader *reader = &state->readers[copy->number];
    if (reader->failures > SCAN_FAILURES_MAX) {
        reader_end(copy, false);
        return;
    }
    if (reader->position >= state->ring.ring_bytes) {
        reader_end(copy, true);
        return;
    }
    ASSERT(is_aligned(reader->position, LEDGER_BLOCK_BYTES));
    reader->chunk_start = reader->position;
    reader->chunk_bytes = reader->position < reader->small_until ? LEDGER_BLOCK_BYTES
                                                                 : reader->buffer->length_bytes;
    reader->chunk_bytes = MIN(reader->chunk_bytes, state->ring.ring_bytes - reader->position);
    ledger_io_start(copy, BACKEND_READ, LEDGER_RING_START + reader->chunk_start, reader->buffer,
                    reader->chunk_bytes, reader_chunk_done);
}

static void
rings_start(struct ledger *ledger)
{
    struct scan_state *state = state_of(ledger);
    if (state->ring.format_number == 0) {
        state->any_ring = true;
        state->ring.ring_bytes = ledger->area_bytes - 2 * LEDGER_BLOCK_BYTES;
    }
    if (state->readable == 0) {
        scan_evaluate(ledger);
        return;
    }
    state->waiting = state->readable;
    /* The last copy that ends at once takes `state` away. */
    uint32_t starting = state->readable;
    uint64_t needed_bytes = state->ring.ring_bytes + 2 * LEDGER_BLOCK_BYTES;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        struct ledger_copy *copy = ledger->copies[n];
        if ((starting & 1u << n) == 0) {
            continue;
        }
        if (copy->options.length_bytes < needed_bytes) {
            reader_end(copy, false); /* its area has become smaller than its ring */
        } else {
            reader_next_chunk(copy);
        }
    }
}

/* ---- (1) the ring headers ---- */

static void headers_start(struct ledger *ledger);

static void
header_done(struct ledger_copy *copy, int32_t result)
{
    struct ledger *ledger = copy->ledger;
    struct scan_state *state = state_of(ledger);
    struct ledger_ring ring;
    state->waiting &= ~ledger_bit(copy);
    if (result >= 0) {
        state->readable |= ledger_bit(copy);
        if (ledger_ring_decode(state->readers[copy->number].buffer->data, &ring) == 0
            && memcmp(ring.pool_guid, ledger->options.pool_guid, GUID_BYTES) == 0) {
            bool is_newer = ring.format_number > state->ring.format_number
                || (ring.format_number == state->ring.format_number
                    && ring.incarnation > state->ring.incarnation);
            if (is_newer) {
                state->ring = ring;
                state->headed = 0;
            }
            if (memcmp(ring.ring_guid, state->ring.ring_guid, GUID_BYTES) == 0) {
                state->headed |= ledger_bit(copy);
            }
        }
    }
    if (state->waiting != 0) {
        return;
    }
    if (!state->second_header) {
        state->second_header = true;
        headers_start(ledger);
    } else {
        rings_start(ledger);
    }
}

static void
headers_start(struct ledger *ledger)
{
    struct scan_state *state = state_of(ledger);
    uint32_t starting = 0;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if (state->readers[n].buffer != NULL) {
            starting |= 1u << n;
        }
    }
    state->waiting = starting;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((starting & 1u << n) != 0) {
            struct ledger_copy *copy = ledger->copies[n];
            ledger_io_start(copy, BACKEND_READ,
                            state->second_header ? ledger_second_ring_header(copy) : 0,
                            state->readers[n].buffer, LEDGER_BLOCK_BYTES, header_done);
        }
    }
}

void
ledger_scan(struct ledger_scan *scan)
{
    struct ledger *ledger = scan->ledger;
    ASSERT_ON_REACTOR(ledger->reactor);
    ASSERT(!ledger->is_busy && scan->op.done != NULL && scan->record != NULL);
    scan->op.reactor_id = reactor_id(ledger->reactor);
    scan->ret_first_commit = 0;
    scan->ret_last_commit = 0;
    scan->ret_current_copies = 0;
    scan->ret_absent_copies = 0;
    scan->ret_last_incarnation = 0;
    struct scan_state *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        reactor_complete(&scan->op, -ENOMEM);
        return;
    }
    ledger_reset(ledger);
    ledger->is_busy = true;
    ledger->driver = state;
    state->scan = scan;
    uint32_t usable = 0;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if (!ledger->copies[n]->in_flight) {
            state->readers[n].buffer =
                ledger_buffer_create(MIN(ledger->area_bytes, (uint64_t)SCAN_CHUNK_BYTES));
            usable += state->readers[n].buffer != NULL;
        }
    }
    if (usable == 0) {
        scan_finish(ledger, -EIO);
        return;
    }
    headers_start(ledger);
}
