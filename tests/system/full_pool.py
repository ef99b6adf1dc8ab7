#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A full pool refuses writes that need new space with ENOSPC, and nothing else (P7).

Reads, overwrites, discards and reserved volumes go on; a warning came before; `volctl pool add`
heals it without a restart.
"""

import errno
import time

import volmgr_nbd
from volmgr_env import GIB, KIB, MIB, check, check_equal, run, wait_until

STEP = 64 * KIB


def mark(number):
    return (number % 251 + 1).to_bytes(1, "little") * STEP


def fill_until_full(handle):
    """How many steps fitted in; the one behind them failed with ENOSPC, and did so still after a
    while: the checkpoint before the last one may have given its space back."""
    refused = 0
    for number in range(1 << 20):
        while code := volmgr_nbd.error_code(handle.pwrite, mark(number), number * STEP):
            check_equal(code, errno.ENOSPC, "errno of the write that finds no space")
            refused += 1
            if refused == 4:
                return number
            time.sleep(0.5)
        refused = 0
    raise AssertionError("the pool is never full")


def check_goes_on(daemon, handle, steps):
    """Everything but new space works, flush included."""
    for number in (0, steps // 2, steps - 1):
        check_equal(bytes(handle.pread(STEP, number * STEP)), mark(number), f"step {number}")
        handle.pwrite(mark(number + 1), number * STEP)
        check_equal(bytes(handle.pread(STEP, number * STEP)), mark(number + 1), "overwritten")
        handle.pwrite(mark(number), number * STEP)
    handle.flush()
    check_equal(volmgr_nbd.error_code(handle.pwrite, mark(0), (steps + 4) * STEP), errno.ENOSPC,
                "still no space")
    check_equal(bytes(handle.pread(STEP, (steps + 4) * STEP)), bytes(STEP), "the refused write")
    daemon.volctl("create", "p/late", "--size", "1G")
    daemon.volctl("delete", "p/late")
    daemon.volctl("status")


def check_discard_frees(handle, steps):
    """What a discard gives back can be used again, after the commit that freed it."""
    first, count = steps // 4, 40 * MIB // STEP
    handle.trim(count * STEP, first * STEP)
    check_equal(bytes(handle.pread(STEP, first * STEP)), bytes(STEP), "what was discarded")
    handle.flush()

    def fits_again():
        return volmgr_nbd.error_code(handle.pwrite, mark(first), first * STEP) == 0
    wait_until(fits_again, 20, "freed space is used again", 0.1)
    for number in range(first, first + count // 2):
        handle.pwrite(mark(number), number * STEP)


def check_reserved(daemon, handle):
    for number in range(32 * MIB // STEP):
        handle.pwrite(mark(number), number * STEP)
    handle.flush()
    daemon.check_alive()


def check_warned(daemon):
    names = daemon.event_names()
    check("pool-full" in names, f"no event says that the pool is full: {names}")
    before = names[:names.index("pool-full")]
    check("pool-space-warning" in before, f"no warning came before: {names}")
    check(daemon.volctl("status")["health"] != "ok", "health is ok with a full pool")


def check_heals(env, daemon, handle, steps):
    daemon.volctl("pool", "add", "p", env.file_disk(128 * MIB))
    began = time.monotonic()
    for number in range(steps, steps + 256):
        handle.pwrite(mark(number), number * STEP)
    handle.flush()
    check(time.monotonic() - began < 20, "writing after pool add is slow")
    for number in range(steps, steps + 256, 17):
        check_equal(bytes(handle.pread(STEP, number * STEP)), mark(number), f"step {number}")
    wait_until(lambda: daemon.volctl("status")["health"] == "ok", 20, "health is ok again", 0.2)


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(256 * MIB))
    daemon.make_volume("p/v", 4 * GIB)
    daemon.make_volume("p/sure", GIB, "--reserve", 32 * MIB)
    handle = volmgr_nbd.connect(daemon, "p/v")
    steps = fill_until_full(handle)
    env.say(f"{steps * STEP // MIB} MiB fitted in")
    check(steps * STEP > 128 * MIB, "the pool is full too early")
    check_warned(daemon)
    check_goes_on(daemon, handle, steps)
    check_discard_frees(handle, steps)
    sure = volmgr_nbd.connect(daemon, "p/sure")
    check_reserved(daemon, sure)
    volmgr_nbd.close(handle, sure)
    daemon.restart()
    handle = volmgr_nbd.connect(daemon, "p/v")
    check_equal(bytes(handle.pread(STEP, (steps - 1) * STEP)), mark(steps - 1), "after a restart")
    check_heals(env, daemon, handle, steps)
    volmgr_nbd.close(handle)
    daemon.stop()


run(test, limit_s=90)
