/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is at the other end of the management API's TLS, and what he may do.
 *
 * A client is known by the certificate that it proves to have. With [api] administrators empty
 * every client whose certificate the authorities in tls_ca have signed may do everything; otherwise
 * those that are named may, and the others may look. Who has no certificate gets no answer but a
 * refusal, or may look where tls_verify_client is off.
 */
#ifndef DAEMON_API_TLS_H
#define DAEMON_API_TLS_H

#include <gnutls/gnutls.h>
#include <stdbool.h>

#include "base/error.h"
#include "daemon/config.h"

enum api_role {
    API_ROLE_NOBODY,
    API_ROLE_READER, /* what changes nothing */
    API_ROLE_ADMINISTRATOR,
};

enum {
    API_CALLER_SIZE = 128
};

/* What the files held when they were read. Constant, and used by any thread. */
struct api_tls;

/* Read the files that the configuration names. 0 or -errno with `error` set. May block. */
int api_tls_load(const struct config *config, struct api_tls **ret_tls, struct error *error);
void api_tls_free(struct api_tls *tls);

/* PEM text, for the HTTP server; `authorities` NULL: there are none. */
const char *api_tls_certificate(const struct api_tls *tls);
const char *api_tls_key(const struct api_tls *tls);
const char *api_tls_authorities(const struct api_tls *tls);

/*
 * The role of the client of a session whose handshake is done; `ret_name` is the name that its
 * certificate proves, or empty.
 */
enum api_role api_tls_judge(const struct api_tls *tls, const struct config *config,
                            gnutls_session_t session, char ret_name[static API_CALLER_SIZE]);

#endif
