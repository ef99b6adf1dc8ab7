/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The database as text: one JSON object per line and record, in order of families and keys. For
 * people, bug reports and scripts; docs/FORMAT.md says what the fields mean. What does not decode
 * comes as {"type":"damaged"} with key and value in hexadecimal.
 */
#ifndef METADATA_DUMP_H
#define METADATA_DUMP_H

#include "metadata/store.h"

struct metadata_dump;
/* One line, without newline, NUL-terminated. On the reactor; copies what it needs. */
typedef void dump_line_fn(struct metadata_dump *dump, const char *line, size_t length_bytes);

/* Asynchronous; on a reactor. */
struct metadata_dump {
    struct io_op op; /* 0; -ENOMEM; or the first error of the store: then records are missing */
    struct store *store;
    const struct store_snapshot *snapshot; /* NULL only when the store does not change */
    dump_line_fn *line;
    uint64_t ret_lines;
    uint64_t ret_damaged; /* of them */
    void *driver;
};
void metadata_dump(struct metadata_dump *dump);

#endif
