/* SPDX-License-Identifier: Apache-2.0 */
/* Taking disks into a pool: what creating one and adding to one have in common. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "volmgr/control_impl.h"

int
disk_probes_check_opened(const struct disk_probe *probes, uint32_t count, struct error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        if (probes[i].status < 0) {
            return error_set(error, probes[i].status, "%s", probes[i].error.message);
        }
    }
    return 0;
}

/* ---- may it be taken? ---- */

/*
 * A disk of a pool that is open here is not taken, whatever is forced: the pool may lack it just
 * now, and needs what is on it. One that has only a label of such a pool (the adding of it was
 * interrupted) may be.
 */
static int
judge_pool(const struct manager *manager, const struct disk_probe *probe, struct error *error)
{
    list_for_each(&manager->pools, link) {
        const struct pool *pool = list_entry(link, struct pool, link);
        if (pool->state == POOL_STATE_OFFLINE ||
            memcmp(pool->record.pool_guid, probe->label.pool_guid, GUID_BYTES) != 0) {
            continue;
        }
        for (uint32_t i = 0; i < pool->disk_count; i++) {
            const struct disk *disk = pool->disks[i];
            if (disk == NULL ||
                memcmp(disk->record.guid, probe->label.disk_guid, GUID_BYTES) != 0) {
                continue;
            }
            return error_set(error, -EEXIST,
                             "disk %.150s is disk %u of pool `%s`, which is open%s",
                             probe->backend->spec, disk->record.index, pool->name,
                             disk->backend == NULL
                                 ? " without it: restart the daemon to take it back; adding it "
                                   "would destroy what volumes have on it"
                                 : "");
        }
    }
    return 0;
}

static int
judge_one(const struct manager *manager, const struct disk_probe *probe, bool force,
          struct error *error)
{
    const struct foreign_content *foreign = &probe->foreign;

    if (probe->backend == NULL) {
        return error_set(error, probe->status, "%s", probe->error.message);
    }
    const char *spec = probe->backend->spec;

    if (probe->status == -EPROTO) {
        return error_set(error, -EPROTO,
                         "disk %.200s has %s: only that can tell what is on it (to take it all the "
                         "same, wipe its first and last MiB first)",
                         spec, foreign->what);
    }
    if (probe->status < 0 && probe->status != -ENOENT && probe->status != -EBADMSG) {
        return error_set(error, probe->status, "disk %.200s cannot be read: %s", spec,
                         error_name(probe->status));
    }
    if (probe->status == 0 && judge_pool(manager, probe, error) < 0) {
        return error->code;
    }
    if (force) {
        return 0;
    }
    if (probe->status == 0) {
        return error_set(error, -EEXIST,
                         "disk %.200s belongs to pool `%s`%s; --force would destroy what that pool "
                         "has on it",
                         spec, probe->label.pool_name,
                         probe->label.open ? ", which is in use or was not closed" : "");
    }
    if (probe->status == -EBADMSG) {
        return error_set(error, -EEXIST,
                         "disk %.200s has a damaged label of some pool; --force would overwrite it",
                         spec);
    }
    if (foreign->found) {
        return error_set(error, -EEXIST, "disk %.200s holds %s; --force would destroy it", spec,
                         foreign->what);
    }
    return 0;
}

/* Two ways to one device: it would show the same label twice. */
static int
judge_pair(const struct disk_probe *probe, const struct disk_probe *other, struct error *error)
{
    if (probe->status == 0 && other->status == 0 &&
        memcmp(probe->label.disk_guid, other->label.disk_guid, GUID_BYTES) ==
            0) {
        return error_set(error, -EINVAL,
                         "disks %.150s and %.150s are the same device, or one is a copy of the "
                         "other",
                         other->backend->spec, probe->backend->spec);
    }
    return 0;
}

int
disk_probes_judge(const struct manager *manager, const struct disk_probe *probes,
                  uint32_t count, bool force, struct error *error)
{
    int result = 0;

    for (uint32_t i = 0; i < count && result == 0; i++) {
        result = judge_one(manager, &probes[i], force, error);
        for (uint32_t j = 0; j < i && result == 0; j++) {
            result = judge_pair(&probes[i], &probes[j], error);
        }
    }
    return result;
}

/* ---- layout ---- */

int
pool_lay_out_disk(struct pool *pool, struct disk_probe *probe, bool with_ledger,
                  struct error *error)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    struct label label = { 0 };
    uint64_t size_bytes = backend_size_bytes(probe->backend);
    char size_text[SIZE_TEXT_SIZE];

    int result = label_layout(size_bytes, pool->record.extent_bytes, with_ledger, &label);
    if (result < 0) {
        return error_set(error, result,
                         "disk %.200s is too small (%s) for labels%s and one extent",
                         probe->backend->spec, size_format(size_bytes, size_text),
                         with_ledger ? ", a commit ledger" : "");
    }
    struct disk_record record = {
        .index = probe->index,
        .state = DISK_STATE_ACTIVE,
        .tier = probe->tier,
        .size_bytes = size_bytes,
        .data_start_bytes = label.data_start_bytes,
        .slot_count = label.slot_count,
        .ledger_start_bytes = label.ledger_start_bytes,
        .ledger_length_bytes = label.ledger_length_bytes,
    };
    manager_make_guid(pool->manager, record.guid);
    snprintf(record.spec, sizeof(record.spec), "%s", probe->spec);
    struct disk *disk = pool_disk_new(pool, &record);
    ASSERT(disk != NULL);
    label.ledger_current = with_ledger;
    disk->label = label;
    disk->backend = probe->backend;
    probe->backend = NULL;
    return 0;
}

/* ---- did it take? ---- */

void
disk_probes_read_back(struct machine *machine, struct pool *pool, struct disk_probe *probes,
                      uint32_t count)
{
    ASSERT_ON_REACTOR(machine->manager->control);
    for (uint32_t i = 0; i < count; i++) {
        ASSERT(probes[i].backend == NULL);
        probes[i].backend = pool_disk(pool, probes[i].index)->backend; /* lent until verified */
    }
    disk_probes_read(machine, probes, count);
}

int
disk_probes_verify(struct pool *pool, struct disk_probe *probes, uint32_t count,
                   struct error *error)
{
    ASSERT_ON_REACTOR(pool->manager->control);
    int result = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct disk_probe *probe = &probes[i];
        struct disk *disk = pool_disk(pool, probe->index);
        probe->backend = NULL;
        if (probe->status < 0) {
            result = error_set(error, probe->status,
                               "disk %.200s does not give back the label that was written: %s",
                               disk->backend->spec, error_name(probe->status));
            if (probe->status == -ETIMEDOUT) {
                disk->backend = NULL; /* the attempt to read it closes it one day */
            }
        } else if (memcmp(probe->label.disk_guid, disk->record.guid, GUID_BYTES) != 0) {
            result = error_set(error, -EINVAL,
                               "disk %.200s is the same device as another one that was named",
                               disk->backend->spec);
        }
    }
    return result;
}
