/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots of disks and extents for shards; see extent_impl.h for the theory.
 *
 * One machine works on one thing at a time, so that what it decides is never overtaken: a grant
 * (pick slots, make room on the disks, commit the extent records, answer) or a batch of releases
 * (commit the deletion of the records, discard the slots, free them). Releases go first: they may
 * be what a grant needs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "volmgr/core_impl.h"

/* A disk that takes longer to make room is left out of the grant. */
#define ROOM_TIMEOUT_NS (5 * NS_PER_S)
/* One that has refused is asked again after this; its file system may have been made larger. */
#define ROOM_RETRY_NS (2 * NS_PER_S)
/* A grant that finds no space waits so long for extents that are being discarded. */
#define DISCARD_WAIT_NS (1 * NS_PER_S)

enum {
    RELEASES_AT_ONCE = 64,
    FREE_IDS_MAX = 1 << 20,
    /*
     * Checkpoint bytes for each grain of the pool, rounded up, and how many checkpoints may be
     * kept.
     */
    METADATA_BYTES_PER_GRAIN = 40,
    CHECKPOINTS_AT_ONCE = 3,
    CHECKPOINT_COPIES = 2,
};

struct extent_release {
    struct message message;
    struct list link;
    struct pool *pool;
    uint64_t extent;
    struct extent_place places[EXTENT_COPIES_MAX];
    uint8_t copy_count;
    uint8_t discards_pending;
    struct backend_io ios[EXTENT_COPIES_MAX];
};

/* Room for one extent, being made by its disk. Outlives the grant when the disk is late (P9). */
struct extent_room {
    struct backend_io io;
    struct allocator *allocator;
    struct extent_place place;
    uint32_t index; /* in machine->places */
    bool abandoned;
};

enum allocator_work {
    WORK_NONE,
    WORK_GRANT_ROOM,    /* disks allocate the slots */
    WORK_GRANT_COMMIT,  /* extent records */
    WORK_GRANT_SHED,     /* shards give back wholly free extents that they keep */
    WORK_RELEASE_COMMIT, /* deletion of the records */
};

static void allocator_run(struct allocator *allocator);

struct allocator_machine {
    struct allocator *allocator;
    enum allocator_work work;
    struct extent_grant *grant;
    struct extent_place places[SOURCE_GRANT_EXTENTS_MAX];
    bool refused[SOURCE_GRANT_EXTENTS_MAX];
    uint32_t place_count;
    bool shed; /* for this grant */
    uint32_t discards;          /* releases whose disks have not answered */
    uint64_t discards_until_ns; /* so long a grant waits for them, and for a slot that is yielded */
    struct timer discard_timer;
    uint64_t grant_began_ns; /* a disk that has refused since then is not asked again for it */
    struct list releasing;
    uint32_t pending; /* rooms, or shards that have not answered */
    struct commit_request commit;
    struct byte_buffer batch;
    struct pass_hook hook;
};

/* ---- slots ---- */

void
allocator_init(struct allocator *allocator, struct pool *pool)
{
    struct allocator_machine *machine = calloc(1, sizeof(*machine));

    ASSERT(machine != NULL);
    *allocator = (struct allocator){ .pool = pool, .machine = machine };
    allocator->preparer = slot_preparer_create(allocator);
    list_init(&allocator->grants);
    list_init(&allocator->releases);
    list_init(&machine->releasing);
    machine->allocator = allocator;
}

void
allocator_free(struct allocator *allocator)
{
    ASSERT(allocator_is_idle(allocator));
    slot_preparer_destroy(allocator->preparer);
    byte_buffer_free(&allocator->free_ids);
    byte_buffer_free(&allocator->machine->batch);
    free(allocator->machine);
    allocator->machine = NULL;
}

bool
allocator_is_idle(const struct allocator *allocator)
{
    return allocator->machine->work == WORK_NONE && allocator->machine->grant == NULL &&
           list_empty(&allocator->grants) && list_empty(&allocator->releases) &&
           allocator->side_operations == 0;
}

void
allocator_refresh(struct allocator *allocator)
{
    const struct pool *pool = allocator->pool;

    allocator->slots_total = 0;
    allocator->slots_free = 0;
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->backend != NULL) {
            allocator->slots_total += disk->record.slot_count;
            allocator->slots_free += disk->slots_free;
        }
    }
}

uint64_t
allocator_metadata_reserve(const struct allocator *allocator)
{
    const struct pool *pool = allocator->pool;
    uint64_t grains = allocator->slots_total * pool->grains_per_extent;
    uint64_t checkpoint_bytes = grains * METADATA_BYTES_PER_GRAIN + 64 * KIB;
    uint64_t wanted = CHECKPOINTS_AT_ONCE * CHECKPOINT_COPIES *
                      div_round_up(checkpoint_bytes, pool->record.extent_bytes);

    return wanted > allocator->metadata_extents ? wanted - allocator->metadata_extents : 0;
}

/* Extents that volumes other than `volume` have been promised and do not have yet. */
static uint64_t
promised_to_others(const struct pool *pool, const struct volume *volume)
{
    uint64_t promised = 0;

    list_for_each(&pool->volumes, link) {
        const struct volume *other = list_entry(link, struct volume, pool_link);
        if (other == volume || other->durable.reserve_bytes == 0) {
            continue;
        }
        uint64_t wanted = div_round_up(other->durable.reserve_bytes, pool->record.extent_bytes);
        uint64_t has = volume_extents_writable(other);
        if (wanted > has) {
            promised += wanted - has;
        }
    }
    return promised;
}

uint64_t
allocator_available(const struct allocator *allocator, const struct volume *volume)
{
    uint64_t kept = allocator_metadata_reserve(allocator) +
                    (allocator->has_reserves ? promised_to_others(allocator->pool, volume) : 0);

    if (volume != allocator->promise_volume) {
        kept += allocator->promise_pending;
    }
    return allocator->slots_free > kept ? allocator->slots_free - kept : 0;
}

bool
allocator_find_slot(struct allocator *allocator, struct disk *disk, struct extent_place *ret_place)
{
    uint32_t words = (disk->record.slot_count + 63) / 64;

    for (uint32_t i = 0; i < words; i++) {
        uint32_t word = (disk->slot_cursor / 64 + i) % words;
        uint64_t free_bits = ~disk->slots_used[word];
        if (free_bits == 0) {
            continue;
        }
        uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(free_bits);
        if (slot >= disk->record.slot_count) {
            continue;
        }
        disk->slots_used[word] |= UINT64_C(1) << (slot % 64);
        disk->slots_free--;
        disk->slot_cursor = slot;
        allocator->slots_free--;
        *ret_place = (struct extent_place){ .disk = disk->record.index, .slot = slot };
        return true;
    }
    return false;
}

void
allocator_return_slot(struct allocator *allocator, struct extent_place place, bool ready)
{
    struct disk *disk = pool_disk(allocator->pool, place.disk);
    uint64_t bit = UINT64_C(1) << (place.slot % 64);

    ASSERT((disk->slots_used[place.slot / 64] & bit) != 0);
    if (!ready) {
        disk->slots_used[place.slot / 64] &= ~bit;
    }
    disk->slots_free++;
    allocator->slots_free++;
}

/* What was written ahead is for small writes first, and for others when there is nothing else. */
static bool
take_slot_on(struct allocator *allocator, struct disk *disk, bool small_writes,
             struct extent_place *ret_place)
{
    if (!small_writes && allocator_find_slot(allocator, disk, ret_place)) {
        return true;
    }
    if (!slot_preparer_take(allocator->preparer, disk->record.index, ret_place)) {
        return small_writes && allocator_find_slot(allocator, disk, ret_place);
    }
    ASSERT(disk->slots_free > 0 && allocator->slots_free > 0);
    disk->slots_free--;
    allocator->slots_free--;
    return true;
}

/* At that time it had refused to make room, or not yet answered whether it does. */
static bool
refuses_room(const struct disk *disk, uint64_t at_ns)
{
    return disk->backend_full && at_ns < disk->backend_full_until_ns;
}

/* The disk of this tier (or, with `other_tiers`, any) that has the largest part of it free. */
static struct disk *
best_disk(const struct pool *pool, uint8_t tier, bool other_tiers, uint64_t at_ns)
{
    struct disk *best = NULL;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        struct disk *disk = pool->disks[i];
        if (disk == NULL || disk->backend == NULL || disk->slots_free == 0 ||
            refuses_room(disk, at_ns) || disk->record.state != DISK_STATE_ACTIVE) {
            continue;
        }
        if (!other_tiers && disk->record.tier != tier) {
            continue;
        }
        if (best == NULL || disk->record.tier < best->record.tier ||
            (disk->record.tier == best->record.tier &&
             (uint64_t)disk->slots_free * best->record.slot_count >
                 (uint64_t)best->slots_free * disk->record.slot_count)) {
            best = disk;
        }
    }
    return best;
}

/* Of the disks that did not refuse room at that time. */
static bool
take_slot(struct allocator *allocator, uint8_t tier, bool small_writes, uint64_t at_ns,
          struct extent_place *ret_place)
{
    struct disk *disk = NULL;

    if (tier != VOLUME_TIER_AUTO) {
        disk = best_disk(allocator->pool, tier, false, at_ns);
    }
    if (disk == NULL) {
        disk = best_disk(allocator->pool, tier, true, at_ns);
    }
    return disk != NULL && take_slot_on(allocator, disk, small_writes, ret_place);
}

bool
allocator_take_slot(struct allocator *allocator, uint8_t tier, struct extent_place *ret_place)
{
    uint64_t now_ns = reactor_now_ns(allocator->pool->manager->control);

    return take_slot(allocator, tier, false, now_ns, ret_place) ||
           (slot_preparer_yield(allocator->preparer) &&
            take_slot(allocator, tier, false, now_ns, ret_place));
}

void
allocator_free_slot(struct allocator *allocator, struct extent_place place)
{
    struct disk *disk = pool_disk(allocator->pool, place.disk);
    uint64_t bit = UINT64_C(1) << (place.slot % 64);

    ASSERT((disk->slots_used[place.slot / 64] & bit) != 0);
    disk->slots_used[place.slot / 64] &= ~bit;
    disk->slots_free++;
    disk->backend_full = false;
    if (disk->backend != NULL) {
        allocator->slots_free++;
    }
}

int
allocator_claim_slot(struct allocator *allocator, struct extent_place place)
{
    const struct pool *pool = allocator->pool;

    if (place.disk >= pool->disk_count || pool->disks[place.disk] == NULL) {
        return -EUCLEAN;
    }
    struct disk *disk = pool->disks[place.disk];
    uint64_t bit = UINT64_C(1) << (place.slot % 64);
    if (place.slot >= disk->record.slot_count || (disk->slots_used[place.slot / 64] & bit) != 0) {
        return -EUCLEAN;
    }
    disk->slots_used[place.slot / 64] |= bit;
    disk->slots_free--;
    return 0;
}

static void
slot_range(const struct pool *pool, struct extent_place place, struct backend_io *io)
{
    const struct disk *disk = pool_disk(pool, place.disk);
    io->offset_bytes =
        disk->record.data_start_bytes + (uint64_t)place.slot * pool->record.extent_bytes;
    io->length_bytes = pool->record.extent_bytes;
}

/* ---- grants ---- */

static void
grant_finish(struct allocator_machine *machine, int status)
{
    struct extent_grant *grant = machine->grant;
    struct pool *pool = machine->allocator->pool;

    if (status < 0) {
        /* What was committed or not is not known; the slots stay taken until the next open. */
        grant->count = 0;
        grant->status = status;
    } else {
        slot_preparer_granted(machine->allocator->preparer, grant->count, grant->small_writes);
    }
    machine->grant = NULL;
    machine->work = WORK_NONE;
    timer_disarm(pool->manager->control, &machine->discard_timer);
    extent_grant_answer(grant);
    pool_space_changed(pool);
    allocator_run(machine->allocator);
}

/* ---- numbers ---- */

static void
give_back_id(struct allocator *allocator, uint64_t id)
{
    if (allocator->free_ids.length_bytes < FREE_IDS_MAX * sizeof(id)) {
        byte_buffer_append(&allocator->free_ids, &id, sizeof(id));
    }
}

static uint64_t
take_id(struct allocator *allocator)
{
    struct byte_buffer *ids = &allocator->free_ids;
    uint64_t id = 0;

    if (ids->length_bytes == 0) {
        return allocator->pool->record.next_extent++;
    }
    ids->length_bytes -= sizeof(id);
    memcpy(&id, ids->data + ids->length_bytes, sizeof(id));
    return id;
}

void
allocator_find_free_ids(struct allocator *allocator)
{
    const struct extent_table *table = &allocator->pool->extents;

    uint64_t chunks = div_round_up(table->count_end, EXTENT_CHUNK_COUNT);

    byte_buffer_clear(&allocator->free_ids);
    while (chunks > 0) {
        uint64_t chunk = --chunks;
        if (table->directory[chunk] == NULL) {
            continue; /* it would cost the memory of a chunk */
        }
        for (uint64_t i = EXTENT_CHUNK_COUNT; i > 0; i--) {
            uint64_t id = (chunk << EXTENT_CHUNK_SHIFT) + i - 1;
            if (id > 0 && id < allocator->pool->record.next_extent &&
                extent_table_find(table, id) == NULL) {
                give_back_id(allocator, id);
            }
        }
    }
}

static void
grant_add_extent(struct allocator_machine *machine, struct extent_place place)
{
    struct pool *pool = machine->allocator->pool;
    struct extent_grant *grant = machine->grant;
    uint64_t id = take_id(machine->allocator);
    struct extent *extent = extent_table_add(&pool->extents, id);

    if (extent == NULL) { /* numbers are used up, after 2^30 grants */
        log_error("allocator", "pool %s: no extent number is left", pool->name);
        return; /* the slot stays taken, or it would be picked again for ever */
    }
    memset(extent->used, 0, ((pool->grains_per_extent + 63) / 64) * sizeof(uint64_t));
    extent->owner_branch = grant->volume != NULL ? grant->volume->branch.id : 0;
    extent->places[0] = place;
    extent->copy_count = 1;
    extent->shard = (uint16_t)grant->shard->index;
    extent->tier = pool_disk(pool, place.disk)->record.tier;
    extent->releasing = false;
    extent->source = NULL;
    extent->free_count = pool->grains_per_extent;
    extent->state = EXTENT_STATE_DATA;
    grant->extents[grant->count++] = id;
    if (grant->volume != NULL) {
        pool_branch_got_extent(grant->pool, grant->volume->branch.id);
    }
    struct extent_record record = {
        .owner_branch = extent->owner_branch,
        .state = EXTENT_STATE_DATA,
        .tier = extent->tier,
        .copy_count = 1,
        .places = { place },
    };
    schema_put_extent(&machine->batch, id, &record, pool->grains_per_extent);
}

static void
grant_committed(struct io_op *op)
{
    struct commit_request *request = container_of(op, struct commit_request, op);
    struct allocator_machine *machine = container_of(request, struct allocator_machine, commit);

    grant_finish(machine, op->result);
}

/* The disks have made room: name the extents, and make that durable. */
static void
grant_commit(struct allocator_machine *machine)
{
    struct allocator *allocator = machine->allocator;
    struct pool *pool = allocator->pool;

    byte_buffer_clear(&machine->batch);
    for (uint32_t i = 0; i < machine->place_count; i++) {
        if (machine->places[i].disk == UINT16_MAX) {
            continue; /* late: its slot comes back when the disk answers */
        }
        if (machine->refused[i]) {
            struct disk *disk = pool_disk(pool, machine->places[i].disk);
            allocator_free_slot(allocator, machine->places[i]);
            disk->backend_full = true;
            disk->backend_full_until_ns =
                reactor_now_ns(pool->manager->control) + ROOM_RETRY_NS;
        } else {
            grant_add_extent(machine, machine->places[i]);
        }
    }
    if (machine->grant->count == 0) {
        machine->work = WORK_NONE; /* pick again: other disks may have room */
        allocator_run(allocator);
        return;
    }
    machine->commit.has_numbers = true;
    machine->work = WORK_GRANT_COMMIT;
    machine->commit.op.done = grant_committed;
    machine->commit.batch = &machine->batch;
    committer_submit(pool, &machine->commit);
}

static void
room_is_settled(struct extent_room *room, bool refused)
{
    struct allocator_machine *machine = room->allocator->machine;

    ASSERT(machine->work == WORK_GRANT_ROOM);
    machine->refused[room->index] = refused;
    ASSERT_OP(machine->pending, >, 0u);
    if (--machine->pending == 0) {
        grant_commit(machine);
    }
}

static void
room_made(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct extent_room *room = container_of(io, struct extent_room, io);
    const struct disk *disk = pool_disk(room->allocator->pool, room->place.disk);

    if (op->result < 0 && op->result != -ENOSPC) {
        log_warning("allocator", "%s: cannot make room for an extent: %s",
                    disk->backend != NULL ? disk->backend->spec : "a disk that is missing",
                    error_name(op->result));
    }
    room->allocator->side_operations--;
    if (room->abandoned) {
        allocator_free_slot(room->allocator, room->place);
        allocator_run(room->allocator);
    } else {
        room_is_settled(room, op->result < 0);
    }
    free(room);
}

/* The disk is late: go on without it. The slot stays taken until the disk has answered. */
static void
room_is_late(struct backend_io *io)
{
    struct extent_room *room = container_of(io, struct extent_room, io);
    struct allocator_machine *machine = room->allocator->machine;
    struct disk *disk = pool_disk(room->allocator->pool, room->place.disk);

    room->abandoned = true;
    disk->backend_full = true;
    disk->backend_full_until_ns = UINT64_MAX; /* until it answers: see room_made() */
    machine->places[room->index].disk = UINT16_MAX; /* grant_commit() leaves it alone */
    room_is_settled(room, true);
}

static void
grant_make_room(struct allocator_machine *machine)
{
    struct allocator *allocator = machine->allocator;
    struct pool *pool = allocator->pool;

    machine->work = WORK_GRANT_ROOM;
    machine->pending = 1;
    for (uint32_t i = 0; i < machine->place_count; i++) {
        struct disk *disk = pool_disk(pool, machine->places[i].disk);
        machine->refused[i] = false;
        if (!disk->backend->properties.thin) {
            continue;
        }
        struct extent_room *room = calloc(1, sizeof(*room));
        ASSERT(room != NULL);
        room->allocator = allocator;
        room->place = machine->places[i];
        room->index = i;
        room->io.op.done = room_made;
        room->io.overdue = room_is_late;
        room->io.kind = BACKEND_ALLOCATE;
        room->io.timeout_ns = MIN(pool->manager->options.disk_timeout_ns, ROOM_TIMEOUT_NS);
        slot_range(pool, room->place, &room->io);
        machine->pending++;
        allocator->side_operations++;
        backend_submit(disk->backend, &room->io);
    }
    if (--machine->pending == 0) {
        grant_commit(machine);
    }
}

/* ---- under pressure: what shards keep for later ---- */

struct shed_round {
    struct message message;
    struct shard *shard;
    struct allocator_machine *machine;
};

static void
shed_answered(struct message *message)
{
    struct shed_round *round = container_of(message, struct shed_round, message);
    struct allocator_machine *machine = round->machine;

    free(round);
    if (--machine->pending == 0) {
        /* What they gave back arrived before their answers: it is in line for release now. */
        machine->work = WORK_NONE;
        allocator_run(machine->allocator);
    }
}

static void
shed_on_shard(struct message *message)
{
    struct shed_round *round = container_of(message, struct shed_round, message);
    struct shard *shard = round->shard;

    grain_source_shed(&shard->shared_source);
    list_for_each(&shard->volumes, link) {
        grain_source_shed(&list_entry(link, struct volume, shard_link)->source);
    }
    reactor_send(shard->pool->manager->control, &round->message, shed_answered);
}

static void
grant_shed(struct allocator_machine *machine)
{
    struct pool *pool = machine->allocator->pool;

    machine->work = WORK_GRANT_SHED;
    machine->shed = true;
    machine->pending = pool->manager->options.reactor_count;
    for (uint32_t i = 0; i < pool->manager->options.reactor_count; i++) {
        struct shed_round *round = calloc(1, sizeof(*round));
        ASSERT(round != NULL);
        round->machine = machine;
        round->shard = pool->shards[i];
        reactor_send(round->shard->reactor, &round->message, shed_on_shard);
    }
}

/* The grant finds no slot: is the one that the preparer writes free now? */
static bool
take_from_preparer(struct allocator_machine *machine)
{
    struct allocator *allocator = machine->allocator;
    bool was_yielding = slot_preparer_is_yielding(allocator->preparer);

    if (slot_preparer_yield(allocator->preparer)) {
        return true;
    }
    if (!was_yielding && slot_preparer_is_yielding(allocator->preparer)) {
        uint64_t now_ns = reactor_now_ns(allocator->pool->manager->control);
        machine->discards_until_ns = MAX(machine->discards_until_ns, now_ns + DISCARD_WAIT_NS);
    }
    return false;
}

void
allocator_slot_returned(struct allocator *allocator)
{
    pool_space_changed(allocator->pool);
    allocator_run(allocator);
}

static void
discards_are_late(struct timer *timer)
{
    allocator_run(container_of(timer, struct allocator_machine, discard_timer)->allocator);
}

/*
 * Extents are on their way back: they are nobody's any more, and will be free when their disks have
 * discarded them; so will the slot that is yielded. Wait for that, but not for a disk that hangs.
 */
static bool
wait_for_discards(struct allocator_machine *machine)
{
    struct allocator *allocator = machine->allocator;
    struct reactor *control = allocator->pool->manager->control;
    bool is_one_coming =
        machine->discards > 0 || slot_preparer_is_yielding(allocator->preparer);

    if (!is_one_coming || reactor_now_ns(control) >= machine->discards_until_ns) {
        return false;
    }
    if (!timer_is_armed(&machine->discard_timer)) {
        timer_arm(control, &machine->discard_timer, machine->discards_until_ns,
                  discards_are_late);
    }
    return true;
}

static void
grant_begin(struct allocator *allocator, struct extent_grant *grant)
{
    struct allocator_machine *machine = allocator->machine;
    uint64_t available = allocator_available(allocator, grant->volume);
    uint32_t wanted = grant->wanted;
    uint8_t tier = grant->volume != NULL ? grant->volume->durable.tier : VOLUME_TIER_AUTO;

    if (machine->grant != grant) {
        machine->grant = grant;
        machine->grant_began_ns = reactor_now_ns(allocator->pool->manager->control);
        machine->shed = false;
    }
    machine->place_count = 0;
    grant->count = 0;
    grant->status = 0;
    /* Near the end of the pool nobody takes more than a little ahead of need. */
    wanted = (uint32_t)MIN((uint64_t)wanted, MAX(available / 16, UINT64_C(1)));
    wanted = (uint32_t)MIN((uint64_t)wanted, available);
    while (machine->place_count < wanted &&
           take_slot(allocator, tier, grant->small_writes, machine->grant_began_ns,
                     &machine->places[machine->place_count])) {
        machine->place_count++;
    }
    if (machine->place_count == 0 && take_from_preparer(machine)) {
        allocator_run(allocator);
        return;
    }
    if (machine->place_count == 0 && !machine->shed) {
        grant_shed(machine);
        return;
    }
    if (machine->place_count == 0 && wait_for_discards(machine)) {
        return;
    }
    if (machine->place_count == 0) {
        pool_out_of_space(allocator->pool, grant->volume);
        grant_finish(machine, allocator->pool->committer.broken ? -EROFS : -ENOSPC);
        return;
    }
    grant_make_room(machine);
}

void
allocator_grant(struct extent_grant *grant)
{
    struct allocator *allocator = &grant->pool->allocator;

    ASSERT_ON_REACTOR(grant->pool->manager->control);
    list_push_back(&allocator->grants, &grant->link);
    allocator_run(allocator);
}

/* ---- releases ---- */

static void
release_end(struct extent_release *release)
{
    struct allocator *allocator = &release->pool->allocator;

    for (uint8_t copy = 0; copy < release->copy_count; copy++) {
        allocator_free_slot(allocator, release->places[copy]);
    }
    give_back_id(allocator, release->extent);
    ASSERT_OP(allocator->machine->discards, >, 0u);
    allocator->machine->discards--;
    pool_space_changed(release->pool);
    free(release);
    allocator_run(allocator);
}

static void
slot_discarded(struct io_op *op)
{
    struct backend_io *io = container_of(op, struct backend_io, op);
    struct extent_release *release = io->owner;

    /* A discard is a hint: a disk that refuses it only keeps the space to itself. */
    release->pool->allocator.side_operations--;
    if (--release->discards_pending == 0) {
        release_end(release);
    }
}

/* X3. Beside the machine: a disk that hangs on a discard keeps its slot and delays nobody (P9). */
static void
release_discard(struct extent_release *release)
{
    struct pool *pool = release->pool;
    struct allocator_machine *machine = pool->allocator.machine;

    machine->discards++;
    machine->discards_until_ns = reactor_now_ns(pool->manager->control) + DISCARD_WAIT_NS;
    release->discards_pending = 1;
    for (uint8_t copy = 0; copy < release->copy_count; copy++) {
        struct disk *disk = pool_disk(pool, release->places[copy].disk);
        struct backend_io *io = &release->ios[copy];
        if (disk->backend == NULL || disk->backend->properties.discard_granularity_bytes == 0) {
            continue;
        }
        io->op.done = slot_discarded;
        io->owner = release;
        io->kind = BACKEND_DISCARD;
        io->timeout_ns = pool->manager->options.disk_timeout_ns;
        slot_range(pool, release->places[copy], io);
        release->discards_pending++;
        pool->allocator.side_operations++;
        backend_submit(disk->backend, io);
    }
    if (--release->discards_pending == 0) {
        release_end(release);
    }
}

static void
releases_committed(struct io_op *op)
{
    struct commit_request *request = container_of(op, struct commit_request, op);
    struct allocator_machine *machine = container_of(request, struct allocator_machine, commit);

    if (op->result < 0) {
        /* Read-only now: the slots stay taken, the records say what is true at the next open. */
        list_for_each_safe(&machine->releasing, link) {
            list_remove(link);
            free(list_entry(link, struct extent_release, link));
        }
        machine->work = WORK_NONE;
        allocator_run(machine->allocator);
        return;
    }
    machine->work = WORK_NONE;
    for (struct list *link = list_pop_front(&machine->releasing); link != NULL;
         link = list_pop_front(&machine->releasing)) {
        release_discard(list_entry(link, struct extent_release, link));
    }
    allocator_run(machine->allocator);
}

static void
releases_begin(struct allocator *allocator)
{
    struct allocator_machine *machine = allocator->machine;
    struct pool *pool = allocator->pool;
    uint32_t count = 0;

    byte_buffer_clear(&machine->batch);
    while (count < RELEASES_AT_ONCE && !list_empty(&allocator->releases)) {
        struct list *link = list_pop_front(&allocator->releases);
        struct extent_release *release = list_entry(link, struct extent_release, link);
        struct extent *extent = extent_table_find(&pool->extents, release->extent);
        uint8_t key[EXTENT_KEY_BYTES];

        ASSERT(extent != NULL && extent->releasing);
        memcpy(release->places, extent->places, sizeof(release->places));
        release->copy_count = extent->copy_count;
        if (extent->owner_branch != 0) {
            pool_branch_lost_extent(pool, extent->owner_branch);
        }
        extent->state = 0;
        extent_key_encode(key, release->extent);
        store_batch_delete(&machine->batch, STORE_FAMILY_EXTENT, key, sizeof(key));
        list_push_back(&machine->releasing, link);
        count++;
    }
    machine->work = WORK_RELEASE_COMMIT;
    machine->commit.op.done = releases_committed;
    machine->commit.batch = &machine->batch;
    committer_submit(pool, &machine->commit);
}

static void
release_deliver(struct message *message)
{
    struct extent_release *release = container_of(message, struct extent_release, message);
    struct allocator *allocator = &release->pool->allocator;

    ASSERT_ON_REACTOR(release->pool->manager->control);
    list_push_back(&allocator->releases, &release->link);
    allocator_run(allocator);
}

void
allocator_release(struct pool *pool, uint64_t extent)
{
    struct extent_release *release = calloc(1, sizeof(*release));

    ASSERT(release != NULL);
    release->pool = pool;
    release->extent = extent;
    reactor_send(pool->manager->control, &release->message, release_deliver);
}

/* ---- the machine ---- */

static void
run_hook(struct pass_hook *hook)
{
    struct allocator_machine *machine = container_of(hook, struct allocator_machine, hook);
    struct allocator *allocator = machine->allocator;

    if (machine->work != WORK_NONE) {
        return;
    }
    if (!list_empty(&allocator->releases)) {
        releases_begin(allocator);
    } else if (machine->grant != NULL) {
        grant_begin(allocator, machine->grant);
    } else if (!list_empty(&allocator->grants)) {
        grant_begin(allocator,
                    list_entry(list_pop_front(&allocator->grants), struct extent_grant, link));
    }
}

static void
allocator_run(struct allocator *allocator)
{
    reactor_end_of_pass(allocator->pool->manager->control, &allocator->machine->hook, run_hook);
}
