#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The management API by TCP and TLS: who gets in, who may change something, and new certificates.

Usage: api_tls_test.py FAKE_VOLMGRD VOLCTL [unittest arguments]
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from api_test import VOLCTL, Daemon

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder, name):
        self.folder = os.path.join(folder, name)
        os.mkdir(self.folder)
        self.ca = self.path("ca.pem")
        openssl("req", "-x509", *KEY, "-keyout", self.path("ca.key"), "-out", self.ca, "-days", "2",
                "-subj", f"/CN={name}")
        with open(self.path("ca.conf"), "w", encoding="utf-8") as file:
            file.write(f"[ca]\ndefault_ca=me\n[me]\ndatabase={self.path('index')}\n"
                       f"crlnumber={self.path('crlnumber')}\ndefault_md=sha256\n"
                       "default_crl_days=2\n")
        with open(self.path("index"), "w", encoding="utf-8"):
            pass
        with open(self.path("crlnumber"), "w", encoding="utf-8") as file:
            file.write("01\n")

    def path(self, name):
        return os.path.join(self.folder, name)

    def sign(self, file, name, purpose, days="2"):
        """FILE.pem and FILE.key; returns both names."""
        key, request = self.path(file + ".key"), self.path(file + ".csr")
        certificate, extensions = self.path(file + ".pem"), self.path(file + ".ext")
        openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        with open(extensions, "w", encoding="utf-8") as text:
            text.write(f"extendedKeyUsage={purpose}\n")
            if purpose == "serverAuth":
                text.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.path("ca.key"),
                "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def revoke(self, certificate):
        """The list of revoked certificates with this one."""
        common = ("ca", "-config", self.path("ca.conf"), "-cert", self.ca, "-keyfile",
                  self.path("ca.key"))
        openssl(*common, "-revoke", certificate)
        openssl(*common, "-gencrl", "-out", self.path("crl.pem"))
        return self.path("crl.pem")


class ApiByTls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="volmgr-tls-")
        cls.authority = Authority(cls.folder, "ours")
        cls.server = cls.authority.sign("server", "localhost", "serverAuth")
        cls.admin = cls.authority.sign("admin", "admin", "clientAuth")
        cls.monitor = cls.authority.sign("monitor", "monitor", "clientAuth")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def start(self, *keys):
        config = "\n".join(("[api]", "listen = 127.0.0.1:0", f"tls_certificate = {self.server[0]}",
                            f"tls_key = {self.server[1]}", *keys, ""))
        self.daemon = Daemon(config=config).ready()
        self.addCleanup(self.daemon.remove)
        return self.daemon

    def address(self):
        listeners = self.daemon.call("GET", "/v1/status")[1]["listeners"]
        return [item["address"] for item in listeners if item["protocol"] == "api"][0][4:]

    def volctl(self, status, *words, client=None, ca=None, host="127.0.0.1"):
        port = self.address().rpartition(":")[2]
        options = ["-s", f"https://{host}:{port}", "--cacert", ca or self.authority.ca]
        if client:
            options += ["--cert", client[0], "--key", client[1]]
        done = subprocess.run([VOLCTL, *options, *words], capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, status, (words, done.stdout, done.stderr))
        return done.stdout if status == 0 else done.stderr

    def test_certificates_are_wanted(self):
        self.start(f"tls_ca = {self.authority.ca}")
        self.assertEqual(self.volctl(0, "list", client=self.admin), "no volumes\n")
        self.assertIn("created", self.volctl(0, "pool", "create", "p", "/d", client=self.monitor,
                                             host="localhost"))
        self.assertIn("no certificate", self.volctl(1, "list"))
        foreign = Authority(self.folder, "foreign")
        stranger = foreign.sign("admin", "admin", "clientAuth")
        self.assertIn("volctl: cannot list volumes", self.volctl(1, "list", client=stranger))
        # A server's certificate proves no client.
        self.assertIn("no certificate", self.volctl(1, "list", client=self.server))
        self.assertIn("certificate", self.volctl(1, "list", client=self.admin, ca=foreign.ca))
        self.assertIn("monitor at 127.0.0.1: create pool p: done", self.daemon.log())
        self.assertEqual(self.daemon.stop(), 0)

    def test_others_than_administrators_may_look(self):
        self.start(f"tls_ca = {self.authority.ca}", "administrators = admin",
                   "administrators = other")
        self.volctl(0, "pool", "create", "p", "/d", client=self.admin)
        self.assertIn("POOL", self.volctl(0, "pool", "list", client=self.monitor))
        self.assertIn("volmgr_exports 0", self.volctl(0, "metrics", client=self.monitor))
        for words in (("pool", "create", "q", "/e"), ("create", "p/v", "--size", "1G"),
                      ("check", "p"), ("session", "drop", "1")):
            self.assertIn("may look, and change nothing",
                          self.volctl(1, *words, client=self.monitor))
        self.volctl(0, "create", "p/v", "--size", "1G", client=self.admin)
        self.volctl(0, "delete", "p/v", "--wait", client=self.admin)
        self.assertEqual(self.daemon.stop(), 0)

    def test_everybody_may_look_where_it_is_said(self):
        self.start("tls_verify_client = no")
        self.assertEqual(self.volctl(0, "list"), "no volumes\n")
        self.assertIn("may look", self.volctl(1, "pool", "create", "p", "/d"))
        # Without authorities no name is proved.
        self.assertIn("may look", self.volctl(1, "pool", "create", "p", "/d", client=self.admin))
        self.assertEqual(self.daemon.stop(), 0)

    def test_revoked_and_expired_certificates(self):
        revoked = self.authority.sign("revoked", "revoked", "clientAuth")
        crl = self.authority.revoke(revoked[0])
        self.start(f"tls_ca = {self.authority.ca}", f"tls_crl = {crl}")
        self.volctl(0, "list", client=self.admin)
        self.assertIn("no certificate", self.volctl(1, "list", client=revoked))
        self.assertEqual(self.daemon.stop(), 0)

    def test_new_certificates_without_a_restart(self):
        live = os.path.join(self.folder, "live")
        os.mkdir(live)
        files = {"cert": self.server[0], "key": self.server[1], "ca": self.authority.ca}
        for name, path in files.items():
            shutil.copy(path, os.path.join(live, name))
        config = (f"[api]\nlisten = 127.0.0.1:0\ntls_certificate = {live}/cert\n"
                  f"tls_key = {live}/key\ntls_ca = {live}/ca\n")
        self.daemon = Daemon(config=config).ready()
        self.addCleanup(self.daemon.remove)
        self.volctl(0, "list", client=self.admin)
        follower = subprocess.Popen(
            [VOLCTL, "-s", f"https://{self.address()}", "--cacert", self.authority.ca, "--cert",
             self.admin[0], "--key", self.admin[1], "events", "--follow", "--json"],
            stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        later = Authority(self.folder, "later")
        certificate, key = later.sign("server", "localhost", "serverAuth")
        admin = later.sign("admin", "admin", "clientAuth")

        # A key that does not belong to the certificate: everything stays as it is.
        shutil.copy(key, os.path.join(live, "key"))
        self.reload("were not read again")
        self.volctl(0, "list", client=self.admin)

        shutil.copy(certificate, os.path.join(live, "cert"))
        shutil.copy(later.ca, os.path.join(live, "ca"))
        for _ in range(3):
            self.reload("the API's TLS files were read again")
        self.volctl(0, "pool", "create", "p", "/d", client=admin, ca=later.ca)
        self.assertIn("volctl:", self.volctl(1, "list", client=self.admin, ca=later.ca))
        # Who was connected before is served to the end of his call.
        self.assertEqual(json.loads(follower.stdout.readline())["name"], "pool-created")
        follower.kill()
        follower.wait()
        self.assertEqual(self.daemon.stop(), 0)

    def reload(self, told):
        count = self.daemon.log().count(told)
        self.daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while self.daemon.log().count(told) == count:
            self.assertLess(time.monotonic(), deadline, self.daemon.log())
            time.sleep(0.02)

    def test_hostile_bytes_do_no_harm(self):
        self.start(f"tls_ca = {self.authority.ca}")
        host, _, port = self.address().rpartition(":")
        idle = [socket.create_connection((host, int(port)), timeout=20) for _ in range(20)]
        for number, text in enumerate((b"GET /v1/status HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff",
                                       os.urandom(2000), b"")):
            with contextlib.suppress(OSError):  # it may have hung up already
                idle[number].sendall(text)
                idle[number].shutdown(socket.SHUT_WR)
        self.volctl(0, "list", client=self.admin)
        for item in idle:
            item.close()
        self.volctl(0, "list", client=self.admin)
        self.assertEqual(self.daemon.stop(), 0)

    def test_bad_files_are_told(self):
        for keys, part in (((f"tls_ca = {self.folder}/none",), "cannot read"),
                           ((f"tls_ca = {self.server[1]}",), "ertificate"),
                           ((f"tls_ca = {self.authority.ca}", f"tls_crl = {self.server[0]}"),
                            "[api] TLS")):
            config = "\n".join(("[api]", "listen = 127.0.0.1:0",
                                f"tls_certificate = {self.server[0]}",
                                f"tls_key = {self.server[1]}", *keys, ""))
            daemon = Daemon(config=config)
            self.addCleanup(daemon.remove)
            self.assertEqual(daemon.process.wait(20), 1, daemon.log())
            self.assertIn(part, daemon.log())
            self.assertIn("cannot start: [api] TLS", daemon.log())
        for address in ("localhost", ":::1", "127.0.0.1:http", "1.2.3.4.5:6", "127.0.0.1:99999"):
            daemon = Daemon(config=f"[api]\nlisten = {address}\n"
                                   f"tls_certificate = {self.server[0]}\n"
                                   f"tls_key = {self.server[1]}\ntls_ca = {self.authority.ca}\n")
            self.addCleanup(daemon.remove)
            self.assertEqual(daemon.process.wait(20), 1, daemon.log())
            self.assertIn("[api] listen", daemon.log())


if __name__ == "__main__":
    if not shutil.which("openssl"):
        print("skipped: there is no program openssl")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
