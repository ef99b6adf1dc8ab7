/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume on simulated disks whose generations are ended by hand, and what each of them and the
 * head must show. One region of it is written to, around the border of two map pages.
 */
#ifndef TESTS_UNIT_VOLMGR_SNAPSHOT_RIG_H
#define TESTS_UNIT_VOLMGR_SNAPSHOT_RIG_H

#include "tests/unit/volmgr/harness.h"

#include "base/random.h"
#include "volmgr/core_impl.h"

#define RIG_START ((UINT64_C(1) << MAP_PAGE_SHIFT) - UINT64_C(8) * GRAIN_BYTES)

enum {
    RIG_GRAINS = 16,
    RIG_SECTORS = RIG_GRAINS * GRAIN_BYTES / 512,
    RIG_OPS = 12,
    RIG_VIEWS = 24,
};
#define RIG_UNSURE UINT32_MAX /* stamp: it may be anything */

/* What a request does to sectors: they bear its stamp, or 0 for zeroes. */
struct rig_change {
    enum volume_operation operation;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint32_t stamp;
};

struct rig_op {
    struct rig *rig;
    struct volume_request request;
    struct iovec iov[2];
    struct rig_change change;
    uint8_t *data;
    uint32_t order; /* of submission, which is that of what conflicts */
    bool is_used;
};

struct rig_view {
    uint32_t generation;
    uint32_t stamps[RIG_SECTORS]; /* what had been acknowledged when it was taken */
    struct rig_change late[RIG_OPS]; /* and what was under way: may be in it */
    uint32_t late_count;
};

struct rig_taking {
    struct volume_gate gate;
    struct volume_settle settle;
    struct volume_seal_wait seal;
    bool only_close;
    bool is_done;
    bool has_bumped;
    int status;
};

struct rig {
    struct bench *bench;
    struct volume *volume;
    struct sim_disk *disk;
    struct random random;
    struct rig_op ops[RIG_OPS];
    uint32_t stamps[RIG_SECTORS];
    uint32_t orders[RIG_SECTORS]; /* of the request that wrote that */
    uint32_t last_order;
    uint32_t last_stamp;
    bool may_fail;
    uint32_t failed;
    struct rig_view views[RIG_VIEWS];
    uint32_t view_count;
    struct rig_taking taking;
    struct volume_gate gate; /* of rig_bump_now() */
};

void rig_create(struct rig *rig, uint64_t seed, uint32_t sector_bytes);
void rig_free(struct rig *rig);
void rig_run(struct rig *rig, uint64_t time_ns);
/* Call this on the volume's reactor. */
void rig_call(struct rig *rig, void (*function)(struct rig *rig));

/* Which op it is; RIG_OPS: no room. The region of it is within the rig's. */
uint32_t rig_submit(struct rig *rig, enum volume_operation operation, uint64_t offset_bytes,
                    uint64_t length_bytes, uint32_t flags);
void rig_submit_random(struct rig *rig);
bool rig_is_under_way(const struct rig *rig);
/* Until nothing is. */
void rig_drain(struct rig *rig);
/* Write and wait for that. */
void rig_write(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes);
/* As bench_io(); not taken note of. */
int rig_io(struct rig *rig, enum volume_operation operation, uint64_t offset_bytes, void *data,
           uint64_t length_bytes);

/* Begin to keep the generation of now, unless that is under way; wait for it, however often. */
void rig_take_begin(struct rig *rig, bool all);
void rig_take_end(struct rig *rig);
void rig_take(struct rig *rig, bool all);
/* Bump, if the gate is closed: what volume_bump() says. */
uint32_t rig_bump(struct rig *rig);
/* Gate, bump, gate, at once, if nothing is past ALLOC; what was changed is not sealed. */
void rig_bump_now(struct rig *rig);
void rig_seal_kick(struct rig *rig);
/* The newest kept generation is not any more; or was not kept after all. */
void rig_drop_newest(struct rig *rig);
void rig_abandon(struct rig *rig);

/* What these blocks hold is lost. */
void rig_damage(struct rig *rig, uint64_t offset_bytes, uint64_t length_bytes);
/* Write what cannot be read. */
void rig_mend_losses(struct rig *rig);

/* The cached page of an offset. */
const struct map_page *rig_page(struct rig *rig, uint64_t offset_bytes);
/* Head, kept generations, use bits, links and counters. Nothing is under way. */
void rig_compare(struct rig *rig);
void rig_compare_head(struct rig *rig);
/* Shut down, and open again. */
void rig_restart(struct rig *rig);
/* The process is killed, and started again: what was acknowledged must be there. */
void rig_kill(struct rig *rig);

#endif
