/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * CRC-32C (Castagnoli) as iSCSI uses it (RFC 7143 13.1: initial value and final inversion of all
 * ones), by ISA-L. Start with seed 0; pass an earlier result as seed to continue.
 */
uint32_t crc32c(uint32_t seed, const void *data, size_t length_bytes);

#endif
