#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever file of the state directory, part of the disks or volatile memory is damaged, lost, or
put back to an older time: it is noticed and made good, or the pool, a volume or a read is refused
in words, and never does a read return anything but what was flushed. What can be rebuilt from the
disks then is.

The whole matrix: VOLMGR_TEST_LONG=1, or damage_matrix.py --all; otherwise rows chosen by the seed.
damage_matrix.py --row TEXT runs the rows that contain the text. Each row is printed: the base
(ended in order, or killed), the damage, what the next start served, and what an import from the
disks alone gave where that was not everything.
"""

import glob
import os
import re
import shutil
import sys
import time

import volmgr_nbd
from volmgr_env import MIB, CommandError, check, run, wait_until

DISK_BYTES = 96 * MIB
VOLUME_BYTES = 256 * MIB
BLOCK = 4096
ROUNDS = 12  # of writes and a FLUSH, before and after the older time
SHORT_S = 60
LABEL_PLACE = 64 * 1024
LEDGER_START = MIB


def mark(number):
    return number.to_bytes(4, "little") * (BLOCK // 4)


def empty_folder(path):
    shutil.rmtree(path)
    os.mkdir(path, 0o700)


# ---- damage of a file ----

def _patch(path, offset, change):
    with open(path, "r+b") as file:
        file.seek(offset)
        data = file.read(BLOCK)
        file.seek(offset)
        file.write(change(data))


def flip(path, part):
    size = os.path.getsize(path)
    if size > 0:
        _patch(path, min(int(size * part), size - 1),
               lambda data: bytes([data[0] ^ 0x10]) + data[1:])


def clear_block(path, part):
    size = os.path.getsize(path)
    offset = int(size * part) // BLOCK * BLOCK
    if size > 0:
        _patch(path, offset, lambda data: bytes(len(data)))


def cut(path, keep):
    os.truncate(path, keep(os.path.getsize(path)))


FILE_DAMAGE = {
    "flipped early": lambda path, older: flip(path, 0.1),
    "flipped in the middle": lambda path, older: flip(path, 0.5),
    "flipped near the end": lambda path, older: flip(path, 0.98),
    "a block cleared": lambda path, older: clear_block(path, 0.5),
    "half cut": lambda path, older: cut(path, lambda size: size // 2),
    "20 bytes cut": lambda path, older: cut(path, lambda size: max(size - 20, 0)),
    "empty": lambda path, older: cut(path, lambda size: 0),
    "removed": lambda path, older: os.unlink(path),
    "older": lambda path, older: shutil.copyfile(older, path),
}

# Name in the table -> pattern of the file's name; where several match, the largest is damaged.
FILE_CLASSES = {
    "table": r"\d+\.sst$", "log": r"\d+\.log$", "MANIFEST": r"MANIFEST-\d+$",
    "CURRENT": r"CURRENT$", "OPTIONS": r"OPTIONS-\d+$", "IDENTITY": r"IDENTITY$",
    "LOCK": r"LOCK$", "BALLAST": r"BALLAST$",
}


def find_file(folder, pattern):
    """The largest file below the folder whose name matches; None: there is none."""
    found = [path for path in glob.glob(os.path.join(folder, "**"), recursive=True)
             if os.path.isfile(path) and re.match(pattern, os.path.basename(path))]
    return max(found, key=os.path.getsize, default=None)


# ---- damage of disks ----

def fill(path, offset, length):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * length)


def copy_range(source, path, offset, length):
    with open(source, "rb") as older, open(path, "r+b") as file:
        older.seek(offset)
        file.seek(offset)
        file.write(older.read(length))


def blocks_with(path, magic):
    """Where blocks begin with the magic."""
    found = []
    with open(path, "rb") as file:
        offset = 0
        while True:
            chunk = file.read(MIB)
            if not chunk:
                return found
            for at in range(0, len(chunk), BLOCK):
                if chunk[at:at + 8] == magic:
                    found.append(offset + at)
            offset += len(chunk)


def flip_blocks(path, magic, choose):
    for offset in choose(blocks_with(path, magic)):
        _patch(path, offset + 90, lambda data: bytes([data[0] ^ 1]) + data[1:])


def newest_middle(offsets):
    return offsets[len(offsets) // 2:len(offsets) // 2 + 1]


def everything(offsets):
    return offsets


class Base:
    """A machine at rest: state directory, volatile memory and disks, and what reads must return."""

    def __init__(self, matrix, name, is_killed):
        self.name = name
        self.is_killed = is_killed
        self.folder = matrix.env.path(f"base-{name}")
        os.mkdir(self.folder)
        self.places = dict(matrix.places)
        for path in matrix.parts():
            self._copy(path, os.path.join(self.folder, os.path.basename(path)))

    @staticmethod
    def _copy(source, target):
        if os.path.isdir(source):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=lambda folder, names: [
                name for name in names if name.endswith(".sock")])
        else:
            with open(source, "rb") as file, open(target, "wb") as copy: # sparse
                while chunk := file.read(MIB):
                    if chunk.count(0) == len(chunk):
                        copy.seek(len(chunk), os.SEEK_CUR)
                    else:
                        copy.write(chunk)
                copy.truncate()

    def restore(self, matrix):
        for path in matrix.parts():
            self._copy(os.path.join(self.folder, os.path.basename(path)), path)


class Matrix:
    """The daemon under test, its bases, and the rows."""

    def __init__(self, env):
        self.env = env
        self.disks = [env.file_disk(DISK_BYTES), env.file_disk(DISK_BYTES)]
        self.daemon = env.daemon()
        self.places = {}
        self.number = 0
        self.outcomes = {}

    def parts(self):
        return [self.daemon.state, self.daemon.volatile, *self.disks]

    # ---- making the bases ----

    def write_rounds(self):
        handle = volmgr_nbd.connect(self.daemon, "p/a")
        for _ in range(ROUNDS):
            self.number += 1
            for _ in range(6):
                place = self.env.random.randrange(VOLUME_BYTES // BLOCK) * BLOCK
                handle.pwrite(mark(self.number), place)
                self.places[place] = self.number
            discarded = self.env.random.choice(list(self.places))
            handle.trim(BLOCK, discarded)
            self.places[discarded] = 0
            handle.flush()
        volmgr_nbd.close(handle)

    def build(self):
        daemon = self.daemon
        daemon.volctl("pool", "create", "p", *self.disks, "--extent", "1M")
        daemon.make_volume("p/a", VOLUME_BYTES)
        self.write_rounds()
        daemon.stop()
        self.older = Base(self, "older", False)
        daemon.start()
        self.write_rounds()
        daemon.stop()
        self.clean = Base(self, "clean", False)
        daemon.start()
        self.write_rounds()
        daemon.kill()
        self.killed = Base(self, "killed", True)

    def older_path(self, path):
        """The same file, or the one of its class, at the older time."""
        for part in self.parts():
            if path == part or path.startswith(part + os.sep):
                base = os.path.join(self.older.folder, os.path.basename(part))
                same = base + path[len(part):]
                if os.path.exists(same):
                    return same
                pattern = next(pattern for pattern in FILE_CLASSES.values()
                               if re.match(pattern, os.path.basename(path)))
                return find_file(base, pattern)
        raise AssertionError(path)

    # ---- looking ----

    def verify(self, base):
        """"all" or what was refused; wrong data is a failure of the test."""
        try:
            handle = volmgr_nbd.connect(self.daemon, "p/a")
        except volmgr_nbd.nbd.Error:
            return "volume refused"
        errors = 0
        for place, number in base.places.items():
            try:
                data = bytes(handle.pread(BLOCK, place))
            except volmgr_nbd.nbd.Error:
                errors += 1
                continue
            check(data == mark(number), f"at {place}: {data[:8].hex()} instead of round {number}")
        volmgr_nbd.close(handle)
        return f"{errors} reads fail" if errors else "all"

    def pool_state(self):
        pools = self.daemon.volctl("pool", "list")["pools"]
        return (pools[0]["state"], pools[0].get("reason", "")) if pools else ("absent", "no pool")

    def look(self, base, arguments=()):
        """Start, and see what is served: (outcome, words)."""
        self.daemon.arguments = list(arguments)
        self.daemon.launch()
        wait_until(lambda: self.daemon.is_ready() or self.daemon.process.poll() is not None, 60,
                   "ready or ended", 0.005)
        if self.daemon.process.poll() is not None:
            with open(self.daemon.log, encoding="utf-8", errors="replace") as file:
                return "daemon refused", file.read().strip().splitlines()[-1]
        state, reason = self.pool_state()
        if state not in ("online", "degraded"):
            check(reason, f"the pool is {state} without a word")
            return "pool refused", reason
        return self.verify(base), reason

    def end(self):
        if self.daemon.process.poll() is None:
            self.daemon.process.kill()
            self.daemon.process.wait()

    def rebuild(self, base, is_lossless, was_open):
        """From the disks alone. A pool that was open and not closed: as after a kill."""
        self.end()
        empty_folder(self.daemon.state)
        empty_folder(self.daemon.volatile)
        self.daemon.arguments = ["--accept-loss"] if base.is_killed or was_open else []
        self.daemon.start()
        try:
            self.daemon.volctl("pool", "import", *self.disks, "--force")
        except CommandError as error:
            check(not is_lossless, f"the disks are whole and the import is refused: {error}")
            return "import refused"
        said = [event["text"] for event in self.daemon.volctl("events")["events"]
                if event["name"] == "pool-imported" and "is lost" in event["text"]]
        if said and not is_lossless:
            return f"forced import says: {said[0]}"
        outcome = self.verify(base)
        check(not is_lossless or outcome == "all", f"after the import: {outcome}")
        return f"import: {outcome}"

    def row(self, base, name, damage, disks_are_whole=True, must_refuse=False):
        """With must_refuse an import would bring back the older time, so it is not tried."""
        base.restore(self)
        if damage(self) is False:
            return False # nothing to damage
        outcome, words = self.look(base)
        rebuilt = ""
        if outcome != "all":
            if outcome == "volume refused" and base.is_killed:
                self.end()
                base.restore(self)
                damage(self)
                accepted, words = self.look(base, ["--accept-loss"])
                outcome += f", with --accept-loss {accepted}"
            if not must_refuse:
                rebuilt = self.rebuild(base, disks_are_whole, "refused" not in outcome)
        self.end()
        line = f"| {base.name} | {name} | {outcome} | {rebuilt} |"
        self.outcomes[line] = words
        self.env.say(line if not words else f"{line} {words[:150]}")
        return True

    # ---- the rows ----

    def file_rows(self, base):
        for class_name, pattern in FILE_CLASSES.items():
            for damage_name, damage in FILE_DAMAGE.items():
                def apply(matrix, pattern=pattern, damage=damage):
                    path = find_file(matrix.daemon.state, pattern)
                    if path is None:
                        return False
                    older = matrix.older_path(path)
                    if older is None:
                        return False
                    damage(path, older)
                    return True
                yield base, f"{class_name}: {damage_name}", apply, {}

    def directory_rows(self, base):
        def state_lost(matrix):
            empty_folder(matrix.daemon.state)

        def state_older(matrix):
            shutil.rmtree(matrix.daemon.state)
            shutil.copytree(os.path.join(matrix.older.folder,
                                         os.path.basename(matrix.daemon.state)),
                            matrix.daemon.state)

        def disks_older(matrix):
            for path in matrix.disks:
                Base._copy(os.path.join(matrix.older.folder, os.path.basename(path)), path)

        def one_disk_older(matrix):
            path = matrix.disks[1]
            Base._copy(os.path.join(matrix.older.folder, os.path.basename(path)), path)
        yield base, "state directory: lost", state_lost, {}
        yield base, "state directory: older", state_older, {}
        # The disks' data are older, too, which nothing but the host's own checks can see.
        yield base, "both disks older", disks_older, {"must_refuse": True}
        yield base, "one disk older", one_disk_older, {"must_refuse": True}

    def disk_rows(self, base):
        end = DISK_BYTES - LABEL_PLACE

        def on(count, change):
            def apply(matrix):
                for path in matrix.disks[:count]:
                    change(matrix, path)
            return apply

        def ledger_older(matrix, path):
            source = os.path.join(matrix.older.folder, os.path.basename(path))
            copy_range(source, path, LEDGER_START, 2 * MIB)
        one = {
            "first labels overwritten": lambda matrix, path: fill(path, 0, LABEL_PLACE),
            "last labels overwritten": lambda matrix, path: fill(path, end, LABEL_PLACE),
            "ledger: first header": lambda matrix, path: fill(path, LEDGER_START, BLOCK),
            "ledger: a record": lambda matrix, path: flip_blocks(path, b"VOLMGRLR", newest_middle),
            "ledger: every record":
                lambda matrix, path: flip_blocks(path, b"VOLMGRLR", everything),
            "ledger: overwritten": lambda matrix, path: fill(path, LEDGER_START, 2 * MIB),
            "ledger: older": ledger_older,
            "checkpoints: headers":
                lambda matrix, path: flip_blocks(path, b"VOLMGRCP", everything),
        }
        for name, change in one.items():
            yield base, f"{name}, one disk", on(1, change), {}
            options = {"disks_are_whole": False}
            if name == "ledger: older":
                options["must_refuse"] = True
            yield base, f"{name}, both disks", on(2, change), options
        for name in ("ledger: a record", "ledger: overwritten", "checkpoints: headers",
                     "first labels overwritten", "ledger: older"):
            def with_state_lost(matrix, change=one[name]):
                empty_folder(matrix.daemon.state)
                change(matrix, matrix.disks[0])
            yield base, f"{name}, one disk, and the state directory lost", with_state_lost, {}
            def with_both(matrix, change=one[name]):
                empty_folder(matrix.daemon.state)
                for path in matrix.disks:
                    change(matrix, path)
            if name != "ledger: older": # with nothing that could tell
                yield (base, f"{name}, both disks, and the state directory lost", with_both,
                       {"disks_are_whole": False})

    def ring_rows(self, base):
        for damage_name, damage in FILE_DAMAGE.items():
            def apply(matrix, damage=damage):
                path = find_file(matrix.daemon.volatile, r"volmgr-")
                if path is None:
                    return False
                damage(path, find_file(os.path.join(matrix.older.folder, os.path.basename(
                    matrix.daemon.volatile)), r"volmgr-") or os.devnull)
                return True
            yield base, f"volatile ring: {damage_name}", apply, {}

    def rows(self):
        for base in (self.clean, self.killed):
            yield from self.file_rows(base)
            yield from self.directory_rows(base)
            yield from self.disk_rows(base)
        yield from self.ring_rows(self.killed)


def chosen(matrix, env):
    rows = list(matrix.rows())
    if "--row" in sys.argv:
        text = sys.argv[sys.argv.index("--row") + 1]
        return [row for row in rows if text in f"{row[0].name} {row[1]}"]
    if not env.long and "--all" not in sys.argv:
        env.random.shuffle(rows)
    return rows


def test(env):
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}")
    matrix = Matrix(env)
    matrix.build()
    deadline = time.monotonic() + SHORT_S
    is_short = not env.long and len(sys.argv) == 1
    done = 0
    for base, name, damage, options in chosen(matrix, env):
        if is_short and time.monotonic() > deadline:
            break
        done += bool(matrix.row(base, name, damage, **options))
    check(done > 0, "no row")
    env.say(f"{done} rows")


run(test, limit_s=300 if len(sys.argv) == 1 else 3600)
