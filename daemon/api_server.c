/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api_server.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/api_call_impl.h"

enum {
    API_SOCKET_MODE = 0660,
    API_BACKLOG = 64,
};

struct api_server {
    struct node *node;
    struct MHD_Daemon *http;
    int listen_fd; /* -1 once it belongs to `http` */
    bool bound;
    char path[CONFIG_TEXT_SIZE + 32];
    _Atomic uint64_t calls;
    _Atomic uint64_t errors;
    _Atomic uint64_t running; /* calls that are counted and not completed */
};

/* ---- the socket ---- */

/* Remove a socket that nobody listens at any more. -EADDRINUSE: somebody does. */
static int
remove_stale(const struct sockaddr_un *address, struct error *error)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0) {
        return errno == ENOENT ? 0
                               : error_set(error, -errno, "cannot look at %s: %s",
                                           address->sun_path, error_name(errno));
    }
    if (!S_ISSOCK(status.st_mode)) {
        return error_set(error, -EADDRINUSE, "%s exists and is not a socket", address->sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_set(error, -errno, "cannot make a socket: %s", error_name(errno));
    }
    bool alive = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                 errno == EAGAIN || errno == EACCES;
    close(fd);
    if (alive) {
        return error_set(error, -EADDRINUSE, "another process listens at %s", address->sun_path);
    }
    if (unlink(address->sun_path) < 0 && errno != ENOENT) {
        return error_set(error, -errno, "cannot remove the stale socket %s: %s",
                         address->sun_path, error_name(errno));
    }
    return 0;
}

static int
set_group(const char *path, const char *group, struct error *error)
{
    if (group[0] == '\0') {
        return 0;
    }
    struct group *entry = getgrnam(group); /* the main thread, before others start */
    if (entry == NULL) {
        return error_set(error, -EINVAL, "[api] group: there is no group \"%s\"", group);
    }
    if (chown(path, (uid_t)-1, entry->gr_gid) < 0) {
        return error_set(error, -errno, "cannot give %s to group %s: %s", path, group,
                         error_name(errno));
    }
    return 0;
}

static int
bind_socket(struct api_server *server, struct error *error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(server->path) >= sizeof(address.sun_path)) {
        return error_set(error, -ENAMETOOLONG,
                         "the control socket's name is longer than %zu bytes: %s; choose another "
                         "by [api] socket",
                         sizeof(address.sun_path) - 1, server->path);
    }
    memcpy(address.sun_path, server->path, strlen(server->path) + 1);
    int result = remove_stale(&address, error);
    if (result < 0) {
        return result;
    }
    server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listen_fd < 0) {
        return error_set(error, -errno, "cannot make a socket: %s", error_name(errno));
    }
    /* The file gets the socket's own mode, less the umask: never wider than it is meant to be. */
    if (fchmod(server->listen_fd, API_SOCKET_MODE) < 0 ||
        bind(server->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        return error_set(error, -errno, "cannot bind %s: %s", server->path, error_name(errno));
    }
    server->bound = true;
    result = set_group(server->path, server->node->config.api.group, error);
    if (result < 0) {
        return result;
    }
    if (chmod(server->path, API_SOCKET_MODE) < 0 || listen(server->listen_fd, API_BACKLOG) < 0) {
        return error_set(error, -errno, "cannot listen at %s: %s", server->path,
                         error_name(errno));
    }
    return 0;
}

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
    return send_json(call, status, api_error_encode(what, why, NULL, code));
}

static void
note_change(const struct api_call *call)
{
    char action[320];
    api_action_text(&call->arguments, action, sizeof(action));
    log_notice("api", "uid %d pid %d: %s: %s", (int)call->peer_uid, (int)call->peer_pid, action,
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

static void
call_deliver(struct message *message)
{
    struct api_call *call = container_of(message, struct api_call, message);
    ASSERT_ON_REACTOR(call->node->reactors[0]);
    call->handler->start(call);
}

void
api_server_resume(struct api_call *call)
{
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

static void
read_peer(struct api_call *call)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer;
    socklen_t length = sizeof(peer);
    call->peer_pid = -1;
    call->peer_uid = (uid_t)-1;
    if (info != NULL &&
        getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) {
        call->peer_pid = peer.pid;
        call->peer_uid = peer.uid;
    }
}

static enum MHD_Result
begin_call(struct api_server *server, struct MHD_Connection *connection, const char *method,
           const char *path, void **context)
{
    struct api_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return MHD_NO;
    }
    *context = call; /* freed in request_completed() */
    call->server = server;
    call->node = server->node;
    call->connection = connection;
    atomic_fetch_add(&server->calls, 1);
    read_peer(call);
    struct error error = { 0 };
    if (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) {
        method = MHD_HTTP_METHOD_GET;
    }
    int result = api_route(method, path, &call->arguments, &error);
    if (result == 0) {
        call->routed = true;
        call->handler = api_handler(call->arguments.command->id);
        return MHD_YES;
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
    struct api_server *server = context;
    struct api_call *call = *request_context;
    (void)version;
    if (call == NULL) {
        return begin_call(server, connection, method, path, request_context);
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
    struct api_server *server = context;
    struct api_call *call = *request_context;
    (void)connection;
    (void)why;
    if (call == NULL) {
        return;
    }
    api_reports_free(&call->reports);
    api_arguments_free(&call->arguments);
    byte_buffer_free(&call->body);
    free(call->disks);
    if (call->counted) {
        uint64_t before = atomic_fetch_sub(&server->running, 1);
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

/* ---- life ---- */

int
api_server_create(struct node *node, struct api_server **ret_server, struct error *error)
{
    struct api_server *server = calloc(1, sizeof(*server));
    ASSERT(server != NULL);
    server->node = node;
    server->listen_fd = -1;
    bool given = node->config.api.socket[0] != '\0';
    snprintf(server->path, sizeof(server->path), "%s%s",
             given ? node->config.api.socket : node->state_directory,
             given ? "" : "/volmgrd.sock");
    int result = bind_socket(server, error);
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
    const struct config *config = &server->node->config;
    ASSERT(server->http == NULL);
    ASSERT_OP(server->listen_fd, >=, 0);
    server->http = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME |
            MHD_USE_ERROR_LOG | MHD_USE_ITC,
        0, NULL, NULL, handle_request, server, MHD_OPTION_EXTERNAL_LOGGER, log_http, server,
        MHD_OPTION_LISTEN_SOCKET, server->listen_fd, MHD_OPTION_NOTIFY_COMPLETED,
        request_completed, server, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)config->api.connections, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)div_round_up(config->api.idle_timeout_ns, NS_PER_S), MHD_OPTION_END);
    if (server->http == NULL) {
        return error_set(error, -EIO, "cannot start the API server at %s", server->path);
    }
    return 0;
}

bool
api_server_stop(struct api_server *server, uint64_t timeout_ns)
{
    static const struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };
    ASSERT_OP(atomic_load(&server->node->state), ==, NODE_STOPPING);
    if (server->http == NULL) {
        return true;
    }
    for (uint64_t waited_ns = 0; atomic_load(&server->running) > 0; waited_ns += 5 * NS_PER_MS) {
        if (waited_ns >= timeout_ns) {
            return false;
        }
        nanosleep(&pause, NULL);
    }
    MHD_stop_daemon(server->http); /* ends its thread and closes the listening socket */
    server->http = NULL;
    server->listen_fd = -1;
    return true;
}

void
api_server_destroy(struct api_server *server)
{
    ASSERT(server->http == NULL);
    if (server->listen_fd >= 0) {
        close(server->listen_fd);
    }
    if (server->bound) {
        unlink(server->path);
    }
    free(server);
}

void
api_server_get_statistics(const struct api_server *server,
                          struct api_server_statistics *ret_statistics)
{
    ret_statistics->calls = atomic_load(&server->calls);
    ret_statistics->errors = atomic_load(&server->errors);
    ret_statistics->running = atomic_load(&server->running);
}
