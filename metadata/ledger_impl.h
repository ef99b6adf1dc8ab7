/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the ledger*.c files only. */
#ifndef METADATA_LEDGER_IMPL_H
#define METADATA_LEDGER_IMPL_H

#include "metadata/ledger.h"

/* ---- bytes on the disk (ledger_record.c) ---- */

enum {
    LEDGER_BLOCK_BYTES = LEDGER_RECORD_ALIGNMENT,
    LEDGER_HEADER_BYTES = 128, /* of a record; the batch follows */
    LEDGER_RING_START = LEDGER_BLOCK_BYTES, /* of the area: behind the first ring header */
    LEDGER_RESERVE_BLOCKS = LEDGER_COPIES_MAX - 1, /* so many copies can be dropped: L4 */
};

/* The copies that are current, by their disks. */
struct ledger_members {
    uint32_t count;
    uint16_t disks[LEDGER_COPIES_MAX];
};

/* Says what ring the records of a copy belong to. In the first and the last block of its area. */
struct ledger_ring {
    uint8_t pool_guid[GUID_BYTES];
    uint8_t ring_guid[GUID_BYTES]; /* random: records of an older ring never match */
    uint64_t format_number;        /* the highest rules */
    uint64_t incarnation;
    uint64_t base_commit;
    uint64_t ring_bytes;
    struct ledger_members members;
    uint32_t crc; /* of the encoded block: what the first record points back to */
};

void ledger_ring_encode(struct ledger_ring *ring, uint8_t block[static LEDGER_BLOCK_BYTES]);
/* 0, -ENOENT (none) or -EBADMSG. */
int ledger_ring_decode(const uint8_t block[static LEDGER_BLOCK_BYTES],
                       struct ledger_ring *ret_ring);

enum ledger_record_kind {
    LEDGER_RECORD_COMMIT = 1,  /* carries a batch */
    LEDGER_RECORD_MEMBERS = 2, /* carries none: who is current has changed */
};

struct ledger_header {
    uint8_t pool_guid[GUID_BYTES];
    uint8_t ring_guid[GUID_BYTES];
    uint64_t sequence; /* of records in the ring; the first is 1 */
    uint64_t commit;   /* MEMBERS: of the record before */
    uint64_t incarnation;
    uint64_t first_sequence; /* oldest record that was not released when this one was written */
    uint32_t previous_crc;   /* header_crc of the record before (L2) */
    uint32_t payload_bytes;
    uint32_t payload_crc;
    uint8_t kind;
    struct ledger_members members;
    uint32_t header_crc; /* covers payload_crc, and so the batch */
};

void ledger_header_encode(struct ledger_header *header, uint8_t to[static LEDGER_HEADER_BYTES]);
/* 0, -ENOENT (none) or -EBADMSG. */
int ledger_header_decode(const uint8_t from[static LEDGER_HEADER_BYTES],
                         struct ledger_header *ret_header);
uint64_t ledger_record_bytes(uint32_t payload_bytes);

/* ---- memory ---- */

/* Aligned memory that several transfers may use; a copy that is late keeps its reference. */
struct ledger_buffer {
    uint32_t references;
    size_t length_bytes;
    uint8_t *data;
};

struct ledger_buffer *ledger_buffer_create(size_t length_bytes);
void ledger_buffer_release(struct ledger_buffer *buffer);

/* A record of the run. Sequences are consecutive: entry n has the first sequence plus n. */
struct ledger_entry {
    uint64_t commit;
    uint64_t offset_bytes; /* in the ring */
    uint32_t payload_bytes;
    uint32_t header_crc;
    uint32_t good_copies; /* that have it whole */
    uint8_t kind;
};

struct ledger_entries {
    struct ledger_entry *ring; /* `capacity` of them, a power of two */
    uint32_t capacity;
    uint32_t first;
    uint32_t count;
    uint64_t first_sequence;
};

struct ledger_entry *ledger_entry_at(const struct ledger_entries *entries, uint32_t number);
void ledger_entries_push(struct ledger_entries *entries, const struct ledger_entry *entry);
void ledger_entries_pop(struct ledger_entries *entries);

/* ---- one transfer per copy ---- */

struct ledger_copy;
typedef void ledger_io_fn(struct ledger_copy *copy, int32_t result);

struct ledger_copy {
    struct ledger *ledger; /* NULL: it was destroyed while this transfer was late */
    struct ledger_copy_options options;
    uint32_t number;
    struct backend_io io;
    struct iovec iov;
    struct ledger_buffer *buffer; /* of the transfer in flight */
    bool in_flight;
    bool detached; /* nobody waits for it any more */
    ledger_io_fn *done;
};

struct ledger {
    struct reactor *reactor;
    struct ledger_options options;
    struct ledger_copy *copies[LEDGER_COPIES_MAX]; /* each its own: may outlive the ledger */
    uint64_t area_bytes;                           /* of the smallest copy, whole blocks */

    bool is_ready; /* append may follow */
    bool is_busy;  /* one operation at a time */
    struct ledger_ring ring;
    struct ledger_entries entries;
    uint64_t next_sequence;
    uint64_t next_offset_bytes;
    uint64_t last_commit;
    uint64_t released; /* commits up to it need not be kept */
    uint32_t last_crc;
    uint32_t current; /* bit per copy */

    void *driver; /* of the format or scan in progress */

    /* Append in progress (ledger_append.c). */
    struct ledger_append *append;
    struct ledger_buffer *record;
    struct ledger_entry record_entry;
    bool record_is_members;
    uint32_t waiting; /* bit per copy */
    uint32_t succeeded;
    struct timer late_timer;
    bool heal_wanted; /* some current copy lacks records of the run */
    uint32_t heal_number;
};

static inline uint32_t
ledger_bit(const struct ledger_copy *copy)
{
    return 1u << copy->number;
}

static inline uint32_t
ledger_all_copies(const struct ledger *ledger)
{
    return (1u << ledger->options.copy_count) - 1;
}

/*
 * Start a transfer of `length_bytes` at `offset_bytes` of the copy's area; takes its own reference
 * to `buffer` (ALLOCATE has none). done() comes later, unless the copy has been detached.
 */
void ledger_io_start(struct ledger_copy *copy, enum backend_io_kind kind, uint64_t offset_bytes,
                     struct ledger_buffer *buffer, size_t length_bytes, ledger_io_fn *done);
/* Stop waiting for the transfer in flight; its memory stays until the backend gives it back. */
void ledger_io_detach(struct ledger_copy *copy);

/* Copies among `members`, as bits. */
uint32_t ledger_members_mask(const struct ledger *ledger, const struct ledger_members *members);
void ledger_members_fill(const struct ledger *ledger, uint32_t mask,
                         struct ledger_members *ret_members);
/* Where in a copy's area its second ring header is. */
uint64_t ledger_second_ring_header(const struct ledger_copy *copy);
/* Room for a record of so many bytes and then the reserve; false: none (L3). */
bool ledger_place(const struct ledger *ledger, uint64_t record_bytes, bool use_reserve,
                  uint64_t *ret_offset_bytes);
/* Let go of records that have been released. Nothing counts through the entries meanwhile. */
void ledger_trim(struct ledger *ledger);
/* Forget the run, and be not ready. */
void ledger_reset(struct ledger *ledger);

#endif
