/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NBD server on a simulated machine, with two reactors and a few volumes, and scripted clients
 * that speak in raw bytes.
 */
#ifndef TESTS_UNIT_NBD_RIG_H
#define TESTS_UNIT_NBD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/byte_buffer.h"
#include "base/endian.h"
#include "base/util.h"
#include "io/buffer_pool.h"
#include "io/platform.h"
#include "io/reactor.h"
#include "targets/nbd/protocol.h"
#include "targets/nbd/server.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_socket.h"
#include "tests/unit/nbd/fake_volume.h"

#define RIG_ADDRESS     "unix:/nbd"
#define RIG_ADDRESS_TLS "unix:/nbd-tls" /* TLS required */
#define RIG_ADDRESS_OPT "unix:/nbd-opt" /* TLS optional */
#define RIG_TIMEOUT     (1000 * NS_PER_S)
#define RIG_DISK_BYTES  (UINT64_C(256) << 20)

enum {
    RIG_REACTORS = 2,
};

struct rig {
    struct sim *sim;
    struct reactor *reactors[RIG_REACTORS];
    struct manager *manager;
    struct volume *disk;      /* "pool/disk", on reactor 1, RIG_DISK_BYTES */
    struct volume *read_only; /* "pool/ro", on reactor 0 */
    struct volume *exclusive; /* "pool/excl", on reactor 1 */
    struct volume *coarse;    /* "pool/4k", sectors of 4096 */
    struct nbd_server *server;
    struct nbd_server_stop stop;
    bool stopped;
    int stop_result;
};

/* Options that a test may change before the server is created. */
struct rig_options {
    uint64_t seed;
    bool fragments; /* bytes move in pieces of random sizes */
    uint64_t pool_bytes; /* payload memory of each reactor; 0: 96 MiB */
    struct nbd_server_limits limits;
    struct nbd_tls_options tls;
    bool with_tls;
};
struct rig_options rig_options_default(void);
void rig_start(struct rig *rig, const struct rig_options *options);
void rig_start_default(struct rig *rig);
/* Begin to stop; rig->stopped tells the end. */
void rig_begin_stop(struct rig *rig, uint64_t grace_ns);
/* Stop, check that nothing was left behind, free everything. */
void rig_finish(struct rig *rig);

/* Run until nothing happens any more by itself. */
void rig_settle(struct rig *rig);
void rig_run_for(struct rig *rig, uint64_t duration_ns);
struct nbd_server_statistics rig_statistics(const struct rig *rig);

/* ---- clients ---- */

struct sim_client *rig_connect_to(struct rig *rig, const char *address);
struct sim_client *rig_connect(struct rig *rig);
void rig_send(struct sim_client *client, const void *data, size_t length_bytes);
/* Wait for so many bytes and take them. */
void rig_receive(struct rig *rig, struct sim_client *client, void *to, size_t length_bytes);
/* The server has closed, and sent nothing else. */
void rig_expect_end(struct rig *rig, struct sim_client *client);
/* Nothing arrives. */
void rig_expect_silence(struct rig *rig, struct sim_client *client);

/* ---- handshake ---- */

/* Connect, take the greeting, send client flags 3. */
struct sim_client *rig_greet(struct rig *rig, const char *address);
void rig_option(struct sim_client *client, uint32_t option, const void *data, size_t length_bytes);
/* One reply to `option`, of this type; returns its length, data in `data`. */
uint32_t rig_option_reply(struct rig *rig, struct sim_client *client, uint32_t option,
                          uint32_t type, uint8_t *data, size_t space_bytes);
void rig_expect_ack(struct rig *rig, struct sim_client *client, uint32_t option);
/* An error reply; its text is not looked at. */
void rig_expect_option_error(struct rig *rig, struct sim_client *client, uint32_t option,
                             uint32_t type);
/* INFO or GO with these info requests. */
void rig_info_or_go(struct sim_client *client, uint32_t option, const char *name,
                    const uint16_t *infos, uint16_t info_count);
/* LIST_META_CONTEXT or SET_META_CONTEXT with one query, or none for NULL. */
void rig_meta_context(struct sim_client *client, uint32_t option, const char *name,
                      const char *query);

enum rig_style {
    RIG_SIMPLE,
    RIG_STRUCTURED,
    RIG_EXTENDED,
};
struct rig_go {
    uint64_t size_bytes;
    uint16_t flags;
};
/* Whole handshake up to transmission; with base:allocation unless simple. */
struct sim_client *rig_go(struct rig *rig, enum rig_style style, const char *name,
                          struct rig_go *ret_go);

/* ---- transmission ---- */

void rig_request(struct sim_client *client, enum rig_style style, uint16_t command, uint16_t flags,
                 uint64_t cookie, uint64_t offset_bytes, uint64_t length_bytes);
/* A reply without data and without error. */
void rig_expect_ok(struct rig *rig, struct sim_client *client, enum rig_style style,
                   uint64_t cookie, uint64_t offset_bytes);
void rig_expect_error(struct rig *rig, struct sim_client *client, enum rig_style style,
                      uint64_t cookie, uint64_t offset_bytes, uint32_t error);
/* One chunk (structured, extended): header, and payload into `payload`. Returns its length. */
struct rig_chunk {
    uint16_t flags;
    uint16_t type;
    uint64_t cookie;
    uint64_t offset_bytes; /* extended */
    uint64_t length_bytes;
};
struct rig_chunk rig_chunk(struct rig *rig, struct sim_client *client, enum rig_style style,
                           void *payload, size_t space_bytes);
/* The answer to a READ, put together; holes are counted in *ret_holes where not NULL. */
void rig_expect_data(struct rig *rig, struct sim_client *client, enum rig_style style,
                     uint64_t cookie, uint64_t offset_bytes, const void *expected,
                     size_t length_bytes, uint32_t *ret_holes);

/* Bytes that tell where they are. */
void rig_pattern(uint8_t *to, uint64_t offset_bytes, size_t length_bytes);

#endif
