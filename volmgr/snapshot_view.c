/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes that show a snapshot: made when somebody wants to read it, gone when nobody does.
 *
 * A view is a struct volume whose chain of places ends at the kept generation. It lives on the
 * shard of its branch, since nothing else about it belongs to a reactor: the versions that it reads
 * are in the store and do not change. Its pages are cached beside those of the heads.
 *
 * One message goes along with each change of its state, from control to the shard and back; a
 * closing one visits all reactors, so that none knows the volume by pointer any more (V2).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

struct snapshot_view {
    struct message message;
    struct volume_drain drain;
    struct snapshot *snapshot;
    struct volume *volume;
    uint32_t reactor; /* of the closing round */
};

static void view_step(struct snapshot *snapshot);

/* ---- opening ---- */

static struct volume *
view_volume(const struct snapshot *snapshot)
{
    const struct volume_record *of = &snapshot->volume->durable;
    struct branch_position none = { 0 };
    struct volume_record record = {
        .id = of->id,
        .branch = snapshot->branch->record.id,
        .size_bytes = snapshot->record.size_bytes,
        .sector_bytes = of->sector_bytes,
        .copies = of->copies,
        .tier = of->tier,
        .created_realtime_ns = snapshot->record.created_realtime_ns,
    };

    memcpy(record.guid, snapshot->record.guid, GUID_BYTES);
    memcpy(record.name, of->name, sizeof(record.name));
    struct volume *volume =
        volume_new(snapshot->pool, &record, &snapshot->branch->record, &none);
    view_chain_put(volume->chain);
    volume->chain = view_chain_make(snapshot->branch->lineage, snapshot->generation);
    volume->view = snapshot->generation;
    volume->snapshot = (struct snapshot *)(uintptr_t)snapshot;
    volume->durable = record;
    if (snapshot->pool->lost) { /* as its other volumes have been told */
        volume->lost = true;
        volume->fenced = true;
        volume->commit_failed = true;
    }
    volume_publish_info(volume);
    return volume;
}

static void
view_opened(struct message *message)
{
    struct snapshot_view *view = container_of(message, struct snapshot_view, message);
    struct snapshot *snapshot = view->snapshot;
    struct volume *volume = view->volume;

    ASSERT_ON_REACTOR(snapshot->pool->manager->control);
    snapshot->view = volume;
    snapshot->view_busy = false;
    for (struct list *link = list_pop_front(&snapshot->openings); link != NULL;
         link = list_pop_front(&snapshot->openings)) {
        struct snapshot_opening *opening = list_entry(link, struct snapshot_opening, link);
        opening->done(opening, volume);
    }
    view_step(snapshot);
}

static void
view_link(struct message *message)
{
    struct snapshot_view *view = container_of(message, struct snapshot_view, message);
    struct volume *volume = view->volume;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (!list_linked(&volume->shard_link)) {
        list_push_back(&volume->shard->volumes, &volume->shard_link);
        volume->serving = true;
    }
    reactor_send(volume->pool->manager->control, &view->message, view_opened);
}

/* ---- closing ---- */

static void
view_closed(struct message *message)
{
    struct snapshot_view *view = container_of(message, struct snapshot_view, message);
    struct snapshot *snapshot = view->snapshot;

    ASSERT_ON_REACTOR(snapshot->pool->manager->control);
    list_remove(&view->volume->pool_link);
    volume_release(view->volume);
    view->volume = NULL;
    snapshot->view_busy = false;
    view_step(snapshot);
}

/* From reactor to reactor, and home. */
static void
view_round(struct message *message)
{
    struct snapshot_view *view = container_of(message, struct snapshot_view, message);
    const struct manager_options *options = &view->snapshot->pool->manager->options;

    if (view->reactor < options->reactor_count) {
        reactor_send(options->reactors[view->reactor++], &view->message, view_round);
    } else {
        reactor_send(view->snapshot->pool->manager->control, &view->message, view_closed);
    }
}

static void
view_drained(struct io_op *op)
{
    struct volume_drain *drain = container_of(op, struct volume_drain, op);
    struct snapshot_view *view = container_of(drain, struct snapshot_view, drain);
    struct volume *volume = view->volume;

    ASSERT(list_empty(&volume->sessions) && list_empty(&volume->active));
    map_cache_forget(&volume->shard->cache, volume);
    if (list_linked(&volume->shard_link)) {
        list_remove(&volume->shard_link);
    }
    view->reactor = 0;
    view_round(&view->message);
}

static void
view_unlink(struct message *message)
{
    struct snapshot_view *view = container_of(message, struct snapshot_view, message);
    struct volume *volume = view->volume;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    volume->serving = false;
    view->drain.op.done = view_drained;
    view->drain.op.reactor_id = reactor_id(volume->shard->reactor);
    volume_drain(volume, &view->drain);
}

/* ---- what is to be done next ---- */

static void
view_step(struct snapshot *snapshot)
{
    struct snapshot_view *view = snapshot->view_driver;

    if (snapshot->view_busy) {
        return;
    }
    if (snapshot->holds > 0 && !list_empty(&snapshot->openings)) {
        if (view == NULL) {
            view = calloc(1, sizeof(*view));
            ASSERT(view != NULL);
            view->snapshot = snapshot;
            snapshot->view_driver = view;
        }
        if (view->volume == NULL) {
            view->volume = view_volume(snapshot);
            list_push_back(&snapshot->pool->views, &view->volume->pool_link);
        }
        snapshot->view_busy = true;
        reactor_send(view->volume->shard->reactor, &view->message, view_link);
    } else if (snapshot->holds == 0 && view != NULL && view->volume != NULL) {
        snapshot->view = NULL;
        snapshot->view_busy = true;
        reactor_send(view->volume->shard->reactor, &view->message, view_unlink);
    } else if (snapshot->holds == 0 && view != NULL) {
        snapshot->view_driver = NULL;
        free(view);
    }
}

void
snapshot_view_open(struct snapshot *snapshot, struct snapshot_opening *opening)
{
    ASSERT_ON_REACTOR(snapshot->pool->manager->control);
    ASSERT_OP(snapshot->record.state, ==, (uint8_t)SNAPSHOT_KEPT);
    ASSERT(snapshot->volume != NULL && opening->done != NULL);
    snapshot->holds++;
    list_push_back(&snapshot->openings, &opening->link);
    view_step(snapshot);
}

void
snapshot_view_close(struct snapshot *snapshot)
{
    ASSERT_ON_REACTOR(snapshot->pool->manager->control);
    ASSERT_OP(snapshot->holds, >, 0u);
    snapshot->holds--;
    ASSERT(snapshot->holds > 0 || list_empty(&snapshot->openings));
    view_step(snapshot);
}

bool
pool_views_end(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    list_for_each_safe(&pool->views, link) {
        struct volume *volume = list_entry(link, struct volume, pool_link);
        struct snapshot *snapshot = volume->snapshot;
        exports_forget(volume);
        if (volume->holds == 0 && list_empty(&snapshot->openings)) {
            snapshot->holds = 0;
            view_step(snapshot);
        }
    }
    return list_empty(&pool->views);
}
