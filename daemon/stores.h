/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The databases of the pools, as directories STATE/pools/POOL/db, and this host's identity: what
 * the manager asks of its surroundings (volmgr/manager.h). The callbacks' context is the node.
 */
#ifndef DAEMON_STORES_H
#define DAEMON_STORES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/error.h"
#include "metadata/schema.h"

struct store;

/* manager_store_open_fn. With `create` nothing may be there yet. */
int stores_open(void *context, const char *pool_name, bool create, struct store **ret_store,
                struct error *error);
/* For looking only; -ENOENT: there is no such pool. */
int stores_open_read_only(const void *context, const char *pool_name, struct store **ret_store,
                          struct error *error);
/* manager_store_remove_fn. One that is not there is removed already. */
int stores_remove(void *context, const char *pool_name, struct error *error);
/* manager_pool_list_fn. */
int stores_list(void *context, struct byte_buffer *ret_names, struct error *error);
int stores_free_bytes(void *context, uint64_t *ret_free_bytes);

/*
 * The same for every daemon and state directory of this machine, and not the machine's secret
 * id itself. Without a machine id: one of this state directory's own, made when absent.
 */
int stores_host_guid(const char *state_directory, uint8_t ret_guid[static GUID_BYTES],
                     struct error *error);

#endif
