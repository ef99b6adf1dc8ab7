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

#endif
