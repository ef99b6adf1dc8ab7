/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/metadata/private_doors.h"

#include <stdio.h>
#include <string.h>

#include "backends/iscsi_impl.h"
#include "base/assert.h"
#include "base/util.h"
#include "io/platform.h"
#include "volmgr/journal_impl.h"

_Static_assert((int)DOOR_RING_HEADER_BYTES == (int)JOURNAL_HEADER_BYTES, "the same ring");
_Static_assert((int)DOOR_RING_RECORD_BYTES == (int)JOURNAL_RECORD_BYTES, "the same ring");
_Static_assert(DOOR_RING_RECORDS % JOURNAL_SEGMENTS == 0, "all of it is used");

static struct journal_identity
ring_identity(void)
{
    struct journal_identity identity = { .incarnation = 3, .boot_id = "a-boot" };
    memset(identity.pool_guid, 7, GUID_BYTES);
    memset(identity.database_guid, 8, GUID_BYTES);
    memset(identity.ring_guid, 9, GUID_BYTES);
    return identity;
}

void
door_ring_name(char ret_name[static 96])
{
    struct journal_identity identity = ring_identity();
    journal_name(&identity, ret_name);
}

void
door_ring_record(uint64_t sequence, struct door_ring_record *ret_record)
{
    *ret_record = (struct door_ring_record){
        .sequence = sequence, .branch = 1 + sequence % 3, .batch = 1 + sequence / 8,
        .volume_grain = hash_u64(sequence) >> 40,
        .entry = { .home = 64 + sequence, .home_generation = 1,
                   .valid = (uint16_t)(hash_u64(sequence) | 1) },
    };
}

void
door_ring_build(struct platform *platform, uint64_t appended, uint64_t committed,
                uint8_t ret_bytes[static DOOR_RING_BYTES])
{
    struct journal_identity identity = ring_identity();
    struct journal journal;
    struct error error = { 0 };
    uint64_t done = 0;

    ASSERT(journal_create(&journal, platform, &identity, DOOR_RING_BYTES, &error) == 0);
    ASSERT(journal.capacity == DOOR_RING_RECORDS);
    for (uint64_t sequence = 0; sequence < appended; sequence++) {
        struct door_ring_record record;
        door_ring_record(sequence, &record);
        uint32_t segment = journal_append(&journal, record.branch, record.batch,
                                          record.volume_grain, &record.entry);
        if (done++ < committed) {
            journal_committed(&journal, segment, 1);
        }
    }
    memcpy(ret_bytes, journal.memory, DOOR_RING_BYTES);
    journal_close(&journal, &identity, true);
}

struct replay {
    door_ring_fn *each;
    void *context;
};

static int
replay_one(void *context, const struct journal_record *record)
{
    const struct replay *replay = context;
    const struct door_ring_record given = {
        .sequence = record->sequence, .branch = record->branch, .batch = record->batch,
        .volume_grain = record->volume_grain, .entry = record->entry,
    };
    return replay->each(replay->context, &given);
}

int
door_ring_replay(struct platform *platform, door_ring_fn *each, void *context, size_t *ret_fences,
                 struct error *error)
{
    struct journal_identity identity = ring_identity();
    struct replay replay = { each, context };
    struct byte_buffer fences = BYTE_BUFFER_INIT;
    int result = journal_replay(platform, &identity, DOOR_RING_BYTES, replay_one, &replay,
                                &fences, error);
    *ret_fences = fences.length_bytes / sizeof(uint64_t);
    (void)journal_is_fenced(&fences, 1);
    byte_buffer_free(&fences);
    return result;
}

int
door_iscsi_parse(const char *url, struct door_lun *ret_lun, struct error *error)
{
    struct lun_location location;
    int result = lun_location_parse(url, &location, error);
    if (result == 0) {
        snprintf(ret_lun->host, sizeof(ret_lun->host), "%s", location.host);
        snprintf(ret_lun->user, sizeof(ret_lun->user), "%s", location.user);
        snprintf(ret_lun->password, sizeof(ret_lun->password), "%s", location.password);
        snprintf(ret_lun->target_password, sizeof(ret_lun->target_password), "%s",
                 location.target_password);
    }
    return result;
}
