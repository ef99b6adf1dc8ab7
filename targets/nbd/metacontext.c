/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/metacontext_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "targets/nbd/protocol.h"

#define BASE_NAMESPACE "base:"

/* A context is `prefix` and the name of a snapshot. */
static const struct since_form {
    const char *namespace;
    const char *prefix;
} forms[NBD_SINCE_FORM_COUNT] = {
    [NBD_SINCE_QEMU] = { "qemu:", "qemu:dirty-bitmap:" },
    [NBD_SINCE_OWN] = { "volmgr:", "volmgr:since:" },
};

uint32_t
nbd_metacontext_flags(uint32_t row, const struct volume_status_extent *extent)
{
    ASSERT_OP(row, <, (uint32_t)NBD_METACONTEXT_MAX);
    if (row == NBD_METACONTEXT_ALLOCATION) {
        return (extent->hole ? NBD_STATE_HOLE : 0u) | (extent->zero ? NBD_STATE_ZERO : 0u);
    }
    return extent->changed ? NBD_STATE_DIRTY : 0u;
}

void
nbd_since_name(enum nbd_since_form form, const char *since,
               char text[static NBD_METACONTEXT_NAME_SIZE])
{
    ASSERT_OP(strlen(since), <, (size_t)CHANGES_SINCE_SIZE);
    snprintf(text, NBD_METACONTEXT_NAME_SIZE, "%s%s", forms[form].prefix, since);
}

/* ---- queries ---- */

static bool
query_is(const uint8_t *query, size_t query_bytes, const char *text)
{
    return query_bytes == strlen(text) && memcmp(query, text, query_bytes) == 0;
}

/* Ask for one snapshot more. -E2BIG: there are too many. */
static int
add_named(struct nbd_queries *queries, enum nbd_since_form form, const uint8_t *name,
          size_t name_bytes)
{
    struct nbd_since since = { .form = form };

    if (name_bytes >= sizeof(since.since) || memchr(name, '\0', name_bytes) != NULL) {
        return 0; /* no snapshot is called like that */
    }
    memcpy(since.since, name, name_bytes);
    for (uint32_t i = 0; i < queries->count; i++) {
        if (queries->named[i].form == form &&
            strcmp(queries->named[i].since, since.since) == 0) {
            return 0;
        }
    }
    if (queries->count == NBD_SINCE_MAX) {
        return -E2BIG;
    }
    queries->named[queries->count++] = since;
    return 0;
}

static int
add_query(struct nbd_queries *queries, const uint8_t *query, size_t query_bytes, bool wildcards)
{
    const uint8_t *colon = query_bytes == 0 ? NULL : memchr(query, ':', query_bytes);

    if (colon == NULL || colon == query || query_bytes > NBD_STRING_BYTES_MAX) {
        return -EINVAL;
    }
    if (query_is(query, query_bytes, NBD_BASE_ALLOCATION) ||
        (wildcards && query_is(query, query_bytes, BASE_NAMESPACE))) {
        queries->allocation = true;
        return 0;
    }
    for (uint32_t form = 0; form < NBD_SINCE_FORM_COUNT; form++) {
        size_t prefix_bytes = strlen(forms[form].prefix);
        if (query_is(query, query_bytes, forms[form].namespace) ||
            query_is(query, query_bytes, forms[form].prefix)) {
            queries->every[form] |= wildcards; /* an empty leaf selects nothing */
        } else if (query_bytes > prefix_bytes &&
                   memcmp(query, forms[form].prefix, prefix_bytes) == 0) {
            return add_named(queries, form, query + prefix_bytes, query_bytes - prefix_bytes);
        }
    }
    return 0;
}

int
nbd_queries_parse(const uint8_t *data, size_t data_bytes, bool wildcards,
                  struct nbd_queries *ret_queries)
{
    bool too_many = false;

    memset(ret_queries, 0, sizeof(*ret_queries));
    if (data_bytes < 4) {
        return -EINVAL;
    }
    uint32_t count = get_be32(data);
    size_t at = 4;
    for (uint32_t i = 0; i < count; i++) {
        if (data_bytes - at < 4) {
            return -EINVAL;
        }
        uint32_t query_bytes = get_be32(data + at);
        at += 4;
        if (query_bytes > data_bytes - at) {
            return -EINVAL;
        }
        int rc = add_query(ret_queries, data + at, query_bytes, wildcards);
        if (rc < 0 && rc != -E2BIG) {
            return rc;
        }
        too_many |= rc == -E2BIG;
        at += query_bytes;
    }
    if (at != data_bytes) {
        return -EINVAL;
    }
    if (count == 0 && wildcards) {
        ret_queries->allocation = true;
        ret_queries->every[NBD_SINCE_QEMU] = true;
        ret_queries->every[NBD_SINCE_OWN] = true;
    }
    return too_many ? -E2BIG : 0;
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
        if (id == 0 || id > NBD_METACONTEXT_MAX) {
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
