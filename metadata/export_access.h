/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use an export, as it stands in the `options` of its record (docs/FORMAT.md 2.4).
 *
 * The text is a sequence of words separated by one space, each at most once but `host`:
 *
 *     tls=required | tls=off     without the word: with or without TLS, as the host likes
 *     default                    found by hosts that name no export
 *     host=HOST                  only these hosts; without the word: all that reach a listener
 *
 * HOST is a network ("10.0.0.0/8", "2001:db8::/32", one address), "local" (a unix socket), or
 * "tls:NAME": a host that has proved that name by a certificate or a pre-shared key, "tls:*": any
 * that has proved one. Bytes of NAME other than letters, digits and - . _ @ : / * + , become %XX.
 * A host needs to be one of them only.
 *
 * All functions are pure and may be called from any thread.
 */
#ifndef METADATA_EXPORT_ACCESS_H
#define METADATA_EXPORT_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "metadata/schema.h"

enum {
    EXPORT_HOSTS_MAX = 16,
    EXPORT_IDENTITY_SIZE = 128,  /* of a proved name, with its NUL */
    EXPORT_HOST_TEXT_SIZE = 160, /* of a HOST as people write it */
    EXPORT_OPTIONS_SIZE = sizeof(((struct export_record *)NULL)->options),
};

enum export_tls {
    EXPORT_TLS_ALLOWED,
    EXPORT_TLS_REQUIRED,
    EXPORT_TLS_OFF, /* hosts that use TLS are refused */
};

enum export_host_kind {
    EXPORT_HOST_NETWORK,
    EXPORT_HOST_LOCAL,
    EXPORT_HOST_NAME,
};

struct export_host {
    enum export_host_kind kind;
    bool ipv4;                       /* NETWORK: the first 4 bytes of `address` count */
    uint8_t prefix_bits;             /* NETWORK */
    uint8_t address[16];             /* NETWORK, big-endian */
    char name[EXPORT_IDENTITY_SIZE]; /* NAME; "*": any */
};

struct export_access {
    enum export_tls tls;
    bool is_default;
    bool nobody; /* the options are not understood: better nobody than everybody */
    uint32_t host_count; /* 0: every host */
    struct export_host hosts[EXPORT_HOSTS_MAX];
};

/* What a target knows of a host that asks for an export. */
struct export_client {
    char peer[128]; /* "tcp:HOST:PORT", "unix ..." (io/platform.h) */
    char identity[EXPORT_IDENTITY_SIZE]; /* what it has proved to be; empty: nothing */
    bool tls;
};

/* "allowed", "required", "off" and back. False: no such word. */
const char *export_tls_name(enum export_tls tls);
bool export_tls_parse(const char *text, enum export_tls *ret_tls);

/*
 * A HOST as a person writes it; a NAME that cannot be taken for an address may come without
 * "tls:". 0, or -EINVAL with a sentence in `error`.
 */
int export_host_parse(const char *text, struct export_host *ret_host, struct error *error);
/* The one way to write it. Returns `text`. */
const char *export_host_format(const struct export_host *host,
                               char text[static EXPORT_HOST_TEXT_SIZE]);
bool export_host_equals(const struct export_host *left, const struct export_host *right);

/* The options of a record. 0 or -EUCLEAN: then `ret_access` lets nobody in. */
int export_access_parse(const char *options, struct export_access *ret_access);
/* 0, or -E2BIG with a sentence in `error`. */
int export_access_format(const struct export_access *access,
                         char options[static EXPORT_OPTIONS_SIZE], struct error *error);

/*
 * May this client use the export? 0; -ENOKEY: not without TLS; -EACCES: no.
 */
int export_access_judge(const struct export_access *access, const struct export_client *client);

#endif
