/* SPDX-License-Identifier: Apache-2.0 */
/* The command table. A new command is a row here and a row in daemon/api_handlers.c. */
#include <string.h>

#include "api/schema.h"
#include "api/shapes.h"
#include "base/assert.h"
#include "base/util.h"

#define FIELDS(array) .fields = (array), .field_count = ARRAY_SIZE(array)

static const char *const protocols[] = { "nbd", NULL };
static const char *const sector_choices[] = { "512", "4096", NULL };
static const char *const attach_choices[] = { "qemu",    "libvirt",  "nbd-client", "proxmox",
                                              "qemu-img", "nbdinfo", "iscsiadm",   NULL };
static const char *const tls_choices[] = { "required", "allowed", "off", NULL };

#define FIELD_POOL(place)                                                                          \
    {                                                                                              \
        .name = "pool", .type = API_TYPE_NAME, .flags = place, .label = "POOL",                    \
        .help = "name of the pool"                                                                 \
    }
#define FIELD_VOLUME                                                                               \
    {                                                                                              \
        .name = "volume", .type = API_TYPE_VOLUME, .flags = API_POSITIONAL | API_REQUIRED,         \
        .label = "POOL/VOLUME", .help = "the volume"                                               \
    }
#define FIELD_VIEW(text)                                                                           \
    {                                                                                              \
        .name = "volume", .type = API_TYPE_VIEW, .flags = API_POSITIONAL | API_REQUIRED,           \
        .label = "POOL/VOLUME[@SNAPSHOT]", .help = text                                            \
    }
#define FIELD_SNAPSHOT                                                                             \
    {                                                                                              \
        .name = "snapshot", .type = API_TYPE_SNAPSHOT, .flags = API_POSITIONAL | API_REQUIRED,     \
        .label = "POOL/VOLUME@SNAPSHOT", .help = "the snapshot"                                    \
    }
#define FIELD_SCOPE                                                                                \
    {                                                                                              \
        .name = "scope", .type = API_TYPE_SCOPE, .flags = API_POSITIONAL,                          \
        .label = "POOL[/VOLUME]", .help = "only those of this pool or volume"                      \
    }
#define FIELD_DISKS                                                                                \
    {                                                                                              \
        .name = "disks", .type = API_TYPE_DISKS, .flags = API_POSITIONAL | API_REQUIRED,           \
        .label = "DISK[,tier=N]",                                                                  \
        .help = "a path (regular file or block device), file:PATH?size=20G (created when "         \
                "absent), iscsi://[USER%PW@]HOST[:PORT]/IQN/LUN, or mem:SIZE (for tests)"          \
    }

static const struct api_field pool_create_fields[] = {
    FIELD_POOL(API_POSITIONAL | API_REQUIRED),
    FIELD_DISKS,
    { .name = "extent_bytes",
      .type = API_TYPE_SIZE,
      .label = "SIZE",
      .help = "unit of allocation, a power of two from 1M to 64M (default 4M); for life",
      .minimum = 1 << 20,
      .maximum = 64 << 20 },
    { .name = "force",
      .type = API_TYPE_BOOL,
      .help = "take disks although they hold something else, which is lost" },
};

static const struct api_field pool_add_fields[] = {
    FIELD_POOL(API_POSITIONAL | API_REQUIRED),
    FIELD_DISKS,
    { .name = "force",
      .type = API_TYPE_BOOL,
      .help = "take disks although they hold something else, which is lost" },
};

static const struct api_field pool_import_fields[] = {
    FIELD_DISKS,
    { .name = "force",
      .type = API_TYPE_BOOL,
      .help = "although another host seems to have the pool open; make sure that it has not" },
};

static const struct api_field pool_show_fields[] = {
    FIELD_POOL(API_POSITIONAL | API_REQUIRED),
};

static const struct api_field pool_delete_fields[] = {
    FIELD_POOL(API_POSITIONAL | API_REQUIRED),
    { .name = "force",
      .type = API_TYPE_BOOL,
      .help = "forget a pool that is not online, with all its volumes; disks that cannot be "
              "reached keep their labels" },
};

static const struct api_field disk_list_fields[] = {
    FIELD_POOL(API_POSITIONAL),
};

static const struct api_field disk_show_fields[] = {
    FIELD_POOL(API_POSITIONAL | API_REQUIRED),
    { .name = "disk",
      .type = API_TYPE_STRING,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "INDEX|DISK",
      .help = "its index in the pool, or the text that opens it",
      .minimum = 1,
      .maximum = API_DISK_BYTES_MAX },
};

static const struct api_field volume_create_fields[] = {
    FIELD_VOLUME,
    { .name = "size_bytes",
      .type = API_TYPE_SIZE,
      .flags = API_REQUIRED,
      .label = "SIZE",
      .help = "what hosts see; space is taken as it is written",
      .minimum = 512 },
    { .name = "reserve_bytes",
      .type = API_TYPE_SIZE,
      .label = "SIZE",
      .help = "space that the volume is sure to have" },
    { .name = "sector_bytes",
      .type = API_TYPE_SIZE,
      .label = "512|4096",
      .help = "logical sector offered to hosts (default 512)",
      .choices = sector_choices },
    { .name = "tier",
      .type = API_TYPE_TIER,
      .label = "auto|N",
      .help = "keep the data on disks of this tier (default auto)" },
};

static const struct api_field volume_list_fields[] = {
    FIELD_POOL(API_POSITIONAL),
};

static const struct api_field volume_fields[] = {
    FIELD_VOLUME,
};

static const struct api_field volume_resize_fields[] = {
    FIELD_VOLUME,
    { .name = "size_bytes",
      .type = API_TYPE_SIZE,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "SIZE",
      .help = "the new size; smaller only when the tail holds nothing",
      .minimum = 512 },
};

static const struct api_field volume_rename_fields[] = {
    FIELD_VOLUME,
    { .name = "new_name",
      .type = API_TYPE_NAME,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "NEW-NAME",
      .help = "the new name" },
};

static const struct api_field volume_reserve_fields[] = {
    FIELD_VOLUME,
    { .name = "reserve_bytes",
      .type = API_TYPE_SIZE,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "SIZE",
      .help = "space that the volume is sure to have; 0: no reserve" },
};

static const struct api_field volume_accept_loss_fields[] = {
    FIELD_VOLUME,
    { .name = "yes",
      .type = API_TYPE_BOOL,
      .help = "said by somebody who has read what is lost; without it the command is refused" },
};

static const struct api_field volume_delete_fields[] = {
    FIELD_VIEW("the volume, or a snapshot"),
    { .name = "more",
      .type = API_TYPE_VIEWS,
      .flags = API_POSITIONAL,
      .label = "POOL/VOLUME@SNAPSHOT",
      .help = "more snapshots of the same pool; all of them go in one step" },
    { .name = "snapshots",
      .type = API_TYPE_BOOL,
      .help = "the snapshots of the volume, too; without it a volume that has some is refused" },
    { .name = "dry_run",
      .type = API_TYPE_BOOL,
      .help = "change nothing; tell whether it could be done, and what it would free" },
};

static const struct api_field snapshot_create_fields[] = {
    { .name = "volumes",
      .type = API_TYPE_VIEWS,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "POOL/VOLUME[@SNAPSHOT]",
      .help = "the volumes, of one pool; several are taken at one instant" },
    { .name = "name",
      .type = API_TYPE_NAME,
      .label = "NAME",
      .help = "name of the snapshots where none is given behind the volume (default: the time in "
              "UTC, such as 20260131T235959Z)" },
    { .name = "immutable_seconds",
      .type = API_TYPE_DURATION,
      .label = "DURATION",
      .help = "nobody can delete them for so long, not even an administrator",
      .minimum = 1,
      .maximum = INT32_MAX },
};

static const struct api_field snapshot_list_fields[] = {
    FIELD_SCOPE,
    { .name = "all",
      .type = API_TYPE_BOOL,
      .help = "also those that have been deleted and stay, without a name, because clones need "
              "them" },
};

static const struct api_field snapshot_protect_fields[] = {
    FIELD_SNAPSHOT,
    { .name = "immutable_seconds",
      .type = API_TYPE_DURATION,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "DURATION",
      .help = "from now on; such as 12h, 30d or 4w",
      .minimum = 1,
      .maximum = INT32_MAX },
};

static const struct api_field volume_clone_fields[] = {
    { .name = "source",
      .type = API_TYPE_VIEW,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "POOL/VOLUME[@SNAPSHOT]",
      .help = "what it begins as: a snapshot, or a volume as it is now" },
    { .name = "volume",
      .type = API_TYPE_VOLUME,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "POOL/NEW",
      .help = "the new volume, in the same pool" },
    { .name = "reserve_bytes",
      .type = API_TYPE_SIZE,
      .label = "SIZE",
      .help = "space that the new volume is sure to have" },
    { .name = "tier",
      .type = API_TYPE_TIER,
      .label = "auto|N",
      .help = "keep what is written to it on disks of this tier (default auto)" },
};

static const struct api_field volume_rollback_fields[] = {
    FIELD_SNAPSHOT,
};

static const struct api_field volume_diff_fields[] = {
    { .name = "from",
      .type = API_TYPE_SNAPSHOT,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "POOL/VOLUME@SNAPSHOT",
      .help = "the older state" },
    { .name = "to",
      .type = API_TYPE_VIEW,
      .flags = API_POSITIONAL,
      .label = "POOL/VOLUME[@SNAPSHOT]",
      .help = "the newer state (default: the volume as it is now)" },
    { .name = "offset_bytes",
      .type = API_TYPE_SIZE,
      .label = "SIZE",
      .help = "only what is changed from there on" },
    { .name = "length_bytes",
      .type = API_TYPE_SIZE,
      .label = "SIZE",
      .help = "only so far from there",
      .minimum = 1 },
};

static const struct api_field policy_set_fields[] = {
    FIELD_VOLUME,
    { .name = "rules",
      .type = API_TYPE_RULES,
      .label = "DURATION --keep N [--immutable DURATION]",
      .help = "make a snapshot so often, keep the newest N of them, and let nobody delete them for "
              "so long; may be repeated, for up to 8 rules. They replace those that there were" },
    { .name = "off",
      .type = API_TYPE_BOOL,
      .help = "make none any more; those that are there stay" },
    { .name = "show",
      .type = API_TYPE_BOOL,
      .flags = API_LOCAL,
      .help = "change nothing and show the rules; also without any option" },
};

static const struct api_field policy_list_fields[] = {
    FIELD_SCOPE,
};

static const struct api_field export_create_fields[] = {
    FIELD_VIEW("the volume, or a snapshot, which hosts can only read"),
    { .name = "protocol",
      .type = API_TYPE_CHOICE,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "nbd",
      .help = "how hosts reach it",
      .choices = protocols },
    { .name = "name",
      .type = API_TYPE_STRING,
      .label = "NAME",
      .help = "what hosts ask for (default POOL/VOLUME[@SNAPSHOT])",
      .minimum = 1,
      .maximum = API_EXPORT_BYTES_MAX },
    { .name = "read_only", .type = API_TYPE_BOOL, .help = "hosts may not write" },
    { .name = "exclusive", .type = API_TYPE_BOOL, .help = "one host at a time" },
    { .name = "hosts",
      .type = API_TYPE_STRINGS,
      .label = "HOST",
      .help = "only hosts of this network (10.0.0.0/8, 2001:db8::7), \"local\" (this machine's "
              "unix socket), or that have proved this name by a TLS certificate or pre-shared key "
              "(tls:NAME; tls:* is any); may be repeated, one of them is enough (default: all "
              "hosts)",
      .minimum = 1,
      .maximum = API_HOST_BYTES_MAX },
    { .name = "tls",
      .type = API_TYPE_CHOICE,
      .label = "required|allowed|off",
      .help = "whether hosts must, may or must not use TLS, at addresses that offer it (default "
              "allowed)",
      .choices = tls_choices },
    { .name = "default",
      .type = API_TYPE_BOOL,
      .help = "also found by hosts that ask for no name; one export can be that" },
};

static const struct api_field export_delete_fields[] = {
    FIELD_VIEW("the volume, or a snapshot"),
    { .name = "protocol",
      .type = API_TYPE_CHOICE,
      .flags = API_POSITIONAL,
      .label = "nbd",
      .help = "only this protocol (default: all)",
      .choices = protocols },
    { .name = "force",
      .type = API_TYPE_BOOL,
      .help = "drop the hosts that are attached; without it the command is refused then" },
};

static const struct api_field export_list_fields[] = {
    { .name = "protocol",
      .type = API_TYPE_CHOICE,
      .flags = API_POSITIONAL,
      .label = "nbd",
      .help = "only this protocol",
      .choices = protocols },
};

static const struct api_field session_list_fields[] = {
    { .name = "volume",
      .type = API_TYPE_VIEW,
      .flags = API_POSITIONAL,
      .label = "POOL/VOLUME[@SNAPSHOT]",
      .help = "only hosts of this volume or snapshot" },
};

static const struct api_field session_drop_fields[] = {
    { .name = "session",
      .type = API_TYPE_STRING,
      .flags = API_POSITIONAL | API_REQUIRED,
      .label = "ID|HOST",
      .help = "a session's id, or the host part of its peer, or its identity",
      .minimum = 1,
      .maximum = 127 },
    { .name = "block",
      .type = API_TYPE_BOOL,
      .help = "refuse that host from now on, also by its other addresses and names; this outlives "
              "restarts, until --unblock" },
    { .name = "unblock", .type = API_TYPE_BOOL, .help = "accept that host again; drops nothing" },
};

static const struct api_field job_list_fields[] = {
    { .name = "id",
      .type = API_TYPE_NUMBER,
      .flags = API_POSITIONAL,
      .label = "ID",
      .help = "only this job",
      .minimum = 1 },
    { .name = "follow",
      .type = API_TYPE_BOOL,
      .flags = API_LOCAL,
      .help = "go on and print what changes; with an ID to the end of that job" },
};

static const struct api_field check_fields[] = {
    FIELD_POOL(API_POSITIONAL),
    { .name = "background",
      .type = API_TYPE_BOOL,
      .flags = API_LOCAL,
      .help = "begin, and leave it to \"volctl checks\" to tell the result" },
};

static const struct api_field check_list_fields[] = {
    FIELD_POOL(API_POSITIONAL),
};

static const struct api_field event_list_fields[] = {
    { .name = "after",
      .type = API_TYPE_NUMBER,
      .label = "NUMBER",
      .help = "only events with a greater number" },
    { .name = "wait_seconds",
      .type = API_TYPE_NUMBER,
      .label = "SECONDS",
      .help = "when there is none yet, wait so long for one",
      .maximum = 60 },
    { .name = "follow",
      .type = API_TYPE_BOOL,
      .flags = API_LOCAL,
      .help = "go on and print events as they come" },
};

static const struct api_field attach_fields[] = {
    FIELD_VIEW("the volume, or a snapshot"),
    { .name = "for",
      .type = API_TYPE_CHOICE,
      .flags = API_LOCAL,
      .label = "CLIENT",
      .help = "qemu, libvirt, nbd-client, proxmox, qemu-img or nbdinfo (default: all of them)",
      .choices = attach_choices },
    { .name = "host",
      .type = API_TYPE_STRING,
      .flags = API_LOCAL,
      .label = "HOST",
      .help = "name of this machine as the hosts know it, for addresses like 0.0.0.0",
      .minimum = 1,
      .maximum = 255 },
};

static const struct api_field top_fields[] = {
    { .name = "sessions",
      .type = API_TYPE_BOOL,
      .flags = API_LOCAL,
      .help = "one line for each host that is attached, instead of one for each volume" },
    { .name = "once",
      .type = API_TYPE_BOOL,
      .flags = API_LOCAL,
      .help = "print one table and end; the rates are those of one interval" },
    { .name = "interval",
      .type = API_TYPE_NUMBER,
      .flags = API_LOCAL,
      .label = "SECONDS",
      .help = "between two tables (default 1)",
      .minimum = 1,
      .maximum = 3600 },
};

static const struct api_command commands[API_COMMAND_COUNT] = {
    [API_POOL_CREATE] = {
        .id = API_POOL_CREATE,
        .words = "pool create",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/pools",
        .action = "create pool {pool}",
        .done = "pool {pool} created",
        .summary = "make a pool of disks",
        .description = "Each disk gets a label. A disk that holds a file system, a partition "
                       "table or another pool is refused unless --force is given.",
        .example = "volctl pool create fast file:/srv/disk1.img?size=20G /dev/sdb,tier=1",
        FIELDS(pool_create_fields),
        .reply = &api_shape_pool,
    },
    [API_POOL_ADD] = {
        .id = API_POOL_ADD,
        .words = "pool add",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/pools/{pool}/disks",
        .action = "add disks to pool {pool}",
        .done = "disks added to pool {pool}",
        .summary = "add disks to a pool",
        .example = "volctl pool add fast /dev/sdc",
        FIELDS(pool_add_fields),
        .reply = &api_shape_pool,
    },
    [API_POOL_IMPORT] = {
        .id = API_POOL_IMPORT,
        .words = "pool import",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/import",
        .action = "import a pool",
        .summary = "take over a pool whose state directory is elsewhere or lost",
        .description = "The metadata is rebuilt from the newest checkpoint and the commit ledger "
                       "on the disks: nothing that a host has flushed is lost.",
        .example = "volctl pool import /dev/sdb /dev/sdc",
        FIELDS(pool_import_fields),
        .reply = &api_shape_pool,
    },
    [API_POOL_LIST] = {
        .id = API_POOL_LIST,
        .words = "pool list",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/pools",
        .action = "list pools",
        .summary = "list all pools",
        .reply = &api_shape_pool,
        .reply_list = "pools",
    },
    [API_POOL_SHOW] = {
        .id = API_POOL_SHOW,
        .words = "pool show",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/pools/{pool}",
        .action = "show pool {pool}",
        .summary = "show a pool and its disks",
        FIELDS(pool_show_fields),
        .reply = &api_shape_pool,
    },
    [API_POOL_DELETE] = {
        .id = API_POOL_DELETE,
        .words = "pool delete",
        .method = API_METHOD_DELETE,
        .path = API_PREFIX "/pools/{pool}",
        .action = "delete pool {pool}",
        .done = "pool {pool} deleted",
        .summary = "delete a pool that has no volumes",
        .description = "Its disks lose their labels and can be used for something else; files "
                       "that were made as disks stay.",
        .example = "volctl pool delete fast",
        FIELDS(pool_delete_fields),
        .reply = &api_shape_deleted,
    },
    [API_DISK_LIST] = {
        .id = API_DISK_LIST,
        .words = "disk list",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/disks",
        .action = "list disks",
        .summary = "list the disks of a pool, or of all",
        FIELDS(disk_list_fields),
        .reply = &api_shape_disk,
        .reply_list = "disks",
    },
    [API_DISK_SHOW] = {
        .id = API_DISK_SHOW,
        .words = "disk show",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/disk",
        .action = "show disk {disk} of pool {pool}",
        .summary = "show a disk and its counters",
        .example = "volctl disk show fast 0",
        FIELDS(disk_show_fields),
        .reply = &api_shape_disk,
    },
    [API_VOLUME_CREATE] = {
        .id = API_VOLUME_CREATE,
        .words = "create",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/volumes",
        .action = "create volume {volume}",
        .done = "volume {volume} created",
        .summary = "make a volume",
        .description = "Volumes are thin: creating one takes no space, and never-written blocks "
                       "read as zeroes.",
        .example = "volctl create fast/vm1 --size 100G",
        FIELDS(volume_create_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_LIST] = {
        .id = API_VOLUME_LIST,
        .words = "list",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/volumes",
        .action = "list volumes",
        .summary = "list the volumes of a pool, or of all",
        FIELDS(volume_list_fields),
        .reply = &api_shape_volume,
        .reply_list = "volumes",
    },
    [API_VOLUME_SHOW] = {
        .id = API_VOLUME_SHOW,
        .words = "show",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/volumes/{volume}",
        .action = "show volume {volume}",
        .summary = "show a volume and its counters",
        FIELDS(volume_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_RESIZE] = {
        .id = API_VOLUME_RESIZE,
        .words = "resize",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/volumes/{volume}/resize",
        .action = "resize volume {volume}",
        .done = "volume {volume} resized",
        .summary = "change the size of a volume",
        .description = "Hosts that are attached are told where their protocol can say it; the "
                       "others see the new size when they attach again.",
        .example = "volctl resize fast/vm1 200G",
        FIELDS(volume_resize_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_RENAME] = {
        .id = API_VOLUME_RENAME,
        .words = "rename",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/volumes/{volume}/rename",
        .action = "rename volume {volume}",
        .done = "volume {volume} renamed to {new_name}",
        .summary = "give a volume another name",
        .description = "Its identity for hosts and those that are attached stay. An export that "
                       "has the volume's name gets the new one; other names stay.",
        .example = "volctl rename fast/vm1 web1",
        FIELDS(volume_rename_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_RESERVE] = {
        .id = API_VOLUME_RESERVE,
        .words = "reserve",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/volumes/{volume}/reserve",
        .action = "reserve space for volume {volume}",
        .done = "reserve of volume {volume} set",
        .summary = "promise space to a volume",
        .description = "Refused when the pool cannot keep the promise.",
        .example = "volctl reserve fast/vm1 50G",
        FIELDS(volume_reserve_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_DELETE] = {
        .id = API_VOLUME_DELETE,
        .words = "delete",
        .method = API_METHOD_DELETE,
        .path = API_PREFIX "/volumes/{volume}",
        .action = "delete {volume}",
        .summary = "delete a volume and its data, or snapshots",
        .description = "Asks nothing, but is refused while the volume or snapshot is exported or "
                       "attached, and for a snapshot that is immutable. The name is gone at once; "
                       "the space that nobody else needs comes back in the background. Snapshots "
                       "can be deleted in any order, and so can what clones were made from.",
        .example = "volctl delete fast/vm1@monday fast/vm1@tuesday --dry-run",
        FIELDS(volume_delete_fields),
        .reply = &api_shape_deleted,
        .waits = true,
    },
    [API_VOLUME_ACCEPT_LOSS] = {
        .id = API_VOLUME_ACCEPT_LOSS,
        .words = "accept-loss",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/volumes/{volume}/accept-loss",
        .action = "serve volume {volume} again",
        .done = "volume {volume} serves again; check the file systems on it",
        .summary = "serve a fenced volume with what its disks have kept",
        .description = "A disk has lost writes of the volume that hosts had not flushed, and it is "
                       "not known which, so it answers no I/O. Accepting this is like a power cut "
                       "of the hosts: what was flushed is there, what was written after the last "
                       "flush may be there in part. Prefer to restore from a backup where that is "
                       "not good enough; nothing brings the lost writes back.",
        .example = "volctl accept-loss fast/vm1 --yes",
        FIELDS(volume_accept_loss_fields),
        .reply = &api_shape_volume,
    },
    [API_SNAPSHOT_CREATE] = {
        .id = API_SNAPSHOT_CREATE,
        .words = "snapshot",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/snapshots",
        .action = "take a snapshot of {volumes}",
        .summary = "take a snapshot of a volume, or of several at one instant",
        .description = "Takes as long for large volumes as for small ones, copies nothing, and "
                       "hosts go on writing. What a host has been told is written is in it. Of "
                       "several volumes all are taken, at one instant, or none.",
        .example = "volctl snapshot fast/database fast/log --name before-upgrade",
        FIELDS(snapshot_create_fields),
        .reply = &api_shape_snapshot,
        .reply_list = "snapshots",
    },
    [API_SNAPSHOT_LIST] = {
        .id = API_SNAPSHOT_LIST,
        .words = "snapshots",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/snapshots",
        .action = "list snapshots",
        .summary = "list snapshots and the space that they hold",
        .description = "EXCLUSIVE is what deleting that snapshot alone would free; \"volctl delete "
                       "--dry-run\" tells it for any set of them.",
        .example = "volctl snapshots fast/vm1",
        FIELDS(snapshot_list_fields),
        .reply = &api_shape_snapshot,
        .reply_list = "snapshots",
    },
    [API_SNAPSHOT_PROTECT] = {
        .id = API_SNAPSHOT_PROTECT,
        .words = "protect",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/snapshots/{snapshot}/protect",
        .action = "protect snapshot {snapshot}",
        .done = "snapshot {snapshot} is immutable",
        .summary = "let nobody delete a snapshot for some time",
        .description = "Not even an administrator can delete it, or shorten that time; it can only "
                       "be prolonged. Setting the clock of the machine does not help.",
        .example = "volctl protect fast/vm1@monthly 30d",
        FIELDS(snapshot_protect_fields),
        .reply = &api_shape_snapshot,
    },
    [API_VOLUME_CLONE] = {
        .id = API_VOLUME_CLONE,
        .words = "clone",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/clones",
        .action = "clone {source} to {volume}",
        .done = "volume {volume} begins as {source}",
        .summary = "make a volume that begins as a snapshot or another volume",
        .description = "Copies no data: blocks are shared until one of them is written. Clone and "
                       "origin are independent; each can be deleted while the other one is used.",
        .example = "volctl clone fast/golden@v7 fast/vm8",
        FIELDS(volume_clone_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_ROLLBACK] = {
        .id = API_VOLUME_ROLLBACK,
        .words = "rollback",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/snapshots/{snapshot}/rollback",
        .action = "roll back to {snapshot}",
        .done = "the volume is what {snapshot} is",
        .summary = "make a volume what one of its snapshots is",
        .description = "What was written since is gone, unless a later snapshot holds it: all "
                       "snapshots stay, later ones too. Refused while a host is attached.",
        .example = "volctl rollback fast/vm1@before-upgrade",
        FIELDS(volume_rollback_fields),
        .reply = &api_shape_volume,
    },
    [API_VOLUME_DIFF] = {
        .id = API_VOLUME_DIFF,
        .words = "diff",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/diff",
        .action = "compare {from}",
        .summary = "list the blocks that have changed since a snapshot",
        .description = "Exact to 4 KiB, and no slower for large volumes. For backups compare two "
                       "snapshots: a volume goes on changing while it is looked at. The API "
                       "answers in parts; volctl asks for all of them.",
        .example = "volctl diff fast/vm1@monday fast/vm1@tuesday --json",
        FIELDS(volume_diff_fields),
        .reply = &api_shape_diff,
    },
    [API_POLICY_SET] = {
        .id = API_POLICY_SET,
        .words = "snapshot-policy",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/volumes/{volume}/snapshot-policy",
        .action = "set the snapshot policy of volume {volume}",
        .summary = "make and delete snapshots of a volume by a schedule",
        .description = "They are made at multiples of that time in UTC and are called by it. Each "
                       "rule deletes only what was made for it.",
        .example = "volctl snapshot-policy fast/vm1 --every 15m --keep 8 --every 1d --keep 14",
        FIELDS(policy_set_fields),
        .reply = &api_shape_policy,
    },
    [API_POLICY_LIST] = {
        .id = API_POLICY_LIST,
        .words = "snapshot-policies",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/snapshot-policies",
        .action = "list snapshot policies",
        .summary = "list the schedules of snapshots",
        FIELDS(policy_list_fields),
        .reply = &api_shape_policy,
        .reply_list = "policies",
    },
    [API_EXPORT_CREATE] = {
        .id = API_EXPORT_CREATE,
        .words = "export",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/exports",
        .action = "export {volume}",
        .done = "{volume} exported; \"volctl attach {volume}\" tells how to use it",
        .summary = "let hosts reach a volume or a snapshot",
        .description = "Rules of an export hold for hosts that attach; to change them, unexport "
                       "and export again.",
        .example = "volctl export fast/vm1 nbd --host 10.1.2.0/24 --host tls:web1 --tls required",
        FIELDS(export_create_fields),
        .reply = &api_shape_export,
    },
    [API_EXPORT_DELETE] = {
        .id = API_EXPORT_DELETE,
        .words = "unexport",
        .method = API_METHOD_DELETE,
        .path = API_PREFIX "/exports/{volume}",
        .action = "unexport {volume}",
        .done = "{volume} is no longer exported",
        .summary = "let hosts no longer reach a volume or a snapshot",
        FIELDS(export_delete_fields),
        .reply = &api_shape_deleted,
    },
    [API_EXPORT_LIST] = {
        .id = API_EXPORT_LIST,
        .words = "exports",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/exports",
        .action = "list exports",
        .summary = "list exports",
        FIELDS(export_list_fields),
        .reply = &api_shape_export,
        .reply_list = "exports",
    },
    [API_SESSION_LIST] = {
        .id = API_SESSION_LIST,
        .words = "session list",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/sessions",
        .action = "list sessions",
        .summary = "list the hosts that are attached",
        FIELDS(session_list_fields),
        .reply = &api_shape_session,
        .reply_list = "sessions",
    },
    [API_SESSION_DROP] = {
        .id = API_SESSION_DROP,
        .words = "session drop",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/sessions/drop",
        .action = "drop session {session}",
        .summary = "cut off a host",
        .description = "Returns only when nothing that the host has sent can still take effect: "
                       "after it, another host may safely take over.",
        .example = "volctl session drop 192.0.2.7 --block",
        FIELDS(session_drop_fields),
        .reply = &api_shape_dropped,
    },
    [API_SESSION_BLOCKS] = {
        .id = API_SESSION_BLOCKS,
        .words = "session blocks",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/blocks",
        .action = "list blocked hosts",
        .summary = "list the hosts that are refused",
        .description = "\"volctl session drop ORIGIN --unblock\" lets a host in again.",
        .reply = &api_shape_block,
        .reply_list = "blocks",
    },
    [API_STATUS] = {
        .id = API_STATUS,
        .words = "status",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/status",
        .action = "show the status",
        .summary = "show how the daemon and its pools are",
        .reply = &api_shape_status,
    },
    [API_JOB_LIST] = {
        .id = API_JOB_LIST,
        .words = "jobs",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/jobs",
        .action = "list jobs",
        .summary = "list long work in the background",
        .example = "volctl jobs --follow",
        FIELDS(job_list_fields),
        .reply = &api_shape_job,
        .reply_list = "jobs",
    },
    [API_EVENT_LIST] = {
        .id = API_EVENT_LIST,
        .words = "events",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/events",
        .action = "list events",
        .summary = "list what has happened",
        .example = "volctl events --follow",
        FIELDS(event_list_fields),
        .reply = &api_shape_event,
        .reply_list = "events",
    },
    [API_CHECK] = {
        .id = API_CHECK,
        .words = "check",
        .method = API_METHOD_POST,
        .path = API_PREFIX "/check",
        .action = "check the metadata",
        .summary = "check the metadata of a pool, or of all, while they serve",
        .description = "Compares the database as of one commit with itself, with the labels of "
                       "the disks and with what the daemon has in memory. Changes nothing and "
                       "holds up nobody. volctl waits for the end, prints what was found, and "
                       "ends with status 1 when there were errors.",
        .example = "volctl check fast",
        FIELDS(check_fields),
        .reply = &api_shape_check,
        .reply_list = "checks",
    },
    [API_CHECK_LIST] = {
        .id = API_CHECK_LIST,
        .words = "checks",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/checks",
        .action = "list checks",
        .summary = "show the last check of each pool since the daemon started",
        FIELDS(check_list_fields),
        .reply = &api_shape_check,
        .reply_list = "checks",
    },
    [API_METRICS] = {
        .id = API_METRICS,
        .words = "metrics",
        .method = API_METHOD_GET,
        .path = API_PREFIX "/metrics",
        .action = "read the metrics",
        .summary = "print all counters in the text format of Prometheus",
    },
    [API_ATTACH] = {
        .id = API_ATTACH,
        .words = "attach",
        .method = API_METHOD_LOCAL,
        .action = "attach {volume}",
        .summary = "print what to paste on a host to use an exported volume",
        .example = "volctl attach fast/vm1 --for qemu",
        FIELDS(attach_fields),
    },
    [API_TOP] = {
        .id = API_TOP,
        .words = "top",
        .method = API_METHOD_LOCAL,
        .action = "watch the volumes",
        .summary = "show live which volumes or hosts do how much",
        .description = "Rates and mean latencies of one interval after the other, the busiest "
                       "first; on a terminal as many as fit.",
        .example = "volctl top --sessions",
        FIELDS(top_fields),
    },
};

const struct api_command *
api_command(enum api_command_id id)
{
    ASSERT_OP((int)id, <, (int)API_COMMAND_COUNT);
    ASSERT(commands[id].words != NULL);
    return &commands[id];
}
