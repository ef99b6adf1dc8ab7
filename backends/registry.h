/* SPDX-License-Identifier: Apache-2.0 */
/* The list of backend types, and what the text of a disk (DISK in the command line) means. */
#ifndef BACKENDS_REGISTRY_H
#define BACKENDS_REGISTRY_H

#include "backends/backend.h"

extern const struct backend_ops file_backend_ops;
extern const struct backend_ops block_backend_ops;
extern const struct backend_ops memory_backend_ops;
extern const struct backend_ops iscsi_backend_ops;
extern const struct backend_ops fault_backend_ops;

/*
 * A copy of a disk's text in which passwords are left out, for messages, logs and listings. Never
 * NULL; free() it. Any thread. Works on text that is not valid, too.
 */
char *backend_spec_without_secrets(const char *spec);

#endif
