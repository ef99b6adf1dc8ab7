/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#include <isa-l/crc.h>

uint32_t
crc32c(uint32_t seed, const void *data, size_t length_bytes)
{
    const uint8_t *bytes = data;
    uint32_t crc = ~seed;

    /* ISA-L takes an int length, and does not promise not to write through its pointer type. */
    while (length_bytes > 0) {
        size_t chunk = length_bytes < (1u << 30) ? length_bytes : (1u << 30);
        crc = crc32_iscsi((unsigned char *)(uintptr_t)bytes, (int)chunk, crc);
        bytes += chunk;
        length_bytes -= chunk;
    }
    return ~crc;
}
