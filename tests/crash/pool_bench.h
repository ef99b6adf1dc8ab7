/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of whole pools share: a bench with disks /d/0 to /d/3, and pool p on some. */
#ifndef TESTS_CRASH_POOL_BENCH_H
#define TESTS_CRASH_POOL_BENCH_H

#include "tests/unit/volmgr/harness.h"

#define DISK_BYTES (64 * MIB)

/* Four disks, and pool p on those of `paths`. */
struct bench *bench_with_pool(uint64_t seed, const char *const *paths);
struct volume *find(struct bench *bench, const char *name);
/* A volume with an export. */
struct volume *make(struct bench *bench, const char *name, uint64_t size_bytes);
int import(struct bench *bench, const char *const *paths, bool force,
           struct pool_import *ret_import);
void set_missing(struct bench *bench, const char *path, bool missing);
void write_and_flush(struct bench *bench, struct volume *volume, uint64_t offset_bytes,
                     uint64_t length_bytes, uint8_t seed);
/* Clean. */
void end_clean(struct bench *bench);
/* So many commits that there is a checkpoint. */
void churn(struct bench *bench, struct volume *volume, uint32_t count);
void copy_disk(struct bench *bench, const char *from, const char *to);
/* Every operation on the disk. */
void hang(struct bench *bench, const char *path);
void let_go(struct bench *bench, const char *path);
/* Pool p with disk 0 on tier 0, and disk 1 on tier 1; volume p/one on tier 0. */
struct bench *bench_with_tiers(struct volume **ret_one);
/* Killed, or the power is cut, whichever the step says. */
void die(struct bench *bench, uint64_t step);
/* Of these disks, the last alone: does it prove the database? */
void check_opens_with(struct bench *bench, const char *const *paths, uint32_t alone);

#endif
