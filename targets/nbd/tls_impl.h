/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS by GnuTLS over memory: ciphertext is put in, plaintext comes out, and the other way round. No
 * socket is known here, and nothing blocks.
 */
#ifndef TARGETS_NBD_TLS_IMPL_H
#define TARGETS_NBD_TLS_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/error.h"
#include "targets/nbd/server.h"

struct nbd_tls;
struct nbd_tls_credentials;

enum {
    NBD_TLS_RECORD_BYTES = 16 << 10,      /* plaintext of one record */
    NBD_TLS_CIPHER_INPUT_BYTES = 64 << 10, /* ciphertext received at once; holds any record */
};

/* Load files. May block. The result has one reference. */
int nbd_tls_credentials_load(const struct nbd_tls_options *options,
                             struct nbd_tls_credentials **ret_credentials, struct error *error);
/* References are counted by one thread, the acceptor's. */
void nbd_tls_credentials_hold(struct nbd_tls_credentials *credentials);
void nbd_tls_credentials_release(struct nbd_tls_credentials *credentials);

/* A server's session. -ENOMEM, or -EIO when GnuTLS refuses the settings. */
int nbd_tls_open(struct nbd_tls_credentials *credentials, struct nbd_tls **ret_tls);
void nbd_tls_close(struct nbd_tls *tls);

/* Where ciphertext is to be received to, and how much fits (> 0). */
uint8_t *nbd_tls_input_space(struct nbd_tls *tls, size_t *ret_space_bytes);
void nbd_tls_input_filled(struct nbd_tls *tls, size_t length_bytes);

/*
 * Ciphertext to be sent now, or NULL when none is pending. It stays valid until nbd_tls_sent();
 * what becomes pending meanwhile is for the next send.
 */
const uint8_t *nbd_tls_begin_send(struct nbd_tls *tls, size_t *ret_length_bytes);
void nbd_tls_sent(struct nbd_tls *tls);
/* Ciphertext that waits for nbd_tls_begin_send(). */
size_t nbd_tls_pending_bytes(const struct nbd_tls *tls);

/*
 * 0: done; -EAGAIN: needs more input; -EPROTO: failed, nbd_tls_failure() tells why. In each case
 * there may be something pending to send.
 */
int nbd_tls_handshake(struct nbd_tls *tls);
const char *nbd_tls_failure(const struct nbd_tls *tls);
/* Plaintext bytes (> 0), 0: closed by the peer, -EAGAIN, -EPROTO. */
int nbd_tls_read(struct nbd_tls *tls, void *to, size_t space_bytes);
/* One record of at most NBD_TLS_RECORD_BYTES. 0 or -EPROTO. */
int nbd_tls_write(struct nbd_tls *tls, const void *data, size_t length_bytes);
/* Leave a close notification in the pending bytes. */
void nbd_tls_goodbye(struct nbd_tls *tls);

/*
 * Who the client has proved to be: the common name (or, without one, the first alternative name)
 * of a verified certificate, or the PSK user. Empty when nothing was proved. Printable characters
 * only.
 */
void nbd_tls_identity(struct nbd_tls *tls, char *ret_identity, size_t size_bytes);

/* Give back memory that an idle session does not need. */
void nbd_tls_trim(struct nbd_tls *tls);

#endif
