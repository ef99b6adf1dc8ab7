/* SPDX-License-Identifier: Apache-2.0 */
/* What is durable of a simulated store, and what a power cut may leave: T1 of store_sim.h. */
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"

enum {
    PENDING_CAPACITY_MIN = 16
};

void
sim_store_model_free(struct sim_store_model *model)
{
    for (uint32_t i = 0; i < model->pending_count; i++) {
        sim_tree_put(model->pending[i].root);
    }
    sim_tree_put(model->durable);
    sim_release(model->pending);
    *model = (struct sim_store_model){ 0 };
}

void
sim_store_model_clone(struct sim_store_model *ret_model, const struct sim_store_model *from)
{
    struct sim_store_model clone = *from;
    clone.durable = sim_tree_get(from->durable);
    clone.pending = sim_allocate_raw(from->pending_count * sizeof(*from->pending));
    clone.pending_capacity = from->pending_count;
    for (uint32_t i = 0; i < from->pending_count; i++) {
        clone.pending[i] = from->pending[i];
        (void)sim_tree_get(clone.pending[i].root);
    }
    *ret_model = clone;
}

void
sim_store_model_submit(struct sim_store_model *model, uint64_t number, struct sim_tree *root)
{
    ASSERT_OP(number, >, model->durable_number);
    if (model->pending_count == model->pending_capacity) {
        model->pending_capacity = MAX(model->pending_capacity * 2, (uint32_t)PENDING_CAPACITY_MIN);
        model->pending =
            sim_resize(model->pending, model->pending_capacity * sizeof(*model->pending));
    }
    model->pending[model->pending_count++] =
        (struct sim_store_pending){ .number = number, .root = root };
}

void
sim_store_model_durable(struct sim_store_model *model, uint64_t number)
{
    uint32_t count = 0;
    while (count < model->pending_count && model->pending[count].number <= number) {
        sim_tree_put(model->durable);
        model->durable = model->pending[count].root;
        model->durable_number = model->pending[count].number;
        count++;
    }
    model->pending_count -= count;
    if (count > 0) {
        memmove(model->pending, model->pending + count,
                model->pending_count * sizeof(*model->pending));
    }
}

void
sim_store_model_truncate(struct sim_store_model *model, uint64_t number)
{
    ASSERT_OP(number, >=, model->durable_number);
    while (model->pending_count > 0 && model->pending[model->pending_count - 1].number > number) {
        model->pending_count--;
        sim_tree_put(model->pending[model->pending_count].root);
    }
}

uint32_t
sim_store_model_choose(const struct sim_store_model *model, uint32_t store_index,
                       const struct sim_cut_plan *plan, const struct sim_cut *cut)
{
    switch (plan->style) {
    case SIM_STYLE_LOSE_ALL:
        return 0;
    case SIM_STYLE_KEEP_ALL:
        return model->pending_count;
    case SIM_STYLE_MASK:
        return MIN(cut->store_commits, model->pending_count);
    case SIM_STYLE_MIXED:
    case SIM_STYLE_MOSTLY_KEPT:
    case SIM_STYLE_EARLY_KEPT:
    case SIM_STYLE_LATE_KEPT:
        break;
    case SIM_STYLE_COUNT:
        UNREACHABLE();
    }
    return (uint32_t)(hash_u64(plan->seed ^ hash_u64(store_index + UINT64_C(0x5703e))) %
                      (model->pending_count + 1));
}

struct sim_tree *
sim_store_model_root(const struct sim_store_model *model, uint32_t kept)
{
    ASSERT_OP(kept, <=, model->pending_count);
    return sim_tree_get(kept == 0 ? model->durable : model->pending[kept - 1].root);
}
