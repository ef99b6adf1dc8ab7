/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/map_lookup_impl.h"

#include <errno.h>

#include "base/assert.h"
#include "base/util.h"
#include "metadata/schema.h"

static void lookup_place(struct map_lookup *lookup);

static void
lookup_end(struct map_lookup *lookup, int result)
{
    byte_buffer_free(&lookup->get.value);
    lookup->op.result = result;
    lookup->op.done(&lookup->op);
}

/* A key that was found: its version must be one that belongs to this place. */
static int
version_of(const struct map_lookup *lookup, const uint8_t *key, uint32_t key_bytes,
           uint32_t *ret_version)
{
    const struct view_chain *chain = lookup->chain;
    const struct view_place *place = &chain->places[lookup->place];
    uint32_t above =
        lookup->place + 1 < chain->all ? chain->places[lookup->place + 1].generation : 0;
    uint64_t branch = 0;
    uint64_t page = 0;
    uint64_t version = 0;

    if (map_key_decode(key, key_bytes, &branch, &page, &version) < 0 || branch != place->branch ||
        page != lookup->page || version <= above ||
        version > MIN(place->generation, lookup->newest)) {
        return -EUCLEAN;
    }
    *ret_version = (uint32_t)version;
    return 0;
}

/* There is something at this place. */
static int
lookup_found(struct map_lookup *lookup)
{
    const struct store_get *get = &lookup->get;
    uint32_t *to = lookup->ret_version == 0 ? &lookup->ret_version : &lookup->ret_previous;

    int result = version_of(lookup, get->ret_key, get->ret_key_bytes, to);
    if (result < 0 || to == &lookup->ret_previous) {
        return result;
    }
    lookup->ret_branch = lookup->chain->places[lookup->place].branch;
    struct byte_buffer value = lookup->value;
    lookup->value = lookup->get.value;
    lookup->get.value = value;
    if (lookup->wants_previous && get->ret_previous_key_bytes > 0) {
        result = version_of(lookup, get->ret_previous_key, get->ret_previous_key_bytes,
                            &lookup->ret_previous);
    }
    return result;
}

static void
lookup_got(struct io_op *op)
{
    struct store_get *get = container_of(op, struct store_get, op);
    struct map_lookup *lookup = container_of(get, struct map_lookup, get);
    int result = op->result;

    if (result == 0) {
        result = lookup_found(lookup);
    } else if (result == -ENOENT) {
        result = 0;
    }
    bool found = lookup->ret_version != 0;
    bool more = found ? lookup->wants_previous && lookup->ret_previous == 0 : true;
    uint32_t end = found ? lookup->chain->all : lookup->chain->count;
    if (result < 0 || !more || ++lookup->place >= end) {
        lookup_end(lookup, result);
        return;
    }
    lookup_place(lookup);
}

static void
lookup_place(struct map_lookup *lookup)
{
    const struct view_place *place = &lookup->chain->places[lookup->place];
    struct store_get *get = &lookup->get;

    byte_buffer_clear(&get->value);
    get->op.done = lookup_got;
    get->family = STORE_FAMILY_MAP;
    get->floor = true;
    get->floor_prefix_bytes = 16; /* branch and page number */
    get->previous = lookup->wants_previous && lookup->ret_version == 0;
    get->ret_previous_key_bytes = 0;
    get->key_bytes = MAP_KEY_BYTES;
    map_key_encode(get->key, place->branch, lookup->page, MIN(place->generation, lookup->newest));
    store_get(lookup->store, get);
}

void
map_lookup(struct map_lookup *lookup)
{
    ASSERT(lookup->op.done != NULL && lookup->chain->count > 0);
    ASSERT(lookup->chain->count <= lookup->chain->all);
    byte_buffer_clear(&lookup->value);
    lookup->place = 0;
    lookup->ret_version = 0;
    lookup->ret_previous = 0;
    lookup->ret_branch = 0;
    lookup_place(lookup);
}
