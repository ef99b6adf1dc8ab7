#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""volctl check on a pool that is being written finds nothing where nothing is wrong, finds a
damaged label, and holds up nobody."""

import threading
import time

import volmgr_nbd
from volmgr_env import BIN_DIR, KIB, MIB, check, check_equal, percentile, run, run_command

CHECKS = 12


class Writer(threading.Thread):
    """Writes, discards and flushes one volume at random until it is told to end."""

    def __init__(self, env, daemon, volume):
        super().__init__()
        self.random = env.random
        self.handle = volmgr_nbd.connect(daemon, volume)
        self.size = self.handle.get_size()
        self.ending = threading.Event()
        self.latencies = []
        self.failure = None

    def step(self):
        offset = self.random.randrange(self.size // (64 * KIB)) * 64 * KIB
        kind = self.random.random()
        start = time.monotonic()
        if kind < 0.7:
            self.handle.pwrite(b"\x5a" * self.random.choice((4 * KIB, 16 * KIB, 64 * KIB)), offset)
        elif kind < 0.85:
            self.handle.trim(min(4 * MIB, self.size - offset), offset)
        elif kind < 0.9:
            self.handle.flush()
        else:
            self.handle.pread(16 * KIB, offset)
            self.latencies.append(time.monotonic() - start)

    def run(self):
        try:
            while not self.ending.is_set():
                self.step()
        except Exception as failure:  # told by the main thread
            self.failure = failure

    def end(self):
        self.ending.set()
        self.join()
        volmgr_nbd.close(self.handle)
        check(self.failure is None, f"a writer failed: {self.failure}")


def check_while_written(env, daemon):
    writers = [Writer(env, daemon, f"p/{name}") for name in "abc"]
    for writer in writers:
        writer.start()
    commit = 0
    for index in range(CHECKS):
        if index % 3 == 2:
            daemon.volctl("create", f"p/new{index}", "--size", "1G")
            daemon.volctl("export", f"p/new{index}", "nbd")
        answer = daemon.volctl("check", "p")["checks"]
        check_equal(len(answer), 1, "checks of one pool")
        check_equal((answer[0]["errors"], answer[0]["error"], answer[0]["finished"]),
                    (0, "", True), f"findings of a good pool: {answer[0]['findings']}")
        check_equal(answer[0]["disks"], 2, "labels that were read")
        check(answer[0]["commit"] >= commit, "an older state is checked than before")
        commit = answer[0]["commit"]
    for writer in writers:
        writer.end()
    latencies = [value for writer in writers for value in writer.latencies]
    median, late = (percentile(latencies, part) * 1e3 for part in (0.5, 0.99))
    env.say(f"{CHECKS} checks, the last one at commit {commit}; reads beside them: median "
            f"{median:.2f} ms, 99 % {late:.2f} ms")
    job = [job for job in daemon.volctl("jobs")["jobs"] if job["kind"] == "check"][-1]
    check_equal((job["finished"], job["error"]), (True, ""), "the last job of its kind")


def check_damaged_label(daemon, disk):
    with open(disk, "r+b") as file:
        file.write(b"\xa5" * MIB)
        file.seek(-MIB, 2)
        file.write(b"\xa5" * MIB)
    status, output, error = daemon.volctl_raw("check")
    check_equal(status, 1, f"status of a check that finds errors: {output}{error}")
    check("label-" in output and "1 errors" in output, f"what the check says: {output}")
    status, output, _ = daemon.volctl_raw("check", "--json")
    check_equal(status, 1, "status with --json")
    check("check-found-errors" in daemon.event_names(), "no event tells of it")


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    check_equal(daemon.volctl("check")["checks"], [], "nothing to check")
    disks = [env.file_disk(300 * MIB) for _ in range(2)]
    daemon.volctl("pool", "create", "p", *disks)
    for name in "abc":
        daemon.make_volume(f"p/{name}", 128 * MIB)
    check_while_written(env, daemon)
    error = daemon.refused("check", "q")
    check_equal(error.code, "ENOENT", "a pool that is not there")
    status, output, _ = daemon.volctl_raw("check", "--background")
    check_equal(status, 0, "in the background")
    daemon.stop()
    offline = run_command(f"{BIN_DIR}/volmgrd", "--state", daemon.state, "--config", daemon.config,
                          "--check")
    check("p: 0 errors" in offline, f"the same pool without a daemon: {offline}")
    daemon.start()
    check_damaged_label(daemon, disks[1])
    daemon.kill()


run(test, limit_s=180)
