/* SPDX-License-Identifier: Apache-2.0 */
/* What volmgrd says about itself. */
#ifndef DAEMON_MANUAL_H
#define DAEMON_MANUAL_H

#include <stdbool.h>
#include <stdio.h>

/* --help. */
extern const char manual_usage[];

/* volmgrd(8), with all configuration keys. */
void manual_print(FILE *to);

#endif
