/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the damage*.c files only. */
#ifndef TESTS_UNIT_METADATA_DAMAGE_IMPL_H
#define TESTS_UNIT_METADATA_DAMAGE_IMPL_H

#include "tests/unit/metadata/damage.h"

struct pool_record example_pool(void);
/* What the clone was made of. */
struct snapshot_record example_snapshot(void);
void example_put_link(struct byte_buffer *batch, uint64_t branch, uint32_t version,
                      uint32_t previous, uint64_t page);
void example_delete_link(struct byte_buffer *batch, uint64_t branch, uint32_t version,
                         uint32_t previous, uint64_t page);
void example_add_counter(struct byte_buffer *batch, uint64_t branch, uint32_t death,
                         uint32_t birth, int64_t added);

/* ---- damage_history.c ---- */

void damaged_snapshot(struct byte_buffer *batch);
void fork_of_no_snapshot(struct byte_buffer *batch);
void fork_of_a_deleted_snapshot(struct byte_buffer *batch);
void snapshot_of_no_volume(struct byte_buffer *batch);
void snapshot_of_no_branch(struct byte_buffer *batch);
void snapshot_of_now(struct byte_buffer *batch);
void snapshot_below_the_fork(struct byte_buffer *batch);
void snapshot_name_twice(struct byte_buffer *batch);
void snapshot_id_twice(struct byte_buffer *batch);
void snapshot_hidden_for_nobody(struct byte_buffer *batch);
void snapshot_pending_in_a_closed_pool(struct byte_buffer *batch);
void policy_of_no_volume(struct byte_buffer *batch);
void damaged_policy(struct byte_buffer *batch);
void link_with_a_value(struct byte_buffer *batch);
void link_to_itself(struct byte_buffer *batch);
void link_that_was_added_to(struct byte_buffer *batch);
void counter_of_half_a_number(struct byte_buffer *batch);
void unknown_history(struct byte_buffer *batch);
void link_of_no_branch(struct byte_buffer *batch);
void counter_of_no_branch(struct byte_buffer *batch);
void link_of_the_future(struct byte_buffer *batch);
void link_below_the_fork(struct byte_buffer *batch);
void lost_link(struct byte_buffer *batch);
void link_to_another_version(struct byte_buffer *batch);
void link_of_another_page(struct byte_buffer *batch);
void negative_counter(struct byte_buffer *batch);
void counter_of_the_future(struct byte_buffer *batch);
void counters_of_more_than_there_is(struct byte_buffer *batch);

#endif
