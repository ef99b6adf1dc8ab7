/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/space_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum block_state {
    BLOCK_EMPTY,
    BLOCK_DATA,
    BLOCK_UNKNOWN, /* a request failed on it */
};

struct space_model {
    struct world *world;
    uint8_t *blocks[WORLD_VOLUMES_MAX]; /* enum block_state */
    uint64_t block_count;               /* room for, of each */
};

/* ---- following ---- */

/* A request has this effect on blocks that it covers wholly, and on others. */
static void
change(struct space_model *model, const struct world_io *io, enum block_state whole,
       enum block_state part, bool keep_part)
{
    uint8_t *blocks = model->blocks[io->volume];
    uint64_t end = io->offset_bytes + io->length_bytes;
    uint64_t size_bytes = model->world->sizes[io->volume];

    for (uint64_t at = io->offset_bytes; at < end; at = align_down(at, BLOCK_BYTES) + BLOCK_BYTES) {
        uint64_t block = at / BLOCK_BYTES;
        uint64_t block_end = (block + 1) * BLOCK_BYTES;
        ASSERT_OP(block, <, model->block_count);
        if (at % BLOCK_BYTES == 0 && end >= block_end) {
            blocks[block] = (uint8_t)whole;
        } else if (end == size_bytes && block_end > size_bytes) {
            blocks[block] = BLOCK_UNKNOWN; /* the block that the volume's end cuts */
        } else if (!keep_part) {
            blocks[block] = (uint8_t)part;
        }
    }
}

/* Requests that touch each other take effect in the order of their submission. */
static void
told(void *context, const struct world_io *io)
{
    struct space_model *model = context;

    if (io->operation == VOLUME_READ || io->operation == VOLUME_FLUSH ||
        io->operation == VOLUME_STATUS || (io->replied && io->status == 0)) {
        return;
    }
    if (io->replied) {
        change(model, io, BLOCK_UNKNOWN, BLOCK_UNKNOWN, false);
    } else if (io->operation == VOLUME_WRITE || (io->flags & VOLUME_NO_HOLE) != 0) {
        change(model, io, BLOCK_DATA, BLOCK_DATA, false);
    } else {
        change(model, io, BLOCK_EMPTY, BLOCK_EMPTY, true);
    }
}

struct space_model *
space_model_create(struct world *world)
{
    struct space_model *model = calloc(1, sizeof(*model));

    ASSERT(model != NULL);
    model->world = world;
    model->block_count = div_round_up(
        MAX(world->options.volume_bytes, world->options.volume_bytes_max), BLOCK_BYTES);
    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        model->blocks[v] = calloc(model->block_count, 1);
        ASSERT(model->blocks[v] != NULL);
    }
    world->told = told;
    world->told_context = model;
    return model;
}

void
space_model_free(struct space_model *model)
{
    model->world->told = NULL;
    for (uint32_t v = 0; v < WORLD_VOLUMES_MAX; v++) {
        free(model->blocks[v]);
    }
    free(model);
}

void
space_model_resized(struct space_model *model, uint32_t volume)
{
    uint64_t first = div_round_up(model->world->sizes[volume], BLOCK_BYTES);

    memset(model->blocks[volume] + first, BLOCK_EMPTY, model->block_count - first);
}

bool
space_model_holds_data_from(const struct space_model *model, uint32_t volume,
                            uint64_t offset_bytes)
{
    for (uint64_t block = offset_bytes / BLOCK_BYTES; block < model->block_count; block++) {
        if (model->blocks[volume][block] != BLOCK_EMPTY) {
            return true;
        }
    }
    return false;
}

/* ---- comparing ---- */

/* Blocks against the volume's report, which also settles what was unknown. */
static int
compare_blocks(struct space_model *model, uint32_t volume, uint64_t *ret_grains)
{
    struct world *world = model->world;
    uint64_t count = div_round_up(world->sizes[volume], BLOCK_BYTES);
    uint8_t *blocks = model->blocks[volume];
    uint8_t *reported = calloc(count, 1);
    ASSERT(reported != NULL);
    int result = world_allocated(world, volume, BLOCK_BYTES, reported);

    *ret_grains = 0;
    for (uint64_t i = 0; i < count && result == 0; i++) {
        if (blocks[i] != BLOCK_UNKNOWN && blocks[i] != reported[i]) {
            fprintf(stderr, "volume %u block %" PRIu64 " %s data and should%s\n", volume, i,
                    reported[i] ? "holds" : "holds no", reported[i] ? " not" : "");
            result = -EBADMSG;
        }
        blocks[i] = reported[i] ? BLOCK_DATA : BLOCK_EMPTY;
    }
    for (uint64_t i = 0; i < count; i += BLOCKS_PER_GRAIN) {
        *ret_grains += memchr(reported + i, 1, MIN((uint64_t)BLOCKS_PER_GRAIN, count - i)) != NULL;
    }
    free(reported);
    return result;
}

static int
differs(const char *what, uint64_t is, uint64_t expected)
{
    if (is == expected) {
        return 0;
    }
    fprintf(stderr, "%s: %" PRIu64 " bytes instead of %" PRIu64 "\n", what, is, expected);
    return -EBADMSG;
}

static int
compare_pool(struct space_model *model, uint64_t grains)
{
    struct world *world = model->world;
    struct pool_report pool;
    uint64_t provisioned = 0;
    int result = world_query_pool(world, &pool);

    if (result < 0) {
        return result;
    }
    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        provisioned += world->sizes[v];
    }
    result = differs("used", pool.used_bytes, grains * GRAIN_BYTES);
    result = result < 0 ? result : differs("provisioned", pool.provisioned_bytes, provisioned);
    if (result == 0 && pool.used_bytes + pool.trapped_bytes > pool.allocated_bytes) {
        result = differs("allocated, at least", pool.allocated_bytes,
                         pool.used_bytes + pool.trapped_bytes);
    }
    if (result == 0 && pool.allocated_bytes > pool.size_bytes) {
        result = differs("allocated, at most", pool.allocated_bytes, pool.size_bytes);
    }
    return result;
}

int
space_model_compare(struct space_model *model)
{
    struct world *world = model->world;
    uint64_t all_grains = 0;

    ASSERT_OP(world->in_flight, ==, 0u);
    for (uint32_t v = 0; v < world->options.volume_count; v++) {
        struct volume_report report;
        uint64_t grains = 0;
        int result = compare_blocks(model, v, &grains);
        result = result < 0 ? result : world_query_volume(world, v, &report);
        result = result < 0 ? result
                            : differs("volume", report.mapped_bytes, grains * GRAIN_BYTES);
        result = result < 0 ? result
                            : differs("volume's size", report.info.size_bytes, world->sizes[v]);
        if (result < 0) {
            fprintf(stderr, "... volume %u\n", v);
            return result;
        }
        all_grains += grains;
    }
    return compare_pool(model, all_grains);
}
