/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue, a few threads. The lock is held to link and unlink only; reactors never wait for a
 * job. A job's function and its result travel through the queue's lock and the mailbox, which give
 * the ordering between the threads.
 */
#include "io/offload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

enum {
    THREAD_NAME_SIZE = 16 /* what the kernel keeps */
};

struct offload {
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    struct offload_job *first; /* under lock, as are last and ending */
    struct offload_job *last;
    bool ending;
    uint32_t thread_count;
    pthread_t threads[];
};

/* On the reactor again. */
static void
offload_deliver_done(struct message *message)
{
    struct offload_job *job = container_of(message, struct offload_job, message);
    reactor_complete(&job->op, job->op.result);
}

/* Without threads: the job itself runs on the reactor. */
static void
offload_deliver_work(struct message *message)
{
    struct offload_job *job = container_of(message, struct offload_job, message);
    reactor_complete(&job->op, job->work(job));
}

static struct offload_job *
offload_take(struct offload *offload)
{
    pthread_mutex_lock(&offload->lock);
    while (offload->first == NULL && !offload->ending) {
        pthread_cond_wait(&offload->wanted, &offload->lock);
    }
    struct offload_job *job = offload->first;
    if (job != NULL) {
        offload->first = job->next;
        if (offload->first == NULL) {
            offload->last = NULL;
        }
        job->next = NULL;
    }
    pthread_mutex_unlock(&offload->lock);
    return job;
}

static void *
offload_thread(void *argument)
{
    struct offload *offload = argument;
    struct offload_job *job;

    while ((job = offload_take(offload)) != NULL) {
        ASSERT(reactor_self() == NULL);
        job->op.result = job->work(job);
        /* The job belongs to its reactor again from the sending on. */
        reactor_send(job->reply_to, &job->message, offload_deliver_done);
    }
    return NULL;
}

int
offload_create(const char *name, uint32_t thread_count, struct offload **ret_offload,
               struct error *error)
{
    struct offload *offload = calloc(1, sizeof(struct offload) + thread_count * sizeof(pthread_t));
    if (offload == NULL) {
        return error_set(error, -ENOMEM, "no memory for the %s threads", name);
    }
    pthread_mutex_init(&offload->lock, NULL);
    pthread_cond_init(&offload->wanted, NULL);

    sigset_t all, old;
    int result = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (uint32_t i = 0; i < thread_count && result == 0; i++) {
        result = pthread_create(&offload->threads[i], NULL, offload_thread, offload);
        if (result == 0) {
            char text[THREAD_NAME_SIZE + 12];
            snprintf(text, sizeof(text), "%.11s-%u", name, i);
            text[THREAD_NAME_SIZE - 1] = '\0';
            pthread_setname_np(offload->threads[i], text);
            offload->thread_count++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (result != 0) {
        offload_destroy(offload);
        return error_set(error, -result, "cannot start a %s thread: %s", name, error_name(result));
    }
    *ret_offload = offload;
    return 0;
}

void
offload_destroy(struct offload *offload)
{
    pthread_mutex_lock(&offload->lock);
    ASSERT(!offload->ending);
    offload->ending = true;
    pthread_cond_broadcast(&offload->wanted);
    pthread_mutex_unlock(&offload->lock);
    for (uint32_t i = 0; i < offload->thread_count; i++) {
        int result = pthread_join(offload->threads[i], NULL);
        ASSERT_OP(result, ==, 0);
    }
    ASSERT(offload->first == NULL);
    pthread_cond_destroy(&offload->wanted);
    pthread_mutex_destroy(&offload->lock);
    free(offload);
}

void
offload_submit(struct offload *offload, struct offload_job *job, offload_fn *work)
{
    struct reactor *self = reactor_self();
    ASSERT(self != NULL && work != NULL);
    ASSERT(job->op.done != NULL);

    job->work = work;
    job->reply_to = self;
    job->op.reactor_id = reactor_id(self);
    job->next = NULL;
    if (offload->thread_count == 0) {
        reactor_send(self, &job->message, offload_deliver_work);
        return;
    }
    pthread_mutex_lock(&offload->lock);
    ASSERT(!offload->ending);
    if (offload->last != NULL) {
        offload->last->next = job;
    } else {
        offload->first = job;
    }
    offload->last = job;
    pthread_cond_signal(&offload->wanted);
    pthread_mutex_unlock(&offload->lock);
}
