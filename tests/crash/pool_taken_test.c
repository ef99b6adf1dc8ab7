/* SPDX-License-Identifier: Apache-2.0 */
/* Another host has taken a pool over: what was on its way to the disk here does not get there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "metadata/label.h"
#include "tests/sim/world.h"

enum {
    BLOCK = 4 * KIB,
};

/* As another host's start would write it, in both places. */
static void
write_label_of_another_host(struct sim_disk *disk, uint64_t disk_bytes)
{
    uint8_t block[LABEL_BYTES];
    struct label newest = { 0 };

    for (uint32_t slot = 0; slot < LABEL_SLOTS; slot++) {
        struct label label;
        sim_disk_peek(disk, slot * LABEL_BYTES, block, sizeof(block));
        if (label_decode(block, &label) == 0 && label.generation > newest.generation) {
            newest = label;
        }
    }
    newest.generation++;
    newest.incarnation++;
    memset(newest.host_guid, 9, sizeof(newest.host_guid));
    label_encode(&newest, block);
    uint64_t at = newest.generation % LABEL_SLOTS * LABEL_BYTES;
    sim_disk_poke(disk, at, block, sizeof(block));
    sim_disk_poke(disk, disk_bytes - LABEL_PLACE_BYTES + at, block, sizeof(block));
}

/*
 * A write of a part of a block reads the rest first, and that hangs while the pool is lost: the
 * write that follows is not submitted by anybody who could be asked, so the disk refuses it.
 */
static void
a_write_that_had_begun_is_refused(void **state)
{
    (void)state;
    struct world_options options = {
        .seed = 1,
        .reactor_count = 1,
        .disk_count = 1,
        .disk_bytes = { 40 * MIB },
        .disk_sector_bytes = { 4096 },
        .extent_bytes = MIB,
        .volume_count = 1,
        .volume_bytes = 4 * MIB,
        .map_cache_bytes = MIB,
        .journal_bytes = MIB,
        .request_timeout_ns = 100 * NS_PER_S,
    };
    struct world *world = world_create(&options, NULL);
    struct sim_fault hang = { .action = SIM_FAULT_HANG, .kinds = 1u << FILE_IO_READ,
                              .offset_bytes = 3 * MIB, .length_bytes = 30 * MIB };

    assert_int_equal(world_boot(world), 0);
    assert_int_equal(world_format(world), 0);
    assert_int_equal(world_attach(world), 0);
    assert_int_equal(world_do(world, 0, VOLUME_WRITE, 0, 16 * BLOCK, 0), 0);
    assert_int_equal(world_do(world, 0, VOLUME_FLUSH, 0, 0, 0), 0);
    sim_run_for(world->sim, 6 * NS_PER_S);
    struct sim_disk *disk = world->disks[0];
    sim_disk_add_fault(disk, &hang);
    struct world_io *io = world_send(world, 0, VOLUME_WRITE, BLOCK, 512, 0, true);
    sim_run_for(world->sim, NS_PER_S / 100);
    assert_int_equal(sim_disk_hanging(disk), 1);
    write_label_of_another_host(disk, options.disk_bytes[0]);
    sim_run_for(world->sim, 6 * NS_PER_S);
    uint64_t hash = sim_disk_content_hash(disk);
    sim_disk_clear_faults(disk);
    sim_disk_release(disk);
    sim_run_for(world->sim, 60 * NS_PER_S);
    assert_true(io->replied);
    assert_true(io->status < 0);
    assert_true(sim_disk_content_hash(disk) == hash);
    world_io_free(io);
    world_kill(world);
    world_free(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_that_had_begun_is_refused),
    };
    log_set_level(LOG_LEVEL_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
