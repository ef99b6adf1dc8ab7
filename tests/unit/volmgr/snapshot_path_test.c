/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generations that end under traffic: gate, bump, settle and seal by hand, on simulated disks. What
 * the head shows and what the stored versions of each kept generation show is compared with what
 * was written; and the use bits, links and counters with what the versions name.
 */
#include "tests/unit/volmgr/snapshot_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim_impl.h"
#include "volmgr/map_entry_impl.h"
#include "volmgr/pipeline_impl.h"

enum {
    BLOCK = 4 * KIB,
};

/* ---- random traffic ---- */

static void
set_fault(struct rig *rig, enum sim_fault_action action, enum file_io_kind kind, uint64_t skip,
          uint64_t count)
{
    struct sim_fault fault = {
        .action = action, .kinds = 1u << kind, .skip = skip, .count = count,
        .delay_ns = 20 * NS_PER_MS,
    };
    sim_disk_add_fault(rig->disk, &fault);
}

static void
random_run(uint64_t seed, bool with_losses)
{
    struct rig rig;
    struct random *random = &rig.random;

    rig_create(&rig, seed, seed % 5 == 0 ? 4096 : 512);
    rig.may_fail = with_losses;
    for (uint32_t step = 0; step < 500; step++) {
        if (random_chance(random, 3, 4)) {
            rig_submit_random(&rig);
        }
        if (random_chance(random, 1, 2)) {
            rig_run(&rig, random_below(random, 400) * NS_PER_US);
        }
        if (random_chance(random, 1, 25)) {
            rig_take_begin(&rig, random_chance(random, 1, 3));
        }
        if (random_chance(random, 1, 40)) {
            rig_bump_now(&rig);
        }
        if (random_chance(random, 1, 30)) {
            rig_drop_newest(&rig);
        }
        if (with_losses && random_chance(random, 1, 50)) {
            set_fault(&rig, SIM_FAULT_ERROR, FILE_IO_FLUSH, 0, 1);
        }
    }
    rig_take_end(&rig);
    sim_disk_clear_faults(rig.disk);
    rig_drain(&rig);
    if (with_losses) {
        rig_mend_losses(&rig);
    }
    rig_compare(&rig);
    rig_restart(&rig);
    rig_compare_head(&rig);
    rig_free(&rig);
}

static void
kept_generations_stay_as_they_were(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        random_run(seed, false);
    }
}

/* The journal has records of generations that the database does not know of yet. */
static void
a_generation_ends_and_the_process_dies(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig rig;

        rig_create(&rig, 2000 + seed, 512);
        for (uint32_t step = 0; step < 150; step++) {
            rig_submit_random(&rig);
            rig_run(&rig, random_below(&rig.random, 200) * NS_PER_US);
            if (random_chance(&rig.random, 1, 25)) {
                rig_bump_now(&rig);
            }
            if (random_chance(&rig.random, 1, 50)) {
                rig_take_begin(&rig, false);
            }
        }
        rig_kill(&rig);
        rig_restart(&rig);
        rig_free(&rig);
    }
}

/* What is kept is never taken for good then; but what is stored fits together all the same. */
static void
so_they_do_when_batches_are_not_committed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        random_run(1000 + seed, true);
    }
}

/* ---- one case after the other ---- */

/* An entry with a home of the newest generation over a base of an older one. */
static void
make_two_sources(struct rig *rig, uint64_t offset)
{
    rig_write(rig, offset, GRAIN_BYTES);
    rig_take(rig, false);
    rig_write(rig, offset, (uint64_t)6 * BLOCK);
}

/*
 * A write in place is under way at the bump; a copy for the new generation moves its block before
 * it has landed. It was acknowledged, so the head must have it.
 */
static void
a_late_write_in_place_is_not_lost_to_a_copy(void **state)
{
    (void)state;
    for (uint32_t in_copied_half = 0; in_copied_half < 2; in_copied_half++) {
        struct rig rig;

        rig_create(&rig, 7, 512);
        make_two_sources(&rig, RIG_START);
        set_fault(&rig, SIM_FAULT_DELAY, FILE_IO_WRITE, 0, 1);
        /* Block 2 is in the home, of which less is live: that is what is copied. */
        rig_submit(&rig, VOLUME_WRITE, RIG_START + (uint64_t)2 * BLOCK, BLOCK, 0);
        rig_take_begin(&rig, false);
        rig_run(&rig, 100 * NS_PER_US);
        assert_int_equal(rig.view_count, 2);
        assert_true(rig_is_under_way(&rig));
        rig_submit(&rig, VOLUME_WRITE, RIG_START + (uint64_t)(in_copied_half ? 3 : 9) * BLOCK,
                   BLOCK, 0);
        rig_run(&rig, 5 * NS_PER_MS);
        assert_false(rig.taking.is_done); /* not settled */
        rig_take_end(&rig);
        rig_drain(&rig);
        rig_compare(&rig);
        rig_free(&rig);
    }
}

static void
nobody_waits_longer_for_a_disk_than_the_gate_may_be_closed(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, 8, 512);
    rig_write(&rig, RIG_START, GRAIN_BYTES);
    set_fault(&rig, SIM_FAULT_HANG, FILE_IO_WRITE, 0, 1);
    rig_submit(&rig, VOLUME_WRITE, RIG_START + GRAIN_BYTES, BLOCK, 0); /* changes the map */
    rig_run(&rig, NS_PER_MS);
    rig_take_begin(&rig, false);
    rig_run(&rig, NS_PER_MS);
    assert_true(rig.taking.gate.is_closed);
    /* In place: passes; and what would change the map waits. */
    rig_write(&rig, RIG_START, BLOCK);
    uint32_t waits = rig_submit(&rig, VOLUME_DISCARD, RIG_START, (uint64_t)4 * BLOCK, 0);
    rig_run(&rig, 30 * NS_PER_MS);
    assert_true(rig.ops[waits].is_used);
    rig_run(&rig, 20 * NS_PER_MS);
    assert_false(rig.ops[waits].is_used);
    assert_true(rig.taking.is_done);
    assert_int_equal(rig.taking.status, -EAGAIN);
    assert_string_equal(rig.taking.gate.ret_disk, "/d/0");
    assert_int_equal(rig.view_count, 0);
    sim_disk_clear_faults(rig.disk);
    sim_disk_release(rig.disk);
    rig_take(&rig, false);
    rig_drain(&rig);
    rig_compare(&rig);
    rig_free(&rig);
}

/* Drained, but who closed it does not come back. */
static void
a_gate_that_is_forgotten_opens(void **state)
{
    (void)state;
    struct rig rig;

    rig_create(&rig, 9, 512);
    rig_write(&rig, RIG_START, GRAIN_BYTES);
    rig.taking.only_close = true;
    rig_take_begin(&rig, true);
    rig_run(&rig, NS_PER_MS);
    assert_true(rig.taking.is_done);
    assert_int_equal(rig.taking.status, 0);
    uint32_t waits = rig_submit(&rig, VOLUME_WRITE, RIG_START, BLOCK, 0); /* in place: for all */
    rig_run(&rig, 40 * NS_PER_MS);
    assert_true(rig.ops[waits].is_used);
    rig_run(&rig, 15 * NS_PER_MS);
    assert_false(rig.ops[waits].is_used);
    assert_false(rig.taking.gate.is_closed);
    assert_int_equal(rig_bump(&rig), 0); /* too late */
    rig.taking.only_close = false;
    rig_drain(&rig);
    rig_compare(&rig);
    rig_free(&rig);
}

static void
hold_grants(struct rig *rig)
{
    rig->volume->shard->shared_source.asking = true;
}

static void
let_grants_go(struct rig *rig)
{
    rig->volume->shard->shared_source.asking = false;
    grain_source_ask(&rig->volume->shard->shared_source);
}

/* A window that waits for grains, with some homes attached already, belongs to what comes next. */
static void
homes_that_were_attached_before_a_bump_belong_to_the_new_generation(void **state)
{
    (void)state;
    struct rig rig;
    uint8_t *data = aligned_alloc(BLOCK, GRAIN_BYTES);

    memset(data, 1, GRAIN_BYTES);
    rig_create(&rig, 10, 512);
    assert_int_equal(rig_io(&rig, VOLUME_WRITE, 40 * MIB, data, GRAIN_BYTES), 0);
    rig_call(&rig, hold_grants);
    for (uint32_t i = 1; i < 12; i++) {
        assert_int_equal(
            rig_io(&rig, VOLUME_WRITE, 40 * MIB + (uint64_t)i * GRAIN_BYTES, data, GRAIN_BYTES),
            0);
    }
    uint32_t waits = rig_submit(&rig, VOLUME_WRITE, RIG_START, (uint64_t)8 * GRAIN_BYTES, 0);
    rig_run(&rig, NS_PER_MS);
    assert_true(rig.ops[waits].is_used);
    assert_int_equal(rig.ops[waits].request.stage, STAGE_LOOKUP); /* for grains */
    assert_int_equal(rig_page(&rig, RIG_START)->fresh_count, 4);
    rig_bump_now(&rig);
    rig_call(&rig, let_grants_go);
    rig_drain(&rig);
    free(data);
    rig_compare(&rig);
    const struct map_page *page = rig_page(&rig, RIG_START);
    uint32_t index = (uint32_t)(RIG_START / GRAIN_BYTES) % MAP_PAGE_ENTRIES;
    assert_int_equal(page->entries[index].home_generation, 2);
    assert_int_equal(page->version.stored, 2);
    assert_int_equal(page->version.previous, 0);
    rig_free(&rig);
}

static void
expect_untouched(struct rig *rig, const struct map_entry *before)
{
    const struct map_page *page = rig_page(rig, RIG_START);
    uint32_t index = (uint32_t)(RIG_START / GRAIN_BYTES) % MAP_PAGE_ENTRIES;

    assert_memory_equal(&page->entries[index], before, sizeof(*before));
    for (uint32_t i = 0; i < MAP_PAGE_WORDS; i++) {
        assert_int_equal(page->copying[i], 0);
    }
}

/* I15: a copy that fails leaves the entry as it was, and gives the grain back. */
static void
a_copy_that_fails_changes_nothing(void **state)
{
    (void)state;
    static const enum file_io_kind kinds[] = { FILE_IO_READ, FILE_IO_WRITE };

    for (uint32_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct rig rig;

        rig_create(&rig, 11 + i, 512);
        make_two_sources(&rig, RIG_START);
        rig_take(&rig, false);
        uint32_t index = (uint32_t)(RIG_START / GRAIN_BYTES) % MAP_PAGE_ENTRIES;
        struct map_entry before = rig_page(&rig, RIG_START)->entries[index];
        assert_int_not_equal(before.base, GRAIN_NONE);
        set_fault(&rig, SIM_FAULT_ERROR, kinds[i], 0, 1);
        rig.may_fail = true;
        rig_submit(&rig, VOLUME_WRITE, RIG_START + 512, 512, 0);
        uint32_t waits = rig_submit(&rig, VOLUME_WRITE, RIG_START + 5 * BLOCK, BLOCK, 0);
        rig_run(&rig, 10 * NS_PER_MS);
        assert_int_equal(rig.failed, 1);
        assert_false(rig.ops[waits].is_used); /* it waited for the copy, and then made its own */
        rig.may_fail = false;
        sim_disk_clear_faults(rig.disk);
        (void)before;
        rig_take(&rig, false);
        rig_submit(&rig, VOLUME_WRITE, RIG_START + 512, 512, 0);
        rig_drain(&rig);
        rig_compare(&rig);
        rig_free(&rig);
    }
    struct rig rig;
    rig_create(&rig, 13, 512);
    make_two_sources(&rig, RIG_START);
    rig_take(&rig, false);
    uint32_t index = (uint32_t)(RIG_START / GRAIN_BYTES) % MAP_PAGE_ENTRIES;
    struct map_entry before = rig_page(&rig, RIG_START)->entries[index];
    set_fault(&rig, SIM_FAULT_ERROR, FILE_IO_WRITE, 0, 1);
    rig.may_fail = true;
    rig_submit(&rig, VOLUME_WRITE, RIG_START + 512, 512, 0);
    rig_drain(&rig);
    assert_int_equal(rig.failed, 1);
    expect_untouched(&rig, &before);
    rig_compare(&rig); /* and its grain is not in use */
    rig_free(&rig);
}

/* What was lost before the bump stays so in the kept generation, and where it is copied to. */
static void
damaged_blocks_are_moved_and_stay_damaged(void **state)
{
    (void)state;
    struct rig rig;
    uint8_t *data = aligned_alloc(BLOCK, BLOCK);

    rig_create(&rig, 14, 512);
    make_two_sources(&rig, RIG_START);
    rig_damage(&rig, RIG_START + 2 * BLOCK, BLOCK); /* in the home, of which less is live */
    rig_take(&rig, false);
    assert_int_equal(rig_io(&rig, VOLUME_READ, RIG_START + 2 * BLOCK, data, BLOCK), -EIO);
    rig.may_fail = true;
    rig_submit(&rig, VOLUME_WRITE, RIG_START + 2 * BLOCK + 512, 512, 0); /* a part is no help */
    rig_drain(&rig);
    assert_int_equal(rig.failed, 1);
    rig_write(&rig, RIG_START + 5 * BLOCK, BLOCK);
    uint32_t index = (uint32_t)(RIG_START / GRAIN_BYTES) % MAP_PAGE_ENTRIES;
    const struct map_entry *entry = &rig_page(&rig, RIG_START)->entries[index];
    assert_int_equal(entry->home_generation, 3);
    assert_int_equal(entry->valid, 0x3f);
    assert_int_equal(entry->copied, 0x1f);
    assert_int_equal(entry->damaged, 0x4);
    assert_int_equal(rig_io(&rig, VOLUME_READ, RIG_START + 2 * BLOCK, data, BLOCK), -EIO);
    rig_submit(&rig, VOLUME_WRITE, RIG_START + 2 * BLOCK + 512, 512, 0); /* nor in place */
    rig_drain(&rig);
    assert_int_equal(rig.failed, 2);
    rig_write(&rig, RIG_START + 2 * BLOCK, BLOCK);
    assert_int_equal(rig_io(&rig, VOLUME_READ, RIG_START + 2 * BLOCK, data, BLOCK), 0);
    assert_int_equal(entry->damaged, 0);
    assert_int_equal(entry->copied, 0x1b);
    free(data);
    rig_compare(&rig);
    rig_free(&rig);
}

/* G3, G4: a flush fails between the bump and the commit of what it kept. */
static void
a_seal_that_fails_after_a_bump_takes_nothing_along(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct rig rig;

        rig_create(&rig, 100 + seed, 512);
        for (uint32_t i = 0; i < 40; i++) {
            rig_submit_random(&rig);
            rig_run(&rig, 50 * NS_PER_US);
        }
        rig_take(&rig, false);
        for (uint32_t i = 0; i < 40; i++) {
            rig_submit_random(&rig);
            rig_run(&rig, 50 * NS_PER_US);
        }
        rig_drain(&rig);
        rig_write(&rig, RIG_START + (seed % 16) * GRAIN_BYTES, 2 * BLOCK);
        rig.may_fail = true;
        set_fault(&rig, SIM_FAULT_ERROR, FILE_IO_FLUSH, 0, 1);
        rig_seal_kick(&rig); /* it begins before the bump, and fails behind it */
        rig_take_begin(&rig, seed % 2 == 0);
        for (uint32_t i = 0; i < 10; i++) {
            rig_submit_random(&rig);
        }
        rig_run(&rig, 300 * NS_PER_MS);
        assert_true(rig.taking.is_done && rig.taking.has_bumped);
        assert_int_equal(rig.taking.status, -EIO);
        rig_abandon(&rig);
        sim_disk_clear_faults(rig.disk);
        rig_drain(&rig);
        rig_mend_losses(&rig);
        rig.may_fail = false;
        for (uint32_t i = 0; i < 40; i++) {
            rig_submit_random(&rig);
        }
        rig_take(&rig, false);
        rig_write(&rig, RIG_START, 16 * (uint64_t)GRAIN_BYTES);
        rig_drain(&rig);
        rig_compare(&rig);
        rig_free(&rig);
    }
}

/*
 * A copy is written with FUA, and then given up: the blocks that it would have moved are where they
 * were, in the disk's cache. When that is lost, they are, and must not be what they were before.
 */
static void
a_durable_copy_that_is_given_up_proves_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct rig rig;

        rig_create(&rig, 200 + seed, 512);
        make_two_sources(&rig, RIG_START);
        assert_int_equal(rig_io(&rig, VOLUME_FLUSH, 0, NULL, 0), 0);
        rig_write(&rig, RIG_START, (uint64_t)6 * BLOCK); /* in place, in the cache */
        rig_bump_now(&rig);
        assert_int_equal(rig.view_count, 2);
        set_fault(&rig, SIM_FAULT_DELAY, FILE_IO_WRITE, 0, 1);
        rig_submit(&rig, VOLUME_WRITE, RIG_START + (uint64_t)9 * BLOCK, BLOCK, VOLUME_FUA);
        rig_run(&rig, 5 * NS_PER_MS);
        assert_true(rig_is_under_way(&rig));
        rig_drop_newest(&rig); /* what it copies may be written in place again */
        rig.may_fail = true;
        set_fault(&rig, SIM_FAULT_LOSE_CACHE, FILE_IO_FLUSH, 0, 1);
        rig_drain(&rig);
        sim_disk_clear_faults(rig.disk);
        rig_mend_losses(&rig);
        rig_compare_head(&rig); /* what could be read was as it had been written */
        rig_free(&rig);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_write_in_place_is_not_lost_to_a_copy),
        cmocka_unit_test(nobody_waits_longer_for_a_disk_than_the_gate_may_be_closed),
        cmocka_unit_test(a_gate_that_is_forgotten_opens),
        cmocka_unit_test(homes_that_were_attached_before_a_bump_belong_to_the_new_generation),
        cmocka_unit_test(a_copy_that_fails_changes_nothing),
        cmocka_unit_test(a_durable_copy_that_is_given_up_proves_nothing),
        cmocka_unit_test(damaged_blocks_are_moved_and_stay_damaged),
        cmocka_unit_test(a_seal_that_fails_after_a_bump_takes_nothing_along),
        cmocka_unit_test(kept_generations_stay_as_they_were),
        cmocka_unit_test(a_generation_ends_and_the_process_dies),
        cmocka_unit_test(so_they_do_when_batches_are_not_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
