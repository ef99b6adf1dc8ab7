#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A host that comes back while the pool of its volume is still being opened waits, and is served as
soon as it is; only then an export that does not exist is called unknown.

The commit ledger is slow to read, which only a start does.
"""

import threading
import time

import volmgr_nbd
from volmgr_env import MIB, check, check_equal, run, wait_until

# Longer than a start waits for its pools, shorter than a disk may take.
READ_MS = 24000


def attach_later(daemon, name, outcome):
    """Connect while the pool is being opened: (seconds that it took, data or the error)."""
    began = time.monotonic()
    try:
        handle = volmgr_nbd.connect(daemon, name)
        outcome[name] = bytes(handle.pread(4096, MIB))
        volmgr_nbd.close(handle)
    except volmgr_nbd.need_libnbd().Error as error:
        outcome[name] = error.string
    outcome[name + " took"] = time.monotonic() - began


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    disk = f"fault:{env.file_disk(320 * MIB)}!read,range=1M+4M,count=1,delay={READ_MS}"
    daemon.volctl("pool", "create", "p", disk)
    daemon.make_volume("p/v", 64 * MIB)
    handle = volmgr_nbd.connect(daemon, "p/v")
    handle.pwrite(b"\x33" * 4096, MIB)
    volmgr_nbd.close(handle)
    daemon.kill()

    daemon.launch()
    wait_until(daemon.is_ready, 60, "volmgrd says ready")
    check_equal(daemon.volctl("pool", "show", "p")["state"], "opening", "the pool's state")
    outcome = {}
    threads = [threading.Thread(target=attach_later, args=(daemon, name, outcome))
               for name in ("p/v", "p/none")]
    for thread in threads:
        thread.start()
    time.sleep(1)
    check_equal(daemon.volctl("pool", "show", "p")["state"], "opening", "the pool's state")
    check(not outcome, f"a host was answered before the pool was open: {outcome}")
    wait_until(lambda: daemon.volctl("pool", "show", "p")["state"] == "online", 60,
               "the pool is open", 0.2)
    for thread in threads:
        thread.join(20)
        check(not thread.is_alive(), "a host was never answered")
    check_equal(outcome["p/v"], b"\x33" * 4096, "what was written before")
    check("p/none" in outcome and isinstance(outcome["p/none"], str),
          "an export that does not exist was found")
    env.say(f"attached after {outcome['p/v took']:.1f} s; refused: {outcome['p/none']}")
    daemon.stop()


run(test, limit_s=180)
