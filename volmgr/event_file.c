/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The newest events on disk, so that `volctl events` tells after a restart what happened before it.
 *
 * THEORY OF OPERATION
 *
 * A file of slots: event n is in slot n modulo the number of slots, with a checksum of its own, so
 * nothing else must be kept in order and a torn write costs the events of one write at most. Events
 * that come close together are written together, so that a storm of them costs a bounded number of
 * writes; what a storm pushes out of memory before it was written is not written.
 *
 * Nobody waits for it: an event is in the log and in memory at once, and a moment later here.
 *
 * Invariants
 *  EF1 At most one transfer is under way.
 *  EF2 What is read is not trusted (P12): a slot that does not fit is no event.
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
    SLOT_BYTES = 1024,
    SLOT_COUNT = 10240,
    SLOT_HEADER_BYTES = 32,
    SLOT_MAGIC = 0x54564556, /* "VEVT" */
    FILE_BYTES = SLOT_BYTES * SLOT_COUNT,
    WRITE_SLOTS_MAX = 64,
};
#define WRITE_DELAY_NS (50 * NS_PER_MS)
#define RETRY_DELAY_NS (10 * NS_PER_S)

_Static_assert((int)SLOT_COUNT >= (int)EVENTS_MAX, "what memory keeps fits");
_Static_assert(sizeof(((struct event *)NULL)->pool) + sizeof(((struct event *)NULL)->subject) +
                       sizeof(((struct event *)NULL)->name) +
                       sizeof(((struct event *)NULL)->text) + SLOT_HEADER_BYTES <=
                   SLOT_BYTES,
               "an event fits its slot");

struct event_file {
    struct manager *manager;
    struct machine *machine; /* that waits for the file to be read */
    struct state_file file;
    struct state_transfer transfer;
    struct state_transfer room;
    struct timer timer;
    uint8_t *buffer;
    uint64_t written; /* events up to this number are on disk, or given up */
    uint64_t writing; /* up to this number, with the write that is under way */
    bool busy;
    bool has_failed; /* the log has been told */
};

/* ---- one slot ---- */

static uint8_t *
put_text(uint8_t *to, uint8_t *length, const char *text)
{
    *length = (uint8_t)strlen(text);
    memcpy(to, text, *length);
    return to + *length;
}

static void
slot_encode(const struct event *event, uint8_t *slot)
{
    uint8_t *at = slot + SLOT_HEADER_BYTES;

    memset(slot, 0, SLOT_BYTES);
    put_le32(slot, SLOT_MAGIC);
    put_le64(slot + 8, event->sequence);
    put_le64(slot + 16, event->realtime_ns);
    slot[24] = (uint8_t)event->severity;
    at = put_text(at, &slot[25], event->pool);
    at = put_text(at, &slot[26], event->subject);
    at = put_text(at, &slot[27], event->name);
    put_text(at, &slot[28], event->text);
    put_le32(slot + 4, crc32c(0, slot + 8, SLOT_BYTES - 8));
}

static bool
get_text(const uint8_t **from, uint8_t length, char *to, size_t to_bytes)
{
    if (length >= to_bytes) {
        return false;
    }
    for (uint8_t i = 0; i < length; i++) {
        if ((*from)[i] < 0x20 || (*from)[i] == 0x7f) {
            return false;
        }
    }
    memcpy(to, *from, length);
    to[length] = '\0';
    *from += length;
    return true;
}

static bool
slot_decode(const uint8_t slot[static SLOT_BYTES], uint64_t index, struct event *ret_event)
{
    const uint8_t *at = slot + SLOT_HEADER_BYTES;

    if (get_le32(slot) != SLOT_MAGIC ||
        get_le32(slot + 4) != crc32c(0, slot + 8, SLOT_BYTES - 8)) {
        return false;
    }
    ret_event->sequence = get_le64(slot + 8);
    ret_event->realtime_ns = get_le64(slot + 16);
    ret_event->severity = (enum event_severity)slot[24];
    return slot[24] <= EVENT_CRITICAL && ret_event->sequence % SLOT_COUNT == index &&
           ret_event->sequence > 0 && ret_event->sequence < UINT64_MAX / 2 &&
           get_text(&at, slot[25], ret_event->pool, sizeof(ret_event->pool)) &&
           get_text(&at, slot[26], ret_event->subject, sizeof(ret_event->subject)) &&
           get_text(&at, slot[27], ret_event->name, sizeof(ret_event->name)) &&
           get_text(&at, slot[28], ret_event->text, sizeof(ret_event->text));
}

/* ---- life ---- */

struct event_file *
event_file_open(struct manager *manager, struct error *error)
{
    const struct manager_options *options = &manager->options;

    if (options->state_directory == NULL) {
        return NULL;
    }
    struct event_file *file = calloc(1, sizeof(*file));
    ASSERT(file != NULL);
    file->manager = manager;
    if (state_file_open(&file->file, options->platform, options->state_directory, "events",
                        FILE_BYTES, error) < 0) {
        free(file);
        return NULL;
    }
    return file;
}

void
event_file_close(struct event_file *file)
{
    if (file == NULL) {
        return;
    }
    ASSERT(!file->busy && !timer_is_armed(&file->timer));
    state_file_close(&file->file);
    free(file->buffer);
    free(file);
}

/* ---- reading, at the start ---- */

static void
load_done(struct io_op *op)
{
    struct state_transfer *transfer = container_of(op, struct state_transfer, op);
    struct event_file *file = container_of(transfer, struct event_file, transfer);

    if (op->result < 0) {
        log_warning("event", "past events cannot be read: %s", error_name(op->result));
        memset(file->buffer, 0, FILE_BYTES);
    }
    machine_completed(file->machine, 0);
}

static void
room_done(struct io_op *op)
{
    struct state_transfer *room = container_of(op, struct state_transfer, op);
    struct event_file *file = container_of(room, struct event_file, room);

    if (op->result < 0 && op->result != -EOPNOTSUPP) {
        log_warning("event", "no room for the file of events: %s", error_name(op->result));
    }
    machine_completed(file->machine, 0);
}

void
event_file_load(struct machine *machine, struct event_file *file)
{
    if (file == NULL) {
        return;
    }
    ASSERT_ON_REACTOR(machine->manager->control);
    file->buffer = aligned_alloc(STATE_FILE_ALIGNMENT, FILE_BYTES);
    ASSERT(file->buffer != NULL);
    file->machine = machine;
    machine_arm(machine, &file->transfer.op, load_done);
    state_file_read(&file->file, &file->transfer, 0, file->buffer, FILE_BYTES);
    machine_arm(machine, &file->room.op, room_done);
    state_file_make_room(&file->file, &file->room);
}

static int
compare_events(const void *left, const void *right)
{
    const struct event *a = left;
    const struct event *b = right;
    return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}

void
event_file_take(struct machine *machine, struct event_file *file)
{
    struct byte_buffer found = BYTE_BUFFER_INIT;
    struct event event;

    if (file == NULL) {
        return;
    }
    ASSERT_ON_REACTOR(machine->manager->control);
    uint32_t raised = file->manager->event_count; /* by this run already */
    for (uint64_t i = 0; i < SLOT_COUNT; i++) {
        if (slot_decode(file->buffer + i * SLOT_BYTES, i, &event)) {
            byte_buffer_append(&found, &event, sizeof(event));
        }
    }
    struct event *events = (struct event *)(void *)found.data;
    size_t count = found.length_bytes / sizeof(*events);
    if (count > 0) {
        qsort(events, count, sizeof(*events), compare_events);
        events_restore(file->manager, events, count);
        file->written = file->manager->event_sequence - raised;
    }
    byte_buffer_free(&found);
    free(file->buffer);
    file->buffer = aligned_alloc(STATE_FILE_ALIGNMENT, WRITE_SLOTS_MAX * SLOT_BYTES);
    ASSERT(file->buffer != NULL);
    event_file_wake(file);
}

/* ---- writing ---- */

static void write_begin(struct event_file *file);

static void
write_due(struct timer *timer)
{
    write_begin(container_of(timer, struct event_file, timer));
}

static void
arm(struct event_file *file, uint64_t delay_ns)
{
    struct reactor *control = file->manager->control;
    if (!file->busy && !timer_is_armed(&file->timer)) {
        timer_arm(control, &file->timer, reactor_now_ns(control) + delay_ns, write_due);
    }
}

static void
write_done(struct io_op *op)
{
    struct state_transfer *transfer = container_of(op, struct state_transfer, op);
    struct event_file *file = container_of(transfer, struct event_file, transfer);

    file->busy = false;
    if (op->result < 0) {
        if (!file->has_failed) {
            log_error("event", "events cannot be kept over a restart: %s", error_name(op->result));
        }
        file->has_failed = true;
        if (file->manager->stopping) {
            file->written = file->manager->event_sequence; /* given up */
        }
        arm(file, RETRY_DELAY_NS);
        return;
    }
    file->has_failed = false;
    file->written = file->writing;
    if (file->written < file->manager->event_sequence) {
        arm(file, WRITE_DELAY_NS);
    }
}

/* Slots of [first, last], which begins and ends with whole pages; last is in the same round. */
static void
write_begin(struct event_file *file)
{
    enum {
        SLOTS_PER_PAGE = STATE_FILE_ALIGNMENT / SLOT_BYTES
    };
    struct manager *manager = file->manager;
    uint64_t oldest = manager->event_sequence + 1 - manager->event_count;

    if (file->written >= manager->event_sequence) {
        return;
    }
    /* From the start of the page: what is there already is written again. */
    uint64_t first = align_down(MAX(file->written + 1, oldest), SLOTS_PER_PAGE);
    uint64_t last = MIN(manager->event_sequence, first + WRITE_SLOTS_MAX - 1);
    last = MIN(last, first - first % SLOT_COUNT + SLOT_COUNT - 1);
    uint64_t length_bytes = align_up((last - first + 1) * SLOT_BYTES, STATE_FILE_ALIGNMENT);
    memset(file->buffer, 0, length_bytes);
    events_visit(manager, first, last, file->buffer, SLOT_BYTES, slot_encode);
    file->busy = true;
    file->writing = last;
    file->transfer.op.done = write_done;
    state_file_write(&file->file, &file->transfer, first % SLOT_COUNT * SLOT_BYTES, file->buffer,
                     length_bytes);
}

void
event_file_wake(struct event_file *file)
{
    if (file == NULL || file->buffer == NULL) {
        return;
    }
    ASSERT_ON_REACTOR(file->manager->control);
    if (file->written < file->manager->event_sequence) {
        arm(file, WRITE_DELAY_NS);
    }
}

bool
event_file_is_idle(struct event_file *file)
{
    if (file == NULL) {
        return true;
    }
    ASSERT_ON_REACTOR(file->manager->control);
    if (file->busy) {
        return false;
    }
    timer_disarm(file->manager->control, &file->timer);
    if (file->buffer != NULL && file->written < file->manager->event_sequence) {
        write_begin(file);
        return false;
    }
    return true;
}
