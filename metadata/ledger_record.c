/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of the ledger: ring headers and record headers (docs/FORMAT.md). Foreign bytes: P12. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "metadata/ledger_impl.h"

enum {
    LEDGER_VERSION = 1,
};

static const char ring_magic[8] = { 'V', 'O', 'L', 'M', 'G', 'R', 'L', 'G' };
static const char record_magic[8] = { 'V', 'O', 'L', 'M', 'G', 'R', 'L', 'R' };

struct members_bytes {
    uint16_t count;
    uint16_t disks[LEDGER_COPIES_MAX];
} __attribute__((packed));

struct ring_block {
    char magic[8];
    uint32_t crc; /* of all that follows */
    uint32_t version;
    uint8_t pool_guid[GUID_BYTES];
    uint8_t ring_guid[GUID_BYTES];
    uint64_t format_number;
    uint64_t incarnation;
    uint64_t base_commit;
    uint64_t ring_bytes;
    struct members_bytes members;
    uint8_t reserved[4008];
} __attribute__((packed));
_Static_assert(sizeof(struct ring_block) == LEDGER_BLOCK_BYTES, "a ring header is one block");

struct record_bytes {
    char magic[8];
    uint32_t header_crc; /* of the rest of the header */
    uint16_t version;
    uint8_t kind;
    uint8_t zero;
    uint8_t pool_guid[GUID_BYTES];
    uint8_t ring_guid[GUID_BYTES];
    uint64_t sequence;
    uint64_t commit;
    uint64_t incarnation;
    uint64_t first_sequence;
    uint32_t previous_crc;
    uint32_t payload_bytes;
    uint32_t payload_crc;
    struct members_bytes members;
    uint8_t reserved[28];
} __attribute__((packed));
_Static_assert(sizeof(struct record_bytes) == LEDGER_HEADER_BYTES, "a record header is 128 bytes");

enum {
    CRC_START = 12, /* behind magic and CRC, in both */
};
/* Counters never come near it: whoever says so is not to be believed, and sums do not overflow. */
#define COUNTER_LIMIT (UINT64_C(1) << 62)

static void
members_encode(const struct ledger_members *members, struct members_bytes *to)
{
    ASSERT_OP(members->count, <=, (uint32_t)LEDGER_COPIES_MAX);
    to->count = htole16((uint16_t)members->count);
    for (uint32_t n = 0; n < LEDGER_COPIES_MAX; n++) {
        to->disks[n] = htole16(n < members->count ? members->disks[n] : 0);
    }
}

static int
members_decode(const struct members_bytes *from, struct ledger_members *ret_members)
{
    struct ledger_members members = { .count = le16toh(from->count) };
    if (members.count > LEDGER_COPIES_MAX) {
        return -EBADMSG;
    }
    for (uint32_t n = 0; n < members.count; n++) {
        members.disks[n] = le16toh(from->disks[n]);
        if (members.disks[n] >= POOL_DISKS_MAX) {
            return -EBADMSG;
        }
    }
    *ret_members = members;
    return 0;
}

/* ---- ring headers ---- */

void
ledger_ring_encode(struct ledger_ring *ring, uint8_t to[static LEDGER_BLOCK_BYTES])
{
    ASSERT(is_aligned(ring->ring_bytes, LEDGER_BLOCK_BYTES));
    struct ring_block *block = (struct ring_block *)to;
    memset(block, 0, sizeof(*block));
    memcpy(block->magic, ring_magic, sizeof(block->magic));
    block->version = htole32(LEDGER_VERSION);
    memcpy(block->pool_guid, ring->pool_guid, GUID_BYTES);
    memcpy(block->ring_guid, ring->ring_guid, GUID_BYTES);
    block->format_number = htole64(ring->format_number);
    block->incarnation = htole64(ring->incarnation);
    block->base_commit = htole64(ring->base_commit);
    block->ring_bytes = htole64(ring->ring_bytes);
    members_encode(&ring->members, &block->members);
    ring->crc = crc32c(0, to + CRC_START, LEDGER_BLOCK_BYTES - CRC_START);
    block->crc = htole32(ring->crc);
}

int
ledger_ring_decode(const uint8_t from[static LEDGER_BLOCK_BYTES], struct ledger_ring *ret_ring)
{
    const struct ring_block *block = (const struct ring_block *)from;
    if (memcmp(block->magic, ring_magic, sizeof(block->magic)) != 0) {
        return -ENOENT;
    }
    struct ledger_ring ring = {
        .format_number = le64toh(block->format_number),
        .incarnation = le64toh(block->incarnation),
        .base_commit = le64toh(block->base_commit),
        .ring_bytes = le64toh(block->ring_bytes),
        .crc = le32toh(block->crc),
    };
    memcpy(ring.pool_guid, block->pool_guid, GUID_BYTES);
    memcpy(ring.ring_guid, block->ring_guid, GUID_BYTES);
    if (ring.crc != crc32c(0, from + CRC_START, LEDGER_BLOCK_BYTES - CRC_START)
        || le32toh(block->version) != LEDGER_VERSION
        || !is_aligned(ring.ring_bytes, LEDGER_BLOCK_BYTES) || ring.ring_bytes == 0
        || ring.ring_bytes >= COUNTER_LIMIT || ring.format_number == 0
        || ring.format_number >= COUNTER_LIMIT || ring.incarnation >= COUNTER_LIMIT
        || ring.base_commit >= COUNTER_LIMIT
        || members_decode(&block->members, &ring.members) != 0) {
        return -EBADMSG;
    }
    *ret_ring = ring;
    return 0;
}

/* ---- records ---- */

uint64_t
ledger_record_bytes(uint32_t payload_bytes)
{
    return align_up((uint64_t)LEDGER_HEADER_BYTES + payload_bytes, LEDGER_BLOCK_BYTES);
}

void
ledger_header_encode(struct ledger_header *header, uint8_t to[static LEDGER_HEADER_BYTES])
{
    ASSERT(header->sequence > 0 && header->first_sequence <= header->sequence);
    ASSERT(header->kind != LEDGER_RECORD_MEMBERS || header->payload_bytes == 0);
    struct record_bytes *bytes = (struct record_bytes *)to;
    memset(bytes, 0, sizeof(*bytes));
    memcpy(bytes->magic, record_magic, sizeof(bytes->magic));
    bytes->version = htole16(LEDGER_VERSION);
    bytes->kind = header->kind;
    memcpy(bytes->pool_guid, header->pool_guid, GUID_BYTES);
    memcpy(bytes->ring_guid, header->ring_guid, GUID_BYTES);
    bytes->sequence = htole64(header->sequence);
    bytes->commit = htole64(header->commit);
    bytes->incarnation = htole64(header->incarnation);
    bytes->first_sequence = htole64(header->first_sequence);
    bytes->previous_crc = htole32(header->previous_crc);
    bytes->payload_bytes = htole32(header->payload_bytes);
    bytes->payload_crc = htole32(header->payload_crc);
    members_encode(&header->members, &bytes->members);
    header->header_crc = crc32c(0, to + CRC_START, LEDGER_HEADER_BYTES - CRC_START);
    bytes->header_crc = htole32(header->header_crc);
}

int
ledger_header_decode(const uint8_t from[static LEDGER_HEADER_BYTES],
                     struct ledger_header *ret_header)
{
    const struct record_bytes *bytes = (const struct record_bytes *)from;
    if (memcmp(bytes->magic, record_magic, sizeof(bytes->magic)) != 0) {
        return -ENOENT;
    }
    struct ledger_header header = {
        .sequence = le64toh(bytes->sequence),
        .commit = le64toh(bytes->commit),
        .incarnation = le64toh(bytes->incarnation),
        .first_sequence = le64toh(bytes->first_sequence),
        .previous_crc = le32toh(bytes->previous_crc),
        .payload_bytes = le32toh(bytes->payload_bytes),
        .payload_crc = le32toh(bytes->payload_crc),
        .kind = bytes->kind,
        .header_crc = le32toh(bytes->header_crc),
    };
    memcpy(header.pool_guid, bytes->pool_guid, GUID_BYTES);
    memcpy(header.ring_guid, bytes->ring_guid, GUID_BYTES);
    if (header.header_crc != crc32c(0, from + CRC_START, LEDGER_HEADER_BYTES - CRC_START)
        || le16toh(bytes->version) != LEDGER_VERSION || header.sequence == 0
        || header.first_sequence == 0 || header.first_sequence > header.sequence
        || header.sequence >= COUNTER_LIMIT || header.commit >= COUNTER_LIMIT
        || header.incarnation >= COUNTER_LIMIT
        || (header.kind != LEDGER_RECORD_COMMIT && header.kind != LEDGER_RECORD_MEMBERS)
        || (header.kind == LEDGER_RECORD_MEMBERS && header.payload_bytes != 0)
        || members_decode(&bytes->members, &header.members) != 0) {
        return -EBADMSG;
    }
    *ret_header = header;
    return 0;
}
