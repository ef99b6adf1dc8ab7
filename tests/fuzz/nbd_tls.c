/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes where TLS records are expected. First byte: bit 0 before the handshake (raw bytes
 * behind STARTTLS) or after it (a session with a pre-shared key, then plaintext of options inside
 * of records, then raw bytes); bit 1 a reset at the end, bit 2 the address where TLS is optional,
 * bits 3-7 how much goes through records, in units of 8 bytes.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/nbd_fuzz.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "targets/nbd/protocol.h"

#define KEY "00112233445566778899aabbccddeeff"

struct session {
    struct nbd_fuzz *fuzz;
    struct sim_client *client;
    gnutls_session_t tls;
};

/* GnuTLS reads the file again for each session: it stays until the process ends. */
static char psk_path[] = "/tmp/nbd-fuzz-psk-XXXXXX";

static void
remove_psk(void)
{
    unlink(psk_path);
}

static void
start(struct nbd_fuzz *fuzz)
{
    int fd = mkstemp(psk_path);
    ASSERT(fd >= 0);
    ASSERT(dprintf(fd, "fuzz:%s\n", KEY) > 0);
    close(fd);
    atexit(remove_psk);
    nbd_fuzz_start(fuzz, &(struct nbd_tls_options){ .psk_file = psk_path });
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
    sim_client_send(session->client, data, length_bytes);
    return (ssize_t)length_bytes;
}

/* A whole handshake, then `data` as plaintext inside of records. */
static void
speak_tls(struct nbd_fuzz *fuzz, struct sim_client *client, const uint8_t *data, size_t size)
{
    struct session session = { .fuzz = fuzz, .client = client };
    gnutls_psk_client_credentials_t psk;
    const gnutls_datum_t key = { (unsigned char *)(uintptr_t)KEY, sizeof(KEY) - 1 };
    int rc;

    gnutls_init(&session.tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
    gnutls_priority_set_direct(session.tls, "NORMAL:-KX-ALL:+ECDHE-PSK", NULL);
    gnutls_psk_allocate_client_credentials(&psk);
    gnutls_psk_set_client_credentials(psk, "fuzz", &key, GNUTLS_PSK_KEY_HEX);
    gnutls_credentials_set(session.tls, GNUTLS_CRD_PSK, psk);
    gnutls_transport_set_ptr(session.tls, &session);
    gnutls_transport_set_pull_function(session.tls, pull);
    gnutls_transport_set_push_function(session.tls, push);
    do {
        rc = gnutls_handshake(session.tls);
    } while (rc < 0 && rc != GNUTLS_E_AGAIN && gnutls_error_is_fatal(rc) == 0);
    ASSERT(rc == 0);
    if (size > 0) {
        ASSERT(gnutls_record_send(session.tls, data, size) == (ssize_t)size);
    }
    nbd_fuzz_settle(fuzz, client);
    gnutls_deinit(session.tls);
    gnutls_psk_free_client_credentials(psk);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_fuzz fuzz;
    struct sim_client *client;

    if (size < 1) {
        return 0;
    }
    if (fuzz.sim == NULL) {
        start(&fuzz);
    }
    uint8_t mode = data[0];
    data++;
    size--;
    ASSERT(sim_connect(fuzz.sim, (mode & 4) != 0 ? NBD_FUZZ_OPTIONAL : NBD_FUZZ_REQUIRED,
                       &client) == 0);
    sim_client_send(client, "\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0\0", 20);
    nbd_fuzz_settle(&fuzz, client);
    if ((mode & 1) != 0) {
        size_t inside = MIN((size_t)(mode >> 3) * 8, size);
        speak_tls(&fuzz, client, data, inside);
        data += inside;
        size -= inside;
    }
    nbd_fuzz_send(&fuzz, client, data, size, 0);
    nbd_fuzz_end(&fuzz, client, (mode & 2) != 0);
    return 0;
}
