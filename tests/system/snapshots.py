#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A snapshot shows one instant of its volumes for as long as it lives, whatever happens to them.

Two volumes are written all the time by random operations. Snapshots of one or of both are taken,
read over NBD, cloned (and the clones written), rolled back to, and deleted in random order; the
daemon is killed in between, also while a snapshot is being taken or deleted. Everything is compared
with what was written, and what deletions free with what their dry runs say; at the end nothing is
left, and the metadata is clean.

    snapshots.py [--rounds N]      default 3, in the long form 60
"""

import argparse
import os
import threading
import time

import volmgr_nbd
from volmgr_env import BIN_DIR, MIB, CommandError, check, check_equal, run, run_command, wait_until
from volmgr_snapshots import (Oracle, clone_of, delete_exactly, snapshots, used_bytes,
                              verify_export, wait_detached, wait_reclaimed)

VOLUMES = ("p/left", "p/right")
VOLUME_BYTES = 4096 * MIB
WINDOW_SECTORS = 512
WINDOWS = 16
SNAPSHOTS_MAX = 12
STEPS = 8  # in a round
LOST_CONNECTION = {107, 104, 32, 108}


def random_windows(env):
    slots = env.random.sample(range(VOLUME_BYTES // 512 // (2 * WINDOW_SECTORS)), WINDOWS)
    return [(slot * 2 * WINDOW_SECTORS + env.random.choice((0, 8, 128, 131)), WINDOW_SECTORS)
            for slot in slots]


class Command(threading.Thread):
    """A volctl in the background."""

    def __init__(self, daemon, *arguments):
        super().__init__(daemon=True)
        self.target = daemon
        self.arguments = arguments
        self.answer = None
        self.failure = None
        self.start()

    def run(self):
        try:
            self.answer = self.target.volctl(*self.arguments)
        except CommandError as failure:
            self.failure = failure


class Scene:
    """The volumes, their traffic, and what is known of their snapshots."""

    def __init__(self, env, daemon):
        self.env = env
        self.random = env.random
        self.daemon = daemon
        self.oracles = {name: Oracle(number, random_windows(env))
                        for number, name in enumerate(VOLUMES)}
        self.known = {}  # snapshot -> oracle of what it shows
        self.runs = {}  # volume -> traffic
        self.serial = 0
        self.counts = {}
        self.history = []  # for whoever looks into a failure

    def count(self, what, *names):
        self.counts[what] = self.counts.get(what, 0) + 1
        self.history.append(" ".join((what, *names)))

    def connect(self, name):
        handles = [volmgr_nbd.connect(self.daemon, name) for _ in range(2)]
        self.runs[name] = volmgr_nbd.Traffic(self.oracles[name], handles, self.random, depth=8)

    def disconnect(self, name):
        traffic = self.runs.pop(name)
        traffic.drain()
        check(not traffic.errors, f"operations on {name} failed: {traffic.errors}")
        volmgr_nbd.close(*traffic.handles)
        wait_detached(self.daemon, name)

    def write_for(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for traffic in self.runs.values():
                traffic.step(10)

    def write_during(self, command):
        while command.is_alive():
            for traffic in self.runs.values():
                traffic.step(5)
        command.join()

    # ---- what is done while the volumes are written ----

    def take(self):
        """A snapshot of one volume or of both."""
        names = self.random.choice((VOLUMES[:1], VOLUMES[1:], VOLUMES))
        self.serial += 1
        targets = [f"{name}@s{self.serial}" for name in names]
        freezing = [self.oracles[name].freeze() for name in names]
        command = Command(self.daemon, "snapshot", *targets)
        self.write_during(command)
        frozen = [self.oracles[name].thaw(item) for name, item in zip(names, freezing)]
        if command.failure:
            raise command.failure
        self.known.update(zip(targets, frozen))
        self.count("snapshots of both" if len(names) > 1 else "snapshots", *targets)
        check_equal([entry["snapshot"] for entry in command.answer["snapshots"]], targets,
                    "what was taken")

    def read(self):
        name = self.random.choice(list(self.known))
        failures = []

        def work():
            try:
                verify_export(self.daemon, name, self.known[name])
            except Exception as failure:  # told by the main thread
                failures.append(failure)
        reader = threading.Thread(target=work, daemon=True)
        reader.start()
        self.write_during(reader)
        if failures:
            raise failures[0]
        self.count("snapshots read", name)

    def clone(self):
        name = self.random.choice(list(self.known))
        self.serial += 1
        new = f"p/clone{self.serial}"
        self.daemon.volctl("clone", name, new)
        oracle = clone_of(self.known[name], 1000 + self.serial)
        # What the clone inherits says that it belongs to the volume; new writes say otherwise.
        self.daemon.volctl("export", new, "nbd")
        handle = volmgr_nbd.connect(self.daemon, new)
        oracle.verify_all(handle)
        traffic = volmgr_nbd.Traffic(oracle, [handle], self.random, depth=8)
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            traffic.step(10)
            for other in self.runs.values():
                other.step(0)
        traffic.drain()
        check(not traffic.errors, f"operations on a clone failed: {traffic.errors}")
        oracle.verify_all(handle)
        volmgr_nbd.close(handle)
        wait_detached(self.daemon, new)
        self.daemon.volctl("unexport", new)
        self.daemon.volctl("delete", new)
        self.count("clones", name)

    def roll_back(self):
        """A host that is attached is in the way; then it is as if nothing had been written."""
        name = self.random.choice(list(self.known))
        volume = name.split("@", maxsplit=1)[0]
        check_equal(self.daemon.refused("rollback", name).code, "EBUSY", "rollback while attached")
        self.disconnect(volume)
        self.daemon.volctl("rollback", name)
        self.oracles[volume].become(self.known[name])
        self.connect(volume)
        self.count("rollbacks", name)

    def delete(self):
        count = self.random.randrange(1, 4)
        names = self.random.sample(list(self.known), min(count, len(self.known)))
        self.daemon.volctl("delete", *names)
        for name in names:
            del self.known[name]
        there = snapshots(self.daemon)
        check(not set(names) & set(there), "a deleted snapshot is listed")
        self.count("deletions", *names)

    # ---- kill ----

    def kill(self):
        """In the middle of taking or deleting a snapshot, or of nothing."""
        kind = self.random.choice(("take", "delete", "nothing"))
        freezing = [self.oracles[name].freeze() for name in VOLUMES]
        self.serial += 1
        targets = [f"{name}@k{self.serial}" for name in VOLUMES]
        doomed = []
        if kind == "take":
            command = Command(self.daemon, "snapshot", *targets)
        elif kind == "delete" and self.known:
            doomed = self.random.sample(list(self.known), min(3, len(self.known)))
            command = Command(self.daemon, "delete", *doomed)
        timer = threading.Timer(self.random.uniform(0, 0.06), self.daemon.process.kill)
        timer.start()
        while all([traffic.step(5) for traffic in self.runs.values()]):
            pass
        timer.join()
        if kind == "take" or doomed:
            command.join()
        self.daemon.process.wait()
        frozen = [self.oracles[name].thaw(item) for name, item in zip(VOLUMES, freezing)]
        for traffic in self.runs.values():
            while traffic.step(0):
                pass
            traffic.abandon()
            check(not set(traffic.errors) - LOST_CONNECTION,
                  f"operations failed before the kill: {traffic.errors}")
        self.daemon.start()
        there = set(snapshots(self.daemon))
        found = [name for name in targets if name in there]
        check(not found or len(found) == len(targets), f"a group exists in part: {found}")
        if kind == "take" and command.answer:
            check_equal(found, targets, "an acknowledged snapshot")
        self.known.update({name: item for name, item in zip(targets, frozen) if name in there})
        gone = [name for name in doomed if name not in there]
        self.count(f"kills while {kind}", *found, *doomed, "which was done" if gone else "")
        check(not gone or len(gone) == len(doomed), f"a set was deleted in part: {gone}")
        if doomed and command.answer:
            check_equal(gone, doomed, "an acknowledged deletion")
        for name in gone:
            del self.known[name]
        check_equal(there, set(self.known), "snapshots after a kill")
        for name in VOLUMES:
            self.connect(name)

    # ---- quiet ----

    def settle(self):
        """Nobody writes; all is compared."""
        for name in list(self.runs):
            self.disconnect(name)
        for name, oracle in self.oracles.items():
            handle = volmgr_nbd.connect(self.daemon, name)
            oracle.verify_all(handle)
            handle.flush()
            volmgr_nbd.close(handle)
            wait_detached(self.daemon, name)
        for name, oracle in self.known.items():
            verify_export(self.daemon, name, oracle)
        self.check_space()

    def check_space(self):
        wait_reclaimed(self.daemon)
        result = self.daemon.volctl("check")["checks"][0]
        check_equal(result["findings"], [], "what volctl check finds when nothing is written")
        shown = snapshots(self.daemon)
        unnamed = len(snapshots(self.daemon, "--all")) - len(shown)
        for name, entry in shown.items():
            check_equal(entry["mapped_bytes"], entry["exclusive_bytes"] + entry["shared_bytes"],
                        f"space of {name}")
            freed = self.daemon.volctl("delete", name, "--dry-run")["freed_bytes"]
            # What was deleted and is kept for clones may go with it.
            check(freed == entry["exclusive_bytes"]
                  or unnamed > 0 and freed > entry["exclusive_bytes"],
                  f"{name}: dry run {freed}, exclusive {entry['exclusive_bytes']}")
        for name in VOLUMES:
            volume = self.daemon.volctl("show", name)
            check_equal(volume["mapped_bytes"],
                        volume["exclusive_bytes"] + volume["shared_bytes"], f"space of {name}")
            check_equal(volume["snapshot_count"],
                        sum(item.startswith(name + "@") for item in shown), "snapshots")

    def delete_some_exactly(self):
        names = self.random.sample(list(self.known), min(3, len(self.known)))
        if names:
            freed = delete_exactly(self.daemon, *names)
            self.env.say(f"deleting {len(names)} snapshots freed {freed >> 10} KiB, as it said")
            for name in names:
                del self.known[name]


def round_of(scene):
    for name in VOLUMES:
        if name not in scene.runs:
            scene.connect(name)
    for _ in range(STEPS):
        scene.write_for(scene.random.uniform(0.02, 0.2))
        possible = [scene.take, scene.take]
        if scene.known:
            possible += [scene.read, scene.clone, scene.roll_back, scene.delete]
        if len(scene.known) >= SNAPSHOTS_MAX:
            possible = [scene.delete]
        scene.random.choice(possible)()
        if scene.random.random() < 0.25:
            scene.kill()
    scene.settle()
    scene.delete_some_exactly()


def check_offline(daemon):
    output = run_command(os.path.join(BIN_DIR, "volmgrd"), "--state", daemon.state, "--config",
                         daemon.config, "--check")
    check("p: 0 errors, 0 warnings" in output, f"volmgrd --check: {output}")


def work(env, daemon, scene, rounds):
    for number in range(rounds):
        scene.history.append("round")
        round_of(scene)
        check(not daemon.volctl("check")["checks"][0]["errors"], "volctl check finds errors")
        daemon.stop()
        check_offline(daemon)
        daemon.start()
        if number % 10 == 9:
            env.say(f"{number + 1} rounds")
    scene.settle()
    while scene.known:
        scene.delete_some_exactly()
    for volume in VOLUMES:
        check_equal(daemon.volctl("show", volume)["shared_bytes"], 0, "space that is shared")
        daemon.volctl("unexport", volume)
        delete_exactly(daemon, volume)
    wait_until(lambda: used_bytes(daemon) == 0, 20, "all space is back")
    daemon.stop()
    check_offline(daemon)
    env.say(", ".join(f"{count} {what}" for what, count in sorted(scene.counts.items())))


def test(env):
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60 if env.long else 3)
    rounds = parser.parse_args().rounds
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}, {rounds} rounds")
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(1000 * MIB), env.file_disk(1500 * MIB))
    for volume in VOLUMES:
        daemon.make_volume(volume, VOLUME_BYTES)
    scene = Scene(env, daemon)
    try:
        work(env, daemon, scene, rounds)
    except Exception:
        env.say("; ".join(scene.history))
        raise


run(test, limit_s=240)
