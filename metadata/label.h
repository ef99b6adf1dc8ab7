/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk labels: what makes a device a disk of a pool.
 *
 * THEORY OF OPERATION
 *
 * A label is one 4 KiB block with a CRC. It is kept at two places, the first 64 KiB and the last
 * 64 KiB of the disk; each place has LABEL_SLOTS blocks that are written in turn (generation modulo
 * LABEL_SLOTS), and the second place is written after the first is durable. So a torn or lost write
 * leaves the label of the generation before, and the newest valid one of all slots rules.
 *
 *     0        64 KiB       ledger_start                data_start                 size - 64 KiB
 *     | labels | (reserved) | ledger (some disks)  ...  | slot 0 | slot 1 | ...  | labels |
 *
 * The label is self-sufficient for `pool import`: it names every disk of the pool, and where the
 * newest two checkpoints begin.
 */
#ifndef METADATA_LABEL_H
#define METADATA_LABEL_H

#include "backends/backend.h"
#include "metadata/schema.h"

enum {
    LABEL_BYTES = 4096,
    LABEL_SLOTS = 4,
    LABEL_PLACE_BYTES = 64 << 10,
    LABEL_VERSION = 1,
    LABEL_DISKS_MAX = 128, /* named in one label; a larger pool names its ledger disks first */
};

struct label_checkpoint {
    uint64_t commit; /* 0: none */
    uint64_t length_bytes;
    struct extent_place first; /* of the chain, on a disk with the index `first.disk` */
};

struct label_disk {
    uint16_t index;
    uint8_t guid[GUID_BYTES];
};

struct label {
    uint64_t generation; /* raised with each write of this disk's label */
    uint8_t pool_guid[GUID_BYTES];
    uint8_t disk_guid[GUID_BYTES];
    char pool_name[NAME_BYTES_MAX + 1];
    uint16_t disk_index;
    uint16_t tier;
    uint64_t incarnation; /* of the pool; raised in all labels with each open */
    uint64_t extent_bytes;
    uint64_t size_bytes;
    uint64_t data_start_bytes;
    uint32_t slot_count;
    uint64_t ledger_start_bytes;
    uint64_t ledger_length_bytes; /* 0: none on this disk */
    bool ledger_current;          /* false: dropped; its records must not be believed */
    struct label_checkpoint checkpoints[2];
    /* Multi-host check: who has the pool open, and when it was last seen alive. */
    uint8_t host_guid[GUID_BYTES];
    uint64_t heartbeat;
    bool open;
    uint32_t disk_count;
    struct label_disk disks[LABEL_DISKS_MAX];
};

/* Geometry for a new disk. -ENOSPC when it is too small for one extent besides the areas. */
int label_layout(uint64_t size_bytes, uint64_t extent_bytes, bool with_ledger,
                 struct label *label);

void label_encode(const struct label *label, uint8_t block[static LABEL_BYTES]);
/* 0; -ENOENT: no label of ours; -EBADMSG: ours but damaged; -EPROTO: of a newer version. */
int label_decode(const uint8_t block[static LABEL_BYTES], struct label *ret_label);

/* What else may be on a disk; for the refusal without --force. */
struct foreign_content {
    bool found;
    char what[128]; /* "an ext4 file system", "a GPT partition table", "a label of pool `x`" */
};

/*
 * Asynchronous; on a reactor. Reads all slots of both places and looks for foreign content
 * (file systems, partition tables, LVM, MD, LUKS, ZFS and others by their signatures).
 */
struct label_read {
    /* 0, -ENOENT, -EBADMSG (only damaged ones found), -EPROTO (one of a newer version found; older
     * ones beside it do not count), -EIO */
    struct io_op op;
    struct backend *backend;
    struct label ret_label;
    struct foreign_content ret_foreign;
    uint32_t ret_damaged_slots;
    /* Its own. */
    struct backend_io io;
    struct iovec iov;
    uint8_t *memory;
    uint32_t step;
    bool failed; /* one end could not be read */
    bool newer;  /* some slot holds a label of a newer version */
};
void label_read(struct label_read *read);

/*
 * Asynchronous; on a reactor. Writes the next slot of each place: first place, flush, second place,
 * flush. `label.generation` is raised by the call. Result 0 or -errno; after a failure at least one
 * older generation is still readable.
 *
 * The newest generation rules, whatever pool it names: a disk that is taken over from another pool
 * is wiped first, or its first label starts from the generation that label_read() found.
 */
struct label_write {
    struct io_op op;
    struct backend *backend;
    struct label *label; /* may be NULL with `wipe`: the places are found by the backend's size */
    bool wipe; /* overwrite both places with zeroes instead (disk remove; before a first label) */
    struct backend_io io;
    struct iovec iov;
    uint8_t *memory;
    uint32_t step;
};
void label_write(struct label_write *write);

#endif
