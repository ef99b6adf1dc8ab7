/* SPDX-License-Identifier: Apache-2.0 */
/* Every command of the transmission phase in every style of framing, by raw bytes. */
#include <errno.h>

#include "tests/unit/nbd/rig.h"

static const enum rig_style styles[] = { RIG_SIMPLE, RIG_STRUCTURED, RIG_EXTENDED };

/* READ or WRITE flags: extended writes must say that they carry payload. */
static uint16_t
write_flags(enum rig_style style)
{
    return style == RIG_EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
}

static void
write_at(struct rig *rig, struct sim_client *client, enum rig_style style, uint64_t offset_bytes,
         const uint8_t *data, uint32_t length_bytes)
{
    rig_request(client, style, NBD_CMD_WRITE, write_flags(style), 70, offset_bytes, length_bytes);
    rig_send(client, data, length_bytes);
    rig_expect_ok(rig, client, style, 70, offset_bytes);
}

static void
read_and_write_everywhere(void **state)
{
    struct rig rig;
    static const struct {
        uint64_t offset;
        uint32_t length;
    } ranges[] = {
        { 0, 1 },           { 0, 4096 },          { 511, 2 },
        { 4095, 4098 },     { 12288, 16384 },     { 100000, 100000 },
        { 512, 65536 },     { 1 << 20, 1 << 20 }, { (1 << 20) + 512, (3 << 20) + 1 },
        { 0, 32 << 20 },    { 7, 32 << 20 },      { RIG_DISK_BYTES - 1, 1 },
        { RIG_DISK_BYTES - 4096, 4096 },
    };
    uint8_t *data = malloc(33 << 20);
    (void)state;
    assert_non_null(data);
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
            uint64_t offset = ranges[i].offset;
            uint32_t length = ranges[i].length;
            rig_pattern(data, offset + s, length);
            write_at(&rig, client, styles[s], offset, data, length);
            assert_memory_equal(fake_volume_memory(rig.disk) + offset, data, length);
            memset(fake_volume_memory(rig.disk) + offset, 0x5a, length);
            rig_pattern(fake_volume_memory(rig.disk) + offset, offset + s + 100, length);
            rig_pattern(data, offset + s + 100, length);
            rig_request(client, styles[s], NBD_CMD_READ, 0, 71, offset, length);
            rig_expect_data(&rig, client, styles[s], 71, offset, data, length, NULL);
        }
        const struct volume_session *session = fake_volume_session(rig.disk);
        assert_int_equal(session->reads, ARRAY_SIZE(ranges));
        assert_int_equal(session->writes, ARRAY_SIZE(ranges));
        assert_int_equal(session->read_bytes, session->written_bytes);
        assert_int_equal(session->in_flight, 0);
        sim_client_close(client, false);
    }
    free(data);
    rig_finish(&rig);
}

static void
out_of_bounds(void **state)
{
    struct rig rig;
    static const struct {
        uint16_t command;
        uint32_t error;
    } commands[] = {
        { NBD_CMD_READ, NBD_EINVAL },         { NBD_CMD_TRIM, NBD_EINVAL },
        { NBD_CMD_CACHE, NBD_EINVAL },        { NBD_CMD_WRITE_ZEROES, NBD_ENOSPC },
        { NBD_CMD_BLOCK_STATUS, NBD_EINVAL }, { NBD_CMD_WRITE, NBD_ENOSPC },
    };
    static const struct {
        uint64_t offset;
        uint32_t length;
    } ranges[] = {
        { RIG_DISK_BYTES, 1 },
        { RIG_DISK_BYTES - 4096, 4097 },
        { UINT64_MAX, 4096 },
        { UINT64_MAX - 4095, 4096 },
        { INT64_MAX, 512 },
    };
    static uint8_t payload[8192];
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        for (size_t c = 0; c < ARRAY_SIZE(commands); c++) {
            for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
                bool write = commands[c].command == NBD_CMD_WRITE;
                rig_request(client, styles[s], commands[c].command,
                            write ? write_flags(styles[s]) : 0, i, ranges[i].offset,
                            ranges[i].length);
                if (write) {
                    rig_send(client, payload, ranges[i].length);
                }
                rig_expect_error(&rig, client, styles[s], i, ranges[i].offset, commands[c].error);
            }
        }
        sim_client_close(client, false);
    }
    const struct fake_volume_counters *counters = fake_volume_counters(rig.disk);
    for (int i = 0; i < VOLUME_OPERATION_COUNT; i++) {
        assert_int_equal(counters->requests[i], 0);
    }
    rig_finish(&rig);
}

/* The place of the error is told where it lies in the request. */
static void
error_offset(void **state)
{
    struct rig rig;
    uint8_t payload[256];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_EXTENDED, "pool/disk", NULL);
    rig_request(client, RIG_EXTENDED, NBD_CMD_READ, 0, 1, RIG_DISK_BYTES - 512, 1024);
    struct rig_chunk chunk = rig_chunk(&rig, client, RIG_EXTENDED, payload, sizeof(payload));
    assert_int_equal(chunk.type, NBD_REPLY_TYPE_ERROR_OFFSET);
    assert_int_equal(get_be64(payload + chunk.length_bytes - 8), RIG_DISK_BYTES);
    rig_request(client, RIG_EXTENDED, NBD_CMD_READ, 0, 1, RIG_DISK_BYTES, 1024);
    chunk = rig_chunk(&rig, client, RIG_EXTENDED, payload, sizeof(payload));
    assert_int_equal(chunk.type, NBD_REPLY_TYPE_ERROR);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
read_only_exports(void **state)
{
    struct rig rig;
    static uint8_t payload[100000];
    uint8_t zeroes[4096] = { 0 };
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/ro", NULL);
        rig_request(client, styles[s], NBD_CMD_WRITE, write_flags(styles[s]), 1, 0,
                    sizeof(payload));
        rig_send(client, payload, sizeof(payload));
        rig_expect_error(&rig, client, styles[s], 1, 0, NBD_EPERM);
        rig_request(client, styles[s], NBD_CMD_TRIM, 0, 2, 0, 4096);
        rig_expect_error(&rig, client, styles[s], 2, 0, NBD_EPERM);
        rig_request(client, styles[s], NBD_CMD_WRITE_ZEROES, 0, 3, 0, 4096);
        rig_expect_error(&rig, client, styles[s], 3, 0, NBD_EPERM);
        rig_request(client, styles[s], NBD_CMD_READ, 0, 4, 0, sizeof(zeroes));
        rig_expect_data(&rig, client, styles[s], 4, 0, zeroes, sizeof(zeroes), NULL);
        rig_request(client, styles[s], NBD_CMD_FLUSH, 0, 5, 0, 0);
        rig_expect_ok(&rig, client, styles[s], 5, 0);
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

static void
flags_reach_the_volume(void **state)
{
    struct rig rig;
    uint8_t payload[512] = { 1 };
    (void)state;
    rig_start_default(&rig);
    const struct fake_volume_counters *counters = fake_volume_counters(rig.disk);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        uint64_t fua = counters->fua;
        rig_request(client, styles[s], NBD_CMD_WRITE, write_flags(styles[s]) | NBD_CMD_FLAG_FUA, 1,
                    0, sizeof(payload));
        rig_send(client, payload, sizeof(payload));
        rig_expect_ok(&rig, client, styles[s], 1, 0);
        rig_request(client, styles[s], NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 2, 65536, 65536);
        rig_expect_ok(&rig, client, styles[s], 2, 65536);
        rig_request(client, styles[s], NBD_CMD_WRITE_ZEROES,
                    NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 3, 65536,
                    65536);
        rig_expect_ok(&rig, client, styles[s], 3, 65536);
        assert_int_equal(counters->fua, fua + 3);
        assert_int_equal(counters->no_hole, s + 1);
        assert_int_equal(counters->fast_zero, s + 1);
        /* FUA is accepted everywhere. */
        static const uint16_t others[] = { NBD_CMD_FLUSH, NBD_CMD_CACHE };
        for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
            rig_request(client, styles[s], others[i], NBD_CMD_FLAG_FUA, 4, 0,
                        others[i] == NBD_CMD_FLUSH ? 0 : 4096);
            rig_expect_ok(&rig, client, styles[s], 4, 0);
        }
        rig_request(client, styles[s], NBD_CMD_READ, NBD_CMD_FLAG_FUA, 5, 0, 512);
        rig_expect_data(&rig, client, styles[s], 5, 0, payload, 512, NULL);
        assert_int_equal(counters->fua, fua + 3); /* and means nothing there */
        sim_client_close(client, false);
    }
    assert_int_equal(counters->requests[VOLUME_PREFETCH], 3);
    assert_int_equal(counters->requests[VOLUME_FLUSH], 3);
    assert_int_equal(counters->requests[VOLUME_DISCARD], 3);
    rig_finish(&rig);
}

static void
wrong_flags_and_commands(void **state)
{
    struct rig rig;
    static const struct {
        uint16_t command;
        uint16_t flags;
    } wrong[] = {
        { NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE },
        { NBD_CMD_READ, NBD_CMD_FLAG_REQ_ONE },
        { NBD_CMD_READ, 0x8000 },
        { NBD_CMD_FLUSH, NBD_CMD_FLAG_DF },
        { NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE },
        { NBD_CMD_CACHE, NBD_CMD_FLAG_FAST_ZERO },
        { NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_DF },
        { NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF },
        { 8, 0 },
        { 0xffff, 0 },
    };
    static uint8_t payload[4096];
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
            rig_request(client, styles[s], wrong[i].command, wrong[i].flags, i, 0,
                        wrong[i].command == NBD_CMD_FLUSH ? 0 : 4096);
            rig_expect_error(&rig, client, styles[s], i, 0, NBD_EINVAL);
        }
        /* The payload of a refused write is not taken for requests. */
        rig_request(client, styles[s], NBD_CMD_WRITE, write_flags(styles[s]) | NBD_CMD_FLAG_DF, 7,
                    0, sizeof(payload));
        rig_send(client, payload, sizeof(payload));
        rig_expect_error(&rig, client, styles[s], 7, 0, NBD_EINVAL);
        rig_request(client, styles[s], NBD_CMD_FLUSH, 0, 8, 0, 512);
        rig_expect_error(&rig, client, styles[s], 8, 0, NBD_EINVAL);
        rig_request(client, styles[s], NBD_CMD_FLUSH, 0, 8, 512, 0);
        rig_expect_error(&rig, client, styles[s], 8, 512, NBD_EINVAL);
        rig_request(client, styles[s], NBD_CMD_FLUSH, 0, 9, 0, 0);
        rig_expect_ok(&rig, client, styles[s], 9, 0);
        sim_client_close(client, false);
    }
    /* DF needs structured replies, PAYLOAD_LEN extended headers. */
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1, 0, 512);
    rig_expect_error(&rig, client, RIG_SIMPLE, 1, 0, NBD_EINVAL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 1, 0, 512);
    rig_send(client, payload, 512);
    rig_expect_error(&rig, client, RIG_SIMPLE, 1, 0, NBD_EINVAL);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
zero_length(void **state)
{
    struct rig rig;
    static const uint16_t fine[] = { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_CACHE,
                                     NBD_CMD_WRITE_ZEROES };
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
            rig_request(client, styles[s], fine[i],
                        fine[i] == NBD_CMD_WRITE ? write_flags(styles[s]) : 0, i, RIG_DISK_BYTES,
                        0);
            if (fine[i] == NBD_CMD_READ && styles[s] == RIG_STRUCTURED) {
                struct rig_chunk chunk = rig_chunk(&rig, client, styles[s], NULL, 0);
                assert_int_equal(chunk.type, NBD_REPLY_TYPE_NONE);
            } else {
                rig_expect_ok(&rig, client, styles[s], i, RIG_DISK_BYTES);
            }
        }
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 9, 0, 0);
        rig_expect_error(&rig, client, styles[s], 9, 0, NBD_EINVAL);
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

static void
longer_than_the_maximum(void **state)
{
    struct rig rig;
    static const uint32_t too_long = (32 << 20) + 1;
    uint8_t *payload = calloc(1, 64 << 20);
    (void)state;
    assert_non_null(payload);
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        rig_request(client, styles[s], NBD_CMD_READ, 0, 1, 0, too_long);
        rig_expect_error(&rig, client, styles[s], 1, 0, NBD_EINVAL);
        /* Without payload there is no limit. */
        rig_request(client, styles[s], NBD_CMD_TRIM, 0, 2, 0, RIG_DISK_BYTES);
        rig_expect_ok(&rig, client, styles[s], 2, 0);
        rig_request(client, styles[s], NBD_CMD_WRITE_ZEROES, 0, 3, 0, RIG_DISK_BYTES);
        rig_expect_ok(&rig, client, styles[s], 3, 0);
        if (styles[s] != RIG_EXTENDED) {
            rig_request(client, styles[s], NBD_CMD_WRITE, 0, 4, 0, 64 << 20);
            rig_send(client, payload, 64 << 20);
            rig_expect_error(&rig, client, styles[s], 4, 0, NBD_EINVAL);
            rig_request(client, styles[s], NBD_CMD_FLUSH, 0, 5, 0, 0);
            rig_expect_ok(&rig, client, styles[s], 5, 0);
            rig_request(client, styles[s], NBD_CMD_WRITE, 0, 6, 0, (64 << 20) + 1);
        } else {
            rig_request(client, styles[s], NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 6, 0,
                        too_long);
        }
        rig_expect_end(&rig, client);
    }
    assert_int_equal(rig_statistics(&rig).protocol_errors, 3);
    free(payload);
    rig_finish(&rig);
}

static void
bad_magic_closes(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        /* The headers of the other kind, too. */
        rig_request(client, styles[s] == RIG_EXTENDED ? RIG_SIMPLE : RIG_EXTENDED, NBD_CMD_FLUSH,
                    0, 1, 0, 0);
        rig_send(client, "more", 4);
        rig_expect_end(&rig, client);
    }
    assert_int_equal(rig_statistics(&rig).protocol_errors, 3);
    rig_settle(&rig);
    assert_int_equal(fake_volume_counters(rig.disk)->sessions, 0);
    rig_finish(&rig);
}

static void
extended_payloads(void **state)
{
    struct rig rig;
    static uint8_t payload[40000];
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_EXTENDED, "pool/disk", NULL);
    /* Payload where none belongs is consumed and refused. */
    static const uint16_t commands[] = { NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_FLUSH, 33,
                                         NBD_CMD_BLOCK_STATUS };
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        rig_request(client, RIG_EXTENDED, commands[i], NBD_CMD_FLAG_PAYLOAD_LEN, i, 0,
                    sizeof(payload));
        rig_send(client, payload, sizeof(payload));
        rig_expect_error(&rig, client, RIG_EXTENDED, i, 0, NBD_EINVAL);
    }
    /* A write that does not say that it has one cannot be understood. */
    rig_request(client, RIG_EXTENDED, NBD_CMD_WRITE, 0, 9, 0, 512);
    rig_expect_end(&rig, client);
    rig_finish(&rig);
}

static void
volume_errors(void **state)
{
    struct rig rig;
    static const struct {
        int status;
        uint32_t error;
    } errors[] = {
        { -EIO, NBD_EIO },           { -ENOSPC, NBD_ENOSPC },       { -EDQUOT, NBD_ENOSPC },
        { -EROFS, NBD_EPERM },       { -ETIMEDOUT, NBD_EIO },       { -EINVAL, NBD_EINVAL },
        { -ENOMEM, NBD_ENOMEM },     { -ESHUTDOWN, NBD_ESHUTDOWN }, { -EOPNOTSUPP, NBD_EINVAL },
        { -EILSEQ, NBD_EIO },        { -EFBIG, NBD_ENOSPC },        { -EPERM, NBD_EPERM },
        { -EOVERFLOW, NBD_EIO },
    };
    static uint8_t payload[8192];
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
            for (int operation = 0; operation < VOLUME_OPERATION_COUNT; operation++) {
                fake_volume_fail(rig.disk, operation, errors[i].status);
            }
            rig_request(client, styles[s], NBD_CMD_READ, 0, 1, 4096, 8192);
            rig_expect_error(&rig, client, styles[s], 1, 4096, errors[i].error);
            rig_request(client, styles[s], NBD_CMD_WRITE, write_flags(styles[s]), 2, 0,
                        sizeof(payload));
            rig_send(client, payload, sizeof(payload));
            rig_expect_error(&rig, client, styles[s], 2, 0, errors[i].error);
            rig_request(client, styles[s], NBD_CMD_FLUSH, 0, 3, 0, 0);
            rig_expect_error(&rig, client, styles[s], 3, 0, errors[i].error);
            if (styles[s] != RIG_SIMPLE) {
                rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 4, 0, 4096);
                rig_expect_error(&rig, client, styles[s], 4, 0, errors[i].error);
            }
            /* ENOTSUP is for who asked for speed only. */
            rig_request(client, styles[s], NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 5, 0,
                        4096);
            rig_expect_error(&rig, client, styles[s], 5, 0,
                             errors[i].status == -EOPNOTSUPP ? NBD_ENOTSUP : errors[i].error);
        }
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

static void
replies_out_of_order(void **state)
{
    struct rig rig;
    enum { COUNT = 100 };
    uint8_t data[512];
    (void)state;
    rig_start_default(&rig);
    fake_volume_reverse(rig.disk, true);
    for (size_t s = 0; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        fake_volume_hold(rig.disk, true);
        for (uint64_t i = 0; i < COUNT; i++) {
            rig_pattern(fake_volume_memory(rig.disk) + i * 512, i * 512, 512);
            rig_request(client, styles[s], NBD_CMD_READ, 0, i, i * 512, 512);
        }
        rig_settle(&rig);
        assert_int_equal(fake_volume_counters(rig.disk)->in_flight, COUNT);
        fake_volume_hold(rig.disk, false);
        uint64_t sends = rig_statistics(&rig).sends;
        rig_settle(&rig);
        assert_int_equal(rig_statistics(&rig).sends, sends + 1); /* one send for all */
        for (uint64_t i = COUNT; i-- > 0;) {
            rig_pattern(data, i * 512, 512);
            rig_expect_data(&rig, client, styles[s], i, i * 512, data, 512, NULL);
        }
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

/* Which of the 64 KiB pieces hold data. */
static void
check_sparse_read(struct rig *rig, struct sim_client *client, enum rig_style style,
                  uint64_t offset, uint32_t length, uint64_t data_mask, uint32_t wanted_holes)
{
    uint8_t *memory = fake_volume_memory(rig->disk);
    uint32_t holes;

    memset(memory + offset / 65536 * 65536, 0, length + 131072);
    for (uint64_t piece = 0; piece < 64; piece++) {
        if ((data_mask >> piece & 1) != 0) {
            memory[offset / 65536 * 65536 + piece * 65536 + 65535] = 1;
        }
    }
    rig_request(client, style, NBD_CMD_READ, 0, 5, offset, length);
    rig_expect_data(rig, client, style, 5, offset, memory + offset, length, &holes);
    assert_int_equal(holes, wanted_holes);
    /* Data behind the reply must be what it was: the volume's memory is not the reply's. */
}

static void
zeroes_are_sent_as_holes(void **state)
{
    struct rig rig;
    (void)state;
    rig_start_default(&rig);
    for (size_t s = 1; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        check_sparse_read(&rig, client, styles[s], 0, 4096, 0, 1);
        check_sparse_read(&rig, client, styles[s], 0, 512, 0, 1);
        check_sparse_read(&rig, client, styles[s], 0, 511, 0, 0); /* too short to matter */
        check_sparse_read(&rig, client, styles[s], 0, 1 << 20, 0, 1);
        check_sparse_read(&rig, client, styles[s], 0, 32 << 20, 0, 1);
        check_sparse_read(&rig, client, styles[s], 0, 1 << 20, 0xffff, 0);
        check_sparse_read(&rig, client, styles[s], 0, 1 << 20, 0x0001, 1);
        check_sparse_read(&rig, client, styles[s], 0, 1 << 20, 0x8000, 1);
        check_sparse_read(&rig, client, styles[s], 0, 1 << 20, 0x0ff0, 2);
        check_sparse_read(&rig, client, styles[s], 0, 1 << 20, 0x5555, 8);
        check_sparse_read(&rig, client, styles[s], 0, 4 << 20, UINT64_C(0x5555555555555555), 7);
        check_sparse_read(&rig, client, styles[s], 512, 1 << 20, 0x5555, 7); /* 16 chunks only */
        check_sparse_read(&rig, client, styles[s], 65536 + 4096, 2 << 20, 0x0000ff00, 2);
        check_sparse_read(&rig, client, styles[s], 4096 * 3, 3 << 20, UINT64_C(0x810000000001), 3);
        check_sparse_read(&rig, client, styles[s], 1000, 200000, 0x4, 2);
        check_sparse_read(&rig, client, styles[s], 65535, 65536 + 1, 0x2, 0);
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

static void
dont_fragment(void **state)
{
    struct rig rig;
    static uint8_t payload[(1 << 20) + 8];
    (void)state;
    rig_start_default(&rig);
    fake_volume_memory(rig.disk)[0] = 1;
    for (size_t s = 1; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        rig_request(client, styles[s], NBD_CMD_READ, NBD_CMD_FLAG_DF, 5, 0, 1 << 20);
        struct rig_chunk chunk = rig_chunk(&rig, client, styles[s], payload, sizeof(payload));
        assert_int_equal(chunk.type, NBD_REPLY_TYPE_OFFSET_DATA);
        assert_int_equal(chunk.flags, NBD_REPLY_FLAG_DONE);
        assert_int_equal(chunk.length_bytes, (1 << 20) + 8);
        sim_client_close(client, false);
    }
    rig_finish(&rig);
}

struct descriptor {
    uint64_t length;
    uint64_t flags;
};

static void
expect_status(struct rig *rig, struct sim_client *client, enum rig_style style, uint64_t cookie,
              const struct descriptor *expected, uint32_t count)
{
    uint8_t payload[32768];
    struct rig_chunk chunk = rig_chunk(rig, client, style, payload, sizeof(payload));

    assert_int_equal(chunk.cookie, cookie);
    assert_int_equal(chunk.flags, NBD_REPLY_FLAG_DONE);
    assert_int_equal(get_be32(payload), 1);
    if (style == RIG_EXTENDED) {
        assert_int_equal(chunk.type, NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
        assert_int_equal(get_be32(payload + 4), count);
        assert_int_equal(chunk.length_bytes, 8 + 16 * count);
    } else {
        assert_int_equal(chunk.type, NBD_REPLY_TYPE_BLOCK_STATUS);
        assert_int_equal(chunk.length_bytes, 4 + 8 * count);
    }
    for (uint32_t i = 0; i < count && expected != NULL; i++) {
        if (style == RIG_EXTENDED) {
            assert_int_equal(get_be64(payload + 8 + 16 * i), expected[i].length);
            assert_int_equal(get_be64(payload + 16 + 16 * i), expected[i].flags);
        } else {
            assert_int_equal(get_be32(payload + 4 + 8 * i), expected[i].length);
            assert_int_equal(get_be32(payload + 8 + 8 * i), expected[i].flags);
        }
    }
}

static void
block_status(void **state)
{
    struct rig rig;
    const uint64_t hole = NBD_STATE_HOLE | NBD_STATE_ZERO;
    (void)state;
    rig_start_default(&rig);
    fake_volume_set_allocated(rig.disk, 65536, 131072);
    for (uint64_t i = 0; i < 2000; i += 2) {
        fake_volume_set_allocated(rig.disk, (16 << 20) + i * 65536, 65536);
    }
    for (size_t s = 1; s < ARRAY_SIZE(styles); s++) {
        struct sim_client *client = rig_go(&rig, styles[s], "pool/disk", NULL);
        const struct descriptor whole[] = { { 65536, hole }, { 131072, 0 }, { 1048576, hole } };
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 1, 0, 65536 + 131072 + 1048576);
        expect_status(&rig, client, styles[s], 1, whole, 3);
        const struct descriptor middle[] = { { 1000, 0 } };
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 2, 70000, 1000);
        expect_status(&rig, client, styles[s], 2, middle, 1);
        const struct descriptor one[] = { { 65536, hole } };
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 3, 0, 8 << 20);
        expect_status(&rig, client, styles[s], 3, one, 1);
        const struct descriptor last[] = { { 1, hole } };
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 4, RIG_DISK_BYTES - 1, 1);
        expect_status(&rig, client, styles[s], 4, last, 1);
        /* Many extents: as many as fit. */
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 5, 16 << 20, 128 << 20);
        expect_status(&rig, client, styles[s], 5, NULL, 1020);
        rig_request(client, styles[s], NBD_CMD_BLOCK_STATUS, 0, 6, 16 << 20, 16 << 20);
        expect_status(&rig, client, styles[s], 6, NULL, 252);
        sim_client_close(client, false);
    }
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 512);
    rig_expect_error(&rig, client, RIG_SIMPLE, 1, 0, NBD_EINVAL);
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* What 32 bits cannot say; and no answer looks at more than 64 GiB. */
static void
block_status_of_a_large_volume(void **state)
{
    struct rig rig;
    const uint64_t gib = UINT64_C(1) << 30;
    const uint64_t hole = NBD_STATE_HOLE | NBD_STATE_ZERO;
    const struct descriptor all[] = { { 64 * gib, hole } };
    const struct descriptor two[] = { { 6 * gib, hole }, { 65536, 0 } };
    const struct descriptor rest[] = { { 30 * gib, hole } };
    (void)state;
    rig_start_default(&rig);
    struct volume *huge = fake_manager_add(rig.manager,
                                           &(struct fake_volume_options){ .pool_name = "pool",
                                                                          .name = "huge",
                                                                          .size_bytes = 100 * gib,
                                                                          .reactor =
                                                                              rig.reactors[0] });
    struct sim_client *client = rig_go(&rig, RIG_EXTENDED, "pool/huge", NULL);
    rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 100 * gib);
    expect_status(&rig, client, RIG_EXTENDED, 1, all, 1);
    fake_volume_set_allocated(huge, 6 * gib, 65536);
    rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, 0, 2, 0, 6 * gib + 65536);
    expect_status(&rig, client, RIG_EXTENDED, 2, two, 2);
    rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, 0, 3, 70 * gib, 30 * gib);
    expect_status(&rig, client, RIG_EXTENDED, 3, rest, 1);
    rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, 0, 4, 70 * gib, 30 * gib + 1);
    rig_expect_error(&rig, client, RIG_EXTENDED, 4, 70 * gib, NBD_EINVAL);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
status_payload(struct sim_client *client, uint64_t cookie, uint64_t length, const uint32_t *ids,
               uint32_t count)
{
    uint8_t payload[8 + 4 * 16];

    put_be64(payload, length);
    for (uint32_t i = 0; i < count; i++) {
        put_be32(payload + 8 + 4 * i, ids[i]);
    }
    rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, cookie, 0,
                8 + 4 * count);
    rig_send(client, payload, 8 + 4 * count);
}

static void
block_status_with_payload(void **state)
{
    struct rig rig;
    static const uint32_t ids[] = { 1, 1, 1, 1, 1, 1 };
    static const uint32_t unknown[] = { 2 };
    static const uint32_t zero[] = { 0 };
    const struct descriptor answer[] = { { 1 << 20, NBD_STATE_HOLE | NBD_STATE_ZERO } };
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_EXTENDED, "pool/disk", NULL);
    status_payload(client, 1, 1 << 20, ids, 1);
    expect_status(&rig, client, RIG_EXTENDED, 1, answer, 1);
    for (uint32_t count = 2; count <= ARRAY_SIZE(ids); count++) { /* twice the same, too many */
        status_payload(client, 2, 1 << 20, ids, count);
        rig_expect_error(&rig, client, RIG_EXTENDED, 2, 0, NBD_EINVAL);
    }
    status_payload(client, 3, 1 << 20, NULL, 0);
    rig_expect_error(&rig, client, RIG_EXTENDED, 3, 0, NBD_EINVAL);
    status_payload(client, 4, 1 << 20, unknown, 1);
    rig_expect_error(&rig, client, RIG_EXTENDED, 4, 0, NBD_EINVAL);
    status_payload(client, 4, 1 << 20, zero, 1);
    rig_expect_error(&rig, client, RIG_EXTENDED, 4, 0, NBD_EINVAL);
    status_payload(client, 5, RIG_DISK_BYTES + 1, ids, 1);
    rig_expect_error(&rig, client, RIG_EXTENDED, 5, 0, NBD_EINVAL);
    rig_request(client, RIG_EXTENDED, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 6, 0, 5);
    rig_send(client, "12345", 5);
    rig_expect_error(&rig, client, RIG_EXTENDED, 6, 0, NBD_EINVAL);
    status_payload(client, 7, 1 << 20, ids, 1);
    expect_status(&rig, client, RIG_EXTENDED, 7, answer, 1);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
block_sizes_are_kept(void **state)
{
    struct rig rig;
    static const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE };
    uint8_t info[64];
    uint8_t payload[4096] = { 0 };
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_greet(&rig, RIG_ADDRESS);
    rig_info_or_go(client, NBD_OPT_GO, "pool/4k", infos, 1);
    rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
    rig_option_reply(&rig, client, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info));
    rig_expect_ack(&rig, client, NBD_OPT_GO);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 512, 4096);
    rig_expect_error(&rig, client, RIG_SIMPLE, 1, 512, NBD_EINVAL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 2, 0, 512);
    rig_send(client, payload, 512);
    rig_expect_error(&rig, client, RIG_SIMPLE, 2, 0, NBD_EINVAL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 3, 4096, 4096);
    rig_send(client, payload, 4096);
    rig_expect_ok(&rig, client, RIG_SIMPLE, 3, 4096);
    sim_client_close(client, false);
    /* Without the promise, bytes work. */
    client = rig_go(&rig, RIG_SIMPLE, "pool/4k", NULL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 4, 3, 5);
    rig_expect_data(&rig, client, RIG_SIMPLE, 4, 3, payload, 5, NULL);
    sim_client_close(client, false);
    rig_finish(&rig);
}

static void
resized_volume(void **state)
{
    struct rig rig;
    uint8_t zero = 0;
    (void)state;
    rig_start_default(&rig);
    struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/ro", NULL);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 1, 1 << 20, 1);
    rig_expect_error(&rig, client, RIG_SIMPLE, 1, 1 << 20, NBD_EINVAL);
    fake_volume_set_size(rig.read_only, (1 << 20) + 4096);
    fake_volume_send_event(rig.read_only, VOLUME_SESSION_RESIZED);
    rig_settle(&rig);
    rig_request(client, RIG_SIMPLE, NBD_CMD_READ, 0, 2, 1 << 20, 1);
    rig_expect_data(&rig, client, RIG_SIMPLE, 2, 1 << 20, &zero, 1, NULL);
    sim_client_close(client, false);
    rig_finish(&rig);
}

/* DISC, and the end of the client's bytes, wait for what is in flight. */
static void
disconnect_finishes_requests(void **state)
{
    struct rig rig;
    static uint8_t payload[65536];
    (void)state;
    rig_start_default(&rig);
    for (int way = 0; way < 2; way++) {
        struct sim_client *client = rig_go(&rig, RIG_SIMPLE, "pool/disk", NULL);
        fake_volume_hold(rig.disk, true);
        rig_pattern(payload, (uint64_t)way, sizeof(payload));
        rig_request(client, RIG_SIMPLE, NBD_CMD_WRITE, 0, 1, 0, sizeof(payload));
        rig_send(client, payload, sizeof(payload));
        if (way == 0) {
            rig_request(client, RIG_SIMPLE, NBD_CMD_DISC, 0, 0, 0, 0);
            rig_request(client, RIG_SIMPLE, NBD_CMD_TRIM, 0, 9, 0, 4096); /* not looked at */
        } else {
            sim_client_shutdown(client);
        }
        rig_expect_silence(&rig, client);
        fake_volume_hold(rig.disk, false);
        rig_expect_ok(&rig, client, RIG_SIMPLE, 1, 0);
        rig_expect_end(&rig, client);
        assert_memory_equal(fake_volume_memory(rig.disk), payload, sizeof(payload));
    }
    assert_int_equal(fake_volume_counters(rig.disk)->requests[VOLUME_DISCARD], 0);
    assert_int_equal(rig_statistics(&rig).protocol_errors, 0);
    rig_finish(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_and_write_everywhere),
        cmocka_unit_test(out_of_bounds),
        cmocka_unit_test(error_offset),
        cmocka_unit_test(read_only_exports),
        cmocka_unit_test(flags_reach_the_volume),
        cmocka_unit_test(wrong_flags_and_commands),
        cmocka_unit_test(zero_length),
        cmocka_unit_test(longer_than_the_maximum),
        cmocka_unit_test(bad_magic_closes),
        cmocka_unit_test(extended_payloads),
        cmocka_unit_test(volume_errors),
        cmocka_unit_test(replies_out_of_order),
        cmocka_unit_test(zeroes_are_sent_as_holes),
        cmocka_unit_test(dont_fragment),
        cmocka_unit_test(block_status),
        cmocka_unit_test(block_status_of_a_large_volume),
        cmocka_unit_test(block_status_with_payload),
        cmocka_unit_test(block_sizes_are_kept),
        cmocka_unit_test(resized_volume),
        cmocka_unit_test(disconnect_finishes_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
