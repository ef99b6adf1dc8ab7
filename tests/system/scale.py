#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Many volumes and a huge one cost memory for what is used, not for what exists, and a restart with
all of them serves the first I/O soon.

1,000 exported volumes of 1 TiB (in the long form 10,000) and one of 1 PiB in a pool of small files,
made through the HTTP API; writes all over them; SIGKILL; everything is there.

    scale.py [--volumes N]
"""

import argparse
import http.client
import json
import socket
import time

import volmgr_nbd
from volmgr_env import MIB, PIB, SANITIZED, TIB, check, check_equal, run

# What one idle, exported volume may cost in memory, and the rest of the daemon with its caches.
VOLUME_BYTES_MAX = 16 * 1024
DAEMON_BYTES_MAX = 320 * MIB
SCATTERED_WRITES = 3000
TOUCHED_VOLUMES = 200


class Api(http.client.HTTPConnection):
    """The management API without volctl, over one connection."""

    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def call(self, method, path, body=None):
        self.request(method, path, json.dumps(body) if body is not None else None,
                     {"Content-Type": "application/json"})
        response = self.getresponse()
        data = response.read()
        check(response.status < 300, f"{method} {path}: {response.status} {data[:300]}")
        return json.loads(data)


def make_volumes(api, count):
    for number in range(count):
        api.call("POST", "/v1/volumes", {"volume": f"p/v{number}", "size_bytes": TIB})
        api.call("POST", "/v1/exports", {"volume": f"p/v{number}", "protocol": "nbd"})


def stamp(number):
    return number.to_bytes(8, "little") * 512


def write_huge(env, daemon):
    """4 KiB here and there in a pebibyte. Returns the places."""
    places = [env.random.randrange(PIB // 4096) * 4096 for _ in range(SCATTERED_WRITES)]
    handle = volmgr_nbd.connect(daemon, "p/huge")
    check_equal(handle.get_size(), PIB, "size of the huge volume")
    for number, place in enumerate(places):
        handle.pwrite(stamp(number), place)
    handle.flush()
    volmgr_nbd.close(handle)
    return {place: number for number, place in enumerate(places)}


def verify_huge(daemon, places):
    handle = volmgr_nbd.connect(daemon, "p/huge")
    for place, number in places.items():
        check(bytes(handle.pread(4096, place)) == stamp(number), f"the huge volume at {place}")
    check_equal(bytes(handle.pread(4096, PIB - 4096)), bytes(4096), "its end")
    volmgr_nbd.close(handle)


def touch(env, daemon, count):
    touched = {}
    for number in env.random.sample(range(count), min(count, TOUCHED_VOLUMES)):
        place = env.random.randrange(TIB // 4096) * 4096
        handle = volmgr_nbd.connect(daemon, f"p/v{number}")
        handle.pwrite(stamp(number), place)
        volmgr_nbd.close(handle)
        touched[number] = place
    return touched


def verify_touched(daemon, touched):
    for number, place in touched.items():
        handle = volmgr_nbd.connect(daemon, f"p/v{number}")
        check(bytes(handle.pread(4096, place)) == stamp(number), f"volume {number} at {place}")
        volmgr_nbd.close(handle)


def restart_and_read(env, daemon, end, what, place, number):
    """Seconds from the start of the process to the first answer."""
    end()
    began = time.monotonic()
    daemon.start(300)
    ready = time.monotonic() - began
    handle = volmgr_nbd.connect(daemon, "p/huge")
    data = bytes(handle.pread(4096, place))
    seconds = time.monotonic() - began
    volmgr_nbd.close(handle)
    check(data == stamp(number), "the first read")
    env.say(f"{what}: ready after {ready:.2f} s, first I/O after {seconds:.2f} s")
    return seconds


def check_memory(env, daemon, count, when):
    resident = daemon.resident_bytes()
    env.say(f"{when}: {resident / MIB:.0f} MiB resident")
    if not SANITIZED:
        check(resident < DAEMON_BYTES_MAX + count * VOLUME_BYTES_MAX,
              f"{when}: {resident // MIB} MiB are resident")


def test(env):
    parser = argparse.ArgumentParser()
    parser.add_argument("--volumes", type=int, default=10000 if env.long else 1000)
    count = parser.parse_args().volumes
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(384 * MIB), env.file_disk(384 * MIB))
    check_memory(env, daemon, 0, "empty pool")
    empty_s = restart_empty(env, daemon)
    began = time.monotonic()
    make_volumes(Api(daemon.socket), count)
    env.say(f"{count} volumes made and exported in {time.monotonic() - began:.1f} s")
    daemon.make_volume("p/huge", PIB)
    check_memory(env, daemon, count, f"{count} volumes")
    places = write_huge(env, daemon)
    touched = touch(env, daemon, count)
    check_memory(env, daemon, count, "after writes")

    place, number = next(reversed(places.items()))
    killed_s = restart_and_read(env, daemon, daemon.kill, "after SIGKILL", place, number)
    verify_huge(daemon, places)
    verify_touched(daemon, touched)
    check_memory(env, daemon, count, "after SIGKILL and reading all")
    stopped_s = restart_and_read(env, daemon, daemon.stop, "after an orderly end", place, number)
    # No absolute times: what a volume adds to the start, as a share of an empty start.
    for name, seconds in (("SIGKILL", killed_s), ("an orderly end", stopped_s)):
        check(seconds < 10 * empty_s + count * 0.002,
              f"first I/O after {name} took {seconds:.1f} s; {empty_s:.2f} s without volumes")
    listed = daemon.volctl("list")["volumes"]
    check_equal(len(listed), count + 1, "volumes listed")
    check_equal(len(daemon.volctl("exports")["exports"]), count + 1, "exports listed")
    daemon.stop()


def restart_empty(env, daemon):
    daemon.stop()
    began = time.monotonic()
    daemon.start()
    seconds = time.monotonic() - began
    env.say(f"without volumes: ready after {seconds:.2f} s")
    return max(seconds, 0.2)


run(test, limit_s=180)
