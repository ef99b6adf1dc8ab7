/* SPDX-License-Identifier: Apache-2.0 */
/* What the oracles were told, and when; and the oracles as they were at any event. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/world_impl.h"

/* ---- the record: what the oracles were told, and when ---- */

enum record_kind {
    RECORD_SUBMIT,
    RECORD_ANSWER,
    RECORD_FLUSH_SENT,
    RECORD_FLUSH_ANSWERED,
    RECORD_RESIZE_SENT,
    RECORD_RESIZE_ANSWERED,
};

struct record_item {
    uint64_t event; /* of the simulator, when it was told */
    enum record_kind kind;
    uint32_t volume;
    uint64_t id; /* of the request */
    uint64_t offset_bytes;
    uint64_t length_bytes;
    bool zero;
    bool success;
    bool fua;
};

struct world_record {
    struct record_item *items;
    uint64_t count;
    uint64_t capacity;
    uint64_t first_event;
    uint64_t sizes[WORLD_VOLUMES_MAX]; /* when it began */
};

static void
record_add(struct world *world, const struct record_item *item)
{
    struct world_record *record = world->record;

    if (record == NULL) {
        return;
    }
    if (record->count == record->capacity) {
        record->capacity = record->capacity == 0 ? 1024 : record->capacity * 2;
        record->items = realloc(record->items, record->capacity * sizeof(*record->items));
        ASSERT(record->items != NULL);
    }
    record->items[record->count] = *item;
    record->items[record->count++].event = sim_event_count(world->sim) - record->first_event;
}

static void
add_io(struct world *world, const struct world_io *io, enum record_kind kind)
{
    struct record_item item = {
        .kind = kind,
        .volume = io->volume,
        .id = io->id,
        .offset_bytes = io->change_offset_bytes,
        .length_bytes = io->change_length_bytes,
        .zero = io->operation != VOLUME_WRITE,
        .success = io->status == 0,
        .fua = (io->flags & VOLUME_FUA) != 0,
    };
    record_add(world, &item);
}

void
world_note_sent(struct world *world, const struct world_io *io)
{
    if (io->write != NULL || io->operation == VOLUME_FLUSH) {
        add_io(world, io, io->write != NULL ? RECORD_SUBMIT : RECORD_FLUSH_SENT);
    }
}

void
world_note_answered(struct world *world, const struct world_io *io)
{
    if (io->write != NULL || (io->operation == VOLUME_FLUSH && io->status == 0)) {
        add_io(world, io, io->write != NULL ? RECORD_ANSWER : RECORD_FLUSH_ANSWERED);
    }
}

void
world_note_resize_sent(struct world *world, uint32_t volume, uint64_t size_bytes)
{
    struct record_item item = {
        .kind = RECORD_RESIZE_SENT, .volume = volume, .length_bytes = size_bytes,
    };
    record_add(world, &item);
}

void
world_note_resize_answered(struct world *world, uint32_t volume, bool success)
{
    struct record_item item = {
        .kind = RECORD_RESIZE_ANSWERED, .volume = volume, .success = success,
    };
    record_add(world, &item);
}

struct world_record *
world_record_start(struct world *world)
{
    ASSERT_OP(world->in_flight, ==, 0u);
    world->record = calloc(1, sizeof(*world->record));
    ASSERT(world->record != NULL);
    world->record->first_event = sim_event_count(world->sim);
    memcpy(world->record->sizes, world->sizes, sizeof(world->sizes));
    return world->record;
}

void
world_record_free(struct world_record *record)
{
    free(record->items);
    free(record);
}

struct world_replay {
    const struct world_record *record;
    uint64_t position;
    struct oracle *oracles[WORLD_VOLUMES_MAX];
    struct oracle_write **writes; /* by request id */
    uint64_t *tokens;
    uint64_t sizes[WORLD_VOLUMES_MAX];
    uint64_t sizes_asked[WORLD_VOLUMES_MAX]; /* 0: no change under way */
};

struct world_replay *
world_replay_start(const struct world_record *record, struct oracle *const *oracles)
{
    struct world_replay *replay = calloc(1, sizeof(*replay));
    uint64_t ids = 0;

    ASSERT(replay != NULL);
    replay->record = record;
    memcpy(replay->sizes, record->sizes, sizeof(replay->sizes));
    for (uint64_t i = 0; i < record->count; i++) {
        ids = MAX(ids, record->items[i].id + 1);
    }
    replay->writes = calloc(ids + 1, sizeof(*replay->writes));
    replay->tokens = calloc(ids + 1, sizeof(*replay->tokens));
    ASSERT(replay->writes != NULL && replay->tokens != NULL);
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        replay->oracles[v] = oracles[v] != NULL ? oracle_copy(oracles[v]) : NULL;
    }
    return replay;
}

static void
replay_resized(struct world_replay *replay, uint32_t volume, bool success)
{
    if (success) {
        oracle_cut_off(replay->oracles[volume],
                       MIN(replay->sizes[volume], replay->sizes_asked[volume]));
        replay->sizes[volume] = replay->sizes_asked[volume];
    }
    replay->sizes_asked[volume] = 0;
}

static void
replay_item(struct world_replay *replay, const struct record_item *item)
{
    struct oracle *oracle = replay->oracles[item->volume];

    switch (item->kind) {
    case RECORD_SUBMIT:
        replay->writes[item->id] =
            oracle_note_submit(oracle, item->offset_bytes, item->length_bytes, item->zero);
        break;
    case RECORD_ANSWER:
        oracle_answered(oracle, replay->writes[item->id], item->success, item->fua);
        break;
    case RECORD_FLUSH_SENT:
        replay->tokens[item->id] = oracle_flush_sent(oracle);
        break;
    case RECORD_FLUSH_ANSWERED:
        oracle_flush_answered(oracle, replay->tokens[item->id]);
        break;
    case RECORD_RESIZE_SENT:
        replay->sizes_asked[item->volume] = item->length_bytes;
        break;
    case RECORD_RESIZE_ANSWERED:
        replay_resized(replay, item->volume, item->success);
        break;
    }
}

void
world_replay_to(struct world_replay *replay, uint64_t event)
{
    while (replay->position < replay->record->count &&
           replay->record->items[replay->position].event <= event) {
        replay_item(replay, &replay->record->items[replay->position++]);
    }
}

void
world_replay_oracles(const struct world_replay *replay, struct world *world)
{
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        if (replay->oracles[v] != NULL) {
            world->oracles[v] = oracle_copy(replay->oracles[v]);
            oracle_died(world->oracles[v], true);
        }
        world->sizes[v] = replay->sizes[v];
        world->sizes_asked[v] = replay->sizes_asked[v];
    }
}

void
world_replay_free(struct world_replay *replay)
{
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        if (replay->oracles[v] != NULL) {
            oracle_free(replay->oracles[v]);
        }
    }
    free(replay->writes);
    free(replay->tokens);
    free(replay);
}
