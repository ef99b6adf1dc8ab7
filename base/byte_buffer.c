/* SPDX-License-Identifier: Apache-2.0 */
#include "base/byte_buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"

void
byte_buffer_free(struct byte_buffer *buffer)
{
    free(buffer->data);
    *buffer = BYTE_BUFFER_INIT;
}

void
byte_buffer_clear(struct byte_buffer *buffer)
{
    buffer->length_bytes = 0;
}

uint8_t *
byte_buffer_reserve(struct byte_buffer *buffer, size_t more_bytes)
{
    size_t needed = buffer->length_bytes + more_bytes;
    ASSERT(needed >= more_bytes);
    if (needed > buffer->capacity_bytes) {
        size_t capacity = buffer->capacity_bytes < 64 ? 64 : buffer->capacity_bytes;
        while (capacity < needed) {
            capacity *= 2;
        }
        uint8_t *grown = realloc(buffer->data, capacity);
        ASSERT(grown != NULL);
        buffer->data = grown;
        buffer->capacity_bytes = capacity;
    }
    return buffer->data + buffer->length_bytes;
}

uint8_t *
byte_buffer_extend(struct byte_buffer *buffer, size_t more_bytes)
{
    uint8_t *start = byte_buffer_reserve(buffer, more_bytes);
    buffer->length_bytes += more_bytes;
    return start;
}

void
byte_buffer_append(struct byte_buffer *buffer, const void *data, size_t length_bytes)
{
    if (length_bytes > 0) {
        memcpy(byte_buffer_extend(buffer, length_bytes), data, length_bytes);
    }
}

void
byte_buffer_append_u8(struct byte_buffer *buffer, uint8_t value)
{
    *byte_buffer_extend(buffer, 1) = value;
}

void
byte_buffer_append_le16(struct byte_buffer *buffer, uint16_t value)
{
    put_le16(byte_buffer_extend(buffer, sizeof(value)), value);
}

void
byte_buffer_append_le32(struct byte_buffer *buffer, uint32_t value)
{
    put_le32(byte_buffer_extend(buffer, sizeof(value)), value);
}

void
byte_buffer_append_le64(struct byte_buffer *buffer, uint64_t value)
{
    put_le64(byte_buffer_extend(buffer, sizeof(value)), value);
}

void
byte_buffer_append_format(struct byte_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int needed = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    ASSERT(needed >= 0);
    uint8_t *start = byte_buffer_reserve(buffer, (size_t)needed + 1);
    va_start(arguments, format);
    vsnprintf((char *)start, (size_t)needed + 1, format, arguments);
    va_end(arguments);
    buffer->length_bytes += (size_t)needed;
}
