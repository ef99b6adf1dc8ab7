/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api_tls.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

enum {
    PEM_BYTES_MAX = 1 << 20,
    CHAIN_MAX = 16,
};

struct api_tls {
    char *certificate;
    char *key;
    char *authorities; /* NULL: none */
    gnutls_x509_trust_list_t trust;
};

/* ---- files ---- */

/* The text of a file, terminated. */
static int
read_file(const char *path, char **ret_text, struct error *error)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return error_set(error, -errno, "cannot read %s: %s", path, error_name(errno));
    }
    char *text = malloc(PEM_BYTES_MAX + 1);
    ASSERT(text != NULL);
    size_t length = fread(text, 1, PEM_BYTES_MAX + 1, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed || length == 0 || length > PEM_BYTES_MAX || memchr(text, '\0', length) != NULL) {
        explicit_bzero(text, length);
        free(text);
        return error_set(error, -EINVAL, "%s is not a PEM file", path);
    }
    text[length] = '\0';
    *ret_text = text;
    return 0;
}

/* The HTTP server would only say that it cannot start. */
static int
check_key(const struct api_tls *tls, const struct config *config, struct error *error)
{
    gnutls_certificate_credentials_t credentials;
    gnutls_datum_t certificate = { (unsigned char *)tls->certificate,
                                   (unsigned)strlen(tls->certificate) };
    gnutls_datum_t key = { (unsigned char *)tls->key, (unsigned)strlen(tls->key) };
    int result = gnutls_certificate_allocate_credentials(&credentials);
    if (result == 0) {
        result = gnutls_certificate_set_x509_key_mem(credentials, &certificate, &key,
                                                     GNUTLS_X509_FMT_PEM);
        gnutls_certificate_free_credentials(credentials);
    }
    return result >= 0 ? 0
                       : error_set(error, -EINVAL, "certificate %s and key %s: %s",
                                   config->api.tls_certificate, config->api.tls_key,
                                   gnutls_strerror(result));
}

static int
load_trust(struct api_tls *tls, const struct config *config, struct error *error)
{
    gnutls_datum_t authorities = { (unsigned char *)tls->authorities,
                                   (unsigned)strlen(tls->authorities) };
    int added = gnutls_x509_trust_list_add_trust_mem(tls->trust, &authorities, NULL,
                                                     GNUTLS_X509_FMT_PEM, 0, 0);
    if (added <= 0) {
        return error_set(error, -EINVAL, "%s: %s", config->api.tls_ca,
                         added == 0 ? "there is no certificate in it" : gnutls_strerror(added));
    }
    if (config->api.tls_crl[0] == '\0') {
        return 0;
    }
    char *text = NULL;
    int result = read_file(config->api.tls_crl, &text, error);
    if (result < 0) {
        return result;
    }
    gnutls_datum_t revoked = { (unsigned char *)text, (unsigned)strlen(text) };
    added = gnutls_x509_trust_list_add_trust_mem(tls->trust, NULL, &revoked, GNUTLS_X509_FMT_PEM,
                                                 0, GNUTLS_TL_VERIFY_CRL);
    free(text);
    return added > 0 ? 0
                     : error_set(error, -EINVAL, "%s: %s", config->api.tls_crl,
                                 added == 0 ? "there is no list of tls_ca's authorities in it"
                                            : gnutls_strerror(added));
}

int
api_tls_load(const struct config *config, struct api_tls **ret_tls, struct error *error)
{
    struct api_tls *tls = calloc(1, sizeof(*tls));
    ASSERT(tls != NULL);
    int result = gnutls_x509_trust_list_init(&tls->trust, 0);
    ASSERT_OP(result, ==, 0);
    result = read_file(config->api.tls_certificate, &tls->certificate, error);
    if (result == 0) {
        result = read_file(config->api.tls_key, &tls->key, error);
    }
    if (result == 0) {
        result = check_key(tls, config, error);
    }
    if (result == 0 && config->api.tls_ca[0] != '\0') {
        result = read_file(config->api.tls_ca, &tls->authorities, error);
        if (result == 0) {
            result = load_trust(tls, config, error);
        }
    }
    if (result < 0) {
        api_tls_free(tls);
        return error_prefix(error, "[api] TLS");
    }
    *ret_tls = tls;
    return 0;
}

void
api_tls_free(struct api_tls *tls)
{
    if (tls->key != NULL) {
        explicit_bzero(tls->key, strlen(tls->key));
    }
    gnutls_x509_trust_list_deinit(tls->trust, 1);
    free(tls->certificate);
    free(tls->key);
    free(tls->authorities);
    free(tls);
}

const char *
api_tls_certificate(const struct api_tls *tls)
{
    ASSERT(tls->certificate != NULL);
    return tls->certificate;
}

const char *
api_tls_key(const struct api_tls *tls)
{
    ASSERT(tls->key != NULL);
    return tls->key;
}

const char *
api_tls_authorities(const struct api_tls *tls)
{
    return tls->authorities;
}

/* ---- clients ---- */

/* The common name, or the first alternative name. */
static void
take_name(gnutls_x509_crt_t certificate, char ret_name[static API_CALLER_SIZE])
{
    char name[256];
    size_t length = sizeof(name);
    int result = gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0,
                                               name, &length);
    if (result < 0) {
        length = sizeof(name);
        result = gnutls_x509_crt_get_subject_alt_name(certificate, 0, name, &length, NULL);
    }
    size_t used = 0;
    for (; result >= 0 && used < length && used + 1 < API_CALLER_SIZE && name[used] != '\0';
         used++) {
        ret_name[used] = name[used] >= ' ' && name[used] <= '~' ? name[used] : '?';
    }
    ret_name[used] = '\0';
}

/* Whether our authorities vouch for the chain, for the purpose of a client. */
static bool
is_vouched(const struct api_tls *tls, gnutls_x509_crt_t *chain, unsigned count)
{
    gnutls_typed_vdata_st purpose = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
                                      .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT };
    unsigned status = 0;
    int result = gnutls_x509_trust_list_verify_crt2(tls->trust, chain, count, &purpose, 1, 0,
                                                    &status, NULL);
    return result == 0 && status == 0;
}

static bool
prove_name(const struct api_tls *tls, gnutls_session_t session,
           char ret_name[static API_CALLER_SIZE])
{
    unsigned count = 0;
    gnutls_x509_crt_t chain[CHAIN_MAX];
    unsigned taken = 0;
    bool proved = false;
    const gnutls_datum_t *given = gnutls_certificate_get_peers(session, &count);
    for (; given != NULL && taken < MIN(count, (unsigned)CHAIN_MAX); taken++) {
        if (gnutls_x509_crt_init(&chain[taken]) < 0) {
            break;
        }
        if (gnutls_x509_crt_import(chain[taken], &given[taken], GNUTLS_X509_FMT_DER) < 0) {
            gnutls_x509_crt_deinit(chain[taken]);
            break;
        }
    }
    if (taken > 0 && taken == count && is_vouched(tls, chain, taken)) {
        take_name(chain[0], ret_name);
        proved = ret_name[0] != '\0';
    }
    while (taken > 0) {
        gnutls_x509_crt_deinit(chain[--taken]);
    }
    return proved;
}

enum api_role
api_tls_judge(const struct api_tls *tls, const struct config *config, gnutls_session_t session,
              char ret_name[static API_CALLER_SIZE])
{
    const struct config_list *administrators = &config->api.administrators;
    ret_name[0] = '\0';
    if (tls->authorities == NULL || !prove_name(tls, session, ret_name)) {
        return config->api.tls_verify_client ? API_ROLE_NOBODY : API_ROLE_READER;
    }
    for (uint64_t i = 0; i < administrators->count; i++) {
        if (strcmp(administrators->items[i], ret_name) == 0) {
            return API_ROLE_ADMINISTRATOR;
        }
    }
    return administrators->count == 0 ? API_ROLE_ADMINISTRATOR : API_ROLE_READER;
}
