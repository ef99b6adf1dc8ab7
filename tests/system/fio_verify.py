#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""fio finds what it wrote: random writes of 512 bytes to 1 MiB mixed with discards, by four
connections at a time, over unix socket and TCP.

While fio runs, another client zeroes and discards a part of the volume that fio does not use.
"""

import threading

import volmgr_nbd
from volmgr_disks import mixed_disks
from volmgr_env import KIB, MIB, check, need_program, run, run_command

JOBS = 4


def fio(daemon, tcp, job_bytes, seed, mode):
    """Four jobs, each with a connection and a part of the volume of its own.

    With discards fio must not send two overlapping operations at a time: which of them came last
    would be anybody's guess, its verification included.
    """
    run_command(
        "fio", "--name=verify", "--ioengine=nbd", f"--uri={daemon.uri('p/v', tcp)}",
        f"--rw={mode}", "--bsrange=512-1m", "--blockalign=512", "--iodepth=16",
        f"--numjobs={JOBS}", "--thread", f"--size={job_bytes}",
        f"--offset_increment={2 * job_bytes}", "--serialize_overlap=1", "--verify=crc32c",
        "--verify_fatal=1", "--verify_backlog=64", "--do_verify=1", "--verify_state_save=0",
        f"--randseed={seed}",
        "--group_reporting", "--minimal", timeout_s=600)


class Neighbour(threading.Thread):
    """Write, zero and discard at the end of the volume; everything is read back."""

    def __init__(self, daemon, oracle, random):
        super().__init__(daemon=True)
        self.handle = volmgr_nbd.connect(daemon, "p/v")
        self.oracle = oracle
        self.traffic = volmgr_nbd.Traffic(
            self.oracle, [self.handle], random, depth=4,
            weights={"write": 30, "zero": 30, "trim": 30, "read": 30, "flush": 2})
        self.ended = False
        self.failure = None

    def run(self):
        try:
            while not self.ended:
                self.traffic.step(20)
            self.traffic.drain()
            self.oracle.verify_all(self.handle)
        except AssertionError as failure:
            self.failure = failure

    def finish(self):
        self.ended = True
        self.join()
        if self.failure:
            raise self.failure
        check(not self.traffic.errors, f"the neighbour's operations failed: {self.traffic.errors}")
        volmgr_nbd.close(self.handle)


def test(env):
    need_program("fio")
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}")
    daemon = env.daemon()
    disks, pool_bytes = mixed_disks(env)
    daemon.volctl("pool", "create", "p", *disks)
    volume_bytes = 10 * pool_bytes
    daemon.make_volume("p/v", volume_bytes)
    job_bytes = (192 if env.long else 48) * MIB
    oracle = volmgr_nbd.Oracle(3, [(volume_bytes // 512 - 16384, 16384)])
    for tcp in (False, True):
        neighbour = Neighbour(daemon, oracle, env.random)
        neighbour.start()
        for mode in ("randtrimwrite", "randwrite"):
            fio(daemon, tcp, job_bytes, env.seed % 1000000, mode)
        neighbour.finish()
        env.say(f"{'TCP' if tcp else 'unix socket'}: {JOBS} x {job_bytes // MIB} MiB verified; "
                f"{oracle.acknowledged} changes beside it")
    daemon.check_alive()
    shown = daemon.volctl("show", "p/v")
    counters = {entry["kind"]: entry for entry in shown["counters"]}
    check(counters["discard"]["operations"] > 0, "fio has sent no discard")
    check(counters["write"]["bytes"] > 2 * JOBS * job_bytes, "fio has written too little")
    check(shown["mapped_bytes"] > 64 * KIB, "nothing is mapped")
    daemon.stop()


run(test, limit_s=120)
