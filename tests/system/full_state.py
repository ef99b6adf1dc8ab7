#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""When the file system of the state directory is full, the daemon stays up: reads and overwrites go
on, nothing flushed is lost, and with space again a restart heals it. When it notices in time, only
writes that need new space are refused, and no restart is needed."""

import contextlib
import errno
import os
import time

import volmgr_nbd
from full_backend import SmallFileSystem
from volmgr_env import GIB, KIB, MIB, CommandError, check, check_equal, run, wait_until

BLOCK = 4 * KIB


def mark(number):
    return (number % 251 + 1).to_bytes(1, "little") * BLOCK


def fill_file_system(folder):
    """To the last block."""
    with open(os.path.join(folder, "junk"), "wb", buffering=0) as file:
        for size in (MIB, 4 * KIB):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def write_until_it_fails(handle):
    """First writes, each with a FLUSH; how many were acknowledged with their FLUSH."""
    deadline = time.monotonic() + 6
    number = 0
    while number < 40000 and time.monotonic() < deadline:
        if volmgr_nbd.error_code(handle.pwrite, mark(number), number * 16 * BLOCK):
            break
        if number % 8 == 7 and volmgr_nbd.error_code(handle.flush):
            break
        number += 1
    return number - number % 8


def fill_and_notice(daemon, small):
    """The watch of the state directory refuses what needs new map entries, and nothing else."""
    handle = volmgr_nbd.connect(daemon, "p/v")
    handle.pwrite(mark(7), 61 * GIB)
    handle.flush()
    before = daemon.event_names().count("state-space-full")
    fill_file_system(small.folder)
    wait_until(lambda: daemon.event_names().count("state-space-full") > before, 20,
               "the daemon notices that the state directory is full")
    check_equal(volmgr_nbd.error_code(handle.pwrite, mark(8), 50 * GIB), errno.ENOSPC, "new space")
    handle.pwrite(mark(9), 60 * GIB)
    handle.trim(16 * BLOCK, 61 * GIB)
    handle.flush()
    check_equal(bytes(handle.pread(BLOCK, 60 * GIB)), mark(9), "what was overwritten")
    check_equal(bytes(handle.pread(BLOCK, 61 * GIB)), bytes(BLOCK), "what was discarded")
    check_equal(daemon.volctl("pool", "show", "p")["state"], "online", "state when it is full")
    before = daemon.event_names().count("state-space-back")
    os.unlink(os.path.join(small.folder, "junk"))
    wait_until(lambda: daemon.event_names().count("state-space-back") > before, 20,
               "the daemon notices that there is room again")
    handle.pwrite(mark(8), 50 * GIB)
    handle.flush()
    volmgr_nbd.close(handle)


def test(env):
    volmgr_nbd.need_libnbd()
    small = SmallFileSystem(env, 256 * MIB)
    daemon = env.daemon(start=False)
    daemon.state = os.path.join(small.folder, "state")
    daemon.socket = os.path.join(daemon.state, "volmgrd.sock")
    daemon.nbd_socket = os.path.join(daemon.state, "nbd.sock")
    daemon.start()
    daemon.volctl("pool", "create", "p", env.file_disk(4 * GIB))
    daemon.make_volume("p/v", 64 * GIB)
    handle = volmgr_nbd.connect(daemon, "p/v")
    handle.pwrite(mark(99), 60 * GIB)
    handle.flush()
    fill_file_system(small.folder)
    flushed = write_until_it_fails(handle)
    env.say(f"{flushed} blocks were flushed with a full state directory")
    daemon.check_alive()
    for number in range(0, flushed, 7):
        check_equal(bytes(handle.pread(BLOCK, number * 16 * BLOCK)), mark(number), "read")
    check_equal(volmgr_nbd.error_code(handle.pwrite, mark(98), 60 * GIB), 0, "an overwrite")
    check_equal(bytes(handle.pread(BLOCK, 60 * GIB)), mark(98), "what was overwritten")
    daemon.volctl("status")
    try:
        daemon.volctl("create", "p/late", "--size", "1G")
    except CommandError as error:
        check(error.body.get("why"), f"it does not say why: {error}")
    volmgr_nbd.close(handle)

    os.unlink(os.path.join(small.folder, "junk"))
    daemon.process.terminate()
    daemon.process.wait(60)  # in order or not, it depends on how far it had come
    daemon.start()
    check_equal(daemon.volctl("pool", "show", "p")["state"], "online", "state after the restart")
    handle = volmgr_nbd.connect(daemon, "p/v")
    for number in range(flushed):
        check_equal(bytes(handle.pread(BLOCK, number * 16 * BLOCK)), mark(number),
                    f"block {number} after the restart")
    check_equal(bytes(handle.pread(BLOCK, 60 * GIB)), mark(98), "the overwrite")
    handle.pwrite(mark(1), 63 * GIB)
    handle.flush()
    volmgr_nbd.close(handle)
    fill_and_notice(daemon, small)
    daemon.stop()


run(test, limit_s=120)
