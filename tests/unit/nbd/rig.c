/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/nbd/rig.h"

#include <stdio.h>

/* ---- life ---- */

struct rig_options
rig_options_default(void)
{
    struct nbd_server_options server;
    nbd_server_options_default(&server);
    return (struct rig_options){ .seed = 1, .limits = server.limits };
}

static struct volume *
add_volume(struct rig *rig, const char *name, uint64_t size_bytes, uint32_t reactor,
           struct fake_volume_options options)
{
    options.pool_name = "pool";
    options.name = name;
    options.size_bytes = size_bytes;
    options.reactor = rig->reactors[reactor];
    return fake_manager_add(rig->manager, &options);
}

void
rig_start(struct rig *rig, const struct rig_options *options)
{
    struct nbd_listen listens[] = {
        { RIG_ADDRESS, 0, NBD_TLS_OFF },
        { RIG_ADDRESS_TLS, 0, NBD_TLS_REQUIRED },
        { RIG_ADDRESS_OPT, 0, NBD_TLS_OPTIONAL },
    };
    struct nbd_server_options server;
    struct error error = { 0 };

    memset(rig, 0, sizeof(*rig));
    rig->sim = sim_create(&(struct sim_options){ .seed = options->seed });
    sim_set_network(rig->sim, &(struct sim_network){ .whole = !options->fragments,
                                                     .window_bytes = 256 << 10 });
    for (uint32_t i = 0; i < RIG_REACTORS; i++) {
        struct reactor_options reactor = {
            .id = i,
            .cpu = -1,
            .buffer_pool_bytes = options->pool_bytes != 0 ? options->pool_bytes : 96 << 20,
        };
        assert_int_equal(
            reactor_create(sim_platform(rig->sim), &reactor, &rig->reactors[i], &error), 0);
    }
    rig->manager = fake_manager_create(rig->reactors[0]);
    rig->disk = add_volume(rig, "disk", RIG_DISK_BYTES, 1, (struct fake_volume_options){ 0 });
    rig->read_only = add_volume(rig, "ro", 1 << 20, 0,
                                (struct fake_volume_options){ .read_only = true });
    rig->exclusive = add_volume(rig, "excl", 1 << 20, 1,
                                (struct fake_volume_options){ .exclusive = true });
    rig->coarse = add_volume(rig, "4k", 1 << 20, 0,
                             (struct fake_volume_options){ .sector_bytes = 4096 });
    nbd_server_options_default(&server);
    server.reactors = rig->reactors;
    server.reactor_count = RIG_REACTORS;
    server.manager = rig->manager;
    server.listens = listens;
    server.listen_count = options->with_tls ? ARRAY_SIZE(listens) : 1;
    server.limits = options->limits;
    server.tls = options->tls;
    int rc = nbd_server_create(&server, &rig->server, &error);
    if (rc != 0) {
        fail_msg("%s", error.message);
    }
    nbd_server_start(rig->server);
    rig_settle(rig);
}

void
rig_start_default(struct rig *rig)
{
    struct rig_options options = rig_options_default();
    rig_start(rig, &options);
}

struct stop_message {
    struct message message;
    struct rig *rig;
};

static void
stop_done(struct io_op *op)
{
    struct nbd_server_stop *stop = container_of(op, struct nbd_server_stop, op);
    struct rig *rig = container_of(stop, struct rig, stop);
    rig->stopped = true;
    rig->stop_result = op->result;
}

static void
stop_on_control(struct message *message)
{
    struct stop_message *stop = container_of(message, struct stop_message, message);
    stop->rig->stop.op.done = stop_done;
    nbd_server_stop(stop->rig->server, &stop->rig->stop);
    free(stop);
}

void
rig_begin_stop(struct rig *rig, uint64_t grace_ns)
{
    struct stop_message *stop = calloc(1, sizeof(*stop));
    assert_non_null(stop);
    stop->rig = rig;
    rig->stop.grace_ns = grace_ns;
    reactor_send(rig->reactors[0], &stop->message, stop_on_control);
}

static bool
is_stopped(void *context)
{
    return ((struct rig *)context)->stopped;
}

void
rig_finish(struct rig *rig)
{
    if (rig->stop.grace_ns == 0) {
        rig_begin_stop(rig, 5 * NS_PER_S);
    }
    assert_int_equal(sim_run_until(rig->sim, is_stopped, rig, RIG_TIMEOUT), 0);
    assert_int_equal(rig->stop_result, 0);
    struct nbd_server_statistics statistics = rig_statistics(rig);
    assert_int_equal(statistics.connections_open, 0);
    nbd_server_destroy(rig->server);
    fake_manager_destroy(rig->manager);
    for (uint32_t i = 0; i < RIG_REACTORS; i++) {
        assert_int_equal(buffer_pool_free_bytes(reactor_buffer_pool(rig->reactors[i])) % (1 << 20),
                         0);
        reactor_destroy(rig->reactors[i]);
    }
    sim_destroy(rig->sim);
}

void
rig_settle(struct rig *rig)
{
    int rc = sim_quiesce(rig->sim, RIG_TIMEOUT);
    assert_int_equal(rc, 0);
}

void
rig_run_for(struct rig *rig, uint64_t duration_ns)
{
    assert_int_equal(sim_run_for(rig->sim, duration_ns), 0);
}

struct nbd_server_statistics
rig_statistics(const struct rig *rig)
{
    struct nbd_server_statistics statistics;
    nbd_server_statistics(rig->server, &statistics);
    return statistics;
}

/* ---- clients ---- */

struct sim_client *
rig_connect_to(struct rig *rig, const char *address)
{
    struct sim_client *client = NULL;
    assert_int_equal(sim_connect(rig->sim, address, &client), 0);
    return client;
}

struct sim_client *
rig_connect(struct rig *rig)
{
    return rig_connect_to(rig, RIG_ADDRESS);
}

void
rig_send(struct sim_client *client, const void *data, size_t length_bytes)
{
    sim_client_send(client, data, length_bytes);
}

struct arrival {
    struct sim_client *client;
    size_t wanted;
};

static bool
has_arrived(void *context)
{
    const struct arrival *arrival = context;
    const uint8_t *data;
    return sim_client_received(arrival->client, &data) >= arrival->wanted ||
           sim_client_at_end(arrival->client) || sim_client_was_reset(arrival->client);
}

void
rig_receive(struct rig *rig, struct sim_client *client, void *to, size_t length_bytes)
{
    size_t done_bytes = 0;

    while (done_bytes < length_bytes) {
        size_t part = MIN(length_bytes - done_bytes, (size_t)(64 << 10));
        struct arrival arrival = { client, part };
        const uint8_t *data;
        int rc = sim_run_until(rig->sim, has_arrived, &arrival, RIG_TIMEOUT);
        size_t got = sim_client_received(client, &data);
        if (got < part) {
            fail_msg("wanted %zu bytes, got %zu (%d)%s", length_bytes, done_bytes + got, rc,
                     sim_client_at_end(client) ? ", then the end" : "");
        }
        memcpy((uint8_t *)to + done_bytes, data, part);
        sim_client_consume(client, part);
        done_bytes += part;
    }
}

void
rig_expect_end(struct rig *rig, struct sim_client *client)
{
    struct arrival arrival = { client, 1 };
    const uint8_t *data;

    (void)sim_run_until(rig->sim, has_arrived, &arrival, RIG_TIMEOUT);
    assert_int_equal(sim_client_received(client, &data), 0);
    assert_true(sim_client_at_end(client) || sim_client_was_reset(client));
    sim_client_close(client, false);
}

void
rig_expect_silence(struct rig *rig, struct sim_client *client)
{
    const uint8_t *data;

    rig_settle(rig);
    assert_int_equal(sim_client_received(client, &data), 0);
    assert_false(sim_client_at_end(client));
}

/* ---- handshake ---- */

struct sim_client *
rig_greet(struct rig *rig, const char *address)
{
    struct sim_client *client = rig_connect_to(rig, address);
    uint8_t greeting[18];
    static const uint8_t flags[4] = { 0, 0, 0, 3 };

    rig_receive(rig, client, greeting, sizeof(greeting));
    assert_memory_equal(greeting, "NBDMAGICIHAVEOPT\0\3", 18);
    rig_send(client, flags, sizeof(flags));
    return client;
}

void
rig_option(struct sim_client *client, uint32_t option, const void *data, size_t length_bytes)
{
    uint8_t header[16];

    memcpy(header, "IHAVEOPT", 8);
    put_be32(header + 8, option);
    put_be32(header + 12, (uint32_t)length_bytes);
    rig_send(client, header, sizeof(header));
    if (length_bytes > 0) {
        rig_send(client, data, length_bytes);
    }
}

uint32_t
rig_option_reply(struct rig *rig, struct sim_client *client, uint32_t option, uint32_t type,
                 uint8_t *data, size_t space_bytes)
{
    uint8_t header[20];

    rig_receive(rig, client, header, sizeof(header));
    assert_int_equal(get_be64(header), UINT64_C(0x3e889045565a9));
    assert_int_equal(get_be32(header + 8), option);
    assert_int_equal(get_be32(header + 12), type);
    uint32_t length_bytes = get_be32(header + 16);
    assert_true(length_bytes <= space_bytes);
    rig_receive(rig, client, data, length_bytes);
    return length_bytes;
}

void
rig_expect_ack(struct rig *rig, struct sim_client *client, uint32_t option)
{
    assert_int_equal(rig_option_reply(rig, client, option, NBD_REP_ACK, NULL, 0), 0);
}

void
rig_expect_option_error(struct rig *rig, struct sim_client *client, uint32_t option, uint32_t type)
{
    uint8_t text[4096];
    rig_option_reply(rig, client, option, type, text, sizeof(text));
}

void
rig_info_or_go(struct sim_client *client, uint32_t option, const char *name, const uint16_t *infos,
               uint16_t info_count)
{
    uint8_t data[8192];
    uint32_t name_bytes = (uint32_t)strlen(name);

    put_be32(data, name_bytes);
    memcpy(data + 4, name, name_bytes);
    put_be16(data + 4 + name_bytes, info_count);
    for (uint16_t i = 0; i < info_count; i++) {
        put_be16(data + 6 + name_bytes + 2u * i, infos[i]);
    }
    rig_option(client, option, data, 6 + name_bytes + 2u * info_count);
}

void
rig_meta_context(struct sim_client *client, uint32_t option, const char *name, const char *query)
{
    uint8_t data[8192];
    uint32_t name_bytes = (uint32_t)strlen(name);
    uint32_t at = 4 + name_bytes;

    put_be32(data, name_bytes);
    memcpy(data + 4, name, name_bytes);
    put_be32(data + at, query != NULL);
    at += 4;
    if (query != NULL) {
        uint32_t query_bytes = (uint32_t)strlen(query);
        put_be32(data + at, query_bytes);
        memcpy(data + at + 4, query, query_bytes);
        at += 4 + query_bytes;
    }
    rig_option(client, option, data, at);
}

/* Replies of INFO and GO up to the ACK. */
static void
take_infos(struct rig *rig, struct sim_client *client, uint32_t option, struct rig_go *ret_go)
{
    for (;;) {
        uint8_t header[20];
        uint8_t data[1024];
        rig_receive(rig, client, header, sizeof(header));
        assert_int_equal(get_be64(header), UINT64_C(0x3e889045565a9));
        assert_int_equal(get_be32(header + 8), option);
        uint32_t type = get_be32(header + 12);
        uint32_t length_bytes = get_be32(header + 16);
        assert_true(length_bytes <= sizeof(data));
        rig_receive(rig, client, data, length_bytes);
        if (type == NBD_REP_ACK) {
            return;
        }
        assert_int_equal(type, NBD_REP_INFO);
        if (get_be16(data) == NBD_INFO_EXPORT && ret_go != NULL) {
            assert_int_equal(length_bytes, 12);
            ret_go->size_bytes = get_be64(data + 2);
            ret_go->flags = get_be16(data + 10);
        }
    }
}

struct sim_client *
rig_go(struct rig *rig, enum rig_style style, const char *name, struct rig_go *ret_go)
{
    struct sim_client *client = rig_greet(rig, RIG_ADDRESS);
    uint8_t data[64];

    if (style != RIG_SIMPLE) {
        uint32_t option =
            style == RIG_STRUCTURED ? NBD_OPT_STRUCTURED_REPLY : NBD_OPT_EXTENDED_HEADERS;
        rig_option(client, option, NULL, 0);
        rig_expect_ack(rig, client, option);
        rig_meta_context(client, NBD_OPT_SET_META_CONTEXT, name, "base:allocation");
        rig_option_reply(rig, client, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, data,
                         sizeof(data));
        rig_expect_ack(rig, client, NBD_OPT_SET_META_CONTEXT);
    }
    rig_info_or_go(client, NBD_OPT_GO, name, NULL, 0);
    take_infos(rig, client, NBD_OPT_GO, ret_go);
    return client;
}

/* ---- transmission ---- */

void
rig_request(struct sim_client *client, enum rig_style style, uint16_t command, uint16_t flags,
            uint64_t cookie, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint8_t request[32];

    put_be32(request, style == RIG_EXTENDED ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    put_be16(request + 4, flags);
    put_be16(request + 6, command);
    put_be64(request + 8, cookie);
    put_be64(request + 16, offset_bytes);
    if (style == RIG_EXTENDED) {
        put_be64(request + 24, length_bytes);
    } else {
        put_be32(request + 24, (uint32_t)length_bytes);
    }
    rig_send(client, request, style == RIG_EXTENDED ? 32 : 28);
}

struct rig_chunk
rig_chunk(struct rig *rig, struct sim_client *client, enum rig_style style, void *payload,
          size_t space_bytes)
{
    uint8_t header[32];
    struct rig_chunk chunk = { 0 };

    rig_receive(rig, client, header, style == RIG_EXTENDED ? 32 : 20);
    assert_int_equal(get_be32(header), style == RIG_EXTENDED ? NBD_EXTENDED_REPLY_MAGIC
                                                             : NBD_STRUCTURED_REPLY_MAGIC);
    chunk.flags = get_be16(header + 4);
    chunk.type = get_be16(header + 6);
    chunk.cookie = get_be64(header + 8);
    if (style == RIG_EXTENDED) {
        chunk.offset_bytes = get_be64(header + 16);
        chunk.length_bytes = get_be64(header + 24);
    } else {
        chunk.length_bytes = get_be32(header + 16);
    }
    assert_int_equal(chunk.flags & ~NBD_REPLY_FLAG_DONE, 0);
    assert_true(chunk.length_bytes <= space_bytes);
    rig_receive(rig, client, payload, chunk.length_bytes);
    return chunk;
}

static void
expect_simple(struct rig *rig, struct sim_client *client, uint64_t cookie, uint32_t error)
{
    uint8_t header[16];

    rig_receive(rig, client, header, sizeof(header));
    assert_int_equal(get_be32(header), NBD_SIMPLE_REPLY_MAGIC);
    assert_int_equal(get_be32(header + 4), error);
    assert_int_equal(get_be64(header + 8), cookie);
}

void
rig_expect_ok(struct rig *rig, struct sim_client *client, enum rig_style style, uint64_t cookie,
              uint64_t offset_bytes)
{
    if (style != RIG_EXTENDED) {
        expect_simple(rig, client, cookie, NBD_SUCCESS);
        return;
    }
    struct rig_chunk chunk = rig_chunk(rig, client, style, NULL, 0);
    assert_int_equal(chunk.type, NBD_REPLY_TYPE_NONE);
    assert_int_equal(chunk.flags, NBD_REPLY_FLAG_DONE);
    assert_int_equal(chunk.cookie, cookie);
    assert_int_equal(chunk.offset_bytes, offset_bytes);
}

void
rig_expect_error(struct rig *rig, struct sim_client *client, enum rig_style style, uint64_t cookie,
                 uint64_t offset_bytes, uint32_t error)
{
    uint8_t payload[256];

    if (style == RIG_SIMPLE) {
        expect_simple(rig, client, cookie, error);
        return;
    }
    struct rig_chunk chunk = rig_chunk(rig, client, style, payload, sizeof(payload));
    assert_int_equal(chunk.flags, NBD_REPLY_FLAG_DONE);
    assert_int_equal(chunk.cookie, cookie);
    assert_true(chunk.type == NBD_REPLY_TYPE_ERROR || chunk.type == NBD_REPLY_TYPE_ERROR_OFFSET);
    assert_int_equal(get_be32(payload), error);
    uint16_t text_bytes = get_be16(payload + 4);
    assert_true(text_bytes > 0);
    assert_int_equal(chunk.length_bytes,
                     6u + text_bytes + (chunk.type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0));
    if (style == RIG_EXTENDED) {
        assert_int_equal(chunk.offset_bytes, offset_bytes);
    }
}

void
rig_expect_data(struct rig *rig, struct sim_client *client, enum rig_style style, uint64_t cookie,
                uint64_t offset_bytes, const void *expected, size_t length_bytes,
                uint32_t *ret_holes)
{
    uint8_t *got = malloc(length_bytes + 8);
    uint8_t *payload = malloc(length_bytes + 8);
    size_t covered = 0;
    uint32_t holes = 0;

    assert_non_null(got);
    assert_non_null(payload);
    if (style == RIG_SIMPLE) {
        expect_simple(rig, client, cookie, NBD_SUCCESS);
        rig_receive(rig, client, got, length_bytes);
    } else {
        struct rig_chunk chunk;
        do {
            chunk = rig_chunk(rig, client, style, payload, length_bytes + 8);
            assert_int_equal(chunk.cookie, cookie);
            if (style == RIG_EXTENDED) {
                assert_int_equal(chunk.offset_bytes, offset_bytes);
            }
            if (chunk.type == NBD_REPLY_TYPE_NONE) {
                continue;
            }
            uint64_t at = get_be64(payload) - offset_bytes;
            if (chunk.type == NBD_REPLY_TYPE_OFFSET_HOLE) {
                assert_int_equal(chunk.length_bytes, 12);
                assert_true(at + get_be32(payload + 8) <= length_bytes);
                memset(got + at, 0, get_be32(payload + 8));
                covered += get_be32(payload + 8);
                holes++;
            } else {
                assert_int_equal(chunk.type, NBD_REPLY_TYPE_OFFSET_DATA);
                assert_true(at + chunk.length_bytes - 8 <= length_bytes);
                memcpy(got + at, payload + 8, chunk.length_bytes - 8);
                covered += chunk.length_bytes - 8;
            }
        } while ((chunk.flags & NBD_REPLY_FLAG_DONE) == 0);
        assert_int_equal(covered, length_bytes);
    }
    assert_memory_equal(got, expected, length_bytes);
    if (ret_holes != NULL) {
        *ret_holes = holes;
    }
    free(got);
    free(payload);
}

void
rig_pattern(uint8_t *to, uint64_t offset_bytes, size_t length_bytes)
{
    for (size_t i = 0; i < length_bytes; i++) {
        uint64_t at = offset_bytes + i;
        to[i] = (uint8_t)(hash_u64(at / 8 + 1) >> (8 * (at % 8))) | 1;
    }
}
