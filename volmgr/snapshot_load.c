/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Branches and snapshots at open. The database is foreign bytes (P12): every record is checked
 * against the others before the lineage, whose functions assert, gets to see it.
 *
 * Three kinds of snapshot records come from a daemon that ended in the middle. PENDING: nobody was
 * told of it, so it is deleted. HIDDEN without anything that was forked there: the clone for which
 * it was made did not come about. DELETING: goes on. If the end of its generation was not committed
 * (it was being made, or had been given up because a disk hung), nothing is to be freed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/pool_open_impl.h"

#define GENERATION_LAST (LINEAGE_FOREVER - 16) /* no bump goes beyond it */

static void
note_job(void *context, const struct lineage_job *job)
{
    struct pool *pool = context;

    byte_buffer_append(&pool->reclaim_jobs, job, sizeof(*job));
}

static int
damaged_branch(struct error *error, uint64_t id, const char *why)
{
    return error_set(error, -EUCLEAN, "the database is damaged: branch %llu %s",
                     (unsigned long long)id, why);
}

static int
damaged_snapshot(struct error *error, const struct load_snapshot *snapshot, const char *why)
{
    return error_set(error, -EUCLEAN,
                     "the database is damaged: the snapshot of generation %llu of branch %llu %s",
                     (unsigned long long)snapshot->generation,
                     (unsigned long long)snapshot->branch, why);
}

/* ---- branches ---- */

static int
load_branch(struct pool_opening *opening, const struct branch_record *record, struct error *error)
{
    struct pool *pool = opening->pool;
    struct pool_branch *parent = NULL;

    if (record->id >= pool->record.next_branch) {
        return damaged_branch(error, record->id, "has a number that was never given");
    }
    if (record->parent != 0) {
        parent = pool_find_branch(pool, record->parent); /* ids rise, so it has been loaded */
        if (parent == NULL) {
            return damaged_branch(error, record->id, "has a parent that is not there");
        }
        if (record->fork_generation <= parent->lineage->fork ||
            record->fork_generation >= parent->lineage->current) {
            return damaged_branch(error, record->id, "begins where its parent has nothing");
        }
    }
    struct lineage_load load = {
        .id = record->id,
        .parent = parent != NULL ? parent->lineage : NULL,
        .fork = (uint32_t)record->fork_generation,
        .current = (uint32_t)record->current_generation,
        .has_head = (record->flags & BRANCH_HEADLESS) == 0,
        .complete = (record->flags & BRANCH_COMPLETE) != 0,
        .continues = (record->flags & BRANCH_CONTINUES) != 0,
    };
    pool_branch_add(pool, record, lineage_load_branch(&pool->lineage, &load));
    return 0;
}

/* ---- snapshots ---- */

static struct load_snapshot *
find_snapshot(const struct pool_load *load, uint64_t branch, uint64_t generation)
{
    struct load_snapshot *all = (struct load_snapshot *)(void *)load->snapshots.data;
    size_t low = 0;
    size_t high = load->snapshots.length_bytes / sizeof(*all);

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct load_snapshot *snapshot = &all[middle];
        if (snapshot->branch == branch && snapshot->generation == generation) {
            return snapshot;
        }
        bool below = snapshot->branch != branch ? snapshot->branch < branch
                                                : snapshot->generation < generation;
        low = below ? middle + 1 : low;
        high = below ? high : middle;
    }
    return NULL;
}

/* Which views have something that was forked there. */
static void
note_children(struct pool_load *load)
{
    const struct branch_record *branches =
        (const struct branch_record *)(const void *)load->branches.data;

    for (size_t i = 0; i < load->branches.length_bytes / sizeof(*branches); i++) {
        struct load_snapshot *view =
            find_snapshot(load, branches[i].parent, branches[i].fork_generation);
        if (view != NULL && branches[i].parent != 0) {
            view->has_children = true;
        }
    }
}

static void
put_snapshot(struct pool_opening *opening, const struct load_snapshot *snapshot)
{
    schema_put_snapshot(&opening->first, snapshot->branch, snapshot->generation,
                        &snapshot->record);
}

/*
 * The owner's commit, which has the generation that follows, did not come: nothing was kept. There
 * can be several: each try to take a snapshot ends a generation.
 */
static bool
never_came_about(const struct load_snapshot *snapshot, const struct lineage_branch *branch)
{
    uint8_t state = snapshot->record.state;

    return (state == SNAPSHOT_PENDING || state == SNAPSHOT_DELETING) &&
           snapshot->generation >= branch->current;
}

/* The record turns into what it is from now on; state 0: it is deleted. */
static void
settle_state(struct pool_opening *opening, struct load_snapshot *snapshot,
             const struct lineage_branch *branch)
{
    struct snapshot_record *record = &snapshot->record;
    uint8_t key[STORE_KEY_BYTES_MAX];

    if (never_came_about(snapshot, branch)) {
        record->state = 0;
        uint32_t key_bytes = schema_key_snapshot(key, snapshot->branch, snapshot->generation);
        store_batch_delete(&opening->first, STORE_FAMILY_SYSTEM, key, key_bytes);
        return;
    }
    if (record->state == SNAPSHOT_PENDING ||
        (record->state == SNAPSHOT_HIDDEN && !snapshot->has_children && branch->has_head)) {
        record->state = SNAPSHOT_DELETING;
        record->name[0] = '\0';
        put_snapshot(opening, snapshot);
    }
}

static int
load_view(struct pool_opening *opening, struct load_snapshot *snapshot, struct error *error)
{
    struct pool *pool = opening->pool;
    const struct snapshot_record *record = &snapshot->record;
    struct pool_branch *branch = pool_find_branch(pool, snapshot->branch);

    if (branch == NULL) {
        return damaged_snapshot(error, snapshot, "is of a branch that is not there");
    }
    uint64_t end = never_came_about(snapshot, branch->lineage) ? GENERATION_LAST
                                                               : branch->lineage->current;
    if (snapshot->generation <= branch->lineage->fork || snapshot->generation >= end) {
        return damaged_snapshot(error, snapshot, "lies where its branch has nothing");
    }
    if (record->id == 0 || record->id > pool->record.last_snapshot) {
        return damaged_snapshot(error, snapshot, "has a number that was never given");
    }
    if (record->size_bytes == 0 || record->size_bytes > VOLUME_SIZE_BYTES_MAX) {
        return damaged_snapshot(error, snapshot, "has no valid size");
    }
    if (record->state == SNAPSHOT_PENDING && !branch->lineage->has_head) {
        return damaged_snapshot(error, snapshot, "was being made of a branch without a head");
    }
    settle_state(opening, snapshot, branch->lineage);
    if (record->state == SNAPSHOT_KEPT || record->state == SNAPSHOT_HIDDEN) {
        lineage_load_view(branch->lineage, (uint32_t)snapshot->generation,
                          record->state == SNAPSHOT_KEPT ? LINEAGE_KEPT : LINEAGE_HIDDEN);
    }
    return 0;
}

int
snapshot_load_lineage(struct pool_opening *opening, struct error *error)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;
    struct pool_load *load = &opening->load;
    const struct branch_record *branches =
        (const struct branch_record *)(const void *)load->branches.data;
    struct load_snapshot *snapshots = (struct load_snapshot *)(void *)load->snapshots.data;
    size_t snapshot_count = load->snapshots.length_bytes / sizeof(*snapshots);
    struct lineage_jobs jobs = { note_job, pool };
    int result = 0;

    for (size_t i = 0; i < load->branches.length_bytes / sizeof(*branches) && result == 0; i++) {
        result = load_branch(opening, &branches[i], error);
    }
    note_children(load);
    for (size_t i = 0; i < snapshot_count && result == 0; i++) {
        result = load_view(opening, &snapshots[i], error);
    }
    if (result < 0) {
        return result;
    }
    const struct lineage_branch *wrong = lineage_load_end(&pool->lineage);
    if (wrong != NULL) {
        return damaged_branch(error, wrong->id,
                              "does not fit its parent, its snapshots and its clones");
    }
    lineage_load_tails(&pool->lineage, &jobs);
    for (size_t i = 0; i < snapshot_count; i++) {
        if (snapshots[i].record.state == SNAPSHOT_DELETING) {
            lineage_load_gap(pool_find_branch(pool, snapshots[i].branch)->lineage,
                             (uint32_t)snapshots[i].generation, &jobs);
        }
    }
    return 0;
}

/* ---- who keeps extents, and the table ---- */

/* A nameless volume for what is left of one that was deleted; by its id, so that there is one. */
static struct volume *
keeper_of(struct pool *pool, struct pool_branch *branch, struct hash_table *keepers)
{
    uint64_t id = branch->record.volume;
    uint64_t hash = hash_u64(id);

    for (struct hash_node *node = hash_table_chain(keepers, hash); node != NULL;
         node = node->next) {
        struct volume *volume = container_of(node, struct volume, by_id);
        if (id != 0 && volume->durable.id == id) {
            return volume;
        }
    }
    struct branch_position none = { 0 };
    struct volume_record record = {
        .id = id,
        .branch = branch->record.id,
        .sector_bytes = VOLUME_SECTOR_BYTES_DEFAULT,
        .copies = 1,
        .tier = VOLUME_TIER_AUTO,
        .deleting = true,
    };
    struct volume *volume = volume_new(pool, &record, &branch->record, &none);
    volume->durable = record;
    volume->keeper = true;
    volume_publish_info(volume);
    list_push_back(&pool->volumes, &volume->pool_link);
    hash_table_insert(keepers, &volume->by_id, hash);
    return volume;
}

static int
load_keepers(struct pool *pool, struct error *error)
{
    struct hash_table keepers;
    int result = 0;

    hash_table_init(&keepers, 64);
    list_for_each(&pool->branch_list, link) {
        struct pool_branch *branch = list_entry(link, struct pool_branch, link);
        if (branch->volume != NULL) {
            continue; /* a head's */
        }
        if (branch->lineage->has_head) {
            result = damaged_branch(error, branch->record.id, "is that of a volume that is gone");
            break;
        }
        struct volume *volume = pool_find_volume_by_id(pool, branch->record.volume);
        pool_branch_set_volume(branch, volume != NULL ? volume
                                                      : keeper_of(pool, branch, &keepers));
    }
    hash_table_free(&keepers);
    return result;
}

int
snapshot_load_tables(struct pool_opening *opening, struct error *error)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;
    const struct load_snapshot *snapshots =
        (const struct load_snapshot *)(const void *)opening->load.snapshots.data;
    size_t count = opening->load.snapshots.length_bytes / sizeof(*snapshots);

    int result = load_keepers(pool, error);
    for (size_t i = 0; i < count && result == 0; i++) {
        const struct snapshot_record *record = &snapshots[i].record;
        const struct volume *volume = pool_find_volume_by_id(pool, record->volume);
        if (record->state == 0) {
            continue;
        }
        if (record->state == SNAPSHOT_KEPT) {
            if (volume == NULL || volume->durable.deleting) {
                return damaged_snapshot(error, &snapshots[i], "is of a volume that is gone");
            }
            if (pool_snapshot_name_is_taken(pool, volume, record->name)) {
                return damaged_snapshot(error, &snapshots[i], "has the name of another one");
            }
        }
        snapshot_add(pool, pool_find_branch(pool, snapshots[i].branch),
                     (uint32_t)snapshots[i].generation, record);
    }
    return result;
}

/* ---- generations ---- */

static void
raise_to(struct pool_opening *opening, struct volume *volume, uint32_t generation)
{
    struct pool_branch *branch = pool_find_branch(opening->pool, volume->branch.id);

    ASSERT(branch != NULL && branch->lineage->has_head);
    if (!branch_is_counted(&volume->branch) && volume->mapped_grains > 0) {
        /* From now on its grains are counted by generation. */
        struct history_counter counter = {
            .branch = volume->branch.id,
            .death = HISTORY_FOREVER,
            .birth = (uint32_t)volume->branch.current_generation,
        };
        schema_add_counter(&opening->first, &counter, (int64_t)volume->mapped_grains);
    }
    volume->branch.current_generation = generation;
    branch->lineage->current = generation;
    branch->record = volume->branch;
}

void
pool_load_raise(struct pool_opening *opening, struct volume *volume, uint32_t generation)
{
    if (generation > volume->branch.current_generation) {
        raise_to(opening, volume, generation);
        opening->branches_changed = true;
    }
}

void
pool_load_unclean(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);

    list_for_each(&opening->pool->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        uint64_t current = volume->branch.current_generation;
        if (volume->durable.deleting || !branch_is_counted(&volume->branch)) {
            continue;
        }
        volume->branch.unclean_generation = current;
        /* At the end of all numbers nothing that comes is newer than it; so be it. */
        raise_to(opening, volume, (uint32_t)(current + (current < GENERATION_LAST)));
        opening->branches_changed = true;
    }
}

void
pool_load_put_first(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);

    if (opening->branches_changed) {
        list_for_each(&opening->pool->volumes, link) {
            struct volume *volume = list_entry(link, struct volume, pool_link);
            if (!volume->durable.deleting && branch_is_counted(&volume->branch)) {
                schema_put_branch(&opening->first, &volume->branch);
            }
        }
        opening->branches_changed = false;
    }
    byte_buffer_append(&opening->batch, opening->first.data, opening->first.length_bytes);
    byte_buffer_clear(&opening->first);
}
