#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A foreign array that dies and comes back never causes wrong data: what was not flushed may give
an error, or stop its volume until the loss is accepted, but what can be read is right, and other
volumes go on.

The array is killed under random writes and started again with all that it had been told.
"""

import errno
import time

import volmgr_nbd
from volmgr_env import GIB, MIB, check, run, wait_until

ALLOWED = {errno.EIO, errno.ETIMEDOUT}


def verify(oracle, handle, env):
    """Whatever can be read is right; blocks that cannot be read must be writable again."""
    unreadable = 0
    for window in oracle.windows:
        for first in range(0, window.length, 8):
            offset = (window.offset + first) * 512
            try:
                data = handle.pread(4096, offset)
            except volmgr_nbd.nbd.Error:
                unreadable += 1
                operation = oracle.begin("write", window, first, 8)
                handle.pwrite(operation.data, offset)
                oracle.end(operation, True)
                data = handle.pread(4096, offset)
            oracle.verify(window, first, bytes(data))
    env.say(f"{unreadable} blocks gave an error until they were rewritten")


def run_for(traffic, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check(traffic.step(50), "the connection to volmgrd was lost")


def kill_and_start(env, daemon, array, oracle):
    """Under the traffic of one connection."""
    handle = volmgr_nbd.connect(daemon, "p/v")
    traffic = volmgr_nbd.Traffic(oracle, [handle], env.random, depth=8)
    run_for(traffic, env.random.uniform(0.5, 1.5))
    array.kill()
    run_for(traffic, env.random.uniform(0.5, 2))
    array.start()
    run_for(traffic, 3)
    traffic.drain()
    check(not set(traffic.errors) - ALLOWED, f"errors of another kind: {traffic.errors}")
    volmgr_nbd.close(handle)
    other = volmgr_nbd.connect(daemon, "p/other")
    other.pwrite(b"o" * 4096, 0)
    other.flush()
    volmgr_nbd.close(other)


def wait_served(env, daemon, oracle):
    """Until the volume is usable; where it says that it is not, by accepting the loss."""
    handle = volmgr_nbd.connect(daemon, "p/v")

    def serves_or_tells():
        return (volmgr_nbd.error_code(handle.pwrite, bytes(4096), GIB - 4096) == 0
                or daemon.volctl("show", "p/v")["problem"])
    problem = wait_until(serves_or_tells, 60, "the LUN is used again", 0.2)
    volmgr_nbd.close(handle)
    if problem is not True:
        env.say(f"the volume says: {problem}")
        check(daemon.volctl("status")["health"] == "critical", "health with a volume that stands")
        daemon.stop()
        daemon.arguments = ["--accept-loss"]
        daemon.start()
        daemon.arguments = []
        oracle.accept_loss()


def test(env):
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}")
    array = env.iscsi_array(320 * MIB)
    daemon = env.daemon(config="[pool]\ndisk_timeout = 10s\nrequest_timeout = 20s\n")
    daemon.volctl("pool", "create", "p", env.file_disk(320 * MIB), f"{array.disk},tier=1")
    daemon.make_volume("p/v", GIB, "--tier", 1)
    daemon.make_volume("p/other", GIB, "--tier", 0)
    oracle = volmgr_nbd.Oracle(5, [(number * 40960, 1024) for number in range(16)],
                               may_lose=True)
    for _ in range(10 if env.long else 2):
        kill_and_start(env, daemon, array, oracle)
        wait_served(env, daemon, oracle)
        handle = volmgr_nbd.connect(daemon, "p/v")
        verify(oracle, handle, env)
        # The FLUSH behind a loss says so once; then all is in order again.
        mark = oracle.flush_sent()
        wait_until(lambda: volmgr_nbd.error_code(handle.flush) == 0, 30, "FLUSH works again", 0.2)
        oracle.flush_done(mark)
        volmgr_nbd.close(handle)
    daemon.check_alive()
    daemon.stop()


run(test, limit_s=180)
