/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes may arrive in any pieces: a whole session is sent once for each place at which it can be
 * cut in two, with the server idle in between, and once byte by byte. The answer must be the same.
 */
#include "tests/unit/nbd/rig.h"

static void
put_option(struct byte_buffer *to, uint32_t option, const void *data, uint32_t length_bytes)
{
    uint8_t header[16];

    memcpy(header, "IHAVEOPT", 8);
    put_be32(header + 8, option);
    put_be32(header + 12, length_bytes);
    byte_buffer_append(to, header, sizeof(header));
    byte_buffer_append(to, data, length_bytes);
}

static void
put_request(struct byte_buffer *to, bool extended, uint16_t command, uint16_t flags,
            uint64_t cookie, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint8_t request[32];

    put_be32(request, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    put_be16(request + 4, flags);
    put_be16(request + 6, command);
    put_be64(request + 8, cookie);
    put_be64(request + 16, offset_bytes);
    if (extended) {
        put_be64(request + 24, length_bytes);
    } else {
        put_be32(request + 24, (uint32_t)length_bytes);
    }
    byte_buffer_append(to, request, extended ? 32 : 28);
}

/* A session with every kind of message; the small writes end in the middle of pieces. */
static void
make_session(struct byte_buffer *to, bool extended)
{
    uint8_t payload[700];
    uint8_t status[12] = { 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 1 };
    static const uint8_t flags[4] = { 0, 0, 0, 3 };
    static const char go[] = "\0\0\0\11pool/disk\0\1\0\3";
    static const char contexts[] = "\0\0\0\11pool/disk\0\0\0\1\0\0\0\17base:allocation";
    const uint16_t with_payload = extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;

    rig_pattern(payload, 3, sizeof(payload));
    byte_buffer_append(to, flags, sizeof(flags));
    put_option(to, 77, "skipped", 7);
    put_option(to, extended ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    put_option(to, NBD_OPT_SET_META_CONTEXT, contexts, sizeof(contexts) - 1);
    put_option(to, NBD_OPT_GO, go, sizeof(go) - 1);
    put_request(to, extended, NBD_CMD_WRITE, with_payload, 1, 0, 512);
    byte_buffer_append(to, payload, 512);
    put_request(to, extended, NBD_CMD_WRITE, with_payload, 2, UINT64_MAX - 511, 512);
    byte_buffer_append(to, payload, 512); /* refused: thrown away */
    put_request(to, extended, NBD_CMD_READ, 0, 3, 0, 512);
    put_request(to, extended, NBD_CMD_BLOCK_STATUS, 0, 4, 0, 1 << 20);
    if (extended) {
        put_request(to, extended, NBD_CMD_BLOCK_STATUS, with_payload, 5, 0, sizeof(status));
        byte_buffer_append(to, status, sizeof(status));
    }
    put_request(to, extended, NBD_CMD_FLUSH, 0, 6, 0, 0);
    put_request(to, extended, NBD_CMD_DISC, 0, 0, 0, 0);
}

/* Take what arrives until the server closes. */
static void
collect(struct rig *rig, struct sim_client *client, struct byte_buffer *to)
{
    const uint8_t *data;

    rig_settle(rig);
    size_t length_bytes = sim_client_received(client, &data);
    byte_buffer_append(to, data, length_bytes);
    sim_client_consume(client, length_bytes);
}

/* Replies may come in any order: put them in that of their cookies. */
static void
put_in_order(struct byte_buffer *answer, bool extended)
{
    static const uint8_t last_ack[] = { 0, 0, 0, NBD_OPT_GO, 0, 0, 0, NBD_REP_ACK, 0, 0, 0, 0 };
    struct byte_buffer sorted = BYTE_BUFFER_INIT;
    uint8_t *end = memmem(answer->data, answer->length_bytes, last_ack, sizeof(last_ack));

    assert_non_null(end);
    size_t begin = (size_t)(end - answer->data) + sizeof(last_ack);
    byte_buffer_append(&sorted, answer->data, begin);
    for (uint64_t cookie = 1; cookie <= 6; cookie++) {
        for (size_t at = begin; at < answer->length_bytes;) {
            const uint8_t *reply = answer->data + at;
            size_t length = extended ? 32 + get_be64(reply + 24) : 20 + get_be32(reply + 16);
            if (get_be32(reply) == NBD_SIMPLE_REPLY_MAGIC) {
                length = 16;
            }
            assert_true(length <= answer->length_bytes - at);
            if (get_be64(reply + 8) == cookie) {
                byte_buffer_append(&sorted, reply, length);
            }
            at += length;
        }
    }
    assert_int_equal(sorted.length_bytes, answer->length_bytes);
    byte_buffer_free(answer);
    *answer = sorted;
}

static void
play(struct rig *rig, const struct byte_buffer *session, size_t cut, size_t step,
     struct byte_buffer *answer)
{
    struct sim_client *client = rig_connect(rig);

    for (size_t at = 0; at < session->length_bytes;) {
        size_t end = at < cut ? cut : at + step;
        end = MIN(end, session->length_bytes);
        rig_send(client, session->data + at, end - at);
        collect(rig, client, answer);
        at = end;
    }
    collect(rig, client, answer);
    assert_true(sim_client_at_end(client));
    sim_client_close(client, false);
    rig_settle(rig);
}

static void
every_cut(bool extended)
{
    struct rig rig;
    struct byte_buffer session = BYTE_BUFFER_INIT;
    struct byte_buffer wanted = BYTE_BUFFER_INIT;

    rig_start_default(&rig);
    make_session(&session, extended);
    play(&rig, &session, 0, SIZE_MAX / 2, &wanted);
    put_in_order(&wanted, extended);
    assert_true(wanted.length_bytes > 700);
    for (size_t cut = 1; cut < session.length_bytes; cut++) {
        struct byte_buffer answer = BYTE_BUFFER_INIT;
        play(&rig, &session, cut, SIZE_MAX / 2, &answer);
        put_in_order(&answer, extended);
        assert_int_equal(answer.length_bytes, wanted.length_bytes);
        assert_memory_equal(answer.data, wanted.data, wanted.length_bytes);
        byte_buffer_free(&answer);
    }
    for (size_t step = 1; step < 40; step += 6) {
        struct byte_buffer answer = BYTE_BUFFER_INIT;
        play(&rig, &session, 0, step, &answer);
        put_in_order(&answer, extended);
        assert_int_equal(answer.length_bytes, wanted.length_bytes);
        assert_memory_equal(answer.data, wanted.data, wanted.length_bytes);
        byte_buffer_free(&answer);
    }
    assert_int_equal(rig_statistics(&rig).protocol_errors, 0);
    byte_buffer_free(&session);
    byte_buffer_free(&wanted);
    rig_finish(&rig);
}

static void
structured_session(void **state)
{
    (void)state;
    every_cut(false);
}

static void
extended_session(void **state)
{
    (void)state;
    every_cut(true);
}

/* Cut off for good at every byte: nothing is left behind. */
static void
client_vanishes_at_every_byte(void **state)
{
    struct rig rig;
    struct byte_buffer session = BYTE_BUFFER_INIT;
    (void)state;
    rig_start_default(&rig);
    make_session(&session, true);
    for (size_t cut = 0; cut < session.length_bytes; cut++) {
        struct sim_client *client = rig_connect(&rig);
        rig_send(client, session.data, cut);
        if (cut % 3 != 0) {
            rig_settle(&rig);
        }
        sim_client_close(client, cut % 2 == 0);
        rig_settle(&rig);
        assert_int_equal(rig_statistics(&rig).connections_open, 0);
        assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
    }
    byte_buffer_free(&session);
    rig_finish(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structured_session),
        cmocka_unit_test(extended_session),
        cmocka_unit_test(client_vanishes_at_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
