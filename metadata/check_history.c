/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checker on links and counters.
 *
 * Links come in another order than the page versions that they are of, and there may be millions.
 * So both are summed up for each branch, as they come: the sum of a hash of each is the same if
 * and, but for chance, only if the links are those of the versions.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/assert.h"
#include "base/hash_table.h"
#include "metadata/check_impl.h"

void
check_add_version(struct check_history *history, uint64_t page, uint64_t version,
                  uint64_t previous)
{
    history->count++;
    history->sum += hash_u64(hash_u64(hash_u64(page) + version) + previous);
}

static void
report_damaged(struct check_state *state, const struct store_batch_item *item, const char *what)
{
    state->history_is_incomplete = true;
    check_report(state, CHECK_ERROR, CHECK_RECORD_DAMAGED, false, check_item_key(item),
                 "a %s of the history is damaged", what);
}

static void
report_orphan(struct check_state *state, const struct store_batch_item *item, const char *what,
              uint64_t branch)
{
    check_report(state, CHECK_WARNING, CHECK_HISTORY_ORPHAN, true, check_item_key(item),
                 "a %s of branch %" PRIu64 " is left over: there is no such branch", what, branch);
    if (check_repair(state) != NULL) {
        store_batch_delete(check_repair(state), item->family, item->key, item->key_bytes);
    }
}

static void
check_link(struct check_state *state, const struct store_batch_item *item)
{
    struct history_link link;
    if (history_link_key_decode(item->key, item->key_bytes, &link) != 0
        || item->value_bytes != 0) {
        report_damaged(state, item, "link");
        return;
    }
    struct check_branch *branch = check_find_branch(state, link.branch);
    if (branch == NULL) {
        report_orphan(state, item, "link", link.branch);
        return;
    }
    check_add_version(&branch->links, link.page, link.version, link.previous);
    const struct branch_record *record = &branch->record;
    bool below_fork = record->parent != 0
        && (link.version <= record->fork_generation
            || (link.previous != 0 && link.previous <= record->fork_generation));
    if (link.version > record->current_generation || below_fork) {
        check_report(state, CHECK_ERROR, CHECK_LINK_WRONG, false, check_item_key(item),
                     "a link from version %u to %u of page %" PRIu64
                     ", and the branch has generations %" PRIu64 " to %" PRIu64,
                     link.version, link.previous, link.page, record->fork_generation + 1,
                     record->current_generation);
    }
}

static void
check_counter(struct check_state *state, const struct store_batch_item *item)
{
    struct history_counter counter;
    int64_t count;
    if (history_counter_key_decode(item->key, item->key_bytes, &counter) != 0
        || schema_get_counter(item->value, item->value_bytes, &count) != 0) {
        report_damaged(state, item, "counter");
        return;
    }
    struct check_branch *branch = check_find_branch(state, counter.branch);
    if (branch == NULL) {
        report_orphan(state, item, "counter", counter.branch);
        return;
    }
    if (counter.death == HISTORY_FOREVER) {
        branch->counted_grains += count;
    }
    uint64_t newest = counter.death == HISTORY_FOREVER ? counter.birth : counter.death;
    if (count < 0 || newest > branch->record.current_generation) {
        check_report(state, CHECK_WARNING, CHECK_COUNTER_WRONG, false, check_item_key(item),
                     "branch %" PRIu64 ": %" PRId64 " grains of generation %u, until %u",
                     counter.branch, count, counter.birth, counter.death);
    }
}

void
check_history_item(struct check_state *state, const struct store_batch_item *item)
{
    switch (item->key[0]) {
    case HISTORY_LINK:
        check_link(state, item);
        break;
    case HISTORY_COUNTER:
        check_counter(state, item);
        break;
    default:
        check_report_unknown(state, item, "record of the history");
        break;
    }
}

static void
check_links(struct check_state *state, const struct check_branch *branch, struct check_key about)
{
    if (branch->is_deleting
        || (branch->links.count == branch->versions.count
            && branch->links.sum == branch->versions.sum)) {
        return;
    }
    check_report(state, CHECK_ERROR, CHECK_LINKS_WRONG, false, about,
                 "branch %" PRIu64 " has %" PRIu64 " page versions, and %" PRIu64
                 " links, which are not those of the versions",
                 branch->record.id, branch->versions.count, branch->links.count);
}

/* Of a branch that is a line by itself, with nothing on its way out, all sums must be right. */
static void
check_line(struct check_state *state, const struct check_branch *branch, struct check_key about)
{
    bool is_counted = branch->record.parent != 0 || branch->record.current_generation > 1;
    if (!branch->is_alone) {
        return;
    }
    if (branch->unseen_versions > 0) {
        check_report(state, CHECK_WARNING, CHECK_VERSION_UNSEEN, false, about,
                     "branch %" PRIu64 " has %" PRIu64
                     " page versions that nothing sees and nothing is going to remove",
                     branch->record.id, branch->unseen_versions);
    }
    if (is_counted && branch->counted_grains != (int64_t)branch->owned_grains) {
        check_report(state, CHECK_WARNING, CHECK_COUNTER_WRONG, false, about,
                     "branch %" PRIu64 " owns %" PRIu64 " grains, its counters say %" PRId64,
                     branch->record.id, branch->owned_grains, branch->counted_grains);
    }
}

void
check_history_end(struct check_state *state)
{
    if (state->map_is_incomplete || state->history_is_incomplete) {
        return;
    }
    for (size_t n = 0; n < state->branch_count; n++) {
        const struct check_branch *branch = &state->branches[n];
        uint8_t key[STORE_KEY_BYTES_MAX];
        uint32_t key_bytes = schema_key_id(key, SCHEMA_BRANCH, branch->record.id);
        struct check_key about = { STORE_FAMILY_SYSTEM, key, key_bytes };
        check_links(state, branch, about);
        check_line(state, branch, about);
    }
}
