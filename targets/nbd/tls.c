/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/tls_impl.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

/* "TLS versions" of the protocol: 1.2 must work, older ones should not. */
#define PRIORITY_MODERN "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"

struct nbd_tls_credentials {
    uint32_t references;
    bool verify_client;
    gnutls_certificate_credentials_t x509; /* NULL: none */
    gnutls_psk_server_credentials_t psk;   /* NULL: none */
    gnutls_priority_t priority;
};

struct nbd_tls {
    gnutls_session_t session;
    bool verify_client;
    bool failed; /* nothing more may be asked of the session */
    char failure[128];
    uint32_t input_begin;
    uint32_t input_end;
    uint8_t *input;
    struct byte_buffer pending;
    struct byte_buffer sending;
    gnutls_typed_vdata_st purpose; /* GnuTLS keeps a pointer to it */
    unsigned char purpose_text[32];
};

/* ---- credentials ---- */

static int
load_x509(struct nbd_tls_credentials *credentials, const struct nbd_tls_options *options,
          struct error *error)
{
    int rc = gnutls_certificate_allocate_credentials(&credentials->x509);
    if (rc < 0) {
        return error_set(error, -ENOMEM, "TLS: %s", gnutls_strerror(rc));
    }
    rc = gnutls_certificate_set_x509_key_file(credentials->x509, options->certificate_file,
                                              options->key_file, GNUTLS_X509_FMT_PEM);
    if (rc < 0) {
        return error_set(error, -EINVAL, "TLS certificate %s with key %s: %s",
                         options->certificate_file, options->key_file, gnutls_strerror(rc));
    }
    if (options->ca_file != NULL) {
        rc = gnutls_certificate_set_x509_trust_file(credentials->x509, options->ca_file,
                                                    GNUTLS_X509_FMT_PEM);
        if (rc <= 0) {
            return error_set(error, -EINVAL, "TLS certificate authority %s: %s", options->ca_file,
                             rc == 0 ? "no certificate in the file" : gnutls_strerror(rc));
        }
    }
    if (options->crl_file != NULL) {
        rc = gnutls_certificate_set_x509_crl_file(credentials->x509, options->crl_file,
                                                  GNUTLS_X509_FMT_PEM);
        if (rc < 0) {
            return error_set(error, -EINVAL, "TLS revocation list %s: %s", options->crl_file,
                             gnutls_strerror(rc));
        }
    }
    gnutls_certificate_set_known_dh_params(credentials->x509, GNUTLS_SEC_PARAM_MEDIUM);
    return 0;
}

static int
load_psk(struct nbd_tls_credentials *credentials, const struct nbd_tls_options *options,
         struct error *error)
{
    int rc = gnutls_psk_allocate_server_credentials(&credentials->psk);
    if (rc < 0) {
        return error_set(error, -ENOMEM, "TLS: %s", gnutls_strerror(rc));
    }
    FILE *readable = fopen(options->psk_file, "re");
    if (readable == NULL) {
        return error_set(error, -errno, "TLS key file %s: %s", options->psk_file,
                         error_name(errno));
    }
    fclose(readable);
    rc = gnutls_psk_set_server_credentials_file(credentials->psk, options->psk_file);
    if (rc < 0) {
        return error_set(error, -EINVAL, "TLS key file %s: %s", options->psk_file,
                         gnutls_strerror(rc));
    }
    gnutls_psk_set_server_known_dh_params(credentials->psk, GNUTLS_SEC_PARAM_MEDIUM);
    return 0;
}

static int
load_all(struct nbd_tls_credentials *credentials, const struct nbd_tls_options *options,
         struct error *error)
{
    const char *where = NULL;

    if (options->certificate_file == NULL && options->psk_file == NULL) {
        return error_set(error, -EINVAL,
                         "TLS needs a certificate and its key, or a key file (PSK)");
    }
    if ((options->certificate_file == NULL) != (options->key_file == NULL)) {
        return error_set(error, -EINVAL, "TLS needs both the certificate and its key");
    }
    if (options->verify_client && (options->ca_file == NULL || options->certificate_file == NULL)) {
        return error_set(error, -EINVAL,
                         "To verify clients TLS needs the certificate of their authority");
    }
    if (options->certificate_file != NULL && load_x509(credentials, options, error) < 0) {
        return error->code;
    }
    if (options->psk_file != NULL && load_psk(credentials, options, error) < 0) {
        return error->code;
    }
    const char *priority = options->priority;
    if (priority == NULL) {
        priority = options->psk_file != NULL ? PRIORITY_MODERN ":+ECDHE-PSK:+DHE-PSK"
                                             : PRIORITY_MODERN;
    }
    int rc = gnutls_priority_init(&credentials->priority, priority, &where);
    if (rc < 0) {
        return error_set(error, -EINVAL, "TLS priority string, at \"%s\": %s",
                         where == NULL ? "" : where, gnutls_strerror(rc));
    }
    credentials->verify_client = options->verify_client;
    return 0;
}

int
nbd_tls_credentials_load(const struct nbd_tls_options *options,
                         struct nbd_tls_credentials **ret_credentials, struct error *error)
{
    struct error own = { 0 };
    struct nbd_tls_credentials *credentials = calloc(1, sizeof(*credentials));

    if (credentials == NULL) {
        return error_set(error, -ENOMEM, "Out of memory");
    }
    credentials->references = 1;
    int rc = load_all(credentials, options, &own);
    if (rc < 0) {
        nbd_tls_credentials_release(credentials);
        return error_set(error, rc, "%s", own.message);
    }
    *ret_credentials = credentials;
    return 0;
}

void
nbd_tls_credentials_hold(struct nbd_tls_credentials *credentials)
{
    ASSERT_OP(credentials->references, >, 0u);
    credentials->references++;
}

void
nbd_tls_credentials_release(struct nbd_tls_credentials *credentials)
{
    ASSERT_OP(credentials->references, >, 0u);
    if (--credentials->references > 0) {
        return;
    }
    if (credentials->x509 != NULL) {
        gnutls_certificate_free_credentials(credentials->x509);
    }
    if (credentials->psk != NULL) {
        gnutls_psk_free_server_credentials(credentials->psk);
    }
    if (credentials->priority != NULL) {
        gnutls_priority_deinit(credentials->priority);
    }
    free(credentials);
}

/* ---- the memory that GnuTLS takes for a socket ---- */

static ssize_t
pull_bytes(gnutls_transport_ptr_t context, void *to, size_t length_bytes)
{
    struct nbd_tls *tls = context;
    size_t available = tls->input_end - tls->input_begin;

    if (available == 0) {
        gnutls_transport_set_errno(tls->session, EAGAIN);
        return -1;
    }
    length_bytes = MIN(length_bytes, available);
    memcpy(to, tls->input + tls->input_begin, length_bytes);
    tls->input_begin += (uint32_t)length_bytes;
    return (ssize_t)length_bytes;
}

static int
pull_wait(gnutls_transport_ptr_t context, unsigned int timeout_ms)
{
    const struct nbd_tls *tls = context;

    (void)timeout_ms;
    return tls->input_end > tls->input_begin ? 1 : 0;
}

static ssize_t
push_bytes(gnutls_transport_ptr_t context, const giovec_t *iov, int count)
{
    struct nbd_tls *tls = context;
    size_t total_bytes = 0;

    for (int i = 0; i < count; i++) {
        byte_buffer_append(&tls->pending, iov[i].iov_base, iov[i].iov_len);
        total_bytes += iov[i].iov_len;
    }
    return (ssize_t)total_bytes;
}

uint8_t *
nbd_tls_input_space(struct nbd_tls *tls, size_t *ret_space_bytes)
{
    uint32_t available = tls->input_end - tls->input_begin;

    /* GnuTLS takes what there is before it asks for more, so the rest is short and rarely there. */
    if (tls->input_begin > 0) {
        memmove(tls->input, tls->input + tls->input_begin, available);
        tls->input_begin = 0;
        tls->input_end = available;
    }
    ASSERT_OP(tls->input_end, <, (uint32_t)NBD_TLS_CIPHER_INPUT_BYTES);
    *ret_space_bytes = NBD_TLS_CIPHER_INPUT_BYTES - tls->input_end;
    return tls->input + tls->input_end;
}

void
nbd_tls_input_filled(struct nbd_tls *tls, size_t length_bytes)
{
    ASSERT_OP(length_bytes, <=, (size_t)NBD_TLS_CIPHER_INPUT_BYTES - tls->input_end);
    tls->input_end += (uint32_t)length_bytes;
}

const uint8_t *
nbd_tls_begin_send(struct nbd_tls *tls, size_t *ret_length_bytes)
{
    struct byte_buffer spare = tls->sending;

    ASSERT_OP(tls->sending.length_bytes, ==, 0u);
    if (tls->pending.length_bytes == 0) {
        return NULL;
    }
    tls->sending = tls->pending;
    tls->pending = spare;
    *ret_length_bytes = tls->sending.length_bytes;
    return tls->sending.data;
}

void
nbd_tls_sent(struct nbd_tls *tls)
{
    byte_buffer_clear(&tls->sending);
}

size_t
nbd_tls_pending_bytes(const struct nbd_tls *tls)
{
    return tls->pending.length_bytes;
}

/* ---- sessions ---- */

static int
session_setup(struct nbd_tls *tls, struct nbd_tls_credentials *credentials)
{
    int rc = gnutls_init(&tls->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);

    if (rc < 0) {
        tls->session = NULL;
        return rc;
    }
    rc = gnutls_priority_set(tls->session, credentials->priority);
    if (rc == 0 && credentials->x509 != NULL) {
        rc = gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, credentials->x509);
    }
    if (rc == 0 && credentials->psk != NULL) {
        rc = gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, credentials->psk);
    }
    if (rc < 0) {
        return rc;
    }
    tls->verify_client = credentials->verify_client;
    if (tls->verify_client) {
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
        tls->purpose.type = GNUTLS_DT_KEY_PURPOSE_OID;
        tls->purpose.data = tls->purpose_text;
        snprintf((char *)tls->purpose_text, sizeof(tls->purpose_text), "%s",
                 GNUTLS_KP_TLS_WWW_CLIENT);
        gnutls_session_set_verify_cert2(tls->session, &tls->purpose, 1, 0);
    }
    gnutls_transport_set_ptr(tls->session, tls);
    gnutls_transport_set_pull_function(tls->session, pull_bytes);
    gnutls_transport_set_pull_timeout_function(tls->session, pull_wait);
    gnutls_transport_set_vec_push_function(tls->session, push_bytes);
    return 0;
}

int
nbd_tls_open(struct nbd_tls_credentials *credentials, struct nbd_tls **ret_tls)
{
    struct nbd_tls *tls = calloc(1, sizeof(*tls));
    uint8_t *input = malloc(NBD_TLS_CIPHER_INPUT_BYTES);

    if (tls == NULL || input == NULL) {
        free(tls);
        free(input);
        return -ENOMEM;
    }
    tls->input = input;
    if (session_setup(tls, credentials) < 0) {
        nbd_tls_close(tls);
        return -EIO;
    }
    *ret_tls = tls;
    return 0;
}

void
nbd_tls_close(struct nbd_tls *tls)
{
    if (tls->session != NULL) {
        gnutls_deinit(tls->session);
    }
    byte_buffer_free(&tls->pending);
    byte_buffer_free(&tls->sending);
    free(tls->input);
    free(tls);
}

static int
session_failed(struct nbd_tls *tls, int code)
{
    const char *text = gnutls_strerror(code);

    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        const char *alert = gnutls_alert_get_name(gnutls_alert_get(tls->session));
        text = alert != NULL ? alert : text;
    }
    snprintf(tls->failure, sizeof(tls->failure), "%s", text);
    tls->failed = true;
    return -EPROTO;
}

int
nbd_tls_handshake(struct nbd_tls *tls)
{
    int rc;

    ASSERT(!tls->failed);
    do {
        rc = gnutls_handshake(tls->session);
    } while (rc == GNUTLS_E_INTERRUPTED || (rc < 0 && rc != GNUTLS_E_AGAIN &&
                                            gnutls_error_is_fatal(rc) == 0));
    if (rc == GNUTLS_E_SUCCESS) {
        return 0;
    }
    if (rc == GNUTLS_E_AGAIN) {
        return -EAGAIN;
    }
    (void)gnutls_alert_send_appropriate(tls->session, rc);
    return session_failed(tls, rc);
}

const char *
nbd_tls_failure(const struct nbd_tls *tls)
{
    return tls->failure;
}

int
nbd_tls_read(struct nbd_tls *tls, void *to, size_t space_bytes)
{
    ssize_t rc;

    ASSERT_OP(space_bytes, >, 0u);
    if (tls->failed) {
        return -EPROTO;
    }
    do {
        rc = gnutls_record_recv(tls->session, to, MIN(space_bytes, (size_t)INT32_MAX));
    } while (rc == GNUTLS_E_INTERRUPTED);
    if (rc >= 0) {
        return (int)rc;
    }
    if (rc == GNUTLS_E_AGAIN) {
        return -EAGAIN;
    }
    /* A renegotiation (TLS 1.2) is of no use to NBD clients, and a classic hole: refused. */
    return session_failed(tls, (int)rc);
}

int
nbd_tls_write(struct nbd_tls *tls, const void *data, size_t length_bytes)
{
    size_t done_bytes = 0;

    ASSERT_OP(length_bytes, <=, (uint32_t)NBD_TLS_RECORD_BYTES);
    if (tls->failed) {
        return -EPROTO;
    }
    while (done_bytes < length_bytes) {
        ssize_t rc = gnutls_record_send(tls->session, (const uint8_t *)data + done_bytes,
                                        length_bytes - done_bytes);
        if (rc <= 0) {
            return session_failed(tls, (int)rc); /* memory takes everything: not EAGAIN */
        }
        done_bytes += (size_t)rc;
    }
    return 0;
}

void
nbd_tls_goodbye(struct nbd_tls *tls)
{
    if (!tls->failed) {
        (void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
    }
}

void
nbd_tls_trim(struct nbd_tls *tls)
{
    if (tls->pending.length_bytes == 0) {
        byte_buffer_free(&tls->pending);
    }
    if (tls->sending.length_bytes == 0) {
        byte_buffer_free(&tls->sending);
    }
}

/* ---- identity ---- */

static void
copy_printable(char *to, size_t size_bytes, const char *from, size_t length_bytes)
{
    size_t at = 0;

    for (; at < length_bytes && at + 1 < size_bytes && from[at] != '\0'; at++) {
        to[at] = from[at] >= ' ' && from[at] <= '~' ? from[at] : '?';
    }
    to[at] = '\0';
}

static void
certificate_identity(gnutls_session_t session, char *ret_identity, size_t size_bytes)
{
    unsigned int count = 0;
    gnutls_x509_crt_t certificate;
    char name[256];
    size_t name_bytes = sizeof(name);
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);

    if (chain == NULL || count == 0 || gnutls_x509_crt_init(&certificate) < 0) {
        return;
    }
    if (gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) == 0) {
        if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name,
                                          &name_bytes) == 0 ||
            (name_bytes = sizeof(name),
             gnutls_x509_crt_get_subject_alt_name(certificate, 0, name, &name_bytes, NULL)) >= 0) {
            copy_printable(ret_identity, size_bytes, name, name_bytes);
        }
    }
    gnutls_x509_crt_deinit(certificate);
}

void
nbd_tls_identity(struct nbd_tls *tls, char *ret_identity, size_t size_bytes)
{
    ret_identity[0] = '\0';
    if (gnutls_auth_client_get_type(tls->session) == GNUTLS_CRD_PSK) {
        const char *user = gnutls_psk_server_get_username(tls->session);
        if (user != NULL) {
            copy_printable(ret_identity, size_bytes, user, strlen(user));
        }
    } else if (tls->verify_client) {
        certificate_identity(tls->session, ret_identity, size_bytes);
    }
}
