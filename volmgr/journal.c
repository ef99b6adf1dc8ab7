/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/journal_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "io/platform.h"

/*
 * Header (all little-endian): magic, version, CRC over the constant part; then, outside the CRC,
 * the tail and the number of fences. Each is one aligned 64-bit store and so always whole: 48 bits
 * of the number and 16 of a checksum of them.
 *
 * Record: le32 CRC over the rest, le32 type, le64 sequence, branch, batch, volume grain, entry.
 */
enum {
    HEADER_MAGIC_AT = 0,
    HEADER_VERSION_AT = 8,
    HEADER_CRC_AT = 12,
    HEADER_CAPACITY_AT = 16,
    HEADER_INCARNATION_AT = 24,
    HEADER_INDEX_AT = 32,
    HEADER_POOL_AT = 40,
    HEADER_DATABASE_AT = 56,
    HEADER_RING_AT = 72,
    HEADER_BOOT_AT = 88,
    HEADER_CRC_END = 128,
    HEADER_TAIL_AT = 128,
    HEADER_FENCES_AT = 192, /* count, then le64 branches */
    NUMBER_BITS = 48,
    HEADER_FENCES_MAX = (JOURNAL_HEADER_BYTES - HEADER_FENCES_AT) / 8 - 1,
    JOURNAL_VERSION = 1,

    RECORD_CRC_AT = 0,
    RECORD_TYPE_AT = 4,
    RECORD_SEQUENCE_AT = 8,
    RECORD_BRANCH_AT = 16,
    RECORD_BATCH_AT = 24,
    RECORD_GRAIN_AT = 32,
    RECORD_ENTRY_AT = 40,
    RECORD_TYPE_ENTRY = 1,
};
_Static_assert(RECORD_ENTRY_AT + MAP_ENTRY_ENCODED_BYTES <= JOURNAL_RECORD_BYTES, "record fits");

static const uint64_t HEADER_MAGIC = UINT64_C(0x4c4e524a4c4f5601);

void
journal_name(const struct journal_identity *identity, char ret_name[static 96])
{
    int at = snprintf(ret_name, 96, "volmgr-");

    for (int i = 0; i < GUID_BYTES; i++) {
        at += snprintf(ret_name + at, 96 - (size_t)at, "%02x", identity->pool_guid[i]);
    }
    ret_name[at++] = '-';
    for (int i = 0; i < GUID_BYTES; i++) {
        at += snprintf(ret_name + at, 96 - (size_t)at, "%02x", identity->ring_guid[i]);
    }
    snprintf(ret_name + at, 96 - (size_t)at, "-%u", identity->index);
}

static void
header_encode(uint8_t *header, const struct journal_identity *identity, uint64_t capacity)
{
    memset(header, 0, HEADER_CRC_END);
    put_le64(header + HEADER_MAGIC_AT, HEADER_MAGIC);
    put_le32(header + HEADER_VERSION_AT, JOURNAL_VERSION);
    put_le64(header + HEADER_CAPACITY_AT, capacity);
    put_le64(header + HEADER_INCARNATION_AT, identity->incarnation);
    put_le32(header + HEADER_INDEX_AT, identity->index);
    memcpy(header + HEADER_POOL_AT, identity->pool_guid, GUID_BYTES);
    memcpy(header + HEADER_DATABASE_AT, identity->database_guid, GUID_BYTES);
    memcpy(header + HEADER_RING_AT, identity->ring_guid, GUID_BYTES);
    memcpy(header + HEADER_BOOT_AT, identity->boot_id, sizeof(identity->boot_id));
    put_le32(header + HEADER_CRC_AT, crc32c(0, header, HEADER_CRC_END));
}

static uint8_t *
record_at(const struct journal *journal, uint64_t sequence)
{
    return journal->memory + JOURNAL_HEADER_BYTES +
           (sequence % journal->capacity) * JOURNAL_RECORD_BYTES;
}

static uint32_t
segment_of(const struct journal *journal, uint64_t sequence)
{
    return (uint32_t)(sequence % journal->capacity / journal->segment_records);
}

static uint64_t
number_with_check(uint64_t number)
{
    uint8_t bytes[sizeof(number)];

    ASSERT_OP(number >> NUMBER_BITS, ==, 0u);
    put_le64(bytes, number);
    return number | (uint64_t)(crc32c(0, bytes, NUMBER_BITS / 8) & UINT16_MAX) << NUMBER_BITS;
}

static bool
number_decode(const uint8_t *from, uint64_t *ret_number)
{
    uint64_t bytes = get_le64(from);
    uint64_t number = bytes & ((UINT64_C(1) << NUMBER_BITS) - 1);

    *ret_number = number;
    return number_with_check(number) == bytes;
}

static void
set_geometry(struct journal *journal, uint64_t size_bytes)
{
    journal->size_bytes = size_bytes;
    journal->segment_records =
        (size_bytes - JOURNAL_HEADER_BYTES) / JOURNAL_RECORD_BYTES / JOURNAL_SEGMENTS;
    journal->capacity = journal->segment_records * JOURNAL_SEGMENTS;
    ASSERT_OP(journal->segment_records, >, 0u);
}

int
journal_create(struct journal *journal, struct platform *platform,
               const struct journal_identity *identity, uint64_t size_bytes, struct error *error)
{
    char name[96];
    void *memory = NULL;
    bool existed = false;

    *journal = (struct journal){ .platform = platform };
    set_geometry(journal, size_bytes);
    journal_name(identity, name);
    int result = platform->ops->volatile_map(platform, name, size_bytes, &memory, &existed, error);
    if (result < 0) {
        return result;
    }
    if (existed) {
        memset(memory, 0, size_bytes);
    }
    journal->memory = memory;
    header_encode(journal->memory, identity, journal->capacity);
    put_le64(journal->memory + HEADER_TAIL_AT, number_with_check(0));
    put_le64(journal->memory + HEADER_FENCES_AT, number_with_check(0));
    return 0;
}

void
journal_close(struct journal *journal, const struct journal_identity *identity, bool remove)
{
    if (journal->memory == NULL) {
        return;
    }
    journal->platform->ops->volatile_unmap(journal->platform, journal->memory,
                                           journal->size_bytes);
    journal->memory = NULL;
    if (remove) {
        journal_remove(journal->platform, identity);
    }
}

void
journal_remove(struct platform *platform, const struct journal_identity *identity)
{
    char name[96];

    journal_name(identity, name);
    platform->ops->volatile_remove(platform, name);
}

uint32_t
journal_append(struct journal *journal, uint64_t branch, uint64_t batch, uint64_t volume_grain,
               const struct map_entry *entry)
{
    uint8_t *record = record_at(journal, journal->head);
    uint32_t segment = segment_of(journal, journal->head);

    ASSERT_OP(journal_free_records(journal), >, 0u);
    put_le32(record + RECORD_TYPE_AT, RECORD_TYPE_ENTRY);
    put_le64(record + RECORD_SEQUENCE_AT, journal->head);
    put_le64(record + RECORD_BRANCH_AT, branch);
    put_le64(record + RECORD_BATCH_AT, batch);
    put_le64(record + RECORD_GRAIN_AT, volume_grain);
    map_entry_encode(entry, record + RECORD_ENTRY_AT);
    memset(record + RECORD_ENTRY_AT + MAP_ENTRY_ENCODED_BYTES, 0,
           JOURNAL_RECORD_BYTES - RECORD_ENTRY_AT - MAP_ENTRY_ENCODED_BYTES);
    /* The CRC is what makes the record whole; it goes last (J1). */
    __atomic_signal_fence(__ATOMIC_RELEASE);
    put_le32(record + RECORD_CRC_AT,
             crc32c(0, record + RECORD_TYPE_AT, JOURNAL_RECORD_BYTES - RECORD_TYPE_AT));
    journal->head++;
    journal->segment_uncommitted[segment]++;
    journal->uncommitted++;
    return segment;
}

void
journal_committed(struct journal *journal, uint32_t segment, uint32_t count)
{
    ASSERT_OP(segment, <, (uint32_t)JOURNAL_SEGMENTS);
    ASSERT_OP(journal->segment_uncommitted[segment], >=, count);
    journal->segment_uncommitted[segment] -= count;
    journal->uncommitted -= count;
    while (journal->tail < journal->head &&
           journal->segment_uncommitted[segment_of(journal, journal->tail)] == 0) {
        /* The whole rest of this segment up to the head is committed. */
        uint64_t next = journal->tail - journal->tail % journal->segment_records +
                        journal->segment_records;
        journal->tail = next < journal->head ? next : journal->head;
    }
    put_le64(journal->memory + HEADER_TAIL_AT, number_with_check(journal->tail));
}

uint32_t
journal_tail_segment(const struct journal *journal)
{
    return segment_of(journal, journal->tail);
}

uint64_t
journal_segment_end(const struct journal *journal)
{
    return journal->tail - journal->tail % journal->segment_records + journal->segment_records;
}

/* Above HEADER_FENCES_MAX the count stands for every branch. */
void
journal_fence(struct journal *journal, uint64_t branch)
{
    uint8_t *fences = journal->memory + HEADER_FENCES_AT;

    journal->fence_count++;
    if (journal->fences_all || journal->fence_count > HEADER_FENCES_MAX) {
        journal->fences_all = true;
        put_le64(fences, number_with_check(HEADER_FENCES_MAX + 1));
        return;
    }
    put_le64(fences + 8 * journal->fence_count, branch);
    __atomic_signal_fence(__ATOMIC_RELEASE);
    put_le64(fences, number_with_check(journal->fence_count));
}

void
journal_lift_fence(struct journal *journal, uint64_t branch)
{
    uint8_t *fences = journal->memory + HEADER_FENCES_AT;

    ASSERT_OP(journal->fence_count, >, 0u);
    for (uint64_t i = 1; !journal->fences_all && i <= journal->fence_count; i++) {
        if (get_le64(fences + 8 * i) == branch) {
            put_le64(fences + 8 * i, get_le64(fences + 8 * journal->fence_count));
            __atomic_signal_fence(__ATOMIC_RELEASE);
            put_le64(fences, number_with_check(journal->fence_count - 1));
            break;
        }
    }
    if (--journal->fence_count == 0) {
        journal->fences_all = false;
        put_le64(fences, number_with_check(0));
    }
}

bool
journal_is_fenced(const struct byte_buffer *fences, uint64_t branch)
{
    for (size_t at = 0; at + sizeof(uint64_t) <= fences->length_bytes; at += sizeof(uint64_t)) {
        uint64_t fenced = get_le64(fences->data + at);
        if (fenced == branch || fenced == JOURNAL_FENCE_ALL) {
            return true;
        }
    }
    return false;
}

static int
collect_fences(const struct journal *journal, struct byte_buffer *ret_fences, struct error *error)
{
    const uint8_t *fences = journal->memory + HEADER_FENCES_AT;
    uint64_t count = 0;

    if (!number_decode(fences, &count)) {
        return error_set(error, -EUCLEAN, "the fences of the volatile journal are damaged");
    }
    if (count > HEADER_FENCES_MAX) {
        byte_buffer_append_le64(ret_fences, JOURNAL_FENCE_ALL);
    } else {
        byte_buffer_append(ret_fences, fences + 8, count * 8);
    }
    return 0;
}

static bool
record_is_whole(const uint8_t *record)
{
    return get_le32(record + RECORD_CRC_AT) ==
               crc32c(0, record + RECORD_TYPE_AT, JOURNAL_RECORD_BYTES - RECORD_TYPE_AT) &&
           get_le32(record + RECORD_TYPE_AT) == RECORD_TYPE_ENTRY;
}

static int
header_check(const struct journal *journal, const struct journal_identity *expected,
             struct error *error)
{
    uint8_t wanted[HEADER_CRC_END];
    const uint8_t *header = journal->memory;

    header_encode(wanted, expected, journal->capacity);
    if (memcmp(header, wanted, HEADER_CRC_END) == 0) {
        return 0;
    }
    uint8_t copy[HEADER_CRC_END];
    memcpy(copy, header, sizeof(copy));
    uint32_t crc = get_le32(copy + HEADER_CRC_AT);
    put_le32(copy + HEADER_CRC_AT, 0);
    if (get_le64(copy + HEADER_MAGIC_AT) != HEADER_MAGIC || crc != crc32c(0, copy, sizeof(copy))) {
        return error_set(error, -EUCLEAN, "the header of the volatile journal is damaged");
    }
    return error_set(error, -ESTALE,
                     "the volatile journal belongs to another boot, database or incarnation");
}

static int
record_decode(const uint8_t *bytes, struct journal_record *ret_record)
{
    ret_record->sequence = get_le64(bytes + RECORD_SEQUENCE_AT);
    ret_record->branch = get_le64(bytes + RECORD_BRANCH_AT);
    ret_record->batch = get_le64(bytes + RECORD_BATCH_AT);
    ret_record->volume_grain = get_le64(bytes + RECORD_GRAIN_AT);
    return map_entry_decode(bytes + RECORD_ENTRY_AT, &ret_record->entry);
}

int
journal_read(const struct journal *journal, uint64_t sequence, struct journal_record *ret_record)
{
    const uint8_t *bytes = record_at(journal, sequence);

    ASSERT(sequence >= journal->tail && sequence < journal->head);
    if (!record_is_whole(bytes) || get_le64(bytes + RECORD_SEQUENCE_AT) != sequence) {
        return -EUCLEAN;
    }
    return record_decode(bytes, ret_record);
}

/* J3: is there a whole record of this lap at or behind `sequence`? */
static bool
later_record_exists(const struct journal *journal, uint64_t sequence, uint64_t end)
{
    for (; sequence < end; sequence++) {
        const uint8_t *record = record_at(journal, sequence);
        if (record_is_whole(record) && get_le64(record + RECORD_SEQUENCE_AT) == sequence) {
            return true;
        }
    }
    return false;
}

/* The tail itself may be damaged: then whole records lie elsewhere in the ring. */
static bool
any_record_exists(const struct journal *journal, uint64_t tail)
{
    for (uint64_t slot = 0; slot < journal->capacity; slot++) {
        const uint8_t *record = record_at(journal, slot);
        if (record_is_whole(record) && get_le64(record + RECORD_SEQUENCE_AT) >= tail) {
            return true;
        }
    }
    return tail > 0 && !record_is_whole(record_at(journal, tail - 1));
}

static int
replay_records(const struct journal *journal, journal_record_fn *each, void *context,
               struct error *error)
{
    uint64_t tail = 0;

    if (!number_decode(journal->memory + HEADER_TAIL_AT, &tail)) {
        return error_set(error, -EUCLEAN, "the tail of the volatile journal is damaged");
    }
    uint64_t end = tail + journal->capacity;
    for (uint64_t sequence = tail; sequence < end; sequence++) {
        const uint8_t *bytes = record_at(journal, sequence);
        struct journal_record record;
        if (!record_is_whole(bytes) || get_le64(bytes + RECORD_SEQUENCE_AT) != sequence) {
            if (later_record_exists(journal, sequence + 1, end) ||
                (sequence == tail && any_record_exists(journal, tail))) {
                return error_set(error, -EUCLEAN,
                                 "the volatile journal has a hole at record %llu",
                                 (unsigned long long)sequence);
            }
            return 0;
        }
        int result = record_decode(bytes, &record);
        if (result < 0) {
            return error_set(error, -EUCLEAN, "record %llu of the volatile journal is not valid",
                             (unsigned long long)sequence);
        }
        result = each(context, &record);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

int
journal_replay(struct platform *platform, const struct journal_identity *expected,
               uint64_t size_bytes, journal_record_fn *each, void *context,
               struct byte_buffer *ret_fences, struct error *error)
{
    struct journal journal = { .platform = platform };
    char name[96];
    void *memory = NULL;
    bool existed = false;

    set_geometry(&journal, size_bytes);
    journal_name(expected, name);
    int result = platform->ops->volatile_map(platform, name, size_bytes, &memory, &existed, error);
    if (result < 0) {
        return result;
    }
    journal.memory = memory;
    if (!existed) {
        journal_close(&journal, expected, true);
        return error_set(error, -ENOENT, "the volatile journal of the last run is gone");
    }
    result = header_check(&journal, expected, error);
    if (result == 0) {
        result = collect_fences(&journal, ret_fences, error);
    }
    if (result == 0) {
        result = replay_records(&journal, each, context, error);
    }
    journal_close(&journal, expected, false);
    return result;
}

void
journal_fence_ring(struct platform *platform, const struct journal_identity *expected,
                   uint64_t size_bytes, struct byte_buffer *ret_fences)
{
    struct journal journal = { .platform = platform };
    char name[96];
    void *memory = NULL;
    bool existed = false;
    struct error error;

    set_geometry(&journal, size_bytes);
    journal_name(expected, name);
    if (platform->ops->volatile_map(platform, name, size_bytes, &memory, &existed, &error) < 0) {
        return; /* the replay will not find it either */
    }
    journal.memory = memory;
    if (existed && header_check(&journal, expected, &error) == 0) {
        if (collect_fences(&journal, ret_fences, &error) < 0) {
            byte_buffer_append_le64(ret_fences, JOURNAL_FENCE_ALL);
        }
        put_le64(journal.memory + HEADER_FENCES_AT, number_with_check(HEADER_FENCES_MAX + 1));
    }
    journal_close(&journal, expected, !existed);
}
