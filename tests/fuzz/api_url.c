/* SPDX-License-Identifier: Apache-2.0 */
/* Lines: method, path, then query fields as NAME=VALUE; and the same texts as a command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/arguments.h"
#include "api/suggest.h"
#include "base/assert.h"
#include "tests/fuzz/fuzz.h"

static void
take_line(struct api_arguments *arguments, char *line, enum api_text_form form)
{
    struct error error = { 0 };
    char *equals = strchr(line, '=');
    if (equals == NULL) {
        return;
    }
    *equals = '\0';
    int index = api_field_index(arguments->command, line);
    if (index >= 0 && api_arguments_set_text(arguments, (size_t)index, equals + 1, form, &error) <
                          0) {
        ASSERT(error.message[0] != '\0');
    }
    *equals = '=';
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char *method = text;
    char *rest;
    struct api_arguments arguments;
    struct error error = { 0 };
    ASSERT(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    char *path = strchr(text, '\n');
    if (path == NULL) {
        free(text);
        return 0;
    }
    *path++ = '\0';
    rest = strchr(path, '\n');
    if (rest != NULL) {
        *rest++ = '\0';
    }
    const char *nearest = NULL;
    suggest_consider(path, method, &nearest);
    if (api_route(method, path, &arguments, &error) < 0) {
        ASSERT(error.message[0] != '\0');
        free(text);
        return 0;
    }
    while (rest != NULL) {
        char *line = rest;
        rest = strchr(rest, '\n');
        if (rest != NULL) {
            *rest++ = '\0';
        }
        take_line(&arguments, line, strlen(line) % 2 == 0 ? API_TEXT_WIRE : API_TEXT_PERSON);
    }
    if (api_arguments_check(&arguments, &error) == 0) {
        struct byte_buffer url = BYTE_BUFFER_INIT;
        api_arguments_encode_url(&arguments, &url);
        byte_buffer_free(&url);
        json_decref(api_arguments_encode_body(&arguments));
    }
    api_arguments_free(&arguments);
    free(text);
    return 0;
}
