/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/export_access.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "io/ip_address.h"

static const char local_word[] = "local";
static const char name_prefix[] = "tls:";

const char *
export_tls_name(enum export_tls tls)
{
    static const char *const names[] = { "allowed", "required", "off" };
    ASSERT_OP((size_t)tls, <, ARRAY_SIZE(names));
    return names[tls];
}

bool
export_tls_parse(const char *text, enum export_tls *ret_tls)
{
    for (int tls = EXPORT_TLS_ALLOWED; tls <= EXPORT_TLS_OFF; tls++) {
        if (strcmp(text, export_tls_name((enum export_tls)tls)) == 0) {
            *ret_tls = (enum export_tls)tls;
            return true;
        }
    }
    return false;
}

/* ---- addresses ---- */

static bool
bits_equal(const uint8_t *left, const uint8_t *right, unsigned bits)
{
    unsigned rest = bits % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);

    ASSERT_OP(bits, <=, 128u);
    return memcmp(left, right, bits / 8) == 0 &&
           (rest == 0 || ((left[bits / 8] ^ right[bits / 8]) & mask) == 0);
}

/* Whether no bit is set behind the first `bits`. */
static bool
is_network(const uint8_t address[static 16], unsigned bits)
{
    uint8_t network[16] = { 0 };

    ASSERT_OP(bits, <=, 128u);
    memcpy(network, address, bits / 8);
    if (bits % 8 != 0) {
        network[bits / 8] = address[bits / 8] & (uint8_t)(0xff00u >> (bits % 8));
    }
    return memcmp(network, address, sizeof(network)) == 0;
}

static int
network_parse(const char *text, struct export_host *host, struct error *error)
{
    char copy[IP_ADDRESS_TEXT_SIZE + 8];
    struct ip_address address;

    if (strlen(text) >= sizeof(copy)) {
        return error_set(error, -EINVAL, "\"%.60s\" is not an address or network", text);
    }
    snprintf(copy, sizeof(copy), "%s", text);
    char *slash = strchr(copy, '/');
    const char *bits_text = slash != NULL ? slash + 1 : "";
    if (slash != NULL) {
        *slash = '\0';
    }
    if (!ip_address_parse(copy, &address)) {
        return error_set(error, -EINVAL, "\"%s\" is not an address or network such as 192.0.2.7, "
                                         "10.0.0.0/8 or 2001:db8::/32",
                         text);
    }
    unsigned long bits_max = address.ipv4 ? 32 : 128;
    unsigned long bits = slash != NULL ? strtoul(bits_text, NULL, 10) : bits_max;
    size_t digits = strspn(bits_text, "0123456789");
    if (slash != NULL && (digits == 0 || digits > 3 || bits_text[digits] != '\0' ||
                          bits > bits_max)) {
        return error_set(error, -EINVAL, "\"%s\": what is behind / must be a number from 0 to %lu",
                         text, bits_max);
    }
    if (!is_network(address.bytes, (unsigned)bits)) {
        return error_set(error, -EINVAL,
                         "\"%s\" is not a network: its address has bits behind the first %lu", text,
                         bits);
    }
    host->kind = EXPORT_HOST_NETWORK;
    host->ipv4 = address.ipv4;
    host->prefix_bits = (uint8_t)bits;
    memcpy(host->address, address.bytes, sizeof(host->address));
    return 0;
}

/* ---- one host ---- */

/* Text that somebody may have meant as an address, and mistyped, is not a name. */
static bool
looks_like_address(const char *text)
{
    return strchr(text, '/') != NULL || strchr(text, ':') != NULL ||
           text[strspn(text, "0123456789.")] == '\0';
}

int
export_host_parse(const char *text, struct export_host *ret_host, struct error *error)
{
    struct export_host host = { 0 };
    size_t prefix_bytes = sizeof(name_prefix) - 1;
    bool named = strncmp(text, name_prefix, prefix_bytes) == 0;
    const char *name = named ? text + prefix_bytes : text;

    if (strcmp(text, local_word) == 0) {
        host.kind = EXPORT_HOST_LOCAL;
    } else if (!named && looks_like_address(text)) {
        int result = network_parse(text, &host, error);
        if (result < 0) {
            return result;
        }
    } else if (*name == '\0' || strlen(name) >= sizeof(host.name)) {
        return error_set(error, -EINVAL, "\"%.60s\": a name has 1 to %d bytes", text,
                         EXPORT_IDENTITY_SIZE - 1);
    } else {
        host.kind = EXPORT_HOST_NAME;
        snprintf(host.name, sizeof(host.name), "%s", name);
    }
    *ret_host = host;
    return 0;
}

const char *
export_host_format(const struct export_host *host, char text[static EXPORT_HOST_TEXT_SIZE])
{
    struct ip_address address = { .ipv4 = host->ipv4 };
    char network[IP_ADDRESS_TEXT_SIZE];

    switch (host->kind) {
    case EXPORT_HOST_LOCAL:
        snprintf(text, EXPORT_HOST_TEXT_SIZE, "%s", local_word);
        break;
    case EXPORT_HOST_NAME:
        snprintf(text, EXPORT_HOST_TEXT_SIZE, "%s%s", name_prefix, host->name);
        break;
    case EXPORT_HOST_NETWORK:
        memcpy(address.bytes, host->address, sizeof(address.bytes));
        ip_address_format(&address, network);
        if (host->prefix_bits == (host->ipv4 ? 32 : 128)) {
            snprintf(text, EXPORT_HOST_TEXT_SIZE, "%s", network);
        } else {
            snprintf(text, EXPORT_HOST_TEXT_SIZE, "%s/%u", network, (unsigned)host->prefix_bits);
        }
        break;
    }
    return text;
}

bool
export_host_equals(const struct export_host *left, const struct export_host *right)
{
    if (left->kind != right->kind) {
        return false;
    }
    if (left->kind == EXPORT_HOST_NAME) {
        return strcmp(left->name, right->name) == 0;
    }
    return left->kind == EXPORT_HOST_LOCAL ||
           (left->ipv4 == right->ipv4 && left->prefix_bits == right->prefix_bits &&
            memcmp(left->address, right->address, sizeof(left->address)) == 0);
}

/* ---- the options ---- */

static bool
is_plain(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || (byte != '\0' && strchr("-._@:/*+,", byte) != NULL);
}

/* Append to the text of *used bytes; false: no room. */
static bool
append(char options[static EXPORT_OPTIONS_SIZE], size_t *used, const char *word, const char *value)
{
    size_t word_bytes = strlen(word);
    size_t at = *used;

    if (at + 1 + word_bytes >= EXPORT_OPTIONS_SIZE) {
        return false;
    }
    if (at > 0) {
        options[at++] = ' ';
    }
    memcpy(options + at, word, word_bytes);
    at += word_bytes;
    for (; *value != '\0'; value++) {
        if (at + 4 > EXPORT_OPTIONS_SIZE) {
            return false;
        }
        if (is_plain(*value)) {
            options[at++] = *value;
        } else {
            at += (size_t)snprintf(options + at, 4, "%%%02X", (unsigned)(unsigned char)*value);
        }
    }
    options[at] = '\0';
    *used = at;
    return true;
}

int
export_access_format(const struct export_access *access,
                     char options[static EXPORT_OPTIONS_SIZE], struct error *error)
{
    char text[EXPORT_OPTIONS_SIZE] = "";
    size_t used = 0;
    bool fits = true;

    ASSERT_OP(access->host_count, <=, (uint32_t)EXPORT_HOSTS_MAX);
    ASSERT(!access->nobody);
    if (access->tls != EXPORT_TLS_ALLOWED) {
        fits = append(text, &used, "tls=", export_tls_name(access->tls));
    }
    if (access->is_default) {
        fits = fits && append(text, &used, "default", "");
    }
    for (uint32_t i = 0; i < access->host_count; i++) {
        char host[EXPORT_HOST_TEXT_SIZE];
        fits = fits && append(text, &used, "host=", export_host_format(&access->hosts[i], host));
    }
    if (!fits) {
        return error_set(error, -E2BIG, "the names of the hosts are too long together");
    }
    memcpy(options, text, sizeof(text));
    return 0;
}

static int
hex_digit(char byte)
{
    const char *digits = "0123456789ABCDEF";
    const char *at = byte != '\0' ? strchr(digits, byte) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* Undo the %XX; `to` has as much room as `from` has bytes, and one more. */
static bool
unescape(const char *from, size_t length, char *to)
{
    for (size_t i = 0; i < length; i++) {
        if (from[i] == '%' && length - i > 2) {
            int high = hex_digit(from[i + 1]);
            int low = hex_digit(from[i + 2]);
            if (high < 0 || low < 0 || high + low == 0) {
                return false;
            }
            *to++ = (char)(high * 16 + low);
            i += 2;
        } else if (is_plain(from[i])) {
            *to++ = from[i];
        } else {
            return false;
        }
    }
    *to = '\0';
    return true;
}

/* One word; false: not understood. */
static bool
take_word(struct export_access *access, const char *word, size_t length)
{
    char text[EXPORT_OPTIONS_SIZE];

    if (length == 7 && memcmp(word, "default", 7) == 0) {
        bool again = access->is_default;
        access->is_default = true;
        return !again;
    }
    if (length > 4 && memcmp(word, "tls=", 4) == 0) {
        bool again = access->tls != EXPORT_TLS_ALLOWED;
        return unescape(word + 4, length - 4, text) && !again &&
               export_tls_parse(text, &access->tls);
    }
    if (length > 5 && memcmp(word, "host=", 5) == 0) {
        return access->host_count < EXPORT_HOSTS_MAX && unescape(word + 5, length - 5, text) &&
               export_host_parse(text, &access->hosts[access->host_count++], NULL) == 0;
    }
    return false;
}

int
export_access_parse(const char *options, struct export_access *ret_access)
{
    struct export_access access = { 0 };
    size_t left = strnlen(options, EXPORT_OPTIONS_SIZE);
    bool understood = left < EXPORT_OPTIONS_SIZE;

    while (understood && *options != '\0') {
        size_t length = strcspn(options, " ");
        understood = length > 0 && take_word(&access, options, length);
        options += length;
        if (*options == ' ') {
            options++;
            understood = understood && *options != '\0';
        }
    }
    if (!understood) {
        *ret_access = (struct export_access){ .nobody = true };
        return -EUCLEAN;
    }
    *ret_access = access;
    return 0;
}

/* ---- judging ---- */

/* The address of "tcp:HOST:PORT", where HOST may be [HOST] and may have a zone behind %. */
static bool
peer_address(const char *peer, struct ip_address *ret_address)
{
    char host[IP_ADDRESS_TEXT_SIZE + 2];

    if (strncmp(peer, "tcp:", 4) != 0) {
        return false;
    }
    peer += 4;
    size_t length = *peer == '[' ? strcspn(++peer, "]%") : strcspn(peer, ":%");
    if (length >= sizeof(host)) {
        return false;
    }
    memcpy(host, peer, length);
    host[length] = '\0';
    return ip_address_parse(host, ret_address);
}

static bool
host_matches(const struct export_host *host, const struct export_client *client)
{
    struct ip_address address;

    switch (host->kind) {
    case EXPORT_HOST_LOCAL:
        return strncmp(client->peer, "unix", 4) == 0;
    case EXPORT_HOST_NAME:
        return client->identity[0] != '\0' &&
               (strcmp(host->name, "*") == 0 || strcmp(host->name, client->identity) == 0);
    case EXPORT_HOST_NETWORK:
        return peer_address(client->peer, &address) && address.ipv4 == host->ipv4 &&
               bits_equal(address.bytes, host->address, host->prefix_bits);
    }
    return false;
}

int
export_access_judge(const struct export_access *access, const struct export_client *client)
{
    bool names_only = access->host_count > 0;

    ASSERT_OP(access->host_count, <=, (uint32_t)EXPORT_HOSTS_MAX);
    if (access->nobody || (access->tls == EXPORT_TLS_OFF && client->tls)) {
        return -EACCES;
    }
    if (access->tls == EXPORT_TLS_REQUIRED && !client->tls) {
        return -ENOKEY;
    }
    for (uint32_t i = 0; i < access->host_count; i++) {
        if (host_matches(&access->hosts[i], client)) {
            return 0;
        }
        names_only = names_only && access->hosts[i].kind == EXPORT_HOST_NAME;
    }
    if (access->host_count == 0) {
        return 0;
    }
    /* Names can be proved by TLS only: it is a TLS-only export. */
    return names_only && !client->tls ? -ENOKEY : -EACCES;
}
