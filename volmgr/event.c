/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: what an administrator should know without asking. The newest EVENTS_MAX are kept in
 * memory and, a moment later, in a file of the state directory (event_file.c); each is a line in
 * the log, too.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "volmgr/control_impl.h"
#include "volmgr/state_file_impl.h"

enum {
    NUMBERS_AHEAD = 100 /* more than are raised before the first of them is on disk */
};

struct event_node {
    struct list link; /* manager->events */
    struct message message;
    struct manager *manager;
    struct event event;
};

void
events_init(struct manager *manager)
{
    list_init(&manager->events);
    list_init(&manager->event_waiters);
}

void
events_free(struct manager *manager)
{
    ASSERT(list_empty(&manager->event_waiters));
    list_for_each_safe(&manager->events, link) {
        list_remove(link);
        free(list_entry(link, struct event_node, link));
    }
    manager->event_count = 0;
}

/* ---- queries ---- */

static uint32_t
count_after(const struct manager *manager, uint64_t after_sequence)
{
    uint32_t count = 0;
    for (struct list *link = manager->events.prev; link != &manager->events; link = link->prev) {
        if (list_entry(link, struct event_node, link)->event.sequence <= after_sequence) {
            break;
        }
        count++;
    }
    return count;
}

static void
query_answer(struct event_query *query)
{
    struct manager *manager = query->control.manager;
    uint32_t count = count_after(manager, query->after_sequence);
    struct list *link = manager->events.prev;

    query->ret_count = count;
    query->ret_events = calloc(MAX(count, 1u), sizeof(struct event));
    ASSERT(query->ret_events != NULL);
    for (uint32_t i = count; i > 0; i--, link = link->prev) {
        query->ret_events[i - 1] = list_entry(link, struct event_node, link)->event;
    }
    control_complete(manager, &query->control, 0);
}

static void
query_expired(struct timer *timer)
{
    struct event_query *query = container_of(timer, struct event_query, timer);
    list_remove(&query->wait_link);
    query_answer(query);
}

static void
waiters_answer(struct manager *manager, bool all)
{
    list_for_each_safe(&manager->event_waiters, link) {
        struct event_query *query = list_entry(link, struct event_query, wait_link);
        if (all || count_after(manager, query->after_sequence) > 0) {
            list_remove(link);
            timer_disarm(manager->control, &query->timer);
            query_answer(query);
        }
    }
}

void
manager_event_query(struct manager *manager, struct event_query *query)
{
    ASSERT_ON_REACTOR(manager->control);
    query->control.manager = manager;
    query->control.error = (struct error){ 0 };
    if (!query->wait || manager->stopping || count_after(manager, query->after_sequence) > 0) {
        query_answer(query);
        return;
    }
    list_push_back(&manager->event_waiters, &query->wait_link);
    query->timer = (struct timer){ 0 };
    timer_arm(manager->control, &query->timer,
              reactor_now_ns(manager->control) + query->wait_ns, query_expired);
}

void
events_end_waiting(struct manager *manager)
{
    ASSERT_ON_REACTOR(manager->control);
    waiters_answer(manager, true);
}

/* ---- keeping ---- */

static void
forget_oldest(struct manager *manager)
{
    while (manager->event_count > EVENTS_MAX) {
        struct list *oldest = list_pop_front(&manager->events);
        free(list_entry(oldest, struct event_node, link));
        manager->event_count--;
    }
}

void
events_restore(struct manager *manager, const struct event *past, size_t count)
{
    struct list newer;

    ASSERT_ON_REACTOR(manager->control);
    ASSERT(count > 0);
    list_init(&newer);
    list_splice_back(&newer, &manager->events);
    for (size_t i = 0; i < count; i++) {
        struct event_node *node = calloc(1, sizeof(*node));
        ASSERT(node != NULL);
        node->manager = manager;
        node->event = past[i];
        list_push_back(&manager->events, &node->link);
        manager->event_count++;
    }
    /* A killed daemon may have told numbers of events that did not get here: not used again. */
    manager->event_sequence = (past[count - 1].sequence / NUMBERS_AHEAD + 2) * NUMBERS_AHEAD - 1;
    list_for_each(&newer, link) {
        list_entry(link, struct event_node, link)->event.sequence = ++manager->event_sequence;
    }
    list_splice_back(&manager->events, &newer);
    forget_oldest(manager);
}

void
events_visit(const struct manager *manager, uint64_t first, uint64_t last, uint8_t *to,
             size_t step, void (*encode)(const struct event *event, uint8_t *to))
{
    ASSERT_ON_REACTOR(manager->control);
    for (struct list *link = manager->events.prev; link != &manager->events; link = link->prev) {
        const struct event *event = &list_entry(link, struct event_node, link)->event;
        if (event->sequence < first) {
            break;
        }
        if (event->sequence <= last) {
            encode(event, to + (event->sequence - first) * step);
        }
    }
}

/* ---- raising ---- */

static void
event_add(struct event_node *node)
{
    static const enum log_level levels[] = {
        [EVENT_INFO] = LOG_LEVEL_NOTICE,
        [EVENT_WARNING] = LOG_LEVEL_WARNING,
        [EVENT_CRITICAL] = LOG_LEVEL_ERROR,
    };
    struct manager *manager = node->manager;
    const struct event *event = &node->event;

    node->event.sequence = ++manager->event_sequence;
    log_line(levels[event->severity], "event", "%s: %s%s%s: %s", event->name, event->pool,
             event->subject[0] != '\0' ? " " : "", event->subject, event->text);
    list_push_back(&manager->events, &node->link);
    manager->event_count++;
    forget_oldest(manager);
    event_file_wake(manager->event_file);
    waiters_answer(manager, false);
}

static struct event_node *
event_make(struct manager *manager, enum event_severity severity, const char *pool,
           const char *subject, const char *name, const char *format, va_list arguments)
    __attribute__((format(printf, 6, 0)));

static struct event_node *
event_make(struct manager *manager, enum event_severity severity, const char *pool,
           const char *subject, const char *name, const char *format, va_list arguments)
{
    struct event_node *node = calloc(1, sizeof(*node));

    ASSERT(node != NULL);
    ASSERT(severity <= EVENT_CRITICAL);
    node->manager = manager;
    node->event.realtime_ns = manager_realtime_ns(manager);
    node->event.severity = severity;
    snprintf(node->event.pool, sizeof(node->event.pool), "%s", pool != NULL ? pool : "");
    snprintf(node->event.subject, sizeof(node->event.subject), "%s",
             subject != NULL ? subject : "");
    snprintf(node->event.name, sizeof(node->event.name), "%s", name);
    vsnprintf(node->event.text, sizeof(node->event.text), format, arguments);
    return node;
}

void
event_raise(struct manager *manager, enum event_severity severity, const char *pool,
            const char *subject, const char *name, const char *format, ...)
{
    va_list arguments;

    ASSERT_ON_REACTOR(manager->control);
    va_start(arguments, format);
    event_add(event_make(manager, severity, pool, subject, name, format, arguments));
    va_end(arguments);
}

static void
event_arrived(struct message *message)
{
    event_add(container_of(message, struct event_node, message));
}

void
event_post(struct manager *manager, enum event_severity severity, const char *pool,
           const char *subject, const char *name, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    struct event_node *node =
        event_make(manager, severity, pool, subject, name, format, arguments);
    va_end(arguments);
    reactor_send(manager->control, &node->message, event_arrived);
}
