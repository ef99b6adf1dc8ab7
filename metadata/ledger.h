/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit ledger: a ring of checksummed records on the pool's own disks, one per durable commit.
 *
 * THEORY OF OPERATION
 *
 * A record holds the commit's number and the batch itself. It is written with FUA to every current
 * copy in parallel with the store's synced commit. With a checkpoint it rebuilds the database; with
 * the database alone it proves that the database has not gone back in time.
 *
 * Invariants
 *  L1  Commit n is acknowledged only when its record is durable in every current copy and the
 *      store.
 *  L2  Records are consecutive in number within one incarnation of the ring; each carries the CRC
 *      of the record before it, so that a stale or foreign record cannot pass for a successor.
 *  L3  A record is overwritten only when it is at or below `released` (two readable checkpoints
 *      contain it). A full ring makes append fail with -ENOSPC before anything is written.
 *  L4  A copy that fails or is late is no longer current; that is durable on the other copies (a
 *      record flag) before the commit is acknowledged without it.
 */
#ifndef METADATA_LEDGER_H
#define METADATA_LEDGER_H

#include "backends/backend.h"
#include "base/byte_buffer.h"
#include "metadata/schema.h"

struct ledger;

enum {
    LEDGER_COPIES_MAX = 3,
    LEDGER_RECORD_ALIGNMENT = 4096,
};

struct ledger_copy_options {
    struct backend *backend;
    uint16_t disk_index;
    uint64_t start_bytes;
    uint64_t length_bytes;
};

struct ledger_options {
    uint8_t pool_guid[GUID_BYTES];
    uint64_t incarnation;
    uint32_t copy_count;
    struct ledger_copy_options copies[LEDGER_COPIES_MAX];
    /* A copy that takes longer than the first by this much is dropped; 0: never for that. */
    uint64_t late_ns;
};

/* On a reactor, which owns it from then on. */
int ledger_create(const struct ledger_options *options, struct ledger **ret_ledger);
/* No operation in progress. The transfer of a copy that was late may still be under way: it frees
 * its memory when the backend is done with it, so close backends later. */
void ledger_destroy(struct ledger *ledger);

/*
 * Start an empty ring behind commit `commit` (new pool, after a rebuild, or to take in a copy that
 * was dropped). All records are given up: unless the pool is new, two checkpoints that contain
 * `commit` come first. Space is allocated for the whole area. Copies that fail are left out, and
 * are not current (ret_current_copies); -ENOSPC or -EIO when none is left.
 */
struct ledger_format {
    struct io_op op; /* 0 or -errno */
    struct ledger *ledger;
    uint64_t commit;
    uint32_t ret_current_copies; /* bit per copy */
};
void ledger_format(struct ledger_format *format);

/*
 * Read all copies; find the newest consistent run of records. record() is called in order, on this
 * reactor, for every record behind `after_commit`, when the scan is complete; it copies what it
 * needs, and a negative return ends the scan with that result. Tears at the end of the ring (a
 * record that no copy has whole and that has no successor) are the normal end. A hole before a
 * valid later record is damage, -EUCLEAN, unless all records behind `after_commit` are there: what
 * lies before may have been released and be half overwritten.
 *
 * Nothing is written. The first append after a scan gives records that only some current copies
 * have to the others, so that L1 holds again for all of them.
 */
struct ledger_scan;
typedef int ledger_record_fn(struct ledger_scan *scan, uint64_t commit, const void *batch,
                             size_t batch_bytes);
struct ledger_scan {
    /* 0; -ENOENT: no record (append may follow if ret_current_copies is not 0, else format first);
     * -EUCLEAN; -EIO: no copy readable */
    struct io_op op;
    struct ledger *ledger;
    uint64_t after_commit;
    ledger_record_fn *record;
    uint64_t ret_first_commit; /* oldest that is there; ret_last_commit + 1: none */
    uint64_t ret_last_commit;  /* with -ENOENT: what the ring was formatted behind */
    uint64_t ret_last_incarnation; /* of the newest record; with -ENOENT: that formatted the ring */
    uint32_t ret_current_copies; /* bit per copy */
    /* Copies that the newest record calls current and that are not here or not readable: they may
     * have newer records. */
    uint32_t ret_absent_copies;
};
void ledger_scan(struct ledger_scan *scan);

/* Append after a scan or format; one at a time. `batch` stays valid until done(). */
struct ledger_append {
    struct io_op op; /* 0: durable in every current copy; -ENOSPC (L3); -EIO: no copy left */
    struct ledger *ledger;
    uint64_t commit; /* the one after the last */
    const struct byte_buffer *batch;
    uint32_t ret_dropped_copies; /* bit per copy that this append dropped (L4) */
};
void ledger_append(struct ledger_append *append);

/* Two readable checkpoints contain everything up to `commit`. */
void ledger_release(struct ledger *ledger, uint64_t commit);
uint64_t ledger_used_bytes(const struct ledger *ledger);
uint64_t ledger_size_bytes(const struct ledger *ledger); /* of the smallest copy */

#endif
