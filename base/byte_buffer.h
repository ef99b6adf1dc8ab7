/* SPDX-License-Identifier: Apache-2.0 */
/* A growable string of bytes, for encoding. Control path and batches; not for payload. */
#ifndef BASE_BYTE_BUFFER_H
#define BASE_BYTE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct byte_buffer {
    uint8_t *data; /* owned; NULL while empty and never grown */
    size_t length_bytes;
    size_t capacity_bytes;
};

#define BYTE_BUFFER_INIT ((struct byte_buffer){ 0 })

/* Release the memory; the buffer is empty and usable afterwards. */
void byte_buffer_free(struct byte_buffer *buffer);
/* Forget the content, keep the memory. */
void byte_buffer_clear(struct byte_buffer *buffer);
/* Room for `more_bytes` behind the content; returns where they begin. Aborts when out of memory. */
uint8_t *byte_buffer_reserve(struct byte_buffer *buffer, size_t more_bytes);
/* As reserve, and counts them as content. */
uint8_t *byte_buffer_extend(struct byte_buffer *buffer, size_t more_bytes);
void byte_buffer_append(struct byte_buffer *buffer, const void *data, size_t length_bytes);
void byte_buffer_append_u8(struct byte_buffer *buffer, uint8_t value);
void byte_buffer_append_le16(struct byte_buffer *buffer, uint16_t value);
void byte_buffer_append_le32(struct byte_buffer *buffer, uint32_t value);
void byte_buffer_append_le64(struct byte_buffer *buffer, uint64_t value);
void byte_buffer_append_format(struct byte_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
