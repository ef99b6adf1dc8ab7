/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values of the metadata store: the one place that knows their bytes (docs/FORMAT.md).
 *
 * Keys: one type byte, then big-endian numbers. Values of the SYSTEM family are sequences of
 * {le16 tag, le16 length, bytes} fields, so that a field can be added without a new format; a
 * reader skips tags that it does not know, unless the tag's top bit (0x8000) says that it must not.
 * Values of EXTENT, MAP and HISTORY are packed. Decoders trust nothing (P12): -EUCLEAN.
 */
#ifndef METADATA_SCHEMA_H
#define METADATA_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "metadata/store.h"

enum {
    SCHEMA_VERSION = 1,

    GRAIN_BYTES = 64 << 10,
    GRAIN_SHIFT = 16,
    BLOCK_BYTES = 4096,
    BLOCK_SHIFT = 12,
    BLOCKS_PER_GRAIN = GRAIN_BYTES / BLOCK_BYTES,

    MAP_PAGE_ENTRIES = 512, /* 32 MiB of a volume */
    MAP_PAGE_SHIFT = GRAIN_SHIFT + 9,

    EXTENT_BYTES_MIN = 1 << 20,
    EXTENT_BYTES_MAX = 64 << 20,
    EXTENT_GRAINS_MAX = EXTENT_BYTES_MAX / GRAIN_BYTES,
    EXTENT_COPIES_MAX = 3,

    POOL_DISKS_MAX = 1024,
    NAME_BYTES_MAX = 127,      /* of a pool, volume, export; without the NUL */
    DISK_SPEC_BYTES_MAX = 1023,
    OVERLAY_KEY_BYTES_MAX = 255,
    GUID_BYTES = 16,
};

/* A grain's address in the pool: extent id * grains per extent + index. 0 is no grain. */
typedef uint64_t grain_address;
#define GRAIN_NONE UINT64_C(0)

/* ---- map entries (DESIGN: volume map) ---- */

struct map_entry {
    grain_address home; /* grain that the valid blocks are in, or GRAIN_NONE */
    grain_address base; /* older shared grain that supplies other blocks, or GRAIN_NONE */
    uint32_t home_generation;
    uint32_t base_generation;
    uint16_t valid; /* bit n: block n is in home */
    uint16_t zero;  /* bit n: block n reads as zeroes although base has bytes */
    uint16_t damaged; /* bit n: what block n held is lost: a medium error until it is rewritten */
    uint16_t copied;  /* bit n: block n was moved to the grain it is in, as it was */
};
_Static_assert(sizeof(struct map_entry) == 32, "two entries a cache line");

enum {
    MAP_ENTRY_ENCODED_BYTES = 32, /* the fields in their order, little-endian */
    MAP_DELTA_ENCODED_BYTES = 2 + MAP_ENTRY_ENCODED_BYTES, /* le16 index in front */
};

void map_entry_encode(const struct map_entry *entry, uint8_t to[static MAP_ENTRY_ENCODED_BYTES]);
/* -EUCLEAN when an invariant does not hold (valid and zero disjoint, zero needs a base, ...). */
int map_entry_decode(const uint8_t from[static MAP_ENTRY_ENCODED_BYTES],
                     struct map_entry *ret_entry);
bool map_entry_is_empty(const struct map_entry *entry);

/*
 * Its home was taken for a write that has not ended: no block is in it yet. Such a home is known to
 * the running daemon only, and never stored.
 */
static inline bool
map_entry_is_fresh(const struct map_entry *entry)
{
    return entry->home != GRAIN_NONE && entry->valid == 0;
}

/* A page: le32 CRC-32C of the rest, le16 count, then `count` deltas in order of index. */
void map_page_encode(const struct map_entry entries[static MAP_PAGE_ENTRIES],
                     struct byte_buffer *to);
/* `entries` is filled completely; `*ret_used` is the number that are not empty. */
int map_page_decode(const void *value, size_t value_bytes,
                    struct map_entry entries[static MAP_PAGE_ENTRIES], uint32_t *ret_used);
/* Merge operand: one or more deltas, back to back. An entry that is empty removes. */
void map_delta_append(struct byte_buffer *operand, uint32_t index, const struct map_entry *entry);

enum {
    MAP_KEY_BYTES = 24
};
/* MAP: be64 branch, be64 page, be64 generation. */
void map_key_encode(uint8_t key[static MAP_KEY_BYTES], uint64_t branch, uint64_t page,
                    uint64_t generation);
int map_key_decode(const uint8_t *key, size_t key_bytes, uint64_t *ret_branch, uint64_t *ret_page,
                   uint64_t *ret_generation);

/* ---- extents ---- */

struct extent_place {
    uint16_t disk;  /* index in the pool */
    uint32_t slot;  /* number of the extent-sized slot on that disk */
};

enum extent_state {
    EXTENT_STATE_DATA = 1,
    EXTENT_STATE_CHECKPOINT = 2, /* holds metadata, not grains */
};

struct extent_record {
    uint64_t owner_branch; /* 0: shared by several small branches */
    uint8_t state;
    uint8_t tier;
    uint8_t copy_count; /* 1 .. EXTENT_COPIES_MAX */
    struct extent_place places[EXTENT_COPIES_MAX];
    uint32_t heat;
    uint64_t used[EXTENT_GRAINS_MAX / 64]; /* bit n: grain n holds data of some map entry */
};

enum {
    EXTENT_KEY_BYTES = 8
};
void extent_key_encode(uint8_t key[static EXTENT_KEY_BYTES], uint64_t extent);
int extent_key_decode(const uint8_t *key, size_t key_bytes, uint64_t *ret_extent);
void extent_record_encode(const struct extent_record *record, uint32_t grains_per_extent,
                          struct byte_buffer *to);
int extent_record_decode(const void *value, size_t value_bytes, uint32_t grains_per_extent,
                         struct extent_record *ret_record);
/* Merge operand: set or clear the use bits of grains [first, first + count) of an extent. */
void extent_use_append(struct byte_buffer *operand, bool used, uint32_t first, uint32_t count);

/* ---- history: the times of page versions ---- */

enum history_record {
    HISTORY_LINK = 'L',    /* "L" be64 branch, be32 version, be32 previous, be64 page: no value */
    HISTORY_COUNTER = 'A', /* "A" be64 branch, be32 death, be32 birth */
};

/*
 * One for each stored page version, in the order in which versions supersede others. A version and
 * its link are written and removed by the same commit.
 */
struct history_link {
    uint64_t branch;
    uint32_t version;  /* number of the page version, which is its generation */
    uint32_t previous; /* the next older stored version of that page in the branch; 0: none */
    uint64_t page;
};

/* Counts grains by the generations in which they entered and left the head of a branch. */
struct history_counter {
    uint64_t branch;
    uint32_t death; /* HISTORY_FOREVER: entered, and not freed since */
    uint32_t birth;
};
#define HISTORY_FOREVER UINT32_MAX

enum {
    HISTORY_LINK_KEY_BYTES = 25,
    HISTORY_COUNTER_KEY_BYTES = 17,
};
void history_link_key_encode(uint8_t key[static HISTORY_LINK_KEY_BYTES],
                             const struct history_link *link);
/* -EUCLEAN also when `previous` is not older than the version. */
int history_link_key_decode(const uint8_t *key, size_t key_bytes, struct history_link *ret_link);
void history_counter_key_encode(uint8_t key[static HISTORY_COUNTER_KEY_BYTES],
                                const struct history_counter *counter);
/* -EUCLEAN also for a death that is not after the birth. */
int history_counter_key_decode(const uint8_t *key, size_t key_bytes,
                               struct history_counter *ret_counter);

/* Append to `batch`: a PUT or DELETE of the link; a MERGE that adds to the counter. */
void schema_put_link(struct byte_buffer *batch, const struct history_link *link);
void schema_delete_link(struct byte_buffer *batch, const struct history_link *link);
void schema_add_counter(struct byte_buffer *batch, const struct history_counter *counter,
                        int64_t added);
/* A counter of 0 has an empty value; it is the same as none. */
int schema_get_counter(const void *value, size_t value_bytes, int64_t *ret_count);

/* ---- SYSTEM records ---- */

/* A reader that does not know a type above SCHEMA_MUST_BE_KNOWN refuses the database. */
#define SCHEMA_MUST_BE_KNOWN 0x61 /* 'a' */

enum schema_record {
    SCHEMA_POOL = 'P',       /* "P" */
    SCHEMA_COMMIT = 'C',     /* "C": le64 pool-wide commit number; part of every commit */
    SCHEMA_DISK = 'D',       /* "D" be16 disk index */
    SCHEMA_VOLUME = 'V',     /* "V" be64 volume id */
    SCHEMA_BRANCH = 'B',     /* "B" be64 branch id */
    SCHEMA_POSITION = 'J',   /* "J" be64 branch id: struct branch_position */
    SCHEMA_EXPORT = 'X',     /* "X" be64 export id */
    SCHEMA_RUN = 'N',        /* "N": struct run_record */
    SCHEMA_CHECKPOINT = 'K', /* "K" u8 slot */
    SCHEMA_EVENT = 'E',      /* "E" be64 sequence: text of a past event */
    SCHEMA_SNAPSHOT = 'S',   /* "S" be64 branch id, be64 generation: struct snapshot_record */
    SCHEMA_POLICY = 'T',     /* "T" be64 volume id: struct policy_record */
};

struct pool_record {
    uint32_t schema_version;
    uint8_t pool_guid[GUID_BYTES];
    uint8_t database_guid[GUID_BYTES]; /* new with each rebuild of the database */
    char name[NAME_BYTES_MAX + 1];
    uint64_t extent_bytes;
    uint64_t incarnation; /* raised with each open */
    uint64_t next_branch; /* ids are never used again */
    uint64_t next_volume;
    uint64_t next_extent;
    uint64_t next_export;
    uint64_t created_realtime_ns;
    uint8_t warning_percent; /* thresholds of used space that raise events */
    uint8_t critical_percent;
    uint64_t last_snapshot; /* id of the newest snapshot; 0: there was none yet */
};

enum disk_state {
    DISK_STATE_ACTIVE = 1,
    DISK_STATE_MISSING = 2,
    DISK_STATE_FAILED = 3,
};

struct disk_record {
    uint16_t index;
    uint8_t state;
    uint8_t tier;
    uint8_t guid[GUID_BYTES];
    char spec[DISK_SPEC_BYTES_MAX + 1]; /* with what is needed to open it again */
    uint64_t size_bytes;
    uint64_t data_start_bytes; /* of slot 0 */
    uint32_t slot_count;
    uint64_t ledger_start_bytes; /* 0 length: no ledger on this disk */
    uint64_t ledger_length_bytes;
};

struct volume_record {
    uint64_t id;
    uint64_t branch; /* the line of history that the name stands for now */
    uint8_t guid[GUID_BYTES]; /* identity for hosts, for life */
    char name[NAME_BYTES_MAX + 1];
    uint64_t size_bytes;
    uint64_t reserve_bytes;
    uint32_t sector_bytes; /* 512 or 4096 */
    uint8_t copies;
    uint8_t tier; /* VOLUME_TIER_AUTO or a number */
    bool deleting; /* gone for users; its grains are being freed */
    bool fenced;   /* writes may be lost, and which ones is not known: no I/O until accepted */
    uint64_t created_realtime_ns;
    uint8_t kind; /* enum volume_kind */
    char overlay_key[OVERLAY_KEY_BYTES_MAX + 1]; /* whose private overlay it is; else empty */
};
enum {
    VOLUME_TIER_AUTO = 255
};
enum volume_kind {
    VOLUME_KIND_PLAIN = 0,
    VOLUME_KIND_EPHEMERAL = 1, /* what one session wrote over an export; gone with it */
    VOLUME_KIND_PRIVATE = 2,   /* what one host writes over an export; it finds it again */
};

struct branch_record {
    uint64_t id;
    uint64_t family;            /* id of the first branch of the family */
    uint64_t parent;            /* 0: none */
    /* Generations up to it belong to the parent; the next one is kept free for what makes a branch
     * independent, so that with a parent the first is fork_generation + 2. */
    uint64_t fork_generation;
    uint64_t current_generation;
    uint64_t volume;             /* whose head it is or was; 0: not recorded */
    uint64_t unclean_generation; /* current at the last open that followed no clean end; 0: none */
    uint8_t flags;               /* enum branch_flag */
};
enum branch_flag {
    BRANCH_HEADLESS = 1,  /* no volume stands for it; snapshots and clones may need it */
    BRANCH_COMPLETE = 2,  /* every page has a version: look-ups do not go on to the parent */
    BRANCH_CONTINUES = 4, /* owns what the parent owned: together they are one line */
    BRANCH_FLAGS = BRANCH_HEADLESS | BRANCH_COMPLETE | BRANCH_CONTINUES,
};

/* Rewritten by each commit that changes a branch's map. */
struct branch_position {
    uint64_t batch;         /* journal records of this branch up to this batch are committed */
    uint64_t mapped_grains; /* grains that its head names */
};

struct export_record {
    uint64_t id;
    uint64_t volume;
    char name[NAME_BYTES_MAX * 2 + 2]; /* "POOL/VOL" or as given */
    char protocol[16];                 /* "nbd", "iscsi" */
    bool read_only;
    bool exclusive;
    char options[512]; /* JSON object: what the protocol adds */
    uint64_t snapshot; /* id of the volume's snapshot that is exported; 0: the volume itself */
};

enum run_state {
    RUN_STATE_CLEAN = 1,
    RUN_STATE_OPEN = 2,
};

enum {
    RUN_RINGS_MAX = 64,
    RUN_RING_BYTES_MIN = 16 << 10,
    RUN_RING_BYTES_MAX = 1 << 30,
};

/* How the last run ended, and where its volatile journals are. */
struct run_record {
    uint8_t state;
    char boot_id[37];
    uint64_t incarnation;
    uint8_t ring_guid[GUID_BYTES];
    uint32_t ring_count; /* 0: it had none */
    uint64_t ring_bytes;
};

struct checkpoint_record {
    uint64_t commit; /* state of the database after this commit */
    uint64_t length_bytes;
    uint32_t extent_count;
    uint64_t first_extent; /* the rest is chained inside the extents */
};

enum snapshot_state {
    SNAPSHOT_PENDING = 1,  /* the generation is being kept: it exists for nobody yet */
    SNAPSHOT_KEPT = 2,
    SNAPSHOT_HIDDEN = 3,   /* deleted, but clones need it; has no name */
    SNAPSHOT_DELETING = 4, /* what only it needed is being freed; has no name */
};

/* Of the generation of a branch that its key names. */
struct snapshot_record {
    uint64_t id;     /* never used again; not 0 */
    uint64_t volume; /* that it is listed under */
    uint8_t guid[GUID_BYTES];
    char name[NAME_BYTES_MAX + 1]; /* unique in its volume; empty: none */
    uint8_t state;
    uint64_t size_bytes;
    uint64_t mapped_grains; /* that it names */
    uint64_t created_realtime_ns;
    uint64_t expires_ns; /* by the pool's clock; until then nobody can delete it; 0: anybody can */
    uint8_t rules;       /* bit n: made for rule n of the volume's policy; 0: by hand */
    uint8_t group_guid[GUID_BYTES]; /* of those taken at one instant; zeroes: it was alone */
};

enum {
    POLICY_RULES_MAX = 8
};
struct policy_rule {
    uint64_t every_ns; /* 0: the rule is not in use, and the rest is 0 */
    uint64_t immutable_ns;
    uint32_t keep;
};
/* When snapshots of a volume are made and deleted. */
struct policy_record {
    struct policy_rule rules[POLICY_RULES_MAX];
};

/* Key builders; `key` has room for STORE_KEY_BYTES_MAX; return its length. */
uint32_t schema_key(uint8_t *key, enum schema_record record);
uint32_t schema_key_id(uint8_t *key, enum schema_record record, uint64_t id); /* be64 */
uint32_t schema_key_disk(uint8_t *key, uint16_t index);
uint32_t schema_key_snapshot(uint8_t *key, uint64_t branch, uint64_t generation);
/* -EUCLEAN when it is no key of a snapshot. */
int schema_snapshot_key_decode(const uint8_t *key, size_t key_bytes, uint64_t *ret_branch,
                               uint64_t *ret_generation);

/* Append a PUT of the record to `batch`. */
void schema_put_pool(struct byte_buffer *batch, const struct pool_record *record);
void schema_put_commit(struct byte_buffer *batch, uint64_t commit);
void schema_put_disk(struct byte_buffer *batch, const struct disk_record *record);
void schema_put_volume(struct byte_buffer *batch, const struct volume_record *record);
void schema_put_branch(struct byte_buffer *batch, const struct branch_record *record);
void schema_put_position(struct byte_buffer *batch, uint64_t branch,
                         const struct branch_position *position);
void schema_put_export(struct byte_buffer *batch, const struct export_record *record);
void schema_put_run(struct byte_buffer *batch, const struct run_record *record);
void schema_put_checkpoint(struct byte_buffer *batch, uint8_t slot,
                           const struct checkpoint_record *record);
void schema_put_snapshot(struct byte_buffer *batch, uint64_t branch, uint64_t generation,
                         const struct snapshot_record *record);
void schema_put_policy(struct byte_buffer *batch, uint64_t volume,
                       const struct policy_record *record);
void schema_put_extent(struct byte_buffer *batch, uint64_t extent,
                       const struct extent_record *record, uint32_t grains_per_extent);
void schema_delete_id(struct byte_buffer *batch, enum schema_record record, uint64_t id);

/* Decoders: 0 or -EUCLEAN; names come back NUL-terminated and printable. */
int schema_get_pool(const void *value, size_t value_bytes, struct pool_record *ret_record);
int schema_get_commit(const void *value, size_t value_bytes, uint64_t *ret_commit);
int schema_get_disk(const void *value, size_t value_bytes, struct disk_record *ret_record);
int schema_get_volume(const void *value, size_t value_bytes, struct volume_record *ret_record);
int schema_get_branch(const void *value, size_t value_bytes, struct branch_record *ret_record);
int schema_get_position(const void *value, size_t value_bytes,
                        struct branch_position *ret_position);
int schema_get_export(const void *value, size_t value_bytes, struct export_record *ret_record);
int schema_get_run(const void *value, size_t value_bytes, struct run_record *ret_record);
int schema_get_checkpoint(const void *value, size_t value_bytes,
                          struct checkpoint_record *ret_record);
int schema_get_snapshot(const void *value, size_t value_bytes,
                        struct snapshot_record *ret_record);
int schema_get_policy(const void *value, size_t value_bytes, struct policy_record *ret_record);

/* The store's merge function: MAP deltas, EXTENT use bits, HISTORY counters; store_merge_fn. */
int schema_merge(enum store_family family, const uint8_t *key, size_t key_bytes,
                 struct byte_buffer *value, const uint8_t *operand, size_t operand_bytes);

/* Volume, pool and export names: 1 to NAME_BYTES_MAX of [A-Za-z0-9._-], not beginning with '-' or
 * '.'. */
bool schema_name_is_valid(const char *name);

#endif
