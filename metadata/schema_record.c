/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the SYSTEM family: tables of fields, and one encoder and one decoder for all of them.
 *
 * A value is a sequence of {le16 tag, le16 length, bytes}. Numbers are little-endian and have the
 * width of their member; texts have no NUL. Every field of the table must be there exactly once,
 * except those that are marked optional: later versions add their fields so, and a missing one
 * stands for zero. Tags are never used again for another meaning (docs/FORMAT.md lists them).
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/schema.h"

enum field_kind {
    FIELD_NUMBER,
    FIELD_BOOLEAN,
    FIELD_BYTES,
    FIELD_TEXT, /* printable; may be empty; the member has room for a NUL */
};

struct record_field {
    uint16_t tag;
    uint8_t kind;
    bool optional;
    uint16_t offset;
    uint16_t size_bytes;
};

typedef bool record_check_fn(const void *record);

struct record_type {
    const struct record_field *fields;
    uint32_t field_count;
    record_check_fn *check; /* what the fields must be among each other */
    size_t record_bytes;
};

enum {
    FIELDS_MAX = 32,
    FIELD_HEADER_BYTES = 4,
    TAG_MUST_BE_KNOWN = 0x8000,
};

#define FIELD(type, tag_, kind_, member)                                                           \
    {                                                                                              \
        .tag = (tag_), .kind = FIELD_##kind_, .offset = offsetof(struct type, member),             \
        .size_bytes = sizeof(((struct type *)0)->member)                                           \
    }
#define FIELD_OPTIONAL(type, tag_, kind_, member)                                                  \
    {                                                                                              \
        .tag = (tag_), .kind = FIELD_##kind_, .optional = true,                                    \
        .offset = offsetof(struct type, member),                                                   \
        .size_bytes = sizeof(((struct type *)0)->member)                                           \
    }
#define RECORD_TYPE(type, fields_, check_)                                                         \
    {                                                                                              \
        .fields = (fields_), .field_count = ARRAY_SIZE(fields_), .check = (check_),                \
        .record_bytes = sizeof(struct type)                                                        \
    }

/* ---- the tables ---- */

static const struct record_field pool_fields[] = {
    FIELD(pool_record, 1, NUMBER, schema_version),
    FIELD(pool_record, 2, BYTES, pool_guid),
    FIELD(pool_record, 3, BYTES, database_guid),
    FIELD(pool_record, 4, TEXT, name),
    FIELD(pool_record, 5, NUMBER, extent_bytes),
    FIELD(pool_record, 6, NUMBER, incarnation),
    FIELD(pool_record, 7, NUMBER, next_branch),
    FIELD(pool_record, 8, NUMBER, next_volume),
    FIELD(pool_record, 9, NUMBER, next_extent),
    FIELD(pool_record, 10, NUMBER, next_export),
    FIELD(pool_record, 11, NUMBER, created_realtime_ns),
    FIELD(pool_record, 12, NUMBER, warning_percent),
    FIELD(pool_record, 13, NUMBER, critical_percent),
    FIELD_OPTIONAL(pool_record, 14, NUMBER, last_snapshot),
};

static const struct record_field disk_fields[] = {
    FIELD(disk_record, 1, NUMBER, index),
    FIELD(disk_record, 2, NUMBER, state),
    FIELD(disk_record, 3, NUMBER, tier),
    FIELD(disk_record, 4, BYTES, guid),
    FIELD(disk_record, 5, TEXT, spec),
    FIELD(disk_record, 6, NUMBER, size_bytes),
    FIELD(disk_record, 7, NUMBER, data_start_bytes),
    FIELD(disk_record, 8, NUMBER, slot_count),
    FIELD(disk_record, 9, NUMBER, ledger_start_bytes),
    FIELD(disk_record, 10, NUMBER, ledger_length_bytes),
};

static const struct record_field volume_fields[] = {
    FIELD(volume_record, 1, NUMBER, id),
    FIELD(volume_record, 2, NUMBER, branch),
    FIELD(volume_record, 3, BYTES, guid),
    FIELD(volume_record, 4, TEXT, name),
    FIELD(volume_record, 5, NUMBER, size_bytes),
    FIELD(volume_record, 6, NUMBER, reserve_bytes),
    FIELD(volume_record, 7, NUMBER, sector_bytes),
    FIELD(volume_record, 8, NUMBER, copies),
    FIELD(volume_record, 9, NUMBER, tier),
    FIELD(volume_record, 10, BOOLEAN, deleting),
    FIELD(volume_record, 11, NUMBER, created_realtime_ns),
    FIELD(volume_record, 12, BOOLEAN, fenced),
    FIELD_OPTIONAL(volume_record, 13, NUMBER, kind),
    FIELD_OPTIONAL(volume_record, 14, TEXT, overlay_key),
};

static const struct record_field branch_fields[] = {
    FIELD(branch_record, 1, NUMBER, id),
    FIELD(branch_record, 2, NUMBER, family),
    FIELD(branch_record, 3, NUMBER, parent),
    FIELD(branch_record, 4, NUMBER, fork_generation),
    FIELD(branch_record, 5, NUMBER, current_generation),
    FIELD_OPTIONAL(branch_record, 6, NUMBER, flags),
    FIELD_OPTIONAL(branch_record, 7, NUMBER, volume),
    FIELD_OPTIONAL(branch_record, 8, NUMBER, unclean_generation),
};

static const struct record_field position_fields[] = {
    FIELD(branch_position, 1, NUMBER, batch),
    FIELD(branch_position, 2, NUMBER, mapped_grains),
};

static const struct record_field export_fields[] = {
    FIELD(export_record, 1, NUMBER, id),
    FIELD(export_record, 2, NUMBER, volume),
    FIELD(export_record, 3, TEXT, name),
    FIELD(export_record, 4, TEXT, protocol),
    FIELD(export_record, 5, BOOLEAN, read_only),
    FIELD(export_record, 6, BOOLEAN, exclusive),
    FIELD(export_record, 7, TEXT, options),
    FIELD_OPTIONAL(export_record, 8, NUMBER, snapshot),
};

static const struct record_field run_fields[] = {
    FIELD(run_record, 1, NUMBER, state),
    FIELD(run_record, 2, TEXT, boot_id),
    FIELD(run_record, 3, NUMBER, incarnation),
    FIELD(run_record, 4, BYTES, ring_guid),
    FIELD(run_record, 5, NUMBER, ring_count),
    FIELD(run_record, 6, NUMBER, ring_bytes),
};

static const struct record_field checkpoint_fields[] = {
    FIELD(checkpoint_record, 1, NUMBER, commit),
    FIELD(checkpoint_record, 2, NUMBER, length_bytes),
    FIELD(checkpoint_record, 3, NUMBER, extent_count),
    FIELD(checkpoint_record, 4, NUMBER, first_extent),
};

static const struct record_field snapshot_fields[] = {
    FIELD(snapshot_record, 1, NUMBER, id),
    FIELD(snapshot_record, 2, NUMBER, volume),
    FIELD(snapshot_record, 3, BYTES, guid),
    FIELD(snapshot_record, 4, TEXT, name),
    FIELD(snapshot_record, 5, NUMBER, state),
    FIELD(snapshot_record, 6, NUMBER, size_bytes),
    FIELD(snapshot_record, 7, NUMBER, mapped_grains),
    FIELD(snapshot_record, 8, NUMBER, created_realtime_ns),
    FIELD(snapshot_record, 9, NUMBER, expires_ns),
    FIELD(snapshot_record, 10, NUMBER, rules),
    FIELD(snapshot_record, 11, BYTES, group_guid),
};

#define POLICY_RULE(n)                                                                             \
    FIELD(policy_record, 3 * (n) + 1, NUMBER, rules[n].every_ns),                                  \
        FIELD(policy_record, 3 * (n) + 2, NUMBER, rules[n].keep),                                  \
        FIELD(policy_record, 3 * (n) + 3, NUMBER, rules[n].immutable_ns)

static const struct record_field policy_fields[] = {
    POLICY_RULE(0), POLICY_RULE(1), POLICY_RULE(2), POLICY_RULE(3),
    POLICY_RULE(4), POLICY_RULE(5), POLICY_RULE(6), POLICY_RULE(7),
};
_Static_assert(POLICY_RULES_MAX == 8, "one line for each rule");

/* ---- what must hold among the fields ---- */

static bool
pool_check(const void *record)
{
    const struct pool_record *pool = record;
    return pool->schema_version == SCHEMA_VERSION && schema_name_is_valid(pool->name)
        && is_power_of_two(pool->extent_bytes) && pool->extent_bytes >= EXTENT_BYTES_MIN
        && pool->extent_bytes <= EXTENT_BYTES_MAX && pool->warning_percent <= 100
        && pool->critical_percent <= 100;
}

static bool
range_is_within(uint64_t start, uint64_t length, uint64_t size)
{
    return start <= size && length <= size - start;
}

static bool
disk_check(const void *record)
{
    const struct disk_record *disk = record;
    return disk->index < POOL_DISKS_MAX && disk->state >= DISK_STATE_ACTIVE
        && disk->state <= DISK_STATE_FAILED && disk->spec[0] != '\0'
        && disk->data_start_bytes <= disk->size_bytes
        && range_is_within(disk->ledger_start_bytes, disk->ledger_length_bytes, disk->size_bytes)
        && disk->slot_count <= (disk->size_bytes - disk->data_start_bytes) / EXTENT_BYTES_MIN;
}

static bool
volume_check(const void *record)
{
    const struct volume_record *volume = record;
    return schema_name_is_valid(volume->name)
        && (volume->sector_bytes == 512 || volume->sector_bytes == 4096)
        && volume->size_bytes % volume->sector_bytes == 0 && volume->size_bytes <= INT64_MAX
        && volume->copies >= 1 && volume->copies <= EXTENT_COPIES_MAX
        && volume->kind <= VOLUME_KIND_PRIVATE
        && (volume->overlay_key[0] != '\0') == (volume->kind == VOLUME_KIND_PRIVATE);
}

static bool
branch_check(const void *record)
{
    const struct branch_record *branch = record;
    /* Generations of a branch start above its fork: what is not above is the parent's. */
    return branch->id != 0 && branch->parent != branch->id
        && (branch->flags & ~BRANCH_FLAGS) == 0
        && branch->unclean_generation <= branch->current_generation
        && (branch->parent == 0 ? (branch->flags & BRANCH_CONTINUES) == 0
                                : branch->current_generation > branch->fork_generation
                   && branch->current_generation - branch->fork_generation >= 2);
}

static bool
snapshot_check(const void *record)
{
    const struct snapshot_record *snapshot = record;
    bool has_name =
        snapshot->state == SNAPSHOT_PENDING || snapshot->state == SNAPSHOT_KEPT;
    return snapshot->id != 0 && snapshot->state >= SNAPSHOT_PENDING
        && snapshot->state <= SNAPSHOT_DELETING && snapshot->size_bytes <= INT64_MAX
        && (has_name ? schema_name_is_valid(snapshot->name) : snapshot->name[0] == '\0');
}

static bool
policy_check(const void *record)
{
    const struct policy_record *policy = record;
    for (uint32_t n = 0; n < POLICY_RULES_MAX; n++) {
        const struct policy_rule *rule = &policy->rules[n];
        if (rule->every_ns == 0 ? rule->keep != 0 || rule->immutable_ns != 0 : rule->keep == 0) {
            return false;
        }
    }
    return true;
}

static bool
export_check(const void *record)
{
    const struct export_record *export = record;
    return export->name[0] != '\0' && export->protocol[0] != '\0' &&
           (export->snapshot == 0 || export->read_only);
}

static bool
run_check(const void *record)
{
    const struct run_record *run = record;
    return (run->state == RUN_STATE_CLEAN || run->state == RUN_STATE_OPEN) &&
           run->ring_count <= RUN_RINGS_MAX &&
           (run->ring_count == 0 || (run->ring_bytes >= RUN_RING_BYTES_MIN &&
                                     run->ring_bytes <= RUN_RING_BYTES_MAX));
}

static bool
no_check(const void *record)
{
    return record != NULL;
}

static const struct record_type pool_type = RECORD_TYPE(pool_record, pool_fields, pool_check);
static const struct record_type disk_type = RECORD_TYPE(disk_record, disk_fields, disk_check);
static const struct record_type volume_type =
    RECORD_TYPE(volume_record, volume_fields, volume_check);
static const struct record_type branch_type =
    RECORD_TYPE(branch_record, branch_fields, branch_check);
static const struct record_type position_type =
    RECORD_TYPE(branch_position, position_fields, no_check);
static const struct record_type snapshot_type =
    RECORD_TYPE(snapshot_record, snapshot_fields, snapshot_check);
static const struct record_type policy_type =
    RECORD_TYPE(policy_record, policy_fields, policy_check);
static const struct record_type export_type =
    RECORD_TYPE(export_record, export_fields, export_check);
static const struct record_type run_type = RECORD_TYPE(run_record, run_fields, run_check);
static const struct record_type checkpoint_type =
    RECORD_TYPE(checkpoint_record, checkpoint_fields, no_check);

/* ---- encoder ---- */

static bool
text_is_printable(const char *text, size_t length)
{
    for (size_t n = 0; n < length; n++) {
        unsigned char c = (unsigned char)text[n];
        if (c < 0x20 || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static void
number_encode(struct byte_buffer *to, const void *member, size_t size_bytes)
{
    uint64_t value = 0;
    _Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "the low bytes of `value` are its first ones");
    memcpy(&value, member, size_bytes);
    uint8_t bytes[8];
    put_le64(bytes, value);
    byte_buffer_append(to, bytes, size_bytes);
}

static void
field_encode(const struct record_field *field, const void *record, struct byte_buffer *to)
{
    const char *member = (const char *)record + field->offset;
    size_t length = field->size_bytes;
    if (field->kind == FIELD_TEXT) {
        length = strnlen(member, field->size_bytes);
        ASSERT_OP(length, <, (size_t)field->size_bytes);
        ASSERT(text_is_printable(member, length));
    }
    byte_buffer_append_le16(to, field->tag);
    byte_buffer_append_le16(to, (uint16_t)length);
    if (field->kind == FIELD_NUMBER) {
        number_encode(to, member, length);
    } else {
        byte_buffer_append(to, member, length);
    }
}

static void
record_put(struct byte_buffer *batch, const uint8_t *key, uint32_t key_bytes,
           const struct record_type *type, const void *record)
{
    ASSERT(type->check(record));
    ASSERT_OP(type->field_count, <=, (uint32_t)FIELDS_MAX);
    struct byte_buffer value = BYTE_BUFFER_INIT;
    for (uint32_t n = 0; n < type->field_count; n++) {
        field_encode(&type->fields[n], record, &value);
    }
    store_batch_put(batch, STORE_FAMILY_SYSTEM, key, key_bytes, value.data, value.length_bytes);
    byte_buffer_free(&value);
}

/* ---- decoder ---- */

static int
field_decode(const struct record_field *field, const uint8_t *from, size_t length, void *record)
{
    uint8_t *member = (uint8_t *)record + field->offset;
    switch ((enum field_kind)field->kind) {
    case FIELD_NUMBER:
    case FIELD_BYTES:
        if (length != field->size_bytes) {
            return -EUCLEAN;
        }
        break;
    case FIELD_BOOLEAN:
        if (length != 1 || from[0] > 1) {
            return -EUCLEAN;
        }
        *(bool *)member = from[0] == 1;
        return 0;
    case FIELD_TEXT:
        if (length >= field->size_bytes || !text_is_printable((const char *)from, length)) {
            return -EUCLEAN;
        }
        break;
    }
    memcpy(member, from, length); /* little-endian, as this machine is: see number_encode() */
    return 0;
}

static const struct record_field *
field_find(const struct record_type *type, uint16_t tag, uint32_t *ret_number)
{
    for (uint32_t n = 0; n < type->field_count; n++) {
        if (type->fields[n].tag == tag) {
            *ret_number = n;
            return &type->fields[n];
        }
    }
    return NULL;
}

/* `record` is zeroed by the caller. */
static int
fields_decode(const struct record_type *type, const uint8_t *from, size_t left, void *record)
{
    uint32_t seen = 0;
    while (left > 0) {
        if (left < FIELD_HEADER_BYTES) {
            return -EUCLEAN;
        }
        uint16_t tag = get_le16(from);
        size_t length = get_le16(from + 2);
        from += FIELD_HEADER_BYTES;
        left -= FIELD_HEADER_BYTES;
        if (length > left) {
            return -EUCLEAN;
        }
        uint32_t number;
        const struct record_field *field = field_find(type, tag, &number);
        if (field == NULL) {
            if ((tag & TAG_MUST_BE_KNOWN) != 0) {
                return -EUCLEAN;
            }
        } else {
            if ((seen & 1u << number) != 0 || field_decode(field, from, length, record) != 0) {
                return -EUCLEAN;
            }
            seen |= 1u << number;
        }
        from += length;
        left -= length;
    }
    for (uint32_t n = 0; n < type->field_count; n++) {
        if ((seen & 1u << n) == 0 && !type->fields[n].optional) {
            return -EUCLEAN;
        }
    }
    return 0;
}

static int
record_get(const void *value, size_t value_bytes, const struct record_type *type, void *ret_record)
{
    /* The largest record; decoded aside, so that `ret_record` is untouched on failure. */
    union {
        struct pool_record pool;
        struct disk_record disk;
        struct volume_record volume;
        struct branch_record branch;
        struct branch_position position;
        struct export_record export;
        struct run_record run;
        struct checkpoint_record checkpoint;
        struct snapshot_record snapshot;
        struct policy_record policy;
    } decoded;
    ASSERT_OP(type->record_bytes, <=, sizeof(decoded));
    memset(&decoded, 0, sizeof(decoded));
    if (fields_decode(type, value, value_bytes, &decoded) != 0 || !type->check(&decoded)) {
        return -EUCLEAN;
    }
    memcpy(ret_record, &decoded, type->record_bytes);
    return 0;
}

/* ---- one pair for each record ---- */

void
schema_put_pool(struct byte_buffer *batch, const struct pool_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key(key, SCHEMA_POOL), &pool_type, record);
}

int
schema_get_pool(const void *value, size_t value_bytes, struct pool_record *ret_record)
{
    return record_get(value, value_bytes, &pool_type, ret_record);
}

void
schema_put_disk(struct byte_buffer *batch, const struct disk_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key_disk(key, record->index), &disk_type, record);
}

int
schema_get_disk(const void *value, size_t value_bytes, struct disk_record *ret_record)
{
    return record_get(value, value_bytes, &disk_type, ret_record);
}

void
schema_put_volume(struct byte_buffer *batch, const struct volume_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key_id(key, SCHEMA_VOLUME, record->id), &volume_type, record);
}

int
schema_get_volume(const void *value, size_t value_bytes, struct volume_record *ret_record)
{
    return record_get(value, value_bytes, &volume_type, ret_record);
}

void
schema_put_branch(struct byte_buffer *batch, const struct branch_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key_id(key, SCHEMA_BRANCH, record->id), &branch_type, record);
}

int
schema_get_branch(const void *value, size_t value_bytes, struct branch_record *ret_record)
{
    return record_get(value, value_bytes, &branch_type, ret_record);
}

void
schema_put_position(struct byte_buffer *batch, uint64_t branch,
                    const struct branch_position *position)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key_id(key, SCHEMA_POSITION, branch), &position_type, position);
}

int
schema_get_position(const void *value, size_t value_bytes, struct branch_position *ret_position)
{
    return record_get(value, value_bytes, &position_type, ret_position);
}

void
schema_put_export(struct byte_buffer *batch, const struct export_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key_id(key, SCHEMA_EXPORT, record->id), &export_type, record);
}

int
schema_get_export(const void *value, size_t value_bytes, struct export_record *ret_record)
{
    return record_get(value, value_bytes, &export_type, ret_record);
}

void
schema_put_run(struct byte_buffer *batch, const struct run_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key(key, SCHEMA_RUN), &run_type, record);
}

int
schema_get_run(const void *value, size_t value_bytes, struct run_record *ret_record)
{
    return record_get(value, value_bytes, &run_type, ret_record);
}

void
schema_put_checkpoint(struct byte_buffer *batch, uint8_t slot,
                      const struct checkpoint_record *record)
{
    uint8_t key[2] = { SCHEMA_CHECKPOINT, slot };
    record_put(batch, key, sizeof(key), &checkpoint_type, record);
}

int
schema_get_checkpoint(const void *value, size_t value_bytes, struct checkpoint_record *ret_record)
{
    return record_get(value, value_bytes, &checkpoint_type, ret_record);
}

void
schema_put_snapshot(struct byte_buffer *batch, uint64_t branch, uint64_t generation,
                    const struct snapshot_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    ASSERT_OP(generation, <=, (uint64_t)UINT32_MAX);
    record_put(batch, key, schema_key_snapshot(key, branch, generation), &snapshot_type, record);
}

int
schema_get_snapshot(const void *value, size_t value_bytes, struct snapshot_record *ret_record)
{
    return record_get(value, value_bytes, &snapshot_type, ret_record);
}

void
schema_put_policy(struct byte_buffer *batch, uint64_t volume, const struct policy_record *record)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    record_put(batch, key, schema_key_id(key, SCHEMA_POLICY, volume), &policy_type, record);
}

int
schema_get_policy(const void *value, size_t value_bytes, struct policy_record *ret_record)
{
    return record_get(value, value_bytes, &policy_type, ret_record);
}
