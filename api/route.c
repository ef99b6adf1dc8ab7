/* SPDX-License-Identifier: Apache-2.0 */
/* Between a command with its values and the URL that carries them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/arguments.h"
#include "base/assert.h"

/* ---- client: values to URL ---- */

static void
append_escaped(struct byte_buffer *to, const char *text, bool in_path)
{
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                     "0123456789-._~";
    for (; *text != '\0'; text++) {
        if (strchr(unreserved, *text) != NULL || (in_path && strchr("/@", *text) != NULL)) {
            byte_buffer_append_u8(to, (uint8_t)*text);
        } else {
            byte_buffer_append_format(to, "%%%02X", (unsigned)(unsigned char)*text);
        }
    }
}

static void
append_value(struct byte_buffer *to, const struct api_field *field, const struct api_value *value,
             bool in_path)
{
    ASSERT(field->type != API_TYPE_DISKS && field->type != API_TYPE_STRINGS &&
           field->type != API_TYPE_RULES);
    for (size_t i = 0; i < value->string_count; i++) {
        byte_buffer_append_format(to, "%s", i > 0 ? "," : "");
        append_escaped(to, value->strings[i], in_path);
    }
    if (field->type == API_TYPE_VIEWS) {
        return;
    }
    if (value->text != NULL) {
        append_escaped(to, value->text, in_path);
    } else if (field->type == API_TYPE_BOOL) {
        byte_buffer_append_format(to, "%s", value->number != 0 ? "true" : "false");
    } else {
        byte_buffer_append_format(to, "%" PRIu64, value->number);
    }
}

/* `*at` stands on '{'; moves it behind the '}'. */
static const struct api_field *
path_field(const struct api_command *command, const char **at)
{
    char name[32];
    size_t length = strcspn(*at, "}");
    ASSERT((*at)[length] == '}' && length < sizeof(name));
    memcpy(name, *at + 1, length - 1);
    name[length - 1] = '\0';
    *at += length + 1;
    int index = api_field_index(command, name);
    ASSERT(index >= 0);
    return &command->fields[index];
}

void
api_arguments_encode_url(const struct api_arguments *arguments, struct byte_buffer *ret_url)
{
    const struct api_command *command = arguments->command;
    ASSERT(command->method != API_METHOD_LOCAL);
    for (const char *at = command->path; *at != '\0';) {
        if (*at != '{') {
            byte_buffer_append_u8(ret_url, (uint8_t)*at++);
            continue;
        }
        const struct api_field *field = path_field(command, &at);
        append_value(ret_url, field, &arguments->values[field - command->fields], true);
    }
    char separator = '?';
    for (size_t i = 0; i < command->field_count && command->method != API_METHOD_POST; i++) {
        const struct api_field *field = &command->fields[i];
        if (!arguments->values[i].present || (field->flags & API_LOCAL) != 0 ||
            api_field_in_path(command, field)) {
            continue;
        }
        byte_buffer_append_format(ret_url, "%c%s=", separator, field->name);
        append_value(ret_url, field, &arguments->values[i], false);
        separator = '&';
    }
    byte_buffer_append_u8(ret_url, '\0');
}

static json_t *
encode_rules(const struct api_value *value)
{
    json_t *list = json_array();
    for (size_t i = 0; i < value->rule_count; i++) {
        const struct api_rule *rule = &value->rules[i];
        json_array_append_new(list, json_pack("{s:I, s:I, s:I}", "every_seconds",
                                              (json_int_t)rule->every_seconds, "keep",
                                              (json_int_t)rule->keep, "immutable_seconds",
                                              (json_int_t)rule->immutable_seconds));
    }
    return list;
}

static json_t *
encode_value(const struct api_field *field, const struct api_value *value)
{
    if (field->type == API_TYPE_DISKS) {
        json_t *list = json_array();
        for (size_t i = 0; i < value->disk_count; i++) {
            json_array_append_new(list, json_pack("{s:s, s:i}", "disk", value->disks[i].disk,
                                                  "tier", (int)value->disks[i].tier));
        }
        return list;
    }
    if (field->type == API_TYPE_RULES) {
        return encode_rules(value);
    }
    if (field->type == API_TYPE_STRINGS || field->type == API_TYPE_VIEWS) {
        json_t *list = json_array();
        for (size_t i = 0; i < value->string_count; i++) {
            json_array_append_new(list, json_string(value->strings[i]));
        }
        return list;
    }
    if (field->type == API_TYPE_BOOL) {
        return json_boolean(value->number != 0);
    }
    return value->text != NULL ? json_string(value->text)
                               : json_integer((json_int_t)value->number);
}

json_t *
api_arguments_encode_body(const struct api_arguments *arguments)
{
    const struct api_command *command = arguments->command;
    if (command->method != API_METHOD_POST) {
        return NULL;
    }
    json_t *body = json_object();
    ASSERT(body != NULL);
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        if (arguments->values[i].present && (field->flags & API_LOCAL) == 0 &&
            !api_field_in_path(command, field)) {
            json_object_set_new(body, field->name, encode_value(field, &arguments->values[i]));
        }
    }
    return body;
}

/* ---- server: URL to values ---- */

/* Up to the end of one segment, or of two for a volume or snapshot. */
static size_t
segment_length(const struct api_field *field, const char *path)
{
    size_t length = strcspn(path, "/");
    bool two = field->type == API_TYPE_VOLUME || field->type == API_TYPE_SNAPSHOT ||
               field->type == API_TYPE_VIEW;
    if (two && path[length] == '/') {
        length += 1 + strcspn(path + length + 1, "/");
    }
    return length;
}

/*
 * Compare `path` with the command's; fill `arguments` from it unless NULL. 1: matches, 0: does not,
 * -EINVAL: it has the right form, but a value is not valid.
 */
static int
match_path(const struct api_command *command, const char *path, struct api_arguments *arguments,
           struct error *error)
{
    const char *at = command->path;
    while (*at != '\0') {
        if (*at != '{') {
            if (*at++ != *path++) {
                return 0;
            }
            continue;
        }
        const struct api_field *field = path_field(command, &at);
        char value[API_VIEW_BYTES_MAX + 1];
        size_t length = segment_length(field, path);
        if (length == 0 || length >= sizeof(value)) {
            return 0;
        }
        if (arguments != NULL) {
            memcpy(value, path, length);
            value[length] = '\0';
            int result = api_arguments_set_text(arguments, (size_t)(field - command->fields),
                                                value, API_TEXT_WIRE, error);
            if (result < 0) {
                return result;
            }
        }
        path += length;
    }
    return *path == '\0';
}

int
api_route(const char *method, const char *path, struct api_arguments *ret_arguments,
          struct error *error)
{
    bool other_method = false;
    for (int id = 0; id < API_COMMANDS_REMOTE; id++) {
        const struct api_command *command = api_command((enum api_command_id)id);
        ASSERT(command->method != API_METHOD_LOCAL);
        if (match_path(command, path, NULL, NULL) != 1) {
            continue;
        }
        if (strcmp(method, api_method_name(command->method)) != 0) {
            other_method = true;
            continue;
        }
        api_arguments_init(ret_arguments, command);
        int result = match_path(command, path, ret_arguments, error);
        if (result < 0) {
            api_arguments_free(ret_arguments);
            return -EINVAL;
        }
        ASSERT(result == 1);
        return 0;
    }
    if (other_method) {
        return error_set(error, -EPERM, "this path does not know the method");
    }
    return error_set(error, -ENOENT, "there is no such path in the API; see docs/api.md");
}
