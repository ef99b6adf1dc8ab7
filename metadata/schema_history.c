/* SPDX-License-Identifier: Apache-2.0 */
/* The HISTORY family: links, which are keys only, and counters, which are added up. */
#include <errno.h>

#include "base/assert.h"
#include "base/endian.h"
#include "metadata/schema.h"
#include "metadata/schema_impl.h"

/* ---- links ---- */

void
history_link_key_encode(uint8_t key[static HISTORY_LINK_KEY_BYTES], const struct history_link *link)
{
    ASSERT_OP(link->previous, <, link->version);
    key[0] = HISTORY_LINK;
    put_be64(key + 1, link->branch);
    put_be32(key + 9, link->version);
    put_be32(key + 13, link->previous);
    put_be64(key + 17, link->page);
}

int
history_link_key_decode(const uint8_t *key, size_t key_bytes, struct history_link *ret_link)
{
    if (key_bytes != HISTORY_LINK_KEY_BYTES || key[0] != HISTORY_LINK) {
        return -EUCLEAN;
    }
    struct history_link link = {
        .branch = get_be64(key + 1),
        .version = get_be32(key + 9),
        .previous = get_be32(key + 13),
        .page = get_be64(key + 17),
    };
    if (link.previous >= link.version || link.page > UINT64_MAX >> MAP_PAGE_SHIFT) {
        return -EUCLEAN;
    }
    *ret_link = link;
    return 0;
}

void
schema_put_link(struct byte_buffer *batch, const struct history_link *link)
{
    uint8_t key[HISTORY_LINK_KEY_BYTES];
    history_link_key_encode(key, link);
    store_batch_put(batch, STORE_FAMILY_HISTORY, key, sizeof(key), NULL, 0);
}

void
schema_delete_link(struct byte_buffer *batch, const struct history_link *link)
{
    uint8_t key[HISTORY_LINK_KEY_BYTES];
    history_link_key_encode(key, link);
    store_batch_delete(batch, STORE_FAMILY_HISTORY, key, sizeof(key));
}

/* ---- counters ---- */

void
history_counter_key_encode(uint8_t key[static HISTORY_COUNTER_KEY_BYTES],
                           const struct history_counter *counter)
{
    ASSERT_OP(counter->birth, <, counter->death);
    key[0] = HISTORY_COUNTER;
    put_be64(key + 1, counter->branch);
    put_be32(key + 9, counter->death);
    put_be32(key + 13, counter->birth);
}

int
history_counter_key_decode(const uint8_t *key, size_t key_bytes,
                           struct history_counter *ret_counter)
{
    if (key_bytes != HISTORY_COUNTER_KEY_BYTES || key[0] != HISTORY_COUNTER) {
        return -EUCLEAN;
    }
    struct history_counter counter = {
        .branch = get_be64(key + 1),
        .death = get_be32(key + 9),
        .birth = get_be32(key + 13),
    };
    if (counter.birth >= counter.death) {
        return -EUCLEAN;
    }
    *ret_counter = counter;
    return 0;
}

void
schema_add_counter(struct byte_buffer *batch, const struct history_counter *counter, int64_t added)
{
    uint8_t key[HISTORY_COUNTER_KEY_BYTES];
    uint8_t operand[sizeof(added)];
    history_counter_key_encode(key, counter);
    put_le64(operand, (uint64_t)added);
    store_batch_merge(batch, STORE_FAMILY_HISTORY, key, sizeof(key), operand, sizeof(operand));
}

int
schema_get_counter(const void *value, size_t value_bytes, int64_t *ret_count)
{
    if (value_bytes != 0 && value_bytes != sizeof(*ret_count)) {
        return -EUCLEAN;
    }
    *ret_count = value_bytes == 0 ? 0 : (int64_t)get_le64(value);
    return value_bytes != 0 && *ret_count == 0 ? -EUCLEAN : 0;
}

int
schema_merge_history(const uint8_t *key, size_t key_bytes, struct byte_buffer *value,
                     const uint8_t *operand, size_t operand_bytes)
{
    int64_t count;
    if (key_bytes == 0 || key[0] != HISTORY_COUNTER || operand_bytes == 0
        || operand_bytes % sizeof(count) != 0
        || schema_get_counter(value->data, value->length_bytes, &count) != 0) {
        return -EUCLEAN;
    }
    uint64_t sum = (uint64_t)count; /* foreign numbers may overflow, and then wrap */
    for (size_t at = 0; at < operand_bytes; at += sizeof(count)) {
        sum += get_le64(operand + at);
    }
    byte_buffer_clear(value);
    if (sum != 0) {
        byte_buffer_append_le64(value, sum);
    }
    return 0;
}
