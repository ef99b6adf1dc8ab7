#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""volmgrd --check and --dump on what the real daemon has left.

Usage: offline_test.py VOLMGRD VOLCTL [unittest arguments]
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

DAEMON = os.path.abspath(sys.argv[1])
VOLCTL = os.path.abspath(sys.argv[2])


class Offline(unittest.TestCase):
    def setUp(self):
        # Not on tmpfs: a database and disks belong on a disk.
        self.scratch = tempfile.mkdtemp(prefix="volmgr-test-", dir="/var/tmp")
        self.volatile = tempfile.mkdtemp(prefix="volmgr-test-", dir="/dev/shm")
        self.state = os.path.join(self.scratch, "state")
        self.config = os.path.join(self.scratch, "volmgrd.conf")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write("[daemon]\nlock_memory = no\nreactors = 1\nspin_us = 0\n"
                       f"volatile_directory = {self.volatile}\n[pool]\nballast = 0\n")
        self.options = ["--state", self.state, "--config", self.config]
        self.disks = [os.path.join(self.scratch, f"disk{number}") for number in range(2)]

    def tearDown(self):
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.volatile, ignore_errors=True)

    def serve(self, *commands, number=signal.SIGTERM):
        """Run the daemon for some commands of volctl."""
        with subprocess.Popen([DAEMON, *self.options], stdout=subprocess.PIPE, text=True) as daemon:
            try:
                self.assertEqual(daemon.stdout.readline(), "ready\n")
                for command in commands:
                    subprocess.run([VOLCTL, "-s", self.state + "/volmgrd.sock", *command],
                                   check=True, stdout=subprocess.DEVNULL)
            finally:
                daemon.send_signal(number)
                daemon.wait(60)

    def look(self, status, *options):
        done = subprocess.run([DAEMON, *self.options, *options], capture_output=True, text=True,
                              check=False, timeout=60)
        self.assertEqual(done.returncode, status, (options, done.stdout, done.stderr))
        return done.stdout

    def make(self, **more):
        self.serve(["pool", "create", "fast", *(f"file:{disk}?size=256M" for disk in self.disks)],
                   ["create", "fast/vm1", "--size", "1G"],
                   ["create", "fast/vm2", "--size", "2G"],
                   ["export", "fast/vm1", "nbd"], **more)

    def test_good_state_is_clean(self):
        self.make()
        before = self.look(0, "--dump", "--pool", "fast")
        self.assertRegex(self.look(0, "--check"), r"\Afast: 0 errors, 0 warnings; commit \d+, ")
        self.assertEqual(self.look(0, "--dump", "--pool", "fast"), before)  # nothing was written
        records = [json.loads(line) for line in before.splitlines()]
        self.assertEqual({record["name"] for record in records if record["type"] == "volume"},
                         {"vm1", "vm2"})
        self.serve(["show", "fast/vm2"])

    def test_killed_state_is_clean(self):
        self.make(number=signal.SIGKILL)
        self.assertIn("fast: 0 errors", self.look(0, "--check"))
        self.serve(["show", "fast/vm2"])

    def test_lost_label_is_an_error(self):
        self.make()
        with open(self.disks[1], "r+b") as disk:
            disk.write(bytes(1 << 16))
            disk.seek(-(1 << 16), os.SEEK_END)
            disk.write(bytes(1 << 16))
        out = self.look(1, "--check")
        self.assertIn("error: label-missing: disk 1 has no label of a pool\n", out)
        self.assertIn("fast: 1 errors", out)

    def test_absent_disk_is_told(self):
        self.make()
        os.unlink(self.disks[1])
        out = self.look(0, "--check")
        self.assertIn("fast: note: disk 1 was not looked at: ", out)
        self.assertIn("fast: 0 errors", out)
        self.assertFalse(os.path.exists(self.disks[1]))

    def test_damaged_database_is_an_error(self):
        self.make()
        database = os.path.join(self.state, "pools/fast/db")
        damaged = 0
        for name in os.listdir(database):
            if name.startswith("MANIFEST"):
                with open(os.path.join(database, name), "r+b") as file:
                    file.write(b"\xff" * 64)
                damaged += 1
        self.assertEqual(damaged, 1)
        self.assertIn("error: pool fast cannot be checked", self.look(1, "--check"))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
