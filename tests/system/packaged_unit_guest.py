#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What packaged_unit.py has run inside its virtual machine, by systemd, once per boot."""

import grp
import json
import os
import pwd
import random
import stat
import subprocess
import sys
import time
import traceback

import nbd

STATE = "/var/lib/volmgr"
RUNTIME = "/run/volmgr"
MEMORY = "/opt/check/written.json"
URI = f"nbd+unix:///p/v?socket={RUNTIME}/nbd.sock"
CAP_SYS_RESOURCE = 1 << 24
BLOCKS = 4096


def check(condition, message):
    if not condition:
        raise AssertionError(message)
    print(f"ok: {message}")


def run(*words, status=0):
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False)
    if status is not None and result.returncode != status:
        raise AssertionError(f"{' '.join(words)}: status {result.returncode}: {result.stdout}")
    return result.stdout.strip()


def unit(name):
    return run("systemctl", "show", "volmgrd", "--value", "-p", name)


def volctl(*words):
    return run("volctl", "-s", f"{STATE}/volmgrd.sock", *words)


def wait_active(not_pid=None, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while True:
        pid = unit("MainPID")
        if unit("ActiveState") == "active" and pid not in ("0", not_pid):
            return pid
        if time.monotonic() > deadline:
            raise AssertionError("volmgrd is not active:\n"
                                 + run("systemctl", "status", "volmgrd", status=None))
        time.sleep(0.2)


def connect(timeout_s=300):
    """As a host does that reconnects: again until it is served."""
    deadline = time.monotonic() + timeout_s
    while True:
        handle = nbd.NBD()
        try:
            handle.connect_uri(URI)
            return handle
        except nbd.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def content(number):
    return number.to_bytes(8, "little") * 512


def write_some(written, count, flush):
    handle = connect()
    for _ in range(count):
        block = random.randrange(BLOCKS)
        number = len(written) * 1000003 + random.randrange(1 << 30)
        handle.pwrite(content(number), block * 65536)
        written[str(block)] = number
    if flush:
        handle.flush()
    handle.shutdown()


def verify(written, when):
    began = time.monotonic()
    handle = connect()
    print(f"saw: {when}: served after another {time.monotonic() - began:.1f} s")
    for block in range(BLOCKS):
        number = written.get(str(block))
        expected = bytes(4096) if number is None else content(number)
        if bytes(handle.pread(4096, block * 65536)) != expected:
            raise AssertionError(f"{when}: block {block} is wrong")
    handle.shutdown()
    check(True, f"{when}: all {len(written)} blocks are right")


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def check_hardening(pid):
    status = status_of(pid)
    user = pwd.getpwuid(int(status["Uid"].split()[0])).pw_name
    check(user == "volmgr", f"it runs as {user}")
    check(status["NoNewPrivs"].strip() == "1", "it can get no new privileges")
    check(status["Seccomp"].strip() == "2", "its system calls are filtered")
    check(int(status["CapBnd"], 16) == CAP_SYS_RESOURCE, "one capability is left to it")
    check(int(status["CapEff"], 16) == CAP_SYS_RESOURCE, "and that one it has")
    locked = int(status["VmLck"].split()[0])
    check(locked > 0, f"its memory is locked ({locked // 1024} MiB)")
    check(unit("Type") == "notify" and unit("NotifyAccess") == "main", "it tells when it is ready")
    check(unit("WatchdogUSec") == "1min", "it is watched")
    log = run("journalctl", "-u", "volmgrd", "--no-pager", "-o", "cat")
    check("not an I/O flusher" not in log, "it is an I/O flusher")
    score = run("systemd-analyze", "security", "volmgrd", "--no-pager", status=None)
    print("saw: " + score.splitlines()[-1])


def permissions(path):
    found = os.stat(path)
    return (f"{stat.S_IMODE(found.st_mode):04o} {pwd.getpwuid(found.st_uid).pw_name}:"
            f"{grp.getgrgid(found.st_gid).gr_name}")


def check_permissions():
    expected = {STATE: "0750 volmgr:volmgr", RUNTIME: "0755 volmgr:volmgr",
                f"{STATE}/volmgrd.sock": "0660 volmgr:volmgr",
                f"{RUNTIME}/nbd.sock": "0600 volmgr:volmgr"}
    for path, wanted in expected.items():
        check(permissions(path) == wanted, f"{path} is {permissions(path)}")


def install():
    text = run("dpkg", "-i", "/opt/check/volmgr.deb")
    print(f"saw: dpkg: {text.splitlines()[-1]}")
    check(run("systemctl", "is-enabled", "volmgrd") == "enabled", "the package enables the unit")
    pid = wait_active()
    check(True, "the package starts the daemon")
    run("systemctl", "enable", "--now", "volmgrd")
    check(unit("MainPID") == pid, "enable --now finds it running")
    return pid


def make_volume():
    os.makedirs("/srv/volmgr")
    run("chown", "volmgr:volmgr", "/srv/volmgr")
    volctl("pool", "create", "p", "/dev/vdb", "file:/srv/volmgr/disk0.img?size=512M")
    volctl("create", "p/v", "--size", "100G")
    volctl("export", "p/v", "nbd")
    check(True, "a pool of a block device and a file")


def first_boot():
    written = {}
    pid = install()
    check_hardening(pid)
    make_volume()
    check_permissions()
    write_some(written, 300, flush=False)
    run("systemctl", "restart", "volmgrd")
    pid = wait_active(pid)
    verify(written, "after systemctl restart")
    for round_number in range(3):
        write_some(written, 300, flush=round_number == 1)
        run("systemctl", "kill", "-s", "KILL", "volmgrd")
        pid = wait_active(pid)
        verify(written, f"after SIGKILL {round_number}")
    check(unit("NRestarts") == "3", "systemd has started it again three times")
    log = run("journalctl", "-u", "volmgrd", "--no-pager", "-o", "cat")
    check("event: replayed" in log, "the volatile journal outlived the daemon")
    write_some(written, 300, flush=False)
    run("systemctl", "stop", "volmgrd")
    check(os.path.isdir(RUNTIME), "the runtime directory outlives the service")
    run("systemctl", "start", "volmgrd")
    verify(written, "after stop and start")
    write_some(written, 300, flush=False)
    with open(MEMORY, "w", encoding="utf-8") as file:
        json.dump(written, file)
    run("sync")


def second_boot():
    with open(MEMORY, encoding="utf-8") as file:
        written = json.load(file)
    wait_active()
    check(True, "it was started at boot")
    verify(written, "after a reboot")
    print("saw: " + " ".join(volctl("status").split()[:8]))
    run("dpkg", "-r", "volmgr")
    check(run("systemctl", "is-active", "volmgrd", status=None) != "active", "removal ends it")
    run("dpkg", "-P", "volmgr")
    check(os.path.isdir(f"{STATE}/pools/p"), "a purge keeps the metadata of pools")
    run("dpkg", "-i", "/opt/check/volmgr.deb")
    wait_active()
    verify(written, "after it was purged and installed again")


def main():
    second = os.path.exists(MEMORY)
    try:
        if second:
            second_boot()
        else:
            first_boot()
    except BaseException:  # pylint: disable=broad-exception-caught
        traceback.print_exc()
        print(run("journalctl", "-u", "volmgrd", "--no-pager", "-n", "40", status=None))
        print("CHECK FAILED")
    print("SECOND BOOT IS DONE" if second else "FIRST BOOT IS DONE")
    sys.stdout.flush()
    run("systemctl", "poweroff", "--no-block")


main()
