/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the answers of a SCSI target mean to us (SPC-4 4.5, SAM-5 5.3). Pure functions; foreign
 * bytes in, no assertion on them.
 */
#include <errno.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "backends/iscsi_impl.h"

enum {
    ASC_NOT_READY = 0x04,
    ASC_RESET_OCCURRED = 0x29,
    ASC_TARGET_CONDITIONS_CHANGED = 0x3f,
    ASC_MEDIUM_NOT_PRESENT = 0x3a,
    ASC_INVALID_OPCODE = 0x20,
    ASC_INVALID_FIELD_IN_CDB = 0x24,
    ASC_LUN_NOT_SUPPORTED = 0x25,
    ASC_INVALID_FIELD_IN_PARAMETERS = 0x26,
    ASCQ_MANUAL_INTERVENTION = 0x03,
    SPACE_ALLOCATION_FAILED = 0x2707, /* WRITE PROTECTED / SPACE ALLOCATION FAILED WRITE PROTECT */
};

static enum lun_verdict
fail(int32_t error, int32_t *ret_error)
{
    *ret_error = error;
    return LUN_FAILED;
}

static enum lun_verdict
judge_not_ready(uint8_t asc, uint8_t ascq, int32_t *ret_error)
{
    if (asc == ASC_MEDIUM_NOT_PRESENT ||
        (asc == ASC_NOT_READY && ascq == ASCQ_MANUAL_INTERVENTION)) {
        return fail(-EIO, ret_error);
    }
    return LUN_RETRY_LATER; /* becoming ready, changing controllers, standby */
}

static enum lun_verdict
judge_illegal_request(uint8_t asc, int32_t *ret_error)
{
    switch (asc) {
    case ASC_LUN_NOT_SUPPORTED:
        return LUN_RECOVER; /* it was there: find out whether it comes back */
    case ASC_INVALID_OPCODE:
    case ASC_INVALID_FIELD_IN_CDB:
    case ASC_INVALID_FIELD_IN_PARAMETERS:
        return fail(-EOPNOTSUPP, ret_error);
    default:
        return fail(-EIO, ret_error);
    }
}

static enum lun_verdict
judge_sense(const struct lun_answer *answer, int32_t *ret_error)
{
    uint8_t asc = (uint8_t)(answer->asc_ascq >> 8);
    uint8_t ascq = (uint8_t)answer->asc_ascq;

    if (answer->deferred) {
        return LUN_RETRY; /* about an earlier command; this one was not executed */
    }
    switch (answer->sense_key) {
    case SCSI_SENSE_NO_SENSE:
    case SCSI_SENSE_RECOVERED_ERROR:
        return LUN_DONE;
    case SCSI_SENSE_NOT_READY:
        return judge_not_ready(asc, ascq, ret_error);
    case SCSI_SENSE_ILLEGAL_REQUEST:
        return judge_illegal_request(asc, ret_error);
    case SCSI_SENSE_UNIT_ATTENTION:
        /* A reset ends commands in flight without a word; a changed inventory may mean that the
         * number belongs to another disk now. The rest (capacity, mode, thresholds) does not. */
        return asc == ASC_RESET_OCCURRED || asc == ASC_TARGET_CONDITIONS_CHANGED ? LUN_RECOVER
                                                                                 : LUN_RETRY;
    case SCSI_SENSE_DATA_PROTECTION:
        return fail(answer->asc_ascq == SPACE_ALLOCATION_FAILED ? -ENOSPC : -EROFS, ret_error);
    case 0x0b: /* ABORTED COMMAND */
        return LUN_RETRY_LATER;
    default:
        return fail(-EIO, ret_error); /* medium, hardware, and what we cannot make sense of */
    }
}

enum lun_verdict
lun_judge(const struct lun_answer *answer, int32_t *ret_error)
{
    switch (answer->status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        return LUN_DONE;
    case SCSI_STATUS_CHECK_CONDITION:
        return judge_sense(answer, ret_error);
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
        return LUN_RETRY_LATER;
    case SCSI_STATUS_RESERVATION_CONFLICT:
        return fail(-EBUSY, ret_error);
    default:
        return LUN_RECOVER; /* aborted by somebody, cancelled, or lost with the connection */
    }
}

enum lun_evidence
lun_evidence_of(const struct lun_answer *answer)
{
    if (answer->status != SCSI_STATUS_CHECK_CONDITION ||
        answer->sense_key != SCSI_SENSE_UNIT_ATTENTION) {
        return LUN_KEPT;
    }
    switch (answer->asc_ascq) {
    case 0x2901: /* POWER ON OCCURRED */
    case 0x2904: /* DEVICE INTERNAL RESET */
        return LUN_RESET;
    case 0x2900: /* POWER ON, RESET, OR BUS DEVICE RESET OCCURRED */
    case 0x2902: /* SCSI BUS RESET OCCURRED */
        return LUN_AMBIGUOUS;
    default: /* among them 29/03 (a logical unit reset) and 29/07 (the loss of our own session) */
        return LUN_KEPT;
    }
}

bool
lun_was_reset(enum lun_evidence evidence, bool witness_armed, bool witness_found)
{
    if (witness_armed && !witness_found) {
        return true; /* whatever the target says: its memory has been emptied */
    }
    return evidence == LUN_RESET || (evidence == LUN_AMBIGUOUS && !witness_armed);
}
