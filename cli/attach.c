/* SPDX-License-Identifier: Apache-2.0 */
/* What to paste on a host: made from the exports of a volume and the daemon's listeners. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "base/byte_buffer.h"
#include "cli/cli.h"

enum {
    ATTACH_TEXT_SIZE = 300,
};

struct target {
    const char *export_name;
    const char *path; /* of a unix socket; NULL: TCP */
    char host[ATTACH_TEXT_SIZE];
    char port[8];
    bool tls;         /* used */
    bool read_only;
    char uri[3 * ATTACH_TEXT_SIZE];
    char node[32]; /* a name for QEMU's block node */
};

static void
append_uri(char *uri, size_t size, const char *text, const char *keep)
{
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                     "0123456789-._~";
    size_t used = strlen(uri);
    for (; *text != '\0' && used + 4 < size; text++) {
        bool plain = strchr(unreserved, *text) != NULL || strchr(keep, *text) != NULL;
        used += (size_t)snprintf(uri + used, size - used, plain ? "%c" : "%%%02X",
                                 (unsigned char)*text);
    }
}

static void
make_uri(struct target *target)
{
    bool six = strchr(target->host, ':') != NULL;
    if (target->path != NULL) {
        snprintf(target->uri, sizeof(target->uri), "nbd%s+unix:///", target->tls ? "s" : "");
        append_uri(target->uri, sizeof(target->uri), target->export_name, "/");
        append_uri(target->uri, sizeof(target->uri), "?socket=", "?=");
        append_uri(target->uri, sizeof(target->uri), target->path, "/");
        return;
    }
    snprintf(target->uri, sizeof(target->uri), "nbd%s://%s%s%s:%s/", target->tls ? "s" : "",
             six ? "[" : "", target->host, six ? "]" : "", target->port);
    append_uri(target->uri, sizeof(target->uri), target->export_name, "/");
}

/* "unix:PATH" or "tcp:HOST:PORT", HOST perhaps in brackets. False: neither. */
static bool
take_address(struct target *target, const char *address, const char *our_host)
{
    if (strncmp(address, "unix:", 5) == 0) {
        target->path = address + 5;
        return true;
    }
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "tcp:", 4) != 0 || colon < address + 4) {
        return false;
    }
    const char *start = address + 4;
    int length = (int)(colon - start);
    if (length >= 2 && start[0] == '[') {
        start++;
        length -= 2;
    }
    snprintf(target->host, sizeof(target->host), "%.*s", length, start);
    snprintf(target->port, sizeof(target->port), "%s", colon + 1);
    if (target->host[0] == '\0' || strcmp(target->host, "0.0.0.0") == 0 ||
        strcmp(target->host, "::") == 0) {
        snprintf(target->host, sizeof(target->host), "%s", our_host);
    }
    return true;
}

/* ---- one client each ---- */

/* QEMU's option syntax: a comma in a value is written twice. */
static void
qemu_value(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        fprintf(to, *text == ',' ? ",," : "%c", *text);
    }
}

static void
qemu_blockdev(FILE *to, const struct target *target)
{
    fprintf(to, "driver=nbd,node-name=%s,", target->node);
    if (target->path != NULL) {
        fprintf(to, "server.type=unix,server.path=");
        qemu_value(to, target->path);
    } else {
        fprintf(to, "server.type=inet,server.host=");
        qemu_value(to, target->host);
        fprintf(to, ",server.port=%s", target->port);
    }
    fprintf(to, ",export=");
    qemu_value(to, target->export_name);
    if (target->tls) {
        fprintf(to, ",tls-creds=tls0");
    }
    if (target->read_only) {
        fprintf(to, ",read-only=on");
    }
    fprintf(to, ",discard=unmap,reconnect-delay=300");
}

static void
print_qemu(FILE *to, const struct target *target)
{
    if (target->tls) {
        fprintf(to, "-object 'tls-creds-x509,id=tls0,endpoint=client,dir=/etc/pki/qemu' \\\n");
    }
    fprintf(to, "-blockdev '");
    qemu_blockdev(to, target);
    fprintf(to, "' \\\n-device virtio-blk-pci,drive=%s\n", target->node);
}

static void
print_proxmox(FILE *to, const struct target *target)
{
    fprintf(to, "# VMID is the number of the guest\nqm set VMID --args \"");
    if (target->tls) {
        fprintf(to, "-object tls-creds-x509,id=tls0,endpoint=client,dir=/etc/pki/qemu ");
    }
    fprintf(to, "-blockdev ");
    qemu_blockdev(to, target);
    fprintf(to, " -device virtio-blk-pci,drive=%s\"\n", target->node);
}

static void
xml_value(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", to);
            break;
        case '<':
            fputs("&lt;", to);
            break;
        case '\'':
            fputs("&apos;", to);
            break;
        default:
            fputc(*text, to);
        }
    }
}

static void
print_libvirt(FILE *to, const struct target *target)
{
    fprintf(to, "<disk type='network' device='disk'>\n"
                "  <driver name='qemu' type='raw' cache='none' discard='unmap'/>\n"
                "  <source protocol='nbd' name='");
    xml_value(to, target->export_name);
    fprintf(to, "'%s>\n    <host ", target->tls ? " tls='yes'" : "");
    if (target->path != NULL) {
        fprintf(to, "transport='unix' socket='");
        xml_value(to, target->path);
        fprintf(to, "'/>\n");
    } else {
        fprintf(to, "name='");
        xml_value(to, target->host);
        fprintf(to, "' port='%s'/>\n", target->port);
    }
    fprintf(to, "    <reconnect delay='300'/>\n  </source>\n"
                "  <target dev='vdb' bus='virtio'/>\n");
    fprintf(to, "%s</disk>\n", target->read_only ? "  <readonly/>\n" : "");
}

static void
print_nbd_client(FILE *to, const struct target *target)
{
    fprintf(to, "# as root; any free /dev/nbdN\nmodprobe nbd\nnbd-client ");
    if (target->path != NULL) {
        fprintf(to, "-unix '%s' /dev/nbd0", target->path);
    } else {
        fprintf(to, "'%s' %s /dev/nbd0", target->host, target->port);
    }
    fprintf(to, " -name '%s' -block-size 4096 -timeout 300 -persist%s", target->export_name,
            target->read_only ? " -readonly" : "");
    if (target->tls) {
        fprintf(to, " -certfile CERT.pem -keyfile KEY.pem -cacertfile CA.pem");
    }
    fputc('\n', to);
}

static void
print_qemu_img(FILE *to, const struct target *target)
{
    if (!target->tls) {
        fprintf(to, "qemu-img info '%s'\n", target->uri);
        return;
    }
    fprintf(to, "qemu-img info --object tls-creds-x509,id=tls0,endpoint=client,dir=/etc/pki/qemu "
                "--image-opts '");
    qemu_blockdev(to, target);
    fprintf(to, "'\n");
}

static void
print_nbdinfo(FILE *to, const struct target *target)
{
    fprintf(to, "nbdinfo '%s'\n", target->uri);
}

struct client {
    const char *name;
    void (*print)(FILE *to, const struct target *target);
};

static const struct client clients[] = {
    { "qemu", print_qemu },         { "libvirt", print_libvirt },
    { "nbd-client", print_nbd_client }, { "proxmox", print_proxmox },
    { "qemu-img", print_qemu_img }, { "nbdinfo", print_nbdinfo },
};

/* ---- putting it together ---- */

static const char *
member_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

/* One export at one address, for one client or all. */
static void
print_target(struct cli *cli, const struct target *target, const char *address,
             const char *wanted, json_t *list)
{
    for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
        if (wanted != NULL && strcmp(wanted, clients[i].name) != 0) {
            continue;
        }
        char *text = NULL;
        size_t length = 0;
        FILE *memory = open_memstream(&text, &length);
        ASSERT(memory != NULL);
        clients[i].print(memory, target);
        fclose(memory);
        if (list != NULL) {
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "client",
                                                  clients[i].name, "export", target->export_name,
                                                  "address", address, "uri", target->uri, "text",
                                                  text));
        } else {
            fprintf(cli->out, "# %s, %s at %s\n%s\n", clients[i].name, target->export_name,
                    address, text);
        }
        free(text);
    }
}

struct attach {
    struct cli *cli;
    const char *volume;
    const char *wanted;
    const char *host;
    json_t *list; /* NULL: print */
    unsigned found;
};

/* Whether hosts can use the export at an address with this TLS, and whether they use TLS then. */
static bool
tls_fits(const json_t *export, const json_t *listener, bool *ret_tls)
{
    const char *wanted = member_text(export, "tls");
    const char *offered = member_text(listener, "tls");
    *ret_tls = strcmp(offered, "required") == 0 || strcmp(wanted, "required") == 0;
    return !(strcmp(wanted, "required") == 0 && strcmp(offered, "off") == 0) &&
           !(strcmp(wanted, "off") == 0 && strcmp(offered, "required") == 0);
}

static void
print_export(struct attach *attach, const json_t *export, const json_t *listeners)
{
    size_t index;
    json_t *listener;
    const char *protocol = member_text(export, "protocol");
    json_array_foreach(listeners, index, listener)
    {
        const char *address = member_text(listener, "address");
        struct target target = {
            .export_name = member_text(export, "name"),
            .read_only = json_is_true(json_object_get(export, "read_only")),
        };
        if (strcmp(member_text(listener, "protocol"), protocol) != 0 ||
            !tls_fits(export, listener, &target.tls) ||
            !take_address(&target, address, attach->host)) {
            continue;
        }
        make_uri(&target);
        /* QEMU wants letters, digits and -._ in a node's name, and at most 31 of them. */
        snprintf(target.node, sizeof(target.node), "v%s", strchr(attach->volume, '/') + 1);
        char *at = strchr(target.node, '@');
        if (at != NULL) {
            *at = '.';
        }
        print_target(attach->cli, &target, address, attach->wanted, attach->list);
        attach->found++;
    }
}

static enum cli_exit
print_all(struct attach *attach, const json_t *exports, const json_t *listeners)
{
    size_t index;
    json_t *export;
    unsigned exported = 0;
    json_array_foreach(exports, index, export)
    {
        if (strcmp(member_text(export, "volume"), attach->volume) == 0) {
            print_export(attach, export, listeners);
            exported++;
        }
    }
    char what[320];
    char remedy[320];
    snprintf(what, sizeof(what), "cannot attach %s", attach->volume);
    if (exported == 0) {
        snprintf(remedy, sizeof(remedy), "volctl export %s nbd", attach->volume);
        return cli_fail(attach->cli, what, "it is not exported", remedy, -ENOENT);
    }
    if (attach->found == 0) {
        return cli_fail(attach->cli, what,
                        json_array_size(listeners) > 0
                            ? "the daemon listens at no address that fits the export's TLS rule"
                            : "the daemon listens at no address",
                        "Start volmgrd with --nbd HOST:PORT or --nbd-unix PATH; [nbd] tls and "
                        "unix_tls of its configuration say where TLS is offered.",
                        -ENOENT);
    }
    return CLI_OK;
}

enum cli_exit
cli_attach(struct cli *cli, const struct api_arguments *arguments)
{
    struct cli_reply exports = { 0 };
    struct cli_reply status = { 0 };
    char host[256] = "localhost";
    const char *wanted = api_text(arguments, "for");
    if (wanted != NULL && strcmp(wanted, "iscsiadm") == 0) {
        return cli_fail(cli, "cannot attach by iSCSI", "this daemon offers NBD only",
                        "Use --for nbd-client on Linux hosts, or --for qemu.", -EOPNOTSUPP);
    }
    enum cli_exit result = cli_get(cli, API_EXPORT_LIST, &exports);
    if (result == CLI_OK) {
        result = cli_get(cli, API_STATUS, &status);
    }
    if (result == CLI_OK) {
        gethostname(host, sizeof(host) - 1);
        struct attach attach = {
            .cli = cli,
            .volume = api_text(arguments, "volume"),
            .wanted = wanted,
            .host = api_present(arguments, "host") ? api_text(arguments, "host") : host,
            .list = cli->json ? json_array() : NULL,
        };
        result = print_all(&attach, json_object_get(exports.json, "exports"),
                           json_object_get(status.json, "listeners"));
        if (result == CLI_OK && cli->json) {
            json_t *body = json_pack("{s:O}", "attach", attach.list);
            json_dumpf(body, cli->out, JSON_COMPACT);
            fputc('\n', cli->out);
            json_decref(body);
        }
        json_decref(attach.list);
    }
    cli_reply_free(&exports);
    cli_reply_free(&status);
    return result;
}
