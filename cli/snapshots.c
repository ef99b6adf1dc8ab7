/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about snapshots whose answers need more than a table. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/shapes.h"
#include "base/assert.h"
#include "base/size_text.h"
#include "base/util.h"
#include "cli/cli.h"

static json_int_t
member_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* A size that a daemon has sent; what is none counts as 0. */
static const char *
member_size(const json_t *object, const char *name, char text[static SIZE_TEXT_SIZE])
{
    json_int_t number = member_number(object, name);
    return size_format(number > 0 ? (uint64_t)number : 0, text);
}

static enum cli_exit
print_json(struct cli *cli, const struct cli_reply *reply)
{
    fputs(reply->text, cli->out);
    if (reply->length > 0 && reply->text[reply->length - 1] != '\n') {
        fputc('\n', cli->out);
    }
    return fflush(cli->out) == 0 ? CLI_OK : CLI_FAILED;
}

/* ---- delete ---- */

static void
tell_deletion(struct cli *cli, const struct api_arguments *arguments, const json_t *body)
{
    size_t more = 0;
    char size[SIZE_TEXT_SIZE];
    const char *first = api_text(arguments, "volume");
    bool is_dry = json_is_true(json_object_get(body, "dry_run"));
    json_int_t unnamed = member_number(body, "unnamed_count");
    api_strings(arguments, "more", &more);
    if (more > 0) {
        fprintf(cli->out, "%zu snapshots", more + 1);
    } else {
        fprintf(cli->out, "%s %s", api_is_snapshot(first) ? "snapshot" : "volume", first);
    }
    if (is_dry) {
        fprintf(cli->out, " can be deleted; that would free %s\n",
                member_size(body, "freed_bytes", size));
    } else {
        fputs(" deleted\n", cli->out);
    }
    if (unnamed > 0) {
        fprintf(cli->out,
                "snapshots that %s without a name until no clone needs them: "
                "%" JSON_INTEGER_FORMAT "\n",
                is_dry ? "would stay" : "stay", unnamed);
    }
}

enum cli_exit
cli_delete(struct cli *cli, const struct api_arguments *arguments)
{
    struct cli_reply reply = { 0 };
    enum cli_exit result = cli_call_checked(cli, arguments, &reply);
    if (result != CLI_OK) {
        return result;
    }
    if (cli->json) {
        result = print_json(cli, &reply);
    } else {
        tell_deletion(cli, arguments, reply.json);
        result = fflush(cli->out) == 0 ? CLI_OK : CLI_FAILED;
    }
    if (result == CLI_OK && cli->wait) {
        result = cli_wait_for_job(cli, json_object_get(reply.json, "job"));
    }
    cli_reply_free(&reply);
    return result;
}

/* ---- snapshots ---- */

enum cli_exit
cli_list_snapshots(struct cli *cli, const struct api_arguments *arguments)
{
    struct cli_reply reply = { 0 };
    enum cli_exit result = cli_call_checked(cli, arguments, &reply);
    if (result != CLI_OK) {
        return result;
    }
    if (cli->json) {
        result = print_json(cli, &reply);
        cli_reply_free(&reply);
        return result;
    }
    const json_t *list = json_object_get(reply.json, "snapshots");
    uint64_t exclusive_bytes = 0;
    size_t index;
    json_t *snapshot;
    json_array_foreach(list, index, snapshot)
    {
        json_int_t bytes = member_number(snapshot, "exclusive_bytes");
        exclusive_bytes += bytes > 0 ? (uint64_t)bytes : 0;
    }
    cli_print_reply(cli->out, arguments->command, reply.json);
    if (json_array_size(list) > 1) {
        char size[SIZE_TEXT_SIZE];
        fprintf(cli->out, "%zu snapshots, exclusive to single ones: %s\n", json_array_size(list),
                size_format(exclusive_bytes, size));
    }
    cli_reply_free(&reply);
    return fflush(cli->out) == 0 ? CLI_OK : CLI_FAILED;
}

/* ---- diff ---- */

struct diff {
    struct cli *cli;
    uint64_t runs;
    uint64_t changed_bytes;
};

/* JSON is printed as it comes: there may be millions of runs. */
static void
print_runs(struct diff *diff, const json_t *body)
{
    FILE *out = diff->cli->out;
    size_t index;
    json_t *run;
    json_array_foreach(json_object_get(body, "runs"), index, run)
    {
        json_int_t offset = member_number(run, "offset_bytes");
        json_int_t length = member_number(run, "length_bytes");
        if (diff->cli->json) {
            fprintf(out,
                    "%s{\"offset_bytes\":%" JSON_INTEGER_FORMAT
                    ",\"length_bytes\":%" JSON_INTEGER_FORMAT "}",
                    diff->runs > 0 ? "," : "", offset, length);
        } else {
            if (diff->runs == 0) {
                fprintf(out, "%20s %20s\n", "OFFSET", "LENGTH");
            }
            fprintf(out, "%20" JSON_INTEGER_FORMAT " %20" JSON_INTEGER_FORMAT "\n", offset,
                    length);
        }
        diff->runs++;
        diff->changed_bytes += length > 0 ? (uint64_t)length : 0;
    }
}

static void
print_head(const struct diff *diff, const json_t *body)
{
    if (diff->cli->json) {
        char *from = json_dumps(json_object_get(body, "from"), JSON_ENCODE_ANY);
        char *to = json_dumps(json_object_get(body, "to"), JSON_ENCODE_ANY);
        fprintf(diff->cli->out,
                "{\"from\":%s,\"to\":%s,\"size_bytes\":%" JSON_INTEGER_FORMAT ",\"runs\":[",
                from != NULL ? from : "null", to != NULL ? to : "null",
                member_number(body, "size_bytes"));
        free(from);
        free(to);
    }
}

static void
print_tail(const struct diff *diff)
{
    FILE *out = diff->cli->out;
    char size[SIZE_TEXT_SIZE];
    if (diff->cli->json) {
        fprintf(out, "],\"changed_bytes\":%" PRIu64 ",\"next_offset_bytes\":null}\n",
                diff->changed_bytes);
    } else if (diff->runs == 0) {
        fputs("nothing has changed\n", out);
    } else {
        fprintf(out, "%" PRIu64 " runs, %s changed\n", diff->runs,
                size_format(diff->changed_bytes, size));
    }
}

/*
 * Where the next part begins, put into `arguments`. CLI_OK with *ret_more false: there is none. A
 * daemon that does not move on is refused, or this would never end.
 */
static enum cli_exit
next_part(struct cli *cli, struct api_arguments *arguments, const json_t *body,
          uint64_t end_bytes, bool *ret_more)
{
    int offset_field = api_field_index(arguments->command, "offset_bytes");
    int length_field = api_field_index(arguments->command, "length_bytes");
    const json_t *next = json_object_get(body, "next_offset_bytes");
    uint64_t before = api_number(arguments, "offset_bytes", 0);
    ASSERT(offset_field >= 0 && length_field >= 0);
    *ret_more = false;
    if (!json_is_integer(next)) {
        return CLI_OK;
    }
    uint64_t offset = (uint64_t)json_integer_value(next);
    if (json_integer_value(next) < 0 || offset <= before) {
        return cli_fail(cli, "cannot compare", "the daemon's answer does not go on",
                        "Is this the control socket of a volmgrd of this version?", -EBADMSG);
    }
    if (offset >= end_bytes) {
        return CLI_OK;
    }
    arguments->values[offset_field].present = true;
    arguments->values[offset_field].number = offset;
    if (arguments->values[length_field].present) {
        arguments->values[length_field].number = end_bytes - offset;
    }
    *ret_more = true;
    return CLI_OK;
}

enum cli_exit
cli_diff(struct cli *cli, const struct api_arguments *arguments)
{
    struct diff diff = { .cli = cli };
    struct api_arguments part = *arguments; /* texts are the caller's; only numbers change */
    uint64_t offset = api_number(arguments, "offset_bytes", 0);
    uint64_t length = api_number(arguments, "length_bytes", INT64_MAX);
    uint64_t end_bytes = length > INT64_MAX - offset ? INT64_MAX : offset + length;
    bool first = true;
    bool more = true;
    while (more) {
        struct cli_reply reply = { 0 };
        enum cli_exit result = cli_call_checked(cli, &part, &reply);
        if (result != CLI_OK) {
            return result;
        }
        if (first) {
            print_head(&diff, reply.json);
        }
        first = false;
        print_runs(&diff, reply.json);
        result = next_part(cli, &part, reply.json, end_bytes, &more);
        cli_reply_free(&reply);
        if (result != CLI_OK || ferror(cli->out)) {
            return CLI_FAILED;
        }
    }
    print_tail(&diff);
    return fflush(cli->out) == 0 ? CLI_OK : CLI_FAILED;
}

/* ---- snapshot-policy ---- */

static void
tell_policy(struct cli *cli, const char *volume, const json_t *policy)
{
    const json_t *rules = json_object_get(policy, "rules");
    char text[CLI_VALUE_SIZE];
    if (json_array_size(rules) == 0) {
        fprintf(cli->out, "no snapshots of %s are made by a schedule\n", volume);
        return;
    }
    cli_print_table(cli->out, &api_shape_rule, rules);
    fprintf(cli->out, "next: %s\n",
            cli_value_text(API_TYPE_TIME, json_object_get(policy, "next"), text));
    cli_value_text(API_TYPE_STRING, json_object_get(policy, "problem"), text);
    if (strcmp(text, "-") != 0) {
        fprintf(cli->out, "problem: %s\n", text);
    }
}

/* What is asked for when nothing is to be changed. */
static enum cli_exit
show_policy(struct cli *cli, const char *volume)
{
    struct api_arguments query;
    struct cli_reply reply = { 0 };
    api_arguments_init(&query, api_command(API_POLICY_LIST));
    int set = api_arguments_set_text(&query, 0, volume, API_TEXT_WIRE, NULL);
    ASSERT_OP(set, ==, 0);
    enum cli_exit result = cli_call_checked(cli, &query, &reply);
    if (result == CLI_OK && cli->json) {
        result = print_json(cli, &reply);
    } else if (result == CLI_OK) {
        tell_policy(cli, volume, json_array_get(json_object_get(reply.json, "policies"), 0));
    }
    cli_reply_free(&reply);
    api_arguments_free(&query);
    return result;
}

enum cli_exit
cli_snapshot_policy(struct cli *cli, const struct api_arguments *arguments)
{
    const char *volume = api_text(arguments, "volume");
    bool changes = api_present(arguments, "rules") || api_flag(arguments, "off");
    struct cli_reply reply = { 0 };
    if (changes && api_flag(arguments, "show")) {
        fputs("volctl: --show changes nothing; give it alone\n", cli->err);
        return CLI_USAGE;
    }
    if (!changes) {
        return show_policy(cli, volume);
    }
    enum cli_exit result = cli_call_checked(cli, arguments, &reply);
    if (result != CLI_OK) {
        return result;
    }
    if (cli->json) {
        result = print_json(cli, &reply);
    } else {
        tell_policy(cli, volume, reply.json);
    }
    cli_reply_free(&reply);
    return result;
}
