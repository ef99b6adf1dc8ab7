/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the schema_*.c files only. */
#ifndef METADATA_SCHEMA_IMPL_H
#define METADATA_SCHEMA_IMPL_H

#include "metadata/schema.h"

/* schema_merge() for one family. 0 or -EUCLEAN; after a failure `value` is undefined. */
int schema_merge_map(struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes);
int schema_merge_extent(struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes);
int schema_merge_history(const uint8_t *key, size_t key_bytes, struct byte_buffer *value,
                         const uint8_t *operand, size_t operand_bytes);

#endif
