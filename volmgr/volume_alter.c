/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a volume: size, name, reserve.
 *
 * Growing is one commit. Shrinking is refused unless the tail provably holds nothing: hosts must
 * have detached, what they wrote is made durable, and then the stored map of the tail is looked
 * through: no block there may be mapped. A block that the new end cuts in two stays, so the part of
 * it behind the end must read as zeroes, or growing again would show old bytes (P1). What snapshots
 * hold behind the new end is theirs, and stays: the map that counts is the head's, the newest
 * version of each page in the first of the places where the head finds one.
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
    X(READ_EDGE)                                                                                   \
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

/* The part behind the new end of the block that the end cuts in two; the volume's reactor. */
struct edge_read {
    struct volume_request request;
    struct iovec iov;
    struct round_stop *stop;
    uint8_t data[BLOCK_BYTES];
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
    struct edge_read *edge;
    struct store_scan scan;
    struct view_chain *chain; /* where the head's pages are */
    uint32_t place;           /* the one that is being looked through */
    struct hash_table seen;   /* struct tail_page by hash: found in a place before */
    bool has_seen;
    uint64_t tail_page;       /* whose versions are being looked at */
    bool has_tail_page;
    uint64_t tail_used_bytes; /* the newest one so far maps something before that; 0: nothing */
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
    struct volume_info *old_info;
    bool shrinking;
    bool resized;
    bool exports_renamed; /* exports_rename_begin() was called */
};

/* A page of the tail of which the head's version is known. */
struct tail_page {
    struct hash_node node;
    uint64_t page;
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

/* ---- the block that the new end cuts in two ---- */

static void
edge_replied(struct volume_request *request)
{
    ASSERT_OP(request->operation, ==, (unsigned)VOLUME_READ);
}

static void
edge_released(struct volume_request *request)
{
    round_stop_done(container_of(request, struct edge_read, request)->stop);
}

static enum machine_step
edge_visit(struct round_stop *stop)
{
    struct volume_alteration *alteration =
        container_of(stop->round, struct volume_alteration, round);
    struct edge_read *edge = alteration->edge;

    edge->stop = stop;
    volume_submit(alteration->volume, &edge->request);
    return MACHINE_WAIT;
}

/* Out of the pool's line: the disk may take long. The volume is closed, so it stays as it is. */
static enum machine_step
read_edge(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;
    uint64_t size_bytes = alteration->record.size_bytes;
    uint64_t old_bytes = alteration->volume->durable.size_bytes;

    if (alteration->quiet.status < 0 || size_bytes % BLOCK_BYTES == 0) {
        return MACHINE_NEXT;
    }
    struct edge_read *edge = aligned_alloc(BLOCK_BYTES, align_up(sizeof(*edge), BLOCK_BYTES));
    ASSERT(edge != NULL);
    uint64_t length_bytes = MIN(align_up(size_bytes, BLOCK_BYTES), old_bytes) - size_bytes;
    ASSERT(length_bytes > 0 && length_bytes < BLOCK_BYTES);
    volume_request_init(&edge->request);
    edge->iov = (struct iovec){ .iov_base = edge->data, .iov_len = length_bytes };
    edge->request.operation = VOLUME_READ;
    edge->request.offset_bytes = size_bytes;
    edge->request.length_bytes = length_bytes;
    edge->request.iov = &edge->iov;
    edge->request.iov_count = 1;
    edge->request.reply = edge_replied;
    edge->request.release = edge_released;
    alteration->edge = edge;
    round_one(machine, &alteration->round, alteration->volume->shard->index, edge_visit);
    return machine_wait(machine);
}

/* 0; -ENOTEMPTY: it holds data behind the new end; or why it could not be read. */
static int
edge_status(const struct volume_alteration *alteration)
{
    const struct edge_read *edge = alteration->edge;

    if (edge == NULL) {
        return 0;
    }
    if (edge->request.status < 0) {
        return edge->request.status;
    }
    for (size_t i = 0; i < edge->iov.iov_len; i++) {
        if (edge->data[i] != 0) {
            return -ENOTEMPTY;
        }
    }
    return 0;
}

/* ---- the tail ---- */

static enum machine_step
refuse_not_empty(struct machine *machine, uint64_t used_bytes)
{
    return machine_fail(machine, -ENOTEMPTY,
                        "the volume holds data beyond that size (some of it before byte %llu): "
                        "discard or zero what is behind the new end first, for example with "
                        "blkdiscard",
                        (unsigned long long)used_bytes);
}

/* Look through the next place, from the page in which the new end lies. */
static void
place_begin(struct volume_alteration *alteration)
{
    uint64_t page = alteration->record.size_bytes >> MAP_PAGE_SHIFT;
    struct store_scan *scan = &alteration->scan;

    map_key_encode(scan->start, alteration->chain->places[alteration->place].branch, page, 0);
    scan->start_bytes = MAP_KEY_BYTES;
    alteration->has_tail_page = false;
}

static enum machine_step
after_edge(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;
    int result = edge_status(alteration);

    if (result == -ENOTEMPTY) {
        return refuse_not_empty(machine, align_up(alteration->record.size_bytes, BLOCK_BYTES));
    }
    if (result < 0) {
        return machine_fail(machine, result,
                            "the block at the new end cannot be read (%s): see `volctl events`",
                            error_name(result));
    }
    struct volume *volume = alteration->volume;
    const struct pool_branch *branch = pool_find_branch(volume->pool, volume->durable.branch);
    alteration->chain = view_chain_make(branch->lineage, LINEAGE_FOREVER);
    hash_table_init(&alteration->seen, 64);
    alteration->has_seen = true;
    place_begin(alteration);
    return MACHINE_NEXT;
}

static enum machine_step
after_quiet(struct volume_alteration *alteration)
{
    switch (alteration->quiet.status) {
    case 0:
        return after_edge(alteration);
    case -EBUSY:
        return machine_fail(&alteration->machine, -EBUSY,
                            "a volume is made smaller only while no host is attached: detach them "
                            "(`volctl session list` tells which)");
    default:
        return volume_quiet_refuse(&alteration->machine, &alteration->quiet);
    }
}

static enum machine_step
scan_tail(struct volume_alteration *alteration)
{
    struct store_scan *scan = &alteration->scan;

    scan->family = STORE_FAMILY_MAP;
    put_be64(scan->prefix, alteration->chain->places[alteration->place].branch);
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

/* What a version maps behind the new end, up to which byte; 0: nothing. 0 or -EUCLEAN. */
static int
version_reach(const struct store_batch_item *item, uint64_t page, uint64_t size_bytes,
              uint64_t *ret_used_bytes)
{
    struct map_entry *entries = calloc(MAP_PAGE_ENTRIES, sizeof(*entries));
    uint32_t used = 0;

    ASSERT(entries != NULL);
    *ret_used_bytes = 0;
    int result = map_page_decode(item->value, item->value_bytes, entries, &used);
    for (uint32_t i = 0; result == 0 && i < MAP_PAGE_ENTRIES; i++) {
        uint64_t grain = page * MAP_PAGE_ENTRIES + i;
        /* A block that the end cuts in two has been read: see edge_status(). */
        if (entry_reaches(&entries[i], grain, div_round_up(size_bytes, BLOCK_BYTES))) {
            *ret_used_bytes = (grain + 1) * GRAIN_BYTES;
        }
    }
    free(entries);
    return result;
}

static bool
page_was_seen(const struct volume_alteration *alteration, uint64_t page)
{
    uint64_t hash = hash_u64(page);

    for (struct hash_node *node = hash_table_chain(&alteration->seen, hash); node != NULL;
         node = node->next) {
        if (container_of(node, struct tail_page, node)->page == page) {
            return true;
        }
    }
    return false;
}

/* All versions of a page in this place have been looked at. -ENOTEMPTY: the head maps something. */
static int
page_end(struct volume_alteration *alteration)
{
    uint64_t page = alteration->tail_page;

    if (!alteration->has_tail_page || page_was_seen(alteration, page)) {
        return 0;
    }
    if (alteration->tail_used_bytes > 0) {
        return -ENOTEMPTY;
    }
    if (alteration->chain->count > 1) {
        struct tail_page *seen = calloc(1, sizeof(*seen));
        ASSERT(seen != NULL);
        seen->page = page;
        hash_table_insert(&alteration->seen, &seen->node, hash_u64(page));
    }
    return 0;
}

static int
look_at_version(struct volume_alteration *alteration, const struct store_batch_item *item)
{
    uint64_t branch = 0;
    uint64_t page = 0;
    uint64_t generation = 0;

    int result = map_key_decode(item->key, item->key_bytes, &branch, &page, &generation);
    if (result == 0 && (!alteration->has_tail_page || page != alteration->tail_page)) {
        result = page_end(alteration);
        alteration->tail_page = page;
        alteration->has_tail_page = false;
    }
    if (result < 0 || generation > alteration->chain->places[alteration->place].generation) {
        return result; /* a younger one than the head sees there */
    }
    alteration->has_tail_page = true;
    return version_reach(item, page, alteration->record.size_bytes, &alteration->tail_used_bytes);
}

static enum machine_step
look_at_tail(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;
    struct store_scan *scan = &alteration->scan;
    struct store_batch_item item;
    size_t position = 0;
    int result = machine->status;

    while (result == 0) {
        int next = store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item);
        if (next <= 0) {
            result = next;
            break;
        }
        result = look_at_version(alteration, &item);
    }
    if (result == 0 && !scan->ret_more) {
        result = page_end(alteration);
    }
    if (result == -ENOTEMPTY) {
        return refuse_not_empty(machine, alteration->tail_used_bytes);
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
    if (++alteration->place < alteration->chain->count) {
        place_begin(alteration);
        return machine_goto(machine, ALTER_SCAN_TAIL);
    }
    return MACHINE_NEXT;
}

/* ---- the change ---- */

static enum machine_step
commit(struct volume_alteration *alteration)
{
    struct machine *machine = &alteration->machine;

    if (alteration->rename != NULL) {
        if (exports_rename_begin(alteration->volume, alteration->record.name, &alteration->batch,
                                 &machine->control->error) < 0) {
            return machine_fail_noted(machine);
        }
        alteration->exports_renamed = true;
    }
    if (alteration->reserve != NULL) {
        pool_promise_begin(machine->pool, alteration->volume, alteration->record.reserve_bytes);
    }
    schema_put_volume(&alteration->batch, &alteration->record);
    alteration->commit.batch = &alteration->batch;
    machine_arm(machine, &alteration->commit.op, commit_done);
    committer_submit(machine->pool, &alteration->commit);
    return machine_wait(machine);
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

    int result = machine->status;

    if (alteration->reserve != NULL && result < 0) {
        pool_promise_end(pool);
    }
    if (alteration->exports_renamed && result < 0) {
        exports_rename_end(volume, false);
    }
    if (result < 0) {
        return machine_fail(machine, result,
                            "the change could not be recorded (%s): see `volctl events`",
                            error_name(result));
    }
    hash_table_remove(&pool->volumes_by_name, &volume->by_name);
    volume->durable = alteration->record;
    hash_table_insert(&pool->volumes_by_name, &volume->by_name, text_hash(volume->durable.name));
    if (alteration->exports_renamed) {
        exports_rename_end(volume, true);
    }
    if (volume->durable.reserve_bytes > 0) {
        pool->allocator.has_reserves = true;
    }
    if (alteration->reserve != NULL) {
        pool_promise_end(pool);
        pool_space_changed(pool);
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
    case ALTER_READ_EDGE:
        return read_edge(alteration);
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
seen_free(struct hash_table *seen)
{
    for (size_t i = 0; i < seen->bucket_count; i++) {
        while (seen->buckets[i] != NULL) {
            struct tail_page *page = container_of(seen->buckets[i], struct tail_page, node);
            hash_table_remove(seen, &page->node);
            free(page);
        }
    }
    hash_table_free(seen);
}

static void
alter_release(struct machine *machine)
{
    struct volume_alteration *alteration = container_of(machine, struct volume_alteration, machine);

    free(alteration->old_info);
    free(alteration->edge);
    view_chain_put(alteration->chain);
    if (alteration->has_seen) {
        seen_free(&alteration->seen);
    }
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
