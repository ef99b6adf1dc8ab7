/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are LUNs of a remote iSCSI target: the operations of a backend as SCSI commands. How
 * sessions come and go, and which promises hold across them, is in iscsi_session.c.
 *
 * All of it runs on the owner reactor (the guard forwards), except open, close and refresh. Refresh
 * uses a short session of its own, with another ISID, and never touches the one that carries I/O.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "backends/guard.h"
#include "backends/iscsi_impl.h"
#include "backends/registry.h"
#include "base/assert.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/size_text.h"
#include "base/util.h"

enum {
    RETRIES_MAX = 64,
    RETRIES_LATER_MAX = 600,
    UNMAP_PARAMETER_BYTES = 24,
    CDB_FUA = 0x08,
    CDB_WRITE_SAME_UNMAP = 0x08,
};

static const char iscsi_scheme[] = "iscsi://";
static const uint64_t open_timeout_ns = 20 * NS_PER_S;
static const uint64_t busy_pause_ns = 100 * NS_PER_MS;

/* The block that WRITE SAME repeats. */
static const uint8_t zero_block[4096] __attribute__((aligned(4096)));

static struct lun_driver *
driver_of(struct backend_io *io)
{
    return (struct lun_driver *)io->driver;
}

static struct backend_io *
io_of(struct lun_driver *driver)
{
    return container_of((void *)driver, struct backend_io, driver);
}

/* ---- slots ---- */

void
lun_slot_release(struct lun_slot *slot)
{
    if (slot->task != NULL) {
        scsi_free_scsi_task(slot->task); /* its session ended without an answer */
        slot->task = NULL;
    }
    slot->io = NULL;
    if (slot != slot->disk->setup_slot) {
        list_remove(&slot->link);
        list_push_back(&slot->disk->free_slots, &slot->link);
    }
}

static void
finish(struct lun_slot *slot, int32_t result)
{
    struct backend_io *io = slot->io;
    lun_slot_release(slot);
    /* Queued, not called: we are inside libiscsi, and done() may close the disk (L9). */
    reactor_complete(&io->op, result);
}

/* Back to pending, to be sent once more. */
static void
send_again(struct lun_slot *slot)
{
    struct lun_driver *driver = driver_of(slot->io);
    list_push_front(&slot->disk->pending, &driver->link);
    lun_slot_release(slot);
}

/* ---- answers ---- */

static void
finish_good(struct lun_slot *slot, uint64_t missing_bytes)
{
    struct lun_disk *disk = slot->disk;
    struct backend_io *io = slot->io;
    int32_t result = 0;

    switch (io->kind) {
    case BACKEND_FLUSH:
        disk->flushed = MAX(disk->flushed, slot->flush_mark);
        break;
    case BACKEND_WRITE:
    case BACKEND_WRITE_ZEROES:
        disk->written += io->fua ? 0 : 1;
        break;
    default:
        break;
    }
    if (missing_bytes > 0 && (io->kind == BACKEND_READ || io->kind == BACKEND_WRITE)) {
        uint64_t bytes = missing_bytes < io->length_bytes ? io->length_bytes - missing_bytes : 0;
        result = bytes > 0 ? (int32_t)bytes : -EIO;
    }
    finish(slot, result);
}

static void
finish_bad(struct lun_slot *slot, const struct lun_answer *answer, int32_t error)
{
    struct lun_disk *disk = slot->disk;
    bool may_be_unsupported =
        slot->io->kind == BACKEND_WRITE_ZEROES || slot->io->kind == BACKEND_DISCARD;

    if (error == -EOPNOTSUPP && !may_be_unsupported) {
        error = -EIO;
    }
    if (error == -EBUSY) {
        log_error("iscsi", "%s LUN %u: reservation conflict: another host has reserved it",
                  disk->location.target, disk->location.lun);
    } else if (error != -EOPNOTSUPP && error != -ENOSPC) {
        log_warning("iscsi", "%s LUN %u: %s at byte %llu: sense %x/%04x", disk->location.target,
                    disk->location.lun, error_name(error),
                    (unsigned long long)slot->io->offset_bytes, answer->sense_key,
                    answer->asc_ascq);
    }
    finish(slot, error);
}

/* The LUN is in doubt: the session ends, and its commands are sent again by the next. */
static void
recover(struct lun_disk *disk, const struct lun_answer *answer)
{
    disk->evidence = MAX(disk->evidence, lun_evidence_of(answer));
    if (answer->status == SCSI_STATUS_CHECK_CONDITION) {
        error_set(&disk->failure, -EIO, "the state of the LUN is in doubt (sense %x/%04x)",
                  answer->sense_key, answer->asc_ascq);
    }
    disk->lost = true;
}

static void
command_answered(struct lun_slot *slot, const struct lun_answer *answer, uint64_t missing_bytes)
{
    struct lun_disk *disk = slot->disk;
    struct lun_driver *driver = driver_of(slot->io);
    int32_t error = 0;

    if (answer->deferred) {
        log_error("iscsi", "%s: the target reports a failed earlier write (sense %x/%04x)",
                  disk->location.target, answer->sense_key, answer->asc_ascq);
        guard_raise_loss(disk->backend); /* L8 */
    }
    switch (lun_judge(answer, &error)) {
    case LUN_DONE:
        finish_good(slot, missing_bytes);
        return;
    case LUN_FAILED:
        finish_bad(slot, answer, error);
        return;
    case LUN_RETRY:
        if (++driver->retries > RETRIES_MAX) {
            finish_bad(slot, answer, -EIO);
            return;
        }
        send_again(slot);
        return;
    case LUN_RETRY_LATER:
        if (++driver->retries_later > RETRIES_LATER_MAX) {
            finish_bad(slot, answer, -EIO);
            return;
        }
        disk->resume_ns = lun_now_ns(disk) + busy_pause_ns;
        send_again(slot);
        return;
    case LUN_RECOVER:
        break; /* the slot keeps it until the session is dropped */
    }
    recover(disk, answer);
}

static void
setup_answered(struct lun_disk *disk, const struct lun_answer *answer, uint64_t received_bytes)
{
    int32_t error;
    if (disk->phase == LUN_PHASE_READY) { /* a question in between, or the end of a session */
        disk->answered = true;
        if (lun_judge(answer, &error) == LUN_RECOVER) {
            recover(disk, answer);
        }
        return;
    }
    disk->answered = true;
    disk->answer = *answer;
    disk->data_bytes = answer->status == SCSI_STATUS_GOOD ? received_bytes : 0;
}

static struct lun_answer
read_answer(int status, const struct scsi_task *task)
{
    struct lun_answer answer = { .status = status };
    if (status == SCSI_STATUS_ERROR && task->status != SCSI_STATUS_GOOD) {
        answer.status = task->status; /* one that the library has no opinion about */
    }
    if (answer.status == SCSI_STATUS_CHECK_CONDITION) {
        answer.sense_key = (uint8_t)task->sense.key;
        answer.asc_ascq = (uint16_t)task->sense.ascq;
        answer.deferred = task->sense.error_type == SCSI_SENSE_FIXED_DEFERRED_ERRORS ||
                          task->sense.error_type == SCSI_SENSE_DESCRIPTOR_DEFERRED_ERRORS;
    }
    return answer;
}

static void
command_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct lun_slot *slot = private_data;
    struct lun_disk *disk = slot->disk;
    struct scsi_task *task = slot->task;
    (void)iscsi;
    (void)command_data;
    ASSERT(task != NULL);

    struct lun_answer answer = read_answer(status, task);
    uint64_t expected_bytes = (uint64_t)task->expxferlen;
    uint64_t missing_bytes = task->residual_status == SCSI_RESIDUAL_UNDERFLOW ? task->residual : 0;
    slot->task = NULL;
    scsi_free_scsi_task(task);
    if (disk->destroying || disk->lost) {
        return; /* an operation stays in its slot, to be sent again: a loss is judged first (B5) */
    }
    if (slot == disk->setup_slot) {
        setup_answered(disk, &answer, expected_bytes - MIN(missing_bytes, expected_bytes));
    } else {
        disk->answers++;
        command_answered(slot, &answer, missing_bytes);
    }
}

/* ---- sending ---- */

bool
lun_send(struct lun_slot *slot, const uint8_t *cdb, size_t cdb_bytes, int direction,
         uint64_t payload_bytes, uint32_t iov_count)
{
    struct lun_disk *disk = slot->disk;
    uint8_t copy[16];
    ASSERT(slot->task == NULL && disk->context != NULL);
    ASSERT_OP(cdb_bytes, <=, sizeof(copy));
    ASSERT_OP(payload_bytes, <=, (uint64_t)INT32_MAX);

    memcpy(copy, cdb, cdb_bytes);
    struct scsi_task *task = scsi_create_task((int)cdb_bytes, copy, direction, (int)payload_bytes);
    if (task == NULL) {
        disk->lost = true;
        return false;
    }
    if (direction == SCSI_XFER_READ) {
        scsi_task_set_iov_in(task, slot->iov, (int)iov_count);
    } else if (direction == SCSI_XFER_WRITE) {
        scsi_task_set_iov_out(task, slot->iov, (int)iov_count);
    }
    slot->task = task;
    if (iscsi_scsi_command_async(disk->context, disk->location.lun, task, command_done, NULL,
                                 slot) != 0) {
        slot->task = NULL;
        scsi_free_scsi_task(task);
        disk->lost = true;
        return false;
    }
    return true;
}

static bool
send_transfer(struct lun_slot *slot, struct backend_io *io)
{
    struct lun_disk *disk = slot->disk;
    uint64_t block = io->offset_bytes / disk->facts.block_bytes;
    uint64_t count = io->length_bytes / disk->facts.block_bytes;
    bool is_read = io->kind == BACKEND_READ;
    int direction = is_read ? SCSI_XFER_READ : SCSI_XFER_WRITE;
    uint8_t cdb[16] = { 0 };

    for (uint32_t i = 0; i < io->iov_count; i++) {
        slot->iov[i] = (struct scsi_iovec){
            .iov_base = io->iov[i].iov_base,
            .iov_len = io->iov[i].iov_len,
        };
    }
    cdb[1] = !is_read && io->fua ? CDB_FUA : 0;
    if (block + count <= UINT32_MAX && count <= UINT16_MAX) {
        cdb[0] = is_read ? SCSI_OPCODE_READ10 : SCSI_OPCODE_WRITE10;
        put_be32(&cdb[2], (uint32_t)block);
        put_be16(&cdb[7], (uint16_t)count);
        return lun_send(slot, cdb, 10, direction, io->length_bytes, io->iov_count);
    }
    cdb[0] = is_read ? SCSI_OPCODE_READ16 : SCSI_OPCODE_WRITE16;
    put_be64(&cdb[2], block);
    put_be32(&cdb[10], (uint32_t)count);
    return lun_send(slot, cdb, 16, direction, io->length_bytes, io->iov_count);
}

static bool
send_write_same(struct lun_slot *slot, struct backend_io *io, bool unmap)
{
    struct lun_disk *disk = slot->disk;
    uint8_t cdb[16] = { SCSI_OPCODE_WRITE_SAME16 };

    cdb[1] = unmap ? CDB_WRITE_SAME_UNMAP : 0;
    put_be64(&cdb[2], io->offset_bytes / disk->facts.block_bytes);
    put_be32(&cdb[10], (uint32_t)(io->length_bytes / disk->facts.block_bytes));
    slot->iov[0] = (struct scsi_iovec){
        .iov_base = (void *)zero_block, /* only read */
        .iov_len = disk->facts.block_bytes,
    };
    return lun_send(slot, cdb, sizeof(cdb), SCSI_XFER_WRITE, disk->facts.block_bytes, 1);
}

static bool
send_discard(struct lun_slot *slot, struct backend_io *io)
{
    struct lun_disk *disk = slot->disk;
    uint8_t cdb[10] = { SCSI_OPCODE_UNMAP };

    if (!disk->facts.unmap) {
        return send_write_same(slot, io, true);
    }
    put_be16(&cdb[7], UNMAP_PARAMETER_BYTES);
    memset(slot->parameter, 0, sizeof(slot->parameter));
    put_be16(&slot->parameter[0], UNMAP_PARAMETER_BYTES - 2);
    put_be16(&slot->parameter[2], 16);
    put_be64(&slot->parameter[8], io->offset_bytes / disk->facts.block_bytes);
    put_be32(&slot->parameter[16], (uint32_t)(io->length_bytes / disk->facts.block_bytes));
    slot->iov[0] = (struct scsi_iovec){
        .iov_base = slot->parameter,
        .iov_len = UNMAP_PARAMETER_BYTES,
    };
    return lun_send(slot, cdb, sizeof(cdb), SCSI_XFER_WRITE, UNMAP_PARAMETER_BYTES, 1);
}

static bool
send_flush(struct lun_slot *slot)
{
    const uint8_t cdb[10] = { SCSI_OPCODE_SYNCHRONIZECACHE10 }; /* zeroes: the whole disk */
    slot->flush_mark = slot->disk->written;
    return lun_send(slot, cdb, sizeof(cdb), SCSI_XFER_NONE, 0, 0);
}

static bool
send_io(struct lun_slot *slot, struct backend_io *io)
{
    switch (io->kind) {
    case BACKEND_READ:
    case BACKEND_WRITE:
        return send_transfer(slot, io);
    case BACKEND_FLUSH:
        return send_flush(slot);
    case BACKEND_DISCARD:
        return send_discard(slot, io);
    case BACKEND_WRITE_ZEROES: {
        const struct lun_facts *facts = &slot->disk->facts;
        return send_write_same(slot, io, facts->write_same_unmap && facts->reads_zero_after_unmap);
    }
    case BACKEND_ALLOCATE:
    case BACKEND_IO_KIND_COUNT:
        break;
    }
    UNREACHABLE();
}

/* Whether the operation ends without being sent. */
static bool
ends_at_once(const struct lun_disk *disk, const struct backend_io *io, int32_t *ret_result)
{
    *ret_result = -EOPNOTSUPP;
    if (io->kind == BACKEND_ALLOCATE) {
        return true; /* a thin LUN cannot promise room */
    }
    /* The disk came back without something that it had: the guard emulates it. */
    return (io->kind == BACKEND_WRITE && io->fua && !disk->facts.fua) ||
           (io->kind == BACKEND_DISCARD && !disk->facts.unmap && !disk->facts.write_same_unmap);
}

void
lun_issue(struct lun_disk *disk)
{
    while (disk->phase == LUN_PHASE_READY && !disk->lost && disk->resume_ns == 0 &&
           !list_empty(&disk->free_slots) && !list_empty(&disk->pending)) {
        struct lun_driver *driver =
            list_entry(list_pop_front(&disk->pending), struct lun_driver, link);
        struct backend_io *io = io_of(driver);
        int32_t result;
        if (ends_at_once(disk, io, &result)) {
            reactor_complete(&io->op, result);
            continue;
        }
        struct lun_slot *slot =
            list_entry(list_pop_front(&disk->free_slots), struct lun_slot, link);
        list_push_back(&disk->busy_slots, &slot->link);
        slot->io = io;
        if (send_io(slot, io)) {
            driver->was_sent = true;
        } else {
            send_again(slot);
        }
    }
}

void
lun_fail_pending(struct lun_disk *disk, int32_t error)
{
    list_for_each_safe(&disk->pending, link) {
        struct lun_driver *driver = list_entry(link, struct lun_driver, link);
        struct backend_io *io = io_of(driver);
        bool changes = io->kind == BACKEND_WRITE || io->kind == BACKEND_WRITE_ZEROES ||
                       io->kind == BACKEND_DISCARD;
        if (!(changes && driver->was_sent)) { /* those may still take effect: B2 */
            list_remove(link);
            reactor_complete(&io->op, error);
        }
    }
}

static void
iscsi_submit(struct backend *backend, struct backend_io *io)
{
    struct lun_disk *disk = backend->state;
    struct lun_driver *driver = driver_of(io);
    ASSERT_ON_REACTOR(backend->owner);

    if (!disk->attached) {
        lun_session_attach(disk);
    }
    if (disk->is_down) {
        reactor_complete(&io->op, -EHOSTDOWN);
        return;
    }
    memset(driver, 0, sizeof(*driver));
    list_push_back(&disk->pending, &driver->link);
    lun_session_kick(disk);
}

/* ---- life ---- */

static void
disk_free(struct lun_disk *disk)
{
    ASSERT(disk->context == NULL && list_empty(&disk->pending));
    for (uint32_t i = 0; disk->slots != NULL && i <= LUN_WINDOW; i++) {
        free(disk->slots[i].iov);
    }
    if (disk->lock_fd >= 0) {
        close(disk->lock_fd);
    }
    explicit_bzero(&disk->location, sizeof(disk->location));
    free(disk->slots);
    free(disk->data);
    free(disk);
}

static struct lun_disk *
disk_create(struct platform *platform)
{
    struct lun_disk *disk = calloc(1, sizeof(*disk));
    if (disk == NULL) {
        return NULL;
    }
    disk->platform = platform;
    disk->lock_fd = -1;
    list_init(&disk->free_slots);
    list_init(&disk->busy_slots);
    list_init(&disk->pending);
    list_init(&disk->armed_polls);
    disk->data = calloc(1, LUN_DATA_SIZE);
    disk->slots = calloc(LUN_WINDOW + 1, sizeof(struct lun_slot));
    bool complete = disk->data != NULL && disk->slots != NULL;
    for (uint32_t i = 0; complete && i <= LUN_WINDOW; i++) {
        struct lun_slot *slot = &disk->slots[i];
        slot->disk = disk;
        slot->iov = calloc(BACKEND_IOV_COUNT_MAX, sizeof(struct scsi_iovec));
        complete = slot->iov != NULL;
        if (i < LUN_WINDOW) {
            list_push_back(&disk->free_slots, &slot->link);
        } else {
            disk->setup_slot = slot;
        }
    }
    if (!complete) {
        disk_free(disk);
        return NULL;
    }
    return disk;
}

static uint64_t
hash_text(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++) {
        hash = hash_u64(hash ^ (uint8_t)*text);
    }
    return hash_u64(hash + 1);
}

/* What is the same in every session of this disk from this machine (L1, L7); a probe's differs. */
static void
choose_identity(struct lun_disk *disk)
{
    const struct lun_location *location = &disk->location;
    uint64_t hash = hash_text(hash_text(location->lun, location->initiator), location->target);

    disk->witness_key = hash_u64(hash ^ UINT64_C(0x766f6c6d67725052)) | 1;
    if (disk->is_probe) {
        hash = disk->platform->ops->random_u64(disk->platform);
    }
    disk->isid_random = (uint32_t)hash & 0xffffff;
    disk->isid_qualifier = (uint16_t)(hash >> 32);
}

/*
 * One process of this machine at a time: two would end each other's sessions for ever. The lock is
 * a name in the kernel's table of abstract sockets, which goes with the process.
 */
static int
lock_disk(struct lun_disk *disk, struct error *error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    uint64_t hash = hash_text(disk->location.lun, disk->location.target);
    int length = snprintf(&address.sun_path[1], sizeof(address.sun_path) - 1,
                          "volmgr-iscsi-%016llx", (unsigned long long)hash);

    disk->lock_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (disk->lock_fd < 0) {
        return error_set(error, -errno, "cannot lock the LUN: %s", error_name(errno));
    }
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    if (bind(disk->lock_fd, (struct sockaddr *)&address, size) < 0) {
        int code = errno == EADDRINUSE ? -EBUSY : -errno;
        return error_set(error, code, "LUN %u of %s is in use by a process of this machine",
                         disk->location.lun, disk->location.target);
    }
    return 0;
}

static void
fill_properties(struct backend *backend, const struct lun_disk *disk)
{
    const struct lun_facts *facts = &disk->facts;
    bool can_discard = facts->unmap || facts->write_same_unmap;
    uint64_t range_blocks = facts->write_same_blocks_max;
    uint64_t transfer_bytes = align_down(facts->transfer_bytes_max, facts->block_bytes);
    bool kept = backend->properties.kept_unflushed;

    if (facts->unmap) {
        range_blocks = MIN(range_blocks, facts->unmap_blocks_max);
    }
    backend->properties = (struct backend_properties){
        .size_bytes = facts->capacity_blocks * facts->block_bytes,
        .block_bytes = facts->block_bytes,
        .physical_block_bytes = MAX(facts->physical_block_bytes, facts->block_bytes),
        .memory_alignment_bytes = 1,
        .discard_granularity_bytes =
            can_discard ? facts->unmap_granularity_blocks * facts->block_bytes : 0,
        .transfer_bytes_max = MAX(transfer_bytes, (uint64_t)facts->block_bytes),
        .range_bytes_max = MAX(range_blocks, UINT64_C(1)) * facts->block_bytes,
        .rotational = facts->rotational,
        .write_cache = true, /* it may be switched on behind our back; a flush costs little */
        .can_grow = true,
        .thin = facts->thin,
        .remote = true,
        .kept_unflushed = kept,
    };
    /* WRITE SAME has no FUA. */
    guard_emulate(backend, GUARD_EMULATE_ZEROES_FUA | (facts->fua ? 0u : GUARD_EMULATE_FUA));
}

/*
 * libiscsi sends payload with writev(2), which raises SIGPIPE when the target has gone. Reactor
 * threads have all signals blocked, but others drive sessions as well: unless the program has its
 * own idea, the signal is ignored from the first LUN on.
 */
static void
ignore_broken_pipes(void)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN);
    }
}

static int
disk_start(struct lun_disk *disk, uint32_t flags, struct error *error)
{
    bool read_only = (flags & (BACKEND_OPEN_READ_ONLY | BACKEND_OPEN_PROBE)) != 0;
    ignore_broken_pipes();
    choose_identity(disk);
    int result = lun_resolve(disk->location.host, disk->location.port, false, disk->portal, error);
    if (result == 0 && !disk->is_probe) {
        result = lock_disk(disk, error);
    }
    if (result == 0) {
        result = lun_session_open(disk, open_timeout_ns, error);
    }
    if (result == 0 && disk->facts.write_protected && !read_only) {
        lun_session_close(disk);
        result = error_set(error, -EROFS, "LUN %u of %s is write protected", disk->location.lun,
                           disk->location.target);
    }
    return result;
}

static int
iscsi_open(struct backend *backend, const char *spec, uint32_t flags, struct error *error)
{
    struct lun_disk *disk = disk_create(backend->platform);
    if (disk == NULL) {
        return error_set(error, -ENOMEM, "no memory for an iSCSI disk");
    }
    disk->backend = backend;
    disk->is_probe = (flags & BACKEND_OPEN_PROBE) != 0;
    int result = lun_location_parse(spec, &disk->location, error);
    if (result == 0) {
        result = disk_start(disk, flags, error);
    }
    if (result < 0) {
        disk_free(disk);
        return result;
    }
    backend->state = disk;
    fill_properties(backend, disk);
    return 0;
}

static void
iscsi_close(struct backend *backend)
{
    struct lun_disk *disk = backend->state;
    lun_session_detach(disk);
    lun_session_close(disk);
    disk_free(disk);
    backend->state = NULL;
}

static int
compare_refreshed(struct backend *backend, const struct lun_disk *disk,
                  const struct lun_disk *probe, struct error *error)
{
    uint64_t size_bytes = probe->facts.capacity_blocks * probe->facts.block_bytes;
    uint64_t old_bytes = backend_size_bytes(backend);

    if (probe->facts.identity != disk->identity ||
        probe->facts.block_bytes != backend->properties.block_bytes) {
        return error_set(error, -EIO, "another disk answers at LUN %u of %s now",
                         disk->location.lun, disk->location.target);
    }
    if (size_bytes < old_bytes) {
        char now_text[SIZE_TEXT_SIZE], old_text[SIZE_TEXT_SIZE];
        return error_set(error, -EINVAL, "LUN %u of %s has shrunk from %s to %s; restore its size",
                         disk->location.lun, disk->location.target,
                         size_format(old_bytes, old_text), size_format(size_bytes, now_text));
    }
    __atomic_store_n(&backend->properties.size_bytes, size_bytes, __ATOMIC_RELAXED);
    return 0;
}

static int
iscsi_refresh(struct backend *backend, struct error *error)
{
    struct lun_disk *disk = backend->state;
    struct lun_disk *probe = disk_create(backend->platform);
    if (probe == NULL) {
        return error_set(error, -ENOMEM, "no memory for a session");
    }
    probe->is_probe = true;
    probe->location = disk->location; /* constant since open */
    int result = disk_start(probe, BACKEND_OPEN_PROBE, error);
    if (result == 0) {
        result = compare_refreshed(backend, disk, probe, error);
        lun_session_close(probe);
    }
    disk_free(probe);
    return result;
}

const struct backend_ops iscsi_backend_ops = {
    .type = "iscsi",
    .scheme = iscsi_scheme,
    .owner_reactor_only = true,
    .open = iscsi_open,
    .close = iscsi_close,
    .refresh = iscsi_refresh,
    .submit = iscsi_submit,
};
