/* SPDX-License-Identifier: Apache-2.0 */
/* "volctl check": begin, wait for the end, tell what was found. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "cli/cli.h"

enum {
    CHECK_POLL_MS_MIN = 10, /* of a small pool; then longer and longer */
    CHECK_POLL_MS_MAX = 250,
};

static const char *
member_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static json_int_t
member_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* The check of the same pool in a later answer; NULL: the daemon has forgotten it. */
static const json_t *
find_pool(const json_t *checks, const char *pool)
{
    size_t index;
    json_t *check;
    json_array_foreach(checks, index, check)
    {
        if (strcmp(member_text(check, "pool"), pool) == 0) {
            return check;
        }
    }
    return NULL;
}

/* Take what is new about the checks that have not ended. True: all have. */
static bool
update(json_t *checks, const json_t *now)
{
    bool finished = true;
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        if (json_is_true(json_object_get(check, "finished"))) {
            continue;
        }
        const json_t *later = find_pool(now, member_text(check, "pool"));
        if (later != NULL) {
            json_array_set(checks, i, (json_t *)(uintptr_t)later);
            check = later;
        }
        finished = finished && (later == NULL || json_is_true(json_object_get(check, "finished")));
    }
    return finished;
}

static void
show_progress(const struct cli *cli, const json_t *checks)
{
    size_t index;
    json_t *check;
    if (cli->json || !isatty(fileno(cli->err))) {
        return;
    }
    fputc('\r', cli->err);
    json_array_foreach(checks, index, check)
    {
        char pool[CLI_VALUE_SIZE];
        fprintf(cli->err, "%s%s: %" JSON_INTEGER_FORMAT "%%", index > 0 ? ", " : "",
                cli_value_text(API_TYPE_NAME, json_object_get(check, "pool"), pool),
                member_number(check, "percent"));
    }
    fputs("\033[K", cli->err);
    fflush(cli->err);
}

static enum cli_exit
wait_for_end(struct cli *cli, const struct api_arguments *arguments, json_t *checks)
{
    struct api_arguments query;
    enum cli_exit result = CLI_OK;
    bool finished = update(checks, checks);
    int poll_ms = CHECK_POLL_MS_MIN;
    api_arguments_init(&query, api_command(API_CHECK_LIST));
    if (api_present(arguments, "pool")) {
        int set = api_arguments_set_text(&query, 0, api_text(arguments, "pool"), API_TEXT_WIRE,
                                         NULL);
        ASSERT_OP(set, ==, 0);
    }
    while (!finished && result == CLI_OK) {
        struct cli_reply reply = { 0 };
        show_progress(cli, checks);
        poll(NULL, 0, poll_ms);
        poll_ms = MIN(2 * poll_ms, CHECK_POLL_MS_MAX);
        result = cli_call_checked(cli, &query, &reply);
        if (result == CLI_OK) {
            finished = update(checks, json_object_get(reply.json, "checks"));
        }
        cli_reply_free(&reply);
    }
    if (!cli->json && isatty(fileno(cli->err))) {
        fputs("\r\033[K", cli->err);
    }
    api_arguments_free(&query);
    return result;
}

static void
print_check(FILE *to, const json_t *check)
{
    char text[CLI_VALUE_SIZE];
    char code[CLI_VALUE_SIZE];
    size_t index;
    json_t *finding;
    const json_t *findings = json_object_get(check, "findings");
    json_int_t found = member_number(check, "errors") + member_number(check, "warnings");
    json_array_foreach(findings, index, finding)
    {
        fprintf(to, "%s: %s: %s\n",
                strcmp(member_text(finding, "severity"), "error") == 0 ? "error" : "warning",
                cli_value_text(API_TYPE_STRING, json_object_get(finding, "code"), code),
                cli_value_text(API_TYPE_STRING, json_object_get(finding, "text"), text));
    }
    if (found > (json_int_t)json_array_size(findings)) {
        fprintf(to, "... and %" JSON_INTEGER_FORMAT " more\n",
                found - (json_int_t)json_array_size(findings));
    }
    cli_value_text(API_TYPE_NAME, json_object_get(check, "pool"), code);
    if (member_text(check, "error")[0] != '\0') {
        fprintf(to, "%s: could not be checked: %s\n", code,
                cli_value_text(API_TYPE_STRING, json_object_get(check, "reason"), text));
        return;
    }
    fprintf(to,
            "%s: %" JSON_INTEGER_FORMAT " errors, %" JSON_INTEGER_FORMAT
            " warnings; commit %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
            " records, %" JSON_INTEGER_FORMAT " extents, %" JSON_INTEGER_FORMAT
            " map pages, %" JSON_INTEGER_FORMAT " grains in use, %" JSON_INTEGER_FORMAT
            " disk labels\n",
            code, member_number(check, "errors"), member_number(check, "warnings"),
            member_number(check, "commit"), member_number(check, "records"),
            member_number(check, "extents"), member_number(check, "pages"),
            member_number(check, "grains"), member_number(check, "disks"));
}

static enum cli_exit
tell(struct cli *cli, const json_t *checks)
{
    bool good = true;
    size_t index;
    json_t *check;
    json_array_foreach(checks, index, check)
    {
        good = good && member_number(check, "errors") == 0 &&
               member_text(check, "error")[0] == '\0';
        if (!cli->json) {
            print_check(cli->out, check);
        }
    }
    if (cli->json) {
        json_t *body = json_pack("{s:O}", "checks", checks);
        json_dumpf(body, cli->out, JSON_COMPACT);
        fputc('\n', cli->out);
        json_decref(body);
    } else if (json_array_size(checks) == 0) {
        fputs("no pools\n", cli->out);
    }
    return good && fflush(cli->out) == 0 ? CLI_OK : CLI_FAILED;
}

enum cli_exit
cli_check(struct cli *cli, const struct api_arguments *arguments)
{
    struct cli_reply reply = { 0 };
    bool background = api_flag(arguments, "background");
    enum cli_exit result = cli_call_checked(cli, arguments, &reply);
    if (result != CLI_OK) {
        return result;
    }
    json_t *checks = json_object_get(reply.json, "checks");
    if (background) {
        if (cli->json) {
            fprintf(cli->out, "%s\n", reply.text);
        } else {
            fputs("begun; \"volctl checks\" tells the result\n", cli->out);
        }
    } else {
        result = wait_for_end(cli, arguments, checks);
        if (result == CLI_OK) {
            result = tell(cli, checks);
        }
    }
    cli_reply_free(&reply);
    return result;
}
