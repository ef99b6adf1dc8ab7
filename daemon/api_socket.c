/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api_socket.h"

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"

enum {
    API_SOCKET_MODE = 0660,
    API_BACKLOG = 64,
    API_HOST_SIZE = 256,
};

/* ---- the control socket ---- */

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

int
api_socket_unix(const char *path, const char *group, int *ret_fd, struct error *error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(address.sun_path)) {
        return error_set(error, -ENAMETOOLONG,
                         "the control socket's name is longer than %zu bytes: %s; choose another "
                         "by [api] socket",
                         sizeof(address.sun_path) - 1, path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int result = remove_stale(&address, error);
    if (result < 0) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_set(error, -errno, "cannot make a socket: %s", error_name(errno));
    }
    /* The file gets the socket's own mode, less the umask: never wider than it is meant to be. */
    if (fchmod(fd, API_SOCKET_MODE) < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        result = error_set(error, -errno, "cannot bind %s: %s", path, error_name(errno));
        close(fd);
        return result;
    }
    result = set_group(path, group, error);
    if (result == 0 && (chmod(path, API_SOCKET_MODE) < 0 || listen(fd, API_BACKLOG) < 0)) {
        result = error_set(error, -errno, "cannot listen at %s: %s", path, error_name(errno));
    }
    if (result < 0) {
        unlink(path);
        close(fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

/* ---- TCP ---- */

/* HOST:PORT or [HOST]:PORT; no HOST: every address. */
static int
split_address(const char *text, char host[static API_HOST_SIZE], char port[static 8],
              struct error *error)
{
    const char *colon = strrchr(text, ':');
    size_t host_bytes = colon != NULL ? (size_t)(colon - text) : 0;
    bool bracketed = host_bytes >= 2 && text[0] == '[' && text[host_bytes - 1] == ']';
    const char *start = bracketed ? text + 1 : text;
    host_bytes -= bracketed ? 2 : 0;
    if (colon == NULL || host_bytes >= API_HOST_SIZE || colon[1] == '\0' ||
        strlen(colon + 1) > 5 || colon[1 + strspn(colon + 1, "0123456789")] != '\0' ||
        strtoul(colon + 1, NULL, 10) > UINT16_MAX || /* getaddrinfo() would take it modulo */
        (!bracketed && memchr(start, ':', host_bytes) != NULL)) {
        return error_set(error, -EINVAL,
                         "[api] listen: \"%s\" is not HOST:PORT, such as 192.0.2.1:10808 or "
                         "[::]:10808",
                         text);
    }
    memcpy(host, start, host_bytes);
    host[host_bytes] = '\0';
    snprintf(port, 8, "%s", colon + 1);
    return 0;
}

static int
bind_one(const struct addrinfo *info, int *ret_fd)
{
    int one = 1;
    int zero = 0;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (info->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)); /* [::] is IPv4 too */
    }
    if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, API_BACKLOG) < 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

int
api_socket_tcp(const char *text, int *ret_fd, char ret_address[static API_ADDRESS_SIZE],
               struct error *error)
{
    char host[API_HOST_SIZE];
    char port[8];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *found = NULL;
    int result = split_address(text, host, port, error);
    if (result < 0) {
        return result;
    }
    int code = getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &found);
    if (code != 0) {
        return error_set(error, -EINVAL, "[api] listen: %s: %s", text, gai_strerror(code));
    }
    result = -EADDRNOTAVAIL;
    for (const struct addrinfo *info = found; info != NULL && result < 0; info = info->ai_next) {
        result = bind_one(info, ret_fd);
    }
    freeaddrinfo(found);
    if (result < 0) {
        return error_set(error, result, "[api] listen: cannot listen at %s: %s", text,
                         error_name(result));
    }
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    if (getsockname(*ret_fd, (struct sockaddr *)&bound, &length) == 0 &&
        getnameinfo((const struct sockaddr *)&bound, length, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        bool six = strchr(host, ':') != NULL;
        snprintf(ret_address, API_ADDRESS_SIZE, "tcp:%s%s%s:%s", six ? "[" : "", host,
                 six ? "]" : "", port);
    } else {
        snprintf(ret_address, API_ADDRESS_SIZE, "tcp:%.256s", text);
    }
    return 0;
}
