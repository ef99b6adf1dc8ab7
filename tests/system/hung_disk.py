#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that hangs delays nothing but the I/O that needs it: reads, writes, first writes and FLUSH
of a volume on the other disks of the same pool go on, and so do status and other commands (P9).

The disk is a LUN whose array is stopped. Latency is compared with what the same client had before
and after, whichever was worse.
"""

import time

import volmgr_latency
import volmgr_nbd
from volmgr_env import GIB, MIB, SANITIZED, check, check_equal, run, wait_until

KINDS = ("read", "write", "flush", "fresh")
# Of the 99th percentiles. The one operation that finds out that the disk is late may wait for a
# while, but not for as long as the deadline of a disk.
TAIL_RATIO_MAX = 10.0
MEDIAN_RATIO_MAX = 5.0
MEDIAN_US_MAX = 2000
DISK_TIMEOUT_S = 8
WORST_S_MAX = DISK_TIMEOUT_S / 2


def calm_of(*phases):
    """kind -> (median, 99th percentile, worst), each the worst of the phases."""
    return {kind: [max(values) for values in
                   zip(*(volmgr_latency.summary(phase[kind]) for phase in phases))]
            for kind in KINDS}


def worse(env, name, calm, hung):
    failures = []
    for kind in KINDS:
        before = calm[kind]
        after = volmgr_latency.summary(hung[kind])
        env.say(f"{name}: {kind}: median {before[0]:.0f} -> {after[0]:.0f} us, 99 % "
                f"{before[1]:.0f} -> {after[1]:.0f} us, worst {before[2]:.0f} -> {after[2]:.0f} us")
        if after[2] > WORST_S_MAX * 1e6:
            failures.append(f"{kind}: one took {after[2] / 1e6:.1f} s")
        if SANITIZED:
            continue
        # Where disks are memory all of it takes microseconds, and a busy machine takes more.
        if after[0] > max(MEDIAN_RATIO_MAX * before[0], MEDIAN_US_MAX):
            failures.append(f"{kind}: median of {before[0]:.0f} us became {after[0]:.0f} us")
        # The tail must be worse than that of the calm time by far, its single worst included: a
        # busy machine alone makes a tail of some milliseconds.
        if after[1] > TAIL_RATIO_MAX * before[1] and after[1] > 3 * before[2]:
            failures.append(f"{kind}: 99 % of {before[1]:.0f} us became {after[1]:.0f} us")
    return failures


def start_slow_io(daemon):
    """Something that waits for the hung disk, read and write."""
    nbd = volmgr_nbd.need_libnbd()
    handle = volmgr_nbd.connect(daemon, "p/slow")
    for number in range(4):
        handle.aio_pread(nbd.Buffer(4096), number * MIB)
        handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(4096)), (64 + number) * MIB)
    handle.aio_flush()
    return handle


def check_commands(daemon):
    for arguments in (["status"], ["list"], ["pool", "show", "p"], ["session", "list"],
                      ["create", "p/new", "--size", "1G", "--tier", "0"],
                      ["resize", "p/new", "2G"], ["export", "p/new", "nbd"],
                      ["unexport", "p/new"], ["delete", "p/new"]):
        began = time.monotonic()
        daemon.volctl(*arguments)
        seconds = time.monotonic() - began
        check(seconds < WORST_S_MAX, f"volctl {' '.join(arguments)} took {seconds:.1f} s")


def check_recovers(daemon, array, slow):
    array.thaw()

    def answers():
        volmgr_nbd.pump([slow], 100)
        if not volmgr_nbd.is_usable(slow):
            return True
        return slow.aio_in_flight() == 0
    wait_until(answers, 60, "what waited for the disk ends")

    def reads_again():
        handle = volmgr_nbd.connect(daemon, "p/slow")
        data = None
        if volmgr_nbd.error_code(handle.pread, 4096, MIB) == 0:
            data = bytes(handle.pread(4096, MIB))
        volmgr_nbd.close(handle)
        return data
    check_equal(wait_until(reads_again, 60, "the disk is used again", 0.5), b"\x22" * 4096,
                "what was on the disk")


def test(env):
    volmgr_nbd.need_libnbd()
    array = env.iscsi_array(320 * MIB)
    daemon = env.daemon(config=f"[pool]\ndisk_timeout = {DISK_TIMEOUT_S}s\n"
                               f"request_timeout = {2 * DISK_TIMEOUT_S}s\n")
    # Two disks: each holds a copy of the commit ledger, the one that hangs too.
    daemon.volctl("pool", "create", "p", env.file_disk(320 * MIB),
                  f"{array.disk},tier=1")
    daemon.make_volume("p/fast", GIB, "--tier", 0)
    daemon.make_volume("p/slow", GIB, "--tier", 1)
    handle = volmgr_nbd.connect(daemon, "p/slow")
    for number in range(8):
        handle.pwrite(b"\x22" * 4096, number * MIB)
    handle.flush()
    volmgr_nbd.close(handle)

    victim = volmgr_latency.Victim(env, daemon, "p/fast", KINDS)
    calm = victim.measure(5)
    array.freeze()
    victim.reset()
    slow = start_slow_io(daemon)
    volmgr_nbd.pump([slow], 0)
    time.sleep(3)
    check_commands(daemon)
    early = victim.take()
    time.sleep(DISK_TIMEOUT_S + 4)
    late = victim.take()
    check_recovers(daemon, array, slow)
    calm = calm_of(calm, victim.measure(5))
    failures = worse(env, "disk hangs", calm, early)
    failures += worse(env, "deadline passed", calm, late)
    check(not failures, "; ".join(failures))
    daemon.check_alive()
    volmgr_nbd.close(slow)
    daemon.stop()


run(test, limit_s=180)
