/* SPDX-License-Identifier: Apache-2.0 */
/* What tests about snapshots do most. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

uint64_t
bench_realtime_ns(struct bench *bench)
{
    return sim_platform(bench->sim)->ops->realtime_ns(sim_platform(bench->sim));
}

int
bench_make_snapshot(struct bench *bench, const char *path)
{
    struct volume_name name = { 0 };
    struct snapshot_create create = { .count = 1, .names = &name };
    bench_set_name(&name, path);
    return bench_snapshot_create(bench, &create);
}

int
bench_drop_snapshot(struct bench *bench, const char *path)
{
    struct volume_name name = { 0 };
    struct snapshot_delete delete = { .count = 1, .names = &name };
    bench_set_name(&name, path);
    return bench_snapshot_delete(bench, &delete);
}

int
bench_make_clone(struct bench *bench, const char *from, const char *name)
{
    struct volume_clone clone = { .tier = VOLUME_TIER_AUTO };
    bench_set_name(&clone.from, from);
    bench_set_name(&clone.name, name);
    return bench_volume_clone(bench, &clone);
}

int
bench_roll_back(struct bench *bench, const char *path)
{
    struct volume_rollback rollback = { 0 };
    bench_set_name(&rollback.name, path);
    return bench_volume_rollback(bench, &rollback);
}

struct volume *
bench_hold_snapshot(struct bench *bench, const char *path)
{
    struct export_lookup lookup;
    int result = bench_make_export(bench, path);

    if (result == -ECANCELED) {
        return NULL;
    }
    ASSERT(result == 0 || result == -EEXIST);
    return bench_lookup(bench, 0, path, &lookup) == 0 ? lookup.ret_volume : NULL;
}

bool
bench_snapshot_report(struct bench *bench, const char *path, struct snapshot_report *ret_report)
{
    struct snapshot_query query = { .space = true };

    bench_set_name(&query.name, path);
    if (bench_snapshot_query(bench, &query) < 0) {
        return false;
    }
    ASSERT_OP(query.ret_count, ==, 1u);
    *ret_report = query.ret_snapshots[0];
    free(query.ret_snapshots);
    return true;
}
