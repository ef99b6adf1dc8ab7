/* SPDX-License-Identifier: Apache-2.0 */
/* The checker on SYSTEM records, and on labels. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "metadata/check_impl.h"

enum {
    ID_KEY_BYTES = 9,     /* type, be64 */
    DISK_KEY_BYTES = 3,   /* type, be16 */
};

static bool
key_is_id(const struct store_batch_item *item, uint64_t id)
{
    return item->key_bytes == ID_KEY_BYTES && get_be64(item->key + 1) == id;
}

/* ---- one record ---- */

static bool
take_pool(struct check_state *state, const struct store_batch_item *item)
{
    if (item->key_bytes != 1
        || schema_get_pool(item->value, item->value_bytes, &state->pool) != 0) {
        return false;
    }
    state->has_pool = true;
    state->grains_per_extent = (uint32_t)(state->pool.extent_bytes / GRAIN_BYTES);
    state->bitmap_words = (uint32_t)div_round_up(state->grains_per_extent, 64);
    return true;
}

static bool
take_commit(struct check_state *state, const struct store_batch_item *item)
{
    if (item->key_bytes != 1
        || schema_get_commit(item->value, item->value_bytes, &state->check->ret_commit) != 0) {
        return false;
    }
    state->has_commit = true;
    return true;
}

static bool
take_disk(struct check_state *state, const struct store_batch_item *item)
{
    struct disk_record record;
    if (schema_get_disk(item->value, item->value_bytes, &record) != 0
        || item->key_bytes != DISK_KEY_BYTES || get_be16(item->key + 1) != record.index) {
        return false;
    }
    struct disk_record *kept = malloc(sizeof(*kept));
    ASSERT(kept != NULL && state->disks[record.index] == NULL);
    *kept = record;
    state->disks[record.index] = kept;
    return true;
}

static bool
take_volume(struct check_state *state, const struct store_batch_item *item)
{
    struct volume_record record;
    if (schema_get_volume(item->value, item->value_bytes, &record) != 0
        || !key_is_id(item, record.id)) {
        return false;
    }
    state->volumes = check_grow(state->volumes, state->volume_count, sizeof(record));
    state->volumes[state->volume_count++] = record;
    return true;
}

static bool
take_branch(struct check_state *state, const struct store_batch_item *item)
{
    struct check_branch branch = { 0 };
    if (schema_get_branch(item->value, item->value_bytes, &branch.record) != 0
        || !key_is_id(item, branch.record.id)) {
        return false;
    }
    state->branches = check_grow(state->branches, state->branch_count, sizeof(branch));
    state->branches[state->branch_count++] = branch;
    return true;
}

static bool
take_position(struct check_state *state, const struct store_batch_item *item)
{
    struct branch_position position;
    if (schema_get_position(item->value, item->value_bytes, &position) != 0
        || item->key_bytes != ID_KEY_BYTES) {
        return false;
    }
    uint64_t id = get_be64(item->key + 1);
    struct check_branch *branch = check_find_branch(state, id); /* 'B' sorts before 'J' */
    if (branch == NULL) {
        check_report(state, CHECK_WARNING, CHECK_POSITION_ORPHAN, true, check_item_key(item),
                     "the position of branch %" PRIu64 " is left over: there is no such branch",
                     id);
        if (check_repair(state) != NULL) {
            store_batch_delete(check_repair(state), item->family, item->key, item->key_bytes);
        }
        return true;
    }
    branch->position = position;
    branch->has_position = true;
    return true;
}

static bool
take_export(struct check_state *state, const struct store_batch_item *item)
{
    struct export_record record;
    if (schema_get_export(item->value, item->value_bytes, &record) != 0
        || !key_is_id(item, record.id)) {
        return false;
    }
    state->exports = check_grow(state->exports, state->export_count, sizeof(record));
    state->exports[state->export_count++] = record;
    return true;
}

static bool
take_checkpoint(struct check_state *state, const struct store_batch_item *item)
{
    struct checkpoint_record record;
    if (item->key_bytes != 2
        || schema_get_checkpoint(item->value, item->value_bytes, &record) != 0) {
        return false;
    }
    state->checkpoints[item->key[1]] = record;
    state->has_checkpoint[item->key[1]] = true;
    return true;
}

static bool
take_run(struct check_state *state, const struct store_batch_item *item)
{
    struct run_record record;
    if (item->key_bytes != 1
        || schema_get_run(item->value, item->value_bytes, &record) != 0) {
        return false;
    }
    state->is_closed = record.state == RUN_STATE_CLEAN;
    return true;
}

static bool
take_event(struct check_state *state, const struct store_batch_item *item)
{
    (void)state;
    return item->key_bytes == ID_KEY_BYTES;
}

typedef bool take_fn(struct check_state *state, const struct store_batch_item *item);

static take_fn *const takers[256] = {
    [SCHEMA_POOL] = take_pool,       [SCHEMA_COMMIT] = take_commit,
    [SCHEMA_DISK] = take_disk,       [SCHEMA_VOLUME] = take_volume,
    [SCHEMA_BRANCH] = take_branch,   [SCHEMA_POSITION] = take_position,
    [SCHEMA_EXPORT] = take_export,   [SCHEMA_RUN] = take_run,
    [SCHEMA_CHECKPOINT] = take_checkpoint,
    [SCHEMA_EVENT] = take_event,
    [SCHEMA_SNAPSHOT] = check_take_snapshot,
    [SCHEMA_POLICY] = check_take_policy,
};

void
check_system_item(struct check_state *state, const struct store_batch_item *item)
{
    take_fn *take = takers[item->key[0]];
    if (take == NULL) {
        check_report_unknown(state, item, "system record");
    } else if (!take(state, item)) {
        check_report(state, CHECK_ERROR, CHECK_RECORD_DAMAGED, false, check_item_key(item),
                     "a system record of type '%c' is damaged", item->key[0]);
    }
}

/* ---- among the records ---- */

static void
report_id(struct check_state *state, enum check_severity severity, enum check_code code,
          enum schema_record record, uint64_t id, const char *what, uint64_t number)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_id(key, record, id);
    check_report(state, severity, code, false,
                 (struct check_key){ STORE_FAMILY_SYSTEM, key, key_bytes }, "%s %" PRIu64, what,
                 number);
}

static void
check_counter(struct check_state *state, enum schema_record record, uint64_t id, uint64_t next)
{
    if (state->has_pool && id >= next) {
        report_id(state, CHECK_ERROR, CHECK_COUNTER_BEHIND, record, id,
                  "the pool would give this id out again; its next one is", next);
    }
}

static int
compare_volume_names(const void *left, const void *right)
{
    const struct volume_record *const *a = left;
    const struct volume_record *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static void
check_volume_names(struct check_state *state)
{
    if (state->volume_count == 0) {
        return;
    }
    const struct volume_record **named = calloc(state->volume_count, sizeof(*named));
    ASSERT(named != NULL);
    size_t count = 0;
    for (size_t n = 0; n < state->volume_count; n++) {
        if (!state->volumes[n].deleting) { /* its name is free again */
            named[count++] = &state->volumes[n];
        }
    }
    qsort(named, count, sizeof(*named), compare_volume_names);
    for (size_t n = 1; n < count; n++) {
        if (strcmp(named[n - 1]->name, named[n]->name) == 0) {
            report_id(state, CHECK_ERROR, CHECK_VOLUME_NAME_TWICE, SCHEMA_VOLUME, named[n]->id,
                      "this volume has the same name as volume", named[n - 1]->id);
        }
    }
    free(named);
}

static void
check_volumes(struct check_state *state)
{
    check_volume_names(state);
    for (size_t n = 0; n < state->volume_count; n++) {
        const struct volume_record *volume = &state->volumes[n];
        check_counter(state, SCHEMA_VOLUME, volume->id, state->pool.next_volume);
        struct check_branch *branch = check_find_branch(state, volume->branch);
        if (branch == NULL) {
            report_id(state, CHECK_ERROR, CHECK_VOLUME_BRANCH_WRONG, SCHEMA_VOLUME, volume->id,
                      "this volume stands for a branch that is not there:", volume->branch);
            continue;
        }
        branch->volume_bytes = volume->size_bytes;
        branch->is_deleting |= volume->deleting;
        if ((branch->record.flags & BRANCH_HEADLESS) != 0) {
            report_id(state, CHECK_ERROR, CHECK_VOLUME_BRANCH_WRONG, SCHEMA_VOLUME, volume->id,
                      "this volume stands for a branch that says that it has no head:",
                      volume->branch);
        }
        if (++branch->volumes > 1) {
            report_id(state, CHECK_ERROR, CHECK_VOLUME_BRANCH_WRONG, SCHEMA_VOLUME, volume->id,
                      "another volume stands for the same branch:", volume->branch);
        }
    }
}

static void
check_branch_ancestry(struct check_state *state, const struct branch_record *record)
{
    if (record->parent == 0) {
        if (record->family != record->id) {
            report_id(state, CHECK_ERROR, CHECK_BRANCH_FAMILY_WRONG, SCHEMA_BRANCH, record->id,
                      "this branch has no parent but is of family", record->family);
        }
        return;
    }
    struct check_branch *parent = check_find_branch(state, record->parent);
    if (parent == NULL) {
        report_id(state, CHECK_ERROR, CHECK_BRANCH_PARENT_WRONG, SCHEMA_BRANCH, record->id,
                  "this branch descends from one that is not there:", record->parent);
        return;
    }
    parent->children++;
    if (record->fork_generation >= parent->record.current_generation) {
        report_id(state, CHECK_ERROR, CHECK_BRANCH_PARENT_WRONG, SCHEMA_BRANCH, record->id,
                  "this branch forks above its parent's frozen generations, at",
                  record->fork_generation);
    }
    if (record->family != parent->record.family) {
        report_id(state, CHECK_ERROR, CHECK_BRANCH_FAMILY_WRONG, SCHEMA_BRANCH, record->id,
                  "this branch is not of its parent's family", parent->record.family);
    }
    if (check_descends_from(state, parent, record->id)) {
        report_id(state, CHECK_ERROR, CHECK_BRANCH_PARENT_WRONG, SCHEMA_BRANCH, record->id,
                  "this branch descends from itself through", record->parent);
    }
}

static void
check_branches(struct check_state *state)
{
    for (size_t n = 0; n < state->branch_count; n++) {
        const struct branch_record *record = &state->branches[n].record;
        check_counter(state, SCHEMA_BRANCH, record->id, state->pool.next_branch);
        check_branch_ancestry(state, record);
    }
    for (size_t n = 0; n < state->branch_count; n++) {
        const struct check_branch *branch = &state->branches[n];
        bool is_headless = (branch->record.flags & BRANCH_HEADLESS) != 0; /* it goes by itself */
        if (branch->volumes == 0 && branch->children == 0 && branch->snapshots == 0
            && !is_headless) {
            report_id(state, CHECK_WARNING, CHECK_BRANCH_ORPHAN, SCHEMA_BRANCH, branch->record.id,
                      "no volume, snapshot or clone uses this branch; grains that it owns:",
                      branch->position.mapped_grains);
        }
    }
}

static int
compare_export_names(const void *left, const void *right)
{
    const struct export_record *a = *(const struct export_record *const *)left;
    const struct export_record *b = *(const struct export_record *const *)right;
    int order = strcmp(a->protocol, b->protocol);
    order = order != 0 ? order : strcmp(a->name, b->name);
    return order != 0 ? order : (a->id > b->id) - (a->id < b->id);
}

/* By sorting: a pool may have many thousands, and serve while it is checked. */
static void
check_export_names(struct check_state *state)
{
    if (state->export_count < 2) {
        return;
    }
    const struct export_record **named = calloc(state->export_count, sizeof(*named));
    ASSERT(named != NULL);
    for (size_t n = 0; n < state->export_count; n++) {
        named[n] = &state->exports[n];
    }
    qsort(named, state->export_count, sizeof(*named), compare_export_names);
    for (size_t n = 1; n < state->export_count; n++) {
        if (strcmp(named[n - 1]->name, named[n]->name) == 0
            && strcmp(named[n - 1]->protocol, named[n]->protocol) == 0) {
            report_id(state, CHECK_ERROR, CHECK_EXPORT_NAME_TWICE, SCHEMA_EXPORT, named[n]->id,
                      "this export has name and protocol of export", named[n - 1]->id);
        }
    }
    free(named);
}

static void
check_exports(struct check_state *state)
{
    check_export_names(state);
    for (size_t n = 0; n < state->export_count; n++) {
        const struct export_record *export = &state->exports[n];
        check_counter(state, SCHEMA_EXPORT, export->id, state->pool.next_export);
        if (check_find_volume(state, export->volume) == NULL) {
            uint8_t key[STORE_KEY_BYTES_MAX];
            uint32_t key_bytes = schema_key_id(key, SCHEMA_EXPORT, export->id);
            check_report(state, CHECK_WARNING, CHECK_EXPORT_VOLUME_MISSING, true,
                         (struct check_key){ STORE_FAMILY_SYSTEM, key, key_bytes },
                         "export `%.64s` is of a volume that is not there: %" PRIu64, export->name,
                         export->volume);
            if (check_repair(state) != NULL) {
                schema_delete_id(check_repair(state), SCHEMA_EXPORT, export->id);
            }
        }
    }
}

void
check_system_end(struct check_state *state)
{
    if (!state->has_pool) {
        check_report(state, CHECK_ERROR, CHECK_POOL_MISSING, false, CHECK_NO_KEY,
                     "the pool's record is missing or damaged: extents cannot be checked");
    }
    if (!state->has_commit) {
        check_report(state, CHECK_ERROR, CHECK_COMMIT_MISSING, false, CHECK_NO_KEY,
                     "the commit number is missing or damaged");
    }
    check_volumes(state);
    check_snapshots(state);
    check_branches(state);
    check_exports(state);
}

/* ---- labels ---- */

static void
check_label(struct check_state *state, const struct label *label)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_disk(key, label->disk_index);
    struct check_key about = { STORE_FAMILY_SYSTEM, key, key_bytes };
    const struct disk_record *disk = state->disks[label->disk_index];
    if (memcmp(label->pool_guid, state->pool.pool_guid, GUID_BYTES) != 0) {
        check_report(state, CHECK_ERROR, CHECK_LABEL_POOL_WRONG, false, about,
                     "a disk's label is of another pool: `%.100s`", label->pool_name);
        return;
    }
    if (disk == NULL || memcmp(disk->guid, label->disk_guid, GUID_BYTES) != 0) {
        check_report(state, CHECK_ERROR, CHECK_LABEL_DISK_UNKNOWN, false, about,
                     "a label says that it is disk %u, which the database does not know",
                     label->disk_index);
        return;
    }
    if (label->extent_bytes != state->pool.extent_bytes || label->slot_count != disk->slot_count
        || label->data_start_bytes != disk->data_start_bytes
        || label->ledger_start_bytes != disk->ledger_start_bytes
        || label->ledger_length_bytes != disk->ledger_length_bytes) {
        check_report(state, CHECK_ERROR, CHECK_LABEL_GEOMETRY_WRONG, false, about,
                     "label and database disagree where things are on disk %u",
                     label->disk_index);
    }
    /* An open that died between labels and database leaves them one apart. */
    if (label->incarnation > state->pool.incarnation + 1) {
        check_report(state, CHECK_ERROR, CHECK_LABEL_NEWER, false, about,
                     "disk %u has seen opening %" PRIu64 " of the pool, the database only %" PRIu64
                     ": it is an old one",
                     label->disk_index, label->incarnation, state->pool.incarnation);
    }
}

void
check_labels(struct check_state *state)
{
    for (uint32_t n = 0; n < state->check->label_count && state->has_pool; n++) {
        ASSERT_OP(state->check->labels[n].disk_index, <, (uint32_t)POOL_DISKS_MAX);
        check_label(state, &state->check->labels[n]);
    }
}
