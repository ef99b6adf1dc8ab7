#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A well-behaved client in a process of its own, one request at a time, and its latencies.

    volmgr_latency.py URI KIND...     kinds: read write flush fresh, in turn; "fresh": write to
                                      space that was never written, and flush, now and then

It answers each line on standard input ("go") by a line of JSON: for each kind the latencies in
microseconds since the last line. It writes and expects blocks of one byte value below 64 MiB.
"""

import itertools
import json
import os
import random
import select
import statistics
import subprocess
import sys
import time

from volmgr_env import MIB, check, percentile

SPAN_BYTES = 64 * MIB
BLOCK_BYTES = 4096
FRESH_INTERVAL_S = 0.005
PATTERN = b"\xa7" * BLOCK_BYTES


class Victim:
    """The client, as its test sees it."""

    def __init__(self, env, daemon, volume, kinds=("read",), tcp=False):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), daemon.uri(volume, tcp), *kinds],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        env.stack.callback(self._end)
        check_line = self._line(60)
        check(check_line == "ready", f"the client does not start: {check_line}")

    def _end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _line(self, timeout_s):
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        return self.process.stdout.readline().strip() if ready else "no answer"

    def reset(self):
        """Begin anew."""
        self.take(60)

    def take(self, timeout_s=60):
        """{kind: [latencies in microseconds]} since the last call."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self._line(timeout_s)
        check(line.startswith("{"), f"the well-behaved client failed: {line}")
        return json.loads(line)

    def measure(self, seconds):
        self.reset()
        time.sleep(seconds)
        return self.take()


def summary(latencies):
    """(median, 99th percentile, maximum) in microseconds."""
    return (statistics.median(latencies), percentile(latencies, 0.99), max(latencies))


def _main():
    import nbd  # in the child only
    handle = nbd.NBD()
    handle.connect_uri(sys.argv[1])
    for place in range(0, SPAN_BYTES, MIB):
        handle.pwrite(PATTERN * (MIB // BLOCK_BYTES), place)
    handle.flush()
    kinds = sys.argv[2:]
    fresh = itertools.count(SPAN_BYTES, BLOCK_BYTES)

    def write_fresh(_):
        handle.pwrite(PATTERN, next(fresh))
        handle.flush()
    calls = {
        "read": lambda place: handle.pread(BLOCK_BYTES, place),
        "write": lambda place: handle.pwrite(PATTERN, place),
        "flush": lambda place: handle.flush(),
        "fresh": write_fresh,
    }
    latencies = {kind: [] for kind in kinds}
    print("ready", flush=True)
    next_fresh = time.monotonic()
    while True:
        for kind in kinds:
            if kind == "fresh":
                if time.monotonic() < next_fresh:
                    continue
                next_fresh = time.monotonic() + FRESH_INTERVAL_S
            place = random.randrange(SPAN_BYTES // BLOCK_BYTES) * BLOCK_BYTES
            began = time.perf_counter_ns()
            result = calls[kind](place)
            latencies[kind].append((time.perf_counter_ns() - began) / 1000)
            if kind == "read" and result != PATTERN:
                raise AssertionError(f"wrong data at {place}")
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps(latencies), flush=True)
            latencies = {kind: [] for kind in kinds}


if __name__ == "__main__":
    try:
        _main()
    except Exception as failure:
        print(f"{type(failure).__name__}: {failure}", flush=True)
        sys.exit(1)
