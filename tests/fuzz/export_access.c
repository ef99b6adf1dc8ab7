/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use an export: the options of its record, which come from the database, and a HOST as
 * people write it. Input: the text; behind a NUL, if there is one, the peer and behind another NUL
 * the proved name of a client. What is understood is written back in the one way there is, and then
 * means the same to every client; what is not understood lets nobody in.
 */
#include "metadata/export_access.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/fuzz/fuzz.h"

enum {
    TEXT_BYTES_MAX = 2 * EXPORT_OPTIONS_SIZE
};

struct input {
    char text[TEXT_BYTES_MAX + 1];
    struct export_client client;
};

/* Up to `to_bytes` - 1 bytes up to a NUL or the end. Returns how many of the input it has used. */
static size_t
take_text(const uint8_t *data, size_t size, char *to, size_t to_bytes)
{
    const uint8_t *end = size > 0 ? memchr(data, '\0', size) : NULL;
    size_t length = end != NULL ? (size_t)(end - data) : size;
    size_t kept = MIN(length, to_bytes - 1);

    if (kept > 0) {
        memcpy(to, data, kept);
    }
    to[kept] = '\0';
    return end != NULL ? length + 1 : size;
}

static void
take_input(const uint8_t *data, size_t size, struct input *input)
{
    size_t at = take_text(data, size, input->text, sizeof(input->text));

    at += take_text(data + at, size - at, input->client.peer, sizeof(input->client.peer));
    take_text(data + at, size - at, input->client.identity, sizeof(input->client.identity));
    input->client.tls = input->client.identity[0] != '\0';
}

/* ---- one host ---- */

static void
expect_sound(const struct export_host *host)
{
    size_t length = strnlen(host->name, sizeof(host->name));

    ASSERT_OP(length, <, sizeof(host->name));
    ASSERT((host->kind == EXPORT_HOST_NAME) == (length > 0));
    ASSERT_OP(host->prefix_bits, <=, host->ipv4 ? 32 : 128);
}

static void
try_host(const char *text)
{
    struct export_host host;
    struct export_host again;
    struct error error = { 0 };
    char written[EXPORT_HOST_TEXT_SIZE];
    char written_again[EXPORT_HOST_TEXT_SIZE];
    int result = export_host_parse(text, &host, &error);

    ASSERT(result == 0 || result == -EINVAL);
    ASSERT((result == 0) == (error.message[0] == '\0'));
    if (result < 0) {
        return;
    }
    expect_sound(&host);
    ASSERT(strlen(export_host_format(&host, written)) < sizeof(written));
    ASSERT_OP(export_host_parse(written, &again, NULL), ==, 0);
    ASSERT(export_host_equals(&host, &again));
    ASSERT(strcmp(export_host_format(&again, written_again), written) == 0);
}

/* ---- the options ---- */

static bool
is_same(const struct export_access *left, const struct export_access *right)
{
    bool same = left->tls == right->tls && left->is_default == right->is_default &&
                left->nobody == right->nobody && left->host_count == right->host_count;

    for (uint32_t i = 0; same && i < left->host_count; i++) {
        same = export_host_equals(&left->hosts[i], &right->hosts[i]);
    }
    return same;
}

/* What a client gets must follow from the words that were understood. */
static void
expect_judged(const struct export_access *access, const struct export_client *client)
{
    int verdict = export_access_judge(access, client);

    ASSERT(verdict == 0 || verdict == -EACCES || verdict == -ENOKEY);
    if (access->nobody) {
        ASSERT_OP(verdict, ==, -EACCES);
    } else if (access->host_count == 0 && access->tls == EXPORT_TLS_ALLOWED) {
        ASSERT_OP(verdict, ==, 0);
    }
    if (client->tls) {
        ASSERT(verdict != -ENOKEY); /* more than to prove a name nobody can do */
        ASSERT(verdict != 0 || access->tls != EXPORT_TLS_OFF);
    } else {
        ASSERT(verdict != 0 || access->tls != EXPORT_TLS_REQUIRED);
    }
}

static void
try_options(const char *text, const struct export_client *client)
{
    struct export_access access;
    struct export_access again;
    struct error error = { 0 };
    char written[EXPORT_OPTIONS_SIZE];
    int result = export_access_parse(text, &access);

    ASSERT(result == 0 || result == -EUCLEAN);
    ASSERT(access.nobody == (result < 0));
    ASSERT_OP(access.host_count, <=, (uint32_t)EXPORT_HOSTS_MAX);
    expect_judged(&access, client);
    if (result < 0) {
        return;
    }
    for (uint32_t i = 0; i < access.host_count; i++) {
        expect_sound(&access.hosts[i]);
    }
    /* The one way to write it may be longer than what was read. */
    result = export_access_format(&access, written, &error);
    ASSERT(result == 0 || (result == -E2BIG && error.message[0] != '\0'));
    if (result < 0) {
        return;
    }
    ASSERT_OP(strnlen(written, sizeof(written)), <, sizeof(written));
    ASSERT_OP(export_access_parse(written, &again), ==, 0);
    ASSERT(is_same(&access, &again));
    ASSERT_OP(export_access_judge(&again, client), ==, export_access_judge(&access, client));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input *input = calloc(1, sizeof(*input)); /* on the heap: its ends are watched */
    enum export_tls tls;

    ASSERT(input != NULL);
    take_input(data, size, input);
    try_host(input->text);
    try_options(input->text, &input->client);
    if (export_tls_parse(input->text, &tls)) {
        ASSERT(strcmp(export_tls_name(tls), input->text) == 0);
    }
    free(input);
    return 0;
}
