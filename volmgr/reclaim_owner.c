/* SPDX-License-Identifier: Apache-2.0 */
/* The reclaiming worker's visits: what is done on the reactors that own pages and grains. */
#include <errno.h>

#include "base/assert.h"
#include "volmgr/reclaim_worker_impl.h"

static struct reclaim *
visited_by(struct round_stop *stop)
{
    return container_of(stop->round, struct reclaim, round);
}

static struct reactor *
reactor_of(const struct round_stop *stop)
{
    return stop->round->machine->manager->options.reactors[stop->index];
}

/* ---- before a gap ---- */

enum machine_step
reclaim_tell_visit(struct round_stop *stop)
{
    struct reclaim *reclaim = visited_by(stop);
    struct volume *volume = reclaim->volume;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (reclaim->chain->places[0].branch == volume->branch.id) {
        volume_relink(volume, reclaim->chain, reclaim->owned_above);
        reclaim->chain = NULL;
        /* One that has not been bumped here yet freezes nothing: what it will see is written on. */
        bool has_bumped = reclaim->frozen < volume->branch.current_generation;
        volume_unbump(volume, has_bumped ? reclaim->frozen : reclaim->frozen_settled);
    }
    return MACHINE_NEXT;
}

static void
sealed(struct io_op *op)
{
    struct volume_seal_wait *wait = container_of(op, struct volume_seal_wait, op);
    struct reclaim *reclaim = container_of(wait, struct reclaim, seal);

    reclaim->seal_status = op->result;
    round_stop_done(reclaim->seal_stop);
}

enum machine_step
reclaim_seal_visit(struct round_stop *stop)
{
    struct reclaim *reclaim = visited_by(stop);

    reclaim->seal_stop = stop;
    reclaim->seal.op.done = sealed;
    reclaim->seal.op.reactor_id = reactor_id(reactor_of(stop));
    volume_seal_now(reclaim->volume, &reclaim->seal);
    return MACHINE_WAIT;
}

/* ---- a version that the head's may supersede ---- */

static enum reclaim_answer
judge_page(const struct reclaim *reclaim, const struct map_page *page)
{
    const struct reclaim_find *find = &reclaim->find;
    const struct map_version *version = &page->version;
    uint32_t newer = find->link.version;

    if (page->state == MAP_PAGE_FAILED) {
        return RECLAIM_FAILED;
    }
    if (page->is_sealed && page->version_before_seal.stored != version->stored) {
        return RECLAIM_WAIT; /* the batch that has the new version may fail */
    }
    if (version->stored > newer) {
        return version->previous == find->number ? RECLAIM_STALE : RECLAIM_FROZEN;
    }
    if (version->stored < newer) {
        return RECLAIM_STALE; /* it is no version of this head */
    }
    if (version->previous == find->number) {
        return RECLAIM_ADDED;
    }
    /* A view has frozen it since; its last changes may be on their way to the store. */
    return version->working != 0 && version->previous == newer ? RECLAIM_WAIT : RECLAIM_STALE;
}

/* What the head names counts as it is now: what it dropped before is left to this step. */
static void
add_to_batch(struct reclaim *reclaim, struct map_page *page)
{
    static const struct map_entry nothing[MAP_PAGE_ENTRIES];
    struct byte_buffer items = BYTE_BUFFER_INIT;
    struct byte_buffer grains = BYTE_BUFFER_INIT;
    const struct reclaim_find *find = &reclaim->find;

    reclaim_encode(reclaim, page->entries != NULL ? page->entries : nothing, &items, &grains);
    batch_append_use_bits(&items, &reclaim->pool->extents,
                          (grain_address *)(void *)grains.data,
                          grains.length_bytes / sizeof(grain_address), false);
    seal_add(reclaim->volume, &items);
    byte_buffer_append(&reclaim->owner_grains, grains.data, grains.length_bytes);
    seal_version_died(reclaim->volume, page, find->number, find->older.number);
    byte_buffer_free(&items);
    byte_buffer_free(&grains);
}

static void owner_visit_again(struct timer *timer);

enum machine_step
reclaim_owner_visit(struct round_stop *stop)
{
    struct reclaim *reclaim = visited_by(stop);
    struct volume *volume = reclaim->volume;
    struct reactor *reactor = reactor_of(stop);

    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (volume->closed) { /* who makes it quiet (rollback, deletion) wants its batch empty */
        reclaim->answer = RECLAIM_WAIT;
        return MACHINE_NEXT;
    }
    struct map_page *page = map_cache_get(&volume->shard->cache, volume, reclaim->find.page);
    if (page->state == MAP_PAGE_LOADING) {
        map_page_unpin(page);
        timer_arm(reactor, &stop->timer, reactor_now_ns(reactor) + 50 * NS_PER_US,
                  owner_visit_again);
        return MACHINE_WAIT;
    }
    reclaim->answer = judge_page(reclaim, page);
    if (reclaim->answer == RECLAIM_ADDED) {
        add_to_batch(reclaim, page);
    }
    map_page_unpin(page);
    return MACHINE_NEXT;
}

static void
owner_visit_again(struct timer *timer)
{
    struct round_stop *stop = container_of(timer, struct round_stop, timer);

    if (reclaim_owner_visit(stop) == MACHINE_NEXT) {
        round_stop_done(stop);
    }
}

/* ---- behind a commit ---- */

/*
 * R4: a request that began before the grains were removed may have found them in the map: a read
 * whose block a write of another block of the grain has moved since, or a write in place that a
 * disk holds back. Once those have ended nobody knows the grains.
 */
enum machine_step
reclaim_drain_visit(struct round_stop *stop)
{
    struct reclaim *reclaim = visited_by(stop);
    const struct volume *volume = reclaim->volume;

    ASSERT_ON_REACTOR(volume->shard->reactor);
    if (reclaim->drain_since_ns == 0) {
        reclaim->drain_since_ns = reactor_now_ns(volume->shard->reactor);
    }
    reclaim->is_drained = true;
    if (!list_empty(&volume->active)) {
        const struct volume_request *oldest =
            list_entry(volume->active.next, struct volume_request, active_link);
        reclaim->is_drained = oldest->started_ns > reclaim->drain_since_ns;
    }
    return MACHINE_NEXT;
}

/* False: the page is being loaded, and may have been read before the commit. */
static bool
page_forget_died(struct volume *volume, const struct reclaim_died *died)
{
    struct map_page *page = map_cache_find(&volume->shard->cache, volume->branch.id, died->page);

    if (page == NULL) {
        return true;
    }
    if (page->state == MAP_PAGE_READY && page->version.previous == died->died) {
        seal_version_died(volume, page, died->died, died->previous);
    }
    return page->state != MAP_PAGE_LOADING;
}

/* Does a look-up of this volume come to the branch, and to such a version? */
static bool
volume_sees(const struct volume *volume, const struct reclaim_died *died)
{
    const struct view_chain *chain = volume->chain;

    return chain != NULL && died->died <= chain->places[0].generation &&
           view_chain_branch(chain, died->died) == died->branch;
}

static bool
forget_died(struct shard *shard, const struct reclaim *reclaim)
{
    const struct reclaim_died *died =
        (const struct reclaim_died *)(const void *)reclaim->died.data;
    size_t count = reclaim->died.length_bytes / sizeof(*died);
    bool all = true;

    list_for_each(&shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        for (size_t i = 0; i < count && volume->view == LINEAGE_FOREVER; i++) {
            if (volume_sees(volume, &died[i])) {
                all = page_forget_died(volume, &died[i]) && all;
            }
        }
    }
    return all;
}

static void
free_grains(struct shard *shard, const struct byte_buffer *grains)
{
    grains_free_committed(shard, (const grain_address *)(const void *)grains->data,
                          (uint32_t)(grains->length_bytes / sizeof(grain_address)));
}

static void died_visit_again(struct timer *timer);

enum machine_step
reclaim_died_visit(struct round_stop *stop)
{
    struct reclaim *reclaim = visited_by(stop);
    struct shard *shard = reclaim->pool->shards[stop->index];
    struct reactor *reactor = reactor_of(stop);

    if (!forget_died(shard, reclaim)) {
        timer_arm(reactor, &stop->timer, reactor_now_ns(reactor) + 50 * NS_PER_US,
                  died_visit_again);
        return MACHINE_WAIT;
    }
    if (stop->index == 0) {
        free_grains(shard, &reclaim->grains);
        free_grains(shard, &reclaim->owner_grains);
    }
    return MACHINE_NEXT;
}

static void
died_visit_again(struct timer *timer)
{
    struct round_stop *stop = container_of(timer, struct round_stop, timer);

    if (reclaim_died_visit(stop) == MACHINE_NEXT) {
        round_stop_done(stop);
    }
}
