/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No two daemons have one pool open.
 *
 * On one machine, locks see to that. Between machines the labels do: a daemon that has a pool open
 * writes them again every HEARTBEAT_NS, each time with a higher generation. Who finds a label that
 * says "open", written by another machine, looks for HEARTBEAT_WATCH_NS whether it changes: then
 * the pool is in use, and is let alone, whatever is forced. If it does not change, its daemon is
 * dead or cannot reach the disk; whether it is made sure of that is for the administrator to say.
 *
 * A daemon that was stopped (a paused VM, SIGSTOP) and goes on does not know what happened
 * meanwhile. So whoever writes a label - a heartbeat, a checkpoint, the end of the pool - reads it
 * first: when another host has written it, or a later incarnation, the pool has been lost. From
 * that moment on no label, ledger record, checkpoint or block of data is written by us any more,
 * whoever submits it (the guard of the backend refuses), and the volumes answer every request with
 * an error. The daemon of the other host sees it in the same way when two have opened a pool at the
 * same instant.
 *
 * What this cannot do: writes that start between going on and that first look, a heartbeat's
 * interval and a read at most, reach the disk. Only the disk itself can refuse those (persistent
 * reservations of a LUN), or whoever takes the pool over with --force, who is told to make sure.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

/* ---- being seen ---- */

static void
heartbeat_due(struct timer *timer)
{
    struct pool *pool = container_of(timer, struct pool, heartbeat_timer);

    pool_heartbeat_start(pool);
    pool_labels_beat(pool);
}

void
pool_heartbeat_start(struct pool *pool)
{
    struct reactor *control = pool->manager->control;

    ASSERT_ON_REACTOR(control);
    ASSERT(!pool->lost);
    pool->heartbeat_begun = true;
    timer_arm(control, &pool->heartbeat_timer, reactor_now_ns(control) + HEARTBEAT_NS,
              heartbeat_due);
}

void
pool_heartbeat_stop(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    timer_disarm(pool->manager->control, &pool->heartbeat_timer);
}

/* ---- having lost it ---- */

struct lost_notice {
    struct message message;
    struct shard *shard;
};

static void
shard_told(struct message *message)
{
    struct lost_notice *notice = container_of(message, struct lost_notice, message);

    list_for_each(&notice->shard->volumes, link) {
        struct volume *volume = list_entry(link, struct volume, shard_link);
        volume->lost = true;
        volume->fenced = true;
        volume->commit_failed = true;
    }
    free(notice);
}

static void
tell_shards(struct pool *pool)
{
    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        struct lost_notice *notice = calloc(1, sizeof(*notice));
        ASSERT(notice != NULL);
        notice->shard = pool->shards[i];
        reactor_send(notice->shard->reactor, &notice->message, shard_told);
    }
}

bool
pool_label_is_others(const struct disk *disk, const struct label *label)
{
    const struct pool *pool = disk->pool;

    if (memcmp(label->pool_guid, pool->record.pool_guid, GUID_BYTES) != 0 ||
        memcmp(label->disk_guid, disk->record.guid, GUID_BYTES) != 0) {
        return true;
    }
    /* A lower one is of before: ours could not be written when the pool was opened. */
    return label->incarnation > pool->record.incarnation ||
           (label->incarnation == pool->record.incarnation &&
            memcmp(label->host_guid, pool->manager->options.host_guid, GUID_BYTES) != 0);
}

void
pool_lose(struct pool *pool, const struct disk *disk, const struct label *label)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    ASSERT(disk->backend != NULL);
    char host[37];

    if (pool->lost) {
        return;
    }
    pool->lost = true;
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *other = pool->disks[i];
        if (other != NULL && other->backend != NULL) {
            backend_refuse_changes(other->backend);
        }
        if (other != NULL && other->left_out != NULL) {
            backend_refuse_changes(other->left_out);
        }
    }
    committer_break(&pool->committer);
    pool_heartbeat_stop(pool);
    pool_checkpoint_cancel(pool);
    guid_format(label->host_guid, host);
    event_raise(pool->manager, EVENT_CRITICAL, pool->name, disk->backend->spec, "pool-lost",
                "the label of this disk was written by another daemon (host %s, pool `%s`, "
                "incarnation %llu; ours is %llu): nothing is written any more, and the volumes "
                "answer errors; restart this daemon when it is to have the pool again",
                host, label->pool_name, (unsigned long long)label->incarnation,
                (unsigned long long)pool->record.incarnation);
    if (pool_is_serving(pool)) {
        /* While it is being closed its shards may go at any time, and nothing is served. */
        tell_shards(pool);
        pool_set_state(pool, POOL_STATE_READ_ONLY,
                       "another host has taken the pool over; its volumes answer errors here");
    }
}

/* ---- looking ---- */

bool
heartbeat_watch_begin(struct machine *machine, struct heartbeat_watch *watch,
                      const struct disk_probe *probes, uint32_t count)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    const uint8_t *own_host = machine->manager->options.host_guid;
    ASSERT(watch->count == 0 && count > 0);
    uint64_t *generations = calloc(count, sizeof(*generations));
    uint32_t watched = 0;

    ASSERT(generations != NULL);
    for (uint32_t i = 0; i < count; i++) {
        const struct label *label = &probes[i].label;
        if (probes[i].backend == NULL || probes[i].status != 0 || !label->open ||
            memcmp(label->host_guid, own_host, GUID_BYTES) == 0) {
            continue;
        }
        generations[i] = label->generation;
        watched++;
    }
    if (watched == 0) {
        free(generations);
        return false;
    }
    watch->generations = generations;
    watch->count = count;
    machine_pause(machine, &watch->pause, HEARTBEAT_WATCH_NS);
    return true;
}

int
heartbeat_watch_judge(struct heartbeat_watch *watch, const struct disk_probe *probes,
                      struct error *error)
{
    int result = 0;

    for (uint32_t i = 0; i < watch->count && result == 0; i++) {
        const struct disk_probe *probe = &probes[i];
        if (watch->generations[i] == 0 || probe->backend == NULL || probe->status != 0 ||
            probe->label.generation == watch->generations[i]) {
            continue;
        }
        result = error_set(error, -EBUSY,
                           "disk %.200s of pool `%s` is in use: another daemon has just written "
                           "to its label; close the pool there first",
                           probe->backend->spec, probe->label.pool_name);
    }
    free(watch->generations);
    *watch = (struct heartbeat_watch){ 0 };
    return result;
}
