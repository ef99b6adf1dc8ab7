/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making volumes, and what operations on volumes have in common.
 *
 * A volume that is being made stands in the pool's tables from before its commit: its name is
 * taken, and its reserve counts. So the operation needs the pool's line for its checks only, and
 * many that are made at one time share their commits.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

/* ---- names ---- */

static int
refuse_name(struct error *error, const char *text)
{
    return error_set(error, -EINVAL,
                     "`%.256s`: names have letters, digits, `.`, `_` and `-`, and do not begin "
                     "with `.` or `-`",
                     text);
}

/* `length` characters of `from`, if they are a name. 0 or -EINVAL. */
static int
copy_name(const char *from, size_t length, const char *text, char to[static NAME_BYTES_MAX + 1],
          struct error *error)
{
    if (length > NAME_BYTES_MAX) {
        return error_set(error, -EINVAL, "names have at most %d characters", NAME_BYTES_MAX);
    }
    memcpy(to, from, length);
    to[length] = '\0';
    return schema_name_is_valid(to) ? 0 : refuse_name(error, text);
}

int
volume_name_parse(const char *text, struct volume_name *ret_name, struct error *error)
{
    struct volume_name name = { 0 };
    const char *slash = strchr(text, '/');

    if (slash == NULL || slash == text || slash[1] == '\0') {
        return error_set(error, -EINVAL, "`%.256s` is no volume name: write POOL/VOLUME", text);
    }
    if (copy_name(text, (size_t)(slash - text), text, name.pool, error) < 0 ||
        copy_name(slash + 1, strlen(slash + 1), text, name.volume, error) < 0) {
        return -EINVAL;
    }
    *ret_name = name;
    return 0;
}

int
snapshot_name_parse(const char *text, bool volume_allowed, struct volume_name *ret_name,
                    struct error *error)
{
    struct volume_name name = { 0 };
    const char *slash = strchr(text, '/');
    const char *at = slash != NULL ? strchr(slash, '@') : NULL;

    if (at == NULL && volume_allowed) {
        return volume_name_parse(text, ret_name, error);
    }
    if (at == NULL || slash == text || at == slash + 1 || at[1] == '\0') {
        return error_set(error, -EINVAL, "`%.256s` is no snapshot name: write POOL/VOLUME@SNAPSHOT",
                         text);
    }
    if (copy_name(text, (size_t)(slash - text), text, name.pool, error) < 0 ||
        copy_name(slash + 1, (size_t)(at - slash) - 1, text, name.volume, error) < 0 ||
        copy_name(at + 1, strlen(at + 1), text, name.snapshot, error) < 0) {
        return -EINVAL;
    }
    *ret_name = name;
    return 0;
}

void
volume_name_format(const struct volume_name *name, char text[static SNAPSHOT_PATH_SIZE])
{
    snprintf(text, SNAPSHOT_PATH_SIZE, "%s/%s%s%s", name->pool, name->volume,
             name->snapshot[0] != '\0' ? "@" : "", name->snapshot);
}

void
volume_path(const struct volume *volume, char text[static VOLUME_PATH_SIZE])
{
    snprintf(text, VOLUME_PATH_SIZE, "%s/%s", volume->pool->name, volume->durable.name);
}

struct volume *
machine_find_volume(struct machine *machine, struct pool *pool, const char *name)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    if (pool_check_writable(pool, &machine->control->error) < 0) {
        machine_fail_noted(machine);
        return NULL;
    }
    struct volume *volume = pool_find_volume(pool, name);
    if (volume == NULL) {
        machine_fail(machine, -ENOENT, "there is no volume `%s/%s`", pool->name, name);
    } else if (volume->altering) {
        machine_fail(machine, -EBUSY, "another operation on volume `%s/%s` is under way",
                     pool->name, name);
        return NULL;
    }
    return volume;
}

void
machine_start_for_volume(struct machine *machine, const struct volume_name *name)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    struct pool *pool = manager_find_pool(machine->manager, name->pool);

    if (machine->manager->stopping || pool == NULL) {
        if (pool == NULL) {
            machine_fail(machine, -ENOENT, "there is no pool `%s`", name->pool);
        } else {
            machine_fail(machine, -ESHUTDOWN, "the daemon is ending");
        }
        machine_abandon(machine);
        return;
    }
    machine_start_in_line(machine, pool);
}

/* ---- what is common ---- */

int
pool_check_reserve(const struct pool *pool, const struct volume *volume, uint64_t reserve_bytes,
                   struct error *error)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    uint64_t extent_bytes = pool->record.extent_bytes;
    uint64_t wanted = div_round_up(reserve_bytes, extent_bytes);
    uint64_t has = volume != NULL ? volume_extents_writable(volume) : 0;
    uint64_t available = has + allocator_available(&pool->allocator, volume);
    char wanted_text[SIZE_TEXT_SIZE];
    char available_text[SIZE_TEXT_SIZE];

    if (wanted <= available) {
        return 0;
    }
    return error_set(error, -ENOSPC,
                     "pool `%s` cannot promise %s: %s are free and not promised to others; add "
                     "disks or reserve less",
                     pool->name, size_format(reserve_bytes, wanted_text),
                     size_format(available * extent_bytes, available_text));
}

void
pool_promise_begin(struct pool *pool, const struct volume *volume, uint64_t reserve_bytes)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct allocator *allocator = &pool->allocator;
    uint64_t wanted = div_round_up(reserve_bytes, pool->record.extent_bytes);
    uint64_t counted = div_round_up(volume->durable.reserve_bytes, pool->record.extent_bytes);

    ASSERT_OP(allocator->promise_pending, ==, 0u); /* one at a time: the line */
    counted = MAX(counted, volume_extents_writable(volume));
    allocator->promise_pending = wanted > counted ? wanted - counted : 0;
    allocator->promise_volume = volume;
}

void
pool_promise_end(struct pool *pool)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    pool->allocator.promise_pending = 0;
    pool->allocator.promise_volume = NULL;
}

int
volume_size_check(uint64_t size_bytes, uint32_t sector_bytes, struct error *error)
{
    if (size_bytes == 0 || size_bytes > VOLUME_SIZE_BYTES_MAX) {
        return error_set(error, -EINVAL, "the size of a volume is 1 sector to 8 EiB - 64 KiB");
    }
    if (size_bytes % sector_bytes != 0) {
        return error_set(error, -EINVAL, "the size must be a multiple of the sector size, %u bytes",
                         sector_bytes);
    }
    return 0;
}

static bool
pool_has_tier(const struct pool *pool, uint8_t tier)
{
    for (uint32_t i = 0; i < pool->disk_count; i++) {
        if (pool->disks[i] != NULL && pool->disks[i]->record.tier == tier) {
            return true;
        }
    }
    return false;
}

/* ---- create ---- */

#define VOLUME_CREATE_PHASES(X)                                                                    \
    X(CHECK)                                                                                       \
    X(APPEAR)                                                                                      \
    X(END)

enum volume_create_phase {
#define PHASE_ENUM(name) CREATE_##name,
    VOLUME_CREATE_PHASES(PHASE_ENUM)
#undef PHASE_ENUM
    CREATE_PHASE_COUNT
};

static const char *const CREATE_PHASE_NAMES[] = {
#define PHASE_NAME(name) #name,
    VOLUME_CREATE_PHASES(PHASE_NAME)
#undef PHASE_NAME
};
_Static_assert(ARRAY_SIZE(CREATE_PHASE_NAMES) == CREATE_PHASE_COUNT, "a name for each phase");

struct volume_creation {
    struct machine machine;
    struct volume_create *create;
    struct volume_record record;
    struct branch_record branch;
    struct branch_position position;
    struct volume *volume;
    struct commit_request commit;
    struct byte_buffer batch;
    struct round round;
};

MACHINE_DONE(create_commit_done, struct volume_creation, commit.op)

static int
create_check(struct volume_creation *creation, struct pool *pool, struct error *error)
{
    const struct volume_create *create = creation->create;
    uint32_t sector_bytes =
        create->sector_bytes != 0 ? create->sector_bytes : VOLUME_SECTOR_BYTES_DEFAULT;

    if (pool_check_writable(pool, error) < 0) {
        return error->code;
    }
    if (!schema_name_is_valid(create->name.volume)) {
        return error_set(error, -EINVAL, "`%.128s` is no volume name", create->name.volume);
    }
    if (pool_find_volume(pool, create->name.volume) != NULL) {
        return error_set(error, -EEXIST, "volume `%s/%s` exists already", pool->name,
                         create->name.volume);
    }
    if (sector_bytes != 512 && sector_bytes != 4096) {
        return error_set(error, -EINVAL, "the sector size is 512 or 4096");
    }
    if (volume_size_check(create->size_bytes, sector_bytes, error) < 0) {
        return error->code;
    }
    if (create->tier != VOLUME_TIER_AUTO && !pool_has_tier(pool, create->tier)) {
        return error_set(error, -EINVAL, "pool `%s` has no disk of tier %u", pool->name,
                         create->tier);
    }
    if (create->reserve_bytes > create->size_bytes) {
        return error_set(error, -EINVAL, "a volume cannot reserve more than its size");
    }
    return pool_check_reserve(pool, NULL, create->reserve_bytes, error);
}

static enum machine_step
create_begin(struct volume_creation *creation)
{
    struct machine *machine = &creation->machine;
    struct pool *pool = machine->pool;
    const struct volume_create *create = creation->create;

    if (create_check(creation, pool, &machine->control->error) < 0) {
        return machine_fail_noted(machine);
    }
    creation->record = (struct volume_record){
        .id = pool->record.next_volume++,
        .branch = pool->record.next_branch++,
        .size_bytes = create->size_bytes,
        .reserve_bytes = create->reserve_bytes,
        .sector_bytes =
            create->sector_bytes != 0 ? create->sector_bytes : VOLUME_SECTOR_BYTES_DEFAULT,
        .copies = 1,
        .tier = create->tier,
        .created_realtime_ns = manager_realtime_ns(machine->manager),
    };
    manager_make_guid(machine->manager, creation->record.guid);
    snprintf(creation->record.name, sizeof(creation->record.name), "%s", create->name.volume);
    creation->branch = (struct branch_record){
        .id = creation->record.branch,
        .family = creation->record.branch,
        .current_generation = 1,
        .volume = creation->record.id,
    };
    creation->commit.has_numbers = true;
    schema_put_volume(&creation->batch, &creation->record);
    schema_put_branch(&creation->batch, &creation->branch);
    schema_put_position(&creation->batch, creation->branch.id, &creation->position);
    creation->commit.batch = &creation->batch;
    machine_arm(machine, &creation->commit.op, create_commit_done);
    committer_submit(pool, &creation->commit);

    struct volume *volume =
        volume_new(pool, &creation->record, &creation->branch, &creation->position);
    volume->durable = creation->record;
    volume->pending = true;
    volume->altering = true; /* others that name it are refused, and the pool is not freed */
    volume_publish_info(volume);
    pool_add_volume(pool, volume);
    creation->volume = volume;
    machine_step_out(machine);
    return machine_wait(machine);
}

static enum machine_step
appear_visit(struct round_stop *stop)
{
    struct volume_creation *creation = container_of(stop->round, struct volume_creation, round);
    struct volume *volume = creation->volume;

    list_push_back(&volume->shard->volumes, &volume->shard_link);
    volume->serving = true;
    return MACHINE_NEXT;
}

static enum machine_step
create_appear(struct volume_creation *creation)
{
    struct machine *machine = &creation->machine;
    struct pool *pool = machine->pool;

    struct volume *volume = creation->volume;
    if (machine->status < 0) {
        creation->volume = NULL;
        pool_remove_volume(pool, volume);
        volume_release(volume); /* nobody else has seen it */
        return machine_fail(machine, machine->status,
                            "the volume could not be recorded (%s): see `volctl events`",
                            error_name(machine->status));
    }
    if (pool->stopping) {
        return MACHINE_NEXT; /* recorded; it serves from the next start on */
    }
    round_one(machine, &creation->round, volume->shard->index, appear_visit);
    return machine_wait(machine);
}

static enum machine_step
create_phase(struct machine *machine, uint32_t phase)
{
    struct volume_creation *creation = container_of(machine, struct volume_creation, machine);

    switch ((enum volume_create_phase)phase) {
    case CREATE_CHECK:
        return create_begin(creation);
    case CREATE_APPEAR:
        return create_appear(creation);
    case CREATE_END:
        creation->volume->pending = false;
        creation->volume->altering = false;
        return MACHINE_NEXT;
    case CREATE_PHASE_COUNT:
        break;
    }
    UNREACHABLE();
}

static void
create_release(struct machine *machine)
{
    struct volume_creation *creation = container_of(machine, struct volume_creation, machine);

    round_free(&creation->round);
    byte_buffer_free(&creation->batch);
    free(creation);
}

static const struct machine_ops VOLUME_CREATE_OPS = {
    .name = "volume create",
    .phase_names = CREATE_PHASE_NAMES,
    .phase_count = CREATE_PHASE_COUNT,
    .failed_phase = CREATE_PHASE_COUNT,
    .phase = create_phase,
    .release = create_release,
};

void
manager_volume_create(struct manager *manager, struct volume_create *create)
{
    struct volume_creation *creation = calloc(1, sizeof(*creation));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(creation != NULL);
    machine_init(&creation->machine, &VOLUME_CREATE_OPS, manager, &create->control);
    creation->create = create;
    machine_start_for_volume(&creation->machine, &create->name);
}
