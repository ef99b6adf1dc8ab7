# SPDX-License-Identifier: Apache-2.0
"""What is measured: one row per workload, and how fio is told to do it."""

import json
import os
import subprocess

import servers
from volmgr_env import GIB, KIB, MIB, check

TMPFS, DISK = "tmpfs", "disk"
LOCAL = "fio-io_uring"  # no server at all
EVERYBODY = tuple(server.name for server in servers.ALL)
ON_FILES = tuple(name for name in EVERYBODY if name != "nbdkit-memory")
THIN = (servers.OURS, "qsd-qcow2")


def first_writes_of(name):
    """The name of a row for a server's writes to where nothing was written before."""
    return f"{name}, first writes"


class Limit:
    """What is required of a row, as a ratio to another row of the run, and what is aimed at."""

    def __init__(self, metric, required, aim, *, row=servers.OURS, to=servers.BASELINE):
        self.metric = metric
        self.required = required
        self.aim = aim
        self.row = row
        self.to = to
        self.at_most = metric != "iops"

    def met(self, ratio, bound):
        return ratio <= bound if self.at_most else ratio >= bound


class Workload:
    def __init__(self, name, title, options, limits, *, servers_=EVERYBODY, place=TMPFS, tcp=False,
                 same_cpu=False, direct=False, first_writes=False, local=False):
        self.name = name
        self.title = title
        self.options = options
        self.limits = limits
        self.servers = servers_
        self.place = place
        self.tcp = tcp
        self.same_cpu = same_cpu          # client and server on one processor
        self.direct = direct
        self.first_writes = first_writes  # thin servers also where nothing was written before
        self.local = local                # also fio with io_uring, without any server


def _fio(mode, block, depth, *more):
    return [f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}", *more]


WORKLOADS = (
    Workload("read-4k-qd32", "4 KiB random read, QD 32", _fio("randread", "4k", 32),
             [Limit("cpu_us", 0.9, 0.65), Limit("iops", 1.1, 1.5)]),
    Workload("write-4k-qd32", "4 KiB random write, QD 32", _fio("randwrite", "4k", 32),
             [Limit("cpu_us", 1.0, 0.75)]),
    Workload("read-4k-qd32-x4", "4 KiB random read, QD 32, 4 connections",
             _fio("randread", "4k", 32, "--numjobs=4"), [Limit("cpu_us", 0.9, 0.6)]),
    Workload("read-128k-qd8", "128 KiB random read, QD 8", _fio("randread", "128k", 8),
             [Limit("cpu_us", 0.8, 0.6)]),
    Workload("write-128k-qd8", "128 KiB random write, QD 8", _fio("randwrite", "128k", 8),
             [Limit("cpu_us", 0.9, 0.7)]),
    Workload("read-4k-qd1-one-core", "4 KiB random read, QD 1, client and server on one core",
             _fio("randread", "4k", 1), [Limit("cpu_us", 1.0, 0.8)], same_cpu=True),
    Workload("tcp-read-4k-qd32", "4 KiB random read, QD 32, TCP", _fio("randread", "4k", 32),
             [Limit("cpu_us", 0.9, 0.7)], tcp=True),
    Workload("disk-read-4k-qd32", "4 KiB random read, QD 32, file on a disk, direct",
             _fio("randread", "4k", 32), [Limit("iops", 0.95, 0.99, to=LOCAL)],
             servers_=ON_FILES, place=DISK, direct=True, local=True),
    Workload("disk-write-4k-qd32", "4 KiB random write, QD 32, file on a disk, direct",
             _fio("randwrite", "4k", 32), [Limit("iops", 0.95, 0.99, to=LOCAL)],
             servers_=ON_FILES, place=DISK, direct=True, local=True),
    Workload("first-write-4k-qd32", "4 KiB random write into thin space and over it, QD 32, disk",
             _fio("randwrite", "4k", 32),
             [Limit("iops", 0.85, 1.0, row=first_writes_of(servers.OURS), to=servers.OURS)],
             servers_=THIN, place=DISK, direct=True, first_writes=True),
    Workload("write-4k-qd1-flush32", "4 KiB random write, QD 1, FLUSH every 32, on a disk",
             _fio("randwrite", "4k", 1, "--fsync=32"),
             [Limit("iops", 1.0, 1.0, to="nbd-server"),
              Limit("iops", 0.8, 1.0, row=first_writes_of(servers.OURS), to="nbd-server")],
             servers_=ON_FILES, place=DISK, direct=True, first_writes=True),
)

# First writes: each round has a part of its own behind what is filled, and a number of writes.
FRESH_SPAN_BYTES = 2 * GIB
FRESH_WRITES = 8000
# Processor time of an idle daemon, in microseconds per second.
IDLE_REQUIRED_US = 5000
IDLE_AIM_US = 1000


def image_bytes(workload, size_bytes, rounds):
    return size_bytes + (FRESH_SPAN_BYTES * rounds if workload.first_writes else 0)


class Result:
    """Of one server in one round."""

    def __init__(self, report, cpu_s):
        self.ios = 0
        self.bytes = 0
        self.seconds = 0.0
        latencies = []
        for job in report["jobs"]:
            for kind in ("read", "write"):
                part = job[kind]
                if part["total_ios"]:
                    self.ios += part["total_ios"]
                    self.bytes += part["io_bytes"]
                    self.seconds = max(self.seconds, part["runtime"] / 1000)
                    latencies.append(part["clat_ns"]["percentile"])
        check(self.ios > 0, "fio did nothing")
        self.iops = self.ios / max(self.seconds, 0.001)
        self.cpu_us = cpu_s * 1e6 / self.ios if cpu_s is not None else None
        self.p50_us = latencies[0]["50.000000"] / 1000
        self.p99_us = latencies[0]["99.000000"] / 1000

    def as_json(self):
        return {"iops": self.iops, "cpu_us": self.cpu_us, "p50_us": self.p50_us,
                "p99_us": self.p99_us, "ios": self.ios, "seconds": self.seconds}


def run_fio(arguments, cpu, folder):
    output = os.path.join(folder, "fio.json")
    command = [*servers.Server.schedule, "taskset", "--cpu-list", str(cpu), "fio",
               "--name=bench", "--thread",
               "--group_reporting", "--norandommap", "--randrepeat=0", "--clat_percentiles=1",
               "--output-format=json", f"--output={output}", *arguments]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            check=False, timeout=600)
    check(result.returncode == 0, f"fio failed: {' '.join(command)}\n{result.stdout[-2000:]}")
    with open(output, encoding="utf-8") as file:
        # Lines of the connection come before the report.
        text = file.read()
    report = json.loads(text[text.index("{"):])
    check(all(job["error"] == 0 for job in report["jobs"]), f"fio reports an error: {command}")
    return report


def client_arguments(server):
    return ["--ioengine=nbd", f"--uri={server.uri()}"]


def fill(server, size_bytes, cpu, folder):
    run_fio([*client_arguments(server), "--rw=write", "--bs=1m", "--iodepth=8",
             f"--size={size_bytes}", "--end_fsync=1"], cpu, folder)


def measure(workload, server, size_bytes, seconds, cpu, folder, fresh_round=None):
    """One round of one server; `fresh_round`: the number of the round of first writes."""
    arguments = [*client_arguments(server), *workload.options]
    if fresh_round is not None:
        arguments += [f"--offset={size_bytes + FRESH_SPAN_BYTES * fresh_round}",
                      f"--size={FRESH_SPAN_BYTES}", f"--io_size={FRESH_WRITES * 4 * KIB}"]
    else:
        arguments += [f"--size={size_bytes}", "--time_based", f"--runtime={seconds}"]
    before = server.cpu_s()
    report = run_fio(arguments, cpu, folder)
    servers.settle(0.1)
    return Result(report, server.cpu_s() - before)


def measure_local(workload, path, size_bytes, seconds, cpu, folder):
    """The same by io_uring on a file of the same kind, without a server."""
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for _ in range(size_bytes // MIB):
                file.write(os.urandom(64 * KIB) * 16)
            os.fsync(file.fileno())
    report = run_fio(["--ioengine=io_uring", "--direct=1", f"--filename={path}",
                      *workload.options, f"--size={size_bytes}", "--time_based",
                      f"--runtime={seconds}"], cpu, folder)
    return Result(report, None)
