#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""After SIGKILL at a random moment, every acknowledged write is there and nothing else (P3).

Random writes, zeroings, discards and flushes to two volumes over several connections; the daemon
is killed in the middle of them; it is started again, in some rounds killed again while it replays;
all windows of both volumes are read and compared, and so is what volctl had acknowledged.

    kill.py [--rounds N]      default 10, in the long form 200
"""

import argparse
import threading
import time

import volmgr_nbd
from volmgr_env import MIB, CommandError, check, check_equal, run

VOLUMES = ("p/left", "p/right")
CONNECTIONS = 2  # per volume
WINDOW_SECTORS = 1024
WINDOWS = 24
VOLUME_BYTES = 8192 * MIB
RUN_S_MAX = 1.2
SECOND_KILL_SHARE = 0.4
START_S_MAX = 2


def random_windows(env):
    """Apart from each other, all over a volume that is much larger than the pool; some begin and
    end within a block or a grain."""
    slots = env.random.sample(range(VOLUME_BYTES // 512 // (2 * WINDOW_SECTORS)), WINDOWS)
    return [(slot * 2 * WINDOW_SECTORS + env.random.choice((0, 8, 128, 131)), WINDOW_SECTORS)
            for slot in slots]


class ControlWork(threading.Thread):
    """Creates and deletes volumes until the daemon is gone; remembers what was acknowledged."""

    def __init__(self, daemon, known, serial):
        super().__init__(daemon=True)
        self.target = daemon
        self.known = known  # name -> "there", "gone" or "unknown"
        self.serial = serial
        self.ended = False

    def run(self):
        while not self.ended:
            self.serial += 1
            name = f"p/extra{self.serial}"
            try:
                self.known[name] = "unknown"
                self.target.volctl("create", name, "--size", "1G")
                self.known[name] = "there"
                if self.serial % 2:
                    self.known[name] = "unknown"
                    self.target.volctl("delete", name)
                    self.known[name] = "gone"
            except CommandError:
                return  # the daemon has died
            time.sleep(0.02)


def check_control(daemon, known):
    there = {volume["volume"] for volume in daemon.volctl("list")["volumes"]}
    for name, state in list(known.items()):
        if state == "there":
            check(name in there, f"volume {name} was created and is missing")
        elif state == "gone":
            check(name not in there, f"volume {name} was deleted and is there")
        if name in there and state != "gone":
            daemon.volctl("delete", name)
        del known[name]


def start_with_second_kill(env, daemon, start_s):
    """Start; sometimes kill it while it starts, once or twice, anywhere in the time that the last
    start took. Returns how often, and how long this start took."""
    kills = 0
    while kills < 2 and env.random.random() < SECOND_KILL_SHARE:
        daemon.launch()
        time.sleep(env.random.uniform(0, start_s))
        daemon.kill()
        kills += 1
    began = time.monotonic()
    daemon.start()
    return kills, min(time.monotonic() - began, START_S_MAX)


def traffic_until_killed(env, daemon, oracles):
    runs = []
    for volume, oracle in zip(VOLUMES, oracles):
        handles = [volmgr_nbd.connect(daemon, volume) for _ in range(CONNECTIONS)]
        runs.append(volmgr_nbd.Traffic(oracle, handles, env.random))
    timer = threading.Timer(env.random.uniform(0.05, RUN_S_MAX), daemon.process.kill)
    timer.start()
    while all([traffic.step(20) for traffic in runs]):
        pass
    timer.join()
    for traffic in runs:
        while traffic.step(0):
            pass
        traffic.abandon()
    daemon.process.wait()
    check_equal(daemon.process.returncode, -9, "how volmgrd ended")
    for traffic in runs:
        check(not set(traffic.errors) - {107, 104, 32, 108},
              f"operations failed before the kill: {traffic.errors}")


def verify(daemon, oracles):
    for volume, oracle in zip(VOLUMES, oracles):
        handle = volmgr_nbd.connect(daemon, volume)
        oracle.verify_all(handle)
        volmgr_nbd.close(handle)


def test(env):
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200 if env.long else 10)
    rounds = parser.parse_args().rounds
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}, {rounds} rounds")
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(300 * MIB), env.file_disk(500 * MIB))
    for volume in VOLUMES:
        daemon.make_volume(volume, VOLUME_BYTES)
    oracles = [volmgr_nbd.Oracle(number, random_windows(env)) for number in range(len(VOLUMES))]
    known = {}
    kills = 0
    second_kills = 0
    replays = 0
    start_s = 0.25
    for number in range(rounds):
        control = ControlWork(daemon, known, number * 1000)
        control.start()
        traffic_until_killed(env, daemon, oracles)
        control.ended = True
        control.join()
        more, start_s = start_with_second_kill(env, daemon, start_s)
        kills += 1
        second_kills += more
        replays += "replayed" in daemon.event_names()
        if number % 20 == 19:
            env.say(f"{number + 1} rounds; the last start took {start_s:.2f} s")
        verify(daemon, oracles)
        check_control(daemon, known)
    daemon.stop()
    daemon.start()
    verify(daemon, oracles)
    acknowledged = sum(oracle.acknowledged for oracle in oracles)
    lost = sum(oracle.lost for oracle in oracles)
    env.say(f"{kills} kills, {second_kills} more during a start, {replays} starts replayed; "
            f"{acknowledged} acknowledged changes are all there; {lost} were in flight")
    check(acknowledged > rounds * 20, "the daemon was killed before it did anything")
    daemon.stop()


run(test, limit_s=150)
