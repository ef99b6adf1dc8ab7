/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exports: under which names hosts find volumes. Names are unique for each protocol over all pools.
 *
 * Targets look up from any reactor, by a message to the control reactor. A look-up holds the volume
 * (it is not deleted) until the target gives it back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"

/* ---- the table ---- */

void
exports_init(struct manager *manager)
{
    list_init(&manager->exports);
    hash_table_init(&manager->exports_by_name, 1024);
}

void
exports_free(struct manager *manager)
{
    ASSERT(list_empty(&manager->exports));
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
export_add(struct volume *volume, const struct export_record *record)
{
    struct manager *manager = volume->pool->manager;
    struct export *export = calloc(1, sizeof(*export));

    ASSERT(export != NULL);
    export->volume = volume;
    export->record = *record;
    export->active = export_find(manager, record->protocol, record->name) == NULL;
    if (export->active) {
        hash_table_insert(&manager->exports_by_name, &export->by_name,
                          export_hash(record->protocol, record->name));
    }
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

    if (export->active) {
        hash_table_remove(&manager->exports_by_name, &export->by_name);
    }
    list_remove(&export->manager_link);
    list_remove(&export->volume_link);
    free(export);
}

void
export_restore(struct volume *volume, const struct export_record *record)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    const struct export *export = export_add(volume, record);

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
}

uint32_t
volume_export_count(const struct volume *volume)
{
    ASSERT_ON_REACTOR(volume->pool->manager->control);
    uint32_t count = 0;
    list_for_each(&volume->exports, link) {
        count++;
    }
    return count;
}

/* ---- create ---- */

#define EXPORT_CREATE_PHASES(X)                                                                    \
    X(CHECK)                                                                                       \
    X(SUCCEED)

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
    struct commit_request commit;
    struct byte_buffer batch;
};

MACHINE_DONE(create_commit_done, struct export_creation, commit.op)

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
    if (record->name[0] == '\0') {
        volume_path(volume, record->name);
    }
    if (export_find(machine->manager, record->protocol, record->name) != NULL) {
        return machine_fail(machine, -EEXIST, "there is a %s export `%s` already",
                            record->protocol, record->name);
    }
    creation->volume = volume;
    record->id = pool->record.next_export++;
    record->volume = volume->durable.id;
    schema_put_pool(&creation->batch, &pool->record);
    schema_put_export(&creation->batch, record);
    creation->commit.batch = &creation->batch;
    machine_arm(machine, &creation->commit.op, create_commit_done);
    committer_submit(pool, &creation->commit);
    return machine_wait(machine);
}

static enum machine_step
create_phase(struct machine *machine, uint32_t phase)
{
    struct export_creation *creation = container_of(machine, struct export_creation, machine);

    if (phase == CREATE_CHECK) {
        return create_check(creation);
    }
    if (machine->status < 0) {
        return machine_fail(machine, machine->status, "the export could not be recorded: %s",
                            error_name(machine->status));
    }
    /* An export of another pool may have taken the name meanwhile: then this one is not served. */
    export_restore(creation->volume, &creation->create->record);
    return MACHINE_NEXT;
}

static void
create_release(struct machine *machine)
{
    struct export_creation *creation = container_of(machine, struct export_creation, machine);

    byte_buffer_free(&creation->batch);
    free(creation);
}

static const struct machine_ops EXPORT_CREATE_OPS = {
    .name = "export",
    .phase_names = CREATE_PHASE_NAMES,
    .phase_count = CREATE_PHASE_COUNT,
    .failed_phase = CREATE_PHASE_COUNT,
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
        if (volume->shard->index != stop->index) {
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
        if (!pool_is_serving(volume->pool) ||
            (query->protocol[0] != '\0' &&
             strcmp(query->protocol, export->record.protocol) != 0)) {
            continue;
        }
        struct export_report *report = &query->ret_exports[query->ret_count];
        listing->volumes[query->ret_count++] = volume;
        report->record = export->record;
        report->size_bytes = volume->durable.size_bytes;
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

static int
lookup_do(struct export_lookup *lookup)
{
    const struct export *export = export_find(lookup->manager, lookup->protocol, lookup->name);

    if (export == NULL || export->hidden) {
        return -ENOENT;
    }
    struct volume *volume = export->volume;
    if (!pool_is_serving(volume->pool)) {
        return -ENODEV;
    }
    ASSERT(!volume->durable.deleting);
    volume->holds++;
    lookup->ret_record = export->record;
    lookup->ret_volume = volume;
    lookup->ret_info = *volume->info;
    return 0;
}

static void
lookup_arrived(struct message *message)
{
    struct export_lookup *lookup = container_of(message, struct export_lookup, message);

    ASSERT_ON_REACTOR(lookup->manager->control);
    lookup->op.result = lookup_do(lookup);
    reactor_send(lookup->reply_to, &lookup->message, lookup_answered);
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
    reactor_complete(&names->op, 0);
}

static void
names_arrived(struct message *message)
{
    struct export_names *names = container_of(message, struct export_names, message);

    ASSERT_ON_REACTOR(names->manager->control);
    list_for_each(&names->manager->exports, link) {
        const struct export *export = list_entry(link, struct export, manager_link);
        if (export->active && !export->hidden && pool_is_serving(export->volume->pool) &&
            strcmp(export->record.protocol, names->protocol) == 0) {
            byte_buffer_append(&names->ret_names, export->record.name,
                               strlen(export->record.name) + 1);
        }
    }
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
