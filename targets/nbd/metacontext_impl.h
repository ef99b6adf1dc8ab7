/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata contexts ("Metadata querying" of the protocol): what BLOCK_STATUS can tell. A context is
 * a row of a const table; a selection of contexts is a mask of row numbers, and the id that a
 * client sees is the row number plus one.
 */
#ifndef TARGETS_NBD_METACONTEXT_IMPL_H
#define TARGETS_NBD_METACONTEXT_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "volmgr/request.h"

enum {
    NBD_METACONTEXT_MAX = 4, /* rows; each selected one takes its share of the answer's memory */
};

struct nbd_metacontext {
    const char *name;                /* "namespace:leaf" */
    enum volume_operation operation; /* what is asked of the volume */
    uint32_t (*flags)(const struct volume_status_extent *extent);
};

uint32_t nbd_metacontext_count(void);
const struct nbd_metacontext *nbd_metacontext(uint32_t index);

/*
 * Contexts that one query of LIST_META_CONTEXT (`wildcards`) or SET_META_CONTEXT matches. A query
 * without a namespace is -EINVAL; one that matches nothing gives an empty mask.
 */
int nbd_metacontext_match(const uint8_t *query, size_t query_bytes, bool wildcards,
                          uint32_t *ret_contexts);
uint32_t nbd_metacontext_all(void);

/*
 * Parse {be32 count, count times {be32 length, query}} of both options. An empty list means all for
 * `wildcards`, none otherwise. 0 or -EINVAL.
 */
int nbd_metacontext_parse_queries(const uint8_t *data, size_t data_bytes, bool wildcards,
                                  uint32_t *ret_contexts);

/*
 * Parse the payload of BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: {be64 length, be32 ids}. -EINVAL
 * for ids that were not selected or come twice, and for a payload of a wrong size.
 */
int nbd_metacontext_parse_payload(const uint8_t *data, size_t data_bytes, uint32_t selected,
                                  uint64_t *ret_length_bytes, uint32_t *ret_contexts);

#endif
