/* SPDX-License-Identifier: Apache-2.0 */
/* Errors on the wire: {"error": what, "why": ..., "what_to_do": ..., "code": "EBUSY"}. */
#ifndef API_ERROR_BODY_H
#define API_ERROR_BODY_H

#include <jansson.h>

#include "api/schema.h"

/* New. `code` is -errno; `what_to_do` may be NULL: the usual remedy for such a code, if any. */
json_t *api_error_encode(const char *what, const char *why, const char *what_to_do, int code);

struct api_error {
    char what[256];
    char why[512];
    char what_to_do[512];
    char code[24];
};

/* From a foreign body; missing parts become empty text. False: it is not an error body. */
bool api_error_decode(const json_t *body, struct api_error *ret_error);

/* The HTTP status for -errno; never below 400. */
unsigned api_error_status(int code);

/* Text as JSON even when it is not valid UTF-8 (bytes from elsewhere become '?'). New. */
json_t *api_json_text(const char *text);

/* RFC 3339, UTC, milliseconds; empty text for 0. New. */
json_t *api_json_time(uint64_t realtime_ns);

#endif
