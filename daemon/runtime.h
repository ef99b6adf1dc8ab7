/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process needs from the machine: its state directory for itself alone, a directory that
 * outlives it, memory that is not swapped out. Start-up only, on the main thread.
 */
#ifndef DAEMON_RUNTIME_H
#define DAEMON_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "daemon/config.h"

/*
 * Make the state directory if it is absent (not its parents) and lock it against other daemons.
 * `ret_path` (CONFIG_TEXT_SIZE bytes) gets its absolute name. The lock lasts until close() of
 * `*ret_lock_fd` or the end of the process. -EBUSY: another daemon has it; `error` says which.
 */
int runtime_open_state(const char *directory, char *ret_path, int *ret_lock_fd,
                       struct error *error);

/*
 * Find or make the directory of the volatile journals: on tmpfs, ours alone, one for each state
 * directory, and not one that the end of a login removes. `ret_path` has CONFIG_TEXT_SIZE bytes.
 */
int runtime_volatile_directory(const struct config *config, const char *state_directory,
                               char *ret_path, struct error *error);

/*
 * Lock present and future memory as it is touched, where that is permitted. -EPERM with `error` set
 * only when the configuration insists. Warns otherwise.
 */
int runtime_lock_memory(enum config_switch wanted, bool *ret_locked, struct error *error);

/*
 * Tell the kernel that this process writes back other processes' pages, so that its own allocations
 * never wait for that. Inherited by threads that are started later. Warns when not permitted.
 */
void runtime_become_io_flusher(void);

/* Whether the calling thread is one. */
bool runtime_is_io_flusher(void);

/* As many open files and as much lockable memory as the hard limits allow. */
void runtime_raise_limits(void);

/* CPUs that we may run on, ascending; returns how many, at most `max`, at least 1. */
size_t runtime_cpus(int *ret_cpus, size_t max);

#endif
