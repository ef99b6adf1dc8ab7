/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are block devices, with sectors of 512 or 4096 bytes. Transfers are those of file.c;
 * what differs is that a device is never thin for us (-ENOSPC of a thin LUN is passed on all the
 * same), and that zeroes and discards are the device's own.
 */
#include "backends/file_impl.h"
#include "backends/registry.h"
#include "base/assert.h"

static int
block_open(struct backend *backend, const char *spec, uint32_t flags, struct error *error)
{
    int result = file_disk_open(backend, spec, flags, 0, FILE_KIND_BLOCK_DEVICE, error);
    if (result == 0) {
        ASSERT(!backend->properties.thin);
    }
    return result;
}

const struct backend_ops block_backend_ops = {
    .type = "block",
    .scheme = NULL,
    .owner_reactor_only = false,
    .open = block_open,
    .close = file_disk_close,
    .refresh = file_disk_refresh,
    .submit = file_disk_submit,
};
