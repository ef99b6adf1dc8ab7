/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of checkpoints. Foreign bytes: P12. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "metadata/checkpoint_impl.h"

enum {
    CHECKPOINT_VERSION = 1,
    CRC_START = 12, /* of a part header: behind magic and CRC */
    FRAME_CRC_START = 8,
};

static const char part_magic[8] = { 'V', 'O', 'L', 'M', 'G', 'R', 'C', 'P' };
static const char frame_magic[4] = { 'V', 'M', 'C', 'F' };

struct place_bytes {
    uint16_t disk;
    uint32_t slot;
} __attribute__((packed));

struct places_bytes {
    uint16_t count;
    struct place_bytes places[EXTENT_COPIES_MAX];
} __attribute__((packed));

struct part_block {
    char magic[8];
    uint32_t crc; /* of all that follows */
    uint32_t version;
    uint8_t pool_guid[GUID_BYTES];
    uint8_t checkpoint_guid[GUID_BYTES];
    uint64_t commit;
    uint32_t part;
    uint32_t is_last;
    uint64_t first_frame;
    uint64_t frame_count;
    uint64_t used_bytes;
    uint64_t item_count;
    uint32_t stream_crc;
    struct places_bytes own;
    struct places_bytes next;
    uint8_t reserved[3956];
} __attribute__((packed));
_Static_assert(sizeof(struct part_block) == CHECKPOINT_BLOCK_BYTES, "a part header is one block");

struct frame_bytes {
    char magic[4];
    uint32_t crc; /* of the rest of the header and of the batch */
    uint8_t checkpoint_guid[GUID_BYTES];
    uint64_t number;
    uint32_t item_count;
    uint32_t batch_bytes;
    uint8_t reserved[24];
} __attribute__((packed));
_Static_assert(sizeof(struct frame_bytes) == CHECKPOINT_FRAME_HEADER_BYTES, "frame header");

static void
places_encode(const struct checkpoint_places *places, struct places_bytes *to)
{
    ASSERT_OP(places->count, <=, (uint32_t)EXTENT_COPIES_MAX);
    to->count = htole16((uint16_t)places->count);
    for (uint32_t n = 0; n < places->count; n++) {
        to->places[n].disk = htole16(places->places[n].disk);
        to->places[n].slot = htole32(places->places[n].slot);
    }
}

static int
places_decode(const struct places_bytes *from, struct checkpoint_places *ret_places)
{
    struct checkpoint_places places = { .count = le16toh(from->count) };
    if (places.count > EXTENT_COPIES_MAX) {
        return -EBADMSG;
    }
    for (uint32_t n = 0; n < places.count; n++) {
        places.places[n].disk = le16toh(from->places[n].disk);
        places.places[n].slot = le32toh(from->places[n].slot);
        if (places.places[n].disk >= POOL_DISKS_MAX) {
            return -EBADMSG;
        }
    }
    *ret_places = places;
    return 0;
}

void
checkpoint_header_encode(const struct checkpoint_header *header,
                         uint8_t to[static CHECKPOINT_BLOCK_BYTES])
{
    ASSERT(header->is_last == (header->next.count == 0));
    ASSERT_OP(header->used_bytes, >=, (uint64_t)CHECKPOINT_BLOCK_BYTES);
    struct part_block *block = (struct part_block *)to;
    memset(block, 0, sizeof(*block));
    memcpy(block->magic, part_magic, sizeof(block->magic));
    block->version = htole32(CHECKPOINT_VERSION);
    memcpy(block->pool_guid, header->pool_guid, GUID_BYTES);
    memcpy(block->checkpoint_guid, header->checkpoint_guid, GUID_BYTES);
    block->commit = htole64(header->commit);
    block->part = htole32(header->part);
    block->is_last = htole32(header->is_last ? 1 : 0);
    block->first_frame = htole64(header->first_frame);
    block->frame_count = htole64(header->frame_count);
    block->used_bytes = htole64(header->used_bytes);
    block->item_count = htole64(header->item_count);
    block->stream_crc = htole32(header->stream_crc);
    places_encode(&header->own, &block->own);
    places_encode(&header->next, &block->next);
    block->crc = htole32(crc32c(0, to + CRC_START, CHECKPOINT_BLOCK_BYTES - CRC_START));
}

int
checkpoint_header_decode(const uint8_t from[static CHECKPOINT_BLOCK_BYTES],
                         struct checkpoint_header *ret_header)
{
    const struct part_block *block = (const struct part_block *)from;
    if (memcmp(block->magic, part_magic, sizeof(block->magic)) != 0) {
        return -ENOENT;
    }
    if (le32toh(block->crc) != crc32c(0, from + CRC_START, CHECKPOINT_BLOCK_BYTES - CRC_START)
        || le32toh(block->version) != CHECKPOINT_VERSION) {
        return -EBADMSG;
    }
    struct checkpoint_header header = {
        .commit = le64toh(block->commit),
        .part = le32toh(block->part),
        .is_last = le32toh(block->is_last) != 0,
        .first_frame = le64toh(block->first_frame),
        .frame_count = le64toh(block->frame_count),
        .used_bytes = le64toh(block->used_bytes),
        .item_count = le64toh(block->item_count),
        .stream_crc = le32toh(block->stream_crc),
    };
    memcpy(header.pool_guid, block->pool_guid, GUID_BYTES);
    memcpy(header.checkpoint_guid, block->checkpoint_guid, GUID_BYTES);
    if (places_decode(&block->own, &header.own) != 0
        || places_decode(&block->next, &header.next) != 0 || header.own.count == 0
        || header.is_last != (header.next.count == 0)
        || header.used_bytes < CHECKPOINT_BLOCK_BYTES || header.used_bytes > EXTENT_BYTES_MAX
        || !is_aligned(header.used_bytes, CHECKPOINT_BLOCK_BYTES)) {
        return -EBADMSG;
    }
    *ret_header = header;
    return 0;
}

uint64_t
checkpoint_frame_bytes(uint64_t batch_bytes)
{
    return align_up(CHECKPOINT_FRAME_HEADER_BYTES + batch_bytes, CHECKPOINT_BLOCK_BYTES);
}

void
checkpoint_frame_encode(struct checkpoint_frame *frame, uint8_t *to)
{
    struct frame_bytes *bytes = (struct frame_bytes *)to;
    memset(bytes, 0, sizeof(*bytes));
    memcpy(bytes->magic, frame_magic, sizeof(bytes->magic));
    memcpy(bytes->checkpoint_guid, frame->checkpoint_guid, GUID_BYTES);
    bytes->number = htole64(frame->number);
    bytes->item_count = htole32(frame->item_count);
    bytes->batch_bytes = htole32(frame->batch_bytes);
    frame->crc = crc32c(0, to + FRAME_CRC_START,
                        CHECKPOINT_FRAME_HEADER_BYTES - FRAME_CRC_START + frame->batch_bytes);
    bytes->crc = htole32(frame->crc);
}

int
checkpoint_frame_decode(const uint8_t *from, uint64_t window_bytes,
                        struct checkpoint_frame *ret_frame)
{
    const struct frame_bytes *bytes = (const struct frame_bytes *)from;
    if (window_bytes < CHECKPOINT_FRAME_HEADER_BYTES) {
        return -EAGAIN;
    }
    struct checkpoint_frame frame = {
        .number = le64toh(bytes->number),
        .item_count = le32toh(bytes->item_count),
        .batch_bytes = le32toh(bytes->batch_bytes),
        .crc = le32toh(bytes->crc),
    };
    if (memcmp(bytes->magic, frame_magic, sizeof(bytes->magic)) != 0
        || checkpoint_frame_bytes(frame.batch_bytes) > CHECKPOINT_BUFFER_BYTES) {
        return -EBADMSG;
    }
    if (checkpoint_frame_bytes(frame.batch_bytes) > window_bytes) {
        return -EAGAIN;
    }
    if (frame.crc
        != crc32c(0, from + FRAME_CRC_START,
                  CHECKPOINT_FRAME_HEADER_BYTES - FRAME_CRC_START + frame.batch_bytes)) {
        return -EBADMSG;
    }
    memcpy(frame.checkpoint_guid, bytes->checkpoint_guid, GUID_BYTES);
    *ret_frame = frame;
    return 0;
}
