/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs and events as they come. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "cli/cli.h"

enum {
    EVENT_PAUSE_MS = 1000, /* when the daemon has too many that wait, and answers at once */
    JOB_PAUSE_MS = 500,
};

/* ---- events ---- */

static void
print_event(struct cli *cli, const json_t *event)
{
    static const char *const names[] = { "time", "severity", "name", "text" };
    if (cli->json) {
        json_dumpf(event, cli->out, JSON_COMPACT);
    } else {
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            char text[CLI_VALUE_SIZE];
            fprintf(cli->out, "%s%s", i > 0 ? "  " : "",
                    cli_value_text(API_TYPE_STRING, json_object_get(event, names[i]), text));
        }
    }
    fputc('\n', cli->out);
}

enum cli_exit
cli_follow_events(struct cli *cli, const struct api_arguments *arguments)
{
    uint64_t after = api_number(arguments, "after", 0);
    for (;;) {
        struct api_arguments query;
        struct cli_reply reply = { 0 };
        char text[24];
        api_arguments_init(&query, arguments->command);
        snprintf(text, sizeof(text), "%" PRIu64, after);
        int set = api_arguments_set_text(
            &query, (size_t)api_field_index(query.command, "after"), text, API_TEXT_WIRE, NULL);
        set |= api_arguments_set_text(
            &query, (size_t)api_field_index(query.command, "wait_seconds"), "30", API_TEXT_WIRE,
            NULL);
        ASSERT_OP(set, ==, 0);
        enum cli_exit result = cli_call_checked(cli, &query, &reply);
        api_arguments_free(&query);
        if (result != CLI_OK) {
            return result;
        }
        size_t index;
        json_t *event;
        json_array_foreach(json_object_get(reply.json, "events"), index, event)
        {
            json_int_t sequence = json_integer_value(json_object_get(event, "sequence"));
            print_event(cli, event);
            after = sequence > 0 && (uint64_t)sequence > after ? (uint64_t)sequence : after;
        }
        bool empty = json_array_size(json_object_get(reply.json, "events")) == 0;
        cli_reply_free(&reply);
        if (empty) {
            poll(NULL, 0, EVENT_PAUSE_MS);
        }
        if (fflush(cli->out) != 0) {
            return CLI_FAILED; /* nobody reads any more */
        }
    }
}

/* ---- jobs ---- */

static json_int_t
job_id(const json_t *job)
{
    return json_integer_value(json_object_get(job, "id"));
}

/* The job as it was at the last look; NULL: it is new. */
static const json_t *
find_job(const json_t *jobs, json_int_t id)
{
    size_t index;
    json_t *job;
    json_array_foreach(jobs, index, job)
    {
        if (job_id(job) == id) {
            return job;
        }
    }
    return NULL;
}

static void
print_job(struct cli *cli, const json_t *job)
{
    char kind[CLI_VALUE_SIZE];
    char subject[CLI_VALUE_SIZE];
    char text[CLI_VALUE_SIZE];
    const char *error = json_string_value(json_object_get(job, "error"));
    if (cli->json) {
        json_dumpf(job, cli->out, JSON_COMPACT);
        fputc('\n', cli->out);
        return;
    }
    fprintf(cli->out, "%" JSON_INTEGER_FORMAT "  %s %s  ", job_id(job),
            cli_value_text(API_TYPE_STRING, json_object_get(job, "kind"), kind),
            cli_value_text(API_TYPE_STRING, json_object_get(job, "subject"), subject));
    if (!json_is_true(json_object_get(job, "finished"))) {
        fprintf(cli->out, "%" JSON_INTEGER_FORMAT " %%\n",
                json_integer_value(json_object_get(job, "percent")));
        return;
    }
    cli_value_text(API_TYPE_STRING, json_object_get(job, "text"), text);
    bool failed = error != NULL && *error != '\0';
    fprintf(cli->out, "%s%s%s\n", failed ? "failed" : "done", strcmp(text, "-") != 0 ? ": " : "",
            strcmp(text, "-") != 0 ? text : "");
}

static bool
has_changed(const json_t *before, const json_t *job)
{
    return before == NULL ||
           !json_equal(json_object_get(before, "percent"), json_object_get(job, "percent")) ||
           !json_equal(json_object_get(before, "finished"), json_object_get(job, "finished"));
}

/* Print what has changed. With an id: the end of that job, or that there is none, is the end. */
static bool
look_at_jobs(struct cli *cli, const json_t *before, const json_t *jobs, bool one,
             enum cli_exit *ret_result)
{
    size_t index;
    json_t *job;
    bool ended = one;
    json_array_foreach(jobs, index, job)
    {
        const json_t *earlier = find_job(before, job_id(job));
        bool finished = json_is_true(json_object_get(job, "finished"));
        const char *error = json_string_value(json_object_get(job, "error"));
        /* What had ended before we came is no news, unless it was asked for. */
        if (has_changed(earlier, job) && (one || before != NULL || !finished)) {
            print_job(cli, job);
        }
        if (one) {
            ended = finished;
            *ret_result = finished && error != NULL && *error != '\0' ? CLI_FAILED : CLI_OK;
        }
    }
    return ended;
}

enum cli_exit
cli_follow_jobs(struct cli *cli, const struct api_arguments *arguments)
{
    json_t *before = NULL;
    enum cli_exit result = CLI_OK;
    bool one = api_present(arguments, "id");
    bool ended = false;
    while (!ended) {
        struct cli_reply reply = { 0 };
        result = cli_call_checked(cli, arguments, &reply);
        if (result != CLI_OK) {
            break;
        }
        const json_t *jobs = json_object_get(reply.json, "jobs");
        if (one && before == NULL && json_array_size(jobs) == 0) {
            result = cli_fail(cli, "cannot follow the job", "there is no job of this number",
                              "See \"volctl jobs\"; jobs that ended long ago are forgotten.",
                              -ENOENT);
            ended = true;
        } else {
            ended = look_at_jobs(cli, before, jobs, one, &result);
        }
        json_decref(before);
        before = json_incref((json_t *)(uintptr_t)jobs);
        cli_reply_free(&reply);
        if (fflush(cli->out) != 0) {
            result = CLI_FAILED; /* nobody reads any more */
            ended = true;
        }
        if (!ended) {
            poll(NULL, 0, JOB_PAUSE_MS);
        }
    }
    json_decref(before);
    return result;
}
