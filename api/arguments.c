/* SPDX-License-Identifier: Apache-2.0 */
#include "api/arguments.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/duration.h"
#include "base/assert.h"
#include "base/size_text.h"
#include "base/util.h"

enum {
    API_TIER_MAX = 254
};

void
api_arguments_init(struct api_arguments *arguments, const struct api_command *command)
{
    ASSERT(command != NULL);
    *arguments = (struct api_arguments){ .command = command };
}

void
api_arguments_free(struct api_arguments *arguments)
{
    for (size_t i = 0; i < API_FIELDS_MAX; i++) {
        struct api_value *value = &arguments->values[i];
        for (size_t disk = 0; disk < value->disk_count; disk++) {
            free(value->disks[disk].disk);
        }
        for (size_t string = 0; string < value->string_count; string++) {
            free(value->strings[string]);
        }
        free(value->strings);
        free(value->disks);
        free(value->text);
        *value = (struct api_value){ 0 };
    }
}

static char *
copy_text(const char *text, size_t length)
{
    char *copy = strndup(text, length);
    ASSERT(copy != NULL); /* small, and the control path has no use for half a command */
    return copy;
}

/* ---- what is valid ---- */

bool
api_name_is_valid(const char *name, size_t length)
{
    if (length == 0 || length > API_NAME_BYTES_MAX || name[0] == '.' || name[0] == '-') {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)name[i];
        bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                      (byte >= '0' && byte <= '9');
        if (!letter && byte != '.' && byte != '_' && byte != '-') {
            return false;
        }
    }
    return true;
}

enum {
    SNAPSHOT_FORBIDDEN,
    SNAPSHOT_ALLOWED,
    SNAPSHOT_REQUIRED
};

/* "POOL/VOLUME", and "@SNAPSHOT" behind it. */
static bool
volume_is_valid(const char *text, int snapshot)
{
    const char *slash = strchr(text, '/');
    if (slash == NULL || !api_name_is_valid(text, (size_t)(slash - text))) {
        return false;
    }
    const char *at = strchr(slash + 1, '@');
    size_t length = at != NULL ? (size_t)(at - slash - 1) : strlen(slash + 1);
    if (at == NULL ? snapshot == SNAPSHOT_REQUIRED
                   : snapshot == SNAPSHOT_FORBIDDEN || !api_name_is_valid(at + 1, strlen(at + 1))) {
        return false;
    }
    return api_name_is_valid(slash + 1, length);
}

bool
api_is_snapshot(const char *view)
{
    return strchr(view, '@') != NULL;
}

/* What a text that names a pool, a volume or a snapshot must be; NULL: it is. */
static const char *
form_missed(enum api_type type, const char *text)
{
    switch (type) {
    case API_TYPE_VOLUME:
        return volume_is_valid(text, SNAPSHOT_FORBIDDEN) ? NULL : "POOL/VOLUME";
    case API_TYPE_SNAPSHOT:
        return volume_is_valid(text, SNAPSHOT_REQUIRED) ? NULL : "POOL/VOLUME@SNAPSHOT";
    case API_TYPE_SCOPE:
        return volume_is_valid(text, SNAPSHOT_FORBIDDEN) || api_name_is_valid(text, strlen(text))
                   ? NULL
                   : "POOL or POOL/VOLUME";
    default:
        ASSERT(type == API_TYPE_VIEW || type == API_TYPE_VIEWS);
        return volume_is_valid(text, SNAPSHOT_ALLOWED) ? NULL
                                                       : "POOL/VOLUME or POOL/VOLUME@SNAPSHOT";
    }
}

/* Length of the UTF-8 character that begins here; 0: none does, or it is a control character. */
static size_t
character_length(const unsigned char *at)
{
    if (at[0] < 0x80) {
        return at[0] >= 0x20 && at[0] != 0x7f;
    }
    size_t length = at[0] >= 0xc2 && at[0] <= 0xdf   ? 2
                    : at[0] >= 0xe0 && at[0] <= 0xef ? 3
                    : at[0] >= 0xf0 && at[0] <= 0xf4 ? 4
                                                     : 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_control = at[0] == 0xc2 && at[1] < 0xa0;
    bool is_overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool is_no_character = (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf4 && at[1] >= 0x90);
    return is_control || is_overlong || is_no_character ? 0 : length;
}

static bool
is_printable(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        size_t length = character_length(at);
        if (length == 0) {
            return false;
        }
        at += length;
    }
    return true;
}

static bool
is_choice(const struct api_field *field, const char *text)
{
    for (const char *const *choice = field->choices; *choice != NULL; choice++) {
        if (strcmp(*choice, text) == 0) {
            return true;
        }
    }
    return false;
}

static int
choice_error(const struct api_field *field, struct error *error)
{
    char list[256] = "";
    for (const char *const *choice = field->choices; *choice != NULL; choice++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", *choice);
    }
    return error_set(error, -EINVAL, "%s must be one of: %s", field->name, list);
}

static int
check_number(const struct api_field *field, uint64_t number, struct error *error)
{
    uint64_t maximum = field->maximum != 0 ? field->maximum : INT64_MAX;
    if (number < field->minimum || number > maximum) {
        return error_set(error, -ERANGE, "%s must be from %" PRIu64 " to %" PRIu64, field->name,
                         field->minimum, maximum);
    }
    if (field->choices != NULL) {
        char text[24];
        snprintf(text, sizeof(text), "%" PRIu64, number);
        if (!is_choice(field, text)) {
            return choice_error(field, error);
        }
    }
    return 0;
}

static int
parse_digits(const char *text, uint64_t *ret_number)
{
    uint64_t number = 0;
    if (*text == '\0') {
        return -EINVAL;
    }
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char)*text)) {
            return -EINVAL;
        }
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number) ||
            number > INT64_MAX) {
            return -ERANGE;
        }
    }
    *ret_number = number;
    return 0;
}

static int
check_tier(const struct api_field *field, const char *text, struct error *error)
{
    uint64_t tier = 0;
    if (strcmp(text, "auto") != 0 && (parse_digits(text, &tier) < 0 || tier > API_TIER_MAX)) {
        return error_set(error, -EINVAL, "%s must be auto or a number from 0 to %d", field->name,
                         API_TIER_MAX);
    }
    return 0;
}

static int
check_path(const struct api_field *field, const char *text, struct error *error)
{
    const char *form = form_missed(field->type, text);
    if (form != NULL) {
        return error_set(error, -EINVAL,
                         "%s must be %s, each 1 to %d of A-Z a-z 0-9 . _ - and not beginning with "
                         ". or -",
                         field->name, form, API_NAME_BYTES_MAX);
    }
    return 0;
}

/* For the types that are text. */
static int
check_text(const struct api_field *field, const char *text, struct error *error)
{
    size_t length = strlen(text);
    switch (field->type) {
    case API_TYPE_NAME:
        if (!api_name_is_valid(text, length)) {
            return error_set(error, -EINVAL,
                             "%s must be 1 to %d of A-Z a-z 0-9 . _ - and not begin with . or -",
                             field->name, API_NAME_BYTES_MAX);
        }
        return 0;
    case API_TYPE_VOLUME:
    case API_TYPE_SNAPSHOT:
    case API_TYPE_VIEW:
    case API_TYPE_VIEWS:
    case API_TYPE_SCOPE:
        return check_path(field, text, error);
    case API_TYPE_CHOICE:
        return is_choice(field, text) ? 0 : choice_error(field, error);
    case API_TYPE_TIER:
        return check_tier(field, text, error);
    case API_TYPE_STRING:
    case API_TYPE_STRINGS:
        if (length < field->minimum || (field->maximum != 0 && length > field->maximum)) {
            return error_set(error, -EINVAL, "%s must have %" PRIu64 " to %" PRIu64 " bytes",
                             field->name, field->minimum, field->maximum);
        }
        if (!is_printable(text)) {
            return error_set(error, -EINVAL, "%s must be UTF-8 without control characters",
                             field->name);
        }
        return 0;
    default:
        UNREACHABLE();
    }
}

/* ---- setting ---- */

static int
set_text(struct api_arguments *arguments, size_t index, const char *text, struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    int result = check_text(field, text, error);
    if (result == 0) {
        arguments->values[index].text = copy_text(text, strlen(text));
        arguments->values[index].present = true;
    }
    return result;
}

static int
add_string(struct api_arguments *arguments, size_t index, const char *text, struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    struct api_value *value = &arguments->values[index];
    size_t maximum = field->type == API_TYPE_VIEWS ? API_VIEWS_MAX : API_STRINGS_MAX;
    if (value->string_count == maximum) {
        return error_set(error, -E2BIG, "%s: more than %zu of them", field->name, maximum);
    }
    int result = check_text(field, text, error);
    if (result == 0) {
        char **strings =
            reallocarray(value->strings, value->string_count + 1, sizeof(*value->strings));
        ASSERT(strings != NULL);
        value->strings = strings;
        value->strings[value->string_count++] = copy_text(text, strlen(text));
        value->present = true;
    }
    return result;
}

static int
set_number(struct api_arguments *arguments, size_t index, uint64_t number, struct error *error)
{
    int result = check_number(&arguments->command->fields[index], number, error);
    if (result == 0) {
        arguments->values[index].number = number;
        arguments->values[index].present = true;
    }
    return result;
}

static int
add_disk(struct api_arguments *arguments, size_t index, const char *disk, size_t length,
         uint64_t tier, struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    struct api_value *value = &arguments->values[index];
    if (value->disk_count == API_DISKS_MAX) {
        return error_set(error, -E2BIG, "%s: more than %d disks in one command", field->name,
                         API_DISKS_MAX);
    }
    if (length == 0 || length > API_DISK_BYTES_MAX) {
        return error_set(error, -EINVAL, "%s: the text of a disk must have 1 to %d bytes",
                         field->name, API_DISK_BYTES_MAX);
    }
    if (tier > API_TIER_MAX) {
        return error_set(error, -EINVAL, "%s: a tier is a number from 0 to %d", field->name,
                         API_TIER_MAX);
    }
    char *copy = copy_text(disk, length);
    if (!is_printable(copy)) {
        free(copy);
        return error_set(error, -EINVAL,
                         "%s: the text of a disk must be UTF-8 without control characters",
                         field->name);
    }
    struct api_disk *disks =
        reallocarray(value->disks, value->disk_count + 1, sizeof(*value->disks));
    ASSERT(disks != NULL);
    value->disks = disks;
    value->disks[value->disk_count++] = (struct api_disk){ .disk = copy, .tier = (uint8_t)tier };
    value->present = true;
    return 0;
}

/* DISK[,tier=N]: only a last ",tier=" of digits is ours; a path may hold commas. */
static int
add_disk_text(struct api_arguments *arguments, size_t index, const char *text,
              struct error *error)
{
    static const char mark[] = ",tier=";
    size_t length = strlen(text);
    uint64_t tier = 0;
    const char *comma = strrchr(text, ',');
    if (comma != NULL && strncmp(comma, mark, sizeof(mark) - 1) == 0) {
        const char *digits = comma + sizeof(mark) - 1;
        if (parse_digits(digits, &tier) < 0) {
            return error_set(error, -EINVAL, "%s: \"%s\" is not a tier; write ,tier=N", text,
                             digits);
        }
        length = (size_t)(comma - text);
    }
    return add_disk(arguments, index, text, length, tier, error);
}

/* The only place where a list travels in one text. */
static int
add_views_text(struct api_arguments *arguments, size_t index, const char *text,
               struct error *error)
{
    int result = 0;
    const char *next = text;
    while (result == 0 && next != NULL) {
        char view[API_VIEW_BYTES_MAX + 2]; /* one too many shows */
        size_t length = strcspn(next, ",");
        snprintf(view, sizeof(view), "%.*s", (int)MIN(length, sizeof(view) - 1), next);
        result = add_string(arguments, index, view, error);
        next = next[length] == ',' ? next + length + 1 : NULL;
    }
    return result;
}

/* ---- rules of a schedule ---- */

static int
check_rule(const struct api_field *field, const struct api_rule *rule, struct error *error)
{
    if (rule->every_seconds == 0 || rule->every_seconds > INT32_MAX) {
        return error_set(error, -ERANGE, "%s: every must be from 1 to %d seconds", field->name,
                         INT32_MAX);
    }
    if (rule->keep == 0 || rule->keep > API_RULE_KEEP_MAX) {
        return error_set(error, -ERANGE, "%s: keep must be from 1 to %d", field->name,
                         API_RULE_KEEP_MAX);
    }
    if (rule->immutable_seconds > INT32_MAX) {
        return error_set(error, -ERANGE, "%s: immutable must be at most %d seconds", field->name,
                         INT32_MAX);
    }
    return 0;
}

static int
add_rule(struct api_arguments *arguments, size_t index, const struct api_rule *rule,
         struct error *error)
{
    struct api_value *value = &arguments->values[index];
    if (value->rule_count == API_RULES_MAX) {
        return error_set(error, -E2BIG, "%s: more than %d of them",
                         arguments->command->fields[index].name, API_RULES_MAX);
    }
    value->rules[value->rule_count++] = *rule;
    value->present = true;
    return 0;
}

static int
duration_text(const char *name, const char *text, uint64_t *ret_seconds, struct error *error)
{
    int result = duration_parse(text, ret_seconds);
    if (result == -ERANGE) {
        return error_set(error, -ERANGE, "%s: \"%s\" is too long", name, text);
    }
    if (result < 0) {
        return error_set(error, -EINVAL, "%s: \"%s\" is not a duration such as 90s, 15m, 1h, 7d "
                                         "or 2w",
                         name, text);
    }
    return 0;
}

static int
add_rule_text(struct api_arguments *arguments, size_t index, const char *text,
              struct error *error)
{
    struct api_rule rule = { 0 };
    int result = duration_text(arguments->command->fields[index].name, text, &rule.every_seconds,
                               error);
    return result < 0 ? result : add_rule(arguments, index, &rule, error);
}

int
api_arguments_set_rule(struct api_arguments *arguments, size_t index, const char *part,
                       const char *text, struct error *error)
{
    ASSERT_OP(index, <, arguments->command->field_count);
    ASSERT(arguments->command->fields[index].type == API_TYPE_RULES);
    struct api_value *value = &arguments->values[index];
    if (value->rule_count == 0) {
        return error_set(error, -EINVAL, "%s belongs behind an every", part);
    }
    struct api_rule *rule = &value->rules[value->rule_count - 1];
    uint64_t number = 0;
    if (strcmp(part, "keep") != 0) {
        ASSERT(strcmp(part, "immutable") == 0);
        int result = rule->immutable_seconds != 0
                         ? error_set(error, -EINVAL, "%s is given twice", part)
                         : duration_text(part, text, &number, error);
        rule->immutable_seconds = result == 0 ? number : rule->immutable_seconds;
        return result;
    }
    if (parse_digits(text, &number) < 0 || number == 0 || number > API_RULE_KEEP_MAX) {
        return error_set(error, -ERANGE, "%s must be a number from 1 to %d", part,
                         API_RULE_KEEP_MAX);
    }
    if (rule->keep != 0) {
        return error_set(error, -EINVAL, "%s is given twice", part);
    }
    rule->keep = (uint32_t)number;
    return 0;
}

static int
set_duration_text(struct api_arguments *arguments, size_t index, const char *text,
                  struct error *error)
{
    uint64_t seconds = 0;
    int result =
        duration_text(arguments->command->fields[index].name, text, &seconds, error);
    return result < 0 ? result : set_number(arguments, index, seconds, error);
}

static int
set_number_text(struct api_arguments *arguments, size_t index, const char *text,
                enum api_text_form form, struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    bool size = field->type == API_TYPE_SIZE && form == API_TEXT_PERSON;
    uint64_t number = 0;
    int result = size ? size_parse(text, &number) : parse_digits(text, &number);
    if (result == -ERANGE) {
        return error_set(error, -ERANGE, "%s: \"%s\" is too large", field->name, text);
    }
    if (result < 0) {
        return error_set(error, -EINVAL, "%s: \"%s\" is not %s", field->name, text,
                         size ? "a size such as 512M or 10G" : "a number");
    }
    return set_number(arguments, index, number, error);
}

static int
set_bool_text(struct api_arguments *arguments, size_t index, const char *text,
              enum api_text_form form, struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    bool person = form == API_TEXT_PERSON;
    bool flag;
    if (text == NULL) {
        flag = true;
    } else if (strcmp(text, "true") == 0 || (person && strcmp(text, "yes") == 0)) {
        flag = true;
    } else if (strcmp(text, "false") == 0 || (person && strcmp(text, "no") == 0)) {
        flag = false;
    } else {
        return error_set(error, -EINVAL, "%s: \"%s\" is neither true nor false", field->name,
                         text);
    }
    arguments->values[index].number = flag;
    arguments->values[index].present = true;
    return 0;
}

int
api_arguments_set_text(struct api_arguments *arguments, size_t index, const char *text,
                       enum api_text_form form, struct error *error)
{
    ASSERT_OP(index, <, arguments->command->field_count);
    const struct api_field *field = &arguments->command->fields[index];
    ASSERT(text != NULL || (field->type == API_TYPE_BOOL && form == API_TEXT_PERSON));
    bool repeats = field->type == API_TYPE_DISKS || field->type == API_TYPE_STRINGS ||
                   field->type == API_TYPE_RULES ||
                   (field->type == API_TYPE_VIEWS && form == API_TEXT_PERSON);
    if (arguments->values[index].present && !repeats) {
        return error_set(error, -EINVAL, "%s is given twice", field->name);
    }
    switch (field->type) {
    case API_TYPE_DISKS:
        return add_disk_text(arguments, index, text, error);
    case API_TYPE_RULES:
        return add_rule_text(arguments, index, text, error);
    case API_TYPE_VIEWS:
        return form == API_TEXT_WIRE ? add_views_text(arguments, index, text, error)
                                     : add_string(arguments, index, text, error);
    case API_TYPE_DURATION:
        return form == API_TEXT_WIRE ? set_number_text(arguments, index, text, form, error)
                                     : set_duration_text(arguments, index, text, error);
    case API_TYPE_SIZE:
    case API_TYPE_NUMBER:
        return set_number_text(arguments, index, text, form, error);
    case API_TYPE_BOOL:
        return set_bool_text(arguments, index, text, form, error);
    case API_TYPE_STRINGS:
        return add_string(arguments, index, text, error);
    default:
        return set_text(arguments, index, text, error);
    }
}

/* ---- from JSON ---- */

static int
set_disks_json(struct api_arguments *arguments, size_t index, const json_t *list,
               struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    if (!json_is_array(list) || json_array_size(list) == 0) {
        return error_set(error, -EINVAL, "%s must be a list of {\"disk\": TEXT, \"tier\": NUMBER}",
                         field->name);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const json_t *disk = json_object_get(item, "disk");
        const json_t *tier = json_object_get(item, "tier");
        size_t known = (disk != NULL) + (tier != NULL);
        if (!json_is_string(disk) || (tier != NULL && !json_is_integer(tier)) ||
            json_object_size(item) != known) {
            return error_set(error, -EINVAL,
                             "%s: item %zu must be {\"disk\": TEXT, \"tier\": NUMBER}, where tier "
                             "may be left out",
                             field->name, i + 1);
        }
        json_int_t number = tier != NULL ? json_integer_value(tier) : 0;
        int result = add_disk(arguments, index, json_string_value(disk), json_string_length(disk),
                              number < 0 ? UINT64_MAX : (uint64_t)number, error);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

static int
set_strings_json(struct api_arguments *arguments, size_t index, const json_t *list,
                 struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    if (!json_is_array(list)) {
        return error_set(error, -EINVAL, "%s must be a list of text", field->name);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item)) {
            return error_set(error, -EINVAL, "%s must be a list of text", field->name);
        }
        int result = add_string(arguments, index, json_string_value(item), error);
        if (result < 0) {
            return result;
        }
    }
    arguments->values[index].present = true;
    return 0;
}

/* Takes what is there of `names`; an integer each, not negative. */
static bool
take_members(const json_t *object, const char *const names[], uint64_t *const numbers[],
             size_t count)
{
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *number = json_object_get(object, names[i]);
        if (number == NULL) {
            continue;
        }
        if (!json_is_integer(number) || json_integer_value(number) < 0) {
            return false;
        }
        *numbers[i] = (uint64_t)json_integer_value(number);
        known++;
    }
    return json_is_object(object) && json_object_size(object) == known;
}

static int
set_rules_json(struct api_arguments *arguments, size_t index, const json_t *list,
               struct error *error)
{
    static const char *const names[] = { "every_seconds", "keep", "immutable_seconds" };
    const struct api_field *field = &arguments->command->fields[index];
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct api_rule rule = { 0 };
        uint64_t keep = 0;
        uint64_t *const numbers[] = { &rule.every_seconds, &keep, &rule.immutable_seconds };
        if (!take_members(json_array_get(list, i), names, numbers, ARRAY_SIZE(names))) {
            return error_set(error, -EINVAL,
                             "%s: item %zu must be {\"every_seconds\": NUMBER, \"keep\": NUMBER, "
                             "\"immutable_seconds\": NUMBER}, where the last may be left out",
                             field->name, i + 1);
        }
        rule.keep = (uint32_t)MIN(keep, (uint64_t)UINT32_MAX);
        int result = check_rule(field, &rule, error);
        if (result == 0) {
            result = add_rule(arguments, index, &rule, error);
        }
        if (result < 0) {
            return result;
        }
    }
    if (!json_is_array(list)) {
        return error_set(error, -EINVAL, "%s must be a list", field->name);
    }
    arguments->values[index].present = true;
    return 0;
}

static int
set_field_json(struct api_arguments *arguments, size_t index, const json_t *value,
               struct error *error)
{
    const struct api_field *field = &arguments->command->fields[index];
    switch (field->type) {
    case API_TYPE_DISKS:
        return set_disks_json(arguments, index, value, error);
    case API_TYPE_STRINGS:
    case API_TYPE_VIEWS:
        return set_strings_json(arguments, index, value, error);
    case API_TYPE_RULES:
        return set_rules_json(arguments, index, value, error);
    case API_TYPE_SIZE:
    case API_TYPE_NUMBER:
    case API_TYPE_DURATION:
        if (!json_is_integer(value) || json_integer_value(value) < 0) {
            return error_set(error, -EINVAL, "%s must be an integer%s that is not negative",
                             field->name,
                             field->type == API_TYPE_SIZE       ? " of bytes"
                             : field->type == API_TYPE_DURATION ? " of seconds"
                                                                : "");
        }
        return set_number(arguments, index, (uint64_t)json_integer_value(value), error);
    case API_TYPE_BOOL:
        if (!json_is_boolean(value)) {
            return error_set(error, -EINVAL, "%s must be true or false", field->name);
        }
        arguments->values[index].number = json_is_true(value);
        arguments->values[index].present = true;
        return 0;
    default:
        if (!json_is_string(value)) {
            return error_set(error, -EINVAL, "%s must be text", field->name);
        }
        return set_text(arguments, index, json_string_value(value), error);
    }
}

/* Foreign text inside a message: short, and nothing that a terminal would obey. */
static const char *
quotable(const char *text, char copy[static 40])
{
    size_t used = 0;
    for (; text[used] != '\0' && used < 39; used++) {
        unsigned char byte = (unsigned char)text[used];
        copy[used] = byte < 0x20 || byte > 0x7e ? '?' : (char)byte;
    }
    copy[used] = '\0';
    return copy;
}

int
api_arguments_set_json(struct api_arguments *arguments, const json_t *body, struct error *error)
{
    const struct api_command *command = arguments->command;
    ASSERT(command != NULL);
    if (!json_is_object(body)) {
        return error_set(error, -EINVAL, "the body must be a JSON object");
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        char copy[40];
        int index = api_field_index(command, name);
        if (index < 0 || (command->fields[index].flags & API_LOCAL) != 0) {
            return error_set(error, -EINVAL, "there is no field \"%s\" in \"%s\"",
                             quotable(name, copy), command->words);
        }
        if (arguments->values[index].present) {
            return error_set(error, -EINVAL, "%s belongs into the path", name);
        }
        if (json_is_null(value) && (command->fields[index].flags & API_REQUIRED) == 0) {
            continue; /* as if left out */
        }
        int result = set_field_json(arguments, (size_t)index, value, error);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

int
api_arguments_set_body(struct api_arguments *arguments, const char *body, size_t length,
                       struct error *error)
{
    if (length == 0) {
        return 0;
    }
    if (length > API_BODY_BYTES_MAX) {
        return error_set(error, -E2BIG, "the body is longer than %d bytes", API_BODY_BYTES_MAX);
    }
    json_error_t where;
    json_t *json = json_loadb(body, length, JSON_REJECT_DUPLICATES, &where);
    if (json == NULL) {
        char copy[40];
        return error_set(error, -EINVAL, "the body is not JSON: line %d, column %d: %s",
                         where.line, where.column, quotable(where.text, copy));
    }
    int result = api_arguments_set_json(arguments, json, error);
    json_decref(json);
    return result;
}

int
api_arguments_check(const struct api_arguments *arguments, struct error *error)
{
    const struct api_command *command = arguments->command;
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        if ((field->flags & API_REQUIRED) != 0 && !arguments->values[i].present) {
            return error_set(error, -EINVAL, "%s is missing: %s", field->name, field->help);
        }
        /* A command line gives a rule in parts. */
        for (size_t rule = 0; rule < arguments->values[i].rule_count; rule++) {
            int result = check_rule(field, &arguments->values[i].rules[rule], error);
            if (result < 0) {
                return result;
            }
        }
    }
    return 0;
}
