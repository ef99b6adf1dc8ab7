/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A naive reference for the space that volumes take.
 *
 * A block (4 KiB) holds data from the first write to it, whole or in part, until the whole of it is
 * discarded or zeroed without NO_HOLE; zeroing with NO_HOLE is a write. A grain (64 KiB) takes
 * space while one of its blocks holds data. That is all; the counters of a volume and of the pool
 * must agree with it to the byte whenever nothing is under way. What a request that failed has done
 * is not known: there the volume's own report is believed, and only its sums are checked.
 */
#ifndef TESTS_MODEL_SPACE_MODEL_H
#define TESTS_MODEL_SPACE_MODEL_H

#include "tests/sim/world.h"

struct space_model;

/* Follows the requests of `world` from now on. All volumes are empty. */
struct space_model *space_model_create(struct world *world);
void space_model_free(struct space_model *model);

/* The volume is as large as the world says; what lay behind the end is gone. */
void space_model_resized(struct space_model *model, uint32_t volume);
/* Whether a block from `offset_bytes` (of whole blocks) on holds data. */
bool space_model_holds_data_from(const struct space_model *model, uint32_t volume,
                                 uint64_t offset_bytes);
/* Nothing is in flight. Compare blocks, volumes and the pool. 0, -EBADMSG, or what asking said. */
int space_model_compare(struct space_model *model);

#endif
