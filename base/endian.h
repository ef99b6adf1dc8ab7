/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unaligned loads and stores in a stated byte order. Everything that we write to a disk is
 * little-endian except keys, which are big-endian so that they sort; NBD and SCSI are big-endian.
 */
#ifndef BASE_ENDIAN_H
#define BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_ACCESSORS(bits)                                                                     \
    static inline uint##bits##_t get_le##bits(const void *from)                                    \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        memcpy(&value, from, sizeof(value));                                                       \
        return le##bits##toh(value);                                                               \
    }                                                                                              \
    static inline uint##bits##_t get_be##bits(const void *from)                                    \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        memcpy(&value, from, sizeof(value));                                                       \
        return be##bits##toh(value);                                                               \
    }                                                                                              \
    static inline void put_le##bits(void *to, uint##bits##_t value)                                \
    {                                                                                              \
        value = htole##bits(value);                                                                \
        memcpy(to, &value, sizeof(value));                                                         \
    }                                                                                              \
    static inline void put_be##bits(void *to, uint##bits##_t value)                                \
    {                                                                                              \
        value = htobe##bits(value);                                                                \
        memcpy(to, &value, sizeof(value));                                                         \
    }

ENDIAN_ACCESSORS(16)
ENDIAN_ACCESSORS(32)
ENDIAN_ACCESSORS(64)

#undef ENDIAN_ACCESSORS

#endif
