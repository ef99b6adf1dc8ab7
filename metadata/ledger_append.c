/* SPDX-License-Identifier: Apache-2.0 */
/* Appending to the ledger: heal, record, members. ledger.c has the theory. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "metadata/ledger_impl.h"

static void heal_next(struct ledger *ledger);
static void record_write(struct ledger *ledger);

static void
append_finish(struct ledger *ledger, int32_t result)
{
    struct ledger_append *append = ledger->append;
    ASSERT(ledger->is_busy && append != NULL);
    ASSERT(!timer_is_armed(&ledger->late_timer));
    if (ledger->record != NULL) {
        ledger_buffer_release(ledger->record);
        ledger->record = NULL;
    }
    if (ledger->current == 0) {
        ledger->is_ready = false;
    }
    ledger->append = NULL;
    ledger->is_busy = false;
    ledger_trim(ledger);
    reactor_complete(&append->op, result);
}

/* ---- writing one record to all current copies ---- */

/* All answers that we wait for have come, or the rest is late. */
static void
record_settle(struct ledger *ledger)
{
    timer_disarm(ledger->reactor, &ledger->late_timer);
    uint32_t lost = ledger->current & ~ledger->succeeded;
    ledger->current = ledger->succeeded;
    ledger->append->ret_dropped_copies |= lost;
    if (ledger->current == 0) {
        append_finish(ledger, -EIO);
        return;
    }
    ledger->record_entry.good_copies = ledger->current;
    ledger_entries_push(&ledger->entries, &ledger->record_entry);
    ledger->next_sequence++;
    ledger->next_offset_bytes = ledger->record_entry.offset_bytes
        + ledger_record_bytes(ledger->record_entry.payload_bytes);
    ledger->last_commit = ledger->record_entry.commit;
    ledger->last_crc = ledger->record_entry.header_crc;
    ledger_buffer_release(ledger->record);
    ledger->record = NULL;
    if (lost != 0) {
        ledger->record_is_members = true; /* L4: say so on the others first */
        record_write(ledger);
        return;
    }
    append_finish(ledger, 0);
}

static void
record_late(struct timer *timer)
{
    struct ledger *ledger = container_of(timer, struct ledger, late_timer);
    ASSERT(ledger->waiting != 0 && ledger->succeeded != 0);
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((ledger->waiting & 1u << n) != 0) {
            ledger_io_detach(ledger->copies[n]);
        }
    }
    ledger->waiting = 0;
    record_settle(ledger);
}

static void
record_done(struct ledger_copy *copy, int32_t result)
{
    struct ledger *ledger = copy->ledger;
    ASSERT((ledger->waiting & ledger_bit(copy)) != 0);
    ledger->waiting &= ~ledger_bit(copy);
    if (result >= 0) {
        ledger->succeeded |= ledger_bit(copy);
    }
    if (ledger->waiting == 0) {
        record_settle(ledger);
    } else if (ledger->succeeded != 0 && ledger->options.late_ns != 0
               && !timer_is_armed(&ledger->late_timer)) {
        timer_arm(ledger->reactor, &ledger->late_timer,
                  reactor_now_ns(ledger->reactor) + ledger->options.late_ns, record_late);
    }
}

static int
record_build(struct ledger *ledger)
{
    bool is_members = ledger->record_is_members;
    const struct byte_buffer *batch = ledger->append->batch;
    uint32_t payload_bytes = is_members ? 0 : (uint32_t)batch->length_bytes;
    uint64_t record_bytes = ledger_record_bytes(payload_bytes);
    uint64_t offset_bytes;
    if (!ledger_place(ledger, record_bytes, is_members, &offset_bytes)) {
        ASSERT(!is_members); /* that is what the reserve is for */
        return -ENOSPC;
    }
    ledger->record = ledger_buffer_create(record_bytes);
    if (ledger->record == NULL) {
        return -ENOMEM;
    }
    uint8_t *data = ledger->record->data;
    if (payload_bytes > 0) {
        memcpy(data + LEDGER_HEADER_BYTES, batch->data, payload_bytes);
    }
    struct ledger_header header = {
        .sequence = ledger->next_sequence,
        .commit = is_members ? ledger->last_commit : ledger->append->commit,
        .incarnation = ledger->options.incarnation,
        .first_sequence =
            ledger->entries.count > 0 ? ledger->entries.first_sequence : ledger->next_sequence,
        .previous_crc = ledger->last_crc,
        .payload_bytes = payload_bytes,
        .payload_crc = crc32c(0, data + LEDGER_HEADER_BYTES, payload_bytes),
        .kind = is_members ? LEDGER_RECORD_MEMBERS : LEDGER_RECORD_COMMIT,
    };
    memcpy(header.pool_guid, ledger->ring.pool_guid, GUID_BYTES);
    memcpy(header.ring_guid, ledger->ring.ring_guid, GUID_BYTES);
    ledger_members_fill(ledger, ledger->current, &header.members);
    ledger_header_encode(&header, data);
    if (ledger->entries.count == 0) {
        ledger->entries.first_sequence = header.sequence;
    }
    ledger->record_entry = (struct ledger_entry){
        .commit = header.commit,
        .offset_bytes = offset_bytes,
        .payload_bytes = payload_bytes,
        .header_crc = header.header_crc,
        .kind = header.kind,
    };
    return 0;
}

static void
record_write(struct ledger *ledger)
{
    int result = record_build(ledger);
    if (result != 0) {
        if (ledger->record_is_members) {
            ledger->current = 0; /* out of memory: nothing may be acknowledged any more */
        }
        append_finish(ledger, result);
        return;
    }
    ledger->waiting = ledger->current;
    ledger->succeeded = 0;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((ledger->current & 1u << n) != 0) {
            ledger_io_start(ledger->copies[n], BACKEND_WRITE,
                            LEDGER_RING_START + ledger->record_entry.offset_bytes, ledger->record,
                            ledger->record->length_bytes, record_done);
        }
    }
}

/* ---- healing: records that only some current copies have ---- */

static void
heal_write_done(struct ledger_copy *copy, int32_t result)
{
    struct ledger *ledger = copy->ledger;
    struct ledger_entry *entry = ledger_entry_at(&ledger->entries, ledger->heal_number);
    ledger->waiting &= ~ledger_bit(copy);
    if (result >= 0) {
        entry->good_copies |= ledger_bit(copy);
    } else {
        /* The record that is about to be appended says so to the others. */
        ledger->current &= ~ledger_bit(copy);
        ledger->append->ret_dropped_copies |= ledger_bit(copy);
    }
    if (ledger->waiting == 0) {
        heal_next(ledger);
    }
}

static bool
record_is_intact(const struct ledger_buffer *buffer, const struct ledger_entry *entry)
{
    struct ledger_header header;
    return ledger_header_decode(buffer->data, &header) == 0
        && header.header_crc == entry->header_crc && header.payload_bytes == entry->payload_bytes
        && header.payload_crc
        == crc32c(0, buffer->data + LEDGER_HEADER_BYTES, header.payload_bytes);
}

static void
heal_read_done(struct ledger_copy *copy, int32_t result)
{
    struct ledger *ledger = copy->ledger;
    struct ledger_entry *entry = ledger_entry_at(&ledger->entries, ledger->heal_number);
    if (result < 0 || !record_is_intact(ledger->record, entry)) {
        entry->good_copies &= ~ledger_bit(copy);
        heal_next(ledger);
        return;
    }
    ledger->waiting = ledger->current & ~entry->good_copies;
    ASSERT(ledger->waiting != 0);
    uint32_t lacking = ledger->waiting;
    for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
        if ((lacking & 1u << n) != 0) {
            ledger_io_start(ledger->copies[n], BACKEND_WRITE,
                            LEDGER_RING_START + entry->offset_bytes, ledger->record,
                            ledger->record->length_bytes, heal_write_done);
        }
    }
}

/* Go on with the first record that some current copy lacks. */
static void
heal_next(struct ledger *ledger)
{
    if (ledger->record != NULL) {
        ledger_buffer_release(ledger->record);
        ledger->record = NULL;
    }
    for (; ledger->heal_number < ledger->entries.count; ledger->heal_number++) {
        struct ledger_entry *entry = ledger_entry_at(&ledger->entries, ledger->heal_number);
        uint32_t lacking = ledger->current & ~entry->good_copies;
        uint32_t sources = 0;
        for (uint32_t n = 0; n < ledger->options.copy_count; n++) {
            if ((entry->good_copies & 1u << n) != 0 && !ledger->copies[n]->in_flight) {
                sources |= 1u << n;
            }
        }
        if (lacking == 0) {
            continue;
        }
        if (sources == 0) { /* rotten since the scan: nobody has it any more */
            ledger->append->ret_dropped_copies |= ledger->current;
            ledger->current = 0;
            append_finish(ledger, -EIO);
            return;
        }
        ledger->record = ledger_buffer_create(ledger_record_bytes(entry->payload_bytes));
        if (ledger->record == NULL) {
            append_finish(ledger, -ENOMEM);
            return;
        }
        ledger_io_start(ledger->copies[__builtin_ctz(sources)], BACKEND_READ,
                        LEDGER_RING_START + entry->offset_bytes, ledger->record,
                        ledger->record->length_bytes, heal_read_done);
        return;
    }
    ledger->heal_wanted = false;
    if (ledger->current == 0) {
        append_finish(ledger, -EIO);
        return;
    }
    record_write(ledger);
}

void
ledger_append(struct ledger_append *append)
{
    struct ledger *ledger = append->ledger;
    ASSERT_ON_REACTOR(ledger->reactor);
    ASSERT(!ledger->is_busy && append->op.done != NULL);
    ASSERT_OP(append->batch->length_bytes, <=, (size_t)INT32_MAX);
    append->op.reactor_id = reactor_id(ledger->reactor);
    append->ret_dropped_copies = 0;
    if (!ledger->is_ready) {
        reactor_complete(&append->op, -EIO); /* no copy is left since an earlier failure */
        return;
    }
    ASSERT_OP(append->commit, ==, ledger->last_commit + 1);
    ledger_trim(ledger);
    ledger->is_busy = true;
    ledger->append = append;
    ledger->record_is_members = false;
    if (ledger->heal_wanted) {
        ledger->heal_number = 0;
        heal_next(ledger);
    } else {
        record_write(ledger);
    }
}
