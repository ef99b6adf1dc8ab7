#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots, clones, changes and schedules in the API and volctl, around a manager in memory.

Usage: api_snapshots_test.py FAKE_VOLMGRD VOLCTL [unittest arguments]
"""
import json
import sys
import time
import unittest

import api_test


class Api(api_test.WithDaemon):
    """Plain HTTP."""

    def test_snapshots(self):
        check = self.shapes.check
        self.good("POST", "/v1/pools", {"pool": "snaps", "disks": [{"disk": "/s"}]}, 201)
        for name in "ab":
            self.good("POST", "/v1/volumes", {"volume": f"snaps/{name}", "size_bytes": 1 << 30},
                      201)
        made = self.good("POST", "/v1/snapshots", {
            "volumes": ["snaps/a", "snaps/b@own"], "name": "common", "immutable_seconds": 60},
            201)["snapshots"]
        self.assertEqual([entry["snapshot"] for entry in made],
                         ["snaps/a@common", "snaps/b@own"])
        for entry in made:
            check("snapshot", entry)
            self.assertEqual(entry["group"], made[0]["group"])
            self.assertGreater(entry["immutable_until"], time.strftime("%Y-%m-%dT"))
        made = self.good("POST", "/v1/snapshots", {"volumes": ["snaps/a"]}, 201)["snapshots"]
        self.assertEqual(made[0]["snapshot"], "snaps/a@20231114T221320Z")
        self.assertEqual((made[0]["group"], made[0]["immutable_until"]), ("", ""))
        made = self.good("POST", "/v1/snapshots", {"volumes": ["snaps/a@scheduled"]}, 201)
        self.assertEqual(made["snapshots"][0]["rules"], ["1", "3"])
        for query, count in (("", 4), ("?scope=snaps", 4), ("?scope=snaps/b", 1),
                             ("?scope=snaps%2Fb", 1), ("?scope=none", 0)):
            got = self.good("GET", f"/v1/snapshots{query}")["snapshots"]
            self.assertEqual(len([entry for entry in got
                                  if entry["snapshot"].startswith("snaps/")]), count, query)
        hidden = self.good("GET", "/v1/snapshots?scope=snaps/b&all=true")["snapshots"][-1]
        self.assertEqual((hidden["snapshot"], hidden["state"]), ("snaps/b@#99", "kept for clones"))
        check("snapshot", self.good("POST", "/v1/snapshots/snaps/a@scheduled/protect",
                                    {"immutable_seconds": 5}))
        volume = self.good("GET", "/v1/volumes/snaps/a")
        check("volume", volume)
        self.assertEqual((volume["snapshot_count"], volume["origin"]), (3, ""))
        clone = self.good("POST", "/v1/clones", {
            "source": "snaps/a@common", "volume": "snaps/c", "tier": "2", "reserve_bytes": 7}, 201)
        check("volume", clone)
        self.assertEqual((clone["volume"], clone["origin"], clone["tier"]),
                         ("snaps/c", "snaps/a@common", "2"))
        self.good("POST", "/v1/clones", {"source": "snaps/a", "volume": "snaps/d"}, 201)
        self.bad(400, "EXDEV", "same pool", "POST", "/v1/clones",
                 {"source": "snaps/a", "volume": "other/d"})
        check("volume", self.good("POST", "/v1/snapshots/snaps/a%40common/rollback", {}))
        self.bad(404, "ENOENT", "no such snapshot", "POST", "/v1/snapshots/snaps/a@no/rollback")
        self.bad(400, "EINVAL", "@SNAPSHOT", "POST", "/v1/snapshots/snaps/a/rollback")
        self.bad(400, "EINVAL", "named twice", "POST", "/v1/snapshots",
                 {"volumes": ["snaps/a@x", "snaps/a@y"]})
        self.bad(400, "EINVAL", "at least one", "POST", "/v1/snapshots", {"volumes": []})
        self.bad(409, "EEXIST", "already", "POST", "/v1/snapshots", {"volumes": ["snaps/b@own"]})
        export = self.good("POST", "/v1/exports", {"volume": "snaps/a@common",
                                                   "protocol": "nbd"}, 201)
        check("export", export)
        self.assertEqual((export["volume"], export["name"], export["read_only"]),
                         ("snaps/a@common", "snaps/a@common", True))
        sessions = self.good("GET", "/v1/sessions?volume=snaps/a@common")["sessions"]
        self.assertEqual([session["volume"] for session in sessions], ["snaps/a@common"])
        self.assertEqual(self.good("GET", "/v1/sessions?volume=snaps/a")["sessions"], [])
        check("deleted", self.good("DELETE", "/v1/exports/snaps/a@common?force=true"))

    def test_snapshots_are_deleted(self):
        check = self.shapes.check
        self.good("POST", "/v1/pools", {"pool": "gone", "disks": [{"disk": "/g"}]}, 201)
        self.good("POST", "/v1/volumes", {"volume": "gone/a", "size_bytes": 1 << 30}, 201)
        for name in ("one", "two", "origin"):
            self.good("POST", "/v1/snapshots", {"volumes": [f"gone/a@{name}"]}, 201)
        self.good("POST", "/v1/snapshots", {"volumes": ["gone/a@fixed"],
                                            "immutable_seconds": 99}, 201)
        path = "/v1/volumes/gone/a@one?more=gone/a@two,gone/a@origin"
        tried = self.good("DELETE", path + "&dry_run=true")
        check("deleted", tried)
        self.assertEqual((tried["dry_run"], tried["freed_bytes"], tried["unnamed_count"],
                          tried["job"]), (True, 3 << 20, 1, None))
        self.assertEqual(len(self.good("GET", "/v1/snapshots?scope=gone")["snapshots"]), 4)
        self.assertIn("delete gone/a@one (dry run): done", self.daemon.log())
        done = self.good("DELETE", path)
        check("deleted", done)
        self.assertEqual((done["dry_run"], done["freed_bytes"], done["unnamed_count"]),
                         (False, None, 1))
        self.assertEqual((done["job"]["kind"], done["job"]["subject"]), ("reclaim", "gone"))
        self.bad(404, "ENOENT", "no such snapshot", "DELETE", path)
        self.bad(403, "EPERM", "immutable", "DELETE", "/v1/volumes/gone/a@fixed")
        self.bad(400, "EINVAL", "named twice", "DELETE",
                 "/v1/volumes/gone/a@one?more=gone/a@one")
        self.bad(400, "EINVAL", "one by one", "DELETE", "/v1/volumes/gone/a@one?more=gone/a")
        self.bad(400, "EINVAL", "one by one", "DELETE", "/v1/volumes/gone/a?more=gone/a@one")
        self.bad(400, "EINVAL", "goes with a volume", "DELETE",
                 "/v1/volumes/gone/a@one?snapshots=true")
        self.bad(400, "EINVAL", "POOL/VOLUME", "DELETE", "/v1/volumes/gone/a@one?more=,")
        answer = self.bad(409, "ENOTEMPTY", "has snapshots", "DELETE", "/v1/volumes/gone/a")
        self.assertIn("--snapshots", answer["what_to_do"])
        tried = self.good("DELETE", "/v1/volumes/gone/a?snapshots=true&dry_run=true")
        self.assertEqual(tried["freed_bytes"], 5 << 20)
        self.good("GET", "/v1/volumes/gone/a")
        self.good("DELETE", "/v1/volumes/gone/a?snapshots=true")
        self.bad(404, "ENOENT", "no such volume", "GET", "/v1/volumes/gone/a")

    def test_changes_come_in_parts(self):
        self.good("POST", "/v1/pools", {"pool": "diff", "disks": [{"disk": "/d"}]}, 201)
        self.good("POST", "/v1/volumes", {"volume": "diff/a", "size_bytes": 1 << 20}, 201)
        self.good("POST", "/v1/snapshots", {"volumes": ["diff/a@one"]}, 201)
        runs = []
        offset = 0
        while offset is not None:
            part = self.good("GET", f"/v1/diff?from=diff/a@one&offset_bytes={offset}")
            self.shapes.check("diff", part)
            self.assertEqual((part["from"], part["to"], part["size_bytes"]),
                             ("diff/a@one", "diff/a", 1 << 20))
            self.assertEqual(part["changed_bytes"],
                             sum(run["length_bytes"] for run in part["runs"]))
            runs += part["runs"]
            offset = part["next_offset_bytes"]
        self.assertEqual([run["offset_bytes"] for run in runs], list(range(0, 65536, 8192)))
        part = self.good("GET", "/v1/diff?from=diff/a@one&to=diff/a@two&offset_bytes=8192"
                                "&length_bytes=4096")
        self.assertEqual(part["runs"], [{"offset_bytes": 8192, "length_bytes": 4096}])
        self.assertEqual((part["to"], part["next_offset_bytes"]), ("diff/a@two", None))
        self.bad(400, "EINVAL", "from is missing", "GET", "/v1/diff")
        self.bad(400, "EINVAL", "@SNAPSHOT", "GET", "/v1/diff?from=diff/a")
        self.bad(404, "ENOENT", "no such snapshot", "GET", "/v1/diff?from=diff/a@no")

    def test_schedules(self):
        self.good("POST", "/v1/pools", {"pool": "plan", "disks": [{"disk": "/p"}]}, 201)
        self.good("POST", "/v1/volumes", {"volume": "plan/a", "size_bytes": 1 << 30}, 201)
        path = "/v1/volumes/plan/a/snapshot-policy"
        rules = [{"every_seconds": 900, "keep": 8},
                 {"every_seconds": 86400, "keep": 14, "immutable_seconds": 3600}]
        policy = self.good("POST", path, {"rules": rules})
        self.shapes.check("policy", policy)
        self.assertEqual(policy["rules"], [
            {"number": 1, "every_seconds": 900, "keep": 8, "immutable_seconds": 0},
            {"number": 2, "every_seconds": 86400, "keep": 14, "immutable_seconds": 3600}])
        self.assertEqual(policy["summary"], "every 15m keep 8, every 1d keep 14")
        self.assertIs(self.good("GET", "/v1/volumes/plan/a")["snapshot_policy"], True)
        for query in ("", "?scope=plan", "?scope=plan/a"):
            self.assertEqual(self.good("GET", f"/v1/snapshot-policies{query}")["policies"],
                             [policy])
        self.assertEqual(self.good("POST", path, {"off": True})["rules"], [])
        self.assertEqual(self.good("GET", "/v1/snapshot-policies")["policies"], [])
        self.bad(400, "EINVAL", "exclude", "POST", path, {"off": True, "rules": rules})
        self.bad(400, "EINVAL", "rules are missing", "POST", path, {})
        self.bad(400, "EINVAL", "rules are missing", "POST", path, {"rules": []})
        self.bad(400, "E2BIG", "more than 8", "POST", path, {"rules": rules * 5})
        self.bad(404, "ENOENT", "no such volume", "POST",
                 "/v1/volumes/plan/b/snapshot-policy", {"rules": rules})


class Volctl(api_test.WithDaemon):
    """The command line."""

    def test_snapshots(self):
        run = self.run_volctl
        run(0, "pool", "create", "snap", "/s")
        run(0, "create", "snap/a", "--size", "1M")
        run(0, "create", "snap/b", "--size", "1M")
        header = ("SNAPSHOT   CREATED                    SIZE  MAPPED  EXCLUSIVE  SHARED  "
                  "IMMUTABLE UNTIL  RULES  STATE  CLONES\n")
        line = ("  2023-11-14T22:13:20.000Z  1 MiB   3 MiB      1 MiB   2 MiB  -                "
                "-      kept        0\n")
        made = line.replace("1 MiB   2 MiB  -", "    -       -  -")
        self.assertEqual(run(0, "snapshots", "snap"), "no snapshots\n")
        self.assertEqual(run(0, "snapshot", "snap/a", "snap/b", "--name", "m1"),
                         f"{header}snap/a@m1{made}snap/b@m1{made}")
        self.assertEqual(run(0, "snapshots", "snap"),
                         f"{header}snap/a@m1{line}snap/b@m1{line}"
                         "2 snapshots, exclusive to single ones: 2 MiB\n")
        self.assertEqual(run(0, "clone", "snap/a@m1", "snap/c"),
                         "volume snap/c begins as snap/a@m1\n")
        self.assertEqual(run(0, "rollback", "snap/a@m1"), "the volume is what snap/a@m1 is\n")
        self.assertIn("8 runs, 32 KiB changed\n", run(0, "diff", "snap/a@m1"))
        self.assertIn("nothing has changed\n", run(0, "diff", "snap/a@m1", "--offset", "64K"))
        whole = json.loads(run(0, "diff", "snap/a@m1", "snap/a", "--json"))
        self.assertEqual([run["offset_bytes"] for run in whole["runs"]],
                         list(range(0, 65536, 8192)))
        self.assertEqual((whole["from"], whole["to"], whole["changed_bytes"],
                          whole["next_offset_bytes"]), ("snap/a@m1", "snap/a", 32768, None))
        part = json.loads(run(0, "diff", "snap/a@m1", "--offset", "8K", "--length", "36K",
                              "--json"))
        self.assertEqual([run["offset_bytes"] for run in part["runs"]],
                         list(range(8192, 44 * 1024, 8192)))
        self.assertEqual(run(0, "delete", "snap/a@m1", "snap/b@m1", "--dry-run"),
                         "2 snapshots can be deleted; that would free 2 MiB\n")
        self.assertEqual(run(0, "delete", "snap/b@m1"), "snapshot snap/b@m1 deleted\n")
        run(0, "snapshot", "snap/b@origin", "--immutable", "2h")
        self.assertEqual(run(0, "protect", "snap/b@origin", "30d"),
                         "snapshot snap/b@origin is immutable\n")
        self.assertIn("immutable", run(1, "delete", "snap/b@origin"))
        self.assertIn("  what to do: Give --snapshots", run(1, "delete", "snap/a"))
        run(0, "snapshot", "snap/a@origin")
        self.assertEqual(run(0, "delete", "snap/a@origin"),
                         "snapshot snap/a@origin deleted\n"
                         "snapshots that stay without a name until no clone needs them: 1\n")
        self.assertEqual(run(0, "delete", "snap/a", "--snapshots", "--wait"),
                         "volume snap/a deleted\n")
        table = "RULE  EVERY  KEEP  IMMUTABLE\n   1    15m     8          -\n"
        self.assertEqual(run(0, "snapshot-policy", "snap/b", "--every", "15m", "--keep", "8"),
                         table + "next: 2023-11-14T22:15:00.000Z\n")
        self.assertIn(table, run(0, "snapshot-policy", "snap/b"))
        self.assertIn(table, run(0, "snapshot-policy", "snap/b", "--show"))
        self.assertIn("snap/b  every 15m keep 8", run(0, "snapshot-policies"))
        self.assertIn("alone", run(2, "snapshot-policy", "snap/b", "--show", "--off"))
        self.assertEqual(run(0, "snapshot-policy", "snap/b", "--off"),
                         "no snapshots of snap/b are made by a schedule\n")
        self.assertIn("snap/b@origin exported", run(0, "export", "snap/b@origin", "nbd"))
        self.assertIn("export=snap/b@origin,read-only=on",
                      run(0, "attach", "snap/b@origin", "--for", "qemu"))
        run(0, "unexport", "snap/b@origin", "--force")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
