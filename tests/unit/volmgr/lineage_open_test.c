/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Branches and snapshots at open, on records made by hand: what heads and views show through the
 * real data path, before and after writes, crashes and reopens; and records that do not fit.
 */
#include "tests/unit/volmgr/lineage_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim_impl.h"
#include "volmgr/control_impl.h"

/* ---- what is shown ---- */

static void
a_snapshot_stays_as_it_was(void **state)
{
    struct lrig rig;

    (void)state;
    lrig_create(&rig, 1, 2);
    lrig_write(&rig, 0, 0, 100);
    lrig_discard(&rig, 0, 32, 16);
    lrig_shutdown(&rig);
    lrig_records_begin(&rig);
    lrig_snapshot(&rig, 0);
    lrig_records_end(&rig);
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_write(&rig, 0, 3, 1);    /* part of a grain: the old one is its base */
    lrig_write(&rig, 0, 16, 16);  /* a whole one */
    lrig_write(&rig, 0, 40, 2);   /* where nothing was */
    lrig_discard(&rig, 0, 64, 20);
    lrig_compare(&rig);
    bench_kill(rig.bench);
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_write(&rig, 0, 5, 1);
    lrig_flush(&rig, 0);
    lrig_compare(&rig);
    lrig_shutdown(&rig);
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_free(&rig);
}

static void
a_chain_of_clones_shows_what_each_of_them_began_with(void **state)
{
    struct lrig rig;
    uint32_t head = 0;

    (void)state;
    lrig_create(&rig, 2, 2);
    lrig_write(&rig, 0, 0, LRIG_BLOCKS);
    lrig_shutdown(&rig);
    for (uint32_t depth = 0; depth < 6; depth++) {
        lrig_records_begin(&rig);
        head = lrig_clone(&rig, lrig_snapshot(&rig, head));
        lrig_records_end(&rig);
        lrig_boot(&rig);
        lrig_compare(&rig);
        lrig_write(&rig, head, 30 * depth, 7);
        lrig_discard(&rig, head, 30 * depth + 9, 18);
        lrig_write(&rig, 0, 8 * depth, 4); /* the first of them goes on, too */
        lrig_compare(&rig);
        if (depth % 2 == 0) {
            bench_kill(rig.bench);
            lrig_boot(&rig);
            lrig_compare(&rig);
        }
        lrig_shutdown(&rig);
    }
    lrig_boot(&rig);
    struct volume *volume = lrig_head(&rig, rig.volumes[head].name);
    assert_int_equal(volume->chain->count, 7);
    lrig_compare(&rig);
    lrig_free(&rig);
}

static void
a_rollback_continues_or_forks(void **state)
{
    struct lrig rig;

    (void)state;
    lrig_create(&rig, 3, 2);
    lrig_write(&rig, 0, 0, 120);
    lrig_shutdown(&rig);
    lrig_records_begin(&rig);
    uint32_t first = lrig_snapshot(&rig, 0);
    lrig_records_end(&rig);
    lrig_boot(&rig);
    lrig_write(&rig, 0, 10, 60);
    lrig_shutdown(&rig);
    lrig_records_begin(&rig);
    assert_true(lrig_rollback(&rig, 0, first)); /* to the newest: continues */
    lrig_records_end(&rig);
    lrig_boot(&rig);
    struct volume *volume = lrig_head(&rig, "v1");
    assert_int_equal(volume->owned_above, 0);
    assert_int_equal(volume->shard->index, 1);
    lrig_compare(&rig);
    lrig_write(&rig, 0, 20, 3);
    lrig_compare(&rig);
    lrig_shutdown(&rig);
    lrig_records_begin(&rig);
    lrig_snapshot(&rig, 0);
    lrig_records_end(&rig);
    lrig_boot(&rig);
    lrig_write(&rig, 0, 50, 30);
    lrig_shutdown(&rig);
    lrig_records_begin(&rig);
    assert_true(lrig_rollback(&rig, 0, first)); /* beside a newer one: forks */
    lrig_records_end(&rig);
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_write(&rig, 0, 0, 70);
    bench_kill(rig.bench);
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_free(&rig);
}

/* What the first version of a continuing branch supersedes is in the branch below it. */
static void
what_a_continued_branch_names_is_not_freed(void **state)
{
    struct lrig rig;

    (void)state;
    lrig_create(&rig, 9, 1);
    lrig_write(&rig, 0, 0, 96);
    lrig_shutdown(&rig);
    lrig_records_begin(&rig);
    uint32_t view = lrig_snapshot(&rig, 0);
    assert_true(lrig_rollback(&rig, 0, view));
    lrig_records_end(&rig);
    for (uint32_t round = 0; round < 3; round++) {
        lrig_boot(&rig);
        lrig_compare(&rig);
        lrig_write(&rig, 0, 90 + round, 1);
        lrig_flush(&rig, 0);
        lrig_shutdown(&rig);
        lrig_boot(&rig); /* now that version is found, with the other one below it */
        lrig_discard(&rig, 0, 16 * round, 16);
        if (round == 2) {
            bench_kill(rig.bench);
            lrig_boot(&rig);
        } else {
            lrig_flush(&rig, 0);
        }
        lrig_write(&rig, 0, 128, 16 * (round + 1)); /* where space would be taken again */
        lrig_compare(&rig);
        lrig_shutdown(&rig);
    }
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_free(&rig);
}

/* ---- chains ---- */

/* 1, from its view 4: 2, which is complete, and from view 9 of that: 3. */
static void
a_complete_branch_ends_look_ups_only(void **state)
{
    struct lineage lineage;
    struct lineage_load one = { .id = 1, .current = 5, .has_head = true };
    struct lineage_load two = { .id = 2, .fork = 4, .current = 10, .has_head = true,
                                .complete = true };
    struct lineage_load three = { .id = 3, .fork = 9, .current = 12, .has_head = true };

    (void)state;
    lineage_init(&lineage);
    two.parent = lineage_load_branch(&lineage, &one);
    three.parent = lineage_load_branch(&lineage, &two);
    struct lineage_branch *top = lineage_load_branch(&lineage, &three);
    lineage_load_view(two.parent, 4, LINEAGE_KEPT);
    lineage_load_view(three.parent, 9, LINEAGE_KEPT);
    assert_null(lineage_load_end(&lineage));
    struct view_chain *chain = view_chain_make(top, LINEAGE_FOREVER);
    assert_int_equal(chain->count, 2);
    assert_int_equal(chain->all, 3);
    assert_int_equal(chain->places[1].generation, 9);
    assert_int_equal(chain->places[2].generation, 4);
    static const uint64_t branches[] = { 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3 };
    for (uint32_t version = 1; version < ARRAY_SIZE(branches); version++) {
        assert_int_equal(view_chain_branch(chain, version), branches[version]);
    }
    view_chain_put(view_chain_get(chain));
    view_chain_put(chain);
    chain = view_chain_make(three.parent, 9);
    assert_int_equal(chain->count, 1);
    assert_int_equal(chain->places[0].generation, 9);
    view_chain_put(chain);
    lineage_free(&lineage);
}

/* ---- generations ---- */

struct bump_call {
    struct message message;
    struct volume_gate gate;
    struct volume *volume;
    bool done;
};

static void
bump_gated(struct io_op *op)
{
    struct volume_gate *gate = container_of(op, struct volume_gate, op);
    struct bump_call *call = container_of(gate, struct bump_call, gate);

    assert_int_equal(op->result, 0);
    assert_int_equal(volume_bump(call->volume), 1);
    volume_gate_open(call->volume, gate);
    call->done = true;
}

static void
bump_deliver(struct message *message)
{
    struct bump_call *call = container_of(message, struct bump_call, message);

    call->gate.op.done = bump_gated;
    call->gate.op.reactor_id = reactor_id(volume_reactor(call->volume));
    volume_gate_close(call->volume, &call->gate);
}

/* The journal knows of a generation that the database does not. */
static void
a_bump_that_was_not_committed_counts(void **state)
{
    struct lrig rig;
    struct bump_call call = { .done = false };

    (void)state;
    lrig_create(&rig, 6, 1);
    lrig_write(&rig, 0, 0, 60);
    lrig_flush(&rig, 0);
    call.volume = lrig_head(&rig, "v1");
    sim_process_enter(rig.bench->sim);
    reactor_send(volume_reactor(call.volume), &call.message, bump_deliver);
    sim_process_leave(rig.bench->sim);
    assert_int_equal(bench_wait(rig.bench, &call.done), 0);
    lrig_write(&rig, 0, 4, 1);
    lrig_write(&rig, 0, 32, 16);
    bench_kill(rig.bench);
    lrig_boot(&rig);
    lrig_compare(&rig);
    struct volume *volume = lrig_head(&rig, "v1");
    assert_int_equal(volume->branch.current_generation, 3);
    assert_int_equal(volume->branch.unclean_generation, 2);
    assert_int_equal(volume->frozen, 0); /* nothing was kept */
    lrig_write(&rig, 0, 8, 20);
    lrig_shutdown(&rig); /* versions, links, use bits and counters are right: it is checked */
    lrig_records_begin(&rig);
    assert_int_equal(rig.records.branches[0].current_generation, 3);
    lineage_free(&rig.records.lineage);
    lrig_boot(&rig);
    lrig_compare(&rig);
    lrig_free(&rig);
}

static void
a_branch_of_one_generation_is_left_alone(void **state)
{
    struct lrig rig;

    (void)state;
    lrig_create(&rig, 7, 1);
    lrig_write(&rig, 0, 0, 60);
    bench_kill(rig.bench);
    lrig_boot(&rig);
    lrig_compare(&rig);
    struct volume *volume = lrig_head(&rig, "v1");
    assert_int_equal(volume->branch.current_generation, 1);
    assert_int_equal(volume->branch.unclean_generation, 0);
    lrig_free(&rig);
}

/* A start that ends after n events, again and again, until one gets through. */
static void
a_start_that_is_cut_short_is_done_again(void **state)
{
    uint32_t cuts = 0;

    (void)state;
    for (uint32_t stop = 1; stop < 16; stop++) {
        struct lrig rig;
        lrig_create(&rig, 8 + stop, 2);
        rig.bench->made_up = true; /* PENDING is put by hand */
        lrig_write(&rig, 0, 0, 100);
        lrig_shutdown(&rig);
        lrig_records_begin(&rig);
        uint32_t clone = lrig_clone(&rig, lrig_snapshot(&rig, 0));
        uint32_t pending = lrig_snapshot(&rig, 0);
        lrig_records_end(&rig);
        lrig_records_begin(&rig);
        rig.records.snapshots[1].state = SNAPSHOT_PENDING;
        rig.views[pending].branch = 0;
        lrig_records_end_as_they_are(&rig);
        lrig_boot(&rig);
        for (uint32_t n = 0; n < 6; n++) {
            lrig_write(&rig, n % 2 == 0 ? 0 : clone, 20 * n, 13);
            lrig_discard(&rig, n % 2 == 0 ? clone : 0, 20 * n + 3, 17);
        }
        bench_kill(rig.bench);
        for (uint32_t at = stop;; at++) {
            sim_stop_at(rig.bench->sim, sim_event_count(rig.bench->sim) + at);
            int result = bench_boot_until_stopped(rig.bench);
            sim_stop_at(rig.bench->sim, 0);
            if (result == 0) {
                break;
            }
            cuts++;
            bench_kill(rig.bench);
        }
        lrig_compare(&rig);
        lrig_free(&rig);
    }
    print_message("%u starts were cut short\n", cuts);
    assert_true(cuts > 50);
}

/* One of those that there are; the number of slots: there is none. */
static uint32_t
random_view(struct lrig *rig)
{
    uint32_t first = (uint32_t)random_below(&rig->random, LRIG_VIEWS);

    for (uint32_t n = 0; n < LRIG_VIEWS; n++) {
        uint32_t view = (first + n) % LRIG_VIEWS;
        if (rig->views[view].branch != 0) {
            return view;
        }
    }
    return LRIG_VIEWS;
}

/* One thing that may happen while nothing runs. */
static void
random_history(struct lrig *rig)
{
    uint32_t which = lrig_random_volume(rig);
    uint32_t view = random_view(rig);
    bool room = rig->records.branch_count < LRIG_BRANCHES - 2 &&
                rig->records.snapshot_count < LRIG_VIEWS - 2;
    bool full = true;

    for (uint32_t n = 0; n < LRIG_VOLUMES; n++) {
        full = full && rig->volumes[n].id != 0;
    }
    uint64_t what = random_below(&rig->random, 8);
    if (what < 3 && room) {
        lrig_snapshot(rig, which);
    } else if (view == LRIG_VIEWS || !room) {
        return;
    } else if (what == 3 && !full) {
        lrig_clone(rig, view);
    } else if (what <= 5) {
        lrig_rollback(rig, which, view);
    } else {
        lrig_delete_view(rig, view);
    }
}

static void
everything_shows_what_it_should(void **state)
{
    const char *seeds = getenv("LINEAGE_SEEDS");
    uint64_t count = seeds != NULL ? strtoull(seeds, NULL, 10) : 25;

    (void)state;
    for (uint64_t seed = 1; seed <= count; seed++) {
        struct lrig rig;
        lrig_create(&rig, seed, 1 + (uint32_t)(seed % 3));
        print_message("seed %llu\n", (unsigned long long)seed);
        for (uint32_t round = 0; round < 14; round++) {
            uint32_t changes = (uint32_t)random_below(&rig.random, 12);
            for (uint32_t n = 0; n < changes; n++) {
                lrig_change(&rig);
            }
            lrig_compare(&rig);
            if (random_chance(&rig.random, 1, 2)) {
                bench_kill(rig.bench);
                lrig_boot(&rig);
                lrig_compare(&rig);
            }
            lrig_shutdown(&rig);
            lrig_records_begin(&rig);
            for (uint64_t n = random_below(&rig.random, 4); n > 0; n--) {
                random_history(&rig);
            }
            lrig_records_end(&rig);
            lrig_boot(&rig);
            lrig_compare(&rig);
        }
        lrig_free(&rig);
    }
}

/* ---- what is refused ---- */

static struct branch_record *
branch_at(struct lrig *rig, uint64_t id)
{
    return &rig->records.branches[lrig_branch_of(rig, id)];
}

static void
no_parent(struct lrig *rig)
{
    branch_at(rig, 3)->parent = 2;
    schema_delete_id(&rig->batch, SCHEMA_BRANCH, 2);
}

static void
younger_parent(struct lrig *rig)
{
    branch_at(rig, 2)->parent = 3;
}

static void
fork_is_no_view(struct lrig *rig)
{
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint32_t key_bytes = schema_key_snapshot(key, 1, 2);

    store_batch_delete(&rig->batch, STORE_FAMILY_SYSTEM, key, key_bytes);
    branch_at(rig, 2)->fork_generation = 2;
    branch_at(rig, 2)->current_generation = 4;
}

static void
fork_beyond_the_parent(struct lrig *rig)
{
    branch_at(rig, 2)->fork_generation = 40;
    branch_at(rig, 2)->current_generation = 50;
}

static void
continues_a_head(struct lrig *rig)
{
    branch_at(rig, 2)->flags = BRANCH_CONTINUES;
}

static void
two_continue(struct lrig *rig)
{
    branch_at(rig, 1)->flags = BRANCH_HEADLESS;
    branch_at(rig, 2)->flags = BRANCH_CONTINUES;
    branch_at(rig, 3)->flags = BRANCH_CONTINUES;
    branch_at(rig, 3)->parent = 1;
    branch_at(rig, 3)->fork_generation = 1;
    branch_at(rig, 3)->current_generation = 9;
}

static void
headless_volume(struct lrig *rig)
{
    branch_at(rig, 3)->flags = BRANCH_HEADLESS;
}

static void
volume_of_another_branch(struct lrig *rig)
{
    branch_at(rig, 2)->volume = 3;
}

static void
branch_without_volume(struct lrig *rig)
{
    schema_delete_id(&rig->batch, SCHEMA_VOLUME, 3);
}

static void
branch_never_made(struct lrig *rig)
{
    rig->records.pool.next_branch = 3;
}

static void
snapshot_of_no_branch(struct lrig *rig)
{
    rig->records.snapshot_branch[0] = 77;
}

static void
snapshot_of_the_future(struct lrig *rig)
{
    rig->records.snapshot_generation[2] = 40;
}

static void
snapshot_below_its_branch(struct lrig *rig)
{
    rig->records.snapshot_generation[2] = (uint32_t)branch_at(rig, 2)->fork_generation;
}

static void
snapshot_of_that_name_twice(struct lrig *rig)
{
    rig->records.snapshots[1] = rig->records.snapshots[0];
}

static void
snapshot_never_made(struct lrig *rig)
{
    rig->records.pool.last_snapshot = 1;
}

static void
snapshot_of_no_size(struct lrig *rig)
{
    rig->records.snapshots[1].size_bytes = 0;
}

static void
snapshot_of_no_volume(struct lrig *rig)
{
    rig->records.snapshots[1].volume = 99;
}

static void
deleted_under_a_clone(struct lrig *rig)
{
    rig->records.snapshots[0].state = SNAPSHOT_DELETING;
    rig->records.snapshots[0].name[0] = '\0';
}

static void
nothing_wrong(struct lrig *rig)
{
    (void)rig;
}

/*
 * Volumes 1, 2 and 3, branches of the same numbers: 2 is a clone of 1 at its first snapshot, and 3
 * is one of 2. Snapshots in the order of their keys: of branch 1 two, of branch 2 one.
 */
static void
three_branches(struct lrig *rig)
{
    lrig_create(rig, 4, 1);
    lrig_write(rig, 0, 0, 40);
    lrig_shutdown(rig);
    lrig_records_begin(rig);
    uint32_t second = lrig_clone(rig, lrig_snapshot(rig, 0));
    lrig_snapshot(rig, 0);
    lrig_clone(rig, lrig_snapshot(rig, second));
    lrig_records_end(rig);
}

static void
what_does_not_fit_is_refused_in_words(void **state)
{
    static const struct {
        void (*damage)(struct lrig *rig);
        const char *message; /* NULL: it is served */
    } cases[] = {
        { nothing_wrong, NULL },
        { no_parent, "branch 3 has a parent that is not there" },
        { younger_parent, "(key 420000000000000002) cannot be understood" },
        { fork_is_no_view, "branch 2 does not fit" },
        { fork_beyond_the_parent, "branch 2 begins where its parent has nothing" },
        { continues_a_head, "branch 2 does not fit" },
        { two_continue, "does not fit" },
        { headless_volume, "volume `v3` has no valid branch" },
        { volume_of_another_branch, "volume `v2` has no valid branch" },
        { branch_without_volume, "branch 3 is that of a volume that is gone" },
        { branch_never_made, "branch 3 has a number that was never given" },
        { snapshot_of_no_branch, "of branch 77 is of a branch that is not there" },
        { snapshot_of_the_future, "lies where its branch has nothing" },
        { snapshot_below_its_branch, "lies where its branch has nothing" },
        { snapshot_of_that_name_twice, "generation 2 of branch 1 has the name of another one" },
        { snapshot_never_made, "has a number that was never given" },
        { snapshot_of_no_size, "generation 2 of branch 1 has no valid size" },
        { snapshot_of_no_volume, "generation 2 of branch 1 is of a volume that is gone" },
        { deleted_under_a_clone, "branch 2 does not fit" },
    };

    (void)state;
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        struct lrig rig;
        three_branches(&rig);
        lrig_records_begin(&rig);
        cases[n].damage(&rig);
        lrig_records_end_as_they_are(&rig);
        rig.bench->made_up = true;
        assert_int_equal(bench_boot(rig.bench), 0);
        enum pool_state reached = bench_pool_state(rig.bench, "p");
        if (cases[n].message == NULL) {
            assert_int_equal(reached, POOL_STATE_ONLINE);
            lrig_compare(&rig);
        } else if (strstr(rig.bench->error.message, cases[n].message) == NULL) {
            fail_msg("case %zu: `%s` instead of `%s`", n, rig.bench->error.message,
                     cases[n].message);
        } else {
            assert_int_equal(reached, POOL_STATE_OFFLINE);
        }
        lrig_free(&rig);
    }
}

/* ---- what was in the middle ---- */

/* The state of the only snapshot record after a start; 0: there is none. */
static uint8_t
state_after_start(struct lrig *rig, void (*change)(struct lrig *rig))
{
    lrig_records_begin(rig);
    change(rig);
    lrig_records_end_as_they_are(rig);
    rig->views[0].branch = 0;
    lrig_boot(rig);
    lrig_compare(rig);
    bench_wait_for_jobs(rig->bench);
    bench_pass_time(rig->bench, 2);
    lrig_shutdown(rig);
    lrig_records_begin(rig);
    uint8_t found = rig->records.snapshot_count > 0 ? rig->records.snapshots[0].state : 0;
    lineage_free(&rig->records.lineage);
    return found;
}

static void
pending_and_bumped(struct lrig *rig)
{
    rig->records.snapshots[0].state = SNAPSHOT_PENDING;
}

static void
pending_and_not_bumped(struct lrig *rig)
{
    rig->records.snapshots[0].state = SNAPSHOT_PENDING;
    branch_at(rig, 1)->current_generation = 1;
}

static void
hidden_for_nobody(struct lrig *rig)
{
    rig->records.snapshots[0].state = SNAPSHOT_HIDDEN;
    rig->records.snapshots[0].name[0] = '\0';
}

static void
what_was_in_the_middle_is_undone(void **state)
{
    static void (*const changes[])(struct lrig *rig) = {
        pending_and_bumped, pending_and_not_bumped, hidden_for_nobody,
    };

    (void)state;
    for (size_t n = 0; n < ARRAY_SIZE(changes); n++) {
        struct lrig rig;
        lrig_create(&rig, 5, 1);
        rig.bench->made_up = true; /* counters that are to come with a bump */
        lrig_write(&rig, 0, 0, 40);
        lrig_shutdown(&rig);
        lrig_records_begin(&rig);
        lrig_snapshot(&rig, 0);
        lrig_records_end(&rig);
        assert_int_equal(state_after_start(&rig, changes[n]), 0);
        lrig_boot(&rig);
        lrig_free(&rig);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_stays_as_it_was),
        cmocka_unit_test(a_chain_of_clones_shows_what_each_of_them_began_with),
        cmocka_unit_test(a_rollback_continues_or_forks),
        cmocka_unit_test(what_a_continued_branch_names_is_not_freed),
        cmocka_unit_test(what_does_not_fit_is_refused_in_words),
        cmocka_unit_test(what_was_in_the_middle_is_undone),
        cmocka_unit_test(a_complete_branch_ends_look_ups_only),
        cmocka_unit_test(a_bump_that_was_not_committed_counts),
        cmocka_unit_test(a_branch_of_one_generation_is_left_alone),
        cmocka_unit_test(a_start_that_is_cut_short_is_done_again),
        cmocka_unit_test(everything_shows_what_it_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
