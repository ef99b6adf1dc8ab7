/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of one command: decoded from foreign JSON, from a URL or from a command line, checked
 * against the command's row of the table, and encoded again for the wire.
 *
 * All functions that set a value return 0 or -EINVAL (-ERANGE, -E2BIG) with a sentence in `error`
 * that names the field; the arguments stay usable and own what they hold.
 */
#ifndef API_ARGUMENTS_H
#define API_ARGUMENTS_H

#include <jansson.h>

#include "api/schema.h"
#include "base/byte_buffer.h"
#include "base/error.h"

struct api_disk {
    char *disk; /* owned */
    uint8_t tier;
};

/* Of a schedule: every so often a snapshot, of which the newest `keep` stay. */
struct api_rule {
    uint64_t every_seconds;
    uint64_t immutable_seconds; /* 0: they can be deleted */
    uint32_t keep;              /* 0: not said yet */
};

struct api_value {
    bool present;
    uint64_t number; /* SIZE, NUMBER, DURATION; BOOL as 0 or 1 */
    char *text;      /* owned; what has a single text */
    struct api_disk *disks;
    size_t disk_count;
    char **strings; /* each owned; STRINGS, VIEWS */
    size_t string_count;
    struct api_rule rules[API_RULES_MAX];
    size_t rule_count;
};

struct api_arguments {
    const struct api_command *command;
    struct api_value values[API_FIELDS_MAX];
};

/* Empty, for this command. */
void api_arguments_init(struct api_arguments *arguments, const struct api_command *command);
/* Release what they own; empty afterwards. */
void api_arguments_free(struct api_arguments *arguments);

enum api_text_form {
    API_TEXT_PERSON, /* a command line: 10G, 15m, yes, DISK,tier=N */
    API_TEXT_WIRE,   /* a URL: plain integers, true or false */
};

/*
 * Set a field from text. A field that is already set is an error, except DISKS, STRINGS, VIEWS (all
 * with API_TEXT_PERSON) and RULES, which grow by one: the text of a rule is its `every`.
 * With API_TEXT_PERSON a BOOL without text (NULL) is true.
 */
int api_arguments_set_text(struct api_arguments *arguments, size_t field, const char *text,
                           enum api_text_form form, struct error *error);

/*
 * The rest of the newest rule of a field of rules: `part` is "keep" or "immutable". -EINVAL also
 * when there is no rule yet.
 */
int api_arguments_set_rule(struct api_arguments *arguments, size_t field, const char *part,
                           const char *text, struct error *error);

/* Take every field of a body. `body` need not be an object, nor of this command (P12). */
int api_arguments_set_json(struct api_arguments *arguments, const json_t *body,
                           struct error *error);

/* Parse `length` bytes of foreign text and take them; nothing at all is an empty object. */
int api_arguments_set_body(struct api_arguments *arguments, const char *body, size_t length,
                           struct error *error);

/* All required fields are there. */
int api_arguments_check(const struct api_arguments *arguments, struct error *error);

/* Values by name; the name is in the table, and of that kind (asserted). Absent: the default. */
const char *api_text(const struct api_arguments *arguments, const char *name);
uint64_t api_number(const struct api_arguments *arguments, const char *name, uint64_t otherwise);
bool api_flag(const struct api_arguments *arguments, const char *name);
const struct api_disk *api_disks(const struct api_arguments *arguments, const char *name,
                                 size_t *ret_count);
const char *const *api_strings(const struct api_arguments *arguments, const char *name,
                               size_t *ret_count);
const struct api_rule *api_rules(const struct api_arguments *arguments, const char *name,
                                 size_t *ret_count);
bool api_present(const struct api_arguments *arguments, const char *name);

/* For clients: path with its values and the query string; and the body (NULL: none). New. */
void api_arguments_encode_url(const struct api_arguments *arguments, struct byte_buffer *ret_url);
json_t *api_arguments_encode_body(const struct api_arguments *arguments);

/*
 * For the server: which command a method and path mean. Values of the path are put into
 * `ret_arguments`, which this initialises. 0, -ENOENT (no such path), -EPERM (not by this method),
 * -EINVAL (a value of the path is not valid); only with 0 the caller frees.
 */
int api_route(const char *method, const char *path, struct api_arguments *ret_arguments,
              struct error *error);

/* Put the values into a template such as "create volume {volume}". Always terminated. */
void api_expand(const struct api_arguments *arguments, const char *pattern, char *text,
                size_t size);
/* The command's action. */
void api_action_text(const struct api_arguments *arguments, char *text, size_t size);

/* For people: "POOL/VOLUME@SNAPSHOT" is one, "POOL/VOLUME" is not. */
bool api_is_snapshot(const char *view);

/* 1 to 127 of A-Z a-z 0-9 . _ -, not beginning with . or -. */
bool api_name_is_valid(const char *name, size_t length);

#endif
