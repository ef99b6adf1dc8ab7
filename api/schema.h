/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The management API, as data: one table of commands, one table of reply shapes.
 *
 * THEORY OF OPERATION
 *
 * Everything that volmgrd can be asked is one row of the command table: the words that a person
 * types, the HTTP method and path, and the fields with their types, limits and help. The daemon's
 * decoder, volctl's parser, the help texts, the man pages, the shell completion and docs/api.md are
 * all made from the same row, so they cannot disagree. What comes back is described in the same way
 * by shapes, which volctl's tables and the documentation are made from; a test holds the daemon's
 * replies against them.
 *
 * Invariants
 *  A1  A field whose name stands in braces in the path travels there. The others travel in the
 *      query string of GET and DELETE, and in the JSON object that is the body of POST.
 *  A2  Sizes are integers of bytes and durations are integers of seconds on the wire, always; text
 *      like 10G or 15m exists on command lines only.
 *  A3  What the decoder lets through satisfies the table: required fields are there, numbers are
 *      within their limits, names are names. Code behind it asserts and does not check again.
 *  A4  An unknown field is an error, never ignored: a misspelt "forse" must not be a silent no.
 *
 * The tables are constant; all functions may be called from any thread.
 */
#ifndef API_SCHEMA_H
#define API_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    API_FIELDS_MAX = 12,         /* of one command */
    API_NAME_BYTES_MAX = 127,    /* of a pool or volume name, without the NUL */
    API_VOLUME_BYTES_MAX = 255,  /* "POOL/VOLUME" */
    API_VIEW_BYTES_MAX = 383,    /* "POOL/VOLUME@SNAPSHOT" */
    API_EXPORT_BYTES_MAX = 255,  /* of a name that hosts ask for */
    API_DISK_BYTES_MAX = 1023,   /* of a DISK text */
    API_HOST_BYTES_MAX = 135,    /* of a HOST that may use an export */
    API_DISKS_MAX = 1024,        /* in one command */
    API_STRINGS_MAX = 64,        /* in one field */
    API_VIEWS_MAX = 256,         /* in one field */
    API_RULES_MAX = 8,           /* of one schedule */
    API_RULE_KEEP_MAX = 10000,
    API_BODY_BYTES_MAX = 4 << 20, /* of a request; more than any valid one */
};

#define API_PREFIX "/v1"

/* ---- fields ---- */

enum api_type {
    API_TYPE_NAME,   /* 1 to 127 of A-Z a-z 0-9 . _ -, not beginning with . or - */
    API_TYPE_VOLUME, /* "POOL/VOLUME", both of them names */
    API_TYPE_SNAPSHOT, /* "POOL/VOLUME@SNAPSHOT", all of them names */
    API_TYPE_VIEW,   /* "POOL/VOLUME" or "POOL/VOLUME@SNAPSHOT" */
    API_TYPE_SCOPE,  /* "POOL" or "POOL/VOLUME" */
    API_TYPE_STRING, /* text without control characters, minimum to maximum bytes */
    API_TYPE_CHOICE, /* one of `choices` */
    API_TYPE_TIER,   /* text: "auto", or a number from 0 to 254 */
    API_TYPE_SIZE,   /* bytes; see A2 */
    API_TYPE_NUMBER, /* integer from minimum to maximum */
    API_TYPE_DURATION, /* seconds from minimum to maximum; see A2 */
    API_TYPE_BOOL,
    API_TYPE_DISKS, /* list of {"disk": TEXT, "tier": NUMBER}; on command lines DISK[,tier=N]... */
    /* In replies only. */
    API_TYPE_TIME,   /* text: RFC 3339 in UTC with milliseconds; empty when it has not happened */
    API_TYPE_OBJECT, /* of `shape` */
    API_TYPE_LIST,   /* of objects of `shape` */
    /* Both. */
    API_TYPE_STRINGS, /* list of text; on command lines an option without its s, repeated */
    API_TYPE_VIEWS,   /* list of VIEW; on command lines words; in a query separated by commas */
    /* List of {"every_seconds": DURATION, "keep": NUMBER, "immutable_seconds": DURATION}; on
     * command lines --every DURATION --keep N [--immutable DURATION], repeated. */
    API_TYPE_RULES
};
const char *api_type_name(enum api_type type);

enum api_field_flags {
    API_REQUIRED = 1u << 0,
    API_POSITIONAL = 1u << 1, /* on the command line a word, not an option */
    API_LOCAL = 1u << 2,      /* for volctl itself; never sent */
};

struct api_field {
    const char *name; /* in JSON; as an option without its unit (STRINGS: s), and with - for _ */
    enum api_type type;
    uint32_t flags;
    const char *label; /* what stands for the value in a usage line, such as SIZE */
    const char *help;
    uint64_t minimum; /* of the value where it is a number; STRING, STRINGS: of its (their) bytes */
    uint64_t maximum; /* inclusive; 0: no limit but the type's */
    const char *const *choices; /* CHOICE, SIZE, NUMBER (in decimal); ends with NULL */
};

/* ---- replies ---- */

enum api_reply_flags {
    API_COLUMN = 1u << 0, /* shown in volctl's table of such objects */
    API_WIDE = 1u << 1,   /* shown only for one object, not in a table of them */
    API_OPTIONAL = 1u << 2, /* may be null, or left out where the object is part of another */
};

struct api_shape;
struct api_reply_field {
    const char *name;
    enum api_type type;
    uint32_t flags;
    const char *title; /* heading for people */
    const char *help;
    const struct api_shape *shape; /* OBJECT, LIST */
};

struct api_shape {
    const char *name;
    const char *help;
    const struct api_reply_field *fields;
    size_t field_count;
};

/* ---- commands ---- */

enum api_command_id {
    API_POOL_CREATE,
    API_POOL_ADD,
    API_POOL_IMPORT,
    API_POOL_LIST,
    API_POOL_SHOW,
    API_POOL_DELETE,
    API_DISK_LIST,
    API_DISK_SHOW,
    API_VOLUME_CREATE,
    API_VOLUME_LIST,
    API_VOLUME_SHOW,
    API_VOLUME_RESIZE,
    API_VOLUME_RENAME,
    API_VOLUME_RESERVE,
    API_VOLUME_DELETE,
    API_VOLUME_ACCEPT_LOSS,
    API_SNAPSHOT_CREATE,
    API_SNAPSHOT_LIST,
    API_SNAPSHOT_PROTECT,
    API_VOLUME_CLONE,
    API_VOLUME_ROLLBACK,
    API_VOLUME_DIFF,
    API_POLICY_SET,
    API_POLICY_LIST,
    API_EXPORT_CREATE,
    API_EXPORT_DELETE,
    API_EXPORT_LIST,
    API_SESSION_LIST,
    API_SESSION_DROP,
    API_SESSION_BLOCKS,
    API_STATUS,
    API_JOB_LIST,
    API_EVENT_LIST,
    API_CHECK,
    API_CHECK_LIST,
    API_METRICS,
    API_COMMANDS_REMOTE, /* the rest is volctl's own */
    API_ATTACH = API_COMMANDS_REMOTE,
    API_TOP,
    API_COMMAND_COUNT
};

enum api_method {
    API_METHOD_LOCAL, /* answered by volctl, from other commands' replies */
    API_METHOD_GET,
    API_METHOD_POST,
    API_METHOD_DELETE,
};
const char *api_method_name(enum api_method method);

struct api_command {
    enum api_command_id id;
    const char *words; /* "pool create" */
    enum api_method method;
    const char *path;   /* "/v1/volumes/{volume}/resize" */
    const char *action; /* for "cannot ...", with {field} where its value stands */
    const char *done;   /* what volctl prints instead of the reply, in the same way; or NULL */
    const char *summary;
    const char *description; /* more sentences, or NULL */
    const char *example;     /* a command line, or NULL */
    const struct api_field *fields; /* positional ones first, in order */
    size_t field_count;
    const struct api_shape *reply; /* NULL: no JSON (metrics) */
    const char *reply_list; /* the reply is {"<reply_list>": [objects of `reply`]}; NULL: one */
    bool waits;             /* may leave a job behind that --wait follows */
};

/* Its row. */
const struct api_command *api_command(enum api_command_id id);

/* The command that these words begin with, the longest match; *ret_words tells how many it took.
 * NULL: none. */
const struct api_command *api_command_by_words(char *const *words, size_t count,
                                               size_t *ret_words);

/* The field's index in command->fields, or -1. */
int api_field_index(const struct api_command *command, const char *name);
bool api_field_in_path(const struct api_command *command, const struct api_field *field);

/* All shapes, for documentation; `index` from 0; NULL behind the last. */
const struct api_shape *api_shape(size_t index);

#endif
