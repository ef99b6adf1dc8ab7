/* SPDX-License-Identifier: Apache-2.0 */
/* The manual page and docs/api.md, from the tables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/shapes.h"
#include "base/assert.h"
#include "cli/cli.h"

/* ---- volctl(1) ---- */

/* Text for roff: hyphens that are typed, backslashes, and no line that begins as a request. */
static void
man_text(FILE *to, const char *text)
{
    if (*text == '.' || *text == '\'') {
        fputs("\\&", to);
    }
    for (; *text != '\0'; text++) {
        if (*text == '-') {
            fputs("\\-", to);
        } else if (*text == '\\') {
            fputs("\\e", to);
        } else {
            fputc(*text, to);
        }
    }
}

static void
man_usage(FILE *to, const struct api_command *command)
{
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    ASSERT(memory != NULL);
    cli_print_usage(memory, command);
    fclose(memory);
    fputs(".B ", to);
    man_text(to, text);
    fputc('\n', to);
    free(text);
}

static void
man_field(FILE *to, const struct api_field *field)
{
    char option[CLI_OPTION_SIZE];
    fputs(".TP\n", to);
    if ((field->flags & API_POSITIONAL) != 0) {
        fputs(".I ", to);
        man_text(to, field->label);
    } else {
        fputs(".BI \\-\\-", to);
        man_text(to, cli_option_name(field, option));
        if (field->type != API_TYPE_BOOL) {
            fputs(" \" ", to);
            man_text(to, field->label);
            fputs("\"", to);
        }
    }
    fputc('\n', to);
    man_text(to, field->help);
    fputs(".\n", to);
}

static void
man_command(FILE *to, const struct api_command *command)
{
    fputs(".SS ", to);
    man_text(to, command->words);
    fputc('\n', to);
    man_usage(to, command);
    fputs(".PP\n", to);
    char sentence[160];
    snprintf(sentence, sizeof(sentence), "%s.", command->summary);
    sentence[0] = (char)(sentence[0] - 'a' + 'A');
    man_text(to, sentence);
    fputc('\n', to);
    if (command->description != NULL) {
        man_text(to, command->description);
        fputc('\n', to);
    }
    for (size_t i = 0; i < command->field_count; i++) {
        man_field(to, &command->fields[i]);
    }
    if (command->example != NULL) {
        fputs(".PP\nExample:\n.PP\n.RS\n.nf\n", to);
        man_text(to, command->example);
        fputs("\n.fi\n.RE\n", to);
    }
}

void
cli_generate_man(FILE *to)
{
    fputs(".TH VOLCTL 1 \"\" \"volmgr " VOLMGR_VERSION "\" \"volmgr\"\n"
          ".SH NAME\nvolctl \\- manage volumes, pools and exports of a volmgrd\n"
          ".SH SYNOPSIS\n.B volctl\n[\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...\n"
          ".SH DESCRIPTION\n"
          "volctl sends one command to the daemon over its control socket and prints the reply.\n"
          "Sizes are written as 512M or 10G, in powers of 1024; durations as 90s, 15m, 12h, 7d or "
          "2w.\n"
          ".SH OPTIONS\n"
          ".TP\n\\fB\\-s\\fR, \\fB\\-\\-socket\\fR \\fIPATH\\fR|\\fIURL\\fR\n"
          "The control socket, or https://HOST:PORT of a daemon that listens there.\n"
          ".TP\n\\fB\\-\\-cert\\fR, \\fB\\-\\-key\\fR, \\fB\\-\\-cacert\\fR \\fIFILE\\fR\n"
          "For https: our certificate, its key, and the authorities that signed the daemon's.\n"
          ".TP\n.B \\-\\-json\nPrint the reply of the API as it is.\n"
          ".TP\n.B \\-\\-wait\nFollow the job that a command leaves behind to its end.\n"
          ".TP\n\\fB\\-\\-timeout\\fR \\fISECONDS\\fR\nGive up waiting for an answer.\n"
          ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrint help, also of one command.\n"
          ".TP\n.B \\-\\-version\nPrint the version.\n"
          ".SH COMMANDS\n",
          to);
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        man_command(to, api_command((enum api_command_id)id));
    }
    fputs(".SS completion\n.B volctl completion bash|zsh|fish\n.PP\n"
          "Print a completion script.\n"
          ".SH EXIT STATUS\n0 done, 1 refused or failed, 2 usage.\n"
          ".SH ENVIRONMENT\n.TP\n.B VOLCTL_SOCKET\nThe control socket, unless "
          "\\fB\\-s\\fR is given.\n"
          ".TP\n.BR VOLCTL_CERT \", \" VOLCTL_KEY \", \" VOLCTL_CACERT\n"
          "The files for https, unless the options are given.\n"
          ".SH FILES\nWithout either, the first of these is used:\n"
          ".nf\n/run/volmgr/volmgrd.sock\n/var/lib/volmgr/volmgrd.sock\n"
          "~/.local/share/volmgr/volmgrd.sock\n.fi\n"
          ".SH SEE ALSO\n.BR volmgrd (8)\n",
          to);
}

/* ---- docs/api.md ---- */

/* A cell of a table: a bar would end it. */
static void
cell(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        fprintf(to, *text == '|' ? "\\|" : "%c", *text);
    }
}

static void
limits(FILE *to, const struct api_field *field)
{
    if (field->choices != NULL) {
        for (const char *const *choice = field->choices; *choice != NULL; choice++) {
            fprintf(to, "%s%s", choice == field->choices ? "" : ", ", *choice);
        }
        return;
    }
    if (field->maximum != 0) {
        fprintf(to, "%" PRIu64 " to %" PRIu64, field->minimum, field->maximum);
    } else if (field->minimum != 0) {
        fprintf(to, "at least %" PRIu64, field->minimum);
    }
    if (field->type == API_TYPE_STRING && field->maximum != 0) {
        fputs(" bytes", to);
    }
}

static const char *
place_of(const struct api_command *command, const struct api_field *field)
{
    if (api_field_in_path(command, field)) {
        return "path";
    }
    return command->method == API_METHOD_POST ? "body" : "query";
}

static void
document_command(FILE *to, const struct api_command *command)
{
    fprintf(to, "### %s %s\n\n%c%s. `volctl %s`", api_method_name(command->method), command->path,
            command->summary[0] - 'a' + 'A', command->summary + 1, command->words);
    fprintf(to, ".%s%s\n\n", command->description != NULL ? " " : "",
            command->description != NULL ? command->description : "");
    bool any = false;
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        if ((field->flags & API_LOCAL) != 0) {
            continue;
        }
        if (!any) {
            fputs("| field | in | type | required | limits | meaning |\n"
                  "| --- | --- | --- | --- | --- | --- |\n",
                  to);
        }
        any = true;
        fprintf(to, "| `%s` | %s | %s | %s | ", field->name, place_of(command, field),
                api_type_name(field->type), (field->flags & API_REQUIRED) != 0 ? "yes" : "no");
        limits(to, field);
        fputs(" | ", to);
        cell(to, field->help);
        fputs(" |\n", to);
    }
    fputs(any ? "\n" : "", to);
    if (command->reply == NULL) {
        fputs("Reply: text.\n\n", to);
    } else if (command->reply_list != NULL) {
        fprintf(to, "Reply: `{\"%s\": [...]}`, a list of [%s](#%s).\n\n", command->reply_list,
                command->reply->name, command->reply->name);
    } else {
        fprintf(to, "Reply: [%s](#%s).\n\n", command->reply->name, command->reply->name);
    }
}

static void
document_shape(FILE *to, const struct api_shape *shape)
{
    fprintf(to, "### %s\n\n%s\n\n| field | type | meaning |\n| --- | --- | --- |\n", shape->name,
            shape->help);
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct api_reply_field *field = &shape->fields[i];
        fprintf(to, "| `%s` | %s", field->name, api_type_name(field->type));
        if (field->shape != NULL) {
            fprintf(to, " of [%s](#%s)", field->shape->name, field->shape->name);
        }
        fputs((field->flags & API_OPTIONAL) != 0 ? " or nothing | " : " | ", to);
        cell(to, field->help);
        fputs(" |\n", to);
    }
}

void
cli_generate_api_document(FILE *to)
{
    fputs("# The management API\n\n"
          "<!-- Made by `volctl --generate-api-document` from the tables of api/; a test compares. "
          "-->\n\n"
          "HTTP/1.1 over the daemon's control socket, `STATE/volmgrd.sock`; bodies are JSON "
          "objects in UTF-8. Who may open the socket may do everything. The same is served by TLS "
          "at the addresses of `[api] listen`, for clients with a certificate that `tls_ca` has "
          "signed; with `administrators` set, others than those may use what changes nothing "
          "(GET) and get status 403 for the rest. For example:\n\n"
          "    curl --unix-socket /var/lib/volmgr/volmgrd.sock http://localhost/v1/status\n"
          "    curl --unix-socket /var/lib/volmgr/volmgrd.sock http://localhost/v1/volumes \\\n"
          "        -d '{\"volume\": \"fast/vm1\", \"size_bytes\": 107374182400}'\n\n"
          "Fields that stand in braces in a path travel there; the others in the query string of "
          "GET and DELETE and in the body of POST. A field that is not known is an error. An "
          "optional field may be null. Within `/v1` fields may be added to replies; nothing is "
          "renamed or taken away.\n\n"
          "Commands that change something answer when the change is durable. Status 200 or 201 "
          "is success; every other answer has an [error](#error) as its body: 400 the request is "
          "not valid, 403 not permitted, 404 no such thing, 405 not by this method, 409 in use or "
          "exists already, 413 too long, 501 not supported, 503 starting, ending or not serving, "
          "504 a disk did not answer in time, 507 no space.\n\n"
          "## Types\n\n"
          "| type | in JSON |\n| --- | --- |\n"
          "| name | text: 1 to 127 of A-Z a-z 0-9 . _ -, not beginning with . or - |\n"
          "| volume | text: `POOL/VOLUME`, both of them names |\n"
          "| snapshot | text: `POOL/VOLUME@SNAPSHOT`, all of them names |\n"
          "| view | text: `POOL/VOLUME` or `POOL/VOLUME@SNAPSHOT` |\n"
          "| scope | text: `POOL` or `POOL/VOLUME` |\n"
          "| string | text without control characters |\n"
          "| choice | text: one of those listed |\n"
          "| tier | text: `auto`, or a number from 0 to 254 |\n"
          "| size | integer: bytes |\n"
          "| number | integer |\n"
          "| duration | integer: seconds |\n"
          "| bool | true or false |\n"
          "| disks | list of `{\"disk\": TEXT, \"tier\": NUMBER}`; tier is 0 when left out |\n"
          "| time | text: RFC 3339 in UTC with milliseconds; empty when it has not happened |\n"
          "| strings | list of text |\n"
          "| views | list of views; in a query string one text, separated by commas |\n"
          "| rules | list of `{\"every_seconds\": NUMBER, \"keep\": NUMBER, "
          "\"immutable_seconds\": NUMBER}`; the last is 0 when left out |\n\n"
          "## Commands\n\n",
          to);
    for (int id = 0; id < API_COMMANDS_REMOTE; id++) {
        document_command(to, api_command((enum api_command_id)id));
    }
    fputs("## Replies\n\n", to);
    for (size_t i = 0; api_shape(i) != NULL; i++) {
        fputs(i > 0 ? "\n" : "", to);
        document_shape(to, api_shape(i));
    }
}
