#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who meets the daemon for the first time is told what is wrong and what to do, can follow what
happens, and gets JSON and metrics that programs can read."""

import json
import os
import re
import subprocess
import time

import volmgr_nbd
from volmgr_env import (BIN_DIR, KIB, MIB, SOURCE_DIR, check, check_equal, run, run_command,
                        wait_until)

VOLCTL = os.path.join(BIN_DIR, "volctl")
LABELS = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"')
SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\+Inf|\d+(?:\.\d+)?)')


def volctl_without(environment, *arguments):
    """volctl that has to find its socket by itself."""
    result = subprocess.run([VOLCTL, *arguments], text=True, capture_output=True, timeout=60,
                            check=False, env={"PATH": os.environ["PATH"], **environment})
    return result.returncode, result.stdout, result.stderr


def check_nobody_there(env):
    missing = env.path("none.sock")
    status, output, error = volctl_without({"VOLCTL_SOCKET": missing}, "list")
    check_equal((status, output), (1, ""), "no daemon")
    for part in ("cannot list volumes", "why: " + missing, "Is volmgrd running?"):
        check(part in error, f"no daemon: {error}")
    status, output, _ = volctl_without({"VOLCTL_SOCKET": missing}, "list", "--json")
    check_equal((status, json.loads(output)["code"]), (1, "ENOENT"), "no daemon, --json")


def check_not_permitted(daemon):
    if os.geteuid() != 0:
        return
    os.chmod(daemon.env.folder, 0o755)
    result = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                             VOLCTL, "-s", daemon.socket, "status"], text=True,
                            capture_output=True, timeout=60, check=False)
    check_equal(result.returncode, 1, f"status of a stranger: {result.stdout}{result.stderr}")
    check("member of the socket's group" in result.stderr, f"a stranger is told: {result.stderr}")


def check_second_daemon(daemon):
    text = run_command(os.path.join(BIN_DIR, "volmgrd"), "--state", daemon.state, "--config",
                       daemon.config, status=1)
    check(f"is in use by another volmgrd, process {daemon.pid}" in text, f"a second one: {text}")
    daemon.check_alive()


def command_words():
    """Every command that volctl's help tells of."""
    help_text = run_command(VOLCTL, "--help")
    words = re.findall(r"^  ([a-z][a-z -]*[a-z]) {2,}\S", help_text, re.M)
    check(len(words) > 30, f"commands: {words}")
    return [word for word in words if word not in ("help", "completion")]


def check_help():
    for words in command_words():
        text = run_command(VOLCTL, *words.split(), "--help")
        check(text.startswith(f"Usage: volctl {words}"), f"help of {words}: {text}")
        check(all(len(line) <= 110 for line in text.splitlines()), f"long lines in help of {words}")
        for line in text.splitlines():
            check(line == line.rstrip(), f"blanks at the end of a line in the help of {words}")
        error = run_command(VOLCTL, *words.split(), "--no-such-option", status=2)
        check("there is no option --no-such-option" in error, f"{words}: {error}")


def check_readme():
    """What the README tells to type is understood (with --help, so that nothing is done)."""
    with open(os.path.join(SOURCE_DIR, "README.md"), encoding="utf-8") as file:
        commands = re.findall(r"^    \$ volctl (.*)$", file.read(), re.M)
    check(len(commands) >= 6, f"commands in the README: {commands}")
    for command in commands:
        run_command(VOLCTL, *command.split("#")[0].split(), "--help")


def check_json(daemon):
    """Reports without arguments, with and without content, as JSON and as text."""
    for words in ("pool list", "disk list", "list", "exports", "session list", "session blocks",
                  "status", "jobs", "events", "checks", "check", "top --once",
                  "top --once --sessions"):
        body = daemon.volctl(*words.split())
        check(isinstance(body, dict), f"{words}: {body}")
        status, text, error = daemon.volctl_raw(*words.split())
        check_equal((status, error), (0, ""), f"{words} for people")
        check(text.strip() != "", f"{words} says nothing")


def check_refusals(daemon):
    for words, code, part in (
            ("pool create p /dev/null", "EEXIST", "exists already"),
            ("pool create q /no/such/disk", "ENOENT", "file:PATH?size="),
            ("create p/v --size 1G", "EEXIST", "another name"),
            ("create none/v --size 1G", "ENOENT", "pool list"),
            ("resize p/v 1M", None, ""), ("delete p/v", "EBUSY", "unexport"),
            ("export p/v nbd", "EEXIST", "another name"),
            ("session drop 4711", "ENOENT", "session list"),
            ("attach p/w", "ENOENT", "volctl export p/w nbd"),
            ("attach p/v --for iscsiadm", "EOPNOTSUPP", "--for nbd-client"),
            ("accept-loss p/v --yes", "EALREADY", ""), ("check none", "ENOENT", "pool list")):
        try:
            error = daemon.refused(*words.split())
        except AssertionError:
            if code is None:
                continue
            raise
        check(code in (None, error.code), f"{words}: {error.body}")
        text = error.body["why"] + " " + error.body["what_to_do"]
        check(part in text, f"{words}: what to do: {error.body}")


def parse_labels(text, line):
    labels = {}
    position = 0
    while text is not None and position < len(text):
        match = LABELS.match(text, position)
        check(match is not None, f"labels of {line}")
        check(match.group(1) not in labels, f"a label twice: {line}")
        labels[match.group(1)] = match.group(2)
        position = match.end()
        check(position == len(text) or text[position] == ",", f"labels of {line}")
        position += 1
    return labels


def parse_metrics(text):
    """Strictly: {family: type}, {(name, labels): value}."""
    check(text.endswith("\n"), "the last line has no end")
    types, helps, samples, current = {}, set(), {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ", 3)[2]
            check(current not in helps, f"{current} begins twice")
            check(len(line.split(" ", 3)) == 4, f"no help: {line}")
            helps.add(current)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            check(name == current and kind in ("counter", "gauge", "histogram"), line)
            types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            check(match is not None, f"not a sample: {line!r}")
            suffix = "(_bucket|_sum|_count)$" if types.get(current) == "histogram" else "$"
            check_equal(re.sub(suffix, "", match.group(1)), current, f"family of {line}")
            labels = parse_labels(match.group(2), line)
            key = (match.group(1), tuple(sorted(labels.items())))
            check(key not in samples, f"twice: {line}")
            samples[key] = float(match.group(3))
            if types[current] == "counter":
                check(current.endswith("_total"), f"{current} is a counter")
    check_equal(set(types), helps, "families with and without a type")
    return types, samples


def check_histograms(types, samples):
    families = [name for name, kind in types.items() if kind == "histogram"]
    check_equal(families, ["volmgr_request_seconds"], "histograms")
    series = {}
    for (name, labels), value in samples.items():
        if name == families[0] + "_bucket":
            labels = dict(labels)
            bound = float(labels.pop("le").replace("+Inf", "inf"))
            series.setdefault(tuple(sorted(labels.items())), []).append((bound, value))
    check(series, "no buckets")
    for labels, buckets in series.items():
        check_equal(buckets, sorted(buckets), f"buckets of {labels} in order and cumulative")
        values = [value for _, value in buckets]
        check_equal(values, sorted(values), f"buckets of {labels} are cumulative")
        check_equal(buckets[-1][0], float("inf"), "the last bucket")
        check_equal(buckets[-1][1], samples[(families[0] + "_count", labels)], "count and +Inf")
        check((families[0] + "_sum", labels) in samples, f"no sum of {labels}")
    return series


def check_metrics(daemon):
    text = daemon.volctl_raw("metrics")[1]
    types, samples = parse_metrics(text)
    series = check_histograms(types, samples)
    writes = tuple(sorted({"pool": "p", "operation": "write"}.items()))
    check_equal(series[writes][-1][1], 40, "writes in the histogram")
    check(samples[("volmgr_request_seconds_sum", writes)] > 0, "writes took no time")
    check_equal(samples[("volmgr_pool_check_errors", (("pool", "p"),))], 0, "errors of the check")
    check_equal(samples[("volmgr_volume_fenced", (("volume", "p/v"),))], 0, "fenced")


def check_following(env, daemon):
    """jobs and events, followed while a volume is deleted."""
    followers = {}
    for words in ("jobs", "events"):
        log = env.path(words + ".out")
        with open(log, "w", encoding="utf-8") as output:
            process = subprocess.Popen([VOLCTL, "-s", daemon.socket, words, "--follow", "--json"],
                                       stdout=output)
        env.stack.callback(process.wait)
        env.stack.callback(process.kill)
        followers[words] = log
    time.sleep(0.5)
    daemon.volctl("create", "p/gone", "--size", "1G")
    daemon.volctl("delete", "p/gone", "--wait")

    def lines(words):
        with open(followers[words], encoding="utf-8") as file:
            return [json.loads(line) for line in file.read().split("\n")[:-1]]
    wait_until(lambda: [job for job in lines("jobs") if job["subject"] == "p/gone"
                        and job["finished"]], 20, "the job is followed")
    wait_until(lambda: [event for event in lines("events") if event["name"] == "volume-erased"],
               20, "the event is followed")
    job = daemon.volctl("jobs")["jobs"][-1]["id"]
    check("done" in daemon.volctl_raw("jobs", job, "--follow")[1], "a job that has ended")
    check_equal(daemon.refused("jobs", 99999, "--follow").code, "ENOENT", "no such job")


def check_top(daemon, handle):
    for _ in range(40):
        handle.pwrite(b"x" * 4 * KIB, 0)
    before = daemon.volctl("session", "list")["sessions"][0]
    check_equal((before["writes"], before["written_bytes"]), (40, 160 * KIB), "the session")
    check(before["write_total_ns"] > 0, "its writes took no time")
    rate = daemon.volctl("top", "--once", "--sessions")["sessions"][0]
    check_equal((rate["id"], rate["volume"]), (before["id"], "p/v"), "top of sessions")


def test(env):
    volmgr_nbd.need_libnbd()
    check_nobody_there(env)
    check_help()
    check_readme()
    daemon = env.daemon()
    check_json(daemon)
    check_not_permitted(daemon)
    check_second_daemon(daemon)
    daemon.volctl("pool", "create", "p", env.file_disk(300 * MIB))
    daemon.make_volume("p/v", 1024 * MIB)
    daemon.make_volume("p/w", 1024 * MIB, export=False)
    handle = volmgr_nbd.connect(daemon, "p/v")
    check_top(daemon, handle)
    check_json(daemon)
    check_refusals(daemon)
    check_metrics(daemon)
    volmgr_nbd.close(handle)
    check_following(env, daemon)
    daemon.stop()


run(test, limit_s=120)
