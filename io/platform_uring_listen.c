/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, listening sockets, accepted connections and who is at the other end. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "io/platform_uring_impl.h"

enum {
    LISTEN_BACKLOG = 256,
    /* A whole batch of replies should fit, so that it goes out in one call. */
    SOCKET_BUFFER_BYTES = 1 << 20,
    KEEPALIVE_IDLE_S = 30,
    KEEPALIVE_INTERVAL_S = 10,
    KEEPALIVE_COUNT = 3,
    STALE_PROBES = 20,
    STALE_PROBE_MS = 25,
};

struct address {
    struct sockaddr_storage storage;
    socklen_t length_bytes;
    bool is_unix;
    bool is_wildcard; /* tcp:*:PORT, all addresses of both families */
    char path[SOCKET_ADDRESS_SIZE];
};

/* ---- text to address ---- */

static int
parse_unix(const char *text, struct address *address, struct error *error)
{
    struct sockaddr_un *name = (struct sockaddr_un *)&address->storage;
    size_t length = strlen(text);

    if (length == 0 || length >= sizeof(name->sun_path)) {
        return error_set(error, -EINVAL,
                         "the path of a unix socket must have 1 to %zu characters: \"%s\"",
                         sizeof(name->sun_path) - 1, text);
    }
    name->sun_family = AF_UNIX;
    memcpy(name->sun_path, text, length + 1);
    memcpy(address->path, text, length + 1);
    address->length_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    address->is_unix = true;
    return 0;
}

/* HOST:PORT, [HOST]:PORT, *:PORT or :PORT. */
static int
parse_tcp(const char *text, struct address *address, struct error *error)
{
    char host[SOCKET_ADDRESS_SIZE];
    const char *colon = strrchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof(host)) {
        return error_set(error, -EINVAL, "\"tcp:%s\" is not tcp:HOST:PORT", text);
    }
    size_t length = (size_t)(colon - text);
    memcpy(host, text, length);
    host[length] = '\0';
    const char *name = host;
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = '\0';
        name = host + 1;
    }
    address->is_wildcard = name[0] == '\0' || strcmp(name, "*") == 0;

    struct addrinfo hints = {
        .ai_family = address->is_wildcard ? AF_INET6 : AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
    };
    struct addrinfo *found = NULL;
    int result = getaddrinfo(address->is_wildcard ? NULL : name, colon + 1, &hints, &found);
    if (result != 0 || found == NULL) {
        return error_set(error, -EINVAL, "cannot understand the address \"tcp:%s\": %s", text,
                         gai_strerror(result));
    }
    ASSERT_OP(found->ai_addrlen, <=, sizeof(address->storage));
    memcpy(&address->storage, found->ai_addr, found->ai_addrlen);
    address->length_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* A kernel without IPv6: all addresses are those of IPv4. */
static void
wildcard_to_v4(struct address *address)
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = v6->sin6_port };
    memset(&address->storage, 0, sizeof(address->storage));
    memcpy(&address->storage, &v4, sizeof(v4));
    address->length_bytes = sizeof(v4);
}

static int
parse_address(const char *text, struct address *address, struct error *error)
{
    memset(address, 0, sizeof(*address));
    if (strncmp(text, "unix:", 5) == 0) {
        return parse_unix(text + 5, address, error);
    }
    if (strncmp(text, "tcp:", 4) == 0) {
        return parse_tcp(text + 4, address, error);
    }
    return error_set(error, -EINVAL, "\"%s\" is neither unix:PATH nor tcp:HOST:PORT", text);
}

/* ---- address to text ---- */

static void
format_address(const struct sockaddr_storage *storage, char text[static SOCKET_ADDRESS_SIZE])
{
    char numeric[INET6_ADDRSTRLEN];

    if (storage->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)storage;
        getnameinfo((const struct sockaddr *)v4, sizeof(*v4), numeric, sizeof(numeric), NULL, 0,
                    NI_NUMERICHOST);
        snprintf(text, SOCKET_ADDRESS_SIZE, "tcp:%s:%u", numeric, ntohs(v4->sin_port));
    } else if (storage->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)storage;
        unsigned port = ntohs(v6->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
            const uint8_t *v4 = &v6->sin6_addr.s6_addr[12];
            snprintf(text, SOCKET_ADDRESS_SIZE, "tcp:%u.%u.%u.%u:%u", v4[0], v4[1], v4[2], v4[3],
                     port);
        } else {
            getnameinfo((const struct sockaddr *)v6, sizeof(*v6), numeric, sizeof(numeric), NULL, 0,
                        NI_NUMERICHOST);
            snprintf(text, SOCKET_ADDRESS_SIZE, "tcp:[%s]:%u", numeric, port);
        }
    } else {
        snprintf(text, SOCKET_ADDRESS_SIZE, "unknown");
    }
}

static void
describe_peer(int fd, bool is_unix, char text[static SOCKET_ADDRESS_SIZE])
{
    if (is_unix) {
        struct ucred peer;
        socklen_t length = sizeof(peer);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) {
            snprintf(text, SOCKET_ADDRESS_SIZE, "unix (pid %d, uid %u)", (int)peer.pid,
                     (unsigned)peer.uid);
        } else {
            snprintf(text, SOCKET_ADDRESS_SIZE, "unix");
        }
        return;
    }
    struct sockaddr_storage storage = { 0 };
    socklen_t length = sizeof(storage);
    getpeername(fd, (struct sockaddr *)&storage, &length);
    format_address(&storage, text);
}

/* ---- listening ---- */

/* 0: somebody listens there; -ECONNREFUSED: nobody does; -errno. */
static int
probe_listener(const struct address *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    int result = 0;
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length_bytes) < 0 &&
        errno != EAGAIN) { /* EAGAIN: its queue is full, so it is alive */
        result = -errno;
    }
    close(fd);
    return result;
}

/*
 * A socket file that nobody listens on (a process that died) makes way; a live one does not. The
 * kernel takes a few milliseconds to close what the ring of a killed process still holds.
 */
static int
remove_stale(const struct address *address, struct error *error)
{
    struct stat status;
    if (lstat(address->path, &status) < 0) {
        return 0;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return error_set(error, -EEXIST, "%s exists and is not a socket", address->path);
    }
    int result = probe_listener(address);
    for (uint32_t i = 0; result == 0 && i < STALE_PROBES; i++) {
        poll(NULL, 0, STALE_PROBE_MS);
        result = probe_listener(address);
    }
    if (result == 0) {
        return error_set(error, -EADDRINUSE, "another process listens on unix:%s", address->path);
    }
    if (result != -ECONNREFUSED && result != -ENOENT) {
        return error_set(error, result, "cannot tell whether anybody listens on unix:%s: %s",
                         address->path, error_name(result));
    }
    if (unlink(address->path) < 0 && errno != ENOENT) {
        return error_set(error, -errno, "cannot remove the stale socket %s: %s", address->path,
                         error_name(errno));
    }
    return 0;
}

static int
bind_unix(struct platform_socket *listener, const struct address *address, uint32_t mode,
          struct error *error)
{
    int result = remove_stale(address, error);
    if (result < 0) {
        return result;
    }
    /* The mode of the socket becomes that of the file, so it is never open to more than asked. */
    struct stat status;
    if (fchmod(listener->fd, (mode_t)mode) < 0 ||
        bind(listener->fd, (const struct sockaddr *)&address->storage, address->length_bytes) < 0 ||
        chmod(address->path, (mode_t)mode) < 0 || lstat(address->path, &status) < 0) {
        return error_set(error, -errno, "cannot bind unix:%s: %s", address->path,
                         error_name(errno));
    }
    listener->unlink_path = strdup(address->path);
    ASSERT(listener->unlink_path != NULL);
    listener->unlink_device = status.st_dev;
    listener->unlink_inode = status.st_ino;
    return 0;
}

static int
bind_tcp(struct platform_socket *listener, const struct address *address, const char *text,
         struct error *error)
{
    const int on = 1;
    const int off = 0;
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->is_wildcard && address->storage.ss_family == AF_INET6) {
        setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (bind(listener->fd, (const struct sockaddr *)&address->storage, address->length_bytes) < 0) {
        return error_set(error, -errno, "cannot bind %s: %s", text, error_name(errno));
    }
    return 0;
}

int
socket_listen(struct platform *platform, const char *address_text, uint32_t mode,
              struct platform_socket **ret_listener, char ret_bound[static SOCKET_ADDRESS_SIZE],
              struct error *error)
{
    (void)platform;
    struct address address;
    int result = parse_address(address_text, &address, error);
    if (result < 0) {
        return result;
    }
    struct platform_socket *listener = calloc(1, sizeof(*listener));
    ASSERT(listener != NULL);
    listener->is_listener = true;
    listener->is_unix = address.is_unix;
    listener->fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 && errno == EAFNOSUPPORT && address.is_wildcard) {
        wildcard_to_v4(&address);
        listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    if (listener->fd < 0) {
        result = error_set(error, -errno, "cannot make a socket: %s", error_name(errno));
        free(listener);
        return result;
    }
    result = address.is_unix ? bind_unix(listener, &address, mode, error)
                             : bind_tcp(listener, &address, address_text, error);
    if (result == 0 && listen(listener->fd, LISTEN_BACKLOG) < 0) {
        result =
            error_set(error, -errno, "cannot listen on %s: %s", address_text, error_name(errno));
    }
    if (result < 0) {
        socket_close(listener);
        return result;
    }
    if (address.is_unix) {
        snprintf(ret_bound, SOCKET_ADDRESS_SIZE, "unix:%s", address.path);
    } else {
        socklen_t length = sizeof(address.storage);
        getsockname(listener->fd, (struct sockaddr *)&address.storage, &length);
        format_address(&address.storage, ret_bound);
    }
    *ret_listener = listener;
    return 0;
}

/* ---- accepting ---- */

void
socket_accept(struct io_engine *engine, struct socket_accept *accept)
{
    ASSERT_ON_REACTOR(engine->reactor);
    ASSERT(accept->listener->is_listener && accept->op.done != NULL);
    ASSERT(accept->listener->accepting == NULL);

    accept->op.reactor_id = engine->reactor_id;
    accept->listener->accepting = accept;
    struct io_uring_sqe *entry = engine_get_entry(engine, accept, TAG_ACCEPT);
    io_uring_prep_accept(entry, accept->listener->fd, NULL, NULL, SOCK_CLOEXEC);
}

static void
set_buffer_size(int fd, int option, int forced_option)
{
    const int bytes = SOCKET_BUFFER_BYTES;
    /* Above the system's limit with privilege, up to it without. */
    if (setsockopt(fd, SOL_SOCKET, forced_option, &bytes, sizeof(bytes)) < 0) {
        setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes));
    }
}

static void
prepare_connection(int fd, bool is_unix)
{
    if (is_unix) {
        /* TCP sizes its buffers itself, and better. */
        set_buffer_size(fd, SO_SNDBUF, SO_SNDBUFFORCE);
        return;
    }
    const int on = 1;
    const int idle_s = KEEPALIVE_IDLE_S;
    const int interval_s = KEEPALIVE_INTERVAL_S;
    const int count = KEEPALIVE_COUNT;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

void
socket_accepted(struct io_engine *engine, struct socket_accept *accept, int32_t result)
{
    struct platform_socket *listener = accept->listener;
    ASSERT(listener->accepting == accept);
    ASSERT_OP(accept->op.reactor_id, ==, engine->reactor_id);

    listener->accepting = NULL;
    if (result == -ECONNABORTED || result == -EINTR || result == -EAGAIN) {
        socket_accept(engine, accept); /* the visitor has left already: the next one, please */
        return;
    }
    if (result < 0) {
        /* EINVAL: the listener was shut down. */
        reactor_complete(&accept->op, result == -EINVAL ? -ECANCELED : result);
        return;
    }
    struct platform_socket *connection = calloc(1, sizeof(*connection));
    ASSERT(connection != NULL);
    connection->fd = result;
    connection->is_unix = listener->is_unix;
    prepare_connection(result, listener->is_unix);
    describe_peer(result, listener->is_unix, accept->ret_peer);
    accept->ret_socket = connection;
    reactor_complete(&accept->op, 0);
}
