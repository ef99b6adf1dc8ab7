/* SPDX-License-Identifier: Apache-2.0 */
/* What was set, by name. */
#include <stdio.h>
#include <string.h>

#include "api/arguments.h"
#include "base/assert.h"
#include "base/util.h"

static const struct api_value *
find_value(const struct api_arguments *arguments, const char *name)
{
    int index = api_field_index(arguments->command, name);
    ASSERT(index >= 0);
    return &arguments->values[index];
}

const char *
api_text(const struct api_arguments *arguments, const char *name)
{
    const struct api_value *value = find_value(arguments, name);
    ASSERT(!value->present || value->text != NULL);
    return value->text;
}

uint64_t
api_number(const struct api_arguments *arguments, const char *name, uint64_t otherwise)
{
    const struct api_value *value = find_value(arguments, name);
    ASSERT(!value->present || value->text == NULL);
    return value->present ? value->number : otherwise;
}

bool
api_flag(const struct api_arguments *arguments, const char *name)
{
    const struct api_value *value = find_value(arguments, name);
    ASSERT_OP(value->number, <=, 1u);
    return value->number != 0;
}

const struct api_disk *
api_disks(const struct api_arguments *arguments, const char *name, size_t *ret_count)
{
    const struct api_value *value = find_value(arguments, name);
    ASSERT(value->disk_count == 0 || value->disks != NULL);
    *ret_count = value->disk_count;
    return value->disks;
}

const char *const *
api_strings(const struct api_arguments *arguments, const char *name, size_t *ret_count)
{
    const struct api_value *value = find_value(arguments, name);
    ASSERT(value->string_count == 0 || value->strings != NULL);
    *ret_count = value->string_count;
    return (const char *const *)value->strings;
}

const struct api_rule *
api_rules(const struct api_arguments *arguments, const char *name, size_t *ret_count)
{
    const struct api_value *value = find_value(arguments, name);
    ASSERT_OP(value->rule_count, <=, (size_t)API_RULES_MAX);
    *ret_count = value->rule_count;
    return value->rules;
}

bool
api_present(const struct api_arguments *arguments, const char *name)
{
    return find_value(arguments, name)->present;
}

void
api_action_text(const struct api_arguments *arguments, char *text, size_t size)
{
    api_expand(arguments, arguments->command->action, text, size);
}

/* Behind `used` bytes of `text`; returns how many there are now. */
static size_t
expand_value(const struct api_value *value, char *text, size_t used, size_t size)
{
    ASSERT_OP(used, <, size);
    if (value->string_count == 0) {
        int written = snprintf(text + used, size - used, "%s",
                               value->text != NULL ? value->text : "?");
        return MIN(used + (size_t)written, size - 1);
    }
    for (size_t i = 0; i < value->string_count; i++) {
        int written = snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "",
                               value->strings[i]);
        used = MIN(used + (size_t)written, size - 1);
    }
    return used;
}

void
api_expand(const struct api_arguments *arguments, const char *pattern, char *text, size_t size)
{
    ASSERT(size > 0);
    size_t used = 0;
    for (const char *at = pattern; *at != '\0' && used + 1 < size;) {
        char name[32];
        if (*at != '{') {
            text[used++] = *at++;
            continue;
        }
        size_t length = strcspn(at, "}");
        ASSERT(at[length] == '}' && length < sizeof(name));
        memcpy(name, at + 1, length - 1);
        name[length - 1] = '\0';
        at += length + 1;
        used = expand_value(find_value(arguments, name), text, used, size);
    }
    text[used] = '\0';
}
