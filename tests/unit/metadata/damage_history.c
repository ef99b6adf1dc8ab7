/* SPDX-License-Identifier: Apache-2.0 */
/* Damages of snapshots, policies, links and counters. */
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "tests/unit/metadata/damage_impl.h"

/* ---- of snapshots ---- */

static void
delete_snapshot(struct byte_buffer *batch)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_snapshot(key, EXAMPLE_BRANCH, EXAMPLE_FORK_GENERATION);
    store_batch_delete(batch, STORE_FAMILY_SYSTEM, key, key_bytes);
}

void
damaged_snapshot(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_SYSTEM, "S\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\3", 17,
                    "noise", 5);
}

void
fork_of_no_snapshot(struct byte_buffer *batch)
{
    delete_snapshot(batch);
}

void
fork_of_a_deleted_snapshot(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = example_snapshot();
    snapshot.state = SNAPSHOT_DELETING;
    snapshot.name[0] = '\0';
    schema_put_snapshot(batch, EXAMPLE_BRANCH, EXAMPLE_FORK_GENERATION, &snapshot);
}

/* Another one beside that of the example. */
static void
put_second_snapshot(struct byte_buffer *batch, uint64_t branch, uint64_t generation,
                    struct snapshot_record snapshot)
{
    struct pool_record pool = example_pool();
    pool.last_snapshot = 2;
    schema_put_pool(batch, &pool);
    schema_put_snapshot(batch, branch, generation, &snapshot);
}

static struct snapshot_record
second_snapshot(void)
{
    struct snapshot_record snapshot = example_snapshot();
    snapshot.id = 2;
    snprintf(snapshot.name, sizeof(snapshot.name), "%s", "second");
    return snapshot;
}

void
snapshot_of_no_volume(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = second_snapshot();
    snapshot.volume = 9;
    put_second_snapshot(batch, EXAMPLE_BRANCH, 3, snapshot);
}

void
snapshot_of_no_branch(struct byte_buffer *batch)
{
    put_second_snapshot(batch, 9, 3, second_snapshot());
}

void
snapshot_of_now(struct byte_buffer *batch)
{
    put_second_snapshot(batch, EXAMPLE_BRANCH, 4, second_snapshot());
}

void
snapshot_below_the_fork(struct byte_buffer *batch)
{
    put_second_snapshot(batch, EXAMPLE_CLONE, EXAMPLE_FORK_GENERATION, second_snapshot());
}

void
snapshot_name_twice(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = example_snapshot();
    snapshot.id = 2;
    put_second_snapshot(batch, EXAMPLE_BRANCH, 3, snapshot);
}

void
snapshot_id_twice(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = second_snapshot();
    snapshot.id = 1;
    put_second_snapshot(batch, EXAMPLE_BRANCH, 3, snapshot);
}

void
snapshot_hidden_for_nobody(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = second_snapshot();
    snapshot.state = SNAPSHOT_HIDDEN;
    snapshot.name[0] = '\0';
    put_second_snapshot(batch, EXAMPLE_BRANCH, 3, snapshot);
}

void
snapshot_pending_in_a_closed_pool(struct byte_buffer *batch)
{
    struct snapshot_record snapshot = second_snapshot();
    snapshot.state = SNAPSHOT_PENDING;
    put_second_snapshot(batch, EXAMPLE_BRANCH, 3, snapshot);
}

void
policy_of_no_volume(struct byte_buffer *batch)
{
    struct policy_record policy = { .rules = { { .every_ns = 1, .keep = 1 } } };
    schema_put_policy(batch, 60, &policy);
}

void
damaged_policy(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_SYSTEM, "T\0\0\0\0\0\0\0\2", 9,
                    "noise", 5);
}

/* ---- of the history ---- */

void
link_with_a_value(struct byte_buffer *batch)
{
    uint8_t key[HISTORY_LINK_KEY_BYTES];
    struct history_link link = { EXAMPLE_BRANCH, 4, 2, 0 };
    history_link_key_encode(key, &link);
    store_batch_put(batch, STORE_FAMILY_HISTORY, key, sizeof(key), "x", 1);
}

void
link_to_itself(struct byte_buffer *batch)
{
    uint8_t key[HISTORY_LINK_KEY_BYTES];
    struct history_link link = { EXAMPLE_BRANCH, 4, 3, 7 };
    history_link_key_encode(key, &link);
    put_be32(key + 13, 4);
    store_batch_put(batch, STORE_FAMILY_HISTORY, key, sizeof(key), NULL, 0);
}

void
link_that_was_added_to(struct byte_buffer *batch)
{
    uint8_t key[HISTORY_LINK_KEY_BYTES];
    struct history_link link = { EXAMPLE_BRANCH, 4, 2, 0 };
    history_link_key_encode(key, &link);
    store_batch_merge(batch, STORE_FAMILY_HISTORY, key, sizeof(key), "12345678", 8);
}

void
counter_of_half_a_number(struct byte_buffer *batch)
{
    uint8_t key[HISTORY_COUNTER_KEY_BYTES];
    struct history_counter counter = { EXAMPLE_BRANCH, HISTORY_FOREVER, 2 };
    history_counter_key_encode(key, &counter);
    store_batch_merge(batch, STORE_FAMILY_HISTORY, key, sizeof(key), "1234", 4);
}

void
unknown_history(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_HISTORY, "Znew", 4, "of a later version", 18);
}

void
link_of_no_branch(struct byte_buffer *batch)
{
    example_put_link(batch, 90, 2, 1, 0);
}

void
counter_of_no_branch(struct byte_buffer *batch)
{
    example_add_counter(batch, 90, HISTORY_FOREVER, 1, 1);
}

void
link_of_the_future(struct byte_buffer *batch)
{
    example_put_link(batch, EXAMPLE_SMALL, 9, 4, 1);
}

void
link_below_the_fork(struct byte_buffer *batch)
{
    example_put_link(batch, EXAMPLE_CLONE, 4, 1, 8);
}

void
lost_link(struct byte_buffer *batch)
{
    example_delete_link(batch, EXAMPLE_BRANCH, 2, 0, 1);
}

void
link_to_another_version(struct byte_buffer *batch)
{
    example_delete_link(batch, EXAMPLE_BRANCH, 4, 2, 0);
    example_put_link(batch, EXAMPLE_BRANCH, 4, 1, 0);
}

void
link_of_another_page(struct byte_buffer *batch)
{
    example_delete_link(batch, EXAMPLE_BRANCH, 2, 0, 1);
    example_put_link(batch, EXAMPLE_BRANCH, 2, 0, 2);
}

void
negative_counter(struct byte_buffer *batch)
{
    example_add_counter(batch, EXAMPLE_BRANCH, 4, 2, -9);
}

void
counter_of_the_future(struct byte_buffer *batch)
{
    example_add_counter(batch, EXAMPLE_BRANCH, 6, 2, 1);
}

void
counters_of_more_than_there_is(struct byte_buffer *batch)
{
    example_add_counter(batch, EXAMPLE_BRANCH, HISTORY_FOREVER, 2, 1);
}
