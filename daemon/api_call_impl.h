/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of the API, from the request's first byte to the answer.
 *
 * Two threads take turns with it, never at one time: the server's thread receives and decodes;
 * then the connection is suspended and the call travels to reactor 0, where start() and steps run
 * control operations; the last completion sends it back by resuming the connection, and the
 * server's thread encodes and answers. Reports are copies, so that long lists are encoded off the
 * reactor.
 */
#ifndef DAEMON_API_CALL_IMPL_H
#define DAEMON_API_CALL_IMPL_H

#include <jansson.h>

#include "api/arguments.h"
#include "base/byte_buffer.h"
#include "daemon/node.h"
#include "volmgr/manager.h"

struct api_call;
struct api_listener;
struct api_server;

/* What can be said of everything; filled by gather(). Arrays are freed with the call. */
struct api_reports {
    struct pool_report *pools;
    uint32_t pool_count;
    struct volume_report *volumes;
    uint32_t volume_count;
    struct export_report *exports;
    uint32_t export_count;
    struct session_report *sessions;
    uint32_t session_count;
    struct event *events;
    uint32_t event_count;
    struct job_report *jobs;
    uint32_t job_count;
    struct check_report *checks;
    uint32_t check_count;
    struct block_report *blocks;
    uint32_t block_count;
    struct snapshot_report *snapshots;
    uint32_t snapshot_count;
    struct policy_report *policies;
    uint32_t policy_count;
    struct volume_diff_run *runs;
    uint32_t run_count;
};

enum api_report_flags {
    REPORT_POOLS = 1u << 0,
    REPORT_VOLUMES = 1u << 1,
    REPORT_EXPORTS = 1u << 2,
    REPORT_SESSIONS = 1u << 3,
    REPORT_JOBS = 1u << 4,
    REPORT_CHECKS = 1u << 5,
    REPORT_BLOCKS = 1u << 6,
};

/* Every member begins with a struct control, so that its completion finds the call. */
union api_operation {
    struct control control;
    struct pool_create pool_create;
    struct pool_add pool_add;
    struct pool_import pool_import;
    struct pool_delete pool_delete;
    struct pool_query pool_query;
    struct volume_create volume_create;
    struct volume_delete volume_delete;
    struct volume_resize volume_resize;
    struct volume_rename volume_rename;
    struct volume_set_reserve volume_set_reserve;
    struct volume_query volume_query;
    struct export_create export_create;
    struct export_delete export_delete;
    struct export_query export_query;
    struct session_query session_query;
    struct session_drop session_drop;
    struct block_query block_query;
    struct volume_accept_loss volume_accept_loss;
    struct event_query event_query;
    struct job_query job_query;
    struct pool_check pool_check;
    struct check_query check_query;
    struct snapshot_create snapshot_create;
    struct snapshot_delete snapshot_delete;
    struct snapshot_query snapshot_query;
    struct snapshot_set_expiry snapshot_set_expiry;
    struct volume_clone volume_clone;
    struct volume_rollback volume_rollback;
    struct volume_diff volume_diff;
    struct policy_set policy_set;
    struct policy_query policy_query;
};

typedef void api_call_fn(struct api_call *call);

struct api_handler {
    enum api_command_id id;
    bool changes;   /* taken while serving only, and noted in the log */
    bool creates;   /* answers with status 201 */
    api_call_fn *start; /* reactor 0 */
    json_t *(*encode)(struct api_call *call); /* server's thread; new; NULL with `result` set */
};

struct api_call {
    struct api_server *server;
    struct node *node;
    const struct api_handler *handler;
    struct api_arguments arguments;
    union api_operation operation;
    api_call_fn *next;         /* runs when the operation has ended with 0; NULL: finish */
    uint32_t gather_wanted;    /* enum api_report_flags not asked for yet */
    struct disk_argument *disks; /* owned */
    struct volume_name *names; /* owned */
    uint32_t name_count;
    uint32_t names_reported;   /* of names; their reports have been collected */
    struct volume_name name;   /* whose report the answer is */
    bool with_space; /* reports tell what is exclusive and shared */
    bool is_dry_run;
    uint64_t freed_bytes; /* of a deletion, or a dry run */
    uint32_t unnamed;     /* snapshots that stay without a name */
    uint64_t diff_to_bytes, diff_next_bytes, diff_end_bytes;
    char pool_name[NAME_BYTES_MAX + 1];
    uint64_t deadline_ns;      /* of waiting for events */
    bool waits;                /* counted in node->event_waits */
    struct api_reports reports;
    uint32_t dropped;
    uint32_t checked; /* of reports.pools, so many have been told to be checked */
    int result; /* 0 or -errno */
    struct error error;

    /* the server's */
    struct MHD_Connection *connection;
    struct message message;
    struct list under_way_link; /* on reactor 0: not yet answered */
    uint64_t started_ns;        /* there */
    uint64_t told_ns;           /* when the log was told last that it takes long; 0: never */
    struct byte_buffer body;
    bool body_too_large;
    bool routed;
    bool counted;   /* in the server's `running` */
    bool submitted; /* has travelled to reactor 0 */
    const struct api_listener *listener;
    char caller[192]; /* for the log */
};

/* By command; never NULL for a remote one. */
const struct api_handler *api_handler(enum api_command_id id);

/* Reactor 0: prepare the operation's head; call manager_...() next. `next` as above. */
void api_call_prepare(struct api_call *call, api_call_fn *next);
/* Reactor 0: end the call with what `result` and `error` say. Nothing touches it afterwards. */
void api_call_finish(struct api_call *call);
/* Reactor 0: end it with an error. */
void api_call_fail(struct api_call *call, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reactor 0: collect what gather_wanted says, then finish. */
void api_call_gather(struct api_call *call);

/* Reactor 0: collect these reports (enum api_report_flags), then finish. */
void api_start_gather(struct api_call *call, uint32_t wanted);
/* A name that the decoder has let through. */
void api_copy_name(char to[static NAME_BYTES_MAX + 1], const char *from);
/* What the field `name` of the call says, which names a volume or a snapshot (A3). */
struct volume_name api_volume_argument(const struct api_call *call, const char *name);
/* The same of any text that the decoder has let through as one. */
struct volume_name api_volume_name(const char *text);
/* {"name": list}; takes the list. */
json_t *api_list_of(const char *name, json_t *list);

/* ---- commands with files of their own ---- */

api_call_fn api_check_start;
api_call_fn api_check_list_start;
json_t *api_check_answer(struct api_call *call);
json_t *api_check_list_answer(struct api_call *call);
api_call_fn api_volume_delete_start;
api_call_fn api_snapshot_create_start;
api_call_fn api_snapshot_list_start;
api_call_fn api_snapshot_protect_start;
api_call_fn api_volume_clone_start;
api_call_fn api_volume_rollback_start;
api_call_fn api_volume_diff_start;
api_call_fn api_policy_set_start;
api_call_fn api_policy_list_start;
json_t *api_volume_delete_answer(struct api_call *call);
json_t *api_snapshot_answer(struct api_call *call);
json_t *api_snapshot_list_answer(struct api_call *call);
json_t *api_volume_diff_answer(struct api_call *call);
json_t *api_policy_answer(struct api_call *call);
json_t *api_policy_list_answer(struct api_call *call);
/* The options of the export that `call` asks for. 0, or -errno with `error` set. Reactor 0. */
int api_export_rules(struct api_call *call, char options[static EXPORT_OPTIONS_SIZE],
                     struct error *error);

/* The server's, called by api_call_finish(): reactor 0. */
void api_server_resume(struct api_call *call);

void api_reports_free(struct api_reports *reports);

/* ---- encoders: reports to the shapes of api/shapes.c; new objects ---- */

json_t *encode_pool(const struct pool_report *pool, bool with_disks);
json_t *encode_disk(const struct pool_report *pool, const struct disk_report *disk,
                    bool with_counters);
/* `with_space`: the report was made with exclusive and shared bytes. */
json_t *encode_volume(const struct volume_report *volume, bool with_space);
json_t *encode_snapshot(const struct snapshot_report *snapshot, bool with_space);
json_t *encode_policy(const struct policy_report *policy);
json_t *encode_export(const struct export_report *report);
json_t *encode_session(const struct session_report *session);
json_t *encode_job(const struct job_report *job);
json_t *encode_check(const struct check_report *check);
json_t *encode_event(const struct event *event);
json_t *encode_status(struct api_call *call);
/* Prometheus text of everything that was gathered. */
void encode_metrics(struct api_call *call, struct byte_buffer *to);

#endif
