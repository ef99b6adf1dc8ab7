/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/gather_impl.h"

#include "base/assert.h"
#include "base/util.h"

enum {
    EPOCH_REQUESTS = 256,
    EARLY_RECEIVES = 8,     /* a try is given up after so many small batches */
    GATHER_EPOCHS = 64,     /* before PLAIN is measured again */
    BACKOFF_MAX = 256,
    BATCH_WORTH = 4,        /* requests per receive that are worth waiting for */
    BATCH_NATURAL = 8,      /* this many come without waiting: nothing to gain */
    PLAIN_NS_MAX = 40000,   /* a slower client would notice the wait, and costs little anyway */
    PAUSE_NS = 1000000,     /* such a gap between receives is not counted as time */
};

static void
begin_epoch(struct nbd_gather *gather, enum nbd_gather_mode mode, uint64_t now_ns)
{
    gather->mode = (uint8_t)mode;
    gather->requests = 0;
    gather->receives = 0;
    gather->epoch_ns = now_ns;
}

static void
begin_plain(struct nbd_gather *gather, uint32_t epochs, uint64_t now_ns)
{
    gather->epochs_left = epochs;
    begin_epoch(gather, NBD_GATHER_PLAIN, now_ns);
}

static void
try_failed(struct nbd_gather *gather, uint64_t now_ns)
{
    gather->backoff = gather->backoff == 0 ? 1 : MIN(gather->backoff * 2, (uint32_t)BACKOFF_MAX);
    begin_plain(gather, gather->backoff, now_ns);
}

/* Batches are too small for waiting to be of use. */
static bool
batches_are_small(const struct nbd_gather *gather)
{
    return gather->requests < gather->receives * BATCH_WORTH;
}

static void
end_plain(struct nbd_gather *gather, uint64_t per_request_ns, uint64_t now_ns)
{
    bool candidate = per_request_ns < PLAIN_NS_MAX &&
                     gather->requests < gather->receives * BATCH_NATURAL;

    gather->plain_ns = per_request_ns;
    if (gather->epochs_left > 0) {
        gather->epochs_left--;
    }
    begin_epoch(gather,
                candidate && gather->epochs_left == 0 ? NBD_GATHER_TRY : NBD_GATHER_PLAIN, now_ns);
}

static void
end_epoch(struct nbd_gather *gather, uint64_t now_ns)
{
    uint64_t per_request_ns = (now_ns - gather->epoch_ns) / gather->requests;

    switch (gather->mode) {
    case NBD_GATHER_PLAIN:
        end_plain(gather, per_request_ns, now_ns);
        break;
    case NBD_GATHER_TRY:
        if (batches_are_small(gather) || per_request_ns > gather->plain_ns * 9 / 8) {
            try_failed(gather, now_ns);
        } else {
            gather->backoff = 0;
            gather->epochs_left = GATHER_EPOCHS;
            begin_epoch(gather, NBD_GATHER_ON, now_ns);
        }
        break;
    default:
        ASSERT_OP(gather->mode, ==, NBD_GATHER_ON);
        if (batches_are_small(gather) || --gather->epochs_left == 0) {
            begin_plain(gather, 1, now_ns);
        } else {
            begin_epoch(gather, NBD_GATHER_ON, now_ns);
        }
        break;
    }
}

bool
nbd_gather_note(struct nbd_gather *gather, uint32_t requests, uint64_t now_ns)
{
    uint64_t gap_ns = now_ns - gather->last_ns;

    gather->last_ns = now_ns;
    if (gap_ns > PAUSE_NS) {
        gather->epoch_ns += gap_ns;
        return gather->mode != NBD_GATHER_PLAIN;
    }
    gather->receives++;
    gather->requests += requests;
    if (gather->requests >= EPOCH_REQUESTS) {
        end_epoch(gather, now_ns);
    } else if (gather->mode != NBD_GATHER_PLAIN && gather->receives % EARLY_RECEIVES == 0 &&
               batches_are_small(gather)) {
        try_failed(gather, now_ns);
    }
    return gather->mode != NBD_GATHER_PLAIN;
}
