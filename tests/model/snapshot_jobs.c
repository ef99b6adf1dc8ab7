/* SPDX-License-Identifier: Apache-2.0 */
/* Work in the background: versions that died, chains that are too long, clones that let go. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/model/snapshot_world.h"

static struct world_volume *
volume_of(struct world *world, struct lineage_branch *branch)
{
    struct lineage_branch *top = lineage_top(branch);

    for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
        if (world->volumes[i].exists && world->volumes[i].branch == top) {
            return &world->volumes[i];
        }
    }
    return NULL;
}

/* ---- the line of jobs ---- */

static void
add_job(void *context, const struct lineage_job *job)
{
    struct world *world = context;

    if (world->job_count == world->job_capacity) {
        world->job_capacity = MAX(16u, 2 * world->job_capacity);
        world->jobs = realloc(world->jobs, world->job_capacity * sizeof(*world->jobs));
        ASSERT(world->jobs != NULL);
    }
    world->jobs[world->job_count++] = *job;
}

struct lineage_jobs
world_jobs(struct world *world)
{
    return (struct lineage_jobs){ add_job, world };
}

/* ---- one version ---- */

static void
free_dead_grains(struct world *world, const struct map_entry *dying,
                 const struct map_entry *older, const struct map_entry *newer,
                 uint32_t owned_above)
{
    struct dead_grain grains[2 * WORLD_ENTRIES];
    uint32_t count =
        dead_version_grains(dying, older, newer, WORLD_ENTRIES, owned_above, grains);

    for (uint32_t i = 0; i < count; i++) {
        world_free_grain(world, grains[i].grain);
    }
    world->versions_reclaimed++;
}

/* The version that supersedes this one says which other one it supersedes from now on. */
static void
replace_link(struct world_branch *stored, uint32_t version, uint32_t page, uint32_t from,
             uint32_t to)
{
    struct version_link link = { .version = version, .previous = from, .page = page };

    world_remove_link(stored, &link);
    link.previous = to;
    world_add_link(stored, &link);
}

/* ---- tails ---- */

static bool
tail_step(struct world *world, const struct lineage_job *job)
{
    struct lineage_jobs jobs = world_jobs(world);
    struct world_branch *stored = world_stored(world, job->branch);
    struct version_link cursor = { .version = job->above + 1 };
    const struct version_link *found = world_find_link(stored, &cursor);

    if (found == NULL) {
        space_tail_prune(&stored->cells, job->above);
        lineage_tail_done(job->branch, &jobs);
        return false;
    }
    struct version_link link = *found;
    uint32_t page = (uint32_t)link.page;
    struct world_version *dying = world_find_version(world, job->branch, page, link.version);
    struct world_version *newer = world_next_version(world, job->branch, page, link.version);
    struct world_version *older = NULL;
    uint32_t previous = world_previous(world, job->branch, link.version, page, &older);
    ASSERT_OP(link.previous, ==, previous > job->branch->fork ? previous : 0);
    free_dead_grains(world, dying->entries, older != NULL ? older->entries : NULL,
                     newer != NULL ? newer->entries : NULL, lineage_owned_above(job->branch));
    if (newer != NULL) {
        replace_link(stored, newer->number, page, link.version, link.previous);
    }
    world_remove_version(world, job->branch, page, link.version);
    return true;
}

/* ---- gaps ---- */

/* A dead version, and the link of the one that supersedes it. */
struct dead_find {
    struct lineage_branch *branch; /* of the link */
    struct version_link link;
    struct lineage_branch *dying_in;
    uint32_t dying;
};

/* The version that this link says is superseded: is it dead, and where is it? */
static bool
gap_link(struct world *world, const struct dead_gap *gap, struct lineage_branch *branch,
         const struct version_link *link, enum dead_step step, struct dead_find *ret_find)
{
    uint32_t number = link->previous;

    if (step == DEAD_LOOK) {
        number = world_previous(world, branch, link->version, (uint32_t)link->page, NULL);
        if (number <= gap->above) {
            return false;
        }
    }
    *ret_find = (struct dead_find){
        .branch = branch, .link = *link,
        .dying_in = lineage_segment(branch, number), .dying = number,
    };
    return true;
}

/* The first link of the branch whose superseded version is dead. */
static bool
gap_find(struct world *world, const struct lineage_job *job, struct dead_find *ret_find)
{
    struct lineage_branch *branch = job->branch;
    const struct world_branch *stored = world_stored(world, branch);
    struct dead_gap gap = {
        .above = job->above, .below = job->below,
        .through = branch->continues && job->above < branch->fork,
    };
    struct version_link cursor;

    dead_gap_begin(&gap, &cursor);
    for (;;) {
        const struct version_link *link = world_find_link(stored, &cursor);
        if (link == NULL || link->version > lineage_bound(branch)) {
            return false;
        }
        struct version_link found = *link;
        enum dead_step step = dead_gap_step(&gap, &found, &cursor);
        if (step == DEAD_END) {
            return false;
        }
        if (step != DEAD_SEEK && gap_link(world, &gap, branch, &found, step, ret_find)) {
            return true;
        }
    }
}

/* The version that supersedes the dying one is the head's: what counts is what is in memory. */
static const struct map_entry *
newer_entries(struct world *world, struct lineage_branch *branch, const struct version_link *link)
{
    struct world_volume *volume = volume_of(world, branch);
    uint32_t page = (uint32_t)link->page;

    if (volume != NULL && link->version > volume_frozen(volume) &&
        volume_page(world, volume, page)->version.stored == link->version) {
        return volume->pages[page].entries;
    }
    struct world_version *newer = world_find_version(world, branch, page, link->version);
    ASSERT(newer != NULL);
    return newer->entries;
}

static void
tell_head(struct world *world, struct lineage_branch *branch, uint32_t page, uint32_t died,
          uint32_t previous)
{
    struct world_volume *volume = volume_of(world, branch);

    if (volume == NULL || !volume->pages[page].loaded) {
        return;
    }
    struct head_page *head = &volume->pages[page];
    if (head->version.previous == died) {
        map_version_died(&head->version, died, previous);
    }
    if (head->frozen_previous == died) {
        head->frozen_previous = previous;
    }
}

static bool
gap_step(struct world *world, const struct lineage_job *job)
{
    struct world_volume *volume = volume_of(world, job->branch);
    struct dead_find find = { 0 };
    struct world_version *older = NULL;

    if (job->branch->ended) {
        return false;
    }
    if (volume != NULL) {
        volume_seal(world, volume); /* so that what was changed before has its links */
    }
    if (!gap_find(world, job, &find)) {
        return false;
    }
    uint32_t page = (uint32_t)find.link.page;
    struct world_version *dying = world_find_version(world, find.dying_in, page, find.dying);
    ASSERT(dying != NULL);
    ASSERT(!lineage_sees(find.branch, find.dying, find.link.version));
    uint32_t previous = world_previous(world, find.dying_in, find.dying, page, &older);
    free_dead_grains(world, dying->entries, older != NULL ? older->entries : NULL,
                     newer_entries(world, find.branch, &find.link),
                     lineage_owned_above(find.branch));
    if (find.dying_in == find.branch) {
        uint32_t local = previous > find.dying_in->fork ? previous : 0;
        replace_link(world_stored(world, find.branch), find.link.version, page, find.dying,
                     local);
    }
    world_remove_version(world, find.dying_in, page, find.dying);
    tell_head(world, find.branch, page, find.dying, previous);
    return true;
}

bool
world_job_step(struct world *world)
{
    if (world->job_count == 0) {
        return false;
    }
    uint32_t index = 0;
    for (uint32_t i = 0; i < world->job_count; i++) {
        if (world->jobs[i].kind == LINEAGE_TAIL) {
            index = i; /* before the gaps */
            break;
        }
    }
    struct lineage_job job = world->jobs[index];
    bool more = job.kind == LINEAGE_TAIL ? tail_step(world, &job) : gap_step(world, &job);
    if (!more) {
        if (job.kind == LINEAGE_GAP && !job.branch->ended) {
            struct space_source source = world_space(world);
            space_line_prune(&source, job.branch);
        }
        memmove(&world->jobs[index], &world->jobs[index + 1],
                (world->job_count - index - 1) * sizeof(*world->jobs));
        world->job_count--;
    }
    return true;
}

void
world_drain(struct world *world)
{
    while (world_job_step(world)) {
    }
}

/* ---- leaving ---- */

static bool
is_empty(const struct world *world, const struct lineage_branch *branch)
{
    return world_stored(world, branch)->link_count == 0;
}

void
world_tidy(struct world *world)
{
    ASSERT_OP(world->job_count, ==, 0u);
    list_for_each_safe(&world->lineage.branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (lineage_can_splice(branch) && is_empty(world, branch)) {
            /* Its grains live on in versions of the branch above. */
            space_cells_move(&world_stored(world, branch)->cells,
                             &world_stored(world, branch->continued_by)->cells);
            lineage_splice(branch);
        }
        if (branch->ended && branch->children == 0) {
            ASSERT(is_empty(world, branch));
            world_remove_stored(world, branch);
            lineage_forget(branch);
        }
    }
}

/* ---- base versions ---- */

/* Nothing in flight, all stored, nothing cached. */
static void
make_quiet(struct world *world, struct world_volume *volume)
{
    volume_finish_windows(world, volume);
    volume_seal(world, volume);
    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        volume->pages[page].loaded = false;
        ASSERT_OP(volume->pages[page].windows, ==, 0u);
    }
}

/* The lowest number of a branch, which is left free for it; what follows supersedes it. */
static void
put_base_version(struct world *world, struct lineage_branch *branch, uint32_t page,
                 const struct map_entry *entries)
{
    uint32_t number = branch->fork + 1;
    struct world_version *newer = world_next_version(world, branch, page, number);

    if (newer != NULL) {
        replace_link(world_stored(world, branch), newer->number, page, 0, number);
    }
    world_put_version(world, branch, page, number, 0, entries);
}

void
world_flatten(struct world *world, struct world_volume *volume)
{
    struct lineage_branch *branch = volume->branch;
    struct lineage_jobs jobs = world_jobs(world);

    if (branch->parent == NULL || branch->complete || volume->pending != 0) {
        return;
    }
    make_quiet(world, volume);
    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        struct lineage_step step = { branch->parent, branch->fork };
        const struct world_version *found = world_look_up(world, &step, page);
        if (found != NULL && world_find_version(world, branch, page, branch->fork + 1) == NULL) {
            put_base_version(world, branch, page, found->entries);
        }
    }
    branch->complete = true;
    /* In a line of its own, what has been superseded now may have lost its last reader. */
    lineage_add_gap(branch, branch->fork + 1, &jobs);
}

/* ---- promotion ---- */

/* Does a view of this branch see through to `bottom`, or is it one of its line? */
static bool
descends_from(const struct lineage_branch *branch, const struct lineage_branch *bottom)
{
    for (; branch != NULL; branch = branch->parent) {
        if (branch == bottom) {
            return true;
        }
    }
    return false;
}

/* In all versions of a page, in the line and in what was forked from it. */
static void
adopt_everywhere(struct world *world, struct lineage_branch *bottom, uint32_t page,
                 const grain_address *copies)
{
    list_for_each(&world->lineage.branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (!descends_from(branch, bottom)) {
            continue;
        }
        struct world_page *versions = &world_stored(world, branch)->pages[page];
        for (uint32_t i = 0; i < versions->count; i++) {
            for (uint32_t entry = 0; entry < WORLD_ENTRIES; entry++) {
                if (copies[entry] != GRAIN_NONE) {
                    map_entry_adopt(&versions->versions[i].entries[entry], bottom->fork,
                                    copies[entry], bottom->fork + 1);
                }
            }
        }
    }
}

static void
copy_live(struct world *world, const struct map_entry *entry, grain_address to)
{
    uint16_t live = map_entry_live(entry);

    for (uint32_t block = 0; block < BLOCKS_PER_GRAIN; block++) {
        if ((live >> block & 1) != 0) {
            world->grains[to].stamps[block] = world_read_block(world, entry, block);
        }
    }
}

static void
promote_page(struct world *world, struct lineage_branch *bottom, uint32_t page)
{
    struct lineage_step step = { bottom->parent, bottom->fork };
    struct world_version *found = world_look_up(world, &step, page);
    grain_address copies[WORLD_ENTRIES] = { GRAIN_NONE };

    if (found == NULL) {
        return;
    }
    for (uint32_t entry = 0; entry < WORLD_ENTRIES; entry++) {
        if (map_entry_live(&found->entries[entry]) != 0) {
            copies[entry] = world_take_grain(world);
            copy_live(world, &found->entries[entry], copies[entry]);
            space_cells_add(&world_stored(world, bottom)->cells, bottom->fork + 1, SPACE_ALIVE,
                            1);
        }
    }
    if (world_find_version(world, bottom, page, bottom->fork + 1) == NULL) {
        struct map_entry entries[WORLD_ENTRIES];
        memcpy(entries, found->entries, sizeof(entries));
        put_base_version(world, bottom, page, entries);
    }
    adopt_everywhere(world, bottom, page, copies);
}

/* Deaths of inherited grains were counted by their old generations: count them anew. */
static void
recount_deaths(struct world *world, struct lineage_branch *branch, uint32_t birth)
{
    struct world_branch *stored = world_stored(world, branch);

    for (uint32_t i = 0; i < stored->link_count; i++) {
        const struct version_link *link = &stored->links[i];
        uint32_t page = (uint32_t)link->page;
        struct world_version *version = world_find_version(world, branch, page, link->version);
        struct world_version *older = NULL;
        struct dead_grain gone[2 * WORLD_ENTRIES];
        world_previous(world, branch, link->version, page, &older);
        if (older == NULL) {
            continue;
        }
        uint32_t count = dead_version_grains(older->entries, version->entries, NULL,
                                             WORLD_ENTRIES, birth - 1, gone);
        for (uint32_t n = 0; n < count; n++) {
            if (gone[n].generation == birth) {
                space_cells_add(&stored->cells, birth, link->version, 1);
            }
        }
    }
}

void
world_promote(struct world *world, struct world_volume *volume)
{
    struct lineage_branch *bottom = lineage_bottom(volume->branch);
    struct lineage_jobs jobs = world_jobs(world);

    if (bottom->parent == NULL) {
        return;
    }
    for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
        struct world_volume *other = &world->volumes[i];
        if (other->exists && descends_from(other->branch, bottom)) {
            make_quiet(world, other);
        }
    }
    for (uint32_t page = 0; page < WORLD_PAGES; page++) {
        promote_page(world, bottom, page);
    }
    list_for_each(&world->lineage.branches, link) {
        struct lineage_branch *branch = list_entry(link, struct lineage_branch, link);
        if (descends_from(branch, bottom)) {
            recount_deaths(world, branch, bottom->fork + 1);
        }
    }
    lineage_promote(volume->branch, &jobs);
    lineage_add_gap(bottom, bottom->fork + 1, &jobs);
}
