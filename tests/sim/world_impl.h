/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the world share. Not for tests. */
#ifndef TESTS_SIM_WORLD_IMPL_H
#define TESTS_SIM_WORLD_IMPL_H

#include "tests/sim/world.h"

enum {
    WORLD_WAIT_S = 600, /* of virtual time */
};

/* A request is submitted or a FLUSH sent; it was answered. No effect when nothing records. */
void world_note_sent(struct world *world, const struct world_io *io);
void world_note_answered(struct world *world, const struct world_io *io);
/* A change of size, which may have taken effect from the first call on. */
void world_note_resize_sent(struct world *world, uint32_t volume, uint64_t size_bytes);
void world_note_resize_answered(struct world *world, uint32_t volume, bool success);
/* Requests that died with the process. */
void world_abandon_ios(struct world *world);

#endif
