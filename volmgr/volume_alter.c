/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a volume: size, name, reserve.
 *
 * Growing is one commit. Shrinking is refused unless the tail provably holds nothing: hosts must
 * have detached, what they wrote is made durable, and then the stored map of the tail is looked
 * through.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

#define VOLUME_ALTER_PHASES(X)                                                                     \
    X(CHECK)                                                                                       \
    X(IN_LINE_AGAIN)                                                                               \
    X(QUIET)                                                                                       \
    X(SCAN_TAIL)                                                                                   \
    X(LOOK_AT_TAIL)                                                                                \
    X(COMMIT)                                                                                      \
    X(PUBLISH)                                                                                     \
    X(REOPEN)                                                                                      \
    X(END)

enum volume_alter_phase {
#define PHASE_ENUM(name) ALTER_##name,
    VOLUME_ALTER_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    ALTER_PHASE_COUNT
};

static const char *const PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    VOLUME_ALTER_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(PHASE_NAMES) == ALTER_PHASE_COUNT, "a name for each phase");

enum {
    SCAN_BYTES = 256 << 10
};

struct volume_alteration {
    struct machine machine;
    /* Exactly one of them. */
    struct volume_resize *resize;
    struct volume_rename *rename;
    struct volume_set_reserve *reserve;
    const struct volume_name *name;
    struct volume *volume;
    struct volume_record record; /* as it shall be */
    struct volume_quiet quiet;
    struct store_scan scan;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
    struct volume_info *old_info;
    bool shrinking;
    bool resized;
};

MACHINE_DONE(scan_done, struct volume_alteration, scan.op)
MACHINE_DONE(commit_done, struct volume_alteration, commit.op)

/* ---- checks ---- */

static int
check_resize(struct volume_alteration *alteration, struct error *error)
{
    struct volume_record *record = &alteration->record;
    uint64_t size_bytes = alteration->resize->size_bytes;

    if (volume_size_check(size_bytes, record->sector_bytes, error) < 0) {
        return error->code;
    }
    if (size_bytes < record->reserve_bytes) {
        return error_set(error, -EINVAL, "the volume reserves more than that: lower its reserve");
    }
    alteration->shrinking = size_bytes < record->size_bytes;
    alteration->resized = true;
    record->size_bytes = size_bytes;
    return 0;
}

static int
check_rename(struct volume_alteration *alteration, struct error *error)
{
    const char *name = alteration->rename->new_name;
    struct pool *pool = alteration->machine.pool;

    if (!schema_name_is_valid(name)) {
        return error_set(error, -EINVAL, "`%.128s` is no volume name", name);
    }
    if (pool_find_volume(pool, name) != NULL) {
        return error_set(error, -EEXIST, "volume `%s/%s` exists already", pool->name, name);
    }
    snprintf(alteration->record.name, sizeof(alteration->record.name), "%s", name);
    return 0;
}

static int
check_set_reserve(struct volume_alteration *alteration, struct error *error)
{
    uint64_t reserve_bytes = alteration->reserve->reserve_bytes;

    if (reserve_bytes > alteration->record.size_bytes) {
        return error_set(error, -EINVAL, "a volume cannot reserve more than its size");
    }
    /* Less is always possible. */
    if (reserve_bytes > alteration->record.reserve_bytes &&
        pool_check_reserve(alteration->machine.pool, alteration->volume, reserve_bytes, error) <
            0) {
        return error->code;
    }
    alteration->record.reserve_bytes = reserve_bytes;
    return 0;
}

static enum machine_step
check(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;
    struct error *error = &machine->control->error;
    int result = 0;

    alteration->volume = machine_find_volume(machine, machine->pool, alteration->name->volume);
    if (alteration->volume == NULL) {
        return MACHINE_NEXT;
    }
    alteration->record = alteration->volume->durable;
    if (alteration->resize != NULL) {
        result = check_resize(alteration, error);
    } else if (alteration->rename != NULL) {
        result = check_rename(alteration, error);
    } else {
        result = check_set_reserve(alteration, error);
    }
    if (result < 0) {
        return machine_fail_noted(machine);
    }
    if (!alteration->shrinking) {
        return machine_goto(machine, ALTER_COMMIT);
    }
    volume_make_quiet(machine, &alteration->quiet, alteration->volume, false);
    return machine_wait(machine);
}

/* ---- the tail ---- */

static enum machine_step
after_quiet(struct volume_alteration *alteration)
{
    switch (alteration->quiet.status) {
    case 0: {
        /* From the page in which the new end lies. */
        uint64_t page = alteration->record.size_bytes >> MAP_PAGE_SHIFT;
        map_key_encode(alteration->scan.start, alteration->volume->branch.id, page, 0);
        alteration->scan.start_bytes = MAP_KEY_BYTES;
        return MACHINE_NEXT;
    }
    case -EBUSY:
        return machine_fail(&alteration->machine, -EBUSY,
                            "a volume is made smaller only while no host is attached");
    default:
        return machine_fail(&alteration->machine, alteration->quiet.status,
                            "what hosts have written cannot be made durable: see the events");
    }
}

static enum machine_step
scan_tail(struct volume_alteration *alteration)
{
    struct store_scan *scan = &alteration->scan;

    scan->family = STORE_FAMILY_MAP;
    put_be64(scan->prefix, alteration->volume->branch.id);
    scan->prefix_bytes = sizeof(uint64_t);
    scan->bytes_max = SCAN_BYTES;
    byte_buffer_clear(&scan->items);
    machine_arm(&alteration->machine, &scan->op, scan_done);
    store_scan(alteration->machine.pool->store, scan);
    return machine_wait(&alteration->machine);
}

/* Does the entry of this grain hold anything from `first_block` of the volume on? */
static bool
entry_reaches(const struct map_entry *entry, uint64_t grain, uint64_t first_block)
{
    uint64_t start = grain * BLOCKS_PER_GRAIN;
    uint16_t mask = UINT16_MAX;

    if (map_entry_is_empty(entry) || start + BLOCKS_PER_GRAIN <= first_block) {
        return false;
    }
    if (start >= first_block) {
        return true;
    }
    mask = (uint16_t)(mask << (first_block - start));
    uint16_t live = entry->valid;
    if (entry->base != GRAIN_NONE) {
        live |= (uint16_t)~entry->zero;
    }
    return (live & mask) != 0;
}

/* 0: empty; -ENOTEMPTY with the last byte that is in use; -EUCLEAN. */
static int
tail_page_check(const struct store_batch_item *item, uint64_t size_bytes, uint64_t *ret_used)
{
    struct map_entry *entries = calloc(MAP_PAGE_ENTRIES, sizeof(*entries));
    uint64_t branch = 0;
    uint64_t page = 0;
    uint64_t generation = 0;
    uint32_t used = 0;

    ASSERT(entries != NULL);
    int result = map_key_decode(item->key, item->key_bytes, &branch, &page, &generation);
    if (result == 0) {
        result = map_page_decode(item->value, item->value_bytes, entries, &used);
    }
    for (uint32_t i = 0; result == 0 && i < MAP_PAGE_ENTRIES; i++) {
        uint64_t grain = page * MAP_PAGE_ENTRIES + i;
        if (entry_reaches(&entries[i], grain, size_bytes >> BLOCK_SHIFT)) {
            *ret_used = (grain + 1) * GRAIN_BYTES;
            result = -ENOTEMPTY;
        }
    }
    free(entries);
    return result;
}

static enum machine_step
look_at_tail(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;
    struct store_scan *scan = &alteration->scan;
    struct store_batch_item item;
    size_t position = 0;
    int result = machine->status;
    uint64_t used = 0;

    while (result == 0) {
        int next = store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item);
        if (next <= 0) {
            result = next;
            break;
        }
        result = tail_page_check(&item, alteration->record.size_bytes, &used);
    }
    if (result == -ENOTEMPTY) {
        char text[SIZE_TEXT_SIZE];
        return machine_fail(machine, -ENOTEMPTY,
                            "the volume holds data beyond that size (at least up to %s); discard "
                            "it first, for example with blkdiscard",
                            size_format(used, text));
    }
    if (result < 0) {
        return machine_fail(machine, result, "the volume's map cannot be read: %s",
                            error_name(result));
    }
    if (scan->ret_more) {
        memcpy(scan->start, scan->ret_next, scan->ret_next_bytes);
        scan->start_bytes = scan->ret_next_bytes;
        return machine_goto(machine, ALTER_SCAN_TAIL);
    }
    return MACHINE_NEXT;
}

/* ---- the change ---- */

static enum machine_step
commit(struct volume_alteration *alteration)
{
    schema_put_volume(&alteration->batch, &alteration->record);
    alteration->commit.batch = &alteration->batch;
    machine_arm(&alteration->machine, &alteration->commit.op, commit_done);
    committer_submit(alteration->machine.pool, &alteration->commit);
    return machine_wait(&alteration->machine);
}

/* Also the grace period after which nobody reads the old info. */
static enum machine_step
publish_visit(struct round_stop *stop)
{
    struct volume_alteration *alteration =
        container_of(stop->round, struct volume_alteration, round);
    struct volume *volume = alteration->volume;

    if (volume->shard->index == stop->index) {
        volume->record = alteration->record;
        if (alteration->resized) {
            volume_sessions_notify(volume, VOLUME_SESSION_RESIZED);
        }
    }
    return MACHINE_NEXT;
}

static enum machine_step
publish(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;
    struct pool *pool = machine->pool;
    struct volume *volume = alteration->volume;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the change could not be recorded: %s",
                            error_name(machine->status));
    }
    hash_table_remove(&pool->volumes_by_name, &volume->by_name);
    volume->durable = alteration->record;
    hash_table_insert(&pool->volumes_by_name, &volume->by_name, text_hash(volume->durable.name));
    if (volume->durable.reserve_bytes > 0) {
        pool->allocator.has_reserves = true;
    }
    alteration->old_info = volume_publish_info(volume);
    round_all(machine, &alteration->round, publish_visit);
    return machine_wait(machine);
}

static enum machine_step
alter_phase(struct machine *machine, uint32_t phase)
{
    struct volume_alteration *alteration = container_of(machine, struct volume_alteration, machine);

    switch ((enum volume_alter_phase)phase) {
    case ALTER_CHECK:
        return check(alteration);
    case ALTER_IN_LINE_AGAIN:
        return volume_quiet_step_in(machine, &alteration->quiet);
    case ALTER_QUIET:
        return after_quiet(alteration);
    case ALTER_SCAN_TAIL:
        return scan_tail(alteration);
    case ALTER_LOOK_AT_TAIL:
        return look_at_tail(alteration);
    case ALTER_COMMIT:
        return commit(alteration);
    case ALTER_PUBLISH:
        return publish(alteration);
    case ALTER_REOPEN:
        volume_reopen(machine, &alteration->quiet);
        return machine_wait(machine);
    case ALTER_END:
        volume_quiet_end(&alteration->quiet);
        return MACHINE_NEXT;
    case ALTER_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
alter_release(struct machine *machine)
{
    struct volume_alteration *alteration = container_of(machine, struct volume_alteration, machine);

    free(alteration->old_info);
    round_free(&alteration->round);
    round_free(&alteration->quiet.round);
    byte_buffer_free(&alteration->scan.items);
    byte_buffer_free(&alteration->batch);
    free(alteration);
}

static const struct machine_ops VOLUME_ALTER_OPS = {
    .name = "volume change",
    .phase_names = PHASE_NAMES,
    .phase_count = ALTER_PHASE_COUNT,
    .failed_phase = ALTER_REOPEN,
    .phase = alter_phase,
    .release = alter_release,
};

static struct volume_alteration *
alteration_new(struct manager *manager, struct control *control, const struct volume_name *name)
{
    struct volume_alteration *alteration = calloc(1, sizeof(*alteration));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(alteration != NULL);
    machine_init(&alteration->machine, &VOLUME_ALTER_OPS, manager, control);
    alteration->name = name;
    return alteration;
}

void
manager_volume_resize(struct manager *manager, struct volume_resize *resize)
{
    ASSERT_ON_REACTOR(manager->control);
    struct volume_alteration *alteration =
        alteration_new(manager, &resize->control, &resize->name);

    alteration->resize = resize;
    machine_start_for_volume(&alteration->machine, &resize->name);
}

void
manager_volume_rename(struct manager *manager, struct volume_rename *rename)
{
    ASSERT_ON_REACTOR(manager->control);
    struct volume_alteration *alteration =
        alteration_new(manager, &rename->control, &rename->name);

    alteration->rename = rename;
    machine_start_for_volume(&alteration->machine, &rename->name);
}

void
manager_volume_set_reserve(struct manager *manager, struct volume_set_reserve *set)
{
    ASSERT_ON_REACTOR(manager->control);
    struct volume_alteration *alteration = alteration_new(manager, &set->control, &set->name);

    alteration->reserve = set;
    machine_start_for_volume(&alteration->machine, &set->name);
}
