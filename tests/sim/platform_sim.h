/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated io/platform.h, inside the simulator: its operations, and what the parts of the
 * simulator share. Tests get the platform from sim_platform().
 *
 * Differences from the real platform that tests should know: fd_poll() fails with -EOPNOTSUPP; a
 * file never grows by writing (-ENOSPC behind its end); file_open() with FILE_OPEN_LOCK does not
 * wait for a killed process's last operations but fails with -EBUSY until they are done.
 */
#ifndef TESTS_SIM_PLATFORM_SIM_H
#define TESTS_SIM_PLATFORM_SIM_H

#include "io/platform.h"

extern const struct platform_ops platform_sim_ops;

#endif
