/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transmission phase. First byte: bits 0-1 style (simple, structured, extended, extended with
 * block sizes), bit 2 the read-only export, bit 3 a reset at the end, bits 4-5 how the bytes are
 * cut up, bit 6 the volume answers in the opposite order, bit 7 it answers late.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/nbd_fuzz.h"

#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/util.h"
#include "targets/nbd/protocol.h"

static void
send_option(struct sim_client *client, uint32_t option, const void *data, size_t length_bytes)
{
    uint8_t header[16];

    memcpy(header, "IHAVEOPT", 8);
    put_be32(header + 8, option);
    put_be32(header + 12, (uint32_t)length_bytes);
    sim_client_send(client, header, sizeof(header));
    sim_client_send(client, data, length_bytes);
}

static struct sim_client *
enter_transmission(struct nbd_fuzz *fuzz, uint8_t mode)
{
    struct sim_client *client;
    char contexts[] = "\0\0\0\3p/d\0\0\0\3\0\0\0\17base:allocation"
                      "\0\0\0\23qemu:dirty-bitmap:s\0\0\0\20volmgr:since:v@t";
    char go[] = "\0\0\0\3p/d\0\1\0\3";

    contexts[6] = go[6] = (mode & 4) != 0 ? 'r' : 'd';
    ASSERT(sim_connect(fuzz->sim, NBD_FUZZ_PLAIN, &client) == 0);
    sim_client_send(client, "\0\0\0\3", 4);
    if ((mode & 3) != 0) {
        send_option(client, (mode & 3) == 1 ? NBD_OPT_STRUCTURED_REPLY : NBD_OPT_EXTENDED_HEADERS,
                    "", 0);
        send_option(client, NBD_OPT_SET_META_CONTEXT, contexts, sizeof(contexts) - 1);
    }
    if ((mode & 3) == 3) {
        send_option(client, NBD_OPT_GO, go, sizeof(go) - 1);
    } else {
        go[8] = 0;
        send_option(client, NBD_OPT_GO, go, sizeof(go) - 3);
    }
    nbd_fuzz_settle(fuzz, client);
    return client;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_fuzz fuzz;
    static const size_t pieces[] = { 0, 13, 100, 1000 };

    if (size < 1) {
        return 0;
    }
    if (fuzz.sim == NULL) {
        nbd_fuzz_start(&fuzz, NULL);
    }
    struct sim_client *client = enter_transmission(&fuzz, data[0]);
    fake_volume_reverse(fuzz.disk, (data[0] & 64) != 0);
    fake_volume_hold(fuzz.disk, (data[0] & 128) != 0);
    size_t piece = pieces[data[0] >> 4 & 3];
    nbd_fuzz_send(&fuzz, client, data + 1, size - 1, piece != 0 ? MAX(piece, size / 64) : 0);
    if ((data[0] & 8) != 0) {
        sim_client_shutdown(client);
        nbd_fuzz_settle(&fuzz, client);
    }
    fake_volume_hold(fuzz.disk, false);
    nbd_fuzz_settle(&fuzz, client);
    nbd_fuzz_end(&fuzz, client, (data[0] & 8) != 0);
    return 0;
}
