/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done between the login of a session and its first I/O: one command for each phase, in
 * the order of LUN_PHASES. The answers are foreign bytes: every field is looked at only as far as
 * the target has sent it, and none is asserted on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "backends/guard.h"
#include "backends/iscsi_impl.h"
#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/util.h"

enum {
    REPEATS_MAX = 64,
    VPD_DATA_BYTES = 1024,
    INQUIRY_DATA_BYTES = 96,
    CAPACITY_DATA_BYTES = 32,
    MODE_DATA_BYTES = 192,
    REGISTER_DATA_BYTES = 24,
    TRANSFER_BYTES_DEFAULT = 1 << 20,
    TRANSFER_BYTES_MAX = 4 << 20,
    RANGE_BYTES_DEFAULT = 32 << 20,
    ASC_INVALID_OPCODE = 0x20,
    ASC_CONDITIONS_CHANGED = 0x3f,
};

static const uint64_t range_bytes_max = 1 * GIB;

/* One phase. `start` sends its command or skips; `finish` looks at a good answer. */
struct setup_phase {
    enum lun_step (*start)(struct lun_disk *disk);
    enum lun_step (*finish)(struct lun_disk *disk);
    bool optional; /* a target that refuses the command may do without */
};

static enum lun_step
attempt_failed(struct lun_disk *disk, int code, const char *what)
{
    error_set(&disk->failure, code, "%s", what);
    return LUN_STEP_FAIL;
}

/* Send the command of a phase. `receive_bytes` of answer go to disk->data. */
static enum lun_step
send(struct lun_disk *disk, const uint8_t *cdb, size_t cdb_bytes, uint32_t receive_bytes)
{
    struct lun_slot *slot = disk->setup_slot;
    ASSERT_OP(receive_bytes, <=, (uint32_t)LUN_DATA_SIZE);

    memset(disk->data, 0, LUN_DATA_SIZE);
    disk->data_bytes = 0;
    slot->iov[0] = (struct scsi_iovec){ .iov_base = disk->data, .iov_len = receive_bytes };
    if (!lun_send(slot, cdb, cdb_bytes, receive_bytes > 0 ? SCSI_XFER_READ : SCSI_XFER_NONE,
                  receive_bytes, receive_bytes > 0 ? 1 : 0)) {
        return attempt_failed(disk, -EIO, "libiscsi does not take a command");
    }
    return LUN_STEP_WAIT;
}

static enum lun_step
send_inquiry(struct lun_disk *disk, bool vital_product_data, uint8_t page, uint16_t receive_bytes)
{
    uint8_t cdb[6] = { SCSI_OPCODE_INQUIRY, vital_product_data ? 1 : 0, page };
    put_be16(&cdb[3], receive_bytes);
    return send(disk, cdb, sizeof(cdb), receive_bytes);
}

/* Bytes of a vital product data page that are there, header included; 0: not this page. */
static size_t
page_bytes(const struct lun_disk *disk, uint8_t page)
{
    if (disk->data_bytes < 4 || disk->data[1] != page) {
        return 0;
    }
    return MIN(disk->data_bytes, (size_t)4 + get_be16(&disk->data[2]));
}

/* ---- attention, reset, settle ---- */

static enum lun_step
attention_start(struct lun_disk *disk)
{
    const uint8_t cdb[6] = { SCSI_OPCODE_TESTUNITREADY };
    return send(disk, cdb, sizeof(cdb), 0);
}

static enum lun_step
attention_finish(struct lun_disk *disk)
{
    (void)disk; /* every unit attention on the way here has been repeated away */
    return LUN_STEP_NEXT;
}

static void
reset_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct lun_disk *disk = private_data;
    (void)iscsi;
    if (disk->destroying) {
        return;
    }
    disk->answered = true;
    disk->answer = (struct lun_answer){ .status = status };
    disk->data_bytes = 0;
    if (status == SCSI_STATUS_GOOD && command_data != NULL) {
        uint32_t response = *(const uint32_t *)command_data;
        memcpy(disk->data, &response, sizeof(response));
        disk->data_bytes = sizeof(response);
    }
}

static enum lun_step
reset_start(struct lun_disk *disk)
{
    if (disk->is_probe) {
        return LUN_STEP_NEXT;
    }
    if (iscsi_task_mgmt_lun_reset_async(disk->context, disk->location.lun, reset_done, disk) != 0) {
        return attempt_failed(disk, -EIO, "libiscsi does not take a LOGICAL UNIT RESET");
    }
    return LUN_STEP_WAIT;
}

static enum lun_step
reset_finish(struct lun_disk *disk)
{
    uint32_t response = UINT32_MAX;
    if (disk->data_bytes == sizeof(response)) {
        memcpy(&response, disk->data, sizeof(response));
    }
    if (response != ISCSI_TMR_FUNC_COMPLETE) {
        error_set(&disk->failure, -EOPNOTSUPP,
                  "the target does not do a LOGICAL UNIT RESET (response %d); without it nothing "
                  "proves that commands of a lost session are over",
                  (int)response);
        return LUN_STEP_FAIL;
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
settle_start(struct lun_disk *disk)
{
    return disk->is_probe ? LUN_STEP_NEXT : attention_start(disk);
}

/* ---- what it is ---- */

static enum lun_step
inquiry_start(struct lun_disk *disk)
{
    return send_inquiry(disk, false, 0, INQUIRY_DATA_BYTES);
}

static enum lun_step
inquiry_finish(struct lun_disk *disk)
{
    if (disk->data_bytes < 5) {
        return attempt_failed(disk, -EIO, "the target answers INQUIRY with too few bytes");
    }
    if (disk->data[0] >> 5 != SCSI_INQUIRY_PERIPHERAL_QUALIFIER_CONNECTED) {
        error_set(&disk->failure, -ENODEV, "the target has no LUN %u", disk->location.lun);
        return LUN_STEP_FAIL;
    }
    if ((disk->data[0] & 0x1f) != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS) {
        error_set(&disk->failure, -ENODEV, "LUN %u is not a disk (device type %u)",
                  disk->location.lun, disk->data[0] & 0x1fu);
        return LUN_STEP_FAIL;
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
identity_start(struct lun_disk *disk)
{
    disk->facts.identity = 0;
    return send_inquiry(disk, true, SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION, VPD_DATA_BYTES);
}

/* A hash of the designators that name the unit, whatever their order. 0: there are none. */
static uint64_t
hash_designators(const uint8_t *page, size_t bytes)
{
    uint64_t sum = 0;
    size_t at = 4;

    while (at + 4 <= bytes && at + 4 + page[at + 3] <= bytes) {
        const uint8_t *designator = &page[at];
        uint8_t association = (designator[1] >> 4) & 3;
        uint8_t type = designator[1] & 0x0f;
        bool names_unit = type == SCSI_DESIGNATOR_TYPE_T10_VENDORT_ID ||
                          type == SCSI_DESIGNATOR_TYPE_EUI_64 || type == SCSI_DESIGNATOR_TYPE_NAA ||
                          type == SCSI_DESIGNATOR_TYPE_SCSI_NAME_STRING;
        if (association == SCSI_ASSOCIATION_LOGICAL_UNIT && names_unit) {
            uint64_t hash = hash_u64(1u + type);
            for (size_t i = 0; i < designator[3]; i++) {
                hash = hash_u64(hash ^ designator[4 + i]);
            }
            sum += hash | 1;
        }
        at += 4 + (size_t)designator[3];
    }
    return sum;
}

static enum lun_step
identity_finish(struct lun_disk *disk)
{
    size_t bytes = page_bytes(disk, SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION);
    disk->facts.identity = hash_designators(disk->data, bytes);
    if (disk->identity != 0 && disk->facts.identity != disk->identity) {
        return attempt_failed(disk, -EIO,
                              "another disk answers at this LUN now; it is not touched until the "
                              "first one is back");
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
capacity_start(struct lun_disk *disk)
{
    uint8_t long_cdb[16] = { SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_READCAPACITY16 };
    uint8_t short_cdb[10] = { SCSI_OPCODE_READCAPACITY10 };
    put_be32(&long_cdb[10], CAPACITY_DATA_BYTES);
    /* The second time: a target that does not know the long form has small disks only. */
    if (disk->facts.capacity_blocks == UINT64_MAX) {
        return send(disk, short_cdb, sizeof(short_cdb), 8);
    }
    return send(disk, long_cdb, sizeof(long_cdb), CAPACITY_DATA_BYTES);
}

static enum lun_step
check_capacity(struct lun_disk *disk)
{
    struct lun_facts *facts = &disk->facts;
    if (facts->block_bytes != 512 && facts->block_bytes != 4096) {
        error_set(&disk->failure, -EINVAL,
                  "LUN %u has blocks of %u bytes; only 512 and 4096 are supported",
                  disk->location.lun, facts->block_bytes);
        return LUN_STEP_FAIL;
    }
    if (facts->capacity_blocks == 0 || facts->capacity_blocks > INT64_MAX / facts->block_bytes) {
        return attempt_failed(disk, -EINVAL, "the LUN tells no usable size");
    }
    if (disk->backend != NULL && disk->ever_ready &&
        (facts->block_bytes != disk->backend->properties.block_bytes ||
         facts->capacity_blocks * facts->block_bytes < backend_size_bytes(disk->backend))) {
        return attempt_failed(disk, -EIO, "the LUN has shrunk, or has other blocks than before");
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
capacity_finish(struct lun_disk *disk)
{
    struct lun_facts *facts = &disk->facts;
    bool was_short = facts->capacity_blocks == UINT64_MAX;

    facts->capacity_blocks = 0;
    facts->thin = false;
    facts->reads_zero_after_unmap = false;
    if (was_short && disk->data_bytes >= 8) {
        facts->capacity_blocks = (uint64_t)get_be32(&disk->data[0]) + 1;
        facts->block_bytes = get_be32(&disk->data[4]);
        facts->physical_block_bytes = facts->block_bytes;
    } else if (!was_short && disk->data_bytes >= 15) {
        uint64_t last_block = get_be64(&disk->data[0]);
        facts->capacity_blocks = last_block < UINT64_MAX ? last_block + 1 : 0;
        facts->block_bytes = get_be32(&disk->data[8]);
        uint32_t exponent = MIN(disk->data[13] & 0x0fu, 6u);
        facts->physical_block_bytes =
            (uint32_t)MIN((uint64_t)facts->block_bytes << exponent, 64 * KIB);
        facts->thin = (disk->data[14] & 0x80) != 0;
        facts->reads_zero_after_unmap = (disk->data[14] & 0x40) != 0;
    }
    return check_capacity(disk);
}

/* ---- what it can do ---- */

static enum lun_step
limits_start(struct lun_disk *disk)
{
    struct lun_facts *facts = &disk->facts;
    facts->transfer_bytes_max = TRANSFER_BYTES_DEFAULT;
    facts->unmap_blocks_max = RANGE_BYTES_DEFAULT / facts->block_bytes;
    facts->write_same_blocks_max = RANGE_BYTES_DEFAULT / facts->block_bytes;
    facts->unmap_granularity_blocks = 1;
    return send_inquiry(disk, true, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, VPD_DATA_BYTES);
}

static enum lun_step
limits_finish(struct lun_disk *disk)
{
    struct lun_facts *facts = &disk->facts;
    size_t bytes = page_bytes(disk, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS);
    uint64_t range_blocks_max = range_bytes_max / facts->block_bytes;

    if (bytes >= 12) {
        uint64_t blocks = get_be32(&disk->data[8]);
        if (blocks > 0) {
            facts->transfer_bytes_max =
                MIN(blocks * facts->block_bytes, (uint64_t)TRANSFER_BYTES_MAX);
        }
    }
    if (bytes >= 32) {
        uint64_t blocks = get_be32(&disk->data[20]);
        uint64_t descriptors = get_be32(&disk->data[24]);
        facts->unmap_blocks_max = descriptors > 0 ? MIN(blocks, range_blocks_max) : 0;
        facts->unmap_granularity_blocks = MAX(get_be32(&disk->data[28]), 1u);
    }
    if (bytes >= 44) {
        uint64_t blocks = get_be64(&disk->data[36]);
        if (blocks > 0) {
            facts->write_same_blocks_max = MIN(blocks, range_blocks_max);
        }
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
medium_start(struct lun_disk *disk)
{
    disk->facts.rotational = true;
    return send_inquiry(disk, true, SCSI_INQUIRY_PAGECODE_BLOCK_DEVICE_CHARACTERISTICS,
                        VPD_DATA_BYTES);
}

static enum lun_step
medium_finish(struct lun_disk *disk)
{
    /* 1: not rotating. 0: not told; an array is treated as disks then. */
    if (page_bytes(disk, SCSI_INQUIRY_PAGECODE_BLOCK_DEVICE_CHARACTERISTICS) >= 6) {
        disk->facts.rotational = get_be16(&disk->data[4]) != 1;
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
provisioning_start(struct lun_disk *disk)
{
    disk->facts.unmap = false;
    disk->facts.write_same_unmap = false;
    if (!disk->facts.thin) {
        return LUN_STEP_NEXT;
    }
    return send_inquiry(disk, true, SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING,
                        VPD_DATA_BYTES);
}

static enum lun_step
provisioning_finish(struct lun_disk *disk)
{
    if (page_bytes(disk, SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING) >= 6) {
        disk->facts.unmap = (disk->data[5] & 0x80) != 0 && disk->facts.unmap_blocks_max > 0;
        disk->facts.write_same_unmap = (disk->data[5] & 0x40) != 0;
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
mode_start(struct lun_disk *disk)
{
    const uint8_t cdb[6] = { SCSI_OPCODE_MODESENSE6, 0x08, 0x3f, 0, MODE_DATA_BYTES };
    disk->facts.write_protected = false;
    disk->facts.fua = false;
    return send(disk, cdb, sizeof(cdb), MODE_DATA_BYTES);
}

static enum lun_step
mode_finish(struct lun_disk *disk)
{
    if (disk->data_bytes >= 4) {
        disk->facts.write_protected = (disk->data[2] & 0x80) != 0;
        disk->facts.fua = (disk->data[2] & 0x10) != 0;
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
cache_start(struct lun_disk *disk)
{
    const uint8_t cdb[10] = { SCSI_OPCODE_SYNCHRONIZECACHE10 };
    if (disk->is_probe || disk->ever_ready || disk->facts.write_protected) {
        return LUN_STEP_NEXT;
    }
    return send(disk, cdb, sizeof(cdb), 0);
}

static enum lun_step
cache_finish(struct lun_disk *disk)
{
    (void)disk; /* refusal ends the attempt: what cannot be flushed cannot be a disk */
    return LUN_STEP_NEXT;
}

/* ---- the witness ---- */

static enum lun_step
keys_start(struct lun_disk *disk)
{
    uint8_t cdb[10] = { SCSI_OPCODE_PERSISTENT_RESERVE_IN, SCSI_PERSISTENT_RESERVE_READ_KEYS };
    disk->witness_found = false;
    disk->witness_useful = false;
    if (disk->is_probe) {
        return LUN_STEP_NEXT;
    }
    put_be16(&cdb[7], LUN_DATA_SIZE);
    return send(disk, cdb, sizeof(cdb), LUN_DATA_SIZE);
}

static enum lun_step
keys_finish(struct lun_disk *disk)
{
    if (disk->data_bytes < 8) {
        return LUN_STEP_NEXT;
    }
    size_t end = MIN(disk->data_bytes, (size_t)8 + get_be32(&disk->data[4]));
    for (size_t at = 8; at + 8 <= end; at += 8) {
        disk->witness_found |= get_be64(&disk->data[at]) == disk->witness_key;
    }
    return LUN_STEP_NEXT;
}

static enum lun_step
register_start(struct lun_disk *disk)
{
    struct lun_slot *slot = disk->setup_slot;
    uint8_t cdb[10] = {
        SCSI_OPCODE_PERSISTENT_RESERVE_OUT,
        SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY,
    };
    if (disk->is_probe || disk->witness_found || disk->facts.write_protected) {
        return LUN_STEP_NEXT;
    }
    _Static_assert((int)REGISTER_DATA_BYTES <= (int)LUN_PARAMETER_SIZE, "fits into the slot");
    put_be32(&cdb[5], REGISTER_DATA_BYTES);
    memset(slot->parameter, 0, sizeof(slot->parameter));
    put_be64(&slot->parameter[8], disk->witness_key); /* APTPL stays 0: gone with the power */
    slot->iov[0] = (struct scsi_iovec){
        .iov_base = slot->parameter,
        .iov_len = REGISTER_DATA_BYTES,
    };
    if (!lun_send(slot, cdb, sizeof(cdb), SCSI_XFER_WRITE, REGISTER_DATA_BYTES, 1)) {
        return attempt_failed(disk, -EIO, "libiscsi does not take a command");
    }
    return LUN_STEP_WAIT;
}

static enum lun_step
register_finish(struct lun_disk *disk)
{
    disk->witness_useful = true;
    return LUN_STEP_NEXT;
}

static enum lun_step
persistence_start(struct lun_disk *disk)
{
    uint8_t cdb[10] = {
        SCSI_OPCODE_PERSISTENT_RESERVE_IN,
        SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES,
    };
    if (!disk->witness_found && !disk->witness_useful) {
        return LUN_STEP_NEXT; /* the target has no registrations, or refused ours */
    }
    disk->witness_useful = false;
    put_be16(&cdb[7], 8);
    return send(disk, cdb, sizeof(cdb), 8);
}

static enum lun_step
persistence_finish(struct lun_disk *disk)
{
    /* PTPL_A: registrations are kept through a power loss; then they prove nothing. */
    disk->witness_useful = disk->data_bytes >= 4 && (disk->data[3] & 0x01) == 0;
    return LUN_STEP_NEXT;
}

/* ---- the table ---- */

static const struct setup_phase phases[LUN_PHASE_COUNT] = {
    [LUN_PHASE_ATTENTION] = { attention_start, attention_finish, false },
    [LUN_PHASE_INQUIRY] = { inquiry_start, inquiry_finish, false },
    [LUN_PHASE_IDENTITY] = { identity_start, identity_finish, true },
    [LUN_PHASE_RESET] = { reset_start, reset_finish, false },
    [LUN_PHASE_SETTLE] = { settle_start, attention_finish, false },
    [LUN_PHASE_CAPACITY] = { capacity_start, capacity_finish, false },
    [LUN_PHASE_LIMITS] = { limits_start, limits_finish, true },
    [LUN_PHASE_MEDIUM] = { medium_start, medium_finish, true },
    [LUN_PHASE_PROVISIONING] = { provisioning_start, provisioning_finish, true },
    [LUN_PHASE_MODE] = { mode_start, mode_finish, true },
    [LUN_PHASE_CACHE] = { cache_start, cache_finish, false },
    [LUN_PHASE_KEYS] = { keys_start, keys_finish, true },
    [LUN_PHASE_REGISTER] = { register_start, register_finish, true },
    [LUN_PHASE_PERSISTENCE] = { persistence_start, persistence_finish, true },
};

const char *
lun_phase_name(enum lun_phase phase)
{
    static const char *const names[LUN_PHASE_COUNT] = {
#define LUN_PHASE_TEXT(name, text) [LUN_PHASE_##name] = text,
        LUN_PHASES(LUN_PHASE_TEXT)
#undef LUN_PHASE_TEXT
    };
    ASSERT_OP((uint32_t)phase, <, (uint32_t)LUN_PHASE_COUNT);
    return names[phase];
}

enum lun_step
lun_setup_start(struct lun_disk *disk)
{
    ASSERT(disk->phase > LUN_PHASE_LOGIN && disk->phase < LUN_PHASE_READY);
    ASSERT(phases[disk->phase].start != NULL);
    disk->answered = false;
    return phases[disk->phase].start(disk);
}

static enum lun_step
setup_refused(struct lun_disk *disk, int32_t code)
{
    const struct lun_answer *answer = &disk->answer;
    if (disk->phase == LUN_PHASE_CAPACITY && disk->facts.capacity_blocks != UINT64_MAX &&
        code == -EOPNOTSUPP) {
        disk->facts.capacity_blocks = UINT64_MAX;
        return LUN_STEP_REPEAT; /* with the short form */
    }
    if (phases[disk->phase].optional && code == -EOPNOTSUPP) {
        return disk->phase == LUN_PHASE_IDENTITY ? identity_finish(disk) : LUN_STEP_NEXT;
    }
    if (code == -EBUSY && phases[disk->phase].optional) {
        return LUN_STEP_NEXT;
    }
    error_set(&disk->failure, code,
              "the target refuses a command of the %s phase (%s; sense %x/%04x)%s",
              lun_phase_name(disk->phase), error_name(code), answer->sense_key, answer->asc_ascq,
              code == -EBUSY ? "; another host has reserved the LUN" : "");
    return LUN_STEP_FAIL;
}

enum lun_step
lun_setup_finish(struct lun_disk *disk)
{
    int32_t code = 0;
    const struct lun_answer *answer = &disk->answer;
    ASSERT(disk->answered);
    ASSERT(phases[disk->phase].finish != NULL);

    bool attention = answer->status == SCSI_STATUS_CHECK_CONDITION &&
                     answer->sense_key == SCSI_SENSE_UNIT_ATTENTION;
    disk->answered = false;
    if (attention) {
        disk->evidence = MAX(disk->evidence, lun_evidence_of(answer));
        bool changed = answer->asc_ascq >> 8 == ASC_CONDITIONS_CHANGED;
        if (disk->repeats >= REPEATS_MAX || (changed && disk->phase > LUN_PHASE_IDENTITY)) {
            return attempt_failed(disk, -EIO, "the target reports changes without end");
        }
        return LUN_STEP_REPEAT;
    }
    switch (lun_judge(answer, &code)) {
    case LUN_DONE:
        return phases[disk->phase].finish(disk);
    case LUN_FAILED:
        return setup_refused(disk, code);
    case LUN_RETRY:
        return disk->repeats < REPEATS_MAX
                   ? LUN_STEP_REPEAT
                   : attempt_failed(disk, -EIO, "the target asks for endless repetition");
    case LUN_RETRY_LATER:
        return LUN_STEP_LATER;
    case LUN_RECOVER:
        break;
    }
    if (answer->status == SCSI_STATUS_CHECK_CONDITION) {
        error_set(&disk->failure, -ENODEV, "the target has no LUN %u (sense %x/%04x)",
                  disk->location.lun, answer->sense_key, answer->asc_ascq);
    } else {
        error_set(&disk->failure, -EIO, "the target drops a command of the %s phase (status %x)",
                  lun_phase_name(disk->phase), (unsigned)answer->status);
    }
    return LUN_STEP_FAIL;
}
