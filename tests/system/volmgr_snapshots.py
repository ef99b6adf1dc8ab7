# SPDX-License-Identifier: Apache-2.0
"""What the tests of snapshots share: oracles that can be frozen, and comparisons of space."""

import contextlib
import copy
import time

import volmgr_nbd
from volmgr_env import check, check_equal, wait_until


class Freezing:
    """An oracle while a snapshot of its volume is being taken.

    What had been acknowledged before the command was sent is in the snapshot; what was sent after
    its reply is not; everything else is as it was before or after. After the first comparison it
    is known exactly, for good.
    """

    def __init__(self, oracle):
        self.source = oracle
        self.frozen = volmgr_nbd.Oracle(oracle.volume_number, [])
        self.frozen.windows = []
        self.by_window = {}
        for window in oracle.windows:
            twin = volmgr_nbd.Window(window.offset, window.length)
            twin.image = bytearray(window.image)
            twin.doubts = {sector: list(items) for sector, items in window.doubts.items()}
            self.frozen.windows.append(twin)
            self.by_window[id(window)] = twin
            for operation in window.in_flight:
                self.note(operation)

    def note(self, operation):
        """An operation that may be in the snapshot or not."""
        if operation.kind == "read":
            return
        window = self.by_window[id(operation.window)]
        sector_bytes = volmgr_nbd.SECTOR_BYTES
        for index in range(operation.count):
            new = operation.data[index * sector_bytes:(index + 1) * sector_bytes]
            window.doubts.setdefault(operation.first + index, []).append(bytes(new))


class Oracle(volmgr_nbd.Oracle):
    """One that knows of snapshots that are being taken."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.freezing = []

    def begin(self, kind, window, first, count):
        operation = super().begin(kind, window, first, count)
        if operation is not None:
            for freezing in self.freezing:
                freezing.note(operation)
        return operation

    def freeze(self):
        """To be called before the command is sent; thaw() after its reply."""
        freezing = Freezing(self)
        self.freezing.append(freezing)
        return freezing

    def thaw(self, freezing):
        """The oracle of the snapshot."""
        self.freezing.remove(freezing)
        return freezing.frozen

    def become(self, frozen):
        """The volume was rolled back, or begins as what `frozen` knows."""
        for window, then in zip(self.windows, frozen.windows):
            check(not window.in_flight, "rolled back while written")
            window.image = bytearray(then.image)
            window.doubts = copy.deepcopy(then.doubts)


def clone_of(frozen, volume_number):
    """Oracle of a new volume that begins as a snapshot."""
    oracle = Oracle(volume_number, [(item.offset, item.length) for item in frozen.windows])
    oracle.become(frozen)
    return oracle


def verify_export(daemon, name, oracle):
    """Export, compare everything, take the export back."""
    daemon.volctl("export", name, "nbd")
    try:
        handle = volmgr_nbd.connect(daemon, name)
        oracle.verify_all(handle)
        volmgr_nbd.close(handle)
    finally:
        wait_detached(daemon, name)
        daemon.volctl("unexport", name)


def wait_detached(daemon, name):
    wait_until(lambda: not daemon.volctl("session", "list", name)["sessions"], 20,
               f"nobody is attached to {name}")


def snapshots(daemon, *scope):
    return {entry["snapshot"]: entry for entry in daemon.volctl("snapshots", *scope)["snapshots"]}


def wait_reclaimed(daemon, timeout_s=60):
    """No job is at work any more."""
    wait_until(lambda: all(job["finished"] for job in daemon.volctl("jobs")["jobs"]), timeout_s,
               "all jobs have ended", 0.05)


def used_bytes(daemon, pool="p"):
    return daemon.volctl("pool", "show", pool)["used_bytes"]


def delete_exactly(daemon, *arguments):
    """Delete what nobody writes to; it must free what the dry run says. Returns how much."""
    daemon.volctl("delete", *arguments, "--dry-run")  # which also commits what hosts changed last
    wait_reclaimed(daemon)
    time.sleep(0.1)
    before = used_bytes(daemon)
    promised = daemon.volctl("delete", *arguments, "--dry-run")
    check(promised["dry_run"], "a dry run says that it is one")
    check_equal(used_bytes(daemon), before, "space after the dry run")
    answer = daemon.volctl("delete", *arguments)
    check_equal(answer["unnamed_count"], promised["unnamed_count"], "snapshots without a name")
    wait_reclaimed(daemon)
    with contextlib.suppress(AssertionError):  # told below with more
        wait_until(lambda: used_bytes(daemon) == before - promised["freed_bytes"], 5, "space")
    check_equal(before - used_bytes(daemon), promised["freed_bytes"],
                f"space that deleting {' '.join(arguments)} has freed")
    return promised["freed_bytes"]
