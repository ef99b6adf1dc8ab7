#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CPU time of the server per request over a unix socket: this target over a volume in memory, and
nbdkit's memory plugin, in one run.

    compare_nbdkit.py FAKE_SERVER [--rounds N] [--seconds S] [--spin US,US] [--jobs RW:BS:QD,...]

The servers share CPU 0, fio has CPU 1. CPU time is utime + stime of /proc/PID/stat. Rounds are
interleaved; printed are the median and the least of the rounds (what else runs on the machine only
ever adds).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

SIZE_MIB = 64
JOBS = ("randread:4k:32,randwrite:4k:32,randread:4k:1,randwrite:4k:1,"
        "randread:128k:8,randwrite:128k:8")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(argv, uri):
    process = subprocess.Popen(["taskset", "-c", "0", *argv], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    for _ in range(100):
        if subprocess.run(["nbdinfo", "--size", uri], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return process, uri
        time.sleep(0.1)
    raise RuntimeError(f"{argv[0]} does not answer")


def measure(process, uri, job, seconds):
    readwrite, block, depth = job.split(":")
    before = cpu_seconds(process.pid)
    out = subprocess.run(
        ["taskset", "-c", "1", "fio", "--name=job", "--ioengine=nbd", "--uri=" + uri,
         "--rw=" + readwrite, "--bs=" + block, "--iodepth=" + depth, "--time_based",
         f"--runtime={seconds}", f"--size={SIZE_MIB}M", "--norandommap", "--output-format=json"],
        stdout=subprocess.PIPE, check=True).stdout
    spent = cpu_seconds(process.pid) - before
    side = json.loads(out[out.index(b"{"):])["jobs"][0]["read" if "read" in readwrite else "write"]
    return spent * 1e6 / side["total_ios"], side["iops"], side["clat_ns"]["mean"] / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--spin", default="0")
    parser.add_argument("--jobs", default=JOBS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "nbdkit")
        servers = {"nbdkit memory": start(["nbdkit", "-f", "-U", path, "memory", f"{SIZE_MIB}M"],
                                          f"nbd+unix:///?socket={path}")}
        for spin in arguments.spin.split(","):
            path = os.path.join(folder, "volmgr" + spin)
            servers["volmgr, spin " + spin] = start(
                [arguments.server, "--listen", "unix:" + path, "--size", f"{SIZE_MIB}M", "--spin",
                 spin], f"nbd+unix:///pool/disk?socket={path}")
        noise = os.path.join(folder, "noise")
        with open(noise, "wb") as file:
            file.write(os.urandom(SIZE_MIB << 20))
        for _, uri in servers.values():
            subprocess.run(["nbdcopy", noise, uri], check=True)
        for job in arguments.jobs.split(","):
            rounds = {name: [] for name in servers}
            for _ in range(arguments.rounds):
                for name, (process, uri) in servers.items():
                    rounds[name].append(measure(process, uri, job, arguments.seconds))
            print(job)
            for name, rows in rounds.items():
                cpu, iops, latency = zip(*rows)
                print(f"  {name:16s} CPU per request: median {statistics.median(cpu):6.2f} us, "
                      f"least {min(cpu):6.2f} us; {statistics.median(iops):8.0f} requests/s; "
                      f"mean latency {statistics.median(latency):7.1f} us", flush=True)
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
