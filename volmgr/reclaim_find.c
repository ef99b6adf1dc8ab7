/* SPDX-License-Identifier: Apache-2.0 */
/* A version that may be dead: what it names, and what the versions next to it name. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/map_entry_impl.h"
#include "volmgr/reclaim_worker_impl.h"

enum {
    PAGE_PREFIX_BYTES = 16 /* branch and page number */
};

MACHINE_DONE(get_done, struct reclaim, get.op)
MACHINE_DONE(newer_scan_done, struct reclaim, newer_scan.op)

static struct map_entry *
entries_new(void)
{
    struct map_entry *entries = calloc(MAP_PAGE_ENTRIES, sizeof(*entries));

    ASSERT(entries != NULL);
    return entries;
}

void
reclaim_find_init(struct reclaim_find *find)
{
    find->dying.entries = entries_new();
    find->older.entries = entries_new();
    find->newer.entries = entries_new();
}

void
reclaim_find_free(struct reclaim_find *find)
{
    free(find->dying.entries);
    free(find->older.entries);
    free(find->newer.entries);
}

/* ---- reading versions ---- */

/* The newest version up to `number`, and (`previous`) which one is below it. */
static enum machine_step
get_version(struct reclaim *reclaim, const struct lineage_branch *branch, uint32_t number,
            bool previous)
{
    struct store_get *get = &reclaim->get;

    get->family = STORE_FAMILY_MAP;
    get->floor = true;
    get->floor_prefix_bytes = PAGE_PREFIX_BYTES;
    get->previous = previous;
    get->key_bytes = MAP_KEY_BYTES;
    map_key_encode(get->key, branch->id, reclaim->find.page, number);
    get->ret_key_bytes = 0;
    get->ret_previous_key_bytes = 0;
    byte_buffer_clear(&get->value);
    machine_arm(&reclaim->machine, &get->op, get_done);
    store_get(reclaim->pool->store, get);
    return machine_wait(&reclaim->machine);
}

/* The generation in the key of a version; 0: it is none. */
static uint32_t
number_in_key(const uint8_t *key, uint32_t key_bytes)
{
    uint64_t branch = 0;
    uint64_t page = 0;
    uint64_t generation = 0;

    if (key_bytes == 0 || map_key_decode(key, key_bytes, &branch, &page, &generation) < 0 ||
        generation > UINT32_MAX) {
        return 0;
    }
    return (uint32_t)generation;
}

static int
decode(struct reclaim_page *page, uint32_t number, const void *value, size_t value_bytes)
{
    uint32_t used = 0;

    page->number = number;
    return number == 0 ? -EUCLEAN : map_page_decode(value, value_bytes, page->entries, &used);
}

static int
decode_got(struct reclaim *reclaim, struct reclaim_page *page)
{
    const struct store_get *get = &reclaim->get;

    return decode(page, number_in_key(get->ret_key, get->ret_key_bytes), get->value.data,
                  get->value.length_bytes);
}

/*
 * What cannot be read stays, and so do the records that tell of it. But not of a tail, if it might
 * be read another time: until a tail has gone its line must not go on (lineage_impl.h), or both
 * would free what the tail names.
 */
static enum machine_step
skip_unreadable(struct reclaim *reclaim, int code)
{
    if (reclaim->job.kind == LINEAGE_TAIL && code != -EUCLEAN) {
        return machine_fail(&reclaim->machine, code, "its history cannot be read: %s",
                            error_name(code));
    }
    reclaim->skipped++;
    log_error("control", "%s: page %llu of branch %llu: a version around %u cannot be read: %s",
              reclaim->pool->name, (unsigned long long)reclaim->find.page,
              (unsigned long long)reclaim->find.branch->id, reclaim->find.number,
              error_name(code));
    return machine_goto(&reclaim->machine, RECLAIM_PICK);
}

/* It is not as the link says, by now. */
static enum machine_step
skip_stale(struct reclaim *reclaim)
{
    if (reclaim->job.kind == LINEAGE_GAP) {
        reclaim->again = true;
    } else {
        reclaim->skipped++;
    }
    return machine_goto(&reclaim->machine, RECLAIM_PICK);
}

static bool
get_failed(const struct reclaim *reclaim)
{
    return reclaim->machine.status < 0 && reclaim->machine.status != -ENOENT;
}

/* ---- the dying one ---- */

/* The link is of a page's first version in its branch: what does it supersede further down? */
static enum machine_step
look_below(struct reclaim *reclaim)
{
    struct lineage_step *step = &reclaim->find.step;

    if (!lineage_below(step) || step->generation <= reclaim->gap.above) {
        return machine_goto(&reclaim->machine, RECLAIM_PICK);
    }
    return get_version(reclaim, step->branch, step->generation, false);
}

static enum machine_step
found_below(struct reclaim *reclaim)
{
    struct reclaim_find *find = &reclaim->find;

    if (get_failed(reclaim)) {
        return skip_unreadable(reclaim, reclaim->machine.status);
    }
    if (reclaim->machine.status == -ENOENT) {
        return machine_goto(&reclaim->machine, RECLAIM_LOOK_BELOW);
    }
    find->number = number_in_key(reclaim->get.ret_key, reclaim->get.ret_key_bytes);
    find->branch = find->step.branch;
    if (find->number <= reclaim->gap.above) {
        return machine_goto(&reclaim->machine, RECLAIM_PICK);
    }
    return machine_goto(&reclaim->machine, RECLAIM_GET_DYING);
}

static enum machine_step
got_dying(struct reclaim *reclaim)
{
    struct reclaim_find *find = &reclaim->find;
    const struct store_get *get = &reclaim->get;

    if (get_failed(reclaim)) {
        return skip_unreadable(reclaim, reclaim->machine.status);
    }
    if (reclaim->machine.status == -ENOENT ||
        number_in_key(get->ret_key, get->ret_key_bytes) != find->number) {
        return skip_stale(reclaim);
    }
    find->local_previous = number_in_key(get->ret_previous_key, get->ret_previous_key_bytes);
    if (reclaim->job.kind == LINEAGE_GAP &&
        lineage_sees(reclaim->job.branch, find->number, find->link.version)) {
        /* Only damaged links can have said so. */
        return skip_unreadable(reclaim, -EUCLEAN);
    }
    int result = decode_got(reclaim, &find->dying);
    if (result < 0) {
        return skip_unreadable(reclaim, result);
    }
    find->step = (struct lineage_step){ find->branch, find->number - 1 };
    find->older.number = 0;
    find->newer.number = 0;
    return MACHINE_NEXT;
}

/* ---- the older one ---- */

static enum machine_step
get_older(struct reclaim *reclaim)
{
    struct lineage_step *step = &reclaim->find.step;

    if (reclaim->find.local_previous == 0 && !lineage_below(step)) {
        return machine_goto(&reclaim->machine, RECLAIM_GET_NEWER);
    }
    return get_version(reclaim, step->branch, step->generation, false);
}

static enum machine_step
got_older(struct reclaim *reclaim)
{
    struct reclaim_find *find = &reclaim->find;

    if (reclaim->machine.status == -ENOENT && find->local_previous == 0) {
        return machine_goto(&reclaim->machine, RECLAIM_GET_OLDER); /* further down */
    }
    int result = reclaim->machine.status;
    if (result == 0) {
        result = decode_got(reclaim, &find->older);
    }
    return result < 0 ? skip_unreadable(reclaim, result) : MACHINE_NEXT;
}

/* ---- the newer one ---- */

/* Of a tail: the next one in its key space, whatever supersedes what. */
static enum machine_step
scan_newer(struct reclaim *reclaim)
{
    struct reclaim_find *find = &reclaim->find;
    struct store_scan *scan = &reclaim->newer_scan;

    scan->family = STORE_FAMILY_MAP;
    map_key_encode(scan->start, find->branch->id, find->page, (uint64_t)find->number + 1);
    scan->start_bytes = MAP_KEY_BYTES;
    scan->prefix_bytes = PAGE_PREFIX_BYTES;
    memcpy(scan->prefix, scan->start, PAGE_PREFIX_BYTES);
    scan->bytes_max = 1;
    byte_buffer_clear(&scan->items);
    machine_arm(&reclaim->machine, &scan->op, newer_scan_done);
    store_scan(reclaim->pool->store, scan);
    return machine_wait(&reclaim->machine);
}

static enum machine_step
get_newer(struct reclaim *reclaim)
{
    struct reclaim_find *find = &reclaim->find;

    if (reclaim->job.kind == LINEAGE_TAIL) {
        return scan_newer(reclaim);
    }
    if (reclaim->volume != NULL && find->link.version > reclaim->settled &&
        reclaim->answer != RECLAIM_FROZEN) {
        reclaim->asked_owner = true;
        round_one(&reclaim->machine, &reclaim->round, reclaim->volume->shard->index,
                  reclaim_owner_visit);
        return machine_wait(&reclaim->machine);
    }
    return get_version(reclaim, reclaim->job.branch, find->link.version, false);
}

static int
decode_newer_item(struct reclaim *reclaim)
{
    const struct store_scan *scan = &reclaim->newer_scan;
    struct store_batch_item item;
    size_t position = 0;

    int next = store_batch_next(scan->items.data, scan->items.length_bytes, &position, &item);
    if (next <= 0) {
        return next;
    }
    return decode(&reclaim->find.newer, number_in_key(item.key, item.key_bytes), item.value,
                  item.value_bytes);
}

static bool
grain_is_known(const struct pool *pool, grain_address grain)
{
    const struct extent *extent =
        extent_table_find(&pool->extents, grain_extent(&pool->extents, grain));
    return extent != NULL && extent->state == EXTENT_STATE_DATA;
}

static void
append_grains(const struct reclaim *reclaim, const struct map_entry *newer,
              struct byte_buffer *grains)
{
    const struct reclaim_find *find = &reclaim->find;
    struct dead_grain *dead = calloc(2 * MAP_PAGE_ENTRIES, sizeof(*dead));

    ASSERT(dead != NULL);
    uint32_t count = dead_version_grains(find->dying.entries,
                                         find->older.number != 0 ? find->older.entries : NULL,
                                         newer, MAP_PAGE_ENTRIES, reclaim->owned_above, dead);
    for (uint32_t i = 0; i < count; i++) {
        if (grain_is_known(reclaim->pool, dead[i].grain)) {
            byte_buffer_append(grains, &dead[i].grain, sizeof(dead[i].grain));
        }
    }
    free(dead);
}

/* The version that superseded the dying one says which other one it supersedes from now on. */
static void
append_link(struct byte_buffer *batch, const struct reclaim_find *find,
            const struct lineage_branch *branch, uint32_t newer)
{
    struct history_link link = {
        .branch = branch->id,
        .version = newer,
        .previous = find->number,
        .page = find->page,
    };

    schema_delete_link(batch, &link);
    link.previous = find->local_previous;
    schema_put_link(batch, &link);
}

void
reclaim_encode(const struct reclaim *reclaim, const struct map_entry *newer,
               struct byte_buffer *batch, struct byte_buffer *grains)
{
    const struct reclaim_find *find = &reclaim->find;
    struct history_link own = {
        .branch = find->branch->id,
        .version = find->number,
        .previous = find->local_previous,
        .page = find->page,
    };
    uint8_t key[MAP_KEY_BYTES];

    append_grains(reclaim, newer, grains);
    map_key_encode(key, find->branch->id, find->page, find->number);
    store_batch_delete(batch, STORE_FAMILY_MAP, key, sizeof(key));
    schema_delete_link(batch, &own);
    if (reclaim->job.kind == LINEAGE_TAIL) {
        if (find->newer.number != 0) {
            append_link(batch, find, find->branch, find->newer.number);
        }
    } else if (find->branch == reclaim->job.branch) {
        append_link(batch, find, find->branch, find->link.version);
    }
}

/* It has been removed, by whoever: no cached page may have it below its own version. */
static void
note_died(struct reclaim *reclaim)
{
    const struct reclaim_find *find = &reclaim->find;
    struct reclaim_died died = {
        .branch = find->branch->id,
        .page = find->page,
        .died = find->number,
        .previous = find->older.number,
    };

    byte_buffer_append(&reclaim->died, &died, sizeof(died));
    reclaim->versions++;
}

static enum machine_step
owner_has_answered(struct reclaim *reclaim)
{
    switch (reclaim->answer) {
    case RECLAIM_ADDED:
        reclaim->owner_added = true;
        note_died(reclaim);
        return machine_goto(&reclaim->machine, RECLAIM_PICK);
    case RECLAIM_STALE:
        return skip_stale(reclaim);
    case RECLAIM_WAIT:
        reclaim->wait = true;
        return reclaim_end_piece(reclaim, true);
    case RECLAIM_FAILED:
        return skip_unreadable(reclaim, -EIO);
    case RECLAIM_FROZEN:
        return machine_goto(&reclaim->machine, RECLAIM_GET_NEWER);
    case RECLAIM_NONE:
        break;
    }
    UNREACHABLE();
}

static enum machine_step
got_newer(struct reclaim *reclaim)
{
    struct reclaim_find *find = &reclaim->find;
    bool is_tail = reclaim->job.kind == LINEAGE_TAIL;

    if (!is_tail && reclaim->asked_owner) {
        reclaim->asked_owner = false;
        return owner_has_answered(reclaim);
    }
    if (get_failed(reclaim)) {
        return skip_unreadable(reclaim, reclaim->machine.status);
    }
    if (!is_tail && (reclaim->machine.status == -ENOENT ||
                     number_in_key(reclaim->get.ret_key, reclaim->get.ret_key_bytes) !=
                         find->link.version)) {
        return skip_stale(reclaim);
    }
    int result = is_tail ? decode_newer_item(reclaim) : decode_got(reclaim, &find->newer);
    if (result < 0) {
        return skip_unreadable(reclaim, result);
    }
    reclaim_encode(reclaim, find->newer.number != 0 ? find->newer.entries : NULL,
                   &reclaim->batch, &reclaim->grains);
    note_died(reclaim);
    return machine_goto(&reclaim->machine, RECLAIM_PICK);
}

enum machine_step
reclaim_find_phase(struct reclaim *reclaim, enum reclaim_phase phase)
{
    struct reclaim_find *find = &reclaim->find;

    switch (phase) {
    case RECLAIM_LOOK_BELOW:
        return look_below(reclaim);
    case RECLAIM_FOUND_BELOW:
        return found_below(reclaim);
    case RECLAIM_GET_DYING:
        reclaim->answer = RECLAIM_NONE;
        return get_version(reclaim, find->branch, find->number, true);
    case RECLAIM_GOT_DYING:
        return got_dying(reclaim);
    case RECLAIM_GET_OLDER:
        return get_older(reclaim);
    case RECLAIM_GOT_OLDER:
        return got_older(reclaim);
    case RECLAIM_GET_NEWER:
        return get_newer(reclaim);
    default:
        ASSERT_OP(phase, ==, (uint32_t)RECLAIM_GOT_NEWER);
        return got_newer(reclaim);
    }
}
