#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Under valgrind the daemon loses no memory and touches none that is not its own, from start over
every command and kind of I/O to an orderly end.

    leaks.py --preload LIBRARY     the library that valgrind_uring.c makes
"""

import argparse
import re

import volmgr_nbd
from volmgr_env import GIB, MIB, SANITIZED, Skip, check, check_equal, need_program, run

# What the kernel writes by io_uring valgrind does not see, so it cannot tell what is undefined.
VALGRIND = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite", "--error-exitcode=99", "--num-callers=30",
            "--undef-value-errors=no"]


def exercise(env, daemon):
    daemon.volctl("pool", "create", "p", env.file_disk(200 * MIB), timeout_s=300)
    daemon.volctl("pool", "add", "p", env.file_disk(200 * MIB))
    for name in ("a", "b"):
        daemon.make_volume(f"p/{name}", 4 * GIB)
    oracle = volmgr_nbd.Oracle(1, [(number * 8192, 1024) for number in range(8)])
    handles = [volmgr_nbd.connect(daemon, "p/a", tcp) for tcp in (False, True)]
    traffic = volmgr_nbd.Traffic(oracle, handles, env.random, depth=4)
    while traffic.completed < 600:
        traffic.step()
    traffic.drain()
    check(not traffic.errors, f"operations failed: {traffic.errors}")
    oracle.verify_all(handles[0])
    daemon.volctl("session", "list")
    daemon.volctl("session", "drop", daemon.volctl("session", "list")["sessions"][0]["id"])
    daemon.refused("delete", "p/a")
    daemon.refused("create", "p/a", "--size", "1G")
    daemon.volctl("unexport", "p/a", "--force")
    daemon.volctl("delete", "p/a", "--wait")
    daemon.volctl("resize", "p/b", "8G")
    daemon.volctl("rename", "p/b", "c")
    for words in (["status"], ["events"], ["jobs"], ["pool", "list"], ["disk", "list"]):
        daemon.volctl(*words)
    daemon.volctl_raw("metrics")
    volmgr_nbd.close(*handles)


def run_under_valgrind(env, daemon, preload, work):
    daemon.launch(["env", f"LD_PRELOAD={preload}", *VALGRIND])
    daemon.wait_ready(300)
    daemon.wait_opened(300)
    work()
    daemon.process.terminate()
    status = daemon.process.wait(300)
    with open(daemon.log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    summary = re.findall(r"ERROR SUMMARY: (\d+) errors", text)
    check(summary, f"valgrind says nothing:\n{text[-2000:]}")
    found = "\n".join(line for line in text.splitlines() if line.startswith("=="))
    check(summary[-1] == "0" and status == 0,
          f"status {status}, {summary[-1]} errors:\n{found[-12000:]}")
    env.say(f"valgrind: 0 errors; {' '.join(re.findall(r'definitely lost: .*', text)[-1:])}")


def test(env):
    parser = argparse.ArgumentParser()
    parser.add_argument("--preload", required=True)
    preload = parser.parse_args().preload
    need_program("valgrind")
    volmgr_nbd.need_libnbd()
    if SANITIZED:
        raise Skip("the programs are built with a sanitizer, which looks for the same")
    daemon = env.daemon(start=False, config="[pool]\ndisk_timeout = 120s\nrequest_timeout = 300s\n")
    run_under_valgrind(env, daemon, preload, lambda: exercise(env, daemon))

    def after_restart():
        check_equal(len(daemon.volctl("list")["volumes"]), 1, "volumes after the restart")
        handle = volmgr_nbd.connect(daemon, "p/c")
        handle.pwrite(bytes(65536), 0)
        handle.flush()
        volmgr_nbd.close(handle)
    run_under_valgrind(env, daemon, preload, after_restart)


run(test, limit_s=600)
