#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Volumes are created, listed, shown, resized, renamed, given a reserve and deleted by volctl, and
each of these either happens and stays, or is refused with a reason."""

import volmgr_nbd
from volmgr_env import GIB, MIB, check, check_equal, run, wait_until


def volumes(daemon):
    return {entry["volume"]: entry for entry in daemon.volctl("list")["volumes"]}


def check_create(daemon):
    daemon.volctl("create", "p/a", "--size", "10G")
    daemon.volctl("create", "p/b", "--size", "1000G", "--sector", "4096")
    shown = daemon.volctl("show", "p/a")
    check_equal(shown["size_bytes"], 10 * GIB, "size of p/a")
    check_equal(shown["sector_bytes"], 512, "default sector")
    check_equal(shown["mapped_bytes"], 0, "space that a new volume takes")
    check_equal(daemon.volctl("show", "p/b")["sector_bytes"], 4096, "sector of p/b")
    check_equal(set(volumes(daemon)), {"p/a", "p/b"}, "list")
    check_equal(daemon.refused("create", "p/a", "--size", "1G").code, "EEXIST", "the same again")
    check_equal(daemon.refused("create", "nowhere/a", "--size", "1G").code, "ENOENT", "no pool")
    check_equal(daemon.refused("show", "p/none").code, "ENOENT", "no such volume")
    guids = {entry["guid"] for entry in volumes(daemon).values()}
    check_equal(len(guids), 2, "volumes have identities of their own")


def check_resize(daemon):
    daemon.volctl("export", "p/a", "nbd")
    handle = volmgr_nbd.connect(daemon, "p/a")
    handle.pwrite(b"\x5a" * 4096, 9 * GIB)
    volmgr_nbd.close(handle)
    daemon.volctl("resize", "p/a", "12G")
    handle = volmgr_nbd.connect(daemon, "p/a")
    check_equal(handle.get_size(), 12 * GIB, "size for a host that attaches after the growth")
    check_equal(bytes(handle.pread(4096, 12 * GIB - 4096)), bytes(4096), "the new end")
    check_equal(bytes(handle.pread(4096, 9 * GIB)), b"\x5a" * 4096, "what was there")
    volmgr_nbd.close(handle)

    error = daemon.refused("resize", "p/a", "9G")
    check_equal(error.code, "ENOTEMPTY", "a shrink that would cut off data")
    check_equal(volumes(daemon)["p/a"]["size_bytes"], 12 * GIB, "size after the refused shrink")
    daemon.volctl("resize", "p/a", "10G")
    check_equal(volumes(daemon)["p/a"]["size_bytes"], 10 * GIB, "size after an empty tail went")
    daemon.volctl("resize", "p/a", "12G")
    handle = volmgr_nbd.connect(daemon, "p/a")
    check_equal(bytes(handle.pread(4096, 11 * GIB)), bytes(4096), "grown again: zeroes")
    volmgr_nbd.close(handle)
    check_equal(daemon.volctl_raw("resize", "p/a", "9000000000G")[0], 2, "more than 8 EiB")


def check_rename(daemon):
    guid = daemon.volctl("show", "p/a")["guid"]
    daemon.volctl("rename", "p/a", "c")
    check_equal(daemon.refused("show", "p/a").code, "ENOENT", "the old name")
    check_equal(daemon.volctl("show", "p/c")["guid"], guid, "its identity under the new name")
    check_equal(daemon.refused("rename", "p/c", "b").code, "EEXIST", "a name that is taken")
    exports = daemon.volctl("exports")["exports"]
    check_equal([(entry["volume"], entry["name"]) for entry in exports], [("p/c", "p/c")],
                "the export that had the volume's name has the new one")
    handle = volmgr_nbd.connect(daemon, "p/c")
    check_equal(bytes(handle.pread(4096, 9 * GIB)), b"\x5a" * 4096, "through the new export name")
    volmgr_nbd.close(handle)


def check_reserve(daemon):
    free = daemon.volctl("pool", "show", "p")["size_bytes"]
    daemon.volctl("reserve", "p/c", 64 * MIB)
    check_equal(volumes(daemon)["p/c"]["reserve_bytes"], 64 * MIB, "reserve")
    check(daemon.volctl("pool", "show", "p")["reserved_bytes"] >= 64 * MIB, "the pool tells of it")
    daemon.refused("reserve", "p/b", 2 * free)
    daemon.refused("create", "p/d", "--size", "100G", "--reserve", 2 * free)
    check("p/d" not in volumes(daemon), "a refused volume is there")
    daemon.volctl("reserve", "p/c", 0)
    check_equal(volumes(daemon)["p/c"]["reserve_bytes"], 0, "reserve after 0")


def check_delete(daemon):
    check_equal(daemon.refused("delete", "p/c").code, "EBUSY", "deleting an exported volume")
    daemon.volctl("unexport", "p/c")
    check(daemon.volctl("show", "p/c")["mapped_bytes"] > 0, "it holds space")
    daemon.volctl("delete", "p/c", "--wait")
    check_equal(set(volumes(daemon)), {"p/b"}, "list after the deletion")
    wait_until(lambda: daemon.volctl("pool", "show", "p")["used_bytes"] == 0, 20,
               "the space comes back")
    daemon.volctl("create", "p/c", "--size", "10G", "--reserve", "32M")
    daemon.volctl("export", "p/c", "nbd")
    handle = volmgr_nbd.connect(daemon, "p/c")
    check_equal(bytes(handle.pread(4096, 9 * GIB)), bytes(4096), "a new volume of an old name")
    volmgr_nbd.close(handle)


def check_pool_delete(daemon, disk):
    """A pool goes when it is empty, and its disk and name are free then."""
    check_equal(daemon.refused("pool", "delete", "p").code, "EBUSY", "a pool that has volumes")
    daemon.volctl("unexport", "p/c")
    daemon.volctl("delete", "p/c")
    daemon.volctl("delete", "p/b")
    daemon.volctl("pool", "delete", "p")
    check_equal(daemon.refused("pool", "delete", "p").code, "ENOENT", "a pool that is gone")
    daemon.restart()
    check_equal(daemon.volctl("pool", "list")["pools"], [], "pools after a restart")
    daemon.volctl("pool", "create", "p", disk)
    daemon.volctl("pool", "delete", "p")


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    disk = env.file_disk(400 * MIB)
    daemon.volctl("pool", "create", "p", disk)
    check_create(daemon)
    check_resize(daemon)
    check_rename(daemon)
    check_reserve(daemon)
    check_delete(daemon)
    before = volumes(daemon)
    daemon.restart()
    after = volumes(daemon)
    check_equal(set(after), set(before), "volumes after a restart")
    for name, entry in before.items():
        for field in ("size_bytes", "guid", "reserve_bytes", "sector_bytes"):
            check_equal(after[name][field], entry[field], f"{field} of {name} after a restart")
    check_pool_delete(daemon, disk)
    daemon.stop()


run(test, limit_s=60)
