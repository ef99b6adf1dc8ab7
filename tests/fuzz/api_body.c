/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body against a command of the API. The first byte chooses the command. What is taken satisfies
 * the table: encoded again it is taken again, and gives the same.
 */
#include <stdlib.h>
#include <string.h>

#include "api/arguments.h"
#include "base/assert.h"
#include "tests/fuzz/fuzz.h"

static void
check_taken(const struct api_arguments *arguments)
{
    struct api_arguments again;
    struct error error = { 0 };
    char text[64];
    json_t *body = api_arguments_encode_body(arguments);
    api_action_text(arguments, text, sizeof(text));
    ASSERT(strlen(text) > 0);
    if (body == NULL) {
        struct byte_buffer url = BYTE_BUFFER_INIT;
        api_arguments_encode_url(arguments, &url);
        ASSERT(strlen((const char *)url.data) + 1 == url.length_bytes);
        byte_buffer_free(&url);
        return;
    }
    api_arguments_init(&again, arguments->command);
    /* Fields of the path are not in an encoded body; what is there must be valid. */
    int result = api_arguments_set_json(&again, body, &error);
    ASSERT_OP(result, ==, 0);
    json_t *second = api_arguments_encode_body(&again);
    ASSERT(json_equal(body, second));
    json_decref(second);
    api_arguments_free(&again);
    json_decref(body);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_arguments arguments;
    struct error error = { 0 };
    if (size == 0) {
        return 0;
    }
    api_arguments_init(&arguments,
                       api_command((enum api_command_id)(data[0] % API_COMMANDS_REMOTE)));
    int result = api_arguments_set_body(&arguments, (const char *)data + 1, size - 1, &error);
    if (result == 0) {
        result = api_arguments_check(&arguments, &error);
    }
    if (result == 0) {
        check_taken(&arguments);
    } else {
        ASSERT(error.message[0] != '\0');
    }
    api_arguments_free(&arguments);
    return 0;
}
