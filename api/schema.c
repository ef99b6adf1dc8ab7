/* SPDX-License-Identifier: Apache-2.0 */
/* How commands and fields are found in the table, and what its enums are called. */
#include "api/schema.h"

#include <string.h>

#include "base/assert.h"
#include "base/util.h"

/* How many of `words` the command's own words are; 0: they differ. */
static size_t
words_matched(const char *own, char *const *words, size_t count)
{
    size_t matched = 0;
    while (*own != '\0') {
        size_t length = strcspn(own, " ");
        if (matched == count || strlen(words[matched]) != length ||
            strncmp(words[matched], own, length) != 0) {
            return 0;
        }
        matched++;
        own += length;
        own += *own == ' ';
    }
    return matched;
}

const struct api_command *
api_command_by_words(char *const *words, size_t count, size_t *ret_words)
{
    const struct api_command *best = NULL;
    size_t best_matched = 0;
    for (size_t i = 0; i < API_COMMAND_COUNT; i++) {
        size_t matched = words_matched(api_command((enum api_command_id)i)->words, words, count);
        if (matched > best_matched) {
            best = api_command((enum api_command_id)i);
            best_matched = matched;
        }
    }
    if (best != NULL) {
        *ret_words = best_matched;
    }
    return best;
}

int
api_field_index(const struct api_command *command, const char *name)
{
    ASSERT_OP(command->field_count, <=, (size_t)API_FIELDS_MAX);
    for (size_t i = 0; i < command->field_count; i++) {
        if (strcmp(command->fields[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

bool
api_field_in_path(const struct api_command *command, const struct api_field *field)
{
    size_t length = strlen(field->name);
    const char *at = command->path;
    ASSERT(length > 0);
    while (at != NULL && (at = strchr(at, '{')) != NULL) {
        at++;
        if (strncmp(at, field->name, length) == 0 && at[length] == '}') {
            return true;
        }
    }
    return false;
}

const char *
api_method_name(enum api_method method)
{
    static const char *const names[] = { "", "GET", "POST", "DELETE" };
    ASSERT_OP((size_t)method, <, ARRAY_SIZE(names));
    return names[method];
}

const char *
api_type_name(enum api_type type)
{
    static const char *const names[] = {
        [API_TYPE_NAME] = "name",         [API_TYPE_VOLUME] = "volume",
        [API_TYPE_SNAPSHOT] = "snapshot", [API_TYPE_VIEW] = "view",
        [API_TYPE_SCOPE] = "scope",       [API_TYPE_STRING] = "string",
        [API_TYPE_CHOICE] = "choice",     [API_TYPE_TIER] = "tier",
        [API_TYPE_SIZE] = "size",         [API_TYPE_NUMBER] = "number",
        [API_TYPE_DURATION] = "duration", [API_TYPE_BOOL] = "bool",
        [API_TYPE_DISKS] = "disks",       [API_TYPE_TIME] = "time",
        [API_TYPE_OBJECT] = "object",     [API_TYPE_LIST] = "list",
        [API_TYPE_STRINGS] = "strings",   [API_TYPE_VIEWS] = "views",
        [API_TYPE_RULES] = "rules",
    };
    ASSERT_OP((size_t)type, <, ARRAY_SIZE(names));
    return names[type];
}
