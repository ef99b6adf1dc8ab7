/* SPDX-License-Identifier: Apache-2.0 */
/* Which versions lie between two views, and who holds what while they are compared. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "volmgr/changes_impl.h"

/* ---- the way from one view to the other ---- */

static bool
same_line(struct lineage_branch *one, struct lineage_branch *other)
{
    return lineage_bottom(one) == lineage_bottom(other);
}

/* The place on the way down from `first` that is in the branch of `place`. */
static bool
find_on_way(struct lineage_step first, const struct lineage_step *place,
            struct lineage_step *ret_found)
{
    do {
        if (first.branch == place->branch) {
            *ret_found = first;
            return true;
        }
    } while (lineage_below(&first));
    return false;
}

static void
add_scan(struct changes_scan *scans, uint32_t *count, const struct lineage_branch *branch,
         uint32_t above, uint32_t upto)
{
    if (above < upto) {
        scans[(*count)++] = (struct changes_scan){ branch->id, above, upto };
    }
}

/* Branches on the way down, the first one included. */
static uint32_t
way_length(struct lineage_step step)
{
    uint32_t length = 1;

    while (lineage_below(&step)) {
        length++;
    }
    return length;
}

bool
changes_plan(struct lineage_branch *older, uint32_t older_generation,
             struct lineage_branch *newer, uint32_t newer_generation,
             struct changes_scan **ret_scans, uint32_t *ret_count, bool *ret_same_line)
{
    struct lineage_step from = { older, older_generation };
    struct lineage_step to = { newer, newer_generation };
    const struct lineage_step first_from = from;
    struct lineage_step met = { 0 };
    struct changes_scan *scans = calloc(way_length(from) + way_length(to), sizeof(*scans));
    uint32_t count = 0;

    ASSERT(scans != NULL);
    while (!find_on_way(first_from, &to, &met)) {
        add_scan(scans, &count, to.branch, 0, to.generation);
        if (!lineage_below(&to)) {
            free(scans);
            return false;
        }
    }
    while (from.branch != met.branch) {
        add_scan(scans, &count, from.branch, 0, from.generation);
        bool more = lineage_below(&from);
        ASSERT(more);
    }
    add_scan(scans, &count, met.branch, MIN(from.generation, to.generation),
             MAX(from.generation, to.generation));
    *ret_scans = scans;
    *ret_count = count;
    *ret_same_line = met.branch == older && from.generation <= to.generation &&
                     same_line(older, newer);
    return true;
}

/* Copies that were made up to it need not be what they were copied from: see map_diff_impl.h. */
static uint32_t
last_unclean(struct pool *pool, struct lineage_branch *newer)
{
    struct lineage_step step = { newer, LINEAGE_FOREVER };
    uint64_t unclean = 0;

    do {
        const struct pool_branch *branch = pool_find_branch(pool, step.branch->id);
        ASSERT(branch != NULL);
        unclean = MAX(unclean, branch->record.unclean_generation);
    } while (step.branch->continues && lineage_below(&step));
    return (uint32_t)MIN(unclean, (uint64_t)UINT32_MAX);
}

/* ---- holding both sides ---- */

static void
to_opened(struct snapshot_opening *opening, struct volume *view)
{
    struct changes *changes = container_of(opening, struct changes, to_opening);

    changes->volume = view;
    view->holds++;
    changes->opened(changes, changes->context);
}

static void
from_opened(struct snapshot_opening *opening, struct volume *view)
{
    struct changes *changes = container_of(opening, struct changes, from_opening);

    view->holds++;
    if (changes->to != NULL) {
        changes->to_opening.done = to_opened;
        snapshot_view_open(changes->to, &changes->to_opening);
    } else {
        changes->opened(changes, changes->context);
    }
}

struct changes *
changes_begin(struct pool *pool, struct snapshot *from, struct volume *volume, struct snapshot *to,
              void (*opened)(struct changes *changes, void *context), void *context)
{
    uint64_t id = to != NULL ? to->branch->record.id : volume->durable.branch;
    struct lineage_branch *newer = pool_find_branch(pool, id)->lineage;
    uint32_t generation = to != NULL ? to->generation : LINEAGE_FOREVER;
    struct changes *changes = calloc(1, sizeof(*changes));

    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(changes != NULL);
    if (!changes_plan(from->branch->lineage, from->generation, newer, generation, &changes->scans,
                      &changes->scan_count, &changes->views.same_line)) {
        free(changes);
        return NULL;
    }
    changes->pool = pool;
    changes->volume = volume;
    changes->branch = to != NULL ? 0 : id;
    changes->from = from;
    changes->to = to;
    changes->older = view_chain_make(from->branch->lineage, from->generation);
    changes->views.older = from->generation;
    changes->views.unclean = last_unclean(pool, newer);
    changes->opened = opened;
    changes->context = context;
    changes->older_page = UINT64_MAX;
    list_init(&changes->volume_link);
    list_init(&changes->queries);
    if (to == NULL) {
        volume->holds++;
    }
    changes->from_opening.done = from_opened;
    snapshot_view_open(from, &changes->from_opening);
    return changes;
}

bool
changes_are_of(const struct changes *changes, const struct volume *volume)
{
    return changes->volume == volume; /* constant, and held */
}

static void
close_home(struct message *message)
{
    struct changes *changes = container_of(message, struct changes, message);

    ASSERT_ON_REACTOR(changes->pool->manager->control);
    ASSERT_OP(changes->volume->holds, >, 0u);
    changes->volume->holds--;
    if (changes->to != NULL) {
        snapshot_view_close(changes->to);
    }
    ASSERT_OP(changes->from->view->holds, >, 0u);
    changes->from->view->holds--;
    snapshot_view_close(changes->from);
    view_chain_put(changes->older);
    free(changes->scans);
    if (changes->closed != NULL) {
        changes->closed(changes->context);
    }
    free(changes);
}

void
changes_released(struct changes *changes)
{
    reactor_send(changes->pool->manager->control, &changes->message, close_home);
}

static void
close_arrived(struct message *message)
{
    changes_end(container_of(message, struct changes, message));
}

void
manager_changes_close(struct changes *changes)
{
    reactor_send(changes->volume->shard->reactor, &changes->message, close_arrived);
}

/* ---- for targets ---- */

/* The volume that a view shows a snapshot of; a volume itself. */
static struct volume *
named_volume(struct volume *volume)
{
    return volume->snapshot != NULL ? volume->snapshot->volume : volume;
}

static bool
can_be_compared(struct pool *pool, const struct snapshot *from, const struct volume *volume)
{
    const struct snapshot *to = volume->snapshot;
    uint64_t id = to != NULL ? to->branch->record.id : volume->durable.branch;
    struct changes_scan *scans;
    uint32_t count;
    bool line;

    if (!changes_plan(from->branch->lineage, from->generation, pool_find_branch(pool, id)->lineage,
                      to != NULL ? to->generation : LINEAGE_FOREVER, &scans, &count, &line)) {
        return false;
    }
    free(scans);
    return true;
}

static void
names_answered(struct message *message)
{
    struct changes_names *names = container_of(message, struct changes_names, message);
    reactor_complete(&names->op, 0);
}

static void
names_arrived(struct message *message)
{
    struct changes_names *names = container_of(message, struct changes_names, message);
    struct pool *pool = names->volume->pool;
    const struct volume *volume = named_volume(names->volume);
    uint32_t count = 0;

    ASSERT_ON_REACTOR(names->manager->control);
    for (struct list *link = volume->snapshots.prev; link != &volume->snapshots;
         link = link->prev) {
        const struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        if (snapshot->record.state != SNAPSHOT_KEPT || snapshot->record.name[0] == '\0' ||
            !can_be_compared(pool, snapshot, names->volume)) {
            continue;
        }
        if (count++ == CHANGES_NAMES_MAX) {
            names->ret_more = true;
            break;
        }
        byte_buffer_append(&names->ret_names, snapshot->record.name,
                           strlen(snapshot->record.name) + 1);
    }
    reactor_send(names->reply_to, &names->message, names_answered);
}

void
manager_changes_names(struct manager *manager, struct changes_names *names)
{
    ASSERT(reactor_self() != NULL);
    names->manager = manager;
    names->reply_to = reactor_self();
    names->op.reactor_id = reactor_id(names->reply_to);
    names->ret_names = BYTE_BUFFER_INIT;
    names->ret_more = false;
    reactor_send(manager->control, &names->message, names_arrived);
}

static void
open_answered(struct message *message)
{
    struct changes_open *open = container_of(message, struct changes_open, message);
    reactor_complete(&open->op, open->op.result);
}

static void
open_done(struct changes *changes, void *context)
{
    struct changes_open *open = context;

    open->ret_changes = changes;
    open->op.result = 0;
    reactor_send(open->reply_to, &open->message, open_answered);
}

/* "SNAPSHOT" of this volume, or "VOLUME@SNAPSHOT". NULL: there is none. */
static struct snapshot *
find_since(struct pool *pool, struct volume *volume, const char *since)
{
    const char *at = strchr(since, '@');
    char name[CHANGES_SINCE_SIZE];

    if (at == NULL) {
        return pool_find_snapshot_by_name(pool, named_volume(volume), since);
    }
    memcpy(name, since, (size_t)(at - since));
    name[at - since] = '\0';
    const struct volume *other = pool_find_volume(pool, name);
    return other != NULL ? pool_find_snapshot_by_name(pool, other, at + 1) : NULL;
}

static void
open_arrived(struct message *message)
{
    struct changes_open *open = container_of(message, struct changes_open, message);
    struct pool *pool = open->volume->pool;
    struct snapshot *from = find_since(pool, open->volume, open->since);

    ASSERT_ON_REACTOR(open->manager->control);
    open->op.result = from == NULL                               ? -ENOENT
                      : !pool_is_serving(pool) || pool->stopping ? -ENODEV
                      : open->volume->altering                   ? -ENODEV
                      : changes_begin(pool, from, open->volume, open->volume->snapshot, open_done,
                                      open) == NULL
                          ? -EXDEV
                          : 0;
    if (open->op.result < 0) {
        reactor_send(open->reply_to, &open->message, open_answered);
    }
}

void
manager_changes_open(struct manager *manager, struct changes_open *open)
{
    ASSERT(reactor_self() != NULL);
    ASSERT(memchr(open->since, '\0', sizeof(open->since)) != NULL);
    open->manager = manager;
    open->reply_to = reactor_self();
    open->op.reactor_id = reactor_id(open->reply_to);
    open->ret_changes = NULL;
    reactor_send(manager->control, &open->message, open_arrived);
}
