/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at a state directory that no daemon serves: `volmgrd --check` and `volmgrd --dump`. Both
 * lock the state directory and write nothing. Main thread; they block.
 */
#ifndef DAEMON_OFFLINE_H
#define DAEMON_OFFLINE_H

#include <stdio.h>

#include "base/error.h"
#include "daemon/config.h"

/*
 * Check one pool (NULL: all) and print what is found, one line each, and a sum for each pool.
 * 0: no errors (warnings are no errors); -EUCLEAN: errors were found; otherwise it could not be
 * done, and `error` says why.
 */
int offline_check(const struct config *config, const char *pool_name, FILE *to,
                  struct error *error);

/* Print the database of a pool as JSON lines. 0, -EUCLEAN: with damaged records; or -errno. */
int offline_dump(const struct config *config, const char *pool_name, FILE *to,
                 struct error *error);

#endif
