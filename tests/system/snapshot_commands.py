#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each command about snapshots does what it says or is refused with a reason, and what it did
outlives a restart: names, groups taken at one instant, immutable snapshots, schedules, origins."""

import threading
import time

import volmgr_nbd
from volmgr_env import KIB, MIB, check, check_equal, run, wait_until
from volmgr_snapshots import delete_exactly, snapshots, used_bytes, wait_detached

GROUPS = 12


def refused_for(daemon, code, *arguments):
    check_equal(daemon.refused(*arguments).code, code, f"volctl {' '.join(arguments)}")


def fill(daemon, volume, byte, length=256 * KIB, offset=0):
    handle = volmgr_nbd.connect(daemon, volume)
    handle.pwrite(bytes([byte]) * length, offset)
    handle.flush()
    volmgr_nbd.close(handle)
    wait_detached(daemon, volume)


def first_byte(daemon, export, offset=0):
    handle = volmgr_nbd.connect(daemon, export)
    byte = handle.pread(512, offset)[0]
    volmgr_nbd.close(handle)
    wait_detached(daemon, export)
    return byte


def check_names(daemon):
    made = daemon.volctl("snapshot", "p/a")["snapshots"][0]["snapshot"]
    check(made.startswith("p/a@20") and made.endswith("Z"), f"a name by the time: {made}")
    daemon.volctl("snapshot", "p/a", "p/b@other", "--name", "one")
    check_equal(set(snapshots(daemon)), {made, "p/a@one", "p/b@other"}, "names")
    check_equal(set(snapshots(daemon, "p/b")), {"p/b@other"}, "those of one volume")
    groups = {entry["group"] for name, entry in snapshots(daemon).items() if name != made}
    check_equal(len(groups), 1, "two taken at one instant say so")
    check("" not in groups, "they have a group")
    check_equal(snapshots(daemon)[made]["group"], "", "one that was alone")
    refused_for(daemon, "EEXIST", "snapshot", "p/a@one")
    refused_for(daemon, "EEXIST", "snapshot", "p/a@new", "p/b@other")
    check("p/a@new" not in snapshots(daemon), "a part of a refused group exists")
    refused_for(daemon, "ENOENT", "snapshot", "p/a@new", "p/none@new")
    refused_for(daemon, "ENOENT", "snapshot", "none/a@new")
    refused_for(daemon, "ENOENT", "delete", "p/a@none")
    refused_for(daemon, "ENOENT", "delete", "p/a@one", "p/a@none")
    check("p/a@one" in snapshots(daemon), "a part of a refused deletion was carried out")
    refused_for(daemon, "ENOENT", "rollback", "p/a@none")
    refused_for(daemon, "ENOENT", "clone", "p/a@none", "p/c")
    refused_for(daemon, "ENOENT", "diff", "p/a@none")
    refused_for(daemon, "ENOENT", "export", "p/a@none", "nbd")
    refused_for(daemon, "EEXIST", "clone", "p/a@one", "p/b")
    refused_for(daemon, "EXDEV", "clone", "p/a@one", "q/c")
    refused_for(daemon, "EXDEV", "diff", "p/a@one", "p/b@other")
    refused_for(daemon, "EBUSY", "delete", "p/b")
    daemon.volctl("unexport", "p/b")
    refused_for(daemon, "ENOTEMPTY", "delete", "p/b")
    daemon.volctl("export", "p/b", "nbd")
    daemon.restart()
    check_equal(set(snapshots(daemon)), {made, "p/a@one", "p/b@other"}, "names after a restart")
    daemon.volctl("delete", made, "p/a@one", "p/b@other")
    check_equal(snapshots(daemon), {}, "after the deletion")


def check_one_instant(daemon):
    """Of two volumes written in turn, each write after the reply to the one before, no group of
    snapshots has the later one without the earlier one."""
    left = volmgr_nbd.connect(daemon, "p/a")
    right = volmgr_nbd.connect(daemon, "p/b")
    ending = threading.Event()
    failures = []
    number = 0

    def write_in_turn():
        nonlocal number
        try:
            while not ending.is_set():
                number += 1
                block = number.to_bytes(8, "big") * 512
                left.pwrite(block, MIB)
                right.pwrite(block, MIB)
        except Exception as failure:  # told by the main thread
            failures.append(failure)
    writer = threading.Thread(target=write_in_turn)
    writer.start()
    for group in range(GROUPS):
        before = number
        daemon.volctl("snapshot", "p/a", "p/b", "--name", f"group{group}")
        wait_until(lambda: number > before + 2 or failures, 20, "hosts go on writing")
    ending.set()
    writer.join()
    check(not failures, f"a write failed: {failures}")
    volmgr_nbd.close(left, right)
    for group in range(GROUPS):
        values = []
        for volume in ("p/a", "p/b"):
            name = f"{volume}@group{group}"
            daemon.volctl("export", name, "nbd")
            handle = volmgr_nbd.connect(daemon, name)
            check(handle.is_read_only(), "a snapshot is exported read-only")
            block = bytes(handle.pread(4096, MIB))
            check(block == block[:8] * 512, "a write is in the snapshot in part")
            values.append(int.from_bytes(block[:8], "big"))
            volmgr_nbd.close(handle)
            wait_detached(daemon, name)
            daemon.volctl("unexport", name)
        check(values[1] <= values[0] <= values[1] + 1,
              f"group {group} is not one instant: {values}")
    for group in range(GROUPS):
        daemon.volctl("delete", f"p/a@group{group}", f"p/b@group{group}")


def check_clone_and_rollback(daemon):
    fill(daemon, "p/a", 1)
    daemon.volctl("snapshot", "p/a@one")
    fill(daemon, "p/a", 2)
    daemon.volctl("clone", "p/a@one", "p/c")
    daemon.volctl("clone", "p/a", "p/d")
    for volume in ("p/c", "p/d"):
        daemon.volctl("export", volume, "nbd")
    check_equal([first_byte(daemon, volume) for volume in ("p/a", "p/c", "p/d")], [2, 1, 2],
                "volume and clones")
    fill(daemon, "p/c", 3, 4 * KIB)
    check_equal([first_byte(daemon, "p/c"), first_byte(daemon, "p/c", 4 * KIB)], [3, 1],
                "a clone that is written")
    check_equal(daemon.volctl("show", "p/c")["origin"], "p/a@one", "origin")
    handle = volmgr_nbd.connect(daemon, "p/a")
    refused_for(daemon, "EBUSY", "rollback", "p/a@one")
    volmgr_nbd.close(handle)
    wait_detached(daemon, "p/a")
    daemon.volctl("resize", "p/a", "3G")
    daemon.volctl("rollback", "p/a@one")
    check_equal(first_byte(daemon, "p/a"), 1, "after the rollback")
    check_equal(daemon.volctl("show", "p/a")["size_bytes"], 2048 * MIB, "size, too")
    answer = daemon.volctl("delete", "p/a@one")
    check_equal(answer["unnamed_count"], 1, "it stays for its clone")
    check_equal(snapshots(daemon), {}, "it has no name")
    daemon.restart()
    check_equal([first_byte(daemon, volume) for volume in ("p/a", "p/c", "p/d")], [1, 3, 2],
                "after a restart")
    daemon.volctl("unexport", "p/a")
    daemon.volctl("delete", "p/a")
    check_equal(first_byte(daemon, "p/c", 4 * KIB), 1, "a clone whose origin is gone")
    for volume in ("p/c", "p/d"):
        daemon.volctl("unexport", volume)
        delete_exactly(daemon, volume)
    check_equal(used_bytes(daemon), daemon.volctl("show", "p/b")["mapped_bytes"],
                "all space is back, but for the other volume's")
    daemon.make_volume("p/a", 2048 * MIB)


def check_immutable(daemon):
    daemon.volctl("snapshot", "p/a@kept", "--immutable", "1h")
    refused_for(daemon, "EPERM", "delete", "p/a@kept")
    refused_for(daemon, "EPERM", "delete", "p/a@kept", "--dry-run")
    refused_for(daemon, "EPERM", "protect", "p/a@kept", "5s")
    until = snapshots(daemon)["p/a@kept"]["immutable_until"]
    daemon.volctl("protect", "p/a@kept", "2h")
    check(snapshots(daemon)["p/a@kept"]["immutable_until"] > until, "it was prolonged")
    daemon.volctl("unexport", "p/a")
    refused_for(daemon, "EPERM", "delete", "p/a", "--snapshots")
    daemon.volctl("export", "p/a", "nbd")
    daemon.volctl("snapshot", "p/a@brief", "--immutable", "1s")
    daemon.restart()
    refused_for(daemon, "EPERM", "delete", "p/a@kept")

    def deleted():
        return daemon.volctl_raw("delete", "p/a@brief")[0] == 0
    wait_until(deleted, 20, "it can be deleted when its time is over", 0.2)


def check_schedule(daemon):
    daemon.volctl("snapshot-policy", "p/b", "--every", "1s", "--keep", "3")
    check_equal(daemon.volctl("snapshot-policies")["policies"][0]["rules"],
                [{"number": 1, "every_seconds": 1, "keep": 3, "immutable_seconds": 0}], "rules")
    daemon.volctl("snapshot", "p/b@mine")
    first = wait_until(lambda: [name for name in snapshots(daemon, "p/b") if name != "p/b@mine"],
                       20, "one is made")[0]
    wait_until(lambda: first not in snapshots(daemon, "p/b"), 30, "an old one is deleted", 0.2)
    made = snapshots(daemon, "p/b")
    check(len(made) <= 5, f"more are kept than the schedule says: {list(made)}")
    check_equal(made["p/b@mine"]["rules"], [], "what was made by hand stays")
    check_equal({tuple(entry["rules"]) for name, entry in made.items() if name != "p/b@mine"},
                {("1",)}, "what was made by the schedule")
    daemon.restart()
    newest = max(snapshots(daemon, "p/b"), key=lambda name: (name != "p/b@mine", name))
    wait_until(lambda: newest not in snapshots(daemon, "p/b"), 30, "it goes on after a restart",
               0.2)
    daemon.volctl("snapshot-policy", "p/b", "--off")
    check_equal(daemon.volctl("snapshot-policies")["policies"], [], "no schedule")
    before = set(snapshots(daemon, "p/b"))
    time.sleep(2.5)
    check_equal(set(snapshots(daemon, "p/b")), before, "snapshots when the schedule is off")
    daemon.volctl("unexport", "p/b")
    delete_exactly(daemon, "p/b", "--snapshots")
    check_equal(snapshots(daemon, "p"), {name: entry for name, entry in snapshots(daemon).items()
                                         if name.startswith("p/a@")}, "those of the other volume")


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(600 * MIB))
    for volume in ("p/a", "p/b"):
        daemon.make_volume(volume, 2048 * MIB)
    check_names(daemon)
    check_one_instant(daemon)
    check_clone_and_rollback(daemon)
    check_immutable(daemon)
    check_schedule(daemon)
    daemon.stop()


run(test, limit_s=120)
