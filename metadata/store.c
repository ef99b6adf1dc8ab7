/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoding of batches. Batches are also the payload of ledger records and checkpoints, so the
 * decoder looks at foreign bytes and trusts nothing (P12); docs/FORMAT.md has the layout.
 */
#include "metadata/store.h"

#include <errno.h>

#include "base/assert.h"
#include "base/endian.h"

enum {
    ITEM_HEADER_BYTES = 8, /* u8 operation, u8 family, le16 key length, le32 value length */
};

static void
batch_append(struct byte_buffer *batch, enum store_operation operation, enum store_family family,
             const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    ASSERT_OP((uint32_t)family, <, (uint32_t)STORE_FAMILY_COUNT);
    ASSERT(key_bytes > 0 && key_bytes <= STORE_KEY_BYTES_MAX);
    ASSERT_OP(value_bytes, <=, (size_t)STORE_VALUE_BYTES_MAX);

    byte_buffer_append_u8(batch, (uint8_t)operation);
    byte_buffer_append_u8(batch, (uint8_t)family);
    byte_buffer_append_le16(batch, (uint16_t)key_bytes);
    byte_buffer_append_le32(batch, (uint32_t)value_bytes);
    byte_buffer_append(batch, key, key_bytes);
    byte_buffer_append(batch, value, value_bytes);
}

void
store_batch_put(struct byte_buffer *batch, enum store_family family, const void *key,
                size_t key_bytes, const void *value, size_t value_bytes)
{
    batch_append(batch, STORE_PUT, family, key, key_bytes, value, value_bytes);
}

void
store_batch_delete(struct byte_buffer *batch, enum store_family family, const void *key,
                   size_t key_bytes)
{
    batch_append(batch, STORE_DELETE, family, key, key_bytes, NULL, 0);
}

void
store_batch_merge(struct byte_buffer *batch, enum store_family family, const void *key,
                  size_t key_bytes, const void *operand, size_t operand_bytes)
{
    ASSERT(operand_bytes > 0);
    batch_append(batch, STORE_MERGE, family, key, key_bytes, operand, operand_bytes);
}

int
store_batch_next(const void *batch, size_t batch_bytes, size_t *position,
                 struct store_batch_item *ret_item)
{
    ASSERT(position != NULL && ret_item != NULL);
    ASSERT_OP(*position, <=, batch_bytes);
    size_t left = batch_bytes - *position;
    if (left == 0) {
        return 0;
    }
    if (left < ITEM_HEADER_BYTES) {
        return -EBADMSG;
    }
    const uint8_t *from = (const uint8_t *)batch + *position;
    uint8_t operation = from[0];
    uint8_t family = from[1];
    uint32_t key_bytes = get_le16(from + 2);
    uint32_t value_bytes = get_le32(from + 4);
    if (operation < STORE_PUT || operation > STORE_MERGE || family >= STORE_FAMILY_COUNT
        || key_bytes == 0 || key_bytes > STORE_KEY_BYTES_MAX
        || value_bytes > STORE_VALUE_BYTES_MAX
        || left - ITEM_HEADER_BYTES < (size_t)key_bytes + value_bytes
        || (operation == STORE_DELETE && value_bytes != 0)
        || (operation == STORE_MERGE && value_bytes == 0)) {
        return -EBADMSG;
    }
    *ret_item = (struct store_batch_item){
        .operation = (enum store_operation)operation,
        .family = (enum store_family)family,
        .key = from + ITEM_HEADER_BYTES,
        .key_bytes = key_bytes,
        .value = from + ITEM_HEADER_BYTES + key_bytes,
        .value_bytes = value_bytes,
    };
    *position += ITEM_HEADER_BYTES + (size_t)key_bytes + value_bytes;
    return 1;
}
