/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map entries and map pages: their bytes, and the folding of deltas into a page.
 *
 * A page value is {le32 CRC-32C of the rest, le16 count, count deltas in order of index}; a page
 * without any entry is a value of no bytes. Such an empty value is still a version of its page: it
 * says that nothing is mapped at that generation, and hides older versions.
 *
 * Folding works on the encoded page. A few deltas are put in place by binary search; many are
 * merged in one walk. Either way at most the entries that change are looked into; the rest is
 * covered by the CRC, which is checked before and made anew afterwards.
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
    PAGE_HEADER_BYTES = 6,
    PAGE_CRC_BYTES = 4,
    /* Up to here, moving the tail of the page for each delta is cheaper than a merging walk. */
    FEW_DELTAS = 8,
};
_Static_assert(PAGE_HEADER_BYTES + MAP_PAGE_ENTRIES * MAP_DELTA_ENCODED_BYTES
                   <= STORE_VALUE_BYTES_MAX,
               "a full page is a legal value");

/* ---- entries ---- */

static bool
entry_is_valid(const struct map_entry *entry)
{
    bool has_home = entry->home != GRAIN_NONE;
    bool has_base = entry->base != GRAIN_NONE;
    if ((entry->valid & entry->zero) != 0) {
        return false;
    }
    if (!has_home && (entry->valid != 0 || entry->home_generation != 0)) {
        return false;
    }
    if (!has_base && (entry->zero != 0 || entry->base_generation != 0)) {
        return false;
    }
    if (has_home && (entry->home == entry->base || entry->valid == 0)) {
        return false;
    }
    /* Only what a grain supplies can be lost or have been moved; zeroes cannot. */
    uint16_t supplied = has_base ? (uint16_t)~entry->zero : entry->valid;
    return ((entry->damaged | entry->copied) & ~supplied) == 0;
}

bool
map_entry_is_empty(const struct map_entry *entry)
{
    return entry->home == GRAIN_NONE && entry->base == GRAIN_NONE;
}

void
map_entry_encode(const struct map_entry *entry, uint8_t to[static MAP_ENTRY_ENCODED_BYTES])
{
    ASSERT(entry_is_valid(entry));
    put_le64(to, entry->home);
    put_le64(to + 8, entry->base);
    put_le32(to + 16, entry->home_generation);
    put_le32(to + 20, entry->base_generation);
    put_le16(to + 24, entry->valid);
    put_le16(to + 26, entry->zero);
    put_le16(to + 28, entry->damaged);
    put_le16(to + 30, entry->copied);
}

int
map_entry_decode(const uint8_t from[static MAP_ENTRY_ENCODED_BYTES], struct map_entry *ret_entry)
{
    struct map_entry entry = {
        .home = get_le64(from),
        .base = get_le64(from + 8),
        .home_generation = get_le32(from + 16),
        .base_generation = get_le32(from + 20),
        .valid = get_le16(from + 24),
        .zero = get_le16(from + 26),
        .damaged = get_le16(from + 28),
        .copied = get_le16(from + 30),
    };
    if (!entry_is_valid(&entry)) {
        return -EUCLEAN;
    }
    *ret_entry = entry;
    return 0;
}

void
map_delta_append(struct byte_buffer *operand, uint32_t index, const struct map_entry *entry)
{
    ASSERT_OP(index, <, (uint32_t)MAP_PAGE_ENTRIES);
    byte_buffer_append_le16(operand, (uint16_t)index);
    map_entry_encode(entry, byte_buffer_extend(operand, MAP_ENTRY_ENCODED_BYTES));
}

/* ---- pages ---- */

static void
page_seal(uint8_t *page, size_t page_bytes, uint32_t count)
{
    ASSERT_OP(page_bytes, ==, PAGE_HEADER_BYTES + (size_t)count * MAP_DELTA_ENCODED_BYTES);
    put_le16(page + PAGE_CRC_BYTES, (uint16_t)count);
    put_le32(page, crc32c(0, page + PAGE_CRC_BYTES, page_bytes - PAGE_CRC_BYTES));
}

void
map_page_encode(const struct map_entry entries[static MAP_PAGE_ENTRIES], struct byte_buffer *to)
{
    size_t start = to->length_bytes;
    uint32_t count = 0;
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
        if (map_entry_is_empty(&entries[index])) {
            continue;
        }
        if (count++ == 0) {
            byte_buffer_extend(to, PAGE_HEADER_BYTES);
        }
        map_delta_append(to, index, &entries[index]);
    }
    if (count > 0) {
        page_seal(to->data + start, to->length_bytes - start, count);
    }
}

/* CRC, count and order of the indexes; not the entries. An empty value has 0 entries. */
static int
page_check(const uint8_t *page, size_t page_bytes, uint32_t *ret_count)
{
    if (page_bytes == 0) {
        *ret_count = 0;
        return 0;
    }
    if (page_bytes < PAGE_HEADER_BYTES) {
        return -EUCLEAN;
    }
    uint32_t count = get_le16(page + PAGE_CRC_BYTES);
    if (count == 0 || count > MAP_PAGE_ENTRIES /* a page of nothing is a value of nothing */
        || page_bytes != PAGE_HEADER_BYTES + (size_t)count * MAP_DELTA_ENCODED_BYTES
        || get_le32(page) != crc32c(0, page + PAGE_CRC_BYTES, page_bytes - PAGE_CRC_BYTES)) {
        return -EUCLEAN;
    }
    const uint8_t *delta = page + PAGE_HEADER_BYTES;
    uint32_t next_index = 0;
    for (uint32_t n = 0; n < count; n++, delta += MAP_DELTA_ENCODED_BYTES) {
        uint32_t index = get_le16(delta);
        if (index < next_index || index >= MAP_PAGE_ENTRIES) {
            return -EUCLEAN;
        }
        next_index = index + 1;
    }
    *ret_count = count;
    return 0;
}

int
map_page_decode(const void *value, size_t value_bytes,
                struct map_entry entries[static MAP_PAGE_ENTRIES], uint32_t *ret_used)
{
    ASSERT(ret_used != NULL);
    uint32_t count;
    int error = page_check(value, value_bytes, &count);
    if (error != 0) {
        return error;
    }
    memset(entries, 0, MAP_PAGE_ENTRIES * sizeof(entries[0]));
    for (uint32_t n = 0; n < count; n++) {
        const uint8_t *delta = (const uint8_t *)value + PAGE_HEADER_BYTES
            + (size_t)n * MAP_DELTA_ENCODED_BYTES;
        error = map_entry_decode(delta + 2, &entries[get_le16(delta)]);
        if (error != 0 || map_entry_is_empty(&entries[get_le16(delta)])) {
            return -EUCLEAN;
        }
    }
    *ret_used = count;
    return 0;
}

/* ---- keys ---- */

void
map_key_encode(uint8_t key[static MAP_KEY_BYTES], uint64_t branch, uint64_t page,
               uint64_t generation)
{
    put_be64(key, branch);
    put_be64(key + 8, page);
    put_be64(key + 16, generation);
}

int
map_key_decode(const uint8_t *key, size_t key_bytes, uint64_t *ret_branch, uint64_t *ret_page,
               uint64_t *ret_generation)
{
    if (key_bytes != MAP_KEY_BYTES || get_be64(key + 8) > UINT64_MAX >> MAP_PAGE_SHIFT) {
        return -EUCLEAN;
    }
    *ret_branch = get_be64(key);
    *ret_page = get_be64(key + 8);
    *ret_generation = get_be64(key + 16);
    return 0;
}

/* ---- folding ---- */

/* Index and entry of a delta of an operand; `*ret_removes` when the entry is empty. */
static int
delta_check(const uint8_t *delta, uint32_t *ret_index, bool *ret_removes)
{
    struct map_entry entry;
    uint32_t index = get_le16(delta);
    if (index >= MAP_PAGE_ENTRIES || map_entry_decode(delta + 2, &entry) != 0) {
        return -EUCLEAN;
    }
    *ret_index = index;
    *ret_removes = map_entry_is_empty(&entry);
    return 0;
}

/* Number of the first of `count` deltas whose index is not below `index`. */
static uint32_t
delta_lower_bound(const uint8_t *deltas, uint32_t count, uint32_t index)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (get_le16(deltas + (size_t)middle * MAP_DELTA_ENCODED_BYTES) < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int
fold_few(struct byte_buffer *page, uint32_t *count, const uint8_t *operand, uint32_t delta_count)
{
    for (uint32_t n = 0; n < delta_count; n++, operand += MAP_DELTA_ENCODED_BYTES) {
        uint32_t index;
        bool removes;
        int error = delta_check(operand, &index, &removes);
        if (error != 0) {
            return error;
        }
        byte_buffer_reserve(page, MAP_DELTA_ENCODED_BYTES);
        uint8_t *deltas = page->data + PAGE_HEADER_BYTES;
        uint32_t position = delta_lower_bound(deltas, *count, index);
        uint8_t *at = deltas + (size_t)position * MAP_DELTA_ENCODED_BYTES;
        bool found = position < *count && get_le16(at) == index;
        size_t tail_bytes = (size_t)(*count - position) * MAP_DELTA_ENCODED_BYTES;
        if (removes && found) {
            memmove(at, at + MAP_DELTA_ENCODED_BYTES, tail_bytes - MAP_DELTA_ENCODED_BYTES);
            *count -= 1;
        } else if (!removes) {
            if (!found) {
                memmove(at + MAP_DELTA_ENCODED_BYTES, at, tail_bytes);
                *count += 1;
            }
            memcpy(at, operand, MAP_DELTA_ENCODED_BYTES);
        }
        page->length_bytes = PAGE_HEADER_BYTES + (size_t)*count * MAP_DELTA_ENCODED_BYTES;
    }
    return 0;
}

static int
fold_many(struct byte_buffer *page, uint32_t *count, const uint8_t *operand, uint32_t delta_count)
{
    /* The last delta of each index, and whether it removes. */
    const uint8_t *last[MAP_PAGE_ENTRIES] = { NULL };
    uint8_t removes[MAP_PAGE_ENTRIES];
    for (uint32_t n = 0; n < delta_count; n++) {
        const uint8_t *delta = operand + (size_t)n * MAP_DELTA_ENCODED_BYTES;
        uint32_t index;
        bool removing;
        int error = delta_check(delta, &index, &removing);
        if (error != 0) {
            return error;
        }
        last[index] = delta;
        removes[index] = removing;
    }
    struct byte_buffer merged = BYTE_BUFFER_INIT;
    byte_buffer_reserve(&merged, PAGE_HEADER_BYTES + MAP_PAGE_ENTRIES * MAP_DELTA_ENCODED_BYTES);
    byte_buffer_extend(&merged, PAGE_HEADER_BYTES);
    const uint8_t *old = page->data + PAGE_HEADER_BYTES;
    const uint8_t *old_end = old + (size_t)*count * MAP_DELTA_ENCODED_BYTES;
    uint32_t merged_count = 0;
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
        const uint8_t *from = last[index];
        if (old < old_end && get_le16(old) == index) {
            from = from == NULL ? old : from;
            old += MAP_DELTA_ENCODED_BYTES;
        }
        if (from == NULL || (from == last[index] && removes[index])) {
            continue;
        }
        byte_buffer_append(&merged, from, MAP_DELTA_ENCODED_BYTES);
        merged_count++;
    }
    ASSERT(old == old_end);
    byte_buffer_free(page);
    *page = merged;
    *count = merged_count;
    return 0;
}

int
schema_merge_map(struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes)
{
    if (operand_bytes == 0 || operand_bytes % MAP_DELTA_ENCODED_BYTES != 0) {
        return -EUCLEAN;
    }
    uint32_t count;
    int error = page_check(value->data, value->length_bytes, &count);
    if (error != 0) {
        return error;
    }
    if (value->length_bytes == 0) {
        byte_buffer_extend(value, PAGE_HEADER_BYTES);
    }
    size_t delta_count = operand_bytes / MAP_DELTA_ENCODED_BYTES;
    ASSERT_OP(delta_count, <=, (size_t)UINT32_MAX);
    error = delta_count <= FEW_DELTAS ? fold_few(value, &count, operand, (uint32_t)delta_count)
                                      : fold_many(value, &count, operand, (uint32_t)delta_count);
    if (error != 0) {
        return error;
    }
    if (count == 0) {
        byte_buffer_clear(value);
    } else {
        page_seal(value->data, value->length_bytes, count);
    }
    return 0;
}
