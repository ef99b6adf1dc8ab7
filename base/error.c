/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

int
error_set(struct error *error, int code, const char *format, ...)
{
    ASSERT(code < 0);
    if (error == NULL || error->code != 0) {
        return code;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof(error->message), format, arguments);
    va_end(arguments);
    error->code = code;
    return code;
}

int
error_prefix(struct error *error, const char *format, ...)
{
    if (error == NULL || error->code == 0) {
        return error == NULL ? 0 : error->code;
    }
    char joined[2 * ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(joined, ERROR_MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    ASSERT(used >= 0);
    size_t start = strlen(joined);
    snprintf(joined + start, sizeof(joined) - start, ": %s", error->message);
    memcpy(error->message, joined, sizeof(error->message));
    error->message[sizeof(error->message) - 1] = '\0';
    return error->code;
}

const char *
error_name(int code)
{
    const char *name = strerrordesc_np(code < 0 ? -code : code);
    return name != NULL ? name : "unknown error";
}
