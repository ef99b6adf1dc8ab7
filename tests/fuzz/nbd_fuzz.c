/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/nbd_fuzz.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "io/buffer_pool.h"

enum {
    DISK_BYTES = 4 << 20,
    POOL_BYTES = 64 << 20,
};

void
nbd_fuzz_start(struct nbd_fuzz *fuzz, const struct nbd_tls_options *tls)
{
    const struct nbd_listen listens[] = {
        { NBD_FUZZ_PLAIN, 0, NBD_TLS_OFF },
        { NBD_FUZZ_OPTIONAL, 0, NBD_TLS_OPTIONAL },
        { NBD_FUZZ_REQUIRED, 0, NBD_TLS_REQUIRED },
    };
    struct nbd_server_options options;
    struct error error = { 0 };
    struct reactor_options reactor = { .cpu = -1, .buffer_pool_bytes = POOL_BYTES };

    log_set_level(LOG_LEVEL_ERROR);
    fuzz->sim = sim_create(&(struct sim_options){ .seed = 1 });
    sim_set_network(fuzz->sim, &(struct sim_network){ .whole = true });
    ASSERT(reactor_create(sim_platform(fuzz->sim), &reactor, &fuzz->reactor, &error) == 0);
    fuzz->manager = fake_manager_create(fuzz->reactor);
    fuzz->disk = fake_manager_add(fuzz->manager,
                                  &(struct fake_volume_options){ .pool_name = "p",
                                                                 .name = "d",
                                                                 .size_bytes = DISK_BYTES,
                                                                 .reactor = fuzz->reactor });
    fuzz->read_only = fake_manager_add(fuzz->manager,
                                       &(struct fake_volume_options){ .pool_name = "p",
                                                                      .name = "r",
                                                                      .size_bytes = 65536,
                                                                      .read_only = true,
                                                                      .sector_bytes = 4096,
                                                                      .reactor = fuzz->reactor });
    fake_volume_add_snapshot(fuzz->disk, "s");
    fake_volume_add_snapshot(fuzz->disk, "v@t");
    nbd_server_options_default(&options);
    options.reactors = &fuzz->reactor;
    options.reactor_count = 1;
    options.manager = fuzz->manager;
    options.listens = listens;
    options.listen_count = tls != NULL ? ARRAY_SIZE(listens) : 1;
    options.tls = tls != NULL ? *tls : (struct nbd_tls_options){ 0 };
    options.limits.slots_max = 16;
    if (nbd_server_create(&options, &fuzz->server, &error) != 0) {
        fprintf(stderr, "%s\n", error.message);
        ASSERT(false);
    }
    nbd_server_start(fuzz->server);
    ASSERT(sim_quiesce(fuzz->sim, 1000 * NS_PER_S) == 0);
    fuzz->pool_bytes = buffer_pool_free_bytes(reactor_buffer_pool(fuzz->reactor));
}

void
nbd_fuzz_settle(struct nbd_fuzz *fuzz, struct sim_client *client)
{
    size_t length;

    do {
        const uint8_t *data;
        ASSERT(sim_quiesce(fuzz->sim, 1000 * NS_PER_S) == 0);
        length = sim_client_received(client, &data);
        sim_client_consume(client, length);
    } while (length > 0);
}

void
nbd_fuzz_send(struct nbd_fuzz *fuzz, struct sim_client *client, const uint8_t *data, size_t size,
              size_t piece_bytes)
{
    size_t step = piece_bytes == 0 ? size : piece_bytes;

    for (size_t at = 0; at < size; at += step) {
        sim_client_send(client, data + at, MIN(step, size - at));
        nbd_fuzz_settle(fuzz, client);
    }
}

void
nbd_fuzz_end(struct nbd_fuzz *fuzz, struct sim_client *client, bool reset)
{
    struct nbd_server_statistics statistics;

    sim_client_close(client, reset);
    ASSERT(sim_quiesce(fuzz->sim, 1000 * NS_PER_S) == 0);
    nbd_server_statistics(fuzz->server, &statistics);
    ASSERT_OP(statistics.connections_open, ==, 0u);
    ASSERT_OP(statistics.connections_accepted, ==, ++fuzz->connections);
    ASSERT_OP(fake_volume_counters(fuzz->disk)->sessions, ==, 0u);
    ASSERT_OP(fake_volume_counters(fuzz->disk)->in_flight, ==, 0u);
    ASSERT_OP(fake_volume_counters(fuzz->disk)->lookups_held, ==, 0u);
    ASSERT_OP(fake_volume_counters(fuzz->disk)->changes_held, ==, 0u);
    ASSERT_OP(buffer_pool_free_bytes(reactor_buffer_pool(fuzz->reactor)), ==, fuzz->pool_bytes);
}
