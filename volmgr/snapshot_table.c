/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of branches and snapshots, what a volume knows of its place among them, and how it
 * moves there. See snapshot_impl.h.
 */
#include "volmgr/snapshot_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/control_impl.h"

/* ---- chains ---- */

static struct view_chain *
chain_new(uint32_t places)
{
    struct view_chain *chain =
        calloc(1, sizeof(*chain) + places * sizeof(chain->places[0]));

    ASSERT(chain != NULL);
    chain->refs = 1;
    chain->all = places;
    chain->count = places;
    return chain;
}

struct view_chain *
view_chain_make_root(uint64_t branch)
{
    struct view_chain *chain = chain_new(1);

    chain->places[0] = (struct view_place){ branch, LINEAGE_FOREVER };
    return chain;
}

struct view_chain *
view_chain_make(struct lineage_branch *branch, uint32_t generation)
{
    struct lineage_step step = lineage_first(branch, generation);
    uint32_t all = 1;
    uint32_t count = 1;
    bool complete = step.branch->complete;

    while (lineage_below(&step)) {
        count += !complete;
        complete = complete || step.branch->complete;
        all++;
    }
    struct view_chain *chain = chain_new(all);
    chain->count = count;
    step = lineage_first(branch, generation);
    for (uint32_t i = 0; i < all; i++) {
        chain->places[i] = (struct view_place){ step.branch->id, step.generation };
        ASSERT(i == 0 || step.generation < chain->places[i - 1].generation);
        lineage_below(&step);
    }
    return chain;
}

void
view_chain_put(struct view_chain *chain)
{
    if (chain != NULL && --chain->refs == 0) {
        free(chain);
    }
}

uint64_t
view_chain_branch(const struct view_chain *chain, uint32_t version)
{
    uint32_t place = 0;

    ASSERT_OP(version, !=, 0u);
    ASSERT_OP(version, <=, chain->places[0].generation);
    while (place + 1 < chain->all && version <= chain->places[place + 1].generation) {
        place++;
    }
    return chain->places[place].branch;
}

/* ---- branches ---- */

struct pool_branch *
pool_find_branch(const struct pool *pool, uint64_t id)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t hash = hash_u64(id);

    for (struct hash_node *node = hash_table_chain(&pool->branches, hash); node != NULL;
         node = node->next) {
        struct pool_branch *branch = container_of(node, struct pool_branch, by_id);
        if (branch->record.id == id) {
            return branch;
        }
    }
    return NULL;
}

struct pool_branch *
pool_branch_add(struct pool *pool, const struct branch_record *record,
                struct lineage_branch *lineage)
{
    struct pool_branch *branch = calloc(1, sizeof(*branch));

    ASSERT(branch != NULL);
    ASSERT(pool_find_branch(pool, record->id) == NULL);
    ASSERT_OP(lineage->id, ==, record->id);
    branch->record = *record;
    branch->lineage = lineage;
    hash_table_insert(&pool->branches, &branch->by_id, hash_u64(record->id));
    list_push_back(&pool->branch_list, &branch->link);
    return branch;
}

/* ---- keepers ---- */

/* A keeper on its way out: its shard forgets it, then it is freed. */
struct keeper_end {
    struct message message;
    struct volume *volume;
};

static void
keeper_ended(struct message *message)
{
    struct keeper_end *end = container_of(message, struct keeper_end, message);
    struct volume *volume = end->volume;

    pool_remove_volume(volume->pool, volume);
    volume_release(volume);
    free(end);
}

static void
keeper_unlink(struct message *message)
{
    struct keeper_end *end = container_of(message, struct keeper_end, message);
    struct volume *volume = end->volume;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT(list_empty(&volume->active) && list_empty(&volume->dirty_pages));
    ASSERT(list_empty(&volume->source.partial));
    map_cache_forget(&volume->shard->cache, volume);
    if (list_linked(&volume->shard_link)) { /* not when the pool has stopped in the meantime */
        list_remove(&volume->shard_link);
    }
    reactor_send(volume->pool->manager->control, &end->message, keeper_ended);
}

/* The branch is no affair of the volume any more. */
static void
branch_leave(struct pool_branch *branch)
{
    struct volume *volume = branch->volume;

    branch->volume = NULL;
    if (volume == NULL) {
        return;
    }
    ASSERT_OP(volume->branches_kept, >, 0u);
    volume->branches_kept--;
    if (!volume->keeper || volume->branches_kept > 0) {
        return;
    }
    struct keeper_end *end = calloc(1, sizeof(*end));
    ASSERT(end != NULL);
    end->volume = volume;
    volume->altering = true; /* who closes the pool waits for it */
    reactor_send(volume->shard->reactor, &end->message, keeper_unlink);
}

void
pool_branch_set_volume(struct pool_branch *branch, struct volume *volume)
{
    ASSERT(branch->volume == NULL);
    branch->volume = volume;
    volume->branches_kept++;
}

void
pool_branch_remove(struct pool *pool, struct pool_branch *branch)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT_OP(branch->extents, ==, 0u);
    branch_leave(branch);
    hash_table_remove(&pool->branches, &branch->by_id);
    list_remove(&branch->link);
    lineage_forget(branch->lineage);
    free(branch);
}

void
pool_branch_put(struct pool_branch *branch, struct byte_buffer *batch)
{
    const struct lineage_branch *lineage = branch->lineage;
    const struct lineage_branch *parent = lineage->parent;
    struct branch_record *record = &branch->record;

    record->parent = parent != NULL ? parent->id : 0;
    record->fork_generation = lineage->fork;
    record->current_generation = MAX(record->current_generation, (uint64_t)lineage->current);
    record->flags = 0;
    record->flags |= lineage->has_head ? 0 : BRANCH_HEADLESS;
    record->flags |= lineage->complete ? BRANCH_COMPLETE : 0;
    record->flags |= lineage->continues ? BRANCH_CONTINUES : 0; /* also of one that has ended */
    schema_put_branch(batch, record);
}

struct volume *
pool_find_keeper(const struct pool *pool, uint64_t branch_id)
{
    const struct pool_branch *branch = pool_find_branch(pool, branch_id);

    return branch != NULL ? branch->volume : NULL;
}

/* ---- snapshots ---- */

static uint64_t
view_hash(uint64_t branch, uint32_t generation)
{
    return hash_u64(hash_u64(branch) + generation);
}

struct snapshot *
pool_find_snapshot(const struct pool *pool, uint64_t branch, uint32_t generation)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t hash = view_hash(branch, generation);

    for (struct hash_node *node = hash_table_chain(&pool->snapshots, hash); node != NULL;
         node = node->next) {
        struct snapshot *snapshot = container_of(node, struct snapshot, by_view);
        if (snapshot->branch->record.id == branch && snapshot->generation == generation) {
            return snapshot;
        }
    }
    return NULL;
}

static uint64_t
name_hash(const struct volume *volume, const char *name)
{
    return hash_u64(text_hash(name) + volume->durable.id);
}

static struct snapshot *
find_by_name(const struct volume *volume, const char *name)
{
    const struct pool *pool = volume->pool;
    uint64_t hash = name_hash(volume, name);

    ASSERT_ON_REACTOR(pool->manager->control);
    for (struct hash_node *node = hash_table_chain(&pool->snapshots_by_name, hash); node != NULL;
         node = node->next) {
        struct snapshot *snapshot = container_of(node, struct snapshot, by_name);
        if (snapshot->volume == volume && strcmp(snapshot->record.name, name) == 0) {
            return snapshot;
        }
    }
    return NULL;
}

static void
name_remove(struct snapshot *snapshot)
{
    if (snapshot->is_named) {
        hash_table_remove(&snapshot->pool->snapshots_by_name, &snapshot->by_name);
        snapshot->is_named = false;
    }
}

struct snapshot *
pool_find_snapshot_by_name(const struct pool *pool, const struct volume *volume,
                           const char *name)
{
    struct snapshot *found = name[0] != '\0' ? find_by_name(volume, name) : NULL;

    ASSERT(volume->pool == pool);
    return found != NULL && found->record.state == SNAPSHOT_KEPT ? found : NULL;
}

bool
pool_snapshot_name_is_taken(const struct pool *pool, const struct volume *volume,
                            const char *name)
{
    ASSERT(volume->pool == pool && name[0] != '\0');
    return find_by_name(volume, name) != NULL;
}

static void
link_to_volume(struct snapshot *snapshot)
{
    struct list *position = snapshot->volume->snapshots.prev;

    /* Mostly it is the newest. */
    while (position != &snapshot->volume->snapshots &&
           list_entry(position, struct snapshot, volume_link)->record.id > snapshot->record.id) {
        position = position->prev;
    }
    list_insert_before(position->next, &snapshot->volume_link);
}

struct snapshot *
snapshot_add(struct pool *pool, struct pool_branch *branch, uint32_t generation,
             const struct snapshot_record *record)
{
    struct snapshot *snapshot = calloc(1, sizeof(*snapshot));

    ASSERT(snapshot != NULL);
    ASSERT(pool_find_snapshot(pool, branch->record.id, generation) == NULL);
    snapshot->pool = pool;
    snapshot->branch = branch;
    snapshot->generation = generation;
    snapshot->record = *record;
    list_init(&snapshot->volume_link);
    list_init(&snapshot->openings);
    snapshot->volume = pool_find_volume_by_id(pool, record->volume);
    if (snapshot->volume != NULL) {
        link_to_volume(snapshot);
    }
    if (snapshot->volume != NULL && record->name[0] != '\0') {
        hash_table_insert(&pool->snapshots_by_name, &snapshot->by_name,
                          name_hash(snapshot->volume, record->name));
        snapshot->is_named = true;
    }
    hash_table_insert(&pool->snapshots, &snapshot->by_view,
                      view_hash(branch->record.id, generation));
    list_push_back(&pool->snapshot_list, &snapshot->link);
    return snapshot;
}

void
snapshot_remove(struct snapshot *snapshot)
{
    ASSERT_ON_REACTOR(snapshot->pool->manager->control);
    ASSERT(snapshot->holds == 0 && snapshot->view_driver == NULL);
    name_remove(snapshot);
    hash_table_remove(&snapshot->pool->snapshots, &snapshot->by_view);
    list_remove(&snapshot->link);
    if (list_linked(&snapshot->volume_link)) {
        list_remove(&snapshot->volume_link);
    }
    free(snapshot);
}

void
snapshot_set_state(struct snapshot *snapshot, enum snapshot_state state)
{
    ASSERT_ON_REACTOR(snapshot->pool->manager->control);
    snapshot->record.state = (uint8_t)state;
    if (state == SNAPSHOT_HIDDEN || state == SNAPSHOT_DELETING) {
        name_remove(snapshot);
        snapshot->record.name[0] = '\0';
    }
}

/* ---- volumes and branches ---- */

void
volume_relink(struct volume *volume, struct view_chain *chain, uint32_t owned_above)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT_OP(chain->places[0].branch, ==, volume->branch.id);
    view_chain_put(volume->chain);
    volume->chain = chain;
    volume->owned_above = owned_above;
}

void
volume_switch_branch(struct volume *volume, const struct branch_record *branch,
                     struct view_chain *chain, uint32_t frozen, uint32_t owned_above,
                     uint64_t mapped_grains)
{
    ASSERT_ON_REACTOR(volume->shard->reactor);
    ASSERT(list_empty(&volume->active) && seal_is_clean(volume));
    ASSERT_OP(frozen, <, branch->current_generation);
    map_cache_forget(&volume->shard->cache, volume);
    volume->branch = *branch;
    volume->frozen = frozen;
    volume->mapped_grains = mapped_grains;
    /* A branch of its own has positions of its own. */
    volume->committed_batch = 0;
    volume->open_batch = 1;
    volume_relink(volume, chain, owned_above);
}

void
pool_volume_rebranch(struct pool *pool, struct volume *volume, struct pool_branch *branch)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT_OP(volume->branch.id, ==, branch->record.id); /* volume_switch_branch() */
    hash_table_remove(&pool->volumes_by_branch, &volume->by_branch);
    hash_table_insert(&pool->volumes_by_branch, &volume->by_branch,
                      hash_u64(branch->record.id));
    pool_branch_set_volume(branch, volume);
}

void
pool_volume_becomes_keeper(struct pool *pool, struct volume *volume)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(!volume->keeper && !volume->serving && list_empty(&volume->exports));
    ASSERT_OP(volume->branches_kept, >, 0u);
    hash_table_remove(&pool->volumes_by_id, &volume->by_id);
    hash_table_remove(&pool->volumes_by_branch, &volume->by_branch);
    if (!volume->durable.deleting) {
        hash_table_remove(&pool->volumes_by_name, &volume->by_name);
        ASSERT_OP(pool->volume_count, >, 0u);
        pool->volume_count--;
    }
    for (struct list *link = list_pop_front(&volume->snapshots); link != NULL;
         link = list_pop_front(&volume->snapshots)) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        name_remove(snapshot);
        snapshot->volume = NULL;
    }
    volume->keeper = true;
    volume->durable.deleting = true;
    volume->durable.name[0] = '\0';
    volume->durable.reserve_bytes = 0;
}

/* ---- the pool's part ---- */

void
pool_lineage_add_volume(struct pool *pool, struct volume *volume)
{
    struct pool_branch *branch = pool_find_branch(pool, volume->branch.id);

    if (branch == NULL) {
        struct lineage_branch *root = lineage_add_root(&pool->lineage, volume->branch.id);
        root->current = (uint32_t)volume->branch.current_generation;
        branch = pool_branch_add(pool, &volume->branch, root);
    }
    if (branch->volume != volume) {
        pool_branch_set_volume(branch, volume);
    }
}

void
pool_lineage_remove_volume(struct pool *pool, struct volume *volume)
{
    struct pool_branch *branch = pool_find_branch(pool, volume->branch.id);

    if (branch == NULL || branch->volume != volume) {
        return; /* a keeper, or all of it is going */
    }
    struct lineage_branch *lineage = branch->lineage;
    if (lineage->has_head && lineage->view_count == 0 && lineage->children == 0 &&
        lineage->parent == NULL) {
        lineage_drop_head(lineage, &(struct lineage_jobs){ 0 });
    }
    ASSERT(lineage->ended); /* who deletes a volume has seen to its snapshots */
    branch->extents = 0;
    pool_branch_remove(pool, branch);
}

void
pool_lineage_clear(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    list_for_each_safe(&pool->snapshot_list, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, link);
        snapshot->holds = 0;
        snapshot_remove(snapshot);
    }
    list_for_each_safe(&pool->branch_list, link) {
        struct pool_branch *branch = list_entry(link, struct pool_branch, link);
        hash_table_remove(&pool->branches, &branch->by_id);
        list_remove(&branch->link);
        free(branch);
    }
    lineage_free(&pool->lineage);
    byte_buffer_free(&pool->reclaim_jobs);
}
