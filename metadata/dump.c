/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/dump.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/record_walk_impl.h"
#include "metadata/schema.h"

struct dump_state {
    struct metadata_dump *dump;
    struct record_walk walk;
    struct byte_buffer line;
    uint32_t grains_per_extent; /* 0: the pool's record has not been seen */
    int32_t result;
    struct map_entry entries[MAP_PAGE_ENTRIES];
};

/* ---- JSON ---- */

static void
put_text(struct byte_buffer *line, const char *text)
{
    byte_buffer_append(line, text, strlen(text));
}

static void
put_name(struct byte_buffer *line, const char *name)
{
    if (line->length_bytes > 1) {
        put_text(line, ",");
    }
    byte_buffer_append_format(line, "\"%s\":", name);
}

static void
put_number(struct byte_buffer *line, const char *name, uint64_t number)
{
    put_name(line, name);
    byte_buffer_append_format(line, "%" PRIu64, number);
}

static void
put_boolean(struct byte_buffer *line, const char *name, bool value)
{
    put_name(line, name);
    put_text(line, value ? "true" : "false");
}

static void
put_string(struct byte_buffer *line, const char *name, const char *text, size_t length)
{
    put_name(line, name);
    put_text(line, "\"");
    for (size_t n = 0; n < length; n++) {
        unsigned char c = (unsigned char)text[n];
        if (c == '"' || c == '\\') {
            byte_buffer_append_format(line, "\\%c", c);
        } else if (c < 0x20 || c >= 0x7f) {
            byte_buffer_append_format(line, "\\u%04x", c); /* bytes beyond ASCII, as Latin-1 */
        } else {
            byte_buffer_append_u8(line, c);
        }
    }
    put_text(line, "\"");
}

static void
put_hex(struct byte_buffer *line, const char *name, const void *bytes, size_t length)
{
    put_name(line, name);
    put_text(line, "\"");
    for (size_t n = 0; n < length; n++) {
        byte_buffer_append_format(line, "%02x", ((const uint8_t *)bytes)[n]);
    }
    put_text(line, "\"");
}

#define PUT_STRING(line, name, array) put_string(line, name, array, strnlen(array, sizeof(array)))

/* ---- SYSTEM records: false when it does not decode ---- */

typedef bool dump_fn(struct dump_state *state, const struct store_batch_item *item);

static bool
dump_pool(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct pool_record pool;
    if (schema_get_pool(item->value, item->value_bytes, &pool) != 0) {
        return false;
    }
    state->grains_per_extent = (uint32_t)(pool.extent_bytes / GRAIN_BYTES);
    PUT_STRING(line, "type", "pool");
    put_number(line, "schema_version", pool.schema_version);
    put_hex(line, "pool_guid", pool.pool_guid, GUID_BYTES);
    put_hex(line, "database_guid", pool.database_guid, GUID_BYTES);
    PUT_STRING(line, "name", pool.name);
    put_number(line, "extent_bytes", pool.extent_bytes);
    put_number(line, "incarnation", pool.incarnation);
    put_number(line, "next_branch", pool.next_branch);
    put_number(line, "next_volume", pool.next_volume);
    put_number(line, "next_extent", pool.next_extent);
    put_number(line, "next_export", pool.next_export);
    put_number(line, "created_realtime_ns", pool.created_realtime_ns);
    put_number(line, "warning_percent", pool.warning_percent);
    put_number(line, "critical_percent", pool.critical_percent);
    put_number(line, "last_snapshot", pool.last_snapshot);
    return true;
}

static bool
dump_commit(struct dump_state *state, const struct store_batch_item *item)
{
    uint64_t commit;
    if (schema_get_commit(item->value, item->value_bytes, &commit) != 0) {
        return false;
    }
    PUT_STRING(&state->line, "type", "commit");
    put_number(&state->line, "commit", commit);
    return true;
}

static bool
dump_disk(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct disk_record disk;
    if (schema_get_disk(item->value, item->value_bytes, &disk) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "disk");
    put_number(line, "index", disk.index);
    put_number(line, "state", disk.state);
    put_number(line, "tier", disk.tier);
    put_hex(line, "guid", disk.guid, GUID_BYTES);
    /* Not the spec: it may carry a password. */
    put_number(line, "size_bytes", disk.size_bytes);
    put_number(line, "data_start_bytes", disk.data_start_bytes);
    put_number(line, "slot_count", disk.slot_count);
    put_number(line, "ledger_start_bytes", disk.ledger_start_bytes);
    put_number(line, "ledger_length_bytes", disk.ledger_length_bytes);
    return true;
}

static bool
dump_volume(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct volume_record volume;
    if (schema_get_volume(item->value, item->value_bytes, &volume) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "volume");
    put_number(line, "id", volume.id);
    put_number(line, "branch", volume.branch);
    put_hex(line, "guid", volume.guid, GUID_BYTES);
    PUT_STRING(line, "name", volume.name);
    put_number(line, "size_bytes", volume.size_bytes);
    put_number(line, "reserve_bytes", volume.reserve_bytes);
    put_number(line, "sector_bytes", volume.sector_bytes);
    put_number(line, "copies", volume.copies);
    put_number(line, "tier", volume.tier);
    put_boolean(line, "deleting", volume.deleting);
    put_boolean(line, "fenced", volume.fenced);
    put_number(line, "created_realtime_ns", volume.created_realtime_ns);
    put_number(line, "kind", volume.kind);
    PUT_STRING(line, "overlay_key", volume.overlay_key);
    return true;
}

static bool
dump_branch(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct branch_record branch;
    if (schema_get_branch(item->value, item->value_bytes, &branch) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "branch");
    put_number(line, "id", branch.id);
    put_number(line, "family", branch.family);
    put_number(line, "parent", branch.parent);
    put_number(line, "fork_generation", branch.fork_generation);
    put_number(line, "current_generation", branch.current_generation);
    put_number(line, "volume", branch.volume);
    put_number(line, "unclean_generation", branch.unclean_generation);
    put_boolean(line, "headless", (branch.flags & BRANCH_HEADLESS) != 0);
    put_boolean(line, "complete", (branch.flags & BRANCH_COMPLETE) != 0);
    put_boolean(line, "continues", (branch.flags & BRANCH_CONTINUES) != 0);
    return true;
}

static bool
dump_position(struct dump_state *state, const struct store_batch_item *item)
{
    struct branch_position position;
    if (schema_get_position(item->value, item->value_bytes, &position) != 0
        || item->key_bytes != 9) {
        return false;
    }
    PUT_STRING(&state->line, "type", "position");
    put_number(&state->line, "branch", get_be64(item->key + 1));
    put_number(&state->line, "batch", position.batch);
    put_number(&state->line, "mapped_grains", position.mapped_grains);
    return true;
}

static bool
dump_export(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct export_record export;
    if (schema_get_export(item->value, item->value_bytes, &export) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "export");
    put_number(line, "id", export.id);
    put_number(line, "volume", export.volume);
    put_number(line, "snapshot", export.snapshot);
    PUT_STRING(line, "name", export.name);
    PUT_STRING(line, "protocol", export.protocol);
    put_boolean(line, "read_only", export.read_only);
    put_boolean(line, "exclusive", export.exclusive);
    /* Not the options: they may carry a secret. */
    return true;
}

static bool
dump_run(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct run_record run;
    if (schema_get_run(item->value, item->value_bytes, &run) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "run");
    put_number(line, "state", run.state);
    PUT_STRING(line, "boot_id", run.boot_id);
    put_number(line, "incarnation", run.incarnation);
    put_hex(line, "ring_guid", run.ring_guid, GUID_BYTES);
    put_number(line, "ring_count", run.ring_count);
    put_number(line, "ring_bytes", run.ring_bytes);
    return true;
}

static bool
dump_checkpoint(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct checkpoint_record checkpoint;
    if (schema_get_checkpoint(item->value, item->value_bytes, &checkpoint) != 0
        || item->key_bytes != 2) {
        return false;
    }
    PUT_STRING(line, "type", "checkpoint");
    put_number(line, "slot", item->key[1]);
    put_number(line, "commit", checkpoint.commit);
    put_number(line, "length_bytes", checkpoint.length_bytes);
    put_number(line, "extent_count", checkpoint.extent_count);
    put_number(line, "first_extent", checkpoint.first_extent);
    return true;
}

static bool
dump_event(struct dump_state *state, const struct store_batch_item *item)
{
    if (item->key_bytes != 9) {
        return false;
    }
    PUT_STRING(&state->line, "type", "event");
    put_number(&state->line, "sequence", get_be64(item->key + 1));
    put_string(&state->line, "text", (const char *)item->value, item->value_bytes);
    return true;
}

static bool
dump_snapshot(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct snapshot_record snapshot;
    uint64_t branch;
    uint64_t generation;
    if (schema_get_snapshot(item->value, item->value_bytes, &snapshot) != 0
        || schema_snapshot_key_decode(item->key, item->key_bytes, &branch, &generation) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "snapshot");
    put_number(line, "branch", branch);
    put_number(line, "generation", generation);
    put_number(line, "id", snapshot.id);
    put_number(line, "volume", snapshot.volume);
    put_hex(line, "guid", snapshot.guid, GUID_BYTES);
    PUT_STRING(line, "name", snapshot.name);
    put_number(line, "state", snapshot.state);
    put_number(line, "size_bytes", snapshot.size_bytes);
    put_number(line, "mapped_grains", snapshot.mapped_grains);
    put_number(line, "created_realtime_ns", snapshot.created_realtime_ns);
    put_number(line, "expires_ns", snapshot.expires_ns);
    put_number(line, "rules", snapshot.rules);
    put_hex(line, "group_guid", snapshot.group_guid, GUID_BYTES);
    return true;
}

static bool
dump_policy(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct policy_record policy;
    if (schema_get_policy(item->value, item->value_bytes, &policy) != 0 || item->key_bytes != 9) {
        return false;
    }
    PUT_STRING(line, "type", "policy");
    put_number(line, "volume", get_be64(item->key + 1));
    put_name(line, "rules"); /* number, every so many ns, how many, immutable for so many ns */
    put_text(line, "[");
    const char *separator = "";
    for (uint32_t n = 0; n < POLICY_RULES_MAX; n++) {
        const struct policy_rule *rule = &policy.rules[n];
        if (rule->every_ns != 0) {
            byte_buffer_append_format(line, "%s[%u,%" PRIu64 ",%u,%" PRIu64 "]", separator, n,
                                      rule->every_ns, rule->keep, rule->immutable_ns);
            separator = ",";
        }
    }
    put_text(line, "]");
    return true;
}

static dump_fn *const system_dumpers[256] = {
    [SCHEMA_POOL] = dump_pool,     [SCHEMA_COMMIT] = dump_commit,
    [SCHEMA_DISK] = dump_disk,     [SCHEMA_VOLUME] = dump_volume,
    [SCHEMA_BRANCH] = dump_branch, [SCHEMA_POSITION] = dump_position,
    [SCHEMA_EXPORT] = dump_export, [SCHEMA_RUN] = dump_run,
    [SCHEMA_CHECKPOINT] = dump_checkpoint,
    [SCHEMA_EVENT] = dump_event,
    [SCHEMA_SNAPSHOT] = dump_snapshot,
    [SCHEMA_POLICY] = dump_policy,
};

/* ---- the other families ---- */

static bool
dump_extent(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct extent_record record;
    uint64_t id;
    if (state->grains_per_extent == 0
        || extent_key_decode(item->key, item->key_bytes, &id) != 0
        || extent_record_decode(item->value, item->value_bytes, state->grains_per_extent, &record)
            != 0) {
        return false;
    }
    PUT_STRING(line, "type", "extent");
    put_number(line, "id", id);
    put_number(line, "owner_branch", record.owner_branch);
    const char *what = record.state == EXTENT_STATE_DATA ? "data" : "checkpoint";
    put_string(line, "state", what, strlen(what));
    put_number(line, "tier", record.tier);
    put_number(line, "heat", record.heat);
    put_name(line, "places");
    for (uint32_t copy = 0; copy < record.copy_count; copy++) {
        byte_buffer_append_format(line, "%s[%u,%u]", copy == 0 ? "[" : ",",
                                  record.places[copy].disk, record.places[copy].slot);
    }
    put_text(line, "]");
    uint32_t used = 0;
    for (uint32_t word = 0; word < ARRAY_SIZE(record.used); word++) {
        used += (uint32_t)__builtin_popcountll(record.used[word]);
    }
    put_number(line, "used_grains", used);
    put_hex(line, "used_bits", item->value + item->value_bytes - state->grains_per_extent / 8,
            state->grains_per_extent / 8);
    return true;
}

static bool
dump_page(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    uint64_t branch;
    uint64_t page;
    uint64_t generation;
    uint32_t used;
    if (map_key_decode(item->key, item->key_bytes, &branch, &page, &generation) != 0
        || map_page_decode(item->value, item->value_bytes, state->entries, &used) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "page");
    put_number(line, "branch", branch);
    put_number(line, "page", page);
    put_number(line, "generation", generation);
    put_name(line, "entries"); /* index, home, its generation, valid, base, its generation, zero,
                                  damaged, copied */
    put_text(line, "[");
    const char *separator = "";
    for (uint32_t index = 0; index < MAP_PAGE_ENTRIES; index++) {
        const struct map_entry *entry = &state->entries[index];
        if (!map_entry_is_empty(entry)) {
            byte_buffer_append_format(line,
                                      "%s[%u,%" PRIu64 ",%u,%u,%" PRIu64 ",%u,%u,%u,%u]", separator,
                                      index, entry->home, entry->home_generation, entry->valid,
                                      entry->base, entry->base_generation, entry->zero,
                                      entry->damaged, entry->copied);
            separator = ",";
        }
    }
    put_text(line, "]");
    return true;
}

static bool
dump_link(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct history_link link;
    if (history_link_key_decode(item->key, item->key_bytes, &link) != 0
        || item->value_bytes != 0) {
        return false;
    }
    PUT_STRING(line, "type", "link");
    put_number(line, "branch", link.branch);
    put_number(line, "version", link.version);
    put_number(line, "previous", link.previous);
    put_number(line, "page", link.page);
    return true;
}

static bool
dump_counter(struct dump_state *state, const struct store_batch_item *item)
{
    struct byte_buffer *line = &state->line;
    struct history_counter counter;
    int64_t count;
    if (history_counter_key_decode(item->key, item->key_bytes, &counter) != 0
        || schema_get_counter(item->value, item->value_bytes, &count) != 0) {
        return false;
    }
    PUT_STRING(line, "type", "counter");
    put_number(line, "branch", counter.branch);
    put_number(line, "birth", counter.birth);
    put_number(line, "death", counter.death);
    put_name(line, "grains");
    byte_buffer_append_format(line, "%" PRId64, count);
    return true;
}

static dump_fn *
dumper_of(const struct store_batch_item *item)
{
    switch (item->family) {
    case STORE_FAMILY_SYSTEM:
        return system_dumpers[item->key[0]];
    case STORE_FAMILY_EXTENT:
        return dump_extent;
    case STORE_FAMILY_MAP:
        return dump_page;
    case STORE_FAMILY_HISTORY:
        return item->key[0] == HISTORY_LINK ? dump_link
            : item->key[0] == HISTORY_COUNTER ? dump_counter
                                              : NULL;
    case STORE_FAMILY_COUNT:
        break;
    }
    UNREACHABLE();
}

/* ---- the walk ---- */

static void
dump_item(struct record_walk *walk, const struct store_batch_item *item)
{
    struct dump_state *state = container_of(walk, struct dump_state, walk);
    struct metadata_dump *dump = state->dump;
    struct byte_buffer *line = &state->line;
    dump_fn *dumper = dumper_of(item);
    byte_buffer_clear(line);
    put_text(line, "{");
    if (dumper == NULL || !dumper(state, item)) {
        dump->ret_damaged++;
        byte_buffer_clear(line);
        put_text(line, "{");
        if (dumper == NULL) {
            PUT_STRING(line, "type", "unknown");
        } else {
            PUT_STRING(line, "type", "damaged");
        }
        put_number(line, "family", item->family);
        put_hex(line, "key", item->key, item->key_bytes);
        put_hex(line, "value", item->value, item->value_bytes);
    }
    put_text(line, "}");
    byte_buffer_append_u8(line, '\0');
    dump->ret_lines++;
    dump->line(dump, (const char *)line->data, line->length_bytes - 1);
}

static void
dump_failed(struct record_walk *walk, enum store_family family, const uint8_t *last_key,
            uint32_t last_key_bytes, int error)
{
    struct dump_state *state = container_of(walk, struct dump_state, walk);
    (void)family;
    (void)last_key;
    (void)last_key_bytes;
    if (state->result == 0) {
        state->result = error;
    }
}

static void
dump_done(struct io_op *op)
{
    struct dump_state *state =
        container_of(container_of(op, struct record_walk, op), struct dump_state, walk);
    struct metadata_dump *dump = state->dump;
    int32_t result = state->result;
    byte_buffer_free(&state->line);
    free(state);
    dump->driver = NULL;
    reactor_complete(&dump->op, result);
}

void
metadata_dump(struct metadata_dump *dump)
{
    ASSERT(reactor_self() != NULL && dump->op.done != NULL && dump->line != NULL);
    dump->op.reactor_id = reactor_id(reactor_self());
    dump->ret_lines = 0;
    dump->ret_damaged = 0;
    struct dump_state *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        reactor_complete(&dump->op, -ENOMEM);
        return;
    }
    dump->driver = state;
    state->dump = dump;
    state->walk.op.done = dump_done;
    state->walk.store = dump->store;
    state->walk.snapshot = dump->snapshot;
    state->walk.item = dump_item;
    state->walk.failed = dump_failed;
    record_walk(&state->walk);
}
