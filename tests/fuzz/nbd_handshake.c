/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole of what a client sends, from its flags on. First byte: bits 0-1 how the bytes are cut
 * up, bit 2 a reset at the end.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/nbd_fuzz.h"

#include "base/assert.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_fuzz fuzz;
    static const size_t pieces[] = { 0, 1, 7, 100 };
    struct sim_client *client;

    if (size < 1) {
        return 0;
    }
    if (fuzz.sim == NULL) {
        nbd_fuzz_start(&fuzz, NULL);
    }
    ASSERT(sim_connect(fuzz.sim, NBD_FUZZ_PLAIN, &client) == 0);
    nbd_fuzz_settle(&fuzz, client);
    size_t piece = pieces[data[0] & 3];
    nbd_fuzz_send(&fuzz, client, data + 1, size - 1, piece != 0 && size > 1000 ? 100 : piece);
    nbd_fuzz_end(&fuzz, client, (data[0] & 4) != 0);
    return 0;
}
