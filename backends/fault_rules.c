/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fault_impl.h"
#include "base/assert.h"
#include "base/size_text.h"
#include "base/util.h"

enum {
    RULE_TEXT_SIZE = 256
};

static const char *const kind_names[BACKEND_IO_KIND_COUNT] = {
    [BACKEND_READ] = "read",           [BACKEND_WRITE] = "write",
    [BACKEND_FLUSH] = "flush",         [BACKEND_DISCARD] = "discard",
    [BACKEND_WRITE_ZEROES] = "zeroes", [BACKEND_ALLOCATE] = "allocate",
};

static const struct {
    const char *name;
    int number;
} errno_names[] = {
    { "EIO", EIO },         { "ENOSPC", ENOSPC },       { "EROFS", EROFS },
    { "EBUSY", EBUSY },     { "ENOMEM", ENOMEM },       { "ETIMEDOUT", ETIMEDOUT },
    { "ENODEV", ENODEV },   { "ENXIO", ENXIO },         { "EHOSTDOWN", EHOSTDOWN },
    { "ENODATA", ENODATA }, { "EREMOTEIO", EREMOTEIO }, { "EOPNOTSUPP", EOPNOTSUPP },
    { "EILSEQ", EILSEQ },   { "EINVAL", EINVAL },
};

static int
parse_number(const char *text, uint64_t *ret_number)
{
    char *end = NULL;
    if (*text < '0' || *text > '9') {
        return -EINVAL;
    }
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || number > INT64_MAX) {
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

static int
parse_kinds(char *text, uint32_t *ret_kinds)
{
    uint32_t kinds = 0;
    char *position = NULL;

    if (strcmp(text, "*") == 0) {
        *ret_kinds = (1u << BACKEND_IO_KIND_COUNT) - 1;
        return 0;
    }
    for (char *name = strtok_r(text, "|", &position); name != NULL;
         name = strtok_r(NULL, "|", &position)) {
        uint32_t kind = 0;
        while (kind < BACKEND_IO_KIND_COUNT && strcmp(name, kind_names[kind]) != 0) {
            kind++;
        }
        if (kind == BACKEND_IO_KIND_COUNT) {
            return -EINVAL;
        }
        kinds |= 1u << kind;
    }
    *ret_kinds = kinds;
    return kinds != 0 ? 0 : -EINVAL;
}

static int
parse_errno(const char *text, int32_t *ret_error)
{
    uint64_t number;
    for (size_t i = 0; i < ARRAY_SIZE(errno_names); i++) {
        if (strcmp(text, errno_names[i].name) == 0) {
            *ret_error = -errno_names[i].number;
            return 0;
        }
    }
    if (parse_number(text, &number) < 0 || number == 0 || number > 4095) {
        return -EINVAL;
    }
    *ret_error = -(int32_t)number;
    return 0;
}

static int
parse_chance(char *text, struct fault_rule *rule)
{
    uint64_t numerator, denominator;
    char *slash = strchr(text, '/');
    if (slash == NULL) {
        return -EINVAL;
    }
    *slash = '\0';
    if (parse_number(text, &numerator) < 0 || parse_number(slash + 1, &denominator) < 0 ||
        denominator == 0 || denominator > UINT32_MAX || numerator > denominator) {
        return -EINVAL;
    }
    rule->chance_numerator = (uint32_t)numerator;
    rule->chance_denominator = (uint32_t)denominator;
    return 0;
}

static int
parse_range(char *text, struct fault_rule *rule)
{
    uint64_t start_bytes, length_bytes;
    char *plus = strchr(text, '+');
    if (plus == NULL) {
        return -EINVAL;
    }
    *plus = '\0';
    if (size_parse(text, &start_bytes) < 0 || size_parse(plus + 1, &length_bytes) < 0 ||
        length_bytes == 0) {
        return -EINVAL;
    }
    rule->range_start_bytes = start_bytes;
    rule->range_end_bytes = start_bytes + length_bytes; /* both below 2^63 */
    return 0;
}

static int
parse_option(char *text, struct fault_rule *rule)
{
    char *value = strchr(text, '=');
    if (value == NULL) {
        rule->outcome.hang |= strcmp(text, "hang") == 0;
        rule->outcome.drop |= strcmp(text, "drop") == 0;
        rule->outcome.loss |= strcmp(text, "loss") == 0;
        bool known =
            strcmp(text, "hang") == 0 || strcmp(text, "drop") == 0 || strcmp(text, "loss") == 0;
        return known ? 0 : -EINVAL;
    }
    *value++ = '\0';
    if (strcmp(text, "nth") == 0) {
        return parse_number(value, &rule->nth) < 0 || rule->nth == 0 ? -EINVAL : 0;
    }
    if (strcmp(text, "every") == 0) {
        return parse_number(value, &rule->every) < 0 || rule->every == 0 ? -EINVAL : 0;
    }
    if (strcmp(text, "count") == 0) {
        return parse_number(value, &rule->applications_left);
    }
    if (strcmp(text, "chance") == 0) {
        return parse_chance(value, rule);
    }
    if (strcmp(text, "range") == 0) {
        return parse_range(value, rule);
    }
    if (strcmp(text, "errno") == 0) {
        return parse_errno(value, &rule->outcome.error);
    }
    if (strcmp(text, "short") == 0) {
        return size_parse(value, &rule->outcome.short_bytes) < 0 || rule->outcome.short_bytes == 0
                   ? -EINVAL
                   : 0;
    }
    if (strcmp(text, "delay") == 0) {
        uint64_t delay_ms;
        if (parse_number(value, &delay_ms) < 0 || delay_ms > UINT32_MAX) {
            return -EINVAL;
        }
        rule->outcome.delay_ns = delay_ms * NS_PER_MS;
        return 0;
    }
    return -EINVAL;
}

static int
parse_rule(char *text, struct list *rules, struct random *random)
{
    char *position = NULL;
    char *first = strtok_r(text, ",", &position);
    uint64_t seed;

    if (first == NULL) {
        return -EINVAL;
    }
    if (strncmp(first, "seed=", 5) == 0) {
        if (parse_number(first + 5, &seed) < 0 || strtok_r(NULL, ",", &position) != NULL) {
            return -EINVAL;
        }
        random_seed(random, seed);
        return 0;
    }
    struct fault_rule *rule = calloc(1, sizeof(*rule));
    ASSERT(rule != NULL);
    rule->range_end_bytes = UINT64_MAX;
    rule->applications_left = UINT64_MAX;
    int result = parse_kinds(first, &rule->kinds);
    for (char *option = strtok_r(NULL, ",", &position); option != NULL && result == 0;
         option = strtok_r(NULL, ",", &position)) {
        result = parse_option(option, rule);
    }
    if (result < 0) {
        free(rule);
        return result;
    }
    list_push_back(rules, &rule->link);
    return 0;
}

int
fault_rules_parse(const char *text, struct list *rules, struct random *random, struct error *error)
{
    struct list parsed;
    struct random seeded = *random;

    list_init(&parsed);
    while (*text != '\0') {
        char rule[RULE_TEXT_SIZE];
        size_t length = strcspn(text, ";");
        int result = length < sizeof(rule) ? 0 : -EINVAL;
        if (result == 0) {
            memcpy(rule, text, length);
            rule[length] = '\0';
            result = parse_rule(rule, &parsed, &seeded);
        }
        if (result < 0) {
            fault_rules_free(&parsed);
            return error_set(error, -EINVAL,
                             "\"%.*s\" is not a fault rule; write such as write,nth=3,errno=EIO",
                             (int)MIN(length, (size_t)RULE_TEXT_SIZE), text);
        }
        text += length;
        text += *text == ';' ? 1 : 0;
    }
    list_splice_back(rules, &parsed);
    *random = seeded;
    return 0;
}

void
fault_rules_free(struct list *rules)
{
    struct list *link;
    while ((link = list_pop_front(rules)) != NULL) {
        free(list_entry(link, struct fault_rule, link));
    }
    ASSERT(list_empty(rules));
}

/* Whether it is the turn of a rule whose kind and range match; counts the match. */
static bool
rule_turn(struct fault_rule *rule, struct random *random)
{
    rule->matches++;
    if (rule->applications_left == 0) {
        return false;
    }
    if (rule->nth != 0 && rule->matches != rule->nth) {
        return false;
    }
    if (rule->every != 0 && rule->matches % rule->every != 0) {
        return false;
    }
    if (rule->chance_denominator != 0 &&
        !random_chance(random, rule->chance_numerator, rule->chance_denominator)) {
        return false;
    }
    rule->applications_left--;
    return true;
}

bool
fault_rules_apply(struct list *rules, struct random *random, enum backend_io_kind kind,
                  uint64_t offset_bytes, uint64_t length_bytes, struct fault_outcome *ret_outcome)
{
    ASSERT_OP((uint32_t)kind, <, (uint32_t)BACKEND_IO_KIND_COUNT);
    list_for_each(rules, link) {
        struct fault_rule *rule = list_entry(link, struct fault_rule, link);
        bool in_range =
            kind == BACKEND_FLUSH || (offset_bytes < rule->range_end_bytes &&
                                      offset_bytes + length_bytes > rule->range_start_bytes);
        if ((rule->kinds & (1u << kind)) == 0 || !in_range) {
            continue;
        }
        if (rule_turn(rule, random)) {
            *ret_outcome = rule->outcome;
            return true;
        }
    }
    return false;
}
