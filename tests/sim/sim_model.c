/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_memory.h"

enum {
    LIST_CAPACITY_MIN = 16
};

/* ---- operations ---- */

struct sim_operation *
sim_operation_get(struct sim_operation *operation)
{
    operation->references++;
    return operation;
}

void
sim_operation_put(struct sim_operation *operation)
{
    ASSERT_OP(operation->references, >, 0u);
    if (--operation->references == 0) {
        sim_release(operation->payload);
        sim_release(operation);
    }
}

static void
apply_range(const struct sim_operation *operation, struct sim_image *image, uint64_t offset_bytes,
            uint64_t length_bytes)
{
    switch (operation->kind) {
    case FILE_IO_WRITE:
        sim_image_write(image, offset_bytes,
                        operation->payload + (offset_bytes - operation->offset_bytes),
                        length_bytes);
        break;
    case FILE_IO_WRITE_ZEROES:
        sim_image_zero(image, offset_bytes, length_bytes);
        break;
    case FILE_IO_DISCARD:
        sim_image_deallocate(image, offset_bytes, length_bytes);
        if (operation->discard == SIM_DISCARD_ZEROES) {
            sim_image_zero(image, offset_bytes, length_bytes);
        } else if (operation->discard == SIM_DISCARD_SCRAMBLES) {
            sim_image_scramble(image, offset_bytes, length_bytes, operation->seed);
        }
        break;
    case FILE_IO_ALLOCATE:
        sim_image_allocate(image, offset_bytes, length_bytes);
        break;
    case FILE_IO_READ:
    case FILE_IO_FLUSH:
        break;
    }
}

static bool
effect_lets_through(const struct sim_effect *effect, uint64_t unit, uint64_t unit_count)
{
    switch (effect->kind) {
    case SIM_EFFECT_ALL:
    case SIM_EFFECT_LENGTH: /* the caller has cut the range */
        return true;
    case SIM_EFFECT_NONE:
        return false;
    case SIM_EFFECT_PREFIX:
        if (unit_count < 2) {
            return (hash_u64(effect->seed) & 1) != 0;
        }
        return unit <= hash_u64(effect->seed) % (unit_count - 1);
    case SIM_EFFECT_SCATTERED:
        return (hash_u64(effect->seed ^ hash_u64(unit + 1)) & 1) != 0;
    }
    UNREACHABLE();
}

void
sim_operation_apply(const struct sim_operation *operation, struct sim_image *image,
                    const struct sim_effect *effects, uint32_t effect_count)
{
    uint64_t begin = operation->offset_bytes;
    uint64_t end = begin + operation->length_bytes;
    bool whole = true;
    for (uint32_t i = 0; i < effect_count; i++) {
        if (effects[i].kind == SIM_EFFECT_NONE) {
            return;
        }
        if (effects[i].kind == SIM_EFFECT_LENGTH) {
            end = MIN(end, begin + effects[i].seed);
        } else {
            whole = whole && effects[i].kind == SIM_EFFECT_ALL;
        }
    }
    if (whole || begin == end) {
        apply_range(operation, image, begin, end - begin);
        return;
    }

    /* Units are those of the disk, whatever the operation's offset; runs are applied at once. */
    uint64_t unit_bytes = operation->atomic_bytes;
    uint64_t first_unit = begin / unit_bytes;
    uint64_t unit_count = div_round_up(end, unit_bytes) - first_unit;
    uint64_t run_begin = end;
    for (uint64_t unit = 0; unit <= unit_count; unit++) {
        bool through = unit < unit_count;
        for (uint32_t i = 0; through && i < effect_count; i++) {
            through = effect_lets_through(&effects[i], unit, unit_count);
        }
        uint64_t at = MIN(MAX((first_unit + unit) * unit_bytes, begin), end);
        if (through && run_begin == end) {
            run_begin = at;
        } else if (!through && run_begin < at) {
            apply_range(operation, image, run_begin, at - run_begin);
            run_begin = end;
        }
    }
}

/* ---- the model's life ---- */

void
sim_model_init(struct sim_model *model, struct sim_image *image, bool write_cache)
{
    *model = (struct sim_model){ .durable = *image, .write_cache = write_cache };
    *image = (struct sim_image){ 0 };
}

void
sim_model_free(struct sim_model *model)
{
    for (uint32_t i = 0; i < model->completed_count; i++) {
        sim_operation_put(model->completed[i].operation);
    }
    for (uint32_t i = 0; i < model->in_flight_count; i++) {
        sim_operation_put(model->in_flight[i].operation);
    }
    sim_release(model->completed);
    sim_release(model->in_flight);
    sim_image_free(&model->durable);
    *model = (struct sim_model){ 0 };
}

void
sim_model_clone(struct sim_model *ret_model, const struct sim_model *from)
{
    struct sim_model clone = *from;
    size_t completed_bytes = from->completed_count * sizeof(*from->completed);
    size_t in_flight_bytes = from->in_flight_count * sizeof(*from->in_flight);

    sim_image_clone(&clone.durable, &from->durable);
    clone.completed = sim_allocate_raw(completed_bytes);
    clone.completed_capacity = from->completed_count;
    clone.in_flight = sim_allocate_raw(in_flight_bytes);
    clone.in_flight_capacity = from->in_flight_count;
    for (uint32_t i = 0; i < clone.completed_count; i++) {
        clone.completed[i] = from->completed[i];
        (void)sim_operation_get(clone.completed[i].operation);
    }
    for (uint32_t i = 0; i < clone.in_flight_count; i++) {
        clone.in_flight[i] = from->in_flight[i];
        (void)sim_operation_get(clone.in_flight[i].operation);
    }
    *ret_model = clone;
}

/* ---- events ---- */

void
sim_model_submit(struct sim_model *model, struct sim_operation *operation)
{
    if (model->in_flight_count == model->in_flight_capacity) {
        model->in_flight_capacity = MAX(model->in_flight_capacity * 2, (uint32_t)LIST_CAPACITY_MIN);
        model->in_flight =
            sim_resize(model->in_flight, model->in_flight_capacity * sizeof(*model->in_flight));
    }
    model->in_flight[model->in_flight_count++] = (struct sim_model_in_flight){
        .operation = sim_operation_get(operation),
        .flush_mark = model->completions,
    };
}

/* Take it off the list; the caller inherits the reference. */
static struct sim_model_in_flight
take_in_flight(struct sim_model *model, const struct sim_operation *operation)
{
    uint32_t i = 0;
    while (i < model->in_flight_count && model->in_flight[i].operation != operation) {
        i++;
    }
    ASSERT_OP(i, <, model->in_flight_count);
    struct sim_model_in_flight taken = model->in_flight[i];
    model->in_flight_count--;
    memmove(&model->in_flight[i], &model->in_flight[i + 1],
            (model->in_flight_count - i) * sizeof(*model->in_flight));
    return taken;
}

/* The first `count` completed operations are durable now. */
static void
retire(struct sim_model *model, uint32_t count)
{
    ASSERT_OP(count, <=, model->completed_count);
    for (uint32_t i = 0; i < count; i++) {
        struct sim_model_completed *entry = &model->completed[i];
        sim_operation_apply(entry->operation, &model->durable, &entry->effect, 1);
        sim_operation_put(entry->operation);
    }
    model->completed_count -= count;
    if (count > 0) {
        memmove(model->completed, model->completed + count,
                model->completed_count * sizeof(*model->completed));
    }
}

/* Nothing that a cut could still lose stands before these. */
static void
retire_certain(struct sim_model *model)
{
    uint32_t count = 0;
    while (count < model->completed_count && model->completed[count].certain) {
        count++;
    }
    retire(model, count);
}

static void
complete_flush(struct sim_model *model, uint64_t flush_mark)
{
    uint32_t count = 0;
    while (count < model->completed_count && model->completed[count].number <= flush_mark) {
        count++;
    }
    retire(model, count);
}

void
sim_model_complete(struct sim_model *model, struct sim_operation *operation)
{
    struct sim_model_in_flight taken = take_in_flight(model, operation);

    if (operation->kind == FILE_IO_FLUSH) {
        if (operation->succeeded) {
            complete_flush(model, taken.flush_mark);
        }
        sim_operation_put(operation);
        retire_certain(model);
        return;
    }
    if (operation->effect.kind == SIM_EFFECT_NONE) {
        sim_operation_put(operation);
        return;
    }
    if (model->completed_count == model->completed_capacity) {
        model->completed_capacity = MAX(model->completed_capacity * 2, (uint32_t)LIST_CAPACITY_MIN);
        model->completed =
            sim_resize(model->completed, model->completed_capacity * sizeof(*model->completed));
    }
    model->completions++;
    model->completed[model->completed_count++] = (struct sim_model_completed){
        .operation = operation,
        .number = model->completions,
        .effect = operation->effect,
        .certain = operation->succeeded && (operation->fua || !model->write_cache),
    };
    retire_certain(model);
}

void
sim_model_abandon(struct sim_model *model, struct sim_operation *operation)
{
    struct sim_model_in_flight taken = take_in_flight(model, operation);
    sim_operation_put(taken.operation);
}

/* Kept, lost or torn: one chance in three each. */
static struct sim_effect
mixed_effect(uint64_t seed)
{
    static const enum sim_effect_kind kinds[] = {
        SIM_EFFECT_ALL,  SIM_EFFECT_ALL,    SIM_EFFECT_NONE,
        SIM_EFFECT_NONE, SIM_EFFECT_PREFIX, SIM_EFFECT_SCATTERED,
    };
    uint64_t mixed = hash_u64(seed);
    return (struct sim_effect){ .kind = kinds[mixed % ARRAY_SIZE(kinds)], .seed = mixed };
}

void
sim_model_drop_cache(struct sim_model *model, uint64_t seed)
{
    for (uint32_t i = 0; i < model->completed_count; i++) {
        struct sim_model_completed *entry = &model->completed[i];
        /* What was torn when it failed stays torn: only a whole operation is decided anew. */
        if (!entry->certain && entry->effect.kind == SIM_EFFECT_ALL) {
            entry->effect = mixed_effect(seed ^ hash_u64(entry->operation->sequence));
        }
        entry->certain = true;
    }
    retire_certain(model);
    ASSERT_OP(model->completed_count, ==, 0u);
}

void
sim_model_visible(const struct sim_model *model, struct sim_image *ret_image)
{
    sim_image_clone(ret_image, &model->durable);
    for (uint32_t i = 0; i < model->completed_count; i++) {
        sim_operation_apply(model->completed[i].operation, ret_image, &model->completed[i].effect,
                            1);
    }
}

/* ---- power cuts ---- */

uint32_t
sim_model_undecided(const struct sim_model *model)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < model->completed_count; i++) {
        count += !model->completed[i].certain;
    }
    for (uint32_t i = 0; i < model->in_flight_count; i++) {
        count += model->in_flight[i].operation->kind != FILE_IO_FLUSH;
    }
    return count;
}

static int
compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* The sequence number of an operation that the seed picks among all undecided ones. */
static uint64_t
pick_threshold(uint64_t seed, struct sim_model *const *models, uint32_t model_count)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < model_count; i++) {
        total += sim_model_undecided(models[i]);
    }
    if (total == 0) {
        return 0;
    }
    uint64_t *sequences = sim_allocate_raw(total * sizeof(*sequences));
    uint32_t count = 0;
    for (uint32_t i = 0; i < model_count; i++) {
        const struct sim_model *model = models[i];
        for (uint32_t j = 0; j < model->completed_count; j++) {
            if (!model->completed[j].certain) {
                sequences[count++] = model->completed[j].operation->sequence;
            }
        }
        for (uint32_t j = 0; j < model->in_flight_count; j++) {
            if (model->in_flight[j].operation->kind != FILE_IO_FLUSH) {
                sequences[count++] = model->in_flight[j].operation->sequence;
            }
        }
    }
    ASSERT_OP(count, ==, total);
    qsort(sequences, count, sizeof(*sequences), compare_u64);
    uint64_t threshold = sequences[hash_u64(seed ^ 1) % count];
    sim_release(sequences);
    return threshold;
}

void
sim_cut_plan_make(struct sim_cut_plan *ret_plan, const struct sim_cut *cut,
                  struct sim_model *const *models, uint32_t model_count)
{
    struct sim_cut_plan plan = { .seed = hash_u64(cut->seed + 1), .mask = cut->mask };
    switch (cut->mode) {
    case SIM_CUT_BY_SEED:
        plan.style = (enum sim_cut_style)(plan.seed % SIM_STYLE_COUNT);
        break;
    case SIM_CUT_LOSE_ALL:
        plan.style = SIM_STYLE_LOSE_ALL;
        break;
    case SIM_CUT_KEEP_ALL:
        plan.style = SIM_STYLE_KEEP_ALL;
        break;
    case SIM_CUT_BY_MASK:
        plan.style = SIM_STYLE_MASK;
        break;
    }
    plan.threshold_sequence = pick_threshold(plan.seed, models, model_count);
    *ret_plan = plan;
}

static struct sim_effect
plan_decide(struct sim_cut_plan *plan, const struct sim_operation *operation)
{
    uint64_t seed = plan->seed ^ hash_u64(operation->sequence);
    struct sim_effect effect = { .kind = SIM_EFFECT_NONE, .seed = hash_u64(seed) };
    switch (plan->style) {
    case SIM_STYLE_LOSE_ALL:
        break;
    case SIM_STYLE_KEEP_ALL:
        effect.kind = SIM_EFFECT_ALL;
        break;
    case SIM_STYLE_MIXED:
        effect = mixed_effect(seed);
        break;
    case SIM_STYLE_MOSTLY_KEPT:
        effect = mixed_effect(seed);
        if (hash_u64(seed ^ 2) % 8 != 0) {
            effect.kind = SIM_EFFECT_ALL;
        }
        break;
    case SIM_STYLE_EARLY_KEPT:
        if (operation->sequence < plan->threshold_sequence) {
            effect.kind = SIM_EFFECT_ALL;
        } else if (operation->sequence == plan->threshold_sequence) {
            effect.kind = SIM_EFFECT_PREFIX;
        }
        break;
    case SIM_STYLE_LATE_KEPT:
        if (operation->sequence >= plan->threshold_sequence) {
            effect.kind = SIM_EFFECT_ALL;
        }
        break;
    case SIM_STYLE_MASK:
        if (plan->next_bit < 64 && ((plan->mask >> plan->next_bit) & 1) != 0) {
            effect.kind = SIM_EFFECT_ALL;
        }
        plan->next_bit++;
        break;
    case SIM_STYLE_COUNT:
        UNREACHABLE();
    }
    return effect;
}

void
sim_model_crash(const struct sim_model *model, struct sim_cut_plan *plan,
                struct sim_image *ret_image)
{
    struct sim_image image;
    sim_image_clone(&image, &model->durable);
    for (uint32_t i = 0; i < model->completed_count; i++) {
        const struct sim_model_completed *entry = &model->completed[i];
        struct sim_effect effects[2] = { entry->effect, { .kind = SIM_EFFECT_ALL } };
        if (!entry->certain) {
            effects[1] = plan_decide(plan, entry->operation);
        }
        sim_operation_apply(entry->operation, &image, effects, 2);
    }
    for (uint32_t i = 0; i < model->in_flight_count; i++) {
        const struct sim_operation *operation = model->in_flight[i].operation;
        if (operation->kind != FILE_IO_FLUSH) {
            struct sim_effect effect = plan_decide(plan, operation);
            sim_operation_apply(operation, &image, &effect, 1);
        }
    }
    *ret_image = image;
}
