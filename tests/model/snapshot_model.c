/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random writes, snapshots, clones, rollbacks, deletions, promotions on a tree of branches, against
 * a naive reference: a full copy of the content for each view, and a tree of views in which a
 * deleted one stays exactly while it has more than one child.
 *
 *     snapshot_model [OPERATIONS [SEED [CHECK-EVERY]]]
 *
 * Compared: every block of every view; the grains in use with those that views name; the counters
 * of space with the same, in total, for each view alone, and for what a deletion will free; changed
 * blocks between any two views; versions and links with who sees them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/model/snapshot_world.h"
#include "volmgr/map_diff_impl.h"

enum {
    NODES_MAX = 1024,
    SNAPSHOTS_WANTED = 220,
    VOLUMES_WANTED = 48,
    VICTIMS_MAX = NODES_MAX,
};

/* A view, as the reference knows it. */
struct view_node {
    bool exists;
    bool is_head;
    bool visible; /* not deleted by its owner */
    bool ready;   /* kept, not pending */
    struct view_node *parent;
    uint32_t children;
    struct world_volume *volume; /* in whose list it is */
    struct lineage_branch *branch;
    uint32_t generation; /* LINEAGE_FOREVER: a head */
    uint32_t content[WORLD_BLOCKS];
};

struct model {
    struct world world;
    struct view_node *nodes;
    uint32_t snapshot_count; /* visible */
    uint32_t volume_count;
    uint64_t operation;
    uint64_t counts[16];
    uint64_t blocks_compared;
    uint64_t diff_blocks, diff_compared;
    uint32_t branches_max, views_max;
};

/* ---- the tree of views ---- */

static struct view_node *
node_new(struct model *model, struct view_node *parent)
{
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        struct view_node *node = &model->nodes[i];
        if (!node->exists) {
            memset(node, 0, sizeof(*node));
            node->exists = true;
            node->visible = true;
            node->parent = parent;
            if (parent != NULL) {
                parent->children++;
            }
            return node;
        }
    }
    UNREACHABLE();
}

/* It goes if it is not needed: then its child, if it has one, hangs on its parent. */
static void
node_settle(struct model *model, struct view_node *node)
{
    while (node != NULL && !node->visible && node->children <= 1) {
        struct view_node *parent = node->parent;
        for (uint32_t i = 0; i < NODES_MAX && node->children > 0; i++) {
            if (model->nodes[i].exists && model->nodes[i].parent == node) {
                model->nodes[i].parent = parent;
            }
        }
        if (parent != NULL && node->children == 0) {
            parent->children--;
        }
        node->exists = false;
        node = parent;
    }
}

static void
node_delete(struct model *model, struct view_node *node)
{
    ASSERT(node->visible);
    node->visible = false;
    if (!node->is_head && node->ready) {
        model->snapshot_count--;
    }
    node_settle(model, node);
}

static void
content_changed(void *context, struct world_volume *volume, uint32_t block, uint32_t stamp,
                bool in_pending)
{
    (void)context;
    volume->head->content[block] = stamp;
    if (in_pending) {
        volume->pending_node->content[block] = stamp;
    }
}

/* What a view's page says; NULL: nothing. */
static const struct map_entry *
node_entries(struct model *model, const struct view_node *node, uint32_t page)
{
    if (node->is_head) {
        return volume_page(&model->world, node->volume, page)->entries;
    }
    const struct world_version *version =
        world_resolve(&model->world, node->branch, node->generation, page);
    return version != NULL ? version->entries : NULL;
}

/* ---- comparing ---- */

static void
check_view(struct model *model, const struct view_node *node)
{
    static const struct map_entry empty;

    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        const struct map_entry *entries = node_entries(model, node, page);
        for (uint32_t i = 0; i < WORLD_ENTRIES; i++) {
            const struct map_entry *entry = entries != NULL ? &entries[i] : &empty;
            ASSERT(map_entry_is_sound(entry));
            for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
                uint32_t at = (page * WORLD_ENTRIES + i) * BLOCKS_PER_GRAIN + block;
                ASSERT_OP(world_read_block(&model->world, entry, block), ==, node->content[at]);
            }
        }
    }
    model->blocks_compared += WORLD_BLOCKS;
}

/* For each grain, how many views name it, and the last of them that was seen. */
struct naming {
    uint32_t *count;
    const struct view_node **by;
};

static uint32_t
collect_names(struct model *model, struct naming *naming)
{
    uint32_t named = 0;

    naming->count = calloc(WORLD_GRAINS, sizeof(*naming->count));
    naming->by = calloc(WORLD_GRAINS, sizeof(*naming->by));
    ASSERT(naming->count != NULL && naming->by != NULL);
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        const struct view_node *node = &model->nodes[n];
        for (uint32_t page = 0; node->exists && page < WORLD_PAGES; page++) {
            const struct map_entry *entries = node_entries(model, node, page);
            for (uint32_t i = 0; entries != NULL && i < 2 * WORLD_ENTRIES; i++) {
                const struct map_entry *entry = &entries[i / 2];
                grain_address grain = i % 2 == 0 ? entry->home : entry->base;
                if (grain != GRAIN_NONE) {
                    ASSERT(model->world.grains[grain].used);
                    named += naming->count[grain]++ == 0;
                    naming->by[grain] = node;
                }
            }
        }
    }
    return named;
}

static void
naming_free(struct naming *naming)
{
    free(naming->count);
    free(naming->by);
}

static void
check_exclusive(struct model *model, const struct naming *naming)
{
    struct space_source source = world_space(&model->world);
    uint64_t grains[NODES_MAX + 1];
    uint32_t views[NODES_MAX];

    for (uint32_t n = 0; n < NODES_MAX; n++) {
        struct view_node *node = &model->nodes[n];
        if (!node->exists || (node->children > 1 && !node->is_head)) {
            continue;
        }
        uint32_t count = lineage_views(node->branch, views, NODES_MAX);
        space_line_exclusive(&source, node->branch, grains);
        uint32_t index = count;
        for (uint32_t i = 0; i < count && !node->is_head; i++) {
            index = views[i] == node->generation ? i : index;
        }
        const struct lineage_view *view =
            node->is_head ? NULL : lineage_find_view(node->branch, node->generation);
        if (view != NULL && view->dependents > 0) {
            continue; /* its clones see what it sees */
        }
        uint64_t expected = 0;
        for (uint32_t grain = 1; grain < WORLD_GRAINS; grain++) {
            expected += naming->count[grain] == 1 && naming->by[grain] == node;
        }
        ASSERT_OP(grains[index], ==, expected);
    }
}

/* The tree of the lineage is that of the reference. */
static void
check_tree(struct model *model)
{
    uint32_t views = 0;
    uint32_t heads = 0;
    uint32_t nodes = 0;
    uint32_t branches = 0;

    ASSERT(lineage_is_sound(&model->world.lineage));
    list_for_each(&model->world.lineage.branches, link) {
        const struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        views += branch->view_count;
        heads += branch->has_head;
        branches += !branch->ended;
    }
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        const struct view_node *node = &model->nodes[n];
        nodes += node->exists;
        if (node->exists && !node->is_head) {
            const struct lineage_view *view =
                lineage_find_view(node->branch, node->generation);
            ASSERT(view != NULL);
            ASSERT_OP(view->state == LINEAGE_HIDDEN, ==, !node->visible);
        }
    }
    ASSERT_OP(views + heads, ==, nodes);
    model->branches_max = MAX(model->branches_max, branches);
    model->views_max = MAX(model->views_max, nodes);
}

/* Each stored version has its link, and someone who sees it. */
static void
check_versions(struct model *model)
{
    const struct world *world = &model->world;

    list_for_each(&model->world.lineage.branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        const struct world_branch *stored = world_stored(world, branch);
        uint32_t versions = 0;
        for (uint32_t i = 0; i < stored->link_count; i++) {
            const struct version_link *own = &stored->links[i];
            uint32_t page = (uint32_t)own->page;
            ASSERT(world_find_version(world, branch, page, own->version) != NULL);
            uint32_t previous = world_previous(world, branch, own->version, page, NULL);
            ASSERT_OP(own->previous, ==, previous > branch->fork ? previous : 0);
            /* Up to the next one of the line, whichever branch that is in. */
            uint32_t until = LINEAGE_FOREVER;
            struct lineage_branch *above = branch;
            ASSERT(!branch->ended && own->version <= lineage_bound(branch));
            for (uint32_t from = own->version; above != NULL && until == LINEAGE_FOREVER;
                 above = above->continued_by) {
                const struct world_version *next = world_next_version(world, above, page, from);
                until = next != NULL ? next->number : until;
                from = above->continued_by != NULL ? above->continued_by->fork : from;
            }
            ASSERT(lineage_sees(branch, own->version, until));
        }
        for (uint32_t page = 0; page < WORLD_PAGES; page++) {
            versions += stored->pages[page].count;
        }
        ASSERT_OP(versions, ==, stored->link_count);
    }
}

/* With nothing in flight and no jobs left, all is compared. */
static void
check_all(struct model *model)
{
    struct world *world = &model->world;
    struct space_source source = world_space(world);
    struct naming naming;

    for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
        if (world->volumes[i].exists) {
            volume_finish_windows(world, &world->volumes[i]);
            if (world->volumes[i].pending != 0) {
                volume_seal(world, &world->volumes[i]); /* a pending view is stored now, too */
            }
        }
    }
    world_drain(world);
    world_tidy(world);
    check_tree(model);
    check_versions(model);
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        if (model->nodes[n].exists) {
            check_view(model, &model->nodes[n]);
        }
    }
    uint32_t named = collect_names(model, &naming);
    ASSERT_OP(named, ==, world->used_count);
    ASSERT_OP(space_total_grains(&source, &world->lineage), ==, world->used_count);
    check_exclusive(model, &naming);
    naming_free(&naming);
}

/* ---- operations ---- */

static uint32_t
below(struct model *model, uint32_t limit)
{
    return (uint32_t)random_below(&model->world.random, limit);
}

static struct world_volume *
any_volume(struct model *model)
{
    struct world_volume *volume = NULL;

    do {
        volume = &model->world.volumes[below(model, WORLD_VOLUMES)];
    } while (!volume->exists);
    return volume;
}

/* A snapshot that is kept and visible, of this volume or (NULL) of any; NULL: there is none. */
static struct view_node *
any_snapshot(struct model *model, const struct world_volume *volume)
{
    uint32_t start = below(model, NODES_MAX);

    for (uint32_t i = 0; i < NODES_MAX; i++) {
        struct view_node *node = &model->nodes[(start + i) % NODES_MAX];
        if (node->exists && node->visible && node->ready && !node->is_head &&
            (volume == NULL || node->volume == volume)) {
            return node;
        }
    }
    return NULL;
}

static uint16_t
any_mask(struct model *model)
{
    uint32_t first = below(model, BLOCKS_PER_GRAIN);
    uint32_t length = below(model, 4) != 0 ? 1 : 1 + below(model, BLOCKS_PER_GRAIN - first);

    return (uint16_t)((UINT32_C(1) << (first + length)) - (UINT32_C(1) << first));
}

static struct world_volume *
volume_make(struct model *model, struct view_node *from)
{
    struct world *world = &model->world;
    struct world_volume *volume = NULL;

    for (uint32_t i = 0; i < WORLD_VOLUMES && volume == NULL; i++) {
        volume = world->volumes[i].exists ? NULL : &world->volumes[i];
    }
    if (volume == NULL) {
        return NULL;
    }
    *volume = (struct world_volume){ .exists = true };
    volume->branch = from == NULL ? lineage_add_root(&world->lineage, world->next_branch++)
                                  : lineage_fork(&world->lineage, from->branch, from->generation,
                                                 world->next_branch++);
    world_add_stored(world, volume->branch);
    volume->head = node_new(model, from);
    volume->head->is_head = true;
    volume->head->volume = volume;
    volume->head->branch = volume->branch;
    volume->head->generation = LINEAGE_FOREVER;
    if (from != NULL) {
        memcpy(volume->head->content, from->content, sizeof(from->content));
    }
    model->volume_count++;
    return volume;
}

static void
bump(struct model *model, struct world_volume *volume)
{
    struct view_node *head = volume->head;

    if (volume->pending != 0 || model->snapshot_count >= 2 * SNAPSHOTS_WANTED) {
        return;
    }
    volume_bump(&model->world, volume);
    struct view_node *node = node_new(model, NULL);
    node->parent = head->parent;
    node->children = 1;
    head->parent = node;
    node->volume = volume;
    node->branch = volume->branch;
    node->generation = volume->pending;
    memcpy(node->content, head->content, sizeof(node->content));
    volume->pending_node = node;
}

static void
keep_or_abandon(struct model *model, struct world_volume *volume, bool keep)
{
    if (volume->pending == 0) {
        return;
    }
    if (!keep) {
        struct view_node *node = volume->pending_node;
        volume_abandon(&model->world, volume);
        node_delete(model, node);
    } else if (volume_keep(&model->world, volume)) {
        volume->pending_node->ready = true;
        model->snapshot_count++;
        check_view(model, volume->pending_node);
    }
}

static void
make_idle(struct model *model, struct world_volume *volume)
{
    volume_finish_windows(&model->world, volume);
    keep_or_abandon(model, volume, below(model, 2) == 0);
    ASSERT_OP(volume->pending, ==, 0u);
}

static void
rollback(struct model *model, struct world_volume *volume)
{
    struct world *world = &model->world;
    struct lineage_jobs jobs = world_jobs(world);
    struct lineage_branch *old = volume->branch;
    struct view_node *old_head = volume->head;

    make_idle(model, volume);
    struct view_node *to = any_snapshot(model, volume);
    if (to == NULL) {
        return;
    }
    volume_seal(world, volume);
    volume->branch =
        lineage_fork(&world->lineage, to->branch, to->generation, world->next_branch++);
    world_add_stored(world, volume->branch);
    memset(volume->pages, 0, sizeof(volume->pages));
    lineage_drop_head(old, &jobs);
    volume->head = node_new(model, to);
    volume->head->is_head = true;
    volume->head->volume = volume;
    volume->head->branch = volume->branch;
    volume->head->generation = LINEAGE_FOREVER;
    memcpy(volume->head->content, to->content, sizeof(to->content));
    node_delete(model, old_head);
}

/* ---- deletion, with its forecast ---- */

struct victims {
    struct space_victim list[VICTIMS_MAX];
    struct view_node *nodes[VICTIMS_MAX];
    uint32_t count;
};

static void
victims_add(struct victims *victims, struct view_node *node)
{
    for (uint32_t i = 0; i < victims->count; i++) {
        if (victims->nodes[i] == node) {
            return;
        }
    }
    victims->nodes[victims->count] = node;
    victims->list[victims->count++] = (struct space_victim){ node->branch, node->generation };
}

static void
victims_add_volume(struct model *model, struct victims *victims, struct world_volume *volume)
{
    make_idle(model, volume);
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        struct view_node *node = &model->nodes[n];
        if (node->exists && node->visible && node->volume == volume) {
            victims_add(victims, node);
        }
    }
}

static void
delete_victims(struct model *model, const struct victims *victims)
{
    struct world *world = &model->world;
    struct lineage_jobs jobs = world_jobs(world);
    uint32_t start = victims->count > 0 ? below(model, victims->count) : 0;

    for (uint32_t i = 0; i < victims->count; i++) {
        uint32_t at = (start + i) % victims->count; /* in any order */
        struct view_node *node = victims->nodes[at];
        if (node->is_head) {
            volume_seal(world, node->volume);
            lineage_drop_head(node->branch, &jobs);
            node->volume->exists = false;
            model->volume_count--;
        } else {
            lineage_drop_view(node->branch, node->generation, &jobs);
        }
        node_delete(model, node);
    }
}

static void
delete_one(struct model *model)
{
    static struct victims victims;
    struct view_node *node = any_snapshot(model, NULL);

    victims.count = 0;
    if (node != NULL) {
        victims_add(&victims, node);
        delete_victims(model, &victims);
    }
}

static void
delete_set(struct model *model, bool with_volumes)
{
    static struct victims victims;
    struct world *world = &model->world;
    struct space_source source = world_space(world);
    bool hidden[VICTIMS_MAX];

    victims.count = 0;
    if (with_volumes) {
        victims_add_volume(model, &victims, any_volume(model));
    }
    for (uint32_t i = below(model, 12); i > 0; i--) {
        struct view_node *node = any_snapshot(model, NULL);
        if (node != NULL) {
            victims_add(&victims, node);
        }
    }
    for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
        if (world->volumes[i].exists) {
            volume_finish_windows(world, &world->volumes[i]);
        }
    }
    world_drain(world);
    uint32_t before = world->used_count;
    uint64_t freed =
        space_freed_by(&source, &world->lineage, victims.list, victims.count, hidden);
    delete_victims(model, &victims);
    for (uint32_t i = 0; i < victims.count; i++) {
        const struct view_node *node = victims.nodes[i];
        ASSERT_OP(hidden[i], ==, node->exists && !node->is_head);
    }
    world_drain(world);
    ASSERT_OP(before - world->used_count, ==, freed);
}

static void
promote(struct model *model, struct world_volume *volume)
{
    struct world *world = &model->world;
    struct lineage_branch *bottom = lineage_bottom(volume->branch);
    struct view_node *child = volume->head;

    if (bottom->parent == NULL) {
        return;
    }
    world_drain(world); /* one job of a line at a time */
    for (struct view_node *node = child->parent; node != NULL; node = node->parent) {
        if (!node->is_head && node->branch == bottom->parent && node->generation == bottom->fork) {
            break;
        }
        child = node;
    }
    struct view_node *origin = child->parent;
    ASSERT(origin != NULL);
    world_promote(world, volume);
    child->parent = NULL;
    origin->children--;
    node_settle(model, origin);
}

/* ---- changed blocks ---- */

static const struct view_node *
any_node(struct model *model)
{
    for (;;) {
        const struct view_node *node = &model->nodes[below(model, NODES_MAX)];
        if (node->exists && (node->ready || node->is_head)) {
            return node;
        }
    }
}

/* Has the page a version of the line between the two views? Then it must be looked at. */
static bool
page_is_listed(struct model *model, const struct view_node *older, const struct view_node *newer,
               uint32_t page)
{
    struct lineage_branch *branch = lineage_segment(lineage_top(newer->branch),
                                                    older->generation + 1);

    for (; branch != NULL; branch = branch->continued_by) {
        const struct world_branch *stored = world_stored(&model->world, branch);
        struct version_link cursor = { .version = older->generation + 1 };
        for (;;) {
            const struct version_link *link = world_find_link(stored, &cursor);
            if (link == NULL || link->version > newer->generation ||
                link->version > lineage_bound(branch)) {
                break;
            }
            if (link->page == page) {
                return true;
            }
            cursor = *link;
            cursor.page++;
        }
    }
    return false;
}

static void
diff(struct model *model)
{
    static const struct map_entry empty;
    const struct view_node *older = any_node(model);
    const struct view_node *newer = any_node(model);

    if (newer->is_head) {
        volume_finish_windows(&model->world, newer->volume);
        volume_seal(&model->world, newer->volume);
    }
    if (older->is_head) {
        volume_finish_windows(&model->world, older->volume);
    }
    struct map_diff_views views = {
        .same_line = lineage_top(older->branch) == lineage_top(newer->branch) &&
                     older->generation < newer->generation,
        .older = older->generation,
    };
    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        const struct map_entry *from = node_entries(model, older, page);
        const struct map_entry *to = node_entries(model, newer, page);
        bool differs = false;
        for (uint32_t i = 0; i < WORLD_ENTRIES; i++) {
            struct map_diff found = map_entry_diff(from != NULL ? &from[i] : &empty,
                                                   to != NULL ? &to[i] : &empty, &views);
            for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
                uint32_t at = (page * WORLD_ENTRIES + i) * BLOCKS_PER_GRAIN + block;
                bool changed = older->content[at] != newer->content[at];
                differs |= changed;
                model->diff_blocks += changed;
                if ((found.compare >> block & 1) != 0) {
                    model->diff_compared++; /* the bytes tell */
                } else {
                    ASSERT_OP(found.changed >> block & 1, ==, changed);
                }
            }
        }
        if (views.same_line && differs) {
            ASSERT(page_is_listed(model, older, newer, page));
        }
    }
}

/* ---- the driver ---- */

static void
write_somewhere(struct model *model)
{
    struct world *world = &model->world;
    struct world_volume *volume = any_volume(model);

    if (!volume_write_begin(world, volume, below(model, WORLD_PAGES), below(model, WORLD_ENTRIES),
                            any_mask(model))) {
        window_finish(world, &world->windows[below(model, WORLD_WINDOWS)], true);
    }
}

static void
finish_some_window(struct model *model)
{
    struct world *world = &model->world;
    struct world_window *window = &world->windows[below(model, WORLD_WINDOWS)];

    if (window->volume != NULL) {
        window_finish(world, window, below(model, 16) != 0);
    }
}

static void
act_on_branches(struct model *model, uint32_t which)
{
    struct view_node *snapshot = any_snapshot(model, NULL);

    if (which < 30) {
        if (model->volume_count < VOLUMES_WANTED && snapshot != NULL) {
            volume_make(model, snapshot);
        }
    } else if (which < 33) {
        if (model->volume_count < VOLUMES_WANTED) {
            volume_make(model, NULL);
        }
    } else if (which < 60) {
        rollback(model, any_volume(model));
    } else if (which < 66) {
        delete_set(model, model->volume_count > 2 && below(model, 2) == 0);
    } else if (which < 74) {
        promote(model, any_volume(model));
    } else if (which < 84) {
        world_drain(&model->world);
        make_idle(model, any_volume(model));
        world_flatten(&model->world, any_volume(model));
    } else {
        diff(model);
    }
}

static void
act(struct model *model)
{
    struct world *world = &model->world;
    struct world_volume *volume = any_volume(model);
    uint32_t page = below(model, WORLD_PAGES);
    uint32_t entry = below(model, WORLD_ENTRIES);
    uint32_t which = below(model, 1000);

    if (which < 360) {
        write_somewhere(model);
    } else if (which < 680) {
        finish_some_window(model);
    } else if (which < 740) {
        volume_zero(world, volume, page, entry, any_mask(model));
    } else if (which < 760) {
        volume_merge(world, volume, page, entry);
    } else if (which < 800) {
        volume_seal(world, volume);
    } else if (which < 830) {
        volume_evict(world, volume);
    } else if (which < 900) {
        world_job_step(world);
    } else if (which < 940) {
        bump(model, volume);
    } else if (which < 970) {
        keep_or_abandon(model, volume, below(model, 20) != 0);
    } else if (which < 990) {
        if (model->snapshot_count > below(model, SNAPSHOTS_WANTED)) {
            delete_one(model);
        }
    } else {
        act_on_branches(model, below(model, 100));
    }
}

/* When all names are gone, nothing is left. */
static void
delete_everything(struct model *model)
{
    static struct victims victims;
    struct world *world = &model->world;

    for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
        if (world->volumes[i].exists) {
            victims.count = 0;
            victims_add_volume(model, &victims, &world->volumes[i]);
            delete_victims(model, &victims);
            world_drain(world);
        }
    }
    while (!list_empty(&world->lineage.branches)) {
        uint32_t before = world->used_count;
        ASSERT_OP(before, ==, 0u);
        world_tidy(world);
    }
}

static void
run(uint64_t operations, uint64_t seed, uint64_t check_every)
{
    struct model model = { 0 };
    struct world *world = &model.world;

    model.nodes = calloc(NODES_MAX, sizeof(*model.nodes));
    ASSERT(model.nodes != NULL);
    world_init(world, seed);
    world->content = content_changed;
    volume_make(&model, NULL);
    for (model.operation = 0; model.operation < operations; model.operation++) {
        act(&model);
        if (model.operation % check_every == 0) {
            check_all(&model);
        }
    }
    check_all(&model);
    printf("%llu operations, seed %llu: up to %u branches and %u views at once, %llu blocks "
           "compared\n",
           (unsigned long long)operations, (unsigned long long)seed, model.branches_max,
           model.views_max, (unsigned long long)model.blocks_compared);
    printf("%llu blocks copied, %llu late writes, %llu versions reclaimed; changed blocks: %llu, "
           "of those and others %llu by comparing bytes\n",
           (unsigned long long)world->copied_blocks, (unsigned long long)world->late_finished,
           (unsigned long long)world->versions_reclaimed, (unsigned long long)model.diff_blocks,
           (unsigned long long)model.diff_compared);
    delete_everything(&model);
    world_free(world);
    free(model.nodes);
}

int
main(int argc, char **argv)
{
    uint64_t operations = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

    uint64_t check_every = argc > 3 ? strtoull(argv[3], NULL, 0) : 997;

    run(operations, seed, MAX(check_every, UINT64_C(1)));
    return EXIT_SUCCESS;
}
