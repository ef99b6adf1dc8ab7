#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon's life, the API over real HTTP, and volctl, around a manager in memory.

Usage: api_test.py FAKE_VOLMGRD VOLCTL [unittest arguments]
"""
import glob
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

DAEMON = os.path.abspath(sys.argv[1])
VOLCTL = os.path.abspath(sys.argv[2])
DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../docs/api.md")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    """One fake volmgrd with a state directory of its own."""

    def __init__(self, *options, state=None, environment=None, config=None):
        self.scratch = tempfile.mkdtemp(prefix="volmgr-test-", dir="/dev/shm")
        self.state = state or os.path.join(self.scratch, "state")
        self.socket = os.path.join(self.state, "volmgrd.sock")
        self.config = os.path.join(self.scratch, "volmgrd.conf")
        with open(self.config, "w", encoding="utf-8") as file:
            # The test must not fill the memory that can be locked, nor all CPUs.
            file.write("[daemon]\nlock_memory = no\nreactors = 1\nspin_us = 0\n"
                       f"volatile_directory = {self.scratch}\n{config or ''}")
        self.errors = open(os.path.join(self.scratch, "errors"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [DAEMON, "--state", self.state, "--config", self.config, *options],
            stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env={**os.environ, **(environment or {})})

    def ready(self):
        line = self.process.stdout.readline()
        if line != "ready\n":
            self.process.wait()
            raise AssertionError(f"not ready: {line!r} {self.log()}")
        return self

    def log(self):
        self.errors.flush()
        with open(self.errors.name, encoding="utf-8") as file:
            return file.read()

    def call(self, method, path, body=None, raw=None):
        connection = UnixConnection(self.socket)
        try:
            text = raw if raw is not None else json.dumps(body) if body is not None else None
            connection.request(method, path, text)
            answer = connection.getresponse()
            content = answer.read()
            if answer.headers.get("Content-Type") == "application/json":
                return answer.status, json.loads(content)
            return answer.status, content.decode()
        finally:
            connection.close()

    def volctl(self, *words, environment=None):
        done = subprocess.run([VOLCTL, *words], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "VOLCTL_SOCKET": self.socket,
                                   **(environment or {})}, check=False)
        return done.returncode, done.stdout, done.stderr

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.stdout.close()

    def remove(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Shapes:
    """The reply shapes, as docs/api.md describes them."""

    TYPES = {"name": str, "volume": str, "string": str, "choice": str, "tier": str, "time": str,
             "snapshot": str, "view": str, "duration": int,
             "size": int, "number": int, "bool": bool, "object": dict, "list": list,
             "strings": list}

    def __init__(self):
        self.shapes = {}
        self.commands = {}
        name = None
        with open(DOCUMENT, encoding="utf-8") as file:
            replies = False
            for line in file:
                replies |= line.startswith("## Replies")
                if line.startswith("### "):
                    name = line[4:].strip()
                    (self.shapes if replies else self.commands)[name] = {}
                row = re.match(r"\| `(\w+)` \| (\w+)(?: of \[(\w+)\]\S*)?( or nothing)? \|", line)
                if replies and row:
                    self.shapes[name][row[1]] = (row[2], row[3], row[4] is not None)

    def check(self, shape, value, where=""):
        fields = self.shapes[shape]
        for key in value:
            if key not in fields:
                raise AssertionError(f"{where}{shape}.{key} is not documented")
        for key, (kind, inner, optional) in fields.items():
            at = f"{where}{shape}.{key}"
            if value.get(key) is None:
                if not optional:
                    raise AssertionError(f"{at} is missing")
                continue
            if type(value[key]) is not self.TYPES[kind]:
                raise AssertionError(f"{at} is {type(value[key])}, not {kind}")
            if kind == "list":
                for item in value[key]:
                    self.check(inner, item, at + ": ")
            if kind == "object":
                self.check(inner, value[key], at + ": ")


class WithDaemon(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.options).ready()
        cls.shapes = Shapes()

    @classmethod
    def tearDownClass(cls):
        status = cls.daemon.stop()
        log = cls.daemon.log()
        cls.daemon.remove()
        if status != 0:
            raise AssertionError(f"exit status {status}: {log}")

    def good(self, method, path, body=None, status=200):
        got, answer = self.daemon.call(method, path, body)
        self.assertEqual(got, status, answer)
        return answer

    def bad(self, status, code, why, method, path, body=None, raw=None):
        got, answer = self.daemon.call(method, path, body, raw)
        self.assertEqual(got, status, answer)
        self.shapes.check("error", answer)
        self.assertEqual(answer["code"], code)
        self.assertIn(why, answer["why"])
        return answer

    def run_volctl(self, status, *words):
        got, out, errors = self.daemon.volctl(*words)
        self.assertEqual(got, status, (words, out, errors))
        return out if status == 0 else errors


class Api(WithDaemon):
    """Plain HTTP."""

    def test_replies_have_their_shapes(self):
        check = self.shapes.check
        check("pool", self.good("POST", "/v1/pools", {
            "pool": "shapes", "disks": [{"disk": "mem:1G"}, {"disk": "/b", "tier": 2}]}, 201))
        check("pool", self.good("POST", "/v1/pools/shapes/disks", {"disks": [{"disk": "/c"}]}))
        check("pool", self.good("POST", "/v1/import", {"disks": [{"disk": "/d"}]}, 201))
        for pool in self.good("GET", "/v1/pools")["pools"]:
            check("pool", pool)
        check("pool", self.good("GET", "/v1/pools/shapes"))
        check("deleted", self.good("DELETE", "/v1/pools/imported"))
        self.bad(404, "ENOENT", "no such pool", "DELETE", "/v1/pools/imported?force=true")
        disks = self.good("GET", "/v1/disks?pool=shapes")["disks"]
        self.assertEqual([disk["disk"] for disk in disks], ["mem:1G", "/b", "/c"])
        check("disk", disks[0])
        self.assertEqual(self.good("GET", "/v1/disk?pool=shapes&disk=1")["disk"], "/b")
        self.assertEqual(self.good("GET", "/v1/disk?pool=shapes&disk=%2Fc")["index"], 2)
        volume = self.good("POST", "/v1/volumes", {"volume": "shapes/a", "size_bytes": 1 << 30,
                                                   "tier": "3", "sector_bytes": 4096}, 201)
        check("volume", volume)
        self.assertEqual((volume["tier"], volume["sector_bytes"]), ("3", 4096))
        for item in self.good("GET", "/v1/volumes?pool=shapes")["volumes"]:
            check("volume", item)
        check("volume", self.good("POST", "/v1/volumes/shapes/a/resize", {"size_bytes": 2 << 30}))
        check("volume", self.good("POST", "/v1/volumes/shapes/a/reserve", {"reserve_bytes": 0}))
        renamed = self.good("POST", "/v1/volumes/shapes/a/rename", {"new_name": "b"})
        self.assertEqual(renamed["volume"], "shapes/b")
        self.assertEqual(renamed["size_bytes"], 2 << 30)
        export = self.good("POST", "/v1/exports", {"volume": "shapes/b", "protocol": "nbd"}, 201)
        check("export", export)
        self.assertEqual(export["name"], "shapes/b")
        named = self.good("POST", "/v1/exports", {"volume": "shapes/b", "protocol": "nbd",
                                                  "name": "other", "read_only": True}, 201)
        self.assertEqual((named["name"], named["read_only"]), ("other", True))
        self.assertEqual((named["tls"], named["hosts"], named["default"]), ("allowed", [], False))
        ruled = self.good("POST", "/v1/exports", {
            "volume": "shapes/b", "protocol": "nbd", "name": "ruled", "default": True,
            "hosts": ["10.0.0.0/8", "::ffff:192.0.2.7", "local", "web 1", "tls:10.0.0.1",
                      "10.0.0.0/8"]}, 201)
        check("export", ruled)
        self.assertEqual(ruled["hosts"], ["10.0.0.0/8", "192.0.2.7", "local", "tls:web 1",
                                          "tls:10.0.0.1"])
        self.assertEqual(ruled["default"], True)
        check("export", self.good("GET", "/v1/exports?protocol=nbd")["exports"][0])
        check("session", self.good("GET", "/v1/sessions?volume=shapes/b")["sessions"][0])
        self.assertEqual(self.good("GET", "/v1/sessions?volume=shapes/none")["sessions"], [])
        check("dropped", self.good("POST", "/v1/sessions/drop", {"session": "1"}))
        check("dropped", self.good("POST", "/v1/sessions/drop", {"session": "192.0.2.7",
                                                                 "block": True}))
        check("block", self.good("GET", "/v1/blocks")["blocks"][0])
        self.good("POST", "/v1/volumes", {"volume": "shapes/fenced", "size_bytes": 512}, 201)
        accept = "/v1/volumes/shapes/fenced/accept-loss"
        self.bad(400, "EINVAL", "lost for good", "POST", accept, {})
        accepted = self.good("POST", accept, {"yes": True})
        check("volume", accepted)
        self.assertEqual(accepted["fenced"], False)
        self.bad(409, "EALREADY", "no such loss", "POST", accept, {"yes": True})
        check("deleted", self.good("DELETE", "/v1/exports/shapes/b?force=true"))
        deleted = self.good("DELETE", "/v1/volumes/shapes/b")
        check("deleted", deleted)
        self.assertEqual(deleted["job"]["subject"], "shapes/b")
        check("job", self.good("GET", "/v1/jobs")["jobs"][0])
        check("event", self.good("GET", "/v1/events")["events"][0])
        check("check", self.good("POST", "/v1/check", {"pool": "shapes"})["checks"][0])
        check("check", self.good("GET", "/v1/checks?pool=shapes")["checks"][0])
        self.assertEqual(self.good("GET", "/v1/checks?pool=none")["checks"], [])
        status = self.good("GET", "/v1/status")
        check("status", status)
        self.assertEqual(status["listeners"][0]["address"],
                         f"unix:{self.daemon.state}/nbd.sock")

    def test_errors_have_a_status(self):
        self.bad(404, "ENOENT", "no such path", "GET", "/v1/nonsense")
        self.bad(405, "EPERM", "method", "DELETE", "/v1/pools")
        self.bad(404, "ENOENT", "no such pool", "GET", "/v1/pools/none")
        self.bad(404, "ENOENT", "no such volume", "GET", "/v1/volumes/none/none")
        self.bad(400, "EINVAL", "POOL/VOLUME", "GET", "/v1/volumes/none")
        self.bad(400, "EINVAL", "no query field", "GET", "/v1/pools?poool=1")
        self.bad(400, "EINVAL", "no query field", "POST", "/v1/pools?pool=1", {})
        self.bad(400, "EINVAL", "not JSON", "POST", "/v1/pools", raw="{")
        self.bad(400, "EINVAL", "not JSON", "POST", "/v1/pools", raw=b"\xff\xfe")
        self.bad(400, "EINVAL", "power of two", "POST", "/v1/pools", {
            "pool": "odd", "extent_bytes": 3 << 20, "disks": [{"disk": "/x"}]})
        self.bad(409, "EBUSY", "holds a file system", "POST", "/v1/pools", {
            "pool": "held", "disks": [{"disk": "/held"}]})
        self.bad(404, "ENOENT", "no session 0", "POST", "/v1/sessions/drop", {"session": "0"})
        self.bad(400, "EINVAL", "exclude", "POST", "/v1/sessions/drop", {
            "session": "x", "block": True, "unblock": True})
        self.bad(400, "EINVAL", "given twice", "GET", "/v1/events?after=1&after=2")
        self.bad(400, "ERANGE", "0 to 60", "GET", "/v1/events?wait_seconds=61")

    def test_rules_of_exports_are_checked(self):
        self.good("POST", "/v1/pools", {"pool": "rules", "disks": [{"disk": "/r"}]}, 201)
        self.good("POST", "/v1/volumes", {"volume": "rules/v", "size_bytes": 1 << 30}, 201)

        def refused(why, code="EINVAL", status=400, **fields):
            self.bad(status, code, why, "POST", "/v1/exports",
                     {"volume": "rules/v", "protocol": "nbd", **fields})
        refused("not an address", hosts=["10.0.0/8"])
        refused("not an address", hosts=["2001:db8:::1"])
        refused("behind the first 8", hosts=["10.1.0.0/8"])
        refused("0 to 32", hosts=["10.0.0.0/33"])
        refused("1 to 127", hosts=["tls:"])
        refused("list of text", hosts=["10.0.0.0/8", 7])
        refused("list of text", hosts="10.0.0.0/8")
        refused("control characters", hosts=["tls:a\nb"])
        refused("must be one of", tls="maybe")
        refused("name a network", "E2BIG", 413, hosts=[f"10.0.0.{n}" for n in range(17)])
        refused("more than 64", "E2BIG", 400, hosts=[f"10.0.0.{n}" for n in range(65)])
        refused("too long together", "E2BIG", 413, hosts=["tls:" + c * 120 for c in "abcde"])

    def test_no_space_says_what_to_do(self):
        self.good("POST", "/v1/pools", {"pool": "space", "disks": [{"disk": "/s"}]}, 201)
        answer = self.bad(507, "ENOSPC", "reserve", "POST", "/v1/volumes",
                          {"volume": "space/full", "size_bytes": 1 << 30})
        self.assertEqual(answer["error"], "cannot create volume space/full")
        self.assertIn("pool add", answer["what_to_do"])

    def test_long_bodies_are_refused(self):
        self.bad(413, "E2BIG", "longer than 1048576", "POST", "/v1/pools", raw=" " * (1 << 20) +
                 "x")
        # and the connection that sent one does no harm to the next
        self.good("GET", "/v1/status")

    def test_slow_calls_do_not_stop_others(self):
        self.good("POST", "/v1/pools", {"pool": "slow", "disks": [{"disk": "/t"}]}, 201)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.daemon.call(
            "POST", "/v1/volumes", {"volume": "slow/slow", "size_bytes": 1 << 30})))
        before = time.monotonic()
        thread.start()
        while not answers:
            self.good("GET", "/v1/status")
        thread.join()
        self.assertGreater(time.monotonic() - before, 0.29)
        self.assertEqual(answers[0][0], 201)

    def test_many_at_once(self):
        failures = []

        def worker():
            for _ in range(50):
                status, _ = self.daemon.call("GET", "/v1/volumes")
                if status != 200:
                    failures.append(status)

        threads = [threading.Thread(target=worker) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_events_are_waited_for(self):
        last = max([0] + [event["sequence"] for event in
                          self.good("GET", "/v1/events")["events"]])
        before = time.monotonic()
        self.assertEqual(self.good("GET", f"/v1/events?after={last}&wait_seconds=1"),
                         {"events": []})
        self.assertGreater(time.monotonic() - before, 0.9)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.daemon.call(
            "GET", f"/v1/events?after={last}&wait_seconds=20")))
        thread.start()
        time.sleep(0.8)  # longer than one slice of waiting
        self.good("POST", "/v1/pools", {"pool": "event", "disks": [{"disk": "/e"}]}, 201)
        thread.join(5)
        self.assertFalse(thread.is_alive())
        self.assertEqual(answers[0][1]["events"][0]["subject"], "event")

    def test_followers_leave_room_for_others(self):
        followers = []
        try:
            for _ in range(40):  # of 64 connections
                follower = socket.socket(socket.AF_UNIX)
                follower.connect(self.daemon.socket)
                follower.sendall(b"GET /v1/events?after=999999&wait_seconds=3 HTTP/1.1\r\n"
                                 b"Host: x\r\n\r\n")
                followers.append(follower)
            time.sleep(0.3)
            self.good("GET", "/v1/status")
            before = time.monotonic()
            self.good("GET", "/v1/events?after=999999&wait_seconds=3")
            self.assertLess(time.monotonic() - before, 1.5)
        finally:
            for follower in followers:
                follower.close()
        time.sleep(3)  # they are no longer counted
        before = time.monotonic()
        self.good("GET", "/v1/events?after=999999&wait_seconds=1")
        self.assertGreater(time.monotonic() - before, 0.9)

    def test_client_that_leaves_does_no_harm(self):
        for text in (b"", b"GET", b"GET /v1/status HTTP/1.1\r\n", b"\0\0\0\0",
                     b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
                     b"GET /v1/events?after=999&wait_seconds=1 HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.daemon.socket)
                client.sendall(text)
        time.sleep(1.2)
        self.good("GET", "/v1/status")

    def test_metrics_are_prometheus(self):
        self.good("POST", "/v1/pools", {"pool": "metric", "disks": [{"disk": "/a\"b\\c"}]}, 201)
        self.good("POST", "/v1/volumes", {"volume": "metric/v", "size_bytes": 1 << 30}, 201)
        status, text = self.daemon.call("GET", "/v1/metrics")
        self.assertEqual(status, 200)
        types = {}
        self.assertIn('volmgr_request_seconds_bucket{pool="metric",operation="read",'
                      'le="0.000008192"} 0\n', text)
        for line in text.splitlines():
            if line.startswith("volmgr_request_seconds"):
                self.assertEqual(types["volmgr_request_seconds"], "histogram")
            elif line.startswith("# TYPE "):
                self.assertNotIn(line.split()[2], types, "a family stands together")
                types[line.split()[2]] = line.split()[3]
            elif not line.startswith("#"):
                match = re.fullmatch(
                    r'(\w+)(\{(?:\w+="(?:[^"\\]|\\.)*",?)*\})? (\d+(?:\.\d+)?)', line)
                self.assertIsNotNone(match, line)
                self.assertIn(match[1], types, line)
                self.assertEqual(match[1].endswith("_total"), types[match[1]] == "counter", line)
        self.assertIn('volmgr_volume_size_bytes{volume="metric/v"} 1073741824', text)
        self.assertIn('disk="/a\\"b\\\\c"', text)
        self.assertIn("volmgr_nbd_requests_total 42", text)

    def test_socket_is_not_for_everybody(self):
        self.assertEqual(os.stat(self.daemon.socket).st_mode & 0o777, 0o660)

    def test_changes_are_noted(self):
        self.good("POST", "/v1/pools", {"pool": "noted", "disks": [{"disk": "/n"}]}, 201)
        self.bad(409, "EEXIST", "already", "POST", "/v1/pools",
                 {"pool": "noted", "disks": [{"disk": "/n"}]})
        log = self.daemon.log()
        self.assertIn(f"uid {os.getuid()} pid {os.getpid()}: create pool noted: done", log)
        self.assertIn("create pool noted: there is a pool of that name already", log)

    def test_two_daemons_do_not_share_a_state(self):
        second = Daemon(state=self.daemon.state)
        try:
            self.assertEqual(second.process.wait(20), 1)
            self.assertIn(f"in use by another volmgrd, process {self.daemon.process.pid}",
                          second.log())
        finally:
            second.remove()
        self.good("GET", "/v1/status")

    def test_reload_is_survived(self):
        self.daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while "the TLS files were not read again" not in self.daemon.log():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        self.good("GET", "/v1/status")


class Volctl(WithDaemon):
    """The command line, in the order in which an administrator would use it."""

    options = ("--nbd", "192.0.2.1:10809", "--nbd", "[::]:10810")

    def test_a_day(self):
        run = self.run_volctl
        self.assertEqual(run(0, "list"), "no volumes\n")
        self.assertEqual(run(0, "pool", "create", "fast", "/a", "b.img,tier=1", "file:c?size=1G",
                             "--extent", "8M"), "pool fast created\n")
        disks = json.loads(run(0, "disk", "list", "--json"))["disks"]
        here = os.getcwd()
        self.assertEqual([(disk["disk"], disk["tier"]) for disk in disks],
                         [("/a", 0), (f"{here}/b.img", 1), (f"file:{here}/c?size=1G", 0)])
        self.assertIn("Extent:       8 MiB\n", run(0, "pool", "show", "fast"))
        self.assertEqual(run(0, "create", "fast/vm1", "--size", "10G"),
                         "volume fast/vm1 created\n")
        self.assertEqual(run(0, "create", "--size=1.5T", "--tier", "1", "--", "fast/vm2"),
                         "volume fast/vm2 created\n")
        self.assertEqual(
            run(0, "list", "fast"),
            "VOLUME        SIZE  MAPPED  SNAPSHOTS  RESERVE  TIER  EXPORTS  SESSIONS  PROBLEM\n"
            "fast/vm1    10 GiB     0 B          0      0 B  auto        0         0  -\n"
            "fast/vm2  1.50 TiB     0 B          0      0 B  1           0         0  -\n")
        self.assertEqual(run(0, "resize", "fast/vm1", "20G"), "volume fast/vm1 resized\n")
        self.assertEqual(run(0, "reserve", "fast/vm1", "0"), "reserve of volume fast/vm1 set\n")
        self.assertIn("Size:             20 GiB\n", run(0, "show", "fast/vm1"))
        errors = run(1, "resize", "fast/vm1", "1G")
        self.assertEqual(errors, "volctl: cannot resize volume fast/vm1\n"
                                 "  why: the tail holds data\n")
        self.assertEqual(run(0, "rename", "fast/vm2", "fast/vm3"),
                         "volume fast/vm2 renamed to vm3\n")
        self.assertIn("NEW-NAME must be", run(2, "rename", "fast/vm3", "slow/vm3"))
        self.assertIn("is not exported", run(1, "attach", "fast/vm1"))
        self.assertIn('"volctl attach fast/vm1"', run(0, "export", "fast/vm1", "nbd"))
        self.attach()
        self.assertIn("what to do:", run(1, "delete", "fast/vm1"))
        self.assertIn("hosts are attached", run(1, "unexport", "fast/vm1"))
        self.assertIn("192.0.2.7", run(0, "session", "list"))
        self.assertEqual(run(0, "session", "drop", "192.0.2.7", "--block"),
                         "Dropped:  1\nBlocked:  yes\n")
        self.assertIn("192.0.2.7  web1", run(0, "session", "blocks"))
        run(0, "unexport", "fast/vm1", "nbd", "--force")
        before = time.monotonic()
        self.assertEqual(run(0, "delete", "fast/vm1", "--wait"), "volume fast/vm1 deleted\n")
        self.assertGreater(time.monotonic() - before, 0.4)  # the job needed three looks
        self.assertIn("yes", run(0, "jobs", "1"))
        self.assertIn("pool-created", run(0, "events"))
        self.assertIn("Health:           ok\n", run(0, "status"))
        self.assertIn("fast/vm3", run(0, "top", "--once"))
        rates = json.loads(run(0, "top", "--once", "--json"))["volumes"][0]
        self.assertGreater(rates["writes_per_second"], 0)
        self.assertIn("volmgr_exports 0\n", run(0, "metrics"))
        run(0, "pool", "create", "broken", "/z")
        self.assertIn("fast: 0 errors, 0 warnings; commit 7, 11 records", run(0, "check", "fast"))
        self.assertEqual(self.daemon.volctl("check", "--json")[0], 1)
        code, out, errors = self.daemon.volctl("check")
        self.assertEqual((code, errors), (1, ""))
        self.assertIn("error: grain-twice: two volumes have it\n", out)
        self.assertIn("warning: grain-leaked: nobody has it\n... and 200 more\n"
                      "broken: 201 errors, 1 warnings;", out)
        self.assertIn("begun", run(0, "check", "broken", "--background"))
        self.assertIn("broken", run(0, "checks"))
        self.assertIn("no such pool", run(1, "check", "none"))
        self.assertIn("iSCSI", run(1, "attach", "fast/vm3", "--for", "iscsiadm"))
        status = run(0, "status")
        self.assertIn("Health:           warning\n", status)
        self.assertIn("pool broken is degraded: disk 0 is missing\n", status)

    def attach(self):
        answer = json.loads(self.run_volctl(0, "attach", "fast/vm1", "--json"))["attach"]
        self.assertEqual({item["client"] for item in answer},
                         {"qemu", "libvirt", "nbd-client", "proxmox", "qemu-img", "nbdinfo"})
        addresses = {item["address"] for item in answer}
        self.assertEqual(len(addresses), 3)
        text = self.run_volctl(0, "attach", "fast/vm1", "--for", "qemu", "--host", "san.example")
        self.assertIn("server.type=unix,server.path=" + self.daemon.state, text)
        self.assertIn("server.host=192.0.2.1,server.port=10809,export=fast/vm1", text)
        self.assertIn("server.host=san.example,server.port=10810", text)
        text = self.run_volctl(0, "attach", "fast/vm1", "--for=nbdinfo")
        self.assertIn("nbd://192.0.2.1:10809/fast/vm1", text)
        self.assertIn(f"nbd+unix:///fast/vm1?socket={self.daemon.state}/nbd.sock", text)

    def test_usage_errors_are_2(self):
        for words, message in (
                (("lsit",), 'did you mean "list"?'),
                (("pool", "craete"), 'did you mean "pool create"?'),
                (("pool",), "needs one more word"),
                (("pool", "zzz"), "there is no command"),
                (("xyzzy",), "there is no command"),
                (("create",), "POOL/VOLUME is missing"),
                (("create", "fast/v"), "--size is missing"),
                (("create", "fast", "--size", "1G"), "POOL/VOLUME"),
                (("create", "fast/v", "--size"), "needs a value"),
                (("create", "fast/v", "--size", "10Q"), "is not a size"),
                (("create", "fast/v", "--sice", "1G"), "did you mean --size?"),
                (("create", "fast/v", "--size", "1G", "x"), "one argument too many"),
                (("create", "fast/v", "--size", "1G", "--sector", "520"), "one of: 512, 4096"),
                (("export", "fast/v", "smb"), "one of: nbd"),
                (("status", "-x"), "there is no option -x"),
                (("status", "--timeout", "0"), "is not a number of seconds"),
                (("status", "--json=yes"), "takes no value"),
                (("attach", "fast/v", "--for", "vmware"), "one of: qemu"),
                (("completion", "tcsh"), "name of a shell"),
                (("help", "nonsense"), "there is no command"),
                ((), "Usage: volctl"),
                (("-s",), "needs the path"),
        ):
            self.assertIn(message, self.run_volctl(2, *words), words)

    def test_no_daemon_is_1(self):
        status, _, errors = self.daemon.volctl("status", "-s", "/nonexistent/sock")
        self.assertEqual(status, 1)
        self.assertIn("cannot show the status: no answer from the daemon\n"
                      "  why: /nonexistent/sock: No such file or directory\n"
                      "  what to do: Is volmgrd running?", errors)
        status, out, errors = self.daemon.volctl("--json", "--socket=/nonexistent/sock", "list")
        self.assertEqual((status, errors), (1, ""))
        Shapes().check("error", json.loads(out))
        long = "/" + "a" * 200
        self.assertIn("too long", self.daemon.volctl("list", "-s", long)[2])

    def test_proxies_do_not_come_between(self):
        status, _, errors = self.daemon.volctl(
            "status", environment={"http_proxy": "http://192.0.2.9:3128"})
        self.assertEqual((status, errors), (0, ""))

    def test_errors_are_json_when_asked(self):
        status, out, errors = self.daemon.volctl("show", "no/no", "--json")
        self.assertEqual((status, errors), (1, ""))
        self.assertEqual(json.loads(out)["code"], "ENOENT")

    def test_odd_servers_are_refused(self):
        """What answers is not a volmgrd, or goes away, or sends controls for the terminal."""
        path = os.path.join(self.daemon.scratch, "odd.sock")
        answers = [b"", b"\0\1\2", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[1]x",
                   b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
                   b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"]

        def serve(listener):
            for answer in answers:
                listener.accept()[0].close()  # the first connection only looks who is there
                client = listener.accept()[0]
                client.recv(4096)
                client.sendall(answer)
                client.close()
            body = json.dumps({"volumes": [{"volume": "\x1b[2Jx", "size_bytes": -1,
                                            "problem": {}}, 7]}).encode()
            listener.accept()[0].close()
            client = listener.accept()[0]
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            client.close()

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            thread = threading.Thread(target=serve, args=(listener,))
            thread.start()
            for _ in answers:
                self.assertEqual(self.daemon.volctl("list", "-s", path)[0], 1)
            status, out, _ = self.daemon.volctl("list", "-s", path)
            thread.join()
        self.assertEqual(status, 0)
        self.assertIn("?[2Jx", out)

    def test_timeout_ends_the_wait(self):
        self.run_volctl(0, "pool", "create", "timeout", "/t")
        status, _, errors = self.daemon.volctl("create", "timeout/slow", "--size", "1G",
                                               "--timeout", "1")
        self.assertEqual(status, 0, errors)  # 300 ms are enough
        with socket.socket(socket.AF_UNIX) as silent:
            path = os.path.join(self.daemon.scratch, "silent.sock")
            silent.bind(path)
            silent.listen()
            status, _, errors = self.daemon.volctl("status", "-s", path, "--timeout", "1")
            self.assertEqual(status, 1)
            self.assertIn("may still be carried out", errors)

    def test_events_are_followed(self):
        with subprocess.Popen([VOLCTL, "events", "--follow", "--json", "-s", self.daemon.socket],
                              stdout=subprocess.PIPE, text=True) as follower:
            time.sleep(0.3)
            self.run_volctl(0, "pool", "create", "followed", "/f")
            try:
                for line in follower.stdout:
                    if json.loads(line)["subject"] == "followed":
                        break
                else:
                    self.fail("the event did not come")
            finally:
                follower.kill()

    def test_help_tells_of_every_command(self):
        commands = re.findall(r"^  ((?:pool |disk |session )?[a-z]+) {2,}",
                              self.run_volctl(0, "--help"), re.M)
        self.assertGreater(len(commands), 24)
        for command in commands:
            text = self.run_volctl(0, "help", *command.split())
            if command != "help":
                self.assertIn(f"Usage: volctl {command}", text)
                self.assertEqual(text, self.run_volctl(0, *command.split(), "--help"))
        self.assertRegex(self.run_volctl(0, "--version"), r"^volctl \d+\.\d+\.\d+\n$")

    def test_document_is_current(self):
        with open(DOCUMENT, encoding="utf-8") as file:
            written = file.read()
        self.assertEqual(self.run_volctl(0, "--generate-api-document"), written,
                         "write docs/api.md again: volctl --generate-api-document")

    def test_manual_pages_are_clean(self):
        pages = {"volctl.1": self.run_volctl(0, "--generate-man"),
                 "volmgrd.8": subprocess.run([DAEMON, "--generate-man"], capture_output=True,
                                             text=True, check=True).stdout}
        for name, text in pages.items():
            path = os.path.join(self.daemon.scratch, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            done = subprocess.run(["man", "--warnings", "-l", path], capture_output=True, text=True,
                                  env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
                                  check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)
            self.assertIn("SYNOPSIS", done.stdout)

    def complete(self, *words):
        """What bash would offer for the last of these words."""
        script = os.path.join(self.daemon.scratch, "completion.bash")
        with open(script, "w", encoding="utf-8") as file:
            file.write(self.run_volctl(0, "completion", "bash"))
        line = " ".join(f"'{word}'" for word in words)
        done = subprocess.run(
            ["bash", "-uc", f"source {script}; COMP_WORDS=({line}); "
             f"COMP_CWORD={len(words) - 1}; COMPREPLY=(); _volctl; "
             "printf '%s\\n' ${COMPREPLY[@]+\"${COMPREPLY[@]}\"}"],
            capture_output=True, text=True, check=False,
            env={**os.environ, "VOLCTL_SOCKET": self.daemon.socket,
                 "PATH": os.path.dirname(VOLCTL) + ":" + os.environ["PATH"]})
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_completion_knows_the_commands(self):
        self.run_volctl(0, "pool", "create", "completed", "/c")
        self.run_volctl(0, "create", "completed/v", "--size", "1G")
        self.assertIn("create", self.complete("volctl", "cr"))
        self.assertEqual(self.complete("volctl", "pool", "imp"), ["import"])
        self.assertEqual(self.complete("volctl", "create", "completed/x", "--si"), ["--size"])
        self.assertEqual(self.complete("volctl", "create", "x/y", "--sector", ""), ["512", "4096"])
        self.assertEqual(self.complete("volctl", "show", "completed"), ["completed/v"])
        self.assertIn("completed", self.complete("volctl", "pool", "show", "comp"))
        self.assertEqual(self.complete("volctl", "export", "completed/v", ""), ["nbd"])
        self.assertEqual(self.complete("volctl", "completion", "f"), ["fish"])
        self.assertEqual(self.complete("volctl", "attach", "completed/v", "--for", "lib"),
                         ["libvirt"])
        for shell in ("zsh", "fish"):
            text = self.run_volctl(0, "completion", shell)
            self.assertIn("volctl", text)
            if shutil.which(shell):
                subprocess.run([shell, "-n", "-c" if shell == "zsh" else "/dev/stdin", text],
                               input=text, text=True, check=True)


class Life(unittest.TestCase):
    """Starting and ending."""

    def setUp(self):
        self.daemons = []

    def tearDown(self):
        for daemon in self.daemons:
            daemon.remove()

    def start(self, *options, **more):
        daemon = Daemon(*options, **more)
        self.daemons.append(daemon)
        return daemon

    def test_ends_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.start().ready()
            self.assertEqual(daemon.stop(number), 0)
            self.assertFalse(os.path.exists(daemon.socket))

    def stop_during(self, *call):
        """What a call is answered that the end of the daemon comes upon."""
        # On a busy machine it may reach the daemon too late, and is refused.
        for delay_s in (0.1, 1, 10):
            daemon = self.start().ready()
            daemon.call("POST", "/v1/pools", {"pool": "p", "disks": [{"disk": "/a"}]})
            answers = []
            thread = threading.Thread(target=lambda: answers.append(daemon.call(*call)))
            thread.start()
            time.sleep(delay_s)
            before = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - before, 5)
            thread.join()
            if answers[0][0] != 503:
                break
        return answers[0]

    def test_waits_for_running_calls(self):
        answer = self.stop_during("POST", "/v1/volumes",
                                  {"volume": "p/slow", "size_bytes": 1 << 30})
        self.assertEqual(answer[0], 201)

    def test_event_waits_end_with_the_daemon(self):
        self.assertEqual(self.stop_during("GET", "/v1/events?after=9&wait_seconds=60"),
                         (200, {"events": []}))

    def test_stuck_calls_do_not_hold_it_for_ever(self):
        daemon = self.start(config="shutdown_timeout = 1s\n").ready()
        daemon.call("POST", "/v1/pools", {"pool": "p", "disks": [{"disk": "/a"}]})
        with socket.socket(socket.AF_UNIX) as client:
            body = b'{"volume":"p/stuck","size_bytes":1024}'
            client.connect(daemon.socket)
            client.sendall(b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" %
                           len(body) + body)
            # The log tells what it waits for.
            until = time.monotonic() + 40
            while "create volume p/stuck: under way for 1" not in daemon.log():
                self.assertLess(time.monotonic(), until, daemon.log())
                time.sleep(0.1)
            self.assertIn("s: the fake manager sleeps\n", daemon.log())
            before = time.monotonic()
            self.assertEqual(daemon.stop(), 1)
            self.assertLess(time.monotonic() - before, 10)
        self.assertIn("commands did not end", daemon.log())
        # and the next one starts over what it left
        self.assertEqual(self.start(state=daemon.state).ready().stop(), 0)

    def test_second_signal_ends_at_once(self):
        daemon = self.start(environment={"FAKE_SHUTDOWN_HANGS": "1"}).ready()
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        self.assertIsNone(daemon.process.poll())
        before = time.monotonic()
        self.assertEqual(daemon.stop(signal.SIGINT), 1)
        self.assertLess(time.monotonic() - before, 5)

    def test_status_answers_while_pools_open(self):
        daemon = self.start(environment={"FAKE_START_HANGS": "1"})
        deadline = time.monotonic() + 20
        while True:
            try:
                status, answer = daemon.call("GET", "/v1/status")
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
        self.assertEqual((status, answer["state"]), (200, "starting"))
        status, answer = daemon.call("POST", "/v1/pools", {"pool": "p", "disks": [{"disk": "/a"}]})
        self.assertEqual((status, answer["code"]), (503, "EAGAIN"))
        before = time.monotonic()
        status, _, errors = daemon.volctl("--timeout", "2", "pool", "create", "p", "/a")
        self.assertEqual(status, 1)
        self.assertIn("still opening its pools", errors)
        self.assertGreater(time.monotonic() - before, 1.9, "volctl gives a starting daemon time")
        self.assertEqual(daemon.stop(), 1)
        self.assertEqual(daemon.process.stdout.closed, True)

    def test_failing_start_is_1(self):
        daemon = self.start(environment={"FAKE_START_FAILS": "1"})
        self.assertEqual(daemon.process.wait(20), 1)
        self.assertIn("cannot start: the fake was told to fail", daemon.log())
        daemon = self.start("--nbd", "taken:1")
        self.assertEqual(daemon.process.wait(20), 1)
        self.assertIn("cannot start: cannot listen at tcp:taken:1", daemon.log())

    def test_usage_errors_are_2(self):
        for options, message in (
                (("--bogus",), "unrecognized option"),
                (("--state",), "requires an argument"),
                ((), "--state DIR is missing"),
                (("--state", "/x", "word"), "options only"),
                (("--state", "/x", "--reactors", "0"), "not within 1 to 64"),
                (("--state", "/x", "--log-level", "loud"), "is not one of"),
                (("--state", "/x", "--config", "/nonexistent"), "cannot read the configuration"),
                (("--state", "/x", "--nbd", "a:1\nb"), "line break"),
                (("--state", ""), "name of a directory"),
        ):
            done = subprocess.run([DAEMON, *options], capture_output=True, text=True, check=False,
                                  timeout=20)
            self.assertEqual((done.returncode, done.stdout), (2, ""), options)
            self.assertIn(message, done.stderr, options)

    def unprivileged(self, lock_memory):
        """Started by somebody who is not root, with little memory to lock and no tmpfs given."""
        nobody = 65534
        scratch = tempfile.mkdtemp(prefix="volmgr-test-", dir="/dev/shm")
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        os.chown(scratch, nobody, nobody)
        path = os.path.join(scratch, "volmgrd.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"[daemon]\nreactors = 1\nlock_memory = {lock_memory}\n")
        limit = (8 << 20, 8 << 20)
        process = subprocess.Popen(
            [DAEMON, "--state", scratch + "/state", "--config", path], user=nobody, group=nobody,
            extra_groups=[], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, limit))

        def clean():
            process.kill()
            process.communicate()

        self.addCleanup(clean)
        return scratch, process

    @unittest.skipUnless(os.getuid() == 0, "only root can become somebody else")
    def test_runs_without_root(self):
        try:
            subprocess.run([DAEMON, "--version"], user=65534, capture_output=True, check=True)
        except (PermissionError, subprocess.CalledProcessError):
            self.skipTest("the build directory is closed to others")
        with open(DAEMON, "rb") as file:
            # The sanitizers' mlock() does nothing and says that it is done.
            locks = re.search(b"__[at]san_init", file.read()) is None
        volatile = "/dev/shm/volmgr-65534"
        self.addCleanup(lambda: [shutil.rmtree(path) for path in
                                 set(glob.glob(volatile + "/*")) - before])
        before = set(glob.glob(volatile + "/*"))
        scratch, process = self.unprivileged("auto")
        self.assertEqual(process.stdout.readline(), "ready\n")
        status = json.loads(subprocess.run(
            [VOLCTL, "-s", scratch + "/state/volmgrd.sock", "--json", "status"],
            capture_output=True, check=True).stdout)
        self.assertEqual(len(set(glob.glob(volatile + "/*")) - before), 1)
        process.terminate()
        self.assertEqual(process.wait(20), 0)
        if locks:
            self.assertFalse(status["memory_locked"])
            self.assertFalse(status["io_flusher"])
            self.assertIn("memory is not locked", process.stderr.read())
            _, process = self.unprivileged("yes")
            self.assertEqual(process.wait(20), 1)
            self.assertIn("CAP_IPC_LOCK", process.stderr.read())

    def look(self, status, *options):
        done = subprocess.run([DAEMON, *options], capture_output=True, text=True, check=False,
                              timeout=20)
        self.assertEqual(done.returncode, status, (options, done.stdout, done.stderr))
        return done.stdout + done.stderr

    def test_looking_needs_a_state_without_a_daemon(self):
        daemon = self.start().ready()
        options = ("--config", daemon.config, "--state", daemon.state)
        self.assertIn("in use by another volmgrd", self.look(1, "--check", *options))
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(self.look(0, "--check", *options), "no pools\n")
        self.assertIn('there is no pool "p"', self.look(1, "--check", "--pool", "p", *options))
        self.assertIn('there is no pool "p"', self.look(1, "--dump", "--pool", "p", *options))
        self.assertIn("no name of a pool", self.look(1, "--dump", "--pool", "../p", *options))
        self.assertIn("needs --pool", self.look(2, "--dump", *options))
        self.assertIn("there is no state directory", self.look(
            1, "--check", "--state", daemon.state + "/none"))
        self.assertFalse(os.path.exists(daemon.state + "/none"))

    def test_informing_options(self):
        for option, part in (("--help", "Usage: volmgrd"), ("--version", "volmgrd "),
                             ("--print-config", "[nbd]")):
            done = subprocess.run([DAEMON, option], capture_output=True, text=True, check=False,
                                  timeout=20)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(part, done.stdout)

    def test_configuration_errors_have_a_line(self):
        daemon = self.start(config="reactor = 1\n")
        self.assertEqual(daemon.process.wait(20), 2)
        self.assertIn(f'{daemon.config}:6: unknown key "reactor" in [daemon]', daemon.log())

    def test_stale_socket_is_replaced(self):
        daemon = self.start().ready()
        daemon.process.kill()
        daemon.process.wait()
        self.assertTrue(os.path.exists(daemon.socket))
        again = self.start(state=daemon.state).ready()
        self.assertEqual(again.call("GET", "/v1/status")[0], 200)
        self.assertEqual(again.stop(), 0)

    def test_foreign_files_are_left_alone(self):
        daemon = self.start(config="[api]\nsocket = /dev/null\n")
        self.assertEqual(daemon.process.wait(20), 1)
        self.assertIn("/dev/null exists and is not a socket", daemon.log())
        self.assertTrue(os.path.exists("/dev/null"))

    def test_socket_in_use_is_left_alone(self):
        first = self.start().ready()
        second = self.start(config=f"[api]\nsocket = {first.socket}\n")
        self.assertEqual(second.process.wait(20), 1)
        self.assertIn("another process listens", second.log())
        self.assertEqual(first.call("GET", "/v1/status")[0], 200)
        self.assertEqual(first.stop(), 0)

    def test_service_manager_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "notify")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.bind(path)
                notify.settimeout(20)
                daemon = self.start(environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"})
                self.assertEqual(notify.recv(100), b"READY=1")
                for _ in range(3):
                    self.assertEqual(notify.recv(100), b"WATCHDOG=1")
                daemon.process.send_signal(signal.SIGTERM)
                while (message := notify.recv(100)) == b"WATCHDOG=1":
                    pass
                self.assertEqual(message, b"STOPPING=1")
                self.assertEqual(daemon.process.wait(20), 0)

    def test_nothing_is_left_in_memory(self):
        daemon = self.start().ready()
        self.assertEqual(daemon.stop(), 0)
        left = [path for path in glob.glob(daemon.scratch + "/**", recursive=True)
                if os.path.isfile(path)]
        # Of the state: what a real manager remembers, and an identity where the machine has none.
        self.assertEqual({os.path.basename(path) for path in left} -
                         {"host-id", "events", "daemon"}, {"lock", "volmgrd.conf", "errors"})


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
