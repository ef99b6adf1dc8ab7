/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots and batches: per shard, shared by its connections, taken from slabs that come with the load
 * and go when it has gone. A busy shard allocates nothing; an idle connection holds nothing.
 */
#include "targets/nbd/connection_impl.h"

#include <stdlib.h>

#include "base/util.h"

enum {
    SLAB_SLOTS = 16,
    SPARE_SLOTS = 64,  /* kept when the load has gone */
    SPARE_BATCHES = 4,
    CACHE_LINE_BYTES = 64,
};

struct nbd_slab {
    struct list link; /* the shard's */
    uint32_t used;
    _Alignas(CACHE_LINE_BYTES) struct nbd_slot slots[SLAB_SLOTS];
};

static bool
grow(struct nbd_shard *shard)
{
    struct nbd_slab *slab = aligned_alloc(CACHE_LINE_BYTES, sizeof(*slab));

    if (slab == NULL) {
        return false;
    }
    slab->used = 0;
    list_push_back(&shard->slabs, &slab->link);
    for (uint32_t i = 0; i < SLAB_SLOTS; i++) {
        struct nbd_slot *slot = &slab->slots[i];
        slot->connection = NULL;
        slot->slab = slab;
        slot->holds = 0;
        slot->buffer.segment_count = 0;
        slot->buffer.length_bytes = 0;
        volume_request_init(&slot->request);
        slot->next = shard->free_slots;
        shard->free_slots = slot;
    }
    shard->slots_free += SLAB_SLOTS;
    shard->slots_total += SLAB_SLOTS;
    return true;
}

struct nbd_slot *
nbd_slot_take(struct nbd_connection *conn)
{
    struct nbd_shard *shard = conn->shard;

    ASSERT_ON_REACTOR(shard->reactor);
    if (shard->free_slots == NULL && !grow(shard)) {
        return NULL;
    }
    struct nbd_slot *slot = shard->free_slots;
    ASSERT(slot->connection == NULL);
    shard->free_slots = slot->next;
    shard->slots_free--;
    slot->slab->used++;
    slot->connection = conn;
    slot->holds = 0;
    conn->slots_in_use++;
    return slot;
}

static void
give_back(struct nbd_slot *slot)
{
    struct nbd_connection *conn = slot->connection;
    struct nbd_shard *shard = conn->shard;

    if (slot->buffer.segment_count > 0) {
        struct iovec *first = &slot->buffer.segments[0];
        first->iov_base = (uint8_t *)first->iov_base - slot->shift_bytes;
        first->iov_len += slot->shift_bytes;
        buffer_pool_put(reactor_buffer_pool(shard->reactor), &slot->buffer);
    }
    ASSERT_OP(conn->slots_in_use, >, 0u);
    ASSERT_OP(conn->bytes_in_flight, >=, slot->budget_bytes);
    conn->slots_in_use--;
    conn->bytes_in_flight -= slot->budget_bytes;
    slot->connection = NULL;
    slot->slab->used--;
    slot->next = shard->free_slots;
    shard->free_slots = slot;
    shard->slots_free++;
    if (conn->stall != NBD_STALL_NONE || conn->state != NBD_STATE_TRANSMISSION) {
        nbd_connection_wake(conn);
    }
}

void
nbd_slot_drop_hold(struct nbd_slot *slot, enum nbd_slot_hold hold)
{
    ASSERT_ON_REACTOR(slot->connection->shard->reactor);
    ASSERT((slot->holds & hold) != 0);
    slot->holds &= (uint8_t)~hold;
    if (slot->holds == 0) {
        give_back(slot);
    }
}

void
nbd_transmission_abandon(struct nbd_connection *conn)
{
    struct nbd_slot *slots[] = { conn->incoming, conn->skipping };

    ASSERT_ON_REACTOR(conn->shard->reactor);
    ASSERT(!conn->receiving);
    conn->incoming = NULL;
    conn->skipping = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(slots); i++) {
        if (slots[i] != NULL) {
            ASSERT_OP(slots[i]->holds, ==, 0u);
            give_back(slots[i]);
        }
    }
}

struct nbd_batch *
nbd_batch_take(struct nbd_shard *shard)
{
    struct nbd_batch *batch = shard->free_batches;

    ASSERT_ON_REACTOR(shard->reactor);
    if (batch != NULL) {
        shard->free_batches = batch->next;
        shard->batches_free--;
    } else {
        batch = malloc(sizeof(*batch));
    }
    if (batch != NULL) {
        batch->next = NULL;
        batch->slots = NULL;
        batch->segment_count = 0;
        batch->header_length_bytes = 0;
        batch->length_bytes = 0;
    }
    return batch;
}

void
nbd_batch_give(struct nbd_shard *shard, struct nbd_batch *batch)
{
    ASSERT_ON_REACTOR(shard->reactor);
    ASSERT(batch->slots == NULL);
    batch->next = shard->free_batches;
    shard->free_batches = batch;
    shard->batches_free++;
}

/* Free the slabs of which no slot is in use, but `keep` slots. */
static void
free_empty_slabs(struct nbd_shard *shard, uint32_t keep)
{
    struct nbd_slot **at = &shard->free_slots;
    uint32_t leave = shard->slots_free > keep ? (shard->slots_free - keep) / SLAB_SLOTS : 0;

    list_for_each_safe(&shard->slabs, node) {
        struct nbd_slab *slab = list_entry(node, struct nbd_slab, link);
        if (slab->used == 0 && leave > 0) {
            leave--;
            slab->used = UINT32_MAX; /* marked: its slots leave the free list first */
        }
    }
    while (*at != NULL) {
        if ((*at)->slab->used == UINT32_MAX) {
            *at = (*at)->next;
            shard->slots_free--;
            shard->slots_total--;
        } else {
            at = &(*at)->next;
        }
    }
    list_for_each_safe(&shard->slabs, node) {
        struct nbd_slab *slab = list_entry(node, struct nbd_slab, link);
        if (slab->used == UINT32_MAX) {
            list_remove(&slab->link);
            free(slab);
        }
    }
}

static void
free_batches(struct nbd_shard *shard, uint32_t keep)
{
    while (shard->batches_free > keep) {
        struct nbd_batch *batch = shard->free_batches;
        shard->free_batches = batch->next;
        shard->batches_free--;
        free(batch);
    }
}

void
nbd_shard_trim(struct nbd_shard *shard)
{
    ASSERT_ON_REACTOR(shard->reactor);
    if (shard->slots_free > SPARE_SLOTS && shard->slots_free * 2 > shard->slots_total) {
        free_empty_slabs(shard, SPARE_SLOTS);
    }
    free_batches(shard, SPARE_BATCHES);
}

void
nbd_shard_free_memory(struct nbd_shard *shard)
{
    ASSERT_ON_REACTOR(shard->reactor);
    ASSERT_OP(shard->slots_free, ==, shard->slots_total);
    free_empty_slabs(shard, 0);
    free_batches(shard, 0);
    free(shard->scratch);
    shard->scratch = NULL;
    ASSERT_OP(shard->slots_total, ==, 0u);
}
