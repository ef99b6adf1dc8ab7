#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""volctl tells which hosts are attached and cuts one off: when the command returns, nothing that
the host has sent can still take effect, and a blocked host stays out."""

import time

import volmgr_nbd
from volmgr_env import GIB, MIB, check, check_equal, run, wait_until


def sessions(daemon, *arguments):
    return daemon.volctl("session", "list", *arguments)["sessions"]


def check_list(daemon):
    first = volmgr_nbd.connect(daemon, "p/v")
    second = volmgr_nbd.connect(daemon, "p/w", tcp=True)
    first.pwrite(b"a" * 4096, 0)
    first.pread(8192, 0)
    listed = {entry["volume"]: entry for entry in sessions(daemon)}
    check_equal(set(listed), {"p/v", "p/w"}, "volumes with a session")
    check_equal(listed["p/v"]["written_bytes"], 4096, "bytes written by the session")
    check_equal(listed["p/v"]["read_bytes"], 8192, "bytes read by the session")
    check("127.0.0.1" in listed["p/w"]["peer"], f"peer of the TCP session: {listed['p/w']}")
    check_equal(len(sessions(daemon, "p/w")), 1, "sessions of one volume")
    volmgr_nbd.close(first, second)
    wait_until(lambda: not sessions(daemon), 10, "sessions that ended are gone")


def check_drop_is_a_fence(env, daemon):
    """The dropped host had writes in flight; what is there when the command returns stays."""
    nbd = volmgr_nbd.need_libnbd()
    for _ in range(20 if env.long else 5):
        handle = volmgr_nbd.connect(daemon, "p/v")
        session = next(entry["id"] for entry in sessions(daemon, "p/v"))
        fill = bytes([env.random.randrange(1, 255)]) * (256 * 1024)
        for index in range(48):
            handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(fill)), index * len(fill))
        # They leave without an answer being waited for; some are on their way when the axe falls.
        deadline = time.monotonic() + env.random.uniform(0.001, 0.02)
        while time.monotonic() < deadline and volmgr_nbd.pump([handle], 1):
            pass
        check_equal(daemon.volctl("session", "drop", session)["dropped"], 1, "sessions dropped")
        other = volmgr_nbd.connect(daemon, "p/v")
        at_return = bytes(other.pread(12 * MIB, 0))
        mark = b"new owner" + bytes(503)
        other.pwrite(mark, 5 * MIB)
        time.sleep(0.3)
        while volmgr_nbd.pump([handle], 0):
            pass
        later = bytes(other.pread(12 * MIB, 0))
        expected = at_return[:5 * MIB] + mark + at_return[5 * MIB + 512:]
        check(later == expected, "a write of the dropped host took effect afterwards")
        volmgr_nbd.close(other)
    check_equal(daemon.refused("session", "drop", session).code, "ENOENT", "the same session again")


def check_block(daemon):
    handle = volmgr_nbd.connect(daemon, "p/w", tcp=True)
    daemon.volctl("session", "drop", "127.0.0.1", "--block")
    check(volmgr_nbd.error_code(handle.pread, 512, 0) != 0, "the dropped host reads on")
    again = volmgr_nbd.need_libnbd().NBD()
    check(volmgr_nbd.error_code(again.connect_uri, daemon.uri("p/w", True)) != 0,
          "a blocked host attaches")
    local = volmgr_nbd.connect(daemon, "p/w")
    volmgr_nbd.close(local)
    daemon.volctl("session", "drop", "127.0.0.1", "--unblock")
    handle = volmgr_nbd.connect(daemon, "p/w", tcp=True)
    volmgr_nbd.close(handle)


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(300 * MIB))
    for name in "vw":
        daemon.make_volume(f"p/{name}", GIB)
    check_list(daemon)
    check_drop_is_a_fence(env, daemon)
    check_block(daemon)
    daemon.stop()


run(test, limit_s=60)
