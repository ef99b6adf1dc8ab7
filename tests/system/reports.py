#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""status, show, events, jobs and metrics tell what has really happened."""

import re

import volmgr_nbd
from volmgr_env import KIB, MIB, check, check_equal, run

READS, WRITES, FLUSHES = 30, 50, 3


def metric(text, name, **labels):
    """The value of one sample of the Prometheus text."""
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match and match.group(1) == name:
            found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
            if all(found.get(key) == value for key, value in labels.items()):
                return float(match.group(3))
    raise AssertionError(f"no metric {name} {labels}")


def check_format(text):
    """Every sample belongs to a family that was declared with a type before it."""
    types = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            check(name not in types, f"{name} is declared twice")
            types[name] = kind
        elif not line.startswith("#"):
            name = re.match(r"\w+", line).group(0)
            family = re.sub("_(bucket|sum|count)$", "", name)
            if types.get(family) == "histogram":
                continue
            check(name in types, f"{name} has no TYPE")
            if name.endswith("_total"):
                check_equal(types[name], "counter", f"type of {name}")


def check_counters(env, daemon):
    shown = daemon.volctl("show", "p/v")
    counters = {entry["kind"]: entry for entry in shown["counters"]}
    check_equal(counters["read"]["operations"], READS, "reads")
    check_equal(counters["read"]["bytes"], READS * 4 * KIB, "bytes read")
    check_equal(counters["write"]["operations"], WRITES, "writes")
    check_equal(counters["write"]["bytes"], WRITES * 64 * KIB, "bytes written")
    check_equal(counters["flush"]["operations"], FLUSHES, "flushes")
    check_equal(counters["write"]["errors"], 0, "errors")
    check_equal(shown["mapped_bytes"], WRITES * 64 * KIB, "space that the volume holds")
    # A disk in memory answers within the pass of the loop whose time was taken.
    check(counters["read"]["total_ns"] > 0 or env.in_memory(), "reads took no time")

    text = daemon.volctl_raw("metrics")[1]
    check_format(text)
    labels = {"volume": "p/v", "operation": "write"}
    check_equal(metric(text, "volmgr_volume_operations_total", **labels), WRITES, "writes")
    check_equal(metric(text, "volmgr_volume_bytes_total", **labels), WRITES * 64 * KIB, "bytes")
    check_equal(metric(text, "volmgr_pool_used_bytes", pool="p"), WRITES * 64 * KIB, "used")
    check_equal(metric(text, "volmgr_volume_sessions", volume="p/v"), 1, "sessions")
    check(metric(text, "volmgr_disk_bytes_total", index="0", operation="write")
          >= WRITES * 64 * KIB, "the disk was written less than the volume")


def check_status(daemon):
    status = daemon.volctl("status")
    check_equal(status["health"], "ok", f"health ({status['problems']})")
    check_equal(status["process_id"], daemon.pid, "process id")
    check_equal((status["pool_count"], status["volume_count"], status["export_count"],
                 status["session_count"]), (1, 2, 1, 1), "pools, volumes, exports, sessions")
    addresses = {entry["address"] for entry in status["listeners"]}
    check_equal(addresses, {f"unix:{daemon.nbd_socket}", f"tcp:127.0.0.1:{daemon.port}"},
                "addresses")
    pool = daemon.volctl("pool", "show", "p")
    check_equal(pool["used_bytes"], WRITES * 64 * KIB, "used space of the pool")
    check(pool["allocated_bytes"] >= pool["used_bytes"], "more used than allocated")
    check_equal(pool["provisioned_bytes"], 3072 * MIB, "provisioned")
    check_equal(len(daemon.volctl("disk", "list", "p")["disks"]), 2, "disks")


def check_events(daemon):
    events = daemon.volctl("events")["events"]
    numbers = [event["sequence"] for event in events]
    check_equal(numbers, sorted(set(numbers)), "numbers of events")
    check("pool-created" in [event["name"] for event in events], f"events: {events}")
    check_equal(daemon.volctl("events", "--after", numbers[-1])["events"], [], "nothing is newer")
    daemon.volctl("jobs")


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(200 * MIB), env.file_disk(300 * MIB))
    daemon.make_volume("p/v", 1024 * MIB)
    daemon.make_volume("p/w", 2048 * MIB, export=False)
    handle = volmgr_nbd.connect(daemon, "p/v")
    for index in range(WRITES):
        handle.pwrite(b"\x11" * 64 * KIB, index * MIB)
    for index in range(READS):
        handle.pread(4 * KIB, index * MIB)
    for _ in range(FLUSHES):
        handle.flush()
    check_counters(env, daemon)
    check_status(daemon)
    check_events(daemon)
    volmgr_nbd.close(handle)
    daemon.stop()


run(test, limit_s=60)
