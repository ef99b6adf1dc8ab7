/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "cli/cli.h"

enum {
    REPLY_BYTES_MAX = 256 << 20,
    CONNECT_TIMEOUT_SECONDS = 20,
    READ_TIMEOUT_SECONDS = 120, /* of commands that change nothing; the others may take long */
};

size_t
cli_socket_candidates(char paths[][CLI_SOCKET_SIZE], size_t max)
{
    const char *given = getenv("VOLCTL_SOCKET");
    const char *home = getenv("HOME");
    size_t count = 0;
    ASSERT_OP(max, >=, (size_t)CLI_SOCKETS_MAX);
    if (given != NULL && *given != '\0') {
        snprintf(paths[count++], CLI_SOCKET_SIZE, "%s", given);
        return count;
    }
    snprintf(paths[count++], CLI_SOCKET_SIZE, "/run/volmgr/volmgrd.sock");
    snprintf(paths[count++], CLI_SOCKET_SIZE, "/var/lib/volmgr/volmgrd.sock");
    if (home != NULL && *home != '\0') {
        snprintf(paths[count++], CLI_SOCKET_SIZE, "%s/.local/share/volmgr/volmgrd.sock", home);
    }
    return count;
}

static bool
is_remote(const char *address)
{
    return strncmp(address, "https://", 8) == 0;
}

bool
cli_is_remote(const struct cli *cli)
{
    const char *given = getenv("VOLCTL_SOCKET");
    const char *address = cli->socket != NULL ? cli->socket : given;
    return address != NULL && is_remote(address);
}

/* Find the socket and see that somebody is there: curl's own message would not say what to do. */
static int
find_socket(const struct cli *cli, char path[static CLI_SOCKET_SIZE], struct error *error)
{
    char candidates[CLI_SOCKETS_MAX][CLI_SOCKET_SIZE];
    size_t count = 0;
    int code = -ENOENT;
    const char *failed = NULL;
    if (cli->socket != NULL && strlen(cli->socket) >= CLI_SOCKET_SIZE) {
        return error_set(error, -ENAMETOOLONG, "the name of the socket %.100s... is too long",
                         cli->socket);
    }
    if (cli->socket != NULL) {
        snprintf(candidates[count++], CLI_SOCKET_SIZE, "%s", cli->socket);
    } else {
        count = cli_socket_candidates(candidates, CLI_SOCKETS_MAX);
    }
    if (!is_remote(candidates[0]) && strstr(candidates[0], "://") != NULL) {
        return error_set(error, -EINVAL, "%s: daemons answer at a unix socket or https://HOST:PORT",
                         candidates[0]);
    }
    if (is_remote(candidates[0])) {
        memcpy(path, candidates[0], CLI_SOCKET_SIZE);
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        if (strlen(candidates[i]) >= sizeof(address.sun_path)) {
            return error_set(error, -ENAMETOOLONG, "the name of the socket %s is too long",
                             candidates[i]);
        }
        memcpy(address.sun_path, candidates[i], strlen(candidates[i]) + 1);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            return error_set(error, -errno, "cannot make a socket: %s", error_name(errno));
        }
        int result = connect(fd, (const struct sockaddr *)&address, sizeof(address));
        int reason = -errno;
        close(fd);
        if (result == 0) {
            memcpy(path, candidates[i], CLI_SOCKET_SIZE);
            return 0;
        }
        if (failed == NULL || (code == -ENOENT && reason != -ENOENT)) {
            code = reason; /* a socket that refuses us says more than one that is not there */
            failed = candidates[i];
        }
    }
    ASSERT(failed != NULL);
    if (count > 1 && code == -ENOENT) {
        char places[CLI_SOCKETS_MAX * (CLI_SOCKET_SIZE / 3)] = "";
        for (size_t i = 0; i < count; i++) {
            size_t used = strlen(places);
            snprintf(places + used, sizeof(places) - used, "%s%.80s", i > 0 ? ", " : "",
                     candidates[i]);
        }
        return error_set(error, code, "there is no control socket at the usual places: %s", places);
    }
    return error_set(error, code, "%s: %s", failed, error_name(code));
}

static size_t
take_body(char *data, size_t size, size_t count, void *context)
{
    struct byte_buffer *body = context;
    if (body->length_bytes + size * count > REPLY_BYTES_MAX) {
        return 0;
    }
    byte_buffer_append(body, data, size * count);
    return size * count;
}

/* A file for TLS: the option, or the environment. NULL: none. */
static const char *
tls_file(const char *option, const char *variable)
{
    const char *value = option != NULL ? option : getenv(variable);
    return value != NULL && *value != '\0' ? value : NULL;
}

/* TLS in both directions; the daemon's name or address must be in its certificate. */
static void
set_tls_options(const struct cli *cli, CURL *curl)
{
    const char *certificate = tls_file(cli->certificate, "VOLCTL_CERT");
    const char *key = tls_file(cli->key, "VOLCTL_KEY");
    const char *authorities = tls_file(cli->authorities, "VOLCTL_CACERT");
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_SECONDS);
    if (certificate != NULL) {
        curl_easy_setopt(curl, CURLOPT_SSLCERT, certificate);
    }
    if (key != NULL) {
        curl_easy_setopt(curl, CURLOPT_SSLKEY, key);
    }
    if (authorities != NULL) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, authorities);
    }
}

static void
set_options(struct cli *cli, CURL *curl, const struct api_arguments *arguments, const char *path,
            const char *url, struct byte_buffer *body)
{
    bool reads = arguments->command->method == API_METHOD_GET;
    long timeout = cli->timeout_seconds != 0 ? (long)cli->timeout_seconds
                   : reads                   ? READ_TIMEOUT_SECONDS
                                             : 0L;
    if (is_remote(path)) {
        set_tls_options(cli, curl);
    } else {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, path);
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, timeout);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    if (arguments->command->method == API_METHOD_DELETE) {
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "DELETE");
    }
}

static int
perform(struct cli *cli, CURL *curl, const struct api_arguments *arguments, const char *path,
        struct byte_buffer *body, unsigned *ret_status, struct error *error)
{
    struct byte_buffer url = BYTE_BUFFER_INIT;
    size_t host_bytes = is_remote(path) ? strlen(path) : 0;
    while (host_bytes > 0 && path[host_bytes - 1] == '/') {
        host_bytes--;
    }
    byte_buffer_append_format(&url, "%.*s", host_bytes > 0 ? (int)host_bytes : 16,
                              host_bytes > 0 ? path : "http://localhost");
    api_arguments_encode_url(arguments, &url);
    json_t *request = api_arguments_encode_body(arguments);
    char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    struct curl_slist *headers = NULL;
    set_options(cli, curl, arguments, path, (const char *)url.data, body);
    if (text != NULL) {
        headers = curl_slist_append(NULL, "Content-Type: application/json");
        headers = curl_slist_append(headers, "Expect:"); /* no round trip for "100 Continue" */
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text);
    }
    int result = 0;
    long status = 0;
    char detail[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    CURLcode code = curl_easy_perform(curl);
    if (code != CURLE_OK) {
        result = error_set(error, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -EIO, "%s",
                           detail[0] != '\0' ? detail : curl_easy_strerror(code));
    } else {
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        *ret_status = (unsigned)status;
    }
    curl_slist_free_all(headers);
    free(text);
    json_decref(request);
    byte_buffer_free(&url);
    return result;
}

int
cli_call(struct cli *cli, const struct api_arguments *arguments, struct cli_reply *ret_reply,
         struct error *error)
{
    char path[CLI_SOCKET_SIZE];
    int result = find_socket(cli, path, error);
    if (result < 0) {
        return result;
    }
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        return error_set(error, -ENOMEM, "cannot start libcurl");
    }
    struct byte_buffer body = BYTE_BUFFER_INIT;
    unsigned status = 0;
    result = perform(cli, curl, arguments, path, &body, &status, error);
    curl_easy_cleanup(curl);
    if (result < 0) {
        byte_buffer_free(&body);
        return result;
    }
    byte_buffer_append_u8(&body, '\0');
    ret_reply->status = status;
    ret_reply->text = (char *)body.data;
    ret_reply->length = body.length_bytes - 1;
    ret_reply->json = json_loadb(ret_reply->text, ret_reply->length, 0, NULL);
    return 0;
}

void
cli_reply_free(struct cli_reply *reply)
{
    json_decref(reply->json);
    free(reply->text);
    *reply = (struct cli_reply){ 0 };
}
