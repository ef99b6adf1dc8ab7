/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of a disk, as administrators write it. iSCSI texts are only parsed; others are opened as
 * a probe, on a machine that has one disk, "sim:0". What messages and listings show of a text that
 * is valid has none of its passwords.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/registry.h"
#include "base/assert.h"
#include "base/util.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/machine.h"
#include "tests/unit/metadata/private_doors.h"

enum {
    TEXT_BYTES_MAX = 4096,
    SECRET_BYTES_MIN = 5, /* shorter ones may be there by chance */
};

static bool
appears_once(const char *text, const char *secret)
{
    const char *first = strstr(text, secret);
    return first != NULL && strstr(first + 1, secret) == NULL;
}

static void
expect_hidden(const char *text, const char *shown, const char *secret)
{
    if (strlen(secret) >= SECRET_BYTES_MIN && appears_once(text, secret)) {
        ASSERT(strstr(shown, secret) == NULL);
    }
}

static void
parse(const char *text)
{
    struct door_lun lun;
    struct error error = { 0 };
    char *shown = backend_spec_without_secrets(text);

    ASSERT(shown != NULL && strlen(shown) <= strlen(text));
    int result = door_iscsi_parse(text, &lun, &error);
    ASSERT(result == 0 || result == -EINVAL);
    ASSERT((result == 0) == (error.message[0] == '\0'));
    if (result == 0) {
        ASSERT(lun.host[0] != '\0');
        ASSERT((lun.user[0] == '\0') == (lun.password[0] == '\0'));
        expect_hidden(text, shown, lun.password);
        expect_hidden(text, shown, lun.target_password);
    }
    free(shown);
}

static void
open_probe(struct machine *machine, const char *text)
{
    struct backend *backend = NULL;
    struct error error = { 0 };
    char *shown = backend_spec_without_secrets(text);

    ASSERT(shown != NULL);
    free(shown);
    sim_process_enter(machine->sim);
    int result = backend_open(sim_platform(machine->sim), machine->reactor, text,
                              BACKEND_OPEN_PROBE | BACKEND_OPEN_READ_ONLY, &backend, &error);
    if (result == 0) {
        ASSERT(backend->properties.size_bytes > 0);
        backend_close(backend);
    } else {
        ASSERT(error.message[0] != '\0');
    }
    sim_process_leave(machine->sim);
    machine_expect_no_leak(machine);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine machine;
    static const char scheme[] = "iscsi://";
    char text[TEXT_BYTES_MAX + 1];

    if (machine.sim == NULL) {
        machine_start(&machine, 1 << 20);
    }
    size = MIN(size, (size_t)TEXT_BYTES_MAX);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    if (strncmp(text, scheme, strlen(scheme)) == 0) {
        parse(text);
    } else if (strstr(text, scheme) == NULL) { /* nothing that would go out to a network */
        open_probe(&machine, text);
    }
    return 0;
}
