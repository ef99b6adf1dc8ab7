#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hosts reach exactly what is exported, as it is exported: by name, read-only, exclusive, until it
is unexported."""

import errno

import volmgr_nbd
from volmgr_env import MIB, check, check_equal, run


def refused_connection(daemon, name):
    nbd = volmgr_nbd.need_libnbd()
    handle = nbd.NBD()
    return volmgr_nbd.error_code(handle.connect_uri, daemon.uri(name)) != 0


def exported_names(daemon):
    nbd = volmgr_nbd.need_libnbd()
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_unix(daemon.nbd_socket)
    names = set()
    handle.opt_list(lambda name, description: names.add(name))
    handle.opt_abort()
    return names


def check_names(daemon):
    check(refused_connection(daemon, "p/v"), "a volume without export can be reached")
    daemon.volctl("export", "p/v", "nbd")
    daemon.volctl("export", "p/w", "nbd", "--name", "something/else")
    check_equal(exported_names(daemon), {"p/v", "something/else"}, "names that a host is told")
    check(refused_connection(daemon, "p/w"), "p/w is exported under another name only")
    handle = volmgr_nbd.connect(daemon, "something/else", tcp=True)
    handle.pwrite(b"w" * 512, 0)
    check_equal(bytes(handle.pread(512, 0)), b"w" * 512, "through the other name")
    volmgr_nbd.close(handle)
    error = daemon.refused("export", "p/r", "nbd", "--name", "p/v")
    check_equal(error.code, "EEXIST", "a name that is taken")


def check_read_only(daemon):
    daemon.volctl("export", "p/r", "nbd", "--read-only")
    handle = volmgr_nbd.connect(daemon, "p/r")
    check(handle.is_read_only(), "the host is not told that it may not write")
    handle.set_strict_mode(0)
    code = volmgr_nbd.error_code(handle.pwrite, b"x" * 512, 0)
    check(code in (errno.EPERM, errno.EROFS), f"a write to a read-only export: errno {code}")
    check_equal(bytes(handle.pread(512, 0)), bytes(512), "the read-only export")
    volmgr_nbd.close(handle)


def check_exclusive(daemon):
    daemon.volctl("export", "p/x", "nbd", "--exclusive")
    first = volmgr_nbd.connect(daemon, "p/x")
    check(refused_connection(daemon, "p/x"), "a second host can attach to an exclusive export")
    volmgr_nbd.close(first)
    second = volmgr_nbd.connect(daemon, "p/x")
    volmgr_nbd.close(second)


def check_unexport(daemon):
    handle = volmgr_nbd.connect(daemon, "p/v")
    check_equal(daemon.refused("unexport", "p/v").code, "EBUSY", "while a host is attached")
    check_equal(bytes(handle.pread(512, 0)), bytes(512), "after the refused command")
    daemon.volctl("unexport", "p/v", "--force")
    check(volmgr_nbd.error_code(handle.pread, 512, 0) != 0, "a dropped host reads on")
    check(refused_connection(daemon, "p/v"), "an unexported volume can be reached")
    names = {entry["name"] for entry in daemon.volctl("exports")["exports"]}
    check_equal(names, {"something/else", "p/r", "p/x"}, "exports that are left")
    check_equal(daemon.refused("unexport", "p/v").code, "ENOENT", "unexport again")


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(300 * MIB))
    for name in "vwrx":
        daemon.volctl("create", f"p/{name}", "--size", "1G")
    check_names(daemon)
    check_read_only(daemon)
    check_exclusive(daemon)
    check_unexport(daemon)
    daemon.stop()


run(test, limit_s=60)
