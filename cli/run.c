/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "cli/cli.h"

enum {
    JOB_POLL_MS = 250,
    START_POLL_MS = 100,
    START_PATIENCE_S = 30, /* or --timeout: a daemon that has just been started opens its pools */
};

enum cli_exit
cli_fail(struct cli *cli, const char *what, const char *why, const char *what_to_do, int code)
{
    ASSERT_OP(code, <, 0);
    if (cli->json) {
        json_t *body = api_error_encode(what, why, what_to_do, code);
        json_dumpf(body, cli->out, JSON_COMPACT);
        fputc('\n', cli->out);
        json_decref(body);
        return CLI_FAILED;
    }
    fprintf(cli->err, "volctl: %s\n", what);
    if (why != NULL && *why != '\0') {
        fprintf(cli->err, "  why: %s\n", why);
    }
    if (what_to_do != NULL && *what_to_do != '\0') {
        fprintf(cli->err, "  what to do: %s\n", what_to_do);
    }
    return CLI_FAILED;
}

static enum cli_exit
fail_no_answer(struct cli *cli, const struct api_arguments *arguments, const struct error *error)
{
    char action[320];
    char what[384];
    const char *remedy = "Is volmgrd running? Name its control socket by -s or VOLCTL_SOCKET.";
    api_action_text(arguments, action, sizeof(action));
    snprintf(what, sizeof(what), "cannot %s: no answer from the daemon", action);
    if (cli_is_remote(cli)) {
        remedy = "Does volmgrd listen there ([api] listen)? Give --cacert, --cert and --key.";
    }
    if (error->code == -EACCES) {
        remedy = "Become a member of the socket's group, or root.";
    } else if (error->code == -ETIMEDOUT) {
        remedy = "The command may still be carried out: see \"volctl status\" and \"volctl "
                 "events\".";
    }
    return cli_fail(cli, what, error->message, remedy, error->code);
}

/* The daemon refused. The body is foreign: it may be anything. */
static enum cli_exit
fail_refused(struct cli *cli, const struct api_arguments *arguments,
             const struct cli_reply *reply)
{
    struct api_error refused;
    if (reply->json != NULL && api_error_decode(reply->json, &refused)) {
        if (cli->json) {
            fprintf(cli->out, "%s\n", reply->text);
            return CLI_FAILED;
        }
        return cli_fail(cli, refused.what, refused.why, refused.what_to_do, -EIO);
    }
    char action[320];
    char what[384];
    char why[96];
    api_action_text(arguments, action, sizeof(action));
    snprintf(what, sizeof(what), "cannot %s", action);
    snprintf(why, sizeof(why), "the answer (HTTP status %u) is not one of a volmgrd",
             reply->status);
    return cli_fail(cli, what, why, "Is this the control socket of a volmgrd of this version?",
                    -EBADMSG);
}

/* Nothing was done: the daemon has only just been started. */
static bool
is_starting(const struct cli_reply *reply)
{
    struct api_error refused;
    return reply->status == 503 && reply->json != NULL &&
           api_error_decode(reply->json, &refused) && strcmp(refused.code, "EAGAIN") == 0;
}

/* As cli_call(); a daemon that is starting is given time. */
static int
call_patiently(struct cli *cli, const struct api_arguments *arguments,
               struct cli_reply *ret_reply, struct error *error)
{
    unsigned patience_s = cli->timeout_seconds > 0 ? cli->timeout_seconds : START_PATIENCE_S;
    uint64_t rounds = (uint64_t)patience_s * 1000 / START_POLL_MS;
    int result = cli_call(cli, arguments, ret_reply, error);

    for (uint64_t i = 0; i < rounds && result == 0 && is_starting(ret_reply); i++) {
        cli_reply_free(ret_reply);
        poll(NULL, 0, START_POLL_MS);
        *ret_reply = (struct cli_reply){ 0 };
        result = cli_call(cli, arguments, ret_reply, error);
    }
    return result;
}

enum cli_exit
cli_call_checked(struct cli *cli, const struct api_arguments *arguments,
                 struct cli_reply *ret_reply)
{
    struct error error = { 0 };
    struct cli_reply reply = { 0 };
    if (call_patiently(cli, arguments, &reply, &error) < 0) {
        return fail_no_answer(cli, arguments, &error);
    }
    bool expects_json = arguments->command->reply != NULL;
    if (reply.status < 200 || reply.status > 299 || (expects_json && !json_is_object(reply.json))) {
        enum cli_exit result = fail_refused(cli, arguments, &reply);
        cli_reply_free(&reply);
        return result;
    }
    *ret_reply = reply;
    return CLI_OK;
}

enum cli_exit
cli_get(struct cli *cli, enum api_command_id id, struct cli_reply *ret_reply)
{
    struct api_arguments arguments;
    api_arguments_init(&arguments, api_command(id));
    enum cli_exit result = cli_call_checked(cli, &arguments, ret_reply);
    api_arguments_free(&arguments);
    return result;
}

/* ---- jobs ---- */

static void
show_progress(struct cli *cli, const json_t *job)
{
    const char *kind = json_string_value(json_object_get(job, "kind"));
    const char *subject = json_string_value(json_object_get(job, "subject"));
    if (!cli->json && isatty(fileno(cli->err))) {
        fprintf(cli->err, "\r%s %s: %" JSON_INTEGER_FORMAT "%%\033[K", kind != NULL ? kind : "job",
                subject != NULL ? subject : "",
                json_integer_value(json_object_get(job, "percent")));
        fflush(cli->err);
    }
}

enum cli_exit
cli_wait_for_job(struct cli *cli, const json_t *job)
{
    char id[24];
    struct api_arguments arguments;
    struct error error = { 0 };
    if (!json_is_object(job)) {
        return CLI_OK; /* nothing was left to do */
    }
    snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(job, "id")));
    api_arguments_init(&arguments, api_command(API_JOB_LIST));
    int set = api_arguments_set_text(&arguments, 0, id, API_TEXT_WIRE, &error);
    enum cli_exit result = set == 0 ? CLI_OK : CLI_FAILED;
    bool finished = set < 0;
    while (!finished) {
        struct cli_reply reply = { 0 };
        result = cli_call_checked(cli, &arguments, &reply);
        if (result != CLI_OK) {
            break;
        }
        const json_t *now = json_array_get(json_object_get(reply.json, "jobs"), 0);
        const char *failed = json_string_value(json_object_get(now, "error"));
        finished = now == NULL || json_is_true(json_object_get(now, "finished"));
        if (now != NULL) {
            show_progress(cli, now);
        }
        if (finished && failed != NULL && *failed != '\0') {
            const char *why = json_string_value(json_object_get(now, "text"));
            result = cli_fail(cli, "the job has failed", why, "See \"volctl events\".", -EIO);
        }
        cli_reply_free(&reply);
        if (!finished) {
            poll(NULL, 0, JOB_POLL_MS);
        }
    }
    if (!cli->json && isatty(fileno(cli->err))) {
        fputc('\n', cli->err);
    }
    api_arguments_free(&arguments);
    return result;
}

/* ---- all commands ---- */

static enum cli_exit
print_outcome(struct cli *cli, const struct api_arguments *arguments,
              const struct cli_reply *reply)
{
    const struct api_command *command = arguments->command;
    if (cli->json || command->reply == NULL) {
        fputs(reply->text, cli->out);
        if (reply->length > 0 && reply->text[reply->length - 1] != '\n') {
            fputc('\n', cli->out);
        }
    } else if (command->done != NULL) {
        char text[640];
        api_expand(arguments, command->done, text, sizeof(text));
        fprintf(cli->out, "%s\n", text);
    } else {
        cli_print_reply(cli->out, command, reply->json);
    }
    return fflush(cli->out) == 0 ? CLI_OK : CLI_FAILED;
}

enum cli_exit
cli_run(struct cli *cli, const struct api_arguments *arguments)
{
    const struct api_command *command = arguments->command;
    ASSERT(command != NULL);
    if (command->id == API_ATTACH) {
        return cli_attach(cli, arguments);
    }
    if (command->id == API_TOP) {
        return cli_top(cli, arguments);
    }
    if (command->id == API_CHECK) {
        return cli_check(cli, arguments);
    }
    if (command->id == API_VOLUME_DELETE) {
        return cli_delete(cli, arguments);
    }
    if (command->id == API_SNAPSHOT_LIST) {
        return cli_list_snapshots(cli, arguments);
    }
    if (command->id == API_VOLUME_DIFF) {
        return cli_diff(cli, arguments);
    }
    if (command->id == API_POLICY_SET) {
        return cli_snapshot_policy(cli, arguments);
    }
    if (command->id == API_JOB_LIST && api_flag(arguments, "follow")) {
        return cli_follow_jobs(cli, arguments);
    }
    if (command->id == API_EVENT_LIST && api_flag(arguments, "follow")) {
        return cli_follow_events(cli, arguments);
    }
    struct cli_reply reply = { 0 };
    enum cli_exit result = cli_call_checked(cli, arguments, &reply);
    if (result != CLI_OK) {
        return result;
    }
    result = print_outcome(cli, arguments, &reply);
    if (result == CLI_OK && cli->wait && command->waits) {
        result = cli_wait_for_job(cli, json_object_get(reply.json, "job"));
    }
    cli_reply_free(&reply);
    return result;
}
