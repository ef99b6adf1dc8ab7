/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/nbd/tls_files.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"

struct identity {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
};

static void
check(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "gnutls: %s\n", gnutls_strerror(rc));
        abort();
    }
}

static void
write_file(const char *path, const void *data, size_t length_bytes)
{
    FILE *file = fopen(path, "w");
    ASSERT(file != NULL);
    ASSERT_OP(fwrite(data, 1, length_bytes, file), ==, length_bytes);
    fclose(file);
}

static void
make_identity(struct identity *identity, const char *name, const struct identity *authority,
              const char *purpose)
{
    unsigned char serial[8];
    time_t now = time(NULL);

    gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));
    serial[0] &= 0x7f;
    check(gnutls_x509_privkey_init(&identity->key));
    check(gnutls_x509_privkey_generate(identity->key, GNUTLS_PK_ECDSA,
                                       GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    check(gnutls_x509_crt_init(&identity->certificate));
    gnutls_x509_crt_t certificate = identity->certificate;
    check(gnutls_x509_crt_set_version(certificate, 3));
    check(gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial)));
    check(gnutls_x509_crt_set_activation_time(certificate, now - 86400));
    check(gnutls_x509_crt_set_expiration_time(certificate, now + 86400));
    if (name != NULL) {
        check(gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                            (unsigned)strlen(name)));
    }
    check(gnutls_x509_crt_set_key(certificate, identity->key));
    if (purpose == NULL) {
        check(gnutls_x509_crt_set_ca_status(certificate, 1));
        check(gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_KEY_CERT_SIGN));
    } else {
        check(gnutls_x509_crt_set_key_purpose_oid(certificate, purpose, 0));
        check(gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE));
        const char *alternative = name != NULL ? "localhost" : "nameless.example";
        check(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, alternative,
                                                   (unsigned)strlen(alternative),
                                                   GNUTLS_FSAN_SET));
    }
    const struct identity *signer = authority != NULL ? authority : identity;
    check(gnutls_x509_crt_sign2(certificate, signer->certificate, signer->key, GNUTLS_DIG_SHA256,
                                0));
}

static void
write_identity(const struct identity *identity, const char *certificate_path, const char *key_path)
{
    gnutls_datum_t text;

    check(gnutls_x509_crt_export2(identity->certificate, GNUTLS_X509_FMT_PEM, &text));
    write_file(certificate_path, text.data, text.size);
    gnutls_free(text.data);
    if (key_path != NULL) {
        check(gnutls_x509_privkey_export2(identity->key, GNUTLS_X509_FMT_PEM, &text));
        write_file(key_path, text.data, text.size);
        gnutls_free(text.data);
    }
}

static void
free_identity(struct identity *identity)
{
    gnutls_x509_crt_deinit(identity->certificate);
    gnutls_x509_privkey_deinit(identity->key);
}

static void
set_path(const struct tls_files *files, char path[static TLS_FILE_PATH_SIZE], const char *name)
{
    ASSERT(snprintf(path, TLS_FILE_PATH_SIZE, "%.80s/%s", files->folder, name) <
           TLS_FILE_PATH_SIZE);
}

void
tls_files_create(struct tls_files *files)
{
    struct identity authority, server, client, strange_authority, stranger, nameless;
    char line[128];

    snprintf(files->folder, sizeof(files->folder), "/tmp/nbd-tls-XXXXXX");
    ASSERT(mkdtemp(files->folder) != NULL);
    set_path(files, files->ca, "ca-cert.pem");
    set_path(files, files->server_certificate, "server-cert.pem");
    set_path(files, files->server_key, "server-key.pem");
    set_path(files, files->client_certificate, "client-cert.pem");
    set_path(files, files->client_key, "client-key.pem");
    set_path(files, files->stranger_certificate, "stranger-cert.pem");
    set_path(files, files->stranger_key, "stranger-key.pem");
    set_path(files, files->nameless_certificate, "nameless-cert.pem");
    set_path(files, files->nameless_key, "nameless-key.pem");
    set_path(files, files->psk, "keys.psk");
    make_identity(&authority, "test authority", NULL, NULL);
    make_identity(&server, "localhost", &authority, GNUTLS_KP_TLS_WWW_SERVER);
    make_identity(&client, "host-one", &authority, GNUTLS_KP_TLS_WWW_CLIENT);
    make_identity(&strange_authority, "strange authority", NULL, NULL);
    make_identity(&stranger, "host-one", &strange_authority, GNUTLS_KP_TLS_WWW_CLIENT);
    make_identity(&nameless, NULL, &authority, GNUTLS_KP_TLS_WWW_CLIENT);
    write_identity(&authority, files->ca, NULL);
    write_identity(&nameless, files->nameless_certificate, files->nameless_key);
    write_identity(&server, files->server_certificate, files->server_key);
    write_identity(&client, files->client_certificate, files->client_key);
    write_identity(&stranger, files->stranger_certificate, files->stranger_key);
    for (size_t i = 0; i < sizeof(files->psk_key) - 1; i++) {
        files->psk_key[i] = "0123456789abcdef"[i * 7 % 16];
    }
    files->psk_key[sizeof(files->psk_key) - 1] = '\0';
    snprintf(line, sizeof(line), "guest:%s\n", files->psk_key);
    write_file(files->psk, line, strlen(line));
    free_identity(&authority);
    free_identity(&nameless);
    free_identity(&server);
    free_identity(&client);
    free_identity(&strange_authority);
    free_identity(&stranger);
}

void
tls_files_remove(const struct tls_files *files)
{
    const char *paths[] = { files->ca, files->server_certificate, files->server_key,
                            files->client_certificate, files->client_key,
                            files->stranger_certificate, files->stranger_key,
                            files->nameless_certificate, files->nameless_key, files->psk };
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        unlink(paths[i]);
    }
    rmdir(files->folder);
}
