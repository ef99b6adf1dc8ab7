/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/nbd/fake_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"

enum {
    VOLUMES_MAX = 16,
    SNAPSHOTS_MAX = 16,
    GRAIN = 64 << 10,
    BLOCK = 4096,
};

struct fake_snapshot {
    char name[CHANGES_SINCE_SIZE];
    uint8_t *changed; /* one per block */
};

struct changes {
    struct volume *volume;
    const struct fake_snapshot *snapshot;
    struct message message;
};

struct volume {
    struct manager *manager;
    struct reactor *reactor;
    struct export_record record;
    struct volume_info info;
    uint8_t *memory;
    uint64_t mapped_bytes;
    uint8_t *allocated; /* one per grain */
    struct list sessions;
    struct list submitted; /* by active_link; answered at the end of the batch */
    struct list held;
    struct io_op op; /* completes a batch */
    bool op_queued;
    bool hold;
    bool reverse;
    bool expired;
    int lookup_status;
    int attach_status;
    int fail[VOLUME_OPERATION_COUNT];
    struct fake_snapshot snapshots[SNAPSHOTS_MAX];
    uint32_t snapshot_count;
    bool more_snapshots;
    int fail_changes;
    struct list held_queries;
    struct fake_volume_counters counters;
};

struct manager {
    struct reactor *control;
    struct volume *volumes[VOLUMES_MAX];
    uint32_t volume_count;
    uint64_t next_session;
    bool hold;
    struct export_lookup *held_lookups[64];
    uint32_t held_lookup_count;
    struct export_names *held_names[64];
    uint32_t held_names_count;
};

/* ---- manager ---- */

struct manager *
fake_manager_create(struct reactor *control)
{
    struct manager *manager = calloc(1, sizeof(*manager));
    ASSERT(manager != NULL);
    manager->control = control;
    return manager;
}

void
fake_manager_destroy(struct manager *manager)
{
    for (uint32_t i = 0; i < manager->volume_count; i++) {
        struct volume *volume = manager->volumes[i];
        ASSERT(list_empty(&volume->sessions) && list_empty(&volume->held));
        ASSERT_OP(volume->counters.lookups_held, ==, 0u);
        ASSERT_OP(volume->counters.changes_held, ==, 0u);
        for (uint32_t n = 0; n < volume->snapshot_count; n++) {
            free(volume->snapshots[n].changed);
        }
        munmap(volume->memory, volume->mapped_bytes);
        free(volume->allocated);
        free(volume);
    }
    free(manager);
}

static uint8_t *
map_memory(const char *file, uint64_t size_bytes)
{
    int fd = -1;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

    if (file != NULL) {
        fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ASSERT(fd >= 0);
        ASSERT(ftruncate(fd, (off_t)size_bytes) == 0);
        flags = MAP_SHARED;
    }
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    ASSERT(memory != MAP_FAILED);
    if (fd >= 0) {
        close(fd);
    }
    return memory;
}

struct volume *
fake_manager_add(struct manager *manager, const struct fake_volume_options *options)
{
    struct volume *volume = calloc(1, sizeof(*volume));

    ASSERT(volume != NULL);
    ASSERT_OP(manager->volume_count, <, (uint32_t)VOLUMES_MAX);
    volume->manager = manager;
    volume->reactor = options->reactor;
    snprintf(volume->record.name, sizeof(volume->record.name), "%s/%s", options->pool_name,
             options->name);
    snprintf(volume->record.protocol, sizeof(volume->record.protocol), "nbd");
    volume->record.read_only = options->read_only;
    volume->record.exclusive = options->exclusive;
    snprintf(volume->info.pool_name, sizeof(volume->info.pool_name), "%s", options->pool_name);
    snprintf(volume->info.name, sizeof(volume->info.name), "%s", options->name);
    volume->info.size_bytes = options->size_bytes;
    volume->info.sector_bytes = options->sector_bytes == 0 ? 512 : options->sector_bytes;
    volume->info.block_bytes = 4096;
    volume->info.grain_bytes = GRAIN;
    volume->mapped_bytes = align_up(options->size_bytes, GRAIN) + (1 << 20);
    volume->memory = map_memory(options->file, volume->mapped_bytes);
    volume->allocated = calloc(volume->mapped_bytes / GRAIN, 1);
    ASSERT(volume->allocated != NULL);
    list_init(&volume->sessions);
    list_init(&volume->submitted);
    list_init(&volume->held);
    list_init(&volume->held_queries);
    manager->volumes[manager->volume_count++] = volume;
    return volume;
}

static void
lookup_answer(struct message *message)
{
    struct export_lookup *lookup = container_of(message, struct export_lookup, message);
    reactor_complete(&lookup->op, lookup->op.result);
}

static void
lookup_on_control(struct message *message)
{
    struct export_lookup *lookup = container_of(message, struct export_lookup, message);
    struct manager *manager = lookup->manager;

    ASSERT_ON_REACTOR(manager->control);
    if (manager->hold) {
        manager->held_lookups[manager->held_lookup_count++] = lookup;
        return;
    }
    lookup->op.result = -ENOENT;
    for (uint32_t i = 0; i < manager->volume_count; i++) {
        struct volume *volume = manager->volumes[i];
        if (strcmp(volume->record.name, lookup->name) == 0) {
            lookup->op.result = volume->lookup_status;
            if (volume->lookup_status == 0) {
                lookup->ret_record = volume->record;
                lookup->ret_info = volume->info;
                lookup->ret_volume = volume;
                __atomic_add_fetch(&volume->counters.lookups_held, 1, __ATOMIC_RELAXED);
            }
        }
    }
    reactor_send(lookup->reply_to, &lookup->message, lookup_answer);
}

void
manager_export_lookup(struct manager *manager, struct export_lookup *lookup)
{
    ASSERT_OP(strlen(lookup->protocol), ==, 3u);
    lookup->manager = manager;
    lookup->reply_to = reactor_self();
    lookup->op.reactor_id = reactor_id(lookup->reply_to);
    reactor_send(manager->control, &lookup->message, lookup_on_control);
}

void
manager_export_release(struct manager *manager, struct volume *volume)
{
    (void)manager;
    uint64_t before = __atomic_fetch_sub(&volume->counters.lookups_held, 1, __ATOMIC_RELAXED);
    ASSERT_OP(before, >, 0u);
}

static void
names_answer(struct message *message)
{
    struct export_names *names = container_of(message, struct export_names, message);
    reactor_complete(&names->op, names->op.result);
}

static void
names_on_control(struct message *message)
{
    struct export_names *names = container_of(message, struct export_names, message);
    struct manager *manager = names->manager;

    names->op.result = 0;
    if (manager->hold) {
        manager->held_names[manager->held_names_count++] = names;
        return;
    }
    for (uint32_t i = 0; i < manager->volume_count; i++) {
        const char *name = manager->volumes[i]->record.name;
        if (manager->volumes[i]->lookup_status == -EAGAIN) {
            names->op.result = -EAGAIN; /* its pool is being opened */
            continue;
        }
        byte_buffer_append(&names->ret_names, name, strlen(name) + 1);
    }
    reactor_send(names->reply_to, &names->message, names_answer);
}

void
manager_export_names(struct manager *manager, struct export_names *names)
{
    names->manager = manager;
    names->reply_to = reactor_self();
    names->op.reactor_id = reactor_id(names->reply_to);
    reactor_send(manager->control, &names->message, names_on_control);
}

void
fake_manager_hold_lookups(struct manager *manager, bool hold)
{
    manager->hold = hold;
    if (hold) {
        return;
    }
    for (uint32_t i = 0; i < manager->held_lookup_count; i++) {
        reactor_send(manager->control, &manager->held_lookups[i]->message, lookup_on_control);
    }
    for (uint32_t i = 0; i < manager->held_names_count; i++) {
        reactor_send(manager->control, &manager->held_names[i]->message, names_on_control);
    }
    manager->held_lookup_count = 0;
    manager->held_names_count = 0;
}

/* ---- sessions ---- */

void
volume_get_info(struct volume *volume, struct volume_info *ret_info)
{
    *ret_info = volume->info;
}

struct reactor *
volume_reactor(struct volume *volume)
{
    return volume->reactor;
}

int
volume_attach(struct volume *volume, struct volume_session *session)
{
    ASSERT_ON_REACTOR(volume->reactor);
    ASSERT(session->event != NULL && session->protocol != NULL);
    ASSERT_OP(session->in_flight, ==, 0u);
    if (volume->attach_status < 0) {
        return volume->attach_status;
    }
    if (session->exclusive && !list_empty(&volume->sessions)) {
        return -EBUSY;
    }
    session->volume = volume;
    session->id = ++volume->manager->next_session;
    list_push_back(&volume->sessions, &session->link);
    volume->counters.sessions++;
    return 0;
}

void
volume_detach(struct volume_session *session)
{
    ASSERT_ON_REACTOR(session->volume->reactor);
    ASSERT_OP(session->in_flight, ==, 0u);
    session->volume->counters.sessions--;
    list_remove(&session->link);
}

/* ---- changes since snapshots ---- */

void
fake_volume_add_snapshot(struct volume *volume, const char *name)
{
    struct fake_snapshot *snapshot = &volume->snapshots[volume->snapshot_count++];

    ASSERT_OP(volume->snapshot_count, <=, (uint32_t)SNAPSHOTS_MAX);
    snprintf(snapshot->name, sizeof(snapshot->name), "%s", name);
    snapshot->changed = calloc(volume->mapped_bytes / BLOCK, 1);
    ASSERT(snapshot->changed != NULL);
}

void
fake_volume_rename(struct volume *volume, const char *name)
{
    snprintf(volume->record.name, sizeof(volume->record.name), "%s", name);
}

void
fake_volume_set_more_snapshots(struct volume *volume, bool more)
{
    volume->more_snapshots = more;
}

void
fake_volume_fail_changes(struct volume *volume, int status)
{
    volume->fail_changes = status;
}

static void
note_changed(struct volume *volume, uint64_t offset_bytes, uint64_t length_bytes)
{
    for (uint32_t n = 0; n < volume->snapshot_count; n++) {
        for (uint64_t at = offset_bytes / BLOCK; at <= (offset_bytes + length_bytes - 1) / BLOCK;
             at++) {
            volume->snapshots[n].changed[at] = 1;
        }
    }
}

static void
since_names_answer(struct message *message)
{
    struct changes_names *names = container_of(message, struct changes_names, message);
    reactor_complete(&names->op, 0);
}

static void
since_names_on_control(struct message *message)
{
    struct changes_names *names = container_of(message, struct changes_names, message);
    const struct volume *volume = names->volume;

    ASSERT_ON_REACTOR(names->manager->control);
    ASSERT_OP(volume->counters.lookups_held, >, 0u);
    for (uint32_t n = volume->snapshot_count; n-- > 0;) {
        const char *name = volume->snapshots[n].name;
        if (strchr(name, '@') == NULL) {
            byte_buffer_append(&names->ret_names, name, strlen(name) + 1);
        }
    }
    names->ret_more = volume->more_snapshots;
    reactor_send(names->reply_to, &names->message, since_names_answer);
}

void
manager_changes_names(struct manager *manager, struct changes_names *names)
{
    names->manager = manager;
    names->reply_to = reactor_self();
    names->op.reactor_id = reactor_id(names->reply_to);
    names->ret_names = BYTE_BUFFER_INIT;
    names->ret_more = false;
    reactor_send(manager->control, &names->message, since_names_on_control);
}

static void
changes_open_answer(struct message *message)
{
    struct changes_open *opening = container_of(message, struct changes_open, message);
    reactor_complete(&opening->op, opening->op.result);
}

static void
changes_open_on_control(struct message *message)
{
    struct changes_open *opening = container_of(message, struct changes_open, message);
    struct volume *volume = opening->volume;

    ASSERT_ON_REACTOR(opening->manager->control);
    ASSERT_OP(volume->counters.lookups_held, >, 0u);
    opening->op.result = -ENOENT;
    for (uint32_t n = 0; n < volume->snapshot_count; n++) {
        if (strcmp(volume->snapshots[n].name, opening->since) == 0) {
            opening->ret_changes = calloc(1, sizeof(*opening->ret_changes));
            ASSERT(opening->ret_changes != NULL);
            opening->ret_changes->volume = volume;
            opening->ret_changes->snapshot = &volume->snapshots[n];
            opening->op.result = 0;
            volume->counters.changes_held++;
        }
    }
    reactor_send(opening->reply_to, &opening->message, changes_open_answer);
}

void
manager_changes_open(struct manager *manager, struct changes_open *opening)
{
    opening->manager = manager;
    opening->reply_to = reactor_self();
    opening->op.reactor_id = reactor_id(opening->reply_to);
    opening->ret_changes = NULL;
    reactor_send(manager->control, &opening->message, changes_open_on_control);
}

bool
changes_are_of(const struct changes *changes, const struct volume *volume)
{
    return changes->volume == volume;
}

static void
changes_close_on_control(struct message *message)
{
    struct changes *changes = container_of(message, struct changes, message);

    ASSERT_OP(changes->volume->counters.changes_held, >, 0u);
    changes->volume->counters.changes_held--;
    free(changes);
}

void
manager_changes_close(struct changes *changes)
{
    reactor_send(changes->volume->manager->control, &changes->message, changes_close_on_control);
}

static void
tell_changes(const struct changes *changes, struct changes_query *query)
{
    uint64_t end = query->offset_bytes + query->length_bytes;

    for (uint64_t at = query->offset_bytes; at < end;) {
        uint64_t stop = MIN(end, (at / BLOCK + 1) * BLOCK);
        bool changed = changes->snapshot->changed[at / BLOCK] != 0;
        struct volume_status_extent *last =
            query->ret_count > 0 ? &query->extents[query->ret_count - 1] : NULL;
        if (last != NULL && last->changed == changed) {
            last->length_bytes += stop - at;
        } else if (query->ret_count == query->extents_max) {
            return;
        } else {
            query->extents[query->ret_count++] = (struct volume_status_extent){
                .length_bytes = stop - at,
                .changed = changed,
            };
        }
        at = stop;
    }
}

void
changes_query(struct changes *changes, struct changes_query *query)
{
    struct volume *volume = changes->volume;

    ASSERT_ON_REACTOR(volume->reactor);
    ASSERT(!list_empty(&volume->sessions));
    ASSERT(query->extents_max > 0 && query->length_bytes > 0);
    volume->counters.changes_queries++;
    query->op.reactor_id = reactor_id(volume->reactor);
    query->ret_count = 0;
    if (volume->fail_changes == 0) {
        tell_changes(changes, query);
    }
    if (volume->hold) {
        list_push_back(&volume->held_queries, &query->link);
    } else {
        reactor_complete(&query->op, volume->fail_changes);
    }
}

static void
answer_held_queries(struct volume *volume)
{
    for (struct list *link = list_pop_front(&volume->held_queries); link != NULL;
         link = list_pop_front(&volume->held_queries)) {
        struct changes_query *query = list_entry(link, struct changes_query, link);
        reactor_complete(&query->op, volume->fail_changes);
    }
}

/* ---- requests ---- */

static void
move_payload(struct volume *volume, const struct volume_request *request, bool write)
{
    uint8_t *at = volume->memory + request->offset_bytes;
    uint64_t total = 0;

    for (uint32_t i = 0; i < request->iov_count; i++) {
        const struct iovec *segment = &request->iov[i];
        if (write) {
            memcpy(at, segment->iov_base, segment->iov_len);
        } else {
            memcpy(segment->iov_base, at, segment->iov_len);
        }
        at += segment->iov_len;
        total += segment->iov_len;
    }
    ASSERT_OP(total, ==, request->length_bytes);
}

static void
set_allocated(struct volume *volume, uint64_t offset_bytes, uint64_t length_bytes, uint8_t value)
{
    uint64_t first = offset_bytes / GRAIN;
    uint64_t last = (offset_bytes + length_bytes - 1) / GRAIN;

    for (uint64_t grain = first; grain <= last; grain++) {
        bool whole = grain * GRAIN >= offset_bytes &&
                     (grain + 1) * GRAIN <= offset_bytes + length_bytes;
        if (value != 0 || whole) {
            volume->allocated[grain] = value;
        }
    }
}

static void
report_status(struct volume *volume, struct volume_request *request)
{
    uint64_t at = request->offset_bytes;
    uint64_t end = at + request->length_bytes;
    uint32_t count = 0;

    ASSERT_OP(request->extents_max, >, 0u);
    while (at < end) {
        bool hole = volume->allocated[at / GRAIN] == 0;
        uint64_t stop = MIN(end, (at / GRAIN + 1) * GRAIN);
        struct volume_status_extent *extent = count > 0 ? &request->extents[count - 1] : NULL;
        if (extent != NULL && extent->hole == hole) {
            extent->length_bytes += stop - at;
        } else if (count == request->extents_max) {
            break;
        } else {
            request->extents[count++] = (struct volume_status_extent){
                .length_bytes = stop - at,
                .hole = hole,
                .zero = hole,
            };
        }
        at = stop;
    }
    request->extents_count = count;
}

static int
perform(struct volume *volume, struct volume_request *request)
{
    if (volume->fail[request->operation] != 0) {
        return volume->fail[request->operation];
    }
    switch (request->operation) {
    case VOLUME_READ:
        move_payload(volume, request, false);
        break;
    case VOLUME_WRITE:
        move_payload(volume, request, true);
        note_changed(volume, request->offset_bytes, request->length_bytes);
        set_allocated(volume, request->offset_bytes, request->length_bytes, 1);
        break;
    case VOLUME_DISCARD:
    case VOLUME_WRITE_ZEROES:
        memset(volume->memory + request->offset_bytes, 0, request->length_bytes);
        note_changed(volume, request->offset_bytes, request->length_bytes);
        set_allocated(volume, request->offset_bytes, request->length_bytes,
                      (request->flags & VOLUME_NO_HOLE) != 0);
        break;
    case VOLUME_STATUS:
        report_status(volume, request);
        break;
    case VOLUME_FLUSH:
    case VOLUME_PREFETCH:
    case VOLUME_OPERATION_COUNT:
        break;
    }
    return 0;
}

static void
answer(struct volume *volume, struct volume_request *request)
{
    if (!request->replied) {
        request->status = perform(volume, request);
        request->replied = true;
        request->reply(request);
    }
    volume->counters.in_flight--;
    request->release(request);
}

static void
answer_batch(struct io_op *op)
{
    struct volume *volume = container_of(op, struct volume, op);
    struct list batch;

    ASSERT_ON_REACTOR(volume->reactor);
    volume->op_queued = false;
    list_init(&batch);
    list_splice_back(&batch, &volume->submitted);
    while (!list_empty(&batch)) {
        struct list *node = volume->reverse && !volume->hold ? batch.prev : batch.next;
        struct volume_request *request = list_entry(node, struct volume_request, active_link);
        list_remove(node);
        if (volume->hold) {
            list_push_back(&volume->held, node);
        } else {
            answer(volume, request);
        }
    }
}

static void
queue_batch(struct volume *volume)
{
    if (!volume->op_queued) {
        volume->op_queued = true;
        volume->op.done = answer_batch;
        volume->op.reactor_id = reactor_id(volume->reactor);
        reactor_complete(&volume->op, 0);
    }
}

/* The caller's side of the contract. */
static void
check_request(const struct volume *volume, const struct volume_request *request)
{
    ASSERT_ON_REACTOR(volume->reactor);
    ASSERT_OP((uint32_t)request->operation, <, (uint32_t)VOLUME_OPERATION_COUNT);
    ASSERT(request->reply != NULL && request->release != NULL);
    ASSERT(!list_linked(&request->active_link));
    if (request->operation == VOLUME_FLUSH) {
        return;
    }
    ASSERT_OP(request->length_bytes, >, 0u);
    ASSERT_OP(request->offset_bytes, <, volume->info.size_bytes);
    ASSERT_OP(request->length_bytes, <=, volume->info.size_bytes - request->offset_bytes);
    if (request->operation != VOLUME_READ && request->operation != VOLUME_WRITE) {
        return;
    }
    ASSERT_OP(request->iov_count, >, 0u);
    /* Whole blocks must not have to be copied. */
    uint64_t at = request->offset_bytes;
    for (uint32_t i = 0; i < request->iov_count; i++) {
        uint64_t misplaced = ((uintptr_t)request->iov[i].iov_base - at) % 4096;
        ASSERT(misplaced == 0 || request->length_bytes < 4096 ||
               request->length_bytes + 4096 > (32u << 20));
        at += request->iov[i].iov_len;
    }
}

void
volume_request_init(struct volume_request *request)
{
    memset(request, 0, sizeof(*request));
    list_init(&request->active_link);
}

void
volume_submit(struct volume *volume, struct volume_request *request)
{
    struct fake_volume_counters *counters = &volume->counters;

    check_request(volume, request);
    counters->requests[request->operation]++;
    counters->fua += (request->flags & VOLUME_FUA) != 0;
    counters->no_hole += (request->flags & VOLUME_NO_HOLE) != 0;
    counters->fast_zero += (request->flags & VOLUME_FAST_ZERO) != 0;
    counters->in_flight++;
    counters->in_flight_max = MAX(counters->in_flight_max, counters->in_flight);
    request->replied = false;
    list_push_back(&volume->submitted, &request->active_link);
    queue_batch(volume);
}

/* ---- hooks ---- */

void
fake_volume_set_lookup_status(struct volume *volume, int status)
{
    volume->lookup_status = status;
}

void
fake_volume_fail(struct volume *volume, enum volume_operation operation, int status)
{
    volume->fail[operation] = status;
}

static void
answer_held(struct message *message)
{
    struct volume *volume = *(struct volume **)(message + 1);

    list_splice_back(&volume->submitted, &volume->held);
    queue_batch(volume);
    answer_held_queries(volume);
    free(message);
}

void
fake_volume_hold(struct volume *volume, bool hold)
{
    volume->hold = hold;
    if (!hold && !(list_empty(&volume->held) && list_empty(&volume->held_queries))) {
        struct message *message = calloc(1, sizeof(*message) + sizeof(volume));
        ASSERT(message != NULL);
        *(struct volume **)(message + 1) = volume;
        reactor_send(volume->reactor, message, answer_held);
    }
}

static void
expire_held(struct message *message)
{
    struct volume *volume = *(struct volume **)(message + 1);

    list_for_each(&volume->held, node) {
        struct volume_request *request = list_entry(node, struct volume_request, active_link);
        if (!request->replied) {
            request->replied = true;
            request->status = -ETIMEDOUT;
            request->reply(request);
        }
    }
    free(message);
}

void
fake_volume_expire(struct volume *volume)
{
    struct message *message = calloc(1, sizeof(*message) + sizeof(volume));

    ASSERT(message != NULL);
    *(struct volume **)(message + 1) = volume;
    reactor_send(volume->reactor, message, expire_held);
}

void
fake_volume_reverse(struct volume *volume, bool reverse)
{
    volume->reverse = reverse;
}

void
fake_volume_set_attach_status(struct volume *volume, int status)
{
    volume->attach_status = status;
}

struct event_message {
    struct message message;
    struct volume *volume;
    enum volume_session_event event;
};

static void
deliver_event(struct message *message)
{
    struct event_message *event = container_of(message, struct event_message, message);

    list_for_each_safe(&event->volume->sessions, node) {
        struct volume_session *session = list_entry(node, struct volume_session, link);
        session->dropping = event->event == VOLUME_SESSION_DROP;
        session->event(session, event->event);
    }
    free(event);
}

void
fake_volume_send_event(struct volume *volume, enum volume_session_event event)
{
    struct event_message *message = calloc(1, sizeof(*message));

    ASSERT(message != NULL);
    message->volume = volume;
    message->event = event;
    reactor_send(volume->reactor, &message->message, deliver_event);
}

void
fake_volume_set_size(struct volume *volume, uint64_t size_bytes)
{
    ASSERT_OP(size_bytes, <=, volume->mapped_bytes);
    volume->info.size_bytes = size_bytes;
}

uint8_t *
fake_volume_memory(struct volume *volume)
{
    return volume->memory;
}

void
fake_volume_set_allocated(struct volume *volume, uint64_t offset_bytes, uint64_t length_bytes)
{
    set_allocated(volume, offset_bytes, length_bytes, 1);
}

const struct fake_volume_counters *
fake_volume_counters(const struct volume *volume)
{
    return &volume->counters;
}

const struct volume_session *
fake_volume_session(const struct volume *volume)
{
    return list_empty(&volume->sessions)
               ? NULL
               : list_entry(volume->sessions.prev, struct volume_session, link);
}
