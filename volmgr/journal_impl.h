/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volatile journal: what makes P3 true without a system call.
 *
 * THEORY OF OPERATION
 *
 * One ring per (reactor, pool) in memory that outlives the process but not a power cut
 * (platform volatile_map). Each change of a map entry is appended as one record of fixed size,
 * whole new entry included, before the host is answered. After a crash of the daemon on the same
 * boot the records of uncommitted batches are committed to the database before the pool serves.
 * After a power cut the ring is gone, as it must be: the data that it points to may be, too.
 *
 * Records are numbered without gaps; record n lies in slot n modulo the capacity. `tail` in the
 * header is the oldest record that is still needed. The ring is cut in JOURNAL_SEGMENTS segments,
 * each with a count of uncommitted records; the tail moves over segments whose count is zero. When
 * volumes on a hung disk hold the tail back and the ring fills, what is needed of the segment at
 * the tail is logged again at the head.
 *
 * Invariants
 *  J1  A record is complete (CRC over all of it) before the reply of its request is sent.
 *  J2  A record is overwritten only when its batch has been committed or it was logged again.
 *  J3  An invalid record followed by a valid record with a higher number of the same lap is damage,
 *      not an end.
 */
#ifndef VOLMGR_JOURNAL_IMPL_H
#define VOLMGR_JOURNAL_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/error.h"
#include "metadata/schema.h"

struct platform;

enum {
    JOURNAL_RECORD_BYTES = 80,
    JOURNAL_HEADER_BYTES = 4096,
    JOURNAL_SEGMENTS = 64,
};
#define JOURNAL_FENCE_ALL UINT64_MAX

struct journal_identity {
    uint8_t pool_guid[GUID_BYTES];
    uint8_t database_guid[GUID_BYTES];
    uint8_t ring_guid[GUID_BYTES]; /* of this run */
    uint64_t incarnation;
    uint32_t index; /* of the reactor */
    char boot_id[37];
};

struct journal_record {
    uint64_t sequence;
    uint64_t branch;
    uint64_t batch;        /* of the branch */
    uint64_t volume_grain; /* number of the entry in the branch's map */
    struct map_entry entry;
};

struct journal {
    struct platform *platform;
    uint8_t *memory;
    uint64_t size_bytes;
    uint64_t capacity; /* records; a multiple of JOURNAL_SEGMENTS */
    uint64_t segment_records;
    uint64_t head; /* number of the next record */
    uint64_t tail; /* oldest needed */
    uint32_t segment_uncommitted[JOURNAL_SEGMENTS];
    uint64_t uncommitted; /* sum of it */
    uint64_t fence_count; /* branches */
    bool fences_all;      /* the header had no room for one: it fences every branch */
};

/* "volmgr-<pool guid>-<ring guid prefix>-<index>": the name for volatile_map(). */
void journal_name(const struct journal_identity *identity, char ret_name[static 96]);

/* control. Make (or remake) a ring for this run. `size_bytes` includes the header. */
int journal_create(struct journal *journal, struct platform *platform,
                   const struct journal_identity *identity, uint64_t size_bytes,
                   struct error *error);
/* Unmap; `remove`: it is not needed any more (clean shutdown, or replayed). */
void journal_close(struct journal *journal, const struct journal_identity *identity, bool remove);

static inline uint64_t
journal_free_records(const struct journal *journal)
{
    return journal->capacity - (journal->head - journal->tail);
}

/* The segment that the tail is in, and the number of the first record behind it. */
uint32_t journal_tail_segment(const struct journal *journal);
uint64_t journal_segment_end(const struct journal *journal);
/* A record between tail and head. -EUCLEAN: it is damaged. */
int journal_read(const struct journal *journal, uint64_t sequence,
                 struct journal_record *ret_record);
/* Append; there is room (asserted). Returns the segment that the record lies in. */
uint32_t journal_append(struct journal *journal, uint64_t branch, uint64_t batch,
                        uint64_t volume_grain, const struct map_entry *entry);
/*
 * The branch's unflushed writes may be lost: its records must not be replayed as if their data were
 * there. Noted in the header at once, so that it outlives the process as the records do.
 */
void journal_fence(struct journal *journal, uint64_t branch);
/* What is lost is known and committed: the branch's later records are good. */
void journal_lift_fence(struct journal *journal, uint64_t branch);
/* `count` records of a segment are committed (or were logged again). Moves the tail. */
void journal_committed(struct journal *journal, uint32_t segment, uint32_t count);

/*
 * control. Open the ring of an earlier run and call `each` for its records from tail to head, in
 * order. `ret_fences` gets the fenced branches appended. -ENOENT: no such ring. -ESTALE: of another
 * boot, database or incarnation. -EUCLEAN: damaged.
 */
typedef int journal_record_fn(void *context, const struct journal_record *record);
int journal_replay(struct platform *platform, const struct journal_identity *expected,
                   uint64_t size_bytes, journal_record_fn *each, void *context,
                   struct byte_buffer *ret_fences, struct error *error);
/*
 * control. Fence every branch of a ring of an earlier run, if it is there. `ret_fences` gets the
 * branches appended that were fenced before.
 */
void journal_fence_ring(struct platform *platform, const struct journal_identity *expected,
                        uint64_t size_bytes, struct byte_buffer *ret_fences);
/* Is the branch among those that journal_replay() found fenced? */
bool journal_is_fenced(const struct byte_buffer *fences, uint64_t branch);
/* control. Remove the ring of an earlier run, after its records have been committed. */
void journal_remove(struct platform *platform, const struct journal_identity *identity);

#endif
