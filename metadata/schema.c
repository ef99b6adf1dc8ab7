/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, names, the commit number, and the dispatch of the merge function by family. */
#include "metadata/schema.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "metadata/schema_impl.h"

uint32_t
schema_key(uint8_t *key, enum schema_record record)
{
    key[0] = (uint8_t)record;
    return 1;
}

uint32_t
schema_key_id(uint8_t *key, enum schema_record record, uint64_t id)
{
    key[0] = (uint8_t)record;
    put_be64(key + 1, id);
    return 9;
}

uint32_t
schema_key_disk(uint8_t *key, uint16_t index)
{
    key[0] = SCHEMA_DISK;
    put_be16(key + 1, index);
    return 3;
}

uint32_t
schema_key_snapshot(uint8_t *key, uint64_t branch, uint64_t generation)
{
    key[0] = SCHEMA_SNAPSHOT;
    put_be64(key + 1, branch);
    put_be64(key + 9, generation);
    return 17;
}

int
schema_snapshot_key_decode(const uint8_t *key, size_t key_bytes, uint64_t *ret_branch,
                           uint64_t *ret_generation)
{
    if (key_bytes != 17 || key[0] != SCHEMA_SNAPSHOT || get_be64(key + 9) > UINT32_MAX) {
        return -EUCLEAN;
    }
    *ret_branch = get_be64(key + 1);
    *ret_generation = get_be64(key + 9);
    return 0;
}

void
schema_put_commit(struct byte_buffer *batch, uint64_t commit)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint8_t value[sizeof(commit)];
    put_le64(value, commit);
    store_batch_put(batch, STORE_FAMILY_SYSTEM, key, schema_key(key, SCHEMA_COMMIT), value,
                    sizeof(value));
}

int
schema_get_commit(const void *value, size_t value_bytes, uint64_t *ret_commit)
{
    if (value_bytes != sizeof(*ret_commit)) {
        return -EUCLEAN;
    }
    *ret_commit = get_le64(value);
    return 0;
}

void
schema_put_extent(struct byte_buffer *batch, uint64_t extent, const struct extent_record *record,
                  uint32_t grains_per_extent)
{
    ASSERT(extent != 0);
    uint8_t key[EXTENT_KEY_BYTES];
    extent_key_encode(key, extent);
    struct byte_buffer value = BYTE_BUFFER_INIT;
    extent_record_encode(record, grains_per_extent, &value);
    store_batch_put(batch, STORE_FAMILY_EXTENT, key, sizeof(key), value.data, value.length_bytes);
    byte_buffer_free(&value);
}

void
schema_delete_id(struct byte_buffer *batch, enum schema_record record, uint64_t id)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    store_batch_delete(batch, STORE_FAMILY_SYSTEM, key, schema_key_id(key, record, id));
}

int
schema_merge(enum store_family family, const uint8_t *key, size_t key_bytes,
             struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes)
{
    switch (family) {
    case STORE_FAMILY_MAP:
        return schema_merge_map(value, operand, operand_bytes);
    case STORE_FAMILY_EXTENT:
        return schema_merge_extent(value, operand, operand_bytes);
    case STORE_FAMILY_HISTORY:
        return schema_merge_history(key, key_bytes, value, operand, operand_bytes);
    case STORE_FAMILY_SYSTEM:
    case STORE_FAMILY_COUNT:
        break;
    }
    return -EUCLEAN; /* records of SYSTEM are only ever written whole */
}

bool
schema_name_is_valid(const char *name)
{
    size_t length = strnlen(name, NAME_BYTES_MAX + 1);
    if (length == 0 || length > NAME_BYTES_MAX || name[0] == '-' || name[0] == '.') {
        return false;
    }
    for (size_t n = 0; n < length; n++) {
        char c = name[n];
        bool allowed = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
            || c == '.' || c == '_' || c == '-';
        if (!allowed) {
            return false;
        }
    }
    return true;
}
