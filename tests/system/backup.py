#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Backups of a volume that is written all the time: a full one and two incremental ones, each of a
snapshot, once by the ranges of volctl diff and once by the dirty bitmaps of NBD. Restored into new
volumes, they are identical to the snapshots, and little more than what has changed is transferred.
"""

import contextlib
import json
import shutil

import volmgr_nbd
from volmgr_env import KIB, MIB, check, check_equal, run, run_command
from volmgr_snapshots import Oracle, verify_export, wait_detached

VOLUME_BYTES = 2048 * MIB
WINDOW_SECTORS = 1024
WINDOWS = 24
BLOCK_BYTES = 4 * KIB
CHUNK_BYTES = 8 * MIB
CHANGES = 120  # before each incremental backup
TRAFFIC_SHARE_MAX = 1.05  # of the bytes that were changed


class Changes:
    """Random writes and discards to a volume; remembers which blocks they touched."""

    def __init__(self, env, daemon, oracle):
        self.random = env.random
        self.oracle = oracle
        self.handle = volmgr_nbd.connect(daemon, "p/v")
        self.touched = set()

    def make(self, count):
        for _ in range(count):
            kind = "write" if self.random.random() < 0.85 else "trim"
            window = self.random.choice(self.oracle.windows)
            sectors = self.random.choice((8, 8, 16, 64, 256))
            first = self.random.randrange(0, window.length - sectors + 1, 8)
            operation = self.oracle.begin(kind, window, first, sectors)
            offset = (window.offset + first) * volmgr_nbd.SECTOR_BYTES
            length = sectors * volmgr_nbd.SECTOR_BYTES
            if kind == "write":
                self.handle.pwrite(operation.data, offset)
            else:
                self.handle.trim(length, offset)
            self.oracle.end(operation, True)
            self.touched.update(range(offset // BLOCK_BYTES, (offset + length) // BLOCK_BYTES))

    def changed_bytes(self):
        """Since the last call."""
        touched = len(self.touched) * BLOCK_BYTES
        self.touched.clear()
        return touched


# ---- the two ways to learn what has changed ----

def runs_of_volctl(daemon, older, newer):
    body = daemon.volctl("diff", older, newer)
    runs = [(item["offset_bytes"], item["length_bytes"]) for item in body["runs"]]
    check_equal(sum(length for _, length in runs), body["changed_bytes"], "sum of the runs")
    check(all(left[0] + left[1] < right[0] for left, right in zip(runs, runs[1:])),
          "runs are in order, and as long as possible")
    return runs


def runs_of_context(daemon, export, context, wanted):
    """Extents of a metadata context of which a bit of `wanted` is set (or clear: negative)."""
    handle = volmgr_nbd.nbd.NBD()
    handle.add_meta_context(context)
    handle.connect_uri(daemon.uri(export))
    check(handle.can_meta_context(context), f"{export} offers no {context}")
    size = handle.get_size()
    runs = []
    offset = 0

    def extents(_, start, entries, error):
        nonlocal offset
        check_equal(error.value, 0, "block status")
        for length, flags in zip(entries[::2], entries[1::2]):
            hit = not flags & -wanted if wanted < 0 else flags & wanted
            if hit and runs and runs[-1][0] + runs[-1][1] == start:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            elif hit:
                runs.append((start, length))
            start += length
        offset = start
        return 0
    while offset < size:
        before = offset
        handle.block_status(min(size - offset, 1024 * MIB), offset, extents)
        check(offset > before, "block status goes on")
    volmgr_nbd.close(handle)
    return runs


def runs_of_bitmap(daemon, older, newer):
    return runs_of_context(daemon, newer, f"qemu:dirty-bitmap:{older.rpartition('@')[2]}", 1)


def runs_of_qemu(daemon, older, newer):
    """What qemu-img makes of the same bitmap: it says "no data" of what is dirty."""
    image = (f"driver=nbd,server.type=unix,server.path={daemon.nbd_socket},export={newer},"
             f"x-dirty-bitmap=qemu:dirty-bitmap:{older.rpartition('@')[2]}")
    text = run_command("qemu-img", "map", "--output=json", "--image-opts", image)
    runs = []
    for extent in json.loads(text):
        if extent["data"]:
            continue
        if runs and runs[-1][0] + runs[-1][1] == extent["start"]:
            runs[-1] = (runs[-1][0], runs[-1][1] + extent["length"])
        else:
            runs.append((extent["start"], extent["length"]))
    return runs


# ---- backups: files of ranges ----

def read_runs(daemon, export, runs):
    handle = volmgr_nbd.connect(daemon, export)
    size = handle.get_size()
    backup = []
    for start, length in runs:
        end = min(start + length, size)
        for offset in range(start, end, CHUNK_BYTES):
            backup.append((offset, bytes(handle.pread(min(CHUNK_BYTES, end - offset), offset))))
    volmgr_nbd.close(handle)
    return backup


def restore(daemon, volume, backups):
    """Into a new volume, one backup after the other."""
    daemon.make_volume(volume, VOLUME_BYTES)
    handle = volmgr_nbd.connect(daemon, volume)
    for backup in backups:
        for offset, data in backup:
            handle.pwrite(data, offset)
    handle.flush()
    volmgr_nbd.close(handle)
    wait_detached(daemon, volume)


def compare(daemon, left, right):
    """Byte by byte, where either of them holds data."""
    places = set()
    for export in (left, right):
        for start, length in runs_of_context(daemon, export, "base:allocation", -1):
            places.update(range(start // MIB, (start + length + MIB - 1) // MIB))
    handles = [volmgr_nbd.connect(daemon, export) for export in (left, right)]
    for place in sorted(places):
        check(handles[0].pread(MIB, place * MIB) == handles[1].pread(MIB, place * MIB),
              f"{left} and {right} differ between {place} and {place + 1} MiB")
    volmgr_nbd.close(*handles)
    return len(places)


class Way:
    """One way of making backups, and what it has made so far."""

    def __init__(self, name, runs_between):
        self.name = name
        self.runs_between = runs_between
        self.backups = []


def back_up(daemon, ways, older, newer, changed_bytes):
    for way in ways:
        if older is None:
            runs = runs_of_context(daemon, newer, "base:allocation", -1)
        else:
            runs = way.runs_between(daemon, older, newer)
            told = sum(length for _, length in runs)
            check(told <= changed_bytes * TRAFFIC_SHARE_MAX,
                  f"{way.name}: {told} bytes are told as changed, {changed_bytes} were")
        way.backups.append(read_runs(daemon, newer, runs))


def test(env):
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}")
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(1500 * MIB))
    daemon.make_volume("p/v", VOLUME_BYTES)
    slots = env.random.sample(range(VOLUME_BYTES // 512 // (2 * WINDOW_SECTORS)), WINDOWS)
    oracle = Oracle(1, [(slot * 2 * WINDOW_SECTORS, WINDOW_SECTORS) for slot in slots])
    changes = Changes(env, daemon, oracle)
    changes.make(4 * CHANGES)
    ways = [Way("volctl diff", runs_of_volctl), Way("dirty bitmap", runs_of_bitmap)]
    frozen = {}
    older = None
    for name in ("monday", "tuesday", "wednesday"):
        newer = f"p/v@{name}"
        freezing = oracle.freeze()
        daemon.volctl("snapshot", newer)
        frozen[newer] = oracle.thaw(freezing)
        changed_bytes = changes.changed_bytes()
        changes.make(CHANGES // 2)  # goes on while the backup is made
        daemon.volctl("export", newer, "nbd")
        back_up(daemon, ways, older, newer, changed_bytes)
        if older is not None:
            told = runs_of_volctl(daemon, older, newer)
            check_equal(runs_of_bitmap(daemon, older, newer), told, "what the bitmap tells")
            if shutil.which("qemu-img"):
                check_equal(runs_of_qemu(daemon, older, newer), told, "what QEMU is told")
        changes.make(CHANGES // 2)
        older = newer
        if name == "tuesday":
            daemon.kill()  # what has changed is known all the same
            daemon.start()
            with contextlib.suppress(volmgr_nbd.nbd.Error):
                changes.handle.shutdown()
            changes.handle = volmgr_nbd.connect(daemon, "p/v")
    for number, way in enumerate(ways):
        for count, newer in enumerate(frozen, 1):
            volume = f"p/restored{number}{count}"
            restore(daemon, volume, way.backups[:count])
            places = compare(daemon, volume, newer)
            env.say(f"{way.name}: {volume} is what {newer} is, {places} MiB compared")
    for newer, then in frozen.items():
        wait_detached(daemon, newer)
        daemon.volctl("unexport", newer)
        verify_export(daemon, newer, then)
    volmgr_nbd.close(changes.handle)
    daemon.stop()


run(test, limit_s=120)
