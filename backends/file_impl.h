/* SPDX-License-Identifier: Apache-2.0 */
/* What file.c and block.c share: a backend over a platform_file. */
#ifndef BACKENDS_FILE_IMPL_H
#define BACKENDS_FILE_IMPL_H

#include <stdint.h>

#include "backends/backend.h"
#include "io/platform.h"

/*
 * control. Open `path` and fill the properties that are the same for files and devices. With
 * `create_size_bytes` a file that does not exist is created with that size. Sets backend->state.
 */
int file_disk_open(struct backend *backend, const char *path, uint32_t flags,
                   uint64_t create_size_bytes, enum file_kind kind, struct error *error);
/* control. */
void file_disk_close(struct backend *backend);
/* control. */
int file_disk_refresh(struct backend *backend, struct error *error);
/* reactor. */
void file_disk_submit(struct backend *backend, struct backend_io *io);

#endif
