/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of the handshake, by raw bytes. */
#include <errno.h>

#include "tests/unit/nbd/rig.h"

static void
greeting_and_abort(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_ABORT, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_ABORT);
    rig_expect_end(&rig, client);
    client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_ABORT, "ignored", 7);
    rig_expect_ack(&rig, client, NBD_OPT_ABORT);
    rig_expect_end(&rig, client);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 0);
    assert_int_equal(rig_statistics(&rig).connections_accepted, 2);
    rig_finish(&rig);
}

static void
wrong_client_flags_close(void **state)
{
    struct rig rig;
    static const uint8_t flags[4] = { 0, 0, 0, 7 };
    uint8_t greeting[18];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_connect(&rig);
    rig_receive(&rig, client, greeting, sizeof(greeting));
    rig_send(client, flags, sizeof(flags));
    rig_expect_end(&rig, client);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 1);
    assert_int_equal(rig_statistics(&rig).handshakes_failed, 1);
    rig_finish(&rig);
}

static void
wrong_option_magic_closes(void **state)
{
    struct rig rig;
    uint8_t header[16] = "IHAVEOPX";
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_send(client, header, sizeof(header));
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
unknown_options_keep_the_place(void **state)
{
    struct rig rig;
    static uint8_t data[200000];
    static const uint32_t options[] = { 0, 4, 12, 99, 0xffffffff };
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        rig_option(client, options[i], data, i * 50000);
        rig_expect_option_error(&rig, client, options[i], NBD_REP_ERR_UNSUP);
    }
    rig_option(client, NBD_OPT_ABORT, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_ABORT);
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
too_much_data(void **state)
{
    struct rig rig;
    static uint8_t data[100000];
    uint8_t header[16];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_GO, data, sizeof(data));
    rig_expect_option_error(&rig, client, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
    memcpy(header, "IHAVEOPT", 8);
    put_be32(header + 8, NBD_OPT_GO);
    put_be32(header + 12, 0x7fffffff);
    rig_send(client, header, sizeof(header));
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
list(void **state)
{
    struct rig rig;
    static const char *const names[] = { "pool/disk", "pool/ro", "pool/excl", "pool/4k" };
    uint8_t data[512];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_LIST, "x", 1);
    rig_expect_option_error(&rig, client, NBD_OPT_LIST, NBD_REP_ERR_INVALID);
    for (int round = 0; round < 2; round++) {
        rig_option(client, NBD_OPT_LIST, NULL, 0);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            uint32_t length = rig_option_reply(&rig, client, NBD_OPT_LIST, NBD_REP_SERVER, data,
                                               sizeof(data));
            assert_int_equal(length, 4 + strlen(names[i]));
            assert_int_equal(get_be32(data), strlen(names[i]));
            assert_memory_equal(data + 4, names[i], strlen(names[i]));
        }
        rig_expect_ack(&rig, client, NBD_OPT_LIST);
    }
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* One INFO reply of this kind. */
static void
expect_info(struct rig *rig, struct sim_client *client, uint32_t option, uint16_t info,
            const void *expected, uint32_t length)
{
    uint8_t data[512];
    assert_int_equal(
        rig_option_reply(rig, client, option, NBD_REP_INFO, data, sizeof(data)), 2 + length);
    assert_int_equal(get_be16(data), info);
    assert_memory_equal(data + 2, expected, length);
}

#define FLAGS_WRITABLE                                                                             \
    (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |           \
     NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO)

static void
export_info(uint8_t to[10], uint64_t size_bytes, uint16_t flags)
{
    put_be64(to, size_bytes);
    put_be16(to + 8, flags);
}

static void
info_tells_everything(void **state)
{
    struct rig rig;
    static const uint16_t infos[] = { 3, 2, 1, 0, 77 };
    uint8_t export[10];
    uint8_t sizes[12];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_info_or_go(client, NBD_OPT_INFO, "pool/4k", infos, ARRAY_SIZE(infos));
    export_info(export, 1 << 20, FLAGS_WRITABLE | NBD_FLAG_CAN_MULTI_CONN);
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_EXPORT, export, sizeof(export));
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_NAME, "pool/4k", 7);
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_DESCRIPTION, "volume pool/4k, 1 MiB", 21);
    put_be32(sizes, 4096);
    put_be32(sizes + 4, 4096);
    put_be32(sizes + 8, 32 << 20);
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
    rig_expect_ack(&rig, client, NBD_OPT_INFO);
    /* Who does not ask may use bytes. */
    rig_info_or_go(client, NBD_OPT_INFO, "pool/ro", NULL, 0);
    export_info(export, 1 << 20,
                NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                    NBD_FLAG_SEND_CACHE | NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN);
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_EXPORT, export, sizeof(export));
    put_be32(sizes, 1);
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
    rig_expect_ack(&rig, client, NBD_OPT_INFO);
    rig_info_or_go(client, NBD_OPT_INFO, "pool/excl", NULL, 0);
    export_info(export, 1 << 20, FLAGS_WRITABLE);
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_EXPORT, export, sizeof(export));
    expect_info(&rig, client, NBD_OPT_INFO, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
    rig_expect_ack(&rig, client, NBD_OPT_INFO);
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.exclusive)->lookups_held, 0);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
info_and_go_refuse(void **state)
{
    struct rig rig;
    char name[5000];
    uint8_t data[64] = { 0 };
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    static const uint32_t both[] = { NBD_OPT_INFO, NBD_OPT_GO };
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        uint32_t option = both[i];
        rig_info_or_go(client, option, "pool/none", NULL, 0);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_UNKNOWN);
        rig_info_or_go(client, option, "", NULL, 0);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_UNKNOWN);
        memset(name, 'a', sizeof(name));
        name[300] = '\0';
        rig_info_or_go(client, option, name, NULL, 0);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_UNKNOWN);
        name[300] = 'a';
        name[4097] = '\0';
        rig_info_or_go(client, option, name, NULL, 0);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_INVALID);
        for (size_t length = 0; length < 6; length++) {
            rig_option(client, option, data, length);
            rig_expect_option_error(&rig, client, option, NBD_REP_ERR_INVALID);
        }
        put_be32(data, 0xfffffff0);
        rig_option(client, option, data, 20);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_INVALID);
        put_be32(data, 2); /* name of 2 bytes, 1 info announced, none there */
        memcpy(data + 4, "ab\0\1", 4);
        rig_option(client, option, data, 8);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_INVALID);
        memcpy(data + 4, "a\0\0\0", 4); /* NUL in the name */
        rig_option(client, option, data, 8);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_INVALID);
        fake_volume_set_lookup_status(rig.disk, -ENODEV);
        rig_info_or_go(client, option, "pool/disk", NULL, 0);
        rig_expect_option_error(&rig, client, option, NBD_REP_ERR_UNKNOWN);
        fake_volume_set_lookup_status(rig.disk, 0);
    }
    fake_volume_set_attach_status(rig.disk, -EBUSY);
    rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_GO, NBD_REP_ERR_POLICY);
    fake_volume_set_attach_status(rig.disk, -EACCES);
    rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_GO, NBD_REP_ERR_POLICY);
    fake_volume_set_attach_status(rig.disk, -ENODEV);
    rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
    fake_volume_set_attach_status(rig.disk, 0);
    /* After all that it still works. */
    rig_info_or_go(client, NBD_OPT_GO, "pool/ro", NULL, 0);
    uint8_t info[64];
    rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
    rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
    rig_expect_ack(&rig, client, NBD_OPT_GO);
    assert_int_equal(fake_volume_counters(rig.read_only)->sessions, 1);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
export_name(void **state)
{
    struct rig rig;
    uint8_t reply[10 + 124];
    uint8_t zeroes[124] = { 0 };
    static const uint8_t plain_flags[4] = { 0, 0, 0, 0 };
    uint8_t greeting[18];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
    rig_receive(&rig, client, reply, 10);
    assert_int_equal(get_be64(reply), RIG_DISK_BYTES);
    assert_int_equal(get_be16(reply + 8), FLAGS_WRITABLE | NBD_FLAG_CAN_MULTI_CONN);
    rig_request(client, RIG_SIMPLE, NBD_CMD_FLUSH, 0, 5, 0, 0);
    rig_expect_ok(&rig, client, RIG_SIMPLE, 5, 0);
    sim_client_close(client, false);
    /* Not even fixed newstyle: the zeroes come. */
    client = rig_connect(&rig);
    rig_receive(&rig, client, greeting, sizeof(greeting));
    rig_send(client, plain_flags, sizeof(plain_flags));
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
    rig_receive(&rig, client, reply, sizeof(reply));
    assert_memory_equal(reply + 10, zeroes, sizeof(zeroes));
    rig_request(client, RIG_SIMPLE, NBD_CMD_DISC, 0, 0, 0, 0);
    rig_expect_end(&rig, client);
    /* No other option without fixed newstyle. */
    client = rig_connect(&rig);
    rig_receive(&rig, client, greeting, sizeof(greeting));
    rig_send(client, plain_flags, sizeof(plain_flags));
    rig_option(client, NBD_OPT_LIST, NULL, 0);
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
export_name_failures_close(void **state)
{
    struct rig rig;
    static char name[70000];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool/none", 9);
    rig_expect_end(&rig, client);
    client = rig_greet(&rig, RIG_ADDRESS);
    memset(name, 'a', sizeof(name));
    rig_option(client, NBD_OPT_EXPORT_NAME, name, 5000);
    rig_expect_end(&rig, client);
    client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_EXPORT_NAME, name, sizeof(name));
    rig_expect_end(&rig, client);
    client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool\0disk", 9);
    rig_expect_end(&rig, client);
    fake_volume_set_attach_status(rig.disk, -EBUSY);
    client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
    rig_expect_end(&rig, client);
    client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_EXTENDED_HEADERS);
    rig_option(client, NBD_OPT_EXPORT_NAME, "pool/ro", 7);
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
styles_of_reply(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_STRUCTURED_REPLY, "x", 1);
    rig_expect_option_error(&rig, client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
    rig_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_STRUCTURED_REPLY);
    rig_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
    rig_option(client, NBD_OPT_EXTENDED_HEADERS, "x", 1);
    rig_expect_option_error(&rig, client, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_INVALID);
    rig_option(client, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_EXTENDED_HEADERS);
    rig_option(client, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_INVALID);
    rig_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_EXT_HEADER_REQD);
    sim_client_close(client, false);
    /* DF and the payload of BLOCK_STATUS are advertised where they work. */
    struct rig_go go;
    client = rig_go(&rig, RIG_SIMPLE, "pool/disk", &go);
    assert_int_equal(go.flags, FLAGS_WRITABLE | NBD_FLAG_CAN_MULTI_CONN);
    sim_client_close(client, false);
    client = rig_go(&rig, RIG_STRUCTURED, "pool/disk", &go);
    assert_int_equal(go.flags, FLAGS_WRITABLE | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_DF);
    sim_client_close(client, false);
    client = rig_go(&rig, RIG_EXTENDED, "pool/disk", &go);
    assert_int_equal(go.flags, FLAGS_WRITABLE | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_DF |
                                   NBD_FLAG_BLOCK_STATUS_PAYLOAD);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
expect_context(struct rig *rig, struct sim_client *client, uint32_t option, uint32_t id)
{
    uint8_t data[64];
    assert_int_equal(
        rig_option_reply(rig, client, option, NBD_REP_META_CONTEXT, data, sizeof(data)), 19);
    assert_int_equal(get_be32(data), id);
    assert_memory_equal(data + 4, "base:allocation", 15);
    rig_expect_ack(rig, client, option);
}

static void
meta_contexts(void **state)
{
    struct rig rig;
    const uint32_t list_option = NBD_OPT_LIST_META_CONTEXT;
    const uint32_t set = NBD_OPT_SET_META_CONTEXT;
    static const char *const nothing[] = { "qemu:dirty-bitmap:x", "base:none", "x-y:z", "base:al",
                                           "base:allocation2" };
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_meta_context(client, set, "pool/disk", "base:allocation");
    rig_expect_option_error(&rig, client, set, NBD_REP_ERR_INVALID); /* not yet structured */
    rig_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    rig_expect_ack(&rig, client, NBD_OPT_STRUCTURED_REPLY);
    rig_meta_context(client, list_option, "pool/disk", NULL);
    expect_context(&rig, client, list_option, 0);
    rig_meta_context(client, list_option, "pool/disk", "base:");
    expect_context(&rig, client, list_option, 0);
    rig_meta_context(client, list_option, "pool/disk", "base:allocation");
    expect_context(&rig, client, list_option, 0);
    for (size_t i = 0; i < ARRAY_SIZE(nothing); i++) {
        rig_meta_context(client, list_option, "pool/disk", nothing[i]);
        rig_expect_ack(&rig, client, list_option);
        rig_meta_context(client, set, "pool/disk", nothing[i]);
        rig_expect_ack(&rig, client, set);
    }
    rig_meta_context(client, set, "pool/disk", NULL);
    rig_expect_ack(&rig, client, set);
    rig_meta_context(client, set, "pool/disk", "base:"); /* no wildcard here */
    rig_expect_ack(&rig, client, set);
    rig_meta_context(client, set, "pool/disk", "allocation");
    rig_expect_option_error(&rig, client, set, NBD_REP_ERR_INVALID);
    rig_meta_context(client, set, "pool/disk", ":allocation");
    rig_expect_option_error(&rig, client, set, NBD_REP_ERR_INVALID);
    rig_meta_context(client, set, "pool/none", "base:allocation");
    rig_expect_option_error(&rig, client, set, NBD_REP_ERR_UNKNOWN);
    static const uint8_t broken[][16] = {
        { 0, 0, 0, 1, 'a', 0, 0, 0 },
        { 0, 0, 0, 9, 'a', 0, 0, 0, 0, 0, 0, 0 },
        { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 'a', ':' },
        { 0, 0, 0, 0, 0, 0, 0, 0, 1 },
        { 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff },
    };
    static const size_t lengths[] = { 8, 12, 14, 9, 8 };
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        rig_option(client, set, broken[i], lengths[i]);
        rig_expect_option_error(&rig, client, set, NBD_REP_ERR_INVALID);
    }
    rig_meta_context(client, set, "pool/disk", "base:allocation");
    expect_context(&rig, client, set, 1);
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* Contexts are of no use after they were replaced, failed, or for another export. */
static void
meta_contexts_are_forgotten(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    for (int way = 0; way < 3; way++) {
        struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
        rig_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        rig_expect_ack(&rig, client, NBD_OPT_STRUCTURED_REPLY);
        rig_meta_context(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", "base:allocation");
        expect_context(&rig, client, NBD_OPT_SET_META_CONTEXT, 1);
        if (way == 0) {
            rig_meta_context(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", NULL);
            rig_expect_ack(&rig, client, NBD_OPT_SET_META_CONTEXT);
        } else if (way == 1) {
            rig_meta_context(client, NBD_OPT_SET_META_CONTEXT, "pool/disk", "bad");
            rig_expect_option_error(&rig, client, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
        }
        rig_info_or_go(client, NBD_OPT_GO, way == 2 ? "pool/ro" : "pool/disk", NULL, 0);
        uint8_t info[64];
        rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
        rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
        rig_expect_ack(&rig, client, NBD_OPT_GO);
        rig_request(client, RIG_STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, 3, 0, 4096);
        rig_expect_error(&rig, client, RIG_STRUCTURED, 3, 0, NBD_EINVAL);
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

static void
starttls_without_tls(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_STARTTLS, NULL, 0);
    rig_expect_option_error(&rig, client, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
handshake_times_out(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *silent = rig_connect(&rig);
    struct sim_client *slow = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *asking = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *good = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    uint8_t greeting[18];
    rig_receive(&rig, silent, greeting, sizeof(greeting));
    rig_send(slow, "IHAVE", 5);
    fake_manager_hold_lookups(rig.manager, true);
    rig_info_or_go(asking, NBD_OPT_INFO, "pool/disk", NULL, 0);
    rig_run_for(&rig, 8 * NS_PER_S);
    assert_int_equal(rig_statistics(&rig).connections_open, 4);
    rig_run_for(&rig, 4 * NS_PER_S);
    rig_expect_end(&rig, silent);
    rig_expect_end(&rig, slow);
    rig_expect_end(&rig, asking);
    assert_int_equal(rig_statistics(&rig).connections_open, 2); /* its look-up is not over */
    fake_manager_hold_lookups(rig.manager, false);
    rig_settle(&rig);
    assert_int_equal(rig_statistics(&rig).connections_open, 1);
    assert_int_equal(rig_statistics(&rig).handshakes_failed, 3);
    rig_request(good, RIG_SIMPLE, NBD_CMD_FLUSH, 0, 5, 0, 0);
    rig_expect_ok(&rig, good, RIG_SIMPLE, 5, 0);
    sim_client_close(good, false);
    rig_finish(&rig);
}

static void
clients_leave_at_any_time(void **state)
{
    struct rig rig;
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        rig_start_default(&rig);
        struct sim_client *client = rig_connect(&rig);
        sim_client_close(client, reset);
        client = rig_greet(&rig, RIG_ADDRESS);
        sim_client_close(client, reset);
        client = rig_greet(&rig, RIG_ADDRESS);
        fake_manager_hold_lookups(rig.manager, true);
        rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
        rig_settle(&rig);
        sim_client_close(client, reset);
        client = rig_greet(&rig, RIG_ADDRESS);
        rig_option(client, NBD_OPT_LIST, NULL, 0);
        rig_settle(&rig);
        sim_client_close(client, reset);
        rig_settle(&rig);
        fake_manager_hold_lookups(rig.manager, false);
        rig_settle(&rig);
        rig_run_for(&rig, NS_PER_S);
        assert_int_equal(rig_statistics(&rig).connections_open, 0);
        assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
        rig_finish(&rig);
    }
}

/* ---- pools that are being opened ---- */

static void
unknown_exports_wait_for_pools(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_set_lookup_status(rig.disk, -EAGAIN);
    struct sim_client *info = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *named = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *leaving = rig_greet(&rig, RIG_ADDRESS);
    rig_info_or_go(info, NBD_OPT_INFO, "pool/disk", NULL, 0);
    rig_option(named, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
    rig_info_or_go(leaving, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_run_for(&rig, 25 * NS_PER_S);
    rig_expect_silence(&rig, info);
    rig_expect_silence(&rig, named);
    sim_client_close(leaving, false);
    assert_int_equal(rig_statistics(&rig).connections_open, 3);
    /* A name that is known is not held up. */
    struct sim_client *good = rig_go(&rig, RIG_SIMPLE, "pool/ro", NULL);
    fake_volume_set_lookup_status(rig.disk, 0);
    rig_run_for(&rig, 2 * NS_PER_S);
    uint8_t reply[64];
    rig_option_reply(&rig, info, NBD_OPT_INFO, NBD_REP_INFO, reply, sizeof(reply));
    rig_option_reply(&rig, info, NBD_OPT_INFO, NBD_REP_INFO, reply, sizeof(reply));
    rig_expect_ack(&rig, info, NBD_OPT_INFO);
    rig_receive(&rig, named, reply, 10);
    assert_int_equal(get_be64(reply), RIG_DISK_BYTES);
    /* The handshake has its own time as before. */
    rig_run_for(&rig, 5 * NS_PER_S);
    rig_info_or_go(info, NBD_OPT_INFO, "pool/disk", NULL, 0);
    rig_option_reply(&rig, info, NBD_OPT_INFO, NBD_REP_INFO, reply, sizeof(reply));
    rig_option_reply(&rig, info, NBD_OPT_INFO, NBD_REP_INFO, reply, sizeof(reply));
    rig_expect_ack(&rig, info, NBD_OPT_INFO);
    sim_client_close(info, false);
    sim_client_close(named, false);
    sim_client_close(good, false);
    rig_finish(&rig);
}

static void
who_has_waited_is_told_to_try_again(void **state)
{
    struct rig rig;
    static const uint32_t options[] = { NBD_OPT_INFO, NBD_OPT_GO };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        rig_start_default(&rig);
        fake_volume_set_lookup_status(rig.disk, -EAGAIN);
        struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
        struct sim_client *named = rig_greet(&rig, RIG_ADDRESS);
        rig_info_or_go(client, options[i], "pool/disk", NULL, 0);
        rig_option(named, NBD_OPT_EXPORT_NAME, "pool/disk", 9);
        rig_run_for(&rig, 29 * NS_PER_S);
        rig_expect_silence(&rig, client);
        rig_run_for(&rig, 3 * NS_PER_S);
        rig_expect_option_error(&rig, client, options[i], NBD_REP_ERR_SHUTDOWN);
        rig_expect_end(&rig, client);
        rig_expect_end(&rig, named);
        assert_int_equal(rig_statistics(&rig).protocol_errors, 0);
        rig_finish(&rig);
    }
}

/* A name that is not there yet would be taken for one that is gone. */
static void
a_list_waits_for_pools(void **state)
{
    struct rig rig;
    uint8_t data[64];

    (void)state;
    for (int is_late = 0; is_late < 2; is_late++) {
        uint32_t count = is_late != 0 ? 3 : 4;
        rig_start_default(&rig);
        fake_volume_set_lookup_status(rig.disk, -EAGAIN);
        struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
        rig_option(client, NBD_OPT_LIST, NULL, 0);
        rig_run_for(&rig, 4 * NS_PER_S);
        rig_expect_silence(&rig, client);
        if (is_late == 0) {
            fake_volume_set_lookup_status(rig.disk, 0);
        }
        rig_run_for(&rig, 2 * NS_PER_S);
        for (uint32_t i = 0; i < count; i++) {
            rig_option_reply(&rig, client, NBD_OPT_LIST, NBD_REP_SERVER, data, sizeof(data));
        }
        rig_expect_ack(&rig, client, NBD_OPT_LIST);
        /* Once; what is served can still be used. */
        rig_option(client, NBD_OPT_LIST, NULL, 0);
        for (uint32_t i = 0; i < count; i++) {
            rig_option_reply(&rig, client, NBD_OPT_LIST, NBD_REP_SERVER, data, sizeof(data));
        }
        rig_expect_ack(&rig, client, NBD_OPT_LIST);
        rig_info_or_go(client, NBD_OPT_INFO, "pool/ro", NULL, 0);
        rig_option_reply(&rig, client, NBD_OPT_INFO, NBD_REP_INFO, data, sizeof(data));
        rig_option_reply(&rig, client, NBD_OPT_INFO, NBD_REP_INFO, data, sizeof(data));
        rig_expect_ack(&rig, client, NBD_OPT_INFO);
        if (is_late != 0) { /* INFO and GO have their own patience */
            rig_info_or_go(client, NBD_OPT_INFO, "pool/disk", NULL, 0);
            rig_run_for(&rig, 29 * NS_PER_S);
            rig_expect_silence(&rig, client);
            fake_volume_set_lookup_status(rig.disk, 0);
            rig_option_reply(&rig, client, NBD_OPT_INFO, NBD_REP_INFO, data, sizeof(data));
            rig_option_reply(&rig, client, NBD_OPT_INFO, NBD_REP_INFO, data, sizeof(data));
            rig_expect_ack(&rig, client, NBD_OPT_INFO);
        }
        sim_client_close(client, false);
        rig_finish(&rig);
    }
}

static void
the_end_does_not_wait_for_pools(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    fake_volume_set_lookup_status(rig.disk, -EAGAIN);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *lister = rig_greet(&rig, RIG_ADDRESS);
    rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_option(lister, NBD_OPT_LIST, NULL, 0);
    rig_run_for(&rig, 5 * NS_PER_S);
    rig_begin_stop(&rig, 10 * NS_PER_S);
    rig_run_for(&rig, NS_PER_S / 2);
    rig_expect_option_error(&rig, client, NBD_OPT_GO, NBD_REP_ERR_SHUTDOWN);
    rig_expect_end(&rig, client);
    rig_expect_option_error(&rig, lister, NBD_OPT_LIST, NBD_REP_ERR_SHUTDOWN);
    rig_expect_end(&rig, lister);
    assert_true(rig.stopped);
    rig_finish(&rig);
}

static void
options_sent_without_waiting(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    rig_option(client, 77, "data", 4);
    rig_info_or_go(client, NBD_OPT_GO, "pool/disk", NULL, 0);
    rig_request(client, RIG_STRUCTURED, NBD_CMD_FLUSH, 0, 9, 0, 0);
    rig_expect_ack(&rig, client, NBD_OPT_STRUCTURED_REPLY);
    rig_expect_option_error(&rig, client, 77, NBD_REP_ERR_UNSUP);
    uint8_t info[64];
    rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
    rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
    rig_expect_ack(&rig, client, NBD_OPT_GO);
    rig_expect_ok(&rig, client, RIG_STRUCTURED, 9, 0);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
connections_are_limited(void **state)
{
    struct rig rig;
    struct rig_options options = rig_options_default();
    (void)state;
    options.limits.connections_max = 2;
    rig_start(&rig, &options);
    struct sim_client *first = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    struct sim_client *second = rig_greet(&rig, RIG_ADDRESS);
    struct sim_client *third = rig_connect(&rig);
    rig_expect_end(&rig, third);
    assert_int_equal(rig_statistics(&rig).connections_refused, 1);
    sim_client_close(second, false);
    rig_settle(&rig);
    third = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    sim_client_close(first, false);
    sim_client_close(third, true);
    rig_finish(&rig);
}

static void
session_is_described(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/excl", NULL);
    const struct volume_session *session = fake_volume_session(rig.exclusive);
    assert_non_null(session);
    assert_string_equal(session->protocol, "nbd");
    assert_true(session->exclusive);
    assert_false(session->read_only);
    assert_true(session->peer[0] != '\0');
    assert_string_equal(session->identity, "");
    struct sim_client *other = rig_greet(&rig, RIG_ADDRESS);
    rig_info_or_go(other, NBD_OPT_GO, "pool/excl", NULL, 0);
    rig_expect_option_error(&rig, other, NBD_OPT_GO, NBD_REP_ERR_POLICY);
    sim_client_close(other, false);
    sim_client_close(client, false);
    rig_finish(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greeting_and_abort),
        cmocka_unit_test(wrong_client_flags_close),
        cmocka_unit_test(wrong_option_magic_closes),
        cmocka_unit_test(unknown_options_keep_the_place),
        cmocka_unit_test(too_much_data),
        cmocka_unit_test(list),
        cmocka_unit_test(info_tells_everything),
        cmocka_unit_test(info_and_go_refuse),
        cmocka_unit_test(export_name),
        cmocka_unit_test(export_name_failures_close),
        cmocka_unit_test(styles_of_reply),
        cmocka_unit_test(meta_contexts),
        cmocka_unit_test(meta_contexts_are_forgotten),
        cmocka_unit_test(starttls_without_tls),
        cmocka_unit_test(handshake_times_out),
        cmocka_unit_test(clients_leave_at_any_time),
        cmocka_unit_test(unknown_exports_wait_for_pools),
        cmocka_unit_test(who_has_waited_is_told_to_try_again),
        cmocka_unit_test(a_list_waits_for_pools),
        cmocka_unit_test(the_end_does_not_wait_for_pools),
        cmocka_unit_test(options_sent_without_waiting),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(session_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
