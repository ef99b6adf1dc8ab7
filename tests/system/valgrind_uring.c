/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a volmgrd that valgrind runs. Valgrind 3.19 lets one thread run at a time and does
 * not know that io_uring_enter() may wait: a reactor that sleeps in it would stop all others. So
 * here it never waits; between two looks it sleeps in a call of which valgrind knows.
 */
#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <time.h>

enum {
    LOOK_NS = 200 * 1000,
};

static int64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* As the one of liburing, for wait_nr 1 and no signal mask, which is how it is called. */
__attribute__((visibility("default"))) int
io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **ret_cqe,
                                 unsigned wait_nr, struct __kernel_timespec *timeout,
                                 sigset_t *mask)
{
    int64_t deadline_ns = now_ns() + timeout->tv_sec * 1000000000 + timeout->tv_nsec;
    int submitted = io_uring_submit_and_get_events(ring);
    (void)wait_nr;
    (void)mask;
    for (;;) {
        if (submitted < 0 || io_uring_peek_cqe(ring, ret_cqe) == 0) {
            return submitted;
        }
        if (now_ns() >= deadline_ns) {
            return -ETIME;
        }
        struct timespec pause = { .tv_nsec = LOOK_NS };
        nanosleep(&pause, NULL);
        int result = io_uring_get_events(ring);
        if (result < 0) {
            return result;
        }
    }
}
