/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/suggest.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/size_text.h"
#include "base/util.h"
#include "io/reactor.h"
#include "targets/nbd/server.h"

enum config_type {
    CONFIG_TYPE_SIZE,
    CONFIG_TYPE_NUMBER,
    CONFIG_TYPE_DURATION,
    CONFIG_TYPE_BOOL,
    CONFIG_TYPE_CHOICE,
    CONFIG_TYPE_MODE, /* permission bits, in octal */
    CONFIG_TYPE_TEXT,
    CONFIG_TYPE_LIST, /* text; the key may be repeated */
};

struct config_choice {
    const char *word;
    uint64_t value;
};

struct config_key {
    const char *section;
    const char *name;
    enum config_type type;
    size_t offset; /* in struct config */
    uint64_t minimum;
    uint64_t maximum;
    const struct config_choice *choices; /* CHOICE; NUMBER: words that stand for numbers */
    const char *initial;                 /* built-in value, as it would be written */
    const char *help;
};

static const struct config_choice log_levels[] = {
    { "error", LOG_LEVEL_ERROR }, { "warning", LOG_LEVEL_WARNING }, { "notice", LOG_LEVEL_NOTICE },
    { "info", LOG_LEVEL_INFO },   { "debug", LOG_LEVEL_DEBUG },     { NULL, 0 },
};
static const struct config_choice automatic[] = { { "auto", 0 }, { NULL, 0 } };
static const struct config_choice switches[] = {
    { "auto", CONFIG_AUTO }, { "yes", CONFIG_YES }, { "no", CONFIG_NO }, { NULL, 0 }
};

static const struct config_choice tls_modes[] = { { "off", NBD_TLS_OFF },
                                                 { "optional", NBD_TLS_OPTIONAL },
                                                 { "required", NBD_TLS_REQUIRED },
                                                 { NULL, 0 } };
static const struct config_choice never[] = { { "never", 0 }, { NULL, 0 } };

#define AT(member) offsetof(struct config, member)

static const struct config_key keys[] = {
    { "daemon", "log_level", CONFIG_TYPE_CHOICE, AT(daemon.log_level), 0, 0, log_levels, "notice",
      "error, warning, notice, info or debug." },
    { "daemon", "reactors", CONFIG_TYPE_NUMBER, AT(daemon.reactors), 1, REACTOR_COUNT_MAX,
      automatic, "auto", "Threads that serve I/O, 1 to 64; auto: one for each CPU." },
    { "daemon", "pin_reactors", CONFIG_TYPE_BOOL, AT(daemon.pin_reactors), 0, 0, NULL, "yes",
      "Keep each reactor on its own CPU." },
    { "daemon", "spin_us", CONFIG_TYPE_NUMBER, AT(daemon.spin_us), 0, 1000, NULL, "50",
      "How many microseconds a reactor that has nothing to do looks for work before it sleeps,\n"
      "at most; 0 saves power and costs latency." },
    { "daemon", "poll_us", CONFIG_TYPE_NUMBER, AT(daemon.poll_us), 0, 1000, NULL, "200",
      "The same while disks work for it: a disk answers soon, and to be woken takes tens of\n"
      "microseconds on many machines. Polls that do not pay become rare by themselves. 0: as\n"
      "spin_us." },
    { "daemon", "poll_percent", CONFIG_TYPE_NUMBER, AT(daemon.poll_percent), 1, 100, NULL, "80",
      "How much of its time a reactor may spend in this way at most." },
    { "daemon", "buffer_memory", CONFIG_TYPE_SIZE, AT(daemon.buffer_bytes), 64 * MIB, 64 * GIB,
      NULL, "64M", "Payload memory of each reactor." },
    { "daemon", "lock_memory", CONFIG_TYPE_CHOICE, AT(daemon.lock_memory), 0, 0, switches, "auto",
      "Keep the daemon from being swapped out, so that hosts on this machine that use its volumes\n"
      "cannot deadlock with it. auto: where permitted, with a warning otherwise; yes: do not\n"
      "start without." },
    { "daemon", "volatile_directory", CONFIG_TYPE_TEXT, AT(daemon.volatile_directory), 0, 0, NULL,
      "",
      "Where the volatile journals are. Must be on tmpfs and outlive the process, or writes that\n"
      "were acknowledged and not yet flushed are lost when the daemon is killed. Empty: a\n"
      "directory of its own in $RUNTIME_DIRECTORY, /run/volmgr or /dev/shm/volmgr-UID. In a\n"
      "container this must be a directory of the host." },
    { "daemon", "shutdown_timeout", CONFIG_TYPE_DURATION, AT(daemon.shutdown_timeout_ns), NS_PER_S,
      3600 * NS_PER_S, NULL, "60s",
      "How long an orderly end may take; after it the daemon exits as if killed, which loses no\n"
      "acknowledged write but makes the next start longer." },

    { "pool", "map_cache", CONFIG_TYPE_SIZE, AT(pool.map_cache_bytes), 8 * MIB, TIB, NULL, "128M",
      "Memory for volume maps, all reactors together." },
    { "pool", "metadata_cache", CONFIG_TYPE_SIZE, AT(pool.metadata_cache_bytes), MIB, TIB, NULL,
      "32M", "Memory for the cache of each pool's database." },
    { "pool", "ballast", CONFIG_TYPE_SIZE, AT(pool.ballast_bytes), 0, 16 * GIB, NULL, "64M",
      "Space that each pool keeps on the device of the state directory for the day on which it is\n"
      "full, so that discards, deletion and new disks still find room." },
    { "pool", "journal", CONFIG_TYPE_SIZE, AT(pool.journal_bytes), MIB, GIB, NULL, "8M",
      "Size of the volatile journal of each reactor and pool." },
    { "pool", "commit_interval", CONFIG_TYPE_DURATION, AT(pool.commit_interval_ns), 100 * NS_PER_MS,
      60 * NS_PER_S, NULL, "2s", "Longest time that a change of the map stays in memory." },
    { "pool", "disk_timeout", CONFIG_TYPE_DURATION, AT(pool.disk_timeout_ns), NS_PER_S,
      600 * NS_PER_S, NULL, "30s", "Deadline of a disk operation." },
    { "pool", "request_timeout", CONFIG_TYPE_DURATION, AT(pool.request_timeout_ns), NS_PER_S,
      600 * NS_PER_S, NULL, "60s", "Deadline of a host's request; not below disk_timeout." },

    { "api", "socket", CONFIG_TYPE_TEXT, AT(api.socket), 0, 0, NULL, "",
      "Path of the control socket. Empty: volmgrd.sock in the state directory." },
    { "api", "group", CONFIG_TYPE_TEXT, AT(api.group), 0, 0, NULL, "",
      "Group that may use the control socket, besides the daemon's own user. Empty: the daemon's\n"
      "own group. The group must also be able to enter the directory." },
    { "api", "listen", CONFIG_TYPE_LIST, AT(api.listen), 0, 0, NULL, "",
      "HOST:PORT to serve the management API at with TLS, such as 192.0.2.1:10808; may be\n"
      "repeated. Empty: the control socket only." },
    { "api", "tls_certificate", CONFIG_TYPE_TEXT, AT(api.tls_certificate), 0, 0, NULL, "",
      "PEM file with our certificate and its chain, for `listen`. SIGHUP reads the TLS files\n"
      "again." },
    { "api", "tls_key", CONFIG_TYPE_TEXT, AT(api.tls_key), 0, 0, NULL, "",
      "PEM file with the key of tls_certificate." },
    { "api", "tls_ca", CONFIG_TYPE_TEXT, AT(api.tls_ca), 0, 0, NULL, "",
      "PEM file with the authorities that clients' certificates are checked against." },
    { "api", "tls_crl", CONFIG_TYPE_TEXT, AT(api.tls_crl), 0, 0, NULL, "",
      "PEM file with revoked certificates of clients." },
    { "api", "tls_verify_client", CONFIG_TYPE_BOOL, AT(api.tls_verify_client), 0, 0, NULL, "yes",
      "Refuse clients without a certificate that tls_ca has signed. no: they may look, and\n"
      "change nothing." },
    { "api", "administrators", CONFIG_TYPE_LIST, AT(api.administrators), 0, 0, NULL, "",
      "Name in the certificate (CN) of a client that may do everything; may be repeated. Clients\n"
      "with other names may look then, and change nothing. Empty: every client with a good\n"
      "certificate may do everything." },
    { "api", "connections", CONFIG_TYPE_NUMBER, AT(api.connections), 4, 4096, NULL, "64",
      "Connections at one time." },
    { "api", "body_limit", CONFIG_TYPE_SIZE, AT(api.body_bytes), 4096, 4 * MIB, NULL, "1M",
      "Longest body of a request." },
    { "api", "idle_timeout", CONFIG_TYPE_DURATION, AT(api.idle_timeout_ns), NS_PER_S,
      3600 * NS_PER_S, NULL, "30s", "A connection that sends nothing is closed after this time." },

    { "nbd", "listen", CONFIG_TYPE_LIST, AT(nbd.listen), 0, 0, NULL, "",
      "HOST:PORT to serve NBD at, such as 192.0.2.1:10809 or [::]:10809; may be repeated.\n"
      "Empty: no TCP port." },
    { "nbd", "unix", CONFIG_TYPE_TEXT, AT(nbd.unix_path), 0, 0, NULL, "",
      "Path of the unix socket to serve NBD at. Empty: nbd.sock in the state directory; none: no\n"
      "unix socket." },
    { "nbd", "unix_mode", CONFIG_TYPE_MODE, AT(nbd.unix_mode), 1, 0777, NULL, "0600",
      "Permissions of the unix socket, in octal." },
    { "nbd", "tls", CONFIG_TYPE_CHOICE, AT(nbd.tls), 0, 0, tls_modes, "off",
      "TLS at the addresses of `listen`: off, optional or required." },
    { "nbd", "unix_tls", CONFIG_TYPE_CHOICE, AT(nbd.unix_tls), 0, 0, tls_modes, "off",
      "TLS at the unix socket." },
    { "nbd", "tls_certificate", CONFIG_TYPE_TEXT, AT(nbd.tls_certificate), 0, 0, NULL, "",
      "PEM file with our certificate and its chain. SIGHUP reads the TLS files again." },
    { "nbd", "tls_key", CONFIG_TYPE_TEXT, AT(nbd.tls_key), 0, 0, NULL, "",
      "PEM file with the key of tls_certificate." },
    { "nbd", "tls_ca", CONFIG_TYPE_TEXT, AT(nbd.tls_ca), 0, 0, NULL, "",
      "PEM file with the authorities that clients' certificates are checked against." },
    { "nbd", "tls_crl", CONFIG_TYPE_TEXT, AT(nbd.tls_crl), 0, 0, NULL, "",
      "PEM file with revoked certificates of clients." },
    { "nbd", "tls_verify_client", CONFIG_TYPE_BOOL, AT(nbd.tls_verify_client), 0, 0, NULL, "yes",
      "With tls_ca: refuse clients without a certificate that it has signed." },
    { "nbd", "tls_psk", CONFIG_TYPE_TEXT, AT(nbd.tls_psk), 0, 0, NULL, "",
      "File of pre-shared keys, lines of USER:HEXKEY as psktool writes them." },
    { "nbd", "tls_priority", CONFIG_TYPE_TEXT, AT(nbd.tls_priority), 0, 0, NULL, "",
      "GnuTLS priority string. Empty: the library's default." },
    { "nbd", "connections", CONFIG_TYPE_NUMBER, AT(nbd.connections), 1, 65536, NULL, "4096",
      "Connections at one time; more are closed at once." },
    { "nbd", "requests_per_connection", CONFIG_TYPE_NUMBER, AT(nbd.requests_per_connection), 1,
      4096, NULL, "128", "Requests of one connection that are worked on at one time." },
    { "nbd", "bytes_per_connection", CONFIG_TYPE_SIZE, AT(nbd.bytes_per_connection), 32 * MIB,
      1 * GIB, NULL, "32M", "Payload of one connection that is in memory at one time." },
    { "nbd", "handshake_timeout", CONFIG_TYPE_DURATION, AT(nbd.handshake_timeout_ns), NS_PER_S,
      600 * NS_PER_S, NULL, "10s", "From the connection to the choice of an export." },
    { "nbd", "stuck_timeout", CONFIG_TYPE_DURATION, AT(nbd.stuck_timeout_ns), NS_PER_S,
      3600 * NS_PER_S, NULL, "60s",
      "A client that holds memory and does not move for so long is closed when others wait." },
    { "nbd", "drain_timeout", CONFIG_TYPE_DURATION, AT(nbd.drain_timeout_ns), NS_PER_S,
      600 * NS_PER_S, NULL, "10s", "For replies to leave before we close a connection." },
    { "nbd", "idle_timeout", CONFIG_TYPE_DURATION, AT(nbd.idle_timeout_ns), NS_PER_S,
      86400 * NS_PER_S, never, "never", "Close a connection that asks nothing for so long." },
};

/* ---- values ---- */

int
config_parse_duration(const char *text, uint64_t *ret_ns)
{
    static const struct config_choice units[] = {
        { "", NS_PER_S },  { "ms", NS_PER_MS },    { "s", NS_PER_S },
        { "m", 60 * NS_PER_S }, { "h", 3600 * NS_PER_S },
    };
    uint64_t number = 0;
    if (!isdigit((unsigned char)*text)) {
        return -EINVAL;
    }
    for (; isdigit((unsigned char)*text); text++) {
        number = number * 10 + (uint64_t)(*text - '0');
        if (number > 1000000000) {
            return -ERANGE;
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strcmp(text, units[i].word) == 0) {
            uint64_t ns;
            if (__builtin_mul_overflow(number, units[i].value, &ns) || ns > INT64_MAX) {
                return -ERANGE;
            }
            *ret_ns = ns;
            return 0;
        }
    }
    return -EINVAL;
}

static int
parse_choice(const struct config_choice *choices, const char *text, uint64_t *ret_value)
{
    for (; choices != NULL && choices->word != NULL; choices++) {
        if (strcmp(choices->word, text) == 0) {
            *ret_value = choices->value;
            return 0;
        }
    }
    return -ENOENT;
}

static int
parse_number(const char *text, uint64_t *ret_value)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18 || text[digits] != '\0') {
        return -EINVAL;
    }
    *ret_value = strtoull(text, NULL, 10);
    return 0;
}

static int
parse_bool(const char *text, uint64_t *ret_value)
{
    static const struct config_choice words[] = {
        { "yes", 1 }, { "true", 1 }, { "on", 1 }, { "no", 0 },
        { "false", 0 }, { "off", 0 }, { NULL, 0 },
    };
    return parse_choice(words, text, ret_value) < 0 ? -EINVAL : 0;
}

static int
parse_mode(const char *text, uint64_t *ret_value)
{
    size_t digits = strspn(text, "01234567");
    if (digits == 0 || digits > 5 || text[digits] != '\0') {
        return -EINVAL;
    }
    *ret_value = strtoull(text, NULL, 8);
    return 0;
}

static int
bad_choice(const struct config_key *key, const char *text, struct error *error)
{
    char list[256] = "";
    for (const struct config_choice *choice = key->choices; choice->word != NULL; choice++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", choice->word);
    }
    return error_set(error, -EINVAL, "%s: \"%s\" is not one of: %s", key->name, text, list);
}

static int
set_scalar(uint64_t *value, const struct config_key *key, const char *text, struct error *error)
{
    static const char *const kinds[] = {
        [CONFIG_TYPE_SIZE] = "a size such as 512M or 10G",
        [CONFIG_TYPE_NUMBER] = "a number",
        [CONFIG_TYPE_DURATION] = "a time such as 500ms, 30s or 2m",
        [CONFIG_TYPE_BOOL] = "yes or no",
        [CONFIG_TYPE_MODE] = "permission bits in octal, such as 0660",
    };
    uint64_t parsed = 0;
    int result = parse_choice(key->choices, text, &parsed);
    if (result == 0) {
        *value = parsed;
        return 0;
    }
    switch (key->type) {
    case CONFIG_TYPE_CHOICE:
        return bad_choice(key, text, error);
    case CONFIG_TYPE_SIZE:
        result = size_parse(text, &parsed);
        break;
    case CONFIG_TYPE_NUMBER:
        result = parse_number(text, &parsed);
        break;
    case CONFIG_TYPE_DURATION:
        result = config_parse_duration(text, &parsed);
        break;
    case CONFIG_TYPE_BOOL:
        result = parse_bool(text, &parsed);
        break;
    case CONFIG_TYPE_MODE:
        result = parse_mode(text, &parsed);
        break;
    default:
        UNREACHABLE();
    }
    if (result < 0) {
        return error_set(error, -EINVAL, "%s: \"%s\" is not %s", key->name, text,
                         kinds[key->type]);
    }
    if (key->maximum != 0 && (parsed < key->minimum || parsed > key->maximum)) {
        const char *unit = key->type == CONFIG_TYPE_DURATION ? " ns"
                           : key->type == CONFIG_TYPE_SIZE   ? " bytes"
                                                             : "";
        return error_set(error, -EINVAL, "%s: \"%s\" is not within %" PRIu64 " to %" PRIu64 "%s",
                         key->name, text, key->minimum, key->maximum, unit);
    }
    *value = parsed;
    return 0;
}

static int
set_value(struct config *config, const struct config_key *key, const char *text,
          struct error *error)
{
    char *at = (char *)config + key->offset;
    if (key->type != CONFIG_TYPE_TEXT && key->type != CONFIG_TYPE_LIST) {
        return set_scalar((uint64_t *)(void *)at, key, text, error);
    }
    if (strlen(text) >= CONFIG_TEXT_SIZE) {
        return error_set(error, -EINVAL, "%s: the value is longer than %d bytes", key->name,
                         CONFIG_TEXT_SIZE - 1);
    }
    if (key->type == CONFIG_TYPE_LIST) {
        struct config_list *list = (struct config_list *)(void *)at;
        if (*text == '\0') {
            return error_set(error, -EINVAL, "%s: the value is empty", key->name);
        }
        if (list->count == CONFIG_LIST_MAX) {
            return error_set(error, -EINVAL, "%s is given more than %d times", key->name,
                             CONFIG_LIST_MAX);
        }
        at = list->items[list->count++];
    }
    snprintf(at, CONFIG_TEXT_SIZE, "%s", text);
    return 0;
}

void
config_default(struct config *config)
{
    memset(config, 0, sizeof(*config));
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (keys[i].type != CONFIG_TYPE_LIST) {
            int result = set_value(config, &keys[i], keys[i].initial, NULL);
            ASSERT_OP(result, ==, 0);
        }
    }
}

/* ---- the file ---- */

struct config_parser {
    struct config *config;
    const char *name;
    unsigned line;
    char section[64];
    bool seen[ARRAY_SIZE(keys)];
    struct error *error;
};

static char *
trim(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        text[--length] = '\0';
    }
    return text;
}

static int
parse_section(struct config_parser *parser, char *text)
{
    size_t length = strlen(text);
    ASSERT(text[0] == '[');
    if (text[length - 1] != ']') {
        return error_set(parser->error, -EINVAL, "a section must be written as [NAME]");
    }
    text[length - 1] = '\0';
    const char *wanted = trim(text + 1);
    const char *nearest = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(keys[i].section, wanted) == 0) {
            snprintf(parser->section, sizeof(parser->section), "%s", keys[i].section);
            return 0;
        }
        suggest_consider(wanted, keys[i].section, &nearest);
    }
    return error_set(parser->error, -EINVAL, "unknown section [%.60s]%s%s%s", wanted,
                     nearest != NULL ? "; did you mean [" : "", nearest != NULL ? nearest : "",
                     nearest != NULL ? "]?" : "");
}

static int
parse_assignment(struct config_parser *parser, char *text)
{
    char *equals = strchr(text, '=');
    if (equals == NULL) {
        return error_set(parser->error, -EINVAL, "expected KEY = VALUE, [SECTION] or # comment");
    }
    *equals = '\0';
    const char *name = trim(text);
    const char *value = trim(equals + 1);
    if (parser->section[0] == '\0') {
        return error_set(parser->error, -EINVAL, "%.60s: a [SECTION] must come first", name);
    }
    const char *nearest = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(keys[i].section, parser->section) != 0) {
            continue;
        }
        suggest_consider(name, keys[i].name, &nearest);
        if (strcmp(keys[i].name, name) != 0) {
            continue;
        }
        if (parser->seen[i] && keys[i].type != CONFIG_TYPE_LIST) {
            return error_set(parser->error, -EINVAL, "%s is given twice", name);
        }
        parser->seen[i] = true;
        return set_value(parser->config, &keys[i], value, parser->error);
    }
    return error_set(parser->error, -EINVAL, "unknown key \"%.60s\" in [%s]%s%s%s", name,
                     parser->section, nearest != NULL ? "; did you mean \"" : "",
                     nearest != NULL ? nearest : "", nearest != NULL ? "\"?" : "");
}

static int
parse_line(struct config_parser *parser, char *line)
{
    for (const unsigned char *at = (const unsigned char *)line; *at != '\0'; at++) {
        if ((*at < 0x20 && *at != '\t' && *at != '\r') || *at == 0x7f) {
            return error_set(parser->error, -EINVAL, "control characters");
        }
    }
    char *text = trim(line);
    if (*text == '\0' || *text == '#' || *text == ';') {
        return 0;
    }
    return *text == '[' ? parse_section(parser, text) : parse_assignment(parser, text);
}

int
config_parse(struct config *config, const char *name, const char *text, size_t length,
             struct error *error)
{
    struct error line_error = { 0 };
    struct config_parser parser = { .config = config, .name = name, .error = &line_error };
    size_t position = 0;
    while (position < length) {
        char line[2 * CONFIG_TEXT_SIZE];
        const char *start = text + position;
        const char *end = memchr(start, '\n', length - position);
        size_t line_bytes = end != NULL ? (size_t)(end - start) : length - position;
        parser.line++;
        position += line_bytes + 1;
        int result;
        if (line_bytes >= sizeof(line)) {
            result = error_set(&line_error, -EINVAL, "the line is longer than %zu bytes",
                               sizeof(line) - 1);
        } else if (memchr(start, '\0', line_bytes) != NULL) {
            result = error_set(&line_error, -EINVAL, "a NUL byte");
        } else {
            memcpy(line, start, line_bytes);
            line[line_bytes] = '\0';
            result = parse_line(&parser, line);
        }
        if (result < 0) {
            return error_set(error, result, "%s:%u: %s", name, parser.line, line_error.message);
        }
    }
    return 0;
}

int
config_load(struct config *config, const char *path, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_set(error, -errno, "cannot read the configuration %s: %s", path,
                         error_name(errno));
    }
    char *text = malloc(CONFIG_FILE_BYTES_MAX + 1);
    ASSERT(text != NULL);
    size_t length = 0;
    int result = 0;
    while (length <= CONFIG_FILE_BYTES_MAX) {
        ssize_t got = read(fd, text + length, CONFIG_FILE_BYTES_MAX + 1 - length);
        if (got < 0 && errno != EINTR) {
            result = error_set(error, -errno, "cannot read the configuration %s: %s", path,
                               error_name(errno));
            break;
        }
        if (got == 0) {
            break;
        }
        length += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (result == 0 && length > CONFIG_FILE_BYTES_MAX) {
        result = error_set(error, -EFBIG, "%s is longer than %d bytes", path,
                           CONFIG_FILE_BYTES_MAX);
    }
    if (result == 0) {
        result = config_parse(config, path, text, length, error);
    }
    free(text);
    return result;
}

int
config_check(const struct config *config, struct error *error)
{
    if (config->pool.request_timeout_ns < config->pool.disk_timeout_ns) {
        return error_set(error, -EINVAL, "[pool] request_timeout is below disk_timeout: a request "
                                         "would be given up before its disk");
    }
    if (config->api.listen.count > 0 &&
        (config->api.tls_certificate[0] == '\0' || config->api.tls_key[0] == '\0')) {
        return error_set(error, -EINVAL,
                         "[api] listen needs tls_certificate and tls_key: there is no API by TCP "
                         "without TLS");
    }
    if (config->api.listen.count > 0 && config->api.tls_verify_client &&
        config->api.tls_ca[0] == '\0') {
        return error_set(error, -EINVAL,
                         "[api] listen needs tls_ca, to know clients by their certificates (or "
                         "tls_verify_client = no, to let everybody look)");
    }
    bool unix_socket = strcmp(config->nbd.unix_path, "none") != 0;
    bool tls = (config->nbd.tls != NBD_TLS_OFF && config->nbd.listen.count > 0) ||
               (config->nbd.unix_tls != NBD_TLS_OFF && unix_socket);
    bool certificate = config->nbd.tls_certificate[0] != '\0';
    if (certificate != (config->nbd.tls_key[0] != '\0')) {
        return error_set(error, -EINVAL,
                         "[nbd] tls_certificate and tls_key must be given together");
    }
    if (tls && !certificate && config->nbd.tls_psk[0] == '\0') {
        return error_set(error, -EINVAL,
                         "[nbd] TLS is wanted, but there is neither tls_certificate nor tls_psk");
    }
    return 0;
}

/* ---- the reference ---- */

static void
print_comment(FILE *to, const char *text)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        fprintf(to, "# %.*s\n", (int)length, text);
        text += length;
        text += *text == '\n';
    }
}

void
config_print(FILE *to)
{
    fprintf(to, "# Configuration of volmgrd. Each key is shown with its built-in value.\n"
                "# Sizes are written as 512M or 10G, times as 500ms, 30s, 2m or 1h.\n");
    const char *section = "";
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(section, keys[i].section) != 0) {
            section = keys[i].section;
            fprintf(to, "\n[%s]\n", section);
        }
        fprintf(to, "\n");
        print_comment(to, keys[i].help);
        fprintf(to, "#%s =%s%s\n", keys[i].name, keys[i].initial[0] != '\0' ? " " : "",
                keys[i].initial);
    }
}
