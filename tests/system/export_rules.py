#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An export is used by the hosts that it was made for and by nobody else: by network, by the name
that they prove, with TLS or without, and the default one by those that ask for no name."""

import os

import volmgr_nbd
from volmgr_env import MIB, Skip, check, check_equal, run

CONFIG = "[nbd]\ntls = optional\ntls_psk = {psk}\n"


def make_keys(env):
    path = env.path("keys.psk")
    with open(path, "w", encoding="ascii") as file:
        file.write(f"web1:{os.urandom(32).hex()}\nweb2:{os.urandom(32).hex()}\n")
    os.chmod(path, 0o600)
    return path


class Host:
    """A host that connects in one way."""

    def __init__(self, daemon, keys, tcp=True, name=None):
        self.daemon, self.keys, self.tcp, self.name = daemon, keys, tcp, name

    def _handle(self):
        nbd = volmgr_nbd.need_libnbd()
        handle = nbd.NBD()
        if not handle.supports_tls():
            raise Skip("libnbd was built without TLS")
        if self.name:
            handle.set_tls(nbd.TLS_REQUIRE)
            handle.set_tls_psk_file(self.keys)
            handle.set_tls_username(self.name)
        return handle

    def _connect(self, handle):
        if self.tcp:
            handle.connect_tcp("127.0.0.1", str(self.daemon.port))
        else:
            handle.connect_unix(self.daemon.nbd_socket)

    def can_use(self, export):
        handle = self._handle()
        handle.set_export_name(export)
        if volmgr_nbd.error_code(self._connect, handle) != 0:
            return False
        handle.pread(512, 0)
        volmgr_nbd.close(handle)
        return True

    def names(self):
        handle = self._handle()
        handle.set_opt_mode(True)
        self._connect(handle)
        names = set()
        handle.opt_list(lambda name, description: names.add(name))
        handle.opt_abort()
        return names


def check_networks(daemon, plain, local):
    daemon.volctl("export", "p/v", "nbd", "--name", "here", "--host", "127.0.0.0/8")
    daemon.volctl("export", "p/v", "nbd", "--name", "elsewhere", "--host", "10.0.0.0/8", "--host",
                  "2001:db8::/32")
    daemon.volctl("export", "p/v", "nbd", "--name", "machine", "--host", "local")
    check(plain.can_use("here") and not local.can_use("here"), "a rule for 127.0.0.0/8")
    check(not plain.can_use("elsewhere") and not local.can_use("elsewhere"), "a rule for others")
    check(local.can_use("machine") and not plain.can_use("machine"), "a rule for this machine")


def check_names(daemon, plain, web1, web2):
    daemon.volctl("export", "p/v", "nbd", "--name", "one", "--host", "tls:web1")
    daemon.volctl("export", "p/v", "nbd", "--name", "any", "--host", "tls:*")
    daemon.volctl("export", "p/v", "nbd", "--name", "either", "--host", "web2", "--host",
                  "127.0.0.1")
    check(web1.can_use("one") and not web2.can_use("one") and not plain.can_use("one"),
          "a rule for web1")
    check(web1.can_use("any") and web2.can_use("any") and not plain.can_use("any"),
          "a rule for who proves a name")
    check(web1.can_use("either") and web2.can_use("either") and plain.can_use("either"),
          "a rule for a name or a network")


def check_tls(daemon, plain, local, web1):
    daemon.volctl("export", "p/v", "nbd", "--name", "secret", "--tls", "required")
    daemon.volctl("export", "p/v", "nbd", "--name", "fast", "--tls", "off")
    check(web1.can_use("secret") and not plain.can_use("secret") and not local.can_use("secret"),
          "an export that requires TLS")
    check(plain.can_use("fast") and local.can_use("fast") and not web1.can_use("fast"),
          "an export without TLS")


def check_impossible(env):
    """A rule that no host could satisfy is refused, not kept."""
    daemon = env.daemon("plain")
    daemon.volctl("pool", "create", "p", env.file_disk(300 * MIB))
    daemon.volctl("create", "p/v", "--size", "1G")
    for rule in (("--tls", "required"), ("--host", "tls:web1"),
                 ("--host", "web1", "--tls", "off")):
        error = daemon.refused("export", "p/v", "nbd", *rule)
        check_equal(error.code, "EINVAL", f"{rule} where TLS is not offered")
    check_equal(daemon.volctl("exports")["exports"], [], "exports")
    daemon.stop()


def check_default(daemon, plain, web1):
    check(not plain.can_use(""), "there is no default export yet")
    daemon.volctl("export", "p/w", "nbd", "--default", "--tls", "required")
    check(web1.can_use("") and not plain.can_use(""), "the default export and its rule")
    error = daemon.refused("export", "p/v", "nbd", "--name", "second", "--default")
    check("p/w" in error.body["why"], f"a second default export: {error}")


def check_all(plain, local, web1, web2):
    check_equal(plain.names(), {"here", "either", "fast"}, "what is offered without TLS")
    check_equal(local.names(), {"machine", "fast"}, "what is offered on this machine")
    check_equal(web1.names(), {"here", "one", "any", "either", "secret", "p/w"},
                "what web1 is offered")
    check_equal(web2.names(), {"here", "any", "either", "secret", "p/w"}, "what web2 is offered")
    check(web1.can_use("") and not plain.can_use("one") and not web2.can_use("one"), "the rules")


def check_shown(daemon):
    exports = {entry["name"]: entry for entry in daemon.volctl("exports")["exports"]}
    check_equal(exports["elsewhere"]["hosts"], ["10.0.0.0/8", "2001:db8::/32"], "hosts")
    check_equal(exports["either"]["hosts"], ["tls:web2", "127.0.0.1"], "hosts")
    check_equal((exports["secret"]["tls"], exports["fast"]["tls"], exports["one"]["tls"]),
                ("required", "off", "allowed"), "TLS rules")
    check_equal([name for name in exports if exports[name]["default"]], ["p/w"], "the default")
    answer = daemon.volctl("attach", "p/w", "--for", "nbdinfo")["attach"]
    check_equal([item["uri"] for item in answer], [f"nbds://127.0.0.1:{daemon.port}/p/w"],
                "where to attach an export that requires TLS")


def test(env):
    volmgr_nbd.need_libnbd()
    keys = make_keys(env)
    daemon = env.daemon(config=CONFIG.format(psk=keys))
    daemon.volctl("pool", "create", "p", env.file_disk(300 * MIB))
    daemon.volctl("create", "p/v", "--size", "1G")
    daemon.volctl("create", "p/w", "--size", "1G")
    plain, local = Host(daemon, keys), Host(daemon, keys, tcp=False)
    web1, web2 = Host(daemon, keys, name="web1"), Host(daemon, keys, name="web2")
    check_networks(daemon, plain, local)
    check_names(daemon, plain, web1, web2)
    check_tls(daemon, plain, local, web1)
    check_default(daemon, plain, web1)
    check_all(plain, local, web1, web2)
    check_shown(daemon)
    daemon.kill()
    daemon.start()
    check_all(plain, local, web1, web2)
    check_shown(daemon)
    check_impossible(env)
    daemon.volctl("unexport", "p/w")
    check(not web1.can_use(""), "the default export is gone")
    daemon.stop()


run(test, limit_s=120)
