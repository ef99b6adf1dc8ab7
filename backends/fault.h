/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault filter: a backend over any other backend that makes chosen operations fail, hang, come
 * late or lie. For tests, and for drills on a system that is not in production.
 *
 *     fault:SPEC!RULE[;RULE]...        SPEC: the text of the disk below, of any type
 *
 * A rule is a list of kinds, then options behind commas. The kinds are "*" or any of read, write,
 * flush, discard, zeroes, allocate, joined by "|". For each operation the first rule that matches
 * and whose turn it is applies; the others do not see the operation.
 *
 *     whose turn  nth=N        the N-th operation that matches (the first is 1), once
 *                 every=N      each N-th
 *                 chance=N/M   at random; the rule "seed=N" (alone) fixes the sequence
 *                 count=N      at most N times
 *                 range=OFFSET+LENGTH   only operations that touch these bytes; sizes as 4K, 1G
 *     what        delay=MS     first wait
 *                 hang         first wait until fault_release()
 *                 loss         raise loss_generation, as a reset of the device does
 *                 errno=NAME   fail, with nothing done (EIO, ENOSPC, ... or a number)
 *                 short=BYTES  transfer only so much (READ and WRITE)
 *                 drop         succeed, with nothing done
 *
 * Example: "fault:mem:1G!write,nth=3,errno=EIO;flush,delay=50,count=10". A flush that fails raises
 * loss_generation as that of any backend does (B5).
 */
#ifndef BACKENDS_FAULT_H
#define BACKENDS_FAULT_H

#include <stdint.h>

#include "backends/backend.h"

/* These take a backend whose type is "fault", and may be called on any thread. */

/* Append rules. 0, or -EINVAL with nothing added. */
int fault_add_rules(struct backend *backend, const char *rules, struct error *error);
/* Forget all rules; what waits goes on waiting. */
void fault_clear_rules(struct backend *backend);
/* Let go what hangs; it continues on its reactor. Returns how many there were. */
uint32_t fault_release(struct backend *backend);
/* Operations that hang now. */
uint32_t fault_hanging(struct backend *backend);
/* Operations to which a rule has applied so far. */
uint64_t fault_hits(struct backend *backend);
/* The backend below. */
struct backend *fault_child(struct backend *backend);

#endif
