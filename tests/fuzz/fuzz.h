/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target defines; libFuzzer or replay.c calls it. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Feed `data` to a decoder. Returns 0; foreign bytes must never crash, assert or leak (P12). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
