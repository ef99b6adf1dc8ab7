/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata contexts ("Metadata querying" of the protocol): what BLOCK_STATUS can tell.
 *
 *   base:allocation          holes and zeroes
 *   qemu:dirty-bitmap:SNAP   bit 0: changed since this snapshot (QEMU's docs/interop/nbd.txt)
 *   volmgr:since:SNAP        the same by a name of our own
 *
 * SNAP is the name of a snapshot of the exported volume, or VOLUME@SNAPSHOT of one that it is a
 * clone of. A selection is a mask of rows: row 0 is base:allocation, the others are the snapshots
 * that were selected; the id that a client sees is the row plus one.
 */
#ifndef TARGETS_NBD_METACONTEXT_IMPL_H
#define TARGETS_NBD_METACONTEXT_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "volmgr/changes.h"
#include "volmgr/request.h"

enum {
    NBD_METACONTEXT_MAX = 8, /* rows; each selected one takes its share of the answer's memory */
    NBD_METACONTEXT_ALLOCATION = 0, /* its row */
    NBD_SINCE_MAX = NBD_METACONTEXT_MAX - 1,
    NBD_METACONTEXT_NAME_SIZE = 32 + CHANGES_SINCE_SIZE,
};

#define NBD_BASE_ALLOCATION "base:allocation"

/* Ways to name what has changed since a snapshot. */
enum nbd_since_form {
    NBD_SINCE_QEMU,
    NBD_SINCE_OWN,
    NBD_SINCE_FORM_COUNT
};

struct nbd_since {
    enum nbd_since_form form;
    char since[CHANGES_SINCE_SIZE];
};

/* What the queries of one option ask for. */
struct nbd_queries {
    bool allocation;
    bool every[NBD_SINCE_FORM_COUNT]; /* all snapshots (LIST_META_CONTEXT) */
    uint32_t count;
    struct nbd_since named[NBD_SINCE_MAX]; /* not twice the same */
};

/*
 * Parse {be32 count, count times {be32 length, query}} of LIST_META_CONTEXT (`wildcards`) and
 * SET_META_CONTEXT. Queries of other namespaces, and names that cannot be, are ignored; one without
 * a namespace is -EINVAL, as is a list whose lengths do not fit; more snapshots than can be
 * selected are -E2BIG. An empty list means all for `wildcards`, none otherwise.
 */
int nbd_queries_parse(const uint8_t *data, size_t data_bytes, bool wildcards,
                      struct nbd_queries *ret_queries);

/* The name of a context, with `since` "": of all of its form. */
void nbd_since_name(enum nbd_since_form form, const char *since,
                    char text[static NBD_METACONTEXT_NAME_SIZE]);

/* The flags of a descriptor. */
uint32_t nbd_metacontext_flags(uint32_t row, const struct volume_status_extent *extent);

/*
 * Parse the payload of BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: {be64 length, be32 ids}. -EINVAL
 * for ids that were not selected or come twice, and for a payload of a wrong size.
 */
int nbd_metacontext_parse_payload(const uint8_t *data, size_t data_bytes, uint32_t selected,
                                  uint64_t *ret_length_bytes, uint32_t *ret_contexts);

#endif
