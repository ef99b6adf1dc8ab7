/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the fault filter; see fault.h for their language. */
#ifndef BACKENDS_FAULT_IMPL_H
#define BACKENDS_FAULT_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/backend.h"
#include "base/list.h"
#include "base/random.h"

/* What happens to one operation. Zeroed: nothing. */
struct fault_outcome {
    uint64_t delay_ns;
    uint64_t short_bytes; /* 0: whole */
    int32_t error;        /* 0, or -errno */
    bool hang;
    bool loss;
    bool drop;
};

struct fault_rule {
    struct list link;
    uint32_t kinds; /* bits of enum backend_io_kind */
    uint64_t range_start_bytes;
    uint64_t range_end_bytes;
    uint64_t nth;   /* 0: not limited so */
    uint64_t every; /* 0: not limited so */
    uint32_t chance_numerator;
    uint32_t chance_denominator; /* 0: not limited so */
    uint64_t applications_left;
    uint64_t matches;
    struct fault_outcome outcome;
};

/*
 * Parse "RULE;RULE" and append to `rules` (heap; freed by fault_rules_free). A seed rule sets
 * `random`. 0, or -EINVAL with `error` set and nothing changed.
 */
int fault_rules_parse(const char *text, struct list *rules, struct random *random,
                      struct error *error);
void fault_rules_free(struct list *rules);
/* The outcome of an operation, by the first rule whose turn it is. True: there is one. */
bool fault_rules_apply(struct list *rules, struct random *random, enum backend_io_kind kind,
                       uint64_t offset_bytes, uint64_t length_bytes,
                       struct fault_outcome *ret_outcome);

#endif
