/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: long work that goes on in the background, and how far it is. Ended ones are kept a while.
 * A restart goes on with what was under way as a job of a new number: numbers are never used again.
 * Also what an operation that takes long waits for.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "volmgr/control_impl.h"
#include "volmgr/state_file_impl.h"

enum {
    JOBS_ENDED_MAX = 100
};

struct job {
    struct list link; /* manager->jobs, oldest first */
    struct manager *manager;
    struct job_report report;
};

void
jobs_init(struct manager *manager)
{
    list_init(&manager->jobs);
}

void
jobs_free(struct manager *manager)
{
    list_for_each_safe(&manager->jobs, link) {
        list_remove(link);
        free(list_entry(link, struct job, link));
    }
}

struct job *
job_start(struct manager *manager, const char *kind, const char *subject)
{
    struct job *job = calloc(1, sizeof(*job));

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(job != NULL);
    job->manager = manager;
    job->report.id = ++manager->job_sequence;
    daemon_record_job_counted(manager->daemon_record);
    snprintf(job->report.kind, sizeof(job->report.kind), "%s", kind);
    snprintf(job->report.subject, sizeof(job->report.subject), "%s", subject);
    job->report.started_realtime_ns = manager_realtime_ns(manager);
    list_push_back(&manager->jobs, &job->link);
    return job;
}

void
job_progress(struct job *job, uint8_t percent)
{
    ASSERT_ON_REACTOR(job->manager->control);
    ASSERT_OP(percent, <=, 100u);
    ASSERT(!job->report.finished);
    if (percent > job->report.percent) {
        job->report.percent = percent;
    }
}

void
job_end(struct job *job, int result, const char *text)
{
    ASSERT_ON_REACTOR(job->manager->control);
    struct manager *manager = job->manager;
    struct job *oldest_ended = NULL;
    uint32_t ended = 0;

    ASSERT(!job->report.finished);
    job->report.finished = true;
    job->report.result = result;
    if (result == 0) {
        job->report.percent = 100;
    }
    snprintf(job->report.text, sizeof(job->report.text), "%s", text);
    job->report.ended_realtime_ns = manager_realtime_ns(manager);
    list_for_each(&manager->jobs, link) {
        struct job *other = list_entry(link, struct job, link);
        if (other->report.finished) {
            oldest_ended = oldest_ended == NULL ? other : oldest_ended;
            ended++;
        }
    }
    if (ended > JOBS_ENDED_MAX) {
        list_remove(&oldest_ended->link);
        free(oldest_ended);
    }
}

void
manager_job_query(struct manager *manager, struct job_query *query)
{
    uint32_t count = 0;

    ASSERT_ON_REACTOR(manager->control);
    list_for_each(&manager->jobs, link) {
        count++;
    }
    query->control.error = (struct error){ 0 };
    query->ret_count = 0;
    query->ret_jobs = calloc(MAX(count, 1u), sizeof(*query->ret_jobs));
    ASSERT(query->ret_jobs != NULL);
    list_for_each(&manager->jobs, link) {
        const struct job *job = list_entry(link, struct job, link);
        if (query->id == 0 || query->id == job->report.id) {
            query->ret_jobs[query->ret_count++] = job->report;
        }
    }
    control_complete(manager, &query->control, 0);
}

/* ---- what an operation waits for ---- */

/* Append to `text`, cut off at its end. */
static void describe(char *text, size_t text_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void
describe(char *text, size_t text_bytes, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;

    ASSERT_OP(used, <, text_bytes);
    va_start(arguments, format);
    vsnprintf(text + used, text_bytes - used, format, arguments);
    va_end(arguments);
}

static const char *
next_step(const struct machine *machine)
{
    return machine->phase < machine->ops->phase_count ? machine->ops->phase_names[machine->phase]
                                                      : "its end";
}

void
manager_control_describe(const struct control *control, char *text, size_t text_bytes)
{
    const struct machine *machine = control->machine;
    const struct pool *pool = machine != NULL ? machine->pool : NULL;

    ASSERT(text_bytes > 0);
    text[0] = '\0';
    if (machine == NULL) {
        describe(text, text_bytes, "it is between two steps");
        return;
    }
    ASSERT_ON_REACTOR(machine->manager->control);
    describe(text, text_bytes, "%s, waiting to begin %s", machine->ops->name, next_step(machine));
    if (pool == NULL) {
        return;
    }
    if (machine->in_line) {
        const struct control *first = list_first(&pool->controls, struct control, link);
        const struct machine *before = first->machine;
        if (before != machine) {
            describe(text, text_bytes, "; in line behind %s, which waits to begin %s",
                     before->ops->name, next_step(before));
        }
    }
    if (pool->committer.stalled) {
        describe(text, text_bytes, "; commits wait for a checkpoint");
    }
    const struct disk *silent = pool_silent_disk(pool);
    if (silent != NULL) {
        describe(text, text_bytes, "; disk %u does not answer", (unsigned)silent->record.index);
    }
}
