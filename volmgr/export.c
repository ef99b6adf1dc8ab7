/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exports: under which names hosts find volumes. Names are unique for each protocol over all pools.
 *
 * Targets look up from any reactor, by a message to the control reactor. A look-up holds the volume
 * (it is not deleted) until the target gives it back. Between the look-up and the attaching the
 * export may be removed: the volume's reactor knows which exports are open, and lets nobody in who
 * has come by another.
 *
 * An export of a snapshot hangs on the snapshot's volume like the others, and is read-only. What
 * hosts attach to is a view volume, which exists while somebody has looked it up.
 *
 * Invariants
 *  EX1  A name is taken from before the commit that gives it until after the one that ends it, so
 *       that operations of two pools, whose commits are not in one line, cannot both succeed.
 *  EX2  An export is found by look-ups only while its record is durable and it is open.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/snapshot_control_impl.h"

/* ---- the table ---- */

void
exports_init(struct manager *manager)
{
    list_init(&manager->exports);
    list_init(&manager->default_exports);
    hash_table_init(&manager->exports_by_name, 1024);
}

void
exports_free(struct manager *manager)
{
    ASSERT(list_empty(&manager->exports) && list_empty(&manager->default_exports));
    hash_table_free(&manager->exports_by_name);
}

static uint64_t
export_hash(const char *protocol, const char *name)
{
    return hash_u64(text_hash(protocol) + 3 * text_hash(name));
}

static struct export *
export_find(const struct manager *manager, const char *protocol, const char *name)
{
    uint64_t hash = export_hash(protocol, name);

    for (struct hash_node *node = hash_table_chain(&manager->exports_by_name, hash); node != NULL;
         node = node->next) {
        struct export *export = container_of(node, struct export, by_name);
        if (node->hash == hash && strcmp(export->record.protocol, protocol) == 0 &&
            strcmp(export->record.name, name) == 0) {
            return export;
        }
    }
    return NULL;
}

static struct export *
export_find_default(const struct manager *manager, const char *protocol)
{
    list_for_each(&manager->default_exports, link) {
        struct export *export = list_entry(link, struct export, default_link);
        if (strcmp(export->record.protocol, protocol) == 0) {
            return export;
        }
    }
    return NULL;
}

/* ---- what the volume's reactor knows ---- */

bool
volume_export_is_open(const struct volume *volume, uint64_t export_id)
{
    const uint64_t *ids = (const uint64_t *)(const void *)volume->export_ids.data;
    size_t count = volume->export_ids.length_bytes / sizeof(*ids);

    for (size_t i = 0; i < count; i++) {
        if (ids[i] == export_id) {
            return true;
        }
    }
    return false;
}

void
volume_open_export(struct volume *volume, uint64_t export_id)
{
    if (!volume_export_is_open(volume, export_id)) {
        byte_buffer_append(&volume->export_ids, &export_id, sizeof(export_id));
    }
}

void
volume_shut_export(struct volume *volume, uint64_t export_id)
{
    uint64_t *ids = (uint64_t *)(void *)volume->export_ids.data;
    size_t count = volume->export_ids.length_bytes / sizeof(*ids);

    for (size_t i = 0; i < count; i++) {
        if (ids[i] == export_id) {
            ids[i] = ids[count - 1];
            volume->export_ids.length_bytes -= sizeof(*ids);
            return;
        }
    }
}

/* ---- the table, control ---- */

/* Take the name, if nobody has it. */
static void
export_activate(struct manager *manager, struct export *export)
{
    ASSERT(!export->active);
    export->active = export_find(manager, export->record.protocol, export->record.name) == NULL;
    if (export->active) {
        hash_table_insert(&manager->exports_by_name, &export->by_name,
                          export_hash(export->record.protocol, export->record.name));
    }
    /* Where pools were made apart there may be two: the first one keeps the place. */
    if (export->active && export->access.is_default &&
        export_find_default(manager, export->record.protocol) == NULL) {
        list_push_back(&manager->default_exports, &export->default_link);
    }
}

static void
export_deactivate(struct manager *manager, struct export *export)
{
    if (export->active) {
        hash_table_remove(&manager->exports_by_name, &export->by_name);
        export->active = false;
    }
    list_remove(&export->default_link);
}

/* A name is free: an export of another pool may have waited for it. */
static void
serve_next(struct manager *manager, const char *protocol, const char *name)
{
    if (manager->stopping) {
        return;
    }
    list_for_each(&manager->exports, link) {
        struct export *export = list_entry(link, struct export, manager_link);
        if (!export->active && strcmp(export->record.protocol, protocol) == 0 &&
            strcmp(export->record.name, name) == 0) {
            export_activate(manager, export);
            event_raise(manager, EVENT_INFO, export->volume->pool->name,
                        export->volume->durable.name, "export-name-free",
                        "the name `%s` is free: this export is served by %s", name, protocol);
            return;
        }
    }
}

static struct snapshot *
find_exported(const struct volume *volume, uint64_t snapshot_id)
{
    list_for_each(&volume->snapshots, link) {
        struct snapshot *snapshot = list_entry(link, struct snapshot, volume_link);
        if (snapshot->record.id == snapshot_id) {
            return snapshot->record.state == SNAPSHOT_KEPT ? snapshot : NULL;
        }
    }
    return NULL;
}

static struct export *
export_add(struct volume *volume, const struct export_record *record)
{
    struct manager *manager = volume->pool->manager;
    struct export *export = calloc(1, sizeof(*export));

    ASSERT(export != NULL);
    export->volume = volume;
    export->snapshot = record->snapshot != 0 ? find_exported(volume, record->snapshot) : NULL;
    export->record = *record;
    if (export_access_parse(record->options, &export->access) < 0) {
        event_raise(manager, EVENT_WARNING, volume->pool->name, volume->durable.name,
                    "export-options-unknown",
                    "the rules of the export `%s` are not understood: nobody is let in",
                    record->name);
    }
    list_init(&export->default_link);
    export_activate(manager, export);
    list_push_back(&manager->exports, &export->manager_link);
    list_push_back(&volume->exports, &export->volume_link);
    return export;
}

void
export_set_hidden(struct export *export, bool hidden)
{
    ASSERT_ON_REACTOR(export->volume->pool->manager->control);
    export->hidden = hidden;
}

void
export_remove(struct export *export)
{
    ASSERT_ON_REACTOR(export->volume->pool->manager->control);
    struct manager *manager = export->volume->pool->manager;

    const struct export_record record = export->record;
    bool was_active = export->active;

    ASSERT(export->renamed == NULL);
    export_deactivate(manager, export);
    list_remove(&export->manager_link);
    list_remove(&export->volume_link);
    free(export);
    if (was_active) {
        serve_next(manager, record.protocol, record.name);
    }
}

void
export_restore(struct volume *volume, const struct export_record *record)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    if (record->snapshot != 0 && find_exported(volume, record->snapshot) == NULL) {
        event_raise(volume->pool->manager, EVENT_WARNING, volume->pool->name, volume->durable.name,
                    "export-snapshot-missing",
                    "the export `%.100s` is of a snapshot that is not there: it is not served",
                    record->name);
        return;
    }
    const struct export *export = export_add(volume, record);

    if (export->snapshot == NULL) {
        volume_open_export(volume, record->id); /* its reactor does not serve it yet */
    }
    if (!export->active) {
        event_raise(volume->pool->manager, EVENT_WARNING, volume->pool->name,
                    volume->durable.name, "export-name-taken",
                    "another pool exports something as `%s` by %s: this export is not served",
                    record->name, record->protocol);
    }
}

void
exports_forget(struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    list_for_each_safe(&volume->exports, link) {
        export_remove(list_entry(link, struct export, volume_link));
    }
    byte_buffer_free(&volume->export_ids); /* its reactor has let go of it */
}

/* ---- renaming ---- */

/* Under which it is found if no other name was wished. */
static void
export_default_name(const struct export *export, const char *volume_name,
                    char text[static SNAPSHOT_PATH_SIZE])
{
    struct volume_name name = { 0 };

    snprintf(name.pool, sizeof(name.pool), "%s", export->volume->pool->name);
    snprintf(name.volume, sizeof(name.volume), "%s", volume_name);
    if (export->snapshot != NULL) {
        snprintf(name.snapshot, sizeof(name.snapshot), "%s", export->snapshot->record.name);
    }
    volume_name_format(&name, text);
}

int
exports_rename_begin(struct volume *volume, const char *new_volume_name, struct byte_buffer *batch,
                     struct error *error)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    struct manager *manager = volume->pool->manager;
    char old_name[SNAPSHOT_PATH_SIZE];
    char new_name[SNAPSHOT_PATH_SIZE];

    list_for_each(&volume->exports, link) {
        struct export *export = list_entry(link, struct export, volume_link);
        export_default_name(export, volume->durable.name, old_name);
        if (strcmp(export->record.name, old_name) != 0) {
            continue;
        }
        if (export->pending) {
            error_set(error, -EBUSY, "`%s` is being exported: try again", old_name);
            exports_rename_end(volume, false);
            return -EBUSY;
        }
        struct export *renamed = calloc(1, sizeof(*renamed));
        ASSERT(renamed != NULL);
        renamed->volume = volume;
        renamed->snapshot = export->snapshot;
        renamed->record = export->record;
        renamed->hidden = true;
        export_default_name(export, new_volume_name, new_name);
        if (strlen(new_name) >= sizeof(export->record.name)) {
            error_set(error, -ENAMETOOLONG,
                      "`%.300s` is too long for the name of an export: remove that export first",
                      new_name);
            exports_rename_end(volume, false);
            return -ENAMETOOLONG;
        }
        memcpy(renamed->record.name, new_name, strlen(new_name) + 1);
        list_init(&renamed->default_link);
        export_activate(manager, renamed);
        export->renamed = renamed;
        if (!renamed->active) {
            error_set(error, -EEXIST,
                      "the %s export of this volume would be `%s` then, and there is one of that "
                      "name already: remove one of them first",
                      renamed->record.protocol, renamed->record.name);
            exports_rename_end(volume, false);
            return -EEXIST;
        }
        schema_put_export(batch, &renamed->record);
    }
    return 0;
}

void
exports_rename_end(struct volume *volume, bool done)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    struct manager *manager = volume->pool->manager;

    list_for_each(&volume->exports, link) {
        struct export *export = list_entry(link, struct export, volume_link);
        struct export *renamed = export->renamed;
        if (renamed == NULL) {
            continue;
        }
        export->renamed = NULL;
        export_deactivate(manager, renamed);
        if (done) {
            const struct export_record old = export->record;
            export_deactivate(manager, export);
            export->record = renamed->record;
            export_activate(manager, export);
            serve_next(manager, old.protocol, old.name);
            event_raise(manager, EVENT_INFO, volume->pool->name, volume->durable.name,
                        "export-renamed",
                        "hosts find it as `%.100s` from now on; those that are attached stay, and "
                        "need the new name to come again",
                        export->record.name);
        }
        free(renamed);
    }
}

uint32_t
volume_export_count(const struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    uint32_t count = 0;
    list_for_each(&volume->exports, link) {
        count += list_entry(link, struct export, volume_link)->snapshot == NULL;
    }
    return count;
}

/* ---- create ---- */

#define EXPORT_CREATE_PHASES(X)                                                                    \
    X(CHECK)                                                                                       \
    X(OPEN)                                                                                        \
    X(SHOW)                                                                                        \
    X(UNDO)                                                                                        \
    X(END)

enum export_create_phase {
#define PHASE_ENUM(name) CREATE_##name,
    EXPORT_CREATE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CREATE_PHASE_COUNT
};

static const char *const CREATE_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    EXPORT_CREATE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(CREATE_PHASE_NAMES) == CREATE_PHASE_COUNT, "a name for each phase");

struct export_creation {
    struct machine machine;
    struct export_create *create;
    struct volume *volume;
    struct export *export;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
};

MACHINE_DONE(create_commit_done, struct export_creation, commit.op)

static int
name_by_default(struct export_creation *creation, struct error *error)
{
    struct export_record *record = &creation->create->record;
    char name[SNAPSHOT_PATH_SIZE];

    volume_name_format(&creation->create->name, name);
    if (strlen(name) >= sizeof(record->name)) {
        return error_set(error, -ENAMETOOLONG,
                         "`%.300s` is too long for the name of an export: give it another one",
                         name);
    }
    memcpy(record->name, name, strlen(name) + 1);
    return 0;
}

static enum machine_step
create_check(struct export_creation *creation)
{
    struct machine *machine = &creation->machine;
    struct pool *pool = machine->pool;
    struct export_record *record = &creation->create->record;

    struct volume *volume = machine_find_volume(machine, pool, creation->create->name.volume);
    if (volume == NULL) {
        return MACHINE_NEXT;
    }
    if (record->protocol[0] == '\0') {
        return machine_fail(machine, -EINVAL, "an export needs a protocol");
    }
    record->snapshot = 0;
    if (creation->create->name.snapshot[0] != '\0') {
        const struct snapshot *snapshot = volume_find_snapshot(
            volume, creation->create->name.snapshot, &machine->control->error);
        if (snapshot == NULL) {
            return machine_fail_noted(machine);
        }
        record->snapshot = snapshot->record.id;
        record->read_only = true;
    }
    if (record->name[0] == '\0' && name_by_default(creation, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    if (export_find(machine->manager, record->protocol, record->name) != NULL) {
        return machine_fail(machine, -EEXIST, "there is a %s export `%s` already",
                            record->protocol, record->name);
    }
    struct export_access access;
    if (export_access_parse(record->options, &access) < 0) {
        return machine_fail(machine, -EINVAL, "the rules of the export are not understood");
    }
    const struct export *other = export_find_default(machine->manager, record->protocol);
    if (access.is_default && other != NULL) {
        return machine_fail(machine, -EBUSY, "`%s` is the default %s export already",
                            other->record.name, record->protocol);
    }
    creation->volume = volume;
    record->id = pool->record.next_export++;
    record->volume = volume->durable.id;
    creation->commit.has_numbers = true;
    creation->export = export_add(volume, record);
    ASSERT(creation->export->active);
    creation->export->hidden = true;
    creation->export->pending = true;
    volume->holds++; /* it is not deleted, and the pool not freed, while this is out of the line */
    schema_put_export(&creation->batch, record);
    creation->commit.batch = &creation->batch;
    machine_arm(machine, &creation->commit.op, create_commit_done);
    committer_submit(pool, &creation->commit);
    machine_step_out(machine); /* many share a commit */
    return machine_wait(machine);
}

static enum machine_step
open_visit(struct round_stop *stop)
{
    struct export_creation *creation = container_of(stop->round, struct export_creation, round);

    volume_open_export(creation->volume, creation->create->record.id);
    return MACHINE_NEXT;
}

static enum machine_step
create_open(struct export_creation *creation)
{
    struct machine *machine = &creation->machine;

    if (machine->status < 0) {
        return machine_fail(machine, machine->status,
                            "the export could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    /* A view learns it with each look-up. Else: recorded; it is served from the next start on. */
    if (!machine->pool->stopping && creation->export->snapshot == NULL) {
        round_one(machine, &creation->round, creation->volume->shard->index, open_visit);
    }
    return machine_wait(machine);
}

static enum machine_step
create_phase(struct machine *machine, uint32_t phase)
{
    struct export_creation *creation = container_of(machine, struct export_creation, machine);

    switch ((enum export_create_phase)phase) {
    case CREATE_CHECK:
        return create_check(creation);
    case CREATE_OPEN:
        return create_open(creation);
    case CREATE_SHOW:
        creation->export->pending = false;
        creation->export->hidden = false;
        return machine_goto(machine, CREATE_END);
    case CREATE_UNDO:
        if (creation->export != NULL) {
            export_remove(creation->export);
        }
        return MACHINE_NEXT;
    case CREATE_END:
        if (creation->export != NULL) {
            creation->volume->holds--;
        }
        return MACHINE_NEXT;
    case CREATE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
create_release(struct machine *machine)
{
    struct export_creation *creation = container_of(machine, struct export_creation, machine);

    round_free(&creation->round);
    byte_buffer_free(&creation->batch);
    free(creation);
}

static const struct machine_ops EXPORT_CREATE_OPS = {
    .name = "export",
    .phase_names = CREATE_PHASE_NAMES,
    .phase_count = CREATE_PHASE_COUNT,
    .failed_phase = CREATE_UNDO,
    .phase = create_phase,
    .release = create_release,
};

void
manager_export_create(struct manager *manager, struct export_create *create)
{
    struct export_creation *creation = calloc(1, sizeof(*creation));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(creation != NULL);
    machine_init(&creation->machine, &EXPORT_CREATE_OPS, manager, &create->control);
    creation->create = create;
    machine_start_for_volume(&creation->machine, &create->name);
}

/* ---- listing ---- */

struct export_listing {
    struct machine machine;
    struct export_query *query;
    struct round round;
    struct volume **volumes;
};

static const char *const LIST_PHASE_NAMES[] = { "ASK" };

static enum machine_step
list_visit(struct round_stop *stop)
{
    struct export_listing *listing = container_of(stop->round, struct export_listing, round);

    for (uint32_t i = 0; i < listing->query->ret_count; i++) {
        const struct volume *volume = listing->volumes[i];
        struct export_report *report = &listing->query->ret_exports[i];
        if (volume == NULL || volume->shard->index != stop->index) {
            continue;
        }
        list_for_each(&volume->sessions, link) {
            const struct volume_session *session =
                list_entry(link, struct volume_session, link);
            if (strcmp(session->protocol, report->record.protocol) == 0) {
                report->session_count++;
            }
        }
    }
    return MACHINE_NEXT;
}

static enum machine_step
list_phase(struct machine *machine, uint32_t phase)
{
    struct export_listing *listing = container_of(machine, struct export_listing, machine);
    struct export_query *query = listing->query;
    uint32_t room = 0;

    ASSERT_OP(phase, ==, 0u);
    list_for_each(&machine->manager->exports, link) {
        room++;
    }
    query->ret_exports = calloc(MAX(room, 1u), sizeof(*query->ret_exports));
    listing->volumes = calloc(MAX(room, 1u), sizeof(*listing->volumes));
    ASSERT(query->ret_exports != NULL && listing->volumes != NULL);
    list_for_each(&machine->manager->exports, link) {
        const struct export *export = list_entry(link, struct export, manager_link);
        struct volume *volume = export->volume;
        if (export->pending || !pool_is_serving(volume->pool) ||
            (query->protocol[0] != '\0' &&
             strcmp(query->protocol, export->record.protocol) != 0)) {
            continue;
        }
        struct export_report *report = &query->ret_exports[query->ret_count];
        const struct snapshot *snapshot = export->snapshot;
        listing->volumes[query->ret_count++] = snapshot != NULL ? snapshot->view : volume;
        report->record = export->record;
        report->size_bytes =
            snapshot != NULL ? snapshot->record.size_bytes : volume->durable.size_bytes;
        snprintf(report->volume.snapshot, sizeof(report->volume.snapshot), "%s",
                 snapshot != NULL ? snapshot->record.name : "");
        snprintf(report->volume.pool, sizeof(report->volume.pool), "%s", volume->pool->name);
        snprintf(report->volume.volume, sizeof(report->volume.volume), "%s",
                 volume->durable.name);
    }
    if (query->ret_count > 0) {
        round_all(machine, &listing->round, list_visit);
    }
    return machine_wait(machine);
}

static void
list_release(struct machine *machine)
{
    struct export_listing *listing = container_of(machine, struct export_listing, machine);

    round_free(&listing->round);
    free(listing->volumes);
    free(listing);
}

static const struct machine_ops EXPORT_LIST_OPS = {
    .name = "export list",
    .phase_names = LIST_PHASE_NAMES,
    .phase_count = 1,
    .failed_phase = 1,
    .phase = list_phase,
    .release = list_release,
};

void
manager_export_query(struct manager *manager, struct export_query *query)
{
    struct export_listing *listing = calloc(1, sizeof(*listing));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(listing != NULL);
    query->ret_count = 0;
    machine_init(&listing->machine, &EXPORT_LIST_OPS, manager, &query->control);
    listing->query = query;
    machine_start(&listing->machine);
}

/* ---- look-ups, from any reactor ---- */

static void
lookup_answered(struct message *message)
{
    struct export_lookup *lookup = container_of(message, struct export_lookup, message);
    reactor_complete(&lookup->op, lookup->op.result);
}

/* Whether the exports of some pool are not known yet. */
static bool
is_opening_pools(const struct manager *manager)
{
    list_for_each(&manager->pools, link) {
        if (list_entry(link, struct pool, link)->state == POOL_STATE_OPENING) {
            return true;
        }
    }
    return false;
}

/* 0 with the export, or why the host does not get it. */
static int
lookup_judge(struct export_lookup *lookup, const struct export **ret_export)
{
    const struct export *export =
        lookup->name[0] != '\0' ? export_find(lookup->manager, lookup->protocol, lookup->name)
                                : export_find_default(lookup->manager, lookup->protocol);

    if (export == NULL && is_opening_pools(lookup->manager)) {
        return -EAGAIN;
    }
    if (export == NULL || export->hidden) {
        return -ENOENT;
    }
    int result = export_access_judge(&export->access, &lookup->client);
    if (result < 0) {
        return result;
    }
    const struct volume *volume = export->volume;
    if (!pool_is_serving(volume->pool)) {
        return volume->pool->state == POOL_STATE_OPENING ? -EAGAIN : -ENODEV;
    }
    ASSERT(!volume->durable.deleting);
    *ret_export = export;
    return 0;
}

static void
lookup_answer(struct export_lookup *lookup, int result)
{
    lookup->op.result = result;
    reactor_send(lookup->reply_to, &lookup->message, lookup_answered);
}

/* A look-up of a snapshot, while its view is being opened. */
struct lookup_view {
    struct snapshot_opening opening;
    struct export_lookup *lookup;
    struct snapshot *snapshot;
    uint64_t export_id;
};

/* On the view's reactor. */
static void
lookup_at_view(struct message *message)
{
    struct export_lookup *lookup = container_of(message, struct export_lookup, message);

    volume_open_export(lookup->ret_volume, lookup->ret_record.id);
    lookup_answer(lookup, 0);
}

static void
lookup_view_opened(struct snapshot_opening *opening, struct volume *volume)
{
    struct lookup_view *view = container_of(opening, struct lookup_view, opening);
    struct export_lookup *lookup = view->lookup;
    const struct export *export = NULL;
    int result = lookup_judge(lookup, &export);

    if (result == 0 && export->record.id != view->export_id) {
        result = -ENOENT; /* another one by now */
    }
    if (result < 0) {
        snapshot_view_close(view->snapshot);
        free(view);
        lookup_answer(lookup, result);
        return;
    }
    free(view);
    volume->holds++;
    lookup->ret_record = export->record;
    lookup->ret_volume = volume;
    lookup->ret_info = *volume->info;
    reactor_send(volume->shard->reactor, &lookup->message, lookup_at_view);
}

static void
lookup_arrived(struct message *message)
{
    struct export_lookup *lookup = container_of(message, struct export_lookup, message);
    const struct export *export = NULL;

    ASSERT_ON_REACTOR(lookup->manager->control);
    int result = lookup_judge(lookup, &export);
    if (result == 0 && export->snapshot != NULL) {
        struct lookup_view *view = calloc(1, sizeof(*view));
        ASSERT(view != NULL);
        view->lookup = lookup;
        view->snapshot = export->snapshot;
        view->export_id = export->record.id;
        view->opening.done = lookup_view_opened;
        snapshot_view_open(export->snapshot, &view->opening);
        return;
    }
    if (result == 0) {
        export->volume->holds++;
        lookup->ret_record = export->record;
        lookup->ret_volume = export->volume;
        lookup->ret_info = *export->volume->info;
    }
    lookup_answer(lookup, result);
}

void
manager_export_lookup(struct manager *manager, struct export_lookup *lookup)
{
    ASSERT(reactor_self() != NULL);
    lookup->manager = manager;
    lookup->reply_to = reactor_self();
    lookup->op.reactor_id = reactor_id(lookup->reply_to);
    lookup->ret_volume = NULL;
    reactor_send(manager->control, &lookup->message, lookup_arrived);
}

struct hold_release {
    struct message message;
    struct volume *volume;
};

static void
release_arrived(struct message *message)
{
    struct hold_release *release = container_of(message, struct hold_release, message);

    ASSERT_OP(release->volume->holds, >, 0u);
    release->volume->holds--;
    if (release->volume->snapshot != NULL) {
        snapshot_view_close(release->volume->snapshot);
    }
    free(release);
}

void
manager_export_release(struct manager *manager, struct volume *volume)
{
    struct hold_release *release = calloc(1, sizeof(*release));

    ASSERT(release != NULL);
    release->volume = volume;
    reactor_send(manager->control, &release->message, release_arrived);
}

static void
names_answered(struct message *message)
{
    struct export_names *names = container_of(message, struct export_names, message);
    reactor_complete(&names->op, names->op.result);
}

static void
names_arrived(struct message *message)
{
    struct export_names *names = container_of(message, struct export_names, message);

    ASSERT_ON_REACTOR(names->manager->control);
    list_for_each(&names->manager->exports, link) {
        const struct export *export = list_entry(link, struct export, manager_link);
        if (export->active && !export->hidden && pool_is_serving(export->volume->pool) &&
            strcmp(export->record.protocol, names->protocol) == 0 &&
            export_access_judge(&export->access, &names->client) == 0) {
            byte_buffer_append(&names->ret_names, export->record.name,
                               strlen(export->record.name) + 1);
        }
    }
    names->op.result = is_opening_pools(names->manager) ? -EAGAIN : 0;
    reactor_send(names->reply_to, &names->message, names_answered);
}

void
manager_export_names(struct manager *manager, struct export_names *names)
{
    ASSERT(reactor_self() != NULL);
    names->manager = manager;
    names->reply_to = reactor_self();
    names->op.reactor_id = reactor_id(names->reply_to);
    names->ret_names = BYTE_BUFFER_INIT;
    reactor_send(manager->control, &names->message, names_arrived);
}
