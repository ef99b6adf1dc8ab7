/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "cli/cli.h"

void
cli_print_usage(FILE *to, const struct api_command *command)
{
    fprintf(to, "volctl %s", command->words);
    ASSERT_OP(command->field_count, <=, (size_t)API_FIELDS_MAX);
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        bool required = (field->flags & API_REQUIRED) != 0;
        char option[CLI_OPTION_SIZE];
        fprintf(to, required ? " " : " [");
        if ((field->flags & API_POSITIONAL) != 0) {
            fprintf(to, "%s%s", field->label, cli_takes_the_rest(field) ? "..." : "");
        } else {
            fprintf(to, "--%s", cli_option_name(field, option));
            if (field->type != API_TYPE_BOOL) {
                fprintf(to, " %s", field->label);
            }
        }
        fprintf(to, required ? "" : "]");
        fprintf(to, field->type == API_TYPE_STRINGS || field->type == API_TYPE_RULES ? "..." : "");
    }
}

/* How far the next part of a usage line goes: up to a blank before an option or a bracket. */
static size_t
usage_part(const char *text)
{
    size_t length = 1;
    int depth = *text == '[';
    while (text[length] != '\0' &&
           !(depth == 0 && text[length] == ' ' &&
             (text[length + 1] == '[' || text[length + 1] == '-'))) {
        depth += text[length] == '[';
        depth -= text[length] == ']';
        length++;
    }
    return length;
}

static void
print_wrapped_usage(FILE *to, const struct api_command *command)
{
    static const char title[] = "Usage: ";
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    ASSERT(memory != NULL);
    cli_print_usage(memory, command);
    fclose(memory);
    int column = fprintf(to, "%s", title);
    for (const char *at = text; *at != '\0';) {
        int part = (int)usage_part(at);
        if (column + part > 79) {
            column = fprintf(to, "\n%*s", (int)sizeof(title) + 3, "") - 1;
            part -= *at == ' ';
            at += *at == ' ';
        }
        column += fprintf(to, "%.*s", part, at);
        at += part;
    }
    free(text);
}

/* Words of `text` from column `indent` to 79. The cursor stands at `indent`. */
static void
print_wrapped(FILE *to, const char *text, int indent)
{
    int column = indent;
    bool first = true;
    while (*text != '\0') {
        int length = (int)strcspn(text, " ");
        if (!first && column + 1 + length > 79) {
            fprintf(to, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        fprintf(to, "%s%.*s", first ? "" : " ", length, text);
        column += length + !first;
        first = false;
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

void
cli_print_help(FILE *to)
{
    fprintf(to, "Usage: volctl [OPTION]... COMMAND [ARGUMENT]...\n"
                "Manage volumes, pools and exports of a volmgrd.\n\nCommands:\n");
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        const struct api_command *command = api_command((enum api_command_id)id);
        fprintf(to, "  %-17s %s\n", command->words, command->summary);
    }
    fprintf(to,
            "  %-17s %s\n  %-17s %s\n\n"
            "Options of every command:\n"
            "  -s, --socket PATH|URL\n"
            "                      control socket of the daemon (default: $VOLCTL_SOCKET, or the\n"
            "                      first of the usual places that exists)\n"
            "  --cert FILE, --key FILE, --cacert FILE\n"
            "                      our certificate and its key, and the authorities that signed\n"
            "                      the daemon's, when -s is https://HOST:PORT\n"
            "                      (default: $VOLCTL_CERT, $VOLCTL_KEY, $VOLCTL_CACERT)\n"
            "  --json              print the reply of the API as it is\n"
            "  --wait              follow the job that a command leaves behind to its end\n"
            "  --timeout SECONDS   give up waiting for an answer\n"
            "  -h, --help          help, also of one command\n"
            "  --version           print the version\n\n"
            "Sizes are written as 512M or 10G (powers of 1024), durations as 90s, 15m, 12h, 7d "
            "or 2w.\n"
            "Exit status: 0 done, 1 refused or failed, 2 usage.\n",
            "completion", "print a completion script for bash, zsh or fish", "help",
            "print help, also of one command");
}

void
cli_print_command_help(FILE *to, const struct api_command *command)
{
    ASSERT(command != NULL);
    print_wrapped_usage(to, command);
    char sentence[160];
    snprintf(sentence, sizeof(sentence), "%s.", command->summary);
    sentence[0] = (char)(sentence[0] - 'a' + 'A');
    fprintf(to, "\n\n%s\n", sentence);
    if (command->description != NULL) {
        print_wrapped(to, command->description, 0);
    }
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        char option[CLI_OPTION_SIZE];
        char left[80];
        if ((field->flags & API_POSITIONAL) != 0) {
            snprintf(left, sizeof(left), "%s", field->label);
        } else {
            snprintf(left, sizeof(left), "--%s%s%s", cli_option_name(field, option),
                     field->type == API_TYPE_BOOL ? "" : " ",
                     field->type == API_TYPE_BOOL ? "" : field->label);
        }
        fputs(i == 0 ? "\n" : "", to);
        if (strlen(left) <= 19) {
            fprintf(to, "  %-19s ", left);
        } else {
            fprintf(to, "  %s\n%22s", left, "");
        }
        print_wrapped(to, field->help, 22);
    }
    if (command->example != NULL) {
        fprintf(to, "\nExample:\n  %s\n", command->example);
    }
}
