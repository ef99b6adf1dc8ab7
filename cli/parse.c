/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/suggest.h"
#include "base/assert.h"
#include "cli/cli.h"

const char *const cli_own_words[] = { "help", "completion", NULL };

struct parser {
    struct cli *cli;
    char **argv;
    int count;
    int position;
    bool options_ended; /* "--" was seen */
    struct api_arguments *arguments;
    size_t next_positional; /* index in the command's fields */
};

bool
cli_takes_the_rest(const struct api_field *field)
{
    return (field->flags & API_POSITIONAL) != 0 &&
           (field->type == API_TYPE_DISKS || field->type == API_TYPE_VIEWS);
}

static void
cut_suffix(char *text, const char *suffix)
{
    size_t length = strlen(text);
    size_t cut = strlen(suffix);
    if (length > cut && strcmp(text + length - cut, suffix) == 0) {
        text[length - cut] = '\0';
    }
}

const char *
cli_option_name(const struct api_field *field, char text[static CLI_OPTION_SIZE])
{
    ASSERT_OP(strlen(field->name), <, (size_t)CLI_OPTION_SIZE);
    snprintf(text, CLI_OPTION_SIZE, "%s", field->name);
    if (field->type == API_TYPE_RULES) {
        snprintf(text, CLI_OPTION_SIZE, "every"); /* which begins one */
    } else if (field->type == API_TYPE_STRINGS) {
        cut_suffix(text, "s"); /* one at a time */
    } else if (field->type == API_TYPE_DURATION) {
        cut_suffix(text, "_seconds");
    } else {
        cut_suffix(text, "_bytes");
    }
    for (char *at = text; *at != '\0'; at++) {
        *at = *at == '_' ? '-' : *at;
    }
    return text;
}

static enum cli_exit
usage(struct parser *parser, const char *format, ...) __attribute__((format(printf, 2, 3)));

static enum cli_exit
usage(struct parser *parser, const char *format, ...)
{
    FILE *err = parser->cli->err;
    va_list arguments;
    va_start(arguments, format);
    fputs("volctl: ", err);
    vfprintf(err, format, arguments);
    fputc('\n', err);
    va_end(arguments);
    if (parser->arguments->command != NULL) {
        fputs("Usage: ", err);
        cli_print_usage(err, parser->arguments->command);
        fputc('\n', err);
    } else {
        fputs("Try 'volctl --help'.\n", err);
    }
    return CLI_USAGE;
}

/* The value of an option: behind '=', or the next word. NULL: there is none. */
static const char *
take_value(struct parser *parser, const char *behind_equals)
{
    if (behind_equals != NULL) {
        return behind_equals;
    }
    return parser->position < parser->count ? parser->argv[parser->position++] : NULL;
}

static enum cli_exit
set_timeout(struct parser *parser, const char *value)
{
    size_t digits = strspn(value, "0123456789");
    unsigned long seconds = strtoul(value, NULL, 10);
    if (digits == 0 || digits > 6 || value[digits] != '\0' || seconds == 0) {
        return usage(parser, "--timeout: \"%s\" is not a number of seconds", value);
    }
    parser->cli->timeout_seconds = (unsigned)seconds;
    return CLI_OK;
}

/* Options that every command has. False: `name` is none of them. */
static bool
global_option(struct parser *parser, const char *name, size_t length, const char *value,
              enum cli_exit *ret_exit)
{
    struct cli *cli = parser->cli;
    bool *const flags[] = { &cli->json, &cli->wait, &cli->help, &cli->version };
    static const char *const flag_names[] = { "json", "wait", "help", "version" };
    *ret_exit = CLI_OK;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (strlen(flag_names[i]) == length && strncmp(flag_names[i], name, length) == 0) {
            *flags[i] = true;
            if (value != NULL) {
                *ret_exit = usage(parser, "--%s takes no value", flag_names[i]);
            }
            return true;
        }
    }
    const struct {
        const char *name;
        const char **place; /* NULL: the timeout */
    } values[] = { { "socket", &cli->socket },       { "timeout", NULL },
                   { "cert", &cli->certificate },    { "key", &cli->key },
                   { "cacert", &cli->authorities } };
    size_t found = 0;
    while (found < sizeof(values) / sizeof(values[0]) &&
           (strlen(values[found].name) != length ||
            strncmp(values[found].name, name, length) != 0)) {
        found++;
    }
    if (found == sizeof(values) / sizeof(values[0])) {
        return false;
    }
    value = take_value(parser, value);
    if (value == NULL || *value == '\0') {
        *ret_exit = usage(parser, "--%.*s needs a value", (int)length, name);
    } else if (values[found].place == NULL) {
        *ret_exit = set_timeout(parser, value);
    } else {
        *values[found].place = value;
    }
    return true;
}

static enum cli_exit
unknown_option(struct parser *parser, const char *name, size_t length)
{
    static const char *const globals[] = { "json",    "wait", "help", "version", "socket",
                                           "timeout", "cert", "key",  "cacert" };
    const struct api_command *command = parser->arguments->command;
    char word[CLI_OPTION_SIZE];
    char names[API_FIELDS_MAX][CLI_OPTION_SIZE];
    const char *nearest = NULL;
    snprintf(word, sizeof(word), "%.*s", (int)length, name);
    for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++) {
        suggest_consider(word, globals[i], &nearest);
    }
    for (size_t i = 0; command != NULL && i < command->field_count; i++) {
        if ((command->fields[i].flags & API_POSITIONAL) == 0) {
            suggest_consider(word, cli_option_name(&command->fields[i], names[i]), &nearest);
        }
    }
    return nearest != NULL
               ? usage(parser, "there is no option --%s; did you mean --%s?", word, nearest)
               : usage(parser, "there is no option --%s", word);
}

/* A message about a field in the words of the command line: "--size" for "size_bytes". */
static enum cli_exit
usage_about(struct parser *parser, const char *message)
{
    const struct api_command *command = parser->arguments->command;
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        size_t length = strlen(field->name);
        char option[CLI_OPTION_SIZE];
        if (strncmp(message, field->name, length) != 0 ||
            (message[length] != ' ' && message[length] != ':')) {
            continue;
        }
        if ((field->flags & API_POSITIONAL) != 0) {
            return usage(parser, "%s%s", field->label, message + length);
        }
        return usage(parser, "--%s%s", cli_option_name(field, option), message + length);
    }
    return usage(parser, "%s", message);
}

/* "volctl rename fast/vm1 fast/web1": the same pool may be named again. */
static const char *
without_pool(const struct parser *parser, const char *new_name)
{
    const char *volume = api_present(parser->arguments, "volume")
                             ? api_text(parser->arguments, "volume")
                             : "";
    size_t pool_bytes = strcspn(volume, "/");
    bool same = volume[pool_bytes] == '/' && strncmp(volume, new_name, pool_bytes + 1) == 0;

    return same ? new_name + pool_bytes + 1 : new_name;
}

static enum cli_exit
set_field(struct parser *parser, size_t index, const char *value)
{
    struct error error = { 0 };
    char absolute[API_DISK_BYTES_MAX + 32];
    const struct api_field *field = &parser->arguments->command->fields[index];
    if (field->type == API_TYPE_DISKS && value != NULL) {
        /* The daemon has a working directory of its own: a relative path means ours. */
        bool file = strncmp(value, "file:", 5) == 0;
        const char *path = file ? value + 5 : value;
        size_t scheme = strspn(path, "abcdefghijklmnopqrstuvwxyz");
        char directory[API_DISK_BYTES_MAX];
        if (*path != '\0' && *path != '/' && path[scheme] != ':' &&
            getcwd(directory, sizeof(directory)) != NULL &&
            (size_t)snprintf(absolute, sizeof(absolute), "%s%s/%s", file ? "file:" : "", directory,
                             path) < sizeof(absolute)) {
            value = absolute;
        }
    }
    if (parser->arguments->command->id == API_VOLUME_RENAME && value != NULL &&
        strcmp(field->name, "new_name") == 0) {
        value = without_pool(parser, value);
    }
    if (api_arguments_set_text(parser->arguments, index, value, API_TEXT_PERSON, &error) < 0) {
        return usage_about(parser, error.message);
    }
    return CLI_OK;
}

/* --keep and --immutable of a rule stand behind its --every. False: `name` is neither. */
static bool
rule_option(struct parser *parser, const char *name, size_t length, const char *value,
            enum cli_exit *ret_exit)
{
    static const char *const parts[] = { "keep", "immutable" };
    const struct api_command *command = parser->arguments->command;
    size_t index = 0;
    size_t part = 0;
    while (command != NULL && index < command->field_count &&
           command->fields[index].type != API_TYPE_RULES) {
        index++;
    }
    while (part < sizeof(parts) / sizeof(parts[0]) &&
           (strlen(parts[part]) != length || strncmp(parts[part], name, length) != 0)) {
        part++;
    }
    if (command == NULL || index == command->field_count ||
        part == sizeof(parts) / sizeof(parts[0])) {
        return false;
    }
    struct error error = { 0 };
    value = take_value(parser, value);
    if (value == NULL) {
        *ret_exit = usage(parser, "--%s needs a value", parts[part]);
    } else if (api_arguments_set_rule(parser->arguments, index, parts[part], value, &error) < 0) {
        *ret_exit = usage(parser, "--%s", error.message);
    } else {
        *ret_exit = CLI_OK;
    }
    return true;
}

static enum cli_exit
long_option(struct parser *parser, const char *name)
{
    const struct api_command *command = parser->arguments->command;
    const char *equals = strchr(name, '=');
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const char *value = equals != NULL ? equals + 1 : NULL;
    enum cli_exit result;
    if (global_option(parser, name, length, value, &result) ||
        rule_option(parser, name, length, value, &result)) {
        return result;
    }
    for (size_t i = 0; command != NULL && i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        char option[CLI_OPTION_SIZE];
        if ((field->flags & API_POSITIONAL) != 0 ||
            strlen(cli_option_name(field, option)) != length ||
            strncmp(option, name, length) != 0) {
            continue;
        }
        if (field->type != API_TYPE_BOOL) {
            value = take_value(parser, value);
            if (value == NULL) {
                return usage(parser, "--%s needs a value: %s", option, field->help);
            }
        }
        return set_field(parser, i, value);
    }
    return unknown_option(parser, name, length);
}

static enum cli_exit
short_option(struct parser *parser, const char *word)
{
    if (strcmp(word, "-h") == 0) {
        parser->cli->help = true;
        return CLI_OK;
    }
    if (word[1] == 's') {
        const char *value = take_value(parser, word[2] != '\0' ? word + 2 : NULL);
        if (value == NULL || *value == '\0') {
            return usage(parser, "-s needs the path of a socket, or https://HOST:PORT");
        }
        parser->cli->socket = value;
        return CLI_OK;
    }
    return usage(parser, "there is no option %s", word);
}

static enum cli_exit
positional(struct parser *parser, const char *word)
{
    const struct api_command *command = parser->arguments->command;
    size_t index = parser->next_positional;
    if (index == command->field_count || (command->fields[index].flags & API_POSITIONAL) == 0) {
        return usage(parser, "\"%s\" is one argument too many", word);
    }
    if (!cli_takes_the_rest(&command->fields[index])) {
        parser->next_positional++;
    }
    return set_field(parser, index, word);
}

static bool
is_option(const struct parser *parser, const char *word)
{
    return !parser->options_ended && word[0] == '-' && word[1] != '\0';
}

static enum cli_exit
take_option(struct parser *parser)
{
    const char *word = parser->argv[parser->position++];
    if (strcmp(word, "--") == 0) {
        parser->options_ended = true;
        return CLI_OK;
    }
    return word[1] == '-' ? long_option(parser, word + 2) : short_option(parser, word);
}

/* The words are no command: say which is meant, or which there are. */
static enum cli_exit
unknown_command(struct parser *parser)
{
    const char *first = parser->argv[parser->position];
    const char *second =
        parser->position + 1 < parser->count ? parser->argv[parser->position + 1] : NULL;
    const char *nearest = NULL;
    char two[128];
    size_t first_bytes = strlen(first);
    bool is_group = false;
    snprintf(two, sizeof(two), "%s %s", first, second != NULL ? second : "");
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        const char *words = api_command((enum api_command_id)id)->words;
        is_group |= strncmp(words, first, first_bytes) == 0 && words[first_bytes] == ' ';
        suggest_consider(strchr(words, ' ') != NULL ? two : first, words, &nearest);
    }
    for (const char *const *word = cli_own_words; *word != NULL; word++) {
        suggest_consider(first, *word, &nearest);
    }
    if (is_group && (second == NULL || second[0] == '-')) {
        fprintf(parser->cli->err, "volctl: \"%s\" needs one more word:\n", first);
    } else if (nearest != NULL) {
        return usage(parser, "there is no command \"%s\"; did you mean \"%s\"?",
                     is_group ? two : first, nearest);
    } else if (!is_group) {
        return usage(parser, "there is no command \"%s\"", first);
    } else {
        fprintf(parser->cli->err, "volctl: there is no command \"%s\"; there are:\n", two);
    }
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        const struct api_command *command = api_command((enum api_command_id)id);
        if (strncmp(command->words, first, first_bytes) == 0 &&
            command->words[first_bytes] == ' ') {
            fprintf(parser->cli->err, "  volctl %-17s %s\n", command->words, command->summary);
        }
    }
    return CLI_USAGE;
}

static enum cli_exit
parse_own_word(struct parser *parser, const char **ret_word, const char **ret_rest)
{
    *ret_word = parser->argv[parser->position++];
    while (parser->position < parser->count) {
        const char *word = parser->argv[parser->position];
        if (is_option(parser, word)) {
            enum cli_exit result = take_option(parser);
            if (result != CLI_OK) {
                return result;
            }
            continue;
        }
        parser->position++;
        if (*ret_rest == NULL) {
            *ret_rest = word;
        }
    }
    return CLI_OK;
}

static enum cli_exit
parse_command(struct parser *parser)
{
    while (parser->position < parser->count) {
        const char *word = parser->argv[parser->position];
        enum cli_exit result;
        if (is_option(parser, word)) {
            result = take_option(parser);
        } else {
            parser->position++;
            result = positional(parser, word);
        }
        if (result != CLI_OK) {
            return result;
        }
    }
    struct error error = { 0 };
    if (!parser->cli->help && api_arguments_check(parser->arguments, &error) < 0) {
        return usage_about(parser, error.message);
    }
    return CLI_OK;
}

enum cli_exit
cli_parse(struct cli *cli, int argc, char **argv, struct api_arguments *ret_arguments,
          const char **ret_word, const char **ret_rest)
{
    struct parser parser = {
        .cli = cli, .argv = argv, .count = argc, .position = 1, .arguments = ret_arguments
    };
    *ret_arguments = (struct api_arguments){ 0 };
    *ret_word = NULL;
    *ret_rest = NULL;
    while (parser.position < argc && is_option(&parser, argv[parser.position])) {
        enum cli_exit result = take_option(&parser);
        if (result != CLI_OK) {
            return result;
        }
    }
    if (parser.position == argc) {
        return CLI_OK;
    }
    for (const char *const *word = cli_own_words; *word != NULL; word++) {
        if (strcmp(argv[parser.position], *word) == 0) {
            return parse_own_word(&parser, ret_word, ret_rest);
        }
    }
    size_t words = 0;
    const struct api_command *command = api_command_by_words(
        argv + parser.position, (size_t)(argc - parser.position), &words);
    if (command == NULL) {
        return unknown_command(&parser);
    }
    ASSERT_OP(words, >, 0u);
    parser.position += (int)words;
    api_arguments_init(ret_arguments, command);
    return parse_command(&parser);
}
