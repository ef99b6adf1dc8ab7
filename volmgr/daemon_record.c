/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon itself must not forget: which hosts are blocked, and how far jobs were counted.
 *
 * Two places in a file are written in turn, each with a checksum and a generation, so that the last
 * good one is there whatever becomes of a write. A save that is asked for while one is under way is
 * served by the next, since the one under way has another content.
 *
 * The content, little-endian: le64 number up to which jobs may have been counted, le32 number of
 * entries, then for each: u8 length and text of `match`, u8 length and text of `origin`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/log.h"
#include "volmgr/control_impl.h"
#include "volmgr/state_file_impl.h"

enum {
    PLACE_BYTES = 256 << 10,
    PLACE_COUNT = 2,
    HEADER_BYTES = 32, /* le32 magic, le32 CRC of the rest, le64 generation, le32 content bytes */
    RECORD_MAGIC = 0x41545356, /* "VSTA" */
    JOBS_AHEAD = 100,
};

struct daemon_record {
    struct manager *manager;
    struct machine *machine; /* that waits for it to be read */
    struct state_file file;
    struct state_transfer transfer;
    struct state_transfer room;
    uint8_t *buffer;
    uint64_t generation;
    uint64_t jobs_reserved;
    struct list waiting; /* struct daemon_save: for the next write */
    struct list covered; /* for the one that is under way */
    bool wanted;
    bool busy;
};

/* ---- life ---- */

struct daemon_record *
daemon_record_open(struct manager *manager, struct error *error)
{
    const struct manager_options *options = &manager->options;

    if (options->state_directory == NULL) {
        return NULL;
    }
    struct daemon_record *record = calloc(1, sizeof(*record));
    ASSERT(record != NULL);
    record->manager = manager;
    list_init(&record->waiting);
    list_init(&record->covered);
    if (state_file_open(&record->file, options->platform, options->state_directory, "daemon",
                        PLACE_COUNT * PLACE_BYTES, error) < 0) {
        free(record);
        return NULL;
    }
    return record;
}

void
daemon_record_close(struct daemon_record *record)
{
    if (record == NULL) {
        return;
    }
    ASSERT(!record->busy && list_empty(&record->waiting));
    state_file_close(&record->file);
    free(record->buffer);
    free(record);
}

/* ---- reading ---- */

static void
load_done(struct io_op *op)
{
    struct state_transfer *transfer = container_of(op, struct state_transfer, op);
    struct daemon_record *record = container_of(transfer, struct daemon_record, transfer);

    machine_completed(record->machine, op->result);
}

static void
room_done(struct io_op *op)
{
    struct state_transfer *room = container_of(op, struct state_transfer, op);
    struct daemon_record *record = container_of(room, struct daemon_record, room);

    if (op->result < 0 && op->result != -EOPNOTSUPP) {
        log_warning("control", "no room for the list of blocked hosts: %s",
                    error_name(op->result));
    }
    machine_completed(record->machine, 0);
}

void
daemon_record_load(struct machine *machine, struct daemon_record *record)
{
    if (record == NULL) {
        return;
    }
    ASSERT_ON_REACTOR(machine->manager->control);
    record->machine = machine;
    record->buffer = aligned_alloc(STATE_FILE_ALIGNMENT, PLACE_COUNT * PLACE_BYTES);
    ASSERT(record->buffer != NULL);
    machine_arm(machine, &record->transfer.op, load_done);
    state_file_read(&record->file, &record->transfer, 0, record->buffer,
                    PLACE_COUNT * PLACE_BYTES);
    machine_arm(machine, &record->room.op, room_done);
    state_file_make_room(&record->file, &record->room);
}

/* Generation of what is in a place; 0: nothing valid. */
static uint64_t
place_generation(const uint8_t *place)
{
    uint32_t length = get_le32(place + 16);

    if (get_le32(place) != RECORD_MAGIC || length > PLACE_BYTES - HEADER_BYTES ||
        get_le32(place + 4) != crc32c(0, place + 8, HEADER_BYTES - 8 + length)) {
        return 0;
    }
    return get_le64(place + 8);
}

/* Advances `from`; false when there is none that fits. */
static bool
get_text(const uint8_t **from, const uint8_t *end, char to[static BLOCK_TEXT_SIZE])
{
    size_t length = *from < end ? **from : BLOCK_TEXT_SIZE;

    if (length >= BLOCK_TEXT_SIZE || (size_t)(end - *from) < 1 + length) {
        return false;
    }
    memcpy(to, *from + 1, length);
    to[length] = '\0';
    *from += 1 + length;
    return strlen(to) == length;
}

/* 0 or -EUCLEAN. */
static int
content_decode(struct daemon_record *record, const uint8_t *content, uint32_t length)
{
    const uint8_t *end = content + length;

    if (length < 12) {
        return -EUCLEAN;
    }
    record->jobs_reserved = get_le64(content);
    uint32_t count = get_le32(content + 8);
    content += 12;
    for (uint32_t i = 0; i < count; i++) {
        struct block_entry *entry = calloc(1, sizeof(*entry));
        ASSERT(entry != NULL);
        if (!get_text(&content, end, entry->match) || !get_text(&content, end, entry->origin)) {
            free(entry);
            return -EUCLEAN;
        }
        list_push_back(&record->manager->blocks, &entry->link);
    }
    return 0;
}

void
daemon_record_take(struct machine *machine, struct daemon_record *record)
{
    struct manager *manager = machine->manager;

    if (record == NULL) {
        return;
    }
    ASSERT_ON_REACTOR(manager->control);
    ASSERT(list_empty(&manager->blocks));
    const uint8_t *newest = record->buffer;
    if (place_generation(record->buffer + PLACE_BYTES) > place_generation(newest)) {
        newest += PLACE_BYTES;
    }
    record->generation = place_generation(newest);
    bool has_content = get_le32(record->buffer) != 0 || get_le32(record->buffer + PLACE_BYTES) != 0;
    if (record->generation == 0
            ? has_content
            : content_decode(record, newest + HEADER_BYTES, get_le32(newest + 16)) < 0) {
        event_raise(manager, EVENT_WARNING, NULL, NULL, "blocked-hosts-unknown",
                    "a part of the list of blocked hosts could not be read: look through it");
    }
    manager->job_sequence = record->jobs_reserved;
    sessions_restore_blocks(manager);
    daemon_record_touch(record);
}

/* ---- writing ---- */

static void
content_encode(const struct manager *manager, uint64_t jobs_reserved, struct byte_buffer *to)
{
    uint32_t count = 0;

    list_for_each(&manager->blocks, link) {
        count++;
    }
    byte_buffer_append_le64(to, jobs_reserved);
    byte_buffer_append_le32(to, count);
    list_for_each(&manager->blocks, link) {
        const struct block_entry *entry = list_entry(link, struct block_entry, link);
        byte_buffer_append_u8(to, (uint8_t)strlen(entry->match));
        byte_buffer_append(to, entry->match, strlen(entry->match));
        byte_buffer_append_u8(to, (uint8_t)strlen(entry->origin));
        byte_buffer_append(to, entry->origin, strlen(entry->origin));
    }
}

bool
daemon_record_is_full(const struct manager *manager)
{
    size_t bytes = HEADER_BYTES + 12;

    list_for_each(&manager->blocks, link) {
        bytes += 2 * BLOCK_TEXT_SIZE;
    }
    return bytes + 2 * BLOCK_TEXT_SIZE > PLACE_BYTES;
}

static void save_begin(struct daemon_record *record);

static void
save_answer(struct daemon_save *save, int status)
{
    timer_disarm(save->manager->control, &save->deadline);
    list_remove(&save->link);
    reactor_complete(&save->op, status);
}

static void
save_late(struct timer *timer)
{
    save_answer(container_of(timer, struct daemon_save, deadline), -ETIMEDOUT);
}

static void
save_done(struct io_op *op)
{
    struct state_transfer *transfer = container_of(op, struct state_transfer, op);
    struct daemon_record *record = container_of(transfer, struct daemon_record, transfer);

    record->busy = false;
    if (op->result < 0) {
        log_error("control", "the list of blocked hosts cannot be written: %s",
                  error_name(op->result));
    }
    list_for_each_safe(&record->covered, link) {
        save_answer(list_entry(link, struct daemon_save, link), op->result);
    }
    if (record->wanted) {
        save_begin(record);
    }
}

static void
save_begin(struct daemon_record *record)
{
    struct byte_buffer content = BYTE_BUFFER_INIT;

    ASSERT(!record->busy && list_empty(&record->covered));
    record->jobs_reserved = record->manager->job_sequence + JOBS_AHEAD;
    content_encode(record->manager, record->jobs_reserved, &content);
    ASSERT_OP(content.length_bytes, <=, (size_t)(PLACE_BYTES - HEADER_BYTES));
    record->generation++;
    uint64_t length_bytes = align_up(HEADER_BYTES + content.length_bytes, STATE_FILE_ALIGNMENT);
    uint8_t *place = record->buffer;
    memset(place, 0, length_bytes);
    put_le32(place, RECORD_MAGIC);
    put_le64(place + 8, record->generation);
    put_le32(place + 16, (uint32_t)content.length_bytes);
    memcpy(place + HEADER_BYTES, content.data, content.length_bytes);
    put_le32(place + 4, crc32c(0, place + 8, HEADER_BYTES - 8 + content.length_bytes));
    byte_buffer_free(&content);

    list_splice_back(&record->covered, &record->waiting);
    record->wanted = false;
    record->busy = true;
    record->transfer.op.done = save_done;
    state_file_write(&record->file, &record->transfer,
                     record->generation % PLACE_COUNT * PLACE_BYTES, place, length_bytes);
}

void
daemon_record_touch(struct daemon_record *record)
{
    if (record == NULL || record->buffer == NULL) {
        return;
    }
    ASSERT_ON_REACTOR(record->manager->control);
    record->wanted = true;
    if (!record->busy) {
        save_begin(record);
    }
}

void
daemon_record_save(struct machine *machine, struct daemon_save *save, io_op_done_fn *done)
{
    struct daemon_record *record = machine->manager->daemon_record;

    ASSERT_ON_REACTOR(machine->manager->control);
    if (record == NULL) {
        return;
    }
    struct reactor *control = machine->manager->control;
    machine_arm(machine, &save->op, done);
    save->manager = machine->manager;
    list_push_back(&record->waiting, &save->link);
    timer_arm(control, &save->deadline,
              reactor_now_ns(control) + machine->manager->options.disk_timeout_ns, save_late);
    daemon_record_touch(record);
}

void
daemon_record_job_counted(struct daemon_record *record)
{
    /* Before the numbers that are set aside run out. */
    if (record != NULL && record->manager->job_sequence + JOBS_AHEAD / 2 > record->jobs_reserved) {
        daemon_record_touch(record);
    }
}

bool
daemon_record_is_idle(const struct daemon_record *record)
{
    return record == NULL || !record->busy;
}
