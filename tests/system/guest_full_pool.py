#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A virtual machine whose pool is full pauses instead of losing data, and goes on after
`volctl pool add` (QEMU's werror=enospc)."""

import volmgr_nbd
from volmgr_env import MIB, check, check_equal, run, wait_until
from volmgr_guest import Guest, GuestKernel, volume_drive

WRITE_MIB = 96
LINE = b"written by a guest whose pool was full\n"

INIT = f"""
echo "guest writes"
yes '{LINE.decode().strip()}' | dd of=/dev/vda bs=1M count={WRITE_MIB} iflag=fullblock \\
    conv=fsync && echo "guest has written"
"""


def test(env):
    volmgr_nbd.need_libnbd()
    GuestKernel()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(100 * MIB))
    room = daemon.volctl("pool", "show", "p")["size_bytes"]
    check(room < WRITE_MIB * MIB, "the pool is too large for this test")
    daemon.make_volume("p/guest", 10240 * MIB)
    guest = Guest(env, INIT,
                  volume_drive(daemon, "p/guest", ",werror=enospc,rerror=report"))
    guest.wait_for("guest writes")
    wait_until(lambda: guest.status() == "io-error", 120, "the guest is paused", 0.1)
    errors = [event["data"] for event in guest.events if event["event"] == "BLOCK_IO_ERROR"]
    check(errors and all(error["nospace"] for error in errors), f"QEMU's reasons: {errors}")
    check_equal(errors[0]["operation"], "write", "the operation that failed")
    check("guest has written" not in guest.said(), "the guest was told that all is written")

    # A pause is no end: what comes too early pauses it again.
    guest.command("cont")
    wait_until(lambda: guest.status() == "io-error", 60, "the guest is paused again", 0.1)
    daemon.volctl("pool", "add", "p", env.file_disk(200 * MIB))
    guest.command("cont")
    guest.wait_for("guest has written")
    guest.wait_end()

    handle = volmgr_nbd.connect(daemon, "p/guest")
    expected = (LINE * (WRITE_MIB * MIB // len(LINE) + 1))[:WRITE_MIB * MIB]
    for place in range(0, WRITE_MIB * MIB, 8 * MIB):
        data = bytes(handle.pread(8 * MIB, place))
        check(data == expected[place:place + 8 * MIB], f"what the guest wrote at {place}")
    volmgr_nbd.close(handle)
    daemon.stop()


run(test, limit_s=240)
