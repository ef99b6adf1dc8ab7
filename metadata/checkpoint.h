/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: the whole database as of one commit, on the pool's own disks.
 *
 * THEORY OF OPERATION
 *
 * A checkpoint is a stream of frames, each a batch of PUTs with a CRC, in a chain of parts. A part
 * is one extent-sized slot, held on up to EXTENT_COPIES_MAX disks; its header block names the
 * places of the next part, so that any one place of the first part (from a label) finds all of it.
 * Frames do not cross parts, and begin on whole blocks: where a frame of one copy is damaged, the
 * reader takes the same frame from another copy.
 *
 * The writer reads from a snapshot of the store, so that commits go on; it holds one frame and one
 * buffer of CHECKPOINT_BUFFER_BYTES in memory, whatever the size of the database.
 *
 * Invariants
 *  K1  When a write completes with 0, every part is durable on at least one disk (ret_copies_min),
 *      and contains exactly the state after commit ret_commit.
 *  K2  Nothing refers to a checkpoint before it is complete: the caller puts it into labels and the
 *      database afterwards, and keeps the parts of the one before until then.
 *  K3  A read that completes with 0 has handed over every item of the checkpoint exactly once.
 */
#ifndef METADATA_CHECKPOINT_H
#define METADATA_CHECKPOINT_H

#include "backends/backend.h"
#include "metadata/schema.h"
#include "metadata/store.h"

enum {
    CHECKPOINT_BUFFER_BYTES = 1 << 20,
    CHECKPOINT_FRAME_BYTES = 128 << 10, /* about; see store_scan.bytes_max */
};

/* ---- write ---- */

struct checkpoint_place {
    struct backend *backend;
    uint64_t offset_bytes; /* of the slot on it */
    struct extent_place place;
};

struct checkpoint_part {
    uint32_t copy_count; /* 1 .. EXTENT_COPIES_MAX, on different disks */
    struct checkpoint_place copies[EXTENT_COPIES_MAX];
};

struct checkpoint_write;
/* How long to wait before so many more bytes are written to each copy; 0: not at all. */
typedef uint64_t checkpoint_throttle_fn(struct checkpoint_write *write, uint64_t length_bytes);

/*
 * Asynchronous; on a reactor. The parts must be allocated durably, and nothing else refers to them.
 * A copy that fails is left out of the rest of its part.
 */
struct checkpoint_write {
    /* 0; -ENOSPC: more parts are needed (try again with more than ret_part_count); -EIO: a part has
     * no good copy left; -ECANCELED; or what the store said. */
    struct io_op op;
    struct store *store;
    uint8_t pool_guid[GUID_BYTES];
    uint64_t part_bytes; /* the pool's extent size */
    const struct checkpoint_part *parts;
    uint32_t part_count;
    checkpoint_throttle_fn *throttle; /* may be NULL */
    bool cancel;                      /* set at any time on the same reactor: end soon */
    uint64_t ret_commit;
    uint64_t ret_length_bytes; /* on each copy */
    uint64_t ret_item_count;
    uint32_t ret_part_count; /* used, from the first on */
    uint32_t ret_copies_min; /* good copies of the part that has the fewest */
    struct extent_place ret_first[EXTENT_COPIES_MAX]; /* good places of part 0: for labels */
    uint32_t ret_first_count;
    void *driver;
};
void checkpoint_write(struct checkpoint_write *write);
/* While it is under way, on its reactor: whether it waits for this disk (of its places) now. */
bool checkpoint_write_awaits(const struct checkpoint_write *write, uint16_t disk);

/* Parts that a store of this size needs; an estimate on the safe side. */
uint32_t checkpoint_part_count(uint64_t store_bytes, uint64_t part_bytes);

/* ---- read ---- */

struct checkpoint_read;
/* Where a place is now. 0, or -ENODEV when its disk is not here. */
typedef int checkpoint_resolve_fn(struct checkpoint_read *read, struct extent_place place,
                                  struct backend **ret_backend, uint64_t *ret_offset_bytes);
/*
 * A batch of PUTs, in order of families and keys. It stays valid until the consumer calls
 * checkpoint_read_next(), from here or later.
 */
typedef void checkpoint_batch_fn(struct checkpoint_read *read, const struct byte_buffer *batch);

/* Asynchronous; on a reactor. Reads and verifies; hands over batch by batch. */
struct checkpoint_read {
    /* 0; -ENOENT: no place of the first part holds this checkpoint; -EUCLEAN: some piece is not
     * intact on any copy; or what checkpoint_read_next() was given. */
    struct io_op op;
    uint8_t pool_guid[GUID_BYTES];
    uint64_t commit; /* which checkpoint (from the label) */
    uint64_t part_bytes;
    struct extent_place first[EXTENT_COPIES_MAX]; /* places of the first part that are known */
    uint32_t first_count;
    checkpoint_resolve_fn *resolve;
    checkpoint_batch_fn *batch; /* NULL: only verify */
    uint64_t ret_item_count;
    uint64_t ret_length_bytes;
    uint32_t ret_part_count;
    uint32_t ret_damaged_pieces; /* that were read from another copy */
    void *driver;
};
void checkpoint_read(struct checkpoint_read *read);
/* Go on with the next batch (result 0), or end with this -errno. */
void checkpoint_read_next(struct checkpoint_read *read, int result);

#endif
