/* SPDX-License-Identifier: Apache-2.0 */
/* The policy of gathering requests, against modelled clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/util.h"
#include "targets/nbd/gather_impl.h"

/* A client with so many requests in flight at most, and one thread that sends and reads. */
struct model {
    uint32_t depth;
    uint64_t request_ns; /* that the client needs to send a request and take its reply */
    uint64_t server_ns;  /* from a receive to the replies */
    uint32_t noise;      /* 0 .. 100: how much the times vary, in percent */
};

struct outcome {
    uint64_t requests_per_s;
    uint64_t receives;
    uint64_t requests;
    uint64_t waits;
};

static struct outcome
play(struct nbd_gather *gather, const struct model *model, uint64_t *now_ns, uint64_t for_ns)
{
    struct outcome outcome = { 0 };
    struct random random;
    uint64_t end_ns = *now_ns + for_ns;
    uint64_t begin_ns = *now_ns;
    uint64_t client_ns = *now_ns; /* when the client can do the next thing */
    uint64_t receive_ns = 0;      /* the server does not receive before */
    uint64_t replies_ns = 0;      /* when the last batch is answered */
    uint32_t answered = model->depth;
    uint32_t queued = 0;
    uint32_t replying = 0;

    random_seed(&random, 3);
    while (*now_ns < end_ns) {
        *now_ns += 500;
        if (replying > 0 && *now_ns >= replies_ns) {
            answered += replying;
            replying = 0;
        }
        if (answered > 0 && *now_ns >= client_ns) {
            answered--;
            queued++;
            client_ns = *now_ns + model->request_ns +
                        random_below(&random, model->request_ns * model->noise / 100 + 1);
        }
        if (queued > 0 && replying == 0 && *now_ns >= receive_ns) {
            outcome.receives++;
            outcome.requests += queued;
            replying = queued;
            queued = 0;
            replies_ns = *now_ns + model->server_ns;
            if (nbd_gather_note(gather, replying, *now_ns)) {
                receive_ns = *now_ns + NBD_GATHER_WAIT_NS;
                outcome.waits++;
            }
        }
    }
    outcome.requests_per_s = outcome.requests * NS_PER_S / (end_ns - begin_ns);
    return outcome;
}

static struct outcome
play_fresh(const struct model *model, uint64_t for_ns)
{
    struct nbd_gather gather = { 0 };
    uint64_t now_ns = 12345678;
    return play(&gather, model, &now_ns, for_ns);
}

static void
deep_clients_are_gathered(void **state)
{
    static const uint32_t depths[] = { 16, 32, 64, 256 };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
        for (uint32_t noise = 0; noise <= 50; noise += 25) {
            const struct model model = { depths[i], 5000, 3000, noise };
            struct outcome outcome = play_fresh(&model, NS_PER_S);
            assert_true(outcome.requests > 4 * outcome.receives);
            assert_true(outcome.requests_per_s > 140000 * 100 / (100 + noise));
        }
    }
}

/* Who waits for replies loses next to nothing by our trying. */
static void
shallow_clients_are_left_alone(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 4; depth++) {
        static const uint64_t periods[] = { 3000, 10000, 30000, 100000 };
        for (size_t i = 0; i < ARRAY_SIZE(periods); i++) {
            const struct model model = { depth, periods[i], 4000, 10 };
            struct outcome outcome = play_fresh(&model, 2 * NS_PER_S);
            assert_true(outcome.waits * 50 < outcome.receives);
        }
    }
}

static void
natural_batches_are_left_alone(void **state)
{
    const struct model model = { 64, 1000, 60000, 10 }; /* the server is the slow one */
    (void)state;
    struct outcome outcome = play_fresh(&model, NS_PER_S);
    assert_int_equal(outcome.waits, 0);
}

static void
a_client_that_changes(void **state)
{
    struct nbd_gather gather = { 0 };
    uint64_t now_ns = 1;
    const struct model deep = { 32, 5000, 3000, 20 };
    const struct model single = { 1, 5000, 3000, 20 };
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct outcome outcome = play(&gather, &deep, &now_ns, NS_PER_S);
        assert_true(outcome.waits > 1000);
        outcome = play(&gather, &single, &now_ns, NS_PER_S);
        assert_true(outcome.waits < 500);
        now_ns += 10 * NS_PER_S; /* and sleeps */
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deep_clients_are_gathered),
        cmocka_unit_test(shallow_clients_are_left_alone),
        cmocka_unit_test(natural_batches_are_left_alone),
        cmocka_unit_test(a_client_that_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
