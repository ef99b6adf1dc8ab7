/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS set-up with certificates on both sides, and what comes when a byte of it is not as it should
 * be. First byte: bits 0-1 who the client is (nobody, a host, a stranger, a host without a common
 * name), bit 2 TLS 1.2 (there its certificate goes over the wire in the clear) or newer, bit 3 a
 * reset at the end. Second byte: so many changes of what the client sends follow, each le16 how
 * many bytes after the one before, u8 what it is XORed with. The rest is sent behind the handshake,
 * inside of records where it succeeded.
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/nbd_fuzz.h"
#include "tests/unit/nbd/tls_files.h"

enum {
    CHANGES_MAX = 16,
    CHANGE_BYTES = 3,
};

struct change {
    size_t at; /* of all that the client sends */
    uint8_t mask;
};

struct session {
    struct nbd_fuzz *fuzz;
    struct sim_client *client;
    gnutls_session_t tls;
    struct change changes[CHANGES_MAX];
    size_t change_count;
    size_t sent;
};

/* GnuTLS and the server read them again: they stay until the process ends. */
static struct tls_files files;

static void
remove_files(void)
{
    tls_files_remove(&files);
}

static void
start(struct nbd_fuzz *fuzz)
{
    tls_files_create(&files);
    atexit(remove_files);
    nbd_fuzz_start(fuzz, &(struct nbd_tls_options){
                             .ca_file = files.ca,
                             .certificate_file = files.server_certificate,
                             .key_file = files.server_key,
                             .verify_client = true,
                         });
}

static ssize_t
pull(gnutls_transport_ptr_t context, void *to, size_t length_bytes)
{
    struct session *session = context;
    const uint8_t *data;

    for (int i = 0; i < 2; i++) {
        size_t got = MIN(sim_client_received(session->client, &data), length_bytes);
        if (got > 0) {
            memcpy(to, data, got);
            sim_client_consume(session->client, got);
            return (ssize_t)got;
        }
        ASSERT(sim_quiesce(session->fuzz->sim, 1000 * NS_PER_S) == 0);
    }
    gnutls_transport_set_errno(session->tls, EAGAIN);
    return -1;
}

static ssize_t
push(gnutls_transport_ptr_t context, const void *data, size_t length_bytes)
{
    struct session *session = context;
    uint8_t *copy = malloc(length_bytes);
    ASSERT(copy != NULL);
    memcpy(copy, data, length_bytes);
    for (size_t n = 0; n < session->change_count; n++) {
        const struct change *change = &session->changes[n];
        if (change->at >= session->sent && change->at - session->sent < length_bytes) {
            copy[change->at - session->sent] ^= change->mask;
        }
    }
    sim_client_send(session->client, copy, length_bytes);
    session->sent += length_bytes;
    free(copy);
    return (ssize_t)length_bytes;
}

static void
take_changes(struct session *session, const uint8_t **data, size_t *size)
{
    size_t wanted = *size > 0 ? (*data)[0] % (CHANGES_MAX + 1) : 0;
    size_t at = 0;
    *data += *size > 0;
    *size -= *size > 0;
    for (; wanted > 0 && *size >= CHANGE_BYTES; wanted--) {
        at += (size_t)((*data)[0] | (*data)[1] << 8);
        session->changes[session->change_count++] = (struct change){ at, (*data)[2] };
        *data += CHANGE_BYTES;
        *size -= CHANGE_BYTES;
    }
}

static void
present(gnutls_certificate_credentials_t credentials, uint8_t mode)
{
    const char *const identities[][2] = {
        { NULL, NULL },
        { files.client_certificate, files.client_key },
        { files.stranger_certificate, files.stranger_key },
        { files.nameless_certificate, files.nameless_key },
    };
    const char *const *identity = identities[mode & 3];
    if (identity[0] != NULL) {
        ASSERT(gnutls_certificate_set_x509_key_file(credentials, identity[0], identity[1],
                                                    GNUTLS_X509_FMT_PEM) == 0);
    }
}

static void
speak_tls(struct session *session, uint8_t mode, const uint8_t *data, size_t size)
{
    gnutls_certificate_credentials_t credentials;
    int rc;

    gnutls_init(&session->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
    gnutls_priority_set_direct(session->tls,
                               (mode & 4) != 0 ? "NORMAL:-VERS-ALL:+VERS-TLS1.2" : "NORMAL",
                               NULL);
    gnutls_certificate_allocate_credentials(&credentials);
    present(credentials, mode);
    gnutls_credentials_set(session->tls, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_ptr(session->tls, session);
    gnutls_transport_set_pull_function(session->tls, pull);
    gnutls_transport_set_push_function(session->tls, push);
    do {
        rc = gnutls_handshake(session->tls);
    } while (rc < 0 && rc != GNUTLS_E_AGAIN && gnutls_error_is_fatal(rc) == 0);
    if (session->change_count == 0 && (mode & 7) == 5) {
        ASSERT(rc == 0); /* a host that the authority knows, and nothing was changed */
    }
    if (rc == 0 && size > 0) {
        (void)gnutls_record_send(session->tls, data, size);
    } else if (size > 0) {
        nbd_fuzz_send(session->fuzz, session->client, data, size, 0);
    }
    nbd_fuzz_settle(session->fuzz, session->client);
    gnutls_deinit(session->tls);
    gnutls_certificate_free_credentials(credentials);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_fuzz fuzz;
    struct session session = { .fuzz = &fuzz };

    if (size < 1) {
        return 0;
    }
    if (fuzz.sim == NULL) {
        start(&fuzz);
    }
    uint8_t mode = data[0];
    data++;
    size--;
    take_changes(&session, &data, &size);
    ASSERT(sim_connect(fuzz.sim, NBD_FUZZ_REQUIRED, &session.client) == 0);
    sim_client_send(session.client, "\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0\0", 20);
    nbd_fuzz_settle(&fuzz, session.client);
    speak_tls(&session, mode, data, size);
    nbd_fuzz_end(&fuzz, session.client, (mode & 8) != 0);
    return 0;
}
