/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a label, and the geometry of a new disk. docs/FORMAT.md has the layout in words. */
#include "metadata/label.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "metadata/label_impl.h"

static const char label_magic[8] = { 'V', 'O', 'L', 'M', 'G', 'R', 'L', 'B' };

struct block_checkpoint {
    uint64_t commit;
    uint64_t length_bytes;
    uint16_t disk;
    uint16_t zero;
    uint32_t slot;
} __attribute__((packed));

struct block_disk {
    uint16_t index;
    uint8_t guid[GUID_BYTES];
} __attribute__((packed));

/* All numbers are little-endian. Magic, CRC and version stay where they are in all versions. */
struct label_block {
    char magic[8];
    uint32_t crc; /* CRC-32C of the whole block, with these four bytes zero */
    uint32_t version;
    uint64_t generation;
    uint8_t pool_guid[GUID_BYTES];
    uint8_t disk_guid[GUID_BYTES];
    char pool_name[NAME_BYTES_MAX + 1]; /* padded with NUL, at least one */
    uint16_t disk_index;
    uint16_t tier;
    uint32_t slot_count;
    uint64_t incarnation;
    uint64_t extent_bytes;
    uint64_t size_bytes;
    uint64_t data_start_bytes;
    uint64_t ledger_start_bytes;
    uint64_t ledger_length_bytes;
    uint8_t ledger_current;
    uint8_t open;
    uint16_t disk_count;
    uint32_t zero;
    struct block_checkpoint checkpoints[2];
    uint8_t host_guid[GUID_BYTES];
    uint64_t heartbeat;
    struct block_disk disks[LABEL_DISKS_MAX];
    uint8_t reserved[1472];
} __attribute__((packed));
_Static_assert(sizeof(struct label_block) == LABEL_BYTES, "a label is one block");

/* ---- geometry ---- */

enum {
    LAYOUT_ALIGNMENT = 1 << 20,
    LEDGER_SHARE = 128, /* of the disk is for the ledger: one part in so many ... */
};
#define LEDGER_BYTES_MIN       (4 * MIB) /* ... within these bounds, */
#define LEDGER_BYTES_MAX       (256 * MIB)
#define LEDGER_BYTES_TINY      (2 * MIB) /* except on disks that are hardly any, */
#define LEDGER_TINY_DISK_BYTES (64 * MIB)

int
label_layout(uint64_t size_bytes, uint64_t extent_bytes, bool with_ledger, struct label *label)
{
    ASSERT(is_power_of_two(extent_bytes));
    ASSERT(extent_bytes >= EXTENT_BYTES_MIN && extent_bytes <= EXTENT_BYTES_MAX);
    size_bytes = align_down(size_bytes, LABEL_BYTES);
    uint64_t ledger_bytes = 0;
    if (with_ledger) {
        ledger_bytes = align_down(size_bytes / LEDGER_SHARE, LAYOUT_ALIGNMENT);
        ledger_bytes = MAX(MIN(ledger_bytes, LEDGER_BYTES_MAX), LEDGER_BYTES_MIN);
        if (size_bytes < LEDGER_TINY_DISK_BYTES) {
            ledger_bytes = LEDGER_BYTES_TINY;
        }
    }
    uint64_t data_start_bytes = LAYOUT_ALIGNMENT + ledger_bytes;
    if (size_bytes < data_start_bytes + extent_bytes + LABEL_PLACE_BYTES) {
        return -ENOSPC;
    }
    uint64_t slots = (size_bytes - data_start_bytes - LABEL_PLACE_BYTES) / extent_bytes;
    label->extent_bytes = extent_bytes;
    label->size_bytes = size_bytes;
    label->data_start_bytes = data_start_bytes;
    label->slot_count = (uint32_t)MIN(slots, (uint64_t)UINT32_MAX);
    label->ledger_start_bytes = with_ledger ? LAYOUT_ALIGNMENT : 0;
    label->ledger_length_bytes = ledger_bytes;
    label->ledger_current = with_ledger;
    return 0;
}

static bool
geometry_is_valid(const struct label *label)
{
    if (!is_power_of_two(label->extent_bytes) || label->extent_bytes < EXTENT_BYTES_MIN
        || label->extent_bytes > EXTENT_BYTES_MAX) {
        return false;
    }
    if (label->size_bytes % LABEL_BYTES != 0 || label->size_bytes > INT64_MAX
        || label->size_bytes < LABEL_PLACE_BYTES) {
        return false;
    }
    uint64_t end_bytes = label->size_bytes - LABEL_PLACE_BYTES;
    if (label->data_start_bytes < LABEL_PLACE_BYTES || label->data_start_bytes > end_bytes
        || label->data_start_bytes % LABEL_BYTES != 0
        || label->slot_count > (end_bytes - label->data_start_bytes) / label->extent_bytes) {
        return false;
    }
    if (label->ledger_length_bytes == 0) {
        return true;
    }
    return label->ledger_start_bytes >= LABEL_PLACE_BYTES
        && label->ledger_start_bytes % LABEL_BYTES == 0
        && label->ledger_length_bytes % LABEL_BYTES == 0
        && label->ledger_start_bytes <= label->data_start_bytes
        && label->ledger_length_bytes <= label->data_start_bytes - label->ledger_start_bytes;
}

static bool
label_is_valid(const struct label *label)
{
    if (!geometry_is_valid(label) || !schema_name_is_valid(label->pool_name)
        || label->disk_index >= POOL_DISKS_MAX || label->disk_count > LABEL_DISKS_MAX) {
        return false;
    }
    for (uint32_t n = 0; n < label->disk_count; n++) {
        if (label->disks[n].index >= POOL_DISKS_MAX) {
            return false;
        }
    }
    return label->checkpoints[0].first.disk < POOL_DISKS_MAX
        && label->checkpoints[1].first.disk < POOL_DISKS_MAX;
}

/* ---- encode and decode ---- */

static uint32_t
block_crc(const struct label_block *block)
{
    static const uint8_t no_crc[sizeof(block->crc)];
    const uint8_t *bytes = (const uint8_t *)block;
    const size_t before = offsetof(struct label_block, crc);
    uint32_t crc = crc32c(0, bytes, before);
    crc = crc32c(crc, no_crc, sizeof(no_crc));
    return crc32c(crc, bytes + before + sizeof(no_crc), LABEL_BYTES - before - sizeof(no_crc));
}

void
label_encode(const struct label *label, uint8_t to[static LABEL_BYTES])
{
    ASSERT(label_is_valid(label));
    struct label_block *block = (struct label_block *)to;
    memset(block, 0, sizeof(*block));
    memcpy(block->magic, label_magic, sizeof(block->magic));
    block->version = htole32(LABEL_VERSION);
    block->generation = htole64(label->generation);
    memcpy(block->pool_guid, label->pool_guid, GUID_BYTES);
    memcpy(block->disk_guid, label->disk_guid, GUID_BYTES);
    memcpy(block->pool_name, label->pool_name, strlen(label->pool_name));
    block->disk_index = htole16(label->disk_index);
    block->tier = htole16(label->tier);
    block->slot_count = htole32(label->slot_count);
    block->incarnation = htole64(label->incarnation);
    block->extent_bytes = htole64(label->extent_bytes);
    block->size_bytes = htole64(label->size_bytes);
    block->data_start_bytes = htole64(label->data_start_bytes);
    block->ledger_start_bytes = htole64(label->ledger_start_bytes);
    block->ledger_length_bytes = htole64(label->ledger_length_bytes);
    block->ledger_current = label->ledger_current;
    block->open = label->open;
    block->disk_count = htole16((uint16_t)label->disk_count);
    for (uint32_t n = 0; n < ARRAY_SIZE(block->checkpoints); n++) {
        block->checkpoints[n].commit = htole64(label->checkpoints[n].commit);
        block->checkpoints[n].length_bytes = htole64(label->checkpoints[n].length_bytes);
        block->checkpoints[n].disk = htole16(label->checkpoints[n].first.disk);
        block->checkpoints[n].slot = htole32(label->checkpoints[n].first.slot);
    }
    memcpy(block->host_guid, label->host_guid, GUID_BYTES);
    block->heartbeat = htole64(label->heartbeat);
    for (uint32_t n = 0; n < label->disk_count; n++) {
        block->disks[n].index = htole16(label->disks[n].index);
        memcpy(block->disks[n].guid, label->disks[n].guid, GUID_BYTES);
    }
    block->crc = htole32(block_crc(block));
}

/* The fields that are more than a copy; the rest of decoding. */
static void
decode_lists(const struct label_block *block, struct label *label)
{
    for (uint32_t n = 0; n < ARRAY_SIZE(block->checkpoints); n++) {
        label->checkpoints[n].commit = le64toh(block->checkpoints[n].commit);
        label->checkpoints[n].length_bytes = le64toh(block->checkpoints[n].length_bytes);
        label->checkpoints[n].first.disk = le16toh(block->checkpoints[n].disk);
        label->checkpoints[n].first.slot = le32toh(block->checkpoints[n].slot);
    }
    for (uint32_t n = 0; n < MIN(label->disk_count, (uint32_t)LABEL_DISKS_MAX); n++) {
        label->disks[n].index = le16toh(block->disks[n].index);
        memcpy(label->disks[n].guid, block->disks[n].guid, GUID_BYTES);
    }
}

int
label_decode(const uint8_t from[static LABEL_BYTES], struct label *ret_label)
{
    const struct label_block *block = (const struct label_block *)from;
    if (memcmp(block->magic, label_magic, sizeof(block->magic)) != 0) {
        return -ENOENT;
    }
    if (le32toh(block->crc) != block_crc(block)) {
        return -EBADMSG;
    }
    if (le32toh(block->version) > LABEL_VERSION) {
        return -EPROTO;
    }
    struct label label;
    memset(&label, 0, sizeof(label));
    label.generation = le64toh(block->generation);
    memcpy(label.pool_guid, block->pool_guid, GUID_BYTES);
    memcpy(label.disk_guid, block->disk_guid, GUID_BYTES);
    memcpy(label.pool_name, block->pool_name, NAME_BYTES_MAX);
    label.disk_index = le16toh(block->disk_index);
    label.tier = le16toh(block->tier);
    label.slot_count = le32toh(block->slot_count);
    label.incarnation = le64toh(block->incarnation);
    label.extent_bytes = le64toh(block->extent_bytes);
    label.size_bytes = le64toh(block->size_bytes);
    label.data_start_bytes = le64toh(block->data_start_bytes);
    label.ledger_start_bytes = le64toh(block->ledger_start_bytes);
    label.ledger_length_bytes = le64toh(block->ledger_length_bytes);
    label.ledger_current = block->ledger_current != 0;
    label.open = block->open != 0;
    label.disk_count = le16toh(block->disk_count);
    memcpy(label.host_guid, block->host_guid, GUID_BYTES);
    label.heartbeat = le64toh(block->heartbeat);
    decode_lists(block, &label);
    /* Generation 0 is never written; behind the last one there would be nothing newer. */
    if (le32toh(block->version) == 0 || label.generation == 0 || label.generation == UINT64_MAX
        || !label_is_valid(&label)) {
        return -EBADMSG;
    }
    *ret_label = label;
    return 0;
}
