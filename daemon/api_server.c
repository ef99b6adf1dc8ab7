/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api_server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "base/list.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/api_call_impl.h"
#include "daemon/api_socket.h"
#include "daemon/api_tls.h"

#define API_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

enum {
    LISTENERS_MAX = CONFIG_LIST_MAX + 1,
    OPTIONS_MAX = 16,
    LONG_CALL_S = 10,  /* the log tells what a call waits for */
    LONG_AGAIN_S = 60, /* and again */
};

/* One address, and the HTTP server behind it. After a reload an older one ends its connections. */
struct api_listener {
    struct list retired_link;
    struct api_server *server;
    struct MHD_Daemon *http; /* NULL: not started; otherwise it closes the socket */
    int fd;
    struct api_tls *tls; /* NULL: the control socket */
    uint32_t index;      /* among the server's addresses */
};

struct api_server {
    struct node *node;
    char path[CONFIG_TEXT_SIZE + 32]; /* of the control socket */
    struct api_listener *listeners[LISTENERS_MAX]; /* the first one is the control socket's */
    uint32_t listener_count;
    char addresses[LISTENERS_MAX][API_ADDRESS_SIZE]; /* constant; read by any thread */
    struct list retired; /* struct api_listener */
    struct list under_way; /* struct api_call, oldest first; reactor 0, as is the next one */
    struct timer watch;    /* armed while there is one */
    _Atomic uint64_t calls;
    _Atomic uint64_t errors;
    _Atomic uint64_t running; /* calls that are counted and not completed */
};

/* ---- answers ---- */

static enum MHD_Result
send_body(struct api_call *call, unsigned status, const char *type, char *text, size_t length)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result result = MHD_queue_response(call->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result
send_json(struct api_call *call, unsigned status, json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    ASSERT(text != NULL);
    return send_body(call, status, "application/json", text, strlen(text));
}

/* Where the usual remedy for a code does not fit the command. NULL: it does. */
static const char *
remedy_for(const struct api_call *call, int code)
{
    const struct api_command *command = call->routed ? call->arguments.command : NULL;
    if (command != NULL && command->id == API_VOLUME_DELETE && code == -ENOTEMPTY) {
        return "Give --snapshots to delete them, too; with --dry-run it tells what that would "
               "free.";
    }
    if (command == NULL || api_field_index(command, "disks") < 0) {
        return NULL;
    }
    switch (code) {
    case -ENOENT:
        return "Name a disk that exists, or let a file be made: file:PATH?size=20G.";
    case -EBUSY:
        return "See \"volctl disk list\" for disks in use; another program or host may have it.";
    default:
        return NULL;
    }
}

static enum MHD_Result
send_error(struct api_call *call, unsigned status, int code, const char *why)
{
    char what[384];
    char action[320] = "do that";
    if (call->routed) {
        api_action_text(&call->arguments, action, sizeof(action));
    }
    snprintf(what, sizeof(what), "cannot %s", action);
    atomic_fetch_add(&call->server->errors, 1);
    return send_json(call, status, api_error_encode(what, why, remedy_for(call, code), code));
}

static void
note_change(const struct api_call *call)
{
    char action[320];
    api_action_text(&call->arguments, action, sizeof(action));
    log_notice("api", "%s: %s%s: %s", call->caller, action, call->is_dry_run ? " (dry run)" : "",
               call->result == 0 ? "done" : call->error.message);
}

static enum MHD_Result
send_outcome(struct api_call *call)
{
    if (call->handler->changes) {
        note_change(call);
    }
    json_t *body = NULL;
    if (call->result == 0 && call->handler->encode != NULL) {
        body = call->handler->encode(call);
        ASSERT(body != NULL || call->result < 0);
    }
    if (call->result < 0) {
        const char *why =
            call->error.message[0] != '\0' ? call->error.message : error_name(call->result);
        return send_error(call, api_error_status(call->result), call->result, why);
    }
    if (body == NULL) {
        struct byte_buffer text = BYTE_BUFFER_INIT;
        encode_metrics(call, &text);
        return send_body(call, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                         (char *)text.data, text.length_bytes);
    }
    return send_json(call, call->handler->creates ? MHD_HTTP_CREATED : MHD_HTTP_OK, body);
}

/* ---- a call's way ---- */

static void watch_expired(struct timer *timer);

static void
watch_arm(struct api_server *server)
{
    struct reactor *control = server->node->reactors[0];
    if (!list_empty(&server->under_way) && !timer_is_armed(&server->watch)) {
        timer_arm(control, &server->watch, reactor_now_ns(control) + LONG_CALL_S * NS_PER_S / 4,
                  watch_expired);
    }
}

static void
tell_long_call(struct api_call *call, uint64_t now_ns)
{
    char action[320];
    char reason[512];
    call->told_ns = now_ns;
    api_action_text(&call->arguments, action, sizeof(action));
    manager_control_describe(&call->operation.control, reason, sizeof(reason));
    log_warning("api", "%s: %s: under way for %" PRIu64 " s: %s", call->caller, action,
                (now_ns - call->started_ns) / NS_PER_S, reason);
}

/* Whoever waits in vain must find out for what. */
static void
watch_expired(struct timer *timer)
{
    struct api_server *server = container_of(timer, struct api_server, watch);
    uint64_t now_ns = reactor_now_ns(server->node->reactors[0]);
    list_for_each(&server->under_way, link) {
        struct api_call *call = list_entry(link, struct api_call, under_way_link);
        uint64_t since_ns = call->told_ns != 0 ? call->told_ns : call->started_ns;
        uint64_t pause_s = call->told_ns != 0 ? LONG_AGAIN_S : LONG_CALL_S;
        if (!call->waits && now_ns - since_ns >= pause_s * NS_PER_S) { /* waits: for events */
            tell_long_call(call, now_ns);
        }
    }
    watch_arm(server);
}

static void
call_deliver(struct message *message)
{
    struct api_call *call = container_of(message, struct api_call, message);
    ASSERT_ON_REACTOR(call->node->reactors[0]);
    call->started_ns = reactor_now_ns(call->node->reactors[0]);
    list_push_back(&call->server->under_way, &call->under_way_link);
    watch_arm(call->server);
    call->handler->start(call);
}

void
api_server_resume(struct api_call *call)
{
    ASSERT_ON_REACTOR(call->node->reactors[0]);
    list_remove(&call->under_way_link);
    MHD_resume_connection(call->connection);
}

/*
 * Counted before the state is looked at, as api_server_stop() looks at the count after the state
 * has changed: a call is either refused here or waited for there.
 */
static enum MHD_Result
submit(struct api_call *call)
{
    ASSERT(!call->counted && !call->submitted);
    call->counted = true;
    atomic_fetch_add(&call->server->running, 1);
    int state = atomic_load(&call->node->state);
    if (state == NODE_STOPPING) {
        return send_error(call, MHD_HTTP_SERVICE_UNAVAILABLE, -ESHUTDOWN, "the daemon is ending");
    }
    if (state == NODE_STARTING && call->handler->changes) {
        return send_error(call, MHD_HTTP_SERVICE_UNAVAILABLE, -EAGAIN,
                          "the daemon is still opening its pools");
    }
    call->submitted = true;
    MHD_suspend_connection(call->connection); /* before anybody can resume it */
    reactor_send(call->node->reactors[0], &call->message, call_deliver);
    return MHD_YES;
}

struct query_context {
    struct api_call *call;
    struct error *error;
    int result;
};

static enum MHD_Result
take_query(void *context, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct query_context *query = context;
    const struct api_command *command = query->call->arguments.command;
    (void)kind;
    int index = api_field_index(command, key);
    if (index < 0 || (command->fields[index].flags & API_LOCAL) != 0 ||
        command->method == API_METHOD_POST) {
        query->result = error_set(query->error, -EINVAL, "there is no query field \"%.40s\" in "
                                                         "\"%s\"",
                                  key, command->words);
        return MHD_NO;
    }
    query->result = api_arguments_set_text(&query->call->arguments, (size_t)index,
                                           value != NULL ? value : "", API_TEXT_WIRE,
                                           query->error);
    return query->result == 0 ? MHD_YES : MHD_NO;
}

/* The whole request is here. */
static enum MHD_Result
decode_and_submit(struct api_call *call)
{
    struct error error = { 0 };
    if (call->body_too_large) {
        char why[96];
        snprintf(why, sizeof(why), "the body is longer than %" PRIu64 " bytes",
                 call->node->config.api.body_bytes);
        return send_error(call, MHD_HTTP_CONTENT_TOO_LARGE, -E2BIG, why);
    }
    struct query_context query = { .call = call, .error = &error };
    MHD_get_connection_values(call->connection, MHD_GET_ARGUMENT_KIND, take_query, &query);
    int result = query.result;
    if (result == 0) {
        result = api_arguments_set_body(&call->arguments, (const char *)call->body.data,
                                        call->body.length_bytes, &error);
    }
    if (result == 0) {
        result = api_arguments_check(&call->arguments, &error);
    }
    if (result < 0) {
        return send_error(call, MHD_HTTP_BAD_REQUEST, result, error.message);
    }
    return submit(call);
}

/* ---- who calls ---- */

static void
describe_local(struct api_call *call)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer = { .pid = -1, .uid = (uid_t)-1 };
    socklen_t length = sizeof(peer);
    if (info != NULL) {
        getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    }
    snprintf(call->caller, sizeof(call->caller), "uid %d pid %d", (int)peer.uid, (int)peer.pid);
}

static enum api_role
describe_remote(struct api_call *call)
{
    const struct api_tls *tls = call->listener->tls;
    const union MHD_ConnectionInfo *session =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    const union MHD_ConnectionInfo *peer =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    char name[API_CALLER_SIZE] = "";
    char address[INET6_ADDRSTRLEN] = "?";
    enum api_role role = API_ROLE_NOBODY;
    if (session != NULL && session->tls_session != NULL) {
        role = api_tls_judge(tls, &call->node->config, session->tls_session, name);
    }
    if (peer != NULL && peer->client_addr != NULL) {
        socklen_t length = peer->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                                    : sizeof(struct sockaddr_in);
        getnameinfo(peer->client_addr, length, address, sizeof(address), NULL, 0, NI_NUMERICHOST);
    }
    snprintf(call->caller, sizeof(call->caller), "%s at %s", name[0] != '\0' ? name : "somebody",
             address);
    return role;
}

/* False: he may not do that, and the answer has been queued. */
static bool
is_permitted(struct api_call *call, enum MHD_Result *ret_result)
{
    if (call->listener->tls == NULL) {
        describe_local(call); /* who may open the socket may do everything */
        return true;
    }
    enum api_role role = describe_remote(call);
    if (role == API_ROLE_ADMINISTRATOR ||
        (role == API_ROLE_READER && !call->handler->changes)) {
        return true;
    }
    log_notice("api", "%s: refused", call->caller);
    *ret_result = send_error(call, MHD_HTTP_FORBIDDEN, -EACCES,
                             role == API_ROLE_READER
                                 ? "this client may look, and change nothing"
                                 : "the client has no certificate that the daemon accepts");
    return false;
}

static enum MHD_Result
begin_call(const struct api_listener *listener, struct MHD_Connection *connection,
           const char *method, const char *path, void **context)
{
    struct api_server *server = listener->server;
    struct api_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return MHD_NO;
    }
    *context = call; /* freed in request_completed() */
    call->server = server;
    call->node = server->node;
    call->listener = listener;
    call->connection = connection;
    atomic_fetch_add(&server->calls, 1);
    struct error error = { 0 };
    if (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) {
        method = MHD_HTTP_METHOD_GET;
    }
    int result = api_route(method, path, &call->arguments, &error);
    if (result == 0) {
        call->routed = true;
        call->handler = api_handler(call->arguments.command->id);
        enum MHD_Result answered = MHD_YES;
        return is_permitted(call, &answered) ? MHD_YES : answered;
    }
    unsigned status = result == -EPERM    ? MHD_HTTP_METHOD_NOT_ALLOWED
                      : result == -ENOENT ? MHD_HTTP_NOT_FOUND
                                          : MHD_HTTP_BAD_REQUEST;
    return send_error(call, status, result, error.message);
}

static enum MHD_Result
handle_request(void *context, struct MHD_Connection *connection, const char *path,
               const char *method, const char *version, const char *data, size_t *data_bytes,
               void **request_context)
{
    const struct api_listener *listener = context;
    const struct api_server *server = listener->server;
    struct api_call *call = *request_context;
    (void)version;
    if (call == NULL) {
        return begin_call(listener, connection, method, path, request_context);
    }
    if (*data_bytes > 0) {
        if (call->body.length_bytes + *data_bytes > server->node->config.api.body_bytes) {
            call->body_too_large = true; /* read on and forget, so that the answer is seen */
        } else if (!call->body_too_large) {
            byte_buffer_append(&call->body, data, *data_bytes);
        }
        *data_bytes = 0;
        return MHD_YES;
    }
    return call->submitted ? send_outcome(call) : decode_and_submit(call);
}

static void
request_completed(void *context, struct MHD_Connection *connection, void **request_context,
                  enum MHD_RequestTerminationCode why)
{
    const struct api_listener *listener = context;
    struct api_call *call = *request_context;
    (void)connection;
    (void)why;
    if (call == NULL) {
        return;
    }
    ASSERT(call->listener == listener);
    api_reports_free(&call->reports);
    api_arguments_free(&call->arguments);
    byte_buffer_free(&call->body);
    free(call->disks);
    free(call->names);
    if (call->counted) {
        uint64_t before = atomic_fetch_sub(&call->server->running, 1);
        ASSERT_OP(before, >, 0u);
    }
    free(call);
    *request_context = NULL;
}

static void
log_http(void *context, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

static void
log_http(void *context, const char *format, va_list arguments)
{
    char text[512];
    (void)context;
    vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\r\n")] = '\0';
    log_debug("api", "%s", text);
}

/* ---- listeners ---- */

static struct api_listener *
listener_new(struct api_server *server, uint32_t index)
{
    struct api_listener *listener = calloc(1, sizeof(*listener));
    ASSERT(listener != NULL);
    list_init(&listener->retired_link);
    ASSERT_OP(index, <, (uint32_t)LISTENERS_MAX);
    listener->server = server;
    listener->index = index;
    listener->fd = -1;
    return listener;
}

/* Its calls have ended. */
static void
listener_free(struct api_listener *listener)
{
    list_remove(&listener->retired_link);
    if (listener->http != NULL) {
        MHD_stop_daemon(listener->http); /* ends its thread and closes the socket */
    } else if (listener->fd >= 0) {
        close(listener->fd);
    }
    if (listener->tls != NULL) {
        api_tls_free(listener->tls);
    }
    free(listener);
}

static void
add_option(struct MHD_OptionItem *options, enum MHD_OPTION option, intptr_t value,
           const void *pointer)
{
    size_t used = 0;
    while (options[used].option != MHD_OPTION_END) {
        used++;
    }
    ASSERT_OP(used + 1, <, (size_t)OPTIONS_MAX);
    options[used] = (struct MHD_OptionItem){ option, value, (void *)(uintptr_t)pointer };
    options[used + 1] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
}

static int
listener_start(struct api_listener *listener, struct error *error)
{
    const struct config *config = &listener->server->node->config;
    struct MHD_OptionItem options[OPTIONS_MAX] = { { MHD_OPTION_END, 0, NULL } };
    unsigned flags = MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME |
                     MHD_USE_ERROR_LOG | MHD_USE_ITC;
    ASSERT(listener->http == NULL);
    ASSERT_OP(listener->fd, >=, 0);
    add_option(options, MHD_OPTION_LISTEN_SOCKET, listener->fd, NULL);
    add_option(options, MHD_OPTION_CONNECTION_LIMIT, (intptr_t)config->api.connections, NULL);
    add_option(options, MHD_OPTION_CONNECTION_TIMEOUT,
               (intptr_t)div_round_up(config->api.idle_timeout_ns, NS_PER_S), NULL);
    if (listener->tls != NULL) {
        flags |= MHD_USE_TLS;
        add_option(options, MHD_OPTION_HTTPS_MEM_CERT, 0, api_tls_certificate(listener->tls));
        add_option(options, MHD_OPTION_HTTPS_MEM_KEY, 0, api_tls_key(listener->tls));
        add_option(options, MHD_OPTION_HTTPS_PRIORITIES, 0, API_TLS_PRIORITIES);
        if (api_tls_authorities(listener->tls) != NULL) {
            add_option(options, MHD_OPTION_HTTPS_MEM_TRUST, 0,
                       api_tls_authorities(listener->tls));
        }
    }
    listener->http = MHD_start_daemon(
        flags, 0, NULL, NULL, handle_request, listener, MHD_OPTION_EXTERNAL_LOGGER, log_http,
        listener, MHD_OPTION_NOTIFY_COMPLETED, request_completed, listener, MHD_OPTION_ARRAY,
        options, MHD_OPTION_END);
    return listener->http != NULL
               ? 0
               : error_set(error, -EIO, "cannot start the API server at %s",
                           listener->server->addresses[listener->index]);
}

/* ---- life ---- */

static int
listen_unix(struct api_server *server, struct error *error)
{
    const struct config *config = &server->node->config;
    bool given = config->api.socket[0] != '\0';
    struct api_listener *listener = listener_new(server, 0);
    server->listeners[server->listener_count++] = listener;
    snprintf(server->path, sizeof(server->path), "%s%s",
             given ? config->api.socket : server->node->state_directory,
             given ? "" : "/volmgrd.sock");
    snprintf(server->addresses[0], API_ADDRESS_SIZE, "unix:%.290s", server->path);
    return api_socket_unix(server->path, config->api.group, &listener->fd, error);
}

static int
listen_tcp(struct api_server *server, const char *address, struct error *error)
{
    uint32_t index = server->listener_count;
    struct api_listener *listener = listener_new(server, index);
    server->listeners[server->listener_count++] = listener;
    int result = api_tls_load(&server->node->config, &listener->tls, error);
    return result < 0 ? result
                      : api_socket_tcp(address, &listener->fd, server->addresses[index], error);
}

int
api_server_create(struct node *node, struct api_server **ret_server, struct error *error)
{
    const struct config_list *addresses = &node->config.api.listen;
    struct api_server *server = calloc(1, sizeof(*server));
    ASSERT(server != NULL);
    server->node = node;
    list_init(&server->retired);
    list_init(&server->under_way);
    int result = listen_unix(server, error);
    for (uint64_t i = 0; i < addresses->count && result == 0; i++) {
        result = listen_tcp(server, addresses->items[i], error);
    }
    if (result < 0) {
        api_server_destroy(server);
        return result;
    }
    *ret_server = server;
    return 0;
}

int
api_server_start(struct api_server *server, struct error *error)
{
    int result = 0;
    for (uint32_t i = 0; i < server->listener_count && result == 0; i++) {
        result = listener_start(server->listeners[i], error);
    }
    return result;
}

/* The new one listens at the same socket; the old one takes no connections any more. */
static int
listener_renew(struct api_server *server, uint32_t index, struct error *error)
{
    struct api_listener *before = server->listeners[index];
    struct api_listener *listener = listener_new(server, index);
    int result = api_tls_load(&server->node->config, &listener->tls, error);
    if (result == 0) {
        listener->fd = fcntl(before->fd, F_DUPFD_CLOEXEC, 0);
        result = listener->fd < 0 ? error_set(error, -errno, "cannot duplicate a socket: %s",
                                              error_name(errno))
                                  : listener_start(listener, error);
    }
    if (result < 0) {
        listener_free(listener);
        return result;
    }
    int fd = MHD_quiesce_daemon(before->http);
    if (fd >= 0) {
        close(fd);
    }
    list_push_back(&server->retired, &before->retired_link);
    server->listeners[index] = listener;
    return 0;
}

int
api_server_reload_tls(struct api_server *server, struct error *error)
{
    ASSERT(reactor_self() == NULL);
    list_for_each_safe(&server->retired, link) {
        struct api_listener *listener = list_entry(link, struct api_listener, retired_link);
        const union MHD_DaemonInfo *info =
            MHD_get_daemon_info(listener->http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
        if (info != NULL && info->num_connections == 0) {
            listener_free(listener);
        }
    }
    for (uint32_t i = 0; i < server->listener_count; i++) {
        if (server->listeners[i]->tls == NULL) {
            continue;
        }
        int result = listener_renew(server, i, error);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

static void
free_listeners(struct api_server *server)
{
    list_for_each_safe(&server->retired, link) {
        listener_free(list_entry(link, struct api_listener, retired_link));
    }
    if (server->listener_count > 0 && server->listeners[0]->fd >= 0) {
        unlink(server->path);
    }
    for (uint32_t i = 0; i < server->listener_count; i++) {
        listener_free(server->listeners[i]);
    }
    server->listener_count = 0;
}

bool
api_server_stop(struct api_server *server, uint64_t timeout_ns)
{
    static const struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };
    ASSERT_OP(atomic_load(&server->node->state), ==, NODE_STOPPING);
    for (uint64_t waited_ns = 0; atomic_load(&server->running) > 0; waited_ns += 5 * NS_PER_MS) {
        if (waited_ns >= timeout_ns) {
            return false;
        }
        nanosleep(&pause, NULL);
    }
    free_listeners(server);
    return true;
}

void
api_server_destroy(struct api_server *server)
{
    ASSERT_OP(atomic_load(&server->running), ==, 0u);
    free_listeners(server);
    free(server);
}

const char *
api_server_tcp_address(const struct api_server *server, uint32_t index)
{
    return index + 1 < server->listener_count ? server->addresses[index + 1] : NULL;
}

void
api_server_get_statistics(const struct api_server *server,
                          struct api_server_statistics *ret_statistics)
{
    ret_statistics->calls = atomic_load(&server->calls);
    ret_statistics->errors = atomic_load(&server->errors);
    ret_statistics->running = atomic_load(&server->running);
}
