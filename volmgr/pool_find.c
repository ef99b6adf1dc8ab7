/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding a pool's disks at open. A disk is what its label says, wherever it is: one that is not at
 * its place any more, or whose place is taken by another, is looked for at the places that
 * manager_options.disk_search() names, and recognised by its identity.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/pool_open_impl.h"

enum {
    CANDIDATES_MAX = 256
};
/* Labels of one pool are written together, but a disk may have been slow. */
#define COPY_LAG_NS (60 * NS_PER_S)

int
pool_find_begin(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;
    const struct disk_record *records =
        (const struct disk_record *)(const void *)opening->load.disks.data;
    size_t count = opening->load.disks.length_bytes / sizeof(*records);

    ASSERT(opening->probes == NULL);
    ASSERT(count > 0 && count <= POOL_DISKS_MAX);
    opening->probes = calloc(count, sizeof(*opening->probes));
    ASSERT(opening->probes != NULL);
    opening->probe_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        if (pool_disk_new(pool, &records[i]) == NULL) {
            return -EUCLEAN;
        }
        snprintf(probe->spec, sizeof(probe->spec), "%s", records[i].spec);
        probe->tier = records[i].tier;
        probe->index = records[i].index;
    }
    return 0;
}

/* ---- is it the disk? ---- */

static void
refuse(struct disk *disk, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void
refuse(struct disk *disk, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(disk->problem, sizeof(disk->problem), format, arguments);
    va_end(arguments);
}

static bool
label_is_of(const struct label *label, const struct disk *disk)
{
    return memcmp(label->pool_guid, disk->pool->record.pool_guid, GUID_BYTES) == 0 &&
           memcmp(label->disk_guid, disk->record.guid, GUID_BYTES) == 0;
}

/*
 * A disk that took part in the last run has had its label raised before that run was noted, or the
 * note says that it has not. So a lower one is of a copy that was made before: of a file that
 * somebody has copied, or of a LUN that was taken back to a snapshot.
 */
static bool
is_old_copy(const struct pool_opening *opening, const struct disk *disk,
            const struct label *label)
{
    return disk->record.state == DISK_STATE_ACTIVE &&
           label->incarnation < opening->load.run.incarnation;
}

/* Takes the backend over if it is; otherwise says why not. */
static bool
match_one(struct pool_opening *opening, struct disk *disk, struct disk_probe *probe)
{
    const struct label *label = &probe->label;

    if (probe->backend == NULL) {
        refuse(disk, "%.127s", probe->error.message);
        return false;
    }
    if (probe->status == -ENOENT) {
        refuse(disk, "what is there has no label%s%.60s",
               probe->foreign.found ? " but " : "", probe->foreign.what);
        return false;
    }
    if (probe->status < 0) {
        refuse(disk, "its label cannot be read: %s", error_name(probe->status));
        return false;
    }
    if (!label_is_of(label, disk)) {
        refuse(disk, "what is there is another disk, of pool `%.60s`", label->pool_name);
        return false;
    }
    if (backend_size_bytes(probe->backend) < disk->record.size_bytes) {
        refuse(disk, "it is smaller than it was");
        return false;
    }
    if (is_old_copy(opening, disk, label)) {
        if (!opening->machine.manager->options.accept_loss) {
            refuse(disk, "what is there is an old copy of it, of incarnation %llu: the pool has "
                         "come to %llu since",
                   (unsigned long long)label->incarnation,
                   (unsigned long long)opening->load.run.incarnation);
            return false;
        }
        event_raise(opening->machine.manager, EVENT_CRITICAL, disk->pool->name,
                    probe->backend->spec, "old-copy-taken",
                    "this is an old copy of disk %u: what was written since is lost "
                    "(--accept-loss)",
                    disk->record.index);
    }
    opening->returned = opening->returned || disk->record.state != DISK_STATE_ACTIVE;
    disk->record.state = DISK_STATE_ACTIVE;
    disk->backend = probe->backend;
    probe->backend = NULL;
    disk->label = *label;
    disk->problem[0] = '\0';
    return true;
}

/* Is it at the place of another disk of the pool? Names of devices change. */
static bool
match_elsewhere(struct pool_opening *opening, struct disk *disk)
{
    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        if (probe->backend == NULL || probe->status < 0 || !label_is_of(&probe->label, disk) ||
            !match_one(opening, disk, probe)) {
            continue;
        }
        snprintf(disk->record.spec, sizeof(disk->record.spec), "%s", probe->spec);
        event_raise(disk->manager, EVENT_WARNING, disk->pool->name, disk->backend->spec,
                    "disk-moved", "disk %u of the pool was found here", disk->record.index);
        return true;
    }
    return false;
}

void
pool_find_match(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;

    opening->missing_count = 0;
    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        struct disk *disk = pool->disks[probe->index];
        if (disk->backend == NULL) {
            match_one(opening, disk, probe);
        }
    }
    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk *disk = pool->disks[opening->probes[i].index];
        if (disk->backend == NULL && !match_elsewhere(opening, disk)) {
            opening->missing_count++;
        }
    }
}

/* ---- looking elsewhere ---- */

static bool
is_known(const struct pool_opening *opening, const char *spec)
{
    const char *text = (const char *)opening->candidates.data;
    size_t at = 0;

    for (uint32_t i = 0; i < opening->probe_count; i++) {
        const struct disk_probe *probe = &opening->probes[i];
        if (opening->pool->disks[probe->index]->backend != NULL &&
            strcmp(probe->spec, spec) == 0) {
            return true;
        }
    }
    while (at < opening->candidates.length_bytes) {
        if (strcmp(text + at, spec) == 0) {
            return true;
        }
        at += strlen(text + at) + 1;
    }
    return false;
}

int32_t
pool_find_candidates_work(struct offload_job *job)
{
    struct machine_job *own = container_of(job, struct machine_job, job);
    struct pool_opening *opening = container_of(own, struct pool_opening, job);
    const struct manager_options *options = &opening->machine.manager->options;
    struct byte_buffer specs = BYTE_BUFFER_INIT;

    byte_buffer_clear(&opening->candidates);
    opening->found_count = 0;
    for (uint32_t i = 0; i < opening->probe_count; i++) {
        const struct disk_probe *probe = &opening->probes[i];
        if (opening->pool->disks[probe->index]->backend != NULL) {
            continue;
        }
        byte_buffer_clear(&specs);
        options->disk_search(options->store_context, probe->spec, &specs);
        for (size_t at = 0; at < specs.length_bytes;) {
            const char *spec = (const char *)specs.data + at;
            size_t bytes = strlen(spec) + 1;
            at += bytes;
            if (bytes <= DISK_SPEC_BYTES_MAX && opening->found_count < CANDIDATES_MAX &&
                !is_known(opening, spec)) {
                byte_buffer_append(&opening->candidates, spec, bytes);
                opening->found_count++;
            }
        }
    }
    byte_buffer_free(&specs);
    return 0;
}

void
pool_find_look(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    const char *text = (const char *)opening->candidates.data;

    ASSERT(opening->found == NULL);
    opening->found = calloc(MAX(opening->found_count, 1u), sizeof(*opening->found));
    ASSERT(opening->found != NULL);
    for (uint32_t i = 0; i < opening->found_count; i++) {
        struct disk_probe *probe = &opening->found[i];
        snprintf(probe->spec, sizeof(probe->spec), "%s", text);
        probe->flags = BACKEND_OPEN_PROBE | BACKEND_OPEN_READ_ONLY;
        text += strlen(text) + 1;
    }
    disk_probes_open(&opening->machine, opening->found, opening->found_count);
}

/* The newest heartbeat among the disks that are here. */
static uint64_t
newest_heartbeat(const struct pool *pool)
{
    uint64_t newest = 0;

    for (uint32_t i = 0; i < pool->disk_count; i++) {
        const struct disk *disk = pool->disks[i];
        if (disk != NULL && disk->backend != NULL) {
            newest = MAX(newest, disk->label.heartbeat);
        }
    }
    return newest;
}

/*
 * A search also finds copies that somebody has made for safety. One that was made while the pool
 * was open shows by its label: others were written later.
 */
static bool
looks_like_a_copy(const struct pool_opening *opening, const struct label *label)
{
    return (opening->was_clean && label->open) ||
           newest_heartbeat(opening->pool) > label->heartbeat + COPY_LAG_NS;
}

/* The newest of all that have the disk's identity; NULL: none. */
static const struct disk_probe *
best_candidate(const struct pool_opening *opening, const struct disk *disk)
{
    const struct disk_probe *best = NULL;

    for (uint32_t i = 0; i < opening->found_count; i++) {
        const struct disk_probe *found = &opening->found[i];
        if (found->backend == NULL || found->status < 0 || !label_is_of(&found->label, disk)) {
            continue;
        }
        if (looks_like_a_copy(opening, &found->label) ||
            is_old_copy(opening, disk, &found->label)) {
            event_raise(disk->manager, EVENT_WARNING, disk->pool->name, found->spec,
                        "disk-copy-ignored", "this looks like an old copy of disk %u of the pool",
                        disk->record.index);
            continue;
        }
        if (best == NULL || found->label.incarnation > best->label.incarnation ||
            (found->label.incarnation == best->label.incarnation &&
             found->label.generation > best->label.generation)) {
            best = found;
        }
    }
    return best;
}

void
pool_find_recognise(struct pool_opening *opening)
{
    ASSERT_ON_REACTOR(opening->machine.manager->control);
    struct pool *pool = opening->pool;

    for (uint32_t i = 0; i < opening->probe_count; i++) {
        struct disk_probe *probe = &opening->probes[i];
        struct disk *disk = pool->disks[probe->index];
        if (disk->backend != NULL) {
            continue;
        }
        const struct disk_probe *found = best_candidate(opening, disk);
        if (found != NULL) {
            event_raise(pool->manager, EVENT_WARNING, pool->name, found->spec, "disk-moved",
                        "disk %u of the pool was found here", disk->record.index);
            snprintf(probe->spec, sizeof(probe->spec), "%s", found->spec);
            snprintf(disk->record.spec, sizeof(disk->record.spec), "%s", found->spec);
        }
    }
}

/* ---- the search on real machines ---- */

static void
list_directory(const char *path, struct byte_buffer *ret_specs)
{
    DIR *directory = opendir(path);

    if (directory == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] == '.' || entry->d_type == DT_DIR || entry->d_type == DT_SOCK ||
            entry->d_type == DT_FIFO || entry->d_type == DT_CHR) {
            continue;
        }
        byte_buffer_append_format(ret_specs, "%s/%s", path, entry->d_name);
        byte_buffer_append_u8(ret_specs, 0);
    }
    closedir(directory);
}

void
manager_disk_search(void *context, const char *missing_spec, struct byte_buffer *ret_specs)
{
    const char *path = strncmp(missing_spec, "file:", 5) == 0 ? missing_spec + 5 : missing_spec;
    const char *slash = strrchr(path, '/');
    char directory[DISK_SPEC_BYTES_MAX + 1];

    (void)context;
    /* A device node has siblings that are no disks of anybody; names by identity are enough. */
    if (path[0] == '/' && slash != NULL && strncmp(path, "/dev/", 5) != 0) {
        snprintf(directory, sizeof(directory), "%.*s", (int)MAX(slash - path, 1), path);
        list_directory(directory, ret_specs);
    }
    list_directory("/dev/disk/by-id", ret_specs);
}
