/* SPDX-License-Identifier: Apache-2.0 */
/* The running side of a simulated disk: transfers, their latency, and faults. */
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "tests/sim/sim_impl.h"

enum {
    SECTOR_BYTES_DEFAULT = 512,
    ATOMIC_BYTES_DEFAULT = 512,
    IOV_COUNT_MAX = 1024,
};

/* One operation on its way. The operation itself belongs to the model and the log. */
struct transfer {
    struct sim_event event;
    struct list link; /* sim_disk.transfers */
    struct sim_disk *disk;
    struct sim_operation *operation;
    struct platform_file *file; /* NULL once the process is dead, as are io and engine */
    struct file_io *io;
    struct io_engine *engine;
    bool holds_lock; /* of a dead process */
    bool hangs;
    bool has_fault;
    struct sim_fault fault;
    int forced_error; /* positive; a reset of the disk decided so */
};

static uint64_t
disk_random(struct sim_disk *disk)
{
    return random_u64(sim_stream(disk->sim, SIM_STREAM_DISK));
}

static bool
kind_is_recorded(enum file_io_kind kind)
{
    return kind != FILE_IO_READ;
}

/* ---- faults ---- */

static bool
rule_matches(const struct sim_fault *fault, enum file_io_kind kind, uint64_t offset_bytes,
             uint64_t length_bytes)
{
    if (fault->kinds != 0 && (fault->kinds & (1u << kind)) == 0) {
        return false;
    }
    if (kind == FILE_IO_FLUSH || fault->length_bytes == 0) {
        return kind == FILE_IO_FLUSH || offset_bytes + length_bytes > fault->offset_bytes;
    }
    return offset_bytes < fault->offset_bytes + fault->length_bytes &&
           offset_bytes + length_bytes > fault->offset_bytes;
}

static void
choose_fault(struct sim_disk *disk, struct transfer *transfer)
{
    const struct sim_operation *operation = transfer->operation;
    for (uint32_t i = 0; i < disk->rule_count; i++) {
        struct sim_disk_rule *rule = &disk->rules[i];
        const struct sim_fault *fault = &rule->fault;
        if (!rule_matches(fault, operation->kind, operation->offset_bytes,
                          operation->length_bytes)) {
            continue;
        }
        rule->seen++;
        if (rule->seen <= fault->skip || (fault->count != 0 && rule->struck >= fault->count)) {
            continue;
        }
        if (fault->chance_per_million != 0 && !random_chance(sim_stream(disk->sim, SIM_STREAM_DISK),
                                                             fault->chance_per_million, 1000000)) {
            continue;
        }
        rule->struck++;
        disk->statistics.faults++;
        disk->statistics.faults_of[operation->kind]++;
        transfer->has_fault = true;
        transfer->fault = *fault;
        return;
    }
}

static bool
strikes(const struct transfer *transfer, enum sim_fault_action action)
{
    return transfer->has_fault && transfer->fault.action == action;
}

static int
fault_error(const struct transfer *transfer)
{
    return transfer->fault.error != 0 ? transfer->fault.error : EIO;
}

void
sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault)
{
    ASSERT_OP(disk->rule_count, <, (uint32_t)SIM_FAULT_COUNT_MAX);
    disk->rules[disk->rule_count++] = (struct sim_disk_rule){ .fault = *fault };
}

void
sim_disk_clear_faults(struct sim_disk *disk)
{
    disk->rule_count = 0;
}

/* ---- the end of a transfer ---- */

static void
transfer_free(struct transfer *transfer)
{
    struct sim_disk *disk = transfer->disk;
    sim_unschedule(disk->sim, &transfer->event);
    list_remove(&transfer->link);
    if (transfer->holds_lock) {
        ASSERT_OP(disk->orphan_count, >, 0u);
        disk->orphan_count--;
    }
    sim_operation_put(transfer->operation);
    sim_release(transfer);
}

/* Tell the process, if it is still there. */
static void
transfer_answer(struct transfer *transfer, int32_t result)
{
    if (transfer->io == NULL) {
        return;
    }
    ASSERT_OP(transfer->file->in_flight, >, 0u);
    transfer->file->in_flight--;
    sim_engine_complete(transfer->engine, &transfer->io->op, result);
    transfer->io = NULL;
    transfer->engine = NULL;
    transfer->file = NULL;
}

static void
check_payload_unchanged(const struct transfer *transfer)
{
    const struct sim_operation *operation = transfer->operation;
    const struct file_io *io = transfer->io;
    if (io == NULL || operation->kind != FILE_IO_WRITE ||
        transfer->disk->sim->options.allow_payload_changes) {
        return;
    }
    uint64_t done_bytes = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        if (memcmp(io->iov[i].iov_base, operation->payload + done_bytes, io->iov[i].iov_len) != 0) {
            assert_fail(__FILE__, __LINE__, __func__,
                        "the buffer of a write does not change while it is in flight");
        }
        done_bytes += io->iov[i].iov_len;
    }
}

static void
read_into(struct transfer *transfer, uint64_t length_bytes)
{
    struct sim_disk *disk = transfer->disk;
    const struct sim_operation *operation = transfer->operation;
    const struct file_io *io = transfer->io;
    if (io == NULL || length_bytes == 0) {
        return;
    }
    uint64_t wrong_bit = operation->seed % (length_bytes * 8);
    uint64_t done_bytes = 0;
    for (uint32_t i = 0; i < io->iov_count && done_bytes < length_bytes; i++) {
        uint8_t *part = io->iov[i].iov_base;
        uint64_t part_bytes = MIN((uint64_t)io->iov[i].iov_len, length_bytes - done_bytes);
        sim_image_read(&disk->visible, operation->offset_bytes + done_bytes, part, part_bytes);
        uint64_t wrong_byte = wrong_bit / 8 - done_bytes;
        if (strikes(transfer, SIM_FAULT_BIT_ROT) && wrong_byte < part_bytes) {
            part[wrong_byte] ^= (uint8_t)(1u << (wrong_bit % 8));
        }
        done_bytes += part_bytes;
    }
}

/* How much of a transfer that ends early is done: whole sectors, not all. */
static uint64_t
short_length(const struct sim_disk *disk, const struct sim_operation *operation)
{
    uint64_t sectors = operation->length_bytes / disk->properties.logical_sector_bytes;
    return sectors < 2 ? 0 : (operation->seed % sectors) * disk->properties.logical_sector_bytes;
}

static bool
lacks_space(const struct sim_disk *disk, const struct sim_operation *operation)
{
    uint64_t capacity_bytes = disk->properties.capacity_bytes;
    if (capacity_bytes == 0 ||
        (operation->kind != FILE_IO_WRITE && operation->kind != FILE_IO_ALLOCATE)) {
        return false;
    }
    uint64_t missing =
        sim_image_pages_missing(&disk->visible, operation->offset_bytes, operation->length_bytes);
    return missing > 0 &&
           (disk->visible.allocated_pages + missing) * SIM_PAGE_BYTES > capacity_bytes;
}

/* What a failing operation did before it failed. */
static struct sim_effect
failed_effect(const struct sim_operation *operation)
{
    static const enum sim_effect_kind kinds[] = {
        SIM_EFFECT_NONE,
        SIM_EFFECT_PREFIX,
        SIM_EFFECT_SCATTERED,
        SIM_EFFECT_ALL,
    };
    return (struct sim_effect){ .kind = kinds[(operation->seed >> 32) % ARRAY_SIZE(kinds)],
                                .seed = operation->seed };
}

/* The outcome: bytes, 0 or -errno; fills the operation's effect. */
static int32_t
transfer_outcome(struct transfer *transfer)
{
    struct sim_disk *disk = transfer->disk;
    struct sim_operation *operation = transfer->operation;
    bool moves_data = operation->kind == FILE_IO_READ || operation->kind == FILE_IO_WRITE;

    if (transfer->forced_error != 0 || strikes(transfer, SIM_FAULT_ERROR) ||
        strikes(transfer, SIM_FAULT_LOSE_CACHE)) {
        operation->effect = failed_effect(operation);
        return -(transfer->forced_error != 0 ? transfer->forced_error : fault_error(transfer));
    }
    if (lacks_space(disk, operation)) {
        operation->effect.kind = SIM_EFFECT_NONE;
        return -ENOSPC;
    }
    operation->effect.kind = SIM_EFFECT_ALL;
    operation->succeeded = true;
    uint64_t done_bytes = operation->length_bytes;
    if (strikes(transfer, SIM_FAULT_SHORT) && moves_data) {
        done_bytes = short_length(disk, operation);
        operation->effect = (struct sim_effect){ .kind = SIM_EFFECT_LENGTH, .seed = done_bytes };
    }
    return moves_data ? (int32_t)done_bytes : 0;
}

static void
drop_cache(struct sim_disk *disk, uint64_t seed, bool keeps_reads)
{
    sim_trace(disk->sim, SIM_TRACE_DROP_CACHE, disk->index, disk->model.completed_count, 0, 0);
    sim_log_note_drop_cache(disk->sim, disk, seed);
    sim_model_drop_cache(&disk->model, seed);
    if (!keeps_reads) {
        sim_image_free(&disk->visible);
        sim_model_visible(&disk->model, &disk->visible);
    }
}

static void
transfer_fire(struct sim *sim, struct sim_event *event)
{
    struct transfer *transfer = container_of(event, struct transfer, event);
    struct sim_disk *disk = transfer->disk;
    struct sim_operation *operation = transfer->operation;

    check_payload_unchanged(transfer);
    int32_t result = transfer_outcome(transfer);
    disk->statistics.errors += result < 0;
    if (operation->kind == FILE_IO_READ && result > 0) {
        read_into(transfer, (uint64_t)result);
    }
    if (strikes(transfer, SIM_FAULT_LOSE_CACHE) && transfer->forced_error == 0) {
        drop_cache(disk, operation->seed, transfer->fault.keeps_reads);
    }
    sim_trace(sim, SIM_TRACE_COMPLETE, operation->sequence, (uint64_t)operation->effect.kind,
              operation->effect.seed, (uint64_t)(int64_t)result);
    transfer_answer(transfer, result);
    if (kind_is_recorded(operation->kind)) {
        sim_operation_apply(operation, &disk->visible, &operation->effect, 1);
        sim_log_note_complete(sim, operation);
        sim_model_complete(&disk->model, operation);
        transfer_free(transfer);
        sim_count_event(sim);
    } else {
        transfer_free(transfer);
    }
}

static void
transfer_schedule(struct transfer *transfer)
{
    struct sim_disk *disk = transfer->disk;
    struct sim *sim = disk->sim;
    uint64_t delay_ns = sim_between(sim, SIM_STREAM_DISK, disk->properties.latency_ns_min,
                                    disk->properties.latency_ns_max);
    if (random_chance(sim_stream(sim, SIM_STREAM_DISK), 1, 32)) {
        delay_ns *= 1 + random_below(sim_stream(sim, SIM_STREAM_DISK), 10);
    }
    if (strikes(transfer, SIM_FAULT_DELAY)) {
        delay_ns += transfer->fault.delay_ns;
    }
    sim_schedule(sim, &transfer->event, sim->now_ns + delay_ns, transfer_fire);
}

/* ---- the start of a transfer ---- */

static bool
is_misaligned(const struct sim_disk *disk, const struct file_io *io)
{
    const struct sim_disk_properties *properties = &disk->properties;
    if (io->kind == FILE_IO_FLUSH || (io->file->flags & FILE_OPEN_DIRECT) == 0) {
        return false;
    }
    uint64_t bits = (io->offset_bytes | io->length_bytes) % properties->logical_sector_bytes;
    if (io->kind == FILE_IO_READ || io->kind == FILE_IO_WRITE) {
        for (uint32_t i = 0; i < io->iov_count; i++) {
            bits |= (uintptr_t)io->iov[i].iov_base % properties->memory_alignment_bytes;
            bits |= io->iov[i].iov_len % properties->logical_sector_bytes;
        }
    }
    return bits != 0;
}

/* What the kernel refuses at once. 0 or -errno; a read at the end of a file is cut in *length. */
static int
validate(const struct sim_disk *disk, const struct file_io *io, uint64_t *length_bytes)
{
    uint64_t size_bytes = disk->properties.size_bytes;
    uint64_t total_bytes = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        total_bytes += io->iov[i].iov_len;
    }
    bool moves_data = io->kind == FILE_IO_READ || io->kind == FILE_IO_WRITE;
    if (io->iov_count > IOV_COUNT_MAX || (moves_data && total_bytes != io->length_bytes) ||
        is_misaligned(disk, io)) {
        return -EINVAL;
    }
    if (io->kind != FILE_IO_READ && io->kind != FILE_IO_FLUSH &&
        (io->file->flags & FILE_OPEN_READ_ONLY) != 0) {
        return -EBADF;
    }
    if ((io->kind == FILE_IO_DISCARD && disk->properties.no_discard) ||
        (io->kind == FILE_IO_ALLOCATE && disk->properties.kind != FILE_KIND_REGULAR)) {
        return -EOPNOTSUPP;
    }
    if (io->kind == FILE_IO_FLUSH) {
        *length_bytes = 0;
        return 0;
    }
    if (io->offset_bytes > size_bytes || io->length_bytes > size_bytes - io->offset_bytes) {
        if (io->kind != FILE_IO_READ) {
            return -ENOSPC;
        }
        *length_bytes = io->offset_bytes > size_bytes ? 0 : size_bytes - io->offset_bytes;
    }
    return 0;
}

static struct sim_operation *
operation_make(struct sim_disk *disk, enum file_io_kind kind, uint64_t offset_bytes,
               uint64_t length_bytes)
{
    struct sim_operation *operation = sim_allocate(sizeof(*operation));
    operation->sequence = ++disk->sim->operation_sequence;
    operation->references = 1;
    operation->disk_index = disk->index;
    operation->kind = kind;
    operation->atomic_bytes = disk->properties.atomic_bytes;
    operation->offset_bytes = offset_bytes;
    operation->length_bytes = length_bytes;
    operation->seed = disk_random(disk);
    operation->discard = disk->properties.discard;
    if (operation->discard == SIM_DISCARD_BY_SEED) {
        operation->discard = (enum sim_discard)(SIM_DISCARD_ZEROES + operation->seed % 3);
    }
    return operation;
}

static void
gather_payload(struct sim_operation *operation, const struct file_io *io)
{
    operation->payload = sim_allocate_raw(operation->length_bytes);
    uint64_t done_bytes = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        memcpy(operation->payload + done_bytes, io->iov[i].iov_base, io->iov[i].iov_len);
        done_bytes += io->iov[i].iov_len;
    }
    ASSERT_OP(done_bytes, ==, operation->length_bytes);
}

/* Another place of the same size on the disk. */
static void
misdirect(struct sim_disk *disk, struct sim_operation *operation)
{
    uint64_t sector_bytes = disk->properties.logical_sector_bytes;
    uint64_t places = (disk->properties.size_bytes - operation->length_bytes) / sector_bytes;
    if (places == 0) {
        return;
    }
    uint64_t offset_bytes =
        random_below(sim_stream(disk->sim, SIM_STREAM_DISK), places) * sector_bytes;
    /* The chosen place stands for one of all but the right one. */
    operation->offset_bytes =
        offset_bytes >= operation->offset_bytes ? offset_bytes + sector_bytes : offset_bytes;
}

static void
submit_operation(struct sim_disk *disk, struct sim_operation *operation)
{
    struct sim *sim = disk->sim;
    uint32_t crc =
        operation->payload == NULL ? 0 : crc32c(0, operation->payload, operation->length_bytes);
    disk->statistics.operations[operation->kind]++;
    disk->statistics.fua += operation->fua;
    disk->statistics.bytes[operation->kind] += operation->length_bytes;
    sim_trace(sim, SIM_TRACE_SUBMIT, operation->sequence,
              ((uint64_t)disk->index << 8) | (uint64_t)operation->kind, operation->offset_bytes,
              operation->length_bytes ^ ((uint64_t)crc << 32));
    if (kind_is_recorded(operation->kind)) {
        sim_log_note_submit(sim, operation);
        sim_model_submit(&disk->model, operation);
    }
}

void
sim_disk_submit(struct io_engine *engine, struct file_io *io)
{
    struct platform_file *file = io->file;
    struct sim_disk *disk = file->disk;
    struct sim *sim = disk->sim;
    uint64_t length_bytes = io->length_bytes;

    sim_engine_take(engine, &io->op);
    int result = sim->stopped ? -EIO : validate(disk, io, &length_bytes);
    if (result < 0) {
        sim_engine_complete(engine, &io->op, result);
        return;
    }
    struct transfer *transfer = sim_allocate(sizeof(*transfer));
    struct sim_operation *operation =
        operation_make(disk, io->kind, io->offset_bytes, length_bytes);
    operation->fua = io->fua;
    if (io->kind == FILE_IO_WRITE) {
        gather_payload(operation, io);
    }
    transfer->disk = disk;
    transfer->operation = operation;
    transfer->file = file;
    transfer->io = io;
    transfer->engine = engine;
    file->in_flight++;
    list_push_back(&disk->transfers, &transfer->link);
    choose_fault(disk, transfer);
    if (strikes(transfer, SIM_FAULT_MISDIRECT)) {
        misdirect(disk, operation);
    }
    submit_operation(disk, operation);
    if (strikes(transfer, SIM_FAULT_HANG)) {
        transfer->hangs = true;
    } else {
        transfer_schedule(transfer);
    }
    if (kind_is_recorded(operation->kind)) {
        sim_count_event(sim);
    }
}

/* ---- what tests do to disks ---- */

uint32_t
sim_disk_hanging(const struct sim_disk *disk)
{
    uint32_t count = 0;
    list_for_each(&disk->transfers, node) {
        count += list_entry(node, struct transfer, link)->hangs;
    }
    return count;
}

void
sim_disk_release(struct sim_disk *disk)
{
    list_for_each(&disk->transfers, node) {
        struct transfer *transfer = list_entry(node, struct transfer, link);
        if (transfer->hangs) {
            transfer->hangs = false;
            transfer_schedule(transfer);
        }
    }
}

void
sim_disk_reset(struct sim_disk *disk)
{
    list_for_each(&disk->transfers, node) {
        struct transfer *transfer = list_entry(node, struct transfer, link);
        transfer->forced_error = EIO;
        transfer->hangs = false;
        sim_unschedule(disk->sim, &transfer->event);
        transfer_schedule(transfer);
    }
    drop_cache(disk, disk_random(disk), false);
}

void
sim_disk_set_missing(struct sim_disk *disk, bool missing)
{
    disk->missing = missing;
}

void
sim_disk_resize(struct sim_disk *disk, uint64_t size_bytes)
{
    disk->properties.size_bytes = size_bytes;
}

void
sim_disk_set_capacity(struct sim_disk *disk, uint64_t capacity_bytes)
{
    disk->properties.capacity_bytes = capacity_bytes;
}

bool
sim_disk_is_locked(const struct sim_disk *disk)
{
    return disk->locked_by != NULL || disk->orphan_count > 0;
}

void
sim_disk_peek(const struct sim_disk *disk, uint64_t offset_bytes, void *ret_data,
              uint64_t length_bytes)
{
    sim_image_read(&disk->visible, offset_bytes, ret_data, length_bytes);
}

void
sim_disk_poke(struct sim_disk *disk, uint64_t offset_bytes, const void *data, uint64_t length_bytes)
{
    ASSERT(!disk->sim->stopped);
    struct sim_operation *operation =
        operation_make(disk, FILE_IO_WRITE, offset_bytes, length_bytes);
    operation->fua = true;
    operation->payload = sim_allocate_raw(length_bytes);
    memcpy(operation->payload, data, length_bytes);
    submit_operation(disk, operation);
    sim_count_event(disk->sim);
    ASSERT(!disk->sim->stopped); /* a stop between the two halves has no meaning */
    operation->effect.kind = SIM_EFFECT_ALL;
    operation->succeeded = true;
    sim_operation_apply(operation, &disk->visible, &operation->effect, 1);
    sim_log_note_complete(disk->sim, operation);
    sim_model_complete(&disk->model, operation);
    sim_operation_put(operation);
    sim_count_event(disk->sim);
}

void
sim_disk_damage(struct sim_disk *disk, uint64_t offset_bytes, uint64_t length_bytes, uint64_t seed)
{
    struct random random;
    uint8_t *data = sim_allocate_raw(length_bytes);
    random_seed(&random, seed);
    for (uint64_t i = 0; i < length_bytes; i++) {
        data[i] = (uint8_t)random_u64(&random);
    }
    sim_disk_poke(disk, offset_bytes, data, length_bytes);
    sim_release(data);
}

uint64_t
sim_disk_content_hash(const struct sim_disk *disk)
{
    return sim_image_hash(&disk->visible, disk->properties.size_bytes);
}

uint64_t
sim_disk_durable_hash(const struct sim_disk *disk)
{
    return sim_image_hash(&disk->model.durable, disk->properties.size_bytes);
}

uint64_t
sim_disk_allocated_bytes(const struct sim_disk *disk)
{
    return disk->visible.allocated_pages * SIM_PAGE_BYTES;
}

const struct sim_disk_statistics *
sim_disk_statistics(const struct sim_disk *disk)
{
    return &disk->statistics;
}

/* ---- life and death ---- */

static void
default_u32(uint32_t *value, uint32_t otherwise)
{
    if (*value == 0) {
        *value = otherwise;
    }
}

struct sim_disk *
sim_disk_create(struct sim *sim, const char *path, const struct sim_disk_properties *properties)
{
    ASSERT(sim_disk_find(sim, path) == NULL);
    ASSERT_OP(sim->disk_count, <, (uint32_t)SIM_DISK_COUNT_MAX);
    struct sim_disk *disk = sim_allocate(sizeof(*disk));
    disk->sim = sim;
    disk->index = sim->disk_count;
    disk->path = sim_copy_text(path);
    disk->properties = *properties;
    default_u32(&disk->properties.logical_sector_bytes, SECTOR_BYTES_DEFAULT);
    default_u32(&disk->properties.physical_sector_bytes, SIM_PAGE_BYTES);
    default_u32(&disk->properties.memory_alignment_bytes, SECTOR_BYTES_DEFAULT);
    default_u32(&disk->properties.atomic_bytes, ATOMIC_BYTES_DEFAULT);
    if (disk->properties.latency_ns_max == 0) {
        disk->properties.latency_ns_min = 20 * NS_PER_US;
        disk->properties.latency_ns_max = 200 * NS_PER_US;
    }
    uint64_t background_seed =
        properties->dirty ? hash_u64(sim->options.seed + disk->index) | 1 : 0;
    list_init(&disk->transfers);
    struct sim_image image;
    sim_image_init(&disk->visible, background_seed);
    sim_image_init(&image, background_seed);
    sim_model_init(&disk->model, &image, !properties->write_through);
    sim->disks[sim->disk_count++] = disk;
    sim_log_note_disk(sim, disk);
    return disk;
}

struct sim_disk *
sim_disk_find(struct sim *sim, const char *path)
{
    for (uint32_t i = 0; i < sim->disk_count; i++) {
        if (strcmp(sim->disks[i]->path, path) == 0) {
            return sim->disks[i];
        }
    }
    return NULL;
}

static void
forget_transfers(struct sim_disk *disk)
{
    list_for_each_safe(&disk->transfers, node) {
        struct transfer *transfer = list_entry(node, struct transfer, link);
        transfer_free(transfer);
    }
    ASSERT_OP(disk->orphan_count, ==, 0u);
}

void
sim_disk_destroy(struct sim_disk *disk)
{
    forget_transfers(disk);
    sim_model_free(&disk->model);
    sim_image_free(&disk->visible);
    sim_release(disk->path);
    sim_release(disk);
}

void
sim_disk_set_content(struct sim_disk *disk, struct sim_image *image)
{
    ASSERT(list_empty(&disk->transfers));
    sim_model_free(&disk->model);
    sim_image_free(&disk->visible);
    sim_image_clone(&disk->visible, image);
    sim_model_init(&disk->model, image, !disk->properties.write_through);
}

void
sim_disk_stop(struct sim_disk *disk)
{
    list_for_each(&disk->transfers, node) {
        struct transfer *transfer = list_entry(node, struct transfer, link);
        if (transfer->file == NULL) {
            continue; /* of a process that died earlier: whether it holds the lock is known */
        }
        transfer->holds_lock = disk->locked_by == transfer->file;
        disk->orphan_count += transfer->holds_lock;
        transfer_answer(transfer, -EIO);
    }
}

/*
 * The kernel finishes what it has begun, and cancels what it has not; in between, a write may have
 * been done in part. What hangs goes on hanging.
 */
static void
orphan(struct transfer *transfer)
{
    struct sim_disk *disk = transfer->disk;
    struct sim_operation *operation = transfer->operation;
    struct random *random = sim_stream(disk->sim, SIM_STREAM_KILL);

    if (operation->kind == FILE_IO_READ || (!transfer->hangs && random_chance(random, 1, 4))) {
        sim_trace(disk->sim, SIM_TRACE_ABANDON, operation->sequence, 0, 0, 0);
        if (kind_is_recorded(operation->kind)) {
            sim_log_note_abandon(disk->sim, operation);
            sim_model_abandon(&disk->model, operation);
        }
        transfer_free(transfer);
        return;
    }
    if (!transfer->hangs && random_chance(random, 1, 8)) {
        transfer->forced_error = EINTR;
    }
}

void
sim_disk_kill(struct sim_disk *disk)
{
    list_for_each_safe(&disk->transfers, node) {
        struct transfer *transfer = list_entry(node, struct transfer, link);
        if (transfer->file != NULL) {
            transfer->holds_lock = disk->locked_by == transfer->file;
            disk->orphan_count += transfer->holds_lock;
            transfer->file = NULL;
            transfer->io = NULL;
            transfer->engine = NULL;
        }
        orphan(transfer);
    }
}

void
sim_disk_power_cut(struct sim_disk *disk, struct sim_image *image)
{
    forget_transfers(disk);
    sim_disk_set_content(disk, image);
}
