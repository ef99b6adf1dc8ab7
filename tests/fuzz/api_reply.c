/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reply as volctl prints it. The first byte chooses the command. No control character reaches the
 * terminal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/error_body.h"
#include "base/assert.h"
#include "cli/cli.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = NULL;
    size_t length = 0;
    struct api_error error;
    if (size == 0) {
        return 0;
    }
    json_t *body = json_loadb((const char *)data + 1, size - 1, 0, NULL);
    if (body == NULL) {
        return 0;
    }
    const struct api_command *command =
        api_command((enum api_command_id)(data[0] % API_COMMANDS_REMOTE));
    FILE *memory = open_memstream(&text, &length);
    ASSERT(memory != NULL);
    if (command->reply != NULL) {
        cli_print_reply(memory, command, body);
    }
    fclose(memory);
    for (size_t i = 0; i < length; i++) {
        ASSERT((unsigned char)text[i] >= 0x20 || text[i] == '\n');
    }
    (void)api_error_decode(body, &error);
    free(text);
    json_decref(body);
    return 0;
}
