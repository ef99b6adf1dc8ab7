/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys for tests, made afresh in a temporary folder. */
#ifndef TESTS_UNIT_NBD_TLS_FILES_H
#define TESTS_UNIT_NBD_TLS_FILES_H

#include "targets/nbd/server.h"

enum {
    TLS_FILE_PATH_SIZE = 128,
};

struct tls_files {
    char folder[TLS_FILE_PATH_SIZE];
    char ca[TLS_FILE_PATH_SIZE];
    char server_certificate[TLS_FILE_PATH_SIZE];
    char server_key[TLS_FILE_PATH_SIZE];
    char client_certificate[TLS_FILE_PATH_SIZE]; /* CN=host-one */
    char client_key[TLS_FILE_PATH_SIZE];
    char stranger_certificate[TLS_FILE_PATH_SIZE]; /* of another authority, the same CN */
    char stranger_key[TLS_FILE_PATH_SIZE];
    char nameless_certificate[TLS_FILE_PATH_SIZE]; /* alternative name nameless.example only */
    char nameless_key[TLS_FILE_PATH_SIZE];
    char psk[TLS_FILE_PATH_SIZE]; /* user "guest" */
    char psk_key[65];             /* hexadecimal */
};

void tls_files_create(struct tls_files *files);
void tls_files_remove(const struct tls_files *files);

#endif
