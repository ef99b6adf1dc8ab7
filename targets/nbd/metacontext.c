/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/metacontext_impl.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "targets/nbd/protocol.h"

static uint32_t
base_allocation_flags(const struct volume_status_extent *extent)
{
    return (extent->hole ? NBD_STATE_HOLE : 0u) | (extent->zero ? NBD_STATE_ZERO : 0u);
}

static const struct nbd_metacontext contexts[] = {
    { "base:allocation", VOLUME_STATUS, base_allocation_flags },
};
_Static_assert(ARRAY_SIZE(contexts) <= NBD_METACONTEXT_MAX, "a slot has a piece for each");

uint32_t
nbd_metacontext_count(void)
{
    return ARRAY_SIZE(contexts);
}

const struct nbd_metacontext *
nbd_metacontext(uint32_t index)
{
    ASSERT_OP(index, <, ARRAY_SIZE(contexts));
    return &contexts[index];
}

uint32_t
nbd_metacontext_all(void)
{
    return (1u << ARRAY_SIZE(contexts)) - 1;
}

int
nbd_metacontext_match(const uint8_t *query, size_t query_bytes, bool wildcards,
                      uint32_t *ret_contexts)
{
    const uint8_t *colon = query_bytes == 0 ? NULL : memchr(query, ':', query_bytes);
    uint32_t matched = 0;

    if (colon == NULL || colon == query || query_bytes > NBD_STRING_BYTES_MAX) {
        return -EINVAL;
    }
    bool only_namespace = colon == query + query_bytes - 1;
    for (uint32_t i = 0; i < ARRAY_SIZE(contexts); i++) {
        size_t name_bytes = strlen(contexts[i].name);
        bool begins = query_bytes <= name_bytes &&
                      memcmp(contexts[i].name, query, query_bytes) == 0;
        if (begins && (query_bytes == name_bytes || (only_namespace && wildcards))) {
            matched |= 1u << i;
        }
    }
    *ret_contexts = matched;
    return 0;
}

int
nbd_metacontext_parse_queries(const uint8_t *data, size_t data_bytes, bool wildcards,
                              uint32_t *ret_contexts)
{
    uint32_t selected = 0;

    if (data_bytes < 4) {
        return -EINVAL;
    }
    uint32_t count = get_be32(data);
    size_t at = 4;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t matched;
        if (data_bytes - at < 4) {
            return -EINVAL;
        }
        uint32_t query_bytes = get_be32(data + at);
        at += 4;
        if (query_bytes > data_bytes - at) {
            return -EINVAL;
        }
        int rc = nbd_metacontext_match(data + at, query_bytes, wildcards, &matched);
        if (rc < 0) {
            return rc;
        }
        selected |= matched;
        at += query_bytes;
    }
    if (at != data_bytes) {
        return -EINVAL;
    }
    *ret_contexts = count == 0 && wildcards ? nbd_metacontext_all() : selected;
    return 0;
}

int
nbd_metacontext_parse_payload(const uint8_t *data, size_t data_bytes, uint32_t selected,
                              uint64_t *ret_length_bytes, uint32_t *ret_contexts)
{
    uint32_t asked = 0;

    if (data_bytes < 8 + 4 || data_bytes % 4 != 0) {
        return -EINVAL;
    }
    for (size_t at = 8; at < data_bytes; at += 4) {
        uint32_t id = get_be32(data + at);
        if (id == 0 || id > ARRAY_SIZE(contexts)) {
            return -EINVAL;
        }
        uint32_t bit = 1u << (id - 1);
        if ((selected & bit) == 0 || (asked & bit) != 0) {
            return -EINVAL;
        }
        asked |= bit;
    }
    *ret_length_bytes = get_be64(data);
    *ret_contexts = asked;
    return 0;
}
