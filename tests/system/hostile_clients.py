#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Clients that send garbage, stop reading, do nothing, or half close their connection harm nobody:
another client's data stays right and its latency about as it was; memory stays bounded (P12).

Latency is compared with what the same client had a moment before and after, in medians; no absolute
times.
"""

import os
import socket
import struct
import time

import volmgr_latency
import volmgr_nbd
from volmgr_env import GIB, MIB, SANITIZED, check, run

# The hostile clients themselves, and this script, need processors too.
MEDIAN_RATIO_MAX = 3.0
TAIL_RATIO_MAX = 10.0
MEMORY_GROWTH_MAX = 192 * MIB
IDLE_CONNECTIONS = 1000
REQUEST = struct.Struct(">IHHQQI")
REQUEST_MAGIC = 0x25609513


class RawClient:
    """Speaks just enough NBD to misbehave later."""

    def __init__(self, daemon, tcp, export=None):
        if tcp:
            self.socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=20)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(20)
            self.socket.connect(daemon.nbd_socket)
        if export:
            self._negotiate(export.encode())

    def _read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            check(part, "the connection was closed in the handshake")
            data += part
        return data

    def _negotiate(self, export):
        check(self._read(18)[:8] == b"NBDMAGIC", "no greeting")
        option_go = 7
        data = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self.socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT"
                            + struct.pack(">II", option_go, len(data)) + data)
        while True:
            _, _, kind, length = struct.unpack(">QIII", self._read(20))
            self._read(length)
            if kind == 1:
                return
            check(kind < 0x80000000, f"the export was refused: {kind:#x}")

    def request(self, kind, offset, length, payload=b""):
        return REQUEST.pack(REQUEST_MAGIC, 0, kind, offset & 0xffff, offset, length) + payload

    def send(self, data):
        """As much as goes; a server that has had enough may close."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def close(self):
        self.socket.close()


def attack_garbage(env, daemon, seconds):
    """In the handshake and afterwards, many connections, random bytes and nearly valid ones."""
    random = env.random
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        client = RawClient(daemon, count % 2 == 0, None if count % 3 == 0 else "p/attacked")
        garbage = random.randbytes(random.randrange(1, 4096))
        if count % 3 == 1:
            garbage = client.request(random.randrange(0, 16), random.getrandbits(64),
                                     random.getrandbits(32)) + garbage
        elif count % 3 == 2:
            valid = bytearray(client.request(1, 0, 4096, bytes(4096)) * 3)
            for _ in range(8):
                valid[random.randrange(len(valid))] = random.randrange(256)
            garbage = bytes(valid)
        client.send(garbage)
        client.close()
        count += 1
        time.sleep(0.01)
    env.say(f"{count} connections with garbage")


def attack_stopped_readers(env, daemon, seconds):
    """They ask for much more than sockets can hold and never take it."""
    clients = [RawClient(daemon, number % 2 == 0, "p/attacked") for number in range(16)]
    for client in clients:
        client.socket.setblocking(False)
        for number in range(256):
            if not client.send(client.request(0, number * MIB, MIB)):
                break
    time.sleep(seconds)
    for client in clients:
        client.close()


def attack_idle(env, daemon, seconds):
    clients = []
    for number in range(IDLE_CONNECTIONS):
        clients.append(RawClient(daemon, number % 2 == 0, "p/attacked" if number % 4 else None))
    time.sleep(seconds)
    for client in clients:
        client.close()


def attack_half_closed(env, daemon, seconds):
    """Their requests are answered or dropped, and they go away."""
    deadline = time.monotonic() + seconds
    clients = []
    while time.monotonic() < deadline:
        client = RawClient(daemon, len(clients) % 2 == 0, "p/attacked")
        client.send(client.request(0, 0, MIB) * 4 + client.request(1, 0, MIB)[:20])
        client.socket.shutdown(socket.SHUT_WR if len(clients) % 3 else socket.SHUT_RD)
        clients.append(client)
        time.sleep(0.02)
    for client in clients:
        client.close()


ATTACKS = (attack_garbage, attack_stopped_readers, attack_idle, attack_half_closed)


def measure_attack(env, daemon, victim, attack, seconds):
    """The same in calm, under attack, in calm."""
    calm = victim.measure(seconds)["read"]
    victim.reset()
    attack(env, daemon, seconds)
    attacked = victim.take()["read"]
    time.sleep(0.5)
    calm += victim.measure(seconds)["read"]
    calm_summary = volmgr_latency.summary(calm)
    attacked_summary = volmgr_latency.summary(attacked)
    ratios = [attacked_summary[0] / calm_summary[0], attacked_summary[1] / calm_summary[1]]
    env.say(f"{attack.__name__}: median {calm_summary[0]:.0f} -> {attacked_summary[0]:.0f} us "
            f"({ratios[0]:.2f}), 99 % {calm_summary[1]:.0f} -> {attacked_summary[1]:.0f} us "
            f"({ratios[1]:.2f}), worst {calm_summary[2]:.0f} -> {attacked_summary[2]:.0f} us")
    daemon.check_alive()
    return ratios


def test(env):
    volmgr_nbd.need_libnbd()
    # Both ends of a thousand connections may be in one process, this one.
    import resource
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, limit[1]), limit[1]))
    daemon = env.daemon(config="[nbd]\nhandshake_timeout = 20s\n")
    daemon.volctl("pool", "create", "p", env.file_disk(512 * MIB, env.memory_folder()))
    daemon.make_volume("p/calm", GIB)
    daemon.make_volume("p/attacked", GIB)
    victim = volmgr_latency.Victim(env, daemon, "p/calm")
    before = daemon.resident_bytes()
    descriptors = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    failures = []
    for attack in ATTACKS:
        # One more try for a measurement that the machine itself may have disturbed.
        for _ in range(2):
            median, tail = measure_attack(env, daemon, victim, attack, 10 if env.long else 2)
            if SANITIZED or (median <= MEDIAN_RATIO_MAX and tail <= TAIL_RATIO_MAX):
                break
        else:
            failures.append(f"{attack.__name__}: {median:.2f} {tail:.2f}")
    growth = daemon.resident_bytes() - before
    env.say(f"memory {before // MIB} -> {(before + growth) // MIB} MiB")
    check(not failures, f"latency of the well-behaved client suffered: {failures}")
    check(SANITIZED or growth < MEMORY_GROWTH_MAX, f"memory grew by {growth // MIB} MiB")
    time.sleep(1)
    left = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    check(left <= descriptors + 4, f"descriptors: {descriptors} before, {left} afterwards")
    check(daemon.volctl("status")["health"] == "ok", "health afterwards")
    daemon.stop()


run(test, limit_s=120)
