/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on a disk, and what a power cut would leave: the model of a volatile write cache.
 *
 * THEORY OF OPERATION
 *
 * A disk's past is a sequence of events: an operation is submitted, it completes, the cache loses
 * its content, an operation is abandoned. The model digests events one by one and keeps
 *
 *   durable     the image that survives any cut,
 *   completed   operations that changed the disk and are not known to be durable, in the order of
 *               their completion,
 *   in flight   operations that were submitted and have not completed.
 *
 * The running simulation and the log that replays it (sim_log.h) feed the same events to the same
 * functions, so a crash image made from the log at event n *is* what a cut at n leaves.
 *
 * Invariants
 *  D1  A flush makes durable what had completed before the flush was submitted, nothing else, and
 *      only when it completes with success.
 *  D2  FUA writes are durable when they complete, and an older write to the same sectors never
 *      comes back over them. So with all operations on a disk without a write cache.
 *  D3  At a cut each other operation, completed or in flight, is kept, lost, or torn between units
 *      of atomic_bytes, independently; a later one may be kept while an earlier one is lost. What
 *      is kept is applied in order: an old write over a new one to the same sector is the case in
 *      which the new one was lost.
 *  D4  What a cut decides about an operation depends on the cut's seed and the operation's
 *      sequence number only.
 */
#ifndef TESTS_SIM_SIM_MODEL_H
#define TESTS_SIM_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/platform.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_image.h"

/* Which units of an operation reach the disk. */
enum sim_effect_kind {
    SIM_EFFECT_ALL,
    SIM_EFFECT_NONE,
    SIM_EFFECT_PREFIX,    /* the first units, at least one and not all where there are several */
    SIM_EFFECT_SCATTERED, /* each unit by the toss of a coin */
    SIM_EFFECT_LENGTH,    /* the first `seed` bytes: a short transfer */
};

struct sim_effect {
    enum sim_effect_kind kind;
    uint64_t seed;
};

/* One change of a disk, or a flush. Shared by reference; constant once it has completed. */
struct sim_operation {
    uint64_t sequence; /* of all disks, in order of submission; from 1 */
    uint32_t references;
    uint32_t disk_index;
    enum file_io_kind kind;
    bool fua;
    uint32_t atomic_bytes; /* it tears between units of this size only */
    enum sim_discard discard;
    uint64_t seed; /* of what is arbitrary in it */
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint8_t *payload;         /* WRITE */
    struct sim_effect effect; /* once it has completed */
    bool succeeded;           /* once it has completed */
};

struct sim_operation *sim_operation_get(struct sim_operation *operation);
void sim_operation_put(struct sim_operation *operation);
/* Apply to an image the units that all of the effects let through. */
void sim_operation_apply(const struct sim_operation *operation, struct sim_image *image,
                         const struct sim_effect *effects, uint32_t effect_count);

struct sim_model_completed {
    struct sim_operation *operation;
    uint64_t number; /* of the completion; ascending */
    struct sim_effect effect;
    bool certain; /* the cut has no choice any more */
};

struct sim_model_in_flight {
    struct sim_operation *operation;
    uint64_t flush_mark; /* completions that a flush covers */
};

struct sim_model {
    struct sim_image durable;
    bool write_cache;
    uint64_t completions;
    struct sim_model_completed *completed;
    uint32_t completed_count;
    uint32_t completed_capacity;
    struct sim_model_in_flight *in_flight;
    uint32_t in_flight_count;
    uint32_t in_flight_capacity;
};

/* Takes over `image`. */
void sim_model_init(struct sim_model *model, struct sim_image *image, bool write_cache);
void sim_model_free(struct sim_model *model);
/* `*ret_model` need not be initialised. */
void sim_model_clone(struct sim_model *ret_model, const struct sim_model *from);

/* The events. */
void sim_model_submit(struct sim_model *model, struct sim_operation *operation);
/* effect and succeeded have been set. */
void sim_model_complete(struct sim_model *model, struct sim_operation *operation);
/* It will never take effect (cancelled when its process died). */
void sim_model_abandon(struct sim_model *model, struct sim_operation *operation);
/*
 * The cache loses what it holds: now, once and for all, each operation that completed and is not
 * durable is kept, lost or torn by `seed`.
 */
void sim_model_drop_cache(struct sim_model *model, uint64_t seed);

/* What reads see: durable, and everything that has completed. */
void sim_model_visible(const struct sim_model *model, struct sim_image *ret_image);

/* ---- power cuts ---- */

/* A cut, worked out over all disks (and stores, which read style and seed). */
enum sim_cut_style {
    SIM_STYLE_LOSE_ALL,
    SIM_STYLE_KEEP_ALL,
    SIM_STYLE_MIXED,       /* each: kept, lost or torn */
    SIM_STYLE_MOSTLY_KEPT, /* each: kept, and one in eight lost or torn */
    SIM_STYLE_EARLY_KEPT,  /* kept up to a point, torn there, lost behind it */
    SIM_STYLE_LATE_KEPT,   /* lost up to a point, kept behind it */
    SIM_STYLE_COUNT,
    SIM_STYLE_MASK, /* the caller decides */
};

struct sim_cut_plan {
    enum sim_cut_style style;
    uint64_t seed;
    uint64_t threshold_sequence;
    uint64_t mask;
    uint32_t next_bit;
};

/* `models` in the order of the disks' creation. */
void sim_cut_plan_make(struct sim_cut_plan *ret_plan, const struct sim_cut *cut,
                       struct sim_model *const *models, uint32_t model_count);
/* Operations about which a cut has a choice; bit i of a mask is the i-th, disk after disk. */
uint32_t sim_model_undecided(const struct sim_model *model);
/* What the cut leaves. Disks are to be asked in the order of their creation. */
void sim_model_crash(const struct sim_model *model, struct sim_cut_plan *plan,
                     struct sim_image *ret_image);

#endif
