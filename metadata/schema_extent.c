/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extent records: their bytes, and the folding of use-bit changes.
 *
 * A value is {le32 CRC-32C of the rest, le64 owner branch, u8 state, u8 tier, u8 copy count, u8 0,
 * le32 heat, copy count times {le16 disk, le32 slot}, use bits}. There is one use bit per grain,
 * grain n is bit n % 8 of byte n / 8; the number of bytes tells the number of grains.
 *
 * Use-bit operands for an extent that is not there change nothing: the extent was removed, and a
 * store that failed on them could not be opened again. The checker tells of such a use.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/schema.h"
#include "metadata/schema_impl.h"

enum {
    EXTENT_CRC_BYTES = 4,
    EXTENT_HEADER_BYTES = 20,
    EXTENT_PLACE_ENCODED_BYTES = 6,
    EXTENT_USE_OPERAND_BYTES = 5, /* u8 used, le16 first, le16 count */
    EXTENT_GRAINS_MIN = EXTENT_BYTES_MIN / GRAIN_BYTES,
};
_Static_assert(EXTENT_GRAINS_MIN % 8 == 0, "use bits are whole bytes");

static bool
grain_count_is_valid(size_t grains)
{
    return is_power_of_two(grains) && grains >= EXTENT_GRAINS_MIN && grains <= EXTENT_GRAINS_MAX;
}

void
extent_key_encode(uint8_t key[static EXTENT_KEY_BYTES], uint64_t extent)
{
    put_be64(key, extent);
}

int
extent_key_decode(const uint8_t *key, size_t key_bytes, uint64_t *ret_extent)
{
    /* Number 0 is never given out: its first grain would be GRAIN_NONE. */
    if (key_bytes != EXTENT_KEY_BYTES || get_be64(key) == 0) {
        return -EUCLEAN;
    }
    *ret_extent = get_be64(key);
    return 0;
}

void
extent_record_encode(const struct extent_record *record, uint32_t grains_per_extent,
                     struct byte_buffer *to)
{
    ASSERT(grain_count_is_valid(grains_per_extent));
    ASSERT(record->copy_count >= 1 && record->copy_count <= EXTENT_COPIES_MAX);
    ASSERT(record->state == EXTENT_STATE_DATA || record->state == EXTENT_STATE_CHECKPOINT);

    size_t start = to->length_bytes;
    byte_buffer_append_le32(to, 0);
    byte_buffer_append_le64(to, record->owner_branch);
    byte_buffer_append_u8(to, record->state);
    byte_buffer_append_u8(to, record->tier);
    byte_buffer_append_u8(to, record->copy_count);
    byte_buffer_append_u8(to, 0);
    byte_buffer_append_le32(to, record->heat);
    for (uint32_t copy = 0; copy < record->copy_count; copy++) {
        byte_buffer_append_le16(to, record->places[copy].disk);
        byte_buffer_append_le32(to, record->places[copy].slot);
    }
    uint8_t *bits = byte_buffer_extend(to, grains_per_extent / 8);
    for (uint32_t byte = 0; byte < grains_per_extent / 8; byte++) {
        bits[byte] = (uint8_t)(record->used[byte / 8] >> (byte % 8 * 8));
    }
    uint8_t *value = to->data + start;
    put_le32(value,
             crc32c(0, value + EXTENT_CRC_BYTES, to->length_bytes - start - EXTENT_CRC_BYTES));
}

/* CRC and geometry; where the use bits are. */
static int
extent_check(const uint8_t *value, size_t value_bytes, size_t *ret_bits_offset, size_t *ret_grains)
{
    if (value_bytes < EXTENT_HEADER_BYTES) {
        return -EUCLEAN;
    }
    uint32_t copy_count = value[14];
    size_t bits_offset = EXTENT_HEADER_BYTES + (size_t)copy_count * EXTENT_PLACE_ENCODED_BYTES;
    if (copy_count < 1 || copy_count > EXTENT_COPIES_MAX || value_bytes <= bits_offset
        || !grain_count_is_valid((value_bytes - bits_offset) * 8)
        || get_le32(value) != crc32c(0, value + EXTENT_CRC_BYTES, value_bytes - EXTENT_CRC_BYTES)) {
        return -EUCLEAN;
    }
    *ret_bits_offset = bits_offset;
    *ret_grains = (value_bytes - bits_offset) * 8;
    return 0;
}

int
extent_record_decode(const void *value, size_t value_bytes, uint32_t grains_per_extent,
                     struct extent_record *ret_record)
{
    const uint8_t *from = value;
    size_t bits_offset;
    size_t grains;
    int error = extent_check(from, value_bytes, &bits_offset, &grains);
    if (error != 0) {
        return error;
    }
    uint8_t state = from[12];
    if (grains != grains_per_extent || from[15] != 0
        || (state != EXTENT_STATE_DATA && state != EXTENT_STATE_CHECKPOINT)) {
        return -EUCLEAN;
    }
    struct extent_record record = {
        .owner_branch = get_le64(from + 4),
        .state = state,
        .tier = from[13],
        .copy_count = from[14],
        .heat = get_le32(from + 16),
    };
    for (uint32_t copy = 0; copy < record.copy_count; copy++) {
        const uint8_t *place = from + EXTENT_HEADER_BYTES + copy * EXTENT_PLACE_ENCODED_BYTES;
        record.places[copy].disk = get_le16(place);
        record.places[copy].slot = get_le32(place + 2);
        if (record.places[copy].disk >= POOL_DISKS_MAX) {
            return -EUCLEAN;
        }
    }
    for (size_t byte = 0; byte < grains / 8; byte++) {
        record.used[byte / 8] |= (uint64_t)from[bits_offset + byte] << (byte % 8 * 8);
    }
    *ret_record = record;
    return 0;
}

void
extent_use_append(struct byte_buffer *operand, bool used, uint32_t first, uint32_t count)
{
    ASSERT(count > 0 && count <= EXTENT_GRAINS_MAX);
    ASSERT_OP(first, <=, (uint32_t)EXTENT_GRAINS_MAX - count);
    byte_buffer_append_u8(operand, used ? 1 : 0);
    byte_buffer_append_le16(operand, (uint16_t)first);
    byte_buffer_append_le16(operand, (uint16_t)count);
}

int
schema_merge_extent(struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes)
{
    if (operand_bytes == 0 || operand_bytes % EXTENT_USE_OPERAND_BYTES != 0) {
        return -EUCLEAN;
    }
    if (value->length_bytes == 0) {
        return 0;
    }
    size_t bits_offset;
    size_t grains;
    int error = extent_check(value->data, value->length_bytes, &bits_offset, &grains);
    if (error != 0) {
        return error;
    }
    uint8_t *bits = value->data + bits_offset;
    const uint8_t *end = operand + operand_bytes;
    for (; operand < end; operand += EXTENT_USE_OPERAND_BYTES) {
        uint32_t first = get_le16(operand + 1);
        uint32_t count = get_le16(operand + 3);
        if (operand[0] > 1 || count == 0 || first + count > grains) {
            return -EUCLEAN;
        }
        for (uint32_t grain = first; grain < first + count; grain++) {
            uint8_t bit = (uint8_t)(1u << grain % 8);
            uint8_t byte = bits[grain / 8];
            bits[grain / 8] = (uint8_t)(operand[0] != 0 ? byte | bit : byte & ~bit);
        }
    }
    put_le32(value->data, crc32c(0, value->data + EXTENT_CRC_BYTES,
                                 value->length_bytes - EXTENT_CRC_BYTES));
    return 0;
}
