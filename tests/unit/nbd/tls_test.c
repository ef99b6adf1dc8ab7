/* SPDX-License-Identifier: Apache-2.0 */
/* TLS: who is let in, who is told to come with TLS, what of a session before TLS counts. */
#include "tests/unit/nbd/rig.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>

#include "tests/unit/nbd/tls_files.h"

static struct tls_files files;

/* A client whose bytes go through GnuTLS. */
struct tls_client {
    struct rig *rig;
    struct sim_client *socket;
    gnutls_session_t session;
    gnutls_certificate_credentials_t x509;
    gnutls_psk_client_credentials_t psk;
};

static ssize_t
client_pull(gnutls_transport_ptr_t context, void *to, size_t length_bytes)
{
    struct tls_client *client = context;
    const uint8_t *data;

    for (int i = 0; i < 2; i++) {
        size_t got = MIN(sim_client_received(client->socket, &data), length_bytes);
        if (got > 0) {
            memcpy(to, data, got);
            sim_client_consume(client->socket, got);
            return (ssize_t)got;
        }
        if (sim_client_at_end(client->socket)) {
            return 0;
        }
        rig_settle(client->rig);
    }
    gnutls_transport_set_errno(client->session, EAGAIN);
    return -1;
}

static ssize_t
client_push(gnutls_transport_ptr_t context, const void *data, size_t length_bytes)
{
    struct tls_client *client = context;
    sim_client_send(client->socket, data, length_bytes);
    return (ssize_t)length_bytes;
}

enum who {
    WHO_NOBODY,   /* no certificate */
    WHO_CLIENT,
    WHO_STRANGER, /* certificate of another authority */
    WHO_NAMELESS, /* certificate without a common name */
    WHO_PSK,
    WHO_PSK_WRONG,
};

static void
set_credentials(struct tls_client *client, enum who who)
{
    if (who == WHO_PSK || who == WHO_PSK_WRONG) {
        char key[65];
        snprintf(key, sizeof(key), "%s", files.psk_key);
        key[0] = who == WHO_PSK ? key[0] : 'f';
        gnutls_datum_t datum = { (unsigned char *)key, 64 };
        gnutls_psk_allocate_client_credentials(&client->psk);
        assert_int_equal(
            gnutls_psk_set_client_credentials(client->psk, "guest", &datum, GNUTLS_PSK_KEY_HEX), 0);
        gnutls_credentials_set(client->session, GNUTLS_CRD_PSK, client->psk);
        return;
    }
    gnutls_certificate_allocate_credentials(&client->x509);
    assert_true(gnutls_certificate_set_x509_trust_file(client->x509, files.ca,
                                                       GNUTLS_X509_FMT_PEM) > 0);
    if (who != WHO_NOBODY) {
        const char *certificate = who == WHO_CLIENT     ? files.client_certificate
                                  : who == WHO_STRANGER ? files.stranger_certificate
                                                        : files.nameless_certificate;
        const char *key = who == WHO_CLIENT     ? files.client_key
                          : who == WHO_STRANGER ? files.stranger_key
                                                : files.nameless_key;
        assert_int_equal(gnutls_certificate_set_x509_key_file(client->x509, certificate, key,
                                                              GNUTLS_X509_FMT_PEM),
                         0);
    }
    gnutls_credentials_set(client->session, GNUTLS_CRD_CERTIFICATE, client->x509);
}

/* The TLS handshake. 0 or a GnuTLS error. */
static int
tls_begin(struct tls_client *client, struct rig *rig, struct sim_client *socket, enum who who,
          const char *priority)
{
    int rc;

    memset(client, 0, sizeof(*client));
    client->rig = rig;
    client->socket = socket;
    gnutls_init(&client->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_FORCE_CLIENT_CERT);
    gnutls_priority_set_direct(client->session, priority, NULL);
    set_credentials(client, who);
    if (client->x509 != NULL) {
        gnutls_session_set_verify_cert(client->session, "localhost", 0);
    }
    gnutls_transport_set_ptr(client->session, client);
    gnutls_transport_set_pull_function(client->session, client_pull);
    gnutls_transport_set_push_function(client->session, client_push);
    do {
        rc = gnutls_handshake(client->session);
    } while (rc < 0 && rc != GNUTLS_E_AGAIN && gnutls_error_is_fatal(rc) == 0);
    return rc;
}

static void
tls_end(struct tls_client *client)
{
    gnutls_deinit(client->session);
    if (client->x509 != NULL) {
        gnutls_certificate_free_credentials(client->x509);
    }
    if (client->psk != NULL) {
        gnutls_psk_free_client_credentials(client->psk);
    }
    sim_client_close(client->socket, false);
}

static void
tls_send(struct tls_client *client, const void *data, size_t length_bytes)
{
    size_t done = 0;
    while (done < length_bytes) {
        ssize_t rc = gnutls_record_send(client->session, (const uint8_t *)data + done,
                                        length_bytes - done);
        assert_true(rc > 0);
        done += (size_t)rc;
    }
}

static void
tls_receive(struct tls_client *client, void *to, size_t length_bytes)
{
    size_t done = 0;
    while (done < length_bytes) {
        ssize_t rc = gnutls_record_recv(client->session, (uint8_t *)to + done, length_bytes - done);
        if (rc == GNUTLS_E_AGAIN) {
            fail_msg("wanted %zu bytes, got %zu", length_bytes, done);
        }
        assert_true(rc > 0);
        done += (size_t)rc;
    }
}

static void
tls_option(struct tls_client *client, uint32_t option, const void *data, uint32_t length_bytes)
{
    uint8_t header[16];
    memcpy(header, "IHAVEOPT", 8);
    put_be32(header + 8, option);
    put_be32(header + 12, length_bytes);
    tls_send(client, header, sizeof(header));
    if (length_bytes > 0) {
        tls_send(client, data, length_bytes);
    }
}

static uint32_t
tls_option_reply(struct tls_client *client, uint32_t option)
{
    uint8_t header[20];
    uint8_t data[1024];
    tls_receive(client, header, sizeof(header));
    assert_int_equal(get_be32(header + 8), option);
    tls_receive(client, data, get_be32(header + 16));
    return get_be32(header + 12);
}

static void
tls_go(struct tls_client *client)
{
    static const char go[] = "\0\0\0\11pool/disk\0\0";
    tls_option(client, NBD_OPT_GO, go, sizeof(go) - 1);
    assert_int_equal(tls_option_reply(client, NBD_OPT_GO), NBD_REP_INFO);
    assert_int_equal(tls_option_reply(client, NBD_OPT_GO), NBD_REP_INFO);
    assert_int_equal(tls_option_reply(client, NBD_OPT_GO), NBD_REP_ACK);
}

static void
start(struct rig *rig, bool verify, bool x509, bool psk, bool fragments)
{
    struct rig_options options = rig_options_default();
    options.with_tls = true;
    options.fragments = fragments;
    options.tls.ca_file = x509 ? files.ca : NULL;
    options.tls.certificate_file = x509 ? files.server_certificate : NULL;
    options.tls.key_file = x509 ? files.server_key : NULL;
    options.tls.verify_client = verify;
    options.tls.psk_file = psk ? files.psk : NULL;
    rig_start(rig, &options);
}

static struct sim_client *
starttls(struct rig *rig, const char *address)
{
    struct sim_client *client = rig_greet(rig, address);
    rig_option(client, NBD_OPT_STARTTLS, NULL, 0);
    rig_expect_ack(rig, client, NBD_OPT_STARTTLS);
    return client;
}

static const char *const versions[] = {
    "NORMAL:-VERS-ALL:+VERS-TLS1.2",
    "NORMAL:-VERS-ALL:+VERS-TLS1.3",
};
static const char *const psk_versions[] = {
    "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK:+DHE-PSK",
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK",
};

static void
required_refuses_everything_else(void **state)
{
    struct rig rig;
    static const uint32_t options[] = { NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_GO,
                                        NBD_OPT_STRUCTURED_REPLY, NBD_OPT_LIST_META_CONTEXT,
                                        NBD_OPT_SET_META_CONTEXT, NBD_OPT_EXTENDED_HEADERS, 99 };
    (void)state;
    start(&rig, false, true, false, false);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS_TLS);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        rig_option(client, options[i], "\0\0\0\0\0\0", i % 2 == 0 ? 6 : 0);
        rig_expect_option_error(&rig, client, options[i], NBD_REP_ERR_TLS_REQD);
    }
    rig_option(client, NBD_OPT_STARTTLS, "x", 1);
    rig_expect_option_error(&rig, client, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID);
    rig_option(client, NBD_OPT_ABORT, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_ABORT);
    rig_expect_end(&rig, client);
    client = rig_greet(&rig, RIG_ADDRESS_TLS);
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
session_over_tls(void **state)
{
    (void)state;
    static uint8_t data[3 << 20];
    static uint8_t back[3 << 20];
    for (size_t v = 0; v < 2 * ARRAY_SIZE(versions); v++) {
        struct rig rig;
        struct tls_client client;
        uint8_t request[28] = { 0 };
        uint8_t reply[16];
        start(&rig, true, true, false, v >= 2);
        assert_int_equal(tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS),
                                   v == 3 ? WHO_NAMELESS : WHO_CLIENT, versions[v % 2]),
                         0);
        tls_option(&client, NBD_OPT_STARTTLS, NULL, 0);
        assert_int_equal(tls_option_reply(&client, NBD_OPT_STARTTLS), NBD_REP_ERR_INVALID);
        tls_option(&client, NBD_OPT_LIST, NULL, 0);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(tls_option_reply(&client, NBD_OPT_LIST), NBD_REP_SERVER);
        }
        assert_int_equal(tls_option_reply(&client, NBD_OPT_LIST), NBD_REP_ACK);
        tls_go(&client);
        /* The name of the certificate; the alternative one where there is none. */
        assert_string_equal(fake_volume_session(rig.disk)->identity,
                            v == 3 ? "nameless.example" : "host-one");
        static const uint32_t lengths[] = { 1, 4096, 100000, 3 << 20 };
        for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
            rig_pattern(data, i, lengths[i]);
            put_be32(request, NBD_REQUEST_MAGIC);
            put_be16(request + 6, NBD_CMD_WRITE);
            put_be64(request + 16, i * 4096);
            put_be32(request + 24, lengths[i]);
            tls_send(&client, request, sizeof(request));
            tls_send(&client, data, lengths[i]);
            tls_receive(&client, reply, sizeof(reply));
            assert_int_equal(get_be32(reply + 4), 0);
            put_be16(request + 6, NBD_CMD_READ);
            tls_send(&client, request, sizeof(request));
            tls_receive(&client, reply, sizeof(reply));
            assert_int_equal(get_be32(reply + 4), 0);
            tls_receive(&client, back, lengths[i]);
            assert_memory_equal(back, data, lengths[i]);
        }
        /* Many at once, and the good-bye. */
        for (int i = 0; i < 300; i++) {
            put_be16(request + 6, NBD_CMD_READ);
            put_be32(request + 24, 4096);
            tls_send(&client, request, sizeof(request));
        }
        for (int i = 0; i < 300; i++) {
            tls_receive(&client, reply, sizeof(reply));
            tls_receive(&client, back, 4096);
        }
        put_be16(request + 6, NBD_CMD_DISC);
        tls_send(&client, request, sizeof(request));
        /* 0, not an early end: the server said good-bye. */
        assert_int_equal(gnutls_record_recv(client.session, back, 1), 0);
        assert_int_equal(rig_statistics(&rig).tls_sessions, 1);
        tls_end(&client);
        rig_finish(&rig);
    }
}

static void
psk_session(void **state)
{
    (void)state;
    for (size_t v = 0; v < ARRAY_SIZE(psk_versions); v++) {
        struct rig rig;
        struct tls_client client;
        start(&rig, false, v == 1, true, true);
        assert_int_equal(tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_OPT), WHO_PSK,
                                   psk_versions[v]),
                         0);
        tls_go(&client);
        assert_string_equal(fake_volume_session(rig.disk)->identity, "guest");
        tls_end(&client);
        assert_int_not_equal(tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_OPT),
                                       WHO_PSK_WRONG, psk_versions[v]),
                             0);
        tls_end(&client);
        rig_settle(&rig);
        assert_int_equal(rig_statistics(&rig).tls_sessions, 1);
        rig_finish(&rig);
    }
}

static void
strangers_stay_outside(void **state)
{
    static const enum who bad[] = { WHO_NOBODY, WHO_STRANGER };
    (void)state;
    for (size_t v = 0; v < ARRAY_SIZE(versions); v++) {
        struct rig rig;
        start(&rig, true, true, false, false);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
            struct tls_client client;
            uint8_t byte;
            int rc = tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS), bad[i],
                               versions[v]);
            if (rc == 0) { /* TLS 1.3: the client is done before the server has judged */
                ssize_t got = gnutls_record_recv(client.session, &byte, 1);
                assert_int_equal(got, GNUTLS_E_FATAL_ALERT_RECEIVED);
            } else {
                assert_true(rc == GNUTLS_E_FATAL_ALERT_RECEIVED ||
                            rc == GNUTLS_E_PREMATURE_TERMINATION);
            }
            tls_end(&client);
        }
        rig_settle(&rig);
        assert_int_equal(rig_statistics(&rig).tls_sessions, 0);
        assert_int_equal(rig_statistics(&rig).protocol_errors, 2);
        rig_finish(&rig);
    }
}

/* Without verification anybody may come, but nobody has proved who he is. */
static void
unverified_clients_have_no_identity(void **state)
{
    static const enum who any[] = { WHO_NOBODY, WHO_CLIENT, WHO_STRANGER };
    struct rig rig;
    (void)state;
    start(&rig, false, true, false, false);
    for (size_t i = 0; i < ARRAY_SIZE(any); i++) {
        struct tls_client client;
        assert_int_equal(tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS), any[i],
                                   versions[1]),
                         0);
        tls_go(&client);
        assert_string_equal(fake_volume_session(rig.disk)->identity, "");
        tls_end(&client);
        rig_settle(&rig);
    }
    rig_finish(&rig);
}

/* Bytes behind STARTTLS were sent by anybody: they must not count as said inside TLS. */
static void
plain_bytes_behind_starttls(void **state)
{
    struct rig rig;
    struct byte_buffer both = BYTE_BUFFER_INIT;
    (void)state;
    start(&rig, false, true, false, false);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS_TLS);
    rig_settle(&rig);
    byte_buffer_append(&both, "IHAVEOPT\0\0\0\5\0\0\0\0", 16);
    byte_buffer_append(&both, "IHAVEOPT\0\0\0\10\0\0\0\0", 16);
    rig_send(client, both.data, both.length_bytes);
    rig_expect_end(&rig, client);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 1);
    /* Later ones break the TLS handshake. */
    client = starttls(&rig, RIG_ADDRESS_TLS);
    rig_send(client, "IHAVEOPT\0\0\0\10\0\0\0\0", 16);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 2);
    sim_client_close(client, false);
    byte_buffer_free(&both);
    rig_finish(&rig);
}

/* What was negotiated before TLS is forgotten. */
static void
negotiation_starts_anew(void **state)
{
    struct rig rig;
    struct tls_client client;
    uint8_t data[64];
    static const char contexts[] = "\0\0\0\11pool/disk\0\0\0\0";
    (void)state;
    start(&rig, false, true, false, false);
    struct sim_client *socket = rig_greet(&rig, RIG_ADDRESS_OPT);
    rig_option(socket, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    rig_expect_ack(&rig, socket, NBD_OPT_STRUCTURED_REPLY);
    rig_meta_context(socket, NBD_OPT_SET_META_CONTEXT, "pool/disk", "base:allocation");
    rig_option_reply(&rig, socket, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, data,
                     sizeof(data));
    rig_expect_ack(&rig, socket, NBD_OPT_SET_META_CONTEXT);
    rig_option(socket, NBD_OPT_STARTTLS, NULL, 0);
    rig_expect_ack(&rig, socket, NBD_OPT_STARTTLS);
    assert_int_equal(tls_begin(&client, &rig, socket, WHO_NOBODY, versions[1]), 0);
    tls_option(&client, NBD_OPT_LIST_META_CONTEXT, contexts, sizeof(contexts) - 1);
    assert_int_equal(tls_option_reply(&client, NBD_OPT_LIST_META_CONTEXT), NBD_REP_ERR_INVALID);
    tls_option(&client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    assert_int_equal(tls_option_reply(&client, NBD_OPT_STRUCTURED_REPLY), NBD_REP_ACK);
    tls_end(&client);
    /* The optional address serves those who do not ask as well. */
    struct sim_client *plain = rig_greet(&rig, RIG_ADDRESS_OPT);
    rig_option(plain, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
    rig_receive(&rig, plain, data, 10);
    sim_client_close(plain, false);
    rig_finish(&rig);
}

static void
tls_handshake_times_out(void **state)
{
    struct rig rig;
    (void)state;
    start(&rig, false, true, false, false);
    struct sim_client *silent = starttls(&rig, RIG_ADDRESS_TLS);
    rig_run_for(&rig, 12 * NS_PER_S);
    rig_expect_end(&rig, silent);
    silent = starttls(&rig, RIG_ADDRESS_TLS);
    rig_send(silent, "\26\3\1\2\0\1\0\1\374\3\3", 11); /* the beginning of a ClientHello */
    rig_run_for(&rig, 12 * NS_PER_S);
    rig_expect_end(&rig, silent);
    silent = starttls(&rig, RIG_ADDRESS_TLS);
    sim_client_close(silent, true);
    rig_finish(&rig);
}

static void
broken_records_close(void **state)
{
    struct rig rig;
    struct tls_client client;
    (void)state;
    start(&rig, false, true, false, false);
    assert_int_equal(
        tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[1]), 0);
    tls_go(&client);
    sim_client_send(client.socket, "\27\3\3\0\50aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 45);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 1);
    assert_int_equal(rig_statistics(&rig).connections_open, 0);
    tls_end(&client);
    rig_finish(&rig);
}

/* An alert, and the end of TLS without DISC. */
static void
clients_end_tls(void **state)
{
    struct rig rig;
    struct tls_client client;
    uint8_t byte;
    (void)state;
    start(&rig, false, true, false, false);
    assert_int_equal(
        tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[0]), 0);
    tls_go(&client);
    gnutls_alert_send(client.session, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 1);
    tls_end(&client);
    assert_int_equal(
        tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[1]), 0);
    tls_go(&client);
    rig_run_for(&rig, 20 * NS_PER_S); /* idle meanwhile: memory goes back */
    gnutls_bye(client.session, GNUTLS_SHUT_WR);
    assert_int_equal(gnutls_record_recv(client.session, &byte, 1), 0);
    tls_end(&client);
    assert_int_equal(
        tls_begin(&client, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[1]), 0);
    gnutls_bye(client.session, GNUTLS_SHUT_WR); /* in the option phase */
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).connections_open, 0);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 1);
    tls_end(&client);
    rig_finish(&rig);
}

struct reload_message {
    struct message message;
    struct rig *rig;
    int result;
};

static void
reload(struct message *message)
{
    struct reload_message *reload_message = container_of(message, struct reload_message, message);
    struct error error = { 0 };
    reload_message->result = nbd_server_reload_tls(reload_message->rig->server, &error);
}

/* New certificates count for new connections; broken ones change nothing. */
static void
credentials_are_reloaded(void **state)
{
    struct rig rig;
    struct tls_client old, fresh;
    struct reload_message message = { .rig = &rig };
    char saved[TLS_FILE_PATH_SIZE + 8];
    (void)state;
    start(&rig, false, true, false, false);
    assert_int_equal(
        tls_begin(&old, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[1]), 0);
    tls_go(&old);
    snprintf(saved, sizeof(saved), "%s.saved", files.server_key);
    assert_int_equal(rename(files.server_key, saved), 0);
    reactor_send(rig.reactors[0], &message.message, reload);
    rig_settle(&rig);
    assert_true(message.result < 0);
    assert_int_equal(
        tls_begin(&fresh, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[1]), 0);
    tls_end(&fresh);
    assert_int_equal(rename(saved, files.server_key), 0);
    reactor_send(rig.reactors[0], &message.message, reload);
    rig_settle(&rig);
    assert_int_equal(message.result, 0);
    assert_int_equal(
        tls_begin(&fresh, &rig, starttls(&rig, RIG_ADDRESS_TLS), WHO_NOBODY, versions[1]), 0);
    tls_end(&fresh);
    /* The old session can still be read: what comes is not a request, but it is plaintext. */
    tls_send(&old, "thirty-two bytes, and no request", 32);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 1);
    tls_end(&old);
    rig_finish(&rig);
}

static void
credentials_are_checked(void **state)
{
    struct rig rig;
    struct nbd_server_options options;
    struct nbd_server *server;
    (void)state;
    start(&rig, true, true, true, false);
    nbd_server_options_default(&options);
    const struct nbd_listen listen = { "unix:/other", 0, NBD_TLS_REQUIRED };
    options.reactors = rig.reactors;
    options.reactor_count = RIG_REACTORS;
    options.manager = rig.manager;
    options.listens = &listen;
    options.listen_count = 1;
    const struct nbd_tls_options wrong[] = {
        { 0 },
        { .certificate_file = files.server_certificate },
        { .certificate_file = files.server_certificate, .key_file = files.client_key },
        { .certificate_file = "/nonexistent", .key_file = files.server_key },
        { .psk_file = "/nonexistent" },
        { .psk_file = files.psk, .priority = "NONSENSE" },
        { .certificate_file = files.server_certificate,
          .key_file = files.server_key,
          .verify_client = true },
        { .certificate_file = files.server_certificate,
          .key_file = files.server_key,
          .ca_file = files.psk },
        { .certificate_file = files.server_certificate,
          .key_file = files.server_key,
          .ca_file = files.ca,
          .crl_file = "/nonexistent" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct error error = { 0 };
        options.tls = wrong[i];
        assert_true(nbd_server_create(&options, &server, &error) < 0);
        assert_true(error.message[0] != '\0');
    }
    rig_finish(&rig);
}

static void
make_files(void)
{
    tls_files_create(&files);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(required_refuses_everything_else),
        cmocka_unit_test(session_over_tls),
        cmocka_unit_test(psk_session),
        cmocka_unit_test(strangers_stay_outside),
        cmocka_unit_test(unverified_clients_have_no_identity),
        cmocka_unit_test(plain_bytes_behind_starttls),
        cmocka_unit_test(negotiation_starts_anew),
        cmocka_unit_test(tls_handshake_times_out),
        cmocka_unit_test(broken_records_close),
        cmocka_unit_test(clients_end_tls),
        cmocka_unit_test(credentials_are_reloaded),
        cmocka_unit_test(credentials_are_checked),
    };
    make_files();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tls_files_remove(&files);
    return failed;
}
