#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Compares volmgrd with other NBD servers, side by side, in one run.

    run.py [--quick] [--rounds N] [--starts N] [--seconds S] [--size-mib N] [--workload NAME]...
           [--server NAME]... [--folder DIR] [--output FILE.json] [--realtime] [--require] [--list]

Every server is pinned to one processor and fio to another. Rounds are interleaved: each server in
turn, in another order each time; the medians of the rounds are compared, as ratios against nbdkit's
file plugin. For each workload: requests per second, processor time of the server per request (user
and system, all threads and children), median and 99th percentile of the latency that fio sees. At
the end, what is required of volmgrd and what is aimed at: the median of the ratios of each round.

Absolute numbers depend on the machine and on what else it does; ratios of one run are what counts.
The exit status says whether everything could be measured; with --require, also whether it was fast
enough.

    --quick    one short round of everything, to see that the comparison itself works
    --starts   the servers are started again so many times, with --rounds rounds each: where memory
               happens to lie makes a difference of some percent that no number of rounds averages
    --realtime servers and clients in a real-time class, on a machine that has other things to do
    --folder   a directory on a disk's file system, for the rows that need one (default: where
               temporary files are); the other images are on tmpfs
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "system"))

import servers  # noqa: E402
import volmgr_env  # noqa: E402
import workloads  # noqa: E402
from volmgr_env import MIB, Skip, check, need_program, run_command  # noqa: E402

IDLE_EXPORTS = 100
# In the quick form every server is tried in one workload, and these in all.
QUICK_SERVERS = (servers.OURS, servers.BASELINE)
LOCAL = workloads.LOCAL
REAL_TIME = ("chrt", "--fifo", "10")
METRICS = ("iops", "cpu_us", "p50_us", "p99_us")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--starts", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--size-mib", type=int)
    parser.add_argument("--workload", action="append", metavar="NAME")
    parser.add_argument("--server", action="append", metavar="NAME")
    parser.add_argument("--folder", default=os.environ.get("VOLMGR_TEST_DIR"))
    parser.add_argument("--output")
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--require", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.starts = options.starts or (1 if options.quick else 2)
    options.seconds = options.seconds or (0.2 if options.quick else 3)
    options.size_mib = options.size_mib or (16 if options.quick else 512)
    known = [workload.name for workload in workloads.WORKLOADS] + ["idle-100-exports"]
    for name in options.workload or ():
        if name not in known:
            parser.error(f"there is no workload {name}: {', '.join(known)}")
    for name in options.server or ():
        if name not in workloads.EVERYBODY:
            parser.error(f"there is no server {name}: {', '.join(workloads.EVERYBODY)}")
    if options.list:
        print("\n".join(known))
        sys.exit(0)
    return options


def machine_facts(folder):
    model = "?"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_mib = int(file.readline().split()[1]) // 1024
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": model,
        "cpu_count": os.cpu_count(),
        "memory_mib": memory_mib,
        "kernel": platform.release(),
        "load_average_before": os.getloadavg()[0],
        "disk_file_system": run_command("stat", "-f", "-c", "%T", folder).strip(),
        "versions": {"volmgrd": run_command(os.path.join(volmgr_env.BIN_DIR, "volmgrd"),
                                            "--version").strip(), **servers.versions()},
    }


class Bench:
    def __init__(self, env, options):
        self.env = env
        self.options = options
        self.size_bytes = options.size_mib * MIB
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpu, self.client_cpu = cpus[0], cpus[1 % len(cpus)]
        self.memory = env.memory_folder()
        self.disk = env.path("disk")
        os.mkdir(self.disk)
        self.count = 0

    def wanted(self, workload):
        chosen = []
        names = self.options.server or workloads.EVERYBODY
        if self.options.quick and workload is not workloads.WORKLOADS[0] and \
                servers.BASELINE in workload.servers:
            names = set(names) & set(QUICK_SERVERS)
        for server in servers.ALL:
            if server.name in workload.servers and server.name in names:
                missing = server.missing()
                if missing:
                    self.env.say(f"without {server.name}: there is no {missing}")
                else:
                    chosen.append(server)
        return chosen

    def start(self, workload, kind):
        self.count += 1
        folder = self.disk if workload.place == workloads.DISK else self.memory
        size = workloads.image_bytes(workload, self.size_bytes, self.options.rounds)
        server = kind(self.env, self.count, folder, size, workload.direct, workload.tcp,
                      self.server_cpu)
        server.start()
        workloads.fill(server, self.size_bytes, self.client_cpu, self.env.folder)
        return server

    def run(self, workload):
        """name -> list of results, one of each round."""
        rounds = {}
        for start in range(self.options.starts):
            running = [self.start(workload, kind) for kind in self.wanted(workload)]
            for number in range(self.options.rounds):
                self._round(workload, running, start + number, number, rounds)
            for server in running:
                server.stop()
        return rounds

    def _round(self, workload, running, rotation, number, rounds):
        cpu = self.server_cpu if workload.same_cpu else self.client_cpu
        rotation %= max(len(running), 1)
        for server in running[rotation:] + running[:rotation]:
            rounds.setdefault(server.name, []).append(workloads.measure(
                workload, server, self.size_bytes, self.options.seconds, cpu, self.env.folder))
            if workload.first_writes and server.thin:
                rounds.setdefault(workloads.first_writes_of(server.name), []).append(
                    workloads.measure(workload, server, self.size_bytes, self.options.seconds, cpu,
                                      self.env.folder, fresh_round=number))
        if workload.local:
            rounds.setdefault(LOCAL, []).append(workloads.measure_local(
                workload, os.path.join(self.disk, "local.img"), self.size_bytes,
                self.options.seconds, cpu, self.env.folder))

    def run_idle(self):
        """Processor time of a daemon that does nothing for 100 exports: alone, and with a client
        attached to each. In microseconds per second."""
        daemon = self.env.daemon("idle", start=False)
        daemon.launch([*servers.Server.schedule, "taskset", "--cpu-list", str(self.server_cpu)])
        daemon.wait_ready()
        daemon.volctl("pool", "create", "idle", self.env.file_disk(512 * MIB, self.memory))
        for number in range(IDLE_EXPORTS):
            daemon.make_volume(f"idle/v{number}", MIB * 1024)
        result = {"without clients": self._idle_cpu_us(daemon)}
        clients = self._attach_all(daemon)
        result["with a client each"] = self._idle_cpu_us(daemon)
        for client in clients:
            client.shutdown()
        daemon.stop()
        return result

    def _idle_cpu_us(self, daemon):
        seconds = 0.5 if self.options.quick else 20
        time.sleep(0.5 if self.options.quick else 5)  # the last commit, the last reply
        before = servers.process_cpu_s(daemon.pid)
        time.sleep(seconds)
        return (servers.process_cpu_s(daemon.pid) - before) * 1e6 / seconds

    @staticmethod
    def _attach_all(daemon):
        import volmgr_nbd
        volmgr_nbd.need_libnbd()
        return [volmgr_nbd.connect(daemon, f"idle/v{number}") for number in range(IDLE_EXPORTS)]


def medians(results):
    summary = {}
    for metric in METRICS:
        values = [getattr(result, metric) for result in results]
        summary[metric] = None if None in values else statistics.median(values)
    return summary


def limits(workload, rounds):
    """What is required of this workload, as far as both rows were measured."""
    result = []
    for limit in workload.limits:
        if limit.row not in rounds or limit.to not in rounds:
            continue
        ratio = statistics.median(
            getattr(ours, limit.metric) / getattr(theirs, limit.metric)
            for ours, theirs in zip(rounds[limit.row], rounds[limit.to]))
        result.append({"row": limit.row, "to": limit.to, "metric": limit.metric, "ratio": ratio,
                       "at_most": limit.at_most, "required": limit.required, "aim": limit.aim,
                       "reached": limit.met(ratio, limit.required),
                       "aim_reached": limit.met(ratio, limit.aim)})
    return result


def idle_limits(idle):
    return [{"row": name, "to": "a second", "metric": "cpu_us", "ratio": value, "at_most": True,
             "required": workloads.IDLE_REQUIRED_US, "aim": workloads.IDLE_AIM_US,
             "reached": value <= workloads.IDLE_REQUIRED_US,
             "aim_reached": value <= workloads.IDLE_AIM_US} for name, value in idle.items()]


def summarize(workload, rounds):
    row = {"name": workload.name, "title": workload.title, "servers": {},
           "limits": limits(workload, rounds)}
    direct = [server.name for server in servers.ALL if server.can_direct] + [LOCAL]
    for name, results in rounds.items():
        row["servers"][name] = {**medians(results),
                                "page_cache": workload.direct and name.partition(",")[0] not in
                                direct,
                                "rounds": [result.as_json() for result in results]}
    baseline = row["servers"].get(servers.BASELINE)
    row["baseline"] = servers.BASELINE if baseline else next(
        (name for name in reversed(row["servers"])), None)
    baseline = baseline or row["servers"][row["baseline"]]
    for values in row["servers"].values():
        values["ratios"] = ratios(values, baseline)
        if LOCAL in row["servers"]:
            values["ratios_to_local"] = ratios(values, row["servers"][LOCAL])
    return row


def ratios(values, baseline):
    return {metric: values[metric] / baseline[metric] for metric in METRICS
            if values[metric] is not None and baseline[metric]}


def _number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _cell(values, metric):
    ratio = values["ratios"].get(metric)
    return _number(values[metric]) + (f" ({ratio:.2f})" if ratio is not None else "")


def print_row(row):
    print(f"\n### {row['title']}\n")
    has_local = LOCAL in row["servers"]
    print(f"| server | IOPS (ratio to {row['baseline']}) | CPU us per I/O | p50 us | p99 us |"
          + (f" IOPS to {LOCAL} |" if has_local else ""))
    print("| --- | ---: | ---: | ---: | ---: |" + (" ---: |" if has_local else ""))
    for name, values in row["servers"].items():
        if values["page_cache"]:
            name += " (page cache)"
        cells = [_cell(values, metric) for metric in METRICS]
        if has_local:
            cells.append(f"{values['ratios_to_local']['iops']:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.flush()


def print_limits(report):
    print("\n### Required and aimed at\n")
    print("| workload | what | to | got | required | aim | |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    rows = [(row["name"], limit) for row in report["workloads"] for limit in row["limits"]]
    rows += [("idle-100-exports", limit) for limit in idle_limits(report.get("idle", {}))]
    for name, limit in rows:
        sign = "<=" if limit["at_most"] else ">="
        verdict = "aim" if limit["aim_reached"] else "pass" if limit["reached"] else "FAIL"
        print(f"| {name} | {limit['row']}: {limit['metric']} | {limit['to']} | "
              f"{_number(limit['ratio'])} | {sign} {limit['required']} | {limit['aim']} | "
              f"{verdict} |")
    return all(limit["reached"] for _, limit in rows)


def print_facts(facts, options):
    print(f"{facts['date']}, {facts['cpu']}, {facts['cpu_count']} processors, "
          f"{facts['memory_mib']} MiB, Linux {facts['kernel']}")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    print(f"{options.starts} times {options.rounds} rounds of {options.seconds} s, "
          f"images of {options.size_mib} MiB, disk "
          f"rows on {facts['disk_file_system']}; load before: {facts['load_average_before']:.2f}")
    if facts["load_average_before"] > 0.5:
        print("Something else runs on this machine: do not trust small differences.")


def bench(env):
    options = parse_arguments()
    need_program("fio", "nbdinfo", "taskset")
    if options.realtime:
        need_program("chrt")
        servers.Server.schedule = REAL_TIME
    if options.folder:
        env.folder = shutil.move(env.folder, options.folder)
    facts = machine_facts(env.folder)
    print_facts(facts, options)
    runner = Bench(env, options)
    report = {"facts": facts, "starts": options.starts, "rounds": options.rounds,
              "seconds": options.seconds,
              "size_mib": options.size_mib, "workloads": []}
    for workload in workloads.WORKLOADS:
        if options.workload and workload.name not in options.workload:
            continue
        rounds = runner.run(workload)
        if not rounds:
            raise Skip(f"no server for {workload.name}")
        row = summarize(workload, rounds)
        report["workloads"].append(row)
        print_row(row)
    if not options.workload or "idle-100-exports" in options.workload:
        report["idle"] = runner.run_idle()
        print("\n### Idle daemon with 100 exports\n")
        for name, value in report["idle"].items():
            print(f"{name}: {value:.0f} us of processor time per second")
    fast_enough = print_limits(report)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    check_complete(report, options)
    check(fast_enough or not options.require, "not as fast as required")


def check_complete(report, options):
    """Everything that was asked for has been measured."""
    for row in report["workloads"]:
        for name, values in row["servers"].items():
            check(len(values["rounds"]) == options.starts * options.rounds,
                  f"{row['name']}: {name} lacks rounds")
            check(values["iops"] > 0, f"{row['name']}: {name} did nothing")
        check(options.server or servers.OURS in row["servers"], f"{row['name']}: not measured")


if __name__ == "__main__":
    volmgr_env.run(bench, limit_s=7200, long_limit_s=7200)
