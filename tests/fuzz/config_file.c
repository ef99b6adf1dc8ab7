/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file. What is taken can be checked; what is refused has a line. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "daemon/config.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error error = { 0 };
    struct config *config = malloc(sizeof(*config));
    ASSERT(config != NULL);
    config_default(config);
    if (config_parse(config, "f", (const char *)data, size, &error) < 0) {
        ASSERT(strncmp(error.message, "f:", 2) == 0);
    } else {
        ASSERT(config->daemon.reactors <= 64);
        ASSERT(config->nbd.listen.count <= CONFIG_LIST_MAX);
        (void)config_check(config, &error);
    }
    free(config);
    return 0;
}
